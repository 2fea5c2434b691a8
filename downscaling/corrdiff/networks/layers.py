"""Normalisation and first weights of the U-Nets."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from ai4sim.errors import InputError

Initialise = Callable[[nn.Conv2d | nn.Linear], None]

LAST = 1e-5
"""Gain of layers that end a branch: a block begins as little more than its shortcut, a network as nearly 0."""

QUERY = math.sqrt(0.2)
"""Gain of the layer that gives queries, keys and values: attention begins as nearly a mean."""


def make_norm(channels: int, eps: float) -> nn.GroupNorm:
    """Normalisation in min(32, ceil(channels / 4)) groups, with the biased variance in training and in evaluation.

    Args:
        channels: C of the maps.
        eps: added to the variance.

    Raises:
        InputError: the channels cannot be divided into so many groups.
    """
    groups = min(32, -(-channels // 4))
    if channels % groups:
        raise InputError(
            f"{channels} channels cannot be normalised in {groups} groups: choose model_channels and channel_mult so"
            f" that every scale has a multiple of 4 channels, and of 32 where there are more than 128"
        )
    return nn.GroupNorm(groups, channels, eps=eps)


class PointConv(nn.Conv2d):
    """A 1 x 1 convolution, on a CPU as the product of matrices that it is for channels-last maps.

    Torch takes small ones there by a slow way that works channel by channel, and moves the maps in memory twice.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, out_channels, H, W) of ``x`` (B, in_channels, H, W)."""
        if x.device.type != "cpu":
            return super().forward(x)
        return functional.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


@torch.no_grad()
def xavier(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> None:
    """Weights uniform within +-gain sqrt(6 / (fan in + fan out)), biases 0 (Glorot and Bengio 2010).

    Fans are channels times points of the kernel.
    """
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


@torch.no_grad()
def zeros(layer: nn.Conv2d | nn.Linear) -> None:
    """Weights and biases 0."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def keep(layer: nn.Conv2d | nn.Linear) -> None:
    """Leave the first weights as torch makes them: uniform within +-1 / sqrt(fan in), biases too.

    This is what Kaiming-uniform weights (He et al. 2015) times sqrt(1/3) are.
    """
