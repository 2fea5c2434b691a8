"""Marginal distributions: histograms, and quantiles far out in the tails.

Values are counted in fine bins of fixed edges. Counts add up over samples, files, blocks and processes
(`ai4sim.verification.fields.merge_sums`), take the same memory whatever the number of samples, and give quantiles to
the width of a bin, for every resample of a block bootstrap as well. (Quantiles that are exact would need all values of
the tail at once.) With the 2000 bins that `value_edges` makes by default, this is at most 0.05 % of the range of
all values: 0.02 m/s of winds up to 40 m/s::

    edges = value_edges(truth, members)
    statistics = histogram_statistics(members, truth, edges=edges, reduce=["sample", "y", "x"], block="day")
    block_bootstrap(statistics, partial(quantile_ratio, q=0.9999), seed=0)

A member of an ensemble counts 1/K, so that the counts of prediction and target are of as many values.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Final, Literal

import numpy as np
import xarray as xr

from ai4sim.verification.ensemble import MEMBER
from ai4sim.verification.fields import Float, Index, Piece, binned_sums
from ai4sim.verification.probabilistic import BIN, BIN_LOWER, BIN_UPPER
from ai4sim.verification.sums import BLOCK, slices

QUANTILE: Final = "quantile"
TAIL: Final = (0.99, 0.999, 0.9999)

Side = Literal["prediction", "target"]


def value_edges(*arrays: xr.DataArray, bins: int = 2000) -> Float:
    """Edges of equal bins that hold all values of all arrays, which are read once for it.

    Args:
        arrays: any shapes, of the same unit; NaN do not count.
        bins: number of bins.

    Returns:
        (bins + 1,) edges, increasing. The last one is just above the largest value.

    Raises:
        ValueError: no values, or infinite ones.
    """
    low, high = np.inf, -np.inf
    for array in arrays:
        for part in slices(array, array.dims):
            values = array.isel(part).values
            known = values[~np.isnan(values)]
            if known.size:
                low, high = min(low, float(known.min())), max(high, float(known.max()))
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"{[array.name for array in arrays]} have values from {low} to {high}: no bins hold them")
    margin = max(1e-9 * (high - low), 1e-6 * max(abs(low), abs(high)), 1e-30) if high == low else 1e-9 * (high - low)
    return np.linspace(low, high + margin, bins + 1)


def histogram_statistics(
    prediction: xr.DataArray,
    target: xr.DataArray | None = None,
    *,
    edges: Sequence[float] | Float,
    member: Hashable = MEMBER,
    reduce: Hashable | Sequence[Hashable],
    block: Hashable | xr.DataArray | None = None,
    mask: xr.DataArray | None = None,
    skipna: bool = False,
) -> xr.Dataset:
    """Counts over samples of the values of prediction and target in bins.

    Args:
        prediction: any shape; with the dimension `member`, each of its K members counts 1/K. In memory, lazily opened
            or of Dask.
        target: the dimensions, sizes and coordinates of `prediction` without `member`, in any order; None if there is
            no truth, and then there is no `target_count`.
        edges: of the bins, increasing, such as `value_edges` gives; a bin holds its lower edge. What is beyond them is
            counted in a first and a last bin without an end.
        member: dimension of the members.
        reduce: dimensions to sum over.
        block: label of the independent block of each position along one of the reduced dimensions, see
            `error_statistics`.
        mask: True where values count, over any of the dimensions of the target; None for everywhere. What it leaves out
            may be NaN.
        skipna: leave values out where the target or any member is NaN, instead of raising.

    Returns:
        `n` over the dimensions that are not reduced, after `block` if there is one, and (..., bin) `prediction_count`
        and `target_count`.

    Raises:
        ValueError: edges that do not increase; dimensions, coordinates or units do not agree; a value is not finite.
    """
    inner = np.asarray(edges, dtype=np.float64)
    if inner.ndim != 1 or len(inner) < 2 or not (np.diff(inner) > 0).all():
        raise ValueError(f"edges of shape {inner.shape}: give two or more that increase")
    members = [member] if member in prediction.dims else []
    if members and not prediction.sizes[member]:
        raise ValueError(f"prediction {prediction.name!r} has no members: the dimension {member!r} is empty")
    reference = prediction.isel(dict.fromkeys(members, 0), drop=True) if target is None else target

    def bins_of(piece: Piece) -> Mapping[str, tuple[Index, Float | None]]:
        sides = {"prediction": piece.prediction} | ({} if target is None else {"target": piece.target})
        return {f"{name}_count": (np.searchsorted(inner, values, "right"), None) for name, values in sides.items()}

    sums = binned_sums(
        prediction,
        reference,
        bins_of,
        bins=len(inner) + 1,
        dim=BIN,
        reduce=reduce,
        block=block,
        mask=mask,
        skipna=skipna,
        only=members,
    )
    if members:
        sums["prediction_count"] /= prediction.sizes[member]
    ends = {BIN_LOWER: (BIN, np.append(-np.inf, inner)), BIN_UPPER: (BIN, np.append(inner, np.inf))}
    return sums.assign_coords(ends)


def quantile(statistics: xr.Dataset, *, of: Side, q: float | Sequence[float] = TAIL) -> xr.DataArray:
    """Quantiles of the values, linear within the bin in which the distribution function reaches q.

    The error is at most the width of this bin. A quantile in one of the bins without an end is NaN: take wider edges.

    Args:
        statistics: what `histogram_statistics` gave.
        of: whose.
        q: probabilities in (0, 1); a single one has no dimension.

    Returns:
        (..., quantile) in the unit of the target.

    Raises:
        ValueError: a probability outside of (0, 1).
    """
    levels = np.atleast_1d(np.asarray(q, dtype=np.float64))
    if not ((levels > 0) & (levels < 1)).all():
        raise ValueError(f"q={q}: quantiles need probabilities between 0 and 1")
    count = statistics[f"{of}_count"].transpose(..., BIN)
    edges = statistics[BIN_UPPER].values[:-1]
    below = np.cumsum(count.values, axis=-1)
    values = []
    for level in levels:
        # rounding of counts that are fractions must not move a quantile to a bin further
        wanted = level * below[..., -1:] * (1.0 - 1e-12)
        place = (below[..., :-1] < wanted).sum(axis=-1, keepdims=True)
        known = (place > 0) & (place < len(edges)) & (below[..., -1:] > 0)
        place = np.where(known, place, 1)
        start, end = (np.take_along_axis(below, place - back, axis=-1) for back in (1, 0))
        share = (wanted - start) / np.where(known & (end > start), end - start, 1.0)
        value = edges[place - 1] + share * (edges[place] - edges[place - 1])
        values.append(np.where(known, value, np.nan)[..., 0])
    dims = count.dims[:-1]
    coords = {name: values for name, values in count.coords.items() if BIN not in values.dims}
    result = xr.DataArray(np.stack(values, axis=-1), coords, (*dims, QUANTILE), name=f"{of}_quantile")
    result = result.assign_coords({QUANTILE: levels}) if np.ndim(q) else result.isel({QUANTILE: 0})
    units = statistics.attrs.get("units")
    return result if units is None else result.assign_attrs(units=units)


def quantile_ratio(statistics: xr.Dataset, *, q: float | Sequence[float] = TAIL) -> xr.DataArray:
    """Quantiles of the prediction over those of the target, for quantities with a natural zero: wind, rain.

    Args:
        statistics: what `histogram_statistics` gave.
        q: see `quantile`.

    Returns:
        The ratio (..., quantile): 1 for tails as heavy as those of the target; NaN where the latter's quantile is 0.
    """
    p, t = (quantile(statistics, of=side, q=q) for side in ("prediction", "target"))
    return (p / t.where(t != 0)).rename("quantile_ratio").assign_attrs(units="1")


def density(statistics: xr.Dataset, *, of: Side, bins: int = 60) -> xr.DataArray:
    """Probability density in wider bins, count / (n width), for figures.

    Args:
        statistics: what `histogram_statistics` gave, with or without blocks.
        of: whose.
        bins: number of bins, about; each is a number of those of the statistics. Those without an end are left out.

    Returns:
        (..., bin) in one over the unit of the target, with the coordinates `bin_lower` and `bin_upper`; NaN where there
        is no sample.
    """
    total = statistics.sum(BLOCK) if BLOCK in statistics.dims else statistics
    count = total[f"{of}_count"].transpose(..., BIN)
    lower, upper = (total[name].values[1:-1] for name in (BIN_LOWER, BIN_UPPER))
    starts = np.arange(0, len(lower), -(-len(lower) // bins))
    low, high = lower[starts], upper[np.append(starts[1:], len(lower)) - 1]
    wide = np.add.reduceat(count.values[..., 1:-1], starts, axis=-1)
    n = total["n"].values[..., None]
    values = np.divide(wide, n * (high - low), out=np.full(wide.shape, np.nan), where=n > 0)
    coords: dict[Hashable, object] = {name: c for name, c in count.coords.items() if BIN not in c.dims}
    coords |= {BIN_LOWER: (BIN, low), BIN_UPPER: (BIN, high)}
    units = str(statistics.attrs.get("units", ""))
    attrs = {"long_name": "probability density"} | ({} if units in ("", "1") else {"units": _inverse(units)})
    return xr.DataArray(values, coords, count.dims, name="density", attrs=attrs)


def distribution_curve(statistics: xr.Dataset, *, of: Side, q: Sequence[float] = TAIL, bins: int = 60) -> xr.Dataset:
    """What a figure of a distribution shows.

    Args:
        statistics: what `histogram_statistics` gave, with or without blocks.
        of: whose.
        q: see `quantile`.
        bins: see `density`.

    Returns:
        `density` (..., bin) and `value` (..., quantile), the quantiles, with the unit of the values as the attribute
        `units`.
    """
    total = statistics.sum(BLOCK).assign_attrs(statistics.attrs) if BLOCK in statistics.dims else statistics
    parts = {"density": density(total, of=of, bins=bins), "value": quantile(total, of=of, q=q)}
    return xr.Dataset(parts, attrs=statistics.attrs)


def _inverse(units: str) -> str:
    """``m s-1`` becomes ``(m s-1)-1``, ``K`` becomes ``K-1``."""
    return f"{units}-1" if units.isalpha() else f"({units})-1"
