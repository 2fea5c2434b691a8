"""What is known of a time without forecasting: radiation at the top of the atmosphere, hour and season.

Times are ``numpy.datetime64`` in UTC, of any unit and shape.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Times = NDArray[np.datetime64]

SOLAR_CONSTANT = 1366.0  # W m-2
OBLIQUITY = 23.45  # degrees

_SECOND = np.timedelta64(1, "s")
_HOUR = np.timedelta64(3600, "s")
_DAY = np.timedelta64(1, "D")


def day_of_year(times: ArrayLike) -> NDArray[np.int64]:
    """Calendar day of the year: 1 on 1 January, 365 or 366 on 31 December."""
    days = np.asarray(times, "datetime64[D]")
    return (days - days.astype("datetime64[Y]")) // _DAY + 1


def hour_of_day(times: ArrayLike) -> Array:
    """Hours since midnight with their fraction, 0 <= h < 24."""
    seconds = np.asarray(times, "datetime64[s]")
    return (seconds - seconds.astype("datetime64[D]")) / _HOUR


def declination(day: ArrayLike) -> Array:
    """Declination of the sun, rad (Cooper 1969, Solar Energy 12:333).

    Args:
        day: day of the year, 1 on 1 January: day 81, 22 March, is the equinox of this formula.
    """
    return np.radians(OBLIQUITY) * np.sin(2 * np.pi * (284 + np.asarray(day)) / 365)


def insolation(latitude: ArrayLike, longitude: ArrayLike, day: ArrayLike, hour: ArrayLike) -> Array:
    """Downward solar radiation at the top of the atmosphere, W m-2; zero at night.

    The distance to the sun and the equation of time are left out. All arguments broadcast.

    Args:
        latitude: degrees north.
        longitude: degrees east.
        day: day of the year, 1 on 1 January.
        hour: UTC, hours.
    """
    phi, delta = np.radians(latitude), declination(day)
    hour_angle = np.radians(15) * (np.asarray(hour) + np.asarray(longitude) / 15 - 12)
    cosine_of_zenith = np.sin(phi) * np.sin(delta) + np.cos(phi) * np.cos(delta) * np.cos(hour_angle)
    return SOLAR_CONSTANT * np.maximum(cosine_of_zenith, 0)


def toa_radiation(times: ArrayLike, latitude: ArrayLike, longitude: ArrayLike) -> Array:
    """Radiation at the top of the atmosphere over a grid, W m-2.

    Args:
        times: (...) UTC.
        latitude: degrees north, (lat,) of a regular grid or (lat, lon) of any other.
        longitude: degrees east, (lon,) or (lat, lon) likewise.

    Returns:
        (..., lat, lon).

    Raises:
        ValueError: latitude and longitude are not both one- or both two-dimensional.
    """
    lat, lon = np.asarray(latitude), np.asarray(longitude)
    if lat.ndim != lon.ndim or lat.ndim not in (1, 2) or (lat.ndim == 2 and lat.shape != lon.shape):
        raise ValueError(
            f"latitude {lat.shape} and longitude {lon.shape} must be (lat,) and (lon,), or both (lat, lon)"
        )
    if lat.ndim == 1:
        lat, lon = lat[:, None], lon[None, :]
    day, hour = day_of_year(times), hour_of_day(times)
    return insolation(lat, lon, day[..., None, None], hour[..., None, None])


def time_encodings(times: ArrayLike) -> Array:
    """Hour and season on two circles, scaled to [0, 1].

    The year's circle closes exactly: a leap year has 366 days.

    Args:
        times: (...) UTC.

    Returns:
        (..., 4) in the order of ``config.TIME_FORCINGS``: sine and cosine of the hour, sine and cosine of the season.
    """
    seconds = np.asarray(times, "datetime64[s]")
    year = seconds.astype("datetime64[Y]")
    start, end = year.astype("datetime64[s]"), (year + 1).astype("datetime64[s]")
    season = 2 * np.pi * ((seconds - start) / _SECOND) / ((end - start) / _SECOND)
    hour = 2 * np.pi * hour_of_day(seconds) / 24
    circles = np.stack([np.sin(hour), np.cos(hour), np.sin(season), np.cos(season)], axis=-1)
    return (circles + 1) / 2
