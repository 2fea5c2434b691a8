"""From exceedance of edges to probabilities, quantiles, means and scores."""

import time
from itertools import pairwise

import numpy as np
import pytest
import scipy.stats

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.config import EDGES
from precip_postproc.resunet_qpf.products import Distribution


def some(shape: tuple[int, ...] = (40,), seed: int = 0, trace: float = 0.0, edges=EDGES) -> Distribution:
    rng = np.random.default_rng(seed)
    p = rng.gamma(0.3, size=(len(edges) + 1, *shape)) + 1e-9
    p /= p.sum(0)
    return Distribution(p[::-1].cumsum(0)[-2::-1], edges, trace)


def survival(exceedance: np.ndarray, y: np.ndarray, trace: float) -> np.ndarray:
    """Of one distribution with the default edges, at y in (0, 200), mm."""
    first = exceedance[0] + trace * (1 - exceedance[0])
    inside = np.interp(y, [0, *EDGES], [first, *exceedance])
    beta = np.clip((EDGES[-1] - EDGES[-2]) / np.log(exceedance[-2] / exceedance[-1]), 1, 50)
    return np.where(y > EDGES[-1], exceedance[-1] * np.exp(-(y - EDGES[-1]) / beta), inside)


def integral(function, breaks: list[float]) -> float:
    """Of a function from 0 to 200 mm, smooth between the breaks."""
    x, w = np.polynomial.legendre.leggauss(8)
    total = 0.0
    points = np.unique([0.0, *EDGES, *breaks, *np.linspace(50, 200, 151)])
    for a, b in pairwise(points):
        total += (b - a) / 2 * (w * function((a + b) / 2 + (b - a) / 2 * x)).sum()
    return total


# probabilities


@pytest.mark.parametrize("log", [False, True])
def test_exceedance_of_an_edge_is_what_was_given(log):
    d = some((3, 4))
    for k, edge in enumerate(EDGES):
        np.testing.assert_array_equal(d.probability(edge, log), d.exceedance[k])


def test_exceedance_between_edges_is_linear_or_log_linear():
    d = Distribution(np.array([[0.8], [0.2], [0.05]]), [1.0, 2.0, 4.0])
    assert d.probability(1.5) == pytest.approx(0.5)
    assert d.probability(1.5, log=True) == pytest.approx(0.4)
    assert d.probability(3.0, log=True) == pytest.approx(0.1)
    assert d.probability([1.0, 0.5, 1.5, 2.0, 3.0]) == pytest.approx([0.8, 0.8, 0.5, 0.2, 0.125])
    assert Distribution(np.array([[0.8], [0.0]]), [1.0, 2.0]).probability(1.5, log=True) == pytest.approx(0.4)


def test_everything_is_at_least_0_and_nothing_above_200():
    d = some((5,))
    assert (d.probability(0.0) == 1).all()
    assert (d.probability(-1.0) == 1).all()
    assert (d.probability(200.0) > 0).all()
    assert (d.probability(200.1) == 0).all()
    assert (d.cdf(-0.1) == 0).all()
    assert (d.cdf(200.0) == 1).all()
    assert (d.cdf(199.9) < 1).all()
    np.testing.assert_allclose(d.cdf(0.0), 1 - d.exceedance[0])


@pytest.mark.parametrize("trace", [0.0, 0.4, 1.0])
def test_exceedance_falls_with_the_amount(trace):
    amounts = np.linspace(0, 201, 3000)[:, None]
    for log in (False, True):
        assert (np.diff(some(trace=trace).probability(amounts, log), axis=0) <= 0).all()


@pytest.mark.parametrize(
    ("exceedance", "beta"),
    [
        ([0.4, 0.2], 10 / np.log(2)),
        ([0.4, 0.399], 50),  # hardly falls
        ([0.4, 0.4], 50),
        ([0.4, 1e-9], 1),  # falls at once
    ],
)
def test_the_tail_decays_within_bounds(exceedance, beta):
    d = Distribution(np.array(exceedance)[:, None], [10.0, 20.0])
    assert d.probability(30.0) == pytest.approx(exceedance[1] * np.exp(-10 / beta))


def test_a_single_edge_has_a_tail():
    d = Distribution(np.array([[0.5]]), [10.0])
    assert d.probability(20.0) == pytest.approx(0.25)


def test_without_a_tail_nothing_is_beyond():
    d = Distribution(np.array([[0.5], [0.0], [0.0]]), [1.0, 2.0, 3.0])
    assert d.probability(3.5) == 0
    assert d.mean() == pytest.approx(0.75)
    assert d.quantile(1.0) == 2.0
    assert d.crps(0.0) == pytest.approx(0.25 + 0.25 / 3)


# quantiles


@pytest.mark.parametrize("trace", [0.0, 0.4])
def test_quantile_and_distribution_function_are_inverse(trace):
    d = some(trace=trace)
    levels = np.linspace(0.001, 0.999, 500)[:, None]
    quantiles = d.quantile(levels)
    assert (np.diff(quantiles, axis=0) >= 0).all()
    # no precipitation has a probability of its own, and so have amounts above 200 mm
    inside = (quantiles > 0) & (quantiles < 200)
    np.testing.assert_allclose(d.cdf(quantiles)[inside], np.broadcast_to(levels, inside.shape)[inside], atol=1e-5)
    amounts = np.linspace(0.26 if trace == 0 else 0.01, 199, 700)[:, None]
    # what a level near 1 in double precision can tell apart
    told = d.cdf(amounts) < 1 - 1e-9
    assert told[:170].all()
    np.testing.assert_allclose(d.quantile(d.cdf(amounts))[told], np.broadcast_to(amounts, told.shape)[told], atol=1e-5)


def test_quantile_is_0_as_long_as_no_precipitation_is_as_probable():
    d = Distribution(np.array([[0.3, 0.7], [0.1, 0.5]]), [1.0, 2.0])
    assert d.quantile(0.3).tolist() == [0.0, 0.0]
    assert d.quantile(0.7) == pytest.approx([0.0, 2 + np.log(5 / 3) / np.log(1.4)])
    assert d.quantile(1 - np.array([0.3, 0.7])).tolist() == [0.0, 0.0]
    assert d.quantile(0.8).tolist()[0] == pytest.approx(1.5)
    assert d.quantile(1.0).tolist() == [200.0, 200.0]
    assert d.quantile(0.0).tolist() == [0.0, 0.0]


def test_quantiles_pass_empty_bins():
    d = Distribution(np.array([[0.5], [0.5], [0.2]]), [1.0, 2.0, 3.0])
    assert d.quantile([0.5, 0.5001, 0.65, 0.8]) == pytest.approx([0.0, 2.0, 2.5, 3.0], abs=1e-3)


def test_single_precision_and_a_field_of_no_dimension():
    d, wide = some((6,)), some((6,))
    d = Distribution(d.exceedance.astype(np.float32), EDGES)
    np.testing.assert_allclose(d.crps(3.0), wide.crps(3.0), atol=1e-5)
    assert d.quantile(0.5).dtype == np.float64
    one = Distribution(wide.exceedance[:, 2], EDGES)
    for name, argument in (("probability", 2.2), ("cdf", 2.2), ("quantile", 0.8), ("crps", 1.0)):
        assert getattr(one, name)(argument) == getattr(wide, name)(argument)[2]
    assert one.mean() == wide.mean()[2]


# integrals


@pytest.mark.parametrize("trace", [0.0, 0.4, 1.0])
def test_mean_is_the_integral(trace):
    d = some(trace=trace)
    for i, mean in enumerate(d.mean()):
        expected = integral(lambda y, i=i: survival(d.exceedance[:, i], y, trace), [])
        assert mean == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("trace", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("observed", [0.0, 0.1, 0.25, 0.3, 7.7, 50.0, 83.0, 200.0])
def test_crps_is_the_integral(trace, observed):
    d = some((12,), seed=1, trace=trace)
    for i, score in enumerate(d.crps(observed)):

        def squared(y, i=i):
            return (1 - survival(d.exceedance[:, i], y, trace) - (y >= observed)) ** 2

        assert score == pytest.approx(integral(squared, [observed]), abs=1e-6)


def test_crps_of_the_sheets_segments():
    exceedance = np.array([0.8, 0.3, 0.1])
    # the distribution function between 1 and 2 mm
    a, b = 0.2, 0.7
    below = (b * b + b * a + a * a) / 3
    d = Distribution(exceedance, [1.0, 2.0, 3.0])
    only = d.crps(2.0) - d.crps(1.0)
    assert only == pytest.approx(below - ((1 - a) ** 2 + (1 - a) * (1 - b) + (1 - b) ** 2) / 3)


@pytest.mark.parametrize("observed", [0.0, 1.0, 5.0, 20.0])
def test_exponential_distribution_with_fine_edges(observed):
    scale = 4.0
    edges = np.arange(1, 400) / 10
    # all of the first class is spread out, as none is exactly 0
    d = Distribution(np.exp(-edges / scale)[:, None], edges.tolist(), trace=1)
    assert d.mean() == pytest.approx(scale, rel=0.01)
    expected = observed - 2 * scale * (1 - np.exp(-observed / scale)) + scale / 2
    assert d.crps(observed) == pytest.approx(expected, rel=0.01)


def test_scores_of_what_is_no_amount_are_missing():
    d = some((4,))
    observed = np.array([np.nan, -3.0, 9.97e36, 1.0])
    assert np.isnan(d.crps(observed)).tolist() == [True, True, True, False]
    assert np.isnan(d.pit(observed, np.random.default_rng(0))).tolist() == [True, True, True, False]


def test_missing_distributions_stay_missing():
    exceedance = some((3,)).exceedance.copy()
    exceedance[:, 1] = np.nan
    d = Distribution(exceedance, EDGES)
    rng = np.random.default_rng(0)
    for result in (
        d.probability(0.0),
        d.probability(3.3),
        d.probability(300.0),
        d.probability(3.3, log=True),
        d.cdf(-1.0),
        d.cdf(1.0),
        d.quantile(0.1),
        d.quantile(0.999),
        d.mean(),
        d.crps(0.0),
        d.pit(0.0, rng),
    ):
        assert np.isnan(result).tolist() == [False, True, False]


# transform


@pytest.mark.parametrize("trace", [0.0, 0.4])
def test_transform_of_the_right_distribution_is_uniform(trace):
    rng = np.random.default_rng(0)
    d = some((20_000,), seed=3, trace=trace)
    drawn = d.quantile(rng.random(20_000))
    transform = d.pit(drawn, rng)
    assert scipy.stats.kstest(transform, "uniform").pvalue > 0.05


def test_transform_of_no_precipitation_is_drawn_below_its_probability():
    d = Distribution(np.full((1, 5000), 0.3), [0.25])
    for amount in (0.0, 0.1):
        drawn = d.pit(amount, np.random.default_rng(1))
        assert drawn.min() < 0.01
        assert 0.69 < drawn.max() <= 0.7
    # on the edge but for rounding
    np.testing.assert_allclose(d.pit(0.25 - 5e-5, np.random.default_rng(1)), 0.7)


# faults


def test_shapes_and_settings_are_checked():
    with pytest.raises(ValueError, match="3 exceedances for 2 edges"):
        Distribution(np.zeros((3, 2)), [1.0, 2.0])
    with pytest.raises(InputError, match="increase strictly"):
        Distribution(np.zeros((2, 2)), [2.0, 1.0])
    with pytest.raises(InputError, match="trace"):
        Distribution(np.zeros((2, 2)), [1.0, 2.0], trace=1.5)


def test_crps_of_a_field_is_fast():
    d = some((128, 160))
    observed = np.zeros((128, 160))
    best = np.inf
    for _ in range(5):
        start = time.perf_counter()
        d.crps(observed)
        best = min(best, time.perf_counter() - start)
    # 2 ms on an idle core
    assert best < 0.1
