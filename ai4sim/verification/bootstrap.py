"""Confidence intervals by the block bootstrap, from sums per independent block.

Errors of neighbouring columns, lead times or grid points depend on each other; days, forecasts or files
hardly do. Resampling such blocks with replacement (Hall 1985; Kuensch 1989, Ann. Statist. 17, 1217-1241)
keeps the dependence inside of them. As every metric is a function of sums, a resample is a row of block
counts times the sums per block: the data are read once, whatever the number of resamples.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ai4sim.verification.sums import BLOCK

Metric = Callable[[xr.Dataset], xr.DataArray]

RESAMPLE: Final = "resample"

# Sums held at a time while resampling, 64 MiB in float64.
_BATCH_SIZE: Final = 2**23


class Interval(NamedTuple):
    """A score with the bounds of its confidence interval, all of the same shape and unit."""

    value: xr.DataArray
    lower: xr.DataArray
    upper: xr.DataArray


def block_labels(*parts: xr.DataArray) -> xr.DataArray:
    """Labels of blocks that are the combinations of several coordinates, such as (file, day).

    Args:
        parts: one or more arrays of shape (sample,) along the same dimension; times are best floored to days
            first, ``time.dt.floor("D")``.

    Returns:
        Text labels (sample,), equal where all parts are equal, the same in every call.

    Raises:
        ValueError: no parts, or parts along different dimensions.
    """
    if not parts or any(part.ndim != 1 or part.sizes != parts[0].sizes for part in parts):
        raise ValueError(f"block_labels needs 1-D arrays along one dimension, not {[dict(p.sizes) for p in parts]}")
    uniques, codes = zip(*(np.unique(part.values, return_inverse=True) for part in parts), strict=True)
    combinations, inverse = np.unique(np.stack(codes), axis=1, return_inverse=True)
    names = np.array(["|".join(str(values[i]) for values, i in zip(uniques, c, strict=True)) for c in combinations.T])
    return xr.DataArray(names[inverse.reshape(-1)], dims=parts[0].dims, name=BLOCK)


def block_bootstrap(
    statistics: xr.Dataset,
    metric: Metric,
    *,
    n_resamples: int = 1000,
    seed: int,
    level: float = 0.95,
) -> Interval:
    """A metric of the whole set with its confidence interval over independent blocks.

    The interval is the expanded percentile interval (Hesterberg 2015, Am. Stat. 69, 371-386): percentiles
    widened by the factor sqrt(B / (B - 1)) t / z for B blocks, without which intervals from few blocks are
    too narrow.

    Args:
        statistics: sums with a dimension `block`, as `error_statistics(..., block=...)` gives them.
        metric: a function of the sums over all blocks, such as `rmse`. The sums have a further dimension
            `resample`, which the metric must keep.
        n_resamples: number of resamples; 1000 give the bounds to about 3 % of the width.
        seed: of the resampling. The same seed and the same blocks give the same resamples for every model.
        level: nominal coverage.

    Returns:
        Value from the sums over all blocks and the bounds of the interval, NaN (with a warning) for a single
        block.

    Raises:
        ValueError: no dimension `block`, or a level outside of (0, 1).
    """
    return _intervals([statistics], lambda values: values[0], metric, n_resamples, seed, level)


def bootstrap_difference(
    model: xr.Dataset,
    baseline: xr.Dataset,
    metric: Metric,
    *,
    n_resamples: int = 1000,
    seed: int,
    level: float = 0.95,
) -> Interval:
    """The difference of a metric, model minus baseline, with the interval of the difference.

    Both are resampled with the same blocks: what makes a day hard for both cancels, and the interval is
    narrower than those of the two scores suggest.

    Args:
        model: sums with a dimension `block`.
        baseline: sums over the same blocks.
        metric: see `block_bootstrap`.
        n_resamples: number of resamples.
        seed: of the resampling.
        level: nominal coverage.

    Returns:
        Difference and the bounds of its interval, in the unit of the metric.

    Raises:
        ValueError: the blocks or numbers of samples differ, or see `block_bootstrap`.
    """
    _check_common_samples(model, baseline)
    return _intervals([model, baseline], lambda v: v[0] - v[1], metric, n_resamples, seed, level)


def bootstrap_skill(
    model: xr.Dataset,
    baseline: xr.Dataset,
    metric: Metric,
    *,
    perfect: float = 0.0,
    n_resamples: int = 1000,
    seed: int,
    level: float = 0.95,
) -> Interval:
    """Skill against a baseline, ``1 - |m - m_perfect| / |m_baseline - m_perfect|``, with its interval.

    The skill score is that of Wilks 2019, eq. 9.4, for metrics that miss the perfect value on either side too.

    Args:
        model: sums with a dimension `block`.
        baseline: sums over the same blocks.
        metric: see `block_bootstrap`.
        perfect: the metric of a perfect prediction: 0 for errors, 1 for r2 or a correlation.
        n_resamples: number of resamples.
        seed: of the resampling.
        level: nominal coverage.

    Returns:
        Skill and the bounds of its interval: 1 for a perfect model, 0 for one as good as the baseline; NaN
        where the baseline is perfect.

    Raises:
        ValueError: the blocks or numbers of samples differ, or see `block_bootstrap`.
    """
    _check_common_samples(model, baseline)

    def skill(values: Sequence[xr.DataArray]) -> xr.DataArray:
        own, reference = values
        gap = abs(reference - perfect)
        return (gap - abs(own - perfect)) / gap.where(gap != 0)

    result = _intervals([model, baseline], skill, metric, n_resamples, seed, level)
    return Interval(*(part.rename(f"{part.name}_skill").assign_attrs(units="1") for part in result))


def _intervals(
    statistics: Sequence[xr.Dataset],
    combine: Callable[[Sequence[xr.DataArray]], xr.DataArray],
    metric: Metric,
    n_resamples: int,
    seed: int,
    level: float,
) -> Interval:
    if not 0.0 < level < 1.0:
        raise ValueError(f"level={level}: the coverage of an interval is between 0 and 1")
    if n_resamples < 2:
        raise ValueError(f"n_resamples={n_resamples}: an interval needs many resamples, 1000 by default")
    if any(BLOCK not in part.dims for part in statistics):
        raise ValueError("the statistics have no dimension 'block': pass block=... to error_statistics")

    whole = [metric(part.sum(BLOCK).assign_attrs(part.attrs)) for part in statistics]
    attrs, name = whole[0].attrs, whole[0].name
    value = combine(whole).rename(name).assign_attrs(attrs)
    blocks = statistics[0].sizes[BLOCK]
    if blocks < 2:
        warnings.warn("one block only: no confidence interval; give more independent blocks", stacklevel=3)
        missing = xr.full_like(value, np.nan)
        return Interval(value, missing, missing.copy())

    width = max(blocks, sum(variable.size for variable in statistics[0].values()) // blocks)
    with warnings.catch_warnings():
        # what is undefined in a resample but not in the whole set was said of the whole set, or is not of
        # interest
        warnings.simplefilter("ignore")
        parts = [
            combine([metric(_resampled(part, counts)) for part in statistics])
            for counts in _resamples(blocks, n_resamples, seed, batch=max(1, _BATCH_SIZE // width))
        ]
    values = xr.concat(parts, RESAMPLE)

    tail = _expanded_tail(blocks, level)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        bounds = values.quantile([tail, 1.0 - tail], dim=RESAMPLE, skipna=True)
    lower, upper = (
        bounds.isel(quantile=i, drop=True).transpose(*value.dims).rename(name).assign_attrs(attrs) for i in (0, 1)
    )
    # where the resamples are all to one side (an r2 near 0), the interval still holds the value itself
    return Interval(value, lower.where(~(lower > value), value), upper.where(~(upper < value), value))


def _resamples(blocks: int, n_resamples: int, seed: int, batch: int) -> Iterator[NDArray[np.float64]]:
    """Counts (resample, block); the sequence does not depend on the size of the batches."""
    rng = np.random.default_rng(seed)
    share = np.full(blocks, 1.0 / blocks)
    for start in range(0, n_resamples, batch):
        yield rng.multinomial(blocks, share, size=min(batch, n_resamples - start)).astype(np.float64)


def _resampled(statistics: xr.Dataset, counts: NDArray[np.float64]) -> xr.Dataset:
    sums = {}
    for name, variable in statistics.data_vars.items():
        rest = [dim for dim in variable.dims if dim != BLOCK]
        values = np.tensordot(counts, variable.transpose(BLOCK, *rest).values, axes=1)
        sums[name] = ((RESAMPLE, *rest), values)
    coords = {name: values for name, values in statistics.coords.items() if BLOCK not in values.dims}
    return xr.Dataset(sums, coords=coords, attrs=statistics.attrs)


def _expanded_tail(blocks: int, level: float) -> float:
    """Probability below the lower bound of the expanded percentile interval."""
    t = _student_t(0.5 + level / 2.0, blocks - 1)
    return NormalDist().cdf(-math.sqrt(blocks / (blocks - 1)) * t)


def _student_t(probability: float, degrees: int) -> float:
    """Quantile of Student's t distribution from the normal one (Abramowitz & Stegun 1964, 26.7.5)."""
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4.0,
        (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0,
        (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0,
        (79.0 * z**9 + 776.0 * z**7 + 1482.0 * z**5 - 1920.0 * z**3 - 945.0 * z) / 92160.0,
    )
    return z + math.fsum(term / degrees**power for power, term in enumerate(terms, start=1))


def _check_common_samples(model: xr.Dataset, baseline: xr.Dataset) -> None:
    if BLOCK not in model.dims or BLOCK not in baseline.dims:
        raise ValueError("the statistics have no dimension 'block': pass block=... to error_statistics")
    if not np.array_equal(model[BLOCK].values, baseline[BLOCK].values):
        raise ValueError("model and baseline have different blocks: score both on the same samples")
    if not np.array_equal(model["n"].values, baseline["n"].values):
        raise ValueError("model and baseline have different numbers of samples: score both on the same samples")
