"""Which pairs are learnt from, which are validated and tested on, without what one knows of the other."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ai4sim.errors import InputError
from downscaling.corrdiff.readers.base import Pairs

SPLITS: Final = ("train", "validation", "test")
UNUSED: Final = -1
Marks = NDArray[np.int8]


class Split(ABC):
    """Marks every pair with the number of its split in `SPLITS`, or as unused."""

    @abstractmethod
    def mark(self, pairs: Pairs) -> Marks:
        """(n,) numbers of splits.

        Raises:
            InputError: a split without a pair.
        """


@dataclass(frozen=True)
class TimeFractions(Split):
    """The first times are learnt from, the last tested on; between them pairs are left out.

    Args:
        train: share of the times.
        validation: share of the times.
        test: share of the times; together at most 1.
        gap_hours: time that is left out between two splits, before validation and before test.
    """

    train: float = 0.7
    validation: float = 0.1
    test: float = 0.2
    gap_hours: float = 24.0

    def __post_init__(self) -> None:
        _check_shares(self.train, self.validation, self.test)
        _check_gap("gap_hours", self.gap_hours)

    def mark(self, pairs: Pairs) -> Marks:
        """See `Split.mark`."""
        times = np.unique(pairs.times)
        ends = np.rint(np.cumsum((self.train, self.validation, self.test)) * len(times)).astype(int)
        gap = np.timedelta64(round(self.gap_hours * 3600), "s")
        marks = np.full(len(pairs), UNUSED, np.int8)
        start = times[0]
        for number, end in enumerate(np.maximum(ends, 1)):
            last = times[end - 1]
            marks[(pairs.times >= start) & (pairs.times <= last)] = number
            start = max(last + gap, last + np.timedelta64(1, "s"))
        return _checked(marks, pairs, f"the times go from {times[0]} to {times[-1]}, gap {self.gap_hours:g} h")


@dataclass(frozen=True)
class TimePeriods(Split):
    """Periods of time, ``start <= time < end``.

    Args:
        train: pairs of start and end, as ``[["2018-01-01", "2021-01-01"]]``.
        validation: likewise.
        test: likewise.
        gap_hours: least time between pairs of different splits; pairs of validation and test that are nearer to one
            of the training, and of validation nearer to one of the test, are left out.
    """

    train: list[list[str]]
    validation: list[list[str]]
    test: list[list[str]]
    gap_hours: float = 24.0

    def __post_init__(self) -> None:
        _check_gap("gap_hours", self.gap_hours)

    def mark(self, pairs: Pairs) -> Marks:
        """See `Split.mark`."""
        marks = np.full(len(pairs), UNUSED, np.int8)
        for number, split in enumerate(SPLITS):
            for period in getattr(self, split):
                start, end = _period(split, period)
                inside = (pairs.times >= start) & (pairs.times < end)
                taken = inside & (marks != UNUSED)
                if taken.any():
                    other = SPLITS[marks[taken][0]]
                    raise InputError(f"data.split: {split} {period} and {other} have {pairs.times[taken][0]} in common")
                marks[inside] = number
        gap = np.timedelta64(round(self.gap_hours * 3600), "s")
        for near, far in ((0, 1), (0, 2), (2, 1)):
            _keep_away(marks, pairs.times, near, far, gap)
        return _checked(marks, pairs, f"the times go from {pairs.times.min()} to {pairs.times.max()}")


@dataclass(frozen=True)
class PlaceFractions(Split):
    """Parts of the grid, from the west to the east: for few times and many places.

    Weather of neighbouring places is alike: columns of parts are left out between two splits.

    Args:
        train: share of the columns.
        validation: share of the columns.
        test: share of the columns; together at most 1.
        gap_columns: grid columns that are left out between two splits.
    """

    train: float = 0.6
    validation: float = 0.15
    test: float = 0.25
    gap_columns: int = 0

    def __post_init__(self) -> None:
        _check_shares(self.train, self.validation, self.test)
        _check_gap("gap_columns", self.gap_columns)

    def mark(self, pairs: Pairs) -> Marks:
        """See `Split.mark`."""
        if pairs.corners is None:
            raise InputError("data.split by place needs pairs that are parts of a grid; these are all of it")
        width = pairs.latitude.shape[1]
        west = pairs.corners[:, 1]
        east = west + pairs.output_shape[1]
        ends = np.rint(np.cumsum((self.train, self.validation, self.test)) * width).astype(int)
        marks = np.full(len(pairs), UNUSED, np.int8)
        start = 0
        for number, end in enumerate(ends):
            marks[(west >= start) & (east <= end)] = number
            start = int(end) + self.gap_columns
        return _checked(marks, pairs, f"the grid has {width} columns, parts {pairs.output_shape[1]}")


def _check_shares(*shares: float) -> None:
    if min(shares) <= 0 or sum(shares) > 1 + 1e-9:
        raise InputError(f"data.split: shares must be above 0 and sum to at most 1, not {shares}")


def _check_gap(name: str, gap: float) -> None:
    if not gap >= 0:
        raise InputError(f"data.split.{name} is {gap}; expected at least 0")


def _period(split: str, period: Sequence[str]) -> tuple[np.datetime64, np.datetime64]:
    try:
        start, end = (np.datetime64(word, "s") for word in period)
    except ValueError as error:
        raise InputError(f"data.split.{split}: {period!r} is no period; write [[2018-01-01, 2021-01-01]]") from error
    if end <= start:
        raise InputError(f"data.split.{split}: the period {start} .. {end} is empty")
    return start, end


def _keep_away(marks: Marks, times: NDArray[np.datetime64], near: int, far: int, gap: np.timedelta64) -> None:
    """Leave out pairs of one split that are nearer than the gap to any of another."""
    others = np.unique(times[marks == near])
    own = np.flatnonzero(marks == far)
    if not len(others) or not len(own) or not gap:
        return
    place = np.searchsorted(others, times[own])
    before = times[own] - others[np.maximum(place - 1, 0)]
    after = others[np.minimum(place, len(others) - 1)] - times[own]
    close = (np.abs(before) < gap) | (np.abs(after) < gap)
    marks[own[close]] = UNUSED


def _checked(marks: Marks, pairs: Pairs, known: str) -> Marks:
    for number, split in enumerate(SPLITS):
        if not (marks == number).any():
            raise InputError(f"data.split: the {split} split has none of the {len(pairs)} pairs ({known})")
    return marks
