"""One-dimensional equatorial column that steps its wind with the drag of the scheme or of an emulator.

The drag, diffusion and upwelling alone make the wind of the lower stratosphere oscillate, as in the
quasi-biennial oscillation (Holton and Lindzen 1972, J. Atmos. Sci. 29, 1076-1080)::

    du/dt = X(u) + d/dz (K du/dz) - w* du/dz - u / tau(z)

with slow waves only, so faster and weaker than the real one. It is a sharp test of an emulator: errors feed
back for years, the wind must stay bounded, and the period must come out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ai4sim.errors import InputError
from weather_forecast.gwd import config
from weather_forecast.gwd.columns import SCALE_HEIGHT, generate_columns
from weather_forecast.gwd.layout import ColumnLayout
from weather_forecast.gwd.levels import L91, VerticalGrid
from weather_forecast.gwd.scheme import gravity_wave_drag
from weather_forecast.gwd.spectrum import SchemeParameters

Array = NDArray[Any]
Emulator = Callable[[Array], Array]
"""Input vectors (n, n_inputs) in physical units to tendencies (n, n_outputs) in m s-2."""

MAX_CREDIBLE_WIND = 1000.0  # m/s; beyond it a run has failed and stops


@dataclass(frozen=True)
class ColumnRun:
    """Settings of a run; one column per upwelling.

    Args:
        years: length, years of 365 days.
        time_step: s; drag is explicit, and steps of 12 h double the period of the oscillation.
        upwelling: vertical velocity w* of each column, m/s.
        diffusivity: K, m2/s.
        damping: layers (bottom km, top km, time scale in days) in which the wind is damped to zero; they
            stand for the troposphere below and the semi-annual oscillation above.
        initial_amplitude: of the initial wind, m/s.
        output_interval: steps between stored winds.
        grid: vertical grid down to the surface; the run has its levels down to the launch level.

    Raises:
        InputError: a value out of range; names the field.
    """

    years: float = 3.0
    time_step: float = 21600.0
    upwelling: tuple[float, ...] = (0.0, 2e-4, 4e-4)
    diffusivity: float = 0.3
    damping: tuple[tuple[float, float, float], ...] = (
        (0.0, 15.5, 5.0),
        (42.0, 52.0, 40.0),
        (52.0, np.inf, 5.0),
    )
    initial_amplitude: float = 15.0
    output_interval: int = 4
    grid: VerticalGrid = L91

    def __post_init__(self) -> None:
        for name in ("years", "time_step", "output_interval"):
            if getattr(self, name) <= 0:
                raise InputError(f"ColumnRun: {name} must be positive, not {getattr(self, name)!r}")
        if not self.upwelling:
            raise InputError("ColumnRun: upwelling must name at least one column's vertical velocity")
        if self.diffusivity < 0:
            raise InputError(f"ColumnRun: diffusivity must not be negative, not {self.diffusivity!r}")
        if any(bottom >= top or days <= 0 for bottom, top, days in self.damping):
            raise InputError("ColumnRun: damping must have layers (bottom km, top km, days): bottom < top, days > 0")

    @property
    def n_steps(self) -> int:
        """Number of time steps."""
        return round(self.years * 365 * config.SECONDS_PER_DAY / self.time_step)


def simulate_column(drag: Emulator, run: ColumnRun | None = None, layout: ColumnLayout | None = None) -> xr.Dataset:
    """Step equatorial columns forward with the given drag.

    Temperature is the generator's equatorial mean and does not change; the meridional wind is zero. Drag is
    taken explicitly, the linear terms implicitly (backward Euler). A run whose wind leaves all bounds stops;
    the winds that are missing then are NaN.

    Args:
        drag: the scheme (:func:`scheme_as_emulator`) or an emulator.
        run: settings.
        layout: of the vectors that ``drag`` takes and gives; by default that of the public data on the run's
            grid.

    Returns:
        ``u`` (column, time, level) in m/s with the coordinates ``time`` (days), ``pressure`` (hPa),
        ``height`` (km, log-pressure) and ``upwelling`` (m/s).

    Raises:
        InputError: the layout has another number of levels than the grid down to its launch level.
        ValueError: the drag's result has another shape.
    """
    run = run or ColumnRun()
    n_levels = run.grid.launch_level()
    layout = layout or ColumnLayout(n_levels=n_levels)
    if layout.n_levels != n_levels:
        raise InputError(
            f"the layout has {layout.n_levels} levels, but grid {run.grid.name} has {n_levels} down to its launch level"
        )
    x, pressure = _mean_equatorial_input(run, layout)
    height = SCALE_HEIGHT * np.log(1e5 / pressure)  # km
    u = np.tile(_initial_wind(height, run.initial_amplitude), (len(run.upwelling), 1))
    x = np.tile(x, (len(u), 1))
    steppers = np.stack([_implicit_step(height * 1000, run, w) for w in run.upwelling])

    n_stored = run.n_steps // run.output_interval + 1
    stored = np.full((len(u), n_stored, n_levels), np.nan)
    stored[:, 0] = u
    for step in range(1, run.n_steps + 1):
        x[:, layout.slice_of("u")] = u
        tendency = np.asarray(drag(x.astype(np.float32)))
        if tendency.shape != (len(u), layout.n_outputs):
            raise ValueError(f"the drag gave an array of shape {tendency.shape}, expected {(len(u), layout.n_outputs)}")
        u = u + run.time_step * tendency[:, layout.slice_of("dudt")].astype(np.float64)
        u = np.matmul(steppers, u[..., None])[..., 0]
        if not np.abs(u).max() < MAX_CREDIBLE_WIND:
            break
        if step % run.output_interval == 0:
            stored[:, step // run.output_interval] = u

    days = np.arange(n_stored) * run.output_interval * run.time_step / config.SECONDS_PER_DAY
    return xr.Dataset(
        {"u": (("column", "time", "level"), stored, {"long_name": "zonal wind", "units": "m s-1"})},
        coords={
            "time": ("time", days, {"long_name": "time since the start", "units": "days"}),
            "level": ("level", np.arange(1, n_levels + 1)),
            "pressure": ("level", pressure / 100, {"long_name": "pressure", "units": "hPa"}),
            "height": ("level", height, {"long_name": "log-pressure height", "units": "km"}),
            "upwelling": ("column", list(run.upwelling), {"long_name": "upwelling", "units": "m s-1"}),
        },
    )


def oscillation(section: xr.Dataset, pressure: float = 9.0, spin_up: float = 365.0) -> xr.Dataset:
    """Period and strength of the oscillation at one pressure, and the largest wind anywhere.

    Args:
        section: result of :func:`simulate_column`.
        pressure: hPa.
        spin_up: days at the start that do not count for period and amplitude.

    Returns:
        Per column ``half_period`` (days; mean time between zero crossings of the wind about its mean, NaN
        with less than three of them), ``amplitude`` (m/s; half the range) and ``max_wind`` (m/s; infinite
        when the run failed).
    """
    log_p = np.log(section.pressure.values)
    late = section.u.values[:, section.time.values >= spin_up]
    days = section.time.values[section.time.values >= spin_up]
    series = np.apply_along_axis(lambda u: np.interp(np.log(pressure), log_p, u), -1, late)
    winds = np.abs(section.u.values).max(axis=(1, 2))
    return xr.Dataset(
        {
            "half_period": ("column", [_half_period(days, u) for u in series], {"units": "days"}),
            "amplitude": ("column", np.ptp(series, axis=1) / 2, {"units": "m s-1"}),
            "max_wind": ("column", np.where(np.isfinite(winds), winds, np.inf), {"units": "m s-1"}),
        },
        coords={"upwelling": section.upwelling},
    )


def scheme_as_emulator(
    parameters: SchemeParameters | None = None,
    *,
    grid: VerticalGrid = L91,
    layout: ColumnLayout | None = None,
    latitude: float | None = 0.0,
) -> Emulator:
    """Return the scheme in an emulator's place.

    Args:
        parameters: of the scheme; by default its own defaults.
        grid: vertical grid down to the surface, which gives half-level pressure.
        layout: of the input vectors.
        latitude: of all columns, degrees north; None for no tropical reduction.
    """
    layout = layout or ColumnLayout(n_levels=grid.launch_level())
    levels = grid.truncate(layout.n_levels)

    def drag(x: Array) -> Array:
        u, v, t = (x[:, layout.slice_of(name)] for name in ("u", "v", "t"))
        half_pressure = levels.half_pressure(x[:, layout.slice_of("surface_pressure")][:, 0])
        result = gravity_wave_drag(u, v, t, half_pressure, latitude=latitude, parameters=parameters)
        return np.concatenate([result.dudt, result.dvdt], axis=1)

    return drag


def _mean_equatorial_input(run: ColumnRun, layout: ColumnLayout) -> tuple[Array, Array]:
    """Generator's mean column at the equator: input vector (1, n_inputs) and pressures (L,) in Pa."""
    columns = generate_columns(512, np.random.default_rng(0), grid=run.grid, latitude=0.0)
    x = columns.inputs(layout).mean(axis=0, dtype=np.float64, keepdims=True)
    x[:, layout.slice_of("v")] = 0
    surface_pressure = x[:, layout.slice_of("surface_pressure")][0, 0]
    return x, run.grid.full_pressure(surface_pressure)[: layout.n_levels]


def _initial_wind(height: Array, amplitude: float) -> Array:
    """Wave of the QBO's vertical wavelength, 27 km, confined to the lower stratosphere; heights in km."""
    return amplitude * np.sin(2 * np.pi * height / 27) * np.exp(-(((height - 27) / 10) ** 2))


def _implicit_step(z: Array, run: ColumnRun, upwelling: float) -> Array:
    """Matrix (L, L) of a backward Euler step of diffusion, upwelling and damping; z (L,) in m."""
    n = z.size
    operator = np.zeros((n, n))
    gap = z[:-1] - z[1:]
    for k in range(1, n - 1):
        width = (z[k - 1] - z[k + 1]) / 2
        above, below = run.diffusivity / (gap[k - 1] * width), run.diffusivity / (gap[k] * width)
        advection = upwelling / (z[k - 1] - z[k + 1])
        operator[k, k - 1 : k + 2] = above - advection, -above - below, below + advection
    rate = np.zeros(n)
    for bottom, top, days in run.damping:
        rate[(z >= bottom * 1000) & (z < top * 1000)] = 1 / (days * config.SECONDS_PER_DAY)
    return np.linalg.inv(np.eye(n) - run.time_step * (operator - np.diag(rate)))


def _half_period(days: Array, u: Array) -> float:
    u = u - u.mean()
    before = np.flatnonzero(u[:-1] * u[1:] < 0)
    if before.size < 3:
        return float("nan")
    share = u[before] / (u[before] - u[before + 1])
    crossings = days[before] + share * (days[before + 1] - days[before])
    return float((crossings[-1] - crossings[0]) / (before.size - 1))
