"""Settings of the gravity-wave scheme, its phase speeds and azimuths, and the spectrum that is launched."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ai4sim.errors import InputError

Array = NDArray[Any]


@dataclass(frozen=True)
class SchemeParameters:
    """Settings of the scheme.

    Args:
        n_azimuths: directions of propagation, equally spaced from east; a multiple of 4.
        n_speeds: bins of phase speed.
        min_speed: slowest launched intrinsic phase speed, m/s.
        max_speed: fastest launched intrinsic phase speed, m/s.
        stretching: half-width gamma of the coordinate stretch that puts more bins at high speeds, s/m
            (Scinocca 2003, eqs 28-30).
        launch_flux: momentum flux launched in each azimuth, Pa.
        characteristic_wavenumber: vertical wavenumber m* of the spectrum's peak, m-1.
        slope: exponent s of the spectrum at small wavenumbers.
        frequency_exponent: exponent p of the intrinsic-frequency spectrum, 1 or 1.5.
        saturation: ratio C* of the saturation curve to the launch spectrum's tail.
        tropical_reduction: relative change of the launch flux at the equator.
        tropical_width: Gaussian width of that change, degrees of latitude.
        min_stability: floor of N2, s-2.
        time_step: of the host model, s; used by the cap.
        cap: bound on the deposition at critical levels within one time step. ``operational`` as in the ECMWF
            model, ``physical`` lets no wave push the flow past the wave's speed, ``none`` has no bound.
        lid: ``closed`` deposits in level 1 what reaches the model top, ``open`` lets it leave.

    Raises:
        InputError: a value out of range; names the field.
    """

    n_azimuths: int = 8
    n_speeds: int = 32
    min_speed: float = 0.5
    max_speed: float = 100.0
    stretching: float = 0.25
    launch_flux: float = 3.75e-3
    characteristic_wavenumber: float = 2 * np.pi / 2000
    slope: float = 1.0
    frequency_exponent: float = 1.0
    saturation: float = 1.0
    tropical_reduction: float = -0.25
    tropical_width: float = 20.0
    min_stability: float = 1e-12
    time_step: float = 3600.0
    cap: Literal["operational", "physical", "none"] = "operational"
    lid: Literal["closed", "open"] = "closed"

    def __post_init__(self) -> None:
        checks: dict[str, tuple[bool, str]] = {
            "n_azimuths": (self.n_azimuths >= 4 and self.n_azimuths % 4 == 0, "a multiple of 4"),
            "n_speeds": (self.n_speeds >= 2, "at least 2"),
            "min_speed": (0 < self.min_speed < self.max_speed, "positive and below max_speed"),
            "frequency_exponent": (self.frequency_exponent in (1.0, 1.5), "1 or 1.5"),
            "slope": (self.slope > -3, "above -3"),
            "tropical_reduction": (self.tropical_reduction > -1, "above -1"),
            "cap": (self.cap in ("operational", "physical", "none"), "operational, physical or none"),
            "lid": (self.lid in ("closed", "open"), "closed or open"),
        }
        for name in (
            "stretching",
            "launch_flux",
            "characteristic_wavenumber",
            "saturation",
            "tropical_width",
            "min_stability",
            "time_step",
        ):
            checks[name] = (getattr(self, name) > 0, "positive")
        for name, (valid, expected) in checks.items():
            if not valid:
                raise InputError(f"SchemeParameters: {name} must be {expected}, not {getattr(self, name)!r}")

    @classmethod
    def cheap(cls) -> "SchemeParameters":
        """Return the ECMWF model's resolution of 2010: 4 azimuths, 20 speeds."""
        return cls(n_azimuths=4, n_speeds=20)

    @classmethod
    def operational(cls) -> "SchemeParameters":
        """Return the ECMWF model's resolution since 2022: 4 azimuths, 32 speeds."""
        return cls(n_azimuths=4, n_speeds=32)

    @classmethod
    def public_data(cls) -> "SchemeParameters":
        """Return the resolution that comes nearest to the labels of the public data set."""
        return cls(n_azimuths=16, n_speeds=100)


def phase_speeds(parameters: SchemeParameters) -> tuple[Array, Array]:
    """Phase speeds c and bin widths dc (n_speeds,) in m/s, fastest first (Scinocca 2003, eqs 28-30)."""
    x_min, x_max = 1 / parameters.max_speed, 1 / parameters.min_speed
    nodes, step = np.linspace(0, x_max - x_min, parameters.n_speeds, retstep=True)
    b1 = (x_max - x_min) / np.expm1((x_max - x_min) / parameters.stretching)
    growth = b1 * np.exp(nodes / parameters.stretching)
    c = 1 / (growth + x_min - b1)
    # exactly, lest round-off puts the slowest bin below the wind's lower bound, which filters it at once
    c[0], c[-1] = parameters.max_speed, parameters.min_speed
    return c, c**2 * growth / parameters.stretching * step


def azimuths(n_azimuths: int) -> tuple[Array, Array, float]:
    """Cosines and sines (n_azimuths,) of the azimuths, and the factor from fluxes per azimuth to a vector.

    The values have the symmetries of the circle exactly, so the scheme keeps them to round-off. The factor
    2 / sum abs(cos) makes four azimuths carry the whole flux along each axis and keeps it there for any number.
    """
    quarter = np.cos(2 * np.pi * np.arange(n_azimuths // 4) / n_azimuths)
    first = np.concatenate([quarter, [0.0], -quarter[:0:-1]])
    cos = np.concatenate([first, -first])
    sin = np.roll(cos, n_azimuths // 4)
    return cos, sin, float(2 / np.abs(cos).sum())


def launch_spectrum(c: Array, density: Array, buoyancy_frequency: Array, parameters: SchemeParameters) -> Array:
    """Shape of the launched flux density over intrinsic phase speed, not normalised (Scinocca 2003, eq. 26).

    Args:
        c: phase speed, m/s; broadcasts against the others.
        density: at the launch half-level, kg m-3.
        buoyancy_frequency: at the launch half-level, s-1.
        parameters: m* and s are used.
    """
    m = parameters.characteristic_wavenumber * c / buoyancy_frequency
    return density / buoyancy_frequency * c / (1 + m ** (parameters.slope + 3))


def launch_flux(latitude: Array, parameters: SchemeParameters) -> Array:
    """Flux launched in each azimuth, Pa, at latitudes in degrees (Orr et al. 2010, section 2)."""
    gauss = np.exp(-((latitude / parameters.tropical_width) ** 2) / 2)
    return parameters.launch_flux * (1 + parameters.tropical_reduction * gauss)
