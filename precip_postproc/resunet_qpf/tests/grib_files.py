"""Small GRIB2 files for the tests of the readers, written with eccodes."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ai4sim.projections import LambertConformal
from precip_postproc.resunet_qpf import grib_writer
from precip_postproc.resunet_qpf.grib_writer import encode, lambert_keys, write
from precip_postproc.resunet_qpf.readers.grid import LambertGrid, LatLonGrid

__all__ = ["HRRR", "INIT", "apcp", "encode", "lambert_grid", "lambert_keys", "mrms", "samples", "write"]

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


def apcp(
    values: np.ndarray, start: int, end: int, grid: LambertGrid, *, init: np.datetime64 = INIT, **changes: Any
) -> bytes:
    return grib_writer.apcp(values, start, end, grid, init, **changes)


def mrms(
    values: np.ndarray,
    triple: tuple[int, int, int],
    time: np.datetime64,
    latitudes: np.ndarray,
    longitudes: np.ndarray,
    **changes: Any,
) -> bytes:
    return grib_writer.mrms(values, triple, time, LatLonGrid(latitudes, longitudes), **changes)
