"""Figures: which there are, and what is written in them."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure

from ai4sim.verification import Scorecard
from downscaling.corrdiff import map_figures, plotters
from downscaling.corrdiff.map_figures import MapGrid, by_distance, colors_of, plot_case
from downscaling.corrdiff.samples import TestSamples
from downscaling.corrdiff.sums import Sums
from downscaling.corrdiff.tests.synthetic_predictions import exchangeable, make_predictions, opened_tiny, perfect

TITLES = ["10 m wind to the east", "10 m wind to the north", "2 m temperature", "precipitation", "10 m wind speed"]


def drawn(predictions: xr.Dataset) -> dict[str, Figure]:
    """All figures of a run by the name of their files."""
    samples = TestSamples(predictions)
    sums = Sums(samples)
    for part in samples.parts():
        sums.add(part)
    main = samples.model if samples.members else samples.mean_name
    card = Scorecard(use_case="downscaling/corrdiff", experiment="demo", roles={main: "model"})
    for name in sums.names:
        for metric in ("crps", "rmse", "lsd", "ssr"):
            card.add(model=main, metric=metric, value=1.0, variable=name, units="K", n=1)
    figures: dict[str, Figure] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plotters, "save", lambda figure, path: figures.update({path.stem: figure}))
        plotters.plot_all(Path("figures"), plotters.Results(card, sums, samples, main))
    return figures


@pytest.fixture(scope="module")
def figures(tiny_data) -> dict[str, Figure]:
    return drawn(make_predictions(opened_tiny(tiny_data), exchangeable, 4, pairs=4))


def labels(figure: Figure) -> set[str]:
    axes = figure.get_axes()
    return {text for ax in axes for text in (ax.get_xlabel(), ax.get_ylabel(), ax.get_title(loc="left")) if text}


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_figures_of_an_ensemble(figures):
    scores = {f"scores_{name}" for name in ("10u", "10v", "2t", "tp", "wind_speed")}
    others = {"spectra", "wind_spectra", "distributions", "ranks", "spread_skill", "correlations", "error_maps"}
    maps = {name for name in figures if name.startswith("maps_")}
    assert len(maps) == 3
    assert set(figures) == scores | others | {"temperature_wind"} | maps
    for figure in figures.values():
        assert figure.get_suptitle()


def test_figures_of_a_regression(tiny_data):
    figures = drawn(make_predictions(opened_tiny(tiny_data), perfect, 0, pairs=1, analogs=0))
    assert {"ranks", "spread_skill", "correlations"}.isdisjoint(figures)
    assert {"spectra", "wind_spectra", "distributions", "error_maps", "temperature_wind"} <= set(figures)
    (maps,) = (figure for name, figure in figures.items() if name.startswith("maps_"))
    assert {"input", "regression", "truth"} <= labels(maps)
    assert "spread" not in labels(maps)
    assert figures["error_maps"].get_suptitle() == "Absolute error of regression by place in the domain"


def test_figures_of_a_run_without_a_regression(tiny_data):
    predictions = make_predictions(opened_tiny(tiny_data), exchangeable, 2, pairs=1)
    figures = drawn(predictions.assign_attrs(model="diffusion"))
    assert legend(figures["error_maps"]) == ["diffusion", "analogs", "climatology (absolute error)"]
    assert legend(figures["spectra"])[:3] == ["diffusion", "bicubic", "truth"]
    (maps,) = (figure for name, figure in figures.items() if name.startswith("maps_"))
    assert {"regression", "climatology"}.isdisjoint(labels(maps))


def test_panels_are_in_one_order(figures):
    for name in ("ranks", "spread_skill"):
        assert [ax.get_title(loc="left") for ax in figures[name].get_axes()] == TITLES
    maps = [ax.get_title(loc="left") for ax in figures["error_maps"].get_axes()]
    assert [title for title in maps if title] == TITLES


def test_spectra_name_units_and_products(figures):
    assert {"wavelength [km]", "ratio to truth", *TITLES[:4]} <= labels(figures["spectra"])
    assert legend(figures["spectra"])[:4] == ["corrdiff", "regression", "bicubic", "truth"]
    found = labels(figures["wind_spectra"])
    assert {"kinetic energy", "divergence", "vorticity", "[(s⁻¹)² km]"} <= found
    assert not any(text.startswith("slope") for text in legend(figures["wind_spectra"]))


def test_temperature_and_wind(figures, tmp_path):
    figure = figures["temperature_wind"]
    panels = [ax.get_title(loc="left") for ax in figure.get_axes()]
    assert panels[:4] == ["truth", "corrdiff", "regression", "analogs"]
    assert {"10 m wind speed [m s⁻¹]", "2 m temperature [K]", "density [(K m s⁻¹)⁻¹]"} <= labels(figure)
    assert legend(figure) == ["50, 90, 99 % of the truth"]
    figure.savefig(tmp_path / "a.png", dpi=40)


def test_contours_hold_their_share_of_the_truth():
    density = np.array([[4.0, 3.0], [2.0, 1.0]])
    assert [plotters._level_of(density, mass) for mass in (0.3, 0.5, 0.7, 0.95)] == [4, 3, 3, 1]


def test_errors_by_distance_from_the_border(figures):
    values = np.array([[1.0, 1, 1, 1], [1, 5, 7, 1], [1, 1, 1, 1]])
    distance, mean = by_distance(values)
    assert distance.tolist() == [0.5, 1.5]
    assert mean.tolist() == [1, 6]
    assert {"distance from the border [km]", "CRPS [K]", "[K]", "x [km]", "y [km]"} <= labels(figures["error_maps"])
    assert legend(figures["error_maps"]) == ["corrdiff", "analogs", "regression (absolute error)"]


def test_maps_share_a_scale(figures, tmp_path):
    figure = next(figure for name, figure in figures.items() if name.startswith("maps_"))
    columns = ["input", "regression", "member 1", "member 2", "member 3", "mean", "spread", "truth"]
    axes = figure.get_axes()[:32]
    assert [ax.get_title(loc="left") for ax in axes[:8]] == columns
    for row, name in enumerate(("10u", "10v", "2t", "tp")):
        own = axes[8 * row : 8 * row + 8]
        norms = {
            id(ax.images[0].norm) for ax, column in zip(own, columns, strict=True) if ax.images and column != "spread"
        }
        assert len(norms) == 1
        assert own[0].get_ylabel() == f"{name}\ny [km]"
    assert not axes[24].images
    assert [text.get_text() for text in axes[24].texts] == ["not an input"]
    assert {"2t [K]", "tp [mm h⁻¹]", "spread [K]"} <= labels(figure)
    figure.savefig(tmp_path / "a.png")
    assert all(ax.yaxis.label.get_window_extent().x0 > 0 for ax in axes[::8])


class TestColors:
    def test_winds_diverge_from_zero(self):
        for values in (np.linspace(-2, 9, 100), np.linspace(3, 9, 100)):
            _, norm = colors_of("10u", values)
            assert norm.vmin == -norm.vmax
            assert norm.vmax == pytest.approx(9, abs=0.1)

    def test_rain_has_classes_and_white_for_none(self):
        colors, norm = colors_of("tp", np.linspace(0, 12, 1000))
        assert isinstance(norm, BoundaryNorm)
        assert list(norm.boundaries) == [0, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20]
        assert colors(norm(0.05))[:3] == (1, 1, 1)
        assert colors(norm(0.15))[:3] != (1, 1, 1)
        assert colors(norm(50.0)) != colors(norm(15.0))

    def test_faint_rain_and_reflectivity_begin_with_white(self):
        for name, top in (("tp", 1e-3), ("maximum_radar_reflectivity", 45.0)):
            colors, norm = colors_of(name, np.linspace(0, top, 1000))
            assert norm.vmin == 0
            assert norm.vmax == pytest.approx(top, rel=0.01)
            assert colors(norm(0.0))[:3] == (1, 1, 1)

    def test_temperatures_have_the_range_of_the_reference(self):
        colors, norm = colors_of("2t", np.linspace(270, 290, 1000))
        assert colors is map_figures.TEMPERATURE_COLORS
        assert (norm.vmin, norm.vmax) == pytest.approx((270.1, 289.9))

    def test_a_constant_field_has_a_scale(self):
        for name in ("2t", "10u", "tp", "q2m"):
            _, norm = colors_of(name, np.zeros((4, 4)))
            assert norm.vmax > norm.vmin


def test_rows_go_north_or_south():
    south_first, north_first = np.array([[40.0], [41.0]]), np.array([[41.0], [40.0]])
    assert MapGrid.of(3.0, south_first) == MapGrid(3.0, "km", "lower")
    assert MapGrid.of(float("nan"), north_first) == MapGrid(1.0, "points", "upper")


def test_a_case_without_truth_and_input(tmp_path):
    random = np.random.default_rng(0)
    members = xr.Dataset({"radar": (("ensemble", "y", "x"), random.normal(size=(2, 6, 12)), {"units": "dBZ"})})
    root = xr.Dataset(
        {"lat": ("y", np.arange(6.0)), "case": 7, "valid": "2021-06-01 00:00 UTC"}, attrs={"spacing_km": 2.0}
    )
    figure = plot_case({"/": root, "prediction": members})
    assert [ax.get_title(loc="left") for ax in figure.get_axes()][:4] == ["member 1", "member 2", "mean", "spread"]
    assert figure.get_suptitle() == "2021-06-01 00:00 UTC, pair 7"
    figure.savefig(tmp_path / "a.png", dpi=40)
