import numpy as np
import pytest
import xarray as xr

from ai4sim.verification import (
    block_bootstrap,
    merge_sums,
    metric_info,
    outlier_fraction,
    outlier_ratio,
    rank_chi2,
    rank_curve,
    rank_histogram,
    rank_statistics,
)

ALL = ["sample", "y", "x"]


def ensemble(n: int = 40, size: int = 8, points: int = 16, *, wet: float = 1.0, sharp: float = 1.0, seed: int = 0):
    """Exchangeable members and target; a share `wet` of the values is not zero."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, size + 1, points, points))
    values[:, 1:] *= sharp
    values = np.maximum(values - np.quantile(values, 1.0 - wet), 0.0) if wet < 1.0 else values
    coords = {"sample": np.arange(n), "day": ("sample", np.arange(n) // 4)}
    fields = xr.DataArray(values, dims=("sample", "member", "y", "x"), coords=coords, attrs={"units": "mm"})
    return fields[:, 1:], fields[:, 0]


def test_ranks_are_those_counted_one_by_one():
    members, target = ensemble(3, 4, 3)
    statistics = rank_statistics(members, target, reduce=["sample", "x"])
    assert statistics["count"].dims == ("y", "rank")
    assert statistics["rank"].values.tolist() == [0, 1, 2, 3, 4]
    assert statistics.attrs == {}
    expected = np.zeros((3, 5))
    for (sample, y, x), value in np.ndenumerate(target.values):
        expected[y, (members.values[sample, :, y, x] < value).sum()] += 1
    np.testing.assert_array_equal(statistics["count"], expected)
    np.testing.assert_array_equal(statistics["n"], 9.0)


@pytest.mark.parametrize("wet", [1.0, 0.3])
def test_histogram_of_an_exchangeable_ensemble_is_flat_also_with_zeros(wet):
    members, target = ensemble(200, wet=wet)
    if wet < 1.0:
        assert float((target == 0).mean()) == pytest.approx(0.7, abs=0.01)
    statistics = rank_statistics(members, target, reduce=ALL, block="day")
    total = statistics.sum("block")
    np.testing.assert_allclose(rank_histogram(total), 1.0, atol=0.05)
    assert 0.1 < float(rank_chi2(total)) < 2.5
    assert float(outlier_ratio(total)) == pytest.approx(1.0, abs=0.03)
    assert float(outlier_fraction(total)) == pytest.approx(2.0 / 9.0, abs=0.01)
    curve = rank_curve(statistics, seed=0, n_resamples=200)
    inside = (curve["frequency"] >= curve["lower"]) & (curve["frequency"] <= curve["upper"])
    assert int(inside.sum()) >= 7
    assert curve.attrs == {"level": 0.95}


def test_too_little_spread_is_u_shaped():
    statistics = rank_statistics(*ensemble(sharp=0.5), reduce=ALL, block="day")
    total = statistics.sum("block")
    histogram = rank_histogram(total)
    assert float(histogram[0]) > 1.5
    assert float(histogram[-1]) > 1.5
    assert float(histogram[4]) < 1.0
    assert float(outlier_ratio(total)) > 1.5
    assert float(rank_chi2(total)) > 50.0
    interval = block_bootstrap(statistics, outlier_ratio, seed=0, n_resamples=100)
    assert interval.lower > 1.5
    for metric in (rank_chi2, outlier_fraction, outlier_ratio):
        assert metric_info(metric.__name__)
        assert metric(total).attrs == {"units": "1"}


def test_ties_do_not_depend_on_cuts_chunks_or_the_order_of_dimensions(monkeypatch):
    members, target = ensemble(wet=0.3)
    whole = rank_statistics(members, target, reduce=ALL, block="day", seed=3)
    again = rank_statistics(
        members.transpose("x", "member", "y", "sample").chunk({"sample": 3}),
        target.transpose("y", "x", "sample"),
        reduce=["x", "sample", "y"],
        block="day",
        seed=3,
    )
    xr.testing.assert_identical(again, whole)
    parts = [
        rank_statistics(members[cut], target[cut], reduce=ALL, block="day", seed=3)
        for cut in (slice(7, 40), slice(0, 7))
    ]
    xr.testing.assert_identical(merge_sums(*parts), whole)
    monkeypatch.setattr("ai4sim.verification.sums._SLICE_SIZE", 3000)
    xr.testing.assert_identical(rank_statistics(members, target, reduce=ALL, block="day", seed=3), whole)
    other = rank_statistics(members, target, reduce=ALL, block="day", seed=4)
    assert not other.equals(whole)
    assert float(abs(other["count"].sum("block") - whole["count"].sum("block")).max()) < 200.0


@pytest.mark.parametrize("labels", ["dates", "words", "repeated", "none"])
def test_ties_are_uniform_whatever_labels_the_samples_have(labels):
    members = xr.DataArray(np.zeros((4000, 4)), dims=("sample", "member"))
    target = xr.DataArray(np.zeros(4000), dims="sample")
    known = {
        "dates": np.datetime64("2020-01-01", "ns") + np.arange(4000) * np.timedelta64(6, "h"),
        "words": [f"case {i}" for i in range(4000)],
        "repeated": np.arange(4000) // 16,
    }
    if labels in known:
        members, target = (part.assign_coords(sample=known[labels]) for part in (members, target))
    statistics = rank_statistics(members, target, reduce="sample")
    np.testing.assert_allclose(rank_histogram(statistics), 1.0, atol=0.12)
    assert float(rank_chi2(statistics)) < 3.0


def test_missing_values_are_refused_or_left_out():
    members, target = ensemble(4, 3, 4)
    broken = members.copy()
    broken[1, 2, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"first at index .*'member': 2"):
        rank_statistics(broken, target, reduce=ALL)
    statistics = rank_statistics(broken, target, reduce=ALL, skipna=True)
    assert float(statistics["n"]) == float(statistics["count"].sum()) == target.size - 1
    with pytest.raises(ValueError, match="no dimension 'realization'"):
        rank_statistics(members, target, member="realization", reduce=ALL)


def test_no_samples_have_no_ranks():
    members, target = (part[:0] for part in ensemble(3, 3, 2))
    statistics = rank_statistics(members, target, reduce=ALL)
    for metric in (rank_histogram, rank_chi2, outlier_ratio):
        assert np.isnan(metric(statistics)).all()


def test_band_without_blocks_is_that_of_independent_values():
    members, target = ensemble(10)
    curve = rank_curve(rank_statistics(members, target, reduce=ALL), seed=0)
    np.testing.assert_allclose(curve["upper"] - 1.0, 1.96 * np.sqrt(8.0 / target.size), rtol=1e-3)
