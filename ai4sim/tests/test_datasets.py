"""Opening NetCDF files and Zarr stores of others."""

import h5py
import numpy as np
import pytest
import xarray as xr

from ai4sim import datasets
from ai4sim.datasets import open_dataset
from ai4sim.errors import InputError, MissingFileError


def both(path) -> tuple[xr.Dataset, xr.Dataset]:
    """What is read at once, and what xarray reads."""
    small = datasets._read_small(str(path))
    assert small is not None
    return open_dataset(path, "test"), xr.open_dataset(path, engine="h5netcdf", decode_timedelta=False).load()


def check(path) -> xr.Dataset:
    """That both are the same, and of the same types."""
    found, expected = both(path)
    xr.testing.assert_identical(found, expected)
    assert set(found.coords) == set(expected.coords)
    for name in expected.variables:
        assert found[name].dtype == expected[name].dtype, name
        assert found[name].dims == expected[name].dims, name
        for key, value in expected[name].attrs.items():
            own = found[name].attrs[key]
            assert np.asarray(own).dtype == np.asarray(value).dtype, key
            assert np.shape(own) == np.shape(value), key
    return found


def write(path, dataset: xr.Dataset, **encoding) -> None:
    dataset.to_netcdf(path, engine="h5netcdf", encoding=encoding)


@pytest.fixture
def fields() -> xr.Dataset:
    rng = np.random.default_rng(0)
    return xr.Dataset(
        {
            "height": (("y", "x"), rng.normal(0, 100, (4, 5)).astype(np.float32), {"units": "m"}),
            "rain": (("time", "y", "x"), rng.gamma(0.5, 2, (3, 4, 5)), {"units": "mm", "valid_range": [0.0, 200.0]}),
            "kind": (("y", "x"), rng.integers(0, 9, (4, 5)).astype(np.int16)),
            "flag": ("x", np.array([0, 1, 0, 1, 1], np.int8), {"flag_values": np.array([0, 1], np.int8)}),
            "projection": ((), np.int32(0), {"standard_parallel": [38.5, 40.0], "radius": 6371229.0}),
        },
        coords={
            "time": np.array(["2025-12-01T00", "2025-12-01T06", "2025-12-02"], "datetime64[ns]"),
            "x": ("x", np.arange(5.0), {"units": "km"}),
            "latitude": (("y", "x"), rng.uniform(40, 45, (4, 5))),
            "start": ((), np.datetime64("2025-11-30T12", "ns")),
            "station": ("y", np.array(["Bend", "Salem", "Élan", ""])),
        },
        attrs={"title": "fields", "numbers": [1, 2, 3], "one": 1.5},
    )


def test_fields_times_texts_and_scalars(tmp_path, fields):
    write(tmp_path / "a.nc", fields)
    found = check(tmp_path / "a.nc")
    assert found["station"].values.tolist() == ["Bend", "Salem", "Élan", ""]
    assert found["start"].values == np.datetime64("2025-11-30T12")
    assert found["rain"].attrs["valid_range"].tolist() == [0, 200]
    assert isinstance(found.attrs["title"], str)
    assert found.attrs["one"] == 1.5


def test_packed_values_and_gaps(tmp_path, fields):
    fields["rain"][1, 2, 3] = np.nan
    packing = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 5.0, "_FillValue": -1}
    unsigned = {"dtype": "uint8", "_FillValue": 255}
    write(tmp_path / "a.nc", fields, rain=packing, height={"_FillValue": 9.97e36}, kind=unsigned)
    found = check(tmp_path / "a.nc")
    assert np.isnan(found["rain"].values[1, 2, 3])
    np.testing.assert_allclose(found["rain"], fields["rain"], atol=0.005001)
    assert "_FillValue" in found["rain"].encoding


def test_compressed_and_unlimited(tmp_path, fields):
    options = {"encoding": {"rain": {"zlib": True, "chunksizes": (1, 4, 5)}}, "unlimited_dims": ["time"]}
    fields.to_netcdf(tmp_path / "a.nc", engine="h5netcdf", **options)
    check(tmp_path / "a.nc")


def test_lead_times_stay_numbers(tmp_path):
    leads = xr.Dataset(coords={"step": ("step", np.array([6, 24]), {"units": "hours"})})
    write(tmp_path / "a.nc", leads)
    found = check(tmp_path / "a.nc")
    assert found["step"].values.tolist() == [6, 24]
    assert found["step"].attrs == {"units": "hours"}


def test_dimensions_without_coordinates_and_of_big_endian(tmp_path):
    with h5py.File(tmp_path / "a.nc", "w") as file:
        for name, size in (("y", 3), ("x", 4)):
            file.create_dataset(name, shape=size, dtype=">f4").make_scale(
                f"This is a netCDF dimension but not a netCDF variable.{size:10d}"
            )
        values = file.create_dataset("values", data=np.arange(12, dtype=">f8").reshape(3, 4))
        for axis, name in enumerate("yx"):
            values.dims[axis].attach_scale(file[name])
        values.attrs["units"] = "K"
        values.attrs["level"] = np.array([850.0])
    found = check(tmp_path / "a.nc")
    assert list(found.variables) == ["values"]
    assert found["values"].dims == ("y", "x")


def test_texts_of_fixed_length_and_attributes_of_all_kinds(tmp_path):
    with h5py.File(tmp_path / "a.nc", "w") as file:
        file.create_dataset("n", shape=2, dtype=">f4").make_scale(
            "This is a netCDF dimension but not a netCDF variable.         2"
        )
        names = file.create_dataset("names", data=["one", "two"], dtype=h5py.string_dtype())
        names.dims[0].attach_scale(file["n"])
        names.attrs["fixed"] = np.bytes_("text")
        names.attrs["several"] = ["a", "b"]
        names.attrs["single"] = np.array(["c"], dtype=object)
        names.attrs["empty"] = h5py.Empty("S1")
    check(tmp_path / "a.nc")


@pytest.mark.parametrize("what", ["group", "plain", "longer", "longer dimension", "characters"])
def test_what_is_no_plain_file_is_left_to_xarray(tmp_path, fields, what):
    path = tmp_path / "a.nc"
    if what == "group":
        write(path, fields)
        fields[["height"]].to_netcdf(path, engine="h5netcdf", mode="a", group="other")
    elif what == "plain":
        with h5py.File(path, "w") as file:
            file["values"] = np.zeros((3, 4))
    elif what == "characters":
        fields["station"] = ("y", np.array([b"Bend", b"Salem", b"Ely", b""]))
        write(path, fields)
    elif what == "longer dimension":
        with h5py.File(path, "w") as file:
            step = file.create_dataset("step", shape=3, dtype=">f4", maxshape=(None,))
            step.make_scale("This is a netCDF dimension but not a netCDF variable.         3")
            short = file.create_dataset("short", data=np.arange(2.0), maxshape=(None,), fillvalue=-9.0)
            short.dims[0].attach_scale(step)
    else:
        # of two variables along an unlimited dimension one may be shorter in the file
        with h5py.File(path, "w") as file:
            time = file.create_dataset("time", data=np.arange(3.0), maxshape=(None,))
            time.make_scale("time")
            short = file.create_dataset("short", data=np.arange(2.0), maxshape=(None,), fillvalue=-9.0)
            short.dims[0].attach_scale(time)
    assert datasets._read_small(str(path)) is None
    if what in ("group", "characters"):
        xr.testing.assert_identical(open_dataset(path, "test").load(), fields)


def test_large_files_are_read_when_they_are_used(tmp_path, fields, monkeypatch):
    write(tmp_path / "a.nc", fields)
    monkeypatch.setattr(datasets, "SMALL", 100)
    with open_dataset(tmp_path / "a.nc", "test") as found:
        assert not found["rain"].variable._in_memory
        xr.testing.assert_identical(found.load(), fields)


def test_stores(tmp_path, fields):
    fields.to_zarr(tmp_path / "a.zarr", zarr_format=2, consolidated=True)
    xr.testing.assert_equal(open_dataset(tmp_path / "a.zarr", "test"), fields)


def test_the_file_is_closed(tmp_path, fields):
    write(tmp_path / "a.nc", fields)
    found = open_dataset(tmp_path / "a.nc", "test")
    write(tmp_path / "a.nc", fields * 2)
    xr.testing.assert_equal(found["rain"], fields["rain"])


def test_files_that_are_missing_or_damaged_are_named(tmp_path, fields):
    with pytest.raises(MissingFileError, match=r"b\.nc \(terrain\) is not there; give a NetCDF file or a Zarr store"):
        open_dataset(tmp_path / "b.nc", "terrain")
    write(tmp_path / "a.nc", fields)
    content = (tmp_path / "a.nc").read_bytes()
    message = r"a\.nc \(terrain\) is no NetCDF file that can be read, it may be truncated: "
    for damaged in (content[:-200], content[: len(content) // 2], content[:4], b"", b"text" * 50):
        (tmp_path / "a.nc").write_bytes(damaged)
        with pytest.raises(InputError, match=message):
            open_dataset(tmp_path / "a.nc", "terrain")
    with pytest.raises(InputError, match=r" \(terrain\) is no Zarr store that can be read"):
        open_dataset(tmp_path, "terrain")
