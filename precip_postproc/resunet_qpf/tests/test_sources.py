"""Where raw data come from."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ai4sim.errors import InputError, MissingFileError
from precip_postproc.resunet_qpf import grib_writer
from precip_postproc.resunet_qpf.case_list import CaseList, find_missing
from precip_postproc.resunet_qpf.readers import LatLonGrid, mrms_path, read_mrms, target_path
from precip_postproc.resunet_qpf.readers.files import HOUR
from precip_postproc.resunet_qpf.readers.mrms import QUALITY, RATE, TARGET
from precip_postproc.resunet_qpf.sources import (
    GfsSource,
    GribForecasts,
    MrmsTargets,
    NetcdfForecasts,
    RemappedTargets,
)
from precip_postproc.resunet_qpf.tests.grib_files import lambert_grid, mrms

INIT = np.datetime64("2025-12-02T00", "s")
TIME = INIT + 6 * HOUR
MINUTE = np.timedelta64(60, "s")


class TestSettings:
    def test_only_what_decides_about_values_counts(self):
        assert RemappedTargets(Path("a")).settings() == RemappedTargets(Path("b")).settings()
        assert GribForecasts(Path("a")).settings() == {
            "kind": "GribForecasts", "layout": "graf", "run_totals": False, "cap": 75.0, "forecast_nan": "error",
        }  # fmt: skip
        assert GribForecasts(Path("a"), cap=50).settings() != GribForecasts(Path("a")).settings()
        assert MrmsTargets(Path("a"), cache=Path("c")).settings() == {
            "kind": "MrmsTargets", "product": TARGET, "method": "mean", "min_valid": 0.75,
        }  # fmt: skip
        assert GfsSource(Path("a"), ["u"]).settings() == {"kind": "GfsSource", "names": ["u"], "on_missing": "skip"}


class TestNetcdf:
    def test_a_run_that_is_not_in_the_file(self, demo_raw):
        forecasts = NetcdfForecasts(demo_raw / "forecast.nc")
        assert forecasts.missing(INIT, 24) == ""
        assert forecasts.missing(INIT, 12) == f"{demo_raw / 'forecast.nc'}: run from 2025-12-02T00:00:00, lead 12 h"
        assert "run from 2026-01-01T00:00:00, lead 6 h" in forecasts.missing(np.datetime64("2026-01-01"), 6)
        found = forecasts.read(INIT, 24)
        assert found.values.shape == (64, 80)
        assert found.values.max() <= 75

    def test_no_file(self, tmp_path):
        forecasts = NetcdfForecasts(tmp_path / "a.nc")
        assert forecasts.missing(INIT, 6) == str(tmp_path / "a.nc")
        with pytest.raises(MissingFileError, match=r"a\.nc \(forecasts\) is not there; give a NetCDF file"):
            forecasts.read(INIT, 6)

    def test_the_cap_is_that_of_the_source(self, demo_raw):
        found = NetcdfForecasts(demo_raw / "forecast.nc", cap=0.5).read(INIT, 6)
        assert found.values.max() == 0.5
        again = pickle.loads(pickle.dumps(NetcdfForecasts(demo_raw / "forecast.nc", cap=0.5)))
        np.testing.assert_array_equal(again.read(INIT, 6).values, found.values)

    def test_values_that_cannot_be_are_an_error_or_left_out(self, tmp_path):
        grid = lambert_grid(5, 6)
        amount = np.ones((1, 1, 5, 6), np.float32)
        amount[0, 0, 2, 3], amount[0, 0, 0, 0] = np.nan, -1
        dataset = xr.Dataset(
            {"precip": (("init", "lead", "y", "x"), amount, {"units": "mm"})},
            {
                "init": ("init", [INIT.astype("datetime64[ns]")]),
                "lead": ("lead", [6], {"units": "hours"}),
                "latitude": (("y", "x"), grid.latitude, {"units": "degrees_north"}),
                "longitude": (("y", "x"), grid.longitude, {"units": "degrees_east"}),
            },
        )
        dataset.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
        with pytest.raises(InputError, match=r"a\.nc"):
            NetcdfForecasts(tmp_path / "a.nc").read(INIT, 6)
        masked = NetcdfForecasts(tmp_path / "a.nc", forecast_nan="mask").read(INIT, 6).values
        assert np.argwhere(np.isnan(masked)).tolist() == [[0, 0], [2, 3]]


class TestGrib:
    def test_files_of_totals_are_two(self, tmp_path):
        forecasts = GribForecasts(tmp_path, run_totals=True)
        names = [path.name for path in forecasts.files(INIT, 6)]
        assert [name.split(".PT")[1] for name in names] == ["5H.CONUS@4km.APCP.SFC.grb2", "6H.CONUS@4km.APCP.SFC.grb2"]
        assert len(forecasts.files(INIT, 1)) == 1
        assert "wrfsfcf06" in GribForecasts(tmp_path, layout="hrrr").files(INIT, 6)[0].name

    def test_a_lead_time_that_is_not_there(self, raw_demo):
        grib = GribForecasts(raw_demo / "forecast")
        found = grib.read(INIT, 6)
        assert found.values.shape == (64, 80)
        assert grib.missing(INIT, 6) == ""
        assert grib.missing(INIT, 12).endswith("PT12H.CONUS@4km.APCP.SFC.grb2")
        with pytest.raises(MissingFileError, match="PT12H"):
            grib.read(INIT, 12)


class TestMrms:
    @pytest.fixture
    def folder(self, raw_demo, tmp_path) -> Path:
        """A copy of the demo's analyses on MRMS's grid."""
        shutil.copytree(raw_demo / "mrms", tmp_path / "mrms")
        return tmp_path / "mrms"

    @pytest.fixture
    def grid(self, raw_demo):
        return GribForecasts(raw_demo / "forecast").read(INIT, 6).grid

    def test_the_demo_is_remapped_to_what_its_remapped_files_hold(self, raw_demo, grid, tmp_path):
        targets = MrmsTargets(raw_demo / "mrms", cache=tmp_path)
        for lead in (6, 24):
            time = INIT + lead * HOUR
            found, expected = targets.read(time, grid), RemappedTargets(raw_demo / "target").read(time, grid)
            np.testing.assert_allclose(found.values, expected.values, atol=1e-5)
            np.testing.assert_allclose(found.quality, expected.quality, atol=1e-5)
            assert found.time == time
            assert found.values.dtype == found.quality.dtype == np.float32
        # one index serves all hours, and another process finds it
        assert len(list(tmp_path.iterdir())) == 1
        again = pickle.loads(pickle.dumps(targets))
        assert not again._remappers
        np.testing.assert_array_equal(again.read(time, grid).values, found.values)

    def test_nearest_values(self, raw_demo, grid):
        nearest = MrmsTargets(raw_demo / "mrms", method="nearest").read(TIME, grid)
        expected = RemappedTargets(raw_demo / "target").read(TIME, grid)
        np.testing.assert_allclose(nearest.values, expected.values, atol=1e-5)

    def test_files_of_an_hour(self, folder):
        targets = MrmsTargets(folder)
        assert targets.files(TIME) == [mrms_path(folder, name, TIME) for name in (TARGET, QUALITY)]
        assert targets.missing(TIME) == ""
        targets.files(TIME)[1].unlink()
        assert targets.missing(TIME) == str(mrms_path(folder, QUALITY, TIME))
        cases = CaseList(np.array([INIT]), np.array([6]), np.array(["train"]))
        missing = find_missing(cases, GribForecasts(folder.parent), targets, None)
        assert missing[0].endswith(".grb2")

    def test_missing_files_are_named(self, folder, grid):
        mrms_path(folder, QUALITY, TIME).unlink()
        with pytest.raises(MissingFileError, match=QUALITY):
            MrmsTargets(folder).read(TIME, grid)
        mrms_path(folder, TARGET, TIME).unlink()
        with pytest.raises(MissingFileError, match=rf"{TARGET}.*is not there"):
            MrmsTargets(folder).read(TIME, grid)

    def test_quality_of_another_hour(self, folder, grid):
        shutil.copy(mrms_path(folder, QUALITY, TIME + 18 * HOUR), mrms_path(folder, QUALITY, TIME))
        with pytest.raises(InputError, match=r"2025-12-03T00:00:00.*2025-12-02T06:00:00"):
            MrmsTargets(folder).read(TIME, grid)

    def test_both_of_another_hour(self, folder, grid):
        for name in (TARGET, QUALITY):
            shutil.copy(mrms_path(folder, name, TIME + 18 * HOUR), mrms_path(folder, name, TIME))
        with pytest.raises(InputError, match=r"is valid at 2025-12-03T00:00:00, expected 2025-12-02T06:00:00"):
            MrmsTargets(folder).read(TIME, grid)

    def test_another_product(self, folder, grid):
        shutil.copy(mrms_path(folder, QUALITY, TIME), mrms_path(folder, TARGET, TIME))
        with pytest.raises(InputError, match=rf"{QUALITY}"):
            MrmsTargets(folder).read(TIME, grid)

    def test_a_grid_that_the_files_do_not_cover(self, folder):
        with pytest.raises(InputError, match="does not cover the one whose first corner is"):
            MrmsTargets(folder).read(TIME, lambert_grid())

    def test_a_later_file_of_another_grid(self, folder, grid):
        targets = MrmsTargets(folder)
        targets.read(TIME, grid)
        later = TIME + 18 * HOUR
        found = read_mrms(mrms_path(folder, TARGET, later), TARGET)
        moved = LatLonGrid(found.grid.latitudes + 0.05, found.grid.longitudes)
        for name, triple in ((TARGET, (209, 6, 37)), (QUALITY, (209, 8, 10))):
            values = np.zeros(moved.shape)
            grib_writer.write(
                mrms_path(folder, name, later), mrms(values, triple, later, moved.latitudes, moved.longitudes)
            )
        with pytest.raises(InputError, match=r"that of the first file has shape"):
            targets.read(later, grid)

    def test_rates_of_an_hour_add_up(self, tmp_path):
        pytest.importorskip("eccodes")
        grid = lambert_grid(6, 8)
        axes = np.arange(38.8, 39.5, 0.01), np.arange(-100.3, -99.4, 0.01)
        shape = len(axes[0]), len(axes[1])
        times = [TIME - k * 2 * MINUTE for k in range(30)]
        for place, time in enumerate(times):
            rate = np.full(shape, float(place))
            rate[:, :20] = -3 if place == 7 else 1
            grib_writer.write(mrms_path(tmp_path, RATE, time), mrms(rate, (209, 6, 1), time, *axes))
        quality = np.full(shape, 0.9)
        path = mrms_path(tmp_path, QUALITY, TIME)
        grib_writer.write(path, mrms(quality, (209, 8, 10), TIME, *axes, decimalScaleFactor=2))
        targets = MrmsTargets(tmp_path, product=RATE)
        assert len(targets.files(TIME)) == 31
        assert targets.missing(TIME) == ""
        found = targets.read(TIME, grid)
        assert np.nanmax(found.values) == pytest.approx(np.arange(30).mean(), rel=1e-5)
        np.testing.assert_allclose(found.quality, 0.9, atol=1e-5)
        mrms_path(tmp_path, RATE, times[3]).unlink()
        assert targets.missing(TIME) == str(mrms_path(tmp_path, RATE, times[3]))
        grib_writer.write(path, mrms(quality, (209, 8, 10), TIME - HOUR, *axes, decimalScaleFactor=2))
        grib_writer.write(mrms_path(tmp_path, RATE, times[3]), mrms(np.ones(shape), (209, 6, 1), times[3], *axes))
        with pytest.raises(InputError, match=r"is the quality of 2025-12-02T05:00:00, expected 2025-12-02T06:00:00"):
            targets.read(TIME, grid)


def test_remapped_files_are_named_by_month(tmp_path):
    targets = RemappedTargets(tmp_path)
    assert targets.files(TIME) == [target_path(tmp_path, TIME)]
    assert targets.missing(TIME).endswith("202512/MRMS_1h_pamt_and_data_qual_2025120206.nc")


def test_coarse_predictors_of_another_cycle(demo_raw, tmp_path):
    source = GfsSource(demo_raw / "gfs", ["pwat", "cape"])
    assert list(source.read(INIT).fields) == ["pwat", "cape"]
    shutil.copy(source.path(INIT), GfsSource(tmp_path).path(INIT + 12 * HOUR))
    with pytest.raises(InputError, match=r"has the initial time 2025-12-02T00:00:00, expected 2025-12-02T12:00:00"):
        GfsSource(tmp_path).read(INIT + 12 * HOUR)
