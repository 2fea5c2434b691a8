"""Pressures of the layers of a column, for networks and losses that need masses."""

import numpy as np
import torch
from torch import Tensor, nn

from ai4sim.errors import InputError
from weather_forecast.gwd.levels import VerticalGrid, get_grid


class LayerPressures(nn.Module):
    """Half-level pressures and layer thicknesses from the model top down to the launch layer.

    ``ph_k = a_k + b_k ps`` for the half-levels ``k = 1..L+1``. The differences of the coefficients are kept too:
    the thickness of a thin layer as a difference of two single-precision pressures would lose digits.

    Args:
        n_levels: L, number of full levels of a column.
        grid: ``L91``, ``L137``, or the path of a CSV file of (a, b).

    Raises:
        InputError: level ``n_levels`` is not the launch level of the grid, or the grid is unknown.
    """

    a_half: Tensor
    b_half: Tensor
    a_thickness: Tensor
    b_thickness: Tensor

    def __init__(self, n_levels: int, grid: str = "L91") -> None:
        super().__init__()
        vertical = get_grid(grid)
        launch = vertical.launch_level()
        if launch != n_levels:
            raise InputError(
                f"the layout has {n_levels} levels, but the launch level of grid {grid!r} is {launch}: "
                f"take the grid of the data, or a layout with n_levels = {launch}"
            )
        a_half, b_half = vertical.a_half[: launch + 1], vertical.b_half[: launch + 1]
        for name, values in (
            ("a_half", a_half),
            ("b_half", b_half),
            ("a_thickness", np.diff(a_half)),
            ("b_thickness", np.diff(b_half)),
        ):
            self.register_buffer(name, torch.tensor(values, dtype=torch.get_default_dtype()))

    def forward(self, surface_pressure: Tensor) -> Tensor:
        """Half-level pressures (B, L+1) in Pa of columns with ``surface_pressure`` (B, 1) in Pa."""
        return self.a_half + self.b_half * surface_pressure

    def belongs_to(self, grid: VerticalGrid) -> bool:
        """Whether these are the levels of a vertical grid, to the precision of the buffers."""
        n = len(self.a_half)
        if len(grid.a_half) < n:
            return False
        return bool(
            np.allclose(self.a_half.cpu(), grid.a_half[:n], rtol=1e-6)
            and np.allclose(self.b_half.cpu(), grid.b_half[:n], rtol=1e-6)
        )

    def thickness(self, surface_pressure: Tensor) -> Tensor:
        """Thickness (B, L) in Pa of the layers of columns with ``surface_pressure`` (B, 1) in Pa."""
        return self.a_thickness + self.b_thickness * surface_pressure
