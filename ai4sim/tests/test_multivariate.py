import numpy as np
import pytest
import xarray as xr

from ai4sim.verification import (
    block_bootstrap,
    energy_score,
    merge_sums,
    metric_info,
    multivariate_statistics,
    plain_energy_score,
    plain_variogram_score,
    variogram_score,
)


def ensemble(n: int = 6, size: int = 4, points: int = 5, *, seed: int = 0, shuffled: bool = False):
    """Fields of two variables, both with a part that is common to all points."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, size + 1, 1, 1, 1))
    values = common + 0.3 * rng.normal(size=(n, size + 1, 2, points, points))
    if shuffled:
        # the same values at each point, of other members
        values[:, 1:] = rng.permuted(values[:, 1:], axis=1)
    coords = {"variable": ["t", "u"], "day": ("sample", np.arange(n) // 2)}
    fields = xr.DataArray(values, dims=("sample", "member", "variable", "y", "x"), coords=coords, attrs={"units": "K"})
    return fields[:, 1:], fields[:, 0]


def test_scores_of_all_points_are_those_of_the_formulas():
    members, target = ensemble(points=3)
    scale = xr.DataArray([2.0, 0.5], dims="variable", coords={"variable": ["t", "u"]})
    statistics = multivariate_statistics(members, target, variable="variable", scale=scale, points=9, reduce="sample")
    energy, plain_energy, variogram, plain_variogram = [], [], [], []
    size = 4
    for x, y in zip((members / scale).values, (target / scale).values, strict=True):
        x, y = x.reshape(size, -1), y.reshape(-1)
        near = np.mean([np.linalg.norm(one - y) for one in x])
        pairs = sum(np.linalg.norm(a - b) for a in x for b in x)
        energy.append(near - pairs / (2 * size * (size - 1)))
        plain_energy.append(near - pairs / (2 * size**2))
        fair, plain = [], []
        for i in range(len(y)):
            for j in range(i):
                own = np.sqrt(abs(x[:, i] - x[:, j]))
                error = (np.sqrt(abs(y[i] - y[j])) - own.mean()) ** 2
                plain.append(error)
                fair.append(error - own.var(ddof=1) / size)
        variogram.append(np.mean(fair))
        plain_variogram.append(np.mean(plain))
    assert float(energy_score(statistics)) == pytest.approx(np.mean(energy), rel=1e-10)
    assert float(plain_energy_score(statistics)) == pytest.approx(np.mean(plain_energy), rel=1e-10)
    assert float(variogram_score(statistics)) == pytest.approx(np.mean(variogram), rel=1e-9)
    assert float(plain_variogram_score(statistics)) == pytest.approx(np.mean(plain_variogram), rel=1e-10)
    for metric in (energy_score, plain_energy_score, variogram_score, plain_variogram_score):
        assert metric(statistics).attrs == {"units": "1"}
        assert metric_info(metric.__name__).better == "lower"


def test_single_member_and_units_of_other_orders():
    members, target = ensemble()
    one = multivariate_statistics(members[:, :1], target, variable="variable", points=6, reduce="sample", order=1.0)
    assert float(energy_score(one)) == float(plain_energy_score(one)) > 0.0
    assert float(variogram_score(one)) == float(plain_variogram_score(one)) > 0.0
    assert energy_score(one).attrs == {"units": "K"}
    assert variogram_score(one).attrs == {"units": "(K)2"}
    half = multivariate_statistics(members.sel(variable="t"), target.sel(variable="t"), points=6, reduce="sample")
    assert variogram_score(half).attrs == {"units": "K"}


@pytest.mark.parametrize("size", [3, 12])
def test_fair_scores_do_not_depend_on_the_number_of_members(size):
    members, target = ensemble(4000, size, 2)
    statistics = multivariate_statistics(members, target, variable="variable", points=4, reduce="sample")
    members, target = ensemble(4000, 40, 2, seed=1)
    large = multivariate_statistics(members, target, variable="variable", points=4, reduce="sample")
    assert float(energy_score(statistics)) == pytest.approx(float(energy_score(large)), rel=0.05)
    assert float(variogram_score(statistics)) == pytest.approx(float(variogram_score(large)), rel=0.05)
    assert float(plain_energy_score(statistics)) > 1.05 * float(plain_energy_score(large))


def test_variogram_score_tells_members_without_the_right_dependence():
    arguments = {"variable": "variable", "reduce": "sample", "points": 10}
    values = [
        variogram_score(multivariate_statistics(*ensemble(200, 6, shuffled=shuffled), **arguments))
        for shuffled in (False, True)
    ]
    assert float(values[1]) > 1.5 * float(values[0])


def test_parts_in_any_layout_give_the_whole():
    members, target = ensemble()
    arguments = {"variable": "variable", "points": 7, "reduce": "sample", "block": "day", "seed": 5}
    whole = multivariate_statistics(members, target, **arguments)
    parts = [
        multivariate_statistics(
            members[cut].transpose("x", "variable", "member", "y", "sample").chunk({"sample": 1}),
            target[cut].transpose("variable", "y", "sample", "x"),
            **arguments,
        )
        for cut in (slice(3, 6), slice(0, 3))
    ]
    xr.testing.assert_allclose(merge_sums(*parts), whole, rtol=1e-12)
    interval = block_bootstrap(whole, energy_score, seed=0, n_resamples=50)
    assert interval.lower <= interval.value <= interval.upper
    assert not np.allclose(
        multivariate_statistics(members, target, **{**arguments, "seed": 6})["energy"], whole["energy"]
    )


def test_masked_points_may_be_missing():
    members, target = ensemble()
    sea = xr.DataArray(np.arange(25).reshape(5, 5) % 2 == 0, dims=("y", "x"))
    arguments = {"variable": "variable", "points": 13, "reduce": "sample", "mask": sea}
    expected = multivariate_statistics(members, target, **arguments)
    found = multivariate_statistics(members.where(sea), target.where(sea).assign_attrs(target.attrs), **arguments)
    xr.testing.assert_allclose(found, expected)
    broken = target.copy()
    broken[2, 0, 0, 0] = np.nan
    statistics = multivariate_statistics(members, broken, **arguments, skipna=True)
    assert float(statistics["n"]) == 5.0


def test_wrong_arguments_are_named():
    members, target = ensemble()
    with pytest.raises(ValueError, match="no dimension 'lat'"):
        multivariate_statistics(members, target, dims=("lat", "lon"), reduce="sample")
    with pytest.raises(ValueError, match="points=26: there are 25 to choose from"):
        multivariate_statistics(members, target, points=26, reduce="sample")
    with pytest.raises(ValueError, match="scale must be positive"):
        multivariate_statistics(members, target, points=2, scale=0, reduce="sample")
    with pytest.raises(ValueError, match=r"scale has the dimensions \('y',\)"):
        multivariate_statistics(members, target, points=2, scale=xr.DataArray(np.ones(5), dims="y"), reduce="sample")
    other = xr.DataArray([1.0, 1.0], dims="variable", coords={"variable": ["t", "v"]})
    with pytest.raises(ValueError, match="scale and target are not on the same coordinates"):
        multivariate_statistics(members, target, variable="variable", points=2, scale=other, reduce="sample")
    with pytest.raises(ValueError, match="mask has the dimensions"):
        multivariate_statistics(members, target, points=2, mask=target.isnull(), reduce="sample")
    with pytest.raises(ValueError, match="'member'"):
        multivariate_statistics(target, target, points=2, reduce="sample")
