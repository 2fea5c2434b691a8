"""Graph construction and training steps of the limited-area graph networks, against other ways to do the same.

Run ``python -m benchmarks.lam``. Three parts:

- making the legacy graph of a grid, against the same edges put one by one into networkx;
- a training step (forward and backward, float32) of GraphLAM and HiLAM against mfai's, with the same graph, widths,
  layers and weights, eager and compiled;
- single layers between grid and mesh, likewise.

Weights are given to mfai's networks parameter by parameter in the order in which both define them, and outputs are
compared before anything is timed. Rates are medians of rounds in which everything takes its turn. networkx and mfai are
left out where they are not installed.
"""

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ai4sim.atomic import atomic_path
from benchmarks.common import digits, machine, rates_in_turns
from weather_forecast.lam.graphs.build import GraphSettings, build_flat
from weather_forecast.lam.graphs.io import write_mllam
from weather_forecast.lam.graphs.legacy import legacy_levels, legacy_mesh
from weather_forecast.lam.graphs.structure import FlatGraph
from weather_forecast.lam.networks.base import Grid
from weather_forecast.lam.networks.graph_lam import GraphLAM
from weather_forecast.lam.networks.graph_network import GraphNetwork, GraphNetworkSettings
from weather_forecast.lam.networks.hi_lam import HiLAM
from weather_forecast.lam.networks.interaction import InteractionNet
from weather_forecast.lam.networks.topology import Topology

CHANNELS = 46, 21
LAYERS = ("g2m", "m2g")
NETWORKS: Mapping[str, type[GraphNetwork]] = {"GraphLAM": GraphLAM, "HiLAM": HiLAM}
PEER = "mfai"
TOLERANCE = 1e-5  # of outputs, relative to the largest

Call = Callable[[], object]


def unit_grid(shape: tuple[int, int]) -> Grid:
    """A grid with a spacing of 1 km."""
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij")
    return Grid(x, y)


def networkx_edges(grid: Grid) -> int:
    """The legacy flat graph node by node and edge by edge; number of edges.

    Every edge gets its length and displacement, as node-by-node builders do, and neighbours come from a search tree.
    """
    import networkx
    from scipy.spatial import KDTree

    x, y = (values.numpy() / values.max().item() for values in (grid.x, grid.y))
    mesh = legacy_mesh(x, y, legacy_levels(grid.shape))
    graph = networkx.DiGraph()
    bottom = mesh.levels[0]
    positions = bottom.positions()
    for node, position in enumerate(positions):
        graph.add_node(("mesh", node), pos=position)
    for node, position in enumerate(mesh.points):
        graph.add_node(("grid", node), pos=position)

    def join(sender: tuple[str, int], receiver: tuple[str, int]) -> None:
        difference = graph.nodes[sender]["pos"] - graph.nodes[receiver]["pos"]
        graph.add_edge(sender, receiver, length=np.sqrt(np.sum(difference**2)), displacement=difference)

    columns, rows = len(bottom.x), len(bottom.y)
    for step in (3**level for level in range(len(mesh.levels))):
        for row in range((step - 1) // 2, rows, step):
            for column in range((step - 1) // 2, columns, step):
                for up, right in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
                    if 0 <= row + up * step < rows and 0 <= column + right * step < columns:
                        other = (row + up * step) * columns + column + right * step
                        join(("mesh", row * columns + column), ("mesh", other))
    of_grid, of_mesh = KDTree(mesh.points), KDTree(positions)
    for node, position in enumerate(positions):
        for point in of_grid.query_ball_point(position, mesh.radius):
            join(("grid", point), ("mesh", node))
    for point, position in enumerate(mesh.points):
        for node in of_mesh.query(position, 4)[1]:
            join(("mesh", int(node)), ("grid", point))
    # what training needs in the end
    np.array([(sender[1], receiver[1]) for sender, receiver in graph.edges])
    np.array([data["length"] for *_, data in graph.edges(data=True)])
    return int(graph.number_of_edges())


def measure_construction(shape: tuple[int, int], repeats: int) -> list[dict[str, Any]]:
    """Seconds of wall time to make a graph: ours in both modes, and networkx."""
    grid = unit_grid(shape)
    records: list[dict[str, Any]] = []
    counts = {}
    for mode in ("legacy", "rect"):
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            graph = build_flat(grid.x, grid.y, GraphSettings(mode=mode))
            seconds.append(time.perf_counter() - start)
        counts[mode] = graph.g2m.num_edges + graph.m2m.num_edges + graph.m2g.num_edges
        records.append({"what": f"{mode} graph", "edges": counts[mode], "seconds": statistics.median(seconds)})
    if find_spec("networkx") is None or find_spec("scipy") is None:
        print("networkx or scipy is not installed: its graph construction is left out")
    else:
        start = time.perf_counter()
        edges = networkx_edges(grid)
        seconds = [time.perf_counter() - start]
        if edges != counts["legacy"]:
            raise RuntimeError(f"networkx made {edges} edges, we made {counts['legacy']}")
        records.append({"what": "legacy graph, networkx", "edges": edges, "seconds": seconds[0]})
        records[0]["times_faster_than_networkx"] = digits(seconds[0] / records[0]["seconds"])
    return [{**record, "grid": list(shape), "seconds": digits(record["seconds"])} for record in records]


def peer_network(own: GraphNetwork) -> nn.Module:
    """The peer's network of the same name on the same graph with the same weights."""
    from mfai.pytorch.models import nlam

    settings = own.settings
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        graph = own.make_graph(unit_grid((own.input_shape[0], own.input_shape[1])))
        write_mllam(graph, folder)
        kind = getattr(nlam, type(own).__name__)
        options = nlam.GraphLamSettings(
            tmp_dir=Path(folder),
            hidden_dims=settings.hidden_dims,
            hidden_layers=settings.hidden_layers,
            processor_layers=settings.processor_layers,
            mesh_aggr=settings.mesh_aggr,
        )
        peer: nn.Module = kind(own.in_channels, own.out_channels, own.input_shape, options)
    # it counts senders from the first one that has an edge, which some corners of the legacy graph have not
    for layer, net in (("g2m", own.g2m_net), ("m2g", own.m2g_net)):
        set_peer_edges(getattr(peer, f"{layer}_gnn"), net.topology)
    copy_weights(own, peer)
    return peer


def set_peer_edges(layer: nn.Module, topology: Topology) -> None:
    """Give a layer of mfai our edges, which it numbers with the receivers first."""
    layer.edge_index = torch.stack([topology.senders + topology.num_receivers, topology.receivers])
    if layer.num_rec != topology.num_receivers:
        raise RuntimeError(f"mfai has {layer.num_rec} receivers, we have {topology.num_receivers}")


def copy_weights(own: nn.Module, peer: nn.Module) -> None:
    """Parameters in the order of their definition, which must agree in number and shapes."""
    with torch.no_grad():
        for ours, theirs in zip(own.parameters(), peer.parameters(), strict=True):
            if ours.shape != theirs.shape:
                raise RuntimeError(f"parameters {tuple(ours.shape)} and {tuple(theirs.shape)} do not correspond")
            theirs.copy_(ours)


def peer_layer(own: InteractionNet, hidden_dims: int) -> nn.Module:
    """The peer's interaction network without update of the edges, on the same edges with the same weights."""
    from mfai.pytorch.models.nlam import interaction_net

    topology = own.topology
    peer: nn.Module = interaction_net.InteractionNet(
        torch.stack([topology.senders, topology.receivers]), hidden_dims, hidden_layers=1, update_edges=False
    )
    set_peer_edges(peer, topology)
    copy_weights(own, peer)
    return peer


def check_same(own: Tensor, peer: Tensor, what: str) -> float:
    """Largest difference of outputs relative to the largest output.

    Raises:
        RuntimeError: it is more than rounding.
    """
    difference = ((own - peer).abs().max() / peer.abs().max()).item()
    if not difference <= TOLERANCE:
        raise RuntimeError(f"{what}: outputs differ by {difference:.1e} of the largest")
    return difference


def step(network: Any, *inputs: Tensor) -> Tensor:
    """Forward and backward; the gradients stay until the next step."""
    network.zero_grad(set_to_none=True)
    for value in inputs:
        value.grad = None
    loss: Tensor = network(*inputs).square().mean()
    loss.backward()
    return loss


def forms(pairs: Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]], compiled: bool) -> dict[str, Call]:
    """Steps of the networks, by "name · form"."""
    calls: dict[str, Call] = {f"{name} · eager": partial(step, net, *inputs) for name, (net, inputs) in pairs.items()}
    if compiled:
        for name, (net, inputs) in pairs.items():
            calls[f"{name} · compiled"] = partial(step, torch.compile(net), *inputs)
    return calls


def measure_steps(options: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """Training steps of whole networks and of single layers, ours alone or in turns with mfai's."""
    has_peer = find_spec("mfai") is not None and find_spec("torch_geometric") is not None
    if not has_peer:
        print("mfai is not installed: ours is measured alone")
    records = []
    for size in options.sizes:
        shape = (size, size)
        for name in options.networks:
            torch.manual_seed(0)
            settings = GraphNetworkSettings(graph="legacy")
            own = NETWORKS[name](*CHANNELS, shape, settings, unit_grid(shape)).to(device)
            peer = peer_network(own.cpu()).to(device) if has_peer else None
            own.to(device)
            for batch in options.batches:
                x = torch.randn(batch, size * size, CHANNELS[0], device=device)
                records += measure_pair(name, own, peer, (x,), (x,), size, batch, options)
        if options.layers:
            flat = build_flat(unit_grid(shape).x, unit_grid(shape).y, GraphSettings(mode="legacy"))
            for layer in LAYERS:
                for batch in options.batches:
                    records += measure_layer(layer, flat, size, batch, options, device, has_peer)
    return records


def measure_layer(
    layer: str,
    graph: FlatGraph,
    size: int,
    batch: int,
    options: argparse.Namespace,
    device: torch.device,
    has_peer: bool,
) -> list[dict[str, Any]]:
    """One layer between grid and mesh, with gradients of nodes, edges and weights."""
    edges = getattr(graph, layer)
    d = GraphNetworkSettings().hidden_dims
    torch.manual_seed(0)
    own = InteractionNet(Topology(edges.index, edges.num_senders, edges.num_receivers), d)
    peer = peer_layer(own, d).to(device) if has_peer else None
    own.to(device)
    sizes = (batch, edges.num_senders, d), (batch, edges.num_receivers, d), (edges.num_edges, d)
    senders, receivers, values = (torch.randn(s, device=device, requires_grad=True) for s in sizes)
    # mfai wants one copy of the edges per sample; a view of the same memory, as its networks give it
    expanded = values.detach().expand(batch, -1, -1).requires_grad_()
    own_inputs, peer_inputs = (senders, receivers, values), (senders, receivers, expanded)
    return measure_pair(f"{layer} layer", own, peer, own_inputs, peer_inputs, size, batch, options)


def measure_pair(
    name: str,
    own: nn.Module,
    peer: nn.Module | None,
    own_inputs: tuple[Tensor, ...],
    peer_inputs: tuple[Tensor, ...],
    size: int,
    batch: int,
    options: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Steps of one network, ours and mfai's in turns."""
    difference = None
    pairs = {"ours": (own, own_inputs)}
    if peer is not None:
        with torch.no_grad():
            difference = check_same(own(*own_inputs), peer(*peer_inputs), name)
        pairs[PEER] = (peer, peer_inputs)
    Console(stderr=True).print(f"measuring {name}, {size} x {size}, batch {batch}")
    device = own_inputs[0].device
    synchronize = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    torch.compiler.reset()
    rates = rates_in_turns(
        forms(pairs, name in options.compiled and batch == options.batches[-1]),
        items=1,
        seconds=options.seconds,
        repeats=options.repeats,
        synchronize=synchronize,
    )
    label = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    records = []
    for key, values in rates.items():
        implementation, form = key.split(" · ")
        record: dict[str, Any] = {
            "what": name,
            "grid": [size, size],
            "batch": batch,
            "device": label,
            "implementation": implementation,
            "form": form,
            "milliseconds": digits(1000 / statistics.median(values)),
            "fastest": digits(1000 / max(values)),
            "slowest": digits(1000 / min(values)),
        }
        if implementation == "ours":
            for other in ("eager", "compiled"):
                theirs = rates.get(f"{PEER} · {other}")
                if theirs:
                    # of each round, so that a disturbance of the whole machine cancels
                    ratios = [b / a for a, b in zip(values, theirs, strict=True)]
                    record[f"time_over_{PEER}_{other}"] = digits(statistics.median(ratios))
            record["outputs_differ"] = difference
        records.append(record)
    return records


def show(construction: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]]) -> None:
    """Print both tables."""
    console = Console(width=130)
    if construction:
        table = Table(title="graph construction, {} x {}".format(*construction[0]["grid"]))
        for column in ("graph", "edges", "seconds"):
            table.add_column(column, justify="left" if column == "graph" else "right")
        for record in construction:
            table.add_row(record["what"], f"{record['edges']:,}", f"{record['seconds']:.3g}")
        console.print(table)
    table = Table(title="forward and backward, milliseconds; ratios: our time over mfai's")
    for column in ("what", "grid", "batch", "device", "implementation", "form"):
        table.add_column(column)
    for column in ("ms", "/ mfai eager", "/ mfai compiled"):
        table.add_column(column, justify="right")
    for record in steps:
        ratios = [record.get(f"time_over_{PEER}_{form}") for form in ("eager", "compiled")]
        table.add_row(
            *(str(record[key]) for key in ("what", "grid", "batch", "device", "implementation", "form")),
            f"{record['milliseconds']:.3g}",
            *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
        )
    console.print(table)


def main(args: list[str] | None = None) -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.3, help="wall time per measurement")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128], help="rows and columns of square grids")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--networks", nargs="*", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--no-layers", dest="layers", action="store_false", help="leave single layers out")
    parser.add_argument(
        "--compiled",
        nargs="*",
        default=["GraphLAM"],
        help="networks that are measured compiled, too, at the last batch",
    )
    parser.add_argument(
        "--construction", type=int, nargs="*", default=[512, 640], help="rows and columns; none: left out"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/lam_graphs.json"))
    options = parser.parse_args(args)
    torch.set_num_threads(options.threads)
    construction = measure_construction(tuple(options.construction), 3) if options.construction else []
    steps = measure_steps(options, torch.device(options.device))
    show(construction, steps)
    packages = [name for name in ("numpy", "torch", "mfai", "networkx") if find_spec(name) is not None]
    result = {
        "benchmark": "lam_graphs",
        "machine": machine(*packages),
        "threads": options.threads,
        "construction": construction,
        "results": steps,
    }
    with atomic_path(options.output) as partial_file:
        partial_file.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
