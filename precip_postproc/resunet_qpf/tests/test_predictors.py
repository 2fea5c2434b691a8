"""Fields that a network sees: neighbourhoods, terrain and coarse predictors on the fine grid."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.demo_files import TERRAIN
from precip_postproc.resunet_qpf.predictors import (
    CoarseToFine,
    Neighbourhoods,
    channel_names,
    grid_direction,
    terrain_fields,
)
from precip_postproc.resunet_qpf.readers import CurvilinearGrid, LatLonGrid, read_terrain
from precip_postproc.resunet_qpf.tests.grib_files import HRRR, lambert_grid

COARSE = LatLonGrid(np.arange(36.0, 43.0, 0.25), np.arange(-103.0, -96.0, 0.25))


def direct(field: np.ndarray, sigma: float) -> np.ndarray:
    return gaussian_filter(field, sigma, mode="reflect", truncate=8)


class TestNeighbourhoods:
    @pytest.fixture
    def forecast(self) -> np.ndarray:
        rng = np.random.default_rng(0)
        return np.maximum(rng.gamma(0.4, 2.0, (40, 50)) - 0.5, 0).astype(np.float32)

    def test_fields_are_directly_smoothed_amounts_and_events(self, forecast):
        around = Neighbourhoods(smoothed=[1.5, 4.0], fractions=[3.0])
        forecast[3, 4] = np.float32(0.25) - np.float32(5e-5)  # 0.25 mm but for the guard
        smoothed, fractions = around.look_around(forecast)
        assert smoothed.shape == (2, 40, 50)
        assert fractions.shape == (1, 40, 50)
        assert smoothed.dtype == fractions.dtype == np.float32
        wet = (forecast >= 0.2499).astype(np.float64)
        assert wet[3, 4] == 1
        np.testing.assert_allclose(smoothed[0], direct(forecast, 1.5), atol=2e-5)
        np.testing.assert_allclose(smoothed[1], direct(forecast, 4.0), atol=2e-5)
        np.testing.assert_allclose(fractions[0], direct(wet, 3.0), atol=2e-6)

    def test_gaps_are_left_out_of_the_weighted_mean(self, forecast):
        forecast[10:14, 20:26] = np.nan
        smoothed, fractions = Neighbourhoods(smoothed=[2.0], fractions=[3.0]).look_around(forecast)
        known = np.isfinite(forecast).astype(np.float64)
        amount = np.nan_to_num(forecast).astype(np.float64)
        wet = (amount >= 0.2499) * known
        np.testing.assert_allclose(smoothed[0], direct(amount, 2.0) / direct(known, 2.0), rtol=2e-4, atol=1e-5)
        np.testing.assert_allclose(fractions[0], direct(wet, 3.0) / direct(known, 3.0), rtol=2e-4, atol=1e-5)
        assert fractions.max() <= 1

    def test_names_have_the_lengths(self):
        around = Neighbourhoods()
        assert around.smoothed_names == ["smoothed_3", "smoothed_9", "smoothed_24"]
        assert around.fraction_names == ["fraction_6", "fraction_18"]
        assert Neighbourhoods(smoothed=[2.5]).smoothed_names == ["smoothed_2.5"]
        assert channel_names(Neighbourhoods([2.0], []), ["pwat", "u"]) == [
            "precipitation", "smoothed_2", "terrain_height", "terrain_difference", "slope_x", "slope_y", "pwat", "u",
        ]  # fmt: skip

    def test_no_neighbourhood_at_all(self, forecast):
        smoothed, fractions = Neighbourhoods([], []).look_around(forecast)
        assert smoothed.shape == fractions.shape == (0, 40, 50)

    @pytest.mark.parametrize("sigmas", [[0.0], [3.0, -1.0], [3.0, 3.0]])
    def test_lengths_that_make_no_sense(self, sigmas):
        with pytest.raises(InputError, match=r"data\.neighbourhoods\.fractions must be different positive numbers"):
            Neighbourhoods(fractions=sigmas)


class TestTerrain:
    def test_the_smoothed_slopes_are_taken(self, demo_raw, demo_grid):
        terrain = read_terrain(demo_raw / TERRAIN, demo_grid)
        fields = terrain_fields(terrain)
        assert list(fields) == ["terrain_height", "terrain_difference", "slope_x", "slope_y"]
        smoothed = terrain.fields["terrain_height_smoothed"].astype(np.float64)
        inner = (slice(1, -1), slice(1, -1))
        np.testing.assert_allclose(fields["slope_x"][inner], np.gradient(smoothed, 8000, axis=1)[inner], atol=1e-6)
        np.testing.assert_allclose(fields["slope_y"][inner], np.gradient(smoothed, 8000, axis=0)[inner], atol=1e-6)
        np.testing.assert_allclose(fields["terrain_difference"], fields["terrain_height"] - smoothed, atol=1e-3)


class TestCoarseToFine:
    def test_linear_fields_stay_exact(self):
        grid = lambert_grid()
        latitude, longitude = COARSE.latitude, COARSE.longitude
        fields = np.stack([2 * latitude - 3 * longitude, 0.5 * latitude * longitude]).astype(np.float32)
        fine = CoarseToFine(COARSE, grid, ["pwat", "r"])(fields)
        assert fine.shape == (2, *grid.shape)
        assert fine.dtype == np.float32
        np.testing.assert_allclose(fine[0], 2 * grid.latitude - 3 * grid.longitude, rtol=1e-5)
        # bilinear: the product of latitude and longitude is exact as well
        np.testing.assert_allclose(fine[1], 0.5 * grid.latitude * grid.longitude, rtol=1e-5)

    def test_a_part_equals_the_cut_of_the_whole(self):
        fields = np.random.default_rng(0).standard_normal((3, *COARSE.shape)).astype(np.float32)
        interpolate = CoarseToFine(COARSE, lambert_grid(), ["u", "r", "v"])
        part = (slice(3, 9), slice(5, 14))
        np.testing.assert_array_equal(interpolate(fields, part), interpolate(fields)[:, *part])

    def test_points_on_the_border_of_the_source(self):
        grid = CurvilinearGrid(*np.meshgrid([36.0, 42.75], [-103.0, -96.25], indexing="ij"))
        fields = COARSE.latitude[None].astype(np.float32)
        np.testing.assert_allclose(CoarseToFine(COARSE, grid, ["pwat"])(fields)[0], grid.latitude)

    def test_longitudes_of_both_conventions(self):
        grid, east = lambert_grid(), LatLonGrid(COARSE.latitudes, COARSE.longitudes + 360)
        fields = COARSE.longitude[None].astype(np.float32)
        np.testing.assert_allclose(CoarseToFine(east, grid, ["r"])(fields)[0], grid.longitude, rtol=1e-6)

    def test_a_source_that_is_too_small_is_named(self):
        with pytest.raises(InputError, match=r"cover latitudes 36 to 38\.75, the forecast needs 39\.00 to 39\.4"):
            CoarseToFine(COARSE.crop((slice(0, 12), slice(None))), lambert_grid(), ["r"])

    def test_a_wind_along_the_rows_has_no_component_across(self):
        grid = lambert_grid(30, 40, spacing=30_000.0)
        source = LatLonGrid(np.arange(36.0, 54.0, 0.25), np.arange(-103.0, -70.0, 0.25))
        angle = -HRRR.cone * np.radians(source.longitude - HRRR.longitude)
        fields = np.stack([12 * np.cos(angle), 12 * np.sin(angle), 5 * np.cos(angle), 5 * np.sin(angle)])
        fine = CoarseToFine(source, grid, ["u", "v", "u10", "v10"])(fields.astype(np.float32))
        np.testing.assert_allclose(fine[0], 12, atol=2e-3)
        np.testing.assert_allclose(fine[1], 0, atol=5e-2)
        np.testing.assert_allclose(fine[2], 5, atol=2e-3)
        np.testing.assert_allclose(fine[3], 0, atol=2e-2)
        # across the rows: to the north of the grid
        across = CoarseToFine(source, grid, ["u", "v"])(
            np.stack([-7 * np.sin(angle), 7 * np.cos(angle)]).astype(np.float32)
        )
        np.testing.assert_allclose(across[0], 0, atol=5e-2)
        np.testing.assert_allclose(across[1], 7, atol=2e-3)

    def test_the_speed_is_kept(self):
        fields = np.empty((2, *COARSE.shape), np.float32)
        fields[0], fields[1] = 3, -4
        fine = CoarseToFine(COARSE, lambert_grid(), ["u", "v"])(fields)
        np.testing.assert_allclose(np.hypot(*fine), 5, rtol=1e-6)

    def test_a_component_alone_stays_as_it_is(self):
        fields = np.full((1, *COARSE.shape), 3, np.float32)
        np.testing.assert_allclose(CoarseToFine(COARSE, lambert_grid(), ["u"])(fields), 3, rtol=1e-6)


class TestDirection:
    def test_rows_turn_with_the_convergence_of_the_meridians(self):
        grid = lambert_grid(20, 30, spacing=40_000.0)
        expected = -np.sin(np.radians(38.5)) * np.radians(grid.longitude + 97.5)
        found = grid_direction(grid)
        inner = (slice(None), slice(1, -1))  # one-sided differences at the ends
        np.testing.assert_allclose(found[inner], expected[inner], atol=1e-4)
        np.testing.assert_allclose(found, expected, atol=5e-3)

    def test_rows_along_parallels_do_not_turn(self):
        latitude, longitude = np.meshgrid(np.arange(5.0) + 40, np.arange(177.0, 184.0), indexing="ij")
        np.testing.assert_allclose(grid_direction(CurvilinearGrid(latitude, longitude)), 0, atol=1e-7)
