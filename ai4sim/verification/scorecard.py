"""The scorecard: all scores of a test run, of the model and of every baseline, as one long table."""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal, Self, TypedDict, Unpack

import numpy as np
import pandas as pd
import xarray as xr
from rich.table import Table

from ai4sim.atomic import atomic_path
from ai4sim.errors import InputError
from ai4sim.verification.bootstrap import Interval, Metric, block_bootstrap, bootstrap_skill
from ai4sim.verification.comparison import compare, print_table
from ai4sim.verification.metrics import metric_info, skill_name

COLUMNS: Final = (
    "use_case",
    "experiment",
    "model",
    "split",
    "variable",
    "lead_time",
    "threshold",
    "metric",
    "value",
    "lower",
    "upper",
    "n",
    "units",
)
KEY: Final = ("model", "split", "variable", "lead_time", "threshold", "metric")
SCORECARD_CSV: Final = "scorecard.csv"
SCORECARD_JSON: Final = "scorecard.json"

Role = Literal["model", "baseline", "oracle"]
ROLES: Final = ("model", "baseline", "oracle")
LeadTime = float | timedelta | np.timedelta64

_NUMBERS: Final = ("lead_time", "threshold", "value", "lower", "upper", "n")


class Selection(TypedDict, total=False):
    """Which scores are meant.

    Attributes:
        split: name of the test set, such as ``test`` (the default) or ``test_r3``.
        variable: name of the variable; ``all`` (the default) for pooled scores.
        lead_time: in hours, or a time difference; None if it does not apply.
        threshold: in the units of the variable; None if it does not apply.
    """

    split: str
    variable: str
    lead_time: LeadTime | None
    threshold: float | None


class Scorecard:
    """All scores of one experiment: one row per model, split, variable, lead time, threshold and metric.

    The table `frame` has the columns `COLUMNS`. `lead_time` is in hours and `threshold` in the units of the
    variable; an empty cell (NaN) means not applicable. `lower` and `upper` bound the 95 % bootstrap interval
    over independent blocks, `n` is the number of values that were scored. The file `scorecard.csv` is the
    table; `scorecard.json` has the same rows and, beside them, the role of each model: the trained `model`, a
    `baseline`, or an `oracle` (the best that is attainable, which does not compete).

    Args:
        use_case: path of the use case, such as ``weather_forecast/gwd``.
        experiment: name of the experiment, such as ``demo``.
        roles: role of each model; whoever is not named is a baseline.

    Raises:
        ValueError: an unknown role.
    """

    def __init__(self, *, use_case: str, experiment: str, roles: Mapping[str, Role] | None = None) -> None:
        self.use_case = use_case
        self.experiment = experiment
        self.roles: dict[str, Role] = dict(roles or {})
        wrong = {name: role for name, role in self.roles.items() if role not in ROLES}
        if wrong:
            raise ValueError(f"unknown roles {wrong}: a role is one of {', '.join(ROLES)}")
        self._rows: dict[tuple[Any, ...], dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def frame(self) -> pd.DataFrame:
        """The table, a copy: text columns as object, numbers as float64 (`n` too, since it may be empty)."""
        frame = pd.DataFrame(list(self._rows.values()), columns=list(COLUMNS))
        return frame.astype({name: np.float64 if name in _NUMBERS else object for name in COLUMNS})

    @property
    def models(self) -> list[str]:
        """Names: models, then baselines, then oracles, each in the order of entry."""
        names = dict.fromkeys(row["model"] for row in self._rows.values())
        return sorted(names, key=lambda name: ROLES.index(self.role(name)))

    def role(self, model: str) -> Role:
        """Role of a model in the comparison."""
        return self.roles.get(model, "baseline")

    def add(
        self,
        *,
        model: str,
        metric: str,
        value: float | xr.DataArray,
        lower: float | xr.DataArray = math.nan,
        upper: float | xr.DataArray = math.nan,
        n: float | None = None,
        units: str | None = None,
        **selection: Unpack[Selection],
    ) -> None:
        """Add one score.

        An `Interval` of scalars fits: ``add(model=..., metric="r2", **interval._asdict())``.

        Args:
            model: name of the network or of the baseline.
            metric: name, see `metric_info`.
            value: the score, a number or an array of one value; NaN where it is undefined.
            lower: lower bound of its 95 % interval, NaN if there is none.
            upper: upper bound of its 95 % interval, NaN if there is none.
            n: number of values scored.
            units: of the score; those of `value` if it is an array that has some, else "1".
            **selection: what was scored, see `Selection`.

        Raises:
            ValueError: unknown metric, bounds in the wrong order, or there is such a row already.
        """
        metric_info(metric)
        if units is None:
            units = str(value.attrs.get("units", "1")) if isinstance(value, xr.DataArray) else "1"
        bounds = _number(lower, f"lower bound of {metric}"), _number(upper, f"upper bound of {metric}")
        if bounds[0] > bounds[1]:
            raise ValueError(f"{metric} of {model}: lower bound {bounds[0]} above upper bound {bounds[1]}")
        key = _key(model, metric, selection)
        if key in self._rows:
            raise ValueError(f"the scorecard has a row {dict(zip(KEY, key, strict=True))} already")
        row = {
            "use_case": self.use_case,
            "experiment": self.experiment,
            **{name: math.nan if part is None else part for name, part in zip(KEY, key, strict=True)},
            "value": _number(value, metric),
            "lower": bounds[0],
            "upper": bounds[1],
            "n": _number(n, "n"),
            "units": units,
        }
        self._rows[key] = {name: row[name] for name in COLUMNS}

    def add_scores(
        self,
        statistics: Mapping[str, xr.Dataset],
        *,
        metrics: Mapping[str, Metric],
        seed: int,
        n_resamples: int = 1000,
        skill_against: Sequence[str] = (),
        skill_metrics: Sequence[str] = (),
        along: Literal["lead_time", "threshold"] | None = None,
        **selection: Unpack[Selection],
    ) -> None:
        """Add scores of several models on the same samples, with block-bootstrap intervals and paired skills.

        Args:
            statistics: sums of each model with a dimension `block`, as `error_statistics(..., block=...)`
                gives them.
            metrics: functions of the sums by the name of the metric; each gives one number for the whole set.
            seed: of the resampling, common to all models.
            n_resamples: number of resamples.
            skill_against: baselines against which the skill of all other models is added.
            skill_metrics: names out of `metrics` of which the skill is added.
            along: dimension of the sums that the metrics keep: a row for each of its coordinates. Much faster than a
                call for each.
            **selection: what was scored, see `Selection`.

        Raises:
            ValueError: see `add` and `block_bootstrap`; a skill of what is not among the statistics or
                metrics; the models were scored on different samples.
        """
        unknown = [name for name in skill_against if name not in statistics]
        unknown += [name for name in skill_metrics if name not in metrics]
        if unknown:
            raise ValueError(f"no skill for {unknown}: there are models {[*statistics]} and metrics {[*metrics]}")
        for model, sums in statistics.items():
            for name, metric in metrics.items():
                interval = block_bootstrap(sums, metric, n_resamples=n_resamples, seed=seed)
                self._add_interval(model, name, sums, interval, along, selection)
            for baseline in skill_against:
                for name in skill_metrics if baseline != model else ():
                    interval = bootstrap_skill(
                        sums,
                        statistics[baseline],
                        metrics[name],
                        perfect=metric_info(name).perfect,
                        n_resamples=n_resamples,
                        seed=seed,
                    )
                    self._add_interval(model, skill_name(name, baseline), sums, interval, along, selection)

    def _add_interval(
        self, model: str, metric: str, sums: xr.Dataset, interval: Interval, along: str | None, selection: Selection
    ) -> None:
        """One row, or one for each coordinate of a dimension."""
        if along is None:
            self.add(model=model, metric=metric, n=float(sums["n"].sum()), **interval._asdict(), **selection)
            return
        for place, coordinate in enumerate(interval.value[along].values):
            chosen = {name: part.isel({along: place}) for name, part in interval._asdict().items()}
            n = sums["n"].isel({along: place}) if along in sums["n"].dims else sums["n"]
            row: dict[str, Any] = {**selection, along: float(coordinate)}
            self.add(model=model, metric=metric, n=float(n.sum()), **chosen, **row)

    def find(self, model: str, metric: str, **selection: Unpack[Selection]) -> Mapping[str, Any] | None:
        """One row of the table, None if there is none."""
        return self._rows.get(_key(model, metric, selection))

    def row(self, model: str, metric: str, **selection: Unpack[Selection]) -> Mapping[str, Any]:
        """One row of the table.

        Raises:
            KeyError: there is none.
        """
        found = self.find(model, metric, **selection)
        if found is None:
            key = dict(zip(KEY, _key(model, metric, selection), strict=True))
            metrics = sorted({row["metric"] for row in self._rows.values()})
            raise KeyError(f"no row {key} in the scorecard: it has the models {self.models} and the metrics {metrics}")
        return found

    def skill(self, model: str, baseline: str, metric: str, **selection: Unpack[Selection]) -> float:
        """Skill against a baseline from the values of the table, (m_baseline - m) / (m_baseline - m_perfect).

        Metrics that are best close to a value enter as the distance from it. For an interval, use
        `bootstrap_skill`.

        Args:
            model: who is judged.
            baseline: against whom.
            metric: a metric with a finite perfect value.
            **selection: what was scored, see `Selection`.

        Returns:
            The skill: 1 is perfect, 0 as good as the baseline; NaN where the baseline is perfect.

        Raises:
            KeyError: a score is missing.
            ValueError: the metric has no finite perfect value.
        """
        perfect = metric_info(metric).perfect
        if not math.isfinite(perfect):
            raise ValueError(f"{metric} has no finite perfect value, hence no skill")
        own, reference = (
            abs(float(self.row(name, metric, **selection)["value"]) - perfect) for name in (model, baseline)
        )
        return 1.0 - own / reference if reference else math.nan

    def beats(
        self,
        model: str,
        baseline: str,
        metric: str,
        *,
        significant: bool = True,
        **selection: Unpack[Selection],
    ) -> bool:
        """Whether a model is better than a baseline.

        Args:
            model: who is judged.
            baseline: against whom.
            metric: by what.
            significant: ask for a difference that the 95 % intervals support: the paired skill against the
                baseline is above zero where the table has it, else the intervals of the two scores do not
                overlap.
            **selection: what was scored, see `Selection`.

        Returns:
            True if it is better; False also where a score is NaN.

        Raises:
            KeyError: a score is missing.
            ValueError: `significant`, but there are no intervals.
        """
        own, reference = (
            metric_info(metric).badness(row["value"], row["lower"], row["upper"])
            for row in (self.row(name, metric, **selection) for name in (model, baseline))
        )
        if not significant or math.isnan(own[0]) or math.isnan(reference[0]):
            return own[0] < reference[0]
        paired = self.find(model, skill_name(metric, baseline), **selection)
        if paired is not None and not math.isnan(paired["lower"]):
            return bool(paired["lower"] > 0.0)
        if math.isnan(own[2]) or math.isnan(reference[1]):
            raise ValueError(
                f"{metric} of {model} or of {baseline} has no interval: give the scores some,"
                " or compare the values alone (significant=False)"
            )
        return own[2] < reference[1]

    def table(self, metrics: Sequence[str], *, title: str | None = None, **selection: Unpack[Selection]) -> Table:
        """A table for the terminal: models as rows, metrics with 95 % intervals as columns, the best in bold.

        Args:
            metrics: columns of the table.
            title: heading; use case, experiment and selection if None.
            **selection: what was scored, see `Selection`.

        Returns:
            A table to print with a rich console.
        """
        if title is None:
            parts = [self.use_case, self.experiment]
            parts += [selection.get("split", "test"), selection.get("variable", "all")]
            lead_time, threshold = selection.get("lead_time"), selection.get("threshold")
            parts += [] if lead_time is None else [f"lead time {_hours(lead_time):g} h"]
            parts += [] if threshold is None else [f"threshold {threshold:g}"]
            title = " · ".join(parts)
        return print_table(compare(self, metrics, **selection), metrics, title=title)

    def save(self, folder: Path | str) -> Path:
        """Write `scorecard.csv` and `scorecard.json`, each whole or not at all.

        Args:
            folder: the experiment folder.

        Returns:
            Path of the table.
        """
        folder = Path(folder)
        rows = [{name: None if _is_nan(value) else value for name, value in row.items()} for row in self._rows.values()]
        document = {
            "use_case": self.use_case,
            "experiment": self.experiment,
            "roles": {model: self.role(model) for model in self.models},
            "columns": list(COLUMNS),
            "rows": rows,
        }
        with atomic_path(folder / SCORECARD_JSON) as partial:
            partial.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        path = folder / SCORECARD_CSV
        with atomic_path(path) as partial:
            # counts without a decimal point; floats as the shortest text that reads back to the same number
            self.frame.astype({"n": "Int64"}).to_csv(partial, index=False, na_rep="")
        return path

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Read what `save` wrote. Without `scorecard.json` all models are baselines.

        Args:
            folder: the experiment folder.

        Returns:
            The scorecard.

        Raises:
            InputError: no table, or not the columns of a scorecard.
        """
        path, sidecar = Path(folder) / SCORECARD_CSV, Path(folder) / SCORECARD_JSON
        frame = _read_frame(path)
        roles: dict[str, Role] = {}
        if sidecar.is_file():
            try:
                roles = json.loads(sidecar.read_text())["roles"]
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise InputError(f"{sidecar} is damaged ({error}): delete it or run the test again") from error
        identity = {}
        for name in ("use_case", "experiment"):
            found = frame[name].unique()
            if len(found) > 1:
                raise InputError(f"{path} has more than one {name} ({', '.join(found)}): a scorecard has one")
            identity[name] = str(found[0]) if len(found) else ""
        try:
            card = cls(**identity, roles=roles)
            for row in frame.drop(columns=list(identity)).to_dict(orient="records"):
                fields: dict[str, Any] = {
                    str(name): None if _is_nan(part) and name in KEY else part for name, part in row.items()
                }
                card.add(**fields)
        except ValueError as error:
            raise InputError(f"{path}: {error}") from error
        return card


def _read_frame(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"{path} does not exist: the experiment was not tested; run the trainer's `test`")
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except ValueError as error:  # parser, empty file and encoding alike
        raise InputError(f"{path} is no scorecard: {error}") from error
    if tuple(frame.columns) != COLUMNS:
        raise InputError(f"{path} has the columns {list(frame.columns)}; a scorecard has {list(COLUMNS)}")
    for name in _NUMBERS:
        try:
            # Python's conversion gives the written number back to the last bit, in every version of pandas
            frame[name] = [float(text) if text else math.nan for text in frame[name]]
        except ValueError as error:
            raise InputError(f"{path}, column {name}: {error}") from error
    return frame


def _key(model: str, metric: str, selection: Selection) -> tuple[Any, ...]:
    """Values of the columns `KEY`; None, which is equal to itself, for what does not apply."""
    lead_time, threshold = selection.get("lead_time"), selection.get("threshold")
    return (
        model,
        selection.get("split", "test"),
        selection.get("variable", "all"),
        None if lead_time is None else _hours(lead_time),
        None if threshold is None else float(threshold),
        metric,
    )


def _number(value: float | xr.DataArray | None, name: str) -> float:
    if value is None:
        return math.nan
    if isinstance(value, xr.DataArray) and value.size != 1:
        raise ValueError(f"{name} has shape {dict(value.sizes)}: add one number at a time")
    return float(value)


def _hours(lead_time: LeadTime) -> float:
    if isinstance(lead_time, timedelta | np.timedelta64):
        return float(np.timedelta64(lead_time) / np.timedelta64(1, "h"))
    return float(lead_time)


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
