"""Gaussian smoothing by cosines."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.smoothing import gaussian_smooth, smooth_known

SIGMAS = (0.0, 0.3, 1.0, 2.5, 8.0, 40.0)


@pytest.fixture
def fields() -> np.ndarray:
    """Events, sparse and at the border as well."""
    return (np.random.default_rng(0).random((2, 3, 37, 50)) > 0.8).astype(np.float32)


def test_smoothing_is_scipys(fields):
    result = gaussian_smooth(fields, SIGMAS)
    assert result.shape == (6, 2, 3, 37, 50)
    assert result.dtype == np.float32
    for own, sigma in zip(result, SIGMAS, strict=True):
        expected = gaussian_filter(fields.astype(float), sigma, axes=(-2, -1), mode="reflect", truncate=8)
        np.testing.assert_allclose(own, expected, atol=2e-6)
        # with the usual truncation at four standard deviations
        usual = gaussian_filter(fields.astype(float), sigma, axes=(-2, -1))
        np.testing.assert_allclose(own, usual, atol=1e-3)


def test_smoothing_longer_than_the_domain_gives_the_mean(fields):
    mean = np.broadcast_to(fields.mean(axis=(-2, -1), keepdims=True), fields.shape)
    np.testing.assert_allclose(gaussian_smooth(fields, [500.0])[0], mean, atol=1e-6)


def test_constants_means_and_ranges_are_kept(fields):
    constant = np.full((20, 30), 0.3, np.float32)
    assert (gaussian_smooth(constant, SIGMAS) == constant).all()
    result = gaussian_smooth(fields, SIGMAS)
    mean = fields.mean(axis=(-2, -1), dtype=float)
    np.testing.assert_allclose(result.mean(axis=(-2, -1), dtype=float), np.broadcast_to(mean, (6, 2, 3)), rtol=1e-6)
    assert result.min() >= 0
    assert result.max() <= 1


def test_gaps_have_no_influence(fields):
    field = fields[0, 0].copy()
    field[5:15, 10:30] = np.nan
    result = smooth_known(field, [1.0, 3.0])
    known = np.isfinite(field)
    for own, sigma in zip(result, (1.0, 3.0), strict=True):
        sums, coverage = (gaussian_filter(x, sigma, truncate=8) for x in (np.where(known, field, 0.0), 1.0 * known))
        np.testing.assert_allclose(own[known], (sums / coverage)[known], atol=1e-5)
    # far from everything that is known
    assert np.isnan(result[0, 10, 20])
    np.testing.assert_allclose(smooth_known(np.where(known, np.float32(0.7), np.nan), [9.0]), 0.7, rtol=1e-5)
    # without gaps, nothing changes
    np.testing.assert_allclose(smooth_known(fields, [2.0]), gaussian_smooth(fields, [2.0]), atol=1e-6)


def test_what_cannot_be_smoothed_is_refused(fields):
    with pytest.raises(InputError, match="standard deviation of -1"):
        gaussian_smooth(fields, [1.0, -1.0])
    with pytest.raises(InputError, match="standard deviation of nan"):
        gaussian_smooth(fields, [np.nan])
    for bad in (np.nan, np.inf):
        fields[1, 2, 3, 4] = bad
        with pytest.raises(InputError, match="missing or infinite values: use smooth_known"):
            gaussian_smooth(fields, [1.0])
