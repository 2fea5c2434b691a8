"""Any probability, quantile or score of hourly amounts, from the exceedance of class edges.

One curve answers everything. The survival S(y) = P(Y > y) is linear between edges and decays exponentially beyond the
last one, ``S_K exp(-(y - e_K)/beta)`` with ``beta = (e_K - e_{K-1})/ln(S_{K-1}/S_K)`` within [1, 50] mm; amounts above
200 mm are set to 200 mm. Below the first edge the survival is that of the first edge: whatever the first class holds is
no precipitation, because analyses report no amount between 0 and the first edge. For analyses which do, a share of the
first class, ``trace``, is spread evenly between 0 and the first edge.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.classes import LARGEST, check_edges, usable
from precip_postproc.resunet_qpf.config import GUARD

Array = NDArray[np.floating[Any]]

SHORTEST_TAIL: Final = 1.0  # mm
LONGEST_TAIL: Final = 50.0  # mm


class Distribution:
    """Predictive distributions of the hourly amount Y.

    All results are in double precision, and NaN where the exceedance is. They are computed bin by bin, so that no
    array larger than the result is made.

    Args:
        exceedance: (K, ...) P(Y >= edge), within [0, 1] and not increasing along the edges; it is not copied.
        edges: K amounts, mm, strictly increasing.
        trace: share of the first class that is spread evenly between 0 and the first edge; the rest is 0.

    Raises:
        InputError: edges of which no classes can be made, or a trace outside [0, 1].
        ValueError: not as many exceedances as edges.
    """

    def __init__(self, exceedance: Array, edges: Sequence[float] | Array, trace: float = 0.0) -> None:
        self.edges = check_edges(edges)
        if len(exceedance) != len(self.edges):
            raise ValueError(f"{len(exceedance)} exceedances for {len(self.edges)} edges")
        if not 0 <= trace <= 1:
            raise InputError(f"trace must be within [0, 1], not {trace:g}")
        self.exceedance, self.trace = exceedance, trace
        self._knots = (0.0, *self.edges)

    def _at(self, index: int) -> Array:
        """Survival (...) at edge ``index``, counted from 1, or just above 0 (index 0)."""
        survival: Array = self.exceedance[max(index, 1) - 1].astype(np.float64)
        return survival if index else survival + self.trace * (1 - survival)

    def _decay(self) -> Array:
        """Beta (...) of the tail, mm."""
        last = self._at(len(self.edges))
        before = self._at(len(self.edges) - 1) if len(self.edges) > 1 else np.ones_like(last)
        with np.errstate(divide="ignore", invalid="ignore"):
            beta = (self._knots[-1] - self._knots[-2]) / np.log(before / last)
        # equal but for rounding: no decay (where both are 0, there is no tail either)
        return np.clip(np.where(before <= last, LONGEST_TAIL, beta), SHORTEST_TAIL, LONGEST_TAIL)

    def _survival(self, y: Array, log: bool = False) -> Array:
        """S(y) at 0 < y < 200, or just above 0 and just below 200; the shapes of y and the field broadcast."""
        n = len(self.edges)
        segments = np.clip(np.searchsorted(self._knots, y, side="right") - 1, 0, n)
        result = np.array(np.nan)
        for index in range(segments.min(), segments.max() + 1):
            lower = self._at(index)
            if index == n:
                value = lower * np.exp(-np.maximum(y - self.edges[-1], 0) / self._decay())
            else:
                a, b = self._knots[index : index + 2]
                upper, part = self._at(index + 1), (np.clip(y, a, b) - a) / (b - a)
                value = lower + (upper - lower) * part
                if log:
                    positive = upper > 0
                    ratio = np.divide(upper, lower, out=np.ones_like(upper), where=positive)
                    value = np.where(positive, lower * ratio**part, value)
            # the first value of all is NaN where y is
            result = value if index == segments.min() else np.where(y >= self._knots[index], value, result)
        return result

    def probability(self, threshold: ArrayLike, log: bool = False) -> Array:
        """P(Y >= threshold).

        Args:
            threshold: mm, a number or an array that broadcasts with the field.
            log: between edges where this is possible, let the survival's logarithm be linear, not the survival itself.
                Other results do not know of this curve.

        Returns:
            Of the broadcast shape; at an edge what was given there.
        """
        y = np.asarray(threshold, float)
        survival = self._survival(y, log)
        return np.where(y <= 0, _like(survival, 1), np.where(y > LARGEST, _like(survival, 0), survival))

    def cdf(self, amount: ArrayLike) -> Array:
        """P(Y <= amount).

        Args:
            amount: mm, a number or an array that broadcasts with the field.

        Returns:
            Of the broadcast shape. Where it increases, it is the inverse of :meth:`quantile`.
        """
        y = np.asarray(amount, float)
        below = 1 - self._survival(y)
        return np.where(y < 0, _like(below, 0), np.where(y >= LARGEST, _like(below, 1), below))

    def quantile(self, level: ArrayLike) -> Array:
        """Least amount which is not exceeded with at least some probability, mm; 0 if no precipitation is as probable.

        Args:
            level: the probability, a number or an array that broadcasts with the field.

        Returns:
            Of the broadcast shape.
        """
        tau = np.asarray(level, float)
        result = np.zeros(np.broadcast_shapes(tau.shape, self.exceedance.shape[1:]))
        lower = self._at(0)
        for index, (a, b) in enumerate(zip(self._knots[:-1], self._knots[1:], strict=True), 1):
            upper = self._at(index)
            with np.errstate(divide="ignore", invalid="ignore"):
                # flat bins are passed by: what they divide by 0 is replaced in the next
                part = np.minimum((lower - (1 - tau)) / (lower - upper), 1)
            # in terms of the level: its complement is rounded, which would count at the jump
            result = np.where(1 - lower < tau, a + (b - a) * part, result)
            lower = upper
        with np.errstate(divide="ignore", invalid="ignore"):
            beyond = np.minimum(self.edges[-1] + self._decay() * np.log(lower / (1 - tau)), LARGEST)
        result = np.where(1 - lower < tau, beyond, result)
        return np.where(np.isnan(lower), np.nan, result)

    def mean(self) -> Array:
        """E(Y) (...), mm: the integral of the survival."""
        total, lower = np.zeros(self.exceedance.shape[1:]), self._at(0)
        for index, width in enumerate(np.diff(self._knots), 1):
            upper = self._at(index)
            total += width / 2 * (lower + upper)
            lower = upper
        beta = self._decay()
        result: Array = total - lower * beta * np.expm1((self.edges[-1] - LARGEST) / beta)
        return result

    def crps(self, observed: ArrayLike) -> Array:
        """Continuous ranked probability score, mm: integral of (F(y) - [y >= observed])², exact for this curve.

        Args:
            observed: mm, broadcasts with the field; the score is NaN where it is no amount (NaN, negative, above 200).
        """
        y = np.asarray(observed, float)
        y = np.where(usable(y), y, np.nan)
        # as F² - S² = 1 - 2 S: y + integral of S² over all - 2 integral of S up to y
        lower = self._at(0)
        total = y + _like(lower, 0)
        for index, (a, b) in enumerate(zip(self._knots[:-1], self._knots[1:], strict=True), 1):
            upper, width = self._at(index), b - a
            reached = np.clip(y - a, 0, width)
            total += width / 3 * (lower * (lower + upper) + upper * upper)
            total -= reached * (2 * lower + (upper - lower) / width * reached)
            lower = upper
        beta, length = self._decay(), LARGEST - self.edges[-1]
        reached = np.maximum(y - self.edges[-1], 0)
        total -= lower**2 * beta / 2 * np.expm1(-2 * length / beta)
        result: Array = total + 2 * lower * beta * np.expm1(-reached / beta)
        return result

    def pit(self, observed: ArrayLike, rng: np.random.Generator) -> Array:
        """Randomised probability integral transform: uniform on [0, 1] if the distributions are right.

        Drawn evenly from between P(Y < observed) and P(Y <= observed) (Czado et al. 2009, Biometrics 65, 1254-1261).
        Unless there is a ``trace``, amounts below the first edge count as 0.

        Args:
            observed: mm, broadcasts with the field; the result is NaN where it is no amount.
            rng: draws.
        """
        y = np.asarray(observed, float)
        y = np.where(usable(y), y, np.nan)
        if not self.trace:
            y = np.where(y < self.edges[0] - GUARD, 0, y)
        below, up_to = 1 - self.probability(y), self.cdf(y)
        result: Array = below + rng.random(below.shape) * (up_to - below)
        return result


def _like(field: Array, value: float) -> Array:
    """A field of one value, but NaN where another is."""
    return np.where(np.isnan(field), np.nan, value)
