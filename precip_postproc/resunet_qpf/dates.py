"""Which runs to learn from, and which days are for training, validation and testing.

All times are UTC. A case is a run (its initial time) with a lead time, h; it belongs to the day of its valid time.
"""

from collections.abc import Mapping
from datetime import datetime
from math import ceil

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ai4sim.errors import InputError

HOUR = np.timedelta64(1, "h")
DAY = np.timedelta64(24, "h")
# also where there is a leap day in between
YEAR = 365 * DAY
# so long after its time an analysis is there
DELAY = DAY
LEAST_DAYS = 2

Time = str | datetime | np.datetime64
Times = NDArray[np.datetime64]


def training_dates(target: Time, lead: int, n_days: int = 60, step_h: int = 6, years: int = 2) -> Times:
    """Initial times of the runs to learn from: those before a forecast, and the same season of earlier years.

    For a forecast from T the windows are [E - n_days, E] with E = T - 24 h - (1 + whole days of the lead time), and
    [T - 365 d, T - 365 d + n_days], the days that followed the same date one year earlier; and both again 365 days
    earlier for every further year. So all valid times are 24 h before T or earlier.

    Args:
        target: initial time T of the forecast.
        lead: its lead time, h.
        n_days: length of a window.
        step_h: between runs, h.
        years: number of years.

    Returns:
        (run,) increasing; four windows of 241 runs with the defaults.

    Raises:
        InputError: a number is too small, the target is no time, or the windows of a season reach beyond T - 24 h.
    """
    for name, value, least in (("lead", lead, 0), ("n_days", n_days, 1), ("step_h", step_h, 1), ("years", years, 1)):
        if value < least:
            raise InputError(f"training dates: {name} is {value}, it must be at least {least}")
    start = as_time(target)
    window = np.arange(0, 24 * n_days + 1, step_h) * HOUR
    firsts = start - DELAY - (1 + lead // 24 + n_days) * DAY, start - YEAR
    inits: Times = np.unique(
        np.concatenate([first - year * YEAR + window for year in range(years) for first in firsts])
    )
    require_no_leakage(inits, lead, start)
    return inits


def as_time(time: Time) -> np.datetime64:
    """A time to the second.

    Args:
        time: such as ``2025-12-01``, ``2025-12-01T06``, or a time of numpy or Python, UTC.

    Raises:
        InputError: it is no time.
    """
    try:
        stamp: np.datetime64 = np.array([time], "datetime64[s]")[0]
    except ValueError:
        stamp = np.datetime64("NaT", "s")
    if np.isnat(stamp):
        raise InputError(f"{time!r} is no time such as 2025-12-01 or 2025-12-01T06")
    return stamp


def valid_times(inits: ArrayLike, leads: ArrayLike) -> Times:
    """Valid times, to the second.

    Args:
        inits: (...) initial times.
        leads: h, of the same shape or one that goes with it by numpy's rules.
    """
    starts: Times = np.asarray(inits, "datetime64[s]")
    times: Times = np.add(starts, np.asarray(leads, np.int64) * HOUR)
    return times


def require_no_leakage(inits: ArrayLike, leads: ArrayLike, target: Time) -> None:
    """Refuse cases whose analysis is not there when a forecast is made.

    Args:
        inits: (...) initial times.
        leads: h, one for all or of the same shape.
        target: initial time of the forecast.

    Raises:
        InputError: a valid time is later than 24 h before the target; names the first such case.
    """
    limit = as_time(target) - DELAY
    late = valid_times(inits, leads) > limit
    if late.any():
        init, lead = (np.broadcast_to(values, late.shape)[late][0] for values in (inits, leads))
        raise InputError(
            f"{late.sum()} of {late.size} training cases need analyses later than {limit}, 24 h before the target "
            f"{as_time(target)}: the first is the run from {as_time(init)} with lead {lead} h, valid at "
            f"{valid_times(init, lead)}; leave such runs out"
        )


def require_cases(inits: ArrayLike, leads: ArrayLike) -> None:
    """Refuse cases that are doubled or out of order.

    Args:
        inits: (case,) initial times.
        leads: (case,) h.

    Raises:
        InputError: they do not increase from case to case, by initial time and then by lead time; names the first.
    """
    starts, hours = np.asarray(inits, "datetime64[s]"), np.asarray(leads, np.int64)
    same = starts[1:] == starts[:-1]
    doubled = same & (hours[1:] == hours[:-1])
    wrong = doubled | (starts[1:] < starts[:-1]) | (same & (hours[1:] < hours[:-1]))
    if wrong.any():
        place = int(wrong.argmax())
        before, after = (f"the run from {starts[i]} with lead {hours[i]} h" for i in (place, place + 1))
        raise InputError(
            f"{after} is there twice"
            if doubled[place]
            else f"the cases are not in order: {after} follows {before}; sort them by initial time, then by lead time"
        )


def gap_days(leads: ArrayLike) -> int:
    """Days to leave between splits: so many that no run reaches from one into the other, and one more.

    Args:
        leads: all lead times, h.
    """
    return ceil(int(np.max(leads)) / 24) + 1


def split_days(
    times: ArrayLike, shares: Mapping[str, float], *, gap_days: int, block_days: int = 5, seed: int = 0
) -> dict[str, Times]:
    """Give blocks of whole days to splits, each spread evenly over the period.

    Between days of different splits lie `gap_days` days that belong to none: they are taken from the larger split, so
    that the small ones keep theirs. Neighbouring blocks of one split have no gap.

    Args:
        times: (n,) days or valid times, in any order and also repeated. Days that are missing do no harm.
        shares: part of the blocks that every split gets; their sum is 1. The largest gets what the others leave, which
            get one block at least.
        gap_days: see :func:`gap_days`.
        block_days: length of a block.
        seed: shifts the blocks of the smaller splits.

    Returns:
        Days of every split, (day,) increasing, ``datetime64[D]``.

    Raises:
        InputError: shares that are not positive or do not add up to 1; lengths that are impossible; a split without
            days, because the period is too short.
    """
    if not shares or min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-6:
        raise InputError(f"shares of the splits must be positive and add up to 1, they are {dict(shares)}")
    if block_days < 1 or gap_days < 0:
        raise InputError(f"blocks of {block_days} days with gaps of {gap_days}: at least 1 and 0 are needed")
    days = np.unique(np.asarray(times, "datetime64[D]"))
    if not days.size:
        raise InputError(f"there are no days to divide into {', '.join(shares)}")
    number = (days - days[0]).astype(int)
    # stretches without any day, such as between two seasons, have no blocks
    _, block = np.unique(number // block_days, return_inverse=True)
    ordered = sorted(shares, key=lambda split: shares[split])
    owner = _owners(int(block.max()) + 1, [shares[split] for split in ordered], seed)[block]
    kept: dict[str, NDArray[np.int64]] = {}
    for place, split in enumerate(ordered):
        own = number[owner == place]
        others = np.concatenate([*kept.values(), np.empty(0, np.int64)])
        near = (np.abs(own[:, None] - others) <= gap_days).any(axis=1)
        kept[split] = own[~near]
        if not kept[split].size:
            raise InputError(
                f"no days are left for the split {split!r}: {len(days)} days from {days[0]} to {days[-1]} are too few "
                f"for blocks of {block_days} days with gaps of {gap_days} between {', '.join(shares)}"
            )
    return {split: days[0] + kept[split] for split in shares}


def _owners(n_blocks: int, shares: list[float], seed: int) -> NDArray[np.int64]:
    """Number of the split that gets each block; the last split is the largest."""
    owner = np.full(n_blocks, len(shares) - 1)
    shift = np.random.default_rng(seed).random()
    small = len(shares) - 1
    for split in range(small):
        count = max(1, round(shares[split] * n_blocks))
        # the blocks of one small split lie between those of the others
        phase = (shift + split / small) % 1
        for wanted in ((np.arange(count) + phase) * n_blocks / count).astype(int):
            free = np.flatnonzero(owner == small)
            if free.size:
                owner[free[np.abs(free - wanted).argmin()]] = split
    return owner


def is_in(inits: ArrayLike, leads: ArrayLike, days: Times) -> NDArray[np.bool_]:
    """Which cases belong to a split: those that are valid on one of its days.

    Args:
        inits: (case,) initial times.
        leads: (case,) h.
        days: of the split.
    """
    inside: NDArray[np.bool_] = np.isin(valid_times(inits, leads).astype("datetime64[D]"), days)
    return inside


def require_days(splits: Mapping[str, Times], split: str = "validation", least: int = LEAST_DAYS) -> None:
    """Refuse a split with too few days to tell anything.

    Args:
        splits: days of every split.
        split: the one that is looked at.
        least: number of days that it must have.

    Raises:
        InputError: there are fewer.
    """
    found = np.unique(np.asarray(splits[split], "datetime64[D]"))
    if found.size < least:
        names = f" ({', '.join(map(str, found))})" if found.size else ""
        raise InputError(
            f"the split {split!r} has {found.size} days{names}, it needs {least}: give it a larger share, or more days"
        )
