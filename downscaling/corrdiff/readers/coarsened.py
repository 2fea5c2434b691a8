"""Fine fields of which the coarse ones are made: means over blocks."""

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ai4sim.errors import InputError
from downscaling.corrdiff.readers.base import Field, Pairs
from downscaling.corrdiff.readers.coordinates import block_mean, match_cells, spacing_km, turned
from downscaling.corrdiff.readers.files import FileSource, manifest_files
from downscaling.corrdiff.readers.gridded_files import GriddedFiles, Names, StaticFields, read_static

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class CoarsenedDataset(FileSource):
    """Pairs of a fine field and its block means, where there are no coarse data of their own.

    With `tiles`, a field is cut into parts that do not overlap, and each part is a pair of its own: so a single large
    field is enough. Pairs are ordered by time, then by row and column of their first point; those of one time are parts
    of the same weather, and are to be split by place where there is only one time.

    Args:
        files: paths, patterns, Zarr stores or URLs of the fine fields.
        variables: names of the outputs; by default all fields of the files.
        factor: fine points along a coarse cell. What is left over at the end of rows and columns is cut off.
        input_variables: names of those whose block means are the inputs; by default `variables`.
        static: file of fields that do not change, on the fine grid; by default the first of `files`, where
            `static_variables` are named.
        static_variables: names; by default all fields of the file `static`.
        tiles: rows and columns of fine points of a part, multiples of `factor`; by default a pair is the whole field.
        time: of files that have none, ``2006-01-16``.
        time_dim: name of the dimension of times.
        levels: of variables that have levels; by default all.
        latitude: name of the variable; guessed by default.
        longitude: name of the variable; guessed by default.
    """

    files: list[str]
    variables: list[str] | None = None
    factor: int = 8
    input_variables: list[str] | None = None
    static: str | None = None
    static_variables: list[str] | None = None
    tiles: tuple[int, int] | None = None
    time: str | None = None
    time_dim: str = "time"
    levels: list[float] | None = None
    latitude: str | None = None
    longitude: str | None = None

    locations: ClassVar[tuple[str, ...]] = ("files", "static")

    @property
    def _names(self) -> Names:
        return Names(self.time_dim, self.latitude, self.longitude, self.time)

    @cached_property
    def _fields(self) -> GriddedFiles:
        both = None
        if self.variables is not None:
            both = list(dict.fromkeys([*self.variables, *(self.input_variables or ())]))
        elif self.input_variables is not None:
            raise InputError("input_variables are named, but not variables, the outputs; name both")
        return GriddedFiles(self.files, "fine fields", variables=both, levels=self.levels, names=self._names)

    @cached_property
    def _channels(self) -> tuple[list[int], list[int]]:
        """Numbers of the channels that are inputs, and of those that are outputs."""
        every = list(range(len(self._fields.all_channels)))
        outputs = every if self.variables is None else self._fields.channels_of(self.variables)
        inputs = outputs if self.input_variables is None else self._fields.channels_of(self.input_variables)
        return inputs, outputs

    @cached_property
    def _shape(self) -> tuple[int, int]:
        """Rows and columns of the grid, of which nothing is left over."""
        if self.factor < 1:
            raise InputError(f"factor is {self.factor}; expected 1 or more")
        whole = self._fields.shape
        rows, columns = (size - size % self.factor for size in whole)
        if not rows or not columns:
            raise InputError(
                f"{self._fields.paths[0]}: a field of {whole[0]} x {whole[1]} points has no cell of {self.factor} x "
                f"{self.factor}"
            )
        if (rows, columns) != whole:
            logger.info(
                "%s: fields are cut from %d x %d to %d x %d points, multiples of the factor %d",
                self._fields.paths[0], *whole, rows, columns, self.factor,
            )  # fmt: skip
        return rows, columns

    @cached_property
    def _size(self) -> tuple[int, int]:
        """Rows and columns of a pair."""
        if self.tiles is None:
            return self._shape
        for size, whole, name in zip(self.tiles, self._shape, ("rows", "columns"), strict=True):
            if size < 1 or size % self.factor or size > whole:
                raise InputError(
                    f"tiles have {size} {name}; expected a multiple of the factor {self.factor}, at most {whole}"
                )
        return self.tiles

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        """(n, 2) first row and column of the parts of a field."""
        firsts = [np.arange(0, whole - size + 1, size) for whole, size in zip(self._shape, self._size, strict=True)]
        return np.stack(np.meshgrid(*firsts, indexing="ij"), axis=-1).reshape(-1, 2)

    @cached_property
    def _static(self) -> StaticFields | None:
        if self.static is None and self.static_variables is None:
            return None
        path = self._fields.paths[0] if self.static is None else self.static
        found = read_static(path, self.static_variables, self._names, (self._fields.dims, self._fields.shape))
        if self.static is None or found.points is None or self._fields.points is None:
            return found
        flip = match_cells(found.points, self._fields.points, 1, (path, self._fields.paths[0]))
        return StaticFields(found.channels, np.asarray(turned(found.fields, flip)), self._fields.points, path)

    def _open(self) -> Pairs:
        grid = tuple(slice(0, size) for size in self._shape)
        points = self._fields.points or (self._static.points if self._static else None)
        if points is None:
            logger.warning(
                "%s has no latitude and longitude: they will be missing in all results", self._fields.paths[0]
            )
            latitude = longitude = np.full(self._shape, np.nan, np.float32)
        else:
            latitude, longitude = (values[grid].astype(np.float32) for values in (points.latitude, points.longitude))
        inputs, outputs = self._channels
        n = len(self._fields.times)
        static = self._static
        paths = [*self._fields.paths, *([self.static] if self.static else ())]
        return Pairs(
            inputs=tuple(self._fields.all_channels[i] for i in inputs),
            outputs=tuple(self._fields.all_channels[i] for i in outputs),
            static=static.channels if static else (),
            times=np.repeat(self._fields.times, len(self._places)),
            input_shape=(self._size[0] // self.factor, self._size[1] // self.factor),
            output_shape=self._size,
            factor=self.factor,
            latitude=latitude,
            longitude=longitude,
            static_fields=static.fields[:, *grid] if static else np.empty((0, *self._shape), np.float32),
            corners=None if self.tiles is None else np.tile(self._places, (n, 1)),
            spacing_km=spacing_km(latitude, longitude),
            files=tuple(file for path in dict.fromkeys(paths) for file in manifest_files(path)),
        )

    def read_inputs(self, rows: slice) -> Field:
        """Block means (n, input, h, w)."""
        fine = self._read(rows, self._channels[0])
        return np.asarray(block_mean(fine.astype(np.float64), self.factor), np.float32)

    def read_outputs(self, rows: slice) -> Field:
        """Fine fields (n, output, H, W)."""
        return self._read(rows, self._channels[1])

    def _read(self, rows: slice, channels: list[int]) -> Field:
        n_places = len(self._places)
        height, width = self._size
        numbers = np.arange(len(self._fields.times) * n_places)[rows]
        out = np.empty((len(numbers), len(channels), height, width), np.float32)
        times, places = np.divmod(numbers, n_places)
        tops = self._places[places, 0]
        # parts of one time that lie beside each other are read at once
        band = times * (self._shape[0] + 1) + tops
        for key in dict.fromkeys(band.tolist()):
            own = np.flatnonzero(band == key)
            top = int(tops[own[0]])
            lefts = self._places[places[own], 1]
            first = int(lefts.min())
            window = slice(top, top + height), slice(first, int(lefts.max()) + width)
            (fields,) = self._fields.read(times[own[:1]], channels=channels, window=window)
            for target, left in zip(own, lefts - first, strict=True):
                out[target] = fields[..., left : left + width]
        return out
