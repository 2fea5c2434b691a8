"""The ideal probability: reliable, and better than what else is to be had."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.special import ndtr

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.amounts import TRUTH
from precip_postproc.resunet_qpf.ideal import displacement_nodes, ideal_exceedance
from precip_postproc.resunet_qpf.periodic import PeriodicGrid
from precip_postproc.resunet_qpf.weather import LEADS, Pair, Posterior, Weather

TINY = PeriodicGrid.tiny()
THRESHOLDS = (0.25, 1.0)
# standard deviation of the filter by lead, points of 8 km; near the best ones
SMOOTHING = {6: 4.0, 12: 5.0, 24: 9.0, 48: 15.0}


def reliability(probability: np.ndarray, event: np.ndarray, bins: int = 20) -> float:
    """Reliability term of the Brier score."""
    index = np.minimum((probability * bins).astype(int), bins - 1).ravel()
    count = np.bincount(index, minlength=bins)
    forecast, observed = (np.bincount(index, x.ravel(), bins) for x in (probability, event))
    full = count > 0
    return float(((forecast - observed)[full] ** 2 / count[full]).sum() / count.sum())


def brier(probability: np.ndarray, event: np.ndarray) -> float:
    return float(np.mean((probability - event) ** 2, dtype=np.float64))


class Sample:
    """Fields of one lead at points of good quality, (pair, point)."""

    def __init__(self, pairs: list[Pair], lead: int) -> None:
        good = pairs[0].hour.quality >= 0.5
        self.analysis = np.stack([p.hour.analysis[good] for p in pairs])
        self.truth = np.stack([p.hour.truth[good] for p in pairs])
        self.ideal, self.analysed = (
            np.stack([ideal_exceedance(p.posterior, THRESHOLDS, analysed=a)[:, good] for p in pairs], axis=1)
            for a in (False, True)
        )
        exceeds = [[(p.forecast >= t).astype(np.float32) for p in pairs] for t in THRESHOLDS]
        self.raw = np.stack([[f[good] for f in fields] for fields in exceeds])
        self.smoothed = np.stack([[gaussian_filter(f, SMOOTHING[lead])[good] for f in fields] for fields in exceeds])
        self.event = np.stack([self.analysis >= t for t in THRESHOLDS]).astype(np.float32)
        # of the same days, so even flattered
        self.climatology = self.event.mean(axis=1, keepdims=True) * np.ones_like(self.event)


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    """Three half-years, one initial time in 60 hours: scores of fewer days vary too much."""
    result = []
    for seed in range(3):
        weather = Weather(TINY, seed=seed)
        inits = np.arange("2025-09-01", "2026-03-01", 60, dtype="datetime64[h]")
        result += list(weather.pairs(inits))
    return result


@pytest.fixture(scope="module")
def samples(pairs) -> dict[int, Sample]:
    # the radars' good points depend on the seed's terrain: those of the first serve for all
    quality = pairs[0].hour.quality
    alike = [p._replace(hour=p.hour._replace(quality=quality)) for p in pairs]
    return {lead: Sample([p for p in alike if p.lead == lead], lead) for lead in LEADS}


# Scores


@pytest.mark.parametrize("lead", LEADS)
def test_ideal_is_reliable_at_every_lead(samples, lead):
    sample = samples[lead]
    for probability in (sample.ideal, sample.analysed):
        assert reliability(probability[0], sample.event[0]) < 0.002
        assert reliability(probability[1], sample.event[1]) < 0.002
        # in the mean, and where it is sure
        assert probability[0].mean() == pytest.approx(sample.event[0].mean(), rel=0.15)
    sure = sample.ideal[0] > 0.6
    if sure.any():
        assert sample.event[0][sure].mean() == pytest.approx(sample.ideal[0][sure].mean(), abs=0.12)


@pytest.mark.parametrize("threshold", [0, 1])
def test_ideal_beats_climatology_raw_and_smoothed_forecasts(samples, threshold):
    scores = {
        name: np.mean([brier(getattr(s, name)[threshold], s.event[threshold]) for s in samples.values()])
        for name in ("ideal", "smoothed", "climatology", "raw")
    }
    assert scores["ideal"] < 0.95 * scores["smoothed"]
    assert scores["smoothed"] < scores["climatology"] < scores["raw"]


def test_raw_forecasts_are_worse_than_climatology_from_twelve_hours_on(samples):
    for lead in (12, 24, 48):
        event = samples[lead].event
        for k in (0, 1):
            assert brier(samples[lead].raw[k], event[k]) > brier(samples[lead].climatology[k], event[k])
            assert brier(samples[lead].smoothed[k], event[k]) < brier(samples[lead].raw[k], event[k])
    scores = [brier(samples[lead].ideal[0], samples[lead].event[0]) for lead in LEADS]
    assert scores == sorted(scores)


def test_ideal_of_the_analysis_allows_for_rounding(samples):
    """One millimetre is reported from 0.95 mm on: the analysis is there more often."""
    for sample in samples.values():
        more = sample.analysed.mean(axis=(1, 2)) / sample.ideal.mean(axis=(1, 2))
        assert more[0] == pytest.approx(1.0, abs=0.005)
        assert 1.02 < more[1] < 1.05
        reported = sample.event.mean(axis=(1, 2)) / np.array([(sample.truth >= t).mean() for t in THRESHOLDS])
        np.testing.assert_allclose(more, reported, atol=0.012)


# Probability


def posterior(field: np.ndarray, location: float = 0.0, variance: float = 0.3, displacement: float = 0.0) -> Posterior:
    spectrum = TINY.to_spectrum(field.astype(np.float32))
    return Posterior(TINY, spectrum, np.full(TINY.shape, location, np.float32), variance, displacement, (0.0, 0.0))


def test_without_displacement_it_is_the_normal_distribution():
    field = np.random.default_rng(0).standard_normal((128, 128))
    probability = ideal_exceedance(posterior(field, 0.4), (0.25, 5.0))
    assert probability.shape == (2, 64, 80)
    assert probability.dtype == np.float32
    for p, t in zip(probability, (0.25, 5.0), strict=True):
        expected = ndtr((TINY.crop(field) + 0.4 - TRUTH.latent(t)) / np.sqrt(0.3))
        np.testing.assert_allclose(p, expected, atol=2e-6)


def test_it_looks_where_the_forecast_has_put_the_weather():
    field = np.zeros((128, 128))
    field[24 + 30, 24 + 40] = 5.0
    moved = posterior(field)._replace(mean_displacement=(24.0, -16.0))
    p = ideal_exceedance(moved, (1.0,))[0]
    # moved by 3 points to the east and 2 to the south from where it belongs
    assert np.unravel_index(p.argmax(), p.shape) == (32, 37)


def test_displacement_smooths():
    field = np.full((128, 128), -1.0)
    field[:, :64] = 2.0
    p = ideal_exceedance(posterior(field, displacement=40.0), (1.0,), nodes=400)[0][10]
    # far from the edge as without displacement, and half-way at it
    limit = float(TRUTH.latent(1.0))
    wet, dry = (float(ndtr((z - limit) / np.sqrt(0.3))) for z in (2.0, -1.0))
    assert p[10] == pytest.approx(wet, abs=1e-3)
    assert p[70] == pytest.approx(dry, abs=1e-3)
    x = 8.0 * (np.arange(80) + 24 - 63.5)
    np.testing.assert_allclose(p, dry + (wet - dry) * ndtr(-x / 40), atol=0.02)


def test_few_nodes_do_for_real_fields(pairs):
    for pair in pairs[:8]:
        few, many = (ideal_exceedance(pair.posterior, THRESHOLDS, nodes=n) for n in (24, 600))
        assert np.sqrt(np.mean((few - many) ** 2)) < 0.006


def test_probability_falls_with_the_threshold(pairs):
    for analysed in (False, True):
        p = ideal_exceedance(pairs[0].posterior, (0.25, 1.0, 2.5, 5.0, 10.0, 25.0), analysed=analysed)
        assert (np.diff(p, axis=0) <= 0).all()
        assert 0 <= p.min() <= p.max() <= 1
    with pytest.raises(InputError, match=r"thresholds \[1.0, 0.0\]: all must be above 0 mm"):
        ideal_exceedance(pairs[0].posterior, (1.0, 0.0))


# Nodes


@pytest.mark.parametrize("count", [6, 24, 48])
def test_nodes_are_antithetic_with_covariance_one(count):
    nodes = displacement_nodes(count)
    assert nodes.shape == (count, 2)
    np.testing.assert_allclose(nodes[: count // 2], -nodes[count // 2 :])
    np.testing.assert_allclose(nodes.T @ nodes / count, np.eye(2), atol=1e-12)


def test_nodes_are_normal_in_large_number():
    nodes = displacement_nodes(2000)
    for value in nodes.T:
        np.testing.assert_allclose(np.quantile(value, [0.05, 0.25, 0.5, 0.9]), [-1.645, -0.674, 0, 1.282], atol=0.03)
    assert np.mean(nodes**4) == pytest.approx(3.0, rel=0.05)
    for count in (4, 7):
        with pytest.raises(ValueError, match=f"{count} nodes: an even number of at least 6"):
            displacement_nodes(count)
