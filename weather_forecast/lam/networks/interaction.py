"""Message passing between two sets of nodes: interaction and propagation networks."""

from collections.abc import Callable
from functools import wraps
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ai4sim.errors import InputError
from weather_forecast.lam.networks.fused import FusedMessages, FusedMLP
from weather_forecast.lam.networks.topology import Topology

AGGREGATIONS = ("sum", "mean")


def can_fuse(*values: Tensor) -> bool:
    """Whether the fused functions serve: compilers fuse by themselves."""
    if torch.compiler.is_compiling():
        return False
    autocast = torch.is_autocast_enabled(values[0].device.type)
    return autocast or all(value.dtype == values[0].dtype for value in values)


Call = Callable[..., Any]


def in_single_precision(method: Call) -> Call:
    """Keep autocast out of a fused method.

    Its sums over many edges and its LayerNorms are in single precision in any case, and op by op, as autocast wants it,
    the step of a HiLAM takes twice the time on a GPU.
    """

    @wraps(method)
    def call(self: nn.Module, x: Tensor, *arguments: Any) -> Any:
        device = x.device.type
        if not torch.is_autocast_enabled(device):
            return method(self, x, *arguments)
        single = [value.float() if isinstance(value, Tensor) else value for value in (x, *arguments)]
        with torch.autocast(device, enabled=False):
            return method(self, *single)

    return call


class MLP(nn.Sequential):
    """Linear maps with SiLU between them, and a LayerNorm behind the last one.

    Args:
        in_features: of the input.
        hidden: features between the maps.
        hidden_layers: SiLU after so many linear maps, one more follows; 1 or more.
        out_features: of the result; `hidden` when absent.
        norm: with a LayerNorm at the end.
        use_checkpointing: make intermediate values again in the backward pass instead of keeping them.
    """

    def __init__(
        self,
        in_features: int,
        hidden: int,
        hidden_layers: int = 1,
        out_features: int | None = None,
        norm: bool = True,
        use_checkpointing: bool = False,
    ) -> None:
        out_features = hidden if out_features is None else out_features
        layers: list[nn.Module] = []
        for layer in range(hidden_layers):
            layers += [nn.Linear(in_features if layer == 0 else hidden, hidden), nn.SiLU()]
        layers.append(nn.Linear(hidden, out_features))
        if norm:
            layers.append(nn.LayerNorm(out_features))
        super().__init__(*layers)
        self.hidden_layers, self.norm, self.use_checkpointing = hidden_layers, norm, use_checkpointing

    def forward(self, x: Tensor, more: Tensor | None = None, residual: int | None = None) -> Tensor:
        """One or two inputs, as if they were concatenated.

        Args:
            x: (..., in).
            more: (..., in), where there is a second one.
            residual: number of the input that is added to the result; none when absent.

        Returns:
            (..., out).
        """
        call = self._fused if self.hidden_layers == 1 and can_fuse(x, self.linear(0).weight) else self._plain
        if self.use_checkpointing and self.training and torch.is_grad_enabled():
            result: Tensor = checkpoint(call, x, more, residual, use_reentrant=False)
            return result
        return call(x, more, residual)

    @in_single_precision
    def _fused(self, x: Tensor, more: Tensor | None, residual: int | None) -> Tensor:
        parameters = *self.fused_parameters(), residual
        apply: Callable[..., Tensor] = FusedMLP.apply
        return apply(x, more, *parameters)

    def _plain(self, x: Tensor, more: Tensor | None, residual: int | None) -> Tensor:
        parts = [x] if more is None else [x, more]
        z, *others = self.split_first(*parts)
        for other in others:
            z = z + other
        y = self.rest(z)
        return y if residual is None else parts[residual] + y

    def fused_parameters(self) -> tuple[Any, ...]:
        """Weights and biases of both maps, scale, shift and eps of the LayerNorm."""
        first, last = self.linear(0), self.linear(2)
        norm = cast(nn.LayerNorm, self[3]) if self.norm else None
        scale = (None, None, 0.0) if norm is None else (norm.weight, norm.bias, norm.eps)
        return first.weight, first.bias, last.weight, last.bias, *scale

    def linear(self, position: int) -> nn.Linear:
        """The linear map at a position in the sequence."""
        return cast(nn.Linear, self[position])

    def split_first(self, *parts: Tensor) -> list[Tensor]:
        """Apply the first map to inputs that would have been concatenated, with its bias on the last one."""
        first = self.linear(0)
        weights = first.weight.split([part.shape[-1] for part in parts], 1)
        biases = [*[None] * (len(parts) - 1), first.bias]
        return [
            functional.linear(part, weight, bias) for part, weight, bias in zip(parts, weights, biases, strict=True)
        ]

    def rest(self, z: Tensor) -> Tensor:
        """What follows the first map."""
        for layer in list(self)[1:]:
            z = layer(z)
        return z


class Messages(nn.Module):
    """Messages e' = MLP([e, s, r]) along the edges from s to r, and their sums at the receivers.

    Sums are over the given number of receivers; one without edges gets 0.

    Args:
        topology: of the edges.
        hidden_dims: features of nodes and edges.
        hidden_layers: of the perceptron.
        use_checkpointing: make intermediate values again in the backward pass instead of keeping them.
    """

    def __init__(
        self, topology: Topology, hidden_dims: int, hidden_layers: int = 1, use_checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.topology, self.hidden_layers, self.use_checkpointing = topology, hidden_layers, use_checkpointing
        self.mlp = MLP(3 * hidden_dims, hidden_dims, hidden_layers)

    def forward(
        self, senders: Tensor, receivers: Tensor, edges: Tensor, update: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Sums of messages, and e + e' if asked for.

        Args:
            senders: (batch, senders, d).
            receivers: (batch, receivers, d).
            edges: (batch, E, d); (E, d), or (rows, d) where the topology has rows of edges, for all samples.
            update: ask for new edges.

        Returns:
            (batch, receivers, d) and (batch, E, d) or None.
        """
        call = self._fused if self.hidden_layers == 1 and can_fuse(senders, receivers, edges) else self._plain
        if self.use_checkpointing and self.training and torch.is_grad_enabled():
            result: tuple[Tensor, Tensor | None] = checkpoint(
                call, senders, receivers, edges, update, use_reentrant=False
            )
            return result
        return call(senders, receivers, edges, update)

    @in_single_precision
    def _fused(self, senders: Tensor, receivers: Tensor, edges: Tensor, update: bool) -> tuple[Tensor, Tensor | None]:
        plan = self.topology.plan(len(receivers))
        parameters = *self.mlp.fused_parameters(), plan, update
        apply: Callable[..., tuple[Tensor, Tensor | None]] = FusedMessages.apply
        return apply(senders, receivers, edges, *parameters)

    def _plain(self, senders: Tensor, receivers: Tensor, edges: Tensor, update: bool) -> tuple[Tensor, Tensor | None]:
        topology = self.topology
        of_edges, from_senders, from_receivers = self.mlp.split_first(edges, senders, receivers)
        if topology.edge_rows is not None and edges.ndim == 2:
            of_edges = of_edges.index_select(0, topology.edge_rows)
            edges = edges.index_select(0, topology.edge_rows) if update else edges
        z = of_edges + topology.from_senders(from_senders) + topology.from_receivers(from_receivers)
        messages = self.mlp.rest(z)
        return topology.to_receivers(messages), edges + messages if update else None


class InteractionNet(nn.Module):
    """Interaction network (Battaglia et al. 2016, arXiv 1612.00222; in the form of GraphCast, arXiv 2212.12794).

    On an edge from s to r: e' = MLPe([e, s, r]); at a receiver: a = sum or mean of e', r <- r + MLPv([r, a]);
    e <- e + e' where edges are updated.

    Args:
        topology: of the edges.
        hidden_dims: features of nodes and edges.
        hidden_layers: of the perceptrons.
        aggregation: "sum" or "mean".
        use_checkpointing: make intermediate values again in the backward pass instead of keeping them.

    Raises:
        InputError: unknown aggregation.
    """

    def __init__(
        self,
        topology: Topology,
        hidden_dims: int,
        hidden_layers: int = 1,
        aggregation: str = "sum",
        use_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if aggregation not in AGGREGATIONS:
            raise InputError(f"aggregation {aggregation!r}: expected one of {', '.join(AGGREGATIONS)}")
        self.mean = aggregation == "mean"
        self.messages = Messages(topology, hidden_dims, hidden_layers, use_checkpointing)
        self.node_mlp = MLP(2 * hidden_dims, hidden_dims, hidden_layers, use_checkpointing=use_checkpointing)

    @property
    def topology(self) -> Topology:
        """Of the edges."""
        return self.messages.topology

    def forward(self, senders: Tensor, receivers: Tensor, edges: Tensor) -> Tensor:
        """Update of the receivers alone.

        Args:
            senders: (batch, senders, d).
            receivers: (batch, receivers, d).
            edges: (batch, E, d); (E, d), or (rows, d) where the topology has rows of edges, for all samples.

        Returns:
            (batch, receivers, d).
        """
        total, _ = self.messages(senders, receivers, edges)
        return self._update(senders, receivers, total)

    def with_edges(self, senders: Tensor, receivers: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        """Update of receivers and edges; arguments as in :meth:`forward`.

        Returns:
            (batch, receivers, d) and (batch, E, d).
        """
        total, new = self.messages(senders, receivers, edges, update=True)
        return self._update(senders, receivers, total), new

    def _update(self, senders: Tensor, receivers: Tensor, total: Tensor) -> Tensor:
        if self.mean:
            total = total * self.topology.inverse_counts.to(total.dtype)
        result: Tensor = self.node_mlp(receivers, total, residual=0)
        return result


class PropagationNet(InteractionNet):
    """Interaction network that carries its senders' values on (Oskarsson et al. 2024, arXiv 2406.04759).

    The message is s + e' with e' = MLPe([e, s, r]), a is the mean of messages whatever `aggregation` says, and
    r <- a + MLPv([r, a]); edges are updated as e <- e + e'. A receiver without edges gets a = 0.
    """

    def _update(self, senders: Tensor, receivers: Tensor, total: Tensor) -> Tensor:
        total = total + self.topology.from_senders_to_receivers(senders)
        total = total * self.topology.inverse_counts.to(total.dtype)
        result: Tensor = self.node_mlp(receivers, total, residual=1)
        return result
