"""Time windows over a store whose rows are times: which ones are whole, and reading them in batches."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ai4sim.errors import InputError
from ai4sim.loading import BatchDataset
from ai4sim.manifest import PathLike

Rows = npt.NDArray[np.int64]
Times = npt.NDArray[np.datetime64]


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of equidistant times.

    Attributes:
        rows: (window, step) rows of the store, in the order of time.
        times: (window,) initial times: those of the last input.
        dropped: how many initial times lack a time of their window.
        first_missing: the first time that is missing, None if none is.
    """

    rows: Rows
    times: Times
    dropped: int
    first_missing: np.datetime64 | None

    def __len__(self) -> int:
        return len(self.rows)


def find_windows(
    times: Times,
    *,
    step: np.timedelta64,
    n_inputs: int,
    n_targets: int,
    start: np.datetime64,
    end: np.datetime64,
    every: np.timedelta64 | None = None,
    hours: Collection[int] | None = None,
    sequences: npt.NDArray[np.int64] | None = None,
) -> Windows:
    """Find all windows whose times are all there.

    A window with initial time t0 has the times ``t0 + k step`` for k = -n_inputs+1 .. n_targets, all within the period
    and all of one sequence. Rows may be denser than ``step``, and have gaps: no window straddles one.

    Args:
        times: (row,) time of every row of the store; increasing within a sequence.
        step: between the times of a window.
        n_inputs: times up to and with the initial time.
        n_targets: times after it.
        start: first time that may be used.
        end: first time that may not.
        every: initial times are multiples of this after midnight; by default all that there are.
        hours: hours of the day (UTC) at which a window may begin its forecast; by default all.
        sequences: (row,) which forecast or member a row belongs to, when times repeat in the store.

    Raises:
        InputError: lengths or steps that are not positive, times that do not increase within a sequence.
    """
    if n_inputs < 1 or n_targets < 1:
        raise InputError(f"a window needs at least one input and one target, not {n_inputs} and {n_targets}")
    if step <= np.timedelta64(0, "s"):
        raise InputError(f"the step between times must be positive, not {step}")
    kind = "datetime64[s]"
    seconds = times.astype(kind).astype(np.int64)
    stride = int(step / np.timedelta64(1, "s"))
    members = np.zeros(len(times), np.int64) if sequences is None else np.asarray(sequences, np.int64)
    offsets = np.arange(-n_inputs + 1, n_targets + 1) * stride
    first, last = (np.datetime64(bound).astype(kind).astype(np.int64) for bound in (start, end))

    found: list[Rows] = []
    dropped, missing = 0, []
    for member in np.unique(members):
        rows = np.flatnonzero((members == member) & (seconds >= first) & (seconds < last))
        own = seconds[rows]
        if (np.diff(own) <= 0).any():
            place = int(np.argmax(np.diff(own) <= 0)) + 1
            raise InputError(f"times must increase, but {times[rows[place]]} does not come after the one before it")
        begins = own[_begins(own, every, hours)]
        # what would leave the period is no window; what is missing inside it is a gap
        earliest, latest = (own[0], own[-1]) if len(own) else (first, last)
        begins = begins[(begins + offsets[0] >= earliest) & (begins + offsets[-1] <= latest)]
        wanted = begins[:, None] + offsets
        places = np.searchsorted(own, wanted)
        there = own[np.minimum(places, len(own) - 1)] == wanted if len(own) else np.zeros(wanted.shape, bool)
        whole = there.all(axis=1)
        found.append(rows[places[whole]])
        dropped += int((~whole).sum())
        missing += wanted[~there].tolist()
    rows = np.concatenate(found) if found else np.empty((0, len(offsets)), np.int64)
    first_missing = np.datetime64(min(missing), "s") if missing else None
    return Windows(rows, times[rows[:, n_inputs - 1]], dropped, first_missing)


def _begins(seconds: Rows, every: np.timedelta64 | None, hours: Collection[int] | None) -> npt.NDArray[np.bool_]:
    """Which of the times may be initial times."""
    wanted = np.ones(len(seconds), bool)
    if every is not None:
        interval = int(every / np.timedelta64(1, "s"))
        if interval <= 0:
            raise InputError(f"the interval between initial times must be positive, not {every}")
        wanted &= seconds % 86_400 % interval == 0
    if hours is not None:
        wanted &= np.isin(seconds % 86_400 // 3600, list(hours)) & (seconds % 3600 == 0)
    return wanted


class WindowDataset(BatchDataset):
    """Windows of a store as dictionaries of tensors (batch, step, ...).

    Index ``i`` is window ``i``.

    Args:
        path: store or flat copy whose rows are times.
        variables: names of the variables.
        windows: (window, step) rows.
        **options: of :class:`~ai4sim.loading.BatchDataset`.
    """

    def __init__(self, path: PathLike, variables: Sequence[str], windows: Rows, **options: Any) -> None:
        super().__init__(path, variables, **options)
        self.windows = np.asarray(windows, np.int64)

    def __len__(self) -> int:
        return len(self.windows)

    def read(self, indices: Sequence[int] | Rows, *, pin_memory: bool = False) -> dict[str, torch.Tensor]:
        """Read a batch of windows.

        Args:
            indices: (batch,) numbers of windows.
            pin_memory: read into page-locked memory.

        Returns:
            One tensor (batch, step, ...) per variable, and ``index`` (batch,): the windows' numbers.
        """
        chosen = np.array(indices, np.int64)
        rows = self.windows[chosen]
        batch = super().read(rows.reshape(-1), pin_memory=pin_memory)
        result = {name: values.unflatten(0, rows.shape) for name, values in batch.items() if name != "index"}
        result["index"] = torch.from_numpy(chosen)
        return result
