import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from ai4sim.errors import InputError
from ai4sim.manifest import MANIFEST_NAME
from ai4sim.schema import Schema, Variable
from ai4sim.store import Region, StoreError, build_store, is_current, make_template, open_store, read_manifest

SCHEMA = Schema(
    "columns",
    version=1,
    variables=(
        Variable("x", ("sample", "feature"), "1", long_name="inputs"),
        Variable("y", ("sample", "target"), "m s-2"),
        Variable("extra", ("sample",), "1", optional=True),
    ),
    sizes={"feature": 7, "target": 3},
)
N = 95
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, 7), np.float32)
Y = RNG.standard_normal((N, 3), np.float32)


def load(start: int, stop: int) -> xr.Dataset:
    return xr.Dataset({"x": (("sample", "feature"), X[start:stop]), "y": (("sample", "target"), Y[start:stop])})


def make_regions(step: int = 20, log: list[str] | None = None) -> list[Region]:
    def logged(name: str, start: int, stop: int) -> xr.Dataset:
        if log is not None:
            log.append(name)
        return load(start, stop)

    bounds = [(start, min(start + step, N)) for start in range(0, N, step)]
    return [Region(f"r{a}", {"sample": slice(a, b)}, partial(logged, f"r{a}", a, b)) for a, b in bounds]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "raw" / "2015-01-01.h5"
    file.parent.mkdir()
    file.write_bytes(b"raw data")
    return file


def build(path, source, regions=None, template=None, settings=None, **options):
    return build_store(
        path,
        template=make_template(SCHEMA, {"sample": N}, {"sample": 10}) if template is None else template,
        regions=make_regions() if regions is None else regions,
        sources=[source],
        schema=SCHEMA,
        settings=settings or {"drop": False},
        progress=False,
        **options,
    )


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.mark.parametrize("compression", ["lz4", "zstd", None])
@pytest.mark.parametrize("shards", [None, {"sample": 20}])
def test_every_value_is_right_after_a_parallel_write(tmp_path, source, compression, shards):
    template = make_template(SCHEMA, {"sample": N}, {"sample": 10}, shards=shards, compression=compression)
    build(tmp_path / "store.zarr", source, template=template, threads=4)
    dataset = open_store(tmp_path / "store.zarr")
    assert dataset.sizes == {"sample": N, "feature": 7, "target": 3}
    np.testing.assert_array_equal(dataset["x"].values, X)
    np.testing.assert_array_equal(dataset["y"].values, Y)
    assert dataset["x"].encoding["chunks"] == (10, 7)
    assert dataset["x"].encoding["shards"] == (None if shards is None else (20, 7))
    assert dataset["y"].attrs["units"] == "m s-2"
    assert dataset["x"].attrs["long_name"] == "inputs"
    # nothing else is left behind
    assert sorted(p.name for p in tmp_path.iterdir()) == ["raw", "store.zarr"]


def test_regions_may_divide_more_than_one_dimension(tmp_path, source):
    schema = Schema("fields", 1, (Variable("z", ("time", "channel", "y", "x"), "m"),))
    z = RNG.standard_normal((6, 2, 8, 10), np.float32)
    sizes = dict(zip(("time", "channel", "y", "x"), z.shape, strict=True))
    times = np.arange("2000-01-01", "2000-01-07", dtype="datetime64[D]").astype("datetime64[ns]")
    template = make_template(schema, sizes, {"time": 1, "y": 4}, coords={"time": times, "lat": ("y", np.arange(8.0))})

    def part(t: int, y: int) -> xr.Dataset:
        # a coordinate that the template already has is not written again
        values = z[t : t + 3, :, y : y + 4]
        return xr.Dataset({"z": (schema["z"].dims, values)}, {"time": times[t : t + 3]})

    regions = [
        Region(f"{t}-{y}", {"time": slice(t, t + 3), "y": slice(y, y + 4)}, partial(part, t, y))
        for t in (0, 3)
        for y in (0, 4)
    ]
    build_store(
        tmp_path / "f.zarr", template=template, regions=regions, sources=[source], schema=schema, settings={},
        progress=False,
    )  # fmt: skip
    dataset = open_store(tmp_path / "f.zarr")
    np.testing.assert_array_equal(dataset["z"].values, z)
    np.testing.assert_array_equal(dataset["time"].values, times)
    np.testing.assert_array_equal(dataset["lat"].values, np.arange(8.0))


def test_manifest_tells_what_it_was_made_from(tmp_path, source):
    manifest = build(
        tmp_path / "s.zarr", source, settings={"n": np.int64(3), "splits": ("a", "b")},
        statistics=lambda dataset: {"mean": dataset["x"].mean("sample").values},
    )  # fmt: skip
    assert manifest.schema == "columns"
    assert manifest.settings == {"n": 3, "splits": ["a", "b"]}
    (described,) = manifest.sources
    assert (described.name, described.size) == ("2015-01-01.h5", 8)
    assert described.sha256 == hashlib.sha256(b"raw data").hexdigest()
    assert manifest.variables["y"] == {
        "dims": ["sample", "target"], "shape": [N, 3], "dtype": "float32", "units": "m s-2",
    }  # fmt: skip
    np.testing.assert_allclose(manifest.statistics["mean"], X.mean(axis=0), rtol=1e-5)
    assert read_manifest(tmp_path / "s.zarr") == manifest
    assert json.loads((tmp_path / "s.zarr" / MANIFEST_NAME).read_text())["fingerprint"] == manifest.fingerprint


def test_rebuilt_only_when_sources_settings_or_schema_change(tmp_path, source):
    path = tmp_path / "s.zarr"
    log: list[str] = []

    def current(schema=SCHEMA, settings=None):
        return is_current(path, schema=schema, sources=[source], settings=settings or {"drop": False})

    assert not current()
    first = build(path, source, make_regions(log=log))
    assert len(log) == 5
    assert current()
    assert build(path, source, make_regions(log=log)) == first
    assert len(log) == 5

    os.utime(source, ns=(1, 1))  # touched, not changed
    assert current()
    source.write_bytes(b"RAW data")  # same length
    assert not current()
    build(path, source, make_regions(log=log))
    assert len(log) == 10
    assert current()
    assert not current(settings={"drop": True})
    assert not current(schema=Schema("columns", 2, SCHEMA.variables, SCHEMA.sizes))


def test_an_outdated_store_stays_until_its_successor_is_whole(tmp_path, source):
    path = tmp_path / "s.zarr"
    first = build(path, source)

    def fail() -> xr.Dataset:
        raise InputError("2015-01-31.h5 is truncated")

    regions = make_regions()
    regions[-1] = Region(regions[-1].name, regions[-1].slices, fail)
    with pytest.raises(InputError, match=r"2015-01-31\.h5 is truncated"):
        build(path, source, regions, settings={"drop": True})
    assert read_manifest(path) == first
    second = build(path, source, settings={"drop": True})
    assert read_manifest(path) == second != first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["raw", "s.zarr"]


KILLED = """
import sys, time
from pathlib import Path
from ai4sim.store import Region
from ai4sim.tests.test_store import build, load, make_regions

folder, source = map(Path, sys.argv[1:])

def hang():
    # the other thread writes on; the process is killed once two regions are finished
    while len(list((folder / "killed.zarr.partial" / "regions").iterdir())) < 2:
        time.sleep(0.01)
    (folder / "waiting").touch()
    time.sleep(600)

regions = make_regions()
regions[3] = Region(regions[3].name, regions[3].slices, hang)
build(folder / "killed.zarr", source, regions, threads=2)
"""


def test_killed_half_way_it_is_not_whole_and_goes_on_to_identical_bytes(tmp_path, source):
    path = tmp_path / "killed.zarr"
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), str(source)],
        cwd=Path(__file__).parents[2],
    )
    try:
        for _ in range(1200):
            if (tmp_path / "waiting").exists() or process.poll() is not None:
                break
            time.sleep(0.05)
        assert (tmp_path / "waiting").exists()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()

    with pytest.raises(StoreError, match=r"killed\.zarr is unfinished.*run prepare to go on"):
        open_store(path)
    assert not is_current(path, schema=SCHEMA, sources=[source], settings={"drop": False})
    # by their names: a marker counts from the moment it is there
    done = {f"r{20 * int(p.stem)}" for p in (tmp_path / "killed.zarr.partial" / "regions").iterdir()}
    assert 2 <= len(done) <= 4

    log: list[str] = []
    build(path, source, make_regions(log=log))
    assert set(log) == {"r0", "r20", "r40", "r60", "r80"} - done
    assert len(log) == 5 - len(done)
    build(tmp_path / "straight.zarr", source)
    assert digests(path) == digests(tmp_path / "straight.zarr")
    np.testing.assert_array_equal(open_store(path)["x"].values, X)
    assert not (tmp_path / "killed.zarr.partial").exists()


def test_an_interrupted_run_with_other_settings_starts_anew(tmp_path, source):
    def fail() -> xr.Dataset:
        raise InputError("stopped")

    regions = make_regions()
    regions[4] = Region("r80", regions[4].slices, fail)
    with pytest.raises(InputError, match="stopped"):
        build(tmp_path / "s.zarr", source, regions, threads=1)
    log: list[str] = []
    build(tmp_path / "s.zarr", source, make_regions(log=log), settings={"drop": True})
    assert len(log) == 5


def test_memory_is_bounded_by_regions_not_by_the_store(tmp_path, source):
    schema = Schema("big", 1, (Variable("x", ("sample", "feature"), "1"),))
    rows, n_regions = 8192, 24
    region_bytes = rows * 128 * 4

    def constant(value: int) -> xr.Dataset:
        return xr.Dataset({"x": (("sample", "feature"), np.full((rows, 128), value, np.float32))})

    regions = [
        Region(f"{k}", {"sample": slice(k * rows, (k + 1) * rows)}, partial(constant, k + 1)) for k in range(n_regions)
    ]
    template = make_template(schema, {"sample": rows * n_regions, "feature": 128}, {"sample": rows // 4})
    options: dict[str, Any] = {"sources": [source], "schema": schema, "settings": {}, "progress": False}
    tracemalloc.start()
    try:
        build_store(tmp_path / "big.zarr", template=template, regions=regions, threads=2, **options)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * region_bytes < n_regions * region_bytes / 3
    assert float(open_store(tmp_path / "big.zarr")["x"][-1, -1]) == n_regions


@pytest.mark.parametrize(
    ("bounds", "shards", "message"),
    [
        ([(0, 15), (15, N)], None, r"'r0' covers sample=0:15.* chunks of variable 'x' .*multiples of 10"),
        ([(0, 10), (10, N)], {"sample": 20}, r"covers sample=0:10.* shards of variable 'x' \(20 entries\)"),
        ([(0, 20), (40, N)], None, "do not fill the store: nothing covers sample=20"),
        ([(0, 40), (20, N)], None, "region 'r20' overlaps an earlier one"),
        ([(0, 40), (40, 120)], None, "region 'r40': sample=40:120 is empty or outside 0:95"),
        ([(0, N), (0, N)], None, "two regions have the name 'r0'"),
        ([], None, "no regions were given"),
    ],
)  # fmt: skip
def test_regions_that_do_not_fit_are_refused_before_anything_is_written(tmp_path, source, bounds, shards, message):
    regions = [Region(f"r{a}", {"sample": slice(a, b)}, partial(load, a, b)) for a, b in bounds]
    template = make_template(SCHEMA, {"sample": N}, {"sample": 10}, shards=shards)
    with pytest.raises(StoreError, match=message):
        build(tmp_path / "s.zarr", source, regions, template)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["raw"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.astype("float64"), r"region 'r0': variable 'x' has .* type float64; .* type float32"),
        (
            lambda d: d.isel(sample=slice(5)),
            r"variable 'x' has .* shape \(5, 7\).*expects .* shape \(95, 7\)",
        ),
        (lambda d: d.transpose("target", "feature", "sample"), r"has dims \('feature', 'sample'\)"),
        (lambda d: d.drop_vars("y"), "region 'r0' gives no variable 'y'"),
        (lambda d: d.assign(q=d["x"]), "region 'r0' gives 'q', which the template does not have"),
    ],
)
def test_data_that_do_not_fit_the_template_are_named(tmp_path, source, change, message):
    region = Region("r0", {"sample": slice(0, N)}, lambda: change(load(0, N)))
    with pytest.raises(StoreError, match=message):
        build(tmp_path / "s.zarr", source, [region])
    assert not (tmp_path / "s.zarr").exists()


def test_an_unwritable_place_is_named(tmp_path, source):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match=r"cannot write .*file/s\.zarr: "):
        build(tmp_path / "file" / "s.zarr", source)


def test_a_full_disk_says_what_is_needed_and_keeps_finished_regions(tmp_path, source, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("zarr.storage._local._put", full)
        with pytest.raises(StoreError, match=r"no space left for .*s\.zarr: it needs up to .*\(3800 bytes\).*are free"):
            build(tmp_path / "s.zarr", source)
    assert not (tmp_path / "s.zarr").exists()
    build(tmp_path / "s.zarr", source)
    np.testing.assert_array_equal(open_store(tmp_path / "s.zarr")["y"].values, Y)


def test_too_little_space_is_announced_before(tmp_path, source, monkeypatch, caplog):
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr("ai4sim.store.shutil.disk_usage", lambda path: usage)
    build(tmp_path / "s.zarr", source)
    assert "needs up to 0.00 GB (3800 bytes) before compression, and 0.00 GB (100 bytes) are free" in caplog.text


def test_a_second_process_waits_and_finds_the_store_made(tmp_path, source, caplog):
    log: list[str] = []
    work = tmp_path / "s.zarr.partial"
    work.mkdir()
    with (work / "lock").open("w") as lock, ThreadPoolExecutor(1) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = pool.submit(build, tmp_path / "s.zarr", source, make_regions(log=log))
        while "another process is making" not in caplog.text:
            assert not waiting.done()
            time.sleep(0.01)
        # what the other process does: make the store and remove its folder
        made = build(tmp_path / "elsewhere.zarr", source)
        (tmp_path / "elsewhere.zarr").rename(tmp_path / "s.zarr")
        shutil.rmtree(work)
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert waiting.result(timeout=60) == made
    assert not log
    assert not work.exists()


def test_missing_unfinished_and_damaged_stores_are_told_apart(tmp_path, source):
    with pytest.raises(StoreError, match=r"no\.zarr does not exist; run prepare"):
        open_store(tmp_path / "no.zarr")
    build(tmp_path / "s.zarr", source)
    manifest = tmp_path / "s.zarr" / MANIFEST_NAME
    text = manifest.read_text()
    manifest.write_text(text.replace('"drop": false', '"drop": true'))
    with pytest.raises(StoreError, match="does not match its own fingerprint"):
        open_store(tmp_path / "s.zarr")
    manifest.write_text(text[:40])
    with pytest.raises(StoreError, match=r"manifest\.json is not a manifest"):
        open_store(tmp_path / "s.zarr")
    manifest.unlink()
    with pytest.raises(StoreError, match=r"s\.zarr is unfinished: it has no manifest\.json; run prepare"):
        open_store(tmp_path / "s.zarr")


def test_missing_source_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"source file .*gone\.h5 does not exist"):
        build(tmp_path / "s.zarr", tmp_path / "gone.h5")


def test_a_store_behind_a_url(source):
    manifest = build("memory://bucket/s.zarr", source, threads=2)
    assert read_manifest("memory://bucket/s.zarr") == manifest
    np.testing.assert_array_equal(open_store("memory://bucket/s.zarr")["x"].values, X)
    assert build("memory://bucket/s.zarr", source, regions=[]) == manifest
    with pytest.raises(StoreError, match=r"memory://bucket/t\.zarr is unfinished"):
        open_store("memory://bucket/t.zarr")


@pytest.mark.parametrize("by_address", [True, False])
def test_a_dask_scheduler_writes_the_same_bytes(tmp_path, source, by_address):
    distributed = pytest.importorskip("distributed", reason='needs pip install -e ".[distributed]"')
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(
            distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None)
        )
        if by_address:
            build(tmp_path / "d.zarr", source, scheduler=cluster.scheduler_address)
        else:
            stack.enter_context(distributed.Client(cluster))
            build(tmp_path / "d.zarr", source)
    build(tmp_path / "s.zarr", source)
    assert digests(tmp_path / "d.zarr") == digests(tmp_path / "s.zarr")
