"""A gamma distribution of the amount, and a probability of none."""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.climate import Climate
from precip_postproc.resunet_qpf.config import EDGES
from precip_postproc.resunet_qpf.heads.base import Head
from precip_postproc.resunet_qpf.heads.functions import inverse_softplus, upper_gamma
from precip_postproc.resunet_qpf.heads.moments import wet_moments

LEAST_SHAPE: Final = 0.3
# So that a network does not begin where the softplus is flat.
LEAST_EXCESS: Final = 0.05


class GammaParameters(NamedTuple):
    """Parameters of zero-inflated gamma distributions, each (B, H, W).

    Attributes:
        dry: logit of the probability of no precipitation.
        shape: k.
        scale: theta, mm.
    """

    dry: Tensor
    shape: Tensor
    scale: Tensor


class GammaHead(Head):
    """Zero-inflated gamma distribution: no precipitation with probability p0, else a gamma distributed amount.

    Outputs are the logit of p0, and shape and scale before ``0.3 + softplus`` and ``least_scale + softplus``. Where
    analyses report nothing between 0 and 0.25 mm, the gamma distribution's share there is lost to the exceedance of
    0.25 mm, which comes out too small; :class:`CsgdHead` has no such flaw.

    Args:
        edges: K amounts, mm, strictly increasing.
        least_scale: of the gamma distribution, mm, above 0.

    Raises:
        InputError: edges of which no classes can be made, or a ``least_scale`` that is not above 0.
    """

    n_outputs = 3

    def __init__(self, edges: Sequence[float] = EDGES, least_scale: float = 0.05) -> None:
        super().__init__(edges)
        if not least_scale > 0:
            raise InputError(f"GammaHead: least_scale must be above 0 mm, not {least_scale:g}")
        self.least_scale = least_scale

    def distribution(self, outputs: Tensor) -> GammaParameters:
        """The parameters that outputs (B, 3, H, W) stand for."""
        dry, shape, scale = self.checked(outputs).unbind(1)
        return GammaParameters(dry, LEAST_SHAPE + softplus(shape), self.least_scale + softplus(scale))

    def exceedance(self, outputs: Tensor) -> Tensor:
        """P(Y >= edge) (B, K, H, W) = (1 - p0) Q(k, edge/theta)."""
        dry, shape, scale = self.distribution(outputs)
        amounts = self.edges.to(scale)[:, None, None] / scale[:, None]
        return torch.sigmoid(-dry)[:, None] * upper_gamma(shape[:, None], amounts)

    def initial_bias(self, climate: Climate) -> Tensor:
        """Outputs (3,) by moments of the wet pixels: shape mean²/variance, scale variance/mean."""
        share, mean, variance = wet_moments(climate)
        excess = torch.tensor([mean**2 / variance - LEAST_SHAPE, variance / mean - self.least_scale]).double()
        shape, scale = inverse_softplus(excess.clamp(min=LEAST_EXCESS)).tolist()
        return torch.tensor([math.log((1 - share) / share), shape, scale])
