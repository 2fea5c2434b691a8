"""Files that are missing, times that do not fit, and units of precipitation: what all readers refuse alike."""

from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ai4sim.errors import InputError, MissingFileError

HOUR = np.timedelta64(3600, "s")

_MILLIMETRES = {"mm": 1.0, "millimeter": 1.0, "millimeters": 1.0, "kg m-2": 1.0, "kg/m2": 1.0, "m": 1000.0}
_MILLIMETRES_PER_HOUR = ("mm/h", "mm/hr", "mm h-1", "mm hr-1")


def require_file(path: Path, what: str) -> None:
    """Refuse a file that is not there.

    Args:
        path: the file.
        what: what it holds, for the message.

    Raises:
        MissingFileError: names both.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} ({what}) is not there")


def seconds(time: np.datetime64) -> np.datetime64:
    """A time to the second."""
    rounded: np.datetime64 = time.astype("datetime64[s]")
    return rounded


def hours(duration: np.timedelta64) -> float:
    """A duration in hours."""
    return float(duration / HOUR)


def stamp(time: np.datetime64, form: str) -> str:
    """A time as in file names.

    Args:
        time: UTC.
        form: as for ``datetime.strftime``.
    """
    date: datetime = time.astype("datetime64[s]").astype(datetime)
    return date.strftime(form)


def require_valid_time(init: np.datetime64, lead: int, found: np.datetime64, source: str) -> None:
    """Refuse a field that is not valid at initial time plus lead.

    Args:
        init: initial time of the forecast.
        lead: hours.
        found: the time at which the field is valid.
        source: where the field is from.

    Raises:
        InputError: names both times.
    """
    expected = seconds(init) + lead * HOUR
    if seconds(found) != expected:
        raise InputError(
            f"{source} is valid at {seconds(found)}, but the forecast from {seconds(init)} with lead {lead} h is valid "
            f"at {expected}"
        )


def to_millimetres(units: str, interval: float, source: str) -> float:
    """What to multiply a precipitation amount or rate by to get mm in the interval.

    Args:
        units: as in the file: mm, kg m-2, m, or mm/h for a rate.
        interval: hours over which a rate lasts.
        source: file and variable, for the message.

    Raises:
        InputError: other units.
    """
    plain = " ".join(units.replace("**", "").replace("^", "").split())
    if plain in _MILLIMETRES:
        return _MILLIMETRES[plain]
    if plain in _MILLIMETRES_PER_HOUR:
        return interval
    raise InputError(
        f"{source} has units {units!r}; expected mm, kg m-2 or m for an amount, mm/h for a rate; convert the file"
    )


def where(bad: NDArray[np.bool_]) -> str:
    """How many values are bad, and where the first one is."""
    row, column = np.unravel_index(int(bad.argmax()), bad.shape)
    return f"{int(bad.sum())} of {bad.size} values (first at row {row}, column {column})"
