"""What one would take instead of a generative model."""

import numpy as np
import pytest

from downscaling.corrdiff.baselines import LAPSE_RATE, analog_members, interpolated, lapse_rate_corrected
from downscaling.corrdiff.interpolation import interpolate


class TestInterpolated:
    @pytest.mark.parametrize("method", ["linear", "cubic"])
    def test_the_input_itself(self, method):
        fields = np.random.default_rng(0).normal(280, 5, (3, 4, 6)).astype(np.float32)
        np.testing.assert_array_equal(interpolated(fields, 8, method), interpolate(fields, 8, method))


class TestLapseRate:
    def test_by_hand(self):
        # a hill of 800 m on one of 4 x 4 points of the first of 2 x 2 cells: its mean is 50 m
        height = np.zeros((1, 8, 8), np.float32)
        height[0, 1, 2] = 800
        found = lapse_rate_corrected(np.full((1, 2, 2), 290, np.float32), height, 4)
        assert found.shape == (1, 8, 8)
        assert found.dtype == np.float32
        # coordinates of the point are -1/8 and 1/8: the interpolated height is 50 m (1 + 1/8) (1 - 1/8)
        known = 50 * (9 / 8) * (7 / 8)
        assert found[0, 1, 2] == pytest.approx(290 - 6.5e-3 * (800 - known), abs=1e-4)
        # in the opposite corner, at 11/8 and 11/8, it is 50 m (3/8)**2, and the ground is at 0
        assert found[0, 7, 7] == pytest.approx(290 + 6.5e-3 * 50 * (3 / 8) ** 2, abs=1e-4)
        assert pytest.approx(0.0065) == LAPSE_RATE

    def test_a_plane_slope_is_known_to_the_coarse_grid(self):
        rows, columns = np.meshgrid(np.arange(16.0), np.arange(24.0), indexing="ij")
        temperature = np.random.default_rng(0).normal(285, 3, (2, 4, 6)).astype(np.float32)
        height = np.stack([100 + 7 * rows - 3 * columns, np.full((16, 24), 1500.0)]).astype(np.float32)
        found = lapse_rate_corrected(temperature, height, 4)
        np.testing.assert_allclose(found, interpolate(temperature, 4, "linear"), atol=1e-4)

    def test_on_the_fine_grid_there_is_nothing_to_correct(self):
        temperature = np.random.default_rng(0).normal(285, 3, (2, 4, 6)).astype(np.float32)
        np.testing.assert_array_equal(lapse_rate_corrected(temperature, 100 * temperature, 1), temperature)


class TestAnalogs:
    MEAN = np.arange(3, dtype=np.float32)[:, None, None, None] + np.zeros((3, 2, 4, 5), np.float32)
    # whole numbers, each of another member of the bank
    BANK = 100 * np.arange(1, 11, dtype=np.float32)[:, None, None, None] + np.zeros((10, 2, 4, 5), np.float32)
    CASES = (7, 40, 41)

    def draws(self, members: int = 6, **changes: object) -> np.ndarray:
        """Numbers in the bank, (pair, member)."""
        settings = {"mean": self.MEAN, "residuals": self.BANK, "cases": self.CASES} | changes
        found = analog_members(members=members, **settings)
        assert found.shape == (len(settings["mean"]), members, 2, 4, 5)
        assert found.dtype == np.float32
        residuals = found - settings["mean"][:, None]
        # a member is one residual, as a whole
        assert (residuals == residuals[:, :, :1, :1, :1]).all()
        return residuals[:, :, 0, 0, 0] / 100 - 1

    def test_members_are_drawn_from_the_bank_without_repeats(self):
        numbers = self.draws()
        assert set(numbers.ravel()) <= set(range(10))
        assert all(len(set(row)) == 6 for row in numbers)
        assert all(set(row) == set(range(10)) for row in self.draws(10))

    def test_a_small_bank_is_drawn_from_again(self):
        numbers = self.draws(25, residuals=self.BANK[:2])
        assert set(numbers.ravel()) == {0, 1}

    def test_draws_follow_from_seed_and_pair(self):
        numbers = self.draws()
        np.testing.assert_array_equal(self.draws(), numbers)
        assert (numbers[0] != numbers[1]).any()
        assert (self.draws(seed=1) != numbers).any()
        # whatever else is drawn for
        np.testing.assert_array_equal(self.draws(mean=self.MEAN[1:2], cases=(40,))[0], numbers[1])

    def test_all_of_the_bank_are_as_likely(self):
        n = 2000
        mean = np.zeros((n, 2, 4, 5), np.float32)
        counts = np.bincount(self.draws(1, mean=mean, cases=range(n)).ravel().astype(int), minlength=10)
        assert (np.abs(counts - 200) < 5 * np.sqrt(200)).all()
