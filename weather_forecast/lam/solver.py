"""Two-layer quasi-geostrophic flow over orography on a doubly periodic beta-plane: the dynamics of the demo.

Layer 0 is the upper one (250 hPa), layer 1 the lower one (850 hPa); both have the same depth. With streamfunctions ψ,
potential vorticities q, mean zonal winds U and the coupling F = 1 / (2 L_d²) (Vallis 2017, Atmospheric and Oceanic
Fluid Dynamics, section 5.4; Phillips 1954, Tellus 6:273)::

    q_0 = ∇²ψ_0 + F (ψ_1 - ψ_0)         q_1 = ∇²ψ_1 + F (ψ_0 - ψ_1)
    ∂q_i/∂t + J(ψ_i, q_i + η_i) + U_i ∂(q_i + η_i)/∂x + Q_i ∂ψ_i/∂x = D_i
    Q_0 = β + F (U_0 - U_1)             Q_1 = β - F (U_0 - U_1)
    η_0 = 0                             η_1 = f_0 h / H

D is Ekman friction -κ ∇²ψ_1 of the lower layer and relaxation of the thickness, ±F (ψ_0 - ψ_1) / τ. Space is spectral
with square truncation by the 2/3 rule (Orszag 1971), time the third-order Adams-Bashforth scheme (Durran 1991, MWR
119:702); a filter of eighth order in the wavenumber stands for the unresolved scales.

Fields are (layer, y, x), row 0 in the south; spectra are (layer, ky, kx) of the orthonormal discrete Fourier transform.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Spectrum = NDArray[np.complexfloating[Any, Any]]

GRAVITY = 9.81  # m s-2
GAS_CONSTANT = 287.0  # J kg-1 K-1, dry air
PRESSURE = (250.0, 850.0)  # hPa, of the layers

# At 250, 500 and 850 hPa: part of the upper layer, linear in ln p, and the standard atmosphere.
LEVELS = (250, 500, 850)  # hPa
UPPER_WEIGHT = tuple(float(np.log(PRESSURE[1] / p) / np.log(PRESSURE[1] / PRESSURE[0])) for p in LEVELS)
MEAN_HEIGHT = (10360.0, 5574.0, 1457.0)  # m
MEAN_TEMPERATURE = (222.0, 252.0, 278.0)  # K
# Temperature there follows that of the layer between, which is 500 hPa's.
TEMPERATURE_FACTOR = (0.4, 1.0, 1.0)
# K per m of orography, at 850 hPa
LAPSE_850 = 0.6 * 6.5e-3


@dataclass(frozen=True)
class FlowParameters:
    """Domain, mean state, dissipation and numerics.

    Args:
        n: grid points per side.
        time_step: s; see :attr:`stable_wind`.
        length: of a side, m.
        coriolis: f_0, s-1.
        beta: s-1 m-1.
        deformation_radius: L_d, m.
        mean_wind: U of the upper and the lower layer, m/s.
        layer_depth: H of the lower layer, m, by which orography stretches vortices.
        ekman_time: 1/κ, s; None for no friction.
        thermal_time: τ, s; None for no relaxation.
        filter_time: damping time of the truncation wavenumber, s; None for no filter.
        dtype: ``float32`` or ``float64``.
    """

    n: int = 96
    time_step: float = 180.0
    length: float = 8.0e6
    coriolis: float = 1.0e-4
    beta: float = 1.6e-11
    deformation_radius: float = 3.5e5
    mean_wind: tuple[float, float] = (15.0, 4.0)
    layer_depth: float = 5000.0
    ekman_time: float | None = 86400.0
    thermal_time: float | None = 15 * 86400.0
    filter_time: float | None = 1.5 * 3600.0
    dtype: Literal["float32", "float64"] = "float32"

    @property
    def stable_wind(self) -> float:
        """Wind at which the shortest wave becomes unstable, m/s: 165 with the defaults, 132 with 225 s.

        The scheme is stable for oscillations up to 0.7236 radians a step (Durran 1991); these waves move with the wind.
        """
        wavenumber = 2 * np.pi / self.length * ((self.n - 1) // 3)
        return 0.7236 / (wavenumber * self.time_step)

    @property
    def coupling(self) -> float:
        """F, m-2."""
        return 1 / (2 * self.deformation_radius**2)

    @property
    def spacing(self) -> float:
        """Distance of grid points, m."""
        return self.length / self.n

    @property
    def vorticity_gradient(self) -> tuple[float, float]:
        """Q, mean meridional gradient of potential vorticity of both layers, s-1 m-1."""
        shear = self.coupling * (self.mean_wind[0] - self.mean_wind[1])
        return self.beta + shear, self.beta - shear

    @property
    def thermal_wind_factor(self) -> float:
        """Temperature of the layer between the levels per difference of streamfunction, K m-2 s (hydrostatic)."""
        return float(self.coriolis / (GAS_CONSTANT * np.log(PRESSURE[1] / PRESSURE[0])))

    @property
    def y(self) -> Array:
        """Distance of the rows from the middle of the domain (n, 1), m, northward."""
        return ((np.arange(self.n) - self.n / 2) * self.spacing).astype(self.dtype)[:, None]


class Truncation:
    """Fourier amplitudes of a square periodic grid, cut by the 2/3 rule.

    Only the columns within the truncation are stored, so that transforms and arithmetic skip the others.

    Args:
        parameters: grid and type.

    Attributes:
        n: grid points per side.
        kx: (1, m) wavenumbers along x, m-1.
        ky: (n, 1) wavenumbers along y, m-1; the rows beyond the truncation are empty.
        k2: (n, m) square of the total wavenumber, m-2.
        kept: (n, m) 1 within the truncation, 0 beyond.
        cut: largest wavenumber, m-1: two thirds of the grid's.
        index2: (n, m) square of the total wavenumber in waves per domain, exact.
    """

    def __init__(self, parameters: FlowParameters) -> None:
        n = self.n = parameters.n
        self.half = -(-n // 3)
        unit = 2 * np.pi / parameters.length
        x, y = np.arange(self.half)[None], np.rint(np.fft.fftfreq(n, 1 / n)).astype(int)[:, None]
        self.dtype = np.dtype(parameters.dtype)
        self.kx: Array = (unit * x).astype(self.dtype)
        self.ky: Array = (unit * y).astype(self.dtype)
        self.index2 = x**2 + y**2
        self.k2: Array = (unit**2 * self.index2).astype(self.dtype)
        self.kept: Array = (np.abs(y) < self.half).astype(self.dtype) * np.ones_like(self.kx)
        self.cut = unit * n / 3

    def to_grid(self, spectrum: Spectrum) -> Array:
        """(..., n, m) amplitudes to (..., n, n) values."""
        # orthonormal, since NumPy computes transforms without a factor in double precision, whatever the type
        return np.fft.irfft(np.fft.ifft(spectrum, axis=-2, norm="ortho"), n=self.n, axis=-1, norm="ortho")

    def to_spectrum(self, field: Array) -> Spectrum:
        """(..., n, n) values to (..., n, m) amplitudes; what is beyond the truncation is lost."""
        columns = np.fft.rfft(field, axis=-1, norm="ortho")[..., : self.half]
        spectrum: Spectrum = np.fft.fft(columns, axis=-2, norm="ortho")
        spectrum *= self.kept
        return spectrum

    def from_other(self, spectrum: Spectrum, other: "Truncation") -> Spectrum:
        """Amplitudes of another grid of the same domain, cut or filled with zeros: exact interpolation."""
        half = min(self.half, other.half)
        result = np.zeros((*spectrum.shape[:-2], self.n, self.half), spectrum.dtype)
        result[..., :half, :half] = spectrum[..., :half, :half]
        if half > 1:
            result[..., 1 - half :, :half] = spectrum[..., 1 - half :, :half]
        result *= np.asarray(self.n / other.n, self.dtype)
        return result

    def mean_square(self, spectrum: Spectrum) -> Array:
        """(..., n, m) amplitudes to the mean over the grid of the field's square (...), float64."""
        power = np.square(np.abs(spectrum), dtype=np.float64)
        return (2 * power.sum(axis=(-2, -1)) - power[..., 0].sum(axis=-1)) / self.n**2


@dataclass(frozen=True, eq=False)
class Flow:
    """The flow at one time, on a grid.

    Attributes:
        psi: (2, n, n) streamfunction without that of the mean wind, m2 s-1.
        u: (2, n, n) zonal wind with the mean wind, m s-1.
        v: (2, n, n) meridional wind, m s-1.
    """

    psi: Array
    u: Array
    v: Array

    def speed(self) -> float:
        """Largest wind speed, m s-1; not finite if the flow is not."""
        return float(np.sqrt(np.max(self.u**2 + self.v**2)))


class QuasiGeostrophicFlow:
    """The solver; holds the potential vorticity and steps it.

    Args:
        parameters: of the flow.
        orography: (n, n) height above the sea, m; by default flat.
        potential_vorticity: (2, n, m) start; by default at rest.

    Attributes:
        parameters: as given.
        truncation: grid and wavenumbers.
        potential_vorticity: (2, n, m) amplitudes of q, s-1, without those of mean state and orography.

    Raises:
        ValueError: orography or start has another shape.
    """

    def __init__(
        self,
        parameters: FlowParameters,
        orography: Array | None = None,
        potential_vorticity: Spectrum | None = None,
    ) -> None:
        self.parameters = parameters
        self.truncation = cut = Truncation(parameters)
        n, shape = cut.n, (2, cut.n, cut.half)
        self._complex = np.result_type(cut.dtype, np.complex64)
        height = np.zeros((n, n), cut.dtype) if orography is None else np.asarray(orography, cut.dtype)
        if height.shape != (n, n):
            raise ValueError(f"orography has shape {height.shape}, the flow's grid is {(n, n)}")
        start = np.zeros(shape, self._complex) if potential_vorticity is None else potential_vorticity
        if start.shape != shape:
            raise ValueError(f"potential vorticity has shape {start.shape}, expected {shape}")
        self.potential_vorticity: Spectrum = start.astype(self._complex)
        self._stretching: Spectrum = cut.to_spectrum(parameters.coriolis / parameters.layer_depth * height)
        self._inversion = self._make_inversion()
        self._linear = self._make_linear()
        self._mean_wind: Array = np.array(parameters.mean_wind, cut.dtype)[:, None, None]
        self._dx, self._dy = (1j * cut.kx).astype(self._complex), (1j * cut.ky).astype(self._complex)
        self._filter = self._make_filter()
        self._past: list[Spectrum] = []

    @classmethod
    def random(
        cls,
        parameters: FlowParameters,
        rng: np.random.Generator,
        orography: Array | None = None,
        rms: float = 15.0,
    ) -> Self:
        """A flow from random waves around total wavenumber 4 (a Gaussian of width 2), independent in both layers.

        Args:
            parameters: of the flow.
            rng: of the waves.
            orography: (n, n) m.
            rms: of the meridional wind, m/s.
        """
        flow = cls(parameters, orography)
        cut = flow.truncation
        psi = cut.to_spectrum(rng.standard_normal((2, cut.n, cut.n)).astype(cut.dtype))
        psi *= np.exp(-(((np.sqrt(cut.index2) - 4) / 2) ** 2)).astype(cut.dtype)
        psi[:, 0, 0] = 0
        psi *= np.asarray(rms / np.sqrt(cut.mean_square(flow._dx * psi).mean()), cut.dtype)
        flow.potential_vorticity = flow.vorticity_of(psi)
        return flow

    def _make_inversion(self) -> Array:
        """(2, 2, n, m): streamfunction from potential vorticity, ψ_i = Σ_j A_ij q_j, without mean."""
        cut, F = self.truncation, self.parameters.coupling
        k2 = np.where(cut.index2 == 0, 1.0, cut.k2.astype(float))
        determinant = k2 * (k2 + 2 * F)
        own, other = -(k2 + F) / determinant, -F / determinant
        matrix = np.array([[own, other], [other, own]]) * cut.kept
        matrix[..., cut.index2 == 0] = 0
        return matrix.astype(cut.dtype)

    def _make_linear(self) -> Spectrum:
        """(2, 2, n, m): tendency of potential vorticity by all that is linear in the streamfunction."""
        cut, given = self.truncation, self.parameters
        thermal = given.coupling / given.thermal_time if given.thermal_time else 0.0
        ekman = 1 / given.ekman_time if given.ekman_time else 0.0
        upper, lower = (-1j * cut.kx.astype(float) * gradient for gradient in given.vorticity_gradient)
        matrix = np.zeros((2, 2, cut.n, cut.half), complex)
        matrix[0, 0], matrix[0, 1] = upper + thermal, -thermal
        matrix[1, 0], matrix[1, 1] = -thermal, lower + thermal + ekman * cut.k2
        return (matrix * cut.kept).astype(self._complex)

    def _make_filter(self) -> Array:
        """(n, m) factor of every step."""
        cut, given = self.truncation, self.parameters
        if given.filter_time is None:
            return cut.kept
        damping = given.time_step / given.filter_time * (cut.k2.astype(float) / cut.cut**2) ** 4
        return (np.exp(-damping) * cut.kept).astype(cut.dtype)

    def vorticity_of(self, psi: Spectrum) -> Spectrum:
        """Potential vorticity of a streamfunction, both (2, n, m)."""
        k2, F = self.truncation.k2, np.asarray(self.parameters.coupling, self.truncation.dtype)
        return -k2 * psi + F * (psi[::-1] - psi)

    def invert(self, potential_vorticity: Spectrum) -> Spectrum:
        """Streamfunction of a potential vorticity, both (2, n, m)."""
        matrix = self._inversion
        return matrix[:, 0] * potential_vorticity[0] + matrix[:, 1] * potential_vorticity[1]

    def tendency(self, potential_vorticity: Spectrum) -> Spectrum:
        """∂q/∂t without the filter, (2, n, m), s-2."""
        cut = self.truncation
        psi = self.invert(potential_vorticity)
        waves = np.empty((6, cut.n, cut.half), self._complex)
        np.multiply(-self._dy, psi, out=waves[0:2])
        np.multiply(self._dx, psi, out=waves[2:4])
        waves[4:6] = potential_vorticity
        waves[5] += self._stretching
        grid = cut.to_grid(waves)
        grid[0:2] += self._mean_wind
        # flux form: (u + U)(q + η) and v (q + η), so that potential vorticity is conserved to rounding
        grid[0:4].reshape(2, 2, cut.n, cut.n)[...] *= grid[4:6]
        flux = cut.to_spectrum(grid[0:4])
        result = self._linear[:, 0] * psi[0]
        result += self._linear[:, 1] * psi[1]
        result -= self._dx * flux[0:2]
        result -= self._dy * flux[2:4]
        return result

    def step(self) -> None:
        """Advance by one time step: Adams-Bashforth of third order, after a step each of first and second order."""
        now = self.tendency(self.potential_vorticity)
        if len(self._past) == 2:
            increment = (23 / 12) * now - (16 / 12) * self._past[0] + (5 / 12) * self._past[1]
        elif self._past:
            increment = 1.5 * now - 0.5 * self._past[0]
        else:
            increment = now.copy()
        increment *= self.parameters.time_step
        increment += self.potential_vorticity
        increment *= self._filter
        self.potential_vorticity = increment
        self._past = [now, *self._past[:1]]

    def diagnose(self, truncation: Truncation | None = None) -> Flow:
        """The flow on the grid.

        Args:
            truncation: of another grid of the same domain, to which the flow is interpolated spectrally.
        """
        cut = truncation or self.truncation
        psi = self.invert(self.potential_vorticity)
        waves = np.stack([psi, -self._dy * psi, self._dx * psi])
        psi, u, v = cut.to_grid(cut.from_other(waves, self.truncation))
        return Flow(psi, u + self._mean_wind, v)

    def energy(self) -> float:
        """Mean kinetic and available potential energy of the eddies over both layers' unit depth, m2 s-2."""
        cut = self.truncation
        psi = self.invert(self.potential_vorticity)
        kinetic = cut.mean_square(np.sqrt(cut.k2) * psi).sum()
        potential = self.parameters.coupling * cut.mean_square(psi[0] - psi[1])
        return float(kinetic + potential) / 2

    def enstrophy(self) -> float:
        """Mean potential enstrophy of the eddies, summed over the layers, s-2."""
        return float(self.truncation.mean_square(self.potential_vorticity).sum()) / 2


@dataclass(frozen=True)
class IsobaricFields:
    """The state on the levels 250, 500 and 850 hPa, from the model's two layers.

    Args:
        parameters: of the flow; its ``n`` is that of the grid.
        orography: (n, n) m.
    """

    parameters: FlowParameters
    orography: Array

    @cached_property
    def background_temperature(self) -> Array:
        """Temperature of the mean shear in thermal wind balance, relative to the domain's middle (n, 1), K."""
        shear = self.parameters.mean_wind[0] - self.parameters.mean_wind[1]
        return -self.parameters.thermal_wind_factor * shear * self.parameters.y

    def temperature_anomaly(self, flow: Flow) -> Array:
        """Eddies' temperature of the layer between the levels (n, n), K."""
        return self.parameters.thermal_wind_factor * (flow.psi[0] - flow.psi[1])

    def __call__(self, flow: Flow) -> dict[str, Array]:
        """Fields (n, n, 3) on :data:`LEVELS`.

        Returns:
            ``u`` and ``v`` m s-1, ``z`` geopotential m2 s-2, ``t`` K. Winds and geopotential are linear in ln p, and
            thus in geostrophic balance on every level; temperature is hydrostatic at 500 hPa, and a simple function
            of it at the others.
        """
        given = self.parameters

        def on_levels(upper: Array, lower: Array) -> Array:
            return np.stack([w * upper + (1 - w) * lower for w in UPPER_WEIGHT], axis=-1)

        balanced = [psi - mean * given.y for psi, mean in zip(flow.psi, given.mean_wind, strict=True)]
        mean_geopotential = GRAVITY * np.array(MEAN_HEIGHT, given.dtype)
        anomaly = self.temperature_anomaly(flow) + self.background_temperature
        temperature = np.array(MEAN_TEMPERATURE, given.dtype) + np.multiply.outer(
            anomaly, np.array(TEMPERATURE_FACTOR, given.dtype)
        )
        temperature[..., LEVELS.index(850)] -= LAPSE_850 * self.orography
        return {
            "u": on_levels(*flow.u),
            "v": on_levels(*flow.v),
            "z": mean_geopotential + given.coriolis * on_levels(*balanced),
            "t": temperature,
        }
