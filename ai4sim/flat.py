"""The optional flat training copy of a store: one memory-mapped ``.npy`` file per variable.

It exists for speed alone: rows are gathered from the page cache with nothing to decode (float32), or with
half the bytes to read (int16 with scale and offset). It carries the fingerprint of the store it was made
from, and is refused when that store has changed.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import fsspec
import numpy as np
import numpy.typing as npt
import xarray as xr

from ai4sim.atomic import exclusive
from ai4sim.manifest import MANIFEST_NAME, PathLike, StoreError, is_local, read_manifest

Array = npt.NDArray[Any]

_FORMAT = "ai4sim-flat-1"
_STEPS = 65534  # between -32767 and 32767
_BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class FlatVariable:
    """One variable of a flat copy.

    Args:
        file: its ``.npy`` file.
        dims: dimension names, rows first.
        shape: of the whole variable.
        units: UDUNITS string.
        scale: what one int16 step is worth, of a shape that broadcasts against one sample; None for float32.
        offset: the value that 0 stands for, likewise.
    """

    file: Path
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    units: str
    scale: npt.NDArray[np.float32] | None
    offset: npt.NDArray[np.float32] | None

    def rows(self) -> Array:
        """The memory-mapped file, as it is stored."""
        try:
            # a plain view: indexing the memmap class costs several microseconds more
            rows = np.asarray(np.load(self.file, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError) as error:
            raise StoreError(f"{self.file} is missing or damaged ({error}); make the flat copy again") from error
        if rows.shape != self.shape:
            raise StoreError(f"{self.file} has shape {rows.shape}, expected {self.shape}; make the flat copy again")
        return rows


def make_flat(
    store: PathLike,
    path: PathLike,
    *,
    variables: Sequence[str] | None = None,
    dtype: Literal["float32", "int16"] = "float32",
    scale_axis: int | None = None,
    block_bytes: int = _BLOCK_BYTES,
) -> Path:
    """Make (or find up to date) the flat copy of a store.

    Args:
        store: whole processed store, folder or URL.
        path: local folder of the copy. It appears there when it is complete; an interrupted copy starts anew.
        variables: those to copy; default: all floating-point variables that have the store's first dimension.
        dtype: ``float32``, or ``int16`` with scale and offset: half the size, exact to half a step.
        scale_axis: axis of the variable along which scale and offset differ: -1 for features in the last
            axis, 1 for channels. Default: the last axis of two-dimensional variables, axis 1 of others.
        block_bytes: memory used at once, about.

    Returns:
        The folder.

    Raises:
        StoreError: no whole store there; or values that int16 cannot hold (missing or infinite).
    """
    if dtype not in ("float32", "int16"):
        raise ValueError(f"dtype {dtype!r} is unknown; choose float32 or int16")
    origin = read_manifest(store)
    target = Path(path)
    if target.is_dir() and any(target.iterdir()) and not is_flat(target):
        raise StoreError(f"{target} holds files that are no flat copy: remove them or name another folder")
    partial = target.with_name(f"{target.name}.partial")
    with xr.open_zarr(str(store), chunks=None, consolidated=True) as dataset:
        names = list(variables) if variables is not None else _default_variables(dataset)
        if unknown := [name for name in names if name not in dataset.variables]:
            raise StoreError(f"{store} has no variable {unknown[0]!r}; it has {', '.join(map(str, dataset.variables))}")
        wanted = {"variables": sorted(names), "dtype": dtype, "scale_axis": scale_axis}
        if _is_copy(target, origin.fingerprint, wanted):
            return target
        try:
            with exclusive(partial, str(target)):
                # another process may have made it meanwhile
                if not _is_copy(target, origin.fingerprint, wanted):
                    data = partial / "data"
                    shutil.rmtree(data, ignore_errors=True)
                    data.mkdir()
                    copied = {name: _copy(dataset[name], data, dtype, scale_axis, block_bytes) for name in names}
                    content = {
                        "format": _FORMAT,
                        "store": _origin_path(store),
                        "fingerprint": origin.fingerprint,
                        "made_with": wanted,
                        "variables": copied,
                    }
                    (data / MANIFEST_NAME).write_text(json.dumps(content, indent=1) + "\n")
                    if target.exists():
                        shutil.rmtree(target)
                    data.rename(target)
                shutil.rmtree(partial)
        except OSError as error:
            raise StoreError(f"cannot write the flat copy {target}: {error.strerror} ({error.filename})") from error
    return target


def _is_copy(path: Path, fingerprint: str, made_with: dict[str, Any]) -> bool:
    """Whether a finished copy of just this is there."""
    if not is_flat(path):
        return False
    content = _content(path)
    return bool(content["fingerprint"] == fingerprint and content["made_with"] == made_with)


def is_flat(path: PathLike) -> bool:
    """Whether a finished flat copy is there."""
    filesystem, root = fsspec.url_to_fs(str(path))
    if not is_local(filesystem):
        return False
    manifest = Path(root) / MANIFEST_NAME
    return manifest.is_file() and not (Path(root) / "zarr.json").exists()


def open_flat(path: PathLike, store: PathLike | None = None) -> dict[str, FlatVariable]:
    """Open a flat copy.

    Args:
        path: its folder.
        store: what it must be a copy of; default: the store it was made from, if that is still there.

    Raises:
        StoreError: it is not whole, or the store has changed since.
    """
    content = _content(Path(path))
    if store is None and Path(content["store"], MANIFEST_NAME).exists():
        store = content["store"]
    if store is not None and read_manifest(store).fingerprint != content["fingerprint"]:
        raise StoreError(f"the flat copy {path} is out of date: {store} has changed since; make it again")
    return {
        name: FlatVariable(
            file=Path(path) / variable["file"],
            dims=tuple(variable["dims"]),
            shape=tuple(variable["shape"]),
            units=variable["units"],
            scale=_float32(variable["scale"]),
            offset=_float32(variable["offset"]),
        )
        for name, variable in content["variables"].items()
    }


def _content(path: Path) -> dict[str, Any]:
    file = path / MANIFEST_NAME
    try:
        content: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError:
        raise StoreError(f"{path} is no finished flat copy: it has no {MANIFEST_NAME}") from None
    except ValueError as error:
        raise StoreError(f"{file} is damaged ({error}); make the flat copy again") from error
    if content.get("format") != _FORMAT:
        raise StoreError(f"{file} is not the manifest of a flat copy of format {_FORMAT}; make it again")
    return content


def _origin_path(store: PathLike) -> str:
    filesystem, root = fsspec.url_to_fs(str(store))
    return str(Path(root).resolve()) if is_local(filesystem) else str(store)


def _default_variables(dataset: xr.Dataset) -> list[str]:
    floating = [name for name, array in dataset.data_vars.items() if array.dtype.kind == "f" and array.ndim]
    first = dataset[floating[0]].dims[0] if floating else None
    return [str(name) for name in floating if dataset[name].dims[0] == first]


def _copy(array: xr.DataArray, folder: Path, dtype: str, scale_axis: int | None, block_bytes: int) -> Mapping[str, Any]:
    """Copy one variable block by block, and describe it for the manifest."""
    name = str(array.name)
    scale = offset = None
    if dtype == "int16":
        scale, offset = _scale_and_offset(array, scale_axis, block_bytes)
    file = np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=array.shape)
    for rows, values in _blocks(array, block_bytes):
        if scale is not None and offset is not None:
            file[rows] = np.rint((values - offset.astype(np.float64)) / scale)
        else:
            file[rows] = values
        # written pages would count as this process's memory until the end
        file.flush()
    return {
        "file": f"{name}.npy",
        "dims": [str(dim) for dim in array.dims],
        "shape": list(array.shape),
        "units": str(array.attrs.get("units", "")),
        "scale": None if scale is None else scale.tolist(),
        "offset": None if offset is None else offset.tolist(),
    }


def _scale_and_offset(
    array: xr.DataArray, scale_axis: int | None, block_bytes: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Spread the 65535 values of int16 over the range of each feature (or channel), in one pass."""
    axis = (array.ndim - 1 if array.ndim == 2 else 1) if scale_axis is None else scale_axis % array.ndim
    others = tuple(a for a in range(array.ndim) if a != axis or array.ndim == 1)
    low: Array | None = None
    high: Array | None = None
    for rows, values in _blocks(array, block_bytes):
        if not np.isfinite(values).all():
            raise StoreError(
                f"variable {array.name!r} has missing or infinite values in rows {rows.start}.."
                f"{rows.stop - 1}, which int16 cannot hold; use dtype float32"
            )
        block_low, block_high = (f(values, axis=others, keepdims=True) for f in (np.min, np.max))
        low = block_low if low is None else np.minimum(low, block_low)
        high = block_high if high is None else np.maximum(high, block_high)
    if low is None or high is None:
        raise StoreError(f"variable {array.name!r} is empty")
    # without the row axis: what one sample is decoded with
    low64, high64 = low[0].astype(np.float64), high[0].astype(np.float64)
    offset = ((high64 + low64) / 2).astype(np.float32)
    reach = np.maximum(high64 - offset, offset - low64)  # about the offset as float32 has it
    scale = (2 * reach / _STEPS).astype(np.float32)
    # rounding to float32 must not push the extremes beyond 32767
    scale = np.where(scale * np.float64(_STEPS / 2) < reach, np.nextafter(scale, np.float32(np.inf)), scale)
    return np.where(scale > 0, scale, np.float32(1)).astype(np.float32), offset


def _blocks(array: xr.DataArray, block_bytes: int) -> Iterator[tuple[slice, Array]]:
    """Go through the rows in whole chunks, about ``block_bytes`` at once."""
    row_bytes = max(1, array.nbytes // max(1, array.shape[0]))
    chunk = int((array.encoding.get("shards") or array.encoding.get("chunks") or (1,))[0])
    step = max(1, block_bytes // (row_bytes * chunk)) * chunk
    for start in range(0, array.shape[0], step):
        rows = slice(start, min(start + step, array.shape[0]))
        yield rows, array[rows].to_numpy()


def _float32(values: Any) -> npt.NDArray[np.float32] | None:
    return None if values is None else np.asarray(values, np.float32)
