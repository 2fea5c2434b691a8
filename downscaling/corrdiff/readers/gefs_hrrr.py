"""Forecasts of GEFS and of HRRR over the United States, by lead time, in Zarr stores of half years."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ai4sim.errors import InputError
from downscaling.corrdiff.readers.base import Channel, Field, Pairs
from downscaling.corrdiff.readers.coordinates import cell_centres, spacing_km
from downscaling.corrdiff.readers.files import FileSource, listed, manifest_files
from downscaling.corrdiff.readers.regrid import LinearRegrid
from downscaling.corrdiff.readers.times import LEADS, Times, forecast_times
from downscaling.corrdiff.readers.zarr_store import Window, ZarrStore

logger = logging.getLogger(__name__)

SURFACE = ("u10m", "v10m", "t2m", "q2m", "sp", "msl", "precipitable_water")
WIND_LEVELS = (1000, 925, 850, 700, 500, 250)
HEIGHT_LEVELS = (1000, 925, 850, 700, 500, 200)
AIR_LEVELS = (1000, 925, 850, 700, 500, 100)
ISOBARIC = tuple(
    f"{name}{level}"
    for name, levels in (
        ("u", WIND_LEVELS), ("v", WIND_LEVELS), ("z", HEIGHT_LEVELS), ("t", AIR_LEVELS), ("r", AIR_LEVELS),
    )
    for level in levels
)  # fmt: skip
FLAGS = ("cat_snow", "cat_ice", "cat_freez", "cat_rain")
NONE = "cat_none"
CLASSES = (*FLAGS, NONE)
OUTPUTS = ("u10m", "v10m", "t2m", "precip", *CLASSES)

KINDS = ("surface", "isobaric", "hrrr_forecast")
WHOLE: Window = (slice(None), slice(None))

# the stores have none: those of the fields that the models give
_UNITS = {
    "q2m": "kg kg-1", "sp": "Pa", "msl": "Pa", "precipitable_water": "kg m-2", "precip": "kg m-2",
    "u": "m s-1", "v": "m s-1", "t": "K", "z": "m", "r": "%", "q": "kg kg-1",
}  # fmt: skip


@dataclass(frozen=True)
class _Place:
    """A forecast: its period, and its number in the store of each kind."""

    period: str
    numbers: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class GefsHrrr(FileSource):
    """Pairs of forecasts of the same initial and lead time: GEFS at 0.25 degrees, HRRR at 3 km.

    ``<root>/gefs/*surface*.zarr``, the same names with ``isobaric``, and ``<root>/hrrr_forecast/*.zarr``; names end in
    the period, such as ``2021_01_06``. Each store: ``values`` (time, channel, y, x), ``channel`` (names), ``lat`` and
    ``lon`` (y, x), ``time`` (text ``YYYYMMDDHHfLL``). Lead times are 0, 3 ... 24 h.

    GEFS is interpolated linearly to the centres of cells of `subsample` x `subsample` points of HRRR; the reference
    takes the first point of every cell instead, which moves the input by 1.5 points. The type of precipitation is a
    vector of probabilities: four flags and "none", together 1.

    Source: NOAA (public domain); December 2020 to June 2024.

    Args:
        root: folder with ``gefs`` and ``hrrr_forecast``.
        renames: of channels that hold another variable than their name says, such as ``{z200: z250, t100: t250,
            r1000: q1000}``, from the name in the store to what it is; channels are then known by the latter.
        inputs: channels of GEFS; by default all 37.
        outputs: channels of HRRR, and ``cat_none``; by default `OUTPUTS`. The classes go together.
        subsample: points of HRRR along a cell of the input; 1 for inputs on the fine grid.
        window: first row and the one after the last, first column and the one after the last, of HRRR; None for all.
    """

    root: Path
    renames: dict[str, str] = field(default_factory=dict)
    inputs: list[str] | None = None
    outputs: list[str] | None = None
    subsample: int = 4
    window: tuple[int, int, int, int] | None = (1, 1057, 4, 1796)

    locations: ClassVar[tuple[str, ...]] = ("root",)

    @cached_property
    def _stores(self) -> dict[str, tuple[ZarrStore, ...]]:
        """The three stores of every period that has all of them."""
        surface = _by_period(self.root / "gefs", "*surface*.zarr")
        isobaric = _by_period(self.root / "gefs", "*isobaric*.zarr")
        fine = _by_period(self.root / "hrrr_forecast", "*.zarr")
        found = {}
        for period in sorted({*surface, *isobaric, *fine}):
            held = [paths.get(period) for paths in (surface, isobaric, fine)]
            lacking = [kind for kind, path in zip(KINDS, held, strict=True) if path is None]
            if lacking:
                logger.warning("%s: period %s has no store of %s: left out", self.root, period, " and ".join(lacking))
                continue
            found[period] = tuple(
                ZarrStore(path, f"{kind} of {period}") for path, kind in zip(held, KINDS, strict=True) if path
            )
        if not found:
            raise InputError(
                f"{self.root}: no period has all three stores: surface has {listed(sorted(surface))}, isobaric "
                f"{listed(sorted(isobaric))}, hrrr_forecast {listed(sorted(fine))}"
            )
        return found

    def _channel_numbers(self, store: ZarrStore) -> dict[str, int]:
        """What is in a store, by the names after renaming, in the store's order."""
        names = [self.renames.get(name, name) for name in store.texts("channel", "channel")]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise InputError(f"{store.path} has two channels {twice[0]!r} after renames {self.renames}")
        return dict(zip(names, range(len(names)), strict=True))

    @cached_property
    def _wanted(self) -> tuple[list[str], list[str]]:
        """Names of inputs and of outputs."""
        known = [self.renames.get(name, name) for name in (*SURFACE, *ISOBARIC)]
        inputs = known if self.inputs is None else self.inputs
        outputs = list(OUTPUTS) if self.outputs is None else self.outputs
        classes = [name for name in outputs if name in CLASSES]
        if classes and classes != list(CLASSES):
            raise InputError(f"outputs have the classes {listed(classes)}; they go together: {listed(CLASSES)}")
        if not inputs or not outputs:
            raise InputError("inputs and outputs must be one channel or more")
        return inputs, outputs

    @cached_property
    def _plan(self) -> dict[str, tuple[list[tuple[int, int, int]], dict[str, int]]]:
        """By period: (place among the inputs, kind of store, number of the channel), and numbers of outputs."""
        inputs, outputs = self._wanted
        self._check_renames()
        plan = {}
        for period, stores in self._stores.items():
            held = [self._channel_numbers(store) for store in stores]
            sources = []
            for place, name in enumerate(inputs):
                kind = next((kind for kind in (0, 1) if name in held[kind]), None)
                if kind is None:
                    raise InputError(
                        f"{stores[0].path} and {Path(stores[1].path).name} have no channel {name!r}; they have "
                        f"{listed([*held[0], *held[1]])}"
                    )
                sources.append((place, kind, held[kind][name]))
            stored = [name for name in outputs if name != NONE]
            for name in stored:
                if name not in held[2]:
                    raise InputError(f"{stores[2].path} has no channel {name!r}; it has {listed(list(held[2]))}")
            plan[period] = sources, {name: held[2][name] for name in stored}
        return plan

    def _check_renames(self) -> None:
        """Refuse a rename of a channel that no store has."""
        held = {
            name for stores in self._stores.values() for store in stores for name in store.texts("channel", "channel")
        }
        for name in self.renames:
            if name not in held:
                raise InputError(f"renames: no store of {self.root} has the channel {name!r}; they have {sorted(held)}")

    @cached_property
    def _forecasts(self) -> tuple[list[_Place], Times, NDArray[np.int64]]:
        """What all three stores of a period have: where it is, valid times, and lead times, ordered by both."""
        keys: dict[str, _Place] = {}
        for period, stores in self._stores.items():
            held = []
            for store in stores:
                own = store.texts("time", "time")
                forecast_times(own, f"{store.path}: 'time'")
                numbers = dict(zip(own, range(len(own)), strict=True))
                if len(numbers) < len(own):
                    raise InputError(f"{store.path}: 'time' has {_first_twice(own)!r} twice")
                n = store.array("values", ("time", "channel", "y", "x")).shape[0]
                if n != len(own):
                    raise InputError(f"{store.path}: 'values' has {n} times, 'time' has {len(own)}")
                held.append(numbers)
            self._warn_of_missing(stores, held)
            for key in held[0]:
                if not all(key in numbers for numbers in held):
                    continue
                if key in keys:
                    raise InputError(
                        f"{self.root}: the forecast {key} is in the periods {keys[key].period} and {period}"
                    )
                keys[key] = _Place(period, tuple(numbers[key] for numbers in held))
        if not keys:
            raise InputError(
                f"{self.root}: no forecast is in all three stores of its period, {listed(list(self._stores))}"
            )
        names = list(keys)
        inits, leads = forecast_times(names, str(self.root))
        valid = inits + leads.astype("timedelta64[h]")
        order = np.lexsort((leads, valid))
        return [keys[names[i]] for i in order], valid[order], leads[order]

    def _warn_of_missing(self, stores: Sequence[ZarrStore], held: Sequence[Mapping[str, int]]) -> None:
        every = sorted(set().union(*held))
        for store, numbers in zip(stores, held, strict=True):
            if lacking := [key for key in every if key not in numbers]:
                logger.warning("%s lacks %s: left out", store.path, listed(lacking, 10))

    @cached_property
    def _window(self) -> Window:
        """Rows and columns of HRRR, the same in all its stores."""
        grids = {store.path: self._grid(store) for stores in self._stores.values() for store in stores[2:]}
        first, *others = grids.items()
        for path, grid in others:
            if not all(np.array_equal(a, b) for a, b in zip(grid, first[1], strict=True)):
                raise InputError(f"{path}: 'lat' or 'lon' are others than those of {first[0]}")
        rows, columns = first[1][0].shape
        top, bottom, left, right = (0, rows, 0, columns) if self.window is None else self.window
        if not (0 <= top < bottom <= rows and 0 <= left < right <= columns):
            raise InputError(
                f"window {self.window} is not within the grid of {first[0]}, {rows} rows and {columns} columns"
            )
        if self.subsample < 1 or (bottom - top) % self.subsample or (right - left) % self.subsample:
            raise InputError(
                f"the window has {bottom - top} rows and {right - left} columns, no multiples of subsample "
                f"{self.subsample}"
            )
        return slice(top, bottom), slice(left, right)

    @staticmethod
    def _grid(store: ZarrStore) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        shape = store.array("values", ("time", "channel", "y", "x")).shape[2:]
        lat, lon = (store.values(name, ("y", "x")) for name in ("lat", "lon"))
        if not lat.shape == lon.shape == shape:
            raise InputError(f"{store.path}: 'lat' has shape {lat.shape}, 'lon' {lon.shape}, the fields {shape} (y, x)")
        return lat, lon

    @cached_property
    def _points(self) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        lat, lon = self._grid(next(iter(self._stores.values()))[2])
        return lat[self._window], (lon[self._window] + 180) % 360 - 180

    @cached_property
    def _regrids(self) -> dict[tuple[str, int], LinearRegrid]:
        """By period and kind of store: grids may differ, but mostly are one."""
        cells = cell_centres(*self._points, self.subsample)
        made: dict[bytes, LinearRegrid] = {}
        found = {}
        for period, stores in self._stores.items():
            for kind, store in enumerate(stores[:2]):
                lat, lon = self._grid(store)
                key = lat.tobytes() + lon.tobytes()
                if key not in made:
                    made[key] = LinearRegrid(lat, lon, *cells, store.path)
                found[period, kind] = made[key]
        return found

    def _open(self) -> Pairs:
        inputs, outputs = self._wanted
        # what does not fit shows now, not when fields are read
        _ = self._plan, self._regrids
        _, times, leads = self._forecasts
        latitude, longitude = (values.astype(np.float32) for values in self._points)
        rows, columns = latitude.shape
        paths = [store.path for stores in self._stores.values() for store in stores]
        return Pairs(
            inputs=tuple(_channel(name) for name in inputs),
            outputs=tuple(_channel(name) for name in outputs),
            static=(),
            times=times,
            input_shape=(rows // self.subsample, columns // self.subsample),
            output_shape=(rows, columns),
            factor=self.subsample,
            latitude=latitude,
            longitude=longitude,
            static_fields=np.empty((0, rows, columns), np.float32),
            leads=leads,
            lead_labels=LEADS,
            probabilities=CLASSES if NONE in outputs else (),
            spacing_km=spacing_km(latitude, longitude),
            files=tuple(file for path in paths for file in manifest_files(path)),
        )

    def read_inputs(self, rows: slice) -> Field:
        """GEFS (n, input, h, w) at the centres of the cells."""
        places = self._forecasts[0][rows]
        out = np.empty((len(places), len(self._wanted[0]), *self.pairs.input_shape), np.float32)
        for target, place in enumerate(places):
            for kind in (0, 1):
                own = [source for source in self._plan[place.period][0] if source[1] == kind]
                if not own:
                    continue
                store = self._stores[place.period][kind]
                number = np.array([place.numbers[kind]])
                fields = store.read("values", number, [channel for _, _, channel in own], WHOLE)
                out[target, [position for position, _, _ in own]] = self._regrids[place.period, kind](fields[0])
        return out

    def read_outputs(self, rows: slice) -> Field:
        """HRRR (n, output, H, W), the classes as probabilities.

        Raises:
            InputError: a flag of a class is negative.
        """
        places = self._forecasts[0][rows]
        outputs = self._wanted[1]
        out = np.empty((len(places), len(outputs), *self.pairs.output_shape), np.float32)
        start = 0
        while start < len(places):
            period = places[start].period
            end = next((i for i in range(start, len(places)) if places[i].period != period), len(places))
            numbers = np.array([place.numbers[2] for place in places[start:end]])
            channels = self._plan[period][1]
            fields = self._stores[period][2].read("values", numbers, list(channels.values()), self._window)
            by_name = dict(zip(channels, np.moveaxis(fields, 1, 0), strict=True))
            if NONE in outputs:
                self._check_flags(by_name, period)
                by_name |= zip(CLASSES, probabilities(np.stack([by_name[name] for name in FLAGS])), strict=True)
            out[start:end] = np.stack([by_name[name] for name in outputs], axis=1)
            start = end
        return out

    def _check_flags(self, fields: Mapping[str, Field], period: str) -> None:
        for name in FLAGS:
            negative = fields[name][fields[name] < 0]
            if negative.size:
                raise InputError(
                    f"{self._stores[period][2].path}: {name!r} has values down to {negative.min():g}; expected 0 to 1"
                )


def probabilities(flags: Field) -> Field:
    """Probabilities (5, ...) of the classes, "none" last, of their four flags (4, ...); they sum to 1."""
    none = (flags.sum(axis=0) == 0).astype(np.float32)
    none[np.isnan(flags).any(axis=0)] = np.nan
    together = np.concatenate([flags, none[None]])
    return np.asarray(together / together.sum(axis=0))


def _by_period(folder: Path, pattern: str) -> dict[str, Path]:
    """Stores by the ten characters of their period."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob(pattern)):
        period = path.stem[-10:]
        if not re.fullmatch(r"\d{4}_\d{2}_\d{2}", period):
            raise InputError(f"{path}: the name does not end in a period such as 2021_01_06")
        if period in found:
            raise InputError(f"{path} and {found[period].name} are of the same period {period}")
        found[period] = path
    return found


def _first_twice(keys: Sequence[str]) -> str:
    return next(key for place, key in enumerate(keys) if key in keys[:place])


def _channel(name: str) -> Channel:
    level = re.fullmatch(r"([a-z])(\d+)(m?)", name)  # u10m, u1000
    units = "1" if name in CLASSES else _UNITS.get(name, _UNITS.get(level[1], "") if level else "")
    return Channel(name, units, f"{level[1]} at {level[2]} {level[3] or 'hPa'}" if level else "")
