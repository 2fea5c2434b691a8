"""Any NetCDF file or Zarr store on a regular or projected grid, with a table of names."""

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ai4sim.datasets import open_dataset
from ai4sim.errors import InputError
from ai4sim.projections import LambertConformal
from weather_forecast.lam.accessors.base import DataAccessor, Field, GridInfo, Records
from weather_forecast.lam.accessors.files import locate, same_units, surface_geopotential
from weather_forecast.lam.parameters import Parameter, parse_all

logger = logging.getLogger(__name__)

TIME = ("time", "valid_time")
ROWS = ("latitude", "lat", "y", "projection_y_coordinate")
COLUMNS = ("longitude", "lon", "x", "projection_x_coordinate")
LEVELS = ("level", "pressure_level", "isobaricInhPa", "plev", "height")
LATITUDES, LONGITUDES = ("latitude", "lat"), ("longitude", "lon")
GEOPOTENTIALS = ("geopotential_at_surface", "surface_geopotential", "z", "orog", "surface_altitude")
IN_MEMORY = 32 * 2**20  # bytes
"""A variable up to this size is read as a whole: that takes the time of a few reads of single fields."""

KILOMETRES = {"m": 1e-3, "metre": 1e-3, "metres": 1e-3, "meter": 1e-3, "meters": 1e-3, "km": 1.0}


class NetcdfAccessor(DataAccessor):
    """A file with the dimensions time, latitude or y, longitude or x, of ERA5 or of any other model.

    Latitude and longitude are one-dimensional, or follow from x and y (m or km): as two-dimensional variables, or by a
    CF grid mapping ``lambert_conformal_conic``. Rows and columns may come in either order; what is given out has row 0
    in the south and column 0 in the west. Times that are missing are gaps, which no window straddles. Values keep the
    file's units, with a warning where those of the parameter (see :mod:`weather_forecast.lam.config`) are others.

    Args:
        path: NetCDF file, or Zarr store (folder or URL); a relative one from here, or below ``data/raw``.
        variables: name in the file by parameter, such as ``{era_t2m_2m: t2m}``. A variable with levels gives the
            parameter's.
        geopotential: variable with the surface's geopotential, or with its height where the units are m; or a number,
            m2 s-2, for a plain; by default the variable that has one of the usual names.
        land_sea_mask: variable with the share of land.
        factors: what to multiply a parameter's variable by to get the parameter's units.

    Raises:
        InputError: the file cannot be read, or lacks a variable or coordinate.
    """

    def __init__(
        self,
        path: Path | str,
        variables: dict[str, str],
        geopotential: str | float | None = None,
        land_sea_mask: str | None = None,
        factors: dict[str, float] | None = None,
    ) -> None:
        if not variables:
            raise InputError("the accessor's 'variables' must name a variable of the file for every parameter")
        parse_all(list(variables))
        if unknown := set(factors or {}) - set(variables):
            raise InputError(f"the accessor's 'factors' name {min(unknown)}, which is not among its 'variables'")
        self.path = locate(path)
        self.variables, self.geopotential, self.land_sea_mask = dict(variables), geopotential, land_sea_mask
        self.factors = dict(factors or {})

    def __getstate__(self) -> dict[str, Any]:
        names = ("path", "variables", "geopotential", "land_sea_mask", "factors")
        return {name: getattr(self, name) for name in names}

    # -- the file and its dimensions

    @cached_property
    def _file(self) -> xr.Dataset:
        file = open_dataset(self.path, "fields")
        for parameter, name in self.variables.items():
            if name not in file:
                there = ", ".join(map(str, file.data_vars))
                raise InputError(f"{self.path} has no variable {name!r} for {parameter}; there are {there}")
        return file

    def _dim(self, what: str, names: Sequence[str]) -> str:
        found = next((name for name in names if name in self._file.dims), None)
        if found is None or found not in self._file.coords:
            raise InputError(
                f"{self.path} has no {what} coordinate {' or '.join(names)}; its dimensions are "
                f"{', '.join(map(str, self._file.dims))}"
            )
        return found

    @cached_property
    def _dims(self) -> tuple[str, str, str]:
        """Names of time, rows and columns."""
        return self._dim("time", TIME), self._dim("row", ROWS), self._dim("column", COLUMNS)

    @cached_property
    def _axes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Coordinates of rows and columns in the file's order; longitudes without a jump."""
        rows, columns = (self._file[dim].values.astype(np.float64) for dim in self._dims[1:])
        if self._dims[2] in LONGITUDES and not _is_monotonic(columns):
            columns = (columns + 180) % 360 - 180
        for dim, axis in zip(self._dims[1:], (rows, columns), strict=True):
            if len(axis) < 2 or not _is_monotonic(axis):
                raise InputError(f"{self.path}: {dim!r} must be monotonic, it is {axis[:3]} ...")
        return rows, columns

    @property
    def _turn(self) -> tuple[slice, slice]:
        """Rows from the south, columns from the west."""
        rows, columns = (slice(None, None, -1 if axis[0] > axis[-1] else 1) for axis in self._axes)
        return rows, columns

    # -- times and names

    @cached_property
    def _times(self) -> NDArray[np.datetime64]:
        times = self._file[self._dims[0]].values
        if times.dtype.kind != "M":
            raise InputError(f"{self.path}: {self._dims[0]!r} holds no dates of the standard calendar: {times[:1]}")
        times = times.astype("datetime64[s]")
        wrong = np.flatnonzero(~(np.diff(times) > np.timedelta64(0)))
        if wrong.size:
            raise InputError(
                f"{self.path}: times must increase, but {times[wrong[0] + 1]} comes after {times[wrong[0]]}"
            )
        return times

    def records(self) -> Records:
        """The file's times."""
        return Records(self._times, np.zeros(len(self._times), np.int64))

    @cached_property
    def _units(self) -> dict[str, str]:
        units = {}
        for parameter, name in self.variables.items():
            expected = Parameter.parse(parameter).units
            found = str(self._file[name].attrs.get("units", expected))
            units[parameter] = expected if parameter in self.factors or same_units(found, expected) else found
            if units[parameter] != expected:
                logger.warning(
                    "%s: %r has units %r, %s has %r: values are kept; accessor argument 'factors' converts them",
                    self.path, name, found, parameter, expected,
                )  # fmt: skip
        return units

    def parameters(self) -> dict[str, str]:
        """Those of ``variables``, with the file's units, or the parameters' where a factor converts them."""
        return self._units

    def get_filepath(self, name: str, record: int) -> Path:
        """The file."""
        return Path(self.path)

    def exists(self, name: str, record: int) -> bool:
        """What is mapped is there at all of the file's times."""
        return name in self.variables

    # -- the grid

    def load_grid_info(self) -> GridInfo:
        """The whole grid.

        Raises:
            InputError: coordinates or the surface's geopotential are missing.
        """
        return self._grid

    @cached_property
    def _grid(self) -> GridInfo:
        row, column = self._dims[1:]
        turn = self._turn
        rows, columns = self._axes[0][turn[0]], self._axes[1][turn[1]]
        mask = None if self.land_sea_mask is None else self._static(self.land_sea_mask)[turn]
        try:
            geopotential = self._surface()[turn]
            if row in LATITUDES:
                return GridInfo.from_axes(rows, columns, geopotential, mask)
            y, x = np.meshgrid(rows * self._kilometres(row), columns * self._kilometres(column), indexing="ij")
            latitude, longitude = self._positions(x, y)
            return GridInfo(latitude, longitude, x, y, geopotential, mask)
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from error

    def _kilometres(self, dim: str) -> float:
        units = str(self._file[dim].attrs.get("units", "m"))
        if units not in KILOMETRES:
            raise InputError(f"{dim!r} has units {units!r}; m or km are expected")
        return KILOMETRES[units]

    def _positions(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Latitude and longitude of a projected grid."""
        names = [next((name for name in kind if name in self._file), None) for kind in (LATITUDES, LONGITUDES)]
        if names[0] is not None and names[1] is not None:
            return tuple(self._static(name)[self._turn] for name in names if name is not None)
        mapping = self._grid_mapping()
        if mapping is None:
            raise InputError("a grid of y and x needs 2-D latitude and longitude, or a CF grid mapping")
        return LambertConformal.from_attributes(mapping.attrs).to_sphere(x * 1000, y * 1000)

    def _grid_mapping(self) -> xr.DataArray | None:
        """The variable that describes the projection, which the first mapped variable that has one names."""
        for variable in self.variables.values():
            array = self._file[variable]
            name = array.attrs.get("grid_mapping", array.encoding.get("grid_mapping"))
            if name in self._file:
                return self._file[name]
        return None

    def _static(self, name: str) -> NDArray[np.float64]:
        """A field (row, column) in the file's order."""
        if name not in self._file:
            raise InputError(f"{self.path} has no variable {name!r}")
        array = self._file[name]
        array = array.isel({dim: 0 for dim in array.dims if dim not in self._dims[1:]})
        if set(array.dims) != set(self._dims[1:]):
            raise InputError(f"{self.path}: {name!r} has dimensions {array.dims}, expected {self._dims[1:]}")
        return array.transpose(*self._dims[1:]).values.astype(np.float64)

    def _surface(self) -> NDArray[np.float64]:
        name = self.geopotential
        if isinstance(name, (int, float)):
            return np.full(tuple(self._file.sizes[dim] for dim in self._dims[1:]), float(name))
        if name is None:
            # one with levels is of the air
            name = next(
                (n for n in GEOPOTENTIALS if n in self._file and not set(LEVELS) & set(self._file[n].dims)), None
            )
        if name is None or name not in self._file:
            raise InputError(
                f"the surface's geopotential is missing, no variable {name or ' or '.join(GEOPOTENTIALS)}; name its "
                "variable in the accessor's 'geopotential', or give a number for a plain"
            )
        return surface_geopotential(self._file[name], self.path, self._dims[1:])

    # -- fields

    def load(self, names: Sequence[str], record: int) -> Field:
        """Fields (lat, lon, parameter) of one time."""
        fields = [self._field(name, record)[self._turn] for name in names]
        return np.stack(fields, axis=-1).astype(np.float32, copy=False)

    def _field(self, name: str, record: int) -> NDArray[np.floating]:
        """A field (row, column) in the file's order."""
        time, row, column = self._dims
        array = self._file[self.variables[name]]
        level = next((dim for dim in LEVELS if dim in array.dims), None)
        place: dict[str, int] = {time: record}
        expected = {time, row, column} | ({level} if level else set())
        if set(array.dims) != expected:
            raise InputError(f"{self.path}: {array.name!r} has dimensions {array.dims}, expected {(time, row, column)}")
        if level is not None:
            levels = self._levels(level)
            wanted = Parameter.parse(name).level
            if wanted not in levels:
                raise InputError(f"{self.path}: {array.name!r} has no level {wanted} for {name}; there are {levels}")
            place[level] = levels.index(wanted)
        try:
            if array.nbytes <= IN_MEMORY:
                array.load()  # and the file keeps it
            values = array.isel(place).transpose(row, column).values
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"{self.path}: {array.name!r} at time {record} cannot be read: {error}") from error
        return values * values.dtype.type(self.factors[name]) if name in self.factors else values

    def _levels(self, dim: str) -> list[float]:
        """Levels as in parameters' names, hPa or m."""
        if dim not in self._file.coords:
            return []
        levels = self._file[dim]
        values: list[float] = (levels.values / (100 if levels.attrs.get("units") == "Pa" else 1)).tolist()
        return values

    def sources(self) -> list[Path]:
        """The file, or the store's own description."""
        path = Path(self.path)
        if not path.is_dir():
            return [path] if path.exists() else []
        return [path / name for name in (".zmetadata", "zarr.json", ".zattrs") if (path / name).exists()]

    @property
    def label(self) -> str:
        """The file's path."""
        return self.path


def _is_monotonic(axis: NDArray[np.float64]) -> bool:
    steps = np.diff(axis)
    return bool((steps > 0).all() or (steps < 0).all())
