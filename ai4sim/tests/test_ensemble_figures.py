import numpy as np
import pytest
import xarray as xr
from matplotlib.text import Text

from ai4sim.ensemble_figures import plot_distributions, plot_line_spectra, plot_rank_histograms, plot_spread_skill
from ai4sim.style import COLORS, TRUTH_COLOR, save
from ai4sim.verification import (
    cell_band,
    distribution_curve,
    histogram_statistics,
    line_spectrum,
    line_statistics,
    rank_curve,
    rank_statistics,
    spread_skill_curve,
    spread_skill_statistics,
    value_edges,
)

UNITS = {"2 m temperature": "K", "10 m wind": "m s-1"}
PRODUCTS = {"diffusion": 5, "analog noise": 3}


@pytest.fixture(scope="module")
def samples():
    """Target, and members of each product, by variable."""
    rng = np.random.default_rng(0)
    coords = {"day": ("sample", np.arange(8) // 2)}
    result = {}
    for name, units in UNITS.items():
        draw = [np.cumsum(rng.normal(size=(8, size, 16, 32)), axis=-1) for size in (1, *PRODUCTS.values())]
        arrays = [
            xr.DataArray(v, dims=("sample", "member", "y", "x"), coords=coords, attrs={"units": units}) for v in draw
        ]
        result[name] = (arrays[0][:, 0], dict(zip(PRODUCTS, arrays[1:], strict=True)))
    return result


def panels_of(samples, curve):
    return {
        name: {product: curve(members, target) for product, members in products.items()}
        for name, (target, products) in samples.items()
    }


def texts(figure) -> str:
    figure.draw_without_rendering()
    return "\n".join(str(text.get_text()) for text in figure.findobj(Text))


COMMON = {"reduce": ["sample", "y", "x"], "block": "day"}


def ranks(members, target):
    return rank_curve(rank_statistics(members, target, **COMMON), seed=0, n_resamples=20)


def pairs(members, target):
    return spread_skill_curve(spread_skill_statistics(members, target, **COMMON), bins=4, seed=0, n_resamples=20)


def spectra_of(samples, *, truth: bool = True):
    panels = {}
    for name, (target, products) in samples.items():
        sums = {p: line_statistics(m, target, spacing=3.0, reduce=["sample", "y"]) for p, m in products.items()}
        panels[name] = {"truth": line_spectrum(sums["diffusion"], of="target")} if truth else {}
        panels[name] |= {product: line_spectrum(part, of="prediction") for product, part in sums.items()}
    return panels


def densities_of(samples):
    panels = {}
    for name, (target, products) in samples.items():
        edges = value_edges(target, *products.values())
        sums = {
            p: histogram_statistics(m, target, edges=edges, reduce=["sample", "y", "x"]) for p, m in products.items()
        }
        panels[name] = {"truth": distribution_curve(sums["diffusion"], of="target")}
        panels[name] |= {product: distribution_curve(part, of="prediction") for product, part in sums.items()}
    return panels


def test_rank_histograms_have_steps_and_a_band(samples, tmp_path):
    panels = panels_of(samples, ranks)
    figure = plot_rank_histograms(panels, title="Ranks")
    assert [ax.get_title(loc="left") for ax in figure.axes] == list(UNITS)
    for ax, curves in zip(figure.axes, panels.values(), strict=True):
        band, *steps = ax.patches
        np.testing.assert_array_equal(band.get_data().values, curves["diffusion"]["upper"])
        np.testing.assert_array_equal(band.get_data().baseline, curves["diffusion"]["lower"])
        for step, curve in zip(steps, curves.values(), strict=True):
            np.testing.assert_array_equal(step.get_data().values, curve["frequency"])
        assert ax.get_ylim()[0] == 0.0
        assert ax.get_xlabel() == "rank of the truth among the members"
    assert figure.axes[0].get_ylabel() == "relative frequency (flat: 1)"
    found = texts(figure)
    for text in ("diffusion", "analog noise", "95 % band of a flat histogram, diffusion", "lowest", "highest", "Ranks"):
        assert text in found
    assert save(figure, tmp_path / "ranks.png").stat().st_size > 10_000


def test_ranks_of_ensembles_of_one_size_are_numbered(samples):
    panels = {"2 m temperature": {"diffusion": panels_of(samples, ranks)["2 m temperature"]["diffusion"]}}
    figure = plot_rank_histograms(panels)
    figure.draw_without_rendering()
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["1", "2", "3", "4", "5", "6"]


def test_spread_and_error_share_their_axes(samples):
    panels = panels_of(samples, pairs)
    figure = plot_spread_skill(panels)
    for ax, (name, curves) in zip(figure.axes, panels.items(), strict=True):
        units = {"K": "K", "m s-1": "m s⁻¹"}[UNITS[name]]
        assert ax.get_xlabel() == f"spread [{units}]"
        assert ax.get_ylabel() == f"RMSE of the mean [{units}]"
        assert ax.get_xlim() == ax.get_ylim()
        lines = {line.get_color(): line for line in ax.lines}
        for color, curve in zip(COLORS, curves.values(), strict=False):
            np.testing.assert_array_equal(lines[color].get_xdata(), curve["spread"].dropna("bin"))
            np.testing.assert_array_equal(lines[color].get_ydata(), curve["rmse"].dropna("bin"))
        np.testing.assert_array_equal(lines[TRUTH_COLOR].get_xdata(), lines[TRUTH_COLOR].get_ydata())
    assert "spread equals error" in texts(figure)


def test_spectra_fall_to_the_right_above_their_ratio(samples):
    panels = spectra_of(samples)
    figure = plot_line_spectra(panels, band=cell_band(3.0, 8))
    assert len(figure.axes) == 4
    for place, (name, spectra) in enumerate(panels.items()):
        ax, strip = figure.axes[2 * place : 2 * place + 2]
        assert ax.get_title(loc="left") == name
        assert ax.get_xscale() == ax.get_yscale() == "log"
        assert ax.get_xlim() == (96.0, 6.0)
        lines = {line.get_color(): line for line in ax.lines}
        np.testing.assert_array_equal(lines[TRUTH_COLOR].get_ydata(), spectra["truth"])
        np.testing.assert_array_equal(lines[COLORS[0]].get_ydata(), spectra["diffusion"])
        np.testing.assert_array_equal(lines[COLORS[0]].get_xdata(), spectra["truth"]["wavelength"])
        ratios = {line.get_color(): line for line in strip.lines}
        np.testing.assert_allclose(ratios[COLORS[1]].get_ydata(), spectra["analog noise"] / spectra["truth"])
        assert strip.get_xlabel() == "wavelength [km]"
    assert figure.axes[0].get_ylabel() == "power density [K² km]"
    assert figure.axes[2].get_ylabel() == "[(m s⁻¹)² km]"
    assert figure.axes[1].get_ylabel() == "ratio to truth"
    found = texts(figure)
    for text in ("truth", "slope −5/3", "not resolved by the coarse grid"):
        assert text in found


def test_spectra_without_a_truth_have_no_ratio(samples):
    figure = plot_line_spectra(spectra_of(samples, truth=False), truth=None, slope=None)
    assert len(figure.axes) == 2
    assert figure.axes[0].get_xlabel() == "wavelength [km]"
    with pytest.raises(ValueError, match="panel '2 m temperature' has no spectrum 'truth'"):
        plot_line_spectra(spectra_of(samples, truth=False))
    panels = spectra_of(samples)
    panels["10 m wind"]["diffusion"] = panels["10 m wind"]["diffusion"][:-1]
    with pytest.raises(ValueError, match="spectrum 'diffusion' is at other wavelengths"):
        plot_line_spectra(panels)


def test_distributions_are_logarithmic_with_marks_at_their_quantiles(samples):
    panels = densities_of(samples)
    figure = plot_distributions(panels, title="Distributions")
    for ax, curves in zip(figure.axes, panels.values(), strict=True):
        assert ax.get_yscale() == "log"
        lines = [line for line in ax.lines if len(line.get_xdata()) > 1]
        assert [line.get_color() for line in lines] == [TRUTH_COLOR, *COLORS[:2]]
        marks = [line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 1]
        np.testing.assert_array_equal(marks, np.concatenate([curve["value"] for curve in curves.values()]))
        heights = [line.get_ydata()[0] for line in ax.lines if len(line.get_ydata()) == 1]
        assert np.isfinite(heights).all()
        density = curves["truth"]["density"]
        np.testing.assert_array_equal(lines[0].get_ydata(), density.where(density > 0))
    assert [ax.get_xlabel() for ax in figure.axes] == ["2 m temperature [K]", "10 m wind [m s⁻¹]"]
    assert [ax.get_ylabel() for ax in figure.axes] == ["density [K⁻¹]", "density [(m s⁻¹)⁻¹]"]
    found = texts(figure)
    for text in ("99 % quantile", "99.9 % quantile", "99.99 % quantile", "truth"):
        assert text in found


@pytest.mark.parametrize("plot", [plot_rank_histograms, plot_spread_skill, plot_line_spectra, plot_distributions])
def test_nothing_and_other_curves_are_refused(plot):
    for nothing in ({}, {"t": {}}):
        with pytest.raises(ValueError, match="nothing to plot"):
            plot(nothing)
    wrong = xr.Dataset({"other": ("z", [1.0])})
    with pytest.raises(ValueError, match="curve 'truth' of panel 't' needs"):
        plot({"t": {"truth": wrong["other"] if plot is plot_line_spectra else wrong}})
