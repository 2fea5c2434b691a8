"""Opening raw files with messages that name them."""

from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ai4sim.errors import InputError
from ai4sim.experiment import data_folder
from weather_forecast.lam import config

GRAVITY = 9.80665  # m s-2
HEIGHT_UNITS = ("m", "metre", "metres", "meter", "meters", "gpm")


def locate(path: Path | str) -> str:
    """Where a raw data set is: a URL or an absolute path as it is, a relative one from here or below ``data/raw``."""
    text = str(path)
    if "://" in text or "::" in text:
        return text
    given = Path(text).expanduser()
    return str(given if given.is_absolute() or given.exists() else data_folder(config.USE_CASE) / "raw" / given)


def read_array(path: Path, what: str, *, mapped: bool = False) -> NDArray[np.generic]:
    """Read an npy file; nothing is unpickled.

    Args:
        path: the file.
        what: what it holds, for messages.
        mapped: map it into memory, to read a part.

    Raises:
        InputError: it is not there, or is truncated or of another kind.
    """
    try:
        values = np.load(path, allow_pickle=False, mmap_mode="r" if mapped else None)
    except FileNotFoundError as error:
        raise InputError(f"{path} ({what}) is not there") from error
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} ({what}) cannot be read, it is truncated or no array of numbers: {error}") from error
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
        raise InputError(f"{path} ({what}) is no npy file of one array of real numbers")
    return values


def require_shape(values: NDArray[np.generic], shape: tuple[int, ...], path: Path | str, what: str) -> None:
    """Refuse an array of another shape.

    Raises:
        InputError: names file, content, found and expected shape.
    """
    if values.shape != shape:
        raise InputError(f"{path}: {what} has shape {values.shape}, expected {shape}")


def surface_geopotential(array: xr.DataArray, path: str, dims: tuple[str, str]) -> NDArray[np.float64]:
    """The surface's geopotential (lat, lon), m2 s-2, of a variable that holds it or the height (units m).

    Raises:
        InputError: the variable is not on the grid.
    """
    static = array.isel({dim: 0 for dim in array.dims if dim not in dims})
    if set(static.dims) != set(dims):
        raise InputError(f"{path}: {array.name!r} has dimensions {array.dims}, expected {dims}")
    values = static.transpose(*dims).values.astype(np.float64)
    return values * GRAVITY if array.attrs.get("units") in HEIGHT_UNITS else values


def same_units(one: str, other: str) -> bool:
    """Whether two spellings mean the same: m s**-1, m s^-1 and m s-1; 1, a blank and (0 - 1)."""

    def plain(text: str) -> str:
        text = text.replace("**", "").replace("^", "")
        return " ".join(sorted(text.split())) or "1"

    return plain(one) == plain(other)
