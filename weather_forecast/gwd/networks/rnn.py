"""A network that walks up and down the column, as the waves and their history do."""

from typing import Literal

import torch
from torch import Tensor, nn

from ai4sim.errors import InputError
from weather_forecast.gwd import config
from weather_forecast.gwd.layout import ColumnLayout
from weather_forecast.gwd.networks.base import StandardizedNetwork
from weather_forecast.gwd.networks.pressure import LayerPressures

Cell = Literal["lstm", "gru"]


class ColumnRNN(StandardizedNetwork):
    """Two recurrent passes over the levels, after Ukkonen and Chantry (2025, JAMES 17, e2024MS004833).

    The first runs upward from the launch level, as waves propagate, with a state that a dense layer makes from the
    scalars; the second runs downward over what the first has found and the level's features. Every level has the
    standardised profiles, the logarithm of its pressure and that of its thickness.

    Args:
        layout: order and number of the features.
        grid: vertical grid of the columns.
        hidden: units of either pass.
        cell: ``lstm`` or ``gru``.

    Raises:
        InputError: unknown cell, or the launch level of the grid is not the last level of the layout.
    """

    log_pressure_offset: Tensor

    def __init__(
        self,
        layout: ColumnLayout | None = None,
        grid: str = "L91",
        hidden: int = 96,
        cell: Cell = "lstm",
    ) -> None:
        super().__init__(layout)
        if cell not in ("lstm", "gru"):
            raise InputError(f"ColumnRNN: cell {cell!r} is unknown; choose lstm or gru")
        self.cell = cell
        recurrent = nn.LSTM if cell == "lstm" else nn.GRU
        n_features = len(self.layout.profiles) + 2
        self.pressures = LayerPressures(self.layout.n_levels, grid)
        self.state = nn.Linear(len(self.layout.scalars), hidden * (2 if cell == "lstm" else 1))
        self.upward = recurrent(n_features, hidden, batch_first=True)
        self.downward = recurrent(n_features + hidden, hidden, batch_first=True)
        self.head = nn.Linear(2 * hidden, len(self.layout.targets))

    def body(self, z: Tensor) -> Tensor:
        """Scaled tendencies (B, n_outputs) of standardised columns ``z`` (B, n_inputs)."""
        raise NotImplementedError("placeholder")
