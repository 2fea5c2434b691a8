"""Training of limited-area forecasts."""

from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ai4sim.errors import InputError
from ai4sim.modules import ExperimentModule, OptimizerFactory, default_optimizer
from ai4sim.schedules import CosineSchedule
from weather_forecast.lam.data import LamData
from weather_forecast.lam.domain import DatasetInfo
from weather_forecast.lam.forecaster import Boundary, Forecaster, Window
from weather_forecast.lam.losses import ForecastLoss, Scales, WeightedLoss
from weather_forecast.lam.networks.base import make_settings
from weather_forecast.lam.networks.registry import get_network
from weather_forecast.lam.parameters import spread_name
from weather_forecast.lam.strategies import InterSteps, make_strategy

Batch = dict[str, Tensor]
INFO = "dataset_info"


class LamModule(ExperimentModule):
    """Trains a network to step the state of a limited area, in one or several steps.

    Args:
        network: name of a network (``HalfUNet``, ``UNet``, ``Segformer``, ``GraphLAM``, ``HiLAM``, ``HiLAMParallel``,
            or a plugin's), or the path of a class.
        settings: of the network.
        strategy: ``scaled_ar``, ``diff_ar`` or ``downscaling_only``.
        inter_steps: calls of the network per step.
        n_inputs: number of input states.
        boundary: where the border's values come from in training, validation and test: ``truth`` (hindcasts), ``host``
            or ``none``.
        predict_boundary: the same for ``predict``; by default ``host`` where the data have one, else ``none``.
        bounds: lower and upper bound by parameter, in physical units, such as ``{aro_tp_0m: [0, null]}``.
        clip_forecasts: keep forecasts within what is physical, except in training: no rain below 0, no humidity above
            100 %.
        mask_on_nan: accept missing values.
        loss: of standardised forecasts, see :mod:`weather_forecast.lam.losses`.
        checkpoint_steps: keep no activations of a step, recompute them.
        optimizer: makes the optimiser from the parameters.
        schedule: learning rate over the training.
    """

    def __init__(
        self,
        network: str = "HalfUNet",
        settings: dict[str, Any] | None = None,
        strategy: str = "scaled_ar",
        inter_steps: InterSteps | None = None,
        n_inputs: int = 1,
        boundary: Boundary = "truth",
        predict_boundary: Boundary | None = None,
        bounds: dict[str, tuple[float | None, float | None]] | None = None,
        clip_forecasts: bool = True,
        mask_on_nan: bool = False,
        loss: ForecastLoss | None = None,
        checkpoint_steps: bool = False,
        optimizer: OptimizerFactory = default_optimizer,
        schedule: CosineSchedule | None = None,
    ) -> None:
        super().__init__(optimizer, schedule)
        self.network_class = get_network(network)
        self.settings = make_settings(self.network_class.settings_kls, settings)
        self.strategy = make_strategy(strategy, inter_steps, n_inputs)
        self.n_inputs = n_inputs
        self.boundary, self.predict_boundary = boundary, predict_boundary
        self.clip_forecasts = clip_forecasts
        self.bounds, self.mask_on_nan, self.checkpoint_steps = bounds, mask_on_nan, checkpoint_steps
        self.loss: ForecastLoss = loss or WeightedLoss()
        self.n_steps: int | None = None
        self.lr_factor = 1.0
        self.forecaster: Forecaster | None = None

    @property
    def label(self) -> str:
        """Name in scorecards: the network's."""
        return self.network_class.__name__

    def build(self, info: DatasetInfo) -> Forecaster:
        """Make the network for a data set.

        Args:
            info: names, grid and statistics.
        """
        spread = self.loss.needs_spread
        channels = Forecaster.channels(info, self.n_inputs, mask_on_nan=self.mask_on_nan, spread=spread)
        network = self.network_class(*channels, info.shape, self.settings, info.grid)
        forecaster = Forecaster(
            network,
            info,
            self.strategy,
            n_inputs=self.n_inputs,
            boundary=self.boundary,
            bounds=self.bounds,
            mask_on_nan=self.mask_on_nan,
            checkpoint_steps=self.checkpoint_steps,
            spread=spread,
            clip=self.clip_forecasts,
        )
        self.loss.build(info.outputs, Scales(forecaster.changes.std, info.roughness.to(forecaster.changes.std)))
        self.forecaster = forecaster
        return forecaster

    @property
    def built(self) -> Forecaster:
        """The forecaster, once it is known for which data.

        Raises:
            InputError: neither data nor a checkpoint have been given.
        """
        if self.forecaster is None:
            raise InputError("the model does not know its data: fit it, or give a checkpoint")
        return self.forecaster

    def setup(self, stage: str) -> None:
        """Make the network for the data at hand, or check that they are of the kind it was trained on.

        Raises:
            InputError: they are not; says what differs.
        """
        data = self.datamodule
        if not isinstance(data, LamData):
            return
        if data.n_inputs != self.n_inputs:
            raise InputError(f"model.n_inputs is {self.n_inputs}, data.n_inputs {data.n_inputs}: they must be the same")
        if stage == "predict":
            return
        if self.forecaster is None:
            self.build(data.info())
        else:
            self.built.info.require_same(data.info())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what is known of the data."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[INFO] = self.built.info.to_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make the network for the data that the checkpoint was trained on.

        Raises:
            InputError: the data at hand are of another kind.
        """
        super().on_load_checkpoint(checkpoint)
        if INFO not in checkpoint:
            raise InputError("the checkpoint does not say which data it was trained on: it is not of this use case")
        info = DatasetInfo.from_dict(checkpoint[INFO])
        if self.forecaster is None:
            self.build(info)
        else:
            info.require_same(self.forecaster.info)

    def forward(self, window: Window, n_steps: int | None = None) -> Tensor:
        """Standardised forecasts (B, T, lat, lon, F_out)."""
        forecast: Tensor = self.built(window, n_steps)
        return forecast

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch over the current number of steps."""
        window = self._window(batch)
        by_step = self._loss(window, self.n_steps)
        loss = by_step.mean()
        if not torch.isfinite(loss):
            raise InputError(self._diverged(window, by_step))
        size = len(by_step)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True, batch_size=size)
        return loss

    def _window(self, batch: Batch) -> Window:
        if not self.mask_on_nan:
            self._refuse_missing(batch)
        return self.built.window(batch)

    def _refuse_missing(self, batch: Batch) -> None:
        missing = ~torch.isfinite(batch["state"])
        if not missing.any():
            return
        info = self.built.info
        counts = missing.flatten(0, 3).sum(0).tolist()
        names = [f"{name} ({count})" for name, count in zip(info.outputs, counts, strict=True) if count]
        sample, step, *_, feature = missing.nonzero()[0].tolist()
        seconds = int(batch["time"][sample]) + (step - self.n_inputs + 1) * info.step_seconds
        raise InputError(
            f"missing values in a batch: {', '.join(names)}; the first is of {info.outputs[feature]} at "
            f"{np.datetime64(seconds, 's')}; mend the data or set model.mask_on_nan"
        )

    @torch.no_grad()
    def _diverged(self, window: Window, by_step: Tensor) -> str:
        """What to say of a loss that is not finite."""
        by_lead = ", ".join(f"{value:.3g}" for value in by_step.mean(0).tolist())
        forecast, _ = self.built.distribution(window, by_step.shape[1])
        targets = window.targets[:, : forecast.shape[1]]
        there = torch.isfinite(targets)
        squares = torch.where(there, forecast - targets, 0).square().sum(dim=(0, 1, 2, 3))
        errors = (squares / there.sum(dim=(0, 1, 2, 3))).tolist()
        by_feature = ", ".join(f"{name} {e:.3g}" for name, e in zip(self.built.info.outputs, errors, strict=True))
        return (
            f"the training loss is {by_step.mean().item()} at step {self.global_step}; by lead time: {by_lead}; mean "
            f"squared error of the standardised features: {by_feature}. Lower the learning rate, or clip gradients"
        )

    def _loss(self, window: Window, n_steps: int | None = None) -> Tensor:
        forecast, spread = self.built.distribution(window, n_steps)
        targets = window.targets[:, : forecast.shape[1]]
        loss: Tensor = self.loss(forecast, targets, self.built.statics.interior_mask, spread)
        return loss

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """One step at the schedule's learning rate times the curriculum's factor."""
        groups = optimizer.param_groups
        rates = [group["lr"] for group in groups]
        for group in groups:
            group["lr"] *= self.lr_factor
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss of a batch over all its target times."""
        window = self._window(batch)
        by_step = self._loss(window)
        self.log("val_loss", by_step.mean(), prog_bar=True, sync_dist=True, batch_size=len(by_step))
        self.log("val_loss_first", by_step[:, 0].mean(), sync_dist=True, batch_size=len(by_step))
        self.log("val_loss_last", by_step[:, -1].mean(), sync_dist=True, batch_size=len(by_step))

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Forecasts of a batch in physical units."""
        return {"index": batch["index"], **self._named(self._window(batch))}

    def on_predict_start(self) -> None:
        """Choose the boundary for forecasts whose truth is not known, and say which."""
        data = self.datamodule
        if self.predict_boundary == "truth" and isinstance(data, LamData) and not data.predict_truth:
            raise InputError("model.predict_boundary truth needs the states at the target times: data.predict_truth")
        default: Boundary = "host" if self.built.info.host_matches() else "none"
        self.built.set_boundary(self.predict_boundary or default)
        self.print(f"boundary: {self.built.boundary}")

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Forecasts of a batch in physical units."""
        return {"index": batch["index"], **self._named(self.built.window(batch))}

    def _named(self, window: Window) -> Batch:
        forecaster, names = self.built, self.built.info.outputs
        mean, spread = forecaster.distribution(window)
        named = dict(zip(names, forecaster.physical(mean).unbind(-1), strict=True))
        if spread is not None:
            spreads = forecaster.physical_spread(spread).unbind(-1)
            named |= {spread_name(name): values for name, values in zip(names, spreads, strict=True)}
        return named

    def complete_template(self, template: xr.Dataset) -> xr.Dataset:
        """Add the spread of every parameter to a template of forecasts, where the network gives one."""
        if not self.built.spread:
            return template
        spreads = {}
        for name in self.built.info.outputs:
            attrs = {"units": template[name].attrs["units"]}
            attrs["long_name"] = f"standard deviation of {template[name].attrs['long_name']}"
            spreads[spread_name(name)] = xr.DataArray(template[name].data, dims=template[name].dims, attrs=attrs)
        return template.assign(spreads)
