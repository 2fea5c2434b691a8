"""HRRR-Mini: crops of ERA5 and of HRRR analyses over the United States in one NetCDF-4 file."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ai4sim.errors import InputError, MissingFileError
from downscaling.corrdiff.readers.base import Channel, Field, Pairs
from downscaling.corrdiff.readers.coordinates import require_factor, spacing_km
from downscaling.corrdiff.readers.files import FileSource, listed, runs
from downscaling.corrdiff.readers.times import as_times

INVARIANTS = ("elev_mean", "lsm_mean")
GROUPS = ("input", "output", "invariant")


@dataclass(frozen=True, eq=False)
class HrrrMini(FileSource):
    """The teaching set of CorrDiff, or a file of its schema.

    Root: ``time`` (sample), CF time; ``coord`` (sample, 2), integers, first row and column of the sample on the grid
    of the invariants. Group ``input``: (sample, h, w), 26 variables of ERA5 on 8 x 8 cells; ``output``: (sample, H, W),
    ``10u``, ``10v`` (m s-1), ``2t`` (K) and ``tp`` of HRRR on 64 x 64 points of 3 km; ``invariant``: (1059, 1799),
    ``elev_mean`` (m), ``lsm_mean`` (0 to 1), ``latitude``, ``longitude``. Dimensions are known by their place, not by
    their names. Samples of one time are parts of the same weather: split by time.

    Source: NVIDIA NGC, modulus_datasets-hrrr_mini (an account is needed); HRRR is in the public domain (NOAA), ERA5
    is under the Copernicus licence. 2018 to 2021.

    Args:
        file: the NetCDF-4 file.
        inputs: variables of the group ``input``; by default all, in the file's order.
        outputs: variables of the group ``output``; by default all, in the file's order.
        invariants: variables of the group ``invariant`` that are channels; by default `INVARIANTS`.
    """

    file: Path
    inputs: list[str] | None = None
    outputs: list[str] | None = None
    invariants: list[str] | None = None

    locations: ClassVar[tuple[str, ...]] = ("file",)

    @cached_property
    def _groups(self) -> dict[str, xr.Dataset]:
        """The root, under an empty name, and the groups."""
        if not self.file.is_file():
            raise MissingFileError(f"{self.file} (HRRR-Mini) is not there; expected a NetCDF-4 file")
        try:
            with h5py.File(self.file) as opened:
                held = [name for name, value in opened.items() if isinstance(value, h5py.Group)]
            if lacking := [name for name in GROUPS if name not in held]:
                raise InputError(f"{self.file} has no group {lacking[0]!r}; it has {listed(held)}")
            return {
                name: xr.open_dataset(
                    self.file, group=name or None, engine="h5netcdf", phony_dims="sort", decode_timedelta=False
                )
                for name in ("", *GROUPS)
            }
        except InputError:
            raise
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise InputError(f"{self.file} is no NetCDF-4 file that can be read: {error}") from error

    def _variable(self, group: str, name: str, dims: Sequence[str]) -> xr.DataArray:
        where = f"group {group!r}" if group else "root group"
        dataset = self._groups[group]
        if name not in dataset.variables:
            raise InputError(
                f"{self.file}: the {where} has no variable {name!r}; it has {listed(list(dataset.variables))}"
            )
        array = dataset[name]
        if array.ndim != len(dims):
            raise InputError(
                f"{self.file}: {name!r} of the {where} has shape {array.shape}, expected ({', '.join(dims)})"
            )
        return array

    def _names(self, group: str, chosen: Sequence[str] | None) -> list[str]:
        """Variables of fields in a group, all of one shape."""
        held = [str(name) for name, array in self._groups[group].data_vars.items() if array.ndim == 3]
        names = held if chosen is None else list(chosen)
        if not names:
            raise InputError(f"{self.file}: no variable (sample, y, x) of the group {group!r} is chosen; it has {held}")
        shapes = {name: self._variable(group, name, ("sample", "y", "x")).shape for name in names}
        n = self._groups[""].sizes[str(self._variable("", "time", ("sample",)).dims[0])]
        for name, shape in shapes.items():
            if shape != (n, *shapes[names[0]][1:]):
                raise InputError(
                    f"{self.file}: {name!r} of the group {group!r} has shape {shape}, {names[0]!r} has "
                    f"{shapes[names[0]]}, and there are {n} times; expected (sample, y, x), all alike"
                )
        return names

    @cached_property
    def _input_names(self) -> list[str]:
        return self._names("input", self.inputs)

    @cached_property
    def _output_names(self) -> list[str]:
        return self._names("output", self.outputs)

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        """(n,) numbers of the samples in the file, in the order of their times."""
        times = as_times(self._variable("", "time", ("sample",)).values, f"{self.file}: 'time'")
        return np.argsort(times, kind="stable")

    def _open(self) -> Pairs:
        inputs, outputs = self._input_names, self._output_names
        static = list(INVARIANTS if self.invariants is None else self.invariants)
        fields = {
            name: np.asarray(self._variable("invariant", name, ("y", "x")).values, np.float32)
            for name in (*static, "latitude", "longitude")
        }
        shape = fields["latitude"].shape
        for name, values in fields.items():
            if values.shape != shape:
                raise InputError(
                    f"{self.file}: {name!r} of the group 'invariant' has shape {values.shape}, 'latitude' has {shape}"
                )
        coarse = self._shape("input", inputs[0])
        fine = self._shape("output", outputs[0])
        times = as_times(self._variable("", "time", ("sample",)).values, f"{self.file}: 'time'")
        return Pairs(
            inputs=self._channels("input", inputs),
            outputs=self._channels("output", outputs),
            static=self._channels("invariant", static),
            times=times[self._order],
            input_shape=coarse,
            output_shape=fine,
            factor=require_factor(coarse, fine, f"{self.file}: fields of the groups 'input' and 'output'"),
            latitude=fields["latitude"],
            longitude=fields["longitude"],
            static_fields=np.stack([fields[name] for name in static]) if static else np.empty((0, *shape), np.float32),
            corners=self._corners(fine, shape)[self._order],
            spacing_km=spacing_km(fields["latitude"], fields["longitude"]),
            files=(self.file,),
        )

    def _shape(self, group: str, name: str) -> tuple[int, int]:
        _, rows, columns = self._groups[group][name].shape
        return rows, columns

    def _channels(self, group: str, names: Sequence[str]) -> tuple[Channel, ...]:
        attributes = {name: self._groups[group][name].attrs for name in names}
        return tuple(
            Channel(name, str(attrs.get("units", "")), str(attrs.get("long_name", "")))
            for name, attrs in attributes.items()
        )

    def _corners(self, size: tuple[int, int], grid: tuple[int, ...]) -> NDArray[np.int64]:
        """(n, 2) in the file's order, all within the grid."""
        coord = self._variable("", "coord", ("sample", "2"))
        n = len(self._order)
        if coord.shape != (n, 2):
            raise InputError(
                f"{self.file}: 'coord' has shape {coord.shape}, expected ({n}, 2): (sample, row and column)"
            )
        if coord.dtype.kind not in "iu":
            raise InputError(f"{self.file}: 'coord' is of type {coord.dtype}; expected integers, rows and columns")
        corners = coord.values.astype(np.int64)
        outside = ((corners < 0) | (corners + size > grid)).any(axis=1)
        if outside.any():
            sample = int(outside.argmax())
            raise InputError(
                f"{self.file}: sample {sample} with coord {tuple(corners[sample].tolist())} and {size[0]} x {size[1]} "
                f"points is not within the grid {grid[0]} x {grid[1]} of the group 'invariant'; so are "
                f"{int(outside.sum())} of {len(corners)} samples"
            )
        return corners

    def read_inputs(self, rows: slice) -> Field:
        """Coarse fields (n, input, h, w)."""
        return self._read("input", self._input_names, rows)

    def read_outputs(self, rows: slice) -> Field:
        """Fine fields (n, output, H, W)."""
        return self._read("output", self._output_names, rows)

    def _read(self, group: str, names: Sequence[str], rows: slice) -> Field:
        numbers = self._order[rows]
        out = np.empty((len(numbers), len(names), *self._shape(group, names[0])), np.float32)
        for channel, name in enumerate(names):
            array = self._groups[group][name]
            start = 0
            for run in runs(numbers):
                n = run.stop - run.start
                try:
                    out[start : start + n, channel] = array[run].values
                except (OSError, ValueError, RuntimeError) as error:
                    raise InputError(
                        f"{self.file}: {name!r} of the group {group!r} cannot be read, the file may be truncated: "
                        f"{error}"
                    ) from error
                start += n
        return out
