"""What a network knows beside the fields: lead time, hour of the day and season.

All are functions without a jump, so that forecasts change smoothly with lead time, and lead times between those of the
training mean something to the network.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ai4sim.errors import InputError


def lead_conditions(lead_hours: ArrayLike, valid_time: ArrayLike) -> NDArray[np.float32]:
    """Conditions (B, 8) in the order that networks expect, all of order 1.

    Lead time / 24 h - 1; log(lead time / 18 h); sine and cosine of the hour of the day, UTC; of twice that angle;
    and of the day of the year. MetNet conditions on lead time too (Sønderby et al. 2020, arXiv:2003.12140).

    Args:
        lead_hours: (B,) lead times, h.
        valid_time: (B,) times, UTC, of type ``datetime64``. Leap years are a turn of the season as well, of 366 days.

    Raises:
        InputError: a lead time that is not positive, or a time that is none; names the first.
        ValueError: other numbers of lead times and of times.
    """
    leads, times = np.asarray(lead_hours, np.float64), np.asarray(valid_time, "datetime64[s]")
    if leads.ndim != 1 or leads.shape != times.shape:
        raise ValueError(f"lead times {leads.shape} and valid times {times.shape}; expected (B,) of both")
    bad = ~((leads > 0) & np.isfinite(leads))
    if bad.any():
        raise InputError(f"a lead time is {leads[bad][0]:g} h; expected more than 0")
    if np.isnat(times).any():
        raise InputError(f"the valid time of lead {leads[np.isnat(times)][0]:g} h is missing (NaT)")
    day = (times - times.astype("datetime64[D]")) / np.timedelta64(1, "D")
    years = times.astype("datetime64[Y]")
    new_year, next_year = (y.astype("datetime64[s]") for y in (years, years + 1))
    angles = 2 * np.pi * np.stack([day, 2 * day, (times - new_year) / (next_year - new_year)], axis=1)
    cycles = np.stack([np.sin(angles), np.cos(angles)], axis=2).reshape(len(leads), 6)
    conditions: NDArray[np.float32] = np.column_stack([leads / 24 - 1, np.log(leads / 18), cycles]).astype(np.float32)
    return conditions
