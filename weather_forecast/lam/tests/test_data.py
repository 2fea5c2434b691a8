"""From raw fields to windows."""

import dataclasses

import numpy as np
import pytest
import torch
import xarray as xr

from ai4sim.errors import InputError
from ai4sim.store import open_store, read_manifest
from weather_forecast.lam import prepare
from weather_forecast.lam.accessors import DummyAccessor, GridInfo, TitanNpyAccessor, ZarrAccessor
from weather_forecast.lam.accessors.base import Records
from weather_forecast.lam.data import LamData
from weather_forecast.lam.demo import DemoSettings, write_demo
from weather_forecast.lam.periods import Period
from weather_forecast.lam.prepare import FieldSelection
from weather_forecast.lam.solar import time_encodings, toa_radiation
from weather_forecast.lam.tests.conftest import FORCING, STATE, tiny_data

HOUR = np.timedelta64(1, "h")
NAMES = ("aro_t2m_2m", "aro_u10_10m")
DAYS = Period("2023-01-01", "2023-01-01")


def build(path, accessor, **changes):
    selection = changes.pop("selection", FieldSelection(NAMES))
    settings = {"train": DAYS, "step": 3 * HOUR} | changes
    return prepare.build(path, accessor, selection, **settings)


class TestAccessor:
    def test_store_fields_are_the_raw_ones_in_order(self, tiny):
        raw = xr.open_zarr(tiny.accessor.path)
        with open_store(tiny.store) as store:
            assert store["state"].attrs["features"] == STATE
            assert store["state"].attrs["feature_units"] == ["K", "kg m-2", "m s-1", "m s-1", "m2 s-2"]
            level = raw["level"].values.tolist().index(850)
            np.testing.assert_array_equal(store["state"][7, ..., 0], raw["2m_temperature"][7])
            np.testing.assert_array_equal(store["state"][7, ..., 4], raw["geopotential"][7, ..., level])
            np.testing.assert_array_equal(store["forcing"][7, ..., 0], raw["host_u_component_of_wind"][7, ..., level])
            np.testing.assert_array_equal(store["latitude"][:, 0], raw["latitude"])
            assert (np.diff(store["latitude"], axis=0) > 0).all()
            # the plane's kilometres, not those of the labels
            assert float(store["x"][0, 1] - store["x"][0, 0]) == pytest.approx(raw.attrs["grid_spacing"] / 1000)

    def test_a_store_with_the_north_first_gives_the_same_fields(self, tiny, tmp_path):
        raw = xr.open_zarr(tiny.accessor.path)
        flipped = raw.isel(latitude=slice(None, None, -1), time=slice(0, 2)).load()
        for name in flipped.variables:
            flipped[name].encoding = {}
        flipped.to_zarr(tmp_path / "north.zarr", zarr_format=2, consolidated=True)
        north, south = ZarrAccessor(tmp_path / "north.zarr"), tiny.accessor
        np.testing.assert_array_equal(north.load(STATE, 1), south.load(STATE, 1))
        for name in ("latitude", "y", "geopotential", "land_sea_mask"):
            np.testing.assert_array_equal(getattr(north.load_grid_info(), name), getattr(south.load_grid_info(), name))

    def test_a_grid_upside_down_is_refused(self):
        latitude, longitude = np.arange(4.0)[::-1] + 40, np.arange(5.0)
        with pytest.raises(InputError, match="the grid is upside down: row 0 must be the southernmost"):
            GridInfo.from_axes(latitude, longitude, np.zeros((4, 5)))

    def test_shapes_that_differ_are_named(self):
        with pytest.raises(InputError, match=r"geopotential has shape \(5, 4\), but latitude has \(4, 5\)"):
            GridInfo.from_axes(np.arange(4.0), np.arange(5.0), np.zeros((5, 4)))

    def test_bad_stores(self, tiny, tmp_path):
        with pytest.raises(InputError, match=r"nothing.zarr is no Zarr store"):
            ZarrAccessor(tmp_path / "nothing.zarr").records()
        raw = xr.open_zarr(tiny.accessor.path).isel(time=slice(0, 3)).load()
        for name in raw.variables:
            raw[name].encoding = {}
        raw.drop_vars("latitude").to_zarr(tmp_path / "a.zarr", zarr_format=2)
        with pytest.raises(InputError, match=r"a.zarr: the coordinate 'latitude' is missing"):
            ZarrAccessor(tmp_path / "a.zarr").load_grid_info()
        raw.isel(time=[0, 2, 1]).to_zarr(tmp_path / "b.zarr", zarr_format=2)
        with pytest.raises(InputError, match=r"b.zarr: times must increase"):
            ZarrAccessor(tmp_path / "b.zarr").records()
        raw.drop_vars("geopotential_at_surface").to_zarr(tmp_path / "c.zarr", zarr_format=2)
        with pytest.raises(InputError, match=r"c.zarr: the variable 'geopotential_at_surface' is missing"):
            ZarrAccessor(tmp_path / "c.zarr").load_grid_info()
        heights = raw.assign(geopotential=raw["geopotential"].assign_attrs(units="m"))
        heights.to_zarr(tmp_path / "d.zarr", zarr_format=2)
        with pytest.raises(InputError, match=r"d.zarr: 'geopotential' has units 'm', expected 'm2 s-2'; convert it"):
            ZarrAccessor(tmp_path / "d.zarr").parameters()
        with pytest.raises(InputError, match=r"c.zarr has no parameter 'aro_q_2m'; valid are aro_z_250hpa"):
            ZarrAccessor(tmp_path / "c.zarr").require(["aro_q_2m"])


class Gappy(DummyAccessor):
    """Lacks the wind at two times, one of which has no other field either."""

    def exists(self, name: str, record: int) -> bool:
        return super().exists(name, record) and record != 13 and not (record == 20 and name == "aro_u10_10m")


class TestPrepare:
    def test_times_that_lack_a_field_are_dropped_counted_and_named(self, tmp_path, caplog):
        manifest = build(tmp_path / "s.zarr", Gappy(hours=24, shape=(6, 7)))
        with open_store(tmp_path / "s.zarr") as store:
            assert store.sizes == {"time": 22, "lat": 6, "lon": 7, "feature": 2}
        assert "22 times, 2 dropped (first: aro_t2m_2m 2023-01-01T13:00)" in caplog.text
        assert manifest.settings["dropped"] == ["aro_t2m_2m 2023-01-01T13:00", "aro_u10_10m 2023-01-01T20:00"]

    def test_damaged_files_stop_the_preparation_or_are_left_out_on_demand(self, tmp_path, caplog):
        settings = DemoSettings(size="tiny", layout="npy")
        accessor = TitanNpyAccessor(write_demo(tmp_path / "raw", settings))
        damaged = accessor.get_filepath("aro_u10_10m", 4)
        damaged.write_bytes(damaged.read_bytes()[:-100])
        changes = {
            "selection": FieldSelection(("aro_t2m_2m", "aro_u10_10m")),
            "train": Period("2023-04-01", "2023-04-02"),
        }
        with pytest.raises(InputError, match=r"aro_u10_10m\.npy .*cannot be read"):
            build(tmp_path / "s.zarr", accessor, **changes)
        manifest = build(tmp_path / "s.zarr", accessor, skip_bad=True, **changes)
        assert manifest.settings["dropped"] == ["unreadable 2023-04-01T12:00"]
        assert f"left out: {damaged}" in caplog.text
        assert "1 dropped (first: unreadable 2023-04-01T12:00)" in caplog.text
        with open_store(tmp_path / "s.zarr") as store:
            assert accessor.records().times[4] not in store["time"].values
            assert store.sizes["time"] == len(accessor.records()) - 1

    def test_what_is_known_to_be_whole_is_not_read_again(self, tmp_path):
        read = []

        class Damaged(DummyAccessor):
            def load(self, names, record):
                read.append(record)
                if record == 5:
                    raise InputError("file 5 is truncated")
                return super().load(names, record)

        build(tmp_path / "s.zarr", Damaged(hours=24, shape=(6, 7)), skip_bad=True)
        assert sorted(read) == sorted([*range(24), *(r for r in range(24) if r != 5)])
        read.clear()
        build(tmp_path / "s.zarr", Damaged(hours=24, shape=(6, 7)), skip_bad=True)
        assert read == [5]

    def test_nothing_that_can_be_read_names_the_first_fault(self, tmp_path):
        class Damaged(DummyAccessor):
            def load(self, names, record):
                raise InputError(f"file {record} is truncated")

        with pytest.raises(InputError, match="none of 5 times can be read; the first: file 0 is truncated"):
            build(tmp_path / "s.zarr", Damaged(hours=5, shape=(6, 7)), skip_bad=True)

    @pytest.mark.parametrize("skip_bad", [False, True])
    def test_fields_of_another_shape_are_named(self, tmp_path, skip_bad):
        class Cut(DummyAccessor):
            def load(self, names, record):
                return super().load(names, record)[:-1] if record == 3 else super().load(names, record)

        message = r"2023-01-01T03:00 have shape \(5, 7, 2\), the grid and the parameters \(6, 7, 2\)"
        if not skip_bad:
            with pytest.raises(InputError, match=message):
                build(tmp_path / "s.zarr", Cut(hours=24, shape=(6, 7)))
            return
        manifest = build(tmp_path / "s.zarr", Cut(hours=24, shape=(6, 7)), skip_bad=True)
        assert manifest.settings["dropped"] == ["unreadable 2023-01-01T03:00"]

    def test_no_whole_time_names_the_parameter_that_is_missing_most(self, tmp_path):
        class Empty(DummyAccessor):
            def exists(self, name: str, record: int) -> bool:
                return name == "aro_t2m_2m"

        with pytest.raises(InputError, match="none of 5 times has all parameters; aro_u10_10m lacks at 5"):
            build(tmp_path / "s.zarr", Empty(hours=5, shape=(6, 7)))

    def test_statistics_of_state_and_of_its_change(self, tmp_path):
        accessor = Gappy(hours=24, shape=(6, 7))
        statistics = build(tmp_path / "s.zarr", accessor).statistics
        rows = [r for r in range(24) if r not in (13, 20)]
        fields = {r: accessor.load(NAMES, r).astype(np.float64) for r in rows}
        everything = np.stack(list(fields.values()))
        std = everything.std(axis=(0, 1, 2))
        np.testing.assert_allclose(statistics["state"]["mean"], everything.mean(axis=(0, 1, 2)), rtol=1e-6)
        np.testing.assert_allclose(statistics["state"]["std"], std, rtol=1e-9)
        changes = np.stack([fields[r] - fields[r - 3] for r in rows if r - 3 in fields]) / std
        assert statistics["difference"]["count"] == changes[..., 0].size
        np.testing.assert_allclose(statistics["difference"]["mean"], changes.mean(axis=(0, 1, 2)), atol=1e-12)
        np.testing.assert_allclose(statistics["difference"]["std"], changes.std(axis=(0, 1, 2)), rtol=1e-9)
        steps = [np.diff(everything, axis=axis).reshape(-1, 2) / std for axis in (1, 2)]
        assert statistics["gradient"]["count"] == 22 * (5 * 7 + 6 * 6)
        np.testing.assert_allclose(statistics["gradient"]["std"], np.concatenate(steps).std(axis=0), rtol=1e-9)

    def test_large_means_and_missing_values(self, tmp_path):
        class Pressures(DummyAccessor):
            def load(self, names, record):
                fields = super().load(names, record) + np.float32(1e5)
                fields[0, record % 7] = np.nan
                return fields

        statistics = build(tmp_path / "s.zarr", Pressures(hours=24, shape=(6, 7))).statistics
        np.testing.assert_allclose(np.array(statistics["state"]["mean"]) - 1e5, 0, atol=0.1)
        np.testing.assert_allclose(statistics["state"]["std"], 1, atol=0.05)
        assert statistics["state"]["count"] == 24 * (6 * 7 - 1)

    def test_crop(self, tmp_path):
        accessor = DummyAccessor(hours=6, shape=(6, 7))
        build(tmp_path / "s.zarr", accessor, selection=FieldSelection(NAMES, crop=(1, 5, 2, 4)))
        with open_store(tmp_path / "s.zarr") as store:
            np.testing.assert_array_equal(store["state"][3], accessor.load(NAMES, 3)[1:5, 2:4])
            np.testing.assert_array_equal(store["longitude"], accessor.load_grid_info().longitude[1:5, 2:4])
        with pytest.raises(InputError, match=r"the crop \[1, 9, 2, 4\] is not within the grid of 6 rows and 7 columns"):
            build(tmp_path / "s.zarr", accessor, selection=FieldSelection(NAMES, crop=(1, 9, 2, 4)))

    def test_periods_without_data(self, tmp_path):
        accessor = DummyAccessor(hours=6, shape=(6, 7))
        with pytest.raises(InputError, match=r"the training period 2024-01-01 .. 2024-01-02 has no times"):
            build(tmp_path / "s.zarr", accessor, train=Period("2024-01-01", "2024-01-02"))
        with pytest.raises(InputError, match="has no two times that are 12 hours apart"):
            build(tmp_path / "t.zarr", accessor, step=12 * HOUR)

    def test_sequences_do_not_mix_in_differences(self, tmp_path):
        class Forecasts(DummyAccessor):
            def records(self):
                whole = super().records()
                return Records(whole.times, np.repeat([0, 1], len(whole) // 2))

        statistics = build(tmp_path / "s.zarr", Forecasts(hours=12, shape=(6, 7)), step=HOUR).statistics
        assert statistics["difference"]["count"] == 10 * 6 * 7


class TestWindows:
    def test_batches_hold_state_forcing_and_what_is_known_of_the_target_times(self, tiny):
        batch = next(iter(tiny.val_dataloader()))
        rows = tiny.windows("validation").rows[:2]
        with open_store(tiny.store) as store:
            np.testing.assert_array_equal(batch["state"], store["state"].values[rows])
            np.testing.assert_array_equal(batch["forcing"], store["forcing"].values[rows])
            times = store["time"].values[rows]
            assert (np.diff(times, axis=1) == 3 * HOUR).all()
            np.testing.assert_allclose(batch["clock"], time_encodings(times[:, 1:]), atol=1e-6)
            sun = toa_radiation(times[0, 2], store["latitude"].values, store["longitude"].values)
        np.testing.assert_allclose(batch["toa_radiation"][0, 1], sun, rtol=1e-5, atol=1e-2)

    def test_training_sees_every_window_once_an_epoch(self, tiny):
        seen = torch.cat([batch["index"] for batch in tiny.train_dataloader()])
        assert sorted(seen.tolist()) == list(range(len(tiny.windows("train"))))

    def test_splits_keep_to_their_periods(self, tiny):
        with open_store(tiny.store) as store:
            times = store["time"].values
        for split, period in tiny.periods.items():
            assert period.contains(times[tiny.windows(split).rows]).all()

    def test_a_missing_time_costs_the_windows_that_touch_it(self, tmp_path, monkeypatch):
        monkeypatch.setenv("AI4SIM_DATA", str(tmp_path))
        sizes = []
        for name, kind in (("whole", DummyAccessor), ("gap", Gappy)):
            data = LamData(
                name, kind(hours=96, shape=(24, 24)), state=list(NAMES), border_size=2,
                step_hours=1, n_inputs=2, n_targets=3, n_targets_eval=1,
                periods={
                    "train": Period("2023-01-01", "2023-01-02"),
                    "validation": Period("2023-01-03", "2023-01-03"),
                    "test": Period("2023-01-04", "2023-01-04"),
                },
            )  # fmt: skip
            data.prepare_data()
            data.setup("fit")
            sizes.append(len(data.windows("train")))
        assert sizes == [44, 44 - 2 * 5]

    def test_dataset_info(self, tiny):
        info = tiny.info()
        assert info.outputs == STATE
        assert info.forcing_features == [*FORCING, "sin_hour", "cos_hour", "sin_doy", "cos_doy", "toa_radiation"]
        assert info.host_matches() == [(2, 0), (3, 1), (4, 2)]
        statics = info.static_fields()
        assert statics.shape == (24, 32, 4)
        assert statics.amin(dim=(0, 1)).tolist() == [0, 0, 0, 0]
        assert statics.amax(dim=(0, 1)).tolist() == [1, 1, 1, 1]
        assert statics[..., 3].sum() == 24 * 32 - 16 * 24
        table = info.summary()
        assert table.row_count == 5
        assert type(info).from_dict(info.to_dict()).to_dict().keys() == info.to_dict().keys()

    def test_data_of_another_kind_are_refused(self, tiny):
        info = tiny.info()
        for change, message in (
            ({"state": STATE[1:]}, r"other state parameters .* missing \['aro_t2m_2m'\], not known to the model \[\]"),
            ({"state": STATE[::-1]}, "other state parameters .* another order"),
            ({"step_seconds": 3600}, "steps of 3 h, the data have 1 h"),
        ):
            other = type(info).from_dict(info.to_dict() | change)
            with pytest.raises(InputError, match=message):
                info.require_same(other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state": []}, "data.state must name the parameters to forecast"),
        ({"state": ["aro_t2m_2m", "aro_t2m_2m"]}, "parameters repeat: aro_t2m_2m"),
        ({"state": ["aro_t2m"]}, "not of the form"),
        ({"demo": None}, r"data needs data\.accessor for raw data, or data\.demo"),
        ({"n_targets": 0}, r"data\.n_targets must be at least 1, not 0"),
        ({"step_hours": 0}, r"data\.step_hours must be positive"),
        ({"state": ["aro_t_700hpa"]}, "has no parameter 'aro_t_700hpa'; valid are"),
    ],
)
def test_bad_settings(data_home, monkeypatch, changes, message):
    monkeypatch.setenv("AI4SIM_DATA", str(data_home))
    with pytest.raises(InputError, match=message):
        tiny_data(**changes).prepare_data()


def test_overlapping_periods():
    with pytest.raises(InputError, match=r"the periods of train .* and validation .* overlap"):
        LamData(
            accessor=DummyAccessor(), state=["aro_t2m_2m"],
            periods={
                "train": Period("2023-01-01", "2023-01-05"),
                "validation": Period("2023-01-05", "2023-01-06"),
                "test": Period("2023-01-07", "2023-01-08"),
            },
        )  # fmt: skip


def test_a_period_too_short_for_a_window(data_home, monkeypatch):
    monkeypatch.setenv("AI4SIM_DATA", str(data_home))
    data = tiny_data(n_targets_eval=20)
    data.prepare_data()
    with pytest.raises(InputError, match=r"validation: no window of 1 \+ 20 times of 3 h in"):
        data.setup("fit")


def test_processed_data_follow_their_settings(data_home, monkeypatch):
    monkeypatch.setenv("AI4SIM_DATA", str(data_home))
    data = tiny_data(dataset="other", demo=DemoSettings(size="tiny"), forcing=[])
    data.prepare_data()
    first = read_manifest(data.store).fingerprint
    tiny_data(dataset="other", forcing=[], state=STATE[:2]).prepare_data()
    assert read_manifest(data.store).fingerprint != first
    with open_store(data.store) as store:
        assert store.sizes["feature"] == 2
        assert "forcing" not in store


def test_the_same_geopotential_everywhere_is_warned_of(tiny, caplog):
    info = dataclasses.replace(tiny.info(), geopotential=torch.full_like(tiny.info().geopotential, 50.0))
    fields = info.static_fields()
    assert (fields[..., 2] == 1).all()
    assert "tiny: the geopotential of the surface is the same everywhere" in caplog.text


def test_windows_say_their_initial_times(tiny):
    batch = next(iter(tiny.val_dataloader()))
    times = tiny.windows("validation").times[batch["index"].numpy()].astype("datetime64[s]")
    assert batch["time"].tolist() == times.astype(int).tolist()
