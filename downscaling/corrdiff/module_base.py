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
from lightning.pytorch.callbacks import WeightAveraging
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
from downscaling.corrdiff.diffusion import Patches, RandomPatches
from downscaling.corrdiff.memory import SHARE, StepMemory, free_bytes, in_words, kept_bytes, per_image, weight_bytes
from downscaling.corrdiff.sample_counts import SampleSchedule

logger = logging.getLogger(__name__)

NEVER_TRAINED = "the model was never trained: give the checkpoint of a fit with --ckpt_path"

NetworkFactory = Callable[[int, int], nn.Module]
Schedule = CosineSchedule | SampleSchedule

CONTRACT, SEED, BATCH = "contract", "seed", "batch_size"
FORCE = " (model.force true overrides this)"
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
        force: use a checkpoint for data that have other statistics, transforms, another size or spacing, too; every
            difference is told. What is standardised is so with transforms and statistics of the checkpoint. It has to
            be said anew for each use.
    """

    generative = False
    patches: RandomPatches | None = None
    patch_chunk: int | None = None

    def __init__(
        self,
        optimizer: OptimizerFactory = default_optimizer,
        schedule: Schedule | None = None,
        force: bool = False,
    ) -> None:
        super().__init__(optimizer)
        self.step_schedule, self.force = schedule, force
        self.contract: Contract | None = None
        self._seed: int | None = None
        self._failures = 0
        self._last_batch: Batch = {}
        self._batch: int | None = None
        self._overridden: set[str] = set()

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
            self.contract = self.agreed(self.contract, data.contract)
            self.require_shape(self.contract.shape)
        if stage == "fit":
            if data.batch_size is None and data.total_batch is not None:
                data.chosen_batch = self._largest_batch(data, data.total_batch)
            self._batch = data.pairs_at_once
            self._set_accumulation(data)

    def agreed(
        self, own: Contract, data: Contract, whose: str = "the checkpoint", others: str = "the data"
    ) -> Contract:
        """What holds for a model of some data on others.

        Args:
            own: of the data that it was trained on.
            data: of those at hand.
            whose: what has the former, for messages.
            others: what has the latter.

        Returns:
            The latter if both are the same, or the former for fields of the size of the latter.

        Raises:
            InputError: they differ, and nobody forces it; or in what cannot be forced.
        """
        try:
            own.require_same(data, whose, others)
        except InputError as error:
            holds = own.on_grid_of(data, whose, others)
            if not self.force:
                raise InputError(f"{error}{FORCE}") from error
            for difference in own.differences(data, whose, others):
                self.override(difference)
            return holds
        return data

    def override(self, difference: str) -> None:
        """Say once what would be refused without force."""
        if difference not in self._overridden:
            self._overridden.add(difference)
            logger.warning("%s: passed over, as model.force is true", difference)

    @abstractmethod
    def require_shape(self, shape: tuple[int, int]) -> None:
        """Refuse fields of a number of rows and columns that the networks are not made for.

        Raises:
            InputError: they know the places of another domain.
        """

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what is known of the data, and what a fit that goes on keeps: the seed, and the size of a batch."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[CONTRACT] = self.known.to_dict()
        checkpoint[SEED] = self._seed
        checkpoint[BATCH] = self._batch
        if self.model_config is not None and "force" in self.model_config["init_args"]:
            settings = self.model_config["init_args"] | {"force": False}
            checkpoint[MODEL_CONFIG] = self.model_config | {"init_args": settings}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make the networks for the data that the checkpoint was trained on.

        Raises:
            InputError: the data at hand are of another kind, or so is the model.
        """
        super().on_load_checkpoint(checkpoint)
        self._require_own(checkpoint)
        self._seed = checkpoint.get(SEED)
        if self._batch is None:
            self._batch = checkpoint.get(BATCH)
        contract = Contract.from_dict(checkpoint[CONTRACT])
        if self.contract is not None:
            contract = self.agreed(contract, self.contract)
        if contract != self.contract:
            self.contract = contract
            self.build(contract)
            self.to(self.device)

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
        return data.total_batch or data.pairs_at_once * self.trainer.world_size * self.trainer.accumulate_grad_batches

    def _largest_batch(self, data: DownscalingData, total: int) -> int:
        """The largest batch that there is memory for, the same for all processes, or that of the fit which goes on.

        Args:
            data: whose pairs the steps learn from.
            total: pairs of a step.

        Raises:
            InputError: there is not enough for one pair, or nobody knows how much a step needs.
        """
        processes = self.trainer.world_size
        pairs, rest = divmod(total, processes)
        if rest or not pairs:
            nearest = processes * max(pairs, 1)
            raise InputError(
                f"data.total_batch {total} is no multiple of {processes} processes; take {nearest} or "
                f"{nearest + processes}"
            )
        if self._batch is not None:
            if pairs % self._batch == 0:
                return self._batch  # where a fit is in its epoch is counted in batches
            logger.warning(
                "the fit that goes on had batches of %d pairs, which do not divide the %d of a process now: others are "
                "chosen, and the epoch goes on at another place",
                self._batch,
                pairs,
            )
        memory = self.step_memory(data)
        if memory is None:
            raise InputError(
                "data.batch_size is null, but model.network cannot be run without values to find out how much memory "
                "it needs; expected a number"
            )
        device = self.trainer.strategy.root_device
        free = torch.tensor(float(free_bytes(device, self.trainer.num_devices)), device=device)
        least = float(self.trainer.strategy.reduce(free, reduce_op="min"))
        size = memory.largest_batch(pairs, SHARE * least)
        room = f"a step may take {SHARE:.0%} of the free {in_words(least)}"
        if size is None:
            raise InputError(
                f"data.batch_size is null, but there is no memory for one pair: {memory.describe(1)}; {room}."
                " Learn from smaller or fewer model.patches, give model.patch_chunk, or a number for data.batch_size"
            )
        if self.trainer.is_global_zero:
            print(f"data.batch_size {size}: {memory.describe(size)}; {room}")
        return size

    @property
    @abstractmethod
    def learner(self) -> tuple[nn.Module, int]:
        """The network that learns, and the number of channels that it is given."""

    def step_memory(self, data: DownscalingData) -> StepMemory | None:
        """What a step needs; None where networks cannot be run without values, or there are none yet.

        Args:
            data: whose pairs the steps learn from.
        """
        if self.contract is None:
            return None
        (network, channels), shape, n = self.learner, self.contract.shape, len(self.contract.outputs)
        patches = Patches.whole(torch.empty(1, 1, *shape, device="meta"))
        if self.patches is not None:
            patches = self.patches.draw(shape, 1, torch.Generator())
        with self.trainer.precision_plugin.forward_context():
            kept = per_image(kept_bytes, network, channels, patches, self.trainer.strategy.root_device)
        if kept is None:
            return None
        image, once = kept
        averaged = any(isinstance(callback, WeightAveraging) for callback in getattr(self.trainer, "callbacks", []))
        # what networks are given and are to give, and a mean; of patches, noise
        points = (channels + 2 * n) * math.prod(shape) + len(patches) * n * math.prod(patches.patch)
        return StepMemory(
            image=image,
            shape=patches.patch,
            images=len(patches),
            patched=patches.patch != shape,
            at_once=self.patch_chunk,
            fields=4 * points,
            weights=weight_bytes(self, averaged=averaged) + once,
            averaged=averaged,
        )

    def _set_accumulation(self, data: DownscalingData) -> None:
        """Let as many batches make a step as the total batch asks for.

        Raises:
            InputError: it is no multiple of what all processes read at once; names the nearest that are.
        """
        if data.total_batch is None:
            return
        at_once = data.pairs_at_once * self.trainer.world_size
        rounds, rest = divmod(data.total_batch, at_once)
        if rest or not rounds:
            below, above = rounds * at_once, (rounds + 1) * at_once
            nearest = f"{above}" if not below else f"{below} or {above}"
            raise InputError(
                f"data.total_batch {data.total_batch} is no multiple of data.batch_size {data.pairs_at_once} times "
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
            batches = steps * self.trainer.accumulate_grad_batches
            epochs = math.ceil(batches / max(self.trainer.num_training_batches, 1))
            memory = self.step_memory(data)
            needs = "" if memory is None else f"; {memory.describe(data.pairs_at_once)}"
            print(
                f"{samples:,} samples in {int(steps):,} steps of {self.total_batch}: {samples / pairs:.1f} times the "
                f"{pairs:,} training pairs, {epochs:,} {'epoch' if epochs == 1 else 'epochs'}{needs}"
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
