"""House style of all figures: colours, fonts, labels, axes and how a figure is written."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import xarray as xr
from cmcrameri import cm
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from ai4sim.atomic import atomic_path
from ai4sim.verification.metrics import MINUS, format_units, metric_title
from ai4sim.verification.scorecard import Role

# Okabe & Ito (2008), without its yellow, which is too light for lines: distinct with all common colour
# deficiencies.
COLORS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666")
TRUTH_COLOR: Final = "#000000"
ROLE_COLORS: Final[Mapping[Role, str]] = {"model": COLORS[0], "baseline": "#8C8C8C", "oracle": COLORS[2]}
LINE_STYLES: Final = ("-", "--", "-.", ":")
# Crameri's maps (doi:10.5281/zenodo.1243862): perceptually uniform, readable in grey and with colour
# deficiencies.
SEQUENTIAL: Final[Colormap] = cm.cmaps["batlow"]
DIVERGING: Final[Colormap] = cm.cmaps["vik"]
# without the palest part, so that single values are seen on white
DENSITY: Final[Colormap] = ListedColormap(cm.cmaps["devon_r"](np.linspace(0.15, 1.0, 256)), name="density")


STYLE: Final[Mapping[str, Any]] = {
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": True,
    "axes.grid": True,
    "axes.labelsize": 9,
    "axes.linewidth": 0.7,
    "axes.prop_cycle": cycler(color=list(COLORS)),
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

_STEPS: Final = (1, 2, 2.5, 5, 10)


@contextmanager
def style() -> Iterator[None]:
    """House style for figures made in the block; then matplotlib's settings are what they were."""
    settings: Any = dict(STYLE)
    with mpl.rc_context(settings):
        yield


def new_figure(width: float, height: float, *, title: str | None = None) -> Figure:
    """An empty figure with a constrained layout, made without pyplot: no display, no global state.

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
    name = str(array.attrs.get("long_name") or metric_title(str(array.name or "")))
    units = str(array.attrs.get("units", "")) if units is None else units
    return f"{name} [{format_units(units)}]" if units not in ("", "1") else name


def format_tick(value: float) -> str:
    """A tick label without needless digits, with a true minus sign."""
    return f"{value:g}".replace("-", MINUS)


def pressure_axis(ax: Axes, hectopascal: NDArray[np.float64]) -> None:
    """Make the vertical axis one of pressure: in hPa, logarithmic, low pressure (the model top) up."""
    ax.set_yscale("log")
    ax.set_ylim(float(np.nanmax(hectopascal)), float(np.nanmin(hectopascal)))
    # decades alone would leave one or two labels on a short axis
    short = np.nanmax(hectopascal) / np.nanmin(hectopascal) < 300
    ax.yaxis.set_major_locator(LogLocator(10, subs=(1, 3) if short else (1,), numticks=12))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_tick(value)))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_ylabel("pressure [hPa]")


def symmetric_levels(values: xr.DataArray, *, n: int = 8, quantile: float = 0.995) -> NDArray[np.float64]:
    """Round contour levels, symmetric about zero, that hold nearly all values.

    Args:
        values: any shape.
        n: number of intervals on each side, about.
        quantile: share of the values inside the levels.

    Returns:
        Increasing levels, symmetric about zero, which is not among them: small values of either sign are one
        colour.
    """
    size = float(abs(values).quantile(quantile))
    if not np.isfinite(size) or size == 0.0:
        size = 1.0
    step = MaxNLocator(n, steps=_STEPS).tick_values(0.0, size)[1]
    count = int(np.ceil(size / step - 1e-9))
    positive = np.arange(1, count + 1) * float(step)
    return np.concatenate([-positive[::-1], positive])


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
    first = math.floor(math.log10(smallest) + 1e-9)
    last = math.ceil(math.log10(largest) + 1e-9)
    positive = np.array([mantissa * 10.0**exponent for exponent in range(first, last + 1) for mantissa in (1, 3)])
    # up to the first level that is not below the largest
    positive = positive[: int(np.searchsorted(positive, largest * (1.0 - 1e-9))) + 1]
    return np.concatenate([-positive[::-1], positive])


def format_latitude(value: float) -> str:
    """A latitude in degrees with its hemisphere."""
    hemisphere = "" if value == 0 else "N" if value > 0 else "S"
    return f"{abs(value):g}°{hemisphere}"


def latitude_axis(ax: Axes) -> None:
    """Make the horizontal axis one of latitude: 60°S, 30°S, 0°, 30°N, 60°N."""
    low, high = ax.get_xlim()
    ax.set_xticks([tick for tick in range(-60, 61, 30) if low <= tick <= high])
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_latitude(value)))
    ax.set_xlabel("latitude")
