"""What a training shows while it runs, and the checkpoints it keeps."""

import sys
import time
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, ProgressBar, RichProgressBar
from rich.console import Console


def training_callbacks(trainer: Namespace) -> list[Callback]:
    """Callbacks that every training has unless its configuration names its own of that kind.

    The best checkpoint by ``val_loss`` and the last one are kept; a terminal gets a progress bar.

    Args:
        trainer: the configuration's ``trainer`` section, instantiated.
    """
    given = trainer.get("callbacks") or []
    given = given if isinstance(given, list) else [given]
    callbacks: list[Callback] = []
    if trainer.get("logger") is not False and not any(isinstance(callback, LearningRateMonitor) for callback in given):
        callbacks.append(LearningRateMonitor("epoch"))
    wanted = trainer.get("enable_checkpointing") is not False and not trainer.get("fast_dev_run")
    if wanted and not any(isinstance(callback, ModelCheckpoint) for callback in given):
        callbacks.append(ModelCheckpoint(monitor="val_loss", filename="best"))
        # not save_last, which keeps the last of the best only: a long training must not lose what came after it
        callbacks.append(ModelCheckpoint(filename="last", enable_version_counter=False))
    shows = sys.stdout.isatty() and trainer.get("enable_progress_bar") is not False
    if shows and not any(isinstance(callback, ProgressBar) for callback in given):
        callbacks.append(RichProgressBar(leave=False))
    return callbacks


class EpochLog(Callback):
    """One line an epoch where there is no terminal: a SLURM or CI log that can be read afterwards."""

    def __init__(self) -> None:
        self._started = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the time: a fit may go on within an epoch."""
        self._started = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the time."""
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the epoch's metrics."""
        if sys.stdout.isatty() or not trainer.is_global_zero:
            return
        metrics: dict[str, Any] = trainer.callback_metrics
        text = "  ".join(f"{name} {float(value):.4g}" for name, value in metrics.items() if not name.endswith("_step"))
        seconds = time.monotonic() - self._started
        # a fit may end after a number of steps instead
        place = f"epoch {trainer.current_epoch + 1}"
        if trainer.max_epochs and trainer.max_epochs > 0:
            place += f"/{trainer.max_epochs}"
        else:
            place += f", step {trainer.global_step}/{trainer.max_steps}"
        Console(soft_wrap=True, highlight=False).print(f"{place}  {text}  ({seconds:.1f} s)")
