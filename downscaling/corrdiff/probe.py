"""A small ensemble during the training: whether members would score, and the spread that they lack."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ai4sim.errors import InputError


@dataclass(frozen=True)
class Probe:
    """Draws members for some validation pairs at the end of epochs.

    Args:
        pairs: that members are drawn for, spread over the validation.
        members: of each.
        every: epochs from one probe to the next; the last epoch always has one.
        tune_spread: scale members' distances from the mean from then on, output by output, so that the probe's spread
            is as large as its error. A denoiser that is not trained to the end gives too little spread.

    Raises:
        InputError: fewer than one pair, two members or one epoch.
    """

    pairs: int = 16
    members: int = 4
    every: int = 1
    tune_spread: bool = True

    def __post_init__(self) -> None:
        for name, value, least in (("pairs", self.pairs, 1), ("members", self.members, 2), ("every", self.every, 1)):
            if value < least:
                raise InputError(f"model.probe.{name} is {value}; expected at least {least}")

    def is_due(self, epoch: int, last: bool) -> bool:
        """Whether the epoch, from 0, ends with a probe."""
        return last or (epoch + 1) % self.every == 0


class ProbeSums:
    """Sums over ensembles by output, which add up over batches and processes.

    Args:
        n_outputs: C.
        device: of the sums.
    """

    def __init__(self, n_outputs: int, device: torch.device | str = "cpu") -> None:
        self.values = torch.zeros(4, n_outputs, dtype=torch.float64, device=device)

    def add(self, members: Tensor, target: Tensor) -> None:
        """Add ensembles.

        Args:
            members: (B, K, C, H, W).
            target: (B, C, H, W).
        """
        size = members.shape[1]
        x, y = members.double(), target.double()
        error = x.mean(1) - y
        ranks = 2.0 * torch.arange(size, dtype=torch.float64, device=x.device) - size + 1
        gap = (x.sort(dim=1).values * ranks.reshape(1, -1, 1, 1, 1)).sum(1) / (size * (size - 1))
        crps = (x - y[:, None]).abs().mean(1) - gap
        for place, field in enumerate((torch.ones_like(y), error.square(), x.var(1), crps)):
            self.values[place] += field.sum((0, 2, 3))


def probe_scores(values: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Fair CRPS and spread-skill ratio of every output.

    Args:
        values: of `ProbeSums`, over all processes.
        size: number of members.

    Returns:
        (C,) in the units of the members, and (C,).
    """
    n, squared_error, variance, crps = values
    return crps / n, (variance / squared_error * ((size + 1) / size)).sqrt()
