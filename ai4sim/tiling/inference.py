"""A network's output on a field of any size, by tiles or in one pass."""

from collections.abc import Callable, Iterable, Sequence

import torch
from rich.progress import track
from torch import Tensor, nn

from ai4sim.errors import InputError
from ai4sim.tiling.tiles import Fields, Tiling

Device = torch.device | str


@torch.no_grad()
def tiled_inference(
    call: Callable[..., Tensor],
    fields: Fields,
    tiling: Tiling,
    *,
    of_samples: Sequence[Tensor] = (),
    batch_size: int = 8,
    device: Device | None = None,
    output_device: Device = "cpu",
    progress: bool = False,
) -> Tensor:
    """Run a network on all tiles of a field, and blend what it gives.

    Memory holds the result, one batch of tiles and what ``call`` needs for it. A value of the result is the weighted
    mean of those of the tiles around it: sums over classes and the order of exceedance probabilities stay as they are.

    Args:
        call: maps tiles (b, C, rows, columns) to (b, K, rows, columns). It must give what may be averaged,
            probabilities (of classes, or of exceeding common thresholds) or physical values: never logits or
            parameters of a distribution, whose mean means nothing where tiles disagree. What else the network needs,
            such as the lead time, ``call`` brings along, or gets it from ``of_samples``; what differs from pixel to
            pixel, such as the position, is a channel of ``fields``.
        fields: (C, H, W) or (B, C, H, W); of an array other than a tensor, only a tile is read at a time.
        tiling: of a domain of H x W.
        of_samples: tensors (B, ...), or (1, ...) if there is no B: what differs from sample to sample, given to
            ``call`` behind the tiles, (b, ...) each.
        batch_size: tiles that ``call`` gets at once.
        device: where ``call`` takes its tiles; by default where the parameters are if it is a module, else where the
            fields are.
        output_device: where the result is summed up and returned.
        progress: whether to show a progress bar.

    Returns:
        (K, H, W) or (B, K, H, W), of the type of what ``call`` gives, but float32 if that is shorter.

    Raises:
        InputError: fields of another shape than the tiling's, tensors of another number of samples, or a batch size
            below 1.
        ValueError: a module in training mode, or a ``call`` that does not give floating-point values on its tiles.
    """
    shape = tuple(fields.shape)
    if len(shape) not in (3, 4) or shape[-2:] != tiling.shape or shape[0] < 1:
        height, width = tiling.shape
        raise InputError(
            f"fields have the shape {shape}; expected (C, {height}, {width}) or (B, C, {height}, {width}), as the"
            f" tiling's domain"
        )
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; expected at least 1")
    if isinstance(call, nn.Module):
        if call.training:
            raise ValueError(f"{type(call).__name__} is in training mode, where tiles change each other: use .eval()")
        device = device or next((parameter.device for parameter in call.parameters()), None)

    n_samples = shape[0] if len(shape) == 4 else 1
    for values in of_samples:
        if not values.ndim or len(values) != n_samples:
            raise InputError(f"a tensor of samples has the shape {tuple(values.shape)}; expected ({n_samples}, ...)")
    numbers = range(n_samples * len(tiling))
    batches: Iterable[Sequence[int]] = [numbers[i : i + batch_size] for i in range(0, len(numbers), batch_size)]
    result: Tensor | None = None
    for batch in track(batches, "tiles") if progress else batches:
        owners = [number // len(tiling) for number in batch]
        others = [values[torch.tensor(owners, device=values.device)] for values in of_samples]
        values = _evaluate(call, _read(fields, tiling, batch), others, device)
        if result is None:
            dtype = torch.promote_types(values.dtype, torch.float32)
            result = torch.zeros(n_samples, values.shape[1], *tiling.shape, dtype=dtype, device=output_device)
        values = values.to(result.device)
        for number, own in zip(batch, values, strict=True):
            tiling.add(result[number // len(tiling)], own, number % len(tiling))
        del values, own  # or they would be there beside the next batch
    assert result is not None
    return result if len(shape) == 4 else result[0]


def one_pass_inference(
    call: Callable[[Tensor], Tensor],
    fields: Fields,
    *,
    multiple: int = 1,
    pad: str = "replicate",
    device: Device | None = None,
    output_device: Device = "cpu",
) -> Tensor:
    """Run a network on whole fields at once.

    There are no borders inside the domain and nothing is computed twice, but memory must hold what the network needs
    for the whole domain. The domain is padded as by `Tiling`: a convolutional network gives the same as by tiles at
    all pixels from which it cannot see a border, if its normalisations do not depend on the field (`BatchNorm2d` in
    evaluation mode does not, `GroupNorm` does).

    Args:
        call: as in `tiled_inference`.
        fields: (C, H, W) or (B, C, H, W); ``call`` gets all samples at once.
        multiple: what rows and columns must be multiples of.
        pad: how added pixels are filled, see `Tiling`.
        device: as in `tiled_inference`.
        output_device: where the result is returned.

    Returns:
        (K, H, W) or (B, K, H, W), of the type of what ``call`` gives, but float32 if that is shorter.

    Raises:
        InputError: fields of another number of dimensions, without any pixel, a bad multiple or an unknown pad.
        ValueError: as in `tiled_inference`.
    """
    shape = tuple(fields.shape)
    if len(shape) not in (3, 4):
        raise InputError(f"fields have the shape {shape}; expected (C, H, W) or (B, C, H, W)")
    if multiple < 1:
        raise InputError(f"multiple is {multiple}; expected at least 1")
    height, width = shape[-2:]
    # one tile, all of whose weights are 1
    whole = height + -height % multiple, width + -width % multiple
    tiling = Tiling((height, width), tile=whole, stride=whole, window="constant", multiple=multiple, pad=pad)
    batch_size = max(shape[0], 1) if len(shape) == 4 else 1
    return tiled_inference(call, fields, tiling, batch_size=batch_size, device=device, output_device=output_device)


def _read(fields: Fields, tiling: Tiling, numbers: Sequence[int]) -> Tensor:
    """A batch of tiles, numbered through all samples, in memory of its own."""
    tiles: Tensor | None = None
    for place, number in enumerate(numbers):
        tile = tiling.cut(fields, *divmod(number, len(tiling)))
        if tiles is None:
            tiles = tile.new_empty((len(numbers), *tile.shape))
        tiles[place] = tile
    assert tiles is not None
    return tiles


def _evaluate(call: Callable[..., Tensor], tiles: Tensor, others: Sequence[Tensor], device: Device | None) -> Tensor:
    """What a network gives for a batch of tiles, checked."""
    with torch.inference_mode():
        values = call(*(given if device is None else given.to(device) for given in (tiles, *others)))
    n, _, *grid = tiles.shape
    if values.ndim != 4 or len(values) != n or list(values.shape[-2:]) != grid:
        expected = f"({n}, K, {', '.join(map(str, grid))})"
        raise ValueError(f"call gave the shape {tuple(values.shape)} for tiles {tuple(tiles.shape)}, not {expected}")
    if not values.is_floating_point():
        raise ValueError(f"call gave {values.dtype}; what can be averaged is floating-point, such as probabilities")
    return values
