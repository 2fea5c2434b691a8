import json
import pickle
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from zarr.codecs import GzipCodec

from ai4sim.chunks import _LocalBlocks, _ZarrBlocks, open_blocks
from ai4sim.flat import make_flat, open_flat
from ai4sim.manifest import StoreError
from ai4sim.readers import BatchReader, _CachedReader, open_arrays
from ai4sim.sampling import BlockBatchSampler
from ai4sim.schema import Schema, Variable
from ai4sim.store import Region, build_store, make_template, open_store

SCHEMA = Schema(
    "mixed",
    1,
    (
        Variable("x", ("sample", "feature"), "1"),
        Variable("z", ("sample", "channel", "lat", "lon"), "m"),
        Variable("label", ("sample",), "1", dtype="int16"),
    ),
)
N = 53
RNG = np.random.default_rng(5)
ARRAYS = {
    "x": RNG.standard_normal((N, 7), np.float32),
    "z": RNG.standard_normal((N, 2, 5, 6), np.float32),
    "label": RNG.integers(-9, 9, N).astype(np.int16),
}
ARRAYS["z"][10:12] = np.nan  # chunks of nothing but the fill value are not written

LAYOUTS: dict[str, dict[str, Any]] = {
    "uncompressed": {"chunks": {"sample": 8}, "compression": None},
    "lz4": {"chunks": {"sample": 8}},
    "zstd": {"chunks": {"sample": 8}, "compression": "zstd"},
    "sharded": {"chunks": {"sample": 4}, "shards": {"sample": 8}},
    "single rows, uncompressed": {"chunks": {"sample": 1}, "compression": None},
    "single rows, lz4": {"chunks": {"sample": 1}},
    "single rows, zstd": {"chunks": {"sample": 1}, "compression": "zstd"},
    "single rows, sharded": {"chunks": {"sample": 1}, "shards": {"sample": 8}},
    "single rows, sharded uncompressed": {
        "chunks": {"sample": 1},
        "shards": {"sample": 8},
        "compression": None,
    },
    "single channels": {"chunks": {"sample": 1, "channel": 1}},
    "tiles": {"chunks": {"sample": 2, "lat": 3, "lon": 4}},
    "sharded tiles": {"chunks": {"sample": 1, "lat": 3, "lon": 4}, "shards": {"sample": 8}},
}


def make_store(path: Path | str, source: Path, *, chunks, **options) -> str:
    sizes = {"feature": 7, "channel": 2, "lat": 5, "lon": 6, "sample": N}

    def part(rows: slice) -> xr.Dataset:
        return xr.Dataset({name: (SCHEMA[name].dims, values[rows]) for name, values in ARRAYS.items()})

    regions = [
        Region(f"{start}", {"sample": rows}, partial(part, rows))
        for start in range(0, N, 8)
        for rows in [slice(start, min(start + 8, N))]
    ]
    source.write_text("raw")
    build_store(
        path,
        template=make_template(SCHEMA, sizes, chunks, **options),
        regions=regions,
        sources=[source],
        schema=SCHEMA,
        settings={},
        progress=False,
    )
    return str(path)


def read(reader: BatchReader, indices) -> np.ndarray:
    out = np.full((len(indices), *reader.shape[1:]), 77, reader.dtype)
    reader.read(np.asarray(indices), out)
    return out


BATCHES = [
    [0],
    [N - 1],
    [5, 5, 40, 1],
    list(range(8, 16)),
    [9, 10, 11, 12],
    RNG.permutation(N).tolist(),
    list(range(N)),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_xarray_bit_for_bit(tmp_path, layout):
    path = make_store(tmp_path / "s.zarr", tmp_path / "raw", **LAYOUTS[layout])
    dataset = open_store(path)
    for name, reader in open_arrays(path, ARRAYS).items():
        assert isinstance(open_blocks(path, name), _LocalBlocks)
        assert (reader.shape, reader.dtype) == (dataset[name].shape, dataset[name].dtype)
        for batch in BATCHES:
            expected = dataset[name].values[batch]
            np.testing.assert_array_equal(read(reader, batch).view(np.uint8), expected.view(np.uint8))


@pytest.mark.parametrize("cache_bytes", [0, 2000, 10_000])
def test_a_small_cache_changes_nothing(tmp_path, cache_bytes):
    path = make_store(tmp_path / "s.zarr", tmp_path / "raw", chunks={"sample": 8})
    readers = open_arrays(path, ARRAYS, cache_bytes=cache_bytes)
    for batch in BATCHES * 2:
        for name, reader in readers.items():
            np.testing.assert_array_equal(read(reader, batch), ARRAYS[name][batch])


def test_what_is_not_decoded_here_is_left_to_zarr(tmp_path):
    path = make_store("memory://readers/s.zarr", tmp_path / "raw", chunks={"sample": 8})
    for name, reader in open_arrays(path, ARRAYS).items():
        assert isinstance(open_blocks(path, name), _ZarrBlocks)
        for batch in BATCHES:
            np.testing.assert_array_equal(read(reader, batch), ARRAYS[name][batch])


def test_other_codecs_on_the_local_disk_are_left_to_zarr(tmp_path):
    source = tmp_path / "raw"
    source.touch()
    schema = Schema("zipped", 1, SCHEMA.variables[:1])
    template = make_template(schema, {"sample": N, "feature": 7}, {"sample": 8})
    template["x"].encoding["compressors"] = (GzipCodec(),)
    region = Region("all", {"sample": slice(0, N)}, lambda: xr.Dataset({"x": (("sample", "feature"), ARRAYS["x"])}))
    build_store(
        tmp_path / "s.zarr", template=template, regions=[region], sources=[source], schema=schema, settings={},
        progress=False,
    )  # fmt: skip
    assert isinstance(open_blocks(str(tmp_path / "s.zarr"), "x"), _ZarrBlocks)
    reader = open_arrays(tmp_path / "s.zarr", ["x"])["x"]
    np.testing.assert_array_equal(read(reader, BATCHES[5]), ARRAYS["x"][BATCHES[5]])


@pytest.mark.parametrize("piece", [1, 100, 400_000])
def test_flat_copies_in_float32_and_int16(tmp_path, monkeypatch, piece):
    monkeypatch.setattr("ai4sim.readers._DECODED_AT_ONCE", piece)
    arrays = ARRAYS | {"z": np.nan_to_num(ARRAYS["z"])}
    monkeypatch.setattr("ai4sim.tests.test_readers.ARRAYS", arrays)
    path = make_store(tmp_path / "s.zarr", tmp_path / "raw", chunks={"sample": 8})
    exact = open_arrays(make_flat(path, tmp_path / "f32"), ["x", "z"])
    packed_path = make_flat(path, tmp_path / "i16", dtype="int16")
    packed = open_arrays(packed_path, ["x", "z"])
    for name in ("x", "z"):
        scale = open_flat(packed_path)[name].scale
        assert scale is not None
        for batch in BATCHES:
            np.testing.assert_array_equal(read(exact[name], batch), arrays[name][batch])
            difference = np.abs(read(packed[name], batch) - arrays[name][batch])
            # half a step, and the rounding of float32 itself
            assert (difference <= scale * 0.5 + 1e-6).all()
            assert difference.max() > 0


class _CountedBlocks:
    """Rows whose values are their own numbers, and a record of the blocks that were read."""

    shape = (100, 3)
    dtype = np.dtype(np.float32)
    rows = 10

    def __init__(self) -> None:
        self.log: list[int] = []

    def read_block(self, block: int, out: np.ndarray) -> None:
        self.log.append(block)
        out[...] = (block * 10 + np.arange(10))[:, None]


def test_blocks_are_read_once_while_they_are_in_use():
    blocks = _CountedBlocks()
    reader = _CachedReader(blocks, threads=1, cache_bytes=4 * 10 * 3 * 4)  # four blocks
    out = np.empty((8, 3), np.float32)

    def check(indices):
        reader.read(np.array(indices), out[: len(indices)])
        np.testing.assert_array_equal(out[: len(indices), 0], indices)

    check([5, 15, 25, 35, 6, 16])
    assert sorted(blocks.log) == [0, 1, 2, 3]
    check([7, 8, 9, 17])
    assert len(blocks.log) == 4
    check([45, 1])  # 2 was used longest ago
    check([19, 39, 0, 41])
    assert sorted(blocks.log) == [0, 1, 2, 3, 4]
    check([29])
    assert blocks.log[-1] == 2
    # more blocks than there is room for: those that are there are used before they have to go
    blocks.log.clear()
    check([99, 88, 77, 66, 31, 19, 42, 25])
    assert sorted(blocks.log) == [6, 7, 8, 9]


def test_one_epoch_of_the_sampler_reads_each_block_once():
    blocks = _CountedBlocks()
    reader = _CachedReader(blocks, threads=1, cache_bytes=3 * 10 * 3 * 4)
    out = np.empty((7, 3), np.float32)
    seen = []
    for indices in BlockBatchSampler(100, 7, shuffle=True, block=10, window=3, drop_last=False):
        reader.read(indices, out[: len(indices)])
        seen += out[: len(indices), 0].tolist()
    assert sorted(seen) == list(range(100))
    assert sorted(blocks.log) == list(range(10))


def test_several_threads_may_share_a_reader(tmp_path):
    path = make_store(tmp_path / "s.zarr", tmp_path / "raw", chunks={"sample": 8})
    reader = open_arrays(path, ["x"], cache_bytes=1000)["x"]
    wrong: list[int] = []

    def work(seed: int) -> None:
        generator = np.random.default_rng(seed)
        for _ in range(50):
            indices = generator.integers(0, N, 9)
            if not np.array_equal(read(reader, indices), ARRAYS["x"][indices]):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_readers_travel_as_paths(tmp_path):
    path = make_store(tmp_path / "s.zarr", tmp_path / "raw", chunks={"sample": 8})
    reader = open_arrays(path, ["x"])["x"]
    read(reader, [1, 2])
    text = pickle.dumps(reader)
    assert len(text) < 1000
    np.testing.assert_array_equal(read(pickle.loads(text), [3]), ARRAYS["x"][[3]])


def test_wrong_requests_are_named(tmp_path):
    path = make_store(tmp_path / "s.zarr", tmp_path / "raw", chunks={"sample": 8})
    with pytest.raises(StoreError, match=r"s\.zarr has no variable 'q'; it has label, x, z"):
        open_arrays(path, ["q"])
    reader = open_arrays(path, ["x"])["x"]
    with pytest.raises(IndexError, match=r"'x': rows 3..53 asked for, .*s\.zarr has 53"):
        read(reader, [3, N])
    with pytest.raises(IndexError, match=r"rows -1\.\.3"):
        read(reader, [3, -1])
    with pytest.raises(ValueError, match=r"out has shape \(2, 6\) .* of shape \(2, 7\)"):
        reader.read(np.array([1, 2]), np.empty((2, 6), np.float32))
    with pytest.raises(ValueError, match="type float64; expected a contiguous"):
        reader.read(np.array([1, 2]), np.empty((2, 7)))
    assert read(reader, np.empty(0, np.int64)).shape == (0, 7)


@pytest.mark.parametrize("layout", ["uncompressed", "lz4", "zstd", "sharded"])
def test_damaged_chunks_are_named(tmp_path, layout):
    path = make_store(tmp_path / "s.zarr", tmp_path / "raw", **LAYOUTS[layout])
    chunk = Path(path) / "x" / "c" / "2" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-30])
    reader = open_arrays(path, ["x"])["x"]
    with pytest.raises(StoreError, match=r"x/c/2/0 is damaged \(.*run prepare again"):
        read(reader, [17])
    np.testing.assert_array_equal(read(reader, [0]), ARRAYS["x"][[0]])


def test_variables_of_different_length_are_refused(tmp_path):
    path = Path(make_store(tmp_path / "s.zarr", tmp_path / "raw", chunks={"sample": 8}))
    metadata = json.loads((path / "x" / "zarr.json").read_text())
    metadata["shape"][0] = 40
    (path / "x" / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(StoreError, match=r"differ in their number of rows: \{'x': 40, 'label': 53\}"):
        open_arrays(path, ["x", "label"])


def get(reader, rows):
    out = np.empty((len(rows), *reader.shape[1:]), reader.dtype)
    reader.read(np.array(rows), out)
    return out


def test_after_a_read_error_no_row_comes_from_another_block(tmp_path):
    source = tmp_path / "raw"
    source.write_text("a")
    store = make_store(tmp_path / "s.zarr", source, chunks={"sample": 8})
    reader = BatchReader(store, "x", cache_bytes=3 * 8 * 7 * 4, threads=2)  # three blocks
    get(reader, [0, 9, 17])
    chunk = Path(store) / "x" / "c" / "3" / "0"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:9])
    with pytest.raises(StoreError, match="damaged"):
        get(reader, [9, 25])
    chunk.write_bytes(whole)
    for rows in ([5, 33], [9, 17, 25], [0, 41, 52]):
        np.testing.assert_array_equal(get(reader, rows), ARRAYS["x"][rows])


def test_a_store_that_is_removed_or_replaced_under_a_reader_is_an_error(tmp_path):
    source = tmp_path / "raw"
    source.write_text("a")
    store = Path(make_store(tmp_path / "s.zarr", source, chunks={"sample": 1}))
    reader = BatchReader(str(store), "z")
    assert np.isnan(get(reader, [10])).all()  # nothing but the fill value: there is no file
    store.rename(tmp_path / "away")
    with pytest.raises(StoreError, match="was removed or made anew while it was read"):
        get(reader, [3])
