"""Which edges join which nodes, arranged for gathering and summing."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ai4sim.errors import InputError

CHUNK = 8192  # rows per thread whose intermediate values stay in the cache


def chunk_rows(device: torch.device) -> int | None:
    """Rows to work on at once: enough for all threads, since each step ends with their waiting for each other.

    Args:
        device: of the rows.

    Returns:
        None for all rows on an accelerator.
    """
    return CHUNK * torch.get_num_threads() if device.type == "cpu" else None


@dataclass(frozen=True, eq=False)
class Chunk:
    """Consecutive edges of a batch with all edges of their receivers.

    Args:
        edges: rows of the flattened (batch · E) edges; None for all.
        receivers: rows of the flattened (batch · receivers) nodes; None for all.
        offsets: where in the chunk each receiver's edges begin, and their end.
    """

    edges: slice | None
    receivers: slice | None
    offsets: Tensor


class Plan:
    """Edges of a batch of samples as one larger graph, whose samples are not joined.

    Args:
        topology: of one sample.
        batch: number of samples.
        chunk: edges per chunk, at the least one receiver's; None for all in one.
    """

    def __init__(self, topology: "Topology", batch: int, chunk: int | None) -> None:
        self.topology, self.batch, self.chunk = topology, batch, chunk

    def _repeated(self, index: Tensor, count: int) -> Tensor:
        shift = torch.arange(self.batch, device=index.device)[:, None] * count
        return (index + shift).flatten()

    @cached_property
    def senders(self) -> Tensor:
        """(batch·E,) rows of the senders."""
        return self._repeated(self.topology.senders, self.topology.num_senders)

    @cached_property
    def receivers(self) -> Tensor:
        """(batch·E,) rows of the receivers."""
        return self._repeated(self.topology.receivers, self.topology.num_receivers)

    @cached_property
    def rows(self) -> Tensor:
        """(batch·E,) 0, 1, 2 ..., the edges in the order of their receivers."""
        return torch.arange(self.batch * self.topology.num_edges, device=self.topology.senders.device)

    @cached_property
    def edge_rows(self) -> Tensor | None:
        """(batch·E,) row of each edge's values, where edges share them."""
        rows = self.topology.edge_rows
        return None if rows is None else rows.repeat(self.batch)

    @cached_property
    def by_edge_row(self) -> Tensor:
        """(batch·E,) edges in the order of the rows of their values."""
        assert self.edge_rows is not None
        return torch.argsort(self.edge_rows, stable=True)

    @cached_property
    def edge_row_offsets(self) -> Tensor:
        """(rows + 1,) where the edges of each row begin in :attr:`by_edge_row`."""
        assert self.edge_rows is not None
        return _offsets(torch.bincount(self.edge_rows))

    @cached_property
    def by_sender(self) -> Tensor:
        """(batch·E,) edges in the order of their senders."""
        return self._repeated(self.topology.by_sender, self.topology.num_edges)

    @cached_property
    def receivers_by_sender(self) -> Tensor:
        """(batch·E,) rows of the receivers, in the order of the senders."""
        return self.receivers[self.by_sender]

    def _offsets(self, offsets: Tensor) -> Tensor:
        edges = self.topology.num_edges
        end = torch.full((1,), self.batch * edges, device=offsets.device)
        return torch.cat([self._repeated(offsets[:-1], edges), end])

    @cached_property
    def receiver_offsets(self) -> Tensor:
        """(batch·receivers + 1,) where each receiver's edges begin."""
        return self._offsets(self.topology.receiver_offsets)

    @cached_property
    def sender_offsets(self) -> Tensor:
        """(batch·senders + 1,) where each sender's edges begin in :attr:`by_sender`."""
        return self._offsets(self.topology.sender_offsets)

    @cached_property
    def chunks(self) -> list[Chunk]:
        """All edges, in chunks that do not cross samples unless they hold whole ones."""
        topology = self.topology
        edges, receivers = topology.num_edges, topology.num_receivers
        if self.chunk is None or self.batch * edges <= self.chunk:
            return [self._chunk(0, self.batch * receivers)] if edges else []
        samples = self.chunk // edges
        if samples:
            starts = range(0, self.batch, samples)
            return [self._chunk(b * receivers, min(b + samples, self.batch) * receivers) for b in starts]
        bounds = [0]
        ends = topology.receiver_offsets.tolist()
        for receiver in range(1, receivers):
            if ends[receiver + 1] - ends[bounds[-1]] > self.chunk and receiver > bounds[-1]:
                bounds.append(receiver)
        bounds.append(receivers)
        return [
            self._chunk(b * receivers + first, b * receivers + last)
            for b in range(self.batch)
            for first, last in pairwise(bounds)
        ]

    def _chunk(self, first: int, last: int) -> Chunk:
        if last - first == self.batch * self.topology.num_receivers:
            return Chunk(None, None, self.receiver_offsets)
        offsets = self.receiver_offsets[first : last + 1]
        edges = slice(int(offsets[0]), int(offsets[-1]))
        return Chunk(edges, slice(first, last), offsets - offsets[0])


class Topology(nn.Module):
    """The edges of a graph between two sets of nodes, in the order of their receivers.

    Args:
        index: (2, E) int64, row 0 senders, row 1 receivers, ascending.
        num_senders: nodes that may send.
        num_receivers: nodes that may receive, with or without edges.
        edge_rows: (E,) which row of given values each edge has, where edges share them; every row is used.

    Raises:
        InputError: node numbers do not fit, or receivers are not in order.
    """

    senders: Tensor
    receivers: Tensor
    by_sender: Tensor
    receiver_offsets: Tensor
    sender_offsets: Tensor
    inverse_counts: Tensor
    edge_rows: Tensor | None

    def __init__(self, index: Tensor, num_senders: int, num_receivers: int, edge_rows: Tensor | None = None) -> None:
        super().__init__()
        self.num_senders, self.num_receivers, self.num_edges = num_senders, num_receivers, index.shape[1]
        senders, receivers = index
        if self.num_edges and (int(index.min()) < 0 or int(senders.max()) >= num_senders):
            raise InputError(f"senders of edges: 0 to {num_senders - 1} expected")
        if self.num_edges and (int(receivers.max()) >= num_receivers or bool((receivers.diff() < 0).any())):
            raise InputError(f"receivers of edges: 0 to {num_receivers - 1} in ascending order expected")
        counts = torch.bincount(receivers, minlength=num_receivers)
        #: number of edges of every receiver where that is the same, otherwise 0
        self.degree = int(counts[0]) if self.num_edges and bool((counts == counts[0]).all()) else 0
        buffers = {
            "senders": senders.contiguous(),
            "receivers": receivers.contiguous(),
            "by_sender": torch.argsort(senders, stable=True),
            "receiver_offsets": _offsets(counts),
            "sender_offsets": _offsets(torch.bincount(senders, minlength=num_senders)),
            "edge_rows": edge_rows,
            "inverse_counts": 1 / counts.clamp(min=1).to(torch.get_default_dtype())[:, None],
        }
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=False)
        self._plan: Plan | None = None

    def plan(self, batch: int) -> Plan:
        """The plan for so many samples; that of the last number is kept."""
        plan = self._plan
        if plan is None or plan.batch != batch:
            plan = self._plan = Plan(self, batch, chunk_rows(self.senders.device))
        return plan

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Topology":
        self._plan = None  # it holds tensors of the device that is left
        apply: Callable[..., nn.Module] = super()._apply
        apply(fn, recurse)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_plan": None}

    def from_senders(self, nodes: Tensor) -> Tensor:
        """Give every edge the values of its sender: (batch, senders, d) to (batch, E, d)."""
        if torch.compiler.is_compiling():
            return nodes.index_select(1, self.senders)
        plan = self.plan(len(nodes))
        return _map_rows(nodes, RowMap(plan.senders), RowMap(plan.by_sender, plan.sender_offsets))

    def from_senders_to_receivers(self, nodes: Tensor) -> Tensor:
        """Sum the values of the senders at their receivers: (batch, senders, d) to (batch, receivers, d)."""
        if torch.compiler.is_compiling():
            return self.to_receivers(self.from_senders(nodes))
        plan = self.plan(len(nodes))
        forth = RowMap(plan.senders, plan.receiver_offsets)
        return _map_rows(nodes, forth, RowMap(plan.receivers_by_sender, plan.sender_offsets))

    def from_receivers(self, nodes: Tensor) -> Tensor:
        """Give every edge the values of its receiver: (batch, receivers, d) to (batch, E, d)."""
        if self.degree:
            return nodes[:, :, None].expand(-1, -1, self.degree, -1).flatten(1, 2)
        return nodes.index_select(1, self.receivers)

    def to_receivers(self, values: Tensor) -> Tensor:
        """Sum the values of edges at their receivers: (batch, E, d) to (batch, receivers, d)."""
        if self.degree:
            return values.unflatten(1, (self.num_receivers, self.degree)).sum(2)
        if torch.compiler.is_compiling():
            zeros = values.new_zeros(values.shape[0], self.num_receivers, values.shape[2])
            return zeros.index_add(1, self.receivers, values)
        plan = self.plan(len(values))
        return _map_rows(values, RowMap(plan.rows, plan.receiver_offsets), RowMap(plan.receivers))


def _offsets(counts: Tensor) -> Tensor:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def sum_rows(values: Tensor, rows: Tensor, offsets: Tensor) -> Tensor:
    """Sums of rows: result i is the sum of values[rows[offsets[i]:offsets[i+1]]].

    The embedding bag is torch's fastest kernel for that: it reads each row once and writes each sum once, in parallel
    over the sums and without atomic operations, so that the result is the same every time.

    Args:
        values: (n, d).
        rows: (m,) int64.
        offsets: (sums + 1,) int64.
    """
    if not len(rows):
        return values.new_zeros(len(offsets) - 1, values.shape[1])
    result: Tensor = torch.embedding_bag(values, rows, offsets, False, 0, False, None, True)[0]
    return result


class RowMap(NamedTuple):
    """A linear map of rows: copies of some rows, or sums of runs of them.

    Args:
        rows: which rows, in which order.
        offsets: where each sum's rows begin, and their end; None for no sums.
    """

    rows: Tensor
    offsets: Tensor | None = None

    def __call__(self, values: Tensor) -> Tensor:
        """Of all samples at once: (batch, n, d) to (batch, m, d)."""
        flat = values.reshape(-1, values.shape[-1])
        mapped = flat.index_select(0, self.rows) if self.offsets is None else sum_rows(flat, self.rows, self.offsets)
        return mapped.view(values.shape[0], -1, values.shape[-1])


class _MapRows(torch.autograd.Function):
    """A map of rows whose transpose is given: sums in order, where autograd would add rows one by one."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, forth: RowMap, back: RowMap) -> Tensor:
        ctx.back = back
        return forth(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return ctx.back(grad), None, None


# the type says what torch's own annotation does not
_map_rows: Callable[[Tensor, RowMap, RowMap], Tensor] = _MapRows.apply
