"""The parts in which a store is written: each alone responsible for its chunks, together the whole store."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, gcd
from typing import Any

import fsspec
import numpy as np
import xarray as xr
from dask.base import is_dask_collection

from ai4sim.manifest import StoreError


@dataclass(frozen=True)
class Region:
    """A part of a store that is loaded and written in one piece.

    Args:
        name: unique name, for messages (for example the raw file's name).
        slices: dimension to the slice this region fills; dimensions not named are filled whole.
        load: gives the region's data; called where the region is written, so it must be picklable (as Dask
            does it) when the scheduler is on other machines.
    """

    name: str
    slices: Mapping[str, slice]
    load: Callable[[], xr.Dataset]


def filled_by_regions(template: xr.Dataset) -> dict[str, xr.Variable]:
    """Variables of a template that regions fill: its Dask arrays; the others are written as they are."""
    return {str(name): variable for name, variable in template.variables.items() if is_dask_collection(variable.data)}


def check_regions(template: xr.Dataset, regions: Sequence[Region]) -> None:
    """Refuse regions that share a chunk or shard, overlap, or leave a gap.

    Raises:
        StoreError: naming the region, the dimension and what would fit.
    """
    if not regions:
        raise StoreError("no regions were given, so there is nothing to write")
    dims = tuple(regions[0].slices)
    for number, region in enumerate(regions):
        if tuple(region.slices) != dims:
            raise StoreError(f"region {region.name!r} divides {tuple(region.slices)}, the first one {dims}")
        if region.name in (earlier.name for earlier in regions[:number]):
            raise StoreError(f"two regions have the name {region.name!r}")
    grain = dict.fromkeys(dims, 0)  # the largest step that all chunk boundaries are multiples of
    for name, variable in filled_by_regions(template).items():
        kind = "shards" if variable.encoding.get("shards") else "chunks"
        pieces = dict(zip(variable.dims, variable.encoding.get(kind) or (), strict=False))
        for dim in dims:
            if dim not in variable.dims:
                raise StoreError(f"variable {name!r} has no dimension {dim!r}, by which regions divide the store")
            if dim not in pieces:
                raise StoreError(f"variable {name!r} of the template has no 'chunks' in its encoding")
            grain[dim] = gcd(grain[dim], pieces[dim])
            for region in regions:
                _check_alignment(region, dim, template.sizes[dim], f"{kind} of variable {name!r}", pieces[dim])
    _check_coverage(regions, grain, {dim: template.sizes[dim] for dim in dims})


def _check_alignment(region: Region, dim: str, size: int, what: str, piece: int) -> None:
    start, stop = _bounds(region, dim, size)
    if start % piece or (stop % piece and stop != size):
        raise StoreError(
            f"region {region.name!r} covers {dim}={start}:{stop}, which does not begin and end at {what}"
            f" ({piece} entries); parallel writers would damage each other's values. Choose boundaries that"
            f" are multiples of {piece}, or smaller ones of these"
        )


def _check_coverage(regions: Sequence[Region], grain: Mapping[str, int], sizes: Mapping[str, int]) -> None:
    covered = np.zeros([ceil(size / grain[dim]) for dim, size in sizes.items()], bool)
    for region in regions:
        bounds = {dim: _bounds(region, dim, size) for dim, size in sizes.items()}
        part = tuple(slice(start // grain[d], ceil(stop / grain[d])) for d, (start, stop) in bounds.items())
        if covered[part].any():
            raise StoreError(f"region {region.name!r} overlaps an earlier one")
        covered[part] = True
    if not covered.all():
        where = np.unravel_index(int(covered.argmin()), covered.shape)
        first = ", ".join(f"{dim}={int(i) * grain[dim]}" for dim, i in zip(sizes, where, strict=True))
        raise StoreError(f"the regions do not fill the store: nothing covers {first}")


def _bounds(region: Region, dim: str, size: int) -> tuple[int, int]:
    """First entry and the one after the last; open slices are closed."""
    part = region.slices[dim]
    start = 0 if part.start is None else part.start
    stop = size if part.stop is None else part.stop
    if part.step not in (None, 1) or not 0 <= start < stop <= size:
        raise StoreError(f"region {region.name!r}: {dim}={start}:{stop} is empty or outside 0:{size}")
    return start, stop


def write_region(
    target: str,
    region: Region,
    marker: str,
    expected: Mapping[str, tuple[tuple[Any, ...], np.dtype[Any]]],
    sizes: Mapping[str, int],
) -> None:
    """Load one region, check it against the template, write it and leave the marker."""
    dataset = region.load()
    if unknown := [str(name) for name in dataset.data_vars if name not in expected]:
        raise StoreError(f"region {region.name!r} gives {unknown[0]!r}, which the template does not have")
    for name, (dims, dtype) in expected.items():
        if name not in dataset.variables:
            raise StoreError(f"region {region.name!r} gives no variable {name!r}")
        variable = dataset.variables[name]
        shape = tuple(
            stop - start
            for start, stop in (
                _bounds(region, dim, sizes[dim]) if dim in region.slices else (0, sizes[dim]) for dim in dims
            )
        )
        found, wanted = (variable.dims, variable.shape, variable.dtype), (dims, shape, dtype)
        if found != wanted:
            raise StoreError(
                f"region {region.name!r}: variable {name!r} has dims {found[0]}, shape {found[1]}, type"
                f" {found[2]}; the template expects dims {wanted[0]}, shape {wanted[1]}, type {wanted[2]}"
            )
    # only what the template leaves open, and without the raw file's own encoding
    dataset = dataset[list(expected)].drop_vars([str(c) for c in dataset.coords if c not in expected])
    dataset = dataset.compute(scheduler="synchronous").drop_encoding()
    slices = {dim: slice(*_bounds(region, dim, sizes[dim])) for dim in region.slices}
    dataset.to_zarr(target, region=slices, mode="r+", consolidated=False, zarr_format=3)
    filesystem, _ = fsspec.url_to_fs(target)
    filesystem.pipe_file(marker, region.name.encode())
