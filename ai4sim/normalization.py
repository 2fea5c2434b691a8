"""Statistics gathered in one streaming pass, and the modules that carry them in a checkpoint."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ai4sim.errors import InputError

logger = logging.getLogger(__name__)


class NotFittedError(InputError):
    """A normalisation was used before its statistics were set."""


@dataclass(frozen=True)
class FeatureStatistics:
    """Moments of every feature over the training rows.

    Attributes:
        count: number of rows.
        mean: (n_features,) in the features' units.
        std: (n_features,) population standard deviation, in the features' units.
        minimum: (n_features,) smallest value seen.
        maximum: (n_features,) largest value seen.
    """

    count: int
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]

    def usable_std(self, names: Sequence[str] | None = None) -> NDArray[np.float64]:
        """The standard deviations, with 1 where a feature does not vary: below 1e-12 of its largest size.

        Args:
            names: of the features; given, a warning names those that do not vary.
        """
        constant = self.std <= 1e-12 * np.maximum(np.abs(self.minimum), np.abs(self.maximum))
        if names is not None and constant.any():
            listed = ", ".join(name for name, still in zip(names, constant, strict=True) if still)
            logger.warning("constant in the training rows, and left unscaled: %s", listed)
        return np.where(constant, 1.0, self.std)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for a manifest."""
        return {
            "count": self.count,
            **{name: getattr(self, name).tolist() for name in ("mean", "std", "minimum", "maximum")},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "FeatureStatistics":
        """Inverse of :meth:`to_dict`."""
        arrays = {name: np.asarray(values[name], np.float64) for name in ("mean", "std", "minimum", "maximum")}
        return cls(count=int(values["count"]), **arrays)


class RunningStatistics:
    """Mean and variance of rows that come in blocks, in float64 and in any order.

    Blocks are merged by the pairwise update of Chan, Golub and LeVeque (1979, Stanford STAN-CS-79-773,
    eq. 2.1), which keeps its accuracy when the mean is large against the standard deviation.

    Args:
        n_features: length of the last axis.

    Attributes:
        counts: (n_features,) values seen; with missing ones they differ.
    """

    def __init__(self, n_features: int) -> None:
        self.counts = np.zeros(n_features)
        self.mean = np.zeros(n_features)
        self._m2 = np.zeros(n_features)
        self.minimum = np.full(n_features, np.inf)
        self.maximum = np.full(n_features, -np.inf)

    @property
    def count(self) -> int:
        """Number of rows; with missing values, of the feature that has most."""
        return int(self.counts.max(initial=0))

    def update(self, rows: ArrayLike, *, skipna: bool = False) -> "RunningStatistics":
        """Add a block of rows of shape (..., n_features).

        Args:
            rows: the block.
            skipna: leave NaN out, for each feature by itself.
        """
        block = np.asarray(rows, np.float64).reshape(-1, self.mean.size)  # (n, n_features)
        if not block.size:
            return self
        missing = np.isnan(block)
        if skipna and missing.any():
            counts = len(block) - missing.sum(axis=0)
            mean = np.where(missing, 0, block).sum(axis=0) / np.maximum(counts, 1)
            deviation = np.where(missing, 0, block - mean)
            lowest, highest = (np.where(missing, end, block) for end in (np.inf, -np.inf))
        else:
            counts = np.full(self.mean.size, len(block))
            mean = block.mean(axis=0)
            deviation = block - mean
            lowest = highest = block
        self._merge(counts, mean, np.einsum("ij,ij->j", deviation, deviation))
        self.minimum = np.minimum(self.minimum, lowest.min(axis=0))
        self.maximum = np.maximum(self.maximum, highest.max(axis=0))
        return self

    def merge(self, other: "RunningStatistics") -> "RunningStatistics":
        """Add what another instance has seen."""
        if other.count:
            self._merge(other.counts, other.mean, other._m2)
            self.minimum = np.minimum(self.minimum, other.minimum)
            self.maximum = np.maximum(self.maximum, other.maximum)
        return self

    def scaled(self, factor: ArrayLike) -> "RunningStatistics":
        """The statistics of the same rows times a positive factor per feature."""
        factor = np.asarray(factor, np.float64)
        other = RunningStatistics(self.mean.size)
        other.counts, other._m2 = self.counts.copy(), self._m2 * factor**2
        other.mean, other.minimum, other.maximum = (x * factor for x in (self.mean, self.minimum, self.maximum))
        return other

    def _merge(self, counts: NDArray[Any], mean: NDArray[np.float64], m2: NDArray[np.float64]) -> None:
        total = np.maximum(self.counts + counts, 1)
        delta = mean - self.mean
        self._m2 = self._m2 + m2 + delta**2 * (self.counts * counts / total)
        self.mean = self.mean + delta * (counts / total)
        self.counts = self.counts + counts

    def result(self) -> FeatureStatistics:
        """The statistics of everything seen so far.

        Raises:
            NotFittedError: nothing has been seen, or of some feature nothing but missing values.
        """
        if self.count and not self.counts.all():
            empty = np.flatnonzero(self.counts == 0).tolist()
            raise NotFittedError(f"features {empty} have nothing but missing values in the training rows")
        if self.count == 0:
            raise NotFittedError("no rows were seen: the statistics of an empty training set do not exist")
        std = np.sqrt(self._m2 / np.maximum(self.counts, 1))
        return FeatureStatistics(self.count, self.mean.copy(), std, self.minimum.copy(), self.maximum.copy())


class Normalizer(nn.Module):
    """Standardises the last axis, ``(x - mean) / std``, with statistics that live in the checkpoint.

    Freshly built it holds NaN, and :meth:`require_fitted` refuses it, so that a model can never train or predict with
    statistics that nobody set.

    Args:
        n_features: length of the last axis.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((n_features,), torch.nan))
        self.register_buffer("std", torch.full((n_features,), torch.nan))

    def fit(self, mean: ArrayLike, std: ArrayLike) -> "Normalizer":
        """Set the statistics, each (n_features,) in the features' units.

        Raises:
            ValueError: wrong length, or a standard deviation that is not positive and finite.
        """
        for name, values in (("mean", mean), ("std", std)):
            buffer: Tensor = getattr(self, name)
            array = torch.as_tensor(np.asarray(values), dtype=buffer.dtype, device=buffer.device)
            if array.shape != buffer.shape:
                raise ValueError(f"{name} has shape {tuple(array.shape)}, expected {tuple(buffer.shape)}")
            if not bool(torch.isfinite(array).all()) or (name == "std" and not bool((array > 0).all())):
                raise ValueError(f"{name} must be finite{' and positive' if name == 'std' else ''}")
            buffer.copy_(array)
        return self

    @property
    def is_fitted(self) -> bool:
        """Whether statistics have been set or loaded."""
        return bool(torch.isfinite(self.std).all())

    def require_fitted(self) -> None:
        """Raise unless statistics are there.

        Raises:
            NotFittedError: they are not.
        """
        if not self.is_fitted:
            raise NotFittedError(
                "the model has no statistics: fit it on a data module, or load a checkpoint that holds them"
            )

    def forward(self, x: Tensor) -> Tensor:
        """Standardise ``x`` of shape (..., n_features)."""
        return (x - self.mean) / self.std

    def inverse(self, z: Tensor) -> Tensor:
        """Back to the features' units."""
        return z * self.std + self.mean


class Scale(nn.Module):
    """Divides the last axis by positive scales that live in the checkpoint; removes no mean.

    Args:
        n_features: length of the last axis.
    """

    scale: Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.full((n_features,), torch.nan))

    def fit(self, scale: ArrayLike) -> "Scale":
        """Set the scales, (n_features,) in the features' units.

        Raises:
            ValueError: wrong length, or a scale that is not positive and finite.
        """
        array = torch.as_tensor(np.asarray(scale), dtype=self.scale.dtype, device=self.scale.device)
        if array.shape != self.scale.shape:
            raise ValueError(f"scale has shape {tuple(array.shape)}, expected {tuple(self.scale.shape)}")
        if not bool((torch.isfinite(array) & (array > 0)).all()):
            raise ValueError("scale must be finite and positive")
        self.scale.copy_(array)
        return self

    @property
    def is_fitted(self) -> bool:
        """Whether scales have been set or loaded."""
        return bool(torch.isfinite(self.scale).all())

    def forward(self, y: Tensor) -> Tensor:
        """Scaled ``y`` of shape (..., n_features)."""
        return y / self.scale

    def inverse(self, z: Tensor) -> Tensor:
        """Back to the features' units."""
        return z * self.scale
