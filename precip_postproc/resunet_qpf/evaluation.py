"""From a run's predictions to its scorecard, curves and figures; knows nothing of torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rich.progress import track
from rich.table import Table
from rich.text import Text

from ai4sim.atomic import atomic_path
from ai4sim.experiment import PREDICTIONS, run_name
from ai4sim.verification import Scorecard, skill_name
from ai4sim.verification.probabilistic import (
    base_rate,
    brier,
    corp_curve,
    mean_forecast,
    probability_bias,
    reliability,
    reliability_curve,
    resolution,
    roc_area,
    rps,
    sharpness,
)
from ai4sim.verification.scorecard import Role
from precip_postproc.resunet_qpf import config, plotters
from precip_postproc.resunet_qpf.samples import CALIBRATED, IDEAL, TestSamples
from precip_postproc.resunet_qpf.sums import DRY, Sums

HEADLINE = ("rps", "crps", "rps_skill_smoothed", "rps_skill_quantile_mapped")
RIVALS = ("climatology", "raw", "smoothed", "quantile_mapped")
LEAST_EVENTS = 30
"""Observed events below which no skill is given."""

FRACTIONS: dict[str, Any] = {"brier": brier, "base_rate": base_rate, "mean_forecast": mean_forecast}
CURVES: dict[str, Any] = {
    "reliability": reliability,
    "resolution": resolution,
    "roc_area": roc_area,
    "sharpness": sharpness,
}


def crps(statistics: xr.Dataset) -> xr.DataArray:
    """Mean of the continuous ranked probability score, mm."""
    return (statistics["crps"] / statistics["n"].where(statistics["n"] > 0)).rename("crps").assign_attrs(units="mm")


def evaluate(folder: Path) -> Scorecard:
    """Score a run's probabilities and every baseline on the same points, and draw the figures.

    Beside the scorecard, ``verification.nc`` has the reliability diagrams, with consistency bars and by isotonic
    regression (CORP), and ``skill_map.nc`` the Brier skill by place.

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
        roles: dict[str, Role] = {samples.model: "model"}
        if samples.calibration is not None:
            roles[samples.model + CALIBRATED] = "model"
        if samples.has_ideal:
            roles[IDEAL] = "oracle"
        scorecard = Scorecard(use_case=config.USE_CASE, experiment=run_name(folder), roles=roles)
        by_split = sums.probability()
        for split, statistics in by_split.items():
            if split == "test":
                add_scores(scorecard, statistics)
            else:
                add_pooled(scorecard, statistics, split, rivals=("smoothed",))
        add_crps(scorecard, sums.crps())
        corp = {name: corp_curve(pooled(statistics)) for name, statistics in by_split["test"].items()}
        curves = {name: reliability_curve(pooled(statistics), seed=0) for name, statistics in by_split["test"].items()}
        save_curves(folder, curves, corp)
        with atomic_path(folder / "skill_map.nc") as partial:
            sums.skill_map().to_dataset(name="brier_skill_smoothed").to_netcdf(partial, engine="h5netcdf")
        plotters.plot_all(
            folder / "figures",
            plotters.Results(
                scorecard,
                {name: pooled(statistics) for name, statistics in by_split["test"].items()},
                curves,
                corp,
                {name: pooled(statistics) for name, statistics in sums.fss().items()},
                sums.pit(),
                sums.skill_map(),
                sums.wettest(),
                samples,
            ),
        )
    return scorecard


def pooled(statistics: xr.Dataset) -> xr.Dataset:
    """Sums over all lead times."""
    return statistics.sum("lead_time", keep_attrs=True) if "lead_time" in statistics.dims else statistics


def _without_bins(statistics: xr.Dataset) -> xr.Dataset:
    """Sums over all bins, as one bin: the Brier score needs no more."""
    summed = statistics.sum("bin", keep_attrs=True).expand_dims(bin=1)
    return summed.assign(n=statistics["n"]).assign_coords(bin_lower=("bin", [0.0]), bin_upper=("bin", [1.0]))


def _with_events(statistics: xr.Dataset) -> list[float]:
    """Thresholds that were reached often enough for a skill to mean something."""
    events = statistics["observed"].sum([dim for dim in statistics["observed"].dims if dim != "threshold"])
    kept: list[float] = events["threshold"].values[events.values >= LEAST_EVENTS].tolist()
    return kept


def add_pooled(
    scorecard: Scorecard, statistics: Mapping[str, xr.Dataset], split: str, *, rivals: Sequence[str] = RIVALS
) -> None:
    """Add scores by threshold, all lead times together, and skill where there are events enough."""
    plain = {name: _without_bins(pooled(part)) for name, part in statistics.items()}
    metrics = FRACTIONS | {"probability_bias": probability_bias}
    scorecard.add_scores(plain, metrics=metrics, seed=0, along="threshold", split=split)
    _add_skill(scorecard, plain, split, rivals=rivals)


def _add_skill(
    scorecard: Scorecard,
    plain: Mapping[str, xr.Dataset],
    split: str,
    lead: float | None = None,
    rivals: Sequence[str] = RIVALS,
) -> None:
    thresholds = _with_events(next(iter(plain.values())))
    if not thresholds:
        return
    chosen = {name: part.sel(threshold=thresholds) for name, part in plain.items()}
    skills = Scorecard(use_case=scorecard.use_case, experiment=scorecard.experiment, roles=scorecard.roles)
    skills.add_scores(
        chosen,
        metrics={"brier": brier},
        seed=0,
        along="threshold",
        skill_against=rivals,
        skill_metrics=("brier",),
        split=split,
        lead_time=lead,
    )
    frame = skills.frame
    for row in frame[frame["metric"] != "brier"].drop(columns=["use_case", "experiment"]).to_dict(orient="records"):
        fields: dict[str, Any] = {str(k): None if isinstance(v, float) and np.isnan(v) else v for k, v in row.items()}
        scorecard.add(**fields)


def add_scores(scorecard: Scorecard, statistics: Mapping[str, xr.Dataset], split: str = "test") -> None:
    """Add all scores of a test set: by threshold, by threshold and lead time, and over all thresholds.

    Args:
        scorecard: to add to.
        statistics: of every product, (block, lead_time, threshold, bin).
        split: name of the test set.
    """
    add_pooled(scorecard, statistics, split, rivals=RIVALS)
    whole = {name: pooled(part) for name, part in statistics.items()}
    scorecard.add_scores(whole, metrics=CURVES, seed=0, along="threshold", split=split)
    for name, part in whole.items():
        corp, n = corp_curve(part), float(part["n"].sum())
        for metric, values in (("miscalibration", corp["mcb"]), ("discrimination", corp["dsc"])):
            for value in values:
                threshold = float(value["threshold"])
                scorecard.add(model=name, metric=metric, value=value, n=n, split=split, threshold=threshold)
    leads = next(iter(statistics.values()))["lead_time"].values
    for lead in leads:
        own = {name: part.sel(lead_time=lead, drop=True) for name, part in statistics.items()}
        plain = {name: _without_bins(part) for name, part in own.items()}
        scorecard.add_scores(plain, metrics=FRACTIONS, seed=0, along="threshold", split=split, lead_time=float(lead))
        scorecard.add_scores(
            own, metrics={"reliability": reliability}, seed=0, along="threshold", split=split, lead_time=float(lead)
        )
        _add_skill(scorecard, plain, split, float(lead))
    plain = {name: _without_bins(part) for name, part in statistics.items()}
    for lead in (None, *leads):
        own = {
            name: pooled(part) if lead is None else part.sel(lead_time=lead, drop=True) for name, part in plain.items()
        }
        scorecard.add_scores(
            own,
            metrics={"rps": rps},
            seed=0,
            split=split,
            skill_against=RIVALS,
            skill_metrics=("rps",),
            lead_time=None if lead is None else float(lead),
        )


def add_crps(scorecard: Scorecard, statistics: Mapping[str, xr.Dataset]) -> None:
    """Add the CRPS of all products' probabilities at the thresholds, over all lead times and by lead time."""
    whole = {name: pooled(part) for name, part in statistics.items()}
    options: dict[str, Any] = {"skill_against": RIVALS, "skill_metrics": ("crps",), "seed": 0}
    scorecard.add_scores(whole, metrics={"crps": crps}, **options)
    scorecard.add_scores(statistics, metrics={"crps": crps}, along="lead_time", **options)


def save_curves(folder: Path, curves: Mapping[str, xr.Dataset], corp: Mapping[str, xr.Dataset]) -> None:
    """Write the reliability diagrams of all products."""
    renamed = [
        part.rename({name: f"corp_{name}" for name in (*part.data_vars, "bin", "bin_lower", "bin_upper")})
        for part in corp.values()
    ]
    parts = [xr.merge([own, other]) for own, other in zip(curves.values(), renamed, strict=True)]
    together = xr.concat(parts, xr.DataArray(list(curves), dims="model", name="model"), join="override")
    with atomic_path(folder / "verification.nc") as partial:
        together.to_netcdf(partial, engine="h5netcdf")


SHORT = {"quantile_mapped": "mapped", "climatology": "climate", "smoothed": "smooth"}
"""Names that fit into the columns of a table."""


def skill_table(scorecard: Scorecard) -> Table:
    """Brier scores by threshold, the model's skill against its strongest rivals, and its share of what is possible."""
    card = scorecard
    model = next(name for name in card.models if card.role(name) == "model")
    table = Table(title=f"Brier score of {model} and others, all lead times", title_justify="left")
    table.caption = "%: skill [95 % interval] against it; share: of the way from the smoothed forecast to the ideal"
    table.caption_justify = "left"
    names = [name for name in (*RIVALS, model, IDEAL) if name in card.models]
    titles = ["model" if name == model else SHORT.get(name, name) for name in names]
    for heading in ("mm", "rate", *titles, "% to smooth", "% to mapped", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    for threshold in sorted(set(card.frame["threshold"].dropna())):
        scores = {name: card.row(name, "brier", threshold=threshold)["value"] for name in names}
        best = min(value for name, value in scores.items() if card.role(name) != "oracle")
        cells = [f"{threshold:g}", _short(card.row(model, "base_rate", threshold=threshold)["value"], 4)]
        cells += [f"[bold]{_short(v)}[/]" if v == best and n != IDEAL else _short(v) for n, v in scores.items()]
        rows = [card.find(model, skill_name("brier", rival), threshold=threshold) for rival in RIVALS[2:]]
        cells += ["too few" if row is None else _percent(row) for row in rows]
        share = "–"
        if IDEAL in scores and rows[0] is not None and scores["smoothed"] > scores[IDEAL]:
            share = f"{(scores['smoothed'] - scores[model]) / (scores['smoothed'] - scores[IDEAL]):.0%}"
        table.add_row(*(Text.from_markup(cell) if "[bold]" in cell else Text(cell) for cell in (*cells, share)))
    return table


def _percent(row: Mapping[str, Any]) -> str:
    value, lower, upper = (100 * row[bound] for bound in ("value", "lower", "upper"))
    digits = 1 if max(abs(lower), abs(upper)) < 30 else 0
    return f"{value:.{digits}f} [{lower:.{digits}f}, {upper:.{digits}f}]"


def _short(value: float, digits: int = 5) -> str:
    """A number below 1 without its leading zero: columns are narrow."""
    return f"{value:.{digits}f}".lstrip("0")


def dry_table(scorecard: Scorecard) -> Table:
    """How often it rains where the forecast is dry all around, and how often each product says so."""
    table = Table(title=f"where it is dry: smoothed forecast below {DRY:g} mm", title_justify="left")
    for heading in ("product", "mean probability of 0.25 mm", "observed", "difference"):
        table.add_column(heading, justify="left" if heading == "product" else "right")
    for name in scorecard.models:
        forecast, observed, bias = (
            scorecard.find(name, metric, split="test_dry", threshold=config.THRESHOLDS[0])
            for metric in ("mean_forecast", "base_rate", "probability_bias")
        )
        if forecast is not None and observed is not None and bias is not None:
            cells = [f"{row['value']:.4f}" for row in (forecast, observed)]
            table.add_row(name, *cells, Text(f"{bias['value']:+.4f} [{bias['lower']:+.4f}, {bias['upper']:+.4f}]"))
    return table
