"""The demo's terrain and what its file holds."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from precip_postproc.resunet_qpf.periodic import PeriodicGrid
from precip_postproc.resunet_qpf.random_fields import Stream, make_rng
from precip_postproc.resunet_qpf.terrain import RANGES, Range, describe_terrain, make_height
from precip_postproc.resunet_qpf.terrain_file import slopes

GRID = PeriodicGrid()


@pytest.fixture(scope="module")
def height() -> np.ndarray:
    return make_height(GRID, make_rng(0, Stream.TERRAIN))


def test_a_range_has_its_place_width_and_angle():
    ridge = Range(1000.0, x=400.0, angle=45.0, width=40.0).on_grid(GRID)
    assert ridge[128, 100] == pytest.approx(1000.0)
    assert ridge[178, 150] == pytest.approx(1000.0)  # clockwise from north
    assert ridge[138, 90] == pytest.approx(1000 * np.exp(-0.5 * (80 / np.sqrt(2) / 40) ** 2))
    assert Range(1.0, x=2.0, angle=0.0, width=20.0).on_grid(GRID)[0, -1] > 0.9  # periodic


def test_terrain_has_two_ranges_and_hills(height):
    assert height.shape == (256, 256)
    assert height.min() >= 0
    assert 1800 < GRID.crop(height).max() < 4500
    assert 0.002 < (height == 0).mean() < 0.15
    # along the middle of the rectangle: the crests are where the ranges are
    rows = 4 * np.arange(48, 176)[:, None] - 512
    for crest, least in zip(RANGES, (700, 1400), strict=True):
        columns = np.rint((crest.x + np.tan(np.radians(crest.angle)) * rows) / 4).astype(int)
        assert height[np.arange(48, 176)[:, None], columns].mean() > least
    assert height[:, 200:].mean() < 250
    np.testing.assert_array_equal(height, make_height(GRID, make_rng(0, Stream.TERRAIN)))
    assert np.abs(height - make_height(GRID, make_rng(1, Stream.TERRAIN))).max() > 300


def test_slopes_use_the_spacing_of_their_own_axis():
    y, x = np.mgrid[0:6, 0:9].astype(float)
    along_rows, along_columns = slopes(3 * x - 8 * y, dx=3000.0, dy=4000.0)
    np.testing.assert_allclose(along_rows, 0.001)
    np.testing.assert_allclose(along_columns, -0.002)
    north_first = slopes((3 * x - 8 * y)[::-1], dx=3000.0, dy=-4000.0)
    np.testing.assert_allclose(north_first[1], -0.002)


def test_all_variables_are_there_and_fit_together(height):
    terrain = describe_terrain(GRID, height)
    fields = terrain._asdict()
    assert [name for name, field in fields.items() if field.shape != (128, 160)] == [
        "terrain_height_smoothed_multisigma",
        "sigmas",
    ]
    assert {field.dtype for field in fields.values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(terrain.sigmas, np.array([15, 20, 25, 30, 40, 50, 60]) * 8 / 15, rtol=1e-6)
    np.testing.assert_array_equal(terrain.terrain_height, GRID.crop(height).astype(np.float32))
    np.testing.assert_array_equal(terrain.terrain_height_smoothed, terrain.terrain_height_smoothed_multisigma[0])
    np.testing.assert_allclose(
        terrain.terrain_height_local_difference, terrain.terrain_height - terrain.terrain_height_smoothed, atol=1e-3
    )
    for suffix, name in (("", ""), ("_smoothed", "_smoothed"), ("_difference", "_local_difference")):
        along_rows, along_columns = slopes(fields[f"terrain_height{name}"].astype(float), 4000.0, 4000.0)
        inner = np.s_[1:-1, 1:-1]
        np.testing.assert_allclose(fields[f"dterrain_dlon{suffix}"][inner], along_rows[inner], atol=1e-6)
        np.testing.assert_allclose(fields[f"dterrain_dlat{suffix}"][inner], along_columns[inner], atol=1e-6)
    assert np.abs(terrain.dterrain_dlon_smoothed).max() < np.abs(terrain.dterrain_dlon).max() < 0.15


def test_smoothing_is_that_of_a_gaussian_in_points(height):
    terrain = describe_terrain(GRID, height)
    for sigma, smoothed in zip(terrain.sigmas, terrain.terrain_height_smoothed_multisigma, strict=True):
        expected = GRID.crop(gaussian_filter(height, sigma, mode="wrap", truncate=6.0))
        np.testing.assert_allclose(smoothed, expected, atol=0.5)


def test_tiny_terrain_has_the_same_size_in_km():
    grid = PeriodicGrid.tiny()
    terrain = describe_terrain(grid, make_height(grid, make_rng(0, Stream.TERRAIN)))
    assert terrain.terrain_height.shape == (64, 80)
    assert terrain.sigmas[0] == pytest.approx(4.0)
    assert 0.005 < np.abs(terrain.dterrain_dlon_smoothed).max() < 0.05
