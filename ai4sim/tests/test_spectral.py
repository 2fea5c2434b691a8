import numpy as np
import pytest
import scipy.fft
import xarray as xr

from ai4sim.verification import block_bootstrap
from ai4sim.verification.fields import merge_sums
from ai4sim.verification.spectral import (
    lsd,
    power_spectrum,
    spectral_bins,
    spectral_statistics,
    variance_coefficients,
    variance_spectrum,
)


def red_fields(n: int, height: int = 24, width: int = 32, *, seed: int = 0, slope: float = 1.5) -> xr.DataArray:
    """Fields (sample, variable, lat, lon) whose spectrum falls with a power of the wavenumber."""
    rng = np.random.default_rng(seed)
    alpha = np.hypot(np.arange(width) / width, np.arange(height)[:, None] / height)
    alpha[0, 0] = np.inf
    coefficients = rng.normal(size=(n, 2, height, width)) * alpha**-slope
    values = scipy.fft.idctn(coefficients, axes=(-2, -1), norm="ortho") * np.array([1.0, 30.0])[:, None, None]
    coords = {"variable": ["t", "z"], "day": ("sample", np.arange(n) // 3)}
    return xr.DataArray(values, dims=("sample", "variable", "lat", "lon"), coords=coords, attrs={"units": "K"})


def test_coefficients_are_those_of_scipys_orthonormal_transform():
    field = np.random.default_rng(0).normal(size=(3, 48, 64))
    expected = scipy.fft.dctn(field, type=2, axes=(-2, -1), norm="ortho") ** 2 / (48 * 64)
    expected[:, 0, 0] = 0.0
    np.testing.assert_allclose(variance_coefficients(field), expected, atol=1e-16, rtol=1e-9)


@pytest.mark.parametrize("shape", [(48, 64), (64, 48), (31, 97), (2, 40)])
@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_spectrum_sums_to_the_variance(shape, offset):
    field = np.random.default_rng(1).normal(size=(4, *shape)) + offset
    spectrum = variance_spectrum(field, spectral_bins(*shape, spacing=2.5))
    np.testing.assert_allclose(spectrum.sum(-1), field.var(axis=(-2, -1)), rtol=1e-10)
    assert spectrum.min() >= 0.0


@pytest.mark.parametrize(("rows", "columns"), [(0, 4), (12, 0), (5, 7), (47, 63), (0, 63), (24, 1)])
def test_cosine_peaks_in_the_bin_of_its_wavelength(rows, columns):
    height, width, spacing = 48, 64, 83.3
    y, x = np.mgrid[:height, :width] + 0.5
    field = np.cos(np.pi * rows * y / height) * np.cos(np.pi * columns * x / width)
    bins = spectral_bins(height, width, spacing)
    wavelength = 2.0 * spacing / np.hypot(rows / height, columns / width)
    spectrum = variance_spectrum(field, bins)
    nearest = int(np.argmin(abs(bins.alpha - 2.0 * spacing / wavelength)))
    assert int(np.argmax(spectrum)) == nearest
    assert spectrum[nearest] == pytest.approx(field.var(), rel=1e-12)
    # half a bin of equal width in alpha
    assert abs(2.0 * spacing / bins.wavelength[nearest] - 2.0 * spacing / wavelength) <= 0.5 / height + 1e-12


def test_bins_hold_every_cosine_once_and_have_equal_width():
    bins = spectral_bins(48, 64, spacing=10.0)
    assert bins.modes.sum() == 48 * 64 - 1
    np.testing.assert_allclose(np.diff(bins.alpha), 1.0 / 48)
    # a wave of twice the shorter side, then its half, third, ...
    np.testing.assert_allclose(bins.wavelength[:3], [960.0, 480.0, 320.0])
    assert bins.index[0, 0] == -1
    assert bins.index.max() == bins.alpha.size - 1


def test_long_domain_keeps_its_longest_waves_in_the_first_bin():
    bins = spectral_bins(8, 64, spacing=1.0)
    assert bins.index[0, 1:5].tolist() == [0, 0, 0, 0]
    assert bins.modes.sum() == 8 * 64 - 1


@pytest.mark.parametrize(("height", "width", "spacing"), [(1, 5, 1.0), (4, 4, 0.0), (4, 4, float("nan"))])
def test_no_spectrum_of_a_line(height, width, spacing):
    with pytest.raises(ValueError, match=f"no spectrum of {height} x {width} points at a spacing of {spacing}"):
        spectral_bins(height, width, spacing)


def test_statistics_are_the_mean_spectra_of_all_samples():
    target = red_fields(7)
    prediction = 0.5 * target + 1.0
    prediction.attrs = target.attrs
    statistics = spectral_statistics(prediction, target, spacing=2.5, reduce="sample")
    spectrum = power_spectrum(statistics, of="target")
    bins = spectral_bins(24, 32, 2.5)
    assert statistics["n"].dims == ("variable",)
    assert statistics["n"].values.tolist() == [7.0, 7.0]
    assert spectrum.dims == ("variable", "wavelength")
    assert spectrum.attrs == {"units": "(K)2"}
    assert spectrum["wavelength"].attrs == {"units": "km"}
    np.testing.assert_allclose(spectrum["wavelength"], bins.wavelength)
    np.testing.assert_allclose(spectrum, variance_spectrum(target.values, bins).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(power_spectrum(statistics, of="prediction"), 0.25 * spectrum, rtol=1e-9)
    np.testing.assert_allclose(spectrum.sum("wavelength"), target.var(["lat", "lon"]).mean("sample"), rtol=1e-9)


def test_parts_in_any_order_and_layout_give_the_whole(monkeypatch):
    target = red_fields(12)
    prediction = red_fields(12, seed=5)
    arguments = {"spacing": 1.0, "reduce": "sample", "block": "day"}
    whole = spectral_statistics(prediction, target, **arguments)
    cuts = [slice(5, 12), slice(0, 1), slice(1, 5)]
    parts = [
        spectral_statistics(
            prediction.isel(sample=cut).transpose("lon", "sample", "lat", "variable"),
            target.isel(sample=cut).chunk({"sample": 2}),
            **arguments,
        )
        for cut in cuts
    ]
    xr.testing.assert_allclose(merge_sums(*parts), whole, rtol=1e-12)
    assert whole["block"].values.tolist() == [0, 1, 2, 3]
    # however little fits into the cache
    monkeypatch.setattr("ai4sim.verification.sums._SLICE_SIZE", 24 * 32)
    xr.testing.assert_allclose(spectral_statistics(prediction, target, **arguments), whole, rtol=1e-12)
    unblocked = spectral_statistics(prediction, target, spacing=1.0, reduce="sample")
    xr.testing.assert_allclose(unblocked, whole.sum("block").assign_coords(unblocked.coords), rtol=1e-12)
    halves = (
        spectral_statistics(prediction[cut], target[cut], spacing=1.0, reduce="sample")
        for cut in (slice(6), slice(6, 12))
    )
    xr.testing.assert_allclose(merge_sums(*halves), unblocked, rtol=1e-12)


def test_statistics_of_different_domains_are_not_merged():
    small, large = red_fields(2, 8, 8), red_fields(2, 8, 12)
    parts = [spectral_statistics(fields, fields, spacing=1.0, reduce="sample") for fields in (small, large)]
    with pytest.raises(ValueError, match="different coordinates 'wavelength' cannot be merged"):
        merge_sums(*parts)
    other = parts[0].assign_attrs(units="m")
    with pytest.raises(ValueError, match="statistics in 'm' cannot be merged with statistics in 'K'"):
        merge_sums(parts[0], other)
    with pytest.raises(ValueError, match="take the same statistics of all parts"):
        merge_sums(parts[0], parts[0].drop_vars("n"))
    with pytest.raises(ValueError, match="at least one"):
        merge_sums()


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_log_spectral_distance_of_a_scaled_field_is_its_decibels(factor):
    target = red_fields(5)
    distance = lsd(
        spectral_statistics((factor * target).assign_attrs(target.attrs), target, spacing=1, reduce="sample")
    )
    assert distance.attrs == {"units": "dB"}
    np.testing.assert_allclose(distance, 20.0 * np.log10(2.0), rtol=1e-9)


def test_log_spectral_distance_is_zero_for_other_fields_with_the_same_spectrum_only():
    target = red_fields(5)
    mirrored = target.isel(lat=slice(None, None, -1)).assign_attrs(target.attrs)
    same = lsd(spectral_statistics(mirrored, target, spacing=1.0, reduce="sample"))
    np.testing.assert_allclose(same, 0.0, atol=1e-9)
    smooth = red_fields(5, slope=2.5)
    assert (lsd(spectral_statistics(smooth, target, spacing=1.0, reduce="sample")) > 3.0).all()


def test_log_spectral_distance_is_that_of_the_formula():
    prediction, target = red_fields(6, seed=3, slope=1.9), red_fields(6)
    statistics = spectral_statistics(prediction, target, spacing=1.0, reduce="sample")
    bins = spectral_bins(24, 32, 1.0)
    p, t = (variance_spectrum(fields.values, bins).mean(axis=0) for fields in (prediction, target))
    expected = np.sqrt(np.mean((10.0 * np.log10(p / t)) ** 2, axis=-1))
    np.testing.assert_allclose(lsd(statistics), expected, rtol=1e-9)


def test_constant_fields_have_a_finite_distance_as_prediction_and_none_as_target():
    target = red_fields(4)
    flat = xr.zeros_like(target) + 3.0
    flat.attrs = target.attrs
    distance = lsd(spectral_statistics(flat, target, spacing=1.0, reduce="sample"))
    assert np.isfinite(distance).all()
    assert (distance > 60.0).all()
    assert lsd(spectral_statistics(target, flat, spacing=1.0, reduce="sample")).isnull().all()


def test_distance_of_single_precision_is_that_of_double_precision():
    target = red_fields(4) + 1e5
    target.attrs = {"units": "m2 s-2"}
    smooth = red_fields(4, slope=2.0) + 1e5
    smooth.attrs = target.attrs
    double = lsd(spectral_statistics(smooth, target, spacing=1.0, reduce="sample")).sel(variable="z")
    single = lsd(spectral_statistics(smooth.astype("f4"), target.astype("f4"), spacing=1.0, reduce="sample"))
    assert float(single.sel(variable="z")) == pytest.approx(float(double), rel=1e-3)


def test_interval_over_blocks_holds_the_distance():
    statistics = spectral_statistics(red_fields(24, seed=9), red_fields(24), spacing=1.0, reduce="sample", block="day")
    interval = block_bootstrap(statistics, lsd, seed=0, n_resamples=200)
    assert interval.value.dims == ("variable",)
    assert interval.value.attrs == {"units": "dB"}
    np.testing.assert_allclose(interval.value, lsd(statistics.sum("block").assign_attrs(statistics.attrs)))
    assert (interval.lower <= interval.value).all()
    assert (interval.value < interval.upper).all()


def test_missing_values_are_refused_or_take_their_field_out():
    target = red_fields(4).copy()
    target[2, 1, 3, 4] = np.nan
    prediction = red_fields(4, seed=1)
    with pytest.raises(
        ValueError, match=r"target None has a value that is not finite, the first at index .*'sample': 2"
    ):
        spectral_statistics(prediction, target, spacing=1.0, reduce="sample")
    statistics = spectral_statistics(prediction, target, spacing=1.0, reduce="sample", skipna=True)
    assert statistics["n"].values.tolist() == [4.0, 3.0]
    kept = [0, 1, 3]
    without = spectral_statistics(prediction[kept], target[kept], spacing=1.0, reduce="sample")
    xr.testing.assert_allclose(statistics.sel(variable="z"), without.sel(variable="z"), rtol=1e-12)


def test_no_samples_have_no_spectrum():
    nothing = red_fields(3).isel(sample=slice(0, 0))
    statistics = spectral_statistics(nothing, nothing, spacing=1.0, reduce="sample")
    assert statistics["n"].values.tolist() == [0.0, 0.0]
    assert power_spectrum(statistics, of="target").isnull().all()
    assert lsd(statistics).isnull().all()


def test_wrong_dimensions_are_named():
    fields = red_fields(2)
    with pytest.raises(ValueError, match=r"dims=\('y', 'x'\): the target has the dimensions"):
        spectral_statistics(fields, fields, spacing=1.0, reduce="sample", dims=("y", "x"))
    with pytest.raises(ValueError, match=r"fields need the dimensions \('lat', 'lon'\), not reduced"):
        spectral_statistics(fields, fields, spacing=1.0, reduce=["sample", "lat"])
