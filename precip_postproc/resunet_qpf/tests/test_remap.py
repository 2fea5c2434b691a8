"""Remapping: constants, amounts of water, single cells, coverage, the cached index, bounded memory."""

import importlib.util
import json
import logging
import pickle
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.readers import remap
from precip_postproc.resunet_qpf.readers.grid import CurvilinearGrid, Grid, LambertGrid, LatLonGrid
from precip_postproc.resunet_qpf.readers.mrms import read_mrms
from precip_postproc.resunet_qpf.readers.remap import Remapper
from precip_postproc.resunet_qpf.tests.grib_files import HRRR, lambert_grid, samples

TARGET = lambert_grid(40, 50)
AXES = 38.8 + 0.01 * np.arange(200), -100.3 + 0.01 * np.arange(300)
SOURCE = LatLonGrid(*AXES)
LATLON = LatLonGrid(39.003 + 0.04 * np.arange(30), -99.797 + 0.05 * np.arange(40))
TARGETS = {"lambert": TARGET, "points": CurvilinearGrid(TARGET.latitude, TARGET.longitude), "latlon": LATLON}


@pytest.fixture(params=TARGETS)
def target(request) -> Grid:
    return TARGETS[request.param]


def rain(seed: int = 0, shape: tuple[int, int] = SOURCE.shape) -> np.ndarray:
    """Skewed and intermittent, without any smoothness."""
    values = np.random.default_rng(seed).gamma(0.5, 2.0, shape)
    return np.where(values > 1, values, 0).astype(np.float32)


class TestMean:
    def test_a_constant_stays(self, target):
        mean, coverage = Remapper(SOURCE, target).with_coverage(np.full(SOURCE.shape, 3.7, np.float32))
        assert mean.shape == target.shape
        assert (coverage == 1).all()
        np.testing.assert_allclose(mean, 3.7, rtol=1e-6)
        assert mean.dtype == np.float32

    def test_the_total_is_kept(self, target):
        """Rain times true area of the cells, over the cells that are covered as a whole."""
        values = rain()
        remapper = Remapper(SOURCE, target)
        mean = remapper(values)
        radius = 6371229.0
        source_area = (np.radians(0.01) * radius) ** 2 * np.cos(np.radians(SOURCE.latitude))
        if isinstance(target, LatLonGrid):
            area = np.radians(0.04) * np.radians(0.05) * radius**2 * np.cos(np.radians(target.latitude))
        else:
            area = 4000.0**2 / scale(target.latitude) ** 2
        inside = target.cell_of(SOURCE.latitude, SOURCE.longitude) >= 0
        assert (mean * area).sum() == pytest.approx((values * source_area)[inside].sum(), rel=5e-3)

    @pytest.mark.parametrize("place", [(0, 0), (17, 31), (39, 49), (5, 40)])
    def test_a_wet_cell_lands_in_its_cell(self, place):
        # the source cell nearest to a point of the target
        row = np.abs(SOURCE.latitudes - TARGET.latitude[place]).argmin()
        column = np.abs(SOURCE.longitudes - TARGET.longitude[place]).argmin()
        values = np.zeros(SOURCE.shape, np.float32)
        values[row, column] = 10.0
        for grid in (TARGET, TARGETS["points"]):
            mean = Remapper(SOURCE, grid)(values)
            assert np.argwhere(mean).tolist() == [list(place)]
            # 4 km are 3.6 by 4.6 to 4.7 hundredths of a degree
            assert 10 / 25 < mean[place] < 10 / 9

    def test_points_alone_give_nearly_the_cells_of_the_projection(self):
        cells = [grid.cell_of(SOURCE.latitude, SOURCE.longitude) for grid in (TARGET, TARGETS["points"])]
        assert (cells[0] != cells[1]).mean() < 1e-3
        assert (cells[0] >= 0).mean() > 0.3

    def test_three_quarters_must_be_valid(self):
        values = np.ones(SOURCE.shape, np.float32)
        remapper = Remapper(SOURCE, LATLON)
        mean, coverage = remapper.with_coverage(values)
        assert np.unique(coverage).tolist() == [1.0]
        # the cell of 4 x 5 points in the south-west
        rows = np.flatnonzero(LATLON.cell_of(SOURCE.latitudes, np.full(200, -99.797)) == 0)
        columns = np.flatnonzero(LATLON.cell_of(np.full(300, 39.003), SOURCE.longitudes) == 0)
        n = len(rows) * len(columns)
        for bad in range(n + 1):
            some = values.copy()
            places = np.unravel_index(np.arange(bad), (len(rows), len(columns)))
            some[rows[0] + places[0], columns[0] + places[1]] = np.nan
            mean, coverage = remapper.with_coverage(some)
            assert coverage[0, 0] == pytest.approx(1 - bad / n)
            assert np.isnan(mean[0, 0]) == ((n - bad) / n < 0.75)
            assert np.isfinite(mean.ravel()[1:]).all()
        half = Remapper(SOURCE, LATLON, min_valid=0.5)
        some = values.copy()
        some[rows[0] : rows[0] + len(rows) // 2, columns] = np.nan
        assert half(some)[0, 0] == 1

    def test_cells_beyond_the_edge_are_not_valid(self):
        """A target cell of which the source grid covers a part knows what it lacks."""
        middle = TARGET.longitude[:, 25].mean()
        part = SOURCE.crop((slice(None), slice(int((middle + 100.3) / 0.01), None)))
        mean, coverage = Remapper(part, TARGET).with_coverage(np.ones(part.shape, np.float32))
        np.testing.assert_array_equal(np.isfinite(mean), coverage >= 0.75)
        assert (coverage[:, :23] == 0).all()
        assert (coverage[:, 28:] == 1).all()
        between = coverage[:, 23:28]
        assert ((between > 0) & (between < 1)).sum() > 30
        whole = Remapper(SOURCE, TARGET)
        full = whole.with_coverage(
            np.where(SOURCE.longitude >= part.longitudes[0] - 1e-9, 1, np.nan).astype(np.float32)
        )
        np.testing.assert_allclose(full[1], coverage, atol=1e-6)

    def test_chunks_do_not_matter(self, monkeypatch):
        values = rain()
        expected = Remapper(SOURCE, TARGET)(values)
        monkeypatch.setattr(remap, "CHUNK", 1000)
        np.testing.assert_allclose(Remapper(SOURCE, TARGET)(values), expected, rtol=1e-6)

    def test_across_the_date_line(self):
        source = LatLonGrid(50 + 0.1 * np.arange(50), 176.05 + 0.1 * np.arange(100))
        target = LatLonGrid(51 + 0.5 * np.arange(6), -182 + 0.5 * np.arange(8))
        values = np.broadcast_to(source.longitudes, source.shape).astype(np.float32)
        mean = Remapper(source, target)(values)
        np.testing.assert_allclose(mean, np.broadcast_to(target.longitudes % 360, target.shape), atol=0.06)


class TestNearest:
    def test_values_of_the_nearest_cell(self, target):
        values = rain()
        found = Remapper(SOURCE, target, method="nearest")(values)
        rows = np.rint((target.latitude - SOURCE.latitudes[0]) / 0.01).astype(int)
        columns = np.rint((target.longitude - SOURCE.longitudes[0]) / 0.01).astype(int)
        # points half-way between two cells may go either way
        assert (found == values[rows, columns]).mean() > 0.9
        assert set(np.unique(found)) <= set(np.unique(values))

    def test_outside_and_invalid(self):
        part = SOURCE.crop((slice(0, 60), slice(None)))
        values = np.ones(part.shape, np.float32)
        values[40] = np.nan
        found, coverage = Remapper(part, TARGET, method="nearest").with_coverage(values)
        np.testing.assert_array_equal(np.isnan(found), coverage == 0)
        assert np.isnan(found[TARGET.latitude > 39.41]).all()
        assert 0 < np.isnan(found[TARGET.latitude < 39.35]).sum() < 100


class TestCache:
    def test_it_is_found_again(self, tmp_path, monkeypatch):
        values = rain()
        first = Remapper(SOURCE, TARGET, cache=tmp_path / "index")
        expected = first(values)
        assert [path.name for path in (tmp_path / "index").iterdir()] == [first.cache_file.name]

        def fail(*args: object) -> None:
            raise AssertionError("the index is made again")

        monkeypatch.setattr(LambertGrid, "cell_of", fail)
        np.testing.assert_array_equal(Remapper(SOURCE, TARGET, cache=tmp_path / "index")(values), expected)
        sent = pickle.dumps(first)
        assert len(sent) < 10_000
        np.testing.assert_array_equal(pickle.loads(sent)(values), expected)

    def test_its_name_depends_on_both_grids_and_the_method(self, tmp_path):
        shifted = LatLonGrid(AXES[0] + 0.001, AXES[1])
        wider = LambertGrid(HRRR, TARGET.origin, (4001.0, 4000.0), TARGET.shape)
        names = [
            Remapper(SOURCE, TARGET, cache=tmp_path).cache_file,
            Remapper(shifted, TARGET, cache=tmp_path).cache_file,
            Remapper(SOURCE, wider, cache=tmp_path).cache_file,
            Remapper(SOURCE, TARGETS["points"], cache=tmp_path).cache_file,
            Remapper(SOURCE, TARGET, method="nearest", cache=tmp_path).cache_file,
        ]
        assert len(set(names)) == len(names)
        assert Remapper(SOURCE, TARGET, min_valid=0.5, cache=tmp_path).cache_file == names[0]
        assert Remapper(SOURCE, TARGET).cache_file is None

    @pytest.mark.parametrize("damage", ["truncated", "changed", "empty", "other", "sizes", "range"])
    @pytest.mark.parametrize("method", ["mean", "nearest"])
    def test_a_damaged_one_is_made_anew(self, tmp_path, caplog, damage, method):
        values = rain()
        remapper = Remapper(SOURCE, TARGET, method=method, cache=tmp_path)
        expected, file = remapper(values), remapper.cache_file
        content = file.read_bytes()
        cells, counts = remapper._index
        if damage == "truncated":
            file.write_bytes(content[: len(content) // 2])
        elif damage == "changed":
            middle = len(content) // 2
            file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        elif damage == "empty":
            file.write_bytes(b"")
        elif damage == "other":
            file.write_bytes(b"no archive at all")
        elif damage == "sizes":
            np.savez(file, cells=cells[:-1], counts=counts)
        else:
            np.savez(file, cells=cells + np.int32(10**7), counts=counts)
        with caplog.at_level(logging.WARNING):
            found = Remapper(SOURCE, TARGET, method=method, cache=tmp_path)(values)
        np.testing.assert_array_equal(found, expected)
        assert f"{file} is damaged and is made anew" in caplog.text
        assert file.read_bytes() == content

    def test_a_folder_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match=r"the remapping's index cannot be written"):
            Remapper(SOURCE, TARGET, cache=tmp_path / "file")(rain())


def test_faults():
    with pytest.raises(InputError, match=r"remapping 'cubic' is not known; known are mean, nearest"):
        Remapper(SOURCE, TARGET, method="cubic")
    with pytest.raises(InputError, match=r"min_valid must be above 0 and at most 1, it is 75"):
        Remapper(SOURCE, TARGET, min_valid=75)
    with pytest.raises(InputError, match=r"the field to remap has shape \(200, 299\), its grid has \(200, 300\)"):
        Remapper(SOURCE, TARGET)(np.ones((200, 299), np.float32))
    with pytest.raises(InputError, match=r"does not cover the one whose first corner is"):
        SOURCE.window(LatLonGrid(np.array([10.0, 11.0]), np.array([10.0, 11.0])))
    with pytest.raises(InputError, match=r"latitudes must be two or more that increase, they are \[2. 1.\]"):
        LatLonGrid(np.array([2.0, 1.0]), np.array([1.0, 2.0]))


def test_windows_cover_the_target():
    window = SOURCE.window(TARGET, margin=0.1)
    part = SOURCE.crop(window)
    assert part.shape < SOURCE.shape
    values = rain()
    np.testing.assert_array_equal(Remapper(part, TARGET)(values[window]), Remapper(SOURCE, TARGET)(values))


def test_cells_are_those_of_pyproj():
    """In a process of its own: wheels of pyproj and of eccodes each bring a copy of PROJ, which do not get along."""
    if importlib.util.find_spec("pyproj") is None:
        pytest.skip("pyproj is not installed")
    latitude, longitude = (np.random.default_rng(0).uniform(*limits, 500) for limits in ((38.9, 40.6), (-100.2, -97.6)))
    code = (
        "import json, sys, pyproj\n"
        "latitude, longitude = json.load(sys.stdin)\n"
        "plane = pyproj.Proj(proj='lcc', lat_0=38.5, lon_0=-97.5, lat_1=38.5, lat_2=38.5, R=6371229)\n"
        "x, y = plane(longitude, latitude)\n"
        "print(json.dumps([list(x), list(y)]))\n"
    )
    given = json.dumps([latitude.tolist(), longitude.tolist()])
    done = subprocess.run([sys.executable, "-c", code], input=given, capture_output=True, text=True, check=True)
    x, y = np.array(json.loads(done.stdout))
    np.testing.assert_allclose(HRRR.to_plane(latitude, longitude), [x, y], atol=1e-3)
    columns, rows = (np.rint((v - v0) / 4000).astype(int) for v, v0 in zip((x, y), TARGET.origin, strict=True))
    inside = (rows >= 0) & (rows < 40) & (columns >= 0) & (columns < 50)
    assert 100 < inside.sum() < 500
    np.testing.assert_array_equal(TARGET.cell_of(latitude, longitude), np.where(inside, rows * 50 + columns, -1))


def test_memory_is_bounded_by_field_and_index():
    """Making the index of 4 million cells takes its 16 MB and some chunks, not tens of arrays of coordinates."""
    source = LatLonGrid(36 + 0.002 * np.arange(2000), -101 + 0.002 * np.arange(2000))
    target = lambert_grid(60, 60)
    _ = target.latitude
    tracemalloc.start()
    remapper = Remapper(source, target)
    _ = remapper._index
    held, peak = tracemalloc.get_traced_memory()
    assert held < 20e6
    assert peak < 20e6 + 16 * 8 * remap.CHUNK
    values = np.ones(source.shape, np.float32)
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    remapper(values)
    assert tracemalloc.get_traced_memory()[1] - before < 6 * 8 * remap.CHUNK
    tracemalloc.stop()


def test_area_mean_and_nearest_of_a_real_hour():
    """Section 1.2 of the sheet gives 0.0413 and 0.0430, 0.0089 and 0.0090 for squares of 4 x 4 points."""
    hour = read_mrms(samples() / "MRMS_MultiSensor_QPE_01H_Pass2_00.00_20220602-120000.grib2.gz")
    source = hour.grid
    target = LatLonGrid(source.latitudes.reshape(-1, 4).mean(axis=1), source.longitudes.reshape(-1, 4).mean(axis=1))
    mean = Remapper(source, target)(hour.values)
    blocks = hour.values.astype(np.float64).reshape(875, 4, 1750, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(mean, blocks, atol=1e-5)
    assert [(mean >= t - 1e-4).mean() for t in (0.25, 2.5)] == pytest.approx([0.0413, 0.0089], rel=0.01)
    nearest = Remapper(source, target, method="nearest")(hour.values)
    assert [(nearest >= t - 1e-4).mean() for t in (0.25, 2.5)] == pytest.approx([0.0430, 0.0090], rel=0.03)


def scale(latitude: np.ndarray) -> np.ndarray:
    """Scale of the map of HRRR's projection at latitudes, which touches the sphere at 38.5 N."""
    first, phi = np.radians(38.5), np.radians(latitude)
    n = np.sin(first)
    ratio = np.tan(np.pi / 4 + first / 2) / np.tan(np.pi / 4 + phi / 2)
    return np.cos(first) / np.cos(phi) * ratio**n
