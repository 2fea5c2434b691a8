"""A regular mesh of nodes, and which of them are near to given points.

That the nodes are regular makes a search tree needless: where a point lies between rows and columns says which few
nodes can be near, and their distances are a few vectorised operations on all points.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, hypot

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

BLOCK = 1 << 17  # points that are searched at once; bounds the memory


@dataclass(frozen=True, eq=False)
class Lattice:
    """Nodes at all pairs of equidistant x and y, numbered row-major: y outer, x inner.

    Args:
        x: (n_x,) ascending.
        y: (n_y,) ascending.
    """

    x: Floats
    y: Floats

    @property
    def size(self) -> int:
        """Number of nodes."""
        return len(self.x) * len(self.y)

    @property
    def spacing(self) -> tuple[float, float]:
        """Distance of neighbouring columns and of neighbouring rows; infinite where there is only one."""
        columns, rows = (float(c[1] - c[0]) if len(c) > 1 else float("inf") for c in (self.x, self.y))
        return columns, rows

    def positions(self) -> Floats:
        """(size, 2) x and y of all nodes."""
        return np.stack([np.tile(self.x, len(self.y)), np.repeat(self.y, len(self.x))], axis=1)

    def neighbours(self, start: int = 0, step: int = 1) -> Indices:
        """(2, E) senders and receivers of edges between each node and its up to eight neighbours, both ways.

        Args:
            start: first row and column that takes part.
            step: every so many rows and columns take part, and are neighbours of each other.
        """
        nodes = np.arange(self.size, dtype=np.int64).reshape(len(self.y), len(self.x))[start::step, start::step]
        pairs = [
            (nodes[:, :-1], nodes[:, 1:]),
            (nodes[:-1, :], nodes[1:, :]),
            (nodes[:-1, :-1], nodes[1:, 1:]),
            (nodes[:-1, 1:], nodes[1:, :-1]),
        ]
        one_way = np.concatenate([np.stack([a.ravel(), b.ravel()]) for a, b in pairs], axis=1)
        return np.concatenate([one_way, one_way[::-1]], axis=1)

    def parents(self, coarse: "Lattice") -> Indices:
        """(2, size) every node and the nearest node of a lattice with a third of the rows and columns."""
        rows, columns = np.divmod(np.arange(self.size, dtype=np.int64), len(self.x))
        return np.stack([np.arange(self.size, dtype=np.int64), rows // 3 * len(coarse.x) + columns // 3])

    def within(self, points: Floats, radius: float) -> Indices:
        """(2, E) points and the nodes that are at most `radius` away from them.

        Args:
            points: (N, 2) x and y; none is farther outside the lattice than its spacing.
            radius: unit of the coordinates.
        """
        columns, rows = (max(1, ceil(radius / spacing)) for spacing in self.spacing)
        found = []
        for first, nodes, squared in self._candidates(points, columns, rows):
            point, which = np.nonzero(squared <= radius**2)
            found.append(np.stack([point + first, nodes[point, which]]))
        return np.concatenate(found, axis=1)

    def nearest(self, points: Floats, count: int) -> Indices:
        """(2, N·count) points and their `count` <= 4 nearest nodes, fewer where there are fewer nodes.

        Args:
            points: (N, 2) x and y; none is farther outside the lattice than half its spacing.
            count: nodes per point.
        """
        dx, dy = self.spacing
        columns, rows = 2, 2
        if min(len(self.x), len(self.y)) > 1:
            # the four corners around a point are nearer than this, also where it lies outside of one side
            columns = ceil(hypot(dx, 1.5 * dy) / dx)
            rows = ceil(hypot(1.5 * dx, dy) / dy)
        else:
            columns = rows = 4
        count = min(count, self.size)
        found = []
        for first, nodes, squared in self._candidates(points, columns, rows):
            which = np.argpartition(squared, count - 1, axis=1)[:, :count] if squared.shape[1] > count else slice(None)
            chosen = np.take_along_axis(nodes, which, axis=1) if isinstance(which, np.ndarray) else nodes
            point = np.repeat(np.arange(first, first + len(nodes), dtype=np.int64), count)
            found.append(np.stack([point, np.sort(chosen, axis=1).ravel()]))
        return np.concatenate(found, axis=1)

    def _candidates(self, points: Floats, columns: int, rows: int) -> Iterator[tuple[int, Indices, Floats]]:
        """Nodes in windows of 2·columns times 2·rows around points, and their squared distances, in blocks of points.

        Windows are moved inside at the edges; every node that is not in the window is farther than `columns` or `rows`
        spacings in that direction, for points inside.
        """
        width, height = min(2 * columns, len(self.x)), min(2 * rows, len(self.y))
        for first in range(0, len(points), BLOCK):
            x, y = points[first : first + BLOCK].T
            left = self._window(self.x, x, columns, width)
            bottom = self._window(self.y, y, rows, height)
            across = left[:, None] + np.arange(width)
            along = bottom[:, None] + np.arange(height)
            dx2 = (self.x[across] - x[:, None]) ** 2
            dy2 = (self.y[along] - y[:, None]) ** 2
            nodes = (along[:, :, None] * len(self.x) + across[:, None, :]).reshape(len(x), -1)
            yield first, nodes, (dy2[:, :, None] + dx2[:, None, :]).reshape(len(x), -1)

    @staticmethod
    def _window(centres: Floats, values: Floats, half: int, width: int) -> Indices:
        if len(centres) == 1:
            return np.zeros(len(values), dtype=np.int64)
        below = np.floor((values - centres[0]) / (centres[1] - centres[0])).astype(np.int64)
        return np.clip(below - half + 1, 0, len(centres) - width)
