"""Which rows make up which batch: shuffled by blocks of chunks, shared out over ranks without repeats."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import ceil
from typing import Self

import numpy as np
import numpy.typing as npt

from ai4sim.errors import InputError

Indices = npt.NDArray[np.int64]


def evaluation_batch_size(n_rows: int, batch_size: int, world_size: int) -> int:
    """A size up to ``batch_size`` with which every process has at least one batch of an evaluation.

    A process without a batch would not join the others in their reductions.

    Raises:
        InputError: there are fewer rows than processes.
    """
    if n_rows < world_size:
        raise InputError(f"{n_rows} rows cannot be shared out over {world_size} processes; take fewer devices")
    return min(batch_size, n_rows // world_size)


class BlockBatchSampler:
    """Batches of row numbers of a store.

    A store larger than memory cannot be shuffled row by row: nearly every row would cost a whole chunk.
    Instead the blocks (chunks) are shuffled, and the rows of a few successive blocks are mixed, so that one
    epoch reads each chunk once. Each rank gets a contiguous share of that order, in whole batches: every row
    is in one batch of one rank, and only chunks at the borders of shares are read by two.

    Args:
        ranges: rows to sample from: their number, or slices of the store (a split).
        batch_size: rows per batch and rank.
        shuffle: a new order each epoch; otherwise rows come in the order of ``ranges``.
        block: rows per block; use the store's chunk (or a whole multiple).
        window: blocks that are mixed with each other.
        seed: the order follows from seed and epoch alone.
        drop_last: True: full batches only and the same number for every rank (training), other rows of this
            epoch are left out; False: every row exactly once, the last batch may be smaller and ranks may
            differ by one batch (evaluation). Default: as ``shuffle``.
        rank: this process's number.
        world_size: number of processes.

    Raises:
        ValueError: ranges that overlap or are empty, or fewer rows than one batch per rank.
    """

    def __init__(
        self,
        ranges: int | Sequence[slice],
        batch_size: int,
        *,
        shuffle: bool = False,
        block: int = 8192,
        window: int = 16,
        seed: int = 0,
        drop_last: bool | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("block", block), ("window", window)):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is outside 0..{world_size - 1}")
        self.ranges = [slice(0, ranges)] if isinstance(ranges, int) else list(ranges)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.window = window
        self.seed = seed
        self.drop_last = shuffle if drop_last is None else drop_last
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self._blocks = _cut(self.ranges, block)
        self.n_rows = int((self._blocks[:, 1] - self._blocks[:, 0]).sum())
        n_batches = ceil(self.n_rows / batch_size)
        if self.drop_last:
            n_batches = self.n_rows // (batch_size * world_size) * world_size
            if not n_batches:
                raise ValueError(
                    f"{self.n_rows} rows do not fill one batch of {batch_size} on each of {world_size} ranks;"
                    " choose a smaller batch_size, or drop_last=False"
                )
        self._first = rank * n_batches // world_size
        self._last = (rank + 1) * n_batches // world_size

    @property
    def sampler(self) -> Self:
        """Itself: Lightning calls ``loader.batch_sampler.sampler.set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch; it is the same on every rank and in every run with this seed."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._last - self._first

    def __iter__(self) -> Iterator[Indices]:
        blocks = self._blocks
        if self.shuffle:
            blocks = np.random.default_rng([self.seed, self.epoch]).permutation(blocks)
        share = _cut_out(blocks, self._first * self.batch_size, min(self._last * self.batch_size, self.n_rows))
        generator = np.random.default_rng([self.seed, self.epoch, self.rank])
        left = np.empty(0, np.int64)
        for first in range(0, len(share), self.window):
            rows = np.concatenate([np.arange(*bounds) for bounds in share[first : first + self.window]])
            if self.shuffle:
                generator.shuffle(rows)
            rows = np.concatenate([left, rows])
            whole = len(rows) // self.batch_size * self.batch_size
            yield from rows[:whole].reshape(-1, self.batch_size)
            left = rows[whole:]
        if len(left):
            yield left


def _cut(ranges: Sequence[slice], block: int) -> Indices:
    """Cut ranges at multiples of ``block``; gives (n, 2): first row and the row after the last."""
    pieces: list[tuple[int, int]] = []
    for part in ranges:
        if part.stop is None or part.step not in (None, 1) or (start := part.start or 0) < 0 or part.stop <= start:
            raise ValueError(f"range {part} is empty, open or has a step; give slice(first row, row after the last)")
        edges = [start, *range((start // block + 1) * block, part.stop, block), part.stop]
        pieces += pairwise(edges)
    if not pieces:
        raise ValueError("no ranges were given, so there is nothing to sample")
    ordered = sorted(pieces)
    for (_, stop), (start, _) in pairwise(ordered):
        if start < stop:
            raise ValueError(f"ranges overlap at row {start}; every row may be given only once")
    return np.array(pieces, np.int64)


def _cut_out(blocks: Indices, first: int, last: int) -> Indices:
    """Cut rows ``first:last`` out of the concatenation of ``blocks``."""
    ends = np.cumsum(blocks[:, 1] - blocks[:, 0])
    begins = ends - (blocks[:, 1] - blocks[:, 0])
    start = blocks[:, 0] + np.clip(first - begins, 0, None)
    stop = blocks[:, 1] - np.clip(ends - last, 0, None)
    cut: Indices = np.stack([start, stop], axis=1)[stop > start]
    return cut
