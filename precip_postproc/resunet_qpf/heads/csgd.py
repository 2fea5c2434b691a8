"""Censored, shifted gamma distribution of the amount."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus
from torch.special import gammaincc

from precip_postproc.resunet_qpf.climate import WET, Climate
from precip_postproc.resunet_qpf.config import EDGES
from precip_postproc.resunet_qpf.heads.base import Head
from precip_postproc.resunet_qpf.heads.functions import inverse_softplus, upper_gamma
from precip_postproc.resunet_qpf.heads.moments import wet_moments

LEAST_SHAPE: Final = 0.1
LEAST_SCALE: Final = 0.05  # mm
LEAST_SHIFT: Final = 0.01  # mm
# So that a network does not begin where the softplus is flat.
LEAST_EXCESS: Final = 0.05


class CsgdParameters(NamedTuple):
    """Parameters of censored, shifted gamma distributions, each (B, H, W).

    Attributes:
        shape: k.
        scale: theta, mm.
        shift: delta < 0, mm.
    """

    shape: Tensor
    scale: Tensor
    shift: Tensor


class CsgdHead(Head):
    """Censored, shifted gamma distribution: Y = max(0, delta + theta Gamma(k)) with delta < 0.

    Scheuerer and Hamill (2015), Mon. Wea. Rev. 143, 4578-4596. One continuous distribution makes up the probability of
    no precipitation as well as the amounts. Outputs are shape, scale and -delta before ``0.1 + softplus``,
    ``0.05 mm + softplus`` and ``0.01 mm + softplus``.

    Args:
        edges: K amounts, mm, strictly increasing.
    """

    n_outputs = 3

    def __init__(self, edges: Sequence[float] = EDGES) -> None:
        super().__init__(edges)

    def distribution(self, outputs: Tensor) -> CsgdParameters:
        """The parameters that outputs (B, 3, H, W) stand for."""
        shape, scale, shift = softplus(self.checked(outputs)).unbind(1)
        return CsgdParameters(LEAST_SHAPE + shape, LEAST_SCALE + scale, -LEAST_SHIFT - shift)

    def exceedance(self, outputs: Tensor) -> Tensor:
        """P(Y >= edge) (B, K, H, W) = Q(k, (edge - delta)/theta)."""
        shape, scale, shift = self.distribution(outputs)
        amounts = (self.edges.to(scale)[:, None, None] - shift[:, None]) / scale[:, None]
        return upper_gamma(shape[:, None], amounts)

    def initial_bias(self, climate: Climate) -> Tensor:
        """Outputs (3,) by moments: the climate's share of wet pixels, mean and, about, variance of their amounts."""
        share, mean, variance = wet_moments(climate)
        shape = torch.logspace(-1, 1, 400, dtype=torch.float64) + LEAST_EXCESS
        start = _upper_quantile(shape, share)
        # of the part of a unit gamma distribution beyond ``start``: mean and variance of the excess
        first, second = (gammaincc(shape + n, start) / share for n in (1, 2))
        excess = shape * first - start
        spread = shape * (shape + 1) * second - (shape * first) ** 2
        scale = max(mean - WET, 0.1) / excess
        shift = WET - scale * start
        # a shift above 0 would leave no dry pixels
        misfit = (scale**2 * spread / variance).log().abs().where(shift < 0, torch.inf)
        best = int(misfit.argmin())
        wanted = torch.stack(
            [shape[best] - LEAST_SHAPE, scale[best] - LEAST_SCALE, shift[best].clamp(max=0).neg() - LEAST_SHIFT]
        )
        return inverse_softplus(wanted.clamp(min=LEAST_EXCESS)).float()


def _upper_quantile(shape: Tensor, share: float) -> Tensor:
    """Where Q(shape, x) = share, by bisection in log x."""
    low, high = torch.full_like(shape, -700.0), torch.full_like(shape, 6.0)
    for _ in range(80):
        middle = (low + high) / 2
        above = gammaincc(shape, middle.exp()) > share
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return low.exp()
