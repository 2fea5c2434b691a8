"""The demo's terrain: a coastal range and a broad one across the prevailing wind, with hills on and between them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from precip_postproc.resunet_qpf.periodic import Array, PeriodicGrid
from precip_postproc.resunet_qpf.random_fields import MaternField
from precip_postproc.resunet_qpf.terrain_file import REAL_SIGMAS, Terrain, derive_terrain

PLAIN = 150.0  # m
HILLS = 120.0  # m, standard deviation
ROUGHNESS = 0.35  # of the ranges, relative to their height
HILL_LENGTH = 60.0  # km
HILL_SMOOTHNESS = 0.9
MODEL_SMOOTHING = 10.0  # km: 2.5 points of 4 km
SMOOTHING = 32.0  # km: 8 points of 4 km; the first of the smoothing lengths, the others in proportion to the real ones


@dataclass(frozen=True)
class Range:
    """A mountain range along a straight line: a Gaussian across it.

    Args:
        height: m.
        x: where the line crosses the middle of the periodic square, km from its western edge.
        angle: of the line from north, clockwise, degrees.
        width: standard deviation across, km.
    """

    height: float
    x: float
    angle: float
    width: float

    def on_grid(self, grid: PeriodicGrid) -> Array:
        """Height (n, n), m. The line is periodic from west to east; at the southern and northern edge it is broken."""
        position = grid.spacing * np.arange(grid.n)
        slope = np.tan(np.radians(self.angle))
        east = position[None] - self.x - slope * (position[:, None] - grid.length / 2)
        east = (east + grid.length / 2) % grid.length - grid.length / 2
        height: Array = self.height * np.exp(-0.5 * (east * np.cos(np.radians(self.angle)) / self.width) ** 2)
        return height


RANGES = (Range(1200.0, x=230.0, angle=12.0, width=35.0), Range(2000.0, x=520.0, angle=-8.0, width=60.0))


def make_height(grid: PeriodicGrid, rng: np.random.Generator) -> NDArray[np.float64]:
    """Height of the terrain (n, n), m, nowhere below zero.

    Args:
        grid: periodic.
        rng: of the hills; the ranges are always the same ones.
    """
    hills = grid.to_grid(MaternField(grid, HILL_LENGTH, HILL_SMOOTHNESS).draw(rng)).astype(np.float64)
    hills /= hills.std()
    ranges = sum(mountain.on_grid(grid) for mountain in RANGES)
    height: NDArray[np.float64] = np.maximum(PLAIN + HILLS * hills + (1 + ROUGHNESS * hills) * ranges, 0)
    return height


def describe_terrain(grid: PeriodicGrid, height: Array) -> Terrain:
    """The rectangle's terrain, smoothed and differentiated on the whole square so that it has no edges.

    Args:
        grid: periodic.
        height: (n, n) m.
    """
    metres = 1000 * grid.spacing
    lengths = [SMOOTHING * sigma / REAL_SIGMAS[0] for sigma in REAL_SIGMAS]
    smoothed = [grid.smooth(height, length) for length in lengths]
    return derive_terrain(height, smoothed, np.array(lengths) / grid.spacing, (metres, metres), grid.crop)
