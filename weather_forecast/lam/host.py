"""The host model of the demo: a coarse model that follows the truth's largest scales.

What ARPEGE is to AROME: it has half the resolution, its orography is smooth, and below the scales to which it is
nudged (spectral nudging; Waldron, Paegle and Horel 1996, MWR 124:529; von Storch et al. 2000, MWR 128:3664) its weather
is its own.
"""

from dataclasses import replace

import numpy as np

from weather_forecast.lam.solver import Array, Flow, QuasiGeostrophicFlow, Truncation

STEPS_OF_TRUTH = 2
NUDGED_WAVES = 4
# With 18 hours the error is 0.2 to 0.5 of the wind's variability in any stretch of 20 days.
NUDGING_TIME = 18 * 3600.0  # s


def smooth_orography(orography: Array, fine: Truncation, coarse: Truncation) -> Array:
    """Orography of a coarser grid: the waves that it resolves, without their troughs below the sea.

    Args:
        orography: (n, n) on the fine grid, m.
        fine: that grid.
        coarse: the other grid.

    Returns:
        (m, m) m.
    """
    return np.maximum(coarse.to_grid(coarse.from_other(fine.to_spectrum(orography), fine)), 0)


class HostModel:
    """A coarse flow beside the true one, started from what it resolves of the latter.

    Args:
        truth: the true flow.
        orography: (n, n) of the truth, m.
        nudged_waves: largest total wavenumber, in waves per domain, that is nudged to the truth.
        nudging_time: s.

    Attributes:
        flow: the coarse flow: half as many points per side, twice the time step.
        orography: (n, n) of the host, on the truth's grid, m.
    """

    def __init__(
        self,
        truth: QuasiGeostrophicFlow,
        orography: Array,
        *,
        nudged_waves: int = NUDGED_WAVES,
        nudging_time: float = NUDGING_TIME,
    ) -> None:
        given, fine = truth.parameters, truth.truncation
        parameters = replace(given, n=given.n // 2, time_step=STEPS_OF_TRUTH * given.time_step)
        coarse = Truncation(parameters)
        smooth = smooth_orography(orography, fine, coarse)
        self._truth = truth
        self.flow = QuasiGeostrophicFlow(parameters, smooth, coarse.from_other(truth.potential_vorticity, fine))
        self.orography: Array = fine.to_grid(fine.from_other(coarse.to_spectrum(smooth), coarse))
        relaxation = np.where(coarse.index2 <= nudged_waves**2, parameters.time_step / nudging_time, 0)
        self._relaxation: Array = relaxation.astype(coarse.dtype)

    def step(self) -> None:
        """Advance by one step, to the time at which the truth is now; to be called after two steps of it."""
        flow, truth = self.flow, self._truth
        flow.step()
        target = flow.truncation.from_other(truth.potential_vorticity, truth.truncation)
        flow.potential_vorticity += self._relaxation * (target - flow.potential_vorticity)

    def diagnose(self) -> Flow:
        """The host's flow, interpolated to the truth's grid."""
        return self.flow.diagnose(self._truth.truncation)
