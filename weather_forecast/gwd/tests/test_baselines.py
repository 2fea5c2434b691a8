"""What a user would take instead of a network."""

import numpy as np
import pytest
import xarray as xr

from weather_forecast.gwd.baselines import RIDGE_PENALTY, Scheme, fit_statistical, tropical_mean_factor
from weather_forecast.gwd.columns import generate_columns
from weather_forecast.gwd.layout import ColumnLayout
from weather_forecast.gwd.levels import L91
from weather_forecast.gwd.scheme import gravity_wave_drag
from weather_forecast.gwd.spectrum import SchemeParameters

LAYOUT = ColumnLayout()


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(1)
    x = generate_columns(300, rng).inputs(LAYOUT).astype(np.float64)
    x[:, 189] = 1e5 / 3  # a constant, not a round number
    y = 1e-6 * (x[:, :126] @ rng.normal(0, 1, (126, 126))) + rng.normal(0, 1e-5, (300, 126))
    return x, y


def labelled(x):
    return xr.DataArray(x, dims=("sample", "feature"))


@pytest.mark.parametrize("block", [37, 300])
def test_ridge_and_mean_are_the_closed_forms_whatever_the_blocks(rows, block):
    x, y = rows
    mean, ridge = fit_statistical(((x[i : i + block], y[i : i + block]) for i in range(0, 300, block)), LAYOUT)
    std = x.std(axis=0)
    std[189] = 1.0  # the constant is left unscaled
    z = (x - x.mean(axis=0)) / std
    weights = np.linalg.solve(z.T @ z + RIDGE_PENALTY * np.eye(191), z.T @ (y - y.mean(axis=0)))
    expected = z @ weights + y.mean(axis=0)
    found = ridge.predict(labelled(x))
    assert found.dims == ("sample", "component", "level")
    assert found.attrs["units"] == "m s-2"
    np.testing.assert_allclose(found.values.reshape(300, 126), expected, atol=1e-9 * np.abs(y).max())
    np.testing.assert_allclose(mean.predict(labelled(x[:2])).values.reshape(2, 126)[1], y.mean(axis=0), rtol=1e-9)


def test_the_scheme_without_latitude_launches_the_mean_flux_of_the_sphere():
    parameters = SchemeParameters(n_azimuths=4, n_speeds=20)
    # 1 - 1/4 of the mean of a Gaussian of latitude, weighted with area: by Monte Carlo
    latitude = np.degrees(np.arcsin(np.random.default_rng(0).uniform(-1, 1, 400_000)))
    factor = tropical_mean_factor(parameters)
    assert factor == pytest.approx(1 - 0.25 * np.exp(-0.5 * (latitude / 20) ** 2).mean(), abs=1e-3)
    columns = generate_columns(8, np.random.default_rng(2))
    x = columns.inputs(LAYOUT)
    found = Scheme(LAYOUT, L91, parameters, factor).predict(labelled(x))
    half = L91.truncate(63).half_pressure(x[:, 189].astype(np.float64))
    drag = gravity_wave_drag(x[:, :63], x[:, 63:126], x[:, 126:189], half, parameters=parameters)
    scale = float(np.sqrt(np.mean(drag.dudt**2)))
    np.testing.assert_allclose(found.sel(component="dudt").values, factor * drag.dudt, atol=1e-3 * scale)
