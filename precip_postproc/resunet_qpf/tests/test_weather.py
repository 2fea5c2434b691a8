"""Truth, forecasts and analyses of the demo."""

from datetime import datetime
from itertools import pairwise

import numpy as np
import pytest

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf import amounts
from precip_postproc.resunet_qpf.amounts import AmountLaw
from precip_postproc.resunet_qpf.latent import LatentFields
from precip_postproc.resunet_qpf.periodic import PeriodicGrid
from precip_postproc.resunet_qpf.radar import Outage
from precip_postproc.resunet_qpf.regime import BLOCK, Regime, RegimeSeries, step_of, time_of
from precip_postproc.resunet_qpf.weather import FORECAST_ERRORS, LEADS, Pair, Weather

TINY = PeriodicGrid.tiny()


def every(days: str, start: str = "2025-10-01", end: str = "2025-12-30") -> np.ndarray:
    step = np.timedelta64(int(days), "D")
    return np.arange(np.datetime64(start, "h"), np.datetime64(end, "h"), step.astype("timedelta64[h]"))


@pytest.fixture(scope="module")
def weather() -> Weather:
    return Weather(TINY, seed=0)


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    """Forecasts of 90 days of each of two years."""
    weather = Weather(TINY, seed=1)
    inits = np.concatenate([every("1", "2024-10-01", "2024-12-30"), every("1") + np.timedelta64(12, "h")])
    return list(weather.pairs(inits))


# Amounts


def test_amounts_and_latents_are_inverse():
    law = AmountLaw(scale=2.4, dry=1.25, power=2.1)
    assert law == amounts.TRUTH
    np.testing.assert_allclose(law.amount(np.array([-1.0, 1.25, 2.25])), [0, 0, 2.4])
    assert law.latent(0.25) == pytest.approx(1.25 + (0.25 / 2.4) ** (1 / 2.1))
    for amount in (0.25, 5.0, 50.0):
        assert law.amount(law.latent(amount)) == pytest.approx(amount)
    # the model drizzles more and has less heavy rain
    latent = np.array([1.2, 1.4, 4.0])
    model, truth = amounts.MODEL.amount(latent), amounts.TRUTH.amount(latent)
    assert (model > truth).tolist() == [True, True, False]


# Regime


def test_regime_has_its_mean_spread_and_memory():
    series = RegimeSeries(0)
    start = 130 * BLOCK
    states = [series[step] for step in range(start, start + 20 * BLOCK)]
    values = np.array([[r.u, r.v, r.wetness, r.moisture] for r in states])
    np.testing.assert_allclose(values.mean(axis=0), [9, 1, 0, 0], atol=0.5)
    np.testing.assert_allclose(values.std(axis=0), [5, 5, 0.35, 1], rtol=0.06)
    for value in values.T:
        assert np.corrcoef(value[6:], value[:-6])[0, 1] == pytest.approx(np.exp(-1), abs=0.06)
    assert np.abs(np.corrcoef(values.T) - np.eye(4)).max() < 0.12
    # across the seams of blocks as well
    steps = np.arange(BLOCK - 1, len(values) - 1, BLOCK)
    jump, other = (np.diff(values, axis=0)[i].std() for i in (steps, slice(None)))
    assert jump == pytest.approx(other, rel=0.3)


def test_convective_fraction_grows_with_moisture():
    dry, mean, moist = (Regime(9.0, 1.0, 0.0, q).convective_fraction for q in (-9.0, 0.0, 9.0))
    assert dry == pytest.approx(0, abs=1e-4)
    assert mean == pytest.approx(0.7 / (1 + np.exp(0.9)))
    assert moist == pytest.approx(0.7, abs=1e-3)


def test_times_are_six_hours_apart(weather):
    assert time_of(step_of(np.datetime64("2025-12-01T18"))) == np.datetime64("2025-12-01T18")
    assert step_of(datetime(2025, 12, 1, 6)) == step_of(np.datetime64("2025-12-01T00")) + 1
    with pytest.raises(InputError, match="2025-12-01T03:00:00: the demo's weather is known at 00, 06, 12 and 18 UTC"):
        weather.regime(np.datetime64("2025-12-01T03"))
    with pytest.raises(InputError, match="1969-12-31T00:00:00"):
        weather.hour(np.datetime64("1969-12-31"))


# Truth


def test_truth_is_made_of_its_terms(weather):
    time = np.datetime64("2025-11-02T18")
    hour, step = weather.hour(time), step_of(time)
    state = LatentFields(TINY, 0, RegimeSeries(0))[step]
    regime = weather.regime(time)
    assert hour.regime == regime
    fraction = regime.convective_fraction
    diurnal = [0.35 * fraction * np.cos(2 * np.pi * (18 - peak) / 24) for peak in (23, 19)]
    fields = [TINY.crop(TINY.to_grid(s)) for s in state]
    latent = np.sqrt(1 - fraction) * fields[0] + np.sqrt(fraction) * fields[1] + regime.wetness + hour.effect
    np.testing.assert_allclose(hour.truth, 2.4 * np.maximum(latent - 1.25, 0) ** 2.1, rtol=1e-3, atol=1e-4)
    oro, model_oro = hour.effect - diurnal[0], hour.model_effect - diurnal[1]
    assert np.abs(oro).max() < 0.7
    assert np.abs(model_oro).max() < 0.55 * 0.7
    # the same places, less and smoother
    assert np.corrcoef(oro.ravel(), model_oro.ravel())[0, 1] > 0.9
    assert model_oro.std() < 0.6 * oro.std()
    assert oro.std() > 0.02


def test_base_rates_are_those_of_hourly_precipitation(pairs):
    by_time = {p.hour.time: p.hour for p in pairs}
    assert len(by_time) > 400
    truth = np.stack([h.truth for h in by_time.values()])
    assert truth.dtype == np.float32
    assert 0.05 < (truth >= 0.25).mean() < 0.12
    assert 0.003 < (truth >= 5).mean() < 0.02
    assert 20 < truth.max() < 150
    rates = [(np.stack([h.analysis for h in by_time.values()]) >= t).mean() for t in (0.25, 1, 2.5, 5, 10)]
    assert all(b < a for a, b in pairwise(rates))


def test_analysis_belongs_to_the_hour_and_lacks_where_quality_is_bad(pairs):
    by_time = {p.hour.time: p.hour for p in pairs}
    truth, analysis = (np.stack([getattr(h, name) for h in by_time.values()]) for name in ("truth", "analysis"))
    quality = pairs[0].hour.quality
    assert {p.hour.quality is quality for p in pairs} == {True}
    good, bad = quality >= 0.5, quality < 0.1
    assert analysis[:, good].sum() / truth[:, good].sum() == pytest.approx(0.98, abs=0.02)  # no drizzle
    assert 0.3 < analysis[:, bad].sum() / truth[:, bad].sum() < 0.5
    assert np.unique(analysis)[1] == np.float32(0.3)


def test_a_radar_that_is_off_changes_quality_and_analysis_on_its_days_only(weather):
    day = np.datetime64("2025-10-03")
    off = Weather(TINY, seed=0, outage=Outage(1, np.array([day])))
    for time, changed in ((np.datetime64("2025-10-03T12"), True), (np.datetime64("2025-10-04T00"), False)):
        with_radar, without = weather.hour(time), off.hour(time)
        np.testing.assert_array_equal(with_radar.truth, without.truth)
        assert (without.quality == -3).any() == changed
        assert (with_radar.analysis != without.analysis).any() == changed
        assert (without.analysis <= with_radar.analysis).all()


# Forecasts


def latent_of_truth(pair: Pair) -> np.ndarray:
    fraction, state = pair.hour.regime.convective_fraction, pair.hour.latent
    return np.sqrt(1 - fraction) * TINY.to_grid(state.large) + np.sqrt(fraction) * TINY.to_grid(state.small)


def test_forecasts_are_displaced_and_decorrelated_by_lead(pairs):
    found = {}
    for lead, error in FORECAST_ERRORS.items():
        shifts, best = [], []
        for pair in [p for p in pairs if p.lead == lead][::4]:
            # phase correlation of the truth with what the forecast says of it
            field = pair.posterior.field
            fraction = pair.hour.regime.convective_fraction
            small, large = np.sqrt(fraction) * pair.hour.latent.small, np.sqrt(1 - fraction) * pair.hour.latent.large
            product = TINY.to_grid(field * (large + small).conj()) * TINY.n
            peak = np.unravel_index(product.argmax(), product.shape)
            place = [(i + TINY.n // 2) % TINY.n - TINY.n // 2 for i in peak]
            # to the east and to the north, km
            shifts.append([TINY.spacing * place[1], TINY.spacing * place[0]])
            truth, forecast = latent_of_truth(pair), TINY.to_grid(field)
            best.append(np.corrcoef(np.roll(truth, peak, axis=(0, 1)).ravel(), forecast.ravel())[0, 1])
        shifts = np.array(shifts)
        expected = np.array(error.mean_displacement)
        # wrong peaks make outliers, grid points a little noise
        spread = np.median(np.abs(shifts - expected)) / 0.6745
        assert spread == pytest.approx(error.displacement, rel=0.25)
        bound = 4 * 1.25 * error.displacement / np.sqrt(len(shifts))
        np.testing.assert_allclose(np.median(shifts, axis=0), expected, atol=bound)
        found[lead] = np.median(best)
    assert all(found[a] > found[b] for a, b in pairwise(LEADS))


def test_forecasts_drizzle_and_lack_heavy_rain_and_are_as_sharp_at_all_leads(pairs):
    rates = {}
    for lead in LEADS:
        mine = [p for p in pairs if p.lead == lead]
        forecast, truth = np.stack([p.forecast for p in mine]), np.stack([p.hour.truth for p in mine])
        assert forecast.dtype == np.float32
        rates[lead] = (forecast >= 0.25).mean()
        assert 1.05 < rates[lead] / (truth >= 0.25).mean() < 2
        assert ((forecast > 0) & (forecast < 0.25)).mean() > ((truth > 0) & (truth < 0.25)).mean()
        assert (forecast >= 10).mean() < 1.1 * (truth >= 10).mean() + 5e-4
    assert max(rates.values()) < 1.5 * min(rates.values())


def test_posterior_has_what_the_forecast_leaves_open(pairs):
    pair = next(p for p in pairs if p.lead == 24)
    fraction = pair.hour.regime.convective_fraction
    spread = 0.35**2 * 0.15**2 / (0.35**2 + 0.15**2)
    expected = (1 - fraction) * (1 - 0.86**2) + fraction * (1 - 0.15**2) + spread
    assert pair.posterior.variance == pytest.approx(expected)
    assert (pair.posterior.displacement, pair.posterior.mean_displacement) == (34.0, pytest.approx((10.2, 3.4)))


# Stream


def test_stream_gives_all_leads_of_all_initial_times(weather):
    inits = every("1", "2025-10-01", "2025-10-03")
    pairs = list(weather.pairs(inits))
    assert [(p.init, p.lead) for p in pairs] == [(init, lead) for init in inits for lead in (6, 12, 24, 48)]
    for pair in pairs:
        assert pair.hour.time == pair.init + np.timedelta64(pair.lead, "h")
        for field in (pair.forecast, pair.hour.truth, pair.hour.analysis, pair.hour.quality, pair.posterior.location):
            assert field.shape == (64, 80)
    # the 24-hour forecast of the first day and the one of 0 h later verify at different times, 48 and 24 h at one
    assert pairs[3].hour is pairs[6].hour


def test_a_pair_follows_from_seed_and_dates_alone(weather):
    inits = every("1", "2025-10-05", "2025-10-09")
    whole = {(p.init, p.lead): p for p in Weather(TINY, seed=0).pairs(inits)}
    other = Weather(TINY, seed=0)
    some = list(other.pairs(inits[2:], leads=[48]))
    some += [other.forecast(inits[0].astype(datetime), 12), weather.forecast(inits[3], 6)]
    for pair in some:
        same = whole[pair.init, pair.lead]
        np.testing.assert_array_equal(pair.forecast, same.forecast)
        np.testing.assert_array_equal(pair.hour.truth, same.hour.truth)
        np.testing.assert_array_equal(pair.hour.analysis, same.hour.analysis)
        np.testing.assert_array_equal(pair.posterior.field, same.posterior.field)
    different = Weather(TINY, seed=1).forecast(inits[0], 12)
    assert np.abs(different.forecast - whole[inits[0], 12].forecast).max() > 1
    assert np.abs(different.hour.truth - whole[inits[0], 12].hour.truth).max() > 1


def test_stream_holds_two_days_of_weather():
    weather = Weather(TINY, seed=0)
    for _ in weather.pairs(every("1", "2025-10-05", "2025-10-20")):
        pass
    assert len(weather._hours) <= 9
    assert len(weather._latent._states) <= 12


def test_wrong_questions_are_refused(weather):
    init = np.datetime64("2025-10-05T00")
    with pytest.raises(InputError, match="lead 36 h: the demo has forecasts for 6, 12, 24, 48 h"):
        weather.forecast(init, 36)
    for second in (init, init - np.timedelta64(12, "h")):
        with pytest.raises(InputError, match=f"must increase, but {second} follows 2025-10-05T00"):
            list(weather.pairs([init, second]))
