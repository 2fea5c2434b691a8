"""Random patches: everything that belongs to a patch has the same place in the batch."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ai4sim.errors import InputError
from downscaling.corrdiff.diffusion import (
    Denoiser,
    Edm,
    LogNormal,
    Patches,
    RandomPatches,
    diffusion_loss,
    join_channels,
)
from downscaling.corrdiff.diffusion.random_patches import warn_of_larger_patch

DOMAIN = (20, 28)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
    warn_of_larger_patch.cache_clear()


def index_grid(n_samples: int) -> Tensor:
    """Number of the sample, row and column, (B, 3, H, W)."""
    rows, columns = torch.meshgrid(torch.arange(DOMAIN[0]), torch.arange(DOMAIN[1]), indexing="ij")
    places = torch.stack([rows, columns]).expand(n_samples, 2, *DOMAIN)
    samples = torch.arange(n_samples).reshape(-1, 1, 1, 1).expand(n_samples, 1, *DOMAIN)
    return torch.cat([samples, places], 1).float()


def test_all_that_belongs_to_a_patch_is_in_the_same_row():
    n_samples, count = 3, 5
    patches = RandomPatches((8, 12), count, levels=3).draw(DOMAIN, n_samples)
    assert patches.corners.shape == (count * n_samples, 2)
    grid = index_grid(n_samples)
    target, position = patches.cut(grid), patches.cut(grid[0, 1:])
    lead = patches.repeat(torch.arange(n_samples) * 10)
    overview = patches.overview(grid)
    expected_overview = interpolate(grid, size=(8, 12), mode="bilinear", align_corners=False)
    for p in range(count):
        for b in range(n_samples):
            row = p * n_samples + b
            i, j = patches.corners[row].tolist()
            assert target[row].equal(grid[b, :, i : i + 8, j : j + 12])
            assert target[row, 1:].equal(position[row])
            assert lead[row] == 10 * b
            assert overview[row].equal(expected_overview[b])
    assert join_channels(target, overview, position).shape == (15, 8, 8, 12)
    assert join_channels(None) is None


def test_chunks_are_the_same_patches():
    grid, patches = index_grid(3), RandomPatches(8, 5).draw(DOMAIN, 3)
    chunks = list(patches.chunks(4))
    assert [len(chunk) for chunk in chunks] == [4, 4, 4, 3]
    for function in (lambda p: p.cut(grid), lambda p: p.overview(grid), lambda p: p.repeat(torch.arange(3))):
        assert torch.cat([function(chunk) for chunk in chunks]).equal(function(patches))
    assert patches.chunk(2, 3).corners.equal(patches.corners[2:3])


def test_corners_are_uniform_and_follow_from_the_generator():
    drawer = RandomPatches((8, 12), 500)
    patches = drawer.draw(DOMAIN, 20, torch.Generator().manual_seed(3))
    for axis, n in enumerate((20 - 8 + 1, 28 - 12 + 1)):
        counts = torch.bincount(patches.corners[:, axis])
        assert len(counts) == n
        assert (counts / (10_000 / n) - 1).abs().max() < 0.25
    assert patches.corners.equal(drawer.draw(DOMAIN, 20, torch.Generator().manual_seed(3)).corners)
    # samples do not share their corners
    assert not patches.corners[::20].equal(patches.corners[1::20])


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_gradient_does_not_depend_on_the_chunks(chunk):
    network = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 1, 3, padding=1))
    edm = Edm()
    denoiser = Denoiser(lambda x, label: network(x), edm)
    residual, condition, n = torch.randn(3, 1, *DOMAIN), torch.randn(3, 2, *DOMAIN), 15
    known = torch.rand(3, 1, *DOMAIN) > 0.2
    patches = RandomPatches(8, 5).draw(DOMAIN, 3)
    sigma = LogNormal().sample(n)
    noise = edm.noise(sigma, (n, 1, 8, 8))

    def maps(part: Patches, rows: slice):
        conditions = join_channels(part.cut(condition), part.overview(condition[:, :1]))
        return diffusion_loss(denoiser, part.cut(residual), sigma[rows], noise[rows], conditions, known=part.cut(known))

    network.zero_grad()
    maps(patches, slice(0, n)).mean().backward()
    expected = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    total = patches.cut(known).sum()
    for start in range(0, n, chunk):
        own = maps(patches.chunk(start, start + chunk), slice(start, start + chunk))
        (own.values.sum() / total).backward()
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        assert (parameter.grad - gradient).norm() <= 1e-6 * gradient.norm().clamp(min=1)


@pytest.mark.parametrize(
    ("shape", "patch", "n"), [((32, 12), (20, 12), 10), ((20, 28), (20, 28), 2), ((64, 64), (20, 28), 2)]
)
def test_a_patch_larger_than_the_domain_is_the_domain(shape, patch, n, caplog):
    drawer = RandomPatches(shape, 5)
    for _ in range(3):
        patches = drawer.draw(DOMAIN, 2)
    assert patches.patch == patch
    assert len(patches) == n
    assert patches.cut(index_grid(2)).shape == (n, 3, *patch)
    message = f"a patch of {shape[0]} x {shape[1]} is larger than the domain of 20 x 28: the domain's extent is used"
    assert caplog.messages == ([] if shape == patch else [message])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"shape": (32, 30), "levels": 5},
            "the patch is 32 x 30; expected multiples of 16, as the network has 5 levels",
        ),
        ({"shape": 0}, "the patch is 0 x 0; expected multiples of 1, as the network has 1 level"),
        ({"shape": 8, "count": 0}, "count is 0; expected at least 1"),
        ({"shape": 8, "levels": 0}, "levels is 0; expected at least 1"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(InputError, match=message):
        RandomPatches(**settings)


def test_fields_of_another_domain_are_refused():
    with pytest.raises(ValueError, match=r"fields have the shape \(2, 1, 20, 20\); the patches are of \(20, 28\)"):
        RandomPatches(8).draw(DOMAIN, 2).cut(torch.zeros(2, 1, 20, 20))
