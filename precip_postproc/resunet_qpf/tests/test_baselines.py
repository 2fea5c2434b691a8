"""What a user would take instead of a network, on the demo's weather and on series that are known."""

from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import gaussian_filter

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf import baselines, climatology, config
from precip_postproc.resunet_qpf.baselines import (
    NAMES,
    Baselines,
    Case,
    Tuned,
    exceeds,
    fit_baselines,
    fixed_sigma,
    spread,
)
from precip_postproc.resunet_qpf.periodic import PeriodicGrid
from precip_postproc.resunet_qpf.quantile_mapping import QuantileCounts, neighbourhood_fractions
from precip_postproc.resunet_qpf.weather import LEADS, Weather

THRESHOLDS = config.THRESHOLDS


def hours(start: str, days: int, step: int = 12) -> np.ndarray:
    begin = np.datetime64(start, "h")
    return np.arange(begin, begin + np.timedelta64(days, "D"), np.timedelta64(step, "h"))


def make_cases(weather: Weather, inits: np.ndarray) -> list[Case]:
    cases = []
    for pair in weather.pairs(inits):
        hour = pair.hour
        used = (hour.quality >= config.VERIFICATION_QUALITY) & (hour.analysis < config.MAX_OBSERVED)
        observed = np.where(used, hour.analysis, np.nan).astype(np.float32)
        cases.append(Case(pair.lead, hour.time, np.minimum(pair.forecast, config.CAP), observed))
    return cases


@pytest.fixture(scope="module")
def weather() -> Weather:
    return Weather(PeriodicGrid.tiny(), seed=0)


@pytest.fixture(scope="module")
def training(weather) -> list[Case]:
    return make_cases(weather, np.concatenate([hours("2024-12-01", 40), hours("2025-10-18", 40)]))


@pytest.fixture(scope="module")
def test_cases(weather) -> list[Case]:
    return make_cases(weather, hours("2025-12-01", 40))


@pytest.fixture(scope="module")
def fitted(training) -> Baselines:
    return fit_baselines(training, THRESHOLDS, LEADS, spacing=8.0)


@pytest.fixture(scope="module")
def brier(fitted, test_cases) -> dict[str, np.ndarray]:
    """(lead, threshold) by baseline."""
    sums = {name: np.zeros((len(LEADS), len(THRESHOLDS))) for name in NAMES}
    n = np.zeros((len(LEADS), 1))
    for case in test_cases:
        row, valid = LEADS.index(case.lead), np.isfinite(case.observed)
        n[row] += valid.sum()
        for name, p in fitted.predict(case.forecast, case.lead, case.time).items():
            sums[name][row] += ((p - exceeds(case.observed, THRESHOLDS))[:, valid] ** 2).sum(axis=-1)
    return {name: own / n for name, own in sums.items()}


def rain(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Amounts in steps of 0.1 mm, two thirds of them zero."""
    return np.round(np.maximum(rng.gamma(0.5, 8.0, shape) - 3, 0), 1).astype(np.float32)


# All of them


def test_order_of_the_baselines_on_the_demo(brier):
    climate, raw, smoothed = (brier[name] for name in ("climatology", "raw", "smoothed"))
    assert (raw[1:, 0] > climate[1:, 0]).all()  # 12 to 48 h, 0.25 mm
    assert (smoothed[:, :4] < raw[:, :4]).all()
    assert (smoothed[:, 4] <= raw[:, 4]).all()
    assert (smoothed[:3, :3] < 0.95 * climate[:3, :3]).all()
    # what is tuned is not worse than the reference's table, but for the choice from other days
    assert (smoothed[:, :4] < 1.01 * brier["smoothed_fixed"][:, :4]).all()
    # drizzle is the forecast's error that a map mends and smoothing does not
    assert (brier["quantile_mapped"][:, 0] < smoothed[:, 0]).all()
    for score in (raw, smoothed, brier["quantile_mapped"]):
        assert (np.diff(score[:, 0]) > 0).all()


def test_smoothing_grows_with_lead(fitted):
    for best in (fitted.smoothing.best, fitted.neighbourhood.best):
        assert (np.diff(best[:, :3], axis=0) > 0).all()
        assert (best[3, :3] > 4 * best[0, :3]).all()
    # heavy amounts are displaced in smaller areas
    assert fitted.smoothing.best[0, 0] >= fitted.smoothing.best[0, 4]


def test_mapping_mends_the_demos_drizzle(fitted):
    # P(F >= f) = P(Y >= 0.25 mm) for f well above 0.25 mm
    assert (fitted.mapping.equivalents[:, 0] > 0.5).all()
    assert (np.diff(fitted.mapping.equivalents) > 0).all()


def test_probabilities_are_probabilities(fitted, test_cases):
    for case in test_cases[::23]:
        found = fitted.predict(case.forecast, case.lead, case.time)
        assert tuple(found) == NAMES
        for p in found.values():
            assert p.shape == (len(THRESHOLDS), *case.forecast.shape)
            assert p.dtype == np.float32
            assert p.min() >= 0
            assert p.max() <= 1
            assert (np.diff(p, axis=0) <= 0).all()


def test_each_baseline_is_what_it_says(fitted, test_cases):
    case = max(test_cases, key=lambda case: case.forecast.max() * (case.lead == 12))
    found = fitted.predict(case.forecast, 12, case.time)
    events = case.forecast >= np.array(THRESHOLDS)[:, None, None] - 1e-4
    np.testing.assert_array_equal(found["raw"], events)
    # 13.3 points of 4 km are 6.65 of 8 km
    first = gaussian_filter(events[0].astype(float), 6.65, truncate=8)
    np.testing.assert_allclose(found["smoothed_fixed"][0], first, atol=1e-5)
    first = gaussian_filter(events[0].astype(float), fitted.smoothing.best[1, 0], truncate=8)
    np.testing.assert_allclose(found["smoothed"][0], first, atol=1e-5)
    mapped, reach = case.forecast >= fitted.mapping.equivalents[1, 0], int(fitted.neighbourhood.best[1, 0]) // 2
    for y, x in ((0, 0), (30, 40), (63, 5)):
        window = mapped[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
        assert found["quantile_mapped"][0, y, x] == pytest.approx(window.mean())


def test_what_depends_on_lead_is_interpolated_between_leads(fitted, test_cases):
    case = test_cases[0]
    best = fitted.smoothing.best
    np.testing.assert_allclose(fitted.smoothing.at(18), (best[1] + best[2]) / 2)
    between = fitted.predict(case.forecast, 18, case.time)
    sigma = (best[1, 0] + best[2, 0]) / 2
    expected = gaussian_filter((case.forecast >= 0.2499).astype(float), sigma, truncate=8)
    np.testing.assert_allclose(between["smoothed"][0], expected, atol=1e-5)
    size = np.mean([fitted.neighbourhood.best[row, 0] for row in (1, 2)])
    level = fitted.mapping.equivalents[1:3, 0].mean()
    window = 2 * (int(size) // 2) + 1
    fractions = neighbourhood_fractions(case.forecast >= np.float32(level), [window])[0]
    np.testing.assert_allclose(between["quantile_mapped"][0], fractions)
    with pytest.raises(InputError, match="lead 60 h: the baselines are fitted for 6 to 48 h"):
        fitted.predict(case.forecast, 60, case.time)


def test_table_of_the_reference():
    assert [fixed_sigma(lead) for lead in (1, 6, 7, 18, 24, 30, 36, 48, 60, 61)] == [
        6.7, 6.7, 13.3, 13.3, 20, 33.3, 40, 53.3, 66.7, 80,
    ]  # fmt: skip


def test_masked_points_have_no_influence(training):
    some = training[: 4 * 60]
    clean = fit_baselines(some, (0.25, 1.0), LEADS, max_tuning_cases=9)
    # what is forecast there reaches its surroundings, but counts nowhere else
    garbage = [
        case._replace(forecast=np.where(np.isnan(case.observed), np.float32(60), case.forecast)) for case in some
    ]
    other = fit_baselines(garbage, (0.25, 1.0), LEADS, max_tuning_cases=9)
    np.testing.assert_array_equal(clean.mapping.equivalents, other.mapping.equivalents)
    np.testing.assert_array_equal(clean.climatology.maps, other.climatology.maps)
    # a window of one point has no surroundings
    np.testing.assert_array_equal(clean.neighbourhood.brier[..., 0], other.neighbourhood.brier[..., 0])


def test_brier_scores_of_tuning_are_those_of_a_plain_computation(training):
    cases = [case for case in training if case.lead == 24][:6]
    found = fit_baselines(cases, (0.25, 2.5), (24,))
    for column, threshold in enumerate((0.25, 2.5)):
        for choice in (0, 5, 12):
            errors = []
            for case in cases:
                valid = np.isfinite(case.observed)
                event = (case.forecast >= threshold - 1e-4).astype(float)
                p = gaussian_filter(event, baselines.SIGMAS[choice], truncate=8)
                errors.append((p - (case.observed >= threshold - 1e-4))[valid] ** 2)
            score = np.concatenate(errors).mean()
            assert found.smoothing.brier[0, column, choice] == pytest.approx(score, rel=1e-5)


def test_state_survives_a_file(fitted, test_cases, tmp_path):
    dataset = fitted.to_dataset()
    assert dataset["threshold"].attrs["units"] == "mm"
    dataset.to_netcdf(tmp_path / "baselines.nc")
    with xr.open_dataset(tmp_path / "baselines.nc") as opened:
        again = Baselines.from_dataset(opened.load())
    assert again.to_dataset().identical(dataset)
    assert again.remarks() == fitted.remarks()
    case = test_cases[5]
    expected = fitted.predict(case.forecast, 36, case.time)
    for name, p in again.predict(case.forecast, 36, case.time).items():
        np.testing.assert_array_equal(p, expected[name])
    with pytest.raises(InputError, match=r"has the variable mapping_equivalent, but here are .*window_brier"):
        Baselines.from_dataset(dataset.drop_vars("mapping_equivalent"))
    with pytest.raises(InputError, match="attribute spacing_km"):
        Baselines.from_dataset(dataset.drop_attrs())


def test_stored_cases_give_what_a_list_gives_and_few_are_read_twice(training, capsys):
    some = training[:320]
    asked = []

    class Stored:
        def __len__(self):
            return len(some)

        def __iter__(self):
            return iter(some)

        def __getitem__(self, number):
            asked.append(number)
            return some[number]

    own = fit_baselines(Stored(), THRESHOLDS, LEADS, max_tuning_cases=20, progress=True)
    assert len(asked) == len(set(asked)) <= 20 * len(LEADS)
    assert "baselines: tuning" in capsys.readouterr().out
    other = fit_baselines(some, THRESHOLDS, LEADS, max_tuning_cases=20)
    assert own.to_dataset().identical(other.to_dataset())


def test_cases_for_tuning_arespread_over_dates_and_hours():
    chosen = baselines.spread(range(1000, 1240), 120)
    assert len(set(chosen)) == 120
    assert (np.diff(chosen) > 0).all()
    assert np.diff(chosen).max() <= 4
    # two initial times a day
    assert 0.4 < np.mean(np.array(chosen) % 2) < 0.6
    assert baselines.spread([3, 5, 8], 4) == [3, 5, 8]


def test_choice_with_too_few_events_is_that_of_the_threshold_before():
    brier = np.array([[[0.3, 0.1, 0.2], [0.2, 0.3, 0.1], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    tuned = Tuned((6,), np.array([1.0, 2.0, 3.0]), brier, np.array([[9000, 500, 199, 0]]))
    assert tuned.best.tolist() == [[2, 3, 3, 3]]
    # there is none before the first
    assert Tuned((6,), tuned.tried, brier, np.zeros((1, 4), int)).best.tolist() == [[2, 2, 2, 2]]


def test_remarks_name_the_end_of_the_grid_and_missing_events():
    rng = np.random.default_rng(0)
    # forecasts that know nothing: the widest smoothing is best
    cases = [Case(6, time, rain(rng, (40, 50)), rain(rng, (40, 50))) for time in hours("2025-01-01", 20)]
    remarks = fit_baselines(cases, (1.0, 200.0), (6,)).remarks()
    assert remarks == [
        "6 h, 1 mm: smoothed: standard deviation of 80 points is the largest that was tried",
        "6 h, 200 mm: smoothed: standard deviation of 80 points, as for the threshold before: only 0 events",
        "6 h, 1 mm: window of 129 points is the largest that was tried",
        "6 h, 200 mm: window of 129 points, as for the threshold before: only 0 events",
        "6 h: quantile mapping is extrapolated to 200 mm",
    ]


# Quantile mapping


def test_mapping_removes_a_monotone_bias_exactly():
    rng = np.random.default_rng(0)
    thresholds = (0.25, 1.0, 2.5, 5.0, 10.0)
    cases = []
    for time in hours("2025-01-01", 20):
        observed = rain(rng, (40, 50))
        # too much drizzle, a light tail; dry stays dry
        cases.append(Case(6, time, np.where(observed > 0, 0.3 + 1.4 * observed**0.8, 0).astype(np.float32), observed))
    fitted = fit_baselines(cases, thresholds, (6,))
    assert (fitted.neighbourhood.best == 1).all()
    for case in cases:
        found = fitted.predict(case.forecast, 6, case.time)
        np.testing.assert_array_equal(found["quantile_mapped"], exceeds(case.observed, thresholds))
    # and there was something to remove, at the light and at the heavy end
    wrong = (found["raw"] != exceeds(case.observed, thresholds)).sum(axis=(1, 2))
    assert wrong[0] > 0
    assert wrong[-1] > 0


def test_equivalents_of_continuous_amounts_are_their_quantiles():
    rng = np.random.default_rng(1)
    observed, forecast = rng.exponential(3.0, (2, 300, 400)).astype(np.float32)
    counts = QuantileCounts((1.0, 5.0, 15.0), (6, 12))
    counts.add(6, 0.5 * forecast, observed)
    counts.add(12, 2 * forecast, observed)
    np.testing.assert_allclose(counts.fit().equivalents, np.outer([0.5, 2], [1, 5, 15]), rtol=0.02)
    assert not counts.fit().extrapolated.any()


def test_dry_forecasts_stay_dry():
    observed, forecast = np.ones((2, 50, 60), np.float32)
    forecast[:, 20:] = 0
    counts = QuantileCounts((0.25,), (6,))
    counts.add(6, forecast, observed)
    mapping = counts.fit()
    # every wet forecast is an event, which is still less than is observed
    np.testing.assert_array_equal(mapping.predict(forecast, 6)[0], forecast > 0)
    assert 0 < mapping.equivalents[0, 0] <= 1


def test_tail_with_few_events_keeps_the_ratio():
    rng = np.random.default_rng(2)
    observed = rng.exponential(3.0, (100, 100)).astype(np.float32)
    counts = QuantileCounts((1.0, 5.0, 25.0, 60.0), (6, 12))
    counts.add(6, 0.5 * observed, observed)
    mapping = counts.fit()
    assert mapping.extrapolated.tolist() == [[False, False, True, True], [True] * 4]
    ratio = mapping.equivalents / (1.0, 5.0, 25.0, 60.0)
    np.testing.assert_allclose(ratio[0], 0.5, rtol=0.01)
    assert ratio[0, 1] == ratio[0, 2] == ratio[0, 3]
    np.testing.assert_array_equal(ratio[1], 1)  # no cases, no mapping


def test_windows_are_cut_at_the_border():
    events = np.random.default_rng(0).random((2, 12, 17)) > 0.6
    found = neighbourhood_fractions(events, [1, 3, 9, 129])
    assert found.shape == (4, 2, 12, 17)
    np.testing.assert_array_equal(found[0], events)
    for own, reach in zip(found, (0, 1, 4, 64), strict=True):
        for y, x in np.ndindex(12, 17):
            window = events[:, max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
            np.testing.assert_allclose(own[:, y, x], window.mean(axis=(1, 2)), rtol=1e-6)
    with pytest.raises(InputError, match="a window has 4 points per side; expected an odd number"):
        neighbourhood_fractions(events, [3, 4])


# Climatology


def climate(probability, days: int, seed: int = 0, mask: np.ndarray | None = None) -> climatology.Climatology:
    """Of events of 1 mm that are independent, every six hours, with ``probability`` (month, hour, y, x)."""
    rng = np.random.default_rng(seed)
    counts = climatology.ClimatologyCounts((1.0,))
    for time in hours("2025-01-01", days, 6):
        moment = time.item()
        p = np.broadcast_to(probability(moment.month, moment.hour), (30, 40))
        observed = 2.0 * (rng.random((30, 40)) < p)
        counts.add(time, np.where(False if mask is None else mask, np.nan, observed).astype(np.float32))
    return counts.fit()


def test_stationary_climatology_is_pooled_and_has_its_frequency():
    found = climate(lambda month, hour: 0.2, 60)
    assert found.sigmas[0] >= 16
    for time in hours("2026-01-01", 1, 6):
        np.testing.assert_allclose(found.predict(time)[0], 0.2, atol=0.015)


@pytest.mark.parametrize(
    ("probability", "grouping"),
    [
        (lambda month, hour: 0.5 if hour == 18 else 0.1, "hour"),
        (lambda month, hour: 0.5 if month in (12, 1, 2) else 0.1, "season"),
        (lambda month, hour: 0.5 if hour == 18 and month < 3 else 0.1, "season and hour"),
    ],
)
def test_hours_and_seasons_that_differ_are_told_apart(probability, grouping):
    found = climate(probability, 140)
    assert found.groupings == (grouping,)
    for time in ("2026-01-03T18", "2026-02-09T06", "2026-04-07T18", "2026-05-09T00"):
        moment = np.datetime64(time, "h").item()
        expected = probability(moment.month, moment.hour)
        np.testing.assert_allclose(found.predict(np.datetime64(time))[0], expected, atol=0.05)
    # an hour and a season of which there are no analyses
    assert 0.1 < found.predict(np.datetime64("2026-08-03T21")).mean() < 0.5


def test_climatology_keeps_structure_that_is_larger_than_noise():
    p = np.where(np.arange(40) < 20, 0.1, 0.6)
    found = climate(lambda month, hour: p, 100)
    assert found.sigmas[0] <= 4
    np.testing.assert_allclose(found.predict(np.datetime64("2026-01-01T06"))[0].mean(axis=0), p, atol=0.25)
    np.testing.assert_allclose(found.maps[0, :, :12], 0.1, atol=0.08)


def test_climatology_without_analyses_is_the_mean_of_the_domain():
    mask = np.zeros((30, 40), bool)
    mask[:, 10:] = True
    found = climate(lambda month, hour: 0.3, 3, mask=mask)
    p = found.predict(np.datetime64("2026-01-01T06"))
    assert np.isfinite(p).all()
    np.testing.assert_allclose(p, 0.3, atol=0.06)


def test_leads_do_not_weigh_times(training):
    counts, single = (climatology.ClimatologyCounts(THRESHOLDS) for _ in range(2))
    for case in training[:200]:
        counts.add(case.time, case.observed)
        if case.lead == 24:
            single.add(case.time, case.observed)
    # the times of one lead again, in another unit
    again = climatology.ClimatologyCounts(THRESHOLDS)
    for case in [case for case in training[:200] if case.lead == 24]:
        again.add(case.time, case.observed)
        again.add(case.time.astype("datetime64[ns]"), case.observed)
    np.testing.assert_array_equal(again.fit().maps, single.fit().maps)
    assert not np.array_equal(counts.fit().maps, single.fit().maps)


def test_probabilities_of_the_climatology_do_not_cross(fitted):
    for earlier, later in pairwise(fitted.climatology.predict(np.datetime64("2025-07-01T03"))):
        assert (later <= earlier).all()


# What is refused


def replaced(cases: list[Case], **changes) -> list[Case]:
    return [*cases[:5], cases[5]._replace(**changes)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lead": 36}, r"a training case of .* has lead 36 h; expected one of \(6, 12, 24, 48\) h"),
        ({"forecast": np.zeros((3, 4), "f4")}, r"forecast for .*, lead 12 h: \(3, 4\) points; expected \(64, 80\)"),
        ({"forecast": np.full((64, 80), np.nan, "f4")}, "forecast for .*, lead 12 h: 5120 missing or infinite values"),
        ({"observed": np.zeros((64, 1), "f4")}, r"observation of .*: \(64, 1\) points; expected \(64, 80\)"),
    ],
)
def test_cases_that_do_not_fit_are_refused(training, change, message):
    with pytest.raises(InputError, match=message):
        fit_baselines(replaced(training, **change), THRESHOLDS, LEADS)


def test_training_that_gives_nothing_is_refused(training, fitted):
    with pytest.raises(InputError, match="no training cases of lead 6 h"):
        fit_baselines([], THRESHOLDS, LEADS)
    with pytest.raises(InputError, match="no training cases of lead 72 h"):
        fit_baselines(training[:8], THRESHOLDS, (*LEADS, 72))
    with pytest.raises(InputError, match="lead 6 h: there is no valid observation"):
        fit_baselines([training[0]._replace(observed=np.full((64, 80), np.nan, "f4"))], THRESHOLDS, (6,))
    for thresholds in ((), (0.0, 1.0), (1.0, 1.0)):
        with pytest.raises(InputError, match=r"thresholds are .* mm; expected increasing numbers above 0"):
            fit_baselines(training[:8], thresholds, LEADS)
    with pytest.raises(InputError, match=r"leads are .* h; expected increasing"):
        fit_baselines(training[:8], THRESHOLDS, (12, 6))
    with pytest.raises(InputError, match=r"\(64, 79\) points; expected \(64, 80\)"):
        fitted.predict(np.zeros((64, 79), np.float32), 6, np.datetime64("2025-12-01T06"))


@pytest.mark.parametrize("n", [5, 120, 121, 150, 191, 500, 1999])
def test_cases_for_tuning_arespread_and_all_different(n):
    chosen = spread(range(n), 120)
    assert len(set(chosen)) == len(chosen) <= 120
    assert len(chosen) >= min(n, 120) * 0.75
    assert np.diff(chosen).max(initial=1) <= 2 * max(1, n / 120) + 1
