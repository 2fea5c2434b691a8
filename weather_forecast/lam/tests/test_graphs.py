import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ai4sim.errors import InputError
from weather_forecast.lam.graphs import cache
from weather_forecast.lam.graphs.build import GraphSettings, build_flat, build_hierarchical
from weather_forecast.lam.graphs.io import read_mllam, write_mllam
from weather_forecast.lam.graphs.lattice import Lattice
from weather_forecast.lam.graphs.legacy import legacy_levels
from weather_forecast.lam.graphs.rect import mesh_shape
from weather_forecast.lam.graphs.structure import EdgeSet, FlatGraph, HierarchicalGraph

LEGACY = GraphSettings("legacy")
RECT = GraphSettings()


def coordinates(rows: int, columns: int, dx: float = 1.0, dy: float = 1.0) -> tuple[Tensor, Tensor]:
    y, x = torch.meshgrid(
        torch.arange(rows, dtype=torch.float64) * dy, torch.arange(columns, dtype=torch.float64) * dx, indexing="ij"
    )
    return x, y


def meps() -> tuple[Tensor, Tensor]:
    x = torch.linspace(-1059506.5, 1310493.4, 238, dtype=torch.float64)
    y = torch.linspace(-1331732.4, 1338267.6, 268, dtype=torch.float64)
    grid = torch.meshgrid(y, x, indexing="ij")
    return grid[1], grid[0]


def random_shapes() -> list[tuple[int, int]]:
    generator = np.random.default_rng(3)
    return [tuple(int(n) for n in generator.integers(20, 201, 2)) for _ in range(17)]


# --- legacy mode: the published counts


@pytest.mark.parametrize(
    ("shape", "mesh", "g2m", "m2g"),
    [
        ((64, 64), [81, 9], 5_436, 16_384),
        ((48, 64), [81, 9], 4_212, 12_288),
        ((128, 128), [729, 81, 9], 22_744, 65_536),
        ((512, 640), [6561, 729, 81, 9], 459_668, 1_310_720),
    ],
)
def test_legacy_counts(shape, mesh, g2m, m2g):
    graph = build_hierarchical(*coordinates(*shape), LEGACY)
    assert [len(features) for features in graph.mesh_features] == mesh
    assert (graph.g2m.num_edges, graph.m2g.num_edges) == (g2m, m2g)
    sides = [int(n**0.5) for n in mesh]
    assert [edges.num_edges for edges in graph.same] == [4 * (n - 1) * (2 * n - 1) for n in sides]
    assert [edges.num_edges for edges in graph.up] == mesh[:-1]
    assert [edges.num_edges for edges in graph.down] == mesh[:-1]


def test_legacy_counts_of_meps_in_metres():
    graph = build_flat(*meps(), GraphSettings("legacy", scaled=False))
    assert len(graph.mesh_features) == 6_561
    assert (graph.m2m.num_edges, graph.g2m.num_edges, graph.m2g.num_edges) == (57_616, 100_656, 255_136)
    assert torch.bincount(graph.g2m.index[0], minlength=graph.num_grid).min() >= 1


@pytest.mark.parametrize(("shape", "orphans"), [((64, 64), 100), ((128, 128), 112), ((512, 640), 1_964)])
def test_legacy_leaves_the_known_number_of_grid_nodes_out(shape, orphans):
    graph = build_flat(*coordinates(*shape), LEGACY)
    assert (torch.bincount(graph.g2m.index[0], minlength=graph.num_grid) == 0).sum() == orphans


def test_one_level_is_the_graph_without_long_edges():
    graph = build_flat(*coordinates(64, 64), GraphSettings("legacy", levels=1))
    assert graph.m2m.num_edges == 544
    assert graph.m2m.features[:, 0].max() == pytest.approx(2**0.5 / 9)


def test_levels_come_from_the_rounded_quotient_of_logarithms():
    assert [legacy_levels((n, 2)) for n in (8, 9, 26, 27, 242, 243, 244)] == [0, 1, 1, 2, 3, 3, 4]


def test_legacy_displacement_is_sender_minus_receiver_and_up_repeats_down():
    graph = build_hierarchical(*coordinates(48, 64), LEGACY)
    fine, coarse = graph.mesh_features
    senders, receivers = graph.g2m.index
    x, y = coordinates(48, 64)
    points = torch.stack([x.flatten() / 63, y.flatten() / 47], dim=1)
    displacement = points[senders] - fine.double()[receivers]
    torch.testing.assert_close(graph.g2m.features[:, 1:].double(), displacement, atol=1e-6, rtol=0)
    down = coarse[graph.down[0].index[0]] - fine[graph.down[0].index[1]]
    torch.testing.assert_close(graph.down[0].features[:, 1:], down, atol=1e-6, rtol=0)
    up = coarse[graph.up[0].index[1]] - fine[graph.up[0].index[0]]
    torch.testing.assert_close(graph.up[0].features[:, 1:], up, atol=1e-6, rtol=0)


# --- rect mode


@pytest.mark.parametrize("shape", random_shapes())
def test_rect_covers_every_shape_with_square_cells_and_nests(shape):
    x, y = coordinates(*shape, dx=1.3)
    graph = build_flat(x, y, RECT)
    assert torch.bincount(graph.g2m.index[0], minlength=graph.num_grid).min() >= 1
    assert (graph.m2g.receiver_counts() == 4).all()
    assert graph.g2m.receiver_counts().min() >= 1
    columns, rows = (len(graph.mesh_features[:, i].unique()) for i in range(2))
    assert columns * rows == len(graph.mesh_features)
    dx, dy = x.max() / columns, y.max() / rows
    assert 0.75 < dx / dy < 1.25
    hierarchical = build_hierarchical(x, y, RECT)
    assert torch.equal(hierarchical.mesh_features[0], graph.mesh_features)
    side = columns
    for fine, coarse in zip(hierarchical.mesh_features[:-1], hierarchical.mesh_features[1:], strict=True):
        nested = fine.view(-1, side, 2)[1::3, 1::3].reshape(-1, 2)
        assert torch.equal(nested, coarse)
        side //= 3


@pytest.mark.parametrize("settings", [RECT, GraphSettings(levels=2), GraphSettings(mesh_spacing=4.5)])
def test_rect_displacement_is_receiver_minus_sender_everywhere(settings):
    x, y = coordinates(50, 70, dx=2.0, dy=2.5)
    points = torch.stack([x.flatten(), y.flatten()], dim=1).float()
    graph = build_hierarchical(x, y, settings)
    mesh = graph.mesh_features
    sets = [(graph.g2m, points, mesh[0]), (graph.m2g, mesh[0], points)]
    sets += [(edges, nodes, nodes) for edges, nodes in zip(graph.same, mesh, strict=True)]
    for level in range(graph.num_levels - 1):
        sets += [(graph.up[level], mesh[level], mesh[level + 1]), (graph.down[level], mesh[level + 1], mesh[level])]
    for edges, senders, receivers in sets:
        expected = receivers[edges.index[1]] - senders[edges.index[0]]
        torch.testing.assert_close(edges.features[:, 1:], expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(edges.features[:, 0], expected.norm(dim=1), atol=1e-4, rtol=0)


def test_rect_spacing_is_the_wanted_one_and_coarser_on_large_grids():
    assert mesh_shape((299.0, 299.0), 3.0, 1) == (100, 100)
    x, y = coordinates(512, 640)
    graph = build_flat(x, y, RECT)
    assert len(graph.mesh_features) == 81 * 54
    assert (511 / 54 / 8 - 1) < 0.25


def test_rect_has_as_many_levels_as_fit():
    assert [build_hierarchical(*coordinates(n, n), RECT).num_levels for n in (20, 50, 90)] == [2, 3, 4]


def test_coordinates_need_not_be_separable():
    x, y = coordinates(40, 60)
    angle = 0.2
    graph = build_flat(x + angle * y, y - angle * x, RECT)
    assert torch.bincount(graph.g2m.index[0], minlength=2400).min() >= 1


# --- nearest nodes against the naive search


@pytest.mark.parametrize("aspect", [0.4, 1.0, 1.7])
@pytest.mark.parametrize("size", [(1, 5), (2, 3), (7, 9), (1, 1)])
def test_lattice_finds_what_a_full_search_finds(aspect, size):
    generator = np.random.default_rng(0)
    lattice = Lattice(np.arange(size[1]) + 0.5, (np.arange(size[0]) + 0.5) * aspect)
    points = generator.uniform(0, 1, (200, 2)) * [size[1], size[0] * aspect]
    distance = np.linalg.norm(points[:, None] - lattice.positions()[None], axis=2)
    radius = 0.9
    found = lattice.within(points, radius)
    assert {*map(tuple, found.T)} == {*zip(*np.nonzero(distance <= radius), strict=True)}
    count = min(4, lattice.size)
    nearest = lattice.nearest(points, 4)
    assert nearest.shape == (2, 200 * count)
    got = np.sort(distance[nearest[0], nearest[1]].reshape(200, count), axis=1)
    np.testing.assert_allclose(got, np.sort(distance, axis=1)[:, :count])


# --- what is refused


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((7, 8), GraphSettings(levels=2), "grid 7 x 8 too small for 2 mesh levels"),
        ((7, 8), RECT, "grid 7 x 8 too small for 2 mesh levels"),
        ((7, 8), LEGACY, "grid 7 x 8 too small for 2 mesh levels"),
        ((64, 64), GraphSettings("legacy", levels=3), "grid 64 x 64 too small for 3 mesh levels"),
        ((64, 64), GraphSettings(levels=1), "a hierarchical graph has 2 levels or more, not 1"),
        ((1, 30), RECT, "grid 1 x 30, extent 29 x 0: too small for a mesh"),
    ],
)
def test_too_small_grids_are_named(shape, settings, message):
    with pytest.raises(InputError, match=message):
        build_hierarchical(*coordinates(*shape), settings)


def test_flat_graph_of_a_tiny_grid():
    with pytest.raises(InputError, match="grid 7 x 8 too small for 1 mesh level "):
        build_flat(*coordinates(7, 8), LEGACY)
    graph = build_flat(*coordinates(7, 8), RECT)
    assert torch.bincount(graph.g2m.index[0], minlength=56).min() >= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "reckt"}, "'reckt': expected one of rect, legacy"),
        ({"levels": 0}, "1 or more expected, not 0"),
        ({"mesh_spacing": -1.0}, "more than 0 grid cells expected"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(InputError, match=message):
        GraphSettings(**settings)


def test_coordinates_are_checked():
    x, y = coordinates(20, 30)
    with pytest.raises(InputError, match="coordinate y of the grid: finite"):
        build_flat(x, y * torch.nan, RECT)
    with pytest.raises(InputError, match=r"x is \(20, 30\), y is \(30, 20\)"):
        build_flat(x, y.T, RECT)


def test_edges_are_checked():
    index, features = torch.tensor([[0, 1], [0, 2]]), torch.zeros(2, 3)
    assert EdgeSet(index, features, 2, 5).receiver_counts().tolist() == [1, 0, 1, 0, 0]
    with pytest.raises(InputError, match="receivers of edges: 0 to 1 expected, found 0 to 2"):
        EdgeSet(index, features, 2, 2)
    with pytest.raises(InputError, match="senders of edges: 0 to 0 expected"):
        EdgeSet(index, features, 1, 3)
    with pytest.raises(InputError, match=r"\(2, edges\) int64 expected"):
        EdgeSet(index.int(), features, 2, 3)
    with pytest.raises(InputError, match=r"edge features: \(2, 3\) float32 expected"):
        EdgeSet(index, features[:, :2], 2, 3)


def test_sets_that_do_not_fit_are_refused():
    graph = build_hierarchical(*coordinates(30, 40), RECT)
    with pytest.raises(InputError, match="up edges of level 0"):
        HierarchicalGraph(graph.mesh_features, graph.g2m, graph.m2g, graph.same, graph.down, graph.up, 1.0)
    with pytest.raises(InputError, match="2 levels of nodes, but 1 sets"):
        HierarchicalGraph(graph.mesh_features, graph.g2m, graph.m2g, graph.same[:1], graph.up, graph.down, 1.0)


# --- files


def assert_same(one, other):
    assert type(one) is type(other)
    for name in one.__dataclass_fields__:
        a, b = getattr(one, name), getattr(other, name)
        for x, y in zip(a, b, strict=True) if isinstance(a, list) else [(a, b)]:
            if isinstance(x, EdgeSet):
                assert torch.equal(x.index, y.index)
                assert torch.equal(x.features, y.features)
                assert (x.num_senders, x.num_receivers) == (y.num_senders, y.num_receivers)
            elif isinstance(x, Tensor):
                assert torch.equal(x, y)
            else:
                assert x == pytest.approx(y)


@pytest.mark.parametrize("build", [build_flat, build_hierarchical])
def test_mllam_files_give_the_graph_back(build, tmp_path):
    graph = build(*coordinates(48, 64), LEGACY)
    write_mllam(graph, tmp_path)
    assert (tmp_path / "metainfo.yaml").read_text() == "spec_version: 0.1.0\n"
    index = torch.load(tmp_path / "m2g_edge_index.pt", weights_only=True)
    assert index.dtype == torch.int64
    assert index.shape == (2, 12_288)
    levels = torch.load(tmp_path / "m2m_features.pt", weights_only=True)
    assert isinstance(levels, list)
    assert levels[0].dtype == torch.float32
    read = read_mllam(tmp_path, 48 * 64)
    scale = max(
        float(f.max()) for f in (read.mesh_features if isinstance(read.mesh_features, list) else [read.mesh_features])
    )
    assert read.mesh_scale == pytest.approx(scale)
    object.__setattr__(read, "mesh_scale", graph.mesh_scale)
    assert_same(read, graph)


def test_a_flat_graph_replaces_a_hierarchical_one(tmp_path):
    write_mllam(build_hierarchical(*coordinates(48, 64), LEGACY), tmp_path)
    write_mllam(build_flat(*coordinates(48, 64), LEGACY), tmp_path)
    assert isinstance(read_mllam(tmp_path, 48 * 64), FlatGraph)


def test_mllam_faults_are_named(tmp_path):
    with pytest.raises(InputError, match=r"metainfo.yaml: not there"):
        read_mllam(tmp_path, 10)
    write_mllam(build_flat(*coordinates(48, 64), LEGACY), tmp_path)
    with pytest.raises(InputError, match="g2m: senders of edges: 0 to 9 expected"):
        read_mllam(tmp_path, 10)
    (tmp_path / "m2g_features.pt").write_bytes(b"no tensor")
    with pytest.raises(InputError, match=r"m2g_features\.pt: cannot be read"):
        read_mllam(tmp_path, 48 * 64)
    (tmp_path / "m2g_features.pt").unlink()
    with pytest.raises(InputError, match=r"m2g_features\.pt: not there"):
        read_mllam(tmp_path, 48 * 64)
    (tmp_path / "metainfo.yaml").write_text("spec_version: 9.0\n")
    with pytest.raises(InputError, match=r"spec_version 9.0, expected 0.1.0"):
        read_mllam(tmp_path, 48 * 64)


def counting(calls: list[int]):
    def build(x: Tensor, y: Tensor, settings: GraphSettings) -> FlatGraph:
        calls.append(1)
        return build_flat(x, y, settings)

    return build


def test_cache_is_used_for_the_same_grid_and_settings_only(tmp_path):
    calls: list[int] = []
    x, y = coordinates(30, 40)
    first = cache.cached(tmp_path / "new", x, y, RECT, FlatGraph, counting(calls))
    second = cache.cached(tmp_path / "new", x, y, RECT, FlatGraph, counting(calls))
    assert len(calls) == 1
    assert_same(first, second)
    cache.cached(tmp_path / "new", x * 2, y, RECT, FlatGraph, counting(calls))
    cache.cached(tmp_path / "new", x, y, GraphSettings(levels=1), FlatGraph, counting(calls))
    assert len(calls) == 3
    assert len(list((tmp_path / "new").iterdir())) == 3


def test_cache_of_another_grid_or_damaged_is_built_again(tmp_path, caplog):
    calls: list[int] = []
    x, y = coordinates(30, 40)
    cache.cached(tmp_path, x, y, RECT, FlatGraph, counting(calls))
    (path,) = tmp_path.iterdir()
    cache.cached(tmp_path, x + 1, y, RECT, FlatGraph, counting(calls))
    (other,) = set(tmp_path.iterdir()) - {path}
    for content in (other.read_bytes(), path.read_bytes()[:1000], b""):
        path.write_bytes(content)
        before = len(calls)
        graph = cache.cached(tmp_path, x, y, RECT, FlatGraph, counting(calls))
        assert len(calls) == before + 1
        assert "is no graph of this grid: built again" in caplog.text
        assert_same(graph, cache.cached(tmp_path, x, y, RECT, FlatGraph, counting(calls)))
        assert len(calls) == before + 1


def test_writers_at_the_same_time_leave_one_whole_file(tmp_path):
    x, y = coordinates(30, 40)
    barrier = threading.Barrier(4)

    def work() -> None:
        barrier.wait()
        cache.cached(tmp_path, x, y, RECT, FlatGraph, build_flat)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(tmp_path.iterdir())) == 1
    assert_same(cache.cached(tmp_path, x, y, RECT, FlatGraph, build_flat), build_flat(x, y, RECT))


def test_failed_writing_leaves_nothing(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        Path(args[1]).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(cache.torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        cache.cached(tmp_path, *coordinates(30, 40), RECT, FlatGraph, build_flat)
    assert list(tmp_path.iterdir()) == []
