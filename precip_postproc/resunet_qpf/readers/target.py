"""Radar analyses that were remapped to the forecast's grid before: one NetCDF file an hour."""

import logging
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ai4sim.datasets import open_dataset
from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.readers.files import seconds, stamp, to_millimetres
from precip_postproc.resunet_qpf.readers.grid import Grid
from precip_postproc.resunet_qpf.readers.netcdf import find, find_layout, read_times

logger = logging.getLogger(__name__)

MAXIMUM = 200.0  # mm
"""Hourly amounts above are no rain."""

BAD = -1.0
"""Quality where there is none."""

Field = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TargetField:
    """An hour's precipitation on the forecast's grid.

    Args:
        time: end of the hour.
        values: (y, x) from the south-west, mm; NaN where it is unknown.
        quality: (y, x) 0 to 1; -1 where there is none.
        grid: where the points are.
        source: file, for messages.
        n_invalid: number of points that are NaN.
    """

    time: np.datetime64
    values: Field
    quality: Field
    grid: Grid
    source: str
    n_invalid: int


def target_path(folder: Path | str, time: np.datetime64) -> Path:
    """Where an hour is.

    Args:
        folder: of all months.
        time: end of the hour.
    """
    name = f"MRMS_1h_pamt_and_data_qual_{stamp(time, '%Y%m%d%H')}.nc"
    return Path(folder) / stamp(time, "%Y%m") / name


def read_target(
    path: Path | str, time: np.datetime64 | None = None, grid: Grid | None = None, maximum: float = MAXIMUM
) -> TargetField:
    """Read the precipitation and its quality of an hour.

    Negative amounts, fill values and those above the maximum are unknown. A quality outside 0 to 1 is none.

    Args:
        path: NetCDF file.
        time: end of the hour that is expected; default: the file's.
        grid: of the forecast; the file must have the same one.
        maximum: largest possible amount, mm.

    Raises:
        MissingFileError: the file is not there.
        InputError: a variable is missing or has other units; another time or grid than expected.
    """
    source = str(path)
    with open_dataset(path, "remapped target") as dataset:
        for name in ("precipitation", "data_quality"):
            find(dataset, (name,), name.replace("_", " "), source)
        layout = find_layout(dataset, source)
        found = _valid_time(Path(path), dataset, source)
        if time is not None and found != seconds(time):
            raise InputError(f"{source} is valid at {found}, expected {seconds(time)}, the valid time of the forecast")
        amount = dataset["precipitation"]
        factor = to_millimetres(str(amount.attrs.get("units", "mm")), 1, f"{source}: 'precipitation'")
        values, quality = (layout.read(dataset[name]) for name in ("precipitation", "data_quality"))
    for name, field in (("precipitation", values), ("data_quality", quality)):
        if field.shape != layout.grid.shape:
            raise InputError(f"{source}: {name!r} has shape {field.shape}, expected {layout.grid.shape}")
    values *= np.float32(factor)
    with np.errstate(invalid="ignore"):
        values[~((values >= 0) & (values <= maximum))] = np.nan
        quality[~((quality >= 0) & (quality <= 1))] = BAD
    n_invalid = int(np.isnan(values).sum())
    if n_invalid:
        logger.info("%s: %d of %d amounts are missing or out of range", source, n_invalid, values.size)
    return TargetField(found, values, quality, layout.on(grid, "the forecast"), source, n_invalid)


def _valid_time(path: Path, dataset: xr.Dataset, source: str) -> np.datetime64:
    """Of the time coordinate, or else of the file's name; the two must agree."""
    times = [read_times(dataset[name], source).ravel() for name in ("valid_time", "time") if name in dataset.variables]
    digits = re.search(r"(\d{4})(\d{2})(\d{2})(\d{2})$", path.stem)
    if digits is not None:
        year, month, day, hour = digits.groups()
        times.append(np.array([f"{year}-{month}-{day}T{hour}:00:00"], "datetime64[s]"))
    if not times:
        raise InputError(f"{source} does not say when it is valid: no time coordinate, no YYYYMMDDHH in its name")
    if any(len(each) != 1 or each[0] != times[0][0] for each in times):
        listed = ", ".join(str(each[0]) for each in times if len(each))
        raise InputError(f"{source} contradicts itself, time coordinate and name say it is valid at {listed}")
    found: np.datetime64 = times[0][0]
    return found
