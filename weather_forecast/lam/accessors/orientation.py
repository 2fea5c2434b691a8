"""Whether fields and static fields lie the same way round, told from the fields themselves."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ai4sim.errors import InputError
from weather_forecast.lam.accessors.base import Times

PAIRS = 16
SHORTEST, LONGEST = np.timedelta64(3, "h"), np.timedelta64(6, "h")
CLEAR = 0.3
"""By how much the mirrored land must fit better than the given one before data are refused: a gain in correlation."""

Float = NDArray[np.floating]


def find_pairs(times: Times) -> list[tuple[int, int]]:
    """Up to 16 pairs of records that are 3 to 6 h apart, spread over a data set's increasing times."""
    later = np.searchsorted(times, times + SHORTEST)
    inside = later < len(times)
    firsts = np.flatnonzero(inside)
    firsts = firsts[times[later[firsts]] - times[firsts] <= LONGEST]
    if not len(firsts):
        return []
    chosen = np.unique(np.linspace(0, len(firsts) - 1, PAIRS).round().astype(int))
    return [(int(first), int(later[first])) for first in firsts[chosen]]


def require_same_orientation(
    read: Callable[[int], Float], times: Times, land: NDArray[np.float64], *, fields: str, statics: str
) -> float | None:
    """Refuse fields whose rows run against those of the static fields.

    Over some hours the temperature near the ground changes much more over land than over sea, whatever the weather.
    The mean size of that change is compared with the land-sea mask, and with its mirror image. Temperature itself would
    be a poor witness: whether land is warmer than sea, or the south than the north, depends on hour, season and
    weather. Silent where the region is nearly all land or all sea, or its coast is nearly symmetric.

    Args:
        read: gives the temperature near the ground (lat, lon) of a record.
        times: of the records.
        land: (lat, lon) share of land.
        fields: where the fields come from, for the message.
        statics: where the static fields come from.

    Returns:
        How much better (in correlation) the land fits as it is than mirrored; None where that cannot be told.

    Raises:
        InputError: the mirrored land fits clearly better.
    """
    pairs = find_pairs(times)
    if len(pairs) < 4 or not 0.05 < land.mean() < 0.95:
        return None
    change = np.zeros(land.shape)
    for first, second in pairs:
        change += np.abs(np.nan_to_num(read(second).astype(np.float64) - read(first)))
    if change.std() == 0:
        return None
    given, mirrored = (float(np.corrcoef(change.ravel(), mask.ravel())[0, 1]) for mask in (land, land[::-1]))
    if mirrored - given > CLEAR:
        raise InputError(
            f"{fields} are upside down against {statics}: the 2-m temperature changes over {len(pairs)} spells of 3 h "
            f"as if land and sea were mirrored (correlation {mirrored:.2f} with the mirrored mask, {given:.2f} with "
            "the given one); row 0 must be the southernmost in fields and static fields alike"
        )
    return given - mirrored
