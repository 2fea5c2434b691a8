"""Convolutions along the vertical."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ai4sim.errors import InputError
from weather_forecast.gwd.layout import ColumnLayout
from weather_forecast.gwd.networks.base import StandardizedNetwork


def to_channels(z: Tensor, layout: ColumnLayout) -> Tensor:
    """Columns (B, n_inputs) as images (B, n_profiles + n_scalars, L) whose scalars are tiled over the levels."""
    n_profiles, n_levels = len(layout.profiles), layout.n_levels
    profiles = z[:, : n_profiles * n_levels].unflatten(-1, (n_profiles, n_levels))
    scalars = z[:, n_profiles * n_levels :, None].expand(-1, -1, n_levels)
    return torch.cat([profiles, scalars], dim=1)


class ColumnCNN(StandardizedNetwork):
    """Convolutions over the levels, then two dense layers on the flattened column.

    The default convolves with "same" padding, keeps all levels and has an activation between the dense layers.
    ``legacy`` is the known baseline, for comparison: pooling by 2 after each convolution, ReLU, and two dense layers
    without an activation between them. With ``kernel=1`` and ``channels=[16, 32]`` it has 77 248 parameters on the
    public layout, sees no vertical gradient, and falls behind ridge regression.

    Args:
        layout: order and number of the features.
        kernel: levels that a convolution sees, an odd number; 5 by default, 1 if ``legacy``.
        channels: output channels of the convolutions.
        legacy: build the published baseline instead.

    Raises:
        InputError: an even kernel, no channels, or too few levels for the pooling of ``legacy``.
    """

    def __init__(
        self,
        layout: ColumnLayout | None = None,
        kernel: int | None = None,
        channels: Sequence[int] = (16, 32),
        legacy: bool = False,
    ) -> None:
        super().__init__(layout)
        size = kernel if kernel is not None else (1 if legacy else 5)
        if size < 1 or size % 2 == 0:
            raise InputError(f"ColumnCNN: kernel must be an odd number, got {size}")
        if not channels:
            raise InputError("ColumnCNN: channels must name at least one convolution")
        n_outputs, length = self.layout.n_outputs, self.layout.n_levels
        n_channels = len(self.layout.profiles) + len(self.layout.scalars)
        blocks: list[nn.Module] = []
        for n_next in channels:
            blocks += [
                nn.Conv1d(n_channels, n_next, size, padding="same"),
                nn.ReLU() if legacy else nn.SiLU(),
            ]
            if legacy:
                blocks.append(nn.MaxPool1d(2))
                length //= 2
            n_channels = n_next
        if length == 0:
            raise InputError(
                f"ColumnCNN: {self.layout.n_levels} levels cannot be halved {len(channels)} times; use legacy=False"
            )
        self.blocks = nn.Sequential(*blocks, nn.Flatten())
        dense: list[nn.Module] = [nn.Linear(n_channels * length, n_outputs)]
        if not legacy:
            dense.append(nn.SiLU())
        self.dense = nn.Sequential(*dense, nn.Linear(n_outputs, n_outputs))

    def body(self, z: Tensor) -> Tensor:
        """Scaled tendencies (B, n_outputs) of standardised columns ``z`` (B, n_inputs)."""
        return self.dense(self.blocks(to_channels(z, self.layout)))


class DilatedCNN(StandardizedNetwork):
    """Residual convolutions with growing dilation that keep one value per level, with attention if wanted.

    Args:
        layout: order and number of the features.
        width: channels.
        dilations: one residual block each; the default sees 129 levels.
        attention: add multi-head self-attention over the levels in the middle.
        heads: of the attention; divides ``width``.

    Raises:
        InputError: ``heads`` does not divide ``width``, or no dilations.
    """

    def __init__(
        self,
        layout: ColumnLayout | None = None,
        width: int = 64,
        dilations: Sequence[int] = (1, 2, 4, 8, 16, 1),
        attention: bool = False,
        heads: int = 8,
    ) -> None:
        super().__init__(layout)
        if not dilations:
            raise InputError("DilatedCNN: dilations must name at least one block")
        blocks: list[nn.Module] = [DilatedBlock(width, dilation) for dilation in dilations]
        if attention:
            blocks.insert((len(blocks) + 1) // 2, LevelAttention(width, heads, self.layout.n_levels))
        self.encoder = nn.Conv1d(len(self.layout.profiles) + len(self.layout.scalars), width, 1)
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Conv1d(width, len(self.layout.targets), 1)

    def body(self, z: Tensor) -> Tensor:
        """Scaled tendencies (B, n_outputs) of standardised columns ``z`` (B, n_inputs)."""
        return self.head(self.blocks(self.encoder(to_channels(z, self.layout)))).flatten(1)


class DilatedBlock(nn.Module):
    """``x + conv1(silu(conv5(x)))``, the wide convolution dilated.

    Args:
        width: channels.
        dilation: distance in levels between the five values that are combined.
    """

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.spread = nn.Conv1d(width, width, 5, padding=2 * dilation, dilation=dilation)
        self.mix = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Channels (B, width, L) of channels (B, width, L)."""
        return x + self.mix(nn.functional.silu(self.spread(x)))


class LevelAttention(nn.Module):
    """Residual multi-head self-attention over the levels, with a learned code that tells levels apart.

    Args:
        width: channels.
        heads: of the attention; divides ``width``.
        n_levels: L.
    """

    def __init__(self, width: int, heads: int, n_levels: int) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise InputError(f"LevelAttention: {heads} heads do not divide a width of {width}")
        self.heads = heads
        self.position = nn.Parameter(torch.randn(n_levels, width) / width**0.5)
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Channels (B, width, L) of channels (B, width, L)."""
        levels = self.norm(x.transpose(1, 2) + self.position)  # (B, L, width)
        heads = self.projection(levels).unflatten(-1, (3, self.heads, -1))  # (B, L, 3, heads, width / heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
        # written out: the fused kernels have no second derivative
        weights = torch.softmax(query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5, dim=-1)
        mixed = (weights @ value).transpose(1, 2).flatten(2)  # (B, L, width)
        return x + self.output(mixed).transpose(1, 2)
