"""Whole fields in one pass or by tiles."""

import pytest
import torch
from torch import nn

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.inference import Inference


class Local(nn.Module):
    """Looks three points far, and needs sides that are multiples of 4."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(2, 8, 3, padding=1, padding_mode="replicate"),
            nn.Tanh(),
            nn.Conv2d(8, 3, 5, padding=2, padding_mode="replicate"),
        )
        self.seen: list[tuple[int, ...]] = []

    def forward(self, fields: torch.Tensor) -> torch.Tensor:
        assert fields.shape[-1] % 4 == fields.shape[-2] % 4 == 0
        self.seen.append(tuple(fields.shape))
        return torch.softmax(self.layers(fields), dim=1)


@pytest.fixture
def fields() -> torch.Tensor:
    return torch.randn(2, 50, 61, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("window", ["tent", "hann", "gaussian", "crop"])
def test_tiles_give_what_one_pass_gives(fields, window):
    network = Local().eval()
    whole = Inference().run(network, fields, 4)
    assert whole.shape == (3, 50, 61)
    assert network.seen == [(1, 2, 52, 64)]
    # with much overlap and a window that leaves out what the border of a tile disturbs
    tiled = Inference(tile=32, stride=16, window=window, batch_size=5).run(network, fields, 4)
    assert tiled.shape == whole.shape
    torch.testing.assert_close(tiled.sum(0), torch.ones(50, 61))
    inner = (slice(None), slice(8, -8), slice(8, -8))
    torch.testing.assert_close(tiled[inner], whole[inner], atol=1e-6 if window == "crop" else 0.2, rtol=0)
    assert (tiled - whole).abs().mean() < 0.02


@torch.no_grad()
def test_functions_of_single_points_are_the_same_everywhere(fields):
    def call(tiles):
        return torch.sigmoid(tiles[:, :1] * 2 + tiles[:, 1:])

    whole = Inference().run(call, fields, 4)
    for settings in ({"tile": 16}, {"tile": 16, "stride": 12}, {"tile": 64}, {"tile": 24, "window": "hann"}):
        torch.testing.assert_close(Inference(**settings).run(call, fields, 4), whole, atol=1e-6, rtol=0)
    torch.testing.assert_close(whole, call(fields[None])[0])


@torch.no_grad()
def test_the_number_of_tiles_at_once_changes_nothing(fields):
    network = Local().eval()
    one = Inference(tile=32, batch_size=1).run(network, fields, 4)
    torch.testing.assert_close(Inference(tile=32, batch_size=7).run(network, fields, 4), one, atol=1e-6, rtol=0)
    assert {shape[0] for shape in network.seen} >= {1, 7}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tile": 30}, r"tile.* 30 .*multiple.* 4|30.*multiple of 4"),
        ({"tile": 32, "stride": 40}, "stride.*40"),
    ],
)
def test_impossible_tiles(fields, settings, message):
    with pytest.raises(InputError, match=message):
        Inference(**settings).run(Local().eval(), fields, 4)


def test_a_stride_without_tiles():
    with pytest.raises(InputError, match=r"model\.inference\.stride needs model\.inference\.tile"):
        Inference(stride=16)
