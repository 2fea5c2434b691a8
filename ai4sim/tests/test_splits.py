from itertools import pairwise

import numpy as np
import pytest

from ai4sim.splits import SplitError, split_by_files, split_by_periods

LENGTHS = {"2015-01-01": 10, "2015-01-31": 5, "2016-02-25": 7, "2017-02-19": 0}


def test_files_become_rows_in_store_order_and_neighbours_are_joined():
    splits = split_by_files(LENGTHS, {"test": ["2016-02-25"], "train": ["2015-01-31", "2015-01-01"]})
    assert splits == {"test": [slice(15, 22)], "train": [slice(0, 15)]}


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (
            {"train": ["2014-01-01"]},
            "'train' names '2014-01-01', which is not there; valid are 2015-01-01, 2015",
        ),
        (
            {"train": ["2015-01-01"], "test": ["2015-01-01"]},
            "'2015-01-01' is in split 'train' and again in 'test'",
        ),
        ({"train": []}, "split 'train' is empty"),
        ({"test": ["2017-02-19"]}, "split 'test' is empty: its files 2017-02-19 have no rows"),
    ],
)
def test_wrong_file_splits_are_named(splits, message):
    with pytest.raises(SplitError, match=message):
        split_by_files(LENGTHS, splits)


TIMES = np.arange("2000-01-01", "2000-03-01", dtype="datetime64[D]")  # 60 days


def test_periods_leave_a_gap_between_different_splits_only():
    splits = split_by_periods(
        TIMES,
        {
            "train": [("2000-01-01", "2000-01-11"), ("2000-01-11", "2000-01-21")],
            "validation": ("2000-01-21", "2000-01-31"),
            "test": ("2000-02-10", "2000-03-01"),
        },
        gap=np.timedelta64(4, "D"),
    )
    # train's two periods touch; validation starts 4 days late; test is far enough away already
    assert splits == {"train": [slice(0, 20)], "validation": [slice(24, 30)], "test": [slice(40, 60)]}


def test_no_two_splits_come_closer_than_the_gap():
    gap = np.timedelta64(3, "D")
    edges = np.arange("2000-01-01", "2000-03-02", 6, dtype="datetime64[D]")
    names = ["train", "validation", "test"]
    periods: dict[str, list] = {name: [] for name in names}
    for k, (start, end) in enumerate(pairwise(edges)):
        periods[names[k % 3]].append((start, end))
    splits = split_by_periods(TIMES, periods, gap)
    owner = np.full(len(TIMES), -1)
    for number, name in enumerate(names):
        for rows in splits[name]:
            assert (owner[rows] == -1).all()
            owner[rows] = number
    used = np.flatnonzero(owner >= 0)
    changes = np.flatnonzero(np.diff(owner[used]))
    assert len(changes) > 3
    assert (TIMES[used[changes + 1]] - TIMES[used[changes]] > gap).all()


@pytest.mark.parametrize(
    ("periods", "message"),
    [
        ({"a": ("2000-01-01", "2000-01-10"), "b": ("2000-01-09", "2000-01-20")}, "'b'.* overlaps split 'a'"),
        ({"a": ("2000-01-10", "2000-01-10")}, "'a': the period 2000-01-10 .. 2000-01-10 is empty"),
        ({"a": ("2010-01-01", "2010-02-01")}, "'a' has no rows; the times go from 2000-01-01 to 2000-02-29"),
    ],
)  # fmt: skip
def test_wrong_periods_are_named(periods, message):
    with pytest.raises(SplitError, match=message):
        split_by_periods(TIMES, periods)


def test_a_period_inside_an_earlier_long_one_overlaps_it():
    periods = {
        "a": ("2000-01-01", "2000-02-20"),
        "b": [("2000-02-20", "2000-02-25")],
    }
    assert split_by_periods(TIMES, periods)["a"] == [slice(0, 50)]
    with pytest.raises(SplitError, match="times must increase, but row 1"):
        split_by_periods(TIMES[[1, 0, 2]], periods)


def test_a_period_that_the_gap_uses_up_is_no_rows():
    periods = {
        "train": ("2000-01-01", "2000-01-11"),
        "validation": [("2000-01-11", "2000-01-13"), ("2000-01-20", "2000-01-25")],
    }
    gap = np.timedelta64(5, "D")
    assert split_by_periods(TIMES, periods, gap=gap)["validation"] == [slice(19, 24)]
    with pytest.raises(SplitError, match="split 'validation' has no rows"):
        split_by_periods(TIMES, {**periods, "validation": ("2000-01-11", "2000-01-13")}, gap=gap)
