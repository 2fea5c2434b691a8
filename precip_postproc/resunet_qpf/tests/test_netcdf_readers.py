"""NetCDF and Zarr: terrain, remapped targets, coarse predictors, forecasts of any model; none of it needs eccodes."""

import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from ai4sim.errors import InputError, MissingFileError
from precip_postproc.resunet_qpf.readers.files import HOUR, require_valid_time
from precip_postproc.resunet_qpf.readers.forecasts import ForecastFile
from precip_postproc.resunet_qpf.readers.gfs import gfs_path, read_gfs
from precip_postproc.resunet_qpf.readers.grid import CurvilinearGrid, LambertGrid, LatLonGrid
from precip_postproc.resunet_qpf.readers.target import read_target, target_path
from precip_postproc.resunet_qpf.readers.terrain import read_terrain
from precip_postproc.resunet_qpf.tests.grib_files import HRRR, lambert_grid

Change = Callable[[xr.Dataset], xr.Dataset]

GRID = lambert_grid()
INIT = np.datetime64("2025-12-01T00", "ns")
TIME = np.datetime64("2025-12-02T12:00:00")
ROWS, COLUMNS = np.mgrid[: GRID.shape[0], : GRID.shape[1]]


def save(dataset: xr.Dataset, path: Path) -> Path:
    if path.suffix == ".zarr":
        dataset.to_zarr(path, zarr_format=2)
    else:
        dataset.to_netcdf(path, engine="h5netcdf")
    return path


class TestTerrain:
    @staticmethod
    def dataset(*, north_first: bool = False) -> xr.Dataset:
        height = 500 + 100 * np.sin(COLUMNS / 3) * np.cos(ROWS / 4)
        smoothed = 500 + 60 * np.sin(COLUMNS / 3) * np.cos(ROWS / 4)
        dy, dx = np.gradient(smoothed, 4000.0)
        fields = {
            "lats": GRID.latitude, "lons": GRID.longitude % 360, "terrain_height": height,
            "terrain_height_smoothed": smoothed, "terrain_height_local_difference": height - smoothed,
            "dterrain_dlon_smoothed": dx, "dterrain_dlat_smoothed": dy,
        }  # fmt: skip
        data = xr.Dataset({name: (("ny", "nx"), values.astype(np.float32)) for name, values in fields.items()})
        data["terrain_height"].attrs["units"] = "m"
        data["sigmas"] = ("nsigma", np.array([15.0, 20.0]))
        data["terrain_height_smoothed_multisigma"] = (("nsigma", "ny", "nx"), np.stack([smoothed, height]))
        return data.isel(ny=slice(None, None, -1)) if north_first else data

    def test_rows_are_turned_once(self, tmp_path, caplog):
        caplog.set_level(logging.INFO)
        south = read_terrain(save(self.dataset(), tmp_path / "south.nc"))
        assert not caplog.records
        north = read_terrain(save(self.dataset(north_first=True), tmp_path / "north.nc"))
        assert "north.nc: rows are turned, to start in the south-west" in caplog.text
        assert (np.diff(north.grid.latitude, axis=0) > 0).all()
        assert south.fields.keys() == north.fields.keys()
        for name, values in south.fields.items():
            np.testing.assert_array_equal(north.fields[name], values, err_msg=name)
        assert south.fields["terrain_height_smoothed_multisigma"].shape == (2, *GRID.shape)
        assert south.sigmas.tolist() == [15, 20]
        assert -180 <= south.grid.longitude.min() <= south.grid.longitude.max() < 180

    def test_the_grid_of_the_forecast(self, tmp_path):
        path = save(self.dataset(), tmp_path / "a.nc")
        assert read_terrain(path, GRID).grid is GRID
        expected = (
            r"a.nc has shape \(12, 15\) and first corner 39.0000 N, -100.0000 E, that of the forecast has shape "
            r"\(12, 14\).*shapes differ"
        )
        with pytest.raises(InputError, match=expected):
            read_terrain(path, lambert_grid(12, 14))
        moved = LambertGrid(HRRR, (GRID.origin[0] + 1500, GRID.origin[1]), GRID.spacing, GRID.shape)
        with pytest.raises(InputError, match=r"their points differ by up to 0.01\d* degrees, more than 0.01"):
            read_terrain(path, moved)
        near = LambertGrid(HRRR, (GRID.origin[0] + 500, GRID.origin[1]), GRID.spacing, GRID.shape)
        assert read_terrain(path, near).grid is near

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda d: d.drop_vars("terrain_height"), r"variable 'terrain_height' is missing; the file holds"),
            (lambda d: d.assign(lats=d.lats.T), r"variable 'lats' has dimensions \(nx, ny\), expected \(ny, nx\)"),
            (lambda d: d.assign(terrain_height=d.terrain_height.where(d.terrain_height < 580)), "missing or infinite"),
            (lambda d: d.assign(terrain_height=d.terrain_height + 9000), r"outside the valid range -500 .. 9000"),
            (
                lambda d: d.assign(terrain_height=d.terrain_height.assign_attrs(units="ft")),
                "'terrain_height' has units 'ft', expected 'm'",
            ),
            (
                lambda d: d.assign(dterrain_dlat_smoothed=-d.dterrain_dlat_smoothed),
                "'dterrain_dlat_smoothed' is not the slope to the north, it falls where 'terrain_height_smoothed' ri",
            ),
            (lambda d: d.assign(dterrain_dlon_smoothed=-d.dterrain_dlon_smoothed), "is not the slope to the east"),
        ],
    )
    def test_faults(self, tmp_path, change: Change, message):
        path = save(change(self.dataset()), tmp_path / "a.nc")
        with pytest.raises(InputError, match=rf"(?s)a.nc.*{message}"):
            read_terrain(path)

    def test_no_file(self, tmp_path):
        with pytest.raises(MissingFileError, match=r"a.nc \(terrain\) is not there"):
            read_terrain(tmp_path / "a.nc")
        (tmp_path / "a.nc").write_bytes(b"")
        with pytest.raises(
            InputError, match=r"a.nc \(terrain\) is no NetCDF file that can be read, it may be truncated"
        ):
            read_terrain(tmp_path / "a.nc")


class TestTarget:
    NAME = "MRMS_1h_pamt_and_data_qual_2025120212.nc"

    @staticmethod
    def dataset(**changes: Any) -> xr.Dataset:
        amount = (0.1 * (ROWS + COLUMNS)).astype(np.float32)
        fields = {
            "lats": GRID.latitude, "lons": GRID.longitude, "precipitation": amount,
            "data_quality": np.full(GRID.shape, 0.8, np.float32),
        } | changes  # fmt: skip
        return xr.Dataset({name: (("nlats", "nlons"), values) for name, values in fields.items()})

    def test_values_and_quality(self, tmp_path):
        found = read_target(save(self.dataset(), tmp_path / self.NAME), TIME, GRID)
        assert (found.time, found.n_invalid, found.grid) == (TIME, 0, GRID)
        np.testing.assert_allclose(found.values, 0.1 * (ROWS + COLUMNS), rtol=1e-6)
        assert np.unique(found.quality).tolist() == [np.float32(0.8)]
        assert target_path("targets", TIME) == Path("targets/202512") / self.NAME
        turned = self.dataset().isel(nlats=slice(None, None, -1))
        np.testing.assert_array_equal(read_target(save(turned, tmp_path / f"t_{self.NAME}")).values, found.values)

    def test_ranges_and_fill_values(self, tmp_path, caplog):
        caplog.set_level(logging.INFO)
        amount, quality = np.full(GRID.shape, 2.0, np.float32), np.full(GRID.shape, 0.5, np.float32)
        amount[0, :5] = [200.0, 200.1, 9.97e36, -3.0, np.nan]
        quality[1, :4] = [1.2, -3.0, np.nan, 9.97e36]
        data = self.dataset(precipitation=amount, data_quality=quality)
        found = read_target(save(data, tmp_path / self.NAME))
        assert (np.flatnonzero(np.isnan(found.values)).tolist(), found.n_invalid) == ([1, 2, 3, 4], 4)
        assert found.values[0, 0] == 200
        assert found.quality[1, :5].tolist() == [-1, -1, -1, -1, 0.5]
        assert "4 of 180 amounts are missing or out of range" in caplog.text

    def test_times(self, tmp_path):
        path = save(self.dataset(), tmp_path / self.NAME)
        with pytest.raises(
            InputError, match=r"2025120212.nc is valid at 2025-12-02T12:00:00, expected 2025-12-02T13:00:00"
        ):
            read_target(path, TIME + HOUR)
        with pytest.raises(InputError, match=r"a.nc does not say when it is valid: no time coordinate, no YYYYMMDDHH"):
            read_target(save(self.dataset(), tmp_path / "a.nc"))
        timed = self.dataset().assign_coords(time=TIME.astype("datetime64[ns]"))
        assert read_target(save(timed, tmp_path / "b.nc")).time == TIME
        with pytest.raises(InputError, match=r"say it is valid at 2025-12-02T12:00:00, 2025-12-02T13:00:00"):
            read_target(save(timed, tmp_path / "c_2025120213.nc"))

    def test_other_faults(self, tmp_path):
        with pytest.raises(InputError, match=r"has no data quality: no variable data_quality; it has"):
            read_target(save(self.dataset().drop_vars("data_quality"), tmp_path / self.NAME))
        data = self.dataset()
        data["precipitation"].attrs["units"] = "inch"
        with pytest.raises(InputError, match=r"'precipitation' has units 'inch'"):
            read_target(save(data, tmp_path / f"u_{self.NAME}"))
        with pytest.raises(InputError, match=r"the forecast has shape \(10, 15\)"):
            read_target(save(self.dataset(), tmp_path / f"g_{self.NAME}"), grid=lambert_grid(10))


GFS_UNITS = {"pwat": "kg m**-2", "r": "%", "cape": "J kg**-1", "u": "m s**-1", "v": "m s-1"}


class TestGfs:
    def dataset(self) -> xr.Dataset:
        steps, shape = np.arange(3, 25, 3), (8, 5, 6)
        values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        data = {
            name: (("step", "latitude", "longitude"), values + i, {"units": units})
            for i, (name, units) in enumerate(GFS_UNITS.items())
        }
        coords = {
            "step": ("step", steps, {"units": "hours"}),
            "latitude": 40 - 0.25 * np.arange(5),
            "longitude": 260 + 0.25 * np.arange(6),
            "time": INIT,
            "valid_time": ("step", INIT + steps * np.timedelta64(1, "h")),
        }
        return xr.Dataset(data, coords)

    def test_fields(self, tmp_path):
        raw = self.dataset()
        found = read_gfs(save(raw, tmp_path / "gfs_subset_2025120100.nc"), ["pwat", "u"], INIT)
        assert found.leads == list(range(3, 25, 3))
        assert isinstance(found.grid, LatLonGrid)
        assert found.grid.corner == (39, -100)
        np.testing.assert_array_equal(found.at("u", 6), raw["u"].values[1, ::-1])
        with pytest.raises(InputError, match=r"has no lead 7 h; it has 3, 6, 9"):
            found.at("pwat", 7)
        assert gfs_path("gfs", INIT) == Path("gfs/gfs_subset_2025120100.nc")

    def test_steps_as_durations(self, tmp_path):
        data = self.dataset().drop_vars("valid_time")
        data["step"] = data["step"].values * np.timedelta64(1, "h").astype("timedelta64[ns]")
        assert read_gfs(save(data, tmp_path / "a.nc"), ["r"]).leads == list(range(3, 25, 3))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda d: d.drop_vars("pwat"), "has no predictor pwat: no variable pwat"),
            (lambda d: d.assign(pwat=d.pwat.assign_attrs(units="g")), "'pwat' has units 'g', expected 'kg m-2'"),
            (
                lambda d: d.assign(pwat=d.pwat.where(d.pwat != 37)),
                r"'pwat' at step 6 h is missing at 1 of 30 values \(f",
            ),
            (lambda d: d.assign(pwat=d.pwat.isel(step=0)), r"'pwat' has dimensions \('latitude', 'longitude'\)"),
            (
                lambda d: d.assign_coords(time=INIT + HOUR),
                "has the initial time 2025-12-01T01:00:00, expected 2025-12-01T00",
            ),
            (
                lambda d: d.assign_coords(valid_time=d.valid_time + HOUR),
                r"is valid at 2025-12-01T04:00:00, but the forecast from 2025-12-01T00:00:00 with lead 3 h is valid at "
                "2025-12-01T03:00:00",
            ),
            (
                lambda d: d.assign_coords(step=("step", d.step.values, {"units": "months"})),
                "'step' has units 'months'; hours are expected",
            ),
            (
                lambda d: d.assign_coords(step=("step", d.step.values * 50, {"units": "minutes"})),
                "'step' has lead times that are not whole hours",
            ),
        ],
    )
    def test_faults(self, tmp_path, change: Change, message):
        path = save(change(self.dataset()), tmp_path / "a.nc")
        with pytest.raises(InputError, match=rf"a.nc.*{message}"):
            read_gfs(path, ["pwat"], INIT)

    def test_latitudes_of_two_dimensions(self, tmp_path):
        latitude, longitude = np.meshgrid(40 - 0.25 * np.arange(5), 260 + 0.25 * np.arange(6), indexing="ij")
        raw = self.dataset().drop_vars(["latitude", "longitude"]).rename(latitude="y", longitude="x")
        data = raw.assign_coords(latitude=(("y", "x"), latitude), longitude=(("y", "x"), longitude))
        with pytest.raises(InputError, match=r"a.nc has latitudes of two dimensions; coarse predictors need one"):
            read_gfs(save(data, tmp_path / "a.nc"), ["pwat"])

    def test_unknown_predictors(self, tmp_path):
        with pytest.raises(InputError, match=r"the predictor 'q' is not known; known are pwat, r, cape"):
            read_gfs(tmp_path / "a.nc", ["q"])


class TestForecasts:
    LEADS = (1, 2, 3)

    def dataset(self, units: str = "mm", *, init: str = "init", mapping: bool = True) -> xr.Dataset:
        """Amount = run + lead + row / 10 + column / 1000."""
        runs, leads = np.arange(2)[:, None, None, None], np.array(self.LEADS)[:, None, None]
        values = (runs + leads + ROWS / 10 + COLUMNS / 1000).astype(np.float32)
        coords = {
            init: INIT + np.array([0, 12]) * np.timedelta64(1, "h"),
            "lead": ("lead", list(self.LEADS), {"units": "hours"}),
            "y": ("y", GRID.y, {"units": "m"}),
            "x": ("x", GRID.x, {"units": "m"}),
            "lat": (("y", "x"), GRID.latitude),
            "lon": (("y", "x"), GRID.longitude % 360),
        }
        data = xr.Dataset({"precip": ((init, "lead", "y", "x"), values, {"units": units})}, coords)
        if mapping:
            attributes = {
                "grid_mapping_name": "lambert_conformal_conic", "standard_parallel": [38.5, 38.5],
                "earth_radius": 6371229.0, "longitude_of_central_meridian": -97.5,
                "latitude_of_projection_origin": 38.5,
            }  # fmt: skip
            data["crs"] = ((), 0, attributes)
            data["precip"].attrs["grid_mapping"] = "crs"
        return data

    @pytest.mark.parametrize("name", ["a.nc", "a.zarr"])
    @pytest.mark.parametrize("init", ["init", "time"])
    def test_fields_on_projected_grids(self, tmp_path, name, init):
        file = ForecastFile(save(self.dataset(init=init), tmp_path / name))
        assert file.leads == [1, 2, 3]
        assert file.inits.tolist() == (INIT.astype("datetime64[s]") + np.array([0, 12]) * HOUR).tolist()
        found = file.read(INIT + 12 * HOUR, 3)
        np.testing.assert_allclose(found.values, 4 + ROWS / 10 + COLUMNS / 1000, rtol=1e-6)
        assert (found.lead, found.interval, found.n_capped, found.n_invalid) == (3, 1, 0, 0)
        assert isinstance(found.grid, LambertGrid)
        np.testing.assert_allclose(found.grid.latitude, GRID.latitude, atol=1e-9)
        there = pickle.loads(pickle.dumps(file))
        np.testing.assert_array_equal(there.read(INIT, 1).values, file.read(INIT, 1).values)

    def test_rows_columns_and_dimensions_in_any_order(self, tmp_path):
        raw = self.dataset(mapping=False).drop_vars(["x", "y"])
        turned = raw.isel(y=slice(None, None, -1), x=slice(None, None, -1)).transpose("lead", "y", "init", "x")
        file = ForecastFile(save(turned, tmp_path / "a.nc"))
        assert isinstance(file.grid, CurvilinearGrid)
        np.testing.assert_allclose(file.grid.latitude, GRID.latitude)
        np.testing.assert_array_equal(file.read(INIT, 2).values, raw["precip"].values[0, 1])

    @pytest.mark.parametrize(
        "change",
        [
            lambda d: d.assign_coords(x=("x", d.x.values, {"units": "degrees"})),
            lambda d: d.assign_coords(x=("x", d.x.values**3, {"units": "m"})),
            lambda d: d.drop_vars("y"),
            lambda d: d.assign(crs=d.crs.assign_attrs(grid_mapping_name="mercator")),
        ],
    )
    def test_without_a_known_projection_the_points_are_taken(self, tmp_path, change: Change):
        file = ForecastFile(save(change(self.dataset()), tmp_path / "a.nc"))
        assert isinstance(file.grid, CurvilinearGrid)
        np.testing.assert_allclose(file.grid.latitude, GRID.latitude)

    def test_latitudes_and_longitudes_of_one_dimension(self, tmp_path):
        raw = self.dataset(mapping=False).drop_vars(["x", "y", "lat", "lon"]).rename(y="latitude", x="longitude")
        axes = {"latitude": 45 - 0.25 * np.arange(12), "longitude": (358 + 0.25 * np.arange(15)) % 360}
        file = ForecastFile(save(raw.assign_coords(axes), tmp_path / "a.nc"))
        assert isinstance(file.grid, LatLonGrid)
        assert file.grid.corner == (42.25, -2)
        np.testing.assert_allclose(file.grid.longitudes, -2 + 0.25 * np.arange(15))
        np.testing.assert_array_equal(file.read(INIT, 2).values, raw["precip"].values[0, 1, ::-1])

    def test_units_rates_and_caps(self, tmp_path, caplog):
        caplog.set_level(logging.INFO)
        metres = ForecastFile(save(self.dataset("m"), tmp_path / "a.nc"), cap=1500.0).read(INIT, 1)
        assert (metres.values.max(), metres.n_capped) == (1500, int((ROWS / 10 + COLUMNS / 1000 > 0.5).sum()))
        assert "values above 1500 mm are set to it" in caplog.text
        rate = ForecastFile(save(self.dataset("mm/h"), tmp_path / "b.nc"), interval=3).read(INIT, 1)
        np.testing.assert_allclose(rate.values, 3 * (1 + ROWS / 10 + COLUMNS / 1000), rtol=1e-6)
        with pytest.raises(InputError, match=r"c.nc: 'precip' has units 'inch'; expected mm, kg m-2 or m"):
            ForecastFile(save(self.dataset("inch"), tmp_path / "c.nc")).read(INIT, 1)

    def test_run_totals(self, tmp_path, caplog):
        data = self.dataset()
        data["precip"].values[0, 2, 0, 0] = 0
        file = ForecastFile(save(data, tmp_path / "a.nc"), amounts="run_total")
        first, third = file.read(INIT, 1), file.read(INIT, 3)
        np.testing.assert_allclose(first.values, 1 + ROWS / 10 + COLUMNS / 1000, rtol=1e-6)
        assert (third.values[0, 0], third.n_negative) == (0, 1)
        np.testing.assert_allclose(third.values.ravel()[1:], 1, atol=1e-5)
        assert "lead 3 h: the total falls at 1 of 180 points, by up to 2 mm" in caplog.text
        with pytest.raises(InputError, match=r"amounts must be 'interval' or 'run_total', not 'total'"):
            ForecastFile(tmp_path / "a.nc", amounts="total")

    def test_bounds_of_leads(self, tmp_path):
        data = self.dataset()
        data["lead"].attrs["bounds"] = "lead_bounds"
        data["lead_bounds"] = (("lead", "side"), [[0, lead] for lead in self.LEADS])
        path = save(data, tmp_path / "a.nc")
        with pytest.raises(
            InputError, match=r"the amount of lead 2 h is of step 0-2 h by 'lead_bounds', expected 1-2 h; set"
        ):
            ForecastFile(path).read(INIT, 2)
        assert ForecastFile(path, amounts="run_total").read(INIT, 2).values[0, 0] == pytest.approx(1)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0, 9.97e36])
    def test_invalid_values(self, tmp_path, bad):
        data = self.dataset()
        data["precip"].values[0, 1, 2, 3] = bad
        path = save(data, tmp_path / "a.nc")
        with pytest.raises(
            InputError, match=r"lead 2 h: precipitation is missing.*\(first at row 2, column 3\).*forecast_nan"
        ):
            ForecastFile(path).read(INIT, 2)
        found = ForecastFile(path, on_invalid="mask").read(INIT, 2)
        assert (np.argwhere(np.isnan(found.values)).tolist(), found.n_invalid) == ([[2, 3]], 1)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda d: d.rename(precip="q"), r"has no precipitation: no variable precip or precipitation or"),
            (lambda d: d.drop_vars("lat"), r"has no latitude: no variable latitude or lat"),
            (lambda d: d.isel(init=0, drop=True), r"has no initial time: no variable init or"),
            (lambda d: d.rename(lead="hour"), r"has no lead time: no variable lead or lead_time or step"),
            (
                lambda d: d.assign(precip=d.precip.isel(lead=0)),
                r"'precip' has dimensions \('init', 'y', 'x'\), expected",
            ),
            (lambda d: d.assign_coords(init=[0, 1]), "'init' holds no dates of the standard calendar"),
            (
                lambda d: d.assign_coords(lon=("x", d.lon.values[0])),
                r"latitude has dimensions \('y', 'x'\), longitude has \('x',\); \(y, x\) is expected",
            ),
            (lambda d: d.isel(init=[0, 0]), "has the initial time 2025-12-01T00:00:00 twice"),
            (lambda d: d.isel(lead=[0, 1, 1]), "has the lead time 2 twice"),
            (lambda d: d.isel(lead=[0, 2]), "has no lead 2 h; it has 1, 3"),
            (lambda d: d.isel(init=[1]), "has no run from 2025-12-01T00:00:00; it has 1 from 2025-12-01T12"),
            (
                lambda d: d.assign_coords(lead=("lead", list(TestForecasts.LEADS))),
                "'lead' has units ''; hours are expected",
            ),
            (
                lambda d: d.assign(valid_time=(("init", "lead"), (d.init + d.lead * HOUR + HOUR).values)),
                r"is valid at 2025-12-01T03:00:00, but the forecast from .* with lead 2 h is valid at 2025-12-01T02",
            ),
            (
                lambda d: d.assign_coords(lat=d.lat + 0.5),
                r"latitude and longitude has shape .* the projection has .*their points differ by up to 0.5 degrees",
            ),
            (
                lambda d: d.assign_coords(lat=d.lat.where(d.lat > 39.1)),
                "latitude or longitude has values that are missing",
            ),
        ],
    )
    def test_faults(self, tmp_path, change: Change, message):
        path = save(change(self.dataset()), tmp_path / "a.nc")
        with pytest.raises(InputError, match=rf"a.nc.*{message}"):
            ForecastFile(path).read(INIT, 2)

    def test_one_run_per_file(self, tmp_path):
        file = ForecastFile(save(self.dataset().isel(init=0), tmp_path / "a.nc"))
        assert file.inits.tolist() == [INIT.astype("datetime64[s]").item()]
        assert file.read(INIT, 3).values[0, 0] == 3

    def test_no_file(self, tmp_path):
        with pytest.raises(MissingFileError, match=r"a.zarr \(forecasts\) is not there"):
            _ = ForecastFile(tmp_path / "a.zarr").grid
        (tmp_path / "folder").mkdir()
        with pytest.raises(InputError, match=r"folder \(forecasts\) is no Zarr store that can be read"):
            _ = ForecastFile(tmp_path / "folder").grid


def test_valid_times():
    require_valid_time(INIT, 36, TIME, "a.nc")
    with pytest.raises(
        InputError, match=r"a.nc is valid at 2025-12-02T12:00:00, but the forecast from .* with lead 12 h"
    ):
        require_valid_time(INIT, 12, TIME, "a.nc")
