"""Opening files and stores of others with messages that name them."""

from pathlib import Path

import xarray as xr

from ai4sim.errors import InputError, MissingFileError


def open_dataset(path: Path | str, what: str) -> xr.Dataset:
    """Open a NetCDF file, or a Zarr store (a folder, or a URL that ends in .zarr), without reading its fields.

    Differences of time, such as lead times, stay numbers with their units.

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
        opened: xr.Dataset = (
            xr.open_zarr(text, chunks=None, decode_timedelta=False)
            if store
            else xr.open_dataset(text, decode_timedelta=False)
        )
        return opened
    except (OSError, ValueError, KeyError) as error:
        kind = "Zarr store" if store else "NetCDF file"
        raise InputError(f"{text} ({what}) is no {kind} that can be read, it may be truncated: {error}") from error
