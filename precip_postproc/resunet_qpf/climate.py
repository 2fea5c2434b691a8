"""How often which hourly amount occurred in the training data: what a network knows before it has learnt anything."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.classes import check_edges, classify, usable
from precip_postproc.resunet_qpf.config import GUARD

logger = logging.getLogger(__name__)

Array = NDArray[np.floating[Any]]

STEP: Final = 0.01  # mm
WET: Final = 0.25  # mm, the least amount that radar analyses report


@dataclass(frozen=True, eq=False)
class Climate:
    """Numbers of pixels by amount, pooled over the training data.

    Args:
        counts: (n,) int64; number i counts the amounts that round to i/100 mm. Those above 200 mm do not count.

    Raises:
        InputError: nothing was counted: every pixel of the training data is masked.
    """

    counts: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.counts.ndim != 1 or (self.counts < 0).any():
            raise ValueError(f"Climate: counts must be one-dimensional and not negative, shape {self.counts.shape}")
        if not self.total:
            raise InputError("climate: the training data hold no valid amount; see their quality and masks")

    @cached_property
    def amounts(self) -> Array:
        """(n,) mm."""
        return np.arange(self.counts.size) * STEP

    @cached_property
    def _valid(self) -> NDArray[np.int64]:
        return np.where(usable(self.amounts), self.counts, 0)

    @cached_property
    def total(self) -> int:
        """Number of valid pixels."""
        return int(self._valid.sum())

    def class_counts(self, edges: Sequence[float]) -> NDArray[np.int64]:
        """Number of pixels (K + 1,) in each of the classes between K edges, mm."""
        edges = check_edges(edges)
        classes = classify(self.amounts, edges)
        return np.array([self._valid[classes == c].sum() for c in range(len(edges) + 1)], np.int64)

    def class_frequencies(self, edges: Sequence[float]) -> Array:
        """Share (K + 1,) of the pixels in each of the classes between K edges, mm; sums to 1."""
        frequencies: Array = self.class_counts(edges) / self.total
        return frequencies

    def quantiles(self, levels: Sequence[float]) -> Array:
        """Least amounts, mm, that at least such shares of the pixels do not exceed; shape of ``levels``."""
        below = np.cumsum(self._valid)
        return self.amounts[np.searchsorted(below, np.asarray(levels) * self.total)]

    @cached_property
    def _wet(self) -> NDArray[np.int64]:
        return np.where(self.amounts >= WET - GUARD, self._valid, 0)

    @property
    def wet_share(self) -> float:
        """Share of the pixels with at least 0.25 mm."""
        return int(self._wet.sum()) / self.total

    @property
    def wet_mean(self) -> float:
        """Mean amount of pixels with at least 0.25 mm, mm; NaN if there are none."""
        number = self._wet.sum()
        return float((self.amounts * self._wet).sum() / number) if number else float("nan")

    @property
    def wet_variance(self) -> float:
        """Variance of the amounts of pixels with at least 0.25 mm, mm²; NaN if there are none."""
        number = self._wet.sum()
        return float(((self.amounts - self.wet_mean) ** 2 * self._wet).sum() / number) if number else float("nan")

    def warn_empty(self, edges: Sequence[float]) -> None:
        """Log a warning that names the classes without a pixel and the counts of all; they can be learnt, but badly."""
        counts = self.class_counts(edges)
        if counts.all():
            return
        bounds = [0.0, *edges, float("inf")]
        empty = [f"{bounds[c]:g}-{bounds[c + 1]:g} mm" for c in np.flatnonzero(counts == 0)]
        numbers = ", ".join(f"{lower:g}: {count}" for lower, count in zip(bounds, counts, strict=False))
        logger.warning(
            "no pixel of the training data is in %s: probabilities there stay near 0 (pixels by lower edge, mm: %s)",
            ", ".join(empty),
            numbers,
        )
