"""The NumPy scheme: analytic properties, an independent implementation, and labels of the operational code."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from ai4sim.errors import InputError
from weather_forecast.gwd import config, scheme
from weather_forecast.gwd.columns import Columns, generate_columns
from weather_forecast.gwd.levels import L91
from weather_forecast.gwd.scheme import Drag, gravity_wave_drag
from weather_forecast.gwd.spectrum import SchemeParameters, azimuths, launch_flux, phase_speeds
from weather_forecast.gwd.tests import scheme_by_hand

CHEAP = SchemeParameters.cheap()


@pytest.fixture(scope="module")
def columns() -> Columns:
    return generate_columns(1000, np.random.default_rng(7))


def compute(columns: Columns, n: int | None = None, *, u=None, v=None, **settings) -> Drag:
    u = columns.u if u is None else u
    v = columns.v if v is None else v
    settings = {"latitude": columns.lat[:n], "parameters": CHEAP} | settings
    return gravity_wave_drag(u[:n], v[:n], columns.t[:n], columns.half_pressure[:n], **settings)


def budget(columns: Columns, drag: Drag) -> np.ndarray:
    """Momentum that the columns gain, Pa, (2, n)."""
    mass = np.diff(columns.half_pressure[: len(drag.dudt)]) / config.GRAVITY
    return np.stack([(drag.dudt * mass).sum(1), (drag.dvdt * mass).sum(1)])


# --- spectrum


def test_phase_speeds_of_the_published_table():
    c, dc = phase_speeds(CHEAP)
    expected = [100, 96.5, 91.6, 85.1, 76.8, 66.9, 55.9, 44.7, 34.3, 25.3, 18.1, 12.7, 8.67, 5.87, 3.93, 2.62]
    np.testing.assert_allclose(c, [*expected, 1.74, 1.15, 0.758, 0.5], rtol=6e-3)
    np.testing.assert_allclose(c[[0, -1]], [100, 0.5], rtol=1e-12)
    # the widths are those of the derivative dc/dx of the stretched coordinate
    fine, widths = phase_speeds(replace(CHEAP, n_speeds=20001))
    np.testing.assert_allclose(widths[1:-1], (fine[:-2] - fine[2:]) / 2, rtol=1e-5)
    assert dc.shape == (20,)


@pytest.mark.parametrize("n", [4, 8, 12, 16])
def test_azimuths_are_exactly_symmetric(n):
    cos, sin, factor = azimuths(n)
    angles = 2 * np.pi * np.arange(n) / n
    np.testing.assert_allclose(cos, np.cos(angles), atol=1e-15)
    np.testing.assert_allclose(sin, np.sin(angles), atol=1e-15)
    assert factor == pytest.approx(2 / np.abs(np.cos(angles)).sum())
    np.testing.assert_array_equal(np.roll(cos, n // 2), -cos)
    np.testing.assert_array_equal(cos[1:][::-1], cos[1:])
    assert azimuths(4)[2] == 1.0


def test_launch_flux_is_reduced_in_the_tropics():
    flux = launch_flux(np.array([0.0, 20.0, -20.0, 90.0]), SchemeParameters())
    expected = 3.75e-3 * (1 - 0.25 * np.array([1, np.exp(-0.5), np.exp(-0.5), np.exp(-10.125)]))
    np.testing.assert_allclose(flux, expected, rtol=1e-14)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("n_azimuths", 6, "n_azimuths must be a multiple of 4, not 6"),
        ("n_azimuths", 0, "n_azimuths must be a multiple of 4, not 0"),
        ("n_speeds", 1, "n_speeds must be at least 2, not 1"),
        ("min_speed", 200.0, "min_speed must be positive and below max_speed"),
        ("frequency_exponent", 2.0, "frequency_exponent must be 1 or 1.5"),
        ("launch_flux", 0.0, "launch_flux must be positive"),
        ("min_stability", -1.0, "min_stability must be positive"),
        ("cap", "weak", "cap must be operational, physical or none, not 'weak'"),
        ("lid", "ajar", "lid must be closed or open, not 'ajar'"),
    ],
)
def test_bad_parameters_are_named(field, value, message):
    with pytest.raises(InputError, match=f"SchemeParameters: {message}"):
        SchemeParameters(**{field: value})


# --- independent implementation


@pytest.mark.parametrize(
    "parameters",
    [
        CHEAP,
        SchemeParameters(n_azimuths=8, n_speeds=32, cap="physical"),
        SchemeParameters(n_azimuths=12, n_speeds=11, cap="none", lid="open"),
        SchemeParameters(n_azimuths=4, n_speeds=20, frequency_exponent=1.5, slope=0.5, saturation=0.6),
    ],
)
def test_agrees_with_the_equations_written_by_hand(columns, parameters):
    n = 5
    drag = compute(columns, n, parameters=parameters, diagnostics=True)
    for i in range(n):
        dudt, dvdt, flux = scheme_by_hand.drag(
            columns.u[i].tolist(),
            columns.v[i].tolist(),
            columns.t[i].tolist(),
            columns.half_pressure[i].tolist(),
            launched=float(launch_flux(columns.lat[i], parameters)),
            n_azimuths=parameters.n_azimuths,
            n_speeds=parameters.n_speeds,
            cap=parameters.cap,
            lid=parameters.lid,
            p=parameters.frequency_exponent,
            s=parameters.slope,
            ratio=parameters.saturation,
        )
        largest = max(map(abs, dudt + dvdt))
        np.testing.assert_allclose(drag.dudt[i], dudt, atol=1e-11 * largest)
        np.testing.assert_allclose(drag.dvdt[i], dvdt, atol=1e-11 * largest)
        np.testing.assert_allclose(drag.flux[i], flux, atol=1e-11 * parameters.launch_flux)


# --- analytic properties


@pytest.mark.parametrize("n_azimuths", [4, 8, 16])
@pytest.mark.parametrize("cap", ["operational", "physical", "none"])
def test_columns_keep_their_momentum(columns, n_azimuths, cap):
    drag = compute(columns, parameters=replace(CHEAP, n_azimuths=n_azimuths, cap=cap))
    assert np.abs(budget(columns, drag)).max() < 1e-15


def test_open_lid_loses_what_leaves_the_top(columns):
    parameters = replace(CHEAP, lid="open")
    drag = compute(columns, 200, parameters=parameters, diagnostics=True)
    cos, sin, factor = azimuths(4)
    leaving = factor * np.stack([drag.flux[:, :, 0] @ cos, drag.flux[:, :, 0] @ sin])
    assert np.abs(leaving).max() > 1e-6
    np.testing.assert_allclose(budget(columns, drag), -leaving, atol=1e-17)
    assert not drag.dudt[:, 0].any()


def test_wind_constant_with_height_feels_no_drag(columns):
    u = np.broadcast_to(columns.u[:, :1], columns.u.shape)
    v = np.broadcast_to(columns.v[:, :1], columns.v.shape)
    for parameters in (CHEAP, SchemeParameters()):
        drag = compute(columns, 100, u=u, v=v, parameters=parameters)
        largest = max(np.abs(drag.dudt).max(), np.abs(drag.dvdt).max())
        assert largest * config.SECONDS_PER_DAY < 1e-12


def test_adding_a_constant_wind_changes_nothing(columns):
    still = compute(columns, 300)
    moving = compute(columns, 300, u=columns.u + 13, v=columns.v - 7)
    np.testing.assert_allclose(moving.dudt, still.dudt, atol=1e-12 * np.abs(still.dudt).max())
    np.testing.assert_allclose(moving.dvdt, still.dvdt, atol=1e-12 * np.abs(still.dvdt).max())


@pytest.mark.parametrize("n_azimuths", [4, 8])
def test_quarter_turn_and_mirror(columns, n_azimuths):
    parameters = replace(CHEAP, n_azimuths=n_azimuths)
    drag = compute(columns, 300, parameters=parameters)
    size = np.abs(drag.dudt).max()
    turned = compute(columns, 300, u=-columns.v, v=columns.u, parameters=parameters)
    np.testing.assert_allclose(turned.dudt, -drag.dvdt, atol=1e-14 * size)
    np.testing.assert_allclose(turned.dvdt, drag.dudt, atol=1e-14 * size)
    mirrored = compute(columns, 300, u=-columns.u, parameters=parameters)
    np.testing.assert_allclose(mirrored.dudt, -drag.dudt, atol=1e-14 * size)
    np.testing.assert_allclose(mirrored.dvdt, drag.dvdt, atol=1e-14 * size)


def test_turn_by_one_of_sixteen_azimuths(columns):
    parameters = replace(CHEAP, n_azimuths=16)
    cos, sin = np.cos(np.pi / 8), np.sin(np.pi / 8)
    drag = compute(columns, 100, parameters=parameters)
    turned = compute(
        columns,
        100,
        u=cos * columns.u - sin * columns.v,
        v=sin * columns.u + cos * columns.v,
        parameters=parameters,
    )
    size = np.abs(drag.dudt).max()
    np.testing.assert_allclose(turned.dudt, cos * drag.dudt - sin * drag.dvdt, atol=1e-12 * size)
    np.testing.assert_allclose(turned.dvdt, sin * drag.dudt + cos * drag.dvdt, atol=1e-12 * size)


def test_linear_in_the_launch_flux_without_cap(columns):
    parameters = replace(CHEAP, cap="none")
    drag = compute(columns, 100, parameters=parameters)
    doubled = compute(columns, 100, parameters=replace(parameters, launch_flux=2 * parameters.launch_flux))
    np.testing.assert_array_equal(doubled.dudt, 2 * drag.dudt)


def test_flux_never_grows_upward_and_starts_at_the_launch_flux(columns):
    drag = compute(columns, 300, parameters=replace(CHEAP, cap="none"), diagnostics=True)
    assert (np.diff(drag.flux, axis=-1) >= -1e-18).all()
    expected = launch_flux(columns.lat[:300], CHEAP)[:, None]
    np.testing.assert_allclose(drag.flux[..., -1], np.broadcast_to(expected, (300, 4)), rtol=1e-13)
    # what critical levels take is part of what is lost in each layer
    assert (drag.critical[..., 1:-1] <= np.diff(drag.flux, axis=-1)[..., 1:] + 1e-17).all()


def isothermal_flux(n_speeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Flux in one azimuth over the launch flux in an isothermal column at rest: computed and analytic."""
    half = L91.half_pressure(np.array([101325.0]))[:, :64]
    rest = np.zeros((1, 63))
    t = np.full((1, 63), 240.0)
    parameters = SchemeParameters(n_azimuths=4, n_speeds=n_speeds)
    drag = gravity_wave_drag(rest, rest, t, half, latitude=90.0, parameters=parameters, diagnostics=True)
    n = config.GRAVITY / np.sqrt(config.HEAT_CAPACITY * 240.0)
    np.testing.assert_allclose(drag.buoyancy_frequency, n, rtol=1e-12)
    y0, y1 = (parameters.characteristic_wavenumber * c / n for c in (0.5, 100.0))
    r = drag.density[0, 1:] / drag.density[0, -1]
    ys = np.clip((1 / r - 1) ** 0.25, y0, y1)
    analytic = r * (ys**2 - y0**2) + np.arctan(y1**2) - np.arctan(ys**2)
    analytic /= np.arctan(y1**2) - np.arctan(y0**2)
    return drag.flux[0, 0, 1:] / launch_flux(np.array(90.0), parameters), analytic


def test_isothermal_column_at_rest_converges_to_the_analytic_profile():
    errors = {}
    for n_speeds in (20, 32, 100, 400, 2000):
        computed, analytic = isothermal_flux(n_speeds)
        errors[n_speeds] = np.abs(computed - analytic).max()
    expected = {20: 0.0169, 32: 0.0068, 100: 6.2e-4, 400: 4.8e-5, 2000: 6e-6}
    for n_speeds, error in expected.items():
        assert errors[n_speeds] == pytest.approx(error, rel=0.2), n_speeds
    assert errors[20] < 0.02
    assert errors[32] < 0.008
    assert errors[100] < 1e-3
    assert errors[100] / errors[400] > 8
    reference = [0.0059, 0.0190, 0.0497, 0.1558, 0.4192, 0.8054]
    np.testing.assert_allclose(analytic[np.array([2, 5, 9, 17, 31, 51]) - 2], reference, atol=6e-5)


def test_shear_removes_exactly_the_slower_waves():
    half = L91.half_pressure(np.array([101325.0]))[:, :64]
    t = np.full((1, 63), 240.0)
    u = np.linspace(60, 0, 63)[None]
    u[0, :5] = 60.0
    v = np.zeros_like(u)
    parameters = replace(CHEAP, cap="none")
    drag = gravity_wave_drag(u, v, t, half, parameters=parameters, diagnostics=True)
    c, dc = phase_speeds(parameters)
    relative = 60 - (u[0, -1] + u[0, -2]) / 2  # wind at the top, relative to the launch half-level
    rho_over_n = drag.density[0] / drag.buoyancy_frequency[0]
    shape = rho_over_n[-1] * c / (1 + (parameters.characteristic_wavenumber * c / drag.buoyancy_frequency[0, -1]) ** 4)
    amplitude = parameters.launch_flux / (shape * dc).sum()
    fast = c > relative
    saturated = amplitude * rho_over_n[1] * (c - relative) ** 2 / c
    np.testing.assert_allclose(
        drag.flux[0, 0, 1], (np.minimum(saturated, amplitude * shape) * dc)[fast].sum(), rtol=1e-10
    )
    assert drag.critical[0, 0].sum() > 0
    assert not drag.critical[0, 2].any()  # westward waves meet no critical level


def test_azimuths_matter_more_than_speeds(columns):
    def difference(a: Drag, b: Drag) -> float:
        total = ((a.dudt - b.dudt) ** 2 + (a.dvdt - b.dvdt) ** 2).sum() / (b.dudt**2 + b.dvdt**2).sum()
        return float(np.sqrt(total))

    cheap = compute(columns, 300)
    more_speeds = compute(columns, 300, parameters=replace(CHEAP, n_speeds=100))
    both = compute(columns, 300, parameters=SchemeParameters.public_data())
    assert 0.02 < difference(cheap, more_speeds) < 0.15
    assert 0.2 < difference(cheap, both) < 0.45


# --- computation


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_results_do_not_depend_on_chunks_threads_or_neighbours(columns, monkeypatch, dtype):
    whole = compute(columns, 300, dtype=dtype, threads=1, diagnostics=True)
    monkeypatch.setattr(scheme, "_WORKING_SET", 200_000)
    pieces = compute(columns, 300, dtype=dtype, threads=3, diagnostics=True)
    for name in ("dudt", "dvdt", "flux", "critical", "buoyancy_frequency", "density"):
        np.testing.assert_array_equal(getattr(pieces, name), getattr(whole, name))
    assert pieces.n_floored == whole.n_floored
    for n in (1, 2, 5, 70):
        np.testing.assert_array_equal(compute(columns, n, dtype=dtype).dudt, whole.dudt[:n])


def test_single_precision_is_accurate_enough(columns):
    double = compute(columns)
    single = compute(columns, dtype=np.float32)
    assert single.dudt.dtype == np.float32
    for name in ("dudt", "dvdt"):
        reference = getattr(double, name)
        error = np.sqrt(np.mean((getattr(single, name) - reference) ** 2))
        assert error < 1e-3 * np.sqrt(np.mean(reference**2))


def test_given_hydrostatic_geopotential_changes_nothing(columns):
    given = compute(columns, 100, geopotential=columns.geopotential[:100])
    computed = compute(columns, 100)
    np.testing.assert_allclose(given.dudt, computed.dudt, atol=1e-9 * np.abs(computed.dudt).max())


def test_no_latitude_means_no_tropical_reduction(columns):
    np.testing.assert_array_equal(
        compute(columns, 20, latitude=None).dudt,
        compute(columns, 20, parameters=replace(CHEAP, tropical_reduction=0.0)).dudt,
    )


def test_no_columns(columns):
    drag = compute(columns, 0)
    assert drag.dudt.shape == (0, 63)
    assert drag.n_floored == 0


def test_unstable_layers_are_floored_and_counted(columns):
    half = L91.half_pressure(np.array([101325.0] * 3))[:, :64]
    t = np.full((3, 63), 240.0)
    t[1, 40:] += 60.0  # far above the dry adiabat at one half-level
    u = np.linspace(20, 0, 63) * np.ones((3, 1))
    drag = gravity_wave_drag(u, 0 * u, t, half, parameters=CHEAP, diagnostics=True)
    assert drag.n_floored == 1
    assert drag.buoyancy_frequency[1, 40] == pytest.approx(1e-6)
    assert np.isfinite(drag.dudt).all()


def test_bad_columns_are_named(columns):
    t = columns.t[:400].copy()
    t[317, 4] = -3.0
    with pytest.raises(InputError, match=r"t of column 317: -3 K at level 5; temperature must be positive"):
        gravity_wave_drag(columns.u[:400], columns.v[:400], t, columns.half_pressure[:400], parameters=CHEAP)
    half = columns.half_pressure[:400].copy()
    half[42, 10] = half[42, 9]
    with pytest.raises(InputError, match=r"half_pressure of column 42: .* Pa below level 10; pressure must increase"):
        gravity_wave_drag(columns.u[:400], columns.v[:400], columns.t[:400], half, parameters=CHEAP)


def test_bad_shapes_are_named(columns):
    u, v, t, half = columns.u[:4], columns.v[:4], columns.t[:4], columns.half_pressure[:4]
    with pytest.raises(ValueError, match=r"half_pressure has the shape \(4, 63\).* must be \(4, 64\)"):
        gravity_wave_drag(u, v, t, half[:, 1:])
    with pytest.raises(ValueError, match=r"t has the shape \(3, 63\)"):
        gravity_wave_drag(u, v, t[:3], half)
    with pytest.raises(ValueError, match="at least 3 levels"):
        gravity_wave_drag(u[:, :2], v[:, :2], t[:, :2], half[:, :3])
    with pytest.raises(ValueError, match="float64 or float32, not int32"):
        gravity_wave_drag(u, v, t, half, dtype=np.int32)


# --- labels of the operational code


def relative_error(drag: Drag, dudt: np.ndarray, dvdt: np.ndarray) -> np.ndarray:
    """Largest error of each column relative to its largest tendency."""
    largest = np.maximum(np.abs(dudt).max(1), np.abs(dvdt).max(1))
    return np.maximum(np.abs(drag.dudt - dudt).max(1), np.abs(drag.dvdt - dvdt).max(1)) / largest


def test_labels_of_real_columns_on_137_levels(samples):
    launch = 93
    with xr.open_dataset(samples / "ifs_l137_columns.nc") as data:
        x = {name: data[name].values.astype(np.float64) for name in ("u", "v", "t", "z", "sp", "latitude")}
        half = data.a_half.values + data.b_half.values * x["sp"][:, None]
        dudt, dvdt = data.dudt_nogw.values, data.dvdt_nogw.values
        flux = np.stack([data.flux_u_nogw.values, data.flux_v_nogw.values])[..., :launch]
    drag = gravity_wave_drag(
        *(x[name][:, :launch] for name in ("u", "v", "t")),
        half[:, : launch + 1],
        geopotential=x["z"][:, :launch],
        latitude=x["latitude"],
        parameters=SchemeParameters.operational(),
        diagnostics=True,
    )
    assert relative_error(drag, dudt[:, :launch], dvdt[:, :launch]).max() < 1e-6
    assert not dudt[:, launch:].any()
    computed = np.stack([drag.flux[:, 0] - drag.flux[:, 2], drag.flux[:, 1] - drag.flux[:, 3]])
    # half-level 1 is where the lid closes; the file counts the flux just below it
    np.testing.assert_allclose(computed[..., 1:], flux[..., 1:], atol=2e-9)


def test_labels_of_a_global_field_on_26_pressure_levels(samples):
    launch = 14
    with xr.open_dataset(samples / "gfs_p26_20111011.nc") as data:
        data = data.stack(column=("latitude", "longitude")).transpose("column", "level")
        x = {name: data[name].values.astype(np.float64)[:, :launch] for name in ("u", "v", "t", "z")}
        latitude = data.latitude.values
        p = data.level.values * 100.0
        dudt, dvdt = data.dudt_nogw.values[:, :launch], data.dvdt_nogw.values[:, :launch]
    half = np.concatenate([[500.0], (p[1:] + p[:-1]) / 2, [101250.0]])[: launch + 1]
    drag = gravity_wave_drag(
        x["u"],
        x["v"],
        x["t"],
        np.tile(half, (len(latitude), 1)),
        geopotential=x["z"],
        latitude=latitude,
        parameters=SchemeParameters.operational(),
    )
    error = relative_error(drag, dudt, dvdt)
    # Winds are stored in steps of 0.1 m/s, so some equal the slowest wave's 0.5 m/s exactly. Whether that wave then
    # meets a critical level or saturates hangs on round-off of sin(pi), in the label's code too.
    assert np.mean(error > 1e-6) < 1e-3
    assert error.max() < 0.03
