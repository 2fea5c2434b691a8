"""Sums over test pairs: known forecasts have known scores."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ai4sim.verification import (
    bias,
    crps,
    energy_score,
    line_lsd,
    line_spectrum,
    mae,
    mean,
    power_ratio,
    quantile_ratio,
    rank_histogram,
    rmse,
    ssr,
)
from downscaling.corrdiff.data import DownscalingData
from downscaling.corrdiff.flow import DIVERGENCE, KINETIC_ENERGY, VORTICITY, divergence_and_vorticity
from downscaling.corrdiff.samples import ANALOGS, BICUBIC, REGRESSION, WIND, TestSamples
from downscaling.corrdiff.sums import WET, Sums, _edges
from downscaling.corrdiff.tests.synthetic_predictions import exchangeable, make_predictions, opened_tiny, perfect

NAMES = ["10u", "10v", "2t", "tp", WIND]


def summed(predictions: xr.Dataset, **options: int) -> Sums:
    samples = TestSamples(predictions, **options)
    sums = Sums(samples)
    for part in samples.parts():
        sums.add(part)
    return sums


def whole(statistics: xr.Dataset) -> xr.Dataset:
    return statistics.sum("block", keep_attrs=True) if "block" in statistics.dims else statistics


@pytest.fixture(scope="module")
def module_data(tiny_data: Path) -> DownscalingData:
    return opened_tiny(tiny_data)


def test_a_perfect_forecast(module_data):
    sums = summed(make_predictions(module_data, perfect, 2, pairs=2))
    for name in NAMES:
        scores = whole(sums.of("scores")[name]["corrdiff"])
        assert [float(score(scores)) for score in (crps, mae, rmse, bias)] == [0, 0, 0, 0]
        assert float(line_lsd(whole(sums.spectra()[name]["corrdiff"]))) == pytest.approx(0, abs=1e-9)
        assert float(quantile_ratio(whole(sums.of("histogram")[name]["corrdiff"]), q=0.99)) == pytest.approx(1)
    assert float(energy_score(whole(sums.of("together")["all"]["corrdiff"]))) == pytest.approx(0, abs=1e-9)
    for name in (KINETIC_ENERGY, DIVERGENCE, VORTICITY):
        assert float(power_ratio(whole(sums.flow()[name]["corrdiff"]))) == pytest.approx(1)
    joint = sums.of("joint")["all"]["corrdiff"]
    np.testing.assert_allclose(joint["prediction_count"], 2 * joint["target_count"])
    assert float(joint["target_count"].sum()) == 2 * 32 * 32


@pytest.fixture(scope="module")
def calibrated(module_data) -> Sums:
    return summed(make_predictions(module_data, exchangeable, 5))


def test_an_exchangeable_ensemble_is_calibrated(calibrated):
    for name in ("10u", "10v", "2t"):
        assert float(ssr(whole(calibrated.of("scores")[name]["corrdiff"]))) == pytest.approx(1, abs=0.03)
        # fair: that of N(0, 1) for itself
        value = float(crps(whole(calibrated.of("scores")[name]["corrdiff"])))
        assert value == pytest.approx(1 / np.sqrt(np.pi), abs=0.02)
        ranks = rank_histogram(whole(calibrated.of("ranks")[name]["corrdiff"]))
        np.testing.assert_allclose(ranks, 1, atol=0.12)


def test_maps_and_scores_are_of_the_same_sums(calibrated):
    for product in ("corrdiff", BICUBIC):
        on_map = crps(calibrated.of("map")["2t"][product])
        assert on_map.dims == ("y", "x")
        assert float(on_map.mean()) == pytest.approx(float(crps(whole(calibrated.of("scores")["2t"][product]))))


def test_a_regression_counts_as_one_member(calibrated):
    scores = whole(calibrated.of("scores")["tp"][REGRESSION])
    assert float(crps(scores)) == float(mae(scores))
    assert set(calibrated.of("together")["all"]) == {REGRESSION, ANALOGS, "corrdiff"}
    assert set(calibrated.of("ranks")["tp"]) == {ANALOGS, "corrdiff"}


def test_variables_have_one_order(calibrated):
    for kind in ("scores", "map", "ranks", "histogram", "spread_skill", "spectra_x"):
        assert list(calibrated.of(kind)) == NAMES


def test_coarse_means_are_compared_with_the_input(calibrated):
    found = calibrated.of("consistency")
    assert set(found) == {"10u", "10v", "2t", WIND}
    assert set(found["2t"]) == {"truth", "bilinear", BICUBIC, "lapse_rate", REGRESSION, ANALOGS, "corrdiff"}
    # the mean of many members is the center, whose coarse means differ from the truth's by 1 / 8
    close = float(rmse(whole(found["2t"]["corrdiff"]))) - float(rmse(whole(found["2t"]["truth"])))
    assert abs(close) < 0.1


def test_how_often_rain_is_wet_and_how_often_0(module_data):
    predictions = make_predictions(module_data, exchangeable, 5)
    rain = predictions["field"][:, 3].clip(min=0)
    predictions["field"][:, 3] = rain
    samples, sums = TestSamples(predictions, pairs_at_once=3), summed(predictions, pairs_at_once=3)
    truth = np.concatenate([part.truth["tp"].values for part in samples.parts()])
    test = predictions["split"] == 2
    drawn = {
        "truth": truth,
        REGRESSION: rain.values[test & (predictions["member"] < 0)],
        "corrdiff": rain.values[test & (predictions["member"] >= 0)],
    }
    for event, occurs in (("wet", lambda own: own > WET), ("zero", lambda own: own == 0)):
        found = sums.of(event)
        assert set(found) == {"tp"}
        assert set(found["tp"]) == {*drawn, ANALOGS}
        for product, own in drawn.items():
            share = float(mean(whole(found["tp"][product]), of="prediction"))
            assert share == pytest.approx(occurs(own).mean(), abs=1e-9)
            assert 0 < share < 1


def test_sums_do_not_depend_on_the_size_of_parts(module_data, calibrated):
    other = summed(make_predictions(module_data, exchangeable, 5), pairs_at_once=2)
    for kind in ("scores", "joint"):
        for name, products in calibrated.of(kind).items():
            for product, sums in products.items():
                xr.testing.assert_allclose(whole(sums), whole(other.of(kind)[name][product]), rtol=1e-9)


def test_kinetic_energy_is_the_mean_of_the_components(calibrated):
    spectra, energy = calibrated.spectra(), calibrated.flow()[KINETIC_ENERGY]["corrdiff"]
    u, v = (line_spectrum(whole(spectra[name]["corrdiff"]), of="target") for name in ("10u", "10v"))
    np.testing.assert_allclose(line_spectrum(whole(energy), of="target"), (u + v) / 2)


def test_bins_of_what_is_never_negative_begin_with_zero():
    assert _edges(0.0, 10.0)[0] == 0
    assert _edges(2.0, 10.0)[0] == 0
    assert _edges(8.0, 10.0)[[0, -1]].tolist() == [7, 11]
    assert _edges(-1.0, 1.0)[[0, -1]].tolist() == [-2, 2]


class TestFlow:
    def field(self, values: np.ndarray) -> xr.DataArray:
        return xr.DataArray(values[None], dims=("sample", "y", "x"))

    @pytest.mark.parametrize("northward", [True, False])
    def test_solid_rotation_and_pure_divergence(self, northward):
        x, y = np.meshgrid(3000.0 * np.arange(6), 3000.0 * np.arange(5))
        y = y if northward else -y
        turning = divergence_and_vorticity(self.field(-2e-4 * y), self.field(2e-4 * x), 3.0, northward=northward)
        np.testing.assert_allclose(turning[VORTICITY], 4e-4)
        np.testing.assert_allclose(turning[DIVERGENCE], 0, atol=1e-18)
        growing = divergence_and_vorticity(self.field(1e-4 * x), self.field(2e-4 * y), 3.0, northward=northward)
        np.testing.assert_allclose(growing[DIVERGENCE], 3e-4)
        np.testing.assert_allclose(growing[VORTICITY], 0, atol=1e-18)
        assert turning[VORTICITY].shape == (1, 3, 4)
        assert turning[VORTICITY].attrs == {"units": "s-1"}
