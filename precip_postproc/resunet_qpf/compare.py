"""Several runs side by side: ``python -m precip_postproc.resunet_qpf.compare RUN RUN ...``.

Such as one network for all lead times and networks for one lead time each: lead times that a run does not have stay
empty.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ai4sim.errors import InputError
from ai4sim.verification import Scorecard
from precip_postproc.resunet_qpf import config


def open_runs(folders: Sequence[Path]) -> dict[str, Scorecard]:
    """Scorecards of runs by name.

    Args:
        folders: of the runs.

    Raises:
        InputError: a run has no scorecard, or two were tested on other points for the same lead time.
    """
    cards = {}
    for folder in folders:
        card = Scorecard.load(folder)
        cards[card.experiment] = card
    counts: dict[float, tuple[str, float]] = {}
    for name, card in cards.items():
        for lead in leads_of(card):
            row = score(card, config.THRESHOLDS[0], lead)
            if row is None:
                continue
            known = counts.setdefault(lead, (name, row["n"]))
            if known[1] != row["n"]:
                raise InputError(
                    f"{name} was tested on {row['n']:.0f} points at +{lead:g} h, {known[0]} on {known[1]:.0f}: test "
                    "both on the same days, or their scores cannot be compared"
                )
    return cards


def model_of(card: Scorecard) -> str:
    """Name of the network that was trained."""
    return next(name for name in card.models if card.role(name) == "model")


def leads_of(card: Scorecard) -> list[float]:
    """Lead times, h, increasing."""
    leads: list[float] = sorted(set(card.frame["lead_time"].dropna()))
    return leads


def score(card: Scorecard, threshold: float, lead: float, metric: str = "brier") -> Any:
    """A row of the network, None where there is none."""
    return card.find(model_of(card), metric, threshold=threshold, lead_time=lead)


def brier_table(cards: dict[str, Scorecard], threshold: float) -> Table:
    """Brier scores of the runs' networks by lead time, with the skill against the tuned smoothing; the best in bold.

    Args:
        cards: by name of the run.
        threshold: mm.
    """
    leads = sorted({lead for card in cards.values() for lead in leads_of(card)})
    table = Table(title=f"Brier score at {threshold:g} mm", title_justify="left", min_width=60)
    table.caption, table.caption_justify = "below: % skill against the tuned smoothing [95 % interval]", "left"
    table.add_column("run")
    for lead in leads:
        table.add_column(f"+{lead:g} h", justify="right")
    best = {
        lead: min(row["value"] for card in cards.values() if (row := score(card, threshold, lead)) is not None)
        for lead in leads
    }
    for name, card in cards.items():
        cells = [Text(f"{name}\n{model_of(card)}")]
        for lead in leads:
            row, skill = score(card, threshold, lead), score(card, threshold, lead, "brier_skill_smoothed")
            if row is None:
                cells.append(Text(""))
                continue
            cell = Text(f"{row['value']:.5f}", style="bold" if row["value"] == best[lead] else "")
            if skill is not None:
                numbers = (100 * skill[bound] for bound in ("value", "lower", "upper"))
                cell.append("\n{:.1f} [{:.1f}, {:.1f}]".format(*numbers), style="not bold dim")
            cells.append(cell)
        table.add_row(*cells)
    return table


def main(words: Sequence[str] | None = None) -> None:
    """Print the runs side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders such as experiments/demo/version_0")
    parser.add_argument("--thresholds", nargs="+", type=float, default=list(config.THRESHOLDS[:4]), help="mm")
    options = parser.parse_args(words)
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        cards = open_runs(options.runs)
        for threshold in options.thresholds:
            if all(score(card, threshold, lead) is None for card in cards.values() for lead in leads_of(card)):
                raise InputError(f"no run has scores at {threshold:g} mm; choose of {config.THRESHOLDS}")
            console.print(brier_table(cards, threshold))
    except InputError as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
