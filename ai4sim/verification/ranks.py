"""Rank histograms of ensembles (Hamill 2001, MWR 129, 550-560): is the target like a further member?

Counts add up over files, blocks and processes (`ai4sim.verification.fields.merge_sums`)::

    statistics = rank_statistics(members, truth, reduce=["sample", "y", "x"], block="day")
    block_bootstrap(statistics, outlier_ratio, seed=0)
    curve = rank_curve(statistics, seed=0)

Wilks 2019 is Statistical Methods in the Atmospheric Sciences, 4th edition, Elsevier.
"""

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from statistics import NormalDist
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ai4sim.verification.bootstrap import block_bootstrap
from ai4sim.verification.ensemble import MEMBER, MEMBERS, labelled, member_count, over_blocks
from ai4sim.verification.fields import Float, Index, Piece, binned_sums
from ai4sim.verification.sums import BLOCK

RANK: Final = "rank"

# Name of the ranks where a bootstrap must keep them.
_PLACE: Final = "place"

_Uint = NDArray[np.uint64]


def rank_statistics(
    members: xr.DataArray,
    target: xr.DataArray,
    *,
    member: Hashable = MEMBER,
    seed: int = 0,
    reduce: Hashable | Sequence[Hashable],
    block: Hashable | xr.DataArray | None = None,
    mask: xr.DataArray | None = None,
    skipna: bool = False,
) -> xr.Dataset:
    """Counts of the rank of the target among the members, from 0, below all, to K.

    A target that equals some members gets one of the ranks between them at random, all equally likely (Hamill and
    Colucci 1997, MWR 125, 1312-1327): without that, the many zeros of rain would pile up in one rank. What is drawn for
    a value follows from the seed and from where it is, by the coordinates of its dimensions, or by their positions
    where they have none. So it is the same however the data are cut or chunked and whatever the order of their
    dimensions, for all models, and, for dimensions with coordinates, for parts of a set.

    Args:
        members: see `ensemble_statistics`.
        target: see `ensemble_statistics`.
        member: dimension of the members.
        seed: of the draws.
        reduce: dimensions to sum over.
        block: see `ensemble_statistics`.
        mask: see `ensemble_statistics`.
        skipna: see `ensemble_statistics`.

    Returns:
        `n` over the dimensions that are not reduced, after `block` if there is one, and `count` (..., rank).

    Raises:
        ValueError: see `ensemble_statistics`.
    """
    size = member_count(members, target, member)
    keys = {dim: _place_keys(target, dim, seed) for dim in target.dims}

    def ranks(piece: Piece) -> Mapping[str, tuple[Index, Float | None]]:
        y = piece.target[..., None]
        rank = (piece.prediction < y).sum(axis=-1)
        ties = (piece.prediction == y).sum(axis=-1)
        if ties.any():
            rank += (_uniform(keys, piece.place) * (ties + 1)).astype(np.intp)
        return {"count": (rank, None)}

    sums = binned_sums(
        members,
        target,
        ranks,
        bins=size + 1,
        dim=RANK,
        reduce=reduce,
        block=block,
        mask=mask,
        skipna=skipna,
        only=[member],
    )
    return sums.drop_attrs(deep=False).assign_coords({MEMBERS: size, RANK: np.arange(size + 1)})


def rank_histogram(statistics: xr.Dataset) -> xr.DataArray:
    """Relative frequency of each rank over that of a flat histogram, (K + 1) count / n (Hamill 2001, MWR 129, 550-560).

    Args:
        statistics: what `rank_statistics` gave.

    Returns:
        The frequency (..., rank): 1 in all ranks for a calibrated ensemble, U-shaped if it has too little spread.
    """
    n = statistics["n"]
    frequency = statistics["count"] * statistics["count"].sizes[_rank(statistics)] / n.where(n > 0)
    return labelled(frequency, "rank_histogram", "1")


def rank_chi2(statistics: xr.Dataset) -> xr.DataArray:
    """Chi-squared of the rank counts against flat ones over the degrees of freedom, sum_r (c_r - e)^2 / e / K.

    It is near 1 for a calibrated ensemble and independent values only; values that depend on each other, as neighbours
    do, make it larger. The number expected is e = n / (K + 1) (Wilks 2019, section 9.7.1).

    Args:
        statistics: what `rank_statistics` gave.

    Returns:
        The ratio over the dimensions of the statistics but `rank`; NaN where there is no sample.
    """
    count, n = statistics["count"], statistics["n"]
    expected = (n / count.sizes[RANK]).where(n > 0)
    return labelled(((count - expected) ** 2).sum(RANK) / expected / (count.sizes[RANK] - 1), "rank_chi2", "1")


def outlier_fraction(statistics: xr.Dataset) -> xr.DataArray:
    """Share of targets outside of the range of the members: the frequency of the first and the last rank.

    Args:
        statistics: what `rank_statistics` gave.

    Returns:
        The share over the dimensions of the statistics but `rank`; NaN where there is no sample.
    """
    n = statistics["n"]
    outside = statistics["count"].isel({RANK: [0, -1]}).sum(RANK)
    return labelled(outside / n.where(n > 0), "outlier_fraction", "1")


def outlier_ratio(statistics: xr.Dataset) -> xr.DataArray:
    """`outlier_fraction` over that of a calibrated ensemble, 2 / (K + 1): above 1 for too little spread.

    Args:
        statistics: what `rank_statistics` gave.

    Returns:
        The ratio over the dimensions of the statistics but `rank`; NaN where there is no sample.
    """
    ratio = outlier_fraction(statistics) * statistics["count"].sizes[RANK] / 2.0
    return labelled(ratio, "outlier_ratio", "1")


def rank_curve(statistics: xr.Dataset, *, level: float = 0.95, n_resamples: int = 1000, seed: int) -> xr.Dataset:
    """Rank histogram with the band in which the frequencies of a flat one would fall.

    The band is about 1. Its half-width is the larger one of that of n independent values, z sqrt(K / n), and, where the
    statistics have blocks, of that of the frequency's own interval over blocks: neighbouring values depend on each
    other, and a flat histogram of a few days is rougher than their number tells.

    Args:
        statistics: what `rank_statistics` gave, best with blocks.
        level: nominal share of the ranks of a calibrated ensemble within the band.
        n_resamples: number of resamples.
        seed: of the resampling.

    Returns:
        Over the dimensions of the statistics but `block`: `frequency`, `lower` and `upper` (..., rank), and `n`.
    """
    total = over_blocks(statistics)
    n = total["n"].where(total["n"] > 0)
    frequency = rank_histogram(total)
    half = NormalDist().inv_cdf(0.5 + level / 2.0) * ((total.sizes[RANK] - 1) / n) ** 0.5
    below, above = half * xr.ones_like(frequency), half * xr.ones_like(frequency)
    if statistics.sizes.get(BLOCK, 1) > 1:
        each = statistics.drop_vars(RANK).rename({RANK: _PLACE})
        own = block_bootstrap(each, rank_histogram, n_resamples=n_resamples, seed=seed, level=level)
        own_value, own_lower, own_upper = (part.rename({_PLACE: RANK}) for part in own)
        # the band is about 1: an interval that goes far down is a frequency that may be far too high
        below = below.where(below > own_upper - own_value, own_upper - own_value)
        above = above.where(above > own_value - own_lower, own_value - own_lower)
    bounds = {"lower": (1.0 - below).clip(0.0), "upper": 1.0 + above}
    curve = xr.Dataset({"frequency": frequency, **bounds, "n": total["n"]}).transpose(..., RANK)
    return curve.drop_vars(MEMBERS, errors="ignore").assign_attrs(level=level)


def _place_keys(target: xr.DataArray, dim: Hashable, seed: int) -> _Uint:
    """A random number for each place along a dimension, that of its label if it has labels that differ."""
    labels = target.indexes.get(dim)
    if labels is None or not labels.is_unique:
        keys = np.arange(target.sizes[dim], dtype=np.uint64)
    elif labels.dtype.kind in "mM":
        keys = labels.values.astype(np.int64).view(np.uint64)
    elif labels.dtype.kind in "iufb":
        keys = (labels.values.astype(np.float64) + 0.0).view(np.uint64)
    else:
        keys = np.array([_hashed(str(label)) for label in labels.values], dtype=np.uint64)
    return _mixed(keys ^ np.uint64(_hashed(f"{seed} {dim}")))


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _mixed(keys: _Uint) -> _Uint:
    """Bits scrambled so that close keys have independent ones (SplitMix64: Steele et al. 2014, OOPSLA)."""
    keys = keys + np.uint64(0x9E3779B97F4A7C15)
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def _uniform(keys: Mapping[Hashable, _Uint], place: Mapping[Hashable, slice]) -> Float:
    """A number in [0, 1) for each value of a piece, in the order of the dimensions of `place`."""
    total = np.zeros((1,) * len(place), dtype=np.uint64)
    for axis, (dim, part) in enumerate(place.items()):
        along = keys[dim][part]
        # a sum does not depend on the order of the dimensions
        total = total + along.reshape([-1 if other == axis else 1 for other in range(len(place))])
    return np.asarray((_mixed(total) >> np.uint64(11)) * 2.0**-53)


def _rank(statistics: xr.Dataset) -> Hashable:
    return RANK if RANK in statistics.dims else _PLACE
