"""The command line from nothing to scorecard, forecasts and exports."""

import json
import re
import sys
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
    own_folders,
    samples_read,
    start,
)
from ai4sim.verification import Scorecard
from weather_forecast.lam import compare, config
from weather_forecast.lam.forecaster import Forecaster
from weather_forecast.lam.networks import registry
from weather_forecast.lam.networks.base import LamNetwork
from weather_forecast.lam.tests.conftest import STATE
from weather_forecast.lam.trainer import main

FOLDER = Path(__file__).resolve().parents[1]
# those of real data that are not part of the project, and whose parameters the demo does not have, are left out
DEMO_CONFIGS = [path for path in sorted((FOLDER / "configs").glob("*.yaml")) if path.stem not in {"era5_finse", "meps"}]
SMOKE = str(FOLDER / "configs" / "smoke.yaml")
TRAINER = "weather_forecast.lam.trainer"
CURRICULUM = '{"class_path": "weather_forecast.lam.rollout.RolloutCurriculum", "init_args": {"maximum": 3}}'


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


@pytest.fixture
def unscored(monkeypatch):
    """Runs that are not looked at for their scores do without them."""

    def evaluate(folder: Path) -> Scorecard:
        card = Scorecard(use_case=config.USE_CASE, experiment=folder.name)
        card.add(model="HalfUNet", metric="mean_rmse_skill_persistence", value=0.0)
        return card

    monkeypatch.setattr("weather_forecast.lam.trainer.evaluate", evaluate)


def test_data_are_described(run, capsys):
    lines = described(main, capsys, SMOKE)
    statistics = read_manifest(store_of(run)).statistics["state"]
    names = open_store(store_of(run))["state"].attrs["features"]
    i = names.index("aro_t2m_2m")
    numbers = " ".join(f"{statistics[key][i]:.4g}" for key in ("mean", "std", "minimum", "maximum"))
    assert any(line.startswith(f"aro_t2m_2m K {numbers} ") for line in lines)
    assert any(re.fullmatch(r"windows: train \d+, validation \d+, test \d+", line) for line in lines)


def test_reading_is_timed(run, capsys):
    samples, batches = samples_read(main, capsys, SMOKE)
    assert samples >= batches > 0


def fail(capsys, *words) -> str:
    """Message of a command that a user got wrong."""
    return message_of(main, capsys, *words)


def store_of(run: Path) -> Path:
    return run.parents[4] / "data" / config.USE_CASE / "processed" / "smoke.zarr"


def test_a_run_leaves_everything_that_the_contract_names(run):
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "config.yaml", "provenance.json", "checkpoints", "scorecard.csv", "scorecard.json", "figures",
        "predictions.zarr", "scores.nc", "scores.json",
    }  # fmt: skip
    figures = {path.name for path in (run / "figures").iterdir()}
    assert figures >= {"skill_by_lead.png", "rmse_by_lead.png", "acc_by_lead.png", "spectra.png", "maps_aro_t2m_2m.png"}
    assert any(name.endswith(".gif") for name in figures)
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["data"]["windows"] == {"train": 23, "validation": 6, "test": 14}


def test_predictions_are_labelled(run):
    predictions = xr.open_zarr(run / "predictions.zarr", consolidated=False)
    assert set(predictions.data_vars) == set(STATE)
    temperature = predictions["aro_t2m_2m"]
    assert temperature.dims == ("sample", "lead_time", "lat", "lon")
    assert temperature.shape == (14, 2, 24, 32)
    assert temperature.attrs["units"] == "K"
    assert temperature.attrs["standard_name"] == "air_temperature"
    assert predictions["lead_time"].values.tolist() == [3, 6]
    assert predictions["forecast_reference_time"].dt.hour.values.tolist() == [
        0,
        3,
        6,
        9,
        12,
        15,
        18,
        21,
        0,
        3,
        6,
        9,
        12,
        15,
    ]


def test_scores_are_those_of_the_forecasts(run):
    predictions = xr.open_zarr(run / "predictions.zarr", consolidated=False).load()
    interior = predictions["border"].values == 0
    with open_store(store_of(run)) as store:
        fields = store["state"].values.astype(float)
    rows = predictions["rows"].values
    table = pd.read_csv(run / "scorecard.csv")
    rmse = table[table["metric"] == "rmse"].set_index(["model", "variable", "lead_time"])["value"]
    ratios = []
    for number, name in enumerate(STATE):
        truth = fields[rows[:, 1:], ..., number]
        for lead in (0, 1):
            error = predictions[name].values[:, lead].astype(float) - truth[:, lead]
            own = np.sqrt((error[:, interior] ** 2).mean())
            assert rmse["HalfUNet", name, 3.0 * (lead + 1)] == pytest.approx(own, rel=1e-6)
            last = fields[rows[:, 0], ..., number] - truth[:, lead]
            reference = np.sqrt((last[:, interior] ** 2).mean())
            assert rmse["persistence", name, 3.0 * (lead + 1)] == pytest.approx(reference, rel=1e-6)
            if lead == 1:
                ratios.append(own / reference)
    pooled = table[(table["metric"] == "mean_rmse_skill_persistence") & (table["lead_time"] == 6)]
    assert pooled.set_index("model")["value"]["HalfUNet"] == pytest.approx(1 - np.mean(ratios), rel=1e-6)


def test_all_baselines_have_scores_and_the_rain_has_its_own(run):
    table = pd.read_csv(run / "scorecard.csv")
    assert set(table["model"]) == {"HalfUNet", "persistence", "climatology", "host", "truth"}
    host = table[(table["model"] == "host") & (table["metric"] == "rmse")]
    assert set(host["variable"]) == {"aro_u_850hpa", "aro_v_850hpa", "aro_z_850hpa"}
    rain = table[table["threshold"].notna()]
    assert set(rain["variable"]) == {"aro_tp_0m"}
    assert set(rain["threshold"]) == {0.1, 1.0, 5.0}
    assert {"csi", "frequency_bias", "window_1_fss", "window_9_fss"} <= set(rain["metric"])
    assert {"rmse", "mae", "bias", "acc", "lsd", "rmse_skill_persistence"} <= set(table["metric"])
    balance = table[(table["metric"] == "geostrophic_residual") & (table["lead_time"] == 3)].set_index("model")["value"]
    assert set(balance.index) >= {"truth", "HalfUNet", "host"}
    assert balance["truth"] < balance["HalfUNet"]  # of which most is that of differences on so coarse a grid
    assert balance["truth"] == pytest.approx(balance["persistence"], rel=0.2)
    outside = table[(table["metric"] == "out_of_bounds_error") & (table["model"] == "HalfUNet")]
    assert set(outside["variable"]) == {"aro_t2m_2m", "aro_tp_0m"}
    assert (outside["value"] == 0).all()


def test_files_for_other_programs(run):
    values = json.loads((run / "scores.json").read_text())
    assert set(values["rmse"]) == set(STATE)
    assert len(values["rmse"]["aro_t2m_2m"]) == 2
    scores = xr.open_dataset(run / "scores.nc")
    assert set(scores["value"].dims) == {"metric", "product", "parameter", "lead_time"}
    own = scores["value"].sel(metric="rmse", product="HalfUNet", parameter="aro_t2m_2m").values
    np.testing.assert_allclose(own, values["rmse"]["aro_t2m_2m"])


def test_a_checkpoint_alone_forecasts_in_physical_units(run):
    model = load_model(run / "checkpoints" / "best.ckpt")
    info = model.built.info
    assert info.outputs == STATE
    state = model.built.states.mean.expand(1, 1, *info.shape, -1)
    batch = {
        "state": state.repeat(1, 3, 1, 1, 1), "forcing": model.built.forcings.mean.expand(1, 3, *info.shape, -1),
        "clock": torch.zeros(1, 2, 4), "toa_radiation": torch.zeros(1, 2, *info.shape),
    }  # fmt: skip
    with torch.no_grad():
        forecast = model.built.physical(model(model.built.window(batch)))
    assert 250 < forecast[..., 0].mean() < 320


@pytest.mark.parametrize("boundary", ["truth", "host"])
def test_predict_equals_test_with_the_same_boundary(run, unscored, tmp_path, boundary):
    checkpoint = str(run / "checkpoints" / "best.ckpt")
    main(
        ["test", "--config", SMOKE, "--ckpt_path", checkpoint, "--model.boundary", boundary, "--name", boundary, *QUIET]
    )
    tested = xr.open_zarr(run.parents[1] / boundary / "version_0" / "predictions.zarr", consolidated=False).load()
    times = [str(time)[:16] for time in tested["forecast_reference_time"].values[[0, 3]]]
    output = tmp_path / "forecast.nc"
    main([
        "predict", "--config", SMOKE, "--ckpt_path", checkpoint, "--model.predict_boundary", boundary,
        "--data.predict_times", json.dumps(times), "--data.predict_truth", json.dumps(boundary == "truth"),
        "--output", str(output), *QUIET,
    ])  # fmt: skip
    predicted = xr.open_dataset(output)
    assert predicted.attrs["Conventions"] == "CF-1.11"
    assert predicted["lead_time"].attrs["standard_name"] == "forecast_period"
    for name in STATE:
        scale = float(tested[name].std())
        np.testing.assert_allclose(predicted[name], tested[name][[0, 3]], rtol=1e-5, atol=1e-4 * scale)


def test_predict_says_what_it_needs(run, capsys, tmp_path):
    words = ["predict", "--config", SMOKE, "--ckpt_path", str(run / "checkpoints" / "best.ckpt")]
    output = ["--output", str(tmp_path / "f.nc")]
    assert "predict needs --data.predict_times" in fail(capsys, *words, *output)
    late = ["--data.predict_times", '["2023-04-12T21:00"]']
    assert "needs arp_u_850hpa at 2023-04-13T00:00, which is not there" in fail(capsys, *words, *output, *late)
    bad = ["--data.predict_times", '["yesterday"]']
    assert "write times as 2023-01-01T00" in fail(capsys, *words, *output, *bad)


def test_one_step_is_exported_and_computes_the_same(run, tmp_path):
    checkpoint = run / "checkpoints" / "best.ckpt"
    files = [tmp_path / "step.onnx", tmp_path / "step.pt2"]
    for file in files:
        main(["export", "--ckpt_path", str(checkpoint), "--output", str(file)])
    model = load_model(checkpoint).built
    generator = torch.Generator().manual_seed(1)
    x = torch.cat([
        torch.randn(3, 24, 32, 5, generator=generator) * model.states.std + model.states.mean,
        torch.randn(3, 24, 32, 3, generator=generator) * model.forcings.std + model.forcings.mean,
        torch.rand(3, 24, 32, 4, generator=generator), 800 * torch.rand(3, 24, 32, 1, generator=generator),
    ], dim=-1)  # fmt: skip
    one, two = (load_exported(file)(x.numpy()) for file in files)
    assert one.shape == (3, 24, 32, 5)
    np.testing.assert_allclose(one / model.states.std.numpy(), two / model.states.std.numpy(), rtol=1e-4, atol=1e-3)


def test_the_configuration_of_meps_makes_two_steps_on_its_files(work):
    """A forecast in each of three periods, on a grid of 27 x 30 points."""
    folder, shape, rng = work / "meps", (27, 30), np.random.default_rng(0)
    (folder / "static").mkdir(parents=True)
    plane = np.stack(np.meshgrid(1e4 * np.arange(shape[1]), 1e4 * np.arange(shape[0]))).astype(np.float32)
    np.save(folder / "static" / "nwp_xy.npy", plane)
    np.save(folder / "static" / "surface_geopotential.npy", rng.random(shape, np.float32))
    for split, day in (("train", "20220101"), ("val", "20220801"), ("test", "20221001")):
        samples = folder / "samples" / split
        samples.mkdir(parents=True)
        np.save(samples / f"nwp_{day}00_mbr000.npy", rng.random((25, *shape, 18), np.float32))
        np.save(samples / f"nwp_toa_downwelling_shortwave_flux_{day}00.npy", rng.random((25, *shape), np.float32))
        np.save(samples / f"wtr_{day}00.npy", rng.random(shape, np.float32))
    changes = {"data.accessor.init_args.path": folder, "data.n_targets_eval": 2, "data.num_workers": 0}
    words = [f"--{key}={value}" for key, value in (changes | {"trainer.fast_dev_run": 2}).items()]
    network = main(["fit", "--config", str(FOLDER / "configs" / "meps.yaml"), *words, *QUIET]).model.built.network
    assert (network.in_channels, network.out_channels) == (2 * 17 + 4 + 2 + 4 + 1, 17)
    assert type(network).__name__ == "GraphLAM"


@pytest.mark.parametrize("path", DEMO_CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_makes_two_steps(path, work):
    settings = yaml.safe_load(path.read_text())
    assert settings["model"]["network"] in registry.available_networks()
    # of the levels of the real data set, the demo has three
    names = {
        role: json.dumps([name for name in settings["data"].get(role, []) if "700" not in name])
        for role in ("state", "forcing")
    }
    tiny = {
        "data.state": names["state"], "data.forcing": names["forcing"], "data.demo": '{"size": "tiny", "train": 3}',
        "data.dataset": f"tiny_{path.stem}", "data.n_targets_eval": 2, "data.accessor": "null", "data.periods": "null",
        "data.crop": "null", "data.border_size": 4, "data.step_hours": 3, "trainer.fast_dev_run": 2,
        "trainer.accumulate_grad_batches": 1, "trainer.precision": "32-true",
    }  # fmt: skip
    main(["fit", "--config", str(path), *(f"--{key}={value}" for key, value in tiny.items()), *QUIET])


class TestFaults:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--model.network", "HalfUnet"], "network 'HalfUnet' is unknown; .*; did you mean 'HalfUNet'"),
            (["--model.network", "json.JSONDecoder"], "is no subclass of LamNetwork"),
            (["--model.network", "nowhere.Net"], "network 'nowhere.Net' cannot be imported"),
            (["--model.settings", '{"num_filter": 3}'], "has no setting 'num_filter'; .*; did you mean 'num_filters'"),
            (["--model.strategy", "scaled"], "strategy 'scaled' is unknown"),
            (["--model.n_inputs", "2"], "model.n_inputs is 2, data.n_inputs 1"),
            (["--data.border_size", "12"], "border_size 12 leaves no interior in a grid of 24 rows and 32 columns"),
            (["--data.border_size", "-1"], "border_size -1 leaves no interior"),
            (["--model.boundary", "host", "--data.forcing", "[]"], "boundary host needs fields of the host"),
            (["--data.state", '["aro_t2m_3m"]'], "has no parameter 'aro_t2m_3m'; valid are"),
            (["--data.n_targets_eval", "20"], r"validation: no window of 1 \+ 20 times of 3 h"),
            (["--trainer.callbacks", CURRICULUM], "rollout.maximum is 3, but data.n_targets gives 1 target times"),
        ],
    )  # fmt: skip
    def test_settings(self, work, run, capsys, words, message):
        error = fail(capsys, "fit", "--config", SMOKE, *words)
        assert re.search(message, error), error

    def test_a_checkpoint_of_other_data_names_the_difference(self, run, capsys):
        words = ["--config", SMOKE, "--ckpt_path", str(run / "checkpoints" / "best.ckpt")]
        error = fail(capsys, "test", *words, "--data.state", json.dumps(STATE[::-1]), "--data.dataset", "other")
        assert "the model was trained with other state parameters than the data have: another order" in error


def test_curriculum_lengthens_training(work, unscored, monkeypatch):
    lengths = []
    distribution = Forecaster.distribution

    def counted(self, window, n_steps=None):
        result = distribution(self, window, n_steps)
        if self.training:
            lengths.append(result[0].shape[1])
        return result

    monkeypatch.setattr(Forecaster, "distribution", counted)
    curriculum = {
        "class_path": "weather_forecast.lam.rollout.RolloutCurriculum",
        "init_args": {"start": 1, "every_n_epochs": 1, "increment": 2, "maximum": 4, "lr_factor": 0.1},
    }
    main([
        "fit", "--config", SMOKE, "--data.n_targets", "4", "--trainer.max_epochs", "3", "--name", "curriculum",
        "--trainer.callbacks", json.dumps(curriculum), "--data.batch_size", "10", *QUIET,
    ])  # fmt: skip
    assert lengths == [1, 1, 3, 3, 4, 4]


@pytest.mark.slow
def test_two_processes_give_the_scores_of_one(run, work):
    checkpoint = str(run / "checkpoints" / "best.ckpt")
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--data.eval_batch_size", "2"]
    finish(start(TRAINER, "test", "--config", SMOKE, "--ckpt_path", checkpoint, "--name", "two", *two))
    one, other = (pd.read_csv(run.parents[1] / name / "version_0" / "scorecard.csv") for name in ("smoke", "two"))
    assert (one["n"] == other["n"]).all()
    np.testing.assert_allclose(one["value"], other["value"], rtol=1e-4, atol=1e-5)


def test_a_killed_fit_goes_on_and_ends_where_an_uninterrupted_one_ends(run, unscored):
    average = json.dumps({"class_path": "ai4sim.averaging.AverageWeights", "init_args": {"decay": 0.9}})
    words = ["fit", "--config", SMOKE, "--data.n_targets", "2", "--trainer.max_epochs", "6"]
    words += ["--trainer.callbacks", average]
    main([*words, "--name", "whole", *QUIET])
    killed = run.parents[1] / "killed" / "version_0"
    last = killed / "checkpoints" / "last.ckpt"
    kill_after_epoch(start(TRAINER, *words, "--name", "killed"), 2, last)
    assert not (killed / "scorecard.csv").exists()
    assert torch.load(last, weights_only=True)["epoch"] < 5
    main([*words, "--name", "killed", "--ckpt_path", str(last), *QUIET])
    whole, resumed = (last_weights(folder, epoch=5) for folder in (run.parents[1] / "whole" / "version_0", killed))
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=1e-5, atol=1e-7, msg=name)


class TestPlugins:
    SOURCE = """
from torch import nn
from dataclasses import dataclass
from weather_forecast.lam.networks.base import LamNetwork, ModelType

@dataclass(frozen=True)
class Settings:
    width: int = 3

class {name}(LamNetwork):
    settings_kls = Settings
    model_type = ModelType.CONVOLUTIONAL

    def build(self, grid):
        self.layer = nn.Conv2d(self.in_channels, self.out_channels, 1)

    def forward(self, x):
        return self.layer(x)
"""

    @pytest.fixture
    def folder(self, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(tmp_path)
        yield tmp_path
        for name in [name for name in sys.modules if name.startswith("ai4sim_plugin_")]:
            del sys.modules[name]

    def test_a_plugins_network_is_found_by_name_and_imported_ones_do_not_count(self, folder):
        (folder / "ai4sim_plugin_one.py").write_text(self.SOURCE.format(name="PointNet"))
        networks = registry.available_networks()
        assert issubclass(networks["PointNet"], LamNetwork)
        assert "LamNetwork" not in networks
        assert registry.get_network("PointNet")(4, 2, (3, 3)).settings.width == 3

    def test_two_of_one_name(self, folder):
        (folder / "ai4sim_plugin_one.py").write_text(self.SOURCE.format(name="HalfUNet"))
        with pytest.raises(
            ValueError, match=r"two networks are called HalfUNet: in weather_forecast.* and in ai4sim_plugin_one"
        ):
            registry.available_networks()


class TestCompare:
    def test_two_runs_side_by_side(self, run, capsys):
        assert compare.main([str(run), str(run), "--lead_time", "6"]) == 0
        out = capsys.readouterr().out
        assert "1 - mean of RMSE / RMSE of persistence" in out
        table = pd.read_csv(run / "scorecard.csv")
        pooled = table[(table["metric"] == "mean_rmse_skill_persistence") & (table["lead_time"] == 6)]
        own = pooled[pooled["model"] == "HalfUNet"].iloc[0]
        assert f"{own['value']:.3f}" in out
        assert f"[{own['lower']:.3f}, {own['upper']:.3f}]" in out
        rmse = table[(table["metric"] == "rmse") & (table["lead_time"] == 6) & (table["model"] == "HalfUNet")]
        for value in rmse["value"]:
            assert f"{value:.4g}" in out

    def test_runs_that_were_tested_on_other_times_are_refused(self, run, capsys, tmp_path):
        with xr.open_dataset(run / "scores.nc") as scores:
            scores.assign(initial_time=scores["initial_time"] + np.timedelta64(1, "D")).to_netcdf(
                tmp_path / "scores.nc"
            )
        assert compare.main([str(run), str(tmp_path)]) == 2
        assert "was tested on other initial times than smoke/version_0" in " ".join(capsys.readouterr().err.split())

    def test_what_is_not_there_is_named(self, run, capsys, tmp_path):
        for words, message in (
            ([str(tmp_path)], "has no scores.nc: give folders of runs that were tested"),
            (
                [str(run), "--baseline", "oracle"],
                "baseline 'oracle' is unknown; there are climatology, host, persistence",
            ),
            ([str(run), "--lead_time", "9"], "lead time 9 h was not tested; there are [3.0, 6.0]"),
        ):
            assert compare.main(words) == 2
            assert message in " ".join(capsys.readouterr().err.split())


def test_gaussian_forecasts_are_written_scored_and_exported(run, work, tmp_path):
    loss = '{"class_path": "weather_forecast.lam.losses.GaussianLoss"}'
    main(["fit", "--config", SMOKE, "--model.loss", loss, "--name", "gaussian", *QUIET])
    folder = work / "experiments" / config.USE_CASE / "gaussian" / "version_0"
    with xr.open_zarr(folder / "predictions.zarr", consolidated=False) as predictions:
        for name in STATE:
            spread = predictions[f"{name}_spread"]
            assert spread.dims == predictions[name].dims
            assert spread.attrs["units"] == predictions[name].attrs["units"]
            assert spread.attrs["long_name"].startswith("standard deviation of ")
            assert (spread > 0).all()
    scores = pd.read_csv(folder / "scorecard.csv").set_index(["model", "metric", "variable", "lead_time"])["value"]
    for name in STATE:
        for lead in (3.0, 6.0):
            crps = scores["HalfUNet", "crps", name, lead]
            assert 0 < crps < scores["HalfUNet", "rmse", name, lead]
            assert 0.1 < scores["HalfUNet", "ssr", name, lead] < 10
    checkpoint = folder / "checkpoints" / "best.ckpt"
    model = load_model(checkpoint)
    assert model.built.network.out_channels == 2 * len(STATE)
    main(["export", "--ckpt_path", str(checkpoint), "--output", str(tmp_path / "step.pt2"), *QUIET])
    assert (tmp_path / "step.pt2").stat().st_size > 0
