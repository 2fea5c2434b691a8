"""Times as files have them: dates with CF units, and the keys of forecasts."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ai4sim.errors import InputError

LEADS = tuple(range(0, 25, 3))
"""Lead times of the forecasts, h; the label of one is its place."""

Times = NDArray[np.datetime64]


def as_times(values: NDArray[Any], what: str) -> Times:
    """Dates to the second.

    Args:
        values: (n,) as xarray has decoded them.
        what: file and variable, for messages.

    Raises:
        InputError: no dates, or some are missing.
    """
    if values.dtype.kind != "M":
        raise InputError(
            f"{what} holds no dates of the standard calendar but {values.dtype} such as {values.ravel()[:1]}; "
            "expected CF units such as 'hours since 2018-01-01'"
        )
    if (missing := np.isnat(values)).any():
        raise InputError(
            f"{what} has {int(missing.sum())} times that are missing, the first at {int(missing.argmax())}"
        )
    return values.astype("datetime64[s]")


def decode_times(values: NDArray[Any], attributes: Mapping[str, Any], what: str) -> Times:
    """Dates to the second of numbers with CF units.

    Args:
        values: (n,) numbers, or dates.
        attributes: of the variable: ``units``, ``calendar``.
        what: file and variable, for messages.

    Raises:
        InputError: no units, or another calendar than the standard one.
    """
    if values.dtype.kind == "M":
        return as_times(values, what)
    kept = {key: attributes[key] for key in ("units", "calendar") if key in attributes}
    try:
        decoded = xr.decode_cf(xr.Dataset({"t": ("t", values, kept)}), decode_timedelta=False)["t"].values
    except (ValueError, OverflowError) as error:
        raise InputError(f"{what} cannot be decoded with {kept}: {error}") from error
    return as_times(decoded, what)


def forecast_times(keys: Sequence[str], what: str) -> tuple[Times, NDArray[np.int64]]:
    """Initial times and lead times (h) of keys ``YYYYMMDDHHfLL``.

    Args:
        keys: (n,) of one store.
        what: store and variable, for messages.

    Raises:
        InputError: another form, no such date, or a lead time that is none of `LEADS`.
    """
    inits, leads = [], []
    for key in keys:
        match = re.fullmatch(r"(\d{10})f(\d{2,3})", key)
        try:
            if match is None:
                raise ValueError("another form")
            inits.append(datetime.strptime(match[1], "%Y%m%d%H"))
        except ValueError as error:
            raise InputError(f"{what}: {key!r} is no time YYYYMMDDHHfLL such as 2020120206f03: {error}") from error
        leads.append(int(match[2]))
        if leads[-1] not in LEADS:
            raise InputError(f"{what}: {key!r} has a lead time of {leads[-1]} h; expected a multiple of 3 up to 24")
    return np.array(inits, "datetime64[s]"), np.array(leads, np.int64)
