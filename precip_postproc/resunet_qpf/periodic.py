"""The doubly periodic square on which the demo's weather is made, and the rectangle of it that the files show.

Fields are (n, n), row 0 in the south. Spectra are (n, n/2 + 1), the half plane of the discrete Fourier transform
without a factor on the way back: a field is the sum of amplitude times exp(i k·x), so that its variance is the sum of
squared amplitudes over the whole plane.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Spectrum = NDArray[np.complexfloating[Any, Any]]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class PeriodicGrid:
    """A square periodic grid and the rectangle that is cut out of it.

    Args:
        n: points per side of the square, even.
        spacing: of the points, km.
        first: row and column of the square at which the rectangle begins.
        ny: rows of the rectangle.
        nx: columns of the rectangle.

    Raises:
        ValueError: n is odd or the rectangle does not fit into the square.
    """

    n: int = 256
    spacing: float = 4.0
    first: int = 48
    ny: int = 128
    nx: int = 160

    def __post_init__(self) -> None:
        if self.n % 2:
            raise ValueError(f"the periodic grid has {self.n} points per side, which must be even")
        if self.first < 0 or self.first + max(self.ny, self.nx) > self.n:
            raise ValueError(f"{self.ny} x {self.nx} points from row and column {self.first} do not fit into {self.n}")

    @classmethod
    def tiny(cls) -> "PeriodicGrid":
        """The same region with half the resolution, 64 x 80 points: for tests."""
        return cls(n=128, spacing=8.0, first=24, ny=64, nx=80)

    @property
    def length(self) -> float:
        """Side of the square, km."""
        return self.n * self.spacing

    @property
    def shape(self) -> tuple[int, int]:
        """Of the rectangle, rows and columns."""
        return self.ny, self.nx

    @cached_property
    def kx(self) -> Array:
        """(1, n/2 + 1) wavenumbers along the rows, rad km-1, float64."""
        return 2 * np.pi * np.fft.rfftfreq(self.n, self.spacing)[None]

    @cached_property
    def ky(self) -> Array:
        """(n, 1) wavenumbers along the columns, rad km-1, float64."""
        return 2 * np.pi * np.fft.fftfreq(self.n, self.spacing)[:, None]

    @cached_property
    def k2(self) -> Array:
        """(n, n/2 + 1) square of the total wavenumber, rad2 km-2."""
        return self.kx**2 + self.ky**2

    @cached_property
    def resolved(self) -> Mask:
        """(n, n/2 + 1) all waves but those of two grid lengths, for which neither shift nor slope is defined."""
        kept = np.ones(self.k2.shape, bool)
        kept[self.n // 2] = kept[:, -1] = False
        return kept

    def to_grid(self, spectrum: Spectrum) -> Array:
        """(n, n/2 + 1) amplitudes to (n, n) values."""
        field: Array = scipy.fft.irfft2(spectrum, s=(self.n, self.n), norm="forward")
        return field

    def to_spectrum(self, field: Array) -> Spectrum:
        """(n, n) values to (n, n/2 + 1) amplitudes."""
        spectrum: Spectrum = scipy.fft.rfft2(field, norm="forward")
        return spectrum

    def crop(self, field: Array) -> Array:
        """The rectangle (ny, nx) of a field (n, n), as a view."""
        return field[self.first : self.first + self.ny, self.first : self.first + self.nx]

    def phase(self, x: float, y: float) -> NDArray[np.complex64]:
        """(n, n/2 + 1) factor that moves a spectrum without two-grid-length waves by x, y km to the east and north."""
        along_y, along_x = np.exp(-1j * y * self.ky), np.exp(-1j * x * self.kx)
        phase: NDArray[np.complex64] = along_y.astype(np.complex64) * along_x.astype(np.complex64)
        return phase

    def smooth(self, field: Array, sigma: float) -> Array:
        """A field (n, n) convolved with a Gaussian of standard deviation sigma, km."""
        return self.to_grid(self.to_spectrum(field) * np.exp(-0.5 * sigma**2 * self.k2).astype(field.dtype))
