"""What a graph is: sets of edges with explicit numbers of nodes, flat or in levels."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ai4sim.errors import InputError

EDGE_FEATURES = 3
MESH_FEATURES = 2


@dataclass(frozen=True, eq=False)
class EdgeSet:
    """Directed edges between two sets of nodes, each numbered from zero.

    The numbers of nodes are explicit: a set whose last receivers have no edges is legal, and is not to be mistaken for
    one with fewer receivers.

    Args:
        index: (2, E) int64, row 0 senders, row 1 receivers.
        features: (E, 3) float32: length and displacement (dx, dy) in the unit of the coordinates, not normalised.
        num_senders: nodes that may send.
        num_receivers: nodes that may receive.

    Raises:
        InputError: shapes, types or node numbers do not fit.
    """

    index: Tensor
    features: Tensor
    num_senders: int
    num_receivers: int

    def __post_init__(self) -> None:
        if self.index.dtype != torch.int64 or self.index.ndim != 2 or self.index.shape[0] != 2:
            raise InputError(f"edge index: (2, edges) int64 expected, not {tuple(self.index.shape)} {self.index.dtype}")
        expected = (self.index.shape[1], EDGE_FEATURES)
        if tuple(self.features.shape) != expected or self.features.dtype != torch.float32:
            raise InputError(
                f"edge features: {expected} float32 expected, not {tuple(self.features.shape)} {self.features.dtype}"
            )
        if self.num_edges == 0:
            return
        for row, role, count in ((0, "sender", self.num_senders), (1, "receiver", self.num_receivers)):
            low, high = int(self.index[row].min()), int(self.index[row].max())
            if low < 0 or high >= count:
                raise InputError(f"{role}s of edges: 0 to {count - 1} expected, found {low} to {high}")

    @property
    def num_edges(self) -> int:
        """Number of edges."""
        return self.index.shape[1]

    def receiver_counts(self) -> Tensor:
        """(num_receivers,) int64: how many edges end at each receiver."""
        return torch.bincount(self.index[1], minlength=self.num_receivers)

    def sorted_by_receiver(self) -> "EdgeSet":
        """The same edges in the order of their receivers; those of one receiver keep their order."""
        if bool((self.index[1].diff() >= 0).all()):
            return self
        order = torch.argsort(self.index[1], stable=True)
        return EdgeSet(self.index[:, order], self.features[order], self.num_senders, self.num_receivers)

    def longest(self) -> float:
        """Length of the longest edge, 0 when there is none."""
        return float(self.features[:, 0].max()) if self.num_edges else 0.0


@dataclass(frozen=True, eq=False)
class FlatGraph:
    """Grid, and a mesh whose levels are united in one set of nodes.

    Args:
        mesh_features: (mesh nodes, 2) float32: x and y in the unit of the coordinates, not normalised.
        g2m: edges from the grid to the mesh.
        m2m: edges of all levels among the mesh nodes.
        m2g: edges from the mesh to the grid.
        mesh_scale: largest absolute coordinate of a grid node, by which mesh features are divided.

    Raises:
        InputError: the numbers of nodes do not fit together.
    """

    mesh_features: Tensor
    g2m: EdgeSet
    m2m: EdgeSet
    m2g: EdgeSet
    mesh_scale: float

    def __post_init__(self) -> None:
        nodes = check_mesh_features(self.mesh_features)
        check_grid_edges(self.g2m, self.m2g, nodes)
        check_nodes("m2m", self.m2m, nodes, nodes)

    @property
    def num_grid(self) -> int:
        """Number of grid nodes."""
        return self.g2m.num_senders

    @property
    def edge_scale(self) -> float:
        """Length of the longest edge of the mesh, by which edge features are divided."""
        return scale_of([self.m2m], self.g2m)


@dataclass(frozen=True, eq=False)
class HierarchicalGraph:
    """Grid, and a mesh in levels of their own; entry 0 of each list is the bottom.

    Args:
        mesh_features: per level (nodes, 2) float32: x and y in the unit of the coordinates, not normalised.
        g2m: edges from the grid to the bottom level.
        m2g: edges from the bottom level to the grid.
        same: L sets of edges within a level.
        up: L-1 sets of edges from level l to level l+1.
        down: L-1 sets of edges from level l+1 to level l.
        mesh_scale: largest absolute coordinate of a grid node, by which mesh features are divided.

    Raises:
        InputError: the numbers of levels or nodes do not fit together.
    """

    mesh_features: Sequence[Tensor]
    g2m: EdgeSet
    m2g: EdgeSet
    same: Sequence[EdgeSet]
    up: Sequence[EdgeSet]
    down: Sequence[EdgeSet]
    mesh_scale: float

    def __post_init__(self) -> None:
        nodes = [check_mesh_features(features) for features in self.mesh_features]
        levels = len(nodes)
        if levels < 1 or (len(self.same), len(self.up), len(self.down)) != (levels, levels - 1, levels - 1):
            raise InputError(
                f"hierarchical graph: {levels} levels of nodes, but {len(self.same)} sets of edges within levels, "
                f"{len(self.up)} upward and {len(self.down)} downward"
            )
        check_grid_edges(self.g2m, self.m2g, nodes[0])
        for level in range(levels):
            check_nodes(f"same-level edges of level {level}", self.same[level], nodes[level], nodes[level])
        for level in range(levels - 1):
            check_nodes(f"up edges of level {level}", self.up[level], nodes[level], nodes[level + 1])
            check_nodes(f"down edges of level {level}", self.down[level], nodes[level + 1], nodes[level])

    @property
    def num_grid(self) -> int:
        """Number of grid nodes."""
        return self.g2m.num_senders

    @property
    def num_levels(self) -> int:
        """Number of mesh levels."""
        return len(self.mesh_features)

    @property
    def edge_scale(self) -> float:
        """Length of the longest edge within a level, by which edge features are divided."""
        return scale_of(self.same, self.g2m)


Graph = FlatGraph | HierarchicalGraph


def check_mesh_features(features: Tensor) -> int:
    """Number of nodes of a tensor of mesh features, if it is one."""
    if features.ndim != 2 or features.shape[1] != MESH_FEATURES or features.dtype != torch.float32 or len(features) < 1:
        raise InputError(f"mesh features: (nodes, 2) float32 expected, not {tuple(features.shape)} {features.dtype}")
    return len(features)


def check_nodes(name: str, edges: EdgeSet, senders: int, receivers: int) -> None:
    """See that a set of edges joins sets of nodes of these sizes."""
    if (edges.num_senders, edges.num_receivers) != (senders, receivers):
        raise InputError(
            f"{name}: {edges.num_senders} senders and {edges.num_receivers} receivers, "
            f"expected {senders} and {receivers}"
        )


def check_grid_edges(g2m: EdgeSet, m2g: EdgeSet, mesh_nodes: int) -> None:
    """See that both ways between grid and mesh mean the same nodes."""
    check_nodes("g2m", g2m, m2g.num_receivers, mesh_nodes)
    check_nodes("m2g", m2g, mesh_nodes, g2m.num_senders)


def scale_of(sets: Sequence[EdgeSet], fallback: EdgeSet) -> float:
    """Longest edge of the mesh; of the way to it where the mesh is a single node."""
    return max(edges.longest() for edges in sets) or fallback.longest() or 1.0
