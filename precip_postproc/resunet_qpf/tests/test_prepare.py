"""From raw files to the processed store and its batches."""

import dataclasses
import inspect
import logging
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from ai4sim.errors import InputError, MissingFileError
from ai4sim.store import open_store, read_manifest
from precip_postproc.resunet_qpf import config, prepare
from precip_postproc.resunet_qpf.batches import CaseDataset
from precip_postproc.resunet_qpf.case_list import CaseList
from precip_postproc.resunet_qpf.conditions import lead_conditions
from precip_postproc.resunet_qpf.cycle import CycleDataset
from precip_postproc.resunet_qpf.demo_files import TERRAIN
from precip_postproc.resunet_qpf.draws import Draw
from precip_postproc.resunet_qpf.predictors import CoarseToFine, Neighbourhoods
from precip_postproc.resunet_qpf.readers import (
    CurvilinearGrid,
    LambertGrid,
    gfs_path,
    read_gfs,
    read_target,
    target_path,
)
from precip_postproc.resunet_qpf.readers.files import HOUR
from precip_postproc.resunet_qpf.sources import GfsSource, NetcdfForecasts, RemappedTargets, TargetSource
from precip_postproc.resunet_qpf.tests.conftest import COARSE, tiny_data

INIT = np.datetime64("2025-12-02T00", "s")


@dataclasses.dataclass(frozen=True)
class Changed(TargetSource):
    """The demo's analyses, some of which are something else."""

    folder: Path
    kind: str = "changed"
    fields: dict = dataclasses.field(default_factory=dict, repr=False)

    def files(self, time):
        return [target_path(self.folder, time)]

    def settings(self):
        return {"kind": self.kind}

    def read(self, time, grid):
        found = read_target(self.files(time)[0], time, grid)
        return dataclasses.replace(found, **self.fields.get(time, {}))


def cases(split="train") -> CaseList:
    """Two runs with two lead times, of the demo's test runs."""
    inits = np.repeat(INIT + np.array([0, 12]) * HOUR, 2)
    splits = np.array([split, split, "validation", "test"], dtype="U10")
    return CaseList(inits, np.array([6, 24, 6, 24]), splits)


def raw(demo_raw, demo_grid, **changes) -> prepare.Raw:
    settings = {
        "forecasts": NetcdfForecasts(demo_raw / "forecast.nc"),
        "targets": RemappedTargets(demo_raw / "target"),
        "terrain": demo_raw / TERRAIN,
        "coarse": None,
        "neighbourhoods": Neighbourhoods([2.0], [4.0]),
        "grid": demo_grid,
    }
    return prepare.Raw(**(settings | changes))


class TestPacking:
    def test_amounts(self):
        amounts = np.array([0, 0.004, 0.0051, 0.25, 74.999, 199.99, 400, -1, np.nan, np.inf], np.float32)
        packed = prepare.pack(amounts)
        assert packed.tolist() == [0, 0, 1, 25, 7500, 19999, 32767, -1, -1, -1]
        found = prepare.unpack(packed)
        np.testing.assert_allclose(found[:6], amounts[:6], atol=0.005001)
        assert np.isnan(found[7:]).all()
        assert found.dtype == np.float32

    def test_an_edge_stays_on_its_side(self):
        edges = np.array(config.EDGES, np.float32)
        assert (prepare.unpack(prepare.pack(edges)) >= edges - config.GUARD).all()

    def test_observed_amounts_that_count(self):
        packed = np.array([30, -1, 9999, 10000, 30, 30, 30, 30], np.int16)
        quality = np.array([5000, 10000, 10000, 10000, 100, 101, 4999, -10000], np.int16)
        training = prepare.unpack_observed(packed, quality, config.TRAINING_QUALITY)
        verification = prepare.unpack_observed(packed, quality, config.VERIFICATION_QUALITY)
        # a quality of 0.01 is not enough to learn from, 100 mm are not verified
        assert np.isfinite(training).tolist() == [True, False, True, False, False, True, True, False]
        assert np.isfinite(verification).tolist() == [True, False, True, False, False, False, False, False]

    def test_peaks_of_blocks(self):
        field = np.zeros((10, 17), np.float32)
        field[7, 7], field[8, 8], field[9, 16], field[0, 0] = 1, 2, 3, np.nan
        assert prepare.peaks(field).tolist() == [[1, 0, 0], [0, 2, 3]]


class TestStore:
    def test_amounts_and_quality_are_those_of_the_files(self, data, demo_raw, demo_grid):
        forecasts, targets = NetcdfForecasts(demo_raw / "forecast.nc"), RemappedTargets(demo_raw / "target")
        with open_store(data.store) as store:
            for row in (0, 50, 117):
                one = store.isel(case=row).load()
                init, lead = one["init"].values.astype("datetime64[s]"), int(one["lead"])
                forecast = forecasts.read(init, lead).values
                target = targets.read(init + lead * HOUR, demo_grid)
                np.testing.assert_allclose(prepare.unpack(one["forecast"].values), forecast, atol=0.005001)
                np.testing.assert_allclose(prepare.unpack(one["observation"].values), target.values, atol=0.005001)
                np.testing.assert_allclose(one["quality"] * 1e-4, target.quality, atol=0.500001e-4)
                smoothed, fractions = Neighbourhoods().look_around(forecast)
                np.testing.assert_allclose(one["smoothed"], smoothed, rtol=1e-3, atol=1e-6)
                np.testing.assert_allclose(one["fraction"], fractions, rtol=1e-3, atol=1e-6)
                np.testing.assert_array_equal(
                    one["peak"], forecast.reshape(8, 8, 10, 8).max(axis=(1, 3)).astype(np.float32)
                )
                usable = (target.quality > 0.01) & (target.values < 100)
                assert int(one["usable"]) == usable.sum()

    def test_coordinates(self, data, demo_raw, demo_grid):
        with open_store(data.store) as store:
            np.testing.assert_array_equal(store["latitude"], demo_grid.latitude)
            np.testing.assert_array_equal(store["longitude"], demo_grid.longitude)
            with xr.open_dataset(demo_raw / TERRAIN) as terrain:
                np.testing.assert_array_equal(store["slope_x"], terrain["dterrain_dlon_smoothed"])
            assert store["lead"].attrs["units"] == "hours"
            assert store["forecast"].attrs["units"] == "0.01 mm"
            splits = np.array(prepare.SPLITS)[store["split"].values]
            listed = data._calendar().cases([6, 24])
            assert splits.tolist() == listed.split.tolist()
            np.testing.assert_array_equal(store["init"], listed.init)

    def test_statistics_are_those_of_training(self, data):
        with open_store(data.store) as store:
            training = store.isel(case=np.flatnonzero(store["split"].values == 0)).load()
        good = prepare.unpack_observed(training["observation"].values, training["quality"].values, 0.0101)
        values, counts = np.unique(training["observation"].values[np.isfinite(good)], return_counts=True)
        statistics = read_manifest(data.store).statistics
        assert statistics["amounts"] == [values.tolist(), counts.tolist()]
        np.testing.assert_allclose(
            statistics["coarse"], training["coarse"].astype(float).mean(("case", "coarse_y", "coarse_x"))
        )

    def test_what_is_there_is_not_made_again(self, data, monkeypatch):
        def load(*_):
            raise AssertionError

        monkeypatch.setattr(prepare, "load", load)
        before = read_manifest(data.store)
        data.prepare_data()
        assert read_manifest(data.store) == before

    def test_other_settings_make_another_store(self, demo_raw, demo_grid, tmp_path):
        path = tmp_path / "s.zarr"
        first = prepare.build(path, raw(demo_raw, demo_grid), cases())
        with open_store(path) as store:
            assert store["smoothed_sigma"].values.tolist() == [2]
            assert store.sizes["case"] == 4
            assert "coarse" not in store
        longer = raw(demo_raw, demo_grid, neighbourhoods=Neighbourhoods([3.0], [4.0]))
        second = prepare.build(path, longer, cases())
        assert second.fingerprint != first.fingerprint
        with open_store(path) as store:
            assert store["smoothed_sigma"].values.tolist() == [3]
        capped = raw(demo_raw, demo_grid, forecasts=NetcdfForecasts(demo_raw / "forecast.nc", cap=1.0))
        prepare.build(path, capped, cases())
        with open_store(path) as store:
            assert int(store["forecast"].max()) == 100

    def test_the_grid_is_described_with_its_projection(self, data, demo_grid):
        described = read_manifest(data.store).settings["grid"]
        assert described["shape"] == [64, 80]
        assert described["spacing_km"] == 8
        again = prepare.grid_of(described)
        assert isinstance(again, LambertGrid)
        assert again.fingerprint == demo_grid.fingerprint == described["fingerprint"]
        assert prepare.grid_of({"shape": [4, 5]}) is None

    def test_spacing_of_a_grid_without_projection(self, demo_grid):
        points = CurvilinearGrid(demo_grid.latitude, demo_grid.longitude)
        assert prepare.spacing(points) == pytest.approx(8, rel=0.01)


class TestUnusable:
    def test_cases_without_anything_to_learn_from_are_left_out(self, data, tmp_path, caplog, monkeypatch):
        caplog.set_level(logging.WARNING)
        listed = data._calendar().cases([6, 24])
        time = listed.valid_time[listed.split == "train"][4]
        few = listed.keep((np.arange(len(listed)) % 3 == 0) | (listed.valid_time == time))
        bad = {time: {"quality": np.full((64, 80), 0.01, np.float32)}}
        monkeypatch.setenv("AI4SIM_DATA", str(tmp_path))
        changed = tiny_data(
            forecasts=data.forecasts,
            targets=Changed(data.raw / "target", fields=bad),
            terrain=data.terrain,
            coarse=None,
        )
        prepare.build(changed.store, changed._raw(few), few)
        changed.setup("fit")
        left_out, total = int((few.valid_time == time).sum()), int((few.split == "train").sum())
        assert left_out > 0
        assert len(changed._rows["train"]) == total - left_out
        assert f"train: {left_out} of {total} cases have nothing to learn from: left out" in caplog.text
        with open_store(changed.store) as store:
            assert (store["usable"].values[few.valid_time == time] == 0).all()

    def test_a_whole_data_set_of_bad_quality_is_an_error(self, demo_raw, demo_grid, tmp_path):
        bad = {time: {"quality": np.full((64, 80), -1, np.float32)} for time in cases().valid_time}
        targets = Changed(demo_raw / "target", fields=bad)
        with pytest.raises(InputError, match="all points of all training cases are unknown or of too low quality"):
            prepare.build(tmp_path / "s.zarr", raw(demo_raw, demo_grid, targets=targets), cases())
        assert not (tmp_path / "s.zarr").exists()

    def test_impossible_quality_is_none(self, demo_raw, demo_grid):
        time = cases().valid_time[0]
        quality = np.full((64, 80), 0.7, np.float32)
        quality[0, :3] = 1.5, -3, 1.0
        targets = Changed(demo_raw / "target", fields={time: {"quality": quality}})
        case = prepare.load_case(raw(demo_raw, demo_grid, targets=targets), INIT, 6, None)
        assert case["quality"][0, :4].tolist() == [-10000, -10000, 10000, 7000]
        assert case["usable"] == 64 * 80 - 2


class TestFaults:
    def test_no_terrain(self, demo_raw, demo_grid, tmp_path):
        with pytest.raises(MissingFileError, match=r"hills\.nc \(terrain\) is not there"):
            prepare.build(tmp_path / "s.zarr", raw(demo_raw, demo_grid, terrain=tmp_path / "hills.nc"), cases())

    def test_terrain_of_another_grid(self, demo_raw, demo_grid, tmp_path):
        with xr.open_dataset(demo_raw / TERRAIN) as terrain:
            terrain.isel(nx=slice(0, 79)).load().to_netcdf(tmp_path / "hills.nc", engine="h5netcdf")
        with pytest.raises(InputError, match=r"shape \(64, 79\).*shape \(64, 80\).*their shapes differ"):
            prepare.build(tmp_path / "s.zarr", raw(demo_raw, demo_grid, terrain=tmp_path / "hills.nc"), cases())

    def test_analyses_of_another_time(self, demo_raw, demo_grid, tmp_path):
        class Late(Changed):
            def files(self, time):
                return [target_path(self.folder, time + 12 * HOUR)]

        message = r"is valid at 2025-12-02T18:00:00, expected 2025-12-02T06:00:00"
        with pytest.raises(InputError, match=message):
            prepare.build(tmp_path / "s.zarr", raw(demo_raw, demo_grid, targets=Late(demo_raw / "target")), cases())

    def test_analyses_of_another_grid(self, demo_raw, demo_grid, tmp_path):
        time = cases().valid_time[0]
        path = target_path(tmp_path, time)
        path.parent.mkdir()
        with xr.open_dataset(target_path(demo_raw / "target", time)) as target:
            moved = target.load()
            moved["lats"] = moved["lats"] + 0.02
            moved.to_netcdf(path, engine="h5netcdf")
        with pytest.raises(
            InputError, match=r"40\.0200 N.*40\.0000 N.* their points differ by up to 0\.02\d* degrees, more than 0\.01"
        ):
            prepare.load_case(raw(demo_raw, demo_grid, targets=RemappedTargets(tmp_path)), INIT, 6, None)

    def test_missing_files_are_left_out_up_to_a_share(self, data, tmp_path, monkeypatch, caplog):
        caplog.set_level(logging.WARNING)
        target = tmp_path / "target"
        shutil.copytree(data.raw / "target", target)
        files = sorted(target.rglob("*.nc"))
        for path in files[3:8:4]:
            path.unlink()
        built = []
        monkeypatch.setattr(prepare, "build", lambda store, raw, cases, **_: built.append(cases))
        tiny_data(targets=RemappedTargets(target)).prepare_data()
        total = len(data._calendar().cases([6, 24]))
        assert 0 < total - len(built[0]) <= 4
        assert f"{total - len(built[0])} of {total} forecasts lack a file: {files[3]}, " in caplog.text
        for path in files[10:50]:
            path.unlink()
        with pytest.raises(InputError, match=r"more than max_missing_fraction 0\.2: complete the files, or raise it"):
            tiny_data(targets=RemappedTargets(target)).prepare_data()
        shutil.rmtree(target)
        with pytest.raises(InputError, match="there is no forecast whose files are all there"):
            tiny_data(targets=RemappedTargets(target), max_missing_fraction=1.0).prepare_data()


class TestCoarse:
    def test_a_cycle_without_a_file_is_nan_and_takes_the_mean(self, demo_raw, demo_grid, tmp_path):
        gfs = tmp_path / "gfs"
        gfs.mkdir()
        shutil.copy(gfs_path(demo_raw / "gfs", INIT), gfs)
        source = GfsSource(gfs, ["pwat", "u", "v"], on_missing="climatology")
        manifest = prepare.build(tmp_path / "s.zarr", raw(demo_raw, demo_grid, coarse=source), cases())
        with open_store(tmp_path / "s.zarr") as store:
            coarse = store["coarse"].values
            axes = store["coarse_latitude"].values, store["coarse_longitude"].values
        assert np.isfinite(coarse[:2]).all()
        assert np.isnan(coarse[2:]).all()
        cycle = read_gfs(gfs_path(gfs, INIT), source.names, INIT)
        window = cycle.grid.window(demo_grid, prepare.COARSE_MARGIN)
        np.testing.assert_array_equal(coarse[1, 0], cycle.at("pwat", 24)[window])
        assert axes[0][0] <= demo_grid.latitude.min() - 0.25
        assert axes[1][-1] >= demo_grid.longitude.max() + 0.25
        means = coarse[:2].astype(np.float64).mean(axis=(0, 2, 3))
        np.testing.assert_allclose(manifest.statistics["coarse"], means)
        names = ["precipitation", "smoothed_2", "fraction_4", *prepare.STATIC, *source.names]
        dataset = CaseDataset(
            str(tmp_path / "s.zarr"), names, least_quality=0.5, patch=(16, 16), coarse=manifest.statistics["coarse"]
        )
        filled = dataset[2]["fields"][0]
        assert filled.isfinite().all()
        torch.testing.assert_close(filled[-3], torch.full((64, 80), means[0], dtype=torch.float32))
        speed = torch.hypot(filled[-2], filled[-1])
        torch.testing.assert_close(speed, torch.full((64, 80), np.hypot(*means[1:]), dtype=torch.float32))
        # where there is a file: its values, interpolated, the wind along the grid
        expected = CoarseToFine(cycle.grid, demo_grid, source.names)(np.stack([cycle.at(n, 6) for n in source.names]))
        np.testing.assert_allclose(dataset[0]["fields"][0, -3:], expected, atol=2e-3)

    def test_no_file_at_all(self, demo_raw, demo_grid, tmp_path):
        source = GfsSource(tmp_path, on_missing="climatology")
        with pytest.raises(InputError, match=r"no file of coarse predictors such as .*gfs_subset_2025120200\.nc"):
            prepare.build(tmp_path / "s.zarr", raw(demo_raw, demo_grid, coarse=source), cases())

    def test_no_file_in_training(self, demo_raw, demo_grid, tmp_path):
        shutil.copy(gfs_path(demo_raw / "gfs", INIT + 12 * HOUR), tmp_path)
        source = GfsSource(tmp_path, on_missing="climatology")
        with pytest.raises(InputError, match="no training case has coarse predictors: give their files"):
            prepare.build(tmp_path / "s.zarr", raw(demo_raw, demo_grid, coarse=source), cases())

    def test_a_lead_time_that_a_cycle_lacks(self, demo_raw, demo_grid, tmp_path):
        with xr.open_dataset(gfs_path(demo_raw / "gfs", INIT), decode_timedelta=False) as cycle:
            cycle.isel(step=[0]).load().to_netcdf(gfs_path(tmp_path, INIT), engine="h5netcdf")
        source = GfsSource(tmp_path, on_missing="climatology")
        with pytest.raises(InputError, match=r"gfs_subset_2025120200\.nc has no lead 24 h; it has 6"):
            prepare.build(tmp_path / "s.zarr", raw(demo_raw, demo_grid, coarse=source), cases())


class TestAnalyses:
    def test_an_hour_is_read_once_for_all_lead_times(self, demo_raw, demo_grid):
        read = []

        class Counted(Changed):
            def read(self, time, grid):
                read.append(time)
                return super().read(time, grid)

        source = raw(demo_raw, demo_grid, targets=Counted(demo_raw / "target"))
        times = [INIT + hours * HOUR for hours in (6, 18, 24)]
        for time in [*times, *times]:
            source.analysis(time)
        assert read == times
        assert len(pickle.loads(pickle.dumps(raw(demo_raw, demo_grid)))._recent) == 0

    def test_only_the_last_ones_are_kept(self, demo_raw, demo_grid):
        source = replace(raw(demo_raw, demo_grid), _kept=2)
        times = [INIT + 12 * step * HOUR for step in range(1, 5)]
        for time in [time - 6 * HOUR for time in times]:
            source.analysis(time)
        assert list(source._recent) == [time - 6 * HOUR for time in times[-2:]]


class TestBatches:
    @pytest.fixture
    def dataset(self, data) -> CaseDataset:
        return data._dataset(config.TRAINING_QUALITY)

    def test_a_patch_is_the_cut_of_the_whole_field(self, dataset):
        draw = Draw(np.array([3, 100, 3]), np.array([[0, 0], [32, 48], [13, 7]]), np.array([1, 2, 3], np.float32))
        patches = dataset.read(draw)
        assert patches["fields"].shape == (3, 15, 32, 32)
        assert patches["weight"].tolist() == [1, 2, 3]
        whole = dataset.read(np.array([3, 100]))
        assert whole["fields"].shape == (2, 15, 64, 80)
        assert whole["weight"].tolist() == [1, 1]
        for place, (row, (top, left)) in enumerate(zip([0, 1, 0], draw.corners, strict=True)):
            cut = (slice(top, top + 32), slice(left, left + 32))
            for name, own, field in zip(dataset.channels, patches["fields"][place], whole["fields"][row], strict=True):
                assert torch.equal(own, field[cut]), name
            torch.testing.assert_close(
                patches["observed"][place], whole["observed"][row][cut], equal_nan=True, rtol=0, atol=0
            )
            for name in ("lead", "conditions", "index"):
                assert torch.equal(patches[name][place], whole[name][row])

    def test_channels_are_in_the_order_of_their_names(self, data, dataset):
        row = 60
        with open_store(data.store) as store:
            one = store.isel(case=row).load()
        fields = dict(zip(dataset.channels, dataset[row]["fields"][0].numpy(), strict=True))
        np.testing.assert_array_equal(fields["precipitation"], prepare.unpack(one["forecast"].values))
        for name, variable, place in (
            ("smoothed_3", "smoothed", 0), ("smoothed_24", "smoothed", 2), ("fraction_18", "fraction", 1),
        ):  # fmt: skip
            np.testing.assert_array_equal(fields[name], one[variable].values[place].astype(np.float32))
        for name in prepare.STATIC:
            np.testing.assert_array_equal(fields[name], one[name])
        assert list(fields)[-5:] == COARSE
        # the wind of the demo goes along the grid's axes: the coarse fields are on latitudes and longitudes
        assert fields["u"].std() < 3
        np.testing.assert_allclose(fields["pwat"].mean(), one["coarse"][0].mean(), rtol=0.1)

    def test_labels_of_a_batch(self, data, dataset):
        rows = np.array([5, 17])
        batch = dataset.read(rows)
        with open_store(data.store) as store:
            lead, init = store["lead"].values[rows], store["init"].values[rows].astype("datetime64[s]")
        assert batch["lead"].tolist() == lead.tolist()
        assert batch["index"].tolist() == [5, 17]
        np.testing.assert_array_equal(batch["conditions"], lead_conditions(lead, init + lead * HOUR))
        assert {str(values.dtype) for name, values in batch.items() if name in ("fields", "observed", "weight")} == {
            "torch.float32"
        }
        assert len(dataset) == 118
        assert inspect.signature(dataset.__getitems__)  # the loader asks for whole batches

    def test_what_must_not_be_used_is_missing(self, data, demo_raw, demo_grid, tmp_path):
        time = cases().valid_time[0]
        target = RemappedTargets(demo_raw / "target").read(time, demo_grid)
        values, quality = target.values.copy(), np.full((64, 80), 0.8, np.float32)
        values[0, :4] = 99.99, 100, 150, np.nan
        quality[1, :4] = 0.01, 0.02, 0.49, -1
        targets = Changed(demo_raw / "target", fields={time: {"values": values, "quality": quality}})
        prepare.build(tmp_path / "s.zarr", raw(demo_raw, demo_grid, targets=targets), cases())
        names = ["precipitation", "smoothed_2", "fraction_4", *prepare.STATIC]
        for least, counts in ((config.TRAINING_QUALITY, [0, 1, 1, 0]), (config.VERIFICATION_QUALITY, [0, 0, 0, 0])):
            dataset = CaseDataset(str(tmp_path / "s.zarr"), names, least_quality=least, patch=(32, 32))
            known = dataset[0]["observed"][0].isfinite()
            assert known[0, :4].tolist() == [1, 0, 0, 0]
            assert known[1, :4].tolist() == counts
            assert known[2:].all()

    def test_where_the_forecast_is_missing_nothing_is_learnt(self, demo_raw, demo_grid, tmp_path):
        class Gappy(NetcdfForecasts):
            def read(self, init, lead):
                found = super().read(init, lead)
                found.values[5:9, 5:9] = np.nan
                return found

        source = raw(demo_raw, demo_grid, forecasts=Gappy(demo_raw / "forecast.nc"))
        prepare.build(tmp_path / "s.zarr", source, cases())
        names = ["precipitation", "smoothed_2", "fraction_4", *prepare.STATIC]
        dataset = CaseDataset(str(tmp_path / "s.zarr"), names, least_quality=0.0101, patch=(32, 32))
        batch = dataset[0]
        assert batch["fields"][0, 0, 5:9, 5:9].isnan().all()
        assert batch["fields"][0, 1:].isfinite().all()
        assert batch["observed"][0, 5:9, 5:9].isnan().all()
        with open_store(tmp_path / "s.zarr") as store:
            assert int(store["usable"][0]) == int(batch["observed"].isfinite().sum())

    def test_training_draws_are_of_training_cases(self, data):
        loader = data.train_dataloader()
        batches = list(loader)
        assert len(batches) == 8
        rows = torch.cat([batch["index"] for batch in batches]).numpy()
        assert set(rows) <= set(data._rows["train"])
        leads = torch.cat([batch["lead"] for batch in batches])
        assert ((leads == 6).sum(), (leads == 24).sum()) == (32, 32)
        assert batches[0]["fields"].shape == (8, 15, 32, 32)

    def test_a_dataset_can_be_sent_to_another_process(self, dataset):
        again = pickle.loads(pickle.dumps(dataset))
        assert torch.equal(again[7]["fields"], dataset[7]["fields"])


class TestCycle:
    def test_a_cycle_straight_from_its_files_is_that_of_the_store(self, data):
        source = GfsSource(data.raw / "gfs", COARSE)
        cycle = CycleDataset(data.forecasts, data.terrain, source, Neighbourhoods(), INIT, [6, 24])
        dataset = data._dataset(config.VERIFICATION_QUALITY)
        rows = data._rows["test"][:2]
        for place, row in enumerate(rows):
            found, expected = cycle[place], dataset[row]
            torch.testing.assert_close(found["fields"], expected["fields"], rtol=1e-3, atol=2e-3)
            assert torch.equal(found["conditions"], expected["conditions"])
            assert torch.equal(found["lead"], expected["lead"])
            np.testing.assert_array_equal(prepare.unpack(found["forecast"].numpy()), found["fields"][:, 0])

    def test_lead_times_that_are_not_there(self, data):
        message = r"1 of 2 fields of the forecast are not there, the first .*forecast\.nc: run from .*, lead 12 h"
        with pytest.raises(InputError, match=message):
            CycleDataset(data.forecasts, data.terrain, None, Neighbourhoods(), INIT, [6, 12])
