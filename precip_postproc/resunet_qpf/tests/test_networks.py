from functools import partial
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ai4sim.errors import InputError
from ai4sim.export import export_network
from ai4sim.networks import Film
from ai4sim.tiling import Tiling, one_pass_inference, tiled_inference
from precip_postproc.resunet_qpf.networks import (
    AttentionGate,
    AttnResUNet,
    ConditionedResUNet,
    QpfNetwork,
    ResidualBlock,
    ResUNet,
)

NARROW = {
    ResUNet: {"widths": (4, 6, 8, 10)},
    AttnResUNet: {"widths": (4, 6, 8, 10, 12)},
    ConditionedResUNet: {"widths": (4, 6, 8, 10)},
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def n_parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def narrow(kind: type[QpfNetwork], **settings) -> QpfNetwork:
    """A network with few channels, 3 inputs and 2 outputs."""
    return kind(3, 2, **{**NARROW[kind], **settings})


def settle(module: nn.Module, *inputs: Tensor) -> nn.Module:
    """Statistics and weights other than 0 and 1 for normalisations, and modulations that do something."""
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d | nn.GroupNorm):
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.uniform_(part.bias, -0.5, 0.5)
            if isinstance(part, Film):
                nn.init.normal_(part.linear.weight, std=0.3)
                nn.init.normal_(part.linear.bias, std=0.3)
        module.train()(*inputs)
    return module.eval()


def example(height: int = 32, width: int = 48, n: int = 3) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 3, height, width), torch.randn(n, 8)


all_networks = pytest.mark.parametrize("kind", [ResUNet, AttnResUNet, ConditionedResUNet])


# sizes


def test_numbers_of_parameters_are_those_of_the_reference():
    assert n_parameters(ResUNet(7, 101)) == 8_092_773
    assert n_parameters(AttnResUNet(7, 3)) == 32_799_407
    network = AttnResUNet(5, 102)
    assert n_parameters(network) == 32_804_562
    assert [n_parameters(block) for block in network.encoder] == [40_640, 230_528, 919_808, 3_674_624]
    assert n_parameters(network.bridge) == 14_689_280
    assert [n_parameters(up) for up in network.up] == [2_097_664, 524_544, 131_200, 32_832]
    assert [n_parameters(gate) for gate in network.gates] == [263_939, 66_435, 16_835, 4_323]
    assert [n_parameters(block) for block in network.decoder] == [7_606_784, 1_902_848, 476_288, 119_360]
    assert n_parameters(network.head) == 6_630


def test_numbers_of_parameters_of_the_small_network():
    assert n_parameters(ConditionedResUNet(11, 19)) == 186_832
    assert n_parameters(ConditionedResUNet(11, 19, widths=(32, 48, 64, 64))) == 456_964


@pytest.mark.parametrize(
    ("kind", "inputs", "outputs"), [(ResUNet, 7, 101), (AttnResUNet, 5, 102), (ConditionedResUNet, 11, 19)]
)
def test_output_has_the_shape_of_the_input(kind, inputs, outputs):
    network = kind(inputs, outputs).eval()
    for height, width in ((96, 96), (64, 64), (128, 160)):
        with torch.inference_mode():
            y = network(torch.randn(1, inputs, height, width), torch.randn(1, 8))
        assert y.shape == (1, outputs, height, width)


@pytest.mark.parametrize(("kind", "multiple"), [(ResUNet, 8), (AttnResUNet, 16), (ConditionedResUNet, 16)])
def test_attributes_that_callers_rely_on(kind, multiple):
    network = narrow(kind)
    assert network.multiple == multiple
    assert (network.in_channels, network.out_channels) == (3, 2)
    assert network.conditioned == (kind is ConditionedResUNet)
    assert isinstance(network.head, nn.Conv2d)
    assert network.head.kernel_size == (1, 1)


@pytest.mark.parametrize("widths", [(4, 6), (4, 6, 8)])
def test_depth_follows_from_the_widths(widths):
    assert narrow(ResUNet, widths=widths).multiple == 2 ** (len(widths) - 1)
    network = narrow(ConditionedResUNet, widths=widths)
    assert network.multiple == 2 ** len(widths)
    assert network(*example()).shape == (3, 2, 32, 48)


# formulas


def naive_norm(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    mean, var, weight, bias = (v[:, None, None] for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias))
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def naive_conv(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Sum over the points of the kernel of shifted, weighted maps."""
    pad, size = conv.padding[0], conv.kernel_size[0]
    x = functional.pad(x, (pad,) * 4, mode="replicate" if conv.padding_mode == "replicate" else "constant")
    height, width = x.shape[-2] - 2 * pad, x.shape[-1] - 2 * pad
    points = [(i, j) for i in range(size) for j in range(size)]
    y = sum(
        torch.einsum("oc,bchw->bohw", conv.weight[:, :, i, j], x[..., i : i + height, j : j + width]) for i, j in points
    )
    return y if conv.bias is None else y + conv.bias[:, None, None]


@pytest.mark.parametrize("channels", [4, 6])
@pytest.mark.parametrize("padding_mode", ["zeros", "replicate"])
@pytest.mark.parametrize("n_embedding", [0, 5])
def test_residual_block_by_formula(channels, padding_mode, n_embedding):
    x, embedding = torch.randn(2, 4, 7, 9), torch.randn(2, n_embedding) if n_embedding else None
    block = settle(ResidualBlock(4, channels, padding_mode=padding_mode, n_embedding=n_embedding), 2 * x + 1, embedding)
    y = naive_norm(block.norm1, naive_conv(block.conv1, x))
    if n_embedding:
        parameters = embedding @ block.film.linear.weight.T + block.film.linear.bias
        gamma, beta = parameters[:, :channels, None, None], parameters[:, channels:, None, None]
        y = y * (1 + gamma) + beta
    y = naive_norm(block.norm2, naive_conv(block.conv2, y.clamp(min=0)))
    shortcut = x if channels == 4 else naive_norm(block.shortcut[1], naive_conv(block.shortcut[0], x))
    torch.testing.assert_close(block(x, embedding), (y + shortcut).clamp(min=0), rtol=1e-4, atol=1e-5)


def test_attention_gate_by_formula():
    decoder, skip = torch.randn(2, 6, 5, 7), torch.randn(2, 6, 5, 7)
    gate = settle(AttentionGate(6), decoder + 1, 2 * skip)
    convolved = [
        naive_norm(part[1], naive_conv(part[0], x)) for part, x in ((gate.decoder, decoder), (gate.skip, skip))
    ]
    assert convolved[0].shape == (2, 3, 5, 7)
    psi = naive_norm(gate.weight[1], naive_conv(gate.weight[0], sum(convolved).clamp(min=0)))
    assert psi.shape == (2, 1, 5, 7)
    torch.testing.assert_close(gate(decoder, skip), skip / (1 + torch.exp(-psi)), rtol=1e-4, atol=1e-5)


def test_small_network_by_formula():
    """Two scales; the head sees interpolated maps of the decoder and the inputs at full resolution."""
    x, conditions = example(16, 24)
    network = settle(narrow(ConditionedResUNet, widths=(4, 6)), x, conditions)
    padded = functional.pad(x, (1, 1, 1, 1), mode="replicate")
    embedding = network.embedding(conditions)
    fine = functional.conv2d(padded, network.stem[0].weight, stride=2)
    fine = network.encoder[0](naive_norm(network.stem[1], fine).clamp(min=0), embedding)
    coarse = network.encoder[1](fine.unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2)).amax(dim=(-3, -1)), embedding)
    y = network.decoder[0](torch.cat([naive_doubled(coarse), fine], dim=1), embedding)
    expected = network.head(torch.cat([naive_doubled(y), x], dim=1))
    torch.testing.assert_close(network(x, conditions), expected, rtol=1e-4, atol=1e-5)


def naive_doubled(x: Tensor) -> Tensor:
    """Fine pixels are 3/4 of the coarse one they lie in and 1/4 of the next, along either axis."""
    for axis in (-2, -1):
        x = x.movedim(axis, -1)
        before = torch.cat([x[..., :1], x[..., :-1]], dim=-1)
        after = torch.cat([x[..., 1:], x[..., -1:]], dim=-1)
        x = (0.75 * x[..., None] + 0.25 * torch.stack([before, after], dim=-1)).flatten(-2).movedim(-1, axis)
    return x


# how far networks see


@all_networks
def test_receptive_radius_is_what_a_disturbed_column_reaches(kind):
    network = narrow(kind).double().eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.constant_(module.weight, 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    # With positive weights and no biases a field of zeros gives zeros, and whatever is reached becomes positive.
    columns = 128 + torch.arange(network.multiple)
    x = torch.zeros(len(columns), 3, 16, 272, dtype=torch.float64)
    x[torch.arange(len(columns)), :, :, columns] = 1
    with torch.no_grad():
        y = network(x, torch.zeros(len(columns), 8, dtype=torch.float64))
    reached = (y > 0).any(dim=(1, 2))
    distance = (torch.arange(272) - columns[:, None]).abs()
    assert int(distance[reached].max()) == network.receptive_radius


def test_receptive_radius_of_the_defaults():
    # depends on the number of widths, not on the channels
    assert [narrow(kind).receptive_radius for kind in (ResUNet, AttnResUNet, ConditionedResUNet)] == [52, 107, 119]


def test_tiles_give_the_same_as_the_whole_field():
    x, conditions = torch.randn(1, 3, 64, 64), torch.randn(1, 8)
    network = settle(ConditionedResUNet(3, 5), x, conditions)

    def probabilities(tiles: Tensor) -> Tensor:
        return network(tiles, conditions.expand(len(tiles), -1)).softmax(dim=1)

    # rows are padded, tiles overlap along both axes
    fields = torch.randn(3, 500, 720)
    tiling = Tiling((500, 720), tile=480, stride=240, window="crop", multiple=network.multiple)
    assert len(tiling) == 4
    assert network.receptive_radius <= 480 // 4
    by_tiles = tiled_inference(probabilities, fields, tiling, batch_size=1)
    with torch.inference_mode():
        whole = probabilities(fields[None])[0]
    assert whole.std() > 0.01
    torch.testing.assert_close(by_tiles, whole, rtol=0, atol=1e-4)
    torch.testing.assert_close(one_pass_inference(probabilities, fields, multiple=16), whole, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        tiled_inference(probabilities, fields, tiling, batch_size=2), by_tiles, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(("norm", "local"), [(nn.BatchNorm2d, True), (partial(nn.GroupNorm, 2), False)])
def test_only_some_normalisations_see_no_farther(norm, local):
    x, conditions = example(16, 128, n=1)
    network = settle(narrow(ConditionedResUNet, widths=(4, 6), norm=norm), x, conditions)
    other = x.clone()
    other[..., -16:] += 1
    y, changed = network(x, conditions), network(other, conditions)
    out_of_reach = 128 - 16 - network.receptive_radius
    assert out_of_reach > 0
    assert torch.allclose(y[..., :out_of_reach], changed[..., :out_of_reach], atol=1e-6) == local
    assert not torch.allclose(y, changed)


# borders


def test_uniform_fields_give_uniform_outputs_without_a_rim():
    x, conditions = example()
    network = settle(narrow(ConditionedResUNet), x, conditions)
    y = network(torch.ones(3, 3, 50, 61) * torch.randn(3, 3, 1, 1), conditions)
    torch.testing.assert_close(y, y[..., :1, :1].expand_as(y))
    rim = settle(narrow(ConditionedResUNet, padding_mode="zeros"), x, conditions)(torch.ones(3, 3, 48, 64), conditions)
    assert (rim - rim[..., :1, :1]).abs().max() > 0.01


@all_networks
@pytest.mark.parametrize("padding_mode", ["zeros", "replicate"])
def test_fields_of_any_size_are_padded_below_and_to_the_right(kind, padding_mode):
    x, conditions = example()
    network = settle(narrow(kind, padding_mode=padding_mode), x, conditions)
    x = torch.randn(3, 3, 37, 42)
    mode = "constant" if padding_mode == "zeros" else padding_mode
    rows, columns = -37 % network.multiple, -42 % network.multiple
    padded = network(functional.pad(x, (0, columns, 0, rows), mode=mode), conditions)
    torch.testing.assert_close(network(x, conditions), padded[..., :37, :42])


@all_networks
def test_fields_of_other_sizes_are_refused_without_padding(kind):
    network = narrow(kind, autopad=False)
    message = f"{kind.__name__} needs rows and columns that are multiples of {network.multiple}, got 33 x 48"
    with pytest.raises(InputError, match=message):
        network(*example(33, 48))
    assert network(*example(32, 48)).shape == (3, 2, 32, 48)


# conditions


def test_untrained_modulation_leaves_the_network_as_it_is():
    x, conditions = example()
    network = narrow(ConditionedResUNet).eval()
    y = network(x, conditions)
    torch.testing.assert_close(network(x, conditions + 1), y, rtol=0, atol=0)
    for block in [*network.encoder, *network.decoder]:
        block.film = None
    torch.testing.assert_close(network(x, conditions), y, rtol=0, atol=0)


def test_conditions_matter_to_every_block_of_a_trained_network():
    x, conditions = example()
    network = settle(narrow(ConditionedResUNet), x, conditions)
    y = network(x, conditions)
    assert (network(x, conditions + 1) - y).abs().amax(dim=(1, 2, 3)).min() > 0.01
    for block in [*network.encoder, *network.decoder]:
        film, block.film = block.film, None
        assert not torch.allclose(network(x, conditions), y, atol=1e-3)
        block.film = film


@pytest.mark.parametrize("kind", [ResUNet, AttnResUNet])
def test_conditions_are_nothing_to_other_networks(kind):
    x, conditions = example()
    network = narrow(kind).eval()
    torch.testing.assert_close(network(x, conditions), network(x, conditions + 1), rtol=0, atol=0)


@all_networks
def test_samples_of_a_batch_are_independent(kind):
    x, conditions = example()
    network = settle(narrow(kind), x, conditions)
    torch.testing.assert_close(network(x, conditions)[1:2], network(x[1:2], conditions[1:2]))


# training


@all_networks
def test_gradients_reach_every_parameter(kind):
    x, conditions = example()
    network = settle(narrow(kind), x, conditions)  # trained normalisations would take out what biases do
    network(x, conditions).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_only_the_embedding_waits_for_a_step_before_it_learns():
    x, conditions = example()
    network = narrow(ConditionedResUNet)
    network(x, conditions).square().sum().backward()
    idle = [name for name, parameter in network.named_parameters() if parameter.grad.abs().max() == 0]
    assert idle == [name for name, _ in network.named_parameters() if name.startswith("embedding.")]


@pytest.mark.parametrize("module", [ResidualBlock(2, 3, n_embedding=2), ResidualBlock(2, 2), AttentionGate(2)])
def test_gradients_are_right_though_maps_are_overwritten(module):
    module = module.double()
    second = torch.randn(2, 2, 3, 4) if isinstance(module, AttentionGate) else torch.randn(2, 2)
    if isinstance(module, ResidualBlock) and module.film is None:
        second = None
    module = settle(module, torch.randn(2, 2, 3, 4).double(), None if second is None else second.double()).train()
    inputs = [torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)]
    if second is not None:
        inputs.append(second.double().requires_grad_())
    assert torch.autograd.gradcheck(module, inputs)


def test_gradients_of_the_small_network_are_right():
    x, conditions = (value.double() for value in example(8, 8, n=2))
    network = settle(narrow(ConditionedResUNet, widths=(2, 2), n_embedding=2).double(), x, conditions)
    assert torch.autograd.gradcheck(network, (x.requires_grad_(), conditions.requires_grad_()))


def test_bias_of_the_head_is_where_training_begins():
    for kind in NARROW:
        network = narrow(kind)
        nn.init.zeros_(network.head.weight)
        network.head.bias.data = torch.tensor([1.5, -2.5])
        y = network(*example())
        torch.testing.assert_close(y, torch.tensor([1.5, -2.5])[:, None, None].expand_as(y))


@all_networks
def test_half_precision(kind):
    x, conditions = example()
    network = settle(narrow(kind), x, conditions)
    with torch.autocast("cpu", torch.bfloat16):
        y = network(x, conditions)
    exact = network(x, conditions)
    assert y.dtype == exact.dtype == torch.float32
    assert (y - exact).abs().max() < 0.1 * exact.std()


@all_networks
def test_rare_events_do_not_go_in_steps_in_half_precision(kind):
    x, conditions = example()
    network = settle(narrow(kind), x, conditions)
    with torch.no_grad():
        network.head.weight.mul_(0.3 / network(x, conditions).std())
        network.head.bias.copy_(torch.tensor([-6.0, -5.5]))
        exact = network(x, conditions)
        with torch.autocast("cpu", torch.bfloat16):
            y = network(x, conditions)
    assert ((exact > -8) & (exact < -4)).all()
    # all numbers of bfloat16 between 4 and 8 are multiples of 1/32
    assert (torch.frac(32 * y) == 0).float().mean() < 0.01
    stepped = exact.bfloat16().float()
    assert len(y.unique()) > 10 * len(stepped.unique())
    chance, exactly, steps = (torch.sigmoid(each) for each in (y, exact, stepped))
    assert exactly.max() < 0.02
    # what is left is the rounding within the network, far below the steps' 3 %
    assert ((chance / exactly).log()).square().mean() < 0.5 * ((steps / exactly).log()).square().mean()


def test_gradients_reach_the_network_through_the_last_layer_in_half_precision():
    x, conditions = example()
    network = settle(narrow(ConditionedResUNet), x, conditions).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = network(x, conditions).square().mean()
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == torch.float32, name
        assert parameter.grad.isfinite().all(), name
    assert network.head.weight.grad.any()
    assert network.stem[0].weight.grad.any()


# export


@all_networks
def test_export_with_a_free_batch(kind):
    x, conditions = example(n=2)
    network = settle(narrow(kind), x, conditions)
    batch = torch.export.Dim("batch")
    program = torch.export.export(network, (x, conditions), dynamic_shapes=({0: batch}, {0: batch}))
    x, conditions = example(n=5)
    torch.testing.assert_close(program.module()(x, conditions), network(x, conditions), rtol=1e-4, atol=1e-5)


class AtLead(nn.Module):
    """A network of the fields alone, for given conditions."""

    def __init__(self, network: QpfNetwork, conditions: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("conditions", conditions)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x, self.conditions.expand(x.shape[0], -1))


@pytest.mark.skipif(not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))), reason="needs the extra export")
def test_export_to_onnx(tmp_path):
    x, conditions = example(37, 48, n=4)
    network = settle(narrow(ConditionedResUNet), x, conditions)
    report = export_network(AtLead(network, conditions[:1]), x, tmp_path / "network.onnx", batch_sizes=(1, 4))
    assert report.error < 1e-4


# faults


@all_networks
def test_wrong_shapes(kind):
    network = narrow(kind)
    x, conditions = example()
    name = kind.__name__
    with pytest.raises(ValueError, match=rf"{name} got features of the shape \(3, 2, 32, 48\), not \(B, 3, H, W\)"):
        network(x[:, :2], conditions)
    with pytest.raises(ValueError, match=rf"{name} got features of the shape \(3, 32, 48\)"):
        network(x[0], conditions)
    for wrong in (conditions[:1], conditions[:, :7], conditions[0]):
        with pytest.raises(ValueError, match=rf"{name} got conditions of the shape .*, not \(3, 8\)"):
            network(x, wrong)


@all_networks
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": (8,)}, r"widths are \[8\]; expected two or more, each at least 1"),
        ({"widths": ()}, r"widths are \[\]; expected two or more"),
        ({"widths": (8, 0)}, r"widths are \[8, 0\]; expected two or more, each at least 1"),
        ({"padding_mode": "reflect"}, "unknown padding_mode 'reflect'; valid are zeros, replicate"),
    ],
)
def test_wrong_settings(kind, settings, message):
    with pytest.raises(InputError, match=message):
        narrow(kind, **settings)


@all_networks
def test_networks_without_inputs_or_outputs(kind):
    with pytest.raises(InputError, match=f"{kind.__name__}: in_channels is 0; expected at least 1"):
        kind(0, 2)
    with pytest.raises(InputError, match=f"{kind.__name__}: out_channels is 0; expected at least 1"):
        kind(3, 0)


def test_attention_needs_even_widths():
    with pytest.raises(InputError, match="attention gates halve the channels: widths must be even, not 5"):
        narrow(AttnResUNet, widths=(4, 5, 7))
    assert narrow(AttnResUNet, widths=(4, 6, 7))(*example()).shape == (3, 2, 32, 48)


def test_embedding_needs_a_length():
    with pytest.raises(InputError, match="n_embedding is 0; expected at least 1"):
        narrow(ConditionedResUNet, n_embedding=0)
