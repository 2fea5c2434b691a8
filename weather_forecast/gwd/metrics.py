"""Running skill during training."""

import torch
from torch import Tensor
from torchmetrics import Metric

from weather_forecast.gwd.layout import ColumnLayout


class ColumnSkill(Metric):
    """Overall and mean-level R2 from sums over the whole set, whatever the batches and the number of processes.

    Args:
        layout: of the outputs; the components of a level are pooled.
    """

    full_state_update = False
    squared_error: Tensor
    total: Tensor
    squares: Tensor
    count: Tensor

    def __init__(self, layout: ColumnLayout) -> None:
        super().__init__()
        self.n_targets, self.n_levels = len(layout.targets), layout.n_levels
        for name in ("squared_error", "total", "squares", "count"):
            self.add_state(name, torch.zeros(layout.n_levels, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch of tendencies, each (B, n_outputs) in m s-2."""
        # in 1e-5 m s-2, so that squares stay far from the smallest numbers
        shape = (-1, self.n_targets, self.n_levels)
        truth = target.double().reshape(shape) * 1e5
        error = prediction.double().reshape(shape) * 1e5 - truth
        self.squared_error += (error**2).sum((0, 1))
        self.total += truth.sum((0, 1))
        self.squares += (truth**2).sum((0, 1))
        self.count += truth.shape[0] * self.n_targets

    def compute(self) -> dict[str, Tensor]:
        """``r2`` over all outputs and ``mean_level_r2`` over levels 1 to L-2 (levels without variation left out)."""
        variation = self.squares - self.total**2 / self.count
        # what is left of a constant after rounding is no variation
        varies = variation > 1e-12 * self.squares
        by_level = 1 - self.squared_error / torch.where(varies, variation, torch.nan)
        whole = self.squares.sum() - self.total.sum() ** 2 / self.count.sum()
        return {
            "r2": (1 - self.squared_error.sum() / whole).float(),
            "mean_level_r2": by_level[:-2].nanmean().float(),
        }
