import numpy as np
import pytest
import scores.probability
import xarray as xr

from ai4sim.verification import (
    bias,
    block_bootstrap,
    crps,
    ensemble_statistics,
    mae,
    merge_sums,
    metric_info,
    plain_crps,
    rmse,
    spread,
    spread_skill_curve,
    spread_skill_statistics,
    ssr,
    std_dev,
)

ALL = ["sample", "y", "x"]


def ensemble(n: int = 12, size: int = 5, points: int = 8, *, seed: int = 0, sharp: float = 1.0):
    """Members (sample, member, y, x) and a target, all draws around one mean; 3 samples a day."""
    rng = np.random.default_rng(seed)
    mean = 280.0 + 10.0 * rng.normal(size=(n, 1, points, points))
    width = rng.uniform(0.5, 2.0, mean.shape)
    members = mean + sharp * width * rng.normal(size=(n, size, points, points))
    target = (mean + width * rng.normal(size=mean.shape))[:, 0]
    coords = {"sample": np.arange(n), "day": ("sample", np.arange(n) // 3)}
    return (
        xr.DataArray(members, dims=("sample", "member", "y", "x"), coords=coords, attrs={"units": "K"}, name="t2m"),
        xr.DataArray(target, dims=("sample", "y", "x"), coords=coords, attrs={"units": "K"}, name="t2m"),
    )


def column(members, target: float) -> xr.Dataset:
    return ensemble_statistics(
        xr.DataArray([members], dims=("sample", "member")), xr.DataArray([target], dims="sample"), reduce="sample"
    )


def test_example_of_three_members():
    statistics = column([0.0, 1.0, 3.0], 2.0)
    assert float(plain_crps(statistics)) == pytest.approx(2.0 / 3.0, abs=1e-12)
    assert float(crps(statistics)) == pytest.approx(1.0 / 3.0, abs=1e-12)
    assert int(statistics["members"]) == 3
    assert float(statistics["variance"]) == pytest.approx(np.var([0, 1, 3], ddof=1))
    assert float(std_dev(statistics)) == pytest.approx(np.std([0, 1, 3]))
    assert float(bias(statistics)) == pytest.approx(-2.0 / 3.0)


def test_single_member_has_the_absolute_error_and_no_spread():
    statistics = column([1.0], 3.5)
    assert float(crps(statistics)) == float(plain_crps(statistics)) == float(mae(statistics)) == 2.5
    assert np.isnan(spread(statistics))
    assert np.isnan(ssr(statistics))
    assert float(rmse(statistics)) == 2.5


@pytest.mark.parametrize("size", [4, 32])
def test_fair_crps_of_normal_draws_does_not_depend_on_their_number(size):
    rng = np.random.default_rng(size)
    members = xr.DataArray(rng.normal(size=(40_000, size)), dims=("sample", "member"))
    target = xr.DataArray(rng.normal(size=40_000), dims="sample")
    statistics = ensemble_statistics(members, target, reduce="sample")
    assert float(crps(statistics)) == pytest.approx(1.0 / np.sqrt(np.pi), abs=0.01)
    # the expected excess of the plain one
    excess = float(plain_crps(statistics) - crps(statistics))
    assert excess == pytest.approx(1.0 / np.sqrt(np.pi) / size, rel=0.02)


@pytest.mark.parametrize(("metric", "method"), [(crps, "fair"), (plain_crps, "ecdf")])
@pytest.mark.parametrize("size", [2, 7])
def test_crps_is_that_of_scores(metric, method, size):
    members, target = ensemble(size=size)
    statistics = ensemble_statistics(members, target, reduce=["y", "x"])
    expected = scores.probability.crps_for_ensemble(members, target, "member", method=method, preserve_dims="sample")
    np.testing.assert_allclose(metric(statistics), expected, rtol=1e-10)


def test_scores_of_the_mean_and_the_spread_are_those_of_their_definitions():
    members, target = ensemble()
    statistics = ensemble_statistics(members, target, reduce=ALL)
    error = members.mean("member") - target
    assert float(rmse(statistics)) == pytest.approx(float((error**2).mean() ** 0.5), rel=1e-12)
    assert float(mae(statistics)) == pytest.approx(float(abs(error).mean()), rel=1e-12)
    assert float(bias(statistics)) == pytest.approx(float(error.mean()), rel=1e-9)
    assert float(spread(statistics)) == pytest.approx(float(members.var("member", ddof=1).mean() ** 0.5), rel=1e-10)
    assert float(std_dev(statistics)) == pytest.approx(float(members.std("member").mean()), rel=1e-10)
    ratio = np.sqrt(6.0 / 5.0) * spread(statistics) / rmse(statistics)
    assert float(ssr(statistics)) == pytest.approx(float(ratio), rel=1e-12)
    for metric in (crps, plain_crps, spread, std_dev, rmse):
        assert metric(statistics).attrs == {"units": "K"}
        assert metric(statistics).name == metric.__name__
        assert metric_info(metric.__name__)
        assert "members" not in metric(statistics).coords or metric is rmse
    assert ssr(statistics).attrs == {"units": "1"}


def test_exchangeable_ensemble_has_a_ratio_of_one():
    members, target = ensemble(300, 5, 16)
    assert float(ssr(ensemble_statistics(members, target, reduce=ALL))) == pytest.approx(1.0, abs=0.02)
    members, target = ensemble(300, 5, 16, sharp=0.5)
    assert float(ssr(ensemble_statistics(members, target, reduce=ALL))) < 0.7


def test_parts_in_any_order_and_layout_give_the_whole(monkeypatch):
    members, target = ensemble()
    whole = ensemble_statistics(members, target, reduce=ALL, block="day")
    assert whole["crps"].dims == ("block",)
    parts = [
        ensemble_statistics(
            members.isel(sample=cut).transpose("x", "member", "sample", "y").chunk({"sample": 2, "member": 3}),
            target.isel(sample=cut).transpose("y", "sample", "x"),
            reduce=["x", "sample", "y"],
            block="day",
        )
        for cut in (slice(5, 12), slice(0, 1), slice(1, 5))
    ]
    xr.testing.assert_allclose(merge_sums(*parts), whole, rtol=1e-12)
    # however little fits into the cache
    monkeypatch.setattr("ai4sim.verification.sums._SLICE_SIZE", 50)
    xr.testing.assert_allclose(ensemble_statistics(members, target, reduce=ALL, block="day"), whole, rtol=1e-12)
    by_row = ensemble_statistics(members, target, reduce=["sample", "x"], block="day")
    assert by_row["crps"].dims == ("block", "y")
    np.testing.assert_allclose(by_row["crps"].sum("y"), whole["crps"], rtol=1e-12)


def test_lazily_opened_files_are_read_like_arrays(tmp_path):
    members, target = ensemble()
    expected = ensemble_statistics(members, target, reduce=ALL, block="day")
    xr.Dataset({"members": members, "target": target}).to_zarr(tmp_path / "forecast.zarr", consolidated=False)
    with xr.open_zarr(tmp_path / "forecast.zarr", chunks=None, consolidated=False) as found:
        statistics = ensemble_statistics(found["members"], found["target"], reduce=ALL, block="day")
    xr.testing.assert_allclose(statistics, expected, rtol=1e-12)


def test_sums_of_ensembles_of_different_sizes_are_not_merged():
    parts = [ensemble_statistics(*ensemble(size=size), reduce=ALL) for size in (4, 5)]
    with pytest.raises(ValueError, match="different coordinates 'members' cannot be merged"):
        merge_sums(*parts)


def test_interval_over_blocks_holds_the_scores():
    statistics = ensemble_statistics(*ensemble(30), reduce=ALL, block="day")
    for metric in (crps, ssr, spread):
        interval = block_bootstrap(statistics, metric, seed=0, n_resamples=200)
        assert interval.lower < interval.value < interval.upper
        assert interval.value.attrs == metric(statistics).attrs


def test_missing_values_are_refused_or_left_out_with_all_members():
    members, target = ensemble()
    broken, gap = members.copy(), target.copy()
    broken[4, 2, 1, 3] = np.nan
    with pytest.raises(ValueError, match=r"prediction 't2m' has a value that is not finite.*'sample': 4.*'member': 2"):
        ensemble_statistics(broken, target, reduce=ALL)
    gap[7, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"target 't2m' has a value that is not finite.*'sample': 7"):
        ensemble_statistics(members, gap, reduce=ALL)
    statistics = ensemble_statistics(broken, gap, reduce=ALL, skipna=True)
    assert float(statistics["n"]) == target.size - 2
    there = xr.ones_like(target, dtype=bool).copy()
    there[4, 1, 3] = there[7, 0, 0] = False
    masked = ensemble_statistics(members, target, reduce=ALL, mask=there)
    xr.testing.assert_allclose(statistics, masked, rtol=1e-12)
    # what is masked may be missing
    xr.testing.assert_allclose(ensemble_statistics(broken, gap, reduce=ALL, mask=there), masked, rtol=1e-12)
    infinite = members.copy()
    infinite[0, 0, 0, 0] = np.inf
    with pytest.raises(ValueError, match="not finite"):
        ensemble_statistics(infinite, target, reduce=ALL, skipna=True)


def test_wrong_dimensions_and_units_are_named():
    members, target = ensemble()
    with pytest.raises(ValueError, match=r"members 't2m' have no dimension 'ensemble': they have \('sample', 'member'"):
        ensemble_statistics(members, target, member="ensemble", reduce=ALL)
    with pytest.raises(ValueError, match=r"target 't2m' has the dimension 'member' of the members"):
        ensemble_statistics(members, members, reduce=ALL)
    with pytest.raises(ValueError, match="the dimension 'member' is empty"):
        ensemble_statistics(members.isel(member=slice(0)), target, reduce=ALL)
    with pytest.raises(ValueError, match=r"prediction has dimensions \('sample', 'y'\)"):
        ensemble_statistics(members.isel(x=0), target, reduce=ALL)
    with pytest.raises(ValueError, match=r"reduce=\['time'\]"):
        ensemble_statistics(members, target, reduce="time")
    with pytest.raises(ValueError, match="not on the same coordinates"):
        ensemble_statistics(members.assign_coords(sample=members.sample + 1), target, reduce=ALL)
    with pytest.raises(ValueError, match="prediction is in 'degC' and target in 'K'"):
        ensemble_statistics(members.assign_attrs(units="degC"), target, reduce=ALL)


def test_no_samples_have_no_scores():
    members, target = (part.isel(sample=slice(0)) for part in ensemble())
    statistics = ensemble_statistics(members, target, reduce=ALL)
    assert float(statistics["n"]) == 0.0
    for metric in (crps, plain_crps, spread, ssr, rmse):
        assert np.isnan(metric(statistics))


def test_other_name_of_the_members():
    members, target = ensemble()
    renamed = ensemble_statistics(members.rename(member="ensemble"), target, member="ensemble", reduce=ALL)
    xr.testing.assert_identical(renamed, ensemble_statistics(members, target, reduce=ALL))


def test_spread_skill_of_a_calibrated_ensemble_is_on_the_diagonal():
    members, target = ensemble(240, 20, 16)
    statistics = spread_skill_statistics(members, target, reduce=ALL, block="day")
    curve = spread_skill_curve(statistics, bins=6, seed=0, n_resamples=200)
    assert curve["spread"].dims == ("bin",)
    assert curve.attrs == {"units": "K", "level": 0.95}
    assert float(curve["count"].sum()) == target.size
    assert float(curve["count"].min()) > 0.1 * target.size
    assert (np.diff(curve["spread"]) > 0).all()
    # beyond the middle, sampling sorts by luck too: the outer bins lie off the diagonal by less than that
    np.testing.assert_allclose(curve["rmse"], curve["spread"], rtol=0.15)
    assert (curve["lower"] < curve["rmse"]).all()
    assert (curve["rmse"] < curve["upper"]).all()


def test_spread_skill_is_that_counted_one_by_one():
    members, target = ensemble(4, 3, 4)
    edges = [0.5, 1.0, 2.0]
    statistics = spread_skill_statistics(members, target, edges=edges, reduce=ALL)
    deviation = members.std("member", ddof=1).values.ravel()
    square = ((members.mean("member") - target) ** 2).values.ravel()
    place = np.digitize(deviation, edges)
    for k in range(4):
        assert float(statistics["count"][k]) == (place == k).sum()
        assert float(statistics["variance"][k]) == pytest.approx((deviation[place == k] ** 2).sum())
        assert float(statistics["squared_error"][k]) == pytest.approx(square[place == k].sum())
    curve = spread_skill_curve(statistics, bins=1, seed=0)
    assert float(curve["rmse"][0]) == pytest.approx(np.sqrt(square.mean()))
    assert float(curve["spread"][0]) == pytest.approx(np.sqrt(4 / 3 * (deviation**2).mean()))
    assert np.isnan(curve["lower"]).all()
    whole = [
        spread_skill_statistics(members[cut], target[cut], edges=edges, reduce=ALL) for cut in (slice(1), slice(1, 4))
    ]
    xr.testing.assert_allclose(merge_sums(*whole), statistics)


def test_spread_skill_of_one_member_or_without_order_is_refused():
    members, target = ensemble()
    with pytest.raises(ValueError, match="no spread of 1 member along the dimension 'member'"):
        spread_skill_statistics(members[:, :1], target, reduce=ALL)
    with pytest.raises(ValueError, match="they must increase"):
        spread_skill_statistics(members, target, edges=[1.0, 0.5], reduce=ALL)
    with pytest.raises(ValueError, match="bins=0"):
        spread_skill_curve(spread_skill_statistics(members, target, reduce=ALL), bins=0, seed=0)
