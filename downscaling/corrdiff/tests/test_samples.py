"""What is scored, from rows of predictions and the store."""

import numpy as np
import pytest

from ai4sim.errors import InputError
from ai4sim.store import open_store
from downscaling.corrdiff.interpolation import interpolate
from downscaling.corrdiff.models import ResidualDiffusionModule
from downscaling.corrdiff.samples import (
    ANALOGS,
    BICUBIC,
    BILINEAR,
    CLIMATOLOGY,
    DIFFUSION,
    LAPSE,
    REGRESSION,
    WIND,
    TestSamples,
)
from downscaling.corrdiff.tests.synthetic_predictions import exchangeable, make_predictions, perfect

CHANNELS = ["10u", "10v", "2t", "tp"]


@pytest.fixture
def predictions(data):
    return make_predictions(data, exchangeable, 3)


@pytest.fixture
def samples(predictions):
    return TestSamples(predictions, pairs_at_once=3)


def test_what_is_known_of_a_run(samples):
    assert samples.channels == CHANNELS
    assert samples.units == {"10u": "m s-1", "10v": "m s-1", "2t": "K", "tp": "mm h-1"}
    assert samples.units_of(WIND) == "m s-1"
    assert (samples.members, samples.factor, samples.model) == (3, 8, "corrdiff")
    assert samples.spacing_km == pytest.approx(3.0, rel=1e-3)
    assert samples.northward
    assert list(samples.std) == CHANNELS
    assert min(samples.std.values()) > 0


def test_parts_are_all_pairs_once_and_in_order(samples):
    parts = list(samples.parts())
    assert samples.n_parts == len(parts) == 2
    assert [len(part.pair) for part in parts] == [3, 1]
    pairs = np.concatenate([part.pair for part in parts])
    assert (np.diff(pairs) > 0).all()
    for part in parts:
        assert part.truth["2t"].dims == ("sample", "y", "x")
        assert part.products["corrdiff"]["2t"].dims == ("sample", "member", "y", "x")
        np.testing.assert_array_equal(part.truth["2t"]["sample"], part.pair)


def test_products_and_their_variables(samples):
    part = samples.first(2)
    inputs = {"10u", "10v", "2t", WIND}
    assert {name: set(fields) for name, fields in part.products.items()} == {
        BILINEAR: inputs, BICUBIC: inputs, LAPSE: {"2t"}, REGRESSION: {*CHANNELS, WIND},
        ANALOGS: {*CHANNELS, WIND}, "corrdiff": {*CHANNELS, WIND},
    }  # fmt: skip
    assert set(part.coarse) == inputs
    assert part.truth["tp"].attrs == {"units": "mm h-1"}


def test_fields_are_those_of_the_store_and_the_run(samples, predictions, data):
    part = next(samples.parts())
    with open_store(data.store) as store:
        truth, inputs = store["output"].values[part.pair], store["input"].values[part.pair]
    np.testing.assert_array_equal(part.truth["2t"], truth[:, 2])
    np.testing.assert_array_equal(part.truth[WIND], np.hypot(truth[:, 0], truth[:, 1]))
    # a pair has its mean first, then its members
    rows = predictions["field"].values.reshape(-1, 4, 32, 32)[: 4 * 4].reshape(4, 4, 4, 32, 32)
    np.testing.assert_array_equal(part.products[REGRESSION]["10v"], rows[:3, 0, 1])
    np.testing.assert_array_equal(part.products["corrdiff"]["tp"], rows[:3, 1:, 3])
    place = samples.inputs.index("2t")
    np.testing.assert_array_equal(part.coarse["2t"], inputs[:, place])
    np.testing.assert_array_equal(part.products[BILINEAR]["2t"], interpolate(inputs[:, place], 8, "linear"))


def test_analogs_are_the_regression_with_residuals_of_training_pairs(samples):
    part = next(samples.parts())
    added = part.products[ANALOGS]["2t"].values - part.products[REGRESSION]["2t"].values[:, None]
    # the residuals of the training pairs are 1, 2 and 3 everywhere, and none is drawn twice
    for pair in added:
        assert sorted(member.mean().round(3) for member in pair) == [1, 2, 3]
        assert max(member.std() for member in pair) < 1e-4
    again = next(TestSamples(samples.predictions, pairs_at_once=1).parts())
    np.testing.assert_array_equal(again.products[ANALOGS]["tp"][0], part.products[ANALOGS]["tp"][0])


def rooted(amount: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(amount, 0))


def test_analogs_of_rain_are_drawn_after_its_transform(samples, predictions, data):
    part = next(samples.parts())
    rows = np.flatnonzero(predictions["split"] == 0)
    with open_store(data.store) as store:
        truth = store["output"].values[predictions["pair"].values[rows], 3]
    residuals = rooted(truth) - rooted(predictions["field"].values[rows, 3])
    roots = rooted(part.products[REGRESSION]["tp"].values)
    members = part.products[ANALOGS]["tp"].values
    assert members.min() == 0
    for mean, drawn in zip(roots, members, strict=True):
        expected = np.maximum(mean + residuals, 0) ** 2
        for own in drawn:
            assert min(np.abs(own - one).max() for one in expected) < 1e-5


def test_residuals_with_gaps_are_no_analogs(predictions, monkeypatch):
    read = TestSamples._read

    def with_gaps(samples, rows):
        fields = read(samples, rows).copy()
        fields[rows == rows_of_training[0], 1, 2, 3] = np.nan
        return fields

    rows_of_training = np.flatnonzero(predictions["split"] == 0)
    monkeypatch.setattr(TestSamples, "_read", with_gaps)
    assert len(TestSamples(predictions).residuals()) == 2
    monkeypatch.setattr(TestSamples, "_read", lambda samples, rows: np.full_like(read(samples, rows), np.nan))
    assert TestSamples(predictions).residuals() is None


def test_a_run_without_a_regression_has_the_climatology(predictions):
    assert ResidualDiffusionModule().label == DIFFUSION
    products = TestSamples(predictions.assign_attrs(model=DIFFUSION)).first(1).products
    assert set(products) == {BILINEAR, BICUBIC, LAPSE, CLIMATOLOGY, ANALOGS, DIFFUSION}


def test_without_members_there_are_single_forecasts_alone(data):
    samples = TestSamples(make_predictions(data, perfect, 0, analogs=0))
    part = samples.first(1)
    assert samples.members == 0
    assert set(part.products) == {BILINEAR, BICUBIC, LAPSE, REGRESSION}


def test_blocks_are_of_half_a_day(samples, data):
    labels = np.concatenate([part.block.values for part in samples.parts()])
    pairs = np.concatenate([part.pair for part in samples.parts()])
    with open_store(data.store) as store:
        times = store["time"].values
    hours = (times[pairs] - times.min()) / np.timedelta64(1, "h")
    np.testing.assert_array_equal(labels, hours // 12)


def test_bounds_are_of_the_truth(samples):
    fields = [part.truth for part in samples.parts()]
    for name, (low, high) in samples.bounds().items():
        assert low == min(float(own[name].min()) for own in fields)
        assert high == max(float(own[name].max()) for own in fields)


def test_a_store_that_was_made_anew_is_refused(predictions):
    with pytest.raises(InputError, match=r"tiny\.zarr was made anew after this run"):
        TestSamples(predictions.assign_attrs(fingerprint="other"))
