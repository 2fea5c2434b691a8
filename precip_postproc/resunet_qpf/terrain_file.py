"""What a terrain file holds beyond heights, and writing it: the demo's, and that of a model's own orography."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from precip_postproc.resunet_qpf.netcdf_writer import Variable, places, write_netcdf
from precip_postproc.resunet_qpf.readers.grid import Grid

Array = NDArray[Any]
Float = NDArray[np.float32]

REAL_SIGMAS = (15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0)
"""Smoothing lengths of GRAF's terrain file, grid points."""


def slopes(height: Array, dx: float | Array, dy: float | Array) -> tuple[Array, Array]:
    """Slopes (ny, nx) along the rows and along the columns, m/m: central differences, one-sided at the edges.

    Args:
        height: (ny, nx) m.
        dx: distance of the columns, m, everywhere or at every point (ny, nx).
        dy: distance of the rows, m, likewise; negative if row 0 is in the north.
    """
    along_rows: Array = np.gradient(height, axis=1) / dx
    along_columns: Array = np.gradient(height, axis=0) / dy
    return along_rows, along_columns


class Terrain(NamedTuple):
    """What the terrain file holds but for its coordinates, float32, under the file's names.

    Attributes:
        terrain_height: (ny, nx) m.
        terrain_height_smoothed: (ny, nx) m, with the first of ``sigmas``.
        terrain_height_local_difference: (ny, nx) m, raw less smoothed.
        dterrain_dlon: (ny, nx) slope along the rows, m/m.
        dterrain_dlat: (ny, nx) slope along the columns, m/m.
        dterrain_dlon_smoothed: (ny, nx) slope of the smoothed height, m/m.
        dterrain_dlat_smoothed: (ny, nx) likewise.
        dterrain_dlon_difference: (ny, nx) slope of the local difference, m/m.
        dterrain_dlat_difference: (ny, nx) likewise.
        terrain_height_smoothed_multisigma: (nsigma, ny, nx) m.
        sigmas: (nsigma,) standard deviations of the Gaussian filters, grid points.
    """

    terrain_height: Float
    terrain_height_smoothed: Float
    terrain_height_local_difference: Float
    dterrain_dlon: Float
    dterrain_dlat: Float
    dterrain_dlon_smoothed: Float
    dterrain_dlat_smoothed: Float
    dterrain_dlon_difference: Float
    dterrain_dlat_difference: Float
    terrain_height_smoothed_multisigma: Float
    sigmas: Float


def derive_terrain(
    height: Array,
    smoothed: Sequence[Array],
    sigmas: ArrayLike,
    spacing: tuple[float | Array, float | Array],
    crop: Callable[[Array], Array] = lambda field: field,
) -> Terrain:
    """All fields of a terrain file from heights, and the heights smoothed.

    Args:
        height: (y, x) m.
        smoothed: heights (y, x), m, smoothed with each of ``sigmas``; slopes are those of the first.
        sigmas: (nsigma,) standard deviations of the Gaussian filters, grid points.
        spacing: distance of the columns and of the rows, m, everywhere or at every point (y, x).
        crop: takes (ny, nx) of a field (y, x), all by default.
    """

    def cut(field: Array) -> Float:
        return crop(field).astype(np.float32)

    raw_x, raw_y = slopes(height, *spacing)
    smooth_x, smooth_y = slopes(smoothed[0], *spacing)
    return Terrain(
        terrain_height=cut(height),
        terrain_height_smoothed=cut(smoothed[0]),
        terrain_height_local_difference=cut(height - smoothed[0]),
        dterrain_dlon=cut(raw_x),
        dterrain_dlat=cut(raw_y),
        dterrain_dlon_smoothed=cut(smooth_x),
        dterrain_dlat_smoothed=cut(smooth_y),
        dterrain_dlon_difference=cut(raw_x - smooth_x),
        dterrain_dlat_difference=cut(raw_y - smooth_y),
        terrain_height_smoothed_multisigma=np.stack([cut(field) for field in smoothed]),
        sigmas=np.asarray(sigmas, np.float32),
    )


def write_terrain(path: Path, grid: Grid, terrain: Terrain, attributes: Mapping[str, Any]) -> None:
    """Write a terrain file that is whole or not there.

    Args:
        path: the file; its folder is made.
        grid: of the fields.
        terrain: what the file holds.
        attributes: of the file.

    Raises:
        OSError: it cannot be written.
    """
    dims = ("ny", "nx")
    units = {"terrain": "m", "dterrain": "m m-1"}
    fields = terrain._asdict()
    sigmas = fields.pop("sigmas")
    where = places(grid, dims, ("lats", "lons")).items()
    variables = {name: place._replace(values=place.values.astype(np.float32)) for name, place in where} | {
        name: Variable(("nsigma", *dims)[-values.ndim :], values, {"units": units[name.split("_")[0]]})
        for name, values in fields.items()
    }
    variables["sigmas"] = Variable(("nsigma",), sigmas, {"long_name": "smoothing in grid points"})
    write_netcdf(path, variables, attributes)
