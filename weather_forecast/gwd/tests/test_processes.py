"""Runs that are killed, and runs of two processes: real processes of the real command line."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from ai4sim.experiment import load_model
from ai4sim.store import open_store
from ai4sim.tests.command_line import QUIET, finish, kill_after_epoch, last_weights, start
from weather_forecast.gwd import config
from weather_forecast.gwd.trainer import main

SMOKE = str(Path(__file__).resolve().parents[1] / "configs" / "smoke.yaml")
TRAINER = "weather_forecast.gwd.trainer"
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


def test_a_killed_fit_goes_on_and_ends_where_an_uninterrupted_one_ends(runs):
    words = ["--config", SMOKE, *EPOCHS]
    last = runs / "killed" / "version_0" / "checkpoints" / "last.ckpt"
    kill_after_epoch(start(TRAINER, "fit", *words, "--name", "killed"), 3, last)
    assert not (last.parents[1] / "scorecard.csv").exists()
    reached = torch.load(last, weights_only=True)["epoch"]
    assert reached < 7

    main(["fit", *words, "--name", "killed", "--ckpt_path", str(last), *QUIET])
    main(["fit", *words, "--name", "whole", *QUIET])
    # the resumed run went on in its own folder
    assert [path.name for path in (runs / "killed").iterdir()] == ["version_0"]
    assert (runs / "killed" / "version_0" / "config.resumed-1.yaml").exists()
    resumed, whole = (last_weights(runs / name / "version_0", epoch=7) for name in ("killed", "whole"))
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
    finish(start(TRAINER, "fit", "--config", SMOKE, "--name", "two", "--trainer.max_epochs", "1", *words))
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
