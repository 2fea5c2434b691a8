import pytest
import torch

from ai4sim.errors import InputError
from weather_forecast.lam.graphs.io import write_mllam
from weather_forecast.lam.networks import interaction
from weather_forecast.lam.networks.base import Grid, make_settings
from weather_forecast.lam.networks.graph_lam import GraphLAM
from weather_forecast.lam.networks.graph_network import GraphNetwork, GraphNetworkSettings
from weather_forecast.lam.networks.hi_lam import HiLAM, HiLAMParallel

KINDS = [GraphLAM, HiLAM, HiLAMParallel]
SHAPE = (50, 70)


def grid(rows: int, columns: int) -> Grid:
    y, x = torch.meshgrid(torch.arange(rows) * 2.5, torch.arange(columns) * 2.5, indexing="ij")
    return Grid(x, y)


def small(kind: type[GraphNetwork], shape: tuple[int, int] = SHAPE, **settings: object) -> GraphNetwork:
    torch.manual_seed(0)
    given = {"hidden_dims": 8, "processor_layers": 2, **settings}
    return kind(5, 3, shape, make_settings(GraphNetworkSettings, given), grid(*shape))


def inputs(batch: int = 2, shape: tuple[int, int] = SHAPE) -> torch.Tensor:
    return torch.randn(batch, shape[0] * shape[1], 5, generator=torch.Generator().manual_seed(1))


def gradients(network: GraphNetwork, x: torch.Tensor) -> torch.Tensor:
    network.zero_grad()
    network(x).square().mean().backward()
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


@pytest.mark.parametrize(
    ("kind", "levels", "channels", "count"),
    [
        (GraphLAM, None, (46, 21), 214_485),
        (GraphLAM, None, (54, 17), 214_737),
        (HiLAM, 4, (46, 21), 1_961_493),
        (HiLAM, 4, (54, 17), 1_961_745),
        (HiLAM, 3, (46, 21), 1_418_069),
        (HiLAM, 2, (46, 21), 874_645),
        (HiLAMParallel, 4, (46, 21), 1_193_493),
        (HiLAMParallel, 3, (46, 21), 867_157),
        (HiLAMParallel, 2, (46, 21), 540_821),
    ],
)
def test_number_of_parameters_is_that_of_the_papers_networks(kind, levels, channels, count):
    network = kind(*channels, (90, 90), GraphNetworkSettings(levels=levels), grid(90, 90))
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mesh_aggr": "mean"},
        {"propagation": True},
        {"hidden_layers": 2},
        {"graph": "legacy"},
        {"levels": 2, "mesh_spacing": 4.0},
    ],
)
def test_rectangular_grid_forward_and_backward(kind, settings, monkeypatch):
    network = small(kind, **settings)
    x = inputs()
    y = network(x)
    assert y.shape == (2, 3500, 3)
    gradient = gradients(network, x)
    assert torch.isfinite(gradient).all()
    # every parameter has its part: none is left out of the graph
    assert all(parameter.grad.abs().max() > 0 for parameter in network.parameters())
    monkeypatch.setattr(interaction, "can_fuse", lambda *_: False)
    torch.testing.assert_close(network(x), y, rtol=1e-4, atol=1e-5)
    assert (gradients(network, x) - gradient).norm() < 1e-4 * gradient.norm()


@pytest.mark.parametrize("kind", KINDS)
def test_samples_do_not_mix_and_evaluation_is_deterministic(kind):
    network = small(kind).eval()
    x = inputs(3)
    with torch.inference_mode():
        y = network(x)
        assert torch.equal(network(x), y)
        torch.testing.assert_close(network(x[1:2]), y[1:2], rtol=1e-4, atol=1e-5)
    # what was arranged in inference serves training
    assert torch.isfinite(gradients(network.train(), x[1:2])).all()


@pytest.mark.parametrize("kind", KINDS)
def test_state_holds_parameters_alone_and_gives_the_network_back(kind):
    network, other = small(kind), small(kind)
    assert list(network.state_dict()) == [name for name, _ in network.named_parameters()]
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(inputs()), network(inputs()))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_autocast(kind, layers):
    network = small(kind, hidden_layers=layers)
    x = inputs()
    expected = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = network(x)
        loss = y.float().square().mean()
    if layers == 1:  # fused, and thus in single precision
        assert torch.equal(y, expected)
    else:
        assert y.dtype == torch.bfloat16
        assert (y.float() - expected).abs().max() < 0.1 * expected.abs().max()
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())
    assert all(parameter.grad.dtype == torch.float32 for parameter in network.parameters())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [1, 2])
def test_checkpointing_equals_plain(kind, layers):
    plain, saving = (small(kind, use_checkpointing=flag, hidden_layers=layers) for flag in (False, True))
    x = inputs()
    assert torch.equal(plain(x), saving(x))
    torch.testing.assert_close(gradients(plain, x), gradients(saving, x))


@pytest.mark.parametrize("kind", KINDS)
def test_information_crosses_the_domain(kind):
    """The upper levels carry what happens in one corner to the other one."""
    network = small(kind, processor_layers=6).double().eval()
    x = inputs(1).double()
    changed = x.clone()
    changed[0, 0] += 10.0
    with torch.no_grad():
        difference = (network(changed) - network(x)).abs().amax(-1)[0]
    assert difference[-1] > 0
    assert difference[0] > difference[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_fields_on_the_grid(kind):
    network = small(kind)
    x = inputs().unflatten(1, SHAPE)
    torch.testing.assert_close(network.on_grid(x), network(inputs()).unflatten(1, SHAPE))
    assert network.features_last


def test_processor_order_of_hilam():
    """Down from the top first: with the bottom's first networks silenced, the top still hears of the bottom."""
    network = small(HiLAM, levels=2)
    assert [len(nets) for nets in (network.down_nets, network.up_nets)] == [2, 2]
    assert [len(nets) for nets in (network.down_same_nets[0], network.down_nets[0])] == [2, 1]
    weights = [network.down_same_nets[0][1], network.up_same_nets[0][1]]
    assert weights[0].node_mlp[0].weight is not weights[1].node_mlp[0].weight


def test_parallel_layer_is_one_set_of_edges_with_common_means():
    """The mean is over all edges of a receiver, whichever set they are of."""
    network = small(HiLAMParallel, mesh_aggr="mean", levels=2)
    layer = network.processor[0]
    counts = 1 / layer.get_buffer("inverse_counts_1")[:, 0]
    same = layer.same[1].topology.receiver_offsets.diff()
    assert torch.equal(counts.round().long(), same + 9)  # nine children each


def test_mllam_graph_gives_the_same_network(tmp_path):
    made = small(GraphLAM, graph="legacy")
    write_mllam(made.make_graph(grid(*SHAPE)), tmp_path)
    read = small(GraphLAM, graph="mllam", graph_folder=str(tmp_path))
    # the files do not tell the largest coordinate of the grid, by which positions are divided
    read.mesh_features = made.mesh_features
    torch.testing.assert_close(read(inputs()), made(inputs()))
    with pytest.raises(InputError, match="holds a flat graph, HiLAM needs a hierarchical one"):
        small(HiLAM, graph="mllam", graph_folder=str(tmp_path))


def test_graph_comes_from_the_cache(tmp_path):
    GraphLAM.setup_once(GraphNetworkSettings(graph_cache=str(tmp_path)), grid(*SHAPE))
    (path,) = tmp_path.iterdir()
    before = path.stat().st_mtime_ns
    cached = small(GraphLAM, graph_cache=str(tmp_path))
    assert path.stat().st_mtime_ns == before
    assert torch.equal(cached(inputs()), small(GraphLAM)(inputs()))


def test_distinct_displacements_are_embedded_once():
    network = small(GraphLAM, (64, 64), graph="legacy")
    assert len(network.m2m_features) == 16  # eight neighbours on two levels
    assert len(network.m2g_features) < 16_384 / 4
    rows = network.processor[0].topology.edge_rows
    edges = network.make_graph(grid(64, 64)).m2m
    torch.testing.assert_close(network.m2m_features[rows], edges.features / edges.longest(), atol=2e-6, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_network_gives_the_same(kind):
    """Traced forward and backward in one graph each; what the compiler makes of them the benchmark checks."""
    network = small(kind, (20, 30), processor_layers=1, levels=2)
    x = inputs(2, (20, 30))
    gradient = gradients(network, x)
    y = network(x)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), y, rtol=1e-4, atol=1e-5)
    assert (gradients(compiled, x) - gradient).norm() < 1e-4 * gradient.norm()


@pytest.mark.parametrize(
    ("kind", "shape", "settings", "message"),
    [
        (HiLAM, (7, 8), {}, "grid 7 x 8 too small for 2 mesh levels"),
        (GraphLAM, (7, 8), {"graph": "legacy"}, "grid 7 x 8 too small for 1 mesh level "),
        (GraphLAM, SHAPE, {"mesh_aggr": "max"}, "mesh_aggr 'max': expected one of sum, mean"),
        (GraphLAM, SHAPE, {"hidden_layers": 0}, "hidden_layers: 1 or more expected, not 0"),
        (GraphLAM, SHAPE, {"graph": "lagacy"}, "expected one of rect, legacy"),
        (GraphLAM, SHAPE, {"graph": "mllam"}, "set graph_folder"),
        (GraphLAM, SHAPE, {"hidden_dim": 8}, "did you mean 'hidden_dims'"),
    ],
)
def test_mistakes_are_named(kind, shape, settings, message):
    with pytest.raises(InputError, match=message):
        small(kind, shape, **settings)


def test_grids_and_inputs_are_checked():
    with pytest.raises(InputError, match="GraphLAM needs the positions of the grid points"):
        GraphLAM(5, 3, SHAPE)
    with pytest.raises(InputError, match="positions of a grid 50 x 60, fields of 50 x 70"):
        GraphLAM(5, 3, SHAPE, grid=grid(50, 60))
    with pytest.raises(ValueError, match=r"\(batch, 3500, 5\) expected, not \(2, 3500, 4\)"):
        small(GraphLAM)(inputs()[..., :4])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_cuda_gives_the_same(kind):
    network = small(kind)
    x = inputs()
    y, gradient = network(x), gradients(network, x)
    network.cuda()
    assert (network(x.cuda()).cpu() - y).abs().max() < 1e-4 * y.abs().max()
    assert (gradients(network, x.cuda()).cpu() - gradient).norm() < 1e-3 * gradient.norm()
    with torch.autocast("cuda", torch.bfloat16):
        assert (network(x.cuda()).float().cpu() - y).abs().max() < 0.1 * y.abs().max()
