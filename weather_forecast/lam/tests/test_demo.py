"""The demo's raw files: schema, dates, realism, and that they are whole or not there."""

import json
import re
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from ai4sim.errors import InputError
from weather_forecast.lam import config, demo
from weather_forecast.lam.demo import SIZES, DemoSettings, Geography, Simulation, write_demo
from weather_forecast.lam.parameters import Parameter
from weather_forecast.lam.solar import toa_radiation

TINY = DemoSettings(size="tiny")
SINGLE = {
    "2m_temperature": ("K", "heightAboveGround"),
    "2m_relative_humidity": ("%", "heightAboveGround"),
    "total_precipitation": ("kg m-2", "surface"),
    "10m_u_component_of_wind": ("m s-1", "heightAboveGround"),
    "10m_v_component_of_wind": ("m s-1", "heightAboveGround"),
}
ISOBARIC = {
    "geopotential": "m2 s-2",
    "temperature": "K",
    "u_component_of_wind": "m s-1",
    "v_component_of_wind": "m s-1",
}
STATIC = {"geopotential_at_surface": "m2 s-2", "land_sea_mask": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    assert write_demo(folder, TINY) == folder / "demo.zarr"
    return folder


@pytest.fixture(scope="module")
def dataset(folder) -> xr.Dataset:
    return xr.open_zarr(folder / "demo.zarr", chunks=None).load()


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return write_demo(tmp_path_factory.mktemp("tree"), replace(TINY, layout="npy"))


# Schema


def test_store_has_titans_variables_dimensions_and_units(dataset):
    host = {f"host_{name}": units for name, units in ISOBARIC.items()}
    assert set(dataset.data_vars) == {*SINGLE, *ISOBARIC, *host, *STATIC}
    assert dict(dataset.sizes) == {"time": 40, "latitude": 24, "longitude": 32, "level": 3}
    for name, (units, type_level) in SINGLE.items():
        assert dataset[name].dims == ("time", "latitude", "longitude")
        assert (dataset[name].attrs["units"], dataset[name].attrs["type_level"]) == (units, type_level)
    for name, units in {**ISOBARIC, **host}.items():
        assert dataset[name].dims == ("time", "latitude", "longitude", "level")
        assert (dataset[name].attrs["units"], dataset[name].attrs["type_level"]) == (units, "isobaricInhPa")
    for name, units in STATIC.items():
        assert dataset[name].dims == ("latitude", "longitude")
        assert dataset[name].attrs["units"] == units
    for name, variable in dataset.data_vars.items():
        assert variable.dtype == np.float32, name
        assert np.isfinite(variable.values).all(), name
        assert {"long_name", "short_name", "units", "type_level"} <= set(variable.attrs), name
    np.testing.assert_array_equal(dataset.level, [250, 500, 850])
    assert dataset.level.attrs["units"] == "hPa"
    assert dataset.host_geopotential.attrs["short_name"] == "arp_z"
    assert dataset.host_geopotential.attrs["long_name"] == "geopotential of the host model"
    assert dataset.total_precipitation.attrs["cell_methods"] == "time: sum (interval: 3 hours)"


def test_store_is_of_format_two_with_one_time_per_chunk(folder):
    metadata = json.loads((folder / "demo.zarr" / ".zmetadata").read_text())["metadata"]
    for name in SINGLE:
        assert metadata[f"{name}/.zarray"]["zarr_format"] == 2
        assert metadata[f"{name}/.zarray"]["chunks"] == [1, 24, 32]
    for name in ISOBARIC:
        assert metadata[f"{name}/.zarray"]["chunks"] == [1, 24, 32, 3]
        assert metadata[f"{name}/.zattrs"]["_ARRAY_DIMENSIONS"] == ["time", "latitude", "longitude", "level"]
        # what is not written is missing, never zero
        assert metadata[f"{name}/.zarray"]["fill_value"] == "NaN"
    assert sorted(path.name for path in folder.iterdir()) == ["demo.zarr"]


def test_times_are_three_periods_three_days_apart(dataset):
    assert TINY.periods == {
        "train": (date(2023, 4, 1), date(2023, 4, 3)),
        "validation": (date(2023, 4, 7), date(2023, 4, 7)),
        "test": (date(2023, 4, 11), date(2023, 4, 11)),
    }
    np.testing.assert_array_equal(dataset.time, TINY.times())
    times = dataset.time.values
    assert (times[0], times[-1]) == (np.datetime64("2023-04-01T00"), np.datetime64("2023-04-11T21"))
    steps, counts = np.unique(np.diff(times) / np.timedelta64(1, "h"), return_counts=True)
    np.testing.assert_array_equal(steps, [3, 75])
    np.testing.assert_array_equal(counts, [37, 2])
    missing = np.array(dataset.attrs["missing_dates"], "datetime64[s]")
    assert len(missing) == 48
    whole = np.sort(np.concatenate([times.astype("datetime64[s]"), missing]))
    np.testing.assert_array_equal(np.diff(whole), np.timedelta64(3, "h"))
    assert dataset.attrs["periods"]["test"] == ["2023-04-11", "2023-04-11"]


def test_default_dates():
    settings = DemoSettings()
    assert settings.periods == {
        "train": (date(2023, 4, 1), date(2023, 6, 29)),
        "validation": (date(2023, 7, 3), date(2023, 7, 10)),
        "test": (date(2023, 7, 14), date(2023, 7, 25)),
    }
    assert [len(settings.times(split)) for split in ("train", "validation", "test")] == [720, 64, 96]
    assert DemoSettings(size="tiny", train=2, step=6).days == {"train": 2, "validation": 1, "test": 1}


def test_rows_go_north_and_columns_east(dataset):
    for name, first, last in (("latitude", 34.75, 57.75), ("longitude", -13.75, 17.25)):
        assert dataset[name].values[[0, -1]].tolist() == [first, last]
        assert (np.diff(dataset[name]) == 1.0).all()
    # colder and with lower pressure surfaces in the north
    for name in ("geopotential", "temperature"):
        profile = dataset[name].sel(level=500).mean(("time", "longitude"))
        assert profile[0] > profile[-1]
    statics = Geography(SIZES["default"]).statics()
    assert statics["geopotential_at_surface"].shape == (48, 64)
    assert statics["latitude"][[0, -1]].tolist() == [34.5, 58.0]
    assert statics["longitude"][[0, -1]].tolist() == [-14.0, 17.5]


def test_land_is_where_the_surface_is_high(dataset):
    height = dataset.geopotential_at_surface / 9.81
    assert float(height.max()) == pytest.approx(1200, rel=1e-3)
    np.testing.assert_array_equal(dataset.land_sea_mask, (height >= 40).astype(np.float32))
    summit = height.argmax(["latitude", "longitude"])
    t2m = dataset["2m_temperature"].mean("time")
    assert float(t2m[summit] - t2m[:, 0].mean()) < -2


def test_attributes_are_the_statistics_of_the_training_period(dataset):
    assert dataset.attrs["statistics_period"] == ["2023-04-01", "2023-04-03"]
    train = dataset.sel(time=slice("2023-04-01", "2023-04-03"))
    assert train.time.size == 24
    for name in (*SINGLE, *ISOBARIC, "host_temperature"):
        values, attributes = train[name].astype(float), dataset[name].attrs
        dims = ("time", "latitude", "longitude")
        for key, expected in (
            ("mean", values.mean(dims)),
            ("std", values.std(dims)),
            ("min", values.min(dims)),
            ("max", values.max(dims)),
            ("std_diff_3", values.diff("time").std(dims)),
            ("std_diff_6", (values - values.shift(time=2))[2:].std(dims)),
            ("std_diff_12", (values - values.shift(time=4))[4:].std(dims)),
        ):
            np.testing.assert_allclose(attributes[key], expected, rtol=1e-5)
            assert isinstance(attributes[key], list) == ("level" in values.dims)
        assert "std_diff_1" not in attributes


def test_fields_of_three_levels_are_in_balance(dataset):
    spacing, f = dataset.attrs["grid_spacing"], dataset.attrs["coriolis_parameter"]
    assert spacing == pytest.approx(8.0e6 / 48)
    z = dataset.geopotential
    for wind, axis, sign in (("u_component_of_wind", "latitude", -1), ("v_component_of_wind", "longitude", 1)):
        slope = sign * (z.shift({axis: -1}) - z.shift({axis: 1})) / (2 * spacing * f)
        both = xr.broadcast(slope, dataset[wind])
        inside = np.isfinite(both[0])
        assert np.corrcoef(both[0].values[inside], both[1].values[inside])[0, 1] > 0.97


def test_rain_is_that_since_the_time_before():
    runs = {step: Simulation(DemoSettings(size="tiny", step=step)) for step in (1, 3)}
    for run in runs.values():
        for _ in range(36 // run.settings.step):
            flow = run.advance()
        run.fields(flow)
    rain = demo.Raw("aro", "tp", 0)
    hourly = [runs[1].fields(runs[1].advance())[rain] for _ in range(3)]
    np.testing.assert_allclose(runs[3].fields(runs[3].advance())[rain], sum(hourly), rtol=1e-5)
    assert sum(hourly).max() > 0


def test_the_run_ends_on_the_clock_of_the_data_and_the_sun_is_that_of_the_clock(dataset):
    run = Simulation(TINY)
    assert run.time == np.datetime64("2023-03-29T00")
    run.advance()
    assert run.time == np.datetime64("2023-03-29T03")
    # the ground follows the sun with some hours of delay
    land = dataset.land_sea_mask == 1
    t2m = dataset["2m_temperature"].sel(time="2023-04-02").where(land)
    hottest = t2m.mean(("latitude", "longitude")).values.argmax() * 3
    assert hottest in (12, 15, 18)
    radiation = toa_radiation(t2m.time.values, dataset.latitude, dataset.longitude)
    assert radiation[0].max() == 0
    assert radiation.mean((1, 2)).argmax() * 3 == 12
    sea = dataset["2m_temperature"].sel(time="2023-04-02").where(~land).mean(("latitude", "longitude"))
    assert t2m.mean(("latitude", "longitude")).std() > 3 * sea.std()


# The npy tree


def test_tree_has_titans_file_names(tree):
    assert tree.relative_to(tree.parents[1]) == Path("subdatasets/demo_QG48_12-36-8-40")
    dates = sorted(path.name for path in (tree / "data").iterdir())
    assert len(dates) == 40
    assert (dates[0], dates[1], dates[-1]) == ("2023-04-01_00h00", "2023-04-01_03h00", "2023-04-11_21h00")
    names = {path.name for path in (tree / "data" / dates[7]).iterdir()}
    single = {"aro_t2m_2m.npy", "aro_r2_2m.npy", "aro_tp_0m.npy", "aro_u10_10m.npy", "aro_v10_10m.npy"}
    isobaric = {f"{s}_{f}_{level}hpa.npy" for s in ("aro", "arp") for f in "ztuv" for level in (250, 500, 850)}
    assert names == single | isobaric
    for name in names:
        assert Parameter.parse(name.removesuffix(".npy")).name + ".npy" == name


def test_both_layouts_hold_the_same_fields(tree, dataset):
    for time in dataset.time.values[[0, 23, 24, 39]]:
        folder = tree / "data" / str(time.astype("datetime64[m]")).replace("T", "_").replace(":", "h")
        for path in sorted(folder.iterdir()):
            parameter = Parameter.parse(path.stem)
            values = np.load(path, allow_pickle=False)
            assert values.dtype == np.float32
            variable = config.FIELDS[parameter.short].zarr
            expected = dataset[f"host_{variable}" if parameter.source == "arp" else variable].sel(time=time)
            if parameter.is_isobaric:
                expected = expected.sel(level=parameter.level)
            np.testing.assert_array_equal(values, expected, err_msg=path.name)
    for path in (tree / "static").iterdir():
        np.testing.assert_array_equal(np.load(path, allow_pickle=False), dataset[path.stem])
    assert {path.stem for path in (tree / "static").iterdir()} == {"latitude", "longitude", *STATIC}


def test_tree_has_titans_statistics(tree, dataset):
    values = torch.load(tree / "parameters_stats.pt", weights_only=True)
    differences = torch.load(tree / "diff_stats.pt", weights_only=True)
    assert len(values) == len(differences) == 29
    assert set(values["aro_t2m_2m"]) == {"mean", "std", "min", "max"}
    z = dataset.geopotential.sel(time=slice("2023-04-01", "2023-04-03"), level=850).astype(float)
    assert float(values["aro_z_850hpa"]["std"]) == pytest.approx(float(z.std()), rel=1e-5)
    # differences are those of standardised values
    assert float(differences["aro_z_850hpa"]["std"]) == pytest.approx(float(z.diff("time").std() / z.std()), rel=1e-4)
    mean = float(z.diff("time").mean() / z.std())
    assert float(differences["aro_z_850hpa"]["mean"]) == pytest.approx(mean, rel=1e-3)
    note = json.loads((tree / "demo.json").read_text())
    assert len(note["missing_dates"]) == 48


# Whole or not there


def test_same_seed_gives_the_same_values_and_another_does_not(dataset, tmp_path):
    again = xr.open_zarr(write_demo(tmp_path / "a", TINY), chunks=None)
    xr.testing.assert_identical(again.load(), dataset)
    other = xr.open_zarr(write_demo(tmp_path / "b", replace(TINY, seed=1)), chunks=None)
    assert float(np.abs(other.geopotential - dataset.geopotential).mean()) > 100
    xr.testing.assert_equal(other.land_sea_mask, dataset.land_sea_mask)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("layout", ["zarr", "npy"])
def test_a_killed_run_leaves_nothing_that_looks_whole_and_the_next_one_makes_it(
    layout, dataset, tree, tmp_path, monkeypatch
):
    settings = replace(TINY, layout=layout)
    target = tmp_path / settings.path
    real = demo.simulate

    def killed(settings: DemoSettings):
        for number, moment in enumerate(real(settings)):
            if number == 60:
                raise Killed
            yield moment

    monkeypatch.setattr(demo, "simulate", killed)
    with pytest.raises(Killed):
        write_demo(tmp_path, settings)
    assert not target.exists()
    assert target.with_name(f"{target.name}.partial").exists()
    monkeypatch.setattr(demo, "simulate", real)
    assert write_demo(tmp_path, settings) == target
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    if layout == "zarr":
        xr.testing.assert_identical(xr.open_zarr(target, chunks=None).load(), dataset)
    else:
        path = Path("data") / "2023-04-07_12h00" / "aro_u_250hpa.npy"
        np.testing.assert_array_equal(np.load(target / path), np.load(tree / path))
        assert sum(1 for _ in (target / "data").rglob("*.npy")) == 40 * 29


def test_data_with_the_same_settings_are_kept(folder, tree, monkeypatch):
    monkeypatch.setattr(demo, "simulate", lambda settings: pytest.fail("made again"))
    assert write_demo(folder, replace(TINY, train=3)) == folder / "demo.zarr"
    assert write_demo(tree.parents[1], replace(TINY, layout="npy")) == tree


@pytest.mark.parametrize("change", [{"seed": 1}, {"train": 4}, {"layout": "npy"}, {"size": "default"}, {"step": 1}])
def test_data_with_other_settings_are_refused(folder, change):
    message = rf"{re.escape(str(folder))} holds a demo with other settings .*: remove .*demo\.zarr, or name another dat"
    with pytest.raises(InputError, match=message):
        write_demo(folder, replace(TINY, **change))


def test_a_tree_with_other_settings_is_refused(tree):
    with pytest.raises(InputError, match=r"holds a demo with other settings .*: remove .*demo_QG48_12-36-8-40"):
        write_demo(tree.parents[1], TINY)


@pytest.mark.parametrize("path", ["demo.zarr", "subdatasets/titan_PAAROME_1S40_100-612-240-880"])
def test_other_data_are_never_touched(tmp_path, path):
    (tmp_path / path).mkdir(parents=True)
    (tmp_path / path / ".zattrs").write_text('{"title": "real"}')
    with pytest.raises(InputError, match=rf"{path} is no demo: point the demo at an empty folder"):
        write_demo(tmp_path, TINY)
    assert (tmp_path / path / ".zattrs").read_text() == '{"title": "real"}'


def test_an_unwritable_folder_is_named(tmp_path):
    (tmp_path / "raw").write_text("a file")
    with pytest.raises(InputError, match=r"cannot write the demo to .*raw: Not a directory|raw: File exists"):
        write_demo(tmp_path / "raw", TINY)


def test_an_unstable_flow_is_reported_with_its_date(tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "tiny", SIZES["tiny"]._replace(time_step=1800.0))
    message = r"demo: the simulated wind of \S+ m/s at 2023-03-\d\dT\d\d:00 is beyond 31 m/s, .* another seed than 7"
    with pytest.raises(InputError, match=message):
        write_demo(tmp_path, replace(TINY, seed=7))
    assert not (tmp_path / "demo.zarr").exists()


def test_a_flow_that_is_not_finite_is_reported():
    run = Simulation(TINY)
    run.truth.potential_vorticity[0, 3, 3] = np.nan
    with pytest.raises(InputError, match=r"demo: the simulated wind of nan m/s at 2023-03-29T03:00 is beyond"):
        run.advance()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": "huge"}, "demo: size 'huge' is unknown; choose default or tiny"),
        ({"layout": "grib"}, "demo: layout 'grib' is unknown; choose zarr or npy"),
        ({"validation": 0}, "demo: the validation period has 0 days; at least 1 is needed"),
        ({"step": 5}, "demo: step must divide the 24 hours of a day, 5 does not"),
        ({"step": 0}, "demo: step must divide the 24 hours of a day, 0 does not"),
        ({"seed": -1}, "demo: the seed must not be negative, it is -1"),
        ({"start": "April"}, "demo: start 'April' is no date such as 2023-04-01"),
    ],
)
def test_impossible_settings_are_refused(values, message):
    with pytest.raises(InputError, match=re.escape(message)):
        DemoSettings(**values)


# Realism of the default size

REALISM_DAYS = 20


@pytest.fixture(scope="module")
def climate() -> dict[str, np.ndarray]:
    """Fields of the limited area over some days, and spectra of kinetic energy of the whole domain."""
    run = Simulation(DemoSettings())
    fields, spectra = [], []
    for number in range((SIZES["default"].spin_up + REALISM_DAYS) * 8):
        flow = run.advance()
        if number >= SIZES["default"].spin_up * 8:
            fields.append(run.fields(flow))
            cut = run.truth.truncation
            energy = cut.k2 * np.abs(run.truth.invert(run.truth.potential_vorticity)) ** 2
            wave = np.rint(np.sqrt(cut.index2)).astype(int)
            spectra.append([np.bincount(wave.ravel(), weights=layer.ravel()) for layer in energy])
        else:
            run.surface.collect_rain()
    result = {f"{raw.source}_{raw.short}": np.stack([f[raw] for f in fields]) for raw in demo.FIELDS}
    return {**result, "spectrum": np.mean(spectra, axis=0), "land": run.surface.land[24:72, 16:80]}


@pytest.mark.slow
def test_weather_is_like_weather(climate):
    assert climate["aro_u"][..., 0].std() == pytest.approx(17, abs=3)
    assert np.abs(climate["aro_u"][..., 0]).max() < 120
    assert climate["aro_z"][..., 0].std() / 9.81 == pytest.approx(229, rel=0.2)
    assert climate["aro_z"][..., 2].std() / 9.81 == pytest.approx(82, rel=0.2)
    assert climate["aro_t"][..., 1].std() == pytest.approx(4.6, rel=0.2)
    assert 240 < climate["aro_t"][..., 1].mean() < 262
    assert 0 <= climate["aro_r2"].min() < climate["aro_r2"].max() <= 100


@pytest.mark.slow
def test_rain_is_as_frequent_and_as_heavy_as_it_should_be(climate):
    rain = climate["aro_tp"]
    assert rain.min() >= 0
    assert (rain > 0.1).mean() == pytest.approx(0.16, abs=0.05)
    assert (rain > 1).mean() == pytest.approx(0.035, abs=0.015)
    assert np.quantile(rain, 0.999) == pytest.approx(3, abs=1)


@pytest.mark.slow
def test_land_has_a_day_and_the_sea_has_not(climate):
    days = climate["aro_t2m"].reshape(REALISM_DAYS, 8, 48, 64).mean(0)
    land, sea = (np.ptp(days[:, mask].mean(1)) for mask in (climate["land"], ~climate["land"]))
    assert land == pytest.approx(5.7, abs=1)
    assert sea < 0.3


@pytest.mark.slow
def test_kinetic_energy_peaks_at_large_scales_and_falls_steeply(climate):
    waves = np.arange(5, 13)
    upper, lower = climate["spectrum"]
    assert upper.argmax() in (2, 3)
    slopes = [np.polyfit(np.log(waves), np.log(layer[waves]), 1)[0] for layer in (upper, lower)]
    assert slopes[0] == pytest.approx(-3.4, abs=0.5)
    assert slopes[1] == pytest.approx(-4.8, abs=0.8)
    assert slopes[1] < slopes[0]


@pytest.mark.slow
def test_host_is_off_by_a_fifth_to_a_half_of_the_winds_variability(climate):
    for name in "uv":
        for level in (0, 2):
            truth, host = (climate[f"{source}_{name}"][..., level] for source in ("aro", "arp"))
            assert 0.2 < np.sqrt(((host - truth) ** 2).mean()) / truth.std() < 0.5, (name, level)
    # and better at the large scales, which geopotential has more of
    truth, host = climate["aro_z"][..., 0], climate["arp_z"][..., 0]
    assert np.sqrt(((host - truth) ** 2).mean()) / truth.std() < 0.25
