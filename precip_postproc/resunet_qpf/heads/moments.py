"""The climate's moments, made fit for inversion."""

from typing import NamedTuple

from precip_postproc.resunet_qpf.climate import Climate


class WetMoments(NamedTuple):
    """Of amounts from 0.25 mm on.

    Attributes:
        share: of pixels, within [1e-6, 1 - 1e-6].
        mean: mm.
        variance: mm², above 0.
    """

    share: float
    mean: float
    variance: float


def wet_moments(climate: Climate) -> WetMoments:
    """The climate's moments; those of an exponential distribution where amounts are absent or all the same."""
    share = min(max(climate.wet_share, 1e-6), 1 - 1e-6)
    mean = climate.wet_mean if climate.wet_share else 1.0
    variance = climate.wet_variance if climate.wet_share else 0.0
    return WetMoments(share, mean, variance if variance > 0 else mean**2)
