"""Every shipped configuration: understood, of the papers' sizes, and trained on little data of its own schema."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

from ai4sim.tests.command_line import QUIET
from downscaling.corrdiff import config
from downscaling.corrdiff.networks import PRESETS
from downscaling.corrdiff.readers.gefs_hrrr import CLASSES
from downscaling.corrdiff.sample_counts import SampleSchedule
from downscaling.corrdiff.tests import runs
from downscaling.corrdiff.tests.synthetic_stores import (
    CWB,
    ERA5,
    custom_coarse,
    custom_fine,
    custom_static,
    cwa_fields,
    forecast_keys,
    lambert,
    write_cwa,
    write_gefs_hrrr,
)

FOLDER = Path(__file__).resolve().parents[1] / "configs"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
PRESET_OF = {
    "hrrr_mini_regression": "hrrr_mini_regression", "hrrr_mini_diffusion": "hrrr_mini_diffusion",
    "taiwan_regression": "taiwan_regression", "taiwan_diffusion": "taiwan_diffusion",
    "taiwan_patched": "taiwan_patched_diffusion", "gefs_hrrr_regression": "gefs_hrrr_regression",
    "gefs_hrrr_diffusion": "gefs_hrrr_diffusion", "t_edm": "hrrr_mini_diffusion",
}  # fmt: skip
EIGHT = {
    "class_path": "downscaling.corrdiff.splits.TimeFractions",
    "init_args": {"train": 0.5, "validation": 0.25, "test": 0.25, "gap_hours": 0.5},
}


def noisy(shape, seed=0):
    """Fields that a network can be trained on."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="session")
def raw(tiny_data, tmp_path_factory) -> Path:
    """``AI4SIM_DATA`` with raw data of all schemas: the tiny demo's, and eight times of the others."""
    home = tmp_path_factory.mktemp("schemas")
    folder = home / config.USE_CASE / "raw"
    folder.mkdir(parents=True)
    demo = tiny_data / config.USE_CASE / "raw" / "tiny"
    for name in ("hrrr_mini", "tiny"):
        (folder / name).symlink_to(demo)
    lat, lon = lambert(32, 256)
    points = {"latitude": (("y", "x"), lat), "longitude": (("y", "x"), lon)}
    fields = {name: (("y", "x"), noisy((32, 256), seed), {"units": "1"}) for seed, name in enumerate(("skt", "u10"))}
    (folder / "hrrr_field").mkdir()
    xr.Dataset(fields, points).to_netcdf(folder / "hrrr_field" / "hrrr_20230722_07utc_west.nc", engine="h5netcdf")
    fields = cwa_fields(rows=18, columns=18)
    fields |= {"cwb": noisy((8, len(CWB), 18, 18)), "era5": noisy((8, len(ERA5), 18, 18), 1)}
    write_cwa(folder / "taiwan" / "2023-01-24-cwb-4years.zarr", fields)
    write_gefs_hrrr(folder / "gefs_hrrr", [("2020_12_12", forecast_keys())], shape=(18, 26))
    fine = custom_fine()
    for name in ("gust", "temp"):
        fine[name] = fine[name].dims, noisy(fine[name].shape), fine[name].attrs
    for kind, dataset in (("fine", fine), ("coarse", custom_coarse(fine))):
        (folder / "custom" / kind).mkdir(parents=True)
        for start in range(0, 8, 2):
            part = dataset.isel(when=slice(start, start + 2))
            part.to_netcdf(folder / "custom" / kind / f"{start}.nc", engine="h5netcdf")
    custom_static(fine).to_netcdf(folder / "custom" / "static.nc", engine="h5netcdf")
    return home


@pytest.fixture(scope="session")
def regressions() -> dict[str, str]:
    """Checkpoints of regressions by data set, as tests train them."""
    return {}


@pytest.fixture
def home(raw, monkeypatch) -> Path:
    monkeypatch.setenv("AI4SIM_DATA", str(raw))
    return raw


def read(name: str) -> dict:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


def shrink(values: dict) -> dict:
    """A configuration for few, small data: the network has two scales, the training two steps of a batch."""
    values = copy.deepcopy(values)
    model, data = values["model"]["init_args"], values["data"]
    dataset = data["dataset"]
    small = dict(runs.SMALL)
    network = model["network"]
    inner = network["init_args"].get("unet", network)
    if inner["class_path"].endswith("DhariwalUNet"):
        # one head of the attention has 64 channels
        small |= {"channel_mult": [1, 8]}
    kept = {name: value for name, value in inner["init_args"].items() if name == "embedding_type"}
    inner["init_args"] = small | kept
    domain = {"taiwan": [16, 16], "gefs_hrrr": [16, 24], "custom": [60, 50]}.get(dataset, [32, 32])
    if inner is not network:
        settings = network["init_args"]
        settings["domain"] = domain
        if "position_channels" in settings:
            settings["position_channels"] = 4
        if "embed_resolution" in settings:
            settings["embed_resolution"] = [4, 6]
    if "patches" in model:
        model["patches"] |= {"shape": 8, "levels": 2}
    if "patch_chunk" in model:
        model["patch_chunk"] = 3
    if model.get("tiles"):
        model["tiles"] |= {"patch": 12, "overlap": 2, "boundary": 1, "levels": 2}
    if "scaling_pairs" not in model and values["model"]["class_path"].endswith("DiffusionModule"):
        model["scaling_pairs"] = 4
        schedule = model.setdefault("sampler", {"class_path": "downscaling.corrdiff.diffusion.HeunSampler"})
        schedule.setdefault("init_args", {}).setdefault("schedule", {})["num_steps"] = 2
    source = data.get("source", {}).get("init_args", {})
    if dataset == "taiwan":
        source["crop"] = [16, 16]
    if dataset == "gefs_hrrr":
        source["window"] = [1, 17, 2, 26]
    if dataset == "custom":
        source |= {"time_dim": "when"}
    if dataset in ("taiwan", "gefs_hrrr", "custom"):
        data["split"] = EIGHT
    data |= {"batch_size": 2, "total_batch": 2, "eval_batch_size": 3, "validation_pairs": 2, "test_pairs": 1}
    data |= {"members": 2, "analogs": 2, "num_workers": 0}
    values["trainer"] |= {
        "precision": "32-true", "val_check_interval": 2, "check_val_every_n_epoch": None, "num_sanity_val_steps": 0,
        "enable_model_summary": False,
        "max_epochs": -1,
    }  # fmt: skip
    kinds = values["trainer"].get("callbacks", [])
    kinds = [callback for callback in kinds if not callback["class_path"].endswith("TrainingLength")]
    values["trainer"]["callbacks"] = [runs.length(4), *kinds]
    if dataset == "hrrr_mini":
        data["split"] = runs.DATA["split"]
    if dataset == "hrrr_field":
        source["tiles"] = [16, 16]
    if dataset in ("demo", "smoke"):
        data |= {"dataset": "tiny", "demo": runs.DATA["demo"], "split": runs.DATA["split"], "source": None}
    return values


def fitted(file: str) -> tuple[Path, torch.nn.Module]:
    """Last checkpoint and model of a fit, which must make two steps."""
    cli = runs.fit(file)
    assert cli.trainer.global_step == 2
    assert np.isfinite(float(cli.trainer.callback_metrics["train_loss"]))
    assert np.isfinite(float(cli.trainer.callback_metrics["val_loss"]))
    return runs.checkpoint_of(cli), cli.model


def trained(name, folder, regressions) -> tuple[str, Path, torch.nn.Module]:
    """Configuration, last checkpoint and model of a fit of two steps; its regression is trained first, once."""
    values = shrink(read(name))
    model = values["model"]["init_args"]
    if model.get("regression"):
        first = Path(model["regression"])
        first = first.stem if first.suffix == ".yaml" else first.parts[1]
        key = (
            values["data"]["dataset"],
            json.dumps(values["data"].get("source")),
            json.dumps(values["data"].get("transforms")),
        )
        if str(key) not in regressions:
            own = shrink(read(first))
            own["data"] = copy.deepcopy(values["data"])
            regressions[str(key)] = str(fitted(runs.write(folder, own, first))[0])
        model["regression"] = regressions[str(key)]
    file = runs.write(folder, values, name)
    return file, *fitted(file)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_is_understood(path, capsys):
    text = path.read_text()
    assert text.startswith("# ")
    with pytest.raises(SystemExit) as stop:
        runs.main(["fit", "--config", str(path), "--print_config"])
    assert stop.value.code == 0
    shown, written = yaml.safe_load(capsys.readouterr().out), yaml.safe_load(text)
    assert shown["data"]["dataset"] == written["data"]["dataset"]
    assert shown["model"]["class_path"] == written["model"]["class_path"]
    regression = written["model"]["init_args"].get("regression")
    if regression is not None:
        stem = Path(regression).stem if regression.endswith(".yaml") else Path(regression).parts[1]
        assert (FOLDER / f"{stem}.yaml").is_file()
        first, own = read(stem), written
        for name in ("source", "split", "transforms", "dataset", "demo"):
            assert first["data"].get(name) == own["data"].get(name), name


@pytest.mark.parametrize("name", sorted(PRESET_OF))
def test_networks_are_those_of_the_papers(name):
    from downscaling.corrdiff import networks

    preset = PRESETS[PRESET_OF[name]]
    settings = copy.deepcopy(read(name)["model"]["init_args"]["network"]["init_args"])
    unet = settings.pop("unet")
    kind = getattr(networks, unet["class_path"].rpartition(".")[2])
    with torch.device("meta"):
        made = networks.PositionedUNet(
            preset.in_channels, preset.out_channels, unet=lambda i, o: kind(i, o, **unet["init_args"]), **settings
        )
    millions = sum(parameter.numel() for parameter in made.parameters()) / 1e6
    assert millions == pytest.approx(preset.parameters, rel=5e-3)
    assert tuple(settings["domain"]) == preset.domain


@pytest.mark.parametrize(
    ("name", "samples", "total"),
    [
        ("hrrr_mini_regression", 2e6, 256), ("hrrr_mini_diffusion", 8e6, 256), ("taiwan_regression", 3e7, 512),
        ("taiwan_diffusion", 1e8, 512), ("gefs_hrrr_regression", 1e6, 256), ("gefs_hrrr_diffusion", 1e7, 512),
    ],
)  # fmt: skip
def test_trainings_are_as_long_as_those_of_the_papers(name, samples, total):
    values = read(name)
    callbacks = {each["class_path"].rpartition(".")[2]: each["init_args"] for each in values["trainer"]["callbacks"]}
    assert values["trainer"]["max_epochs"] == -1
    assert callbacks["TrainingLength"] == {"samples": samples}
    assert values["data"]["total_batch"] == total
    assert total % values["data"]["batch_size"] == 0
    model = values["model"]["init_args"]
    assert model["optimizer"]["init_args"] == {"lr": 2e-4}
    if name == "gefs_hrrr_diffusion":
        schedule = SampleSchedule(**model["schedule"]["init_args"])
        assert [schedule.factor(n) for n in (5e5, 1e6, 1.4e6, 1.6e6, 2.1e6)] == pytest.approx([0.5, 1, 1, 0.7, 0.49])


GENERATE = ("custom", "gefs_hrrr_diffusion", "taiwan_patched")
TWO_STEPS = [p.stem for p in CONFIGS if p.stem not in GENERATE and not p.stem.endswith("_regression")]


@pytest.mark.parametrize("name", TWO_STEPS)
def test_makes_two_steps(name, home, tmp_path, regressions):
    trained(name, tmp_path, regressions)


def generate(file, checkpoint, output, *words) -> xr.DataTree:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("downscaling.corrdiff.product.plot_case", lambda *args, **kwargs: None)
        patch.setattr("downscaling.corrdiff.product.save", lambda *args, **kwargs: None)
        words = ["--ckpt_path", str(checkpoint), "--output", str(output), *words, *QUIET]
        runs.main(["predict", "--config", file, *words])
    with xr.open_datatree(output) as product:
        return product.load()


def test_taiwan_in_patches(home, tmp_path, regressions):
    """Acceptance 14: train and generate."""
    file, last, model = trained("taiwan_patched", tmp_path, regressions)
    assert model.n_inputs == 4 + (4 + 8) + 8  # noisy, mean and inputs, and an overview of the inputs
    product = generate(file, last, tmp_path / "out.nc", "--data.select.indices", "[0, 7]")
    assert set(product["prediction"].data_vars) == set(CWB)
    assert product["prediction"]["temperature_2m"].shape == (2, 2, 16, 16)
    assert bool(np.isfinite(product["prediction"]["temperature_2m"]).all())


def test_forecasts_by_lead_time_in_patches(home, tmp_path, regressions):
    """Acceptance 14: regression with cross-entropy, diffusion of patches, probabilities that sum to one."""
    file, last, model = trained("gefs_hrrr_diffusion", tmp_path, regressions)
    assert isinstance(model.mean_model.loss.classes, tuple)
    assert model.mean_model.loss.classes == (4, 5, 6, 7, 8)
    assert model.known.lead_labels == tuple(range(0, 25, 3))
    assert model.denoiser.network.lead_steps == 9
    product = generate(file, last, tmp_path / "out.nc", "--data.select.indices", "[1, 6]")
    for group in ("prediction", "regression"):
        total = sum(product[group][name] for name in CLASSES)
        np.testing.assert_allclose(total, 1, atol=1e-5)
        assert min(float(product[group][name].min()) for name in CLASSES) >= 0
    assert product["time"].values.tolist() == ["2020120206f03", "2020120206f18"]


def test_a_users_own_pair(home, tmp_path, regressions):
    """Acceptance 13: other names, two static fields, factor 5, 60 x 50 points; and inputs without a truth."""
    file, last, model = trained("custom", tmp_path, regressions)
    assert model.known.factor == 5
    assert model.known.shape == (60, 50)
    assert [channel.name for channel in model.known.static] == ["height", "land"]
    product = generate(file, last, tmp_path / "out.nc", "--data.select.indices", "[6]")
    assert product["prediction"]["gust"].shape == (2, 1, 60, 50)
    assert "truth" in product
    without = generate(
        file, last, tmp_path / "new.nc", "--data.select.indices", "[6]", "--data.source.init_args.outputs", "[]"
    )
    assert "truth" not in without
    for name in ("gust", "temp"):
        np.testing.assert_allclose(without["prediction"][name], product["prediction"][name], rtol=1e-5, atol=1e-5)
    assert bool(np.isfinite(without["lat"]).all())
