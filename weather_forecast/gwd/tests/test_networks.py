"""Properties that every column network has: shapes, sizes, derivatives, exports, messages."""

import inspect
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ai4sim.errors import InputError
from ai4sim.export import export_network
from weather_forecast.gwd.columns import generate_columns
from weather_forecast.gwd.layout import ColumnLayout
from weather_forecast.gwd.levels import L137
from weather_forecast.gwd.networks import (
    MLP,
    AzimuthFluxNet,
    ColumnCNN,
    ColumnNetwork,
    ColumnRNN,
    DilatedCNN,
    LevelBranchNet,
)
from weather_forecast.gwd.networks.cnn import to_channels

NETWORKS: dict[str, Callable[..., ColumnNetwork]] = {
    "mlp": MLP,
    "mlp_linear": lambda layout=None: MLP(layout, depth=0),
    "cnn": ColumnCNN,
    "cnn_legacy": lambda layout=None: ColumnCNN(layout, legacy=True),
    "dilated": DilatedCNN,
    "dilated_attention": lambda layout=None: DilatedCNN(layout, width=32, attention=True, heads=4),
    "branches": lambda layout=None: LevelBranchNet(layout, first=16, second=8),
    "lstm": lambda layout=None, **grid: ColumnRNN(layout, hidden=16, **grid),
    "gru": lambda layout=None, **grid: ColumnRNN(layout, hidden=16, cell="gru", **grid),
    "azimuth": lambda layout=None, **grid: AzimuthFluxNet(layout, width=64, **grid),
    "azimuth_4": lambda layout=None, **grid: AzimuthFluxNet(layout, width=64, n_azimuths=4, stability=False, **grid),
}
NEEDS_GRID = ("lstm", "gru", "azimuth", "azimuth_4")
every_network = pytest.mark.parametrize("name", NETWORKS)


@pytest.fixture(scope="module")
def columns() -> Tensor:
    """Generated columns (64, 191), float32."""
    return torch.from_numpy(generate_columns(64, np.random.default_rng(3)).inputs())


def build(name: str, x: Tensor, **arguments: object) -> ColumnNetwork:
    """A network at random initialisation, with the statistics of ``x`` and realistic output scales."""
    torch.manual_seed(0)
    network = NETWORKS[name](**arguments)
    network.inputs.fit(x.mean(0).numpy(), x.double().std(0).numpy())
    network.outputs.fit(np.geomspace(1e-4, 1e-6, network.layout.n_levels).repeat(2))
    return network.to(x.dtype)


@pytest.mark.parametrize(
    ("network", "expected"),
    [(MLP, 213_118), (lambda: ColumnCNN(legacy=True), 77_248), (lambda: MLP(depth=0), 191 * 126 + 126)],
)
def test_parameter_counts_of_the_reference_networks(network: Callable[[], ColumnNetwork], expected: int) -> None:
    assert sum(parameter.numel() for parameter in network().parameters()) == expected


def test_parameter_counts_of_the_other_networks_are_of_the_published_size() -> None:
    size = {name: sum(p.numel() for p in cls().parameters()) for name, cls in
            {"rnn": ColumnRNN, "azimuth": AzimuthFluxNet}.items()}  # fmt: skip
    assert 150_000 < size["rnn"] < 250_000
    assert 150_000 < size["azimuth"] < 250_000


@every_network
def test_any_batch_size_gives_the_same_rows(name: str, columns: Tensor) -> None:
    network = build(name, columns)
    with torch.no_grad():
        whole = network(columns)
        assert network(columns[:0]).shape == (0, 126)
        one = network(columns[7:8])
    assert whole.shape == (64, 126)
    assert torch.isfinite(whole).all()
    # kernels for one row and for many round differently, and thin layers amplify it
    torch.testing.assert_close(one, whole[7:8], rtol=0, atol=1e-4 * float(whole.square().mean().sqrt()))


@every_network
def test_a_network_without_statistics_predicts_nothing(name: str, columns: Tensor) -> None:
    assert torch.isnan(NETWORKS[name]()(columns)).all()


@every_network
def test_wrong_number_of_inputs_is_named(name: str, columns: Tensor) -> None:
    with pytest.raises(ValueError, match=r"191 inputs \(63 levels\), got 190"):
        build(name, columns)(columns[:, 1:])


@every_network
def test_other_levels_and_further_scalars(name: str) -> None:
    layout = ColumnLayout(n_levels=93, scalars=("surface_pressure", "geopotential", "lat"))
    generated = generate_columns(8, np.random.default_rng(0), grid=L137)
    x = torch.from_numpy(np.column_stack([generated.inputs(), generated.lat])).float()
    network = build(name, x, layout=layout, **({"grid": "L137"} if name in NEEDS_GRID else {}))
    drag = network(x)
    assert drag.shape == (8, 186)
    assert torch.isfinite(drag).all()
    moved = x.clone()
    moved[:, -1] += 20
    assert not torch.equal(network(moved), drag)


@pytest.mark.parametrize("name", NEEDS_GRID)
def test_levels_that_do_not_fit_the_grid_are_named(name: str) -> None:
    with pytest.raises(InputError, match=r"layout has 93 levels, but the launch level of grid 'L91' is 63"):
        NETWORKS[name](ColumnLayout(n_levels=93))


@every_network
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_tangent_linear_and_adjoint_agree(name: str, dtype: torch.dtype, tolerance: float, columns: Tensor) -> None:
    x = columns[:4].to(dtype)
    network = build(name, columns.to(dtype))
    generator = torch.Generator().manual_seed(1)
    tangent = torch.randn(x.shape, generator=generator, dtype=dtype)
    # geopotential and pressure perturbations of a like size
    tangent[:, 189] *= 100
    output, pushed = torch.func.jvp(network, (x,), (tangent,))
    cotangent = torch.randn(output.shape, generator=generator, dtype=dtype)
    _, pull = torch.func.vjp(network, x)
    left = (pushed * cotangent).double()
    right = (tangent * pull(cotangent)[0]).double()
    # against the size of the terms, not of a sum that may cancel
    assert abs(left.sum() - right.sum()) <= tolerance * left.abs().sum()
    assert left.abs().sum() > 0


@pytest.mark.parametrize("name", ["mlp", "cnn", "lstm", "gru", "azimuth", "dilated_attention"])
def test_derivative_agrees_with_differences(name: str, columns: Tensor) -> None:
    x = columns[:4].double()
    network = build(name, columns.double())
    tangent = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    _, pushed = torch.func.jvp(network, (x,), (tangent,))
    difference = (network(x + 1e-5 * tangent) - network(x - 1e-5 * tangent)) / 2e-5
    torch.testing.assert_close(pushed, difference, rtol=0, atol=1e-6 * float(pushed.detach().abs().max()))


@every_network
def test_networks_differentiate_twice(name: str, columns: Tensor) -> None:
    x = columns[:2].double().requires_grad_()
    output = build(name, columns.double())(x) * 1e5
    (first,) = torch.autograd.grad(output.square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    assert torch.isfinite(second).all()
    assert second.abs().max() > 0


# one of each kind: tracing a network takes seconds
EXPORTS = [
    *((name, ".pt2") for name in ("mlp", "cnn", "branches", "gru", "azimuth")),
    ("mlp", ".onnx"),
    ("azimuth", ".onnx"),
]


@pytest.mark.parametrize(("name", "suffix"), EXPORTS)
def test_exports_equal_eager_at_any_batch_size(name: str, suffix: str, columns: Tensor, tmp_path: Path) -> None:
    if suffix == ".onnx":
        pytest.importorskip("onnxruntime", reason="ONNX needs the extra 'export'")
    path = tmp_path / f"network{suffix}"
    report = export_network(build(name, columns), columns, path, batch_sizes=(1, 2, 17, 64))
    # untrained, opposite directions nearly cancel in the flux network, and what is left carries their rounding
    assert report.error <= (2e-4 if name == "azimuth" else 1e-5)


@every_network
def test_forward_is_thread_safe(name: str, columns: Tensor) -> None:
    network = build(name, columns).eval()
    parts = columns.split(16)
    with torch.no_grad():
        expected = [network(part) for part in parts]
    results: dict[int, Tensor] = {}

    def work(index: int) -> None:
        with torch.no_grad():
            for _ in range(3):
                results[index] = network(parts[index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(parts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, drag in enumerate(expected):
        torch.testing.assert_close(results[index], drag, rtol=0, atol=0)


@every_network
def test_state_alone_restores_a_network(name: str, columns: Tensor) -> None:
    network = build(name, columns)
    torch.manual_seed(5)
    restored = NETWORKS[name]()
    restored.load_state_dict(network.state_dict())
    torch.testing.assert_close(restored(columns), network(columns), rtol=0, atol=0)


@pytest.mark.parametrize("cls", [MLP, ColumnCNN, DilatedCNN, LevelBranchNet, ColumnRNN, AzimuthFluxNet])
def test_constructors_can_be_configured(cls: type[ColumnNetwork]) -> None:
    parameters = list(inspect.signature(cls).parameters.values())
    assert parameters[0].name == "layout"
    assert all(parameter.annotation is not inspect.Parameter.empty for parameter in parameters)
    assert all(parameter.default is not inspect.Parameter.empty for parameter in parameters)


def test_settings_that_make_no_sense_are_named() -> None:
    with pytest.raises(InputError, match="kernel must be an odd number, got 4"):
        ColumnCNN(kernel=4)
    with pytest.raises(InputError, match="2 levels cannot be halved 2 times"):
        ColumnCNN(ColumnLayout(n_levels=2), legacy=True)
    with pytest.raises(InputError, match="5 heads do not divide a width of 64"):
        DilatedCNN(attention=True, heads=5)
    with pytest.raises(InputError, match="'rnn' is unknown; choose lstm or gru"):
        ColumnRNN(cell="rnn")  # type: ignore[arg-type] # the point of the test
    with pytest.raises(InputError, match="activation 'swish' is unknown"):
        MLP(activation="swish")  # type: ignore[arg-type] # the point of the test


def test_channels_hold_profiles_and_tiled_scalars(columns: Tensor) -> None:
    channels = to_channels(columns, ColumnLayout())
    assert channels.shape == (64, 5, 63)
    assert torch.equal(channels[3, 1], columns[3, 63:126])
    assert torch.equal(channels[3, 4], columns[3, 190].expand(63))


def test_convolutional_baseline_of_kernel_1_sees_no_neighbours(columns: Tensor) -> None:
    """Why the legacy network loses: before its dense layers, a level knows only itself."""
    z = to_channels(build("cnn_legacy", columns).inputs(columns), ColumnLayout())
    first = ColumnCNN(legacy=True).blocks[:2]
    moved = z.clone()
    moved[:, :, 30] += 1
    changed = (first(moved) != first(z)).any(1).any(0).nonzero().flatten()
    assert changed.tolist() == [30]


@pytest.mark.parametrize(("cell", "torch_class"), [("lstm", torch.nn.LSTM), ("gru", torch.nn.GRU)])
def test_recurrent_passes_agree_with_torch(cell: str, torch_class: type[torch.nn.RNNBase]) -> None:
    torch.manual_seed(0)
    own = ColumnRNN(hidden=8, cell=cell).upward  # type: ignore[arg-type] # parametrised
    reference = torch_class(5, 8, batch_first=True)
    weights = {"weight_ih_l0": own.inputs.weight, "weight_hh_l0": own.recurrent.weight,
               "bias_ih_l0": own.inputs.bias,
               "bias_hh_l0": torch.zeros(32) if cell == "lstm" else own.recurrent.bias}  # fmt: skip
    if cell == "lstm":  # torch orders the gates write, keep, candidate, show
        order = [1, 0, 3, 2]
        weights = {name: torch.cat([value.chunk(4)[i] for i in order]) for name, value in weights.items()}
    reference.load_state_dict(weights)
    sequence, state = torch.randn(3, 63, 5), torch.randn(3, own.state_size)
    initial = tuple(part.unsqueeze(0).contiguous() for part in state.chunk(2 if cell == "lstm" else 1, dim=-1))
    expected, _ = reference(sequence, initial if cell == "lstm" else initial[0])
    torch.testing.assert_close(own(sequence, state), expected, rtol=1e-5, atol=1e-6)


def test_branches_are_independent_small_networks(columns: Tensor) -> None:
    network = LevelBranchNet(first=16, second=8)
    z = torch.randn(5, 191)
    trunk = torch.relu(network.trunk(z))
    for level in (0, 62, 125):
        rows = slice(level * 16, (level + 1) * 16)
        hidden = torch.relu(trunk @ network.first.weight[rows].T + network.first.bias[rows])
        hidden = torch.relu(hidden @ network.second.weight[level] + network.second.bias[level])
        expected = hidden @ network.third.weight[level] + network.third.bias[level]
        torch.testing.assert_close(network.body(z)[:, level], expected[:, 0], rtol=1e-5, atol=1e-6)
