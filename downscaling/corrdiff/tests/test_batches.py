"""Batches of pairs, and the rows of ensembles."""

import pickle

import numpy as np
import pytest
import torch

from ai4sim.errors import InputError
from ai4sim.store import open_store
from downscaling.corrdiff import prepare
from downscaling.corrdiff.batches import MEAN, Plan, PlannedRows, RawPairs, Statics, StoredPairs, labels_of
from downscaling.corrdiff.splits import TimeFractions
from downscaling.corrdiff.tests.memory_source import MemorySource, make_pairs

LEADS = (0, 3, 6, 9)


def crops(**changes) -> MemorySource:
    """24 pairs, three of a time, parts of a grid."""
    return MemorySource(make_pairs(24, per_time=3, **changes))


def forecasts(**changes) -> MemorySource:
    """24 pairs with lead times of 0, 3, 6 and 9 h."""
    return crops(**{"leads": np.tile(LEADS, 6), "lead_labels": LEADS} | changes)


def stored(tmp_path, source: MemorySource) -> StoredPairs:
    """A store of all but the pairs in the gaps."""
    split = TimeFractions(0.5, 0.25, 0.25, gap_hours=2)
    path = tmp_path / "s.zarr"
    prepare.build(path, source, split.mark(source.pairs), transforms={}, on_missing="error")
    return StoredPairs(str(path), source.pairs.lead_labels)


class TestStatics:
    def test_fields_are_cut_at_the_corners(self):
        fields = np.arange(2 * 10 * 14, dtype=np.float32).reshape(2, 10, 14)
        corners = np.array([[0, 0], [4, 6], [3, 1]])
        found = Statics(fields, (6, 8)).cut(corners)
        assert found.shape == (3, 2, 6, 8)
        for part, (i, j) in zip(found, corners, strict=True):
            np.testing.assert_array_equal(part, fields[:, i : i + 6, j : j + 8])

    def test_without_static_fields(self):
        assert Statics(np.empty((0, 10, 14), np.float32), (6, 8)).cut(np.zeros((3, 2), np.int64)).shape == (3, 0, 6, 8)


class TestStoredPairs:
    def test_a_batch(self, tmp_path):
        source = forecasts()
        pairs = stored(tmp_path, source)
        with open_store(tmp_path / "s.zarr") as store:
            cases = store["case"].values
        assert len(cases) < 24
        rows = np.array([5, 0, 13])
        batch = pairs.read(rows)
        assert set(batch) == {"input", "output", "static", "corner", "case", "index", "lead"}
        assert batch["index"].tolist() == rows.tolist()
        own = cases[rows]
        assert batch["case"].tolist() == own.tolist()
        np.testing.assert_array_equal(batch["input"], source.inputs[own])
        np.testing.assert_array_equal(batch["output"], source.outputs[own])
        np.testing.assert_array_equal(batch["corner"], source.found.corners[own])
        for static, (i, j) in zip(batch["static"], source.found.corners[own], strict=True):
            np.testing.assert_array_equal(static, source.found.static_fields[:, i : i + 6, j : j + 8])
        assert batch["lead"].tolist() == (own % 4).tolist()
        assert batch["lead"].dtype == torch.int64

    def test_pairs_without_lead_times_that_are_the_whole_grid(self, tmp_path):
        source = MemorySource()
        batch = stored(tmp_path, source).read([3, 4])
        assert "lead" not in batch
        assert batch["corner"].tolist() == [[0, 0], [0, 0]]
        np.testing.assert_array_equal(batch["static"][1], source.found.static_fields)

    def test_can_be_sent_to_another_process(self, tmp_path):
        pairs = stored(tmp_path, crops())
        again = pickle.loads(pickle.dumps(pairs))
        for name, values in pairs.read([2, 7]).items():
            assert torch.equal(again.read([2, 7])[name], values)


class TestRawPairs:
    def test_a_pair_is_that_of_the_store(self, tmp_path):
        source = forecasts()
        batch = stored(tmp_path, source).read([0, 7, 12])
        raw = RawPairs(source).read(batch["case"])
        assert "output" not in raw
        for name in ("input", "static", "corner", "case", "lead"):
            assert torch.equal(raw[name], batch[name]), name
            assert raw[name].dtype == batch[name].dtype, name
        assert torch.equal(raw["index"], raw["case"])

    def test_without_truth_corners_and_lead_times(self):
        source = MemorySource(make_pairs(4, outputs=()))
        raw = RawPairs(source).read([2])
        assert set(raw) == {"input", "static", "corner", "case", "index"}
        np.testing.assert_array_equal(raw["input"], source.inputs[2:3])
        assert raw["corner"].tolist() == [[0, 0]]

    def test_missing_values(self):
        source = crops()
        source.inputs[7, 1, 0, :2] = np.nan
        source.inputs[9, 0, 0, 0] = np.inf
        RawPairs(source).read([6, 8])
        message = (
            r"input 'wind' of pair 7 \(2021-06-01T02:00:00\) has 2 values that are missing or infinite: leave this"
        )
        with pytest.raises(InputError, match=message):
            RawPairs(source).read([6, 7, 9])


class TestLabels:
    def test_places_among_the_known(self):
        assert labels_of(np.array([6, 0, 9, 3, 3]), LEADS).tolist() == [2, 0, 3, 1, 1]

    def test_a_lead_time_that_is_not_known(self):
        with pytest.raises(InputError, match="lead time 5 h has no label; known are 0, 3, 6, 9 h"):
            labels_of(np.array([3, 5, 12]), LEADS)
        with pytest.raises(InputError, match="lead time 9 h has no label; known are 0, 3, 6 h"):
            RawPairs(forecasts(lead_labels=LEADS[:3]))


class TestPlan:
    def test_all_members_of_every_pair_after_its_mean(self):
        plan = Plan.of(np.array([4, 9]), 3)
        assert plan.pair.tolist() == [4, 4, 4, 4, 9, 9, 9, 9]
        assert plan.member.tolist() == [MEAN, 0, 1, 2] * 2
        assert len(plan) == 8

    def test_only_members_or_only_means(self):
        assert Plan.of(np.array([4, 9]), 2, mean=False).member.tolist() == [0, 1, 0, 1]
        assert Plan.of(np.array([4, 9]), 0).member.tolist() == [MEAN, MEAN]
        assert len(Plan.of(np.array([4, 9]), 0, mean=False)) == 0

    def test_one_after_the_other(self):
        plan = Plan.of(np.array([4]), 1) + Plan.of(np.array([1, 0]), 0)
        assert plan.pair.tolist() == [4, 4, 1, 0]
        assert plan.member.tolist() == [MEAN, 0, MEAN, MEAN]


class TestPlannedRows:
    PLAN = Plan.of(np.array([3, 8, 1]), 4) + Plan.of(np.array([8, 0]), 0)

    def test_a_pair_is_read_once_for_its_members(self):
        source = crops()
        rows = PlannedRows(RawPairs(source), self.PLAN)
        batch = rows.read(np.arange(2, 8))
        assert batch["index"].tolist() == [2, 3, 4, 5, 6, 7]
        assert batch["member"].tolist() == [1, 2, 3, MEAN, 0, 1]
        assert len(batch["input"]) == len(batch["static"]) == 2
        assert len(source.reads) == 2
        assert batch["case"][batch["row_pair"]].tolist() == [3, 3, 3, 8, 8, 8]

    def test_there_is_no_truth(self, tmp_path):
        assert "output" not in PlannedRows(stored(tmp_path, crops()), self.PLAN).read([0])

    def test_members_of_pairs_that_come_back(self):
        batch = PlannedRows(RawPairs(crops()), self.PLAN).read([16, 14, 5, 15])
        assert batch["member"].tolist() == [MEAN, 3, MEAN, MEAN]
        assert batch["case"][batch["row_pair"]].tolist() == [0, 1, 8, 8]
        assert batch["case"].tolist() == [0, 1, 8]

    @pytest.mark.parametrize("size", [1, 2, 5, 17])
    def test_what_a_row_is_does_not_depend_on_the_batch(self, size):
        source = forecasts()
        rows = PlannedRows(RawPairs(source), self.PLAN)
        for start in range(0, len(self.PLAN), size):
            batch = rows.__getitems__(np.arange(start, min(start + size, len(self.PLAN))))
            for place, row in enumerate(batch["index"].tolist()):
                pair, own = self.PLAN.pair[row], batch["row_pair"][place]
                assert batch["member"][place] == self.PLAN.member[row]
                assert batch["case"][own] == pair
                assert batch["lead"][own] == pair % 4
                np.testing.assert_array_equal(batch["input"][own], source.inputs[pair])
                i, j = source.found.corners[pair]
                np.testing.assert_array_equal(batch["static"][own], source.found.static_fields[:, i : i + 6, j : j + 8])
