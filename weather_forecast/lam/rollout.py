"""Training on ever longer forecasts."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ai4sim.errors import InputError


class RolloutCurriculum(Callback):
    """Lengthens the forecasts that a model is trained on, epoch by epoch.

    The data give ``maximum`` target times; the model uses the current number of them. Validation and test are not
    affected.

    Args:
        start: number of steps in the first epoch.
        every_n_epochs: epochs before the number changes.
        increment: steps added at each change.
        maximum: largest number of steps; ``data.n_targets`` must be as large.
        lr_factor: factor on the learning rate from the first lengthening on.

    Raises:
        InputError: a number is not positive, or the maximum is below the start.
    """

    def __init__(
        self, start: int = 1, every_n_epochs: int = 1, increment: int = 1, maximum: int = 1, lr_factor: float = 1.0
    ) -> None:
        for name, value in (("start", start), ("every_n_epochs", every_n_epochs), ("increment", increment)):
            if value < 1:
                raise InputError(f"rollout.{name} must be at least 1, not {value}")
        if maximum < start:
            raise InputError(f"rollout.maximum {maximum} is below rollout.start {start}")
        self.start, self.every_n_epochs, self.increment, self.maximum = start, every_n_epochs, increment, maximum
        self.lr_factor = lr_factor

    def steps(self, epoch: int) -> int:
        """Number of steps in an epoch, counted from 0."""
        return min(self.maximum, self.start + epoch // self.every_n_epochs * self.increment)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a curriculum that the data cannot serve."""
        available = getattr(getattr(trainer, "datamodule", None), "n_targets", self.maximum)
        if stage == "fit" and available < self.maximum:
            raise InputError(f"rollout.maximum is {self.maximum}, but data.n_targets gives {available} target times")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Set the number of steps and the learning rate of the epoch."""
        pl_module.n_steps = self.steps(trainer.current_epoch)
        pl_module.lr_factor = self.lr_factor if pl_module.n_steps > self.start else 1.0
        pl_module.log("rollout", float(pl_module.n_steps))
