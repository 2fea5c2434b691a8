"""Every pixel is covered, and blending is a weighted mean that leaves no seams and needs little memory."""

import gc
import re
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ai4sim.errors import InputError
from ai4sim.tiling import PADS, WINDOWS, Tiling, one_pass_inference, tile_starts, tiled_inference, window_weights

DOMAINS = [(1308, 1524), (97, 131), (50, 60)]
FORMULAS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "tent": lambda j, n: 1 - abs(2 * j + 1 - n) / n,
    "hann": lambda j, n: 0.5 - 0.5 * np.cos(2 * np.pi * (j + 0.5) / n),
    "gaussian": lambda j, n: np.exp(-0.5 * ((j - (n - 1) / 2) / (n / 8)) ** 2),
    "constant": lambda j, n: np.ones(n),
    "crop": lambda j, n: ((j >= n // 4) & (j < n - n // 4)).astype(float),  # n is a multiple of 4
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def identity(tiles: Tensor) -> Tensor:
    return tiles


class Network(nn.Module):
    """Three 3 x 3 convolutions, one of them on the halved grid: a pixel sees 6 others in each direction at most."""

    radius = 6

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Upsample(scale_factor=2)),
            nn.Conv2d(8, 4, 1),
        )
        with torch.no_grad():
            self.layers(torch.randn(4, 3, 64, 64))  # statistics other than 0 and 1
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def expected_blend(tiling: Tiling, window: str, outputs: list[np.ndarray]) -> np.ndarray:
    """Numerator over denominator, tile by tile on the whole padded domain."""
    (height, width), (rows, columns) = tiling.shape, tiling.tile
    ends = [max(start) + side for start, side in zip(zip(*tiling.starts, strict=True), tiling.tile, strict=True)]
    numerator, denominator = np.zeros((len(outputs[0]), *ends)), np.zeros(ends)
    for (row, column), output in zip(tiling.starts, outputs, strict=True):
        along = []
        for start, side, end in ((row, rows, ends[0]), (column, columns, ends[1])):
            weights = FORMULAS[window](np.arange(side), side)
            if window == "crop" and start == 0:
                weights[: side // 2] = 1
            if window == "crop" and start == end - side:
                weights[side // 2 :] = 1
            along.append(weights)
        weight = along[0][:, None] * along[1]
        numerator[:, row : row + rows, column : column + columns] += weight * output
        denominator[row : row + rows, column : column + columns] += weight
    return (numerator / denominator)[:, :height, :width]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("size", [4, 64, 96])
def test_windows_follow_their_formulas_and_are_symmetric(window, size):
    weights = window_weights(window, size)
    np.testing.assert_allclose(weights, FORMULAS[window](np.arange(size), size), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(weights, weights.flip(0), rtol=0, atol=1e-15)
    assert weights.max() <= 1
    assert window == "crop" or weights.min() > 0


@pytest.mark.parametrize("window", ["tent", "hann"])
@pytest.mark.parametrize("size", [64, 96])
def test_tent_and_hann_windows_at_half_a_tile_sum_to_one(window, size):
    weights = window_weights(window, size)
    total = torch.zeros(5 * size)
    for start in tile_starts(5 * size, size, size // 2):
        total[start : start + size] += weights
    torch.testing.assert_close(total[size // 2 : -size // 2], torch.ones(4 * size), rtol=0, atol=1e-6)
    # and what the tiling makes of them is the windows themselves
    (rows, _) = Tiling((5 * size, size), tile=size, window=window).axes
    torch.testing.assert_close(rows.weights[3], weights, rtol=1e-12, atol=0)


def test_starts_end_with_the_domain():
    assert tile_starts(1312, 96, 48) == [*range(0, 1201, 48), 1216]
    assert tile_starts(96, 96, 48) == [0]
    assert tile_starts(10, 4, 3) == [0, 3, 6]
    tiling = Tiling((1308, 1524), tile=96, multiple=16)
    assert len(tiling) == len(tiling.starts) == 27 * 31
    assert {start % 16 for pair in tiling.starts for start in pair} == {0}
    assert max(tiling.starts) == (1312 - 96, 1536 - 96)
    assert tiling.stride == (48, 48)


@pytest.mark.parametrize(("tile", "multiple", "stride"), [(96, 32, 32), (16, 16, 16), (5, 1, 2), (1, 1, 1)])
def test_stride_is_half_a_tile_in_multiples_by_default(tile, multiple, stride):
    assert Tiling((200, 200), tile=tile, multiple=multiple).stride == (stride, stride)


@pytest.mark.parametrize("window", WINDOWS)
def test_no_pixel_is_uncovered(window):
    rng = np.random.default_rng(0)
    for _ in range(150):
        multiple = int(rng.integers(1, 9))
        tile = multiple * int(rng.integers(1, 12))
        used = int(window_weights(window, tile).count_nonzero())
        if used < multiple:
            continue  # every stride would leave gaps, and is refused
        stride = multiple * int(rng.integers(1, used // multiple + 1))
        size = int(rng.integers(1, 300))
        axis = Tiling((7, size), tile=tile, stride=stride, window=window, multiple=multiple).axes[1]
        assert axis.starts[0] == 0
        assert axis.starts[-1] == axis.padded - tile
        assert all(start % multiple == 0 for start in axis.starts)
        total = torch.zeros(axis.padded, dtype=torch.float64)
        spanned = torch.zeros(size, dtype=torch.bool)
        for number, (start, weights) in enumerate(zip(axis.starts, axis.weights, strict=True)):
            total[start : start + tile] += weights
            spanned[axis.place(number)] = True
        assert spanned.all(), (size, tile, stride, multiple)
        torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-12)


@pytest.mark.parametrize("domain", DOMAINS, ids=str)
@pytest.mark.parametrize("window", WINDOWS)
def test_blend_returns_constant_ramp_and_functions_of_the_pixel(domain, window):
    ramp = torch.linspace(-1, 1, domain[0])[:, None] + torch.linspace(0, 2, domain[1])
    fields = torch.stack([torch.full(domain, 273.15), ramp, torch.rand(domain)])

    def functions(tiles: Tensor) -> Tensor:
        return torch.cat([tiles, torch.sin(9 * tiles[:, 2:]), tiles[:, 1:2] * tiles[:, 2:]], dim=1)

    result = tiled_inference(functions, fields, Tiling(domain, window=window, multiple=16), batch_size=64)
    assert result.shape == (5, *domain)
    torch.testing.assert_close(result[0] / 273.15, torch.ones(domain), rtol=0, atol=1e-6)
    torch.testing.assert_close(result, functions(fields[None])[0], rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(
    ("domain", "tile", "stride", "multiple"),
    [
        ((64, 64), 32, 26, 1),  # an overlap of 4 and a border of 2 that is not used
        ((96, 160), 64, 52, 1),
        ((61, 83), (24, 40), (8, 12), 4),
        ((5, 90), (16, 32), (8, 16), 8),
        ((33, 40), 16, 8, 8),
    ],
)
@pytest.mark.parametrize("window", WINDOWS)
def test_blend_of_tiles_that_disagree_is_the_quotient_of_two_sums(domain, tile, stride, multiple, window):
    if window == "crop" and isinstance(stride, int) and isinstance(tile, int) and stride > tile // 2:
        with pytest.raises(InputError, match=f"stride {stride} leaves pixels uncovered"):
            Tiling(domain, tile=tile, stride=stride, window=window, multiple=multiple)
        return
    tiling = Tiling(domain, tile=tile, stride=stride, window=window, multiple=multiple)
    outputs = torch.rand(len(tiling), 2, *tiling.tile, dtype=torch.float64)
    given = iter(outputs.split(4))
    result = tiled_inference(lambda tiles: next(given), torch.zeros(1, *domain), tiling, batch_size=4)
    np.testing.assert_allclose(result, expected_blend(tiling, window, list(outputs.numpy())), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("pad", PADS)
@pytest.mark.parametrize("domain", [(50, 60), (97, 131), (1, 2)], ids=str)
def test_tiles_continue_the_field_beyond_the_domain(pad, domain):
    fields = torch.rand(2, *domain)
    tiling = Tiling(domain, tile=(96, 64), stride=32, multiple=32, pad=pad)
    modes: dict[str, Any] = {"replicate": "edge", "reflect": "reflect", "zeros": "constant"}
    ends = [max(start) + side for start, side in zip(zip(*tiling.starts, strict=True), tiling.tile, strict=True)]
    beyond = [(0, end - size) for end, size in zip(ends, domain, strict=True)]
    padded = np.pad(fields.numpy(), [(0, 0), *beyond], mode=modes[pad])
    for number, (row, column) in enumerate(tiling.starts):
        np.testing.assert_array_equal(
            tiling.cut(fields, 0, number), padded[:, row : row + 96, column : column + 64], err_msg=f"{row} {column}"
        )
    whole: list[Tensor] = []
    one_pass_inference(lambda x: whole.append(x.clone()) or x, fields, multiple=32, pad=pad)
    size = [length + -length % 32 for length in domain]
    np.testing.assert_array_equal(whole[0][0], padded[:, : size[0], : size[1]])


def test_a_tile_larger_than_the_domain_is_padded_with_a_notice(caplog):
    fields = torch.rand(2, 50, 60)
    torch.testing.assert_close(tiled_inference(identity, fields, Tiling((50, 60))), fields)
    assert caplog.messages == ["the domain of 50 x 60 is padded to hold a tile of 96 x 96"]
    caplog.clear()
    Tiling((95, 96), multiple=32)
    one_pass_inference(identity, fields, multiple=32)
    assert not caplog.messages


@pytest.mark.parametrize("domain", [(130, 117), (64, 96), (32, 75)], ids=str)
def test_cropped_tiles_agree_with_one_pass_everywhere(domain):
    network, fields = Network(), torch.randn(3, *domain)
    full = one_pass_inference(network, fields, multiple=2)
    tiled = tiled_inference(network, fields, Tiling(domain, tile=32, window="crop", multiple=2), batch_size=7)
    assert full.std() > 0.05
    torch.testing.assert_close(tiled, full, rtol=0, atol=1e-4)
    assert not full.is_inference()
    with torch.no_grad():
        height, width = (size - size % 2 for size in domain)
        even = network(fields[None, :, :height, :width])[0, :, : height - Network.radius, : width - Network.radius]
    # the outermost pixels see what is padded
    torch.testing.assert_close(full[:, : even.shape[1], : even.shape[2]], even, rtol=0, atol=1e-5)


@pytest.mark.parametrize("window", ["tent", "hann", "gaussian", "constant"])
def test_blended_tiles_agree_with_one_pass_where_no_border_is_seen(window):
    domain = (134, 118)
    network, fields = Network(), torch.randn(3, *domain)
    tiling = Tiling(domain, tile=32, window=window, multiple=2)
    unseen = torch.ones(domain, dtype=torch.bool)
    for axis, mask in zip(tiling.axes, (unseen, unseen.T), strict=True):
        for border in {border for start in axis.starts for border in (start, start + 32)} - {0, axis.padded}:
            mask[border - Network.radius : border + Network.radius] = False
    assert 0.05 < unseen.double().mean() < 0.5
    difference = (tiled_inference(network, fields, tiling) - one_pass_inference(network, fields, multiple=2)).abs()
    assert difference[:, unseen].max() < 1e-4
    assert difference.max() > 1e-3  # so that the mask is what makes the difference


def test_starts_that_are_no_multiples_would_pool_other_pixels():
    network, fields = Network(), torch.randn(3, 130, 116)
    full = one_pass_inference(network, fields, multiple=2)
    tiled = tiled_inference(network, fields, Tiling((130, 116), tile=32, stride=15, window="crop"))
    assert (tiled - full).abs().max() > 1e-2


@pytest.mark.parametrize("pad", PADS)
@pytest.mark.parametrize("window", ["constant", "tent"])
def test_tiles_may_start_and_end_outside_of_the_domain(pad, window):
    domain, starts = (30, 41), ([-5, 9, 20], [-3, 10, 23, 36])
    fields = torch.rand(2, *domain)
    tiling = Tiling(domain, tile=16, starts=starts, window=window, pad=pad)
    assert tiling.starts == [(row, column) for row in starts[0] for column in starts[1]]
    assert tiling.stride == (14, 13)
    modes: dict[str, Any] = {"replicate": "edge", "reflect": "reflect", "zeros": "constant"}
    padded = np.pad(fields.numpy(), [(0, 0), (5, 6), (3, 11)], mode=modes[pad])
    outputs = torch.rand(len(tiling), 1, 16, 16, dtype=torch.float64)
    numerator, denominator = np.zeros(padded.shape[1:]), np.zeros(padded.shape[1:])
    weights = np.multiply.outer(*[FORMULAS[window](np.arange(16), 16)] * 2)
    for number, (row, column) in enumerate(tiling.starts):
        place = (slice(row + 5, row + 21), slice(column + 3, column + 19))
        np.testing.assert_array_equal(tiling.cut(fields, 0, number), padded[(slice(None), *place)], err_msg=f"{number}")
        numerator[place] += weights * outputs[number, 0].numpy()
        denominator[place] += weights
    given = iter(outputs.split(5))
    result = tiled_inference(lambda tiles: next(given), fields, tiling, batch_size=5)
    inside = (slice(5, 35), slice(3, 44))
    np.testing.assert_allclose(result[0], numerator[inside] / denominator[inside], rtol=1e-12)
    torch.testing.assert_close(tiled_inference(identity, fields, tiling), fields)


def test_starts_of_a_stride_can_be_given_as_well():
    one = Tiling((64, 97), tile=32, stride=13)
    other = Tiling((64, 97), tile=32, starts=(one.axes[0].starts, one.axes[1].starts[::-1]))
    assert one.starts == other.starts
    assert one.stride == other.stride
    assert all(a.weights.equal(b.weights) for a, b in zip(one.axes, other.axes, strict=True))
    assert Tiling((32, 32), tile=32, starts=([0], [0])).stride == (32, 32)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_tiles_come_with_what_belongs_to_their_sample(batch_size):
    fields, tiling = torch.rand(3, 1, 40, 50), Tiling((40, 50), tile=16)
    factors, offsets = torch.tensor([1.0, 2.0, 3.0]), torch.rand(3, 2, 1, 1)

    def call(tiles: Tensor, factor: Tensor, offset: Tensor) -> Tensor:
        return tiles * factor.reshape(-1, 1, 1, 1) + offset

    settings: dict[str, Any] = {"of_samples": (factors, offsets), "batch_size": batch_size}
    result = tiled_inference(call, fields, tiling, **settings)
    torch.testing.assert_close(result, call(fields, factors, offsets))
    settings["of_samples"] = (factors[1:2], offsets[1:2])
    torch.testing.assert_close(tiled_inference(call, fields[1], tiling, **settings), result[1])


@pytest.mark.parametrize("batch_size", [2, 5, 1000])
def test_batch_size_changes_nothing(batch_size):
    network, fields, tiling = Network(), torch.randn(3, 97, 131), Tiling((97, 131), tile=32, multiple=2)
    one = tiled_inference(network, fields, tiling, batch_size=1)
    torch.testing.assert_close(tiled_inference(network, fields, tiling, batch_size=batch_size), one, rtol=0, atol=1e-6)


@pytest.mark.parametrize("window", WINDOWS)
def test_probabilities_stay_probabilities(window):
    tiling = Tiling((97, 131), tile=32, window=window)
    # each tile has an opinion of its own
    fields = torch.zeros(1, 97, 131)
    classes = tiled_inference(lambda tiles: torch.randn(len(tiles), 19, 32, 32).mul(4).softmax(1), fields, tiling)
    torch.testing.assert_close(classes.sum(0), torch.ones(97, 131), rtol=0, atol=1e-6)
    assert classes.min() >= 0

    def exceedance(tiles: Tensor) -> Tensor:
        return torch.rand(len(tiles), 18, 32, 32).cumprod(1)

    blended = tiled_inference(exceedance, fields, tiling)
    assert blended.diff(dim=0).max() <= 1e-7
    assert blended.max() <= 1 + 1e-6


def test_several_samples_are_as_one_after_the_other():
    network, fields, tiling = Network(), torch.randn(3, 3, 45, 70), Tiling((45, 70), tile=32, multiple=2)
    together = tiled_inference(network, fields, tiling, batch_size=5)
    assert together.shape == (3, 4, 45, 70)
    for sample, own in zip(fields, together, strict=True):
        torch.testing.assert_close(own, tiled_inference(network, sample, tiling), rtol=0, atol=1e-6)
    calls: list[int] = []

    def count(x: Tensor) -> Tensor:
        calls.append(len(x))
        return network(x)

    whole = one_pass_inference(count, fields, multiple=2)
    assert calls == [3]
    torch.testing.assert_close(whole[1], one_pass_inference(network, fields[1], multiple=2), rtol=0, atol=1e-6)


def test_types_are_kept_but_sums_are_no_shorter_than_float32():
    tiling = Tiling((40, 50), tile=16)
    fields = torch.rand(2, 40, 50, dtype=torch.float64)
    result = tiled_inference(identity, fields, tiling)
    assert result.dtype == torch.float64
    torch.testing.assert_close(result, fields, rtol=0, atol=1e-14)
    assert tiled_inference(identity, fields.float(), tiling).dtype == torch.float32
    short = tiled_inference(identity, fields.bfloat16(), tiling)
    assert short.dtype == torch.float32
    torch.testing.assert_close(short, fields.bfloat16().float(), rtol=0, atol=1e-6)
    assert one_pass_inference(identity, fields, multiple=16).equal(fields)


def test_results_can_be_changed_and_fields_are_not():
    fields = torch.rand(2, 40, 50, requires_grad=True)
    before = fields.detach().clone()
    for result in (
        tiled_inference(lambda tiles: tiles.mul_(2), fields, Tiling((40, 50), tile=16)),
        one_pass_inference(lambda x: x.mul_(2), fields),
    ):
        assert not result.requires_grad
        result.clamp_(max=1)  # refused for tensors of the inference mode
        torch.testing.assert_close(result, before.mul(2).clamp(max=1))
        assert fields.equal(before)


def test_what_has_no_weight_may_be_anything():
    fields = torch.rand(1, 80, 96)

    def spoil(tiles: Tensor) -> Tensor:
        tiles = tiles.clone()
        tiles[..., :8, :] = tiles[..., -8:, :] = torch.nan
        return tiles

    result = tiled_inference(spoil, fields, Tiling((80, 96), tile=32, window="crop"))
    torch.testing.assert_close(result[:, 8:-8], fields[:, 8:-8])
    assert result[:, :8].isnan().all()  # no other tile has the domain's first rows


class Reader:
    """An array on disk: notes what is read of it."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape, self.largest = values, values.shape, 0

    def __getitem__(self, key: Any) -> np.ndarray:
        part = self.values[key]
        self.largest = max(self.largest, part.size)
        return part


@pytest.mark.parametrize("n_samples", [None, 2])
def test_arrays_are_read_tile_by_tile(n_samples):
    shape = (3, 97, 131) if n_samples is None else (n_samples, 3, 97, 131)
    values = np.random.default_rng(0).random(shape).astype(">f4")
    values.flags.writeable = False
    reader = Reader(values)
    result = tiled_inference(identity, reader, Tiling((97, 131), tile=32, multiple=16), batch_size=4)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result, values, atol=1e-6)
    assert reader.largest == 3 * 32 * 32


class Allocations(TorchDispatchMode):
    """Notes how much memory, in bytes, is behind each tensor that an operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.sizes.add(result.untyped_storage().nbytes())
        return result


def test_memory_holds_the_result_and_one_batch_of_tiles():
    fields, tiling, n_classes = torch.rand(2, 300, 340), Tiling((300, 340), tile=32, multiple=16), 5
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    def call(tiles: Tensor) -> Tensor:
        nonlocal most
        output = tiles.new_ones(len(tiles), n_classes, 32, 32)
        alive.extend([weakref.ref(tiles), weakref.ref(output)])
        most = max(most, sum(tensor() is not None for tensor in alive))
        assert len(tiles) <= 6
        return output

    gc.disable()  # what only a collection would free is in memory until then
    try:
        with Allocations() as allocations:
            result = tiled_inference(call, fields, tiling, batch_size=6)
    finally:
        gc.enable()
    assert len(alive) == 2 * -(-len(tiling) // 6)
    assert most == 2  # one batch and its output
    assert result.numel() == n_classes * 300 * 340
    batch = 6 * n_classes * 32 * 32 * 4
    # parts of the fields and of the result are views
    assert {size for size in allocations.sizes if size > batch} == {fields.nbytes, result.nbytes}


def test_progress_is_shown_when_asked_for(capsys):
    fields, tiling = torch.rand(1, 40, 50), Tiling((40, 50), tile=16)
    tiled_inference(identity, fields, tiling)
    assert capsys.readouterr().out == ""
    tiled_inference(identity, fields, tiling, progress=True)
    assert "tiles" in capsys.readouterr().out


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_networks_device_gets_the_tiles_and_the_cpu_the_result():
    network, fields, tiling = Network(), torch.randn(3, 97, 131), Tiling((97, 131), tile=32, multiple=2)
    expected = tiled_inference(network, fields, tiling)
    network.to("cuda")
    for given, device in ((fields, "cpu"), (fields.to("cuda"), "cuda")):
        result = tiled_inference(network, given, tiling, output_device=device)
        assert result.device.type == device
        torch.testing.assert_close(result.cpu(), expected, rtol=0, atol=1e-3)  # TF32
        whole = one_pass_inference(network, given, multiple=2, output_device=device)
        assert whole.device.type == device


def test_tiles_go_to_the_device_that_is_named():
    devices: list[str] = []

    def call(tiles: Tensor) -> Tensor:
        devices.append(tiles.device.type)
        return torch.zeros(tiles.shape)

    tiled_inference(call, torch.rand(1, 40, 50), Tiling((40, 50), tile=16), device="meta", batch_size=100)
    assert devices == ["meta"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (0, 50)}, "domain is 0 x 50; expected at least 1 x 1"),
        ({"tile": 0}, "tile is 0 x 0; expected at least 1 x 1"),
        ({"tile": (96, 90), "multiple": 16}, "tile is 96 x 90; expected multiples of 16"),
        ({"stride": -4}, "stride is -4 x -4; expected at least 1 x 1"),
        ({"stride": (48, 40), "multiple": 16}, "stride is 48 x 40; expected multiples of 16"),
        (
            {"stride": 97},
            "stride 97 leaves pixels uncovered: window 'tent' uses 96 of the 96 pixels across a tile; set stride to at"
            " most 96, or a larger tile",
        ),
        (
            {"stride": (48, 64), "window": "crop"},
            "stride 64 leaves pixels uncovered: window 'crop' uses 48 of the 96 pixels across a tile; set stride to at"
            " most 48, or a larger tile",
        ),
        ({"window": "cosine"}, "unknown window 'cosine'; valid are tent, hann, gaussian, constant, crop"),
        ({"pad": "wrap"}, "unknown pad 'wrap'; valid are replicate, reflect, zeros"),
        ({"multiple": 0}, "multiple is 0; expected at least 1"),
        ({"starts": ([0], [0]), "stride": 48}, "a stride and starts of tiles are given; expected one of them"),
        ({"starts": ([0, 104], []), "multiple": 8}, "tiles start at []; expected one or more multiples of 8"),
        ({"starts": ([-3, 104], [0]), "multiple": 8}, "tiles start at [-3, 104]; expected one or more multiples of 8"),
        ({"starts": ([0, 90, 110], [0])}, "tiles of 96 pixels at [0] leave some of 300 pixels uncovered"),
        ({"starts": ([0, 97, 110], [0])}, "tiles of 96 pixels at [0, 97, 110] leave some of 200 pixels uncovered"),
        ({"starts": ([5, 90, 110], [0])}, "tiles of 96 pixels at [5, 90, 110] leave some of 200 pixels uncovered"),
        ({"starts": ([-96, 0, 90, 110], [0])}, "a tile of 96 pixels at -96 has no weight in a domain of 200 pixels"),
    ],
)
def test_tilings_are_checked(changes, message):
    settings: dict[str, Any] = {"shape": (200, 300)} | changes
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        Tiling(**settings)


@pytest.mark.parametrize("shape", [(2, 40, 51), (40, 50), (1, 1, 2, 40, 50), (0, 2, 40, 50), (0, 40, 50)])
def test_fields_are_checked(shape):
    message = f"fields have the shape {shape}; expected (C, 40, 50) or (B, C, 40, 50), as the tiling's domain"
    with pytest.raises(InputError, match=re.escape(message)):
        tiled_inference(identity, torch.zeros(shape), Tiling((40, 50), tile=16))


def test_one_pass_checks_its_input():
    message = "fields have the shape (40, 50); expected (C, H, W) or (B, C, H, W)"
    with pytest.raises(InputError, match=re.escape(message)):
        one_pass_inference(identity, torch.zeros(40, 50))
    with pytest.raises(InputError, match="multiple is 0; expected at least 1"):
        one_pass_inference(identity, torch.zeros(1, 40, 50), multiple=0)
    with pytest.raises(InputError, match="domain is 0 x 50; expected at least 1 x 1"):
        one_pass_inference(identity, torch.zeros(1, 0, 50), multiple=16)
    with pytest.raises(InputError, match="unknown pad 'wrap'"):
        one_pass_inference(identity, torch.zeros(1, 40, 50), pad="wrap")


def test_batch_size_and_call_are_checked():
    fields, tiling = torch.rand(2, 40, 50), Tiling((40, 50), tile=16)
    for values in (torch.zeros(2, 3), torch.tensor(1.0)):
        message = f"a tensor of samples has the shape {tuple(values.shape)}; expected (1, ...)"
        with pytest.raises(InputError, match=re.escape(message)):
            tiled_inference(identity, fields, tiling, of_samples=(values,))
    with pytest.raises(InputError, match="batch_size is 0; expected at least 1"):
        tiled_inference(identity, fields, tiling, batch_size=0)
    with pytest.raises(ValueError, match=r"Network is in training mode, where tiles change each other: use \.eval\(\)"):
        tiled_inference(Network().train(), fields, tiling)
    message = "call gave the shape (8, 2, 14, 14) for tiles (8, 2, 16, 16), not (8, K, 16, 16)"
    with pytest.raises(ValueError, match=re.escape(message)):
        tiled_inference(lambda tiles: tiles[..., 1:-1, 1:-1], fields, tiling)
    with pytest.raises(ValueError, match=re.escape("call gave the shape (8, 16, 16)")):
        tiled_inference(lambda tiles: tiles[:, 0], fields, tiling)
    with pytest.raises(ValueError, match=r"call gave torch\.int64; what can be averaged is floating-point"):
        tiled_inference(lambda tiles: tiles.argmax(1, keepdim=True), fields, tiling)
