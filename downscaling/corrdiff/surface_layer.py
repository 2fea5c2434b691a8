"""What terrain, sea and time of day make of the flow aloft: wind at 10 m, temperature at 2 m and precipitation.

A diagnostic without memory, and so something that can be learnt: friction turns and slows the wind, hilltops and gaps
speed it up, steep slopes block it, the day's heating draws it up the slopes and onto the land. It rains where the flow
rises, by itself or over the slopes.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from downscaling.corrdiff.periodic import gradient, smooth

Array = NDArray[Any]

# over land and over sea
TURN = (25.0, 12.0)  # degrees, to the left: towards low pressure
SLOWING = (0.62, 0.85)

EXPOSURE, EXPOSURE_HEIGHT, EXPOSURE_RANGE = 0.8, 300.0, (0.3, 1.8)  # part, m, parts
SURROUNDINGS = 24e3  # m
BLOCKING, BLOCKING_SLOPE = 0.7, 0.04  # part, m per m
SLOPE_WIND, SLOPE_WIND_SLOPE = 3.0, 0.03  # m/s, m per m
BREEZE, BREEZE_WIDTH, COAST_WIDTH = 4.0, 24e3, 12e3  # m/s, m, m

TEMPERATURE = 288.0  # K, at sea level
LAPSE_RATE = 6.5e-3  # K/m
DAILY_RANGE, LAND_RANGE = 1.0, 4.0  # K over sea, and what land adds: half of the day's range
WARMEST_HOUR = 15.0  # of the day

RAIN, UPSLOPE, THRESHOLD = 36.0, 0.25, 1.0  # mm/h per m/s, part, mm/h


class SurfaceFields(NamedTuple):
    """Fields near the surface.

    Attributes:
        u: (n, n) wind at 10 m to the east, m/s.
        v: (n, n) wind at 10 m to the north, m/s.
        temperature: (n, n) at 2 m, K.
        precipitation: (n, n) mm/h.
    """

    u: Array
    v: Array
    temperature: Array
    precipitation: Array


class SurfaceLayer:
    """The diagnostic over a terrain.

    Args:
        height: (n, n) m.
        land: (n, n) 1 over land, 0 over sea.
        spacing: of the points, m.
    """

    def __init__(self, height: Array, land: Array, spacing: float) -> None:
        self._rise = gradient(height, spacing)
        slope = np.hypot(*self._rise)
        # where it is flat, no direction is uphill
        self._uphill = tuple(np.divide(part, slope, out=np.zeros_like(part), where=slope > 0) for part in self._rise)
        turn, slowing = (np.where(land > 0.5, *values) for values in (np.radians(TURN), SLOWING))
        above = height - smooth(height, SURROUNDINGS / spacing)
        exposure = np.clip(1 + EXPOSURE * np.tanh(above / EXPOSURE_HEIGHT), *EXPOSURE_RANGE)
        kind = height.dtype
        self._along = (slowing * exposure * np.cos(turn)).astype(kind)
        self._across = (slowing * exposure * np.sin(turn)).astype(kind)
        self._blocked = BLOCKING * np.tanh((slope / BLOCKING_SLOPE) ** 2)
        slope_wind = SLOPE_WIND * np.tanh(slope / SLOPE_WIND_SLOPE)
        inland = gradient(smooth(land, COAST_WIDTH / spacing), spacing)
        self._daily_wind = tuple(
            slope_wind * up + BREEZE * BREEZE_WIDTH * towards for up, towards in zip(self._uphill, inland, strict=True)
        )
        self._mean_temperature = TEMPERATURE - LAPSE_RATE * height
        self._daily_temperature = DAILY_RANGE + LAND_RANGE * land

    def __call__(
        self, u: Array, v: Array, temperature: Array, lift: Array | float, moisture: Array, hour: float
    ) -> SurfaceFields:
        """The fields near the surface under a flow.

        Args:
            u: (n, n) wind aloft to the east, m/s.
            v: (n, n) wind aloft to the north, m/s.
            temperature: (n, n) anomaly, K.
            lift: (n, n) vertical velocity of the flow by itself, m/s.
            moisture: (n, n) relative to the usual.
            hour: of the day, solar time.
        """
        (rise_x, rise_y), (uphill_x, uphill_y) = self._rise, self._uphill
        day = np.cos(2 * np.pi * (hour - WARMEST_HOUR) / 24).item()
        east = self._along * u - self._across * v
        north = self._along * v + self._across * u
        stopped = self._blocked * (east * uphill_x + north * uphill_y)
        daily_x, daily_y = self._daily_wind
        return SurfaceFields(
            u=east - stopped * uphill_x + day * daily_x,
            v=north - stopped * uphill_y + day * daily_y,
            temperature=self._mean_temperature + temperature + day * self._daily_temperature,
            precipitation=np.maximum(RAIN * moisture * (lift + UPSLOPE * (u * rise_x + v * rise_y)) - THRESHOLD, 0),
        )
