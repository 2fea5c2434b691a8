"""What a user would take instead of a network: fitted on the training rows, labelled columns in, labelled drag out."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from weather_forecast.gwd import config
from weather_forecast.gwd.layout import ColumnLayout
from weather_forecast.gwd.levels import VerticalGrid
from weather_forecast.gwd.scheme import gravity_wave_drag
from weather_forecast.gwd.spectrum import SchemeParameters, launch_flux

Float64 = NDArray[np.float64]
RIDGE_PENALTY = 10.0  # on standardised inputs, as in the published comparison


class Baseline(Protocol):
    """Predicts the tendencies of labelled columns."""

    def predict(self, columns: xr.DataArray) -> xr.DataArray:
        """Tendencies (sample, component, level) in m s-2 of columns (sample, feature)."""
        ...


@dataclass(frozen=True)
class Zero:
    """No drag at all."""

    layout: ColumnLayout

    def predict(self, columns: xr.DataArray) -> xr.DataArray:
        """Zeros (sample, component, level)."""
        return label_drag(np.zeros((columns.sizes["sample"], self.layout.n_outputs)), self.layout)


@dataclass(frozen=True)
class MeanProfile:
    """The training rows' mean tendency of every level."""

    layout: ColumnLayout
    mean: Float64

    def predict(self, columns: xr.DataArray) -> xr.DataArray:
        """The same profile for every column, (sample, component, level)."""
        return label_drag(np.broadcast_to(self.mean, (columns.sizes["sample"], self.mean.size)), self.layout)


@dataclass(frozen=True)
class Ridge:
    """Ridge regression of all outputs on all standardised inputs (Hoerl and Kennard 1970).

    Attributes:
        x_mean: (n_inputs,).
        x_std: (n_inputs,).
        y_mean: (n_outputs,).
        weights: (n_inputs, n_outputs), of standardised inputs.
    """

    layout: ColumnLayout
    x_mean: Float64
    x_std: Float64
    y_mean: Float64
    weights: Float64

    def predict(self, columns: xr.DataArray) -> xr.DataArray:
        """Tendencies (sample, component, level) in m s-2."""
        z = (columns.values - self.x_mean) / self.x_std
        return label_drag(z @ self.weights + self.y_mean, self.layout)


@dataclass(frozen=True)
class Scheme:
    """The physical scheme itself with given parameters; it sees what the networks see.

    Attributes:
        grid: the columns' levels.
        parameters: of the scheme.
        launch_factor: factor on the launch flux in place of its dependence on latitude, which is no input.
    """

    layout: ColumnLayout
    grid: VerticalGrid
    parameters: SchemeParameters
    launch_factor: float = 1.0

    def predict(self, columns: xr.DataArray) -> xr.DataArray:
        """Tendencies (sample, component, level) in m s-2."""
        x = columns.values
        profile = {name: x[:, self.layout.slice_of(name)] for name in config.PROFILES}
        surface_pressure = x[:, self.layout.slice_of("surface_pressure")][:, 0].astype(np.float64)
        drag = gravity_wave_drag(
            profile["u"],
            profile["v"],
            profile["t"],
            self.grid.truncate(self.layout.n_levels).half_pressure(surface_pressure),
            parameters=self.parameters,
            dtype=np.float32,
        )
        return label_drag(np.concatenate([drag.dudt, drag.dvdt], axis=1) * self.launch_factor, self.layout)


def tropical_mean_factor(parameters: SchemeParameters) -> float:
    """Launch flux averaged over the sphere as a share of the extratropical one: the best guess without latitude."""
    latitude = np.degrees(np.arcsin(np.linspace(-1, 1, 20_001)))
    return float(np.mean(launch_flux(latitude, parameters)) / parameters.launch_flux)


def fit_statistical(blocks: Iterable[tuple[Float64, Float64]], layout: ColumnLayout) -> tuple[MeanProfile, Ridge]:
    """Fit the mean profile and the ridge regression in one pass, with memory for one block.

    Sums of squares and products are taken about the first block's mean, so that they do not cancel.

    Args:
        blocks: training rows, (n, n_inputs) and (n, n_outputs) at a time.
        layout: of the columns.
    """
    count = 0
    for x, y in blocks:
        if count == 0:
            shift_x, shift_y = x.mean(axis=0, dtype=np.float64), y.mean(axis=0, dtype=np.float64)
            sum_x, sum_y = np.zeros_like(shift_x), np.zeros_like(shift_y)
            xx, xy = np.zeros((x.shape[1],) * 2), np.zeros((x.shape[1], y.shape[1]))
        dx, dy = x - shift_x, y - shift_y
        count += len(x)
        sum_x += dx.sum(axis=0)
        sum_y += dy.sum(axis=0)
        xx += dx.T @ dx
        xy += dx.T @ dy
    if count == 0:
        raise ValueError("the baselines cannot be fitted: there are no training rows")
    mean_x, mean_y = sum_x / count, sum_y / count
    xx -= count * np.outer(mean_x, mean_x)
    xy -= count * np.outer(mean_x, mean_y)
    std = np.sqrt(np.diag(xx) / count)
    std = np.where(std > 1e-12 * np.abs(mean_x + shift_x), std, 1.0)
    gram = xx / np.outer(std, std) + RIDGE_PENALTY * np.eye(len(std))
    weights = np.linalg.solve(gram, xy / std[:, None])
    mean = MeanProfile(layout, mean_y + shift_y)
    return mean, Ridge(layout, mean_x + shift_x, std, mean.mean, weights)


def label_drag(values: NDArray[np.floating], layout: ColumnLayout) -> xr.DataArray:
    """Flat tendencies (n, n_outputs) in m s-2 as a labelled array (sample, component, level)."""
    return xr.DataArray(
        np.asarray(values).reshape(-1, len(layout.targets), layout.n_levels),
        dims=("sample", "component", "level"),
        coords={"component": list(layout.targets), "level": np.arange(1, layout.n_levels + 1)},
        attrs={"long_name": "tendency of the wind by gravity waves", "units": "m s-2"},
    )
