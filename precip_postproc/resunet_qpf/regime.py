"""The large-scale flow and moisture that steer the demo's weather: one value each for the whole region.

Every value is an AR(1) process in steps of six hours, counted from 1970. A process is computed in blocks of 60 days,
each one with a run-up from an independent start that is long enough to be forgotten. So the weather of a day follows
from the seed and the date alone, whatever other days are asked for.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import numpy as np

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.random_fields import Stream, make_rng

STEP = 6  # h
BLOCK = 240  # steps
# 0.85 to the power of 112 is 1e-8
RUN_UP = 112

MEMORY = 36.0  # h, e-folding time
MEAN_WIND = (9.0, 1.0)  # m/s, to the east and to the north
WIND_SPREAD = 5.0  # m/s
WETNESS_SPREAD = 0.35
CONVECTIVE = 0.7  # largest convective fraction
DRYNESS = 0.9
MOISTURE_EFFECT = 0.9


@dataclass(frozen=True)
class Regime:
    """The state of the large scales at one time.

    Attributes:
        u: wind to the east, m/s.
        v: wind to the north, m/s.
        wetness: shifts the latent precipitation everywhere; mean 0, standard deviation 0.35.
        moisture: of the air; mean 0, standard deviation 1.
    """

    u: float
    v: float
    wetness: float
    moisture: float

    @property
    def convective_fraction(self) -> float:
        """Part of the variance that is of convective scale, 0 to 0.7."""
        return float(CONVECTIVE / (1 + np.exp(DRYNESS - MOISTURE_EFFECT * self.moisture)))


def step_of(time: np.datetime64 | datetime) -> int:
    """Number of six-hour steps since 1970.

    Raises:
        InputError: the time is not at 00, 06, 12 or 18 UTC, or too early.
    """
    stamp = np.asarray(time, "datetime64[s]")
    seconds = int(stamp.astype(np.int64))
    step, rest = divmod(seconds, STEP * 3600)
    if rest or step < BLOCK:
        raise InputError(f"{stamp}: the demo's weather is known at 00, 06, 12 and 18 UTC from 1971 on")
    return step


def time_of(step: int) -> np.datetime64:
    """Time of a step, to the hour."""
    return np.datetime64(STEP * step, "h")


class RegimeSeries:
    """The regime at any time.

    Args:
        seed: of the demo.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        # one block per season is in use at a time; with what runs up to it, two
        self._block = lru_cache(maxsize=4)(self._make_block)

    def __getitem__(self, step: int) -> Regime:
        block, place = divmod(step, BLOCK)
        u, v, wetness, moisture = (float(x) for x in self._block(block)[place])
        return Regime(u, v, wetness, moisture)

    def _make_block(self, block: int) -> np.ndarray:
        first = block * BLOCK
        memory = np.exp(-STEP / MEMORY)
        size = np.sqrt(1 - memory**2)
        state = np.zeros(4)
        states = np.empty((BLOCK, 4))
        for step in range(first - RUN_UP, first + BLOCK):
            noise = make_rng(self._seed, Stream.REGIME, step).standard_normal(4)
            state = noise if step == first - RUN_UP else memory * state + size * noise
            if step >= first:
                states[step - first] = state
        spread = np.array([WIND_SPREAD, WIND_SPREAD, WETNESS_SPREAD, 1.0])
        return np.array([*MEAN_WIND, 0.0, 0.0]) + spread * states
