"""Coarse predictors of a global model (GFS, 0.25 degrees): one NetCDF file a cycle."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ai4sim.datasets import open_dataset
from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.readers.files import require_valid_time, seconds, stamp, where
from precip_postproc.resunet_qpf.readers.grid import LatLonGrid
from precip_postproc.resunet_qpf.readers.netcdf import find, find_layout, lead_hours, read_times

UNITS = {
    "pwat": ("kg m-2", "mm"),
    "r": ("%",),
    "cape": ("J kg-1", "J/kg"),
    "u": ("m s-1", "m/s"),
    "v": ("m s-1", "m/s"),
    "u10": ("m s-1", "m/s"),
    "v10": ("m s-1", "m/s"),
}
"""Predictors and the spellings of their units."""

Field = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class CoarsePredictors:
    """Fields of one cycle.

    Args:
        init: initial time.
        leads: hours.
        fields: (lead, y, x) from the south-west, by name, in the first units of :data:`UNITS`.
        grid: latitudes and longitudes.
        source: file, for messages.
    """

    init: np.datetime64
    leads: list[int]
    fields: dict[str, Field]
    grid: LatLonGrid
    source: str

    def at(self, name: str, lead: int) -> Field:
        """Field (y, x) of a lead time.

        Raises:
            InputError: the cycle has no such lead: another one is never taken for it.
        """
        if lead not in self.leads:
            raise InputError(f"{self.source} has no lead {lead} h; it has {', '.join(map(str, self.leads))}")
        field: Field = self.fields[name][self.leads.index(lead)]
        return field


def gfs_path(folder: Path | str, init: np.datetime64) -> Path:
    """Where a cycle is.

    Args:
        folder: of all cycles.
        init: initial time.
    """
    return Path(folder) / f"gfs_subset_{stamp(init, '%Y%m%d%H')}.nc"


def read_gfs(path: Path | str, names: Sequence[str], init: np.datetime64 | None = None) -> CoarsePredictors:
    """Read some predictors of a cycle.

    Args:
        path: NetCDF file, or Zarr store.
        names: of :data:`UNITS`.
        init: initial time that is expected; default: the file's.

    Raises:
        MissingFileError: the file is not there.
        InputError: a variable is missing, has other units or values that are not finite; another initial time, or a
            valid time that is not initial time plus lead.
    """
    source = str(path)
    if unknown := [name for name in names if name not in UNITS]:
        raise InputError(f"the predictor {unknown[0]!r} is not known; known are {', '.join(UNITS)}")
    with open_dataset(path, "coarse predictors") as dataset:
        layout = find_layout(dataset, source)
        if not isinstance(layout.grid, LatLonGrid):
            raise InputError(f"{source} has latitudes of two dimensions; coarse predictors need one")
        leads = lead_hours(dataset[find(dataset, ("step",), "lead time", source)], source)
        start = read_times(dataset[find(dataset, ("time",), "initial time", source)], source).ravel()
        if len(start) != 1 or (init is not None and start[0] != seconds(init)):
            expected = "one" if init is None else seconds(init)
            raise InputError(f"{source} has the initial time {', '.join(map(str, start))}, expected {expected}")
        if "valid_time" in dataset.variables:
            valid = np.broadcast_to(read_times(dataset["valid_time"], source).ravel(), len(leads))
            for lead, time in zip(leads, valid, strict=True):
                require_valid_time(start[0], lead, time, source)
        fields = {}
        for name in names:
            array = dataset[find(dataset, (name,), f"predictor {name}", source)]
            units = str(array.attrs.get("units", "")).replace("**", "")
            if units not in UNITS[name]:
                raise InputError(f"{source}: {name!r} has units {units!r}, expected {UNITS[name][0]!r}")
            field = layout.read(array)
            if field.shape != (len(leads), *layout.grid.shape):
                raise InputError(
                    f"{source}: {name!r} has dimensions {array.dims} and shape {array.shape}, expected (step, "
                    f"latitude, longitude) of {(len(leads), *layout.grid.shape)}"
                )
            bad = ~(np.abs(field) < 1e30)
            if bad.any():
                step = int(bad.any(axis=(1, 2)).argmax())
                raise InputError(f"{source}: {name!r} at step {leads[step]} h is missing at {where(bad[step])}")
            fields[name] = field
    return CoarsePredictors(start[0], leads, fields, layout.grid, source)
