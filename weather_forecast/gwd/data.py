"""The use case's data module: raw files found or made, processed, and given out in batches."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import dask.array
import numpy as np
import torch
import xarray as xr
from rich.table import Table
from torch.utils.data import DataLoader, Dataset

from ai4sim.datamodule import ExperimentData, statistics_table
from ai4sim.errors import InputError
from ai4sim.experiment import data_folder
from ai4sim.flat import make_flat
from ai4sim.loading import BatchDataset, BatchLoader, BlockBatchSampler
from ai4sim.manifest import Manifest
from ai4sim.normalization import FeatureStatistics
from ai4sim.sampling import evaluation_batch_size
from ai4sim.splits import check_members
from ai4sim.store import open_store, read_manifest
from weather_forecast.gwd import config, prepare
from weather_forecast.gwd.demo import DemoSettings, write_demo
from weather_forecast.gwd.layout import ColumnLayout
from weather_forecast.gwd.levels import get_grid
from weather_forecast.gwd.raw import RawFile, bad_rows, find_file
from weather_forecast.gwd.spectrum import SchemeParameters

logger = logging.getLogger(__name__)

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class GwdData(ExperimentData):
    """Columns and their gravity-wave tendencies: the public "maelstrom-nogwd" data, the demo, or files of that schema.

    Variables: ``x`` (row, 191), profiles of u, v (m s-1) and T (K) on the top 63 of 91 hybrid levels, surface
    pressure (Pa), geopotential of the lowest level above ground (m2 s-2); ``y`` (row, 126), du/dt and dv/dt (m s-2).
    One file per 30-day forecast, named by its start date; HDF5 or NetCDF-4; 54 GB in 18 files. Source: ECMWF, CC BY 4.0
    (Chantry et al. 2021, JAMES 13, e2021MS002477).

    Args:
        dataset: name of the folder below ``data/raw`` and of the processed store.
        raw: folder of the raw files, when they are elsewhere.
        splits: start dates of train, validation and test; by default those of the public data.
        test_files: raw files to test on instead of start dates, below the raw folder or anywhere; the demo does
            not make them.
        demo: makes the raw files when they are missing.
        layout: order and number of features; further scalars such as ``lat`` are taken from the files' auxiliaries.
        grid: the levels' vertical grid, ``L91``, ``L137`` or a CSV file of (a, b).
        truth: parameters of the scheme that made the targets, or come nearest to it: the reference of the scorecard
            uses them; by default those of the demo.
        truth_is_exact: whether the targets are that scheme's own, so that the reference is what can be attained.
        batch_size: columns per training batch (and rank).
        eval_batch_size: columns per batch of validation, test and prediction.
        reader: ``zarr`` reads the processed store, ``float32`` or ``int16`` a flat copy of it that is made once.
        on_bad_rows: ``raise`` names the first impossible row; ``drop`` leaves such rows out and says how many.
        num_workers: processes that read; 0 reads in a thread.
        seed: of the shuffling.
        predict_input: file of the raw schema (``x`` alone suffices) that ``predict`` reads.
        scheduler: address of a Dask scheduler for the preparation.
    """

    def __init__(
        self,
        dataset: str = "demo",
        raw: Path | None = None,
        splits: dict[Split, list[str]] | None = None,
        test_files: list[Path] | None = None,
        demo: DemoSettings | None = None,
        layout: ColumnLayout | None = None,
        grid: str = "L91",
        truth: SchemeParameters | None = None,
        truth_is_exact: bool = True,
        batch_size: int = 256,
        eval_batch_size: int = 4096,
        reader: Literal["zarr", "float32", "int16"] = "zarr",
        on_bad_rows: Literal["raise", "drop"] = "raise",
        num_workers: int = 0,
        seed: int = 0,
        predict_input: Path | None = None,
        scheduler: str | None = None,
    ) -> None:
        super().__init__()
        given: dict[str, Sequence[str]] = dict(config.SPLIT_DATES)
        if splits is not None:
            given = {str(name): dates for name, dates in splits.items()}
        names = SPLITS if test_files is None else SPLITS[:2]
        self.splits: dict[str, list[str]] = {name: list(given.get(name, ())) for name in names}
        check_members(self.splits)
        self.dataset = dataset
        self.demo = demo
        self.layout = layout or ColumnLayout()
        self.grid = grid
        made = SchemeParameters() if demo is None else SchemeParameters(n_azimuths=demo.azimuths, n_speeds=demo.speeds)
        self.truth = truth or made
        self.truth_is_exact = truth_is_exact
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.reader = reader
        self.on_bad_rows = on_bad_rows
        self.num_workers = num_workers
        self.seed = seed
        self.predict_input = predict_input
        self.scheduler = scheduler
        folder = data_folder(config.USE_CASE)
        self.raw = raw or folder / "raw" / dataset
        self.test_files = None if test_files is None else [self.raw / file for file in test_files]
        self.store = folder / "processed" / f"{dataset}.zarr"
        self.manifest: Manifest | None = None

    # -- raw to processed

    def prepare_data(self) -> None:
        """Make what is missing: demo files, processed store, flat copy."""
        if self.trainer is not None and self.trainer.predicting:
            self._input_file()
            return
        if self.demo is not None:
            write_demo(self.raw, self.demo, self.splits)
        if not self.raw.is_dir() and self.store.is_dir():
            logger.warning("the raw files %s are gone: using the store made from them, %s", self.raw, self.store)
        else:
            prepare.build(
                self.store,
                self._raw_files(),
                layout=self.layout,
                grid=self.grid,
                on_bad_rows=self.on_bad_rows,
                scheduler=self.scheduler,
            )
        if self.reader != "zarr":
            make_flat(self.store, self._source, variables=["x", "y"], dtype=self.reader)

    def _raw_files(self) -> dict[str, list[Path]]:
        """Raw files of every split."""
        files = {split: [find_file(self.raw, date) for date in dates] for split, dates in self.splits.items()}
        return files if self.test_files is None else {**files, "test": self.test_files}

    @property
    def _source(self) -> Path:
        return self.store if self.reader == "zarr" else self.store.with_suffix(f".{self.reader}")

    def setup(self, stage: str) -> None:
        """Open the store that :meth:`prepare_data` made.

        Raises:
            InputError: the store holds columns of another layout.
        """
        if stage == "predict":
            return
        self.manifest = read_manifest(self.store)
        stored = ColumnLayout(self.manifest.settings["n_levels"], tuple(self.manifest.settings["scalars"]))
        if stored != self.layout:
            raise InputError(f"{self.store} holds columns of {stored}, expected {self.layout}: run prepare")
        self._dataset = BatchDataset(self._source, ["x", "y"])

    def statistics(self, name: str) -> FeatureStatistics:
        """Statistics of ``x`` or ``y`` over the training rows."""
        return FeatureStatistics.from_dict(self._known.statistics[name])

    def rows(self, split: Split) -> slice:
        """Rows of a split in the store."""
        return slice(*self._known.settings["ranges"][split])

    @property
    def _known(self) -> Manifest:
        if self.manifest is None:
            raise RuntimeError("call prepare_data() and setup() first")
        return self.manifest

    def describe(self) -> dict[str, Any]:
        """What the provenance records of the data."""
        if self.manifest is None:
            return {"input": str(self.predict_input)}
        ranges = sorted(self.manifest.settings["ranges"].items(), key=lambda item: item[1])
        sizes = {split: stop - start for split, (start, stop) in ranges}
        return {"fingerprint": self.manifest.fingerprint, "store": str(self.store), "rows": sizes}

    def summary(self) -> Table:
        """All features of the columns, with their statistics."""
        features = []
        for array, kind, n in (("x", "input", self.layout.n_inputs), ("y", "output", self.layout.n_outputs)):
            names = [self.layout.describe(i, kind) for i in range(n)]
            units = [config.UNITS[name.split()[0].lower()] for name in names]
            features.append((names, units, self.statistics(array)))
        return statistics_table(f"columns of {self.dataset}, {self.layout.n_levels} levels", features)

    # -- processed to batches

    def _loader(self, split: Split, *, batch_size: int, shuffle: bool) -> BatchLoader:
        rank, world_size = self.processes
        sampler = BlockBatchSampler(
            [self.rows(split)],
            batch_size,
            shuffle=shuffle,
            block=prepare.CHUNK_ROWS,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
        )
        return BatchLoader(self._dataset, sampler, num_workers=self.num_workers)

    def train_dataloader(self) -> BatchLoader:
        """Shuffled training batches: ``x`` (B, n_inputs), ``y`` (B, n_outputs), ``index`` (B,)."""
        return self._loader("train", batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> BatchLoader:
        """Validation batches in order."""
        return self._loader("validation", batch_size=self._evaluation_batch(self.rows("validation")), shuffle=False)

    def test_dataloader(self) -> BatchLoader:
        """Test batches in order."""
        return self._loader("test", batch_size=self._evaluation_batch(self.rows("test")), shuffle=False)

    def _evaluation_batch(self, rows: slice) -> int:
        return evaluation_batch_size(rows.stop - rows.start, self.eval_batch_size, self.processes[1])

    def predict_dataloader(self) -> DataLoader[Any]:
        """Batches of the input file, shared out over the processes by whole batches."""
        file = self._input_file()
        batches = RawBatches(file, self._evaluation_batch(slice(0, file.n_rows)), self.on_bad_rows)
        rank, world_size = self.processes
        return DataLoader(batches, batch_size=None, sampler=range(rank, len(batches), world_size))

    def _input_file(self) -> RawFile:
        if self.predict_input is None:
            raise InputError("predict needs --data.predict_input FILE")
        return RawFile.open(self.predict_input, self.layout, targets=False)

    # -- predictions

    def prediction_template(self, stage: str) -> xr.Dataset:
        """Empty predictions of a stage: ``dudt``, ``dvdt`` (sample, level) in m s-2, and what labels them."""
        if stage == "test":
            rows = np.arange(self.rows("test").start, self.rows("test").stop)
            with open_store(self.store) as store:
                names = [name for name in ("block", *config.AUXILIARIES) if name in store]
                part = store[names].isel(sample=self.rows("test"))
                coords: dict[str, Any] = {name: ("sample", part[name].values) for name in names}
            attrs = {
                "title": "emulated gravity-wave drag",
                "store": str(self.store),
                "truth": json.dumps(asdict(self.truth)),
                "truth_is_exact": int(self.truth_is_exact),
            }
            extra: tuple[str, ...] = ("rotation_error", "galilean_error")
        else:
            rows = np.arange(self._input_file().n_rows)
            coords, extra = {}, ()
            attrs = {"title": "emulated gravity-wave drag", "source": str(self.predict_input), "Conventions": "CF-1.11"}
        pressure = get_grid(self.grid).truncate(self.layout.n_levels).full_pressure(101_325.0)
        levels = np.arange(1, self.layout.n_levels + 1)
        coords |= {
            "row": ("sample", rows, {"long_name": "row of the source"}),
            "level": ("level", levels, {"long_name": "model level from the top", "positive": "down"}),
            "pressure": ("level", pressure, {"units": "Pa", "long_name": "pressure where the surface has 1013.25 hPa"}),
        }
        for name in config.AUXILIARIES:
            if name in coords:
                coords[name] = (*coords[name], {"units": config.UNITS[name]})
        return xr.Dataset(self._empty_variables(len(rows), extra), coords, attrs)

    def _empty_variables(self, n: int, diagnostics: Sequence[str]) -> dict[str, Any]:
        names = {"dudt": "eastward", "dvdt": "northward"}
        batch = self._evaluation_batch(slice(0, n))
        variables: dict[str, Any] = {}
        for name, direction in names.items():
            values = dask.array.zeros((n, self.layout.n_levels), dtype=np.float32, chunks=(batch, -1))
            attrs = {
                "units": "m s-2",
                "long_name": f"tendency of the {direction} wind due to non-orographic gravity waves",
                "standard_name": f"tendency_of_{direction}_wind_due_to_nonorographic_gravity_wave_drag",
            }
            variables[name] = (("sample", "level"), values, attrs)
        for name in diagnostics:
            variables[name] = (
                "sample",
                dask.array.zeros(n, dtype=np.float32, chunks=batch),
                {"units": "m s-2"},
            )
        return variables


class RawBatches(Dataset[dict[str, torch.Tensor]]):
    """Consecutive batches of a raw file's columns: ``x`` (B, n_inputs) and ``index`` (B,).

    Args:
        file: the file.
        batch_size: columns per batch.
        on_bad_rows: ``raise`` names the first impossible row; ``drop`` gives NaN in its place and says how many.
    """

    def __init__(self, file: RawFile, batch_size: int, on_bad_rows: prepare.BadRows = "raise") -> None:
        self.file = file
        self.batch_size = batch_size
        self.on_bad_rows = on_bad_rows

    def __len__(self) -> int:
        return -(-self.file.n_rows // self.batch_size)

    def __getitem__(self, batch: int) -> dict[str, torch.Tensor]:
        """One whole batch.

        Raises:
            InputError: a row cannot be true.
        """
        start = batch * self.batch_size
        stop = min(start + self.batch_size, self.file.n_rows)
        x = self.file.read(start, stop)["x"]
        wrong, reason = bad_rows(x, None, self.file.layout)
        if wrong.any():
            text = f"{self.file.path}: {int(wrong.sum())} impossible rows among rows {start} to {stop}"
            if self.on_bad_rows == "raise":
                raise InputError(
                    f"{text}; the first is row {start + int(np.argmax(wrong))}, where {reason}. "
                    "Mend the file, or set --data.on_bad_rows drop to have NaN predicted for them"
                )
            logger.warning("%s: NaN is predicted for them", text)
            x[wrong] = np.nan
        return {"x": torch.from_numpy(x), "index": torch.arange(start, stop)}
