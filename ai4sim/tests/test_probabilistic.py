import re

import numpy as np
import pytest
import scores.probability
import xarray as xr

from ai4sim.verification import Scorecard, block_bootstrap, bootstrap_skill
from ai4sim.verification.fields import merge_sums
from ai4sim.verification.metrics import metric_info, metric_title
from ai4sim.verification.probabilistic import (
    CENTRED_BINS,
    FINE_BINS,
    PROBABILITY_SUMS,
    base_rate,
    brier,
    corp_curve,
    isotonic,
    mean_forecast,
    performance_curve,
    pit_density,
    pit_statistics,
    probability_bias,
    probability_statistics,
    reliability,
    reliability_curve,
    resolution,
    roc_area,
    roc_curve,
    rps,
    sharpness,
    uncertainty,
    widen_bins,
    within_bin_covariance,
    within_bin_variance,
)
from ai4sim.verification.spatial import contingency_statistics, csi, frequency_bias

THRESHOLDS = [0.25, 1.0, 5.0]
ALL = ["sample", "y", "x"]


def forecasts(n: int = 12, *, power: float = 3.0, seed: int = 0, points: int = 8) -> tuple[xr.DataArray, xr.DataArray]:
    """Reliable probabilities (sample, threshold, y, x), and amounts (sample, y, x) drawn from them, 3 samples a day."""
    rng = np.random.default_rng(seed)
    first = rng.uniform(size=(n, points, points)) ** power
    # exceedance falls with the threshold
    probability = np.stack([first, 0.6 * first, 0.2 * first], axis=1)
    chance = rng.uniform(size=(n, 1, points, points))
    above = (chance < probability).sum(axis=1)
    amounts = np.array([0.0, 0.5, 2.0, 9.0])[above]
    coords = {"day": ("sample", np.arange(n) // 3)}
    observed = xr.DataArray(amounts, dims=("sample", "y", "x"), coords=coords, attrs={"units": "mm"}, name="rain")
    forecast = xr.DataArray(
        probability, dims=("sample", "threshold", "y", "x"), coords={"threshold": THRESHOLDS, **coords}, name="pop"
    )
    return forecast, observed


def pairs(p, o, threshold: float = 1.0) -> xr.Dataset:
    """Statistics of plain probabilities and events of one threshold, without dimensions but the bins."""
    probability = xr.DataArray(np.asarray(p)[None], dims=("threshold", "sample"), coords={"threshold": [threshold]})
    observed = xr.DataArray(2.0 * threshold * np.asarray(o, dtype=float), dims="sample")
    return probability_statistics(probability, observed, reduce="sample").squeeze("threshold", drop=True)


def decomposed(statistics: xr.Dataset, bins=CENTRED_BINS) -> xr.DataArray:
    within = within_bin_variance(statistics, bins) - within_bin_covariance(statistics, bins)
    return reliability(statistics, bins) - resolution(statistics, bins) + uncertainty(statistics) + within


def test_sums_are_those_counted_one_by_one():
    probability, observed = forecasts(6)
    rng = np.random.default_rng(5)
    observed = observed.where(rng.uniform(size=observed.shape) > 0.1)
    mask = xr.DataArray(rng.uniform(size=(8, 8)) > 0.3, dims=("x", "y"))
    statistics = probability_statistics(
        probability.astype(np.float32).transpose("x", "threshold", "sample", "y"),
        observed,
        reduce=["x", "sample"],
        block="day",
        mask=mask,
    )
    assert statistics["n"].dims == ("block", "y")
    assert statistics["count"].dims == ("block", "y", "threshold", "bin")
    np.testing.assert_array_equal(statistics["n"], statistics["count"].sum("bin").isel(threshold=1))
    assert statistics["threshold"].attrs == {"units": "mm"}
    assert tuple(statistics.data_vars) == ("n", *PROBABILITY_SUMS)
    expected = np.zeros((5, 2, 8, 3, len(FINE_BINS) - 1))
    edges = np.array(FINE_BINS) - 1e-7
    for (sample, k, y, x), p in np.ndenumerate(probability.values.astype(np.float32).astype(float)):
        amount = float(observed[sample, y, x])
        if np.isnan(amount) or not mask[x, y]:
            continue
        o = float(amount >= THRESHOLDS[k])
        place = min(int(np.searchsorted(edges, p, side="right")) - 1, len(FINE_BINS) - 2)
        expected[:, sample // 3, y, k, place] += [1.0, p, o, p * p, p * o]
    for name, values in zip(PROBABILITY_SUMS, expected, strict=True):
        np.testing.assert_allclose(statistics[name], values, rtol=1e-12, atol=1e-14)


def test_default_bins_are_fine_for_rare_events_and_nested_in_the_centred_ones():
    edges = np.array(FINE_BINS)
    assert (np.diff(edges) > 0).all()
    assert np.diff(edges).max() < 0.01 + 1e-9
    assert (edges < 0.01).sum() == 7
    assert set(CENTRED_BINS) <= set(FINE_BINS)
    assert len(CENTRED_BINS) == 12
    statistics = pairs([0.0, 0.04, 0.06, 0.5, 0.949, 0.951], [0] * 6)
    assert widen_bins(statistics, CENTRED_BINS)["count"].values.tolist() == [2, 1, 0, 0, 0, 1, 0, 0, 0, 1, 1]


def test_a_probability_of_one_is_in_the_last_bin_and_edges_are_in_the_bin_that_they_open():
    statistics = pairs([1.0, 1.0, 1.0 + 5e-7, -5e-7], [1, 1, 1, 0])
    assert float(statistics["count"][-1]) == 3.0
    assert float(statistics["forecast"][-1]) == 3.0
    assert float(statistics["forecast"][0]) == 0.0
    # 0.29 * 100 is below 29, and 0.35 in single precision below 0.35
    for dtype in (np.float32, np.float64):
        for edge in FINE_BINS[:-1]:
            found = pairs(np.array([edge], dtype=dtype), [0])["count"]
            assert float(found.bin_lower[int(found.values.argmax())]) == edge


@pytest.mark.parametrize("bins", [CENTRED_BINS, (0.0, 0.5, 1.0), (0.0, 1.0), FINE_BINS])
def test_decomposition_of_the_brier_score_is_exact(bins):
    probability, observed = forecasts(30, power=6.0)
    # neither reliable nor sharp
    distorted = (0.7 * probability + 0.05) ** 1.3
    statistics = probability_statistics(distorted, observed, reduce=ALL)
    np.testing.assert_allclose(decomposed(statistics, bins), brier(statistics), rtol=0, atol=1e-14)
    # by their definitions
    p, o = distorted.sel(threshold=1.0).values.ravel(), observed.values.ravel() >= 1.0
    place = np.minimum(np.searchsorted(bins, p + 1e-7, side="right") - 1, len(bins) - 2)
    means = {k: (p[place == k].mean(), o[place == k].mean()) for k in np.unique(place)}
    p_k, o_k = np.array([means[k] for k in place]).T
    found = statistics.sel(threshold=1.0)
    assert float(reliability(found, bins)) == pytest.approx(((p_k - o_k) ** 2).mean(), abs=1e-12)
    assert float(resolution(found, bins)) == pytest.approx(((o_k - o.mean()) ** 2).mean(), abs=1e-12)
    assert float(within_bin_variance(found, bins)) == pytest.approx(((p - p_k) ** 2).mean(), abs=1e-12)
    covariance = 2.0 * ((o - o_k) * (p - p_k)).mean()
    assert float(within_bin_covariance(found, bins)) == pytest.approx(covariance, abs=1e-12)
    assert float(sharpness(found)) == pytest.approx(p.var(), rel=1e-10)


def test_perfect_climatological_and_random_forecasts_have_known_scores():
    o = np.arange(1000) % 10 == 0
    perfect = pairs(o.astype(float), o)
    assert float(brier(perfect)) == 0.0
    assert float(reliability(perfect)) == 0.0
    assert float(resolution(perfect)) == pytest.approx(0.09)
    assert float(roc_area(perfect)) == 1.0
    assert float(sharpness(perfect)) == pytest.approx(0.09)
    climatology = pairs(np.full(1000, 0.1), o)
    assert float(brier(climatology)) == pytest.approx(0.09)
    assert float(uncertainty(climatology)) == pytest.approx(0.09)
    assert float(reliability(climatology)) == pytest.approx(0.0, abs=1e-15)
    assert float(resolution(climatology)) == pytest.approx(0.0, abs=1e-15)
    assert float(roc_area(climatology)) == 0.5
    assert float(sharpness(climatology)) == pytest.approx(0.0, abs=1e-15)
    rng = np.random.default_rng(0)
    guess = pairs(rng.uniform(size=200_000), rng.uniform(size=200_000) < 0.3)
    # E (p - o)^2 = 1/3 - 2 * 0.3 / 2 + 0.3
    assert float(brier(guess)) == pytest.approx(1.0 / 3.0, abs=2e-3)
    assert float(roc_area(guess)) == pytest.approx(0.5, abs=5e-3)
    assert float(resolution(guess)) == pytest.approx(0.0, abs=1e-4)
    assert float(mean_forecast(guess)) == pytest.approx(0.5, abs=2e-3)
    assert float(base_rate(guess)) == pytest.approx(0.3, abs=3e-3)
    assert float(probability_bias(guess)) == pytest.approx(0.2, abs=5e-3)


def test_scores_without_samples_or_events_are_undefined():
    empty, dry = pairs([], []), pairs([0.1, 0.2], [0, 0])
    for metric in (brier, base_rate, reliability, resolution, uncertainty, within_bin_variance, sharpness, roc_area):
        assert np.isnan(metric(empty)), metric
        assert metric(empty).attrs == {"units": "1"}
        assert metric(empty).name == metric.__name__
        assert metric_info(metric.__name__)
    assert np.isnan(roc_area(dry))
    assert float(uncertainty(dry)) == 0.0


def test_brier_score_and_roc_curve_equal_those_of_scores():
    probability, observed = forecasts(30)
    statistics = probability_statistics(probability, observed, reduce=ALL)
    for threshold in THRESHOLDS:
        p, found = probability.sel(threshold=threshold), statistics.sel(threshold=threshold)
        event = (observed >= threshold).astype(float)
        assert float(brier(found)) == pytest.approx(float(scores.probability.brier_score(p, event)), rel=1e-12)
        theirs = scores.probability.roc_curve_data(p, event, FINE_BINS[:-1])
        ours = roc_curve(found)
        np.testing.assert_allclose(ours["pod"], theirs["POD"], rtol=1e-12)
        np.testing.assert_allclose(ours["pofd"], theirs["POFD"], rtol=1e-12)
        assert float(roc_area(found)) == pytest.approx(float(theirs["AUC"]), rel=1e-12)
        assert ours["cut"].values[-1] == np.inf
        assert "bin_lower" not in ours.coords


def test_roc_area_is_the_chance_to_tell_an_event_from_another_case():
    rng = np.random.default_rng(2)
    # one value per bin, so that nothing is lost, and many ties
    p = rng.integers(5, 100, size=300) / 100.0 + 0.005
    o = rng.uniform(size=300) < p
    gaps = np.sign(p[o][:, None] - p[~o][None, :])
    assert float(roc_area(pairs(p, o))) == pytest.approx((0.5 + 0.5 * gaps).mean(), rel=1e-12)


def test_ranked_probability_score_is_the_sum_over_the_thresholds():
    probability, observed = forecasts(9)
    statistics = probability_statistics(probability, observed, reduce=ALL, block="day")
    events = observed >= xr.DataArray(THRESHOLDS, dims="threshold")
    expected = ((probability.drop_vars("threshold") - events) ** 2).sum("threshold").mean(ALL)
    total = statistics.sum("block")
    assert float(rps(total)) == pytest.approx(float(expected), rel=1e-12)
    # sums over the bins are enough
    np.testing.assert_allclose(rps(statistics.sum("bin")), rps(statistics), rtol=1e-12)
    with pytest.raises(ValueError, match="rps is a sum over thresholds"):
        rps(total.isel(threshold=0))


def test_an_amount_that_misses_the_threshold_by_rounding_is_an_event():
    probability = xr.DataArray([[0.5, 0.5, 0.5]], dims=("threshold", "sample"), coords={"threshold": [1.0]})
    observed = xr.DataArray([0.99995, 1.0, 0.9998], dims="sample")
    guarded = probability_statistics(probability, observed, reduce="sample")
    assert base_rate(guarded).item() == pytest.approx(2.0 / 3.0)
    exact = probability_statistics(probability, observed, reduce="sample", guard=0.0)
    assert base_rate(exact).item() == pytest.approx(1.0 / 3.0)


@pytest.mark.parametrize("layout", ["whole", "chunked", "file"])
def test_parts_in_any_order_and_layout_give_the_whole(monkeypatch, tmp_path, layout):
    # eighths, of which all sums are exact
    probability, observed = forecasts(9)
    probability = (8.0 * probability).round() / 8.0
    arguments = {"reduce": ALL, "block": "day"}
    whole = probability_statistics(probability, observed, **arguments)
    if layout == "chunked":
        probability, observed = probability.chunk({"sample": 4}), observed.transpose("y", "sample", "x")
    if layout == "file":
        xr.Dataset({"p": probability, "o": observed}).to_netcdf(tmp_path / "both.nc", engine="h5netcdf")
        opened = xr.open_dataset(tmp_path / "both.nc", engine="h5netcdf")
        probability, observed = opened["p"], opened["o"]
    monkeypatch.setattr("ai4sim.verification.sums._SLICE_SIZE", 100)
    cuts = [slice(4, 9), slice(0, 3), slice(3, 4)]
    parts = [probability_statistics(probability.isel(sample=c), observed.isel(sample=c), **arguments) for c in cuts]
    xr.testing.assert_equal(merge_sums(*parts), whole)
    assert whole["block"].values.tolist() == [0, 1, 2]
    unblocked = [probability_statistics(probability.isel(sample=c), observed.isel(sample=c), reduce=ALL) for c in cuts]
    xr.testing.assert_equal(merge_sums(*unblocked), whole.sum("block"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, o: (p.where(p.sample != 2), o), r"'pop' is nan at the threshold 0.25 and index {'sample': 2, 'y'"),
        (lambda p, o: (p + 1.1 * (p.threshold == 5.0), o), r"is 1.\d+ at the threshold 5 and index"),
        (lambda p, o: (p - 0.01 * (p.threshold == 5.0), o), r"is -0.0\d+ at the threshold 5 and index"),
        (lambda p, o: (p, o.where(o < 5.0, np.inf)), "observed 'rain' has infinite amounts"),
        (lambda p, o: (p.rename(threshold="level"), o), "needs a dimension 'threshold' with a coordinate"),
        (lambda p, o: (p.drop_vars("threshold"), o), "needs a dimension 'threshold' with a coordinate"),
        (lambda p, o: (p.isel(y=0), o), "they must agree but for 'threshold'"),
        (lambda p, o: (p, o >= p.threshold), "observed has the dimension 'threshold': give amounts"),
        (lambda p, o: (p.isel(x=slice(4)), o), "not on the same coordinates"),
        (lambda p, o: (p, o.assign_attrs(units="m")), "thresholds are in 'mm' and observed amounts in 'm'"),
    ],
)
def test_wrong_probabilities_and_amounts_are_named(change, message):
    probability, observed = forecasts(6)
    probability["threshold"].attrs["units"] = "mm"
    with xr.set_options(keep_attrs=True):
        probability, observed = change(probability, observed)
    with pytest.raises(ValueError, match=message):
        probability_statistics(probability, observed, reduce=ALL)


def test_a_missing_probability_does_not_matter_where_nothing_was_observed():
    probability, observed = forecasts(6)
    gap = xr.zeros_like(observed, dtype=bool)
    gap[2, 3, 4] = True
    holes = probability.where(~gap)
    expected = probability_statistics(probability, observed.where(~gap), reduce=ALL)
    xr.testing.assert_equal(probability_statistics(holes, observed.where(~gap), reduce=ALL), expected)
    xr.testing.assert_equal(probability_statistics(holes, observed, reduce=ALL, mask=~gap), expected)
    with pytest.raises(ValueError, match=r"is nan at the threshold 0.25 and index {'sample': 2, 'y': 3, 'x': 4}"):
        probability_statistics(holes, observed, reduce=ALL)


@pytest.mark.parametrize(
    ("bins", "message"),
    [
        ([0.0, 0.5], "give edges that increase from 0 to 1"),
        ([0.0, 0.5, 0.5, 1.0], "give edges that increase from 0 to 1"),
        ([0.0, 1.0 / 3.0, 1.0], "edges must be multiples of 0.0001"),
    ],
)
def test_wrong_bins_are_named(bins, message):
    with pytest.raises(ValueError, match=message):
        probability_statistics(*forecasts(3), reduce=ALL, bins=bins)
    with pytest.raises(ValueError, match=r"\[0.0003\] are no edges of the bins of the statistics"):
        reliability(pairs([0.5], [1]), [0.0, 0.0003, 1.0])


def test_skill_of_identical_forecasts_is_zero_without_any_doubt():
    statistics = probability_statistics(*forecasts(12), reduce=ALL, block="day")
    for metric in (brier, roc_area):
        skill = bootstrap_skill(statistics, statistics, metric, seed=0, n_resamples=100)
        for part in skill:
            np.testing.assert_array_equal(part, np.zeros(3))


def test_days_of_identical_lead_times_have_wider_intervals_than_independent_samples():
    rng = np.random.default_rng(4)
    p = np.repeat(rng.uniform(size=60), 4)
    o = np.repeat(rng.uniform(size=60) < p[::4], 4)
    probability = xr.DataArray(p[None], dims=("threshold", "sample"), coords={"threshold": [1.0]})
    observed = xr.DataArray(2.0 * o, dims="sample")
    width = {}
    for name, label in {"days": np.arange(240) // 4, "samples": np.arange(240)}.items():
        block = xr.DataArray(label, dims="sample")
        statistics = probability_statistics(probability, observed, reduce="sample", block=block)
        interval = block_bootstrap(statistics, brier, seed=0)
        width[name] = (interval.upper - interval.lower).item()
    # four equal samples are worth one
    assert width["days"] / width["samples"] == pytest.approx(2.0, rel=0.12)


def test_scores_enter_the_scorecard_by_threshold_with_paired_skill():
    probability, observed = forecasts(30)
    models = {"net": probability, "flat": xr.full_like(probability, 0.2)}
    statistics = {
        name: probability_statistics(values, observed, reduce=ALL, block="day") for name, values in models.items()
    }
    card = Scorecard(use_case="a", experiment="b", roles={"net": "model"})
    card.add_scores(
        statistics,
        metrics={"brier": brier, "roc_area": roc_area, "reliability": reliability, "base_rate": base_rate},
        seed=0,
        n_resamples=100,
        skill_against=["flat"],
        skill_metrics=["brier"],
        along="threshold",
    )
    row = card.row("net", "brier", threshold=0.25)
    assert row["n"] == observed.size
    assert row["lower"] < row["value"] < row["upper"]
    assert card.beats("net", "flat", "brier", threshold=0.25)
    assert not card.beats("net", "flat", "base_rate", threshold=0.25)
    assert metric_title("roc_area") == "ROC area"
    assert metric_title("brier_skill_flat") == "Brier score skill against flat"


def test_frequencies_of_a_reliable_forecast_are_within_the_bars():
    inside = []
    for seed in range(12):
        probability, observed = forecasts(90, power=1.5, seed=seed)
        statistics = probability_statistics(probability, observed, reduce=ALL, block="day")
        curve = reliability_curve(statistics, seed=0, n_resamples=200)
        inside.append(curve["inside"].values)
    shown = np.isfinite(inside)
    assert shown.sum() > 200
    assert 0.86 < np.nanmean(inside) < 0.97
    biased = probability_statistics(probability**1.5, observed, reduce=ALL, block="day")
    assert float(reliability_curve(biased, seed=0, n_resamples=200)["inside"].mean()) < 0.4


def test_reliability_curve_by_hand():
    # two days; 10 x 0.2 with 3 events, 4 x 0.9 with 4 events
    p = np.array([0.2] * 10 + [0.9] * 4)
    o = np.array([1, 0, 0, 0, 0, 1, 1, 0, 0, 0] + [1] * 4)
    day = xr.DataArray(np.arange(14) % 2, dims="sample")
    probability = xr.DataArray(p[None], dims=("threshold", "sample"), coords={"threshold": [1.0]})
    statistics = probability_statistics(probability, xr.DataArray(2.0 * o, dims="sample"), reduce="sample", block=day)
    curve = reliability_curve(statistics, min_count=5, seed=0, n_resamples=50).isel(threshold=0)
    assert curve["count"].values.tolist() == [0, 0, 10, 0, 0, 0, 0, 0, 0, 4, 0]
    assert float(curve["forecast"][2]) == pytest.approx(0.2)
    assert float(curve["observed"][2]) == pytest.approx(0.3)
    for name in ("forecast", "observed", "lower", "upper", "inside"):
        assert np.flatnonzero(curve[name].notnull()).tolist() == [2], name
    # at least as wide as that of 10 independent values, sqrt(0.2 * 0.8 / 10) * 1.645
    assert float(curve["upper"][2]) >= 0.2 + 0.1264 * 1.6448
    assert float(curve["lower"][2]) == 0.0
    assert float(curve["base_rate"]) == pytest.approx(0.5)
    assert curve.attrs == {"level": 0.9}
    with pytest.raises(ValueError, match="no dimension 'block'"):
        reliability_curve(statistics.sum("block"), seed=0)


def test_bars_of_dependent_points_are_wider():
    rng = np.random.default_rng(8)
    p = np.repeat(rng.uniform(size=200), 25)
    o = np.repeat(rng.uniform(size=200) < p[::25], 25)
    probability = xr.DataArray(p[None], dims=("threshold", "sample"), coords={"threshold": [1.0]})
    observed = xr.DataArray(2.0 * o, dims="sample")
    width = []
    for block in (np.arange(5000) // 25, np.arange(5000)):
        statistics = probability_statistics(
            probability, observed, reduce="sample", block=xr.DataArray(block, dims="sample")
        )
        curve = reliability_curve(statistics, seed=0, n_resamples=300).isel(threshold=0, bin=slice(3, 8))
        width.append((curve["upper"] - curve["lower"]).mean())
    assert float(width[0] / width[1]) == pytest.approx(5.0, rel=0.15)


def test_isotonic_fit_is_the_least_squares_one():
    rng = np.random.default_rng(3)
    for n in (1, 2, 7, 40):
        values, weights = rng.normal(size=n) + np.linspace(0.0, 1.0, n), rng.uniform(0.1, 3.0, size=n)
        # the max-min formula, Robertson, Wright and Dykstra 1988, theorem 1.4.4
        mean = np.array(
            [
                [np.average(values[j : k + 1], weights=weights[j : k + 1]) if j <= k else np.nan for k in range(n)]
                for j in range(n)
            ]
        )
        expected = [max(min(mean[j, k] for k in range(i, n)) for j in range(i + 1)) for i in range(n)]
        np.testing.assert_allclose(isotonic(values, weights), expected, rtol=1e-12, atol=1e-14)
    both = isotonic(np.stack([values, -values]), np.stack([weights, weights]))
    np.testing.assert_array_equal(both[0], isotonic(values, weights))
    np.testing.assert_array_equal(both[1], isotonic(-values, weights))


def test_isotonic_fit_does_not_heed_values_without_weight():
    values, weights = np.array([9.0, 1.0, -9.0, 3.0, 2.0, 99.0]), np.array([0.0, 1.0, 0.0, 1.0, 3.0, 0.0])
    assert isotonic(values, weights).tolist() == [1.0, 1.0, 1.0, 2.25, 2.25, 2.25]
    assert np.isnan(isotonic(values, np.zeros(6))).all()
    with pytest.raises(ValueError, match="of one shape"):
        isotonic(values, np.ones(5))
    with pytest.raises(ValueError, match="not negative"):
        isotonic(values, -weights)
    with pytest.raises(ValueError, match="finite values"):
        isotonic(values * np.nan, weights)


def test_recalibration_splits_the_brier_score():
    probability, observed = forecasts(120, power=2.0)
    distorted = {"reliable": probability, "low": probability**2, "flat": xr.full_like(probability, 0.3)}
    found = {}
    for name, values in distorted.items():
        statistics = probability_statistics(values, observed, reduce=ALL, block="day")
        found[name] = curve = corp_curve(statistics)
        np.testing.assert_allclose(curve["brier"], brier(statistics.sum("block")), rtol=1e-14)
        np.testing.assert_allclose(curve["mcb"] - curve["dsc"] + curve["unc"], curve["brier"], rtol=1e-12)
        assert (curve["recalibrated"].ffill("bin").fillna(0.0).diff("bin") >= 0.0).all()
        assert curve["recalibrated"].isnull().equals(curve["count"] == 0.0)
    assert (abs(found["reliable"]["mcb"]) < 0.003).all()
    # a monotone distortion costs calibration alone, to the width of the bins
    np.testing.assert_allclose(found["low"]["dsc"], found["reliable"]["dsc"], atol=0.003)
    assert (found["low"]["mcb"] > 0.003)[:2].all()
    np.testing.assert_allclose(found["flat"]["dsc"], 0.0, atol=1e-12)
    rate = base_rate(statistics.sum("block"))
    np.testing.assert_allclose(found["flat"]["mcb"], (rate - 0.3) ** 2, atol=1e-12)


def test_performance_by_cut_is_that_of_the_contingency_table():
    probability, observed = forecasts(12)
    statistics = probability_statistics(probability, observed, reduce=ALL, block="day")
    curve = performance_curve(statistics).sel(threshold=1.0)
    event = (observed >= 1.0).astype(float).drop_attrs()
    for cut in (0.05, 0.2, 0.41):
        warning = (probability.sel(threshold=1.0, drop=True) >= cut - 1e-7).astype(float)
        table = contingency_statistics(warning, event, thresholds=[1.0], reduce=ALL).squeeze()
        at = curve.sel(cut=cut, method="nearest")
        assert float(at["csi"]) == pytest.approx(float(csi(table)), rel=1e-12)
        assert float(at["frequency_bias"]) == pytest.approx(float(frequency_bias(table)), rel=1e-12)
        hits = float(table["hits"])
        assert float(at["pod"]) == pytest.approx(hits / float(table["hits"] + table["misses"]), rel=1e-12)
        assert float(at["success_ratio"]) == pytest.approx(hits / float(table["hits"] + table["false_alarms"]))
    assert float(curve["pod"][0]) == 1.0
    # nothing is warned of from 0.99
    assert np.isnan(curve["success_ratio"][-1])


def test_curves_keep_other_dimensions():
    probability, observed = forecasts(6)
    statistics = probability_statistics(probability, observed, reduce=["sample", "x"], block="day")
    row = statistics.isel(y=2)
    for curve in (roc_curve, performance_curve, corp_curve):
        xr.testing.assert_allclose(curve(statistics).isel(y=2), curve(row))


def test_histogram_of_the_pit_by_blocks():
    rng = np.random.default_rng(0)
    pit = xr.DataArray(rng.uniform(size=(40, 30, 5)), dims=("sample", "point", "lead_time"))
    pit[0, 0, 0], pit[0, 0, 1] = 1.0, np.nan
    day = xr.DataArray(np.arange(40) // 2, dims="sample")
    mask = xr.DataArray(np.arange(30) != 7, dims="point")
    statistics = pit_statistics(pit, reduce=["point", "sample"], block=day, mask=mask, bins=10)
    assert statistics["count"].dims == ("block", "lead_time", "bin")
    total = statistics.sum("block")
    assert total["n"].values.tolist() == [40 * 29, 40 * 29 - 1, *[40 * 29] * 3]
    values = pit.isel(lead_time=0).where(mask).values
    np.testing.assert_array_equal(
        total["count"][0], np.histogram(values[np.isfinite(values)], np.linspace(0, 1, 11))[0]
    )
    density = pit_density(total)
    np.testing.assert_allclose(density.mean("bin"), 1.0)
    interval = block_bootstrap(statistics.sum("lead_time"), pit_density, seed=0, n_resamples=200)
    assert interval.value.dims == ("bin",)
    assert interval.value["bin_upper"].values[-1] == 1.0
    assert ((interval.lower < 1.0) & (interval.upper > 1.0)).mean() > 0.7
    half = pit_statistics(pit[20:], reduce=["point", "sample"], block=day[20:], mask=mask, bins=10)
    rest = pit_statistics(pit[:20], reduce=["point", "sample"], block=day[:20], mask=mask, bins=10)
    xr.testing.assert_equal(merge_sums(half, rest), statistics)
    with pytest.raises(ValueError, match=re.escape("pit goes from 0.5 to 1.5")):
        pit_statistics(xr.DataArray([0.5, 1.5], dims="sample"), reduce="sample")
    with pytest.raises(ValueError, match="bins=1: a histogram needs two"):
        pit_statistics(pit, reduce="sample", bins=1)
