"""NetCDF-4 files, written as HDF5 with dimension scales, which they are: a third of the time that h5netcdf takes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from ai4sim.atomic import atomic_path
from precip_postproc.resunet_qpf.readers.grid import Grid

Floats = NDArray[np.floating[Any]]

# a power of two: the last bytes are zeros, which compress well
COORDINATE_RESOLUTION = 2.0**-13  # degrees
LARGEST_CHUNK = 2**15  # values

_NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable.%10d"


class Variable(NamedTuple):
    """A variable of a NetCDF file.

    Attributes:
        dims: names of the dimensions.
        values: as they are stored.
        attributes: of the variable.
    """

    dims: tuple[str, ...]
    values: NDArray[Any]
    attributes: Mapping[str, Any] = {}


def write_netcdf(path: Path, variables: Mapping[str, Variable], attributes: Mapping[str, Any]) -> None:
    """Write a NetCDF-4 file that is whole or not there.

    Args:
        path: the file; its folder is made.
        variables: by name; fields of two dimensions and more are compressed.
        attributes: of the file.
    """
    with atomic_path(path) as partial, h5py.File(partial, "w") as file:
        file.attrs.update(attributes)
        add_variables(file, variables)


def add_variables(file: h5py.File, variables: Mapping[str, Variable]) -> dict[str, h5py.Dataset]:
    """Add variables, and the dimensions that they have; gives these out.

    Args:
        file: open for writing.
        variables: by name.

    Returns:
        Scales of the dimensions, for :func:`attach`.
    """
    sizes: dict[str, int] = {}
    for variable in variables.values():
        sizes |= zip(variable.dims, variable.values.shape, strict=True)
    scales = {}
    for dim, size in sizes.items():
        known = variables.get(dim)
        scales[dim] = file.create_dataset(dim, **({"data": known.values} if known else {"shape": size, "dtype": ">f4"}))
        scales[dim].make_scale(dim if known else _NO_VARIABLE % size)
    for name, variable in variables.items():
        if name in scales:
            dataset = scales[name]
        else:
            dataset = file.create_dataset(name, data=variable.values, **storage(variable.values.shape))
            attach(dataset, [scales[dim] for dim in variable.dims])
        for key, value in variable.attributes.items():
            dataset.attrs[key] = value
    return scales


def storage(shape: tuple[int, ...]) -> dict[str, Any]:
    """Compression of fields; a chunk is what is read at once: a large field, or all small ones.

    Args:
        shape: of the variable.

    Returns:
        Arguments of ``h5py.File.create_dataset``.
    """
    if len(shape) < 2:
        return {}
    chunks = shape if np.prod(shape) <= LARGEST_CHUNK else (*(1 for _ in shape[:-2]), *shape[-2:])
    return {"chunks": chunks, "compression": 1, "shuffle": True}


def attach(dataset: h5py.Dataset, scales: Sequence[h5py.Dataset]) -> None:
    """Say which dimensions a variable has.

    Args:
        dataset: the variable.
        scales: its dimensions, in order.
    """
    for axis, scale in enumerate(scales):
        dataset.dims[axis].attach_scale(scale)


def places(grid: Grid, dims: tuple[str, str], names: tuple[str, str]) -> dict[str, Variable]:
    """Latitude and longitude (y, x), degrees, rounded to 1e-4.

    Args:
        grid: of the fields.
        dims: names of rows and columns.
        names: of the two variables.
    """
    units = ("degrees_north", "degrees_east")
    return {
        name: Variable(dims, rounded(values, COORDINATE_RESOLUTION), {"units": unit})
        for name, values, unit in zip(names, (grid.latitude, grid.longitude), units, strict=True)
    }


def rounded(values: Floats, resolution: float) -> Floats:
    """Values (...) in steps.

    Args:
        values: to round.
        resolution: the step.
    """
    result: Floats = np.round(values / resolution) * resolution
    return result
