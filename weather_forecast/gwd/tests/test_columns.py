"""The column generator: reproducible, physical, and near the climatology of the real data."""

import dataclasses

import numpy as np
import pytest

from ai4sim.errors import InputError
from weather_forecast.gwd import config
from weather_forecast.gwd.columns import SCALE_HEIGHT, Columns, generate_columns
from weather_forecast.gwd.layout import ColumnLayout
from weather_forecast.gwd.levels import L91, L137, geopotential
from weather_forecast.gwd.scheme import gravity_wave_drag
from weather_forecast.gwd.spectrum import SchemeParameters

# Means of the public training set at some levels: u in m/s, t in K.
LEVELS = np.array([1, 5, 9, 13, 17, 21, 25, 29, 33, 37, 41, 45, 49, 53, 57, 61, 63])
MEAN_U = [1.7, -4.7, -14.4, -9.2, -1.5, -5.3, -8.4, -2.8, 2.6, 7.3, 12.2, 15.2, 15.7, 14.1, 11.4, 8.3, 6.9]
MEAN_T = [205.3, 242.8, 267.2, 251.1, 232.4, 223.4, 216.1, 210.0, 204.4, 201.9, 205.7, 211.4, 218.2, 227.0]
MEAN_T += [237.9, 249.7, 255.3]


@pytest.fixture(scope="module")
def columns() -> Columns:
    return generate_columns(3000, np.random.default_rng(0))


def daily_drag(columns: Columns, parameters: SchemeParameters | None = None) -> np.ndarray:
    drag = gravity_wave_drag(
        columns.u,
        columns.v,
        columns.t,
        columns.half_pressure,
        latitude=columns.lat,
        parameters=parameters or SchemeParameters.cheap(),
    )
    return drag.dudt * config.SECONDS_PER_DAY


def test_shapes_and_range(columns):
    for name in ("u", "v", "t", "pressure", "geopotential"):
        assert getattr(columns, name).shape == (3000, 63)
        assert getattr(columns, name).dtype == np.float64
    assert columns.half_pressure.shape == (3000, 64)
    for name, (low, high) in config.VALID_RANGE.items():
        values = getattr(columns, name)
        assert low < values.min()
        assert values.max() < high
    assert (columns.doy >= 0).all()
    assert (columns.doy < 365).all()


def test_latitudes_cover_the_sphere_evenly(columns):
    share = np.mean(np.abs(columns.lat) < 30)
    assert share == pytest.approx(0.5, abs=0.03)
    assert abs(columns.lat.mean()) < 2


def test_means_are_those_of_the_real_data(columns):
    t_error = columns.t.mean(0)[LEVELS - 1] - MEAN_T
    u_error = columns.u.mean(0)[LEVELS - 1] - MEAN_U
    assert np.abs(t_error).max() < 4
    assert np.sqrt(np.mean(t_error**2)) < 2.2
    upper = (LEVELS >= 5) & (LEVELS <= 13)
    assert np.abs(u_error[upper]).max() < 9
    assert np.abs(u_error[~upper]).max() < 6
    assert np.sqrt(np.mean(u_error**2)) < 3.7
    assert columns.surface_pressure.mean() == pytest.approx(98674, abs=1000)


def test_lowest_level_lies_ten_metres_above_ground(columns):
    assert columns.lowest_geopotential.min() > 75
    assert columns.lowest_geopotential.max() < 108
    assert columns.lowest_geopotential.mean() == pytest.approx(98.3, abs=5)


def test_stratification_is_stable(columns):
    drag = gravity_wave_drag(columns.u, columns.v, columns.t, columns.half_pressure)
    assert drag.n_floored < 0.002 * 3000 * 62


def test_geopotential_is_hydrostatic():
    whole = generate_columns(5, np.random.default_rng(1), cut_at_launch=False)
    expected = geopotential(whole.t, whole.half_pressure, whole.surface_geopotential)
    np.testing.assert_array_equal(whole.geopotential, expected)
    np.testing.assert_allclose(whole.geopotential[:, -1] - whole.surface_geopotential, whole.lowest_geopotential)


def test_waves_oppose_the_jets_in_the_mesosphere():
    for latitude, expected in ((52.5, -25.0), (-52.5, 28.0)):  # m/s/day in January
        columns = generate_columns(500, np.random.default_rng(1), latitude=latitude, doy=15)
        drag = daily_drag(columns).mean(0)
        z = SCALE_HEIGHT * np.log(1e5 / columns.pressure.mean(0))
        at_73_km = np.argmin(np.abs(z - 72.5))
        assert drag[at_73_km] == pytest.approx(expected, abs=6)
        assert np.sign(columns.u.mean(0)[at_73_km]) == -np.sign(expected)
        assert np.abs(drag[z < 40]).max() < 1


def test_waves_break_in_the_shear_of_the_qbo():
    columns = generate_columns(500, np.random.default_rng(2), latitude=0.0)
    p = columns.pressure.mean(0) / 100
    spread = daily_drag(columns, SchemeParameters()).std(0)[(p > 15) & (p < 40)]
    assert spread.min() > 0.28
    assert spread.max() < 0.58


def test_typical_drag_of_every_height(columns):
    rms = np.sqrt(np.mean(daily_drag(columns) ** 2, axis=0))
    expected = {1: 12, 2: 16, 3: 13, 5: 6, 9: 1.0, 17: 0.35, 27: 0.25, 41: 0.45}
    for level, value in expected.items():
        assert rms[level - 1] == pytest.approx(value, rel=0.3), level


def test_same_seed_same_columns():
    first, second = (generate_columns(20, np.random.default_rng(5)) for _ in range(2))
    other = generate_columns(20, np.random.default_rng(6))
    for field in dataclasses.fields(Columns):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(second, field.name))
    assert not np.array_equal(first.u, other.u)


def test_whole_columns_on_another_grid():
    whole = generate_columns(4, np.random.default_rng(1), grid=L137, cut_at_launch=False)
    assert whole.u.shape == (4, 137)
    np.testing.assert_array_equal(whole.half_pressure[:, -1], whole.surface_pressure)
    cut = generate_columns(4, np.random.default_rng(1), grid=L137)
    np.testing.assert_array_equal(cut.t, whole.t[:, :93])


def test_given_places_and_days():
    columns = generate_columns(3, np.random.default_rng(1), latitude=[-60.0, 0.0, 60.0], doy=200)
    np.testing.assert_array_equal(columns.lat, [-60, 0, 60])
    np.testing.assert_array_equal(columns.doy, [200, 200, 200])
    # July: easterlies over the north, the vortex over the south
    summer = generate_columns(300, np.random.default_rng(1), latitude=50.0, doy=200).u.mean(0)
    winter = generate_columns(300, np.random.default_rng(1), latitude=-50.0, doy=200).u.mean(0)
    assert summer[5] < -30
    assert winter[5] > 30


def test_input_vectors(columns):
    x = columns.inputs()
    assert x.shape == (3000, 191)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x[:, 63:126], columns.v.astype(np.float32))
    np.testing.assert_array_equal(x[:, 189], columns.surface_pressure.astype(np.float32))
    layout = ColumnLayout(scalars=(*config.SCALARS, "lat"))
    np.testing.assert_array_equal(columns.inputs(layout)[:, 191], columns.lat.astype(np.float32))
    with pytest.raises(ValueError, match="columns have 63 levels, the layout has 60"):
        columns.inputs(ColumnLayout(n_levels=60))


def test_weaker_mean_flow_and_waves_leave_the_rest_as_it_is(columns):
    still = generate_columns(3000, np.random.default_rng(0), mean_flow=0, waves=0)
    assert not still.u.any()
    assert not still.v.any()
    np.testing.assert_array_equal(still.lat, columns.lat)
    np.testing.assert_array_equal(still.surface_pressure, columns.surface_pressure)
    half = np.where(np.arange(3000) % 2, 0.5, 1.0)
    calmer = generate_columns(3000, np.random.default_rng(0), mean_flow=half, waves=half)
    np.testing.assert_allclose(calmer.u, half[:, None] * columns.u, atol=1e-12)
    np.testing.assert_allclose(calmer.v, half[:, None] * columns.v, atol=1e-12)
    # the mean flow alone is smooth and has no meridional wind
    flow = generate_columns(3000, np.random.default_rng(0), waves=0)
    assert not flow.v.any()
    assert np.abs(np.diff(flow.u, 2)).mean() < 0.5 * np.abs(np.diff(columns.u, 2)).mean()


def test_bad_arguments():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match=r"latitude must be within -90\.\.90 degrees, not 95"):
        generate_columns(2, rng, latitude=95.0)
    with pytest.raises(InputError, match="ends above the ground"):
        generate_columns(2, rng, grid=L91.truncate(63))
