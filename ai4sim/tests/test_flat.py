import errno
import json
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ai4sim.flat import make_flat, open_flat
from ai4sim.manifest import StoreError
from ai4sim.schema import Schema, Variable
from ai4sim.store import Region, build_store, make_template

SCHEMA = Schema(
    "mixed",
    1,
    (
        Variable("x", ("sample", "feature"), "K"),
        Variable("z", ("sample", "channel", "lat", "lon"), "m"),
        Variable("count", ("sample",), "1", dtype="int32"),
    ),
)
N = 50
RNG = np.random.default_rng(2)
ARRAYS = {
    # features of very different size, one of them constant
    "x": (RNG.standard_normal((N, 5)) * [1e-6, 1, 300, 1e5, 0] + [0, 0, 250, 9e4, 7]).astype(np.float32),
    "z": (RNG.standard_normal((N, 2, 4, 6)) * np.array([1, 100])[:, None, None]).astype(np.float32),
    "count": np.arange(N, dtype=np.int32),
}


def make_store(path: Path, arrays=ARRAYS, version: str = "a") -> Path:
    source = path.with_suffix(".raw")
    source.write_text(version)
    data = xr.Dataset({name: (SCHEMA[name].dims, values) for name, values in arrays.items()})
    build_store(
        path,
        template=make_template(SCHEMA, {str(dim): size for dim, size in data.sizes.items()}, {"sample": 8}),
        regions=[Region("all", {"sample": slice(0, N)}, lambda: data)],
        sources=[source],
        schema=SCHEMA,
        settings={},
        progress=False,
    )
    return path


@pytest.fixture
def store(tmp_path) -> Path:
    return make_store(tmp_path / "s.zarr")


def test_float32_is_a_plain_npy_file_with_the_same_bits(store, tmp_path):
    flat = make_flat(store, tmp_path / "flat", block_bytes=300)
    for name in ("x", "z"):
        np.testing.assert_array_equal(np.load(flat / f"{name}.npy"), ARRAYS[name])
    variables = open_flat(flat)
    assert sorted(variables) == ["x", "z"]  # no integers unless asked for
    assert variables["z"].dims == ("sample", "channel", "lat", "lon")
    assert variables["x"].units == "K"
    assert variables["x"].scale is None
    assert sorted(p.name for p in flat.iterdir()) == ["manifest.json", "x.npy", "z.npy"]


@pytest.mark.parametrize(
    ("name", "scale_axis", "shape"), [("x", None, (5,)), ("z", None, (2, 1, 1)), ("z", -1, (1, 1, 6))]
)
def test_int16_is_exact_to_half_a_step(store, tmp_path, name, scale_axis, shape):
    flat = make_flat(store, tmp_path / "flat", variables=[name], dtype="int16", scale_axis=scale_axis)
    variable = open_flat(flat)[name]
    packed = variable.rows()
    assert packed.dtype == np.int16
    assert variable.scale is not None
    assert variable.offset is not None
    assert variable.scale.shape == shape
    decoded = packed * variable.scale.astype(np.float64) + variable.offset.astype(np.float64)
    assert (np.abs(decoded - ARRAYS[name]) <= variable.scale.astype(np.float64) * 0.5000001).all()
    # the whole range of int16 is used: no step is larger than it must be
    axis = tuple(a for a in range(packed.ndim) if a == 0 or shape[a - 1] == 1)
    varies = np.ptp(ARRAYS[name], axis=axis) > 0
    assert (np.abs(packed.astype(int)).max(axis=axis)[varies] >= 32766).all()
    assert packed.min() >= -32767


def test_a_constant_feature_is_exact(store, tmp_path):
    variable = open_flat(make_flat(store, tmp_path / "flat", variables=["x"], dtype="int16"))["x"]
    assert variable.offset is not None
    assert (variable.rows()[:, 4] == 0).all()
    assert variable.offset[4] == 7


def test_int16_refuses_missing_values(tmp_path):
    arrays = ARRAYS | {"x": ARRAYS["x"].copy()}
    arrays["x"][30, 1] = np.nan
    store = make_store(tmp_path / "s.zarr", arrays)
    with pytest.raises(StoreError, match=r"'x' has missing or infinite values in rows .*use dtype float32"):
        make_flat(store, tmp_path / "flat", dtype="int16")
    assert not (tmp_path / "flat").exists()
    make_flat(store, tmp_path / "flat", dtype="float32")


def test_made_again_only_when_something_changed(store, tmp_path):
    flat = make_flat(store, tmp_path / "flat")
    made = (flat / "x.npy").stat().st_ino
    make_flat(store, tmp_path / "flat")
    assert (flat / "x.npy").stat().st_ino == made
    make_flat(store, tmp_path / "flat", dtype="int16")
    assert np.load(flat / "x.npy").dtype == np.int16


def test_a_copy_of_a_changed_store_is_refused(store, tmp_path):
    flat = make_flat(store, tmp_path / "flat")
    make_store(store, version="b")
    with pytest.raises(StoreError, match=r"flat is out of date: .*s\.zarr has changed since; make it again"):
        open_flat(flat)
    make_flat(store, flat)
    open_flat(flat)
    other = make_store(tmp_path / "other.zarr", version="c")
    with pytest.raises(StoreError, match=r"out of date: .*other\.zarr"):
        open_flat(flat, other)


def test_a_copy_may_outlive_or_leave_its_store(store, tmp_path):
    flat = make_flat(store, tmp_path / "flat")
    store.rename(tmp_path / "moved.zarr")
    np.testing.assert_array_equal(open_flat(flat)["x"].rows(), ARRAYS["x"])


def test_interrupted_copies_are_not_there_and_start_anew(store, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", "x.npy")

    with monkeypatch.context() as patch:
        patch.setattr("numpy.rint", full)
        with pytest.raises(StoreError, match=r"cannot write the flat copy .*flat: No space left on device"):
            make_flat(store, tmp_path / "flat", dtype="int16")
    with pytest.raises(StoreError, match=r"flat is no finished flat copy: it has no manifest\.json"):
        open_flat(tmp_path / "flat")
    flat = make_flat(store, tmp_path / "flat", dtype="int16")
    assert open_flat(flat)["x"].rows().shape == (N, 5)
    assert not (tmp_path / "flat.partial").exists()


def test_damage_and_mistakes_are_named(store, tmp_path):
    with pytest.raises(StoreError, match=r"s\.zarr has no variable 'q'; it has"):
        make_flat(store, tmp_path / "flat", variables=["q"])
    with pytest.raises(ValueError, match="dtype 'float16' is unknown; choose float32 or int16"):
        make_flat(store, tmp_path / "flat", dtype="float16")
    flat = make_flat(store, tmp_path / "flat")
    (flat / "z.npy").write_bytes((flat / "z.npy").read_bytes()[:1000])
    with pytest.raises(StoreError, match=r"z\.npy is missing or damaged .*make the flat copy again"):
        open_flat(flat)["z"].rows()
    content = json.loads((flat / "manifest.json").read_text())
    content["format"] = "other"
    (flat / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(StoreError, match="not the manifest of a flat copy of format"):
        open_flat(flat)


def test_memory_is_bounded_by_the_block(tmp_path):
    schema = Schema("big", 1, (Variable("x", ("sample", "feature"), "1"),))
    values = np.ones((131072, 64), np.float32)  # 33.6 MB
    (tmp_path / "raw").touch()
    build_store(
        tmp_path / "big.zarr",
        template=make_template(schema, {"sample": 131072, "feature": 64}, {"sample": 2048}),
        regions=[Region("all", {"sample": slice(0, 131072)}, lambda: xr.Dataset({"x": (schema["x"].dims, values)}))],
        sources=[tmp_path / "raw"],
        schema=schema,
        settings={},
        progress=False,
    )
    tracemalloc.start()
    try:
        make_flat(tmp_path / "big.zarr", tmp_path / "flat", dtype="int16", block_bytes=2**20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # a block, its float64 form and the packed one
    assert peak < 8 * 2**20 < values.nbytes / 2


def test_other_peoples_folders_are_left_alone(tmp_path):
    store = make_store(tmp_path / "s.zarr")
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    for target in (folder, store):
        with pytest.raises(StoreError, match="holds files that are no flat copy"):
            make_flat(store, target)
    assert (folder / "thesis.tex").read_text() == "years of work"
    with pytest.raises(StoreError, match="holds files that are no store made here"):
        make_store(folder)
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]


def test_two_threads_that_make_the_same_copy_leave_a_whole_one(tmp_path):
    store = make_store(tmp_path / "s.zarr")
    with ThreadPoolExecutor(2) as pool:
        for task in [pool.submit(make_flat, store, tmp_path / "flat", block_bytes=64) for _ in range(2)]:
            task.result()
    np.testing.assert_array_equal(open_flat(tmp_path / "flat")["x"].rows(), ARRAYS["x"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flat", "s.raw", "s.zarr"]
