"""Training, validation and test rows: blocks of files or of time, with gaps, and no row in two of them.

A split is a list of ranges of rows of a store: what :class:`~ai4sim.sampling.BlockBatchSampler` takes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ai4sim.errors import InputError

Splits = dict[str, list[slice]]


class SplitError(InputError):
    """Splits that overlap, are empty, or name what is not there."""


def check_members(splits: Mapping[str, Sequence[str]]) -> None:
    """Check that no split is empty and that no two share a member.

    Args:
        splits: split to the names of its files.

    Raises:
        SplitError: they do; names split and member.
    """
    owner: dict[str, str] = {}
    for split, names in splits.items():
        if not names:
            raise SplitError(f"split {split!r} is empty; name at least one file")
        for name in names:
            if name in owner:
                raise SplitError(f"{name!r} is in split {owner[name]!r} and again in {split!r}; give it to one only")
            owner[name] = split


def split_by_files(lengths: Mapping[str, int], splits: Mapping[str, Sequence[str]]) -> Splits:
    """Give each split the rows of its files.

    Args:
        lengths: name (such as a start date) to number of rows, in the order in which files follow each other
            in the store.
        splits: split to the names of its files.

    Returns:
        Split to ranges of rows, in the order of the store; neighbouring files are one range.

    Raises:
        SplitError: an unknown name, the same file in two splits (or twice in one), or an empty split.
    """
    check_members(splits)
    starts = dict(zip(lengths, np.cumsum([0, *lengths.values()]).tolist(), strict=False))
    result: Splits = {}
    for split, names in splits.items():
        for name in names:
            if name not in lengths:
                raise SplitError(f"split {split!r} names {name!r}, which is not there; valid are {', '.join(lengths)}")
        rows = sorted((starts[name], starts[name] + lengths[name]) for name in names)
        result[split] = _merged(rows)
        if not result[split]:
            raise SplitError(f"split {split!r} is empty: its files {', '.join(names)} have no rows")
    return result


def split_by_periods(
    times: npt.NDArray[np.datetime64],
    periods: Mapping[str, tuple[Any, Any] | Sequence[tuple[Any, Any]]],
    gap: np.timedelta64 | None = None,
) -> Splits:
    """Give each split the rows whose time falls into its periods.

    Args:
        times: (row,) increasing.
        periods: split to its period or periods ``(start, end)``, ``start <= time < end``, as anything
            :class:`numpy.datetime64` understands.
        gap: time without samples between two splits, so that a sample's weather is not seen in another split:
            a period begins at least this long after the last period of another split ended.

    Returns:
        Split to ranges of rows, in the order of time.

    Raises:
        SplitError: times that do not increase, periods that overlap or are empty, or a split without rows.
    """
    if len(times) == 0:
        raise SplitError("there are no times to split")
    if (np.diff(times) <= np.timedelta64(0)).any():
        row = int(np.argmax(np.diff(times) <= np.timedelta64(0))) + 1
        raise SplitError(f"times must increase, but row {row} ({times[row]}) does not come after row {row - 1}")
    ordered = sorted(
        (np.datetime64(start), np.datetime64(end), split)
        for split, given in periods.items()
        for start, end in ([given] if _is_period(given) else given)
    )
    rows: dict[str, list[tuple[int, int]]] = {split: [] for split in periods}
    last_end: dict[str, np.datetime64] = {}
    previous = ""
    for start, end, split in ordered:
        if end <= start:
            raise SplitError(f"split {split!r}: the period {start} .. {end} is empty")
        if previous and start < last_end[previous]:
            raise SplitError(
                f"split {split!r} ({start} .. {end}) overlaps split {previous!r}, which ends {last_end[previous]}"
            )
        begin = start
        if gap is not None:
            begin = max([start, *(other_end + gap for other, other_end in last_end.items() if other != split)])
        first, last = np.searchsorted(times, np.array([begin, end], dtype=times.dtype))
        rows[split].append((int(first), int(last)))
        last_end[split] = end
        previous = split
    result = {split: _merged(ranges) for split, ranges in rows.items()}
    if empty := [split for split, ranges in result.items() if not ranges]:
        raise SplitError(f"split {empty[0]!r} has no rows; the times go from {times[0]} to {times[-1]}")
    return result


def _is_period(given: Any) -> bool:
    return len(given) == 2 and not isinstance(given[0], tuple | list)


def _merged(ranges: Sequence[tuple[int, int]]) -> list[slice]:
    """Join ranges that follow each other without a gap, and drop empty ones: periods that the gap has used up."""
    merged: list[slice] = []
    for start, stop in ranges:
        if start >= stop:
            continue
        if merged and merged[-1].stop == start:
            merged[-1] = slice(merged[-1].start, stop)
        else:
            merged.append(slice(start, stop))
    return merged
