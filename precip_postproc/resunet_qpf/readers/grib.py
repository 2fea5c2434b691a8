"""GRIB2 messages, decoded with eccodes in memory: the only module that needs it.

Keys: WMO Manual on Codes, No. 306, Volume I.2, FM 92 GRIB edition 2.
"""

import gzip
import importlib
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ai4sim.errors import InputError
from ai4sim.projections import LambertConformal
from precip_postproc.resunet_qpf.readers.files import hours, require_file
from precip_postproc.resunet_qpf.readers.grid import WHOLE, CurvilinearGrid, Grid, LambertGrid, LatLonGrid, Window

MASKED = -(2.0**100)
"""What masked points are decoded to: no packed field has it, while the usual 9999 may be a genuine value."""

ACCUMULATION = 1  # code table 4.10
GROUND = 1  # code table 4.5

# code table 4.4: seconds of a unit of time
_SECONDS = {0: 60, 1: 3600, 2: 86400, 10: 3 * 3600, 11: 6 * 3600, 12: 12 * 3600, 13: 1}

Field = NDArray[np.float32]
Triple = tuple[int, int, int]
"""Discipline, category and number: which parameter it is."""


@dataclass(frozen=True)
class Header:
    """What a message says about its field.

    Args:
        source: file and number of the message, for messages.
        parameter: discipline, category, number.
        centre: abbreviation or number of the producing centre.
        reference_time: initial time of a forecast, time of an analysis; to the second.
        start: from the reference time to the start of the interval that the field stands for.
        end: from the reference time to the end of the interval; equal to `start` for an instant.
        process: statistical process over the interval, code table 4.10 (1: accumulation); None for an instant.
        problem: why the interval cannot be trusted: the message is refused when it is decoded, and not before, so that
            it does no harm to others in its file.
        surface: kind of the level that the field is at, code table 4.5 (1: ground or water); None where there is none.
    """

    source: str
    parameter: Triple
    centre: str
    reference_time: np.datetime64
    start: np.timedelta64
    end: np.timedelta64
    process: int | None
    problem: str = ""
    surface: int | None = None

    @property
    def valid_time(self) -> np.datetime64:
        """End of the interval."""
        return self.reference_time + self.end

    @property
    def steps(self) -> str:
        """Interval in hours, such as 5-6."""
        return f"{hours(self.start):g}-{hours(self.end):g}"


@dataclass(frozen=True, eq=False)
class Message:
    """A decoded message.

    Args:
        header: what it says about the field.
        grid: where its points are, cropped as the values.
        values: (y, x) from the south-west; NaN where the message's bitmap masks them.
    """

    header: Header
    grid: Grid
    values: Field


def read_headers(path: Path | str) -> list[Header]:
    """What the messages of a file are, without decoding their values.

    Raises:
        InputError: as for :func:`read_messages`.
    """
    return [header for header, _ in _scan(Path(path))]


def read_messages(
    path: Path | str, wanted: Callable[[Header], bool] = lambda header: True, window: Window = WHOLE
) -> list[Message]:
    """Decode some or all messages of a GRIB2 file, which may be compressed with gzip.

    Args:
        path: the file.
        wanted: whether to decode a message; the others cost next to nothing.
        window: rows and columns to keep, counted from the south-west corner.

    Raises:
        MissingFileError: the file is not there.
        InputError: eccodes is not installed; the file is empty, truncated or no GRIB2; a message cannot be decoded, or
            contradicts itself about its interval.
    """
    return [_decode(handle, header, window) for header, handle in _scan(Path(path)) if wanted(header)]


def read_message(path: Path | str, window: Window = WHOLE) -> Message:
    """Decode the message of a file that must hold exactly one.

    Args:
        path: the file.
        window: rows and columns to keep, counted from the south-west corner.

    Raises:
        InputError: as for :func:`read_messages`, or the file has several messages.
    """
    message = None
    for number, (header, handle) in enumerate(_scan(Path(path))):
        if number:
            raise InputError(f"{path} has more than one message, found {count_messages(path)}, expected 1")
        message = _decode(handle, header, window)
    assert message is not None, "a file without a message is refused when it is scanned"
    return message


def read_grid(path: Path | str) -> Grid:
    """The grid of a file's first message, without decoding values.

    Raises:
        InputError: as for :func:`read_messages`.
    """
    for _, handle in _scan(Path(path)):
        return _grid(handle, str(path))
    raise AssertionError("a file without a message is refused when it is scanned")


def count_messages(path: Path | str) -> int:
    """Number of messages in a file.

    Raises:
        InputError: the file is empty or truncated.
    """
    return sum(1 for _ in _split(Path(path)))


# -- framing: where messages start and end


def _split(path: Path) -> Iterator[bytes]:
    """The messages of a file, one at a time in memory.

    Section 0 tells the length of the message, so that a truncated one is found before it is given to a decoder.
    """
    require_file(path, "GRIB2")
    found = 0
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            stream: Any = gzip.GzipFile(fileobj=file) if compressed else file
            while (start := _find_start(stream, path)) is not None:
                length = int.from_bytes(start[8:16], "big")
                message = start + stream.read(max(length - len(start), 0))
                if len(message) < length:
                    raise InputError(
                        f"{path} is truncated: message {found + 1} has {len(message)} bytes, expected {length}"
                    )
                if message[-4:] != b"7777":
                    raise InputError(f"{path} is damaged: message {found + 1} does not end with 7777")
                found += 1
                yield message
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} is truncated or damaged: {error}") from error
    if not found:
        size = path.stat().st_size
        raise InputError(f"{path} holds no GRIB message, {'it is empty' if not size else f'found {size} other bytes'}")


def _find_start(stream: BinaryIO, path: Path) -> bytes | None:
    """Section 0 of the next message; None at the end of the file. Bulletin headings between messages are skipped."""
    start = stream.read(16)
    while not start.startswith(b"GRIB"):
        rest = start.find(b"G", 1)
        start = start[rest:] if rest > 0 else b""
        more = stream.read(16 - len(start))
        if not more:
            return None
        start += more
    if len(start) < 16:
        raise InputError(f"{path} is truncated: its last message ends after {len(start)} bytes")
    if start[7] != 2:
        raise InputError(f"{path} is of GRIB edition {start[7]}, expected 2; convert it with 'grib_set -s edition=2'")
    return start


# -- decoding


def _eccodes() -> Any:
    try:
        return importlib.import_module("eccodes")
    except (ImportError, RuntimeError, OSError) as error:
        raise InputError(
            f"reading GRIB needs eccodes, which cannot be imported ({error}): install it with pip install "
            "'ai4sim[grib]', or give NetCDF or Zarr"
        ) from error


def _scan(path: Path) -> Iterator[tuple[Header, int]]:
    """Header and handle of all messages; a handle is valid until the next one is asked for."""
    eccodes = _eccodes()
    for number, message in enumerate(_split(path), start=1):
        source = f"{path} (message {number})"
        with _named_errors(eccodes, source):
            handle = eccodes.codes_new_from_message(message)
        try:
            with _named_errors(eccodes, source):
                header = _header(eccodes, handle, source)
            yield header, handle
        finally:
            eccodes.codes_release(handle)


@contextmanager
def _named_errors(eccodes: Any, source: str) -> Iterator[None]:
    try:
        yield
    except eccodes.CodesInternalError as error:
        raise InputError(f"{source} cannot be decoded: {error}") from error


def _header(eccodes: Any, handle: int, source: str) -> Header:
    def get(key: str) -> int:
        return int(eccodes.codes_get(handle, key, ktype=int))

    reference = _time(get, "{}", source)
    process, problem = None, ""
    start: np.timedelta64 = np.timedelta64(0, "s")
    end: np.timedelta64 = start
    try:
        start = end = _duration(get, "forecastTime", "indicatorOfUnitForForecastTime", source)
        if eccodes.codes_is_defined(handle, "yearOfEndOfOverallTimeInterval"):
            process = get("typeOfStatisticalProcessing")
            end = _time(get, "{}OfEndOfOverallTimeInterval", source) - reference
            if get("numberOfTimeRange") == 1:
                length = _duration(get, "lengthOfTimeRange", "indicatorOfUnitForTimeRange", source)
                if end - start != length:
                    problem = (
                        f"{source} contradicts itself: its interval starts at step {hours(start):g} h and ends at "
                        f"{hours(end):g} h, but its length is said to be {hours(length):g} h"
                    )
    except InputError as error:
        problem = str(error)
    return Header(
        source=source,
        parameter=(get("discipline"), get("parameterCategory"), get("parameterNumber")),
        centre=str(eccodes.codes_get(handle, "centre", ktype=str)),
        reference_time=reference,
        start=start,
        end=end,
        process=process,
        problem=problem,
        surface=get("typeOfFirstFixedSurface") if eccodes.codes_is_defined(handle, "typeOfFirstFixedSurface") else None,
    )


def _duration(get: Callable[[str], int], length: str, unit: str, source: str) -> np.timedelta64:
    code = get(unit)
    if code not in _SECONDS:
        raise InputError(f"{source}: unit of time {code} (code table 4.4) is not known; hours are expected")
    return np.timedelta64(get(length) * _SECONDS[code], "s")


def _time(get: Callable[[str], int], form: str, source: str) -> np.datetime64:
    """A time from its separate keys: packed ones, such as dataTime, have no seconds."""
    keys = [form.format(unit) for unit in ("year", "month", "day", "hour", "minute", "second")]
    year, month, day, hour, minute, second = (get(key) for key in keys)
    text = f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
    try:
        return np.datetime64(text, "s")
    except ValueError as error:
        raise InputError(f"{source}: the keys {keys[0]} to {keys[-1]} give {text}, which is no time") from error


def _decode(handle: int, header: Header, window: Window) -> Message:
    if header.problem:
        raise InputError(header.problem)
    eccodes = _eccodes()
    with _named_errors(eccodes, header.source):
        grid = _grid(handle, header.source)
        eccodes.codes_set(handle, "missingValue", MASKED)
        values = _oriented(eccodes, handle, eccodes.codes_get_values(handle), header.source)
    cropped = values[window]
    if cropped.size == 0:
        raise InputError(f"{header.source}: no point of the grid {grid.shape} is in the window {window}")
    field = cropped.astype(np.float32)
    if eccodes.codes_get(handle, "bitmapPresent", ktype=int) or _marks_missing(eccodes, handle):
        field[cropped == MASKED] = np.nan
    return Message(header, grid if window == WHOLE else grid.crop(window), field)


def _marks_missing(eccodes: Any, handle: int) -> bool:
    """Whether the packing itself marks missing values, which complex packing can."""
    key = "missingValueManagementUsed"
    return bool(eccodes.codes_is_defined(handle, key) and eccodes.codes_get(handle, key, ktype=int))


def _oriented(eccodes: Any, handle: int, values: NDArray[Any], source: str) -> NDArray[Any]:
    """Values (y, x) from the south-west, a view where the message is so."""
    rows, columns = _shape(eccodes, handle, source)
    if values.size != rows * columns:
        raise InputError(f"{source} has {values.size} values, expected {rows} x {columns}")

    def flag(key: str) -> bool:
        return bool(eccodes.codes_get(handle, key, ktype=int))

    lines = values.reshape(columns, rows) if flag("jPointsAreConsecutive") else values.reshape(rows, columns)
    if flag("alternativeRowScanning"):
        lines = lines.copy()
        lines[1::2] = lines[1::2, ::-1]
    field = lines.T if flag("jPointsAreConsecutive") else lines
    return field[:: 1 if flag("jScansPositively") else -1, :: -1 if flag("iScansNegatively") else 1]


# -- grids


def _shape(eccodes: Any, handle: int, source: str) -> tuple[int, int]:
    for columns, rows in (("Ni", "Nj"), ("Nx", "Ny")):
        if eccodes.codes_is_defined(handle, columns) and not eccodes.codes_is_missing(handle, columns):
            height, width = (int(eccodes.codes_get(handle, key, ktype=int)) for key in (rows, columns))
            return height, width
    kind = eccodes.codes_get(handle, "gridType", ktype=str)
    raise InputError(f"{source}: the grid {kind!r} has no rows and columns; regular_ll and lambert are known")


def _grid(handle: int, source: str) -> Grid:
    eccodes = _eccodes()
    with _named_errors(eccodes, source):
        kind = eccodes.codes_get(handle, "gridType", ktype=str)
        if kind == "regular_ll":
            return _lat_lon(eccodes, handle, source)
        if kind == "lambert" and not eccodes.codes_get(handle, "earthIsOblate", ktype=int):
            return _lambert(eccodes, handle, source)
        # a projection of an ellipsoid, or another one: eccodes knows where the points are
        points = (eccodes.codes_get_double_array(handle, key) for key in ("latitudes", "longitudes"))
        latitude, longitude = (_oriented(eccodes, handle, values, source) for values in points)
        return CurvilinearGrid(np.ascontiguousarray(latitude), np.ascontiguousarray(longitude))


def _lat_lon(eccodes: Any, handle: int, source: str) -> LatLonGrid:
    axes = []
    for name, letter, scans, turn in (
        ("latitude", "j", "jScansPositively", None),
        ("longitude", "i", "iScansPositively", 360.0),
    ):
        first, last, increment = (
            float(eccodes.codes_get(handle, key, ktype=float))
            for key in (
                f"{name}OfFirstGridPointInDegrees",
                f"{name}OfLastGridPointInDegrees",
                f"{letter}DirectionIncrementInDegrees",
            )
        )
        intervals = int(eccodes.codes_get(handle, f"N{letter}", ktype=int)) - 1
        sign = 1 if eccodes.codes_get(handle, scans, ktype=int) else -1
        span = sign * (last - first)
        span = span if turn is None else span % turn
        # corners are rounded, MRMS has 299.994998 for 299.995: the increment is exact, where there is one
        step = increment if increment > 0 else span / max(intervals, 1)
        if span <= 0 or abs(step * intervals - span) > 0.1 * step:
            raise InputError(
                f"{source} contradicts itself: {intervals + 1} points {step:g} degrees apart from {name} {first:g} do "
                f"not end at {last:g}"
            )
        axes.append((first + sign * step * np.arange(intervals + 1, dtype=np.float64))[::sign])
    return LatLonGrid(axes[0], axes[1])


def _lambert(eccodes: Any, handle: int, source: str) -> LambertGrid:
    def get(key: str) -> float:
        return float(eccodes.codes_get(handle, key, ktype=float))

    def flag(key: str) -> bool:
        return bool(eccodes.codes_get(handle, key, ktype=int))

    projection = LambertConformal(
        get("LaDInDegrees"),
        (get("LoVInDegrees") + 180) % 360 - 180,
        (get("Latin1InDegrees"), get("Latin2InDegrees")),
        get("radius"),
    )
    rows, columns = _shape(eccodes, handle, source)
    x, y = projection.to_plane(get("latitudeOfFirstGridPointInDegrees"), get("longitudeOfFirstGridPointInDegrees"))
    dx, dy = get("DxInMetres"), get("DyInMetres")
    west = float(x) - (columns - 1) * dx * flag("iScansNegatively")
    south = float(y) - (rows - 1) * dy * (not flag("jScansPositively"))
    return LambertGrid(projection, (west, south), (dx, dy), (rows, columns))
