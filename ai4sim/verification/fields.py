"""Sums over samples of quantities that need whole fields, such as spectra and neighbourhoods.

As in `ai4sim.verification.sums`, what is accumulated adds up over batches, files, blocks and processes in any order,
and every metric is a function of the sums; so the block bootstrap applies to all of them.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from math import prod

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ai4sim.verification.sums import (
    BLOCK,
    aligned,
    common_units,
    labels_of_blocks,
    reduced_dimensions,
    slices,
    valid_pairs,
)

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
Score = Callable[[Float, Float, Bool], Mapping[str, Float]]


def field_sums(
    prediction: xr.DataArray,
    target: xr.DataArray,
    score: Score,
    *,
    extra: Mapping[str, Sequence[str]],
    within: Sequence[Hashable],
    reduce: Hashable | Sequence[Hashable],
    block: Hashable | xr.DataArray | None,
    mask: xr.DataArray | None,
    skipna: bool,
) -> xr.Dataset:
    """Sum a score of fields over samples, in float64 and with a few fields in memory at a time.

    Args:
        prediction: any shape; in memory, lazily opened or of Dask.
        target: the dimensions, sizes and coordinates of `prediction`, in any order of dimensions.
        score: takes prediction, target and what is valid, each (reduced..., kept..., within...), and gives arrays
            (reduced..., kept..., extra...) by name. Where it is not valid, prediction and target are 0.
        extra: names of the extra dimensions of each array.
        within: dimensions that `score` needs whole.
        reduce: dimensions to sum over.
        block: see `error_statistics`.
        mask: True where values count, over any of the dimensions; None for everywhere. What it leaves out may be NaN.
        skipna: call pairs with a missing value not valid, instead of raising.

    Returns:
        The sums over the dimensions that remain, after `block` if there is one and before the extra ones, with the
        units of the target as the attribute `units`.

    Raises:
        ValueError: dimensions, coordinates or units do not agree; a value is not finite.
    """
    names = reduced_dimensions(target, reduce)
    missing = [dim for dim in within if dim not in target.dims or dim in names]
    if missing:
        raise ValueError(
            f"fields need the dimensions {tuple(within)}, not reduced; the target has {target.dims}, reduce={names}"
        )
    prediction, _ = aligned(prediction, target, None)
    if mask is not None:
        aligned(target, target, mask)
    labels, codes, block_dim = labels_of_blocks(target, names, block)
    kept = [dim for dim in target.dims if dim not in names and dim not in within]
    order = [*sorted(names, key=lambda dim: dim != block_dim), *kept, *within]
    target, prediction = target.transpose(*order), prediction.transpose(*order)
    kept_shape = tuple(target.sizes[dim] for dim in kept)

    totals: dict[str, Float] = {}
    nothing = {dim: slice(0, 0) for dim in names} | {dim: slice(None) for dim in kept}
    # an empty part first: it says what there is, if there are no samples
    for part in (nothing, *slices(target, [*names, *kept])):
        p, t = (np.array(values.isel(part).values, dtype=np.float64) for values in (prediction, target))
        chosen = np.ones(t.shape, dtype=np.bool_)
        if mask is not None:
            own = mask.isel(part, missing_dims="ignore").broadcast_like(target.isel(part)).transpose(*order)
            chosen &= own.values.astype(np.bool_)
            p[~chosen], t[~chosen] = 0.0, 0.0
        finite = valid_pairs(p, t, prediction, target, part, skipna)
        if finite is not None:
            chosen &= finite
            p[~finite], t[~finite] = 0.0, 0.0
        rows = codes[part[block_dim]]
        cells = tuple(part[dim] for dim in kept)
        inner = prod(t.shape[1 : len(names)])
        for name, values in score(p, t, chosen).items():
            rest = values.shape[len(names) :]
            summed = values.reshape(len(rows), inner, *rest).sum(axis=1)
            shape = (len(labels), *kept_shape, *rest[len(kept) :])
            total = totals.setdefault(name, np.zeros(shape))
            for code in np.unique(rows):
                total[(code, *cells)] += summed[rows == code].sum(axis=0)

    dims: tuple[Hashable, ...] = tuple(kept)
    coords = {name: values for name, values in target.coords.items() if set(values.dims) <= set(kept)}
    if block is None:
        totals = {name: total[0] for name, total in totals.items()}
    else:
        dims = (BLOCK, *dims)
        coords[BLOCK] = xr.DataArray(labels, dims=BLOCK)
    return xr.Dataset(
        {name: ((*dims, *extra.get(name, ())), total) for name, total in totals.items()},
        coords=coords,
        attrs=common_units(prediction, target),
    )


def merge_sums(*statistics: xr.Dataset) -> xr.Dataset:
    """Plain sums of several parts of a set as those of the whole: spectra, fractions, contingency tables.

    Parts may have different blocks; a block that is in several of them is added up. (For `error_statistics`, which
    are about a shift, there is `ai4sim.verification.sums.merge`.)

    Args:
        statistics: what the same function gave for each part.

    Returns:
        Sums over all parts.

    Raises:
        ValueError: nothing to merge, or the parts have different variables, coordinates or units.
    """
    if not statistics:
        raise ValueError("merge_sums() needs at least one set of statistics")
    first = statistics[0]
    for other in statistics[1:]:
        if other.attrs.get("units") != first.attrs.get("units"):
            raise ValueError(
                f"statistics in {other.attrs.get('units')!r} cannot be merged with statistics in"
                f" {first.attrs.get('units')!r}: convert the data to one unit first"
            )
        if set(other.data_vars) != set(first.data_vars) or set(other.dims) != set(first.dims):
            raise ValueError(
                f"{[*other.data_vars]} over {tuple(other.sizes)} cannot be merged with {[*first.data_vars]} over"
                f" {tuple(first.sizes)}: take the same statistics of all parts"
            )
        for name, values in first.coords.items():
            if BLOCK not in values.dims and (name not in other.coords or not values.equals(other.coords[name])):
                raise ValueError(f"statistics with different coordinates {name!r} cannot be merged")
    if BLOCK in first.dims:
        return _merge_blocks(statistics)
    total = first.copy(deep=True)
    for other in statistics[1:]:
        for name in total.data_vars:
            total[name] += other[name]
    return total


def _merge_blocks(statistics: Sequence[xr.Dataset]) -> xr.Dataset:
    """Sums over parts by block, as plain arrays: a set may come in thousands of parts."""
    first = statistics[0]
    labels = np.unique(np.concatenate([part[BLOCK].values for part in statistics]))
    merged: dict[Hashable, tuple[tuple[Hashable, ...], Float]] = {}
    for name, values in first.data_vars.items():
        dims = values.dims
        total = np.zeros([len(labels) if dim == BLOCK else values.sizes[dim] for dim in dims])
        along = np.moveaxis(total, dims.index(BLOCK), 0)
        for part in statistics:
            own = part[name].transpose(*dims).values
            along[np.searchsorted(labels, part[BLOCK].values)] += np.moveaxis(own, dims.index(BLOCK), 0)
        merged[name] = (dims, total)
    coords = {name: values for name, values in first.coords.items() if BLOCK not in values.dims}
    return xr.Dataset(merged, {**coords, BLOCK: (BLOCK, labels)}, first.attrs)
