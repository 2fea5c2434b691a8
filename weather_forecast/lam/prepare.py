"""Raw to processed: one store whose rows are times, with the statistics of the training period."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from rich.progress import track

from ai4sim.atomic import atomic_path
from ai4sim.errors import InputError
from ai4sim.manifest import Manifest
from ai4sim.normalization import RunningStatistics
from ai4sim.schema import Schema, Variable
from ai4sim.store import Region, build_store, make_template
from weather_forecast.lam.accessors.base import DataAccessor, GridInfo
from weather_forecast.lam.periods import Period
from weather_forecast.lam.solar import toa_radiation

logger = logging.getLogger(__name__)

VERSION = 3
TIMES_PER_REGION = 24
GRID = ("lat", "lon")

SCHEMA = Schema(
    "limited-area fields",
    VERSION,
    (
        Variable("state", ("time", *GRID, "feature"), "1", long_name="prognostic and diagnostic fields"),
        Variable("forcing", ("time", *GRID, "forcing_feature"), "1", long_name="fields of the host", optional=True),
    ),
)


@dataclass(frozen=True)
class FieldSelection:
    """What is taken from a raw data set.

    Args:
        state: names of the parameters that are forecast.
        forcing: names of the parameters that are known for the target times.
        crop: first row, row after the last, first column, column after the last; None for the whole grid.
    """

    state: tuple[str, ...]
    forcing: tuple[str, ...] = ()
    crop: tuple[int, int, int, int] | None = None

    def slices(self, grid: GridInfo) -> tuple[slice, slice]:
        """Rows and columns of the crop.

        Raises:
            InputError: the crop is empty or reaches out of the grid.
        """
        height, width = grid.shape
        r0, r1, c0, c1 = self.crop or (0, height, 0, width)
        if not (0 <= r0 < r1 <= height and 0 <= c0 < c1 <= width):
            raise InputError(f"the crop {[r0, r1, c0, c1]} is not within the grid of {height} rows and {width} columns")
        return slice(r0, r1), slice(c0, c1)


def find_records(
    accessor: DataAccessor, selection: FieldSelection, *, skip_bad: bool = False, notes: Path | None = None
) -> tuple[NDArray[np.int64], list[str]]:
    """Records that have every parameter, and a sentence for each of those that lack one.

    Args:
        accessor: of the raw data.
        selection: which parameters.
        skip_bad: read each record beforehand, and leave out those that cannot be read.
        notes: file that keeps which ones these are, so that the next call reads those alone.

    Raises:
        InputError: there is no whole record; names the parameter that is missing most, or the first fault.
    """
    names = (*selection.state, *selection.forcing)
    accessor.require(names)
    records = accessor.records()
    whole, lacking, missing = [], [], Counter[str]()
    unreadable = _unreadable(accessor, names, notes) if skip_bad else {}
    for record in range(len(records)):
        absent = [name for name in names if not accessor.exists(name, record)]
        if absent:
            missing.update(absent)
            lacking.append(f"{absent[0]} {np.datetime_as_string(records.times[record], unit='m')}")
        elif record in unreadable:
            logger.warning("left out: %s", unreadable[record])
            lacking.append(f"unreadable {np.datetime_as_string(records.times[record], unit='m')}")
        else:
            whole.append(record)
    if not whole and not missing and unreadable:
        first = next(iter(unreadable.values()))
        raise InputError(f"{accessor.label}: none of {len(records)} times can be read; the first: {first}")
    if not whole:
        name, count = missing.most_common(1)[0] if missing else ("every parameter", 0)
        raise InputError(f"{accessor.label}: none of {len(records)} times has all parameters; {name} lacks at {count}")
    if lacking:
        logger.warning("%s: %d times, %d dropped (first: %s)", accessor.label, len(whole), len(lacking), lacking[0])
    return np.array(whole, np.int64), lacking


def _unreadable(accessor: DataAccessor, names: Sequence[str], notes: Path | None) -> dict[int, str]:
    """Faults by record, of those that have all files; what is known to be whole is not read again."""
    records = accessor.records()
    digest = hashlib.sha256(repr((type(accessor).__name__, accessor.settings(), tuple(names))).encode())
    digest.update(records.times.tobytes())
    key = digest.hexdigest()
    candidates: Iterable[int] = range(len(records))
    if notes is not None and notes.is_file():
        known = json.loads(notes.read_text())
        if known["key"] == key:
            candidates = [int(record) for record in known["faults"]]
    faults = {}
    for record in track(list(candidates), "checking", transient=True):
        if not all(accessor.exists(name, record) for name in names):
            continue
        try:
            _read(accessor, names, record)
        except InputError as error:
            faults[record] = str(error)
    if notes is not None:
        notes.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(notes) as partial:
            partial.write_text(json.dumps({"key": key, "faults": faults}))
    return faults


def _read(accessor: DataAccessor, names: Sequence[str], record: int) -> NDArray[np.float32]:
    """Fields (lat, lon, parameter) of a record, of the grid's shape."""
    fields = accessor.load(names, record)
    expected = (*accessor.load_grid_info().shape, len(names))
    if fields.shape != expected:
        time = np.datetime_as_string(accessor.records().times[record], unit="m")
        raise InputError(
            f"{accessor.get_filepath(names[0], record)}: fields of {time} have shape {fields.shape}, the grid and the "
            f"parameters {expected}"
        )
    return fields


def build(
    store: Path,
    accessor: DataAccessor,
    selection: FieldSelection,
    *,
    train: Period,
    step: np.timedelta64,
    skip_bad: bool = False,
    scheduler: str | None = None,
) -> Manifest:
    """Make the processed store, or find that it is there already.

    Args:
        store: where.
        accessor: of the raw data.
        selection: which parameters and part of the grid.
        train: period of the statistics.
        step: of the forecast: statistics of differences are over pairs of times that far apart.
        skip_bad: leave out times that cannot be read, instead of raising.
        scheduler: address of a Dask scheduler.
    """
    records = accessor.records()
    notes = store.with_suffix(".unreadable.json")
    rows, lacking = find_records(accessor, selection, skip_bad=skip_bad, notes=notes)
    grid = accessor.load_grid_info()
    part = selection.slices(grid)
    cropped = grid.crop(*part)
    height, width = cropped.shape
    sizes = {"time": len(rows), "lat": height, "lon": width, "feature": len(selection.state)}
    variables = ["state"]
    if selection.forcing:
        sizes["forcing_feature"] = len(selection.forcing)
        variables.append("forcing")
    template = make_template(
        SCHEMA, sizes, {"time": 1}, coords=_coordinates(accessor, cropped, rows), variables=variables
    )
    units = accessor.parameters()
    for variable, names in (("state", selection.state), ("forcing", selection.forcing)):
        if names:
            template[variable].attrs |= {"features": list(names), "feature_units": [units[name] for name in names]}
    regions = [
        Region(f"times {start} to {stop - 1}", {"time": slice(start, stop)}, partial(
            _load, accessor, selection, part, rows[start:stop]
        ))
        for start in range(0, len(rows), TIMES_PER_REGION)
        for stop in [min(start + TIMES_PER_REGION, len(rows))]
    ]  # fmt: skip
    settings = {
        "state": list(selection.state),
        "forcing": list(selection.forcing),
        "crop": list(selection.crop or ()),
        "train": [str(train.start), str(train.end)],
        "step": str(step),
        "records": len(records),
        "dropped": lacking[:100],
        "accessor": {"kind": type(accessor).__name__, **accessor.settings()},
    }
    return build_store(
        store,
        template=template,
        regions=regions,
        sources=accessor.sources(),
        schema=SCHEMA,
        settings=settings,
        statistics=partial(statistics, train=train, step=step),
        scheduler=scheduler,
    )


def _coordinates(accessor: DataAccessor, grid: GridInfo, rows: NDArray[np.int64]) -> dict[str, Any]:
    records = accessor.records()
    coordinates: dict[str, Any] = {
        "time": ("time", records.times[rows].astype("datetime64[ns]"), {"long_name": "validity time"}),
        "sequence": ("time", records.sequences[rows], {"long_name": "forecast or member that a time belongs to"}),
        "latitude": (GRID, grid.latitude, {"units": "degrees_north", "standard_name": "latitude"}),
        "longitude": (GRID, grid.longitude, {"units": "degrees_east", "standard_name": "longitude"}),
        "x": (GRID, grid.x, {"units": "km", "standard_name": "projection_x_coordinate"}),
        "y": (GRID, grid.y, {"units": "km", "standard_name": "projection_y_coordinate"}),
        "coriolis": (GRID, grid.coriolis, {"units": "s-1", "standard_name": "coriolis_parameter"}),
        "geopotential": (GRID, grid.geopotential, {"units": "m2 s-2", "standard_name": "surface_geopotential"}),
    }
    if grid.land_sea_mask is not None:
        coordinates["land_sea_mask"] = (GRID, grid.land_sea_mask, {"units": "1", "long_name": "share of land"})
    return coordinates


def _load(
    accessor: DataAccessor, selection: FieldSelection, part: tuple[slice, slice], records: NDArray[np.int64]
) -> xr.Dataset:
    """The fields of some records."""

    def stack(names: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([_read(accessor, names, int(record))[part] for record in records])

    loaded = {"state": (SCHEMA["state"].dims, stack(selection.state))}
    if selection.forcing:
        loaded["forcing"] = (SCHEMA["forcing"].dims, stack(selection.forcing))
    return xr.Dataset(loaded)


def statistics(dataset: xr.Dataset, *, train: Period, step: np.timedelta64) -> Mapping[str, Any]:
    """Statistics over the training period, missing values left out.

    Args:
        dataset: the processed data.
        train: period.
        step: between the two times of a difference.

    Returns:
        ``state``, ``difference`` (of the standardised state over one step), ``gradient`` (of the standardised state
        between neighbouring points of a row or column), ``forcing`` and ``toa_radiation``: what
        :class:`~ai4sim.normalization.FeatureStatistics` is made from.

    Raises:
        InputError: the training period has no times, or no two of them are one step apart.
    """
    times, sequences = dataset["time"].values, dataset["sequence"].values
    rows = np.flatnonzero(train.contains(times))
    if not len(rows):
        raise InputError(f"the training period {train} has no times; the data go from {times.min()} to {times.max()}")
    state = RunningStatistics(dataset.sizes["feature"])
    difference = RunningStatistics(dataset.sizes["feature"])
    gradient = RunningStatistics(dataset.sizes["feature"])
    forcing = RunningStatistics(dataset.sizes.get("forcing_feature", 0))
    solar = RunningStatistics(1)
    latitude, longitude = dataset["latitude"].values, dataset["longitude"].values
    earlier: dict[tuple[int, int], NDArray[np.float32]] = {}
    stride = int(step / np.timedelta64(1, "s"))
    for row in track(rows, "statistics"):
        fields = dataset["state"][row].values
        state.update(fields, skipna=True)
        for axis in (0, 1):
            gradient.update(np.diff(fields.astype(np.float64), axis=axis), skipna=True)
        key = (int(sequences[row]), int(times[row].astype("datetime64[s]").astype(int)))
        if (before := earlier.pop((key[0], key[1] - stride), None)) is not None:
            difference.update(fields.astype(np.float64) - before, skipna=True)
        earlier[key] = fields
        # what is older than a step will not be asked for again
        for old in [k for k in earlier if k[0] != key[0] or k[1] < key[1] - stride]:
            del earlier[old]
        if "forcing" in dataset:
            forcing.update(dataset["forcing"][row].values, skipna=True)
        solar.update(toa_radiation(times[row], latitude, longitude)[..., None])
    if not difference.count:
        raise InputError(f"the training period {train} has no two times that are {step} apart")
    std = state.result().usable_std(dataset["state"].attrs["features"])
    result = {
        "state": state.result().to_dict(),
        "difference": difference.scaled(1 / std).result().to_dict(),
        "gradient": gradient.scaled(1 / std).result().to_dict(),
        "toa_radiation": solar.result().to_dict(),
    }
    if "forcing" in dataset:
        result["forcing"] = forcing.result().to_dict()
    return result
