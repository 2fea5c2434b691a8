"""Any pair of data sets, coarse and fine, in NetCDF files or Zarr stores."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ai4sim.errors import InputError
from downscaling.corrdiff.readers.base import Field, Pairs
from downscaling.corrdiff.readers.coordinates import (
    Flip,
    Points,
    cell_centres,
    match_cells,
    require_factor,
    spacing_km,
    turned,
)
from downscaling.corrdiff.readers.files import FileSource, manifest_files
from downscaling.corrdiff.readers.gridded_files import GriddedFiles, Names, StaticFields, read_static
from downscaling.corrdiff.readers.regrid import LinearRegrid
from downscaling.corrdiff.readers.times import Times

logger = logging.getLogger(__name__)

NOT_TURNED: Flip = (False, False)


@dataclass(frozen=True, eq=False)
class PairedDatasets(FileSource):
    """Coarse and fine fields of the same times; the times that only one of the two has are left out.

    Latitude and longitude, of one or two dimensions, are found by their CF attributes or usual names. Where both data
    sets have them, every coarse cell must be where its fine points are; coarse fields whose rows or columns are in the
    opposite order are turned.

    Args:
        inputs: coarse files: paths, patterns such as ``era5/*.nc``, Zarr stores, or URLs.
        outputs: fine files, likewise; none where only inputs are downscaled, and ``static`` has the fine grid.
        static: file of fields that do not change, on the fine grid; by default the first of `outputs`, where
            `static_variables` are named.
        input_variables: names; by default all fields of the files.
        output_variables: names; by default all fields of the files.
        static_variables: names; by default all fields of the file `static`.
        levels: of input variables that have levels; by default all. A channel is called ``temperature850.0``.
        time_dim: name of the dimension of times.
        input_latitude: name of the coarse latitude; guessed by default.
        input_longitude: name of the coarse longitude; guessed by default.
        latitude: name of the fine latitude; guessed by default.
        longitude: name of the fine longitude; guessed by default.
        exclude_times: times that are left out; ``2020-03-01`` stands for all of that day, ``2020-03`` for the month.
        factor: fine points along a coarse cell; by default from the shapes. 1 for inputs on the fine grid.
        regrid: interpolate the inputs, linearly, from their grid of latitudes and longitudes to the cells of
            ``factor`` x ``factor`` fine points: for coarse data on another map projection, or of a larger area.
    """

    inputs: list[str]
    outputs: list[str] = field(default_factory=list)
    static: str | None = None
    input_variables: list[str] | None = None
    output_variables: list[str] | None = None
    static_variables: list[str] | None = None
    levels: list[float] | None = None
    time_dim: str = "time"
    input_latitude: str | None = None
    input_longitude: str | None = None
    latitude: str | None = None
    longitude: str | None = None
    exclude_times: list[str] = field(default_factory=list)
    factor: int | None = None
    regrid: bool = False

    locations: ClassVar[tuple[str, ...]] = ("inputs", "outputs", "static")

    @cached_property
    def _coarse(self) -> GriddedFiles:
        names = Names(self.time_dim, self.input_latitude, self.input_longitude)
        return GriddedFiles(self.inputs, "inputs", variables=self.input_variables, levels=self.levels, names=names)

    @cached_property
    def _fine(self) -> GriddedFiles | None:
        if not self.outputs:
            return None
        return GriddedFiles(self.outputs, "outputs", variables=self.output_variables, names=self._fine_names)

    @property
    def _fine_names(self) -> Names:
        return Names(self.time_dim, self.latitude, self.longitude)

    @cached_property
    def _static(self) -> StaticFields | None:
        path = self.static
        if path is None:
            if self._fine is None:
                raise InputError("there are no outputs: give the static fields of the fine grid")
            if self.static_variables is None:
                return None
            path = self._fine.paths[0]
        grid = (self._fine.dims, self._fine.shape) if self._fine else None
        found = read_static(path, self.static_variables, self._fine_names, grid)
        if self._fine is None or self._fine.points is None or found.points is None:
            return found
        flip = match_cells(found.points, self._fine.points, 1, (path, self._fine.paths[0]))
        _say_turned(flip, path)
        return replace(found, fields=np.ascontiguousarray(turned(found.fields, flip)), points=self._fine.points)

    @cached_property
    def _points(self) -> Points | None:
        """Of the fine grid."""
        if self._fine is not None and self._fine.points is not None:
            return self._fine.points
        return self._static.points if self._static else None

    @cached_property
    def _fine_shape(self) -> tuple[int, int]:
        if self._fine is not None:
            return self._fine.shape
        assert self._static is not None  # or the property has raised
        return self._static.fields.shape[1], self._static.fields.shape[2]

    @cached_property
    def _factor(self) -> int:
        if self.factor is not None and self.factor < 1:
            raise InputError(f"factor is {self.factor}; expected 1 or more")
        if not self.regrid:
            what = f"{self._coarse.paths[0]} (inputs) and the fine grid"
            found = require_factor(self._coarse.shape, self._fine_shape, what)
            if self.factor not in (None, found):
                raise InputError(f"factor is {self.factor}, but {what} have {found} points along a cell")
            return found
        if self.factor is None:
            raise InputError("regrid needs factor, the fine points along the cells to interpolate to")
        if any(size % self.factor for size in self._fine_shape):
            raise InputError(
                f"the fine grid has {self._fine_shape} points (y, x), no multiples of factor {self.factor}"
            )
        return self.factor

    @cached_property
    def _to_cells(self) -> LinearRegrid | None:
        if not self.regrid:
            return None
        if self._coarse.points is None or self._points is None:
            lacking = self._coarse.paths[0] if self._coarse.points is None else "the fine grid"
            raise InputError(f"regrid needs latitude and longitude, which {lacking} lacks; name them")
        cells = cell_centres(self._points.latitude, self._points.longitude, self._factor)
        return LinearRegrid(self._coarse.points.latitude, self._coarse.points.longitude, *cells, self._coarse.paths[0])

    @cached_property
    def _flip(self) -> Flip:
        """How coarse fields are turned."""
        if self.regrid or self._coarse.points is None or self._points is None:
            return NOT_TURNED
        grid = self._fine.paths[0] if self._fine else str(self.static)
        flip = match_cells(self._coarse.points, self._points, self._factor, (self._coarse.paths[0], grid))
        _say_turned(flip, "inputs")
        return flip

    @cached_property
    def _rows(self) -> tuple[Times, NDArray[np.int64], NDArray[np.int64]]:
        """Times that both have, and their numbers in the coarse and in the fine files."""
        coarse = self._coarse.times
        fine = coarse if self._fine is None else self._fine.times
        times, in_coarse, in_fine = np.intersect1d(coarse, fine, assume_unique=True, return_indices=True)
        kept = ~excluded(times, self.exclude_times)
        if len(times) < max(len(coarse), len(fine)):
            logger.info(
                "%d times are in inputs and outputs; left out: %d of the inputs, %d of the outputs",
                len(times), len(coarse) - len(times), len(fine) - len(times),
            )  # fmt: skip
        if not kept.all():
            logger.info("%d of %d times are excluded", int((~kept).sum()), len(times))
        if not kept.any():
            raise InputError(
                f"no time is left: inputs have {_span(coarse)}, outputs {_span(fine)}, {len(times)} are common, "
                f"{int((~kept).sum())} of these excluded"
            )
        return times[kept], in_coarse[kept], in_fine[kept]

    def _open(self) -> Pairs:
        times = self._rows[0]
        shape, factor = self._fine_shape, self._factor
        # what does not fit shows now, not when fields are read
        _ = self._to_cells, self._flip
        points, static = self._points, self._static
        if points is None:
            logger.warning("the fine grid has no latitude and longitude: they will be missing in all results")
        unknown = np.full(shape, np.nan, np.float32)
        latitude, longitude = (
            (unknown, unknown)
            if points is None
            else (np.asarray(v, np.float32) for v in (points.latitude, points.longitude))
        )
        paths = [
            *self._coarse.paths,
            *(self._fine.paths if self._fine else ()),
            *([self.static] if self.static else ()),
        ]
        return Pairs(
            inputs=self._coarse.all_channels,
            outputs=self._fine.all_channels if self._fine else (),
            static=static.channels if static else (),
            times=times,
            input_shape=(shape[0] // factor, shape[1] // factor),
            output_shape=shape,
            factor=factor,
            latitude=latitude,
            longitude=longitude,
            static_fields=static.fields if static else np.empty((0, *shape), np.float32),
            spacing_km=float("nan") if points is None else spacing_km(points.latitude, points.longitude),
            files=tuple(file for path in dict.fromkeys(paths) for file in manifest_files(path)),
        )

    def read_inputs(self, rows: slice) -> Field:
        """Coarse fields (n, input, h, w)."""
        fields = self._coarse.read(self._rows[1][rows])
        return self._to_cells(fields) if self._to_cells else np.ascontiguousarray(turned(fields, self._flip))

    def read_outputs(self, rows: slice) -> Field:
        """Fine fields (n, output, H, W)."""
        numbers = self._rows[2][rows]
        if self._fine is None:
            return np.empty((len(numbers), 0, *self._fine_shape), np.float32)
        return self._fine.read(numbers)


def excluded(times: Times, exclude: Sequence[str]) -> NDArray[np.bool_]:
    """Which times are named, each as precisely as it is written: a time, a day, a month, a year.

    Raises:
        InputError: what is named is no time.
    """
    out = np.zeros(len(times), bool)
    for word in exclude:
        try:
            moment = np.datetime64(word)
        except ValueError as error:
            raise InputError(f"exclude_times: {word!r} is no time; write 2020-03-01T06 or 2020-03-01") from error
        out |= times.astype(moment.dtype) == moment
    return out


def _say_turned(flip: Flip, what: str) -> None:
    axes = [name for name, turn in zip(("rows", "columns"), flip, strict=True) if turn]
    if axes:
        logger.info("%s: %s are turned, to go as those of the fine fields", what, " and ".join(axes))


def _span(times: Times) -> str:
    return f"{len(times)} from {times[0]} to {times[-1]}" if len(times) else "none"
