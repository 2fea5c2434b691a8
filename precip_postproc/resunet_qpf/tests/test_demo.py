"""The demo's raw files: everything is read back by the readers of real data, and is what was simulated."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf import config, demo, demo_files, grib_writer
from precip_postproc.resunet_qpf.dates import valid_times
from precip_postproc.resunet_qpf.demo import DemoSettings, plan_runs, write_demo
from precip_postproc.resunet_qpf.demo_files import COARSE_RESOLUTION, TERRAIN, CoarseModel, demo_grid, ideal_path
from precip_postproc.resunet_qpf.ideal import ideal_exceedance
from precip_postproc.resunet_qpf.readers import (
    ForecastFile,
    LambertGrid,
    Remapper,
    gfs_path,
    graf_path,
    mrms_path,
    read_apcp,
    read_gfs,
    read_hour,
    read_target,
    read_terrain,
    target_path,
)
from precip_postproc.resunet_qpf.readers.files import HOUR
from precip_postproc.resunet_qpf.readers.gfs import UNITS
from precip_postproc.resunet_qpf.readers.mrms import QUALITY, TARGET

SMALL = DemoSettings(days=2, test_days=1, grid="tiny", format="netcdf")
GRIB = replace(SMALL, format="grib")


@pytest.fixture(scope="module")
def netcdf(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("netcdf") / "raw"
    write_demo(folder, SMALL)
    return folder


@pytest.fixture(scope="module")
def grib(tmp_path_factory) -> Path:
    pytest.importorskip("eccodes")
    folder = tmp_path_factory.mktemp("grib") / "raw"
    write_demo(folder, GRIB)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class TestSettings:
    def test_default_dates(self):
        settings = DemoSettings()
        training, test = settings.training_inits(), settings.test_inits()
        assert (len(training), len(test)) == (480, 80)
        assert (np.diff(settings.inits()) > 0 * HOUR).all()
        assert [str(time) for time in training[[0, 239, 240, 479]]] == [
            "2024-12-01T00:00:00", "2025-03-30T12:00:00", "2025-07-31T00:00:00", "2025-11-27T12:00:00",
        ]  # fmt: skip
        assert [str(time) for time in test[[0, -1]]] == ["2025-12-02T00:00:00", "2026-01-10T12:00:00"]
        assert valid_times(training, 48).max() <= np.datetime64("2025-11-30T00")
        # no day is wasted
        assert valid_times(training, 48).max() > np.datetime64("2025-11-29T00")

    def test_each_analysis_is_written_once(self):
        runs = plan_runs(DemoSettings(days=20, test_days=5))
        times = [run.init + lead * HOUR for run in runs for lead in run.analysed]
        settings = DemoSettings(days=20, test_days=5)
        assert (
            sorted(times) == np.unique(valid_times(settings.inits()[:, None], settings.leads)).astype("M8[s]").tolist()
        )
        assert [(run.init, run.mosaic) for run in runs if run.mosaic] == [(settings.test_inits()[0], (6, 12, 24))]
        assert sum(run.ideal for run in runs) == 10

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"leads": [6, 36]}, r"leads \[6, 36\] must be some of 6, 12, 24, 48 in increasing order"),
            ({"hours": [12, 0]}, r"hours \[12, 0\] must be some of 0, 6, 12, 18 in increasing order"),
            ({"grid": "huge"}, "grid 'huge' is unknown; choose full or tiny"),
            ({"format": "zarr"}, "format 'zarr' is unknown; choose auto or grib or netcdf"),
            ({"days": 0}, "days is 0, it must be at least 1"),
            ({"target": "2025-12-01T06"}, "the target 2025-12-01T06 is no date"),
            ({"target": "December"}, "'December' is no time"),
            ({"days": 182}, "182 training days of two years in a row overlap; take 181 at most"),
        ],
    )
    def test_impossible_settings(self, changes, message):
        with pytest.raises(InputError, match=message):
            DemoSettings(**changes)

    def test_lists_are_as_good_as_tuples(self):
        assert DemoSettings(hours=[0], leads=[6, 12]) == DemoSettings(hours=(0,), leads=(6, 12))


def check_common(folder: Path, settings: DemoSettings, grid: LambertGrid) -> None:
    """Targets, coarse predictors, ideal probabilities and terrain against the simulation."""
    weather = settings.weather()
    times = np.unique(valid_times(settings.inits()[:, None], settings.leads))
    assert len(list((folder / "target").rglob("*.nc"))) == len(times)
    unseen = 0
    for time in times:
        found, hour = read_target(target_path(folder / "target", time), time, grid), weather.hour(time)
        np.testing.assert_allclose(found.values, hour.analysis, rtol=1e-6)
        np.testing.assert_allclose(found.quality, np.maximum(hour.quality, -1), atol=0.00501)
        assert found.n_invalid == 0
        unseen += int((found.quality == -1).any())
    # a radar was off on three days
    assert unseen >= 1

    coarse = CoarseModel(weather, grid)
    assert len(list((folder / "gfs").iterdir())) == len(settings.inits())
    for init in settings.inits():
        fields = read_gfs(gfs_path(folder / "gfs", init), list(UNITS), init)
        assert fields.leads == list(settings.leads)
        for name, values in coarse.fields(init, settings.leads).items():
            np.testing.assert_allclose(fields.fields[name], values, atol=0.51 * COARSE_RESOLUTION)
        assert fields.grid.latitudes[0] <= grid.latitude.min() - 1
        assert fields.grid.longitudes[-1] >= grid.longitude.max() + 1

    assert len(list((folder / "ideal").iterdir())) == len(settings.test_inits())
    for pair in weather.pairs(settings.test_inits()[:1], settings.leads):
        with xr.open_dataset(ideal_path(folder / "ideal", pair.init), decode_timedelta=False) as dataset:
            assert dataset["threshold"].values.tolist() == list(config.THRESHOLDS)
            assert dataset["init"].values == pair.init
            found = dataset["probability"].sel(lead=pair.lead).values
        expected = ideal_exceedance(pair.posterior, config.THRESHOLDS, analysed=True)
        np.testing.assert_allclose(found, expected, atol=0.51e-4)

    terrain = read_terrain(folder / TERRAIN, grid)
    expected = weather.terrain._asdict()
    np.testing.assert_array_equal(terrain.sigmas.astype(np.float32), expected.pop("sigmas"))
    assert terrain.fields.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(terrain.fields[name], values)


class TestCoarse:
    def test_errors_grow_with_the_lead_time(self):
        weather = SMALL.weather()
        grid = demo_grid(weather.grid)
        model = CoarseModel(weather, grid)
        # the place of a grid point of the coarse model in the middle, and the direction of the demo's rows there
        row, column = (int(np.abs(axis - middle).argmin()) for axis, middle in (
            (model.grid.latitudes, grid.latitude.mean()), (model.grid.longitudes, grid.longitude.mean())
        ))  # fmt: skip
        cell = np.unravel_index(
            grid.cell_of(model.grid.latitude[row, column], model.grid.longitude[row, column]), grid.shape
        )
        after = cell[0], cell[1] + 1
        east = (grid.longitude[after] - grid.longitude[cell]) * np.cos(np.radians(grid.latitude[cell]))
        north = grid.latitude[after] - grid.latitude[cell]
        east, north = east / np.hypot(east, north), north / np.hypot(east, north)
        assert north > 0.15

        errors = {name: [] for name in ("along", "across", "moisture")}
        for init in DemoSettings().inits()[::4]:
            regimes = [weather.regime(init + lead * HOUR) for lead in SMALL.leads]
            fields = model.fields(init, SMALL.leads)
            u, v = (fields[name][:, row, column] for name in "uv")
            errors["along"].append(u * east + v * north - [regime.u for regime in regimes])
            errors["across"].append(v * east - u * north - [regime.v for regime in regimes])
            moisture = np.log(fields["pwat"].mean(axis=(1, 2)) / model.PWAT) / model.PWAT_GROWTH
            errors["moisture"].append(moisture - [regime.moisture for regime in regimes])
            assert (np.hypot(fields["u10"], fields["v10"]) < np.hypot(fields["u"], fields["v"])).all()
            for name, (low, high) in {"pwat": (1, 70), "r": (1, 100), "cape": (0, 6000)}.items():
                assert (low <= fields[name].min()) & (fields[name].max() <= high), name
        growth = np.sqrt(np.array(SMALL.leads) / 6)
        wind = np.hypot(model.WIND_ERROR * growth, model.WIND_NOISE)
        for name, expected in (("along", wind), ("across", wind), ("moisture", model.MOISTURE_ERROR * growth)):
            np.testing.assert_allclose(np.std(errors[name], axis=0), expected, rtol=0.25, err_msg=name)
            assert (np.abs(np.mean(errors[name], axis=0)) < 0.35 * expected).all(), name


class TestNetcdf:
    def test_fields(self, netcdf):
        assert sorted(path.name for path in netcdf.iterdir()) == [
            TERRAIN, "demo.json", "forecast.nc", "gfs", "ideal", "target",
        ]  # fmt: skip
        file = ForecastFile(netcdf / "forecast.nc")
        assert isinstance(file.grid, LambertGrid)
        assert (file.grid.shape, file.grid.spacing) == ((64, 80), (8000, 8000))
        np.testing.assert_array_equal(file.inits, SMALL.inits())
        assert file.leads == list(SMALL.leads)
        for pair in SMALL.weather().pairs(SMALL.inits()):
            found = file.read(pair.init, pair.lead)
            np.testing.assert_allclose(found.values, pair.forecast, atol=0.00501)
        check_common(netcdf, SMALL, file.grid)

    def test_as_others_read_it(self, netcdf):
        """The files are ordinary NetCDF: xarray finds dimensions, times and coordinates."""
        with xr.open_dataset(netcdf / "forecast.nc", decode_timedelta=True) as dataset:
            assert dict(dataset["precip"].sizes) == {"init": 10, "lead": 4, "y": 64, "x": 80}
            assert {"latitude", "longitude", "init", "lead"} <= set(dataset["precip"].coords)
            assert dataset["lead"].values[0] == np.timedelta64(6, "h")
            assert float(dataset["precip"].max()) > 1
        with xr.open_dataset(next((netcdf / "target").rglob("*.nc"))) as dataset:
            assert dataset["precipitation"].dims == ("nlats", "nlons")
            assert dataset["lats"].dtype == np.float64
        with xr.open_dataset(next((netcdf / "gfs").iterdir()), decode_timedelta=False) as dataset:
            assert dataset["pwat"].dims == ("step", "latitude", "longitude")
            assert (np.diff(dataset["latitude"]) == -0.25).all()
            assert dataset["longitude"].values.min() > 180

    def test_what_is_there_is_kept(self, netcdf):
        before = {path: path.stat().st_mtime_ns for path in netcdf.rglob("*")}
        write_demo(netcdf, SMALL)
        write_demo(netcdf, replace(SMALL, format="auto"))
        assert before == {path: path.stat().st_mtime_ns for path in netcdf.rglob("*")}

    def test_other_settings(self, netcdf):
        with pytest.raises(
            InputError, match=r"raw holds a demo with other settings \(days: 2, not 4; seed: 0, not 1\)"
        ):
            write_demo(netcdf, replace(SMALL, days=4, seed=1))
        with pytest.raises(InputError, match=r"\(format: netcdf, not grib\): remove it, or name another dataset"):
            write_demo(netcdf, GRIB)

    def test_files_of_others(self, tmp_path):
        (tmp_path / "target").mkdir()
        with pytest.raises(InputError, match=r"target is of no demo: point the demo at an empty folder"):
            write_demo(tmp_path, SMALL)
        (tmp_path / "demo.json").write_text("[]")
        with pytest.raises(InputError, match=r"demo.json does not say with what settings the demo was made"):
            write_demo(tmp_path, SMALL)

    def test_folders_that_cannot_be_made(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match=r"cannot write the demo to .*file/raw: Not a directory"):
            write_demo(tmp_path / "file" / "raw", SMALL)

    def test_interrupted(self, netcdf, tmp_path, monkeypatch):
        write, count = demo_files.DemoWriter.write, iter(range(5))

        def interrupted(self, run):
            if next(count, None) is None:
                raise KeyboardInterrupt
            return write(self, run)

        folder = tmp_path / "raw"
        with monkeypatch.context() as patch:
            patch.setattr(demo_files.DemoWriter, "write", interrupted)
            with pytest.raises(KeyboardInterrupt):
                write_demo(folder, SMALL)
        assert len(list((folder / "gfs").iterdir())) == 5
        assert not (folder / "demo.json").exists()
        assert not (folder / "forecast.nc").exists()
        with pytest.raises(InputError, match=r"other settings \(seed: 0, not 7\)"):
            write_demo(folder, replace(SMALL, seed=7))
        before = {path: path.stat().st_mtime_ns for path in (folder / "target").rglob("*.nc")}
        write_demo(folder, SMALL)
        assert all(path.stat().st_mtime_ns == time for path, time in before.items())
        assert contents(folder) == contents(netcdf)

    def test_many_processes_write_the_same(self, netcdf, tmp_path, monkeypatch):
        monkeypatch.setattr(demo, "LEAST_FOR_PROCESSES", 1)
        monkeypatch.setattr(demo, "BATCH", 3)
        monkeypatch.setattr(demo, "available_cores", lambda: 2)
        write_demo(tmp_path / "raw", SMALL, processes=2)
        assert contents(tmp_path / "raw") == contents(netcdf)

    def test_without_processes(self, netcdf, tmp_path, monkeypatch, caplog):
        class Broken:
            def __init__(self, *args, **kwargs):
                raise NotImplementedError("no semaphores")

        monkeypatch.setattr(demo, "LEAST_FOR_PROCESSES", 1)
        monkeypatch.setattr(demo, "available_cores", lambda: 2)
        monkeypatch.setattr(demo, "ProcessPoolExecutor", Broken)
        write_demo(tmp_path / "raw", SMALL)
        assert "made by one process, for others cannot be started: no semaphores" in caplog.text
        assert contents(tmp_path / "raw") == contents(netcdf)

    def test_without_eccodes(self, tmp_path, monkeypatch, caplog):
        def absent(name: str) -> object:
            raise ModuleNotFoundError(f"No module named {name!r}")

        monkeypatch.setattr(grib_writer.importlib, "import_module", absent)
        with pytest.raises(
            InputError, match=r"writing GRIB needs eccodes.*pip install 'ai4sim\[grib\]', or write NetCDF"
        ):
            write_demo(tmp_path / "a", GRIB)
        few = replace(SMALL, days=1, format="auto", hours=(0,), leads=(6,))
        write_demo(tmp_path / "b", few)
        assert "the demo is written as NetCDF: writing GRIB needs eccodes" in caplog.text
        assert (tmp_path / "b" / "forecast.nc").exists()
        assert json.loads((tmp_path / "b" / "demo.json").read_text())["format"] == "netcdf"


class TestGrib:
    def test_fields(self, grib):
        assert not (grib / "forecast.nc").exists()
        assert len(list((grib / "forecast").rglob("*.grb2"))) == 10 * 4
        for pair in GRIB.weather().pairs(GRIB.inits()):
            found = read_apcp(graf_path(grib / "forecast", pair.init, pair.lead), pair.lead, init=pair.init)
            np.testing.assert_allclose(found.values, pair.forecast, atol=0.00501)
            assert (found.lead, found.interval) == (pair.lead, 1)
        assert isinstance(found.grid, LambertGrid)
        check_common(grib, GRIB, found.grid)

    def test_both_formats_have_the_same_values(self, grib, netcdf):
        file, init = ForecastFile(netcdf / "forecast.nc"), SMALL.inits()[3]
        found = read_apcp(graf_path(grib / "forecast", init, 24), 24)
        np.testing.assert_allclose(found.values, file.read(init, 24).values, atol=1e-5)
        for name in ("target", "gfs", "ideal"):
            assert contents(grib / name) == contents(netcdf / name)

    def test_mosaics_go_through_the_remapping(self, grib):
        init = GRIB.test_inits()[0]
        assert len(list((grib / "mrms").rglob("*.gz"))) == 6
        for lead in (6, 12, 24):
            time = init + lead * HOUR
            target = read_target(target_path(grib / "target", time), time)
            amount, quality = read_hour(*(mrms_path(grib / "mrms", name, time) for name in (TARGET, QUALITY)))
            remap = Remapper(amount.grid, read_apcp(graf_path(grib / "forecast", init, lead), lead).grid)
            np.testing.assert_allclose(remap(amount.values), target.values, atol=1e-5)
            np.testing.assert_allclose(np.nan_to_num(remap(quality.values), nan=-1), target.quality, atol=1e-5)

    def test_interrupted(self, grib, tmp_path):
        folder = tmp_path / "raw"
        shutil.copytree(grib, folder)
        (folder / "demo.partial").mkdir()
        (folder / "demo.json").rename(folder / "demo.partial" / "demo.json")
        lost = [
            *list((folder / "forecast").rglob("*.grb2"))[::5],
            *(folder / "mrms").rglob("*06*.gz"),
            folder / TERRAIN,
        ]
        for path in lost:
            path.unlink()
        kept = {path: path.stat().st_mtime_ns for path in folder.rglob("*.nc")}
        # what is being written as GRIB goes on so
        write_demo(folder, replace(GRIB, format="auto"))
        assert contents(folder) == contents(grib)
        assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
