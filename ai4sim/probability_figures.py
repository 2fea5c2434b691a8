"""Figures of probability forecasts: reliability, ROC, performance, PIT and fractions skill score, in the house style.

As in `ai4sim.figures`, all take labelled arrays and give back a figure that belongs to no display. Each has a panel per
threshold and a line per model, in the order in which the models are given; the first one is the model that is judged.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from ai4sim.panels import legend_below, line_look, line_marks, outer_labels, panel_layout
from ai4sim.style import COLORS, TRUTH_COLOR, format_tick, new_figure, style
from ai4sim.verification.bootstrap import Interval
from ai4sim.verification.metrics import format_units
from ai4sim.verification.probabilistic import (
    BIN,
    BIN_LOWER,
    BIN_UPPER,
    CUT,
)
from ai4sim.verification.spatial import THRESHOLD, WINDOW

MODEL: Final = "model"

Curves = Mapping[str, xr.Dataset] | xr.Dataset

_GUIDE: Final = "#7F7F7F"
_SHADE: Final = "#EFEFEF"
_UNIT_TICKS: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_CSI_LEVELS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_BIASES: Final = (0.25, 0.5, 1.0, 2.0, 4.0)


def plot_reliability(curves: Curves, *, title: str | None = None) -> Figure:
    """Reliability diagrams with consistency bars of the first model, and below each how often it says what.

    Shaded is where a bin adds skill against the base rate: nearer to the diagonal than to the base rate (Hsu and Murphy
    1986, Int. J. Forecasting 2, 285-293). The histograms have a logarithmic scale and also show the bins that have too
    few values for a point.

    Args:
        curves: what `reliability_curve` gave, by model or with a dimension `model`, over (threshold, bin).
        title: of the figure.

    Returns:
        The figure.

    Raises:
        ValueError: no curves, they have other dimensions, or not the same thresholds.
    """
    models = _models(curves, BIN, ("forecast", "observed", "count", "lower", "upper", "base_rate"))
    first = next(iter(models.values()))
    panels = first.sizes[THRESHOLD]
    columns, rows, size = panel_layout(panels)
    with style():
        figure = new_figure(size * columns + 0.55, (size + 0.9) * rows + (1.15 if title else 0.9), title=title)
        grid = figure.add_gridspec(2 * rows, columns, height_ratios=[4.0, 1.0] * rows)
        for place in range(panels):
            row, column = divmod(place, columns)
            ax = figure.add_subplot(grid[2 * row, column])
            strip = figure.add_subplot(grid[2 * row + 1, column], sharex=ax)
            _skill_region(ax, float(first["base_rate"][place]))
            bar = first.isel({THRESHOLD: place})
            # behind the lines, about the diagonal
            ax.vlines(bar["forecast"], bar["lower"], bar["upper"], color=COLORS[0], alpha=0.35, linewidth=6.0, zorder=1)
            for index, curve in enumerate(models.values()):
                line = curve.isel({THRESHOLD: place})
                ax.plot(line["forecast"], line["observed"], **line_look(index), **line_marks(index))
            _usage(strip, [curve.isel({THRESHOLD: place}) for curve in models.values()])
            _unit_axes(ax, x=None, y="observed frequency" if column == 0 else None)
            ax.set_title(_threshold_title(first, place))
            ax.tick_params(labelbottom=False)
            strip.set_xlabel("forecast probability")
            if column == 0:
                strip.set_ylabel("values")
        share = f"{float(first.attrs['level']):.0%}".replace("%", " %") if "level" in first.attrs else ""
        guides = [
            Line2D([], [], color=COLORS[0], alpha=0.35, linewidth=6.0, label=f"{share} consistency bars".strip()),
            Line2D([], [], color=TRUTH_COLOR, linewidth=0.9, label="reliable"),
            Line2D([], [], color=_GUIDE, linewidth=0.9, linestyle=":", label="base rate"),
            Patch(facecolor=_SHADE, edgecolor=_GUIDE, linewidth=0.5, label="skill against the base rate"),
        ]
        legend_below(figure, models, guides, marks=True)
    return figure


def plot_corp(curves: Curves, *, title: str | None = None) -> Figure:
    """Reliability diagrams by isotonic regression, with miscalibration and discrimination in the legend of each panel.

    Args:
        curves: what `corp_curve` gave, by model or with a dimension `model`, over (threshold, bin).
        title: of the figure.

    Returns:
        The figure.

    Raises:
        ValueError: see `plot_reliability`.
    """
    models = _models(curves, BIN, ("forecast", "recalibrated", "mcb", "dsc"))
    with style():
        figure, axes = _panels(models, title)
        for place, ax in enumerate(axes):
            ax.plot([0.0, 1.0], [0.0, 1.0], color=TRUTH_COLOR, linewidth=0.9, zorder=1)
            handles = []
            for index, curve in enumerate(models.values()):
                own = curve.isel({THRESHOLD: place})
                known = own["forecast"].notnull().values
                look = line_look(index)
                ax.plot(own["forecast"].values[known], own["recalibrated"].values[known], **look)
                label = f"{float(own['mcb']):.2g}, {float(own['dsc']):.2g}"
                handles.append(Line2D([], [], **look, label=label))
            ax.legend(handles=handles, loc="upper left", title="MCB, DSC", title_fontsize=8, fontsize=8)
        legend_below(figure, models, [Line2D([], [], color=TRUTH_COLOR, linewidth=0.9, label="reliable")])
        outer_labels(axes, "forecast probability", "recalibrated probability")
    return figure


def plot_roc(curves: Curves, *, title: str | None = None) -> Figure:
    """ROC curves, with the area under each in the legend of its panel.

    Args:
        curves: what `roc_curve` gave, by model or with a dimension `model`, over (threshold, cut).
        title: of the figure.

    Returns:
        The figure.

    Raises:
        ValueError: see `plot_reliability`.
    """
    models = _models(curves, CUT, ("pod", "pofd"))
    with style():
        figure, axes = _panels(models, title)
        for place, ax in enumerate(axes):
            ax.plot([0.0, 1.0], [0.0, 1.0], color=_GUIDE, linewidth=0.9, linestyle=":", zorder=1)
            handles = []
            for index, curve in enumerate(models.values()):
                x, y = (curve[name].isel({THRESHOLD: place}).values for name in ("pofd", "pod"))
                area = float(np.trapezoid(y[::-1], x[::-1]))
                look = line_look(index)
                ax.plot(x, y, **look)
                handles.append(Line2D([], [], **look, label=f"{area:.3f}" if math.isfinite(area) else "–"))
            ax.legend(handles=handles, loc="lower right", title="area", title_fontsize=8.5)
        legend_below(
            figure, models, [Line2D([], [], color=_GUIDE, linewidth=0.9, linestyle=":", label="no discrimination")]
        )
        outer_labels(axes, "probability of false detection", "probability of detection")
    return figure


def plot_performance(
    curves: Curves, *, marks: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9), title: str | None = None
) -> Figure:
    """Performance diagrams (Roebber 2009): detection against success ratio by cut, over isolines of CSI and bias.

    Args:
        curves: what `performance_curve` gave, by model or with a dimension `model`, over (threshold, cut).
        marks: cuts that are marked on each curve, the smallest one nearest to the upper left.
        title: of the figure.

    Returns:
        The figure.

    Raises:
        ValueError: see `plot_reliability`.
    """
    models = _models(curves, CUT, ("pod", "success_ratio"))
    first = next(iter(models.values()))
    with style():
        figure, axes = _panels(models, title)
        for place, ax in enumerate(axes):
            _performance_isolines(ax)
            # above the labels of the bias
            ax.set_title(_threshold_title(first, place), pad=13.0)
            for index, curve in enumerate(models.values()):
                line = curve.isel({THRESHOLD: place})
                ax.plot(line["success_ratio"], line["pod"], **line_look(index))
                at = line.sel({CUT: list(marks)}, method="nearest")
                ax.plot(
                    at["success_ratio"], at["pod"], **{**line_look(index), "linestyle": "none"}, **line_marks(index)
                )
        at_cuts = ", ".join(f"{mark:g}" for mark in marks)
        guides = [
            Line2D([], [], color=_GUIDE, linestyle="none", marker="o", markersize=4, label=f"warning from {at_cuts}"),
            Line2D([], [], color="#B0B0B0", linewidth=0.8, label="critical success index"),
            Line2D([], [], color=_GUIDE, linewidth=0.8, linestyle="--", label="frequency bias"),
        ]
        legend_below(figure, models, guides, marks=True)
        outer_labels(axes, "success ratio", "probability of detection")
    return figure


def plot_pit(histograms: Mapping[str, Interval], *, title: str | None = None) -> Figure:
    """PIT histograms with the intervals of their bars and the line of calibrated distributions.

    Args:
        histograms: ``block_bootstrap(pit_statistics(...), pit_density, ...)`` by model, over (bin,).
        title: of the figure.

    Returns:
        The figure.

    Raises:
        ValueError: no histograms, or they have other dimensions.
    """
    if not histograms:
        raise ValueError("nothing to plot: there are no histograms")
    for name, histogram in histograms.items():
        if histogram.value.dims != (BIN,) or BIN_LOWER not in histogram.value.coords:
            raise ValueError(
                f"histogram of {name!r} has the dimensions {histogram.value.dims} and coordinates"
                f" {list(histogram.value.coords)}: it needs the dimension {BIN!r} with its edges, of pit_statistics"
            )
    columns, rows, size = panel_layout(len(histograms))
    with style():
        figure = new_figure(size * columns + 0.55, 2.3 * rows + (0.95 if title else 0.7), title=title)
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for ax, (name, (value, lower, upper)) in zip(axes, histograms.items(), strict=False):
            left, right = value[BIN_LOWER].values, value[BIN_UPPER].values
            ax.bar(left, value, width=right - left, align="edge", color="#A9CDE3", edgecolor="white", linewidth=0.5)
            if bool(lower.notnull().any()):
                middle = 0.5 * (left + right)
                ax.vlines(middle, lower, upper, color=COLORS[0], linewidth=1.2)
            ax.axhline(1.0, color=TRUTH_COLOR, linewidth=0.9, linestyle="--")
            ax.set(xlim=(0.0, 1.0), title=name)
            ax.xaxis.set_major_locator(FixedLocator(_UNIT_TICKS))
            ax.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: format_tick(tick)))
            ax.grid(visible=False, axis="x")
        for ax in axes[len(histograms) :]:
            ax.remove()
        # one scale for all, from zero: bars are compared by their length
        axes[0].set_ylim(0.0, 1.05 * max(float(np.fmax(part.value, part.upper).max()) for part in histograms.values()))
        used = list(axes[: len(histograms)])
        for place, ax in enumerate(used):
            if place + columns >= len(used):
                ax.set_xlabel("probability integral transform")
                ax.tick_params(labelbottom=True)
            if place % columns == 0:
                ax.set_ylabel("density")
        guides = [
            Patch(facecolor="#A9CDE3", label="relative frequency over that of a uniform one"),
            Line2D([], [], color=COLORS[0], linewidth=1.2, label="interval over blocks"),
            Line2D([], [], color=TRUTH_COLOR, linewidth=0.9, linestyle="--", label="calibrated"),
        ]
        legend_below(figure, {}, guides)
    return figure


def plot_fss(
    scores: Mapping[str, Interval],
    *,
    base_rate: xr.DataArray,
    spacing: float,
    spacing_units: str = "km",
    title: str | None = None,
) -> Figure:
    """Fractions skill score against the length of the window, with the level from which a forecast is useful.

    A forecast is called useful from 0.5 + f0 / 2 on, half way between the score of a random forecast, the base rate f0,
    and that of a perfect one (Roberts and Lean 2008, MWR 136, 78-97, section 2d).

    Args:
        scores: ``block_bootstrap(statistics, fss, ...)`` by model, over (threshold, window).
        base_rate: f0 over (threshold,).
        spacing: distance of neighbouring points.
        spacing_units: of the spacing.
        title: of the figure.

    Returns:
        The figure; intervals are bands.

    Raises:
        ValueError: see `plot_reliability`; the base rate has other thresholds, or the spacing is not positive.
    """
    if not spacing > 0:
        raise ValueError(f"spacing={spacing}: the distance of neighbouring points is positive, in {spacing_units}")
    models = _models({name: xr.Dataset(score._asdict()) for name, score in scores.items()}, WINDOW, ("value",))
    first = next(iter(models.values()))
    rates = base_rate if THRESHOLD in base_rate.dims else base_rate.expand_dims(THRESHOLD)
    if rates.dims != (THRESHOLD,) or rates.size != first.sizes[THRESHOLD]:
        raise ValueError(f"base_rate has {dict(rates.sizes)}: give one for each of {first.sizes[THRESHOLD]} thresholds")
    length = first[WINDOW].values * spacing
    with style():
        figure, axes = _panels(models, title)
        for place, ax in enumerate(axes):
            useful = 0.5 + 0.5 * float(rates[place])
            ax.axhline(useful, color=TRUTH_COLOR, linewidth=0.9, linestyle="--", zorder=1)
            for index, curve in enumerate(models.values()):
                line = curve.isel({THRESHOLD: place})
                ax.plot(length, line["value"], **line_look(index), **line_marks(index))
                ax.fill_between(
                    length, line["lower"], line["upper"], color=line_look(index)["color"], alpha=0.18, linewidth=0
                )
            ax.set_xscale("log", base=2)
            ax.set_xlim(length.min() / 1.12, length.max() * 1.12)
            ax.xaxis.set_major_locator(FixedLocator(length.tolist()))
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_tick(value)))
            ax.xaxis.set_minor_locator(NullLocator())
        useful_line = Line2D(
            [], [], color=TRUTH_COLOR, linewidth=0.9, linestyle="--", label="useful: ½ + base rate / 2"
        )
        legend_below(figure, models, [useful_line], marks=True)
        outer_labels(axes, f"window length [{format_units(spacing_units)}]", "fractions skill score")
    return figure


def _models(curves: Curves, along: str, names: Sequence[str]) -> dict[str, xr.Dataset]:
    """The curves by model, over (threshold, along) and on the same thresholds."""
    if isinstance(curves, xr.Dataset):
        if MODEL not in curves.dims:
            raise ValueError(f"curves over {tuple(curves.sizes)}: give them by name, or with a dimension {MODEL!r}")
        curves = {str(name): curves.isel({MODEL: i}, drop=True) for i, name in enumerate(curves[MODEL].values)}
    if not curves:
        raise ValueError("nothing to plot: there are no curves")
    models = {
        name: curve if THRESHOLD in curve.dims else curve.expand_dims(THRESHOLD) for name, curve in curves.items()
    }
    first = next(iter(models.values()))
    for name, curve in models.items():
        missing = [part for part in names if part not in curve]
        if missing or set(curve.dims) != {THRESHOLD, along}:
            raise ValueError(
                f"curve of {name!r} has {list(curve.data_vars)} over {tuple(curve.sizes)}: it needs {list(names)} over"
                f" {(THRESHOLD, along)}; select one lead time or sum over them first"
            )
        if not np.array_equal(curve[THRESHOLD].values, first[THRESHOLD].values):
            raise ValueError(f"curve of {name!r} has other thresholds than that of {next(iter(models))!r}")
    return models


def _panels(models: Mapping[str, xr.Dataset], title: str | None) -> tuple[Figure, list[Axes]]:
    """A nearly square panel with both axes from 0 to 1 for each threshold."""
    first = next(iter(models.values()))
    panels = first.sizes[THRESHOLD]
    columns, rows, size = panel_layout(panels)
    figure = new_figure(size * columns + 0.55, size * rows + (1.2 if title else 0.95), title=title)
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for ax in axes[panels:]:
        ax.remove()
    for place, ax in enumerate(axes[:panels]):
        _unit_axes(ax, x=None, y=None)
        ax.set_title(_threshold_title(first, place))
    return figure, axes[:panels]


def _unit_axes(ax: Axes, *, x: str | None, y: str | None) -> None:
    ax.set(xlim=(0.0, 1.0), ylim=(0.0, 1.0))
    for axis, label in ((ax.xaxis, x), (ax.yaxis, y)):
        axis.set_major_locator(FixedLocator(_UNIT_TICKS))
        axis.set_major_formatter(FuncFormatter(lambda tick, _: format_tick(tick)))
        if label:
            axis.set_label_text(label)


def _threshold_title(curve: xr.Dataset, place: int) -> str:
    threshold = curve[THRESHOLD]
    units = format_units(str(threshold.attrs.get("units", "")))
    return f"≥ {float(threshold[place]):g} {units}".strip() if THRESHOLD in curve.coords else ""


def _skill_region(ax: Axes, rate: float) -> None:
    """Diagonal, base rate, and the region between them in which a bin adds skill."""
    p = np.array([0.0, 1.0])
    if math.isfinite(rate):
        no_skill = 0.5 * (p + rate)
        ax.fill_between([0.0, rate], [0.0, 0.0], [no_skill[0], rate], color=_SHADE, linewidth=0, zorder=0)
        ax.fill_between([rate, 1.0], [rate, no_skill[1]], [1.0, 1.0], color=_SHADE, linewidth=0, zorder=0)
        ax.axhline(rate, color=_GUIDE, linewidth=0.9, linestyle=":", zorder=1)
        ax.axvline(rate, color=_GUIDE, linewidth=0.9, linestyle=":", zorder=1)
    ax.plot(p, p, color=TRUTH_COLOR, linewidth=0.9, zorder=1)


def _usage(ax: Axes, curves: Sequence[xr.Dataset]) -> None:
    """How many values each bin has, on a logarithmic scale."""
    largest, smallest = 1.0, math.inf
    for index, curve in enumerate(curves):
        count = np.asarray(curve["count"].values, dtype=np.float64)
        edges = np.append(curve[BIN_LOWER].values, curve[BIN_UPPER].values[-1])
        color = line_look(index)["color"]
        if index == 0:
            ax.stairs(count, edges, fill=True, color=color, alpha=0.35)
        ax.stairs(count, edges, baseline=None, color=color, linestyle=line_look(index)["linestyle"], linewidth=1.2)
        if (count > 0).any():
            largest, smallest = max(largest, count.max()), min(smallest, count[count > 0].min())
    ax.set_yscale("log")
    low = max(1.0, min(smallest, largest / 10.0))
    ax.set_ylim(low / 2.0, largest * 2.0)
    decades = math.log10(largest / low)
    ax.yaxis.set_major_locator(LogLocator(10, numticks=3 if decades > 2 else 9))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_minor_locator(NullLocator())


def _performance_isolines(ax: Axes) -> None:
    """Lines of equal critical success index, labelled inside, and of equal frequency bias, labelled outside."""
    label: dict[str, Any] = {"fontsize": 6.5, "va": "center", "annotation_clip": False}
    axis: NDArray[np.float64] = np.linspace(0.005, 1.0, 200)
    ratio, detection = np.meshgrid(axis, axis)
    csi = 1.0 / (1.0 / ratio + 1.0 / detection - 1.0)
    ax.contour(ratio, detection, csi, levels=_CSI_LEVELS, colors="#B8B8B8", linewidths=0.8, zorder=1)
    box = {"boxstyle": "round,pad=0.08", "facecolor": "white", "edgecolor": "none"}
    for level in _CSI_LEVELS:
        at = (0.95, 1.0 / (1.0 / level - 1.0 / 0.95 + 1.0))
        ax.annotate(format_tick(level), at, ha="center", color="#8A8A8A", bbox=box, zorder=1.5, **label)
    for bias in _BIASES:
        end = (1.0 / bias, 1.0) if bias >= 1.0 else (1.0, bias)
        ax.plot([0.0, end[0]], [0.0, end[1]], color=_GUIDE, linewidth=0.8, linestyle="--", zorder=1)
        side: dict[str, Any] = {"xytext": (0, 5), "ha": "center"} if bias > 1.0 else {"xytext": (3, 0), "ha": "left"}
        ax.annotate(format_tick(bias), end, textcoords="offset points", color="#4D4D4D", **side, **label)
    ax.grid(visible=False)
