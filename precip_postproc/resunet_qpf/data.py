"""The use case's data module: raw files found or made, processed, and given out as patches and whole fields."""

import json
import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from rich.table import Table
from torch.utils.data import DataLoader

from ai4sim.datamodule import ExperimentData
from ai4sim.errors import InputError
from ai4sim.experiment import data_folder
from ai4sim.loading import BatchLoader
from ai4sim.manifest import Manifest
from ai4sim.sampling import evaluation_batch_size
from ai4sim.store import open_store, read_manifest
from precip_postproc.resunet_qpf import config, prepare
from precip_postproc.resunet_qpf.baselines import spread
from precip_postproc.resunet_qpf.batches import CaseDataset
from precip_postproc.resunet_qpf.case_list import CaseList, find_missing, leave_out
from precip_postproc.resunet_qpf.climate import Climate
from precip_postproc.resunet_qpf.cycle import CycleDataset
from precip_postproc.resunet_qpf.demo import DemoSettings, write_demo
from precip_postproc.resunet_qpf.draws import PatchSampler, RowSampler, Strata
from precip_postproc.resunet_qpf.predictors import Neighbourhoods, channel_names
from precip_postproc.resunet_qpf.prepare import SPLITS
from precip_postproc.resunet_qpf.readers.files import HOUR
from precip_postproc.resunet_qpf.seasons import Calendar, DemoCalendar
from precip_postproc.resunet_qpf.sources import (
    ForecastSource,
    GfsSource,
    GribForecasts,
    NetcdfForecasts,
    RemappedTargets,
    TargetSource,
)

logger = logging.getLogger(__name__)

Split = Literal["train", "validation", "test"]


class QpfData(ExperimentData):
    """Forecasts of hourly precipitation with the radar analyses of the same hours.

    Forecasts of GRAF (proprietary) or HRRR (NOAA, open) in GRIB2, or of any model in NetCDF or Zarr; analyses of MRMS
    (NOAA/NSSL, open); terrain of the forecast's grid; optionally predictors of GFS. The demo is simulated in the same
    files.

    Args:
        dataset: name of the folder below ``data/raw`` and of the processed store.
        forecasts: source of the forecasts; by default that of the demo.
        targets: source of the analyses; by default that of the demo.
        terrain: file of the terrain; by default ``GRAF_CONUS_terrain_info.nc`` in the raw folder.
        coarse: predictors of a global model.
        demo: makes the raw files when they are missing.
        calendar: which days are learnt from and tested on; by default those of the demo.
        leads: lead times, h; one alone is the mode of a network per lead time.
        neighbourhoods: how far around a point the forecast is looked at.
        patch: rows and columns of training patches.
        patches_per_epoch: number of patches in an epoch, of all processes together.
        strata: shares of dry, light, moderate and heavy patches.
        batch_size: patches per training batch (and rank).
        eval_batch_size: whole fields per batch of validation and test.
        validation_cases: at most that many whole fields are validated on, spread over all.
        max_missing_fraction: share of the forecasts that may lack a file.
        num_workers: processes that read; 0 reads in a thread.
        seed: of the draws.
        predict_init: initial time that ``predict`` makes a product of.
        predict_leads: its lead times, h; by default ``leads``.
        scheduler: address of a Dask scheduler for the preparation.
    """

    def __init__(
        self,
        dataset: str = "demo",
        forecasts: ForecastSource | None = None,
        targets: TargetSource | None = None,
        terrain: Path | None = None,
        coarse: GfsSource | None = None,
        demo: DemoSettings | None = None,
        calendar: Calendar | None = None,
        leads: list[int] | None = None,
        neighbourhoods: Neighbourhoods | None = None,
        patch: int = 64,
        patches_per_epoch: int = 1600,
        strata: Strata | None = None,
        batch_size: int = 16,
        eval_batch_size: int = 4,
        validation_cases: int = 160,
        max_missing_fraction: float = 0.2,
        num_workers: int = 0,
        seed: int = 0,
        predict_init: str | None = None,
        predict_leads: list[int] | None = None,
        scheduler: str | None = None,
    ) -> None:
        super().__init__()
        self.dataset, self.demo = dataset, demo
        folder = data_folder(config.USE_CASE)
        self.raw = folder / "raw" / dataset
        self.store = folder / "processed" / f"{dataset}.zarr"
        self._forecasts, self._targets = forecasts, targets
        self.terrain = terrain or self.raw / "GRAF_CONUS_terrain_info.nc"
        self.coarse = coarse
        if demo is not None and coarse is not None and not coarse.folder.is_absolute():
            self.coarse = GfsSource(self.raw / coarse.folder, coarse.names, coarse.on_missing)
        self.calendar = calendar
        self.leads = sorted(leads or (demo.leads if demo is not None else ()))
        if any(lead < 1 for lead in self.leads) or len(set(self.leads)) < len(self.leads):
            raise InputError(f"data.leads must be different whole hours from 1 on, not {leads}")
        self.neighbourhoods = neighbourhoods or Neighbourhoods()
        self.patch, self.patches_per_epoch, self.strata = patch, patches_per_epoch, strata or Strata()
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.validation_cases = validation_cases
        self.max_missing_fraction = max_missing_fraction
        self.num_workers, self.seed = num_workers, seed
        self.predict_init, self.predict_leads = predict_init, predict_leads
        self.scheduler = scheduler
        self._manifest: Manifest | None = None
        self._rows: dict[str, NDArray[np.int64]] = {}

    # -- raw to processed

    @property
    def forecasts(self) -> ForecastSource:
        """Source of the forecasts."""
        if self._forecasts is None:
            if self.demo is None:
                raise InputError("data needs data.forecasts and data.targets for raw data, or data.demo")
            grib = self.raw / "forecast"
            self._forecasts = GribForecasts(grib) if grib.is_dir() else NetcdfForecasts(self.raw / "forecast.nc")
        return self._forecasts

    @property
    def targets(self) -> TargetSource:
        """Source of the analyses."""
        if self._targets is None:
            if self.demo is None:
                raise InputError("data needs data.forecasts and data.targets for raw data, or data.demo")
            self._targets = RemappedTargets(self.raw / "target")
        return self._targets

    @property
    def channels(self) -> list[str]:
        """Names of the fields of a batch."""
        return channel_names(self.neighbourhoods, [] if self.coarse is None else self.coarse.names)

    def prepare_data(self) -> None:
        """Make what is missing: the demo's files, the processed store.

        Raises:
            InputError: settings that contradict each other, files that are missing or hold what they should not.
        """
        if self.demo is not None:
            write_demo(self.raw, self.demo)
        if self.trainer is not None and self.trainer.predicting:
            return
        if not self.leads:
            raise InputError("data.leads must name the lead times, h")
        cases = self._calendar().cases(self.leads)
        missing = find_missing(cases, self.forecasts, self.targets, self.coarse)
        cases = leave_out(cases, missing, self.max_missing_fraction)
        prepare.build(self.store, self._raw(cases), cases, scheduler=self.scheduler)

    def _calendar(self) -> Calendar:
        if self.calendar is not None:
            return self.calendar
        if self.demo is None:
            raise InputError("data needs data.calendar: which days are learnt from and tested on")
        return DemoCalendar(self.demo)

    def _raw(self, cases: CaseList) -> prepare.Raw:
        """All sources, on the grid of the first forecast."""
        if not len(cases):
            raise InputError("there is no forecast whose files are all there")
        first = self.forecasts.read(cases.init[0], int(cases.lead[0]))
        return prepare.Raw(self.forecasts, self.targets, self.terrain, self.coarse, self.neighbourhoods, first.grid)

    def setup(self, stage: str) -> None:
        """Open the store that :meth:`prepare_data` made, and find the rows of the splits.

        Raises:
            InputError: a split has no case, or the patch is larger than the domain.
        """
        if stage == "predict" or self._rows:
            return
        self._manifest = read_manifest(self.store)
        with open_store(self.store) as store:
            splits, usable = store["split"].values, store["usable"].values
            self._leads, self._inits = store["lead"].values, store["init"].values
            self._peaks = store["peak"].values
        for split in SPLITS:
            there = splits == SPLITS.index(split)
            rows = np.flatnonzero(there & (usable > 0))
            if dropped := int(there.sum()) - len(rows):
                logger.warning("%s: %d of %d cases have nothing to learn from: left out", split, dropped, there.sum())
            if not len(rows):
                raise InputError(f"the {split} split has no case with usable analyses")
            self._rows[split] = rows

    @property
    def _known(self) -> Manifest:
        if self._manifest is None:
            raise RuntimeError("call prepare_data() and setup() first")
        return self._manifest

    def climate(self) -> Climate:
        """How often which amounts were analysed in training."""
        places, numbers = self._known.statistics["amounts"]
        counts = np.zeros(max(places) + 1, np.int64)
        counts[places] = numbers
        return Climate(counts)

    def coarse_means(self) -> dict[str, float]:
        """Means of the coarse predictors over the training cases, by name."""
        means = self._known.statistics.get("coarse")
        return {} if self.coarse is None or means is None else dict(zip(self.coarse.names, means, strict=True))

    @property
    def grid(self) -> dict[str, Any]:
        """What identifies the grid, see :func:`~precip_postproc.resunet_qpf.prepare.describe_grid`."""
        described: dict[str, Any] = dict(self._known.settings["grid"])
        return described

    def inits(self, rows: list[int]) -> list[str]:
        """Initial times of rows of the store."""
        return [str(init) for init in self._inits[rows].astype("datetime64[h]")]

    def describe(self) -> dict[str, Any]:
        """What the provenance records of the data."""
        if self._manifest is None:
            return {"init": self.predict_init, "leads": self.predict_leads or self.leads}
        cases = {split: len(rows) for split, rows in self._rows.items()}
        return {"fingerprint": self._manifest.fingerprint, "store": str(self.store), "cases": cases}

    def summary(self) -> Table:
        """How many cases and which amounts every split has, by lead time."""
        table = Table(title=f"forecasts of {self.dataset}, {' x '.join(map(str, self.grid['shape']))} points")
        for heading in ("split", "lead [h]", "cases", "wet patches [%]", "largest forecast [mm]"):
            table.add_column(heading, justify="left" if heading == "split" else "right")
        for split, rows in self._rows.items():
            for lead in np.unique(self._leads[rows]):
                peaks = self._peaks[rows[self._leads[rows] == lead]]
                wet = 100 * float((peaks >= config.EDGES[0]).mean())
                table.add_row(split, f"{lead}", f"{len(peaks)}", f"{wet:.1f}", f"{peaks.max():.1f}")
        return table

    # -- processed to batches

    def _dataset(self, least_quality: float) -> CaseDataset:
        coarse = self._known.statistics.get("coarse")
        return CaseDataset(
            str(self.store),
            self.channels,
            least_quality=least_quality,
            patch=self._patch,
            coarse=coarse,
        )

    @property
    def _shape(self) -> tuple[int, int]:
        """Rows and columns of the domain."""
        height, width = self.grid["shape"]
        return height, width

    @property
    def _patch(self) -> tuple[int, int]:
        """Rows and columns of a patch: at most those of the domain, which a network pads to its multiple."""
        height, width = self._shape
        patch = min(self.patch, height), min(self.patch, width)
        if patch != (self.patch, self.patch):
            logger.warning(
                "data.patch %d is larger than the domain %d x %d: patches are %d x %d",
                self.patch,
                height,
                width,
                *patch,
            )
        return patch

    def train_dataloader(self) -> BatchLoader:
        """Patches, drawn anew each epoch."""
        rank, world_size = self.processes
        rows = self._rows["train"]
        sampler = PatchSampler(
            rows,
            self._leads[rows],
            self._peaks[rows],
            self._shape,
            patch=self._patch,
            n_patches=self.patches_per_epoch,
            batch_size=self.batch_size,
            strata=self.strata,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
        )
        return BatchLoader(self._dataset(config.TRAINING_QUALITY), sampler, num_workers=self.num_workers)

    def val_dataloader(self) -> BatchLoader:
        """Whole fields of validation cases, where they are too many as many of each lead time, spread over all days."""
        rows = self._rows["validation"]
        if len(rows) > self.validation_cases:
            most = max(1, self.validation_cases // len(self.leads))
            by_lead = [rows[self._leads[rows] == lead].tolist() for lead in self.leads]
            rows = np.array(sorted(row for members in by_lead for row in spread(members, most)), np.int64)
        return self._whole(rows)

    def test_dataloader(self) -> BatchLoader:
        """Whole fields of test cases in order."""
        return self._whole(self._rows["test"])

    def _whole(self, rows: NDArray[np.int64]) -> BatchLoader:
        rank, world_size = self.processes
        sampler = RowSampler(rows, self._evaluation_batch(len(rows)), rank=rank, world_size=world_size)
        return BatchLoader(self._dataset(config.VERIFICATION_QUALITY), sampler, num_workers=self.num_workers)

    def _evaluation_batch(self, n: int) -> int:
        return evaluation_batch_size(n, self.eval_batch_size, self.processes[1])

    def predict_dataloader(self) -> DataLoader[Any]:
        """One batch per lead time of a cycle, shared out over the processes."""
        cycle = self._cycle()
        rank, world_size = self.processes
        return DataLoader(cycle, batch_size=None, sampler=range(rank, len(cycle), world_size))

    def _cycle(self) -> CycleDataset:
        if self.predict_init is None:
            raise InputError("predict needs --data.predict_init 2025-12-01T00")
        try:
            init = np.datetime64(self.predict_init, "s")
        except ValueError as error:
            raise InputError(f"data.predict_init: {error}; write a time as 2025-12-01T00") from error
        leads = sorted(self.predict_leads or self.leads)
        if not leads:
            raise InputError("predict needs lead times: data.predict_leads")
        trained_on = getattr(self.trainer.lightning_module, "trained_on", None) if self.trainer else None
        means = {} if trained_on is None else trained_on.coarse
        return CycleDataset(self.forecasts, self.terrain, self.coarse, self.neighbourhoods, init, leads, means)

    # -- predictions

    def prediction_template(self, stage: str) -> xr.Dataset:
        """What labels predictions (sample, y, x); the model adds its variables. ``predict`` has the forecast, too."""
        if stage == "test":
            rows = self._rows["test"]
            with open_store(self.store) as store:
                coords: dict[str, Any] = {name: store[name].load() for name in ("latitude", "longitude")}
                init, lead = (store[name].values[rows] for name in ("init", "lead"))
            attrs: dict[str, Any] = {"title": "probabilities of precipitation", "store": str(self.store)}
            attrs["fingerprint"] = self._known.fingerprint
            if (self.raw / "ideal").is_dir():
                attrs["ideal"] = str(self.raw / "ideal")
            described = self.grid
        else:
            cycle = self._cycle()
            rows = np.arange(len(cycle))
            init, lead = np.repeat(cycle.init, len(rows)), np.array(cycle.leads)
            grid = cycle.grid
            coords = {
                "latitude": (prepare.GRID, grid.latitude, {"units": "degrees_north", "standard_name": "latitude"}),
                "longitude": (prepare.GRID, grid.longitude, {"units": "degrees_east", "standard_name": "longitude"}),
            }
            attrs, described = {"title": "probabilities of precipitation"}, prepare.describe_grid(grid)
        attrs["grid"] = json.dumps(described)
        valid = init.astype("datetime64[s]") + lead * HOUR
        coords |= {
            "row": ("sample", rows, {"long_name": "row of the processed store"}),
            "forecast_reference_time": ("sample", init.astype("datetime64[ns]")),
            "lead_time": ("sample", lead, {"units": "hours", "standard_name": "forecast_period"}),
            "valid_time": ("sample", valid.astype("datetime64[ns]")),
        }
        return xr.Dataset(coords=coords, attrs=attrs)

    def prediction_batch(self, stage: str) -> int:
        """Fields per batch of a stage, which are a chunk of its predictions."""
        return self._evaluation_batch(len(self._rows["test"])) if stage == "test" else 1
