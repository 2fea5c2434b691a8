import logging

import numpy as np
import pytest

from ai4sim.errors import InputError, MissingFileError
from downscaling.corrdiff.readers import Cwa, Moments
from downscaling.corrdiff.tests.synthetic_stores import CWB, ERA5, cwa_fields, write_cwa

CROP = (16, 20)


@pytest.fixture
def fields() -> dict[str, np.ndarray]:
    return cwa_fields()


def cwa(tmp_path, fields, **settings) -> Cwa:
    return Cwa(str(write_cwa(tmp_path / "cwb.zarr", fields)), **({"crop": CROP} | settings))


class TestContent:
    def test_by_default(self, tmp_path, fields):
        source = cwa(tmp_path, fields)
        pairs = source.pairs
        assert [c.name for c in pairs.inputs] == [
            "tcwv", "geopotential_height500.0", "temperature500.0", "geopotential_height850.0", "temperature850.0",
            "temperature_2m", "eastward_wind_10m", "northward_wind_10m",
        ]  # fmt: skip
        assert [c.name for c in pairs.outputs] == list(CWB)
        assert (pairs.inputs[4].units, pairs.inputs[4].long_name) == ("K", "temperature at 850 hPa")
        assert (pairs.input_shape, pairs.output_shape, pairs.factor) == (CROP, CROP, 1)
        assert pairs.times[[0, -1]].astype(str).tolist() == ["2018-01-01T00:00:00", "2018-01-01T07:00:00"]
        np.testing.assert_array_equal(pairs.latitude, fields["XLAT"][:16, :20])
        np.testing.assert_array_equal(pairs.longitude, fields["XLONG"][:16, :20])
        assert pairs.static_fields.shape == (0, *CROP)
        assert pairs.spacing_km == pytest.approx(2, rel=0.01)
        assert [path.name for path in pairs.files] == [".zmetadata"]
        numbers = [0, 1, 2, 5, 6, 7, 8, 9]
        np.testing.assert_array_equal(source.read_inputs(slice(2, 5)), fields["era5"][2:5, numbers, :16, :20])
        np.testing.assert_array_equal(source.read_outputs(slice(2, 5)), fields["cwb"][2:5, :, :16, :20])

    def test_channels_by_name_whatever_their_place(self, tmp_path, fields):
        order = [2, 0, 3, 1]
        for name in ("cwb_variable", "cwb_pressure", "cwb_center", "cwb_scale"):
            fields[name] = fields[name][order]
        truth = fields["cwb"].copy()
        fields["cwb"] = fields["cwb"][:, order]
        source = cwa(tmp_path, fields, inputs=["temperature700.0", "tcwv"], outputs=[CWB[3], CWB[0]])
        np.testing.assert_array_equal(source.read_outputs(slice(0, 8)), truth[:, [3, 0], :16, :20])
        np.testing.assert_array_equal(source.read_inputs(slice(0, 8)), fields["era5"][:, [4, 0], :16, :20])
        assert source.statistics("v1").output == {CWB[3]: Moments(3.0, 4.0), CWB[0]: Moments(0.0, 1.0)}

    def test_only_times_that_are_valid(self, tmp_path, fields):
        fields["cwb_valid"][3] = 0
        fields["era5_valid"][5, 2] = False
        source = cwa(tmp_path, fields)
        kept = [0, 1, 2, 4, 6, 7]
        assert source.pairs.times.astype("datetime64[h]").astype(int).tolist() == [420768 + k for k in kept]
        np.testing.assert_array_equal(source.read_outputs(slice(1, 5)), fields["cwb"][kept[1:5], :, :16, :20])

    def test_zeros_are_values_and_nan_is_missing(self, tmp_path, fields):
        fields["cwb"][...] = 0
        fields["cwb"][1, 2, 3, 4] = np.nan
        found = cwa(tmp_path, fields).read_outputs(slice(0, 8))
        assert np.argwhere(np.isnan(found)).tolist() == [[1, 2, 3, 4]]

    def test_dates_and_other_sizes(self, tmp_path, fields):
        fields["time"] = np.datetime64("2021-01-01T00", "ns") + np.timedelta64(1, "h") * np.arange(8)[::-1]
        source = cwa(tmp_path, fields, crop=None)
        assert source.pairs.output_shape == (24, 26)
        assert str(source.pairs.times[0]) == "2021-01-01T00:00:00"
        np.testing.assert_array_equal(source.read_outputs(slice(0, 8)), fields["cwb"][::-1])

    def test_coarsened_inputs(self, tmp_path, fields):
        source = cwa(tmp_path, fields, inputs=["tcwv"], coarsen_input_factor=4)
        assert (source.pairs.input_shape, source.pairs.factor, source.pairs.output_shape) == ((4, 5), 4, CROP)
        np.testing.assert_allclose(
            source.read_inputs(slice(0, 2))[1, 0, 2, 3], fields["era5"][1, 0, 8:12, 12:16].mean(), rtol=1e-6
        )
        np.testing.assert_array_equal(source.read_outputs(slice(0, 1)), fields["cwb"][:1, :, :16, :20])

    def test_statistics(self, tmp_path, fields):
        source = cwa(tmp_path, fields)
        first, second = source.statistics("v1"), source.statistics()
        assert first.input == second.input
        assert first.input["temperature850.0"] == (6.0, 7.0, "none")
        assert first.output["maximum_radar_reflectivity"] == (0.0, 1.0, "none")
        assert second.output["maximum_radar_reflectivity"] == (25.0, 25.0, "none")
        assert second.output["northward_wind_10m"] == (0.0, 20.0, "none")
        assert second.output["temperature_2m"] == first.output["temperature_2m"] == (1.0, 2.0, "none")

    def test_without_consolidated_metadata(self, tmp_path, fields, caplog):
        path = write_cwa(tmp_path / "cwb.zarr", fields, consolidated=False)
        with caplog.at_level(logging.WARNING):
            source = Cwa(str(path), crop=CROP)
            assert len(source.pairs) == 8
        assert f"{path} has no consolidated metadata" in caplog.text
        assert {"cwb/.zarray", "time/.zarray"} < {str(file.relative_to(path)) for file in source.pairs.files}


class TestFaults:
    def test_no_store(self, tmp_path):
        with pytest.raises(MissingFileError, match=r"cwb.zarr \(CWA\) is not there"):
            _ = Cwa(str(tmp_path / "cwb.zarr")).pairs
        (tmp_path / "cwb.zarr").mkdir()
        with pytest.raises(InputError, match=r"cwb.zarr \(CWA\) is no Zarr store"):
            _ = Cwa(str(tmp_path / "cwb.zarr")).pairs

    def test_no_channel(self, tmp_path, fields):
        path = str(write_cwa(tmp_path / "cwb.zarr", fields))
        with pytest.raises(
            InputError, match=r"'era5' has no channel 'temperature925.0'; it has tcwv, .*temperature850"
        ):
            _ = Cwa(path, ["temperature925.0"], crop=CROP).pairs
        with pytest.raises(InputError, match=r"'cwb' has no channel 'gust'; it has maximum_radar_reflectivity"):
            _ = Cwa(path, outputs=["gust"], crop=CROP).pairs
        with pytest.raises(InputError, match=r"no channel of 'cwb' is chosen"):
            _ = Cwa(path, outputs=[], crop=CROP).pairs

    def test_no_array(self, tmp_path, fields):
        del fields["era5_valid"]
        with pytest.raises(InputError, match=r"has no array 'era5_valid'; it has XLAT, XLONG, cwb"):
            _ = cwa(tmp_path, fields).pairs

    def test_no_valid_time(self, tmp_path, fields):
        fields["cwb_valid"][:5] = 0
        fields["era5_valid"][5:, 0] = False
        expected = r"none of 8 times is valid: 3 are in 'cwb_valid', 5 in 'era5_valid' for all channels"
        with pytest.raises(InputError, match=expected):
            _ = cwa(tmp_path, fields).pairs

    def test_crop(self, tmp_path, fields):
        with pytest.raises(
            InputError, match=r"crop is \(448, 448\); expected at most \(24, 26\) \(south_north, west_e"
        ):
            _ = cwa(tmp_path, fields, crop=(448, 448)).pairs
        with pytest.raises(InputError, match=r"crop is \(16, 20\); .* multiples of coarsen_input_factor 3"):
            _ = cwa(tmp_path, fields, coarsen_input_factor=3).pairs

    def test_shapes(self, tmp_path, fields):
        changed = fields | {"era5": fields["era5"][:, :-1]}
        with pytest.raises(InputError, match=rf"'era5' has {len(ERA5) - 1} channels, 'era5_variable' {len(ERA5)}"):
            _ = cwa(tmp_path, changed).pairs
        changed = fields | {"cwb": fields["cwb"][:7]}
        with pytest.raises(InputError, match=r"differ in their number of times: .*'cwb': 7"):
            _ = cwa(tmp_path, changed).pairs
        changed = fields | {"era5": fields["era5"][..., :-1]}
        with pytest.raises(InputError, match=r"'era5' has shape \(8, 10, 24, 25\), 'XLAT' has \(24, 26\)"):
            _ = cwa(tmp_path, changed).pairs
        changed = fields | {"cwb": fields["cwb"][:, 0]}
        with pytest.raises(InputError, match=r"'cwb' has shape \(8, 24, 26\), expected \(time, "):
            _ = cwa(tmp_path, changed).pairs
