"""Which pairs are learnt from, validated and tested on."""

import numpy as np
import pytest
from jsonargparse import ArgumentParser

from ai4sim.errors import InputError
from downscaling.corrdiff.readers import HrrrMini
from downscaling.corrdiff.splits import SPLITS, UNUSED, PlaceFractions, Split, TimeFractions, TimePeriods
from downscaling.corrdiff.tests.memory_source import HOUR, START, make_pairs
from downscaling.corrdiff.tests.synthetic_stores import hrrr_mini_fields, write_hrrr_mini

TRAIN, VALIDATION, TEST = range(3)


def distance(times: np.ndarray, marks: np.ndarray, one: int, other: int) -> float:
    """Least time between pairs of two splits, h."""
    apart = times[marks == one][:, None] - times[marks == other]
    return float(np.abs(apart).min() / HOUR)


def irregular(n: int = 400) -> np.ndarray:
    """Times with gaps, some repeated."""
    steps = np.random.default_rng(0).choice([0, 0, 1, 1, 3, 50], n)
    return START + HOUR * np.cumsum(steps)


class TestTimeFractions:
    def test_shares_and_order(self):
        marks = TimeFractions(gap_hours=0).mark(make_pairs(100))
        assert marks.dtype == np.int8
        assert marks.tolist() == [TRAIN] * 70 + [VALIDATION] * 10 + [TEST] * 20

    def test_gaps_are_left_out_before_validation_and_test(self):
        marks = TimeFractions(gap_hours=5).mark(make_pairs(100))
        # from the last time of training, number 69, to the first of validation, number 74, it is the gap
        assert marks.tolist() == [0] * 70 + [UNUSED] * 4 + [1] * 6 + [UNUSED] * 4 + [2] * 16

    @pytest.mark.parametrize("gap", [0.0, 1.5, 24.0, 60.0])
    def test_nothing_is_within_the_gap_of_another_split(self, gap):
        times = irregular()
        marks = TimeFractions(gap_hours=gap).mark(make_pairs(len(times), times=times))
        for one, other in ((TRAIN, VALIDATION), (TRAIN, TEST), (VALIDATION, TEST)):
            assert distance(times, marks, one, other) >= max(gap, 1)
        assert times[marks == TRAIN].max() < times[marks == VALIDATION].min()
        assert times[marks == VALIDATION].max() < times[marks == TEST].min()

    def test_a_day_is_left_out_by_default(self):
        pairs = make_pairs(600)
        assert distance(pairs.times, TimeFractions().mark(pairs), TRAIN, VALIDATION) == 24

    def test_pairs_of_one_time_stay_together(self):
        pairs = make_pairs(99, per_time=3)
        marks = TimeFractions(gap_hours=2).mark(pairs).reshape(33, 3)
        assert (marks == marks[:, :1]).all()
        assert set(marks.ravel()) == {TRAIN, VALIDATION, TEST, UNUSED}

    def test_shares_below_1_leave_the_last_times_out(self):
        marks = TimeFractions(0.5, 0.1, 0.1, gap_hours=0).mark(make_pairs(20))
        assert marks.tolist() == [0] * 10 + [1] * 2 + [2] * 2 + [UNUSED] * 6

    def test_of_pairs_of_a_file(self, tmp_path):
        file = write_hrrr_mini(tmp_path / "train.nc", hrrr_mini_fields(9))
        marks = TimeFractions(0.34, 0.33, 0.33, gap_hours=0).mark(HrrrMini(file).pairs)
        assert marks.tolist() == [0] * 3 + [1] * 3 + [2] * 3

    @pytest.mark.parametrize("shares", [(0.8, 0.2, 0.0), (0.7, 0.2, 0.2), (-0.1, 0.5, 0.5)])
    def test_impossible_shares(self, shares):
        for kind in (TimeFractions, PlaceFractions):
            with pytest.raises(InputError, match=r"shares must be above 0 and sum to at most 1, not \("):
                kind(*shares)

    @pytest.mark.parametrize("gap", [-1.0, float("nan")])
    def test_impossible_gaps(self, gap):
        with pytest.raises(InputError, match=rf"data\.split\.gap_hours is {gap}; expected at least 0"):
            TimeFractions(gap_hours=gap)
        with pytest.raises(InputError, match=rf"data\.split\.gap_hours is {gap}; expected at least 0"):
            TimePeriods([], [], [], gap_hours=gap)
        with pytest.raises(InputError, match=rf"data\.split\.gap_columns is {gap}; expected at least 0"):
            PlaceFractions(gap_columns=gap)

    def test_a_gap_that_swallows_a_split(self):
        message = (
            r"data\.split: the validation split has none of the 50 pairs \(the times go from 2021-06-01T00:00:00 to "
            r"2021-06-03T01:00:00, gap 24 h\)"
        )
        with pytest.raises(InputError, match=message):
            TimeFractions().mark(make_pairs(50))

    def test_a_single_time(self):
        with pytest.raises(InputError, match=r"data\.split: the validation split has none of the 8 pairs"):
            TimeFractions().mark(make_pairs(8, per_time=8))


class TestTimePeriods:
    SPLIT = TimePeriods(
        train=[["2021-06-01", "2021-06-03"], ["2021-06-09", "2021-06-11"]],
        validation=[["2021-06-03", "2021-06-05"]],
        test=[["2021-06-05", "2021-06-09"]],
        gap_hours=6,
    )

    def test_times_from_the_start_until_before_the_end(self):
        pairs = make_pairs(24)
        marks = TimePeriods(
            [["2021-06-01T02", "2021-06-01T05"]], [["2021-06-01T08", "2021-06-01T09"]], [["2021-06-01T20", "2022"]], 0
        ).mark(pairs)
        assert np.flatnonzero(marks == TRAIN).tolist() == [2, 3, 4]
        assert np.flatnonzero(marks == VALIDATION).tolist() == [8]
        assert np.flatnonzero(marks == TEST).tolist() == [20, 21, 22, 23]
        assert (marks == UNUSED).sum() == 16

    def test_pairs_near_another_split_are_left_out(self):
        pairs = make_pairs(240)
        marks = self.SPLIT.mark(pairs)
        for one, other in ((TRAIN, VALIDATION), (TRAIN, TEST), (VALIDATION, TEST)):
            assert distance(pairs.times, marks, one, other) == 6
        # no training pair is left out, and no test pair for validation: 5 h of each border
        assert (marks == TRAIN).sum() == 96
        assert (marks == TEST).sum() == 96 - 5
        assert (marks == VALIDATION).sum() == 48 - 5 - 5

    @pytest.mark.parametrize("gap", [0.0, 2.5, 30.0])
    def test_gap_of_irregular_and_repeated_times(self, gap):
        times = irregular()
        days = ["2021-06-01", "2021-07-10", "2021-07-20", "2021-09-30"]
        split = TimePeriods([days[:2]], [days[1:3]], [days[2:]], gap)
        marks = split.mark(make_pairs(len(times), times=times))
        for one, other in ((TRAIN, VALIDATION), (TRAIN, TEST), (VALIDATION, TEST)):
            assert distance(times, marks, one, other) >= max(gap, 1)
        for time in np.unique(times):
            assert len(set(marks[times == time])) == 1

    def test_periods_with_times_in_common(self):
        split = TimePeriods([["2021-06-01", "2021-06-03"]], [["2021-06-02", "2021-06-04"]], [["2021-06-05", "2022"]])
        message = r"validation \['2021-06-02', '2021-06-04'\] and train have 2021-06-02T00:00:00 in common"
        with pytest.raises(InputError, match=message):
            split.mark(make_pairs(200))

    @pytest.mark.parametrize(
        ("period", "message"),
        [
            (["2021-06-03", "2021-06-01"], r"validation: the period 2021-06-03.* \.\. 2021-06-01.* is empty"),
            (["June", "July"], r"validation: \['June', 'July'\] is no period; write \[\[2018-01-01, 2021-01-01\]\]"),
            (["2021-06-03"], r"validation: \['2021-06-03'\] is no period"),
            ("2021-06-03", r"validation: '2021-06-03' is no period"),
        ],
    )
    def test_periods_that_are_none(self, period, message):
        split = TimePeriods([["2021-06-01", "2021-06-02"]], [period], [["2021-06-05", "2022"]])
        with pytest.raises(InputError, match=rf"data\.split\.{message}"):
            split.mark(make_pairs(200))

    def test_periods_without_pairs(self):
        split = TimePeriods([["2021-06-01", "2021-06-02"]], [["2019", "2020"]], [["2021-06-05", "2022"]])
        message = r"the validation split has none of the 200 pairs \(the times go from 2021-06-01T00.* to 2021-06-09T07"
        with pytest.raises(InputError, match=message):
            split.mark(make_pairs(200))

    def test_from_yaml(self, tmp_path):
        (tmp_path / "split.yaml").write_text(
            "split:\n"
            "  class_path: downscaling.corrdiff.splits.TimePeriods\n"
            "  init_args:\n"
            "    train: [[2021-06-01, 2021-06-03], [2021-06-09, 2021-06-11]]\n"
            "    validation: [[2021-06-03, 2021-06-05]]\n"
            "    test: [[2021-06-05, 2021-06-09]]\n"
            "    gap_hours: 6\n"
        )
        parser = ArgumentParser()
        parser.add_argument("--config", action="config")
        parser.add_argument("--split", type=Split)
        arguments = parser.parse_args([f"--config={tmp_path / 'split.yaml'}"])
        assert parser.instantiate(arguments).split == self.SPLIT


class TestPlaceFractions:
    def test_columns_from_the_west(self):
        pairs = make_pairs(
            18, per_time=18, output_shape=(6, 2), latitude=np.zeros((10, 20), np.float32),
            corners=np.stack([np.zeros(18, int), np.arange(18)], axis=1),
        )  # fmt: skip
        marks = PlaceFractions(0.5, 0.25, 0.25).mark(pairs)
        # parts over a border, at 10 and 15, are in neither
        assert marks.tolist() == [0] * 9 + [UNUSED] + [1] * 4 + [UNUSED] + [2] * 3
        marks = PlaceFractions(0.5, 0.25, 0.25, gap_columns=2).mark(pairs)
        assert marks.tolist() == [0] * 9 + [UNUSED] * 3 + [1] * 2 + [UNUSED] * 3 + [2]

    def test_no_column_is_in_two_splits(self):
        rng = np.random.default_rng(0)
        corners = np.stack([np.zeros(500, int), rng.integers(0, 193, 500)], axis=1)
        pairs = make_pairs(500, latitude=np.zeros((6, 200), np.float32), corners=corners)
        marks = PlaceFractions(gap_columns=3).mark(pairs)
        ends = [(corners[marks == k, 1].min(), corners[marks == k, 1].max() + 8) for k in range(3)]
        assert ends[0][1] + 3 <= ends[1][0]
        assert ends[1][1] + 3 <= ends[2][0]

    def test_pairs_that_are_no_parts(self):
        with pytest.raises(InputError, match=r"data\.split by place needs pairs that are parts of a grid"):
            PlaceFractions().mark(make_pairs())

    def test_parts_that_are_too_wide(self):
        with pytest.raises(InputError, match=r"the validation split has none of the 24 pairs .*14 columns, parts 8\)"):
            PlaceFractions().mark(make_pairs(24, per_time=24))


def test_names():
    assert SPLITS == ("train", "validation", "test")
