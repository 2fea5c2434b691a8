"""Small runs of the command line for tests.

As a program, it is the command line without scores: ``python -m downscaling.corrdiff.tests.runs``.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.table import Table

from ai4sim.tests.command_line import QUIET
from ai4sim.verification import Scorecard
from downscaling.corrdiff import config, trainer

PACKAGE = "downscaling.corrdiff"
UNSCORED = f"{PACKAGE}.tests.runs"
SMALL = {"model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": []}
NETWORK = {"class_path": f"{PACKAGE}.networks.SongUNet", "init_args": SMALL}
AVERAGE = {"class_path": f"{PACKAGE}.sample_counts.SampleAverage", "init_args": {"half_life": 40}}
DATA = {
    "dataset": "tiny",
    "demo": {"n": 64, "snapshots": 32, "crops": 2, "size": 32, "spin_up": 6.0},
    "split": {"class_path": f"{PACKAGE}.splits.TimeFractions", "init_args": {"gap_hours": 4.0}},
    "transforms": {"tp": "sqrt"},
    "batch_size": 4,
    "eval_batch_size": 8,
    "validation_pairs": 4,
    "test_pairs": 3,
    "members": 3,
    "analogs": 2,
}


def length(samples: int) -> dict[str, Any]:
    """The callback that ends a fit."""
    return {"class_path": f"{PACKAGE}.sample_counts.TrainingLength", "init_args": {"samples": samples}}


def settings(kind: str, samples: int = 40, **model: Any) -> dict[str, Any]:
    """A configuration on the tests' demo; an epoch has 44 pairs.

    Args:
        kind: ``Regression`` or ``ResidualDiffusion``.
        samples: length of the training.
        model: further settings of the module.
    """
    own: dict[str, Any] = {
        "network": NETWORK,
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 2e-3}},
        "schedule": {"class_path": f"{PACKAGE}.sample_counts.SampleSchedule", "init_args": {"rampup": 60}},
    }
    if kind == "ResidualDiffusion":
        own["sampler"] = {
            "class_path": f"{PACKAGE}.diffusion.HeunSampler",
            "init_args": {"schedule": {"num_steps": 3, "sigma_min": 0.05, "sigma_max": 10.0}},
        }
        own["scaling_pairs"] = 16
    return copy.deepcopy(
        {
            "seed_everything": 3,
            "trainer": {
                "max_epochs": -1,
                "val_check_interval": 5,
                "check_val_every_n_epoch": None,
                "num_sanity_val_steps": 0,
                "enable_model_summary": False,
                "callbacks": [length(samples), AVERAGE],
            },
            "model": {"class_path": f"{PACKAGE}.models.{kind}Module", "init_args": own | model},
            "data": DATA,
        }
    )


def write(folder: Path, values: dict[str, Any], name: str) -> str:
    """Path of a configuration file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


def without_scores(folder: Path) -> Scorecard:
    """In place of the evaluation, where nobody looks at scores."""
    card = Scorecard(use_case=config.USE_CASE, experiment=folder.name)
    card.add(model="network", metric="crps", value=0.0)
    return card


def know_only(command: str, patch: pytest.MonkeyPatch) -> None:
    """Let the command line have one command only: to describe the arguments of all takes as long as a little fit."""
    known = trainer.DownscalingCLI.subcommands()
    patch.setattr(trainer.DownscalingCLI, "subcommands", staticmethod(lambda: {command: known[command]}))


def main(words: list[str] | None = None) -> Any:
    """The use case's command line without the scores."""
    with pytest.MonkeyPatch.context() as patch:
        if words:
            know_only(words[0], patch)
        patch.setattr(trainer, "evaluate", without_scores)
        for table in ("score_table", "skill_table"):
            patch.setattr(trainer, table, lambda scorecard: Table())
        return trainer.main(words)


def fit(config_file: str, *words: str) -> Any:
    """A fit, and nothing after it; its command line."""
    with pytest.MonkeyPatch.context() as patch:
        know_only("fit", patch)
        patch.setattr(trainer.DownscalingCLI, "after_fit", lambda cli: None)
        return trainer.main(["fit", "--config", config_file, *QUIET, *words])


def checkpoint_of(cli: Any, name: str = "last") -> Path:
    """A checkpoint of a run."""
    return Path(cli.trainer.log_dir) / "checkpoints" / f"{name}.ckpt"


def read(path: Path) -> dict[str, Any]:
    """Contents of a checkpoint."""
    contents: dict[str, Any] = torch.load(path, weights_only=True)
    return contents


if __name__ == "__main__":
    main()
