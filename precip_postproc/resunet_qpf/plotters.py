"""Figures of probability forecasts; labelled arrays in, figures out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from cmcrameri import cm
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ai4sim.figures import COLORS, DIVERGING, ROLE_COLORS, new_figure, plot_scorecard_bars, save, style
from ai4sim.probability_figures import plot_corp, plot_fss, plot_performance, plot_pit, plot_reliability, plot_roc
from ai4sim.verification import Interval, Scorecard, block_bootstrap
from ai4sim.verification.probabilistic import base_rate, performance_curve, roc_curve
from ai4sim.verification.spatial import fss
from precip_postproc.resunet_qpf import config
from precip_postproc.resunet_qpf.samples import CALIBRATED, IDEAL, Day, TestSamples

__all__ = ["Results", "plot_all", "product_figures", "save"]

CURVES: Final = 4
"""Thresholds that diagrams are drawn of."""
LEAST_EVENTS: Final = 1000
SKILL_LEVELS: Final = np.array([-0.5, -0.3, -0.2, -0.1, -0.05, 0, 0.05, 0.1, 0.2, 0.3, 0.5])
AMOUNT_LEVELS: Final = (0.25, 0.5, 1, 2.5, 5, 10, 15, 25, 35, 50)


def _colors(colormap: Any, number: int, *, first: str = "white") -> ListedColormap:
    """A map of some colours, of which the first is for what is hardly anything."""
    return ListedColormap([first, *colormap(np.linspace(0.08, 1, number - 1))])


PROBABILITY_COLORS: Final[Colormap] = _colors(cm.cmaps["batlow_r"], len(config.PROBABILITY_LEVELS) - 1)
AMOUNT_COLORS: Final[Colormap] = ListedColormap(cm.cmaps["devon_r"](np.linspace(0.15, 1, len(AMOUNT_LEVELS))))


@dataclass(frozen=True, eq=False)
class Results:
    """What the figures of a run are made of.

    Args:
        scorecard: all scores.
        probability: sums of every product (block, threshold, bin).
        reliability: diagrams of every product.
        corp: diagrams of every product by isotonic regression.
        fss: sums of the fractions skill score (block, threshold, window).
        pit: density of the probability integral transform, with intervals.
        skill_map: Brier skill (y, x).
        shown: labels of the days that are shown.
        samples: the test rows.
    """

    scorecard: Scorecard
    probability: Mapping[str, xr.Dataset]
    reliability: Mapping[str, xr.Dataset]
    corp: Mapping[str, xr.Dataset]
    fss: Mapping[str, xr.Dataset]
    pit: Mapping[str, Interval]
    skill_map: xr.DataArray
    shown: Sequence[int]
    samples: TestSamples

    def products(self, *names: str) -> list[str]:
        """The model, then those of the names that there are."""
        return [name for name in (self.samples.model, *names) if name in self.probability]

    def thresholds(self) -> list[float]:
        """Those with events enough for diagrams, the lowest ones."""
        sums = self.probability[self.samples.model]["observed"].sum(["block", "bin"])
        return [float(t) for t, n in zip(sums["threshold"].values, sums.values, strict=True) if n >= LEAST_EVENTS][
            :CURVES
        ]


def plot_all(folder: Path, results: Results) -> None:
    """Draw all figures of a run.

    Args:
        folder: where to.
        results: of the run.
    """
    thresholds = results.thresholds()
    card, model = results.scorecard, results.samples.model
    save(plot_scorecard_bars(card, ["rps", "crps"], title="Scores over all lead times"), folder / "scorecard.png")
    save(plot_skill_map(results.skill_map, results.samples), folder / "skill_map.png")
    save(plot_pit(results.pit, title="Calibration of the whole distribution"), folder / "pit.png")
    for number, label in enumerate(results.shown, start=1):
        save(plot_case(results.samples.day(label), results.samples), folder / f"case_{number}.png")
    if not thresholds:
        return
    save(plot_skill_by_lead(card, thresholds, results.products("quantile_mapped", IDEAL)), folder / "skill_by_lead.png")
    shown = results.products("smoothed", "quantile_mapped", IDEAL)
    diagrams = {name: results.reliability[name].sel(threshold=thresholds) for name in shown}
    save(plot_reliability(diagrams, title="Reliability, all lead times"), folder / "reliability.png")
    if model + CALIBRATED in results.reliability:
        both = {name: results.reliability[name].sel(threshold=thresholds) for name in (model, model + CALIBRATED)}
        save(plot_reliability(both, title="Reliability with and without calibration"), folder / "calibration.png")
    chosen = {name: results.probability[name].sel(threshold=thresholds) for name in shown}
    isotonic = {name: results.corp[name].sel(threshold=thresholds) for name in shown}
    save(plot_corp(isotonic, title="Reliability by isotonic regression, all lead times"), folder / "corp.png")
    roc = {name: roc_curve(part) for name, part in chosen.items()}
    save(plot_roc(roc, title="Discrimination, all lead times"), folder / "roc.png")
    performance = {name: performance_curve(part) for name, part in chosen.items()}
    save(plot_performance(performance, title="Performance, all lead times"), folder / "performance.png")
    by_scale = {name: block_bootstrap(part, fss, seed=0) for name, part in results.fss.items()}
    rates = base_rate(results.probability[model].sum("block", keep_attrs=True))
    rates = rates.sel(threshold=next(iter(by_scale.values())).value["threshold"].values)
    spacing = float(results.samples.grid["spacing_km"])
    title = "Fractions skill score, all lead times"
    save(plot_fss(by_scale, base_rate=rates, spacing=spacing, title=title), folder / "fss.png")


def plot_skill_by_lead(card: Scorecard, thresholds: Sequence[float], products: Sequence[str]) -> Figure:
    """Brier skill against the smoothed forecast over lead time: a panel per threshold, a line with 95 % per product.

    Args:
        card: the scorecard.
        thresholds: mm, the panels.
        products: the lines.
    """
    frame = card.frame[(card.frame["metric"] == "brier_skill_smoothed") & (card.frame["split"] == "test")]
    with style():
        title = "Brier skill against the tuned smoothing, 95 % intervals"
        figure = new_figure(2.5 * len(thresholds) + 0.5, 3.1, title=title)
        axes = figure.subplots(1, len(thresholds), sharex=True, sharey=True, squeeze=False)[0]
        for ax, threshold in zip(axes, thresholds, strict=True):
            for index, product in enumerate(products):
                own = frame[(frame["model"] == product) & (frame["threshold"] == threshold)]
                own = own.dropna(subset="lead_time").sort_values("lead_time")
                color = ROLE_COLORS["oracle"] if product == IDEAL else COLORS[index]
                ax.plot(own["lead_time"], own["value"], "o-", color=color, markersize=4, label=product)
                ax.fill_between(own["lead_time"], own["lower"], own["upper"], color=color, alpha=0.15, linewidth=0)
            ax.axhline(0, color="#4D4D4D", linewidth=0.8)
            ax.set_title(f"{threshold:g} mm")
            ax.set_xlabel("lead time [h]")
            ax.set_xticks(sorted(frame["lead_time"].dropna().unique()))
            ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes[0].set_ylabel("Brier skill")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(products))
    return figure


def plot_skill_map(skill: xr.DataArray, samples: TestSamples) -> Figure:
    """Where the model is better (blue) or worse (red) than the smoothed forecast.

    Args:
        skill: (y, x).
        samples: for the places.
    """
    with style():
        height, width = skill.shape
        figure = new_figure(6.0, 4.3 * height / width + 1.0, title=f"Brier skill at {samples.thresholds[0]:g} mm")
        ax = figure.subplots()
        norm = BoundaryNorm(SKILL_LEVELS, DIVERGING.N, extend="both")
        image = _map(ax, skill.values, samples.grid, DIVERGING.reversed(), norm)
        bar = figure.colorbar(image, ax=ax, extend="both", label=f"{skill.attrs['long_name']}", aspect=28)
        bar.set_ticks(list(SKILL_LEVELS), labels=[f"{100 * level:+.0f} %" for level in SKILL_LEVELS])
        ax.set(xlabel="x [km]", ylabel="y [km]")
    return figure


def plot_case(day: Day, samples: TestSamples, threshold: float = 1.0) -> Figure:
    """One run as a forecaster sees it: the raw forecast and the analysis, and everybody's probability, by lead time.

    Args:
        day: of the run; its first initial time is shown.
        samples: for the places.
        threshold: mm, the nearest of those there are.
    """
    first = day.observed.isel(sample=0)
    threshold = float(first_of(day)["threshold"].sel(threshold=threshold, method="nearest"))
    shown = [name for name in ("smoothed", samples.model, IDEAL) if name in day.probabilities]
    leads = first["lead_time"].values
    height, width = first.shape[-2:]
    rows = ["raw forecast", "analysis", *shown]
    with style():
        init = str(day.inits[0].astype("datetime64[h]")).replace("T", " ")
        panel = 2.15
        figure = new_figure(
            panel * len(leads) + 1.3, panel * height / width * len(rows) + 1.0,
            title=f"Run of {init} UTC: hourly precipitation, and probability of {threshold:g} mm or more",
        )  # fmt: skip
        axes = figure.subplots(len(rows), len(leads), sharex=True, sharey=True, squeeze=False)
        amount_norm = BoundaryNorm(AMOUNT_LEVELS, AMOUNT_COLORS.N, extend="max")
        probability_norm = BoundaryNorm(config.PROBABILITY_LEVELS, PROBABILITY_COLORS.N)
        for column, lead in enumerate(leads):
            axes[0, column].set_title(f"+{lead:g} h")
            for row, values in enumerate((day.forecast.isel(sample=0), first)):
                field = values.isel(lead_time=column).values
                dry = np.where(field < AMOUNT_LEVELS[0] - config.GUARD, np.nan, field)
                amount = _map(axes[row, column], dry, samples.grid, AMOUNT_COLORS, amount_norm, unknown=np.isnan(field))
            for row, name in enumerate(shown, start=2):
                field = day.probabilities[name].isel(sample=0, lead_time=column).sel(threshold=threshold).values
                image = _map(axes[row, column], field, samples.grid, PROBABILITY_COLORS, probability_norm)
        for row, name in enumerate(rows):
            axes[row, 0].set_ylabel(f"{name}\ny [km]")
        for ax in axes[-1]:
            ax.set_xlabel("x [km]")
        bar = figure.colorbar(amount, ax=axes[:2], label="hourly precipitation [mm]", extend="max", aspect=22, pad=0.01)
        bar.set_ticks(list(AMOUNT_LEVELS), labels=[f"{level:g}" for level in AMOUNT_LEVELS])
        _probability_bar(figure, image, axes[2:], aspect=34)
    return figure


def first_of(day: Day) -> xr.DataArray:
    """Probabilities of the first product of a day."""
    return next(iter(day.probabilities.values()))


def product_figures(product: xr.Dataset, base: Path) -> Iterator[tuple[Path, Figure]]:
    """Maps of a cycle's product: one figure per lead time.

    Args:
        product: what :func:`~precip_postproc.resunet_qpf.product.make_product` gave.
        base: path of the figures without lead time and suffix.

    Yields:
        Path and figure.
    """
    for place, lead in enumerate(product["lead_time"].values):
        yield base.with_name(f"{base.name}_{int(lead):03}h.png"), plot_product(product.isel(lead_time=place))


def plot_product(product: xr.Dataset) -> Figure:
    """The maps of one lead time: probabilities of all thresholds over the smoothed forecast's, and amounts.

    Args:
        product: of one lead time.
    """
    thresholds = [
        t for t in product["threshold"].values if float(product["probability"].sel(threshold=t).max()) >= 0.02
    ]
    thresholds = thresholds[:4] or product["threshold"].values[:1].tolist()
    height, width = product["precipitation_forecast"].shape
    described = {"shape": [height, width], "spacing_km": product.attrs["grid_spacing_km"]}
    with style():
        init, valid = (
            str(product[name].values.astype("datetime64[h]")).replace("T", " ")
            for name in ("forecast_reference_time", "valid_time")
        )
        figure = new_figure(
            2.3 * (len(thresholds) + 1) + 1.9, 2.3 * height / width * 2 + 1.1,
            title=f"Hourly precipitation until {valid} UTC, run of {init} UTC (+{float(product['lead_time']):g} h)",
        )  # fmt: skip
        axes = figure.subplots(2, len(thresholds) + 1, sharex=True, sharey=True, squeeze=False)
        amount_norm = BoundaryNorm(AMOUNT_LEVELS, AMOUNT_COLORS.N, extend="max")
        probability_norm = BoundaryNorm(config.PROBABILITY_LEVELS, PROBABILITY_COLORS.N)
        for row, (name, title) in enumerate(
            (("precipitation_forecast", "raw forecast"), ("precipitation_mean", "mean of the distribution"))
        ):
            field = product[name].values
            dry = np.where(field < AMOUNT_LEVELS[0] - config.GUARD, np.nan, field)
            amount = _map(axes[row, 0], dry, described, AMOUNT_COLORS, amount_norm, unknown=np.isnan(field))
            axes[row, 0].set_title(title)
        for column, threshold in enumerate(thresholds, start=1):
            for row, (name, who) in enumerate((("smoothed_probability", "smoothed"), ("probability", "network"))):
                field = product[name].sel(threshold=threshold).values
                image = _map(axes[row, column], field, described, PROBABILITY_COLORS, probability_norm)
                axes[row, column].set_title(f"P(≥ {threshold:g} mm), {who}")
        for ax in axes[:, 0]:
            ax.set_ylabel("y [km]")
        for ax in axes[-1]:
            ax.set_xlabel("x [km]")
        bar = figure.colorbar(
            amount, ax=axes[:, 0], label="hourly precipitation [mm]", extend="max", location="left", aspect=26
        )
        bar.set_ticks(list(AMOUNT_LEVELS), labels=[f"{level:g}" for level in AMOUNT_LEVELS])
        _probability_bar(figure, image, axes[:, 1:], aspect=26)
    return figure


def _probability_bar(figure: Figure, image: Any, axes: Any, *, aspect: float) -> None:
    bar = figure.colorbar(image, ax=axes, label="probability", aspect=aspect, pad=0.01, spacing="uniform")
    levels = config.PROBABILITY_LEVELS
    bar.set_ticks(list(levels), labels=[f"{100 * level:g} %" for level in levels])


def _map(ax: Axes, values: Any, grid: Mapping[str, Any], colors: Colormap, norm: Any, unknown: Any = None) -> Any:
    """A field over distances in the plane of the grid, km."""
    spacing = float(grid["spacing_km"])
    rows, columns = values.shape
    extent = (0.0, columns * spacing, 0.0, rows * spacing)
    ax.set_facecolor("white")
    if unknown is not None and unknown.any():
        grey = np.where(unknown, 1.0, np.nan)
        ax.imshow(grey, extent=extent, origin="lower", cmap=ListedColormap(["#D0D0D0"]), interpolation="nearest")
    image = ax.imshow(values, extent=extent, origin="lower", cmap=colors, norm=norm, interpolation="nearest")
    ax.grid(visible=False)
    ax.spines[["top", "right"]].set_visible(True)
    return image
