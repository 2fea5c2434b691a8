"""Where data and experiments live, what a run records about itself, and how a checkpoint becomes a model again."""

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule

from ai4sim.atomic import atomic_path
from ai4sim.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
PREDICTIONS = "predictions.zarr"
PROVENANCE = "provenance.json"
MODEL_CONFIG = "model_config"

_RECORDED_PACKAGES = ("torch", "lightning", "jsonargparse", "numpy", "xarray", "zarr", "dask")


def data_folder(use_case: str) -> Path:
    """Folder of a use case's raw and processed data.

    Args:
        use_case: path of the use case below the repository root, such as ``weather_forecast/gwd``.

    Returns:
        ``$AI4SIM_DATA/<use case>`` when the variable is set, else ``data`` in the use case's own folder.
    """
    return _moved("AI4SIM_DATA", use_case, "data")


def experiments_folder(use_case: str) -> Path:
    """Folder of a use case's experiments; ``$AI4SIM_EXPERIMENTS/<use case>`` when the variable is set."""
    return _moved("AI4SIM_EXPERIMENTS", use_case, "experiments")


def run_name(folder: Path) -> str:
    """What a run is called in scorecards and tables: its experiment and version, such as ``demo/version_0``."""
    whole = folder.resolve()
    return f"{whole.parent.name}/{whole.name}"


def _moved(variable: str, use_case: str, name: str) -> Path:
    base = os.environ.get(variable)
    return Path(base).expanduser().resolve() / use_case if base else ROOT / use_case / name


def provenance(*, seed: int | None, data: Mapping[str, Any]) -> dict[str, Any]:
    """What somebody needs to know to repeat or to judge this run.

    Args:
        seed: seed of all random numbers, if one was set.
        data: what the data module says of its data (fingerprint, location, sizes).

    Returns:
        Command line, time, commit with uncommitted files, versions, machine, job and data; plain values.
    """
    return {
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": git_state(),
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _RECORDED_PACKAGES},
        },
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cpu_count": os.cpu_count(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "threads": torch.get_num_threads(),
        },
        "job": {
            name: value
            for name, value in os.environ.items()
            if name in {"SLURM_JOB_ID", "SLURM_NNODES", "SLURM_NTASKS"}
        },
        "seed": seed,
        "data": dict(data),
    }


def git_state() -> dict[str, Any]:
    """Commit and uncommitted files of the repository; empty where there is no git or no repository."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(ROOT), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.rstrip("\n")

    try:
        commit, status = git("rev-parse", "HEAD"), git("status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"commit": commit, "uncommitted": [line[3:] for line in status.splitlines()]}


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file that is either whole or not there."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(values, indent=2, default=str) + "\n")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Contents of a checkpoint, read without unpickling any object.

    Raises:
        InputError: the file is missing, cut short, or holds more than tensors and plain values.
    """
    if not path.is_file():
        raise InputError(f"checkpoint {path} does not exist")
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"checkpoint {path} is damaged or holds unsafe objects: {error}") from error
    if not isinstance(checkpoint, dict):
        raise InputError(f"checkpoint {path} holds a {type(checkpoint).__name__}, expected a training's checkpoint")
    return checkpoint


def load_model(path: Path | str) -> LightningModule:
    """Rebuild a trained model from its checkpoint alone.

    The checkpoint carries the model's configuration and, as buffers, all statistics, so that no other file is
    needed and the model predicts in physical units.

    Args:
        path: a checkpoint written by a run of the command line.

    Returns:
        The module in evaluation mode, on the CPU.

    Raises:
        InputError: the file is no such checkpoint.
    """
    checkpoint = read_checkpoint(Path(path))
    config = checkpoint.get(MODEL_CONFIG)
    if config is None:
        raise InputError(
            f"checkpoint {path} holds no model configuration: it was not written by the command line; "
            "build the module yourself and call load_state_dict"
        )
    model = build_model(config, f"checkpoint {path}")
    # what a module keeps in its checkpoint beside its tensors, as Lightning does when it loads one
    model.on_load_checkpoint(checkpoint)
    try:
        model.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        raise InputError(f"checkpoint {path} does not fit today's {type(model).__name__}: {error}") from error
    return model.eval()


def build_model(config: Mapping[str, Any], source: str) -> LightningModule:
    """An untrained model from the configuration that its checkpoints carry.

    Args:
        config: ``class_path`` and ``init_args``.
        source: where it comes from, for messages.

    Raises:
        InputError: the class is no LightningModule.
    """
    module_name, _, class_name = config["class_path"].rpartition(".")
    model_class = getattr(import_module(module_name), class_name, None)
    # a file must not choose what is called
    if not (isinstance(model_class, type) and issubclass(model_class, LightningModule)):
        raise InputError(f"{source} is of {config['class_path']}, expected a LightningModule")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(model_class, "model")
    model: LightningModule = parser.instantiate(parser.parse_object({"model": config["init_args"]})).model
    return model
