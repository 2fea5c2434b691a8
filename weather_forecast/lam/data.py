"""The use case's data module: raw fields found or simulated, processed, and given out as windows of time."""

import logging
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import dask.array
import numpy as np
import torch
import xarray as xr
from rich.table import Table
from torch.utils.data import DataLoader

from ai4sim.datamodule import ExperimentData
from ai4sim.errors import InputError
from ai4sim.experiment import data_folder
from ai4sim.flat import make_flat
from ai4sim.loading import BatchLoader, BlockBatchSampler
from ai4sim.manifest import Manifest
from ai4sim.normalization import FeatureStatistics
from ai4sim.sampling import evaluation_batch_size
from ai4sim.store import open_store, read_manifest
from ai4sim.windows import Windows, find_windows
from weather_forecast.lam import config, prepare
from weather_forecast.lam.accessors import DataAccessor, TitanNpyAccessor, ZarrAccessor
from weather_forecast.lam.borders import Treatment, border_weights
from weather_forecast.lam.demo import DemoSettings, write_demo
from weather_forecast.lam.domain import DatasetInfo
from weather_forecast.lam.parameters import Parameter, parse_all
from weather_forecast.lam.periods import Period
from weather_forecast.lam.windows import LamWindows, OperationalWindows

logger = logging.getLogger(__name__)

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class LamData(ExperimentData):
    """Fields of a limited area over time, in windows of input states and target states.

    Variables are parameters such as ``aro_t_850hpa`` (K), see :mod:`weather_forecast.lam.config`; dimensions time,
    latitude, longitude. TITAN (Meteo-France, "Licence Ouverte"): hourly analyses of AROME (512 x 640 points of 2.5 km)
    and fields of ARPEGE, 2020 to 2024; a sample of three days is public. MEPS (MetCoOp): 3-hourly forecasts, 268 x 238
    points of 10 km. The demo is simulated in TITAN's schema.

    Args:
        dataset: name of the folder below ``data/raw`` and of the processed store.
        accessor: reads the raw data; by default TITAN's Zarr store of the demo.
        demo: makes the raw data when they are missing.
        state: parameters that are forecast and fed back.
        diagnostics: parameters that are forecast and not fed back.
        forcing: parameters of the host that are known for the target times.
        crop: first row, row after the last, first column, column after the last.
        border_size: width of the border in cells, in which the boundary's values are prescribed.
        border: ``hard`` or ``davies``.
        periods: first and last day of train, validation and test; by default those of the demo.
        step_hours: between two states.
        n_inputs: number of input states.
        n_targets: target times in training.
        n_targets_eval: target times in validation and test.
        every_hours: hours between initial times in training; by default all times of the data.
        every_hours_eval: hours between initial times in validation and test.
        run_hours: hours of the day at which forecasts begin; by default all.
        batch_size: windows per training batch (and rank).
        eval_batch_size: windows per batch of validation and test.
        reader: ``zarr`` reads the processed store, ``float32`` or ``int16`` a flat copy of it that is made once.
        num_workers: processes that read; 0 reads in a thread.
        skip_bad: leave out times whose files cannot be read, instead of stopping; each is read once beforehand.
        seed: of the shuffling.
        predict_times: initial times that ``predict`` forecasts from.
        n_predict: number of steps of ``predict``; by default ``n_targets_eval``.
        predict_truth: whether the states at the target times are read, for a boundary of truth.
        scheduler: address of a Dask scheduler for the preparation.
    """

    def __init__(
        self,
        dataset: str = "demo",
        accessor: DataAccessor | None = None,
        demo: DemoSettings | None = None,
        state: list[str] | None = None,
        diagnostics: list[str] | None = None,
        forcing: list[str] | None = None,
        crop: tuple[int, int, int, int] | None = None,
        border_size: int = 10,
        border: Treatment = "hard",
        periods: dict[Split, Period] | None = None,
        step_hours: float = 3.0,
        n_inputs: int = 1,
        n_targets: int = 1,
        n_targets_eval: int = 8,
        every_hours: float | None = None,
        every_hours_eval: float | None = 3.0,
        run_hours: list[int] | None = None,
        batch_size: int = 4,
        eval_batch_size: int = 8,
        reader: Literal["zarr", "float32", "int16"] = "zarr",
        num_workers: int = 0,
        skip_bad: bool = False,
        seed: int = 0,
        predict_times: list[str] | None = None,
        n_predict: int | None = None,
        predict_truth: bool = False,
        scheduler: str | None = None,
    ) -> None:
        super().__init__()
        self.state, self.diagnostics, self.forcing = state or [], diagnostics or [], forcing or []
        parse_all([*self.state, *self.diagnostics, *self.forcing])
        if step_hours <= 0:
            raise InputError(f"data.step_hours must be positive, not {step_hours}")
        for name, value in (("n_inputs", n_inputs), ("n_targets", n_targets), ("n_targets_eval", n_targets_eval)):
            if value < 1:
                raise InputError(f"data.{name} must be at least 1, not {value}")
        self.demo = demo
        if periods is None and demo is not None:
            periods = {split: Period(*map(str, demo.periods[split])) for split in SPLITS}
        _check_periods(periods or {})
        self.periods = periods or {}
        folder = data_folder(config.USE_CASE)
        self.raw = folder / "raw" / dataset
        self._accessor = accessor
        self._makes_demo = demo is not None and accessor is None
        self.selection = prepare.FieldSelection((*self.state, *self.diagnostics), tuple(self.forcing), crop)
        self.border_size, self.border = border_size, border
        self.step = np.timedelta64(round(step_hours * 3600), "s")
        self.n_inputs, self.n_targets, self.n_targets_eval = n_inputs, n_targets, n_targets_eval
        self.every = None if every_hours is None else np.timedelta64(round(every_hours * 3600), "s")
        self.every_eval = None if every_hours_eval is None else np.timedelta64(round(every_hours_eval * 3600), "s")
        self.run_hours = run_hours
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.reader, self.num_workers, self.seed = reader, num_workers, seed
        self.predict_times, self.n_predict, self.predict_truth = predict_times, n_predict, predict_truth
        self.scheduler = scheduler
        self.skip_bad = skip_bad
        self.dataset = dataset
        self.store = folder / "processed" / f"{dataset}.zarr"
        self._windows: dict[str, Windows] = {}
        self._info: DatasetInfo | None = None
        self._manifest: Manifest | None = None

    # -- raw to processed

    @property
    def accessor(self) -> DataAccessor:
        """Of the raw data."""
        if self._accessor is None:
            assert self.demo is not None
            path = self.raw / self.demo.path
            self._accessor = ZarrAccessor(path) if self.demo.layout == "zarr" else TitanNpyAccessor(path)
        return self._accessor

    def _require_settings(self) -> None:
        """Refuse what only commands that read no data can do without."""
        if self._accessor is None and self.demo is None:
            raise InputError("data needs data.accessor for raw data, or data.demo")
        if not self.state:
            raise InputError("data.state must name the parameters to forecast, such as aro_t_850hpa")
        missing = [split for split in SPLITS if split not in self.periods]
        if missing:
            raise InputError(f"data.periods has no {missing[0]}: give first and last day of {', '.join(SPLITS)}")

    def prepare_data(self) -> None:
        """Make what is missing: the demo, the processed store, its flat copy."""
        self._require_settings()
        if self._makes_demo:
            assert self.demo is not None
            write_demo(self.raw, self.demo)
        if self.trainer is not None and self.trainer.predicting:
            return
        prepare.build(
            self.store,
            self.accessor,
            self.selection,
            train=self.periods["train"],
            step=self.step,
            skip_bad=self.skip_bad,
            scheduler=self.scheduler,
        )
        if self.reader != "zarr":
            make_flat(self.store, self._source, variables=self._variables, dtype=self.reader)

    @property
    def _source(self) -> Path:
        return self.store if self.reader == "zarr" else self.store.with_suffix(f".{self.reader}")

    @property
    def _variables(self) -> list[str]:
        return ["state", "forcing"] if self.forcing else ["state"]

    def setup(self, stage: str) -> None:
        """Open the store that :meth:`prepare_data` made, and find the windows of the splits.

        Raises:
            InputError: a split has no window.
        """
        if stage == "predict" or self._windows:
            return
        self._manifest = read_manifest(self.store)
        with open_store(self.store) as store:
            self._times = store["time"].values.astype("datetime64[s]")
            sequences = store["sequence"].values
            self._coords = {str(name): store[name].load() for name in store.coords if name not in {"time", "sequence"}}
            self._units = dict(
                zip(store["state"].attrs["features"], store["state"].attrs["feature_units"], strict=True)
            )
        for split in SPLITS:
            training = split == "train"
            found = find_windows(
                self._times,
                step=self.step,
                n_inputs=self.n_inputs,
                n_targets=self.n_targets if training else self.n_targets_eval,
                start=self.periods[split].first,
                end=self.periods[split].last,
                every=self.every if training else self.every_eval,
                hours=self.run_hours,
                sequences=sequences if sequences.any() else None,
            )
            first = "" if found.first_missing is None else f" (first missing: {found.first_missing})"
            logger.info("%s: %d windows, %d dropped%s", split, len(found), found.dropped, first)
            if not len(found):
                raise InputError(
                    f"{split}: no window of {self.n_inputs} + {self.n_targets if training else self.n_targets_eval} "
                    f"times of {self.step / np.timedelta64(1, 'h'):g} h in {self.periods[split]}{first}"
                )
            self._windows[split] = found

    def info(self) -> DatasetInfo:
        """What a model must know of the data."""
        if self._info is None:
            assert self._manifest is not None, "call prepare_data() and setup() first"
            grid = {
                name: torch.from_numpy(self._coords[name].values.astype(np.float64))
                for name in ("latitude", "longitude", "x", "y", "geopotential")
            }
            shape = tuple(grid["x"].shape)
            border = border_weights((shape[0], shape[1]), self.border_size, self.border)
            statistics = {key: FeatureStatistics.from_dict(v) for key, v in self._manifest.statistics.items()}
            self._info = DatasetInfo(
                name=self.dataset,
                state=self.state,
                diagnostics=self.diagnostics,
                forcing=self.forcing,
                units=self._units | {name: Parameter.parse(name).units for name in self.forcing},
                step_seconds=int(self.step / np.timedelta64(1, "s")),
                **grid,
                border=torch.from_numpy(border),
                state_statistics=statistics["state"],
                difference_statistics=statistics["difference"],
                gradient_statistics=statistics["gradient"],
                forcing_statistics=statistics.get("forcing"),
                solar_statistics=statistics["toa_radiation"],
            )
        return self._info

    def describe(self) -> dict[str, Any]:
        """What the provenance records of the data."""
        if self._manifest is None:
            return {"input": self.accessor.label, "times": self.predict_times}
        windows = {split: len(found) for split, found in self._windows.items()}
        return {"fingerprint": self._manifest.fingerprint, "store": str(self.store), "windows": windows}

    def summary(self) -> Table:
        """All parameters that are forecast, with their statistics."""
        return self.info().summary()

    # -- processed to batches

    def windows(self, split: Split) -> Windows:
        """Windows of a split."""
        return self._windows[split]

    def _loader(self, split: Split, *, batch_size: int, shuffle: bool) -> BatchLoader:
        rank, world_size = self.processes
        found = self._windows[split]
        dataset = LamWindows(
            self._source,
            self._variables,
            found.rows,
            times=self._times,
            grid=(self._coords["latitude"].values, self._coords["longitude"].values),
            n_inputs=self.n_inputs,
        )
        sampler = BlockBatchSampler(
            len(found), batch_size, shuffle=shuffle, block=1, seed=self.seed, rank=rank, world_size=world_size
        )
        return BatchLoader(dataset, sampler, num_workers=self.num_workers)

    def train_dataloader(self) -> BatchLoader:
        """Shuffled training batches."""
        return self._loader("train", batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> BatchLoader:
        """Validation batches in order."""
        return self._loader("validation", batch_size=self._evaluation_batch("validation"), shuffle=False)

    def test_dataloader(self) -> BatchLoader:
        """Test batches in order."""
        return self._loader("test", batch_size=self._evaluation_batch("test"), shuffle=False)

    def _evaluation_batch(self, split: Split) -> int:
        return evaluation_batch_size(len(self._windows[split]), self.eval_batch_size, self.processes[1])

    def predict_dataloader(self) -> DataLoader[Any]:
        """One batch per initial time, shared out over the processes."""
        windows = self._operational()
        rank, world_size = self.processes
        return DataLoader(windows, batch_size=None, sampler=range(rank, len(windows), world_size))

    def _operational(self) -> OperationalWindows:
        if not self.predict_times:
            raise InputError("predict needs --data.predict_times [2023-01-01T00, ...]")
        try:
            times = np.array(self.predict_times, dtype="datetime64[s]")
        except ValueError as error:
            raise InputError(f"data.predict_times: {error}; write times as 2023-01-01T00") from error
        return OperationalWindows(
            self.accessor,
            self.selection,
            times,
            step=self.step,
            n_inputs=self.n_inputs,
            n_steps=self.n_predict or self.n_targets_eval,
            with_truth=self.predict_truth,
        )

    # -- predictions

    def prediction_template(self, stage: str) -> xr.Dataset:
        """Empty forecasts: one variable (sample, lead_time, lat, lon) per parameter, and what labels them."""
        attrs: dict[str, Any] = {"title": "limited-area forecast", "Conventions": "CF-1.11"}
        if stage == "test":
            found = self._windows["test"]
            times, n_steps, batch = found.times, self.n_targets_eval, self._evaluation_batch("test")
            coords: dict[str, Any] = {
                name: self._coords[name] for name in ("latitude", "longitude", "x", "y", "geopotential")
            }
            grid_shape = self.info().shape
            coords["border"] = xr.DataArray(self.info().border.numpy(), dims=("lat", "lon"))
            coords["rows"] = (("sample", "step"), found.rows)
            units = self._units
            attrs |= {"store": str(self.store), "n_inputs": self.n_inputs}
        else:
            windows = self._operational()
            times, n_steps, batch = windows.times, windows.n_steps, 1
            grid = windows.grid
            grid_shape = grid.shape
            coords = {
                "latitude": (("lat", "lon"), grid.latitude, {"units": "degrees_north", "standard_name": "latitude"}),
                "longitude": (("lat", "lon"), grid.longitude, {"units": "degrees_east", "standard_name": "longitude"}),
            }
            attrs["source"] = self.accessor.label
            units = self.accessor.parameters()
        lead = np.arange(1, n_steps + 1) * (self.step / np.timedelta64(1, "h"))
        coords |= {
            "row": ("sample", np.arange(len(times)), {"long_name": "number of the window"}),
            "forecast_reference_time": ("sample", times.astype("datetime64[ns]"), {
                "standard_name": "forecast_reference_time", "long_name": "initial time",
            }),
            "lead_time": ("lead_time", lead, {"standard_name": "forecast_period", "units": "hours"}),
            "block": ("sample", times.astype("datetime64[D]").astype(np.int64), {"long_name": "initial day"}),
        }  # fmt: skip
        variables = {}
        for name in self.selection.state:
            shape = (len(times), n_steps, *grid_shape)
            values = dask.array.zeros(shape, dtype=np.float32, chunks=(batch, *shape[1:]))
            variables[name] = (("sample", "lead_time", "lat", "lon"), values, _attributes(name, units[name]))
        return xr.Dataset(variables, coords, attrs)


def _attributes(name: str, units: str) -> dict[str, str]:
    parameter = Parameter.parse(name)
    attributes = {"units": units, "long_name": parameter.title}
    if parameter.field.standard_name:
        attributes["standard_name"] = parameter.field.standard_name
    return attributes


def _check_periods(periods: Mapping[Split, Period]) -> None:
    """Refuse periods that overlap: what is tested must not have been seen."""
    ordered = sorted(periods.items(), key=lambda item: item[1].first)
    for (one, earlier), (other, later) in pairwise(ordered):
        if later.first < earlier.last:
            raise InputError(f"the periods of {one} ({earlier}) and {other} ({later}) overlap")
