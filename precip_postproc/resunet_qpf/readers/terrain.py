"""Terrain of a forecast's grid: heights, their smoothed form and slopes, in NetCDF."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ai4sim.datasets import open_dataset
from ai4sim.errors import InputError
from ai4sim.schema import Schema, Variable
from precip_postproc.resunet_qpf.readers.files import where
from precip_postproc.resunet_qpf.readers.grid import Grid
from precip_postproc.resunet_qpf.readers.netcdf import find_layout

Field = NDArray[np.float32]

HEIGHT, SMOOTHED, MULTISIGMA = "terrain_height", "terrain_height_smoothed", "terrain_height_smoothed_multisigma"
DIFFERENCE = "terrain_height_local_difference"
SLOPES = ("dterrain_dlon_smoothed", "dterrain_dlat_smoothed")

_DIMS = ("ny", "nx")


def _variable(name: str, low: float, high: float, *, optional: bool = False) -> Variable:
    # published files do not always have units
    return Variable(name, _DIMS, "", valid_range=(low, high), optional=optional)


SCHEMA = Schema(
    "terrain",
    1,
    (
        Variable("lats", _DIMS, "", valid_range=(-90, 90)),
        Variable("lons", _DIMS, "", valid_range=(-360, 360)),
        _variable(HEIGHT, -500, 9000),
        _variable(SMOOTHED, -500, 9000),
        _variable(DIFFERENCE, -5000, 5000),
        *(_variable(name, -2, 2) for name in SLOPES),
        *(_variable(name, -2, 2, optional=True) for name in ("dterrain_dlon", "dterrain_dlat")),
        *(_variable(f"{name}_difference", -4, 4, optional=True) for name in ("dterrain_dlon", "dterrain_dlat")),
        Variable(MULTISIGMA, ("nsigma", *_DIMS), "", valid_range=(-500, 9000), optional=True),
        Variable("sigmas", ("nsigma",), "", valid_range=(0, 1000), optional=True),
    ),
)

_UNITS = {HEIGHT: ("m", "metres", "meters"), DIFFERENCE: ("m", "metres", "meters"), SMOOTHED: ("m", "metres", "meters")}


@dataclass(frozen=True, eq=False)
class Terrain:
    """Fields of a terrain file.

    Args:
        grid: where the points are.
        fields: (y, x) from the south-west, by the names of the file: heights and their differences in m, slopes to the
            east (``dlon``) and to the north (``dlat``) in m m-1; (nsigma, y, x) where there are several smoothings.
        sigmas: (nsigma,) standard deviations of the Gaussian smoothings, grid points; None where there are none.
        source: file, for messages.
    """

    grid: Grid
    fields: dict[str, Field]
    sigmas: NDArray[np.float64] | None
    source: str


def read_terrain(path: Path | str, grid: Grid | None = None) -> Terrain:
    """Read a terrain file.

    Args:
        path: NetCDF file, or Zarr store.
        grid: of the forecast; the file must have the same one.

    Raises:
        MissingFileError: the file is not there.
        InputError: a variable is missing, of other dimensions or units, out of range; slopes that run against the
            heights; another grid.
    """
    source = str(path)
    with open_dataset(path, "terrain") as dataset:
        SCHEMA.check(dataset, source, values=True)
        for name, units in _UNITS.items():
            if dataset[name].attrs.get("units", "m") not in units:
                raise InputError(f"{source}: {name!r} has units {dataset[name].attrs['units']!r}, expected 'm'")
        layout = find_layout(dataset, source)
        names = [v.name for v in SCHEMA.variables if v.dims[-2:] == _DIMS and v.name in dataset]
        fields = {name: layout.read(dataset[name]) for name in names if name not in ("lats", "lons")}
        sigmas = dataset["sigmas"].values.astype(np.float64) if "sigmas" in dataset else None
    _require_slopes(fields, source)
    return Terrain(layout.on(grid, "the forecast"), fields, sigmas, source)


def _require_slopes(fields: dict[str, Field], source: str) -> None:
    """Refuse slopes that fall where the heights rise: they belong to rows or columns in another order."""
    for name, axis, to in zip(SLOPES, (1, 0), ("east", "north"), strict=True):
        rise = np.gradient(fields[SMOOTHED].astype(np.float64), axis=axis).ravel()
        slope = fields[name].astype(np.float64).ravel()
        spread = rise.std() * slope.std()
        if spread > 0 and ((rise - rise.mean()) * (slope - slope.mean())).mean() / spread < -0.5:
            bad = (rise * slope < 0).reshape(fields[name].shape)
            raise InputError(
                f"{source}: {name!r} is not the slope to the {to}, it falls where {SMOOTHED!r} rises at {where(bad)}"
            )
