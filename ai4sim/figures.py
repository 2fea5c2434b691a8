"""House style, and the plots that two or more use cases share.

All plots take labelled arrays and give back a `matplotlib.figure.Figure` that belongs to no display and no
global state; `save` writes it. Axis labels come from the attributes `long_name` and `units`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import xarray as xr
from cmcrameri import cm
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, Colormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from ai4sim.atomic import atomic_path
from ai4sim.verification.comparison import compare
from ai4sim.verification.metrics import column_title, metric_info
from ai4sim.verification.scorecard import Role, Scorecard
from ai4sim.verification.sums import slices

# Okabe & Ito (2008), without its yellow, which is too light for lines: distinct with all common colour
# deficiencies.
COLORS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666")
TRUTH_COLOR: Final = "#000000"
ROLE_COLORS: Final[Mapping[Role, str]] = {"model": COLORS[0], "baseline": "#8C8C8C", "oracle": COLORS[2]}
LINE_STYLES: Final = ("-", "--", "-.", ":")
# Crameri's maps (doi:10.5281/zenodo.1243862): perceptually uniform, readable in grey and with colour
# deficiencies.
SEQUENTIAL: Final[Colormap] = cm.batlow
DIVERGING: Final[Colormap] = cm.vik
DENSITY: Final[Colormap] = cm.lapaz_r

STYLE: Final[Mapping[str, Any]] = {
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": True,
    "axes.grid": True,
    "axes.labelsize": 9,
    "axes.linewidth": 0.7,
    "axes.prop_cycle": mpl.cycler(color=list(COLORS)),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titleweight": "normal",
    "figure.constrained_layout.use": True,
    "figure.dpi": 110,
    "figure.titlesize": 11,
    "figure.titleweight": "bold",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "grid.color": "#D9D9D9",
    "grid.linewidth": 0.5,
    "image.cmap": "cmc.batlow",
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "savefig.dpi": 160,
    "savefig.facecolor": "white",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}

_PASCAL: Final[Mapping[str, float]] = {"Pa": 1.0, "hPa": 100.0, "mbar": 100.0, "mb": 100.0}
_STEPS: Final = (1, 2, 2.5, 5, 10)
# Metrics without a lower bound, of which only this part is of interest on an axis.
_SHOWN: Final[Mapping[str, tuple[float, float]]] = {"r2": (-0.25, 1.02), "correlation": (-0.25, 1.02)}


@contextmanager
def style() -> Iterator[None]:
    """House style for figures made in the block; afterwards matplotlib's settings are what they were."""
    with mpl.rc_context(dict(STYLE)):
        yield


def new_figure(width: float, height: float, *, title: str | None = None) -> Figure:
    """An empty figure with a constrained layout, made without pyplot: it needs no display and is never kept open.

    Args:
        width: in inches.
        height: in inches.
        title: of the whole figure.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    if title:
        figure.suptitle(title, x=0.01, ha="left")
    return figure


def save(fig: Figure, path: Path | str, *, title: str | None = None) -> Path:
    """Write a figure, whole or not at all; the format follows from the suffix.

    Args:
        fig: the figure.
        path: where to; missing folders are made.
        title: stored in the file's metadata, the figure's own title if None.

    Returns:
        The path.
    """
    path = Path(path)
    known = {"Title": title or fig.get_suptitle() or path.stem}
    if path.suffix == ".png":
        known["Software"] = "AI4Sim"
    with style(), atomic_path(path) as partial:
        fig.savefig(partial, metadata=known)
    return path


def axis_label(array: xr.DataArray, *, units: str | None = None) -> str:
    """Text of an axis: ``long_name [units]``, the array's name where it has no long name.

    Args:
        array: what the axis shows.
        units: instead of the array's own.
    """
    name = str(array.attrs.get("long_name", array.name if array.name is not None else "")).replace("_", " ")
    units = str(array.attrs.get("units", "")) if units is None else units
    return f"{name} [{format_units(units)}]" if units not in ("", "1") else name


def format_units(units: str) -> str:
    """Units for the eye, with raised exponents: ``m s-1 day-1`` becomes ``m s⁻¹ day⁻¹``."""
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    words = []
    for word in units.split():
        base = word.rstrip("-0123456789")
        words.append(base + word[len(base) :].translate(raised) if base else word)
    return " ".join(words)


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
    """Vertical profiles, one panel per variable and one line per model, over pressure: log axis, top at the top.

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


def pressure_axis(ax: Axes, hectopascal: NDArray[np.float64]) -> None:
    """Make the vertical axis one of pressure: logarithmic, low pressure (the model top) at the top, in hPa."""
    ax.set_yscale("log")
    ax.set_ylim(float(np.nanmax(hectopascal)), float(np.nanmin(hectopascal)))
    ax.yaxis.set_major_locator(LogLocator(10, numticks=12))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_ylabel("pressure [hPa]")


def symmetric_levels(values: xr.DataArray, *, n: int = 8, quantile: float = 0.995) -> NDArray[np.float64]:
    """Round contour levels, symmetric about zero, that hold nearly all values.

    Args:
        values: any shape.
        n: number of intervals on each side, about.
        quantile: share of the values inside the levels.

    Returns:
        Odd number of increasing levels, zero among them.
    """
    size = float(abs(values).quantile(quantile))
    if not np.isfinite(size) or size == 0.0:
        size = 1.0
    step = MaxNLocator(n, steps=_STEPS).tick_values(0.0, size)[1]
    count = int(np.ceil(size / step - 1e-9))
    return np.arange(-count, count + 1) * float(step)


def decade_levels(smallest: float, largest: float) -> NDArray[np.float64]:
    """Contour levels 1, 3, 10, 30, ... on both sides of zero, for fields that span decades.

    Args:
        smallest: a power of ten, the innermost level.
        largest: outermost level, rounded up.

    Returns:
        Increasing levels, symmetric about zero, which is not among them: the middle interval holds the small
        values.
    """
    if not 0.0 < smallest < largest:
        raise ValueError(f"decade_levels needs 0 < smallest < largest, not {smallest} and {largest}")
    start = np.floor(np.log10(smallest) + 1e-9)
    positive = np.ravel(np.outer(10.0 ** np.arange(start, np.log10(largest) + 1.0), (1.0, 3.0)))
    # up to the first level that is not below the largest
    positive = positive[: int(np.searchsorted(positive, largest * (1.0 - 1e-9))) + 1]
    return np.concatenate([-positive[::-1], positive])


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
                f"{name} has dimensions {array.dims} and coordinates {list(array.coords)}: give a 2-D array with"
                f" the coordinates {x!r} and {y!r}"
            )
    fields = {names[0]: truth, names[1]: prediction}
    if difference:
        # by position: coordinates that differ by rounding must not thin the field out
        fields[f"{names[1]} - {names[0]}"] = truth.copy(
            data=prediction.transpose(*truth.dims).values - truth.values
        )
    both = xr.concat(
        [truth.reset_coords(drop=True), prediction.reset_coords(drop=True)], "field", join="override"
    )
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
            ax.set_xlabel(axis_label(truth[x], units=_degrees(truth[x])))
            ax.grid(visible=False)
            ax.spines[["top", "right"]].set_visible(True)
        if x == "lat":
            axes[0].set_xticks([tick for tick in range(-90, 91, 30) if _inside(tick, truth[x])])
        if is_pressure:
            pressure_axis(axes[0], vertical)
        else:
            axes[0].set_ylabel(axis_label(truth[y]))
        bar = figure.colorbar(
            mesh, ax=list(axes), extend="both", label=axis_label(truth), pad=0.015, aspect=28
        )
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        bar.set_ticks(list(bounds) if len(bounds) <= 13 else list(bounds[len(bounds) // 2 % 2 :: 2]))
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
        figure = new_figure(3.3 * len(panels) + 0.8, 3.7, title=title)
        axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
        # one scale for all panels, so that densities can be compared
        norm = LogNorm(1, max(2.0, max(float(count.max()) for count in counts.values())))
        for ax, (name, count) in zip(axes, counts.items(), strict=True):
            mesh = ax.pcolormesh(edges, edges, np.ma.masked_equal(count.T, 0), cmap=DENSITY, norm=norm)
            mesh.set_rasterized(True)
            ax.axline((0.0, 0.0), (1.0, 1.0), color=TRUTH_COLOR, linewidth=0.9, linestyle="--", label="1:1")
            if symlog is not None:
                _symlog_axes(ax, symlog, max(abs(low), abs(high)))
            ax.set(xlim=(edges[0], edges[-1]), ylim=(edges[0], edges[-1]), title=name)
            ax.set_box_aspect(1.0)
            ax.set_xlabel(f"target: {axis_label(target)}")
        axes[0].set_ylabel("prediction: " + axis_label(target))
        axes[0].legend(loc="upper left")
        figure.colorbar(mesh, ax=list(axes), label="values per bin", pad=0.015)
    return figure


def plot_scorecard_bars(
    card: Scorecard, metrics: str | Sequence[str], *, title: str | None = None, **selection: Any
) -> Figure:
    """One panel per metric with a bar per model and its 95 % interval; the model, baselines and oracle by colour.

    Args:
        card: the scorecard.
        metrics: one name or several.
        title: of the figure.
        **selection: split, variable, lead_time and threshold, see `Scorecard.add`.

    Returns:
        The figure.

    Raises:
        ValueError: the scorecard has none of these scores.
    """
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    rows = compare(card, names, **selection)
    if not rows:
        raise ValueError(
            f"the scorecard has no {', '.join(names)} for {selection or 'split test, variable all'}"
        )
    with style():
        figure = new_figure(2.9 * len(names) + 1.2, 0.34 * len(rows) + 1.25, title=title)
        axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
        position = np.arange(len(rows))
        for ax, metric in zip(axes, names, strict=True):
            cells = [row.cells.get(metric) for row in rows]
            units = next((cell.units for cell in cells if cell is not None), "1")
            for y, row, cell in zip(position, rows, cells, strict=True):
                if cell is None or not np.isfinite(cell.value):
                    ax.annotate("–", (0.0, y), xytext=(4, 0), textcoords="offset points", va="center")
                    continue
                ax.barh(y, cell.value, height=0.62, color=ROLE_COLORS[row.role])
                edge = cell.value
                if np.isfinite(cell.lower) and np.isfinite(cell.upper):
                    ax.hlines(y, cell.lower, cell.upper, color=TRUTH_COLOR, linewidth=1.1)
                    ax.vlines([cell.lower, cell.upper], y - 0.12, y + 0.12, color=TRUTH_COLOR, linewidth=1.1)
                    edge = cell.upper if cell.value >= 0 else cell.lower
                right = cell.value >= 0
                ax.annotate(
                    cell.format()[0],
                    (edge, y),
                    xytext=(4 if right else -4, 0),
                    textcoords="offset points",
                    va="center",
                    ha="left" if right else "right",
                    fontsize=8,
                    fontweight="bold" if cell.best else "normal",
                )
            arrow = {"lower": " (lower is better)", "higher": " (higher is better)"}
            ax.set_xlabel(
                column_title(metric, format_units(units)) + arrow.get(metric_info(metric).better, "")
            )
            ax.grid(visible=False, axis="y")
            ax.axvline(0.0, color="#4D4D4D", linewidth=0.8)
            ax.xaxis.set_major_locator(MaxNLocator(4, steps=_STEPS))
            # room for the numbers beside the bars
            ax.margins(x=0.22)
            ax.tick_params(axis="y", length=0)
        axes[0].set_yticks(position, [row.model for row in rows])
        axes[0].invert_yaxis()
        for label, row in zip(axes[0].get_yticklabels(), rows, strict=True):
            label.set_fontweight("bold" if row.role == "model" else "normal")
    return figure


def _pressure(data: xr.Dataset | xr.DataArray, name: str) -> tuple[str, NDArray[np.float64]]:
    """Dimension and values in hPa of a pressure coordinate."""
    if name not in data.coords or data[name].ndim != 1:
        raise ValueError(f"no 1-D pressure coordinate {name!r}: the data have {list(data.coords)}")
    units = str(data[name].attrs.get("units", ""))
    if units not in _PASCAL:
        raise ValueError(
            f"coordinate {name!r} has units {units!r}: a pressure has one of {', '.join(_PASCAL)}"
        )
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


def _degrees(coordinate: xr.DataArray) -> str | None:
    return "°" if str(coordinate.attrs.get("units", "")).startswith("degree") else None


def _inside(tick: float, coordinate: xr.DataArray) -> bool:
    step = float(abs(coordinate.diff(coordinate.dims[0])).max()) / 2.0 if coordinate.size > 1 else 0.0
    return float(coordinate.min()) - step <= tick <= float(coordinate.max()) + step


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
    return symlog * np.sinh(np.linspace(np.arcsinh(low / symlog), np.arcsinh(high / symlog), bins + 1))


def _counts(
    prediction: xr.DataArray, target: xr.DataArray, edges: NDArray[np.float64]
) -> NDArray[np.float64]:
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
    decades = np.arange(np.ceil(np.log10(threshold)), np.floor(np.log10(max(largest, threshold))) + 1)
    # at most three labels on each side of zero
    decades = decades[:: -max(1, int(np.ceil(len(decades) / 3)))][::-1]
    ticks = np.concatenate([-(10.0 ** decades[::-1]), [0.0], 10.0**decades])
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks(ticks)
        axis.set_minor_locator(mpl.ticker.NullLocator())
        axis.set_major_formatter(FuncFormatter(_decade))


def _decade(value: float, _: int | None) -> str:
    if value == 0.0:
        return "0"
    exponent = round(np.log10(abs(value)))
    sign = "-" if value < 0 else ""
    return f"{value:g}" if -2 <= exponent <= 3 else f"${sign}10^{{{exponent}}}$"
