"""Losses of class probabilities, and of the exceedance of class edges by any distribution.

With S_k = P(Y >= e_k) and o_k whether the amount reached e_k, all but the cross-entropy are sums over the edges of
(S_k - o_k)², which are the Brier scores of exceedance. They are differences of cumulative distributions just as well.
"""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.classes import classify
from precip_postproc.resunet_qpf.heads import ClassHead, Head
from precip_postproc.resunet_qpf.losses.base import AmountLoss

UNKNOWN: Final = -1


class CrossEntropy(AmountLoss[ClassHead]):
    """Negative logarithm of the probability of the class that occurred."""

    head_kinds = (ClassHead,)

    def forward(self, head: ClassHead, outputs: Tensor, amounts: Tensor) -> Tensor:
        """Loss (B, H, W) of every pixel."""
        classes = classify(amounts, head.edges)
        return cross_entropy(head.checked(outputs), classes, ignore_index=UNKNOWN, reduction="none")


def _reached(classes: Tensor, n_edges: int) -> Tensor:
    """Whether each edge was reached, (B, K, H, W)."""
    return classes[:, None] > torch.arange(n_edges, device=classes.device)[:, None, None]


class RankedProbability(AmountLoss[Head]):
    """Ranked probability score: sum of the Brier scores of all edges (Epstein 1969, J. Appl. Meteor. 8, 985-987)."""

    def forward(self, head: Head, outputs: Tensor, amounts: Tensor) -> Tensor:
        """Loss (B, H, W) of every pixel."""
        exceedance, classes = head.exceedance(outputs), classify(amounts, head.edges)
        score = (exceedance - _reached(classes, len(head.edges)).to(exceedance.dtype)).square().sum(1)
        return score.where(classes != UNKNOWN, 0)


class BinnedCrps(AmountLoss[Head]):
    """Riemann sum of the continuous ranked probability score, mm: Brier scores of the edges, times the bins' widths.

    With another power or asymmetry it is no longer proper: its minimum is not at the true probabilities. The defaults
    are proper.

    Args:
        last: weight of the last edge, mm; by default that of the edge before.
        first: weight of the first edge, mm; by default the distance to the second.
        power: of the probability's error, at least 1.
        asymmetry: factor on edges that were reached, where the probability was too small; above 0.

    Raises:
        InputError: negative weights, a power below 1 or an asymmetry not above 0.
    """

    def __init__(
        self, last: float | None = None, first: float | None = None, power: float = 2.0, asymmetry: float = 1.0
    ) -> None:
        super().__init__()
        for name, width in (("last", last), ("first", first)):
            if width is not None and not width >= 0:
                raise InputError(f"BinnedCrps: {name} must not be negative, not {width:g}")
        if not power >= 1:
            raise InputError(f"BinnedCrps: power must be at least 1, not {power:g}")
        if not asymmetry > 0:
            raise InputError(f"BinnedCrps: asymmetry must be above 0, not {asymmetry:g}")
        self.last, self.first, self.power, self.asymmetry = last, first, power, asymmetry

    def require_head(self, head: Head) -> None:
        """Make sure that the head has two edges or both weights are given.

        Raises:
            InputError: neither.
        """
        super().require_head(head)
        if len(head.edges) == 1 and self.last is None:
            raise InputError("BinnedCrps: a single edge has no width; give last")

    def widths(self, edges: Tensor) -> Tensor:
        """Weights (K,) of the edges (K,), mm."""
        widths = edges.diff()
        last = widths[-1:] if self.last is None else edges.new_tensor([self.last])
        widths = torch.cat([widths, last])
        if self.first is not None:
            widths[0] = self.first
        return widths

    def forward(self, head: Head, outputs: Tensor, amounts: Tensor) -> Tensor:
        """Loss (B, H, W) of every pixel, mm."""
        exceedance, classes = head.exceedance(outputs), classify(amounts, head.edges)
        reached = _reached(classes, len(head.edges)).to(exceedance.dtype)
        error = exceedance - reached
        error = error.square() if self.power == 2 else error.abs() ** self.power
        weights = self.widths(head.edges).to(error.dtype)[:, None, None]
        if self.asymmetry != 1:
            weights = weights * (1 + (self.asymmetry - 1) * reached)
        return (error * weights).sum(1).where(classes != UNKNOWN, 0)


class ThresholdWeighted(AmountLoss[Head]):
    """Weighted sum of the Brier scores of all edges: a threshold-weighted continuous ranked probability score.

    Gneiting and Ranjan (2011), J. Bus. Econ. Stat. 29, 411-422.

    Args:
        weights: of the edges, in their order, not negative.

    Raises:
        InputError: no weight, or a negative one.
    """

    weights: Tensor

    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__()
        if not any(weight > 0 for weight in weights) or not all(weight >= 0 for weight in weights):
            raise InputError(f"ThresholdWeighted: weights must not be negative, nor all 0: {list(weights)}")
        self.register_buffer("weights", torch.tensor([float(weight) for weight in weights]), persistent=False)

    def require_head(self, head: Head) -> None:
        """Make sure that every edge has its weight.

        Raises:
            InputError: it has not.
        """
        super().require_head(head)
        if len(head.edges) != len(self.weights):
            raise InputError(f"ThresholdWeighted: {len(self.weights)} weights for {len(head.edges)} edges")

    def forward(self, head: Head, outputs: Tensor, amounts: Tensor) -> Tensor:
        """Loss (B, H, W) of every pixel."""
        exceedance, classes = head.exceedance(outputs), classify(amounts, head.edges)
        error = exceedance - _reached(classes, len(head.edges)).to(exceedance.dtype)
        weights = self.weights.to(error.dtype)[:, None, None]
        return (error.square() * weights).sum(1).where(classes != UNKNOWN, 0)


class Mixed(AmountLoss[ClassHead]):
    """Ranked probability score plus a multiple of the cross-entropy, which counts rare classes more.

    Args:
        entropy: factor on the cross-entropy, not negative.

    Raises:
        InputError: a negative factor.
    """

    head_kinds = (ClassHead,)

    def __init__(self, entropy: float = 0.1) -> None:
        super().__init__()
        if not entropy >= 0:
            raise InputError(f"Mixed: entropy must not be negative, not {entropy:g}")
        self.entropy = entropy
        self.score, self.logarithm = RankedProbability(), CrossEntropy()

    def forward(self, head: ClassHead, outputs: Tensor, amounts: Tensor) -> Tensor:
        """Loss (B, H, W) of every pixel."""
        score: Tensor = self.score(head, outputs, amounts)
        logarithm: Tensor = self.logarithm(head, outputs, amounts)
        return score + self.entropy * logarithm
