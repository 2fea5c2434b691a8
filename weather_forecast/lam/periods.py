"""Periods of dates whose last day is included."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ai4sim.errors import InputError

DAY = np.timedelta64(1, "D")


@dataclass(frozen=True)
class Period:
    """Days from the first to the last, both whole.

    Args:
        start: first day, as in ``2023-01-01``; or a time.
        end: last day, which belongs to the period to its end; or the last time.

    Raises:
        InputError: a date that is none, or an end before the start.
    """

    start: str
    end: str

    def __post_init__(self) -> None:
        if self.last <= self.first:
            raise InputError(f"the period {self} ends before it begins")

    def __str__(self) -> str:
        return f"{self.start} .. {self.end}"

    @property
    def first(self) -> np.datetime64:
        """First time that belongs to the period."""
        return _time(self.start)

    @property
    def last(self) -> np.datetime64:
        """First time that does not belong to the period any more."""
        is_day = "T" not in self.end and " " not in self.end
        return _time(self.end) + (DAY if is_day else np.timedelta64(1, "s"))

    def contains(self, times: NDArray[np.datetime64]) -> NDArray[np.bool_]:
        """Which times belong to the period."""
        inside: NDArray[np.bool_] = (times >= self.first) & (times < self.last)
        return inside


def _time(text: str) -> np.datetime64:
    try:
        return np.datetime64(text, "s")
    except ValueError as error:
        raise InputError(f"{text!r} is no date; write it as 2023-01-31 or 2023-01-31T18") from error
