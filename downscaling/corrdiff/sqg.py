"""Surface quasi-geostrophic turbulence: the mesoscale flow of the demo's weather.

Buoyancy at the ground, of a fluid with uniform potential vorticity above it, is advected by the flow that it induces
(Blumen 1978, J. Atmos. Sci. 35:774; Held et al. 1995, J. Fluid Mech. 282:1). With w = b / N, m/s:

    dw/dt + J(psi, w) = D + F,   K psi^ = w^,   u = -dpsi/dy,   v = dpsi/dx,   J(psi, w) = u dw/dx + v dw/dy.

So wind and w have the same spectrum, near k^-5/3 where w cascades to small scales. Without D and F the mean of w,
<w²> and <w psi> are conserved.

Pseudo-spectral on a doubly periodic square, products on the grid without aliasing by the 2/3 truncation, Runge-Kutta
steps of fourth order. Spectra have only the columns that the truncation keeps, ``(n, columns)`` of the half plane of
the real transform; they are amplitudes of the field, without a factor on the way back to the grid.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from downscaling.corrdiff.periodic import Array, Spectrum, random_phases, wave_indices

SPACING = 3000.0  # m
CORIOLIS = 1e-4  # s-1
STABILITY = 1e-2  # buoyancy frequency N, s-1
REFERENCE_TEMPERATURE = 300.0  # K
GRAVITY = 9.81  # m s-2
HOUR = 3600.0  # s

KELVIN = STABILITY * REFERENCE_TEMPERATURE / GRAVITY
"""Potential temperature of w, K per m/s."""

LIFT_HEIGHT = 150.0  # m, where the vertical velocity is taken
LIFT_SPREAD = 0.06  # m/s


@dataclass(frozen=True)
class Driving:
    """What keeps the turbulence going, and what it is lost to.

    Args:
        speed: root mean square of w, and so of the wind, that the largest waves are nudged to, m/s.
        nudging: time scale of that, h.
        first: smallest number of waves per side that is forced.
        last: largest one.
        renewal: time in which random kicks renew the forced waves, h.
        kick: their size, relative to the forced waves' own.
        drag: time in which waves longer than all forced ones decay, h.
        dissipation: time in which the shortest waves lose nine tenths of their amplitude, s.
        order: power of the wavenumber in the dissipation.
    """

    speed: float = 7.0
    nudging: float = 2.0
    first: int = 2
    last: int = 4
    renewal: float = 6.0
    kick: float = 0.7
    drag: float = 12.0
    dissipation: float = 600.0
    order: int = 8


class SurfaceQG:
    """The model; the state, the spectrum of w, is the caller's.

    Args:
        n: points per side.
        step: of time, s.
        precision: of fields, ``float32`` or ``float64``.
        driving: forcing and damping, of :meth:`step` only.

    Attributes:
        n: as given.
        dt: time step, s.
        kx: (1, columns) wavenumbers along the rows, rad/m.
        ky: (n, 1) wavenumbers along the columns, rad/m.
        index: (n, columns) waves per side, of the total wavenumber.
        kept: (n, columns) waves that the truncation keeps, without the mean.
    """

    def __init__(
        self, n: int = 256, step: float = 150.0, precision: type = np.float32, driving: Driving | None = None
    ) -> None:
        self.n, self.dt = n, step
        self._driving = driving or Driving()
        self._float = np.dtype(precision)
        self._complex = np.result_type(precision, np.complex64)
        index_y, index_x = wave_indices(n)
        index_x = index_x[:, index_x[0] < n / 3]
        unit = 2 * np.pi / (n * SPACING)
        self.kx, self.ky = unit * index_x, unit * index_y
        self.index = np.hypot(index_x, index_y)
        self.kept = (np.abs(index_y) < n / 3) & (self.index > 0)
        # the mean has no streamfunction; it neither changes nor is anything else's cause
        self._inverse = np.where(self.kept, 1 / np.where(self.kept, unit * self.index, 1), 0)
        self._to_psi = self._inverse.astype(self._float)
        self._mask = self.kept.astype(self._float)
        self._operators = np.stack([
            -1j * self.ky * self._inverse, 1j * self.kx * self._inverse,
            1j * self.kx * self._mask, 1j * self.ky * self._mask,
        ]).astype(self._complex)  # fmt: skip
        self._work = np.empty_like(self._operators)
        self._damping = self._damping_of_a_step()
        band = (self.index >= self._driving.first) & (self.index <= self._driving.last)
        self._band = np.nonzero(band)
        # a wave decays with height as exp(-K N z / f) does (Held et al. 1995)
        decay = np.exp(-unit * self.index * STABILITY / CORIOLIS * LIFT_HEIGHT)
        self._decay = decay.astype(self._float)

    def _damping_of_a_step(self) -> NDArray[Any]:
        driving = self._driving
        # relative to (2/3) pi / spacing, the truncation
        relative = self.index / (self.n / 3)
        damping = self._mask * np.exp(-np.log(10) * self.dt / driving.dissipation * relative**driving.order)
        damping[self.index < 1.5] *= np.exp(-self.dt / (driving.drag * HOUR))
        return damping.astype(self._float)

    # Transforms

    def to_grid(self, spectrum: Spectrum) -> Array:
        """Spectra (..., n, columns) to fields (..., n, n)."""
        columns = scipy.fft.ifft(spectrum, axis=-2, norm="forward")
        field: Array = scipy.fft.irfft(columns, self.n, axis=-1, norm="forward", overwrite_x=True)
        return field

    def to_spectrum(self, field: Array) -> Spectrum:
        """A field (n, n) to its truncated spectrum (n, columns), without the mean."""
        rows = scipy.fft.rfft(field, axis=-1, norm="forward")[:, : self.kx.shape[1]]
        spectrum: Spectrum = scipy.fft.fft(rows, axis=-2, norm="forward")
        spectrum *= self._mask
        return spectrum

    def variance(self, spectrum: Spectrum) -> float:
        """Mean square over the grid, by Parseval's theorem."""
        power = np.square(np.abs(spectrum), dtype=np.float64)
        # all columns but the first one stand for their mirror images as well
        return float(2 * power.sum() - power[:, 0].sum())

    # Dynamics

    def start(self, rng: np.random.Generator) -> Spectrum:
        """A state of random phases, with a spectrum not far from the turbulent one and the speed of the driving."""
        amplitude = self.kept * (1 + (self.index / 3) ** 2) ** (-2 / 3) * np.exp(-((self.index / 60) ** 2))
        spectrum = amplitude * random_phases(self.n, rng)[:, : self.kx.shape[1]]
        spectrum *= self._driving.speed / np.sqrt(self.variance(spectrum))
        return spectrum.astype(self._complex)

    def tendency(self, w: Spectrum) -> Spectrum:
        """Change by advection, -J(psi, w).

        Args:
            w: spectrum (n, columns), m/s.

        Returns:
            Spectrum (n, columns), m/s².
        """
        np.multiply(self._operators, w, out=self._work)
        columns = scipy.fft.ifft(self._work, axis=-2, norm="forward", overwrite_x=True)
        u, v, along_x, along_y = scipy.fft.irfft(columns, self.n, axis=-1, norm="forward", overwrite_x=True)
        along_x *= u
        along_y *= v
        along_x += along_y
        return -self.to_spectrum(along_x)

    def advect(self, w: Spectrum) -> Spectrum:
        """One Runge-Kutta step without forcing and damping.

        Args:
            w: spectrum (n, columns), m/s.
        """
        dt = self.dt
        first = self.tendency(w)
        second = self.tendency(w + dt / 2 * first)
        third = self.tendency(w + dt / 2 * second)
        first += self.tendency(w + dt * third)
        second += third
        return w + dt / 6 * first + dt / 3 * second

    def step(self, w: Spectrum, rng: np.random.Generator) -> Spectrum:
        """One step with forcing and damping.

        The waves of the forced band are kicked at random, so that they are renewed, and all multiplied by a number
        near one that brings the speed to what is wanted.

        Args:
            w: spectrum (n, columns), m/s.
            rng: of the kicks.
        """
        driving, band = self._driving, self._band
        w = self.advect(w)
        w *= self._damping
        forced = w[band]
        size = driving.kick * np.sqrt(np.mean(np.abs(forced) ** 2) * self.dt / (driving.renewal * HOUR))
        kick = rng.standard_normal((2, forced.size))
        w[band] += size * (kick[0] + 1j * kick[1])
        # a real field: waves of the first column are conjugate to their opposites
        first = w[:, 0]
        w[:, 0] = (first + np.roll(first[::-1], 1).conj()) / 2
        lack = 1 - np.sqrt(self.variance(w)) / driving.speed
        w[band] *= 1 + self.dt / (driving.nudging * HOUR) * lack
        return w

    # Diagnostics

    def streamfunction(self, w: Spectrum) -> Array:
        """Streamfunction (n, n), m²/s, of the spectrum of w (n, columns), m/s."""
        return self.to_grid(w * self._to_psi)

    def velocity(self, w: Spectrum) -> tuple[Array, Array]:
        """Wind (n, n) to the east and to the north, m/s, of the spectrum of w (n, columns), m/s."""
        u, v = self.to_grid(w * self._operators[:2])
        return u, v

    def temperature(self, w: Spectrum) -> Array:
        """Anomaly of potential temperature (n, n), K, of the spectrum of w (n, columns), m/s."""
        return KELVIN * self.to_grid(w)

    def lift(self, w: Spectrum) -> Array:
        """Vertical velocity at 150 m, scaled to a standard deviation of 0.06 m/s.

        There the buoyancy of every wave is smaller by the factor E = exp(-K N z / f). Its change in time is E times
        that at the ground; what advection at that height does not explain is lift against the stratification:

            W = (E J(psi, w) - J(E psi, E w)) / N,  from  dw_E/dt + J(psi_E, w_E) = -N W.

        Args:
            w: spectrum (n, columns), m/s.

        Returns:
            Field (n, n), m/s, of zero mean.
        """
        lift = self.to_grid((self.tendency(w * self._decay) - self._decay * self.tendency(w)) / STABILITY)
        spread = lift.std()
        return lift * (LIFT_SPREAD / spread) if spread > 0 else lift

    def shift(self, w: Spectrum, x: float, y: float) -> Spectrum:
        """The state moved by x and y, m, to the east and north: what advection by a uniform wind does, exactly.

        Args:
            w: spectrum (n, columns).
            x: m.
            y: m.
        """
        phase = np.exp(-1j * self.ky * y).astype(self._complex) * np.exp(-1j * self.kx * x).astype(self._complex)
        return w * phase
