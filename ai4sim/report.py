"""The gallery: one static HTML page from all experiments' scorecards and figures.

``python -m ai4sim.report --output report/index.html [roots...]``

The page is a single file: styles and figures are inside, there are no scripts, and it opens from disk without
a server or a network. Only the newest version of an experiment is shown with figures; of earlier ones, the
scores.
"""

import argparse
import json
import os
import sys
from base64 import b64encode
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

from ai4sim.atomic import atomic_path
from ai4sim.errors import InputError
from ai4sim.gallery import ROOT, Experiment, find_experiments
from ai4sim.verification.comparison import Cell, Row, compare, units_of
from ai4sim.verification.metrics import MINUS, format_units, metric_info, metric_title
from ai4sim.verification.scorecard import Scorecard, Selection

_ARROWS = {"lower": ("↓", "lower is better"), "higher": ("↑", "higher is better")}
# scores of the model against the best baseline in the overview
_HEADLINES = 2


def build_report(experiments_roots: Path | str | Sequence[Path | str], output: Path | str) -> Path:
    """Write the page.

    Args:
        experiments_roots: one or more folders below which to look for experiments, see `find_experiments`.
        output: file to write.

    Returns:
        Path of the page.

    Raises:
        InputError: a root is no folder, or there is no experiment below any of them.
    """
    roots = [experiments_roots] if isinstance(experiments_roots, Path | str) else list(experiments_roots)
    runs = find_experiments([Path(root) for root in roots])
    if not runs:
        places = ", ".join(str(root) for root in roots)
        raise InputError(f"no experiments below {places}: train something first, for example with `nox -s train`")
    with atomic_path(output) as partial:
        partial.write_text(_page(runs), encoding="utf-8")
    return Path(output)


def main(args: Sequence[str] | None = None) -> int:
    """Command line; status 2 and one line where the input is at fault."""
    parser = argparse.ArgumentParser(prog="python -m ai4sim.report", description=__doc__.split("\n")[0])
    parser.add_argument("roots", nargs="*", type=Path, help="folders that hold experiments; default: all of them")
    parser.add_argument("--output", type=Path, default=Path("report/index.html"), help="page to write")
    options = parser.parse_args(args)
    moved = os.environ.get("AI4SIM_EXPERIMENTS")
    try:
        page = build_report(options.roots or [Path(moved).expanduser() if moved else ROOT], options.output)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"report: {page.resolve()}")
    return 0


def _page(runs: Sequence[Experiment]) -> str:
    by_use_case = {name: list(group) for name, group in groupby(runs, key=lambda run: run.use_case)}
    sections = "".join(_use_case(name, group) for name, group in by_use_case.items())
    done = sum(run.status == "done" for run in runs)
    summary = (
        f"{len(runs)} runs of {len(by_use_case)} use case{'s' * (len(by_use_case) > 1)}, {done} of them scored."
        " Scores are of held-out data, with 95 % bootstrap intervals over independent blocks; every product is scored"
        " on the same samples. The best of each column is bold; an oracle is what is attainable and does not compete."
    )
    now = datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>AI4Sim experiments</title>
<style>
{files("ai4sim").joinpath("report.css").read_text(encoding="utf-8")}</style>
</head>
<body>
<header class="page"><h1>AI4Sim experiments</h1><p class="lead">{_text(summary)}</p></header>
<main>
{_overview(runs)}
{sections}</main>
<footer>Made {now} by <code>python -m ai4sim.report</code></footer>
</body>
</html>
"""


def _overview(runs: Sequence[Experiment]) -> str:
    rows = []
    for run in runs:
        model, scores = _headline(run.scorecard) if run.scorecard else ("", "")
        link = f'<a href="#{_anchor(run)}">{_text(run.name)}/version_{run.version}</a>'
        rows.append(
            f"<tr><td>{_text(run.use_case)}</td><td>{link}</td><td>{_status(run)}</td><td>{_text(model)}</td>"
            f"<td>{scores}</td></tr>"
        )
    head = "".join(
        f"<th>{name}</th>" for name in ("use case", "experiment", "state", "model", "scores, and the best baseline's")
    )
    return _scroll(f'<table class="overview"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>')


def _headline(card: Scorecard) -> tuple[str, str]:
    """Name and first scores of the model, beside those of the best baseline."""
    selections = _selections(card)
    if not selections:
        return "", ""
    metrics = _metrics(card, selections[0])[:_HEADLINES]
    rows = compare(card, metrics, **selections[0])
    model = next((row for row in rows if row.role == "model"), rows[0])
    lines = []
    for metric in metrics:
        own = model.cells.get(metric)
        if own is None:
            continue
        line = f"{_text(metric_title(metric))} <b>{_number(own)}</b>{_units(own.units)}"
        rivals = [row for row in rows if row.role == "baseline" and row is not model and metric in row.cells]
        rivals = [row for row in rivals if row.cells[metric].value == row.cells[metric].value]
        if rivals:
            info = metric_info(metric)
            best = min(rivals, key=lambda row: info.badness(row.cells[metric].value, 0.0, 0.0)[0])
            line += f'<span class="interval">{_text(best.model)} {_number(best.cells[metric])}</span>'
        lines.append(f"<div>{line}</div>")
    return model.model, f'<div class="headlines">{"".join(lines)}</div>'


def _use_case(name: str, runs: Iterable[Experiment]) -> str:
    cards = []
    for _, versions in groupby(runs, key=lambda run: run.name):
        newest, *earlier = versions
        cards.append(_card(newest, with_figures=True))
        if earlier:
            inside = "".join(_card(run, with_figures=False) for run in earlier)
            cards.append(
                f'<details class="earlier"><summary>{len(earlier)} earlier version{"s" * (len(earlier) > 1)} of'
                f" {_text(newest.name)}</summary>{inside}</details>"
            )
    return f"<section><h2>{_text(name)}</h2>\n{''.join(cards)}</section>\n"


def _card(run: Experiment, *, with_figures: bool) -> str:
    parts = [
        f'<article id="{_anchor(run)}"><header><h3>{_text(run.name)}'
        f' <span class="muted">version {run.version}</span></h3>{_status(run)}</header>{_facts(run)}'
    ]
    if run.scorecard is not None:
        parts.append(_scores(run.scorecard))
    elif run.damage:
        parts.append(f'<p class="note damaged">The scorecard cannot be read: {_text(run.damage)}</p>')
    else:
        parts.append('<p class="note unfinished">No scorecard: the run is unfinished, or was not tested.</p>')
    if with_figures and run.figures:
        parts.append("<h4>Figures</h4>" + _figures(run))
    for path in run.documents:
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".json":
            text = _indented(text)
        parts.append(f"<details><summary>{_text(path.name)}</summary><pre>{_text(text)}</pre></details>")
    return "".join(parts) + "</article>\n"


def _facts(run: Experiment) -> str:
    record = run.provenance
    git = _dict(record.get("git"))
    commit = str(git.get("commit", ""))[:10]
    facts = [
        str(record.get("time", "")).replace("T", " ")[:16],
        f"commit {commit}" + (" with uncommitted changes" if git.get("uncommitted") else "") if commit else "",
        str(_dict(record.get("machine")).get("device", "")),
        f"seed {record['seed']}" if record.get("seed") is not None else "",
    ]
    return f'<ul class="facts">{"".join(f"<li>{_text(fact)}</li>" for fact in facts if fact)}</ul>'


def _scores(card: Scorecard) -> str:
    parts = []
    for number, selection in enumerate(_selections(card)):
        metrics = _metrics(card, selection)
        rows = compare(card, metrics, **selection)
        holders = {metric: sum(metric in row.cells for row in rows) for metric in metrics}
        skills = [metric for metric in metrics if "_skill_" in metric]
        single = [metric for metric in metrics if holders[metric] == 1 and len(rows) > 1 and metric not in skills]
        common = [metric for metric in metrics if metric not in (*skills, *single)]
        tables = [_table(rows, common)] if common else []
        if single:
            tables.append(_list(rows, single))
        if skills:
            tables.append(f"<details><summary>skill against baselines</summary>{_table(rows, skills)}</details>")
        body = "".join(tables)
        title = _text(_title(selection))
        # what the reader came for stands open; the other sets, lead times and thresholds are a click away
        parts.append(
            f"<h4>{title}</h4>{body}" if number == 0 else f"<details><summary>{title}</summary>{body}</details>"
        )
    return "".join(parts)


def _table(rows: Sequence[Row], metrics: Sequence[str]) -> str:
    head = ["<th></th>"]
    for metric in metrics:
        info = metric_info(metric)
        arrow, hint = _ARROWS.get(info.better, (f"→ {info.perfect:g}", f"closer to {info.perfect:g} is better"))
        units = format_units(units_of(rows, metric))
        unit = "" if units in ("", "1") else f'<span class="unit">{_text(units)}</span>'
        head.append(f'<th scope="col" title="{_text(hint)}">{_text(metric_title(metric))}&nbsp;{arrow}{unit}</th>')
    body = []
    for row in rows:
        if not any(metric in row.cells for metric in metrics):
            continue
        cells = "".join(f"<td>{_cell(row.cells.get(metric))}</td>" for metric in metrics)
        name = f'<th scope="row">{_text(row.model)}<span class="role">{row.role}</span></th>'
        body.append(f'<tr class="{row.role}">{name}{cells}</tr>')
    table = f"<thead><tr>{''.join(head)}</tr></thead><tbody>{''.join(body)}</tbody>"
    return _scroll(f'<table class="scores">{table}</table>')


def _list(rows: Sequence[Row], metrics: Sequence[str]) -> str:
    """Scores that only one of the models has."""
    items = []
    for metric in metrics:
        row = next(row for row in rows if metric in row.cells)
        cell = row.cells[metric]
        interval = cell.format()[1].replace("-", MINUS)
        items.append(
            f"<dt>{_text(metric_title(metric))} of {_text(row.model)}</dt>"
            f"<dd>{_number(cell)}{_units(cell.units)} {_text(interval)}</dd>"
        )
    return f"<dl>{''.join(items)}</dl>"


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return ""
    value, interval = (_text(text.replace("-", MINUS)) for text in cell.format())
    value = f"<b>{value}</b>" if cell.best else value
    return f'{value}<span class="interval">{interval}</span>' if interval else value


def _figures(run: Experiment) -> str:
    items = []
    for path in run.figures:
        caption = _text(path.stem.replace("_", " "))
        data = b64encode(path.read_bytes()).decode("ascii")
        items.append(
            f'<figure><label><input type="checkbox" aria-label="enlarge {caption}">'
            f'<img alt="{caption}" src="data:image/{path.suffix[1:]};base64,{data}"></label>'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    return f'<div class="figures">{"".join(items)}</div>'


def _selections(card: Scorecard) -> list[Selection]:
    """Splits, variables, lead times and thresholds in the order of the table."""
    columns = card.frame[["split", "variable", "lead_time", "threshold"]].drop_duplicates()
    return [
        Selection(
            split=row["split"],
            variable=row["variable"],
            lead_time=None if row["lead_time"] != row["lead_time"] else row["lead_time"],
            threshold=None if row["threshold"] != row["threshold"] else row["threshold"],
        )
        for row in columns.to_dict(orient="records")
    ]


def _metrics(card: Scorecard, selection: Selection) -> list[str]:
    names = dict.fromkeys(card.frame["metric"])
    return [name for name in names if any(card.find(model, name, **selection) for model in card.models)]


def _title(selection: Selection) -> str:
    variable = selection["variable"]
    parts = [f"set {selection['split']}", "all variables" if variable == "all" else variable]
    parts += [f"lead time {selection['lead_time']:g} h"] if selection["lead_time"] is not None else []
    parts += [f"threshold {selection['threshold']:g}"] if selection["threshold"] is not None else []
    return ", ".join(parts)


def _status(run: Experiment) -> str:
    return f'<span class="chip {run.status}">{run.status}</span>'


def _anchor(run: Experiment) -> str:
    return _text(f"{run.use_case}/{run.name}/version_{run.version}".replace(" ", "-"))


def _scroll(table: str) -> str:
    return f'<div class="scroll">{table}</div>'


def _number(cell: Cell) -> str:
    return _text(cell.format()[0].replace("-", MINUS))


def _units(units: str) -> str:
    return "" if units in ("", "1") else f" {_text(format_units(units))}"


def _indented(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(text: str) -> str:
    return escape(text, quote=True)


if __name__ == "__main__":
    sys.exit(main())
