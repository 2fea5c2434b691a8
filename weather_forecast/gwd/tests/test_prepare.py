"""From raw files to the processed store and its batches."""

import dataclasses
import json
import subprocess
import sys

import h5py
import numpy as np
import pytest

from ai4sim.errors import InputError
from ai4sim.store import open_store
from weather_forecast.gwd import prepare
from weather_forecast.gwd.data import GwdData
from weather_forecast.gwd.demo import DemoSettings, write_demo
from weather_forecast.gwd.layout import ColumnLayout
from weather_forecast.gwd.raw import RawFile

SPLITS = {"train": ["2015-01-01", "2015-07-30"], "validation": ["2016-06-24"], "test": ["2017-02-19"]}
TINY = DemoSettings(train=40, validation=10, test=10, times=2, azimuths=4, speeds=20)


@pytest.fixture
def data(tmp_path, monkeypatch) -> GwdData:
    monkeypatch.setenv("AI4SIM_DATA", str(tmp_path))
    data = GwdData(dataset="tiny", splits=SPLITS, demo=TINY, batch_size=8, eval_batch_size=4)
    data.prepare_data()
    data.setup("fit")
    return data


def test_demo_files_have_the_public_schema(data):
    with h5py.File(data.raw / "2015-01-01.h5") as file:
        assert file["x"].shape == (191, 2, 10)
        assert file["y"].shape == (126, 2, 10)
        assert file["x"].dtype == file["y"].dtype == np.float32
        assert file["lat"].shape == file["doy"].shape == (2, 10)
        doy = file["doy"][()]
        assert np.all(doy[0] == 0)
        assert np.all(doy[1] == 15)
        x, y = file["x"][()].reshape(191, -1), file["y"][()].reshape(126, -1)
    assert 85 < x[190].mean() < 110  # geopotential about 10 m above ground, as in the real files
    assert 1e-6 < np.abs(y).max() < 1e-1


def test_demo_is_reproducible_by_seed_and_netcdf_holds_the_same_rows(tmp_path):
    first = write_demo(tmp_path / "a", TINY, SPLITS)
    again = write_demo(tmp_path / "b", TINY, SPLITS)
    other = write_demo(tmp_path / "c", dataclasses.replace(TINY, seed=1), SPLITS)
    netcdf = write_demo(tmp_path / "d", dataclasses.replace(TINY, format="netcdf"), SPLITS)
    layout = ColumnLayout()
    rows = [RawFile.open(files[0], layout).read(0, 20) for files in (first, again, other, netcdf)]
    assert first[0].read_bytes() == again[0].read_bytes()
    assert not np.array_equal(rows[0]["x"], rows[2]["x"])
    assert netcdf[0].suffix == ".nc"
    for name in ("x", "y", "lat", "doy"):
        np.testing.assert_array_equal(rows[0][name], rows[3][name])


def test_calm_columns_are_in_the_training_files_alone(tmp_path):
    layout = ColumnLayout()
    files = {
        calm: write_demo(tmp_path / str(calm), dataclasses.replace(TINY, calm=calm), SPLITS) for calm in (0.0, 0.5)
    }
    changed = [
        (RawFile.open(usual, layout).read(0, 10)["x"] != RawFile.open(calmer, layout).read(0, 10)["x"]).any(axis=1)
        for usual, calmer in zip(files[0.0], files[0.5], strict=True)
    ]
    assert 0 < changed[0].sum() < 10
    assert not changed[2].any()
    assert not changed[3].any()
    with pytest.raises(InputError, match=r"calm must be a share between 0 and 1, not 1\.5"):
        DemoSettings(calm=1.5)


def test_demo_never_takes_other_files_for_its_own(tmp_path):
    files = write_demo(tmp_path, TINY, SPLITS)
    with pytest.raises(InputError, match="made with other demo settings"):
        write_demo(tmp_path, dataclasses.replace(TINY, seed=3), SPLITS)
    with h5py.File(files[0], "a") as file:
        del file.attrs["ai4sim_demo"]
    with pytest.raises(InputError, match=r"2015-01-01\.h5 is no demo file"):
        write_demo(tmp_path, TINY, SPLITS)
    with pytest.raises(InputError, match="41 train columns do not divide into 2 files of 2 times"):
        write_demo(tmp_path, dataclasses.replace(TINY, train=41), SPLITS)


def test_store_holds_every_value_in_the_order_of_the_splits(data):
    store = open_store(data.store)
    files = [data.raw / f"{date}.h5" for dates in SPLITS.values() for date in dates]
    raw = [RawFile.open(file, data.layout).read(0, n) for file, n in zip(files, (20, 20, 10, 10), strict=True)]
    for name in ("x", "y", "lat", "doy"):
        np.testing.assert_array_equal(store[name].values, np.concatenate([part[name] for part in raw]))
    assert data.rows("train") == slice(0, 40)
    assert data.rows("validation") == slice(40, 50)
    assert data.rows("test") == slice(50, 60)
    # one block per file and time
    assert np.unique(store["block"].values, return_counts=True)[1].tolist() == [10, 10, 10, 10, 5, 5, 5, 5]


def test_statistics_are_those_of_the_training_rows_alone(data):
    x = open_store(data.store)["x"].values[:40].astype(np.float64)
    statistics = data.statistics("x")
    assert statistics.count == 40
    np.testing.assert_allclose(statistics.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(statistics.std, x.std(0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("reader", ["zarr", "float32", "int16"])
def test_batches_are_rows_of_the_store(tmp_path, monkeypatch, reader):
    monkeypatch.setenv("AI4SIM_DATA", str(tmp_path))
    data = GwdData(dataset="tiny", splits=SPLITS, demo=TINY, batch_size=8, eval_batch_size=4, reader=reader)
    data.prepare_data()
    data.setup("fit")
    store = open_store(data.store)
    seen = []
    step = (store["x"].max("sample") - store["x"].min("sample")).values / 65534 if reader == "int16" else 0.0
    for batch in data.train_dataloader():
        rows = batch["index"].numpy()
        assert batch["x"].shape == (8, 191)
        assert np.all(np.abs(batch["x"].numpy() - store["x"].values[rows]) <= 0.51 * step + 1e-2 * (reader == "int16"))
        seen += rows.tolist()
    assert sorted(seen) == list(range(40))
    assert seen != sorted(seen)
    assert [batch["index"].tolist() for batch in data.test_dataloader()] == [
        [50, 51, 52, 53],
        [54, 55, 56, 57],
        [58, 59],
    ]


def spoil(path, rows, feature=2 * 63 + 16, value=np.nan):
    with h5py.File(path, "a") as file:
        x = file["x"][()].reshape(191, -1)
        x[feature, rows] = value
        file["x"][...] = x.reshape(file["x"].shape)


def build(folder, on_bad_rows="raise"):
    files = {split: [folder / f"{date}.h5" for date in dates] for split, dates in SPLITS.items()}
    return prepare.build(folder / "out.zarr", files, layout=ColumnLayout(), grid="L91", on_bad_rows=on_bad_rows)


def test_impossible_rows_are_counted_and_named(tmp_path):
    spoil(write_demo(tmp_path, TINY, SPLITS)[1], [3, 7])
    with pytest.raises(
        InputError,
        match=r"2015-07-30\.h5: 2 impossible rows .* the first is row 3, where T level 17 is nan, expected 100",
    ):
        build(tmp_path)
    assert not (tmp_path / "out.zarr").exists()


def test_impossible_rows_can_be_dropped_with_a_note(tmp_path, caplog):
    spoil(write_demo(tmp_path, TINY, SPLITS)[1], [3, 7])
    manifest = build(tmp_path, "drop")
    assert manifest.settings["ranges"]["train"] == [0, 38]
    assert "dropped 2 of 20 rows (10 %)" in caplog.text
    store = open_store(tmp_path / "out.zarr")
    raw = RawFile.open(tmp_path / "2015-07-30.h5", ColumnLayout()).read(0, 20)
    np.testing.assert_array_equal(store["x"].values[20:38], np.delete(raw["x"], [3, 7], axis=0))
    assert np.isfinite(store["x"].values).all()


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": ["a"], "validation": ["b"], "test": []}, "split 'test' is empty"),
        ({"train": ["a"], "validation": ["b"]}, "split 'test' is empty"),
        (
            {"train": ["a", "b"], "validation": ["b"], "test": ["c"]},
            "'b' is in split 'train' and again in 'validation'",
        ),
    ],
)
def test_bad_splits_are_named(splits, message):
    with pytest.raises(InputError, match=message):
        GwdData(splits=splits)


def test_a_store_of_other_levels_is_refused(data):
    other = GwdData(dataset="tiny", splits=SPLITS, layout=ColumnLayout(n_levels=93))
    with pytest.raises(InputError, match=r"tiny\.zarr holds columns of .*n_levels=63.*expected .*n_levels=93"):
        other.setup("fit")


def test_the_store_serves_when_the_raw_files_are_gone(data, caplog):
    for file in data.raw.iterdir():
        file.unlink()
    data.raw.rmdir()
    again = GwdData(dataset="tiny", splits=SPLITS)
    again.prepare_data()
    again.setup("fit")
    assert "are gone: using the store" in caplog.text
    assert again.statistics("y").count == 40


PEAK = """
import json, resource, sys
from pathlib import Path
from weather_forecast.gwd import prepare
from weather_forecast.gwd.layout import ColumnLayout
folder, dates = Path(sys.argv[1]), sys.argv[2].split(",")
paths = [folder / f"{date}.h5" for date in dates]
files = {"train": paths[:-2], "validation": paths[-2:-1], "test": paths[-1:]}
settings = dict(layout=ColumnLayout(), grid="L91", on_bad_rows="raise")
prepare.build(folder / f"{len(dates)}.zarr", files, **settings)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_files(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.uniform(200, 300, (191, 4, 5000)).astype(np.float32)
    x[189] = 1e5
    y = rng.normal(0, 1e-5, (126, 4, 5000)).astype(np.float32)
    dates = [f"2015-01-{day:02d}" for day in range(1, 11)]
    for date in dates:
        with h5py.File(tmp_path / f"{date}.h5", "w") as file:
            file["x"], file["y"] = x, y
    peaks = []
    for chosen in (dates[:3], dates):
        command = [sys.executable, "-c", PEAK, str(tmp_path), ",".join(chosen)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        peaks.append(json.loads(output.splitlines()[-1]) / 1024)  # KiB to MiB
    # ten files hold 250 MB
    assert peaks[1] < peaks[0] + 100, peaks
