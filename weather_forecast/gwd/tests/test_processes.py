"""Runs that are killed, and runs of two processes: real processes of the real command line."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from ai4sim.experiment import load_model
from ai4sim.store import open_store
from ai4sim.tests.command_line import QUIET
from weather_forecast.gwd import config
from weather_forecast.gwd.trainer import main

SMOKE = str(Path(__file__).resolve().parents[1] / "configs" / "smoke.yaml")
EPOCHS = ["--trainer.max_epochs", "8"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folder of the runs."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AI4SIM_DATA", str(folder / "data"))
        patch.setenv("AI4SIM_EXPERIMENTS", str(folder))
        main(["prepare", "--config", SMOKE])
        yield folder / config.USE_CASE


def start(*words: str) -> subprocess.Popen:
    command = [sys.executable, "-P", "-m", "weather_forecast.gwd.trainer", *words, *QUIET]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def weights(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["epoch"] == 7
    return checkpoint["state_dict"]


def test_a_killed_fit_goes_on_and_ends_where_an_uninterrupted_one_ends(runs):
    words = ["--config", SMOKE, *EPOCHS]
    killed = start("fit", *words, "--name", "killed", "--trainer.max_epochs", "8")
    last = runs / "killed" / "version_0" / "checkpoints" / "last.ckpt"
    for line in killed.stdout:
        if line.startswith("epoch 3/"):
            break
    deadline = time.monotonic() + 60
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    assert not (last.parents[1] / "scorecard.csv").exists()
    reached = torch.load(last, weights_only=True)["epoch"]
    assert reached < 7

    main(["fit", *words, "--name", "killed", "--ckpt_path", str(last), *QUIET])
    main(["fit", *words, "--name", "whole", *QUIET])
    # the resumed run went on in its own folder
    assert [path.name for path in (runs / "killed").iterdir()] == ["version_0"]
    assert (runs / "killed" / "version_0" / "config.resumed-1.yaml").exists()
    resumed, whole = weights(runs / "killed" / "version_0"), weights(runs / "whole" / "version_0")
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=1e-5, atol=1e-7, msg=name)
    first, second = (pd.read_csv(runs / name / "version_0" / "scorecard.csv")["value"] for name in ("killed", "whole"))
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-6)

    # a finished run can be trained longer, and is scored again
    scorecard = runs / "whole" / "version_0" / "scorecard.csv"
    before = scorecard.stat().st_mtime_ns
    last = runs / "whole" / "version_0" / "checkpoints" / "last.ckpt"
    main(["fit", "--config", SMOKE, "--trainer.max_epochs", "9", "--name", "whole", "--ckpt_path", str(last), *QUIET])
    assert torch.load(last, weights_only=True)["epoch"] == 8
    assert scorecard.stat().st_mtime_ns > before


def test_two_processes_test_every_row_once_and_score_as_one(runs):
    words = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--data.eval_batch_size", "4096"]
    process = start("fit", "--config", SMOKE, "--name", "two", "--trainer.max_epochs", "1", *words)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output[-3000:]
    run = runs / "two" / "version_0"
    predictions = xr.open_zarr(run / "predictions.zarr", consolidated=False)
    assert predictions["row"].values.tolist() == list(range(300, 360))

    model = load_model(run / "checkpoints" / "best.ckpt")
    x = open_store(predictions.attrs["store"])["x"].values[300:]
    with torch.no_grad():
        drag = model(torch.from_numpy(x)).numpy()
    # a row that no process wrote would be zero
    np.testing.assert_allclose(predictions["dudt"].values, drag[:, :63], rtol=1e-4, atol=1e-9)

    checkpoint = str(run / "checkpoints" / "best.ckpt")
    main(["test", "--config", SMOKE, "--ckpt_path", checkpoint, "--name", "one", *QUIET])
    two, one = (pd.read_csv(runs / name / "version_0" / "scorecard.csv") for name in ("two", "one"))
    assert two["n"].tolist() == one["n"].tolist()
    np.testing.assert_allclose(two["value"], one["value"], rtol=1e-4, atol=1e-6)
