"""The manifest of a processed store: what it was made from, and the proof that it is whole."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import numpy as np
from fsspec.implementations.local import LocalFileSystem

from ai4sim.errors import InputError
from ai4sim.schema import Schema

MANIFEST_NAME = "manifest.json"
PathLike = str | os.PathLike[str]


class StoreError(InputError):
    """A processed store is missing, unfinished, out of date, or cannot be written."""


@dataclass(frozen=True)
class Source:
    """One file that a store was made from.

    Args:
        name: path relative to the common folder of all sources, so that moving them is no change.
        size: in bytes.
        sha256: checksum of the content.
        modified: time of the last change in nanoseconds; a shortcut for not reading the file again, and
            not part of the fingerprint. None for remote files.
    """

    name: str
    size: int
    sha256: str
    modified: int | None = None


@dataclass(frozen=True)
class Manifest:
    """What a processed store holds and what it was made from.

    Args:
        schema: name of the schema.
        schema_version: its version when the store was made.
        sources: the raw files.
        settings: whatever else decides about the content; plain JSON values.
        variables: name to dims, shape, dtype and units.
        statistics: what the use case computed over the finished store; plain JSON values.
    """

    schema: str
    schema_version: int
    sources: tuple[Source, ...]
    settings: Mapping[str, Any]
    variables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    statistics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Checksum of everything that decides about the content of the store."""
        identity = {
            "schema": self.schema,
            "schema_version": self.schema_version,
            "sources": sorted((source.name, source.size, source.sha256) for source in self.sources),
            "settings": self.settings,
        }
        text = json.dumps(identity, sort_keys=True, default=plain)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> str:
        """Readable JSON; :meth:`from_json` is its inverse."""
        content = asdict(self) | {"fingerprint": self.fingerprint}
        return json.dumps(content, indent=2, sort_keys=True, default=plain) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> "Manifest":
        """Read a manifest; ``where`` is named in the message if it is damaged."""
        try:
            content = json.loads(text)
            fingerprint = content.pop("fingerprint")
            sources = tuple(Source(**source) for source in content.pop("sources"))
            manifest = cls(sources=sources, **content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{where} is not a manifest of this version ({error}); run prepare again") from error
        if manifest.fingerprint != fingerprint:
            raise StoreError(f"{where} does not match its own fingerprint; it was edited: run prepare again")
        return manifest


def describe(
    schema: Schema, sources: Sequence[PathLike], settings: Mapping[str, Any], known: Manifest | None
) -> Manifest:
    """Describe the store that ``sources`` and ``settings`` would give; reads the sources for checksums.

    Args:
        schema: of the processed data.
        sources: raw files, local or remote.
        settings: whatever else decides about the content.
        known: an earlier manifest; local files whose size and time of change it names are not read again.
    """
    paths = [str(path) for path in sources]
    earlier = {source.name: source for source in known.sources} if known else {}
    described = tuple(
        _source(path, name, earlier.get(name)) for path, name in zip(paths, _source_names(paths), strict=True)
    )
    # through JSON once, so that tuples, numpy numbers and the like compare equal to what is read back
    plain_settings = json.loads(json.dumps(settings, default=plain))
    return Manifest(schema.name, schema.version, described, plain_settings)


def read_manifest(path: PathLike) -> Manifest:
    """Read the manifest of a store.

    Raises:
        StoreError: when there is no such store, or it was never finished.
    """
    filesystem, root = fsspec.url_to_fs(str(path))
    where = f"{root.rstrip('/')}/{MANIFEST_NAME}"
    try:
        text = filesystem.cat_file(where).decode()
    except (FileNotFoundError, NotADirectoryError):
        if is_local(filesystem) and not Path(root).exists():
            if Path(f"{root}.partial").exists():
                raise StoreError(f"{path} is unfinished: a preparation was interrupted; run prepare to go on") from None
            raise StoreError(f"{path} does not exist; run prepare to make it") from None
        raise StoreError(f"{path} is unfinished: it has no {MANIFEST_NAME}; run prepare to make it") from None
    return Manifest.from_json(text, str(where))


def is_local(filesystem: fsspec.AbstractFileSystem) -> bool:
    """Whether this is the local disk, where renaming is atomic."""
    return isinstance(filesystem, LocalFileSystem)


def available_cores() -> int:
    """Cores this process may use; in a container or a SLURM job fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def plain(value: Any) -> Any:
    """Turn NumPy values, paths and sets into what JSON knows; the ``default`` of :func:`json.dumps`."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be written as JSON")


def _source_names(paths: Sequence[str]) -> list[str]:
    pure = [PurePosixPath(fsspec.core.strip_protocol(path)) for path in paths]
    if not pure:
        return []
    common = PurePosixPath(os.path.commonpath([path.parent for path in pure]))
    return [path.relative_to(common).as_posix() for path in pure]


def _source(path: str, name: str, earlier: Source | None) -> Source:
    filesystem, where = fsspec.url_to_fs(path)
    try:
        size = int(filesystem.size(where))
    except FileNotFoundError:
        raise StoreError(f"source file {path} does not exist") from None
    modified = Path(where).stat().st_mtime_ns if is_local(filesystem) else None
    if earlier is not None and modified is not None and (earlier.size, earlier.modified) == (size, modified):
        return earlier
    digest = hashlib.sha256()
    with filesystem.open(where, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return Source(name, size, digest.hexdigest(), modified)
