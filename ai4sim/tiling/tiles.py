"""Overlapping tiles that cover a domain, and the weights with which they are blended.

A tile's weights are the product of weights along its rows and along its columns. Tiles lie on a grid, so the sum of
their weights is such a product too and known beforehand: tiles are weighted with their share of it, and blending is
one addition for each.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, Protocol

import numpy as np
import torch
from torch import Tensor

from ai4sim.errors import InputError

logger = logging.getLogger(__name__)

# weight at a distance from the centre of the tile, which is 0 there and 1 at the tile's border
WINDOWS: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    "tent": lambda distance: 1 - distance,
    "hann": lambda distance: 0.5 + 0.5 * torch.cos(torch.pi * distance),
    "gaussian": lambda distance: torch.exp(-8 * distance.square()),
    "constant": torch.ones_like,
    "crop": lambda distance: (distance <= 0.5).to(distance.dtype),
}
PADS: Final = ("replicate", "reflect", "zeros")


class Fields(Protocol):
    """What tiles are read from: a tensor, or an array that reads only what it is indexed with (NumPy, Zarr, HDF5)."""

    @property
    def shape(self) -> Sequence[int]:
        """(C, H, W) or (B, C, H, W)."""

    def __getitem__(self, key: Any, /) -> Any:
        """Values at: number of the sample if there are samples, ellipsis, slice of rows, slice of columns."""


def window_weights(window: str, size: int) -> Tensor:
    """Weights of the pixels j = 0 .. N-1 along one side of a tile.

    All windows are symmetric about (N-1)/2, which for an even N lies between two pixels:

    - ``tent``: 1 - abs(2 j + 1 - N)/N; in two dimensions also known as Manhattan weights;
    - ``hann``: 0.5 - 0.5 cos(2 pi (j + 0.5)/N) (Pielawski and Wählby 2020, PLoS ONE 15(3), e0229839);
    - ``gaussian``: of standard deviation N/8;
    - ``constant``: 1;
    - ``crop``: 1 up to a distance of N/4 from the centre, 0 beyond.

    Tents and Hann windows that are N/2 apart sum to 1.

    Args:
        window: its name.
        size: N, in pixels.

    Returns:
        (N,) in float64.

    Raises:
        InputError: an unknown window.
    """
    if window not in WINDOWS:
        raise InputError(f"unknown window {window!r}; valid are {', '.join(WINDOWS)}")
    return WINDOWS[window]((2 * torch.arange(size, dtype=torch.float64) + 1 - size).abs() / size)


def tile_starts(size: int, tile: int, stride: int) -> list[int]:
    """First pixels of the tiles along one axis: 0, s, 2 s ... as far as tiles fit, and a last one that ends with it.

    Args:
        size: pixels of the axis, at least ``tile``.
        tile: pixels of a tile.
        stride: s, pixels from one tile to the next; to the last one it may be less.
    """
    starts = list(range(0, size - tile + 1, stride))
    return starts if starts[-1] == size - tile else [*starts, size - tile]


class TiledAxis:
    """Tiles along one axis.

    Args:
        size: pixels of the domain.
        tile: pixels of a tile.
        starts: first pixel of each tile; those before 0, and pixels from ``size`` on, are outside of the domain.
        window: name of the weights.

    Attributes:
        size: pixels of the domain.
        padded: pixels with those outside of it that are in a tile.
        tile: pixels of a tile.
        starts: first pixel of each tile.
        weights: (tile number, pixel) in float64; those of a pixel in all tiles sum to 1.
        spans: of each tile, the pixels that have a weight and lie in the domain.

    Raises:
        InputError: a tile that is not in the domain, or pixels without a tile that has a weight there.
    """

    def __init__(self, size: int, tile: int, starts: Sequence[int], window: str) -> None:
        self.size, self.tile, self.starts = size, tile, list(starts)
        first = min(self.starts)
        self.padded = max(self.starts) + tile - first
        weights = window_weights(window, tile).repeat(len(self.starts), 1)
        if window == "crop":
            # no other tile has the ends of the axis
            weights[0, : tile // 2] = 1
            weights[-1, tile // 2 :] = 1
        places = torch.tensor(self.starts)[:, None] - first + torch.arange(tile)
        total = torch.zeros(self.padded, dtype=weights.dtype).index_put_((places,), weights, accumulate=True)
        inside = total[max(-first, 0) : size - first]
        if first > 0 or len(inside) < size or not inside.all():
            raise InputError(f"tiles of {tile} pixels at {self.starts} leave some of {size} pixels uncovered")
        self.weights = (weights / total[places]).where(weights > 0, 0)
        self.spans: list[slice] = []
        for start, own in zip(self.starts, weights, strict=True):
            kept = own.nonzero()
            span = slice(max(int(kept[0]), -start), min(int(kept[-1]) + 1, size - start))
            if span.start >= span.stop:
                raise InputError(f"a tile of {tile} pixels at {start} has no weight in a domain of {size} pixels")
            self.spans.append(span)

    def source(self, number: int, pad: str) -> Tensor:
        """(tile,) the pixels of the domain that a tile's pixels are copies of."""
        pixels = torch.arange(self.starts[number], self.starts[number] + self.tile)
        if pad == "reflect":
            period = max(2 * (self.size - 1), 1)
            pixels = torch.minimum(pixels % period, period - pixels % period)
        return pixels.clamp(0, self.size - 1)

    def outside(self, number: int) -> Tensor:
        """(tile,) whether a tile's pixels are outside of the domain."""
        pixels = torch.arange(self.starts[number], self.starts[number] + self.tile)
        return (pixels < 0) | (pixels >= self.size)

    def place(self, number: int) -> slice:
        """Where in the domain a tile's span lies."""
        start, span = self.starts[number], self.spans[number]
        return slice(start + span.start, start + span.stop)


class Tiling:
    """Overlapping tiles that cover a domain, counted row by row.

    Rows below and columns to the right are added until both sizes are multiples of ``multiple`` and hold a tile. The
    starts of tiles are then rows and columns of the domain itself, and multiples too: a network that halves its grid
    pools the same pixels together in every tile and in one pass over the domain.

    Where tiles start can also be given: then they may be anywhere, and reach out of the domain on all sides.

    Args:
        shape: (H, W), rows and columns of the domain.
        tile: rows and columns of a tile, or one number for both.
        stride: rows and columns from one tile to the next, or one number for both; by default half a tile, rounded
            down to a multiple.
        window: name of the weights, see `window_weights`. At the ends of the domain ``crop`` keeps the outer part of
            the tiles, which no others have.
        multiple: what padded sizes, tiles and strides are multiples of: 2**n for a network that halves its grid n
            times; 1 where tiles may be pooled differently.
        pad: how added pixels are filled: ``replicate`` the last one, ``reflect`` about it, or ``zeros``.
        starts: first rows and first columns of the tiles, instead of a stride; rows above and columns to the left of
            the domain are negative.

    Attributes:
        shape: (H, W).
        tile: (rows, columns).
        stride: (rows, columns); the largest distance of tiles if their starts are given.
        axes: the tiles' rows, and their columns.

    Raises:
        InputError: sizes that are not positive, a tile or stride that is no multiple, a stride or starts that leave
            pixels without a tile that has a weight there, both of these, an unknown window or pad.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        *,
        tile: int | tuple[int, int] = 96,
        stride: int | tuple[int, int] | None = None,
        window: str = "tent",
        multiple: int = 1,
        pad: str = "replicate",
        starts: tuple[Sequence[int], Sequence[int]] | None = None,
    ) -> None:
        if multiple < 1:
            raise InputError(f"multiple is {multiple}; expected at least 1")
        if pad not in PADS:
            raise InputError(f"unknown pad {pad!r}; valid are {', '.join(PADS)}")
        self.shape, self.tile, self.pad = _pair("domain", shape), _pair("tile", tile, multiple), pad
        if starts is not None:
            if stride is not None:
                raise InputError("a stride and starts of tiles are given; expected one of them")
            along = _checked_starts(starts[0], multiple), _checked_starts(starts[1], multiple)
            self.stride = _largest_step(along[0], self.tile[0]), _largest_step(along[1], self.tile[1])
        else:
            self.stride = self._checked_stride(stride, window, multiple)
            padded = [max(side, size + -size % multiple) for size, side in zip(self.shape, self.tile, strict=True)]
            rows, columns = (
                tile_starts(size, side, step) for size, side, step in zip(padded, self.tile, self.stride, strict=True)
            )
            along = rows, columns
            if any(side > size + -size % multiple for size, side in zip(self.shape, self.tile, strict=True)):
                logger.warning("the domain of %d x %d is padded to hold a tile of %d x %d", *self.shape, *self.tile)
        self.axes = tuple(
            TiledAxis(size, side, own, window) for size, side, own in zip(self.shape, self.tile, along, strict=True)
        )

    def __len__(self) -> int:
        return len(self.axes[0].starts) * len(self.axes[1].starts)

    @property
    def starts(self) -> list[tuple[int, int]]:
        """First row and column of each tile."""
        rows, columns = self.axes
        return [(row, column) for row in rows.starts for column in columns.starts]

    def cut(self, fields: Fields, sample: int, number: int) -> Tensor:
        """Read a tile, and fill what lies outside of the domain.

        Args:
            fields: (C, H, W) or (B, C, H, W).
            sample: its number along B; of no use if there is no B.
            number: of the tile.

        Returns:
            (C, rows, columns) of the type of the fields; it may share their memory.
        """
        along = self._along(number)
        rows, columns = (axis.source(own, self.pad) for axis, own in along)
        key = tuple(slice(int(pixels.min()), int(pixels.max()) + 1) for pixels in (rows, columns))
        part = _tensor(fields[(sample, ..., *key)] if len(fields.shape) == 4 else fields[(..., *key)])
        if part.shape[-2:] == self.tile:
            return part
        part = part.index_select(-2, (rows - rows.min()).to(part.device))
        part = part.index_select(-1, (columns - columns.min()).to(part.device))
        if self.pad == "zeros":
            above_or_below, beside = (axis.outside(own).to(part.device) for axis, own in along)
            part[..., above_or_below, :] = 0
            part[..., beside] = 0
        return part

    def add(self, total: Tensor, values: Tensor, number: int) -> None:
        """Add a tile to a field, with its weights.

        Args:
            total: (K, H, W), changed in place; once all tiles are added it is their blend.
            values: (K, rows, columns) on the same device.
            number: of the tile.
        """
        (rows, row), (columns, column) = self._along(number)
        # what has no weight is left out, not multiplied by 0: it may be anything, even not a number
        row_span, column_span = rows.spans[row], columns.spans[column]
        weights = torch.outer(rows.weights[row, row_span], columns.weights[column, column_span])
        place = total[..., rows.place(row), columns.place(column)]
        place.addcmul_(values[..., row_span, column_span], weights.to(total))

    def _checked_stride(self, stride: int | tuple[int, int] | None, window: str, multiple: int) -> tuple[int, int]:
        """Rows and columns from tile to tile, after which no pixel is left out."""
        if stride is None:
            row_step, column_step = (max(side // 2 // multiple, 1) * multiple for side in self.tile)
            stride = row_step, column_step
        steps = _pair("stride", stride, multiple)
        for side, step in zip(self.tile, steps, strict=True):
            used = int(window_weights(window, side).count_nonzero())
            if step > used:
                raise InputError(
                    f"stride {step} leaves pixels uncovered: window {window!r} uses {used} of the {side} pixels across"
                    f" a tile; set stride to at most {used}, or a larger tile"
                )
        return steps

    def _along(self, number: int) -> tuple[tuple[TiledAxis, int], ...]:
        """Both axes with the number that a tile has along them."""
        return tuple(zip(self.axes, divmod(number, len(self.axes[1].starts)), strict=True))


def _pair(name: str, value: int | tuple[int, int], multiple: int = 1) -> tuple[int, int]:
    """Rows and columns, checked."""
    rows, columns = (value, value) if isinstance(value, int) else value
    if min(rows, columns) < 1:
        raise InputError(f"{name} is {rows} x {columns}; expected at least 1 x 1")
    if rows % multiple or columns % multiple:
        raise InputError(f"{name} is {rows} x {columns}; expected multiples of {multiple}")
    return rows, columns


def _checked_starts(starts: Sequence[int], multiple: int) -> list[int]:
    """First pixels along an axis, in order."""
    if not starts or any(start % multiple for start in starts):
        raise InputError(f"tiles start at {list(starts)}; expected one or more multiples of {multiple}")
    return sorted(starts)


def _largest_step(starts: Sequence[int], alone: int) -> int:
    """Largest distance of neighbours; where there are none, that given."""
    return max((after - before for before, after in pairwise(starts)), default=alone)


def _tensor(values: Any) -> Tensor:
    """A tensor, of a copy where it is none: arrays may be read-only, or in the byte order of another machine."""
    if isinstance(values, Tensor):
        return values
    array = np.asarray(values)
    return torch.from_numpy(np.array(array, array.dtype.newbyteorder("=")))
