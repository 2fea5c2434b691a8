import json

import numpy as np
import pytest
import torch

from ai4sim.normalization import FeatureStatistics, Normalizer, NotFittedError, RunningStatistics, Scale


@pytest.fixture
def rows() -> np.ndarray:
    rng = np.random.default_rng(1)
    # a mean far above the spread, as temperatures and pressures have
    return rng.normal([0.0, 1e5, -3e4], [1.0, 0.5, 1e-2], (5000, 3))


def test_streaming_equals_two_pass_whatever_the_blocks(rows):
    for size in (1, 7, 999, 5000):
        statistics = RunningStatistics(3)
        for start in range(0, len(rows), size):
            statistics.update(rows[start : start + size])
        result = statistics.result()
        assert result.count == 5000
        np.testing.assert_allclose(result.mean, rows.mean(0), rtol=1e-13)
        np.testing.assert_allclose(result.std, rows.std(0), rtol=1e-9)
        np.testing.assert_array_equal(result.minimum, rows.min(0))
        np.testing.assert_array_equal(result.maximum, rows.max(0))


def test_merging_parts_equals_one_pass_and_empty_blocks_change_nothing(rows):
    whole = RunningStatistics(3).update(rows).result()
    first = RunningStatistics(3).update(rows[:100]).update(rows[:0])
    merged = first.merge(RunningStatistics(3)).merge(RunningStatistics(3).update(rows[100:])).result()
    np.testing.assert_allclose(merged.std, whole.std, rtol=1e-9)
    assert merged.count == whole.count


def test_missing_values_are_left_out_feature_by_feature(rows):
    rows[::3, 0] = np.nan
    rows[1000:2000, 1] = np.nan
    statistics = RunningStatistics(3)
    for start in range(0, len(rows), 500):
        statistics.update(rows[start : start + 500], skipna=True)
    result = statistics.result()
    np.testing.assert_allclose(result.mean, np.nanmean(rows, axis=0), rtol=1e-12)
    np.testing.assert_allclose(result.std, np.nanstd(rows, axis=0), rtol=1e-9)
    np.testing.assert_array_equal(result.minimum, np.nanmin(rows, axis=0))
    np.testing.assert_array_equal(result.maximum, np.nanmax(rows, axis=0))
    assert result.count == 5000


def test_a_feature_of_nothing_but_missing_values_is_refused(rows):
    rows[:, 2] = np.nan
    with pytest.raises(NotFittedError, match=r"features \[2\] have nothing but missing values"):
        RunningStatistics(3).update(rows, skipna=True).result()


def test_statistics_of_scaled_rows(rows):
    factor = np.array([2.0, 0.5, 10.0])
    scaled, direct = RunningStatistics(3).update(rows).scaled(factor), RunningStatistics(3).update(rows * factor)
    for name in ("mean", "std", "minimum", "maximum"):
        np.testing.assert_allclose(getattr(scaled.result(), name), getattr(direct.result(), name), rtol=1e-10)


def test_statistics_of_nothing_do_not_exist():
    with pytest.raises(NotFittedError, match="no rows were seen"):
        RunningStatistics(2).result()


def test_json_round_trip(rows):
    statistics = RunningStatistics(3).update(rows).result()
    again = FeatureStatistics.from_dict(json.loads(json.dumps(statistics.to_dict())))
    np.testing.assert_array_equal(again.std, statistics.std)
    assert again.count == statistics.count


def test_normalizer_is_invertible_and_travels_in_the_state_dict():
    normalizer = Normalizer(2).fit([250.0, 0.0], [10.0, 2.0])
    x = torch.tensor([[260.0, -4.0]])
    torch.testing.assert_close(normalizer(x), torch.tensor([[1.0, -2.0]]))
    other = Normalizer(2)
    assert not other.is_fitted
    other.load_state_dict(normalizer.state_dict())
    assert other.is_fitted
    torch.testing.assert_close(other.inverse(other(x)), x)
    assert not list(normalizer.parameters())


def test_unfitted_normalizer_refuses():
    with pytest.raises(NotFittedError, match="no statistics"):
        Normalizer(2).require_fitted()
    assert torch.isnan(Normalizer(2)(torch.zeros(1, 2))).all()


@pytest.mark.parametrize(
    ("std", "message"),
    [([1.0], "shape"), ([1.0, 0.0], "positive"), ([1.0, float("nan")], "finite")],
)
def test_bad_statistics_are_refused(std, message):
    with pytest.raises(ValueError, match=message):
        Normalizer(2).fit([0.0, 0.0], std)
    with pytest.raises(ValueError, match=message):
        Scale(2).fit(std)


def test_scale_removes_no_mean():
    scale = Scale(2).fit([2.0, 4.0])
    torch.testing.assert_close(scale(torch.tensor([4.0, 4.0])), torch.tensor([2.0, 1.0]))
    torch.testing.assert_close(scale.inverse(torch.ones(2)), torch.tensor([2.0, 4.0]))


def test_features_that_do_not_vary_are_left_unscaled_and_named(caplog):
    rows = np.tile([1e5 / 3, 0.0, 2.0], (1000, 1))
    rows[:, 2] += np.random.default_rng(0).normal(0, 1, 1000)
    statistics = RunningStatistics(3).update(rows).result()
    std = statistics.usable_std(["surface pressure", "mask", "wind"])
    np.testing.assert_array_equal(std[:2], 1.0)
    assert std[2] == pytest.approx(rows[:, 2].std())
    assert caplog.messages == ["constant in the training rows, and left unscaled: surface pressure, mask"]
