"""Zarr stores (v2 or v3) whose arrays are known by name and by the order of their dimensions."""

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from ai4sim.errors import InputError, MissingFileError
from downscaling.corrdiff.readers.base import Field
from downscaling.corrdiff.readers.files import is_url, listed, runs
from downscaling.corrdiff.readers.times import Times, decode_times

logger = logging.getLogger(__name__)

Window = tuple[slice, slice]


class ZarrStore:
    """A store that is read with zarr itself: xarray would take zeros for missing where they are the fill value.

    Args:
        path: folder, or URL.
        what: it holds, for messages.
    """

    def __init__(self, path: Path | str, what: str) -> None:
        self.path, self.what = str(path), what

    @cached_property
    def _group(self) -> Any:
        if not is_url(self.path) and not Path(self.path).is_dir():
            raise MissingFileError(f"{self.path} ({self.what}) is not there; expected a Zarr store")
        try:
            return zarr.open_consolidated(self.path, mode="r")
        except (ValueError, KeyError, FileNotFoundError):
            pass
        try:
            group = zarr.open_group(self.path, mode="r")
        except (ValueError, KeyError, OSError) as error:
            raise InputError(f"{self.path} ({self.what}) is no Zarr store that can be read: {error}") from error
        logger.warning("%s has no consolidated metadata: every array is looked up by itself", self.path)
        return group

    @property
    def names(self) -> list[str]:
        """Names of the arrays."""
        return sorted(self._group.array_keys())

    def array(self, name: str, dims: Sequence[str]) -> Any:
        """An array.

        Args:
            name: of the array.
            dims: what its dimensions are, in order; for messages, only their number must agree.

        Raises:
            InputError: there is none, or it has another number of dimensions.
        """
        if name not in self.names:
            raise InputError(f"{self.path} ({self.what}) has no array {name!r}; it has {listed(self.names)}")
        found = self._group[name]
        if found.ndim != len(dims):
            raise InputError(f"{self.path}: {name!r} has shape {found.shape}, expected ({', '.join(dims)})")
        return found

    def values(self, name: str, dims: Sequence[str]) -> NDArray[Any]:
        """All values of an array."""
        return np.asarray(self.array(name, dims)[...])

    def texts(self, name: str, dim: str) -> list[str]:
        """Values of an array of texts."""
        values = self.values(name, (dim,)).tolist()
        return [value.decode() if isinstance(value, bytes) else str(value) for value in values]

    def times(self, name: str, dim: str) -> Times:
        """Dates, stored as such or as numbers with CF units."""
        array = self.array(name, (dim,))
        return decode_times(np.asarray(array[...]), dict(array.attrs), f"{self.path}: {name!r}")

    def read(self, name: str, rows: NDArray[np.integer], channels: Sequence[int], window: Window) -> Field:
        """Fields (n, channel, y, x) of an array (time, channel, y, x); NaN where a value is missing.

        Args:
            name: of the array.
            rows: (n,) numbers of times, in any order.
            channels: numbers of channels, in the order wanted.
            window: rows and columns of the fields.

        Raises:
            InputError: a chunk cannot be read.
        """
        array = self.array(name, ("time", "channel", "y", "x"))
        first, last = min(channels), max(channels) + 1
        place = [channel - first for channel in channels]
        try:
            parts = [np.asarray(array[run, first:last, *window], np.float32)[:, place] for run in runs(rows)]
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"{self.path}: {name!r} cannot be read, it may be truncated: {error}") from error
        fields = np.concatenate(parts)
        for missing in _missing_values(array):
            fields[fields == missing] = np.nan
        return fields


def _missing_values(array: Any) -> list[np.float32]:
    """What stands for a missing value; 0 as a fill value is what zarr has where nobody chose one."""
    named = [array.attrs[name] for name in ("_FillValue", "missing_value") if name in array.attrs]
    if array.fill_value is not None and array.fill_value != 0:
        named.append(array.fill_value)
    return [np.float32(value) for value in named if isinstance(value, int | float | np.number)]
