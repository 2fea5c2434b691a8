"""Maps of downscaled ensembles; labelled arrays in, figures out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import xarray as xr
from cmcrameri import cm
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from ai4sim.panels import legend_below, line_look
from ai4sim.style import DIVERGING, SEQUENTIAL, format_tick, new_figure, style
from ai4sim.verification import crps
from ai4sim.verification.metrics import format_units
from downscaling.corrdiff.samples import ANALOGS, REGRESSION, TEMPERATURES, TRUTH, WIND, WINDS, Part, TestSamples
from downscaling.corrdiff.sums import Sums

MEMBERS_SHOWN: Final = 3
SPREAD: Final = "spread"
RAIN: Final = ("tp", "precip")
POSITIVE: Final = (*RAIN, "maximum_radar_reflectivity", WIND)
RAIN_LEVELS: Final = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
"""mm in an hour."""
FROM_WHITE: Final[Colormap] = ListedColormap(["white", *cm.cmaps["devon_r"](np.linspace(0.12, 1, 255))])
TEMPERATURE_COLORS: Final[Colormap] = cm.cmaps["roma_r"]
SPREAD_COLORS: Final[Colormap] = cm.cmaps["bilbao_r"]
NAMES: Final[Mapping[str, str]] = {
    **dict.fromkeys(TEMPERATURES, "2 m temperature"),
    **{pair[0]: "10 m wind to the east" for pair in WINDS},
    **{pair[1]: "10 m wind to the north" for pair in WINDS},
    **dict.fromkeys(RAIN, "precipitation"),
    "maximum_radar_reflectivity": "maximum reflectivity",
    WIND: "10 m wind speed",
    "kinetic_energy": "kinetic energy",
}

Fields = Mapping[str, NDArray[np.floating]]


@dataclass(frozen=True)
class MapGrid:
    """How fields are laid out on maps.

    Args:
        spacing: distance of points.
        units: of the spacing.
        origin: where the first row is, with north at the top.
    """

    spacing: float
    units: str
    origin: Literal["lower", "upper"]

    @classmethod
    def of(cls, spacing_km: float, latitude: NDArray[np.floating]) -> "MapGrid":
        """Of a spacing, NaN if it is not known, and latitudes (y, x)."""
        known = bool(np.isfinite(spacing_km))
        northward = latitude[-1].mean() > latitude[0].mean()
        return cls(spacing_km if known else 1.0, "km" if known else "points", "lower" if northward else "upper")


def map_grid(samples: TestSamples) -> MapGrid:
    """Of a run's test pairs."""
    return MapGrid.of(samples.spacing_km, samples.predictions["latitude"].values)


def title_of(name: str) -> str:
    """A variable's name for the eye."""
    return NAMES.get(name, name.replace("_", " "))


def plot_error_maps(sums: Sums, main: str, samples: TestSamples) -> Figure:
    """CRPS by place in the domain, and by the distance from its border: what borders cost."""
    maps, grid = sums.of("map"), map_grid(samples)
    rivals = (ANALOGS, samples.mean_name)
    models = [main, *(name for name in rivals if name != main and all(name in p for p in maps.values()))]
    with style():
        score = "CRPS" if samples.members else "absolute error"
        title = f"{score[0].upper()}{score[1:]} of {main} by place in the domain"
        figure = new_figure(2.55 * len(maps) + 0.5, 4.8, title=title)
        axes = figure.subplots(2, len(maps), squeeze=False, height_ratios=(1.35, 1.0))
        for column, (name, products) in enumerate(maps.items()):
            upper, lower = axes[:, column]
            values = crps(products[main])
            units = format_units(str(values.attrs.get("units", "")))
            image = _map(upper, values.values, grid, SEQUENTIAL, Normalize(0, float(values.max()) or 1.0))
            upper.set_title(title_of(name))
            upper.set_xlabel(f"x [{grid.units}]")
            bar = figure.colorbar(image, ax=upper, location="bottom", pad=0.02, aspect=18, shrink=0.9)
            bar.set_label(f"{score} [{units}]")
            bar.locator = MaxNLocator(4)
            bar.update_ticks()
            for number, model in enumerate(models):
                distance, mean = by_distance(crps(products[model]).values)
                lower.plot(distance * grid.spacing, mean, **line_look(number))
            lower.set_xlim(0, None)
            lower.set_ylim(0, None)
            lower.set_xlabel(f"distance from the border [{grid.units}]")
            lower.set_ylabel(f"{score} [{units}]" if column == 0 else f"[{units}]")
        axes[0, 0].set_ylabel(f"y [{grid.units}]")
        single = {samples.mean_name: f"{samples.mean_name} (absolute error)"} if samples.members else {}
        legend_below(figure, [single.get(name, name) for name in models], [])
    return figure


def by_distance(values: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means of a field (y, x) over frames of points that are equally far from its border.

    Returns:
        Distances from the border in points, and means.
    """
    rows, columns = (np.minimum(np.arange(size), np.arange(size)[::-1]) for size in values.shape)
    frame = np.minimum(rows[:, None], columns[None, :]).ravel()
    mean = np.bincount(frame, values.ravel()) / np.bincount(frame)
    return np.arange(len(mean), dtype=np.float64) + 0.5, np.asarray(mean, np.float64)


def plot_pair(part: Part, place: int, samples: TestSamples, main: str) -> Figure:
    """Maps of a pair: input, regression where there is one, members, mean and spread of the ensemble, truth."""
    fields: dict[str, Fields] = {}
    units: dict[str, str] = {}
    for name, truth in part.truth.items():
        if name == WIND:
            continue
        own: dict[str, NDArray[np.floating]] = {}
        if name in part.coarse:
            own["input"] = part.coarse[name].values[place]
        if samples.mean_name == REGRESSION:
            own[REGRESSION] = part.products[REGRESSION][name].values[place]
        if samples.members:
            own |= _of_ensemble(part.products[main][name].values[place])
        own[TRUTH] = truth.values[place]
        fields[name], units[name] = own, str(truth.attrs.get("units", ""))
    time = str(samples.time_of(int(part.pair[place])).astype("datetime64[m]")).replace("T", " ")
    return _maps(fields, units, map_grid(samples), f"{time} UTC, pair {part.pair[place]}")


def plot_case(product: Mapping[str, xr.Dataset]) -> Figure:
    """Maps of one case of a product.

    Args:
        product: its groups without the dimension ``time``, see :func:`~downscaling.corrdiff.product.make_product`.
    """
    fields: dict[str, Fields] = {}
    units: dict[str, str] = {}
    for name, array in product["prediction" if "prediction" in product else REGRESSION].data_vars.items():
        own: dict[str, NDArray[np.floating]] = {}
        for group in ("input", REGRESSION):
            if group in product and name in product[group]:
                own[group] = product[group][name].values
        if "prediction" in product:
            own |= _of_ensemble(product["prediction"][name].values)
        if TRUTH in product and name in product[TRUTH]:
            own[TRUTH] = product[TRUTH][name].values
        fields[str(name)], units[str(name)] = own, str(array.attrs.get("units", ""))
    root = product["/"]
    grid = MapGrid.of(float(root.attrs["spacing_km"]), root["lat"].values)
    return _maps(fields, units, grid, f"{root['valid'].item()}, pair {int(root['case'])}")


def _of_ensemble(members: NDArray[np.floating]) -> dict[str, NDArray[np.floating]]:
    """Some of the members, and the mean and the spread of all where there are several."""
    shown = {f"member {number + 1}": field for number, field in enumerate(members[:MEMBERS_SHOWN])}
    if len(members) < 2:
        return shown
    return shown | {"mean": members.mean(axis=0), SPREAD: members.std(axis=0, ddof=1)}


def _maps(fields: Mapping[str, Fields], units: Mapping[str, str], grid: MapGrid, title: str) -> Figure:
    """A row for each variable, with one colour scale for all values, and one for the spread."""
    columns = list(dict.fromkeys(column for own in fields.values() for column in own))
    if "input" in columns:
        columns = ["input", *(column for column in columns if column != "input")]
    shape = next(iter(next(iter(fields.values())).values())).shape
    for own in fields.values():
        shape = max(shape, *(field.shape for field in own.values()))
    tall = min(max(shape[0] / shape[1], 0.5), 2.0)
    with style():
        figure = new_figure(1.45 * len(columns) + 3.0, (1.4 * tall + 0.24) * len(fields) + 0.7, title=title)
        axes = figure.subplots(len(fields), len(columns), squeeze=False, sharex=True, sharey=True)
        for row, (name, own) in enumerate(fields.items()):
            # the colours of the truth, not of what a member has somewhere
            reference = own.get(TRUTH, own.get(REGRESSION, next(iter(own.values()))))
            colors, norm = colors_of(name, reference)
            image: Any = None
            spread: Any = None
            for ax, label in zip(axes[row], columns, strict=True):
                if row == 0:
                    ax.set_title(label)
                if label not in own:
                    # an empty frame that says so
                    what = "not an input" if label == "input" else "none"
                    ax.text(0.5, 0.5, what, ha="center", va="center", transform=ax.transAxes, color="#595959")
                    ax.set_aspect("equal")
                    _frame(ax)
                elif label == SPREAD:
                    largest = float(np.quantile(own[label], 0.999)) or 1.0
                    spread = _map(ax, own[label], grid, SPREAD_COLORS, Normalize(0, largest), shape)
                else:
                    image = _map(ax, own[label], grid, colors, norm, shape)
                ax.tick_params(labelbottom=row == len(fields) - 1, labelleft=ax is axes[row, 0])
            axes[row, 0].set_ylabel(f"{name}\ny [{grid.units}]")
            bars: dict[str, Any] = {"ax": axes[row], "pad": 0.012, "aspect": 12}
            unit = "" if units[name] in ("", "1") else f" [{format_units(units[name])}]"
            bar = figure.colorbar(image, extend="max" if name in POSITIVE else "both", **bars)
            bar.set_label(f"{name}{unit}")
            if isinstance(norm, BoundaryNorm):
                bar.ax.yaxis.set_major_locator(FixedLocator(list(norm.boundaries)))
                bar.ax.yaxis.set_minor_locator(FixedLocator([]))
            bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda tick, _: format_tick(tick)))
            if spread is not None:
                figure.colorbar(spread, extend="max", **bars).set_label(f"spread{unit}")
        for ax in axes[-1]:
            ax.set_xlabel(f"x [{grid.units}]")
        # ticks follow from the layout and the layout from ticks: drawn once only, labels on the left are cut off
        figure.draw_without_rendering()
    return figure


def colors_of(name: str, reference: NDArray[np.floating]) -> tuple[Colormap, Normalize]:
    """Colours of a variable, and what they stand for.

    Wind components have colours that diverge from 0; rain has fixed classes, with white for none; and other variables
    have the range of the reference.

    Args:
        name: of the variable.
        reference: a field that the range is taken from.
    """
    known = reference[np.isfinite(reference)]
    low, high, top = (float(value) for value in np.quantile(known, [0.005, 0.995, 0.998])) if known.size else (0, 1, 1)
    if name in RAIN and top >= RAIN_LEVELS[3]:
        last = next((place for place, level in enumerate(RAIN_LEVELS) if level >= top), len(RAIN_LEVELS) - 1)
        levels = RAIN_LEVELS[: max(last, 4) + 1]
        steps = cm.cmaps["devon_r"](np.linspace(0.12, 1, len(levels) - 1))
        colors = ListedColormap(["white", *steps[:-1]]).with_extremes(over=steps[-1])
        return colors, BoundaryNorm(levels, len(levels) - 1)
    if name in POSITIVE:
        return FROM_WHITE, Normalize(0, max(top, 1e-6))
    if low < 0 < high or any(name in pair for pair in WINDS):
        largest = max(-low, high, 1e-6)
        return DIVERGING, Normalize(-largest, largest)
    warm = name in TEMPERATURES or name.startswith("temperature")
    return TEMPERATURE_COLORS if warm else SEQUENTIAL, Normalize(low, max(high, low + 1e-6))


def _map(
    ax: Axes,
    values: NDArray[np.floating],
    grid: MapGrid,
    colors: Colormap,
    norm: Normalize,
    shape: Sequence[int] | None = None,
) -> Any:
    """A field over distances, within a frame."""
    rows, columns = shape or values.shape
    extent = (0.0, columns * grid.spacing, 0.0, rows * grid.spacing)
    image = ax.imshow(values, extent=extent, origin=grid.origin, cmap=colors, norm=norm, interpolation="nearest")
    _frame(ax)
    return image


def _frame(ax: Axes) -> None:
    ax.grid(visible=False)
    for side in ("top", "right"):
        ax.spines[side].set_visible(True)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(4, steps=(1, 2, 2.5, 5, 10)))
