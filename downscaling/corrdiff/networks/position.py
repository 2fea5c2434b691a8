"""Channels that say where a point is, and what is learnt of each place, for whole domains and for patches of them.

All tables of maps have one layout, (labels, rows, columns, channels), so that a row of a batch is a look-up of the
places of its patch under its label. Position, lead time and whatever a patch brings can only be those of that patch.
"""

import math
from collections.abc import Sequence
from typing import Final, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from ai4sim.errors import InputError

PositionKind = Literal["sinusoidal", "linear", "learnable", "none"]
POSITION_KINDS: Final[tuple[PositionKind, ...]] = get_args(PositionKind)

Corners = Tensor | Sequence[Sequence[int]]
"""(B, 2) first row and column of every patch."""


def sinusoidal_grid(shape: tuple[int, int], channels: int = 4) -> Tensor:
    """Sines and cosines of the position, in octaves.

    With X from 0 to 2 pi along columns and Y along rows, both ends included: sin(f X), sin(f Y), cos(f X), cos(f Y) for
    f = 1, 2, 4, ...

    Args:
        shape: H, W.
        channels: a multiple of 4.

    Returns:
        (channels, H, W).

    Raises:
        InputError: the channels are no multiple of 4.
    """
    if channels < 4 or channels % 4:
        raise InputError(f"position_channels is {channels}; sinusoidal positions need a multiple of 4")
    y, x = (torch.linspace(0, 2 * math.pi, size, dtype=torch.float64) for size in shape)
    maps = []
    for octave in range(channels // 4):
        fx, fy = (2**octave * x).expand(shape), (2**octave * y)[:, None].expand(shape)
        maps += [fx.sin(), fy.sin(), fx.cos(), fy.cos()]
    return torch.stack(maps).float()


def linear_grid(shape: tuple[int, int]) -> Tensor:
    """(2, H, W): from -1 to 1 along columns, and along rows."""
    y, x = (torch.linspace(-1, 1, size) for size in shape)
    return torch.stack([x.expand(shape), y[:, None].expand(shape)])


class PlaceTable(nn.Module):
    """Maps of a domain, one set for each label, of which every row of a batch gets its part.

    Args:
        domain: H, W.

    Attributes:
        domain: as given.
        channels: C of the maps.
        table: (L, rows, columns, C).
        labels: L.
    """

    table: Tensor

    def __init__(self, domain: tuple[int, int], labels: int, channels: int) -> None:
        super().__init__()
        if min(domain) < 1:
            raise InputError(f"the domain is {domain[0]} x {domain[1]}; expected at least 1 x 1")
        self.domain, self.labels, self.channels = (int(domain[0]), int(domain[1])), labels, channels

    def forward(self, shape: tuple[int, int], labels: Tensor, corners: Tensor | None = None) -> Tensor:
        """Parts (B, C, h, w) of the maps.

        Args:
            shape: h, w of the parts.
            labels: (B,) whole numbers from 0 to L - 1.
            corners: (B, 2) first row and column of every part, whole numbers; without them it must be the domain.
        """
        if corners is None:
            if self.labels == 1 and tuple(self.table.shape[1:3]) == self.domain:
                return self.table.permute(0, 3, 1, 2).expand(labels.shape[0], -1, -1, -1)
            corners = labels.new_zeros(labels.shape[0], 2)
        device = self.table.device
        labels, corners = labels.to(device), corners.to(device)
        rows = corners[:, :1] + torch.arange(shape[0], device=device)  # (B, h)
        columns = corners[:, 1:] + torch.arange(shape[1], device=device)  # (B, w)
        return self._at(labels, rows, columns)

    def _at(self, labels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """(B, C, h, w) of labels (B,), rows (B, h) and columns (B, w)."""
        height, width = self.domain
        first = labels[:, None] * height + rows  # (B, h)
        places = first[:, :, None] * width + columns[:, None, :]  # (B, h, w)
        # the gradient of a look-up in rows of a matrix adds up rows; that of general indexing sorts all elements
        return functional.embedding(places, self.table.reshape(-1, self.channels)).permute(0, 3, 1, 2)


class FixedGrid(PlaceTable):
    """Positions that are not learnt, and not saved either.

    Args:
        domain: H, W.
        kind: ``sinusoidal`` or ``linear``.
        channels: of the sinusoidal grid.
    """

    def __init__(self, domain: tuple[int, int], kind: Literal["sinusoidal", "linear"], channels: int = 4) -> None:
        grid = sinusoidal_grid(domain, channels) if kind == "sinusoidal" else linear_grid(domain)
        super().__init__(domain, 1, len(grid))
        if channels != len(grid):
            raise InputError(f"position_channels is {channels}; {kind} positions have {len(grid)}")
        self.register_buffer("table", grid.permute(1, 2, 0)[None].contiguous(), persistent=False)


class LearntTable(PlaceTable):
    """Maps that are learnt, from N(0, 1) at first.

    A table of a large domain easily has more weights than the network: 9 lead times, 20 channels and 1056 x 1792 points
    make 341 million. With ``embed_resolution`` the maps have fewer points, the outer ones at the domain's rim, between
    which the values are linear along rows and columns.

    Args:
        domain: H, W.
        labels: L, sets of maps.
        channels: C of the maps.
        embed_resolution: rows and columns of what is learnt; the domain's by default.

    Raises:
        InputError: no label or channel, or less than 2 x 2 or more than the domain's points to learn.
    """

    def __init__(
        self, domain: tuple[int, int], labels: int, channels: int, embed_resolution: tuple[int, int] | None = None
    ) -> None:
        super().__init__(domain, labels, channels)
        for name, value in (("number of labels", labels), ("number of channels", channels)):
            if value < 1:
                raise InputError(f"the {name} of a table is {value}; expected at least 1")
        points = self.domain
        if embed_resolution is not None:
            points = (int(embed_resolution[0]), int(embed_resolution[1]))
            if any(not 2 <= own <= size for own, size in zip(points, self.domain, strict=True)):
                raise InputError(
                    f"embed_resolution is {points[0]} x {points[1]}; expected from 2 x 2 to the domain,"
                    f" {self.domain[0]} x {self.domain[1]}"
                )
        self.points = points
        self.table = nn.Parameter(torch.randn(labels, *points, channels))

    def _at(self, labels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        if self.points == self.domain:
            return super()._at(labels, rows, columns)
        # whole maps of the labels are few numbers here
        maps = self.table[labels].permute(0, 3, 1, 2)  # (B, C, rows, columns)
        y, x = (
            2 * index.to(maps.dtype) / (size - 1) - 1 for index, size in zip((rows, columns), self.domain, strict=True)
        )
        shape = (x.shape[0], y.shape[1], x.shape[1])
        places = torch.stack([x[:, None, :].expand(shape), y[:, :, None].expand(shape)], dim=-1)
        return functional.grid_sample(maps, places, mode="bilinear", padding_mode="border", align_corners=True)


def make_position(
    kind: PositionKind, channels: int, domain: tuple[int, int], embed_resolution: tuple[int, int] | None = None
) -> PlaceTable | None:
    """Channels of the position, nothing for ``none``.

    Args:
        kind: what they are.
        channels: C, a multiple of 4 for ``sinusoidal``, 2 for ``linear``, 0 for ``none``.
        domain: H, W.
        embed_resolution: of learnt ones, see `LearntTable`.

    Raises:
        InputError: an unknown kind, or a number of channels that does not go with it.
    """
    if kind not in POSITION_KINDS:
        raise InputError(f"unknown position {kind!r}; valid are {', '.join(POSITION_KINDS)}")
    if kind == "none":
        if channels:
            raise InputError(f"position_channels is {channels}; expected 0 without positions")
        return None
    if kind == "learnable":
        return LearntTable(domain, 1, channels, embed_resolution)
    return FixedGrid(domain, kind, channels)
