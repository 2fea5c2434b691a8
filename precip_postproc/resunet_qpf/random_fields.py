"""Stationary Gaussian fields with a Matérn spectrum on a periodic grid, drawn and carried in Fourier space.

The spectral density is proportional to (1 + (k l)²)^-(ν + 1), that of a Matérn covariance in two dimensions (Whittle
1954, Biometrika 41:434). The mean over the square is left out, so that every field has the mean zero.
"""

from enum import IntEnum, auto

import numpy as np
from numpy.typing import NDArray

from precip_postproc.resunet_qpf.periodic import PeriodicGrid

WaveAmplitudes = NDArray[np.complex64]


class Stream(IntEnum):
    """Independent streams of random numbers; the order is part of what a seed means."""

    TERRAIN = auto()
    REGIME = auto()
    LATENT = auto()
    FORECAST = auto()
    ANALYSIS = auto()
    OUTAGE = auto()


def make_rng(seed: int, stream: Stream, *key: int) -> np.random.Generator:
    """Random numbers that belong to a seed, a stream and a key, whatever else was drawn before.

    Args:
        seed: of the demo.
        stream: what the numbers are for.
        key: non-negative numbers that tell the stream's draws apart.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(int(stream), *key)))


class MaternField:
    """Draws spectra of unit-variance fields.

    Args:
        grid: periodic.
        length: scale l, km.
        smoothness: ν.

    Attributes:
        amplitude: (n, n/2 + 1) root of the expected squared amplitudes; their sum over the whole plane is one.
    """

    def __init__(self, grid: PeriodicGrid, length: float, smoothness: float) -> None:
        self.grid = grid
        density = np.where(grid.resolved, (1 + length**2 * grid.k2) ** -(smoothness + 1), 0)
        density[0, 0] = 0
        # all columns but the first one stand for their mirror images as well
        total = 2 * density.sum() - density[:, 0].sum()
        self.amplitude: NDArray[np.float32] = np.sqrt(density / total).astype(np.float32)

    def draw(self, rng: np.random.Generator) -> WaveAmplitudes:
        """Spectrum (n, n/2 + 1) of one field of zero mean and unit variance."""
        half = self.grid.n // 2
        parts = rng.standard_normal((*self.amplitude.shape, 2), dtype=np.float32)
        spectrum: WaveAmplitudes = parts.view(np.complex64)[..., 0]
        # real fields: the first column holds both of every pair of opposite waves
        spectrum[half + 1 :, 0] = spectrum[half - 1 : 0 : -1, 0].conj()
        spectrum *= self.amplitude * np.float32(np.sqrt(0.5))
        return spectrum


def blend(spectrum: WaveAmplitudes, noise: WaveAmplitudes, correlation: float) -> WaveAmplitudes:
    """A field that has the given correlation with the first one and the same variance.

    Args:
        spectrum: of a field.
        noise: of an independent one with the same spectral density.
        correlation: 0 to 1, equal at all scales.
    """
    return np.float32(correlation) * spectrum + np.float32(np.sqrt(1 - correlation**2)) * noise
