"""Losses over the interior of a limited area, in standardised space.

Predictions and targets are (batch, step, lat, lon, features). Missing targets (NaN) are left out, for each feature by
itself, and so is the border. Losses of a Gaussian forecast also take its standard deviation, called spread here.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ai4sim.errors import InputError
from weather_forecast.lam.parameters import Parameter


def feature_weights(names: Sequence[str], given: Mapping[str, float] | None = None) -> Tensor:
    """Weights (F,) of the features: those given, or 1 + level/1000 on pressure levels and 2 elsewhere.

    Raises:
        InputError: weights are given, but not of just these features.
    """
    if given is None:
        return torch.tensor([Parameter.parse(name).weight for name in names])
    missing, extra = [n for n in names if n not in given], [n for n in given if n not in names]
    if missing or extra:
        raise InputError(f"loss weights must name every feature: missing {missing}, unknown {extra}")
    return torch.tensor([float(given[name]) for name in names])


def interior_mean(values: Tensor, there: Tensor, interior: Tensor) -> Tensor:
    """Mean over the interior's points that are there.

    Args:
        values: (B, T, lat, lon, F), finite.
        there: (B, T, lat, lon, F) whether a value counts.
        interior: (lat, lon, 1) weights.

    Returns:
        (B, T, F); 0 where nothing is left.
    """
    weight = interior * there
    total = (values * weight).sum(dim=(2, 3))
    return total / weight.sum(dim=(2, 3)).clamp(min=torch.finfo(values.dtype).tiny)


class Scales(NamedTuple):
    """How much standardised features usually change.

    Attributes:
        change: (F,) standard deviation of the change over one step.
        roughness: (F,) root mean square of the difference between neighbouring points.
    """

    change: Tensor
    roughness: Tensor


class ForecastLoss(nn.Module, ABC):
    """A loss that learns from the data which features it is of.

    Attributes:
        needs_spread: whether forecasts need a spread.
    """

    needs_spread: bool = False

    @abstractmethod
    def build(self, names: Sequence[str], scales: Scales) -> None:
        """Take the features' names, and how much they change."""

    @abstractmethod
    def forward(self, prediction: Tensor, target: Tensor, interior: Tensor, spread: Tensor | None = None) -> Tensor:
        """Loss (B, T) of every sample and step.

        Args:
            prediction: (B, T, lat, lon, F) forecast, the mean of a Gaussian one.
            target: (B, T, lat, lon, F), NaN where it is missing.
            interior: (lat, lon, 1) weights.
            spread: (B, T, lat, lon, F) standard deviation of a Gaussian forecast.
        """


class WeightedLoss(ForecastLoss):
    """Mean over the interior of ``|error|^p``, weighted by feature and summed over the features.

    The weight of a feature is w/sigma^p, with sigma the standard deviation of its standardised change over one step:
    features that change slowly must be forecast as much more precisely.

    Args:
        p: 2 (squared error) or 1 (absolute error).
        weights: w by feature name; by default 1 + level/1000 on pressure levels and 2 elsewhere.
    """

    factor: Tensor

    def __init__(self, p: Literal[1, 2] = 2, weights: dict[str, float] | None = None) -> None:
        super().__init__()
        if p not in (1, 2):
            raise InputError(f"WeightedLoss: p must be 1 or 2, not {p}")
        self.p, self.weights = p, weights
        self.register_buffer("factor", torch.empty(0), persistent=False)

    def build(self, names: Sequence[str], scales: Scales) -> None:
        """Set the factors of the features from their names and the standard deviation of their change."""
        self.factor = (feature_weights(names, self.weights).to(scales.change) / scales.change**self.p).float()

    def forward(self, prediction: Tensor, target: Tensor, interior: Tensor, spread: Tensor | None = None) -> Tensor:
        """Loss (B, T) of every sample and step, whatever its spread."""
        there = torch.isfinite(target)
        # before the power: its gradient would be 0 * NaN
        error = torch.where(there, prediction - target, 0)
        error = error.square() if self.p == 2 else error.abs()
        return (interior_mean(error, there, interior) * self.factor).sum(-1)


class GradientLoss(ForecastLoss):
    """Mean over the interior of the squared error's differences between neighbouring points, weighted by feature.

    Beside :class:`WeightedLoss` it makes the norm of a Sobolev space, which counts small scales as much as large ones:
    errors of grid scale hardly count in a squared error, grow from step to step, and destroy the balance between wind
    and geopotential, whose gradient they spoil. The weight of a feature is w/(sigma gamma)^2, with sigma the standard
    deviation of its change over one step and gamma the usual difference between neighbouring points: features that are
    smooth must be forecast as much smoother. (As if changes were as rough as the fields themselves.)

    Args:
        weights: w by feature name; by default 1 + level/1000 on pressure levels and 2 elsewhere.
    """

    factor: Tensor

    def __init__(self, weights: dict[str, float] | None = None) -> None:
        super().__init__()
        self.weights = weights
        self.register_buffer("factor", torch.empty(0), persistent=False)

    def build(self, names: Sequence[str], scales: Scales) -> None:
        """Set the factors of the features."""
        gradient = scales.change * scales.roughness
        self.factor = (feature_weights(names, self.weights).to(gradient) / gradient**2).float()

    def forward(self, prediction: Tensor, target: Tensor, interior: Tensor, spread: Tensor | None = None) -> Tensor:
        """Loss (B, T) of every sample and step, whatever its spread; the mean over both directions."""
        there = torch.isfinite(target)
        error = torch.where(there, prediction - target, 0)
        total = torch.zeros_like(error[:, :, 0, 0, 0])
        for dim in (2, 3):
            n = error.shape[dim]
            pairs = there.narrow(dim, 1, n - 1) & there.narrow(dim, 0, n - 1)
            inside = interior.narrow(dim - 2, 1, n - 1) * interior.narrow(dim - 2, 0, n - 1)
            mean = interior_mean(error.diff(dim=dim).square(), pairs, inside)
            total = total + (mean * self.factor).sum(-1) / 2
        return total


class GaussianLoss(ForecastLoss):
    """Mean over the interior of a proper score of Gaussian forecasts, weighted by feature and summed over the features.

    With error e and spread s: ``nll``, the negative logarithm of the density, ``(e/s)²/2 + ln s + ln(2π)/2``; or
    ``crps``, the continuous ranked probability score (Gneiting et al. 2005, Mon. Wea. Rev. 133, eq. 5), ``s [z (2Φ(z) -
    1) + 2φ(z) - 1/√π]`` with z = e/s, over the deviation of the feature's change, as in :class:`WeightedLoss`.

    Args:
        score: ``crps`` or ``nll``.
        weights: by feature name; by default 1 + level/1000 on pressure levels and 2 elsewhere.

    Raises:
        InputError: another score.
    """

    factor: Tensor
    needs_spread = True

    def __init__(self, score: Literal["crps", "nll"] = "crps", weights: dict[str, float] | None = None) -> None:
        super().__init__()
        if score not in ("crps", "nll"):
            raise InputError(f"GaussianLoss: score must be crps or nll, not {score!r}")
        self.score, self.weights = score, weights
        self.register_buffer("factor", torch.empty(0), persistent=False)

    def build(self, names: Sequence[str], scales: Scales) -> None:
        """Set the factors of the features."""
        weights = feature_weights(names, self.weights).to(scales.change)
        self.factor = (weights / scales.change if self.score == "crps" else weights).float()

    def forward(self, prediction: Tensor, target: Tensor, interior: Tensor, spread: Tensor | None = None) -> Tensor:
        """Loss (B, T) of every sample and step."""
        if spread is None:
            raise ValueError("GaussianLoss needs a forecast's spread")
        there = torch.isfinite(target)
        error = torch.where(there, target - prediction, 0)
        score = gaussian_crps if self.score == "crps" else gaussian_nll
        return (interior_mean(score(error, spread), there, interior) * self.factor).sum(-1)


def gaussian_nll(error: Tensor, spread: Tensor) -> Tensor:
    """Negative logarithm of the normal density at an error from its mean; same shapes."""
    return (error / spread).square() / 2 + spread.log() + math.log(2 * math.pi) / 2


def gaussian_crps(error: Tensor, spread: Tensor) -> Tensor:
    """Continuous ranked probability score of a normal forecast, in the error's units; same shapes."""
    z = error / spread
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    # 2 Φ(z) - 1 = erf(z / √2)
    return spread * (z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))


class CombinedLoss(ForecastLoss):
    """Weighted sum of losses.

    Args:
        losses: what to add.
        weights: of each; by default 1.
    """

    def __init__(self, losses: list[ForecastLoss], weights: list[float] | None = None) -> None:
        super().__init__()
        if weights is not None and len(weights) != len(losses):
            raise InputError(f"CombinedLoss: {len(weights)} weights for {len(losses)} losses")
        self.losses = losses
        self.parts = nn.ModuleList(losses)  # so that their buffers move with this module
        self.weights = weights or [1.0] * len(losses)
        self.needs_spread = any(loss.needs_spread for loss in losses)

    def build(self, names: Sequence[str], scales: Scales) -> None:
        """Hand names and scales to all losses."""
        for loss in self.losses:
            loss.build(names, scales)

    def forward(self, prediction: Tensor, target: Tensor, interior: Tensor, spread: Tensor | None = None) -> Tensor:
        """Loss (B, T) of every sample and step."""
        parts = [
            weight * loss(prediction, target, interior, spread)
            for weight, loss in zip(self.weights, self.losses, strict=True)
        ]
        return torch.stack(parts).sum(0)
