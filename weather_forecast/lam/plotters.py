"""Figures of limited-area forecasts; labelled arrays in, figures out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import BoundaryNorm, Colormap
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from ai4sim.atomic import atomic_path
from ai4sim.figures import (
    COLORS,
    DENSITY,
    DIVERGING,
    SEQUENTIAL,
    TRUTH_COLOR,
    axis_label,
    new_figure,
    style,
    symmetric_levels,
)
from ai4sim.style import save
from ai4sim.verification import Scorecard
from ai4sim.verification.metrics import MINUS, format_units
from weather_forecast.lam.parameters import Parameter

SKILL_LEVELS: Final = np.array([-1, -0.75, -0.5, -0.25, -0.1, 0, 0.1, 0.25, 0.5, 0.75, 1])
LOOKS: Final = {
    "persistence": {"color": "#8C8C8C", "linestyle": "--"},
    "climatology": {"color": "#8C8C8C", "linestyle": ":"},
    "host": {"color": COLORS[1], "linestyle": "-."},
}
GIF_FRAMES_PER_SECOND: Final = 3


def title_of(name: str) -> str:
    """What a figure calls a parameter."""
    return Parameter.parse(name).title


def plot_skill_by_lead(card: Scorecard, model: str, parameters: Sequence[str], baseline: str = "persistence") -> Figure:
    """Skill of a model against a baseline: parameters as rows, lead times as columns, RMSE in units as numbers.

    Args:
        card: scores by parameter and lead time.
        model: whose.
        parameters: the rows.
        baseline: what skill 0 is.
    """
    frame = card.frame
    own = frame[(frame["model"] == model) & frame["lead_time"].notna() & frame["threshold"].isna()]
    skill, rmse = (
        own[own["metric"] == metric]
        .pivot_table(index="variable", columns="lead_time", values="value")
        .reindex(list(parameters))
        for metric in (f"rmse_skill_{baseline}", "rmse")
    )
    with style():
        figure = new_figure(
            1.9 + 0.52 * skill.shape[1], 1.5 + 0.28 * len(skill), title=f"{model}: skill against {baseline}, and RMSE"
        )
        ax = figure.subplots()
        norm = BoundaryNorm(SKILL_LEVELS, DIVERGING.N, extend="min")
        # reversed: better than the baseline is blue
        image = ax.imshow(skill.values, cmap=DIVERGING.reversed(), norm=norm, aspect="auto")
        for (row, column), value in np.ndenumerate(rmse.values):
            shade = abs(skill.values[row, column])
            ax.text(
                column, row, _short(value), ha="center", va="center", fontsize=6.5,
                color="white" if shade > 0.25 else "black",
            )  # fmt: skip
        units = [f"{title_of(name)} [{format_units(Parameter.parse(name).units)}]" for name in parameters]
        ax.set_yticks(range(len(units)), units)
        ax.set_xticks(range(skill.shape[1]), [f"{lead:g}" for lead in skill.columns])
        ax.set_xlabel("lead time [h]")
        ax.grid(visible=False)
        ax.tick_params(length=0)
        bar = figure.colorbar(image, ax=ax, label=f"1 {MINUS} RMSE / RMSE of {baseline}", pad=0.01)
        bar.set_ticks(SKILL_LEVELS[::2].tolist())
    return figure


def _short(value: float) -> str:
    """Three significant digits without an exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if value >= 0.01 else f"{value:.1g}"


def plot_scores_by_lead(card: Scorecard, metric: str, parameters: Sequence[str], models: Sequence[str]) -> Figure:
    """A score over lead time: a panel per parameter, a line with its 95 % band per product.

    Args:
        card: scores by parameter and lead time.
        metric: which.
        parameters: the panels.
        models: the lines; a product that lacks a parameter has none there.
    """
    columns = min(4, len(parameters))
    rows = -(-len(parameters) // columns)
    with style():
        figure = new_figure(
            2.6 * columns + 0.3, 2.0 * rows + 0.7, title=f"{metric.upper()} by lead time, 95 % intervals"
        )
        axes = figure.subplots(rows, columns, sharex=True, squeeze=False)
        for ax, name in zip(axes.flat, parameters, strict=False):
            for index, model in enumerate(models):
                part = _by_lead(card, model, metric, name)
                if part.empty:
                    continue
                look = LOOKS.get(model, {"color": COLORS[index], "linestyle": "-"})
                ax.plot(part["lead_time"], part["value"], label=model, **look)
                ax.fill_between(part["lead_time"], part["lower"], part["upper"], color=look["color"], alpha=0.18, lw=0)
            ax.set_title(title_of(name))
            units = "" if metric == "acc" else f" [{format_units(Parameter.parse(name).units)}]"
            ax.set_ylabel(f"{metric.upper()}{units}")
            if metric == "rmse":
                ax.set_ylim(bottom=0)
            ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 3, 6, 10]))
        for ax in axes.flat[len(parameters) :]:
            ax.set_visible(False)
        for ax in axes[-1]:
            ax.set_xlabel("lead time [h]")
        handles = {
            label: handle for ax in axes.flat for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))
    return figure


def _by_lead(card: Scorecard, model: str, metric: str, name: str) -> pd.DataFrame:
    frame = card.frame
    chosen = (frame["model"] == model) & (frame["metric"] == metric) & (frame["variable"] == name)
    return frame[chosen & frame["lead_time"].notna() & frame["threshold"].isna()].sort_values("lead_time")


def plot_maps(
    truth: xr.DataArray, forecast: xr.DataArray, *, model: str, leads: Sequence[int], title: str | None = None
) -> Figure:
    """Truth, forecast and difference at some lead times; the coast or the orography as thin lines.

    Args:
        truth: (lead_time, lat, lon) with the coordinates longitude and latitude, and geopotential or land_sea_mask.
        forecast: likewise.
        model: name of the forecast.
        leads: indices of the lead times.
        title: of the figure.
    """
    difference = (forecast - truth).assign_attrs(truth.attrs)
    levels, colours = _levels(truth)
    spread = symmetric_levels(difference.isel(lead_time=list(leads)))
    aspect = truth.sizes["lon"] / truth.sizes["lat"]
    with style():
        figure = new_figure(2.5 * len(leads) * min(aspect, 1.4) + 1.4, 6.2, title=title)
        axes = figure.subplots(3, len(leads), sharex=True, sharey=True, squeeze=False)
        for column, lead in enumerate(leads):
            for row, (name, field, shown, colour_map) in enumerate(
                (("truth", truth, levels, colours), (model, forecast, levels, colours),
                 (f"{model} {MINUS} truth", difference, spread, DIVERGING))
            ):  # fmt: skip
                ax = axes[row, column]
                one = field.isel(lead_time=lead)
                image = _fill(ax, one, shown, colour_map)
                _geography(ax, truth)
                ax.set_title(f"{name}, +{float(one['lead_time']):g} h")
                if column == len(leads) - 1 and row != 0:
                    label = axis_label(truth) if row == 1 else f"difference [{format_units(truth.attrs['units'])}]"
                    bar = figure.colorbar(image, ax=axes[:2] if row == 1 else axes[2], label=label, shrink=0.9)
                    _label_levels(bar, shown, colour_map)
        _map_axes(axes)
    return figure


def _levels(truth: xr.DataArray) -> tuple[np.ndarray, Colormap]:
    """Contour levels and colours: amounts are white below the first level, winds have colours for either sign."""
    units = truth.attrs.get("units")
    if units == "kg m-2" and float(truth.min()) >= 0:
        return np.array([0.1, 0.2, 0.5, 1, 2, 5, 10]), DENSITY
    if units == "m s-1" and float(truth.min()) < 0:
        return symmetric_levels(truth), DIVERGING
    return np.asarray(MaxNLocator(10).tick_values(*np.nanquantile(truth, [0.002, 0.998]))), SEQUENTIAL


def _fill(ax: Axes, field: xr.DataArray, levels: np.ndarray, colours: Colormap) -> ContourSet:
    """Filled contours with colours that are as far apart as their number allows, however the levels are spaced."""
    extend: Literal["max", "both"] = "max" if colours is DENSITY or levels[0] == 0 else "both"
    norm = BoundaryNorm(levels, colours.N, extend=extend)
    return ax.contourf(field["longitude"], field["latitude"], field, levels, cmap=colours, norm=norm, extend=extend)


def _label_levels(bar: Colorbar, levels: np.ndarray, colours: Colormap) -> None:
    """Label the same levels above and below zero, where there are both."""
    if colours is not DIVERGING:
        return
    positive = levels[levels > 0]
    positive = positive[::-1][:: 1 if len(positive) < 6 else 2][::-1]
    bar.set_ticks([*-positive[::-1], *levels[levels == 0], *positive])
    bar.ax.minorticks_off()


def _geography(ax: Axes, field: xr.DataArray) -> None:
    """Coast where it is known, else heights, and the edge of the border."""
    if "land_sea_mask" in field.coords:
        ax.contour(field["longitude"], field["latitude"], field["land_sea_mask"], [0.5], colors="k", linewidths=0.6)
    elif "geopotential" in field.coords and float(field["geopotential"].max()) > float(field["geopotential"].min()):
        height = field["geopotential"] / 9.81
        ax.contour(field["longitude"], field["latitude"], height, [40, 500, 1000, 2000], colors="k", linewidths=0.5)
    if "border" in field.coords and float(field["border"].max()) > 0:
        ax.contour(
            field["longitude"],
            field["latitude"],
            field["border"] > 0,
            [0.5],
            colors="#7F7F7F",
            linewidths=0.9,
            linestyles="--",
        )


def _map_axes(axes: np.ndarray) -> None:
    for ax in axes.flat:
        ax.grid(visible=False)
    for ax in axes[:, 0]:
        ax.set_ylabel("latitude [°N]")
    for ax in axes[-1]:
        ax.set_xlabel("longitude [°E]")


def plot_error_maps(errors: xr.DataArray, *, leads: Sequence[int], title: str | None = None) -> Figure:
    """Root mean square error at every point at some lead times, one colour scale.

    Args:
        errors: (lead_time, lat, lon) with the coordinates longitude, latitude and border.
        leads: indices of the lead times.
        title: of the figure.
    """
    shown = errors.isel(lead_time=list(leads))
    free = shown.where(shown["border"] == 0)
    levels = np.asarray(MaxNLocator(9).tick_values(0, float(free.quantile(0.995))))
    aspect = errors.sizes["lon"] / errors.sizes["lat"]
    with style():
        figure = new_figure(1.9 * len(leads) * min(aspect, 1.4) + 1.2, 2.4, title=title)
        axes = figure.subplots(1, len(leads), sharex=True, sharey=True, squeeze=False)
        for ax, one in zip(axes.flat, shown, strict=True):
            image = _fill(ax, one, levels, SEQUENTIAL)
            # what is prescribed is no forecast
            ax.contourf(one["longitude"], one["latitude"], one["border"], [0.5, 1.5], colors="white", alpha=0.65)
            _geography(ax, one)
            ax.set_title(f"+{float(one['lead_time']):g} h")
        figure.colorbar(image, ax=axes, label=axis_label(errors))
        _map_axes(axes)
    return figure


def plot_spectra(spectra: xr.Dataset, parameters: Sequence[str], *, model: str, leads: Sequence[float]) -> Figure:
    """Variance spectra of truth and forecasts over wavelength: a panel per parameter, a line per lead time.

    Args:
        spectra: ``prediction`` and ``target`` (parameter, lead_time, wavelength), in the squared unit.
        parameters: the panels.
        model: name of the forecast.
        leads: lead times, h.
    """
    columns = min(4, len(parameters))
    rows = -(-len(parameters) // columns)
    wavelength = spectra["wavelength"].values
    shades = SEQUENTIAL(np.linspace(0.1, 0.75, len(leads)))
    with style():
        figure = new_figure(2.6 * columns + 0.3, 2.2 * rows + 0.7, title=f"Variance spectra of truth and {model}")
        axes = figure.subplots(rows, columns, sharex=True, squeeze=False)
        for ax, name in zip(axes.flat, parameters, strict=False):
            one = spectra.sel(parameter=name)
            ax.loglog(wavelength, one["target"].mean("lead_time"), color=TRUTH_COLOR, lw=2.2, label="truth")
            for lead, shade in zip(leads, shades, strict=True):
                values = one["prediction"].sel(lead_time=lead)
                ax.loglog(wavelength, values, color=shade, lw=1.2, label=f"{model}, +{lead:g} h")
            ax.set_title(title_of(name))
            # eight decades: what is below is rounding, in the truth's smoothest fields
            ax.set_ylim(bottom=1e-8 * float(one["target"].max()))
            ax.set_ylabel(f"variance [{format_units(_squared(Parameter.parse(name).units))}]")
            ax.xaxis.set_minor_formatter(NullFormatter())
        axes[0, 0].invert_xaxis()
        for ax in axes.flat[len(parameters) :]:
            ax.set_visible(False)
        for ax in axes[-1]:
            ax.set_xlabel("wavelength [km]")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def _squared(units: str) -> str:
    return f"{units}2" if units.isalpha() else f"({units})2"


def animate(truth: xr.DataArray, forecast: xr.DataArray, path: Path, *, model: str, title: str) -> Path:
    """Truth beside forecast, a frame per lead time, as a GIF.

    Args:
        truth: (lead_time, lat, lon), as :func:`plot_maps` takes it.
        forecast: likewise.
        path: file to write.
        model: name of the forecast.
        title: of the animation.
    """
    levels, colours = _levels(truth)
    with style():
        figure = new_figure(8.6, 3.4, title=title)
        axes = figure.subplots(1, 2, sharex=True, sharey=True, squeeze=False)
        bar = None

        def draw(lead: int) -> list[Axes]:
            nonlocal bar
            for ax, (name, field) in zip(axes.flat, (("truth", truth), (model, forecast)), strict=True):
                ax.clear()
                one = field.isel(lead_time=lead)
                image = _fill(ax, one, levels, colours)
                _geography(ax, truth)
                ax.set_title(f"{name}, +{float(one['lead_time']):g} h")
            _map_axes(axes)
            if bar is None:
                bar = figure.colorbar(image, ax=axes, label=axis_label(truth))
                _label_levels(bar, levels, colours)
            return list(axes.flat)

        animation = FuncAnimation(figure, draw, frames=truth.sizes["lead_time"])
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as partial:
            animation.save(partial, writer=PillowWriter(fps=GIF_FRAMES_PER_SECOND), dpi=90)
    return path


def save_all(figures: dict[str, Figure], folder: Path) -> list[Path]:
    """Write figures as PNG files."""
    return [save(figure, folder / f"{name}.png") for name, figure in figures.items()]
