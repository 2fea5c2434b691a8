"""The command line: fits that are interrupted, counted in samples, shared among processes; checkpoints; exports."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from ai4sim.experiment import load_model
from ai4sim.export import load_exported
from ai4sim.store import open_store, read_manifest
from ai4sim.tests.command_line import QUIET, finish, message_of, start
from downscaling.corrdiff import config
from downscaling.corrdiff.models import ResidualDiffusionModule
from downscaling.corrdiff.regression_module import RegressionModule, load_regression
from downscaling.corrdiff.tests import runs

KINDS = ("Regression", "ResidualDiffusion")
STRAIGHT = 64  # samples: an epoch has 44


@pytest.fixture(scope="session")
def fitted(tiny_data, tmp_path_factory) -> dict[str, Path]:
    """Last checkpoints of both trainings; nobody may change them."""
    folder = tmp_path_factory.mktemp("fitted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AI4SIM_DATA", str(tiny_data))
        patch.setenv("AI4SIM_EXPERIMENTS", str(folder / "experiments"))
        found: dict[str, Path] = {}
        for kind in KINDS:
            own = {"regression": str(found["Regression"])} if found else {}
            values = runs.settings(kind, STRAIGHT, **own)
            found[kind] = runs.checkpoint_of(runs.fit(runs.write(folder, values, kind)))
    return found


def config_of(kind, fitted, folder, samples=STRAIGHT, name=None, **model):
    """A configuration file."""
    own = {"regression": str(fitted["Regression"])} if kind == "ResidualDiffusion" else {}
    return runs.write(folder, runs.settings(kind, samples, **(own | model)), name or kind.lower())


@pytest.fixture
def own_data(tiny_data, tmp_path, monkeypatch) -> Path:
    """``AI4SIM_DATA`` with the raw demo, for tests that prepare it otherwise."""
    raw = tmp_path / "own" / config.USE_CASE / "raw"
    raw.mkdir(parents=True)
    (raw / "tiny").symlink_to(tiny_data / config.USE_CASE / "raw" / "tiny")
    monkeypatch.setenv("AI4SIM_DATA", str(tmp_path / "own"))
    return tmp_path / "own"


def source_of(data: Path, **settings) -> str:
    """The demo's file as a source, for the command line."""
    file = str(data / config.USE_CASE / "raw" / "tiny" / "hrrr_mini_train.nc")
    return json.dumps({"class_path": "downscaling.corrdiff.readers.HrrrMini", "init_args": {"file": file} | settings})


def assert_equal(one, other, place=""):
    """Compare what checkpoints hold, bit by bit."""
    if isinstance(one, torch.Tensor):
        torch.testing.assert_close(other, one, rtol=0, atol=0, equal_nan=True, msg=place)
    elif isinstance(one, dict):
        assert list(one) == list(other), place
        for key in one:
            assert_equal(one[key], other[key], f"{place}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), place
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{place}/{i}")
    else:
        assert one == other, place


LEARNT = ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers", "global_step")


class TestResume:
    @pytest.mark.parametrize(("kind", "samples"), [(KINDS[0], 44), (KINDS[0], 52), (KINDS[1], 40)], ids=str)
    def test_a_fit_that_goes_on_ends_where_another_ends(self, kind, samples, fitted, tmp_path):
        """Within the first epoch, at its end, and within the second one; weights, averages and optimiser."""
        half = runs.checkpoint_of(runs.fit(config_of(kind, fitted, tmp_path, samples)))
        assert runs.read(half)["global_step"] == samples // 4
        cli = runs.fit(config_of(kind, fitted, tmp_path), "--ckpt_path", str(half), "--seed_everything", "17")
        assert cli.trainer.global_step == STRAIGHT // 4
        one, other = runs.read(fitted[kind]), runs.read(runs.checkpoint_of(cli))
        assert one["seed"] == other["seed"] == 3
        for name in LEARNT:
            assert_equal(one[name], other[name], name)
        for name in ("state_dict", "epoch_progress"):  # which epoch it is, and how much of it was read
            assert_equal(one["loops"]["fit_loop"][name], other["loops"]["fit_loop"][name], name)

    def test_a_fit_that_is_over_is_not_trained_further(self, fitted, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)  # where a run without a logger leaves its settings
        words = ["--ckpt_path", str(fitted["Regression"]), "--trainer.logger", "false"]
        cli = runs.fit(config_of("Regression", fitted, tmp_path), *words, "--trainer.enable_checkpointing", "false")
        assert cli.trainer.global_step == STRAIGHT // 4
        learnt = runs.read(fitted["Regression"])["current_model_state"]
        for name, values in cli.model.state_dict().items():
            torch.testing.assert_close(values, learnt[name], rtol=0, atol=0, msg=name)


class TestSamples:
    def test_weights_do_not_depend_on_how_steps_are_read(self, fitted, tmp_path):
        quiet = {"init_args": runs.SMALL | {"dropout": 0.0}}
        learnt = []
        for batch_size in (8, 2):
            values = runs.settings("Regression", 80, network=runs.NETWORK | quiet)
            values["model"]["init_args"]["schedule"]["init_args"]["rampup"] = 400
            values["data"] |= {"batch_size": batch_size, "total_batch": 8}
            cli = runs.fit(runs.write(tmp_path, values, f"by_{batch_size}"))
            assert cli.trainer.global_step == 10
            assert cli.model.total_batch == 8
            stored = runs.read(runs.checkpoint_of(cli))
            assert stored["averaging_state"]["n_averaged"] == 10
            # the 11th step would end with 88 samples
            assert stored["lr_schedulers"][0]["_last_lr"] == pytest.approx([2e-3 * 88 / 400])
            learnt.append(stored["state_dict"])
        for other in learnt[1:]:
            for name, values in learnt[0].items():
                torch.testing.assert_close(other[name], values, rtol=1e-3, atol=1e-4, msg=name)

    def test_the_regression_may_be_trained_first(self, fitted, tmp_path):
        """It does not matter to the diffusion when it was trained."""
        runs.write(tmp_path, runs.settings("Regression", 20), "first")
        values = runs.settings("ResidualDiffusion", 20, regression="first.yaml")
        cli = runs.fit(runs.write(tmp_path, values, "second"))
        # of two trainings, the best and not the last weights of the first
        first = Path(cli.config["fit"]["model"]["init_args"]["regression"])
        assert (first.name, first.parents[2].name) == ("best.ckpt", "first")
        values["model"]["init_args"]["regression"] = str(first)
        other = runs.fit(runs.write(tmp_path, values, "third"))
        one, other = (runs.read(runs.checkpoint_of(each)) for each in (cli, other))
        for name in LEARNT:
            assert_equal(one[name], other[name], name)


class TestCheckpoint:
    def test_is_all_that_a_model_needs(self, fitted, tmp_path, monkeypatch):
        alone = tmp_path / "alone.ckpt"
        shutil.copy(fitted["ResidualDiffusion"], alone)
        stored = runs.read(alone)
        assert stored["model_config"]["init_args"]["regression"] is None
        monkeypatch.setenv("AI4SIM_DATA", str(tmp_path / "nothing"))
        monkeypatch.chdir(tmp_path)
        model = load_model(alone)
        assert isinstance(model, ResidualDiffusionModule)
        assert not model.training
        assert not model.mean_model.training
        expected = load_regression(fitted["Regression"]).state_dict()
        for name, values in model.mean_model.state_dict().items():
            assert torch.equal(values, expected[name]), name
        assert float(model.scale.factor.min()) > 0
        assert bool((model.scale.factor != 1).all())
        assert model.survey is not None
        batch = {
            "input": torch.zeros(1, len(model.known.inputs), 4, 4), "static": torch.zeros(1, 2, 32, 32),
            "case": torch.tensor([5]), "member": torch.tensor([-1, 0]), "row_pair": torch.tensor([0, 0]),
        }  # fmt: skip
        with torch.inference_mode():
            assert bool(torch.isfinite(model.rows(batch)).all())

    def test_holds_what_it_was_made_from(self, fitted):
        stored = runs.read(fitted["ResidualDiffusion"])
        contract = stored["contract"]
        assert [channel["name"] for channel in contract["outputs"]] == ["10u", "10v", "2t", "tp"]
        assert contract["transforms"][-1] == "sqrt"
        assert contract["factor"] == 8
        assert len(stored["regression"]["hash"]) == 64
        assert stored["seed"] == 3
        assert set(stored["survey"]) == {"std", "wavelength", "finest", "units"}
        # the regression is not among what is learnt
        known = {
            name for name in stored["state_dict"] if not name.startswith(("mean_model.", "conditioner.", "scale."))
        }
        assert len(stored["optimizer_states"][0]["state"]) == len(known)

    def test_another_class_is_refused(self, fitted, tmp_path, capsys):
        words = ["fit", "--config", config_of("ResidualDiffusion", fitted, tmp_path)]
        message = message_of(runs.main, capsys, *words, "--ckpt_path", str(fitted["Regression"]))
        assert "the checkpoint is of a RegressionModule, and not of a ResidualDiffusionModule" in message

    def test_a_diffusion_is_no_regression(self, fitted, tmp_path, capsys):
        words = [
            "fit",
            "--config",
            config_of("ResidualDiffusion", fitted, tmp_path, regression=str(fitted["ResidualDiffusion"])),
        ]
        message = message_of(runs.main, capsys, *words)
        assert f"{fitted['ResidualDiffusion']} is the checkpoint of a diffusion: give that of its regression" in message

    def test_another_regression_is_refused(self, fitted, tmp_path, capsys):
        contents = runs.read(fitted["Regression"])
        contents["state_dict"]["regression.regressor.network.head.bias"][0] += 1e-3
        other = tmp_path / "other.ckpt"
        torch.save(contents, other)
        file = config_of("ResidualDiffusion", fitted, tmp_path, regression=str(other))
        for command in ("fit", "test"):
            message = message_of(
                runs.main, capsys, command, "--config", file, "--ckpt_path", str(fitted["ResidualDiffusion"])
            )
            assert f"trained with another regression than {other}: set model.regression to null" in message

    def test_other_channels_are_refused(self, own_data, fitted, tmp_path, capsys):
        source = source_of(own_data, outputs=["10u", "2t", "10v", "tp"])
        words = ["fit", "--config", config_of("Regression", fitted, tmp_path), "--data.source", source]
        message = message_of(runs.main, capsys, *words, "--ckpt_path", str(fitted["Regression"]))
        assert "output channels differ at number 2: the checkpoint has '10v', the data '2t'" in message
        words = ["fit", "--config", config_of("ResidualDiffusion", fitted, tmp_path), "--data.source", source]
        message = message_of(runs.main, capsys, *words)
        assert "output channels differ at number 2: the regression has '10v', the data '2t'" in message

    def test_other_statistics_are_refused(self, own_data, fitted, tmp_path, capsys):
        words = ["fit", "--config", config_of("Regression", fitted, tmp_path)]
        split = {
            "class_path": "downscaling.corrdiff.splits.TimeFractions",
            "init_args": {"train": 0.6, "gap_hours": 4.0},
        }
        words += ["--ckpt_path", str(fitted["Regression"]), "--data.split", json.dumps(split)]
        message = message_of(runs.main, capsys, *words)
        assert "input mean of '10u': the checkpoint has" in message

    def test_other_inputs_of_a_prediction_are_refused(self, tiny_data, fitted, tmp_path, capsys):
        source = source_of(tiny_data, inputs=["10v", "10u"])
        words = ["predict", "--config", config_of("Regression", fitted, tmp_path), "--output", str(tmp_path / "a.nc")]
        words += ["--ckpt_path", str(fitted["Regression"]), "--data.source", source]
        message = message_of(runs.main, capsys, *words)
        assert "input channels differ at number 1: the model has '10u', the data '10v'" in message

    @pytest.mark.parametrize("role", ["regression", "ckpt_path"])
    def test_a_file_that_is_cut_short_is_named(self, fitted, tmp_path, capsys, role):
        short = tmp_path / "short.ckpt"
        short.write_bytes(fitted["Regression"].read_bytes()[:5000])
        if role == "regression":
            words = ["--config", config_of("ResidualDiffusion", fitted, tmp_path, regression=str(short))]
        else:
            words = ["--config", config_of("Regression", fitted, tmp_path), "--ckpt_path", str(short)]
        message = message_of(runs.main, capsys, "fit", *words)
        assert f"checkpoint {short} is damaged" in message

    @pytest.mark.parametrize("lacking", ["contract", "model_config"])
    def test_what_is_not_of_this_use_case_is_refused(self, fitted, tmp_path, capsys, lacking):
        contents = runs.read(fitted["Regression"])
        del contents[lacking]
        other = tmp_path / "other.ckpt"
        torch.save(contents, other)
        words = ["fit", "--config", config_of("ResidualDiffusion", fitted, tmp_path, regression=str(other))]
        message = message_of(runs.main, capsys, *words)
        expected = {"contract": "does not say which data it was trained on", "model_config": "no model configuration"}
        assert expected[lacking] in message

    def test_a_missing_file_is_named(self, fitted, tmp_path, capsys):
        missing = str(tmp_path / "missing.ckpt")
        file = config_of("ResidualDiffusion", fitted, tmp_path, regression=missing)
        assert f"checkpoint {missing} does not exist" in message_of(runs.main, capsys, "fit", "--config", file)
        file = config_of("ResidualDiffusion", fitted, tmp_path, regression="missing.yaml")
        assert "model.regression missing.yaml does not exist" in message_of(runs.main, capsys, "fit", "--config", file)

    def test_an_untrained_model_predicts_nothing(self, fitted, tmp_path, capsys):
        words = ["predict", "--config", config_of("Regression", fitted, tmp_path), "--output", str(tmp_path / "a.nc")]
        assert "the model was never trained: give the checkpoint of a fit" in message_of(runs.main, capsys, *words)


def predictions_of(run: Path) -> xr.Dataset:
    with xr.open_zarr(run / "predictions.zarr", consolidated=False) as opened:
        return opened.load()


@pytest.fixture
def no_maps(monkeypatch):
    """Products that are not looked at for their maps do without them."""
    monkeypatch.setattr("downscaling.corrdiff.product.plot_case", lambda *args, **kwargs: None)
    monkeypatch.setattr("downscaling.corrdiff.product.save", lambda *args, **kwargs: None)


class TestForecasts:
    @pytest.fixture(scope="class")
    def tested(self, fitted, tiny_data, tmp_path_factory) -> xr.Dataset:
        """Predictions of a test of the diffusion."""
        folder = tmp_path_factory.mktemp("tested")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AI4SIM_DATA", str(tiny_data))
            patch.setenv("AI4SIM_EXPERIMENTS", str(folder))
            words = ["test", "--config", config_of("ResidualDiffusion", fitted, folder)]
            cli = runs.main([*words, "--ckpt_path", str(fitted["ResidualDiffusion"]), *QUIET])
        return predictions_of(Path(cli.trainer.log_dir))

    def test_have_means_members_and_means_of_training_pairs(self, tested):
        assert tested["member"].values.tolist() == [-1, 0, 1, 2] * 3 + [-1] * 2
        assert tested["split"].values.tolist() == [2] * 12 + [0] * 2
        assert tested["field"].shape == (14, 4, 32, 32)
        assert bool(np.isfinite(tested["field"]).all())
        assert tested.attrs["model"] == "corrdiff"
        assert "HeunSampler" in tested.attrs["sampler"]
        assert float(tested["field"].sel(sample=slice(0, 4))[:, 3].min()) >= 0  # rain is a square

    def test_of_two_processes_are_those_of_one(self, fitted, tested, tmp_path):
        """A fit of both has as many steps, and a test gives the same fields."""
        file = config_of("ResidualDiffusion", fitted, tmp_path, name="two")
        words = [
            "--data.batch_size",
            "2",
            "--data.total_batch",
            "4",
            "--trainer.devices",
            "2",
            "--trainer.strategy",
            "ddp",
        ]
        finish(start(runs.UNSCORED, "fit", "--config", file, *words))
        run = tmp_path / "experiments" / config.USE_CASE / "two" / "version_0"
        last = runs.read(run / "checkpoints" / "last.ckpt")
        single = runs.read(fitted["ResidualDiffusion"])
        assert last["global_step"] == single["global_step"] == STRAIGHT // 4
        assert last["lr_schedulers"][0]["_last_lr"] == single["lr_schedulers"][0]["_last_lr"]
        assert_equal(last["averaging_state"], single["averaging_state"])
        best = run / "checkpoints" / "best.ckpt"
        cli = runs.main(["test", "--config", file, "--ckpt_path", str(best), "--name", "one", *QUIET])
        two, one = predictions_of(run), predictions_of(Path(cli.trainer.log_dir))
        np.testing.assert_array_equal(two["member"], one["member"])
        np.testing.assert_array_equal(two["case"], one["case"])
        scale = np.abs(one["field"]).max(("sample", "y", "x")).values[:, None, None]
        assert float((np.abs(two["field"].values - one["field"].values) / scale).max()) < 1e-5
        truth = self.truth(tested)
        scores = [self.error(predictions, truth) for predictions in (two, tested)]
        assert scores[0] == pytest.approx(scores[1], rel=0.2)

    @staticmethod
    def truth(predictions):
        with open_store(predictions.attrs["store"]) as store:
            return store["output"].values[predictions["pair"].values]

    @staticmethod
    def error(predictions, truth):
        """Of temperature."""
        return float(np.sqrt(np.mean((predictions["field"].values[:12, 2] - truth[:12, 2]) ** 2)))

    def test_are_generated_for_raw_data(self, no_maps, tested, fitted, tmp_path):
        cases = np.unique(tested["case"].values[:12])
        words = ["predict", "--config", config_of("ResidualDiffusion", fitted, tmp_path)]
        words += ["--ckpt_path", str(fitted["ResidualDiffusion"]), "--output", str(tmp_path / "out.nc")]
        runs.main([*words, "--data.select.indices", json.dumps(cases.tolist()), *QUIET])
        with xr.open_datatree(tmp_path / "out.nc") as product:
            assert product["prediction"]["2t"].dims == ("ensemble", "time", "y", "x")
            assert product["case"].values.tolist() == cases.tolist()
            for member in range(3):
                own = tested["field"].values[:12][tested["member"].values[:12] == member]
                made = product["prediction"]["2t"].values[member]
                np.testing.assert_allclose(made, own[:, 2], rtol=1e-5, atol=1e-3)

    def test_without_members_have_means_alone(self, no_maps, fitted, tmp_path):
        words = ["predict", "--config", config_of("ResidualDiffusion", fitted, tmp_path), "--data.members", "0"]
        words += ["--ckpt_path", str(fitted["ResidualDiffusion"]), "--output", str(tmp_path / "means.nc")]
        runs.main([*words, "--data.select.indices", "[2, 3]", *QUIET])
        with xr.open_datatree(tmp_path / "means.nc") as product:
            assert "prediction" not in product
            assert product["regression"]["tp"].shape == (2, 32, 32)

    def test_without_a_regression_have_members_alone(self, no_maps, fitted, tmp_path):
        values = runs.settings("ResidualDiffusion", 20, regression=None)
        file = runs.write(tmp_path, values, "plain")
        last = runs.checkpoint_of(runs.fit(file))
        assert "regression" not in runs.read(last)
        words = ["predict", "--config", file, "--ckpt_path", str(last), "--output", str(tmp_path / "plain.nc")]
        runs.main([*words, "--data.select.indices", "[2]", *QUIET])
        with xr.open_datatree(tmp_path / "plain.nc") as product:
            assert "regression" not in product
            assert product["prediction"]["tp"].shape == (3, 1, 32, 32)
            assert bool(np.isfinite(product["prediction"]["tp"]).all())


class TestExport:
    def test_means_are_those_of_the_regression(self, fitted, tmp_path):
        output = tmp_path / "mean.pt2"
        file = config_of("Regression", fitted, tmp_path)
        runs.main(["export", "--config", file, "--ckpt_path", str(fitted["Regression"]), "--output", str(output)])
        model = load_model(fitted["Regression"])
        assert isinstance(model, RegressionModule)
        own = model.built.conditioner
        noise = torch.Generator().manual_seed(3)
        coarse = own.inputs.inverse(torch.randn(3, len(model.known.inputs), 4, 4, generator=noise))
        static = own.static.inverse(torch.randn(3, 2, 32, 32, generator=noise))
        x = torch.cat([coarse.repeat_interleave(8, 2).repeat_interleave(8, 3), static], dim=1)
        with torch.inference_mode():
            expected = own.physical(model.built({"input": coarse, "static": static})).numpy()
        found = load_exported(output)(x.numpy())
        scale = np.abs(expected).max((0, 2, 3), keepdims=True)
        assert np.abs((found - expected) / scale).max() < 1e-5

    def test_denoised_residuals_are_those_of_the_diffusion(self, fitted, tmp_path):
        output = tmp_path / "denoiser.onnx"
        file = config_of("ResidualDiffusion", fitted, tmp_path, regression=None)
        runs.main(
            ["export", "--config", file, "--ckpt_path", str(fitted["ResidualDiffusion"]), "--output", str(output)]
        )
        model = load_model(fitted["ResidualDiffusion"])
        sigma = torch.tensor([0.05, 1.0, 20.0])
        fields = torch.randn(3, model.n_inputs, 32, 32, generator=torch.Generator().manual_seed(3))
        with torch.inference_mode():
            expected = model.denoiser(fields[:, :4], sigma, fields[:, 4:]).numpy()
        x = torch.cat([sigma.reshape(3, 1, 1, 1).expand(3, 1, 32, 32), fields], dim=1)
        np.testing.assert_allclose(load_exported(output)(x.numpy()), expected, atol=1e-5)


def test_no_time_of_an_evaluation_is_near_one_of_the_training(tiny_data):
    """Acceptance 16; statistics are of the training pairs."""
    path = tiny_data / config.USE_CASE / "processed" / "tiny.zarr"
    manifest = read_manifest(path)
    with open_store(path) as store:
        times, marks, fields = (store[name].values for name in ("time", "split", "output"))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        gap = np.abs(times[marks == one][:, None] - times[marks == other]).min()
        assert gap >= np.timedelta64(4, "h")
    means = fields[marks == 0].astype(np.float64).mean((0, 2, 3))
    np.testing.assert_allclose(manifest.statistics["output"]["mean"][:3], means[:3], rtol=1e-5)
    assert np.abs(fields.mean((0, 2, 3)) - means)[:3].max() > 0.01
