"""The graph of a grid, by its settings."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ai4sim.errors import InputError
from weather_forecast.lam.graphs import legacy, rect
from weather_forecast.lam.graphs.lattice import Floats
from weather_forecast.lam.graphs.mesh import Mesh
from weather_forecast.lam.graphs.structure import FlatGraph, HierarchicalGraph

VERSION = 1  # of the construction; a cache of another one is not used
MODES = ("rect", "legacy")


@dataclass(frozen=True)
class GraphSettings:
    """How a mesh is laid over a grid.

    Args:
        mode: "rect", or "legacy" for the graphs of publications.
        levels: of the mesh; None for as many as fit (rect: up to 4). Legacy leaves out upper ones.
        mesh_spacing: rect: grid cells per mesh cell; None for 3, 8 from 300,000 grid nodes on.
        scaled: legacy: coordinates are scaled to [0, 1] each, as for TITAN; otherwise they are taken as they are, as
            for MEPS.
    """

    mode: str = "rect"
    levels: int | None = None
    mesh_spacing: float | None = None
    scaled: bool = True

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(f"graph mode {self.mode!r}: expected one of {', '.join(MODES)}")
        if self.levels is not None and self.levels < 1:
            raise InputError(f"levels of a mesh: 1 or more expected, not {self.levels}")
        if self.mesh_spacing is not None and self.mesh_spacing <= 0:
            raise InputError(f"mesh_spacing: more than 0 grid cells expected, not {self.mesh_spacing}")


def build_flat(x: Tensor, y: Tensor, settings: GraphSettings) -> FlatGraph:
    """The graph whose mesh levels are united.

    Args:
        x: (lat, lon) planar coordinate to the east, km.
        y: (lat, lon) planar coordinate to the north, km.
        settings: of the mesh.

    Raises:
        InputError: the grid is no grid, or too small for the mesh.
    """
    return _mesh(x, y, settings, least=1).flat()


def build_hierarchical(x: Tensor, y: Tensor, settings: GraphSettings) -> HierarchicalGraph:
    """The graph whose mesh levels have nodes of their own; two levels at least.

    Args:
        x: (lat, lon) planar coordinate to the east, km.
        y: (lat, lon) planar coordinate to the north, km.
        settings: of the mesh.

    Raises:
        InputError: the grid is no grid, or too small for the mesh.
    """
    if settings.levels is not None and settings.levels < 2:
        raise InputError(f"a hierarchical graph has 2 levels or more, not {settings.levels}")
    return _mesh(x, y, settings, least=2).hierarchical(up_like_down=settings.mode == "legacy")


def _mesh(x: Tensor, y: Tensor, settings: GraphSettings, least: int) -> Mesh:
    px, py = _coordinates(x, "x"), _coordinates(y, "y")
    if px.shape != py.shape:
        raise InputError(f"coordinates of the grid: x is {px.shape}, y is {py.shape}")
    extent = rect.extent_of(px, py)
    if min(px.shape) < 2 or min(extent) <= 0:
        raise InputError(
            f"grid {px.shape[0]} x {px.shape[1]}, extent {extent[0]:g} x {extent[1]:g}: too small for a mesh"
        )
    wanted = settings.levels or least
    error = InputError(
        f"grid {px.shape[0]} x {px.shape[1]} too small for {wanted} mesh level{'s' if wanted > 1 else ''} "
        f"({settings.mode} mode); take fewer levels or a smaller mesh_spacing"
    )
    if settings.mode == "legacy":
        available = legacy.legacy_levels((px.shape[0], px.shape[1]))
        if available < wanted:
            raise error
        if settings.scaled:
            px, py = (px - px.min()) / extent[0], (py - py.min()) / extent[1]
        return legacy.legacy_mesh(px, py, settings.levels or available)
    spacing = rect.spacing_of(px, py, settings.mesh_spacing or rect.default_spacing(px.size))
    levels = settings.levels or rect.rect_levels(extent, spacing)
    shape = rect.mesh_shape(extent, spacing, levels) if levels >= wanted else None
    if shape is None:
        raise error
    return rect.rect_mesh(px, py, shape, levels)


def _coordinates(values: Tensor, name: str) -> Floats:
    result = values.detach().cpu().numpy().astype(np.float64)
    if result.ndim != 2 or not np.isfinite(result).all():
        raise InputError(f"coordinate {name} of the grid: finite (lat, lon) values expected, shape {result.shape}")
    return result
