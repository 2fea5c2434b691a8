"""Reading raw files of the public data set, in any of the layouts in which they exist."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ai4sim.errors import InputError
from weather_forecast.gwd import config
from weather_forecast.gwd.layout import ColumnLayout

SUFFIXES = (".h5", ".hdf5", ".nc")

Float = NDArray[np.float32]


@dataclass(frozen=True)
class RawFile:
    """One 30-day forecast: ``x`` (n_inputs features) and ``y`` (n_outputs features) of many columns.

    NetCDF-4 files are HDF5 files, so one reader serves both. The feature axis is found by its length; the other axes,
    (time, column) or rows alone, are flattened in C order. All of ``(191, t, c)``, ``(t, c, 191)``, ``(191, n)`` and
    ``(n, 191)`` therefore give the same rows.

    Attributes:
        path: the file.
        n_rows: number of columns in it (times x grid columns).
        rows_per_block: rows that share a time and so depend on each other; ``n_rows`` when the file has only rows.
        x_axis: feature axis of ``x``.
        y_axis: feature axis of ``y``; None when only inputs are wanted.
        auxiliaries: names of the further variables (``lat``, ``doy``) that the file has.
    """

    path: Path
    layout: ColumnLayout
    n_rows: int
    rows_per_block: int
    x_axis: int
    y_axis: int | None
    auxiliaries: tuple[str, ...]

    @classmethod
    def open(cls, path: Path, layout: ColumnLayout, *, targets: bool = True) -> "RawFile":
        """Look at a file's variables and shapes without reading its values.

        Args:
            path: the file.
            layout: numbers of features to expect.
            targets: whether ``y`` is needed; without, only inputs are read.

        Raises:
            InputError: missing or damaged file, missing variable, no axis of the expected length, or ``x`` and ``y``
                (or an auxiliary) of different rows.
        """
        extra = [name for name in layout.scalars if name not in config.SCALARS]
        n_stored = layout.n_inputs - len(extra)
        with _open(path) as file:
            shapes = {}
            for name in ("x", "y") if targets else ("x",):
                if not isinstance(file.get(name), h5py.Dataset):
                    raise InputError(f"{path}: variable {name!r} is missing; the file has {', '.join(file) or 'none'}")
                shapes[name] = file[name].shape
            x_axis = _feature_axis(path, "x", shapes["x"], n_stored, layout)
            y_axis = _feature_axis(path, "y", shapes["y"], layout.n_outputs, layout) if targets else None
            rows = _without(shapes["x"], x_axis)
            if y_axis is not None and rows != _without(shapes["y"], y_axis):
                raise InputError(
                    f"{path}: x has rows of shape {rows} and y of {_without(shapes['y'], y_axis)}; "
                    "they must be the same"
                )
            auxiliaries = tuple(name for name in config.AUXILIARIES if name in file)
            for name in auxiliaries:
                if file[name].shape != rows:
                    raise InputError(f"{path}: {name!r} has shape {file[name].shape}, expected {rows} as the rows of x")
            for name in extra:
                if name not in auxiliaries:
                    raise InputError(f"{path}: extra input {name!r} is missing; the file has {', '.join(file)}")
        per_block = rows[-1] if len(rows) > 1 else int(np.prod(rows))
        return cls(path, layout, int(np.prod(rows)), per_block, x_axis, y_axis, auxiliaries)

    def read(self, start: int, stop: int) -> dict[str, Float]:
        """Rows ``start`` to ``stop`` of the file.

        Returns:
            ``x`` (n, n_inputs) and, if wanted, ``y`` (n, n_outputs) in physical units, and (n,) of each auxiliary.

        Raises:
            InputError: the values cannot be read.
        """
        with _open(self.path) as file:
            try:
                x = _read_rows(file["x"], self.x_axis, start, stop)
                y = {} if self.y_axis is None else {"y": _read_rows(file["y"], self.y_axis, start, stop)}
                rows = {name: _read_rows(file[name], None, start, stop)[:, 0] for name in self.auxiliaries}
            except OSError as error:
                raise InputError(
                    f"{self.path}: cannot read rows {start} to {stop}, the file is damaged: {error}"
                ) from error
        extra = [rows[name][:, None] for name in self.layout.scalars if name not in config.SCALARS]
        return {"x": np.concatenate([x, *extra], axis=1) if extra else x, **y, **rows}


def bad_rows(x: Float, y: Float | None, layout: ColumnLayout) -> tuple[NDArray[np.bool_], str]:
    """Rows that cannot be true: NaN, infinite, or outside the physical range.

    Args:
        x: (n, n_inputs).
        y: (n, n_outputs), where there are targets.
        layout: names the features.

    Returns:
        Mask (n,), and the first offending feature with its value and valid range; an empty text when there is none.
    """
    low = np.full(layout.n_inputs, -np.inf, np.float32)
    high = np.full(layout.n_inputs, np.inf, np.float32)
    for name, (least, most) in config.VALID_RANGE.items():
        low[layout.slice_of(name)], high[layout.slice_of(name)] = least, most
    wrong_x = ~((x >= low) & (x <= high) & np.isfinite(x))  # NaN fails every comparison
    y = np.zeros((len(x), 1), np.float32) if y is None else y
    wrong_y = ~np.isfinite(y)
    mask = np.asarray(wrong_x.any(axis=1) | wrong_y.any(axis=1))
    if not mask.any():
        return mask, ""
    row = int(np.argmax(mask))
    kind, wrong, values = ("input", wrong_x, x) if wrong_x[row].any() else ("output", wrong_y, y)
    feature = int(np.argmax(wrong[row]))
    text = f"{layout.describe(feature, kind)} is {values[row, feature]:.6g}"
    if kind == "input" and np.isfinite(low[feature]):
        text += f", expected {low[feature]:g} to {high[feature]:g}"
    return mask, text


def find_file(folder: Path, date: str) -> Path:
    """The raw file of a start date.

    Raises:
        InputError: there is none.
    """
    for suffix in SUFFIXES:
        path = folder / f"{date}{suffix}"
        if path.is_file():
            return path
    names = sorted(p.stem for p in folder.iterdir() if p.suffix in SUFFIXES) if folder.is_dir() else []
    have = f"the folder has {', '.join(names)}" if names else "the folder has no .h5, .hdf5 or .nc file"
    raise InputError(f"no file for the start date {date} in {folder}: {have}")


def _open(path: Path) -> h5py.File:
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path}: truncated or not HDF5 ({error})") from error


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _feature_axis(path: Path, name: str, shape: tuple[int, ...], length: int, layout: ColumnLayout) -> int:
    axes = [axis for axis, size in enumerate(shape) if size == length]
    if len(shape) not in (2, 3) or len(axes) != 1:
        what = "no axis" if not axes else f"{len(axes)} axes"
        raise InputError(
            f"{path}: {name} has shape {shape} with {what} of length {length}; expected one feature axis of {length} "
            f"({layout.n_levels} levels) beside (time, column) or rows"
        )
    return axes[0]


def _read_rows(dataset: Any, axis: int | None, start: int, stop: int) -> Float:
    """Rows of a dataset as (n, n_features); without a feature axis (n, 1)."""
    shape = dataset.shape if axis is None else _without(dataset.shape, axis)
    parts = [np.empty((0, 1 if axis is None else dataset.shape[axis]), np.float32)]
    for index in _row_slices(shape, start, stop):
        selection: list[Any] = list(index)
        if axis is not None:
            # an integer drops its axis, so a feature axis before it keeps its place
            selection.insert(axis, slice(None))
        block = np.asarray(dataset[tuple(selection)], np.float32)
        if axis is None:
            parts.append(block.reshape(-1, 1))
        else:
            feature_axis = axis - sum(isinstance(i, int) for i in selection[:axis])
            parts.append(np.moveaxis(block, feature_axis, -1))
    return np.concatenate(parts)


def _row_slices(shape: tuple[int, ...], start: int, stop: int) -> Iterator[tuple[int | slice, ...]]:
    """Hyperslabs that cover rows start to stop of axes (rows,) or (time, column), in order."""
    if len(shape) == 1:
        if stop > start:
            yield (slice(start, stop),)
        return
    n_columns = shape[1]
    while start < stop:
        time, column = divmod(start, n_columns)
        end = min(n_columns, column + stop - start)
        yield (time, slice(column, end))
        start += end - column
