"""Training of networks that give the distribution of hourly precipitation."""

import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import dask.array
import numpy as np
import torch
import xarray as xr
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from ai4sim.errors import InputError
from ai4sim.experiment import read_checkpoint
from ai4sim.modules import ExperimentModule, OptimizerFactory, default_optimizer
from ai4sim.schedules import CosineSchedule
from precip_postproc.resunet_qpf import config
from precip_postproc.resunet_qpf.calibration import BINS, Calibration
from precip_postproc.resunet_qpf.classes import check_edges, classify
from precip_postproc.resunet_qpf.data import QpfData
from precip_postproc.resunet_qpf.features import DEFAULT, FeatureStack
from precip_postproc.resunet_qpf.flips import random_flips
from precip_postproc.resunet_qpf.heads import ClassHead, CsgdHead, GammaHead, Head, QuantileHead
from precip_postproc.resunet_qpf.inference import Inference
from precip_postproc.resunet_qpf.losses import AmountLoss, CrossEntropy, CsgdCrps, GammaLikelihood, Pinball, masked_mean
from precip_postproc.resunet_qpf.networks import ConditionedResUNet
from precip_postproc.resunet_qpf.networks.base import QpfNetwork
from precip_postproc.resunet_qpf.prepare import GRID, STEP, UNKNOWN
from precip_postproc.resunet_qpf.trained_on import TrainedOn

Batch = dict[str, Tensor]
NetworkFactory = Callable[[int, int], QpfNetwork]
HeadKind = Literal["classes", "gamma", "csgd", "quantiles"]

HEADS: dict[str, tuple[type[Head], type[AmountLoss]]] = {
    "classes": (ClassHead, CrossEntropy),
    "gamma": (GammaHead, GammaLikelihood),
    "csgd": (CsgdHead, CsgdCrps),
    "quantiles": (QuantileHead, Pinball),
}
"""Families of distributions, each with the loss that it is trained with by default."""

PACKED = 1e-4  # step of stored probabilities
TRAINED_ON, CALIBRATION = "trained_on", "calibration"


class QpfModule(ExperimentModule):
    """Trains a network to give the distribution of the hourly amount at every point.

    Args:
        network: makes the network from its numbers of inputs and outputs.
        features: names of its inputs, see :mod:`~precip_postproc.resunet_qpf.features`.
        edges: amounts, mm, between the classes, at which probabilities of exceedance are given out.
        head: family of the distributions.
        loss: of a distribution and an amount; by default cross-entropy for classes, likelihood for the gamma family,
            CRPS for the shifted one, pinball for quantiles.
        inference: whole fields at once, or by overlapping tiles.
        calibrate: let probabilities that are given out pass through the calibration of the validation days.
        flips: mirror training patches at random; slopes and winds turn with them. Where the wind is no input, mirrored
            patches have rain on the wrong side of mountains.
        allow_lead_extrapolation: forecast for lead times beyond those of the training.
        warm_start: checkpoint whose weights a fit begins with, of a training for another lead time or season.
        optimizer: makes the optimiser from the parameters.
        schedule: learning rate over the training.
    """

    def __init__(
        self,
        network: NetworkFactory = ConditionedResUNet,
        features: list[str] | None = None,
        edges: list[float] | None = None,
        head: HeadKind = "classes",
        loss: AmountLoss | None = None,
        inference: Inference | None = None,
        calibrate: bool = False,
        flips: bool = False,
        allow_lead_extrapolation: bool = False,
        warm_start: Path | None = None,
        optimizer: OptimizerFactory = default_optimizer,
        schedule: CosineSchedule | None = None,
    ) -> None:
        super().__init__(optimizer, schedule)
        self.features = FeatureStack(features or DEFAULT)
        kind, default_loss = HEADS[head]
        self.edges = check_edges(edges or config.EDGES, config.THRESHOLDS)
        self.head = kind(self.edges)
        self.loss: AmountLoss = loss or default_loss()
        self.loss.require_head(self.head)
        self.network = network(len(self.features.names), self.head.n_outputs)
        self.inference = inference or Inference()
        self.calibrate, self.flips = calibrate, flips
        self.allow_lead_extrapolation, self.warm_start = allow_lead_extrapolation, warm_start
        self.channels: list[str] | None = None
        self.trained_on: TrainedOn | None = None
        self._data: TrainedOn | None = None  # of the data at hand
        self.calibration: Calibration | None = None
        # sums over a validation: squared errors of all exceedances and number of points; by lead, edge and bin; and
        # the number of fields with the event by lead and edge
        self._validated = torch.zeros(2, dtype=torch.float64)
        self._binned: Tensor | None = None
        self._cases: Tensor | None = None

    @property
    def label(self) -> str:
        """Name in scorecards: the network's."""
        return type(self.network).__name__

    # -- what a checkpoint was trained on

    def setup(self, stage: str) -> None:
        """Take note of the data, set the last bias where a fit begins, or check that the data are of the same kind.

        Raises:
            InputError: the data lack a field, or are of another kind than those of the training.
        """
        data = self.datamodule
        if not isinstance(data, QpfData):
            return
        self.channels = data.channels
        self.features(torch.zeros(1, len(data.channels), 1, 1), data.channels)
        if data.patch % self.network.multiple and stage == "fit":
            raise InputError(
                f"data.patch {data.patch} is no multiple of {self.network.multiple}, by which {self.label} divides its "
                "grid"
            )
        if stage == "predict":
            self._require_leads(data.predict_leads or data.leads)
            return
        found = TrainedOn(
            edges=list(self.edges),
            features=self.features.constants(),
            leads=data.leads,
            spacing_km=data.grid["spacing_km"],
            grid=data.grid["fingerprint"],
            version=metadata.version("ai4sim"),
            coarse=data.coarse_means(),
        )
        self._data = found
        if self.trained_on is not None:
            self.trained_on.require_same(found, same_leads=stage == "fit")
            self._require_leads(data.leads)
        elif stage == "fit":
            self.trained_on = found
            climate = data.climate()
            climate.warn_empty(self.edges)
            with torch.no_grad():
                bias = self.network.head.bias
                assert bias is not None
                bias.copy_(self.head.initial_bias(climate))
            if self.warm_start is not None:
                self._start_from(self.warm_start)

    def _trained(self) -> TrainedOn:
        """What the model was trained on.

        Raises:
            InputError: nothing.
        """
        if self.trained_on is None:
            raise InputError("the model was never trained: give the checkpoint of a fit with --ckpt_path")
        return self.trained_on

    def _start_from(self, path: Path) -> None:
        """Take the weights of another training, with the same edges and features."""
        stored = read_checkpoint(path)
        if TRAINED_ON not in stored:
            raise InputError(f"model.warm_start {path} is no checkpoint of this use case")
        TrainedOn.from_dict(stored[TRAINED_ON]).require_model(list(self.edges), self.features.constants())
        try:
            self.load_state_dict(stored["state_dict"])
        except RuntimeError as error:
            raise InputError(f"model.warm_start {path} is of another network: {error}") from error

    def _require_leads(self, leads: list[int]) -> None:
        if self.trained_on is not None and not self.allow_lead_extrapolation:
            self.trained_on.require_within(leads)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what is known of the data, and the calibration."""
        super().on_save_checkpoint(checkpoint)
        assert self.trained_on is not None
        checkpoint[TRAINED_ON] = self.trained_on.to_dict()
        if self.calibration is not None:
            checkpoint[CALIBRATION] = {
                "leads": list(self.calibration.leads),
                "forecast": torch.from_numpy(self.calibration.forecast),
                "observed": torch.from_numpy(self.calibration.observed),
            }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up what is known of the data, and the calibration.

        Raises:
            InputError: the checkpoint has other edges or features than the model.
        """
        super().on_load_checkpoint(checkpoint)
        if TRAINED_ON not in checkpoint:
            raise InputError("the checkpoint does not say what it was trained on: it is not of this use case")
        stored = TrainedOn.from_dict(checkpoint[TRAINED_ON])
        stored.require_model(list(self.edges), self.features.constants())
        self.trained_on = stored
        if self._data is not None:
            going_on = self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING
            stored.require_same(self._data, same_leads=going_on)
            self._require_leads(self._data.leads)
        if (known := checkpoint.get(CALIBRATION)) is not None:
            self.calibration = Calibration(known["leads"], known["forecast"].numpy(), known["observed"].numpy())

    # -- training

    def forward(self, fields: Tensor, conditions: Tensor) -> Tensor:
        """Outputs (B, n_outputs, H, W) of the network for fields (B, C, H, W) in physical units.

        Args:
            fields: those of the data module's channels.
            conditions: (B, 8) of lead time and time.
        """
        assert self.channels is not None, "the model does not know its data: setup() has not been called"
        outputs: Tensor = self.network(self.features(fields, self.channels), conditions)
        return outputs

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch of patches."""
        if self.flips:
            assert self.channels is not None
            # of the step's own random numbers: a fit that goes on turns the same patches
            step = 1_000_003 * self.current_epoch + batch_idx
            generator = torch.Generator().manual_seed(torch.initial_seed() + step)
            batch = random_flips(batch, self.channels, generator)
        observed = batch["observed"]
        outputs = self(batch["fields"], batch["conditions"])
        weights = torch.isfinite(observed) * batch["weight"][:, None, None]
        loss = masked_mean(self.loss(self.head, outputs, observed), weights)
        if not torch.isfinite(loss):
            raise InputError(self._diverged(loss, batch))
        self.log(
            "train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True, batch_size=len(observed)
        )
        return loss

    def _diverged(self, loss: Tensor, batch: Batch) -> str:
        """What to say of a loss that is not finite."""
        cases = [
            f"row {row} (+{lead} h)" for row, lead in zip(batch["index"].tolist(), batch["lead"].tolist(), strict=True)
        ]
        data = self.datamodule
        if isinstance(data, QpfData):
            inits = data.inits(batch["index"].tolist())
            cases = [f"{init} +{lead} h" for init, lead in zip(inits, batch["lead"].tolist(), strict=True)]
        return (
            f"the training loss is {loss.item()} at step {self.global_step}, for the forecasts "
            f"{', '.join(dict.fromkeys(cases))}. Lower the learning rate, or clip gradients"
        )

    # -- validation: the ranked probability score, and sums for the calibration

    def on_validation_epoch_start(self) -> None:
        """Begin the sums anew."""
        leads = self._trained().leads
        self._validated = torch.zeros(2, dtype=torch.float64, device=self.device)
        self._binned = torch.zeros(len(leads), len(self.edges), len(BINS) - 1, 3, device=self.device)
        self._cases = torch.zeros(len(leads), len(self.edges), device=self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Squared errors of all exceedances, over whole fields."""
        assert self._binned is not None
        assert self._cases is not None
        assert self.trained_on is not None
        for sample in range(len(batch["fields"])):
            one = {name: values[sample : sample + 1] for name, values in batch.items()}
            probability = self.exceedance(one)[0]
            classes = classify(one["observed"][0], self.head.edges)
            known = classes >= 0
            p = probability[:, known]
            events = classes[known] > torch.arange(len(self.edges), device=p.device)[:, None]
            self._validated += torch.stack([(p - events.to(p)).square().sum(dtype=torch.float64), known.sum()])
            lead = int(one["lead"])
            if lead in self.trained_on.leads:
                row = self.trained_on.leads.index(lead)
                self._bin(self._binned[row], p, events)
                self._cases[row] += events.any(dim=1)

    @staticmethod
    def _bin(sums: Tensor, probability: Tensor, events: Tensor) -> None:
        """Add forecasts (edge, n) to the sums (edge, bin, 3)."""
        bounds = torch.as_tensor(BINS[1:-1], dtype=probability.dtype, device=probability.device)
        n_bins = len(BINS) - 1
        for own, p, event in zip(sums, probability, events, strict=True):
            place = torch.bucketize(p, bounds, right=True)
            own[:, 0] += torch.bincount(place, minlength=n_bins)
            # in single precision a sum of millions of small numbers is off by a percent
            own[:, 1] += torch.bincount(place, p.double(), minlength=n_bins)
            own[:, 2] += torch.bincount(place, event.to(p), minlength=n_bins)

    def on_validation_epoch_end(self) -> None:
        """Log the score over all fields of all processes, and fit the calibration."""
        assert self._binned is not None
        assert self._cases is not None
        assert self.trained_on is not None
        total = self.trainer.strategy.reduce(self._validated, reduce_op="sum")
        binned = self.trainer.strategy.reduce(self._binned, reduce_op="sum")
        cases = self.trainer.strategy.reduce(self._cases, reduce_op="sum")
        assert isinstance(total, Tensor)
        assert isinstance(binned, Tensor)
        assert isinstance(cases, Tensor)
        # all processes have the same numbers now
        self.log("val_loss", total[0] / total[1].clamp(min=1), prog_bar=True)
        if not self.trainer.sanity_checking:
            sums = (each.double().cpu().numpy() for each in (binned, cases))
            self.calibration = Calibration.fit(self.trained_on.leads, *sums)

    # -- probabilities

    @torch.no_grad()
    def exceedance(self, batch: Batch) -> Tensor:
        """Probabilities (B, K, H, W) that the amount reaches the edges, over whole fields.

        Args:
            batch: with ``fields`` and ``conditions``.
        """
        parts = []
        for fields, conditions in zip(batch["fields"], batch["conditions"], strict=True):

            def call(tiles: Tensor, own: Tensor = conditions) -> Tensor:
                return self.head.exceedance(self(tiles, own.to(tiles.device).expand(len(tiles), -1)))

            parts.append(self.inference.run(call, fields, self.network.multiple))
        return torch.stack(parts)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Packed probabilities of whole fields."""
        packed = torch.round(self.exceedance(batch) / PACKED).to(torch.int16)
        return {"index": batch["index"], "exceedance": packed}

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Packed probabilities of whole fields, calibrated if that is asked for, and the forecast itself.

        Raises:
            InputError: a calibration is asked for, and the checkpoint has none.
        """
        probability = self.exceedance(batch)
        if self.calibrate:
            if self.calibration is None:
                raise InputError("model.calibrate: the checkpoint has no calibration; it is made when a fit validates")
            calibrated = [
                self.calibration.apply(own, lead)
                for own, lead in zip(probability.cpu().numpy(), batch["lead"].tolist(), strict=True)
            ]
            probability = torch.from_numpy(np.stack(calibrated))
        packed = torch.round(probability / PACKED).to(torch.int16)
        return {"index": batch["index"], "exceedance": packed, "forecast": batch["forecast"]}

    def complete_template(self, template: xr.Dataset) -> xr.Dataset:
        """Add the probabilities at every edge to a template, in ``test`` with the calibration, else the forecast.

        Raises:
            InputError: the model was never trained, or for other lead times or another grid than those of a forecast.
        """
        data = self.datamodule
        assert isinstance(data, QpfData)
        stage = "predict" if self.trainer.predicting else "test"
        batch, n = data.prediction_batch(stage), template.sizes["sample"]
        shape = (template.sizes["y"], template.sizes["x"])

        def empty(*sizes: int) -> Any:
            return dask.array.zeros((n, *sizes), dtype=np.int16, chunks=(batch, *sizes))

        edge = ("edge", list(self.edges), {"units": "mm", "long_name": "hourly precipitation"})
        attributes = {"units": "1", "long_name": "probability of hourly precipitation of an edge or more"}
        template = template.assign_coords(edge=edge).assign(
            exceedance=(
                ("sample", "edge", *GRID),
                empty(len(self.edges), *shape),
                attributes | {"scale_factor": PACKED},
            )
        )
        trained_on = self._trained()
        if stage == "predict":
            self._require_leads(template["lead_time"].values.tolist())
            trained_on.require_spacing(json.loads(template.attrs["grid"])["spacing_km"])
        template.attrs["model"] = self.label
        template.attrs["calibrated"] = int(self.calibrate and stage == "predict")
        if stage == "predict":
            attributes = {"units": "mm", "long_name": "forecast hourly precipitation"}
            packing = {"scale_factor": STEP, "_FillValue": UNKNOWN}
            return template.assign(forecast=(("sample", *GRID), empty(*shape), attributes | packing))
        if self.calibration is not None:
            dims = ("calibration_lead", "edge", "calibration_bin")
            template = template.assign_coords(
                calibration_lead=("calibration_lead", list(self.calibration.leads), {"units": "hours"}),
                calibration_forecast=(dims, self.calibration.forecast),
                calibration_observed=(dims, self.calibration.observed),
            )
        return template
