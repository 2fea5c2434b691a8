"""A network that walks up and down the column, as the waves and their history do."""

from typing import Literal

import torch
from torch import Tensor, nn

from ai4sim.errors import InputError
from weather_forecast.gwd.layout import ColumnLayout
from weather_forecast.gwd.levels import REFERENCE_PRESSURE
from weather_forecast.gwd.networks.base import ColumnNetwork
from weather_forecast.gwd.networks.pressure import LayerPressures

Cell = Literal["lstm", "gru"]


class ColumnRNN(ColumnNetwork):
    """Two recurrent passes over the levels, after Ukkonen and Chantry (2025, JAMES 17, e2024MS004833).

    The first runs upward from the launch level, as waves propagate, with a state that a dense layer makes from the
    scalars; the second runs downward over what the first has found and the level's features. Every level has
    the standardised profiles, the logarithm of its pressure and that of its thickness.

    Args:
        layout: order and number of the features.
        grid: vertical grid of the columns.
        hidden: units of either pass.
        cell: ``lstm`` or ``gru``.

    Raises:
        InputError: unknown cell, or the launch level of the grid is not the last level of the layout.
    """

    coordinate_mean: Tensor
    coordinate_std: Tensor

    def __init__(
        self,
        layout: ColumnLayout | None = None,
        grid: str = "L91",
        hidden: int = 128,
        cell: Cell = "lstm",
    ) -> None:
        super().__init__(layout)
        if cell not in ("lstm", "gru"):
            raise InputError(f"ColumnRNN: cell {cell!r} is unknown; choose lstm or gru")
        n_features = len(self.layout.profiles) + 2
        self.pressures = LayerPressures(self.layout.n_levels, grid)
        # mean and spread over the levels of a standard column
        reference = self._log_coordinates(torch.tensor([[REFERENCE_PRESSURE]]))
        self.register_buffer("coordinate_mean", reference.mean(1))
        self.register_buffer("coordinate_std", reference.std(1))

        recurrent = LSTMPass if cell == "lstm" else GRUPass
        self.upward = recurrent(n_features, hidden)
        self.downward = recurrent(n_features + hidden, hidden)
        self.initial = nn.Linear(len(self.layout.scalars), self.upward.state_size)
        self.head = nn.Linear(2 * hidden, len(self.layout.targets))

    def forward(self, x: Tensor) -> Tensor:
        """Tendencies (B, n_outputs) in m s-2 of columns ``x`` (B, n_inputs) in physical units."""
        self.check_inputs(x)
        z = self.inputs(x)
        n_profiles, n_levels = len(self.layout.profiles), self.layout.n_levels
        profiles = z[:, : n_profiles * n_levels].unflatten(-1, (n_profiles, n_levels)).transpose(1, 2)
        coordinates = self._log_coordinates(x[:, self.layout.slice_of("surface_pressure")])
        coordinates = (coordinates - self.coordinate_mean) / self.coordinate_std
        levels = torch.cat([profiles, coordinates], dim=-1)  # (B, L, n_profiles + 2)

        state = torch.tanh(self.initial(z[:, n_profiles * n_levels :]))
        up = self.upward(levels.flip(1), state).flip(1)  # (B, L, hidden)
        down = self.downward(torch.cat([levels, up], dim=-1), torch.zeros_like(state))
        tendencies = self.head(torch.cat([up, down], dim=-1))  # (B, L, n_targets)
        return self.outputs.inverse(tendencies.transpose(1, 2).flatten(1))

    def _log_coordinates(self, surface_pressure: Tensor) -> Tensor:
        """Logarithms of the pressure and of the thickness of the layers, (B, L, 2)."""
        half = self.pressures(surface_pressure)
        middle = 0.5 * (half[:, 1:] + half[:, :-1])
        return torch.stack([middle.log(), self.pressures.thickness(surface_pressure).log()], dim=-1)


class LSTMPass(nn.Module):
    """Long short-term memory along the second axis.

    Written out because the fused CPU and CUDA kernels of ``nn.LSTM`` have no forward-mode derivative, which
    tangent-linear code needs. The same holds for :class:`GRUPass`.

    Args:
        n_features: features of a step.
        hidden: units.
    """

    def __init__(self, n_features: int, hidden: int) -> None:
        super().__init__()
        self.state_size = 2 * hidden
        self.inputs = nn.Linear(n_features, 4 * hidden)
        self.recurrent = nn.Linear(hidden, 4 * hidden, bias=False)

    def forward(self, sequence: Tensor, state: Tensor) -> Tensor:
        """Hidden states (B, n_steps, hidden).

        Args:
            sequence: (B, n_steps, n_features).
            state: (B, 2 hidden), the hidden state and the cell before the first step.
        """
        hidden, cell = state.chunk(2, dim=-1)
        outputs = []
        for drive in self.inputs(sequence).unbind(1):
            keep, write, show, candidate = (drive + self.recurrent(hidden)).chunk(4, dim=-1)
            cell = torch.sigmoid(keep) * cell + torch.sigmoid(write) * torch.tanh(candidate)
            hidden = torch.sigmoid(show) * torch.tanh(cell)
            outputs.append(hidden)
        return torch.stack(outputs, dim=1)


class GRUPass(nn.Module):
    """Gated recurrent unit along the second axis, with the reset gate after the product as in ``nn.GRU``.

    Args:
        n_features: features of a step.
        hidden: units.
    """

    def __init__(self, n_features: int, hidden: int) -> None:
        super().__init__()
        self.state_size = hidden
        self.inputs = nn.Linear(n_features, 3 * hidden)
        self.recurrent = nn.Linear(hidden, 3 * hidden)

    def forward(self, sequence: Tensor, state: Tensor) -> Tensor:
        """Hidden states (B, n_steps, hidden).

        Args:
            sequence: (B, n_steps, n_features).
            state: (B, hidden), the hidden state before the first step.
        """
        hidden = state
        outputs = []
        for drive in self.inputs(sequence).unbind(1):
            reset, update, candidate = drive.chunk(3, dim=-1)
            reset_h, update_h, candidate_h = self.recurrent(hidden).chunk(3, dim=-1)
            update = torch.sigmoid(update + update_h)
            candidate = torch.tanh(candidate + torch.sigmoid(reset + reset_h) * candidate_h)
            hidden = candidate + update * (hidden - candidate)
            outputs.append(hidden)
        return torch.stack(outputs, dim=1)
