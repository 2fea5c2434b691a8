"""NetCDF files and Zarr stores: opening them, and the grids and orientation of their fields."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ai4sim.errors import InputError
from ai4sim.projections import LambertConformal
from precip_postproc.resunet_qpf.readers.files import HOUR
from precip_postproc.resunet_qpf.readers.grid import (
    CurvilinearGrid,
    Grid,
    LambertGrid,
    LatLonGrid,
    require_same_grid,
    wrap,
)

logger = logging.getLogger(__name__)

LATITUDES = ("latitude", "lat", "lats", "nav_lat", "XLAT")
LONGITUDES = ("longitude", "lon", "lons", "nav_lon", "XLONG")

_METRES = {"m": 1.0, "metre": 1.0, "metres": 1.0, "meter": 1.0, "meters": 1.0, "km": 1000.0}
_HOURS = {
    "days": 24.0, "day": 24.0, "d": 24.0, "hours": 1.0, "hour": 1.0, "h": 1.0, "minutes": 1 / 60, "min": 1 / 60,
    "seconds": 1 / 3600, "s": 1 / 3600, "milliseconds": 1 / 3.6e6, "microseconds": 1 / 3.6e9, "nanoseconds": 1 / 3.6e12,
}  # fmt: skip

Float = NDArray[np.float64]


def find(dataset: xr.Dataset, names: Sequence[str], what: str, source: str) -> str:
    """The first of some names that a data set has.

    Raises:
        InputError: it has none; names those it has.
    """
    for name in names:
        if name in dataset.variables:
            return name
    held = ", ".join(str(name) for name in dataset.variables)
    raise InputError(f"{source} has no {what}: no variable {' or '.join(names)}; it has {held}")


@dataclass(frozen=True, eq=False)
class Layout:
    """How the fields of a file lie on its grid.

    Args:
        grid: from the south-west.
        dims: names of rows and columns.
        turn: slices that turn a field (y, x) of the file so that it starts in the south-west.
        source: file, for messages.
    """

    grid: Grid
    dims: tuple[str, str]
    turn: tuple[slice, slice]
    source: str

    def read(self, array: xr.DataArray) -> NDArray[np.float32]:
        """Values (..., y, x) from the south-west.

        Raises:
            InputError: the variable is not on the grid, or cannot be read.
        """
        if not set(self.dims) <= set(array.dims):
            raise InputError(
                f"{self.source}: {array.name!r} has dimensions {array.dims}, expected {self.dims} among them"
            )
        try:
            values = array.transpose(..., *self.dims).values
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"{self.source}: {array.name!r} cannot be read: {error}") from error
        return np.array(values[(..., *self.turn)], np.float32)

    def on(self, grid: Grid | None, name: str) -> Grid:
        """The grid that the fields must be on: the given one, which knows its projection, where there is one.

        Args:
            grid: the expected grid.
            name: what the expected grid is of.

        Raises:
            InputError: the two differ.
        """
        if grid is None:
            return self.grid
        require_same_grid(self.grid, grid, (self.source, name))
        return grid


def find_layout(dataset: xr.Dataset, source: str) -> Layout:
    """The grid of a file: latitudes and longitudes of one or two dimensions, or a Lambert projection's x and y.

    Raises:
        InputError: coordinates are missing, not finite, not monotonic or contradict the projection.
    """
    latitude, longitude = (
        dataset[find(dataset, names, what, source)]
        for names, what in ((LATITUDES, "latitude"), (LONGITUDES, "longitude"))
    )
    try:
        if latitude.ndim == 1:
            return _axes(latitude, longitude, source)
        return _points(dataset, latitude, longitude, source)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error


def _axes(latitude: xr.DataArray, longitude: xr.DataArray, source: str) -> Layout:
    if longitude.ndim != 1:
        raise InputError(f"latitude has dimensions {latitude.dims}, longitude has {longitude.dims}")
    rows, columns = (array.values.astype(np.float64) for array in (latitude, longitude))
    if not _increases(columns) and not _increases(-columns):
        columns = wrap(columns)
    turn = slice(None, None, _direction(rows)), slice(None, None, _direction(columns))
    _log(turn, source)
    grid = LatLonGrid(rows[turn[0]], columns[turn[1]])
    return Layout(grid, (str(latitude.dims[0]), str(longitude.dims[0])), turn, source)


def _points(dataset: xr.Dataset, latitude: xr.DataArray, longitude: xr.DataArray, source: str) -> Layout:
    if latitude.ndim != 2 or latitude.dims != longitude.dims:
        raise InputError(f"latitude has dimensions {latitude.dims}, longitude has {longitude.dims}; (y, x) is expected")
    lat, lon = (array.values.astype(np.float64) for array in (latitude, longitude))
    turn = (
        slice(None, None, -1 if np.diff(lat, axis=0).mean() < 0 else 1),
        slice(None, None, -1 if wrap(np.diff(lon, axis=1)).mean() < 0 else 1),
    )
    _log(turn, source)
    dims = str(latitude.dims[0]), str(latitude.dims[1])
    points = CurvilinearGrid(lat[turn], lon[turn])
    grid = _projected(dataset, dims, turn)
    if grid is None:
        return Layout(points, dims, turn, source)
    require_same_grid(points, grid, ("latitude and longitude", "the projection"))
    return Layout(grid, dims, turn, source)


def _projected(dataset: xr.Dataset, dims: tuple[str, str], turn: tuple[slice, slice]) -> LambertGrid | None:
    """The Lambert grid that the file describes; None where it does not."""
    names = (array.attrs.get("grid_mapping", array.encoding.get("grid_mapping")) for array in dataset.values())
    mapping = next((dataset[name].attrs for name in names if name in dataset.variables), None)
    if mapping is None or mapping.get("grid_mapping_name") != "lambert_conformal_conic":
        return None
    if not all(dim in dataset.variables for dim in dims):
        return None
    axes = []
    for dim, along in zip(dims, turn, strict=True):
        units = str(dataset[dim].attrs.get("units", "m"))
        if units not in _METRES:
            return None
        axes.append(dataset[dim].values.astype(np.float64)[along] * _METRES[units])
    y, x = axes
    steps = [float(np.diff(axis).mean()) for axis in (x, y)]
    for axis, step in zip((x, y), steps, strict=True):
        if step <= 0 or np.abs(np.diff(axis) - step).max() > 0.01 * step:
            return None
    projection = LambertConformal.from_attributes(mapping)
    false_x, false_y = (float(mapping.get(name, 0)) for name in ("false_easting", "false_northing"))
    origin = float(x[0]) - false_x, float(y[0]) - false_y
    return LambertGrid(projection, origin, (steps[0], steps[1]), (len(y), len(x)))


def _increases(axis: Float) -> bool:
    return bool((np.diff(axis) > 0).all())


def _direction(axis: Float) -> int:
    return -1 if axis[0] > axis[-1] else 1


def _log(turn: tuple[slice, slice], source: str) -> None:
    turned = [what for what, part in zip(("rows", "columns"), turn, strict=True) if part.step == -1]
    if turned:
        logger.info("%s: %s are turned, to start in the south-west", source, " and ".join(turned))


def lead_hours(array: xr.DataArray, source: str) -> list[int]:
    """Lead times in whole hours.

    Args:
        array: (lead) with units such as hours, or durations.
        source: file, for messages.

    Raises:
        InputError: no or other units, or lead times between the hours.
    """
    if array.dtype.kind == "m":
        values = np.atleast_1d(array.values / HOUR)
    else:
        units = str(array.attrs.get("units", ""))
        if units not in _HOURS:
            raise InputError(f"{source}: {array.name!r} has units {units!r}; hours are expected")
        values = np.atleast_1d(array.values.astype(np.float64) * _HOURS[units])
    if np.abs(values - np.round(values)).max(initial=0) > 1e-6:
        raise InputError(f"{source}: {array.name!r} has lead times that are not whole hours: {values[:5]}")
    return [int(value) for value in np.round(values)]


def read_times(array: xr.DataArray, source: str) -> NDArray[np.datetime64]:
    """Times (...) to the second.

    Raises:
        InputError: the variable holds no dates.
    """
    if array.dtype.kind != "M":
        raise InputError(
            f"{source}: {array.name!r} holds no dates of the standard calendar: {array.values.ravel()[:1]}"
        )
    return array.values.astype("datetime64[s]")
