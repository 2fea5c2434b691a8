"""The linear model of orographic precipitation against its analytic properties."""

import numpy as np
import pytest

from precip_postproc.resunet_qpf.orographic import MoistFlow, orographic_precipitation, transfer_function
from precip_postproc.resunet_qpf.periodic import PeriodicGrid
from precip_postproc.resunet_qpf.terrain import make_height

GRID = PeriodicGrid(n=128, spacing=8.0, first=0, ny=64, nx=80)
HEIGHT = make_height(GRID, np.random.default_rng(0))


def cosine(wave_x: int, wave_y: int, height: float = 500.0) -> np.ndarray:
    position = 2 * np.pi * np.arange(GRID.n) / GRID.n
    return height * np.cos(wave_x * position[None] + wave_y * position[:, None])


# (a)


@pytest.mark.parametrize("wind", [(10.0, 3.0), (-4.0, 7.0), (8.0, 0.0)])
def test_without_delay_and_depth_it_is_the_upslope_model(wind):
    u, v = wind
    flow = MoistFlow(water_vapour_height=0.0, conversion_time=0.0, fallout_time=0.0)
    height = cosine(5, 0) + cosine(0, 3) + cosine(2, -7)
    position = 2 * np.pi * np.arange(GRID.n) / GRID.n
    per_metre = 2 * np.pi / (GRID.length * 1000)
    oblique = np.sin(2 * position[None] - 7 * position[:, None])
    slope_x = -500 * per_metre * (5 * np.sin(5 * position)[None] + 2 * oblique)
    slope_y = -500 * per_metre * (3 * np.sin(3 * position)[:, None] - 7 * oblique)
    expected = 3600 * 0.004 * (u * slope_x + v * slope_y)
    np.testing.assert_allclose(orographic_precipitation(GRID, height, u, v, flow), expected, atol=1e-11)


# (b)


@pytest.mark.parametrize("wind", [(10.0, 3.0), (-30.0, 0.0), (0.0, 5.0)])
def test_mean_over_the_domain_is_zero(wind):
    rain = orographic_precipitation(GRID, HEIGHT, *wind)
    assert rain.shape == HEIGHT.shape
    assert rain.dtype == np.float64
    assert abs(rain.mean()) < 1e-13 * np.abs(rain).max()


# (c)


def test_linear_in_the_terrain_and_nothing_without_wind():
    rain = orographic_precipitation(GRID, HEIGHT, 10.0, 3.0)
    np.testing.assert_allclose(orographic_precipitation(GRID, 2 * HEIGHT, 10.0, 3.0), 2 * rain, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(orographic_precipitation(GRID, HEIGHT, 0.0, 0.0), 0)
    np.testing.assert_allclose(orographic_precipitation(GRID, 0 * HEIGHT + 700, 10.0, 3.0), 0, atol=1e-12)


# (d)


@pytest.mark.parametrize(("wave", "wind"), [(8, 10.0), (3, 25.0), (20, -12.0)])
def test_amplitude_and_phase_over_a_propagating_wave(wave, wind):
    k = 2 * np.pi * wave / (GRID.length * 1000)
    sigma = wind * k
    assert abs(sigma) < 0.005
    m = np.sign(sigma) * np.sqrt((0.005**2 - sigma**2) / sigma**2) * k
    amplitude = 3600 * 0.004 * abs(sigma) * 500 / (np.sqrt(1 + (m * 2500) ** 2) * (1 + (sigma * 1000) ** 2))
    rain = orographic_precipitation(GRID, cosine(wave, 0), wind, 0.0)
    spectrum = GRID.to_spectrum(rain)
    assert 2 * np.abs(spectrum[0, wave]) == pytest.approx(amplitude, rel=1e-12)
    # i σ leads by a quarter wave; the tilt moves precipitation upwind, the delays move it downwind
    phase = np.sign(sigma) * np.pi / 2 + np.arctan(m * 2500) - 2 * np.arctan(sigma * 1000)
    assert np.angle(spectrum[0, wave]) == pytest.approx(phase, abs=1e-12)
    np.testing.assert_allclose(rain, np.tile(rain[0], (GRID.n, 1)), atol=1e-12)


def test_amplitude_over_a_wave_that_decays_with_height():
    k, wind = 2 * np.pi * 40 / (GRID.length * 1000), 25.0
    sigma = wind * k
    assert sigma > 0.005
    decay = np.sqrt((sigma**2 - 0.005**2) / sigma**2) * k
    expected = 3600 * 0.004 * 1j * sigma / (1 + decay * 2500) / (1 + 1j * sigma * 1000) ** 2
    assert transfer_function(GRID, wind, 0.0)[0, 40] == pytest.approx(expected, rel=1e-12)


# (e)


def test_reversed_wind_over_mirrored_terrain_mirrors_precipitation():
    def mirror(field: np.ndarray, *axes: int) -> np.ndarray:
        return np.roll(np.flip(field, axes), 1, axes)

    rain = orographic_precipitation(GRID, HEIGHT, 10.0, 3.0)
    for axes, wind in (((0, 1), (-10.0, -3.0)), ((1,), (-10.0, 3.0)), ((0,), (10.0, -3.0))):
        other = orographic_precipitation(GRID, mirror(HEIGHT, *axes), *wind)
        np.testing.assert_allclose(other, mirror(rain, *axes), atol=1e-11)


# Limits


def test_vanishing_frequency_is_the_limit_of_a_small_one():
    # waves along the wind's normal have no lifting, whatever their length
    still = transfer_function(GRID, 10.0, 0.0)
    assert (still[:, 0] == 0).all()
    assert np.isfinite(still).all()
    turned = transfer_function(GRID, 10.0, 1e-9)
    np.testing.assert_allclose(turned, still, atol=1e-9 * np.abs(still).max())
    diagonal = transfer_function(GRID, 5.0, 5.0)
    np.testing.assert_allclose(np.abs(diagonal[-np.arange(1, 60), np.arange(1, 60)]), 0, atol=1e-12)
    # continuous where waves cease to propagate
    at = 0.005 / (2 * np.pi * 40 / (GRID.length * 1000))
    below, above = (transfer_function(GRID, at * factor, 0.0)[0, 40] for factor in (1 - 1e-9, 1 + 1e-9))
    assert below == pytest.approx(above, rel=1e-4)


def test_rain_falls_on_the_windward_side():
    ridge = np.tile(1000 * np.exp(-0.5 * ((8.0 * np.arange(GRID.n) - 512) / 40) ** 2), (GRID.n, 1))
    rain = orographic_precipitation(GRID, ridge, 10.0, 0.0)[0]
    assert 512 - 90 < 8 * rain.argmax() < 512
    assert 512 < 8 * rain.argmin() < 512 + 90
    assert 0.5 < rain.max() < 3
