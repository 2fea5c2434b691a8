"""TITAN's Zarr stores, those of the demo included."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ai4sim.errors import InputError
from weather_forecast.lam import config
from weather_forecast.lam.accessors.base import DataAccessor, Field, GridInfo, Records
from weather_forecast.lam.accessors.files import locate, same_units
from weather_forecast.lam.parameters import Parameter

F = TypeVar("F", np.float32, np.float64)

DIMS = ("time", "latitude", "longitude")


class ZarrAccessor(DataAccessor):
    """A store with dimensions (time, latitude, longitude[, level]) and TITAN's names of variables.

    Fields of the host are those with ``host_`` before the name. The store's rows may come in either order of latitude;
    all that is given out has row 0 in the south.

    Args:
        path: folder or URL of the store, Zarr format 2 or 3; a relative one is looked for here and below ``data/raw``.

    Raises:
        InputError: it cannot be opened, or lacks a coordinate.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = locate(path)

    def __getstate__(self) -> dict[str, str]:
        return {"path": self.path}

    @cached_property
    def _store(self) -> xr.Dataset:
        try:
            store = xr.open_zarr(self.path, chunks=None)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{self.path} is no Zarr store that can be read: {error}") from error
        for name in DIMS:
            if name not in store.coords:
                known = ", ".join(map(str, store.coords))
                raise InputError(f"{self.path}: the coordinate {name!r} is missing; there are {known}")
        return store

    @cached_property
    def _upside_down(self) -> bool:
        latitude = self._store["latitude"].values
        steps = np.diff(latitude)
        if not ((steps > 0).all() or (steps < 0).all()):
            raise InputError(f"{self.path}: latitude must be monotonic, it is {latitude[:3]} ...")
        return bool(steps[0] < 0)

    def _south_first(self, values: NDArray[F]) -> NDArray[F]:
        return np.flip(values, axis=0) if self._upside_down else values

    def load_grid_info(self) -> GridInfo:
        """Regular latitudes and longitudes in an equirectangular plane; surface geopotential and land-sea mask."""
        store = self._store
        if "geopotential_at_surface" not in store:
            raise InputError(f"{self.path}: the variable 'geopotential_at_surface' is missing")
        mask = store.get("land_sea_mask")
        return GridInfo.from_axes(
            self._south_first(store["latitude"].values.astype(np.float64)),
            store["longitude"].values.astype(np.float64),
            self._south_first(self._static("geopotential_at_surface")),
            None if mask is None else self._south_first(self._static("land_sea_mask")),
            spacing=store.attrs.get("grid_spacing"),
            coriolis_parameter=store.attrs.get("coriolis_parameter"),
        )

    def _static(self, name: str) -> NDArray[np.float64]:
        array = self._store[name]
        if array.dims != DIMS[1:]:
            raise InputError(f"{self.path}: {name!r} has dimensions {array.dims}, expected {DIMS[1:]}")
        return array.values.astype(np.float64)

    def records(self) -> Records:
        """The store's times."""
        times = self._store["time"].values.astype("datetime64[s]")
        wrong = np.flatnonzero(np.diff(times) <= np.timedelta64(0))
        if wrong.size:
            raise InputError(
                f"{self.path}: times must increase, but {times[wrong[0] + 1]} comes after {times[wrong[0]]}"
            )
        return Records(times, np.zeros(len(times), np.int64))

    def parameters(self) -> dict[str, str]:
        """Parameters of all variables and levels of the store, and their units.

        Raises:
            InputError: a variable has other units than TITAN's, such as a height in place of a geopotential.
        """
        expected = {name: Parameter.parse(name).units for name in self._sources}
        for name, (variable, _) in self._sources.items():
            found = str(self._store[variable].attrs.get("units", expected[name]))
            if not same_units(found, expected[name]):
                raise InputError(
                    f"{self.path}: {variable!r} has units {found!r}, expected {expected[name]!r}; "
                    "convert it, or read the store with NetcdfAccessor and its argument 'factors'"
                )
        return expected

    @cached_property
    def _sources(self) -> dict[str, tuple[str, int | None]]:
        """Variable and index of its level, by parameter."""
        levels = self._store["level"].values.astype(int).tolist() if "level" in self._store else []
        heights = {"t2m": "2m", "r2": "2m", "tp": "0m", "u10": "10m", "v10": "10m"}
        sources: dict[str, tuple[str, int | None]] = {}
        for source, prefix in (("aro", ""), (config.HOST, config.ZARR_HOST_PREFIX)):
            for short, field in config.FIELDS.items():
                variable = prefix + field.zarr
                if not field.zarr or variable not in self._store:
                    continue
                if short in heights:
                    sources[f"{source}_{short}_{heights[short]}"] = (variable, None)
                else:
                    sources |= {f"{source}_{short}_{level}hpa": (variable, i) for i, level in enumerate(levels)}
        return sources

    def get_filepath(self, name: str, record: int) -> Path:
        """The store."""
        return Path(self.path)

    def exists(self, name: str, record: int) -> bool:
        """A parameter that the store has is there at all of its times."""
        return name in self._sources

    def load(self, names: Sequence[str], record: int) -> Field:
        """Fields (lat, lon, parameter) of one time."""
        variables = {self._sources[name][0] for name in names}
        read = {}
        for variable in variables:
            try:
                read[variable] = self._store[variable].isel(time=record).values
            except (OSError, ValueError, RuntimeError) as error:
                raise InputError(f"{self.path}: {variable!r} at time {record} cannot be read: {error}") from error
        columns = []
        for name in names:
            variable, level = self._sources[name]
            values = read[variable]
            columns.append(values if level is None else values[..., level])
        return np.stack([self._south_first(values) for values in columns], axis=-1).astype(np.float32, copy=False)

    def sources(self) -> list[Path]:
        """The store's own description."""
        return [path for name in (".zmetadata", "zarr.json", ".zattrs") if (path := Path(self.path) / name).exists()]

    @property
    def label(self) -> str:
        """The store's path."""
        return self.path
