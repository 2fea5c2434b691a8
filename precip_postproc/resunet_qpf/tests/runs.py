"""A small run of the command line for all tests that need a finished one.

As a program, it is the command line without scores: ``python -m precip_postproc.resunet_qpf.tests.runs``.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.table import Table

from ai4sim.atomic import exclusive
from ai4sim.tests.command_line import QUIET
from ai4sim.verification import Scorecard
from precip_postproc.resunet_qpf import config, trainer
from precip_postproc.resunet_qpf.tests.conftest import COARSE, TINY, shared_folder

SMOKE = Path(__file__).resolve().parents[1] / "configs" / "smoke.yaml"
UNSCORED = "precip_postproc.resunet_qpf.tests.runs"
FEATURES = ["log_precipitation", "wet", "log_smoothed_9", "fraction_6", "terrain_difference", "upslope", "pwat"]
NETWORK = "precip_postproc.resunet_qpf.networks.ConditionedResUNet"


def settings() -> dict[str, Any]:
    """The smoke test's configuration on the tests' demo, with coarse predictors."""
    values: dict[str, Any] = yaml.safe_load(SMOKE.read_text())
    values["model"] |= {
        "network": {"class_path": NETWORK, "init_args": {"widths": [8, 8, 8]}},
        "features": FEATURES,
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 5e-3}},
    }
    values["data"] |= {
        "dataset": "tiny",
        "demo": {
            "days": TINY.days, "test_days": TINY.test_days, "grid": TINY.grid, "leads": list(TINY.leads),
            "format": TINY.format,
        },
        "coarse": {"folder": "gfs", "names": COARSE},
    }  # fmt: skip
    return values


def write_config(folder: Path, name: str = "run") -> str:
    """Path of a configuration file with :func:`settings`."""
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(settings()))
    return str(path)


def finished_run(factory: pytest.TempPathFactory, data_home: Path) -> Path:
    """Folder of a run that was trained and scored, once for all processes; nobody may change it.

    Args:
        factory: of temporary folders.
        data_home: of the tests' demo.
    """
    home = shared_folder(factory, "qpf_run")
    run = home / config.USE_CASE / "run" / "version_0"
    with exclusive(home, "the tests' run"), pytest.MonkeyPatch.context() as patch:
        if not (home / "done").exists():
            shutil.rmtree(home / config.USE_CASE, ignore_errors=True)
            patch.setenv("AI4SIM_DATA", str(data_home))
            patch.setenv("AI4SIM_EXPERIMENTS", str(home))
            trainer.main(["fit", "--config", write_config(home), *QUIET])
            (home / "done").touch()
    return run


def without_scores(folder: Path) -> Scorecard:
    """In place of the evaluation, where nobody looks at scores."""
    card = Scorecard(use_case=config.USE_CASE, experiment=folder.name)
    for metric in ("rps", "crps"):
        card.add(model="network", metric=metric, value=0.0)
    return card


def main(words: list[str] | None = None) -> Any:
    """The use case's command line without the scores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "evaluate", without_scores)
        patch.setattr(trainer, "skill_table", lambda scorecard: Table())
        patch.setattr(trainer, "dry_table", lambda scorecard: Table())
        return trainer.main(words)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
