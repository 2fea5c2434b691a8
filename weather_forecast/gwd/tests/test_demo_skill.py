"""What the demo must show, with a quarter of its columns and of its epochs."""

import numpy as np
import pytest
import xarray as xr

from weather_forecast.gwd import stability
from weather_forecast.gwd.trainer import main

DEMO = "weather_forecast/gwd/configs/demo.yaml"


@pytest.mark.slow
def test_a_short_training_beats_every_baseline_and_stays_bounded_in_the_coupled_column(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AI4SIM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("AI4SIM_EXPERIMENTS", str(tmp_path))
    sizes = [f"--data.demo.{key}={value}" for key, value in {"train": 9600, "validation": 900, "test": 1500}.items()]
    cli = main(["fit", "--config", DEMO, *sizes, "--trainer.max_epochs", "8", "--trainer.accelerator", "cpu"])
    run = tmp_path / "weather_forecast" / "gwd" / "demo" / "version_0"
    scorecard = cli.trainer.evaluate(run)
    for metric, floor in (("r2", 0.90), ("mean_level_r2", 0.45)):
        own = scorecard.row("AzimuthFluxNet", metric, split="test")
        assert own["value"] > floor
        for baseline in ("zero", "mean_profile", "ridge", "scheme_4x20"):
            assert own["lower"] > scorecard.row(baseline, metric, split="test")["value"], baseline
        assert own["value"] < scorecard.row("scheme_without_latitude", metric, split="test")["value"]

    capsys.readouterr()
    figure = tmp_path / "coupled.png"
    assert stability.main([str(run / "checkpoints" / "best.ckpt"), "--figure", str(figure)]) == 0
    assert figure.exists()
    assert "half-period [days]" in capsys.readouterr().out
    winds = xr.open_dataset(figure.with_suffix(".nc"))
    assert winds["u"].sizes["drag"] == 2
    assert float(winds["time"][-1]) == pytest.approx(3 * 365, abs=1)
    # bounded for three years
    assert np.abs(winds["u"]).max() < 120
