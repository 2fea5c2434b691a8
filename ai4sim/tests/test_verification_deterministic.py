import tracemalloc
import warnings
from itertools import pairwise

import numpy as np
import pytest
import scores.continuous  # type: ignore[import-untyped]  # has no stubs
import xarray as xr

from ai4sim.verification import (
    bias,
    correlation,
    error_statistics,
    mae,
    mean,
    merge,
    mse,
    pool,
    r2,
    rmse,
    std_ratio,
    variation,
)
from ai4sim.verification import sums as sums_module

METRICS = {
    "mse": mse,
    "rmse": rmse,
    "mae": mae,
    "bias": bias,
    "r2": r2,
    "correlation": correlation,
    "std_ratio": std_ratio,
}


def pair(n: int = 500, levels: int = 4, *, offset: float = 0.0, seed: int = 0) -> tuple[xr.DataArray, xr.DataArray]:
    """Prediction and target (sample, level), the target with another mean and spread on each level."""
    rng = np.random.default_rng(seed)
    coords = {
        "level": np.arange(1, levels + 1),
        "day": ("sample", np.arange(n) // 50),
        "pressure": ("level", np.geomspace(1.0, 1e5, levels), {"units": "Pa"}),
    }
    t = rng.normal(size=(n, levels)) * np.arange(1, levels + 1) + offset + np.arange(levels)
    target = xr.DataArray(t, dims=("sample", "level"), coords=coords, name="drag", attrs={"units": "m s-2"})
    prediction = target + xr.zeros_like(target) + 0.3 * rng.normal(size=t.shape) + 0.1
    return prediction.assign_attrs(target.attrs), target


def numpy_metrics(p: np.ndarray, t: np.ndarray, w: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Textbook formulas over axis 0."""
    w = np.ones_like(t) if w is None else np.broadcast_to(w, t.shape)

    def average(values: np.ndarray) -> np.ndarray:
        return np.asarray((w * values).sum(0) / w.sum(0))

    dp, dt = p - average(p), t - average(t)
    return {
        "mse": average((p - t) ** 2),
        "rmse": np.sqrt(average((p - t) ** 2)),
        "mae": average(abs(p - t)),
        "bias": average(p - t),
        "r2": 1 - average((p - t) ** 2) / average(dt**2),
        "correlation": average(dp * dt) / np.sqrt(average(dp**2) * average(dt**2)),
        "std_ratio": np.sqrt(average(dp**2) / average(dt**2)),
    }


@pytest.mark.parametrize("name", METRICS)
def test_metrics_agree_with_textbook_formulas_with_and_without_weights(name):
    prediction, target = pair()
    weights = xr.DataArray(np.random.default_rng(3).uniform(0.0, 2.0, target.sizes["sample"]), dims="sample")
    plain = error_statistics(prediction, target, reduce="sample")
    weighted = error_statistics(prediction, target, reduce="sample", weights=weights)
    p, t = prediction.values, target.values
    np.testing.assert_allclose(METRICS[name](plain), numpy_metrics(p, t)[name], rtol=1e-12)
    expected = numpy_metrics(p, t, weights.values[:, None])[name]
    np.testing.assert_allclose(METRICS[name](weighted), expected, rtol=1e-12)
    assert METRICS[name](plain).dims == ("level",)
    assert METRICS[name](plain).name == name
    assert METRICS[name](plain)["pressure"].attrs["units"] == "Pa"


def test_metrics_agree_with_the_package_scores():
    prediction, target = pair()
    statistics = error_statistics(prediction, target, reduce=("sample", "level"))
    both = {"fcst": prediction, "obs": target}
    dims = ["sample", "level"]
    for ours, theirs in (
        (mse, scores.continuous.mse(**both, reduce_dims=dims)),
        (rmse, scores.continuous.rmse(**both, reduce_dims=dims)),
        (mae, scores.continuous.mae(**both, reduce_dims=dims)),
        (bias, scores.continuous.additive_bias(**both, reduce_dims=dims)),
        (r2, scores.continuous.nse(**both, reduce_dims=dims)),
        (correlation, scores.continuous.correlation.pearsonr(**both, reduce_dims=dims)),
    ):
        assert float(ours(statistics)) == pytest.approx(float(theirs), rel=1e-12)


def test_hand_computed_values():
    target = xr.DataArray([1.0, 2.0, 3.0, 6.0], dims="sample", attrs={"units": "K"})
    prediction = xr.DataArray([2.0, 2.0, 5.0, 6.0], dims="sample", attrs={"units": "K"})
    statistics = error_statistics(prediction, target, reduce="sample")
    assert float(statistics["n"]) == 4
    assert float(mse(statistics)) == pytest.approx(5 / 4)
    assert float(mae(statistics)) == pytest.approx(3 / 4)
    assert float(bias(statistics)) == pytest.approx(3 / 4)
    assert float(variation(statistics, of="target")) == pytest.approx(14.0)
    assert float(r2(statistics)) == pytest.approx(1 - 5 / 14)
    assert float(mean(statistics, of="target")) == pytest.approx(3.0)
    assert float(mean(statistics, of="prediction")) == pytest.approx(3.75)


def test_units_follow_from_those_of_the_target():
    statistics = error_statistics(*pair(), reduce="sample")
    assert rmse(statistics).attrs["units"] == "m s-2"
    assert mse(statistics).attrs["units"] == "(m s-2)2"
    assert r2(statistics).attrs["units"] == "1"
    kelvin = [array.assign_attrs(units="K") for array in pair()]
    assert mse(error_statistics(*kelvin, reduce="sample")).attrs["units"] == "K2"


@pytest.mark.parametrize("cuts", [[1], [250], [1, 2, 3, 499], list(range(7, 500, 7))])
def test_merged_parts_equal_the_whole_for_any_batch_size(cuts):
    prediction, target = pair(offset=50.0)
    edges = [0, *cuts, target.sizes["sample"]]
    parts = [error_statistics(prediction[a:b], target[a:b], reduce="sample") for a, b in pairwise(edges)]
    whole = error_statistics(prediction, target, reduce="sample")
    forward, backward = merge(*parts), merge(*reversed(parts))
    for metric in METRICS.values():
        np.testing.assert_allclose(metric(forward), metric(whole), rtol=1e-10)
        np.testing.assert_allclose(metric(backward), metric(whole), rtol=1e-10)
    assert forward.attrs == whole.attrs


def test_result_is_independent_of_the_slices(monkeypatch):
    prediction, target = pair()
    target = target.assign_coords(day=("sample", np.random.default_rng(1).integers(0, 9, target.sizes["sample"])))
    prediction = prediction.assign_coords(day=target.day)
    whole = error_statistics(prediction, target, reduce="sample", block="day")
    monkeypatch.setattr(sums_module, "_SLICE_SIZE", 13)
    sliced = error_statistics(prediction, target, reduce="sample", block="day")
    for metric in METRICS.values():
        np.testing.assert_allclose(metric(sliced), metric(whole), rtol=1e-10)
    np.testing.assert_array_equal(sliced["n"], whole["n"])


def test_large_mean_does_no_harm():
    prediction, target = pair(n=4000)
    far = error_statistics(prediction + 1e7, target + 1e7, reduce="sample")
    near = error_statistics(prediction, target, reduce="sample")
    # the inputs themselves are rounded to 1e7 * 2^-53 = 1e-9
    np.testing.assert_allclose(r2(far), r2(near), atol=1e-8)
    np.testing.assert_allclose(correlation(far), correlation(near), atol=1e-8)
    np.testing.assert_allclose(mean(far, of="target") - 1e7, mean(near, of="target"), atol=1e-8)


def test_float32_input_is_summed_in_float64():
    prediction, target = pair(n=20_000)
    single = error_statistics(prediction.astype(np.float32), target.astype(np.float32), reduce="sample")
    assert all(variable.dtype == np.float64 for variable in single.values())
    p, t = prediction.values.astype(np.float32), target.values.astype(np.float32)
    expected = numpy_metrics(p.astype(np.float64), t.astype(np.float64))["r2"]
    np.testing.assert_allclose(r2(single), expected, rtol=1e-12)


def test_blocks_hold_the_sums_of_their_samples_and_add_up_to_the_whole():
    prediction, target = pair()
    blocked = error_statistics(prediction, target, reduce="sample", block="day")
    assert blocked["error"].dims == ("block", "level")
    np.testing.assert_array_equal(blocked["block"], np.arange(10))
    third = error_statistics(prediction[150:200], target[150:200], reduce="sample")
    np.testing.assert_allclose(rmse(blocked.sel(block=3)), rmse(third), rtol=1e-12)
    whole = error_statistics(prediction, target, reduce="sample")
    np.testing.assert_allclose(r2(pool(blocked, dim="block")), r2(whole), rtol=1e-12)


def test_merged_blocks_are_united_and_a_shared_block_is_added_up():
    prediction, target = pair()
    parts = [
        error_statistics(prediction[a], target[a], reduce="sample", block="day")
        for a in (slice(0, 175), slice(175, 500))
    ]
    merged = merge(*parts)
    whole = error_statistics(prediction, target, reduce="sample", block="day")
    np.testing.assert_array_equal(merged["block"], whole["block"])
    np.testing.assert_array_equal(merged["n"], whole["n"])
    np.testing.assert_allclose(r2(merged), r2(whole), rtol=1e-10)


def test_blocks_may_lie_along_a_later_dimension():
    rng = np.random.default_rng(0)
    target = xr.DataArray(rng.normal(size=(6, 3, 40)), dims=("level", "lead_time", "sample"))
    prediction = target + rng.normal(size=target.shape)
    block = xr.DataArray(np.arange(40) // 10, dims="sample")
    statistics = error_statistics(prediction, target, reduce=("lead_time", "sample"), block=block)
    expected = ((prediction - target) ** 2)[:, :, 10:20].mean(("lead_time", "sample")) ** 0.5
    np.testing.assert_allclose(rmse(statistics).sel(block=1), expected, rtol=1e-12)


def test_pooled_levels_equal_the_flattened_data():
    prediction, target = pair(offset=3.0)
    pooled = pool(error_statistics(prediction, target, reduce="sample"), dim="level")
    flat = numpy_metrics(prediction.values.reshape(-1), target.values.reshape(-1))
    for name, metric in METRICS.items():
        assert float(metric(pooled)) == pytest.approx(flat[name], rel=1e-10)


def test_order_of_dimensions_is_free_and_dask_and_chunks_do_not_matter():
    prediction, target = pair()
    expected = rmse(error_statistics(prediction, target, reduce="sample"))
    chunked = error_statistics(prediction.T.chunk(sample=64), target.chunk(sample=130), reduce="sample")
    np.testing.assert_allclose(rmse(chunked), expected, rtol=1e-12)


def test_memory_is_bounded_by_slices_not_by_the_set():
    n = 400_000
    target = xr.DataArray(np.zeros((n, 16), np.float32), dims=("sample", "level"))
    target[::2] = 1.0
    tracemalloc.start()
    error_statistics(target, target, reduce="sample")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert target.nbytes == 25_600_000
    # labels of all samples and a dozen temporaries of 2 MiB; a float64 copy alone would be 51 MB
    assert peak < 32_000_000


def test_constant_target_gives_nan_and_is_named_in_a_warning():
    prediction, target = pair()
    target[:, 1] = 0.1
    statistics = error_statistics(prediction, target, reduce="sample")
    with pytest.warns(UserWarning, match="r2 is undefined where the target is constant: level=2$"):
        values = r2(statistics)
    np.testing.assert_array_equal(np.isnan(values), [False, True, False, False])
    assert np.isnan(correlation(statistics)[1])
    assert np.isnan(std_ratio(statistics)[1])


@pytest.mark.parametrize("value", [0.1, 12345.678, -3e-9])
def test_constant_prediction_has_no_correlation_and_no_spread(value):
    _, target = pair(n=5000)
    constant = xr.full_like(target, value)
    parts = [error_statistics(constant[a : a + 900], target[a : a + 900], reduce="sample") for a in range(0, 5000, 900)]
    statistics = merge(*parts)
    assert np.isnan(correlation(statistics)).all()
    np.testing.assert_array_equal(std_ratio(statistics), np.zeros(4))


def test_climatology_has_r2_of_zero():
    _, target = pair()
    statistics = error_statistics(target.mean("sample").broadcast_like(target), target, reduce="sample")
    np.testing.assert_allclose(r2(statistics), 0.0, atol=1e-12)


def test_empty_set_gives_nan_without_a_warning():
    prediction, target = pair()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        statistics = error_statistics(prediction[:0], target[:0], reduce="sample")
        assert np.isnan(rmse(statistics)).all()
        assert np.isnan(r2(statistics)).all()
    np.testing.assert_array_equal(statistics["n"], np.zeros(4))


@pytest.mark.parametrize("which", ["prediction", "target"])
def test_missing_value_raises_and_is_named(which):
    prediction, target = pair()
    {"prediction": prediction, "target": target}[which][123, 2] = np.nan
    with pytest.raises(ValueError, match=rf"{which} 'drag' .* first at index .*'sample': 123, 'level': 2.*skipna"):
        error_statistics(prediction, target, reduce="sample")


def test_skipna_scores_the_common_valid_pairs_and_says_how_many():
    prediction, target = pair()
    target[:40, 2] = np.nan
    prediction[490:, 2] = np.nan
    statistics = error_statistics(prediction, target, reduce="sample", skipna=True)
    np.testing.assert_array_equal(statistics["n"], [500, 500, 450, 500])
    expected = numpy_metrics(prediction.values[40:490], target.values[40:490])
    for name, metric in METRICS.items():
        assert float(metric(statistics)[2]) == pytest.approx(expected[name][2], rel=1e-12)


def test_infinite_value_raises_even_with_skipna():
    prediction, target = pair()
    prediction[7, 0] = np.inf
    with pytest.raises(ValueError, match="prediction 'drag' has a value that is not finite"):
        error_statistics(prediction, target, reduce="sample", skipna=True)


def test_bad_arguments_are_named():
    prediction, target = pair()
    with pytest.raises(ValueError, match=r"name one or more dimensions of the target"):
        error_statistics(prediction, target, reduce="time")
    with pytest.raises(ValueError, match="prediction has dimensions"):
        error_statistics(prediction[0], target, reduce="sample")
    with pytest.raises(ValueError, match="prediction and target are not on the same coordinates"):
        error_statistics(prediction.assign_coords(level=[2, 3, 4, 5]), target, reduce="sample")
    with pytest.raises(ValueError, match="prediction is in 'm s-1' and target in 'm s-2'"):
        error_statistics(prediction.assign_attrs(units="m s-1"), target, reduce="sample")
    with pytest.raises(ValueError, match="weights must be finite and not negative"):
        error_statistics(prediction, target, reduce="sample", weights=xr.DataArray([-1, 1, 1, 1], dims="level"))
    with pytest.raises(ValueError, match=r"weights have dimensions \['lat'\]"):
        error_statistics(prediction, target, reduce="sample", weights=xr.DataArray([1.0], dims="lat"))
    with pytest.raises(ValueError, match="block='month' is no coordinate of the target"):
        error_statistics(prediction, target, reduce="sample", block="month")
    with pytest.raises(ValueError, match="must label positions along one of"):
        error_statistics(prediction, target, reduce="sample", block="level")
    with pytest.raises(ValueError, match=r"no dimension \['lat'\] to pool over"):
        pool(error_statistics(prediction, target, reduce="sample"), dim="lat")


def test_statistics_that_do_not_fit_together_cannot_be_merged():
    prediction, target = pair()
    statistics = error_statistics(prediction, target, reduce="sample")
    with pytest.raises(ValueError, match="at least one"):
        merge()
    with pytest.raises(ValueError, match="'K' cannot be merged with statistics in 'm s-2'"):
        merge(statistics, statistics.assign_attrs(units="K"))
    with pytest.raises(ValueError, match="different coordinates"):
        merge(statistics, statistics.isel(level=slice(2)))
    with pytest.raises(ValueError, match="reduce the same dimensions"):
        merge(statistics, pool(statistics, dim="level"))


def test_sums_added_without_merge_are_refused_where_the_shift_matters():
    prediction, target = pair()
    a, b = (error_statistics(prediction[s], target[s], reduce="sample") for s in (slice(99), slice(99, None)))
    with pytest.raises(ValueError, match=r"use merge\(\)"):
        mean(a + b, of="target")
