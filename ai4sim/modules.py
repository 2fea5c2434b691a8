"""The LightningModule that all use cases share: optimiser, schedule, and what its checkpoints carry."""

import math
from collections.abc import Callable, Iterable
from typing import Any, Generic, ParamSpec, TypeVar

import torch
import xarray as xr
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer

from ai4sim.datamodule import ExperimentData
from ai4sim.errors import InputError
from ai4sim.experiment import MODEL_CONFIG
from ai4sim.schedules import CosineSchedule

OptimizerFactory = Callable[[Iterable[Tensor]], Optimizer]
P = ParamSpec("P")
T = TypeVar("T")


def default_optimizer(parameters: Iterable[Tensor]) -> Optimizer:
    """AdamW with the settings that serve most networks here."""
    return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=1e-4)


class SharedFactory(Generic[P, T]):
    """A factory that copies of a module share: those that the command line makes cannot be copied.

    Args:
        factory: makes an optimiser, a network, ...
    """

    def __init__(self, factory: Callable[P, T]) -> None:
        self.factory = factory

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """What the factory makes."""
        return self.factory(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> "SharedFactory[P, T]":
        return self


class ExperimentModule(LightningModule):
    """Base of all training modules.

    Checkpoints hold tensors and plain values only; the command line adds the model's configuration, so that
    :func:`ai4sim.experiment.load_model` needs nothing else.

    Args:
        optimizer: makes the optimiser from the parameters.
        schedule: learning rate over the whole training; constant when absent.
    """

    def __init__(self, optimizer: OptimizerFactory = default_optimizer, schedule: CosineSchedule | None = None) -> None:
        super().__init__()
        self.optimizer_factory = SharedFactory(optimizer)
        self.schedule = schedule
        self._after_epoch = False
        self.model_config: dict[str, Any] | None = None

    @property
    def datamodule(self) -> ExperimentData | None:
        """The data of the running command, None where it was given loaders."""
        found: ExperimentData | None = getattr(self.trainer, "datamodule", None)
        return found

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """One optimiser over all parameters that learn, with the schedule stepped every optimiser step."""
        optimizer = self.optimizer_factory([p for p in self.parameters() if p.requires_grad])
        if self.schedule is None:
            return optimizer
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise InputError("model.schedule needs an end: give trainer.max_epochs or trainer.max_steps")
        steps = int(steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.schedule.build(optimizer, steps), "interval": "step"},
        }

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """Go on with the next epoch where a fit that ended with the last batch of one is continued.

        Lightning would train a batch more there, if the fit ended by its number of steps.

        Returns:
            -1 to leave the rest of the epoch out.
        """
        self._after_epoch = batch_idx >= self.trainer.num_training_batches
        return -1 if self._after_epoch else None

    def lr_scheduler_step(self, scheduler: Any, metric: Any | None) -> None:
        """Step the schedule, but not for a batch that was left out."""
        if not self._after_epoch:
            super().lr_scheduler_step(scheduler, metric)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Have the last step validated where ``max_steps`` ends a fit inside an epoch.

        Otherwise the last steps have no say in which checkpoint is the best, and an early stopping ends with an error
        for want of the score that it watches. Where ``max_time`` ends a fit Lightning does the same by itself.
        """
        if 0 < self.trainer.max_steps <= self.trainer.global_step:
            self.trainer.should_stop = True

    def complete_template(self, template: xr.Dataset) -> xr.Dataset:
        """Add to the data's template of predictions what this model gives beyond it; by default nothing."""
        return template

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on from averaged weights as if they were those of the last step.

        Raises:
            InputError: the checkpoint has averages, and the fit that goes on makes none.
        """
        trainer = self._trainer
        if trainer is None or trainer.state.fn != TrainerFn.FITTING or "current_model_state" not in checkpoint:
            return
        # set by Lightning's connectors, which its types do not know
        callbacks: list[Callback] = vars(trainer)["callbacks"]
        if not any(isinstance(callback, WeightAveraging) for callback in callbacks):
            raise InputError(
                "the checkpoint has averaged weights: to go on with its fit, keep ai4sim.averaging.AverageWeights "
                "among trainer.callbacks"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the configuration that the command line built this model from."""
        if self.model_config is not None:
            checkpoint[MODEL_CONFIG] = self.model_config
