"""Batches of windows with what is known of their target times."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ai4sim.errors import InputError
from ai4sim.manifest import PathLike
from ai4sim.windows import WindowDataset
from weather_forecast.lam.accessors.base import DataAccessor, GridInfo
from weather_forecast.lam.prepare import FieldSelection
from weather_forecast.lam.solar import time_encodings, toa_radiation

Batch = dict[str, torch.Tensor]


def time_forcing(times: NDArray[np.datetime64], grid: tuple[NDArray[Any], NDArray[Any]]) -> dict[str, torch.Tensor]:
    """Hour, season and sun of times (...,).

    Args:
        times: UTC.
        grid: latitude and longitude (lat, lon), degrees.

    Returns:
        ``clock`` (..., 4): sines and cosines of hour and season, in [0, 1]; ``toa_radiation`` (..., lat, lon) W m-2.
    """
    sun = np.stack([toa_radiation(time, *grid) for time in times.reshape(-1)])
    return {
        "clock": torch.from_numpy(time_encodings(times).astype(np.float32)),
        "toa_radiation": torch.from_numpy(sun.astype(np.float32).reshape(*times.shape, *sun.shape[1:])),
    }


def _seconds(times: NDArray[np.datetime64]) -> NDArray[np.int64]:
    return times.astype("datetime64[s]").astype(np.int64)


class LamWindows(WindowDataset):
    """Windows of a processed store: ``state``, ``forcing`` where there is a host, ``clock``, ``toa_radiation``.

    And ``time`` (B,), the initial time in seconds since 1970.

    Args:
        path: store or flat copy.
        variables: ``state``, or ``state`` and ``forcing``.
        windows: (window, step) rows.
        times: (row,) of the store.
        grid: latitude and longitude (lat, lon).
        n_inputs: steps of a window that are inputs.
        n_state: features of the state that a window must have at its initial time.
        **options: of :class:`~ai4sim.loading.BatchDataset`.
    """

    def __init__(
        self,
        path: PathLike,
        variables: Sequence[str],
        windows: NDArray[np.int64],
        *,
        times: NDArray[np.datetime64],
        grid: tuple[NDArray[Any], NDArray[Any]],
        n_inputs: int,
        **options: Any,
    ) -> None:
        super().__init__(path, variables, windows, **options)
        self.times, self.grid, self.n_inputs = times, grid, n_inputs

    def read(self, indices: Any, *, pin_memory: bool = False) -> Batch:
        """Read a batch of windows."""
        batch = super().read(indices, pin_memory=pin_memory)
        rows = self.windows[batch["index"].numpy()]
        initial = torch.from_numpy(_seconds(self.times[rows[:, self.n_inputs - 1]]))
        return {**batch, "time": initial, **time_forcing(self.times[rows[:, self.n_inputs :]], self.grid)}


class OperationalWindows(Dataset[Batch]):
    """One batch per initial time, straight from a raw data set whose future has, at most, the host's fields.

    Args:
        accessor: of the raw data.
        selection: parameters and crop, as in training.
        times: initial times.
        step: between states.
        n_inputs: number of input states.
        n_steps: number of steps to forecast.
        with_truth: whether the states at the target times must be there, too.

    Raises:
        InputError: a time or parameter that a forecast needs is missing; names it.
    """

    def __init__(
        self,
        accessor: DataAccessor,
        selection: FieldSelection,
        times: NDArray[np.datetime64],
        *,
        step: np.timedelta64,
        n_inputs: int,
        n_steps: int,
        with_truth: bool,
    ) -> None:
        self.accessor, self.selection, self.times = accessor, selection, times
        self.step, self.n_inputs, self.n_steps, self.with_truth = step, n_inputs, n_steps, with_truth
        whole = accessor.load_grid_info()
        self.part = selection.slices(whole)
        self.grid: GridInfo = whole.crop(*self.part)
        if accessor.records().sequences.any():
            raise InputError(f"{accessor.label} holds several forecasts or members: give one of them to predict from")
        self.records = {time: i for i, time in enumerate(accessor.records().times.astype("datetime64[s]").tolist())}
        for time in times:
            self._rows(time)

    def _rows(self, time: np.datetime64) -> list[int | None]:
        """Records of a window, None for target times of which nothing is needed."""
        rows: list[int | None] = []
        for k in range(-self.n_inputs + 1, self.n_steps + 1):
            moment = (time + k * self.step).astype("datetime64[s]")
            row = self.records.get(moment.item())
            names = [*(self.selection.state if k <= 0 or self.with_truth else ()), *self.selection.forcing]
            absent = [name for name in names if row is None or not self.accessor.exists(name, row)]
            if absent:
                raise InputError(
                    f"{self.accessor.label}: a forecast from {np.datetime_as_string(time, 'm')} needs {absent[0]} at "
                    f"{np.datetime_as_string(moment, 'm')}, which is not there"
                )
            rows.append(row)
        return rows

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, index: int) -> Batch:
        rows = self._rows(self.times[index])
        grid = self.grid
        state = np.full((len(rows), *grid.shape, len(self.selection.state)), np.nan, np.float32)
        forcing = np.full((len(rows), *grid.shape, len(self.selection.forcing)), np.nan, np.float32)
        for k, row in enumerate(rows):
            if row is None:
                continue
            if k < self.n_inputs or self.with_truth:
                state[k] = self.accessor.load(self.selection.state, row)[self.part]
            if self.selection.forcing:
                forcing[k] = self.accessor.load(self.selection.forcing, row)[self.part]
        targets = self.times[index] + np.arange(1, self.n_steps + 1) * self.step
        batch = {
            "state": torch.from_numpy(state)[None],
            "index": torch.tensor([index]),
            "time": torch.from_numpy(_seconds(self.times[[index]])),
            **time_forcing(targets[None], (grid.latitude, grid.longitude)),
        }
        if self.selection.forcing:
            batch["forcing"] = torch.from_numpy(forcing)[None]
        return batch
