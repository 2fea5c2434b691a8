"""Calibration: forecasts of a probability become how often the event followed such forecasts in validation.

One non-decreasing curve per threshold and lead time, by isotonic regression on bins of the forecast (Zadrozny and Elkan
2002, KDD). It never makes the validation days worse, but may well do so on others where events are few, or of few days.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ai4sim.errors import InputError
from ai4sim.verification.probabilistic import isotonic

Float = NDArray[np.float32]

# fine near 0, where most forecasts are
BINS = np.concatenate([[0.0, 0.0002, 0.0005, 0.001, 0.002, 0.005], np.arange(1, 101) / 100])

LEAST_EVENTS = 30
"""Points of validation with the event below which a curve is not made: forecasts stay as they are."""

LEAST_CASES = 10
"""Forecasts of validation with the event anywhere below which a curve is not made: one storm over thirty points is one
event, and a curve of it says what the forecast made of that storm."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Curves of all lead times and edges.

    Args:
        leads: h, increasing.
        forecast: (lead, edge, bin) mean forecasts of the bins, not decreasing.
        observed: (lead, edge, bin) what to forecast instead.
    """

    leads: Sequence[int]
    forecast: NDArray[np.float64]
    observed: NDArray[np.float64]

    @classmethod
    def fit(cls, leads: Sequence[int], sums: NDArray[np.float64], cases: NDArray[np.float64]) -> "Calibration":
        """Curves of sums over validation; forecasts stay as they are where events are too few, or of too few forecasts.

        Args:
            leads: h, increasing.
            sums: (lead, edge, bin, 3) number of points, sum of forecasts, number of points with the event.
            cases: (lead, edge) number of forecasts, each a whole field, with the event at any point.
        """
        n, forecast, events = np.moveaxis(sums, -1, 0)
        middle = np.divide(forecast, n, out=np.full(n.shape, np.nan), where=n > 0)
        shape = (*n.shape[:2], n.shape[2] + 1)
        x, y = np.empty(shape), np.empty(shape)
        for place in np.ndindex(shape[:2]):
            filled = n[place] > 0
            if events[place].sum() < LEAST_EVENTS or cases[place] < LEAST_CASES:
                x[place] = y[place] = np.linspace(0, 1, shape[2])
                continue
            fitted = isotonic(events[place][filled] / n[place][filled], n[place][filled])
            # as many knots in every curve: the last one again and again
            places = np.minimum(np.arange(shape[2] - 1), filled.sum() - 1)
            # beyond all forecasts of the validation a curve goes on to certainty instead of staying flat
            x[place] = np.append(middle[place][filled][places], 1)
            y[place] = np.append(fitted[places], fitted[-1] if filled[-1] else 1)
        return cls(list(leads), x, y)

    def apply(self, exceedance: Float, lead: int) -> Float:
        """Calibrated exceedance (edge, ...) of one lead time; between two known lead times the nearer one's curves.

        Args:
            exceedance: (edge, ...) not increasing along the edges.
            lead: h.

        Raises:
            InputError: another number of edges.
        """
        if len(exceedance) != self.forecast.shape[1]:
            raise InputError(
                f"the calibration is of {self.forecast.shape[1]} edges, the forecast has {len(exceedance)}"
            )
        row = int(np.abs(np.asarray(self.leads) - lead).argmin())
        calibrated = np.empty_like(exceedance)
        for own, values, x, y in zip(calibrated, exceedance, self.forecast[row], self.observed[row], strict=True):
            own[...] = np.interp(values, x, y)
        # curves are fitted edge by edge
        return np.minimum.accumulate(calibrated, axis=0)
