"""The raw files of the demo, in the schemas of the real data: runs, analysed hours and terrain."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from ai4sim.projections import LambertConformal
from precip_postproc.resunet_qpf import config, grib_writer
from precip_postproc.resunet_qpf.ideal import ideal_exceedance
from precip_postproc.resunet_qpf.netcdf_writer import (
    Variable,
    add_variables,
    attach,
    places,
    rounded,
    storage,
    write_netcdf,
)
from precip_postproc.resunet_qpf.periodic import PeriodicGrid
from precip_postproc.resunet_qpf.radar import NO_COVERAGE
from precip_postproc.resunet_qpf.random_fields import MaternField, Stream, make_rng
from precip_postproc.resunet_qpf.readers.apcp import graf_path
from precip_postproc.resunet_qpf.readers.files import HOUR, stamp
from precip_postproc.resunet_qpf.readers.gfs import UNITS, gfs_path
from precip_postproc.resunet_qpf.readers.grid import Grid, LambertGrid, LatLonGrid
from precip_postproc.resunet_qpf.readers.mrms import PRODUCTS, QUALITY, TARGET, mrms_path
from precip_postproc.resunet_qpf.readers.target import BAD, target_path
from precip_postproc.resunet_qpf.regime import STEP, Regime, step_of
from precip_postproc.resunet_qpf.terrain_file import write_terrain
from precip_postproc.resunet_qpf.weather import Hour, Pair, Weather

Float = NDArray[np.float32]
Packed = NDArray[np.int16]
Floats = NDArray[np.floating[Any]]
Times = NDArray[np.datetime64]

PROJECTION = LambertConformal(38.5, -97.5, (38.5, 38.5), 6371229.0)  # that of HRRR
SOUTH_WEST = (40.0, -123.0)  # degrees north and east: the coastal range lies at the coast
TERRAIN = "GRAF_CONUS_terrain_info.nc"
FORECASTS = "forecast.nc"

RESOLUTION = 0.01  # of forecasts, mm
PROBABILITY_RESOLUTION = 1e-4
# a power of two: the last bytes are zeros, which compress well
COARSE_RESOLUTION = 2.0**-6  # of coarse predictors, in their units
MOSAIC_SPACING = 0.01  # degrees
MOSAIC_MARGIN = 0.1  # degrees

_TITLE = {"title": "simulated precipitation", "source": "ai4sim precip_postproc/resunet_qpf"}


class Run(NamedTuple):
    """What is written for a run.

    Attributes:
        init: initial time, UTC.
        analysed: lead times, h, whose valid times no earlier run writes the analysis of.
        mosaic: those of `analysed` for which there are also radar analyses on MRMS's grid.
        ideal: whether the ideal probability is written.
    """

    init: np.datetime64
    analysed: tuple[int, ...]
    mosaic: tuple[int, ...] = ()
    ideal: bool = False

    def files(self, folder: Path, leads: Sequence[int], *, grib: bool) -> dict[tuple[str, int], Path]:
        """The run's files, by kind and lead time (0 where a file holds all).

        Args:
            folder: of all raw files.
            leads: h.
            grib: whether forecasts are GRIB2; the others are in one file for all runs.
        """
        valid = {lead: self.init + lead * HOUR for lead in leads}
        found = {("coarse", 0): gfs_path(folder / "gfs", self.init)}
        found |= {("target", lead): target_path(folder / "target", valid[lead]) for lead in self.analysed}
        if self.ideal:
            found["ideal", 0] = ideal_path(folder / "ideal", self.init)
        if grib:
            found |= {("forecast", lead): graf_path(folder / "forecast", self.init, lead) for lead in leads}
            found |= {
                (product, lead): mrms_path(folder / "mrms", product, valid[lead])
                for product in (TARGET, QUALITY)
                for lead in self.mosaic
            }
        return found


def ideal_path(folder: Path | str, init: np.datetime64) -> Path:
    """Where a run's ideal probabilities are.

    Args:
        folder: of all runs.
        init: initial time.
    """
    return Path(folder) / f"ideal_{stamp(init, '%Y%m%d%H')}.nc"


def demo_grid(grid: PeriodicGrid) -> LambertGrid:
    """Where the points of the demo are: in Oregon and its neighbours.

    Args:
        grid: of the simulation.
    """
    x, y = PROJECTION.to_plane(*SOUTH_WEST)
    return LambertGrid(PROJECTION, (float(x), float(y)), (1000 * grid.spacing, 1000 * grid.spacing), grid.shape)


def _times(dims: tuple[str, ...], times: np.datetime64 | Times, name: str) -> Variable:
    hours = np.asarray(times, "datetime64[h]").astype(np.int32)
    return Variable(dims, hours, {"units": "hours since 1970-01-01", "calendar": "standard", "standard_name": name})


def _pack(values: Floats, resolution: float) -> Packed:
    return np.rint(values / np.float32(resolution)).astype(np.int16)


def _lead_variable(dim: str, leads: Sequence[int]) -> Variable:
    return Variable((dim,), np.array(leads, np.int32), {"units": "hours", "standard_name": "forecast_period"})


@contextmanager
def forecast_file(path: Path, inits: Times, leads: Sequence[int], grid: LambertGrid) -> Iterator[h5py.Dataset]:
    """Make one NetCDF file for the forecasts of all runs.

    Args:
        path: the file.
        inits: initial times.
        leads: h.
        grid: of the fields.

    Yields:
        The amounts (init, lead, y, x), to be filled with packed values.
    """
    cone = grid.projection
    mapping = {
        "grid_mapping_name": "lambert_conformal_conic", "standard_parallel": np.array(cone.parallels),
        "earth_radius": cone.radius, "longitude_of_central_meridian": cone.longitude,
        "latitude_of_projection_origin": cone.latitude,
    }  # fmt: skip
    coordinates = {
        "init": _times(("init",), inits, "forecast_reference_time"),
        "lead": _lead_variable("lead", leads),
        "y": Variable(("y",), grid.y, {"units": "m", "standard_name": "projection_y_coordinate"}),
        "x": Variable(("x",), grid.x, {"units": "m", "standard_name": "projection_x_coordinate"}),
        **places(grid, ("y", "x"), ("latitude", "longitude")),
        "crs": Variable((), np.array(0, np.int32), mapping),
    }
    shape = (len(inits), len(leads), *grid.shape)
    with h5py.File(path, "w") as file:
        file.attrs.update(_TITLE)
        scales = add_variables(file, coordinates)
        amounts = file.create_dataset("precip", shape, np.int16, **storage(shape))
        attach(amounts, [scales[dim] for dim in ("init", "lead", "y", "x")])
        amounts.attrs.update({
            "units": "mm", "long_name": "precipitation of the hour before the valid time", "grid_mapping": "crs",
            "coordinates": "latitude longitude", "scale_factor": np.float32(RESOLUTION),
        })  # fmt: skip
        yield amounts


def _cover(grid: Grid, spacing: float, margin: float, offset: float = 0.0) -> LatLonGrid:
    """Latitudes and longitudes that cover a grid; all are a multiple of the spacing plus the offset."""
    axes = (
        np.arange(np.floor((values.min() - margin) / spacing), np.ceil((values.max() + margin) / spacing) + 1)
        for values in (grid.latitude, grid.longitude)
    )
    return LatLonGrid(*(np.round(axis * spacing + offset, 6) for axis in axes))


class CoarseModel:
    """The forecasts of a global model: wind and moisture of the whole region, with errors that grow with the lead time.

    They tell less of wind and moisture than the ideal probability knows, and nothing of the wetness, so that it remains
    the best forecast that can be made.

    Args:
        weather: the simulation.
        grid: of the demo, which is covered with a margin.
    """

    SPACING = 0.25  # degrees
    MARGIN = 1.0  # degrees
    # noise
    LENGTH, SMOOTHNESS = 120.0, 1.5  # km
    WAVES = PeriodicGrid(n=64, spacing=25.0, first=0, ny=64, nx=64)
    # standard deviations at 6 h; they grow with the root of the lead time
    WIND_ERROR = 0.6  # m/s
    MOISTURE_ERROR = 0.12
    # of the noise
    WIND_NOISE = 1.0  # m/s
    PWAT_NOISE = 0.06  # of the logarithm
    HUMIDITY_NOISE = 3.0  # %
    CAPE_NOISE = 0.35  # of the logarithm
    # of the moisture's unit
    PWAT, PWAT_GROWTH, PWAT_FALL = 16.0, 0.35, 0.03  # kg m-2 and parts, per unit of moisture and degree of latitude
    HUMIDITY, HUMIDITY_GROWTH = 60.0, 11.0  # %
    CAPE, CAPE_DIURNAL, CAPE_HOUR = 3000.0, 0.6, 23  # J kg-1, part of it, UTC
    # at 10 m the wind is weaker and turned to the left
    FRICTION, TURN = 0.55, 20.0  # part, degrees

    def __init__(self, weather: Weather, grid: LambertGrid) -> None:
        self._weather = weather
        self.grid = _cover(grid, self.SPACING, self.MARGIN)
        self._noise = MaternField(self.WAVES, self.LENGTH, self.SMOOTHNESS)
        # how far the demo's rows are turned from the parallels
        self._turn = grid.projection.cone * np.radians(self.grid.longitude - grid.projection.longitude)

    def fields(self, init: np.datetime64, leads: Sequence[int]) -> dict[str, Float]:
        """Fields (lead, y, x) from the south-west, by their names in the files.

        Args:
            init: initial time.
            leads: h.
        """
        rng = make_rng(self._weather.seed, Stream.FORECAST, step_of(init))
        of_leads = [self._at(init, lead, rng) for lead in leads]
        return {name: np.stack([fields[name] for fields in of_leads]).astype(np.float32) for name in of_leads[0]}

    def _at(self, init: np.datetime64, lead: int, rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
        valid = init + lead * HOUR
        true, growth = self._weather.regime(valid), np.sqrt(lead / STEP)
        error = growth * rng.standard_normal(3)
        regime = Regime(
            true.u + self.WIND_ERROR * error[0],
            true.v + self.WIND_ERROR * error[1],
            wetness=0.0,
            moisture=true.moisture + self.MOISTURE_ERROR * error[2],
        )
        rows, columns = self.grid.shape
        noise = [self.WAVES.to_grid(self._noise.draw(rng))[:rows, :columns].astype(np.float64) for _ in range(5)]
        u, v = regime.u + self.WIND_NOISE * noise[0], regime.v + self.WIND_NOISE * noise[1]
        east, north = _rotate(u, v, self._turn)
        low = np.radians(self.TURN)
        east10, north10 = (self.FRICTION * part for part in _rotate(east, north, np.full_like(east, -low)))
        hour = step_of(valid) * STEP % 24
        diurnal = 1 + self.CAPE_DIURNAL * np.cos(2 * np.pi * (hour - self.CAPE_HOUR) / 24)
        fall = 1 - self.PWAT_FALL * (self.grid.latitude - self.grid.latitudes.mean())
        pwat = self.PWAT * fall * np.exp(self.PWAT_GROWTH * regime.moisture + self.PWAT_NOISE * noise[2])
        humidity = self.HUMIDITY + self.HUMIDITY_GROWTH * regime.moisture + self.HUMIDITY_NOISE * noise[3]
        cape = self.CAPE * diurnal * regime.convective_fraction**2 * np.exp(self.CAPE_NOISE * noise[4])
        return {
            "pwat": pwat, "r": np.clip(humidity, 1, 100), "cape": cape, "u": east, "v": north, "u10": east10,
            "v10": north10,
        }  # fmt: skip


def _rotate(
    u: NDArray[np.float64], v: NDArray[np.float64], angle: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Components of a vector along axes that are turned counter-clockwise by an angle, rad."""
    return u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)


class DemoWriter:
    """Simulates runs and writes their files.

    Args:
        folder: of all raw files.
        weather: the simulation.
        leads: h.
        grib: whether forecasts are GRIB2; else :meth:`write` gives them out.

    Attributes:
        grid: of forecasts and analyses.
    """

    def __init__(self, folder: Path, weather: Weather, leads: Sequence[int], *, grib: bool) -> None:
        self._folder, self._weather, self._leads, self._grib = folder, weather, leads, grib
        self.grid = demo_grid(weather.grid)
        self._coarse = CoarseModel(weather, self.grid)

    def write(self, run: Run) -> Packed:
        """Write those of a run's files that are not there.

        Args:
            run: with what is wanted of it.

        Returns:
            Forecasts (lead, y, x) in units of :data:`RESOLUTION`; without any lead time where they are GRIB2.

        Raises:
            OSError: a file cannot be written.
        """
        files = run.files(self._folder, self._leads, grib=self._grib)
        missing = {key: path for key, path in files.items() if not path.exists()}
        nothing = np.empty((0, *self.grid.shape), np.int16)
        if self._grib and not missing:
            return nothing
        pairs = {lead: self._weather.forecast(run.init, lead) for lead in self._leads}
        for (kind, lead), path in missing.items():
            if kind == "coarse":
                self._write_coarse(path, run.init)
            elif kind == "ideal":
                self._write_ideal(path, run.init, list(pairs.values()))
            elif kind == "target":
                self._write_target(path, pairs[lead].hour)
            elif kind == "forecast":
                amount = np.round(pairs[lead].forecast, 2)
                message = grib_writer.apcp(amount, lead - 1, lead, self.grid, run.init, decimalScaleFactor=2)
                grib_writer.write(path, message)
            else:
                self._write_mosaic(path, kind, pairs[lead].hour)
        if self._grib:
            return nothing
        return np.stack([_pack(pair.forecast, RESOLUTION) for pair in pairs.values()])

    def write_terrain(self) -> None:
        """Write the terrain's file."""
        write_terrain(self._folder / TERRAIN, self.grid, self._weather.terrain, _TITLE)

    @cached_property
    def _target_places(self) -> dict[str, Variable]:
        return places(self.grid, ("nlats", "nlons"), ("lats", "lons"))

    def _write_target(self, path: Path, hour: Hour) -> None:
        dims = ("nlats", "nlons")
        quality = np.where(hour.quality < 0, np.float32(BAD), np.round(hour.quality, 2))
        variables = self._target_places | {
            "precipitation": Variable(
                dims, hour.analysis, {"units": "mm", "long_name": "precipitation of the last hour"}
            ),
            "data_quality": Variable(
                dims, quality, {"units": "1", "long_name": "quality, 0 to 1; -1 where there is none"}
            ),
        }
        write_netcdf(path, variables, _TITLE)

    def _write_coarse(self, path: Path, init: np.datetime64) -> None:
        grid, dims = self._coarse.grid, ("step", "latitude", "longitude")
        valid = init + np.array(self._leads) * HOUR
        fields = self._coarse.fields(init, self._leads)
        variables = {
            "step": _lead_variable("step", self._leads),
            "latitude": Variable(dims[1:2], grid.latitudes[::-1], {"units": "degrees_north"}),
            "longitude": Variable(dims[2:], grid.longitudes % 360, {"units": "degrees_east"}),
            "time": _times((), init, "forecast_reference_time"),
            "valid_time": _times(dims[:1], valid, "time"),
        } | {
            name: Variable(dims, rounded(values[:, ::-1], COARSE_RESOLUTION), {"units": UNITS[name][0]})
            for name, values in fields.items()
        }
        write_netcdf(path, variables, _TITLE)

    def _write_ideal(self, path: Path, init: np.datetime64, pairs: Sequence[Pair]) -> None:
        dims = ("lead", "threshold", "y", "x")
        values = np.stack([ideal_exceedance(pair.posterior, config.THRESHOLDS, analysed=True) for pair in pairs])
        variables = {
            "lead": _lead_variable("lead", self._leads),
            "threshold": Variable(("threshold",), np.array(config.THRESHOLDS), {"units": "mm"}),
            "init": _times((), init, "forecast_reference_time"),
            **places(self.grid, dims[2:], ("latitude", "longitude")),
            "probability": Variable(dims, _pack(values, PROBABILITY_RESOLUTION), {
                "units": "1", "long_name": "ideal probability that the analysis reaches the threshold",
                "coordinates": "latitude longitude", "scale_factor": np.float32(PROBABILITY_RESOLUTION),
            }),
        }  # fmt: skip
        write_netcdf(path, variables, _TITLE)

    @cached_property
    def _mosaic(self) -> tuple[LatLonGrid, NDArray[np.int32]]:
        """MRMS's grid over the demo, and the demo's cell in which each of its points lies."""
        grid = _cover(self.grid, MOSAIC_SPACING, MOSAIC_MARGIN, MOSAIC_SPACING / 2)
        return grid, self.grid.cell_of(grid.latitude, grid.longitude)

    def _write_mosaic(self, path: Path, product: str, hour: Hour) -> None:
        """Nearest values; beyond the demo there is neither rain nor radar, as MRMS has it."""
        field, beyond, digits = (hour.analysis, 0.0, 1) if product == TARGET else (hour.quality, NO_COVERAGE, 2)
        grid, cells = self._mosaic
        values = np.where(cells >= 0, np.round(field, digits).ravel()[cells], beyond)
        triple = next(key for key, known in PRODUCTS.items() if known.name == product)
        message = grib_writer.mrms(values, triple, hour.time, grid, decimalScaleFactor=digits)
        grib_writer.write(path, message)
