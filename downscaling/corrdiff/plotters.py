"""Figures of downscaled ensembles; labelled arrays in, figures out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from ai4sim.ensemble_figures import (
    plot_distributions,
    plot_line_spectra,
    plot_rank_histograms,
    plot_spread_skill,
)
from ai4sim.figures import plot_scorecard_bars
from ai4sim.style import DENSITY, DIVERGING, TRUTH_COLOR, format_tick, new_figure, save, style
from ai4sim.verification import (
    Scorecard,
    cell_band,
    distribution_curve,
    line_spectrum,
    rank_curve,
    spread_skill_curve,
)
from ai4sim.verification.metrics import MINUS, format_units
from downscaling.corrdiff.map_figures import plot_error_maps, plot_pair, title_of
from downscaling.corrdiff.samples import ANALOGS, BICUBIC, REGRESSION, TRUTH, WIND, TestSamples
from downscaling.corrdiff.sums import SPEED, TEMPERATURE, Statistics, Sums

MAPS: Final = 3
"""Pairs that are shown on maps."""
MASSES: Final = (0.5, 0.9, 0.99)
"""Shares of the truth within the contours of a joint distribution."""


@dataclass(frozen=True, eq=False)
class Results:
    """What the figures of a run are made of.

    Args:
        scorecard: all scores.
        sums: of all products.
        samples: the test pairs.
        main: name of the product that is the run's.
    """

    scorecard: Scorecard
    sums: Sums
    samples: TestSamples
    main: str


def plot_all(folder: Path, results: Results) -> None:
    """All figures of a run.

    Args:
        folder: where to.
        results: of the evaluation.
    """
    scorecard, sums, samples = results.scorecard, results.sums, results.samples
    for name in sums.names:
        metrics = ["crps", "lsd", "ssr"] if samples.members else ["crps", "rmse", "lsd"]
        figure = plot_scorecard_bars(scorecard, metrics, variable=name, title=f"Scores: {title_of(name)}")
        save(figure, folder / f"scores_{name}.png")
    save(plot_spectra(sums, samples, results.main), folder / "spectra.png")
    if flow := sums.flow():
        title = "Power spectra of the 10 m wind along rows and columns"
        save(_plot_spectra(flow, samples, results.main, title, slope=None), folder / "wind_spectra.png")
    save(plot_tails(sums, results.main), folder / "distributions.png")
    if samples.members:
        shown = (results.main, ANALOGS)
        ranks = _panels(sums.of("ranks"), shown, lambda part: rank_curve(part, seed=0))
        save(plot_rank_histograms(ranks, title="Ranks of the truth among the members"), folder / "ranks.png")
        curves = _panels(sums.of("spread_skill"), shown, lambda part: spread_skill_curve(part, seed=0))
        figure = plot_spread_skill(curves, title="Error of the ensemble mean against the spread")
        save(figure, folder / "spread_skill.png")
        if len(samples.channels) > 1:
            save(plot_correlations(samples, results.main), folder / "correlations.png")
    if joint := sums.of("joint"):
        save(plot_joint(joint["all"], results.main), folder / "temperature_wind.png")
    save(plot_error_maps(sums, results.main, samples), folder / "error_maps.png")
    part = samples.first(MAPS)
    for place, pair in enumerate(part.pair):
        save(plot_pair(part, place, samples, results.main), folder / f"maps_{pair}.png")


def _panels(statistics: Mapping[str, Mapping[str, xr.Dataset]], shown: Sequence[str], curve: Any) -> dict[str, Any]:
    return {
        title_of(name): {product: curve(products[product]) for product in shown if product in products}
        for name, products in statistics.items()
    }


def plot_spectra(sums: Sums, samples: TestSamples, main: str) -> Figure:
    """Spectra of all variables: those of single members, and of the regression, which is smooth."""
    spectra = {name: products for name, products in sums.spectra().items() if name != WIND}
    return _plot_spectra(spectra, samples, main, "Power spectra along rows and columns")


def _plot_spectra(
    spectra: Statistics, samples: TestSamples, main: str, title: str, slope: float | None = -5.0 / 3.0
) -> Figure:
    panels: dict[str, dict[str, xr.DataArray]] = {}
    for name, products in spectra.items():
        any_product = next(iter(products.values()))
        panels[title_of(name)] = {TRUTH: line_spectrum(any_product.sum("block", keep_attrs=True), of="target")} | {
            product: line_spectrum(products[product].sum("block", keep_attrs=True), of="prediction")
            for product in dict.fromkeys((main, REGRESSION, BICUBIC))
            if product in products
        }
    band = cell_band(samples.spacing_or_one, samples.factor) if samples.factor > 1 else None
    return plot_line_spectra(panels, truth=TRUTH, band=band, slope=slope, title=title)


def plot_tails(sums: Sums, main: str) -> Figure:
    """Densities of all variables, with quantiles."""
    panels: dict[str, dict[str, xr.Dataset]] = {}
    for name, products in sums.of("histogram").items():
        any_product = next(iter(products.values()))
        panels[title_of(name)] = {TRUTH: distribution_curve(any_product, of="target")} | {
            product: distribution_curve(products[product], of="prediction")
            for product in dict.fromkeys((main, REGRESSION))
            if product in products
        }
    return plot_distributions(panels, truth=TRUTH, title="Distributions, with the 99, 99.9 and 99.99 % quantiles")


def plot_correlations(samples: TestSamples, main: str) -> Figure:
    """Correlations of the variables' small scales in the truth, in members, and in the analogs."""
    part = samples.first(16)
    names = [name for name in part.truth if name != WIND]
    sources = {TRUTH: part.truth} | {name: part.products[name] for name in (main, ANALOGS) if name in part.products}
    with style():
        figure = new_figure(2.4 * len(sources) + 1.0, 2.9, title="Correlation of variables within the domain")
        axes = figure.subplots(1, len(sources), squeeze=False)[0]
        for ax, (source, fields) in zip(axes, sources.items(), strict=True):
            matrix = _correlations([fields[name] for name in names])
            image = ax.imshow(matrix, cmap=DIVERGING, vmin=-1, vmax=1)
            ax.set_xticks(range(len(names)), names)
            ax.set_yticks(range(len(names)), names if ax is axes[0] else [])
            ax.grid(visible=False)
            ax.tick_params(length=0)
            ax.set_title(source)
            for (row, column), value in np.ndenumerate(matrix):
                color = "white" if abs(value) > 0.6 else "black"
                ax.text(
                    column, row, f"{value:.2f}".replace("-", MINUS), ha="center", va="center", color=color, fontsize=7.5
                )
        bar = figure.colorbar(image, ax=axes, label="correlation", aspect=16, ticks=[-1, -0.5, 0, 0.5, 1])
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda tick, _: format_tick(tick)))
    return figure


def plot_joint(joint: Mapping[str, xr.Dataset], main: str) -> Figure:
    """How temperature and wind speed occur together, in the truth and in products, with contours of the truth in all.

    Args:
        joint: product to counts over (temperature, speed).
        main: name of the run's product.
    """
    shown = {
        name: joint[name]["prediction_count"] for name in dict.fromkeys((main, REGRESSION, ANALOGS)) if name in joint
    }
    true = next(iter(joint.values()))["target_count"]
    counts = {TRUTH: true, **shown}
    densities = {name: count.values / max(float(count.sum()), 1.0) / _cell(count) for name, count in counts.items()}
    levels = [_level_of(densities[TRUTH], mass) for mass in MASSES]
    speed, temperature = true[SPEED].values, true[TEMPERATURE].values
    top = max(float(values.max()) for values in densities.values())
    # the least that a single value of the truth is
    floor = 1.0 / max(float(true.sum()), 1.0) / _cell(true)
    seen = np.stack(list(densities.values())).max(axis=0) > 0
    units = [format_units(str(true[dim].attrs.get("units", ""))) for dim in (SPEED, TEMPERATURE)]
    with style():
        figure = new_figure(2.6 * len(counts) + 1.1, 3.6, title="2 m temperature and 10 m wind speed together")
        axes = figure.subplots(1, len(counts), squeeze=False, sharex=True, sharey=True)[0]
        norm = LogNorm(floor, max(top, 2 * floor))
        mesh: Any = None
        for ax, (name, values) in zip(axes, densities.items(), strict=True):
            mesh = ax.pcolormesh(speed, temperature, np.ma.masked_equal(values, 0), cmap=DENSITY, norm=norm)
            mesh.set_rasterized(True)
            unique = sorted(set(levels))
            ax.contour(speed, temperature, densities[TRUTH], unique, colors=TRUTH_COLOR, linewidths=0.9)
            ax.set(title=name, xlabel=f"10 m wind speed [{units[0]}]")
            ax.set_xlim(*_ends(speed, seen.any(axis=0)))
            ax.set_ylim(*_ends(temperature, seen.any(axis=1)))
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_major_locator(MaxNLocator(5, steps=(1, 2, 2.5, 5, 10)))
        axes[0].set_ylabel(f"2 m temperature [{units[1]}]")
        figure.colorbar(mesh, ax=list(axes), label=f"density [({units[1]} {units[0]})⁻¹]", pad=0.02, aspect=20)
        inside = ", ".join(f"{100 * mass:g}" for mass in MASSES)
        line = Line2D([], [], color=TRUTH_COLOR, linewidth=0.9, label=f"{inside} % of the truth")
        figure.legend(handles=[line], loc="outside lower center")
    return figure


def _cell(count: xr.DataArray) -> float:
    """Area of a bin."""
    return float(np.prod([count[dim].values[1] - count[dim].values[0] for dim in (TEMPERATURE, SPEED)]))


def _level_of(density: NDArray[np.floating], mass: float) -> float:
    """Density above which a share of all values is."""
    ordered = np.sort(density.ravel())[::-1]
    total = ordered.cumsum()
    return float(ordered[int(np.searchsorted(total, mass * total[-1]))])


def _ends(middles: NDArray[np.floating], known: NDArray[np.bool_]) -> tuple[float, float]:
    """Range of the bins that are in use."""
    half = 0.5 * (middles[1] - middles[0])
    used = middles[known]
    return float(used[0] - half), float(used[-1] + half)


def _correlations(fields: Sequence[xr.DataArray]) -> NDArray[np.float64]:
    """Of anomalies from the mean of each field, over all samples and members."""
    anomalies = [np.asarray(part - part.mean(("y", "x"))).ravel() for part in fields]
    return np.corrcoef(np.stack(anomalies))
