"""Scores of a file of generated ensembles: ``python -m downscaling.corrdiff.score_file FILE -o scores.nc``.

The file has the groups that ``predict`` writes, and those of the reference's generation have the same: ``prediction``
over (ensemble, time, y, x) and, where there is one, ``truth`` over (time, y, x). Without a truth there are spectra and
distributions only. Members that lack values are left out of their case, and a line says which.

``scores.nc`` has ``rmse``, ``crps``, ``std_dev`` and ``mae`` of every case, as the reference's score program writes
them: CRPS of the members as the whole distribution, standard deviations over K. Its groups ``spectra`` and
``distributions`` are of all cases. ``scores.csv`` and ``scores.json`` beside it have the scores over all cases, with
95 % intervals over blocks of half a day, and both kinds of the CRPS.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table
from rich.text import Text

from ai4sim.atomic import atomic_path
from ai4sim.errors import InputError
from ai4sim.verification import (
    bias,
    block_bootstrap,
    cell_band,
    crps,
    density,
    ensemble_statistics,
    histogram_statistics,
    line_lsd,
    line_spectrum,
    line_statistics,
    mae,
    merge_sums,
    outlier_ratio,
    plain_crps,
    quantile,
    quantile_ratio,
    rank_chi2,
    rank_statistics,
    rmse,
    spread,
    std_dev,
)
from downscaling.corrdiff.product_file import CASE, PREDICTION, Ensemble, ProductFile
from downscaling.corrdiff.samples import GRID, MEMBER

METRICS: Final[Mapping[str, Any]] = {"rmse": rmse, "crps": plain_crps, "std_dev": std_dev, "mae": mae}
"""Those of every case."""
POOLED: Final[Mapping[str, Any]] = {
    "mae": mae,
    "rmse": rmse,
    "bias": bias,
    "crps_fair": crps,
    "crps_plain": plain_crps,
    "std_dev": std_dev,
}
TAIL: Final = (0.99, 0.999, 0.9999)
BINS: Final = 4000
REDUCED: Final = ("sample", *GRID)
COLUMNS: Final = ("variable", "metric", "value", "lower", "upper", "units", "cases", "members")


def ssr(statistics: xr.Dataset) -> xr.DataArray:
    """Spread-skill ratio of ensembles whose sizes may differ: each variance counts (K + 1) / K times."""
    error = statistics["squared_error"]
    ratio = (statistics["calibrated_variance"] / error.where(error > 0)) ** 0.5
    return ratio.rename("ssr").assign_attrs(units="1")


@dataclass(eq=False)
class Scanned:
    """What a first reading tells.

    Args:
        complete: (case, member) whether a member has all values.
        bounds: variable to its smallest and largest value.
    """

    complete: NDArray[np.bool_]
    bounds: dict[str, tuple[float, float]] = field(default_factory=dict)


def scan(file: ProductFile) -> Scanned:
    """Find incomplete members and the range of all values."""
    found = Scanned(np.zeros((file.n_cases, file.n_members), np.bool_))
    for cases in track(file.parts, "reading", transient=True):
        fields = file.read(cases)
        complete = np.all([np.isfinite(own.members).all((-2, -1)) for own in fields.values()], axis=0)
        found.complete[cases] = complete
        for name, own in fields.items():
            for values in (own.members[complete], own.truth):
                if values is not None and np.isfinite(values).any():
                    low, high = found.bounds.get(name, (np.inf, -np.inf))
                    found.bounds[name] = min(low, float(np.nanmin(values))), max(high, float(np.nanmax(values)))
    return found


class FileScores:
    """Sums over the cases of a file.

    Args:
        file: whose.
        scanned: see `scan`.
        spacing_km: distance of points, NaN where it is not known.
        band: wavelengths, km, at which spectra are compared; all by default.
    """

    def __init__(
        self, file: ProductFile, scanned: Scanned, spacing_km: float, band: tuple[float, float] | None = None
    ) -> None:
        self.file, self.band = file, band
        self.length_units = "km" if np.isfinite(spacing_km) else "points"
        self._spacing = spacing_km if np.isfinite(spacing_km) else 1.0
        self._complete, self._blocks = scanned.complete, file.blocks()
        self._whole = int(scanned.complete.sum(1).max())
        self._edges = {name: _edges(*bounds) for name, bounds in scanned.bounds.items()}
        self.units: dict[str, str] = {}
        self._cases: dict[str, list[xr.Dataset]] = {}
        self._sums: dict[str, dict[str, xr.Dataset]] = {}

    def add(self, cases: slice) -> None:
        """Add some cases; those without a complete member are left out."""
        fields, complete = self.file.read(cases), self._complete[cases]
        numbers = np.arange(cases.start, cases.stop)
        for kept in np.unique(complete, axis=0):
            chosen = (complete == kept).all(1)
            for name, own in fields.items() if kept.any() else ():
                truth = None if own.truth is None else own.truth[chosen]
                self._add(numbers[chosen], name, Ensemble(own.members[chosen][:, kept], truth, own.units))

    def _add(self, numbers: NDArray[np.int64], name: str, own: Ensemble) -> None:
        self.units[name], size = own.units, own.members.shape[1]
        sample = {"sample": numbers}
        attrs = {"units": own.units} if own.units else {}
        members = xr.DataArray(own.members, sample, ("sample", MEMBER, *GRID), name, attrs)
        truth = None if own.truth is None else xr.DataArray(own.truth, sample, ("sample", *GRID), name, attrs)
        if truth is not None:
            sums = ensemble_statistics(members, truth, reduce=GRID, skipna=True).drop_vars("members")
            sums["calibrated_variance"] = sums["variance"] * ((size + 1) / size)
            self._cases.setdefault(name, []).append(sums)
            if size == self._whole and size > 1:
                self._note("ranks", name, rank_statistics(members, truth, reduce=REDUCED, skipna=True))
        histogram = histogram_statistics(members, truth, edges=self._edges[name], reduce=REDUCED, skipna=True)
        self._note("histogram", name, histogram)
        if min(self.file.shape) < 4:
            return
        square = self.file.shape[0] == self.file.shape[1]
        for along, other in (("x", "y"), ("y", "x")) if square else (("x", "y"),):
            options: dict[str, Any] = {"spacing": self._spacing, "spacing_units": self.length_units, "along": along}
            options |= {"reduce": ["sample", other], "skipna": True}
            self._note("spectra", name, line_statistics(members, truth, **options))
            mean = members.mean(MEMBER, keep_attrs=True)
            self._note("mean_spectra", name, line_statistics(mean, None, **options))

    def _note(self, kind: str, name: str, sums: xr.Dataset) -> None:
        own = self._sums.setdefault(kind, {})
        own[name] = merge_sums(own[name], sums) if name in own else sums

    def _of_cases(self, name: str) -> xr.Dataset | None:
        """Sums of every case that has a truth, in order."""
        parts = self._cases.get(name)
        if parts is None:
            return None
        return xr.concat(parts, "sample", combine_attrs="override").sortby("sample")

    def table(self) -> pd.DataFrame:
        """Scores over all cases."""
        rows: list[dict[str, Any]] = []
        for name in self.units:
            known = {"variable": name, "members": self._whole}
            cases = self._of_cases(name)
            if cases is not None:
                rows += self._intervals(known, cases.drop_vars(["variance", "calibrated_variance"]), POOLED)
                several = cases.isel(sample=np.isfinite(cases["variance"].values))
                if several.sizes["sample"]:
                    rows += self._intervals(known, several, {"spread": spread, "ssr": ssr})
            ranks = self._sums.get("ranks", {}).get(name)
            if ranks is not None:
                for metric, score in {"outlier_ratio": outlier_ratio, "rank_chi2": rank_chi2}.items():
                    rows.append({**known, "metric": metric, "value": float(score(ranks)), "units": "1"})
            rows += self._of_shapes(known)
        frame = pd.DataFrame(rows, columns=list(COLUMNS))
        frame["cases"] = int(self._complete.any(1).sum())
        return frame

    def _intervals(
        self, known: Mapping[str, Any], cases: xr.Dataset, metrics: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Scores with intervals over blocks of cases."""
        blocks = xr.DataArray(self._blocks[cases["sample"].values], cases["sample"].coords, ("sample",), "block")
        sums = cases.groupby(blocks).sum().assign_attrs(cases.attrs)
        rows = []
        for metric, function in metrics.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a single block has no interval
                value, lower, upper = block_bootstrap(sums, function, seed=0)
            bounds = {"value": float(value), "lower": float(lower), "upper": float(upper)}
            rows.append({**known, "metric": metric, **bounds, "units": str(value.attrs.get("units", ""))})
        return rows

    def _of_shapes(self, known: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Of spectra and distributions."""
        name = str(known["variable"])
        histogram, spectra = self._sums["histogram"][name], self._sums.get("spectra", {}).get(name)
        rows: list[dict[str, Any]] = []
        if spectra is not None and "target_power" in spectra:
            rows.append({**known, "metric": "lsd", "value": float(line_lsd(spectra, band=self.band)), "units": "dB"})
        true = "target_count" in histogram
        for level in TAIL:
            label = f"p{100 * level:g}"
            for side in ("prediction", "target") if true else ("prediction",):
                value = float(quantile(histogram, of=side, q=level))
                title = f"{label}_{'truth' if side == 'target' else side}"
                rows.append({**known, "metric": title, "value": value, "units": self.units[name]})
            if true:
                value = float(quantile_ratio(histogram, q=level))
                rows.append({**known, "metric": f"{label}_quantile_ratio", "value": value, "units": "1"})
        return rows

    def dataset(self) -> xr.DataTree:
        """Scores of every case, spectra and distributions."""
        root = xr.Dataset(attrs={"n_ensemble": self.file.n_members, "source": self.file.path.name})
        about = {"long_name": "crps: of the members as the whole distribution; std_dev: over K; rmse, mae: of the mean"}
        for name in self.file.names:
            cases = self._of_cases(name)
            if cases is None:
                continue
            values = np.full((len(METRICS), self.file.n_cases), np.nan)
            values[:, cases["sample"].values] = [function(cases).values for function in METRICS.values()]
            root[name] = (("metric", CASE), values, {"units": self.units[name] or "1", **about})
        if root.data_vars:
            root = root.assign_coords(metric=("metric", list(METRICS)))
            if CASE in self.file.root:
                root = root.assign_coords({CASE: self.file.root[CASE].variable.load()})
        groups = {"/": root, "/distributions": self._distributions()}
        if "spectra" in self._sums:
            groups["/spectra"] = self._spectra()
        return xr.DataTree.from_dict(groups)

    def _spectra(self) -> xr.Dataset:
        found = xr.Dataset()
        for name, sums in self._sums["spectra"].items():
            parts = {"members": line_spectrum(sums, of="prediction")}
            parts["mean"] = line_spectrum(self._sums["mean_spectra"][name], of="prediction")
            if "target_power" in sums:
                parts["truth"] = line_spectrum(sums, of="target")
            found[name] = _side_by_side(parts)
        return found

    def _distributions(self) -> xr.Dataset:
        found = xr.Dataset()
        for name, sums in self._sums["histogram"].items():
            parts = {"members": density(sums, of="prediction")}
            if "target_count" in sums:
                parts["truth"] = density(sums, of="target")
            ends = {end: f"{name}_{end}" for end in ("bin_lower", "bin_upper")}
            found = found.assign({name: _side_by_side(parts).rename({"bin": f"{name}_bin", **ends})})
        return found


def _side_by_side(parts: Mapping[str, xr.DataArray]) -> xr.DataArray:
    """Of several sources; those that a variable lacks are NaN in a file with other variables that have them."""
    names = ["members", "mean", "truth"] if "mean" in parts else ["members", "truth"]
    first = next(iter(parts.values()))
    return xr.concat(
        [parts.get(name, xr.full_like(first, np.nan)) for name in names],
        xr.DataArray(names, dims="source", name="source"),
    ).assign_attrs(first.attrs)


def _edges(low: float, high: float) -> NDArray[np.float64]:
    """Of bins that hold all values."""
    margin = 1e-6 * max(high - low, abs(high), 1e-6)
    return np.linspace(low, high + margin, BINS + 1)


def score_file(
    path: Path,
    output: Path,
    *,
    group: str = PREDICTION,
    spacing_km: float | None = None,
    coarse_km: float | None = None,
    console: Console | None = None,
) -> pd.DataFrame:
    """Score a file, and write ``output`` and, beside it, ``.csv`` and ``.json``.

    Args:
        path: NetCDF file or Zarr store.
        output: NetCDF file.
        group: whose fields are scored.
        spacing_km: distance of points; by default what the file says.
        coarse_km: that of the coarse input, below twice of which spectra are compared; by default what the file says.
        console: where to say what is left out.

    Returns:
        Scores over all cases.

    Raises:
        InputError: the file is not what it should be, or holds no complete member.
    """
    console = console or Console(width=120)
    if output.suffix != ".nc":
        raise InputError(f"{output} must end in .nc")
    with ProductFile(path, group) as file:
        if file.n_members == 1:
            say = "one member: its CRPS is the absolute error, and it has no spread"
            console.print(say, soft_wrap=True, highlight=False)
        scanned = scan(file)
        _say_what_is_left_out(file, scanned, console)
        spacing = file.spacing_km() if spacing_km is None else spacing_km
        scores = FileScores(file, scanned, spacing, _band(file, spacing, coarse_km))
        for cases in track(file.parts, "scoring", transient=True):
            scores.add(cases)
        table, tree = scores.table(), scores.dataset()
    known = {"file": path.name, "group": group, "spacing_km": spacing if np.isfinite(spacing) else None}
    rows = [{k: None if isinstance(v, float) and np.isnan(v) else v for k, v in row.items()} for row in _plain(table)]
    with atomic_path(output.with_suffix(".csv")) as partial:
        table.to_csv(partial, index=False, na_rep="")
    with atomic_path(output.with_suffix(".json")) as partial:
        partial.write_text(json.dumps({**known, "scores": rows}, indent=1, ensure_ascii=False) + "\n")
    with atomic_path(output) as partial:
        tree.to_netcdf(partial, engine="h5netcdf")
    return table


def _plain(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _band(file: ProductFile, spacing: float, coarse_km: float | None) -> tuple[float, float] | None:
    """From two fine points to two coarse ones; None where the latter are not known, or not coarser."""
    length = spacing if np.isfinite(spacing) else 1.0
    factor = coarse_km / length if coarse_km else float(file.root.attrs.get("factor", 1))
    return cell_band(length, factor) if factor > 1 else None


def _say_what_is_left_out(file: ProductFile, scanned: Scanned, console: Console) -> None:
    """A line for each case that lacks members, and for variables without a truth."""
    if not scanned.complete.any():
        raise InputError(f"{file.path}: no member of {file.group!r} is complete in any case")
    lines = []
    for case in np.flatnonzero(~scanned.complete.all(1)):
        lacking = np.flatnonzero(~scanned.complete[case])
        numbers = ", ".join(map(str, lacking))
        whole = "all members are" if len(lacking) == file.n_members else f"member {numbers} is"
        whole = whole if len(lacking) in (1, file.n_members) else f"members {numbers} are"
        lines.append(f"{file.label(int(case))}: {whole} incomplete: left out")
    if file.without_truth:
        lines.append(f"no truth of {', '.join(file.without_truth)}: spectra and distributions only")
    for line in lines:
        console.print(line, style="yellow", soft_wrap=True, highlight=False, markup=False)


def score_table(frame: pd.DataFrame) -> Table:
    """Scores over all cases, a row for each variable."""
    metrics = ("mae", "rmse", "crps_fair", "crps_plain", "spread", "ssr", "lsd", "p99.99_prediction", "p99.99_truth")
    titles = ("MAE", "RMSE", "CRPS fair", "plain", "spread", "SSR", "LSD, dB", "99.99 %", "of truth")
    table = Table(
        title=f"{int(frame['cases'].max())} cases, {int(frame['members'].max())} members", title_justify="left"
    )
    table.add_column("variable")
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for name, own in frame.groupby("variable", sort=False):
        values = dict(zip(own["metric"], own["value"], strict=True))
        units = next((u for m, u in zip(own["metric"], own["units"], strict=True) if m == "p99.99_prediction"), "")
        cells = [_number(values.get(metric)) for metric in metrics]
        table.add_row(Text(f"{name} [{units}]" if units else str(name)), *cells)
    return table


def _number(value: float | None) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:.4g}"


def main(words: Sequence[str] | None = None) -> None:
    """Score a file and print its scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="NetCDF file or Zarr store of ensembles")
    parser.add_argument("-o", "--output", type=Path, help="file to write [scores.nc beside the ensembles]")
    parser.add_argument("--group", default=PREDICTION, help="whose fields are scored [%(default)s]")
    parser.add_argument("--spacing-km", type=float, help="distance of points [the file's]")
    parser.add_argument("--coarse-km", type=float, help="distance of the coarse input's points [the file's]")
    options = parser.parse_args(words)
    console = Console(width=None if sys.stdout.isatty() else 120)
    output = options.output or options.file.with_name(f"{options.file.stem}.scores.nc")
    try:
        frame = score_file(
            options.file,
            output,
            group=options.group,
            spacing_km=options.spacing_km,
            coarse_km=options.coarse_km,
            console=console,
        )
    except InputError as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        raise SystemExit(2) from error
    console.print(score_table(frame))
    console.print(f"scores: {output}", soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    main()
