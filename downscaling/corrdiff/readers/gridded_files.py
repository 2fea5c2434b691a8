"""Fields of some variables on one grid, in many NetCDF files or Zarr stores."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ai4sim.datasets import open_dataset
from ai4sim.errors import InputError
from downscaling.corrdiff.readers.base import Channel, Field
from downscaling.corrdiff.readers.coordinates import Points, find_points
from downscaling.corrdiff.readers.files import find_files, listed, runs
from downscaling.corrdiff.readers.times import Times, as_times

KEPT_OPEN = 4
WHOLE = (slice(None), slice(None))

Window = tuple[slice, slice]


@dataclass(frozen=True)
class Names:
    """What things are called in the files.

    Args:
        time: dimension of times.
        latitude: variable; guessed by default.
        longitude: variable; guessed by default.
        only_time: of files that have none, ``2006-01-16``.
    """

    time: str = "time"
    latitude: str | None = None
    longitude: str | None = None
    only_time: str | None = None


@dataclass(frozen=True)
class _Part:
    """Where a channel is: in a variable, on a level (by number) of a dimension if it has levels."""

    variable: str
    level_dim: str | None = None
    level: int = 0


class GriddedFiles:
    """Opens files when they are needed; those opened last stay open.

    Args:
        patterns: paths, patterns or URLs.
        what: they hold, for messages.
        variables: their names; by default all that have the dimensions of the fields.
        levels: values of the level dimension that are wanted; by default all.
        names: what things are called.
    """

    def __init__(
        self,
        patterns: Sequence[str],
        what: str,
        *,
        variables: Sequence[str] | None = None,
        levels: Sequence[float] | None = None,
        names: Names,
    ) -> None:
        self._patterns, self.what = list(patterns), what
        self._variables, self._levels, self._names = variables, levels, names
        self._open: OrderedDict[str, xr.Dataset] = OrderedDict()
        self._lock = threading.Lock()

    @cached_property
    def paths(self) -> list[str]:
        """Files in the order of their names."""
        return find_files(self._patterns, self.what)

    def _dataset(self, path: str) -> xr.Dataset:
        with self._lock:
            if path not in self._open:
                self._open[path] = self._with_time(open_dataset(path, self.what), path)
                while len(self._open) > KEPT_OPEN:
                    # not closed: another thread may be reading it; that is done when nobody refers to it
                    self._open.popitem(last=False)
            self._open.move_to_end(path)
            return self._open[path]

    def _with_time(self, dataset: xr.Dataset, path: str) -> xr.Dataset:
        """Files of a single time, with a dimension for it."""
        time, only = self._names.time, self._names.only_time
        if time in dataset.dims:
            if time not in dataset.variables:
                raise InputError(f"{path} ({self.what}): the dimension {time!r} has no variable with the times")
            return dataset
        if time in dataset.variables:
            moment = dataset[time].values
        elif only is not None:
            try:
                moment = np.asarray(np.datetime64(only, "ns"))
            except ValueError as error:
                raise InputError(f"{only!r} is no time; write 2006-01-16 or 2006-01-16T12") from error
        else:
            raise InputError(
                f"{path} ({self.what}) has no dimension {time!r}; it has {listed(list(dataset.dims))}: name it, or "
                "give the time of files that have none"
            )
        fields = {name: array for name, array in dataset.data_vars.items() if array.ndim >= 2}
        return dataset.assign({name: array.expand_dims({time: [moment]}) for name, array in fields.items()})

    @cached_property
    def _first(self) -> xr.Dataset:
        return self._dataset(self.paths[0])

    @cached_property
    def points(self) -> Points | None:
        """Where the fields are; None where the files do not say."""
        dims = {dim for array in self._first.data_vars.values() for dim in array.dims if self._names.time in array.dims}
        return find_points(
            self._first,
            self.paths[0],
            latitude=self._names.latitude,
            longitude=self._names.longitude,
            dims=sorted(map(str, dims - {self._names.time})),
        )

    @cached_property
    def dims(self) -> tuple[str, str]:
        """Names of rows and columns: those of the coordinates, or the last two of the fields."""
        if self.points is not None:
            return self.points.dims
        time = self._names.time
        candidates = [self._array(name) for name in self._variables or ()] or list(self._first.data_vars.values())
        for array in candidates:
            others = [str(dim) for dim in array.dims if dim != time]
            if time in array.dims and len(others) >= 2:
                return others[-2], others[-1]
        raise InputError(f"{self.paths[0]} ({self.what}) has no variable of fields ({time}, y, x)")

    def _array(self, name: str) -> xr.DataArray:
        if name not in self._first.variables:
            held = listed([str(n) for n in self._first.data_vars])
            raise InputError(f"{self.paths[0]} ({self.what}) has no variable {name!r}; it has {held}")
        return self._first[name]

    @cached_property
    def _plan(self) -> tuple[list[Channel], list[_Part]]:
        needed = {self._names.time, *self.dims}
        names = self._variables
        if names is None:
            held = self._first.data_vars.items()
            coordinates = self.points.names if self.points else ()
            names = [
                str(name)
                for name, array in held
                if needed <= set(array.dims) and array.dtype.kind in "fiu" and name not in coordinates
            ]
        if not names:
            raise InputError(f"{self.paths[0]} ({self.what}) has no variable with the dimensions {sorted(needed)}")
        channels: list[Channel] = []
        parts: list[_Part] = []
        for name in names:
            for channel, part in self._channels(name, needed):
                channels.append(channel)
                parts.append(part)
        if self._levels is not None and all(part.level_dim is None for part in parts):
            raise InputError(f"levels {listed(self._levels)} are given, but no variable of {self.paths[0]} has levels")
        return channels, parts

    def _channels(self, name: str, needed: set[str]) -> list[tuple[Channel, _Part]]:
        array = self._array(name)
        if not needed <= set(array.dims):
            raise InputError(
                f"{self.paths[0]} ({self.what}): {name!r} has dimensions {array.dims}, expected {sorted(needed)} among "
                "them"
            )
        units, long_name = str(array.attrs.get("units", "")), str(array.attrs.get("long_name", ""))
        others = [str(dim) for dim in array.dims if dim not in needed]
        if not others:
            return [(Channel(name, units, long_name), _Part(name))]
        if len(others) > 1:
            raise InputError(f"{self.paths[0]}: {name!r} has dimensions {array.dims}; expected one of levels at most")
        (dim,) = others
        if array.sizes[dim] == 1 and self._levels is None:
            return [(Channel(name, units, long_name), _Part(name, dim))]
        if dim not in self._first.variables or self._first[dim].dtype.kind not in "fiu":
            raise InputError(
                f"{self.paths[0]}: {name!r} has the dimension {dim!r}, which has no numbers: levels are known by these"
            )
        held = self._first[dim].values.astype(np.float64)
        made = []
        for level in held.tolist() if self._levels is None else self._levels:
            place = np.flatnonzero(np.isclose(held, level, rtol=1e-6))
            if not len(place):
                raise InputError(
                    f"{self.paths[0]}: {name!r} has no level {level:g} along {dim!r}; it has {listed(held.tolist())}"
                )
            channel = Channel(f"{name}{float(level)}", units, f"{long_name} at {level:g}" if long_name else "")
            made.append((channel, _Part(name, dim, int(place[0]))))
        return made

    @property
    def all_channels(self) -> tuple[Channel, ...]:
        """What the files have, in the order of the variables and of the levels."""
        return tuple(self._plan[0])

    def channels_of(self, variables: Sequence[str]) -> list[int]:
        """Numbers of the channels of some variables, in the order of these."""
        return [i for name in variables for i, part in enumerate(self._plan[1]) if part.variable == name]

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = (self._array(self._plan[1][0].variable).sizes[dim] for dim in self.dims)
        return rows, columns

    @cached_property
    def _index(self) -> tuple[Times, NDArray[np.int64], NDArray[np.int64]]:
        """Times that increase; the number of the file, and in the file, that each is at."""
        needed = {part.variable: self.shape for part in self._plan[1]}
        times, files, places = [], [], []
        for number, path in enumerate(self.paths):
            dataset = self._dataset(path)
            for name, shape in needed.items():
                if name not in dataset.variables:
                    raise InputError(
                        f"{path} ({self.what}) has no variable {name!r}, which {self.paths[0]} has; it has "
                        f"{listed(list(dataset.data_vars))}"
                    )
                if (found := tuple(dataset[name].sizes.get(dim, 0) for dim in self.dims)) != shape:
                    raise InputError(
                        f"{path} ({self.what}): {name!r} has {found} entries along {self.dims}, in {self.paths[0]} "
                        f"{shape}"
                    )
            own = as_times(np.atleast_1d(dataset[self._names.time].values), f"{path}: {self._names.time!r}")
            times.append(own)
            files.append(np.full(len(own), number))
            places.append(np.arange(len(own)))
        together = np.concatenate(times)
        order = np.argsort(together, kind="stable")
        together, file, place = together[order], np.concatenate(files)[order], np.concatenate(places)[order]
        twice = np.flatnonzero(together[1:] == together[:-1])
        if len(twice):
            first = int(twice[0])
            where = " and in ".join(dict.fromkeys(self.paths[file[i]] for i in (first, first + 1)))
            raise InputError(f"{self.what}: the time {together[first]} is there twice, in {where}")
        return together, file, place

    @property
    def times(self) -> Times:
        """(n,) times, increasing."""
        return self._index[0]

    def read(
        self, rows: NDArray[np.integer], *, channels: Sequence[int] | None = None, window: Window = WHOLE
    ) -> Field:
        """Fields (n, channel, y, x); NaN where a value is missing.

        Args:
            rows: (n,) numbers of times, in any order.
            channels: numbers of channels; by default all.
            window: rows and columns of the fields.

        Raises:
            InputError: a file cannot be read.
        """
        chosen = range(len(self.all_channels)) if channels is None else channels
        sizes = [len(range(*part.indices(size))) for part, size in zip(window, self.shape, strict=True)]
        out = np.empty((len(rows), len(chosen), *sizes), np.float32)
        _, file, place = self._index
        # a file's number and the place in it as one number: what follows each other in it is read at once
        longest = int(place.max()) + 2
        start = 0
        for run in runs(file[rows] * longest + place[rows]):
            number, first = divmod(run.start, longest)
            n = run.stop - run.start
            dataset = self._dataset(self.paths[number])
            for target, channel in enumerate(chosen):
                part = self._plan[1][channel]
                array = dataset[part.variable]
                if part.level_dim is not None:
                    array = array.isel({part.level_dim: part.level})
                array = array.isel(
                    {self._names.time: slice(first, first + n), self.dims[0]: window[0], self.dims[1]: window[1]}
                )
                try:
                    out[start : start + n, target] = array.transpose(self._names.time, *self.dims).values
                except (OSError, ValueError, RuntimeError) as error:
                    raise InputError(
                        f"{self.paths[number]} ({self.what}): {part.variable!r} cannot be read, the file may be "
                        f"truncated: {error}"
                    ) from error
            start += n
        return out


@dataclass(frozen=True, eq=False)
class StaticFields:
    """Fields that do not change.

    Args:
        channels: what they are.
        fields: (channel, Y, X).
        points: where they are; None where the file does not say.
        source: the file, for messages.
    """

    channels: tuple[Channel, ...]
    fields: Field
    points: Points | None
    source: str


def read_static(
    path: str, variables: Sequence[str] | None, names: Names, grid: tuple[tuple[str, str], tuple[int, int]] | None
) -> StaticFields:
    """Read fields that do not change; of those that a file repeats for every time, the first.

    Args:
        path: NetCDF file or Zarr store.
        variables: their names; by default all of the grid.
        names: what things are called.
        grid: names of rows and columns, and their numbers, of the fine fields; None where the file itself decides.

    Raises:
        InputError: a variable is missing, or on another grid.
    """
    dataset = open_dataset(path, "static fields")
    if names.time in dataset.dims:
        dataset = dataset.isel({names.time: 0})
    every = sorted({str(dim) for dim in dataset.dims})
    points = find_points(dataset, path, latitude=names.latitude, longitude=names.longitude, dims=every)
    fields = {str(name): array for name, array in dataset.data_vars.items() if array.ndim == 2}
    if variables is None:
        coordinates = points.names if points else ()
        shape = grid[1] if grid else points.latitude.shape if points else None
        variables = [n for n, a in fields.items() if n not in coordinates and (shape is None or a.shape == shape)]
        if not variables:
            raise InputError(f"{path} (static fields) has no variable of shape {shape}; it has {_shapes(dataset)}")
    chosen = []
    for name in variables:
        if name not in dataset.variables:
            raise InputError(
                f"{path} (static fields) has no variable {name!r}; it has {listed(list(dataset.data_vars))}"
            )
        array = dataset[name]
        dims = points.dims if points else grid[0] if grid and set(grid[0]) <= set(array.dims) else array.dims
        expected = grid[1] if grid else dataset[variables[0]].shape
        if array.ndim != 2 or set(array.dims) != set(dims) or array.transpose(*dims).shape != expected:
            raise InputError(f"{path} (static fields): {name!r} has shape {array.shape}, expected {expected} (y, x)")
        chosen.append(array.transpose(*dims))
    channels = tuple(
        Channel(str(array.name), str(array.attrs.get("units", "")), str(array.attrs.get("long_name", "")))
        for array in chosen
    )
    return StaticFields(channels, np.stack([np.asarray(a.values, np.float32) for a in chosen]), points, path)


def _shapes(dataset: xr.Dataset) -> str:
    return listed([f"{name} {array.shape}" for name, array in dataset.data_vars.items()])
