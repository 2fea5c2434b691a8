import logging
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ai4sim.errors import InputError
from downscaling.corrdiff.networks import PRESETS, DhariwalUNet, NoiseEmbedding, SongUNet, backbone
from downscaling.corrdiff.networks.attention import Attention
from downscaling.corrdiff.networks.blocks import Block, doubled, halved
from downscaling.corrdiff.networks.layers import PointConv, make_norm
from downscaling.corrdiff.networks.style import ADM, SONG


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def small(**settings) -> SongUNet:
    """Two scales, attention at the coarser one, 3 inputs and 2 outputs."""
    defaults = {
        "model_channels": 16,
        "channel_mult": (1, 2),
        "num_blocks": 1,
        "attn_resolutions": (8,),
        "dropout": 0.0,
        "resolution": 16,
    }
    return SongUNet(3, 2, **{**defaults, **settings})


def small_adm(**settings) -> DhariwalUNet:
    defaults = {"model_channels": 32, "channel_mult": (1, 2), "num_blocks": 1, "attn_resolutions": (8,), "dropout": 0.0}
    return DhariwalUNet(3, 2, **{**defaults, "resolution": 16, **settings})


def awake(network: nn.Module) -> nn.Module:
    """Last layers of ordinary size, so that every part of a network matters, and biases and norms that do something."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn_like(parameter)
            elif parameter.abs().max() < 1e-3:
                nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
            assert parameter.abs().max() > 1e-3, name
    return network


def example(height: int = 16, width: int = 24, n: int = 3) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 3, height, width), torch.randn(n)


def n_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


both = pytest.mark.parametrize("make", [small, small_adm])


# sizes


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_have_the_parameters_and_shapes_of_the_reference(name):
    preset = PRESETS[name]
    height, width = preset.patch or preset.domain
    with torch.device("meta"):
        network = preset.make()
        leads = torch.zeros(2, dtype=torch.long) if network.lead_steps else None
        corners = torch.zeros(2, 2, dtype=torch.long) if preset.patch else None
        y = network(torch.empty(2, preset.in_channels, height, width), torch.empty(2), leads, corners)
    assert n_parameters(network) / 1e6 == pytest.approx(preset.parameters, rel=1e-3)
    assert y.shape == (2, preset.out_channels, height, width)


def test_exact_numbers_of_parameters():
    settings = {"model_channels": 64, "channel_mult": (1, 2, 2), "attn_resolutions": (16,), "resolution": 64}
    with torch.device("meta"):
        counts = {kind: n_parameters(SongUNet(34, 2, embedding_type=kind, **settings)) for kind in ("zero", "fourier")}
        # counted with the reference's code
        assert counts == {"zero": 10_861_122, "fourier": 10_943_554}
        assert n_parameters(SongUNet(34, 2, **settings)) == 10_943_554
        assert n_parameters(DhariwalUNet(34, 2)) == 295_183_106


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("hrrr_mini_regression", 34),
        ("hrrr_mini_diffusion", 36),
        ("taiwan_regression", 20),
        ("taiwan_patched_diffusion", 132),
        ("gefs_hrrr_regression_compat", 54),
        ("gefs_hrrr_diffusion_compat", 212),
    ],
)
def test_channels_into_the_network(name, channels):
    with torch.device("meta"):
        assert PRESETS[name].make().unet.in_channels == channels


# the same network, written once more


def naive_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    n, channels, height, width = x.shape
    groups = min(32, math.ceil(channels / 4))
    x = x.reshape(n, groups, -1)
    mean, second = x.mean(dim=2, keepdim=True), (x**2).mean(dim=2, keepdim=True)
    x = ((x - mean) / (second - mean**2 + eps).sqrt()).reshape(n, channels, height, width)
    return x * weight[:, None, None] + bias[:, None, None]


def naive_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    size = weight.shape[-1]
    pad = size // 2
    height, width = x.shape[-2:]
    x = functional.pad(x, (pad,) * 4)
    points = [(i, j) for i in range(size) for j in range(size)]
    y = sum(torch.einsum("oc,bchw->bohw", weight[:, :, i, j], x[..., i : i + height, j : j + width]) for i, j in points)
    return y + bias[:, None, None]


def naive_silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def naive_resampled(x: Tensor, resample: str) -> Tensor:
    if resample == "down":
        return sum(x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4
    return x.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1) if resample == "up" else x


def naive_attention(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
    n, channels = x.shape[:2]
    h = naive_norm(x, weights["norm.weight"], weights["norm.bias"], 1e-6)
    q, k, v = naive_conv(h, weights["qkv.weight"], weights["qkv.bias"]).reshape(n, 3, channels, -1).unbind(1)
    w = torch.softmax(torch.einsum("ncq,nck->nqk", q, k) / math.sqrt(channels), dim=2)
    a = torch.einsum("nqk,nck->ncq", w, v).reshape(x.shape)
    return (x + naive_conv(a, weights["projection.weight"], weights["projection.bias"])) / math.sqrt(2)


def part(weights: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}


def naive_block(x: Tensor, embedding: Tensor, weights: dict[str, Tensor], resample: str = "") -> Tensor:
    h = naive_silu(naive_norm(x, weights["norm0.weight"], weights["norm0.bias"], 1e-6))
    h = naive_conv(naive_resampled(h, resample), weights["conv0.weight"], weights["conv0.bias"])
    h = h + (embedding @ weights["affine.weight"].T + weights["affine.bias"])[:, :, None, None]
    h = naive_silu(naive_norm(h, weights["norm1.weight"], weights["norm1.bias"], 1e-6))
    h = naive_conv(h, weights["conv1.weight"], weights["conv1.bias"])
    x = naive_resampled(x, resample)
    if resample or x.shape[1] != h.shape[1]:
        x = naive_conv(x, weights["shortcut.weight"], weights["shortcut.bias"])
    x = (h + x) / math.sqrt(2)
    attention = part(weights, "attention")
    return naive_attention(x, attention) if attention else x


def naive_song(x: Tensor, label: Tensor, weights: dict[str, Tensor], scales: int, num_blocks: int) -> Tensor:
    n_features = weights["noise_embedding.linear0.weight"].shape[1]
    half = n_features // 2
    angles = [[c * 10000 ** (-j / (half - 1)) for j in range(half)] for c in label.tolist()]
    e = torch.tensor([[math.sin(a) for a in row] + [math.cos(a) for a in row] for row in angles], dtype=x.dtype)
    for linear in ("linear0", "linear1"):
        own = part(weights, f"noise_embedding.{linear}")
        e = naive_silu(e @ own["weight"].T + own["bias"])
    encoder = (part(weights, f"encoder.{i}") for i in range(1000))
    decoder = (part(weights, f"decoder.{i}") for i in range(1000))
    x = naive_conv(x, weights["stem.weight"], weights["stem.bias"])
    stack = [x]
    for level in range(scales):
        for resample in ["down"] * (level > 0) + [""] * num_blocks:
            x = naive_block(x, e, next(encoder), resample)
            stack.append(x)
    for level in reversed(range(scales)):
        for resample in ["", ""] if level == scales - 1 else ["up"]:
            x = naive_block(x, e, next(decoder), resample)
        for _ in range(num_blocks + 1):
            x = naive_block(torch.cat([x, stack.pop()], dim=1), e, next(decoder))
    assert not stack
    x = naive_silu(naive_norm(x, weights["norm.weight"], weights["norm.bias"], 1e-6))
    return naive_conv(x, weights["head.weight"], weights["head.bias"])


@pytest.mark.parametrize(
    ("scales", "num_blocks", "attended", "bottleneck"),
    [(1, 1, {0}, True), (2, 1, {1}, True), (3, 2, {0, 2}, False), (3, 1, set(), True)],
)
def test_network_by_formula(scales, num_blocks, attended, bottleneck):
    network = small(
        channel_mult=(1, 2, 3)[:scales],
        num_blocks=num_blocks,
        attn_resolutions=[16 >> level for level in attended],
        bottleneck_attention=bottleneck,
    )
    network = awake(network).double()
    x, label = (value.double() for value in example(n=2))
    expected = naive_song(x, label, dict(network.state_dict()), scales, num_blocks)
    with torch.no_grad():
        torch.testing.assert_close(network(x, label), expected, rtol=1e-9, atol=1e-9)
        single = network.float()(x.float(), label.float())
    assert (single - expected).abs().max() < 1e-5 * expected.abs().max()


def attending(blocks: nn.ModuleList) -> list[int]:
    return [number for number, block in enumerate(blocks) if block.attention is not None]


def test_where_attention_is():
    network = small(channel_mult=(1, 2, 2), num_blocks=2, attn_resolutions=(8,))
    # encoder: 2 blocks, then down and 2 blocks twice; decoder: 2 and 3 blocks, then up and 3 blocks twice
    assert attending(network.encoder) == [3, 4]
    assert attending(network.decoder) == [0, 8]
    network = small(channel_mult=(1, 2, 2), num_blocks=2, attn_resolutions=(16, 4), bottleneck_attention=False)
    assert attending(network.encoder) == [0, 1, 6, 7]
    assert attending(network.decoder) == [4, 12]
    network = small_adm(channel_mult=(1, 2, 2), num_blocks=2, attn_resolutions=(8,))
    assert attending(network.encoder) == [3, 4]
    assert attending(network.decoder) == [0, 6, 7, 8]
    assert {block.attention.heads for block in network.encoder if block.attention} == {1}
    wide = small_adm(model_channels=64)
    assert {block.attention.heads for block in wide.decoder if block.attention} == {2}


# parts


def test_attention_with_heads_by_formula():
    attention = awake(Attention(128, 2, ADM)).double()
    x = torch.randn(2, 128, 3, 5).double()
    h = naive_norm(x, attention.norm.weight, attention.norm.bias, 1e-5)
    q, k, v = naive_conv(h, attention.qkv.weight, attention.qkv.bias).reshape(2, 3, 2, 64, 15).unbind(1)
    w = torch.softmax(torch.einsum("nhcq,nhck->nhqk", q, k) / 8, dim=-1)
    a = torch.einsum("nhqk,nhck->nhcq", w, v).reshape(x.shape)
    expected = x + naive_conv(a, attention.projection.weight, attention.projection.bias)
    torch.testing.assert_close(attention(x), expected)


@pytest.mark.parametrize("resample", [None, "down", "up"])
def test_block_of_adm_by_formula(resample):
    block = awake(Block(8, 8, 6, ADM, resample=resample)).double()
    assert block.shortcut is None
    x, embedding = torch.randn(2, 8, 4, 6).double(), torch.randn(2, 6).double()
    h = naive_silu(naive_norm(x, block.norm0.weight, block.norm0.bias, 1e-5))
    h = naive_conv(naive_resampled(h, resample), block.conv0.weight, block.conv0.bias)
    parameters = embedding @ block.affine.weight.T + block.affine.bias
    scale, shift = parameters[:, :8, None, None], parameters[:, 8:, None, None]
    h = naive_silu(naive_norm(h, block.norm1.weight, block.norm1.bias, 1e-5) * (1 + scale) + shift)
    expected = naive_conv(h, block.conv1.weight, block.conv1.bias) + naive_resampled(x, resample)
    torch.testing.assert_close(block(x, embedding), expected)


def test_resampling():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert halved(x).tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]
    assert doubled(halved(x))[0, 0].tolist() == [[2.5] * 2 + [4.5] * 2] * 2 + [[10.5] * 2 + [12.5] * 2] * 2
    assert torch.equal(halved(doubled(x)), x)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_convolution_of_points(layout):
    conv, x = PointConv(5, 7), torch.randn(2, 5, 3, 4).contiguous(memory_format=layout)
    torch.testing.assert_close(conv(x), naive_conv(x, conv.weight, conv.bias))
    with torch.device("meta"):
        assert PointConv(5, 7)(torch.empty(2, 5, 3, 4)).shape == (2, 7, 3, 4)


def test_groups_of_normalisation():
    assert [make_norm(channels, 1e-6).num_groups for channels in (3, 4, 8, 6, 64, 128, 256)] == [1, 1, 2, 2, 16, 32, 32]
    with pytest.raises(InputError, match="10 channels cannot be normalised in 3 groups"):
        make_norm(10, 1e-6)


@both
def test_training_and_evaluation_are_the_same_without_dropout(make):
    network, inputs = awake(make()), example()
    assert torch.equal(network.train()(*inputs), network.eval()(*inputs))


def test_dropout_acts_in_training_only():
    network, inputs = awake(small(dropout=0.5)), example()
    assert not torch.allclose(network(*inputs), network(*inputs))
    network.eval()
    assert torch.equal(network(*inputs), network(*inputs))


# noise


def test_noise_embedding_by_formula():
    embedding = NoiseEmbedding(8, 12).double()
    labels = torch.tensor([-1.5, 0.0, 2.0]).double()
    e = torch.tensor(
        [[f(c * 10000 ** (-j / 3)) for f in (math.sin, math.cos) for j in range(4)] for c in labels.tolist()]
    ).double()
    h = naive_silu(e @ embedding.linear0.weight.T + embedding.linear0.bias)
    expected = naive_silu(h @ embedding.linear1.weight.T + embedding.linear1.bias)
    torch.testing.assert_close(embedding(labels, like=e), expected, rtol=1e-6, atol=1e-7)


def test_noise_embedding_of_adm_by_formula():
    embedding = NoiseEmbedding(8, 12, reach_end=False)
    labels = torch.tensor([0.7, -3.0])
    e = torch.tensor(
        [[f(c * 10000 ** (-j / 4)) for f in (math.cos, math.sin) for j in range(4)] for c in labels.tolist()]
    )
    expected = naive_silu(embedding.linear1(naive_silu(embedding.linear0(e))))
    torch.testing.assert_close(embedding(labels, like=e), expected)


def test_fourier_embedding_has_frequencies_that_are_saved_and_not_learnt():
    network, (x, label) = awake(small(embedding_type="fourier")), example()
    frequencies = network.noise_embedding.frequencies
    assert "noise_embedding.frequencies" in network.state_dict()
    assert not frequencies.requires_grad
    assert NoiseEmbedding(4000, 8, "fourier").frequencies.std() == pytest.approx(16, rel=0.1)
    e = torch.stack([2 * math.pi * c * frequencies for c in label])
    own = network.noise_embedding
    expected = naive_silu(own.linear1(naive_silu(own.linear0(torch.cat([e.sin(), e.cos()], dim=1)))))
    torch.testing.assert_close(own(label, like=x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["positional", "fourier", "zero"])
def test_noise_matters_unless_the_embedding_is_zero(kind):
    network, (x, label) = awake(small(embedding_type=kind)), example()
    assert torch.equal(network(x, label), network(x, label + 1)) == (kind == "zero")


def test_noise_levels_are_told_apart_in_half_precision():
    # sin and cos of large labels would be noise in bfloat16, which has 8 bits
    embedding = NoiseEmbedding(8, 16)
    labels = torch.tensor([250.0, 251.0])
    exact = embedding(labels, like=torch.zeros(1))
    half = embedding.bfloat16()(labels, like=torch.zeros(1, dtype=torch.bfloat16))
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, rtol=0.05, atol=0.02)


def test_lead_embedding_is_added():
    network, (x, label) = awake(small(embedding_type="zero")), example()
    lead = torch.randn(3, network.n_embedding)
    y = network(x, label, lead)
    assert not torch.allclose(y, network(x, label), atol=1e-3)
    assert torch.equal(network(x, label, torch.zeros_like(lead)), network(x, label))
    blocks = []
    for block in network.encoder:
        block.register_forward_pre_hook(lambda _, inputs: blocks.append(inputs[1]))
    network(x, label, lead)
    assert len(blocks) == len(network.encoder)
    assert all(torch.equal(given, lead) for given in blocks)


# first weights


def bound(layer: nn.Conv2d | nn.Linear) -> float:
    points = layer.weight[0, 0].numel()
    return math.sqrt(6 / (points * (layer.weight.shape[0] + layer.weight.shape[1])))


def test_first_weights():
    network = small()
    last = {name: layer for name, layer in network.named_modules() if name.endswith(("conv1", "projection", "head"))}
    query = {name: layer for name, layer in network.named_modules() if name.endswith("qkv")}
    assert last.keys() > {"head"}
    assert query
    for name, layer in network.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        expected = bound(layer) * (1e-5 if name in last else math.sqrt(0.2) if name in query else 1)
        largest = float(layer.weight.detach().abs().max())
        assert 0.9 * expected < largest <= expected * (1 + 1e-6), name
        assert layer.weight.detach().std() == pytest.approx(expected / math.sqrt(3), rel=0.2), name
        assert not layer.bias.any(), name


def test_untrained_networks_give_nearly_nothing():
    inputs = example()
    y = small()(*inputs)
    assert 0 < y.abs().max() < 1e-4
    y = small_adm()(*inputs)
    assert not y.any()


def test_first_weights_of_adm():
    network = small_adm()
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            if name.endswith(("conv1", "projection", "head")):
                assert not layer.weight.any()
                continue
            largest = 1 / math.sqrt(layer.weight[0].numel())
            assert 0.9 * largest < layer.weight.abs().max() <= largest, name


# size of maps


@both
@pytest.mark.parametrize(("height", "width", "padded"), [(17, 24, (20, 24)), (14, 22, (16, 24)), (16, 21, (16, 24))])
def test_maps_of_any_size_are_padded_by_reflection_below_and_to_the_right(make, height, width, padded):
    network = awake(make(channel_mult=(1, 2, 2)))
    assert network.multiple == 4
    x, label = example(height, width)
    rows = [i if i < height else 2 * (height - 1) - i for i in range(padded[0])]
    columns = [j if j < width else 2 * (width - 1) - j for j in range(padded[1])]
    expected = network(x[:, :, rows][..., columns], label)[..., :height, :width]
    torch.testing.assert_close(network(x, label), expected, rtol=1e-4, atol=1e-5)


def test_padding_is_logged_once(caplog):
    backbone._log_padding.cache_clear()
    network, inputs = small(), example(15, 24)
    with caplog.at_level(logging.INFO, logger=backbone.__name__), torch.no_grad():
        for _ in range(3):
            network(*inputs)
        network(*example())
    messages = [record.message for record in caplog.records]
    assert messages == ["SongUNet pads maps of 15 x 24 by reflection to 16 x 24 and cuts its output back"]


def test_faults_in_the_size_of_maps():
    with pytest.raises(InputError, match="SongUNet needs rows and columns that are multiples of 2, got 15 x 24"):
        small(autopad=False)(*example(15, 24))
    network = small(channel_mult=(1, 1, 1, 1, 1), attn_resolutions=())
    with pytest.raises(InputError, match="SongUNet cannot pad 16 x 5 by reflection to 16 x 16, multiples of 16"):
        network(*example(16, 5))


def test_attention_stays_at_its_scale_for_maps_of_other_sizes():
    network = awake(small())
    assert network(*example(32, 32)).shape == (3, 2, 32, 32)
    assert attending(network.encoder) == [2]


# batches, gradients, precision


@both
def test_rows_of_a_batch_are_independent(make):
    network, (x, label) = awake(make()), example(n=4)
    order = torch.tensor([2, 0, 3, 1])
    y = network(x, label)
    torch.testing.assert_close(network(x[order], label[order]), y[order], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network(x[1:2], label[1:2]), y[1:2], rtol=1e-4, atol=1e-5)


@both
def test_layout_in_memory_does_not_matter(make, monkeypatch):
    network, (x, label) = awake(make()), example()
    y = network(x, label)
    torch.testing.assert_close(network(x.contiguous(memory_format=torch.channels_last), label), y)
    monkeypatch.setattr(backbone, "channels_last_on_cpu", lambda maps: maps)
    torch.testing.assert_close(network(x, label), y, rtol=1e-4, atol=1e-5)


@both
def test_gradients_reach_every_parameter(make):
    network = awake(make(channel_mult=(1, 2, 2)))
    network(*example()).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_without_noise_only_the_weights_of_the_embedding_have_no_gradient():
    network = awake(small(embedding_type="zero"))
    network(*example()).square().sum().backward()
    idle = [name for name, parameter in network.named_parameters() if not parameter.grad.any()]
    assert idle == [name for name, _ in network.named_parameters() if name.endswith("affine.weight")]


@pytest.mark.parametrize("style", [SONG, ADM])
@pytest.mark.parametrize("resample", [None, "down", "up"])
def test_gradients_of_a_block_are_right_though_maps_are_overwritten(style, resample):
    block = awake(Block(2, 4, 2, style, resample=resample, heads=1)).double()
    x = torch.randn(2, 2, 4, 2, dtype=torch.float64, requires_grad=True)
    embedding = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, (x, embedding))


@both
def test_without_gradients_nothing_given_is_overwritten(make):
    network, (x, label) = awake(make()).eval(), example()
    expected, copy = network(x, label), x.clone()
    x = x.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        torch.testing.assert_close(network(x, label), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(x, copy)


@both
@pytest.mark.parametrize("level", [1, 2])
def test_blocks_that_are_computed_again_give_the_same(make, level):
    plain, saving = awake(make(dropout=0.2)), make(dropout=0.2, checkpoint_level=level)
    saving.load_state_dict(plain.state_dict())
    assert sum(block.checkpointed for block in saving.encoder) == (2 if level == 1 else 3)
    results = []
    for network in (plain, saving):
        torch.manual_seed(1)
        x, label = example()
        y = network(x.requires_grad_(), label)
        y.square().sum().backward()
        results.append([y, x.grad, *(parameter.grad for parameter in network.parameters())])
    for own, other in zip(*results, strict=True):
        torch.testing.assert_close(own, other)


def saved_numbers(network: nn.Module) -> int:
    """Numbers that are kept for the backward pass, parameters left out."""
    known = {parameter.data_ptr() for parameter in network.parameters()}
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in known:
            kept[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = network(*example(32, 32))
    assert y.requires_grad
    return sum(tensor.numel() for tensor in kept.values())


def test_blocks_that_are_computed_again_keep_less():
    kept = [saved_numbers(small(checkpoint_level=level)) for level in range(3)]
    assert kept[1] < 0.7 * kept[0]
    assert kept[2] < 0.7 * kept[1]


@both
def test_half_precision(make):
    network, inputs = awake(make()).eval(), example()
    with torch.no_grad():
        exact = network(*inputs)
        with torch.autocast("cpu", torch.bfloat16):
            y = network(*inputs)
    # not in steps of bfloat16
    assert y.dtype == torch.float32
    assert not torch.equal(y, y.bfloat16().float())
    assert (y - exact).norm() < 3e-2 * exact.norm()


def test_gradients_in_half_precision():
    network = awake(small(checkpoint_level=1))
    with torch.autocast("cpu", torch.bfloat16):
        loss = network(*example()).square().mean()
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@both
def test_export_with_a_free_batch(make):
    network = awake(make()).eval()
    batch = torch.export.Dim("batch")
    program = torch.export.export(network, example(15, n=2), dynamic_shapes=({0: batch}, {0: batch}))
    inputs = example(15, n=5)
    torch.testing.assert_close(program.module()(*inputs), network(*inputs), rtol=1e-4, atol=1e-5)


# faults


@both
def test_wrong_shapes(make):
    network, (x, label) = make(), example()
    name = type(network).__name__
    with pytest.raises(ValueError, match=rf"{name} got maps of the shape \(3, 2, 16, 24\), not \(B, 3, H, W\)"):
        network(x[:, :2], label)
    with pytest.raises(ValueError, match=rf"{name} got noise labels of the shape \(1,\), not \(3,\)"):
        network(x, label[:1])
    with pytest.raises(ValueError, match=r"got lead-time embeddings of the shape \(3, 5\), not \(3, \d+\)"):
        network(x, label, torch.randn(3, 5))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_channels": 0}, "model_channels is 0; expected at least 1"),
        ({"model_channels": 10, "attn_resolutions": ()}, "10 channels cannot be normalised in 3 groups"),
        ({"model_channels": 3}, "channel_mult_noise = 3 features; expected an even number, at least 4"),
        ({"channel_mult": ()}, r"channel_mult is \[\]; expected one or more"),
        ({"channel_mult": (1, 0)}, r"channel_mult is \[1, 0\]; expected one or more, each at least 1"),
        ({"num_blocks": 0}, "num_blocks is 0; expected at least 1"),
        ({"dropout": 1.0}, "dropout is 1.0; expected 0 or more, and less than 1"),
        ({"embedding_type": "cosine"}, "unknown embedding_type 'cosine'; valid are positional, fourier, zero"),
        ({"checkpoint_level": 3}, "checkpoint_level is 3; expected 0 to 2"),
        ({"resolution": 0}, "resolution is 0"),
        ({"attn_resolutions": (28,)}, "attn_resolutions has 28, but the scales of maps with 16 rows have 16, 8 rows"),
        ({"resolution": (12, 16)}, "attn_resolutions has 8, but the scales of maps with 12 rows have 12, 6 rows"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(InputError, match=message):
        small(**settings)


def test_networks_without_inputs_or_outputs():
    with pytest.raises(InputError, match="SongUNet: in_channels is 0; expected at least 1"):
        SongUNet(0, 2)
    with pytest.raises(InputError, match="SongUNet: out_channels is 0; expected at least 1"):
        SongUNet(3, 0)


def test_adm_needs_channels_for_heads():
    with pytest.raises(
        InputError, match="DhariwalUNet: 32 channels where there is attention; expected a multiple of 64"
    ):
        small_adm(channel_mult=(1, 1))
