"""Which forecasts a training, its validation and its test are made of."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.case_list import CaseList
from precip_postproc.resunet_qpf.dates import (
    DAY,
    HOUR,
    as_time,
    gap_days,
    is_in,
    require_days,
    require_no_leakage,
    split_days,
    valid_times,
)
from precip_postproc.resunet_qpf.dates import training_dates as dates_to_learn_from
from precip_postproc.resunet_qpf.demo import DemoSettings

Times = NDArray[np.datetime64]


@dataclass(frozen=True)
class Validation:
    """The part of the training days that checkpoints are chosen by, and a calibration is made of.

    Args:
        share: of the blocks of days.
        block_days: days of a block.
        seed: shifts the blocks.
    """

    share: float = 0.1
    block_days: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InputError(f"data.calendar.validation.share must be between 0 and 1, not {self.share}")


class Calendar(ABC):
    """Days to learn from, before a target date, and days to test on, from there on."""

    validation: Validation

    @property
    @abstractmethod
    def target_time(self) -> np.datetime64:
        """Initial time of the first forecast that is tested."""

    @abstractmethod
    def training_inits(self, lead: int) -> Times:
        """Initial times to learn from for a lead time."""

    @abstractmethod
    def test_inits(self) -> Times:
        """Initial times to test on."""

    def cases(self, leads: Sequence[int]) -> CaseList:
        """All forecasts, each with its split; those on days in the gaps between splits are left out.

        Args:
            leads: h.

        Raises:
            InputError: a training case needs an analysis that is not there yet, or validation has too few days.
        """
        init = np.concatenate([self.training_inits(lead) for lead in leads])
        lead = np.repeat(leads, [len(self.training_inits(lead)) for lead in leads])
        require_no_leakage(init, lead, self.target_time)
        days = split_days(
            valid_times(init, lead),
            {"train": 1 - self.validation.share, "validation": self.validation.share},
            gap_days=gap_days(leads),
            block_days=self.validation.block_days,
            seed=self.validation.seed,
        )
        require_days(days)
        parts = []
        for split, own in days.items():
            inside = is_in(init, lead, own)
            parts.append((init[inside], lead[inside], split))
        tests = self.test_inits()
        parts.append((np.repeat(tests, len(leads)), np.tile(leads, len(tests)), "test"))
        inits, hours = (np.concatenate([part[place] for part in parts]) for place in (0, 1))
        splits = np.repeat([part[2] for part in parts], [len(part[0]) for part in parts])
        order = np.lexsort([hours, inits])
        return CaseList(inits[order].astype("datetime64[s]"), hours[order].astype(np.int64), splits[order])


@dataclass(frozen=True)
class SeasonCalendar(Calendar):
    """The days before a date and the same season of earlier years, as for a forecast that is made on that date.

    Args:
        target: first day to test on, such as ``2025-12-01``.
        n_days: length of each training window.
        step_hours: between initial times in training.
        years: number of years.
        test_days: number of days to test on.
        test_hours: hours of the day of the runs that are tested.
        validation: part of the training days.
    """

    target: str
    n_days: int = 60
    step_hours: int = 6
    years: int = 2
    test_days: int = 30
    test_hours: list[int] = field(default_factory=lambda: [0, 12])
    validation: Validation = field(default_factory=Validation)

    @property
    def target_time(self) -> np.datetime64:
        """Initial time of the first forecast that is tested."""
        return as_time(self.target)

    def training_inits(self, lead: int) -> Times:
        """Initial times to learn from for a lead time."""
        return dates_to_learn_from(self.target, lead, self.n_days, self.step_hours, self.years)

    def test_inits(self) -> Times:
        """Initial times to test on."""
        days = self.target_time + np.arange(self.test_days) * DAY
        inits: Times = (days[:, None] + np.asarray(sorted(self.test_hours)) * HOUR).ravel()
        return inits


@dataclass(frozen=True)
class DemoCalendar(Calendar):
    """The days of the demo.

    Args:
        demo: its settings.
        validation: part of the training days.
    """

    demo: DemoSettings
    validation: Validation = field(default_factory=Validation)

    @property
    def target_time(self) -> np.datetime64:
        """Initial time of the first forecast that is tested."""
        return as_time(self.demo.target)

    def training_inits(self, lead: int) -> Times:
        """Initial times to learn from, the same for all lead times."""
        return self.demo.training_inits()

    def test_inits(self) -> Times:
        """Initial times to test on."""
        return self.demo.test_inits()
