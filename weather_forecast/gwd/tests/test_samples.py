"""Real labelled columns: what they hold, and what the scheme here says of them."""

import h5py
import numpy as np
import pytest
import xarray as xr

from ai4sim.errors import InputError
from ai4sim.store import open_store
from weather_forecast.gwd.data import GwdData
from weather_forecast.gwd.demo import DemoSettings
from weather_forecast.gwd.layout import ColumnLayout
from weather_forecast.gwd.levels import get_grid
from weather_forecast.gwd.raw import RawFile
from weather_forecast.gwd.samples import main, read_samples, write_samples
from weather_forecast.gwd.scheme import SchemeParameters, gravity_wave_drag

IFS, GFS = "ifs_l137_columns.nc", "gfs_p26_20111011.nc"
# a coarse hybrid grid: levels at 0.5, 5.5, 30, 475 (launch), 950 hPa for a surface at 1000 hPa
A_HALF = np.array([0.0, 100.0, 1000.0, 5000.0, 30000.0, 0.0])
B_HALF = np.array([0.0, 0.0, 0.0, 0.0, 0.6, 1.0])


def hybrid_columns() -> xr.Dataset:
    """Eight columns of five levels at four longitudes, not in order, whose values say where they stand."""
    lon = np.array([6.0, 0.0, 12.0, 18.0, 6.0, 0.0, 12.0, 18.0], np.float32)
    lat = np.repeat([40.0, 60.0], 4).astype(np.float32)
    code = (lon + lat / 10)[:, None] + np.arange(5) / 100
    profiles = {"u": (code, "m s-1"), "v": (-code, "m s-1"), "t": (200 + code, "K")}
    profiles |= {"dudt_nogw": (code * 1e-6, "m s-2"), "dvdt_nogw": (-code * 1e-6, "m s-2")}
    dims = ("column", "level")
    data = xr.Dataset(
        {name: (dims, v.astype(np.float32), {"units": units}) for name, (v, units) in profiles.items()},
        attrs={"title": "made up", "valid_time": "2018-11-15T12:00Z"},
    )
    data["sp"] = ("column", np.full(8, 1e5, np.float32), {"units": "Pa"})
    data["latitude"] = ("column", lat, {"units": "degrees_north"})
    data["longitude"] = ("column", lon, {"units": "degrees_east"})
    data["a_half"] = ("half_level", A_HALF, {"units": "Pa"})
    data["b_half"] = ("half_level", B_HALF, {"units": "1"})
    return data


def fields() -> xr.Dataset:
    """Pressure levels 10 to 1000 hPa on a grid of two latitudes and two longitudes; two columns on a mountain."""
    level = np.array([10, 300, 400, 500, 850, 1000])
    shape, dims = (6, 2, 2), ("level", "latitude", "longitude")
    data = xr.Dataset(coords={"level": ("level", level, {"units": "hPa"})})
    for name, units in (("u", "m s-1"), ("v", "m s-1"), ("dudt_nogw", "m s-2"), ("dvdt_nogw", "m s-2")):
        data[name] = (dims, np.zeros(shape, np.float32), {"units": units})
    data["t"] = (dims, np.full(shape, 250, np.float32), {"units": "K"})
    height = -7000 * np.log(level / 1000)
    data["z"] = (dims, np.broadcast_to(9.80665 * height[:, None, None], shape).astype(np.float32), {"units": "m2 s-2"})
    data["sp"] = (dims[1:], np.array([[101000, 101000], [90000, 90000]], np.float32), {"units": "Pa"})
    data["orog"] = (dims[1:], np.array([[-50, -50], [700, 700]], np.float32), {"units": "m"})
    data["latitude"] = ("latitude", np.array([10, -10], np.float32), {"units": "degrees_north"})
    data["longitude"] = ("longitude", np.array([0, 180], np.float32), {"units": "degrees_east"})
    return data


def written(data: xr.Dataset, folder):
    path = folder / "columns.nc"
    data.to_netcdf(path, engine="h5netcdf")
    return path


def test_columns_are_cut_at_the_launch_level_and_ordered_by_longitude(tmp_path):
    samples = read_samples(written(hybrid_columns(), tmp_path))
    assert samples.x.shape == (8, 3 * 4 + 2)
    assert samples.y.shape == (8, 2 * 4)
    assert samples.lon.tolist() == [0, 0, 6, 6, 12, 12, 18, 18]
    assert samples.lat.tolist() == [40, 60] * 4
    code = (samples.lon + samples.lat / 10)[:, None] + np.arange(4) / 100
    np.testing.assert_allclose(samples.x[:, :12], np.concatenate([code, -code, 200 + code], axis=1), rtol=1e-6)
    np.testing.assert_allclose(samples.y, np.concatenate([code, -code], axis=1) * 1e-6, rtol=1e-6)
    # R T alpha of the layer from 900 to 1000 hPa
    alpha = 1 - 0.9 / 0.1 * np.log(1 / 0.9)
    np.testing.assert_allclose(samples.x[:, 13], 287.0597 * (200.04 + code[:, 0]) * alpha, rtol=1e-5)
    assert samples.doy == 318.5


def test_bands_of_longitude_are_the_blocks(tmp_path):
    samples = read_samples(written(hybrid_columns(), tmp_path))
    write_samples(samples, tmp_path / "raw" / "columns.h5", bands=2)
    with h5py.File(tmp_path / "raw" / "columns.h5") as file:
        assert file["x"].shape == (14, 2, 4)
        assert file["lat"][()].tolist() == [[40, 60, 40, 60]] * 2
        assert np.all(file["doy"][()] == 318.5)
        assert file["x"][0, 0].max() < 13
        assert file["x"][0, 1].min() > 15
    raw = RawFile.open(tmp_path / "raw" / "columns.h5", ColumnLayout(n_levels=4))
    assert raw.rows_per_block == 4
    np.testing.assert_array_equal(raw.read(0, 8)["x"], samples.x)
    for bands in (3, 8, 0):  # 8 would cut longitudes
        with pytest.raises(InputError, match=f"8 columns at 4 longitudes do not divide into {bands} bands"):
            write_samples(samples, tmp_path / "no.h5", bands=bands)


def test_lowest_level_above_ground_of_pressure_levels(tmp_path):
    samples = read_samples(written(fields(), tmp_path))
    assert samples.x.shape == (4, 3 * 4 + 2)  # 500 hPa is the launch level
    assert samples.lat.tolist() == [10, -10, 10, -10]
    expected = 9.80665 * np.array([50, 7000 * np.log(1 / 0.85) - 700])
    np.testing.assert_allclose(samples.x[:, -1], np.tile(expected, 2), rtol=1e-5)
    np.testing.assert_allclose(samples.grid.a_half[[0, 1, -2, -1]], [-13500, 15500, 92500, 107500])
    assert samples.doy is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.drop_vars("dvdt_nogw"), r"variable 'dvdt_nogw' is missing"),
        (
            lambda d: d.assign(t=(d["t"] - 273.15).assign_attrs(units="K")),
            r"variable 't' has 40 of 40 values .* outside the valid range 100 \.\. 350 K",
        ),
        (
            lambda d: d.assign(u=d["u"].assign_attrs(units="knots")),
            r"variable 'u' is in 'knots', expected units 'm s-1'",
        ),
        (lambda d: d.assign(sp=d["sp"].drop_attrs()), r"variable 'sp' has no attribute 'units', expected 'Pa'"),
        (lambda d: d.transpose(), r"variable 'u' has dimensions \(level, column\), expected \(column, level\)"),
        (lambda d: d.isel(level=slice(4)), r"variable 't' has 4 levels, a_half and b_half describe 5"),
        (lambda d: d.isel(half_level=slice(3), level=slice(2)), r"has no launch level"),
        (lambda d: d.assign_attrs(valid_time="mid-November"), r"'valid_time' is 'mid-November', expected an ISO 8601"),
    ],
)
def test_other_files_are_refused_by_file_and_variable(tmp_path, change, message):
    path = written(change(hybrid_columns()), tmp_path)
    with pytest.raises(InputError, match=rf"(?s)columns\.nc.*({message})"):
        read_samples(path)


def test_a_value_that_cannot_be_true_is_located(tmp_path):
    data = hybrid_columns()
    data["t"][3, 2] = np.nan
    with pytest.raises(InputError, match=r"variable 't' has 1 of 40 values \(first at column=3, level=2\) missing"):
        read_samples(written(data, tmp_path))


def test_the_command_converts_and_says_what_is_wrong(tmp_path, capsys):
    source, output, grid = written(hybrid_columns(), tmp_path), tmp_path / "columns.h5", tmp_path / "grid.csv"
    main([str(source), str(output), "--bands", "2", "--grid", str(grid)])
    assert "8 columns of 4 levels in 2 blocks" in capsys.readouterr().out
    np.testing.assert_allclose(get_grid(str(grid)).b_half, B_HALF)
    (tmp_path / "broken.nc").write_bytes(source.read_bytes()[:500])
    for words, message in (
        ([str(tmp_path / "none.nc"), str(output)], "none.nc does not exist"),
        ([str(tmp_path / "broken.nc"), str(output)], "broken.nc: truncated or not NetCDF-4"),
        ([str(source), str(source / "columns.h5")], "cannot write"),
    ):
        with pytest.raises(SystemExit) as stop:
            main([*words, "--bands", "2"])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err


def test_generated_columns_train_and_real_ones_test(tmp_path, monkeypatch):
    monkeypatch.setenv("AI4SIM_DATA", str(tmp_path))
    data = GwdData(
        dataset="mixed",
        splits={"train": ["2015-01-01"], "validation": ["2016-06-24"]},
        demo=DemoSettings(train=8, validation=4, test=4, times=2, azimuths=4, speeds=8),
        test_files=["real.h5"],
    )
    x = np.full((191, 3, 2), 250, np.float32) + np.arange(6, dtype=np.float32).reshape(3, 2)
    x[189] = 1e5
    data.raw.mkdir(parents=True)
    with h5py.File(data.raw / "real.h5", "w") as file:
        # no day of year: the generated files' is left out
        file["x"], file["y"], file["lat"] = x, np.ones((126, 3, 2), np.float32), np.full((3, 2), 50, np.float32)
    data.prepare_data()
    data.setup("fit")
    assert sorted(path.name for path in data.raw.iterdir()) == ["2015-01-01.h5", "2016-06-24.h5", "real.h5"]
    assert data.rows("test") == slice(12, 18)
    store = open_store(data.store)
    assert "doy" not in store
    np.testing.assert_array_equal(store["x"].values[12:, 0], 250 + np.arange(6))
    assert len(np.unique(store["block"].values[12:])) == 3
    assert data.statistics("y").count == 8
    missing = GwdData(dataset="mixed", splits=data.splits, test_files=["elsewhere.h5"])
    with pytest.raises(InputError, match=r"elsewhere\.h5 does not exist"):
        missing.prepare_data()


def test_the_scheme_reproduces_the_labels_of_the_real_forecast(samples):
    """Two implementations: labels were made by the operational code in double precision."""
    real = read_samples(samples / IFS)
    assert real.x.shape == (1088, 281)
    assert np.unique(np.abs(np.diff(np.unique(real.lon)))).tolist() == [1.5, 7.5]
    assert 80 < real.x[:, 280].min() < real.x[:, 280].max() < 105
    reference = get_grid("L137")
    np.testing.assert_allclose(real.grid.a_half, reference.a_half, atol=1e-3)
    np.testing.assert_allclose(real.grid.b_half, reference.b_half, atol=1e-6)
    u, v, t = (real.x[:, k * 93 : (k + 1) * 93] for k in range(3))
    half = real.grid.half_pressure(real.x[:, 279])[:, :94]
    with xr.open_dataset(samples / IFS, engine="h5netcdf", decode_times=False) as data:
        z = data["z"].sortby("longitude").values[:, :93]
    drag = gravity_wave_drag(
        u, v, t, half, latitude=real.lat, geopotential=z, parameters=SchemeParameters.operational(), threads=1
    )
    computed = np.concatenate([drag.dudt, drag.dvdt], axis=1)
    # the labels have 20 significant bits
    assert np.sqrt(((computed - real.y) ** 2).mean()) < 1e-6 * np.sqrt((real.y.astype(float) ** 2).mean())
    assert np.abs(computed - real.y).max() < 1e-6 * np.abs(real.y).max()


def test_real_fields_on_pressure_levels_become_columns(samples, tmp_path):
    main([str(samples / GFS), str(tmp_path / "gfs.h5"), "--bands", "24"])
    raw = RawFile.open(tmp_path / "gfs.h5", ColumnLayout(n_levels=14))
    assert (raw.n_rows, raw.rows_per_block, raw.auxiliaries) == (10512, 438, ("lat",))
    rows = raw.read(0, 10512)
    with xr.open_dataset(samples / GFS, engine="h5netcdf", decode_times=False) as data:
        point = data.sel(latitude=50.0, longitude=2.5)
    column = rows["x"][73 + 16]  # second longitude, 17th latitude from the north
    assert rows["lat"][73 + 16] == 50
    np.testing.assert_array_equal(column[:14], point["u"].values[:14])
    np.testing.assert_array_equal(rows["y"][73 + 16, 14:], point["dvdt_nogw"].values[:14])
    assert column[-2] == point["sp"]
