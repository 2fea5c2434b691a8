"""Denoising by patches that share one image."""

import logging
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ai4sim.errors import InputError
from ai4sim.tiling import tiled_inference
from downscaling.corrdiff.diffusion import Denoiser, Edm, HeunSampler, MemberNoise, PatchedDenoiser, Schedule, Tiles
from downscaling.corrdiff.diffusion.random_patches import warn_of_larger_patch

CASES = [
    ((64, 64), (32, 32), 4, 2),
    ((96, 160), (64, 64), 8, 4),
    ((60, 90), (32, 48), 6, 2),
    ((41, 37), (16, 32), 3, 1),
    ((30, 64), (32, 16), 4, 2),
    ((81, 81), (32, 32), 4, 2),
]
EDM = Edm()


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
    warn_of_larger_patch.cache_clear()


class Network(nn.Module):
    """A convolution; notes what it is given."""

    def __init__(self, n_inputs: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(n_inputs, 2, 3, padding=1)
        self.batches: list[int] = []
        self.seen: list[tuple[Tensor, Tensor, dict[str, Tensor]]] = []

    def forward(self, x: Tensor, label: Tensor, **extras: Tensor) -> Tensor:
        self.batches.append(len(x))
        self.seen.append((x.clone(), label.clone(), extras))
        return self.layer(x) * label.cos().reshape(-1, 1, 1, 1)


def reference_fuse(x: np.ndarray, patch: tuple[int, int], overlap: int, boundary: int, function) -> np.ndarray:
    """The layout of the sheet, written as it is there: pad, cut, fold with the number of overlaps, crop."""
    domain = x.shape[-2:]
    strides = [side - overlap - boundary for side in patch]
    numbers = [math.ceil(size / step) for size, step in zip(domain, strides, strict=True)]
    lengths = [step * (n - 1) + side + boundary for step, n, side in zip(strides, numbers, patch, strict=True)]
    widths = [(boundary, length - size - boundary) for length, size in zip(lengths, domain, strict=True)]
    padded = np.pad(x, [(0, 0), *widths], mode="reflect")
    total, count = np.zeros_like(padded), np.zeros_like(padded)
    for i in range(numbers[0]):
        for j in range(numbers[1]):
            place = (
                ...,
                slice(i * strides[0], i * strides[0] + patch[0]),
                slice(j * strides[1], j * strides[1] + patch[1]),
            )
            total[place] += function(padded[place])
            count[place] += 1
    kept = tuple(slice(boundary, boundary + size) for size in domain)
    return total[(..., *kept)] / count[(..., *kept)]


@pytest.mark.parametrize(("domain", "patch", "overlap", "boundary"), CASES)
@pytest.mark.parametrize("placement", ["inside", "outside"])
@pytest.mark.parametrize("window", ["constant", "hann", "tent", "gaussian"])
def test_fused_patches_are_the_field(domain, patch, overlap, boundary, placement, window):
    tiling = Tiles(patch, overlap, boundary, window, placement).tiling(domain)
    x = torch.randn(2, 3, *domain)
    fused = tiled_inference(lambda tiles: tiles, x, tiling)
    if window == "constant":
        torch.testing.assert_close(fused, x, rtol=2e-7, atol=0)  # one third of three equal numbers may be rounded
    torch.testing.assert_close(fused, x, rtol=1e-6, atol=1e-6)
    if placement == "inside":
        for axis, size in zip(tiling.axes, domain, strict=True):
            assert axis.starts[0] == 0
            assert axis.starts[-1] + axis.tile == size


@pytest.mark.parametrize(("domain", "patch", "overlap", "boundary"), CASES[:2])
def test_fused_patches_of_the_reference_are_exactly_the_field(domain, patch, overlap, boundary):
    tiling = Tiles(patch, overlap, boundary, "constant", "outside").tiling(domain)
    x = torch.randn(1, 1, *domain)
    assert tiled_inference(lambda tiles: tiles, x, tiling).equal(x)


@pytest.mark.parametrize(("domain", "patch", "overlap", "boundary"), [c for c in CASES if c[0][0] >= c[1][0]])
def test_layout_of_the_reference(domain, patch, overlap, boundary):
    x = torch.randn(2, *domain, dtype=torch.float64)
    tiling = Tiles(patch, overlap, boundary, "constant", "outside").tiling(domain)

    def disagree(tiles):
        # differs with the place in the patch
        return tiles * 1.5 + tiles[..., :1, :1]

    expected = reference_fuse(x.numpy(), patch, overlap, boundary, disagree)
    np.testing.assert_allclose(tiled_inference(disagree, x, tiling), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("placement", ["inside", "outside"])
@pytest.mark.parametrize("patch", [(24, 32), (64, 40)])
def test_one_patch_that_covers_everything_changes_nothing(placement, patch, caplog):
    network = Network(2 + 3 + 1 + 1)
    denoiser = Denoiser(network, EDM)
    x, sigma = torch.randn(2, 2, 24, 32), torch.tensor([0.5, 5.0])
    condition, overview, position = torch.randn(2, 3, 24, 32), torch.randn(2, 1, 24, 32), torch.randn(1, 1, 24, 32)
    given = {"condition": condition, "overview": overview, "position": position}
    patched = PatchedDenoiser(denoiser, Tiles(patch, placement=placement), (24, 32), **given)
    joined = torch.cat([condition, overview, position.expand(2, -1, -1, -1)], 1)
    torch.testing.assert_close(patched(x, sigma), denoiser(x, sigma, joined).detach(), rtol=1e-6, atol=1e-6)
    assert len(caplog.messages) == (patch != (24, 32))


def test_every_patch_gets_what_is_at_its_place_and_of_its_sample():
    domain, patch, n = (40, 56), (16, 24), 3
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(56.0), indexing="ij")
    position = torch.stack([rows, columns])[None]
    samples = torch.arange(3.0).reshape(-1, 1, 1, 1)
    condition = samples.expand(3, 1, *domain)
    overview = samples + (rows + columns)[None, None]
    network = Network(2 + 1 + 1 + 2)
    x = torch.cat([samples + torch.zeros(1, 1, *domain), torch.zeros(3, 1, *domain) + rows], 1)
    tiles = Tiles(patch, batch_size=5)
    patched = PatchedDenoiser(
        Denoiser(network, EDM), tiles, domain, condition=condition, overview=overview, position=position,
        lead=torch.tensor([10, 11, 12]),
    )  # fmt: skip
    sigma = torch.tensor([0.5, 1.0, 2.0])
    patched(x, sigma)
    resized = interpolate(overview, size=patch, mode="bilinear", align_corners=False)
    starts = tiles.tiling(domain).starts
    found = 0
    for given, label, extras in network.seen:
        for own, one_label, lead in zip(given, label, extras["lead"], strict=True):
            sample, number = divmod(found, len(starts))
            row, column = starts[number]
            place = (slice(row, row + 16), slice(column, column + 24))
            scale = EDM.c_in(sigma[sample])
            torch.testing.assert_close(own[:2], scale * x[(sample, slice(None), *place)])
            assert (own[2] == sample).all()
            torch.testing.assert_close(own[3], resized[sample, 0])
            assert own[4:].equal(position[(0, slice(None), *place)])
            torch.testing.assert_close(one_label, sigma[sample].log() / 4)
            assert lead == 10 + sample
            found += 1
    assert found == n * len(starts)


def test_network_never_sees_more_patches_than_the_chunk():
    for domain, n in (((64, 64), 2), ((120, 160), 4)):
        network = Network(2)
        patched = PatchedDenoiser(Denoiser(network, EDM), Tiles(16, batch_size=6), domain)
        sampler = HeunSampler(Schedule(3))
        result = sampler.sample(patched, MemberNoise([0] * n, range(n), (2, *domain)))
        assert result.shape == (n, 2, *domain)
        assert max(network.batches) == 6
        assert sum(network.batches) == sampler.calls * n * len(patched.tiling)


def test_network_can_be_given_the_corners():
    network = Network(2)
    tiles = Tiles((16, 24), batch_size=4)
    PatchedDenoiser(Denoiser(network, EDM), tiles, (40, 56), give_corners=True)(
        torch.zeros(2, 2, 40, 56), torch.ones(2)
    )
    corners = torch.cat([extras["corners"] for _, _, extras in network.seen])
    assert corners.dtype == torch.int64
    assert corners.tolist() == [list(start) for start in tiles.tiling((40, 56)).starts] * 2
    with pytest.raises(InputError, match="patches reach out of the domain, where the network has no positions"):
        PatchedDenoiser(Denoiser(network, EDM), Tiles(16, placement="outside"), (40, 56), give_corners=True)


@pytest.mark.parametrize("window", ["constant", "hann"])
def test_a_denoiser_that_sees_single_pixels_is_the_same_by_patches(window):
    def network(x: Tensor, label: Tensor) -> Tensor:
        return x[:, :1].sin() * x[:, 1:] + label.reshape(-1, 1, 1, 1)

    denoiser, condition = Denoiser(network, EDM), torch.randn(1, 1, 50, 70)
    patched = PatchedDenoiser(denoiser, Tiles((16, 24), window=window), (50, 70), condition=condition)
    sampler = HeunSampler(Schedule(4), s_churn=2.0)
    results = [
        sampler.sample(denoise, MemberNoise([0, 0], [0, 1], (1, 50, 70)))
        for denoise in (patched, lambda x, sigma: denoiser(x, sigma, condition.expand(2, -1, -1, -1)))
    ]
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-4)


def test_blended_patches_have_no_seams():
    # each patch adds a constant of its own: the largest step between neighbours shows the seams
    domain, x = (64, 64), torch.zeros(1, 1, 64, 64)
    steps = {}
    for window in ("constant", "hann"):
        tiling = Tiles(32, overlap=12, window=window).tiling(domain)
        constants = iter(torch.randn(len(tiling), 1, 1, 1, generator=torch.Generator().manual_seed(0)))
        fused = tiled_inference(lambda tiles, c=constants: tiles + next(c), x, tiling, batch_size=1)
        steps[window] = fused.diff(dim=-1).abs().max()
    assert steps["hann"] < 0.5 * steps["constant"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch": (16, 8)}, r"the patch is 16 x 8; expected more than overlap \+ 2 boundary = 4 \+ 2 x 2 = 8"),
        (
            {"patch": (48, 40), "levels": 5},
            "the patch is 48 x 40; expected multiples of 16, as the network has 5 levels",
        ),
        ({"patch": 16, "overlap": -1}, "overlap is -1; expected at least 0"),
        ({"patch": 16, "batch_size": 0}, "batch_size is 0; expected at least 1"),
        ({"patch": 16, "window": "cosine"}, "unknown window 'cosine'; valid are tent, hann"),
        ({"patch": 16, "window": "crop"}, "window 'crop' needs half a patch of overlap"),
        ({"patch": 16, "placement": "beside"}, "unknown placement 'beside'; valid are inside, outside"),
        ({"patch": 16, "pad": "wrap"}, "unknown pad 'wrap'; valid are replicate, reflect, zeros"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(InputError, match=message):
        Tiles(**settings)


def test_fields_are_checked():
    denoiser = Denoiser(Network(3), EDM)
    with pytest.raises(InputError, match=r"condition has the shape \(1, 1, 20, 20\); expected \(B, C, 20, 30\)"):
        PatchedDenoiser(denoiser, Tiles(16), (20, 30), condition=torch.zeros(1, 1, 20, 20))
    patched = PatchedDenoiser(denoiser, Tiles(16), (20, 30), condition=torch.zeros(2, 1, 20, 30))
    with pytest.raises(ValueError, match="a field is of 2 images; expected 3, or one for all"):
        patched(torch.zeros(3, 2, 20, 30), torch.ones(3))
    patched = PatchedDenoiser(denoiser, Tiles(16), (20, 30), lead=torch.zeros(2))
    with pytest.raises(ValueError, match="lead is of 2 images; expected 3, or one for all"):
        patched(torch.zeros(3, 2, 20, 30), torch.ones(3))


def test_a_larger_patch_is_told_once(caplog):
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert len(Tiles((64, 16)).tiling((40, 48))) == len(Tiles((40, 16)).tiling((40, 48)))
    assert caplog.messages == ["a patch of 64 x 16 is larger than the domain of 40 x 48: the domain's extent is used"]
