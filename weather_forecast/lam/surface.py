"""Land, moisture, rain, clouds, ground temperature and wind near the ground: the lower boundary of the demo.

Fields are (n, n), row 0 in the south, on a doubly periodic domain. Temperatures are anomalies from the state of rest,
K; specific humidity is in kg kg-1.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

HOUR = 3600.0  # s
DAY = 86400.0  # s
LAPSE_RATE = 6.5e-3  # K m-1
SEA_LEVEL_TEMPERATURE = 283.0  # K, in the middle of the domain

# Orography
PEAK = 1200.0  # m
ROUGHNESS = 0.25
SEA_BELOW = 40.0  # m

# Moisture
SATURATION_HUMIDITY = 9.0e-3  # kg kg-1, at rest
SATURATION_GROWTH = 0.075  # K-1, after Clausius and Clapeyron
AIR_COOLING_WITH_HEIGHT = 0.6 * LAPSE_RATE  # K m-1, of the lower layer over orography
EVAPORATION_UP_TO = 0.85  # of saturation
EVAPORATION_TIME = 1.5 * DAY
LAND_EVAPORATION = 0.35
RAIN_ABOVE = 0.97  # of saturation
RAIN_TIME = HOUR
RAIN_PER_HUMIDITY = 3500.0  # kg m-2, mass of the moist layer's air
CLOUD_ABOVE = 0.6  # of saturation

# Ground: heating by the sun, K s-1 per W m-2, and cooling to space and to the air
SOLAR_HEATING = 0.65e-6
CLOUD_SHADE = 0.7
THERMAL_COOLING = 2.0e-5  # K s-1
CLOUD_GREENHOUSE = 0.6
GROUND_TIME = 7 * HOUR
SEA_FOLLOWS_AIR = 0.35

# Wind at 10 m: part of the lower layer's speed, and turning towards low pressure, degrees
SEA_WIND = (0.78, 12.0)
LAND_WIND = (0.55, 28.0)


@dataclass(frozen=True)
class Ridge:
    """A mountain range: a Gaussian with elliptic contours.

    Args:
        height: relative to the highest range.
        x: of its middle, as part of the domain.
        y: likewise.
        length: half-width along the range, as part of the domain.
        width: half-width across.
        angle: of the range from east, counter-clockwise, degrees.
    """

    height: float
    x: float
    y: float
    length: float
    width: float
    angle: float

    def on_grid(self, n: int) -> Array:
        """Relative height (n, n), periodic."""
        position = np.arange(n) / n
        dx = ((position - self.x + 0.5) % 1 - 0.5)[None]
        dy = ((position - self.y + 0.5) % 1 - 0.5)[:, None]
        angle = np.radians(self.angle)
        along = np.cos(angle) * dx + np.sin(angle) * dy
        across = np.cos(angle) * dy - np.sin(angle) * dx
        return self.height * np.exp(-((along / self.length) ** 2) - (across / self.width) ** 2)


RIDGES = (
    Ridge(1.0, x=0.55, y=0.46, length=0.105, width=0.038, angle=25.0),
    Ridge(0.7, x=0.38, y=0.40, length=0.075, width=0.030, angle=-15.0),
    Ridge(0.5, x=0.66, y=0.60, length=0.056, width=0.046, angle=0.0),
    Ridge(0.4, x=0.44, y=0.57, length=0.047, width=0.028, angle=70.0),
)


def make_orography(n: int, seed: int = 3) -> Array:
    """Height above the sea (n, n), m: mountain ranges with red noise on them, 1200 m at the highest.

    Args:
        n: grid points per side.
        seed: of the noise; the ranges are always the same ones.
    """
    height = np.max([ridge.on_grid(n) for ridge in RIDGES], axis=0)
    rng = np.random.default_rng(seed)
    waves = np.fft.fftfreq(n, 1 / n)
    total = np.hypot(waves[:, None], waves[None])
    slope = np.where((total > 0) & (total < n / 4), np.maximum(total, 1) ** -1.5, 0)
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((n, n))) * slope).real
    height = np.maximum(height * (1 + ROUGHNESS * noise / noise.std()), 0)
    return PEAK * height / height.max()


def is_land(orography: ArrayLike) -> Mask:
    """Where land is: 40 m above the sea and higher."""
    return np.asarray(orography) >= SEA_BELOW


def advect(field: Array, u: Array, v: Array, time_step: float, spacing: float) -> Array:
    """Semi-Lagrangian advection on a periodic grid (Staniforth and Côté 1991, MWR 119:2206).

    The departure point follows from the wind at the arrival point, which is of first order in time. There, cubic
    Lagrange interpolation over 4×4 points is limited to the range of the nearest 2×2 (Bermejo and Staniforth 1992,
    MWR 120:2622), so that no new extrema arise; the mean is conserved only nearly.

    Args:
        field: (n, n) what is carried.
        u: (n, n) m/s, along the columns.
        v: (n, n) m/s, along the rows.
        time_step: s.
        spacing: m.
    """
    n = len(field)
    index = np.arange(n, dtype=field.dtype)
    x = index[None] - u * (time_step / spacing)
    y = index[:, None] - v * (time_step / spacing)
    column, row = np.floor(x), np.floor(y)
    weights_x, weights_y = _cubic_weights(x - column), _cubic_weights(y - row)
    # in the padded field the 4×4 points lie at the same distances from the first one everywhere
    padded = np.pad(field, (1, 2), mode="wrap")
    first = (row.astype(np.intp) % n) * (n + 3) + column.astype(np.intp) % n
    flat = padded.ravel()

    result = np.zeros_like(field)
    low, high = np.full_like(field, np.inf), np.full_like(field, -np.inf)
    for j in range(4):
        line = np.zeros_like(field)
        for i in range(4):
            value = flat[j * (n + 3) + i :].take(first)
            line += weights_x[i] * value
            if i in (1, 2) and j in (1, 2):
                np.minimum(low, value, out=low)
                np.maximum(high, value, out=high)
        result += weights_y[j] * line
    return np.clip(result, low, high, out=result)


def _cubic_weights(t: Array) -> tuple[Array, Array, Array, Array]:
    """Weights of the points -1, 0, 1, 2 for the place 0 <= t < 1."""
    before, after, far = t + 1, t - 1, t - 2
    return -t * after * far / 6, before * after * far / 2, -before * t * far / 2, before * t * after / 6


def cloud_cover(saturation: Array) -> Array:
    """Cloud cover 0..1 of a humidity relative to saturation: none up to 60 %, overcast at 100 %."""
    return np.clip((saturation - CLOUD_ABOVE) / (1 - CLOUD_ABOVE), 0, 1)


def ten_metre_wind(u: Array, v: Array, land: Mask) -> tuple[Array, Array]:
    """Wind at 10 m: the lower layer's, slowed and turned to the left by friction, more so over land.

    Args:
        u: (n, n) zonal wind of the lower layer, m/s.
        v: (n, n) meridional wind.
        land: (n, n).
    """
    speed = np.where(land, LAND_WIND[0], SEA_WIND[0]).astype(u.dtype)
    angle = np.radians(np.where(land, LAND_WIND[1], SEA_WIND[1])).astype(u.dtype)
    along, across = speed * np.cos(angle), speed * np.sin(angle)
    return along * u - across * v, across * u + along * v


@dataclass(frozen=True)
class MoistureBudget:
    """Domain means of one step, kg kg-1.

    Attributes:
        change: of specific humidity.
        advection: what interpolation added; zero for a scheme that conserves.
        evaporation: from the surface, positive.
        rain: fallen out, positive.
    """

    change: float
    advection: float
    evaporation: float
    rain: float


class Surface:
    """Moisture of the lower layer and temperature of the ground, stepped hour by hour.

    Args:
        orography: (n, n) m; its type is that of the computation.
        spacing: of the grid, m.
        time_step: s.

    Attributes:
        land: (n, n).
        humidity: (n, n) specific humidity, kg kg-1; 70 % of saturation at the start.
        saturation: (n, n) humidity relative to saturation, 0..1, after the last step.
        ground: (n, n) anomaly of the ground's temperature, K.
    """

    def __init__(self, orography: Array, spacing: float, time_step: float = HOUR) -> None:
        self.orography = orography
        self.spacing = spacing
        self.time_step = time_step
        self.land = is_land(orography)
        self.humidity: Array = np.full_like(orography, 0.7 * SATURATION_HUMIDITY)
        self.saturation: Array = np.full_like(orography, 0.7)
        self.ground: Array = np.zeros_like(orography)
        self._rain: Array = np.zeros_like(orography)
        self._cooling: Array = AIR_COOLING_WITH_HEIGHT * orography
        self._wetness: Array = np.where(self.land, LAND_EVAPORATION, 1).astype(orography.dtype)

    def step(self, u: Array, v: Array, temperature: Array, radiation: ArrayLike) -> MoistureBudget:
        """Advance by one time step.

        Args:
            u: (n, n) zonal wind of the lower layer, m/s.
            v: (n, n) meridional wind.
            temperature: (n, n) anomaly of the air's temperature, K.
            radiation: (n, n) from the sun at the top of the atmosphere, W m-2.
        """
        budget = self._step_moisture(u, v, temperature)
        self._step_ground(temperature, np.asarray(radiation, self.ground.dtype))
        return budget

    def _step_moisture(self, u: Array, v: Array, temperature: Array) -> MoistureBudget:
        dt = self.time_step
        carried = advect(self.humidity, u, v, dt, self.spacing)
        limit = SATURATION_HUMIDITY * np.exp(SATURATION_GROWTH * (temperature - self._cooling))
        evaporation = self._wetness * np.maximum(EVAPORATION_UP_TO * limit - carried, 0) * (dt / EVAPORATION_TIME)
        moist = carried + evaporation
        rain = np.maximum(moist - RAIN_ABOVE * limit, 0) * (1 - float(np.exp(-dt / RAIN_TIME)))
        before, self.humidity = self.humidity, moist - rain
        self.saturation = np.clip(self.humidity / limit, 0, 1)
        self._rain += RAIN_PER_HUMIDITY * rain
        start, advected, end = (float(np.mean(q, dtype=np.float64)) for q in (before, carried, self.humidity))
        return MoistureBudget(
            change=end - start,
            advection=advected - start,
            evaporation=float(np.mean(evaporation, dtype=np.float64)),
            rain=float(np.mean(rain, dtype=np.float64)),
        )

    def _step_ground(self, temperature: Array, radiation: Array) -> None:
        cloud = cloud_cover(self.saturation)
        heating = SOLAR_HEATING * radiation * (1 - CLOUD_SHADE * cloud)
        cooling = THERMAL_COOLING * (1 - CLOUD_GREENHOUSE * cloud) + (self.ground - temperature) / GROUND_TIME
        land = self.ground + self.time_step * (heating - cooling)
        self.ground = np.where(self.land, land, SEA_FOLLOWS_AIR * temperature)

    def collect_rain(self) -> Array:
        """Rain (n, n) since the last call, kg m-2."""
        rain, self._rain = self._rain, np.zeros_like(self._rain)
        return rain

    def two_metre_temperature(self, background: Array) -> Array:
        """Temperature at 2 m (n, n), K.

        Args:
            background: temperature of the mean flow in the layer between the levels, relative to the domain's middle,
                broadcast to (n, n), K. Near the ground its gradient is half as large again.
        """
        return SEA_LEVEL_TEMPERATURE + 1.5 * background + self.ground - LAPSE_RATE * self.orography

    def relative_humidity(self) -> Array:
        """Relative humidity (n, n), %."""
        return 100 * self.saturation
