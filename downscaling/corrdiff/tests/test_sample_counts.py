"""Durations and half-lives that are counted in samples."""

import math
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ai4sim.errors import InputError
from downscaling.corrdiff.sample_counts import SampleAverage, SampleSchedule, TrainingLength, total_batch_of


class Counting(LightningModule):
    """A single weight that each step adds 1 to, and the learning rate of each step."""

    def __init__(self, batch: int, schedule: SampleSchedule | None = None, accumulate: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.batch, self.schedule, self.accumulate = batch, schedule, accumulate
        self.rates: list[float] = []

    @property
    def total_batch(self) -> int:
        return self.batch * self.accumulate

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        return -self.weight

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(torch.zeros(24)), self.batch)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        if self.schedule is None:
            return optimizer
        scheduler = self.schedule.per_step(optimizer, self.total_batch)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def fit(module: Counting, *callbacks: Any) -> Trainer:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(
        accelerator="cpu", max_epochs=-1, accumulate_grad_batches=module.accumulate, callbacks=list(callbacks), **quiet
    )
    trainer.fit(module)
    return trainer


def formula(n: float, rampup: float, decay: float, every: float) -> float:
    """Section 7 of the specification."""
    return min(n / rampup, 1) * decay ** math.floor(max(n - rampup, 0) / every)


class TestSchedule:
    def test_the_formula(self):
        schedule = SampleSchedule(rampup=1e6, decay=0.7, every=5e5)
        for n in (1, 5e5, 1e6 - 1, 1e6, 1.4e6, 1.5e6, 3.2e6, 1e7):
            assert schedule.factor(n) == pytest.approx(formula(n, 1e6, 0.7, 5e5), rel=1e-12)
        assert schedule.factor(5e5) == 0.5
        assert schedule.factor(1e6) == 1
        assert schedule.factor(1.5e6 - 1) == 1
        assert schedule.factor(1.5e6) == pytest.approx(0.7)
        assert schedule.factor(1e7) == pytest.approx(0.7**18)

    def test_without_rampup_nothing_compounds(self):
        schedule = SampleSchedule(decay=0.5, every=100)
        assert [schedule.factor(n) for n in (0, 99, 100, 100, 100, 250)] == [1, 1, 0.5, 0.5, 0.5, 0.25]
        assert SampleSchedule().factor(1e9) == 1

    def test_the_rate_after_so_many_samples_does_not_depend_on_the_batch(self):
        schedule = SampleSchedule(rampup=48, decay=0.5, every=24)
        found: dict[int, list[float]] = {}
        for batch, accumulate in ((4, 1), (12, 1), (4, 3)):
            module = Counting(batch, schedule, accumulate)
            fit(module, TrainingLength(144))
            own = found[batch * accumulate] = module.rates[accumulate - 1 :: accumulate]
            assert own == pytest.approx(
                [formula(n, 48, 0.5, 24) for n in range(module.total_batch, 145, module.total_batch)]
            )
        assert found[12] == found[4][2::3]

    @pytest.mark.parametrize("changes", [{"rampup": -1}, {"decay": 0}, {"decay": 1.1}, {"every": 0}])
    def test_impossible_settings(self, changes):
        (name, value), *_ = changes.items()
        with pytest.raises(InputError, match=rf"model\.schedule: .*{name} {value}"):
            SampleSchedule(**changes)


class TestAverage:
    @pytest.mark.parametrize("batch", [1, 8, 64])
    def test_the_weight_of_the_past_is_halved_after_the_half_life(self, batch):
        average = SampleAverage(half_life=6400)
        average._batch = batch
        late = 10**6
        steps = 6400 // batch
        assert average.decay_after(late) ** steps == pytest.approx(0.5)
        product = math.prod(average.decay_after(late + step) for step in range(steps))
        assert product == pytest.approx(0.5)

    @pytest.mark.parametrize("batch", [1, 8])
    def test_early_the_half_life_is_a_twentieth_of_the_samples(self, batch):
        average = SampleAverage(half_life=1000)
        average._batch = batch
        assert average.decay_after(0) == 0
        for samples in (800, 8000, 16000):
            assert average.decay_after(samples // batch) == pytest.approx(0.5 ** (batch / (samples * 0.05)))
        assert average.decay_after(80000 // batch) == pytest.approx(0.5 ** (batch / 1000))

    def test_averages_of_a_fit(self):
        module, average = Counting(4), SampleAverage(half_life=10)
        fit(module, average, TrainingLength(48))
        assert average._batch == 4
        expected = 0.0
        for step in range(12):
            n = 4 * step
            decay = 0.5 ** (4 / min(10, 0.05 * n)) if n else 0.0
            expected = decay * expected + (1 - decay) * (step + 1)
        # the callback leaves the average in the model
        assert module.weight.item() == pytest.approx(expected)
        assert expected < 12

    @pytest.mark.parametrize("half_life", [0, -5.0])
    def test_impossible_half_lives(self, half_life):
        with pytest.raises(InputError, match=f"half-life of averaged weights must be positive, not {half_life}"):
            SampleAverage(half_life)


class TestLength:
    @pytest.mark.parametrize(
        ("samples", "batch", "accumulate", "steps"), [(100, 4, 1, 25), (100, 8, 1, 12), (100, 4, 3, 8), (1, 12, 1, 1)]
    )
    def test_steps(self, samples, batch, accumulate, steps):
        module = Counting(batch, accumulate=accumulate)
        trainer = fit(module, TrainingLength(samples))
        assert trainer.global_step == steps
        assert module.weight.item() == pytest.approx(steps)
        assert total_batch_of(module) == batch * accumulate

    def test_impossible_lengths(self):
        with pytest.raises(InputError, match=r"a training of 0\.5 samples: expected at least 1"):
            TrainingLength(0.5)
