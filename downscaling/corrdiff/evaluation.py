"""From a run's predictions to its scorecard and figures."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from rich.progress import track
from rich.table import Table
from rich.text import Text

from ai4sim.experiment import PREDICTIONS, run_name
from ai4sim.verification import (
    Scorecard,
    bias,
    cell_band,
    crps,
    energy_score,
    line_lsd,
    mae,
    mean,
    outlier_ratio,
    plain_crps,
    power_ratio,
    quantile_ratio,
    rmse,
    skill_name,
    spread,
    ssr,
    std_dev,
    variogram_score,
)
from ai4sim.verification.scorecard import Role
from downscaling.corrdiff import config, plotters
from downscaling.corrdiff.samples import (
    ANALOGS,
    BICUBIC,
    BILINEAR,
    CLIMATOLOGY,
    LAPSE,
    REGRESSION,
    TRUTH,
    TestSamples,
)
from downscaling.corrdiff.sums import WET, Statistics, Sums

HEADLINE: Final = ("energy_score", "variogram_score")
RIVALS: Final = (BILINEAR, BICUBIC, LAPSE, CLIMATOLOGY, REGRESSION, ANALOGS)
TAILS: Final = {"p99_quantile_ratio": 0.99, "p99.9_quantile_ratio": 0.999, "p99.99_quantile_ratio": 0.9999}

ERRORS: Final[dict[str, Any]] = {"crps": crps, "mae": mae, "rmse": rmse, "bias": bias}
ENSEMBLE: Final[dict[str, Any]] = {"plain_crps": plain_crps, "ssr": ssr, "spread": spread, "std_dev": std_dev}


def evaluate(folder: Path) -> Scorecard:
    """Score a run's forecasts and every baseline on the same pairs, and draw the figures.

    Args:
        folder: the run's folder, with its predictions.

    Returns:
        The scorecard, not yet saved.
    """
    with xr.open_zarr(folder / PREDICTIONS, consolidated=False, chunks=None) as predictions:
        samples = TestSamples(predictions)
        sums = Sums(samples)
        for part in track(samples.parts(), "scoring", total=samples.n_parts, transient=True):
            sums.add(part)
        main = samples.model if samples.members else samples.mean_name
        # what is said of the truth is what is attainable
        roles: dict[str, Role] = {main: "model", TRUTH: "oracle"}
        scorecard = Scorecard(use_case=config.USE_CASE, experiment=run_name(folder), roles=roles)
        add_scores(scorecard, sums, cell_band(samples.spacing_or_one, samples.factor) if samples.factor > 1 else None)
        plotters.plot_all(folder / "figures", plotters.Results(scorecard, sums, samples, main))
    return scorecard


def add_scores(scorecard: Scorecard, sums: Sums, band: tuple[float, float] | None) -> None:
    """Add all scores by variable.

    Args:
        scorecard: to add to.
        sums: of all products.
        band: wavelengths, km, at which spectra are compared; all by default.
    """
    for name, products in sums.of("scores").items():
        rivals = [rival for rival in RIVALS if rival in products]
        options: dict[str, Any] = {"seed": 0, "variable": name}
        scorecard.add_scores(products, metrics=ERRORS, skill_against=rivals, skill_metrics=("crps", "rmse"), **options)
        ensembles = {product: part for product, part in products.items() if int(part["members"]) > 1}
        scorecard.add_scores(ensembles, metrics=ENSEMBLE, **options)
    spectral = {"lsd": partial(line_lsd, band=band), "power_ratio": partial(power_ratio, band=band)}
    for spectra in (sums.spectra(), sums.flow()):
        # a constant has none
        varying = {name: {p: own for p, own in of.items() if p != CLIMATOLOGY} for name, of in spectra.items()}
        _add(scorecard, varying, spectral)
    tails: dict[str, Any] = {metric: partial(quantile_ratio, q=q) for metric, q in TAILS.items()}
    _add(scorecard, sums.of("histogram"), tails)
    _add(scorecard, sums.of("ranks"), {"outlier_ratio": outlier_ratio})
    _add(scorecard, sums.of("consistency"), {"consistency_rmse": rmse})
    share: Any = partial(mean, of="prediction")
    _add(scorecard, sums.of("wet"), {"wet_fraction": share}, threshold=WET)
    _add(scorecard, sums.of("zero"), {"zero_fraction": share})
    _add(scorecard, sums.of("together"), {"energy_score": energy_score, "variogram_score": variogram_score})


def _add(
    scorecard: Scorecard, statistics: Statistics, metrics: Mapping[str, Any], threshold: float | None = None
) -> None:
    for name, products in statistics.items():
        scorecard.add_scores(products, metrics=metrics, seed=0, variable=name, threshold=threshold)


def variables_of(scorecard: Scorecard) -> list[str]:
    """Names of variables that are scored value by value, in the order of entry."""
    frame = scorecard.frame
    return [str(name) for name in dict.fromkeys(frame["variable"][frame["metric"] == "crps"])]


def score_table(scorecard: Scorecard) -> Table:
    """Scores by variable: fair CRPS (the mean absolute error of a single forecast), spectra, spread, tail, drizzle."""
    table = Table(title="scores by variable", title_justify="left", caption_justify="left")
    table.caption = "\n".join(
        [
            "CRPS: fair; of single forecasts the mean absolute error. LSD: log-spectral distance of members, dB",
            *_dryness(scorecard),
        ]
    )
    for heading in ("variable", "product", "CRPS [95 %]", "RMSE of mean", "LSD", "SSR", "99.99 % / truth"):
        table.add_column(heading, justify="left" if heading in ("variable", "product") else "right")
    for name in variables_of(scorecard):
        units = ""
        scores = {}
        for model in scorecard.models:
            row = scorecard.find(model, "crps", variable=name)
            if row is not None:
                scores[model], units = row, str(row["units"])
        best = min(row["value"] for row in scores.values())
        for place, (model, row) in enumerate(scores.items()):
            text = f"{row['value']:.3f} [{row['lower']:.3f}, {row['upper']:.3f}]"
            cells = [
                _number(scorecard, model, metric, name, digits)
                for metric, digits in (("rmse", 3), ("lsd", 2), ("ssr", 2), ("p99.99_quantile_ratio", 2))
            ]
            title = f"{name} [{units}]" if place == 0 else ""
            style = "bold" if row["value"] == best else ""
            table.add_row(Text(title), model, Text(text, style=style), *cells, end_section=place == len(scores) - 1)
    return table


def skill_table(scorecard: Scorecard) -> Table:
    """Skill of the model's CRPS against every baseline."""
    model = next(name for name in scorecard.models if scorecard.role(name) == "model")
    rivals = [name for name in RIVALS if name in scorecard.models and name != model]
    table = Table(title=f"CRPS skill of {model}, % [95 % interval], against", title_justify="left")
    for heading in ("variable", *rivals):
        table.add_column(heading, justify="left" if heading == "variable" else "right")
    for name in variables_of(scorecard):
        cells = []
        for rival in rivals:
            row = scorecard.find(model, skill_name("crps", rival), variable=name)
            bounds = [] if row is None else [100 * row[key] for key in ("value", "lower", "upper")]
            cells.append("–" if not bounds else f"{bounds[0]:.1f} [{bounds[1]:.1f}, {bounds[2]:.1f}]")
        table.add_row(Text(name), *map(Text, cells))
    return table


def _dryness(scorecard: Scorecard) -> list[str]:
    """A line for each output with a transform: how often it is wet, and how often 0, as all that is below becomes."""
    lines = []
    for name in variables_of(scorecard):
        parts = []
        for model in scorecard.models:
            wet = scorecard.find(model, "wet_fraction", variable=name, threshold=WET)
            zero = scorecard.find(model, "zero_fraction", variable=name)
            if wet is not None and zero is not None:
                parts.append(f"{model} {100 * wet['value']:.1f}/{100 * zero['value']:.1f}")
        if parts:
            lines.append(f"{name} above {WET:g} / at 0, %: {', '.join(parts)}")
    return lines


def _number(scorecard: Scorecard, model: str, metric: str, name: str, digits: int) -> str:
    row = scorecard.find(model, metric, variable=name)
    return "–" if row is None or np.isnan(row["value"]) else f"{row['value']:.{digits}f}"
