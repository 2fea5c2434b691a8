"""What graph networks share: encode a grid on a mesh, process there, decode."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ai4sim.errors import InputError
from weather_forecast.lam.graphs.build import GraphSettings, build_flat, build_hierarchical
from weather_forecast.lam.graphs.cache import cached
from weather_forecast.lam.graphs.io import read_mllam
from weather_forecast.lam.graphs.structure import (
    EDGE_FEATURES,
    MESH_FEATURES,
    EdgeSet,
    FlatGraph,
    Graph,
    HierarchicalGraph,
)
from weather_forecast.lam.networks.base import Grid, LamNetwork, ModelType
from weather_forecast.lam.networks.interaction import AGGREGATIONS, MLP, InteractionNet, PropagationNet
from weather_forecast.lam.networks.topology import Topology

RESOLUTION = 1e-6  # of displacements, in units of the longest edge


@dataclass(frozen=True)
class GraphNetworkSettings:
    """Settings of graph networks and of their graph.

    Args:
        hidden_dims: features of nodes and edges.
        hidden_layers: of the perceptrons.
        processor_layers: message passing steps on the mesh, or sweeps over its levels.
        mesh_aggr: aggregation of messages in the processor, "sum" or "mean".
        propagation: propagation instead of interaction networks between grid and mesh and between levels.
        use_checkpointing: make intermediate values again in the backward pass instead of keeping them.
        graph: "rect"; "legacy" for the graphs of publications; "mllam" to read one from `graph_folder`.
        levels: of the mesh; None for as many as fit (rect: up to 4).
        mesh_spacing: rect: grid cells per mesh cell; None for 3, and 8 from 300,000 grid nodes on.
        legacy_scaled: legacy: coordinates scaled to [0, 1], as for TITAN; otherwise km, as for MEPS.
        graph_cache: folder where graphs are kept; none when absent.
        graph_folder: mllam: folder with a graph.

    Raises:
        InputError: a value is out of range.
    """

    hidden_dims: int = 64
    hidden_layers: int = 1
    processor_layers: int = 4
    mesh_aggr: str = "sum"
    propagation: bool = False
    use_checkpointing: bool = False
    graph: str = "rect"
    levels: int | None = None
    mesh_spacing: float | None = None
    legacy_scaled: bool = True
    graph_cache: str | None = None
    graph_folder: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("hidden_dims", 1), ("hidden_layers", 1), ("processor_layers", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name}: {least} or more expected, not {getattr(self, name)}")
        if self.mesh_aggr not in AGGREGATIONS:
            raise InputError(f"mesh_aggr {self.mesh_aggr!r}: expected one of {', '.join(AGGREGATIONS)}")
        if self.graph == "mllam" and self.graph_folder is None:
            raise InputError("graph 'mllam' is read from a folder: set graph_folder")
        if self.graph != "mllam":
            self.of_graph()

    def of_graph(self) -> GraphSettings:
        """What decides about the graph."""
        return GraphSettings(self.graph, self.levels, self.mesh_spacing, self.legacy_scaled)


class GraphNetwork(LamNetwork):
    """Encode, process, decode (Keisler 2022, arXiv 2202.07575; Oskarsson et al. 2023, arXiv 2309.17370).

    Takes and gives (batch, ngrid, features), rows outer, columns inner. The graph is made from the grid again whenever
    the network is, and is no part of the state: checkpoints hold parameters alone.

    Args:
        in_channels: number of input channels.
        out_channels: number of output channels.
        input_shape: rows and columns of the grid.
        settings: of network and graph.
        grid: positions of the points.

    Raises:
        InputError: no grid, a grid of another shape, or one that is too small for the mesh.
    """

    settings_kls = GraphNetworkSettings
    model_type = ModelType.GRAPH
    hierarchical: ClassVar[bool]
    g2m_features: Tensor
    m2g_features: Tensor

    def build(self, grid: Grid | None) -> None:
        """Make the layers."""
        if grid is None:
            raise InputError(f"{type(self).__name__} needs the positions of the grid points")
        if grid.shape != self.input_shape:
            raise InputError(
                f"{type(self).__name__}: positions of a grid {grid.shape[0]} x {grid.shape[1]}, fields of "
                f"{self.input_shape[0]} x {self.input_shape[1]}"
            )
        graph = self.make_graph(grid)
        d = self.settings.hidden_dims
        self.grid_embedder = self.mlp(self.in_channels)
        self.g2m_embedder = self.mlp(EDGE_FEATURES)
        self.m2g_embedder = self.mlp(EDGE_FEATURES)
        self.g2m_net = self.net_between(self.edges("g2m", graph.g2m, graph))
        self.grid_encoder = self.mlp(d)
        self.m2g_net = self.net_between(self.edges("m2g", graph.m2g, graph))
        self.output_map = MLP(
            *(d, d, self.settings.hidden_layers, self.out_channels),
            norm=False,
            use_checkpointing=self.settings.use_checkpointing,
        )
        self.make_processor(graph)

    @classmethod
    def setup_once(cls, settings: GraphNetworkSettings, grid: Grid) -> None:
        """Put the graph into the cache, if there is one, before several processes ask for it."""
        if settings.graph_cache is not None and settings.graph != "mllam":
            _build(settings, grid, cls.hierarchical)

    def make_graph(self, grid: Grid) -> Graph:
        """The graph that the settings ask for.

        Raises:
            InputError: the grid is too small, or the folder holds another kind of graph.
        """
        settings: GraphNetworkSettings = self.settings
        if settings.graph != "mllam":
            return _build(settings, grid, self.hierarchical)
        assert settings.graph_folder is not None
        graph = read_mllam(settings.graph_folder, grid.shape[0] * grid.shape[1])
        if isinstance(graph, HierarchicalGraph) != self.hierarchical:
            kinds = ("flat", "hierarchical")
            raise InputError(
                f"{settings.graph_folder} holds a {kinds[not self.hierarchical]} graph, {type(self).__name__} needs a "
                f"{kinds[self.hierarchical]} one"
            )
        return graph

    @abstractmethod
    def make_processor(self, graph: Graph) -> None:
        """Make what works on the mesh, and its embedders."""

    @abstractmethod
    def embed_mesh(self) -> Tensor:
        """(bottom nodes, d) values of the nodes that the grid sends to."""

    @abstractmethod
    def process(self, mesh: Tensor) -> Tensor:
        """(batch, bottom nodes, d) to the same."""

    def mlp(self, in_features: int) -> MLP:
        """A perceptron of the settings' width and depth."""
        settings: GraphNetworkSettings = self.settings
        return MLP(
            *(in_features, settings.hidden_dims, settings.hidden_layers), use_checkpointing=settings.use_checkpointing
        )

    def net(self, topology: Topology, aggregation: str = "sum") -> InteractionNet:
        """An interaction network of the settings' width and depth."""
        settings: GraphNetworkSettings = self.settings
        return InteractionNet(
            topology, settings.hidden_dims, settings.hidden_layers, aggregation, settings.use_checkpointing
        )

    def net_between(self, topology: Topology, aggregation: str = "sum") -> InteractionNet:
        """The network between different sets of nodes, which may be a propagation network."""
        settings: GraphNetworkSettings = self.settings
        kind = PropagationNet if settings.propagation else InteractionNet
        return kind(topology, settings.hidden_dims, settings.hidden_layers, aggregation, settings.use_checkpointing)

    def edges(self, name: str, edges: EdgeSet, graph: Graph) -> Topology:
        """Keep the features of a set of edges as buffer `name`_features; see :func:`distinct_edges`."""
        features, topology = distinct_edges(edges, graph)
        self.register_buffer(f"{name}_features", features, persistent=False)
        return topology

    def forward(self, x: Tensor) -> Tensor:
        """One step.

        Args:
            x: (batch, ngrid, in_channels).

        Returns:
            (batch, ngrid, out_channels).

        Raises:
            ValueError: `x` has another shape.
        """
        expected = (self.input_shape[0] * self.input_shape[1], self.in_channels)
        if tuple(x.shape[1:]) != expected:
            raise ValueError(
                f"{type(self).__name__}: (batch, {expected[0]}, {expected[1]}) expected, not {tuple(x.shape)}"
            )
        points = self.grid_embedder(x)
        mesh = self.embed_mesh().expand(len(x), -1, -1)
        mesh = self.g2m_net(points, mesh, self.g2m_embedder(self.g2m_features))
        mesh = self.process(mesh)
        points = self.grid_encoder(points, residual=0)
        points = self.m2g_net(mesh, points, self.m2g_embedder(self.m2g_features))
        result: Tensor = self.output_map(points)
        return result


def distinct_edges(edges: EdgeSet, graph: Graph) -> tuple[Tensor, Topology]:
    """Features of a set of edges, divided by the longest edge of the mesh, and which nodes the edges join.

    On lattices few displacements occur, many times each; edges that share one are embedded once. Displacements count as
    the same within a millionth of the longest edge, which is the rounding of float32.

    Args:
        edges: in any order.
        graph: that they belong to.

    Returns:
        (rows, 3), one row per displacement if that at least halves their number, otherwise one per edge in the order of
        their receivers; and the topology.
    """
    edges = edges.sorted_by_receiver()
    features = edges.features / graph.edge_scale
    rounded = (features[:, 1:].double() / RESOLUTION).round().long()
    _, first, rows = np.unique(rounded[:, 0] * (1 << 32) + rounded[:, 1], return_index=True, return_inverse=True)
    sizes = edges.num_senders, edges.num_receivers
    if 2 * len(first) > edges.num_edges:
        return features, Topology(edges.index, *sizes)
    return features[first], Topology(edges.index, *sizes, torch.from_numpy(rows))


class PerLevel(nn.Module):
    """Values of each level of a mesh, or of each step between levels, embedded by perceptrons of their own.

    Args:
        features: (n, features) per level.
        embedders: one per level.
    """

    def __init__(self, features: Sequence[Tensor], embedders: Sequence[MLP]) -> None:
        super().__init__()
        self.embedders = nn.ModuleList(embedders)
        for level, values in enumerate(features):
            self.register_buffer(f"features_{level}", values, persistent=False)

    def __getitem__(self, level: int) -> Tensor:
        """(n, d) values of a level."""
        result: Tensor = self.embedders[level](self.get_buffer(f"features_{level}"))
        return result


def mesh_features(features: Tensor, graph: Graph) -> Tensor:
    """(nodes, 2) positions, divided by the largest coordinate."""
    assert features.shape[1] == MESH_FEATURES
    return features / graph.mesh_scale


def _build(settings: GraphNetworkSettings, grid: Grid, hierarchical: bool) -> Graph:
    x, y, of_graph = grid.x, grid.y, settings.of_graph()
    if settings.graph_cache is None:
        return build_hierarchical(x, y, of_graph) if hierarchical else build_flat(x, y, of_graph)
    if hierarchical:
        return cached(settings.graph_cache, x, y, of_graph, HierarchicalGraph, build_hierarchical)
    return cached(settings.graph_cache, x, y, of_graph, FlatGraph, build_flat)
