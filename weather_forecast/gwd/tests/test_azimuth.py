"""What AzimuthFluxNet guarantees for any weights."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from ai4sim.errors import InputError
from weather_forecast.gwd import config
from weather_forecast.gwd.columns import generate_columns
from weather_forecast.gwd.networks import AzimuthFluxNet
from weather_forecast.gwd.networks.azimuth import running_maximum, shifted_maximum, stratification
from weather_forecast.gwd.scheme import gravity_wave_drag

LAUNCH_FLUX = 3.75e-3  # Pa
U, V, DU, DV = slice(0, 63), slice(63, 126), slice(0, 63), slice(63, 126)
every_azimuths = pytest.mark.parametrize("n_azimuths", [4, 8, 16])
CALM = "calm"  # random initialisation
SHARP = "sharp"  # weights so large that the deposits of the directions hardly overlap


@pytest.fixture(scope="module")
def columns() -> Tensor:
    """Generated columns (100, 191), float32."""
    return torch.from_numpy(generate_columns(100, np.random.default_rng(3)).inputs())


def build(x: Tensor, n_azimuths: int = 8, weights: str = CALM, **arguments: object) -> AzimuthFluxNet:
    torch.manual_seed(0)
    network = AzimuthFluxNet(n_azimuths=n_azimuths, **arguments)  # type: ignore[arg-type] # passed through
    network.inputs.fit(x.mean(0).numpy(), x.double().std(0).numpy())
    if weights == SHARP:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(4)
    return network.eval()


def turn(values: Tensor, degrees: float) -> Tensor:
    """Turn the winds of columns, or the tendencies, anticlockwise."""
    radians = np.deg2rad(degrees)
    cosine, sine = float(np.cos(radians).round(15)), float(np.sin(radians).round(15))
    turned = values.clone()
    turned[:, U] = cosine * values[:, U] - sine * values[:, V]
    turned[:, V] = sine * values[:, U] + cosine * values[:, V]
    return turned


def relative(difference: Tensor, reference: Tensor) -> float:
    """Root mean square of the difference over that of the reference."""
    return float(difference.square().mean().sqrt() / reference.square().mean().sqrt())


@every_azimuths
@pytest.mark.parametrize("weights", [CALM, SHARP])
def test_momentum_of_the_column_closes(n_azimuths: int, weights: str, columns: Tensor) -> None:
    network = build(columns, n_azimuths, weights)
    with torch.no_grad():
        drag = network(columns).double().numpy()
    half = generate_columns(100, np.random.default_rng(3)).half_pressure
    force = drag.reshape(-1, 2, 63) * np.diff(half, axis=1)[:, None] / config.GRAVITY
    assert np.abs(force.sum(-1)).max() < 1e-6 * LAUNCH_FLUX
    assert np.abs(force).max() > 1e-5 * LAUNCH_FLUX


@every_azimuths
def test_flux_of_each_direction_decreases_upward(n_azimuths: int, columns: Tensor) -> None:
    with torch.no_grad():
        shares = build(columns, n_azimuths, SHARP).deposited_shares(columns)
    assert shares.shape == (100, n_azimuths, 62)
    assert (shares >= 0).all()
    assert (shares.sum(-1) <= 1 + 1e-6).all()


@pytest.mark.parametrize(("n_azimuths", "degrees"), [(4, 90), (8, 90), (8, 45), (16, 22.5), (8, 180), (16, 270)])
def test_drag_turns_with_the_wind(n_azimuths: int, degrees: float, columns: Tensor) -> None:
    network = build(columns, n_azimuths)
    with torch.no_grad():
        drag, turned = network(columns), network(turn(columns, degrees))
    assert relative(turned - turn(drag, degrees), drag) < 1e-5


@every_azimuths
@pytest.mark.parametrize("weights", [CALM, SHARP])
def test_symmetries_hold_to_round_off_in_double_precision(n_azimuths: int, weights: str, columns: Tensor) -> None:
    network = build(columns, n_azimuths, weights).double()
    x = columns.double()
    moved = x.clone()
    moved[:, U] += 13
    moved[:, V] -= 7
    with torch.no_grad():
        drag = network(x)
        turned = network(turn(x, 360 / n_azimuths))
        galilean = network(moved)
    assert relative(turned - turn(drag, 360 / n_azimuths), drag) < 1e-11
    assert relative(galilean - drag, drag) < 1e-11


@every_azimuths
@pytest.mark.parametrize("component", [U, V])
def test_drag_mirrors_with_the_wind(n_azimuths: int, component: slice, columns: Tensor) -> None:
    network = build(columns, n_azimuths)
    mirrored = columns.clone()
    mirrored[:, component] *= -1
    with torch.no_grad():
        drag, other = network(columns), network(mirrored)
    other[:, component] *= -1
    assert relative(other - drag, drag) < 1e-5


@every_azimuths
def test_a_constant_wind_added_to_the_column_is_not_felt(n_azimuths: int, columns: Tensor) -> None:
    network = build(columns, n_azimuths)
    moved = columns.clone()
    moved[:, U] += 13
    moved[:, V] -= 7
    with torch.no_grad():
        drag, other = network(columns), network(moved)
    assert relative(other - drag, drag) < 1e-5


@every_azimuths
def test_wind_constant_with_height_gives_no_drag(n_azimuths: int, columns: Tensor) -> None:
    network = build(columns, n_azimuths, SHARP)
    still = columns.clone()
    still[:, U], still[:, V] = 20.3, -11.7
    with torch.no_grad():
        rms = network(columns).square().mean().sqrt()
        assert network(still).abs().max() < 1e-6 * rms


def test_wind_below_the_mean_of_the_launch_layers_is_not_a_feature(columns: Tensor) -> None:
    """The launch half-level is the mean of levels L-1 and L: only differences to it reach the network."""
    network = build(columns)
    moved = columns.clone()
    moved[:, 61] += 1
    with torch.no_grad():
        assert not torch.equal(network(moved), network(columns))


def test_linear_in_the_launch_flux(columns: Tensor) -> None:
    once, twice = build(columns), build(columns, launch_flux=2 * LAUNCH_FLUX)
    with torch.no_grad():
        torch.testing.assert_close(twice(columns), 2 * once(columns), rtol=1e-5, atol=1e-12)


def test_more_directions_refine_the_same_network(columns: Tensor) -> None:
    """The weights do not depend on the directions: a network can be refined after its training."""
    coarse = build(columns, 32)
    fine = build(columns, 64)
    fine.load_state_dict(coarse.state_dict())
    with torch.no_grad():
        reference = fine(columns)
        assert relative(coarse(columns) - reference, reference) < 0.2


def test_split_first_layer_equals_one_layer_per_direction(columns: Tensor) -> None:
    network = build(columns).double()
    x = columns.double()
    u, v, t = x[:, U], x[:, V], x[:, 126:189]
    shares = []
    for cosine, sine in network.direction(x).T:
        wind = cosine * u + sine * v
        half = 0.5 * (wind[:, 1:] + wind[:, :-1])
        launch = half[:, -1:]
        half = torch.cat([wind[:, :1], half[:, :-1]], 1)
        highest = (half - launch).clamp(min=0).flip(1).cummax(1).values.flip(1)
        pressure = network.pressures(x[:, 189:190])
        n2 = stratification(t, 0.5 * (pressure[:, 1:] + pressure[:, :-1])).clamp(min=1e-5)
        shared = torch.cat(
            [network.inputs(x)[:, 126:], (n2.sqrt() / 0.02).log() / 0.3],
            1,
        )
        hidden = (
            network.shared(shared)
            + network.wind(torch.cat([wind - launch, half - launch], 1) / 25)
            + network.maximum(highest / 25)
        )
        logits = network.layers(hidden)
        shares.append(torch.softmax(logits[:, :62], 1) * torch.sigmoid(logits[:, 62:] + 3))
    torch.testing.assert_close(network.deposited_shares(x), torch.stack(shares, 1), rtol=1e-9, atol=1e-14)


def test_stratification_is_the_scheme_s(columns: Tensor) -> None:
    generated = generate_columns(50, np.random.default_rng(8))
    truth = gravity_wave_drag(
        generated.u, generated.v, generated.t, generated.half_pressure, diagnostics=True
    ).buoyancy_frequency
    half = torch.from_numpy(generated.half_pressure)
    n2 = stratification(torch.from_numpy(generated.t), 0.5 * (half[:, 1:] + half[:, :-1]))
    assert truth is not None
    # below the two levels under the vacuum, where the two discretisations of dz differ
    error = (n2[:, 3:].clamp(min=1e-12).sqrt() - torch.from_numpy(truth[:, 4:])).abs() / torch.from_numpy(truth[:, 4:])
    assert error.median() < 0.01
    assert error.quantile(0.99) < 0.05


@pytest.mark.parametrize("length", [1, 2, 3, 62, 64, 65])
def test_running_maximum_from_each_level_to_the_last(length: int) -> None:
    profile = torch.randn(3, 2, length, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([profile[..., k:].amax(-1) for k in range(length)], -1)
    assert torch.equal(running_maximum(profile), expected)
    assert torch.equal(shifted_maximum(profile), expected)


def test_exported_form_of_the_maximum_has_the_same_gradient() -> None:
    profile = torch.randn(4, 62, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 62, dtype=torch.float64)
    (first,) = torch.autograd.grad((running_maximum(profile) * weight).sum(), profile)
    (second,) = torch.autograd.grad((shifted_maximum(profile) * weight).sum(), profile)
    torch.testing.assert_close(first, second)


def test_fluxes_stay_in_single_precision_under_autocast(columns: Tensor) -> None:
    network = build(columns)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        drag = network(columns)
    assert drag.dtype == torch.float32
    half = torch.from_numpy(generate_columns(100, np.random.default_rng(3)).half_pressure)
    force = drag.double().unflatten(1, (2, 63)) * half.diff(dim=1)[:, None] / config.GRAVITY
    assert force.sum(-1).abs().max() < 1e-6 * LAUNCH_FLUX


def test_gradients_of_all_weights(columns: Tensor) -> None:
    network = copy.deepcopy(build(columns))
    (network(columns) * 1e5).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


def test_settings_that_make_no_sense_are_named() -> None:
    for n_azimuths in (0, 6, -4):
        with pytest.raises(InputError, match=f"n_azimuths must be a multiple of 4, got {n_azimuths}"):
            AzimuthFluxNet(n_azimuths=n_azimuths)
    with pytest.raises(InputError, match="depth must be at least 1, got 0"):
        AzimuthFluxNet(depth=0)
