"""Graphs in the files that the mllam community exchanges.

A folder holds, as tensors or lists of tensors (one per level, bottom first): ``{g2m,m2g,m2m}_edge_index.pt``,
``{g2m,m2g,m2m}_features.pt``, ``mesh_features.pt``, for hierarchical graphs ``mesh_{up,down}_edge_index.pt`` and
``mesh_{up,down}_features.pt``, and ``metainfo.yaml`` with the version of the layout. Indices count from zero in each
set of nodes, row 0 senders, row 1 receivers; features are not normalised.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from ai4sim.atomic import atomic_path
from ai4sim.errors import InputError
from weather_forecast.lam.graphs.structure import EdgeSet, FlatGraph, Graph, HierarchicalGraph

SPEC_VERSION = "0.1.0"
METAINFO = "metainfo.yaml"


def write_mllam(graph: Graph, folder: Path | str) -> None:
    """Write the files of a graph; the version goes last, so that a folder without it is not whole.

    Args:
        graph: to write.
        folder: made where needed; files of another graph are replaced.
    """
    folder = Path(folder)
    (folder / METAINFO).unlink(missing_ok=True)
    hierarchical = isinstance(graph, HierarchicalGraph)
    same: Sequence[EdgeSet] = graph.same if isinstance(graph, HierarchicalGraph) else [graph.m2m]
    mesh = graph.mesh_features if isinstance(graph, HierarchicalGraph) else [graph.mesh_features]
    for name, edges in {"g2m": graph.g2m, "m2g": graph.m2g}.items():
        _save(edges.index, folder / f"{name}_edge_index.pt")
        _save(edges.features, folder / f"{name}_features.pt")
    levels = {"m2m": same}
    if isinstance(graph, HierarchicalGraph):
        levels |= {"mesh_up": graph.up, "mesh_down": graph.down}
    for name, sets in levels.items():
        _save([edges.index for edges in sets], folder / f"{name}_edge_index.pt")
        _save([edges.features for edges in sets], folder / f"{name}_features.pt")
    _save(list(mesh), folder / "mesh_features.pt")
    if not hierarchical:
        for name in ("mesh_up", "mesh_down"):
            for part in ("edge_index", "features"):
                (folder / f"{name}_{part}.pt").unlink(missing_ok=True)
    with atomic_path(folder / METAINFO) as partial:
        partial.write_text(f"spec_version: {SPEC_VERSION}\n")


def read_mllam(folder: Path | str, num_grid: int) -> Graph:
    """Read a graph; hierarchical where there are edges between levels.

    The scale of the mesh features is the largest absolute coordinate of a mesh node, since the files have no others.

    Args:
        folder: with the files.
        num_grid: number of grid nodes, which the files do not tell.

    Raises:
        InputError: a file is missing or damaged, the layout has another version, or the parts do not fit together.
    """
    folder = Path(folder)
    _check_version(folder / METAINFO)
    mesh = _load_list(folder / "mesh_features.pt")
    nodes = [len(features) for features in mesh]
    g2m = _edges(folder, "g2m", num_grid, nodes[0])
    m2g = _edges(folder, "m2g", nodes[0], num_grid)
    scale = max(float(features.abs().max()) for features in mesh) or 1.0
    same = _edge_sets(folder, "m2m", [(n, n) for n in nodes])
    if not (folder / "mesh_up_edge_index.pt").exists():
        if len(mesh) != 1:
            raise InputError(f"{folder}: {len(mesh)} mesh levels, but no edges between them (mesh_up_edge_index.pt)")
        return FlatGraph(mesh_features=mesh[0], g2m=g2m, m2m=same[0], m2g=m2g, mesh_scale=scale)
    between = list(pairwise(nodes))
    up = _edge_sets(folder, "mesh_up", between)
    down = _edge_sets(folder, "mesh_down", [(coarse, fine) for fine, coarse in between])
    return HierarchicalGraph(mesh_features=mesh, g2m=g2m, m2g=m2g, same=same, up=up, down=down, mesh_scale=scale)


def _save(value: Tensor | list[Tensor], path: Path) -> None:
    with atomic_path(path) as partial:
        torch.save(value, partial)


def _check_version(path: Path) -> None:
    if not path.exists():
        raise InputError(f"{path}: not there; expected a folder with a graph in the mllam layout")
    found = re.search(r"^spec_version:\s*['\"]?([\w.]+)", path.read_text(), flags=re.MULTILINE)
    if found is None or found[1] != SPEC_VERSION:
        raise InputError(f"{path}: spec_version {found[1] if found else 'missing'}, expected {SPEC_VERSION}")


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: not there; the graph is not whole") from error
    except (EOFError, RuntimeError, UnpicklingError) as error:
        raise InputError(f"{path}: cannot be read as tensors: {error}") from error


def _load_list(path: Path) -> list[Tensor]:
    value = _load(path)
    if not isinstance(value, list | tuple) or not value or not all(isinstance(entry, Tensor) for entry in value):
        raise InputError(f"{path}: a list of tensors expected, one per mesh level")
    return list(value)


def _edges(folder: Path, name: str, senders: int, receivers: int) -> EdgeSet:
    index, features = _load(folder / f"{name}_edge_index.pt"), _load(folder / f"{name}_features.pt")
    if not isinstance(index, Tensor) or not isinstance(features, Tensor):
        raise InputError(f"{folder}: {name}: tensors expected")
    return _edge_set(folder, name, index, features, senders, receivers)


def _edge_sets(folder: Path, name: str, nodes: Sequence[tuple[int, int]]) -> list[EdgeSet]:
    indices, features = _load_list(folder / f"{name}_edge_index.pt"), _load_list(folder / f"{name}_features.pt")
    if not len(indices) == len(features) == len(nodes):
        raise InputError(
            f"{folder}: {name}: {len(indices)} edge indices and {len(features)} features, expected {len(nodes)}"
        )
    return [
        _edge_set(folder, f"{name} {level}", index, feature, *sizes)
        for level, (index, feature, sizes) in enumerate(zip(indices, features, nodes, strict=True))
    ]


def _edge_set(folder: Path, name: str, index: Tensor, features: Tensor, senders: int, receivers: int) -> EdgeSet:
    try:
        return EdgeSet(index, features, senders, receivers)
    except InputError as error:
        raise InputError(f"{folder}: {name}: {error}") from error
