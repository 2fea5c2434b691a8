"""Raw files in every layout in which the public data exist, and every fault they can have."""

import h5py
import numpy as np
import pytest

from ai4sim.errors import InputError
from weather_forecast.gwd.layout import ColumnLayout
from weather_forecast.gwd.raw import RawFile, bad_rows, find_file

LAYOUT = ColumnLayout()
TIMES, COLUMNS = 3, 5
ROWS = TIMES * COLUMNS


@pytest.fixture
def rows() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 20, (ROWS, 191)).astype(np.float32)
    x[:, LAYOUT.slice_of("t")] = rng.uniform(180, 300, (ROWS, 63))
    x[:, LAYOUT.slice_of("surface_pressure")] = rng.uniform(6e4, 1.05e5, (ROWS, 1))
    return {
        "x": x,
        "y": rng.normal(0, 1e-5, (ROWS, 126)).astype(np.float32),
        "lat": rng.uniform(-90, 90, ROWS).astype("f4"),
    }


def write(path, arrays):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return path


ARRANGEMENTS = {
    "feature, time, column": lambda v: np.moveaxis(v.reshape(TIMES, COLUMNS, -1), -1, 0),
    "time, column, feature": lambda v: v.reshape(TIMES, COLUMNS, -1),
    "time, feature, column": lambda v: np.moveaxis(v.reshape(TIMES, COLUMNS, -1), -1, 1),
    "feature, row": lambda v: v.T,
    "row, feature": lambda v: v,
}


@pytest.mark.parametrize("arrange", ARRANGEMENTS.values(), ids=ARRANGEMENTS)
@pytest.mark.parametrize("suffix", [".h5", ".nc"])
def test_all_arrangements_give_identical_rows(tmp_path, rows, arrange, suffix):
    lat = rows["lat"].reshape(TIMES, COLUMNS) if arrange(rows["x"]).ndim == 3 else rows["lat"]
    path = write(tmp_path / f"2015-01-01{suffix}", {"x": arrange(rows["x"]), "y": arrange(rows["y"]), "lat": lat})
    file = RawFile.open(path, LAYOUT)
    assert file.n_rows == ROWS
    for start, stop in ((0, ROWS), (2, 11), (5, 10), (7, 8), (4, 4)):
        values = file.read(start, stop)
        for name in rows:
            np.testing.assert_array_equal(values[name], rows[name][start:stop], err_msg=f"{name} {start}:{stop}")


def test_rows_of_one_time_are_one_block(tmp_path, rows):
    arrange = ARRANGEMENTS["feature, time, column"]
    file = RawFile.open(write(tmp_path / "a.h5", {k: arrange(rows[k]) for k in "xy"}), LAYOUT)
    assert file.rows_per_block == COLUMNS
    assert file.auxiliaries == ()


def test_extra_inputs_come_from_the_auxiliaries(tmp_path, rows):
    path = write(tmp_path / "a.h5", {"x": rows["x"].T, "y": rows["y"].T, "lat": rows["lat"]})
    layout = ColumnLayout(scalars=("surface_pressure", "geopotential", "lat"))
    x = RawFile.open(path, layout).read(0, ROWS)["x"]
    assert x.shape == (ROWS, 192)
    np.testing.assert_array_equal(x[:, 191], rows["lat"])
    without = write(tmp_path / "b.h5", {"x": rows["x"].T, "y": rows["y"].T})
    with pytest.raises(InputError, match=r"b\.h5: extra input 'lat' is missing; the file has x, y"):
        RawFile.open(without, layout)


def faults():
    def missing(rows):
        return {"x": rows["x"].T}, r"variable 'y' is missing; the file has x"

    def other_levels(rows):
        return {"x": rows["x"][:, :155].T, "y": rows["y"].T}, (
            r"x has shape \(155, 15\) with no axis of length 191; expected one feature axis of 191 \(63 levels\)"
        )

    def ambiguous(rows):
        square = np.zeros((191, 191), np.float32)
        return {"x": square, "y": rows["y"].T}, r"2 axes of length 191"

    def other_rows(rows):
        return {"x": rows["x"].T, "y": rows["y"][:7].T}, r"x has rows of shape \(15,\) and y of \(7,\)"

    def other_latitudes(rows):
        return {"x": rows["x"].T, "y": rows["y"].T, "lat": rows["lat"][:3]}, r"'lat' has shape \(3,\), expected \(15,\)"

    return [missing, other_levels, ambiguous, other_rows, other_latitudes]


@pytest.mark.parametrize("fault", faults(), ids=lambda fault: fault.__name__)
def test_faults_name_file_shape_and_expectation(tmp_path, rows, fault):
    arrays, message = fault(rows)
    path = write(tmp_path / "2015-01-01.h5", arrays)
    with pytest.raises(InputError, match=message) as error:
        RawFile.open(path, LAYOUT)
    assert str(path) in str(error.value)


def test_a_truncated_file_says_so(tmp_path, rows):
    path = write(tmp_path / "2015-01-01.h5", {k: rows[k].T for k in "xy"})
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(InputError, match=r"2015-01-01\.h5: truncated or not HDF5"):
        RawFile.open(path, LAYOUT)
    path.write_text("not at all")
    with pytest.raises(InputError, match="truncated or not HDF5"):
        RawFile.open(path, LAYOUT)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (2 * 63 + 16, 80.0, r"T level 17 is 80, expected 100 to 350"),
        (0, 301.0, r"u level 1 is 301, expected -300 to 300"),
        (189, 9.9e4 * 10, r"surface_pressure is 990000, expected 30000 to 110000"),
        (190, np.inf, r"geopotential is inf"),
        (70, np.nan, r"v level 8 is nan, expected -300 to 300"),
    ],
)
def test_impossible_inputs_are_found_and_named(rows, column, value, message):
    rows["x"][4, column] = value
    mask, reason = bad_rows(rows["x"], rows["y"], LAYOUT)
    assert np.flatnonzero(mask).tolist() == [4]
    assert reason == message.replace("\\", "")


def test_impossible_targets_are_found_and_good_rows_pass(rows):
    assert bad_rows(rows["x"], rows["y"], LAYOUT)[1] == ""
    rows["y"][[3, 9], 63] = np.nan
    mask, reason = bad_rows(rows["x"], rows["y"], LAYOUT)
    assert np.flatnonzero(mask).tolist() == [3, 9]
    assert reason == "dvdt level 1 is nan"


def test_a_missing_date_lists_those_that_are_there(tmp_path, rows):
    write(tmp_path / "2015-01-31.h5", {k: rows[k] for k in "xy"})
    assert find_file(tmp_path, "2015-01-31").name == "2015-01-31.h5"
    with pytest.raises(InputError, match=r"no file for the start date 2015-01-01 .*: the folder has 2015-01-31"):
        find_file(tmp_path, "2015-01-01")
    with pytest.raises(InputError, match=r"the folder has no \.h5, \.hdf5 or \.nc file"):
        find_file(tmp_path / "nowhere", "2015-01-01")
