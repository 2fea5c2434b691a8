"""Training of column networks."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from ai4sim.errors import InputError
from ai4sim.modules import ExperimentModule, OptimizerFactory, default_optimizer
from ai4sim.schedules import CosineSchedule
from weather_forecast.gwd import config
from weather_forecast.gwd.augmentation import random_symmetry
from weather_forecast.gwd.data import GwdData
from weather_forecast.gwd.diagnostics import galilean_error, rotation_error
from weather_forecast.gwd.levels import get_grid
from weather_forecast.gwd.losses import ScaledMSE, target_scale
from weather_forecast.gwd.metrics import ColumnSkill
from weather_forecast.gwd.networks import AzimuthFluxNet
from weather_forecast.gwd.networks.base import ColumnNetwork
from weather_forecast.gwd.networks.pressure import LayerPressures

Batch = dict[str, Tensor]


class GwdModule(ExperimentModule):
    """Trains a network to give the tendencies of a column, in physical units from end to end.

    Args:
        network: the network; its statistics are set from the training rows when a fit begins.
        loss: called as ``loss(prediction, target, x, scale)``, see :mod:`weather_forecast.gwd.losses`.
        target_scaling: ``global`` divides all outputs by the largest standard deviation, ``level`` each level by its
            own, ``blend`` by ``s_max^(1-w) s_k^w``.
        target_weight: w of ``blend``.
        augment: turn or mirror every training column at random, exact symmetries of the scheme.
        optimizer: makes the optimiser from the parameters.
        schedule: learning rate over the training.
    """

    network: ColumnNetwork

    def __init__(
        self,
        network: ColumnNetwork | None = None,
        loss: nn.Module | None = None,
        target_scaling: Literal["global", "level", "blend"] = "blend",
        target_weight: float = 0.75,
        augment: bool = False,
        optimizer: OptimizerFactory = default_optimizer,
        schedule: CosineSchedule | None = None,
    ) -> None:
        super().__init__(optimizer, schedule)
        self.network = network or AzimuthFluxNet()
        self.loss = loss or ScaledMSE()
        self.target_scaling, self.target_weight = target_scaling, target_weight
        self.augment = augment
        self.skill = ColumnSkill(self.network.layout)

    @property
    def label(self) -> str:
        """Name in scorecards: the network's."""
        return type(self.network).__name__

    def forward(self, x: Tensor) -> Tensor:
        """Tendencies (B, n_outputs) in m s-2 of columns (B, n_inputs) in physical units."""
        output: Tensor = self.network(x)
        return output

    def setup(self, stage: str) -> None:
        """Check that data and network agree, and set the statistics where a fit begins.

        Raises:
            InputError: the data have other levels or features than the network, or another vertical grid.
            NotFittedError: nothing was ever fitted and no checkpoint is given.
        """
        data = self.datamodule
        if not isinstance(data, GwdData):
            return
        if data.layout != self.network.layout:
            raise InputError(
                f"the network was built for {self.network.layout}, the data have {data.layout}: "
                "use the network's own data, or train one with model.network.init_args.layout of the data"
            )
        vertical = get_grid(data.grid)
        for name, module in self.named_modules():
            if isinstance(module, LayerPressures) and not module.belongs_to(vertical):
                raise InputError(
                    f"{name} was built for other levels than data.grid {data.grid!r}: "
                    "give the network and the loss the grid of the data"
                )
        if stage == "fit" and not self.network.inputs.is_fitted:
            inputs, targets = data.statistics("x"), data.statistics("y")
            std = inputs.usable_std([data.layout.describe(i) for i in range(data.layout.n_inputs)])
            self.network.inputs.fit(inputs.mean, std)
            scale, _ = target_scale(targets.std, data.layout, self.target_scaling, self.target_weight)
            self.network.outputs.fit(scale)

    def on_validation_start(self) -> None:
        """Refuse to validate what was never fitted."""
        self.network.inputs.require_fitted()

    def on_test_start(self) -> None:
        """Refuse to test what was never fitted."""
        self.network.inputs.require_fitted()

    def on_predict_start(self) -> None:
        """Refuse to predict with what was never fitted."""
        self.network.inputs.require_fitted()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch."""
        x, y = batch["x"], batch["y"]
        if self.augment:
            generator = torch.Generator().manual_seed(hash((self.current_epoch, batch_idx)) % 2**31)
            x, y = random_symmetry(x, y, self.network.layout, generator)
        loss = self._loss(self(x), y, x)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True, batch_size=len(x))
        return loss

    def _loss(self, prediction: Tensor, target: Tensor, x: Tensor) -> Tensor:
        value: Tensor = self.loss(prediction, target, x, self.network.outputs.scale)
        return value

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss and skill of a batch."""
        prediction = self(batch["x"])
        self.log(
            "val_loss", self._loss(prediction, batch["y"], batch["x"]),
            prog_bar=True, sync_dist=True, batch_size=len(prediction),
        )  # fmt: skip
        self.skill.update(prediction, batch["y"])

    def on_validation_epoch_end(self) -> None:
        """Log the skill over the whole validation set."""
        self.log_dict({f"val_{name}": value for name, value in self.skill.compute().items()}, prog_bar=True)
        self.skill.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Predictions of a batch, and how far the network breaks the scheme's exact properties."""
        x = batch["x"]
        prediction = self(x)
        self.skill.update(prediction, batch["y"])
        return {
            "index": batch["index"],
            **self._labelled(prediction),
            "rotation_error": rotation_error(self.network, x, prediction),
            "galilean_error": galilean_error(self.network, x, prediction),
        }

    def on_test_epoch_end(self) -> None:
        """Log the skill over the whole test set."""
        self.log_dict({f"test_{name}": value for name, value in self.skill.compute().items()})
        self.skill.reset()

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Predictions of a batch."""
        return {"index": batch["index"], **self._labelled(self(batch["x"]))}

    def _labelled(self, prediction: Tensor) -> Batch:
        return {name: prediction[:, self.network.layout.slice_of(name)] for name in config.TARGETS}
