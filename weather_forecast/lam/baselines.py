"""What a forecaster has without a network: the last state, the climatology, the host's forecast."""

from typing import Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from rich.progress import track

from weather_forecast.lam.parameters import host_matches
from weather_forecast.lam.periods import Period

Float = NDArray[np.floating]


class Baseline(Protocol):
    """A forecast made of the processed data alone."""

    parameters: list[str]

    def __call__(self, rows: NDArray[np.int64], n_inputs: int) -> Float:
        """Forecasts (sample, lead, lat, lon, parameter) of windows.

        Args:
            rows: (sample, step) rows of the store.
            n_inputs: how many of the steps are inputs.
        """
        ...


def read_rows(variable: xr.DataArray, rows: NDArray[np.int64]) -> Float:
    """Rows (...) of a variable of the store, each read once: (..., lat, lon, feature)."""
    unique, inverse = np.unique(rows, return_inverse=True)
    values: Float = variable[unique].values[inverse.reshape(rows.shape)]
    return values


class Persistence:
    """The initial state at all lead times.

    Args:
        store: processed data.
    """

    def __init__(self, store: xr.Dataset) -> None:
        self._state = store["state"]
        self.parameters = list(self._state.attrs["features"])

    def __call__(self, rows: NDArray[np.int64], n_inputs: int) -> Float:
        """The last input."""
        last = read_rows(self._state, rows[:, n_inputs - 1])
        return np.broadcast_to(last[:, None], (len(rows), rows.shape[1] - n_inputs, *last.shape[1:]))


class Climatology:
    """Mean of the training period at every point, by hour of the day, and by month where it has two years or more.

    Args:
        store: processed data.
        train: training period.
    """

    def __init__(self, store: xr.Dataset, train: Period) -> None:
        state = store["state"]
        self.parameters = list(state.attrs["features"])
        self._times = store["time"].values.astype("datetime64[s]")
        rows = np.flatnonzero(train.contains(self._times))
        self._by_month = bool((self._times[rows[-1]] - self._times[rows[0]]) >= np.timedelta64(730, "D"))
        sums: dict[tuple[int, int], Float] = {}
        counts: dict[tuple[int, int], Float] = {}
        for row in track(rows, "climatology", transient=True):
            fields = state[row].values.astype(np.float64)
            key, there = self._key(row), np.isfinite(fields)
            sums[key] = sums.get(key, 0.0) + np.where(there, fields, 0)
            counts[key] = counts.get(key, 0.0) + there
        with np.errstate(invalid="ignore"):
            self._means = {key: sums[key] / counts[key] for key in sums}
        self._overall: Float = np.sum(list(sums.values()), axis=0) / np.sum(list(counts.values()), axis=0)

    def _key(self, row: np.int64) -> tuple[int, int]:
        time = self._times[row]
        hour = int((time - time.astype("datetime64[D]")) // np.timedelta64(1, "h"))
        month = int(time.astype("datetime64[M]").astype(int) % 12)
        return (month if self._by_month else 0, hour)

    def mean(self, rows: NDArray[np.int64]) -> Float:
        """Means (..., lat, lon, parameter) for the times of rows (...)."""
        found = [self._means.get(self._key(row), self._overall) for row in rows.reshape(-1)]
        return np.stack(found).reshape(*rows.shape, *self._overall.shape)

    def __call__(self, rows: NDArray[np.int64], n_inputs: int) -> Float:
        """The mean for hour and season of each target time."""
        return self.mean(rows[:, n_inputs:])


class Host:
    """The host's field of the same name and level, interpolated to the grid, at every target time.

    Args:
        store: processed data.
    """

    def __init__(self, store: xr.Dataset) -> None:
        self._forcing = store["forcing"]
        names = list(store["state"].attrs["features"])
        pairs = host_matches(names, self._forcing.attrs["features"])
        self.parameters = [names[own] for own, _ in pairs]
        self._columns = [theirs for _, theirs in pairs]

    def __call__(self, rows: NDArray[np.int64], n_inputs: int) -> Float:
        """The host's fields."""
        return read_rows(self._forcing, rows[:, n_inputs:])[..., self._columns]


def make_baselines(store: xr.Dataset, train: Period) -> dict[str, Baseline]:
    """All baselines that the data allow, by name."""
    found: dict[str, Baseline] = {"persistence": Persistence(store), "climatology": Climatology(store, train)}
    if "forcing" in store and Host(store).parameters:
        found["host"] = Host(store)
    return found
