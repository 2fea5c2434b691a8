"""A member's random numbers are its own, whoever else is computed with it."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ai4sim.errors import InputError
from downscaling.corrdiff.diffusion import Denoiser, Edm, HeunSampler, MemberNoise, Schedule, generator_of

SHAPE = (2, 16, 16)
SAMPLER = HeunSampler(Schedule(5), s_churn=5.0)


class Toy(nn.Module):
    """A small network that looks at a condition."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 2, 3, padding=1))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return self.layers(x) * label.cos().reshape(-1, 1, 1, 1)


def ensemble(case: int, n_members: int, chunk: int, nu: float | None = None) -> Tensor:
    denoiser = Denoiser(Toy(), Edm(nu=nu))
    condition = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(case))
    parts = []
    with torch.inference_mode():
        for start in range(0, n_members, chunk):
            members = range(start, min(start + chunk, n_members))
            noise = MemberNoise([case] * len(members), members, SHAPE, seed=7, nu=nu)
            given = condition.expand(len(members), -1, -1, -1)
            parts.append(SAMPLER.sample(lambda x, sigma, given=given: denoiser(x, sigma, given), noise))
    return torch.cat(parts)


@pytest.mark.parametrize("nu", [None, 5.0])
def test_members_do_not_depend_on_their_chunk(nu):
    expected = ensemble(3, 5, 5, nu)
    assert expected.std() > 0.1
    for n_members, chunk in ((5, 1), (5, 2), (7, 7), (7, 3)):
        found = ensemble(3, n_members, chunk, nu)[:5]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_rows_may_be_of_any_cases_and_members():
    rows = [(4, 0), (4, 1), (9, 0), (2, 5)]
    together = MemberNoise(*zip(*rows, strict=True), SHAPE, seed=3)
    alone = [MemberNoise([case], [member], SHAPE, seed=3) for case, member in rows]
    for _ in range(3):
        assert together.draw().equal(torch.cat([noise.draw() for noise in alone]))


def test_cases_members_draws_and_seeds_are_independent():
    cases, members = np.divmod(np.arange(40), 8)
    noise = MemberNoise(cases.tolist(), members.tolist(), (1, 64, 64))
    draws = [noise.draw(), noise.draw(), MemberNoise(cases.tolist(), members.tolist(), (1, 64, 64), seed=1).draw()]
    assert draws[0].dtype == torch.float32
    correlation = torch.corrcoef(torch.cat(draws).flatten(1).double())
    off = correlation - torch.eye(len(correlation))
    assert off.abs().max() < 0.085  # 5.4 standard deviations for 7140 pairs of 4096 pixels
    assert off.square().mean().sqrt().item() == pytest.approx(1 / 64, rel=0.05)
    assert torch.cat(draws).std().item() == pytest.approx(1, abs=0.005)


def test_noise_of_cases_is_uncorrelated_over_a_field():
    one, other = (MemberNoise([case], [0], (4, 64, 64)).draw().flatten() for case in (0, 1))
    assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1]) < 0.05


def test_noise_can_be_shared_in_time():
    shared = MemberNoise([0, 5, 5], [2, 2, 3], SHAPE, shared_in_time=True).draw()
    assert shared[0].equal(shared[1])
    assert not shared[1].equal(shared[2])


def test_student_noise_has_heavy_tails_and_one_scale_for_each_member():
    nu, n = 10.0, 40_000
    noise = MemberNoise([0] * n, range(n), (1, 1, 4), nu=nu)
    first, second = noise.draw().double().flatten(1), noise.draw().double().flatten(1)
    assert first.var().item() == pytest.approx(nu / (nu - 2), rel=0.03)
    assert (first**4).mean().item() / first.var().item() ** 2 == pytest.approx(3 + 6 / (nu - 4), abs=0.25)
    # squares of the same member go together, in one draw and from draw to draw: E[1/kappa²] - E[1/kappa]²
    expected = nu**2 / ((nu - 2) * (nu - 4)) - (nu / (nu - 2)) ** 2
    for a, b in ((first[:, 0], first[:, 1]), (first[:, 0], second[:, 0])):
        assert torch.cov(torch.stack([a**2, b**2]))[0, 1].item() == pytest.approx(expected, rel=0.25)


def test_keys_that_differ_have_generators_that_differ():
    # seeds of torch.Generator on the CPU are the same modulo 2**32
    keys = [(0,), (2**32,), (0, 0), (0, 1), (1, 0), (0, 2**32), ("0",), (-1,), ("member", 0)]
    numbers = {generator_of(*key).integers(2**63) for key in keys}
    assert len(numbers) == len(keys)
    assert generator_of(5, 6).random() == generator_of(5, 6).random()


def test_numbers_stay_what_they_are():
    # a change would make other members of old seeds
    found = MemberNoise([3], [1], (1, 1, 3), seed=7).draw().flatten()
    torch.testing.assert_close(found, torch.tensor([0.667518, 1.907086, -0.409931]), rtol=0, atol=1e-6)


def test_settings_are_checked():
    with pytest.raises(InputError, match="nu is 1; expected above 2"):
        MemberNoise([0], [0], SHAPE, nu=1.0)
    with pytest.raises(ValueError, match="2 cases for 1 members; expected as many, and at least one"):
        MemberNoise([0, 1], [0], SHAPE)
    with pytest.raises(ValueError, match="0 cases for 0 members"):
        MemberNoise([], [], SHAPE)
