"""What a network's outputs at a pixel say about the hourly amount there."""

from precip_postproc.resunet_qpf.heads.base import Head
from precip_postproc.resunet_qpf.heads.classes import ClassHead
from precip_postproc.resunet_qpf.heads.csgd import CsgdHead, CsgdParameters
from precip_postproc.resunet_qpf.heads.gamma import GammaHead, GammaParameters
from precip_postproc.resunet_qpf.heads.quantile import QuantileHead

__all__ = [
    "ClassHead",
    "CsgdHead",
    "CsgdParameters",
    "GammaHead",
    "GammaParameters",
    "Head",
    "QuantileHead",
]
