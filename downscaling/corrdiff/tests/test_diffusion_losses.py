"""Losses, value by value, and the noise levels they are computed at."""

import math

import pytest
import scipy.stats
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ai4sim.errors import InputError
from downscaling.corrdiff.diffusion import (
    Denoiser,
    Edm,
    LogNormal,
    LogUniform,
    RegressionLoss,
    ResidualScale,
    Uncertainty,
    diffusion_loss,
    squared_error,
)

NAN = math.nan
LEVELS = [LogNormal(), LogNormal(-1.2, 0.5), LogUniform(0.02, 80)]
every_level = pytest.mark.parametrize("levels", LEVELS, ids=str)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


# regression


def test_squared_error_and_its_means():
    estimate, target = torch.randn(3, 2, 4, 5), torch.randn(3, 2, 4, 5)
    maps = RegressionLoss()(estimate, target)
    torch.testing.assert_close(maps.values, (estimate - target) ** 2)
    torch.testing.assert_close(maps.mean(), nn.functional.mse_loss(estimate, target))
    torch.testing.assert_close(maps.per_image(), ((estimate - target) ** 2).mean((1, 2, 3)))
    assert maps.count() == 3 * 2 * 4 * 5


def test_weights_of_channels():
    estimate, target = torch.randn(3, 2, 4, 5), torch.randn(3, 2, 4, 5)
    values = RegressionLoss([2.0, 0.5])(estimate, target).values
    torch.testing.assert_close(values, (estimate - target) ** 2 * torch.tensor([2.0, 0.5]).reshape(2, 1, 1))


@pytest.mark.parametrize("classes", [(), (1, 3)])
@pytest.mark.parametrize("n_masks", [1, 4])
def test_what_is_not_known_costs_nothing_and_teaches_nothing(classes, n_masks):
    outputs, target = torch.randn(2, 4, 6, 6, requires_grad=True), torch.rand(2, 4, 6, 6)
    known = torch.rand(2, n_masks, 6, 6) > 0.3
    known[1] = False
    spoilt = target.where(known, NAN)
    loss = RegressionLoss(classes=classes)
    loss.require_channels(4)
    maps, full = loss(outputs, spoilt, known), loss(outputs, target)
    assert maps.known is not None
    torch.testing.assert_close(maps.values, full.values.where(maps.known, 0))
    torch.testing.assert_close(maps.mean(), full.values[maps.known].mean())
    assert maps.per_image()[1] == 0
    (gradient,) = torch.autograd.grad(maps.mean(), outputs)
    assert gradient.isfinite().all()
    assert (gradient[~known.expand_as(gradient)] == 0).all() or classes
    assert (gradient[1] == 0).all()
    nothing = loss(outputs, spoilt, torch.zeros_like(known))
    assert nothing.mean() == 0


def test_classes_are_judged_by_cross_entropy():
    outputs, target = torch.randn(2, 6, 4, 5), torch.rand(2, 6, 4, 5)
    classes = [5, 1, 2]
    target[:, classes] = torch.randn(2, 3, 4, 5).softmax(1)
    loss = RegressionLoss(classes=classes)
    maps = loss(outputs, target)
    assert maps.values.shape == (2, 6 - 3 + 1, 4, 5)
    torch.testing.assert_close(maps.values[:, :3], (outputs - target)[:, [0, 3, 4]] ** 2)
    torch.testing.assert_close(
        maps.values[:, 3], cross_entropy(outputs[:, classes], target[:, classes], reduction="none")
    )
    weighted = RegressionLoss([1, 1, 1, 0.25], classes)
    weighted.require_channels(6)
    torch.testing.assert_close(weighted(outputs, target).values[:, 3], maps.values[:, 3] / 4)


def test_expected_cross_entropy_is_least_at_the_true_probabilities():
    truth = torch.tensor([0.6, 0.3, 0.1]).reshape(1, 3, 1, 1)
    loss = RegressionLoss(classes=[0, 1, 2])
    best = loss(truth.log(), truth).mean()
    torch.testing.assert_close(best, -(truth * truth.log()).sum())
    for _ in range(20):
        assert loss(truth.log() + 0.3 * torch.randn(1, 3, 1, 1), truth).mean() > best


@pytest.mark.parametrize(
    ("settings", "n", "message"),
    [
        ({"weights": [1.0, -1.0]}, 2, "weights of channels must not be negative, nor all 0"),
        ({"weights": [0.0]}, 1, "nor all 0"),
        ({"weights": [NAN]}, 1, "nor all 0"),
        ({"classes": [3]}, 4, "channels of classes must be two or more different numbers from 0"),
        ({"classes": [3, 3]}, 4, "channels of classes must be two or more different numbers from 0"),
        ({"classes": [-1, 3]}, 4, "channels of classes must be two or more different numbers from 0"),
        ({"weights": [1.0, 1.0]}, 3, "2 weights for 3 channels"),
        ({"weights": [1.0, 1.0], "classes": [0, 1]}, 4, "2 weights for 3 squared errors and the cross-entropy"),
        ({"classes": [3, 4]}, 4, "channel 4 is one of classes, but there are 4 channels, from 0"),
    ],
)
def test_settings_of_the_regression_loss_are_checked(settings, n, message):
    with pytest.raises(InputError, match=message):
        RegressionLoss(**settings).require_channels(n)


# diffusion


@pytest.mark.parametrize("edm", [Edm(), Edm(sigma_data=1.5), Edm(nu=10.0)], ids=str)
@every_level
def test_loss_is_one_at_initialisation(edm, levels):
    residual = edm.sigma_data * torch.randn(4000, 1, 4, 4)
    sigma = levels.sample(4000)
    denoiser = Denoiser(lambda x, label: torch.zeros_like(x), edm)
    maps = diffusion_loss(denoiser, residual, sigma, edm.noise(sigma, residual.shape))
    assert maps.mean().item() == pytest.approx(1, abs=0.1)
    for number in range(8):
        assert maps.per_image()[levels.bin_of(sigma) == number].mean().item() == pytest.approx(1, abs=0.1)


def test_loss_is_the_weighted_error_of_the_denoiser():
    residual, condition = torch.randn(3, 2, 4, 4), torch.randn(3, 1, 4, 4)
    sigma = torch.tensor([0.1, 1.0, 5.0])
    edm, network = Edm(), nn.Conv2d(3, 2, 1)
    noise = edm.noise(sigma, residual.shape)
    denoiser = Denoiser(lambda x, label: network(x), edm)
    expected = (denoiser(residual + noise, sigma, condition) - residual) ** 2
    expected = expected * ((sigma**2 + 0.25) / (0.5 * sigma) ** 2).reshape(-1, 1, 1, 1)
    maps = diffusion_loss(denoiser, residual, sigma, noise, condition)
    torch.testing.assert_close(maps.values, expected)


def test_perfect_denoiser_of_normal_residuals_has_the_analytic_loss():
    # D = x a² / (a² + s²) leaves a² s² / (a² + s²)
    edm, a = Edm(), 0.2
    for s in (0.05, 0.5, 5.0):
        sigma = torch.full((2000,), s)
        residual = a * torch.randn(2000, 1, 4, 4)
        factor = a**2 / (a**2 + s**2)

        def network(x, label, s=s, factor=factor):
            level = torch.tensor(s)
            return (factor - edm.c_skip(level)) / edm.c_out(level) / edm.c_in(level) * x

        maps = diffusion_loss(Denoiser(network, edm), residual, sigma, edm.noise(sigma, residual.shape))
        expected = edm.weight(torch.tensor(s)).item() * factor * s**2
        assert maps.mean().item() == pytest.approx(expected, rel=0.03)


def test_unknown_residuals_reach_neither_network_nor_loss():
    residual = torch.randn(2, 1, 4, 4)
    known = torch.rand(2, 1, 4, 4) > 0.4
    sigma = torch.ones(2)
    noise = torch.randn(2, 1, 4, 4)
    network = nn.Conv2d(1, 1, 3, padding=1)
    denoiser = Denoiser(lambda x, label: network(x), Edm())
    maps = diffusion_loss(denoiser, residual.where(known, NAN), sigma, noise, known=known)
    filled = diffusion_loss(denoiser, residual.where(known, 0), sigma, noise)
    torch.testing.assert_close(maps.mean(), filled.values[known].mean())
    maps.mean().backward()
    assert network.weight.grad is not None
    assert network.weight.grad.isfinite().all()


def test_learnt_weights_make_all_noise_levels_count_alike():
    uncertainty = Uncertainty(64)
    levels = LogNormal()
    sigma = levels.sample(64)
    maps = squared_error(torch.randn(64, 1, 2, 2), torch.zeros(64, 1, 2, 2))
    torch.testing.assert_close(uncertainty.weigh(maps, sigma).values, maps.values)
    optimiser = torch.optim.Adam(uncertainty.parameters(), 3e-2)
    for _ in range(600):
        sigma = levels.sample(256)
        loss = (0.1 + sigma / (1 + sigma)).reshape(-1, 1, 1, 1)
        optimiser.zero_grad()
        uncertainty.weigh(squared_error(loss.sqrt(), torch.zeros_like(loss)), sigma).mean().backward()
        optimiser.step()
    sigma = levels.quantiles(16).float()
    expected = (0.1 + sigma / (1 + sigma)).log()
    assert (uncertainty(sigma) - expected).abs().max() < 0.15


def test_unknown_values_have_no_uncertainty():
    known = torch.tensor([True, False]).reshape(2, 1, 1, 1)
    uncertainty = Uncertainty(4)
    nn.init.ones_(uncertainty.linear.bias)
    maps = uncertainty.weigh(squared_error(torch.ones(2, 1, 1, 1), torch.zeros(2, 1, 1, 1), known), torch.ones(2))
    assert maps.values[1] == 0
    assert maps.mean().item() == pytest.approx(math.exp(-1) + 1)
    with pytest.raises(InputError, match="n_features is 0; expected at least 1"):
        Uncertainty(0)


# residual


def test_residual_gets_the_standard_deviation_of_the_diffusion():
    residual = torch.tensor([0.1, 3.0]).reshape(2, 1, 1) * torch.randn(50, 2, 16, 16) + 0.05
    known = torch.rand(50, 1, 16, 16) > 0.2
    scale = ResidualScale(2, 0.5)
    assert scale(residual).equal(residual)
    scale.fit((residual.where(known, NAN)[i : i + 7], known[i : i + 7]) for i in range(0, 50, 7))
    scaled = scale(residual)
    for channel in range(2):
        values = scaled[:, channel][known[:, 0]]
        assert values.std(correction=0).item() == pytest.approx(0.5, rel=1e-5)
    torch.testing.assert_close(scale.inverse(scaled), residual)
    other = ResidualScale(2)
    other.load_state_dict(scale.state_dict())
    assert other(residual).equal(scaled)


@pytest.mark.parametrize("values", [torch.zeros(2, 2, 3, 3), torch.full((2, 2, 3, 3), torch.inf)])
def test_residual_that_cannot_be_scaled_is_named(values):
    values[:, 0] = torch.randn(2, 3, 3)
    with pytest.raises(InputError, match="the residual of output 1 has the standard deviation"):
        ResidualScale(2).fit([(values, None)])


# noise levels


@every_level
def test_levels_follow_their_distribution(levels):
    sample = levels.sample(100_000, torch.Generator().manual_seed(0))
    assert sample.dtype == torch.float32
    assert (sample > 0).all()
    assert sample.isfinite().all()
    logarithm = sample.double().log().numpy()
    if isinstance(levels, LogNormal):
        expected = scipy.stats.norm(levels.p_mean, levels.p_std)
    else:
        low, high = math.log(levels.s_min), math.log(levels.s_max)
        expected = scipy.stats.uniform(low, high - low)
    assert scipy.stats.kstest(logarithm, expected.cdf).pvalue > 1e-3
    assert sample.equal(levels.sample(100_000, torch.Generator().manual_seed(0)))
    counts = torch.bincount(levels.bin_of(sample, 8), minlength=8)
    assert len(counts) == 8
    assert (counts / 12_500 - 1).abs().max() < 0.04


def test_quantiles():
    torch.testing.assert_close(LogNormal(1.0, 2.0).quantiles(2), torch.tensor([math.e], dtype=torch.float64))
    expected = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    torch.testing.assert_close(LogUniform(0.01, 100).quantiles(4), expected)
    assert LogUniform(0.01, 100).bin_of(torch.tensor([1e-9, 0.02, 0.5, 5, 50, 1e9]), 4).tolist() == [0, 0, 1, 2, 3, 3]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogNormal(0, 0), "p_mean and p_std are 0 and 0; expected a p_std above 0"),
        (lambda: LogNormal(NAN), "expected a p_std above 0"),
        (lambda: LogUniform(2, 1), "s_min and s_max are 2 and 1; expected 0 < s_min < s_max"),
        (lambda: LogUniform(0, 1), "expected 0 < s_min < s_max"),
    ],
)
def test_settings_of_noise_levels_are_checked(make, message):
    with pytest.raises(InputError, match=message):
        make()
