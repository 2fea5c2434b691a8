"""From a run's predictions to its scorecard, curves and figures; knows nothing of torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from rich.progress import track
from rich.table import Table
from rich.text import Text

from ai4sim.atomic import atomic_path
from ai4sim.experiment import PREDICTIONS, run_name
from ai4sim.verification import Interval, Scorecard, block_bootstrap, skill_name
from ai4sim.verification.fields import merge_sums
from ai4sim.verification.probabilistic import (
    base_rate,
    brier,
    mean_forecast,
    pit_density,
    pit_statistics,
    probability_bias,
    probability_statistics,
    reliability,
    reliability_curve,
    resolution,
    roc_area,
    rps,
    sharpness,
)
from ai4sim.verification.scorecard import Role
from ai4sim.verification.spatial import probability_fss_statistics
from precip_postproc.resunet_qpf import config, plotters
from precip_postproc.resunet_qpf.products import Distribution
from precip_postproc.resunet_qpf.samples import CALIBRATED, IDEAL, Day, TestSamples
from precip_postproc.resunet_qpf.smoothing import gaussian_smooth

HEADLINE = ("rps", "crps", "rps_skill_smoothed", "rps_skill_quantile_mapped")
RIVALS = ("climatology", "raw", "smoothed", "quantile_mapped")
WINDOWS = (1, 3, 5, 9, 17, 33, 65)
FSS_THRESHOLDS = (0.25, 1.0, 5.0)
LEAST_EVENTS = 30
"""Observed events below which no skill is given."""

# where it is dry: the smoothed forecast is below this
DRY = 0.01  # mm
DRY_SIGMA = 24.0  # grid points

FRACTIONS: dict[str, Any] = {"brier": brier, "base_rate": base_rate, "mean_forecast": mean_forecast}
CURVES: dict[str, Any] = {
    "reliability": reliability,
    "resolution": resolution,
    "roc_area": roc_area,
    "sharpness": sharpness,
}
SPLITS = {"dry": "test_dry", "wet": "test_wet"}


def crps(statistics: xr.Dataset) -> xr.DataArray:
    """Mean of the continuous ranked probability score, mm."""
    return (statistics["crps"] / statistics["n"].where(statistics["n"] > 0)).rename("crps").assign_attrs(units="mm")


class Sums:
    """Everything that scores and figures are made of, summed over the test days one by one.

    Args:
        samples: the test rows of a run.
    """

    def __init__(self, samples: TestSamples) -> None:
        self._samples = samples
        self._probability: dict[str, dict[str, list[xr.Dataset]]] = {"dry": {}, "wet": {}}
        self._by_hour: dict[int, dict[str, list[xr.Dataset]]] = {}
        self._crps: dict[str, list[xr.Dataset]] = {}
        self._fss: dict[str, list[xr.Dataset]] = {}
        self._pit: list[xr.Dataset] = []
        self._maps: dict[str, NDArray[np.float64]] = {}
        self._rng = np.random.default_rng(0)
        self.names: list[str] = []
        self.rain: dict[int, float] = {}

    def add(self, day: Day) -> None:
        """Add a day."""
        self.names = list(day.probabilities)
        self.rain[day.label] = float(np.nansum(day.observed.values))
        dry = self._dry(day)
        block = xr.DataArray(np.full(day.observed.sizes["sample"], day.label), dims="sample")
        for part in day.split():
            hour = int(part.observed["init"].values[0].astype("datetime64[h]").astype(int) % 24)
            own = dry.isel(sample=dry["init"] == part.observed["init"].values[0]).drop_vars("init")
            observed = part.observed.drop_vars("init")
            for stratum, mask in (("dry", own), ("wet", ~own)):
                for name, probability in part.probabilities.items():
                    sums = probability_statistics(
                        probability, observed, reduce=("sample", "y", "x"), block=block[:1], mask=mask
                    )
                    self._probability[stratum].setdefault(name, []).append(sums)
                    self._by_hour.setdefault(hour, {}).setdefault(name, []).append(sums)
        self._add_crps(day)
        self._add_fss(day, block)
        self._add_pit(day, block)
        self._add_maps(day)

    @staticmethod
    def _dry(day: Day) -> xr.DataArray:
        """Where (sample, lead_time, y, x) the smoothed forecast has hardly any rain."""
        smooth = gaussian_smooth(day.forecast.values, [DRY_SIGMA])[0]
        return day.observed.copy(data=smooth < DRY).astype(bool)

    def _add_crps(self, day: Day) -> None:
        observed = day.observed.values
        known = np.isfinite(observed)
        n = known.sum(axis=(0, 2, 3)).astype(float)
        for name, probability in day.probabilities.items():
            if name == "raw":
                score = np.abs(day.forecast.values - observed)
            else:
                exceedance = np.moveaxis(probability.values, 2, 0)
                score = Distribution(exceedance, self._samples.thresholds).crps(np.nan_to_num(observed))
            total = np.where(known, score, 0).sum(axis=(0, 2, 3))
            sums = xr.Dataset(
                {"n": ("lead_time", n), "crps": ("lead_time", total)}, {"lead_time": day.observed.lead_time}
            )
            self._crps.setdefault(name, []).append(sums.expand_dims(block=[day.label]))

    def _add_fss(self, day: Day, block: xr.DataArray) -> None:
        observed = day.observed.drop_vars("init")
        thresholds = [t for t in FSS_THRESHOLDS if t in self._samples.thresholds]
        windows = [window for window in WINDOWS if window <= min(observed.sizes["y"], observed.sizes["x"])]
        for name in (self._samples.model, "raw", "smoothed"):
            self._fss.setdefault(name, []).append(
                probability_fss_statistics(
                    day.probabilities[name].sel(threshold=thresholds),
                    observed,
                    windows=windows,
                    border="partial",
                    reduce="sample",
                    block=block,
                    mask=observed.notnull(),
                )
            )

    def _add_pit(self, day: Day, block: xr.DataArray) -> None:
        exceedance = np.moveaxis(day.exceedance.values, 2, 0)
        known = np.isfinite(day.observed.values)
        pit = Distribution(exceedance, self._samples.edges).pit(np.nan_to_num(day.observed.values), self._rng)
        labelled = day.observed.copy(data=np.where(known, pit, np.nan)).drop_vars("init")
        labelled.attrs = {}
        self._pit.append(pit_statistics(labelled, reduce=("sample", "y", "x"), block=block))

    def _add_maps(self, day: Day) -> None:
        observed = day.observed.values
        known = np.isfinite(observed)
        event = observed >= self._samples.thresholds[0] - config.GUARD
        maps = {"n": known.sum(axis=(0, 1))}
        for name in (self._samples.model, "smoothed"):
            error = np.square(day.probabilities[name].values[:, :, 0] - event)
            maps[name] = np.where(known, error, 0).sum(axis=(0, 1), dtype=np.float64)
        for name, values in maps.items():
            self._maps[name] = self._maps.get(name, 0) + values

    # -- results

    def probability(self) -> dict[str, dict[str, xr.Dataset]]:
        """Sums of every product (block, lead_time, threshold, bin) by test set: all, dry and wet."""
        parts = {
            SPLITS[stratum]: {name: merge_sums(*sums) for name, sums in by_name.items()}
            for stratum, by_name in self._probability.items()
        }
        dry, wet = (parts[split] for split in SPLITS.values())
        return {"test": {name: merge_sums(dry[name], wet[name]) for name in self.names}, **parts}

    def by_hour(self) -> dict[str, dict[str, xr.Dataset]]:
        """The same by hour of the initial time."""
        return {
            f"test_{hour:02}utc": {name: merge_sums(*sums) for name, sums in by_name.items()}
            for hour, by_name in sorted(self._by_hour.items())
        }

    def crps(self) -> dict[str, xr.Dataset]:
        """Sums of the CRPS of every product (block, lead_time)."""
        return {name: xr.concat(parts, "block") for name, parts in self._crps.items()}

    def fss(self) -> dict[str, xr.Dataset]:
        """Sums of the fractions skill score (block, lead_time, threshold, window)."""
        return {name: merge_sums(*parts) for name, parts in self._fss.items()}

    def pit(self) -> dict[str, Interval]:
        """Density of the model's probability integral transform, with intervals."""
        sums = merge_sums(*self._pit).sum("lead_time")
        return {self._samples.model: block_bootstrap(sums, pit_density, seed=0)}

    def wettest(self, number: int = 2, apart: int = 5) -> list[int]:
        """Labels of the days with the largest analysed amounts, that many days apart from each other."""
        chosen: list[int] = []
        for label in sorted(self.rain, key=lambda label: -self.rain[label]):
            if len(chosen) < number and all(abs(label - other) > apart for other in chosen):
                chosen.append(label)
        return chosen

    def skill_map(self) -> xr.DataArray:
        """Brier skill (y, x) of the model at the first threshold against the smoothed forecast, over all lead times."""
        own, rival = self._maps[self._samples.model], self._maps["smoothed"]
        with np.errstate(invalid="ignore", divide="ignore"):
            skill = np.where((self._maps["n"] > 0) & (rival > 0), 1 - own / rival, np.nan)
        attrs = {"units": "1", "long_name": "Brier skill against the smoothed forecast"}
        return xr.DataArray(skill, dims=("y", "x"), attrs=attrs)


def evaluate(folder: Path) -> Scorecard:
    """Score a run's probabilities and every baseline on the same points, and draw the figures.

    Beside the scorecard, ``verification.nc`` has the reliability diagrams, and ``skill_map.nc`` the Brier skill by
    place.

    Args:
        folder: the run's folder, with its predictions.

    Returns:
        The scorecard, not yet saved.
    """
    with xr.open_zarr(folder / PREDICTIONS, consolidated=False, chunks=None) as predictions:
        samples = TestSamples(predictions)
        sums = Sums(samples)
        for day in track(samples.days(), "scoring", total=len(samples.labels), transient=True):
            sums.add(day)
        roles: dict[str, Role] = {samples.model: "model"}
        if samples.calibration is not None:
            roles[samples.model + CALIBRATED] = "model"
        if samples.has_ideal:
            roles[IDEAL] = "oracle"
        scorecard = Scorecard(use_case=config.USE_CASE, experiment=run_name(folder), roles=roles)
        by_split = sums.probability()
        for split, statistics in by_split.items():
            add_scores(scorecard, statistics, split)
        for split, statistics in sums.by_hour().items():
            add_pooled(scorecard, statistics, split, rivals=("smoothed",))
        add_crps(scorecard, sums.crps())
        curves = {name: reliability_curve(pooled(statistics), seed=0) for name, statistics in by_split["test"].items()}
        save_curves(folder, curves)
        with atomic_path(folder / "skill_map.nc") as partial:
            sums.skill_map().to_dataset(name="brier_skill_smoothed").to_netcdf(partial, engine="h5netcdf")
        plotters.plot_all(
            folder / "figures",
            plotters.Results(
                scorecard,
                {name: pooled(statistics) for name, statistics in by_split["test"].items()},
                curves,
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
    scorecard.add_scores(plain, metrics=FRACTIONS, seed=0, along="threshold", split=split)
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


def add_scores(scorecard: Scorecard, statistics: Mapping[str, xr.Dataset], split: str) -> None:
    """Add all scores of a test set: by threshold, by threshold and lead time, and over all thresholds.

    Args:
        scorecard: to add to.
        statistics: of every product, (block, lead_time, threshold, bin).
        split: name of the test set.
    """
    add_pooled(scorecard, statistics, split, rivals=RIVALS if split == "test" else ("smoothed",))
    whole = {name: pooled(part) for name, part in statistics.items()}
    scorecard.add_scores(whole, metrics={"probability_bias": probability_bias}, seed=0, along="threshold", split=split)
    if split != "test":
        return
    scorecard.add_scores(whole, metrics=CURVES, seed=0, along="threshold", split=split)
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


def save_curves(folder: Path, curves: Mapping[str, xr.Dataset]) -> None:
    """Write the reliability diagrams of all products."""
    together = xr.concat(list(curves.values()), xr.DataArray(list(curves), dims="model", name="model"), join="override")
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
    return f"{100 * row['value']:.1f} [{100 * row['lower']:.1f}, {100 * row['upper']:.1f}]"


def _short(value: float, digits: int = 5) -> str:
    """A number below 1 without its leading zero: columns are narrow."""
    return f"{value:.{digits}f}".lstrip("0")


def dry_table(scorecard: Scorecard) -> Table:
    """How often it rains where the forecast is dry all around, and how often each product says so."""
    table = Table(title=f"where it is dry: smoothed forecast below {DRY:g} mm", title_justify="left")
    for heading in ("product", "mean probability of 0.25 mm", "observed", "difference"):
        table.add_column(heading, justify="left" if heading == "product" else "right")
    for name in scorecard.models:
        rows = {
            metric: scorecard.find(name, metric, split="test_dry", threshold=config.THRESHOLDS[0])
            for metric in ("mean_forecast", "base_rate", "probability_bias")
        }
        if None in rows.values():
            continue
        bias = rows["probability_bias"]
        assert bias is not None
        cells = [f"{rows[metric]['value']:.4f}" for metric in ("mean_forecast", "base_rate")]  # type: ignore[index]
        table.add_row(name, *cells, Text(f"{bias['value']:+.4f} [{bias['lower']:+.4f}, {bias['upper']:+.4f}]"))
    return table
