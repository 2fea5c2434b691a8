"""Weights of noise levels that are learnt with the denoiser."""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from ai4sim.errors import InputError
from downscaling.corrdiff.diffusion.losses import LossMaps
from downscaling.corrdiff.diffusion.preconditioning import per_image


class Uncertainty(nn.Module):
    """Makes all noise levels count alike: loss exp(-u) + u, with u(s) learnt, the logarithm of the expected loss.

    Karras et al. 2024, "Analyzing and improving the training dynamics of diffusion models", CVPR, after Kendall
    et al. 2018. Noise levels with much irreducible error otherwise drown the others. It is used in training
    only; u is 0 at first.

    Args:
        n_features: number of cosines of ln(s) / 4, of random frequencies and phases, that u is a sum of.

    Raises:
        InputError: no features.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, n_features: int = 128) -> None:
        super().__init__()
        if n_features < 1:
            raise InputError(f"n_features is {n_features}; expected at least 1")
        self.register_buffer("frequencies", torch.randn(n_features) * 2 * math.pi)
        self.register_buffer("phases", torch.rand(n_features) * 2 * math.pi)
        self.linear = nn.Linear(n_features, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, sigma: Tensor) -> Tensor:
        """Logarithms u (B,) at noise levels (B,)."""
        angles = (sigma.float().log() / 4)[:, None] * self.frequencies + self.phases
        result: Tensor = self.linear(angles.cos() * math.sqrt(2 / len(self.phases)))
        return result[:, 0]

    def weigh(self, maps: LossMaps, sigma: Tensor) -> LossMaps:
        """Weighted losses, from which the denoiser and u learn; their mean may be below 0.

        Args:
            maps: of a batch of B images.
            sigma: (B,) noise level of each.
        """
        u = per_image(self(sigma))
        values = maps.values * (-u).exp() + u
        return replace(maps, values=values if maps.known is None else values.where(maps.known, 0))
