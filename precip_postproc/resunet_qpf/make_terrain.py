"""A terrain file from a model's own orography: ``python -m precip_postproc.resunet_qpf.make_terrain SOURCE OUTPUT.nc``.

The source is a GRIB2 file with the height of the surface among its messages, as HRRR's, or a NetCDF file or Zarr store
with a variable of it, on the grid of the forecasts.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape

from ai4sim.datasets import open_dataset
from ai4sim.errors import InputError, MissingFileError
from precip_postproc.resunet_qpf.readers.files import where
from precip_postproc.resunet_qpf.readers.grib import GROUND, Header, Triple, read_headers, read_messages
from precip_postproc.resunet_qpf.readers.grid import Grid, distances
from precip_postproc.resunet_qpf.readers.netcdf import find, find_layout
from precip_postproc.resunet_qpf.readers.terrain import HEIGHT, SCHEMA
from precip_postproc.resunet_qpf.smoothing import gaussian_smooth
from precip_postproc.resunet_qpf.terrain_file import REAL_SIGMAS, Terrain, derive_terrain, write_terrain

Field = NDArray[np.float32]

GRAVITY = 9.80665  # m s-2, by which geopotential is divided

PARAMETERS: dict[Triple, float] = {
    (0, 3, 5): 1.0,  # geopotential height, gpm
    (0, 3, 6): 1.0,  # geometric height, m
    (2, 0, 7): 1.0,  # model terrain height, m
    (0, 3, 4): 1 / GRAVITY,  # geopotential, m2 s-2
}
"""Parameters of GRIB2 that are the height of the surface if they are at it, and what makes metres of them."""

VARIABLES = ("orog", "orography", "HGT_surface", "HGT", "terrain_height", "topography", "topo", "elevation")
_METRES = ("m", "gpm", "metre", "metres", "meter", "meters")
_GEOPOTENTIAL = ("m2 s-2", "m2/s2", "J kg-1", "J/kg")


def read_orography(path: Path, variable: str | None = None) -> tuple[Grid, Field]:
    """Grid and height (y, x), m, of a surface, from the south-west.

    Args:
        path: GRIB2 file, NetCDF file or Zarr store.
        variable: name in a NetCDF file; default: what is called surface_altitude, or by one of the usual names.

    Raises:
        MissingFileError: the file is not there.
        InputError: it has no orography or no grid, or heights are missing or are no metres.
    """
    if not path.exists():
        raise MissingFileError(f"{path} (orography) is not there; give a GRIB2 or NetCDF file, or a Zarr store")
    grid, height = _from_dataset(path, variable) if _is_netcdf(path) else _from_grib(path)
    missing = ~np.isfinite(height)
    if missing.any():
        raise InputError(f"{path}: heights are missing at {where(missing)}; fill them first, the sea with 0")
    low, high = SCHEMA[HEIGHT].valid_range or (-np.inf, np.inf)
    if height.min() < low or height.max() > high:
        raise InputError(
            f"{path}: heights are from {height.min():g} to {height.max():g}, expected {low:g} to {high:g} m: is it the "
            "orography, and in metres?"
        )
    return grid, height


def _is_netcdf(path: Path) -> bool:
    if path.is_dir() or h5py.is_hdf5(path):
        return True
    with path.open("rb") as file:
        return file.read(3) == b"CDF"


def _from_grib(path: Path) -> tuple[Grid, Field]:
    def wanted(header: Header) -> bool:
        return header.parameter in PARAMETERS and header.surface == GROUND

    messages = read_messages(path, wanted)
    if not messages:
        triples = ", ".join("{}/{}/{}".format(*triple) for triple in PARAMETERS)
        raise InputError(
            f"{path} has no orography: of its {len(read_headers(path))} messages none has a parameter of {triples} at "
            "the surface; HRRR's is HGT:surface"
        )
    # a file of several lead times repeats it
    first = messages[0]
    return first.grid, first.values * np.float32(PARAMETERS[first.header.parameter])


def _from_dataset(path: Path, variable: str | None) -> tuple[Grid, Field]:
    source = str(path)
    with open_dataset(path, "orography") as dataset:
        names = VARIABLES if variable is None else (variable,)
        standard = [str(n) for n, v in dataset.items() if v.attrs.get("standard_name") == "surface_altitude"]
        name = standard[0] if variable is None and standard else find(dataset, names, "orography", source)
        layout = find_layout(dataset, source)
        height = layout.read(dataset[name])
        scale = _to_metres(dataset[name], source)
    if any(size > 1 for size in height.shape[:-2]):
        raise InputError(f"{source}: {name!r} has dimensions {dataset[name].dims}, expected {layout.dims} alone")
    return layout.grid, height.reshape(layout.grid.shape) * np.float32(scale)


def _to_metres(array: xr.DataArray, source: str) -> float:
    units = str(array.attrs.get("units", "m"))
    if " ".join(units.replace("**", "").replace("^", "").split()) in _GEOPOTENTIAL:
        return 1 / GRAVITY
    if units not in _METRES:
        raise InputError(
            f"{source}: {array.name!r} has units {units!r}, expected 'm' or those of geopotential, 'm2 s-2'"
        )
    return 1.0


def make_terrain(
    source: Path,
    output: Path,
    *,
    sigmas: Sequence[float] = REAL_SIGMAS,
    variable: str | None = None,
    overwrite: bool = False,
) -> Terrain:
    """Write a terrain file of the orography of another one.

    Args:
        source: see :func:`read_orography`.
        output: NetCDF file; whole or not there.
        sigmas: standard deviations, grid points, of the Gaussian filters; the heights' local difference and the slopes
            that networks see are of the first.
        variable: name in the source, if it is NetCDF.
        overwrite: replace an output that is there.

    Returns:
        What was written.

    Raises:
        InputError: as for :func:`read_orography`; the output is there, has another suffix or cannot be written; a
            standard deviation is not positive.
    """
    if output.suffix != ".nc":
        raise InputError(f"{output} would be NetCDF: give it the suffix .nc")
    if output.exists() and not overwrite:
        raise InputError(f"{output} exists already: remove it, name another output or give --overwrite")
    wrong = [sigma for sigma in sigmas if not 0 < sigma < np.inf]
    if wrong or not sigmas:
        raise InputError(f"sigma is {wrong[0] if wrong else 'missing'}: expected positive numbers of grid points")
    grid, height = read_orography(source, variable)
    terrain = derive_terrain(height, list(gaussian_smooth(height, sigmas)), sigmas, distances(grid))
    try:
        write_terrain(output, grid, terrain, {"title": "terrain of a forecast's grid", "source": source.name})
    except OSError as error:
        raise InputError(f"cannot write {output}: {error.strerror or error}") from error
    return terrain


def main(words: Sequence[str] | None = None) -> None:
    """Make a terrain file and say what is in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="GRIB2 or NetCDF file with the orography")
    parser.add_argument("output", type=Path, help="NetCDF file to write, for data.terrain")
    parser.add_argument(
        "--sigma",
        nargs="+",
        type=float,
        default=list(REAL_SIGMAS),
        help="smoothing in grid points; slopes are of the first [15 20 25 30 40 50 60]",
    )
    parser.add_argument("--variable", help="name of the orography in a NetCDF file")
    parser.add_argument("--overwrite", action="store_true", help="replace an output that is there")
    options = parser.parse_args(words)
    try:
        terrain = make_terrain(
            options.source,
            options.output,
            sigmas=options.sigma,
            variable=options.variable,
            overwrite=options.overwrite,
        )
    except InputError as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        raise SystemExit(2) from error
    rows, columns = terrain.terrain_height.shape
    steepest = max(
        float(np.abs(slope).max()) for slope in (terrain.dterrain_dlon_smoothed, terrain.dterrain_dlat_smoothed)
    )
    Console(soft_wrap=True, highlight=False).print(
        f"terrain: {escape(str(options.output))} ({rows} x {columns} points, {terrain.terrain_height.min():.0f} to "
        f"{terrain.terrain_height.max():.0f} m; smoothed, slopes of up to {steepest:.3f} m/m)"
    )


if __name__ == "__main__":
    main()
