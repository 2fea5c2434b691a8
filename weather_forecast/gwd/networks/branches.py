"""A shared trunk and one small branch per output level."""

import math

import torch
from torch import Tensor, nn

from weather_forecast.gwd.layout import ColumnLayout
from weather_forecast.gwd.networks.base import StandardizedNetwork


class BranchLinear(nn.Module):
    """One linear layer per branch, all branches in one batched product.

    Args:
        n_branches: number of branches.
        n_inputs: features of each branch.
        n_outputs: outputs of each branch.
    """

    def __init__(self, n_branches: int, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        # the initialisation of nn.Linear in every branch
        bound = 1 / math.sqrt(n_inputs)
        self.weight = nn.Parameter(torch.empty(n_branches, n_inputs, n_outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_branches, 1, n_outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n_branches, B, n_outputs) of features (n_branches, B, n_inputs)."""
        return torch.baddbmm(self.bias, x, self.weight)


class LevelBranchNet(StandardizedNetwork):
    """Shared layer, then a branch for every output, after Espinosa et al. (2022, GRL 49, e2022GL098174).

    The published "WaveNet" has the widths that are the defaults here, and one branch per level and component.

    Args:
        layout: order and number of the features.
        trunk: units of the shared layer.
        first: units of the first layer of every branch.
        second: units of the second layer of every branch.
    """

    def __init__(self, layout: ColumnLayout | None = None, trunk: int = 128, first: int = 64, second: int = 32) -> None:
        super().__init__(layout)
        n_branches = self.layout.n_outputs
        self.trunk = nn.Linear(self.layout.n_inputs, trunk)
        self.first = nn.Linear(trunk, n_branches * first)
        self.second = BranchLinear(n_branches, first, second)
        self.third = BranchLinear(n_branches, second, 1)

    def body(self, z: Tensor) -> Tensor:
        """Scaled tendencies (B, n_outputs) of standardised columns ``z`` (B, n_inputs)."""
        shared = torch.relu(self.trunk(z))  # (B, trunk)
        # all branches read the same features here: one wide product instead of a batched one
        branches = torch.relu(self.first(shared)).unflatten(-1, (self.layout.n_outputs, -1)).transpose(0, 1)
        branches = torch.relu(self.second(branches))  # (n_outputs, B, second)
        return self.third(branches).squeeze(-1).transpose(0, 1)
