"""Figures of a run: labelled arrays in, PNG files out."""

from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ai4sim.figures import (
    COLORS,
    DIVERGING,
    TRUTH_COLOR,
    axis_label,
    decade_levels,
    new_figure,
    plot_cross_sections,
    plot_density,
    plot_profiles,
    plot_scorecard_bars,
    pressure_axis,
    save,
    style,
    symmetric_levels,
)
from ai4sim.verification import Scorecard

SHOWN_BASELINES = ("ridge", "scheme_4x20")
ORACLE = "scheme_without_latitude"
SEASONS = {"november_march": ("November to March", (305, 90)), "may_september": ("May to September", (121, 273))}
BAND = 12.0  # degrees of latitude
BAND_NAMES = {"test_lat_0_20": "0–20°", "test_lat_20_60": "20–60°", "test_lat_60_90": "60–90°"}


def plot_all(folder: Path, scorecard: Scorecard, profiles: xr.Dataset, excerpt: xr.Dataset) -> list[Path]:
    """Draw every figure that the data allow.

    Args:
        folder: where the PNG files go.
        scorecard: of the run.
        profiles: scores by (model, level).
        excerpt: truth and products of some test columns, see ``TestSamples.excerpt``.

    Returns:
        The files.
    """
    model = next(name for name in scorecard.models if scorecard.role(name) == "model")
    shown = [model, *SHOWN_BASELINES]
    figures = {
        "scores": plot_scorecard_bars(
            scorecard, ["r2", "mean_level_r2", "rmse"], title="Test scores with 95 % intervals"
        ),
        "scores_by_level": plot_level_scores(profiles.sel(model=[*shown, ORACLE])),
        "columns": plot_columns(excerpt, model),
        "density": plot_density(
            excerpt["drag"].sel(model=shown), excerpt["truth"], symlog=0.1, title="Every tendency of the test columns"
        ),
    }
    if "lat" in excerpt.coords:
        figures["scores_by_latitude"] = plot_latitude_scores(scorecard, [*shown, ORACLE])
    if {"lat", "doy"} <= set(excerpt.coords):
        for name, (title, days) in SEASONS.items():
            section = zonal_mean(excerpt, days)
            if section is not None:
                figures[f"cross_section_{name}"] = plot_cross_sections(
                    section["truth"],
                    section["drag"].sel(model=model),
                    levels=decade_levels(0.1, 100.0),
                    names=("truth", model),
                    title=f"Zonal-mean zonal drag, {title}",
                )
    return [save(figure, folder / f"{name}.png") for name, figure in figures.items()]


def plot_level_scores(profiles: xr.Dataset) -> Figure:
    """RMSE (log axis: it falls by four decades), bias and R2 over pressure."""
    shown = profiles[["rmse", "bias", "r2"]]
    shown["rmse"].attrs["long_name"], shown["bias"].attrs["long_name"] = "RMSE", "mean error"
    shown["r2"].attrs["long_name"] = "R²"
    figure = plot_profiles(shown, title="Scores by level, both components pooled")
    rmse, bias, _ = figure.axes
    rmse.set_xscale("log")
    # the line at zero must not stretch the axis
    values = shown["rmse"].where(shown["rmse"] > 0)
    rmse.set_xlim(0.7 * float(values.min()), 1.4 * float(values.max()))
    # errors of either sign over the same four decades
    bias.set_xscale("symlog", linthresh=1e-2)
    bias.set_xticks([-1e-1, -1e-2, 0, 1e-2, 1e-1], ["−0.1", "−0.01", "0", "0.01", "0.1"])
    return figure


def plot_columns(excerpt: xr.Dataset, model: str) -> Figure:
    """Six columns, their larger component: three of median error and three of the worst decile."""
    drag, truth = excerpt["drag"].sel(model=model), excerpt["truth"]
    error = ((drag - truth) ** 2).mean(["component", "level"]).values ** 0.5
    order = np.argsort(error)
    middle, worst = len(order) // 2, int(0.95 * len(order))
    chosen = [*order[middle : middle + 3], *order[worst : worst + 3]][: len(order)]
    pressure = excerpt["pressure"].values / 100.0
    names = {"dudt": "zonal", "dvdt": "meridional"}
    with style():
        figure = new_figure(10.5, 6.2, title=f"Test columns of median (top) and of large (bottom) error of {model}")
        axes = figure.subplots(2, 3, sharey=True)
        for ax, column in zip(axes.flat, chosen, strict=False):
            one = excerpt.isel(sample=int(column))
            component = str(one["component"].values[int(np.abs(one["truth"].values).max(axis=1).argmax())])
            lines = {"truth": one["truth"], **{name: one["drag"].sel(model=name) for name in (model, "scheme_4x20")}}
            for (name, values), color in zip(lines.items(), (TRUTH_COLOR, COLORS[0], COLORS[1]), strict=True):
                ax.plot(
                    values.sel(component=component), pressure, color=color, label=name,
                    linestyle="--" if name == "scheme_4x20" else "-", linewidth=2.4 if name == "truth" else 1.3,
                )  # fmt: skip
            ax.set_xscale("symlog", linthresh=0.1, linscale=0.6)
            place = ""
            if "lat" in one.coords:
                latitude = float(one["lat"])
                day = f"day {float(one['doy']):.0f}, " if "doy" in one.coords else ""
                place = f"{abs(latitude):.0f}° {'S' if latitude < 0 else 'N'}, {day}"
            ax.set_title(f"{place}{names[component]}, RMSE {error[column]:.2f}")
        pressure_axis(axes[0, 0], pressure)
        axes[1, 0].set_ylabel("pressure [hPa]")
        for ax in axes[1]:
            ax.set_xlabel(axis_label(truth))
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def plot_latitude_scores(scorecard: Scorecard, models: list[str]) -> Figure:
    """Overall and mean-level R2 in three latitude bands, with intervals."""
    with style():
        figure = new_figure(8.4, 3.6, title="Test scores by |latitude|")
        axes = figure.subplots(1, 2, sharey=True)
        for ax, metric, label in zip(axes, ("r2", "mean_level_r2"), ("overall R²", "mean-level R²"), strict=True):
            for i, model in enumerate(models):
                values = []
                for split in BAND_NAMES:
                    try:
                        row = scorecard.row(model, metric, split=split)
                        values.append((row["value"], row["lower"], row["upper"]))
                    except KeyError:
                        values.append((np.nan, np.nan, np.nan))
                value, lower, upper = np.array(values).T
                position = np.arange(len(BAND_NAMES)) + 0.12 * (i - (len(models) - 1) / 2)
                ax.errorbar(
                    position,
                    value,
                    [value - lower, upper - value],
                    fmt="o",
                    ms=4,
                    capsize=2.5,
                    color=COLORS[i],
                    label=model,
                )
            ax.set_xticks(range(len(BAND_NAMES)), list(BAND_NAMES.values()))
            ax.set_xlabel("|latitude|")
            ax.set_ylabel(label)
            ax.grid(visible=False, axis="x")
        axes[1].tick_params(labelleft=True)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(models))
    return figure


def zonal_mean(excerpt: xr.Dataset, days: tuple[int, int]) -> xr.Dataset | None:
    """Zonal-mean zonal drag in latitude bands between two days of the year; None where there are too few columns.

    Args:
        excerpt: with coordinates ``lat`` and ``doy``.
        days: first and last day; the season may run over the new year.
    """
    doy: NDArray[np.float32] = excerpt["doy"].values
    first, last = days
    inside = (doy >= first) & (doy <= last) if first <= last else (doy >= first) | (doy <= last)
    edges = np.arange(-90, 90 + BAND, BAND)
    counts = np.histogram(excerpt["lat"].values[inside], edges)[0]
    if inside.sum() < 200 or (counts < 3).any():
        return None
    part = excerpt[["truth", "drag"]].sel(component="dudt", drop=True).isel(sample=inside)
    bands = part.groupby_bins("lat", edges, labels=edges[:-1] + BAND / 2).mean("sample").rename(lat_bins="lat")
    bands = bands.assign_coords(lat=bands["lat"].astype(float), pressure=excerpt["pressure"])
    bands["lat"].attrs = {"long_name": "latitude", "units": "degrees_north"}
    for name in ("truth", "drag"):
        bands[name].attrs = {"long_name": "zonal drag", "units": excerpt["truth"].attrs["units"]}
    return bands


def plot_coupled(result: xr.Dataset) -> Figure:
    """Time-height sections of the coupled column's wind: scheme above emulator, one column of panels per upwelling.

    Args:
        result: of :func:`weather_forecast.gwd.stability.compare`.
    """
    wind = result["u"].where((result["pressure"] >= 1) & (result["pressure"] <= 100), drop=True)
    years = wind["time"].values / 365
    pressure = wind["pressure"].values
    levels = symmetric_levels(wind, quantile=0.98)
    with style():
        figure = new_figure(10.5, 5.4, title="Zonal wind of the coupled equatorial column")
        axes = figure.subplots(result.sizes["drag"], result.sizes["column"], sharex=True, sharey=True, squeeze=False)
        for row, name in zip(axes, result["drag"].values, strict=True):
            for column, ax in enumerate(row):
                one = wind.sel(drag=name).isel(column=column)
                image = ax.contourf(years, pressure, one.values.T, levels, cmap=DIVERGING, extend="both")
                half_period = float(result["half_period"].sel(drag=name).isel(column=column))
                upwelling = 1000 * float(result["upwelling"][column])
                found = "no oscillation" if np.isnan(half_period) else f"half-period {half_period:.0f} days"
                ax.set_title(f"{name}, w* = {upwelling:.1f} mm s⁻¹")
                box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 2}
                ax.text(0.98, 0.04, found, transform=ax.transAxes, ha="right", fontsize="small", bbox=box)
        pressure_axis(axes[0, 0], pressure)
        for ax in axes[:, 0]:
            ax.set_ylabel("pressure [hPa]")
        for ax in axes[-1]:
            ax.set_xlabel("time [years]")
        figure.colorbar(image, ax=axes, label=axis_label(wind, units="m s-1"), shrink=0.8)
    return figure
