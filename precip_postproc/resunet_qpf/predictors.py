"""Fields that a network sees, by name: the forecast, what is around it, the terrain and coarse predictors.

All are in physical units; :mod:`~precip_postproc.resunet_qpf.features` makes a network's input of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf import config
from precip_postproc.resunet_qpf.readers import Grid, LatLonGrid, Terrain
from precip_postproc.resunet_qpf.readers.terrain import DIFFERENCE, HEIGHT, SLOPES
from precip_postproc.resunet_qpf.smoothing import gaussian_smooth, smooth_known

Field = NDArray[np.float32]

PRECIPITATION: Final = "precipitation"
TERRAIN: Final = {
    "terrain_height": HEIGHT,
    "terrain_difference": DIFFERENCE,
    "slope_x": SLOPES[0],
    "slope_y": SLOPES[1],
}
"""Names here and in terrain files."""

EASTWARD: Final = ("slope_x", "u", "u10")
NORTHWARD: Final = ("slope_y", "v", "v10")
"""Components that change their sign in a mirror."""

WINDS: Final = (("u", "v"), ("u10", "v10"))
"""Components to the east and to the north, before they are turned into the directions of the grid."""


@dataclass(frozen=True)
class Neighbourhoods:
    """How far around a point the forecast is looked at.

    Args:
        smoothed: standard deviations, in grid points, of the Gaussian filters of the amount.
        fractions: those of the filters of where it rains 0.25 mm or more.
    """

    smoothed: list[float] = field(default_factory=lambda: [3.0, 9.0, 24.0])
    fractions: list[float] = field(default_factory=lambda: [6.0, 18.0])

    def __post_init__(self) -> None:
        for name, sigmas in (("smoothed", self.smoothed), ("fractions", self.fractions)):
            if any(sigma <= 0 for sigma in sigmas) or len(set(sigmas)) < len(sigmas):
                raise InputError(f"data.neighbourhoods.{name} must be different positive numbers, not {sigmas}")

    @property
    def smoothed_names(self) -> list[str]:
        """Of the smoothed amounts."""
        return [f"smoothed_{sigma:g}" for sigma in self.smoothed]

    @property
    def fraction_names(self) -> list[str]:
        """Of the smoothed fractions."""
        return [f"fraction_{sigma:g}" for sigma in self.fractions]

    def look_around(self, forecast: Field) -> tuple[Field, Field]:
        """Smoothed amounts (smoothed, y, x), mm, and fractions (fractions, y, x) of a forecast (y, x), mm."""
        wet = (forecast >= config.EDGES[0] - config.GUARD).astype(np.float32)
        unknown = np.isnan(forecast)
        if not unknown.any():
            return gaussian_smooth(forecast, self.smoothed), gaussian_smooth(wet, self.fractions)
        wet[unknown] = np.nan
        return smooth_known(forecast, self.smoothed), smooth_known(wet, self.fractions)


def terrain_fields(terrain: Terrain) -> dict[str, Field]:
    """Static fields (y, x) by name: heights in m, slopes in m m-1."""
    return {name: terrain.fields[theirs] for name, theirs in TERRAIN.items()}


class CoarseToFine:
    """Bilinear interpolation from latitudes and longitudes to a grid; winds turn into the directions of the grid.

    Args:
        source: coarse.
        target: fine; it must lie within the source.
        names: of the fields.

    Raises:
        InputError: the target is not within the source.
    """

    def __init__(self, source: LatLonGrid, target: Grid, names: Sequence[str]) -> None:
        middle = source.longitudes.mean()
        longitude = middle + (target.longitude - middle + 180) % 360 - 180
        lower, weights = [], []
        for name, axis, values in (
            ("latitudes", source.latitudes, target.latitude),
            ("longitudes", source.longitudes, longitude),
        ):
            if values.min() < axis[0] or values.max() > axis[-1]:
                raise InputError(
                    f"coarse predictors cover {name} {axis[0]:g} to {axis[-1]:g}, the forecast needs "
                    f"{values.min():.2f} to {values.max():.2f}"
                )
            places = np.interp(values, axis, np.arange(len(axis)))
            lower.append(np.minimum(places.astype(np.int32), len(axis) - 2))
            weights.append((places - lower[-1]).astype(np.float32))
        self._row, self._column = lower
        self._north, self._east = weights
        self._winds = [(names.index(u), names.index(v)) for u, v in WINDS if u in names and v in names]
        self._turn = grid_direction(target) if self._winds else np.zeros(target.shape, np.float32)

    def __call__(self, fields: Field, part: tuple[slice, slice] = (slice(None), slice(None))) -> Field:
        """Fields (name, y, x), or a part of them, on the fine grid of those on the coarse grid."""
        row, column = self._row[part], self._column[part]
        north, east = self._north[part], self._east[part]
        below, above = (
            (1 - east) * fields[:, line, column] + east * fields[:, line, column + 1] for line in (row, row + 1)
        )
        fine: Field = (1 - north) * below + north * above
        cosine, sine = np.cos(self._turn[part]), np.sin(self._turn[part])
        for u, v in self._winds:
            eastward, northward = fine[u].copy(), fine[v].copy()
            fine[u], fine[v] = cosine * eastward + sine * northward, cosine * northward - sine * eastward
        return fine


def grid_direction(grid: Grid) -> Field:
    """Direction of the grid's rows (y, x), radians anticlockwise from the east."""
    latitude = np.radians(grid.latitude)
    longitude = np.unwrap(np.radians(grid.longitude), axis=1)
    east = np.gradient(longitude, axis=1) * np.cos(latitude)
    return np.arctan2(np.gradient(latitude, axis=1), east).astype(np.float32)


def channel_names(neighbourhoods: Neighbourhoods, coarse: Sequence[str]) -> list[str]:
    """Names of all fields in the order in which they are given to a model."""
    around = [*neighbourhoods.smoothed_names, *neighbourhoods.fraction_names]
    return [PRECIPITATION, *around, *TERRAIN, *coarse]
