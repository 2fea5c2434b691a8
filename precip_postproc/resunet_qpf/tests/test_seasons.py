"""Which forecasts a training, its validation and its test are made of."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.case_list import CaseList
from precip_postproc.resunet_qpf.dates import DAY, HOUR, training_dates
from precip_postproc.resunet_qpf.demo import DemoSettings
from precip_postproc.resunet_qpf.seasons import Calendar, DemoCalendar, SeasonCalendar, Validation

CALENDARS = [
    SeasonCalendar("2025-12-01", n_days=30, test_days=10),
    SeasonCalendar("2024-03-01", years=1, step_hours=12, validation=Validation(0.2, 4, seed=2)),
    DemoCalendar(DemoSettings(days=40, test_days=10)),
]


def days(cases: CaseList, split: str) -> np.ndarray:
    return np.unique(cases.valid_time[cases.split == split].astype("datetime64[D]"))


@pytest.mark.parametrize("calendar", CALENDARS, ids=["season", "leap year", "demo"])
@pytest.mark.parametrize("leads", [[6], [6, 12, 24, 48]])
class TestSplits:
    def test_no_valid_day_is_in_two_splits_and_gaps_are_kept(self, calendar, leads):
        cases = calendar.cases(leads)
        train, validation, test = (days(cases, split) for split in ("train", "validation", "test"))
        gap = -(-max(leads) // 24) + 1
        between = np.abs((train[:, None] - validation).astype(int))
        assert between.min() == gap + 1
        assert not np.isin(test, np.concatenate([train, validation])).any()

    def test_training_ends_a_day_before_the_target_and_tests_begin_after_it(self, calendar, leads):
        cases, target = calendar.cases(leads), calendar.target_time
        learnt = cases.split != "test"
        assert cases.valid_time[learnt].max() <= target - DAY
        assert (cases.valid_time[~learnt] > target).all()
        assert (cases.init[~learnt] >= target).all()

    def test_validation_has_its_share_of_all_lead_times(self, calendar, leads):
        cases = calendar.cases(leads)
        share = calendar.validation.share
        n = {split: len(days(cases, split)) for split in ("train", "validation")}
        assert 0.5 * share < n["validation"] / (n["train"] + n["validation"]) < 2 * share
        for split in ("train", "validation", "test"):
            assert set(cases.lead[cases.split == split]) == set(leads)

    def test_cases_are_in_order(self, calendar, leads):
        cases = calendar.cases(leads)
        order = np.lexsort([cases.lead, cases.init])
        assert (order == np.arange(len(cases))).all()
        assert cases.init.dtype == np.dtype("datetime64[s]")
        assert cases.lead.dtype == np.int64


def test_a_season_has_the_dates_of_each_lead_time():
    calendar = SeasonCalendar("2025-12-01", test_days=2, test_hours=[12, 0])
    np.testing.assert_array_equal(calendar.training_inits(48), training_dates("2025-12-01", 48))
    assert len(calendar.training_inits(12)) == 964
    assert [str(time) for time in calendar.test_inits()] == [
        "2025-12-01T00:00:00", "2025-12-01T12:00:00", "2025-12-02T00:00:00", "2025-12-02T12:00:00",
    ]  # fmt: skip
    cases = calendar.cases([12, 48])
    learnt = cases.split != "test"
    for lead in (12, 48):
        mine = cases.init[learnt & (cases.lead == lead)]
        assert np.isin(mine, training_dates("2025-12-01", lead)).all()
        assert (~np.isin(mine, cases.init[~learnt])).all()
    assert (~learnt).sum() == 8


def test_the_demo_has_its_own_dates():
    settings = DemoSettings(days=40, test_days=3)
    cases = DemoCalendar(settings).cases([24, 6])
    tests = cases.split == "test"
    np.testing.assert_array_equal(np.unique(cases.init[tests]), settings.test_inits())
    assert tests.sum() == 12
    assert np.isin(cases.init[~tests], settings.training_inits()).all()


def test_the_seed_moves_the_validation_days():
    first, second, same = (
        days(SeasonCalendar("2025-12-01", validation=Validation(seed=seed)).cases([12]), "validation")
        for seed in (0, 1, 0)
    )
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, same)


def test_tests_that_are_given_twice():
    with pytest.raises(InputError, match="the run from 2025-12-01T00:00:00 with lead 6 h is there twice"):
        SeasonCalendar("2025-12-01", test_hours=[0, 0]).cases([6])


def test_a_period_that_is_too_short_for_validation():
    calendar = SeasonCalendar("2025-12-01", n_days=20, validation=Validation(block_days=1, share=0.001))
    with pytest.raises(InputError, match=r"the split 'validation' has 1 days \(20.*\), it needs 2"):
        calendar.cases([6])


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_impossible_shares(share):
    with pytest.raises(InputError, match=r"data\.calendar\.validation\.share must be between 0 and 1"):
        Validation(share=share)


@dataclass(frozen=True)
class TooLate(Calendar):
    validation: Validation = field(default_factory=Validation)

    @property
    def target_time(self):
        return np.datetime64("2025-12-01", "s")

    def training_inits(self, lead):
        return self.target_time - np.arange(30, 0, -1) * DAY

    def test_inits(self):
        return self.target_time + np.arange(3) * DAY


def test_training_that_needs_analyses_which_are_not_there_yet():
    message = r"1 of 30 training cases need analyses later than 2025-11-30T00:00:00, 24 h before the target 2025-12-01"
    with pytest.raises(InputError, match=message):
        TooLate().cases([6])
    assert TooLate().training_inits(6)[-1] + 6 * HOUR == np.datetime64("2025-11-30T06")
