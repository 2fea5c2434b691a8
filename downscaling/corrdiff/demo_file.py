"""The demo's samples and what ``stats.json`` says of them, in the schema of HRRR-Mini.

The NetCDF-4 file has one row per sample, the samples of a time together, times in order:

- root: ``time`` (sample), which repeats, and ``coord`` (sample, 2), first row and column of the crop on the whole grid;
- ``input``: coarse variables (sample, y_lr, x_lr);
- ``output``: fine variables (sample, y_hr, x_hr);
- ``invariant``: (y, x) of the whole grid.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import h5netcdf
import numpy as np
from numpy.typing import NDArray

from ai4sim.normalization import RunningStatistics
from downscaling.corrdiff.periodic import Array
from downscaling.corrdiff.readers.statistics_file import Moments, Statistics

TRAIN = "hrrr_mini_train.nc"
STATS = "stats.json"

# units and long name
INPUTS = {
    "10u": ("m s-1", "coarse wind at 10 m along the rows"),
    "10v": ("m s-1", "coarse wind at 10 m along the columns"),
    "2t": ("K", "coarse temperature at 2 m"),
    "tcwv": ("kg m-2", "total column water vapour"),
    "msl": ("Pa", "mean sea level pressure"),
    "u850": ("m s-1", "wind at 850 hPa along the rows"),
    "v850": ("m s-1", "wind at 850 hPa along the columns"),
    "t850": ("K", "temperature at 850 hPa"),
}
OUTPUTS = {
    "10u": ("m s-1", "wind at 10 m along the rows"),
    "10v": ("m s-1", "wind at 10 m along the columns"),
    "2t": ("K", "temperature at 2 m"),
    "tp": ("mm h-1", "precipitation rate"),
}
INVARIANTS = {
    "elev_mean": ("m", "height of the ground above sea level"),
    "lsm_mean": ("1", "share of land"),
    "latitude": ("degrees_north", "latitude"),
    "longitude": ("degrees_east", "longitude"),
}
TIME_ATTRIBUTES = {
    "units": "hours since 1990-01-01 00:00:00", "calendar": "standard", "standard_name": "time",
    "long_name": "valid time",
}  # fmt: skip
EPOCH = np.datetime64("1990-01-01T00", "h")


class SampleFile:
    """A file of samples that is being written.

    Args:
        path: the file.
        samples: how many there will be.
        input_shape: rows and columns of the coarse fields.
        output_shape: rows and columns of the fine fields.
        invariants: fields (Y, X) of the whole grid, by name.
        attributes: of the file.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        samples: int,
        input_shape: tuple[int, int],
        output_shape: tuple[int, int],
        invariants: Mapping[str, Array],
        attributes: Mapping[str, str],
    ) -> None:
        self._file = file = h5netcdf.File(path, "w")
        self._next = 0
        self._times: list[np.datetime64] = []
        self._statistics = {"input": RunningStatistics(len(INPUTS)), "output": RunningStatistics(len(OUTPUTS))}
        whole = next(iter(invariants.values())).shape
        sizes = zip(
            ("sample", "corner", "y_lr", "x_lr", "y_hr", "x_hr", "y", "x"),
            (samples, 2, *input_shape, *output_shape, *whole),
            strict=True,
        )
        file.dimensions = dict(sizes)
        file.attrs.update(attributes)
        time = file.create_variable("time", ("sample",), np.int64)
        time.attrs.update(TIME_ATTRIBUTES)
        coord = file.create_variable("coord", ("sample", "corner"), np.int64)
        coord.attrs.update(units="1", long_name="first row and column of the crop on the invariants' grid")
        for group, variables, dims in (
            ("input", INPUTS, ("sample", "y_lr", "x_lr")),
            ("output", OUTPUTS, ("sample", "y_hr", "x_hr")),
            ("invariant", INVARIANTS, ("y", "x")),
        ):
            parent = file.create_group(group)
            for name, (units, long_name) in variables.items():
                variable = parent.create_variable(name, dims, np.float32)
                variable.attrs.update(units=units, long_name=long_name)
        self._invariants = {name: np.asarray(invariants[name], np.float32) for name in INVARIANTS}
        for name, values in self._invariants.items():
            file["invariant"][name][:] = values

    def __enter__(self) -> "SampleFile":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def append(
        self,
        time: np.datetime64,
        corners: NDArray[np.int64],
        inputs: Mapping[str, NDArray[np.float32]],
        outputs: Mapping[str, NDArray[np.float32]],
    ) -> None:
        """Add samples of one time.

        Args:
            time: UTC.
            corners: (m, 2) first rows and columns of the crops.
            inputs: coarse fields (m, h, w) by name.
            outputs: fine fields (m, H, W) by name.
        """
        rows = slice(self._next, self._next + len(corners))
        self._next = rows.stop
        self._times.append(time)
        self._file["time"][rows] = np.full(len(corners), (time - EPOCH) / np.timedelta64(1, "h")).astype(np.int64)
        self._file["coord"][rows] = corners
        for group, names, fields in (("input", INPUTS, inputs), ("output", OUTPUTS, outputs)):
            for name in names:
                self._file[group][name][rows] = fields[name]
            self._statistics[group].update(np.stack([fields[name] for name in names], axis=-1))

    def statistics(self) -> Statistics:
        """Mean and standard deviation of every variable: over all samples so far, and over the whole grid."""
        invariant = RunningStatistics(len(INVARIANTS)).update(np.stack(list(self._invariants.values()), axis=-1))
        return Statistics(
            input=_moments(INPUTS, self._statistics["input"]),
            output=_moments(OUTPUTS, self._statistics["output"]),
            invariant=_moments(INVARIANTS, invariant),
            period=(str(self._times[0]), str(self._times[-1])),
            n_samples=self._next,
        )


def _moments(names: Iterable[str], running: RunningStatistics) -> dict[str, Moments]:
    found = running.result()
    pairs = zip(found.mean.tolist(), found.std.tolist(), strict=True)
    return {name: Moments(mean, std) for name, (mean, std) in zip(names, pairs, strict=True)}
