import numpy as np
import pytest
import xarray as xr

from ai4sim.errors import InputError
from ai4sim.schema import Schema, SchemaError, Variable

SCHEMA = Schema(
    "columns",
    version=2,
    variables=(
        Variable("t", ("sample", "level"), "K", valid_range=(100, 350), standard_name="air_temperature"),
        Variable("lat", ("sample",), "degrees_north", optional=True),
    ),
    sizes={"level": 3},
)


def dataset(values=None, dims=("sample", "level"), units="K") -> xr.Dataset:
    values = np.full((4, 3), 250, np.float32) if values is None else values
    return xr.Dataset({"t": (dims, values, {"units": units} if units else {})})


def test_a_data_set_that_follows_the_schema_passes():
    SCHEMA.check(dataset(), "a.nc", values=True)
    # any float will do, and blanks in units mean nothing
    SCHEMA.check(dataset(np.full((4, 3), 250.0), units=" K "), "a.nc", values=True)


def test_attributes_follow_cf():
    assert SCHEMA["t"].attrs == {"units": "K", "standard_name": "air_temperature"}


def test_every_problem_is_listed_with_file_variable_found_and_expected():
    wrong = xr.Dataset(
        {
            "t": (("level", "sample"), np.zeros((5, 2), np.int32), {"units": "degC"}),
            "lat": ("sample", np.zeros(2)),
        }
    )
    with pytest.raises(SchemaError) as error:
        SCHEMA.check(wrong, "raw/2015.nc")
    lines = str(error.value).splitlines()
    assert lines[0] == "raw/2015.nc does not follow the schema 'columns':"
    assert lines[1:] == [
        "  - variable 't' has dimensions (level, sample), expected (sample, level)",
        "  - variable 't' has 5 entries along 'level', expected 3",
        "  - variable 't' is in 'degC', expected units 'K'",
        "  - variable 't' is of type int32, expected float32",
        "  - variable 'lat' has no attribute 'units', expected 'degrees_north'",
    ]
    assert isinstance(error.value, InputError)


def test_missing_variable_names_what_there_is():
    with pytest.raises(SchemaError, match=r"variable 't' is missing; the file holds \(q\)"):
        SCHEMA.check(xr.Dataset({"q": ("sample", [1.0])}), "a.nc")


def test_bad_values_are_counted_and_the_first_one_located():
    values = np.full((4, 3), 250, np.float32)
    values[1, 2] = np.nan
    values[2, 0] = np.inf
    values[3, 1] = 20
    with pytest.raises(SchemaError) as error:
        SCHEMA.check(dataset(values), "a.nc", values=True)
    assert "'t' has 2 of 12 values (first at sample=1, level=2) missing or infinite" in str(error.value)
    assert (
        "'t' has 1 of 12 values (first at sample=3, level=1) outside the valid range 100 .. 350 K"
        " (found 20 .. 250)" in str(error.value)
    )
    SCHEMA.check(dataset(values), "a.nc")  # only asked to look at the shape


def test_unknown_name_lists_the_known():
    with pytest.raises(KeyError, match="has no variable 'q'; it has t, lat"):
        SCHEMA["q"]
