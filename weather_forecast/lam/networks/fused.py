"""Perceptrons and message passing as single differentiable functions.

Written op by op, autograd keeps every intermediate value of every edge, and each one is a large new block of memory
that the system has to map and that no cache holds. Here rows are worked on in chunks that stay in the cache; only what
enters a nonlinearity is kept, and the rest is made again. The results are those of the plain modules to rounding.

Everything works on rows: (batch, nodes, d) as (batch·nodes, d).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from weather_forecast.lam.networks.topology import Chunk, Plan, chunk_rows, sum_rows

aten = torch.ops.aten
Pieces = tuple[Tensor | None, ...]
KEPT = 4  # pieces that a tail keeps of each chunk


class Tail(NamedTuple):
    """What follows the first linear map of a perceptron: SiLU, linear map, and LayerNorm where it has one.

    Args:
        weight: (out, hidden) of the linear map.
        bias: (out,) of the linear map.
        scale: (out,) of the LayerNorm.
        shift: (out,) of the LayerNorm.
        eps: of the LayerNorm.
    """

    weight: Tensor
    bias: Tensor
    scale: Tensor | None
    shift: Tensor | None
    eps: float

    def forward(self, z: Tensor) -> tuple[Tensor, Pieces]:
        """Result for rows, and what the backward pass needs.

        Args:
            z: (n, hidden) values of the first linear map.

        Returns:
            (n, out); and z, values before the LayerNorm, their mean and inverse deviation.
        """
        y = torch.addmm(self.bias, aten.silu(z), self.weight.t())
        if self.scale is None:
            return y, (z, None, None, None)
        result, mean, deviation = torch.native_layer_norm(y, (y.shape[1],), self.scale, self.shift, self.eps)
        return result, (z, y, mean, deviation)


class TailGrads:
    """Gradients of the parameters of a :class:`Tail`, summed over chunks of rows."""

    def __init__(self, tail: Tail) -> None:
        self.tail = tail
        self._values: list[Tensor | None] = [None] * 4

    def backward(self, grad: Tensor, pieces: Pieces, dz: Tensor | None = None) -> Tensor:
        """From the gradient of the result to that of the first linear map's values.

        Args:
            grad: (n, out).
            pieces: from :meth:`Tail.forward`.
            dz: (n, hidden) to be filled; made where absent.

        Returns:
            (n, hidden).
        """
        tail, (z, y, mean, deviation) = self.tail, pieces
        scale = shift = None
        if y is not None:
            grad, scale, shift = aten.native_layer_norm_backward(
                grad, y, (y.shape[1],), mean, deviation, tail.scale, tail.shift, [True, True, True]
            )
        new = product_of_rows(grad, aten.silu(z)), grad.sum(0), scale, shift
        if self._values[0] is None:
            self._values = list(new)
        else:
            for value, more in zip(self._values, new, strict=True):
                if value is not None and more is not None:
                    value.add_(more)
        d_activation = grad @ tail.weight
        if dz is None:
            result: Tensor = aten.silu_backward(d_activation, z)
            return result
        aten.silu_backward.grad_input(d_activation, z, grad_input=dz)
        return dz

    def values(self) -> list[Tensor | None]:
        """In the order of the parameters."""
        tail = self.tail
        if self._values[0] is None:  # there were no rows
            return [None if parameter is None else torch.zeros_like(parameter) for parameter in tail[:4]]
        return self._values


def row_chunks(rows: Tensor) -> list[slice | None]:
    """Parts of rows whose values stay in a core's cache; None for all of them, as always on an accelerator."""
    n, size = len(rows), chunk_rows(rows.device)
    if size is None or n <= size:
        return [None]
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def cut(rows: Tensor, part: slice | None) -> Tensor:
    """A part of rows, or all."""
    return rows if part is None else rows[part]


def by_chunk(kept: list[Any]) -> Iterator[Pieces]:
    """What a tail has kept, chunk by chunk."""
    return (tuple(kept[start : start + KEPT]) for start in range(0, len(kept), KEPT))


def joined(values: list[Tensor]) -> Tensor:
    """Rows of all chunks."""
    return values[0] if len(values) == 1 else torch.cat(values)


class Product:
    """rows @ weight, plus other rows if given, chunk by chunk into one block of memory.

    Args:
        like: rows whose number and type the result has.
        weight: (in, out).
    """

    def __init__(self, like: Tensor, weight: Tensor) -> None:
        self.weight = weight
        self.result = like.new_empty(len(like), weight.shape[1])

    def add(self, rows: Tensor, part: slice | None, more: Tensor | None = None) -> None:
        """Fill a part of the result."""
        out = cut(self.result, part)
        if more is None:
            torch.mm(rows, self.weight, out=out)
        else:
            torch.addmm(more, rows, self.weight, out=out)


def product_of_rows(dz: Tensor, x: Tensor) -> Tensor:
    """Gradient of a weight (out, in) from (n, out) and (n, in); narrow inputs go first, which is far faster."""
    return (x.t() @ dz).t() if x.shape[1] < dz.shape[1] else dz.t() @ x


def rows_of(values: Tensor) -> Tensor:
    """(..., d) as contiguous (n, d)."""
    return values.reshape(-1, values.shape[-1]).contiguous()


class FusedMLP(torch.autograd.Function):
    """Linear, SiLU, linear, LayerNorm or none; one or two inputs, and one of them added to the result or none."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        more: Tensor | None,
        weight1: Tensor,
        bias1: Tensor,
        weight2: Tensor,
        bias2: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
        eps: float,
        residual: int | None,
    ) -> Tensor:
        """(..., in) and (..., in of more), as if concatenated, to (..., out).

        Args:
            ctx: of autograd.
            x: the first input.
            more: the second one.
            weight1: (hidden, in of both) of the first map.
            bias1: (hidden,) of the first map.
            weight2: of the :class:`Tail`.
            bias2: of the tail.
            scale: of the tail.
            shift: of the tail.
            eps: of the tail.
            residual: number of the input that is added to the result.
        """
        inputs = [rows_of(x)] if more is None else [rows_of(x), rows_of(more)]
        weights = weight1.split([rows.shape[1] for rows in inputs], 1)
        tail = Tail(weight2, bias2, scale, shift, eps)
        parts = row_chunks(inputs[0])
        whole = parts == [None]
        result = inputs[0].new_empty(0 if whole else len(inputs[0]), len(bias2))
        kept: list[Tensor | None] = []
        for part in parts:
            z = torch.addmm(bias1, cut(inputs[0], part), weights[0].t())
            if more is not None:
                z.addmm_(cut(inputs[1], part), weights[1].t())
            value, pieces = tail.forward(z)
            kept += pieces
            if residual is not None:
                value = torch.add(value, cut(inputs[residual], part), out=None if whole else result[part])
            elif not whole:
                result[part] = value
        ctx.save_for_backward(inputs[0], None if more is None else inputs[1], weight1, *tail[:4], *kept)
        ctx.eps, ctx.residual, ctx.parts = eps, residual, parts
        ctx.shapes = x.shape, None if more is None else more.shape
        return (value if whole else result).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients in the order of the arguments."""
        x, more, weight1, *rest = ctx.saved_tensors
        grads = TailGrads(Tail(rest[0], rest[1], rest[2], rest[3], ctx.eps))
        grad = rows_of(grad)
        inputs = [x] if more is None else [x, more]
        weights = weight1.split([rows.shape[1] for rows in inputs], 1)
        needed = ctx.needs_input_grad[:2]
        d_inputs = [Product(x, weight) if needed[i] else None for i, weight in enumerate(weights)]
        d_weights: list[Tensor] = []
        for part, pieces in zip(ctx.parts, by_chunk(rest[4:]), strict=True):
            part_of_grad = cut(grad, part)
            dz = grads.backward(part_of_grad, pieces)
            of_weights = [product_of_rows(dz, cut(rows, part)) for rows in inputs] + [dz.sum(0)]
            d_weights = [a.add_(b) for a, b in zip(d_weights, of_weights, strict=True)] if d_weights else of_weights
            for i, product in enumerate(d_inputs):
                if product is not None:
                    product.add(dz, part, part_of_grad if ctx.residual == i else None)
        d_x, d_more = (
            product.result.view(shape) if product is not None else None
            for product, shape in zip([*d_inputs, None][:2], ctx.shapes, strict=True)
        )
        *d_weight1, d_bias1 = d_weights
        d_weight = d_weight1[0] if more is None else torch.cat(d_weight1, dim=1)
        return d_x, d_more, d_weight, d_bias1, *grads.values(), None, None


class FusedMessages(torch.autograd.Function):
    """Messages along edges and their sums at the receivers.

    The first linear map of a message is split: W [e, s, r] = We e + Ws s + Wr r, so that the parts of senders and
    receivers are made once per node and not once per edge, and no concatenated values of edges exist. Edges that are
    the same for all samples stay without batch dimension, and those that share their values are one row.
    """

    @staticmethod
    def forward(
        ctx: Any,
        senders: Tensor,
        receivers: Tensor,
        edges: Tensor,
        weight1: Tensor,
        bias1: Tensor,
        weight2: Tensor,
        bias2: Tensor,
        scale: Tensor,
        shift: Tensor,
        eps: float,
        plan: Plan,
        update: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Sums of messages (batch, receivers, d), and edges plus messages (batch, E, d) if asked for.

        Args:
            ctx: of autograd.
            senders: (batch, senders, d).
            receivers: (batch, receivers, d).
            edges: (batch, E, d); (E, d), or (rows, d) where the topology has rows of edges, for all samples.
            weight1: (d, 3d) of the first map.
            bias1: (d,) of the first map.
            weight2: of the :class:`Tail`.
            bias2: of the tail.
            scale: of the tail.
            shift: of the tail.
            eps: of the tail.
            plan: which edges join which nodes.
            update: ask for new edges.
        """
        d = receivers.shape[-1]
        s, r, e = rows_of(senders), rows_of(receivers), rows_of(edges)
        shared = edges.ndim == 2 and (plan.batch > 1 or plan.topology.edge_rows is not None)
        tail = Tail(weight2, bias2, scale, shift, eps)
        we, ws, wr = weight1.split(d, 1)
        from_s, from_r = s @ ws.t(), torch.addmm(bias1, r, wr.t())
        of_edges = None
        if shared:
            product = Product(e, we.t())
            for part in row_chunks(e):
                product.add(cut(e, part), part)
            of_edges = product.result

        n = plan.batch * plan.topology.num_edges
        chunks = plan.chunks
        new = e.new_empty(n, d) if update and len(chunks) != 1 else None
        totals: list[Tensor] = []
        kept: list[Tensor | None] = []
        for chunk in chunks:
            part = chunk.edges
            z = from_s.index_select(0, cut(plan.senders, part))
            if of_edges is None:
                z.addmm_(cut(e, part), we.t())
            else:
                _add_shared(z, of_edges, plan, part)
            _add_to_edges(z, from_r, plan, chunk)
            message, pieces = tail.forward(z)
            kept += pieces
            totals.append(sum_rows(message, plan.rows[: len(message)], chunk.offsets))
            if update:
                if shared:
                    _add_shared(message, e, plan, part)
                else:
                    message.add_(cut(e, part))
                if new is not None:
                    new[part] = message
        total = joined(totals) if totals else e.new_zeros(len(r), d)
        if update and new is None:
            new = message

        ctx.save_for_backward(s, r, e, weight1, *tail[:4], *kept)
        ctx.plan, ctx.eps, ctx.shared = plan, eps, shared
        ctx.shapes = senders.shape, receivers.shape, edges.shape
        ctx.set_materialize_grads(False)
        return total.view(receivers.shape), None if new is None else new.view(plan.batch, -1, d)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, grad_edges: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients in the order of the arguments."""
        s, r, e, weight1, *rest = ctx.saved_tensors
        grads = TailGrads(Tail(rest[0], rest[1], rest[2], rest[3], ctx.eps))
        plan, d = ctx.plan, r.shape[1]
        grad = torch.zeros_like(r) if grad is None else rows_of(grad)
        grad_edges = None if grad_edges is None else rows_of(grad_edges)
        we, ws, wr = weight1.split(d, 1)
        chunks = plan.chunks
        n = plan.batch * plan.topology.num_edges
        dz = e.new_empty(n, d)
        at_receivers: list[Tensor] = []
        d_we: list[Tensor] = []
        d_edges = Product(e, we) if ctx.needs_input_grad[2] else None

        def to_edges(dz: Tensor, grad_edges: Tensor | None, part: slice | None) -> None:
            product = product_of_rows(dz, cut(e, part))
            if d_we:
                d_we[0] += product
            else:
                d_we.append(product)
            if d_edges is not None:
                d_edges.add(dz, part, grad_edges)

        for chunk, pieces in zip(chunks, by_chunk(rest[4:]), strict=True):
            part = chunk.edges
            of_new = None if grad_edges is None else cut(grad_edges, part)
            message = _to_edges(grad, plan, chunk, of_new)
            part_of_dz = grads.backward(message, pieces, cut(dz, part))
            at_receivers.append(sum_rows(part_of_dz, plan.rows[: len(part_of_dz)], chunk.offsets))
            if not ctx.shared:
                to_edges(part_of_dz, of_new, part)
        if ctx.shared:
            of_rows = _sum_over_samples(dz, plan, len(e))
            new_of_rows = None if grad_edges is None else _sum_over_samples(grad_edges, plan, len(e))
            for part in row_chunks(e):
                to_edges(cut(of_rows, part), None if new_of_rows is None else cut(new_of_rows, part), part)
        ds = sum_rows(dz, plan.by_sender, plan.sender_offsets)
        dr = joined(at_receivers) if at_receivers else torch.zeros_like(r)

        of_e = d_we[0] if d_we else torch.zeros_like(we)
        d_weight1 = torch.cat([of_e, ds.t() @ s, dr.t() @ r], dim=1)
        de = None if d_edges is None else d_edges.result.view(ctx.shapes[2])
        d_senders, d_receivers = (ds @ ws).view(ctx.shapes[0]), (dr @ wr).view(ctx.shapes[1])
        return d_senders, d_receivers, de, d_weight1, dr.sum(0), *grads.values(), None, None, None


def _add_shared(rows: Tensor, edges: Tensor, plan: Plan, part: slice | None) -> None:
    """Add values of edges to those of a chunk, which lies within one sample or holds whole ones."""
    edge_rows = plan.edge_rows
    if edge_rows is not None:
        rows.add_(edges.index_select(0, cut(edge_rows, part)))
        return
    if not len(rows):
        return
    start = part.start % len(edges) if part is not None else 0
    width = min(len(rows), len(edges))
    rows.view(-1, width, rows.shape[1]).add_(edges[start : start + width])


def _sum_over_samples(values: Tensor, plan: Plan, rows: int) -> Tensor:
    if plan.edge_rows is not None:
        return sum_rows(values, plan.by_edge_row, plan.edge_row_offsets)
    return values.view(plan.batch, rows, values.shape[1]).sum(0)


def _add_to_edges(rows: Tensor, nodes: Tensor, plan: Plan, chunk: Chunk) -> None:
    degree = plan.topology.degree
    if degree:
        rows.view(-1, degree, rows.shape[1]).add_(cut(nodes, chunk.receivers).unsqueeze(1))
    else:
        rows.add_(nodes.index_select(0, cut(plan.receivers, chunk.edges)))


def _to_edges(nodes: Tensor, plan: Plan, chunk: Chunk, more: Tensor | None) -> Tensor:
    """Give the edges of a chunk the values of their receivers, plus values of their own where there are some."""
    degree, d = plan.topology.degree, nodes.shape[1]
    if degree:
        values = cut(nodes, chunk.receivers).unsqueeze(1)
        if more is None:
            return values.expand(-1, degree, -1).reshape(-1, d)
        return torch.add(more.view(-1, degree, d), values).view(-1, d)
    rows = nodes.index_select(0, cut(plan.receivers, chunk.edges))
    return rows if more is None else rows.add_(more)
