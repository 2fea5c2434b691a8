"""Terrain of the demo, and the periodic square that it lies on."""

import numpy as np
import pytest

from downscaling.corrdiff.periodic import block_constant, block_mean, gradient, random_phases, smooth, wave_indices
from downscaling.corrdiff.terrain import make_terrain, power_law_field


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# Periodic square


def test_smoothing_damps_a_wave_as_a_gaussian_does():
    angle = 2 * np.pi * np.arange(64) / 64
    wave = np.cos(3 * angle)[:, None] + np.sin(5 * angle)[None]
    expected = 7 + (
        np.exp(-0.5 * (4 * 2 * np.pi * 3 / 64) ** 2) * np.cos(3 * angle)[:, None]
        + np.exp(-0.5 * (4 * 2 * np.pi * 5 / 64) ** 2) * np.sin(5 * angle)[None]
    )
    np.testing.assert_allclose(smooth(7 + wave, 4.0), expected, atol=1e-12)
    assert smooth(wave.astype(np.float32), 4.0).dtype == np.float32


def test_gradients_point_to_the_east_and_north():
    height = np.zeros((8, 8))
    height[3, 4] = 6.0
    east, north = gradient(height, 3.0)
    assert (east[3, 3], east[3, 5], north[2, 4], north[4, 4]) == (1.0, -1.0, 1.0, -1.0)
    assert np.count_nonzero(east) == np.count_nonzero(north) == 2
    # over the seam
    height = np.zeros((8, 8))
    height[:, 0] = 6.0
    assert gradient(height, 3.0)[0][0].tolist() == [0, -1, 0, 0, 0, 0, 0, 1]


def test_cells():
    field = np.arange(16.0).reshape(4, 4)
    assert block_mean(field, 2).tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert block_constant(block_mean(field, 2), 2)[1].tolist() == [2.5, 2.5, 4.5, 4.5]
    np.testing.assert_array_equal(block_mean(block_constant(field, 8), 8), field)


def test_random_phases_are_those_of_a_real_field(rng):
    phases = random_phases(32, rng)
    np.testing.assert_allclose(np.abs(phases), 1)
    np.testing.assert_allclose(np.fft.rfft2(np.fft.irfft2(phases)), phases, atol=1e-12)
    angles = np.angle(phases[:, 1:-1]).ravel()
    assert np.histogram(angles, 4, (-np.pi, np.pi))[0] / angles.size == pytest.approx(0.25, abs=0.06)


# Terrain


@pytest.mark.parametrize(("slope", "first"), [(3.2, 2.0), (2.4, 6.0)])
def test_random_fields_have_the_amplitudes(rng, slope, first):
    field = power_law_field(64, slope, first, rng)
    assert (field.mean(), field.std()) == pytest.approx((0, 1), abs=1e-12)
    amplitude = np.abs(np.fft.rfft2(field))
    along_y, along_x = wave_indices(64)
    for wave in [(0, 1), (5, 0), (-9, 12), (30, 30)]:
        k2 = along_y[wave[0], 0] ** 2 + along_x[0, wave[1]] ** 2
        expected = ((first**2 + k2) / (first**2 + 4)) ** (-(slope + 1) / 4)
        assert amplitude[wave] / amplitude[2, 0] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_land_and_height(seed):
    terrain = make_terrain(256, np.random.default_rng(seed))
    assert terrain.height.dtype == terrain.land.dtype == np.float32
    assert set(np.unique(terrain.land)) == {0, 1}
    assert 0.53 < terrain.land.mean() < 0.66
    assert (terrain.height[terrain.land == 0] == 0).all()
    assert (terrain.height[terrain.land == 1] > 0).all()
    # 600 m times 3 times 1.45 at the very most
    assert 1800 < terrain.height.max() < 2610
    slope = np.hypot(*gradient(terrain.height, 3000.0))
    assert 0.1 < np.quantile(slope, 0.99) < 0.25


def test_coasts_are_low_and_ridges_rise_above_their_surroundings(rng):
    terrain = make_terrain(256, rng)
    coast = (terrain.land == 1) & (smooth(terrain.land, 1.0) < 0.6)
    assert terrain.height[coast].mean() < 0.25 * terrain.height[terrain.land == 1].mean()
    above = (terrain.height - smooth(terrain.height, 8.0))[terrain.land == 1]
    assert above.std() > 100


def test_seeds_make_terrains():
    first, same, other = (make_terrain(64, np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.height, same.height)
    assert (first.height != other.height).any()
