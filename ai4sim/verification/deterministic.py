"""Deterministic metrics as functions of the sums that `ai4sim.verification.sums.error_statistics` gives.

Wilks 2019 is Statistical Methods in the Atmospheric Sciences, 4th edition, Elsevier.
"""

import warnings
from typing import Final

import numpy as np
import xarray as xr

from ai4sim.verification.sums import SHIFT, shift_of

# A variation below this share of the second moment about the shift is rounding of the sums: a constant.
_RESOLUTION: Final = 1e-11


def mse(statistics: xr.Dataset) -> xr.DataArray:
    """Mean squared error, sum w (p - t)^2 / sum w, in the squared unit (Wilks 2019, eq. 9.33).

    Args:
        statistics: what `error_statistics` gave.

    Returns:
        The metric over the dimensions of the statistics; NaN where there is no sample.
    """
    return _labelled(_per_weight(statistics, "squared_error"), "mse", squared_units(_unit(statistics)))


def rmse(statistics: xr.Dataset) -> xr.DataArray:
    """Root mean squared error, sqrt(mse), in the unit of the target (Wilks 2019, section 9.3.2).

    Args:
        statistics: what `error_statistics` gave.

    Returns:
        The metric over the dimensions of the statistics; NaN where there is no sample.
    """
    return _labelled(_per_weight(statistics, "squared_error") ** 0.5, "rmse", _unit(statistics))


def mae(statistics: xr.Dataset) -> xr.DataArray:
    """Mean absolute error, sum w abs(p - t) / sum w, in the unit of the target (Wilks 2019, eq. 9.32).

    Args:
        statistics: what `error_statistics` gave.

    Returns:
        The metric over the dimensions of the statistics; NaN where there is no sample.
    """
    return _labelled(_per_weight(statistics, "absolute_error"), "mae", _unit(statistics))


def bias(statistics: xr.Dataset) -> xr.DataArray:
    """Mean error, sum w (p - t) / sum w: positive where the prediction is too high (Wilks 2019, eq. 9.35).

    Args:
        statistics: what `error_statistics` gave.

    Returns:
        The metric in the unit of the target; NaN where there is no sample.
    """
    return _labelled(_per_weight(statistics, "error"), "bias", _unit(statistics))


def r2(statistics: xr.Dataset) -> xr.DataArray:
    """Coefficient of determination, 1 - SSE / SST (Wright 1921; Nash & Sutcliffe 1970).

    SSE = sum w (p - t)^2 and SST = sum w (t - mean(t))^2 over the whole set, never a mean over batches. It is
    1 for a perfect prediction, 0 for the set's own mean, and has no lower bound.

    Args:
        statistics: what `error_statistics` gave.

    Returns:
        The metric; NaN where the target is constant (SST = 0), which a warning names.
    """
    total = variation(statistics, of="target")
    constant = (total == 0) & (statistics["n"] > 0)
    if bool(constant.any()):
        warnings.warn(f"r2 is undefined where the target is constant: {_where(constant)}", stacklevel=2)
    return _labelled(1.0 - statistics["squared_error"] / total.where(total > 0), "r2", "1")


def correlation(statistics: xr.Dataset) -> xr.DataArray:
    """Pearson correlation, cov(p, t) / (std(p) std(t)) (Wilks 2019, eq. 3.32).

    Args:
        statistics: what `error_statistics` gave.

    Returns:
        The metric in [-1, 1]; NaN where the prediction or the target is constant.
    """
    covariation = statistics["product"] - statistics["prediction"] * statistics["target"] / _weight(statistics)
    scale = (variation(statistics, of="prediction") * variation(statistics, of="target")) ** 0.5
    return _labelled((covariation / scale.where(scale > 0)).clip(-1.0, 1.0), "correlation", "1")


def std_ratio(statistics: xr.Dataset) -> xr.DataArray:
    """Standard deviation of the prediction over that of the target (Taylor 2001, JGR 106, 7183-7192).

    Args:
        statistics: what `error_statistics` gave.

    Returns:
        The metric: below 1 where the prediction is too smooth; NaN where the target is constant.
    """
    total = variation(statistics, of="target")
    ratio = variation(statistics, of="prediction") / total.where(total > 0)
    return _labelled(ratio**0.5, "std_ratio", "1")


def variation(statistics: xr.Dataset, *, of: str) -> xr.DataArray:
    """Sum of squared deviations from the mean, sum w (x - mean(x))^2; for the target the SST of r2.

    Args:
        statistics: what `error_statistics` gave.
        of: `target` or `prediction`.

    Returns:
        The variation in the squared unit, exactly 0 where it is not above the rounding of the sums (a
        constant), NaN where there is no sample.
    """
    square, total = statistics[f"{of}_squared"], statistics[of]
    value = square - total**2 / _weight(statistics)
    return value.where((value > _RESOLUTION * square) | value.isnull(), 0.0)


def mean(statistics: xr.Dataset, *, of: str) -> xr.DataArray:
    """Weighted mean of the `target` or of the `prediction`, in the unit of the target."""
    value = shift_of(statistics) + _per_weight(statistics, of)
    return _labelled(value, f"{of}_mean", _unit(statistics))


def _weight(statistics: xr.Dataset) -> xr.DataArray:
    weight = statistics["weight"]
    return weight.where(weight > 0)


def _per_weight(statistics: xr.Dataset, name: str) -> xr.DataArray:
    return statistics[name] / _weight(statistics)


def _unit(statistics: xr.Dataset) -> str:
    return str(statistics.attrs.get("units", ""))


def squared_units(units: str) -> str:
    """``K`` becomes ``K2``, ``m s-1`` becomes ``(m s-1)2``."""
    if not units or units == "1":
        return units
    return f"{units}2" if units.isalpha() else f"({units})2"


def _labelled(values: xr.DataArray, name: str, units: str) -> xr.DataArray:
    result = values.rename(name)
    result.attrs = {"units": units} if units else {}
    if SHIFT in result.coords:
        result = result.drop_vars(SHIFT)
    return result


def _where(mask: xr.DataArray) -> str:
    """The first cells of a mask by their coordinates."""
    if not mask.ndim:
        return "in the whole set"
    found = [
        ", ".join(
            f"{dim}={mask.coords[dim].values[i] if dim in mask.coords else i}"
            for dim, i in zip(mask.dims, index, strict=True)
        )
        for index in np.argwhere(mask.values)
    ]
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return "; ".join(found[:5]) + more
