"""The loss equals its formula, border and missing values left out."""

import pytest
import torch

from ai4sim.errors import InputError
from weather_forecast.lam.losses import (
    CombinedLoss,
    GaussianLoss,
    GradientLoss,
    Scales,
    WeightedLoss,
    feature_weights,
    gaussian_crps,
    gaussian_nll,
)

NAMES = ["aro_t_500hpa", "aro_t2m_2m"]
STD = torch.tensor([0.5, 0.25])
ROUGHNESS = torch.tensor([0.1, 0.2])
SCALES = Scales(STD, ROUGHNESS)
WEIGHTS = (1.5, 2.0)  # 1 + 500/1000, and 2 off pressure levels


def built(p: int = 2, **options) -> WeightedLoss:
    loss = WeightedLoss(p, **options)
    loss.build(NAMES, SCALES)
    return loss


def interior() -> torch.Tensor:
    """3 x 3 points, of which the first row is border."""
    weights = torch.ones(3, 3, 1)
    weights[0] = 0
    return weights


@pytest.mark.parametrize("p", [1, 2])
def test_hand_made_case(p):
    prediction = torch.arange(18.0).reshape(1, 1, 3, 3, 2)
    target = torch.zeros_like(prediction)
    inside = prediction[0, 0, 1:].reshape(6, 2).abs() ** p
    expected = sum(WEIGHTS[f] / STD[f] ** p * inside[:, f].mean() for f in range(2))
    loss = built(p)(prediction, target, interior())
    assert loss.shape == (1, 1)
    torch.testing.assert_close(loss[0, 0], expected)


def test_missing_targets_leave_numerator_and_denominator_and_gradients_stay_finite():
    prediction = torch.ones(1, 1, 3, 3, 2, requires_grad=True)
    target = torch.zeros(1, 1, 3, 3, 2)
    target[..., 1, :, 0] = torch.nan
    loss = built()(prediction, target, interior())
    # a mean of ones stays one, whatever is missing
    torch.testing.assert_close(loss[0, 0], 1.5 / 0.25 + 2 / 0.0625 * torch.ones(()))
    loss.sum().backward()
    assert torch.isfinite(prediction.grad).all()
    assert not prediction.grad[..., 1, :, 0].any()
    assert not prediction.grad[..., 0, :, :].any()


def test_nothing_left_counts_nothing():
    target = torch.full((1, 1, 3, 3, 2), torch.nan)
    assert built()(torch.ones(1, 1, 3, 3, 2), target, interior()).item() == 0


def test_every_sample_and_step_has_its_own_loss():
    prediction = torch.randn(2, 3, 3, 3, 2)
    target = torch.randn(2, 3, 3, 3, 2)
    together = built()(prediction, target, interior())
    alone = built()(prediction[1:, 2:], target[1:, 2:], interior())
    torch.testing.assert_close(together[1, 2], alone[0, 0])


def test_weights_by_name():
    torch.testing.assert_close(feature_weights(NAMES), torch.tensor(WEIGHTS))
    torch.testing.assert_close(feature_weights(NAMES, {"aro_t2m_2m": 3, "aro_t_500hpa": 0}), torch.tensor([0.0, 3.0]))
    with pytest.raises(InputError, match=r"missing \['aro_t2m_2m'\], unknown \['x'\]"):
        built(weights={"aro_t_500hpa": 1.0, "x": 1.0})


def test_combined_losses_add_up():
    prediction, target = torch.randn(2, 1, 3, 3, 2), torch.randn(2, 1, 3, 3, 2)
    both = CombinedLoss([WeightedLoss(1), WeightedLoss(2)], [0.5, 2.0])
    both.build(NAMES, SCALES)
    expected = 0.5 * built(1)(prediction, target, interior()) + 2 * built(2)(prediction, target, interior())
    torch.testing.assert_close(both(prediction, target, interior()), expected)
    with pytest.raises(InputError, match="1 weights for 2 losses"):
        CombinedLoss([WeightedLoss(), WeightedLoss()], [1.0])


def test_only_squares_and_absolute_errors():
    with pytest.raises(InputError, match="p must be 1 or 2, not 3"):
        WeightedLoss(3)


@pytest.mark.parametrize("error", [-1.3, 0.0, 0.4])
@pytest.mark.parametrize("spread", [0.2, 1.7])
def test_gaussian_scores_equal_their_definitions(error, spread):
    normal = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), spread)
    e, s = torch.tensor(error, dtype=torch.float64), torch.tensor(spread, dtype=torch.float64)
    torch.testing.assert_close(gaussian_nll(e, s), -normal.log_prob(e))
    x = torch.linspace(-20, 20, 400_001, dtype=torch.float64)
    integral = torch.trapezoid((normal.cdf(x) - (x >= error).double()).square(), x)
    torch.testing.assert_close(gaussian_crps(e, s), integral, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("score", ["crps", "nll"])
def test_gaussian_loss_is_least_at_the_true_spread(score):
    truth = 0.7 * torch.randn(1, 1, 100, 100, 2, generator=torch.Generator().manual_seed(0))
    loss = GaussianLoss(score)
    loss.build(NAMES, SCALES)
    spreads = torch.linspace(0.4, 1.0, 13)
    values = [
        loss(torch.zeros_like(truth), truth, torch.ones(100, 100, 1), torch.full_like(truth, s)).item() for s in spreads
    ]
    assert spreads[min(range(13), key=values.__getitem__)] == pytest.approx(0.7, abs=0.026)


def test_gaussian_loss_weights_features_and_leaves_out_what_is_missing():
    target = torch.zeros(1, 1, 3, 3, 2)
    target[..., 1, :, 0] = torch.nan
    prediction, spread = torch.ones_like(target).requires_grad_(), torch.full_like(target, 2.0).requires_grad_()
    e, s = torch.tensor(1.0), torch.tensor(2.0)
    for score, expected in (
        ("crps", (1.5 / 0.5 + 2 / 0.25) * gaussian_crps(e, s)),
        ("nll", (1.5 + 2) * gaussian_nll(e, s)),
    ):
        loss = GaussianLoss(score)
        loss.build(NAMES, SCALES)
        value = loss(prediction, target, interior(), spread)
        torch.testing.assert_close(value[0, 0], expected)
        value.sum().backward()
    for leaf in (prediction, spread):
        assert torch.isfinite(leaf.grad).all()
        assert not leaf.grad[..., 1, :, 0].any()


def test_combined_loss_needs_a_spread_if_one_of_its_parts_does():
    assert not CombinedLoss([WeightedLoss(), WeightedLoss(1)]).needs_spread
    both = CombinedLoss([WeightedLoss(), GaussianLoss()], [1.0, 3.0])
    assert both.needs_spread
    both.build(NAMES, SCALES)
    target = torch.randn(1, 1, 3, 3, 2)
    prediction, spread = torch.zeros_like(target), torch.ones_like(target)
    parts = [loss(prediction, target, interior(), spread) for loss in both.losses]
    torch.testing.assert_close(both(prediction, target, interior(), spread), parts[0] + 3 * parts[1])


def test_gaussian_loss_names_its_scores():
    with pytest.raises(InputError, match="score must be crps or nll, not 'mae'"):
        GaussianLoss("mae")
    with pytest.raises(ValueError, match="needs a forecast's spread"):
        GaussianLoss()(torch.zeros(1), torch.zeros(1), torch.zeros(1))


def test_gradient_loss_of_a_hand_made_case():
    error = torch.zeros(1, 1, 3, 3, 2)
    error[..., 0] = torch.tensor([[9.0, 9.0, 9.0], [1.0, 2.0, 4.0], [1.0, 0.0, 0.0]])  # the first row is border
    loss = GradientLoss()
    loss.build(NAMES, SCALES)
    rows = ((1 - 1) ** 2 + (0 - 2) ** 2 + (0 - 4) ** 2) / 3
    columns = (1 + 4 + 1 + 0) / 4
    expected = 1.5 / (0.5 * 0.1) ** 2 * (rows + columns) / 2
    target = torch.randn(1, 1, 3, 3, 2)
    torch.testing.assert_close(
        loss(target + error, target, interior())[0, 0], torch.tensor(expected), rtol=1e-4, atol=0
    )


def test_gradient_loss_leaves_out_pairs_that_lack_a_target_and_does_not_see_a_bias():
    loss = GradientLoss()
    loss.build(NAMES, SCALES)
    target = torch.zeros(1, 1, 4, 4, 2)
    assert loss(target + 3, target, torch.ones(4, 4, 1)).item() == 0
    slope = torch.arange(4.0)[:, None, None].expand_as(target[0, 0]).clone()
    whole = loss(slope[None, None], target, torch.ones(4, 4, 1))
    expected = sum(w / (s * r) ** 2 for w, s, r in zip(WEIGHTS, STD, ROUGHNESS, strict=True)) / 2
    torch.testing.assert_close(whole[0, 0], expected)
    target[..., 1, 2, :] = torch.nan
    prediction = slope[None, None].requires_grad_()
    gappy = loss(prediction, target, torch.ones(4, 4, 1))
    torch.testing.assert_close(gappy, whole)
    gappy.sum().backward()
    assert torch.isfinite(prediction.grad).all()
    assert not prediction.grad[..., 1, 2, :].any()
