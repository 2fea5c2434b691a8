"""Raw to processed: one store whose rows are forecasts, each with its analysis and what is around it."""

import logging
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ai4sim.errors import InputError
from ai4sim.manifest import Manifest
from ai4sim.projections import LambertConformal
from ai4sim.schema import Schema, Variable
from ai4sim.store import Region, build_store, make_template
from precip_postproc.resunet_qpf import config
from precip_postproc.resunet_qpf.case_list import CaseList
from precip_postproc.resunet_qpf.predictors import TERRAIN, CoarseToFine, Neighbourhoods, terrain_fields
from precip_postproc.resunet_qpf.readers import (
    CoarsePredictors,
    Grid,
    LambertGrid,
    LatLonGrid,
    TargetField,
    read_terrain,
    require_same_grid,
)
from precip_postproc.resunet_qpf.sources import ForecastSource, GfsSource, TargetSource

logger = logging.getLogger(__name__)

VERSION: Final = 1
GRID: Final = ("y", "x")
SPLITS: Final = ("train", "validation", "test")
"""Stored as their numbers."""
STEP: Final = 0.01  # mm, of stored amounts
QUALITY_STEP: Final = 1e-4
UNKNOWN: Final = -1  # in place of an amount
PEAK: Final = 8  # rows and columns of the blocks whose largest amount is kept
COARSE_MARGIN: Final = 0.5  # degrees
CASES_PER_REGION: Final = 16
WHOLE_CHUNK: Final = 2**18  # points; larger fields are stored in 4 x 4 chunks
SMALL_CHUNK: Final = 4 * 128 * 160  # points of small fields that are stored together

SCHEMA: Final = Schema(
    "precipitation forecasts and analyses",
    VERSION,
    (
        Variable("forecast", ("case", *GRID), "0.01 mm", dtype="int16", long_name="forecast hourly precipitation"),
        Variable("observation", ("case", *GRID), "0.01 mm", dtype="int16", long_name="analysed hourly precipitation"),
        Variable("quality", ("case", *GRID), "0.0001", dtype="int16", long_name="quality of the analysis"),
        Variable("smoothed", ("case", "smoothed_sigma", *GRID), "mm", dtype="float16", long_name="smoothed forecast"),
        Variable(
            "fraction", ("case", "fraction_sigma", *GRID), "1", dtype="float16", long_name="smoothed wet fraction"
        ),
        Variable(
            "coarse",
            ("case", "predictor", "coarse_y", "coarse_x"),
            "mixed",
            long_name="predictors of a global model",
            optional=True,
        ),
        Variable("peak", ("case", "peak_y", "peak_x"), "mm", long_name="largest forecast amount of 8 x 8 points"),
        Variable("usable", ("case",), "1", dtype="int32", long_name="number of points that can be learnt from"),
    ),
)


@dataclass(frozen=True)
class Raw:
    """Everything that a processed store is made from.

    Args:
        forecasts: of the model.
        targets: analyses.
        terrain: file.
        coarse: predictors of a global model, if there are any.
        neighbourhoods: how far around a point the forecast is looked at.
        grid: of the forecasts.
    """

    forecasts: ForecastSource
    targets: TargetSource
    terrain: Path
    coarse: GfsSource | None
    neighbourhoods: Neighbourhoods
    grid: Grid
    _coarse_grid: LatLonGrid | None = None
    _kept: int = 12
    _recent: dict[np.datetime64, TargetField] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_recent": {}}

    def analysis(self, time: np.datetime64) -> TargetField:
        """The hour that ends at a time; several lead times ask for it, one soon after the other."""
        found = self._recent.get(time)
        if found is None:
            found = self._recent[time] = self.targets.read(time, self.grid)
            # a copy of the keys: other threads add to them meanwhile
            for old in list(self._recent)[: -self._kept]:
                self._recent.pop(old, None)
        return found

    @property
    def predictors(self) -> list[str]:
        """Names of the coarse predictors."""
        return [] if self.coarse is None else list(self.coarse.names)

    def coarse_grid(self, cases: CaseList) -> LatLonGrid:
        """The part of the coarse grid that covers the forecasts.

        Raises:
            InputError: no cycle has a file, or the grids do not overlap.
        """
        assert self.coarse is not None
        for init in np.unique(cases.init):
            if self.coarse.path(init).exists():
                whole = self.coarse.read(init).grid
                found = whole.crop(whole.window(self.grid, COARSE_MARGIN))
                CoarseToFine(found, self.grid, self.predictors)
                return found
        raise InputError(f"there is no file of coarse predictors such as {self.coarse.path(cases.init[0])}")

    def coarse_fields(self, cycle: CoarsePredictors | None, lead: int) -> NDArray[np.float32]:
        """Predictors (predictor, coarse_y, coarse_x) of a cycle; NaN where there is none.

        Raises:
            InputError: the cycle has another grid than the first one, or no such lead time.
        """
        assert self._coarse_grid is not None
        if cycle is None:
            return np.full((len(self.predictors), *self._coarse_grid.shape), np.nan, np.float32)
        window = cycle.grid.window(self.grid, COARSE_MARGIN)
        require_same_grid(cycle.grid.crop(window), self._coarse_grid, (cycle.source, "the first cycle"))
        return np.stack([cycle.at(name, lead)[window] for name in self.predictors])


def build(store: Path, raw: Raw, cases: CaseList, *, scheduler: str | None = None) -> Manifest:
    """Make the processed store, or find that it is there already.

    Args:
        store: where.
        raw: the sources.
        cases: forecasts whose files are all there.
        scheduler: address of a Dask scheduler.

    Raises:
        InputError: a file cannot be read, or is of another time, grid, product or unit.
    """
    height, width = raw.grid.shape
    # analyses that later runs need again, with their shorter lead times
    raw = replace(raw, _kept=3 * len(np.unique(cases.lead)))
    terrain = read_terrain(raw.terrain, raw.grid)
    sizes = {
        "case": len(cases),
        "y": height,
        "x": width,
        "smoothed_sigma": len(raw.neighbourhoods.smoothed),
        "fraction_sigma": len(raw.neighbourhoods.fractions),
        "peak_y": -(-height // PEAK),
        "peak_x": -(-width // PEAK),
    }
    names = [variable.name for variable in SCHEMA.variables if not variable.optional]
    if raw.coarse is not None:
        names.append("coarse")
        coarse_grid = raw.coarse_grid(cases)
        raw = replace(raw, _coarse_grid=coarse_grid)
        sizes |= {"predictor": len(raw.predictors), "coarse_y": coarse_grid.shape[0], "coarse_x": coarse_grid.shape[1]}
    # a patch is read with the whole chunk it lies in, but each chunk is a file
    chunks = {"case": max(1, SMALL_CHUNK // (height * width))}
    if height * width > WHOLE_CHUNK:
        chunks |= {"y": -(-height // 4), "x": -(-width // 4)}
    coords: dict[str, Any] = {
        "init": ("case", cases.init.astype("datetime64[ns]"), {"standard_name": "forecast_reference_time"}),
        "lead": ("case", cases.lead, {"standard_name": "forecast_period", "units": "hours"}),
        "split": (
            "case",
            np.array([SPLITS.index(split) for split in cases.split], np.int8),
            {"meaning": " ".join(SPLITS)},
        ),
        "smoothed_sigma": ("smoothed_sigma", raw.neighbourhoods.smoothed, {"long_name": "grid points"}),
        "fraction_sigma": ("fraction_sigma", raw.neighbourhoods.fractions, {"long_name": "grid points"}),
        "latitude": (GRID, raw.grid.latitude, {"units": "degrees_north", "standard_name": "latitude"}),
        "longitude": (GRID, raw.grid.longitude, {"units": "degrees_east", "standard_name": "longitude"}),
        **{
            name: (GRID, values, {"units": "1" if name.startswith("slope") else "m"})
            for name, values in terrain_fields(terrain).items()
        },
    }
    if raw.coarse is not None:
        coords |= {
            "coarse_latitude": ("coarse_y", coarse_grid.latitudes, {"units": "degrees_north"}),
            "coarse_longitude": ("coarse_x", coarse_grid.longitudes, {"units": "degrees_east"}),
        }
    template = make_template(SCHEMA, sizes, chunks, coords=coords, variables=names)
    regions = [
        Region(
            f"forecasts {start} to {stop - 1}",
            {"case": slice(start, stop)},
            partial(load, raw, cases.init[start:stop], cases.lead[start:stop]),
        )
        for step in [-(-CASES_PER_REGION // chunks["case"]) * chunks["case"]]
        for start in range(0, len(cases), step)
        for stop in [min(start + step, len(cases))]
    ]
    settings = {
        "forecasts": raw.forecasts.settings(),
        "targets": raw.targets.settings(),
        "coarse": None if raw.coarse is None else raw.coarse.settings(),
        "neighbourhoods": asdict(raw.neighbourhoods),
        "grid": describe_grid(raw.grid),
        "cases": [f"{init} {lead} {split}" for init, lead, split in zip(
            cases.init.astype("datetime64[h]"), cases.lead, cases.split, strict=True
        )],
    }  # fmt: skip
    return build_store(
        store,
        template=template,
        regions=regions,
        sources=sources(raw, cases),
        schema=SCHEMA,
        settings=settings,
        statistics=statistics,
        scheduler=scheduler,
    )


def sources(raw: Raw, cases: CaseList) -> list[Path]:
    """All raw files, each once."""
    files: dict[Path, None] = {raw.terrain: None}
    for init, lead, time in zip(cases.init, cases.lead, cases.valid_time, strict=True):
        files |= dict.fromkeys(raw.forecasts.files(init, int(lead)))
        files |= dict.fromkeys(raw.targets.files(time))
        if raw.coarse is not None and raw.coarse.path(init).exists():
            files[raw.coarse.path(init)] = None
    # of a Zarr store only its description: it changes with shape and names of the data
    described = [path / "zarr.json" if path.is_dir() else path for path in files]
    return [path for path in described if path.is_file()]


def describe_grid(grid: Grid) -> dict[str, Any]:
    """What identifies a grid, and its projection where it has one; plain values."""
    found: dict[str, Any] = {"shape": list(grid.shape), "fingerprint": grid.fingerprint, "spacing_km": spacing(grid)}
    if isinstance(grid, LambertGrid):
        cone = grid.projection
        found["lambert"] = {
            "latitude": cone.latitude,
            "longitude": cone.longitude,
            "parallels": list(cone.parallels),
            "radius": cone.radius,
            "origin": list(grid.origin),
            "spacing": list(grid.spacing),
        }
    return found


def grid_of(described: dict[str, Any]) -> LambertGrid | None:
    """The grid of a description, where it has a projection."""
    plane = described.get("lambert")
    if plane is None:
        return None
    cone = LambertConformal(plane["latitude"], plane["longitude"], tuple(plane["parallels"]), plane["radius"])
    return LambertGrid(cone, tuple(plane["origin"]), tuple(plane["spacing"]), tuple(described["shape"]))


def spacing(grid: Grid) -> float:
    """Mean distance of neighbouring points, km."""
    if isinstance(grid, LambertGrid):
        return float(np.mean(grid.spacing)) / 1000
    latitude, longitude = np.radians(grid.latitude), np.radians(grid.longitude)
    north = np.hypot(np.diff(latitude, axis=0), np.diff(longitude, axis=0) * np.cos(latitude[1:]))
    east = np.hypot(np.diff(latitude, axis=1), np.diff(longitude, axis=1) * np.cos(latitude[:, 1:]))
    return float((np.abs(north).mean() + np.abs(east).mean()) / 2 * 6371.229)


def load(raw: Raw, inits: NDArray[np.datetime64], leads: NDArray[np.int64]) -> xr.Dataset:
    """Some cases with everything that the store has of them; what one initial time has in common is read once."""
    columns: dict[str, list[Any]] = {}
    cycle: tuple[np.datetime64, Any] | None = None
    for init, lead in zip(inits, leads.tolist(), strict=True):
        if raw.coarse is not None and (cycle is None or cycle[0] != init):
            there = raw.coarse.path(init).exists()
            cycle = (init, raw.coarse.read(init) if there else None)
        case = load_case(raw, init, lead, None if cycle is None else cycle[1])
        for name, values in case.items():
            columns.setdefault(name, []).append(values)
    return xr.Dataset({name: (SCHEMA[name].dims, np.stack(values)) for name, values in columns.items()})


def load_case(raw: Raw, init: np.datetime64, lead: int, cycle: Any) -> dict[str, Any]:
    """One row of the store."""
    # as it is stored, so that what is around a point fits the point
    forecast = unpack(pack(read_forecast(raw.forecasts, init, lead, raw.grid)))
    target = raw.analysis(init + np.timedelta64(lead, "h"))
    quality = np.where(target.quality > 1, -1, target.quality)
    smoothed, fractions = raw.neighbourhoods.look_around(forecast)
    observation, trust = pack(target.values), np.rint(np.maximum(quality, -1) / QUALITY_STEP).astype(np.int16)
    usable = np.isfinite(unpack_observed(observation, trust, config.TRAINING_QUALITY)) & np.isfinite(forecast)
    case: dict[str, Any] = {
        "forecast": pack(forecast),
        "observation": observation,
        "quality": trust,
        "smoothed": smoothed.astype(np.float16),
        "fraction": fractions.astype(np.float16),
        "peak": peaks(forecast),
        "usable": np.int32(usable.sum()),
    }
    if raw.coarse is not None:
        case["coarse"] = raw.coarse_fields(cycle, lead)
    return case


def read_forecast(source: ForecastSource, init: np.datetime64, lead: int, grid: Grid) -> NDArray[np.float32]:
    """A forecast (y, x), mm, that must be on a grid."""
    found = source.read(init, lead)
    if found.grid.fingerprint != grid.fingerprint:
        require_same_grid(found.grid, grid, (found.source, "the first forecast"))
    return found.values


def pack(amount: NDArray[np.float32]) -> NDArray[np.int16]:
    """Amounts, mm, as multiples of 0.01 mm, up to 327.67 mm; -1 where they are unknown."""
    known = np.isfinite(amount) & (amount >= 0)
    steps = np.minimum(np.rint(np.where(known, amount, 0) / STEP), np.iinfo(np.int16).max)
    packed: NDArray[np.int16] = np.where(known, steps, UNKNOWN).astype(np.int16)
    return packed


def unpack(packed: NDArray[np.int16]) -> NDArray[np.float32]:
    """Amounts, mm, of multiples of 0.01 mm; NaN where they are unknown."""
    amount = packed.astype(np.float32) * np.float32(STEP)
    amount[packed < 0] = np.nan
    return amount


def unpack_observed(packed: NDArray[np.int16], quality: NDArray[np.int16], least_quality: float) -> NDArray[np.float32]:
    """Analysed amounts, mm; NaN where they are unknown, impossible or of too low quality.

    Args:
        packed: multiples of 0.01 mm.
        quality: multiples of 0.0001.
        least_quality: that is used.
    """
    observed = unpack(packed)
    observed[(quality < round(least_quality / QUALITY_STEP)) | (observed >= config.MAX_OBSERVED)] = np.nan
    return observed


def peaks(forecast: NDArray[np.float32]) -> NDArray[np.float32]:
    """Largest amounts of blocks of points."""
    height, width = forecast.shape
    padded = np.zeros((-(-height // PEAK) * PEAK, -(-width // PEAK) * PEAK), np.float32)
    padded[:height, :width] = np.nan_to_num(forecast)
    return padded.reshape(padded.shape[0] // PEAK, PEAK, -1, PEAK).max(axis=(1, 3))


def statistics(dataset: xr.Dataset) -> dict[str, Any]:
    """How often which amounts were analysed in training, and means of the coarse predictors.

    Raises:
        InputError: no training case has anything to learn from.
    """
    training: NDArray[np.int64] = np.flatnonzero(
        (dataset["split"].values == SPLITS.index("train")) & (dataset["usable"].values > 0)
    )
    if not len(training):
        raise InputError("all points of all training cases are unknown or of too low quality")
    counts = np.zeros(round(config.MAX_OBSERVED / STEP), np.int64)
    sums = np.zeros(dataset.sizes["predictor"] if "coarse" in dataset else 0)
    n_coarse = 0
    for row in training:
        packed = dataset["observation"][row].values
        good = np.isfinite(unpack_observed(packed, dataset["quality"][row].values, config.TRAINING_QUALITY))
        counts += np.bincount(packed[good], minlength=len(counts))
        if sums.size:
            fields = dataset["coarse"][row].values.astype(np.float64)
            if np.isfinite(fields).all():
                sums += fields.mean(axis=(1, 2))
                n_coarse += 1
    filled = np.flatnonzero(counts)
    result: dict[str, Any] = {"amounts": [filled.tolist(), counts[filled].tolist()]}
    if sums.size:
        if not n_coarse:
            raise InputError("no training case has coarse predictors: give their files, or leave data.coarse out")
        result["coarse"] = (sums / n_coarse).tolist()
    return result


STATIC: Final = tuple(TERRAIN)
"""Coordinates of the store that are predictors."""
