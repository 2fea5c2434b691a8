"""Whether forecasts are physical: balance of wind and geopotential, values that can be; knows nothing of torch."""

import numpy as np
import xarray as xr

from weather_forecast.lam.config import EARTH_RADIUS
from weather_forecast.lam.parameters import Parameter

TROPICS = 3e-5  # s-1: nearer to the equator, |latitude| < 12 degrees, there is no geostrophic balance to speak of


def ageostrophic_wind(
    u: xr.DataArray, v: xr.DataArray, z: xr.DataArray, *, x: xr.DataArray, y: xr.DataArray, coriolis: xr.DataArray
) -> xr.DataArray:
    """Speed of the difference between a wind and the geostrophic one, (u + dz/dy / f, v - dz/dx / f), m s-1.

    Args:
        u: (..., lat, lon) eastward wind, m s-1.
        v: northward wind, m s-1.
        z: geopotential, m2 s-2.
        x: (lat, lon) planar coordinate to the east, km.
        y: (lat, lon) planar coordinate to the north, km.
        coriolis: (lat, lon) parameter f, s-1.

    Returns:
        The shape of `u`, with NaN at the edges, which have no centred differences, and within 12 degrees of the
        equator.
    """
    f = coriolis.where(abs(coriolis) > TROPICS)
    east = v - _slope(z, "lon") / _slope(1000 * x, "lon") / f
    north = u + _slope(z, "lat") / _slope(1000 * y, "lat") / f
    speed: xr.DataArray = (east**2 + north**2) ** 0.5
    return speed.assign_attrs(u.attrs)


def distances(
    latitude: xr.DataArray, longitude: xr.DataArray, x: xr.DataArray, y: xr.DataArray, coriolis: xr.DataArray
) -> tuple[xr.DataArray, xr.DataArray]:
    """Coordinates (lat, lon) whose differences along rows and columns are distances, km.

    Args:
        latitude: (lat, lon) degrees north.
        longitude: (lat, lon) degrees east.
        x: (lat, lon) planar coordinate to the east, km.
        y: (lat, lon) planar coordinate to the north, km.
        coriolis: (lat, lon) parameter f, s-1.

    Returns:
        On a grid of latitudes and longitudes, whose planar coordinates are true on its middle row only, distances on
        the sphere; otherwise the planar coordinates, of a projection or of a plane with a single Coriolis parameter.
    """
    regular = bool((latitude == latitude.isel(lon=0)).all() and (longitude == longitude.isel(lat=0)).all())
    if not regular or float(coriolis.max()) == float(coriolis.min()):
        return x, y
    degree = EARTH_RADIUS * np.pi / 180
    circles = xr.DataArray(np.cos(np.radians(latitude.values)), dims=latitude.dims)
    return degree * (longitude - longitude.mean()) * circles, degree * latitude


def _slope(values: xr.DataArray, dim: str) -> xr.DataArray:
    """Centred differences per two cells, NaN at the edges."""
    return values.shift({dim: -1}) - values.shift({dim: 1})


def out_of_bounds(values: xr.DataArray, name: str) -> xr.DataArray | None:
    """Where a parameter has values that no field of its kind has: 1 there, 0 elsewhere; None if it has no bounds.

    Args:
        values: of any shape, in the parameter's units.
        name: of the parameter.
    """
    field = Parameter.parse(name).field
    if field.lower is None and field.upper is None:
        return None
    outside = xr.zeros_like(values, dtype=bool)
    margin = 1e-3 * float(values.std())  # a rounding error is no violation
    if field.lower is not None:
        outside |= values < field.lower - margin
    if field.upper is not None:
        outside |= values > field.upper + margin
    return outside.astype(np.float64).where(values.notnull()).assign_attrs(units="1")


def balanced_levels(names: list[str]) -> dict[str, tuple[str, str]]:
    """Parameters of zonal and meridional wind by that of the geopotential of the same source and level."""
    levels = {}
    for name in names:
        parameter = Parameter.parse(name)
        winds = tuple(name.replace("_z_", f"_{short}_") for short in ("u", "v"))
        if parameter.short == "z" and set(winds) <= set(names):
            levels[name] = (winds[0], winds[1])
    return levels
