"""From amounts to classes, and the climate of the training data."""

import logging

import numpy as np
import pytest
import torch

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.classes import check_edges, classify, usable
from precip_postproc.resunet_qpf.climate import Climate
from precip_postproc.resunet_qpf.config import EDGES, REFERENCE_EDGES, THRESHOLDS

AMOUNTS = [0.0, 0.2499, 0.25, 0.3, 24.9, 25.0, 60.0, float("nan"), -3.0, 9.97e36, float("inf"), 200.0]
# 25 is the 16th edge
CLASSES = [0, 0, 1, 1, 15, 16, 18, -1, -1, -1, -1, 18]


def climate_of(amounts: np.ndarray) -> Climate:
    return Climate(np.bincount(np.rint(amounts * 100).astype(int), minlength=20001))


# edges


def test_the_shipped_edges_hold_all_thresholds():
    assert check_edges(EDGES, THRESHOLDS) == EDGES
    assert len(check_edges(REFERENCE_EDGES, THRESHOLDS)) == 100


@pytest.mark.parametrize(
    ("edges", "thresholds", "message"),
    [
        ([], [], "at least one"),
        ([0.0, 1.0], [], "first must be above 0 mm, not 0"),
        ([-1.0, 1.0], [], "not -1"),
        ([float("nan"), 1.0], [], "not nan"),
        ([1.0, float("nan")], [], "nan mm follows 1 mm"),
        ([1.0, 3.0, 2.0], [], "2 mm follows 3 mm"),
        ([1.0, 1.0], [], "1 mm follows 1 mm"),
        ([1.0, 250.0], [], "below 200 mm"),
        ([0.25, 1.0, 5.0], [1.0, 2.5, 10.0], r"thresholds 2.5, 10 mm are no edges.*0.25, 1, 5 mm"),
    ],
)
def test_edges_that_make_no_classes(edges, thresholds, message):
    with pytest.raises(InputError, match=message):
        check_edges(edges, thresholds)


# classes


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_classes_of_arrays(dtype):
    classes = classify(np.array(AMOUNTS).astype(dtype).reshape(3, 4), EDGES)
    assert classes.dtype == np.int64
    assert classes.ravel().tolist() == CLASSES


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_classes_of_tensors(dtype):
    classes = classify(torch.tensor(AMOUNTS, dtype=dtype).reshape(3, 4), torch.tensor(EDGES))
    assert classes.dtype == torch.int64
    assert classes.ravel().tolist() == CLASSES
    assert classify(torch.tensor(AMOUNTS), EDGES).tolist() == CLASSES


def test_an_edge_is_reached_within_the_rounding_of_analyses():
    amounts = [0.2498, 0.24995, 0.99, 0.99999, 24.99, 24.99999]
    assert classify(np.array(amounts), EDGES).tolist() == [0, 1, 2, 3, 15, 16]
    assert classify(torch.tensor(amounts), EDGES).tolist() == [0, 1, 2, 3, 15, 16]


def test_tenths_in_single_precision_reach_edges_in_tenths():
    tenths = np.arange(1, 501).astype(np.float32) * np.float32(0.1)
    edges = [k / 10 for k in range(1, 501)]
    assert (classify(tenths, edges) == np.arange(1, 501)).all()
    assert (classify(torch.from_numpy(tenths), edges).numpy() == np.arange(1, 501)).all()


def test_usable_amounts():
    expected = [c >= 0 for c in CLASSES]
    assert usable(np.array(AMOUNTS)).tolist() == usable(torch.tensor(AMOUNTS)).tolist() == expected


# climate


def test_climate_of_known_amounts():
    climate = climate_of(np.array([0, 0, 0, 0, 0, 0.2, 0.25, 1.0, 1.0, 30.0]))
    assert climate.wet_share == 0.4
    assert climate.wet_mean == pytest.approx(32.25 / 4)
    assert climate.wet_variance == pytest.approx(np.var([0.25, 1, 1, 30]))
    assert climate.class_frequencies([0.25, 1.0, 25.0]).tolist() == [0.6, 0.1, 0.2, 0.1]
    assert climate.quantiles([0.1, 0.6, 0.65, 0.9, 0.95]).tolist() == [0.0, 0.2, 0.25, 1.0, 30.0]


def test_climate_leaves_out_impossible_amounts():
    counts = np.zeros(30000, np.int64)
    counts[[0, 100, 25000]] = 1
    climate = Climate(counts)
    assert climate.total == 2
    assert climate.wet_mean == 1.0
    assert climate.class_frequencies([0.5]).tolist() == [0.5, 0.5]


def test_dry_climate_has_no_wet_moments():
    climate = climate_of(np.zeros(3))
    assert climate.wet_share == 0
    assert np.isnan([climate.wet_mean, climate.wet_variance]).all()


def test_climate_needs_a_valid_amount():
    with pytest.raises(InputError, match="no valid amount"):
        Climate(np.zeros(100, np.int64))
    with pytest.raises(ValueError, match="one-dimensional"):
        Climate(np.ones((2, 2), np.int64))


def test_empty_classes_are_named(caplog):
    climate = climate_of(np.array([0, 0, 2.0]))
    with caplog.at_level(logging.WARNING):
        climate.warn_empty([1.0, 3.0, 25.0])
    assert "3-25 mm, 25-inf mm" in caplog.text
    assert "0: 2, 1: 1, 3: 0, 25: 0" in caplog.text
    caplog.clear()
    climate.warn_empty([1.0])
    assert not caplog.text
