"""How wrong a regression or a denoiser was, value by value.

Losses are kept value by value until they are averaged, so that they can be weighed and told apart by noise level. What
is minimised and logged is the mean of all known values. The reference minimises the sum over channels and pixels,
averaged over the images: it is the mean times C H W, which Adam does not see.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ai4sim.errors import InputError
from downscaling.corrdiff.diffusion.preconditioning import Denoiser, per_image


@dataclass(frozen=True, eq=False)
class LossMaps:
    """Losses of all values of a batch.

    Attributes:
        values: (B, M, H, W), finite, 0 without gradient where they are not known.
        known: (B, M, H, W), where they are; None is everywhere.
    """

    values: Tensor
    known: Tensor | None = None

    def count(self) -> Tensor:
        """Number of known values, for means of what is computed in parts."""
        return self.values.new_tensor(self.values.numel()) if self.known is None else self.known.sum()

    def mean(self) -> Tensor:
        """Of all known values; 0 if there are none."""
        return self.values.sum() / self.count().clamp(min=1)

    def per_image(self) -> Tensor:
        """Means (B,) of the known values of each image; 0 where there are none."""
        sums = self.values.flatten(1).sum(1)
        if self.known is None:
            return sums / self.values[0].numel()
        return sums / self.known.flatten(1).sum(1).clamp(min=1)


def squared_error(estimate: Tensor, target: Tensor, known: Tensor | None = None) -> LossMaps:
    """Squared error of every value.

    Args:
        estimate: (B, C, H, W).
        target: (B, C, H, W), anything where it is not known, such as NaN.
        known: (B, C, H, W) or (B, 1, H, W), where the target is known; by default everywhere.
    """
    if known is None:
        return LossMaps((estimate - target).square())
    known = known.bool().expand_as(target)
    # before the square: the gradient would be 0 * NaN
    return LossMaps((estimate - target).where(known, 0).square(), known)


class RegressionLoss(nn.Module):
    """Squared error, and the cross-entropy of channels that are the probabilities of classes.

    Args:
        weights: of the channels, in their order without those of classes, with that of the cross-entropy at the end;
            1 by default.
        classes: numbers of the channels whose targets are probabilities of classes that exclude each other; the
            network gives logits there while it is trained.

    Raises:
        InputError: negative weights or numbers, all weights 0, or fewer than two different classes.
    """

    weights: Tensor | None

    def __init__(self, weights: Sequence[float] | None = None, classes: Sequence[int] = ()) -> None:
        super().__init__()
        if weights is not None and not (all(0 <= w < math.inf for w in weights) and any(weights)):
            raise InputError(f"weights of channels must not be negative, nor all 0: {list(weights)}")
        if classes and (len(set(classes)) != len(classes) or len(classes) < 2 or min(classes) < 0):
            raise InputError(f"channels of classes must be two or more different numbers from 0: {list(classes)}")
        self.classes = tuple(classes)
        values = None if weights is None else torch.tensor([float(w) for w in weights]).reshape(-1, 1, 1)
        self.register_buffer("weights", values, persistent=False)

    def require_channels(self, n: int) -> None:
        """Make sure that the loss fits a number of channels.

        Raises:
            InputError: it does not.
        """
        if self.classes and max(self.classes) >= n:
            raise InputError(f"channel {max(self.classes)} is one of classes, but there are {n} channels, from 0")
        n_maps = n - len(self.classes) + bool(self.classes)
        if self.weights is not None and len(self.weights) != n_maps:
            terms = "squared errors and the cross-entropy" if self.classes else "channels"
            raise InputError(f"{len(self.weights)} weights for {n_maps} {terms}")

    def forward(self, outputs: Tensor, target: Tensor, known: Tensor | None = None) -> LossMaps:
        """Losses of all values: channels without classes, in order, and then the cross-entropy if there are classes.

        Args:
            outputs: (B, C, H, W).
            target: (B, C, H, W), anything where it is not known.
            known: (B, C, H, W) or (B, 1, H, W); by default everywhere. A class is known where all are.
        """
        known = None if known is None else known.bool().expand_as(target)
        maps = self._with_classes(outputs, target, known) if self.classes else squared_error(outputs, target, known)
        return maps if self.weights is None else replace(maps, values=maps.values * self.weights)

    def _with_classes(self, outputs: Tensor, target: Tensor, known: Tensor | None) -> LossMaps:
        classes = list(self.classes)
        others = [channel for channel in range(target.shape[1]) if channel not in self.classes]
        errors = squared_error(outputs[:, others], target[:, others], None if known is None else known[:, others])
        shares, certain = target[:, classes], None if known is None else known[:, classes].all(1, keepdim=True)
        if certain is not None:
            # before the product, as above
            shares = shares.where(certain, 0)
        entropy = -(shares * outputs[:, classes].log_softmax(dim=1)).sum(1, keepdim=True)
        values = torch.cat([errors.values, entropy], dim=1)
        if errors.known is None or certain is None:
            return LossMaps(values)
        return LossMaps(values, torch.cat([errors.known, certain], dim=1))


def diffusion_loss(
    denoiser: Denoiser,
    residual: Tensor,
    sigma: Tensor,
    noise: Tensor,
    condition: Tensor | None = None,
    known: Tensor | None = None,
    **extras: Any,
) -> LossMaps:
    """Weighted squared error of a denoiser, w(s) (D(r + n; s, c) - r)² (Karras et al. 2022, eq. 2 and Table 1).

    It is about 1 where a denoiser's network gives 0 and the residual has the standard deviation sigma_data.

    Args:
        denoiser: D, whose coefficients are those of the loss, too.
        residual: r (B, C, H, W), scaled; anything where it is not known. It is taken as 0 there.
        sigma: (B,) noise level s of each image.
        noise: n (B, C, H, W) of that level, from `Edm.noise`.
        condition: (B, conditions, H, W).
        known: (B, C, H, W) or (B, 1, H, W); by default everywhere.
        extras: for the network, by name.
    """
    if known is not None:
        residual = residual.where(known.bool().expand_as(residual), 0)
    maps = squared_error(denoiser(residual + noise, sigma, condition, **extras), residual, known)
    return replace(maps, values=maps.values * per_image(denoiser.edm.weight(sigma.float())))
