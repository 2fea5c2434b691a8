"""How a network's output becomes the next state.

All states are standardised and (batch, lat, lon, features). A strategy advances the state by one step of the data,
in one or several calls of the network; what comes in through the lateral boundary is part of it.
"""

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ai4sim.errors import InputError

Advance = Callable[[Tensor], Tensor]
"""One call of the network: the newest state to its output; older states, statics and forcing are bound to it."""


Add = Callable[[Tensor, Tensor], Tensor]
"""A state and its change to the sum."""


@dataclass(frozen=True)
class InterSteps:
    """Calls of the network between two states of the data, and what they are fed meanwhile.

    Args:
        number: calls per step.
        boundary: ``linear`` lets the boundary's values go linearly from the last state to the next; ``hold`` prescribes
            the next ones at once.
        scale: ``per_substep`` divides mean and deviation of the change by the number of calls; ``full`` applies those
            of a whole step at each call.

    Raises:
        InputError: no call at all, or an unknown choice.
    """

    number: int = 1
    boundary: Literal["linear", "hold"] = "linear"
    scale: Literal["per_substep", "full"] = "per_substep"

    def __post_init__(self) -> None:
        if self.number < 1:
            raise InputError(f"inter_steps.number must be at least 1, not {self.number}")


@dataclass(frozen=True, eq=False)
class Change:
    """Mean and standard deviation of the standardised state's change over one step, (features,) each.

    Args:
        mean: usual change.
        std: and how much it varies.
        add: adds a change to a state; may keep features within bounds.
    """

    mean: Tensor
    std: Tensor
    add: Add = operator.add


class Strategy(ABC):
    """Advances the state by one step of the data."""

    name: ClassVar[str]
    uses_boundary: ClassVar[bool] = False
    uses_host: ClassVar[bool] = False
    several_calls: ClassVar[bool] = False

    def __init__(self, inter_steps: InterSteps | None = None) -> None:
        self.inter_steps = inter_steps or InterSteps()
        if self.inter_steps.number > 1 and not self.several_calls:
            raise InputError(f"{self.name} makes one call of the network per step, not {self.inter_steps.number}")

    @abstractmethod
    def step(self, advance: Advance, state: Tensor, boundary: Tensor | None, border: Tensor, change: Change) -> Tensor:
        """The next state.

        Args:
            advance: the network.
            state: (B, lat, lon, F) last state.
            boundary: (B, lat, lon, F) state at the next time, of which the border is taken; None for none.
            border: weight of the boundary's values, (lat, lon, 1) or a shape that broadcasts with the state's.
            change: of the state over one step.
        """


class ScaledAR(Strategy):
    """The network gives the change of the state in units of its usual change.

    ``S <- M_b B + M_i (S + y sigma + mu)`` at each call, with the boundary's state B and its weight M_b = 1 - M_i.

    Args:
        inter_steps: calls of the network per step.
    """

    name = "scaled_ar"
    uses_boundary = True
    several_calls = True

    def step(self, advance: Advance, state: Tensor, boundary: Tensor | None, border: Tensor, change: Change) -> Tensor:
        """The next state; only the last of several calls gives a prediction."""
        n = self.inter_steps.number
        share = 1 / n if self.inter_steps.scale == "per_substep" else 1.0
        start = state
        for k in range(1, n + 1):
            state = change.add(state, advance(state) * (change.std * share) + change.mean * share)
            if boundary is not None:
                part = k / n if self.inter_steps.boundary == "linear" else 1.0
                # exactly the boundary's state where its weight is 1 and its share whole
                outside = boundary if part == 1.0 else start + part * (boundary - start)
                state = torch.where(border == 1, outside, torch.lerp(state, outside, border))
        return state


class DiffAR(Strategy):
    """The network gives the change of the standardised state, and nothing comes in through the boundary.

    Args:
        inter_steps: must be a single call per step.

    Raises:
        InputError: more than one call.
    """

    name = "diff_ar"

    def step(self, advance: Advance, state: Tensor, boundary: Tensor | None, border: Tensor, change: Change) -> Tensor:
        """The last state and the network's output."""
        return change.add(state, advance(state))


class DownscalingOnly(Strategy):
    """The network corrects the host's state at the next time; the last state is not fed.

    Experimental. The boundary given is the host's state.

    Args:
        inter_steps: must be a single call per step.
    """

    name = "downscaling_only"
    uses_host = True

    def step(self, advance: Advance, state: Tensor, boundary: Tensor | None, border: Tensor, change: Change) -> Tensor:
        """The host's state at the next time and the network's output."""
        if boundary is None:
            raise InputError("downscaling_only needs the host's fields: set boundary host")
        return change.add(boundary, advance(torch.zeros_like(state)))


STRATEGIES: dict[str, type[Strategy]] = {kind.name: kind for kind in (ScaledAR, DiffAR, DownscalingOnly)}


def make_strategy(name: str, inter_steps: InterSteps | None, n_inputs: int) -> Strategy:
    """The strategy of a name.

    Raises:
        InputError: unknown name, or several calls per step where they make no sense.
    """
    if name not in STRATEGIES:
        raise InputError(f"strategy {name!r} is unknown; choose one of {', '.join(STRATEGIES)}")
    if inter_steps is not None and inter_steps.number > 1 and n_inputs > 1:
        raise InputError(
            f"inter_steps.number {inter_steps.number} needs a single input state, not {n_inputs}: "
            "there is no second state between two times of the data"
        )
    return STRATEGIES[name](inter_steps)
