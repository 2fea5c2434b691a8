"""The mesh of published graphs: square, in powers of three.

Reproduces the node and edge counts of Oskarsson, Landelius and Lindsten (2023, arXiv 2309.17370) and of the systems
that build on it. Known defects, kept on purpose: the lattice is square on a domain that is not; the radius of 0.67
spacings is less than half the diagonal of a cell (0.71), so that some grid nodes send to no mesh node; displacements
are sender minus receiver, and up edges carry those of the down edges. Use :mod:`weather_forecast.lam.graphs.rect` for
anything new.
"""

import math

import numpy as np

from weather_forecast.lam.graphs.lattice import Floats, Lattice
from weather_forecast.lam.graphs.mesh import CHILDREN, Mesh

RADIUS = 0.67  # of the spacing along y, by which alone the published count of MEPS (100,656) comes out


def legacy_levels(shape: tuple[int, int]) -> int:
    """Mesh levels of a grid; 0 where it is too small for any.

    The quotient of logarithms is rounded down as it comes out in floating point, as in published graphs: 243 points
    have the levels of 242.
    """
    return int(math.log(max(shape)) / math.log(CHILDREN)) - 1


def legacy_mesh(x: Floats, y: Floats, levels: int) -> Mesh:
    """The first levels of the mesh.

    Args:
        x: (lat, lon) coordinate, scaled to [0, 1] or in metres.
        y: (lat, lon) coordinate, likewise.
        levels: from 1 to :func:`legacy_levels`.
    """
    largest = legacy_levels((x.shape[0], x.shape[1]))
    lattices = [
        Lattice(_centres(x, CHILDREN ** (largest - level)), _centres(y, CHILDREN ** (largest - level)))
        for level in range(levels)
    ]
    radius = RADIUS * lattices[0].spacing[1]
    return Mesh(np.stack([x.ravel(), y.ravel()], axis=1), lattices, radius, sign=-1)


def _centres(values: Floats, n: int) -> Floats:
    edges = np.linspace(values.min(), values.max(), n + 1)
    return edges[:-1] + (edges[1] - edges[0]) / 2
