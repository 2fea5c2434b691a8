"""The demo's terrain: a coastal range and a broad one across the prevailing wind, with hills on and between them."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from precip_postproc.resunet_qpf.periodic import Array, PeriodicGrid
from precip_postproc.resunet_qpf.random_fields import MaternField

Float = NDArray[np.float32]

PLAIN = 150.0  # m
HILLS = 120.0  # m, standard deviation
ROUGHNESS = 0.35  # of the ranges, relative to their height
HILL_LENGTH = 60.0  # km
HILL_SMOOTHNESS = 0.9
MODEL_SMOOTHING = 10.0  # km: 2.5 points of 4 km
# Smoothing lengths of the real terrain file, in points, and how long the first one is here
REAL_SIGMAS = (15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0)
SMOOTHING = 32.0  # km: 8 points of 4 km


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


def slopes(height: Array, dx: float, dy: float) -> tuple[Array, Array]:
    """Slopes (ny, nx) along the rows and along the columns, m/m: central differences, one-sided at the edges.

    Args:
        height: (ny, nx) m.
        dx: distance of the columns, m.
        dy: distance of the rows, m; negative if row 0 is in the north.
    """
    along_rows: Array = np.gradient(height, dx, axis=1)
    along_columns: Array = np.gradient(height, dy, axis=0)
    return along_rows, along_columns


class Terrain(NamedTuple):
    """What the terrain file holds but for its coordinates, float32, under the file's names.

    Attributes:
        terrain_height: (ny, nx) m.
        terrain_height_smoothed: (ny, nx) m, with the first of ``sigmas``.
        terrain_height_local_difference: (ny, nx) m, raw less smoothed.
        dterrain_dlon: (ny, nx) slope along the rows, m/m.
        dterrain_dlat: (ny, nx) slope along the columns, m/m.
        dterrain_dlon_smoothed: (ny, nx) slope of the smoothed height, m/m.
        dterrain_dlat_smoothed: (ny, nx) likewise.
        dterrain_dlon_difference: (ny, nx) slope of the local difference, m/m.
        dterrain_dlat_difference: (ny, nx) likewise.
        terrain_height_smoothed_multisigma: (nsigma, ny, nx) m.
        sigmas: (nsigma,) standard deviations of the Gaussian filters, grid points.
    """

    terrain_height: Float
    terrain_height_smoothed: Float
    terrain_height_local_difference: Float
    dterrain_dlon: Float
    dterrain_dlat: Float
    dterrain_dlon_smoothed: Float
    dterrain_dlat_smoothed: Float
    dterrain_dlon_difference: Float
    dterrain_dlat_difference: Float
    terrain_height_smoothed_multisigma: Float
    sigmas: Float


def describe_terrain(grid: PeriodicGrid, height: Array) -> Terrain:
    """The rectangle's terrain, smoothed and differentiated on the whole square so that it has no edges.

    Args:
        grid: periodic.
        height: (n, n) m.
    """

    def cut(field: Array) -> Float:
        return grid.crop(field).astype(np.float32)

    metres = 1000 * grid.spacing
    lengths = [SMOOTHING * sigma / REAL_SIGMAS[0] for sigma in REAL_SIGMAS]
    smoothed = [grid.smooth(height, length) for length in lengths]
    raw_x, raw_y = slopes(height, metres, metres)
    smooth_x, smooth_y = slopes(smoothed[0], metres, metres)
    return Terrain(
        terrain_height=cut(height),
        terrain_height_smoothed=cut(smoothed[0]),
        terrain_height_local_difference=cut(height - smoothed[0]),
        dterrain_dlon=cut(raw_x),
        dterrain_dlat=cut(raw_y),
        dterrain_dlon_smoothed=cut(smooth_x),
        dterrain_dlat_smoothed=cut(smooth_y),
        dterrain_dlon_difference=cut(raw_x - smooth_x),
        dterrain_dlat_difference=cut(raw_y - smooth_y),
        terrain_height_smoothed_multisigma=np.stack([cut(field) for field in smoothed]),
        sigmas=(np.array(lengths) / grid.spacing).astype(np.float32),
    )
