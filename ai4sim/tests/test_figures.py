import matplotlib as mpl
import matplotlib.image
import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import BoundaryNorm, to_hex
from matplotlib.figure import Figure

from ai4sim import figures
from ai4sim.style import STYLE, format_latitude, format_tick
from ai4sim.verification import Scorecard
from ai4sim.verification.metrics import format_units, metric_title
from ai4sim.verification.sums import slices

DRAG = {"long_name": "zonal drag", "units": "m s-1 day-1"}


def field(*, n_lat: int = 12, units: str = "Pa") -> xr.DataArray:
    lat = xr.DataArray(np.linspace(-82.5, 82.5, n_lat), dims="lat", attrs={"units": "degrees_north"})
    scale = 1.0 if units == "Pa" else 0.01
    pressure = xr.DataArray(np.geomspace(1.0, 47_000.0, 9) * scale, dims="level", attrs={"units": units})
    values = 3.0 * np.sin(np.deg2rad(lat)) * xr.ones_like(pressure)
    return values.assign_coords(lat=lat, pressure=pressure).assign_attrs(DRAG).rename("dudt")


def profiles() -> xr.Dataset:
    rng = np.random.default_rng(0)
    dims = ("model", "level")
    data = xr.Dataset(
        {
            "rmse": (dims, rng.uniform(size=(3, 9)), DRAG | {"long_name": "RMSE"}),
            "r2": (dims, -rng.uniform(size=(3, 9))),
        },
        coords={"model": ["net", "ridge", "zero"]},
    )
    return data.assign_coords(pressure=field().pressure)


def texts(figure: Figure) -> str:
    figure.draw_without_rendering()
    return "\n".join(str(text.get_text()) for text in figure.findobj(mpl.text.Text))  # type: ignore[attr-defined]  # always has it


@pytest.fixture
def card() -> Scorecard:
    card = Scorecard(use_case="a", experiment="b", roles={"net": "model", "best": "oracle"})
    for model, value in {"ridge": 0.7, "net": 0.95, "bad": -40.0, "best": 0.99}.items():
        card.add(model=model, metric="mean_level_r2", value=value, lower=value - 0.02, upper=value + 0.01)
    card.add(model="net", metric="rmse", value=0.3, units="m s-1 day-1")
    return card


def test_profiles_have_the_top_at_the_top_in_hpa_on_a_log_axis():
    figure = figures.plot_profiles(profiles())
    rmse, r2 = figure.axes
    assert rmse.get_yscale() == "log"
    bottom, top = rmse.get_ylim()
    assert bottom == pytest.approx(470.0)
    assert top == pytest.approx(0.01)
    assert rmse.get_ylabel() == "pressure [hPa]"
    assert rmse.get_xlabel() == "RMSE [m s⁻¹ day⁻¹]"
    assert r2.get_xlabel() == "R²"
    net = rmse.lines[0]
    np.testing.assert_array_equal(net.get_xdata(), profiles()["rmse"].sel(model="net"))
    np.testing.assert_allclose(net.get_ydata(), field().pressure / 100.0)
    assert [line.get_label() for line in rmse.lines[:3]] == ["net", "ridge", "zero"]


def test_profiles_draw_bands_and_cut_r2_off_unless_told():
    data = profiles()
    banded = figures.plot_profiles(data, lower=data - 0.1, upper=data + 0.1)
    assert len(banded.axes[0].collections) == 3
    assert banded.axes[1].get_xlim()[0] == -0.25
    limited = figures.plot_profiles(data, limits={"r2": (-1.0, 1.0)})
    assert limited.axes[1].get_xlim() == (-1.0, 1.0)


def test_profiles_of_a_single_model_have_no_legend():
    figure = figures.plot_profiles(profiles().sel(model="net", drop=True))
    assert len(figure.axes[0].lines) == 2  # the profile and the zero line
    assert not figure.legends


def test_pressure_in_pa_and_in_hpa_give_the_same_axis():
    in_hpa = profiles().assign_coords(pressure=field(units="hPa").pressure)
    assert figures.plot_profiles(in_hpa).axes[0].get_ylim() == figures.plot_profiles(profiles()).axes[0].get_ylim()


def test_what_is_no_pressure_is_refused():
    with pytest.raises(ValueError, match="no 1-D pressure coordinate 'p'"):
        figures.plot_profiles(profiles(), pressure="p")
    data = profiles()
    with pytest.raises(ValueError, match="coordinate 'pressure' has units 'm': a pressure has one of Pa, hPa"):
        figures.plot_profiles(data.assign_coords(pressure=data.pressure.assign_attrs(units="m")))
    with pytest.raises(ValueError, match="not positive everywhere"):
        figures.plot_profiles(data.assign_coords(pressure=data.pressure * 0))


def test_cross_sections_share_symmetric_levels_and_one_colour_bar():
    truth = field()
    prediction = (truth * 1.2).assign_attrs(DRAG)
    figure = figures.plot_cross_sections(truth, prediction.T)
    *panels, bar = figure.axes
    meshes = [panel.collections[0] for panel in panels]
    assert len(panels) == 3
    assert all(mesh.norm is meshes[0].norm for mesh in meshes)
    norm = meshes[0].norm
    assert isinstance(norm, BoundaryNorm)
    np.testing.assert_allclose(norm.boundaries, -np.asarray(norm.boundaries)[::-1])
    assert bar.get_ylabel() == "zonal drag [m s⁻¹ day⁻¹]"
    difference = np.asarray(meshes[2].get_array())
    np.testing.assert_allclose(difference, 0.2 * truth.transpose("level", "lat"), rtol=1e-12)
    assert panels[0].get_ylabel() == "pressure [hPa]"
    assert panels[0].get_ylim()[0] > panels[0].get_ylim()[1]
    assert panels[2].get_title(loc="left") == "prediction − truth (at most 0.59)"
    assert "60°S" in texts(figure)


def test_cross_section_over_other_coordinates_is_linear():
    height = xr.DataArray([0.0, 1.0, 2.0], dims="z", attrs={"units": "km", "long_name": "height"})
    y = xr.DataArray([0.0, 5.0, 9.0, 12.0], dims="y", attrs={"units": "km", "long_name": "distance"})
    truth = xr.DataArray(np.arange(12.0).reshape(3, 4) - 5, dims=("z", "y"), coords={"z": height, "y": y})
    figure = figures.plot_cross_sections(truth, truth, x="y", y="z", difference=False)
    assert len(figure.axes) == 3
    assert figure.axes[0].get_yscale() == "linear"
    assert figure.axes[0].get_ylabel() == "height [km]"
    assert figure.axes[0].get_xlabel() == "distance [km]"


def test_cross_section_names_what_is_wrong():
    with pytest.raises(ValueError, match=r"truth has dimensions .* give a 2-D array with the coordinates 'lon'"):
        figures.plot_cross_sections(field(), field(), x="lon")
    with pytest.raises(ValueError, match="levels must increase and be symmetric"):
        figures.plot_cross_sections(field(), field(), levels=[0, 1, 2])


def test_levels_are_round_symmetric_and_leave_zero_out():
    values = xr.DataArray(np.linspace(-7.3, 2.0, 1000))
    levels = figures.symmetric_levels(values)
    np.testing.assert_allclose(levels, [*range(-8, 0), *range(1, 9)])
    assert len(figures.symmetric_levels(values * 0)) > 2
    np.testing.assert_allclose(figures.decade_levels(0.1, 10), [-10, -3, -1, -0.3, -0.1, 0.1, 0.3, 1, 3, 10])
    np.testing.assert_allclose(figures.decade_levels(1, 2), [-3, -1, 1, 3])
    with pytest.raises(ValueError, match="0 < smallest < largest"):
        figures.decade_levels(1.0, 0.5)


@pytest.mark.parametrize("symlog", [None, 0.01])
def test_density_counts_every_finite_pair_once(symlog):
    rng = np.random.default_rng(0)
    target = xr.DataArray(rng.standard_cauchy((600, 7)), dims=("sample", "level"), attrs=DRAG)
    target[5, 3] = np.nan
    prediction = xr.concat([target * 0.9, -target], xr.Variable("model", ["net", "ridge"])).transpose("level", ...)
    figure = figures.plot_density(prediction, target, symlog=symlog)
    *panels, bar = figure.axes
    assert [panel.get_title(loc="left") for panel in panels] == ["net", "ridge"]
    for panel in panels:
        assert np.ma.sum(panel.collections[0].get_array()) == target.size - 1
        assert panel.get_xlim() == panel.get_ylim()
    assert panels[0].get_xlabel() == "target: zonal drag [m s⁻¹ day⁻¹]"
    assert panels[0].get_xscale() == ("linear" if symlog is None else "asinh")
    assert bar.get_ylabel() == "values per bin"


def test_density_puts_the_target_on_the_horizontal_axis():
    target = xr.DataArray([0.0, 1.0, 1.0], dims="sample")
    prediction = xr.DataArray([0.0, 0.0, 0.0], dims="sample")
    counts = figures.plot_density(prediction, target, bins=2).axes[0].collections[0].get_array()
    np.testing.assert_array_equal(np.ma.filled(counts, 0).reshape(2, 2), [[1, 2], [0, 0]])


def test_density_refuses_nothing_and_a_linear_range_of_zero():
    empty = xr.DataArray([np.nan], dims="sample")
    with pytest.raises(ValueError, match="no finite value"):
        figures.plot_density(empty, empty)
    with pytest.raises(ValueError, match="symlog=0"):
        figures.plot_density(empty, empty, symlog=0)


def test_bars_show_values_intervals_roles_and_direction(card):
    figure = figures.plot_scorecard_bars(card, ["mean_level_r2", "rmse"])
    r2, rmse = figure.axes
    assert [label.get_text() for label in r2.get_yticklabels()] == ["net", "ridge", "bad", "best"]
    assert [bar.get_width() for bar in r2.patches] == [0.95, 0.7, -1.0, 0.99]
    colors = [to_hex(bar.get_facecolor()).upper() for bar in r2.patches]
    assert colors == [figures.ROLE_COLORS[role] for role in ("model", "baseline", "baseline", "oracle")]
    assert r2.get_xlabel() == "mean level R²\nhigher is better"
    assert rmse.get_xlabel() == "RMSE [m s⁻¹ day⁻¹]\nlower is better"
    written = texts(figure)
    assert "−40.000" in written
    assert {"model", "baseline", "oracle"} <= {text.get_text() for text in figure.legends[0].get_texts()}
    with pytest.raises(ValueError, match="the scorecard has no mae"):
        figures.plot_scorecard_bars(card, "mae")


def test_save_writes_a_whole_png_with_metadata_and_no_leftovers(card, tmp_path):
    figure = figures.plot_scorecard_bars(card, "mean_level_r2", title="Scores")
    path = figures.save(figure, tmp_path / "new" / "scores.png")
    assert path == tmp_path / "new" / "scores.png"
    image = matplotlib.image.imread(path)
    width, height = figure.get_size_inches()
    assert image.shape[:2] == (int(height * STYLE["savefig.dpi"]), int(width * STYLE["savefig.dpi"]))
    assert STYLE["savefig.dpi"] >= 150
    assert image[..., :3].std() > 0.05
    assert b"tEXtTitle\x00Scores" in path.read_bytes()
    assert [file.name for file in path.parent.iterdir()] == ["scores.png"]
    assert figures.save(figure, tmp_path / "scores.pdf").read_bytes().startswith(b"%PDF")


def test_failed_save_leaves_what_was_there(card, tmp_path, monkeypatch):
    path = figures.save(figures.plot_scorecard_bars(card, "rmse"), tmp_path / "a.png")
    before = path.read_bytes()

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="no space"):
        figures.save(figures.plot_scorecard_bars(card, "rmse"), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_style_ends_with_its_block():
    before = dict(mpl.rcParams)
    with figures.style():
        assert mpl.rcParams["axes.grid"] is True
    assert dict(mpl.rcParams) == before


def test_colours_differ_also_without_hue():
    # luminance (Rec. 709) of neighbours in the cycle: lines stay apart in grey and for any colour deficiency
    rgb = np.array([mpl.colors.to_rgb(color) for color in figures.COLORS[:4]])  # type: ignore[attr-defined]  # exists
    luminance = np.sort(rgb @ [0.2126, 0.7152, 0.0722])
    assert (np.diff(luminance) > 0.02).all()


@pytest.mark.parametrize(
    ("units", "shown"),
    [("m s-1 day-1", "m s⁻¹ day⁻¹"), ("(m s-1)2", "(m s⁻¹)²"), ("K", "K"), ("10", "10"), ("", "")],
)
def test_units_are_written_with_raised_exponents(units, shown):
    assert format_units(units) == shown


def test_texts_for_the_eye():
    assert metric_title("mean_level_r2") == "mean level R²"
    assert metric_title("mse_skill_scheme_4x20") == "MSE skill against scheme_4x20"
    assert format_tick(-0.3) == "−0.3"
    assert [format_latitude(value) for value in (-60, 0, 30)] == ["60°S", "0°", "30°N"]
    assert (
        figures.axis_label(xr.DataArray(0.0, name="surface_pressure", attrs={"units": "Pa"})) == "surface pressure [Pa]"
    )
    assert figures.axis_label(xr.DataArray(0.0, name="r2", attrs={"units": "1"})) == "R²"


def test_slices_cover_an_array_once():
    array = xr.DataArray(np.zeros((5, 700, 300)), dims=("a", "b", "c"))
    for part in slices(array, array.dims):
        array[part] += 1
    np.testing.assert_array_equal(array, 1)
