"""Which pairs ``predict`` generates for."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ai4sim.errors import InputError
from downscaling.corrdiff.readers.base import Pairs


@dataclass(frozen=True)
class PairSelection:
    """Conditions that all must hold; times may repeat, and then all of their pairs are meant.

    Args:
        indices: numbers of pairs in the raw data.
        times: valid times, as ``2020-02-02T00``.
        start: first valid time.
        end: last valid time.
        box: south, west, north, east, degrees: pairs whose centre is within.
    """

    indices: list[int] | None = None
    times: list[str] | None = None
    start: str | None = None
    end: str | None = None
    box: tuple[float, float, float, float] | None = None

    def rows(self, pairs: Pairs) -> NDArray[np.int64]:
        """Numbers of the pairs, increasing.

        Raises:
            InputError: a time or number that is not there (the nearest is named), or nothing is left.
        """
        keep = np.ones(len(pairs), np.bool_)
        if self.indices is not None:
            for index in self.indices:
                if not 0 <= index < len(pairs):
                    raise InputError(
                        f"data.select.indices: there is no pair {index}; they go from 0 to {len(pairs) - 1}"
                    )
            keep &= np.isin(np.arange(len(pairs)), self.indices)
        if self.times is not None:
            keep &= np.isin(pairs.times, [_present("times", word, pairs.times) for word in self.times])
        if self.start is not None:
            keep &= pairs.times >= _time("start", self.start)
        if self.end is not None:
            keep &= pairs.times <= _time("end", self.end)
        if self.box is not None:
            keep &= self._within(pairs)
        if not keep.any():
            raise InputError(
                f"data.select leaves none of the {len(pairs)} pairs, whose times go from {pairs.times.min()} to "
                f"{pairs.times.max()}"
            )
        return np.flatnonzero(keep)

    def _within(self, pairs: Pairs) -> NDArray[np.bool_]:
        assert self.box is not None
        south, west, north, east = self.box
        height, width = pairs.output_shape
        corners = np.zeros((len(pairs), 2), np.int64) if pairs.corners is None else pairs.corners
        rows, columns = corners[:, 0] + height // 2, corners[:, 1] + width // 2
        latitude, longitude = pairs.latitude[rows, columns], pairs.longitude[rows, columns]
        # a box may cross the date line or go all around, and longitudes may count to 180 or to 360
        extent = 360.0 if east - west >= 360 else (east - west) % 360
        return (latitude >= south) & (latitude <= north) & ((longitude - west) % 360 <= extent)


def _time(name: str, word: str) -> np.datetime64:
    try:
        return np.datetime64(word, "s")
    except ValueError as error:
        raise InputError(f"data.select.{name}: {error}; write a time as 2020-02-02T00") from error


def _present(name: str, word: str, times: NDArray[np.datetime64]) -> np.datetime64:
    time = _time(name, word)
    if time not in times:
        nearest = times[np.abs(times - time).argmin()]
        raise InputError(f"data.select.{name}: there is no pair at {time}; the nearest is at {nearest}")
    return time
