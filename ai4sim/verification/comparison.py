"""Models against metrics: the part of a scorecard that a reader compares, and how it is printed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Unpack

from rich.table import Table
from rich.text import Text

from ai4sim.verification.metrics import column_title, format_number, metric_info

if TYPE_CHECKING:
    from ai4sim.verification.scorecard import Role, Scorecard, Selection


@dataclass(frozen=True)
class Cell:
    """One score with its bounds, NaN if there are none, and whether it is the best of its column."""

    value: float
    lower: float
    upper: float
    units: str
    best: bool

    def format(self) -> tuple[str, str]:
        """Value and interval as text, to the digits that the interval supports; no interval is no text."""
        width = self.upper - self.lower
        if math.isnan(self.value) or math.isnan(width):
            return format_number(self.value), ""
        numbers = (self.value, self.lower, self.upper)
        value, lower, upper = (format_number(number, width) for number in numbers)
        return value, f"[{lower}, {upper}]"


@dataclass(frozen=True)
class Row:
    """The scores of one model by metric; no cell where the scorecard has none."""

    model: str
    role: "Role"
    cells: Mapping[str, Cell]


def compare(card: "Scorecard", metrics: Sequence[str], **selection: Unpack["Selection"]) -> list[Row]:
    """Models against metrics.

    Args:
        card: the scorecard.
        metrics: columns of the comparison.
        **selection: split, variable, lead_time and threshold, see `Scorecard.add`.

    Returns:
        One row per model that has any of the metrics: models, baselines, then oracles. The best value of each
        metric is marked where two or more compete; an oracle does not.
    """
    scores: dict[str, dict[str, Mapping[str, Any]]] = {}
    for model in card.models:
        found = {metric: card.find(model, metric, **selection) for metric in metrics}
        scores[model] = {metric: row for metric, row in found.items() if row is not None}

    best = {}
    for metric in metrics:
        competing = [
            _badness(rows[metric])
            for model, rows in scores.items()
            if metric in rows and card.role(model) != "oracle" and not math.isnan(rows[metric]["value"])
        ]
        best[metric] = min(competing) if len(competing) > 1 else math.nan
    return [
        Row(
            model,
            card.role(model),
            {
                metric: Cell(
                    row["value"],
                    row["lower"],
                    row["upper"],
                    row["units"],
                    best=card.role(model) != "oracle" and _badness(row) == best[metric],
                )
                for metric, row in rows.items()
            },
        )
        for model, rows in scores.items()
        if rows
    ]


def units_of(rows: Sequence[Row], metric: str) -> str:
    """Units of a metric in a comparison, "1" if nobody has it."""
    return next((row.cells[metric].units for row in rows if metric in row.cells), "1")


def print_table(rows: Sequence[Row], metrics: Sequence[str], *, title: str) -> Table:
    """A comparison for the terminal: the best value in bold, the interval on a line of its own.

    Args:
        rows: what `compare` gave.
        metrics: columns.
        title: heading.

    Returns:
        A table to print with a rich console.
    """
    table = Table(
        title=title,
        title_justify="left",
        caption="value [95 % interval]",
        caption_justify="left",
        # rich breaks a title that is wider than its table
        min_width=len(title),
    )
    table.add_column("model")
    for metric in metrics:
        table.add_column(Text(column_title(metric, units_of(rows, metric))), justify="right")
    for role, group in groupby(rows, key=lambda row: row.role):
        for row in group:
            label = Text(row.model, style="bold" if role == "model" else "")
            label.append(f"\n{role}", style="not bold dim")
            table.add_row(label, *(_text(row.cells.get(metric)) for metric in metrics))
        table.add_section()
    return table


def _text(cell: Cell | None) -> Text:
    if cell is None:
        return Text("")
    value, interval = cell.format()
    text = Text(value, style="bold" if cell.best else "")
    if interval:
        text.append(f"\n{interval}", style="not bold dim")
    return text


def _badness(row: Mapping[str, Any]) -> float:
    return metric_info(row["metric"]).badness(row["value"], row["lower"], row["upper"])[0]
