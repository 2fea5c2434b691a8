"""Sums over samples of quantities that need whole fields, such as spectra and neighbourhoods.

As in `ai4sim.verification.sums`, what is accumulated adds up over batches, files, blocks and processes in any order,
and every metric is a function of the sums; so the block bootstrap applies to all of them.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

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
Index = NDArray[np.intp]
Score = Callable[[Float, Float, Bool], Mapping[str, Float]]


@dataclass(frozen=True)
class Piece:
    """Part of a set of samples, small enough for the cache.

    Attributes:
        prediction: (reduced..., kept..., within..., only...), 0 where it is not valid.
        target: (reduced..., kept..., within...), 0 where it is not valid.
        valid: as `target`: what counts.
        place: where along the reduced and the kept dimensions it is.
        rows: number of the block of each row, the first of the reduced dimensions.
    """

    prediction: Float
    target: Float
    valid: Bool
    place: Mapping[Hashable, slice]
    rows: Index


Binning = Callable[[Piece], Mapping[str, tuple[Index, Float | None]]]


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
    only: Sequence[Hashable] = (),
) -> xr.Dataset:
    """Sum a score of fields over samples, in float64 and with a few fields in memory at a time.

    Args:
        prediction: any shape; in memory, lazily opened or of Dask.
        target: the dimensions, sizes and coordinates of `prediction` without `only`, in any order of dimensions.
        score: takes prediction (reduced..., kept..., within..., only...), target and what is valid, each (reduced...,
            kept..., within...), and gives arrays (reduced..., kept..., extra...) by name. Where it is not valid,
            prediction and target are 0.
        extra: names of the extra dimensions of each array.
        within: dimensions that `score` needs whole.
        reduce: dimensions to sum over.
        block: see `error_statistics`.
        mask: True where values count, over any of the dimensions of the target; None for everywhere. What it leaves out
            may be NaN.
        skipna: call pairs with a missing value not valid, instead of raising.
        only: dimensions that only the prediction has, whole too, such as that of the members of an ensemble, all of
            which are missing where one is.

    Returns:
        The sums over the dimensions that remain, after `block` if there is one and before the extra ones, with the
        units of the target as the attribute `units`.

    Raises:
        ValueError: dimensions, coordinates or units do not agree; a value is not finite.
    """
    samples = _Samples(prediction, target, within, only, reduce, block, mask, skipna)
    totals: dict[str, Float] = {}
    for piece in samples.pieces():
        inner = prod(piece.target.shape[1 : len(samples.names)])
        for name, values in score(piece.prediction, piece.target, piece.valid).items():
            rest = values.shape[len(samples.names) :]
            summed = values.reshape(len(piece.rows), inner, *rest).sum(axis=1)
            total = totals.setdefault(name, samples.zeros(*rest[len(samples.kept) :]))
            for code in np.unique(piece.rows):
                total[(code, *samples.cells(piece))] += summed[piece.rows == code].sum(axis=0)
    return samples.labelled(totals, extra)


def binned_sums(
    prediction: xr.DataArray,
    target: xr.DataArray,
    binning: Binning,
    *,
    bins: int,
    dim: str,
    reduce: Hashable | Sequence[Hashable],
    block: Hashable | xr.DataArray | None,
    mask: xr.DataArray | None,
    skipna: bool,
    only: Sequence[Hashable] = (),
) -> xr.Dataset:
    """Sum weights over samples by bin, in float64 and with memory for the sums and a few fields.

    Args:
        prediction: see `field_sums`.
        target: see `field_sums`.
        binning: takes a piece, and gives by name the bin, from 0, and the weight of each value (None for 1), of the
            shape of the target or of the prediction. What is not valid is left out thereafter.
        bins: number of bins.
        dim: name of their dimension.
        reduce: dimensions to sum over.
        block: see `error_statistics`.
        mask: see `field_sums`.
        skipna: see `field_sums`.
        only: see `field_sums`.

    Returns:
        `n`, the number of valid values of the target, over the dimensions that remain, after `block` if there is one,
        and the other sums with the last dimension `dim`; the units of the target are the attribute `units`.

    Raises:
        ValueError: dimensions, coordinates or units do not agree; a value is not finite.
    """
    samples = _Samples(prediction, target, (), only, reduce, block, mask, skipna)
    totals: dict[str, Float] = {"n": samples.zeros()}
    for piece in samples.pieces():
        valid = piece.valid
        present, rows = np.unique(piece.rows, return_inverse=True)
        kept = valid.shape[len(samples.names) :]
        group = groups_of(rows, valid.shape, len(samples.names))[valid]
        groups = len(present) * prod(kept)
        binned = binning(piece)
        sums = {"n": np.bincount(group, minlength=groups).reshape(len(present), *kept)}
        for name, (number, weight) in binned.items():
            code = (group.reshape(-1, *(1,) * (number.ndim - valid.ndim)) * bins + number[valid]).reshape(-1)
            own = None if weight is None else weight[valid].reshape(-1)
            totals.setdefault(name, samples.zeros(bins))
            sums[name] = np.bincount(code, own, minlength=groups * bins).reshape(len(present), *kept, bins)
        for name, values in sums.items():
            for row, code in enumerate(present):
                totals[name][(code, *samples.cells(piece))] += values[row]
    return samples.labelled(totals, {name: [dim] for name in totals if name != "n"})


def groups_of(rows: Index, shape: tuple[int, ...], reduced: int) -> Index:
    """Number of the pair of block and kept position of each value.

    Args:
        rows: number of the block of each row.
        shape: (reduced..., kept...), the rows first.
        reduced: number of reduced dimensions.

    Returns:
        The numbers in this shape.
    """
    inner, cells = prod(shape[1:reduced]), prod(shape[reduced:])
    number = rows.reshape(-1, 1, 1) * cells + np.arange(cells)
    return np.broadcast_to(number, (len(rows), inner, cells)).reshape(shape)


class _Samples:
    """Prediction and target of the same samples, checked and read piece by piece.

    Attributes:
        names: reduced dimensions, that of the blocks first.
        kept: dimensions that remain.
    """

    def __init__(
        self,
        prediction: xr.DataArray,
        target: xr.DataArray,
        within: Sequence[Hashable],
        only: Sequence[Hashable],
        reduce: Hashable | Sequence[Hashable],
        block: Hashable | xr.DataArray | None,
        mask: xr.DataArray | None,
        skipna: bool,
    ) -> None:
        names = reduced_dimensions(target, reduce)
        missing = [dim for dim in within if dim not in target.dims or dim in names]
        if missing:
            raise ValueError(
                f"fields need the dimensions {tuple(within)}, not reduced; the target has {target.dims}, reduce={names}"
            )
        aligned(prediction.isel(dict.fromkeys(only, 0), drop=True), target, None)
        if mask is not None:
            aligned(target, target, mask)
        self._labels, self._codes, self._block_dim = labels_of_blocks(target, names, block)
        self.names = sorted(names, key=lambda dim: dim != self._block_dim)
        self.kept = [dim for dim in target.dims if dim not in names and dim not in within]
        self._order = [*self.names, *self.kept, *within]
        self._target, self._prediction = target.transpose(*self._order), prediction.transpose(*self._order, *only)
        self._larger = self._prediction if only else self._target
        self._mask, self._skipna, self._blocked = mask, skipna, block is not None

    def pieces(self) -> Iterator[Piece]:
        """All of the set once; first an empty piece, which says what there is if there are no samples."""
        yield self._piece({dim: slice(0, 0) for dim in self.names} | {dim: slice(None) for dim in self.kept})
        yield from map(self._piece, slices(self._larger, [*self.names, *self.kept]))

    def _piece(self, place: Mapping[Hashable, slice]) -> Piece:
        prediction, target = self._prediction, self._target
        p, t = (np.array(values.isel(place).values, dtype=np.float64) for values in (prediction, target))
        chosen = np.ones(t.shape, dtype=np.bool_)
        if self._mask is not None:
            own = self._mask.isel(place, missing_dims="ignore").broadcast_like(target.isel(place))
            chosen &= own.transpose(*self._order).values.astype(np.bool_)
            p[~chosen], t[~chosen] = 0.0, 0.0
        finite = valid_pairs(p, t, prediction, target, place, self._skipna)
        if finite is not None:
            chosen &= finite
            p[~finite], t[~finite] = 0.0, 0.0
        return Piece(p, t, chosen, place, self._codes[place[self._block_dim]])

    def cells(self, piece: Piece) -> tuple[slice, ...]:
        """Where along the kept dimensions a piece is."""
        return tuple(piece.place[dim] for dim in self.kept)

    def zeros(self, *extra: int) -> Float:
        """Sums (block, kept..., extra...) of nothing."""
        return np.zeros((len(self._labels), *(self._target.sizes[dim] for dim in self.kept), *extra))

    def labelled(self, totals: Mapping[str, Float], extra: Mapping[str, Sequence[str]]) -> xr.Dataset:
        """Sums (block, kept..., extra...) with their dimensions and coordinates."""
        dims: tuple[Hashable, ...] = tuple(self.kept)
        known = self._target.coords.items()
        coords: dict[Hashable, Any] = {name: values for name, values in known if set(values.dims) <= set(self.kept)}
        if self._blocked:
            dims = (BLOCK, *dims)
            coords[BLOCK] = xr.DataArray(self._labels, dims=BLOCK)
        else:
            totals = {name: total[0] for name, total in totals.items()}
        return xr.Dataset(
            {name: ((*dims, *extra.get(name, ())), total) for name, total in totals.items()},
            coords=coords,
            attrs=common_units(self._prediction, self._target),
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
