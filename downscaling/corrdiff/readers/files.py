"""Sources that are data classes over files: where the files are, what decides about values, and other processes."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from glob import has_magic
from pathlib import Path
from typing import Any, ClassVar, Self
from uuid import uuid4

import fsspec
import numpy as np
from numpy.typing import NDArray

from ai4sim.errors import MissingFileError
from downscaling.corrdiff.readers.base import PairedSource

_CONSOLIDATED = ".zmetadata"
_DESCRIPTIONS = ("zarr.json", ".zgroup", "*/zarr.json", "*/.zarray")
_REMEMBERED = 8

_arrived: OrderedDict[str, "FileSource"] = OrderedDict()
_lock = threading.Lock()


@dataclass(frozen=True, eq=False)
class FileSource(PairedSource):
    """Base of the sources here.

    What was opened is not sent to other processes; each opens the files once, however often the source arrives.
    """

    locations: ClassVar[tuple[str, ...]] = ()
    """Names of the arguments that say where files are."""

    @cached_property
    def _token(self) -> str:
        return uuid4().hex

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (type(self), self._token, {each.name: getattr(self, each.name) for each in fields(self)})

    def settings(self) -> dict[str, Any]:
        """What decides about the values beside the files, as plain values for the manifest."""
        chosen = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in self.locations}
        return {"kind": type(self).__name__, **chosen}

    def below(self, folder: Path) -> Self:
        """The data set with relative paths taken from a folder; URLs are as they are."""
        moved = {name: _below(getattr(self, name), folder) for name in self.locations}
        return replace(self, **moved)


def _arrive(kind: type[FileSource], token: str, arguments: dict[str, Any]) -> FileSource:
    """The source of a token in this process."""
    with _lock:
        if token not in _arrived:
            source = kind(**arguments)
            vars(source)["_token"] = token
            _arrived[token] = source
            while len(_arrived) > _REMEMBERED:
                _arrived.popitem(last=False)
        _arrived.move_to_end(token)
        return _arrived[token]


def _below(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_below(each, folder) for each in value]
    if value is None or is_url(str(value)):
        return value
    return type(value)(folder / value)


def is_url(path: str) -> bool:
    """Whether a path is for fsspec, not for the local disk."""
    return "://" in path or "::" in path


def find_files(patterns: Sequence[str], what: str) -> list[str]:
    """Files, Zarr stores and URLs in the order of their names, whatever order folders list them in.

    Args:
        patterns: paths, patterns such as ``era5/*.nc`` (``**`` for all folders below), or URLs.
        what: they hold, for messages.

    Raises:
        MissingFileError: a pattern matches nothing, a path is not there, or there are none.
    """
    found: set[str] = set()
    for pattern in patterns:
        if is_url(pattern):
            found.add(pattern)
            continue
        matches = _matching(pattern) if has_magic(pattern) else [pattern]
        if not matches or not Path(matches[0]).exists():
            raise MissingFileError(f"{pattern} ({what}) is not there; give NetCDF files, Zarr stores or patterns")
        found.update(matches)
    if not found:
        raise MissingFileError(f"no files are given for {what}; give NetCDF files, Zarr stores or patterns")
    return sorted(found)


def manifest_files(path: Path | str) -> list[Path | str]:
    """What stands for a file or store in a manifest: the file itself, or the store's description.

    The chunks of a store are not among them: their checksums would take longer than the preparation.
    """
    text = str(path)
    if not is_url(text):
        local = Path(text)
        if not local.is_dir():
            return [local]
        if (local / _CONSOLIDATED).is_file():
            return [local / _CONSOLIDATED]
        return [path for pattern in _DESCRIPTIONS for path in sorted(local.glob(pattern))]
    if not text.rstrip("/").endswith(".zarr"):
        return [text]
    filesystem, root = fsspec.url_to_fs(text)
    names = (_CONSOLIDATED, *(name for name in _DESCRIPTIONS if "*" not in name))
    return [f"{text.rstrip('/')}/{name}" for name in names if filesystem.exists(f"{root.rstrip('/')}/{name}")]


def _matching(pattern: str) -> list[str]:
    """Paths of a pattern, absolute or not, without hidden files, which some systems put beside others."""
    start = Path(Path(pattern).anchor)
    found = start.glob(str(Path(pattern).relative_to(start)))
    return sorted(str(path) for path in found if not path.name.startswith("."))


def runs(numbers: NDArray[np.integer]) -> list[slice]:
    """Numbers of rows, in any order, as slices of those that follow each other."""
    if not len(numbers):
        return []
    breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
    return [slice(int(part[0]), int(part[-1]) + 1) for part in np.split(numbers, breaks)]


def listed(names: Sequence[object], most: int = 40) -> str:
    """Names for a message, the first of many."""
    shown = ", ".join(str(name) for name in names[:most]) or "none"
    return shown if len(names) <= most else f"{shown} ... ({len(names)} in all)"
