from functools import partial

import numpy as np
import pytest
import xarray as xr

from ai4sim.verification import (
    block_bootstrap,
    density,
    distribution_curve,
    histogram_statistics,
    merge_sums,
    metric_info,
    quantile,
    quantile_ratio,
    value_edges,
)

ALL = ["sample", "y", "x"]


def rain(n: int = 40, members: int = 4, points: int = 24, *, seed: int = 0):
    """Skewed amounts of which 60 % are zero."""
    rng = np.random.default_rng(seed)
    values = np.maximum(rng.gamma(0.5, 4.0, size=(n, members + 1, points, points)) - 1.5, 0.0)
    coords = {"day": ("sample", np.arange(n) // 4)}
    fields = xr.DataArray(values, dims=("sample", "member", "y", "x"), coords=coords, attrs={"units": "mm"}, name="tp")
    return fields[:, 1:], fields[:, 0]


def test_counts_are_those_of_numpy_with_a_share_for_each_member():
    members, target = rain(4)
    edges = [0.0, 0.5, 2.0, 5.0]
    statistics = histogram_statistics(members, target, edges=edges, reduce=ALL, block="day")
    assert statistics["target_count"].dims == ("block", "bin")
    assert float(statistics["n"].sum()) == target.size
    np.testing.assert_allclose(statistics["prediction_count"].sum("bin"), statistics["n"])
    for side, values in {"prediction": members, "target": target}.items():
        expected = np.histogram(values, [-np.inf, *edges, np.inf])[0] * target.size / values.size
        np.testing.assert_allclose(statistics[f"{side}_count"].sum("block"), expected)
    assert statistics["bin_lower"].values.tolist() == [-np.inf, *edges]


def test_quantiles_are_right_to_the_width_of_a_bin():
    members, target = rain()
    edges = value_edges(members, target)
    statistics = histogram_statistics(members, target, edges=edges, reduce=ALL)
    found = quantile(statistics, of="prediction", q=(0.5, 0.9, 0.99, 0.999, 0.9999))
    expected = np.quantile(members, [0.5, 0.9, 0.99, 0.999, 0.9999], method="inverted_cdf")
    assert found.dims == ("quantile",)
    assert found.attrs == {"units": "mm"}
    assert float(abs(found - expected).max()) <= edges[1] - edges[0] + 1e-9
    single = quantile(statistics, of="target", q=0.99)
    assert single.dims == ()
    assert abs(float(single) - np.quantile(target, 0.99)) <= 2 * (edges[1] - edges[0])
    ratio = quantile_ratio(statistics)
    assert ratio["quantile"].values.tolist() == [0.99, 0.999, 0.9999]
    truth = quantile(statistics, of="target")
    np.testing.assert_allclose(ratio, quantile(statistics, of="prediction") / truth)
    assert metric_info("q9999_quantile_ratio").perfect == 1.0


def test_quantiles_beyond_the_edges_are_undefined():
    members, target = rain(4)
    statistics = histogram_statistics(members, target, edges=np.linspace(0.5, 3.0, 100), reduce=ALL)
    found = quantile(statistics, of="target", q=(0.1, 0.8, 0.9999))
    assert np.isnan(found).values.tolist() == [True, False, True]
    with pytest.raises(ValueError, match="quantiles need probabilities between 0 and 1"):
        quantile(statistics, of="target", q=99.0)


def test_ratio_has_an_interval_over_blocks():
    members, target = rain()
    edges = value_edges(members, target, bins=500)
    statistics = histogram_statistics(members, target, edges=edges, reduce=ALL, block="day")
    interval = block_bootstrap(statistics, partial(quantile_ratio, q=0.999), seed=0, n_resamples=200)
    assert interval.lower < 1.0 < interval.upper
    assert interval.value.attrs == {"units": "1"}


def test_parts_in_any_order_and_layout_give_the_whole(monkeypatch):
    members, target = rain(8)
    arguments = {"edges": value_edges(members, target, bins=50), "reduce": ["sample", "x"], "block": "day"}
    whole = histogram_statistics(members, target, **arguments)
    assert whole["target_count"].dims == ("block", "y", "bin")
    parts = [
        histogram_statistics(
            members[cut].transpose("x", "member", "y", "sample").chunk({"sample": 1}),
            target[cut].transpose("x", "y", "sample"),
            **arguments,
        )
        for cut in (slice(3, 8), slice(0, 3))
    ]
    xr.testing.assert_allclose(merge_sums(*parts), whole, rtol=1e-12)
    monkeypatch.setattr("ai4sim.verification.sums._SLICE_SIZE", 500)
    xr.testing.assert_allclose(histogram_statistics(members, target, **arguments), whole, rtol=1e-12)


def test_without_a_truth_or_members_there_are_the_counts_of_the_prediction():
    members, target = rain(4)
    edges = value_edges(members, target, bins=50)
    alone = histogram_statistics(members, edges=edges, reduce=ALL)
    both = histogram_statistics(members, target, edges=edges, reduce=ALL)
    xr.testing.assert_identical(alone, both.drop_vars("target_count"))
    plain = histogram_statistics(target, target, edges=edges, reduce=ALL)
    np.testing.assert_array_equal(plain["prediction_count"], both["target_count"])


def test_density_integrates_to_one():
    members, target = rain(4)
    statistics = histogram_statistics(members, target, edges=value_edges(members, target), reduce=ALL, block="day")
    for bins in (60, 7, 2000):
        found = density(statistics, of="prediction", bins=bins)
        assert found.sizes["bin"] <= bins
        assert float((found * (found["bin_upper"] - found["bin_lower"])).sum()) == pytest.approx(1.0, rel=1e-12)
    assert found.attrs == {"long_name": "probability density", "units": "mm-1"}
    curve = distribution_curve(statistics, of="target", q=(0.99,))
    assert curve["density"].dims == ("bin",)
    assert curve["value"].dims == ("quantile",)
    assert curve.attrs == {"units": "mm"}


def test_edges_hold_all_values_also_of_a_constant():
    members, target = rain(4)
    edges = value_edges(members.chunk({"sample": 1}), target, bins=10)
    assert len(edges) == 11
    assert edges[0] == float(min(members.min(), target.min()))
    assert edges[-1] > float(max(members.max(), target.max()))
    constant = value_edges(xr.DataArray(np.full(3, 280.0)), bins=4)
    assert (np.diff(constant) > 0).all()
    gap = target.copy()
    gap[0] = np.nan
    np.testing.assert_array_equal(value_edges(gap, bins=3), value_edges(target[1:], bins=3))
    with pytest.raises(ValueError, match="have values from inf to -inf"):
        value_edges(xr.full_like(target, np.nan))


def test_missing_values_and_wrong_edges_are_named():
    members, target = rain(4)
    broken = members.copy()
    broken[1, 2, 3, 4] = np.nan
    with pytest.raises(ValueError, match=r"'sample': 1.*'member': 2"):
        histogram_statistics(broken, target, edges=[0.0, 1.0], reduce=ALL)
    statistics = histogram_statistics(broken, target, edges=[0.0, 1.0], reduce=ALL, skipna=True)
    assert float(statistics["n"]) == target.size - 1
    assert float(statistics["prediction_count"].sum()) == pytest.approx(target.size - 1)
    dry = histogram_statistics(members, target, edges=[0.0, 1.0], reduce=ALL, mask=target == 0)
    assert float(dry["target_count"].sum() - dry["target_count"][1]) == 0.0
    with pytest.raises(ValueError, match="give two or more that increase"):
        histogram_statistics(members, target, edges=[1.0, 0.0], reduce=ALL)
    with pytest.raises(ValueError, match="the dimension 'member' is empty"):
        histogram_statistics(members.isel(member=slice(0)), target, edges=[0.0, 1.0], reduce=ALL)
    empty = histogram_statistics(members[:0], target[:0], edges=[0.0, 1.0], reduce=ALL)
    assert np.isnan(quantile(empty, of="target")).all()
    assert np.isnan(density(empty, of="target")).all()
