"""Losses of distributions with parameters, and of quantiles."""

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from precip_postproc.resunet_qpf.classes import usable
from precip_postproc.resunet_qpf.config import GUARD
from precip_postproc.resunet_qpf.heads import CsgdHead, CsgdParameters, GammaHead, QuantileHead
from precip_postproc.resunet_qpf.heads.functions import upper_gamma
from precip_postproc.resunet_qpf.losses.base import AmountLoss


class GammaLikelihood(AmountLoss[GammaHead]):
    """Negative logarithm of the likelihood of a zero-inflated gamma distribution.

    ``-log p0`` without precipitation, else ``-log(1 - p0)`` minus the logarithm of the gamma density, per mm.
    """

    head_kinds = (GammaHead,)

    def forward(self, head: GammaHead, outputs: Tensor, amounts: Tensor) -> Tensor:
        """Loss (B, H, W) of every pixel."""
        dry, shape, scale = head.distribution(outputs)
        wet = usable(amounts) & (amounts >= GUARD)
        # before the logarithm: its gradient would be 0 * NaN
        amount = torch.where(wet, amounts, 1).to(scale.dtype)
        density = (shape - 1) * amount.log() - amount / scale - shape * scale.log() - torch.lgamma(shape)
        loss = torch.where(wet, softplus(dry) - density, softplus(-dry))
        return loss.where(usable(amounts), 0)


class CsgdCrps(AmountLoss[CsgdHead]):
    """Continuous ranked probability score of a censored, shifted gamma distribution, mm.

    Scheuerer and Hamill (2015), Mon. Wea. Rev. 143, 4578-4596.
    """

    head_kinds = (CsgdHead,)

    def forward(self, head: CsgdHead, outputs: Tensor, amounts: Tensor) -> Tensor:
        """Loss (B, H, W) of every pixel, mm."""
        known = usable(amounts)
        parameters = head.distribution(outputs)
        score = csgd_crps(parameters, torch.where(known, amounts, 0))
        return score.to(parameters.scale.dtype).where(known, 0)


def csgd_crps(parameters: CsgdParameters, amounts: Tensor) -> Tensor:
    """Continuous ranked probability score, mm, of distributions (B, H, W), given amounts (B, H, W), mm, not negative.

    In double precision: its terms cancel where a distribution is narrow.
    """
    shape, scale, shift = (parameter.double() for parameter in parameters)
    start, z = -shift / scale, (amounts.double() - shift) / scale
    at_start, at_z = upper_gamma(shape, start), upper_gamma(shape, z)
    # Q(k + 1, x) = Q(k, x) + x^k exp(-x) / Gamma(k + 1)
    next_start, next_z = at_start + _step(shape, start), at_z + _step(shape, z)
    twice = upper_gamma(2 * shape, 2 * start)
    # k/pi B(1/2, k + 1/2)
    factor = shape / math.sqrt(math.pi) * torch.exp(torch.lgamma(shape + 0.5) - torch.lgamma(shape + 1))
    # with F = 1 - Q, gathered so that nothing large cancels: a dry pixel that was sure to be dry scores 0
    return scale * (
        z * (1 - 2 * at_z)
        - start * (1 - at_start).square()
        + shape * (2 * next_z - 2 * next_start - at_start.square() + 2 * at_start * next_start)
        - factor * twice
    )


def _step(shape: Tensor, x: Tensor) -> Tensor:
    """Q(k + 1, x) - Q(k, x)."""
    return torch.exp(shape * x.log() - x - torch.lgamma(shape + 1))


class Pinball(AmountLoss[QuantileHead]):
    """Mean of the quantiles' losses, ``max(t (y - q), (t - 1)(y - q))`` at level t: half a quadrature of the CRPS, mm.

    Where nothing fell, quantiles below 0 are as good as 0 (censored quantile regression, Powell 1986, J. Econometrics
    32, 143-155). Where something fell, they are not set to 0, or they could never learn to rise; the loss stays
    convex, with its minimum at the true quantile or, if that is 0, at 0.
    """

    head_kinds = (QuantileHead,)

    def forward(self, head: QuantileHead, outputs: Tensor, amounts: Tensor) -> Tensor:
        """Loss (B, H, W) of every pixel, mm."""
        known = usable(amounts)
        amount = torch.where(known, amounts, 0)[:, None]
        quantiles = head.quantiles(outputs)
        levels = head.levels.to(quantiles.dtype)[:, None, None]
        error = amount.to(quantiles.dtype) - torch.where(amount >= GUARD, quantiles, quantiles.clamp(min=0))
        return torch.maximum(levels * error, (levels - 1) * error).mean(1).where(known, 0)
