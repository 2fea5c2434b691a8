"""The file that users get."""

import json

import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import gaussian_filter

from ai4sim.projections import LambertConformal
from precip_postproc.resunet_qpf import config, product
from precip_postproc.resunet_qpf.prepare import describe_grid
from precip_postproc.resunet_qpf.product import finish, make_product
from precip_postproc.resunet_qpf.products import Distribution
from precip_postproc.resunet_qpf.readers import CurvilinearGrid
from precip_postproc.resunet_qpf.tests.grib_files import lambert_grid

GRID = lambert_grid(24, 30, spacing=8000.0)
INIT = np.datetime64("2025-12-02T00", "ns")
LEADS = np.array([6, 24])


def predictions(grid=GRID) -> xr.Dataset:
    """What a model says of two lead times."""
    rng = np.random.default_rng(0)
    classes = rng.gamma(0.3, size=(2, len(config.EDGES) + 1, *grid.shape)) + 1e-9
    classes[:, 0] += 1
    classes /= classes.sum(axis=1, keepdims=True)
    exceedance = np.round(classes[:, ::-1].cumsum(axis=1)[:, -2::-1], 4)
    forecast = np.maximum(rng.gamma(0.4, 3, (2, *grid.shape)) - 0.8, 0).round(2).astype(np.float32)
    forecast[1, 3, 4] = np.nan
    forecast[0, 0, 0] = 0.25
    return xr.Dataset(
        {
            "exceedance": (("sample", "edge", "y", "x"), exceedance.astype(np.float32)),
            "forecast": (("sample", "y", "x"), forecast),
        },
        {
            "edge": ("edge", list(config.EDGES)),
            "row": ("sample", [0, 1]),
            "forecast_reference_time": ("sample", np.repeat(INIT, 2)),
            "lead_time": ("sample", LEADS, {"units": "hours"}),
            "valid_time": ("sample", INIT + LEADS * np.timedelta64(1, "h")),
            "latitude": (("y", "x"), grid.latitude, {"units": "degrees_north", "standard_name": "latitude"}),
            "longitude": (("y", "x"), grid.longitude, {"units": "degrees_east", "standard_name": "longitude"}),
        },
        {"grid": json.dumps(describe_grid(grid)), "model": "Net", "calibrated": 0},
    )


@pytest.fixture(scope="module")
def made() -> xr.Dataset:
    return make_product(predictions())


def test_variables_and_their_shapes(made):
    assert dict(made.sizes) == {"lead_time": 2, "threshold": 6, "quantile": 13, "y": 24, "x": 30}
    events, amounts = ("lead_time", "threshold", "y", "x"), ("lead_time", "y", "x")
    assert {str(name): made[name].dims for name in made.data_vars} == {
        "probability": events, "smoothed_probability": events, "raw_exceedance": events,
        "precipitation_quantile": ("lead_time", "quantile", "y", "x"), "precipitation_mean": amounts,
        "precipitation_forecast": amounts, "crs": (),
    }  # fmt: skip
    assert made["threshold"].values.tolist() == list(config.THRESHOLDS)
    assert made["lead_time"].values.tolist() == [6, 24]
    assert made["valid_time"].values.tolist() == (INIT + LEADS * np.timedelta64(1, "h")).tolist()
    assert made["forecast_reference_time"].values == INIT


def test_probabilities_are_those_of_the_edges(made):
    given = predictions()["exceedance"].sel(edge=list(config.THRESHOLDS))
    np.testing.assert_array_equal(made["probability"].values, given.values)
    assert (np.diff(made["probability"], axis=1) <= 0).all()


def test_quantiles_and_means_are_those_of_the_distribution(made):
    for lead in range(2):
        distribution = Distribution(predictions()["exceedance"].values[lead], config.EDGES)
        np.testing.assert_allclose(made["precipitation_mean"][lead], distribution.mean(), rtol=1e-5)
        for place, level in enumerate(config.QUANTILES):
            np.testing.assert_allclose(
                made["precipitation_quantile"][lead, place], distribution.quantile(level), rtol=1e-5
            )
    quantiles = made["precipitation_quantile"].values
    assert (np.diff(quantiles, axis=1) >= 0).all()
    assert (quantiles >= 0).all()
    mean = made["precipitation_mean"].values
    assert ((mean > quantiles[:, 0]) & (mean < quantiles[:, -1])).mean() > 0.95
    # where rain is less likely than not, the median is 0
    assert (made["precipitation_quantile"].sel(quantile=0.5).values[made["probability"].values[:, 0] < 0.5] == 0).all()


def test_the_raw_forecast_and_its_smoothed_form(made):
    forecast = predictions()["forecast"].values
    raw = made["raw_exceedance"].values
    assert raw[0, 0, 0, 0] == 1  # exactly 0.25 mm
    known = np.isfinite(forecast)
    for place, threshold in enumerate(config.THRESHOLDS):
        np.testing.assert_array_equal(raw[:, place][known], forecast[known] >= threshold - 1e-4)
    assert np.isnan(raw[1, :, 3, 4]).all()
    np.testing.assert_array_equal(made["precipitation_forecast"], forecast)
    # 6.7 points of 4 km are 3.35 points of 8 km
    expected = gaussian_filter((forecast[0] >= 0.2499).astype(float), 3.35, mode="reflect", truncate=8)
    np.testing.assert_allclose(made["smoothed_probability"][0, 0], expected, atol=1e-5)
    assert np.isfinite(made["smoothed_probability"]).all()


def test_attributes(made):
    assert made.attrs == {
        "Conventions": "CF-1.11", "title": "probabilities of hourly precipitation",
        "source": "Net of ai4sim precip_postproc/resunet_qpf", "calibrated": 0, "grid_spacing_km": 8.0,
    }  # fmt: skip
    for name, values in made.data_vars.items():
        if name != "crs":
            assert values.attrs["units"] == ("mm" if name.startswith("precipitation") else "1")
            assert values.attrs["long_name"]
            assert values.attrs["grid_mapping"] == "crs"
    assert made["valid_time"].attrs["standard_name"] == "time"
    assert made["lead_time"].attrs["standard_name"] == "forecast_period"
    assert made["lead_time"].attrs["units"] == "hours"
    assert made["latitude"].attrs["standard_name"] == "latitude"
    crs = made["crs"].attrs
    assert crs["grid_mapping_name"] == "lambert_conformal_conic"
    assert crs["standard_parallel"] == [38.5, 38.5]
    assert (crs["longitude_of_central_meridian"], crs["earth_radius"]) == (-97.5, 6371229)
    assert made["x"].attrs == {"units": "m", "standard_name": "projection_x_coordinate"}
    np.testing.assert_allclose(np.diff(made["y"]), 8000)


def test_the_projection_gives_the_points_back(made):
    crs = made["crs"].attrs
    cone = LambertConformal(
        crs["latitude_of_projection_origin"],
        crs["longitude_of_central_meridian"],
        tuple(crs["standard_parallel"]),
        crs["earth_radius"],
    )
    latitude, longitude = cone.to_sphere(*np.meshgrid(made["x"], made["y"]))
    np.testing.assert_allclose(latitude, made["latitude"], atol=1e-6)
    np.testing.assert_allclose(longitude, made["longitude"], atol=1e-6)


def test_a_grid_without_projection_has_no_mapping():
    grid = CurvilinearGrid(GRID.latitude, GRID.longitude)
    found = make_product(predictions(grid))
    assert "crs" not in found
    assert "x" not in found.coords
    assert "grid_mapping" not in found["probability"].attrs


def test_packing_loses_less_than_half_a_step(made, tmp_path):
    made.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf", decode_timedelta=False) as stored:
        found = stored.load()
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf", mask_and_scale=False) as packed:
        assert {packed[name].dtype for name in made.data_vars if name != "crs"} == {np.dtype(np.int16)}
        assert packed["probability"].attrs["grid_mapping"] == "crs"
    for name in ("probability", "smoothed_probability", "raw_exceedance"):
        np.testing.assert_allclose(found[name], made[name], atol=5.0001e-5)
    for name in ("precipitation_quantile", "precipitation_mean", "precipitation_forecast"):
        np.testing.assert_allclose(found[name], made[name], atol=5.01e-3)
    assert np.isnan(found["precipitation_forecast"][1, 3, 4])
    assert found["lead_time"].values.tolist() == [6, 24]
    assert found["valid_time"].values.tolist() == made["valid_time"].values.tolist()
    assert (np.diff(found["precipitation_quantile"], axis=1) >= 0).all()
    assert (np.diff(found["probability"], axis=1) <= 0).all()


def test_maps_are_beside_the_output(tmp_path, monkeypatch):
    saved, asked = [], []
    monkeypatch.setattr(product, "product_figures", lambda made, folder: asked.append(folder) or [("a.png", "figure")])
    monkeypatch.setattr(product, "save", lambda path, figure: saved.append((path, figure)))
    found = finish(predictions(), tmp_path / "cycle.nc")
    assert asked == [tmp_path / "cycle"]
    assert saved == [("figure", "a.png")]
    xr.testing.assert_identical(found, make_product(predictions()))
