"""Quantile mapping with the neighbourhood as an ensemble (Hamill and Scheuerer 2018, MWR 146, 4079-4098).

A forecast amount is mapped to the analysed amount that is exceeded as often. The mapping increases, so that the mapped
amount exceeds a threshold where the forecast exceeds the amount that is mapped to the threshold: these equivalents are
all that exceedance needs, and they need no inverse of a distribution that is half zeros.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf import config

Float = NDArray[np.float32]
Bool = NDArray[np.bool_]

# Bits of single-precision numbers order positive amounts; without the last 14 they are classes, 512 per factor of two.
_SHIFT: Final = 14
# The first edge is the least amount that can be an event: a forecast without any never becomes one.
_FIRST: Final = int(np.float32(2**-7).view(np.int32)) >> _SHIFT
_N_EDGES: Final = (int(np.float32(2**7).view(np.int32)) >> _SHIFT) - _FIRST + 1
# Analysed events in training, points times cases, below which a threshold's equivalent is extrapolated.
MIN_EVENTS: Final = 200


@dataclass
class QuantileCounts:
    """Counts forecast and analysed amounts, pooled over the domain, of points with an analysis.

    Args:
        thresholds: increasing, mm.
        leads: h.
    """

    thresholds: tuple[float, ...]
    leads: tuple[int, ...]
    _forecasts: NDArray[np.int64] = field(init=False)  # (lead, class), those below the first edge left out
    _events: NDArray[np.int64] = field(init=False)  # (lead, threshold)

    def __post_init__(self) -> None:
        self._forecasts = np.zeros((len(self.leads), _N_EDGES), np.int64)
        self._events = np.zeros((len(self.leads), len(self.thresholds)), np.int64)

    def add(self, lead: int, forecast: Float, observed: Float) -> None:
        """Count one case.

        Args:
            lead: h.
            forecast: (y, x) mm.
            observed: (y, x) mm, NaN where the case does not count.
        """
        row = self.leads.index(lead)
        amounts = forecast[np.isfinite(observed)].astype(np.float32)
        classes = (amounts.view(np.int32) >> _SHIFT) - _FIRST
        classes = np.minimum(classes[classes >= 0], _N_EDGES - 1)
        self._forecasts[row] += np.bincount(classes, minlength=_N_EDGES)
        self._events[row] += [np.count_nonzero(observed >= threshold - config.GUARD) for threshold in self.thresholds]

    def fit(self) -> "QuantileMapping":
        """The forecast amounts that are exceeded as often as the thresholds are in the analyses.

        The heavy tail: where a threshold has less than MIN_EVENTS events, its equivalent has the ratio to it of the
        highest threshold that has more; without one, the ratio is 1.
        """
        edges = ((np.arange(_N_EDGES) + _FIRST).astype(np.int32) << _SHIFT).view(np.float32)
        equivalents = np.empty(self._events.shape)
        for row, (counts, events) in enumerate(zip(self._forecasts, self._events, strict=True)):
            exceeding = counts[::-1].cumsum()[::-1]
            ratio = 1.0
            for column, (threshold, n) in enumerate(zip(self.thresholds, events, strict=True)):
                if n >= MIN_EVENTS:
                    distance = np.abs(exceeding - n)
                    # the middle of a gap between amounts, as far as possible from both
                    ratio = float(edges[int(np.flatnonzero(distance == distance.min()).mean())]) / threshold
                equivalents[row, column] = ratio * threshold
        return QuantileMapping(self.leads, equivalents, self._events.copy())


@dataclass(frozen=True)
class QuantileMapping:
    """What forecasts have to exceed.

    Attributes:
        leads: increasing, h.
        equivalents: (lead, threshold) mm.
        events: (lead, threshold) analysed events in training, points times cases.
    """

    leads: tuple[int, ...]
    equivalents: NDArray[np.float64]
    events: NDArray[np.int64]

    @property
    def extrapolated(self) -> Bool:
        """(lead, threshold) where there are too few events."""
        few: Bool = self.events < MIN_EVENTS
        return few

    def predict(self, forecast: Float, lead: int) -> Bool:
        """Where the mapped forecast (y, x) exceeds the thresholds, (threshold, y, x); linear between leads."""
        levels = np.array([np.interp(lead, self.leads, column) for column in self.equivalents.T])
        events: Bool = forecast >= levels[:, None, None].astype(np.float32)
        return events


def neighbourhood_fractions(events: Bool, windows: Sequence[int]) -> Float:
    """Share of events among the points of a square window that are inside the domain.

    Args:
        events: (..., y, x).
        windows: points per side, odd.

    Returns:
        (len(windows), ..., y, x), float32.

    Raises:
        InputError: a window is even or below 1.
    """
    wrong = [window for window in windows if window < 1 or window % 2 == 0]
    if wrong:
        raise InputError(f"a window has {wrong[0]} points per side; expected an odd number, as it is around a point")
    result = np.empty((len(windows), *events.shape), np.float32)
    ny, nx = events.shape[-2:]
    table = np.zeros((*events.shape[:-2], ny + 1, nx + 1), np.int32)
    np.cumsum(np.cumsum(events, axis=-1, dtype=np.int32), axis=-2, out=table[..., 1:, 1:])
    for own, window in zip(result, windows, strict=True):
        (south, north), (west, east) = (_bounds(n, window) for n in (ny, nx))
        strips = table[..., north, :] - table[..., south, :]
        size = (north - south)[:, None] * (east - west)
        np.divide(strips[..., east] - strips[..., west], size, out=own, casting="same_kind")
    return result


def _bounds(n: int, window: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First point of the window around each of n points, and the first one after it."""
    points = np.arange(n)
    return np.maximum(points - window // 2, 0), np.minimum(points + window // 2 + 1, n)
