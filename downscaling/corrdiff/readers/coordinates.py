"""Where points of fields are: finding latitude and longitude in files, and comparing coarse cells with fine points."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ai4sim.errors import InputError

EARTH_RADIUS_KM = 6371.2
TOLERANCE = 0.5  # coarse cells

LATITUDES = ("latitude", "lat", "lats", "nav_lat", "XLAT", "XLAT_M")
LONGITUDES = ("longitude", "lon", "lons", "nav_lon", "XLONG", "XLONG_M")
_UNITS = {
    "latitude": {"degrees_north", "degree_north", "degree_N", "degrees_N", "degreeN", "degreesN"},
    "longitude": {"degrees_east", "degree_east", "degree_E", "degrees_E", "degreeE", "degreesE"},
}
_AXES = {"latitude": "Y", "longitude": "X"}

Float = NDArray[np.float64]
Flip = tuple[bool, bool]
"""Whether rows, and whether columns, are in the opposite order."""


@dataclass(frozen=True, eq=False)
class Points:
    """Points of a grid.

    Args:
        latitude: (Y, X) degrees north.
        longitude: (Y, X) degrees east.
        dims: names of rows and columns.
        names: of latitude and longitude.
    """

    latitude: Float
    longitude: Float
    dims: tuple[str, str]
    names: tuple[str, str]


def find_points(
    dataset: xr.Dataset, source: str, *, latitude: str | None = None, longitude: str | None = None, dims: Sequence[str]
) -> Points | None:
    """Points of the fields of a file, by CF attributes or the usual names.

    Args:
        dataset: the file.
        source: its path, for messages.
        latitude: name of the variable, (Y), (Y, X) or (time, Y, X); guessed by default.
        longitude: likewise.
        dims: dimensions of the fields; points have no others. Staggered grids of a file are told apart by them.

    Returns:
        The points; None where the file has none and no names are given.

    Raises:
        InputError: a variable that is named is missing, or the two do not go together.
    """
    found = []
    for what, name, usual in (("latitude", latitude, LATITUDES), ("longitude", longitude, LONGITUDES)):
        if name is None:
            name = _guess(dataset, what, usual, dims)
        elif name not in dataset.variables:
            held = ", ".join(map(str, dataset.variables))
            raise InputError(f"{source} has no {what} {name!r}; it has {held}")
        found.append(name)
    if found[0] is None or found[1] is None:
        if latitude or longitude:
            raise InputError(f"{source}: only one of latitude and longitude is there: {found}; name both")
        return None
    names = found[0], found[1]
    lat, lon = (_still(dataset[name]) for name in names)
    if lat.ndim == 1 and lon.ndim == 1 and lat.dims != lon.dims:
        mesh = np.meshgrid(lat.values.astype(np.float64), lon.values.astype(np.float64), indexing="ij")
        rows, columns = str(lat.dims[0]), str(lon.dims[0])
        points = Points(mesh[0], mesh[1], (rows, columns), names)
    elif lat.ndim == 2 and lat.dims == lon.dims:
        rows, columns = str(lat.dims[0]), str(lat.dims[1])
        points = Points(lat.values.astype(np.float64), lon.values.astype(np.float64), (rows, columns), names)
    else:
        raise InputError(
            f"{source}: {names[0]!r} has dimensions {lat.dims}, {names[1]!r} has {lon.dims}; expected one dimension "
            "each, or the same two"
        )
    if not (np.isfinite(points.latitude).all() and np.isfinite(points.longitude).all()):
        raise InputError(f"{source}: {names[0]!r} or {names[1]!r} has values that are missing or infinite")
    return points


def _still(array: xr.DataArray) -> xr.DataArray:
    """The first of coordinates that are repeated for every time."""
    return array[0] if array.ndim == 3 else array


def _guess(dataset: xr.Dataset, what: str, names: Sequence[str], dims: Sequence[str]) -> str | None:
    """The variable of latitudes or longitudes: CF's standard name counts before units and axis, these before names."""
    rules: tuple[Callable[[str, xr.DataArray], bool], ...] = (
        lambda _, array: array.attrs.get("standard_name") == what,
        lambda _, array: array.attrs.get("units") in _UNITS[what],
        lambda _, array: array.attrs.get("axis") == _AXES[what] and "degree" in str(array.attrs.get("units", "")),
        lambda name, _: name in names,
    )
    fitting = {
        str(name): dataset[name]
        for name, variable in dataset.variables.items()
        if 1 <= variable.ndim <= 3 and set(variable.dims[-2:]) <= set(dims)
    }
    for rule in rules:
        chosen = [name for name, array in fitting.items() if rule(name, array)]
        if chosen:
            # of several, such as those of the grid and of its staggered twin, the one with a usual name
            return next((name for name in names if name in chosen), chosen[0])
    return None


def require_factor(coarse: tuple[int, int], fine: tuple[int, int], what: str) -> int:
    """How many fine points go along a coarse cell.

    Args:
        coarse: rows and columns.
        fine: rows and columns.
        what: they are of, for messages.

    Raises:
        InputError: no whole number, or another one along rows than along columns.
    """
    factors = [size / cells for size, cells in zip(fine, coarse, strict=True)]
    if factors[0] != factors[1] or factors[0] != int(factors[0]) or factors[0] < 1:
        raise InputError(
            f"{what}: {fine[0]} x {fine[1]} fine points on {coarse[0]} x {coarse[1]} coarse cells (y, x) are "
            f"{factors[0]:g} and {factors[1]:g} along a cell; expected the same whole number"
        )
    return int(factors[0])


def block_mean(fields: NDArray[np.floating], factor: int) -> NDArray[np.floating]:
    """Means (..., Y / factor, X / factor) of fields (..., Y, X); NaN where any value of a cell is missing."""
    *other, rows, columns = fields.shape
    blocks = fields.reshape(*other, rows // factor, factor, columns // factor, factor)
    return np.asarray(blocks.mean(axis=(-3, -1)))


def on_sphere(latitude: NDArray[np.floating], longitude: NDArray[np.floating]) -> Float:
    """Points (..., 3) on the unit sphere."""
    lat, lon = np.radians(latitude, dtype=np.float64), np.radians(longitude, dtype=np.float64)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def spacing_km(latitude: NDArray[np.floating], longitude: NDArray[np.floating]) -> float:
    """Median distance of neighbouring points (Y, X), km; NaN where there are none."""
    points = on_sphere(latitude, longitude)
    steps = [np.linalg.norm(np.diff(points, axis=axis), axis=-1).ravel() for axis in (0, 1)]
    together = np.concatenate(steps)
    return float(np.median(together) * EARTH_RADIUS_KM) if len(together) else float("nan")


def cell_centres(latitude: NDArray[np.floating], longitude: NDArray[np.floating], factor: int) -> tuple[Float, Float]:
    """Centres of cells of ``factor`` x ``factor`` points.

    Args:
        latitude: (Y, X) degrees north.
        longitude: (Y, X) degrees east.
        factor: points along a cell.

    Returns:
        Latitude and longitude (Y / factor, X / factor), longitude from -180 to 180.
    """
    points = on_sphere(latitude, longitude)
    centres = block_mean(np.moveaxis(points, -1, 0), factor)
    x, y, z = centres / np.linalg.norm(centres, axis=0)
    return np.degrees(np.arcsin(np.clip(z, -1, 1))), np.degrees(np.arctan2(y, x))


def match_cells(coarse: Points, fine: Points, factor: int, names: tuple[str, str]) -> Flip:
    """See that coarse cells are where their fine points are, perhaps in another order.

    Args:
        coarse: centres of the cells (h, w).
        fine: points (factor h, factor w).
        factor: points along a cell.
        names: what the two are of, for messages.

    Returns:
        Which axes of the coarse fields are to be turned around.

    Raises:
        InputError: in no order are all cells nearer than half a cell; says how far they are off.
    """
    if min(coarse.latitude.shape) < 2:
        return False, False
    expected = on_sphere(*cell_centres(fine.latitude, fine.longitude, factor))
    found = on_sphere(coarse.latitude, coarse.longitude)
    offsets = {}
    for flip in ((False, False), (True, False), (False, True), (True, True)):
        offsets[flip] = _offsets(found[_turn(flip)], expected)
    best = min(offsets, key=lambda flip: float(np.abs(offsets[flip]).max()))
    worst = float(np.abs(offsets[best]).max())
    if worst <= TOLERANCE:
        return best
    rows, columns = np.median(offsets[best].reshape(-1, 2), axis=0)
    size = spacing_km(coarse.latitude, coarse.longitude)
    raise InputError(
        f"the coarse cells of {names[0]} do not cover the fine points of {names[1]}: these are shifted by {rows:.2f} "
        f"rows and {columns:.2f} columns of cells of {size:.3g} km (median), up to {worst:.2f}; expected at most "
        f"{TOLERANCE}. Coarse fields are at {_extent(coarse)}, fine ones at {_extent(fine)}: cut the files alike, or "
        "set regrid"
    )


def _turn(flip: Flip) -> tuple[slice, slice]:
    rows, columns = (slice(None, None, -1 if turned else 1) for turned in flip)
    return rows, columns


def turned(fields: NDArray[np.floating], flip: Flip) -> NDArray[np.floating]:
    """Fields (..., y, x) with axes turned around."""
    return fields[(..., *_turn(flip))]


def _offsets(found: Float, expected: Float) -> Float:
    """How far (h, w, 2) points are from where they should be, in rows and columns of their grid."""
    along = np.stack([np.gradient(found, axis=0), np.gradient(found, axis=1)], axis=-1)  # (h, w, 3, 2)
    # least squares: of the three equations one is about the height above the sphere
    return (np.linalg.pinv(along) @ (expected - found)[..., None])[..., 0]


def _extent(points: Points) -> str:
    lat, lon = points.latitude, points.longitude
    return f"{lat.min():.2f} to {lat.max():.2f} N, {lon.min():.2f} to {lon.max():.2f} E"
