"""Sums over the samples, of which the deterministic metrics are functions.

A metric of a whole set is not the mean of the metrics of its batches. `error_statistics` therefore gives
sums, which add up over batches, files, blocks and processes in any order, and every metric is a function of
such sums::

    statistics = merge(*(error_statistics(p, t, reduce="sample") for p, t in batches))
    r2(statistics)

The separation follows WeatherBench-X (Rasp et al. 2024, doi:10.1029/2023MS004019); it is also what makes the
block bootstrap of `ai4sim.verification.bootstrap` cheap.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from math import prod
from typing import Any, Final, TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

SUMS: Final = (
    "n",
    "weight",
    "error",
    "squared_error",
    "absolute_error",
    "prediction",
    "target",
    "prediction_squared",
    "target_squared",
    "product",
)
SHIFT: Final = "shift"
BLOCK: Final = "block"

# Values held at a time, 2 MiB in float64: the temporaries stay in the cache.
_SLICE_SIZE: Final = 2**18

Float = NDArray[np.float64]
Sums = TypeVar("Sums", NDArray[np.float64], xr.DataArray)


def error_statistics(
    prediction: xr.DataArray,
    target: xr.DataArray,
    *,
    reduce: Hashable | Sequence[Hashable],
    weights: xr.DataArray | None = None,
    block: Hashable | xr.DataArray | None = None,
    skipna: bool = False,
) -> xr.Dataset:
    """Sums of which all deterministic metrics are functions, in float64 and with bounded memory.

    With weights w (1 if none), error e = prediction - target and x' = x - shift, the variables are

        n = sum 1, weight = sum w, error = sum w e, squared_error = sum w e^2, absolute_error = sum w abs(e),
        prediction = sum w p', target = sum w t', prediction_squared = sum w p'^2,
        target_squared = sum w t'^2, product = sum w p' t'

    The coordinate `shift` is near the target's mean, so that second moments do not cancel where the mean is
    large against the variation. Statistics of parts are put together by `merge`.

    Args:
        prediction: any shape; in memory, lazily opened or of Dask (read slice by slice, along whole chunks).
        target: the dimensions, sizes and coordinates of `prediction`, in any order of dimensions.
        reduce: dimensions to sum over.
        weights: not negative, over any of the dimensions; for example the cosine of latitude.
        block: label of the independent block of each position along one of the reduced dimensions (a day, a
            file), as an array or as the name of a coordinate of `target`; gives the sums a dimension `block`.
        skipna: leave pairs out in which either value is NaN, instead of raising. `n` says how many are left.

    Returns:
        One variable for each of `SUMS` over the dimensions that are not reduced, after `block` if there is
        one, with the units of the target as the attribute `units`.

    Raises:
        ValueError: dimensions, coordinates or units do not agree; a value is not finite; a weight is
            negative.
    """
    names = reduced_dimensions(target, reduce)
    prediction, weights = aligned(prediction, target, weights)
    labels, codes, block_dim = labels_of_blocks(target, names, block)
    kept = [dim for dim in target.dims if dim not in names]
    # reduced dimensions first, the one with the blocks leading, so that a slice is a (row, cell) matrix
    order = sorted(names, key=lambda dim: dim != block_dim) + kept
    target, prediction = target.transpose(*order), prediction.transpose(*order)
    cell_shape = tuple(target.sizes[dim] for dim in kept)
    cells = prod(cell_shape)

    sums = np.zeros((len(SUMS), len(labels), cells))
    shift: Float | None = None
    for part in slices(target, names):
        t, p = (_matrix(values.isel(part), cells) for values in (target, prediction))
        w = None
        if weights is not None:
            w = _matrix(weights.isel(part, missing_dims="ignore").broadcast_like(target.isel(part)), cells)
        valid = valid_pairs(p, t, prediction, target, part, skipna)
        if shift is None:
            shift = _mean(t, valid)
        rows = codes[part[block_dim]]
        rows = np.repeat(rows, t.shape[0] // rows.size)
        _accumulate(sums, rows, t, p, w, valid, shift)

    dims: tuple[Hashable, ...] = tuple(kept)
    shape = cell_shape
    coords = {name: values for name, values in target.coords.items() if set(values.dims) <= set(kept)}
    if block is not None:
        dims, shape = (BLOCK, *dims), (len(labels), *shape)
        coords[BLOCK] = xr.DataArray(labels, dims=BLOCK)
    centre = np.zeros(cells) if shift is None else shift
    coords[SHIFT] = xr.DataArray(centre.reshape(cell_shape), dims=kept)
    return xr.Dataset(
        {name: (dims, values.reshape(shape)) for name, values in zip(SUMS, sums, strict=True)},
        coords=coords,
        attrs=common_units(prediction, target),
    )


def merge(*statistics: xr.Dataset) -> xr.Dataset:
    """Statistics of several parts of a set as those of the whole; exact for any partition, in any order.

    Parts may have different blocks; a block that is in several of them is added up.

    Args:
        statistics: what `error_statistics` gave for each part.

    Returns:
        Sums over all parts, about the shift of the first one that has samples.

    Raises:
        ValueError: nothing to merge, or the parts have different coordinates or units.
    """
    if not statistics:
        raise ValueError("merge() needs at least one set of statistics")
    first = statistics[0]
    for other in statistics[1:]:
        if other.attrs.get("units") != first.attrs.get("units"):
            raise ValueError(
                f"statistics in {other.attrs.get('units')!r} cannot be merged with statistics in"
                f" {first.attrs.get('units')!r}: convert the data to one unit first"
            )
        if other.sizes.keys() != first.sizes.keys():
            raise ValueError(
                f"statistics over {tuple(other.sizes)} cannot be merged with statistics over"
                f" {tuple(first.sizes)}: reduce the same dimensions in all parts"
            )
    shifts = [shift_of(part) for part in statistics]
    try:
        xr.align(*shifts, join="exact", copy=False)
    except ValueError as error:
        raise ValueError(f"statistics with different coordinates cannot be merged: {error}") from error

    template = next((part for part in statistics if bool((part["n"] > 0).any())), first)
    shift = shift_of(template)
    # plain arrays from here: a set may come in thousands of parts
    labels = [part[BLOCK].values if BLOCK in part.dims else np.zeros(1) for part in statistics]
    blocks = np.unique(np.concatenate(labels))
    total = {name: np.zeros((len(blocks), *shift.shape)) for name in SUMS}
    for part, known, own in zip(statistics, labels, shifts, strict=True):
        sums = {name: part[name].transpose(..., *shift.dims).values for name in SUMS}
        moved = _recentre(sums, own.transpose(*shift.dims).values - shift.values)
        rows = np.searchsorted(blocks, known)
        for name in SUMS:
            total[name][rows] += moved[name]
    coords = {name: values for name, values in template.coords.items() if BLOCK not in values.dims}
    if BLOCK not in first.dims:
        data = {name: (shift.dims, values[0]) for name, values in total.items()}
        return xr.Dataset(data, coords=coords, attrs=first.attrs)
    data = {name: ((BLOCK, *shift.dims), values) for name, values in total.items()}
    return xr.Dataset(data, coords={**coords, BLOCK: blocks}, attrs=first.attrs)


def pool(statistics: xr.Dataset, *, dim: Hashable | Sequence[Hashable]) -> xr.Dataset:
    """Statistics summed over further dimensions: levels, variables or blocks as one set.

    After pooling, r2 and correlation refer to the mean over the whole pool (as if all its values had been
    flattened into one vector), not to the mean of each level or variable.

    Args:
        statistics: what `error_statistics` or `merge` gave.
        dim: dimensions to sum over.

    Returns:
        The sums without these dimensions.

    Raises:
        ValueError: the statistics have no such dimension.
    """
    names = [dim] if isinstance(dim, Hashable) and not isinstance(dim, tuple) else list(dim)
    missing = [name for name in names if name not in statistics.sizes]
    if missing:
        raise ValueError(f"no dimension {missing} to pool over; the statistics have {tuple(statistics.sizes)}")
    shift = shift_of(statistics)
    common = shift.mean([name for name in names if name in shift.dims])
    moved = _recentre({name: statistics[name] for name in SUMS}, shift - common)
    return xr.Dataset(moved).sum(names).assign_coords({SHIFT: common}).assign_attrs(statistics.attrs)


def slices(array: xr.DataArray, dims: Sequence[Hashable]) -> Iterator[Mapping[Hashable, slice]]:
    """Cut an array along some of its dimensions into parts that fit in the cache, along whole chunks.

    Args:
        array: the array; nothing of it is read.
        dims: dimensions that may be cut, tried in this order.

    Yields:
        Indexers for `isel` that together cover the array once.
    """
    size = prod(array.shape)
    chunks = {**array.encoding.get("preferred_chunks", {}), **{d: c[0] for d, c in array.chunksizes.items()}}
    steps: dict[Hashable, int] = {}
    for dim in dims:
        length = array.sizes[dim]
        row = max(1, size // max(1, length))
        step = max(1, _SLICE_SIZE // row)
        chunk = chunks.get(dim, 1)
        steps[dim] = min(length, max(1, step // chunk) * chunk) or 1
        size = row * steps[dim]
    ranges = [[slice(start, start + step) for start in range(0, array.sizes[dim], step)] for dim, step in steps.items()]
    for combination in product(*ranges):
        yield dict(zip(steps, combination, strict=True))


def reduced_dimensions(target: xr.DataArray, reduce: Hashable | Sequence[Hashable]) -> list[Hashable]:
    """Names of the dimensions to sum over, each of which the target must have."""
    names = list(reduce) if isinstance(reduce, Iterable) and not isinstance(reduce, str) else [reduce]
    missing = [name for name in names if name not in target.dims]
    if missing or not names:
        raise ValueError(f"reduce={names}: name one or more dimensions of the target, which has {target.dims}")
    return names


def aligned(
    prediction: xr.DataArray, target: xr.DataArray, weights: xr.DataArray | None
) -> tuple[xr.DataArray, xr.DataArray | None]:
    """Prediction and weights in the target's order of dimensions; refuses those that do not fit it."""
    if set(prediction.dims) != set(target.dims):
        raise ValueError(f"prediction has dimensions {prediction.dims} and target {target.dims}: they must agree")
    for name, array in {"prediction": prediction, "weights": weights}.items():
        if array is None:
            continue
        try:
            xr.align(target, array, join="exact", copy=False)
        except ValueError as error:
            raise ValueError(f"{name} and target are not on the same coordinates: {error}") from error
    if weights is not None:
        extra = set(weights.dims) - set(target.dims)
        if extra:
            raise ValueError(f"weights have dimensions {sorted(map(str, extra))}, which the target lacks")
        weights = weights.astype(np.float64).load()
        if not bool((weights >= 0).all()):
            raise ValueError("weights must be finite and not negative")
    return prediction, weights


def labels_of_blocks(
    target: xr.DataArray, names: Sequence[Hashable], block: Hashable | xr.DataArray | None
) -> tuple[NDArray[Any], NDArray[np.intp], Hashable]:
    """Sorted labels, the number of its label for each position, and the dimension the positions are along."""
    if block is None:
        return np.zeros(1), np.zeros(target.sizes[names[0]], np.intp), names[0]
    if not isinstance(block, xr.DataArray):
        if block not in target.coords:
            raise ValueError(f"block={block!r} is no coordinate of the target, which has {list(target.coords)}")
        along = target.coords[block]
    else:
        along = block
    if along.ndim != 1 or along.dims[0] not in names:
        raise ValueError(f"block has dimensions {along.dims}: it must label positions along one of {list(names)}")
    dim = along.dims[0]
    if along.size != target.sizes[dim]:
        raise ValueError(f"block labels {along.size} positions along {dim!r}, the target has {target.sizes[dim]}")
    if bool(along.isnull().any()):
        raise ValueError(f"block has {int(along.isnull().sum())} missing labels along {dim!r}")
    labels, codes = np.unique(along.values, return_inverse=True)
    return labels, codes.reshape(-1), dim


def _matrix(values: xr.DataArray, cells: int) -> Float:
    # explicit rows: -1 cannot be inferred for an empty array
    rows = values.size // cells if cells else 0
    return np.asarray(values.values, dtype=np.float64).reshape(rows, cells)


def valid_pairs(
    p: Float,
    t: Float,
    prediction: xr.DataArray,
    target: xr.DataArray,
    part: Mapping[Hashable, slice],
    skipna: bool,
) -> NDArray[np.bool_] | None:
    """Mask of the usable pairs, of the shape of t; None where all are. p may have further axes behind those of t."""
    finite = np.isfinite(t)
    finite &= np.isfinite(p) if p.ndim == t.ndim else np.isfinite(p).all(axis=tuple(range(t.ndim, p.ndim)))
    if finite.all():
        return None
    if skipna and not (np.isinf(p).any() or np.isinf(t).any()):
        return finite
    for name, array, values in (("prediction", prediction, p), ("target", target, t)):
        bad = np.isinf(values) if skipna else ~np.isfinite(values)
        if not bad.any():
            continue
        shape = array.isel(part).shape
        inside = np.unravel_index(int(np.argmax(bad.reshape(-1))), shape)
        first = {
            str(dim): int(index) + (part[dim].start if dim in part else 0)
            for dim, index in zip(array.dims, inside, strict=True)
        }
        remedy = "" if skipna else "; mend the data, or pass skipna=True to leave missing values out of all scores"
        raise ValueError(f"{name} {array.name!r} has a value that is not finite, the first at index {first}{remedy}")
    raise AssertionError("a value is not finite, but neither in the prediction nor in the target")


def _mean(t: Float, valid: NDArray[np.bool_] | None) -> Float:
    if valid is None:
        return np.asarray(t.mean(axis=0)) if len(t) else np.zeros(t.shape[1])
    count = valid.sum(axis=0)
    return np.asarray(np.where(valid, t, 0.0).sum(axis=0) / np.maximum(count, 1))


def _accumulate(
    sums: Float,
    codes: NDArray[np.intp],
    t: Float,
    p: Float,
    w: Float | None,
    valid: NDArray[np.bool_] | None,
    shift: Float,
) -> None:
    """Add the sums of one slice of (row, cell) values to the sums of (quantity, block, cell)."""
    if (np.diff(codes) < 0).any():
        order = np.argsort(codes, kind="stable")
        codes, t, p = codes[order], t[order], p[order]
        w = None if w is None else w[order]
        valid = None if valid is None else valid[order]
    starts = np.flatnonzero(np.r_[True, np.diff(codes) > 0])
    blocks = codes[starts]
    weight = w
    number: Float
    if valid is not None:
        t, p, count = np.where(valid, t, shift), np.where(valid, p, shift), valid.astype(np.float64)
        weight = count if w is None else w * count
        number = _sum_runs(count, starts)
    else:
        number = np.diff(starts, append=len(codes))[:, None].astype(np.float64)
    sums[0, blocks] += number
    sums[1, blocks] += number if weight is None else _sum_runs(weight, starts)
    error, t, p = p - t, t - shift, p - shift
    terms = ((error,), (error, error), (np.abs(error),), (p,), (t,), (p, p), (t, t), (p, t))
    for index, factors in enumerate(terms, start=2):
        # one product at a time: its temporary stays in the cache
        values = factors[0] if len(factors) == 1 else factors[0] * factors[1]
        sums[index, blocks] += _sum_runs(values if w is None else values * w, starts)


def _sum_runs(values: Float, starts: NDArray[np.intp]) -> Float:
    """Sums over runs of rows that begin at `starts`; plain sums are twice as fast where runs are long."""
    if len(values) < 32 * len(starts):
        return np.add.reduceat(values, starts, axis=0)
    return np.stack([run.sum(axis=0) for run in np.split(values, starts[1:])])


def _recentre(sums: Mapping[str, Sums], d: Sums) -> dict[str, Sums]:
    """The same sums about a shift that is smaller by d."""
    weight, p, t = (sums[name] for name in ("weight", "prediction", "target"))
    return {
        **sums,
        "prediction": p + weight * d,
        "target": t + weight * d,
        "prediction_squared": sums["prediction_squared"] + 2.0 * d * p + weight * d**2,
        "target_squared": sums["target_squared"] + 2.0 * d * t + weight * d**2,
        "product": sums["product"] + d * (p + t) + weight * d**2,
    }


def shift_of(statistics: xr.Dataset) -> xr.DataArray:
    """What was subtracted from the values of prediction and target before they were summed, in their unit.

    Raises:
        ValueError: there is no single shift, since sums about different ones were added without `merge`.
    """
    if SHIFT not in statistics.coords:
        raise ValueError(
            "statistics without the coordinate 'shift': sums about different shifts were added with +;"
            " use merge() for parts and pool() for dimensions"
        )
    return statistics.coords[SHIFT].reset_coords(drop=True)


def common_units(prediction: xr.DataArray, target: xr.DataArray) -> dict[str, str]:
    """The units of both as attributes, none where neither says; refuses units that differ."""
    units = {name: array.attrs.get("units") for name, array in (("p", prediction), ("t", target))}
    if None not in units.values() and units["p"] != units["t"]:
        raise ValueError(f"prediction is in {units['p']!r} and target in {units['t']!r}: convert one of them")
    known = units["t"] if units["t"] is not None else units["p"]
    return {} if known is None else {"units": str(known)}
