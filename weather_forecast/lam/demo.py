"""Demo raw files: a simulated atmosphere and its host model, in the schemas in which TITAN is prepared.

The weather is a two-layer quasi-geostrophic flow (``solver``) with moisture and ground (``surface``) on a doubly
periodic domain; the raw files hold a rectangle of it, into whose borders the rest of the domain flows. A coarse model
(``host``) stands for ARPEGE. The run's clock is the data's: what the sun does to the ground at a time follows from
that time, and training, validation and test are stretches of one run, three days apart.

Two layouts with the same values, float32, row 0 in the south:

- ``zarr``: one store of TITAN's Zarr schema (format 2, one time per chunk), times of all three stretches one after the
  other; those between are in the attribute ``missing_dates``. TITAN's store has no host model: its fields are here
  named as the analysed ones with ``host_`` before. ``host_geopotential``, ``host_temperature``,
  ``host_u_component_of_wind`` and ``host_v_component_of_wind`` are TITAN's parameters ``arp_z``, ``arp_t``, ``arp_u``
  and ``arp_v``.
- ``npy``: TITAN's tree of one file per field and time, ``data/2023-04-01_00h00/aro_t_850hpa.npy``, with
  ``parameters_stats.pt`` and ``diff_stats.pt``; the static fields, in TITAN a GRIB file, are ``static/*.npy``.

Latitude and longitude serve the sun and the maps; the metric is that of the plane, ``grid_spacing`` in metres.
"""

import json
import shutil
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args

import dask.array
import numpy as np
import torch
import xarray as xr
import zarr
from numcodecs.blosc import Blosc
from numpy.typing import NDArray
from rich.progress import track

from ai4sim.atomic import exclusive
from ai4sim.errors import InputError
from ai4sim.normalization import RunningStatistics
from weather_forecast.lam import config
from weather_forecast.lam.host import STEPS_OF_TRUTH, HostModel
from weather_forecast.lam.solar import toa_radiation
from weather_forecast.lam.solver import GRAVITY, LEVELS, Flow, FlowParameters, IsobaricFields, QuasiGeostrophicFlow
from weather_forecast.lam.surface import Surface, is_land, make_orography, ten_metre_wind

Float = NDArray[np.float32]

MARK = "ai4sim_demo"
GAP_DAYS = 3
# Part of the wind at which the time scheme becomes unstable. In 131 days the strongest jets reach 105 to 125 m/s.
MAX_WIND = 0.92
MIDDLE = (46.25, 1.75)  # degrees north and east; f-plane and beta are those of 43 to 46 degrees
DEGREES = 48.0  # of the domain, in both directions
BLOCK = 32  # times that are written at once
LAGS = (1, 3, 6, 12)  # hours, of the differences whose spread TITAN's store gives

Size = Literal["default", "tiny"]
Layout = Literal["zarr", "npy"]
SPLITS = ("train", "validation", "test")


class _Size(NamedTuple):
    n: int
    time_step: float  # s
    rows: tuple[int, int]
    columns: tuple[int, int]
    spin_up: int  # days
    days: tuple[int, int, int]


SIZES = {
    "default": _Size(96, 180.0, (24, 72), (16, 80), spin_up=15, days=(90, 8, 12)),
    "tiny": _Size(48, 360.0, (12, 36), (8, 40), spin_up=3, days=(3, 1, 1)),
}


class Raw(NamedTuple):
    """A field of the raw files.

    Attributes:
        source: model, ``aro`` or ``arp``.
        short: short name of the field, a key of ``config.FIELDS``.
        level: height above ground in m, or None for a field on the pressure levels.
    """

    source: str
    short: str
    level: int | None

    @property
    def zarr(self) -> str:
        """Name in the store."""
        return (config.ZARR_HOST_PREFIX if self.source == config.HOST else "") + config.FIELDS[self.short].zarr

    @property
    def parameters(self) -> list[str]:
        """Names in the npy tree, one per level."""
        if self.level is not None:
            return [f"{self.source}_{self.short}_{self.level}m"]
        return [f"{self.source}_{self.short}_{level}hpa" for level in LEVELS]

    @property
    def type_level(self) -> str:
        """GRIB's type of level."""
        if self.level is None:
            return "isobaricInhPa"
        return "heightAboveGround" if self.level else "surface"


FIELDS = (
    Raw("aro", "t2m", 2),
    Raw("aro", "r2", 2),
    Raw("aro", "tp", 0),
    Raw("aro", "u10", 10),
    Raw("aro", "v10", 10),
    *(Raw(source, short, None) for source in ("aro", config.HOST) for short in ("z", "t", "u", "v")),
)


@dataclass(frozen=True)
class DemoSettings:
    """Size and dates of the demo data.

    Args:
        size: ``default``, 48 × 64 points out of 96 × 96, or ``tiny``, 24 × 32 out of 48 × 48.
        train: days of the training period; by default 90 (tiny: 3).
        validation: days of the validation period; by default 8 (1).
        test: days of the test period; by default 12 (1).
        start: first day of the training period.
        step: hours between times, a divisor of 24; also of the rain's accumulation.
        seed: of the weather; the land is always the same.
        layout: ``zarr`` or ``npy``, the two forms in which TITAN is prepared.

    Raises:
        InputError: a value is impossible.
    """

    size: Size = "default"
    train: int | None = None
    validation: int | None = None
    test: int | None = None
    start: str = "2023-04-01"
    step: int = 3
    seed: int = 0
    layout: Layout = "zarr"

    def __post_init__(self) -> None:
        for name, value, valid in (("size", self.size, tuple(SIZES)), ("layout", self.layout, get_args(Layout))):
            if value not in valid:
                raise InputError(f"demo: {name} {value!r} is unknown; choose {' or '.join(valid)}")
        for split, days in self.days.items():
            if days < 1:
                raise InputError(f"demo: the {split} period has {days} days; at least 1 is needed")
        if self.step < 1 or 24 % self.step:
            raise InputError(f"demo: step must divide the 24 hours of a day, {self.step} does not")
        if self.seed < 0:
            raise InputError(f"demo: the seed must not be negative, it is {self.seed}")
        try:
            date.fromisoformat(self.start)
        except ValueError:
            raise InputError(f"demo: start {self.start!r} is no date such as 2023-04-01") from None

    @property
    def days(self) -> dict[str, int]:
        """Days of every split."""
        given = (getattr(self, split) for split in SPLITS)
        return {
            split: default if days is None else days
            for split, days, default in zip(SPLITS, given, SIZES[self.size].days, strict=True)
        }

    @property
    def periods(self) -> dict[str, tuple[date, date]]:
        """First and last day of every split, both included."""
        periods, first = {}, date.fromisoformat(self.start)
        for split, days in self.days.items():
            last = first + timedelta(days=days - 1)
            periods[split] = (first, last)
            first = last + timedelta(days=GAP_DAYS + 1)
        return periods

    def times(self, split: str | None = None) -> NDArray[np.datetime64]:
        """Times of a split, or of all in order; UTC, from 00:00 of the first day up to the last day's end."""
        if split is None:
            return np.concatenate([self.times(each) for each in SPLITS])
        first, last = self.periods[split]
        return np.arange(
            np.datetime64(first, "s"), np.datetime64(last + timedelta(days=1), "s"), np.timedelta64(self.step, "h")
        )

    @property
    def path(self) -> str:
        """Where below the raw folder the data are."""
        if self.layout == "zarr":
            return "demo.zarr"
        size = SIZES[self.size]
        (row, end_row), (column, end_column) = size.rows, size.columns
        return f"subdatasets/demo_QG{size.n}_{row}-{end_row}-{column}-{end_column}"

    @property
    def identity(self) -> str:
        """All that decides about the content."""
        return json.dumps({**asdict(self), **self.days}, sort_keys=True)


@dataclass(frozen=True)
class Geography:
    """What never changes: the rectangle that the raw files hold, and the whole domain.

    Args:
        size: of the domain.
    """

    size: _Size

    @property
    def rectangle(self) -> tuple[slice, slice]:
        """Rows and columns of the domain that the raw files hold."""
        return slice(*self.size.rows), slice(*self.size.columns)

    @property
    def latitude(self) -> NDArray[np.float64]:
        """Degrees north of the domain's rows (n,), from the south."""
        return MIDDLE[0] + self._degrees()

    @property
    def longitude(self) -> NDArray[np.float64]:
        """Degrees east of the domain's columns (n,)."""
        return MIDDLE[1] + self._degrees()

    def _degrees(self) -> NDArray[np.float64]:
        n = self.size.n
        return (np.arange(n, dtype=np.float64) - (n - 1) / 2) * (DEGREES / n)

    @property
    def orography(self) -> Float:
        """Height (n, n), m."""
        return make_orography(self.size.n).astype(np.float32)

    def statics(self) -> dict[str, NDArray[Any]]:
        """Coordinates and static fields of the rectangle, by their names in the store."""
        rows, columns = self.rectangle
        orography = self.orography[rows, columns]
        return {
            "latitude": self.latitude[rows],
            "longitude": self.longitude[columns],
            "geopotential_at_surface": (GRAVITY * orography).astype(np.float32),
            "land_sea_mask": is_land(orography).astype(np.float32),
        }


class Simulation:
    """Truth, host and surface under one clock.

    Args:
        settings: of the demo.

    Attributes:
        time: UTC, of the present state.
        truth: the true flow.
        surface: moisture and ground.
        host: the host model, once it has been started.
    """

    def __init__(self, settings: DemoSettings) -> None:
        self.settings = settings
        size = SIZES[settings.size]
        self._geography = Geography(size)
        orography = self._geography.orography
        parameters = FlowParameters(n=size.n, time_step=size.time_step)
        self.truth = QuasiGeostrophicFlow.random(parameters, np.random.default_rng(settings.seed), orography)
        self.surface = Surface(orography, parameters.spacing)
        self.host: HostModel | None = None
        self._isobaric = IsobaricFields(parameters, orography)
        self._host_isobaric = self._isobaric
        self.time = np.datetime64(settings.start, "s") - np.timedelta64(size.spin_up, "D")
        self._host_start = self.time + np.timedelta64(size.spin_up // 2, "D")

    def advance(self) -> Flow:
        """Go on to the next time of the settings' step, and give the flow there.

        Raises:
            InputError: the flow blew up.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(self.settings.step):
                flow = self._advance_one_hour()
            speed = flow.speed()
        limit = MAX_WIND * self.truth.parameters.stable_wind
        # also false where the wind is not a number
        if not speed < limit:
            raise InputError(
                f"demo: the simulated wind of {speed:.0f} m/s at {np.datetime_as_string(self.time, 'm')} is beyond "
                f"{limit:.0f} m/s, where the solver becomes unstable: take another seed than {self.settings.seed}"
            )
        return flow

    def _advance_one_hour(self) -> Flow:
        if self.host is None and self.time >= self._host_start:
            self.host = HostModel(self.truth, self._isobaric.orography)
            self._host_isobaric = IsobaricFields(self.truth.parameters, self.host.orography)
        for step in range(1, round(self.surface.time_step / self.truth.parameters.time_step) + 1):
            self.truth.step()
            if self.host is not None and step % STEPS_OF_TRUTH == 0:
                self.host.step()
        flow = self.truth.diagnose()
        middle = self.time + np.timedelta64(30, "m")
        radiation = toa_radiation(middle, self._geography.latitude, self._geography.longitude)
        self.surface.step(flow.u[1], flow.v[1], self._isobaric.temperature_anomaly(flow), radiation)
        self.time += np.timedelta64(1, "h")
        return flow

    def fields(self, flow: Flow) -> dict[Raw, Float]:
        """Raw fields of the present state: (H, W), or (H, W, 3) on the pressure levels; rain is since the last call.

        Args:
            flow: of the truth, at present.
        """
        assert self.host is not None, "the host model starts within the spin-up"
        surface, rectangle = self.surface, self._geography.rectangle
        u10, v10 = ten_metre_wind(flow.u[1], flow.v[1], surface.land)
        whole = {
            ("aro", "t2m"): surface.two_metre_temperature(self._isobaric.background_temperature),
            ("aro", "r2"): surface.relative_humidity(),
            ("aro", "tp"): surface.collect_rain(),
            ("aro", "u10"): u10,
            ("aro", "v10"): v10,
        }
        for source, isobaric in (
            ("aro", self._isobaric(flow)),
            (config.HOST, self._host_isobaric(self.host.diagnose())),
        ):
            whole |= {(source, short): values for short, values in isobaric.items()}
        return {raw: whole[raw.source, raw.short][rectangle].astype(np.float32) for raw in FIELDS}


def simulate(settings: DemoSettings) -> Iterator[tuple[np.datetime64, dict[Raw, Float] | None]]:
    """Run the simulation from the start of the spin-up to the end of the test period.

    Args:
        settings: of the demo.

    Yields:
        Every time of the run, and its fields where it belongs to a split.

    Raises:
        InputError: the flow blew up.
    """
    run, wanted = Simulation(settings), set(settings.times().tolist())
    last = settings.times()[-1]
    while run.time < last:
        flow = run.advance()
        if run.time.item() in wanted:
            yield run.time, run.fields(flow)
        else:
            run.surface.collect_rain()
            yield run.time, None


def write_demo(folder: Path, settings: DemoSettings) -> Path:
    """Simulate the demo's weather and write it as raw data that are whole or not there; what is there is kept.

    An interrupted run leaves ``.partial`` files, which the next one removes; it starts anew.

    Args:
        folder: where the raw data go.
        settings: size and dates.

    Returns:
        The store, or the folder of the npy tree that holds ``data``.

    Raises:
        InputError: the folder holds other data, cannot be written to, or the simulation became unstable.
    """
    target = Path(folder) / settings.path
    if _is_there(Path(folder), settings):
        return target
    partial = target.with_name(f"{target.name}.partial")
    try:
        with exclusive(partial, str(target)):
            # another process may have made it meanwhile
            if not _is_there(Path(folder), settings):
                shutil.rmtree(partial / "data", ignore_errors=True)
                _write(partial / "data", settings)
                (partial / "data").rename(target)
            shutil.rmtree(partial)
    except OSError as error:
        raise InputError(f"cannot write the demo to {folder}: {error.strerror or error}") from error
    return target


def _write(path: Path, settings: DemoSettings) -> None:
    times = settings.times()
    writer: _Writer = (_ZarrWriter if settings.layout == "zarr" else _TreeWriter)(path, settings)
    statistics, training = _Statistics(settings.step), set(settings.times("train").tolist())
    days = SIZES[settings.size].spin_up + (times[-1] - times[0]) / np.timedelta64(1, "D")
    for time, fields in track(
        simulate(settings), "simulating the demo's weather", total=round(days * 24 / settings.step)
    ):
        if fields is None:
            continue
        writer.add(time, fields)
        if time.item() in training:
            statistics.update(time, fields)
    writer.finish(statistics.result())


class _Statistics:
    """Mean, spread and extremes of the training period, per field and level."""

    def __init__(self, step: int) -> None:
        self._widths = [len(raw.parameters) for raw in FIELDS]
        self._lags = sorted({step, *(lag for lag in LAGS if lag % step == 0)})
        self._values = RunningStatistics(sum(self._widths))
        self._differences = {lag: RunningStatistics(sum(self._widths)) for lag in self._lags}
        self._past: deque[tuple[np.datetime64, Float]] = deque(maxlen=self._lags[-1] // step)
        self._step = step

    def update(self, time: np.datetime64, fields: Mapping[Raw, Float]) -> None:
        """Add the fields of a time."""
        shape = next(iter(fields.values())).shape[:2]
        now = np.concatenate([fields[raw].reshape(*shape, -1) for raw in FIELDS], axis=-1)
        self._values.update(now)
        for before, values in self._past:
            lag = int((time - before) // np.timedelta64(1, "h"))
            if lag in self._differences:
                self._differences[lag].update(now - values)
        self._past.append((time, now))

    def result(self) -> dict[Raw, dict[str, list[float]]]:
        """Statistics with one entry per level, by the names of TITAN's attributes.

        Those of one-step differences are also there as ``mean_step`` and ``std_step``.
        """
        values = self._values.result()
        columns = {"mean": values.mean, "std": values.std, "min": values.minimum, "max": values.maximum}
        for lag, running in self._differences.items():
            if running.count:
                difference = running.result()
                columns[f"std_diff_{lag}"] = difference.std
                if lag == self._step:
                    columns |= {"mean_step": difference.mean, "std_step": difference.std}
        ends = np.cumsum(self._widths)
        return {
            raw: {name: column[end - width : end].tolist() for name, column in columns.items()}
            for raw, width, end in zip(FIELDS, self._widths, ends, strict=True)
        }


class _Writer(Protocol):
    def add(self, time: np.datetime64, fields: Mapping[Raw, Float]) -> None: ...

    def finish(self, statistics: Mapping[Raw, Mapping[str, list[float]]]) -> None: ...


class _ZarrWriter:
    """The store of TITAN's Zarr schema."""

    def __init__(self, path: Path, settings: DemoSettings) -> None:
        self._path = path
        _zarr_template(settings).to_zarr(path, mode="w", compute=False, zarr_format=2, consolidated=False)
        group = zarr.open_group(path, mode="r+", zarr_format=2)
        self._arrays: dict[str, Any] = {raw.zarr: group[raw.zarr] for raw in FIELDS}
        self._block: list[Mapping[Raw, Float]] = []
        self._start = 0

    def add(self, time: np.datetime64, fields: Mapping[Raw, Float]) -> None:
        """Add the fields of the next time."""
        self._block.append(fields)
        if len(self._block) == BLOCK:
            self._flush()

    def _flush(self) -> None:
        end = self._start + len(self._block)
        for raw in FIELDS if self._block else ():
            self._arrays[raw.zarr][self._start : end] = np.stack([fields[raw] for fields in self._block])
        self._start, self._block = end, []

    def finish(self, statistics: Mapping[Raw, Mapping[str, list[float]]]) -> None:
        """Write what is left, and the statistics."""
        self._flush()
        for raw, values in statistics.items():
            given = {name: per_level for name, per_level in values.items() if not name.endswith("_step")}
            single = raw.level is not None
            self._arrays[raw.zarr].update_attributes({k: v[0] if single else v for k, v in given.items()})
        zarr.consolidate_metadata(self._path, zarr_format=2)


def _zarr_template(settings: DemoSettings) -> xr.Dataset:
    geography, times = Geography(SIZES[settings.size]), settings.times()
    statics = geography.statics()
    grid = (statics["latitude"].size, statics["longitude"].size)
    arrays: dict[str, xr.DataArray] = {}
    for raw in FIELDS:
        shape = (times.size, *grid) if raw.level is not None else (times.size, *grid, len(LEVELS))
        arrays[raw.zarr] = xr.DataArray(
            # one block, never computed: only shape and type are looked at
            dask.array.empty(shape, dtype=np.float32, chunks=shape),
            dims=("time", "latitude", "longitude", "level")[: len(shape)],
            attrs=_attributes(raw, settings.step),
        )
        arrays[raw.zarr].encoding = {
            "chunks": (1, *shape[1:]),
            "compressor": Blosc(cname="lz4", clevel=5, shuffle=Blosc.SHUFFLE),
            "_FillValue": np.float32(np.nan),
        }
    for name, long_name, short, units in (
        ("geopotential_at_surface", "geopotential at the surface", "h", "m2 s-2"),
        ("land_sea_mask", "land-sea mask: 1 on land", "lsm", "1"),
    ):
        attributes = {"long_name": long_name, "short_name": short, "units": units, "type_level": "surface"}
        arrays[name] = xr.DataArray(statics[name], dims=("latitude", "longitude"), attrs=attributes)
    coords = {
        "time": ("time", times.astype("datetime64[ns]"), {"standard_name": "time"}),
        "latitude": ("latitude", statics["latitude"], {"standard_name": "latitude", "units": "degrees_north"}),
        "longitude": ("longitude", statics["longitude"], {"standard_name": "longitude", "units": "degrees_east"}),
        "level": ("level", np.array(LEVELS), {"standard_name": "air_pressure", "units": "hPa", "positive": "down"}),
    }
    dataset = xr.Dataset(arrays, coords=coords, attrs=_global_attributes(settings))
    dataset["time"].encoding = {"units": "hours since 1970-01-01", "dtype": "int64", "chunks": (times.size,)}
    return dataset


def _attributes(raw: Raw, step: int) -> dict[str, str]:
    field = config.FIELDS[raw.short]
    attributes = {
        "long_name": field.long_name + (" of the host model" if raw.source == config.HOST else ""),
        "short_name": f"{raw.source}_{raw.short}",
        "units": field.units,
        "type_level": raw.type_level,
    }
    if field.standard_name:
        attributes["standard_name"] = field.standard_name
    if field.cumulative:
        attributes["cell_methods"] = f"time: sum (interval: {step} hours)"
    return attributes


def _global_attributes(settings: DemoSettings) -> dict[str, Any]:
    parameters = FlowParameters(n=SIZES[settings.size].n)
    times = settings.times()
    every = np.arange(times[0], times[-1], np.timedelta64(settings.step, "h"))
    return {
        "title": "demo weather of a limited area",
        "source": "ai4sim weather_forecast/lam: two-layer quasi-geostrophic flow with moisture and ground",
        "missing_dates": np.datetime_as_string(np.setdiff1d(every, times), "s").tolist(),
        "periods": {split: [str(day) for day in period] for split, period in settings.periods.items()},
        "statistics_period": [str(day) for day in settings.periods["train"]],
        "grid_spacing": parameters.spacing,
        "coriolis_parameter": parameters.coriolis,
        MARK: settings.identity,
    }


class _TreeWriter:
    """TITAN's tree of one file per field and time."""

    def __init__(self, path: Path, settings: DemoSettings) -> None:
        self._path = path
        self._attributes = _global_attributes(settings)
        (path / "data").mkdir(parents=True)
        (path / "static").mkdir()
        for name, values in Geography(SIZES[settings.size]).statics().items():
            np.save(path / "static" / f"{name}.npy", values)

    def add(self, time: np.datetime64, fields: Mapping[Raw, Float]) -> None:
        """Add the fields of a time."""
        folder = self._path / "data" / np.datetime_as_string(time, "m").replace("T", "_").replace(":", "h")
        folder.mkdir()
        for raw in FIELDS:
            levels = np.moveaxis(fields[raw], -1, 0) if raw.level is None else [fields[raw]]
            for name, values in zip(raw.parameters, levels, strict=True):
                np.save(folder / f"{name}.npy", np.ascontiguousarray(values))

    def finish(self, statistics: Mapping[Raw, Mapping[str, list[float]]]) -> None:
        """Write the statistics and the note of what this is."""
        values: dict[str, dict[str, torch.Tensor]] = {}
        differences: dict[str, dict[str, torch.Tensor]] = {}
        for raw, columns in statistics.items():
            for level, name in enumerate(raw.parameters):
                values[name] = {key: torch.tensor(columns[key][level]) for key in ("mean", "std", "min", "max")}
                if "std_step" in columns:
                    # of standardised values, as in TITAN
                    scale = columns["std"][level]
                    differences[name] = {
                        key: torch.tensor(columns[f"{key}_step"][level] / scale) for key in ("mean", "std")
                    }
        torch.save(values, self._path / "parameters_stats.pt")
        torch.save(differences, self._path / "diff_stats.pt")
        (self._path / "demo.json").write_text(json.dumps(self._attributes, indent=1) + "\n")


def _is_there(folder: Path, settings: DemoSettings) -> bool:
    """Whether just these data are there.

    Raises:
        InputError: others are.
    """
    target = folder / settings.path
    stores = [folder / "demo.zarr"]
    if (folder / "subdatasets").is_dir():
        stores += [path for path in (folder / "subdatasets").iterdir() if path.suffix != ".partial"]
    for path in stores:
        if not path.exists():
            continue
        found = _read_mark(path)
        if found is None:
            raise InputError(f"{path} is no demo: point the demo at an empty folder, or remove the demo settings")
        if path != target or found != settings.identity:
            raise InputError(
                f"{folder} holds a demo with other settings ({found}, not {settings.identity}): remove {path}, "
                f"or name another dataset"
            )
    return target.exists()


def _read_mark(path: Path) -> str | None:
    for name in (".zattrs", "demo.json"):
        try:
            content = json.loads((path / name).read_text())
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and MARK in content:
            return str(content[MARK])
    return None
