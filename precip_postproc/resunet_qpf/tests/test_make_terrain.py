"""Terrain files from a model's own orography: read back, compared with a hill whose slopes are known, and refused."""

import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf import make_terrain as command
from precip_postproc.resunet_qpf.make_terrain import main, make_terrain, read_orography
from precip_postproc.resunet_qpf.netcdf_writer import write_netcdf
from precip_postproc.resunet_qpf.readers import CurvilinearGrid, LambertGrid, read_terrain, require_same_grid
from precip_postproc.resunet_qpf.readers.grid import EARTH_RADIUS, LatLonGrid, distances
from precip_postproc.resunet_qpf.terrain_file import REAL_SIGMAS
from precip_postproc.resunet_qpf.tests.grib_files import INIT, apcp, encode, lambert_grid, lambert_keys, write

GRID = lambert_grid(72, 90, spacing=3000.0)
RADIUS = 6.0  # of the hill, grid points
DEGREE = np.pi / 180 * EARTH_RADIUS  # m


def hill(radius: float = RADIUS, peak: float = 1200.0) -> np.ndarray:
    """A Gaussian hill (y, x) in the middle of the grid, m."""
    y, x = np.mgrid[: GRID.shape[0], : GRID.shape[1]]
    return peak * np.exp(-0.5 * ((y - 36) ** 2 + (x - 45) ** 2) / radius**2)


def height_message(values: np.ndarray, *, north_first: bool = False, **changes) -> bytes:
    keys = {
        "centre": "kwbc", "tablesVersion": 2, "discipline": 0, **lambert_keys(GRID, north_first),
        "productDefinitionTemplateNumber": 0, "parameterCategory": 3, "parameterNumber": 5,
        "typeOfFirstFixedSurface": 1, "decimalScaleFactor": 3, "bitsPerValue": 0,
    }  # fmt: skip
    return encode(keys | changes, values[::-1] if north_first else values)


@pytest.fixture
def grib(tmp_path) -> Path:
    """A file like a model's: amounts, heights of a pressure level, and then the orography."""
    pytest.importorskip("eccodes")
    pressure = {"typeOfFirstFixedSurface": 100, "scaledValueOfFirstFixedSurface": 50000}
    amount = apcp(np.ones(GRID.shape), 5, 6, GRID)
    return write(
        tmp_path / "hrrr.grib2", amount, height_message(5500 + hill(), **pressure), height_message(hill()), amount
    )


def dataset(height: np.ndarray | None = None, **attributes) -> xr.Dataset:
    """The hill with latitudes and longitudes of every point, but without a projection."""
    values = hill() if height is None else height
    places = {"latitude": GRID.latitude, "longitude": GRID.longitude}
    fields = {name: (("y", "x"), field) for name, field in places.items()}
    return xr.Dataset({**fields, "orog": (("y", "x"), values.astype(np.float32), {"units": "m", **attributes})})


def save(data: xr.Dataset, path: Path) -> Path:
    data.to_netcdf(path, engine="h5netcdf")
    return path


def test_a_hill_has_the_heights_and_slopes_that_it_should(grib, tmp_path, capsys):
    main([str(grib), str(tmp_path / "terrain.nc"), "--sigma", "3", "5"])
    printed = capsys.readouterr().out
    assert "terrain.nc (72 x 90 points, 0 to 1200 m" in printed
    terrain = read_terrain(tmp_path / "terrain.nc", GRID)
    assert terrain.grid is GRID
    assert terrain.sigmas is not None
    assert terrain.sigmas.tolist() == [3, 5]
    fields = terrain.fields
    np.testing.assert_allclose(fields["terrain_height"], hill(), atol=2e-3)
    # a Gaussian smoothed by a Gaussian is a lower and wider one
    for sigma, found in zip((3, 5), fields["terrain_height_smoothed_multisigma"], strict=True):
        wide = RADIUS**2 + sigma**2
        np.testing.assert_allclose(found, hill(np.sqrt(wide), 1200 * RADIUS**2 / wide), atol=0.1)
    wide = RADIUS**2 + 3**2
    smooth = hill(np.sqrt(wide), 1200 * RADIUS**2 / wide)
    np.testing.assert_allclose(fields["terrain_height_smoothed"], smooth, atol=0.1)
    np.testing.assert_allclose(fields["terrain_height_local_difference"], hill() - smooth, atol=0.1)
    y, x = np.mgrid[: GRID.shape[0], : GRID.shape[1]]
    # of the continuous hill; differences over 6 km of it are 1 % off
    expected = {
        "dterrain_dlon_smoothed": -(x - 45) / wide * smooth / 3000,
        "dterrain_dlat_smoothed": -(y - 36) / wide * smooth / 3000,
        "dterrain_dlon": -(x - 45) / RADIUS**2 * hill() / 3000,
        "dterrain_dlat": -(y - 36) / RADIUS**2 * hill() / 3000,
    }
    for name, slope in expected.items():
        np.testing.assert_allclose(fields[name], slope, atol=0.03 * np.abs(slope).max(), err_msg=name)
    for axis in ("lon", "lat"):
        names = (f"dterrain_d{axis}{suffix}" for suffix in ("", "_smoothed", "_difference"))
        raw, smoothed, difference = (fields[name] for name in names)
        np.testing.assert_allclose(difference, raw - smoothed, atol=1e-6)
    with xr.open_dataset(tmp_path / "terrain.nc") as opened:
        assert opened["terrain_height"].attrs["units"] == "m"
        assert opened["dterrain_dlon_smoothed"].attrs["units"] == "m m-1"
        assert opened.attrs["source"] == "hrrr.grib2"
        np.testing.assert_allclose(opened["lats"], GRID.latitude, atol=2e-4)


def test_without_a_choice_smoothing_is_that_of_the_published_file(grib, tmp_path):
    make_terrain(grib, tmp_path / "new" / "terrain.nc")
    sigmas = read_terrain(tmp_path / "new" / "terrain.nc").sigmas
    assert sigmas is not None
    assert tuple(sigmas) == REAL_SIGMAS


@pytest.mark.parametrize(
    ("changes", "factor"),
    [
        ({"north_first": True}, 1),
        ({"discipline": 2, "parameterCategory": 0, "parameterNumber": 7}, 1),
        ({"parameterNumber": 4}, 9.80665),
    ],
    ids=["from the north", "model terrain height", "geopotential"],
)
def test_other_messages_of_the_same(tmp_path, changes, factor):
    pytest.importorskip("eccodes")
    grid, height = read_orography(write(tmp_path / "a.grib2", height_message(factor * hill(), **changes)))
    assert isinstance(grid, LambertGrid)
    require_same_grid(grid, GRID, ("the file", "the forecast"), tolerance=1e-5)
    np.testing.assert_allclose(height, hill(), atol=2e-3)


def test_netcdf_gives_nearly_the_same_as_grib(grib, tmp_path):
    path = save(dataset().isel(y=slice(None, None, -1)), tmp_path / "orog.nc")
    of_grib, of_netcdf = (
        make_terrain(source, tmp_path / f"{number}.nc", sigmas=[4.0]) for number, source in enumerate((grib, path))
    )
    np.testing.assert_allclose(of_netcdf.terrain_height_smoothed, of_grib.terrain_height_smoothed, atol=0.01)
    # distances on the sphere, not on the map, whose scale is 1 at 38.5 degrees north
    largest = np.abs(of_grib.dterrain_dlon_smoothed).max()
    for name in ("dterrain_dlon_smoothed", "dterrain_dlat_smoothed"):
        np.testing.assert_allclose(getattr(of_netcdf, name), getattr(of_grib, name), atol=0.005 * largest)
    assert read_terrain(tmp_path / "1.nc", GRID).grid is GRID


def test_on_latitudes_and_longitudes_a_column_is_narrower_in_the_north(tmp_path):
    latitude, longitude = np.arange(50.0, 30.0, -0.25), np.arange(240.0, 260.0, 0.25)
    rise = 100 * (longitude - 240) + 40 * (latitude[:, None] - 30)
    data = xr.Dataset(
        {"zsfc": (("time", "latitude", "longitude"), 9.80665 * rise[None], {"units": "m**2 s**-2"})},
        {"latitude": latitude, "longitude": longitude},
    )
    save(data, tmp_path / "a.nc")
    make_terrain(tmp_path / "a.nc", tmp_path / "terrain.nc", sigmas=[0.01], variable="zsfc")
    terrain = read_terrain(tmp_path / "terrain.nc", LatLonGrid(latitude[::-1], longitude))
    np.testing.assert_allclose(terrain.fields["terrain_height"], rise[::-1], rtol=1e-6, atol=1e-3)
    np.testing.assert_allclose(terrain.fields["dterrain_dlat"], 40 / DEGREE, rtol=2e-3)
    expected = 100 / DEGREE / np.cos(np.radians(latitude[::-1, None]))
    np.testing.assert_allclose(terrain.fields["dterrain_dlon"], np.broadcast_to(expected, rise.shape), rtol=2e-3)


def test_distances_are_those_on_the_sphere_and_of_the_map():
    assert distances(GRID) == (3000.0, 3000.0)
    columns, rows = distances(LatLonGrid(np.array([0.0, 0.5, 1.5]), np.array([10.0, 10.2, 10.4, 10.6])))
    np.testing.assert_allclose(columns[0], 0.2 * DEGREE, rtol=1e-5)
    np.testing.assert_allclose(columns[2], 0.2 * DEGREE * np.cos(np.radians(1.5)), rtol=1e-5)
    np.testing.assert_allclose(rows[:, 1] / DEGREE, [0.5, 0.75, 1.0], rtol=1e-4)
    # within a percent of the map's this near to where it is true
    columns, rows = distances(CurvilinearGrid(GRID.latitude, GRID.longitude))
    np.testing.assert_allclose(columns, 3000, rtol=0.01)
    np.testing.assert_allclose(rows, 3000, rtol=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.rename(orog="skt"), "has no orography: no variable orog or orography or .*; it has"),
        (lambda d: d.drop_vars(["latitude", "longitude"]), "has no latitude: no variable latitude or lat"),
        (lambda d: d.assign(orog=d.orog.assign_attrs(units="ft")), "'orog' has units 'ft', expected 'm'"),
        (lambda d: d.assign(orog=d.orog.where(d.orog > 1)), r"heights are missing at \d+ of 6480 values"),
        (lambda d: d.assign(orog=d.orog * 100), r"heights are from .* to 120000, expected -500 to 9000 m"),
        (lambda d: d.assign(orog=d.orog.expand_dims(time=2)), r"'orog' has dimensions \('time', 'y', 'x'\), expected"),
    ],
    ids=["no orography", "no grid", "feet", "missing", "no metres", "two times"],
)
def test_netcdf_that_is_refused(tmp_path, capsys, change, message):
    path = save(change(dataset()), tmp_path / "a.nc")
    with pytest.raises(SystemExit) as stop:
        main([str(path), str(tmp_path / "terrain.nc")])
    assert stop.value.code == 2
    assert re.search(f"error: {re.escape(str(path))}:? {message}", " ".join(capsys.readouterr().err.split()))
    assert not (tmp_path / "terrain.nc").exists()


def test_a_variable_is_found_by_its_standard_name(tmp_path):
    data = dataset(standard_name="surface_altitude").rename(orog="whatever").assign(topo=dataset()["orog"] + 1)
    _, height = read_orography(save(data, tmp_path / "a.nc"))
    np.testing.assert_allclose(height, hill(), atol=1e-3)
    _, height = read_orography(tmp_path / "a.nc", "topo")
    np.testing.assert_allclose(height, hill() + 1, atol=1e-3)


def test_grib_without_orography_and_files_that_are_not_there(tmp_path):
    pytest.importorskip("eccodes")
    pressure = height_message(hill(), typeOfFirstFixedSurface=100)
    path = write(tmp_path / "a.grib2", apcp(np.ones(GRID.shape), 5, 6, GRID, init=INIT), pressure)
    with pytest.raises(InputError, match=r"a.grib2 has no orography: of its 2 messages none has a parameter of 0/3/5"):
        read_orography(path)
    with pytest.raises(InputError, match=r"b.grib2 \(orography\) is not there; give a GRIB2 or NetCDF file"):
        read_orography(tmp_path / "b.grib2")
    (tmp_path / "c.grib2").write_text("no heights")
    with pytest.raises(InputError, match=r"c.grib2 holds no GRIB message, found 10 other bytes"):
        read_orography(tmp_path / "c.grib2")


def test_what_cannot_be_written(tmp_path):
    source = save(dataset(), tmp_path / "a.nc")
    with pytest.raises(InputError, match=r"terrain.grib2 would be NetCDF: give it the suffix .nc"):
        make_terrain(source, tmp_path / "terrain.grib2")
    with pytest.raises(InputError, match=r"sigma is -1: expected positive numbers of grid points"):
        make_terrain(source, tmp_path / "terrain.nc", sigmas=[4, -1])
    with pytest.raises(InputError, match=r"a.nc exists already: remove it, name another output or give --overwrite"):
        make_terrain(source, source)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write .*file/terrain.nc: (Not a directory|File exists)"):
        make_terrain(source, tmp_path / "file" / "terrain.nc")


def test_an_interrupted_writing_leaves_what_was_there(tmp_path, monkeypatch):
    source, output = save(dataset(), tmp_path / "a.nc"), tmp_path / "out" / "terrain.nc"
    make_terrain(source, output, sigmas=[4])
    before = output.read_bytes()

    def stop(path, grid, terrain, attributes):
        write_netcdf(path, {"lats": None}, attributes)  # not a variable: an error while the file is open

    monkeypatch.setattr(command, "write_terrain", stop)
    with pytest.raises(AttributeError):
        make_terrain(source, output, sigmas=[8], overwrite=True)
    assert output.read_bytes() == before
    assert list(output.parent.iterdir()) == [output]
    monkeypatch.undo()
    make_terrain(source, output, sigmas=[8], overwrite=True)
    assert output.read_bytes() != before
