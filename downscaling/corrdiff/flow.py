"""What two components of the wind say together: divergence and vorticity."""

from typing import Final

import numpy as np
import xarray as xr

DIVERGENCE: Final = "divergence"
VORTICITY: Final = "vorticity"
KINETIC_ENERGY: Final = "kinetic_energy"


def divergence_and_vorticity(u: xr.DataArray, v: xr.DataArray, spacing_km: float, *, northward: bool) -> xr.Dataset:
    """Divergence and the vertical component of vorticity, by central differences along the axes of the grid.

    Components are taken as those along the grid's axes: of wind to the east and the north on a projected grid that is
    turned by a small angle, this is an approximation, the same one for all.

    Args:
        u: wind to the east (..., y, x), m s-1.
        v: wind to the north, of the same shape.
        spacing_km: distance of points.
        northward: whether rows go from south to north.

    Returns:
        Both in s-1, without the rows and columns at the border.
    """
    twice = 2.0e3 * spacing_km
    up = twice if northward else -twice

    def along_x(field: xr.DataArray) -> np.ndarray:
        values = field.transpose(..., "y", "x").values.astype(np.float64)
        return (values[..., 1:-1, 2:] - values[..., 1:-1, :-2]) / twice

    def along_y(field: xr.DataArray) -> np.ndarray:
        values = field.transpose(..., "y", "x").values.astype(np.float64)
        return (values[..., 2:, 1:-1] - values[..., :-2, 1:-1]) / up

    inner = u.transpose(..., "y", "x").isel(y=slice(1, -1), x=slice(1, -1))
    fields = {
        DIVERGENCE: along_x(u) + along_y(v),
        VORTICITY: along_x(v) - along_y(u),
    }
    return xr.Dataset(
        {
            name: xr.DataArray(values, inner.coords, inner.dims, attrs={"units": "s-1"})
            for name, values in fields.items()
        }
    )
