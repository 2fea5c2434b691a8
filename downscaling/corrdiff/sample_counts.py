"""Durations and half-lives counted in training samples, so that they do not depend on batches and processes."""

from dataclasses import dataclass
from typing import Any, Protocol

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ai4sim.averaging import AverageWeights
from ai4sim.errors import InputError


class CountsSamples(Protocol):
    """What a module offers that knows how many samples make a step of the optimiser."""

    @property
    def total_batch(self) -> int:
        """Samples between two steps of the optimiser, of all processes together."""
        ...


@dataclass(frozen=True)
class SampleSchedule:
    """Learning rate after n samples: lr min(n / rampup, 1) decay^floor(max(n - rampup, 0) / every).

    A pure function of the number of samples: going on with a fit, or another batch, does not change it.

    Args:
        rampup: samples over which the learning rate rises from 0; none with 0.
        decay: factor of each reduction.
        every: samples between two reductions.
    """

    rampup: float = 0
    decay: float = 1.0
    every: float = 5e5

    def __post_init__(self) -> None:
        if self.rampup < 0 or not 0 < self.decay <= 1 or self.every <= 0:
            raise InputError(
                f"model.schedule: rampup {self.rampup}, decay {self.decay}, every {self.every}; expected at least 0, "
                "a factor up to 1, and a positive number of samples"
            )

    def factor(self, samples: float) -> float:
        """Multiple of the optimiser's learning rate after so many samples."""
        rise = min(samples / self.rampup, 1.0) if self.rampup else 1.0
        return float(rise * self.decay ** (max(samples - self.rampup, 0) // self.every))

    def per_step(self, optimizer: Optimizer, total_batch: int) -> LambdaLR:
        """The schedule, stepped after every step of the optimiser; a step has the rate at its last sample."""
        return LambdaLR(optimizer, lambda step: self.factor((step + 1) * total_batch))


class SampleAverage(AverageWeights):
    """Averages the weights with a half-life in samples.

    After n samples the half-life is at most n / 20: the average forgets the beginning (Karras et al. 2022, F.2).

    Args:
        half_life: samples after which the weight of the past is halved.

    Raises:
        InputError: it is not positive.
    """

    def __init__(self, half_life: float = 5e5) -> None:
        if half_life <= 0:
            raise InputError(f"the half-life of averaged weights must be positive, not {half_life}")
        super().__init__()
        self.half_life = half_life
        self._batch = 1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take note of the size of a step."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._batch = total_batch_of(pl_module)

    def decay_after(self, n: int) -> float:
        """See :meth:`ai4sim.averaging.AverageWeights.decay_after`."""
        half_life = min(self.half_life, 0.05 * n * self._batch)
        return float(0.5 ** (self._batch / half_life)) if half_life else 0.0


class TrainingLength(Callback):
    """Ends a fit after a number of samples; set ``trainer.max_epochs`` to -1.

    Args:
        samples: training samples, of all processes together.

    Raises:
        InputError: less than one sample.
    """

    def __init__(self, samples: float) -> None:
        if samples < 1:
            raise InputError(f"a training of {samples} samples: expected at least 1")
        self.samples = samples

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Set the number of steps."""
        if stage == "fit":
            steps = max(1, round(self.samples / total_batch_of(pl_module)))
            loop: Any = trainer.fit_loop.epoch_loop
            loop.max_steps = steps


def total_batch_of(module: LightningModule) -> int:
    """Samples between two steps of the optimiser."""
    counted: Any = module
    return int(counted.total_batch)
