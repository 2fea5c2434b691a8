"""Verification of probabilities that an amount, such as rain, is at or above a threshold.

The pairs of a probability p and an event o (0 or 1) are gathered into fine bins of the probability. From the sums in
these follow exactly the Brier score, its decomposition over any wider bins, and, to the width of the fine bins, the
curves: reliability, isotonic recalibration, ROC and performance diagram. The sums add up over days, files and processes
in any order (`ai4sim.verification.fields.merge_sums`), and every metric is a function of them, so that the block
bootstrap applies to each::

    statistics = probability_statistics(probability, rain, reduce=["sample", "y", "x"], block="day")
    block_bootstrap(statistics, brier, seed=0)

Curves are over all blocks: sums that still are by block are added up. All other dimensions are kept.

Wilks 2019 is Statistical Methods in the Atmospheric Sciences, 4th edition, Elsevier.
"""

from collections.abc import Hashable, Mapping, Sequence
from math import prod
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ai4sim.verification.bootstrap import block_bootstrap
from ai4sim.verification.fields import Bool, Float, field_sums, groups_of
from ai4sim.verification.spatial import PROBABILITY_ROUNDING, THRESHOLD, probability_levels
from ai4sim.verification.sums import BLOCK, aligned, labels_of_blocks, reduced_dimensions, slices

BIN: Final = "bin"
BIN_LOWER: Final = "bin_lower"
BIN_UPPER: Final = "bin_upper"
CUT: Final = "cut"

# Edges of the bins of the sums: 0.01 wide, finer below 0.05, where the probabilities of rare events are.
FINE_BINS: Final = (
    *(0.0, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005),
    *(round(0.005 * i, 3) for i in range(2, 10)),
    *(round(0.01 * i, 2) for i in range(5, 101)),
)
# Edges of the bins of reliability diagrams: centred on 0, 0.1, ... 1.
CENTRED_BINS: Final = (0.0, *(round(0.05 + 0.1 * i, 2) for i in range(10)), 1.0)

PROBABILITY_SUMS: Final = ("count", "forecast", "observed", "forecast_squared", "product")

# Edges are multiples of 1 / _CELLS, so that the bin of a probability can be looked up: ten times as fast as a search.
_CELLS: Final = 10_000
# In cells. A probability in single precision may lie below the edge that it means.
_SLACK: Final = 1e-3

# Name of the bins where a bootstrap must keep them.
_PLACE: Final = "place"


def probability_statistics(
    probability: xr.DataArray,
    observed: xr.DataArray,
    *,
    reduce: Hashable | Sequence[Hashable],
    block: Hashable | xr.DataArray | None = None,
    mask: xr.DataArray | None = None,
    bins: Sequence[float] = FINE_BINS,
    guard: float = 1e-4,
) -> xr.Dataset:
    """Sums over samples of probabilities and events, by bins of the probability.

    With the probability p and the event o (1 if the amount is at or above the threshold, else 0), the variables are

        count = sum 1, forecast = sum p, observed = sum o, forecast_squared = sum p^2, product = sum p o

    in each bin, and `n`, the number of pairs in all bins, which is the same for all models and thresholds.

    Args:
        probability: in [0, 1], of an amount at or above each `threshold`, a dimension with a coordinate in the unit of
            `observed`; beside it, the dimensions of `observed`, in any order. In memory, lazily opened or of Dask.
        observed: amounts; where they are NaN, nothing is counted.
        reduce: dimensions of `observed` to sum over.
        block: label of the independent block of each position along one of the reduced dimensions, see
            `error_statistics`.
        mask: True where values count, over any of the dimensions of `observed`; None for everywhere.
        bins: edges of the bins from 0 to 1, multiples of 0.0001. A bin holds its lower edge, the last one 1 too.
        guard: an event is an amount of at least the threshold less this, in the unit of `observed`: amounts that were
            packed or remapped miss the threshold that they mean by rounding.

    Returns:
        `n` over the dimensions that are not reduced, after `block` if there is one, and `PROBABILITY_SUMS` (...,
        threshold, bin), all in float64; the edges are the coordinates `bin_lower` and `bin_upper` of `bin`.

    Raises:
        ValueError: no thresholds or bins; dimensions, coordinates or units do not agree; a probability that counts is
            missing or outside of [0, 1], an amount infinite.
    """
    levels = probability_levels(probability, observed)
    edges = _edges(bins)
    names = reduced_dimensions(observed, reduce)
    aligned(probability.isel({THRESHOLD: 0}, drop=True), observed, mask)
    labels, codes, block_dim = labels_of_blocks(observed, names, block)
    kept = [dim for dim in observed.dims if dim not in names]
    order = [*sorted(names, key=lambda dim: dim != block_dim), *kept]
    observed, probability = observed.transpose(*order), probability.transpose(THRESHOLD, *order)
    kept_shape = tuple(observed.sizes[dim] for dim in kept)
    table = _lookup(edges)

    totals = np.zeros((len(PROBABILITY_SUMS), len(labels), *kept_shape, len(levels), len(edges) - 1))
    for part in slices(observed, order):
        amounts = observed.isel(part).load()
        chosen = _counted(amounts, mask, part)
        forecasts = probability.isel(part).values
        cells = tuple(part[dim] for dim in kept)
        shape = amounts.shape[len(names) :]
        present, rows = np.unique(codes[part[block_dim]], return_inverse=True)
        group = groups_of(rows, amounts.shape, len(names))[chosen]
        values = amounts.values[chosen]
        for place, level in enumerate(levels):
            p = _checked(forecasts[place], chosen, probability, {THRESHOLD: slice(place, place + 1), **part})
            sums = _binned_sums(p, values >= level - guard, group, table, len(present) * prod(shape))
            sums = sums.reshape(len(PROBABILITY_SUMS), len(present), *shape, len(edges) - 1)
            for row, code in enumerate(present):
                totals[(slice(None), code, *cells, place)] += sums[:, row]

    coords: dict[Hashable, Any] = {name: c for name, c in observed.coords.items() if set(c.dims) <= set(kept)}
    units = {"units": observed.attrs["units"]} if "units" in observed.attrs else {}
    coords[THRESHOLD] = (THRESHOLD, levels, {**probability[THRESHOLD].attrs, **units})
    coords |= {BIN_LOWER: (BIN, edges[:-1]), BIN_UPPER: (BIN, edges[1:])}
    dims: tuple[Hashable, ...] = tuple(kept)
    if block is None:
        totals = totals[:, 0]
    else:
        dims = (BLOCK, *dims)
        coords[BLOCK] = xr.DataArray(labels, dims=BLOCK)
    data: dict[str, Any] = {"n": (dims, totals[0, ..., 0, :].sum(axis=-1))}
    data |= {name: ((*dims, THRESHOLD, BIN), total) for name, total in zip(PROBABILITY_SUMS, totals, strict=True)}
    return xr.Dataset(data, coords=coords)


def brier(statistics: xr.Dataset) -> xr.DataArray:
    """Brier score, sum (p - o)^2 / n (Brier 1950; Wilks 2019, eq. 9.42).

    Args:
        statistics: what `probability_statistics` gave; summed over their bins, too.

    Returns:
        The score in [0, 1] over the dimensions of the statistics but `bin`; NaN where there is no sample.
    """
    error = statistics["forecast_squared"] - 2.0 * statistics["product"] + statistics["observed"]
    return _per_value(statistics, error, "brier")


def rps(statistics: xr.Dataset) -> xr.DataArray:
    """Ranked probability score, the sum of the Brier scores over the thresholds (Wilks 2019, eqs. 9.54 and 9.55).

    Args:
        statistics: what `probability_statistics` gave.

    Returns:
        The score from 0 to the number of thresholds, over the dimensions of the statistics but `threshold` and `bin`.

    Raises:
        ValueError: the statistics are of a single threshold.
    """
    if THRESHOLD not in statistics.dims:
        raise ValueError(f"rps is a sum over thresholds: the statistics have the dimensions {tuple(statistics.sizes)}")
    return _labelled(brier(statistics).sum(THRESHOLD, skipna=False), "rps")


def base_rate(statistics: xr.Dataset) -> xr.DataArray:
    """Observed relative frequency of the event, sum o / n.

    Args:
        statistics: what `probability_statistics` gave.

    Returns:
        The frequency over the dimensions of the statistics but `bin`.
    """
    return _per_value(statistics, statistics["observed"], "base_rate")


def mean_forecast(statistics: xr.Dataset) -> xr.DataArray:
    """Mean probability, sum p / n.

    Args:
        statistics: what `probability_statistics` gave.

    Returns:
        The mean over the dimensions of the statistics but `bin`.
    """
    return _per_value(statistics, statistics["forecast"], "mean_forecast")


def probability_bias(statistics: xr.Dataset) -> xr.DataArray:
    """Mean probability minus observed frequency, sum (p - o) / n: positive where the event is forecast too often.

    An interval of it that holds 0 is a forecast without a detectable bias, for example over the dry points of a `mask`.

    Args:
        statistics: what `probability_statistics` gave.

    Returns:
        The difference over the dimensions of the statistics but `bin`.
    """
    return _per_value(statistics, statistics["forecast"] - statistics["observed"], "probability_bias")


def sharpness(statistics: xr.Dataset) -> xr.DataArray:
    """Variance of the probabilities, sum p^2 / n - (sum p / n)^2 (Murphy 1997; Wilks 2019, section 9.4.1).

    Args:
        statistics: what `probability_statistics` gave.

    Returns:
        The variance in [0, 0.25] over the dimensions of the statistics but `bin`.
    """
    square = _per_value(statistics, statistics["forecast_squared"], "sharpness")
    return _labelled((square - mean_forecast(statistics) ** 2).clip(0.0), "sharpness")


def reliability(statistics: xr.Dataset, bins: Sequence[float] = CENTRED_BINS) -> xr.DataArray:
    """Reliability term of the Brier score, sum_k n_k (p_k - o_k)^2 / n: 0 for calibrated probabilities.

    With the means p_k and o_k over each bin k, and the terms that are due to the variation within the bins,

        brier = reliability - resolution + uncertainty + within_bin_variance - within_bin_covariance

    exactly (Stephenson, Coelho and Jolliffe 2008, WAF 23, 752-757, eq. 4; without the last two terms Murphy 1973).

    Args:
        statistics: what `probability_statistics` gave.
        bins: edges of the bins of the decomposition, among those of the statistics.

    Returns:
        The term over the dimensions of the statistics but `bin`.

    Raises:
        ValueError: an edge is not among those of the statistics.
    """
    wide = widen_bins(statistics, bins)
    count = wide["count"].where(wide["count"] > 0)
    return _per_value(wide, (wide["forecast"] - wide["observed"]) ** 2 / count, "reliability")


def resolution(statistics: xr.Dataset, bins: Sequence[float] = CENTRED_BINS) -> xr.DataArray:
    """Resolution term of the Brier score, sum_k n_k (o_k - o)^2 / n, the larger the better; see `reliability`.

    Args:
        statistics: what `probability_statistics` gave.
        bins: see `reliability`.

    Returns:
        The term over the dimensions of the statistics but `bin`.
    """
    wide = widen_bins(statistics, bins)
    count = wide["count"].where(wide["count"] > 0)
    return _per_value(wide, (wide["observed"] - base_rate(wide) * wide["count"]) ** 2 / count, "resolution")


def uncertainty(statistics: xr.Dataset) -> xr.DataArray:
    """Uncertainty term of the Brier score, o (1 - o) of the base rate o: the Brier score of the base rate itself.

    Args:
        statistics: what `probability_statistics` gave.

    Returns:
        The term over the dimensions of the statistics but `bin`.
    """
    rate = base_rate(statistics)
    return _labelled(rate * (1.0 - rate), "uncertainty")


def within_bin_variance(statistics: xr.Dataset, bins: Sequence[float] = CENTRED_BINS) -> xr.DataArray:
    """Variation of the probabilities within the bins, sum (p - p_k)^2 / n; see `reliability`.

    Args:
        statistics: what `probability_statistics` gave.
        bins: see `reliability`.

    Returns:
        The term over the dimensions of the statistics but `bin`.
    """
    wide = widen_bins(statistics, bins)
    count = wide["count"].where(wide["count"] > 0)
    return _per_value(wide, wide["forecast_squared"] - wide["forecast"] ** 2 / count, "within_bin_variance")


def within_bin_covariance(statistics: xr.Dataset, bins: Sequence[float] = CENTRED_BINS) -> xr.DataArray:
    """What probabilities tell within the bins, 2 sum (o - o_k) (p - p_k) / n; see `reliability`.

    Args:
        statistics: what `probability_statistics` gave.
        bins: see `reliability`.

    Returns:
        The term over the dimensions of the statistics but `bin`.
    """
    wide = widen_bins(statistics, bins)
    count = wide["count"].where(wide["count"] > 0)
    covariation = wide["product"] - wide["forecast"] * wide["observed"] / count
    return _per_value(wide, 2.0 * covariation, "within_bin_covariance")


def roc_area(statistics: xr.Dataset) -> xr.DataArray:
    """Area under the ROC curve by trapezoids over the bins of the statistics (Mason and Graham 2002, QJRMS 128, 2145).

    It is the chance that an event had a higher probability than a case without one, where a tie (within a bin) counts
    one half.

    Args:
        statistics: what `probability_statistics` gave.

    Returns:
        The area over the dimensions of the statistics but `bin`: 1 for perfect discrimination, 0.5 for none; NaN where
        all or none of the samples are events.
    """
    events, others = statistics["observed"], statistics["count"] - statistics["observed"]
    above = events.sum(BIN) - events.cumsum(BIN)
    pairs = events.sum(BIN) * others.sum(BIN)
    return _labelled((others * (above + 0.5 * events)).sum(BIN) / pairs.where(pairs > 0), "roc_area")


def pit_statistics(
    pit: xr.DataArray,
    *,
    reduce: Hashable | Sequence[Hashable],
    block: Hashable | xr.DataArray | None = None,
    mask: xr.DataArray | None = None,
    bins: int = 20,
) -> xr.Dataset:
    """Histogram counts of the probability integral transform, the forecast distribution at what was observed.

    Args:
        pit: in [0, 1], randomised where the distribution has a step, as that of rain has at 0 (Czado et al. 2009,
            Biometrics 65, 1254-1261); where it is NaN, nothing is counted.
        reduce: dimensions to sum over.
        block: label of the independent block of each position along one of the reduced dimensions, see
            `error_statistics`.
        mask: True where values count, over any of the dimensions; None for everywhere.
        bins: number of bins of equal width.

    Returns:
        `n` and `count` (..., bin) over the dimensions that are not reduced, after `block` if there is one; the edges
        are the coordinates `bin_lower` and `bin_upper`.

    Raises:
        ValueError: fewer than two bins, or a value outside of [0, 1].
    """
    if bins < 2:
        raise ValueError(f"bins={bins}: a histogram needs two bins or more")
    names = reduced_dimensions(pit, reduce)
    block_dim = labels_of_blocks(pit, names, block)[2]
    within = [dim for dim in names if dim != block_dim]

    def score(values: Float, _: Float, valid: Bool) -> Mapping[str, Float]:
        lead = values.shape[: values.ndim - len(within)]
        if values.size and (values.min() < -PROBABILITY_ROUNDING or values.max() > 1.0 + PROBABILITY_ROUNDING):
            raise ValueError(f"pit goes from {values.min():g} to {values.max():g}: it is a probability, in [0, 1]")
        number = np.clip((values * bins).astype(np.intp), 0, bins - 1)
        rows = np.arange(prod(lead)).reshape(*lead, *(1,) * len(within))
        count = np.bincount((rows * bins + number)[valid], minlength=prod(lead) * bins).reshape(*lead, bins)
        return {"n": count.sum(axis=-1).astype(np.float64), "count": count.astype(np.float64)}

    plain = pit.drop_attrs()
    sums = field_sums(
        plain,
        plain,
        score,
        extra={"count": [BIN]},
        within=within,
        reduce=block_dim,
        block=block,
        mask=mask,
        skipna=True,
    )
    edges = np.linspace(0.0, 1.0, bins + 1)
    return sums.assign_coords({BIN_LOWER: (BIN, edges[:-1]), BIN_UPPER: (BIN, edges[1:])})


def pit_density(statistics: xr.Dataset) -> xr.DataArray:
    """Relative frequency in each bin of the PIT over that of a uniform distribution (Gneiting et al. 2007, JRSS B 69).

    Args:
        statistics: what `pit_statistics` gave.

    Returns:
        The density (..., bin), 1 in all bins for calibrated distributions: U-shaped if they are too narrow.
    """
    n = statistics["n"]
    return _labelled(statistics["count"] * statistics.sizes[BIN] / n.where(n > 0), "pit_density")


def reliability_curve(
    statistics: xr.Dataset,
    *,
    bins: Sequence[float] = CENTRED_BINS,
    min_count: int = 100,
    level: float = 0.9,
    n_resamples: int = 1000,
    seed: int,
) -> xr.Dataset:
    """Reliability diagram with consistency bars: where the frequencies of a reliable forecast would fall.

    The bars are about the diagonal, as those of Broecker and Smith (2007, WAF 22, 651-661), who draw the events anew
    from the probabilities. That supposes independent samples, which the points of a day are not. Here the deviations
    sum (o - p) of each bin, about their mean, are resampled over blocks, and the bars are never narrower than those of
    independent samples, mean p +- z sqrt(sum p (1 - p)) / n: a bin without a single event would have none at all.
    With reliable synthetic fields, 83 to 93 % of the bins were inside of 90 % bars over 30 days, the fewer the wider
    the errors are correlated, and down to two thirds of those bins that fewer than 10 days fill: bars of these are
    too narrow.

    Args:
        statistics: what `probability_statistics(..., block=...)` gave, with blocks that are independent: days.
        bins: edges, among those of the statistics.
        min_count: bins with fewer samples are hidden: NaN in all but `count`.
        level: nominal share of the bins of a reliable forecast that are inside of their bars.
        n_resamples: number of resamples.
        seed: of the resampling.

    Returns:
        Over the dimensions of the statistics but `block`, with the new `bin`: `forecast`, the mean probability,
        `observed`, the relative frequency of the event, `count`, the bounds `lower` and `upper` of the bar, and
        `inside`, 1 where the frequency is in the bar, else 0; and without the bins `base_rate`. The level is an
        attribute.

    Raises:
        ValueError: no blocks, an edge that the statistics do not have, or see `block_bootstrap`.
    """
    wide = widen_bins(statistics, bins)
    each = wide.rename({BIN: _PLACE})
    deviation = block_bootstrap(each, _deviation, n_resamples=n_resamples, seed=seed, level=level)
    total = each.sum(BLOCK)
    count = total["count"]
    shown = count >= max(min_count, 1)
    n = count.where(shown)
    forecast, observed = total["forecast"] / n, total["observed"] / n
    independent = (total["forecast"] - total["forecast_squared"]).clip(0.0) ** 0.5 / n
    independent *= NormalDist().inv_cdf(0.5 + level / 2.0)
    lower = forecast - np.maximum(deviation.value - deviation.lower, independent)
    upper = forecast + np.maximum(deviation.upper - deviation.value, independent)
    known = shown & lower.notnull() & upper.notnull()
    inside = ((observed >= lower) & (observed <= upper)).astype(np.float64).where(known)
    curve = xr.Dataset(
        {
            "forecast": forecast,
            "observed": observed,
            "count": count,
            "lower": lower.clip(0.0, 1.0),
            "upper": upper.clip(0.0, 1.0),
            "inside": inside,
        }
    ).rename({_PLACE: BIN})
    return curve.assign(base_rate=base_rate(wide.sum(BLOCK))).assign_attrs(level=level)


def corp_curve(statistics: xr.Dataset) -> xr.Dataset:
    """Reliability by isotonic regression, and its decomposition of the score.

    The CORP approach of Dimitriadis, Gneiting and Jordan (2021, PNAS 118, e2016191118): the observed frequencies of the
    fine bins are made monotone in the probability by the pool-adjacent-violators algorithm, and no bins need be chosen.
    With the Brier score of the recalibrated probabilities C and of the base rate R,

        brier = mcb - dsc + unc,    mcb = brier - C,    dsc = R - C,    unc = R

    The miscalibration `mcb` and the discrimination `dsc` are those of the probabilities to the width of the fine bins.
    Their identity with the score is exact, and what the probabilities tell within a bin is in `mcb`, which it can make
    slightly negative.

    Args:
        statistics: what `probability_statistics` gave.

    Returns:
        Over (..., bin) `forecast`, the mean probability, `recalibrated`, the probability after recalibration, and
        `count`; NaN in empty bins. Without the bins `brier`, `mcb`, `dsc` and `unc`.
    """
    total = _over_blocks(statistics)
    count = total["count"].transpose(..., BIN)
    events = total["observed"].transpose(..., BIN)
    frequency = (events / count.where(count > 0)).fillna(0.0)
    recalibrated = count.copy(data=isotonic(frequency.values, count.values)).where(count > 0)
    error = (count * recalibrated**2 - 2.0 * recalibrated * events + events).sum(BIN)
    samples = count.sum(BIN)
    score, unc = brier(total), uncertainty(total)
    calibrated = error / samples.where(samples > 0)
    return xr.Dataset(
        {
            "forecast": total["forecast"] / count.where(count > 0),
            "recalibrated": recalibrated,
            "count": count,
            "brier": score,
            "mcb": score - calibrated,
            "dsc": unc - calibrated,
            "unc": unc,
        }
    )


def isotonic(values: Float, weights: Float) -> Float:
    """Weighted least-squares fit that does not decrease, by pooling adjacent violators (Ayer et al. 1955).

    Args:
        values: (..., n), finite.
        weights: (..., n), not negative. Values without weight have no influence.

    Returns:
        (..., n), along the last axis; where there is no weight, the fit of the value before, of the first one with
        weight at the beginning; NaN where no value has a weight.

    Raises:
        ValueError: shapes differ, a value is not finite, or a weight is negative or not finite.
    """
    values, weights = (np.asarray(part, dtype=np.float64) for part in (values, weights))
    if values.shape != weights.shape or not values.ndim:
        raise ValueError(f"isotonic needs values and weights of one shape, not {values.shape} and {weights.shape}")
    if not (np.isfinite(values).all() and np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError("isotonic needs finite values, and weights that are finite and not negative")
    result = np.full(values.shape, np.nan)
    for index in np.ndindex(values.shape[:-1]):
        known = np.flatnonzero(weights[index] > 0)
        if known.size:
            fit = _pooled(values[index][known], weights[index][known])
            before = np.searchsorted(known, np.arange(values.shape[-1]), side="right") - 1
            result[index] = fit[np.maximum(before, 0)]
    return result


def roc_curve(statistics: xr.Dataset) -> xr.Dataset:
    """Relative operating characteristic: what share of events and of other cases is warned of, by probability cut.

    Args:
        statistics: what `probability_statistics` gave.

    Returns:
        `pod`, the probability of detection (hit rate), and `pofd`, that of false detection, over (..., cut): a warning
        is a probability of at least `cut`, the lower edges of the fine bins and infinity, for no warning at all. NaN
        where there is no event, or nothing else (Mason 1982; Wilks 2019, section 9.4.6).
    """
    hits, warnings, events, n = _warned(statistics)
    others = n - events
    curve = xr.Dataset(
        {"pod": hits / events.where(events > 0), "pofd": (warnings - hits) / others.where(others > 0)},
    )
    end = xr.zeros_like(curve.isel({CUT: [0]})).where(curve.isel({CUT: [0]}).notnull())
    return xr.concat([curve, end.assign_coords({CUT: [np.inf]})], CUT)


def performance_curve(statistics: xr.Dataset) -> xr.Dataset:
    """Performance diagram (Roebber 2009, WAF 24, 601-608): scores of the warning by probability cut.

    Args:
        statistics: what `probability_statistics` gave.

    Returns:
        Over (..., cut), see `roc_curve`: `pod`, the hits over the events, `success_ratio`, the hits over the warnings,
        `csi`, the hits over all warnings and events, and `frequency_bias`, the warnings over the events. NaN where
        they are undefined.
    """
    hits, warnings, events, _ = _warned(statistics)
    either = warnings + events - hits
    return xr.Dataset(
        {
            "pod": hits / events.where(events > 0),
            "success_ratio": hits / warnings.where(warnings > 0),
            "csi": hits / either.where(either > 0),
            "frequency_bias": warnings / events.where(events > 0),
        }
    )


def widen_bins(statistics: xr.Dataset, bins: Sequence[float]) -> xr.Dataset:
    """The same sums in wider bins.

    Args:
        statistics: what `probability_statistics` gave.
        bins: edges from 0 to 1, among those of the statistics.

    Returns:
        The sums, with `bin` as the last dimension where they have it.

    Raises:
        ValueError: an edge is not among those of the statistics.
    """
    edges = _edges(bins)
    known = _whole_cells(statistics[BIN_LOWER].values)
    starts = np.searchsorted(known, _whole_cells(edges[:-1]))
    # beyond the last bin there is none
    missing = edges[:-1][known[np.minimum(starts, len(known) - 1)] != _whole_cells(edges[:-1])]
    if missing.size:
        raise ValueError(f"{missing.tolist()} are no edges of the bins of the statistics: take bins that are unions")
    sums = {}
    for name, variable in statistics.data_vars.items():
        if BIN not in variable.dims:
            sums[name] = variable.variable
            continue
        values = variable.variable.transpose(..., BIN)
        sums[name] = xr.Variable(values.dims, np.add.reduceat(values.values, starts, axis=-1))
    coords: dict[Hashable, Any] = {name: c for name, c in statistics.coords.items() if BIN not in c.dims}
    coords |= {BIN_LOWER: (BIN, edges[:-1]), BIN_UPPER: (BIN, edges[1:])}
    return xr.Dataset(sums, coords=coords, attrs=statistics.attrs)


def _per_value(statistics: xr.Dataset, values: xr.DataArray, name: str) -> xr.DataArray:
    """Sum over the bins, where there still are some, over the number of values."""
    total, n = values.sum(BIN) if BIN in values.dims else values, statistics["n"]
    return _labelled(total / n.where(n > 0), name)


def _labelled(values: xr.DataArray, name: str) -> xr.DataArray:
    result = values.rename(name)
    result.attrs = {"units": "1"}
    return result


def _whole_cells(edges: Float) -> NDArray[np.intp]:
    return np.rint(edges * _CELLS).astype(np.intp)


def _edges(bins: Sequence[float]) -> Float:
    edges = np.asarray(bins, dtype=np.float64)
    if edges.ndim != 1 or len(edges) < 2 or edges[0] != 0.0 or edges[-1] != 1.0 or not (np.diff(edges) > 0).all():
        raise ValueError(f"bins={[*bins]}: give edges that increase from 0 to 1")
    if np.abs(edges * _CELLS - _whole_cells(edges)).max() > 1e-6:
        raise ValueError(f"bins={[*bins]}: edges must be multiples of {1.0 / _CELLS:g}")
    return edges


def _lookup(edges: Float) -> NDArray[np.intp]:
    """Bin of each cell (cell,); the last one is that of p = 1, which belongs to the last bin."""
    table = np.searchsorted(_whole_cells(edges), np.arange(_CELLS + 1), side="right") - 1
    return np.minimum(table, len(edges) - 2)


def _counted(amounts: xr.DataArray, mask: xr.DataArray | None, part: Mapping[Hashable, slice]) -> Bool:
    """Where amounts count: those that are there and not masked out."""
    chosen = ~np.isnan(amounts.values)
    if mask is not None:
        own = mask.isel(part, missing_dims="ignore").broadcast_like(amounts).transpose(*amounts.dims)
        chosen &= own.values.astype(np.bool_)
    if np.isinf(amounts.values[chosen]).any():
        raise ValueError(f"observed {amounts.name!r} has infinite amounts: mark what is missing as NaN")
    return np.asarray(chosen)


def _checked(values: NDArray[Any], chosen: Bool, probability: xr.DataArray, part: Mapping[Hashable, slice]) -> Float:
    """The probabilities that count, (value,), without what rounding put beyond 0 and 1."""
    p = np.asarray(values[chosen], dtype=np.float64)
    # a NaN fails the comparison, too
    if p.size and not (p.min() >= -PROBABILITY_ROUNDING and p.max() <= 1.0 + PROBABILITY_ROUNDING):
        wrong = chosen & ~((values >= -PROBABILITY_ROUNDING) & (values <= 1.0 + PROBABILITY_ROUNDING))
        inside = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
        dims = probability.dims[1:]
        first = {str(dim): int(index) + part[dim].start for dim, index in zip(dims, inside, strict=True)}
        level = probability[THRESHOLD].values[part[THRESHOLD]].item()
        raise ValueError(
            f"probability {probability.name!r} is {values[inside]:g} at the threshold {level:g} and index {first}:"
            " it must be in [0, 1] wherever there is an observation that is not masked out"
        )
    return p.clip(0.0, 1.0) if p.size and (p.min() < 0.0 or p.max() > 1.0) else p


def _binned_sums(p: Float, events: Bool, group: NDArray[np.intp], table: NDArray[np.intp], groups: int) -> Float:
    """`PROBABILITY_SUMS` (sum, group, bin) of 1-D values.

    Events and others are counted apart: three histograms give all five sums.
    """
    bins = int(table[-1]) + 1
    number = table[(p * _CELLS + _SLACK).astype(np.intp)]
    code = (group * 2 + events) * bins + number
    shape = (groups, 2, bins)
    count, forecast, squared = (
        np.bincount(code, weights=weights, minlength=groups * 2 * bins).reshape(shape) for weights in (None, p, p * p)
    )
    return np.stack(
        [count.sum(axis=1), forecast.sum(axis=1), count[:, 1], squared.sum(axis=1), forecast[:, 1]], dtype=np.float64
    )


def _deviation(statistics: xr.Dataset) -> xr.DataArray:
    """Observed frequency minus mean probability, for each bin."""
    count = statistics["count"]
    return ((statistics["observed"] - statistics["forecast"]) / count.where(count > 0)).rename("deviation")


def _over_blocks(statistics: xr.Dataset) -> xr.Dataset:
    return statistics.sum(BLOCK) if BLOCK in statistics.dims else statistics


def _warned(statistics: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray, xr.DataArray]:
    """Hits and warnings (..., cut); events and samples without the cuts."""
    total = _over_blocks(statistics)

    def at_or_above(values: xr.DataArray) -> xr.DataArray:
        reverse = {BIN: slice(None, None, -1)}
        above = values.transpose(..., BIN).isel(reverse).cumsum(BIN).isel(reverse)
        return above.drop_vars([BIN_LOWER, BIN_UPPER]).rename({BIN: CUT}).assign_coords({CUT: total[BIN_LOWER].values})

    events, n = total["observed"].sum(BIN), total["count"].sum(BIN)
    return at_or_above(total["observed"]), at_or_above(total["count"]), events, n


def _pooled(values: Float, weights: Float) -> Float:
    """`isotonic` of one row (n,) with positive weights."""
    means: list[float] = []
    masses: list[float] = []
    lengths: list[int] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        mean, mass, length = value, weight, 1
        while means and means[-1] >= mean:
            other = masses.pop()
            mean = (means.pop() * other + mean * mass) / (other + mass)
            mass, length = mass + other, length + lengths.pop()
        means.append(mean)
        masses.append(mass)
        lengths.append(length)
    return np.repeat(means, lengths)
