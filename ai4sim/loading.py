"""Batches of tensors from a processed store or its flat copy, for torch and Lightning.

One batch is one read into preallocated memory (``__getitems__`` and an identity collate), prepared by a
thread while the previous one is being trained on. Worker processes are possible, but each batch then crosses
over in new shared memory, which costs more than reading it.
"""

import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from ai4sim.manifest import PathLike
from ai4sim.readers import DEFAULT_CACHE_BYTES, BatchReader, open_arrays
from ai4sim.sampling import BlockBatchSampler

__all__ = ["BatchDataset", "BatchLoader", "BatchReader", "BlockBatchSampler", "BufferPool", "open_arrays"]

Batch = dict[str, torch.Tensor]
Indices = npt.NDArray[np.int64]

INDEX = "index"  # key of the row numbers in a batch


class BufferPool:
    """Memory for batches, used again once nobody holds the batch.

    Fresh memory costs a page fault per 4 KiB at its first use, which takes as long as the copying itself. A
    tensor here keeps a small array object alive for as long as anything shares its memory: views, slices,
    what autograd has saved. Only when that object is gone does the buffer serve again.

    Args:
        keep: number of buffers of one kind to keep; further ones are allocated for one use.
    """

    def __init__(self, keep: int = 8) -> None:
        self._keep = keep
        self._buffers: dict[tuple[Any, ...], list[tuple[npt.NDArray[Any], weakref.ref[npt.NDArray[Any]]]]] = {}
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> torch.Tensor:
        """Give an uninitialised tensor that nobody else holds."""
        key = (*shape[1:], dtype)
        with self._lock:
            buffers = self._buffers.setdefault(key, [])
            for place, (buffer, holder) in enumerate(buffers):
                if holder() is None and len(buffer) >= shape[0]:
                    view = buffer[: shape[0]]
                    buffers[place] = (buffer, weakref.ref(view))
                    return torch.from_numpy(view)
            buffer = np.empty(shape, dtype)
            view = buffer[:]
            buffers[:] = [kept for kept in buffers if len(kept[0]) >= shape[0] or kept[1]() is not None]
            if len(buffers) < self._keep:
                buffers.append((buffer, weakref.ref(view)))
            return torch.from_numpy(view)


class BatchDataset(Dataset[Batch]):
    """Rows of a store as dictionaries of tensors.

    Index ``i`` is row ``i`` of the store; splits are ranges of rows, given to the sampler.

    Args:
        path: store (folder or URL) or flat copy (folder).
        variables: names of the variables; all with the same number of rows.
        cache_bytes: memory for decoded chunks, see :func:`~ai4sim.readers.open_arrays`.
        threads: how many chunks are read and decoded at once; default: the cores, at most 4.
    """

    def __init__(
        self,
        path: PathLike,
        variables: Sequence[str],
        *,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        threads: int | None = None,
    ) -> None:
        if not variables or INDEX in variables:
            raise ValueError(f"variables are {list(variables)}; name at least one, and none {INDEX!r}")
        self.path = str(path)
        self.readers = open_arrays(path, variables, cache_bytes=cache_bytes, threads=threads)
        self._pool = BufferPool()

    def __len__(self) -> int:
        return len(next(iter(self.readers.values())))

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_pool"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._pool = BufferPool()

    def __getitem__(self, index: int) -> Batch:
        """Give one sample, without the batch axis."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} asked for, {self.path} has {len(self)}")
        return {name: tensor[0] for name, tensor in self.read([index % len(self)]).items()}

    def __getitems__(self, indices: Sequence[int] | Indices) -> Batch:
        """Give a whole batch: what :class:`torch.utils.data.DataLoader` asks for."""
        return self.read(indices)

    def read(self, indices: Sequence[int] | Indices, *, pin_memory: bool = False) -> Batch:
        """Read a batch.

        Args:
            indices: (batch,) row numbers.
            pin_memory: read into page-locked memory, from where copies to a GPU run by themselves.

        Returns:
            One tensor (batch, ...) per variable, and ``index`` (batch,): the row numbers.
        """
        rows = np.array(indices, np.int64)
        batch: Batch = {}
        for name, reader in self.readers.items():
            shape = (len(rows), *reader.shape[1:])
            if pin_memory:
                # torch keeps such memory for the next batch itself, and knows which copies still run
                dtype = torch.from_numpy(np.empty(0, reader.dtype)).dtype
                batch[name] = torch.empty(shape, dtype=dtype, pin_memory=True)
            else:
                batch[name] = self._pool.take(shape, reader.dtype)
            reader.read(rows, batch[name].numpy())
        batch[INDEX] = torch.from_numpy(rows)
        return batch


class BatchSource(Protocol):
    """What batches are read from."""

    def read(self, indices: Any, *, pin_memory: bool = False) -> Batch:
        """The batch that one item of the sampler asks for."""

    def __getitems__(self, indices: Any) -> Batch:
        """The same, for worker processes."""


class BatchOrder(Protocol):
    """What batches are made up of, epoch after epoch; its items are passed to the source as they are."""

    epoch: int

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch."""

    def __len__(self) -> int:
        """Number of batches."""

    def __iter__(self) -> Iterator[Any]:
        """One item per batch."""


class BatchLoader:
    """Iterates over the batches of a sampler; what a LightningDataModule returns.

    Use it with ``Trainer(use_distributed_sampler=False)``: the sampler itself shares the rows out over
    ranks. It is stateful in Lightning's sense: a fit resumed within an epoch goes on with the next batch.

    Args:
        dataset: where to read.
        batch_sampler: which rows; Lightning calls its ``set_epoch``.
        num_workers: worker processes; 0 reads in a thread of this process.
        prefetch: batches prepared ahead (per worker).
        pin_memory: default: if CUDA is there.
    """

    def __init__(
        self,
        dataset: BatchSource,
        batch_sampler: BatchOrder,
        *,
        num_workers: int = 0,
        prefetch: int = 2,
        pin_memory: bool | None = None,
    ) -> None:
        if prefetch < 1:
            raise ValueError(f"prefetch is {prefetch}; it must be at least 1")
        self.dataset = dataset
        self.batch_sampler = batch_sampler
        self.num_workers = num_workers
        self.prefetch = prefetch
        self.pin_memory = torch.cuda.is_available() if pin_memory is None else pin_memory
        self._given = 0
        self._skip = (-1, 0)  # epoch, number of batches
        self._rest = _Rest()
        self._workers: DataLoader[Batch] | None = None

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch."""
        self.batch_sampler.set_epoch(epoch)

    def state_dict(self) -> dict[str, int]:
        """How far the current epoch has come."""
        return {"epoch": self.batch_sampler.epoch, "batches": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Leave out the batches already given, if the next epoch iterated over is the one of ``state``."""
        self._skip = (state["epoch"], state["batches"] % max(1, len(self)))

    def __iter__(self) -> Iterator[Batch]:
        epoch, skip = self._skip
        self._skip = (-1, 0)
        self._given = skip if epoch == self.batch_sampler.epoch else 0
        rest = islice(iter(self.batch_sampler), self._given, None)
        batches = self._from_workers(rest) if self.num_workers else self._from_thread(rest)
        # closing: a consumer that stops early must not leave a thread behind
        with contextlib.closing(batches):
            for batch in batches:
                self._given += 1
                yield batch

    def _from_thread(self, rest: Iterator[Any]) -> Generator[Batch, None, None]:
        """Read ahead in one thread; what goes wrong there is raised here."""
        executor = ThreadPoolExecutor(1, thread_name_prefix="ai4sim-prefetch")

        def submit(indices: Any) -> Future[Batch]:
            return executor.submit(self.dataset.read, indices, pin_memory=self.pin_memory)

        try:
            ahead = deque(submit(indices) for indices in islice(rest, self.prefetch))
            while ahead:
                batch = ahead.popleft().result()
                ahead.extend(submit(indices) for indices in islice(rest, 1))
                yield batch
        finally:
            executor.shutdown(wait=True, cancel_futures=True)

    def _from_workers(self, rest: Iterator[Any]) -> Generator[Batch, None, None]:
        """Read in worker processes, which live until the loader goes."""
        self._rest.batches = rest
        if self._workers is None:
            self._workers = DataLoader(
                self.dataset,  # type: ignore[arg-type]  # what torch asks for is its __getitems__
                batch_sampler=self._rest,
                collate_fn=_identity,
                num_workers=self.num_workers,
                prefetch_factor=self.prefetch,
                multiprocessing_context="forkserver",
                persistent_workers=True,
                pin_memory=self.pin_memory,
            )
        yield from self._workers


class _Rest:
    """The batches still to come in this epoch: what persistent workers are given anew each epoch."""

    def __init__(self) -> None:
        self.batches: Iterator[Any] = iter(())

    def __iter__(self) -> Iterator[Any]:
        return self.batches


def _identity(batch: Any) -> Any:
    return batch
