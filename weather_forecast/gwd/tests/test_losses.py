"""Losses and the scales they are measured in."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ai4sim.errors import InputError
from weather_forecast.gwd import config
from weather_forecast.gwd.columns import generate_columns
from weather_forecast.gwd.layout import ColumnLayout
from weather_forecast.gwd.losses import FluxLoss, ScaledHuber, ScaledMSE, target_scale
from weather_forecast.gwd.scheme import gravity_wave_drag

LAUNCH_FLUX = 3.75e-3
Sample = tuple[Tensor, Tensor, Tensor, Tensor, np.ndarray]


@pytest.fixture(scope="module")
def sample() -> Sample:
    """Prediction, target, columns, scale and half-level pressures of 32 generated columns."""
    columns = generate_columns(32, np.random.default_rng(0))
    drag = gravity_wave_drag(columns.u, columns.v, columns.t, columns.half_pressure)
    target = torch.from_numpy(np.concatenate([drag.dudt, drag.dvdt], 1))
    prediction = target * 0.7 + 1e-7
    x = torch.from_numpy(columns.inputs()).double()
    return prediction, target, x, target.std(0), columns.half_pressure


@pytest.mark.parametrize("loss", [ScaledMSE(), ScaledHuber(), FluxLoss().double()])
def test_call_contract(loss: nn.Module, sample: Sample) -> None:
    prediction, target, x, scale, _ = sample
    value = loss(prediction.requires_grad_(), target, x, scale)
    assert value.shape == ()
    assert value > 0
    (gradient,) = torch.autograd.grad(value, prediction)
    assert torch.isfinite(gradient).all()
    assert loss(target, target, x, scale) == 0


def test_mse_is_in_units_of_the_scale(sample: Sample) -> None:
    _, target, x, scale, _ = sample
    assert ScaledMSE()(target + 3 * scale, target, x, scale).item() == pytest.approx(9)


def test_huber_is_quadratic_then_linear(sample: Sample) -> None:
    _, target, x, scale, _ = sample
    huber = ScaledHuber(delta=2.0)
    assert huber(target + 0.5 * scale, target, x, scale).item() == pytest.approx(0.125)
    assert huber(target + 10 * scale, target, x, scale).item() == pytest.approx(2 * (10 - 1))


def test_flux_loss_equals_the_sum_over_layers(sample: Sample) -> None:
    prediction, target, x, scale, half = sample
    prediction = prediction.detach()
    error = (prediction - target).numpy().reshape(-1, 2, 63)
    flux = np.zeros_like(error)
    running = np.zeros(error.shape[:2])
    for k in range(63):
        running = running + error[..., k] * (half[:, k + 1] - half[:, k])[:, None] / config.GRAVITY
        flux[..., k] = running
    mean_square = np.mean((flux / LAUNCH_FLUX) ** 2)
    pure = FluxLoss(mse_weight=0.0).double()(prediction, target, x, scale).item()
    # the grid's coefficients are kept in single precision by default
    assert pure == pytest.approx(mean_square, rel=1e-5)
    both = FluxLoss(mse_weight=0.3).double()(prediction, target, x, scale).item()
    mse = ScaledMSE()(prediction, target, x, scale).item()
    assert both == pytest.approx(mean_square + 0.3 * mse, rel=1e-5)


def test_flux_through_the_bottom_vanishes_where_momentum_closes(sample: Sample) -> None:
    """An error that only moves momentum from one layer to the next is seen at the half-level between them alone."""
    _, target, x, scale, half = sample
    moved = target.clone()
    thickness = torch.from_numpy(np.diff(half, axis=1))
    push = 0.01 * LAUNCH_FLUX * config.GRAVITY
    moved[:, 40] += push / thickness[:, 40]
    moved[:, 41] -= push / thickness[:, 41]
    value = FluxLoss(mse_weight=0.0).double()(moved, target, x, scale).item()
    assert value == pytest.approx(0.01**2 / 126, rel=1e-4)


@pytest.mark.parametrize("make", [lambda: ScaledHuber(delta=0), lambda: FluxLoss(launch_flux=-1)])
def test_settings_that_make_no_sense_are_refused(make: type) -> None:
    with pytest.raises(InputError, match="must be positive, got"):
        make()


def test_flux_loss_refuses_levels_of_another_grid() -> None:
    with pytest.raises(InputError, match=r"93 levels, but the launch level of grid 'L91' is 63"):
        FluxLoss(ColumnLayout(n_levels=93))


def spread() -> np.ndarray:
    """Standard deviations that fall by four decades from the top, v with twice the size of u."""
    u = np.geomspace(1e-4, 1e-8, 63)
    return np.concatenate([u, 2 * u])


def test_scales_between_global_and_level() -> None:
    layout = ColumnLayout()
    pooled = np.geomspace(1e-4, 1e-8, 63) * np.sqrt(2.5)
    for scaling, weight, expected in (
        ("global", 0.9, np.full(63, 2e-4)),
        ("level", 0.1, pooled),
        ("blend", 0.75, 2e-4**0.25 * pooled**0.75),
        ("blend", 0.0, np.full(63, 2e-4)),
        ("blend", 1.0, pooled),
    ):
        scale, silent = target_scale(spread(), layout, scaling, weight)  # type: ignore[arg-type] # a literal
        np.testing.assert_allclose(scale, np.tile(expected, 2), rtol=1e-12)
        assert silent == []


def test_levels_that_do_not_vary_are_named_and_have_no_part() -> None:
    std = spread()
    std[[4, 67, 62, 125]] = 0, 1e-17, 0, 0  # levels 5 and 63, in u and v
    with pytest.warns(UserWarning, match=r"level 5, level 63 do not vary over the training rows"):
        scale, silent = target_scale(std, ColumnLayout())
    assert silent == ["level 5", "level 63"]
    assert scale[[4, 67, 62, 125]].tolist() == [1, 1, 1, 1]
    assert scale[0] < 1e-3


def test_level_where_only_one_component_varies_keeps_its_scale() -> None:
    std = spread()
    std[63:] = 0
    scale, silent = target_scale(std, ColumnLayout(), "level")
    np.testing.assert_allclose(scale[:63], np.geomspace(1e-4, 1e-8, 63) / np.sqrt(2))
    assert silent == []


def test_targets_that_are_all_constant() -> None:
    with pytest.warns(UserWarning, match="level 1, level 2"):
        scale, silent = target_scale(np.zeros(126), ColumnLayout())
    assert (scale == 1).all()
    assert len(silent) == 63


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones(125), "blend", 0.5), r"std has shape \(125,\), expected \(126,\)"),
        ((-np.ones(126), "blend", 0.5), "finite and not negative"),
        ((np.full(126, np.nan), "blend", 0.5), "finite and not negative"),
        ((np.ones(126), "levels", 0.5), "'levels' is unknown; choose global, level or blend"),
        ((np.ones(126), "blend", 1.5), "between 0 and 1, got 1.5"),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple, message: str) -> None:
    std, scaling, weight = arguments
    with pytest.raises(InputError, match=message):
        target_scale(std, ColumnLayout(), scaling, weight)
