"""Quantiles of the amount."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.climate import WET, Climate
from precip_postproc.resunet_qpf.config import EDGES, GUARD, QUANTILES
from precip_postproc.resunet_qpf.heads.base import Head
from precip_postproc.resunet_qpf.heads.functions import inverse_softplus, running_sums

LEAST_STEP: Final = 1e-4  # mm between quantiles
# So that a network does not begin where the softplus is flat.
FIRST_STEP: Final = 0.1  # mm between quantiles before training
# Decay of the exceedance beyond the last quantile.
SHORTEST_TAIL, LONGEST_TAIL = 0.1, 50.0  # mm


class QuantileHead(Head):
    """Quantiles that do not cross: the first output, and on it the softplus of one more output per level.

    They may be negative: the amount is the positive part of a variable with these quantiles. Between them the quantile
    function is linear in the level. Beyond the last the exceedance decays exponentially, as fast as between the last
    two; below the first it rises to 1 at 0.

    Args:
        edges: K amounts, mm, strictly increasing.
        levels: at least two in (0, 1), strictly increasing.

    Attributes:
        levels: (n,) buffer.

    Raises:
        InputError: edges of which no classes can be made, or levels that are not as above.
    """

    levels: Tensor

    def __init__(self, edges: Sequence[float] = EDGES, levels: Sequence[float] = QUANTILES) -> None:
        super().__init__(edges)
        bounded = [0.0, *levels, 1.0]
        if len(levels) < 2 or any(not a < b for a, b in pairwise(bounded)):
            raise InputError(f"QuantileHead: levels must be two or more, increase strictly and lie in (0, 1): {levels}")
        self.register_buffer("levels", torch.tensor([float(level) for level in levels]), persistent=False)
        self.n_outputs = len(levels)
        self._tail = math.log((1 - levels[-2]) / (1 - levels[-1]))

    def _steps(self, outputs: Tensor) -> Tensor:
        return LEAST_STEP + softplus(self.checked(outputs)[:, 1:])

    def quantiles(self, outputs: Tensor) -> Tensor:
        """Quantiles (B, n, H, W), mm, of outputs of that shape, before negative ones are set to 0."""
        steps = self._steps(outputs)
        first = outputs[:, 0].to(steps.dtype)
        return torch.stack(running_sums([first, *steps.unbind(1)]), 1)

    def exceedance(self, outputs: Tensor) -> Tensor:
        """P(Y >= edge) (B, K, H, W): 1 minus the level whose quantile the edge is."""
        steps, quantiles = self._steps(outputs), self.quantiles(outputs)
        levels = self.levels.to(steps.dtype)
        share = levels.diff()[:, None, None]
        first, last = quantiles[:, 0], quantiles[:, -1]
        # far above 0, so that no edge is divided by (almost) nothing where the first quantile is not positive
        rise = torch.maximum(first, self.edges[0].to(first) * 1e-3)
        decay = (steps[:, -1] / self._tail).clamp(SHORTEST_TAIL, LONGEST_TAIL)
        rest = 1 - levels[-1]
        exceedances = []
        for edge in self.edges.unbind():
            within = ((edge - quantiles[:, :-1]) / steps).clamp(0, 1)
            below = levels[0] * (edge / rise).clamp(max=1) + (share * within).sum(1)
            beyond = rest * torch.exp(-(edge - last).clamp(min=0) / decay)
            exceedances.append((1 - below - rest).clamp(min=0) + beyond)
        return torch.stack(exceedances, 1).clamp(max=1)

    def initial_bias(self, climate: Climate) -> Tensor:
        """Outputs (n,) of the climate's quantiles; those of dry levels lie below 0, 0.1 mm apart."""
        quantiles = torch.from_numpy(climate.quantiles(self.levels.tolist()))
        dry = quantiles < WET - GUARD
        place = torch.arange(len(quantiles)) - int(dry.sum())
        quantiles = torch.where(dry, place * FIRST_STEP, quantiles)
        steps = inverse_softplus(quantiles.diff().clamp(min=FIRST_STEP))
        return torch.cat([quantiles[:1], steps]).float()
