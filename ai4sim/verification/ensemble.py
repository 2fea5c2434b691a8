"""Verification of ensembles: CRPS, and spread and skill of the mean.

K members x_1 ... x_K stand for a distribution, from which the target y should be a further draw. As everywhere in this
package, sums over samples come first; they add up over files, blocks and processes in any order
(`ai4sim.verification.fields.merge_sums`), and every metric is a function of them, so that the block bootstrap applies::

    statistics = ensemble_statistics(members, truth, reduce=["sample", "y", "x"], block="day")
    block_bootstrap(statistics, crps, seed=0)
    block_bootstrap(statistics, ssr, seed=0)

The sums of the ensemble mean have the names of those of `error_statistics`: `rmse`, `mae` and `bias` of
`ai4sim.verification` are those of the mean. The number of members, on which several metrics depend, is the coordinate
`members`; sums of ensembles of different sizes are not merged.

A score is called fair if an ensemble drawn from the distribution of the target gets the best score on average whatever
its size (Ferro 2014, QJRMS 140, 1917-1923); `crps` is, and `plain_crps` that of the K members as if they were the whole
distribution.

Ranks are in `ai4sim.verification.ranks`, scores of many points and variables at once in
`ai4sim.verification.multivariate`.

The input is in memory, lazily opened or of Dask, and read a few fields at a time.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Final

import numpy as np
import xarray as xr

from ai4sim.verification.bootstrap import block_bootstrap
from ai4sim.verification.fields import Bool, Float, Index, Piece, binned_sums, field_sums
from ai4sim.verification.probabilistic import BIN, BIN_LOWER, BIN_UPPER
from ai4sim.verification.sums import BLOCK

MEMBER: Final = "member"
MEMBERS: Final = "members"

# Edges of the bins of the spread: eight per factor of two, for all variables in their usual units.
SPREAD_EDGES: Final = tuple(2.0 ** (power / 8.0) for power in range(-8 * 30, 8 * 30 + 1))

# Name of the bins where a bootstrap must keep them.
_PLACE: Final = "place"


def ensemble_statistics(
    members: xr.DataArray,
    target: xr.DataArray,
    *,
    member: Hashable = MEMBER,
    reduce: Hashable | Sequence[Hashable],
    block: Hashable | xr.DataArray | None = None,
    mask: xr.DataArray | None = None,
    skipna: bool = False,
) -> xr.Dataset:
    """Sums over samples of the scores of an ensemble and of its mean.

    With the mean m of K members x_k, the variables are

        n = weight = sum 1, error = sum (m - y), squared_error = sum (m - y)^2, absolute_error = sum abs(m - y),
        variance = sum 1/(K-1) sum_k (x_k - m)^2, deviation = sum sqrt(1/K sum_k (x_k - m)^2),
        crps = sum (1/K sum_k abs(x_k - y) - 1/(2 K (K-1)) sum_jk abs(x_j - x_k)),
        plain_crps = sum (1/K sum_k abs(x_k - y) - 1/(2 K^2) sum_jk abs(x_j - x_k))

    The sum over pairs is that of the sorted members, 2 sum_i (2 i - K - 1) x_(i), which takes O(K log K). A single
    member has neither pairs nor a variance: both CRPS are its absolute error, and the variance is NaN.

    Args:
        members: any shape with the dimension `member`.
        target: the dimensions, sizes and coordinates of `members` without `member`, in any order of dimensions.
        member: dimension of the members.
        reduce: dimensions to sum over.
        block: label of the independent block of each position along one of the reduced dimensions, see
            `error_statistics`.
        mask: True where values count, over any of the dimensions of the target; None for everywhere. What it leaves out
            may be NaN.
        skipna: leave values out where the target or any member is NaN, instead of raising.

    Returns:
        The sums over the dimensions that are not reduced, after `block` if there is one, in the unit of the target or
        its square; the unit is the attribute `units`.

    Raises:
        ValueError: dimensions, coordinates or units do not agree; a value is not finite.
    """
    size = member_count(members, target, member)
    ranks = 2.0 * np.arange(size) - size + 1.0

    def score(x: Float, y: Float, valid: Bool) -> Mapping[str, Float]:
        difference = x - y[..., None]
        error = difference.mean(axis=-1)
        # half of the mean distance of all pairs, with themselves; sorted rows must lie together
        gap = np.sort(np.ascontiguousarray(difference), axis=-1) @ ranks / size**2
        anomaly = difference - error[..., None]
        squares = np.einsum("...k,...k->...", anomaly, anomaly)
        distance = np.abs(difference).mean(axis=-1)
        count = valid.astype(np.float64)
        return {
            "n": count,
            "weight": count,
            "error": error,
            "squared_error": error**2,
            "absolute_error": np.abs(error),
            "variance": squares / (size - 1) if size > 1 else np.full(y.shape, np.nan),
            "deviation": np.sqrt(squares / size),
            "crps": distance - gap * (size / (size - 1) if size > 1 else 0.0),
            "plain_crps": distance - gap,
        }

    sums = field_sums(
        members,
        target,
        score,
        extra={},
        within=(),
        reduce=reduce,
        block=block,
        mask=mask,
        skipna=skipna,
        only=[member],
    )
    return sums.assign_coords({MEMBERS: size})


def crps(statistics: xr.Dataset) -> xr.DataArray:
    """Continuous ranked probability score, fair for ensembles (Ferro 2014, QJRMS 140, 1917-1923, eq. 6).

    Args:
        statistics: what `ensemble_statistics` gave, or other sums `crps` and `weight`.

    Returns:
        The mean score in the unit of the target, that of the mean absolute error, which it is for a single member; NaN
        where there is no sample. It may be slightly negative in a small set.
    """
    return mean_of(statistics, "crps", "crps")


def plain_crps(statistics: xr.Dataset) -> xr.DataArray:
    """CRPS of the empirical distribution of the members (Hersbach 2000, WAF 15, 559-570), which favours many of them.

    Args:
        statistics: what `ensemble_statistics` gave.

    Returns:
        The mean score in the unit of the target; NaN where there is no sample.
    """
    return mean_of(statistics, "plain_crps", "plain_crps")


def spread(statistics: xr.Dataset) -> xr.DataArray:
    """Ensemble spread, sqrt(mean variance), with the variance of each ensemble over K - 1 (Fortin et al. 2014, JHM 15).

    Args:
        statistics: what `ensemble_statistics` gave.

    Returns:
        The spread in the unit of the target; NaN where there is no sample, or a single member.
    """
    value = mean_of(statistics, "variance", "spread")
    return (value**0.5).assign_attrs(value.attrs)


def std_dev(statistics: xr.Dataset) -> xr.DataArray:
    """Mean over all points of the standard deviation over K: not a `spread`, but what other programs call one.

    Args:
        statistics: what `ensemble_statistics` gave.

    Returns:
        The deviation in the unit of the target; NaN where there is no sample.
    """
    return mean_of(statistics, "deviation", "std_dev")


def ssr(statistics: xr.Dataset) -> xr.DataArray:
    """Spread-skill ratio, sqrt((K + 1) / K) spread / rmse of the mean (Fortin et al. 2014, JHM 15, 1708-1713, eq. 15).

    Args:
        statistics: what `ensemble_statistics` gave, or other sums `variance` and `squared_error`; without the number of
            members, those of a forecast that gives its variance itself, which lacks the first factor.

    Returns:
        The ratio; 1 for an ensemble from which the target is a further draw, lower for too little spread. NaN where
        there is no sample or no error, or a single member.
    """
    error = statistics["squared_error"]
    ratio = _finite_factor(statistics) * statistics["variance"] / error.where(error > 0)
    return labelled(ratio**0.5, "ssr", "1")


def spread_skill_statistics(
    members: xr.DataArray,
    target: xr.DataArray,
    *,
    member: Hashable = MEMBER,
    edges: Sequence[float] = SPREAD_EDGES,
    reduce: Hashable | Sequence[Hashable],
    block: Hashable | xr.DataArray | None = None,
    mask: xr.DataArray | None = None,
    skipna: bool = False,
) -> xr.Dataset:
    """Sums over samples of variance and squared error of an ensemble, by bins of its standard deviation.

    Args:
        members: see `ensemble_statistics`.
        target: see `ensemble_statistics`.
        member: dimension of the members, two or more.
        edges: of the bins, increasing, in the unit of the target. The default ones are 9 % apart from 1e-9 to 1e9. What
            is beyond them is counted, too.
        reduce: dimensions to sum over.
        block: see `ensemble_statistics`.
        mask: see `ensemble_statistics`.
        skipna: see `ensemble_statistics`.

    Returns:
        `n` over the dimensions that are not reduced, after `block` if there is one, and (..., bin) `count`, `variance`
        and `squared_error`, see `ensemble_statistics`.

    Raises:
        ValueError: a single member; see `ensemble_statistics`.
    """
    size = member_count(members, target, member)
    if size < 2:
        raise ValueError(f"there is no spread of {size} member along the dimension {member!r}: give two or more")
    inner = np.asarray(edges, dtype=np.float64)
    if inner.ndim != 1 or not (np.diff(inner) > 0).all():
        raise ValueError(f"edges={[*edges]}: they must increase")

    def bins_of_spread(piece: Piece) -> Mapping[str, tuple[Index, Float | None]]:
        difference = piece.prediction - piece.target[..., None]
        error = difference.mean(axis=-1)
        anomaly = difference - error[..., None]
        variance = np.einsum("...k,...k->...", anomaly, anomaly) / (size - 1)
        number = np.searchsorted(inner, np.sqrt(variance), side="right")
        return {"count": (number, None), "variance": (number, variance), "squared_error": (number, error**2)}

    sums = binned_sums(
        members,
        target,
        bins_of_spread,
        bins=len(inner) + 1,
        dim=BIN,
        reduce=reduce,
        block=block,
        mask=mask,
        skipna=skipna,
        only=[member],
    )
    known = {BIN_LOWER: (BIN, np.append(0.0, inner)), BIN_UPPER: (BIN, np.append(inner, np.inf))}
    return sums.assign_coords({MEMBERS: size, **known})


def spread_skill_curve(
    statistics: xr.Dataset, *, bins: int = 10, level: float = 0.95, n_resamples: int = 1000, seed: int
) -> xr.Dataset:
    """Error of the ensemble mean against the spread, in bins of the spread that hold about as many values each.

    For a calibrated ensemble, sqrt((K + 1) / K) times the spread of a bin is the root mean squared error in it; so the
    first factor is part of `spread` here (Leutbecher and Palmer 2008, J. Comp. Phys. 227, 3515-3539, section 3.2).

    Args:
        statistics: what `spread_skill_statistics` gave.
        bins: number of bins, at most; bins of the statistics are put together, not split.
        level: of the intervals.
        n_resamples: number of resamples.
        seed: of the resampling.

    Returns:
        Over the dimensions of the statistics but `block`: (..., bin) `spread`, `rmse`, its interval `lower` and `upper`
        over the blocks, NaN where there are none, and `count`; NaN in empty bins.

    Raises:
        ValueError: no bins.
    """
    if bins < 1:
        raise ValueError(f"bins={bins}: give one or more")
    total = over_blocks(statistics)
    count = total["count"].transpose(..., BIN).values
    # each fine bin goes where the middle of its values is
    middle = np.cumsum(count, axis=-1) - 0.5 * count
    group = np.floor(bins * middle / np.maximum(count.sum(axis=-1, keepdims=True), 1.0)).clip(0, bins - 1)
    chosen = xr.DataArray(
        (group[..., None] == np.arange(bins)).astype(np.float64),
        dims=(*total["count"].transpose(..., BIN).dims, _PLACE),
    )
    names = ("count", "variance", "squared_error")
    coarse = statistics.drop_vars([BIN_LOWER, BIN_UPPER])
    wide = xr.Dataset({name: xr.dot(coarse[name], chosen, dim=BIN) for name in names}, attrs=statistics.attrs)
    if BLOCK in statistics.dims:
        wide = wide.assign_coords({BLOCK: statistics[BLOCK]})
    whole = over_blocks(wide)
    factor = _finite_factor(statistics)
    rmse = _bin_rmse(whole)
    lower = upper = xr.full_like(rmse, np.nan)
    if statistics.sizes.get(BLOCK, 1) > 1:
        _, lower, upper = block_bootstrap(wide, _bin_rmse, n_resamples=n_resamples, seed=seed, level=level)
    known = whole["count"].where(whole["count"] > 0)
    spread_of_bin = (factor * whole["variance"] / known) ** 0.5
    curve = xr.Dataset(
        {"spread": spread_of_bin, "rmse": rmse, "lower": lower, "upper": upper, "count": whole["count"]}
    ).rename({_PLACE: BIN})
    return curve.drop_vars(MEMBERS, errors="ignore").transpose(..., BIN).assign_attrs(statistics.attrs, level=level)


def member_count(members: xr.DataArray, target: xr.DataArray, member: Hashable) -> int:
    """Number of members; refuses members and targets of other dimensions by an error that names them."""
    if member not in members.dims:
        raise ValueError(
            f"members {members.name!r} have no dimension {member!r}: they have {members.dims}; name it by member=...,"
            " or expand_dims() a single field"
        )
    if member in target.dims:
        raise ValueError(f"target {target.name!r} has the dimension {member!r} of the members: select one of them")
    if not members.sizes[member]:
        raise ValueError(f"members {members.name!r} are none: the dimension {member!r} is empty")
    return members.sizes[member]


def _finite_factor(statistics: xr.Dataset) -> float:
    """(K + 1) / K: what the squared error of the mean of K members has more than their variance."""
    if MEMBERS not in statistics.coords:
        return 1.0
    size = int(statistics.coords[MEMBERS])
    return (size + 1.0) / size


def _bin_rmse(sums: xr.Dataset) -> xr.DataArray:
    count = sums["count"].where(sums["count"] > 0)
    return labelled((sums["squared_error"] / count) ** 0.5, "rmse", str(sums.attrs.get("units", "")))


def over_blocks(statistics: xr.Dataset) -> xr.Dataset:
    """Sums over the blocks where there still are some, with the attributes."""
    return statistics.sum(BLOCK).assign_attrs(statistics.attrs) if BLOCK in statistics.dims else statistics


def mean_of(statistics: xr.Dataset, of: str, name: str) -> xr.DataArray:
    """Sum over its weight, or the number of samples, as a metric in the unit of the target."""
    weight = statistics["weight" if "weight" in statistics else "n"]
    return labelled(statistics[of] / weight.where(weight > 0), name, str(statistics.attrs.get("units", "")))


def labelled(values: xr.DataArray, name: str, units: str) -> xr.DataArray:
    """A metric with its name and units, without the number of members."""
    result = values.rename(name).drop_vars(MEMBERS, errors="ignore")
    result.attrs = {"units": units} if units else {}
    return result
