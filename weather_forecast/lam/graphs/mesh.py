"""From the levels of a mesh to a graph; what both modes of construction share."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from weather_forecast.lam.graphs.lattice import Floats, Indices, Lattice
from weather_forecast.lam.graphs.structure import EdgeSet, FlatGraph, HierarchicalGraph

CHILDREN = 3  # nodes of a level per node of the next one, in each direction
M2G_NEIGHBOURS = 4


@dataclass(frozen=True, eq=False)
class Mesh:
    """Levels of a mesh over a grid; node (I, J) of level l+1 lies on node (3I+1, 3J+1) of level l.

    Args:
        points: (N, 2) x and y of the grid nodes.
        levels: bottom first.
        radius: a grid node sends to the bottom nodes that are at most so far away, unit of the coordinates.
        sign: of displacements: 1 for receiver minus sender, -1 for sender minus receiver.
    """

    points: Floats
    levels: Sequence[Lattice]
    radius: float
    sign: int

    def edges(self, index: Indices, senders: Floats, receivers: Floats) -> EdgeSet:
        """A set of edges in the order of their receivers, with length and displacement."""
        if np.any(index[1, 1:] < index[1, :-1]):
            index = index[:, np.argsort(index[1], kind="stable")]
        index = np.ascontiguousarray(index)
        displacement = self.sign * (receivers[index[1]] - senders[index[0]])
        length = np.sqrt(np.square(displacement).sum(axis=1))  # hypot takes ten times as long
        features = np.column_stack([length, displacement]).astype(np.float32)
        return EdgeSet(torch.from_numpy(index), torch.from_numpy(features), len(senders), len(receivers))

    def grid_to_mesh(self) -> EdgeSet:
        """Edges from the grid to the bottom level."""
        bottom = self.levels[0]
        return self.edges(bottom.within(self.points, self.radius), self.points, bottom.positions())

    def mesh_to_grid(self) -> EdgeSet:
        """Edges from the nearest bottom nodes to each grid node."""
        bottom = self.levels[0]
        index = bottom.nearest(self.points, M2G_NEIGHBOURS)[::-1]
        return self.edges(index, bottom.positions(), self.points)

    def flat(self) -> FlatGraph:
        """All levels united in the nodes of the bottom level."""
        bottom = self.levels[0]
        positions = bottom.positions()
        steps = [CHILDREN**level for level in range(len(self.levels))]
        index = np.concatenate([bottom.neighbours((step - 1) // 2, step) for step in steps], axis=1)
        return FlatGraph(
            mesh_features=torch.from_numpy(positions.astype(np.float32)),
            g2m=self.grid_to_mesh(),
            m2m=self.edges(index, positions, positions),
            m2g=self.mesh_to_grid(),
            mesh_scale=self.largest_coordinate(),
        )

    def hierarchical(self, up_like_down: bool = False) -> HierarchicalGraph:
        """Each level with nodes of its own.

        Args:
            up_like_down: up edges carry the displacements of the down edges, as in published graphs.
        """
        positions = [level.positions() for level in self.levels]
        same = [self.edges(level.neighbours(), p, p) for level, p in zip(self.levels, positions, strict=True)]
        up, down = [], []
        for level in range(len(self.levels) - 1):
            fine, coarse = positions[level], positions[level + 1]
            index = self.levels[level].parents(self.levels[level + 1])
            upward, downward = self.edges(index, fine, coarse), self.edges(index[::-1], coarse, fine)
            if up_like_down:
                features = downward.features[upward.index[0]]  # one down edge per fine node, in their order
                upward = EdgeSet(upward.index, features, upward.num_senders, upward.num_receivers)
            up.append(upward)
            down.append(downward)
        return HierarchicalGraph(
            mesh_features=[torch.from_numpy(p.astype(np.float32)) for p in positions],
            g2m=self.grid_to_mesh(),
            m2g=self.mesh_to_grid(),
            same=same,
            up=up,
            down=down,
            mesh_scale=self.largest_coordinate(),
        )

    def largest_coordinate(self) -> float:
        """Of the grid nodes, 1 where all are zero."""
        return float(np.abs(self.points).max()) or 1.0
