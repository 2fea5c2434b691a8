import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ai4sim.errors import InputError
from weather_forecast.lam.networks import fused, interaction, topology
from weather_forecast.lam.networks.fused import FusedMessages, FusedMLP
from weather_forecast.lam.networks.interaction import MLP, InteractionNet, PropagationNet
from weather_forecast.lam.networks.topology import Topology

D = 8
SENDERS, RECEIVERS = 6, 5
# receivers 1 and 4 have no edges, sender 5 sends nothing
INDEX = torch.tensor([[0, 3, 4, 0, 1, 2, 3, 2, 4], [0, 0, 0, 2, 2, 2, 2, 3, 3]])
EDGES = INDEX.shape[1]
REGULAR = torch.tensor([[0, 1, 1, 2, 5, 3, 0, 4, 2, 5], [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]])


@pytest.fixture(autouse=True)
def _double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def tiny_chunks(monkeypatch):
    for module in (topology, fused):
        monkeypatch.setattr(module, "chunk_rows", lambda _: 4)


def values(batch: int = 2, edges: int = EDGES) -> tuple[Tensor, Tensor, Tensor]:
    shapes = (batch, SENDERS, D), (batch, RECEIVERS, D), (edges, D)
    return tuple(torch.randn(shape, requires_grad=True) for shape in shapes)


def naive(net: InteractionNet, index: Tensor, s: Tensor, r: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    """Edge by edge and node by node, from concatenated values."""
    e = e.expand(len(s), -1, -1) if e.ndim == 2 else e
    edge_mlp, node_mlp = (torch.nn.Sequential(*mlp) for mlp in (net.messages.mlp, net.node_mlp))
    nodes, new_edges = [], []
    for b in range(len(s)):
        messages = []
        for k in range(index.shape[1]):
            i, j = int(index[0, k]), int(index[1, k])
            messages.append(edge_mlp(torch.cat([e[b, k], s[b, i], r[b, j]])))
        new_edges.append(torch.stack([e[b, k] + m for k, m in enumerate(messages)]))
        of_sample = []
        for j in range(RECEIVERS):
            arriving = [k for k in range(index.shape[1]) if int(index[1, k]) == j]
            terms = [messages[k] for k in arriving]
            if isinstance(net, PropagationNet):
                terms = [m + s[b, int(index[0, k])] for k, m in zip(arriving, terms, strict=True)]
            total = sum(terms, torch.zeros(D))
            if (net.mean or isinstance(net, PropagationNet)) and terms:
                total = total / len(terms)
            base = total if isinstance(net, PropagationNet) else r[b, j]
            of_sample.append(base + node_mlp(torch.cat([r[b, j], total])))
        nodes.append(torch.stack(of_sample))
    return torch.stack(nodes), torch.stack(new_edges)


@pytest.mark.parametrize("kind", [InteractionNet, PropagationNet])
@pytest.mark.parametrize("aggregation", ["sum", "mean"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("index", [INDEX, REGULAR])
def test_values_and_gradients_are_those_of_loops_over_edges(kind, aggregation, layers, index, tiny_chunks):
    net = kind(Topology(index, SENDERS, RECEIVERS), D, layers, aggregation)
    inputs = values(edges=index.shape[1])
    nodes, edges = net.with_edges(*inputs)
    expected_nodes, expected_edges = naive(net, index, *inputs)
    torch.testing.assert_close(nodes, expected_nodes)
    torch.testing.assert_close(edges, expected_edges)
    torch.testing.assert_close(net(*inputs), expected_nodes)
    wn, we = torch.randn_like(nodes), torch.randn_like(edges)
    wanted = [*inputs, *net.parameters()]
    got = torch.autograd.grad((nodes * wn).sum() + (edges * we).sum(), wanted)
    expected = torch.autograd.grad((expected_nodes * wn).sum() + (expected_edges * we).sum(), wanted)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("chunk", [2, 4, 9, 12, 100])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("per_sample", [False, True])
def test_chunks_do_not_matter(chunk, batch, per_sample, monkeypatch):
    for module in (topology, fused):
        monkeypatch.setattr(module, "chunk_rows", lambda _: chunk)
    net = InteractionNet(Topology(INDEX, SENDERS, RECEIVERS), D)
    s, r, e = values(batch)
    e = torch.randn(batch, EDGES, D, requires_grad=True) if per_sample else e
    nodes, edges = net.with_edges(s, r, e)
    wanted = [s, r, e, *net.parameters()]
    got = torch.autograd.grad(nodes.square().sum() + edges.pow(3).sum(), wanted)
    monkeypatch.setattr(interaction, "can_fuse", lambda *_: False)
    plain_nodes, plain_edges = net.with_edges(s, r, e)
    torch.testing.assert_close(nodes, plain_nodes)
    torch.testing.assert_close(edges, plain_edges)
    expected = torch.autograd.grad(plain_nodes.square().sum() + plain_edges.pow(3).sum(), wanted)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("update", [False, True])
def test_edges_that_share_values_are_rows(fuse, update, monkeypatch, tiny_chunks):
    rows = torch.tensor([0, 2, 1, 1, 0, 0, 2, 1, 2])
    shared = InteractionNet(Topology(INDEX, SENDERS, RECEIVERS, rows), D)
    full = InteractionNet(Topology(INDEX, SENDERS, RECEIVERS), D)
    full.load_state_dict(shared.state_dict())
    s, r, _ = values()
    e = torch.randn(3, D, requires_grad=True)
    monkeypatch.setattr(interaction, "can_fuse", lambda *_: fuse)

    def total(net: InteractionNet, edges: Tensor) -> Tensor:
        if not update:
            return net(s, r, edges).square().sum()
        nodes, new = net.with_edges(s, r, edges)
        return nodes.square().sum() + new.pow(3).sum()

    got, expected = total(shared, e), total(full, e[rows])
    torch.testing.assert_close(got, expected)
    for a, b in zip(
        torch.autograd.grad(got, [s, r, e, *shared.parameters()]),
        torch.autograd.grad(expected, [s, r, e, *full.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_gradcheck_of_messages(tiny_chunks):
    plan = Topology(INDEX, SENDERS, RECEIVERS).plan(2)
    mlp = MLP(3 * 3, 3)
    shapes = (2, SENDERS, 3), (2, RECEIVERS, 3), (EDGES, 3)
    inputs = [torch.randn(shape, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(
        lambda s, r, e, *p: FusedMessages.apply(s, r, e, *p, 1e-5, plan, True), [*inputs, *mlp.parameters()]
    )


@pytest.mark.parametrize("residual", [None, 0, 1])
@pytest.mark.parametrize("norm", [True, False])
def test_gradcheck_of_perceptrons(residual, norm, tiny_chunks):
    mlp = MLP(6, 3, norm=norm)
    x, more = (torch.randn(3, 2, 3, requires_grad=True) for _ in range(2))
    parameters = [*mlp.parameters()] + ([] if norm else [None, None])
    assert torch.autograd.gradcheck(
        lambda x, more, *p: FusedMLP.apply(x, more, *p, 1e-5, residual), [x, more, *parameters]
    )


def test_perceptron_is_a_sequence_of_layers():
    mlp = MLP(5, 8, out_features=3)
    x = torch.randn(7, 5)
    expected = functional.layer_norm(
        functional.linear(
            functional.silu(functional.linear(x, mlp[0].weight, mlp[0].bias)), mlp[2].weight, mlp[2].bias
        ),
        (3,),
        mlp[3].weight,
        mlp[3].bias,
    )
    torch.testing.assert_close(mlp(x), expected)
    assert [type(layer).__name__ for layer in MLP(5, 8, 2)] == [
        "Linear",
        "SiLU",
        "Linear",
        "SiLU",
        "Linear",
        "LayerNorm",
    ]


def test_order_of_edges_does_not_matter():
    order = torch.tensor([2, 0, 1, 6, 4, 5, 3, 8, 7])  # within each receiver
    net = InteractionNet(Topology(INDEX, SENDERS, RECEIVERS), D)
    other = InteractionNet(Topology(INDEX[:, order], SENDERS, RECEIVERS), D)
    other.load_state_dict(net.state_dict())
    s, r, e = values()
    nodes, edges = net.with_edges(s, r, e)
    other_nodes, other_edges = other.with_edges(s, r, e[order])
    torch.testing.assert_close(nodes, other_nodes)
    torch.testing.assert_close(edges[:, order], other_edges)


def test_receivers_without_edges_get_nothing():
    s, r, e = values()
    net = InteractionNet(Topology(INDEX, SENDERS, RECEIVERS), D)
    changed = net(s + 1, r, e) - net(s, r, e)
    assert changed.shape == (2, RECEIVERS, D)
    assert (changed[:, [1, 4]] == 0).all()
    assert (changed[:, [0, 2, 3]].abs().amax(dim=(0, 2)) > 0).all()


def test_a_set_without_edges_is_legal():
    net = InteractionNet(Topology(INDEX[:, :0], SENDERS, RECEIVERS), D)
    s, r, _ = values()
    e = torch.zeros(0, D)
    nodes, edges = net.with_edges(s, r, e)
    assert edges.shape == (2, 0, D)
    torch.testing.assert_close(nodes, r + torch.nn.Sequential(*net.node_mlp)(torch.cat([r, torch.zeros_like(r)], -1)))
    nodes.sum().backward()
    assert net.messages.mlp[0].weight.grad.abs().max() == 0


def test_unused_outputs_have_no_gradient_but_do_not_fail():
    net = InteractionNet(Topology(INDEX, SENDERS, RECEIVERS), D)
    inputs = values()
    _, edges = net.with_edges(*inputs)
    gradient = torch.autograd.grad(edges.sum(), inputs)
    torch.testing.assert_close(gradient[2], torch.full((EDGES, D), 2.0))


def test_the_gradient_that_others_read_is_left_alone():
    """With one edge per receiver, gradients of messages are rows of the sum's gradient itself."""
    index = torch.tensor([[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]])
    net = InteractionNet(Topology(index, SENDERS, RECEIVERS), D)
    s, r, e = values(1, 5)
    total, new = net.messages(s, r, e, update=True)
    other = torch.zeros_like(total, requires_grad=True)
    weight = torch.randn_like(total)
    ((total + other) * weight).sum().add(new.square().sum()).backward()
    torch.testing.assert_close(other.grad, weight)


def test_checkpointing_changes_nothing():
    plain = InteractionNet(Topology(INDEX, SENDERS, RECEIVERS), D)
    saving = InteractionNet(plain.topology, D, use_checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    inputs = values()
    for net in (plain, saving):
        nodes, edges = net.with_edges(*inputs)
        (nodes.square().sum() + edges.square().sum()).backward()
    for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_copies_and_other_batch_sizes():
    net = InteractionNet(Topology(INDEX, SENDERS, RECEIVERS), D)
    s, r, e = values(4)
    both = net(s, r, e)
    torch.testing.assert_close(copy.deepcopy(net)(s[:1], r[:1], e), both[:1])
    torch.testing.assert_close(net(s[1:], r[1:], e), both[1:])
    assert "senders" not in "".join(net.state_dict())


def test_faults_are_named():
    with pytest.raises(InputError, match="'max': expected one of sum, mean"):
        InteractionNet(Topology(INDEX, SENDERS, RECEIVERS), D, aggregation="max")
    with pytest.raises(InputError, match="receivers of edges: 0 to 2 in ascending order"):
        Topology(INDEX, SENDERS, 3)
    with pytest.raises(InputError, match="ascending order"):
        Topology(INDEX.flip(1), SENDERS, RECEIVERS)
    with pytest.raises(InputError, match="senders of edges: 0 to 2 expected"):
        Topology(INDEX, 3, RECEIVERS)
