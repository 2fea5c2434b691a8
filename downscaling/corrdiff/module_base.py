"""What the two trainings share: the contract with the data, counting in samples, and steps that can be repeated."""

import logging
import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import dask.array
import numpy as np
import torch
import xarray as xr
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer

from ai4sim.errors import InputError
from ai4sim.experiment import MODEL_CONFIG
from ai4sim.modules import ExperimentModule, OptimizerFactory
from ai4sim.schedules import CosineSchedule
from downscaling.corrdiff.batches import Batch
from downscaling.corrdiff.contract import Contract
from downscaling.corrdiff.data import DownscalingData
from downscaling.corrdiff.sample_counts import SampleSchedule

logger = logging.getLogger(__name__)

NEVER_TRAINED = "the model was never trained: give the checkpoint of a fit with --ckpt_path"

NetworkFactory = Callable[[int, int], nn.Module]
Schedule = CosineSchedule | SampleSchedule

CONTRACT, SEED = "contract", "seed"
FAILURES = 10
"""Steps in a row without finite gradients after which a training ends."""


def default_optimizer(parameters: Any) -> Optimizer:
    """Adam with the settings of the reference."""
    return torch.optim.Adam(parameters, lr=2e-4, betas=(0.9, 0.999), eps=1e-8)


class DownscalingModule(ExperimentModule):
    """Base of both trainings.

    All random numbers of a step follow from the seed and the number of samples before it, so that a fit that goes on
    does what it would have done.

    Args:
        optimizer: makes the optimiser from the parameters.
        schedule: learning rate over the training.
    """

    generative = False

    def __init__(
        self,
        optimizer: OptimizerFactory = default_optimizer,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(optimizer)
        self.step_schedule = schedule
        self.contract: Contract | None = None
        self._seed: int | None = None
        self._failures = 0
        self._last_batch: Batch = {}

    # -- what a checkpoint knows of its data

    @abstractmethod
    def build(self, contract: Contract) -> None:
        """Make the networks for data."""

    @property
    def known(self) -> Contract:
        """What the model was built for.

        Raises:
            InputError: nothing: it was never trained.
        """
        if self.contract is None:
            raise InputError(NEVER_TRAINED)
        return self.contract

    def setup(self, stage: str) -> None:
        """Make the networks for the data at hand, or check that they are of the kind the model was trained on.

        Raises:
            InputError: they are not; says what differs.
        """
        data = self.datamodule
        if not isinstance(data, DownscalingData):
            return
        if stage == "predict":
            if self.contract is not None:
                pairs = data.source.pairs
                self.contract.require_channels(pairs.inputs, pairs.static, pairs.factor)
                self.require_shape(pairs.output_shape)
            return
        if self.contract is None:
            self.contract = data.contract
            self.build(self.contract)
        else:
            self.contract.require_same(data.contract)
        if stage == "fit":
            self._set_accumulation(data)

    @abstractmethod
    def require_shape(self, shape: tuple[int, int]) -> None:
        """Refuse fields of a number of rows and columns that the networks are not made for.

        Raises:
            InputError: they know the places of another domain.
        """

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what is known of the data, and the seed, which a fit that goes on keeps."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[CONTRACT] = self.known.to_dict()
        checkpoint[SEED] = self._seed

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make the networks for the data that the checkpoint was trained on.

        Raises:
            InputError: the data at hand are of another kind, or so is the model.
        """
        super().on_load_checkpoint(checkpoint)
        self._require_own(checkpoint)
        self._seed = checkpoint.get(SEED)
        contract = Contract.from_dict(checkpoint[CONTRACT])
        if self.contract is None:
            self.contract = contract
            self.build(contract)
            self.to(self.device)
        else:
            contract.require_same(self.contract)

    def _require_own(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another kind of model.

        Raises:
            InputError: it is.
        """
        if CONTRACT not in checkpoint:
            raise InputError("the checkpoint does not say which data it was trained on: it is not of this use case")
        own = type(self).__name__
        found = str((checkpoint.get(MODEL_CONFIG) or {}).get("class_path", own)).rpartition(".")[2]
        if found != own:
            raise InputError(f"the checkpoint is of a {found}, and not of a {own}")

    # -- counting in samples

    @property
    def total_batch(self) -> int:
        """Samples between two steps of the optimiser, of all processes together."""
        data = self.datamodule
        if not isinstance(data, DownscalingData):
            return 1
        return data.total_batch or data.batch_size * self.trainer.world_size * self.trainer.accumulate_grad_batches

    def _set_accumulation(self, data: DownscalingData) -> None:
        """Let as many batches make a step as the total batch asks for.

        Raises:
            InputError: it is no multiple of what all processes read at once; names the nearest that are.
        """
        if data.total_batch is None:
            return
        at_once = data.batch_size * self.trainer.world_size
        rounds, rest = divmod(data.total_batch, at_once)
        if rest or not rounds:
            below, above = rounds * at_once, (rounds + 1) * at_once
            nearest = f"{above}" if not below else f"{below} or {above}"
            raise InputError(
                f"data.total_batch {data.total_batch} is no multiple of data.batch_size {data.batch_size} times "
                f"{self.trainer.world_size} processes; take {nearest}"
            )
        self.trainer.accumulate_grad_batches = rounds

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """One optimiser over all parameters that learn, with the schedule stepped every optimiser step."""
        optimizer = self.optimizer_factory([p for p in self.parameters() if p.requires_grad])
        if self.step_schedule is None:
            return optimizer
        if isinstance(self.step_schedule, SampleSchedule):
            scheduler = self.step_schedule.per_step(optimizer, self.total_batch)
        else:
            steps = self.trainer.estimated_stepping_batches
            if not math.isfinite(steps):
                raise InputError("model.schedule needs an end: give trainer.max_epochs or trainer.max_steps")
            scheduler = self.step_schedule.build(optimizer, int(steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # -- steps

    def on_train_start(self) -> None:
        """Take note of the seed, unless a checkpoint has brought that of the fit which goes on; say how long it is."""
        if self._seed is None:
            self._seed = torch.initial_seed() % 2**63
        data = self.datamodule
        if not isinstance(data, DownscalingData) or not self.trainer.is_global_zero:
            return
        steps = self.trainer.estimated_stepping_batches
        if math.isfinite(steps):
            pairs, samples = data.n_pairs("train"), int(steps) * self.total_batch
            print(
                f"{samples:,} samples in {int(steps):,} steps of {self.total_batch}: {samples / pairs:.1f} times the "
                f"{pairs:,} training pairs"
            )

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> int | None:
        """Let random numbers follow from the seed, the place in the training and the process alone."""
        assert self._seed is not None
        self._last_batch = batch
        place = [self._seed, self.current_epoch, batch_idx, self.global_rank]
        mixed = np.random.SeedSequence(place).generate_state(1, np.uint64)
        torch.manual_seed(int(mixed[0]) % 2**63)
        return super().on_train_batch_start(batch, batch_idx)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Leave a step out whose gradients are not finite, and give up when that happens again and again.

        Raises:
            InputError: no finite gradients for ten steps; names the pairs of the last one.
        """
        learning = [parameter for parameter in self.parameters() if parameter.grad is not None]
        if not learning:
            return
        norms = torch._foreach_norm([p.grad for p in learning if p.grad is not None])
        if bool(torch.isfinite(torch.stack(norms)).all()):
            self._failures = 0
            return
        self._failures += 1
        for parameter in learning:
            parameter.grad = None  # optimisers pass over such parameters: neither they nor their moments change
        if self._failures >= FAILURES:
            cases = ", ".join(map(str, self._last_batch["case"].tolist()))
            raise InputError(
                f"{FAILURES} steps in a row had gradients that are not finite; the last was of the pairs {cases}"
                f"{self.last_draw()}. Lower the learning rate, or look at these pairs"
            )
        logger.warning("step %d has gradients that are not finite: it is left out", self.global_step)

    def last_draw(self) -> str:
        """What else there is to say of the last step."""
        return ""

    # -- predictions

    def complete_template(self, template: xr.Dataset) -> xr.Dataset:
        """Add the fields to a template."""
        data = self.datamodule
        assert isinstance(data, DownscalingData)
        stage = "predict" if self.trainer.predicting else "test"
        known = self.known
        # a network that knows no places generates for domains of any size
        shape = data.source.pairs.output_shape if stage == "predict" else known.shape
        sizes = (len(known.outputs), *shape)
        chunk = data.prediction_batch(stage)
        fields = dask.array.zeros((template.sizes["sample"], *sizes), dtype=np.float32, chunks=(chunk, *sizes))
        coords = {
            # as objects: stores have no agreed format for texts of fixed length
            "channel": ("channel", np.array([channel.name for channel in known.outputs], dtype=object)),
            "channel_units": ("channel", np.array([channel.units for channel in known.outputs], dtype=object)),
        }
        return template.assign_coords(coords).assign(field=(("sample", "channel", "y", "x"), fields))

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Fields of the rows of a plan, in physical units."""
        return {"index": batch["index"], "field": self.rows(batch)}

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """As `test_step`."""
        return self.test_step(batch, batch_idx)

    @abstractmethod
    def rows(self, batch: Batch) -> Tensor:
        """Fields (R, K, H, W) in physical units.

        Args:
            batch: see :class:`~downscaling.corrdiff.batches.PlannedRows`.
        """
