"""Training losses of the gravity-wave emulators and the scales they are measured in.

Every loss is called as ``loss(prediction, target, x, scale)`` with tendencies (B, n_outputs) in m s-2, the columns
``x`` (B, n_inputs) in physical units and the target scales (n_outputs,) in m s-2, which the network carries as
``network.outputs.scale``, and returns a scalar.
"""

import warnings
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional

from ai4sim.errors import InputError
from weather_forecast.gwd import config
from weather_forecast.gwd.layout import ColumnLayout
from weather_forecast.gwd.networks.pressure import LayerPressures

TargetScaling = Literal["global", "level", "blend"]
_NEGLIGIBLE = 1e-12  # of the largest standard deviation: a level that never varies


class ScaledMSE(nn.Module):
    """Mean squared error of the scaled tendencies, ``mean(((prediction - target) / scale)^2)``."""

    def forward(self, prediction: Tensor, target: Tensor, x: Tensor, scale: Tensor) -> Tensor:
        """Scalar loss; see the module's call contract."""
        return ((prediction - target) / scale).square().mean()


class ScaledHuber(nn.Module):
    """Huber loss of the scaled tendencies: quadratic for small errors, linear in the heavy tails.

    Args:
        delta: scaled error at which the loss becomes linear.
    """

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__()
        if delta <= 0:
            raise InputError(f"delta must be positive, got {delta}")
        self.delta = delta

    def forward(self, prediction: Tensor, target: Tensor, x: Tensor, scale: Tensor) -> Tensor:
        """Scalar loss; see the module's call contract."""
        error = (prediction - target) / scale
        return functional.huber_loss(error, torch.zeros_like(error), delta=self.delta)


class FluxLoss(nn.Module):
    """Mean squared error of the momentum fluxes, plus ``mse_weight`` times that of the scaled tendencies.

    The flux error through the bottom of layer k is the sum of the errors of ``y_j dp_j / g`` over the layers
    ``j = 1..k`` above it, in units of the launch flux.

    Args:
        layout: order and number of the features.
        grid: vertical grid of the columns.
        launch_flux: flux per azimuth at the launch level, Pa.
        mse_weight: weight of the scaled tendencies; without them the mesosphere, which has no mass, goes untrained.
    """

    def __init__(
        self,
        layout: ColumnLayout | None = None,
        grid: str = "L91",
        launch_flux: float = 3.75e-3,
        mse_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if launch_flux <= 0:
            raise InputError(f"launch_flux must be positive, got {launch_flux}")
        self.layout = layout or ColumnLayout()
        self.pressures = LayerPressures(self.layout.n_levels, grid)
        self.launch_flux = launch_flux
        self.mse_weight = mse_weight

    def forward(self, prediction: Tensor, target: Tensor, x: Tensor, scale: Tensor) -> Tensor:
        """Scalar loss; see the module's call contract."""
        error = prediction - target
        thickness = self.pressures.thickness(x[:, self.layout.slice_of("surface_pressure")])  # (B, L)
        profiles = error.unflatten(-1, (-1, self.layout.n_levels))  # (B, n_targets, L)
        flux = (profiles * thickness.unsqueeze(1)).cumsum(-1) / (config.GRAVITY * self.launch_flux)
        return flux.square().mean() + self.mse_weight * (error / scale).square().mean()


def target_scale(
    std: ArrayLike,
    layout: ColumnLayout,
    scaling: TargetScaling = "blend",
    weight: float = 0.75,
) -> tuple[NDArray[np.float64], list[str]]:
    """Scales of the tendencies in which the losses are measured.

    ``scale_k = s_max^(1-w) s_k^w`` with ``s_k`` the standard deviation at level k pooled over the components (the
    physics has no preferred direction) and ``s_max`` the largest of all. ``global`` is w = 0, the published recipe,
    which leaves the stratosphere untrained; ``level`` is w = 1; ``blend`` takes ``weight``.

    Args:
        std: (n_outputs,) standard deviations of the tendencies over the training rows, m s-2.
        layout: order and number of the features.
        scaling: ``global``, ``level`` or ``blend``.
        weight: w of ``blend``, between 0 and 1.

    Returns:
        The scales (n_outputs,) in m s-2, and the names of the levels that do not vary. Their scale is 1 m s-2, at which
        they have no part in the loss; a warning names them.

    Raises:
        InputError: wrong length, values that are no standard deviations, unknown scaling or weight out of range.
    """
    values = np.asarray(std, np.float64)
    if values.shape != (layout.n_outputs,):
        raise InputError(f"std has shape {values.shape}, expected ({layout.n_outputs},), one value per output")
    if not np.all(np.isfinite(values) & (values >= 0)):
        raise InputError("std must be finite and not negative")
    if scaling not in ("global", "level", "blend"):
        raise InputError(f"target scaling {scaling!r} is unknown; choose global, level or blend")
    if not 0 <= weight <= 1:
        raise InputError(f"weight must be between 0 and 1, got {weight}")
    exponent = {"global": 0.0, "level": 1.0, "blend": weight}[scaling]

    pooled = np.sqrt(np.square(values.reshape(-1, layout.n_levels)).mean(axis=0))  # (L,)
    largest = values.max()
    silent = pooled <= _NEGLIGIBLE * largest
    scale = np.where(silent, 1.0, largest ** (1 - exponent) * np.where(silent, 1.0, pooled) ** exponent)
    names = [f"level {level + 1}" for level in np.flatnonzero(silent)]
    if names:
        warnings.warn(
            f"the tendencies of {', '.join(names)} do not vary over the training rows and are left out of the loss",
            stacklevel=2,
        )
    return np.tile(scale, len(layout.targets)), names
