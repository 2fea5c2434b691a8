from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch
from torch import nn

from ai4sim.errors import InputError
from ai4sim.export import export_network, load_exported
from weather_forecast.lam.networks.base import LamNetwork, ModelType, make_settings
from weather_forecast.lam.networks.grid_networks import HalfUNet, HalfUNetSettings, UNet, UNetSettings
from weather_forecast.lam.networks.segformer import Segformer

GRID = (50, 70)
IN, OUT = 7, 3


@dataclass(frozen=True)
class Case:
    kind: type[LamNetwork]
    settings: dict[str, Any]

    def make(self, grid: tuple[int, int] = GRID) -> LamNetwork:
        return self.kind(IN, OUT, grid, make_settings(self.kind.settings_kls, self.settings))


SMALL = {"dims": [8, 16, 20, 32], "heads": [1, 2, 5, 8], "ff_expansion": [2, 2, 2, 2]}
CASES = {
    "HalfUNet": Case(HalfUNet, {"num_filters": 8}),
    "HalfUNet ghost": Case(HalfUNet, {"num_filters": 8, "use_ghost": True, "last_activation": "Tanh"}),
    "HalfUNet position": Case(HalfUNet, {"num_filters": 8, "absolute_pos_embed": True, "bias": True}),
    "UNet": Case(UNet, {"init_features": 4}),
    "Segformer": Case(Segformer, {**SMALL, "num_layers": 1, "decoder_dim": 32, "num_downsampling_chans": 8}),
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(params=CASES)
def case(request) -> Case:
    return CASES[request.param]


def trained(network: nn.Module) -> nn.Module:
    """After a few steps, so that running statistics and zero weights are something."""
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    for _ in range(2):
        optimizer.zero_grad()
        network(torch.randn(2, IN, *GRID)).square().mean().backward()
        optimizer.step()
    return network.eval()


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        (HalfUNet, {"num_filters": 32}, 116_064),
        (HalfUNet, {"num_filters": 32, "use_ghost": True}, 60_480),
        (HalfUNet, {"num_filters": 64}, 434_880),
        (HalfUNet, {"num_filters": 64, "use_ghost": True}, 222_336),
        (HalfUNet, {"num_filters": 128}, 1_680_768),
        (HalfUNet, {"num_filters": 128, "use_ghost": True}, 850_176),
        (UNet, {"init_features": 64}, 31_063_701),
        (UNet, {"init_features": 32}, 7_776_085),
        (Segformer, {}, 10_264_341),
    ],
)
def test_numbers_of_parameters_at_46_and_21_channels(kind, settings, expected):
    with torch.device("meta"):
        network = kind(46, 21, (512, 640), make_settings(kind.settings_kls, settings))
    assert sum(p.numel() for p in network.parameters()) == expected


def test_default_settings():
    assert HalfUNetSettings() == HalfUNetSettings(64, 1, False, False, "Identity", True, False)
    assert UNetSettings() == UNetSettings(64, True)
    with torch.device("meta"):
        assert HalfUNet(46, 21, (64, 64)).settings == HalfUNetSettings()
    for kind in (HalfUNet, UNet, Segformer):
        assert "autopad" in [field.name for field in fields(kind.settings_kls)]
        assert kind.onnx_supported


def test_kinds_of_network():
    assert HalfUNet.model_type is UNet.model_type is ModelType.CONVOLUTIONAL
    assert Segformer.model_type is ModelType.TRANSFORMER
    assert not CASES["HalfUNet"].make().features_last


def test_forward_and_backward_on_a_grid_that_is_no_multiple(case):
    network = case.make()
    x = torch.randn(2, IN, *GRID, requires_grad=True)
    y = network(x)
    assert y.shape == (2, OUT, *GRID)
    y.square().sum().backward()
    assert torch.isfinite(x.grad).all()
    # every point matters, and every weight learns
    assert (x.grad.abs().sum(dim=(0, 1)) > 0).float().mean() > 0.2
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_evaluation_is_deterministic_and_knows_no_batch(case):
    network = trained(case.make())
    x = torch.randn(3, IN, *GRID)
    with torch.no_grad():
        y = network(x)
        assert torch.equal(network(x), y)
        torch.testing.assert_close(network(x[:1]), y[:1], rtol=1e-4, atol=1e-5)


def test_weights_go_through_a_checkpoint(case, tmp_path):
    network = trained(case.make())
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    other = case.make()
    x = torch.randn(1, IN, *GRID)
    with torch.no_grad():
        assert not torch.equal(other.eval()(x), network(x))
        other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
        assert torch.equal(other(x), network(x))


def test_bfloat16_is_near_single_precision(case):
    network = trained(case.make())
    x = torch.randn(2, IN, *GRID)
    with torch.autocast("cpu", torch.bfloat16):
        y = network(x)
    expected = network(x)
    assert y.dtype == torch.bfloat16
    assert (y.float() - expected).square().mean().sqrt() < 0.03 * expected.square().mean().sqrt()
    network.train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = network(x).float().square().mean()
    loss.backward()
    assert all(torch.isfinite(p.grad).all() and p.grad.dtype == torch.float32 for p in network.parameters())


def test_channels_last_gives_the_same(case):
    network = trained(case.make())
    x = torch.randn(2, IN, *GRID)
    with torch.no_grad():
        expected = network(x)
        y = network.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_channels_are_last_inside_on_a_cpu(case, memory_format):
    network = case.make().eval()
    layouts = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.register_forward_hook(
                lambda _, __, y: layouts.append(y.is_contiguous(memory_format=torch.channels_last))
            )
    with torch.no_grad():
        network(torch.randn(2, IN, *GRID).contiguous(memory_format=memory_format))
    assert len(layouts) > 8
    assert all(layouts)


def test_fields_of_the_use_case_go_through_any_network(case):
    network = trained(case.make())
    x = torch.randn(2, *GRID, IN)
    with torch.no_grad():
        y = network.on_grid(x)
        assert y.shape == (2, *GRID, OUT)
        torch.testing.assert_close(y, network(x.movedim(-1, 1).contiguous()).movedim(1, -1), rtol=1e-4, atol=1e-5)


def test_compiles_as_one_graph(case):
    network = trained(case.make())
    x = torch.randn(2, IN, *GRID)
    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), network(x), rtol=1e-4, atol=1e-5)
    compiled(x).square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
@pytest.mark.parametrize("name", ["HalfUNet ghost", "UNet", "Segformer"])
def test_exported_file_equals_eager(name, suffix, tmp_path):
    network = trained(CASES[name].make())
    x = torch.randn(5, IN, *GRID)
    report = export_network(network, x, tmp_path / f"network{suffix}", batch_sizes=(1, 5))
    assert report.error < 1e-5
    with torch.no_grad():
        expected = network(x[:3])
    torch.testing.assert_close(
        torch.from_numpy(load_exported(report.path)(x[:3].numpy())), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("kind", "multiple"), [(HalfUNet, 16), (UNet, 16), (Segformer, 64)])
def test_grid_is_refused_before_any_data_when_it_may_not_be_padded(kind, multiple):
    settings = make_settings(kind.settings_kls, {"autopad": False})
    message = f"{kind.__name__} needs rows and columns that are multiples of {multiple}, got 50 x 64"
    with torch.device("meta"):
        with pytest.raises(InputError, match=message):
            kind(IN, OUT, (50, 64), settings)
        kind(IN, OUT, (64, 128), settings)


def test_wrong_settings_are_named():
    with pytest.raises(InputError, match=r"HalfUNetSettings has no setting 'num_filter'.*did you mean 'num_filters'"):
        make_settings(HalfUNetSettings, {"num_filter": 32})
    with pytest.raises(InputError, match="even number of output channels, got 9"):
        HalfUNet(IN, OUT, GRID, HalfUNetSettings(num_filters=9, use_ghost=True))
    with pytest.raises(InputError, match="unknown activation 'Sigmoidal'"):
        HalfUNet(IN, OUT, GRID, HalfUNetSettings(last_activation="Sigmoidal"))
