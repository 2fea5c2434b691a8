"""Scores of events, such as rain above a threshold: fractions skill score, critical success index, frequency bias.

An event is a value at or above a threshold. All scores are functions of sums over samples; those of single fields are
never averaged. Wilks 2019 is Statistical Methods in the Atmospheric Sciences, 4th edition, Elsevier.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from math import prod
from typing import Final, Literal, get_args

import numpy as np
import xarray as xr

from ai4sim.verification.fields import Bool, Float, field_sums

THRESHOLD: Final = "threshold"
WINDOW: Final = "window"

# Probabilities may miss [0, 1] by this much, the rounding of single precision.
PROBABILITY_ROUNDING: Final = 1e-6

_TABLE: Final = ("hits", "misses", "false_alarms", "correct_negatives")
# extra dimensions of the sums of fractions
_FRACTIONS: Final[Mapping[str, Sequence[str]]] = {
    "n": [WINDOW],
    "fractions_error": [THRESHOLD, WINDOW],
    "fractions_reference": [THRESHOLD, WINDOW],
}

Border = Literal["zero", "partial", "inside"]


def contingency_statistics(
    prediction: xr.DataArray,
    target: xr.DataArray,
    *,
    thresholds: Sequence[float],
    reduce: Hashable | Sequence[Hashable],
    block: Hashable | xr.DataArray | None = None,
    mask: xr.DataArray | None = None,
    skipna: bool = False,
) -> xr.Dataset:
    """Counts of the 2 x 2 contingency table of events (Wilks 2019, section 9.2.1).

    Args:
        prediction: any shape; in memory, lazily opened or of Dask.
        target: the dimensions, sizes and coordinates of `prediction`, in any order of dimensions.
        thresholds: in the unit of the target; an event is a value at or above it.
        reduce: dimensions to sum over.
        block: label of the independent block of each position along one of the reduced dimensions, see
            `error_statistics`.
        mask: True where values count, over any of the dimensions; None for everywhere. What it leaves out may be NaN.
        skipna: leave pairs out in which either value is NaN, instead of raising.

    Returns:
        `n`, the number of pairs, over the dimensions that are not reduced, after `block` if there is one; and
        (..., threshold) `hits`, `misses` (only the target has the event), `false_alarms` (only the prediction) and
        `correct_negatives`.

    Raises:
        ValueError: dimensions, coordinates or units do not agree; a value or threshold is not finite.
    """
    levels = _thresholds(thresholds)
    if not reduce:
        raise ValueError(f"reduce={reduce!r}: name one or more dimensions of the target, which has {target.dims}")
    names = [reduce] if isinstance(reduce, str) or not isinstance(reduce, Iterable) else list(reduce)
    along = _row_dimension(target, names, block)
    within = [dim for dim in names if dim != along]

    def score(p: Float, t: Float, valid: Bool) -> Mapping[str, Float]:
        lead = p.shape[: p.ndim - len(within)]
        flat = (*lead, prod(p.shape[len(lead) :]))
        p, t, valid = p.reshape(flat), t.reshape(flat), valid.reshape(flat)
        n = _count(valid)
        counts = {name: np.empty((*lead, len(levels))) for name in _TABLE}
        for index, level in enumerate(levels):
            forecast, observed = (p >= level) & valid, (t >= level) & valid
            hits, events, alarms = _count(forecast & observed), _count(observed), _count(forecast)
            cells = (hits, events - hits, alarms - hits, n - events - alarms + hits)
            for name, cell in zip(_TABLE, cells, strict=True):
                counts[name][..., index] = cell
        return {"n": n, **counts}

    sums = field_sums(
        prediction,
        target,
        score,
        extra={name: [THRESHOLD] for name in _TABLE},
        within=within,
        reduce=along,
        block=block,
        mask=mask,
        skipna=skipna,
    )
    return sums.assign_coords({THRESHOLD: (THRESHOLD, levels, sums.attrs)})


def csi(statistics: xr.Dataset) -> xr.DataArray:
    """Critical success index (threat score), hits / (hits + misses + false alarms) (Wilks 2019, eq. 9.8).

    Args:
        statistics: what `contingency_statistics` gave.

    Returns:
        The score in [0, 1] over the dimensions of the statistics; NaN where there is no event in either.
    """
    return _ratio(statistics["hits"], statistics["hits"] + statistics["misses"] + statistics["false_alarms"], "csi")


def frequency_bias(statistics: xr.Dataset) -> xr.DataArray:
    """Forecast events over observed events, (hits + false alarms) / (hits + misses) (Wilks 2019, eq. 9.10).

    Args:
        statistics: what `contingency_statistics` gave.

    Returns:
        The ratio, 1 where events are as frequent in both; NaN where the target has no event.
    """
    forecast = statistics["hits"] + statistics["false_alarms"]
    return _ratio(forecast, statistics["hits"] + statistics["misses"], "frequency_bias")


def fss_statistics(
    prediction: xr.DataArray,
    target: xr.DataArray,
    *,
    thresholds: Sequence[float],
    windows: Sequence[int],
    dims: tuple[Hashable, Hashable] = ("lat", "lon"),
    border: Border = "zero",
    reduce: Hashable | Sequence[Hashable],
    block: Hashable | xr.DataArray | None = None,
    mask: xr.DataArray | None = None,
    skipna: bool = False,
) -> xr.Dataset:
    """Sums over samples of which the fractions skill score is a function (Roberts and Lean 2008, eqs. 3-7).

    In a square window around each point, the fraction of points with the event is taken of prediction and target, from
    summed-area tables (Faggian et al. 2015, Mausam 66, 457-466): the cost does not depend on the window. Points that
    are missing or masked out are in no window and have none around them.

    What a window is worth that reaches over the border of the domain:

    - ``zero``: there are no events outside, as Roberts and Lean have it;
    - ``partial``: the fraction of those points of the window that are inside;
    - ``inside``: only points count whose whole window is inside, fewer the larger the window.

    Args:
        prediction: any shape with the two dimensions `dims`; in memory, lazily opened or of Dask.
        target: the dimensions, sizes and coordinates of `prediction`, in any order of dimensions.
        thresholds: in the unit of the target; an event is a value at or above it.
        windows: lengths of the window's side in points, odd; 1 compares point by point.
        dims: rows and columns.
        border: see above.
        reduce: dimensions to sum over.
        block: label of the independent block of each sample, see `error_statistics`.
        mask: True where points count, over any of the dimensions; None for everywhere. What it leaves out may be NaN.
        skipna: leave points out at which either value is NaN, instead of raising.

    Returns:
        Over the dimensions that are not reduced, after `block` if there is one: `n` (..., window), the number of
        windows; and (..., threshold, window) `fractions_error`, the sum of (P - T)^2 of the fractions, and
        `fractions_reference`, that of P^2 + T^2, the largest that the error can be.

    Raises:
        ValueError: dimensions, coordinates or units do not agree; a value or threshold is not finite; a window is even,
            or with ``inside`` larger than the domain.
    """
    levels = _thresholds(thresholds)
    _check_windows(target, dims, windows, border)

    def score(p: Float, t: Float, valid: Bool) -> Mapping[str, Float]:
        pairs = [((p >= level) & valid, (t >= level) & valid) for level in levels]
        return _fraction_sums(pairs, valid, windows, border)

    sums = field_sums(
        prediction,
        target,
        score,
        extra=_FRACTIONS,
        within=dims,
        reduce=reduce,
        block=block,
        mask=mask,
        skipna=skipna,
    )
    return sums.assign_coords({THRESHOLD: (THRESHOLD, levels, sums.attrs), WINDOW: list(windows)})


def probability_fss_statistics(
    probability: xr.DataArray,
    observed: xr.DataArray,
    *,
    windows: Sequence[int],
    dims: tuple[Hashable, Hashable] = ("y", "x"),
    border: Border = "zero",
    reduce: Hashable | Sequence[Hashable],
    block: Hashable | xr.DataArray | None = None,
    mask: xr.DataArray | None = None,
    skipna: bool = False,
    guard: float = 1e-4,
) -> xr.Dataset:
    """Sums of which the fractions skill score of probabilities is a function.

    As `fss_statistics`, but the fraction of the forecast is the mean probability in the window, the fraction that is to
    be expected there (Schwartz et al. 2010, WAF 25, 263-280). For probabilities that are 0 or 1, both are the same.

    Args:
        probability: of an amount at or above each `threshold`, a dimension with a coordinate; beside it, the dimensions
            of `observed`, in any order.
        observed: amounts, with the two dimensions `dims`.
        windows: lengths of the window's side in points, odd.
        dims: rows and columns.
        border: see `fss_statistics`.
        reduce: dimensions to sum over.
        block: label of the independent block of each sample, see `error_statistics`.
        mask: True where points count, over any of the dimensions of `observed`; None for everywhere.
        skipna: leave points out at which the amount or all its probabilities are NaN, instead of raising.
        guard: an event is an amount of at least the threshold less this, in the unit of `observed`.

    Returns:
        See `fss_statistics`; `fss` takes them.

    Raises:
        ValueError: no thresholds; dimensions, coordinates or units do not agree; a value is not finite, or missing at
            some thresholds only; a probability is outside of [0, 1]; a window does not fit.
    """
    levels = probability_levels(probability, observed)
    _check_windows(observed, dims, windows, border)
    # its own units would have to be those of the amounts
    plain = probability.drop_vars(THRESHOLD).drop_attrs()
    parts: list[xr.Dataset] = []
    # threshold by threshold, so that neither is read whole
    for place, level in enumerate(levels):

        def score(p: Float, t: Float, valid: Bool, level: float = level) -> Mapping[str, Float]:
            if p.size and (p.min() < -PROBABILITY_ROUNDING or p.max() > 1.0 + PROBABILITY_ROUNDING):
                raise ValueError(
                    f"probability {probability.name!r} goes from {p.min():g} to {p.max():g} at the threshold {level:g}:"
                    " probabilities are in [0, 1]"
                )
            return _fraction_sums([(p, (t >= level - guard) & valid)], valid, windows, border)

        sums = field_sums(
            plain.isel({THRESHOLD: place}),
            observed,
            score,
            extra=_FRACTIONS,
            within=dims,
            reduce=reduce,
            block=block,
            mask=mask,
            skipna=skipna,
        )
        if parts and not sums["n"].equals(parts[0]["n"]):
            raise ValueError(f"probability {probability.name!r} is missing at some of the thresholds {levels} only")
        parts.append(sums)
    whole = xr.concat(parts, THRESHOLD, data_vars="minimal", coords="minimal", compat="override", join="override")
    return whole.assign_coords({THRESHOLD: (THRESHOLD, levels, whole.attrs), WINDOW: list(windows)})


def probability_levels(probability: xr.DataArray, observed: xr.DataArray) -> list[float]:
    """Thresholds of probabilities; refuses those without any, and those that are not of the observed amounts."""
    if THRESHOLD not in probability.dims or THRESHOLD not in probability.coords:
        raise ValueError(
            f"probability has the dimensions {probability.dims} and coordinates {list(probability.coords)}: it needs a"
            f" dimension {THRESHOLD!r} with a coordinate, the amount that is exceeded"
        )
    if THRESHOLD in observed.dims:
        raise ValueError(f"observed has the dimension {THRESHOLD!r}: give amounts, not events")
    if set(probability.dims) != {THRESHOLD, *observed.dims}:
        raise ValueError(
            f"probability has the dimensions {probability.dims} and observed {observed.dims}: they must agree but for"
            f" {THRESHOLD!r}"
        )
    levels = _thresholds(probability[THRESHOLD].values.tolist())
    units = probability[THRESHOLD].attrs.get("units"), observed.attrs.get("units")
    if None not in units and units[0] != units[1]:
        raise ValueError(f"thresholds are in {units[0]!r} and observed amounts in {units[1]!r}: convert one of them")
    return [float(level) for level in levels]


def fss(statistics: xr.Dataset) -> xr.DataArray:
    """Fractions skill score, 1 - sum (P - T)^2 / sum (P^2 + T^2) (Roberts and Lean 2008, MWR 136, 78-97, eq. 6).

    Both sums go over all samples before the ratio is taken (Mittermaier 2021, MWR 149, 3491-3504), so that fields
    without events do no harm.

    Args:
        statistics: what `fss_statistics` or `probability_fss_statistics` gave.

    Returns:
        The score in [0, 1] over the dimensions of the statistics; NaN where there is no event in either.
    """
    error, reference = statistics["fractions_error"], statistics["fractions_reference"]
    return _ratio(reference - error, reference, "fss")


def _check_windows(target: xr.DataArray, dims: Sequence[Hashable], windows: Sequence[int], border: str) -> None:
    missing = [dim for dim in dims if dim not in target.sizes]
    if missing:
        raise ValueError(f"dims={dims}: the target has the dimensions {target.dims}")
    if border not in get_args(Border):
        raise ValueError(f"border={border!r}: it is one of {', '.join(get_args(Border))}")
    wrong = [window for window in windows if window < 1 or window % 2 == 0]
    if wrong or not len(windows):
        raise ValueError(
            f"windows={list(windows)}: a window is around a point and has an odd number of points per side"
        )
    shape = target.sizes[dims[0]], target.sizes[dims[1]]
    if border == "inside" and max(windows) > min(shape):
        raise ValueError(f"a window of {max(windows)} points does not fit into {shape[0]} x {shape[1]} points")


def _fraction_sums(
    pairs: Sequence[tuple[Bool | Float, Bool | Float]], valid: Bool, windows: Sequence[int], border: str
) -> dict[str, Float]:
    """Number of windows (..., window) and sums of the fractions of each pair of fields (..., pair, window).

    Args:
        pairs: forecast and target, (..., H, W): events or probabilities, 0 where not valid.
        valid: (..., H, W).
        windows: lengths of the window's side.
        border: see `fss_statistics`.
    """
    lead, reach = valid.shape[:-2], max(windows) // 2
    result = {
        "n": np.zeros((*lead, len(windows))),
        "fractions_error": np.zeros((*lead, len(pairs), len(windows))),
        "fractions_reference": np.zeros((*lead, len(pairs), len(windows))),
    }
    # without gaps all fields have the same number of points in a window
    gaps = valid if not valid.all() else valid[(slice(0, 1),) * len(lead)]
    available, whole = _summed_area(gaps, reach), _summed_area(np.ones(valid.shape[-2:], dtype=np.bool_), reach)
    scales = []
    for index, window in enumerate(windows):
        size, inside = (_window_sums(table, window, reach) for table in (available, whole))
        # outside is valid, and without events
        size = size + (window**2 - inside) if border == "zero" else size
        centres = gaps & (inside == window**2) if border == "inside" else gaps
        scales.append(np.where(centres, 1.0 / np.maximum(size, 1.0), 0.0))
        result["n"][..., index] = centres.sum(axis=(-2, -1))
    for row, pair in enumerate(pairs):
        forecast, observed = (_summed_area(fields, reach) for fields in pair)
        for index, window in enumerate(windows):
            own, other = (_window_sums(table, window, reach) * scales[index] for table in (forecast, observed))
            result["fractions_reference"][..., row, index] = _sum_of_squares(own) + _sum_of_squares(other)
            result["fractions_error"][..., row, index] = _sum_of_squares(own - other)
    return result


def _thresholds(thresholds: Sequence[float]) -> Float:
    levels = np.asarray(thresholds, dtype=np.float64)
    if levels.ndim != 1 or not levels.size or not np.isfinite(levels).all():
        raise ValueError(f"thresholds={thresholds}: give one or more finite numbers")
    return levels


def _ratio(part: xr.DataArray, whole: xr.DataArray, name: str) -> xr.DataArray:
    return (part / whole.where(whole > 0)).rename(name).assign_attrs(units="1")


def _row_dimension(target: xr.DataArray, names: Sequence[Hashable], block: Hashable | xr.DataArray | None) -> Hashable:
    """The one of the reduced dimensions that the blocks are along, the first one if there are none."""
    along = block if isinstance(block, xr.DataArray) else target.coords.get(block)
    return along.dims[0] if along is not None and along.ndim == 1 and along.dims[0] in names else names[0]


def _count(events: Bool) -> Float:
    """Number of events along the last axis."""
    return np.asarray(events.sum(axis=-1), dtype=np.float64)


def _sum_of_squares(fields: Float) -> Float:
    return np.asarray(np.einsum("...ij,...ij->...", fields, fields))


def _summed_area(events: Bool | Float, reach: int) -> Float:
    """Number of events above and to the left of each corner, exact in float64.

    Args:
        events: (..., H, W), or their probabilities, of which it is the expected number.
        reach: how far windows may go beyond the domain.

    Returns:
        (..., H + 1 + 2 reach, W + 1 + 2 reach), continued beyond the domain without events.
    """
    height, width = events.shape[-2:]
    table = np.zeros((*events.shape[:-2], height + 1 + 2 * reach, width + 1 + 2 * reach))
    own = table[..., reach + 1 : reach + 1 + height, reach + 1 : reach + 1 + width]
    np.cumsum(np.cumsum(events, axis=-1, dtype=np.float64), axis=-2, out=own)
    table[..., reach + 1 : reach + 1 + height, reach + 1 + width :] = own[..., -1:]
    table[..., reach + 1 + height :, :] = table[..., reach + height : reach + height + 1, :]
    return table


def _window_sums(table: Float, window: int, reach: int) -> Float:
    """Number of events in the window around each point, (..., H, W), of a table that was made for `reach`."""
    height, width = (size - 1 - 2 * reach for size in table.shape[-2:])
    start, end = reach - window // 2, reach + window // 2 + 1
    strips = table[..., end : end + height, :] - table[..., start : start + height, :]
    return strips[..., end : end + width] - strips[..., start : start + width]
