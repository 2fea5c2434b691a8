"""The large-scale wind and moisture that steer the demo's weather: one value each for the whole region."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

INTERVAL = 2.0  # h
MEMORY = 36.0  # h
# wind to the east and north, m/s, and moisture
MEAN = (7.0, 0.0, 0.0)
SPREAD = (4.0, 4.0, 1.0)


class Regime(NamedTuple):
    """The state of the large scales at one time.

    Attributes:
        u: wind to the east, m/s.
        v: wind to the north, m/s.
        moisture: mean 0, standard deviation 1.
    """

    u: float
    v: float
    moisture: float


def evolve_regime(rng: np.random.Generator) -> Iterator[Regime]:
    """Regimes every two hours without an end: Ornstein-Uhlenbeck processes by Euler's rule, from their climate on.

    Args:
        rng: random numbers.
    """
    mean, spread = np.array(MEAN), np.array(SPREAD)
    part = INTERVAL / MEMORY
    state = mean + spread * rng.standard_normal(3)
    while True:
        yield Regime(*state.tolist())
        state = state - part * (state - mean) + spread * np.sqrt(2 * part) * rng.standard_normal(3)
