"""Warner-McIntyre-Scinocca scheme of non-orographic gravity-wave drag in NumPy.

Hydrostatic, non-rotating form: Scinocca 2003 (J. Atmos. Sci. 60, 667-682), with the settings of Orr et al.
2010 (J. Climate 23, 5905-5926). A spectrum of waves leaves the launch level in every azimuth. On its way up
each bin of phase speed loses flux where its speed meets the wind (critical level) and where its amplitude
would exceed the saturation curve; the air takes up the momentum that is lost.

The loop over levels does five operations per spectral bin. With ``h = F c^(2-p) / (A C*)``, F the flux
density, A the launch amplitude and e = 3 - p, Scinocca's saturation bound reads
``h^(1/e) <= (rho/N)^(1/e) (c - U)``: linear in c, and negative exactly for the bins that met a critical
level. Clipping h^(1/e) between 0 and that line therefore is both saturation and critical-level filter.
"""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ai4sim.errors import InputError
from weather_forecast.gwd import config
from weather_forecast.gwd.levels import hydrostatic_weights
from weather_forecast.gwd.spectrum import (
    SchemeParameters,
    azimuths,
    launch_flux,
    launch_spectrum,
    phase_speeds,
)

__all__ = ["Drag", "SchemeParameters", "available_cores", "gravity_wave_drag"]

Array = NDArray[Any]

# Columns are worked on in pieces: large enough that NumPy's cost per call (and, with threads, the handing
# over of the interpreter lock) is small, small enough that the spectral arrays stay in the cache that the
# cores share.
_WORKING_SET = 3 * 1024**2  # bytes of the four (speed, azimuth, column) arrays together
_FEW_PAIRS = 256  # of azimuth and column


@dataclass(frozen=True, eq=False)
class Drag:
    """Accelerations by breaking waves, and on request what the scheme computed on the way.

    Attributes:
        dudt: (n, L) zonal tendency, m s-2.
        dvdt: (n, L) meridional tendency, m s-2.
        n_floored: number of half-levels whose N2 lay below the floor.
        flux: (n, n_azimuths, L) momentum flux at the half-levels 1..L, Pa, after the cap; diagnostics only.
        critical: (n, n_azimuths, L) flux lost at critical levels at half-levels 1..L, Pa; diagnostics only.
        buoyancy_frequency: (n, L) N at half-levels 1..L, s-1; diagnostics only.
        density: (n, L) at half-levels 1..L, kg m-3; diagnostics only.
    """

    dudt: Array
    dvdt: Array
    n_floored: int
    flux: Array | None = None
    critical: Array | None = None
    buoyancy_frequency: Array | None = None
    density: Array | None = None


def gravity_wave_drag(
    u: Array,
    v: Array,
    t: Array,
    half_pressure: Array,
    *,
    latitude: ArrayLike | None = None,
    geopotential: Array | None = None,
    parameters: SchemeParameters | None = None,
    dtype: DTypeLike = np.float64,
    threads: int | None = None,
    diagnostics: bool = False,
) -> Drag:
    """Accelerations of n columns by non-orographic gravity waves.

    The result of a column does not depend, to the last bit, on the other columns or on the number of threads.

    Args:
        u: (n, L) zonal wind, m/s, levels 1..L with L the launch level.
        v: (n, L) meridional wind, m/s.
        t: (n, L) temperature, K.
        half_pressure: (n, L+1) pressure at half-levels 1..L+1, Pa.
        latitude: (n,) or one value, degrees north; without it the launch flux has no tropical reduction.
        geopotential: (n, L) m2 s-2; without it the hydrostatic one of dry air.
        parameters: settings; :class:`SchemeParameters` has the defaults.
        dtype: precision of the computation and the result, float64 or float32.
        threads: threads that share the columns; by default one per available core.
        diagnostics: also return fluxes, critical-level losses, N and density.

    Raises:
        InputError: a temperature is not positive or half-level pressure does not increase downward; names the
            column and level.
        ValueError: arrays whose shapes do not fit, fewer than three levels, or another dtype.
    """
    parameters = parameters or SchemeParameters()
    dtype = np.dtype(dtype)
    if dtype not in (np.float64, np.float32):
        raise ValueError(f"dtype must be float64 or float32, not {dtype}")
    fields = {"u": u, "v": v, "t": t, "half_pressure": half_pressure}
    if geopotential is not None:
        fields["geopotential"] = geopotential
    fields = {name: np.asarray(values) for name, values in fields.items()}
    shape = fields["u"].shape
    if len(shape) != 2 or shape[1] < 3:
        raise ValueError(f"u must have the shape (columns, levels) with at least 3 levels, not {shape}")
    n, n_levels = shape
    for name, values in fields.items():
        expected = (n, n_levels + (name == "half_pressure"))
        if values.shape != expected:
            raise ValueError(f"{name} has the shape {values.shape}; with u of shape {shape} it must be {expected}")
    if latitude is None:
        launched = np.full(n, parameters.launch_flux)
    else:
        launched = launch_flux(np.broadcast_to(np.asarray(latitude, dtype=np.float64), (n,)), parameters)

    profile = (n, n_levels)
    per_azimuth = (n, parameters.n_azimuths, n_levels)
    shapes: dict[str, tuple[int, ...]] = {"dudt": profile, "dvdt": profile}
    if diagnostics:
        shapes |= {
            "flux": per_azimuth,
            "critical": per_azimuth,
            "buoyancy_frequency": profile,
            "density": profile,
        }
    out = {name: np.empty(shape, dtype) for name, shape in shapes.items()}

    per_column = 4 * parameters.n_azimuths * parameters.n_speeds * dtype.itemsize
    width = max(8, _WORKING_SET // per_column // 8 * 8)
    starts = range(0, n, width)
    threads = max(1, min(threads or available_cores(), len(starts)))

    def work(first: int) -> int:
        chunk = _Chunk(min(width, max(n, 2)), n_levels, parameters, dtype)
        return sum(chunk.run(fields, launched, out, start, min(start + width, n)) for start in starts[first::threads])

    if threads == 1:
        n_floored = work(0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            n_floored = sum(pool.map(work, range(threads)))
    return Drag(n_floored=n_floored, **out)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Chunk:
    """Work arrays for the columns that are computed together, with columns on the last axis.

    Sums over speeds run over the first axis, row by row, so that a column's result cannot depend on its
    place. NumPy would sum along memory, in another order, if there were one column only: hence two at least.
    """

    def __init__(self, width: int, n_levels: int, parameters: SchemeParameters, dtype: np.dtype[Any]) -> None:
        self.parameters = parameters
        self.dtype = dtype
        self.n_levels = n_levels
        c, dc = phase_speeds(parameters)
        weight = dc * c ** (parameters.frequency_exponent - 2)
        self.c = c.astype(dtype)[:, None]
        self.weight = weight.astype(dtype)[:, None]
        self.cos, self.sin, self.factor = azimuths(parameters.n_azimuths)
        pairs = parameters.n_azimuths * width
        self.rising_c = np.append(self.c[::-1, 0], np.inf).astype(dtype)
        self.spectral = np.empty((3, parameters.n_speeds * pairs), dtype)
        # NumPy compares with an array several times as fast as with a number
        self.zeros = np.zeros(parameters.n_speeds * pairs, dtype)
        self.profiles = np.empty((6, n_levels * pairs), dtype)

    def run(self, fields: dict[str, Array], launched: Array, out: dict[str, Array], start: int, stop: int) -> int:
        """Compute the columns start..stop-1, write them to ``out`` and return the number of floored N2."""
        rows: slice | list[int] = slice(start, stop) if stop - start > 1 else [start, start]
        kept = slice(0, stop - start)
        column = {name: np.ascontiguousarray(x[rows].T, dtype=self.dtype) for name, x in fields.items()}
        self._check(column, start)
        half = column["half_pressure"]
        density, n, floored = self._stratification(column)

        shape = (self.n_levels, self.parameters.n_azimuths, half.shape[1])
        wind, full_wind, flux, critical, speed, scratch = (x[: math.prod(shape)].reshape(shape) for x in self.profiles)
        self._project(column["u"], wind, full_wind, self.cos, first=True)
        self._project(column["v"], wind, full_wind, self.sin, first=False)
        self._propagate(wind, density, n, flux, critical, speed, scratch)
        scale = launched[rows].astype(self.dtype) / flux[-1, 0]
        flux[1:] *= scale
        critical[1:] *= scale
        if self.parameters.cap != "none":
            self._cap(flux, critical, speed, full_wind, half, scratch)
        if self.parameters.lid == "open":
            flux[0] = flux[1]
        else:
            flux[0] = 0

        per_mass = config.GRAVITY / np.diff(half, axis=0)
        for name, direction in (("dudt", self.cos), ("dvdt", self.sin)):
            tendency = np.diff(self._component(flux, direction), axis=0) * per_mass
            out[name][start:stop] = tendency[:, kept].T
        if "flux" in out:
            out["flux"][start:stop] = flux[..., kept].transpose(2, 1, 0)
            out["critical"][start:stop] = critical[..., kept].transpose(2, 1, 0)
            out["buoyancy_frequency"][start:stop] = n[:, kept].T
            out["density"][start:stop] = density[:, kept].T
        return int(floored[:, kept].sum())

    def _check(self, column: dict[str, Array], start: int) -> None:
        """Raise InputError for the first column that no atmosphere can have."""
        t, half = column["t"], column["half_pressure"]
        for valid, name, values, place, expected in (
            (t > 0, "t", t, "K at level", "temperature must be positive"),
            (
                half[1:] > half[:-1],
                "half_pressure",
                half[1:],
                "Pa below level",
                "pressure must increase from each half-level to the next, from the top downward",
            ),
        ):
            if not valid.all():
                i, k = (int(index) for index in np.argwhere(~valid.T)[0])
                raise InputError(f"{name} of column {start + i}: {values[k, i]:g} {place} {k + 1}; {expected}")

    def _stratification(self, column: dict[str, Array]) -> tuple[Array, Array, Array]:
        """Density, N and where N2 was floored, at the half-levels 1..L."""
        t, half = column["t"], column["half_pressure"]
        t_half = _to_half_levels(t)
        density = half[:-1] / (config.GAS_CONSTANT * t_half)
        if "geopotential" in column:
            thickness = -np.diff(column["geopotential"], axis=0)
        else:
            r, alpha = hydrostatic_weights(half, axis=0)
            rt = config.GAS_CONSTANT * t
            thickness = (rt * (r - alpha))[1:] + (rt * alpha)[:-1]
        n2 = np.empty_like(t)
        np.divide(np.diff(t, axis=0), thickness, out=n2[1:])
        n2[1:] = config.GRAVITY**2 / config.HEAT_CAPACITY / t_half[1:] * (1 - config.HEAT_CAPACITY * n2[1:])
        n2[0] = n2[1]
        return (
            density,
            np.sqrt(np.maximum(n2, self.parameters.min_stability)),
            n2[1:] < self.parameters.min_stability,
        )

    def _project(self, wind: Array, half_wind: Array, full_wind: Array, direction: Array, *, first: bool) -> None:
        """Add one wind component (L, w), relative to the launch half-level, to the azimuths' winds."""
        at_half = _to_half_levels(wind)
        launch = at_half[-1]
        half_circle = direction.size // 2
        for source, target in ((at_half - launch, half_wind), (wind - launch, full_wind)):
            for i, cosine in enumerate(direction[:half_circle].astype(self.dtype)):
                if first:
                    np.multiply(source, cosine, out=target[:, i])
                else:
                    target[:, i] += source * cosine
                    np.negative(target[:, i], out=target[:, i + half_circle])

    def _propagate(
        self,
        wind: Array,
        density: Array,
        n: Array,
        flux: Array,
        critical: Array,
        speed: Array,
        scratch: Array,
    ) -> None:
        """Carry the spectrum from the launch level to the top.

        Args:
            wind: (L, n_azimuths, w) at half-levels, relative to the launch half-level.
            density: (L, w) at half-levels.
            n: (L, w) buoyancy frequency at half-levels.
            flux: receives the momentum flux at half-levels, in units of A C*.
            critical: receives the flux lost at critical levels at each half-level, likewise.
            speed: receives the flux-weighted mean phase speed of the last critical-level loss below.
            scratch: overwritten.
        """
        p = self.parameters
        n_levels, n_azimuths, width = wind.shape
        power = 3 - p.frequency_exponent
        shape = (p.n_speeds, n_azimuths * width)
        root, bound, flux_in_bin = (x[: math.prod(shape)].reshape(shape) for x in self.spectral)
        zeros = self.zeros[: math.prod(shape)].reshape(shape)
        wind, flux, critical, speed, scratch = (x.reshape(n_levels, -1) for x in (wind, flux, critical, speed, scratch))

        slope = np.tile((density / n) ** self.dtype.type(1 / power), n_azimuths)
        offset = np.multiply(wind, slope, out=scratch)
        launch = launch_spectrum(self.c, density[-1], n[-1], p) / p.saturation
        root[:] = np.tile((launch * self.c ** (2 - p.frequency_exponent)) ** (1 / power), n_azimuths)
        highest = np.full(shape[1], p.min_speed, self.dtype)  # wind met so far
        slowest = highest.copy()  # speed of the slowest bin that has not met a critical level
        critical.fill(0)
        speed[-1] = 0
        for k in range(n_levels - 1, 0, -1):
            if k < n_levels - 1:
                speed[k] = speed[k + 1]
                np.maximum(highest, wind[k], out=highest)
                # nothing is lost where no bin is filtered: few pairs are treated all, faster than picked
                pairs: Any = slice(None)
                if slope.shape[1] > _FEW_PAIRS:
                    filtered = highest > slowest
                    filtered[:2] = True  # two at least, see the class
                    pairs = np.flatnonzero(filtered)
                wind_met = highest[pairs]
                lost = flux_in_bin[:, pairs]
                lost *= self.c < wind_met
                loss = np.add.reduce(lost, axis=0)
                lost *= self.c
                moment = np.add.reduce(lost, axis=0)
                critical[k, pairs] = loss
                speed[k, pairs] = np.divide(moment, loss, out=speed[k, pairs], where=loss > 0)
                slowest[pairs] = self.rising_c[np.searchsorted(self.rising_c, wind_met)]

                np.multiply(self.c, slope[k], out=bound)
                bound -= offset[k]
                np.minimum(root, bound, out=root)
                np.maximum(root, zeros, out=root)
            np.multiply(root, root if power == 2 else np.sqrt(root), out=flux_in_bin)
            flux_in_bin *= self.weight
            np.add.reduce(flux_in_bin, axis=0, out=flux[k])

    def _cap(self, flux: Array, critical: Array, speed: Array, full_wind: Array, half: Array, scratch: Array) -> None:
        """Bound the deposition at critical levels by what one time step allows; hand the rest downward."""
        sign = 1 if self.parameters.cap == "physical" else -1
        full = (half[1:] + half[:-1]) / 2
        mass = np.diff(full, axis=0) * (2 * sign / (config.GRAVITY * self.parameters.time_step))
        room = np.subtract(speed[1:-1], full_wind[2:], out=scratch[1:-1])
        room *= mass[1:, None]
        carry = np.zeros_like(flux[0])
        for k in range(1, len(flux) - 1):
            carry += critical[k]
            taken = np.minimum(carry, room[k - 1], out=room[k - 1])
            np.maximum(taken, 0, out=taken)
            carry -= taken
            flux[k + 1] -= carry

    def _component(self, flux: Array, direction: Array) -> Array:
        """Zonal or meridional flux (L+1, w) from the fluxes per azimuth (L, n_azimuths, w), Pa."""
        stress = np.zeros((self.n_levels + 1, flux.shape[-1]), self.dtype)
        half_circle = direction.size // 2
        for i, weight in enumerate((self.factor * direction[:half_circle]).astype(self.dtype)):
            # opposite azimuths first, so that equal fluxes cancel exactly
            stress[:-1] += weight * (flux[:, i] - flux[:, i + half_circle])
        return stress


def _to_half_levels(x: Array) -> Array:
    """Mean of the levels above and below each half-level 1..L; half-level 1 takes the value of level 1."""
    half = np.empty_like(x)
    half[0] = x[0]
    np.add(x[1:], x[:-1], out=half[1:])
    half[1:] *= 0.5
    return half
