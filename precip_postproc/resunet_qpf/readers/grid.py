"""Horizontal grids whose row 0 is the southernmost and whose column 0 is the westernmost.

Longitudes are given out between -180 and 180 degrees, whatever the file has.
"""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from ai4sim.errors import InputError
from ai4sim.projections import LambertConformal

SAME = 0.01  # degrees
"""Points of two grids that are this near are the same."""

TIE = 1e-9  # degrees
EARTH_RADIUS = 6371229.0  # m

Float = NDArray[np.float64]
Cells = NDArray[np.int32]
Window = tuple[slice, slice]
"""Rows and columns, counted from the south-west corner."""

WHOLE: Window = (slice(None), slice(None))


def wrap(longitude: Float) -> Float:
    """Longitudes (...) between -180 and 180 degrees."""
    return (longitude + 180) % 360 - 180


class Grid(ABC):
    """Where the points of a field (y, x) are."""

    shape: tuple[int, int]

    def __getstate__(self) -> dict[str, Any]:
        # what was worked out from the arguments is worked out again, not sent to other processes
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    @property
    @abstractmethod
    def latitude(self) -> Float:
        """(y, x) degrees north."""

    @property
    @abstractmethod
    def longitude(self) -> Float:
        """(y, x) degrees east, from -180 to 180."""

    @abstractmethod
    def cell_of(self, latitude: Float, longitude: Float) -> Cells:
        """The cell in which points lie.

        Args:
            latitude: (...) degrees north.
            longitude: (...) degrees east.

        Returns:
            (...) row times number of columns plus column; -1 outside the grid.
        """

    @abstractmethod
    def crop(self, window: Window) -> "Grid":
        """A part of the grid."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of all that says where the points are."""

    @property
    def corner(self) -> tuple[float, float]:
        """Latitude and longitude of the south-west point, degrees."""
        return float(self.latitude[0, 0]), float(self.longitude[0, 0])

    @property
    def cell_extent(self) -> tuple[float, float]:
        """Largest extent of a cell in latitude and in longitude, degrees."""
        north, east = (
            sum(float(np.abs(wrap(np.diff(values, axis=axis))).max(initial=0)) for axis in (0, 1))
            for values in (self.latitude, self.longitude)
        )
        return north, east

    def _cells(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Cells:
        n_rows, n_columns = self.shape
        inside = (rows >= 0) & (rows < n_rows) & (columns >= 0) & (columns < n_columns)
        return np.where(inside, rows * n_columns + columns, -1).astype(np.int32)


@dataclass(frozen=True, eq=False)
class LatLonGrid(Grid):
    """A grid of latitudes and longitudes.

    Args:
        latitudes: (y,) degrees north, increasing.
        longitudes: (x,) degrees east, increasing without a jump, also across the date line.

    Raises:
        InputError: an axis of fewer than two points, or one that does not increase.
    """

    latitudes: Float
    longitudes: Float

    def __post_init__(self) -> None:
        for name, axis in (("latitudes", self.latitudes), ("longitudes", self.longitudes)):
            if axis.ndim != 1 or len(axis) < 2 or not (np.diff(axis) > 0).all():
                raise InputError(f"{name} must be two or more that increase, they are {axis.ravel()[:3]} ...")
        turns = np.floor((self.longitudes[0] + 180) / 360)
        object.__setattr__(self, "longitudes", self.longitudes - 360 * turns)
        object.__setattr__(self, "shape", (len(self.latitudes), len(self.longitudes)))

    @property
    def latitude(self) -> Float:
        """(y, x) degrees north."""
        return np.broadcast_to(self.latitudes[:, None], self.shape)

    @property
    def longitude(self) -> Float:
        """(y, x) degrees east, from -180 to 180."""
        return np.broadcast_to(wrap(self.longitudes), self.shape)

    @cached_property
    def _edges(self) -> tuple[Float, Float]:
        # points on an edge belong to the cell north or east of it, whatever the last digit says
        rows, columns = (_edges(axis) - TIE for axis in (self.latitudes, self.longitudes))
        return rows, columns

    def cell_of(self, latitude: Float, longitude: Float) -> Cells:
        """The cell in which points lie; its edges are half-way between neighbours."""
        south, west = self._edges
        turned = west[0] + (longitude - west[0]) % 360
        rows = np.searchsorted(south, latitude, side="right") - 1
        columns = np.searchsorted(west, turned, side="right") - 1
        return self._cells(rows, columns)

    def crop(self, window: Window) -> "LatLonGrid":
        """A part of the grid."""
        return LatLonGrid(self.latitudes[window[0]], self.longitudes[window[1]])

    def window(self, other: Grid, margin: float = 0.25) -> Window:
        """Rows and columns that cover another grid.

        Args:
            other: the grid to cover.
            margin: degrees to add on all sides.

        Raises:
            InputError: the two do not overlap.
        """
        latitude, longitude = other.latitude, other.longitude
        middle = self.longitudes.mean()
        turned = middle + wrap(longitude - middle)
        slices = []
        for axis, values in ((self.latitudes, latitude), (self.longitudes, turned)):
            first, last = np.searchsorted(axis, [values.min() - margin, values.max() + margin])
            slices.append(slice(int(first), int(last)))
        if any(part.stop - part.start < 2 for part in slices):
            raise InputError(
                f"the grid from {self.corner} to ({self.latitudes[-1]:g}, {self.longitudes[-1]:g}) does not cover the "
                f"one whose first corner is {other.corner}"
            )
        return slices[0], slices[1]

    @property
    def fingerprint(self) -> str:
        """Hash of the axes, to 1e-6 degrees."""
        return _hash("latitude longitude", self.latitudes, self.longitudes)


@dataclass(frozen=True, eq=False)
class LambertGrid(Grid):
    """A grid that is regular in the plane of a Lambert projection.

    Args:
        projection: of the sphere.
        origin: x and y of the south-west point, m.
        spacing: of columns and of rows, m.
        shape: rows and columns.
    """

    projection: LambertConformal
    origin: tuple[float, float]
    spacing: tuple[float, float]
    shape: tuple[int, int]

    @property
    def x(self) -> Float:
        """(x,) distance to the east of the projection's origin, m."""
        return self.origin[0] + self.spacing[0] * np.arange(self.shape[1], dtype=np.float64)

    @property
    def y(self) -> Float:
        """(y,) distance to the north of the projection's origin, m."""
        return self.origin[1] + self.spacing[1] * np.arange(self.shape[0], dtype=np.float64)

    @cached_property
    def _points(self) -> tuple[Float, Float]:
        return self.projection.to_sphere(*np.meshgrid(self.x, self.y))

    @property
    def latitude(self) -> Float:
        """(y, x) degrees north."""
        return self._points[0]

    @property
    def longitude(self) -> Float:
        """(y, x) degrees east, from -180 to 180."""
        return self._points[1]

    def cell_of(self, latitude: Float, longitude: Float) -> Cells:
        """The cell in which points lie, in the plane of the projection."""
        # at the poles the map ends: at one in a point, at the other nowhere
        x, y = self.projection.to_plane(np.clip(latitude, -89.99, 89.99), longitude)
        columns = np.floor((x - self.origin[0]) / self.spacing[0] + 0.5).astype(np.int64)
        rows = np.floor((y - self.origin[1]) / self.spacing[1] + 0.5).astype(np.int64)
        return self._cells(rows, columns)

    def crop(self, window: Window) -> "LambertGrid":
        """A part of the grid."""
        x, y = self.x[window[1]], self.y[window[0]]
        return LambertGrid(self.projection, (float(x[0]), float(y[0])), self.spacing, (len(y), len(x)))

    @property
    def fingerprint(self) -> str:
        """Hash of projection, origin and spacing (to a micrometre) and shape."""
        cone = self.projection
        numbers = (cone.latitude, cone.longitude, *sorted(cone.parallels), cone.radius, *self.origin, *self.spacing)
        return _hash(f"lambert {self.shape}", np.array(numbers))


@dataclass(frozen=True, eq=False)
class CurvilinearGrid(Grid):
    """A grid that is known by its points alone.

    Args:
        latitudes: (y, x) degrees north; row 0 is the southernmost.
        longitudes: (y, x) degrees east.

    Raises:
        InputError: the two differ in shape, or a value is not finite.
    """

    latitudes: Float
    longitudes: Float

    def __post_init__(self) -> None:
        shape = self.latitudes.shape
        if len(shape) != 2 or min(shape) < 2 or shape != self.longitudes.shape:
            raise InputError(f"latitude of shape {shape} and longitude of shape {self.longitudes.shape} are no grid")
        if not (np.isfinite(self.latitudes).all() and np.isfinite(self.longitudes).all()):
            raise InputError("latitude or longitude has values that are missing or infinite")
        object.__setattr__(self, "longitudes", wrap(self.longitudes))
        object.__setattr__(self, "shape", shape)

    @property
    def latitude(self) -> Float:
        """(y, x) degrees north."""
        return self.latitudes

    @property
    def longitude(self) -> Float:
        """(y, x) degrees east, from -180 to 180."""
        return self.longitudes

    @cached_property
    def _tree(self) -> tuple[KDTree, Cells, float]:
        """Points on the unit sphere and a ring of points around them; their cells; how far off a cell may reach."""
        points = _on_sphere(self.latitudes, self.longitudes)
        reach = sum(float(np.linalg.norm(np.diff(points, axis=axis), axis=-1).max()) for axis in (0, 1))
        for axis in (0, 1):
            first, second, second_last, last = (np.take(points, [i], axis=axis) for i in (0, 1, -2, -1))
            points = np.concatenate([2 * first - second, points, 2 * last - second_last], axis=axis)
        cells = np.full(points.shape[:2], -1, np.int32)
        cells[1:-1, 1:-1] = np.arange(self.latitudes.size, dtype=np.int32).reshape(self.shape)
        # the last entry is for points that have no neighbour within reach
        return KDTree(points.reshape(-1, 3)), np.append(cells, np.int32(-1)), reach

    def cell_of(self, latitude: Float, longitude: Float) -> Cells:
        """The cell of the nearest point; outside is what is nearer to where the grid would go on."""
        tree, cells, reach = self._tree
        _, nearest = tree.query(_on_sphere(latitude, longitude), distance_upper_bound=reach)
        found: Cells = cells[nearest]
        return found

    def crop(self, window: Window) -> "CurvilinearGrid":
        """A part of the grid."""
        return CurvilinearGrid(self.latitudes[window], self.longitudes[window])

    @property
    def fingerprint(self) -> str:
        """Hash of the points, to 1e-6 degrees."""
        return _hash("curvilinear", self.latitudes, self.longitudes)


def require_same_grid(one: Grid, other: Grid, names: tuple[str, str], tolerance: float = SAME) -> None:
    """Refuse two grids that differ.

    Args:
        one: a grid.
        other: the grid to compare it with.
        names: what the two are of, for the message.
        tolerance: by how much latitudes and longitudes may differ, degrees.

    Raises:
        InputError: names both shapes and first corners, and by how much the points differ.
    """
    if one.shape == other.shape:
        offsets = np.abs(one.latitude - other.latitude).max(), np.abs(wrap(one.longitude - other.longitude)).max()
        if max(offsets) <= tolerance:
            return
        how = f"their points differ by up to {max(offsets):.3g} degrees, more than {tolerance:g}"
    else:
        how = "their shapes differ"

    def describe(grid: Grid) -> str:
        return "shape {} and first corner {:.4f} N, {:.4f} E".format(grid.shape, *grid.corner)

    raise InputError(
        f"the grid of {names[0]} has {describe(one)}, that of {names[1]} has {describe(other)}: {how}; "
        "remap one to the other, or give files of one grid"
    )


def distances(grid: Grid) -> tuple[float | Float, float | Float]:
    """Distance of the columns and of the rows, m: that of the map where there is one, else (y, x) on the sphere.

    At a point it is the mean of the distances to its two neighbours, at the edges that to the only one.
    """
    if isinstance(grid, LambertGrid):
        return grid.spacing
    points = _on_sphere(grid.latitude, grid.longitude)
    found = []
    for axis in (1, 0):
        steps = EARTH_RADIUS * np.linalg.norm(np.diff(points, axis=axis), axis=-1)
        first, last = np.take(steps, [0], axis=axis), np.take(steps, [-1], axis=axis)
        before, after = np.concatenate([first, steps], axis=axis), np.concatenate([steps, last], axis=axis)
        found.append((before + after) / 2)
    return found[0], found[1]


def _edges(axis: Float) -> Float:
    middles = (axis[1:] + axis[:-1]) / 2
    return np.concatenate([[1.5 * axis[0] - 0.5 * axis[1]], middles, [1.5 * axis[-1] - 0.5 * axis[-2]]])


def _on_sphere(latitude: Float, longitude: Float) -> Float:
    phi, lam = np.radians(latitude), np.radians(longitude)
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)


def _hash(kind: str, *arrays: Float) -> str:
    digest = hashlib.sha256(kind.encode())
    for values in arrays:
        digest.update(str(values.shape).encode())
        digest.update(np.round(values * 1e6).astype(np.int64).tobytes())
    return digest.hexdigest()
