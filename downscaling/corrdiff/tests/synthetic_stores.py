"""Small files in the schemas of the public data sets, for tests: values say where they are from."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
import pytest
import xarray as xr
import zarr

from ai4sim.projections import LambertConformal
from downscaling.corrdiff.readers.gefs_hrrr import FLAGS, ISOBARIC, SURFACE

HOUR = np.timedelta64(1, "h")
START = np.datetime64("2021-06-01T00", "s")
CWB = ("maximum_radar_reflectivity", "temperature_2m", "eastward_wind_10m", "northward_wind_10m")
ERA5 = (
    ("tcwv", np.nan),
    *((name, level) for level in (500.0, 700.0, 850.0) for name in ("geopotential_height", "temperature")),
    ("temperature_2m", np.nan),
    ("eastward_wind_10m", np.nan),
    ("northward_wind_10m", np.nan),
)


def real_fields() -> Path:
    """Folder of the real fields; the environment variable AI4SIM_SAMPLES names the one above it."""
    default = Path(__file__).resolve().parents[4] / "shared" / "data"
    folder = Path(os.environ.get("AI4SIM_SAMPLES", default)) / "corrdiff"
    if not folder.is_dir():
        pytest.skip(f"real fields are not at {folder}; name their folder in AI4SIM_SAMPLES")
    return folder


def lambert(rows: int, columns: int, spacing: float = 3000.0) -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude (rows, columns) of points in the middle of the United States, row 0 in the south."""
    cone = LambertConformal(38.5, -97.5, (38.5, 38.5), 6371229.0)
    x, y = np.meshgrid(spacing * np.arange(columns), spacing * np.arange(rows))
    return cone.to_sphere(x - 50_000.0, y + 20_000.0)


def numbered(*shape: int) -> np.ndarray:
    """Values that are all different, and exact in single precision."""
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def hrrr_mini_fields(n: int = 6, cells: int = 4, factor: int = 2) -> dict[str, Any]:
    """What `write_hrrr_mini` writes; crops of a grid of 20 x 24 points, three of a time."""
    fine = cells * factor
    lat, lon = lambert(20, 24)
    places = np.arange(n)
    return {
        "time": (np.arange(n) // 3).astype(np.int64),
        "coord": np.stack([places % 5, 2 * places], axis=1).astype(np.int32),
        "input": {name: k * 1000 + numbered(n, cells, cells) for k, name in enumerate(("u850", "10u", "2t"))},
        "output": {name: k * 5000 + numbered(n, fine, fine) for k, name in enumerate(("10u", "10v", "2t", "tp"))},
        "invariant": {
            "lsm_mean": (numbered(20, 24) % 2),
            "elev_mean": numbered(20, 24),
            "latitude": lat.astype(np.float32),
            "longitude": lon.astype(np.float32),
        },
    }


def write_hrrr_mini(path: Path, fields: dict[str, Any]) -> Path:
    """Write a file in the schema of HRRR-Mini, with names of dimensions of its own."""
    with h5netcdf.File(path, "w") as file:
        sizes = {
            "sample": len(fields["time"]),
            "pair": fields["coord"].shape[-1],
        }
        file.dimensions = sizes
        time = file.create_variable("time", ("sample",), data=fields["time"])
        time.attrs["units"] = "hours since 2018-01-01 00:00:00"
        file.create_variable("coord", ("sample", "pair"), data=fields["coord"])
        for group, prefix in (("input", "lr"), ("output", "hr"), ("invariant", "grid")):
            if group not in fields:
                continue
            made = file.create_group(group)
            for name, values in fields[group].items():
                first = () if group == "invariant" else ("sample",)
                # variables of another shape, in tests of faults, need dimensions of their own
                dims = [f"{axis}_{prefix}_{size}" for axis, size in zip("yx", values.shape[-2:], strict=True)]
                for dim, size in zip(dims, values.shape[-2:], strict=True):
                    if dim not in made.dimensions:
                        made.dimensions[dim] = size
                if values.ndim == len(first) + 2 and (not first or len(values) == sizes["sample"]):
                    dims = [*first, *dims]
                variable = made.create_variable(name, tuple(dims), data=values)
                variable.attrs["units"] = "m" if name == "elev_mean" else "m s-1"
    return path


def cwa_fields(n: int = 8, rows: int = 24, columns: int = 26) -> dict[str, np.ndarray]:
    """What `write_cwa` writes."""
    lat, lon = lambert(rows, columns, 2000.0)
    pressures = np.array([level for _, level in ERA5])
    return {
        "cwb": numbered(n, len(CWB), rows, columns),
        "era5": -numbered(n, len(ERA5), rows, columns),
        "cwb_center": np.arange(len(CWB), dtype=np.float32),
        "cwb_scale": np.arange(1, len(CWB) + 1, dtype=np.float32),
        "era5_center": np.arange(len(ERA5), dtype=np.float32),
        "era5_scale": np.arange(1, len(ERA5) + 1, dtype=np.float32),
        "cwb_variable": np.array(CWB),
        "era5_variable": np.array([name for name, _ in ERA5]),
        "cwb_pressure": np.full(len(CWB), np.nan),
        "era5_pressure": pressures,
        "cwb_valid": np.ones(n, np.int8),
        "era5_valid": np.ones((n, len(ERA5)), bool),
        "XLAT": lat.astype(np.float32),
        "XLONG": lon.astype(np.float32),
        "time": np.arange(n, dtype=np.int64),
    }


_CWA_DIMS = {
    "cwb": ("time", "cwb_channel", "south_north", "west_east"),
    "era5": ("time", "era5_channel", "south_north", "west_east"),
    "era5_valid": ("time", "era5_channel"),
    "XLAT": ("south_north", "west_east"),
    "XLONG": ("south_north", "west_east"),
    "time": ("time",),
    "cwb_valid": ("time",),
}


def write_cwa(path: Path, fields: dict[str, np.ndarray], *, consolidated: bool = True) -> Path:
    """Write a store in the schema of the Taiwan data set: Zarr v2."""
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    for name, values in fields.items():
        chunks = (1, *values.shape[1:]) if values.ndim == 4 else values.shape
        array = group.create_array(name, shape=values.shape, dtype=values.dtype, chunks=chunks, fill_value=0)
        array[...] = values
        array.attrs["_ARRAY_DIMENSIONS"] = list(_CWA_DIMS.get(name, (f"{name.split('_')[0]}_channel",)))
        if name == "time" and values.dtype.kind != "M":
            array.attrs.update(units="hours since 2018-01-01 00:00:00", calendar="proleptic_gregorian")
    if consolidated:
        zarr.consolidate_metadata(str(path), zarr_format=2)
    return path


def forecast_keys(n: int = 8, init: str = "2020120206") -> list[str]:
    """Times of a run, with lead times of 0, 3 ... h."""
    return [f"{init}f{3 * k:02d}" for k in range(n)]


def write_forecast_store(
    path: Path,
    channels: Sequence[str],
    keys: Sequence[str],
    points: tuple[np.ndarray, np.ndarray],
    values: np.ndarray | None = None,
) -> Path:
    """Write a store of GEFS or HRRR forecasts.

    Args:
        path: the store.
        channels: their names.
        keys: ``YYYYMMDDHHfLL``.
        points: latitude and longitude (y, x).
        values: (time, channel, y, x); by default affine in latitude and longitude, 1000 times the channel's number
            and 100 times that of the lead time added.
    """
    lat, lon = points
    if values is None:
        labels = np.array([int(key[-2:]) // 3 if key[-2:].isdigit() else 0 for key in keys], np.float64)
        offsets = 100 * labels[:, None] + 1000 * np.arange(len(channels))
        values = offsets[..., None, None] + affine(lat, lon)
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    arrays = {
        "values": (values.astype(np.float32), ("time", "channel", "x", "y")),
        "lat": (lat, ("x", "y")),
        "lon": (lon, ("x", "y")),
        "channel": (np.array(channels), ("channel",)),
        "time": (np.array(keys), ("time",)),
    }
    for name, (content, dims) in arrays.items():
        array = group.create_array(name, shape=content.shape, dtype=content.dtype, chunks=content.shape, fill_value=0)
        array[...] = content
        array.attrs["_ARRAY_DIMENSIONS"] = list(dims)
    zarr.consolidate_metadata(str(path), zarr_format=2)
    return path


def affine(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """A field that linear interpolation gives exactly; longitudes are taken from -180 to 180."""
    return 2.0 * latitude + ((longitude + 180) % 360 - 180)


def gefs_grid() -> tuple[np.ndarray, np.ndarray]:
    """Points of GEFS around those of `lambert`, from the north, longitude from 0 to 360."""
    lat, lon = np.meshgrid(np.arange(41.0, 37.0, -0.25), np.arange(260.0, 265.0, 0.25), indexing="ij")
    return lat, lon


HRRR_CHANNELS = ("u10m", "v10m", "t2m", "precip", *FLAGS)


def write_gefs_hrrr(
    root: Path,
    periods: Sequence[tuple[str, Sequence[str]]] = (("2020_12_12", ()),),
    *,
    shape: tuple[int, int] = (18, 26),
    seed: int = 0,
) -> Path:
    """Write the three stores of periods; HRRR has one row and one column more than windows of multiples of 4 need.

    Args:
        root: folder.
        periods: keys, and the times of each; none for eight of one run.
        shape: rows and columns of HRRR.
        seed: of the flags.
    """
    random = np.random.default_rng(seed)
    for period, keys in periods:
        keys = keys or forecast_keys()
        for kind, channels in (("surface", SURFACE), ("isobaric", ISOBARIC)):
            write_forecast_store(root / "gefs" / f"gefs_{kind}_{period}.zarr", channels, keys, gefs_grid())
        fine = lambert(*shape)
        values = np.zeros((len(keys), len(HRRR_CHANNELS), *shape), np.float32)
        values[:, :4] = numbered(len(keys), 4, *shape)
        values[:, 4:] = random.random((len(keys), 4, *shape)) < 0.3
        write_forecast_store(root / "hrrr_forecast" / f"hrrr_{period}.zarr", HRRR_CHANNELS, keys, fine, values)
    return root


def custom_fine(n: int = 8, shape: tuple[int, int] = (60, 50)) -> xr.Dataset:
    """Fine fields of the custom pair, ``gust`` and ``temp``, with names of dimensions of a user."""
    lat, lon = lambert(*shape)
    dims = ("when", "j", "i")
    return xr.Dataset(
        {
            "gust": (dims, numbered(n, *shape), {"units": "m s-1", "long_name": "wind gust"}),
            "temp": (dims, 280 + numbered(n, *shape) / 1000, {"units": "K"}),
        },
        {
            "when": START + HOUR * np.arange(n),
            "my_lat": (dims[1:], lat, {"units": "degrees_north"}),
            "my_lon": (dims[1:], lon, {"units": "degrees_east"}),
        },
    )


def custom_coarse(fine: xr.Dataset, factor: int = 5) -> xr.Dataset:
    """Coarse fields of the custom pair: block means, ``wind`` on two levels, and ``t``."""
    means = fine.reset_coords(["my_lat", "my_lon"]).coarsen(j=factor, i=factor).mean()
    wind = xr.concat([means["gust"], means["gust"] + 0.5], "pressure").transpose("when", "pressure", "j", "i")
    return xr.Dataset(
        {"wind": wind.assign_attrs(units="m s-1"), "t": means["temp"].assign_attrs(units="K")},
        {
            "pressure": [850.0, 500.0],
            "lat": (("j", "i"), means["my_lat"].values, {"standard_name": "latitude"}),
            "lon": (("j", "i"), means["my_lon"].values, {"standard_name": "longitude"}),
        },
    )


def custom_static(fine: xr.Dataset) -> xr.Dataset:
    """Two fields of the custom pair that do not change, ``height`` and ``land``."""
    shape = fine["my_lat"].shape
    dims = ("j", "i")
    return xr.Dataset(
        {
            "height": (dims, numbered(*shape), {"units": "m"}),
            "land": (dims, (numbered(*shape) % 2), {"units": "1"}),
        },
        {name: fine[name] for name in ("my_lat", "my_lon")},
    )


def write_custom_pair(folder: Path, n: int = 8) -> dict[str, Any]:
    """Write the custom pair (f = 5, 60 x 50 points, 2 static fields), a file per two times.

    Returns:
        Arguments of ``PairedDatasets``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fine = custom_fine(n)
    coarse = custom_coarse(fine)
    for kind, dataset in (("fine", fine), ("coarse", coarse)):
        for start in range(0, n, 2):
            dataset.isel(when=slice(start, start + 2)).to_netcdf(folder / f"{kind}_{start}.nc", engine="h5netcdf")
    custom_static(fine).to_netcdf(folder / "static.nc", engine="h5netcdf")
    return {
        "inputs": [str(folder / "coarse_*.nc")],
        "outputs": [str(folder / "fine_*.nc")],
        "static": str(folder / "static.nc"),
        "time_dim": "when",
        "input_variables": ["wind", "t"],
        "output_variables": ["gust", "temp"],
        "static_variables": ["height", "land"],
    }
