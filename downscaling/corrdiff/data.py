"""The use case's data module: raw pairs found or made, processed, and given out as batches."""

import logging
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from rich.progress import track
from rich.table import Table

from ai4sim.datamodule import ExperimentData, statistics_table
from ai4sim.errors import InputError
from ai4sim.experiment import data_folder
from ai4sim.loading import BatchLoader
from ai4sim.manifest import Manifest
from ai4sim.sampling import BlockBatchSampler, evaluation_batch_size
from ai4sim.store import open_store, read_manifest
from downscaling.corrdiff import config, prepare
from downscaling.corrdiff.batches import (
    MEAN,
    Batch,
    PairBatches,
    PartedSampler,
    Plan,
    PlannedRows,
    RawPairs,
    StoredPairs,
)
from downscaling.corrdiff.contract import Contract, Moments
from downscaling.corrdiff.demo import DemoSettings, write_demo
from downscaling.corrdiff.demo_file import TRAIN
from downscaling.corrdiff.readers import HrrrMini, PairedSource, read_statistics
from downscaling.corrdiff.readers.base import Channel
from downscaling.corrdiff.readers.files import runs
from downscaling.corrdiff.scaling import transforms_of
from downscaling.corrdiff.selection import PairSelection
from downscaling.corrdiff.splits import SPLITS, Split, TimeFractions

logger = logging.getLogger(__name__)


class DownscalingData(ExperimentData):
    """Pairs of coarse and fine fields.

    ERA5 with HRRR (HRRR-Mini, NVIDIA NGC), ERA5 with CWA's WRF over Taiwan (NVIDIA NGC, CC BY-NC-ND 4.0), GEFS with
    HRRR (NOAA, open), or any two data sets in NetCDF or Zarr. The demo is simulated in the schema of HRRR-Mini.

    Args:
        dataset: name of the folder below ``data/raw`` and of the processed store.
        source: of the pairs, with paths from the raw folder on; by default the demo.
        demo: makes the raw file when it is missing.
        split: which pairs are learnt from and tested on.
        transforms: of channels by name, see :func:`~downscaling.corrdiff.scaling.transform`.
        statistics: file ``stats.json`` with means and standard deviations; by default those of the training pairs. It
            must be of the transformed channels.
        on_missing: what to do about missing values: ``error``, ``skip`` such pairs, or ``mask`` those of outputs.
        batch_size: pairs in a batch (and process). With null a fit takes the largest part of ``total_batch`` that
            the free memory has room for, see :class:`~downscaling.corrdiff.memory.StepMemory`: batches that make a
            step together give its gradient, however many they are. A fit that goes on keeps the number.
        total_batch: pairs between two steps of the optimiser, of all processes together; by default one batch of each.
        eval_batch_size: pairs per batch of the validation, and rows (pairs or members) of test and prediction.
        validation_pairs: at most that many pairs are validated on, spread over all.
        test_pairs: at most that many pairs are tested on, spread over all; all of them by default.
        members: size of ensembles; with 0 only the regression's mean is given.
        analogs: training pairs whose residuals serve a baseline.
        select: which pairs ``predict`` generates for; all by default.
        num_workers: processes that read; 0 reads in a thread.
        seed: of the order of the training.
        scheduler: address of a Dask scheduler for the preparation.
    """

    def __init__(
        self,
        dataset: str = "demo",
        source: PairedSource | None = None,
        demo: DemoSettings | None = None,
        split: Split | None = None,
        transforms: dict[str, str] | None = None,
        statistics: Path | None = None,
        on_missing: prepare.OnMissing = "error",
        batch_size: int | None = 16,
        total_batch: int | None = None,
        eval_batch_size: int = 16,
        validation_pairs: int = 128,
        test_pairs: int | None = None,
        members: int = 8,
        analogs: int = 64,
        select: PairSelection | None = None,
        num_workers: int = 0,
        seed: int = 0,
        scheduler: str | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("batch_size", 1 if batch_size is None else batch_size, 1),
            ("eval_batch_size", eval_batch_size, 1),
            ("validation_pairs", validation_pairs, 1),
            ("test_pairs", 1 if test_pairs is None else test_pairs, 1),
            ("members", members, 0),
            ("analogs", analogs, 0),
        ):
            if value < least:
                raise InputError(f"data.{name} is {value}; expected at least {least}")
        if batch_size is None and total_batch is None:
            raise InputError("data.batch_size is null; expected a number, or data.total_batch, which it is chosen for")
        self.dataset, self.demo = dataset, demo
        folder = data_folder(config.USE_CASE)
        self.raw = folder / "raw" / dataset
        self.store = folder / "processed" / f"{dataset}.zarr"
        self._source = None if source is None else source.below(self.raw)
        self.split = split or TimeFractions()
        self.transforms = transforms or {}
        self.statistics, self.on_missing = statistics, on_missing
        self.batch_size, self.total_batch, self.eval_batch_size = batch_size, total_batch, eval_batch_size
        self.chosen_batch: int | None = None
        self.validation_pairs, self.test_pairs = validation_pairs, test_pairs
        self.members, self.analogs = members, analogs
        self.select = select or PairSelection()
        self.num_workers, self.seed, self.scheduler = num_workers, seed, scheduler
        self._manifest: Manifest | None = None
        self._rows: dict[str, NDArray[np.int64]] = {}
        self._plans: dict[str, Plan] = {}

    # -- raw to processed

    @cached_property
    def source(self) -> PairedSource:
        """Of the pairs.

        Raises:
            InputError: none was named, and the demo is not wanted.
        """
        if self._source is None and self.demo is None:
            raise InputError("data needs data.source for raw data, or data.demo")
        return HrrrMini(self.raw / TRAIN) if self._source is None else self._source

    def prepare_data(self) -> None:
        """Make what is missing: the demo's file, the processed store.

        Raises:
            InputError: settings that contradict each other, files that are missing or hold what they should not.
        """
        if self.demo is not None:
            write_demo(self.raw, self.demo)
        if self.trainer is not None and self.trainer.predicting:
            return
        prepare.build(
            self.store,
            self.source,
            self.split.mark(self.source.pairs),
            transforms=self.transforms,
            on_missing=self.on_missing,
            scheduler=self.scheduler,
        )

    def setup(self, stage: str) -> None:
        """Open the store that :meth:`prepare_data` made, and find the rows of the splits.

        Raises:
            InputError: a split has no pair that is complete enough.
        """
        if stage == "predict" or self._rows:
            return
        self._manifest = read_manifest(self.store)
        with open_store(self.store) as store:
            marks, complete = store["split"].values, store["complete"].values
        for number, split in enumerate(SPLITS):
            # what is missing can be masked in a loss, not in whole fields that are scored
            least = prepare.LACKS_TRUTH if self.on_missing == "mask" and split == "train" else prepare.USABLE
            rows = np.flatnonzero((marks == number) & (complete >= least))
            if dropped := int((marks == number).sum()) - len(rows):
                logger.warning("%s: %d pairs have missing values: left out", split, dropped)
            if not len(rows):
                raise InputError(f"the {split} split has no complete pair")
            self._rows[split] = rows

    @property
    def _known(self) -> Manifest:
        if self._manifest is None:
            raise RuntimeError("call prepare_data() and setup() first")
        return self._manifest

    def n_pairs(self, split: str) -> int:
        """Number of pairs of a split."""
        return len(self._rows[split])

    @property
    def pairs_at_once(self) -> int:
        """Pairs in a batch; until a fit has chosen it, as many as in one of the validation."""
        return self.batch_size or self.chosen_batch or self.eval_batch_size

    @property
    def contract(self) -> Contract:
        """Channels, grid and statistics of the prepared data.

        Raises:
            InputError: the file of statistics lacks a channel, or has it after another transform.
        """
        known = self._known.settings
        inputs, outputs, static = (tuple(Channel(**c) for c in known[kind]) for kind in ("inputs", "outputs", "static"))
        names = [channel.name for channel in (*inputs, *outputs)]
        height, width = known["output_shape"]
        return Contract(
            inputs=inputs,
            outputs=outputs,
            static=static,
            transforms=tuple(transforms_of(names, known["transforms"])),
            factor=known["factor"],
            shape=(height, width),
            spacing_km=known["spacing_km"],
            lead_labels=tuple(known["lead_labels"]),
            probabilities=tuple(known["probabilities"]),
            input_moments=self._moments("input", inputs),
            output_moments=self._moments("output", outputs),
            static_moments=self._moments("static", static),
        )

    def _moments(self, kind: str, channels: Sequence[Channel]) -> Moments:
        """Of the file of statistics, or of the training pairs; probabilities are left as they are."""
        names = [channel.name for channel in channels]
        if not names:
            return Moments((), ())
        plain = self._known.settings["probabilities"] if kind == "output" else []
        if self.statistics is not None:
            found = self._stated(self.statistics, kind, [name for name in names if name not in plain])
        else:
            moments = prepare.moments(self._known, kind)
            found = dict(
                zip(names, zip(moments.mean.tolist(), moments.usable_std(names).tolist(), strict=True), strict=True)
            )
        mean, std = zip(*((0.0, 1.0) if name in plain else found[name] for name in names), strict=True)
        return Moments(mean, std)

    def _stated(self, path: Path, kind: str, names: Sequence[str]) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation of some channels in a file of statistics."""
        wanted = {"input": "inputs", "output": "outputs", "static": "invariants"}[kind]
        given = read_statistics(path, **{"inputs": [], "outputs": [], "invariants": [], wanted: names})
        stored = {"input": given.input, "output": given.output, "static": given.invariant}[kind]
        for name in names:
            chosen = "none" if kind == "static" else self._known.settings["transforms"].get(name, "none")
            if stored[name].transform != chosen:
                raise InputError(
                    f"{path}: {kind} variable {name!r} has moments after the transform {stored[name].transform!r}, "
                    f"data.transforms has {chosen!r}; compute them anew"
                )
        return {name: (stored[name].mean, stored[name].std) for name in names}

    def describe(self) -> dict[str, Any]:
        """What the provenance records of the data."""
        if self._manifest is None:
            return {"dataset": self.dataset}
        pairs = {split: len(rows) for split, rows in self._rows.items()}
        return {"fingerprint": self._manifest.fingerprint, "store": str(self.store), "pairs": pairs}

    def summary(self) -> Table:
        """All channels and their statistics."""
        known = self._known.settings
        parts = [
            ([c["name"] for c in known[own]], [c["units"] for c in known[own]], prepare.moments(self._known, kind))
            for kind, own in (("input", "inputs"), ("output", "outputs"), ("static", "static"))
            if known[own]
        ]
        height, width = known["output_shape"]
        return statistics_table(f"{self.dataset}: {height} x {width} points, factor {known['factor']}", parts)

    # -- processed to batches

    def _stored(self) -> StoredPairs:
        return StoredPairs(str(self.store), self._known.settings["lead_labels"])

    def some_pairs(self, split: str, most: int, at_once: int | None = None) -> Iterator[Batch]:
        """Batches of pairs of a split, the same for all processes.

        Args:
            split: one of `SPLITS`.
            most: pairs, spread over all.
            at_once: pairs in a batch; by default as in training.
        """
        stored, rows, size = self._stored(), _spread(self._rows[split], most), at_once or self.pairs_at_once
        for start in track(range(0, len(rows), size), f"reading {split} pairs", transient=True):
            yield stored.read(rows[start : start + size])

    def train_dataloader(self) -> BatchLoader:
        """Shuffled training pairs; which of them make a step of the optimiser does not depend on the batches.

        Raises:
            InputError: there are fewer pairs than a step takes.
        """
        rank, world_size = self.processes
        rounds = self.trainer.accumulate_grad_batches if self.trainer else 1
        own = self.pairs_at_once * rounds
        rows = self._rows["train"]
        if len(rows) < own * world_size:
            raise InputError(
                f"a step of the optimiser takes {own * world_size} pairs ({self.pairs_at_once} in a batch, {rounds} "
                f"batches, {world_size} processes), but the train split has {len(rows)}: lower data.total_batch or "
                "data.batch_size"
            )
        sampler = BlockBatchSampler(
            runs(rows), own, shuffle=True, block=64, seed=self.seed, rank=rank, world_size=world_size
        )
        return BatchLoader(self._stored(), PartedSampler(sampler, rounds), num_workers=self.num_workers)

    def val_dataloader(self) -> BatchLoader:
        """Validation pairs, spread over all where they are too many."""
        rows = _spread(self._rows["validation"], self.validation_pairs)
        return self._in_order(self._stored(), runs(rows))

    def test_dataloader(self) -> BatchLoader:
        """Rows of the test's plan, see `plan`."""
        return self._in_order(PlannedRows(self._stored(), self.plan("test")), len(self.plan("test")))

    def predict_dataloader(self) -> BatchLoader:
        """Rows of the plan for the selected pairs of the raw data."""
        return self._in_order(PlannedRows(self._raw_pairs(), self.plan("predict")), len(self.plan("predict")))

    def _raw_pairs(self) -> PairBatches:
        return RawPairs(self.source)

    def _in_order(self, pairs: Any, rows: int | list[slice]) -> BatchLoader:
        rank, world_size = self.processes
        n = rows if isinstance(rows, int) else sum(part.stop - part.start for part in rows)
        batch_size = evaluation_batch_size(n, self.eval_batch_size, world_size)
        sampler = BlockBatchSampler(rows, batch_size, rank=rank, world_size=world_size)
        return BatchLoader(pairs, sampler, num_workers=self.num_workers)

    # -- what is forecast

    def plan(self, stage: str) -> Plan:
        """The rows of a test, or of a prediction: means, members, and means of training pairs for the analogs."""
        if stage not in self._plans:
            model = self.trainer.lightning_module if self.trainer else None
            ensemble = bool(getattr(model, "generative", False))
            members = self.members if ensemble else 0
            if stage == "test":
                n = len(self._rows["test"]) if self.test_pairs is None else self.test_pairs
                plan = Plan.of(_spread(self._rows["test"], n), members)
                if ensemble and self.analogs:
                    plan = plan + Plan.of(_spread(self._rows["train"], self.analogs), 0)
            else:
                # without a regression there is no mean to give
                mean = not members or bool(getattr(model, "gives_mean", True))
                plan = Plan.of(self.select.rows(self.source.pairs), members, mean=mean)
            self._plans[stage] = plan
        return self._plans[stage]

    def prediction_template(self, stage: str) -> xr.Dataset:
        """What labels predictions (sample, channel, y, x); the model adds its variables."""
        plan = self.plan(stage)
        grid: dict[str, Any]
        lead: NDArray[np.int64] | None = None
        if stage == "test":
            with open_store(self.store) as store:
                coords: dict[str, Any] = {
                    name: ("sample", store[name].values[plan.pair]) for name in ("time", "case", "split")
                }
                corners = store["corner"].values[plan.pair]
                if "lead" in store:
                    lead = store["lead"].values[plan.pair]
                grid = {name: store[name].load() for name in ("latitude", "longitude")}
            attrs = {"store": str(self.store), "fingerprint": self._known.fingerprint}
        else:
            pairs = self.source.pairs
            coords = {
                "time": ("sample", pairs.times[plan.pair].astype("datetime64[ns]")),
                "case": ("sample", plan.pair),
            }
            corners = np.zeros((len(plan), 2), np.int64) if pairs.corners is None else pairs.corners[plan.pair]
            lead = None if pairs.leads is None else pairs.leads[plan.pair]
            dims = ("grid_y", "grid_x")
            grid = {
                name: (dims, values, {"units": f"degrees_{towards}", "standard_name": name})
                for name, values, towards in (
                    ("latitude", pairs.latitude, "north"),
                    ("longitude", pairs.longitude, "east"),
                )
            }
            attrs = {}
        coords |= {
            "row": ("sample", np.arange(len(plan)), {"long_name": "number of the forecast"}),
            "pair": (
                "sample",
                plan.pair,
                {
                    "long_name": "row of the processed store"
                    if stage == "test"
                    else "number of the pair in the raw data"
                },
            ),
            "member": ("sample", plan.member, {"long_name": f"number of the member; {MEAN} for the regression"}),
            "corner": (("sample", "corner_axis"), corners),
        }
        if lead is not None:
            coords["lead"] = ("sample", lead, {"units": "hours", "standard_name": "forecast_period"})
        return xr.Dataset(coords=coords | grid, attrs={"title": "downscaled fields", **attrs})

    def prediction_batch(self, stage: str) -> int:
        """Rows per batch of a stage, which are a chunk of its predictions."""
        return evaluation_batch_size(len(self.plan(stage)), self.eval_batch_size, self.processes[1])


def _spread(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most that many rows, as evenly spaced as can be."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]
