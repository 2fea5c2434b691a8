"""Small GRIB2 files for the tests of the readers, written with eccodes."""

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ai4sim.projections import LambertConformal
from precip_postproc.resunet_qpf.readers.grid import LambertGrid

HRRR = LambertConformal(38.5, -97.5, (38.5, 38.5), 6371229.0)
INIT = np.datetime64("2025-12-01T06", "s")


def samples() -> Path:
    """Folder of the real MRMS files; the environment variable AI4SIM_SAMPLES names the one above it."""
    default = Path(__file__).resolve().parents[4] / "shared" / "data"
    folder = Path(os.environ.get("AI4SIM_SAMPLES", default)) / "mrms"
    if not folder.is_dir():
        pytest.skip(f"real MRMS files are not at {folder}; name their folder in AI4SIM_SAMPLES")
    pytest.importorskip("eccodes")
    return folder


def lambert_grid(rows: int = 12, columns: int = 15, spacing: float = 4000.0) -> LambertGrid:
    """A grid in the middle of the United States."""
    x, y = HRRR.to_plane(39.0, -100.0)
    return LambertGrid(HRRR, (float(x), float(y)), (spacing, spacing), (rows, columns))


def hour_of_header(time: np.datetime64) -> dict[str, int]:
    date = time.astype("datetime64[s]").item()
    return {name: getattr(date, name) for name in ("year", "month", "day", "hour", "minute", "second")}


def encode(keys: dict[str, Any], values: np.ndarray, missing: float | None = None) -> bytes:
    """A message with the values in the order in which they are scanned."""
    import eccodes

    handle = eccodes.codes_grib_new_from_samples("GRIB2")
    try:
        for name, value in keys.items():
            eccodes.codes_set(handle, name, value)
        if missing is not None:
            eccodes.codes_set(handle, "bitmapPresent", 1)
            eccodes.codes_set(handle, "missingValue", missing)
        eccodes.codes_set_values(handle, np.asarray(values, np.float64).ravel())
        return eccodes.codes_get_message(handle)
    finally:
        eccodes.codes_release(handle)


def lambert_keys(grid: LambertGrid, north_first: bool = False) -> dict[str, Any]:
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
    values: np.ndarray,
    start: int,
    end: int,
    grid: LambertGrid,
    *,
    init: np.datetime64 = INIT,
    north_first: bool = False,
    missing: float | None = None,
    **changes: Any,
) -> bytes:
    """A precipitation amount (0/1/8) between two steps; `values` are from the south."""
    stop = hour_of_header(init + np.timedelta64(end, "h"))
    keys = {
        "centre": "kwbc", "tablesVersion": 2, **hour_of_header(init), "discipline": 0,
        **lambert_keys(grid, north_first), "productDefinitionTemplateNumber": 8, "parameterCategory": 1,
        "parameterNumber": 8, "indicatorOfUnitForForecastTime": 1, "forecastTime": start,
        **{f"{name}OfEndOfOverallTimeInterval": value for name, value in stop.items()},
        "typeOfStatisticalProcessing": 1, "indicatorOfUnitForTimeRange": 1, "lengthOfTimeRange": end - start,
        "decimalScaleFactor": 3, "bitsPerValue": 0,
    }  # fmt: skip
    return encode(keys | changes, values[::-1] if north_first else values, missing)


def mrms(
    values: np.ndarray,
    triple: tuple[int, int, int],
    time: np.datetime64,
    latitudes: np.ndarray,
    longitudes: np.ndarray,
    **changes: Any,
) -> bytes:
    """A message as MRMS has them: local tables, from the north, longitudes from 0; `values` are from the south."""
    keys = {
        "centre": 161, "tablesVersion": 255, "localTablesVersion": 1, **hour_of_header(time), "discipline": triple[0],
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
    """A file of some messages, compressed if its name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = b"".join(messages)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path
