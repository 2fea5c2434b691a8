import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

from ai4sim.probability_figures import (
    plot_corp,
    plot_fss,
    plot_performance,
    plot_pit,
    plot_reliability,
    plot_roc,
)
from ai4sim.style import COLORS, save
from ai4sim.verification import Interval, block_bootstrap
from ai4sim.verification.probabilistic import (
    base_rate,
    corp_curve,
    performance_curve,
    pit_density,
    pit_statistics,
    probability_statistics,
    reliability_curve,
    roc_area,
    roc_curve,
)
from ai4sim.verification.spatial import fss, probability_fss_statistics

THRESHOLDS = [0.25, 1.0, 2.5, 10.0]
DAY = xr.DataArray(np.arange(20) // 2, dims="sample")


def rain() -> tuple[dict[str, xr.DataArray], xr.DataArray]:
    rng = np.random.default_rng(0)
    first = rng.uniform(size=(20, 12, 12)) ** 3
    shares = np.array([1.0, 0.6, 0.4, 0.0])
    probability = xr.DataArray(
        first[:, None] * shares[:, None, None],
        dims=("sample", "threshold", "y", "x"),
        coords={"threshold": THRESHOLDS},
    )
    above = (rng.uniform(size=(20, 1, 12, 12)) < probability.values).sum(axis=1)
    amounts = xr.DataArray(np.array([0.0, 0.5, 2.0, 5.0])[above], dims=("sample", "y", "x"), attrs={"units": "mm"})
    return {"network": probability, "too low": probability**2}, amounts


@pytest.fixture(scope="module")
def statistics() -> dict[str, xr.Dataset]:
    models, observed = rain()
    return {
        name: probability_statistics(values, observed, reduce=["sample", "y", "x"], block=DAY)
        for name, values in models.items()
    }


def curves_of(statistics: dict[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    return {name: reliability_curve(part, seed=0, n_resamples=50) for name, part in statistics.items()}


def texts(figure: Figure) -> str:
    figure.draw_without_rendering()
    return "\n".join(str(text.get_text()) for text in figure.findobj(Text))


def line(ax, color: str, place: int = 0):
    return [found for found in ax.lines if found.get_color() == color][place]


def test_reliability_has_a_panel_and_a_histogram_for_each_threshold(statistics, tmp_path):
    curves = curves_of(statistics)
    figure = plot_reliability(curves, title="Reliability")
    panels = [ax for ax in figure.axes if ax.get_title(loc="left")]
    assert [ax.get_title(loc="left") for ax in panels] == ["≥ 0.25 mm", "≥ 1 mm", "≥ 2.5 mm", "≥ 10 mm"]
    assert len(figure.axes) == 8
    own = curves["network"].isel(threshold=1)
    for name, color in {"network": COLORS[0], "too low": COLORS[1]}.items():
        drawn = line(panels[1], color)
        np.testing.assert_array_equal(drawn.get_xdata(), curves[name]["forecast"].isel(threshold=1))
        np.testing.assert_array_equal(drawn.get_ydata(), curves[name]["observed"].isel(threshold=1))
    bars = next(part for part in panels[1].collections if isinstance(part, LineCollection))
    ends = np.array([segment[:, 1] for segment in bars.get_segments() if len(segment)])
    shown = own[["lower", "upper"]].dropna("bin")
    np.testing.assert_array_equal(ends, np.stack([shown["lower"], shown["upper"]], axis=1))
    strip = figure.axes[1]
    assert strip.get_yscale() == "log"
    assert strip.get_xlabel() == "forecast probability"
    found = texts(figure)
    for text in (
        "network",
        "too low",
        "90 % consistency bars",
        "reliable",
        "base rate",
        "skill against",
        "Reliability",
    ):
        assert text in found
    assert save(figure, tmp_path / "reliability.png").stat().st_size > 10_000


def test_curves_may_be_one_dataset_or_of_a_single_threshold(statistics):
    curves = curves_of(statistics)
    joined = xr.concat(list(curves.values()), xr.DataArray(list(curves), dims="model", name="model"))
    both = [texts(plot_reliability(part)) for part in (curves, joined)]
    assert both[0] == both[1]
    single = plot_roc({"network": roc_curve(statistics["network"].sel(threshold=1.0))})
    assert len(single.axes) == 1
    assert single.axes[0].get_title(loc="left") == "≥ 1 mm"


def test_areas_of_the_roc_are_in_its_legend(statistics):
    figure = plot_roc({name: roc_curve(part) for name, part in statistics.items()})
    for place in range(3):
        legend = figure.axes[place].get_legend()
        expected = [f"{float(roc_area(part.sum('block'))[place]):.3f}" for part in statistics.values()]
        assert [text.get_text() for text in legend.get_texts()] == expected
    # there was no event
    assert [text.get_text() for text in figure.axes[3].get_legend().get_texts()] == ["–", "–"]
    assert [ax.get_xlabel() for ax in figure.axes] == [
        "",
        "",
        "probability of false detection",
        "probability of false detection",
    ]
    assert figure.axes[0].get_xlabel() == ""


def test_isotonic_diagrams_have_miscalibration_and_discrimination_in_their_legend(statistics):
    curves = {name: corp_curve(part) for name, part in statistics.items()}
    figure = plot_corp(curves, title="Reliability")
    figure.draw_without_rendering()
    for place, ax in enumerate(figure.axes[:3]):
        expected = [f"{float(c['mcb'][place]):.2g}, {float(c['dsc'][place]):.2g}" for c in curves.values()]
        assert [text.get_text() for text in ax.get_legend().get_texts()] == expected
        drawn = line(ax, COLORS[0])
        assert (np.diff(drawn.get_ydata()) >= 0).all()
        assert drawn.get_xdata().max() <= 1
    # forecasts that are too low lie above the diagonal
    low = line(figure.axes[0], COLORS[1])
    assert (low.get_ydata() >= low.get_xdata() - 0.05).all()


def test_performance_has_isolines_and_marks_of_cuts(statistics):
    curves = {name: performance_curve(part) for name, part in statistics.items()}
    figure = plot_performance(curves, marks=(0.1, 0.5))
    marks = line(figure.axes[0], COLORS[0], 1)
    at = curves["network"].isel(threshold=0).sel(cut=[0.1, 0.5])
    np.testing.assert_array_equal(marks.get_xdata(), at["success_ratio"])
    np.testing.assert_array_equal(marks.get_ydata(), at["pod"])
    found = texts(figure)
    assert "warning from 0.1, 0.5" in found
    assert "success ratio" in found
    # the label of an isoline of the critical success index lies on it
    label = next(text for text in figure.axes[0].texts if text.get_text() == "0.3")
    ratio, detection = label.xy
    assert 1.0 / (1.0 / ratio + 1.0 / detection - 1.0) == pytest.approx(0.3)


def test_pit_histograms_share_a_scale_that_holds_all_of_them():
    rng = np.random.default_rng(0)
    values = {"calibrated": rng.uniform(size=(20, 200)), "narrow": rng.beta(0.5, 0.5, size=(20, 200))}
    histograms = {
        name: block_bootstrap(
            pit_statistics(xr.DataArray(part, dims=("sample", "point")), reduce=["sample", "point"], block=DAY),
            pit_density,
            seed=0,
            n_resamples=50,
        )
        for name, part in values.items()
    }
    figure = plot_pit(histograms, title="PIT")
    for ax, (name, histogram) in zip(figure.axes, histograms.items(), strict=True):
        assert ax.get_title(loc="left") == name
        np.testing.assert_array_equal([bar.get_height() for bar in ax.patches], histogram.value)
        assert ax.get_ylim()[0] == 0.0
        assert ax.get_ylim()[1] > float(histogram.upper.max())
    assert "calibrated" in texts(figure)
    bare = Interval(*(histograms["narrow"].value * scale for scale in (1.0, np.nan, np.nan)))
    assert not plot_pit({"one day": bare}).axes[0].collections


def test_fractions_skill_score_has_lengths_and_the_useful_level(statistics):
    models, observed = rain()
    scores = {
        name: block_bootstrap(
            probability_fss_statistics(values, observed, windows=[1, 3, 9], reduce="sample", block=DAY),
            fss,
            seed=0,
            n_resamples=50,
        )
        for name, values in models.items()
    }
    rate = base_rate(statistics["network"].sum("block"))
    figure = plot_fss(scores, base_rate=rate, spacing=4.0)
    ax = figure.axes[0]
    np.testing.assert_array_equal(line(ax, COLORS[0]).get_xdata(), [4.0, 12.0, 36.0])
    assert line(ax, "#000000").get_ydata()[0] == pytest.approx(0.5 + 0.5 * float(rate[0]))
    assert [ax.get_xlabel() for ax in figure.axes] == ["", "", "window length [km]", "window length [km]"]
    with pytest.raises(ValueError, match="give one for each of 4 thresholds"):
        plot_fss(scores, base_rate=rate[:2], spacing=4.0)
    with pytest.raises(ValueError, match="spacing=0: the distance"):
        plot_fss(scores, base_rate=rate, spacing=0)


def test_curves_that_cannot_be_drawn_are_named(statistics):
    curves = curves_of(statistics)
    with pytest.raises(ValueError, match="there are no curves"):
        plot_reliability({})
    with pytest.raises(ValueError, match="or with a dimension 'model'"):
        plot_reliability(curves["network"])
    with pytest.raises(ValueError, match=r"curve of 'network' has \['pod', 'pofd'\].*it needs \['forecast'"):
        plot_reliability({"network": roc_curve(statistics["network"])})
    with pytest.raises(ValueError, match="'too low' has other thresholds than that of 'network'"):
        plot_reliability({"network": curves["network"], "too low": curves["too low"].isel(threshold=[0, 1])})
    with pytest.raises(ValueError, match="select one lead time"):
        plot_roc({"network": roc_curve(statistics["network"]).expand_dims(lead_time=2)})
    with pytest.raises(ValueError, match="there are no histograms"):
        plot_pit({})
    values = xr.DataArray([1.0, 1.0], dims="bin")
    with pytest.raises(ValueError, match="it needs the dimension 'bin' with its edges"):
        plot_pit({"network": Interval(values, values, values)})
