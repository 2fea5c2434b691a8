"""HiLAM and HiLAMParallel: message passing on a mesh in levels."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from weather_forecast.lam.graphs.structure import EDGE_FEATURES, MESH_FEATURES, EdgeSet, Graph, HierarchicalGraph
from weather_forecast.lam.networks.graph_network import GraphNetwork, PerLevel, distinct_edges, mesh_features
from weather_forecast.lam.networks.interaction import InteractionNet, Messages
from weather_forecast.lam.networks.topology import Topology


class HierarchicalNetwork(GraphNetwork):
    """What both hierarchical networks share: embedders per level, the way up before and the way down after.

    Arguments as in :class:`GraphNetwork`.
    """

    hierarchical: ClassVar[bool] = True
    init_nets: Any  # module lists, whose entries have no type of their own
    read_nets: Any

    def make_processor(self, graph: Graph) -> None:
        """Embedders of each level; networks that carry the bottom's values up, and the top's down in the end."""
        assert isinstance(graph, HierarchicalGraph)
        self.num_levels = graph.num_levels
        positions = [mesh_features(features, graph) for features in graph.mesh_features]
        self.mesh_embedders = PerLevel(positions, [self.mlp(MESH_FEATURES) for _ in positions])
        self.same_embedders, self.same = self._edge_sets(graph.same, graph)
        self.up_embedders, self.up = self._edge_sets(graph.up, graph)
        self.down_embedders, self.down = self._edge_sets(graph.down, graph)
        self.init_nets = nn.ModuleList(self.net_between(topology) for topology in self.up)
        self.read_nets = nn.ModuleList(self.net_between(topology) for topology in self.down)

    def _edge_sets(self, sets: Sequence[EdgeSet], graph: Graph) -> tuple[PerLevel, list[Topology]]:
        pairs = [distinct_edges(edges, graph) for edges in sets]
        embedders = [self.mlp(EDGE_FEATURES) for _ in sets]
        return PerLevel([features for features, _ in pairs], embedders), [topology for _, topology in pairs]

    def embed_mesh(self) -> Tensor:
        """(bottom nodes, d)."""
        return self.mesh_embedders[0]

    def process(self, mesh: Tensor) -> Tensor:
        """(batch, bottom nodes, d) to the same: up through the levels, the sweeps, and down again."""
        upper = range(1, self.num_levels)
        nodes = [mesh, *(self.mesh_embedders[level].expand(len(mesh), -1, -1) for level in upper)]
        same = [self.same_embedders[level] for level in range(self.num_levels)]
        up = [self.up_embedders[level - 1] for level in upper]
        down = [self.down_embedders[level - 1] for level in upper]
        for level in upper:
            nodes[level], up[level - 1] = self.init_nets[level - 1].with_edges(
                nodes[level - 1], nodes[level], up[level - 1]
            )
        self.sweep(nodes, same, up, down)
        for level in reversed(range(self.num_levels - 1)):
            nodes[level] = self.read_nets[level](nodes[level + 1], nodes[level], down[level])
        return nodes[0]

    @abstractmethod
    def sweep(self, nodes: list[Tensor], same: list[Tensor], up: list[Tensor], down: list[Tensor]) -> None:
        """Pass messages within and between levels, and replace the values in the lists, bottom first."""


class HiLAM(HierarchicalNetwork):
    """Sequential sweeps down and up through the levels (Oskarsson et al. 2023, arXiv 2309.17370).

    Every layer of the processor goes down (within the top level; then from each level to the one below and within that)
    and up again, each time with networks of its own. Arguments as in :class:`GraphNetwork`.
    """

    down_nets: Any
    down_same_nets: Any
    up_nets: Any
    up_same_nets: Any

    def make_processor(self, graph: Graph) -> None:
        """Networks of the sweeps, in lists by layer and level."""
        super().make_processor(graph)
        aggregation, layers = self.settings.mesh_aggr, range(self.settings.processor_layers)

        def between(topologies: Sequence[Topology]) -> nn.ModuleList:
            return nn.ModuleList(self.net_between(topology, aggregation) for topology in topologies)

        def within(topologies: Sequence[Topology]) -> nn.ModuleList:
            return nn.ModuleList(self.net(topology, aggregation) for topology in topologies)

        self.down_nets = nn.ModuleList(between(self.down) for _ in layers)
        self.down_same_nets = nn.ModuleList(within(self.same) for _ in layers)
        self.up_nets = nn.ModuleList(between(self.up) for _ in layers)
        self.up_same_nets = nn.ModuleList(within(self.same) for _ in layers)

    def sweep(self, nodes: list[Tensor], same: list[Tensor], up: list[Tensor], down: list[Tensor]) -> None:
        """All layers, down and up."""
        top, last = self.num_levels - 1, self.settings.processor_layers - 1
        for layer in range(last + 1):
            self._within(self.down_same_nets[layer][top], nodes, same, top)
            for level in reversed(range(top)):
                net: InteractionNet = self.down_nets[layer][level]
                nodes[level], down[level] = net.with_edges(nodes[level + 1], nodes[level], down[level])
                self._within(self.down_same_nets[layer][level], nodes, same, level)
            # nobody reads the edges within levels and upward after the last sweep
            self._within(self.up_same_nets[layer][0], nodes, same, 0, update=layer < last)
            for level in range(1, top + 1):
                net = self.up_nets[layer][level - 1]
                if layer < last:
                    nodes[level], up[level - 1] = net.with_edges(nodes[level - 1], nodes[level], up[level - 1])
                else:
                    nodes[level] = net(nodes[level - 1], nodes[level], up[level - 1])
                self._within(self.up_same_nets[layer][level], nodes, same, level, update=layer < last)

    @staticmethod
    def _within(net: InteractionNet, nodes: list[Tensor], same: list[Tensor], level: int, update: bool = True) -> None:
        if update:
            nodes[level], same[level] = net.with_edges(nodes[level], nodes[level], same[level])
        else:
            nodes[level] = net(nodes[level], nodes[level], same[level])


class ParallelLayer(nn.Module):
    """Messages along all edges of a mesh at once, and one update of the nodes of each level.

    Instead of edges with global node numbers, sets stay apart and their sums meet at the receivers, which is the same.

    Args:
        same, up, down: messages of each set.
        node_mlps: one per level.
        mean: mean instead of sum over all edges of a receiver.
    """

    def __init__(
        self,
        same: Sequence[Messages],
        up: Sequence[Messages],
        down: Sequence[Messages],
        node_mlps: Sequence[nn.Module],
        mean: bool,
    ) -> None:
        super().__init__()
        self.same, self.up, self.down = nn.ModuleList(same), nn.ModuleList(up), nn.ModuleList(down)
        self.node_mlps, self.mean = nn.ModuleList(node_mlps), mean
        for level in range(len(self.same)):
            counts = torch.stack([messages.topology.receiver_offsets.diff() for messages in self._arriving(level)]).sum(
                0
            )
            inverse = 1 / counts.clamp(min=1)[:, None]
            self.register_buffer(f"inverse_counts_{level}", inverse, persistent=False)

    def _arriving(self, level: int) -> list[Messages]:
        arriving: list[nn.Module] = [self.same[level]]
        if level > 0:
            arriving.append(self.up[level - 1])
        if level < len(self.same) - 1:
            arriving.append(self.down[level])
        return [cast(Messages, messages) for messages in arriving]

    def forward(
        self, nodes: list[Tensor], same: list[Tensor], up: list[Tensor], down: list[Tensor], last: bool
    ) -> None:
        """Replace the values in the lists, bottom first; in the last layer only those that are read afterwards."""
        old = list(nodes)
        for level in range(len(nodes)):
            total, new = self.same[level](old[level], old[level], same[level], update=not last)
            same[level] = same[level] if last else new
            if level > 0:
                more, new = self.up[level - 1](old[level - 1], old[level], up[level - 1], update=not last)
                up[level - 1] = up[level - 1] if last else new
                total = total + more
            if level < len(nodes) - 1:
                more, down[level] = self.down[level](old[level + 1], old[level], down[level], update=True)
                total = total + more
            if self.mean:
                total = total * self.get_buffer(f"inverse_counts_{level}").to(total.dtype)
            nodes[level] = self.node_mlps[level](old[level], total, residual=0)


class HiLAMParallel(HierarchicalNetwork):
    """Messages within and between all levels at once (Oskarsson et al. 2023, arXiv 2309.17370).

    A layer has one message perceptron per set of edges and one node perceptron per level. Arguments as in
    :class:`GraphNetwork`; `propagation` concerns the ways to and from the mesh, up before and down after the processor.
    """

    def make_processor(self, graph: Graph) -> None:
        """Layers of the processor."""
        super().make_processor(graph)
        settings = self.settings

        def messages(topologies: Sequence[Topology]) -> list[Messages]:
            options = settings.hidden_dims, settings.hidden_layers, settings.use_checkpointing
            return [Messages(topology, *options) for topology in topologies]

        self.processor = nn.ModuleList(
            ParallelLayer(
                *(messages(self.same), messages(self.up), messages(self.down)),
                [self.mlp(2 * settings.hidden_dims) for _ in self.same],
                mean=settings.mesh_aggr == "mean",
            )
            for _ in range(settings.processor_layers)
        )

    def sweep(self, nodes: list[Tensor], same: list[Tensor], up: list[Tensor], down: list[Tensor]) -> None:
        """All layers."""
        for number, layer in enumerate(self.processor, start=1):
            layer(nodes, same, up, down, last=number == len(self.processor))
