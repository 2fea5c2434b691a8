"""Vertical grids and hydrostatics."""

import numpy as np
import pytest

from ai4sim.errors import InputError
from weather_forecast.gwd import config
from weather_forecast.gwd.levels import (
    L91,
    L137,
    VerticalGrid,
    geopotential,
    get_grid,
    hydrostatic_weights,
)


def test_coefficients_have_their_checksums():
    assert L91.a_half.sum() == pytest.approx(719195.87, abs=0.05)
    assert L91.b_half.sum() == pytest.approx(23.128428, abs=1e-9)
    assert L137.a_half.sum() == pytest.approx(1022184.956945, abs=0.005)
    assert L137.b_half.sum() == pytest.approx(35.401239, abs=1e-9)
    assert (L91.n_levels, L137.n_levels) == (91, 137)
    assert not L91.b_half[:35].any()
    assert L91.b_half[35] > 0
    assert not L137.b_half[:55].any()
    assert L137.b_half[55] > 0


def test_full_pressure_and_launch_levels():
    np.testing.assert_allclose(L91.full_pressure(101325.0)[[61, 62]], [44334, 47017], atol=0.5)
    assert L91.launch_level() == 63
    assert L137.launch_level() == 93
    assert L91.launch_level(pressure=L91.full_pressure(101325.0)[10]) == 12  # the pressure must be exceeded


@pytest.mark.parametrize("ps", [50000.0, 101325.0, 107000.0])
def test_pressure_increases_downward(ps):
    for grid in (L91, L137):
        assert (np.diff(grid.half_pressure(ps)) > 0).all()
        assert grid.half_pressure(ps)[-1] == ps


def test_shapes_follow_surface_pressure():
    ps = np.full((3, 2), 1e5)
    assert L91.half_pressure(ps).shape == (3, 2, 92)
    assert L91.full_pressure(ps).shape == (3, 2, 91)


def test_truncated_grid_is_the_upper_part():
    upper = L91.truncate(63)
    assert upper.n_levels == 63
    np.testing.assert_array_equal(upper.half_pressure(1e5), L91.half_pressure(1e5)[:64])
    with pytest.raises(InputError, match=r"grid L91 has levels 1\.\.91; cannot keep 92"):
        L91.truncate(92)


def test_grid_that_ends_above_the_launch_pressure():
    with pytest.raises(InputError, match=r"no launch level: its lowest level lies at 41773 Pa"):
        L91.truncate(61).launch_level()


def test_csv_round_trip(tmp_path):
    path = tmp_path / "mine.csv"
    rows = [f"{a!r}, {b!r}" for a, b in zip(L91.a_half.tolist(), L91.b_half.tolist(), strict=True)]
    path.write_text("a, b\n" + "\n".join(rows) + "\n")
    grid = get_grid(str(path))
    assert grid.name == "mine"
    np.testing.assert_array_equal(grid.a_half, L91.a_half)
    np.testing.assert_array_equal(grid.b_half, L91.b_half)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,c\n1,2\n", r"grid\.csv: column b missing"),
        ("a,b\n0,0\nx,0\n", r"grid\.csv, row 3: a, b must be numbers, not 'x', '0'"),
        ("a,b\n0,0\n5\n", r"grid\.csv, row 3"),
        ("a,b\n0,0\n9,0\n5,0\n", r"grid\.csv: grid grid: .*not increase downward at half-level 3 \(9 -> 5 Pa"),
        ("a,b\n0,0\nnan,0\n", r"coefficient 2 is not finite"),
        ("a,b\n", r"vectors of one length"),
    ],
)
def test_bad_csv_names_file_and_row(tmp_path, text, message):
    path = tmp_path / "grid.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        VerticalGrid.from_csv(path)


def test_unknown_grid():
    with pytest.raises(InputError, match=r"unknown vertical grid 'L60': take L91 or L137"):
        get_grid("L60")


def test_coefficients_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        L91.a_half[0] = 1.0


def test_isothermal_geopotential_is_logarithmic():
    t = np.full((1, 91), 250.0)
    half = L91.half_pressure(np.array([1e5]))
    phi = geopotential(t, half, np.array([1000.0]))
    r, alpha = hydrostatic_weights(half)
    # at the lower half-level of each layer
    below = 1000 + config.GAS_CONSTANT * 250 * np.log(1e5 / half[:, 1:])
    np.testing.assert_allclose(phi, below + config.GAS_CONSTANT * 250 * alpha, rtol=1e-12)
    assert alpha[0, 0] == np.log(2)
    assert r[0, 0] == 0
    assert (np.diff(phi) < 0).all()


def test_geopotential_of_layers_given_by_hand():
    half = np.array([[100.0, 200.0, 400.0]])
    t = np.array([[200.0, 300.0]])
    ln2 = np.log(2)
    lower = config.GAS_CONSTANT * 300 * (1 - ln2)
    upper = config.GAS_CONSTANT * (300 * ln2 + 200 * (1 - ln2))
    np.testing.assert_allclose(geopotential(t, half, np.array([0.0])), [[upper, lower]])


def test_levels_of_the_real_columns(samples):
    xr = pytest.importorskip("xarray")
    with xr.open_dataset(samples / "ifs_l137_columns.nc") as data:
        np.testing.assert_allclose(data.a_half, L137.a_half, atol=6e-4)
        np.testing.assert_allclose(data.b_half, L137.b_half, atol=6e-7)
