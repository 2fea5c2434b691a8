"""Readers of raw data: the same fields from every layout, orientation, gaps, sequences, and what is refused."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import xarray as xr

from ai4sim.errors import InputError
from ai4sim.projections import LambertConformal
from ai4sim.store import open_store, read_manifest
from ai4sim.windows import find_windows
from weather_forecast.lam import config, prepare
from weather_forecast.lam.accessors import (
    DataAccessor,
    MepsAccessor,
    NetcdfAccessor,
    TitanNpyAccessor,
    ZarrAccessor,
    meps,
)
from weather_forecast.lam.accessors.orientation import find_pairs, require_same_orientation
from weather_forecast.lam.accessors.titan_npy import GRIDS
from weather_forecast.lam.data import LamData
from weather_forecast.lam.demo import DemoSettings
from weather_forecast.lam.parameters import Parameter
from weather_forecast.lam.periods import Period
from weather_forecast.lam.prepare import FieldSelection
from weather_forecast.lam.tests.conftest import FORCING, tiny_data
from weather_forecast.lam.trainer import main

HOUR = np.timedelta64(1, "h")
SHAPE = (8, 9)
SUFFIXES = ["t_850hpa", "u_850hpa", "v_850hpa", "z_500hpa"]
AROME = [f"aro_{suffix}" for suffix in SUFFIXES]
LATITUDE, LONGITUDE = 45 + 0.1 * np.arange(SHAPE[0]), 3 + 0.1 * np.arange(SHAPE[1])
TIMES = np.datetime64("2023-01-01T00", "s") + np.arange(72) * HOUR
NAMES = {"t": "temperature", "u": "u_component_of_wind", "v": "v_component_of_wind", "z": "geopotential"}


def value(suffix: str, hour: int) -> np.ndarray:
    """A field whose values say parameter, time, row and column."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return (10.0 * SUFFIXES.index(suffix) + np.sin(hour) + rows / 8 + columns / 64).astype(np.float32)


GEOPOTENTIAL = value("t_850hpa", 0) * 100


def write_tree(path: Path, times: np.ndarray = TIMES) -> Path:
    """TITAN's npy tree."""
    for hour, time in enumerate(times):
        folder = path / "data" / np.datetime_as_string(time, "m").replace("T", "_").replace(":", "h")
        folder.mkdir(parents=True)
        for suffix in SUFFIXES:
            np.save(folder / f"aro_{suffix}.npy", value(suffix, hour))
    (path / "static").mkdir()
    fields = {"latitude": LATITUDE, "longitude": LONGITUDE, "geopotential_at_surface": GEOPOTENTIAL}
    for name, values in fields.items():
        np.save(path / "static" / f"{name}.npy", values)
    return path


def write_store(path: Path) -> Path:
    """TITAN's Zarr store, with the north first."""
    levels = (500, 850)
    data = {}
    for short, name in NAMES.items():
        wanted = next(suffix for suffix in SUFFIXES if suffix.startswith(f"{short}_"))
        fields = np.stack([value(wanted, hour) for hour in range(len(TIMES))])
        both = np.stack([fields if str(level) in wanted else 0 * fields for level in levels], axis=-1)
        data[name] = (("time", "latitude", "longitude", "level"), both[:, ::-1])
    data["geopotential_at_surface"] = (("latitude", "longitude"), GEOPOTENTIAL[::-1])
    coords = {"time": TIMES.astype("datetime64[ns]"), "latitude": LATITUDE[::-1], "longitude": LONGITUDE}
    xr.Dataset(data, coords | {"level": list(levels)}).to_zarr(path, zarr_format=2, consolidated=True)
    return path


def write_sample(path: Path, start: str, member: int, *, n_leads: int, north_first: bool, offset: float = 0.0) -> Path:
    """One forecast of MEPS: all 18 fields, those that are not among SUFFIXES are their index."""
    fields = np.empty((n_leads, *SHAPE, 18), np.float32)
    fields[:] = np.arange(18)
    for hour in range(n_leads):
        for suffix in SUFFIXES:
            fields[hour, ..., meps.STATE[f"meps_{suffix}"].place] = value(suffix, hour) + np.float32(offset)
    file = path / f"nwp_{start}_mbr{member:03d}.npy"
    path.mkdir(parents=True, exist_ok=True)
    np.save(file, fields[:, ::-1] if north_first else fields)
    flux = np.broadcast_to(np.arange(n_leads, dtype=np.float32)[:, None, None] * 10, (n_leads, *SHAPE))
    np.save(path / f"nwp_toa_downwelling_shortwave_flux_{start}.npy", flux)
    np.save(path / f"wtr_{start}.npy", np.full(SHAPE, 0.25, np.float32))
    return file


def write_meps_static(path: Path, *, north_first: bool = False) -> None:
    x, y = np.meshgrid(1e4 * np.arange(SHAPE[1]) - 4e4, 1e4 * np.arange(SHAPE[0]) - 2e5)
    plane, surface = np.stack([x, y]).astype(np.float32), GEOPOTENTIAL
    static = path / "static"
    static.mkdir(parents=True, exist_ok=True)
    np.save(static / "nwp_xy.npy", plane[:, ::-1] if north_first else plane)
    np.save(static / "surface_geopotential.npy", surface[::-1] if north_first else surface)


def write_meps(path: Path, *, north_first: bool = False) -> Path:
    """A data set of MEPS with one forecast of 72 leads."""
    write_meps_static(path, north_first=north_first)
    write_sample(path / "samples" / "train", "2023010100", 0, n_leads=72, north_first=north_first)
    return path


def netcdf_dataset(**changes: Any) -> xr.Dataset:
    """Fields as in ERA5: from the north, longitudes from 0 to 360, no second at 05 UTC."""
    longitude = np.array([358.0, 359.0, 0.0, 1.0])
    shape = (12, 3, 4)
    t2m = 280 + np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    data = xr.Dataset(
        {
            "t2m": (("time", "latitude", "longitude"), t2m, {"units": "K"}),
            "tp": (("time", "latitude", "longitude"), t2m / 1e5, {"units": "m"}),
            "wind": (("time", "latitude", "longitude"), t2m, {"units": "m s**-1"}),
            "t": (("time", "plev", "latitude", "longitude"), np.stack([t2m, 0 * t2m], axis=1), {"units": "K"}),
            "z": (("latitude", "longitude"), t2m[0], {"units": "m2 s-2"}),
            "h": (("latitude", "longitude"), t2m[0], {"units": "m"}),
        },
        coords={
            "time": (TIMES[:13][np.arange(13) != 5]).astype("datetime64[ns]"),
            "latitude": np.array([61.0, 60.0, 59.0]),
            "longitude": longitude,
            "plev": ("plev", np.array([85000.0, 50000.0]), {"units": "Pa"}),
        },
    )
    return data.assign(changes)


def write_netcdf(path: Path, dataset: xr.Dataset | None = None) -> Path:
    (netcdf_dataset() if dataset is None else dataset).to_netcdf(path, engine="h5netcdf")
    return path


def data_of(name: str, accessor: DataAccessor, source: str) -> LamData:
    """The data module of one of the three layouts, set up."""
    days = [Period(f"2023-01-0{day}", f"2023-01-0{day}") for day in (1, 2, 3)]
    data = LamData(
        name, accessor, state=[f"{source}_{suffix}" for suffix in SUFFIXES], border_size=1, step_hours=3, n_inputs=2,
        n_targets=2, n_targets_eval=2, periods=dict(zip(("train", "validation", "test"), days, strict=True)),
    )  # fmt: skip
    data.prepare_data()
    data.setup("fit")
    return data


class TestSameItems:
    """Acceptance 19: npy tree, Zarr and MEPS give identical items for the same fields."""

    @pytest.fixture
    def modules(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, LamData]:
        monkeypatch.setenv("AI4SIM_DATA", str(tmp_path / "home"))
        tree = write_tree(tmp_path / "tree")
        accessors = {
            "tree": (TitanNpyAccessor(tree), "aro"),
            "store": (ZarrAccessor(write_store(tmp_path / "store.zarr")), "aro"),
            "meps": (MepsAccessor(write_meps(tmp_path / "meps"), lead_step_hours=1), "meps"),
            "turned": (MepsAccessor(write_meps(tmp_path / "turned", north_first=True), "train", [0], 1), "meps"),
        }
        return {name: data_of(name, *which) for name, which in accessors.items()}

    def test_items_statistics_and_grid(self, modules):
        batches = {name: next(iter(data.train_dataloader())) for name, data in modules.items()}
        reference = batches["tree"]
        assert reference["state"].shape == (4, 4, *SHAPE, 4)
        first = modules["tree"].windows("train").rows[int(reference["index"][0]), 1]
        for column, suffix in enumerate(SUFFIXES):
            np.testing.assert_array_equal(reference["state"][0, 1, ..., column], value(suffix, int(first)))
        for name, batch in batches.items():
            for key in ("state", "clock", "index"):
                np.testing.assert_array_equal(batch[key], reference[key], err_msg=f"{name} {key}")
            info = modules[name].info()
            assert info.state_statistics.to_dict().keys() == modules["tree"].info().state_statistics.to_dict().keys()
            np.testing.assert_array_equal(info.state_statistics.mean, modules["tree"].info().state_statistics.mean)
            np.testing.assert_array_equal(info.geopotential, GEOPOTENTIAL.astype(np.float64))
            assert (np.diff(info.latitude, axis=0) > 0).all()
        np.testing.assert_array_equal(batches["store"]["toa_radiation"], reference["toa_radiation"])

    def test_accessors_travel(self, modules):
        for data in modules.values():
            there = pickle.loads(pickle.dumps(data.accessor))
            np.testing.assert_array_equal(there.load(data.state, 5), data.accessor.load(data.state, 5))
            assert there.parameters()[data.state[0]] == "K"
            assert there.label == data.accessor.label


class TestTree:
    @pytest.fixture
    def tree(self, tmp_path: Path) -> Path:
        return write_tree(tmp_path / "tree", TIMES[:6])

    def test_the_demo_in_this_layout_gives_the_windows_of_the_store(self, tiny):
        data = tiny_data(dataset="tree", demo=DemoSettings(size="tiny", layout="npy"))
        assert isinstance(data.accessor, TitanNpyAccessor)
        data.prepare_data()
        data.setup("fit")
        assert read_manifest(data.store).statistics == read_manifest(tiny.store).statistics
        for split in ("train", "test"):
            mine, theirs = (next(iter(getattr(each, f"{split}_dataloader")())) for each in (data, tiny))
            for key, values in theirs.items():
                np.testing.assert_array_equal(mine[key], values, err_msg=key)
        for name in ("x", "y", "latitude", "longitude", "geopotential", "land_sea_mask"):
            got, expected = (getattr(each.accessor.load_grid_info(), name) for each in (data, tiny))
            np.testing.assert_array_equal(got, expected, err_msg=name)
        assert set(data.accessor.parameters()) == set(tiny.accessor.parameters())
        assert data.accessor.get_filepath(FORCING[0], 1).name == f"{FORCING[0]}.npy"
        assert [path.name for path in data.accessor.sources()][:2] == ["demo.json", "geopotential_at_surface.npy"]
        self.refuses_static_fields_upside_down(data.accessor.path)

    def refuses_static_fields_upside_down(self, path: Path) -> None:
        for name in ("geopotential_at_surface", "land_sea_mask"):
            np.save(path / "static" / f"{name}.npy", np.load(path / "static" / f"{name}.npy")[::-1])
        with pytest.raises(InputError, match=r"data are upside down against the static fields in .*static: the 2-m"):
            TitanNpyAccessor(path).load_grid_info()

    def test_a_missing_file_costs_its_time(self, tree, tmp_path, caplog):
        (tree / "data" / "2023-01-01_02h00" / "aro_u_850hpa.npy").unlink()
        accessor = TitanNpyAccessor(tree)
        assert not accessor.exists("aro_u_850hpa", 2)
        assert accessor.exists("aro_t_850hpa", 2)
        day = Period("2023-01-01", "2023-01-01")
        prepare.build(tmp_path / "s.zarr", accessor, FieldSelection(tuple(AROME)), train=day, step=HOUR)
        assert "5 times, 1 dropped (first: aro_u_850hpa 2023-01-01T02:00)" in caplog.text
        with open_store(tmp_path / "s.zarr") as store:
            found = find_windows(
                store["time"].values, step=HOUR, n_inputs=1, n_targets=1, start=day.first, end=day.last
            )
        assert found.rows.tolist() == [[0, 1], [2, 3], [3, 4]]

    def test_files_of_unknown_parameters_are_left_out_and_named(self, tree, caplog):
        np.save(tree / "data" / "2023-01-01_00h00" / "aro_t_850hPa.npy", np.zeros(SHAPE))
        assert list(TitanNpyAccessor(tree).parameters()) == AROME
        assert "files that are no known parameters are left out: aro_t_850hPa" in caplog.text

    def test_names_of_folders(self, tree, tmp_path):
        for name in ("2023-13-01_00h00", "2023_01_01"):
            (tree / "data" / name).mkdir()
            with pytest.raises(InputError, match=rf"data: the folder '{name}' is no time such as 2023-01-31_06h00"):
                TitanNpyAccessor(tree).records()
            (tree / "data" / name).rmdir()
        with pytest.raises(InputError, match=r"nothing.data is not there: TITAN's tree has one folder per time"):
            TitanNpyAccessor(tmp_path / "nothing").records()
        (tmp_path / "empty" / "data").mkdir(parents=True)
        with pytest.raises(InputError, match=r"empty.data has no folder of a time"):
            TitanNpyAccessor(tmp_path / "empty").records()

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (
                lambda f: f.write_bytes(f.read_bytes()[:200]),
                r"aro_u_850hpa.npy \(aro_u_850hpa\) cannot be read, it is tr",
            ),
            (lambda f: f.write_bytes(b""), r"aro_u_850hpa.npy \(aro_u_850hpa\) cannot be read"),
            (lambda f: f.write_bytes(b"GRIB"), r"aro_u_850hpa.npy \(aro_u_850hpa\) cannot be read"),
            (
                lambda f: np.save(f, np.array([{}]), allow_pickle=True),
                r"\(aro_u_850hpa\) cannot be read, .*no array of",
            ),
            (
                lambda f: np.save(f, np.zeros(SHAPE, "U1")),
                r"\(aro_u_850hpa\) is no npy file of one array of real numbers",
            ),
            (lambda f: np.save(f, np.zeros((9, 8))), r"npy: aro_u_850hpa has shape \(9, 8\), expected \(8, 9\)"),
            (lambda f: f.unlink(), r"aro_u_850hpa.npy \(aro_u_850hpa\) is not there"),
        ],
    )
    def test_bad_fields(self, tree, spoil: Callable[[Path], Any], message):
        accessor = TitanNpyAccessor(tree)
        spoil(accessor.get_filepath("aro_u_850hpa", 3))
        np.testing.assert_array_equal(accessor.load(["aro_z_500hpa"], 3)[..., 0], value("z_500hpa", 3))
        with pytest.raises(InputError, match=message):
            accessor.load(AROME, 3)

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("latitude", LATITUDE[::-1], "static: the grid is upside down: row 0 must be the southernmost"),
            ("longitude", LONGITUDE[::-1], "static: the grid is mirrored"),
            ("latitude", np.zeros((2, 2, 2)), r"latitude has shape \(2, 2, 2\), expected one or two dimensions"),
            ("longitude", np.random.default_rng(0).random(SHAPE), "longitude is not that of a regular grid"),
            ("geopotential_at_surface", np.zeros((3, 4)), r"static: geopotential_at_surface has shape \(3, 4\), ex"),
            ("land_sea_mask", np.zeros((9, 8)), r"static: land_sea_mask has shape \(9, 8\), expected \(8, 9\)"),
            ("geopotential_at_surface", None, r"static has no geopotential_at_surface. TITAN keeps static"),
        ],
    )  # fmt: skip
    def test_bad_static_fields(self, tree, name, content, message):
        file = tree / "static" / f"{name}.npy"
        file.unlink(missing_ok=True)
        if content is not None:
            np.save(file, content)
        with pytest.raises(InputError, match=message):
            TitanNpyAccessor(tree).load_grid_info()

    def test_coordinates_of_all_points_and_a_plain(self, tree):
        latitude, longitude = np.meshgrid(LATITUDE, LONGITUDE, indexing="ij")
        np.save(tree / "static" / "latitude.npy", latitude)
        np.save(tree / "static" / "longitude.npy", longitude)
        (tree / "static" / "geopotential_at_surface.npy").unlink()
        grid = TitanNpyAccessor(tree, geopotential=5.0).load_grid_info()
        np.testing.assert_array_equal(grid.latitude, latitude)
        assert (grid.geopotential == 5).all()

    def test_grids_of_titan_are_known_by_name(self, tree, tmp_path):
        for name, (south, west, step, (rows, columns)) in GRIDS.items():
            path = tree.rename(tmp_path / f"titan_{name}_100-108-240-249")
            with pytest.raises(InputError, match=r"has no geopotential_at_surface\..*'geopotential: 0'"):
                TitanNpyAccessor(path, statics=tmp_path).load_grid_info()
            # the sheet's crop of 512 x 640 points begins at 40 degrees north
            grid = TitanNpyAccessor(path, statics=tmp_path, geopotential=0).load_grid_info()
            np.testing.assert_allclose(grid.latitude[:, 0], south + step * np.arange(100, 108))
            np.testing.assert_allclose(grid.longitude[0], west + step * np.arange(240, 249))
            assert (rows - 1) * step + south in (pytest.approx(55.4), pytest.approx(72), pytest.approx(51.5))
            assert (columns - 1) * step + west in (pytest.approx(16), pytest.approx(42), pytest.approx(10.5))
            tree = path

    def test_static_fields_of_the_whole_grid_in_a_file_from_the_north(self, tree, tmp_path):
        path = tree.rename(tmp_path / "titan_PA_01D_5-13-7-16")
        south, west, step, (rows, columns) = GRIDS["PA_01D"]
        height = np.arange(rows * columns, dtype=np.float32).reshape(rows, columns)
        latitude = south + step * np.arange(rows)
        xr.Dataset(
            {"geopotential_at_surface": (("latitude", "longitude"), height[::-1], {"units": "m"})},
            coords={"latitude": latitude[::-1], "longitude": west + step * np.arange(columns)},
        ).to_netcdf(tmp_path / "conf.nc", engine="h5netcdf")
        grid = TitanNpyAccessor(path, statics=tmp_path / "conf.nc").load_grid_info()
        np.testing.assert_allclose(grid.geopotential, 9.80665 * height[5:13, 7:16])
        np.testing.assert_allclose(grid.latitude[:, 0], latitude[5:13])
        with pytest.raises(InputError, match=r"none.nc \(static fields\) is not there"):
            TitanNpyAccessor(path, statics=tmp_path / "none.nc").load_grid_info()


class TestOrientation:
    TIMES = TIMES[::3]

    def weather(self, land: np.ndarray) -> Callable[[int], np.ndarray]:
        """A front that passes, and the day's course over land."""
        rows = np.arange(land.shape[0])[:, None]
        return lambda i: 280 + 5 * np.sin(i / 3 - rows / 9) + 4 * land * np.sin(2 * np.pi * i / 8)

    def test_mirrored_land_is_refused_and_the_right_one_is_not(self):
        land = np.zeros((20, 30))
        land[:7, 5:] = 1
        read = self.weather(land)
        common = {"fields": "fields", "statics": "statics"}
        gain = require_same_orientation(read, self.TIMES, land, **common)
        assert gain > 0.5
        with pytest.raises(InputError, match=r"fields are upside down against statics: .* over 16 spells of 3 h"):
            require_same_orientation(read, self.TIMES, land[::-1], **common)

    @pytest.mark.parametrize(("share", "hours"), [(0.0, 72), (1.0, 72), (0.5, 9)])
    def test_silent_where_nothing_can_be_told(self, share, hours):
        land = np.zeros((20, 30))
        land[: int(20 * share)] = 1
        times = TIMES[:hours:3]
        assert require_same_orientation(self.weather(land), times, land[::-1], fields="f", statics="s") is None

    def test_a_symmetric_coast_is_not_refused(self):
        land = np.zeros((20, 30))
        land[:, 15:] = 1
        gain = require_same_orientation(self.weather(land), self.TIMES, land, fields="f", statics="s")
        assert gain == pytest.approx(0, abs=0.1)

    def test_pairs_keep_out_of_gaps(self):
        times = np.delete(TIMES, np.arange(10, 30))
        pairs = find_pairs(times)
        assert 4 < len(pairs) <= 16
        assert all(3 * HOUR <= times[b] - times[a] <= 6 * HOUR for a, b in pairs)


class TestMeps:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """Two forecasts half a day apart in training, of two members; one in each of the other splits."""
        write_meps_static(tmp_path)
        for split, start, members in (
            ("train", "2023010100", (0, 1)), ("train", "2023010112", (0, 1)), ("val", "2023020100", (0,)),
            ("test", "2023030100", (0,)),
        ):  # fmt: skip
            for member in members:
                offset = 100.0 * member + float(start[8:])
                folder = tmp_path / "samples" / split
                write_sample(folder, start, member, n_leads=25, north_first=False, offset=offset)
        return tmp_path

    def test_the_table_of_parameters(self):
        raw = [
            "pres_0g", "pres_0s", "nlwrs_0", "nswrs_0", "r_2", "r_65", "t_2", "t_65", "t_500", "t_850", "u_65", "u_850",
            "v_65", "v_850", "wvint_0", "z_1000", "z_500",
        ]  # fmt: skip
        assert [column.raw for column in meps.STATE.values()] == raw
        assert [column.place for column in meps.STATE.values()] == [i for i in range(18) if i != 15]
        units = ["Pa"] * 2 + ["W m-2"] * 2 + ["%"] * 2 + ["K"] * 4 + ["m s-1"] * 4 + ["kg m-2"] + ["m2 s-2"] * 2
        assert [Parameter.parse(name).units for name in meps.STATE] == units
        weights = {"2": 1.0, "0": 0.1, "0g": 0.1, "0s": 0.1, "65": 0.065, "1000": 0.1, "850": 0.05, "500": 0.03}
        assert all(column.weight == weights[column.raw.split("_")[1]] for column in meps.STATE.values())
        assert {Parameter.parse(name).source for name in (*meps.STATE, meps.FLUX, meps.WATER)} == {"meps"}
        assert "meps" in config.SOURCES

    def test_fields_of_a_lead(self, path):
        accessor = MepsAccessor(path)
        assert set(accessor.parameters()) == {*meps.STATE, meps.FLUX, meps.WATER}
        names = ["meps_r2_2m", "meps_z_1000hpa", "meps_t_850hpa", meps.FLUX, meps.WATER]
        # 9 three-hourly leads per forecast: lead 6 h of member 1 of the second
        fields = accessor.load(names, 3 * 9 + 2)
        assert fields.shape == (*SHAPE, 5)
        assert fields.dtype == np.float32
        assert (fields[..., 0] == 400).all()
        assert (fields[..., 1] == 16).all()
        np.testing.assert_array_equal(fields[..., 2], value("t_850hpa", 6) + np.float32(112))
        assert (fields[..., 3] == 60).all()
        assert (fields[..., 4] == 0.25).all()
        assert accessor.get_filepath("meps_r2_2m", 3 * 9 + 2).name == "nwp_2023010112_mbr001.npy"
        assert [path.name for path in accessor.sources()] == ["nwp_xy.npy", "surface_geopotential.npy"]

    def test_windows_never_mix_forecasts(self, path):
        records = MepsAccessor(path, "train").records()
        assert len(records) == 4 * 9
        assert records.times[9 * 2] == np.datetime64("2023-01-01T12")
        found = find_windows(
            records.times, step=3 * HOUR, n_inputs=2, n_targets=2, start=records.times[0],
            end=records.times[-1] + HOUR, sequences=records.sequences,
        )  # fmt: skip
        # of 9 leads, 4 in a row: 6 windows in each of 4 sequences
        assert len(found) == 4 * 6
        assert (np.ptp(records.sequences[found.rows], axis=1) == 0).all()
        assert (np.diff(records.times[found.rows], axis=1) == 3 * HOUR).all()

    def test_split_members_and_leads(self, path):
        assert len(MepsAccessor(path).records()) == 6 * 9
        assert len(MepsAccessor(path, "val", lead_step_hours=1).records()) == 25
        one = MepsAccessor(path, members=[1], lead_step_hours=12)
        assert len(one.records()) == 2 * 3
        assert one.records().sequences.tolist() == [0, 0, 0, 1, 1, 1]

    def test_the_grid(self, path):
        grid = MepsAccessor(path).load_grid_info()
        assert grid.spacing == pytest.approx(10)
        np.testing.assert_allclose(meps.PROJECTION.to_plane(grid.latitude, grid.longitude)[1] / 1000, grid.y, atol=1e-6)
        assert grid.longitude[0, 4] == pytest.approx(15)
        assert (grid.geopotential == GEOPOTENTIAL).all()

    def test_forcing_that_is_not_there(self, path):
        (path / "samples" / "val" / "wtr_2023020100.npy").unlink()
        accessor = MepsAccessor(path)
        assert accessor.exists(meps.WATER, 0)
        assert not accessor.exists(meps.WATER, 4 * 9)
        assert accessor.exists(meps.FLUX, 4 * 9)
        assert not accessor.exists("meps_t_700hpa", 0)

    def test_bad_settings_and_folders(self, path, tmp_path):
        for arguments, message in (
            ({"split": "valid"}, "MEPS: split 'valid' is unknown; choose train, val, test"),
            ({"lead_step_hours": 0}, "lead_step_hours must be at least 1, not 0"),
            ({"members": [0, 7]}, r"member 7 is not there; there are \[0, 1\]"),
        ):
            with pytest.raises(InputError, match=message):
                MepsAccessor(path, **arguments).records()
        with pytest.raises(InputError, match=r"no files nwp_<YYYYMMDDHH>_mbr<NNN>.npy in .*none.samples.train, "):
            MepsAccessor(tmp_path / "none").records()
        twice = path / "samples" / "test" / "nwp_2023010100_mbr000.npy"
        np.save(twice, np.zeros(3))
        with pytest.raises(InputError, match=r"mbr000.npy is there twice, also as .*: a forecast belongs to one split"):
            MepsAccessor(path).records()
        for name, message in (
            ("nwp_2023990100_mbr000.npy", "2023990100 is no initial time of the form YYYYMMDDHH"),
            ("nwp_20230101_mbr0.npy", r"nwp_20230101_mbr0.npy: the name is not of the form nwp_<YYYYMMDDHH>_mbr<NNN>"),
        ):
            twice = twice.rename(twice.with_name(name))
            with pytest.raises(InputError, match=message):
                MepsAccessor(path, "test").records()

    @pytest.mark.parametrize(
        ("file", "content", "name", "message"),
        [
            ("samples/train/nwp_2023010112_mbr000.npy", np.zeros((20, *SHAPE, 18)), "meps_t2m_2m",
             r"mbr000.npy: the state has shape \(20, 8, 9, 18\), expected \(25, 8, 9, 18\)"),
            ("samples/train/nwp_2023010112_mbr000.npy", np.zeros((25, *SHAPE, 17)), "meps_t2m_2m",
             r"the state has shape \(25, 8, 9, 17\), expected \(25, 8, 9, 18\)"),
            ("samples/train/nwp_2023010112_mbr000.npy", None, "meps_t2m_2m", r"\(state\) cannot be read, it is trunc"),
            ("samples/train/nwp_toa_downwelling_shortwave_flux_2023010112.npy", np.zeros((25, 9, 8)), "meps_flux_0m",
             r"meps_flux_0m has shape \(25, 9, 8\), expected \(25, 8, 9\)"),
            ("samples/train/wtr_2023010112.npy", np.zeros(8), "meps_wtr_0m",
             r"meps_wtr_0m has shape \(8,\), expected \(8, 9\)"),
            ("static/nwp_xy.npy", np.zeros((8, 9)), "meps_t2m_2m", r"x and y have shape \(8, 9\), expected"),
        ],
    )  # fmt: skip
    def test_bad_files(self, path, file, content, name, message):
        file = path / file
        if content is None:
            file.write_bytes(file.read_bytes()[:5000])
        else:
            np.save(file, content)
        with pytest.raises(InputError, match=message):
            MepsAccessor(path).load([name], 2 * 9)

    def test_bad_static_fields(self, path):
        np.save(path / "static" / "surface_geopotential.npy", np.zeros((3, 3)))
        with pytest.raises(
            InputError, match=r"geopotential.npy: surface geopotential has shape \(3, 3\), expected \(8, 9\)"
        ):
            MepsAccessor(path).load_grid_info()
        np.save(path / "static" / "surface_geopotential.npy", GEOPOTENTIAL)
        plane = np.load(path / "static" / "nwp_xy.npy")
        np.save(path / "static" / "nwp_xy.npy", plane[..., ::-1])
        with pytest.raises(InputError, match=r"nwp_xy.npy: the grid is mirrored"):
            MepsAccessor(path).load_grid_info()


class TestNetcdf:
    NAMES: ClassVar[dict[str, str]] = {
        "era_t2m_2m": "t2m",
        "era_t_850hpa": "t",
        "era_t_500hpa": "t",
        "era_u10_10m": "wind",
    }

    def test_rows_from_the_south_columns_from_the_west_times_as_they_are(self, tmp_path):
        raw = netcdf_dataset()
        accessor = NetcdfAccessor(write_netcdf(tmp_path / "a.nc"), self.NAMES)
        grid = accessor.load_grid_info()
        assert grid.latitude[:, 0].tolist() == [59, 60, 61]
        assert grid.longitude[0].tolist() == [-2, -1, 0, 1]
        np.testing.assert_array_equal(grid.geopotential, raw["z"].values[::-1])
        fields = accessor.load(list(self.NAMES), 7)
        np.testing.assert_array_equal(fields[..., 0], raw["t2m"].values[7, ::-1])
        np.testing.assert_array_equal(fields[..., 1], fields[..., 0])
        assert (fields[..., 2] == 0).all()
        # m s**-1 is m s-1: nothing to warn of
        assert accessor.parameters() == {name: Parameter.parse(name).units for name in self.NAMES}
        assert accessor.exists("era_t2m_2m", 3)
        assert not accessor.exists("era_d2m_2m", 3)
        assert accessor.sources() == [tmp_path / "a.nc"]
        found = find_windows(
            accessor.records().times, step=HOUR, n_inputs=1, n_targets=3, start=TIMES[0], end=TIMES[13]
        )
        # 05 UTC is missing: of 10 windows, the four with it are not there
        assert (len(found), found.dropped, found.first_missing) == (6, 3, TIMES[5])
        there = pickle.loads(pickle.dumps(accessor))
        np.testing.assert_array_equal(there.load(list(self.NAMES), 7), fields)

    def test_units_are_kept_with_a_warning_or_converted(self, tmp_path, caplog):
        path = write_netcdf(tmp_path / "a.nc")
        kept = NetcdfAccessor(path, {"era_tp_0m": "tp"})
        assert kept.parameters() == {"era_tp_0m": "m"}
        assert "'tp' has units 'm', era_tp_0m has 'kg m-2': values are kept; accessor argument 'factors'" in caplog.text
        converted = NetcdfAccessor(path, {"era_tp_0m": "tp"}, factors={"era_tp_0m": 1000.0})
        assert converted.parameters() == {"era_tp_0m": "kg m-2"}
        np.testing.assert_allclose(converted.load(["era_tp_0m"], 1), 1000 * kept.load(["era_tp_0m"], 1), rtol=1e-6)

    def test_stores_heights_and_plains(self, tmp_path):
        netcdf_dataset(mask=(("latitude", "longitude"), np.ones((3, 4)))).to_zarr(tmp_path / "a.zarr", zarr_format=2)
        accessor = NetcdfAccessor(tmp_path / "a.zarr", self.NAMES, geopotential="h", land_sea_mask="mask")
        grid = accessor.load_grid_info()
        np.testing.assert_allclose(grid.geopotential, 9.80665 * netcdf_dataset()["h"].values[::-1])
        assert (grid.land_sea_mask == 1).all()
        assert [path.name for path in accessor.sources()] == [".zmetadata", ".zattrs"]
        assert (
            NetcdfAccessor(tmp_path / "a.zarr", self.NAMES, geopotential=7).load_grid_info().geopotential == 7
        ).all()

    def test_projected_grids(self, tmp_path):
        x, y = 1e4 * np.arange(4), 1e4 * np.arange(3)[::-1]
        latitude, longitude = meps.PROJECTION.to_sphere(*np.meshgrid(x, y))
        coords = {
            "time": TIMES[:2].astype("datetime64[ns]"),
            "y": ("y", y, {"units": "m"}),
            "x": ("x", x, {"units": "m"}),
        }
        fields = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
        data = xr.Dataset({"t2m": (("time", "y", "x"), fields, {"units": "K"})}, coords)
        two = data.assign_coords(latitude=(("y", "x"), latitude), longitude=(("y", "x"), longitude))
        by_points = NetcdfAccessor(write_netcdf(tmp_path / "a.nc", two), {"era_t2m_2m": "t2m"}, geopotential=0)
        mapped = data.assign(crs=((), 0, {
            "grid_mapping_name": "lambert_conformal_conic", "standard_parallel": 63.3, "earth_radius": 6367470.0,
            "longitude_of_central_meridian": 15.0, "latitude_of_projection_origin": 63.3,
        }))  # fmt: skip
        mapped["t2m"].attrs["grid_mapping"] = "crs"
        by_mapping = NetcdfAccessor(write_netcdf(tmp_path / "b.nc", mapped), {"era_t2m_2m": "t2m"}, geopotential=0)
        grids = by_points.load_grid_info(), by_mapping.load_grid_info()
        for name in ("latitude", "longitude", "x", "y"):
            np.testing.assert_allclose(getattr(grids[0], name), getattr(grids[1], name), atol=1e-9)
        assert grids[0].spacing == pytest.approx(10)
        np.testing.assert_array_equal(by_points.load(["era_t2m_2m"], 1)[..., 0], fields[1, ::-1])
        plain = NetcdfAccessor(write_netcdf(tmp_path / "c.nc", data), {"era_t2m_2m": "t2m"}, geopotential=0)
        with pytest.raises(InputError, match=r"c.nc: a grid of y and x needs 2-D latitude and longitude, or a CF grid"):
            plain.load_grid_info()
        data["x"].attrs["units"] = "degrees"
        odd = NetcdfAccessor(write_netcdf(tmp_path / "d.nc", data), {"era_t2m_2m": "t2m"}, geopotential=0)
        with pytest.raises(InputError, match="'x' has units 'degrees'; m or km are expected"):
            odd.load_grid_info()

    def test_relative_paths(self, tmp_path, monkeypatch):
        monkeypatch.setenv("AI4SIM_DATA", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        folder = tmp_path / config.USE_CASE / "raw"
        folder.mkdir(parents=True)
        write_netcdf(folder / "a.nc")
        assert NetcdfAccessor("a.nc", self.NAMES).label == str(folder / "a.nc")
        assert len(NetcdfAccessor("a.nc", self.NAMES).records()) == 12
        write_netcdf(tmp_path / "a.nc")
        assert NetcdfAccessor("a.nc", self.NAMES).label == "a.nc"
        assert NetcdfAccessor("s3://bucket/a.zarr", self.NAMES).label == "s3://bucket/a.zarr"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"variables": {}}, "accessor's 'variables' must name a variable of the file for every parameter"),
            ({"variables": {"t2m": "t2m"}}, "parameter 't2m' is not of the form"),
            ({"factors": {"era_tp_0m": 1.0}}, "'factors' name era_tp_0m, which is not among its 'variables'"),
            (
                {"variables": {"era_d2m_2m": "d2m"}},
                "a.nc has no variable 'd2m' for era_d2m_2m; there are t2m, tp, wind",
            ),
            (
                {"variables": {"era_t_700hpa": "t"}},
                r"'t' has no level 700 for era_t_700hpa; there are \[850.0, 500.0\]",
            ),
            (
                {"variables": {"era_z_850hpa": "z"}},
                r"a.nc: 'z' has dimensions \('latitude', 'longitude'\), expected \('ti",
            ),
            ({"geopotential": "zs"}, "a.nc: the surface's geopotential is missing, no variable zs; name its variable"),
            ({"geopotential": "t2m", "land_sea_mask": "lsm"}, "a.nc has no variable 'lsm'"),
        ],
    )
    def test_bad_arguments(self, tmp_path, arguments, message):
        path = write_netcdf(tmp_path / "a.nc")
        with pytest.raises(InputError, match=message):
            self.use(NetcdfAccessor(path, **({"variables": self.NAMES} | arguments)))

    @staticmethod
    def use(accessor: NetcdfAccessor) -> None:
        accessor.load_grid_info()
        accessor.records()
        accessor.load(list(accessor.variables), 0)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda d: d.rename(time="step"), "has no time coordinate time or valid_time; its dimensions are step"),
            (lambda d: d.drop_vars("latitude"), "has no row coordinate latitude or lat or y"),
            (lambda d: d.isel(time=[0, 2, 1]), "times must increase, but 2023-01-01T01:00:00 comes after"),
            (lambda d: d.assign_coords(time=np.arange(12)), "'time' holds no dates of the standard calendar"),
            (lambda d: d.isel(latitude=[0, 2, 1]), "'latitude' must be monotonic"),
            (lambda d: d.isel(latitude=[0]), "'latitude' must be monotonic"),
            (lambda d: d.drop_vars(["z", "h"]), "geopotential is missing, no variable geopotential_at_surface or"),
        ],
    )
    def test_bad_files(self, tmp_path, change: Callable[[xr.Dataset], xr.Dataset], message):
        path = write_netcdf(tmp_path / "a.nc", change(netcdf_dataset()))
        with pytest.raises(InputError, match=rf"a.nc.*{message}"):
            self.use(NetcdfAccessor(path, self.NAMES))

    def test_no_files(self, tmp_path):
        with pytest.raises(InputError, match=r"a.nc \(fields\) is not there; give a NetCDF file or a Zarr store"):
            NetcdfAccessor(tmp_path / "a.nc", self.NAMES).records()
        (tmp_path / "a.nc").write_bytes(b"no such format")
        with pytest.raises(InputError, match=r"a.nc \(fields\) is no NetCDF file that can be read"):
            NetcdfAccessor(tmp_path / "a.nc", self.NAMES).records()
        (tmp_path / "folder").mkdir()
        with pytest.raises(InputError, match=r"folder \(fields\) is no Zarr store that can be read"):
            NetcdfAccessor(tmp_path / "folder", self.NAMES).records()


class TestRealData:
    @pytest.fixture
    def samples(self) -> Path:
        """Folder of the real sequences; the environment variable AI4SIM_SAMPLES names the one above it."""
        default = Path(__file__).resolve().parents[4] / "shared" / "data"
        folder = Path(os.environ.get("AI4SIM_SAMPLES", default)) / "lam"
        if not folder.is_dir():
            pytest.skip(f"real sequences are not at {folder}; name their folder in AI4SIM_SAMPLES")
        return folder

    def test_era5_has_the_persistence_that_its_description_gives(self, samples):
        names = {"era_t2m_2m": "t2m", "era_pres_0m": "sp", "era_zust_0m": "zust", "era_ishf_0m": "ishf"}
        accessor = NetcdfAccessor(samples / "era5_finse_201810-11.nc", names)
        grid, records = accessor.load_grid_info(), accessor.records()
        assert (len(records), grid.shape) == (1464, (7, 10))
        assert (grid.latitude[0, 0], grid.latitude[-1, 0]) == (59.75, 61.25)
        # the higher the thinner: fields and orography are the same way round
        rows = np.flatnonzero(Period("2018-11-15", "2018-11-30").contains(records.times))
        fields = np.stack([accessor.load(list(names), row) for row in rows]).astype(np.float64)
        pressure = fields[..., 1].mean(axis=0).ravel()
        assert np.corrcoef(pressure, grid.geopotential.ravel())[0, 1] < -0.99
        assert np.corrcoef(pressure, grid.geopotential[::-1].ravel())[0, 1] > -0.5
        expected = {
            1: (0.60, 36.6, 0.016, 3.5), 3: (1.41, None, None, None), 6: (2.15, 184, 0.048, 7.8),
            12: (2.90, None, None, None), 24: (3.35, 608, 0.077, 8.4),
        }  # fmt: skip
        for hours, values in expected.items():
            rmse = np.sqrt(((fields[hours:] - fields[:-hours]) ** 2).mean(axis=(0, 1, 2)))
            for got, value in zip(rmse, values, strict=True):
                assert value is None or got == pytest.approx(value, rel=0.015)

    def test_arome_metcoop_is_projected_as_its_file_says(self, samples):
        names = {"aro_u10_10m": "u10", "aro_v10_10m": "v10"}
        accessor = NetcdfAccessor(samples / "arome_metcoop_wind10m_20160114.nc", names, geopotential=0)
        grid = accessor.load_grid_info()
        assert grid.shape == (151, 141)
        assert grid.spacing == pytest.approx(2.5, rel=1e-6)
        latitude, longitude = LambertConformal(63, 15, (63, 63), 6.371e6).to_sphere(grid.x * 1000, grid.y * 1000)
        # float32 coordinates: 4e-6 degrees
        np.testing.assert_allclose(latitude, grid.latitude, atol=1e-5)
        np.testing.assert_allclose(longitude, grid.longitude, atol=1e-5)
        fields = np.stack([accessor.load(list(names), record) for record in range(3)]).astype(np.float64)
        for hours, expected in ((1, 1.23), (2, 1.85)):
            assert np.sqrt(((fields[hours:] - fields[:-hours]) ** 2).mean()) == pytest.approx(expected, abs=0.005)

    def test_the_configuration_for_era5_makes_two_steps(self, samples, tmp_path, monkeypatch):
        monkeypatch.setenv("AI4SIM_DATA", str(tmp_path))
        monkeypatch.setenv("AI4SIM_EXPERIMENTS", str(tmp_path))
        configuration = Path(__file__).resolve().parents[1] / "configs" / "era5_finse.yaml"
        file = samples / "era5_finse_201810-11.nc"
        main([
            "fit", "--config", str(configuration), "--data.accessor.init_args.path", str(file),
            "--trainer.fast_dev_run", "2", "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu",
        ])  # fmt: skip
        with open_store(tmp_path / config.USE_CASE / "processed" / "era5_finse.zarr") as store:
            assert dict(store.sizes) == {"time": 1464, "lat": 7, "lon": 10, "feature": 5}
            assert store["state"].attrs["feature_units"] == ["K", "K", "Pa", "m s-1", "W m-2"]
