"""Which patches a training sees: anywhere in the domain, dry ones too, chosen by the forecast alone.

Where patches were chosen for their rain, networks learnt that it is never quite dry. Here patches fall into strata by
their largest forecast amount, each of which has its share of an epoch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ai4sim.errors import InputError
from ai4sim.sampling import BlockBatchSampler
from precip_postproc.resunet_qpf.prepare import PEAK

LARGEST_WEIGHT = 10.0
CANDIDATES = 12
"""Places that are looked at for each patch that is drawn."""


class Draw(NamedTuple):
    """Patches of a batch.

    Attributes:
        rows: (B,) rows of the store.
        corners: (B, 2) first row and column of each patch.
        weights: (B,) of their losses.
    """

    rows: NDArray[np.int64]
    corners: NDArray[np.int64]
    weights: NDArray[np.float32]


@dataclass(frozen=True)
class Strata:
    """Classes of patches by the largest amount of the forecast in them, and their shares of a training.

    Args:
        edges: mm, between the strata.
        shares: one more than there are edges; they sum to 1.
        reweight: weight losses with the inverse of the chance to be drawn, at most 10: the training then minimises an
            estimate of the loss over the domain.
    """

    edges: list[float] = field(default_factory=lambda: [0.1, 2.5, 10.0])
    shares: list[float] = field(default_factory=lambda: [0.3, 0.4, 0.2, 0.1])
    reweight: bool = False

    def __post_init__(self) -> None:
        if len(self.shares) != len(self.edges) + 1 or min(self.shares) < 0 or abs(sum(self.shares) - 1) > 1e-6:
            raise InputError(
                f"data.strata: {len(self.edges)} edges need {len(self.edges) + 1} shares that sum to 1, not "
                f"{self.shares}"
            )
        if sorted(set(self.edges)) != list(self.edges):
            raise InputError(f"data.strata.edges must increase, not {self.edges}")

    def of(self, peak: NDArray[np.float32]) -> NDArray[np.int64]:
        """The stratum of patches with these largest amounts."""
        strata: NDArray[np.int64] = np.searchsorted(np.asarray(self.edges, np.float32), peak, side="right")
        return strata


class PatchSampler:
    """Batches of patches, drawn anew each epoch; lead times take turns, so that all have the same number.

    Corners are drawn from a range that is larger than the domain and moved into it: else its outermost points would be
    in hardly any patch; so those of an edge are in about a quarter as many patches as those in the middle.

    Args:
        rows: (case,) rows of the store to draw from.
        leads: (case,) their lead times, h.
        peaks: (case, blocks, blocks) largest amounts of blocks of 8 x 8 points.
        shape: of the domain.
        patch: rows and columns of a patch.
        n_patches: patches per epoch, of all ranks together.
        batch_size: patches per batch and rank.
        strata: shares by largest amount.
        seed: the draws follow from seed and epoch alone.
        rank: this process's number.
        world_size: number of processes.

    Raises:
        InputError: no cases, a patch larger than the domain, or fewer patches than one batch.
    """

    def __init__(
        self,
        rows: NDArray[np.int64],
        leads: NDArray[np.int64],
        peaks: NDArray[np.float32],
        shape: tuple[int, int],
        *,
        patch: tuple[int, int],
        n_patches: int,
        batch_size: int,
        strata: Strata,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not len(rows):
            raise InputError("there is no training case to draw patches from")
        if any(side > size for side, size in zip(patch, shape, strict=True)):
            raise InputError(f"data.patch {patch[0]} x {patch[1]} is larger than the domain {shape[0]} x {shape[1]}")
        self._n_batches = n_patches // (batch_size * world_size)
        if batch_size < 1 or self._n_batches < 1:
            raise InputError(
                f"data.patches_per_epoch {n_patches} is less than one batch of {batch_size} on each of {world_size} "
                "processes"
            )
        self._rows, self._shape, self._patch = rows, shape, patch
        self._peaks = peaks
        self._by_lead = [np.flatnonzero(leads == lead) for lead in np.unique(leads)]
        self._batch_size, self._strata = batch_size, strata
        self._seed, self._rank, self._world_size = seed, rank, world_size
        self.epoch = 0

    @property
    def sampler(self) -> Self:
        """Itself: Lightning calls ``loader.batch_sampler.sampler.set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the draws of this epoch; they are the same in every run with this seed."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._n_batches

    def __iter__(self) -> Iterator[Draw]:
        whole = self.draw(self._n_batches * self._batch_size * self._world_size)
        for batch in range(self._n_batches):
            first = (batch * self._world_size + self._rank) * self._batch_size
            part = slice(first, first + self._batch_size)
            yield Draw(whole.rows[part], whole.corners[part], whole.weights[part])

    def draw(self, number: int) -> Draw:
        """Patches of an epoch.

        Args:
            number: of patches.
        """
        rng = np.random.default_rng([self._seed, self.epoch])
        n_candidates = CANDIDATES * number
        turns = np.arange(n_candidates) % len(self._by_lead)
        cases = np.empty(n_candidates, np.int64)
        for turn, members in enumerate(self._by_lead):
            mine = turns == turn
            cases[mine] = members[rng.integers(0, len(members), int(mine.sum()))]
        corners = np.stack([self._draw_corners(rng, n_candidates, axis) for axis in (0, 1)], axis=1)
        strata = self._strata.of(self._patch_peaks(cases, corners))
        chosen, weights = self._choose(rng, turns, strata, number)
        return Draw(self._rows[cases[chosen]], corners[chosen], weights)

    def _draw_corners(self, rng: np.random.Generator, number: int, axis: int) -> NDArray[np.int64]:
        side, last = self._patch[axis], self._shape[axis] - self._patch[axis]
        beyond = min(side // 4, last)
        corners: NDArray[np.int64] = np.clip(rng.integers(-beyond, last + beyond + 1, number), 0, last)
        return corners

    def _patch_peaks(self, cases: NDArray[np.int64], corners: NDArray[np.int64]) -> NDArray[np.float32]:
        """Largest amounts of all blocks that the patches touch."""
        first, last = corners // PEAK, (corners + self._patch - 1) // PEAK
        rows, columns = (
            np.minimum(first[:, axis, None] + np.arange((side - 2) // PEAK + 2), last[:, axis, None])
            for axis, side in enumerate(self._patch)
        )
        highest = np.empty(len(cases), np.float32)
        for start in range(0, len(cases), 4096):
            part = slice(start, start + 4096)
            blocks = self._peaks[cases[part, None, None], rows[part, :, None], columns[part, None, :]]
            highest[part] = blocks.max(axis=(1, 2))
        return highest

    def _choose(
        self, rng: np.random.Generator, turns: NDArray[np.int64], strata: NDArray[np.int64], number: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Places among the candidates that are drawn, in random order, and the weights of their losses."""
        n_strata, n_turns = len(self._strata.shares), len(self._by_lead)
        chosen, weights = [], []
        for turn in range(n_turns):
            wanted = number * (turn + 1) // n_turns - number * turn // n_turns
            members = [np.flatnonzero((turns == turn) & (strata == stratum)) for stratum in range(n_strata)]
            available = np.array([len(places) for places in members])
            quotas = fill_quotas(np.asarray(self._strata.shares) * wanted, available, wanted)
            for places, quota in zip(members, quotas, strict=True):
                if quota:
                    chosen.append(rng.permutation(places)[:quota])
                    natural, drawn = len(places) / available.sum(), quota / wanted
                    weights.append(np.full(quota, min(natural / drawn, LARGEST_WEIGHT)))
        order = rng.permutation(number)
        scale = np.concatenate(weights)[order] if self._strata.reweight else np.ones(number)
        return np.concatenate(chosen)[order], scale.astype(np.float32)


class RowSampler:
    """Batches of rows of the store, in order, shared out over ranks.

    Args:
        rows: (case,) to be read, increasing.
        batch_size: rows per batch.
        rank: this process's number.
        world_size: number of processes.
    """

    def __init__(self, rows: NDArray[np.int64], batch_size: int, *, rank: int = 0, world_size: int = 1) -> None:
        self.rows = rows
        self.epoch = 0
        self._batches = BlockBatchSampler(len(rows), batch_size, block=batch_size, rank=rank, world_size=world_size)

    @property
    def sampler(self) -> Self:
        """Itself: Lightning calls ``loader.batch_sampler.sampler.set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Note the epoch; the order is always the same."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        for places in self._batches:
            yield self.rows[places]


def fill_quotas(wanted: NDArray[np.float64], available: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Whole numbers near the wanted ones, at most what is available, with a given total.

    What a stratum lacks, in a dry season say, the others share.

    Args:
        wanted: (stratum,) summing to the total.
        available: (stratum,) summing to at least the total.
        total: of the result.
    """
    quotas = np.minimum(np.floor(wanted).astype(np.int64), available)
    while (missing := total - int(quotas.sum())) > 0:
        room = available - quotas
        order = np.argsort(-(wanted - quotas) * (room > 0), kind="stable")
        open_strata: Sequence[int] = [int(stratum) for stratum in order if room[stratum] > 0]
        share = max(1, missing // len(open_strata))
        for stratum in open_strata:
            step = min(share, int(room[stratum]), total - int(quotas.sum()))
            quotas[stratum] += step
    return quotas
