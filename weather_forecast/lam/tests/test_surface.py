"""Land, moisture, rain, ground and wind near it."""

import numpy as np
import pytest

from weather_forecast.lam.surface import (
    PEAK,
    RIDGES,
    SATURATION_HUMIDITY,
    Surface,
    advect,
    cloud_cover,
    is_land,
    make_orography,
    ten_metre_wind,
)

N, SPACING, HOUR = 48, 83.0e3, 3600.0


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def smooth(rng: np.random.Generator, size: float = 1.0) -> np.ndarray:
    """A field of the largest five waves."""
    waves = np.fft.fftfreq(N, 1 / N)
    kept = np.hypot(waves[:, None], waves[None]) <= 5
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((N, N))) * kept).real
    return size * field / field.std()


def winds(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return 10 + smooth(rng, 12.0), smooth(rng, 12.0)


# Orography


@pytest.mark.parametrize(("n", "rows", "columns"), [(96, (24, 72), (16, 80)), (48, (12, 36), (8, 40))])
def test_orography_has_its_peak_and_land_in_the_limited_area(n, rows, columns):
    orography = make_orography(n)
    assert orography.shape == (n, n)
    assert orography.max() == pytest.approx(PEAK)
    assert orography.min() >= 0
    inner = orography[slice(*rows), slice(*columns)]
    assert is_land(inner).mean() == pytest.approx(0.23, abs=0.03)
    assert inner.max() == orography.max()
    # open sea all around, so that the border's inflow is smooth
    assert not is_land(inner)[0].any()
    assert not is_land(inner)[:, 0].any()
    np.testing.assert_array_equal(orography, make_orography(n))
    assert np.abs(orography - make_orography(n, seed=4)).max() > 50


def test_a_ridge_has_its_widths_along_and_across():
    ridge = RIDGES[0].__class__(2.0, x=0.5, y=0.25, length=0.2, width=0.05, angle=90.0)
    height = ridge.on_grid(40)
    assert height[10, 20] == pytest.approx(2.0)
    assert height[18, 20] == pytest.approx(2 / np.e)  # northward, along
    assert height[10, 22] == pytest.approx(2 / np.e)  # eastward, across
    north_east = RIDGES[0].__class__(1.0, x=0.5, y=0.5, length=0.3, width=0.05, angle=45.0).on_grid(40)
    assert north_east[24, 24] > 0.5 > north_east[24, 16]
    assert RIDGES[0].__class__(1.0, x=0.0, y=0.0, length=0.1, width=0.1, angle=0.0).on_grid(40)[-1, -1] > 0.8


def test_land_is_above_forty_metres():
    np.testing.assert_array_equal(is_land([0.0, 39.9, 40.0, 900.0]), [False, False, True, True])


# Advection


def test_advection_by_whole_cells_is_a_shift(rng):
    field = rng.standard_normal((N, N))
    u, v = np.full((N, N), 2 * SPACING / HOUR), np.full((N, N), -3 * SPACING / HOUR)
    np.testing.assert_allclose(advect(field, u, v, HOUR, SPACING), np.roll(field, (-3, 2), axis=(0, 1)), atol=1e-9)
    np.testing.assert_array_equal(advect(field, 0 * u, 0 * v, HOUR, SPACING), field)


def test_advection_of_a_smooth_field_is_accurate(rng):
    x = 2 * np.pi * np.arange(N) / N
    field = np.sin(3 * x)[None] * np.cos(2 * x)[:, None]
    u, v = np.full((N, N), 0.4 * SPACING / HOUR), np.full((N, N), -0.7 * SPACING / HOUR)
    exact = np.sin(3 * (x - 0.4 * x[1]))[None] * np.cos(2 * (x + 0.7 * x[1]))[:, None]
    error = np.abs(advect(field, u, v, HOUR, SPACING) - exact)
    assert np.median(error) < 1e-3
    assert error.max() < 2e-2  # the limiter cuts the crests


def test_advection_makes_no_new_extrema(rng):
    field = np.where(rng.random((N, N)) > 0.8, 1.0, 0.0).astype(np.float32)
    for _ in range(30):
        u, v = winds(rng)
        carried = advect(field, u.astype(np.float32), v.astype(np.float32), HOUR, SPACING)
        assert field.min() <= carried.min()
        assert carried.max() <= field.max()
        field = carried
    assert carried.dtype == np.float32


def test_advection_keeps_a_constant_and_nearly_the_mean(rng):
    u, v = winds(rng)
    constant = np.full((N, N), 3.0)
    np.testing.assert_allclose(advect(constant, u, v, HOUR, SPACING), 3.0, rtol=1e-14)
    field = 5 + smooth(rng)
    # a wind without divergence
    psi = np.fft.fft2(smooth(rng))
    waves = 2j * np.pi * np.fft.fftfreq(N)
    v, u = np.fft.ifft2(waves[None] * psi).real, -np.fft.ifft2(waves[:, None] * psi).real
    scale = 15 / u.std()
    assert advect(field, scale * u, scale * v, HOUR, SPACING).mean() == pytest.approx(field.mean(), rel=2e-3)


# (iv) moisture budget


def test_moisture_budget_closes_in_every_step(rng):
    surface = Surface(make_orography(N), SPACING)
    rained = evaporated = 0.0
    for _ in range(48):
        budget = surface.step(*winds(rng), smooth(rng, 4.0), 300.0)
        assert budget.change == pytest.approx(budget.advection + budget.evaporation - budget.rain, abs=1e-17)
        assert budget.evaporation >= 0
        assert budget.rain >= 0
        assert abs(budget.advection) < 0.02 * surface.humidity.mean()
        rained += budget.rain
        evaporated += budget.evaporation
    assert rained > 0
    assert evaporated > 0
    assert surface.collect_rain().mean() == pytest.approx(3500 * rained, rel=1e-12)
    assert (surface.collect_rain() == 0).all()


def test_budget_in_single_precision_is_that_of_the_fields(rng):
    surface = Surface(make_orography(N).astype(np.float32), SPACING)
    start = surface.humidity.astype(float).mean()
    budgets = [surface.step(*(x.astype(np.float32) for x in (*winds(rng), smooth(rng, 4.0))), 0.0) for _ in range(10)]
    assert surface.humidity.dtype == surface.ground.dtype == np.float32
    assert surface.humidity.astype(float).mean() - start == pytest.approx(sum(b.change for b in budgets), abs=1e-9)


def still(surface: Surface, temperature: float, hours: int, radiation: float = 0.0) -> Surface:
    """No wind, uniform temperature."""
    rest = np.zeros((N, N))
    for _ in range(hours):
        surface.step(rest, rest, np.full((N, N), temperature), radiation)
    return surface


def test_evaporation_fills_up_to_85_percent_faster_at_sea():
    surface = still(Surface(make_orography(N), SPACING), 0.0, 12)
    flat = surface.orography < 1
    assert 0.72 < surface.saturation[flat].mean() < 0.85
    still(surface, 0.0, 500)
    np.testing.assert_allclose(surface.saturation[flat], 0.85, atol=1e-3)
    assert surface.collect_rain()[flat].max() == 0
    land = Surface(np.full((N, N), 40.1), SPACING)
    sea = Surface(np.full((N, N), 39.9), SPACING)
    gains = [still(s, 0.0, 1).humidity[0, 0] - 0.7 * SATURATION_HUMIDITY for s in (land, sea)]
    assert gains[0] / gains[1] == pytest.approx(0.35, rel=1e-3)


def test_cooling_makes_rain_and_mountains_make_more_of_it():
    surface = still(Surface(make_orography(N), SPACING), 0.0, 200)
    surface.collect_rain()
    still(surface, -4.0, 6)
    rain = surface.collect_rain()
    summit, flat = surface.orography > 800, surface.orography < 1
    # what is above 97 % of saturation falls out
    saturation = SATURATION_HUMIDITY * np.exp(-0.075 * 4)
    expected = 3500 * (0.85 * SATURATION_HUMIDITY - 0.97 * saturation)
    assert rain[flat].mean() == pytest.approx(expected, rel=0.01)
    np.testing.assert_allclose(surface.saturation[flat], 0.97, atol=1e-3)
    assert surface.relative_humidity().max() <= 100
    wet = still(Surface(make_orography(N), SPACING), -2.0, 1).collect_rain()
    assert wet[summit].mean() > wet[flat].mean() == 0


def test_clouds_need_sixty_percent():
    np.testing.assert_allclose(cloud_cover(np.array([0.0, 0.6, 0.8, 1.0])), [0, 0, 0.5, 1], atol=1e-12)


# Ground


def test_ground_heats_by_day_under_a_clear_sky_and_the_sea_does_not():
    surface = still(Surface(make_orography(N), SPACING), 2.0, 60, radiation=500.0)
    cloud = cloud_cover(surface.saturation)
    heating = 0.65e-6 * 500 * (1 - 0.7 * cloud) - 2e-5 * (1 - 0.6 * cloud)
    land = surface.land
    np.testing.assert_allclose(surface.ground[land], (2 + 7 * 3600 * heating)[land], rtol=2e-2)
    np.testing.assert_allclose(surface.ground[~land], 0.35 * 2)
    night = still(surface, 2.0, 60)
    assert (night.ground[land] < 2).all()


def test_two_metre_temperature_falls_with_height_and_towards_the_pole():
    surface = Surface(np.linspace(0, 1000, N * N).reshape(N, N), SPACING)
    background = np.linspace(5, -5, N)[:, None]
    temperature = surface.two_metre_temperature(background)
    np.testing.assert_allclose(temperature, 283 + 1.5 * background - 6.5e-3 * surface.orography)


# Wind at 10 m


def test_wind_at_ten_metres_is_slower_and_turned_to_the_left():
    land = np.array([[True, False]])
    u, v = ten_metre_wind(np.full((1, 2), 10.0), np.zeros((1, 2)), land)
    np.testing.assert_allclose(np.hypot(u, v), [[5.5, 7.8]])
    np.testing.assert_allclose(np.degrees(np.arctan2(v, u)), [[28.0, 12.0]])
    assert ten_metre_wind(np.ones((1, 2), np.float32), np.ones((1, 2), np.float32), land)[0].dtype == np.float32
