"""Raw files to the processed store: checked, in (row, feature) order, with the training rows' statistics."""

import logging
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ai4sim.errors import InputError
from ai4sim.manifest import Manifest
from ai4sim.normalization import RunningStatistics
from ai4sim.schema import Schema, Variable
from ai4sim.splits import split_by_files
from ai4sim.store import Region, StoreError, build_store, is_current, make_template, read_manifest
from weather_forecast.gwd import config
from weather_forecast.gwd.layout import ColumnLayout
from weather_forecast.gwd.raw import RawFile, bad_rows

logger = logging.getLogger(__name__)

BadRows = Literal["raise", "drop"]
CHUNK_ROWS = 8192
REGION_ROWS = 4 * CHUNK_ROWS
TIMES_PER_FILE = 100_000  # more than any file has: makes (file, time) one number


def schema(layout: ColumnLayout, auxiliaries: Sequence[str]) -> Schema:
    """Schema of the processed store."""
    rows = ("sample",)
    return Schema(
        name=config.USE_CASE,
        version=1,
        variables=(
            Variable("x", ("sample", "feature"), "mixed", long_name="column state, see settings of the manifest"),
            Variable("y", ("sample", "tendency"), "m s-2", long_name="tendency of the wind by gravity waves"),
            Variable("block", rows, "1", dtype="int32", long_name="independent block: file and time"),
            *(Variable(name, rows, config.UNITS[name]) for name in auxiliaries),
        ),
        sizes={"feature": layout.n_inputs, "tendency": layout.n_outputs},
    )


@dataclass(frozen=True)
class RawRows:
    """The rows of many files as one sequence, without those that were dropped.

    Attributes:
        files: in the order of the splits.
        kept: row numbers kept of every file; None keeps all.
        on_bad_rows: ``raise`` checks every row that is read.
    """

    files: tuple[RawFile, ...]
    kept: tuple[NDArray[np.int64] | None, ...]
    on_bad_rows: BadRows

    @property
    def sizes(self) -> list[int]:
        """Number of rows of every file."""
        return [f.n_rows if k is None else len(k) for f, k in zip(self.files, self.kept, strict=True)]

    def load(self, start: int, stop: int) -> xr.Dataset:
        """Rows ``start`` to ``stop`` as the store's variables.

        Raises:
            InputError: a row cannot be true, or a file cannot be read.
        """
        ends = list(accumulate(self.sizes))
        parts: list[dict[str, NDArray[Any]]] = []
        while start < stop:
            number = bisect_right(ends, start)
            first = start - (ends[number] - self.sizes[number])
            last = min(self.sizes[number], first + stop - start)
            parts.append(self._read(number, first, last))
            start += last - first
        # a file may have variables that another has not
        names = [name for name in parts[0] if all(name in part for part in parts)]
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in names}
        dims = {"x": ("sample", "feature"), "y": ("sample", "tendency")}
        return xr.Dataset({name: (dims.get(name, ("sample",)), values) for name, values in arrays.items()})

    def _read(self, number: int, first: int, last: int) -> dict[str, NDArray[Any]]:
        file, kept = self.files[number], self.kept[number]
        if kept is None:
            rows = np.arange(first, last)
            values: dict[str, NDArray[Any]] = dict(file.read(first, last))
        else:
            rows = kept[first:last]
            values = {k: v[rows - rows[0]] for k, v in file.read(int(rows[0]), int(rows[-1]) + 1).items()}
        if self.on_bad_rows == "raise":
            mask, reason = bad_rows(values["x"], values["y"], file.layout)
            if mask.any():
                raise InputError(
                    f"{file.path}: {int(mask.sum())} impossible rows among rows {first} to {last}; the first is row "
                    f"{int(rows[np.argmax(mask)])}, where {reason}. Mend the file, or set on_bad_rows: drop"
                )
        values["block"] = (number * TIMES_PER_FILE + rows // file.rows_per_block).astype(np.int32)
        return values


def find_good_rows(file: RawFile) -> NDArray[np.int64] | None:
    """Rows of a file that can be true; None when all can. One more pass over the file; says what share is dropped."""
    good = []
    for start in range(0, file.n_rows, REGION_ROWS):
        values = file.read(start, min(start + REGION_ROWS, file.n_rows))
        mask, _ = bad_rows(values["x"], values["y"], file.layout)
        good.append(start + np.flatnonzero(~mask))
    kept = np.concatenate(good)
    if len(kept) == file.n_rows:
        return None
    dropped = file.n_rows - len(kept)
    logger.warning("%s: dropped %d of %d rows (%.3g %%)", file.path, dropped, file.n_rows, 100 * dropped / file.n_rows)
    return kept


def build(
    path: Path,
    files: Mapping[str, Sequence[Path]],
    *,
    layout: ColumnLayout,
    grid: str,
    on_bad_rows: BadRows,
    scheduler: str | None = None,
) -> Manifest:
    """Make the processed store, or find it up to date.

    Args:
        path: the store.
        files: raw files of every split.
        layout: of the columns.
        grid: name of the levels' grid, for the record.
        on_bad_rows: see :class:`RawRows`.
        scheduler: address of a Dask scheduler.

    Returns:
        The manifest; its settings hold the row ranges of the splits, its statistics those of the training rows.

    Raises:
        InputError: a raw file is missing, damaged, of another layout, or holds impossible rows.
        StoreError: the store cannot be written.
    """
    opened = {split: [RawFile.open(file, layout) for file in paths] for split, paths in files.items()}
    flat = [file for split in opened.values() for file in split]
    common = [name for name in config.AUXILIARIES if all(name in file.auxiliaries for file in flat)]
    described, sources = schema(layout, common), [file.path for file in flat]
    chosen = {
        "n_levels": layout.n_levels,
        "scalars": list(layout.scalars),
        "features": [layout.describe(i) for i in range(layout.n_inputs)],
        "grid": grid,
        "files": {split: [file.name for file in paths] for split, paths in files.items()},
        "on_bad_rows": on_bad_rows,
    }
    if on_bad_rows == "drop" and (known := _find_current(path, described, sources, chosen)):
        return known  # which rows are good was found out when the store was made
    kept = [find_good_rows(file) if on_bad_rows == "drop" else None for file in flat]
    rows = RawRows(tuple(flat), tuple(kept), on_bad_rows)

    n_rows = sum(rows.sizes)
    # files follow each other in the order of the splits, so that each split is one range
    lengths = {str(file.path): size for file, size in zip(flat, rows.sizes, strict=True)}
    splits = split_by_files(lengths, {split: [str(file.path) for file in members] for split, members in opened.items()})
    ranges = {split: (parts[0].start, parts[0].stop) for split, parts in splits.items()}
    settings = {**chosen, "ranges": ranges}
    regions = [
        Region(f"rows {start}", {"sample": slice(start, min(start + REGION_ROWS, n_rows))},
               partial(load_region, rows, start, min(start + REGION_ROWS, n_rows), tuple(common)))
        for start in range(0, n_rows, REGION_ROWS)
    ]  # fmt: skip
    return build_store(
        path,
        template=make_template(described, {"sample": n_rows}, {"sample": CHUNK_ROWS}),
        regions=regions,
        sources=sources,
        schema=described,
        settings=settings,
        statistics=partial(training_statistics, rows=slice(*ranges["train"])),
        scheduler=scheduler,
    )


def _find_current(path: Path, schema: Schema, sources: list[Path], chosen: dict[str, Any]) -> Manifest | None:
    """The manifest of a store of these sources and settings, whatever rows it has kept; None where there is none."""
    try:
        manifest = read_manifest(path)
    except StoreError:
        return None
    settings = {**chosen, "ranges": manifest.settings.get("ranges")}
    return manifest if is_current(path, schema=schema, sources=sources, settings=settings) else None


def load_region(rows: RawRows, start: int, stop: int, auxiliaries: tuple[str, ...]) -> xr.Dataset:
    """One region with the variables that all files have; a function by name, so that Dask can send it."""
    return rows.load(start, stop)[["x", "y", "block", *auxiliaries]]


def training_statistics(dataset: xr.Dataset, rows: slice) -> dict[str, Any]:
    """Statistics of x and y over the training rows, a block at a time."""
    running = {name: RunningStatistics(dataset[name].shape[1]) for name in ("x", "y")}
    for part in blocks(rows):
        for name, statistics in running.items():
            statistics.update(dataset[name].isel(sample=part).values)
    return {name: statistics.result().to_dict() for name, statistics in running.items()}


def blocks(rows: slice) -> Iterator[slice]:
    """A range of rows in pieces that begin and end where regions do."""
    start = rows.start
    while start < rows.stop:
        stop = min(rows.stop, (start // REGION_ROWS + 1) * REGION_ROWS)
        yield slice(start, stop)
        start = stop
