"""Forecast probabilities become how often the event followed."""

import numpy as np
import pytest

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.calibration import BINS, LEAST_CASES, LEAST_EVENTS, Calibration

N = len(BINS) - 1


def sums_of(forecast: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Sums (bin, 3) of forecasts (n,) that are followed by the event with these chances, without noise."""
    place = np.minimum(np.searchsorted(BINS, forecast, side="right") - 1, N - 1)
    return np.stack([np.bincount(place, weights, minlength=N) for weights in (None, forecast, chance)], axis=-1)


def fit_sums(sums: np.ndarray, leads: list[int] | None = None) -> Calibration:
    """Calibration of sums (lead, edge, bin, 3) of just as many forecasts with the event as are needed."""
    return Calibration.fit(leads or [6], sums, np.full(sums.shape[:2], LEAST_CASES))


def fit(*curves, n: int = 20_000) -> tuple[Calibration, np.ndarray]:
    """Calibration of one lead time, an edge for each curve."""
    p = np.random.default_rng(0).uniform(0, 1, n) ** 2
    return fit_sums(np.stack([sums_of(p, curve(p)) for curve in curves])[None]), p


def test_bins_are_increasing_and_fine_near_0():
    assert (np.diff(BINS) > 0).all()
    assert (BINS[0], BINS[-1]) == (0, 1)
    assert BINS[1] <= 2e-4


def test_a_known_distortion_is_undone():
    calibration, p = fit(lambda p: 0.8 * p**1.5)
    found = calibration.apply(p[None].astype(np.float32), 6)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], 0.8 * p**1.5, atol=8e-3)
    # a reliable forecast stays
    same, _ = fit(lambda p: p)
    np.testing.assert_allclose(same.apply(p[None], 6)[0], p, atol=6e-3)


def test_it_makes_the_brier_score_of_noisy_events_better_on_its_own_days():
    rng = np.random.default_rng(1)
    p = rng.uniform(0, 1, 5000)
    event = (rng.random(5000) < 0.5 * p).astype(float)
    calibration = fit_sums(sums_of(p, event)[None, None])
    found = calibration.apply(p[None], 6)[0]
    assert ((found - event) ** 2).mean() < ((p - event) ** 2).mean() - 0.02
    assert abs(found.mean() - event.mean()) < 0.01


def test_curves_never_fall_where_observed_rates_do():
    calibration, _ = fit(lambda p: np.where(p < 0.5, 0.4, 0.2))
    assert (np.diff(calibration.observed[0, 0]) >= 0).all()
    assert (np.diff(calibration.forecast[0, 0]) >= 0).all()
    rising = np.linspace(0, 1, 300)[None]
    assert (np.diff(calibration.apply(rising, 6)[0]) >= 0).all()


def test_with_few_events_forecasts_stay_as_they_are():
    p = np.linspace(0, 1, 101)
    few = np.zeros((2, 1, N, 3))
    few[0, 0], few[1, 0] = sums_of(p, (LEAST_EVENTS - 1) / 101 * np.ones(101)), sums_of(p, p * 0.3 + 0.2)
    calibration = fit_sums(few, [6, 24])
    forecast = np.random.default_rng(0).random((1, 50))
    np.testing.assert_allclose(calibration.apply(forecast, 6), forecast, atol=1e-12)
    assert np.abs(calibration.apply(forecast, 24) - forecast).max() > 0.1
    # no forecast at all
    np.testing.assert_allclose(fit_sums(np.zeros((1, 1, N, 3))).apply(forecast, 6), forecast, atol=1e-12)


def test_one_storm_over_many_points_is_too_few_events():
    p = np.linspace(0, 1, 5001)
    sums = np.broadcast_to(sums_of(p, 0.5 * p), (2, 2, N, 3))
    assert sums[0, 0, :, 2].sum() > 10 * LEAST_EVENTS
    enough, few = LEAST_CASES, LEAST_CASES - 1
    calibration = Calibration.fit([6, 24], sums, np.array([[enough, few], [few, enough]]))
    forecast = np.sort(np.random.default_rng(0).random((2, 50)), axis=0)[::-1]
    # by lead time and edge
    for row, calibrated in ((0, 0), (1, 1)):
        for edge in (0, 1):
            found = np.interp(forecast[edge], calibration.forecast[row, edge], calibration.observed[row, edge])
            expected = 0.5 * forecast[edge] if edge == calibrated else forecast[edge]
            np.testing.assert_allclose(found, expected, atol=8e-3 if edge == calibrated else 1e-12)


def test_exceedance_does_not_increase_along_the_edges():
    calibration, _ = fit(lambda p: 0.3 * p, lambda p: 0.9 * p, lambda p: 0.5 * p)
    rng = np.random.default_rng(0)
    forecast = np.sort(rng.random((3, 4, 5)), axis=0)[::-1].astype(np.float32)
    found = calibration.apply(forecast, 6)
    assert found.shape == (3, 4, 5)
    assert (np.diff(found, axis=0) <= 0).all()
    assert ((found >= 0) & (found <= 1)).all()
    np.testing.assert_allclose(found[0], 0.3 * forecast[0], atol=5e-3)


def test_beyond_all_forecasts_a_curve_goes_on_to_certainty():
    p = np.random.default_rng(0).uniform(0, 0.4, 5000)
    calibration = fit_sums(sums_of(p, 0.5 * p)[None, None])
    found = calibration.apply(np.array([[0.2, 0.395, 0.7, 1.0]]), 6)[0]
    np.testing.assert_allclose(found[:2], [0.1, 0.1975], atol=3e-3)
    assert found[2] == pytest.approx(0.1975 + (0.7 - 0.395) / (1 - 0.395) * (1 - 0.1975), abs=5e-3)
    assert found[3] == 1


def test_the_nearest_lead_time_is_taken():
    p = np.random.default_rng(0).random(5000)
    sums = np.stack([sums_of(p, share * p)[None] for share in (0.2, 0.4, 0.8)])
    calibration = fit_sums(sums, [6, 24, 48])
    one = np.array([[0.5]])
    for lead, expected in ((1, 0.1), (6, 0.1), (14, 0.1), (16, 0.2), (35, 0.2), (47, 0.4), (60, 0.4)):
        assert calibration.apply(one, lead)[0, 0] == pytest.approx(expected, abs=5e-3)


def test_missing_probabilities_stay_missing():
    calibration, _ = fit(lambda p: 0.5 * p)
    assert np.isnan(calibration.apply(np.array([[np.nan, 0.5]]), 6)).tolist() == [[True, False]]


def test_another_number_of_edges():
    calibration, _ = fit(lambda p: p, lambda p: p)
    with pytest.raises(InputError, match="the calibration is of 2 edges, the forecast has 3"):
        calibration.apply(np.zeros((3, 4, 5)), 6)
