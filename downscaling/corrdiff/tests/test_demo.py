"""The demo's raw files: the schema of HRRR-Mini, and what was simulated in it."""

import json
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import h5py
import jsonargparse
import numpy as np
import pytest
import xarray as xr

from ai4sim.errors import InputError
from downscaling.corrdiff import demo
from downscaling.corrdiff.demo import STATS, TRAIN, DemoSettings, write_demo
from downscaling.corrdiff.demo_file import INPUTS, INVARIANTS, OUTPUTS
from downscaling.corrdiff.periodic import block_mean
from downscaling.corrdiff.readers.hrrr_mini import HrrrMini
from downscaling.corrdiff.regime import MEAN, SPREAD, evolve_regime
from downscaling.corrdiff.weather import SPACING, Stream, Weather, make_rng

TINY = DemoSettings.tiny()
FEW = replace(TINY, snapshots=3, spin_up=0.5)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "raw"
    write_demo(folder, TINY)
    return folder


def read(folder: Path, group: str | None = None) -> xr.Dataset:
    return xr.load_dataset(folder / TRAIN, engine="h5netcdf", group=group)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class TestSettings:
    def test_sizes(self):
        assert (DemoSettings().samples, DemoSettings().places) == (1920, 25)
        assert (TINY.samples, TINY.size // TINY.factor) == (64, 4)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"n": 16, "size": 16}, "n is 16, it must be at least 32"),
            ({"snapshots": 0}, "snapshots is 0, it must be at least 1"),
            ({"crops": 0}, "crops is 0, it must be at least 1"),
            ({"factor": 1}, "factor is 1, it must be at least 2"),
            ({"seed": -1}, "seed is -1, it must be at least 0"),
            ({"spin_up": -1.0}, "spin_up is -1.0, it must be at least 0"),
            ({"spin_up": float("nan")}, "spin_up is nan, it must be at least 0"),
            ({"n": 63, "size": 27, "factor": 9}, "n is 63, it must be even"),
            ({"n": 100}, "n 100 is no multiple of the factor 8"),
            ({"size": 60}, "size 60 is no multiple of the factor 8"),
            ({"size": 8}, "size is 8, it must be from two coarse cells, 16, to n, 256"),
            ({"size": 264}, "size is 264, it must be from two coarse cells, 16, to n, 256"),
            ({"n": 72, "crops": 5}, "5 crops of 64 points have only 4 different places on the grid of 72 points"),
        ],
    )
    def test_impossible_settings(self, changes, message):
        with pytest.raises(InputError, match=message):
            DemoSettings(**changes)

    def test_yaml(self):
        parser = jsonargparse.ArgumentParser()
        parser.add_argument("--demo", type=DemoSettings)
        found = parser.parse_args(["--demo", "{n: 64, size: 32, snapshots: 32, crops: 2, spin_up: 6}"])
        assert parser.instantiate(found).demo == TINY


class TestFile:
    def test_root(self, tiny):
        root = read(tiny)
        assert root["time"].dims == ("sample",)
        assert root["time"].dtype.kind == "M"
        times = root["time"].values.reshape(32, 2)
        assert (times == times[:, :1]).all()
        assert (np.diff(times[:, 0]) == np.timedelta64(2, "h")).all()
        assert times[0, 0] == np.datetime64("2020-06-01T00")
        assert root["coord"].shape == (64, 2)
        assert root["coord"].dims[0] == "sample"
        assert root["coord"].dtype == np.int64
        assert set(np.unique(root["coord"])) == {0, 8, 16, 24, 32}
        pairs = root["coord"].values.reshape(32, 2, 2)
        assert (pairs[:, 0] != pairs[:, 1]).any(axis=1).all()
        with xr.open_dataset(tiny / TRAIN, engine="h5netcdf", decode_times=False) as raw:
            assert raw["time"].attrs["units"] == "hours since 1990-01-01 00:00:00"
            assert raw["time"].dtype == np.int64

    @pytest.mark.parametrize(
        ("group", "variables", "shape"),
        [("input", INPUTS, (64, 4, 4)), ("output", OUTPUTS, (64, 32, 32)), ("invariant", INVARIANTS, (64, 64))],
    )
    def test_groups(self, tiny, group, variables, shape):
        dataset = read(tiny, group)
        assert list(dataset.data_vars) == list(variables)
        for name, (units, long_name) in variables.items():
            assert dataset[name].shape == shape
            assert dataset[name].dtype == np.float32
            assert dataset[name].attrs == {"units": units, "long_name": long_name}
            assert np.isfinite(dataset[name]).all()
        assert (dataset[next(iter(variables))].dims[0] == "sample") == (group != "invariant")
        # as it lies on the disk, it can be mapped into memory
        with h5py.File(tiny / TRAIN) as file:
            assert all(file[group][name].chunks is None for name in variables)

    def test_values_are_those_that_were_simulated(self, tiny):
        root, inputs, outputs = (read(tiny, group) for group in (None, "input", "output"))
        for number, snapshot in enumerate(islice(TINY.weather().snapshots(), 5)):
            for sample in (2 * number, 2 * number + 1):
                assert root["time"][sample] == snapshot.time
                i, j = root["coord"].values[sample]
                for name in OUTPUTS:
                    expected = snapshot.outputs[name][i : i + 32, j : j + 32]
                    np.testing.assert_array_equal(outputs[name].values[sample], expected)
                i, j = i // 8, j // 8
                for name in INPUTS:
                    expected = snapshot.inputs[name][i : i + 4, j : j + 4]
                    np.testing.assert_array_equal(inputs[name].values[sample], expected)

    def test_invariants(self, tiny):
        found = read(tiny, "invariant")
        terrain = TINY.weather().terrain
        np.testing.assert_array_equal(found["elev_mean"], terrain.height)
        np.testing.assert_array_equal(found["lsm_mean"], terrain.land)
        latitude, longitude = found["latitude"].values, found["longitude"].values
        # rows to the north, columns to the east, 3 km apart; in the middle at the model's latitude
        degree = 6371229.0 * np.pi / 180
        np.testing.assert_allclose(np.diff(latitude, axis=0) * degree, SPACING, rtol=2e-3)
        np.testing.assert_allclose(
            (np.diff(longitude, axis=1) * np.cos(np.radians(latitude[:, 1:]))) * degree, SPACING, rtol=2e-3
        )
        assert latitude.mean() == pytest.approx(43.3, abs=0.01)
        assert 2 * 7.292e-5 * np.sin(np.radians(43.3)) == pytest.approx(1e-4, rel=1e-3)

    def test_statistics(self, tiny):
        stats = json.loads((tiny / STATS).read_text())
        assert (stats["n_samples"], stats["schema"]) == (64, 1)
        assert stats["period"] == ["2020-06-01T00", "2020-06-03T14"]
        for group, variables in (("input", INPUTS), ("output", OUTPUTS), ("invariant", INVARIANTS)):
            dataset = read(tiny, group)
            assert list(stats[group]) == list(variables)
            for name, found in stats[group].items():
                values = dataset[name].values.astype(np.float64)
                assert found.keys() == {"mean", "std"}
                assert found["mean"] == pytest.approx(values.mean(), rel=1e-12, abs=1e-12)
                assert found["std"] == pytest.approx(values.std(), rel=1e-9)

    def test_the_reader_of_the_real_data_reads_it(self, tiny):
        source = HrrrMini(tiny / TRAIN)
        pairs = source.pairs
        assert [channel.name for channel in pairs.inputs] == list(INPUTS)
        assert [channel.name for channel in pairs.outputs] == list(OUTPUTS)
        assert (len(pairs), pairs.factor) == (64, 8)
        assert pairs.spacing_km == pytest.approx(3.0, rel=0.01)
        np.testing.assert_array_equal(source.read_outputs(slice(5, 6))[0, 3], read(tiny, "output")["tp"][5])


class TestWriting:
    def test_what_is_there_is_kept(self, tiny):
        assert sorted(path.name for path in tiny.iterdir()) == ["demo.json", TRAIN, STATS]
        before = {path: path.stat().st_mtime_ns for path in tiny.iterdir()}
        write_demo(tiny, TINY)
        assert before == {path: path.stat().st_mtime_ns for path in tiny.iterdir()}

    def test_a_second_time_all_bytes_are_the_same(self, tmp_path):
        for name in "ab":
            write_demo(tmp_path / name, FEW)
        assert contents(tmp_path / "a") == contents(tmp_path / "b")

    def test_more_snapshots_begin_as_fewer_do(self, tmp_path):
        write_demo(tmp_path / "a", FEW)
        write_demo(tmp_path / "b", replace(FEW, snapshots=2))
        for group in (None, "input", "output"):
            xr.testing.assert_identical(
                read(tmp_path / "a", group).isel(sample=slice(0, 4)), read(tmp_path / "b", group)
            )

    def test_other_settings_or_another_version_replace_it(self, tmp_path, monkeypatch):
        write_demo(tmp_path, FEW)
        first = contents(tmp_path)
        write_demo(tmp_path, replace(FEW, seed=1))
        other = contents(tmp_path)
        assert all(first[name] != other[name] for name in ("demo.json", STATS, TRAIN))
        write_demo(tmp_path, FEW)
        assert contents(tmp_path) == first
        (tmp_path / TRAIN).write_bytes(b"")
        with monkeypatch.context() as patch:
            patch.setattr(demo, "VERSION", demo.VERSION + 1)
            write_demo(tmp_path, FEW)
        assert contents(tmp_path)[TRAIN] == first[TRAIN]

    def test_a_file_that_was_removed_is_made_again(self, tmp_path):
        write_demo(tmp_path, FEW)
        first = contents(tmp_path)
        (tmp_path / STATS).unlink()
        write_demo(tmp_path, FEW)
        assert contents(tmp_path) == first

    @pytest.mark.parametrize("name", [TRAIN, STATS])
    def test_files_of_others(self, tmp_path, name):
        (tmp_path / name).write_text("")
        with pytest.raises(InputError, match=rf"{name} is of no demo: point the demo at an empty folder"):
            write_demo(tmp_path, FEW)
        assert [path.name for path in tmp_path.iterdir()] == [name]

    @pytest.mark.parametrize("text", ["[]", "{", '{"use_case": "weather_forecast/gwd"}'])
    def test_marks_of_others(self, tmp_path, text):
        (tmp_path / "demo.json").write_text(text)
        with pytest.raises(InputError, match=r"demo.json is not of a demo of downscaling/corrdiff: point the demo"):
            write_demo(tmp_path, FEW)

    def test_folders_that_cannot_be_made(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match=r"cannot write the demo to .*file/raw: Not a directory"):
            write_demo(tmp_path / "file" / "raw", FEW)

    @pytest.mark.parametrize("place", ["simulation", "statistics", "mark"])
    @pytest.mark.parametrize("before", [False, True])
    def test_interrupted(self, tmp_path, monkeypatch, place, before):
        folder = tmp_path / "raw"
        if before:
            write_demo(folder, replace(FEW, seed=1))

        def interrupted(*args: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            if place == "simulation":
                patch.setattr(demo, "_append", interrupted)
            elif place == "statistics":
                patch.setattr(demo, "write_statistics", interrupted)
            else:
                write = demo._write_text
                patch.setattr(
                    demo,
                    "_write_text",
                    lambda path, text: (interrupted if path.parent == folder else write)(path, text),
                )
            with pytest.raises(KeyboardInterrupt):
                write_demo(folder, FEW)
        assert not (folder / "demo.json").exists()
        # what a process that is killed, and not interrupted, leaves
        (folder / "demo.partial" / f".{Path(TRAIN).stem}.abc.nc").write_bytes(b"half")
        write_demo(folder, FEW)
        write_demo(tmp_path / "whole", FEW)
        assert contents(folder) == contents(tmp_path / "whole")


class TestWeather:
    def test_random_numbers_belong_to_seed_and_stream(self):
        first = make_rng(1, Stream.REGIME).random(3)
        np.testing.assert_array_equal(first, make_rng(1, Stream.REGIME).random(3))
        for other in (make_rng(2, Stream.REGIME), make_rng(1, Stream.KICKS)):
            assert not np.isin(other.random(3), first).any()

    def test_the_regime_has_its_climate_and_memory(self):
        states = np.array(list(islice(evolve_regime(np.random.default_rng(0)), 100_000)))
        mean, spread = np.array(MEAN), np.array(SPREAD)
        normal = (states - mean) / spread
        np.testing.assert_allclose(normal.mean(axis=0), 0, atol=0.06)
        # Euler's rule has a little too much variance
        np.testing.assert_allclose(normal.var(axis=0), 1 / (1 - 1 / 36), rtol=0.05)
        lagged = (normal[:-1] * normal[1:]).mean(axis=0) / normal.var(axis=0)
        np.testing.assert_allclose(lagged, 1 - 2 / 36, atol=0.01)
        assert np.abs(np.corrcoef(normal.T) - np.eye(3)).max() < 0.08

    def test_the_first_regimes_are_those_of_any_time(self):
        first = np.array([next(evolve_regime(np.random.default_rng(seed))) for seed in range(2000)])
        np.testing.assert_allclose(first.mean(axis=0), MEAN, atol=0.3)
        np.testing.assert_allclose(first.std(axis=0), SPREAD, rtol=0.06)

    def test_coarse_and_fine_fields_are_of_the_same_weather(self):
        weather = Weather(128, 8, 0, 3.0)
        for snapshot in islice(weather.snapshots(), 3):
            cells = {name: block_mean(field, 8) for name, field in snapshot.outputs.items()}
            for name, least in (("2t", 0.9), ("10u", 0.7), ("10v", 0.7)):
                assert np.corrcoef(cells[name].ravel(), snapshot.inputs[name].ravel())[0, 1] > least
            # the temperature differs by the terrain below the coarse cells, which leaves their mean as it is
            difference = cells["2t"] - snapshot.inputs["2t"]
            assert abs(difference.mean()) < 0.05 * cells["2t"].std()
            assert 0 < (snapshot.outputs["tp"] > 0).mean() < 0.7

    def test_weather_moves_with_the_mean_wind(self):
        weather = Weather(128, 8, 0, 6.0)
        first, second = islice(weather.snapshots(), 2)
        regime = list(islice(evolve_regime(make_rng(0, Stream.REGIME)), 2))[1]
        before, after = (np.fft.rfft2(x.inputs["t850"] - 278) for x in (first, second))
        lag = np.fft.irfft2(after * before.conj(), s=(16, 16))
        y, x = np.unravel_index(lag.argmax(), lag.shape)
        moved = np.array([regime.u, regime.v]) * 2 * 3600 / (8 * SPACING)
        distance = (np.array([x, y]) - moved + 8) % 16 - 8
        assert np.abs(distance).max() < 1.0
        assert np.hypot(*moved) > 1.5

    def test_times_of_day(self):
        weather = Weather(64, 8, 0, 0.0)
        snapshots = list(islice(weather.snapshots(), 13))
        assert all((b.time - a.time) == np.timedelta64(2, "h") for a, b in pairwise(snapshots))
        swing = []
        for x in snapshots:
            anomaly = (x.inputs["t850"].mean() - 278) / 0.8
            swing.append(x.outputs["2t"].mean() - anomaly - 288 + 0.0065 * weather.terrain.height.mean())
        hours = np.array([(x.time - snapshots[0].time) / np.timedelta64(1, "h") for x in snapshots])
        expected = np.cos(2 * np.pi * (hours - 15) / 24) * (1 + 4 * weather.terrain.land.mean())
        np.testing.assert_allclose(swing, expected, atol=1e-3)
