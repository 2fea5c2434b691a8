"""Reading batches of samples from a processed store, or its flat copy, straight into the batch's memory.

A batch is what the rows (entries along the first dimension) with given indices hold. General readers build a
graph or a selection per sample; here a chunk goes from its file into its final place with one decoding and no
further copy:

- a sample that is one chunk (a field of some MB) is read or decoded right into its part of the batch;
- of chunks with many rows (columns), the latest are kept decoded in one block of memory, and the batch is
  gathered from it with a single ``take``;
- a flat copy is gathered from the memory map.

Local stores with plain layouts are decoded here; everything else goes through zarr, in whole rows of chunks.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from math import ceil, prod
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ai4sim.chunks import Blocks, open_blocks
from ai4sim.flat import FlatVariable, is_flat, open_flat
from ai4sim.manifest import PathLike, StoreError, available_cores

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]

DEFAULT_CACHE_BYTES = 256 * 2**20
_DECODED_AT_ONCE = 400_000  # bytes of float32: a piece stays in the second-level cache


class _Reader(Protocol):
    def read(self, indices: Indices, out: Array) -> None: ...


class BatchReader:
    """Reads rows of one variable; opened anew in every process that uses it, so it can be pickled.

    Args:
        path: local store, its flat copy, or a store's URL.
        variable: name in the store.
        cache_bytes: memory for decoded chunks; used only where a chunk holds several rows.
        threads: how many chunks are read and decoded at once; default: the cores, at most 4.

    Attributes:
        shape: of the whole variable, rows first.
        dtype: of the values that :meth:`read` gives (float32 for an int16 flat copy).
        chunk_rows: rows that are stored together (1 for a flat copy).
        chunk_bytes: memory that one decoded row of chunks takes.
    """

    def __init__(
        self,
        path: PathLike,
        variable: str,
        *,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        threads: int | None = None,
    ) -> None:
        self.path = str(path)
        self.variable = variable
        self.cache_bytes = cache_bytes
        self.threads = threads or min(4, available_cores())
        self.chunk_rows = 1
        self._opened: tuple[int, _Reader] | None = None
        if is_flat(self.path):
            copied = open_flat(self.path)
            if variable not in copied:
                raise StoreError(f"the flat copy {self.path} has no variable {variable!r}; it has {', '.join(copied)}")
            flat = copied[variable]
            self.shape, self.dtype = flat.shape, np.dtype(np.float32)
        else:
            blocks = open_blocks(self.path, variable)
            self.shape, self.dtype, self.chunk_rows = blocks.shape, blocks.dtype, blocks.rows
        self.chunk_bytes = self.chunk_rows * prod(self.shape[1:]) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def read(self, indices: Indices, out: Array) -> None:
        """Fill ``out`` with rows of the variable.

        Args:
            indices: (batch,) int64, row numbers from 0 in any order, repeats allowed.
            out: (batch, ...) C-contiguous, of the variable's dtype.

        Raises:
            IndexError: an index outside the variable.
            ValueError: ``out`` of another shape, type or layout.
        """
        indices = np.asarray(indices, np.int64)
        expected = (len(indices), *self.shape[1:])
        if out.shape != expected or out.dtype != self.dtype or not out.flags.c_contiguous:
            raise ValueError(
                f"{self.variable!r}: out has shape {out.shape} and type {out.dtype}; expected a contiguous"
                f" array of shape {expected} and type {self.dtype}"
            )
        if not len(indices):
            return
        low, high = int(indices.min()), int(indices.max())
        if low < 0 or high >= self.shape[0]:
            raise IndexError(f"{self.variable!r}: rows {low}..{high} asked for, {self.path} has {self.shape[0]}")
        self._reader().read(indices, out)

    def _reader(self) -> _Reader:
        pid = os.getpid()
        if self._opened is None or self._opened[0] != pid:
            self._opened = (pid, self._open())
        return self._opened[1]

    def _open(self) -> _Reader:
        if is_flat(self.path):
            return _FlatReader(open_flat(self.path)[self.variable])
        blocks = open_blocks(self.path, self.variable)
        if blocks.rows == 1:
            return _DirectReader(blocks, self.threads)
        return _CachedReader(blocks, self.threads, self.cache_bytes)


def open_arrays(
    path: PathLike,
    variables: Iterable[str],
    *,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
    threads: int | None = None,
) -> dict[str, BatchReader]:
    """Open variables of a processed store, or of its flat copy, for reading in batches.

    Args:
        path: store (folder or URL) or flat copy (folder).
        variables: their names.
        cache_bytes: memory for decoded chunks of all variables together. It should hold the chunks that
            :class:`~ai4sim.sampling.BlockBatchSampler` mixes (``window`` blocks), or chunks are read twice.
        threads: how many chunks are read and decoded at once; default: the cores, at most 4.

    Raises:
        StoreError: no such store, unfinished, without one of the variables, a flat copy that is out of date,
            or variables of different length.
    """
    readers = {name: BatchReader(path, name, threads=threads) for name in variables}
    lengths = {name: len(reader) for name, reader in readers.items()}
    if len(set(lengths.values())) > 1:
        raise StoreError(f"{path}: variables differ in their number of rows: {lengths}")
    # the same number of chunks of every variable
    total = sum(reader.chunk_bytes for reader in readers.values())
    for reader in readers.values():
        reader.cache_bytes = cache_bytes * reader.chunk_bytes // max(total, 1)
    return readers


class _FlatReader:
    """Gathers rows from a memory map; int16 is decoded to float32 in pieces that stay in the cache."""

    def __init__(self, flat: FlatVariable) -> None:
        self._rows = flat.rows()
        self._piece = max(1, _DECODED_AT_ONCE // max(1, prod(flat.shape[1:]) * 4))
        self._packed = flat.scale is not None and flat.offset is not None
        if self._packed:
            self._scale, self._offset = (
                # as many as there are rows in a piece: numpy is slow with short rows and a broadcast operand
                np.repeat(np.broadcast_to(factor, flat.shape[1:])[np.newaxis], self._piece, axis=0)
                if self._piece > 1
                else factor
                for factor in (flat.scale, flat.offset)
                if factor is not None
            )

    def read(self, indices: Indices, out: Array) -> None:
        if not self._packed:
            # clip: the indices are checked, and numpy takes without a buffer of its own only in this mode
            np.take(self._rows, indices, axis=0, out=out, mode="clip")
        elif self._piece == 1:
            for target, index in zip(out, indices, strict=True):
                _decode(self._rows[index], self._scale, self._offset, target)
        else:
            packed = np.empty((self._piece, *out.shape[1:]), np.int16)
            for start in range(0, len(indices), self._piece):
                target = out[start : start + self._piece]
                n = len(target)
                np.take(self._rows, indices[start : start + n], axis=0, out=packed[:n], mode="clip")
                _decode(packed[:n], self._scale[:n], self._offset[:n], target)


def _decode(packed: Array, scale: Array, offset: Array, out: Array) -> None:
    """Scale int16 to float32, in parts of the first axis if the whole would not stay in the cache."""
    if out.nbytes > _DECODED_AT_ONCE and out.ndim > 1:
        for k in range(len(out)):
            _decode(packed[k], scale[k % len(scale)], offset[k % len(offset)], out[k])
        return
    # three plain passes: much faster than one with conversion on the fly
    out[...] = packed
    out *= scale
    out += offset


class _DirectReader:
    """For blocks of one row: every sample is read into its place in the batch."""

    def __init__(self, blocks: Blocks, threads: int) -> None:
        self._blocks = blocks
        self._threads = threads

    def read(self, indices: Indices, out: Array) -> None:
        _for_each(
            lambda place: self._blocks.read_block(int(indices[place]), out[place : place + 1]),
            range(len(indices)),
            self._threads,
        )


class _CachedReader:
    """For blocks of many rows: the latest blocks are kept decoded, and batches are gathered from them."""

    def __init__(self, blocks: Blocks, threads: int, cache_bytes: int) -> None:
        self._blocks = blocks
        self._threads = threads
        n_blocks = ceil(blocks.shape[0] / blocks.rows)
        block_shape = (blocks.rows, *blocks.shape[1:])
        block_bytes = max(1, prod(block_shape) * blocks.dtype.itemsize)
        self._n_slots = max(1, min(n_blocks, cache_bytes // block_bytes))
        self._slots = np.empty((self._n_slots, *block_shape), blocks.dtype)
        self._all_rows = self._slots.reshape(-1, *blocks.shape[1:])
        self._slot_of = np.full(n_blocks, -1, np.int64)
        self._latest: OrderedDict[int, int] = OrderedDict()  # block -> slot, the least recently used first
        self._lock = threading.Lock()

    def read(self, indices: Indices, out: Array) -> None:
        blocks, rows = np.divmod(indices, self._blocks.rows)
        needed = np.unique(blocks)
        with self._lock:
            if len(needed) <= self._n_slots:
                self._load(needed)
                np.take(self._all_rows, self._places(blocks, rows), axis=0, out=out, mode="clip")
                return
            # more blocks than there is room for: those that are here first, then the others in turns
            needed = needed[np.argsort(self._slot_of[needed] < 0, kind="stable")]
            for start in range(0, len(needed), self._n_slots):
                group = needed[start : start + self._n_slots]
                self._load(group)
                mine = np.flatnonzero(np.isin(blocks, group))
                out[mine] = self._all_rows[self._places(blocks[mine], rows[mine])]

    def _places(self, blocks: Indices, rows: Indices) -> Indices:
        return self._slot_of[blocks] * self._blocks.rows + rows

    def _load(self, needed: Indices) -> None:
        """Have these blocks decoded in memory; those used longest ago make room."""
        missing: list[tuple[int, int]] = []
        for block in needed.tolist():
            if block in self._latest:
                self._latest.move_to_end(block)
        kept = set(needed.tolist())
        for block in needed.tolist():
            if block in self._latest:
                continue
            if len(self._latest) + len(missing) < self._n_slots:
                slot = len(self._latest) + len(missing)
            else:
                oldest = next(old for old in self._latest if old not in kept)
                slot = self._latest.pop(oldest)
                self._slot_of[oldest] = -1
            missing.append((block, slot))
        try:
            _for_each(lambda item: self._blocks.read_block(item[0], self._slots[item[1]]), missing, self._threads)
        except BaseException:
            # some slots now hold parts of other blocks
            self._latest.clear()
            self._slot_of[:] = -1
            raise
        for block, slot in missing:
            self._latest[block] = slot
            self._slot_of[block] = slot


def _for_each(work: Callable[[Any], None], items: Sequence[Any], threads: int) -> None:
    if threads > 1 and len(items) > 1:
        tasks = [_pool(os.getpid(), threads).submit(work, item) for item in items]
        wait(tasks)  # all of them, also after an error: they write into the caller's arrays
        for task in tasks:
            task.result()
    else:
        for item in items:
            work(item)


@lru_cache(maxsize=4)
def _pool(pid: int, threads: int) -> ThreadPoolExecutor:
    """One pool per process (a forked one has none of its parent's threads) and number of threads."""
    return ThreadPoolExecutor(threads, thread_name_prefix=f"ai4sim-read-{pid}")
