"""The command line from nothing to scorecard, product and exports."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
import yaml

from ai4sim.experiment import load_model
from ai4sim.export import load_exported
from ai4sim.store import open_store, read_manifest
from ai4sim.tests.command_line import (
    QUIET,
    described,
    finish,
    kill_after_epoch,
    last_weights,
    message_of,
    samples_read,
    start,
)
from ai4sim.verification import Scorecard
from precip_postproc.resunet_qpf import config, plotters
from precip_postproc.resunet_qpf.calibration import Calibration
from precip_postproc.resunet_qpf.conditions import lead_conditions
from precip_postproc.resunet_qpf.demo_files import ideal_path
from precip_postproc.resunet_qpf.models import HEADS
from precip_postproc.resunet_qpf.prepare import unpack, unpack_observed
from precip_postproc.resunet_qpf.smoothing import gaussian_smooth
from precip_postproc.resunet_qpf.tests import runs
from precip_postproc.resunet_qpf.tests.conftest import COARSE, tiny_data
from precip_postproc.resunet_qpf.trainer import main

CONFIGS = sorted((Path(__file__).resolve().parents[1] / "configs").glob("*.yaml"))
NETWORK = "ConditionedResUNet"
BASELINES = ["climatology", "raw", "smoothed_fixed", "smoothed", "quantile_mapped"]
CYCLE = ["--data.predict_init", "2025-12-03T12"]
AVERAGE = {"class_path": "ai4sim.averaging.AverageWeights", "init_args": {"decay": 0.9}}


@pytest.fixture(scope="session")
def run(tmp_path_factory, data_home) -> Path:
    """Folder of a finished run; nobody may change it."""
    return runs.finished_run(tmp_path_factory, data_home)


@pytest.fixture
def settings(home, tmp_path) -> str:
    """Configuration file of the tests' run, for commands that write elsewhere."""
    return runs.write_config(tmp_path)


@pytest.fixture
def checkpoint(run) -> str:
    return str(run / "checkpoints" / "best.ckpt")


def experiment(home: Path, name: str) -> Path:
    """Folder of the first run of an experiment, below the one in which tests of `home` write."""
    return home / "experiments" / config.USE_CASE / name / "version_0"


def predictions_of(run: Path) -> xr.Dataset:
    with xr.open_zarr(run / "predictions.zarr", consolidated=False) as opened:
        return opened.load()


def verified(predictions: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Forecasts and analyses (sample, y, x), mm, of a run's predictions; NaN where they do not count."""
    with open_store(predictions.attrs["store"]) as store:
        rows = store.isel(case=predictions["row"].values).load()
    observed = unpack_observed(rows["observation"].values, rows["quality"].values, config.VERIFICATION_QUALITY)
    return unpack(rows["forecast"].values), observed


class TestFit:
    def test_a_run_leaves_everything_that_the_contract_names(self, run):
        assert {path.name for path in run.iterdir()} >= {
            "config.yaml", "provenance.json", "checkpoints", "scorecard.csv", "scorecard.json", "figures",
            "predictions.zarr", "verification.nc", "skill_map.nc",
        }  # fmt: skip
        assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
        assert len(list(run.glob("events.out.tfevents.*"))) >= 1
        provenance = json.loads((run / "provenance.json").read_text())
        assert provenance["seed"] == 0
        predictions = predictions_of(run)
        cases = provenance["data"]["cases"]
        assert cases["test"] == predictions.sizes["sample"] == 4 * 2 * 2
        assert cases["train"] > cases["validation"] > 0
        assert provenance["data"]["fingerprint"] == read_manifest(predictions.attrs["store"]).fingerprint

    def test_scorecard_has_the_contracts_columns_roles_and_intervals(self, run):
        table = pd.read_csv(run / "scorecard.csv")
        assert list(table.columns) == [
            "use_case", "experiment", "model", "split", "variable", "lead_time", "threshold", "metric", "value",
            "lower", "upper", "n", "units",
        ]  # fmt: skip
        assert set(table["use_case"]) == {config.USE_CASE}
        assert set(table["experiment"]) == {"run/version_0"}
        card = Scorecard.load(run)
        assert card.models[:2] == [NETWORK, f"{NETWORK}_calibrated"]
        assert set(card.models[2:]) == {*BASELINES, "ideal"}
        assert {card.role(name) for name in card.models[:2]} == {"model"}
        assert {card.role(name) for name in BASELINES} == {"baseline"}
        assert card.role("ideal") == "oracle"
        # all products are scored on the same points
        counted = table[~table["metric"].str.contains("_skill_")]
        n = counted.groupby(["split", "lead_time", "threshold", "metric"], dropna=False)["n"]
        assert (n.min() == n.max()).all()
        assert set(table["split"]) >= {"test", "test_dry", "test_wet", "test_00utc", "test_12utc"}
        assert set(table["metric"]) >= {
            "brier", "base_rate", "mean_forecast", "probability_bias", "reliability", "resolution", "roc_area",
            "sharpness", "miscalibration", "discrimination", "rps", "crps", "brier_skill_climatology",
            "brier_skill_raw", "brier_skill_smoothed", "brier_skill_quantile_mapped", "rps_skill_smoothed",
            "crps_skill_smoothed",
        }  # fmt: skip
        whole = table[table["split"] == "test"]
        assert set(whole["threshold"].dropna()) == set(config.THRESHOLDS)
        assert set(whole["lead_time"].dropna()) == {6, 24}
        scores = whole[whole["metric"].isin(["brier", "rps", "crps"]) & whole["value"].notna()]
        assert (scores["lower"] <= scores["value"]).all()
        assert (scores["value"] <= scores["upper"]).all()
        skills = table[table["metric"].str.contains("_skill_")]
        assert skills[["lower", "upper"]].notna().all(axis=None)
        assert set(table[table["metric"] == "crps"]["units"]) == {"mm"}

    def test_no_skill_is_given_for_a_handful_of_events(self, run):
        table = pd.read_csv(run / "scorecard.csv")
        pooled = table[(table["split"] == "test") & table["lead_time"].isna() & (table["model"] == NETWORK)]
        rates = pooled[pooled["metric"] == "base_rate"].set_index("threshold")
        skills = set(pooled[pooled["metric"] == "brier_skill_smoothed"]["threshold"])
        events = rates["value"] * rates["n"]
        assert skills == set(events.index[events.round() >= 30])
        assert skills < set(config.THRESHOLDS)

    def test_scores_are_those_of_the_predictions(self, run, data_home):
        card = Scorecard.load(run)
        predictions = predictions_of(run)
        forecast, observed = verified(predictions)
        known = np.isfinite(observed)
        leads = predictions["lead_time"].values
        with xr.open_zarr(run / "predictions.zarr", consolidated=False) as opened:
            curves = [opened[f"calibration_{name}"].values for name in ("forecast", "observed")]
            calibration = Calibration(opened["calibration_lead"].values.tolist(), *curves)
        exceedance = predictions["exceedance"].values.astype(np.float32)
        calibrated = np.stack([calibration.apply(p, lead) for p, lead in zip(exceedance, leads, strict=True)])
        raw = data_home / config.USE_CASE / "raw" / "tiny"
        rps = dict.fromkeys([NETWORK, f"{NETWORK}_calibrated", "raw", "ideal"], 0.0)
        for threshold in config.THRESHOLDS:
            place = predictions["edge"].values.tolist().index(threshold)
            ideal = []
            for init, lead in zip(predictions["forecast_reference_time"].values, leads, strict=True):
                with xr.open_dataset(ideal_path(raw / "ideal", init)) as stored:
                    ideal.append(stored["probability"].sel(threshold=threshold, lead=lead).values)
            products = {
                NETWORK: exceedance[:, place], f"{NETWORK}_calibrated": calibrated[:, place],
                "raw": forecast >= threshold - 1e-4, "ideal": np.stack(ideal),
            }  # fmt: skip
            event = observed >= threshold - 1e-4
            for name, probability in products.items():
                error = (probability.astype(float) - event) ** 2
                row = card.row(name, "brier", threshold=threshold)
                assert row["value"] == pytest.approx(error[known].mean(), rel=1e-5, abs=1e-9), (name, threshold)
                assert row["n"] == known.sum()
                rps[name] += error[known].mean()
                if name == NETWORK:
                    own = known & (leads == 24)[:, None, None]
                    by_lead = card.row(name, "brier", threshold=threshold, lead_time=24.0)["value"]
                    assert by_lead == pytest.approx(error[own].mean(), rel=1e-5, abs=1e-9)
            rate = card.row(NETWORK, "base_rate", threshold=threshold)["value"]
            assert rate == pytest.approx(event[known].mean(), rel=1e-6)
        for name, value in rps.items():
            assert card.row(name, "rps")["value"] == pytest.approx(value, rel=1e-5)
        assert card.row("raw", "crps")["value"] == pytest.approx(np.abs(forecast - observed)[known].mean(), rel=1e-5)
        dry = known & (gaussian_smooth(forecast, [24.0])[0] < 0.01)
        bias = exceedance[:, 0][dry].mean(dtype=float) - (observed[dry] >= 0.2499).mean()
        row = card.row(NETWORK, "probability_bias", split="test_dry", threshold=0.25)
        assert row["value"] == pytest.approx(bias, rel=1e-4)
        assert row["n"] == dry.sum()

    def test_predictions_are_labelled(self, run):
        predictions = predictions_of(run)
        exceedance = predictions["exceedance"]
        assert exceedance.dims == ("sample", "edge", "y", "x")
        assert exceedance.shape == (16, len(config.EDGES), 64, 80)
        assert exceedance.attrs["units"] == "1"
        assert exceedance.encoding["dtype"] == np.int16
        assert predictions["edge"].values.tolist() == list(config.EDGES)
        assert predictions["edge"].attrs["units"] == "mm"
        assert 0 <= float(exceedance.min()) <= float(exceedance.max()) <= 1
        assert float(exceedance.diff("edge").max()) <= 0
        assert float(exceedance.max()) > 0.2
        step = np.timedelta64(1, "h")
        hours = predictions["lead_time"].values * step
        np.testing.assert_array_equal(
            predictions["valid_time"].values, predictions["forecast_reference_time"].values + hours
        )
        assert str(predictions["forecast_reference_time"].values[0])[:13] == "2025-12-02T00"
        assert predictions.attrs["model"] == NETWORK
        assert predictions.attrs["calibrated"] == 0

    def test_figures_are_png_files_of_a_size_for_print(self, run):
        from PIL import Image

        figures = {}
        for path in (run / "figures").glob("*.png"):
            with Image.open(path) as image:
                figures[path.stem] = image.size
        assert set(figures) >= {
            "scorecard", "skill_map", "pit", "case_1", "skill_by_lead", "reliability", "calibration", "corp", "roc",
            "performance", "fss",
        }  # fmt: skip
        assert all(min(size) >= 400 for size in figures.values())

    def test_curves_are_kept_for_other_programs(self, run):
        with xr.open_dataset(run / "verification.nc") as curves:
            assert set(curves["model"].values) >= {NETWORK, f"{NETWORK}_calibrated", "smoothed", "ideal"}
            assert curves["threshold"].values.tolist() == list(config.THRESHOLDS)
        with xr.open_dataset(run / "skill_map.nc") as skill:
            assert skill["brier_skill_smoothed"].shape == (64, 80)
            assert float(skill["brier_skill_smoothed"].max()) <= 1

    def test_the_saved_configuration_repeats_the_run(self, run, settings, home, tmp_path):
        runs.main(["fit", "--config", str(run / "config.yaml"), "--name", "again", *QUIET])
        first, second = (last_weights(folder, epoch=1) for folder in (run, experiment(tmp_path, "again")))
        for name, tensor in first.items():
            torch.testing.assert_close(second[name], tensor, rtol=0, atol=0, msg=name)
        xr.testing.assert_equal(
            predictions_of(run)["exceedance"], predictions_of(experiment(tmp_path, "again"))["exceedance"]
        )


class TestOwnCommands:
    def test_data_are_described(self, settings, run, capsys):
        lines = described(main, capsys, settings)
        with open_store(predictions_of(run).attrs["store"]) as store:
            own = store.isel(case=(store["split"].values == 2) & (store["lead"].values == 24)).load()
        wet = 100 * float((own["peak"] >= 0.25).mean())
        assert f"test 24 8 {wet:.1f} {float(own['peak'].max()):.1f}" in lines
        assert any("forecasts of tiny, 64 x 80 points" in line for line in lines)
        assert any(re.fullmatch(r"cases: train \d+, validation \d+, test 16", line) for line in lines)

    def test_reading_is_timed(self, settings, capsys):
        samples, batches = samples_read(main, capsys, settings)
        assert samples == 8 * batches > 0

    def test_prepare_makes_the_store_of_raw_files(self, settings, demo_raw, run, tmp_path, monkeypatch):
        raw = tmp_path / "data" / config.USE_CASE / "raw"
        raw.mkdir(parents=True)
        (raw / "tiny").symlink_to(demo_raw)
        monkeypatch.setenv("AI4SIM_DATA", str(tmp_path / "data"))
        main(["prepare", "--config", settings, *QUIET])
        store = raw.with_name("processed") / "tiny.zarr"
        with open_store(predictions_of(run).attrs["store"]) as first, open_store(store) as second:
            for name in ("forecast", "observation", "quality", "coarse", "init", "lead", "split"):
                np.testing.assert_array_equal(second[name].values, first[name].values)
        assert not (tmp_path / "experiments").exists()

    def test_scores_can_be_made_again_from_predictions_alone(self, run, tmp_path, monkeypatch):
        folder = tmp_path / "run" / "version_0"
        shutil.copytree(run / "predictions.zarr", folder / "predictions.zarr")
        monkeypatch.setattr(plotters, "plot_all", lambda folder, results: None)
        main(["score", "--experiment", str(folder)])
        one, other = (pd.read_csv(each / "scorecard.csv") for each in (run, folder))
        pd.testing.assert_frame_equal(one, other)


@pytest.fixture(scope="module")
def product(run, data_home, tmp_path_factory) -> Path:
    """The product of a cycle, with its maps; nobody may change it."""
    folder = tmp_path_factory.mktemp("product")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AI4SIM_DATA", str(data_home))
        words = ["--config", runs.write_config(folder), "--ckpt_path", str(run / "checkpoints" / "best.ckpt")]
        main(["predict", *words, *CYCLE, "--output", str(folder / "cycle.nc"), *QUIET])
    return folder / "cycle.nc"


@pytest.fixture
def no_maps(monkeypatch):
    """Products that are not looked at for their maps do without them."""
    monkeypatch.setattr("precip_postproc.resunet_qpf.product.product_figures", lambda product, base: [])


class TestPredict:
    def test_a_cycle_is_a_file_of_climate_and_forecast_conventions(self, product):
        with xr.open_dataset(product) as opened:
            assert opened.attrs["Conventions"] == "CF-1.11"
            assert opened.attrs["calibrated"] == 0
            assert NETWORK in opened.attrs["source"]
            dims = ("lead_time", "threshold", "y", "x")
            for name in ("probability", "smoothed_probability", "raw_exceedance"):
                variable = opened[name]
                assert variable.dims == dims
                assert variable.attrs["units"] == "1"
                assert variable.attrs["long_name"]
                assert variable.encoding["dtype"] == np.int16
                assert 0 <= float(variable.min()) <= float(variable.max()) <= 1
                assert float(variable.diff("threshold").max()) <= 0
            for name in ("precipitation_quantile", "precipitation_mean", "precipitation_forecast"):
                assert opened[name].attrs["units"] == "mm"
                assert float(opened[name].min()) >= 0
            assert float(opened["precipitation_quantile"].diff("quantile").min()) >= 0
            assert opened["threshold"].values.tolist() == list(config.THRESHOLDS)
            assert opened["quantile"].values.tolist() == list(config.QUANTILES)
            assert opened["lead_time"].attrs["standard_name"] == "forecast_period"
            assert opened["lead_time"].attrs["units"] == "hours"
            assert [str(time)[:13] for time in opened["valid_time"].values] == ["2025-12-03T18", "2025-12-04T12"]
            assert str(opened["forecast_reference_time"].values)[:13] == "2025-12-03T12"
            assert set(opened["probability"].coords) >= {"latitude", "longitude", "valid_time"}
        with xr.open_dataset(product, decode_coords="all") as opened:
            mapping = opened["probability"].encoding["grid_mapping"]
            assert opened[mapping].attrs["grid_mapping_name"] == "lambert_conformal_conic"
            assert opened["x"].attrs == {"units": "m", "standard_name": "projection_x_coordinate"}
            np.testing.assert_allclose(np.diff(opened["x"].values), 8000)

    def test_times_are_times_to_readers_that_know_no_xarray(self, product):
        with xr.open_dataset(product, decode_times=False) as opened:
            for name in ("valid_time", "forecast_reference_time"):
                assert " since " in opened[name].attrs["units"], opened[name].attrs
            assert opened["lead_time"].values.tolist() == [6, 24]

    def test_probabilities_are_the_models_own_to_the_packing(self, product, run, home):
        data = tiny_data(predict_init=CYCLE[1])
        model = load_model(run / "checkpoints" / "best.ckpt")
        model.channels = data.channels
        with xr.open_dataset(product) as opened:
            places = [config.EDGES.index(threshold) for threshold in config.THRESHOLDS]
            for number, batch in enumerate(data.predict_dataloader()):
                own = model.exceedance(batch)[0].numpy()
                error = np.abs(opened["probability"].values[number] - own[places]).max()
                assert error <= 5.1e-5
                forecast = batch["fields"][0, 0].numpy()
                np.testing.assert_allclose(opened["precipitation_forecast"].values[number], forecast, atol=1e-5)
                raw = opened["raw_exceedance"].values[number]
                np.testing.assert_array_equal(raw[0], forecast >= 0.2499)

    def test_predict_equals_test(self, product, run):
        tested = predictions_of(run)
        start = np.datetime64(CYCLE[1])
        tested = tested.isel(sample=np.flatnonzero(tested["forecast_reference_time"].values == start))
        with xr.open_dataset(product) as opened:
            for threshold in config.THRESHOLDS:
                np.testing.assert_allclose(
                    opened["probability"].sel(threshold=threshold),
                    tested["exceedance"].sel(edge=threshold),
                    atol=1.01e-4,
                )

    def test_there_is_a_map_per_lead(self, product):
        from PIL import Image

        maps = sorted(path.name for path in product.parent.glob("*.png"))
        assert maps == ["cycle_006h.png", "cycle_024h.png"]
        for name in maps:
            with Image.open(product.parent / name) as image:
                assert min(image.size) >= 300
        assert not list(product.parent.glob("*predictions*"))

    def test_an_output_that_is_there_is_only_replaced_on_request(self, settings, checkpoint, no_maps, tmp_path, capsys):
        words = ["predict", "--config", settings, "--ckpt_path", checkpoint, *CYCLE, "--data.predict_leads", "[6]"]
        for suffix in ("nc", "zarr"):
            output = tmp_path / f"cycle.{suffix}"
            output.write_text("precious") if suffix == "nc" else (output / "precious").mkdir(parents=True)
            with pytest.raises(SystemExit) as stop:
                main([*words, "--output", str(output), *QUIET])
            assert stop.value.code == 2
            message = " ".join(capsys.readouterr().err.split())
            assert f"cycle.{suffix} exists already: remove it, name another output or set --overwrite" in message
            assert (output.read_text() == "precious") if suffix == "nc" else (output / "precious").is_dir()
            main([*words, "--output", str(output), "--overwrite", "true", *QUIET])
            opened = xr.open_dataset(output) if suffix == "nc" else xr.open_zarr(output, consolidated=False)
            with opened:
                assert opened["probability"].sizes["lead_time"] == 1
            assert not (output / "precious").exists()

    def test_what_an_interrupted_predict_left_is_no_obstacle_to_overwriting(
        self, settings, checkpoint, no_maps, tmp_path, monkeypatch
    ):
        words = ["predict", "--config", settings, "--ckpt_path", checkpoint, *CYCLE, "--data.predict_leads", "[6]"]
        words += ["--output", str(tmp_path / "cycle.nc"), "--overwrite", "true", *QUIET]
        with monkeypatch.context() as patch:
            patch.setattr("precip_postproc.resunet_qpf.product.product_figures", lambda product, base: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                main(words)
        main(words)
        with xr.open_dataset(tmp_path / "cycle.nc") as opened:
            assert float(opened["probability"].max()) > 0

    def test_calibrated_probabilities_are_those_of_the_checkpoints_curves(
        self, product, settings, checkpoint, no_maps, tmp_path
    ):
        words = ["predict", "--config", settings, "--ckpt_path", checkpoint, *CYCLE, "--model.calibrate", "true"]
        main([*words, "--output", str(tmp_path / "calibrated.zarr"), *QUIET])
        calibration = load_model(checkpoint).calibration
        with xr.open_zarr(tmp_path / "calibrated.zarr", consolidated=False) as own, xr.open_dataset(product) as plain:
            assert own.attrs["calibrated"] == 1
            values = plain["probability"].values[0, 0]
            expected = np.interp(values, calibration.forecast[0, 0], calibration.observed[0, 0])
            slope = np.diff(calibration.observed[0, 0]) / np.maximum(np.diff(calibration.forecast[0, 0]), 1e-4)
            assert np.abs(own["probability"].values[0, 0] - expected).max() <= 1e-4 * max(1, slope.max())
            assert np.abs(own["probability"].values - plain["probability"].values).max() > 0.01

    def test_a_lead_between_those_of_the_training_is_forecast(self, settings, checkpoint, no_maps, demo_raw, tmp_path):
        with xr.open_dataset(demo_raw / "forecast.nc") as opened:
            stored = opened.isel(lead=[0, 0, 1]).assign_coords(lead=("lead", [6, 12, 24], opened["lead"].attrs)).load()
        stored["precip"].encoding.clear()
        stored.to_netcdf(tmp_path / "forecast.nc")
        source = {
            "class_path": "precip_postproc.resunet_qpf.sources.NetcdfForecasts",
            "init_args": {"path": str(tmp_path / "forecast.nc")},
        }
        coarse = {"folder": str(tmp_path), "names": COARSE, "on_missing": "climatology"}
        words = [
            "predict",
            "--config",
            settings,
            "--ckpt_path",
            checkpoint,
            *CYCLE,
            f"--data.coarse={json.dumps(coarse)}",
        ]
        words += [f"--data.forecasts={json.dumps(source)}", "--data.predict_leads", "[6, 12, 24]"]
        main([*words, "--output", str(tmp_path / "cycle.nc"), *QUIET])
        with xr.open_dataset(tmp_path / "cycle.nc") as opened:
            assert opened["lead_time"].values.tolist() == [6, 12, 24]
            forecast, probability = opened["precipitation_forecast"].values, opened["probability"].values
            np.testing.assert_array_equal(forecast[0], forecast[1])
            # the same forecast six hours later is another one to the network
            assert np.isfinite(probability).all()
            assert 1e-3 < np.abs(probability[1] - probability[0]).max() < 0.5


class TestCheckpoint:
    def test_probabilities_come_back_bit_by_bit(self, run, home):
        stored = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
        assert stored["model_config"]["init_args"]["features"] == runs.FEATURES
        assert stored["trained_on"]["leads"] == [6, 24]
        assert stored["trained_on"]["edges"] == list(config.EDGES)
        assert stored["trained_on"]["spacing_km"] == pytest.approx(8)
        assert set(stored["trained_on"]["coarse"]) == {"pwat", "r", "cape", "u", "v"}
        data = tiny_data()
        data.prepare_data()
        data.setup("test")
        model = load_model(run / "checkpoints" / "best.ckpt")
        model.channels = data.channels
        predictions = predictions_of(run)
        packed = np.rint(predictions["exceedance"].values / 1e-4).astype(int)
        first = 0
        for batch in data.test_dataloader():
            own = torch.round(model.exceedance(batch) / 1e-4).to(torch.int16).numpy()
            np.testing.assert_array_equal(own, packed[first : first + len(own)])
            first += len(own)
        assert first == len(packed)

    def test_another_training_can_begin_with_its_weights(self, run, checkpoint, settings, tmp_path):
        words = ["--model.warm_start", checkpoint, "--trainer.max_steps", "0", "--name", "warm"]
        cli = runs.main(["fit", "--config", settings, *words, *QUIET])
        stored = torch.load(checkpoint, weights_only=True)["state_dict"]
        for name, tensor in cli.model.state_dict().items():
            torch.testing.assert_close(tensor, stored[name], rtol=0, atol=0, msg=name)

    def test_tiles_give_nearly_the_same_as_one_pass(self, run, checkpoint, settings, tmp_path):
        words = ["test", "--config", settings, "--ckpt_path", checkpoint, "--name", "tiled"]
        tiling = {"tile": 48, "stride": 24, "window": "tent", "batch_size": 8}
        runs.main([*words, f"--model.inference={json.dumps(tiling)}", *QUIET])
        whole, tiled = (predictions_of(each)["exceedance"].values for each in (run, experiment(tmp_path, "tiled")))
        assert 0 < np.abs(whole - tiled).max() < 0.1
        _, observed = verified(predictions_of(run))
        scores = [
            np.square(p[:, 0] - (observed >= 0.2499))[np.isfinite(observed)].mean(dtype=float) for p in (whole, tiled)
        ]
        assert scores[1] == pytest.approx(scores[0], rel=0.01)

    def test_a_killed_fit_goes_on_and_ends_where_an_uninterrupted_one_ends(self, settings, tmp_path):
        """Weights, averages, best score and calibration; patches are mirrored at random."""
        words = ["fit", "--config", settings, "--trainer.max_epochs", "6", "--data.patches_per_epoch", "32"]
        words += [f"--trainer.callbacks={json.dumps(AVERAGE)}", "--model.flips", "true"]
        runs.main([*words, "--name", "whole", *QUIET])
        killed, whole = (experiment(tmp_path, name) for name in ("killed", "whole"))
        last = killed / "checkpoints" / "last.ckpt"
        kill_after_epoch(start(runs.UNSCORED, *words, "--name", "killed"), 2, last)
        assert not (killed / "predictions.zarr").exists()
        assert torch.load(last, weights_only=True)["epoch"] < 5
        runs.main([*words, "--name", "killed", "--ckpt_path", str(last), *QUIET])
        one, other = (last_weights(folder, epoch=5) for folder in (whole, killed))
        for name, tensor in one.items():
            torch.testing.assert_close(other[name], tensor, rtol=0, atol=0, msg=name)
        stored = [
            {name: torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True) for name in ("best", "last")}
            for folder in (whole, killed)
        ]
        scores = [
            next(v for k, v in each["last"]["callbacks"].items() if k.startswith("ModelCheckpoint")) for each in stored
        ]
        assert scores[0]["best_model_score"] == scores[1]["best_model_score"]
        assert stored[0]["best"]["epoch"] == stored[1]["best"]["epoch"]
        for part in ("forecast", "observed"):
            torch.testing.assert_close(
                *(each["best"]["calibration"][part] for each in stored), rtol=0, atol=0, equal_nan=True
            )
        xr.testing.assert_equal(predictions_of(whole)["exceedance"], predictions_of(killed)["exceedance"])

    @pytest.mark.slow
    def test_two_processes_forecast_what_one_does(self, run, checkpoint, settings, tmp_path):
        words = ["test", "--config", settings, "--ckpt_path", checkpoint, "--name", "two"]
        two = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--data.eval_batch_size", "3"]
        finish(start(runs.UNSCORED, *words, *two))
        one, other = predictions_of(run), predictions_of(experiment(tmp_path, "two"))
        assert other["row"].values.tolist() == one["row"].values.tolist()
        np.testing.assert_allclose(one["exceedance"], other["exceedance"], atol=1.01e-4)
        np.testing.assert_array_equal(one["valid_time"], other["valid_time"])


class TestExport:
    @pytest.mark.parametrize("head", ["csgd", "quantiles"])
    def test_other_heads_give_probabilities_too(self, settings, tmp_path, head):
        checkpoint = untrained(settings, tmp_path, head)
        main(["export", "--ckpt_path", str(checkpoint), "--output", str(tmp_path / "network.pt2")])
        model = load_model(checkpoint)
        x = torch.rand(2, len(model.features.needs) + 8, 64, 64, generator=torch.Generator().manual_seed(3))
        x[:, -8:] = x[:, -8:, :1, :1]
        own = model.head.exceedance(
            model.network(model.features(x[:, :-8], model.features.needs), x[:, -8:, 0, 0])
        ).detach()
        np.testing.assert_allclose(load_exported(tmp_path / "network.pt2")(x.numpy()), own, atol=2e-4)

    def test_what_onnx_cannot_express_is_said(self, settings, tmp_path, capsys):
        checkpoint = untrained(settings, tmp_path, "csgd")
        message = message_of(
            main, capsys, "export", "--ckpt_path", str(checkpoint), "--output", str(tmp_path / "a.onnx")
        )
        assert "ONNX has no incomplete gamma function, which the probabilities of a CsgdHead need" in message
        assert "export with --format pt2" in message

    @pytest.mark.parametrize("suffix", ["onnx", "pt2"])
    def test_probabilities_are_those_of_the_network(self, checkpoint, tmp_path, suffix):
        output = tmp_path / f"probabilities.{suffix}"
        main(["export", "--ckpt_path", checkpoint, "--output", str(output)])
        model = load_model(checkpoint)
        fields = 5 * torch.rand(3, len(model.features.needs), 64, 64, generator=torch.Generator().manual_seed(3))
        times = np.array(["2025-12-01T06", "2025-07-01T00", "2024-02-29T18"], "datetime64[s]")
        conditions = torch.as_tensor(lead_conditions(np.array([6, 12, 24]), times))
        x = torch.cat([fields, conditions[:, :, None, None].expand(-1, -1, 64, 64)], dim=1)
        exported = load_exported(output)(x.numpy())
        model.channels = model.features.needs
        own = model.exceedance({"fields": fields, "conditions": conditions}).numpy()
        assert exported.shape == own.shape == (3, len(config.EDGES), 64, 64)
        np.testing.assert_allclose(exported, own, atol=1e-5)


def untrained(settings: str, folder: Path, head: str) -> Path:
    """A checkpoint of a fit of no step, with another head than that of the tests' run."""
    words = ["--model.head", head, "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1", "--name", head]
    words += ["--data.validation_cases", "2", "--model.edges", json.dumps(list(config.THRESHOLDS))]
    cli = runs.main(["fit", "--config", settings, *words, *QUIET])
    return Path(cli.trainer.log_dir) / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize("head", sorted(HEADS))
def test_every_head_makes_two_steps_and_forecasts(head, settings, home):
    cli = runs.main(
        [
            "fit",
            "--config",
            settings,
            "--model.head",
            head,
            "--trainer.fast_dev_run",
            "2",
            "--trainer.logger",
            "false",
            *QUIET,
        ]
    )
    assert type(cli.model.head) is HEADS[head][0]
    assert type(cli.model.loss) is HEADS[head][1]
    assert np.isfinite(float(cli.trainer.callback_metrics["train_loss"]))
    assert 0 < float(cli.trainer.callback_metrics["val_loss"]) < 1


def dry_bias(run: Path) -> float:
    """How much too high the probability of 0.25 mm is where the smoothed forecast is below 0.01 mm."""
    predictions = predictions_of(run)
    forecast, observed = verified(predictions)
    dry = np.isfinite(observed) & (gaussian_smooth(forecast, [24.0])[0] < 0.01)
    return float(predictions["exceedance"].values[:, 0][dry].mean() - (observed[dry] >= 0.2499).mean())


def test_learning_from_wet_patches_alone_makes_it_rain_everywhere(settings):
    """Requirement R6: the check of dry places tells such a model from others."""
    biases = []
    for shares in ([0.3, 0.4, 0.2, 0.1], [0, 0, 0.5, 0.5]):
        words = ["--data.strata.shares", json.dumps(shares), "--trainer.max_epochs", "3"]
        words += ["--data.patches_per_epoch", "256", "--name", f"share_{shares[0]}"]
        cli = runs.main(["fit", "--config", settings, *words, *QUIET])
        biases.append(dry_bias(Path(cli.trainer.log_dir)))
    assert 0 < biases[0] < biases[1], biases


@pytest.mark.parametrize("steps", [3, 11])
def test_a_fit_that_ends_inside_an_epoch_is_validated_there(settings, steps):
    """An epoch has eight steps; the early stopping watches what only a validation gives."""
    stopping = {
        "class_path": "lightning.pytorch.callbacks.EarlyStopping",
        "init_args": {"monitor": "val_loss", "patience": 8},
    }
    words = ["--trainer.max_epochs", "-1", "--trainer.max_steps", str(steps), "--name", f"steps_{steps}"]
    cli = runs.main(["fit", "--config", settings, *words, f"--trainer.callbacks={json.dumps([stopping])}", *QUIET])
    last = torch.load(Path(cli.trainer.log_dir) / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == steps
    assert last["epoch"] == steps // 8
    assert "calibration" in last
    scores = next(v for k, v in last["callbacks"].items() if k.startswith("ModelCheckpoint") and "val_loss" in k)
    stopper = next(v for k, v in last["callbacks"].items() if k.startswith("EarlyStopping"))
    assert 0 < float(stopper["best_score"]) < 1
    assert float(scores["best_model_score"]) == pytest.approx(float(stopper["best_score"]))
    # of so few steps each is better than the ones before
    best = torch.load(Path(cli.trainer.log_dir) / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] == steps


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_is_understood_and_makes_two_steps(path, home, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", str(path), "--print_config"])
    assert stop.value.code == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    written = yaml.safe_load(path.read_text())
    assert shown["data"]["dataset"] == written["data"]["dataset"]
    assert shown["model"]["edges"] == written["model"].get("edges")
    demo = {"days": 14, "test_days": 4, "grid": "tiny", "leads": [6, 24], "format": "netcdf"}
    changes = {
        "data.dataset": "tiny", "data.demo": json.dumps(demo), "data.forecasts": "null", "data.targets": "null",
        "data.terrain": "null", "data.calendar": "null", "data.leads": "[6, 24]", "data.patch": 32,
        "data.coarse": json.dumps({"folder": "gfs", "names": ["pwat", "r", "cape", "u", "v"]}), "data.batch_size": 2,
        "data.num_workers": 0, "trainer.fast_dev_run": 2, "trainer.accumulate_grad_batches": 1,
        "trainer.precision": "32-true",
    }  # fmt: skip
    kind = written["model"]["network"]
    kind = kind if isinstance(kind, str) else kind["class_path"]
    widths = 5 if kind.endswith("AttnResUNet") else 4
    network = {"class_path": kind, "init_args": {"widths": [8] * widths}}
    words = [f"--{key}={value}" for key, value in changes.items()] + [f"--model.network={json.dumps(network)}"]
    cli = main(["fit", "--config", str(path), *words, *QUIET])
    assert np.isfinite(float(cli.trainer.callback_metrics["train_loss"]))
    assert cli.model.network.multiple <= written["data"]["patch"]
    assert written["data"]["patch"] % cli.model.network.multiple == 0
