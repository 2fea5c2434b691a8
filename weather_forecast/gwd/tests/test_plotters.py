"""Figures: what the axes say."""

import numpy as np
import pytest
import xarray as xr

from weather_forecast.gwd import plotters
from weather_forecast.gwd.levels import L91

MODELS = ("Net", "scheme_4x20")
PRESSURE = L91.full_pressure(101_325.0)[:63]


@pytest.fixture
def excerpt():
    """Truth and two products of 300 columns in m s-1 day-1."""
    rng = np.random.default_rng(0)
    shape = (300, 2, 63)
    truth = xr.DataArray(
        rng.normal(0, 1, shape) * np.geomspace(10, 0.01, 63),
        dims=("sample", "component", "level"),
        coords={"component": ["dudt", "dvdt"], "pressure": ("level", PRESSURE, {"units": "Pa"})},
        attrs={"long_name": "gravity-wave drag", "units": "m s-1 day-1"},
    )
    drag = xr.concat([truth * 0.9, truth * 0.7], xr.DataArray(list(MODELS), dims="model", name="model"))
    data = xr.Dataset({"truth": truth, "drag": drag.assign_attrs(truth.attrs)})
    latitude = rng.uniform(-90, 90, 300)
    return data.assign_coords(lat=("sample", latitude), doy=("sample", np.full(300, 10.0)))


@pytest.mark.parametrize("known", [("lat", "doy"), ("lat",), ()])
def test_columns_have_the_top_at_the_top_and_units(excerpt, known):
    figure = plotters.plot_columns(excerpt.drop_vars({"lat", "doy"} - set(known)), "Net")
    first = figure.axes[0]
    assert first.get_yscale() == "log"
    bottom, top = first.get_ylim()
    assert bottom == pytest.approx(470.17, abs=0.01)  # hPa
    assert top == pytest.approx(0.01, rel=0.01)
    assert first.get_ylabel() == "pressure [hPa]"
    assert figure.axes[-1].get_xlabel() == "gravity-wave drag [m s⁻¹ day⁻¹]"
    assert ("day 10, " in first.get_title(loc="left")) == ("doy" in known)
    assert ("°" in first.get_title(loc="left")) == ("lat" in known)


def test_a_zonal_mean_is_the_mean_of_its_band(excerpt):
    section = plotters.zonal_mean(excerpt, (305, 90))
    assert section is not None
    latitudes = section["lat"].values
    band = int(np.argmin(np.abs(latitudes - 6)))
    edges = np.arange(-90, 102, 12.0)
    low = edges[np.searchsorted(edges, latitudes[band]) - 1]
    inside = (excerpt["lat"].values > low) & (excerpt["lat"].values <= low + 12)
    expected = excerpt["truth"].sel(component="dudt").values[inside].mean(axis=0)
    np.testing.assert_allclose(section["truth"].transpose("lat", "level").values[band], expected)
    assert plotters.zonal_mean(excerpt, (121, 273)) is None  # nothing was sampled there


def test_coupled_sections_name_upwelling_and_half_period():
    time = np.linspace(0, 730, 60)
    u = np.sin(2 * np.pi * time / 90)[None, None, :, None] * np.ones((2, 2, 1, 63))
    result = xr.Dataset(
        {
            "u": (("drag", "column", "time", "level"), u, {"long_name": "zonal wind", "units": "m s-1"}),
            "half_period": (("drag", "column"), [[45.0, 45.0], [np.nan, 50.0]]),
        },
        coords={
            "drag": ["scheme", "emulator"],
            "time": time,
            "pressure": ("level", PRESSURE / 100),
            "upwelling": ("column", [0.0, 2e-4]),
        },
    )
    figure = plotters.plot_coupled(result)
    titles = [ax.get_title(loc="left") for ax in figure.axes[:4]]
    assert titles[0] == "scheme, w* = 0.0 mm s⁻¹"
    assert titles[3] == "emulator, w* = 0.2 mm s⁻¹"
    found = [ax.texts[0].get_text() for ax in figure.axes[:4]]
    assert found == ["half-period 45 days", "half-period 45 days", "no oscillation", "half-period 50 days"]
    assert figure.axes[0].get_ylim()[0] > figure.axes[0].get_ylim()[1]  # the top is up
    assert figure.axes[-1].get_ylabel() == "zonal wind [m s⁻¹]"


def test_the_axis_of_errors_by_level_is_as_long_as_they_are():
    rmse = np.geomspace(2.0, 0.02, 63)[None] * np.array([[1.0], [1.5]])
    profiles = xr.Dataset(
        {
            name: (("model", "level"), values)
            for name, values in (("rmse", rmse), ("bias", 0 * rmse), ("r2", 0 * rmse + 0.5))
        },
        coords={"model": ["Net", "ridge"], "pressure": ("level", PRESSURE, {"units": "Pa"})},
    )
    axis = plotters.plot_level_scores(profiles).axes[0]
    assert axis.get_xscale() == "log"
    assert axis.get_xlim() == pytest.approx((0.7 * 0.02, 1.4 * 3.0))
    assert axis.get_xlabel() == "RMSE"
