"""What users and files get wrong ends with a message that says what, and status 2."""

import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from ai4sim.store import open_store
from ai4sim.tests.command_line import QUIET, message_of
from precip_postproc.resunet_qpf import config
from precip_postproc.resunet_qpf.dates import DAY, HOUR, as_time
from precip_postproc.resunet_qpf.seasons import Calendar, Times, Validation
from precip_postproc.resunet_qpf.tests import runs
from precip_postproc.resunet_qpf.tests.conftest import TINY
from precip_postproc.resunet_qpf.trainer import main

SOURCES = "precip_postproc.resunet_qpf.sources"
CYCLE = ["--data.predict_init", "2025-12-03T12"]


@pytest.fixture(scope="session")
def run(tmp_path_factory, data_home) -> Path:
    """Folder of a finished run; nobody may change it."""
    return runs.finished_run(tmp_path_factory, data_home)


@pytest.fixture
def settings(home, tmp_path) -> str:
    """Configuration file of the tests' run, for commands that write elsewhere."""
    return runs.write_config(tmp_path)


@pytest.fixture
def own_data(demo_raw, tmp_path, monkeypatch) -> Path:
    """Raw folder of a data home of this test's own, with links to the demo's files."""
    raw = tmp_path / "data" / config.USE_CASE / "raw" / "tiny"
    for path in sorted(demo_raw.rglob("*")):
        if path.is_file():
            link = raw / path.relative_to(demo_raw)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    monkeypatch.setenv("AI4SIM_DATA", str(tmp_path / "data"))
    return raw


def fail(capsys, *words) -> str:
    """Message of a command that a user got wrong."""
    return message_of(main, capsys, *words)


@dataclass(frozen=True)
class LateCalendar(Calendar):
    """A third party's calendar that learns up to the day before the test."""

    days: int = 14
    validation: Validation = field(default_factory=Validation)

    @property
    def target_time(self) -> np.datetime64:
        return as_time("2025-12-01")

    def training_inits(self, lead: int) -> Times:
        inits: Times = self.target_time - np.arange(self.days, 0, -1) * DAY
        return inits

    def test_inits(self) -> Times:
        inits: Times = self.target_time + np.arange(2) * DAY
        return inits


class TestFiles:
    """F1, F17 and F18: what is missing, or in the way."""

    def test_missing_analyses_are_counted_and_left_out(self, settings, own_data, caplog):
        lost = sorted((own_data / "target").rglob("*.nc"))[10]
        lost.unlink()
        main(["prepare", "--config", settings, *QUIET])
        time = np.datetime64(f"{lost.stem[-10:-6]}-{lost.stem[-6:-4]}-{lost.stem[-4:-2]}T{lost.stem[-2:]}", "h")
        with open_store(own_data.parents[1] / "processed" / "tiny.zarr") as store:
            valid = store["init"].values + store["lead"].values * HOUR
            assert len(valid) > 80
            assert time.astype(valid.dtype) not in valid
        assert f"forecasts lack a file: {lost}: these are left out" in caplog.text

    def test_too_many_missing_files_stop_the_preparation(self, settings, own_data, capsys):
        lost = sorted((own_data / "target").rglob("*.nc"))[:40]
        for path in lost:
            path.unlink()
        message = fail(capsys, "fit", "--config", settings)
        found = re.search(r"(\d+) of (\d+) forecasts lack a file: (.*?), .* and (\d+) more; that is more", message)
        assert found is not None, message
        assert int(found[1]) > 0.2 * int(found[2])
        assert found[3] == str(lost[0])
        assert int(found[4]) + 5 <= len(lost)
        assert "that is more than max_missing_fraction 0.2: complete the files, or raise it" in message
        assert not (own_data.parents[1] / "processed" / "tiny.zarr").exists()

    def test_a_missing_terrain_is_always_an_error(self, settings, own_data, capsys):
        (own_data / "GRAF_CONUS_terrain_info.nc").unlink()
        message = fail(capsys, "prepare", "--config", settings, "--data.max_missing_fraction", "1")
        assert "GRAF_CONUS_terrain_info.nc" in message
        message = fail(capsys, "prepare", "--config", settings, "--data.terrain", "/nowhere/terrain.nc")
        assert "/nowhere/terrain.nc" in message

    def test_missing_coarse_predictors_are_named(self, settings, home, tmp_path, capsys):
        coarse = {"folder": str(tmp_path), "names": ["pwat", "u", "v"]}
        message = fail(capsys, "fit", "--config", settings, f"--data.coarse={json.dumps(coarse)}")
        assert f"{tmp_path}/gfs_subset_" in message
        assert "max_missing_fraction" in message

    def test_data_without_sources_say_what_they_need(self, home, capsys):
        assert "data needs data.calendar" in fail(capsys, "prepare", "--data.leads", "[6]")
        calendar = {"class_path": f"{__name__}.LateCalendar", "init_args": {"days": 3}}
        assert "data.leads must name the lead times" in fail(
            capsys, "prepare", f"--data.calendar={json.dumps(calendar)}"
        )
        assert "data.leads must be different whole hours from 1 on, not [6, 6]" in fail(
            capsys, "prepare", "--data.leads", "[6, 6]"
        )

    def test_without_eccodes_files_in_grib_name_the_extra(self, settings, tmp_path, monkeypatch, capsys):
        monkeypatch.setitem(sys.modules, "eccodes", None)
        words = ["prepare", "--config", settings, "--data.dataset", "in_grib", "--data.demo.format", "grib"]
        monkeypatch.setenv("AI4SIM_DATA", str(tmp_path / "data"))
        message = fail(capsys, *words)
        assert "writing GRIB needs eccodes, which cannot be imported" in message
        assert "ai4sim[grib]" in message

    def test_without_eccodes_netcdf_still_serves(self, run, settings, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "eccodes", None)
        monkeypatch.setattr("precip_postproc.resunet_qpf.product.product_figures", lambda product, base: [])
        words = ["--ckpt_path", str(run / "checkpoints" / "best.ckpt"), *CYCLE, "--output", str(tmp_path / "cycle.nc")]
        main(["predict", "--config", settings, *words, *QUIET])
        assert (tmp_path / "cycle.nc").exists()

    def test_without_eccodes_a_forecast_in_grib_names_the_extra(self, settings, tmp_path, monkeypatch, capsys):
        from precip_postproc.resunet_qpf.readers import graf_path

        path = graf_path(tmp_path, as_time("2025-12-03T12"), 6)
        path.parent.mkdir(parents=True)
        # section 0 of GRIB2: discipline 0, edition 2, length; then the end
        path.write_bytes(b"GRIB\0\0\0\x02" + (20).to_bytes(8, "big") + b"7777")
        monkeypatch.setitem(sys.modules, "eccodes", None)
        source = {"class_path": f"{SOURCES}.GribForecasts", "init_args": {"folder": str(tmp_path)}}
        words = ["--data.forecasts", json.dumps(source), *CYCLE, "--data.predict_leads", "[6]"]
        words += ["--config", settings, "--output", str(tmp_path / "cycle.nc"), "--ckpt_path", "nowhere.ckpt"]
        assert "checkpoint nowhere.ckpt does not exist" in fail(capsys, "predict", *words)
        words[-1] = str(trained_elsewhere(tmp_path))
        message = fail(capsys, "predict", *words)
        assert "reading GRIB needs eccodes, which cannot be imported" in message
        assert "ai4sim[grib]" in message


def trained_elsewhere(folder: Path) -> Path:
    """A checkpoint of the run's network that never saw data."""
    from precip_postproc.resunet_qpf.models import QpfModule
    from precip_postproc.resunet_qpf.networks import ConditionedResUNet
    from precip_postproc.resunet_qpf.trained_on import TrainedOn

    module = QpfModule(lambda i, o: ConditionedResUNet(i, o, widths=[8, 8, 8]), features=runs.FEATURES)
    module.trained_on = TrainedOn(list(module.edges), module.features.constants(), [6, 24], 8.0, "", "0")
    checkpoint = {"state_dict": module.state_dict(), "pytorch-lightning_version": "2.0.0"}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, folder / "elsewhere.ckpt")
    return folder / "elsewhere.ckpt"


class TestSettings:
    """F9, F10, F13 and F14: found before anything is trained."""

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--model.edges", "[0.25, 1, 1, 2.5, 5, 10, 25]"], "edges: must increase strictly, but 1 mm follows 1 mm"),
            (["--model.edges", "[0, 0.25, 1, 2.5, 5, 10, 25]"], "edges: the first must be above 0 mm, not 0"),
            (["--model.edges", "[0.25, 1, 2.5, 10, 25]"], "thresholds 5 mm are no edges: add them to edges"),
            (["--model.features", '["wet", "wet"]'], "model.features must name one feature or more, each once"),
            (["--model.features", '["wett"]'], "model.features names 'wett', which is not known; known are"),
            (["--model.features", '["log_smoothed_5"]'], "model.features need the field 'smoothed_5'"),
            (["--data.patch", "36"], "data.patch 36 is no multiple of 8, by which ConditionedResUNet divides its grid"),
            (["--data.patches_per_epoch", "4"], "data.patches_per_epoch 4 is less than one batch of 8"),
            (["--data.strata.shares", "[0.5, 0.5]"], "3 edges need 4 shares that sum to 1"),
            (["--model.inference.stride", "16"], "model.inference.stride needs model.inference.tile"),
            (["--model.head", "gammma"], "gammma"),
            (
                ["--model.head", "gamma", "--model.loss", "precip_postproc.resunet_qpf.losses.CrossEntropy"],
                "loss CrossEntropy needs a ClassHead, not a GammaHead",
            ),
            (["--model.warm_start", "nowhere.ckpt"], "checkpoint nowhere.ckpt does not exist"),
        ],
        ids=lambda value: "" if isinstance(value, list) else value[:30],
    )
    def test_impossible_ones_are_named(self, settings, capsys, words, message):
        assert message in fail(capsys, "fit", "--config", settings, *words)

    def test_features_of_fields_that_the_data_lack(self, settings, own_data, capsys):
        message = fail(capsys, "fit", "--config", settings, "--data.coarse", "null")
        assert "model.features need the field 'u'; the data have precipitation, " in message

    def test_patches_larger_than_the_domain_are_cut_with_a_notice(self, settings, caplog):
        words = ["--data.patch", "72", "--trainer.fast_dev_run", "1", "--data.batch_size", "2"]
        runs.main(["fit", "--config", settings, *words, *QUIET])
        assert "data.patch 72 is larger than the domain 64 x 80: patches are 64 x 72" in caplog.text

    def test_a_stride_larger_than_the_tile_leaves_stripes(self, settings, run, capsys):
        words = ["--ckpt_path", str(run / "checkpoints" / "best.ckpt"), "--name", "striped"]
        tiles = {"tile": 32, "stride": 40}
        message = fail(capsys, "test", "--config", settings, *words, f"--model.inference={json.dumps(tiles)}")
        assert "stride" in message
        assert "40" in message

    def test_a_validation_of_one_day_is_too_short(self, settings, capsys):
        calendar = {
            "class_path": "precip_postproc.resunet_qpf.seasons.DemoCalendar",
            "init_args": {
                "demo": {"days": TINY.days, "test_days": TINY.test_days, "grid": "tiny", "leads": list(TINY.leads)},
                "validation": {"share": 0.02, "block_days": 1},
            },
        }
        message = fail(capsys, "fit", "--config", settings, f"--data.calendar={json.dumps(calendar)}")
        assert "the split 'validation' has 1 days" in message
        assert "it needs 2: give it a larger share, or more days" in message

    def test_learning_from_what_is_not_yet_known_is_refused(self, settings, capsys, monkeypatch):
        monkeypatch.setitem(sys.modules, "late_calendar", sys.modules[__name__])
        calendar = json.dumps({"class_path": "late_calendar.LateCalendar"})
        message = fail(capsys, "fit", "--config", settings, f"--data.calendar={calendar}")
        assert "24 h" in message
        assert "2025-11-30" in message

    def test_a_loss_that_is_not_finite_names_step_lead_and_initial_times(self, settings, capsys):
        words = ["--model.optimizer.init_args.lr", "1e30", "--model.schedule", "null", "--trainer.max_epochs", "1"]
        message = fail(capsys, "fit", "--config", settings, *words)
        found = re.search(r"the training loss is nan at step (\d+), for the forecasts (\S+) \+(\d+) h", message)
        assert found is not None, message
        assert int(found[1]) >= 1
        assert np.datetime64(found[2]) < np.datetime64("2025-12-01")
        assert int(found[3]) in {6, 24}
        assert "Lower the learning rate, or clip gradients" in message


class TestCheckpoints:
    """F11, F12: used for something else than they were trained for."""

    @pytest.fixture
    def words(self, run, settings) -> list[str]:
        return ["--config", settings, "--ckpt_path", str(run / "checkpoints" / "best.ckpt")]

    def test_other_edges_and_features_are_listed_together(self, words, capsys):
        edges, features = [0.25, 1, 2.5, 5, 10, 25, 30], ["wet", "log_precipitation"]
        changes = ["--model.edges", json.dumps(edges), "--model.features", json.dumps(features)]
        message = fail(capsys, "test", *words, *changes)
        assert "the checkpoint was trained on something else:" in message
        assert "- edges 0.25, 1, 2.5, 5, 10, 25, 30 mm, the checkpoint's are 0.25, 0.5, 1," in message
        assert (
            "- features wet, log_precipitation; the checkpoint's are log_precipitation, wet, log_smoothed_9" in message
        )

    def test_a_fit_goes_on_with_its_own_lead_times_only(self, words, own_data, capsys):
        message = fail(capsys, "fit", *words, "--data.leads", "[24]")
        assert "- lead times 24 h, the checkpoint's are 6, 24 h" in message

    def test_a_part_of_the_lead_times_may_be_tested(self, words, own_data, tmp_path):
        runs.main(["test", *words, "--data.leads", "[24]", "--name", "part", *QUIET])
        folder = tmp_path / "experiments" / config.USE_CASE / "part" / "version_0"
        with xr.open_zarr(folder / "predictions.zarr", consolidated=False) as predictions:
            assert set(predictions["lead_time"].values) == {24}

    @pytest.mark.parametrize("lead", [3, 60])
    def test_leads_outside_those_of_the_training_are_refused(self, words, demo_raw, tmp_path, capsys, lead):
        words += [*CYCLE, "--data.predict_leads", f"[{lead}]", *other_forecasts(demo_raw, tmp_path, lead=lead)]
        words += ["--output", str(tmp_path / "cycle.nc")]
        message = fail(capsys, "predict", *words)
        assert (
            f"lead {lead} h is outside the range 6 to 24 h of the training (6, 24 h): train with it, or set "
            "model.allow_lead_extrapolation"
        ) in message
        assert not list(tmp_path.glob("cycle*"))

    def test_leads_outside_those_of_the_training_are_forecast_on_request(self, words, demo_raw, tmp_path, monkeypatch):
        monkeypatch.setattr("precip_postproc.resunet_qpf.product.product_figures", lambda product, base: [])
        words += [*CYCLE, "--data.predict_leads", "[60]", *other_forecasts(demo_raw, tmp_path, lead=60)]
        words += ["--model.allow_lead_extrapolation", "true", "--output", str(tmp_path / "cycle.nc")]
        main(["predict", *words, *QUIET])
        with xr.open_dataset(tmp_path / "cycle.nc") as product:
            assert product["lead_time"].values.tolist() == [60]
            assert np.isfinite(product["probability"].values).all()

    def test_a_grid_of_another_spacing_is_refused(self, words, demo_raw, tmp_path, capsys):
        words += [*CYCLE, "--data.predict_leads", "[6]", *other_forecasts(demo_raw, tmp_path, lead=6, every=2)]
        message = fail(capsys, "predict", *words, "--output", str(tmp_path / "cycle.nc"))
        assert "- grid spacing 16 km, the checkpoint's is 8 km" in message

    @pytest.mark.parametrize("command", ["test", "validate", "predict"])
    def test_a_model_that_was_never_trained_is_refused(self, settings, tmp_path, capsys, command):
        words = ["--output", str(tmp_path / "cycle.nc"), *CYCLE] if command == "predict" else []
        message = fail(capsys, command, "--config", settings, *words)
        assert "the model was never trained: give the checkpoint of a fit with --ckpt_path" in message
        assert not list(tmp_path.glob("cycle*"))

    def test_a_checkpoint_of_another_kind_is_refused(self, settings, run, tmp_path, capsys):
        stored = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
        del stored["trained_on"]
        torch.save(stored, tmp_path / "other.ckpt")
        words = ["--config", settings, "--ckpt_path", str(tmp_path / "other.ckpt"), "--name", "other"]
        assert "the checkpoint does not say what it was trained on" in fail(capsys, "test", *words)
        warm = ["--model.warm_start", str(tmp_path / "other.ckpt")]
        assert "other.ckpt is no checkpoint of this use case" in fail(capsys, "fit", "--config", settings, *warm)

    def test_a_warm_start_of_another_network_is_refused(self, settings, run, capsys):
        words = ["--model.warm_start", str(run / "checkpoints" / "best.ckpt")]
        words += ["--model.network.init_args.widths", "[8, 16, 8]"]
        assert "best.ckpt is of another network" in fail(capsys, "fit", "--config", settings, *words)

    def test_calibrated_products_need_a_calibration(self, settings, run, tmp_path, capsys):
        stored = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
        del stored["calibration"]
        torch.save(stored, tmp_path / "plain.ckpt")
        words = ["--config", settings, "--ckpt_path", str(tmp_path / "plain.ckpt"), "--model.calibrate", "true", *CYCLE]
        message = fail(capsys, "predict", *words, "--output", str(tmp_path / "cycle.nc"))
        assert "model.calibrate: the checkpoint has no calibration; it is made when a fit validates" in message
        assert not (tmp_path / "cycle.nc").exists()


class TestPredict:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ([], "predict needs --data.predict_init 2025-12-01T00"),
            (["--data.predict_init", "tomorrow"], "write a time as 2025-12-01T00"),
            (["--data.predict_init", "2025-12-24T00"], "2 of 2 fields of the forecast are not there, the first "),
            ([*CYCLE, "--data.predict_leads", "[12]"], "forecast.nc: run from 2025-12-03T12:00:00, lead 12 h"),
            ([*CYCLE, "--output", "cycle.grib"], "cannot tell the format of cycle.grib: use the suffix .nc or .zarr"),
        ],
    )
    def test_what_is_missing_is_named(self, settings, run, tmp_path, capsys, words, message):
        words = ["--output", str(tmp_path / "cycle.nc"), *words]
        words += ["--ckpt_path", str(run / "checkpoints" / "best.ckpt")]
        assert message in fail(capsys, "predict", "--config", settings, *words)
        assert not list(tmp_path.glob("cycle*"))

    def test_an_output_must_be_named(self, settings, run, capsys):
        words = ["--config", settings, "--ckpt_path", str(run / "checkpoints" / "best.ckpt"), *CYCLE]
        assert "predict needs --output FILE (.nc or .zarr)" in fail(capsys, "predict", *words)


def other_forecasts(raw: Path, folder: Path, *, lead: int, every: int = 1) -> list[str]:
    """Words that name forecasts of a lead time, or of every n-th point, with terrain to go with them."""
    with xr.open_dataset(raw / "forecast.nc") as opened:
        part = opened.isel(lead=[0], y=slice(None, None, every), x=slice(None, None, every))
        stored = part.assign_coords(lead=("lead", [lead], opened["lead"].attrs)).load()
    stored["precip"].encoding.clear()
    stored.to_netcdf(folder / "forecast.nc")
    with xr.open_dataset(raw / "GRAF_CONUS_terrain_info.nc") as opened:
        opened.isel(ny=slice(None, None, every), nx=slice(None, None, every)).to_netcdf(folder / "terrain.nc")
    source = {"class_path": f"{SOURCES}.NetcdfForecasts", "init_args": {"path": str(folder / "forecast.nc")}}
    coarse = {"folder": str(folder), "names": ["pwat", "r", "cape", "u", "v"], "on_missing": "climatology"}
    return [
        f"--data.forecasts={json.dumps(source)}", f"--data.coarse={json.dumps(coarse)}",
        "--data.terrain", str(folder / "terrain.nc"),
    ]  # fmt: skip
