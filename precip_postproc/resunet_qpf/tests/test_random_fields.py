"""Gaussian fields on the periodic grid."""

import numpy as np
import pytest

from precip_postproc.resunet_qpf.latent import LARGE_SCALE, SMALL_SCALE, LatentFields
from precip_postproc.resunet_qpf.periodic import PeriodicGrid
from precip_postproc.resunet_qpf.random_fields import MaternField, Stream, blend, make_rng
from precip_postproc.resunet_qpf.regime import BLOCK, RegimeSeries, step_of

GRID = PeriodicGrid()
TINY = PeriodicGrid.tiny()


def draws(grid: PeriodicGrid, scale: tuple[float, float], count: int) -> list[np.ndarray]:
    field, rng = MaternField(grid, *scale), np.random.default_rng(0)
    return [field.draw(rng) for _ in range(count)]


# Grid


def test_the_rectangle_lies_in_the_square():
    field = np.arange(256 * 256.0).reshape(256, 256)
    assert GRID.crop(field).shape == GRID.shape == (128, 160)
    assert GRID.crop(field)[0, 0] == 48 * 256 + 48
    assert (GRID.length, TINY.length) == (1024.0, 1024.0)
    assert GRID.first * GRID.spacing == TINY.first * TINY.spacing
    with pytest.raises(ValueError, match="255 points per side, which must be even"):
        PeriodicGrid(n=255)
    with pytest.raises(ValueError, match="128 x 160 points from row and column 100 do not fit into 256"):
        PeriodicGrid(first=100)


def test_transforms_are_inverse_and_wavenumbers_are_in_radians_per_km():
    x = GRID.spacing * np.arange(256)
    wave = np.cos(2 * np.pi * 3 * x / 1024)[None] * np.sin(2 * np.pi * 5 * x / 1024)[:, None]
    spectrum = GRID.to_spectrum(wave)
    np.testing.assert_allclose(GRID.to_grid(spectrum), wave, atol=1e-14)
    strongest = np.unravel_index(np.abs(spectrum).argmax(), spectrum.shape)
    assert GRID.k2[strongest] == pytest.approx((3**2 + 5**2) * (2 * np.pi / 1024) ** 2)
    assert np.abs(spectrum).max() == pytest.approx(0.25)


def test_smoothing_damps_a_wave_as_a_gaussian_does():
    x = GRID.spacing * np.arange(256)
    wave = 7 + np.tile(np.cos(2 * np.pi * 16 * x / 1024), (256, 1))
    expected = 7 + (wave - 7) * np.exp(-0.5 * (2 * np.pi * 16 / 1024 * 10) ** 2)
    np.testing.assert_allclose(GRID.smooth(wave, 10.0), expected, atol=1e-12)


# Shift


def test_shift_by_whole_points_is_exact():
    spectrum = draws(GRID, SMALL_SCALE, 1)[0]
    field = GRID.to_grid(spectrum)
    moved = GRID.to_grid(spectrum * GRID.phase(3 * GRID.spacing, -5 * GRID.spacing))
    np.testing.assert_allclose(moved, np.roll(field, (-5, 3), axis=(0, 1)), atol=2e-5)


def test_shifts_by_parts_of_a_point_add_up_and_keep_the_variance():
    spectrum = draws(GRID, SMALL_SCALE, 1)[0]
    half = spectrum * GRID.phase(1.3, 0.7)
    assert GRID.to_grid(half).var() == pytest.approx(GRID.to_grid(spectrum).var(), rel=1e-5)
    whole = GRID.to_grid(half * GRID.phase(2.7, 3.3))
    np.testing.assert_allclose(whole, np.roll(GRID.to_grid(spectrum), (1, 1), axis=(0, 1)), atol=2e-5)


# Variance and spectrum


@pytest.mark.parametrize("grid", [GRID, TINY])
@pytest.mark.parametrize(("scale", "tolerance"), [(LARGE_SCALE, 0.08), (SMALL_SCALE, 0.015)])
def test_fields_have_mean_zero_and_variance_one_at_every_point(grid, scale, tolerance):
    fields = np.stack([grid.to_grid(s) for s in draws(grid, scale, 60)])
    assert fields.dtype == np.float32
    np.testing.assert_allclose(fields.mean(axis=(1, 2)), 0, atol=1e-5)
    assert fields.var() == pytest.approx(1.0, abs=tolerance)
    amplitude = MaternField(grid, *scale).amplitude.astype(float) ** 2
    assert 2 * amplitude.sum() - amplitude[:, 0].sum() == pytest.approx(1.0, rel=1e-6)
    # neither lines nor columns are special
    assert fields.var(axis=(0, 1)) == pytest.approx(1.0, abs=12 * tolerance)
    assert fields.var(axis=(0, 2)) == pytest.approx(1.0, abs=12 * tolerance)


def test_amplitudes_are_those_of_a_real_field_of_the_same_variance():
    for spectrum in draws(GRID, SMALL_SCALE, 3):
        field = GRID.to_grid(spectrum)
        np.testing.assert_allclose(GRID.to_spectrum(field), spectrum, atol=1e-8)
        power = np.abs(spectrum.astype(complex)) ** 2
        assert 2 * power.sum() - power[:, 0].sum() == pytest.approx(field.var(), rel=1e-4)


@pytest.mark.parametrize(("scale", "slope"), [(LARGE_SCALE, -5.0), (SMALL_SCALE, -4.0)])
def test_spectrum_falls_with_the_power_of_the_smoothness(scale, slope):
    power = np.mean([np.abs(s.astype(complex)) ** 2 for s in draws(GRID, scale, 30)], axis=0)
    k = np.sqrt(GRID.k2)
    high = (k * scale[0] > 5) & GRID.resolved & (k < 0.7)
    # (1 + (k l)²) is the base of the power
    fit = np.polyfit(np.log(1 + (k[high] * scale[0]) ** 2), np.log(power[high]), 1)
    assert 2 * fit[0] == pytest.approx(slope, abs=0.1)
    # and its place: from the longest wave to the one of length 2 π l
    at = np.searchsorted(k[0], 1 / scale[0])
    expected = ((1 + (k[0, at] * scale[0]) ** 2) / (1 + (k[0, 1] * scale[0]) ** 2)) ** (slope / 2)
    assert power[:3, at].mean() / power[:3, 1].mean() == pytest.approx(expected, rel=0.5)
    amplitude = MaternField(GRID, *scale).amplitude.astype(float) ** 2
    assert amplitude[0, at] / amplitude[0, 1] == pytest.approx(expected, rel=1e-5)


# Correlation


@pytest.mark.parametrize("correlation", [0.97, 0.35, 0.0])
def test_blended_fields_have_the_correlation_and_keep_the_variance(correlation):
    spectra = draws(GRID, SMALL_SCALE, 40)
    pairs = [(a, blend(a, b, correlation)) for a, b in zip(spectra[::2], spectra[1::2], strict=True)]
    fields = np.array([[GRID.to_grid(a), GRID.to_grid(b)] for a, b in pairs]).swapaxes(0, 1).reshape(2, -1)
    assert np.corrcoef(fields)[0, 1] == pytest.approx(correlation, abs=0.015)
    assert fields[1].var() == pytest.approx(1.0, abs=0.03)


def test_random_numbers_belong_to_stream_and_key():
    first = make_rng(1, Stream.LATENT, 5).random(3)
    np.testing.assert_array_equal(first, make_rng(1, Stream.LATENT, 5).random(3))
    for other in (make_rng(2, Stream.LATENT, 5), make_rng(1, Stream.REGIME, 5), make_rng(1, Stream.LATENT, 6)):
        assert not np.isin(other.random(3), first).any()


# Evolution


def test_latent_fields_move_with_the_wind_and_are_renewed():
    regimes = RegimeSeries(seed=3)
    fields = LatentFields(TINY, 3, regimes)
    step = step_of(np.datetime64("2025-11-03"))
    start = step - step % BLOCK  # little to compute
    large, small, still = [], [], []
    for now in range(start, start + 30):
        before, after, regime = fields[now], fields[now + 1], regimes[now + 1]
        carry = TINY.phase(0.7 * regime.u * 21.6, 0.7 * regime.v * 21.6)
        for result, old, new in (
            (large, carry * before.large, after.large),
            (small, carry * before.small, after.small),
            (still, before.large, after.large),
        ):
            old_field = TINY.to_grid(old)
            result.append((np.mean(old_field * TINY.to_grid(new)), np.mean(old_field**2)))

    def regression(products: list) -> float:
        return float(np.divide(*np.sum(products, axis=0)))

    assert regression(large) == pytest.approx(0.80, abs=0.04)
    assert regression(small) == pytest.approx(0.10, abs=0.02)
    assert regression(still) < 0.6


def test_latent_fields_do_not_depend_on_the_order_in_which_they_are_asked_for():
    start = 200 * BLOCK
    forward = LatentFields(TINY, 0, RegimeSeries(0))
    states = {step: forward[step] for step in range(start - 2, start + 5)}
    backward = LatentFields(TINY, 0, RegimeSeries(0), kept=1)
    for step in (start + 4, start + 1, start - 1):
        np.testing.assert_array_equal(states[step].large, backward[step].large)
        np.testing.assert_array_equal(states[step].small, backward[step].small)
    # over the seam between blocks the evolution goes on as within them
    regime = RegimeSeries(0)[start]
    noise = LatentFields(TINY, 0, RegimeSeries(0)).draw(make_rng(0, Stream.LATENT, start))
    carry = TINY.phase(0.7 * regime.u * 21.6, 0.7 * regime.v * 21.6)
    expected = blend(carry * states[start - 1].large, noise.large, 0.8)
    np.testing.assert_allclose(states[start].large, expected, atol=1e-6)
