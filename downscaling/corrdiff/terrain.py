"""Terrain of the demo: islands and bays with ridges, from two random fields."""

from typing import NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from downscaling.corrdiff.periodic import Array, random_phases, wave_indices

Float = NDArray[np.float32]

# slope of the spectrum and waves per side above which it falls
CONTINENTS = (3.2, 2.0)
RIDGES = (2.4, 6.0)
SEA_LEVEL = -0.25  # of the continents' field; about 58 % lie above it
HEIGHT = 600.0  # m, per unit of the continents' field
LOWLAND, HIGHLAND = 0.35, 1.1  # part of the height without a ridge, and what the sharpest one adds
SHARPNESS = 1.5


class Terrain(NamedTuple):
    """Height and land.

    Attributes:
        height: (n, n) above sea level, m; 0 over sea.
        land: (n, n) 1 over land, 0 over sea.
    """

    height: Float
    land: Float


def make_terrain(n: int, rng: np.random.Generator) -> Terrain:
    """Draw a terrain.

    Args:
        n: points per side of the periodic square.
        rng: random numbers.
    """
    base = power_law_field(n, *CONTINENTS, rng) - SEA_LEVEL
    # ridges are where the second field changes its sign
    ridge = np.clip(1 - np.abs(power_law_field(n, *RIDGES, rng)), 0, 1) ** SHARPNESS
    land = base > 0
    height = HEIGHT * np.clip(base, 0, 3) * (LOWLAND + HIGHLAND * ridge)
    return Terrain(height.astype(np.float32), land.astype(np.float32))


def power_law_field(n: int, slope: float, first: float, rng: np.random.Generator) -> Array:
    """A field of random phases whose power per wavenumber falls as k^-slope.

    The amplitude of waves in the plane is (first² + k²)^(-(slope + 1) / 4), where k counts waves per side.

    Args:
        n: points per side.
        slope: of the spectrum summed over circles.
        first: waves per side below which the spectrum is flat.
        rng: random numbers.

    Returns:
        Field (n, n) of zero mean and unit variance.
    """
    along_y, along_x = wave_indices(n)
    amplitude = (first**2 + along_x**2 + along_y**2) ** (-(slope + 1) / 4)
    amplitude[0, 0] = 0
    field: Array = scipy.fft.irfft2(amplitude * random_phases(n, rng), s=(n, n))
    field /= field.std()
    return field
