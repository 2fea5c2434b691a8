"""Opening files and stores of others with messages that name them."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

from ai4sim.errors import InputError, MissingFileError

SMALL = 16 * 2**20  # bytes
"""Files up to this size are read at once: opening them lazily would take ten times as long as reading them."""

_HIDDEN = ("CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "_Netcdf4Dimid", "_Netcdf4Coordinates", "_nc3_strict")
_ONLY_DIMENSION = b"This is a netCDF dimension but not a netCDF variable"


def open_dataset(path: Path | str, what: str) -> xr.Dataset:
    """Open a NetCDF file, or a Zarr store (a folder, or a URL that ends in .zarr).

    Fields are read when they are used, except those of small NetCDF-4 files. Differences of time, such as lead times,
    stay numbers with their units.

    Args:
        path: the file or store.
        what: what it holds, for messages.

    Raises:
        MissingFileError: it is not there.
        InputError: it is neither of the two.
    """
    text = str(path)
    local = "://" not in text and "::" not in text
    if local and not Path(text).exists():
        raise MissingFileError(f"{text} ({what}) is not there; give a NetCDF file or a Zarr store")
    store = Path(text).is_dir() if local else text.rstrip("/").endswith(".zarr")
    try:
        if local and not store and Path(text).stat().st_size <= SMALL and h5py.is_hdf5(text):
            small = _read_small(text)
            if small is not None:
                return xr.decode_cf(small, decode_timedelta=False)
        opened: xr.Dataset = (
            xr.open_zarr(text, chunks=None, decode_timedelta=False)
            if store
            else xr.open_dataset(text, decode_timedelta=False)
        )
        return opened
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        kind = "Zarr store" if store else "NetCDF file"
        raise InputError(f"{text} ({what}) is no {kind} that can be read, it may be truncated: {error}") from error


def _read_small(path: str) -> xr.Dataset | None:
    """All variables of a NetCDF-4 file as they are stored; None for one that is not as plain as that."""
    variables: dict[str, xr.Variable] = {}
    sizes: dict[str, int] = {}
    with h5py.File(path, "r") as file:
        for name, stored in file.items():
            # xarray puts single characters together to texts
            if not isinstance(stored, h5py.Dataset) or stored.dtype.kind == "S":
                return None
            attrs = dict(stored.attrs)
            if attrs.get("NAME", b"").startswith(_ONLY_DIMENSION):
                if sizes.setdefault(name, len(stored)) != len(stored):
                    return None
                continue
            if "DIMENSION_LIST" in attrs:
                dims = [file[scales[0]].name.lstrip("/") for scales in attrs["DIMENSION_LIST"]]
            elif stored.ndim <= 1:
                dims = [name] * stored.ndim
            else:
                return None
            kept = {key: _plain(value) for key, value in attrs.items() if key not in _HIDDEN}
            text = h5py.check_string_dtype(stored.dtype)
            values = stored.asstr()[...] if text else stored[...]
            # where a dimension has grown, a variable may be shorter than it: what is beyond are fill values
            if any(sizes.setdefault(dim, size) != size for dim, size in zip(dims, values.shape, strict=True)):
                return None
            variables[name] = xr.Variable(dims, values, kept, {"dtype": str} if text else None)
        attributes = {key: _plain(value) for key, value in file.attrs.items() if key != "_NCProperties"}
    coords = [name for name, variable in variables.items() if variable.dims == (name,)]
    return xr.Dataset(variables, attrs=attributes).set_coords(coords)


def _plain(value: Any) -> Any:
    """An attribute as xarray has it: text and single numbers are no arrays."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, h5py.Empty):
        return ""
    if isinstance(value, np.ndarray) and value.dtype.kind in "SO":
        texts = [text.decode() if isinstance(text, bytes) else text for text in value.ravel()]
        return texts[0] if len(texts) == 1 else texts
    return value[0] if isinstance(value, np.ndarray) and value.size == 1 else value
