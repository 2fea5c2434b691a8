from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from ai4sim.errors import InputError
from ai4sim.networks import (
    ConvBlock,
    GhostBlock,
    GhostConv,
    HalfUNet,
    UNet,
    make_activation,
    on_multiple,
    require_multiple,
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def n_parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def settle(network: nn.Module, x: torch.Tensor) -> nn.Module:
    """Give the normalisations statistics and weights other than 0 and 1."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
        network.train()(x)
    return network.eval()


def naive_block(block: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """[convolution, normalisation by running statistics, positive part] twice, by formula."""
    for convolution, norm in ((block[0], block[1]), (block[3], block[4])):
        if isinstance(convolution, GhostConv):
            primary = functional.conv2d(x, convolution.primary.weight, padding=1)
            cheap = [
                functional.conv2d(primary[:, i : i + 1], convolution.cheap.weight[i : i + 1], padding=1)
                for i in range(primary.shape[1])
            ]
            x = torch.cat([primary, *cheap], dim=1)
        else:
            x = functional.conv2d(x, convolution.weight, padding=1)
        mean, var, weight, bias = (
            v[:, None, None] for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        x = ((x - mean) / (var + 1e-5).sqrt() * weight + bias).clamp(min=0)
    return x


def bilinear_matrix(n: int, factor: int) -> torch.Tensor:
    """(factor n, n): linear interpolation with the end points on the end points."""
    positions = np.linspace(0.0, n - 1.0, factor * n)
    return torch.tensor(np.maximum(0.0, 1.0 - abs(positions[:, None] - np.arange(n))), dtype=torch.float32)


@pytest.mark.parametrize("use_ghost", [False, True])
def test_half_unet_is_the_sum_of_all_scales(use_ghost):
    x = torch.randn(2, 5, 32, 48)
    network = settle(HalfUNet(5, 3, num_filters=6, use_ghost=use_ghost, last_activation="Sigmoid"), x)
    y = naive_block(network.encoder[0], x)
    total = y
    for level in range(1, 5):
        y = naive_block(network.encoder[level], y.unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2)).amax(dim=(-3, -1)))
        rows, columns = (bilinear_matrix(size, 2**level) for size in y.shape[-2:])
        total = total + rows @ y @ columns.T
    expected = torch.sigmoid(
        torch.einsum("oc,bcij->boij", network.head.weight[..., 0, 0], naive_block(network.decoder, total))
    )
    torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-5)


def test_unet_passes_every_scale_over_to_the_decoder():
    x = torch.randn(2, 5, 16, 24)
    network = settle(UNet(5, 3, init_features=4, depth=2), x)
    fine = naive_block(network.encoder[0], x)
    middle = naive_block(network.encoder[1], functional.max_pool2d(fine, 2))
    y = naive_block(network.bottleneck, functional.max_pool2d(middle, 2))
    for level, skip in enumerate((middle, fine)):
        up = network.up[level]
        # each coarse point becomes 2 x 2 fine ones
        fine_up = torch.einsum("bcij,codk->boidjk", y, up.weight).flatten(-2).flatten(-3, -2) + up.bias[:, None, None]
        y = naive_block(network.decoder[level], torch.cat([fine_up, skip], dim=1))
    expected = torch.einsum("oc,bcij->boij", network.head.weight[..., 0, 0], y) + network.head.bias[:, None, None]
    torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-5)


def test_half_unet_keeps_gradients_right_though_it_sums_in_place():
    network = HalfUNet(2, 1, num_filters=2, depth=2, norm=partial(nn.GroupNorm, 1)).double()
    assert torch.autograd.gradcheck(network, torch.randn(1, 2, 8, 8, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize(("make", "per_block"), [(HalfUNet, {"num_filters": 8}), (UNet, {"init_features": 8})])
def test_depth_and_normalisation_can_be_chosen(make, per_block):
    network = make(3, 2, depth=2, norm=partial(nn.GroupNorm, 4), **per_block)
    assert network.multiple == 4
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert any(isinstance(module, nn.GroupNorm) for module in network.modules())
    # without statistics of the batch a sample's output does not depend on the others'
    x = torch.randn(3, 3, 12, 20)
    torch.testing.assert_close(network(x)[:1], network(x[:1]))


def test_bias_and_dilation_of_half_unet():
    plain, biased = HalfUNet(3, 2, num_filters=8), HalfUNet(3, 2, num_filters=8, bias=True)
    assert n_parameters(biased) - n_parameters(plain) == 12 * 8 + 2
    wide = HalfUNet(3, 2, num_filters=8, dilation=2)
    assert {m.dilation for m in wide.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)} == {(2, 2)}
    assert wide(torch.randn(1, 3, 48, 32)).shape == (1, 2, 48, 32)


def test_embedded_position_is_added_to_the_input():
    network = settle(HalfUNet(3, 2, num_filters=8, embedded_shape=(20, 30)), torch.randn(4, 3, 20, 30))
    x = torch.randn(2, 3, 20, 30)
    assert network.position.shape == (1, 3, 20, 30)
    assert 0.0 < network.position.std() < 0.05
    y = network(x)
    position = network.position
    network.position = None
    torch.testing.assert_close(network(x + position), y)


@pytest.mark.parametrize("block", [ConvBlock, GhostBlock])
def test_blocks_keep_the_grid_and_are_not_negative(block):
    y = block(3, 8, dilation=2, bias=True)(torch.randn(2, 3, 11, 7))
    assert y.shape == (2, 8, 11, 7)
    assert y.min() == 0.0
    assert y.max() > 0.0


def test_ghost_convolution_has_half_the_parameters():
    assert n_parameters(GhostConv(64, 64)) == 64 * 32 * 9 + 32 * 9
    with pytest.raises(InputError, match="even number of output channels, got 7"):
        GhostConv(3, 7)


def test_grid_is_padded_in_the_centre_and_cut_back():
    seen = []

    def network(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return 2.0 * x

    x = torch.arange(1.0, 1 + 5 * 7).reshape(1, 1, 5, 7)
    y = on_multiple(network, x, 8, autopad=True)
    torch.testing.assert_close(y, 2.0 * x)
    (padded,) = seen
    assert padded.shape == (1, 1, 8, 8)
    torch.testing.assert_close(padded[..., 1:6, 0:7], x)
    assert padded.sum() == x.sum()


def test_fitting_grid_is_passed_on_as_it_is():
    x = torch.randn(1, 2, 8, 16)
    assert on_multiple(lambda given: given, x, 8, autopad=False) is x


@pytest.mark.parametrize(
    "network", [HalfUNet(2, 1, num_filters=4, autopad=False), UNet(2, 1, init_features=4, autopad=False)]
)
def test_grid_without_padding_is_refused_with_its_numbers(network):
    message = f"{type(network).__name__} needs rows and columns that are multiples of 16, got 50 x 64: .* 64 x 64"
    with pytest.raises(InputError, match=message):
        network(torch.randn(1, 2, 50, 64))
    assert network(torch.randn(2, 2, 48, 64)).shape == (2, 1, 48, 64)


def test_required_multiple_names_the_next_sizes():
    require_multiple(32, 48, 16, network="Net")
    with pytest.raises(
        InputError, match=r"Net needs rows and columns that are multiples of 16, got 33 x 47: .* 48 x 48"
    ):
        require_multiple(33, 47, 16, network="Net")


def test_activations_by_name():
    assert isinstance(make_activation("Identity"), nn.Identity)
    assert isinstance(make_activation("Softplus"), nn.Softplus)
    for name in ("Relu", "Linear", "MultiheadAttention", "functional"):
        with pytest.raises(InputError, match=f"unknown activation '{name}'"):
            make_activation(name)
