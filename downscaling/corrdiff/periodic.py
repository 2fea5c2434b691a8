"""Fields on the doubly periodic square of the demo's weather: waves, smoothing, gradients and coarse cells.

Fields are (n, n), row 0 in the south and column 0 in the west.
"""

from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Spectrum = NDArray[np.complexfloating[Any, Any]]


def wave_indices(n: int) -> tuple[Array, Array]:
    """Waves along the side of a square of n points, of the half plane that a real transform has.

    Returns:
        Number of waves along the columns (n, 1), which is negative in the second half, and along the rows
        (1, n/2 + 1).
    """
    return n * np.fft.fftfreq(n)[:, None], n * np.fft.rfftfreq(n)[None]


def random_phases(n: int, rng: np.random.Generator) -> Spectrum:
    """(n, n/2 + 1) numbers of modulus one, the phases of white noise: those of a real field also where kx is 0."""
    spectrum: Spectrum = scipy.fft.rfft2(rng.standard_normal((n, n)))
    return spectrum / np.abs(spectrum)


def smooth(field: Array, points: float) -> Array:
    """A field (n, n) convolved with a Gaussian whose standard deviation is given in points."""
    n = len(field)
    rows, columns = (np.exp(-2 * (np.pi * points / n * wave) ** 2).astype(field.dtype) for wave in wave_indices(n))
    smoothed: Array = scipy.fft.irfft2(scipy.fft.rfft2(field) * rows * columns, s=field.shape)
    return smoothed


def gradient(field: Array, spacing: float) -> tuple[Array, Array]:
    """Centred differences.

    Args:
        field: (n, n).
        spacing: of the points, m.

    Returns:
        Derivatives (n, n) to the east and to the north, the field's unit per m.
    """
    x, y = (np.roll(field, -1, axis) - np.roll(field, 1, axis) for axis in (1, 0))
    return x / (2 * spacing), y / (2 * spacing)


def block_mean(field: Array, factor: int) -> Array:
    """Means (n/factor, n/factor) over square cells of a field (n, n)."""
    rows, columns = (size // factor for size in field.shape)
    mean: Array = field.reshape(rows, factor, columns, factor).mean(axis=(1, 3))
    return mean


def block_constant(cells: Array, factor: int) -> Array:
    """A field (n, n) that has a cell's value (n/factor, n/factor) everywhere in the cell."""
    return cells.repeat(factor, axis=0).repeat(factor, axis=1)
