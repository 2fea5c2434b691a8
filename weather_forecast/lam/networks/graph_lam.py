"""GraphLAM: message passing on one mesh with edges of many lengths."""

from typing import Any, ClassVar

from torch import Tensor, nn

from weather_forecast.lam.graphs.structure import MESH_FEATURES, FlatGraph, Graph
from weather_forecast.lam.networks.graph_network import GraphNetwork, mesh_features


class GraphLAM(GraphNetwork):
    """Graph network whose mesh levels are united in one set of nodes (GC-LAM of Oskarsson et al. 2023).

    With one level it is the network of Keisler (2022). The processor is a sequence of interaction networks that update
    nodes and edges. Arguments as in :class:`GraphNetwork`.
    """

    hierarchical: ClassVar[bool] = False
    mesh_features: Tensor
    m2m_features: Tensor
    processor: Any  # a module list, whose entries have no type of their own

    def make_processor(self, graph: Graph) -> None:
        """Interaction networks on the flat mesh."""
        assert isinstance(graph, FlatGraph)
        self.register_buffer("mesh_features", mesh_features(graph.mesh_features, graph), persistent=False)
        topology = self.edges("m2m", graph.m2m, graph)
        self.mesh_embedder = self.mlp(MESH_FEATURES)
        self.m2m_embedder = self.mlp(self.m2m_features.shape[1])
        self.processor = nn.ModuleList(
            self.net(topology, self.settings.mesh_aggr) for _ in range(self.settings.processor_layers)
        )

    def embed_mesh(self) -> Tensor:
        """(mesh nodes, d)."""
        result: Tensor = self.mesh_embedder(self.mesh_features)
        return result

    def process(self, mesh: Tensor) -> Tensor:
        """(batch, mesh nodes, d) to the same."""
        edges = self.m2m_embedder(self.m2m_features)
        for number, net in enumerate(self.processor, start=1):
            if number < len(self.processor):
                mesh, edges = net.with_edges(mesh, mesh, edges)
            else:  # nobody reads the last edges
                mesh = net(mesh, mesh, edges)
        return mesh
