import pickle
from functools import partial

import numpy as np
import pytest
import xarray as xr
import zarr

from ai4sim.patches import PatchReader
from ai4sim.schema import Schema, Variable
from ai4sim.store import Region, build_store, make_template

N, CHANNELS, HEIGHT, WIDTH = 6, 2, 30, 41
RNG = np.random.default_rng(3)
FIELDS = {
    "amount": RNG.integers(0, 1000, (N, HEIGHT, WIDTH)).astype(np.int16),
    "smooth": RNG.random((N, CHANNELS, HEIGHT, WIDTH)).astype(np.float16),
}
SCHEMA = Schema(
    "fields",
    1,
    (
        Variable("amount", ("case", "y", "x"), "1", dtype="int16"),
        Variable("smooth", ("case", "scale", "y", "x"), "1", dtype="float16"),
    ),
)


@pytest.fixture(scope="module", params=[(1, 30, 41), (1, 16, 9), (3, 7, 41)], ids=str)
def store(request, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("patches")
    (folder / "raw").touch()
    rows, height, width = request.param

    def load(part: slice) -> xr.Dataset:
        return xr.Dataset({name: (SCHEMA[name].dims, values[part]) for name, values in FIELDS.items()})

    sizes = {"case": N, "scale": CHANNELS, "y": HEIGHT, "x": WIDTH}
    build_store(
        folder / "s.zarr",
        template=make_template(SCHEMA, sizes, {"case": rows, "y": height, "x": width}),
        regions=[Region("all", {"case": slice(0, N)}, partial(load, slice(0, N)))],
        sources=[folder / "raw"],
        schema=SCHEMA,
        settings={},
        progress=False,
    )
    return str(folder / "s.zarr")


@pytest.mark.parametrize("name", FIELDS)
def test_patches_are_what_was_written_wherever_they_lie(store, name):
    reader, values = PatchReader(store, name), FIELDS[name]
    rows = RNG.integers(0, N, 20)
    corners = np.stack([RNG.integers(0, HEIGHT - 12 + 1, 20), RNG.integers(0, WIDTH - 8 + 1, 20)], axis=1)
    corners[:2] = [[0, 0], [HEIGHT - 12, WIDTH - 8]]
    out = np.empty((20, *values.shape[1:-2], 12, 8), values.dtype)
    reader.read(rows, corners, out)
    for patch, row, (top, left) in zip(out, rows, corners, strict=True):
        np.testing.assert_array_equal(patch, values[row][..., top : top + 12, left : left + 8])


def test_whole_rows_are_patches_too(store):
    out = np.empty((N, HEIGHT, WIDTH), np.int16)
    PatchReader(store, "amount").read(np.arange(N), np.zeros((N, 2), np.int64), out)
    np.testing.assert_array_equal(out, FIELDS["amount"])


def test_a_sent_reader_reads_again(store):
    reader = PatchReader(store, "amount")
    out = np.empty((1, 5, 5), np.int16)
    reader.read(np.array([2]), np.array([[1, 2]]), out)
    again = np.empty_like(out)
    pickle.loads(pickle.dumps(reader)).read(np.array([2]), np.array([[1, 2]]), again)
    np.testing.assert_array_equal(again, out)


def test_layouts_left_to_zarr_give_the_same(store, monkeypatch):
    path = f"{store}/amount"
    monkeypatch.setattr("ai4sim.chunks.is_local", lambda filesystem: False)
    out = np.empty((2, 10, 10), np.int16)
    PatchReader(store, "amount").read(np.array([0, 5]), np.array([[3, 4], [20, 31]]), out)
    stored = zarr.open_array(path, mode="r")
    np.testing.assert_array_equal(out, [stored[0, 3:13, 4:14], stored[5, 20:30, 31:41]])


@pytest.mark.parametrize("place", [(N, 0, 0), (0, HEIGHT - 9, 0), (0, 0, -1)])
def test_patches_outside_are_refused(store, place):
    row, top, left = place
    with pytest.raises(IndexError, match=r"'amount' of shape .* a patch 10 x 10 lies outside"):
        PatchReader(store, "amount").read(np.array([row]), np.array([[top, left]]), np.empty((1, 10, 10), np.int16))


def test_memory_of_another_kind_is_refused(store):
    with pytest.raises(ValueError, match=r"expected \(1, 2, 10, 10\) and float16"):
        PatchReader(store, "smooth").read(np.array([0]), np.array([[0, 0]]), np.empty((1, 2, 10, 10), np.float32))
