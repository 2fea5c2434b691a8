"""Remapping of a fine grid of latitudes and longitudes to a coarser one: area mean, or nearest neighbour.

The mean of all valid cells whose centre lies in a cell keeps the amount of water; the nearest neighbour keeps the
sharpness of the radar and is what a single point would see.
"""

import hashlib
import logging
import zipfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ai4sim.atomic import atomic_path
from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.readers.grid import Cells, Grid, LatLonGrid

logger = logging.getLogger(__name__)

Method = Literal["mean", "nearest"]

VERSION = 1
CHUNK = 2**20
"""Source cells that are worked on at a time."""

MIN_VALID = 0.75
"""Share of a cell that must be valid."""

Field = NDArray[np.float32]


class Remapper:
    """Brings fields from one grid to another.

    Which source cell goes where is found once, and kept in a folder if one is given. Picklable: with a folder, a
    process to which it is sent reads the index from there.

    Args:
        source: fine grid.
        target: coarse grid.
        method: area mean, or nearest neighbour.
        min_valid: share of a target cell's source cells that must be valid for the mean to be. Those beyond the edge of
            the source grid count as invalid.
        cache: folder for the index.

    Raises:
        InputError: the method is not known, or the share is not between 0 and 1.
    """

    def __init__(
        self,
        source: LatLonGrid,
        target: Grid,
        *,
        method: Method = "mean",
        min_valid: float = MIN_VALID,
        cache: Path | str | None = None,
    ) -> None:
        if method not in get_args(Method):
            raise InputError(f"remapping {method!r} is not known; known are {', '.join(get_args(Method))}")
        if not 0 < min_valid <= 1:
            raise InputError(f"min_valid must be above 0 and at most 1, it is {min_valid:g}")
        self.source, self.target, self.method, self.min_valid = source, target, method, min_valid
        self.cache = None if cache is None else Path(cache)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(vars(self))
        if self.cache is not None:
            state.pop("_index", None)
        return state

    @property
    def cache_file(self) -> Path | None:
        """Where the index is kept; its name has a hash of both grids."""
        if self.cache is None:
            return None
        text = f"{VERSION} {self.method} {self.source.fingerprint} {self.target.fingerprint}"
        return self.cache / f"remap_{self.method}_{hashlib.sha256(text.encode()).hexdigest()[:16]}.npz"

    @cached_property
    def _index(self) -> tuple[Cells, Cells]:
        """Which cells belong together, by method.

        Mean: the target cell of each source cell (-1: none), and how many cells each target cell has, with those that
        the source grid would have if it went on. Nearest: the source cell of each target cell, and no counts.
        """
        file = self.cache_file
        if file is not None and (known := self._load(file)) is not None:
            return known
        cells, counts = self._find_means() if self.method == "mean" else self._find_nearest()
        if file is not None:
            try:
                with atomic_path(file) as partial, partial.open("wb") as stream:
                    np.savez(stream, cells=cells, counts=counts)
            except OSError as error:
                raise InputError(f"{file}: the remapping's index cannot be written: {error}") from error
        return cells, counts

    def _load(self, file: Path) -> tuple[Cells, Cells] | None:
        """A cached index; None where there is none, or a damaged one."""
        n_source, n_target = (int(np.prod(grid.shape)) for grid in (self.source, self.target))
        mean = self.method == "mean"
        try:
            # the archive's checksums are verified while it is read
            with np.load(file, allow_pickle=False) as stored:
                cells, counts = stored["cells"], stored["counts"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            logger.warning("%s is damaged and is made anew: %s", file, error)
            return None
        sizes = (n_source, n_target) if mean else (n_target, 0)
        limit = n_target if mean else n_source
        if (
            (cells.size, counts.size) != sizes
            or cells.dtype != np.int32
            or not -1 <= cells.min() <= cells.max() < limit
        ):
            logger.warning("%s is damaged and is made anew: it does not fit its grids", file)
            return None
        return cells, counts

    def _find_means(self) -> tuple[Cells, Cells]:
        rows, columns = self.source.shape
        n_target = int(np.prod(self.target.shape))
        cells = np.empty((rows, columns), np.int32)
        counts = np.zeros(n_target, np.int64)
        latitudes, longitudes = self.source.latitudes, self.source.longitudes
        # the source grid goes on by the size of a target cell, so that cells on its edge know what they lack
        extent = self.target.cell_extent
        above, left = (_beyond(axis, size) for axis, size in zip((latitudes, longitudes), extent, strict=True))
        left = min(left, max(0, int((360 - np.ptp(longitudes)) / _step(longitudes) - 1) // 2))
        wide, high = _extend(longitudes, left), _extend(latitudes, above)
        for part in _blocks(len(high), len(wide)):
            found = self.target.cell_of(*np.meshgrid(high[part], wide, indexing="ij"))
            # no point lies beyond a pole
            found[np.abs(high[part]) > 90] = -1
            _add_up(found.ravel(), None, counts)
            first, last = np.clip([part.start - above, part.stop - above], 0, rows)
            shift = above - part.start
            cells[first:last] = found[first + shift : last + shift, left : left + columns]
        return cells.ravel(), counts.astype(np.int32)

    def _find_nearest(self) -> tuple[Cells, Cells]:
        return self.source.cell_of(self.target.latitude, self.target.longitude).ravel(), np.empty(0, np.int32)

    def __call__(self, values: Field) -> Field:
        """Remap a field.

        Args:
            values: (y, x) on the source grid; NaN where invalid.

        Returns:
            (y, x) on the target grid; NaN where too little of a cell is valid, or none of it is on the source grid.

        Raises:
            InputError: the field is not on the source grid.
        """
        return self.with_coverage(values)[0]

    def with_coverage(self, values: Field) -> tuple[Field, Field]:
        """Remap a field, and tell which share (y, x) of each target cell is valid.

        Raises:
            InputError: the field is not on the source grid.
        """
        if values.shape != self.source.shape:
            raise InputError(f"the field to remap has shape {values.shape}, its grid has {self.source.shape}")
        cells, counts = self._index
        if self.method == "nearest":
            inside = cells >= 0
            taken = np.where(inside, values.ravel()[cells], np.float32(np.nan)).astype(np.float32)
            return taken.reshape(self.target.shape), np.isfinite(taken).astype(np.float32).reshape(self.target.shape)
        total = np.zeros(counts.size)
        valid = np.zeros(counts.size, np.int64)
        flat = values.reshape(-1)
        for start in range(0, flat.size, CHUNK):
            part = slice(start, start + CHUNK)
            piece, where = flat[part], cells[part]
            good = (where >= 0) & np.isfinite(piece)
            _add_up(where[good], None, valid)
            _add_up(where[good], piece[good], total)
        with np.errstate(invalid="ignore", divide="ignore"):
            coverage = np.where(counts > 0, valid / counts, 0)
            mean = np.where(coverage >= self.min_valid - 1e-9, total / valid, np.nan)
        shape = self.target.shape
        return mean.astype(np.float32).reshape(shape), coverage.astype(np.float32).reshape(shape)


def _add_up(cells: Cells, weights: Field | None, sums: NDArray[Any]) -> None:
    """Add weights (or 1) to the sums of cells; only the range of cells that occur is touched."""
    if weights is None:
        cells = cells[cells >= 0]
    if cells.size:
        low, high = int(cells.min()), int(cells.max())
        sums[low : high + 1] += np.bincount(cells - low, weights, minlength=high + 1 - low)


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    size = max(1, CHUNK // columns)
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def _step(axis: NDArray[np.float64]) -> float:
    return float(np.diff(axis).mean())


def _beyond(axis: NDArray[np.float64], size: float) -> int:
    """How many points more an axis needs to reach `size` degrees further."""
    return int(np.ceil(size / _step(axis)))


def _extend(axis: NDArray[np.float64], number: int) -> NDArray[np.float64]:
    more = _step(axis) * np.arange(1, number + 1)
    return np.concatenate([axis[0] - more[::-1], axis, axis[-1] + more])
