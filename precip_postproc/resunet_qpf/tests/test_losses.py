"""Losses of predictive distributions."""

import math
import time

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.integrate import quad

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.classes import classify
from precip_postproc.resunet_qpf.config import EDGES, REFERENCE_EDGES
from precip_postproc.resunet_qpf.heads import ClassHead, CsgdHead, CsgdParameters, GammaHead, QuantileHead
from precip_postproc.resunet_qpf.heads.functions import upper_gamma
from precip_postproc.resunet_qpf.losses import (
    BinnedCrps,
    CrossEntropy,
    CsgdCrps,
    GammaLikelihood,
    Mixed,
    Pinball,
    RankedProbability,
    ThresholdWeighted,
    masked_mean,
)
from precip_postproc.resunet_qpf.losses.parametric import csgd_crps

NAN = float("nan")
OF_CLASSES = [
    CrossEntropy(),
    RankedProbability(),
    BinnedCrps(),
    BinnedCrps(last=5, first=1, power=1.5, asymmetry=2),
    ThresholdWeighted(np.linspace(0, 2, len(EDGES)).tolist()),
    Mixed(0.3),
]
PAIRS = [
    *((loss, ClassHead()) for loss in OF_CLASSES),
    (GammaLikelihood(), GammaHead()),
    (CsgdCrps(), CsgdHead()),
    (Pinball(), QuantileHead()),
    (RankedProbability(), GammaHead()),
    (BinnedCrps(), CsgdHead()),
    (RankedProbability(), QuantileHead()),
]
every_pair = pytest.mark.parametrize(("loss", "head"), PAIRS, ids=lambda x: type(x).__name__)


def some_amounts(seed: int = 0, shape: tuple[int, ...] = (2, 8, 8)) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.maximum(0, rng.gamma(0.5, 10, shape) - 2).round(1))


def some_outputs(head, seed: int = 0, size: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (size * torch.randn(2, head.n_outputs, 8, 8, generator=generator, dtype=torch.float64)).requires_grad_()


def minimise(loss, head, amounts, outputs: torch.Tensor) -> torch.Tensor:
    """The outputs (n_outputs,), the same everywhere, whose mean loss is least."""
    outputs = outputs.double().requires_grad_()
    optimiser = torch.optim.LBFGS([outputs], max_iter=300, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        everywhere = outputs[None, :, None, None].expand(1, -1, *amounts.shape[1:])
        value = loss(head, everywhere, amounts).mean()
        value.backward()
        return value

    optimiser.step(closure)
    return outputs.detach()


# all


@every_pair
@pytest.mark.parametrize("size", [1.0, 50.0])
def test_unknown_amounts_cost_nothing_and_teach_nothing(loss, head, size):
    amounts, outputs = some_amounts(), some_outputs(head, size=size)
    unknown = torch.zeros_like(amounts, dtype=torch.bool)
    unknown[:, ::2, ::3] = True
    spoilt = amounts.masked_fill(unknown, NAN)
    spoilt[0, 0, 0], spoilt[0, 0, 3] = -3, 9.97e36
    values = loss(head, outputs, spoilt)
    assert values.shape == amounts.shape
    assert values.isfinite().all()
    assert (values[unknown] == 0).all()
    torch.testing.assert_close(values[~unknown], loss(head, outputs, amounts)[~unknown])
    (gradient,) = torch.autograd.grad(values.sum(), outputs)
    assert gradient.isfinite().all()
    assert (gradient.movedim(1, -1)[unknown] == 0).all()
    assert (gradient.movedim(1, -1)[~unknown] != 0).any()


@every_pair
def test_gradients_are_those_of_finite_differences(loss, head):
    amounts = some_amounts()[:, :3, :3]
    amounts[0, 0, 0], amounts[1, 0, 0] = NAN, 0
    outputs = some_outputs(head)[:, :, :3, :3].detach().requires_grad_()
    torch.autograd.gradcheck(lambda o: loss(head, o, amounts), outputs, eps=1e-6, atol=2e-6, rtol=1e-4)


@every_pair
def test_single_precision_agrees_with_double(loss, head):
    amounts, outputs = some_amounts(), some_outputs(head)
    single = loss(head, outputs.float(), amounts.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), loss(head, outputs, amounts), rtol=1e-4, atol=1e-4)


def test_masked_mean():
    losses = torch.tensor([[1.0, 2.0, 4.0]], requires_grad=True)
    assert masked_mean(losses, torch.tensor([[1.0, 0.0, 2.0]])) == 3.0
    # few pixels do not count as many
    assert masked_mean(losses, torch.tensor([[0.1, 0.0, 0.0]])).item() == pytest.approx(0.1)
    nothing = masked_mean(losses, torch.zeros(1, 3))
    assert nothing == 0
    assert (torch.autograd.grad(nothing, losses)[0] == 0).all()


@pytest.mark.parametrize(
    ("loss", "head", "message"),
    [
        (CrossEntropy(), GammaHead(), "CrossEntropy needs a ClassHead, not a GammaHead"),
        (Mixed(), QuantileHead(), "Mixed needs a ClassHead"),
        (GammaLikelihood(), CsgdHead(), "needs a GammaHead, not a CsgdHead"),
        (CsgdCrps(), ClassHead(), "needs a CsgdHead"),
        (Pinball(), ClassHead(), "needs a QuantileHead"),
        (ThresholdWeighted([1.0, 2.0]), ClassHead(), "2 weights for 18 edges"),
        (BinnedCrps(), ClassHead([1.0]), "a single edge has no width"),
    ],
)
def test_losses_refuse_heads_that_do_not_fit(loss, head, message):
    with pytest.raises(InputError, match=message):
        loss.require_head(head)


@every_pair
def test_losses_accept_heads_that_fit(loss, head):
    loss.require_head(head)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BinnedCrps(last=-1), "last must not be negative"),
        (lambda: BinnedCrps(first=NAN), "first must not be negative"),
        (lambda: BinnedCrps(power=0.5), "power must be at least 1"),
        (lambda: BinnedCrps(asymmetry=0), "asymmetry must be above 0"),
        (lambda: ThresholdWeighted([]), "weights"),
        (lambda: ThresholdWeighted([0, 0]), "nor all 0"),
        (lambda: ThresholdWeighted([1, -1]), "must not be negative"),
        (lambda: Mixed(-1), "entropy must not be negative"),
    ],
)
def test_settings_are_checked(make, message):
    with pytest.raises(InputError, match=message):
        make()


# classes


def test_cross_entropy_is_torchs():
    head, amounts = ClassHead(), some_amounts()
    outputs = some_outputs(head)
    expected = torch.nn.functional.cross_entropy(outputs, classify(amounts, EDGES), reduction="none")
    torch.testing.assert_close(CrossEntropy()(head, outputs, amounts), expected)


def test_ranked_probability_score_is_the_sum_of_brier_scores():
    head, amounts = ClassHead(), some_amounts()
    outputs = some_outputs(head)
    p = outputs.softmax(1)
    brier = [(p[:, k + 1 :].sum(1) - (amounts >= edge).double()).square() for k, edge in enumerate(EDGES)]
    torch.testing.assert_close(RankedProbability()(head, outputs, amounts), torch.stack(brier).sum(0))


def test_binned_crps_of_equal_bins_is_their_width_times_the_ranked_probability_score():
    head, amounts = ClassHead(REFERENCE_EDGES), some_amounts()
    outputs = some_outputs(head)
    torch.testing.assert_close(BinnedCrps()(head, outputs, amounts), 0.25 * RankedProbability()(head, outputs, amounts))


def test_binned_crps_is_a_weighted_sum():
    head, amounts = ClassHead([1.0, 2.0, 4.0]), torch.tensor([[[2.5]]])
    outputs = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()[None, :, None, None]
    # P(Y >= edge) = 0.9, 0.7, 0.4; the third edge is not reached
    assert BinnedCrps()(head, outputs, amounts).item() == pytest.approx(0.01 + 2 * 0.09 + 2 * 0.16)
    assert BinnedCrps(last=5, first=3)(head, outputs, amounts).item() == pytest.approx(0.03 + 2 * 0.09 + 5 * 0.16)
    assert BinnedCrps(power=1)(head, outputs, amounts).item() == pytest.approx(0.1 + 2 * 0.3 + 2 * 0.4)
    assert BinnedCrps(asymmetry=3)(head, outputs, amounts).item() == pytest.approx(0.03 + 6 * 0.09 + 2 * 0.16)
    weighted = ThresholdWeighted([1.0, 2.0, 2.0])
    torch.testing.assert_close(weighted(head, outputs, amounts), BinnedCrps()(head, outputs, amounts))


def test_mixed_is_a_sum():
    head, amounts = ClassHead(), some_amounts()
    outputs = some_outputs(head)
    parts = RankedProbability()(head, outputs, amounts), CrossEntropy()(head, outputs, amounts)
    torch.testing.assert_close(Mixed(0.3)(head, outputs, amounts), parts[0] + 0.3 * parts[1])


TOY = torch.tensor([[[0.5] * 5 + [1.5] * 3 + [2.5] * 2]])
SHARES = [0.5, 0.3, 0.2]


@pytest.mark.parametrize(
    "loss",
    [
        CrossEntropy(),
        RankedProbability(),
        BinnedCrps(last=5),
        BinnedCrps(first=7),
        ThresholdWeighted([0.3, 2.0]),
        Mixed(0.5),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_proper_losses_are_least_at_the_true_frequencies(loss):
    found = minimise(loss, ClassHead([1.0, 2.0]), TOY, torch.tensor([0.3, -0.7, 1.0]))
    assert found.softmax(0).tolist() == pytest.approx(SHARES, abs=1e-4)


@pytest.mark.parametrize("loss", [BinnedCrps(asymmetry=2), BinnedCrps(power=3)])
def test_other_powers_and_asymmetry_are_not_proper(loss):
    found = minimise(loss, ClassHead([1.0, 2.0]), TOY, torch.tensor([0.3, -0.7, 1.0]))
    assert (found.softmax(0) - torch.tensor(SHARES)).abs().max() > 0.02


@pytest.mark.parametrize("size", [1e3, 1e5])
@pytest.mark.parametrize("loss", OF_CLASSES, ids=lambda loss: type(loss).__name__)
def test_certain_forecasts_have_finite_losses(loss, size):
    head, amounts = ClassHead(), some_amounts().float()
    outputs = some_outputs(head, size=size).float().detach().requires_grad_()
    values = loss(head, outputs, amounts)
    assert values.isfinite().all()
    assert torch.autograd.grad(values.sum(), outputs)[0].isfinite().all()


# parameters


@pytest.mark.parametrize(
    ("shape", "scale", "shift", "amount", "expected"),
    [(0.6, 3, -0.5, 2, 0.81659), (2, 1.5, -2, 0.3, 0.38304), (0.6, 3, -0.5, 0, 0.418115)],
)
def test_csgd_crps_of_known_distributions(shape, scale, shift, amount, expected):
    parameters = CsgdParameters(*(torch.tensor([float(p)]) for p in (shape, scale, shift)))
    assert csgd_crps(parameters, torch.tensor([float(amount)])).item() == pytest.approx(expected, abs=5e-6)


@pytest.mark.parametrize("shape", [0.15, 1.0, 8.0])
@pytest.mark.parametrize(("scale", "shift"), [(0.1, -0.02), (2.0, -1.0), (15.0, -10.0)])
@pytest.mark.parametrize("amount", [0.0, 0.3, 12.0])
def test_csgd_crps_is_the_integral(shape, scale, shift, amount):
    def cdf(y: float) -> float:
        return float(scipy.stats.gamma.cdf((y - shift) / scale, shape))

    # the rest of the tail is below 1e-12
    end = max(amount, scale * scipy.stats.gamma.isf(1e-13, shape) + shift)
    integral = quad(lambda y: cdf(y) ** 2, 0, amount, epsabs=1e-10, limit=200)[0]
    points = [amount + (end - amount) * f for f in (1e-3, 1e-2, 0.1)]
    integral += quad(lambda y: (1 - cdf(y)) ** 2, amount, end, epsabs=1e-10, limit=200, points=points)[0]
    parameters = CsgdParameters(*(torch.tensor([p]).double() for p in (shape, scale, shift)))
    assert csgd_crps(parameters, torch.tensor([amount])).item() == pytest.approx(integral, abs=1e-7)


def test_a_sure_dry_forecast_of_a_dry_pixel_costs_nothing():
    parameters = CsgdParameters(torch.tensor([0.5]), torch.tensor([1.0]), torch.tensor([-100.0]))
    assert 0 <= csgd_crps(parameters, torch.zeros(1)).item() < 1e-30


def draws_of_csgd(shape: float, scale: float, shift: float, n: int = 8000) -> torch.Tensor:
    levels = (np.arange(n) + 0.5) / n
    return torch.from_numpy(np.maximum(0, scipy.stats.gamma.ppf(levels, shape) * scale + shift)).reshape(1, 1, n)


def test_csgd_crps_is_least_at_the_truth():
    head = CsgdHead()
    found = minimise(CsgdCrps(), head, draws_of_csgd(0.7, 3.0, -0.8), torch.zeros(3))
    parameters = head.distribution(found[None, :, None, None])
    assert [p.item() for p in parameters] == pytest.approx([0.7, 3.0, -0.8], rel=0.01)


def test_gamma_likelihood_is_that_of_scipy():
    head, amounts = GammaHead(), some_amounts()
    outputs = some_outputs(head)
    dry, shape, scale = (p.detach().numpy() for p in head.distribution(outputs))
    y = amounts.numpy()
    p0 = 1 / (1 + np.exp(-dry))
    expected = np.where(
        y == 0, -np.log(p0), -np.log(1 - p0) - scipy.stats.gamma.logpdf(np.where(y > 0, y, 1), shape, scale=scale)
    )
    np.testing.assert_allclose(GammaLikelihood()(head, outputs, amounts).detach(), expected, rtol=1e-10)


def test_gamma_likelihood_is_least_at_the_truth():
    wet = draws_of_csgd(0.9, 4.0, 0.0)
    amounts = torch.cat([wet, torch.zeros(1, 1, 3 * wet.numel(), dtype=wet.dtype)], -1)
    head = GammaHead()
    found = head.distribution(minimise(GammaLikelihood(), head, amounts, torch.zeros(3))[None, :, None, None])
    assert torch.sigmoid(found.dry).item() == pytest.approx(0.75, abs=1e-3)
    assert [found.shape.item(), found.scale.item()] == pytest.approx([0.9, 4.0], rel=0.01)


def test_ranked_probability_learns_the_shape_of_a_distribution():
    head = CsgdHead()
    amounts = draws_of_csgd(0.7, 3.0, -0.8)[..., ::20]
    found = minimise(RankedProbability(), head, amounts, torch.zeros(3))
    shape, scale, shift = (p.double() for p in head.distribution(found[None, :, None, None]))
    expected = upper_gamma(torch.tensor(0.7), (torch.tensor(EDGES) + 0.8) / 3.0)
    assert head.exceedance(found[None, :, None, None])[0, :, 0, 0].tolist() == pytest.approx(
        expected.tolist(), abs=5e-3
    )
    assert shape > 0.3
    assert scale > 0
    assert shift < 0


# quantiles


def test_pinball_of_known_quantiles():
    head = QuantileHead(EDGES, [0.25, 0.5])
    outputs = torch.tensor([2.0, math.log(math.expm1(1 - 1e-4))])[None, :, None, None]
    loss = Pinball()
    assert loss(head, outputs, torch.tensor([[[4.0]]])).item() == pytest.approx((0.25 * 2 + 0.5 * 1) / 2, abs=1e-5)
    assert loss(head, outputs, torch.tensor([[[0.0]]])).item() == pytest.approx((0.75 * 2 + 0.5 * 3) / 2, abs=1e-5)
    # below 0 is as good as 0
    assert loss(head, outputs - 20, torch.tensor([[[0.0]]])).item() == 0


def test_pinball_is_least_at_the_quantiles():
    amounts = draws_of_csgd(0.7, 3.0, -0.8, n=2000)
    head = QuantileHead(EDGES, [0.1, 0.3, 0.7, 0.9])
    outputs = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([outputs], lr=0.05)
    for step in range(800):
        for group in optimiser.param_groups:
            group["lr"] = 0.05 * (1 - step / 800)
        optimiser.zero_grad()
        Pinball()(head, outputs[None, :, None, None].expand(1, 4, 1, 2000), amounts).mean().backward()
        optimiser.step()
    found = head.quantiles(outputs[None, :, None, None])[0, :, 0, 0].clamp(min=0).tolist()
    assert found == pytest.approx(np.quantile(amounts, [0.1, 0.3, 0.7, 0.9]).tolist(), abs=0.03)


# speed


@pytest.mark.parametrize("loss", [CrossEntropy(), RankedProbability()], ids=lambda loss: type(loss).__name__)
def test_losses_of_a_batch_are_fast(loss):
    head, outputs = ClassHead(), torch.randn(16, 19, 64, 64, requires_grad=True)
    amounts = some_amounts(shape=(16, 64, 64)).float()
    best = math.inf
    for _ in range(5):
        start = time.perf_counter()
        loss(head, outputs, amounts).mean().backward()
        best = min(best, time.perf_counter() - start)
    # 3 and 10 ms on an idle core
    assert best < 0.1
