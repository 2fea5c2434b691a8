import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from ai4sim.errors import InputError
from weather_forecast.lam.networks.segformer import (
    ChannelNorm,
    EfficientAttention,
    MixFeedForward,
    Segformer,
    SegformerSettings,
)

SETTINGS = SegformerSettings(
    dims=(8, 16, 20, 32), heads=(1, 2, 5, 8), ff_expansion=(4, 2, 2, 3), decoder_dim=16, num_downsampling_chans=6
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def randomised(module: nn.Module) -> nn.Module:
    """Weights and statistics none of which is 0 or 1."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for name, buffer in module.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.add_(0.3 * torch.rand_like(buffer))
    return module.eval()


def naive_norm(norm: ChannelNorm, x: torch.Tensor) -> torch.Tensor:
    mean, std = x.mean(1, keepdim=True), x.var(1, unbiased=False, keepdim=True).sqrt()
    return (x - mean) / (std + 1e-5) * norm.gain + norm.shift


def naive_attention(attention: EfficientAttention, x: torch.Tensor, heads: int, reduction: int) -> torch.Tensor:
    """Head by head: softmax(q k^T / sqrt(d)) v, with keys and values of whole patches."""
    batch, channels, height, width = x.shape
    d = channels // heads
    q = torch.einsum("oc,bcij->boij", attention.queries.weight[..., 0, 0], x)
    patches = x.unflatten(3, (-1, reduction)).unflatten(2, (-1, reduction))  # (B, C, H', R, W', R)
    keys_values = torch.einsum("ocrs,bcirjs->boij", attention.keys_values.weight, patches)
    k, v = keys_values[:, :channels], keys_values[:, channels:]
    result = torch.zeros_like(x)
    for b in range(batch):
        for h in range(heads):
            own = slice(h * d, (h + 1) * d)
            scores = q[b, own].flatten(1).T @ k[b, own].flatten(1) / math.sqrt(d)
            shares = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
            result[b, own] = (shares @ v[b, own].flatten(1).T).T.reshape(d, height, width)
    return torch.einsum("oc,bcij->boij", attention.out.weight[..., 0, 0], result)


def naive_feed_forward(layers: MixFeedForward, x: torch.Tensor) -> torch.Tensor:
    widen, depthwise, mix, _, narrow = layers
    hidden = functional.conv2d(x, widen.weight, widen.bias)
    separate = [
        functional.conv2d(hidden[:, i : i + 1], depthwise.weight[i : i + 1], depthwise.bias[i : i + 1], padding=1)
        for i in range(hidden.shape[1])
    ]
    hidden = functional.conv2d(torch.cat(separate, dim=1), mix.weight, mix.bias)
    hidden = 0.5 * hidden * (1.0 + torch.erf(hidden / math.sqrt(2.0)))
    return functional.conv2d(hidden, narrow.weight, narrow.bias)


def naive_convolution(layers: list[nn.Module], x: torch.Tensor) -> torch.Tensor:
    convolution, norm, _ = layers
    x = functional.conv2d(x, convolution.weight, convolution.bias, padding=1)
    return functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-5).clamp(min=0)


def naive_segformer(network: Segformer, x: torch.Tensor) -> torch.Tensor:
    stem = list(network.stem)
    x = naive_convolution(stem[4:7], naive_convolution(stem[1:4], functional.max_pool2d(x, 2)))
    maps = []
    for level, (kernel, stride, padding) in enumerate([(7, 4, 3), (3, 2, 1), (3, 2, 1), (3, 2, 1)]):
        patches, *layers = network.scales[level]
        height, width = x.shape[2] // stride, x.shape[3] // stride
        columns = functional.unfold(x, kernel, stride=stride, padding=padding)  # (B, C k k, H' W')
        x = torch.einsum("oc,bcn->bon", patches.weight.flatten(1), columns) + patches.bias[:, None]
        x = x.unflatten(2, (height, width))
        for layer in layers:
            attended = naive_norm(layer.attention_norm, x)
            x = x + naive_attention(layer.attention, attended, SETTINGS.heads[level], SETTINGS.reduction_ratio[level])
            x = x + naive_feed_forward(layer.feed_forward, naive_norm(layer.feed_forward_norm, x))
        wide = functional.conv2d(x, network.lateral[level].weight, network.lateral[level].bias)
        maps.append(wide.repeat_interleave(2**level, dim=2).repeat_interleave(2**level, dim=3))
    decoder = list(network.decoder)
    x = torch.cat(maps, dim=1)
    for start in (0, 4, 8):
        x = naive_convolution(decoder[start : start + 3], x)
        x = functional.interpolate(x, size=(2 * x.shape[2], 2 * x.shape[3]), mode="bilinear", align_corners=True)
    return functional.conv2d(x, decoder[12].weight, decoder[12].bias, padding=1)


def test_forward_equals_the_formulas():
    network = randomised(Segformer(5, 3, (128, 64), SETTINGS))
    x = torch.randn(2, 5, 128, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(x), naive_segformer(network, x), rtol=1e-4, atol=1e-5)


def test_normalisation_of_equal_channels_has_a_finite_gradient():
    norm = ChannelNorm(4)
    x = torch.full((1, 4, 2, 3), 2.5, requires_grad=True)
    y = norm(x)
    assert torch.equal(y, torch.zeros_like(y))
    y.square().sum().backward()
    assert torch.isfinite(x.grad).all()


def test_feed_forward_sees_its_neighbours_only():
    layers = MixFeedForward(4, 3)
    x = torch.randn(1, 4, 9, 9, requires_grad=True)
    layers(x)[..., 4, 4].sum().backward()
    reached = x.grad.abs().sum(dim=(0, 1)) > 0
    assert reached[3:6, 3:6].all()
    assert int(reached.sum()) == 9


def test_every_point_reaches_every_other_one():
    network = randomised(Segformer(2, 1, (64, 128), SETTINGS))
    x = torch.randn(1, 2, 64, 128, requires_grad=True)
    network(x)[..., 3, 3].sum().backward()
    # the stem's maximum passes one point in four on
    assert (x.grad[..., 32:, 64:].abs().sum(dim=(0, 1)) > 0).float().mean() > 0.15


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dims": (32, 64)}, r"dims needs one number for each of 4 scales, got \(32, 64\)"),
        ({"heads": 4}, "heads needs one number for each of 4 scales, got 4"),
        ({"heads": (1, 3, 5, 8)}, "the 3 heads of scale 2 do not divide its 16 channels"),
        ({"reduction_ratio": (8, 4, 2, 2)}, "reduction_ratio 2 of scale 4 must divide 1"),
        ({"decoder_dim": 30}, "decoder_dim must be a multiple of 4, got 30"),
    ],
)
def test_settings_that_do_not_fit_together_are_named(wrong, message):
    with pytest.raises(InputError, match=message):
        Segformer(5, 3, (64, 64), replace(SETTINGS, **wrong))
