"""Batches of pairs, from the processed store or straight from raw data, and the rows of ensembles."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ai4sim.errors import InputError
from ai4sim.loading import BatchDataset
from ai4sim.sampling import BlockBatchSampler
from ai4sim.store import open_store
from downscaling.corrdiff.readers.base import PairedSource, describe_missing, missing_values

Batch = dict[str, Tensor]
MEAN = -1
"""Number of a member that stands for the regression's mean."""


class PairBatches(Protocol):
    """What pairs are read from, a batch at a time."""

    def read(self, indices: Any, *, pin_memory: bool = False) -> Batch:
        """A batch of pairs.

        Returns:
            ``input`` (B, C, h, w), ``static`` (B, S, H, W), ``corner`` (B, 2), ``case`` (B,), ``index`` (B,), and
            where there are any ``output`` (B, K, H, W) and ``lead`` (B,), labels of lead times.
        """


class Statics:
    """Static fields of the whole grid, cut for every pair.

    Args:
        fields: (S, Y, X).
        shape: rows and columns of a pair.
    """

    def __init__(self, fields: NDArray[np.float32], shape: tuple[int, int]) -> None:
        self._fields = torch.from_numpy(np.ascontiguousarray(fields))
        self._shape = shape

    def cut(self, corners: NDArray[np.int64]) -> Tensor:
        """(B, S, H, W) with their first rows and columns (B, 2)."""
        height, width = self._shape
        parts = [self._fields[:, i : i + height, j : j + width] for i, j in corners.tolist()]
        return torch.stack(parts)


class StoredPairs:
    """Pairs of a processed store; its indices are the store's rows.

    Args:
        path: of the store.
        lead_labels: lead times, h, in the order of their labels; empty without lead times.
    """

    def __init__(self, path: str, lead_labels: Sequence[int] = ()) -> None:
        self._fields = BatchDataset(path, ["input", "output"])
        with open_store(path) as store:
            shape = store.sizes["y"], store.sizes["x"]
            self._statics = Statics(store["static"].values, shape)
            self._corners, self._cases = store["corner"].values, store["case"].values
            self._labels = labels_of(store["lead"].values, lead_labels) if lead_labels else None

    def read(self, indices: Any, *, pin_memory: bool = False) -> Batch:
        """See `PairBatches`."""
        rows = np.asarray(indices, np.int64)
        batch = self._fields.read(rows, pin_memory=pin_memory)
        return batch | self.places(rows)

    def __getitems__(self, indices: Any) -> Batch:
        return self.read(indices)

    def places(self, rows: NDArray[np.int64]) -> Batch:
        """Everything but the fields that change with time."""
        corners = self._corners[rows]
        batch = {
            "static": self._statics.cut(corners),
            "corner": torch.from_numpy(corners),
            "case": torch.from_numpy(self._cases[rows]),
        }
        if self._labels is not None:
            batch["lead"] = torch.from_numpy(self._labels[rows])
        return batch


class RawPairs:
    """Inputs of raw data, for generation; its indices are the numbers of pairs.

    Args:
        source: the data.
    """

    def __init__(self, source: PairedSource) -> None:
        self._source = source
        pairs = source.pairs
        self._statics = Statics(np.asarray(pairs.static_fields, np.float32), pairs.output_shape)
        self._labels = None if pairs.leads is None else labels_of(pairs.leads, pairs.lead_labels)

    def read(self, indices: Any, *, pin_memory: bool = False) -> Batch:
        """See `PairBatches`; without outputs.

        Raises:
            InputError: values are missing; names the first channel and pair.
        """
        rows = np.asarray(indices, np.int64)
        pairs = self._source.pairs
        inputs = np.concatenate([self._source.read_inputs(slice(int(row), int(row) + 1)) for row in rows])
        if (missing := missing_values(inputs)).any():
            where = describe_missing("input", pairs.inputs, missing, rows, pairs)
            raise InputError(f"{where}: leave this pair out with data.select")
        corners = np.zeros((len(rows), 2), np.int64) if pairs.corners is None else pairs.corners[rows]
        batch = {
            "input": torch.from_numpy(np.ascontiguousarray(inputs, np.float32)),
            "static": self._statics.cut(corners),
            "corner": torch.from_numpy(corners),
            "case": torch.from_numpy(rows),
            "index": torch.from_numpy(rows),
        }
        if self._labels is not None:
            batch["lead"] = torch.from_numpy(self._labels[rows])
        return batch


class PartedSampler:
    """Batches in parts of equal size, one after the other: what makes a step of the optimiser that is read in parts.

    Args:
        whole: makes the batches; none may be smaller.
        parts: of each.
    """

    def __init__(self, whole: BlockBatchSampler, parts: int) -> None:
        self.whole, self.parts = whole, parts
        self.epoch = whole.epoch

    @property
    def sampler(self) -> Self:
        """Itself, as in `BlockBatchSampler`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch."""
        self.epoch = epoch
        self.whole.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.whole) * self.parts

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        for rows in self.whole:
            yield from np.split(rows, self.parts)


def labels_of(leads: NDArray[np.int64], known: Sequence[int]) -> NDArray[np.int64]:
    """Labels of lead times: their places among those that are known.

    Raises:
        InputError: a lead time that is not known.
    """
    if (unknown := ~np.isin(leads, known)).any():
        raise InputError(f"lead time {leads[unknown][0]} h has no label; known are {', '.join(map(str, known))} h")
    return np.searchsorted(np.asarray(known), leads).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Plan:
    """What an evaluation or a generation makes, row by row.

    Args:
        pair: (n,) index of the pair, for `PairBatches`.
        member: (n,) number of the member, or `MEAN`.
    """

    pair: NDArray[np.int64]
    member: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pair)

    @classmethod
    def of(cls, pairs: NDArray[np.int64], members: int, *, mean: bool = True) -> "Plan":
        """All members of every pair, after its mean.

        Args:
            pairs: (n,) indices.
            members: of every pair.
            mean: whether the regression's mean is wanted, too.
        """
        numbers = np.arange(MEAN if mean else 0, members)
        return cls(np.repeat(pairs, len(numbers)), np.tile(numbers, len(pairs)))

    def __add__(self, other: "Plan") -> "Plan":
        return Plan(np.concatenate([self.pair, other.pair]), np.concatenate([self.member, other.member]))


class PlannedRows:
    """Rows of a plan as batches; a pair is read once for all its members in a batch.

    Args:
        pairs: what pairs are read from.
        plan: the rows.
    """

    def __init__(self, pairs: PairBatches, plan: Plan) -> None:
        self.pairs, self.plan = pairs, plan

    def read(self, indices: Any, *, pin_memory: bool = False) -> Batch:
        """A batch of R rows of B different pairs.

        Returns:
            What `PairBatches.read` gives, without outputs, and ``index``, ``member`` and ``row_pair`` (R,): number of
            the row, of the member, and place of the row's pair among the B.
        """
        rows = np.asarray(indices, np.int64)
        chosen, place = np.unique(self.plan.pair[rows], return_inverse=True)
        batch = self.pairs.read(chosen, pin_memory=pin_memory)
        batch.pop("output", None)  # what is to be forecast
        return batch | {
            "index": torch.from_numpy(rows),
            "member": torch.from_numpy(self.plan.member[rows]),
            "row_pair": torch.from_numpy(place.reshape(-1)),
        }

    def __getitems__(self, indices: Any) -> Batch:
        return self.read(indices)
