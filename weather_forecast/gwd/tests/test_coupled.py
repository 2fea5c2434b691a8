"""The equatorial column driven by the scheme, and by emulators that misbehave."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from ai4sim.errors import InputError
from weather_forecast.gwd import config
from weather_forecast.gwd.coupled import ColumnRun, oscillation, scheme_as_emulator, simulate_column
from weather_forecast.gwd.layout import ColumnLayout
from weather_forecast.gwd.spectrum import SchemeParameters

SHORT = ColumnRun(years=0.8, upwelling=(0.0, 4e-4))
PARAMETERS = SchemeParameters(n_azimuths=4, n_speeds=20, cap="physical")


def no_drag(x: np.ndarray) -> np.ndarray:
    return np.zeros((len(x), 126))


@pytest.fixture(scope="module")
def section() -> xr.Dataset:
    return simulate_column(scheme_as_emulator(PARAMETERS), SHORT)


def test_section_has_units_and_coordinates(section):
    assert section.u.dims == ("column", "time", "level")
    assert section.u.shape == (2, 293, 63)
    assert section.u.attrs["units"] == "m s-1"
    assert section.pressure.attrs["units"] == "hPa"
    assert section.time.attrs["units"] == "days"
    assert section.time[-1] == 292
    assert (np.diff(section.pressure) > 0).all()
    assert float(section.pressure[0]) < 0.02
    np.testing.assert_array_equal(section.upwelling, [0.0, 4e-4])


def test_scheme_sustains_an_oscillation(section):
    result = oscillation(section, spin_up=120)
    assert (result.half_period > 15).all()
    assert (result.half_period < 60).all()
    assert (result.amplitude > 3).all()
    assert (result.amplitude < 10).all()
    assert result.amplitude[1] < result.amplitude[0]  # upwelling weakens it
    assert (result.max_wind < 120).all()


def test_strong_diffusion_damps_the_oscillation(section):
    run = replace(SHORT, diffusivity=2.0, years=0.25)
    damped = oscillation(simulate_column(scheme_as_emulator(PARAMETERS), run), spin_up=60)
    assert (damped.amplitude < 0.5 * oscillation(section, spin_up=120).amplitude).all()


def test_shear_zones_descend(section):
    """Phase lines tilt downward in time: the wind at 25 km lags that at 28 km."""
    u = section.u.isel(column=0).values[120:]
    high, low = (u[:, np.abs(section.height.values - z).argmin()] for z in (28, 25))
    lags = [np.corrcoef(low[lag:], high[: len(high) - lag])[0, 1] for lag in range(15)]
    assert 1 <= int(np.argmax(lags)) <= 13


def test_upwelling_lifts_the_wind():
    run = ColumnRun(years=0.25, diffusivity=0.0, damping=(), upwelling=(0.0, 1e-3))
    section = simulate_column(no_drag, run)
    weight = section.u**2
    height = (weight * section.height).sum("level") / weight.sum("level")
    lift = 1e-3 * 0.25 * 365 * config.SECONDS_PER_DAY / 1000  # km
    assert float(height[0, -1] - height[0, 0]) == pytest.approx(0, abs=1e-9)
    assert float(height[1, -1] - height[1, 0]) == pytest.approx(lift, rel=0.1)


def test_damping_time():
    run = ColumnRun(years=10 / 365, diffusivity=0.0, upwelling=(0.0,), damping=((0.0, np.inf, 5.0),), time_step=1800.0)
    section = simulate_column(no_drag, run)
    decay = section.u.values[0, -1, 30] / section.u.values[0, 0, 30]
    assert decay == pytest.approx(np.exp(-2), rel=0.01)


def test_emulator_sees_physical_inputs():
    seen = []

    def drag(x):
        seen.append(x.copy())
        return no_drag(x)

    simulate_column(drag, ColumnRun(years=2 / 365, upwelling=(0.0, 1e-4)))
    x = seen[0]
    layout = ColumnLayout()
    assert len(seen) == 8
    assert x.shape == (2, 191)
    assert x.dtype == np.float32
    assert not x[:, layout.slice_of("v")].any()
    assert x[:, layout.slice_of("t")].min() > 150
    assert x[0, layout.slice_of("surface_pressure")] == pytest.approx(99500, abs=2000)
    assert x[0, layout.slice_of("geopotential")] == pytest.approx(100, abs=10)


def test_unstable_emulator_stops_the_run_and_shows():
    def explosive(x):
        y = no_drag(x)
        y[:, :63] = 1e-5 * x[:, :63]
        return y

    section = simulate_column(explosive, ColumnRun(years=1.0, upwelling=(0.0,), damping=()))
    assert np.isnan(section.u.values[0, -1]).all()
    result = oscillation(section)
    assert np.isinf(result.max_wind).all()
    assert np.isnan(result.half_period).all()


def test_half_period_of_a_known_wave():
    days = np.arange(0.0, 1000.0)
    wave = 3.0 + 5.0 * np.sin(2 * np.pi * days / 80)
    section = xr.Dataset(
        {"u": (("column", "time", "level"), np.repeat(wave[None, :, None], 3, axis=2))},
        coords={"time": days, "pressure": ("level", [5.0, 9.0, 20.0]), "upwelling": ("column", [0.0])},
    )
    result = oscillation(section, spin_up=200)
    assert float(result.half_period[0]) == pytest.approx(40, rel=0.01)
    assert float(result.amplitude[0]) == pytest.approx(5, rel=1e-3)
    assert float(result.max_wind[0]) == pytest.approx(8, rel=1e-3)
    assert result.half_period.attrs["units"] == "days"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"years": 0.0}, "years must be positive, not 0.0"),
        ({"upwelling": ()}, "upwelling must name at least one"),
        ({"diffusivity": -1.0}, "diffusivity must not be negative"),
        ({"damping": ((20.0, 10.0, 5.0),)}, "bottom < top"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(InputError, match=f"ColumnRun: .*{message}"):
        ColumnRun(**settings)


def test_layout_and_shapes_must_fit():
    with pytest.raises(InputError, match="the layout has 60 levels, but grid L91 has 63 down to its launch level"):
        simulate_column(no_drag, layout=ColumnLayout(n_levels=60))
    with pytest.raises(ValueError, match=r"array of shape \(1, 63\), expected \(1, 126\)"):
        simulate_column(lambda x: np.zeros((len(x), 63)), ColumnRun(upwelling=(0.0,)))
