"""GRIB2 messages as forecast models and MRMS make them, encoded with eccodes.

Keys: WMO Manual on Codes, No. 306, Volume I.2, FM 92 GRIB edition 2.
"""

import gzip
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ai4sim.atomic import atomic_path
from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.readers.files import HOUR
from precip_postproc.resunet_qpf.readers.grib import ACCUMULATION, Triple
from precip_postproc.resunet_qpf.readers.grid import LambertGrid, LatLonGrid

Keys = dict[str, Any]


def require_eccodes() -> Any:
    """The module eccodes.

    Raises:
        InputError: it cannot be imported.
    """
    try:
        return importlib.import_module("eccodes")
    except (ImportError, RuntimeError, OSError) as error:
        raise InputError(
            f"writing GRIB needs eccodes, which cannot be imported ({error}): install it with pip install "
            "'ai4sim[grib]', or write NetCDF"
        ) from error


def encode(keys: Mapping[str, Any], values: ArrayLike, missing: float | None = None) -> bytes:
    """Encode one message.

    Args:
        keys: of eccodes, in the order in which they are set.
        values: in the order in which the message scans them.
        missing: value that stands for masked points; default: none are.
    """
    eccodes = require_eccodes()
    handle = eccodes.codes_grib_new_from_samples("GRIB2")
    try:
        for name, value in keys.items():
            eccodes.codes_set(handle, name, value)
        if missing is not None:
            eccodes.codes_set(handle, "bitmapPresent", 1)
            eccodes.codes_set(handle, "missingValue", missing)
        eccodes.codes_set_values(handle, np.asarray(values, np.float64).ravel())
        message: bytes = eccodes.codes_get_message(handle)
        return message
    finally:
        eccodes.codes_release(handle)


def time_keys(time: np.datetime64) -> dict[str, int]:
    """Year to second of a time."""
    date = time.astype("datetime64[s]").item()
    return {name: getattr(date, name) for name in ("year", "month", "day", "hour", "minute", "second")}


def lambert_keys(grid: LambertGrid, north_first: bool = False) -> Keys:
    """Section 3 of a grid on a sphere of 6371229 m.

    Args:
        grid: of the values.
        north_first: whether the first row that is scanned is the northernmost.
    """
    row = -1 if north_first else 0
    return {
        "gridDefinitionTemplateNumber": 30, "shapeOfTheEarth": 6, "Nx": grid.shape[1], "Ny": grid.shape[0],
        "latitudeOfFirstGridPointInDegrees": float(grid.latitude[row, 0]),
        "longitudeOfFirstGridPointInDegrees": float(grid.longitude[row, 0]) % 360,
        "LaDInDegrees": grid.projection.latitude, "LoVInDegrees": grid.projection.longitude % 360,
        "DxInMetres": grid.spacing[0], "DyInMetres": grid.spacing[1], "jScansPositively": int(not north_first),
        "Latin1InDegrees": grid.projection.parallels[0], "Latin2InDegrees": grid.projection.parallels[1],
    }  # fmt: skip


def apcp(
    values: NDArray[np.floating[Any]],
    start: int,
    end: int,
    grid: LambertGrid,
    init: np.datetime64,
    *,
    north_first: bool = False,
    missing: float | None = None,
    **changes: Any,
) -> bytes:
    """A forecast's precipitation amount (0/1/8) between two steps.

    Args:
        values: (y, x) from the south, mm.
        start: first step, h.
        end: last step, h.
        grid: of the values.
        init: initial time.
        north_first: whether the message scans from the north.
        missing: value that stands for masked points.
        changes: keys of eccodes that replace those of this function.
    """
    stop = time_keys(init + end * HOUR)
    keys = {
        "centre": "kwbc", "tablesVersion": 2, **time_keys(init), "discipline": 0,
        **lambert_keys(grid, north_first), "productDefinitionTemplateNumber": 8, "parameterCategory": 1,
        "parameterNumber": 8, "indicatorOfUnitForForecastTime": 1, "forecastTime": start,
        **{f"{name}OfEndOfOverallTimeInterval": value for name, value in stop.items()},
        "typeOfStatisticalProcessing": ACCUMULATION, "indicatorOfUnitForTimeRange": 1,
        "lengthOfTimeRange": end - start, "decimalScaleFactor": 3, "bitsPerValue": 0,
    }  # fmt: skip
    return encode(keys | changes, values[::-1] if north_first else values, missing)


def mrms(
    values: NDArray[np.floating[Any]], triple: Triple, time: np.datetime64, grid: LatLonGrid, **changes: Any
) -> bytes:
    """A message as MRMS has them: local tables, scanned from the north, longitudes from 0 to 360.

    Args:
        values: (y, x) from the south.
        triple: discipline, category and number of the product.
        time: stamp of the field.
        grid: of the values.
        changes: keys of eccodes that replace those of this function.
    """
    latitudes, longitudes = grid.latitudes, grid.longitudes
    keys = {
        "centre": 161, "tablesVersion": 255, "localTablesVersion": 1, **time_keys(time), "discipline": triple[0],
        "gridDefinitionTemplateNumber": 0, "shapeOfTheEarth": 2, "Ni": len(longitudes), "Nj": len(latitudes),
        "latitudeOfFirstGridPointInDegrees": float(latitudes[-1]),
        "latitudeOfLastGridPointInDegrees": float(latitudes[0]),
        "longitudeOfFirstGridPointInDegrees": float(longitudes[0]) % 360,
        "longitudeOfLastGridPointInDegrees": float(longitudes[-1]) % 360,
        "iDirectionIncrementInDegrees": float(longitudes[1] - longitudes[0]),
        "jDirectionIncrementInDegrees": float(latitudes[1] - latitudes[0]), "jScansPositively": 0,
        "productDefinitionTemplateNumber": 0, "parameterCategory": triple[1], "parameterNumber": triple[2],
        "indicatorOfUnitForForecastTime": 0, "forecastTime": 0, "packingType": "grid_simple",
        "decimalScaleFactor": 1, "bitsPerValue": 0,
    }  # fmt: skip
    return encode(keys | changes, values[::-1])


def write(path: Path, *messages: bytes) -> Path:
    """A file of some messages, compressed if its name ends in .gz; it is whole or not there.

    Args:
        path: the file; its folder is made.
        messages: one after the other.

    Returns:
        The file.
    """
    data = b"".join(messages)
    with atomic_path(path) as partial:
        # without the time, equal fields are equal files
        partial.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path
