import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from ai4sim.errors import InputError, MissingFileError
from downscaling.corrdiff.readers import PairedDatasets
from downscaling.corrdiff.tests.synthetic_stores import (
    HOUR,
    START,
    affine,
    custom_coarse,
    custom_fine,
    custom_static,
    numbered,
    write_custom_pair,
)


def save(dataset: xr.Dataset, path: Path) -> str:
    if path.suffix == ".zarr":
        dataset.to_zarr(path, zarr_format=2, consolidated=True)
    else:
        dataset.to_netcdf(path, engine="h5netcdf")
    return str(path)


@pytest.fixture
def custom(tmp_path) -> dict[str, Any]:
    return write_custom_pair(tmp_path / "raw")


def pair(tmp_path: Path, coarse: xr.Dataset, fine: xr.Dataset, **settings: Any) -> PairedDatasets:
    """A data set of one coarse and one fine file."""
    files = {"inputs": [save(coarse, tmp_path / "coarse.nc")], "outputs": [save(fine, tmp_path / "fine.nc")]}
    return PairedDatasets(**({"time_dim": "when"} | files | settings))


class TestContent:
    def test_custom_names(self, custom):
        source = PairedDatasets(**custom)
        pairs = source.pairs
        assert [c.name for c in pairs.inputs] == ["wind850.0", "wind500.0", "t"]
        assert [(c.name, c.units, c.long_name) for c in pairs.outputs] == [
            ("gust", "m s-1", "wind gust"),
            ("temp", "K", ""),
        ]
        assert [c.name for c in pairs.static] == ["height", "land"]
        assert (pairs.input_shape, pairs.output_shape, pairs.factor) == ((12, 10), (60, 50), 5)
        assert pairs.corners is None
        fine = custom_fine()
        np.testing.assert_array_equal(pairs.times, fine["when"].values.astype("datetime64[s]"))
        np.testing.assert_allclose(pairs.latitude, fine["my_lat"], rtol=1e-6)
        np.testing.assert_allclose(pairs.longitude, fine["my_lon"], rtol=1e-6)
        np.testing.assert_array_equal(pairs.static_fields[0], numbered(60, 50))
        assert pairs.spacing_km == pytest.approx(3, rel=0.01)
        assert [path.name for path in pairs.files][:2] == ["coarse_0.nc", "coarse_2.nc"]
        outputs = source.read_outputs(slice(1, 6))
        np.testing.assert_array_equal(outputs[:, 0], fine["gust"].values[1:6])
        assert outputs.dtype == np.float32
        means = fine["gust"].values.reshape(8, 12, 5, 10, 5).mean(axis=(2, 4))
        found = source.read_inputs(slice(3, 7))
        np.testing.assert_allclose(found[:, 0], means[3:7], rtol=1e-6)
        np.testing.assert_allclose(found[:, 1], means[3:7] + 0.5, rtol=1e-6)

    def test_levels_and_defaults(self, custom):
        names = ("input_variables", "output_variables", "static_variables")
        found = PairedDatasets(**{k: v for k, v in custom.items() if k not in names}).pairs
        assert {c.name for c in found.inputs} == {"wind850.0", "wind500.0", "t"}
        assert {c.name for c in found.outputs} == {"gust", "temp"}
        assert {c.name for c in found.static} == {"height", "land"}
        source = PairedDatasets(**custom, levels=[500.0])
        assert [c.name for c in source.pairs.inputs] == ["wind500.0", "t"]

    def test_order_is_that_of_times_whatever_order_files_have(self, tmp_path):
        fine = custom_fine()
        coarse = custom_coarse(fine)
        whole = pair(tmp_path, coarse, fine)
        for start, name in ((0, "z"), (4, "a"), (6, "m")):
            part = slice(start, {0: 4, 4: 6, 6: 8}[start])
            save(fine.isel(when=part), tmp_path / f"f_{name}.nc")
            save(coarse.isel(when=part).isel(when=slice(None, None, -1)), tmp_path / f"c_{name}.nc")
        patterns = [str(tmp_path / f"f_{name}.nc") for name in "mz"] + [str(tmp_path / "f_*.nc")]
        for outputs in (patterns, patterns[::-1]):
            source = PairedDatasets([str(tmp_path / "c_*.nc")], outputs, time_dim="when")
            np.testing.assert_array_equal(source.pairs.times, whole.pairs.times)
            np.testing.assert_array_equal(source.read_outputs(slice(0, 8)), whole.read_outputs(slice(0, 8)))
            np.testing.assert_array_equal(source.read_inputs(slice(2, 7)), whole.read_inputs(slice(2, 7)))

    def test_common_times_and_those_excluded(self, tmp_path, caplog):
        fine = custom_fine()
        coarse = custom_coarse(fine)
        with caplog.at_level(logging.INFO):
            source = pair(tmp_path, coarse.isel(when=slice(2, 8)), fine.isel(when=[0, 2, 3, 5, 6]))
            assert source.pairs.times.tolist() == (START + HOUR * np.array([2, 3, 5, 6])).tolist()
        assert "4 times are in inputs and outputs; left out: 2 of the inputs, 1 of the outputs" in caplog.text
        np.testing.assert_array_equal(source.read_outputs(slice(1, 3))[:, 0], fine["gust"].values[[3, 5]])
        np.testing.assert_allclose(source.read_inputs(slice(1, 3))[:, 1], coarse["wind"].values[[3, 5], 1], rtol=1e-6)
        fewer = pair(tmp_path, coarse, fine, exclude_times=["2021-06-01T01", "2021-06-01T03:00"])
        assert len(fewer.pairs) == 6
        with pytest.raises(InputError, match=r"no time is left: inputs have 8 .*8 are common, 8 of these excluded"):
            _ = pair(tmp_path, coarse, fine, exclude_times=["2021-06"]).pairs
        with pytest.raises(InputError, match=r"exclude_times: 'June' is no time"):
            _ = pair(tmp_path, coarse, fine, exclude_times=["June"]).pairs
        other = fine.assign_coords(when=fine["when"] + np.timedelta64(30, "m"))
        with pytest.raises(InputError, match=r"no time is left: inputs have 8 from 2021-06-01T00:00:00 .*0 are common"):
            _ = pair(tmp_path, coarse, other).pairs

    def test_zarr_and_files_of_one_time(self, tmp_path):
        fine = custom_fine(3)
        coarse = custom_coarse(fine)
        stores = [save(fine.isel(when=i), tmp_path / f"fine_{i}.zarr") for i in range(3)]
        source = PairedDatasets([save(coarse, tmp_path / "coarse.zarr")], stores[::-1], time_dim="when")
        np.testing.assert_array_equal(source.read_outputs(slice(0, 3))[:, 0], fine["gust"].values)
        assert {path.name for path in source.pairs.files} == {".zmetadata"}
        assert len(source.pairs.files) == 4

    def test_missing_values_are_nan(self, tmp_path):
        fine = custom_fine(2)
        fine["gust"][1, 2, 3] = np.nan
        fine["gust"].encoding["_FillValue"] = -999.0
        found = pair(tmp_path, custom_coarse(fine), fine).read_outputs(slice(0, 2))
        assert np.argwhere(np.isnan(found)).tolist() == [[1, 0, 2, 3]]

    def test_axes_of_latitude_and_longitude(self, tmp_path):
        axes = {"lat": 50 - 0.1 * np.arange(20), "lon": 5 + 0.1 * np.arange(30)}
        fine = xr.Dataset(
            {"t": (("time", "lat", "lon"), numbered(2, 20, 30))}, axes | {"time": START + HOUR * np.arange(2)}
        )
        coarse = fine.coarsen(lat=5, lon=5).mean()
        source = pair(tmp_path, coarse, fine, time_dim="time")
        assert (source.pairs.factor, source.pairs.latitude[0, 0]) == (5, 50)
        assert source.pairs.longitude[3, 29] == pytest.approx(7.9)

    def test_coarse_fields_in_the_opposite_order_are_turned(self, tmp_path, caplog):
        fine = custom_fine(2)
        coarse = custom_coarse(fine)
        expected = pair(tmp_path, coarse, fine).read_inputs(slice(0, 2))
        for axes, words in (
            (["j"], "rows are turned"),
            (["i"], "columns are turned"),
            (["i", "j"], "rows and columns"),
        ):
            caplog.clear()
            turned = coarse.isel({axis: slice(None, None, -1) for axis in axes})
            with caplog.at_level(logging.INFO):
                source = pair(tmp_path, turned, fine)
                np.testing.assert_array_equal(source.read_inputs(slice(0, 2)), expected)
            assert words in caplog.text

    def test_static_fields_are_turned_like_the_fine_ones(self, tmp_path):
        fine = custom_fine(2)
        turned = custom_static(fine).isel(j=slice(None, None, -1))
        source = pair(tmp_path, custom_coarse(fine), fine, static=save(turned, tmp_path / "static.nc"))
        np.testing.assert_array_equal(source.pairs.static_fields[0], numbered(60, 50))

    def test_static_fields_of_the_fine_files(self, tmp_path):
        fine = custom_fine(2)
        fine["hgt"] = fine["gust"].copy(data=np.stack([numbered(60, 50)] * 2))
        source = pair(
            tmp_path, custom_coarse(fine), fine, output_variables=["temp"], static_variables=["hgt"]
        )  # fmt: skip
        np.testing.assert_array_equal(source.pairs.static_fields, numbered(1, 60, 50))

    def test_without_coordinates(self, tmp_path, caplog):
        fine = custom_fine(2).drop_vars(["my_lat", "my_lon"])
        coarse = custom_coarse(custom_fine(2))
        pairs = pair(tmp_path, coarse, fine).pairs
        assert pairs.factor == 5
        assert np.isnan(pairs.latitude).all()
        assert "the fine grid has no latitude and longitude" in caplog.text

    def test_without_outputs(self, tmp_path):
        fine = custom_fine(2)
        coarse = save(custom_coarse(fine), tmp_path / "coarse.nc")
        static = save(custom_static(fine), tmp_path / "static.nc")
        source = PairedDatasets([coarse], static=static, time_dim="when")
        assert (source.pairs.outputs, source.pairs.output_shape, source.pairs.factor) == ((), (60, 50), 5)
        assert source.read_outputs(slice(0, 2)).shape == (2, 0, 60, 50)
        assert source.read_inputs(slice(0, 2)).shape == (2, 3, 12, 10)
        with pytest.raises(InputError, match=r"there are no outputs: give the static fields"):
            _ = PairedDatasets([coarse], time_dim="when").pairs

    def test_inputs_on_the_fine_grid(self, tmp_path):
        fine = custom_fine(2)
        source = pair(tmp_path, fine, fine, factor=1)
        assert (source.pairs.factor, source.pairs.input_shape) == (1, (60, 50))
        np.testing.assert_array_equal(source.read_inputs(slice(0, 2)), source.read_outputs(slice(0, 2)))

    def test_regrid(self, tmp_path):
        fine = custom_fine(2)
        lat, lon = np.meshgrid(np.arange(45.0, 35.0, -0.5), np.arange(255.0, 270.0, 0.5), indexing="ij")
        times = {"when": fine["when"], "latitude": lat[:, 0], "longitude": lon[0]}
        values = np.stack([affine(lat, lon)] * 2)
        coarse = xr.Dataset({"t2m": (("when", "latitude", "longitude"), values)}, times)
        source = pair(tmp_path, coarse, fine, factor=5, regrid=True)
        assert source.pairs.input_shape == (12, 10)
        block = affine(fine["my_lat"].values, fine["my_lon"].values).reshape(12, 5, 10, 5).mean(axis=(1, 3))
        np.testing.assert_allclose(source.read_inputs(slice(0, 2))[1, 0], block, atol=5e-3)
        with pytest.raises(InputError, match=r"regrid needs factor"):
            _ = pair(tmp_path, coarse, fine, regrid=True).pairs
        with pytest.raises(InputError, match=r"\(60, 50\) points \(y, x\), no multiples of factor 7"):
            _ = pair(tmp_path, coarse, fine, regrid=True, factor=7).pairs
        with pytest.raises(InputError, match=r"coarse.nc reaches from latitude 39.50 to 45.00, .* does not cover them"):
            _ = pair(tmp_path, coarse.isel(latitude=slice(0, 12)), fine, regrid=True, factor=5).pairs
        nowhere = fine.drop_vars(["my_lat", "my_lon"])
        with pytest.raises(InputError, match=r"regrid needs latitude and longitude, which the fine grid lacks"):
            _ = pair(tmp_path, coarse, nowhere, regrid=True, factor=5).pairs

    def test_relative_paths(self, custom, tmp_path):
        moved = {"inputs": ["coarse_*.nc"], "outputs": ["fine_0.nc"], "static": "static.nc"}
        source = PairedDatasets(**(custom | moved)).below(tmp_path / "raw")
        assert len(source.pairs) == 2
        assert source.settings() == PairedDatasets(**custom).settings()
        url = PairedDatasets(["s3://bucket/a.zarr"]).below(tmp_path)
        assert url.inputs == ["s3://bucket/a.zarr"]


class TestFaults:
    def test_no_files(self, custom, tmp_path):
        with pytest.raises(MissingFileError, match=r"era5/\*.nc \(inputs\) is not there"):
            _ = PairedDatasets(**(custom | {"inputs": [str(tmp_path / "era5/*.nc")]})).pairs
        with pytest.raises(MissingFileError, match=r"a.nc \(outputs\) is not there"):
            _ = PairedDatasets(**(custom | {"outputs": [str(tmp_path / "a.nc")]})).pairs
        with pytest.raises(MissingFileError, match=r"a.nc \(static fields\) is not there"):
            _ = PairedDatasets(**(custom | {"static": str(tmp_path / "a.nc")})).pairs
        with pytest.raises(MissingFileError, match=r"no files are given for inputs"):
            _ = PairedDatasets(**(custom | {"inputs": []})).pairs

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"input_variables": ["q"]}, r"coarse_0.nc \(inputs\) has no variable 'q'; it has .*wind"),
            ({"output_variables": ["q"]}, r"fine_0.nc \(outputs\) has no variable 'q'; it has .*gust"),
            ({"static_variables": ["q"]}, r"static.nc \(static fields\) has no variable 'q'; it has .*height"),
            ({"static_variables": ["my_lat"], "latitude": "nowhere"}, r"fine_0.nc has no latitude 'nowhere'"),
            ({"levels": [700.0]}, r"coarse_0.nc: 'wind' has no level 700 along 'pressure'; it has 850.0, 500.0"),
            ({"levels": [850.0], "input_variables": ["t"]}, r"levels 850.0 are given, but no variable .* has levels"),
            ({"time_dim": "time"}, r"coarse_0.nc \(inputs\) has no dimension 'time'; it has .*when"),
            ({"factor": 4}, r"factor is 4, but .*coarse_0.nc \(inputs\) and the fine grid have 5 points along a cell"),
            ({"factor": 0}, r"factor is 0; expected 1 or more"),
        ],
    )
    def test_names(self, custom, change, message):
        with pytest.raises(InputError, match=message):
            _ = PairedDatasets(**(custom | change)).pairs

    def test_shapes(self, tmp_path):
        fine = custom_fine(2)
        coarse = custom_coarse(fine)
        with pytest.raises(InputError, match=r"coarse.nc.*60 x 50 fine points on 12 x 9 coarse cells .*5 and 5.55"):
            _ = pair(tmp_path, coarse.isel(i=slice(0, 9)), fine).pairs
        with pytest.raises(InputError, match=r"60 x 50 fine points on 6 x 10 coarse cells \(y, x\) are 10 and 5"):
            _ = pair(tmp_path, coarse.isel(j=slice(0, 6)), fine).pairs
        small = save(custom_static(fine).isel(j=slice(0, 50)), tmp_path / "static.nc")
        with pytest.raises(InputError, match=r"static.nc .*'land' has shape \(50, 50\), expected \(60, 50\)"):
            _ = pair(tmp_path, coarse, fine, static=small, static_variables=["land"]).pairs
        with pytest.raises(
            InputError, match=r"static.nc .*has no variable of shape \(60, 50\); it has height \(50, 50\)"
        ):
            _ = pair(tmp_path, coarse, fine, static=small).pairs

    def test_areas(self, tmp_path):
        fine = custom_fine(2)
        shifted = custom_coarse(fine)
        north = float(np.diff(shifted["lat"].values, axis=0).mean())
        shifted = shifted.assign_coords(lat=shifted["lat"] - 0.8 * north)
        expected = (
            r"coarse cells of .*coarse.nc do not cover the fine points of .*fine.nc: .* shifted by 0.8\d rows and"
        )
        with pytest.raises(InputError, match=rf"{expected} -?0.0\d columns of cells of 15 km"):
            _ = pair(tmp_path, shifted, fine).pairs
        near = custom_coarse(fine)
        assert len(pair(tmp_path, near.assign_coords(lat=near["lat"] - 0.3 * north), fine).pairs) == 2

    def test_times(self, tmp_path):
        fine = custom_fine(4)
        coarse = custom_coarse(fine)
        again = save(fine.isel(when=[1, 2]), tmp_path / "again.nc")
        source = pair(tmp_path, coarse, fine)
        with pytest.raises(InputError, match=r"outputs: the time 2021-06-01T01:00:00 is there twice, in .*again.nc"):
            _ = PairedDatasets(source.inputs, [*source.outputs, again], time_dim="when").pairs
        with pytest.raises(InputError, match=r"fine.nc: 'when' holds no dates of the standard calendar but int"):
            _ = pair(tmp_path, coarse, fine.assign_coords(when=np.arange(4))).pairs

    def test_files_that_differ(self, tmp_path):
        fine = custom_fine(4)
        coarse = custom_coarse(fine)
        files = [save(fine.isel(when=slice(0, 2)), tmp_path / "a.nc")]
        inputs = [save(coarse, tmp_path / "coarse.nc")]
        last = fine.isel(when=slice(2, 4))
        other = [*files, save(last.drop_vars("temp"), tmp_path / "b.nc")]
        with pytest.raises(InputError, match=r"b.nc \(outputs\) has no variable 'temp', which .*a.nc has; it has gust"):
            _ = PairedDatasets(inputs, other, time_dim="when").pairs
        other = [*files, save(last.isel(j=slice(0, 50)), tmp_path / "c.nc")]
        with pytest.raises(InputError, match=r"c.nc .*has \(50, 50\) entries along \('j', 'i'\), in .*a.nc \(60, 50\)"):
            _ = PairedDatasets(inputs, other, time_dim="when").pairs

    def test_truncated_file(self, custom, tmp_path):
        path = tmp_path / "raw" / "fine_2.nc"
        path.write_bytes(path.read_bytes()[:3000])
        with pytest.raises(InputError, match=r"fine_2.nc \(outputs\) is no NetCDF file that can be read"):
            _ = PairedDatasets(**custom).pairs
