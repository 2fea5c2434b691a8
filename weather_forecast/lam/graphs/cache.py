"""Graphs that are kept in a file, under a name that tells for which grid and settings they were made."""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar

import torch
from torch import Tensor

from ai4sim.atomic import atomic_path
from weather_forecast.lam.graphs.build import VERSION, GraphSettings
from weather_forecast.lam.graphs.structure import EdgeSet, FlatGraph, HierarchicalGraph

logger = logging.getLogger(__name__)

G = TypeVar("G", FlatGraph, HierarchicalGraph)


def cached(
    folder: Path | str,
    x: Tensor,
    y: Tensor,
    settings: GraphSettings,
    kind: type[G],
    build: Callable[[Tensor, Tensor, GraphSettings], G],
) -> G:
    """A graph from the cache, or one that is built and put there.

    Processes that build at the same time each write a file of their own, which takes its place whole; the last one
    stays. A file that cannot be read, or belongs to another grid, is replaced.

    Args:
        folder: holds the cache; made where needed.
        x: (lat, lon) coordinate of the grid.
        y: (lat, lon) coordinate of the grid.
        settings: of the mesh.
        kind: of graph.
        build: makes it from coordinates and settings.
    """
    key = graph_key(x, y, settings, kind)
    path = Path(folder) / f"graph_{key[:16]}.pt"
    if path.exists():
        graph = _read(path, key, kind)
        if graph is not None:
            return graph
        logger.warning("%s is no graph of this grid: built again", path)
    graph = build(x, y, settings)
    with atomic_path(path) as partial:
        torch.save({"key": key, "graph": _plain(graph)}, partial)
    return graph


def graph_key(x: Tensor, y: Tensor, settings: GraphSettings, kind: type) -> str:
    """Hash of all that decides about a graph."""
    digest = hashlib.sha256(f"{VERSION} {kind.__name__} {sorted(asdict(settings).items())} {tuple(x.shape)}".encode())
    for values in (x, y):
        digest.update(values.detach().cpu().contiguous().double().numpy().tobytes())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """Tensors, numbers, lists and dictionaries, which load without unpickling classes."""
    if is_dataclass(value):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value


def _read(path: Path, key: str, kind: type[G]) -> G | None:
    try:
        stored = torch.load(path, weights_only=True)
        if stored["key"] != key:
            return None
        return kind(**{name: _revived(value) for name, value in stored["graph"].items()})
    except (OSError, EOFError, KeyError, TypeError, ValueError, RuntimeError, UnpicklingError):
        return None


def _revived(value: Any) -> Any:
    if isinstance(value, dict):
        return EdgeSet(**value)
    return [_revived(entry) for entry in value] if isinstance(value, list) else value
