"""Training dates, leakage, and days of splits (acceptance A7, faults F13 and F14)."""

from datetime import datetime

import numpy as np
import pytest

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf import dates

DAY = np.timedelta64(1, "D")
SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


@pytest.mark.parametrize(
    ("lead", "ends"),
    [
        (12, ["2023-11-30", "2024-01-31", "2024-11-29", "2025-01-30", "2025-11-29"][1:]),
        (48, ["2024-01-31", "2024-11-27", "2025-01-30", "2025-11-27"]),
    ],
)
def test_windows(lead, ends):
    found = dates.training_dates("2025-12-01T00", lead)
    assert found.dtype == "datetime64[s]"
    assert len(found) == 4 * 241
    windows = np.split(found, np.flatnonzero(np.diff(found) > np.timedelta64(6, "h")) + 1)
    assert [len(window) for window in windows] == [241] * 4
    assert [str(window[-1].astype("datetime64[D]")) for window in windows] == ends
    for window in windows:
        assert window[-1] - window[0] == 60 * DAY
        assert window[0].item().hour == 0
    assert found.max() + lead * dates.HOUR <= np.datetime64("2025-11-30T00")


def test_years_have_365_days():
    # 29 February 2024 lies in between
    found = dates.training_dates("2024-12-01", 6, n_days=2, years=1)
    assert str(found[0]) == "2023-12-02T00:00:00"
    found = dates.training_dates(datetime(2024, 2, 29, 12), 6, n_days=1, step_h=12, years=1)
    assert [str(time) for time in found] == [
        "2023-03-01T12:00:00", "2023-03-02T00:00:00", "2023-03-02T12:00:00",
        "2024-02-26T12:00:00", "2024-02-27T00:00:00", "2024-02-27T12:00:00",
    ]  # fmt: skip


def test_valid_times_end_a_day_before_the_target():
    for lead in range(0, 73, 6):
        found = dates.training_dates("2025-12-01T06", lead)
        assert found.max() + lead * dates.HOUR <= np.datetime64("2025-11-30T06")
        assert found.max() + (lead + 25) * dates.HOUR > np.datetime64("2025-11-29T00")


def test_impossible_dates():
    with pytest.raises(InputError, match="n_days is 0, it must be at least 1"):
        dates.training_dates("2025-12-01", 6, n_days=0)
    with pytest.raises(InputError, match="'soon' is no time such as 2025-12-01"):
        dates.training_dates("soon", 6)
    # the days that followed a date one year earlier reach up to today
    with pytest.raises(InputError, match="training cases need analyses later than 2025-11-30T00:00:00"):
        dates.training_dates("2025-12-01", 6, n_days=364)


def test_leakage():
    inits = np.array(["2025-11-28T00", "2025-11-29T00", "2025-11-29T12"], "datetime64[h]")
    dates.require_no_leakage(inits, 12, "2025-12-01")
    dates.require_no_leakage(inits, [48, 24, 12], "2025-12-01")
    expected = (
        r"2 of 3 training cases need analyses later than 2025-11-30T00:00:00, 24 h before the target "
        r"2025-12-01T00:00:00: the first is the run from 2025-11-29T00:00:00 with lead 48 h, valid at 2025-12-01T00"
    )
    with pytest.raises(InputError, match=expected):
        dates.require_no_leakage(inits, [48, 48, 24], "2025-12-01")


def test_cases():
    inits = np.array(["2025-11-28T00", "2025-11-28T00", "2025-11-28T12"], "datetime64[h]")
    dates.require_cases(inits, [6, 12, 6])
    with pytest.raises(InputError, match="the run from 2025-11-28T00:00:00 with lead 6 h is there twice"):
        dates.require_cases(inits, [6, 6, 6])
    expected = "not in order: the run from 2025-11-28T00:00:00 with lead 6 h follows the run from 2025-11-28T00:00:00 w"
    with pytest.raises(InputError, match=expected):
        dates.require_cases(inits, [12, 6, 6])
    with pytest.raises(InputError, match="not in order: the run from 2025-11-28T00:00:00 with lead 12 h follows"):
        dates.require_cases(inits[::-1], [6, 12, 24])


def test_gap():
    assert [dates.gap_days(leads) for leads in (6, [6, 24], [25], (6, 12, 24, 48))] == [2, 2, 3, 3]


@pytest.mark.parametrize("seed", range(40))
def test_splits_share_no_day_and_keep_their_distance(seed):
    rng = np.random.default_rng(seed)
    start = np.datetime64("2024-01-01") + int(rng.integers(1000))
    season = start + np.arange(rng.integers(70, 200))
    # two seasons, with days missing
    days = np.concatenate([season, season + int(rng.integers(210, 400)) * DAY])
    days = days[rng.random(days.size) < 0.95]
    gap, block = int(rng.integers(0, 5)), int(rng.integers(3, 8))
    times = rng.permutation(days.astype("datetime64[h]") + rng.integers(0, 24, days.size) * dates.HOUR)
    splits = dates.split_days(times, SHARES, gap_days=gap, block_days=block, seed=seed)
    assert list(splits) == list(SHARES)
    for name, own in splits.items():
        assert np.isin(own, days).all()
        assert (np.diff(own) > 0 * DAY).all()
        for other in splits.keys() - {name}:
            distance = np.abs(own[:, None] - splits[other]).min()
            assert distance > gap * DAY
    assert all(np.array_equal(splits[k], v) for k, v in dates.split_days(
        np.sort(times), SHARES, gap_days=gap, block_days=block, seed=seed).items())  # fmt: skip
    dates.require_days(splits)
    # both seasons have days of every split
    for own in splits.values():
        assert (own <= season[-1]).any()
        assert (own > season[-1]).any()


def test_shares_and_spread():
    days = np.datetime64("2024-01-01") + np.arange(400)
    splits = dates.split_days(days, SHARES, gap_days=0)
    assert {name: len(own) for name, own in splits.items()} == {"train": 320, "validation": 40, "test": 40}
    for name in ("validation", "test"):
        # one block every 50 days, and the two splits' blocks far apart
        assert (np.diff(splits[name][::5]) == 50 * DAY).all()
        assert np.abs(splits["validation"][:, None] - splits["test"]).min() > 15 * DAY
    moved = dates.split_days(days, SHARES, gap_days=0, seed=1)
    assert not np.array_equal(moved["test"], splits["test"])
    with_gap = dates.split_days(days, SHARES, gap_days=3)
    assert (len(with_gap["validation"]), len(with_gap["test"])) == (40, 40)
    assert len(with_gap["train"]) >= 320 - 16 * 6


def test_impossible_splits():
    days = np.datetime64("2024-01-01") + np.arange(12)
    with pytest.raises(InputError, match=r"must be positive and add up to 1, they are {'a': 0.5}"):
        dates.split_days(days, {"a": 0.5}, gap_days=1)
    with pytest.raises(InputError, match="blocks of 0 days with gaps of 1"):
        dates.split_days(days, {"a": 1.0}, gap_days=1, block_days=0)
    with pytest.raises(InputError, match="there are no days to divide into a"):
        dates.split_days(days[:0], {"a": 1.0}, gap_days=1)
    with pytest.raises(
        InputError, match=r"no days are left for the split 'train': 12 days from 2024-01-01 to 2024-01-"
    ):
        dates.split_days(days, SHARES, gap_days=3)
    assert len(dates.split_days(days, {"a": 1.0}, gap_days=3)["a"]) == 12


def test_cases_belong_to_the_split_of_their_valid_day():
    days = np.array(["2024-01-02", "2024-01-03"], "datetime64[D]")
    inits = np.array(["2024-01-01T00", "2024-01-01T12", "2024-01-01T12", "2024-01-03T18"], "datetime64[h]")
    assert dates.is_in(inits, [24, 6, 12, 6], days).tolist() == [True, False, True, False]


def test_days_of_validation():
    splits = {"train": np.datetime64("2024-01-01") + np.arange(9), "validation": np.array(["2024-02-01"], "M8[D]")}
    with pytest.raises(InputError, match=r"'validation' has 1 days \(2024-02-01\), it needs 2: give it a larger share"):
        dates.require_days(splits)
    dates.require_days(splits, "train")
