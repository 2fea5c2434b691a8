"""The default mesh: as long and wide as the domain, nested, with a way from every grid node.

The number of columns and rows are multiples of 3^(L-1), so that a node of a level lies on a node of the one below in
both directions. Of the multiples on either side of extent over spacing that pair is taken whose spacings are nearest to
the one that is wanted, if they differ by less than a quarter from each other and, where there is more than one level,
from the one that is wanted.
"""

from itertools import product
from math import ceil, floor, hypot, log, sqrt

import numpy as np

from weather_forecast.lam.graphs.lattice import Floats, Lattice
from weather_forecast.lam.graphs.mesh import CHILDREN, Mesh

RADIUS = 0.51  # of the diagonal of a mesh cell; from 0.5 on every point is covered
TOLERANCE = 0.25
MAX_LEVELS = 4
LARGE_GRID = 300_000  # grid nodes


def default_spacing(nodes: int) -> float:
    """Grid cells per mesh cell."""
    return 8.0 if nodes > LARGE_GRID else 3.0


def mesh_shape(extent: tuple[float, float], spacing: float, levels: int) -> tuple[int, int] | None:
    """Columns and rows of the bottom level.

    Args:
        extent: of the domain along x and y.
        spacing: distance of mesh nodes that is wanted, in the unit of the extent.
        levels: that are to be nested.

    Returns:
        None where there is no mesh of so many levels within the tolerance.
    """
    unit = CHILDREN ** (levels - 1)
    ideal = [length / spacing / unit for length in extent]
    choices = [sorted({max(1, floor(n)), max(1, ceil(n))}) for n in ideal]
    best = None
    for nx, ny in product(*choices):
        dx, dy = extent[0] / (nx * unit), extent[1] / (ny * unit)
        off = [dx / spacing, dy / spacing] if levels > 1 else []
        if any(abs(value - 1) >= TOLERANCE for value in [dx / dy, dy / dx, *off]):
            continue
        distance = abs(log(dx / spacing)) + abs(log(dy / spacing))
        if best is None or distance < best[0]:
            best = distance, (nx * unit, ny * unit)
    return best[1] if best else None


def rect_levels(extent: tuple[float, float], spacing: float) -> int:
    """The largest number of levels that fits, up to 4; 0 where there is none."""
    return max(
        (levels for levels in range(1, MAX_LEVELS + 1) if mesh_shape(extent, spacing, levels) is not None), default=0
    )


def extent_of(x: Floats, y: Floats) -> tuple[float, float]:
    """Length of the domain along x and y."""
    return float(x.max() - x.min()), float(y.max() - y.min())


def spacing_of(x: Floats, y: Floats, cells: float) -> float:
    """Distance of so many grid cells, in the unit of the coordinates; cells count as squares of the same area."""
    rows, columns = x.shape
    width, height = extent_of(x, y)
    return cells * sqrt(width / (columns - 1) * height / (rows - 1))


def rect_mesh(x: Floats, y: Floats, shape: tuple[int, int], levels: int) -> Mesh:
    """The mesh with so many columns and rows.

    Args:
        x: (lat, lon) planar coordinate.
        y: (lat, lon) planar coordinate.
        shape: columns and rows of the bottom level, multiples of 3^(levels-1).
        levels: of the mesh.
    """
    lattice = Lattice(_centres(x, shape[0]), _centres(y, shape[1]))
    lattices = [lattice]
    for _ in range(levels - 1):
        lattices.append(Lattice(lattices[-1].x[1::CHILDREN], lattices[-1].y[1::CHILDREN]))
    width, height = extent_of(x, y)
    radius = RADIUS * hypot(width / shape[0], height / shape[1])
    return Mesh(np.stack([x.ravel(), y.ravel()], axis=1), lattices, radius, sign=1)


def _centres(values: Floats, n: int) -> Floats:
    low, high = values.min(), values.max()
    return low + (np.arange(n) + 0.5) * ((high - low) / n)
