"""Averaged weights are those of the formula, in validation, in checkpoints and after a resumed training."""

import threading
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ai4sim.averaging import AverageWeights
from ai4sim.errors import InputError
from ai4sim.modules import ExperimentModule


class Network(nn.Module):
    """A weight, and indices as a graph network has them."""

    rows: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
        self.register_buffer("rows", torch.tensor([0, 5, 2**40 + 1]))
        self.register_buffer("limits", torch.tensor([-torch.inf, 0.1, torch.inf]))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x


class Descent:
    """Makes the optimiser; as what the command line makes for that, it cannot be copied."""

    def __init__(self) -> None:
        self.lock = threading.RLock()

    def __call__(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.1)


class Module(ExperimentModule):
    """Makes its network in `setup`; notes its weight after each step and in each validation."""

    def __init__(self) -> None:
        super().__init__(Descent())
        self.network: Network | None = None
        self.steps: list[float] = []
        self.validated: list[float] = []
        self.tested = 0.0

    def setup(self, stage: str) -> None:
        if self.network is None:
            self.network = Network()

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        assert self.network is not None
        return (self.network(batch[0]) - 3.0).square().mean()

    def on_train_batch_end(self, *args: object) -> None:
        assert self.network is not None
        self.steps.append(self.network.weight.item())

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        assert self.network is not None
        self.tested = self.network.weight.item()

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        assert self.network is not None
        self.validated.append(self.network.weight.item())
        self.log("val_loss", self.network(batch[0]).mean())


def fit(folder: Path, epochs: int, decay: float = 0.5, checkpoint: Path | None = None) -> Module:
    """Three steps an epoch, then a test of the checkpoint."""
    module = Module()
    data = DataLoader(TensorDataset(torch.ones(3, dtype=torch.float64)))
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[AverageWeights(decay), ModelCheckpoint(folder, filename="last", enable_version_counter=False)],
    )
    trainer.fit(module, data, data, ckpt_path=checkpoint, weights_only=True)
    trainer.test(module, data, ckpt_path=folder / "last.ckpt", weights_only=True, verbose=False)
    return module


def averages(weights: list[float], decay: float) -> list[float]:
    """By hand, with the shorter average of the first steps."""
    result = [weights[0]]
    for n, weight in enumerate(weights[1:], start=1):
        d = min(decay, (1 + n) / (10 + n))
        result.append(d * result[-1] + (1 - d) * weight)
    return result


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.999])
def test_average_follows_the_formula(tmp_path: Path, decay: float) -> None:
    module = fit(tmp_path, 2, decay)
    expected = averages(module.steps, decay)
    assert module.steps[0] == pytest.approx(1.4)  # 1 - 0.1 * 2 * (1 - 3)
    assert module.validated[0] == pytest.approx(expected[2], rel=1e-12)
    assert module.validated[-1] == pytest.approx(expected[5], rel=1e-12)
    assert module.network is not None
    assert module.network.weight.item() == pytest.approx(expected[5], rel=1e-12)  # left in the model
    assert module.tested == module.validated[-1]
    assert (decay == 0.0) == (expected[5] == module.steps[5])


def test_weights_are_averaged_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    lerp = torch._foreach_lerp_

    def spy(averages: list[Tensor], values: list[Tensor], weight: float) -> None:
        calls.append(len(averages))
        lerp(averages, values, weight)

    monkeypatch.setattr(torch, "_foreach_lerp_", spy)
    fit(tmp_path, 1)
    assert calls == [1, 1]  # the first step is copied


def test_checkpoint_has_both_weights_and_exact_indices(tmp_path: Path) -> None:
    module = fit(tmp_path, 2)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["state_dict"]["network.weight"].item() == pytest.approx(averages(module.steps, 0.5)[-1])
    assert checkpoint["current_model_state"]["network.weight"].item() == module.steps[-1]
    assert checkpoint["state_dict"]["network.rows"].tolist() == [0, 5, 2**40 + 1]
    assert torch.equal(checkpoint["state_dict"]["network.limits"], torch.tensor([-torch.inf, 0.1, torch.inf]))


def test_resumed_training_goes_on_with_both_weights(tmp_path: Path) -> None:
    straight = fit(tmp_path / "straight", 4)
    fit(tmp_path / "resumed", 2)
    resumed = fit(tmp_path / "resumed", 4, checkpoint=tmp_path / "resumed" / "last.ckpt")
    assert resumed.steps == straight.steps[6:]
    assert resumed.validated[-1] == straight.validated[-1]


def test_a_fit_does_not_go_on_from_averages_as_if_they_were_its_weights(tmp_path: Path) -> None:
    fit(tmp_path, 2)
    data = DataLoader(TensorDataset(torch.ones(3, dtype=torch.float64)))
    trainer = Trainer(max_epochs=4, accelerator="cpu", logger=False, enable_progress_bar=False)
    with pytest.raises(InputError, match=r"the checkpoint has averaged weights: .* keep ai4sim.averaging.AverageWe"):
        trainer.fit(Module(), data, data, ckpt_path=tmp_path / "last.ckpt", weights_only=True)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_decay_is_checked(decay: float) -> None:
    with pytest.raises(InputError, match=f"at least 0 and below 1, not {decay}"):
        AverageWeights(decay)
