"""Writing what a model predicts as one labelled Zarr store, from any number of processes."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import xarray as xr
import zarr
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor

from ai4sim.atomic import atomic_path
from ai4sim.errors import InputError
from ai4sim.modules import ExperimentModule
from ai4sim.resume import Progress, fingerprint


@runtime_checkable
class Predictable(Protocol):
    """What a data module offers so that predictions can be labelled."""

    def prediction_template(self, stage: str) -> xr.Dataset:
        """The predictions' variables, lazy and still empty, with all dimensions, coordinates and attributes.

        The coordinate ``row`` along the sample dimension increases; it names the loader's rows.

        The first dimension of every variable is the sample; its Dask chunks are the batches of the loader, so that
        each batch is one chunk of the store and processes never write into the same one.

        Args:
            stage: ``test`` or ``predict``.
        """
        ...


def write_netcdf(product: xr.Dataset | xr.DataTree, path: Path) -> None:
    """Write a NetCDF file, whole or not at all.

    Args:
        product: its ``encoding["unlimited_dims"]``, or those of its groups, name dimensions that may grow.
        path: of the file.
    """
    with atomic_path(path) as partial:
        if isinstance(product, xr.Dataset):
            product.to_netcdf(partial, engine="h5netcdf")
            return
        # xarray looks into the encoding of single data sets alone
        unlimited = {node.path: [*node.encoding.get("unlimited_dims", ())] for node in product.subtree}
        product.to_netcdf(partial, engine="h5netcdf", unlimited_dims=unlimited)


class PredictionWriter(Callback):
    """Writes the outputs of ``test_step`` or ``predict_step`` into a store that appears when it is whole.

    A step returns a mapping from variable to a tensor of shape (B, ...) in physical units, and ``index`` (B,): the
    samples' row numbers as the loader gave them, which are found again in the template's coordinate ``row``.

    Args:
        path: the store to make; given, it must not exist yet. By default ``predictions.zarr`` in the run's folder,
            where it takes the place of what a run that is now resumed may have left.
        attrs: further attributes of the store.
        progress: where a prediction's complete batches are noted. Who gives it removes it in the end.
        resume: go on with what an interrupted prediction has left, if there is something: batches that are complete
            are not made again.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        attrs: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
        resume: bool = False,
    ) -> None:
        self._given = path
        self.path = path
        self._attrs, self._progress, self._resume = dict(attrs or {}), progress, resume
        self._done: set[int] = set()
        self._group: zarr.Group | None = None
        self._rows: NDArray[np.int64] = np.empty(0, np.int64)

    @property
    def _partial(self) -> Path:
        assert self.path is not None
        return self.path.with_name(self.path.name + ".partial")

    def _start(self, trainer: Trainer, stage: str) -> None:
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, Predictable) or trainer.fast_dev_run:  # type: ignore[attr-defined] # set by the connector
            return
        if self._given is None:
            assert trainer.log_dir is not None
            self.path = Path(trainer.log_dir) / "predictions.zarr"
        elif self._given.exists() and not self._resume:
            raise InputError(f"{self._given} exists already: remove it or name another output")
        template = data.prediction_template(stage)
        if isinstance(trainer.lightning_module, ExperimentModule):
            template = trainer.lightning_module.complete_template(template)
        template.attrs["model"] = getattr(trainer.lightning_module, "label", type(trainer.lightning_module).__name__)
        self._rows = template["row"].values
        if trainer.is_global_zero:
            self._lay_out(template, trainer.world_size)
        trainer.strategy.barrier("predictions are laid out")
        self._group = zarr.open_group(self._partial, mode="r+")
        if self._progress is not None:
            self._done = self._progress.done(trainer.global_rank)

    def _lay_out(self, template: xr.Dataset, processes: int) -> None:
        """An empty store, or what an interrupted prediction has left of one."""
        assert self.path is not None
        further = {"processes": processes, "template": fingerprint(template)}
        if self._resume and self._progress is not None and self._progress.can_go_on(further):
            if self.path.exists():  # it was whole, and what is made of it was not
                shutil.rmtree(self._partial, ignore_errors=True)
                self.path.replace(self._partial)
            if self._partial.is_dir():
                return
        if self._progress is not None:
            self._progress.remove()
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.parent.mkdir(parents=True, exist_ok=True)
        template = template.assign_attrs(self._attrs)
        template.to_zarr(self._partial, mode="w", compute=False, zarr_format=3, consolidated=False)
        if self._progress is not None:
            self._progress.begin(further)

    def _write(self, outputs: Any) -> None:
        if self._group is None:
            return
        if not isinstance(outputs, Mapping) or "index" not in outputs:
            raise TypeError("the step must return a mapping with 'index' and one tensor per predicted variable")
        index = outputs["index"]
        if len(index) == 0:
            return
        rows = np.asarray(index.cpu() if isinstance(index, Tensor) else index)
        start = int(np.searchsorted(self._rows, rows[0]))
        stop = start + len(rows)
        if not np.array_equal(self._rows[start:stop], rows):
            raise ValueError("a batch of predictions must be consecutive rows of the template")
        for name, values in outputs.items():
            if name != "index":
                array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
                stored = self._group[name]
                assert isinstance(stored, zarr.Array)
                stored[start:stop] = array

    def _finish(self, trainer: Trainer) -> None:
        if self._group is None:
            return
        self._group = None
        trainer.strategy.barrier("predictions are written")
        if trainer.is_global_zero:
            assert self.path is not None
            shutil.rmtree(self.path, ignore_errors=True)
            self._partial.replace(self.path)
        trainer.strategy.barrier("predictions are in place")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lay the store out."""
        self._start(trainer, "test")

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write one batch."""
        self._write(outputs)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the store its name."""
        self._finish(trainer)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lay the store out, or go on with it."""
        self._start(trainer, "predict")
        if not self._done:
            return
        if trainer.is_global_zero:
            print(f"{len(self._done)} batches are complete already: they are left out")
        step, done = pl_module.predict_step, self._done

        def rest(batch: Any, batch_idx: int, *others: Any) -> Any:
            return {"index": np.empty(0, np.int64)} if batch_idx in done else step(batch, batch_idx, *others)

        vars(pl_module)["predict_step"] = rest

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write one batch, and note that it is complete."""
        self._write(outputs)
        if self._group is not None and self._progress is not None and batch_idx not in self._done:
            self._progress.mark(trainer.global_rank, batch_idx)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the store its name."""
        if self._done:
            vars(pl_module).pop("predict_step", None)
        self._finish(trainer)
