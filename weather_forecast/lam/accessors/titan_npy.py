"""TITAN's tree of one npy file per field and time, that of the demo included."""

import json
import logging
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ai4sim.datasets import open_dataset
from ai4sim.errors import InputError
from weather_forecast.lam.accessors.base import DataAccessor, Field, GridInfo, Records
from weather_forecast.lam.accessors.files import (
    locate,
    read_array,
    require_shape,
    surface_geopotential,
)
from weather_forecast.lam.accessors.orientation import require_same_orientation
from weather_forecast.lam.parameters import Parameter

logger = logging.getLogger(__name__)

GRIDS = {
    "PAAROME_1S40": (37.5, -12.0, 0.025, (717, 1121)),
    "PAAROME_1S100": (37.5, -12.0, 0.01, (1791, 2801)),
    "PA_01D": (20.0, -32.0, 0.1, (521, 741)),
    "ANTJP7CLIM_1S100": (41.0, -6.0, 0.01, (1051, 1651)),
}
"""TITAN's grids: southernmost latitude, westernmost longitude and step, degrees; rows and columns."""

STATICS = ("latitude", "longitude", "geopotential_at_surface")
_TIME = re.compile(r"(\d{4}-\d{2}-\d{2})_(\d{2})h(\d{2})")
_CROP = re.compile(r".*_(\d+)-(\d+)-(\d+)-(\d+)")
TEMPERATURE = "aro_t2m_2m"


class TitanNpyAccessor(DataAccessor):
    """A folder ``subdatasets/<name>_<grid>_<r0>-<r1>-<c0>-<c1>`` with ``data/<YYYY-MM-DD_HHhMM>/<parameter>.npy``.

    Every file is one field (lat, lon), float32, in the units of :mod:`weather_forecast.lam.config`, row 0 in the south.
    Nothing in a file says so: fields whose rows run the other way round than the static fields are found by
    :func:`~weather_forecast.lam.accessors.orientation.require_same_orientation`, where ``aro_t2m_2m``, a land-sea mask
    (or the sea at geopotential 0) and the coast's shape allow it. A static latitude that decreases is always refused.

    TITAN keeps its static fields in a GRIB file. They are read from ``static/*.npy``, or from ``statics``: latitude and
    longitude (of the rows and columns, or of all points), ``geopotential_at_surface`` (m2 s-2; in a NetCDF file or
    Zarr store with units "m" a height) and, if known, ``land_sea_mask``. Latitude and longitude may be left out where
    the folder's name has one of TITAN's grids. Static fields of the whole grid are cropped as the name says.

    Args:
        path: the folder that has ``data`` in it; a relative one from here, or below ``data/raw``.
        statics: a NetCDF file, a Zarr store, or a folder of npy files, in place of ``static``.
        geopotential: of a plain, m2 s-2, where no file has the surface's.

    Raises:
        InputError: there is no such folder, a folder of a time has another name, or static fields are missing.
    """

    def __init__(self, path: Path | str, statics: Path | str | None = None, geopotential: float | None = None) -> None:
        self.path = Path(locate(path))
        self.statics = None if statics is None else locate(statics)
        self.geopotential = geopotential

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "statics": self.statics, "geopotential": self.geopotential}

    # -- times and names

    @cached_property
    def _times(self) -> NDArray[np.datetime64]:
        data = self.path / "data"
        if not data.is_dir():
            raise InputError(
                f"{data} is not there: TITAN's tree has one folder per time in it, such as 2023-01-31_06h00"
            )
        # sorted names are sorted times
        names = sorted(entry.name for entry in data.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        if not names:
            raise InputError(f"{data} has no folder of a time, such as 2023-01-31_06h00")
        return np.array([self._time(name) for name in names], dtype="datetime64[s]")

    def _time(self, name: str) -> np.datetime64:
        match = _TIME.fullmatch(name)
        try:
            if match is None:
                raise ValueError
            return np.datetime64(f"{match[1]}T{match[2]}:{match[3]}", "s")
        except ValueError:
            raise InputError(
                f"{self.path / 'data'}: the folder {name!r} is no time such as 2023-01-31_06h00; rename or remove it"
            ) from None

    def _folder(self, record: int) -> Path:
        name = np.datetime_as_string(self._times[record], "m").replace("T", "_").replace(":", "h")
        return self.path / "data" / name

    @cached_property
    def _files(self) -> list[frozenset[str]]:
        """Names of the parameters that are there at each time: every folder is listed once."""
        return [
            frozenset(path.stem for path in self._folder(record).iterdir() if path.suffix == ".npy")
            for record in range(len(self._times))
        ]

    def records(self) -> Records:
        """The times of the folders' names."""
        return Records(self._times, np.zeros(len(self._times), np.int64))

    @cached_property
    def _parameters(self) -> dict[str, str]:
        known, unknown = {}, []
        for name in sorted(frozenset().union(*self._files)):
            try:
                known[name] = Parameter.parse(name).units
            except InputError:
                unknown.append(name)
        if unknown:
            logger.warning("%s: files that are no known parameters are left out: %s", self.path, ", ".join(unknown))
        return known

    def parameters(self) -> dict[str, str]:
        """Parameters that have a file at any time."""
        return self._parameters

    # -- the grid

    def load_grid_info(self) -> GridInfo:
        """The grid of the static fields, in an equirectangular plane unless the demo says its spacing.

        Raises:
            InputError: a static field is missing, has another shape, or runs the other way round than the data.
        """
        return self._checked_grid

    @cached_property
    def _checked_grid(self) -> GridInfo:
        grid = self._grid
        if TEMPERATURE in self._parameters:
            there = [record for record in range(len(self._times)) if self.exists(TEMPERATURE, record)]
            mask = grid.land_sea_mask
            require_same_orientation(
                lambda i: self.load([TEMPERATURE], there[i])[..., 0],
                self._times[there],
                (grid.geopotential > 0).astype(np.float64) if mask is None else mask,
                fields=f"the fields in {self.path / 'data'}",
                statics=f"the static fields in {self._statics_path}",
            )
        return grid

    @property
    def _statics_path(self) -> Path:
        return self.path / "static" if self.statics is None else Path(self.statics)

    @property
    def _named_crop(self) -> tuple[int, int, int, int] | None:
        """First and last row, first and last column (last ones excluded) in the folder's name."""
        match = _CROP.fullmatch(self.path.name)
        return None if match is None else (int(match[1]), int(match[2]), int(match[3]), int(match[4]))

    @cached_property
    def _grid(self) -> GridInfo:
        fields = self._read_statics()
        named = next((name for name in GRIDS if f"_{name}_" in f"{self.path.name}_"), None)
        if named is not None:
            south, west, step, (rows, columns) = GRIDS[named]
            fields.setdefault("latitude", south + step * np.arange(rows, dtype=np.float64))
            fields.setdefault("longitude", west + step * np.arange(columns, dtype=np.float64))
        missing = [name for name in STATICS if name not in fields]
        if missing == ["geopotential_at_surface"] and self.geopotential is not None:
            missing = []
        if missing:
            raise InputError(
                f"{self._statics_path} has no {', '.join(missing)}. TITAN keeps static fields in a GRIB file, "
                f"conf_*.grib: write them to {self.path / 'static'}/{missing[0]}.npy (row 0 in the south), or name a "
                f"NetCDF file or Zarr store that has them (accessor argument 'statics'); a plain needs only "
                "'geopotential: 0'"
            )
        latitude, longitude = (self._axis(fields[name], axis, name) for axis, name in enumerate(STATICS[:2]))
        shape = (len(latitude), len(longitude))
        geopotential = (
            self._crop(fields["geopotential_at_surface"], shape, "geopotential_at_surface")
            if "geopotential_at_surface" in fields
            else np.full(shape, float(self.geopotential or 0))
        )
        mask = self._crop(fields["land_sea_mask"], shape, "land_sea_mask") if "land_sea_mask" in fields else None
        try:
            return GridInfo.from_axes(latitude, longitude, geopotential, mask, **self._plane)
        except InputError as error:
            raise InputError(f"{self._statics_path}: {error}") from error

    def _read_statics(self) -> dict[str, NDArray[np.float64]]:
        path = self._statics_path
        names = (*STATICS, "land_sea_mask")
        is_store = any((path / name).exists() for name in (".zgroup", ".zmetadata", "zarr.json"))
        if path.is_dir() and not is_store:
            files = {name: path / f"{name}.npy" for name in names}
            return {name: read_array(f, name).astype(np.float64) for name, f in files.items() if f.exists()}
        if self.statics is None:
            return {}
        with open_dataset(self.statics, "static fields") as dataset:
            return self._labelled(dataset, [name for name in names if name in dataset.variables])

    def _labelled(self, dataset: xr.Dataset, names: list[str]) -> dict[str, NDArray[np.float64]]:
        """Static fields of a file that says where its rows are: turned so that the first is in the south."""
        found: dict[str, NDArray[np.float64]] = {}
        for name in names:
            array = dataset[name]
            if array.ndim == 2 and name == "geopotential_at_surface":
                rows, columns = (str(dim) for dim in array.dims)
                found[name] = surface_geopotential(array, str(self.statics), (rows, columns))
            else:
                found[name] = array.values.astype(np.float64)
        latitude = found.get("latitude")
        if latitude is not None and np.ptp(latitude) and np.diff(latitude, axis=0).mean() < 0:
            first = dataset["latitude"].dims[0]
            found = {name: values[::-1] if dataset[name].dims[0] == first else values for name, values in found.items()}
        return found

    def _axis(self, values: NDArray[np.float64], axis: int, name: str) -> NDArray[np.float64]:
        """Latitude of rows, or longitude of columns, cropped."""
        if values.ndim == 2:
            line = values[:, 0] if axis == 0 else values[0]
            if not np.allclose(values, line[:, None] if axis == 0 else line[None, :], atol=1e-4):
                raise InputError(f"{self._statics_path}: {name} is not that of a regular grid")
            values = line
        if values.ndim != 1:
            raise InputError(f"{self._statics_path}: {name} has shape {values.shape}, expected one or two dimensions")
        if self._named_crop is None:
            return values
        first, last = self._named_crop[2 * axis : 2 * axis + 2]
        return values[first:last] if len(values) != last - first and len(values) >= last else values

    def _crop(self, values: NDArray[np.float64], shape: tuple[int, int], name: str) -> NDArray[np.float64]:
        if values.shape != shape and self._named_crop is not None and values.ndim == 2:
            r0, r1, c0, c1 = self._named_crop
            if values.shape[0] >= r1 and values.shape[1] >= c1:
                values = values[r0:r1, c0:c1]
        require_shape(values, shape, self._statics_path, name)
        return values

    @property
    def _plane(self) -> dict[str, float]:
        """Metres between points of the demo's plane, and its Coriolis parameter."""
        try:
            attributes = json.loads((self.path / "demo.json").read_text())
        except (OSError, ValueError):
            return {}
        names = {"spacing": "grid_spacing", "coriolis_parameter": "coriolis_parameter"}
        return {argument: attributes[name] for argument, name in names.items() if name in attributes}

    # -- fields

    def get_filepath(self, name: str, record: int) -> Path:
        """The field's file."""
        return self._folder(record) / f"{name}.npy"

    def exists(self, name: str, record: int) -> bool:
        """Whether the field's file was there when the folder was first listed."""
        return name in self._files[record]

    def load(self, names: Sequence[str], record: int) -> Field:
        """Fields (lat, lon, parameter) of one time."""
        shape = self._grid.shape
        fields = np.empty((*shape, len(names)), np.float32)
        for column, name in enumerate(names):
            path = self.get_filepath(name, record)
            values = read_array(path, name)
            require_shape(values, shape, path, name)
            fields[..., column] = values
        return fields

    def sources(self) -> list[Path]:
        """Static fields and the demo's settings.

        The fields themselves are not among them: their checksums would take longer than the preparation. A time or a
        parameter that is new or gone makes processed data out of date; a file that is replaced does not.
        """
        found = [self.path / "demo.json", self._statics_path]
        if self._statics_path.is_dir():
            found = [found[0], *sorted(self._statics_path.glob("*.npy"))]
        return [path for path in found if path.is_file()]

    @property
    def label(self) -> str:
        """The folder's path."""
        return str(self.path)
