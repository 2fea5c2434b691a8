"""Labelled columns of real forecasts as raw files: ``python -m weather_forecast.gwd.samples IN.nc OUT.h5``.

Two forms of NetCDF are read. *Columns* on hybrid levels: ``t, u, v, dudt_nogw, dvdt_nogw (column, level)``,
``sp``, ``latitude``, ``longitude (column)``, ``a_half``, ``b_half (half_level)``. *Fields* on pressure
levels: the same profiles and ``z (level, latitude, longitude)``, ``sp``, ``orog (latitude, longitude)``.
Levels count from the top in both. The output has the public schema on the levels 1 to launch level, ``lat``, and
``doy`` where the file says its ``valid_time``.
"""

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ai4sim.atomic import atomic_path
from ai4sim.errors import InputError
from ai4sim.schema import Schema, Variable
from weather_forecast.gwd import config
from weather_forecast.gwd.demo import write_raw
from weather_forecast.gwd.levels import VerticalGrid, hydrostatic_weights

Array = NDArray[Any]

LABELS = {"dudt": "dudt_nogw", "dvdt": "dvdt_nogw"}
BANDS = 8


def _schema(name: str, place: tuple[str, ...], profile: tuple[str, ...], *others: Variable) -> Schema:
    return Schema(
        name,
        1,
        (
            *(Variable(v, profile, config.UNITS[v], valid_range=config.VALID_RANGE[v]) for v in config.PROFILES),
            *(Variable(label, profile, config.UNITS[target]) for target, label in LABELS.items()),
            Variable("sp", place, "Pa", valid_range=config.VALID_RANGE["surface_pressure"]),
            *others,
        ),
    )


COLUMNS = _schema(
    "columns on hybrid levels",
    ("column",),
    ("column", "level"),
    Variable("latitude", ("column",), "degrees_north", valid_range=(-90, 90)),
    Variable("longitude", ("column",), "degrees_east"),
    Variable("a_half", ("half_level",), "Pa", dtype="float64"),
    Variable("b_half", ("half_level",), "1", dtype="float64"),
)
FIELDS = _schema(
    "fields on pressure levels",
    ("latitude", "longitude"),
    ("level", "latitude", "longitude"),
    Variable("z", ("level", "latitude", "longitude"), "m2 s-2"),
    Variable("orog", ("latitude", "longitude"), "m"),
    Variable("level", ("level",), "hPa", dtype="int64"),
    Variable("latitude", ("latitude",), "degrees_north", valid_range=(-90, 90)),
    Variable("longitude", ("longitude",), "degrees_east"),
)


@dataclass(frozen=True, eq=False)
class Samples:
    """Labelled columns on the levels 1 to launch level, ordered by longitude.

    Attributes:
        x: (n, 3 L + 2) u, v (m s-1), T (K), surface pressure (Pa), and the geopotential above ground of the
            lowest full level that lies above ground (m2 s-2).
        y: (n, 2 L) dudt, dvdt, m s-2.
        lat: (n,) degrees north.
        lon: (n,) degrees east.
        doy: days since the start of the year; None where the file does not say its ``valid_time``.
        grid: vertical grid from the top to the ground, or of the pressure levels.
        title: of the file they come from.
    """

    x: Array
    y: Array
    lat: Array
    lon: Array
    doy: float | None
    grid: VerticalGrid
    title: str


def read_samples(path: Path) -> Samples:
    """Read labelled columns of either form.

    Raises:
        InputError: missing or damaged file, or a variable that is missing or of other dimensions, units or
            range than the form has; names file and variable.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    try:
        with xr.open_dataset(path, engine="h5netcdf", decode_times=False) as source:
            data = source.load()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: truncated or not NetCDF-4 ({error})") from error
    hybrid = "column" in data.dims
    (COLUMNS if hybrid else FIELDS).check(data, str(path), values=True)
    try:
        grid = _hybrid_grid(data, path.stem) if hybrid else _pressure_grid(data, path.stem)
        launch = grid.launch_level()
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if not hybrid:
        data = data.stack(column=("latitude", "longitude"))
    data = data.sortby("longitude").transpose("column", ...)
    if data.sizes["level"] != grid.n_levels:
        raise InputError(
            f"{path}: variable 't' has {data.sizes['level']} levels, a_half and b_half describe {grid.n_levels}"
        )
    lowest = _lowest_of_hybrid(data, grid) if hybrid else _lowest_of_pressure(data)
    profiles = [data[name].values[:, :launch] for name in config.PROFILES]
    x = np.concatenate([*profiles, data["sp"].values[:, None], lowest[:, None]], axis=1)
    y = np.concatenate([data[LABELS[target]].values[:, :launch] for target in config.TARGETS], axis=1)
    return Samples(
        x=x.astype(np.float32),
        y=y.astype(np.float32),
        lat=data["latitude"].values.astype(np.float32),
        lon=data["longitude"].values.astype(np.float32),
        doy=_day_of_year(data.attrs.get("valid_time"), path),
        grid=grid,
        title=str(data.attrs.get("title", path.name)),
    )


def write_samples(samples: Samples, path: Path, *, bands: int = BANDS) -> None:
    """Write columns as a raw file, one "time" per band of longitudes.

    What shares a time is one block of the bootstrap. Neighbouring columns of one forecast see the same
    winds and are anything but independent; bands of longitude are as near to it as one forecast allows.

    Args:
        samples: ordered by longitude.
        path: HDF5 file to make.
        bands: number of bands, of equally many columns; longitudes are not cut.

    Raises:
        InputError: the columns do not divide into that many bands of whole longitudes, or the file cannot be
            written.
    """
    n = len(samples.x)
    edges = samples.lon.reshape(bands, -1)[:, [0, -1]] if bands > 0 and n % bands == 0 else None
    if edges is None or (edges[1:, 0] <= edges[:-1, 1]).any():
        n_longitudes = np.unique(samples.lon).size
        raise InputError(
            f"{n} columns at {n_longitudes} longitudes do not divide into {bands} bands of whole longitudes"
        )
    auxiliaries = {"lat": samples.lat}
    if samples.doy is not None:
        auxiliaries["doy"] = np.full(n, samples.doy, np.float32)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_raw(
            path,
            samples.x,
            samples.y,
            auxiliaries,
            n_times=bands,
            attributes={"title": samples.title, "blocks": "the time axis counts bands of longitude"},
        )
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def write_grid(grid: VerticalGrid, path: Path) -> None:
    """Write the coefficients of a grid as CSV, the form that :meth:`VerticalGrid.from_csv` reads."""
    with atomic_path(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("a", "b"))
        writer.writerows(zip(grid.a_half.tolist(), grid.b_half.tolist(), strict=True))


def _hybrid_grid(data: xr.Dataset, name: str) -> VerticalGrid:
    return VerticalGrid(name, data["a_half"].values, data["b_half"].values)


def _pressure_grid(data: xr.Dataset, name: str) -> VerticalGrid:
    """Half-levels midway between the levels; the outer ones as far from their level as the inner ones."""
    level = data["level"].values * 100.0  # Pa
    if level.size < 2 or (np.diff(level) <= 0).any():
        raise InputError("variable 'level' must increase: the first is the top")
    half = (level[1:] + level[:-1]) / 2
    half = np.concatenate([[2 * level[0] - half[0]], half, [2 * level[-1] - half[-1]]])
    return VerticalGrid(name, half, np.zeros_like(half))


def _day_of_year(valid_time: str | None, path: Path) -> float | None:
    if valid_time is None:
        return None
    try:
        moment = np.datetime64(valid_time.removesuffix("Z"))
    except ValueError:
        raise InputError(f"{path}: attribute 'valid_time' is {valid_time!r}, expected an ISO 8601 time") from None
    return float((moment - moment.astype("datetime64[Y]")) / np.timedelta64(1, "D"))


def _lowest_of_hybrid(data: xr.Dataset, grid: VerticalGrid) -> Array:
    """Hydrostatic geopotential of level K above ground, (n,) m2 s-2; the file's own is packed coarsely."""
    _, alpha = hydrostatic_weights(grid.half_pressure(data["sp"].values)[:, -2:])
    lowest: Array = config.GAS_CONSTANT * data["t"].values[:, -1] * alpha[:, 0]
    return lowest


def _lowest_of_pressure(data: xr.Dataset) -> Array:
    """Geopotential above ground, (n,) m2 s-2, of the lowest level of less pressure than the surface."""
    above = data["level"].values * 100.0 < data["sp"].values[:, None]
    lowest = np.maximum(above.sum(axis=1) - 1, 0)
    z = np.take_along_axis(data["z"].values, lowest[:, None], axis=1)[:, 0]
    height: Array = z - config.GRAVITY * data["orog"].values
    return height


def main(args: list[str] | None = None) -> None:
    """Convert a file; ``args`` in place of the process's own."""
    parser = argparse.ArgumentParser(prog="python -m weather_forecast.gwd.samples", description=__doc__.split("\n")[0])
    parser.add_argument("input", type=Path, help="NetCDF-4 file of labelled columns or fields")
    parser.add_argument("output", type=Path, help="raw file to make, .h5 or .nc")
    parser.add_argument("--bands", type=int, default=BANDS, help=f"longitude bands that are bootstrap blocks [{BANDS}]")
    parser.add_argument("--grid", type=Path, help="also write the levels' coefficients to this .csv file")
    options = parser.parse_args(args)
    try:
        samples = read_samples(options.input)
        write_samples(samples, options.output, bands=options.bands)
        if options.grid is not None:
            write_grid(samples.grid, options.grid)
    except InputError as error:
        parser.exit(2, f"error: {error}\n")
    n_levels = samples.y.shape[1] // len(config.TARGETS)
    print(f"{len(samples.x)} columns of {n_levels} levels in {options.bands} blocks: {options.output}")


if __name__ == "__main__":
    main()
