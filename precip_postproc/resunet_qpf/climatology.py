"""How often amounts are exceeded at a place, at an hour of the day, in a season: from training analyses only.

Relative frequencies of single points are noisy, and a noisy climatology flatters whoever is compared with it (Hamill
and Juras 2006, QJRMS 132, 2905-2923, on what else does). How far frequencies are pooled, over neighbours, hours and
seasons, is therefore chosen for each threshold by cross-validation.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from precip_postproc.resunet_qpf import config
from precip_postproc.resunet_qpf.smoothing import gaussian_smooth

Float = NDArray[np.float32]
Counts = NDArray[np.uint16]
Key = tuple[int, int]  # season, hour

# The coarsest and the smoothest come first: they win a tie.
GROUPINGS: Final = ("all", "hour", "season", "season and hour")
SIGMAS: Final = (64.0, 32.0, 16.0, 8.0, 4.0, 2.0, 1.0)  # grid points
COARSER: Final = {"season and hour": "season", "season": "all", "hour": "all"}
MIN_TIMES: Final = 20  # below, a group is replaced by a coarser one
# Days next to each other are alike: by them, the noisiest climatology would look best.
FOLD_DAYS: Final = 5
# Cases at the frequency of the whole domain that are added everywhere, for places that no analysis is near to.
PRIOR_CASES: Final = 0.01


@dataclass(frozen=True)
class Climatology:
    """Climatological probabilities.

    Attributes:
        maps: (map, y, x) frequencies.
        index: (threshold, 4, 24) which map holds for a threshold in a season (December to February first) at an hour.
        sigmas: (threshold,) smoothing of the frequencies, grid points.
        groupings: for each threshold, which of GROUPINGS has been chosen.
    """

    maps: Float
    index: NDArray[np.int64]
    sigmas: NDArray[np.float64]
    groupings: tuple[str, ...]

    def predict(self, time: np.datetime64) -> Float:
        """Probabilities (threshold, y, x) at a valid time, not increasing along thresholds."""
        season, hour = _key(time)
        probabilities: Float = np.minimum.accumulate(self.maps[self.index[:, season, hour]], axis=0)
        return probabilities


@dataclass(frozen=True)
class _Group:
    """Sums over the analyses of one season and hour in each fold.

    Attributes:
        n: (2, y, x) valid analyses.
        events: (2, threshold, y, x) of them at or above the thresholds.
        times: analyses, valid or not.
    """

    n: Counts
    events: Counts
    times: list[int]


@dataclass
class ClimatologyCounts:
    """Counts analyses; memory is 4 (1 + thresholds) bytes per point for each season and hour that occurs.

    Args:
        thresholds: increasing, mm.
    """

    thresholds: tuple[float, ...]
    _groups: dict[Key, _Group] = field(default_factory=dict)
    _seen: set[int] = field(default_factory=set)

    def add(self, time: np.datetime64, observed: Float) -> None:
        """Count one analysis; a time that has been counted is passed over, so that leads do not matter.

        Args:
            time: valid time.
            observed: (y, x) mm, NaN where it does not count.
        """
        minute = int(time.astype("datetime64[m]").astype(int))
        if minute in self._seen:
            return
        self._seen.add(minute)
        key = _key(time)
        if key not in self._groups:
            shape = (len(self.thresholds), *observed.shape)
            self._groups[key] = _Group(
                np.zeros((2, *observed.shape), np.uint16), np.zeros((2, *shape), np.uint16), [0, 0]
            )
        group = self._groups[key]
        fold = int(time.astype("datetime64[D]").astype(int)) // FOLD_DAYS % 2
        group.times[fold] += 1
        group.n[fold] += np.isfinite(observed)
        for events, threshold in zip(group.events[fold], self.thresholds, strict=True):
            events += observed >= threshold - config.GUARD

    def fit(self) -> Climatology:
        """Choose grouping and smoothing of each threshold, then estimate from all analyses.

        The choice has the least Brier score where frequencies of one half of the days, every other five days, are
        forecasts for the other half, and the other way round.
        """
        scores = np.array([[self._cross_validate(grouping, sigma) for sigma in SIGMAS] for grouping in GROUPINGS])
        best = scores.reshape(-1, len(self.thresholds)).argmin(axis=0)
        maps: list[Float] = []
        index = np.empty((len(self.thresholds), 4, 24), np.int64)
        for row, choice in enumerate(best):
            grouping, sigma = GROUPINGS[choice // len(SIGMAS)], SIGMAS[choice % len(SIGMAS)]
            numbers: dict[tuple[Key, ...], int] = {}
            for season, hour in np.ndindex(4, 24):
                members = self._members((season, hour), grouping)
                if members not in numbers:
                    numbers[members] = len(maps)
                    n, events = self._sums(members, (0, 1))
                    maps.append(_frequencies(n, events[row : row + 1], sigma)[0])
                index[row, season, hour] = numbers[members]
        return Climatology(
            maps=np.stack(maps),
            index=index,
            sigmas=np.array([SIGMAS[choice % len(SIGMAS)] for choice in best]),
            groupings=tuple(GROUPINGS[choice // len(SIGMAS)] for choice in best),
        )

    def _members(self, key: Key, grouping: str) -> tuple[Key, ...]:
        """The groups that are pooled for a season and hour, which need not be among them."""
        members = tuple(
            (season, hour)
            for season, hour in self._groups
            if ("season" not in grouping or season == key[0]) and ("hour" not in grouping or hour == key[1])
        )
        if grouping != "all" and sum(sum(self._groups[member].times) for member in members) < MIN_TIMES:
            return self._members(key, COARSER[grouping])
        return members

    def _sums(self, members: tuple[Key, ...], folds: tuple[int, ...]) -> tuple[Float, Float]:
        """Number of cases (y, x) and of events (threshold, y, x)."""
        n = sum(self._groups[key].n[fold].astype(np.float32) for key in members for fold in folds)
        events = sum(self._groups[key].events[fold].astype(np.float32) for key in members for fold in folds)
        return np.asarray(n), np.asarray(events)

    def _cross_validate(self, grouping: str, sigma: float) -> NDArray[np.float64]:
        """Sum of the Brier score over all cases, (threshold,)."""
        judged: dict[tuple[Key, ...], list[Key]] = {}
        for key in self._groups:
            judged.setdefault(self._members(key, grouping), []).append(key)
        score = np.zeros(len(self.thresholds))
        for members, keys in judged.items():
            for fold in (0, 1):
                n, events = self._sums(members, (fold,))
                if not n.any():
                    continue
                p = _frequencies(n, events, sigma)
                n, events = self._sums(tuple(keys), (1 - fold,))
                score += np.einsum("tyx,tyx->t", p, n * p - 2 * events, dtype=np.float64) + events.sum(
                    axis=(-2, -1), dtype=np.float64
                )
        return score


def _key(time: np.datetime64) -> Key:
    """Season, 0 for December to February, and hour of the day."""
    hours = int(time.astype("datetime64[h]").astype(int))
    month = int(time.astype("datetime64[M]").astype(int)) % 12 + 1
    return month % 12 // 3, hours % 24


def _frequencies(n: Float, events: Float, sigma: float) -> Float:
    """Smoothed frequencies (threshold, y, x) of numbers of cases (y, x) and events (threshold, y, x)."""
    smooth = gaussian_smooth(np.concatenate([n[None], events]), [sigma])[0]
    overall = events.sum(axis=(-2, -1), keepdims=True, dtype=np.float64) / max(float(n.sum(dtype=np.float64)), 1.0)
    frequencies = (smooth[1:] + PRIOR_CASES * overall) / (smooth[0] + PRIOR_CASES)
    # where hardly anything is known, the rounding of the sums counts
    result: Float = np.clip(frequencies, 0, 1).astype(np.float32)
    return result
