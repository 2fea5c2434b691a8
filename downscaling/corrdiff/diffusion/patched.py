"""A denoiser of small patches as one of large domains: patches are fused at every call, so that all share one image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ai4sim.errors import InputError
from ai4sim.tiling import PADS, WINDOWS, Tiling, tiled_inference
from downscaling.corrdiff.diffusion.network_inputs import join_channels, overview_of
from downscaling.corrdiff.diffusion.preconditioning import Denoiser
from downscaling.corrdiff.diffusion.random_patches import require_patch, warn_of_larger_patch


@dataclass(frozen=True)
class Tiles:
    """How a domain is covered with patches.

    Patches are patch - overlap - boundary apart. They start with the domain, and the last ones end with it. In the
    reference (``placement: outside, window: constant``) they start ``boundary`` pixels before it, and end beyond it;
    what lies outside is reflected, and the last patches may be reflections for the most part.

    Along an axis on which a patch is as long as the domain, or longer, there is one patch that is the domain.

    Args:
        patch: rows and columns, or one number for both.
        overlap: o, pixels.
        boundary: b, pixels, which are overlap, too.
        window: weights of a patch's pixels, see :func:`ai4sim.tiling.window_weights`; ``constant`` is the mean.
        placement: ``inside`` or ``outside``, see above.
        pad: how pixels outside of the domain are filled, see :class:`ai4sim.tiling.Tiling`.
        levels: of the network, which halves its grid between them.
        batch_size: patches that the network gets at once: the memory it needs does not grow with the domain.

    Raises:
        InputError: a patch that is no longer than overlap + 2 boundary, or cannot be halved between the levels; a
            negative overlap or boundary, a batch size below 1; an unknown window, placement or pad.
    """

    patch: int | tuple[int, int]
    overlap: int = 4
    boundary: int = 2
    window: str = "hann"
    placement: Literal["inside", "outside"] = "inside"
    pad: str = "reflect"
    levels: int = 1
    batch_size: int = 8

    def __post_init__(self) -> None:
        for name, value, least in (
            ("overlap", self.overlap, 0),
            ("boundary", self.boundary, 0),
            ("levels", self.levels, 1),
            ("batch_size", self.batch_size, 1),
        ):
            if value < least:
                raise InputError(f"{name} is {value}; expected at least {least}")
        for name, word, valid in (
            ("window", self.window, WINDOWS),
            ("placement", self.placement, ("inside", "outside")),
            ("pad", self.pad, PADS),
        ):
            if word not in valid:
                raise InputError(f"unknown {name} {word!r}; valid are {', '.join(valid)}")
        require_patch(self.pair, self.levels)
        if min(self.pair) <= self.overlap + 2 * self.boundary:
            raise InputError(
                f"the patch is {self.pair[0]} x {self.pair[1]}; expected more than overlap + 2 boundary ="
                f" {self.overlap} + 2 x {self.boundary} = {self.overlap + 2 * self.boundary}"
            )
        if self.window == "crop":
            raise InputError("window 'crop' needs half a patch of overlap; take tent, hann, gaussian or constant")

    @property
    def pair(self) -> tuple[int, int]:
        """Rows and columns of a patch."""
        return (self.patch, self.patch) if isinstance(self.patch, int) else (self.patch[0], self.patch[1])

    def tiling(self, domain: tuple[int, int]) -> Tiling:
        """The patches of a domain (H, W)."""
        patch = min(self.pair[0], domain[0]), min(self.pair[1], domain[1])
        if patch != self.pair:
            warn_of_larger_patch(self.pair, domain)
        rows, columns = (self._starts(size, side) for size, side in zip(domain, patch, strict=True))
        return Tiling(domain, tile=patch, starts=(rows, columns), window=self.window, pad=self.pad)

    def _starts(self, size: int, side: int) -> Sequence[int]:
        """First pixels of the patches along an axis."""
        if side == size:
            return [0]
        step = side - self.overlap - self.boundary
        if self.placement == "outside":
            return [number * step - self.boundary for number in range(math.ceil(size / step))]
        starts = list(range(0, size - side, step))
        return [*starts, size - side]


class PatchedDenoiser:
    """A denoiser of patches, called with images of the whole domain.

    Fields of the whole domain that all images share are given once, with B = 1.

    Args:
        denoiser: of patches.
        tiles: how the domain is covered.
        domain: (H, W).
        condition: (B, C, H, W), or B = 1; what is cut as the images are.
        overview: (B, C', H, W), or B = 1; what is resized to the shape of a patch, so that each sees all of it.
        position: (B, C'', H, W), or B = 1; what is cut and given after the overview.
        give_corners: whether the network is given ``corners`` (B, 2), first row and column of every patch, because it
            has channels of the position itself.
        extras: for the network, by name, (B, ...) or B = 1, such as labels of lead times.

    Raises:
        InputError: fields of another domain, or corners of patches that reach out of it.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        tiles: Tiles,
        domain: tuple[int, int],
        *,
        condition: Tensor | None = None,
        overview: Tensor | None = None,
        position: Tensor | None = None,
        give_corners: bool = False,
        **extras: Tensor,
    ) -> None:
        self.denoiser, self.batch_size = denoiser, tiles.batch_size
        self.tiling = tiles.tiling(domain)
        for name, fields in (("condition", condition), ("overview", overview), ("position", position)):
            if fields is not None and (fields.ndim != 4 or tuple(fields.shape[-2:]) != domain):
                raise InputError(
                    f"{name} has the shape {tuple(fields.shape)}; expected (B, C, {domain[0]}, {domain[1]})"
                )
        self._condition, self._position, self._extras = condition, position, extras
        if give_corners and any(axis.padded > axis.size for axis in self.tiling.axes):
            raise InputError(
                "patches reach out of the domain, where the network has no positions; set placement: inside"
            )
        self._places = _places(domain) if give_corners else None
        # once, not at every call
        self._overview = None if overview is None else overview_of(overview, self.tiling.tile)

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Expected images (B, C, H, W) in float32.

        Args:
            x: (B, C, H, W), noisy.
            sigma: (B,) noise level of each.
        """
        n = len(x)
        # as the denoiser would; patches of all conditions in double precision would take twice the memory
        parts = (x.float(), self._condition, self._position, self._places)
        local = [part for part in parts if part is not None]
        sizes = [0 if part is None else part.shape[1] for part in parts]
        of_images = {"sigma": sigma, "overview": self._overview} | self._extras
        given = {name: _for_all(name, value, n) for name, value in of_images.items() if value is not None}

        def call(patches: Tensor, *values: Tensor) -> Tensor:
            image, condition, position, places = patches.split(sizes, dim=1)
            extras: dict[str, Any] = dict(zip(given, values, strict=True))
            if self._places is not None:
                extras["corners"] = places[:, :, 0, 0].long()
            joined = join_channels(condition, extras.pop("overview", None), position)
            result: Tensor = self.denoiser(image, extras.pop("sigma"), joined, **extras)
            return result

        return tiled_inference(
            call,
            _Stacked(local, n),
            self.tiling,
            of_samples=tuple(given.values()),
            batch_size=self.batch_size,
            output_device=x.device,
        )


def _places(domain: tuple[int, int]) -> Tensor:
    """Row and column of every pixel, (1, 2, H, W)."""
    rows, columns = (torch.arange(size, dtype=torch.float32) for size in domain)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None]


def _for_all(name: str, values: Tensor, n: int) -> Tensor:
    """Values for n images, of as many or of one."""
    if len(values) not in (1, n):
        raise ValueError(f"{name} is of {len(values)} images; expected {n}, or one for all")
    return values.expand(n, *values.shape[1:])


class _Stacked:
    """Fields one behind the other along the channels, joined patch by patch and never as a whole.

    They may lie on different devices; patches are on the first one's.
    """

    def __init__(self, parts: Sequence[Tensor], n: int) -> None:
        self._parts = [_for_all("a field", part, n) for part in parts]
        self.shape = (n, sum(part.shape[1] for part in parts), *parts[0].shape[2:])

    def __getitem__(self, key: Any) -> Tensor:
        first = self._parts[0]
        return torch.cat([part[key].to(first) for part in self._parts])
