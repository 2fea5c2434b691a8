import logging
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ai4sim.errors import InputError
from downscaling.corrdiff.interpolation import interpolate
from downscaling.corrdiff.readers import CoarsenedDataset
from downscaling.corrdiff.tests.synthetic_stores import custom_fine, custom_static, numbered, real_fields


@pytest.fixture
def fine(tmp_path) -> Path:
    custom_fine(3).to_netcdf(tmp_path / "fine.nc", engine="h5netcdf")
    custom_static(custom_fine(1)).to_netcdf(tmp_path / "static.nc", engine="h5netcdf")
    return tmp_path / "fine.nc"


def coarsened(path: Path, **settings) -> CoarsenedDataset:
    return CoarsenedDataset([str(path)], **({"time_dim": "when", "factor": 5} | settings))


class TestWholeFields:
    def test_block_means(self, fine):
        source = coarsened(fine, static=str(fine.with_name("static.nc")))
        pairs = source.pairs
        names = [c.name for c in pairs.outputs]
        assert set(names) == {"gust", "temp"}
        assert pairs.inputs == pairs.outputs
        assert (pairs.input_shape, pairs.output_shape, pairs.factor, len(pairs)) == ((12, 10), (60, 50), 5, 3)
        assert pairs.corners is None
        assert [path.name for path in pairs.files] == ["fine.nc", "static.nc"]
        truth = source.read_outputs(slice(1, 3))
        np.testing.assert_array_equal(truth[:, names.index("gust")], numbered(3, 60, 50)[1:])
        np.testing.assert_allclose(
            source.read_inputs(slice(1, 3))[1, :, 2, 3], truth[1, :, 10:15, 15:20].mean(axis=(1, 2))
        )

    def test_other_inputs_than_outputs(self, fine):
        source = coarsened(fine, variables=["temp"], input_variables=["gust", "temp"])
        assert [c.name for c in source.pairs.inputs] == ["gust", "temp"]
        assert [c.name for c in source.pairs.outputs] == ["temp"]
        assert source.read_outputs(slice(0, 3)).shape == (3, 1, 60, 50)
        with pytest.raises(InputError, match="input_variables are named, but not variables"):
            _ = coarsened(fine, input_variables=["gust"]).pairs

    def test_what_is_left_over_is_cut_off(self, fine, caplog):
        with caplog.at_level(logging.INFO):
            pairs = coarsened(fine, factor=8, static=str(fine.with_name("static.nc"))).pairs
        assert (pairs.output_shape, pairs.latitude.shape, pairs.static_fields.shape) == (
            (56, 48),
            (56, 48),
            (2, 56, 48),
        )
        assert "fields are cut from 60 x 50 to 56 x 48 points, multiples of the factor 8" in caplog.text
        np.testing.assert_array_equal(pairs.static_fields[0], numbered(60, 50)[:56, :48])

    def test_missing_values_make_a_cell_missing(self, tmp_path):
        fields = custom_fine(1)
        fields["gust"][0, 7, 3] = np.nan
        fields.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
        found = coarsened(tmp_path / "a.nc", variables=["gust"]).read_inputs(slice(0, 1))
        assert np.argwhere(np.isnan(found)).tolist() == [[0, 0, 1, 0]]


class TestTiles:
    def test_parts_by_time_and_place(self, fine):
        source = coarsened(fine, variables=["gust"], tiles=(20, 15), static=str(fine.with_name("static.nc")))
        pairs = source.pairs
        assert (len(pairs), pairs.output_shape, pairs.input_shape) == (3 * 3 * 3, (20, 15), (4, 3))
        assert pairs.corners[:5].tolist() == [[0, 0], [0, 15], [0, 30], [20, 0], [20, 15]]
        assert len(np.unique(pairs.times[:9])) == 1
        assert (np.diff(pairs.times) >= np.timedelta64(0)).all()
        assert pairs.latitude.shape == (60, 50) == pairs.static_fields.shape[1:]
        whole = numbered(3, 60, 50)
        for start, stop in ((0, 27), (4, 13), (8, 9), (5, 5)):
            found = source.read_outputs(slice(start, stop))
            assert found.shape == (stop - start, 1, 20, 15)
            for row, part in zip(range(start, stop), found, strict=True):
                top, left = pairs.corners[row]
                np.testing.assert_array_equal(part[0], whole[row // 9, top : top + 20, left : left + 15])
        coarse = source.read_inputs(slice(4, 5))
        np.testing.assert_allclose(coarse[0, 0, 1, 2], whole[0, 25:30, 25:30].mean())

    def test_files_without_a_time(self, tmp_path):
        # a single field, with latitude and longitude among its variables, and its static fields
        fields = custom_fine(1).isel(when=0, drop=True).reset_coords().rename(my_lat="latitude", my_lon="longitude")
        fields["orog"] = fields["gust"] * 2
        fields.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
        path = str(tmp_path / "a.nc")
        source = CoarsenedDataset(
            [path], ["temp"], 5, tiles=(30, 25), static_variables=["orog"], time="2006-01-16T12"
        )  # fmt: skip
        assert len(source.pairs) == 4
        assert set(source.pairs.times.astype(str)) == {"2006-01-16T12:00:00"}
        np.testing.assert_array_equal(source.pairs.static_fields[0], 2 * numbered(60, 50))
        every = CoarsenedDataset([path], factor=5, time="2006-01-16")
        assert {c.name for c in every.pairs.outputs} == {"gust", "temp", "orog"}
        with pytest.raises(InputError, match=r"a.nc \(fine fields\) has no dimension 'time'.*the time of files that"):
            _ = CoarsenedDataset([path], factor=5).pairs
        with pytest.raises(InputError, match=r"'winter' is no time; write 2006-01-16"):
            _ = CoarsenedDataset([path], factor=5, time="winter").pairs

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"tiles": (21, 15)}, r"tiles have 21 rows; expected a multiple of the factor 5, at most 60"),
            ({"tiles": (20, 55)}, r"tiles have 55 columns; expected a multiple of the factor 5, at most 50"),
            ({"factor": 64}, r"fine.nc: a field of 60 x 50 points has no cell of 64 x 64"),
            ({"factor": 0}, r"factor is 0; expected 1 or more"),
            ({"variables": ["rain"]}, r"fine.nc \(fine fields\) has no variable 'rain'; it has "),
        ],
    )
    def test_faults(self, fine, settings, message):
        with pytest.raises(InputError, match=message):
            _ = coarsened(fine, **settings).pairs


def error(source: CoarsenedDataset) -> float:
    """Root mean square of what linear interpolation of the block means lacks."""
    truth = source.read_outputs(slice(0, 1)).astype(np.float64)
    guess = interpolate(source.read_inputs(slice(0, 1)), source.factor, "linear")
    return float(np.sqrt(np.mean((guess - truth) ** 2)))


class TestRealFields:
    """Scores of interpolated block means, as those who cut the files found them (README.txt beside the files)."""

    @pytest.mark.parametrize(
        ("name", "factor", "expected"),
        [
            ("skt", 4, 0.876), ("skt", 8, 1.138), ("skt", 16, 1.395),
            ("u10", 4, 0.832), ("u10", 8, 1.097), ("u10", 16, 1.290),
        ],
    )  # fmt: skip
    def test_hrrr(self, name, factor, expected):
        path = real_fields() / "hrrr_20230722_07utc_west.nc"
        source = CoarsenedDataset([str(path)], [name], factor, time="2023-07-22T07")
        assert error(source) == pytest.approx(expected, abs=0.01)

    @pytest.mark.parametrize(("factor", "expected"), [(4, 0.509), (8, 0.865)])
    def test_eur11(self, factor, expected):
        path = str(real_fields() / "eur11_tas_orog_200601.nc")
        source = CoarsenedDataset([path], ["tas"], factor, static_variables=["orog", "land"], time="2006-01-16")
        assert [c.name for c in source.pairs.static] == ["orog", "land"]
        assert error(source) == pytest.approx(expected, abs=0.01)

    def test_tiles_of_the_western_united_states(self):
        path = str(real_fields() / "hrrr_20230722_07utc_west.nc")
        source = CoarsenedDataset([path], ["skt", "u10"], 8, tiles=(64, 64), time="2023-07-22T07")
        pairs = source.pairs
        assert (len(pairs), pairs.latitude.shape) == (16 * 16, (1056, 1024))
        assert pairs.spacing_km == pytest.approx(3, rel=0.02)
        with xr.open_dataset(path) as file:
            top, left = pairs.corners[100]
            expected = file["u10"].values[top : top + 64, left : left + 64]
        np.testing.assert_array_equal(source.read_outputs(slice(100, 101))[0, 1], expected.astype(np.float32))
