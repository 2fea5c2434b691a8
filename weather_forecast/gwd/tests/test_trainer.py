"""The command line from nothing to scorecard, and everything that can come in between."""

import errno
import json
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
import yaml
import zarr

from ai4sim.experiment import load_model
from ai4sim.export import load_exported
from ai4sim.store import open_store, read_manifest
from ai4sim.tests.command_line import QUIET, described, message_of, own_folders, samples_read
from weather_forecast.gwd import config
from weather_forecast.gwd.data import GwdData
from weather_forecast.gwd.demo import DemoSettings
from weather_forecast.gwd.evaluation import evaluate
from weather_forecast.gwd.levels import L91
from weather_forecast.gwd.trainer import main

FOLDER = Path(__file__).resolve().parents[1]
CONFIGS = sorted((FOLDER / "configs").glob("*.yaml"))
SMOKE = str(FOLDER / "configs" / "smoke.yaml")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """One folder for data and experiments of all tests here."""
    with own_folders(tmp_path_factory) as folder:
        yield folder


@pytest.fixture(scope="module")
def run(work) -> Path:
    """Folder of a finished smoke run."""
    main(["fit", "--config", SMOKE, *QUIET])
    return work / "experiments" / config.USE_CASE / "smoke" / "version_0"


def fail(capsys, *words) -> str:
    """Message of a command that a user got wrong."""
    return message_of(main, capsys, *words)


def test_a_run_leaves_everything_that_the_contract_names(run):
    assert {path.name for path in run.iterdir()} >= {
        "config.yaml", "provenance.json", "checkpoints", "scorecard.csv", "scorecard.json", "figures",
        "predictions.zarr", "profiles.nc",
    }  # fmt: skip
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert len(list(run.glob("events.out.tfevents.*"))) >= 1
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["seed"] == 0
    assert provenance["data"]["rows"] == {"train": 240, "validation": 60, "test": 60}
    assert provenance["versions"]["torch"] == torch.__version__.split("+")[0] or "+" in provenance["versions"]["torch"]
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["name"] == "smoke"
    assert saved["trainer"]["logger"] is None  # no path of this machine


def test_scorecard_has_the_contracts_columns_and_all_baselines_with_intervals(run):
    table = pd.read_csv(run / "scorecard.csv")
    assert list(table.columns) == [
        "use_case", "experiment", "model", "split", "variable", "lead_time", "threshold", "metric", "value", "lower",
        "upper", "n", "units",
    ]  # fmt: skip
    assert set(table["model"]) == {
        "AzimuthFluxNet", "zero", "mean_profile", "ridge", "scheme_4x20", "scheme_without_latitude",
    }  # fmt: skip
    scores = table[(table["split"] == "test") & table["metric"].isin(["r2", "rmse", "mean_level_r2"])]
    assert (scores["lower"] <= scores["value"]).all()
    assert (scores["value"] <= scores["upper"]).all()
    assert set(scores[scores["metric"] == "rmse"]["units"]) == {"m s-1 day-1"}
    assert set(scores["n"]) == {60 * 126}
    assert set(table["experiment"]) == {"smoke/version_0"}


def test_scores_are_those_of_the_predictions(run, work):
    table = pd.read_csv(run / "scorecard.csv").set_index(["model", "split", "metric"])["value"]
    predictions = xr.open_zarr(run / "predictions.zarr", consolidated=False)
    truth = open_store(work / "data" / config.USE_CASE / "processed" / "smoke.zarr")["y"].values[300:].astype(float)
    predicted = np.concatenate([predictions["dudt"], predictions["dvdt"]], axis=1).astype(float)
    error = (predicted - truth) * 86400
    model = ("AzimuthFluxNet", "test")
    assert table[(*model, "rmse")] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-6)
    assert table[(*model, "bias")] == pytest.approx(error.mean(), rel=1e-5)
    spread = ((truth - truth.mean()) ** 2).sum() * 86400**2
    assert table[(*model, "r2")] == pytest.approx(1 - (error**2).sum() / spread, abs=1e-6)
    levels = truth.reshape(-1, 2, 63)
    by_level = 1 - ((predicted - truth).reshape(-1, 2, 63) ** 2).sum((0, 1)) / (
        (levels - levels.mean((0, 1))) ** 2
    ).sum((0, 1))
    assert table[(*model, "mean_level_r2")] == pytest.approx(by_level[:-2].mean(), abs=1e-6)
    # what the network guarantees by construction
    assert table[(*model, "largest_momentum_residual")] < 1e-4
    assert table[(*model, "rotation_error")] < 1e-4
    assert table[(*model, "galilean_error")] < 1e-3


def test_predictions_are_labelled(run):
    predictions = xr.open_zarr(run / "predictions.zarr", consolidated=False)
    assert predictions["dudt"].dims == ("sample", "level")
    assert predictions["dudt"].attrs["units"] == "m s-2"
    assert predictions["dudt"].shape == (60, 63)
    assert predictions["pressure"].values[-1] == pytest.approx(47017, abs=1)
    assert predictions["row"].values.tolist() == list(range(300, 360))
    assert predictions.attrs["model"] == "AzimuthFluxNet"


def test_figures_are_png_files_of_a_size_for_print(run):
    from PIL import Image

    figures = {path.stem: Image.open(path) for path in (run / "figures").glob("*.png")}
    assert {"scores", "scores_by_level", "columns", "density", "scores_by_latitude"} <= set(figures)
    assert all(min(image.size) >= 400 for image in figures.values())


def test_a_second_run_overwrites_nothing_and_repeats_the_first(run):
    before = (run / "scorecard.csv").read_text()
    main(["fit", "--config", str(run / "config.yaml"), *QUIET])
    again = run.with_name("version_1")
    assert (run / "scorecard.csv").read_text() == before
    first, second = (pd.read_csv(folder / "scorecard.csv")["value"] for folder in (run, again))
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-7)


def test_the_checkpoint_alone_predicts_in_physical_units(run):
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["model_config"]["init_args"]["network"]["init_args"]["width"] == 32
    model = load_model(run / "checkpoints" / "best.ckpt")
    predictions = xr.open_zarr(run / "predictions.zarr", consolidated=False)
    x = open_store(predictions.attrs["store"])["x"].values[300:]
    with torch.no_grad():
        drag = model(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(drag[:, :63], predictions["dudt"].values, rtol=1e-4, atol=1e-9)


def test_data_are_described(run, capsys):
    lines = described(main, capsys, SMOKE)
    predictions = xr.open_zarr(run / "predictions.zarr", consolidated=False)
    statistics = read_manifest(predictions.attrs["store"]).statistics["x"]
    numbers = " ".join(f"{statistics[key][0]:.4g}" for key in ("mean", "std", "minimum", "maximum"))
    assert f"u level 1 m s-1 {numbers}" in lines
    assert any(line.startswith("dvdt level 63 m s-2 ") for line in lines)
    assert "rows: train 240, validation 60, test 60" in lines


def test_reading_is_timed(run, capsys):
    samples, batches = samples_read(main, capsys, SMOKE)
    assert samples >= batches > 0


def test_scores_can_be_made_again_without_training(run):
    before = pd.read_csv(run / "scorecard.csv")
    (run / "scorecard.csv").unlink()
    main(["score", "--experiment", str(run)])
    pd.testing.assert_frame_equal(pd.read_csv(run / "scorecard.csv"), before)


def test_score_names_a_folder_without_predictions(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["score", "--experiment", str(tmp_path)])
    assert "holds no predictions.zarr" in " ".join(capsys.readouterr().err.split())


def test_test_rebuilds_the_model_from_the_checkpoint_and_says_what_differs(run, capsys):
    checkpoint = str(run / "checkpoints" / "best.ckpt")
    data = yaml.safe_load(Path(SMOKE).read_text())["data"]
    words = [f"--data={json.dumps(data)}", "--name", "retest"]
    cli = main(["test", "--ckpt_path", checkpoint, *words, *QUIET])
    assert cli.model.network.wind.out_features == 32  # not the class's default
    assert "the latter is used" not in capsys.readouterr().out
    cli = main(["test", "--ckpt_path", checkpoint, "--model.target_weight", "0.5", *words, *QUIET])
    assert cli.model.target_weight == 0.5
    said = " ".join(capsys.readouterr().out.split())
    assert "model.target_weight: the checkpoint has 0.75, the command line 0.5; the latter is used" in said


def test_predict_writes_labelled_netcdf_for_a_raw_file_without_targets(run, work, tmp_path):
    raw = work / "data" / config.USE_CASE / "raw" / "smoke" / "2017-02-19.h5"
    with h5py.File(raw) as source, h5py.File(tmp_path / "columns.h5", "w") as target:
        target["x"] = source["x"][()]
    output = tmp_path / "drag.nc"
    words = [
        "--data.predict_input",
        str(tmp_path / "columns.h5"),
        "--data.eval_batch_size",
        "7",
        "--output",
        str(output),
    ]
    main(["predict", "--ckpt_path", str(run / "checkpoints" / "best.ckpt"), *words, *QUIET])
    predicted = xr.open_dataset(output)
    assert predicted["dvdt"].attrs["units"] == "m s-2"
    assert (
        predicted["dvdt"].attrs["standard_name"] == "tendency_of_northward_wind_due_to_nonorographic_gravity_wave_drag"
    )
    assert predicted["level"].values.tolist() == list(range(1, 64))
    tested = xr.open_zarr(run / "predictions.zarr", consolidated=False)
    np.testing.assert_allclose(predicted["dudt"], tested["dudt"][:20], rtol=1e-4, atol=1e-9)
    assert [path.name for path in tmp_path.glob("*drag*")] == ["drag.nc"]


def test_predict_refuses_impossible_columns_or_gives_nan_for_them(run, work, tmp_path, capsys, caplog):
    with h5py.File(work / "data" / config.USE_CASE / "raw" / "smoke" / "2017-02-19.h5") as source:
        x = source["x"][()]
    x[130, 1, 3] = np.nan
    with h5py.File(tmp_path / "columns.h5", "w") as target:
        target["x"] = x
    words = ["--data.predict_input", str(tmp_path / "columns.h5"), "--output", str(tmp_path / "drag.nc")]
    command = ["predict", "--ckpt_path", str(run / "checkpoints" / "best.ckpt"), *words, *QUIET]
    message = fail(capsys, *command)
    row = x.shape[2] + 3
    assert "columns.h5: 1 impossible rows among rows 0 to 20; the first is row " in message
    assert f"{row}, where T level 5 is nan, expected 100 to 350" in message
    assert not (tmp_path / "drag.nc").exists()
    main([*command, "--data.on_bad_rows", "drop"])
    bad = np.isnan(xr.open_dataset(tmp_path / "drag.nc")["dudt"]).any("level").values
    assert np.flatnonzero(bad).tolist() == [row]
    assert "NaN is predicted for them" in caplog.text


def test_test_samples_with_latitude_but_no_date_are_scored(run, tmp_path):
    folder = tmp_path / "demo" / "version_0"
    shutil.copytree(run / "predictions.zarr", folder / "predictions.zarr")
    shutil.rmtree(folder / "predictions.zarr" / "doy")
    scorecard = evaluate(folder)
    before = pd.read_csv(run / "scorecard.csv")
    value = before.query("split == 'test' and metric == 'r2' and model == 'ridge'")["value"].item()
    assert scorecard.row("ridge", "r2", split="test")["value"] == pytest.approx(value)
    assert (folder / "figures" / "scores_by_latitude.png").exists()


def test_the_reference_is_an_oracle_only_where_the_labels_are_known_to_be_its_own(run, tmp_path):
    predictions = xr.open_zarr(run / "predictions.zarr", consolidated=False)
    assert json.loads(predictions.attrs["truth"])["n_azimuths"] == 4  # the demo's own
    assert GwdData(demo=DemoSettings(azimuths=16, speeds=50)).truth.n_azimuths == 16
    shutil.copytree(run / "predictions.zarr", tmp_path / "version_0" / "predictions.zarr")
    zarr.open_group(tmp_path / "version_0" / "predictions.zarr").attrs["truth_is_exact"] = 0
    assert evaluate(tmp_path / "version_0").role("scheme_without_latitude") == "baseline"
    assert pd.read_csv(run / "scorecard.csv")["model"].nunique() == 6


def test_a_plugin_network_is_chosen_by_its_bare_name(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "ai4sim_plugin_mine.py").write_text(
        "from weather_forecast.gwd.networks import MLP\n\n\nclass SomebodysNet(MLP):\n    pass\n"
    )
    with pytest.raises(SystemExit):
        main(["fit", "--config", SMOKE, "--model.network", "SomebodysNet", "--print_config"])
    assert "class_path: ai4sim_plugin_mine.SomebodysNet" in capsys.readouterr().out
    del sys.modules["ai4sim_plugin_mine"]


def test_export_gives_the_predictions_in_physical_units(run, tmp_path):
    for name in ("drag.onnx", "drag.pt2"):
        main(["export", "--ckpt_path", str(run / "checkpoints" / "best.ckpt"), "--output", str(tmp_path / name)])
        predictions = xr.open_zarr(run / "predictions.zarr", consolidated=False)
        x = open_store(predictions.attrs["store"])["x"].values[300:]
        drag = load_exported(tmp_path / name)(x)
        scale = float(np.sqrt((predictions["dudt"] ** 2).mean()))
        assert np.abs(drag[:, 63:] - predictions["dvdt"].values).max() < 1e-5 * scale


def test_mistakes_end_with_a_message_and_status_2(run, tmp_path, capsys):
    checkpoint = str(run / "checkpoints" / "best.ckpt")
    assert "checkpoint nowhere.ckpt does not exist" in fail(capsys, "test", "--ckpt_path", "nowhere.ckpt")
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(Path(checkpoint).read_bytes()[:1000])
    assert "broken.ckpt is damaged" in fail(capsys, "test", "--ckpt_path", str(broken))
    assert "no file for the start date 2015-01-01" in fail(capsys, "fit", "--data.dataset", "nowhere")
    assert "predict needs --output FILE" in fail(capsys, "predict", "--ckpt_path", checkpoint)
    assert "use the suffix .nc or .zarr" in fail(capsys, "predict", "--ckpt_path", checkpoint, "--output", "drag.grib")
    assert "predict needs --data.predict_input FILE" in fail(
        capsys, "predict", "--ckpt_path", checkpoint, "--output", str(tmp_path / "a.nc")
    )
    assert "use the suffix .onnx or .pt2" in fail(
        capsys, "export", "--ckpt_path", checkpoint, "--output", str(tmp_path / "a.pb")
    )
    message = fail(capsys, "fit", "--config", SMOKE, "--data.layout.n_levels", "93", "--data.grid", "L137")
    assert "x has shape (191, 2, 10) with no axis of length 281" in message
    assert "the model has no statistics" in fail(capsys, "test", "--config", SMOKE)
    assert "the model has no statistics" in fail(capsys, "validate", "--config", SMOKE)
    for words in (["fit", "--trainer.limit_test_batches", "2"], ["predict", "--trainer.limit_predict_batches", "0.5"]):
        assert "predictions are written for all samples" in fail(capsys, *words)


def test_unknown_keys_are_named(capsys):
    assert "lerning_rate" in fail(capsys, "fit", "--model.lerning_rate", "1")


def test_a_network_of_other_levels_is_refused_before_the_first_batch(run, capsys):
    network = {"class_path": "weather_forecast.gwd.networks.MLP", "init_args": {"layout": {"n_levels": 93}}}
    message = fail(capsys, "fit", "--config", SMOKE, f"--model.network={json.dumps(network)}")
    assert "the network was built for ColumnLayout(n_levels=93" in message
    assert "the data have ColumnLayout(n_levels=63" in message


def test_a_network_of_another_vertical_grid_is_refused(work, tmp_path, capsys):
    other = np.stack([L91.a_half * 1.01, L91.b_half], axis=1)
    np.savetxt(tmp_path / "other.csv", other, delimiter=",", header="a,b", comments="")
    message = fail(
        capsys, "fit", "--config", SMOKE, "--data.dataset", "other", "--data.grid", str(tmp_path / "other.csv")
    )
    assert "network.pressures was built for other levels than data.grid" in message


def test_a_full_disk_says_so(work, monkeypatch, capsys):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device", "/scratch/last.ckpt")

    monkeypatch.setattr("lightning.pytorch.trainer.trainer.Trainer.save_checkpoint", full)
    message = fail(capsys, "fit", "--config", SMOKE)
    assert "error: No space left on device: /scratch/last.ckpt. Make room" in message


def test_an_unwritable_experiment_folder_says_so(run, work, monkeypatch, capsys):
    (work / "file").write_text("in the way")
    monkeypatch.setenv("AI4SIM_EXPERIMENTS", str(work / "file"))
    assert "cannot write the experiment folder" in fail(capsys, "fit", "--config", SMOKE)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_is_understood_and_makes_two_steps(path, work, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", str(path), "--print_config"])
    assert stop.value.code == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["data"]["dataset"] == yaml.safe_load(path.read_text())["data"]["dataset"]
    tiny = {"train": 240, "validation": 60, "test": 60, "times": 2, "azimuths": 4, "speeds": 20}
    words = [f"--data.demo.{key}={value}" for key, value in tiny.items()] if shown["data"]["demo"] is not None else []
    words += ["--data.dataset", f"two_steps_{path.stem}", "--data.batch_size", "32"]
    if shown["data"]["demo"] is None:
        splits = shown["data"]["splits"] or {k: list(v) for k, v in config.SPLIT_DATES.items()}
        sizes = {name: 10 * len(dates) for name, dates in splits.items()}
        words += [f"--data.demo={json.dumps({**tiny, **sizes, 'times': 1})}", "--data.batch_size", "4"]
    if shown["data"]["test_files"] is not None:
        words += ["--data.test_files", "null"]  # the real columns are not here
    main(["fit", "--config", str(path), *words, "--trainer.fast_dev_run", "2", *QUIET])
