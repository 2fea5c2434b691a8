"""From predictions to the scorecard."""

import io
import re
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from ai4sim.verification import Scorecard
from downscaling.corrdiff import evaluation, plotters
from downscaling.corrdiff.tests.synthetic_predictions import exchangeable, make_predictions, opened_tiny, perfect

VARIABLES = ["10u", "10v", "2t", "tp", "wind_speed"]


def evaluated(folder: Path, predictions: xr.Dataset) -> tuple[Scorecard, list[plotters.Results]]:
    """Scorecard, and what would be drawn."""
    run = folder / "demo" / "version_0"
    predictions.to_zarr(run / "predictions.zarr", zarr_format=3, consolidated=False)
    drawn: list[plotters.Results] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plotters, "plot_all", lambda folder, results: drawn.append(results))
        patch.setattr(Scorecard, "add_scores", partialmethod(Scorecard.add_scores, n_resamples=20))
        return evaluation.evaluate(run), drawn


@pytest.fixture(scope="module")
def card(tiny_data, tmp_path_factory) -> Scorecard:
    predictions = make_predictions(opened_tiny(tiny_data), exchangeable, 5)
    card, drawn = evaluated(tmp_path_factory.mktemp("run"), predictions)
    assert drawn[0].scorecard is card
    assert drawn[0].main == "corrdiff"
    return card


@pytest.fixture(scope="module")
def of_regression(tiny_data, tmp_path_factory) -> Scorecard:
    predictions = make_predictions(opened_tiny(tiny_data), perfect, 0, pairs=2, analogs=0)
    return evaluated(tmp_path_factory.mktemp("run"), predictions)[0]


def test_models_and_their_roles(card):
    assert card.experiment == "demo/version_0"
    # the truth has a consistency with the input, too
    assert set(card.models) == {"corrdiff", "regression", "analogs", "bilinear", "bicubic", "lapse_rate", "truth"}
    assert [name for name in card.models if card.role(name) == "model"] == ["corrdiff"]
    assert [name for name in card.models if card.role(name) == "oracle"] == ["truth"]
    assert evaluation.variables_of(card) == VARIABLES


def test_scores_of_a_calibrated_ensemble(card):
    for name in ("10u", "10v", "2t"):
        crps = card.row("corrdiff", "crps", variable=name)
        assert crps["value"] == pytest.approx(0.5642, abs=0.02)
        assert crps["lower"] <= crps["value"] <= crps["upper"]
        assert card.row("corrdiff", "plain_crps", variable=name)["value"] > crps["value"]
        assert card.row("corrdiff", "ssr", variable=name)["value"] == pytest.approx(1, abs=0.03)
        assert card.row("corrdiff", "outlier_ratio", variable=name)["value"] == pytest.approx(1, abs=0.1)
    assert card.row("corrdiff", "crps", variable="2t")["units"] == "K"
    # the mean of five members is nearer to the truth than the truth of another
    skill = card.row("corrdiff", "crps_skill_regression", variable="2t")["value"]
    regression = card.row("regression", "crps", variable="2t")["value"]
    assert skill == pytest.approx(1 - card.row("corrdiff", "crps", variable="2t")["value"] / regression)


def test_what_is_scored_of_whom(card):
    frame = card.frame
    of = {name: set(frame["metric"][(frame["model"] == name) & (frame["variable"] == "2t")]) for name in card.models}
    assert of.pop("truth") == {"consistency_rmse"}
    everybody = {"crps", "mae", "rmse", "bias", "lsd", "power_ratio", "p99_quantile_ratio", "consistency_rmse"}
    assert [everybody - metrics for metrics in of.values()] == [set()] * 6
    ensembles = {name for name, metrics in of.items() if {"ssr", "spread", "std_dev", "plain_crps"} <= metrics}
    assert ensembles == {"corrdiff", "analogs"}
    wind = frame[frame["variable"] == "kinetic_energy"]
    assert set(wind["metric"]) == {"lsd", "power_ratio"}
    assert set(frame["variable"][frame["metric"] == "energy_score"]) == {"all"}


def test_how_often_rain_is_wet(card):
    frame = card.frame
    for metric, threshold in (("wet_fraction", 0.1), ("zero_fraction", None)):
        assert set(frame["variable"][frame["metric"] == metric]) == {"tp"}
        assert set(frame["model"][frame["metric"] == metric]) == {"corrdiff", "regression", "analogs", "truth"}
        for name in ("corrdiff", "truth"):
            row = card.row(name, metric, variable="tp", threshold=threshold)
            assert 0 <= row["lower"] <= row["value"] <= row["upper"] <= 1
            assert row["units"] == "1"


def test_the_headline_is_of_products_that_have_all_variables(card, of_regression):
    for metric in evaluation.HEADLINE:
        frame = card.frame[card.frame["metric"] == metric]
        assert set(frame["model"]) == {"corrdiff", "regression", "analogs"}
        assert of_regression.row("regression", metric)["value"] == pytest.approx(0, abs=1e-9)


def printed(table) -> str:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_tables(card):
    text = printed(evaluation.score_table(card))
    for name in ("10u [m s-1]", "2t [K]", "tp [mm h-1]", "wind_speed", "lapse_rate"):
        assert name in text
    assert "kinetic_energy" not in text
    assert re.search(r"tp above 0\.1 / at 0, %: corrdiff \d+\.\d/\d+\.\d, .*truth \d", text)
    text = printed(evaluation.skill_table(card))
    assert "CRPS skill of corrdiff" in text
    (line,) = (line for line in text.splitlines() if "│ tp" in line)
    assert line.count("–") == 3  # rain is no input


def test_a_perfect_regression(of_regression):
    assert of_regression.role("regression") == "model"
    for name in VARIABLES:
        assert of_regression.row("regression", "crps", variable=name)["value"] == 0
        assert of_regression.row("regression", "lsd", variable=name)["value"] == pytest.approx(0, abs=1e-9)
    assert np.isfinite(of_regression.row("regression", "crps_skill_bicubic", variable="2t")["value"])
    assert "CRPS skill of regression" in printed(evaluation.skill_table(of_regression))


def test_a_run_without_a_regression(tiny_data, tmp_path):
    predictions = make_predictions(opened_tiny(tiny_data), exchangeable, 2, pairs=2)
    means = predictions["member"] == -1
    # the mean of the training, everywhere
    predictions["field"] = predictions["field"].where(~means, predictions["field"].mean(("sample", "y", "x")))
    card, drawn = evaluated(tmp_path, predictions.assign_attrs(model="diffusion"))
    assert drawn[0].main == "diffusion"
    assert {"climatology", "diffusion"} <= set(card.models)
    assert "regression" not in card.models
    assert card.role("climatology") == "baseline"
    assert np.isfinite(card.row("diffusion", "crps_skill_climatology", variable="2t")["value"])
    (line,) = (line for line in printed(evaluation.skill_table(card)).splitlines() if "variable" in line)
    assert "climatology" in line
    # a constant has no spectrum
    frame = card.frame
    assert set(frame["metric"][frame["model"] == "climatology"]).isdisjoint({"lsd", "power_ratio"})
