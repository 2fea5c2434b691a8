"""Generator of realistic atmospheric columns, for the demo and the tests.

An analytic climatology of wind and temperature from the ground to 80 km (jets, polar vortex, summer
easterlies, quasi-biennial and semi-annual oscillations) carries random waves: planetary, synoptic, tidal and
inertia-gravity waves. Global means and spreads are near those of ECMWF forecasts.

Heights z are log-pressure heights in km, 7 km ln(1000 hPa / p). Profiles are (n, K), in m/s or K.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ai4sim.errors import InputError
from weather_forecast.gwd import config
from weather_forecast.gwd.layout import ColumnLayout
from weather_forecast.gwd.levels import L91, VerticalGrid, geopotential, hydrostatic_weights

Array = NDArray[np.float64]

SCALE_HEIGHT = 7.0  # km
N_INERTIA_GRAVITY_WAVES = 6
# K per m/s: temperature amplitude of a wave of unit wind amplitude
WAVE_TEMPERATURE = 0.45


@dataclass(frozen=True, eq=False)
class Columns:
    """State of n columns of L levels, float64.

    Attributes:
        u: (n, L) zonal wind, m/s.
        v: (n, L) meridional wind, m/s.
        t: (n, L) temperature, K.
        half_pressure: (n, L+1) Pa.
        pressure: (n, L) at full levels, Pa.
        geopotential: (n, L) at full levels, m2 s-2.
        surface_pressure: (n,) Pa.
        surface_geopotential: (n,) m2 s-2.
        lowest_geopotential: (n,) of the model's lowest full level above ground, m2 s-2; the scalar input
            ``geopotential`` of the public data set.
        lat: (n,) degrees north.
        doy: (n,) days since the start of the year.
    """

    u: Array
    v: Array
    t: Array
    half_pressure: Array
    pressure: Array
    geopotential: Array
    surface_pressure: Array
    surface_geopotential: Array
    lowest_geopotential: Array
    lat: Array
    doy: Array

    def inputs(self, layout: ColumnLayout | None = None) -> NDArray[np.float32]:
        """Flat input vectors (n, n_inputs), float32.

        Args:
            layout: order of the features; by default profiles, surface pressure, geopotential.

        Raises:
            ValueError: the layout has another number of levels.
        """
        layout = layout or ColumnLayout(n_levels=self.u.shape[1])
        if layout.n_levels != self.u.shape[1]:
            raise ValueError(f"columns have {self.u.shape[1]} levels, the layout has {layout.n_levels}")
        scalars = {
            "surface_pressure": self.surface_pressure,
            "geopotential": self.lowest_geopotential,
            "lat": self.lat,
            "doy": self.doy,
        }
        profiles = [getattr(self, name) for name in layout.profiles]
        return np.concatenate([*profiles, *(scalars[name][:, None] for name in layout.scalars)], axis=1).astype(
            np.float32
        )


def generate_columns(
    n: int,
    rng: np.random.Generator,
    *,
    grid: VerticalGrid = L91,
    doy: ArrayLike | None = None,
    latitude: ArrayLike | None = None,
    mean_flow: ArrayLike = 1.0,
    waves: ArrayLike = 1.0,
    cut_at_launch: bool = True,
) -> Columns:
    """Draw n columns.

    Memory is some 40 arrays of (n, K) float64; draw large sets in portions of a few thousand.

    Args:
        n: number of columns.
        rng: source of all random draws; the same state gives the same columns, bit for bit.
        grid: vertical grid down to the surface.
        doy: day of year, 0..365, one value or (n,); by default uniform.
        latitude: degrees north, one value or (n,); by default uniform over the sphere's area.
        mean_flow: factor on the winds that carry the waves, one value or (n,); below 1 they are weaker than the
            climatology's.
        waves: factor on all resolved waves, likewise.
        cut_at_launch: keep the levels 1..L down to the launch level, as the public data do, instead of all K.

    Raises:
        InputError: a latitude is not within -90..90, or the grid does not reach the ground.
    """
    if grid.b_half[-1] != 1 or grid.a_half[-1] != 0:
        raise InputError(f"grid {grid.name} ends above the ground: its last half-level must have a = 0, b = 1")
    lat = np.degrees(np.arcsin(rng.uniform(-1, 1, n))) if latitude is None else np.full(n, latitude, float)
    if (np.abs(lat) > 90).any():
        raise InputError(f"latitude must be within -90..90 degrees, not {lat[np.abs(lat) > 90][0]:g}")
    day = rng.uniform(0, 365, n) if doy is None else np.full(n, doy, float)
    site = _Site(lat[:, None], day[:, None])

    elevation = _elevation(n, rng)  # m
    t_sea_level = _sea_level_temperature(site, rng)
    ps = _surface_pressure(site, elevation, t_sea_level, rng)
    half = grid.half_pressure(ps[:, 0])
    pressure = (half[:, 1:] + half[:, :-1]) / 2
    z = SCALE_HEIGHT * np.log(1e5 / pressure)

    t = _temperature(site, t_sea_level, z, rng)
    u = _tropospheric_wind(site, z, rng)
    u += _middle_atmosphere_wind(site, z, rng)
    u += _equatorial_oscillations(site, z, rng)
    u *= np.full(n, mean_flow, float)[:, None]
    v = np.zeros_like(u)
    strength = np.full(n, waves, float)[:, None]
    for wave in (_planetary_wave, _synoptic_noise, _tide, _inertia_gravity_waves):
        du, dv, dt = wave(site, z, rng)
        u += strength * du
        v += strength * dv
        t += strength * dt
    np.clip(t, 120.0, 330.0, out=t)

    surface = config.GRAVITY * elevation[:, 0]
    phi = geopotential(t, half, surface)
    _, alpha = hydrostatic_weights(half[:, -2:])
    kept = grid.launch_level() if cut_at_launch else grid.n_levels
    return Columns(
        u=u[:, :kept],
        v=v[:, :kept],
        t=t[:, :kept],
        half_pressure=half[:, : kept + 1],
        pressure=pressure[:, :kept],
        geopotential=phi[:, :kept],
        surface_pressure=ps[:, 0],
        surface_geopotential=surface,
        lowest_geopotential=config.GAS_CONSTANT * t[:, -1] * alpha[:, 0],
        lat=lat,
        doy=day,
    )


class _Site:
    """Place and season of the columns; all (n, 1).

    Attributes:
        lat: degrees north.
        doy: day of year.
        al: distance from the equator, degrees.
        sl: sine of that distance.
        side: sign of the hemisphere.
        winter: +1 in the extratropics' local midwinter, -1 in midsummer, 0 at the equator and the equinoxes.
        deep_winter: its positive part.
        deep_summer: its negative part, as a positive number.
    """

    def __init__(self, lat: Array, doy: Array) -> None:
        self.lat = lat
        self.doy = doy
        self.al: Array = np.abs(lat)
        self.sl: Array = np.sin(np.radians(self.al))
        self.side: Array = np.sign(lat)
        self.winter: Array = np.cos(2 * np.pi * (doy - 15) / 365) * np.tanh(lat / 12)
        self.deep_winter: Array = np.maximum(self.winter, 0)
        self.deep_summer: Array = np.maximum(-self.winter, 0)

    def normal(self, rng: np.random.Generator, mean: float, std: float) -> Array:
        """One Gaussian number per column."""
        return rng.normal(mean, std, self.lat.shape)

    def phase(self, rng: np.random.Generator) -> Array:
        """One random phase per column, rad."""
        return rng.uniform(0, 2 * np.pi, self.lat.shape)


def _gauss(x: Array, width: Array | float) -> Array:
    return np.exp(-((x / width) ** 2))


def _logistic(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _elevation(n: int, rng: np.random.Generator) -> Array:
    """30 % land with log-normal height, m."""
    land = rng.random((n, 1)) < 0.3
    return np.where(land, np.minimum(np.exp(rng.normal(5.6, 1.2, (n, 1))), 5000.0), 0.0)


def _sea_level_temperature(site: _Site, rng: np.random.Generator) -> Array:
    noise = site.normal(rng, 0, 4) * site.sl
    return 301 - 42 * site.sl**2 - 14 * site.winter * site.sl**1.5 + noise


def _surface_pressure(site: _Site, elevation: Array, t_sea_level: Array, rng: np.random.Generator) -> Array:
    """Sea-level pressure with synoptic noise, reduced hydrostatically to the ground, Pa."""
    sea_level = 101000 + site.normal(rng, 0, 900) * (0.4 + site.sl)
    layer_mean = t_sea_level - 0.0025 * elevation
    return sea_level * np.exp(-config.GRAVITY * elevation / (config.GAS_CONSTANT * layer_mean))


def _temperature(site: _Site, t_sea_level: Array, z: Array, rng: np.random.Generator) -> Array:
    """Piecewise linear profile with rounded kinks at the tropopause, stratopause and mesopause."""
    winter, summer, sl = site.deep_winter, site.deep_summer, site.sl
    tropopause = 16.7 - 8 * _logistic((site.al - 37) / 6) + site.normal(rng, 0, 0.7) - 0.6 * site.winter * sl
    lower = np.maximum(tropopause + 2.5, 21 + 2 * winter * sl)
    middle = np.full_like(sl, 31.0)
    stratopause = 47 + 3 * site.winter * sl
    mesosphere = stratopause + 3
    mesopause = 88 - 3 * summer * sl

    lapse = 6.45 - 0.8 * winter * sl**2
    t_tropopause = t_sea_level - lapse * tropopause
    polar = sl**2
    t_lower = 212 + site.normal(rng, 0, 3) - 18 * winter * polar + 13 * summer * polar - 5 * _gauss(site.lat, 20)
    t_middle = 227 + site.normal(rng, 0, 3) - 14 * winter * polar + 12 * summer * polar
    t_stratopause = 269 + site.normal(rng, 0, 4) + 14 * summer * sl - 8 * winter * sl
    t_mesopause = 190 + site.normal(rng, 0, 6) + 20 * site.winter * sl - 12 * summer * sl

    kinks = (
        (tropopause, 0.8, (t_lower - t_tropopause) / (lower - tropopause)),
        (lower, 1.5, (t_middle - t_lower) / (middle - lower)),
        (middle, 2.0, (t_stratopause - t_middle) / (stratopause - middle)),
        (stratopause, 2.0, np.zeros_like(sl)),
        (mesosphere, 2.0, (t_mesopause - t_stratopause) / (mesopause - mesosphere)),
        (mesopause, 2.0, np.ones_like(sl)),
    )
    t = t_sea_level - lapse * z
    gradient = -lapse
    for height, width, above in kinks:
        bend = np.logaddexp(0, (z - height) / width) - np.logaddexp(0, -height / width)
        t += (above - gradient) * width * bend
        gradient = above
    return t


def _tropospheric_wind(site: _Site, z: Array, rng: np.random.Generator) -> Array:
    """Subtropical jet, eddy-driven jet and trade winds."""
    latitude = 36 - 5 * site.winter + site.normal(rng, 0, 3)
    strength = 36 + 14 * site.winter + site.normal(rng, 0, 6)
    u = strength * _gauss(site.al - latitude, 14) * _gauss(z - 11.5, np.where(z < 11.5, 6.0, 5.0))
    u += (15 + site.normal(rng, 0, 6)) * _gauss(site.al - 58, 14) * _gauss(z - 9, 7)
    u -= 7 * _gauss(site.lat, 14) * _gauss(z - 8, 9)
    return u


def _middle_atmosphere_wind(site: _Site, z: Array, rng: np.random.Generator) -> Array:
    """Winter vortex with its reversal at the mesopause, and summer easterlies."""
    # weak and reversed vortices stand for sudden warmings
    strength = site.deep_winter * np.clip(site.normal(rng, 1, 0.35), -0.2, 1.8)
    winter_width = _gauss(site.al - 62 + 12 * np.clip((z - 30) / 35, 0, 1), 20)
    u = strength * winter_width * (75 * _gauss(z - 60, np.where(z < 60, 24.0, 15.0)) - 26 * _gauss(z - 92, 9))
    easterlies = -66 * site.deep_summer * (1 + site.normal(rng, 0, 0.12))
    summer_width = _gauss(site.al - 45 + 5 * np.clip((z - 40) / 30, 0, 1), 30)
    u += easterlies * summer_width * _gauss(z - 59, np.where(z < 59, 24.0, 16.0))
    return u


def _equatorial_oscillations(site: _Site, z: Array, rng: np.random.Generator) -> Array:
    """Quasi-biennial oscillation in a random phase, and the semi-annual oscillation in that of the season."""
    envelope = _logistic((z - 18) / 1.5) * _logistic((36 - z) / 3)
    qbo = -12 + 25 * np.sin(2 * np.pi * z / 27 + site.phase(rng))
    season = np.cos(4 * np.pi * (site.doy - 15) / 365)
    sao = -(28 * season + 14) * _gauss(z - 49, 8) + 25 * season * _gauss(z - 79, 8)
    u: Array = _gauss(site.lat, 13) * envelope * qbo
    u += _gauss(site.lat, 17) * sao
    return u


def _planetary_wave(site: _Site, z: Array, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Quasi-stationary wave of the winter stratosphere, tilting with height."""
    strength = np.abs(site.normal(rng, 18, 8))
    amplitude = site.deep_winter * _gauss(site.al - 60, 18) * strength * _gauss(z - 50, 22)
    phase = site.phase(rng) + 2 * np.pi * z / 55
    return (
        0.7 * amplitude * np.cos(phase + 0.6),
        amplitude * np.sin(phase),
        WAVE_TEMPERATURE * amplitude * np.cos(phase),
    )


def _synoptic_noise(site: _Site, z: Array, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Weather of the day: wind around the jets, temperature in the lower troposphere."""
    shape = _gauss(z - 9.5, 6) * (0.3 + np.abs(np.sin(2 * np.radians(site.lat))))
    return (
        site.normal(rng, 0, 8) * shape,
        site.normal(rng, 0, 12) * shape,
        site.normal(rng, 0, 3) * site.sl * _gauss(z - 4, 6),
    )


def _tide(site: _Site, z: Array, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Migrating tide of 27 km vertical wavelength in a random phase, growing up to 90 km."""
    strength = 20 * np.exp(-np.abs(site.normal(rng, 0, 0.35)))
    amplitude = strength * np.exp(np.minimum((z - 90) / 22, 0))
    phase = 2 * np.pi * z / 27 + site.phase(rng)
    return (
        amplitude * np.cos(phase),
        amplitude * np.sin(phase + 0.2) * site.side,
        WAVE_TEMPERATURE * amplitude * np.sin(phase),
    )


def _inertia_gravity_waves(site: _Site, z: Array, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Resolved inertia-gravity waves: elliptically polarised, any orientation, growing with height."""
    growth = 1.2 * np.minimum(np.exp((z - 12) / 18), 7)
    u, v, t = (np.zeros_like(z) for _ in range(3))
    for _ in range(N_INERTIA_GRAVITY_WAVES):
        wavelength = np.exp(rng.uniform(np.log(3), np.log(22), site.lat.shape))  # km
        amplitude = growth * np.abs(site.normal(rng, 0, 1)) * np.sqrt(wavelength / 10)
        phase = 2 * np.pi * z / wavelength + site.phase(rng)
        orientation = site.phase(rng)
        out_of_phase = amplitude * np.sin(phase)
        along, across = amplitude * np.cos(phase), 0.6 * site.side * out_of_phase
        u += np.cos(orientation) * along - np.sin(orientation) * across
        v += np.sin(orientation) * along + np.cos(orientation) * across
        t += WAVE_TEMPERATURE * out_of_phase
    return u, v, t
