"""The quasi-geostrophic solver against analytic solutions, conservation laws and balances."""

from dataclasses import replace

import numpy as np
import pytest

from weather_forecast.lam.solver import (
    GAS_CONSTANT,
    GRAVITY,
    LEVELS,
    FlowParameters,
    IsobaricFields,
    QuasiGeostrophicFlow,
    Truncation,
)

DAY = 86400.0
# neither friction nor relaxation nor filter, in double precision
IDEAL = FlowParameters(
    n=64, time_step=225.0, mean_wind=(0.0, 0.0), ekman_time=None, thermal_time=None, filter_time=None, dtype="float64"
)


def run(flow: QuasiGeostrophicFlow, days: float) -> QuasiGeostrophicFlow:
    for _ in range(round(days * DAY / flow.parameters.time_step)):
        flow.step()
    return flow


def single_wave(parameters: FlowParameters, wave: int, upper: complex, lower: complex) -> QuasiGeostrophicFlow:
    """A flow whose potential vorticity is one wave along x."""
    flow = QuasiGeostrophicFlow(parameters)
    flow.potential_vorticity[:, 0, wave] = upper, lower
    return flow


# (i) conservation


@pytest.fixture(scope="module")
def drifts() -> dict[float, tuple[float, float]]:
    """Relative change of energy and enstrophy in five days, by time step."""
    result = {}
    for time_step in (225.0, 112.5):
        parameters = replace(IDEAL, time_step=time_step, beta=0.0)
        flow = QuasiGeostrophicFlow.random(parameters, np.random.default_rng(1))
        assert flow.diagnose().v.std() == pytest.approx(15.0)
        energy, enstrophy = flow.energy(), flow.enstrophy()
        run(flow, 5)
        result[time_step] = (abs(flow.energy() / energy - 1), abs(flow.enstrophy() / enstrophy - 1))
    return result


def test_energy_and_enstrophy_are_conserved(drifts):
    energy, enstrophy = drifts[225.0]
    assert 1e-6 < energy < 6e-4
    assert 1e-5 < enstrophy < 1.1e-2


def test_drift_is_of_third_order_in_the_time_step(drifts):
    for coarse, fine in zip(drifts[225.0], drifts[112.5], strict=True):
        assert 6.5 < coarse / fine < 9


def test_layers_exchange_enstrophy_on_the_beta_plane_but_keep_its_sum():
    flow = QuasiGeostrophicFlow.random(replace(IDEAL, time_step=112.5), np.random.default_rng(1))

    def layers() -> np.ndarray:
        return flow.truncation.mean_square(flow.potential_vorticity)

    before = layers()
    run(flow, 2)
    assert layers().sum() == pytest.approx(before.sum(), rel=1e-3)
    assert abs(layers()[0] / before[0] - 1) > 1e-2


def test_energy_is_conserved_over_orography_and_the_tendencies_say_so():
    rng = np.random.default_rng(2)
    orography = 500 * rng.random((64, 64))
    flow = QuasiGeostrophicFlow.random(IDEAL, rng, orography)
    tendency = flow.tendency(flow.potential_vorticity)
    psi = flow.invert(flow.potential_vorticity)
    cut = flow.truncation
    # dE/dt = -<psi_0 dq_0/dt + psi_1 dq_1/dt>
    work = (cut.to_grid(psi) * cut.to_grid(tendency)).mean()
    size = np.abs(cut.to_grid(psi) * cut.to_grid(tendency)).mean()
    assert abs(work) < 1e-12 * size
    assert np.abs(tendency[:, 0, 0]).max() == 0  # potential vorticity has no source


# (ii) baroclinic instability


def growth_rate(wave: int, parameters: FlowParameters) -> float:
    """Largest growth rate of one wave along x, s-1: eigenvalues of -ik (U + Q A) where psi = A q."""
    k, F = 2 * np.pi / parameters.length * wave, parameters.coupling
    inversion = np.linalg.inv([[-(k**2) - F, F], [F, -(k**2) - F]])
    matrix = -1j * k * (np.diag(parameters.mean_wind) + np.diag(parameters.vorticity_gradient) @ inversion)
    return float(np.linalg.eigvals(matrix).real.max())


@pytest.mark.parametrize(("wave", "expected"), [(3, 5.2815e-6), (2, 4.970e-6)])
def test_linear_growth_is_that_of_the_eigenproblem(wave, expected):
    parameters = replace(IDEAL, n=16, mean_wind=(15.0, 4.0))
    analytic = growth_rate(wave, parameters)
    assert analytic == pytest.approx(expected, rel=1e-4)
    flow = run(single_wave(parameters, wave, 1e-12, -1e-12j), 25)
    start = np.abs(flow.potential_vorticity[0, 0, wave])
    run(flow, 5)
    numerical = np.log(np.abs(flow.potential_vorticity[0, 0, wave]) / start) / (5 * DAY)
    assert abs(numerical / analytic - 1) < 1e-6


def test_weak_shear_is_neutral():
    critical = IDEAL.beta / IDEAL.coupling
    assert critical == pytest.approx(3.92)
    waves = range(1, 12)
    below, above = (replace(IDEAL, mean_wind=(4 + factor * critical, 4.0)) for factor in (0.99, 1.2))
    assert max(growth_rate(wave, below) for wave in waves) < 1e-12
    assert max(growth_rate(wave, above) for wave in waves) > 1e-7
    flow = single_wave(replace(below, n=16), 2, 1e-12, -1e-12j)
    sizes = [np.abs(run(flow, 2).potential_vorticity[:, 0, 2]).max() for _ in range(15)]
    assert max(sizes) < 4e-12


# (iii) Rossby waves


def test_barotropic_rossby_wave_moves_with_its_phase_speed():
    parameters = replace(IDEAL, n=16, mean_wind=(10.0, 10.0))
    k = 2 * np.pi / 4.0e6
    expected = 10 - parameters.beta / k**2
    assert expected == pytest.approx(3.515, abs=5e-4)
    flow = single_wave(parameters, 2, 1e-5, 1e-5)
    phases = []
    for _ in range(8):
        run(flow, 0.25)
        phases.append(np.angle(flow.potential_vorticity[:, 0, 2]))
    turned = np.unwrap(phases, axis=0)
    speed = -(turned[-1] - turned[0]) / (7 * 0.25 * DAY) / k
    np.testing.assert_allclose(speed, expected, rtol=1e-5)
    np.testing.assert_allclose(np.abs(flow.potential_vorticity[:, 0, 2]), 1e-5, rtol=1e-6)


# Terms one by one


def test_flow_over_orography_starts_with_the_stretching_of_the_lower_layer():
    parameters = replace(IDEAL, mean_wind=(15.0, 4.0))
    x = np.arange(64) * parameters.spacing
    k = 2 * np.pi * 3 / parameters.length
    orography = np.broadcast_to(300 * np.sin(k * x), (64, 64))
    flow = QuasiGeostrophicFlow(parameters, orography)
    tendency = flow.truncation.to_grid(flow.tendency(flow.potential_vorticity))
    expected = -4.0 * 1e-4 * 300 / 5000 * k * np.cos(k * x)
    np.testing.assert_allclose(tendency[0], 0, atol=1e-25)
    np.testing.assert_allclose(tendency[1], np.broadcast_to(expected, (64, 64)), atol=1e-12 * np.abs(expected).max())


def test_friction_slows_the_lower_layer_alone_and_relaxation_the_shear_alone():
    ideal = replace(IDEAL, n=16, beta=0.0)
    for friction, psi in (
        ({"ekman_time": DAY}, (1.0, 1.0)),
        ({"ekman_time": DAY}, (0.0, 1.0)),
        ({"thermal_time": 15 * DAY}, (1.0, -1.0)),
        ({"thermal_time": 15 * DAY}, (1.0, 1.0)),
    ):
        parameters = replace(ideal, **friction)
        flow = QuasiGeostrophicFlow(parameters)
        streamfunction = np.zeros_like(flow.potential_vorticity)
        streamfunction[:, 1, 2] = psi
        k2, F = flow.truncation.k2[1, 2], parameters.coupling
        tendency = flow.tendency(flow.vorticity_of(streamfunction))[:, 1, 2]
        difference = psi[0] - psi[1]
        if "ekman_time" in friction:
            expected = [0, k2 * psi[1] / DAY]
        else:
            expected = [F * difference / (15 * DAY), -F * difference / (15 * DAY)]
        np.testing.assert_allclose(tendency, expected, atol=1e-12 * k2 / DAY)


def test_energy_only_falls_by_friction_and_relaxation():
    parameters = replace(IDEAL, n=48, ekman_time=DAY, thermal_time=15 * DAY, filter_time=5400.0, dtype="float32")
    flow = QuasiGeostrophicFlow.random(parameters, np.random.default_rng(0))
    energies = [flow.energy(), *(run(flow, 0.5).energy() for _ in range(8))]
    assert (np.diff(energies) < 0).all()


def test_filter_damps_the_truncation_wavenumber_in_its_time_and_spares_large_scales():
    flow = QuasiGeostrophicFlow(replace(IDEAL, n=96, filter_time=5400.0))
    cut = flow.truncation
    steps = 5400.0 / 225.0
    damping = -np.log(flow._filter[0]) * steps
    np.testing.assert_allclose(damping, (cut.kx[0] / cut.cut) ** 8, rtol=1e-9, atol=1e-12)
    assert cut.cut == pytest.approx(2 / 3 * np.pi / flow.parameters.spacing)
    assert damping[31] == pytest.approx((31 / 32) ** 8)
    assert damping[4] < 1e-6


# Space


def test_truncation_is_two_thirds_and_products_do_not_alias():
    cut = Truncation(replace(IDEAL, n=96))
    assert (cut.half, cut.kept.shape) == (32, (96, 32))
    assert cut.kept.sum() == 63 * 32
    x = 2 * np.pi * np.arange(96) / 96
    product = np.broadcast_to(np.cos(31 * x) * np.cos(30 * x), (96, 96))  # waves 1 and 61, which looks like 35
    spectrum = cut.to_spectrum(product)
    expected = np.broadcast_to(np.cos(x) / 2, (96, 96))
    np.testing.assert_allclose(cut.to_grid(spectrum), expected, atol=1e-12)


def test_spectrum_keeps_the_mean_square_and_the_type():
    rng = np.random.default_rng(0)
    for dtype in ("float32", "float64"):
        cut = Truncation(replace(IDEAL, n=48, dtype=dtype))
        field = cut.to_grid(cut.to_spectrum(rng.standard_normal((2, 48, 48)).astype(dtype)))
        assert field.dtype == dtype
        assert cut.to_spectrum(field).dtype == np.result_type(dtype, np.complex64)
        np.testing.assert_allclose(cut.mean_square(cut.to_spectrum(field)), (field**2).mean((1, 2)), rtol=1e-5)


def test_a_finer_grid_has_the_same_values_at_common_points():
    coarse, fine = (Truncation(replace(IDEAL, n=n)) for n in (32, 96))
    field = coarse.to_grid(coarse.to_spectrum(np.random.default_rng(0).standard_normal((32, 32))))
    spectrum = fine.from_other(coarse.to_spectrum(field), coarse)
    np.testing.assert_allclose(fine.to_grid(spectrum)[::3, ::3], field, atol=1e-12)
    np.testing.assert_allclose(coarse.to_grid(coarse.from_other(spectrum, fine)), field, atol=1e-12)


def test_inversion_undoes_the_definition_of_potential_vorticity():
    flow = QuasiGeostrophicFlow.random(replace(IDEAL, dtype="float64"), np.random.default_rng(3))
    psi = flow.invert(flow.potential_vorticity)
    np.testing.assert_allclose(flow.vorticity_of(psi), flow.potential_vorticity, atol=1e-18)
    assert (psi[:, 0, 0] == 0).all()


def test_random_start_has_its_waves_around_wavenumber_four():
    flow = QuasiGeostrophicFlow.random(FlowParameters(), np.random.default_rng(0))
    cut = flow.truncation
    assert np.sqrt((flow.diagnose().v.astype(float) ** 2).mean()) == pytest.approx(15.0, rel=1e-4)
    power = (np.abs(flow.invert(flow.potential_vorticity)) ** 2).sum(0)
    total = np.sqrt(cut.index2)
    assert power[(total > 2) & (total < 6)].sum() > 0.8 * power.sum()
    assert power[total > 9].sum() < 1e-3 * power.sum()


# (v) balance


def test_wind_is_geostrophic_on_every_level():
    parameters = replace(IDEAL, mean_wind=(15.0, 4.0))
    flow = run(QuasiGeostrophicFlow.random(parameters, np.random.default_rng(0)), 0.5)
    cut, f = flow.truncation, parameters.coriolis
    fields = IsobaricFields(parameters, np.zeros((64, 64)))(flow.diagnose())
    for level in range(3):
        u, v, z = (fields[name][..., level] for name in "uvz")
        mean = u.mean()
        spectrum = cut.to_spectrum(z + f * mean * parameters.y)  # the mean wind's slope is not periodic
        dz_dx, dz_dy = cut.to_grid(1j * cut.kx * spectrum), cut.to_grid(1j * cut.ky * spectrum)
        np.testing.assert_allclose(v, dz_dx / f, atol=1e-8)
        np.testing.assert_allclose(u - mean, -dz_dy / f, atol=1e-8)
    np.testing.assert_allclose(fields["u"].mean((0, 1)), [15.0, 0.4336 * 15 + 0.5664 * 4, 4.0], atol=1e-3)


def test_flow_has_no_divergence():
    flow = run(QuasiGeostrophicFlow.random(IDEAL, np.random.default_rng(0)), 0.1)
    cut, wind = flow.truncation, flow.diagnose()
    divergence = cut.to_grid(1j * cut.kx * cut.to_spectrum(wind.u) + 1j * cut.ky * cut.to_spectrum(wind.v))
    assert np.abs(divergence).max() < 1e-16


def test_temperature_is_hydrostatic_between_the_levels():
    parameters = replace(IDEAL, mean_wind=(15.0, 4.0))
    orography = np.zeros((64, 64))
    orography[3, 5] = 1000.0
    isobaric = IsobaricFields(parameters, orography)
    flow = QuasiGeostrophicFlow.random(parameters, np.random.default_rng(0)).diagnose()
    fields = isobaric(flow)
    assert LEVELS == (250, 500, 850)
    thickness = fields["z"][..., 0] - fields["z"][..., 2] - GRAVITY * (10360 - 1457)
    t500 = fields["t"][..., 1]
    np.testing.assert_allclose(t500 - 252, thickness / (GAS_CONSTANT * np.log(850 / 250)), atol=1e-9)
    np.testing.assert_allclose(fields["t"][..., 0], 222 + 0.4 * (t500 - 252))
    np.testing.assert_allclose(fields["t"][..., 2] - 278 - (t500 - 252), -0.6 * 6.5e-3 * orography, atol=1e-10)
    # thermal wind: colder to the north, where the westerlies grow with height
    assert isobaric.background_temperature[0, 0] > 0 > isobaric.background_temperature[-1, 0]
    assert isobaric.background_temperature[32, 0] == 0
    np.testing.assert_allclose(
        isobaric.temperature_anomaly(flow) + isobaric.background_temperature, t500 - 252, atol=1e-12
    )


# Numbers and types


def test_derived_numbers():
    parameters = FlowParameters()
    assert parameters.coupling == pytest.approx(1 / (2 * 350e3**2))
    assert parameters.spacing == pytest.approx(83333.3, abs=0.1)
    upper, lower = parameters.vorticity_gradient
    assert upper - lower == pytest.approx(2 * parameters.coupling * 11)
    assert (upper + lower) / 2 == pytest.approx(1.6e-11)
    assert lower < 0 < upper  # unstable
    assert parameters.stable_wind == pytest.approx(165, abs=1)
    assert replace(parameters, time_step=225.0).stable_wind == pytest.approx(132, abs=1)


def test_scheme_is_stable_up_to_the_stated_wind():
    for factor, grows in ((0.98, False), (1.04, True)):
        given = replace(IDEAL, n=48, beta=0.0)
        given = replace(given, mean_wind=(factor * given.stable_wind,) * 2)
        flow = single_wave(given, 15, 1e-10, 1e-10)
        run(flow, 4)
        assert (np.abs(flow.potential_vorticity[0, 0, 15]) > 1e-10) == grows


# (vi) determinism


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_seed_same_flow_and_type_is_kept(dtype):
    def state(seed: int) -> np.ndarray:
        parameters = FlowParameters(n=24, time_step=720.0, dtype=dtype)
        return run(QuasiGeostrophicFlow.random(parameters, np.random.default_rng(seed)), 1).potential_vorticity

    first = state(0)
    assert first.dtype == np.result_type(dtype, np.complex64)
    np.testing.assert_array_equal(first, state(0))
    assert np.abs(first - state(1)).max() > 1e-6
    assert np.isfinite(first).all()


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"orography has shape \(32, 64\), the flow's grid is \(64, 64\)"):
        QuasiGeostrophicFlow(IDEAL, np.zeros((32, 64)))
    with pytest.raises(ValueError, match=r"potential vorticity has shape \(2, 64, 33\), expected \(2, 64, 22\)"):
        QuasiGeostrophicFlow(IDEAL, potential_vorticity=np.zeros((2, 64, 33), complex))
