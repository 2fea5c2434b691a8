import numpy as np
import pytest
import xarray as xr

from ai4sim.verification import (
    block_bootstrap,
    cell_band,
    line_density,
    line_lsd,
    line_spectrum,
    line_statistics,
    merge_sums,
    metric_info,
    power_ratio,
)
from ai4sim.verification.spectral import lsd


def fields(n: int = 6, members: int = 0, height: int = 12, width: int = 32, *, seed: int = 0) -> xr.DataArray:
    rng = np.random.default_rng(seed)
    shape = (n, members, height, width) if members else (n, height, width)
    dims = ("sample", "member", "y", "x") if members else ("sample", "y", "x")
    values = 280.0 + np.cumsum(rng.normal(size=shape), axis=-1)
    coords = {"day": ("sample", np.arange(n) // 2)}
    return xr.DataArray(values, dims=dims, coords=coords, attrs={"units": "K"}, name="t2m")


@pytest.mark.parametrize("number", [64, 63, 2, 3])
def test_density_integrates_to_the_variance_of_the_lines(number):
    lines = 1e3 + np.random.default_rng(0).normal(size=(5, 7, number))
    density = line_density(lines, 3.0)
    assert density.shape == (5, 7, number // 2)
    np.testing.assert_allclose(density.sum(-1) / (3.0 * number), lines.var(-1), rtol=1e-6)


def test_density_is_that_of_a_naive_loop():
    line = np.random.default_rng(1).normal(size=20)
    expected = []
    for k in range(1, 11):
        wave = np.exp(-2j * np.pi * k * np.arange(20) / 20)
        power = abs(np.sum((line - line.mean()) * wave)) ** 2 / 20**2
        # both signs of the wavenumber, in bins of 1 / (20 * 2.5)
        expected.append((1 if k == 10 else 2) * power * 20 * 2.5)
    np.testing.assert_allclose(line_density(line, 2.5), expected, rtol=1e-10)
    np.testing.assert_allclose(line_density(line[:, None], 2.5, axis=0)[:, 0], expected, rtol=1e-10)


def test_pure_wave_lands_in_its_bin():
    x = np.arange(64)
    wave = xr.DataArray(2.0 * np.cos(2 * np.pi * 5 * x / 64 + 0.3)[None], dims=("y", "x"))
    statistics = line_statistics(wave, wave, spacing=3.0, reduce="y")
    spectrum = line_spectrum(statistics, of="prediction")
    assert float(spectrum["wavelength"][int(spectrum.values.argmax())]) == pytest.approx(64 * 3.0 / 5)
    assert float(spectrum.max() / (64 * 3.0)) == pytest.approx(2.0, rel=1e-12)
    assert float(spectrum.sum() - spectrum.max()) < 1e-12
    # tapered, it spreads to the neighbours only
    tapered = line_spectrum(line_statistics(wave, spacing=3.0, reduce="y", window="hann"), of="prediction")
    assert int(tapered.values.argmax()) == 4
    assert float(tapered[3:6].sum() / tapered.sum()) > 0.999
    assert float(tapered.sum() / (64 * 3.0)) == pytest.approx(2.0, rel=0.01)


@pytest.mark.parametrize("window", [None, "hann"])
def test_white_noise_is_flat(window):
    noise = xr.DataArray(np.random.default_rng(2).normal(size=(4000, 64)), dims=("line", "x"))
    statistics = line_statistics(noise, noise, spacing=3.0, reduce="line", window=window)
    spectrum = line_spectrum(statistics, of="target")
    # unit variance over the wavenumbers up to 1 / 6 km; a mean that is taken off costs the tapered first wave some
    np.testing.assert_allclose(spectrum[1:-1], 6.0, rtol=0.1)
    if window is None:
        integral = float(spectrum.sum() / (64 * 3.0))
        assert integral == pytest.approx(float(noise.var("x").mean()), rel=1e-6)


def test_tapering_stops_the_leakage_of_lines_that_are_not_periodic():
    ramp = xr.DataArray(np.linspace(0.0, 1.0, 64)[None], dims=("y", "x"))
    plain, tapered = (
        line_spectrum(line_statistics(ramp, spacing=1.0, reduce="y", window=window), of="prediction")
        for window in (None, "hann")
    )
    assert float(tapered[20]) < 1e-3 * float(plain[20])


def test_statistics_are_means_over_lines_samples_and_members():
    members, target = fields(6, 3), fields(6, seed=1)
    statistics = line_statistics(members, target, spacing=3.0, along="x", reduce=["sample", "y"])
    assert float(statistics["n"]) == 72.0
    spectrum = line_spectrum(statistics, of="prediction")
    np.testing.assert_allclose(spectrum, line_density(members.values, 3.0).mean(axis=(0, 1, 2)), rtol=1e-10)
    expected = line_density(target.values, 3.0).mean(axis=(0, 1))
    np.testing.assert_allclose(line_spectrum(statistics, of="target"), expected, rtol=1e-10)
    assert spectrum.attrs == {"long_name": "power spectral density", "units": "K2 km"}
    assert spectrum["wavelength"].attrs == {"units": "km"}
    np.testing.assert_allclose(spectrum["wavelength"][:3], [96.0, 48.0, 32.0])
    columns = line_statistics(members, target, spacing=3.0, along="y", reduce=["sample", "x"])
    expected = line_density(members.values, 3.0, axis=-2).mean(axis=(0, 1, 3))
    np.testing.assert_allclose(line_spectrum(columns, of="prediction"), expected, rtol=1e-10)
    # that of the mean has less power
    mean = line_statistics(members.mean("member", keep_attrs=True), target, spacing=3.0, reduce=["sample", "y"])
    assert (mean["prediction_power"] < statistics["prediction_power"]).all()


def test_without_a_truth_there_is_the_spectrum_of_the_prediction():
    members, target = fields(4, 3), fields(4, seed=1)
    alone = line_statistics(members, spacing=3.0, reduce=["sample", "y"], block="day")
    both = line_statistics(members, target, spacing=3.0, reduce=["sample", "y"], block="day")
    xr.testing.assert_identical(alone, both.drop_vars("target_power"))


def test_kinetic_energy_is_half_the_sum_of_both_components():
    u, v = (fields(4, 2, seed=seed).assign_attrs(units="m s-1") for seed in (1, 2))
    parts = [line_statistics(wind, spacing=3.0, reduce=["sample", "y"]) for wind in (u, v)]
    energy = line_spectrum(merge_sums(*parts), of="prediction")
    half = 0.5 * sum(line_spectrum(part, of="prediction") for part in parts)
    np.testing.assert_allclose(energy, half, rtol=1e-12)
    assert energy.attrs["units"] == "(m s-1)2 km"


def test_parts_in_any_order_and_layout_give_the_whole(monkeypatch):
    members, target = fields(8, 3), fields(8, seed=1)
    arguments = {"spacing": 3.0, "reduce": ["sample", "y"], "block": "day"}
    whole = line_statistics(members, target, **arguments)
    parts = [
        line_statistics(
            members[cut].transpose("x", "y", "member", "sample").chunk({"sample": 1, "x": 7}),
            target[cut].transpose("x", "sample", "y"),
            **arguments,
        )
        for cut in (slice(3, 8), slice(0, 3))
    ]
    xr.testing.assert_allclose(merge_sums(*parts), whole, rtol=1e-12)
    monkeypatch.setattr("ai4sim.verification.sums._SLICE_SIZE", 100)
    xr.testing.assert_allclose(line_statistics(members, target, **arguments), whole, rtol=1e-12)


def test_distance_over_a_band_is_that_of_the_formula():
    members, target = fields(8, 3), fields(8, seed=1)
    members = (280.0 + 0.5 * (members - 280.0)).assign_attrs(members.attrs)
    statistics = line_statistics(members, target, spacing=3.0, reduce=["sample", "y"], block="day")
    total = statistics.sum("block")
    p, t = (line_spectrum(total, of=side) for side in ("prediction", "target"))
    band = cell_band(3.0, 8)
    assert band == (6.0, 48.0)
    inside = (p["wavelength"] >= 6.0) & (p["wavelength"] <= 48.0)
    assert int(inside.sum()) == 15
    expected = np.sqrt(((10.0 * np.log10(p / t)) ** 2)[inside.values].mean())
    assert float(line_lsd(total, band=band)) == pytest.approx(float(expected), rel=1e-10)
    assert float(line_lsd(total)) == float(lsd(total))
    ratio = power_ratio(total, band=band)
    assert float(ratio) == pytest.approx(float(p[inside.values].sum() / t[inside.values].sum()), rel=1e-12)
    assert 0.15 < float(ratio) < 0.35
    assert ratio.attrs == {"units": "1"}
    assert metric_info("band_12_21_km_power_ratio").perfect == 1.0
    interval = block_bootstrap(statistics, lambda sums: line_lsd(sums, band=band), seed=0, n_resamples=100)
    assert interval.lower <= interval.value <= interval.upper
    assert interval.value.attrs == {"units": "dB"}


def test_bands_and_lines_that_cannot_be_are_named():
    statistics = line_statistics(fields(), fields(), spacing=3.0, reduce=["sample", "y"])
    with pytest.raises(ValueError, match="no wavelength in the band from 1 to 2: there are 6 to 96"):
        line_lsd(statistics, band=(1.0, 2.0))
    with pytest.raises(ValueError, match="factor=1: the coarse cells must be larger"):
        cell_band(3.0, 1)
    with pytest.raises(ValueError, match="along='lon': the lines need this dimension"):
        line_statistics(fields(), fields(), spacing=3.0, along="lon", reduce="sample")
    with pytest.raises(ValueError, match=r"fields need the dimensions \('x',\), not reduced"):
        line_statistics(fields(), fields(), spacing=3.0, reduce=["sample", "x"])
    with pytest.raises(ValueError, match="no spectrum of lines of 1 values"):
        line_statistics(fields(width=1), spacing=3.0, reduce="sample")
    with pytest.raises(ValueError, match="spacing of 0"):
        line_density(np.ones(4), 0)
    with pytest.raises(ValueError, match="window='boxcar': there is 'hann'"):
        line_density(np.ones(4), 1.0, window="boxcar")
    with pytest.raises(ValueError, match="the dimension 'member' is empty"):
        line_statistics(fields(2, 3).isel(member=slice(0)), fields(2), spacing=3.0, reduce="sample")


def test_missing_values_take_their_line_out():
    members, target = fields(4, 3), fields(4, seed=1)
    broken = members.copy()
    broken[2, 1, 5, 7] = np.nan
    with pytest.raises(ValueError, match=r"first at index .*'sample': 2.*'y': 5"):
        line_statistics(broken, target, spacing=3.0, reduce=["sample", "y"])
    statistics = line_statistics(broken, target, spacing=3.0, reduce=["sample"], skipna=True)
    assert statistics["n"].values.tolist() == [4.0 if y != 5 else 3.0 for y in range(12)]
    kept = [0, 1, 3]
    without = line_statistics(members[kept], target[kept], spacing=3.0, reduce=["sample"])
    xr.testing.assert_allclose(statistics.isel(y=5), without.isel(y=5), rtol=1e-12)


def test_no_samples_have_no_spectrum():
    nothing = fields()[:0]
    statistics = line_statistics(nothing, nothing, spacing=3.0, reduce=["sample", "y"])
    assert line_spectrum(statistics, of="target").isnull().all()
    assert np.isnan(line_lsd(statistics))
    assert np.isnan(power_ratio(statistics))
