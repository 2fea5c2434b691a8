"""An exponential moving average of the weights, which validation, test and checkpoints then use."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from ai4sim.errors import InputError


class AverageWeights(WeightAveraging):
    """Averages the weights over the last steps of the optimiser (EMA).

    Lightning's callback swaps the averages in for validation, leaves them in the model after the training and saves
    them as a checkpoint's ``state_dict``, with the weights of the last step beside them for a resumed run. Beyond it:
    networks that a module's ``setup`` makes for its data are averaged too, integer buffers such as a graph's edges are
    copied, infinite ones kept, and early in the training, when the weights still change fast, the average is shorter.

    With several processes each one averages the running statistics of its own batches (BatchNorm); those of the first
    are saved.

    Args:
        decay: weight of the earlier average in each step, late in the training. After n averaged steps it is
            min(decay, (1 + n) / (10 + n)).

    Raises:
        InputError: ``decay`` is not between 0 and 1.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise InputError(f"the decay of averaged weights must be at least 0 and below 1, not {decay}")
        self.decay = decay
        super().__init__(multi_avg_fn=self._average)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copy the model, once it is known for which data."""
        if stage == "fit":
            pl_module.setup(stage)
        super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Follow the model to its device: it moves after the setup."""
        assert self._average_model is not None
        self._average_model.to(pl_module.device)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take up averages and weights of a fit that goes on; a test of its checkpoint keeps the averages."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def decay_after(self, n: int) -> float:
        """Weight of the average of ``n`` steps in the next one."""
        return min(self.decay, (1 + n) / (10 + n))

    @torch.no_grad()
    def _average(self, averages: Sequence[Tensor], values: Sequence[Tensor], n_averaged: Tensor | int) -> None:
        decay = self.decay_after(int(n_averaged))
        pairs = list(zip(averages, values, strict=True))
        assert self._average_model is not None
        # both come detached: weights are told from buffers by their memory
        own = {parameter.data_ptr() for parameter in self._average_model.parameters() if parameter.numel()}
        weights = [pair for pair in pairs if pair[0].data_ptr() in own]
        if weights:
            # at once: one by one they take a small network as long as a tenth of its step
            torch._foreach_lerp_([average for average, _ in weights], [value for _, value in weights], 1 - decay)
        for average, value in pairs:
            if average.data_ptr() in own:
                continue
            if average.is_floating_point():
                # where both are infinite, as a missing bound is, their difference is not a number
                average.add_(torch.where(value == average, 0, value - average), alpha=1 - decay)
            else:
                average.copy_(value)
