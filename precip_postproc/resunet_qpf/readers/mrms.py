"""Radar analyses of NOAA's Multi-Radar/Multi-Sensor system (MRMS).

The products have local parameter numbers that no GRIB library knows, so names and units come from the table below:
MRMS user table, version 12.2 (github.com/NOAA-National-Severe-Storms-Laboratory/mrms-support).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.readers.files import HOUR, hours, seconds, stamp
from precip_postproc.resunet_qpf.readers.grib import Triple, read_grid, read_message
from precip_postproc.resunet_qpf.readers.grid import WHOLE, LatLonGrid, Window, require_same_grid

MINUTE = np.timedelta64(60, "s")
NO_TIME = np.timedelta64(0, "s")
SPACING = 2 * MINUTE
"""Time between two fields of PrecipRate."""

TARGET, QUALITY, RATE = "MultiSensor_QPE_01H_Pass2", "RadarAccumulationQualityIndex_01H", "PrecipRate"

Field = NDArray[np.float32]


@dataclass(frozen=True)
class Product:
    """A kind of field.

    Args:
        name: as in file names.
        units: mm, mm h-1 or 1.
        interval: time before the stamp that the field stands for; 0 for an instant.
    """

    name: str
    units: str
    interval: np.timedelta64


def _numbered(name: str, units: str, category: int, first: int) -> dict[Triple, Product]:
    """The products of all seven lengths of accumulation, which have consecutive numbers."""
    lengths = (1, 3, 6, 12, 24, 48, 72)
    return {
        (209, category, first + i): Product(name.format(f"{length:02}H"), units, length * HOUR)
        for i, length in enumerate(lengths)
    }


PRODUCTS: dict[Triple, Product] = {
    (209, 6, 1): Product(RATE, "mm h-1", NO_TIME),
    **_numbered("RadarOnly_QPE_{}", "mm", 6, 2),
    # until version 12 of October 2020
    (209, 6, 9): Product("GaugeCorr_QPE_01H", "mm", HOUR),
    **_numbered("MultiSensor_QPE_{}_Pass1", "mm", 6, 30),
    **_numbered("MultiSensor_QPE_{}_Pass2", "mm", 6, 37),
    (209, 6, 45): Product("RadarOnly_QPE_15M", "mm", 15 * MINUTE),
    (209, 8, 0): Product("RadarQualityIndex", "1", NO_TIME),
    **_numbered("GaugeInflIndex_{}_Pass1", "1", 8, 1),
    **_numbered("RadarAccumulationQualityIndex_{}", "1", 8, 10),
    **_numbered("GaugeInflIndex_{}_Pass2", "1", 8, 17),
}


@dataclass(frozen=True, eq=False)
class MrmsField:
    """A field of one product.

    Args:
        product: what it is.
        time: of the header, to the second; end of the interval.
        values: (y, x) from the south-west in the product's units; NaN where the field is invalid.
        grid: latitudes and longitudes.
        source: file, for messages.
    """

    product: Product
    time: np.datetime64
    values: Field
    grid: LatLonGrid
    source: str

    @property
    def invalid_fraction(self) -> float:
        """Share of points that are NaN."""
        return float(np.isnan(self.values).mean())


def product_named(name: str) -> Product:
    """The product of a name.

    Raises:
        InputError: there is none; names all.
    """
    for product in PRODUCTS.values():
        if product.name == name:
            return product
    raise InputError(f"MRMS has no product {name!r}; known are {', '.join(p.name for p in PRODUCTS.values())}")


def mrms_path(folder: Path | str, product: str, time: np.datetime64) -> Path:
    """Where a field is in a copy of the public bucket ``noaa-mrms-pds``.

    Args:
        folder: of a domain, such as ``CONUS``.
        product: name.
        time: stamp of the field.
    """
    name = f"{product}_00.00"
    return Path(folder) / name / stamp(time, "%Y%m%d") / f"MRMS_{name}_{stamp(time, '%Y%m%d-%H%M%S')}.grib2.gz"


def read_mrms_grid(path: Path | str) -> LatLonGrid:
    """The grid of a file, without decoding its values.

    Raises:
        InputError: the file cannot be read, or its grid is not one of latitudes and longitudes.
    """
    grid = read_grid(path)
    if not isinstance(grid, LatLonGrid):
        raise InputError(f"{path} has a projected grid; MRMS fields are on latitudes and longitudes")
    return grid


def read_mrms(path: Path | str, product: str | None = None, window: Window = WHOLE) -> MrmsField:
    """Read the one field of a file.

    Every negative value is invalid: -1 stands for missing and -3 for no coverage, but -999 occurs too. A quality or
    gauge influence above 1 is invalid as well.

    Args:
        path: GRIB2 file, also compressed.
        product: name of the product that is expected; by default any of the table.
        window: rows and columns to keep, counted from the south-west corner (see :meth:`LatLonGrid.window`).

    Raises:
        MissingFileError: the file is not there.
        InputError: it cannot be decoded, holds several messages, or another product than expected.
    """
    expected = None if product is None else product_named(product)
    message = read_message(path, window)
    header = message.header
    found = PRODUCTS.get(header.parameter)
    if found is None or (expected is not None and found != expected):
        raise InputError(
            f"{path} holds {'an unknown product' if found is None else found.name} {_triple(header.parameter)}"
            f"{_length(found)}, expected {_expected(expected)}"
        )
    if not isinstance(message.grid, LatLonGrid):
        raise InputError(f"{path} has a projected grid; MRMS fields are on latitudes and longitudes")
    values = message.values
    bad = values < 0
    if found.units == "1":
        bad |= values > 1
    values[bad] = np.nan
    return MrmsField(found, header.valid_time, values, message.grid, str(path))


def read_hour(
    target: Path | str, quality: Path | str, window: Window = WHOLE, product: str = TARGET
) -> tuple[MrmsField, MrmsField]:
    """Read an hour's amount and the quality of the same hour.

    Args:
        target: file of the amount, mm.
        quality: file of the quality index, 0 to 1.
        window: rows and columns to keep.
        product: name of the amount's product.

    Raises:
        MissingFileError: a file is not there.
        InputError: another product, hour or grid than expected.
    """
    amount = read_mrms(target, product, window)
    index = read_mrms(quality, QUALITY, window)
    if amount.time != index.time:
        raise InputError(
            f"{quality} is the quality of {index.time}, but {target} is the amount of {amount.time}; give the quality "
            "of the same hour"
        )
    require_same_grid(amount.grid, index.grid, (str(target), str(quality)))
    return amount, index


def accumulate_rates(
    paths: Iterable[Path | str],
    end: np.datetime64 | None = None,
    interval: np.timedelta64 = HOUR,
    spacing: np.timedelta64 = SPACING,
    window: Window = WHOLE,
) -> MrmsField:
    """Add up rates over an interval; two fields are in memory at a time.

    The rate of a stamp stands for the time since the one before, so an hour that ends at 01:00 has the 30 members
    00:02 to 01:00. A point is valid only where all members are, for the radar coverage changes from file to file.

    Args:
        paths: files of PrecipRate in order of time, all members and no others.
        end: of the interval; default: the last member's time.
        interval: length of the accumulation.
        spacing: time between members.
        window: rows and columns to keep.

    Returns:
        The amount, mm, at the end of the interval.

    Raises:
        InputError: a member is missing, doubled or at another time; names those found and expected.
    """
    files = [Path(path) for path in paths]
    number = int(interval / spacing)
    if number < 1 or number * spacing != interval:
        raise InputError(f"the interval of {_minutes(interval)} is no multiple of the spacing {_minutes(spacing)}")
    if len(files) != number:
        raise InputError(
            f"{_minutes(interval)} of {RATE} need {number} members {_minutes(spacing)} apart, found {len(files)} files"
        )
    total, times, first = None, [], None
    for path in files:
        rate = read_mrms(path, RATE, window)
        times.append(rate.time)
        if total is None or first is None:
            total, first = rate.values.astype(np.float64), rate
        else:
            require_same_grid(first.grid, rate.grid, (first.source, rate.source))
            total += rate.values
    assert total is not None
    assert first is not None
    stop = times[-1] if end is None else seconds(end)
    for number, (path, time) in enumerate(zip(files, times, strict=True), start=1):
        expected = stop - (len(files) - number) * spacing
        # stamps may be some seconds late
        if abs(time - expected) >= spacing / 2:
            raise InputError(
                f"{path} is member {number} of {len(files)} of the {_minutes(interval)} to {stop} and is valid at "
                f"{time}, expected {expected}; members must be {_minutes(spacing)} apart and in order"
            )
    amount = (total * hours(spacing)).astype(np.float32)
    product = Product(f"{RATE} accumulated", "mm", interval)
    return MrmsField(product, stop, amount, first.grid, f"{files[0]} to {files[-1].name}")


def _triple(parameter: Triple) -> str:
    return f"({'/'.join(map(str, parameter))})"


def _length(product: Product | None) -> str:
    return f" over {hours(product.interval):g} h" if product is not None and product.interval > NO_TIME else ""


def _expected(product: Product | None) -> str:
    if product is None:
        return "one of precipitation or its quality (discipline 209, category 6 or 8)"
    triple = next(key for key, value in PRODUCTS.items() if value == product)
    return f"{product.name} {_triple(triple)}{_length(product)}"


def _minutes(duration: np.timedelta64) -> str:
    return f"{duration / MINUTE:g} min"
