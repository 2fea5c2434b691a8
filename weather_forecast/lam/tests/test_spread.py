"""Scores of forecasts with a spread equal their definitions."""

import numpy as np
import pytest
import xarray as xr
from scipy.special import erf

from ai4sim.verification import crps, ssr
from weather_forecast.lam.spread import gaussian_crps, spread_statistics

DIMS = ("sample", "lat", "lon")


def field(values) -> xr.DataArray:
    return xr.DataArray(values, dims=DIMS, coords={"block": ("sample", np.arange(len(values)))}, attrs={"units": "K"})


def sums_of(mean, spread, target, **more) -> xr.Dataset:
    sums = spread_statistics(field(mean), field(spread), field(target), reduce=DIMS, block="block", **more)
    return sums.sum("block").assign_attrs(sums.attrs)


def test_crps_is_the_integral_over_thresholds():
    rng = np.random.default_rng(0)
    mean, target = rng.normal(size=(2, 1, 2, 3))
    spread = rng.uniform(0.3, 2.0, (1, 2, 3))
    x = np.linspace(-15, 15, 300_001)[:, None, None, None]
    below = (1 + erf((x - mean) / spread / np.sqrt(2))) / 2
    expected = np.trapezoid((below - (x >= target)) ** 2, x, axis=0)
    np.testing.assert_allclose(gaussian_crps(field(mean), field(spread), field(target)), expected, atol=1e-4)


def test_of_no_spread_it_is_the_absolute_error():
    rng = np.random.default_rng(1)
    mean, target = rng.normal(size=(2, 4, 3, 3))
    score = gaussian_crps(field(mean), field(np.full_like(mean, 1e-9)), field(target))
    np.testing.assert_allclose(score, np.abs(mean - target), atol=1e-8)


def test_calibrated_forecasts_have_a_ratio_of_one_and_the_known_crps():
    rng = np.random.default_rng(2)
    spread = rng.uniform(0.5, 2.0, (4, 200, 200))
    target = spread * rng.normal(size=spread.shape)
    sums = sums_of(np.zeros_like(spread), spread, target)
    assert ssr(sums).item() == pytest.approx(1, abs=0.01)
    # the mean CRPS of a calibrated normal forecast is its standard deviation / sqrt(pi)
    assert crps(sums).item() == pytest.approx(spread.mean() / np.sqrt(np.pi), rel=0.01)
    assert ssr(sums_of(np.zeros_like(spread), 2 * spread, target)).item() == pytest.approx(2, abs=0.02)


def test_border_and_missing_truth_do_not_count():
    rng = np.random.default_rng(3)
    mean, target = rng.normal(size=(2, 2, 4, 4))
    spread = np.ones_like(mean)
    weights = xr.DataArray(np.ones((4, 4)), dims=("lat", "lon"))
    weights[0] = 0
    target[:, 0] = 1e3
    target[1, 2, 2] = np.nan
    there = np.isfinite(target)
    there[:, 0] = False
    sums = sums_of(mean, spread, target, weights=weights, skipna=True)
    score = gaussian_crps(field(mean), field(spread), field(target)).values
    assert crps(sums).item() == pytest.approx(score[there].mean())
    assert ssr(sums).item() == pytest.approx(1 / np.sqrt(np.mean((mean - target)[there] ** 2)))
