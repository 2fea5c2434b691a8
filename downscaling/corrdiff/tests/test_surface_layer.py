"""The surface layer against limits computed by hand."""

import numpy as np
import pytest

from downscaling.corrdiff.coarse_driver import CoarseDriver
from downscaling.corrdiff.periodic import block_constant, block_mean, gradient, smooth
from downscaling.corrdiff.surface_layer import SurfaceFields, SurfaceLayer
from downscaling.corrdiff.terrain import Terrain, make_terrain

N = 32
SPACING = 3000.0
EVENING = 21.0  # neither heating nor cooling
FLAT = np.zeros((N, N))


def observe(height: np.ndarray, land: np.ndarray | float, hour: float = EVENING, **flow: object) -> SurfaceFields:
    """The surface layer under some flow; what is not given is zero."""
    defaults = {"u": FLAT, "v": FLAT, "temperature": FLAT, "lift": FLAT, "moisture": FLAT}
    fields = {name: value + FLAT for name, value in (defaults | flow).items()}
    return SurfaceLayer(height, land + FLAT, SPACING)(**fields, hour=hour)


def wave(length: int = N, size: float = 1.0) -> np.ndarray:
    """A ridge from north to south and a valley beside it."""
    return size * (1 + np.sin(2 * np.pi * np.arange(N) / length)) + FLAT


# Wind


@pytest.mark.parametrize(("land", "angle", "scale"), [(1.0, 25.0, 0.62), (0.0, 12.0, 0.85)])
def test_over_flat_ground_friction_slows_and_turns_to_the_left(land, angle, scale):
    found = observe(FLAT, land, u=10.0)
    np.testing.assert_allclose(found.u, 10 * scale * np.cos(np.radians(angle)))
    np.testing.assert_allclose(found.v, 10 * scale * np.sin(np.radians(angle)))
    south = observe(FLAT, land, v=-10.0)
    np.testing.assert_allclose(south.u, found.v)
    np.testing.assert_allclose(south.v, -found.u)


def test_a_summit_speeds_the_wind_up_and_a_hollow_slows_it():
    height = FLAT.copy()
    height[8, 8], height[24, 24] = 3000.0, -3000.0
    above = height - smooth(height, 8.0)
    found = observe(height, 1.0, u=10.0, v=5.0)
    speed = np.hypot(found.u, found.v) / np.hypot(10, 5) / 0.62
    # there the gradient is zero, and so is everything else
    assert speed[8, 8] == pytest.approx(1 + 0.8 * np.tanh(above[8, 8] / 300), rel=1e-9) == pytest.approx(1.8, abs=1e-3)
    assert speed[24, 24] == pytest.approx(0.3)  # not 1 - 0.8
    assert speed[8, 24] == pytest.approx(1 + 0.8 * np.tanh(above[8, 24] / 300))


def test_steep_slopes_stop_most_of_the_wind_across_them_and_none_along():
    # steep everywhere but at ridge and valley
    height = wave(size=5000.0)
    steep = np.abs(gradient(height, SPACING)[0]) > 0.12
    assert steep.any()
    # turned by 25 degrees, these winds blow across and along
    angle = np.radians(25)
    exposure = np.clip(1 + 0.8 * np.tanh((height - smooth(height, 8.0)) / 300), 0.3, 1.8)
    across = observe(height, 1.0, u=10 * np.cos(angle), v=-10 * np.sin(angle))
    np.testing.assert_allclose(across.u[steep], (0.3 * 6.2 * exposure)[steep], rtol=1e-3)
    np.testing.assert_allclose(across.v, 0, atol=1e-12)
    along = observe(height, 1.0, u=10 * np.sin(angle), v=10 * np.cos(angle))
    np.testing.assert_allclose(along.u, 0, atol=1e-12)
    np.testing.assert_allclose(along.v, 6.2 * exposure)


def test_blocking_grows_with_the_fourth_power_of_a_gentle_slope():
    height = wave(size=20.0)
    slope = gradient(height, SPACING)[0]
    angle = np.radians(25)
    flow = {"u": 10 * np.cos(angle), "v": -10 * np.sin(angle)}
    free = 6.2 * (1 + 0.8 * np.tanh((height - smooth(height, 8.0)) / 300))
    expected = free * (1 - 0.7 * np.tanh((slope / 0.04) ** 2))
    np.testing.assert_allclose(observe(height, 1.0, **flow).u, expected)


def test_wind_blows_up_the_slopes_by_day_and_down_by_night():
    height = wave(size=2000.0)
    slope = gradient(height, SPACING)[0]
    expected = 3 * np.tanh(np.abs(slope) / 0.03) * np.sign(np.round(slope, 12))
    np.testing.assert_allclose(observe(height, 1.0, hour=15.0).u, expected, atol=1e-9)
    np.testing.assert_allclose(observe(height, 1.0, hour=3.0).u, -expected, atol=1e-9)
    np.testing.assert_allclose(observe(height, 1.0, hour=15.0).v, 0, atol=1e-12)
    np.testing.assert_allclose(observe(height, 1.0).u, 0, atol=1e-9)


def test_the_sea_breeze_blows_onto_the_land():
    land = np.where(np.arange(N) < N // 2, 1.0, 0.0)[:, None] + FLAT  # in the south
    day = observe(FLAT, land, hour=15.0)
    np.testing.assert_allclose(day.v, 4 * 24e3 * gradient(smooth(land, 4.0), SPACING)[1])
    # 24 km times the slope of a step smoothed over 12 km, which is 1 / (12 km sqrt(2 pi))
    assert day.v[N // 2 - 1, 0] == pytest.approx(-4 * 2 / np.sqrt(2 * np.pi), rel=0.05)
    assert day.v[0, 0] > 0  # the square is periodic
    np.testing.assert_allclose(observe(FLAT, land, hour=3.0).v, -day.v)
    np.testing.assert_allclose(day.u, 0, atol=1e-12)


# Temperature


def test_temperature_falls_with_height_and_swings_more_over_land():
    height = wave(size=1000.0)
    found = observe(height, 1.0, temperature=1.5)
    np.testing.assert_allclose(found.temperature, 289.5 - 0.0065 * height)
    assert np.ptp(found.temperature) / np.ptp(height) == pytest.approx(6.5e-3)
    for land, swing in ((1.0, 5.0), (0.0, 1.0)):
        noon, night = (observe(FLAT, land, hour=hour).temperature for hour in (15.0, 3.0))
        np.testing.assert_allclose(noon, 288 + swing)
        np.testing.assert_allclose(night, 288 - swing)


# Precipitation


def test_dry_air_gives_no_rain():
    assert not observe(wave(size=2000.0), 1.0, u=20.0, lift=1.0).precipitation.any()


def test_rain_falls_where_the_flow_rises_enough():
    assert observe(FLAT, 0.0, lift=0.06, moisture=1.5).precipitation == pytest.approx(36 * 1.5 * 0.06 - 1)
    assert not observe(FLAT, 0.0, lift=1 / 36, moisture=1.0).precipitation.any()
    assert not observe(FLAT, 0.0, lift=-1.0, moisture=1.0).precipitation.any()


def test_the_flow_aloft_rises_over_the_slopes():
    height = wave(size=2000.0)
    slope = gradient(height, SPACING)[0]
    found = observe(height, 1.0, u=10.0, v=30.0, moisture=1.0).precipitation
    np.testing.assert_allclose(found, np.maximum(0, 36 * 0.25 * 10 * slope - 1), atol=1e-12)
    assert (found[slope < 0] == 0).all()
    assert found.max() > 10


# Coarse model


def test_coarse_fields_are_means_over_cells():
    terrain = Terrain(FLAT.astype(np.float32), FLAT.astype(np.float32))
    rng = np.random.default_rng(0)
    u, v, temperature, moisture, psi = rng.standard_normal((5, N, N))
    found = CoarseDriver(terrain, 8, SPACING)(u, v, temperature, moisture, 1e5 * psi, EVENING)
    assert list(found) == ["10u", "10v", "2t", "tcwv", "msl", "u850", "v850", "t850"]
    assert {field.shape for field in found.values()} == {(4, 4)}
    expected = {
        "u850": block_mean(u, 8), "v850": block_mean(v, 8), "t850": 278 + 0.8 * block_mean(temperature, 8),
        "tcwv": 25 * block_mean(moisture, 8), "msl": 101000 + 12 * block_mean(psi, 8),
    }  # fmt: skip
    for name, field in expected.items():
        np.testing.assert_allclose(found[name], field, rtol=1e-12)
    # the surface layer sees the flow smooth
    smoothed = {name: smooth(block_constant(block_mean(x, 8), 8), 4.8) for name, x in (("u", u), ("v", v))}
    low = observe(FLAT, 0.0, **smoothed)
    np.testing.assert_allclose(found["10u"], block_mean(low.u, 8), rtol=1e-6)
    np.testing.assert_allclose(found["10v"], block_mean(low.v, 8), rtol=1e-6)
    np.testing.assert_allclose(
        found["2t"], 288 + block_mean(smooth(block_constant(block_mean(temperature, 8), 8), 4.8), 8), rtol=1e-9
    )


def test_the_coarse_model_sees_the_terrain_smooth():
    terrain = make_terrain(128, np.random.default_rng(0))
    driver = CoarseDriver(terrain, 8, SPACING)
    orography = driver.resolve(terrain.height)
    assert orography.mean() == pytest.approx(terrain.height.mean(), rel=1e-5)
    # nothing below two cells is left
    power = np.abs(np.fft.rfft2(orography)) ** 2
    wave_numbers = np.hypot(128 * np.fft.fftfreq(128)[:, None], 128 * np.fft.rfftfreq(128)[None])
    assert power[wave_numbers > 16].sum() < 1e-3 * power[wave_numbers > 0].sum()
    assert np.hypot(*gradient(orography, SPACING)).max() < 0.6 * np.hypot(*gradient(terrain.height, SPACING)).max()
    zero = np.zeros_like(terrain.height)
    # land where most of a cell is
    land = (block_mean(terrain.land, 8) > 0.5).astype(np.float32)
    assert 0 < land.mean() < 1
    found = driver(zero, zero, zero, zero, zero, hour=15.0)["2t"]
    np.testing.assert_allclose(found, 288 + 1 + 4 * land - 0.0065 * block_mean(orography, 8), atol=1e-4)
