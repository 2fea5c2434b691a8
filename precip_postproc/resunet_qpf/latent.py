"""The evolution of the true weather's latent fields: carried by the wind, renewed by noise."""

from collections import OrderedDict
from typing import NamedTuple

import numpy as np

from precip_postproc.resunet_qpf.periodic import PeriodicGrid
from precip_postproc.resunet_qpf.random_fields import MaternField, Stream, WaveAmplitudes, blend, make_rng
from precip_postproc.resunet_qpf.regime import BLOCK, STEP, RegimeSeries

LARGE_SCALE = (100.0, 1.5)  # km and smoothness of the stratiform field
SMALL_SCALE = (14.0, 1.0)  # of the convective one
LARGE_CORRELATION = 0.80  # after one step
SMALL_CORRELATION = 0.10
STEERING = 0.7  # speed of the fields relative to the wind
KM_PER_STEP = STEP * 3.6  # per m/s
# 0.8 to the power of 80 is 2e-8, the resolution of float32
RUN_UP = 80


class LatentState(NamedTuple):
    """Spectra (n, n/2 + 1) of two independent fields of zero mean and unit variance.

    Attributes:
        large: stratiform scale.
        small: convective scale.
    """

    large: WaveAmplitudes
    small: WaveAmplitudes


class LatentFields:
    """The true latent fields at any time; cheap if times are asked for in order.

    Args:
        grid: periodic.
        seed: of the demo.
        regimes: the wind that carries the fields.
        kept: how many of the latest states are kept.
    """

    def __init__(self, grid: PeriodicGrid, seed: int, regimes: RegimeSeries, kept: int = 12) -> None:
        self.grid = grid
        self._seed = seed
        self._regimes = regimes
        self._large, self._small = MaternField(grid, *LARGE_SCALE), MaternField(grid, *SMALL_SCALE)
        self._kept = kept
        self._states: OrderedDict[int, LatentState] = OrderedDict()
        self._last: tuple[int, LatentState] | None = None

    def draw(self, rng: np.random.Generator) -> LatentState:
        """Independent fields with the same spectra."""
        return LatentState(self._large.draw(rng), self._small.draw(rng))

    def __getitem__(self, step: int) -> LatentState:
        if step in self._states:
            return self._states[step]
        first = step - step % BLOCK
        if self._last is None or not first <= self._last[0] < step:
            start = first - RUN_UP
            self._last = start, self._noise(start)
        reached, state = self._last
        for now in range(reached + 1, step + 1):
            state = self._advance(state, now)
            if now >= first:
                self._keep(now, state)
        self._last = step, state
        return state

    def _noise(self, step: int) -> LatentState:
        return self.draw(make_rng(self._seed, Stream.LATENT, step))

    def _keep(self, step: int, state: LatentState) -> None:
        self._states[step] = state
        if len(self._states) > self._kept:
            self._states.popitem(last=False)

    def _advance(self, state: LatentState, step: int) -> LatentState:
        regime, noise = self._regimes[step], self._noise(step)
        carry = self.grid.phase(STEERING * KM_PER_STEP * regime.u, STEERING * KM_PER_STEP * regime.v)
        return LatentState(
            blend(carry * state.large, noise.large, LARGE_CORRELATION),
            blend(carry * state.small, noise.small, SMALL_CORRELATION),
        )
