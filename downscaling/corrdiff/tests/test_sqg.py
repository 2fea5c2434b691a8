"""The turbulence: conservation, exact solutions and the spectrum."""

import numpy as np
import pytest

from downscaling.corrdiff.sqg import CORIOLIS, KELVIN, LIFT_HEIGHT, SPACING, STABILITY, Driving, SurfaceQG

SPEED = 5.5  # m/s


def smooth_state(model: SurfaceQG, seed: int = 1) -> np.ndarray:
    """A state that the grid of 64 points resolves well."""
    w = model.start(np.random.default_rng(seed)) * np.exp(-((model.index / 10) ** 4))
    return w * (SPEED / np.sqrt(model.variance(w)))


def invariants(model: SurfaceQG, w: np.ndarray) -> np.ndarray:
    """Means of w, w² and w psi."""
    field = model.to_grid(w)
    return np.array([field.mean(), np.mean(field**2), np.mean(field * model.streamfunction(w))])


@pytest.fixture(scope="module")
def double() -> SurfaceQG:
    return SurfaceQG(64, precision=np.float64)


@pytest.fixture(scope="module")
def coordinates() -> tuple[np.ndarray, np.ndarray]:
    """Places (n, n) in radians around the square, to the east and to the north."""
    y, x = np.meshgrid(*(2 * np.pi * np.arange(64) / 64,) * 2, indexing="ij")
    return x, y


# Conservation


def drift(step: float) -> np.ndarray:
    """Relative change of <w²> and <w psi> in six hours."""
    model = SurfaceQG(64, step, np.float64)
    w = smooth_state(model)
    before = invariants(model, w)
    for _ in range(round(6 * 3600 / step)):
        w = model.advect(w)
    after = invariants(model, w)
    assert abs(after[0] - before[0]) < 1e-15
    return np.abs(after / before - 1)[1:]


def test_energy_and_pseudo_energy_are_conserved_as_the_step_gets_small():
    coarse, fine = drift(120.0), drift(60.0)
    assert (coarse < [1e-4, 1e-5]).all()
    # the error of a Runge-Kutta step's amplitude is of the fifth order, so that of a time is 2^5 times smaller
    assert (coarse / fine > 20).all()
    assert (coarse / fine < 40).all()


def test_advection_neither_makes_nor_destroys_anything_at_one_time(double):
    w = smooth_state(double)
    rate = double.to_grid(double.tendency(w))
    assert abs(rate.mean()) < 1e-18
    for weight in (double.to_grid(w), double.streamfunction(w)):
        assert abs(np.mean(weight * rate)) < 1e-12 * np.sqrt(np.mean(weight**2) * np.mean(rate**2))


def test_no_wave_is_aliased(double):
    w = double.start(np.random.default_rng(0))
    assert not double.tendency(w)[~double.kept].any()
    larger = SurfaceQG(128, precision=np.float64)
    # the same waves in a square of twice the side: winds are the same, gradients half
    wide = np.zeros(larger.index.shape, complex)
    rows = np.r_[0:22, -21:0]
    wide[rows, :22] = w[rows]
    expected = larger.tendency(wide)[rows, :22] * double.kept[rows]
    np.testing.assert_allclose(double.tendency(w)[rows], 2 * expected, atol=1e-15)


# Exact solutions


@pytest.mark.parametrize("wave", [(3, 0), (0, 5), (-7, 2), (20, 21)])
def test_a_single_wave_does_not_change(double, coordinates, wave):
    x, y = coordinates
    w = double.to_spectrum(6 * np.cos(wave[0] * y + wave[1] * x + 0.3))
    assert double.variance(w) == pytest.approx(18)
    assert np.abs(double.tendency(w)).max() < 1e-17


def test_two_waves_change_as_computed_by_hand(double, coordinates):
    x, y = coordinates
    unit = 2 * np.pi / (64 * SPACING)
    a, b = 2 * unit, 3 * unit
    # psi = P cos(a x) + Q cos(b y), w = a P cos(a x) + b Q cos(b y)
    size = np.array([4e4, 3e4])
    w = double.to_spectrum(a * size[0] * np.cos(2 * x) + b * size[1] * np.cos(3 * y))
    u, v = double.velocity(w)
    np.testing.assert_allclose(double.streamfunction(w), size[0] * np.cos(2 * x) + size[1] * np.cos(3 * y), atol=1e-9)
    np.testing.assert_allclose(u, b * size[1] * np.sin(3 * y), atol=1e-13)
    np.testing.assert_allclose(v, -a * size[0] * np.sin(2 * x), atol=1e-13)
    # J(psi, w) = dpsi/dx dw/dy - dpsi/dy dw/dx
    jacobian = a * b * size.prod() * (b - a) * np.sin(2 * x) * np.sin(3 * y)
    np.testing.assert_allclose(double.to_grid(double.tendency(w)), -jacobian, atol=1e-15)
    # the pattern that both make reaches higher than they do together, and rises where J > 0
    total = np.hypot(a, b)
    decay = [np.exp(-k * STABILITY / CORIOLIS * LIFT_HEIGHT) for k in (a, b, total)]
    assert decay[2] > decay[0] * decay[1]
    np.testing.assert_allclose(double.lift(w), 0.12 * np.sin(2 * x) * np.sin(3 * y), atol=1e-12)


def test_wind_has_the_size_of_w_and_no_divergence(double):
    w = double.start(np.random.default_rng(2))
    u, v = double.velocity(w)
    assert np.mean(u**2 + v**2) == pytest.approx(np.mean(double.to_grid(w) ** 2), rel=1e-12)
    assert np.mean(double.to_grid(w) ** 2) == pytest.approx(double.variance(w), rel=1e-12) == pytest.approx(49)
    divergence = double.kx * double.to_spectrum(u) + double.ky * double.to_spectrum(v)
    vorticity = double.kx * double.to_spectrum(v) - double.ky * double.to_spectrum(u)
    assert np.abs(divergence).max() < 1e-14 * np.abs(vorticity).max()


def test_a_uniform_wind_carries_the_state_along_unchanged(double):
    w = double.start(np.random.default_rng(3))
    field = double.to_grid(w)
    moved = double.to_grid(double.shift(w, 3 * SPACING, -5 * SPACING))
    np.testing.assert_allclose(moved, np.roll(field, (-5, 3), axis=(0, 1)), atol=1e-12)
    halves = double.shift(double.shift(w, 0.3 * SPACING, 64.8 * SPACING), 0.7 * SPACING, 0.2 * SPACING)
    np.testing.assert_allclose(double.to_grid(halves), np.roll(field, (1, 1), axis=(0, 1)), atol=1e-11)
    # and neither knows of the other
    np.testing.assert_allclose(
        double.advect(double.shift(w, 1e4, 2e3)), double.shift(double.advect(w), 1e4, 2e3), atol=1e-13
    )


def test_temperature_is_in_proportion_to_w(double):
    w = smooth_state(double)
    assert pytest.approx(0.3058, abs=5e-5) == KELVIN
    np.testing.assert_allclose(double.temperature(w), KELVIN * double.to_grid(w), rtol=1e-12)


# Forcing and damping


def growth(model: SurfaceQG, w: np.ndarray, wave: tuple[int, int]) -> float:
    """What forcing and damping make of a wave's amplitude in one step."""
    ratio = model.step(w, np.random.default_rng(0))[wave] / model.advect(w)[wave]
    assert abs(ratio.imag) < 1e-9
    return ratio.real


def test_damping_of_a_step():
    model = SurfaceQG(64, precision=np.float64)
    w = model.start(np.random.default_rng(0))
    assert growth(model, w, (0, 1)) == pytest.approx(np.exp(-150 / (12 * 3600)), rel=1e-9)
    for wave in ((0, 6), (21, 21)):
        expected = 10 ** (-0.25 * (np.hypot(*wave) / (64 / 3)) ** 8)
        assert growth(model, w, wave) == pytest.approx(expected, rel=1e-6)


def test_kicks_are_of_the_forced_waves_only_and_of_the_right_size():
    model = SurfaceQG(64, precision=np.float64)
    still = SurfaceQG(64, precision=np.float64, driving=Driving(kick=0.0))
    w = smooth_state(model)
    rng = np.random.default_rng(0)
    kicks = np.stack([model.step(w, rng) - still.step(w, rng) for _ in range(400)])
    band = (model.index >= 2) & (model.index <= 4)
    assert not kicks[:, ~band].any()
    forced = np.sqrt(np.mean(np.abs(still.step(w, rng)[band]) ** 2))
    expected = 0.7 * forced * np.sqrt(150 / (6 * 3600))
    # waves along the columns are their own mirror images: half of what would make them complex is left out
    inner = band & (model.kx > 0)
    assert np.sqrt(np.mean(np.abs(kicks[:, inner]) ** 2) / 2) == pytest.approx(expected, rel=0.02)
    edge = np.sqrt(np.mean(np.abs(kicks[:, band & (model.kx == 0)]) ** 2))
    assert edge == pytest.approx(expected, rel=0.05)
    # all states are real fields
    field = model.to_grid(w + kicks[0])
    np.testing.assert_allclose(model.to_spectrum(field), w + kicks[0], atol=1e-14)


def test_a_flow_that_is_too_slow_gets_faster():
    model = SurfaceQG(64, precision=np.float64, driving=Driving(kick=0.0))
    w = smooth_state(model) / 2
    lack = 1 - SPEED / 2 / 7
    assert growth(model, w, (0, 3)) == pytest.approx(1 + 150 / 7200 * lack, rel=1e-4)


def test_single_precision_is_enough():
    rng = np.random.default_rng(0)
    single, double = SurfaceQG(64), SurfaceQG(64, precision=np.float64)
    w = smooth_state(double)
    low = single.step(w.astype(np.complex64), rng)
    assert low.dtype == np.complex64
    assert single.to_grid(low).dtype == np.float32
    np.testing.assert_allclose(low, double.step(w, np.random.default_rng(0)), atol=3e-6)


def test_developed_turbulence_has_the_spectrum_of_the_mesoscale():
    model, rng = SurfaceQG(256), np.random.default_rng(0)
    w = model.start(rng)
    power, states = np.zeros(model.index.shape), 0
    for step in range(624):
        w = model.step(w, rng)
        if step >= 432 and step % 48 == 0:
            u, v = model.velocity(w)
            assert 6 < np.sqrt(np.mean(u**2 + v**2)) < 9.5
            power += np.abs(model.to_spectrum(u)) ** 2 + np.abs(model.to_spectrum(v)) ** 2
            states += 1
    assert states == 4
    # columns but the first one stand for their mirror images as well; of 128 to 16 km
    power[:, 1:] *= 2
    energy = np.bincount(np.rint(model.index).astype(int).ravel(), power.ravel())
    waves = np.arange(6, 49)
    slope = np.polyfit(np.log(waves), np.log(energy[waves]), 1)[0]
    assert -2.2 < slope < -5 / 3
    # nothing piles up at the truncation
    assert energy[84] < 0.1 * energy[64]
