"""Samplers against what is known in closed form."""

import math
from itertools import pairwise

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import Tensor

from ai4sim.errors import InputError
from downscaling.corrdiff.diffusion import (
    DpmSolver2M,
    EulerSampler,
    HeunSampler,
    MemberNoise,
    NoiseLevels,
    Sampler,
    Schedule,
    sampled_std,
    spread_gain,
    step_error,
)

HALF = torch.tensor([0.5])
STDS = torch.tensor([0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8])
# ratio of numerical to exact result for a standard deviation of 0.5: Heun 8, 10, 12, 18; Euler 9, 18; DPM++ 12, 18, 24
STEP_ERRORS = {
    (0.002, 800, 7): (1.839, 1.557, 1.345, 1.132, 0.587, 0.778, 1.151, 1.127, 1.077),
    (0.002, 80, 7): (1.394, 1.220, 1.141, 1.055, 0.699, 0.846, 1.132, 1.062, 1.033),
    (0.02, 20, 7): (1.152, 1.088, 1.057, 1.022, 0.791, 0.895, 1.052, 1.023, 1.012),
    (0.05, 10, 5): (1.083, 1.047, 1.029, 1.009, 0.826, 0.912, 1.029, 1.011, 1.004),
}
# std of samples / std of modes, for STDS and 18 steps of Heun
GAINS = {
    (0.002, 800, 7): (1.372, 1.267, 1.220, 1.165, 1.132, 1.107, 1.086, 1.070, 1.056),
    (0.002, 80, 7): (1.143, 1.111, 1.090, 1.068, 1.055, 1.045, 1.036, 1.028, 1.019),
    (0.01, 40, 5): (1.024, 1.080, 1.070, 1.051, 1.038, 1.028, 1.020, 1.011, 0.992),
    (0.02, 20, 7): (0.739, 0.970, 1.017, 1.025, 1.022, 1.017, 1.010, 0.992, 0.936),
}
EVERY_SAMPLER = [HeunSampler(), HeunSampler(s_churn=10.0), EulerSampler(), DpmSolver2M()]
every_sampler = pytest.mark.parametrize("sampler", EVERY_SAMPLER, ids=lambda s: f"{type(s).__name__}-{s.calls}")


class Counted:
    """Random numbers, and how often they were asked for."""

    def __init__(self, shape: tuple[int, ...] = (3, 1, 4, 4), seed: int = 0) -> None:
        self.shape, self.draws, self.generator = shape, 0, torch.Generator().manual_seed(seed)

    def draw(self) -> Tensor:
        self.draws += 1
        return torch.randn(self.shape, generator=self.generator)


def shrink(x: Tensor, sigma: Tensor, variance: float = 0.25) -> Tensor:
    """The denoiser of N(0, variance)."""
    return x * variance / (variance + sigma.reshape(-1, 1, 1, 1).square())


def test_schedule():
    times = Schedule(5, 0.1, 10.0, 2.0).times()
    low, high = math.sqrt(0.1), math.sqrt(10)
    expected = [(high + i / 4 * (low - high)) ** 2 for i in range(5)]
    assert times == pytest.approx([*expected, 0])
    assert times[0] == 10
    assert times[-2:] == [0.1, 0]
    assert Schedule(2, 1, 2).times() == [2, 1, 0]


@pytest.mark.parametrize("setting", STEP_ERRORS, ids=str)
def test_errors_of_the_steps(setting):
    kinds = [(HeunSampler, n) for n in (8, 10, 12, 18)] + [(EulerSampler, n) for n in (9, 18)]
    kinds += [(DpmSolver2M, n) for n in (12, 18, 24)]
    found = [float(step_error(kind(Schedule(n, *setting)), HALF)) for kind, n in kinds]
    assert found == pytest.approx(STEP_ERRORS[setting], abs=1e-3)


@pytest.mark.parametrize("setting", GAINS, ids=str)
def test_samplers_filter_the_spectrum(setting):
    assert spread_gain(HeunSampler(Schedule(18, *setting)), STDS).tolist() == pytest.approx(GAINS[setting], abs=1e-3)


@pytest.mark.parametrize(("kind", "order"), [(HeunSampler, 2), (EulerSampler, 1), (DpmSolver2M, 2)])
def test_order_of_convergence(kind, order):
    # sigma_min so small that the last step, to 0, is exact
    errors = [float(step_error(kind(Schedule(n, 1e-4, 20.0, 7.0)), HALF).log().abs()) for n in (100, 200, 400)]
    rates = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert rates == pytest.approx([order, order], abs=0.15)


@every_sampler
def test_calls_are_those_that_are_promised(sampler):
    seen: list[float] = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        assert sigma.shape == (3,)
        seen.append(float(sigma[0]))
        return shrink(x, sigma)

    sampler.sample(denoise, Counted())
    n = sampler.schedule.num_steps
    assert len(seen) == sampler.calls == (2 * n - 1 if isinstance(sampler, HeunSampler) else n)
    churn = 1 + 10 / n if getattr(sampler, "s_churn", 0) else 1.0
    first = sampler.schedule.sigma_max * min(churn, math.sqrt(2))
    assert seen[0] == pytest.approx(first)


def test_random_numbers_are_used_only_by_churn():
    for sampler in (HeunSampler(), EulerSampler(), DpmSolver2M()):
        noise = Counted()
        first = sampler.sample(shrink, noise)
        assert noise.draws == 1
        assert first.equal(sampler.sample(shrink, Counted()))
    noise = Counted()
    churned = HeunSampler(s_churn=10.0).sample(shrink, noise)
    assert noise.draws == 1 + 18
    assert (churned - HeunSampler().sample(shrink, Counted())).abs().max() > 1e-2
    assert churned.equal(HeunSampler(s_churn=10.0).sample(shrink, Counted()))
    noise = Counted()
    limited = HeunSampler(s_churn=10.0, s_min=0.05, s_max=5.0)
    limited.sample(shrink, noise)
    assert noise.draws == 1 + sum(0.05 <= time <= 5 for time in limited.schedule.times())


@pytest.mark.parametrize("churn", [3.0, 10.0, 1000.0])
def test_spread_with_churn_is_that_of_many_samples(churn):
    sampler = HeunSampler(Schedule(10), s_churn=churn, s_min=0.1, s_max=10, s_noise=1.02)
    samples = sampler.sample(shrink, Counted((40, 1, 100, 100)))
    assert samples.std().item() == pytest.approx(sampled_std(sampler, HALF).item(), rel=0.01)
    assert sampled_std(sampler, HALF).item() != pytest.approx(sampled_std(HeunSampler(Schedule(10)), HALF).item())


@every_sampler
def test_single_precision_is_close_to_double(sampler):
    single = type(sampler)(**{**sampler.__dict__, "state": "float32"}).sample(shrink, Counted())
    double = sampler.sample(shrink, Counted())
    assert single.dtype == torch.float32
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)


@every_sampler
def test_denoiser_in_single_precision_leaves_the_state_as_it_is(sampler):
    result = sampler.sample(lambda x, sigma: shrink(x.float(), sigma.float()), Counted())
    assert result.dtype == torch.float64
    torch.testing.assert_close(result, sampler.sample(shrink, Counted()), rtol=1e-4, atol=1e-5)


WEIGHTS, MEANS, STD = (0.3, 0.7), (-1.0, 0.6), 0.15


def mixture(x: Tensor, sigma: Tensor) -> Tensor:
    """The denoiser of two normal modes in one dimension: their denoisers, weighted with their probabilities."""
    variance = STD**2 + sigma.reshape(-1, 1, 1, 1).square()
    modes = [mean + (x - mean) * STD**2 / variance for mean in MEANS]
    logits = [math.log(w) - (x - mean).square() / (2 * variance) for w, mean in zip(WEIGHTS, MEANS, strict=True)]
    probabilities = torch.stack(logits).softmax(0)
    return (torch.stack(modes) * probabilities).sum(0)


@pytest.mark.parametrize(
    "sampler",
    [
        HeunSampler(Schedule(30)),
        HeunSampler(Schedule(30), s_churn=10.0),
        EulerSampler(Schedule(300)),
        DpmSolver2M(Schedule(60)),
    ],
    ids=lambda s: f"{type(s).__name__}-{s.calls}",
)
def test_two_modes_are_sampled_with_their_weights(sampler):
    noise = MemberNoise([0] * 4, range(4), (1, 100, 100), seed=1)
    samples = sampler.sample(mixture, noise).flatten()
    for weight, mean in zip(WEIGHTS, MEANS, strict=True):
        own = samples[(samples - mean).abs() < 5 * STD]
        assert len(own) / len(samples) == pytest.approx(weight, abs=0.012)
        assert own.mean().item() == pytest.approx(mean, abs=0.02)
        assert own.std().item() == pytest.approx(STD, rel=0.06)


def test_churn_forgets_errors_of_the_denoiser():
    class Same(Counted):
        """All samples start at the same place: only fresh noise makes them different."""

        def draw(self) -> Tensor:
            return super().draw() if self.draws else super().draw().zero_()

    assert HeunSampler().sample(shrink, Same((50, 1, 8, 8))).std() == 0
    stirred = HeunSampler(Schedule(60), s_churn=60.0).sample(shrink, Same((50, 1, 8, 8)))
    assert stirred.std().item() == pytest.approx(0.5, rel=0.05)


def test_denoisers_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"the denoiser gave the shape \(3, 1, 2, 4\) for images \(3, 1, 4, 4\)"):
        HeunSampler().sample(lambda x, sigma: x[..., :2, :], Counted())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Schedule(1), "num_steps is 1; expected at least 2"),
        (
            lambda: Schedule(18, 2.0, 2.0),
            "sigma_min and sigma_max are 2 and 2; expected 0 < sigma_min < sigma_max",
        ),
        (lambda: Schedule(18, 0.0, 2.0), "expected 0 < sigma_min < sigma_max"),
        (lambda: Schedule(rho=0.0), "rho is 0; expected above 0"),
        (lambda: HeunSampler(s_churn=-1.0), "s_churn is -1; expected at least 0"),
        (lambda: HeunSampler(s_noise=0.0), "s_noise is 0; expected above 0"),
        (lambda: HeunSampler(s_min=2.0, s_max=1.0), "s_min and s_max are 2 and 1; expected s_min <= s_max"),
        (lambda: EulerSampler(state="float16"), "unknown state 'float16'; valid are float64, float32"),
    ],
)
def test_settings_are_checked(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_samplers_and_noise_levels_are_chosen_in_a_configuration():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--sampler", type=Sampler, default=None)
    parser.add_argument("--levels", type=NoiseLevels, default=None)
    arguments = ["--sampler=HeunSampler", "--sampler.s_churn=40", "--sampler.schedule.num_steps=9"]
    arguments += ["--levels=LogUniform", "--levels.s_max=10"]
    made = parser.instantiate(parser.parse_args(arguments))
    assert made.sampler == HeunSampler(Schedule(9), s_churn=40)
    assert made.levels.s_max == 10
    text = parser.dump(parser.parse_args(arguments))
    assert parser.instantiate(parser.parse_string(text)).sampler == made.sampler
