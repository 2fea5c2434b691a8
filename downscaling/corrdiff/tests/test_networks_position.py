import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ai4sim.errors import InputError
from downscaling.corrdiff.networks import (
    DhariwalUNet,
    FixedGrid,
    LeadTimeEmbedding,
    LearntTable,
    PositionedUNet,
    SongUNet,
    linear_grid,
    sinusoidal_grid,
)
from downscaling.corrdiff.networks.position import make_position

DOMAIN = (12, 20)
CORNERS = torch.tensor([[0, 0], [4, 12], [3, 5], [3, 5]])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def small_unet(in_channels: int, out_channels: int, **settings) -> SongUNet:
    defaults = {"model_channels": 8, "channel_mult": (1, 2), "num_blocks": 1, "attn_resolutions": (), "dropout": 0.0}
    return SongUNet(in_channels, out_channels, **{**defaults, "bottleneck_attention": False, **settings})


class Given(nn.Module):
    """In place of a U-Net: keeps what it was given, and gives its first channels."""

    n_embedding, multiple = 16, 1

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels

    def forward(self, x: Tensor, noise_label: Tensor, lead_embedding: Tensor | None = None) -> Tensor:
        assert x.shape[1] == self.in_channels
        self.x, self.noise_label, self.lead_embedding = x, noise_label, lead_embedding
        return x[:, : self.out_channels]


def positioned(**settings) -> PositionedUNet:
    return PositionedUNet(3, 2, **{"domain": DOMAIN, "unet": small_unet, **settings})


def cut(fields: Tensor, corners: Tensor, shape: tuple[int, int] = (8, 8)) -> Tensor:
    """(B, C, h, w), one part for each corner, of fields (C, H, W) or (B, C, H, W)."""
    if fields.ndim == 3:
        fields = fields.expand(len(corners), -1, -1, -1)
    return torch.stack(
        [own[:, i : i + shape[0], j : j + shape[1]] for own, (i, j) in zip(fields, corners.tolist(), strict=True)]
    )


def learnt_whole(table: LearntTable, label: int) -> Tensor:
    """The maps (C, H, W) of a label, at the domain's resolution."""
    maps = table.table[label].permute(2, 0, 1)
    return functional.interpolate(maps[None], table.domain, mode="bilinear", align_corners=True)[0]


# grids


def test_sinusoidal_grid_by_formula():
    grid = sinusoidal_grid((5, 7), 8)
    assert grid.shape == (8, 5, 7)
    for i in range(5):
        for j in range(7):
            x, y = 2 * math.pi * j / 6, 2 * math.pi * i / 4
            for octave, f in enumerate((1, 2)):
                expected = [math.sin(f * x), math.sin(f * y), math.cos(f * x), math.cos(f * y)]
                assert grid[4 * octave : 4 * octave + 4, i, j].tolist() == pytest.approx(expected, abs=1e-6)
    # given by the reference's code
    expected = torch.tensor([0.9898, 0.9749, -0.1423, -0.2225])
    torch.testing.assert_close(sinusoidal_grid((8, 12))[:, 2, 3], expected, rtol=0, atol=1e-4)


def test_linear_grid_goes_along_columns_first():
    grid = linear_grid((3, 5))
    assert grid[0].tolist() == [[-1, -0.5, 0, 0.5, 1]] * 3
    assert grid[1].tolist() == [[-1] * 5, [0] * 5, [1] * 5]


@pytest.mark.parametrize("kind", ["sinusoidal", "linear"])
def test_parts_of_fixed_grids_are_slices(kind):
    table = FixedGrid(DOMAIN, kind, 4 if kind == "sinusoidal" else 2)
    grid = sinusoidal_grid(DOMAIN) if kind == "sinusoidal" else linear_grid(DOMAIN)
    labels = torch.zeros(4, dtype=torch.long)
    assert torch.equal(table((8, 8), labels, CORNERS), cut(grid, CORNERS))
    assert torch.equal(table(DOMAIN, labels), grid.expand(4, -1, -1, -1))
    # not learnt and not saved
    assert not table.state_dict()


@pytest.mark.parametrize("resolution", [None, (12, 20), (3, 5), (2, 2)])
def test_parts_of_learnt_tables_are_slices_of_the_maps_of_their_label(resolution):
    table = LearntTable(DOMAIN, 5, 3, resolution)
    assert table.table.shape == (5, *(resolution or DOMAIN), 3)
    labels = torch.tensor([4, 0, 2, 3])
    whole = torch.stack([learnt_whole(table, label) for label in labels.tolist()])
    torch.testing.assert_close(table((8, 8), labels, CORNERS), cut(whole, CORNERS))
    torch.testing.assert_close(table((8, 8), labels, CORNERS.int()), cut(whole, CORNERS))
    torch.testing.assert_close(table(DOMAIN, labels), whole)


@pytest.mark.parametrize("resolution", [None, (3, 5)])
def test_gradients_of_learnt_tables_are_those_of_slices(resolution):
    table = LearntTable(DOMAIN, 5, 3, resolution).double()
    labels, weights = torch.tensor([4, 0, 4, 4]), torch.randn(4, 3, 8, 8).double()
    (own,) = torch.autograd.grad((weights * table((8, 8), labels, CORNERS)).sum(), table.table)
    whole = torch.stack([learnt_whole(table, label) for label in labels.tolist()])
    (expected,) = torch.autograd.grad((weights * cut(whole, CORNERS)).sum(), table.table)
    torch.testing.assert_close(own, expected)
    assert not own[1:4].any()


def test_learnt_tables_begin_as_noise_of_unit_variance():
    table = LearntTable((64, 64), 1, 10).table.detach()
    assert float(table.mean()) == pytest.approx(0, abs=0.02)
    assert float(table.std()) == pytest.approx(1, abs=0.02)


# what the U-Net is given


@pytest.mark.parametrize(
    ("position", "lead_channels", "resolution"),
    [
        ("sinusoidal", 0, None),
        ("linear", 0, None),
        ("learnable", 0, (3, 4)),
        ("none", 0, None),
        ("sinusoidal", 2, (3, 4)),
        ("learnable", 2, None),
        ("none", 2, None),
    ],
)
def test_position_lead_time_and_maps_agree_for_every_patch(position, lead_channels, resolution):
    """An index grid cut at the corners says where a patch is; B = 3 samples and P = 5 patches of each."""
    channels = {"sinusoidal": 8, "linear": 2, "learnable": 3, "none": 0}[position]
    network = PositionedUNet(
        3,
        2,
        domain=DOMAIN,
        unet=Given,
        position=position,
        position_channels=channels,
        lead_steps=4 if lead_channels else 0,
        lead_channels=lead_channels,
        embed_resolution=resolution,
    )
    assert network.takes_corners == (position != "none" or lead_channels > 0)
    index = torch.arange(12.0)[:, None] * 100 + torch.arange(20.0)
    corners = torch.stack([torch.randint(0, 5, (15,)), torch.randint(0, 13, (15,))], dim=1)
    sample = torch.arange(15) % 3
    fields = torch.stack([torch.stack([index, index * 0 + b, index * 0]) for b in range(3)])
    leads = torch.tensor([3, 0, 2])[sample] if lead_channels else None
    x = cut(fields[sample], corners)
    network(x, torch.arange(15.0), leads, corners)
    given = network.unet.x
    assert torch.equal(given[:, :3], x)
    assert torch.equal(network.unet.noise_label, torch.arange(15.0))
    for patch in range(15):
        first = int(given[patch, 0, 0, 0])
        row, column = first // 100, first % 100
        slices = (slice(None), slice(row, row + 8), slice(column, column + 8))
        if network.position is not None:
            whole = learnt_whole(network.position, 0) if position == "learnable" else network.position.table[0]
            whole = whole if position == "learnable" else whole.permute(2, 0, 1)
            torch.testing.assert_close(given[patch, 3 : 3 + channels], whole[slices])
        if lead_channels:
            label = [3, 0, 2][int(given[patch, 1, 0, 0])]
            torch.testing.assert_close(given[patch, 3 + channels :], learnt_whole(network.lead_table, label)[slices])


def test_whole_domains_need_no_corners():
    network = positioned(position="learnable", position_channels=2, lead_steps=3, lead_channels=2)
    x, noise, lead = torch.randn(2, 3, *DOMAIN), torch.randn(2), torch.tensor([2, 1])
    torch.testing.assert_close(network(x, noise, lead), network(x, noise, lead, torch.zeros(2, 2, dtype=torch.long)))
    torch.testing.assert_close(network(x, noise, lead), network(x, noise, lead, [[0, 0], [0, 0]]))


def test_maps_of_any_size_without_positions():
    network = positioned(position="none", position_channels=0)
    assert network(torch.randn(2, 3, 17, 9), torch.zeros(2)).shape == (2, 2, 17, 9)
    assert network.multiple == 2


def test_order_of_a_batch_does_not_matter():
    network = positioned(position="learnable", position_channels=2, lead_steps=5, lead_channels=2, lead_embedding=True)
    x, noise, lead = torch.randn(4, 3, 8, 8), torch.randn(4), torch.tensor([4, 0, 2, 1])
    order = torch.tensor([2, 0, 3, 1])
    y = network(x, noise, lead, CORNERS)
    torch.testing.assert_close(network(x[order], noise[order], lead[order], CORNERS[order]), y[order])


# lead times


def test_embedding_of_lead_times():
    embedding = LeadTimeEmbedding(9, 6)
    labels = torch.tensor([0, 8, 3])
    scaled = torch.tensor([[-1.0], [1.0], [-0.25]])
    torch.testing.assert_close(embedding(labels), embedding.linear1(functional.silu(embedding.linear0(scaled))))
    network = PositionedUNet(3, 2, domain=DOMAIN, unet=Given, lead_steps=9, lead_embedding=True)
    network(torch.randn(3, 3, *DOMAIN), torch.zeros(3), labels)
    torch.testing.assert_close(network.unet.lead_embedding, network.lead_embedding(labels))
    # between lead times it was trained on
    network(torch.randn(1, 3, *DOMAIN), torch.zeros(1), torch.tensor([3.5]))


def test_gradients_reach_positions_lead_times_and_scales():
    network = positioned(
        position="learnable",
        position_channels=2,
        lead_steps=3,
        lead_channels=2,
        lead_embedding=True,
        probability_channels=(0, 1),
    )
    for parameter in network.parameters():
        if parameter.abs().max() < 1e-3:
            nn.init.normal_(parameter, std=0.1)
    lead = torch.tensor([0, 1, 2])
    network(torch.randn(3, 3, *DOMAIN), torch.randn(3), lead)[:, 0].square().sum().backward()
    for name, parameter in network.named_parameters():
        if not name.endswith("norm1.bias"):
            assert parameter.grad.any(), name


# probabilities


@pytest.mark.parametrize("channels", [(1, 2, 3), (0, 3), (3, 0)])
def test_logits_in_training_and_probabilities_in_evaluation(channels):
    network = PositionedUNet(4, 4, domain=DOMAIN, unet=Given, probability_channels=channels)
    assert network.logit_scale.tolist() == [1.0] * len(channels)
    x, noise = 3 * torch.randn(2, 4, *DOMAIN), torch.zeros(2)
    assert torch.equal(network(x, noise), x)
    scales = torch.arange(2.0, 2.0 + len(channels))
    network.logit_scale.data = scales
    logits = x[:, sorted(channels)] * scales[:, None, None]
    expected = x.clone()
    expected[:, sorted(channels)] = logits
    torch.testing.assert_close(network(x, noise), expected)
    expected[:, sorted(channels)] = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    torch.testing.assert_close(network.eval()(x, noise), expected)


# other uses


@pytest.mark.parametrize("resolution", [None, (3, 4)])
def test_export_with_a_free_batch(resolution):
    network = positioned(
        position="learnable",
        position_channels=2,
        lead_steps=3,
        lead_channels=2,
        lead_embedding=True,
        embed_resolution=resolution,
        probability_channels=(0, 1),
    ).eval()

    def inputs(n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        corners = torch.stack([torch.arange(n) % 4, torch.arange(n) % 12], dim=1)
        return torch.randn(n, 3, 8, 8), torch.randn(n), torch.arange(n) % 3, corners

    batch = torch.export.Dim("batch")
    program = torch.export.export(network, inputs(2), dynamic_shapes=({0: batch},) * 4)
    other = inputs(5)
    torch.testing.assert_close(program.module()(*other), network(*other), rtol=1e-4, atol=1e-5)


def test_half_precision():
    network = positioned(position="learnable", position_channels=2, probability_channels=(0, 1)).eval()
    nn.init.normal_(network.unet.head.weight, std=0.3)
    x, noise = torch.randn(2, 3, *DOMAIN), torch.randn(2)
    exact = network(x, noise)
    with torch.autocast("cpu", torch.bfloat16):
        y = network(x, noise)
    assert (y - exact).norm() < 3e-2 * exact.norm()


def test_other_u_nets():
    def make(in_channels: int, out_channels: int) -> DhariwalUNet:
        return DhariwalUNet(
            in_channels, out_channels, model_channels=32, channel_mult=(1, 2), num_blocks=1, attn_resolutions=()
        )

    network = positioned(unet=make)
    assert network.unet.in_channels == 7
    assert network(torch.randn(2, 3, *DOMAIN), torch.zeros(2)).shape == (2, 2, *DOMAIN)


# faults


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"position": "polar"}, "unknown position 'polar'; valid are sinusoidal, linear, learnable, none"),
        ({"position_channels": 6}, "position_channels is 6; sinusoidal positions need a multiple of 4"),
        ({"position": "linear"}, "position_channels is 4; linear positions have 2"),
        ({"position": "none"}, "position_channels is 4; expected 0 without positions"),
        ({"position": "learnable", "position_channels": 0}, "number of channels of a table is 0; expected at least 1"),
        ({"lead_steps": 9}, "lead_steps is 9, lead_channels 0 and lead_embedding False"),
        ({"lead_channels": 2}, "lead_steps is 0, lead_channels 2 and lead_embedding False"),
        ({"lead_steps": 1, "lead_embedding": True}, "lead_steps is 1; expected at least 2"),
        ({"embed_resolution": (3, 4)}, "embed_resolution is set, but nothing is learnt of places"),
        (
            {"position": "learnable", "embed_resolution": (13, 4)},
            "embed_resolution is 13 x 4; expected from 2 x 2 to the domain, 12 x 20",
        ),
        ({"position": "learnable", "embed_resolution": (1, 4)}, "embed_resolution is 1 x 4"),
        (
            {"probability_channels": (0, 2)},
            r"probability_channels are \[0, 2\]; expected different numbers from 0 to 1",
        ),
        ({"probability_channels": (1, 1)}, r"probability_channels are \[1, 1\]; expected different numbers"),
        ({"probability_channels": (1,)}, r"probability_channels are \[1\]: the probability of a single class"),
        ({"domain": (0, 4), "position": "learnable"}, "the domain is 0 x 4; expected at least 1 x 1"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(InputError, match=message):
        positioned(**settings)


def test_patches_must_say_where_they_are():
    network = positioned()
    x, noise = torch.randn(2, 3, 8, 8), torch.zeros(2)
    with pytest.raises(ValueError, match="maps of 8 x 8 without corners, but its domain is 12 x 20"):
        network(x, noise)
    with pytest.raises(ValueError, match=r"corners of the shape \(1, 2\) and type torch.int64, not \(2, 2\)"):
        network(x, noise, corners=[[0, 0]])
    with pytest.raises(ValueError, match=r"corners of the shape \(2, 2\) and type torch.float32"):
        network(x, noise, corners=torch.zeros(2, 2))
    with pytest.raises(ValueError, match="a patch of 8 x 8 at row 1 and column 13 is not within the domain of 12 x 20"):
        network(x, noise, corners=[[0, 0], [1, 13]])
    with pytest.raises(ValueError, match="a patch of 8 x 8 at row -1 and column 0 is not within"):
        network(x, noise, corners=[[0, 0], [-1, 0]])
    with pytest.raises(ValueError, match=r"got maps of the shape \(2, 2, 8, 8\), not \(B, 3, H, W\)"):
        network(x[:, :2], noise)


def test_lead_times_must_be_known():
    network = positioned(lead_steps=9, lead_channels=1)
    x, noise = torch.randn(2, 3, *DOMAIN), torch.zeros(2)
    with pytest.raises(ValueError, match=r"needs labels of lead times of the shape \(2,\), got none"):
        network(x, noise)
    with pytest.raises(ValueError, match=r"of the shape \(2,\), got the shape \(1,\)"):
        network(x, noise, torch.tensor([1]))
    with pytest.raises(ValueError, match="a label of lead times is 9; expected 0 to 8"):
        network(x, noise, torch.tensor([1, 9]))
    with pytest.raises(ValueError, match="labels of lead times must be whole numbers"):
        network(x, noise, torch.tensor([1.0, 2.0]))


def test_no_position():
    assert make_position("none", 0, DOMAIN) is None
