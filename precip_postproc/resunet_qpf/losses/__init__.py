"""How wrong a predictive distribution was, pixel by pixel."""

from precip_postproc.resunet_qpf.losses.base import AmountLoss, masked_mean
from precip_postproc.resunet_qpf.losses.classes import (
    BinnedCrps,
    CrossEntropy,
    Mixed,
    RankedProbability,
    ThresholdWeighted,
)
from precip_postproc.resunet_qpf.losses.parametric import CsgdCrps, GammaLikelihood, Pinball

__all__ = [
    "AmountLoss",
    "BinnedCrps",
    "CrossEntropy",
    "CsgdCrps",
    "GammaLikelihood",
    "Mixed",
    "Pinball",
    "RankedProbability",
    "ThresholdWeighted",
    "masked_mean",
]
