"""How any raw data set is read: one contract for all of them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai4sim.errors import InputError
from weather_forecast.lam.config import EARTH_RADIUS, EARTH_ROTATION

Field = NDArray[np.float32]
Times = NDArray[np.datetime64]


@dataclass(frozen=True, eq=False)
class GridInfo:
    """Where the grid's points are; row 0 is the southernmost.

    Args:
        latitude: (lat, lon) degrees north.
        longitude: (lat, lon) degrees east.
        x: (lat, lon) planar coordinate to the east, km.
        y: (lat, lon) planar coordinate to the north, km.
        geopotential: (lat, lon) of the surface, m2 s-2.
        land_sea_mask: (lat, lon) share of land, None where it is not known.
        coriolis_parameter: s-1, where it is the same everywhere; None for the Earth's.
    """

    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    geopotential: NDArray[np.float64]
    land_sea_mask: NDArray[np.float64] | None = None
    coriolis_parameter: float | None = None

    def __post_init__(self) -> None:
        fields = {"longitude": self.longitude, "x": self.x, "y": self.y, "geopotential": self.geopotential}
        if self.land_sea_mask is not None:
            fields["land_sea_mask"] = self.land_sea_mask
        for name, values in fields.items():
            if values.shape != self.latitude.shape:
                raise InputError(f"{name} has shape {values.shape}, but latitude has {self.latitude.shape}")
        if not (np.diff(self.y, axis=0) > 0).all():
            raise InputError("the grid is upside down: row 0 must be the southernmost and y must increase with the row")
        if not (np.diff(self.x, axis=1) > 0).all():
            raise InputError("the grid is mirrored: x must increase with the column")

    @classmethod
    def from_axes(
        cls,
        latitude: NDArray[np.float64],
        longitude: NDArray[np.float64],
        geopotential: NDArray[np.float64],
        land_sea_mask: NDArray[np.float64] | None = None,
        spacing: float | None = None,
        coriolis_parameter: float | None = None,
    ) -> "GridInfo":
        """A regular grid of latitudes and longitudes.

        Args:
            latitude: (lat,) degrees north, from the south.
            longitude: (lon,) degrees east.
            geopotential: (lat, lon) of the surface, m2 s-2.
            land_sea_mask: (lat, lon) share of land.
            spacing: distance of neighbouring points, m, of a plane grid whose coordinates are labels only; by default
                an equirectangular projection of the coordinates.
            coriolis_parameter: s-1, of a plane where it is the same everywhere.
        """
        lat, lon = np.meshgrid(latitude, longitude, indexing="ij")
        if spacing is not None:
            rows, columns = (np.arange(n) * spacing / 1000 for n in (len(latitude), len(longitude)))
            y, x = np.meshgrid(rows, columns, indexing="ij")
        else:
            x = EARTH_RADIUS * np.radians(lon - longitude.mean()) * np.cos(np.radians(latitude.mean()))
            y = EARTH_RADIUS * np.radians(lat - latitude.mean())
        return cls(lat, lon, x, y, geopotential, land_sea_mask, coriolis_parameter)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.latitude.shape[0], self.latitude.shape[1]

    @property
    def coriolis(self) -> NDArray[np.float64]:
        """(lat, lon) Coriolis parameter, s-1."""
        if self.coriolis_parameter is not None:
            return np.full(self.shape, self.coriolis_parameter)
        return 2 * EARTH_ROTATION * np.sin(np.radians(self.latitude))

    @property
    def spacing(self) -> float:
        """Mean distance of neighbouring points, km."""
        return float((np.diff(self.x, axis=1).mean() + np.diff(self.y, axis=0).mean()) / 2)

    def crop(self, rows: slice, columns: slice) -> "GridInfo":
        """A part of the grid."""
        part = (rows, columns)
        mask = None if self.land_sea_mask is None else self.land_sea_mask[part]
        return GridInfo(
            self.latitude[part],
            self.longitude[part],
            self.x[part],
            self.y[part],
            self.geopotential[part],
            mask,
            self.coriolis_parameter,
        )


@dataclass(frozen=True, eq=False)
class Records:
    """The times of a raw data set, one after the other.

    Args:
        times: (record,) validity times.
        sequences: (record,) which forecast or member a time belongs to; time increases within a sequence.
    """

    times: Times
    sequences: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.times)


class DataAccessor(ABC):
    """Reads one raw data set; picklable, so that Dask can send it to workers."""

    @abstractmethod
    def load_grid_info(self) -> GridInfo:
        """The whole grid."""

    @abstractmethod
    def records(self) -> Records:
        """All times that the data set has."""

    @abstractmethod
    def parameters(self) -> dict[str, str]:
        """Names of all parameters, and their units."""

    @abstractmethod
    def get_filepath(self, name: str, record: int) -> Path:
        """File or store that holds a parameter at a time: for messages and checksums."""

    @abstractmethod
    def exists(self, name: str, record: int) -> bool:
        """Whether a parameter is there at a time."""

    @abstractmethod
    def load(self, names: Sequence[str], record: int) -> Field:
        """Fields (lat, lon, parameter) at a time, in the parameters' units.

        Raises:
            InputError: a file cannot be read, or its field has another shape than the grid; names the file.
        """

    @abstractmethod
    def sources(self) -> list[Path]:
        """Files or stores whose change makes the processed data out of date."""

    def settings(self) -> dict[str, Any]:
        """All that decides about the values beside the files themselves, as plain values: what it was made with."""
        state = self.__getstate__() if hasattr(type(self), "__getstate__") else vars(self)
        plain = dict(state) if isinstance(state, dict) else dict(vars(self))
        return {key: str(value) for key, value in plain.items() if key != "path" and not key.startswith("_")}

    def require(self, names: Sequence[str]) -> None:
        """Refuse parameters that the data set does not have.

        Raises:
            InputError: names the first, and the valid ones.
        """
        known = self.parameters()
        for name in names:
            if name not in known:
                raise InputError(f"{self.label} has no parameter {name!r}; valid are {', '.join(known)}")

    @property
    def label(self) -> str:
        """What messages call the data set."""
        return type(self).__name__
