"""Precipitation amounts of forecasts in GRIB2, chosen by the steps between which they fell.

A file may hold the amount since the start of the run, of the last hour, or both; which one comes first is no rule.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.readers.files import HOUR, hours, seconds, stamp, to_millimetres, where
from precip_postproc.resunet_qpf.readers.grib import ACCUMULATION, Header, Message, read_headers, read_messages
from precip_postproc.resunet_qpf.readers.grid import WHOLE, Grid, Window, require_same_grid

logger = logging.getLogger(__name__)

CAP = 75.0  # mm
"""Hourly amounts above are taken for this."""

ROUNDING = 1e-6  # mm
"""Negative amounts down to this are rounding, and are 0."""

RENAMED = np.datetime64("2024-04-05T12", "s")
"""Last initial time at which the files of GRAF had their former name."""

Field = NDArray[np.float32]
OnInvalid = Literal["error", "mask"]


@dataclass(frozen=True, eq=False)
class ForecastField:
    """Precipitation that a run forecasts.

    Args:
        init: initial time.
        lead: hours from there to the end of the interval.
        interval: hours that the amount fell in.
        values: (y, x) from the south-west, mm; NaN where it is unknown.
        grid: where the points are.
        source: file, for messages.
        n_capped: number of points that were above the cap.
        n_invalid: number of points that are NaN.
        n_negative: number of points at which a difference of run totals was negative and is now 0.
    """

    init: np.datetime64
    lead: int
    interval: int
    values: Field
    grid: Grid
    source: str
    n_capped: int
    n_invalid: int
    n_negative: int = 0


def graf_path(folder: Path | str, init: np.datetime64, lead: int) -> Path:
    """Where a run of GRAF has the amount of the hour before a lead time.

    Args:
        folder: the archive.
        init: initial time.
        lead: hours.
    """
    model = "hdo-graflr_conus" if seconds(init) <= RENAMED else "hdo-graf_conus"
    valid, start = (stamp(time, "%Y%m%dT%H0000Z") for time in (seconds(init) + lead * HOUR, init))
    name = f"grid.{model}.{valid}.{start}.PT{lead}H.CONUS@4km.APCP.SFC.grb2"
    return Path(folder) / stamp(init, "%Y%m%d") / stamp(init, "%H") / name


def hrrr_path(folder: Path | str, init: np.datetime64, lead: int) -> Path:
    """Where a run of HRRR has its surface fields at a lead time, in a copy of the bucket ``noaa-hrrr-bdp-pds``.

    Args:
        folder: the copy.
        init: initial time.
        lead: hours.
    """
    name = f"hrrr.t{stamp(init, '%H')}z.wrfsfcf{lead:02}.grib2"
    return Path(folder) / f"hrrr.{stamp(init, '%Y%m%d')}" / "conus" / name


def read_apcp(
    path: Path | str,
    lead: int,
    *,
    interval: int = 1,
    init: np.datetime64 | None = None,
    previous: Path | str | None = None,
    window: Window = WHOLE,
    cap: float | None = CAP,
    on_invalid: OnInvalid = "error",
) -> ForecastField:
    """Read the amount that fell between the steps lead - interval and lead.

    Args:
        path: GRIB2 file that has a message of that interval; others in it are ignored.
        lead: end of the interval, hours from the initial time.
        interval: its length, hours.
        init: initial time that is expected; default: the file's.
        previous: file of the lead one interval earlier. Where `path` has only a longer amount, such as that since the
            start of the run, the one of `previous` with the same start is subtracted.
        window: rows and columns to keep, counted from the south-west corner.
        cap: mm above which values are set to it, with a count; None for none.
        on_invalid: whether NaN, infinite and negative values are an error or become NaN.

    Raises:
        MissingFileError: a file is not there.
        InputError: no message of the interval, or several that differ; another initial time; invalid values.
    """
    start, end = (lead - interval) * HOUR, lead * HOUR
    messages = _amounts(path, end, window)
    found = [message for message in messages if message.header.start == start]
    n_negative = 0
    if found:
        amount, values = _only(found, path), _millimetres(found[0])
    elif previous is not None and messages:
        amount, values, n_negative = _difference(messages, path, previous, start, window)
    else:
        raise InputError(
            f"{path} has no precipitation amount (0/1/8) of step {hours(start):g}-{hours(end):g} h; {_steps(path)}; "
            "the difference of run totals needs the file of the earlier lead as well, given as 'previous'"
        )
    reference = amount.header.reference_time
    if init is not None and reference != seconds(init):
        raise InputError(
            f"{path} is of the run from {reference}, valid at {amount.header.valid_time}; expected the run from "
            f"{seconds(init)}, valid at {seconds(init) + end}"
        )
    values, n_capped, n_invalid = check_forecast(values, str(path), cap=cap, on_invalid=on_invalid)
    return ForecastField(
        reference, lead, interval, values, amount.grid, str(path), n_capped, n_invalid, n_negative
    )  # fmt: skip


def check_forecast(
    values: Field, source: str, *, cap: float | None = CAP, on_invalid: OnInvalid = "error"
) -> tuple[Field, int, int]:
    """Refuse or mask values that cannot be, and cap those that are too large to learn from.

    Args:
        values: (y, x) mm; changed in place.
        source: file, for messages.
        cap: mm above which values are set to it; None for none.
        on_invalid: whether NaN, infinite, negative and fill values are an error or become NaN.

    Returns:
        Values, how many were capped, how many are NaN.

    Raises:
        InputError: invalid values; names the first.
    """
    with np.errstate(invalid="ignore"):
        bad = ~(values >= -ROUNDING) | (values > 1e6)
    n_invalid = int(bad.sum())
    if n_invalid and on_invalid == "error":
        raise InputError(
            f"{source}: precipitation is missing, infinite, negative or a fill value at {where(bad)}, such as "
            f"{values[bad][0]:g}; set forecast_nan to 'mask' to leave such points out"
        )
    values[bad] = np.nan
    np.maximum(values, 0, out=values)
    n_capped = 0
    if cap is not None:
        above = values > cap
        n_capped = int(above.sum())
        values[above] = cap
        if n_capped:
            logger.info("%s: %d values above %g mm are set to it", source, n_capped, cap)
    return values, n_capped, n_invalid


def subtract_totals(later: Field, earlier: Field, source: str) -> tuple[Field, int]:
    """The amount that fell between two totals with a common start.

    Totals are packed separately, so their difference can be a little negative: such values become 0.

    Args:
        later: (y, x) total up to the end, mm.
        earlier: (y, x) total up to the start, mm.
        source: files, for the log.

    Returns:
        Difference (y, x), mm, and how many values were negative.
    """
    difference = later - earlier
    negative = difference < 0
    n_negative = int(negative.sum())
    if n_negative:
        logger.warning(
            "%s: the total falls at %d of %d points, by up to %.3g mm: these are set to 0",
            source, n_negative, difference.size, -difference[negative].min(),
        )  # fmt: skip
    difference[negative] = 0
    return difference, n_negative


def _units(header: Header) -> str | None:
    """Units of a precipitation amount; None for every other parameter."""
    if header.process != ACCUMULATION:
        return None
    if header.parameter == (0, 1, 8):
        return "kg m-2"
    # local number of ECMWF; the same one is a category of rain for NCEP
    return "m" if header.parameter == (0, 1, 193) and header.centre == "ecmf" else None


def _amounts(path: Path | str, end: np.timedelta64, window: Window) -> list[Message]:
    return read_messages(path, lambda header: _units(header) is not None and header.end == end, window)


def _steps(path: Path | str) -> str:
    steps = {header.steps for header in read_headers(path) if _units(header) is not None}
    return f"it has those of {', '.join(sorted(steps))}" if steps else "it has no precipitation amount at all"


def _millimetres(message: Message) -> Field:
    factor = to_millimetres(str(_units(message.header)), 1, message.header.source)
    return message.values * np.float32(factor)


def _only(messages: list[Message], path: Path | str) -> Message:
    """The one message; the first hour's total and the amount of that hour are the same, so it may come twice."""
    first = messages[0]
    for other in messages[1:]:
        if not np.array_equal(first.values, other.values, equal_nan=True):
            raise InputError(
                f"{path} has {len(messages)} different precipitation amounts of step {first.header.steps} h, expected 1"
            )
    return first


def _difference(
    later: list[Message], path: Path | str, previous: Path | str, start: np.timedelta64, window: Window
) -> tuple[Message, Field, int]:
    """The amount since `start`: of two totals that begin at the same step, the latest there is."""
    earlier = _amounts(previous, start, window)
    common = {message.header.start for message in later} & {message.header.start for message in earlier}
    if not common:
        raise InputError(
            f"{path} and {previous} have no precipitation amounts with a common start that end at "
            f"{hours(later[0].header.end):g} h and {hours(start):g} h: {path}: {_steps(path)}; {previous}: "
            f"{_steps(previous)}"
        )
    begin = max(common)
    total, before = (
        _only([message for message in messages if message.header.start == begin], name)
        for messages, name in ((later, path), (earlier, previous))
    )
    if total.header.reference_time != before.header.reference_time:
        raise InputError(
            f"{path} is of the run from {total.header.reference_time}, {previous} of that from "
            f"{before.header.reference_time}; totals of one run are needed"
        )
    require_same_grid(total.grid, before.grid, (str(path), str(previous)))
    difference, n_negative = subtract_totals(_millimetres(total), _millimetres(before), f"{path} less {previous}")
    return total, difference, n_negative
