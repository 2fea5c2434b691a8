"""The host model: near the truth, but not too near."""

import numpy as np
import pytest

from weather_forecast.lam.host import NUDGING_TIME, HostModel, smooth_orography
from weather_forecast.lam.solver import Flow, FlowParameters, QuasiGeostrophicFlow, Truncation
from weather_forecast.lam.surface import PEAK, make_orography

TRUTH = FlowParameters(n=48, time_step=360.0)


@pytest.fixture(scope="module")
def truth() -> QuasiGeostrophicFlow:
    orography = make_orography(48).astype(np.float32)
    flow = QuasiGeostrophicFlow.random(TRUTH, np.random.default_rng(0), orography)
    for _ in range(20):
        flow.step()
    return flow


def advance(truth: QuasiGeostrophicFlow, host: HostModel, steps: int) -> None:
    for _ in range(steps):
        truth.step()
        truth.step()
        host.step()


def copy(flow: QuasiGeostrophicFlow) -> QuasiGeostrophicFlow:
    orography = make_orography(flow.parameters.n).astype(np.float32)
    return QuasiGeostrophicFlow(flow.parameters, orography, flow.potential_vorticity)


def test_host_has_half_the_resolution_and_starts_from_what_it_resolves(truth):
    host = HostModel(truth, make_orography(48).astype(np.float32))
    assert (host.flow.parameters.n, host.flow.parameters.time_step) == (24, 720.0)
    assert host.flow.potential_vorticity.dtype == np.complex64
    coarse, fine = host.flow.truncation, truth.truncation
    both = [np.abs(flow.potential_vorticity[0, 0, 1:8]) / flow.truncation.n for flow in (truth, host.flow)]
    np.testing.assert_allclose(both[0], both[1], rtol=1e-6)
    np.testing.assert_allclose(host.diagnose().psi[:, ::2, ::2], host.flow.diagnose().psi, rtol=2e-4, atol=50)
    assert host.diagnose().u.shape == (2, 48, 48)
    assert coarse.half < fine.half


def test_orography_of_the_host_is_smooth_and_above_the_sea():
    fine, coarse = (Truncation(FlowParameters(n=n)) for n in (96, 48))
    orography = make_orography(96).astype(np.float32)
    smooth = smooth_orography(orography, fine, coarse)
    assert smooth.shape == (48, 48)
    assert smooth.min() == 0
    assert 0.6 * PEAK < smooth.max() < PEAK
    assert np.corrcoef(smooth.ravel(), orography[::2, ::2].ravel())[0, 1] > 0.95
    # it loses the small scales alone
    assert smooth.mean() == pytest.approx(orography.mean(), rel=0.1)


def test_with_strong_nudging_of_all_waves_the_host_is_the_truncated_truth(truth):
    flow = copy(truth)
    host = HostModel(flow, make_orography(48).astype(np.float32), nudged_waves=100, nudging_time=720.0)
    advance(flow, host, 10)
    target = host.flow.truncation.from_other(flow.potential_vorticity, flow.truncation)
    np.testing.assert_allclose(host.flow.potential_vorticity, target, atol=1e-6 * np.abs(target).max())


def test_only_large_scales_are_nudged(truth):
    flow, free_truth = copy(truth), copy(truth)
    host = HostModel(flow, make_orography(48).astype(np.float32))
    free = HostModel(free_truth, make_orography(48).astype(np.float32), nudged_waves=-1)
    flow.potential_vorticity *= np.float32(1.5)
    advance(flow, host, 1)
    advance(free_truth, free, 1)
    large = host.flow.truncation.index2 <= 16
    change = host.flow.potential_vorticity - free.flow.potential_vorticity
    assert (change[:, ~large] == 0).all()
    target = host.flow.truncation.from_other(flow.potential_vorticity, flow.truncation)
    expected = 720.0 / NUDGING_TIME * (target - free.flow.potential_vorticity)
    np.testing.assert_allclose(change[:, large], expected[:, large], atol=1e-4 * np.abs(expected).max())


def test_host_is_reproducible(truth):
    runs = []
    for _ in range(2):
        flow = copy(truth)
        host = HostModel(flow, make_orography(48).astype(np.float32))
        advance(flow, host, 20)
        runs.append(host.diagnose())
    np.testing.assert_array_equal(runs[0].u, runs[1].u)
    assert isinstance(runs[0], Flow)
