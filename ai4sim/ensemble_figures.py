"""Figures of ensembles and of fine-scale fields: ranks, spread and skill, spectra, and distributions.

All take what is drawn as panels, by title, of curves, by the name of the model, and give back a figure that belongs to
no display. A model has the same look in all panels, by the order in which the names first appear; the first one is the
model that is judged.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from ai4sim.panels import legend_below, line_look, line_marks, outer_labels, panel_layout
from ai4sim.style import TRUTH_COLOR, format_tick, new_figure, style
from ai4sim.verification.distribution import QUANTILE
from ai4sim.verification.metrics import format_units
from ai4sim.verification.probabilistic import BIN, BIN_LOWER, BIN_UPPER
from ai4sim.verification.ranks import RANK
from ai4sim.verification.spectral import WAVELENGTH

Panels = Mapping[str, Mapping[str, xr.Dataset]]

_GUIDE: Final = "#7F7F7F"
_BAND: Final = "#E3E3E3"
_STEPS: Final = (1, 2, 2.5, 5, 10)
_RATIO_TICKS: Final = (0.1, 0.3, 1.0, 3.0, 10.0)
_QUANTILE_MARKERS: Final = ("o", "^", "s", "D", "v")
# Inches of a panel with its labels.
_HEIGHT: Final = 2.5
# Decades of density below the highest one that are shown, and of power beyond the target's range.
_DENSITY_DECADES: Final = 8.0
_POWER_MARGIN: Final = 1.5


def plot_rank_histograms(panels: Panels, *, title: str | None = None) -> Figure:
    """Rank histograms as steps, with the band in which a flat one would lie for the first model.

    Args:
        panels: what `rank_curve` gave, over (rank,), by title and model. Models may have different numbers of members.
        title: of the figure.

    Returns:
        The figure.

    Raises:
        ValueError: nothing to plot, or other variables or dimensions.
    """
    models = _models(panels, {"frequency": (RANK,), "lower": (RANK,), "upper": (RANK,)})
    with style():
        figure, axes = _axes(panels, title, sharey=True)
        # not the room that a flat histogram's noise would fill
        largest = 1.25
        for ax, curves in zip(axes, panels.values(), strict=True):
            first = next(iter(curves.values()))
            edges = _rank_edges(first)
            ax.stairs(first["upper"], edges, baseline=first["lower"].values, fill=True, color=_BAND, zorder=1)
            ax.axhline(1.0, color=TRUTH_COLOR, linewidth=0.9, linestyle="--", zorder=1.5)
            for name, curve in curves.items():
                look = line_look(models.index(name))
                ax.stairs(curve["frequency"], _rank_edges(curve), baseline=None, **look)
                largest = max(largest, float(curve["frequency"].max()), float(curve["upper"].max()))
            _rank_axis(ax, curves)
        axes[0].set_ylim(0.0, 1.05 * largest)
        outer_labels(axes, "rank of the truth among the members", "relative frequency (flat: 1)")
        level = next(iter(next(iter(panels.values())).values())).attrs.get("level")
        share = "" if level is None else f"{float(level):.0%} ".replace("%", " %")
        guides = [
            Patch(facecolor=_BAND, label=f"{share}band of a flat histogram, {models[0]}"),
            Line2D([], [], color=TRUTH_COLOR, linewidth=0.9, linestyle="--", label="flat"),
        ]
        legend_below(figure, models, guides)
    return figure


def plot_spread_skill(panels: Panels, *, title: str | None = None) -> Figure:
    """Error of the ensemble mean against the spread in bins of the spread, with the line on which both are equal.

    Args:
        panels: what `spread_skill_curve` gave, over (bin,), by title and model; the unit is the attribute `units`.
        title: of the figure.

    Returns:
        The figure.

    Raises:
        ValueError: nothing to plot, or other variables or dimensions.
    """
    models = _models(panels, {"spread": (BIN,), "rmse": (BIN,), "lower": (BIN,), "upper": (BIN,)})
    with style():
        figure, axes = _axes(panels, title, square=True)
        for ax, curves in zip(axes, panels.values(), strict=True):
            largest = 0.0
            for name, curve in curves.items():
                index = models.index(name)
                known = curve.where(curve["rmse"].notnull(), drop=True)
                x = known["spread"].values
                ax.vlines(x, known["lower"], known["upper"], color=line_look(index)["color"], alpha=0.5, linewidth=1.2)
                ax.plot(x, known["rmse"].values, **line_look(index), **line_marks(index))
                ends = known[["spread", "rmse", "upper"]].max().to_array()
                largest = max(largest, float(ends.max()) if known.sizes[BIN] else 0.0)
            largest = 1.06 * largest or 1.0
            ax.plot([0.0, largest], [0.0, largest], color=TRUTH_COLOR, linewidth=0.9, linestyle="--", zorder=1)
            ax.set(xlim=(0.0, largest), ylim=(0.0, largest))
            for axis in (ax.xaxis, ax.yaxis):
                # the same ticks on both, without a second zero in the corner
                axis.set_major_locator(MaxNLocator(5, steps=_STEPS))
                axis.set_major_formatter(FuncFormatter(lambda tick, _: format_tick(tick)))
            units = _bracket(_units(curves))
            ax.set_xlabel(f"spread{units}")
            ax.set_ylabel(f"RMSE of the mean{units}")
        legend_below(figure, models, [_dashed("spread equals error")], marks=True)
    return figure


def plot_line_spectra(
    panels: Mapping[str, Mapping[str, xr.DataArray]],
    *,
    truth: str | None = "truth",
    band: tuple[float, float] | None = None,
    slope: float | None = -5.0 / 3.0,
    title: str | None = None,
) -> Figure:
    """Power spectra against the wavelength, the longest waves on the left, and below each their ratio to the truth's.

    Args:
        panels: what `line_spectrum` gave, over (wavelength,), by title and name.
        truth: name of the truth, drawn in black, among the spectra of each panel; None if there is none, and then there
            are no ratios.
        band: wavelengths that are shaded, such as those of `cell_band`, which the coarse input does not have.
        slope: of a grey line to compare with, the power of the wavenumber; None for no line.
        title: of the figure.

    Returns:
        The figure.

    Raises:
        ValueError: nothing to plot, other dimensions, or a panel without the truth.
    """
    models = [name for name in _models(panels, {"": (WAVELENGTH,)}) if name != truth]
    if truth is not None and (lacking := [name for name, spectra in panels.items() if truth not in spectra]):
        raise ValueError(f"panel {lacking[0]!r} has no spectrum {truth!r}: name the truth, or pass truth=None")
    columns, rows, _ = panel_layout(len(panels))
    with style():
        ratio_height = 0.0 if truth is None else 0.95
        width, height = _size(len(panels))
        figure = new_figure(width * columns + 0.4, (height + ratio_height + 0.25) * rows + _extra(title), title=title)
        parts = 1 if truth is None else 2
        heights = [height, ratio_height][:parts] * rows
        grid = figure.add_gridspec(parts * rows, columns, height_ratios=heights)
        for place, (name, spectra) in enumerate(panels.items()):
            row, column = divmod(place, columns)
            ax = figure.add_subplot(grid[parts * row, column])
            ax.set_title(name)
            _spectra(ax, spectra, models, truth, slope)
            lowest = ax
            if truth is not None:
                lowest = figure.add_subplot(grid[parts * row + 1, column], sharex=ax)
                _ratios(lowest, spectra, models, truth)
                ax.tick_params(labelbottom=False)
                if column == 0:
                    lowest.set_ylabel("ratio to truth")
            for own in {ax, lowest}:
                if band is not None:
                    own.axvspan(*band, color="#F1F1F1", linewidth=0, zorder=0)
            any_spectrum = next(iter(spectra.values()))
            _wavelength_axis(lowest, any_spectrum)
            units = _bracket(str(any_spectrum.attrs.get("units", "")))
            ax.set_ylabel(f"power density{units}" if column == 0 else units.strip())
        guides: list[Any] = [] if truth is None else [Line2D([], [], **_truth_look(), label=truth)]
        if slope is not None:
            guides.append(Line2D([], [], color=_GUIDE, linewidth=0.9, linestyle=":", label=f"slope {_fraction(slope)}"))
        if band is not None:
            guides.append(Patch(facecolor="#F1F1F1", label="not resolved by the coarse grid"))
        legend_below(figure, models, guides)
    return figure


def plot_distributions(panels: Panels, *, truth: str | None = "truth", title: str | None = None) -> Figure:
    """Probability densities on a logarithmic scale, with marks at quantiles far out in the tail.

    Args:
        panels: what `distribution_curve` gave, over (bin,) and (quantile,), by name of the quantity, which with its
            unit, the attribute `units`, becomes the label of the axis, and name of the model.
        truth: name of the truth, drawn in black; None if there is none.
        title: of the figure.

    Returns:
        The figure.

    Raises:
        ValueError: nothing to plot, or other variables or dimensions.
    """
    models = [name for name in _models(panels, {"density": (BIN,), "value": (QUANTILE,)}) if name != truth]
    levels: list[float] = []
    with style():
        figure, axes = _axes(panels, title)
        for ax, (panel, curves) in zip(axes, panels.items(), strict=True):
            floor, top = np.inf, -np.inf
            for name, curve in curves.items():
                look = _truth_look() if name == truth else line_look(models.index(name))
                positive = curve["density"].where(curve["density"] > 0)
                edges = np.append(curve[BIN_LOWER].values, curve[BIN_UPPER].values[-1:])
                middle = 0.5 * (edges[1:] + edges[:-1])
                ax.plot(middle, positive.values, **look)
                if bool(positive.notnull().any()):
                    floor, top = min(floor, float(positive.min())), max(top, float(positive.max()))
                levels += [float(q) for q in curve[QUANTILE].values if float(q) not in levels]
                # on the line between the middles of the bins, and where there is a gap, on that across it
                known = positive.notnull().values
                logs = np.log(positive.values[known]) if known.any() else np.full(1, np.nan)
                at = np.exp(np.interp(curve["value"].values, middle[known] if known.any() else middle[:1], logs))
                for x, y, q in zip(curve["value"].values, at, curve[QUANTILE].values, strict=True):
                    marker = _QUANTILE_MARKERS[levels.index(float(q)) % len(_QUANTILE_MARKERS)]
                    ax.plot([x], [y], marker=marker, **_mark_look(look))
            ax.set_yscale("log")
            if np.isfinite(floor):
                ax.set_ylim(max(0.5 * floor, top * 10.0**-_DENSITY_DECADES), 2.0 * top)
            ax.yaxis.set_major_locator(LogLocator(10, numticks=7))
            ax.yaxis.set_minor_formatter(NullFormatter())
            ax.xaxis.set_major_locator(MaxNLocator(6, steps=_STEPS))
            ax.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: format_tick(tick)))
            ax.set_title("")
            ax.set_xlabel(f"{panel}{_bracket(_units(curves))}")
            density_units = str(next(iter(curves.values()))["density"].attrs.get("units", ""))
            ax.set_ylabel(f"density{_bracket(density_units)}")
        guides = [] if truth is None else [Line2D([], [], **_truth_look(), label=truth)]
        guides += [
            Line2D(
                [],
                [],
                color=_GUIDE,
                linestyle="none",
                marker=_QUANTILE_MARKERS[index % len(_QUANTILE_MARKERS)],
                markersize=5.0,
                markerfacecolor="white",
                label=f"{100.0 * level:g} % quantile",
            )
            for index, level in enumerate(levels)
        ]
        legend_below(figure, models, guides)
    return figure


def _models(panels: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Names of all models in order; refuses curves without the wanted parts ("" for an array) and dimensions."""
    if not panels or not all(panels.values()):
        raise ValueError("nothing to plot: there are no panels, or one without a curve")
    for panel, curves in panels.items():
        for name, curve in curves.items():
            for part, dims in wanted.items():
                own = curve if not part else curve.get(part)
                if own is None or tuple(own.dims) != dims:
                    found = "none" if own is None else str(own.dims)
                    raise ValueError(
                        f"curve {name!r} of panel {panel!r} needs {part or 'values'} over {dims}, it has {found}:"
                        " select one of what else there is"
                    )
    return list(dict.fromkeys(name for curves in panels.values() for name in curves))


def _size(panels: int) -> tuple[float, float]:
    """Width and height of a panel: a single one must leave room for the legend below it."""
    single = panels == 1
    return (4.6 if single else 3.1), (3.0 if single else _HEIGHT)


def _extra(title: str | None) -> float:
    """Inches for the legend and the title."""
    return 0.85 if title else 0.6


def _axes(
    panels: Mapping[str, object], title: str | None, *, sharey: bool = False, square: bool = False
) -> tuple[Figure, list[Axes]]:
    columns, rows, size = panel_layout(len(panels))
    width, height = (size + 0.2, size + 0.3) if square else _size(len(panels))
    figure = new_figure(width * columns + 0.3, height * rows + _extra(title), title=title)
    axes = list(figure.subplots(rows, columns, squeeze=False, sharey=sharey).ravel())
    for ax in axes[len(panels) :]:
        ax.remove()
    for ax, name in zip(axes, panels, strict=False):
        ax.set_title(name)
        if square:
            ax.set_aspect("equal")
    return figure, axes[: len(panels)]


def _rank_edges(curve: xr.Dataset) -> NDArray[np.float64]:
    """Edges of the steps on an axis from 0 to 1 that ensembles of all sizes share."""
    return np.linspace(0.0, 1.0, curve.sizes[RANK] + 1)


def _rank_axis(ax: Axes, curves: Mapping[str, xr.Dataset]) -> None:
    """Ranks 1 ... K + 1 if all ensembles of the panel have K members, else the ends in words."""
    sizes = {curve.sizes[RANK] for curve in curves.values()}
    ax.set_xlim(0.0, 1.0)
    ax.grid(visible=False, axis="x")
    if len(sizes) > 1:
        ax.set_xticks([0.0, 1.0], ["lowest", "highest"])
        first, last = ax.get_xticklabels()
        first.set_horizontalalignment("left")
        last.set_horizontalalignment("right")
        return
    size = sizes.pop()
    step = max(1, -(-size // 9))
    shown = np.arange(0, size, step)
    ax.set_xticks((shown + 0.5) / size, [str(rank + 1) for rank in shown])


def _truth_look() -> dict[str, Any]:
    return {"color": TRUTH_COLOR, "linewidth": 1.6, "zorder": 2.8}


def _mark_look(look: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "color": look["color"],
        "linestyle": "none",
        "markersize": 5.0,
        "markerfacecolor": "white",
        "markeredgewidth": 1.2,
        "zorder": 4.0,
    }


def _spectra(
    ax: Axes, spectra: Mapping[str, xr.DataArray], models: Sequence[str], truth: str | None, slope: float | None
) -> None:
    for name, spectrum in spectra.items():
        look = _truth_look() if name == truth else line_look(models.index(name))
        ax.plot(spectrum[WAVELENGTH].values, spectrum.where(spectrum > 0).values, **look)
    reference = spectra[truth] if truth is not None else next(iter(spectra.values()))
    ax.set_xscale("log")
    ax.set_yscale("log")
    known = reference.values[reference.values > 0]
    if known.size:
        # what falls far below the truth must not press the rest together
        lowest, highest = np.log10(known.min()), np.log10(known.max())
        every = np.concatenate([part.values[part.values > 0] for part in spectra.values()])
        bottom = max(np.log10(every.min()), lowest - _POWER_MARGIN)
        ax.set_ylim(10.0 ** (bottom - 0.2), 10.0 ** (max(highest, np.log10(every.max())) + 0.4))
        if slope is not None:
            _slope(ax, reference, slope)
    ax.yaxis.set_major_locator(LogLocator(10, numticks=8))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _slope(ax: Axes, reference: xr.DataArray, slope: float) -> None:
    """A line of the slope just above the spectrum, over the middle half of its wavelengths."""
    lengths = reference[WAVELENGTH].values
    ends = np.exp(np.quantile(np.log([lengths.min(), lengths.max()]), [0.3, 0.75]))
    inside = (lengths >= ends[0]) & (lengths <= ends[1]) & (reference.values > 0)
    if not inside.any():
        return
    shape = lengths**-slope
    factor = 2.0 * float(np.max(reference.values[inside] / shape[inside]))
    ax.plot(ends, factor * ends**-slope, color=_GUIDE, linewidth=0.9, linestyle=":", zorder=2.0)


def _ratios(ax: Axes, spectra: Mapping[str, xr.DataArray], models: Sequence[str], truth: str) -> None:
    reference = spectra[truth]
    ax.axhline(1.0, color=TRUTH_COLOR, linewidth=0.9, zorder=1.5)
    largest = 1.0
    for name, spectrum in spectra.items():
        if name == truth:
            continue
        if not np.array_equal(spectrum[WAVELENGTH].values, reference[WAVELENGTH].values):
            raise ValueError(f"spectrum {name!r} is at other wavelengths than {truth!r}")
        ratio = spectrum.values / np.where(reference.values > 0, reference.values, np.nan)
        largest = np.fmax.reduce(ratio, initial=largest)
        ax.plot(reference[WAVELENGTH].values, np.where(ratio > 0, ratio, np.nan), **line_look(models.index(name)))
    ax.set_yscale("log")
    ax.set_ylim(_RATIO_TICKS[0], _RATIO_TICKS[-1 if largest > _RATIO_TICKS[-2] else -2])
    ax.yaxis.set_major_locator(FixedLocator(_RATIO_TICKS))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda tick, _: format_tick(tick)))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _wavelength_axis(ax: Axes, spectrum: xr.DataArray) -> None:
    lengths = spectrum[WAVELENGTH].values
    ax.set_xlim(float(lengths.max()), float(lengths.min()))
    ticks = [mantissa * 10.0**power for power in range(-3, 7) for mantissa in (1, 2, 5)]
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: format_tick(tick)))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel(f"wavelength{_bracket(str(spectrum[WAVELENGTH].attrs.get('units', '')))}")


def _units(curves: Mapping[str, xr.Dataset]) -> str:
    return str(next(iter(curves.values())).attrs.get("units", ""))


def _bracket(units: str) -> str:
    return "" if units in ("", "1") else f" [{format_units(units)}]"


def _dashed(label: str) -> Line2D:
    return Line2D([], [], color=TRUTH_COLOR, linewidth=0.9, linestyle="--", label=label)


def _fraction(slope: float) -> str:
    """A power as a fraction of thirds where it is one."""
    thirds = round(3.0 * slope)
    if abs(3.0 * slope - thirds) < 1e-9 and thirds % 3:
        return f"{thirds}/3".replace("-", "\u2212")
    return format_tick(slope)
