"""The plots that two or more use cases share, in the house style.

All plots take labelled arrays and give back a `matplotlib.figure.Figure` that belongs to no display and no
global state; `save` writes it. Axis labels come from the attributes `long_name` and `units`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Unpack

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from ai4sim.style import (
    COLORS,
    DENSITY,
    DIVERGING,
    LINE_STYLES,
    ROLE_COLORS,
    SEQUENTIAL,
    TRUTH_COLOR,
    axis_label,
    decade_levels,
    format_tick,
    latitude_axis,
    new_figure,
    pressure_axis,
    save,
    style,
    symmetric_levels,
)
from ai4sim.verification.comparison import Cell, compare, units_of
from ai4sim.verification.metrics import MINUS, column_title, format_units, metric_info, metric_title
from ai4sim.verification.scorecard import Scorecard, Selection
from ai4sim.verification.sums import slices

__all__ = [
    "COLORS",
    "DENSITY",
    "DIVERGING",
    "LINE_STYLES",
    "ROLE_COLORS",
    "SEQUENTIAL",
    "TRUTH_COLOR",
    "axis_label",
    "decade_levels",
    "latitude_axis",
    "new_figure",
    "plot_cross_sections",
    "plot_density",
    "plot_profiles",
    "plot_scorecard_bars",
    "pressure_axis",
    "save",
    "style",
    "symmetric_levels",
]

_NORTH: Final = ("degrees_north", "degree_north", "degrees_N", "degreesN")
_PASCAL: Final[Mapping[str, float]] = {"Pa": 1.0, "hPa": 100.0, "mbar": 100.0, "mb": 100.0}
# Metrics without a lower bound, of which only this part is of interest on an axis.
_STEPS: Final = (1, 2, 2.5, 5, 10)
_SHOWN: Final[Mapping[str, tuple[float, float]]] = {"r2": (-0.25, 1.02), "correlation": (-0.25, 1.02)}


def plot_profiles(
    profiles: xr.Dataset,
    *,
    pressure: str = "pressure",
    hue: str = "model",
    lower: xr.Dataset | None = None,
    upper: xr.Dataset | None = None,
    limits: Mapping[str, tuple[float, float]] | None = None,
    title: str | None = None,
) -> Figure:
    """Vertical profiles over pressure (log axis, top at the top): a panel per variable, a line per model.

    Args:
        profiles: variables such as ``rmse``, ``bias`` and ``r2`` over (level,) or (hue, level).
        pressure: coordinate over level, in Pa or hPa by its attribute `units`.
        hue: dimension of the lines.
        lower: lower bounds of the same variables, shown as bands.
        upper: upper bounds.
        limits: range of the axis of a variable. Without it, r2 and correlation are cut off at -0.25.
        title: of the figure.

    Returns:
        The figure.

    Raises:
        ValueError: no such coordinate, or it is not a pressure.
    """
    level, hectopascal = _pressure(profiles, pressure)
    names = list(profiles.data_vars)
    labels = [str(name) for name in profiles[hue].values] if hue in profiles.dims else [None]
    with style():
        figure = new_figure(max(2.6 * len(names), 3.4) + 0.4, 4.4, title=title)
        axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
        for ax, name in zip(axes, names, strict=True):
            for index, label in enumerate(labels):

                def line(source: xr.Dataset, name: Any = name, index: int = index) -> NDArray[np.float64]:
                    values = source[name]
                    values = values.isel({hue: index}) if hue in values.dims else values
                    return np.asarray(values.transpose(level).values, dtype=np.float64)

                look = {"color": COLORS[index % len(COLORS)]}
                dashes = LINE_STYLES[index // len(COLORS) % len(LINE_STYLES)]
                ax.plot(line(profiles), hectopascal, linestyle=dashes, label=label, **look)
                if lower is not None and upper is not None and name in lower and name in upper:
                    ax.fill_betweenx(hectopascal, line(lower), line(upper), alpha=0.18, linewidth=0, **look)
            _limit(ax, profiles[name], (limits or {}).get(str(name)))
            ax.set_xlabel(axis_label(profiles[name]))
            ax.xaxis.set_major_locator(MaxNLocator(5, steps=_STEPS))
            ax.axvline(0.0, color="#7F7F7F", linewidth=0.8, zorder=1)
        pressure_axis(axes[0], hectopascal)
        _share_legend(figure, axes[0])
    return figure


def plot_cross_sections(
    truth: xr.DataArray,
    prediction: xr.DataArray,
    *,
    x: str = "lat",
    y: str = "pressure",
    levels: Sequence[float] | NDArray[np.float64] | None = None,
    difference: bool = True,
    names: tuple[str, str] = ("truth", "prediction"),
    title: str | None = None,
) -> Figure:
    """Cross-sections of truth, prediction and their difference, with common levels and one colour bar.

    Args:
        truth: over the dimensions of the coordinates `x` and `y`; signed.
        prediction: as the truth.
        x: horizontal coordinate.
        y: vertical coordinate; a pressure (units Pa or hPa) is drawn logarithmically with the top at the top.
        levels: contour levels, symmetric about zero; round ones that hold 99.5 % of truth and prediction if
            None.
        difference: whether to draw prediction minus truth in a third panel.
        names: titles of the first two panels.
        title: of the figure.

    Returns:
        The figure.

    Raises:
        ValueError: the arrays are not over `x` and `y`, or the levels are not symmetric.
    """
    for name, array in {"truth": truth, "prediction": prediction}.items():
        if x not in array.coords or y not in array.coords or array.ndim != 2:
            raise ValueError(
                f"{name} has dimensions {array.dims} and coordinates {list(array.coords)}: give a 2-D array"
                f" with the coordinates {x!r} and {y!r}"
            )
    fields = {names[0]: truth, names[1]: prediction}
    if difference:
        # by position: coordinates that differ by rounding must not thin the field out
        error = truth.copy(data=prediction.transpose(*truth.dims).values - truth.values)
        fields[f"{names[1]} {MINUS} {names[0]} (at most {float(abs(error).max()):.2g})"] = error
    both = xr.concat([truth.reset_coords(drop=True), prediction.reset_coords(drop=True)], "field", join="override")
    bounds = np.asarray(symmetric_levels(both) if levels is None else levels, dtype=np.float64)
    if not np.allclose(bounds, -bounds[::-1]) or (np.diff(bounds) <= 0).any():
        raise ValueError(f"levels must increase and be symmetric about zero, not {bounds.tolist()}")

    order = (*truth[y].dims, *truth[x].dims)
    is_pressure = str(truth[y].attrs.get("units", "")) in _PASCAL
    vertical = _pressure(truth, y)[1] if is_pressure else np.asarray(truth[y].values, dtype=np.float64)
    with style():
        figure = new_figure(3.1 * len(fields) + 0.9, 3.5, title=title)
        axes = figure.subplots(1, len(fields), sharex=True, sharey=True, squeeze=False)[0]
        norm = BoundaryNorm(bounds, DIVERGING.N, extend="both")
        for ax, (name, field) in zip(axes, fields.items(), strict=True):
            mesh = ax.pcolormesh(
                truth[x].values,
                vertical,
                field.transpose(*order).values,
                cmap=DIVERGING,
                norm=norm,
                shading="nearest",
            )
            mesh.set_rasterized(True)
            ax.set_title(name)
            if str(truth[x].attrs.get("units", "")) in _NORTH:
                latitude_axis(ax)
            else:
                ax.set_xlabel(axis_label(truth[x]))
            ax.grid(visible=False)
            ax.spines[["top", "right"]].set_visible(True)
        if is_pressure:
            pressure_axis(axes[0], vertical)
        else:
            axes[0].set_ylabel(axis_label(truth[y]))
        bar = figure.colorbar(mesh, ax=list(axes), extend="both", label=axis_label(truth), pad=0.015, aspect=28)
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_tick(value)))
        # every second one if there are many, the same on both sides of zero
        positive = bounds[bounds > 0] if len(bounds) <= 13 else bounds[bounds > 0][::2]
        bar.set_ticks([*-positive[::-1], *bounds[bounds == 0], *positive])
        bar.ax.minorticks_off()
    return figure


def plot_density(
    prediction: xr.DataArray,
    target: xr.DataArray,
    *,
    hue: str = "model",
    bins: int = 120,
    symlog: float | None = None,
    title: str | None = None,
) -> Figure:
    """Two-dimensional histogram of prediction against target with the 1:1 line, one panel per model.

    Args:
        prediction: any shape, with a dimension `hue` for several models; read slice by slice.
        target: the same dimensions, except `hue`.
        hue: dimension of the panels.
        bins: number of bins along each axis.
        symlog: axes are linear up to this magnitude and logarithmic beyond it, for values that span decades.
        title: of the figure.

    Returns:
        The figure.

    Raises:
        ValueError: no finite value, or `symlog` is not positive.
    """
    if symlog is not None and symlog <= 0.0:
        raise ValueError(f"symlog={symlog}: the linear range must be positive, in the units of the data")
    panels = (
        {str(name): prediction.isel({hue: i}, drop=True) for i, name in enumerate(prediction[hue].values)}
        if hue in prediction.dims
        else {"": prediction}
    )
    low, high = _range([target, *panels.values()])
    edges = _bin_edges(low, high, bins, symlog)
    counts = {name: _counts(panel, target, edges) for name, panel in panels.items()}
    with style():
        # nearly square panels; a fixed aspect would leave the colour bar higher than the panels
        figure = new_figure(2.9 * len(panels) + 1.35, 3.75 if title else 3.5, title=title)
        axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
        # one scale for all panels, so that densities can be compared
        norm = LogNorm(1, max(2.0, max(float(count.max()) for count in counts.values())))
        for ax, (name, count) in zip(axes, counts.items(), strict=True):
            mesh = ax.pcolormesh(edges, edges, np.ma.masked_equal(count.T, 0), cmap=DENSITY, norm=norm)
            mesh.set_rasterized(True)
            ax.axline((0.0, 0.0), (1.0, 1.0), color=COLORS[1], linewidth=1.0, linestyle="--", label="1:1")
            if symlog is not None:
                _symlog_axes(ax, symlog, max(abs(low), abs(high)))
            ax.set(xlim=(edges[0], edges[-1]), ylim=(edges[0], edges[-1]), title=name)
            ax.set_xlabel(f"target: {axis_label(target)}")
        axes[0].set_ylabel("prediction: " + axis_label(target))
        axes[0].legend(loc="upper left")
        figure.colorbar(mesh, ax=list(axes), label="values per bin", pad=0.02, aspect=24)
    return figure


def plot_scorecard_bars(
    card: Scorecard, metrics: str | Sequence[str], *, title: str | None = None, **selection: Unpack[Selection]
) -> Figure:
    """Scores with 95 % intervals: a panel per metric, a bar per model, coloured by its role.

    Args:
        card: the scorecard.
        metrics: one name or several.
        title: of the figure.
        **selection: split, variable, lead_time and threshold, see `Scorecard.add`.

    Returns:
        The figure. Bars of scores without a lower bound (r2, skill) are cut off at -1; the number is beside
        them.

    Raises:
        ValueError: the scorecard has none of these scores.
    """
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    rows = compare(card, names, **selection)
    if not rows:
        raise ValueError(f"the scorecard has no {', '.join(names)} for {selection or 'split test, variable all'}")
    with style():
        figure = new_figure(2.9 * len(names) + 1.2, 0.34 * len(rows) + (1.75 if title else 1.45), title=title)
        axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
        for ax, metric in zip(axes, names, strict=True):
            info = metric_info(metric)
            floor = -1.0 if info.better == "higher" and info.perfect == 1.0 else -math.inf
            for position, row in enumerate(rows):
                _bar(ax, position, row.cells.get(metric), ROLE_COLORS[row.role], floor)
            better = f"closer to {info.perfect:g}" if info.better == "closer" else info.better
            heading = column_title(metric_title(metric), format_units(units_of(rows, metric)))
            ax.set_xlabel(f"{heading}\n{better} is better")
            ax.grid(visible=False, axis="y")
            ax.axvline(0.0, color="#4D4D4D", linewidth=0.8)
            ax.xaxis.set_major_locator(MaxNLocator(4, steps=_STEPS))
            # room for the numbers beside the bars
            low, high = ax.get_xlim()
            ax.set_xlim(low, high + 0.22 * (high - low))
            ax.tick_params(axis="y", length=0)
        axes[0].set_yticks(range(len(rows)), [row.model for row in rows])
        axes[0].invert_yaxis()
        for label, row in zip(axes[0].get_yticklabels(), rows, strict=True):
            label.set_fontweight("bold" if row.role == "model" else "normal")
        roles = list(dict.fromkeys(row.role for row in rows))
        handles = [Patch(color=ROLE_COLORS[role], label=role) for role in roles]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(roles))
    return figure


def _bar(ax: Axes, y: int, cell: Cell | None, color: str, floor: float) -> None:
    if cell is None or not math.isfinite(cell.value):
        ax.annotate("–", (0.0, y), xytext=(4, 0), textcoords="offset points", va="center")
        return
    ax.barh(y, max(cell.value, floor), height=0.62, color=color)
    end = max(cell.value, 0.0)
    if not (math.isnan(cell.lower) or math.isnan(cell.upper)):
        end = max(cell.upper, 0.0)
        if cell.lower >= floor:
            ax.hlines(y, cell.lower, cell.upper, color=TRUTH_COLOR, linewidth=1.1)
            ax.vlines([cell.lower, cell.upper], y - 0.12, y + 0.12, color=TRUTH_COLOR, linewidth=1.1)
    # right of the zero line for negative bars too: on their left are the names of the models
    ax.annotate(
        cell.format()[0].replace("-", MINUS),
        (end, y),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        fontweight="bold" if cell.best else "normal",
    )


def _pressure(data: xr.Dataset | xr.DataArray, name: str) -> tuple[str, NDArray[np.float64]]:
    """Dimension and values in hPa of a pressure coordinate."""
    if name not in data.coords or data[name].ndim != 1:
        raise ValueError(f"no 1-D pressure coordinate {name!r}: the data have {list(data.coords)}")
    units = str(data[name].attrs.get("units", ""))
    if units not in _PASCAL:
        raise ValueError(f"coordinate {name!r} has units {units!r}: a pressure has one of {', '.join(_PASCAL)}")
    values = np.asarray(data[name].values, dtype=np.float64) * _PASCAL[units] / 100.0
    if not (values > 0).all():
        raise ValueError(f"coordinate {name!r} is not positive everywhere: it cannot be drawn on a log axis")
    return str(data[name].dims[0]), values


def _limit(ax: Axes, values: xr.DataArray, limits: tuple[float, float] | None) -> None:
    shown = _SHOWN.get(str(values.name))
    if limits is None and shown is not None and float(values.min()) < shown[0]:
        limits = shown
    if limits is not None:
        ax.set_xlim(*limits)


def _share_legend(figure: Figure, ax: Axes) -> None:
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(handles), 5))


def _range(arrays: Sequence[xr.DataArray]) -> tuple[float, float]:
    low, high = np.inf, -np.inf
    for array in arrays:
        for part in slices(array, array.dims):
            values = array.isel(part).values
            values = values[np.isfinite(values)]
            if values.size:
                low, high = min(low, float(values.min())), max(high, float(values.max()))
    if not np.isfinite(low):
        raise ValueError("nothing to plot: there is no finite value")
    return low, high


def _bin_edges(low: float, high: float, bins: int, symlog: float | None) -> NDArray[np.float64]:
    if low == high:
        low, high = low - 0.5, high + 0.5
    if symlog is None:
        return np.linspace(low, high, bins + 1)
    # equal widths in asinh(x / symlog), which is linear inside and logarithmic outside
    edges = symlog * np.sinh(np.linspace(np.arcsinh(low / symlog), np.arcsinh(high / symlog), bins + 1))
    # rounding must not leave the extremes outside
    edges[0], edges[-1] = low, high
    return edges


def _counts(prediction: xr.DataArray, target: xr.DataArray, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Histogram (target bin, prediction bin), slice by slice."""
    total = np.zeros((len(edges) - 1, len(edges) - 1))
    prediction = prediction.transpose(*target.dims)
    for part in slices(target, target.dims):
        t, p = (array.isel(part).values.reshape(-1) for array in (target, prediction))
        finite = np.isfinite(t) & np.isfinite(p)
        total += np.histogram2d(t[finite], p[finite], bins=(edges, edges))[0]
    return total


def _symlog_axes(ax: Axes, threshold: float, largest: float) -> None:
    ax.set_xscale("asinh", linear_width=threshold)
    ax.set_yscale("asinh", linear_width=threshold)
    # from ten times the threshold, below which labels would run into that of zero; at most three on each side
    first, last = (
        math.ceil(math.log10(threshold) - 1e-9) + 1,
        math.floor(math.log10(max(largest, threshold)) + 1e-9),
    )
    step = max(1, math.ceil((last - first + 1) / 3))
    decades = [10.0**exponent for exponent in range(last, first - 1, -step)]
    ticks = [*(-decade for decade in decades), 0.0, *reversed(decades)]
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: _decade(value)))


def _decade(value: float) -> str:
    if value == 0.0 or -2 <= math.log10(abs(value)) <= 3:
        return format_tick(value)
    return f"${'-' if value < 0 else ''}10^{{{round(math.log10(abs(value)))}}}$"
