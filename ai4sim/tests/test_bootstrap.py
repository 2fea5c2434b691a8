from typing import Any

import numpy as np
import pytest
import xarray as xr

from ai4sim.verification import (
    bias,
    block_bootstrap,
    block_labels,
    bootstrap_difference,
    bootstrap_skill,
    error_statistics,
    mse,
    pool,
    r2,
    rmse,
)
from ai4sim.verification import bootstrap as bootstrap_module
from ai4sim.verification.bootstrap import _expanded_tail, _student_t


def errors(blocks: int, size: int, *, seed: int, shared: float = 1.0, noise: float = 1.0) -> xr.DataArray:
    """Errors (sample) that share a part within each block."""
    rng = np.random.default_rng(seed)
    values = np.repeat(shared * rng.normal(size=blocks), size) + noise * rng.normal(size=blocks * size)
    coords = {"day": ("sample", np.repeat(np.arange(blocks), size))}
    return xr.DataArray(values, dims="sample", coords=coords, attrs={"units": "K"})


def statistics_of(error: xr.DataArray, target: xr.DataArray | None = None) -> xr.Dataset:
    target = xr.zeros_like(error) if target is None else target
    return error_statistics(target + error, target, reduce="sample", block="day")


def mean_error(statistics: xr.Dataset) -> xr.DataArray:
    return statistics["error"] / statistics["weight"]


def test_value_is_that_of_the_whole_set_and_lies_in_its_interval():
    statistics = statistics_of(errors(20, 30, seed=0))
    interval = block_bootstrap(statistics, rmse, seed=1)
    assert float(interval.value) == float(rmse(pool(statistics, dim="block")))
    assert interval.lower < interval.value < interval.upper
    assert interval.upper.attrs == {"units": "K"}
    assert interval.upper.name == "rmse"


def test_agrees_with_naive_resampling_of_the_samples():
    error = errors(25, 8, seed=3)
    statistics = statistics_of(error)
    interval = block_bootstrap(statistics, rmse, seed=0, n_resamples=4000)
    rng = np.random.default_rng(99)
    days = error.values.reshape(25, 8)
    naive = [np.sqrt((days[rng.integers(0, 25, 25)] ** 2).mean()) for _ in range(4000)]
    tail = _expanded_tail(25, 0.95)
    lower, upper = np.quantile(naive, [tail, 1 - tail])
    width = upper - lower
    assert float(interval.lower) == pytest.approx(lower, abs=0.06 * width)
    assert float(interval.upper) == pytest.approx(upper, abs=0.06 * width)


def test_is_exactly_the_resampling_of_blocks_written_out():
    target = errors(6, 5, seed=1)
    error = errors(6, 5, seed=2)
    statistics = statistics_of(error, target)
    counts = np.random.default_rng(7).multinomial(6, np.full(6, 1 / 6), size=50)
    values = []
    for row in counts:
        chosen = np.concatenate([np.flatnonzero(error.day.values == day) for day in np.repeat(np.arange(6), row)])
        t, e = target.values[chosen], error.values[chosen]
        values.append(1 - (e**2).sum() / ((t - t.mean()) ** 2).sum())
    tail = _expanded_tail(6, 0.9)
    interval = block_bootstrap(statistics, r2, seed=7, n_resamples=50, level=0.9)
    np.testing.assert_allclose(interval[1:], np.quantile(values, [tail, 1 - tail]), rtol=1e-10)


@pytest.mark.parametrize("blocks", [8, 40])
def test_coverage_is_near_nominal_for_dependent_samples(blocks):
    trials, level = 400, 0.95
    rng = np.random.default_rng(12)
    # (trial, block, sample): half of the variance is common to a block; the true mean error is 0
    values = rng.normal(size=(trials, blocks, 1)) + rng.normal(size=(trials, blocks, 5))
    error = xr.DataArray(
        values.reshape(trials, -1),
        dims=("trial", "sample"),
        coords={"day": ("sample", np.repeat(np.arange(blocks), 5))},
    )
    interval = block_bootstrap(statistics_of(error), mean_error, seed=5, level=level)
    covered = float(((interval.lower < 0) & (interval.upper > 0)).mean())
    # three standard errors of a share of 400 trials are 0.033
    assert 0.915 <= covered <= 0.985


def test_blocks_of_dependent_samples_give_wider_intervals_than_single_samples():
    error = errors(30, 40, seed=0)
    single = error.assign_coords(day=("sample", np.arange(error.size)))
    by_day = block_bootstrap(statistics_of(error), mean_error, seed=0)
    by_sample = block_bootstrap(statistics_of(single), mean_error, seed=0)
    # variance of the mean: 1/30 + 1/1200 against 2/1200
    ratio = (by_day.upper - by_day.lower) / (by_sample.upper - by_sample.lower)
    assert float(ratio) == pytest.approx(np.sqrt((1 / 30 + 1 / 1200) / (2 / 1200)), rel=0.3)


def test_same_seed_same_interval_and_batches_do_not_matter(monkeypatch):
    statistics = statistics_of(errors(12, 4, seed=0))
    first = block_bootstrap(statistics, rmse, seed=4)
    monkeypatch.setattr(bootstrap_module, "_BATCH_SIZE", 100)
    second = block_bootstrap(statistics, rmse, seed=4)
    np.testing.assert_allclose(first[1:], second[1:], rtol=1e-13)
    assert float(block_bootstrap(statistics, rmse, seed=5).lower) != float(first.lower)


def test_metric_may_keep_dimensions_and_combine_cells():
    rng = np.random.default_rng(0)
    target = xr.DataArray(
        rng.normal(size=(90, 3)),
        dims=("sample", "level"),
        coords={"level": [1, 2, 3], "day": ("sample", np.arange(90) // 9)},
    )
    prediction = target + 0.1 * np.arange(1, 4) * rng.normal(size=target.shape)
    statistics = error_statistics(prediction, target, reduce="sample", block="day")
    profile = block_bootstrap(statistics, r2, seed=0)
    assert profile.lower.dims == ("level",)
    np.testing.assert_array_equal(profile.lower.level, [1, 2, 3])
    for level in (1, 2, 3):
        single = block_bootstrap(statistics.sel(level=level), r2, seed=0)
        np.testing.assert_allclose(profile.upper.sel(level=level), single.upper, rtol=1e-12)
    mean_level = block_bootstrap(statistics, lambda sums: r2(sums).mean("level"), seed=0)
    assert float(mean_level.value) == pytest.approx(float(profile.value.mean()))
    pooled = block_bootstrap(statistics, lambda sums: rmse(pool(sums, dim="level")), seed=0)
    assert float(pooled.value) == pytest.approx(float(((prediction - target) ** 2).mean() ** 0.5))


def test_paired_difference_is_sharper_than_the_two_intervals():
    common = errors(15, 10, seed=0, shared=3.0, noise=1.0)
    better, worse = statistics_of(common), statistics_of(1.1 * common)
    difference = bootstrap_difference(better, worse, rmse, seed=0)
    ours, theirs = block_bootstrap(better, rmse, seed=0), block_bootstrap(worse, rmse, seed=0)
    assert float(difference.value) == pytest.approx(float(ours.value - theirs.value))
    assert difference.upper < 0
    assert ours.upper > theirs.lower
    assert difference.value.attrs == {"units": "K"}


def test_skill_is_one_for_the_perfect_and_zero_for_the_equal_model():
    error = errors(15, 10, seed=0)
    target = errors(15, 10, seed=1)
    baseline = statistics_of(error, target)
    perfect = statistics_of(0 * error, target)
    assert np.allclose(bootstrap_skill(perfect, baseline, mse, seed=0), 1.0)
    assert np.allclose(bootstrap_skill(baseline, baseline, mse, seed=0), 0.0)
    half = bootstrap_skill(statistics_of(0.5 * error, target), baseline, mse, seed=0)
    # errors in a fixed ratio: no uncertainty of the skill, whatever that of the scores
    np.testing.assert_allclose(half, 0.75, rtol=1e-12)
    assert half.value.attrs == {"units": "1"}
    by_r2 = bootstrap_skill(statistics_of(0.5 * error, target), baseline, r2, perfect=1.0, seed=0)
    np.testing.assert_allclose(by_r2, 0.75, rtol=1e-9)
    assert np.isnan(float(bootstrap_skill(baseline, perfect, mse, seed=0).value))


def test_models_must_be_scored_on_the_same_samples():
    a, b = statistics_of(errors(5, 4, seed=0)), statistics_of(errors(6, 4, seed=0))
    with pytest.raises(ValueError, match="different blocks"):
        bootstrap_difference(a, b, rmse, seed=0)
    with pytest.raises(ValueError, match="different numbers of samples"):
        bootstrap_skill(a, statistics_of(errors(5, 3, seed=0)), rmse, seed=0)


def test_single_block_has_no_interval():
    with pytest.warns(UserWarning, match="one block only: no confidence interval"):
        interval = block_bootstrap(statistics_of(errors(1, 50, seed=0)), rmse, seed=0)
    assert np.isfinite(interval.value)
    assert np.isnan(interval.lower)
    assert np.isnan(interval.upper)


def test_bad_arguments_are_named():
    statistics = statistics_of(errors(5, 4, seed=0))
    with pytest.raises(ValueError, match="no dimension 'block'"):
        block_bootstrap(pool(statistics, dim="block"), rmse, seed=0)
    with pytest.raises(ValueError, match=r"level=95"):
        block_bootstrap(statistics, rmse, seed=0, level=95)
    with pytest.raises(ValueError, match="n_resamples=1"):
        block_bootstrap(statistics, rmse, seed=0, n_resamples=1)


def test_block_labels_combine_coordinates():
    file = xr.DataArray(["a", "a", "a", "b", "b"], dims="sample")
    time = xr.DataArray(
        np.array(["2017-01-01T00", "2017-01-01T20", "2017-01-02T16", "2017-01-01T00", "2017-01-01T20"], "M8[ns]"),
        dims="sample",
    )
    labels = block_labels(file, time.dt.floor("D"))
    assert labels.dims == ("sample",)
    np.testing.assert_array_equal(np.unique(labels, return_inverse=True)[1], [0, 0, 1, 2, 2])
    np.testing.assert_array_equal(labels[3:], block_labels(file[3:], time[3:].dt.floor("D")))
    with pytest.raises(ValueError, match="1-D arrays along one dimension"):
        block_labels(file, time.rename(sample="time"))


@pytest.mark.parametrize(("degrees", "expected"), [(3, 3.18245), (4, 2.77645), (9, 2.26216), (29, 2.04523)])
def test_quantiles_of_students_t_agree_with_published_tables(degrees, expected):
    assert _student_t(0.975, degrees) == pytest.approx(expected, rel=3e-3)


def test_expansion_vanishes_for_many_blocks():
    tails: list[Any] = [_expanded_tail(blocks, 0.95) for blocks in (5, 20, 100, 100_000)]
    assert tails == sorted(tails)
    assert tails[-1] == pytest.approx(0.025, rel=1e-3)


def test_skill_of_a_metric_that_misses_on_either_side_counts_the_distance():
    error = errors(15, 10, seed=0)
    target = errors(15, 10, seed=1)
    small, large = (statistics_of(error - error.mean() + shift, target) for shift in (1.0, -5.0))
    assert float(bootstrap_skill(large, small, bias, seed=0).value) == pytest.approx(-4.0)
    assert float(bootstrap_skill(small, large, bias, seed=0).value) == pytest.approx(0.8)
