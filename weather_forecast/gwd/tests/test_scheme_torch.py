"""The torch scheme: agreement with NumPy, derivatives, export."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from weather_forecast.gwd.columns import Columns, generate_columns
from weather_forecast.gwd.scheme import gravity_wave_drag
from weather_forecast.gwd.scheme_torch import GravityWaveDrag
from weather_forecast.gwd.spectrum import SchemeParameters

CHEAP = SchemeParameters.cheap()


@pytest.fixture(scope="module")
def columns() -> Columns:
    return generate_columns(24, np.random.default_rng(3))


def tensors(columns: Columns, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    arrays = (columns.u, columns.v, columns.t, columns.half_pressure, columns.lat)
    return [torch.from_numpy(x).to(dtype) for x in arrays]


@pytest.mark.parametrize("given_geopotential", [False, True])
@pytest.mark.parametrize(
    "parameters",
    [
        CHEAP,
        SchemeParameters(cap="physical"),
        replace(CHEAP, cap="none", lid="open", frequency_exponent=1.5),
        replace(CHEAP, n_azimuths=16, n_speeds=11, slope=0.5, saturation=0.7),
    ],
)
def test_agrees_with_numpy(columns, parameters, given_geopotential):
    phi = columns.geopotential if given_geopotential else None
    expected = gravity_wave_drag(
        columns.u,
        columns.v,
        columns.t,
        columns.half_pressure,
        latitude=columns.lat,
        geopotential=phi,
        parameters=parameters,
    )
    drag = GravityWaveDrag(parameters)(*tensors(columns), geopotential=None if phi is None else torch.from_numpy(phi))
    for computed, name in zip(drag, ("dudt", "dvdt"), strict=True):
        reference = getattr(expected, name)
        np.testing.assert_allclose(computed.numpy(), reference, atol=1e-10 * np.abs(reference).max(), rtol=0)


def test_single_precision(columns):
    double, _ = GravityWaveDrag(CHEAP)(*tensors(columns))
    single, _ = GravityWaveDrag(CHEAP)(*tensors(columns, torch.float32))
    assert single.dtype == torch.float32
    assert (single - double).square().mean().sqrt() < 1e-3 * double.square().mean().sqrt()


def test_without_latitude_there_is_no_tropical_reduction(columns):
    u, v, t, half, lat = tensors(columns)
    unreduced = GravityWaveDrag(replace(CHEAP, tropical_reduction=0.0))(u, v, t, half, lat)
    torch.testing.assert_close(GravityWaveDrag(CHEAP)(u, v, t, half), unreduced, rtol=1e-14, atol=0)


@pytest.mark.parametrize("parameters", [CHEAP, replace(CHEAP, cap="physical"), replace(CHEAP, frequency_exponent=1.5)])
def test_tangent_linear_and_adjoint_pass_the_dot_product_test(columns, parameters):
    scheme = GravityWaveDrag(parameters)
    *state, half, lat = tensors(columns)
    generator = torch.Generator().manual_seed(0)
    dx = tuple(torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in state)
    y = tuple(torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in state[:2])

    def drag(u, v, t):
        return scheme(u, v, t, half, lat)

    _, jx = torch.func.jvp(drag, tuple(state), dx)
    _, pullback = torch.func.vjp(drag, *state)
    forward = sum((a * b).sum() for a, b in zip(jx, y, strict=True))
    reverse = sum((a * b).sum() for a, b in zip(dx, pullback(y), strict=True))
    assert torch.isfinite(forward)
    assert abs(forward - reverse) < 1e-10 * abs(forward)


def test_tangent_linear_agrees_with_differences(columns):
    scheme = GravityWaveDrag(CHEAP)
    u, v, t, half, lat = tensors(columns)
    du = torch.randn(u.shape, generator=torch.Generator().manual_seed(1), dtype=u.dtype)

    def drag(u):
        return scheme(u, v, t, half, lat)[0]

    _, tangent = torch.func.jvp(drag, (u,), (du,))
    difference = (drag(u + 1e-7 * du) - drag(u - 1e-7 * du)) / 2e-7
    # columns with a bin at a kink differ; the others agree to the differences' own error
    error = (difference - tangent).norm(dim=1) / tangent.norm(dim=1)
    assert error.median() < 1e-6


def test_exported_program_takes_any_number_of_columns(columns):
    # the loop over levels is unrolled: few levels and speeds keep the export short
    u, v, t, half, lat = tensors(columns, torch.float32)
    arguments = (u[:, -8:], v[:, -8:], t[:, -8:], half[:, -9:], lat)
    scheme = GravityWaveDrag(replace(CHEAP, n_speeds=8))
    columns_dim = torch.export.Dim("columns", min=1)
    program = torch.export.export(scheme, arguments, dynamic_shapes=tuple({0: columns_dim} for _ in arguments))
    for n in (1, 5):
        few = tuple(x[:n] for x in arguments)
        torch.testing.assert_close(program.module()(*few), scheme(*few))


def test_it_is_a_module_without_trained_parameters_or_state():
    scheme = GravityWaveDrag()
    assert not list(scheme.parameters())
    assert not scheme.state_dict()


def test_bad_shapes_are_named(columns):
    u, v, t, half, _ = tensors(columns)
    with pytest.raises(ValueError, match=r"half_pressure has the shape \(24, 63\); it must be \(24, 64\)"):
        GravityWaveDrag()(u, v, t, half[:, 1:])
