"""Learning-rate schedules that know the length of the training by themselves."""

import math
from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


@dataclass(frozen=True)
class CosineSchedule:
    """Linear warm-up to the optimiser's learning rate, then half a cosine down.

    With a tenth of the steps as warm-up this is the one-cycle policy of Smith and Topin (2019,
    arXiv 1708.07120) without its momentum cycle.

    Args:
        warmup: share of all optimiser steps spent rising from a 25th of the learning rate.
        final: learning rate at the end, as a share of the optimiser's.
    """

    warmup: float = 0.1
    final: float = 1e-4

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is a share of the training, 0 <= warmup < 1, got {self.warmup}")

    def factor(self, step: int, total_steps: int) -> float:
        """Multiple of the optimiser's learning rate at a step, 0-based."""
        rise = self.warmup * total_steps
        if step < rise:
            return 1 / 25 + (1 - 1 / 25) * step / rise
        progress = min((step - rise) / max(total_steps - rise, 1), 1.0)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))

    def build(self, optimizer: Optimizer, total_steps: int) -> LambdaLR:
        """The schedule over ``total_steps`` optimiser steps."""
        return LambdaLR(optimizer, lambda step: self.factor(step, total_steps))
