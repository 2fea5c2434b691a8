"""Balance and bounds of fields whose answer is known."""

import numpy as np
import pytest
import xarray as xr

from weather_forecast.lam.accessors import GridInfo
from weather_forecast.lam.physics import ageostrophic_wind, balanced_levels, distances, out_of_bounds

F0 = 1e-4
SPACING = 20.0  # km


def field(values, units: str = "m s-1") -> xr.DataArray:
    return xr.DataArray(values, dims=("sample", "lat", "lon"), attrs={"units": units})


def plane(f: float = F0) -> dict[str, xr.DataArray]:
    y, x = np.meshgrid(SPACING * np.arange(20), 1.5 * SPACING * np.arange(30), indexing="ij")
    values = {"x": x, "y": y, "coriolis": np.full(x.shape, f)}
    return {name: xr.DataArray(value, dims=("lat", "lon")) for name, value in values.items()}


def eddy() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Geopotential of waves, and the wind in balance with it."""
    where = plane()
    x, y = 1000 * where["x"].values, 1000 * where["y"].values
    k, m = 2 * np.pi / 2e6, 2 * np.pi / 1.5e6
    z = 800 * np.sin(k * x) * np.cos(m * y)
    u = 800 * m / F0 * np.sin(k * x) * np.sin(m * y)
    v = 800 * k / F0 * np.cos(k * x) * np.cos(m * y)
    return u, v, z


def test_a_balanced_wind_has_no_residual_but_that_of_the_differences():
    u, v, z = (field(values[None]) for values in eddy())
    residual = ageostrophic_wind(u, v, z, **plane())
    assert residual.shape == u.shape
    assert np.isnan(residual[0, 0]).all()
    assert np.isnan(residual[0, :, -1]).all()
    inside = residual[0, 1:-1, 1:-1]
    # (k dx)^2 / 6 of the wind, of either component
    assert float(inside.max()) < ((2 * np.pi / 2000 * 30) ** 2 + (2 * np.pi / 1500 * 20) ** 2) / 6 * float(
        np.hypot(u, v).max()
    )


def test_what_is_added_to_the_wind_is_the_residual():
    u, v, z = (field(values[None]) for values in eddy())
    before = ageostrophic_wind(u, v, z, **plane())
    added = ageostrophic_wind(u + 3, v - 4, z, **plane())
    np.testing.assert_allclose(added[0, 1:-1, 1:-1], 5, atol=float(before.max()))


def test_calm_air_on_a_slope_misses_its_whole_wind():
    where = plane()
    z = field((0.002 * 1000 * where["x"].values)[None])  # 2 m2 s-2 per km: v = 20 m/s
    calm = xr.zeros_like(z)
    np.testing.assert_allclose(ageostrophic_wind(calm, calm, z, **where)[0, 1:-1, 1:-1], 20)


def test_there_is_no_balance_near_the_equator():
    u, v, z = (field(values[None]) for values in eddy())
    assert np.isnan(ageostrophic_wind(u, v, z, **plane(1e-5))).all()


def test_distances_on_a_grid_of_latitudes_are_those_on_the_sphere():
    latitude, longitude = 40 + 0.25 * np.arange(50), 0.25 * np.arange(40)
    grid = GridInfo.from_axes(latitude, longitude, np.zeros((50, 40)))
    names = ("latitude", "longitude", "x", "y", "coriolis")
    fields = {name: xr.DataArray(getattr(grid, name), dims=("lat", "lon")) for name in names}
    x, y = distances(**fields)
    metres = 6.371e6 * np.radians(1.0) * np.cos(np.radians(grid.latitude))
    z = field((50 * np.sin(np.radians(20 * grid.longitude)))[None])
    slope = 50 * np.radians(20) * np.cos(np.radians(20 * grid.longitude)) / metres
    v = field((slope / grid.coriolis)[None])
    residual = ageostrophic_wind(xr.zeros_like(v), v, z, x=x, y=y, coriolis=fields["coriolis"])
    assert float(residual.max()) < 2e-3 * float(abs(v).max())
    planar = ageostrophic_wind(xr.zeros_like(v), v, z, **{name: fields[name] for name in ("x", "y", "coriolis")})
    assert float(planar.max()) > 0.05 * float(abs(v).max())  # what the equirectangular plane would make of it


def test_a_plane_keeps_its_coordinates():
    where = plane()
    labels = {name: where[name] / 100 for name in ("x", "y")}
    x, y = distances(labels["y"], labels["x"], **where)
    assert x is where["x"]
    assert y is where["y"]


def test_the_coriolis_parameter_is_the_earths_or_the_planes():
    axes = np.array([30.0, 45.0]), np.array([0.0, 1.0])
    earth = GridInfo.from_axes(*axes, np.zeros((2, 2)))
    np.testing.assert_allclose(earth.coriolis[:, 0], 2 * 7.292e-5 * np.array([0.5, np.sqrt(0.5)]))
    flat = GridInfo.from_axes(*axes, np.zeros((2, 2)), coriolis_parameter=F0)
    assert (flat.crop(slice(0, 1), slice(0, 2)).coriolis == F0).all()


def test_values_out_of_bounds_are_counted():
    rain = field(np.array([[[0.0, -1e-6, -0.5, 3.0, np.nan]]]), "kg m-2")
    ice = field(np.array([[[0.0, 2e-5, -9e-6, 1e-5]]]), "kg kg-1")
    np.testing.assert_array_equal(out_of_bounds(ice, "aro_ciwc_500hpa")[0, 0], [0, 0, 1, 0])
    np.testing.assert_array_equal(out_of_bounds(rain, "aro_tp_0m")[0, 0], [0, 0, 1, 0, np.nan])
    humidity = field(np.array([[[-1.0, 0.0, 100.001, 101.0]]]), "%")
    np.testing.assert_array_equal(out_of_bounds(humidity, "aro_r2_2m")[0, 0], [1, 0, 0, 1])
    assert out_of_bounds(rain, "aro_u_850hpa") is None


def test_levels_need_both_winds_of_the_same_source():
    names = ["aro_z_850hpa", "aro_u_850hpa", "aro_v_850hpa", "aro_z_500hpa", "arp_u_500hpa", "aro_v_500hpa"]
    assert balanced_levels(names) == {"aro_z_850hpa": ("aro_u_850hpa", "aro_v_850hpa")}


def test_the_demo_is_balanced(tiny):
    batch = next(iter(tiny.test_dataloader()))["state"].numpy()
    store = xr.open_zarr(tiny.store, consolidated=False)
    assert float(store["coriolis"].mean()) == pytest.approx(F0)
    where = {name: xr.DataArray(store[name].values, dims=("lat", "lon")) for name in ("x", "y", "coriolis")}
    names = store["state"].attrs["features"]
    u, v, z = (field(batch[:, 0, ..., names.index(f"aro_{name}_850hpa")]) for name in "uvz")
    residual = ageostrophic_wind(u, v, z, **where)[:, 1:-1, 1:-1]
    assert float((residual**2).mean()) < 0.02 * float((u**2 + v**2).mean())
    without = ageostrophic_wind(u, v, 0 * z, **where)[:, 1:-1, 1:-1]
    assert float((without**2).mean()) > 0.9 * float((u**2 + v**2).mean())
