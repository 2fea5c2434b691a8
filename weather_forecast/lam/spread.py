"""Scores of forecasts that give a standard deviation beside their mean; knows nothing of torch."""

from typing import Any

import numpy as np
import xarray as xr
from scipy.special import erf

from ai4sim.verification import error_statistics


def gaussian_crps(mean: xr.DataArray, spread: xr.DataArray, target: xr.DataArray) -> xr.DataArray:
    """Continuous ranked probability score of normal forecasts (Gneiting et al. 2005, Mon. Wea. Rev. 133, eq. 5).

    Args:
        mean: of the forecast.
        spread: standard deviation, positive.
        target: what came true.

    Returns:
        Same shape and units; of a spread that goes to 0, the absolute error.
    """
    z = (target - mean) / spread
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    score: xr.DataArray = spread * (z * erf(z / np.sqrt(2)) + 2 * density - 1 / np.sqrt(np.pi))
    return score.assign_attrs(target.attrs)


def spread_statistics(mean: xr.DataArray, spread: xr.DataArray, target: xr.DataArray, **arguments: Any) -> xr.Dataset:
    """Sums that `ai4sim.verification.crps` and `ai4sim.verification.ssr` are functions of.

    Args:
        mean: of the forecast.
        spread: standard deviation.
        target: what came true, NaN where it is not known.
        arguments: of :func:`ai4sim.verification.error_statistics`.

    Returns:
        The sums ``variance``, ``squared_error``, ``crps`` and ``weight`` over the points, and the number ``n`` of them.
    """
    sums = error_statistics(mean, target, **arguments)[["n", "weight", "squared_error"]].drop_vars("shift")
    nothing = xr.zeros_like(target).where(target.notnull()).assign_attrs(target.attrs)
    sums["variance"] = error_statistics(spread, nothing, **arguments)["squared_error"]
    sums["crps"] = error_statistics(gaussian_crps(mean, spread, target), nothing, **arguments)["absolute_error"]
    return sums
