"""Chunks of a Zarr array, read from the disk and decoded right into the memory where they are wanted."""

import json
import mmap
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import product
from math import ceil, prod
from pathlib import Path
from typing import Any, Protocol

import fsspec
import numpy as np
import numpy.typing as npt
import zarr
from numcodecs.blosc import decompress as decompress_blosc
from numcodecs.zstd import decompress as decompress_zstd
from zarr.core.buffer.cpu import NDBuffer

from ai4sim.manifest import StoreError, is_local, read_manifest

Array = npt.NDArray[Any]

_NO_CHUNK = 2**64 - 1  # in a shard's index: this chunk holds only the fill value


class Blocks(Protocol):
    """A variable as a sequence of blocks: all chunks with the same position along the first dimension."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    rows: int

    def read_block(self, block: int, out: Array) -> None:
        """Fill ``out`` (rows, ...); rows past the end of the variable are left as they are or undefined."""

    def read_part(self, row: int, part: Sequence[slice], out: Array) -> None:
        """Fill ``out`` with a part of one row: a slice, with start and stop, for each dimension after the first."""


class _ZarrBlocks:
    """Blocks of any Zarr array, read by zarr itself into the given memory."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape = tuple(array.shape)
        self.dtype = np.dtype(array.dtype)
        self.rows = int(array.chunks[0])

    def read_block(self, block: int, out: Array) -> None:
        start = block * self.rows
        stop = min(start + self.rows, self.shape[0])
        selection = (slice(start, stop), *(slice(None) for _ in self.shape[1:]))
        self._array.get_basic_selection(selection, out=NDBuffer.from_numpy_array(out[: stop - start]))

    def read_part(self, row: int, part: Sequence[slice], out: Array) -> None:
        out[...] = self._array[(row, *part)]


def _file_identity(folder: Path) -> tuple[int, int] | None:
    """What tells an array's metadata file from one that has taken its place; None where there is none."""
    try:
        status = (folder / "zarr.json").stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


class _LocalBlocks:
    """Blocks of a Zarr v3 array on the local disk, decoded right into the given memory.

    Args:
        folder: of the array.
        metadata: content of its ``zarr.json``.

    Raises:
        _NotPlainError: a layout that is left to zarr.
    """

    def __init__(self, folder: Path, metadata: Mapping[str, Any]) -> None:
        self._folder = folder
        self.shape = tuple(metadata["shape"])
        if metadata["chunk_grid"]["name"] != "regular" or metadata["chunk_key_encoding"] != {
            "name": "default",
            "configuration": {"separator": "/"},
        }:
            raise _NotPlainError
        if not isinstance(metadata["data_type"], str) or sys.byteorder != "little":
            raise _NotPlainError
        self.dtype = np.dtype(metadata["data_type"])
        self._fill = self._fill_value(metadata["fill_value"])
        chunks = tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"])
        codecs = metadata["codecs"]
        self._chunks_per_shard: tuple[int, ...] | None = None
        if codecs[0]["name"] == "sharding_indexed":
            sharding = codecs[0]["configuration"]
            index_codecs = [codec["name"] for codec in sharding["index_codecs"]]
            if len(codecs) > 1 or sharding.get("index_location", "end") != "end" or index_codecs != ["bytes", "crc32c"]:
                raise _NotPlainError
            shards, chunks, codecs = chunks, tuple(sharding["chunk_shape"]), sharding["codecs"]
            self._chunks_per_shard = tuple(s // c for s, c in zip(shards, chunks, strict=True))
        self._decode = _decoder(codecs, self.dtype)
        self._chunks = chunks
        self._n_chunks = tuple(ceil(n / c) for n, c in zip(self.shape, chunks, strict=True))
        self._chunk_bytes = prod(chunks) * self.dtype.itemsize
        self.rows = chunks[0]
        self._shard_index = lru_cache(maxsize=256)(self._read_shard_index)
        self._identity = _file_identity(folder)

    def read_block(self, block: int, out: Array) -> None:
        for inner in product(*(range(n) for n in self._n_chunks[1:])):
            place = tuple(
                slice(i * c, min((i + 1) * c, n))
                for i, c, n in zip(inner, self._chunks[1:], self.shape[1:], strict=True)
            )
            target = out[(slice(None), *place)]
            if target.shape == self._chunks and target.flags.c_contiguous:
                self._read_chunk((block, *inner), target)
                continue
            # part of a row, or a chunk that sticks out over the edge
            whole = np.empty(self._chunks, self.dtype)
            self._read_chunk((block, *inner), whole)
            target[...] = whole[tuple(slice(n) for n in target.shape)]

    def read_part(self, row: int, part: Sequence[slice], out: Array) -> None:
        block, within = divmod(row, self.rows)
        sizes = self._chunks[1:]
        touched = [range(s.start // size, ceil(s.stop / size)) for s, size in zip(part, sizes, strict=True)]
        whole = np.empty(self._chunks, self.dtype)
        for inner in product(*touched):
            self._read_chunk((block, *inner), whole)
            source, target = [], []
            for index, size, wanted in zip(inner, sizes, part, strict=True):
                first, last = max(wanted.start, index * size), min(wanted.stop, (index + 1) * size)
                source.append(slice(first - index * size, last - index * size))
                target.append(slice(first - wanted.start, last - wanted.start))
            out[tuple(target)] = whole[(within, *source)]

    def _read_chunk(self, chunk: tuple[int, ...], out: Array) -> None:
        """Fill ``out``, contiguous and of the chunk's shape."""
        start, n_bytes = 0, -1
        location = chunk
        if self._chunks_per_shard is not None:
            location = tuple(c // n for c, n in zip(chunk, self._chunks_per_shard, strict=True))
            within = tuple(c % n for c, n in zip(chunk, self._chunks_per_shard, strict=True))
            index = self._shard_index(location)
            start, n_bytes = (int(v) for v in index[within]) if index is not None else (_NO_CHUNK, _NO_CHUNK)
            if start == _NO_CHUNK:
                out[...] = self._fill
                return
        target = out.reshape(-1).view(np.uint8)
        try:
            encoded = _map(self._file(location), start, n_bytes)
        except FileNotFoundError:
            self._check_unchanged()
            # chunks that hold only the fill value are not written
            out[...] = self._fill
            return
        if self._decode is None:
            if len(encoded) != len(target):
                raise self._damaged(location, f"{len(encoded)} bytes, expected {len(target)}")
            target[:] = encoded
            return
        try:
            self._decode(encoded, target)
        except (RuntimeError, ValueError) as error:
            raise self._damaged(location, str(error)) from error

    def _check_unchanged(self) -> None:
        """Raise where what is missing is the store itself, or one that has taken its place."""
        if _file_identity(self._folder) != self._identity:
            raise StoreError(f"{self._folder} was removed or made anew while it was read; start again")

    def _damaged(self, location: tuple[int, ...], why: str) -> StoreError:
        return StoreError(f"{self._file(location)} is damaged ({why}); run prepare again")

    def _read_shard_index(self, shard: tuple[int, ...]) -> Array | None:
        """Give start and length of every chunk in a shard; None if the shard holds only the fill value."""
        assert self._chunks_per_shard is not None
        size = prod(self._chunks_per_shard) * 16
        try:
            with open(self._file(shard), "rb") as file:  # noqa: PTH123 (half the cost of Path.open, per chunk)
                file.seek(-size - 4, os.SEEK_END)  # 4: the index's own checksum
                content = file.read(size)
        except FileNotFoundError:
            self._check_unchanged()
            return None
        except OSError as error:
            raise self._damaged(shard, str(error)) from error
        return np.frombuffer(content, "<u8").reshape(*self._chunks_per_shard, 2)

    def _file(self, location: tuple[int, ...]) -> str:
        return "/".join((str(self._folder), "c", *(str(i) for i in location)))

    def _fill_value(self, value: Any) -> Any:
        if isinstance(value, str) and value not in ("NaN", "Infinity", "-Infinity"):
            raise _NotPlainError
        return self.dtype.type(value)


class _NotPlainError(Exception):
    """The array's layout is one of those that are left to zarr."""


def _decoder(codecs: Sequence[Mapping[str, Any]], dtype: np.dtype[Any]) -> Callable[[Array, Array], None] | None:
    """Give the function that decodes a chunk's bytes into memory; None if they are the values."""
    first, *others = codecs
    little = first.get("configuration", {}).get("endian", "little") == "little" or dtype.itemsize == 1
    if first["name"] != "bytes" or not little or len(others) > 1:
        raise _NotPlainError
    if not others:
        return None
    if others[0]["name"] == "blosc":
        return _decompress_blosc
    if others[0]["name"] == "zstd":
        return decompress_zstd  # type: ignore[no-any-return]  # a compiled module
    raise _NotPlainError


def _decompress_blosc(encoded: Array, target: Array) -> None:
    """Decode a Blosc buffer; its header is checked, since the library would read on past the end."""
    n_bytes, _, n_encoded = np.frombuffer(encoded[4:16], "<u4") if len(encoded) >= 16 else (0, 0, 0)
    if (n_bytes, n_encoded) != (len(target), len(encoded)):
        raise ValueError(f"{len(encoded)} bytes for {len(target)}, expected {n_encoded} for {n_bytes}")
    decompress_blosc(encoded, target)


def open_blocks(path: str, variable: str) -> Blocks:
    """Open a variable of a finished store for reading by blocks.

    Raises:
        StoreError: no such store or variable, or the store is unfinished.
    """
    manifest = read_manifest(path)
    if variable not in manifest.variables:
        raise StoreError(f"{path} has no variable {variable!r}; it has {', '.join(sorted(manifest.variables))}")
    filesystem, root = fsspec.url_to_fs(path)
    if is_local(filesystem):
        folder = Path(root) / variable
        metadata = json.loads((folder / "zarr.json").read_text())
        try:
            return _LocalBlocks(folder, metadata)
        except _NotPlainError:
            pass
    return _ZarrBlocks(zarr.open_array(f"{path.rstrip('/')}/{variable}", mode="r"))


def _map(file: str, start: int, n_bytes: int) -> Array:
    """Map ``n_bytes`` of a file from ``start`` (to its end, if negative) into memory.

    Decoding from the page cache needs no memory for the encoded chunk, and costs less than reading it.
    """
    descriptor = os.open(file, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        if n_bytes < 0:
            n_bytes = size - start
        if start + n_bytes > size or n_bytes == 0:
            raise StoreError(f"{file} is damaged ({size} bytes, expected {start + n_bytes}); run prepare again")
        begin = start - start % mmap.ALLOCATIONGRANULARITY
        # populated at once: one fault instead of hundreds, and read in one go from a cold disk
        flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
        mapped = mmap.mmap(descriptor, start - begin + n_bytes, flags, mmap.PROT_READ, offset=begin)
    finally:
        os.close(descriptor)
    return np.frombuffer(mapped, np.uint8, n_bytes, start - begin)
