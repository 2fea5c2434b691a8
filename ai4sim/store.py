"""Raw to processed: Zarr stores that are written region by region, in parallel, and are whole or not there.

Why not ``dask.array.to_zarr``: with blocks that do not match the chunks or shards, parallel writers overwrite
each other's values without a word. Here every region is checked against chunks and shards before anything is
written, and goes through xarray.

While it is made, a local store lives in ``<path>.partial``; a finished region leaves a marker there, so that
a killed preparation goes on where it was. The manifest is written last, then the store is renamed to
``<path>``. A remote store is written in place, and is whole once its manifest is there.
"""

import contextlib
import errno
import json
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import dask.array
import fsspec
import xarray as xr
from dask.base import compute
from dask.callbacks import Callback
from dask.delayed import delayed
from zarr.codecs import BloscCodec, ZstdCodec

from ai4sim.atomic import exclusive
from ai4sim.manifest import (
    MANIFEST_NAME,
    Manifest,
    PathLike,
    Source,
    StoreError,
    available_cores,
    describe,
    is_local,
    plain,
    read_manifest,
)
from ai4sim.regions import Region, check_regions, filled_by_regions, write_region
from ai4sim.schema import Schema

__all__ = [
    "Manifest",
    "Region",
    "Source",
    "StoreError",
    "build_store",
    "is_current",
    "make_template",
    "open_store",
    "read_manifest",
]

logger = logging.getLogger(__name__)


def make_template(
    schema: Schema,
    sizes: Mapping[str, int],
    chunks: Mapping[str, int],
    *,
    shards: Mapping[str, int] | None = None,
    compression: str | None = "lz4",
    coords: Mapping[str, Any] | None = None,
    variables: Sequence[str] | None = None,
) -> xr.Dataset:
    """Describe an empty store after a schema, without allocating it.

    Args:
        schema: gives names, dims, types and attributes.
        sizes: length of every dimension; those fixed by the schema may be left out.
        chunks: entries per chunk; dimensions not named are one chunk. Choose what one sample reads at once.
        shards: entries per shard (several chunks in one file), whole multiples of the chunks.
        compression: ``lz4`` (with byte shuffle), ``zstd``, or None for chunks that can be read straight.
        coords: coordinates to write with the template.
        variables: those to hold; by default all that are not optional.

    Returns:
        A data set to give to :func:`build_store`.
    """
    sizes = {**schema.sizes, **sizes}
    names = variables or [variable.name for variable in schema.variables if not variable.optional]
    compressors = {
        None: (),
        "lz4": (BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"),),
        "zstd": (ZstdCodec(level=3),),
    }
    if compression not in compressors:
        raise ValueError(f"compression {compression!r} is unknown; choose lz4, zstd or None")
    arrays: dict[str, xr.DataArray] = {}
    for name in names:
        variable = schema[name]
        shape = tuple(sizes[dim] for dim in variable.dims)
        # one block, never computed: only shape and type are looked at
        empty = dask.array.empty(shape, dtype=variable.dtype, chunks=shape)
        arrays[name] = xr.DataArray(empty, dims=variable.dims, attrs=variable.attrs)
        chunk_shape = tuple(min(chunks.get(dim, sizes[dim]), sizes[dim]) for dim in variable.dims)
        arrays[name].encoding = {"chunks": chunk_shape, "compressors": compressors[compression]}
        if shards is not None:
            # a shard holds whole chunks, also where the array ends inside one
            arrays[name].encoding["shards"] = tuple(
                chunk * ceil(min(shards.get(dim, sizes[dim]), sizes[dim]) / chunk)
                for dim, chunk in zip(variable.dims, chunk_shape, strict=True)
            )
    return xr.Dataset(arrays, coords=coords)


def build_store(
    path: PathLike,
    *,
    template: xr.Dataset,
    regions: Sequence[Region],
    sources: Sequence[PathLike],
    schema: Schema,
    settings: Mapping[str, Any],
    statistics: Callable[[xr.Dataset], Mapping[str, Any]] | None = None,
    scheduler: str | None = None,
    threads: int | None = None,
    progress: bool = True,
) -> Manifest:
    """Make a processed store, go on with an interrupted one, or find that it is there already.

    Args:
        path: folder or URL of the store.
        template: dims, types, attributes and encoding (chunks, shards, compressors). Variables that are Dask
            arrays are filled by the regions; the others (coordinates) are written as they are.
        regions: the parts; together they must fill the store exactly, and each must begin and end where a
            chunk (or shard) does.
        sources: raw files it is made from, for the manifest.
        schema: of the processed data.
        settings: whatever else decides about the content; plain JSON values.
        statistics: called with the finished data set; gives plain JSON values for the manifest.
        scheduler: address of a Dask scheduler; by default the active ``dask.distributed`` client, else
            threads of this process.
        threads: number of regions worked on at once by threads of this process; default: cores, at most 4.
            Memory is bounded by this number times the size of a region.
        progress: whether to show a progress bar.

    Returns:
        The manifest of the finished store.

    Raises:
        StoreError: regions that do not fit the chunks, a full disk, a folder that cannot be written, data
            that do not fit the template, another process that is making the same store.
    """
    filesystem, root = fsspec.url_to_fs(str(path))
    root = root.rstrip("/")
    known = _known_manifest(path)
    manifest = describe(schema, sources, settings, known)
    if known is not None and known.fingerprint == manifest.fingerprint:
        return known
    check_regions(template, regions)
    fingerprint = manifest.fingerprint
    manifest = replace(manifest, variables=_describe_variables(template))

    local = is_local(filesystem)
    work = f"{root}.partial"
    data = f"{work}/data" if local else root
    identity = json.dumps([manifest.fingerprint, _identity(template, regions)], sort_keys=True, default=plain)
    needed = sum(variable.nbytes for variable in template.variables.values())
    if local and _is_foreign(Path(root)):
        raise StoreError(f"{path} holds files that are no store made here: remove them or name another folder")
    lock = exclusive(Path(work), str(path)) if local else contextlib.nullcontext()
    with _clear_errors(str(path), root, local, needed), lock:
        # another process may have made it meanwhile
        if local and (known := _known_manifest(path)) is not None and known.fingerprint == fingerprint:
            filesystem.rm(work, recursive=True)
            return known
        _start(filesystem, work, data, identity, template, needed, str(path), local)
        todo = [
            (region, marker)
            for number, region in enumerate(regions)
            if not filesystem.exists(marker := f"{work}/regions/{number:06d}.done")
        ]
        target = filesystem.unstrip_protocol(data) if not local else data
        _write_regions(target, template, todo, len(regions), scheduler, threads, progress, str(path))
        _consolidate(target)
        if statistics is not None:
            with xr.open_zarr(target, chunks=None, consolidated=True) as dataset:
                computed = json.loads(json.dumps(statistics(dataset), default=plain))
            manifest = replace(manifest, statistics=computed)
        filesystem.pipe_file(f"{data}/{MANIFEST_NAME}", manifest.to_json().encode())
        if local:
            _move_in_place(data, root)
        filesystem.rm(work, recursive=True)
    return manifest


def open_store(path: PathLike, *, chunks: Any = None) -> xr.Dataset:
    """Open a finished store, lazily.

    Args:
        path: folder or URL.
        chunks: None for lazy arrays without Dask; ``{}`` for Dask arrays in the store's chunks.

    Raises:
        StoreError: when it does not exist or is unfinished.
    """
    read_manifest(path)
    dataset: xr.Dataset = xr.open_zarr(str(path), chunks=chunks, consolidated=True)
    return dataset


def is_current(path: PathLike, *, schema: Schema, sources: Sequence[PathLike], settings: Mapping[str, Any]) -> bool:
    """Whether a whole store is there that was made from just these sources, settings and schema version.

    Local sources are read for their checksum only when size or time of change differ from the manifest's.
    """
    known = _known_manifest(path)
    return known is not None and describe(schema, sources, settings, known).fingerprint == known.fingerprint


def _known_manifest(path: PathLike) -> Manifest | None:
    try:
        return read_manifest(path)
    except StoreError:
        return None


def _describe_variables(template: xr.Dataset) -> dict[str, dict[str, Any]]:
    return {
        str(name): {
            "dims": list(variable.dims),
            "shape": list(variable.shape),
            "dtype": str(variable.dtype),
            "units": str(variable.attrs.get("units", "")),
        }
        for name, variable in template.variables.items()
    }


def _identity(template: xr.Dataset, regions: Sequence[Region]) -> list[Any]:
    """What must be the same for the finished regions of an interrupted run to be of use."""
    encodings = {name: repr(variable.encoding) for name, variable in filled_by_regions(template).items()}
    bounds = [[region.name, {d: [s.start, s.stop] for d, s in region.slices.items()}] for region in regions]
    return [_describe_variables(template), encodings, bounds]


def _start(
    filesystem: fsspec.AbstractFileSystem,
    work: str,
    data: str,
    identity: str,
    template: xr.Dataset,
    needed: int,
    path: str,
    local: bool,
) -> None:
    """Lay out the empty store, unless an interrupted run with the same identity left one."""
    note = f"{work}/build.json"
    if filesystem.exists(note) and filesystem.cat_file(note).decode() == identity:
        logger.info("going on with the unfinished store %s", path)
        return
    for leftover in (note, f"{work}/regions", data):
        if filesystem.exists(leftover):
            filesystem.rm(leftover, recursive=True)
    if local and (free := shutil.disk_usage(work).free) < needed:
        logger.warning("%s needs up to %s before compression, and %s are free there", path, _size(needed), _size(free))
    filesystem.makedirs(f"{work}/regions", exist_ok=True)
    target = filesystem.unstrip_protocol(data) if not local else data
    template.to_zarr(target, mode="w", compute=False, zarr_format=3, consolidated=False)
    # last: from here on the layout may be relied upon
    filesystem.pipe_file(note, identity.encode())


def _write_regions(
    target: str,
    template: xr.Dataset,
    todo: Sequence[tuple[Region, str]],
    total: int,
    scheduler: str | None,
    threads: int | None,
    progress: bool,
    path: str,
) -> None:
    # rich is only for show: an import here keeps workers light
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    expected = {name: (v.dims, v.dtype) for name, v in filled_by_regions(template).items()}
    sizes = {str(dim): size for dim, size in template.sizes.items()}
    tasks = [delayed(write_region, pure=False)(target, region, marker, expected, sizes) for region, marker in todo]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not progress) as bar:
        shown = bar.add_task(f"preparing {Path(path).name}", total=total, completed=total - len(todo))
        with _client(scheduler) as client:
            if client is None:
                advance = Callback(posttask=lambda *_: bar.advance(shown))
                with advance:
                    workers = threads or min(4, available_cores())
                    compute(*tasks, scheduler="threads", num_workers=workers, optimize_graph=False)
            else:
                from distributed import as_completed

                for future in as_completed(client.compute(tasks)):
                    future.result()
                    bar.advance(shown)


@contextlib.contextmanager
def _client(scheduler: str | None) -> Iterator[Any]:
    """Give the ``dask.distributed`` client to use, or None for threads of this process."""
    if scheduler is None:
        try:
            from distributed import default_client

            client = default_client()
        except (ImportError, ValueError):
            client = None
        yield client
        return
    try:
        from distributed import Client
    except ImportError:
        raise StoreError(f'scheduler {scheduler} needs dask.distributed: pip install -e ".[distributed]"') from None
    with Client(scheduler) as client:
        yield client


def _consolidate(target: str) -> None:
    import zarr

    with warnings.catch_warnings():
        # one small file instead of a listing: what remote readers need; readers that do not know it ignore it
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(target)


def _is_foreign(folder: Path) -> bool:
    """Whether a folder holds something that was not made here and must not be replaced."""
    return folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST_NAME).exists()


def _move_in_place(data: str, root: str) -> None:
    """Put the finished store where it belongs; an outdated one there is replaced."""
    outdated = Path(f"{root}.outdated")
    if outdated.exists():
        shutil.rmtree(outdated)
    if Path(root).exists():
        Path(root).rename(outdated)
    Path(data).rename(root)
    if outdated.exists():
        shutil.rmtree(outdated)


@contextlib.contextmanager
def _clear_errors(path: str, root: str, local: bool, needed: int) -> Iterator[None]:
    """Say which path cannot be written, and for a full disk how much is needed and free."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = f", {_size(_free(root))} are free" if local else ""
            raise StoreError(
                f"no space left for {path}: it needs up to {_size(needed)} before compression{free}."
                " Make room and run prepare again: finished regions are kept"
            ) from error
        unwritable = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
        if error.errno in unwritable and (
            error.filename is None or str(error.filename).startswith(str(Path(root).parent))
        ):
            raise StoreError(f"cannot write {path}: {error.strerror} ({error.filename})") from error
        raise


def _free(root: str) -> int:
    folder = Path(root)
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB ({n_bytes} bytes)"
