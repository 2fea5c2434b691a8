"""Several runs side by side: ``python -m weather_forecast.lam.compare RUN RUN ...``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ai4sim.errors import InputError
from ai4sim.experiment import run_name

LEADS = (3.0, 6.0, 12.0, 24.0, 36.0, 48.0)


def open_runs(folders: Sequence[Path]) -> dict[str, xr.Dataset]:
    """Scores of runs by name.

    Args:
        folders: of the runs, with ``scores.nc``.

    Raises:
        InputError: a run has no scores, or was tested on other initial times or lead times than the first.
    """
    runs: dict[str, xr.Dataset] = {}
    for folder in folders:
        file = folder / "scores.nc"
        if not file.is_file():
            raise InputError(f"{folder} has no scores.nc: give folders of runs that were tested")
        with xr.open_dataset(file, engine="h5netcdf") as scores:
            runs[run_name(folder)] = scores.load()
    first = next(iter(runs.values()))
    for name, scores in runs.items():
        for key, what in (("initial_time", "initial times"), ("lead_time", "lead times")):
            if not np.array_equal(scores[key].values, first[key].values):
                raise InputError(
                    f"{name} was tested on other {what} than {next(iter(runs))}: their scores cannot be compared"
                )
    return runs


def skill_table(runs: dict[str, xr.Dataset], baseline: str) -> Table:
    """Mean skill of the runs' models against a baseline by lead time, with 95 % intervals; the best in bold."""
    first = next(iter(runs.values()))
    if baseline not in first["baseline"].values:
        raise InputError(f"baseline {baseline!r} is unknown; there are {', '.join(map(str, first['baseline'].values))}")
    leads = [lead for lead in first["lead_time"].values if lead in LEADS] or first["lead_time"].values[:6].tolist()
    table = Table(title=f"1 - mean of RMSE / RMSE of {baseline}", title_justify="left")
    table.add_column("run")
    table.add_column("model")
    for lead in leads:
        table.add_column(f"+{lead:g} h", justify="right")
    values = {
        name: scores["mean_rmse_skill"].sel(product=scores.attrs["model"], baseline=baseline, lead_time=leads)
        for name, scores in runs.items()
    }
    best = np.max([part.sel(bound="value").values for part in values.values()], axis=0)
    for name, part in values.items():
        cells = []
        for column, lead in enumerate(leads):
            value, lower, upper = (
                float(part.sel(lead_time=lead, bound=bound)) for bound in ("value", "lower", "upper")
            )
            text = Text(f"{value:.3f}", style="bold" if value == best[column] else "")
            text.append(f"\n[{lower:.3f}, {upper:.3f}]", style="not bold dim")
            cells.append(text)
        table.add_row(name, runs[name].attrs["model"], *cells)
    return table


def rmse_table(runs: dict[str, xr.Dataset], lead: float) -> Table:
    """RMSE of every parameter at a lead time; the best in bold."""
    first = next(iter(runs.values()))
    if lead not in first["lead_time"].values:
        raise InputError(f"lead time {lead:g} h was not tested; there are {first['lead_time'].values.tolist()}")
    table = Table(title=f"RMSE at +{lead:g} h", title_justify="left")
    table.add_column("parameter")
    for name in runs:
        table.add_column(name, justify="right")
    for parameter in first["parameter"].values:
        parts = [
            scores.sel(metric="rmse", product=scores.attrs["model"], lead_time=lead).reindex(parameter=[parameter])
            for scores in runs.values()
        ]
        numbers = [float(part["value"].item()) for part in parts]
        cells = []
        for part, number in zip(parts, numbers, strict=True):
            text = Text(f"{number:.4g}", style="bold" if number == np.nanmin(numbers) else "")
            text.append(f" [{part['lower'].item():.4g}, {part['upper'].item():.4g}]", style="not bold dim")
            cells.append(text)
        table.add_row(str(parameter), *cells)
    return table


def main(args: Sequence[str] | None = None) -> int:
    """Print the tables.

    Returns:
        Status of the program: 0, or 2 after a user's mistake.
    """
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m weather_forecast.lam.compare")
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs, such as experiments/demo/version_0")
    parser.add_argument("--baseline", default="persistence", help="what skill 0 is [persistence]")
    parser.add_argument("--lead_time", type=float, default=24.0, help="of the second table, h [24]")
    given = parser.parse_args(args)
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        runs = open_runs(given.runs)
        tables = [skill_table(runs, given.baseline), rmse_table(runs, given.lead_time)]
    except InputError as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        return 2
    for table in tables:
        console.print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
