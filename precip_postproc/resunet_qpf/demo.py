"""Demo raw files: simulated forecasts and radar analyses in the schemas of the real data, with the ideal answer.

In one folder:

- ``forecast``: runs as those of GRAF, one GRIB2 file per lead time; without eccodes all runs in ``forecast.nc``;
- ``target``: analyses and their quality on the forecasts' grid, for every valid time;
- ``GRAF_CONUS_terrain_info.nc``: terrain;
- ``gfs``: coarse predictors, for every run;
- ``ideal``: ideal probabilities of the test runs, never an input;
- ``mrms``: analyses of three hours on MRMS's grid, to try the remapping with (with eccodes only);
- ``demo.json``: the settings; its presence says that the demo is whole.

See :mod:`precip_postproc.resunet_qpf.weather` for what is simulated.
"""

import json
import logging
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from ai4sim.atomic import atomic_path, exclusive
from ai4sim.errors import InputError
from ai4sim.manifest import available_cores
from precip_postproc.resunet_qpf.dates import DAY, DELAY, HOUR, YEAR, as_time, require_no_leakage, valid_times
from precip_postproc.resunet_qpf.demo_files import FORECASTS, TERRAIN, DemoWriter, Packed, Run, forecast_file
from precip_postproc.resunet_qpf.grib_writer import require_eccodes
from precip_postproc.resunet_qpf.periodic import PeriodicGrid
from precip_postproc.resunet_qpf.random_fields import Stream, make_rng
from precip_postproc.resunet_qpf.regime import STEP
from precip_postproc.resunet_qpf.weather import LEADS, Weather

logger = logging.getLogger(__name__)

Times = NDArray[np.datetime64]
Grid = Literal["full", "tiny"]
Format = Literal["auto", "grib", "netcdf"]

VERSION = 1
MARK = "demo.json"
UNFINISHED = "demo.partial"
MOSAICS = 3  # valid times of which there are files as those of MRMS
PROCESSES = 2
BATCH = 10  # runs that a process is given at once
# below, starting processes takes longer than they save
LEAST_FOR_PROCESSES = 60


@dataclass(frozen=True)
class DemoSettings:
    """Size and dates of the demo.

    Args:
        days: of training runs before the target date, and again of those that followed the same date one year earlier.
        test_days: days of test runs, from the day after the target date on.
        target: the date up to which one learns: all training analyses are 24 h older.
        hours: of the runs, UTC: some of 0, 6, 12 and 18.
        leads: h, some of 6, 12, 24 and 48.
        seed: of everything random.
        grid: ``full``, 128 x 160 points of 4 km, or ``tiny``, the same region with 64 x 80 points of 8 km.
        format: of the forecasts, ``grib`` or ``netcdf``; ``auto`` is GRIB2 where eccodes is installed.

    Raises:
        InputError: a value is impossible.
    """

    days: int = 120
    test_days: int = 40
    target: str = "2025-12-01"
    hours: tuple[int, ...] = (0, 12)
    leads: tuple[int, ...] = LEADS
    seed: int = 0
    grid: Grid = "full"
    format: Format = "auto"

    def __post_init__(self) -> None:
        for name, known in (("hours", range(0, 24, STEP)), ("leads", LEADS)):
            values = tuple(getattr(self, name))
            object.__setattr__(self, name, values)
            if not values or not set(values) <= set(known) or list(values) != sorted(set(values)):
                raise InputError(
                    f"demo: {name} {list(values)} must be some of {', '.join(map(str, known))} in increasing order"
                )
        for name, options in (("grid", get_args(Grid)), ("format", get_args(Format))):
            if getattr(self, name) not in options:
                raise InputError(f"demo: {name} {getattr(self, name)!r} is unknown; choose {' or '.join(options)}")
        for name, least in (("days", 1), ("test_days", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise InputError(f"demo: {name} is {getattr(self, name)}, it must be at least {least}")
        date = as_time(self.target)
        if date != date.astype("datetime64[D]"):
            raise InputError(f"demo: the target {self.target} is no date such as 2025-12-01")
        most = (int((self._last_day - (date - YEAR)) / DAY) + 1) // 2
        if self.days > most:
            raise InputError(f"demo: {self.days} training days of two years in a row overlap; take {most} at most")

    @property
    def _last_day(self) -> np.datetime64:
        """Of the training runs."""
        last = as_time(self.target) - DELAY - (max(self.hours) + max(self.leads)) * HOUR
        day: np.datetime64 = last.astype("datetime64[D]")
        return day

    def _runs(self, first_day: np.datetime64, days: int) -> Times:
        starts = first_day + np.arange(days) * DAY
        runs: Times = (starts[:, None] + np.array(self.hours) * HOUR).astype("datetime64[s]").ravel()
        return runs

    def training_inits(self) -> Times:
        """Initial times (run,) of the training runs, increasing: both seasons."""
        before = as_time(self.target) - YEAR
        recent = self._last_day - (self.days - 1) * DAY
        inits = np.concatenate([self._runs(first, self.days) for first in (before, recent)])
        require_no_leakage(inits, max(self.leads), self.target)
        return inits

    def test_inits(self) -> Times:
        """Initial times (run,) of the test runs, increasing."""
        return self._runs(as_time(self.target) + DAY, self.test_days)

    def inits(self) -> Times:
        """Initial times (run,) of all runs, increasing."""
        return np.concatenate([self.training_inits(), self.test_inits()])

    def weather(self) -> Weather:
        """The simulation that the files are made of."""
        weather = Weather(PeriodicGrid.tiny() if self.grid == "tiny" else PeriodicGrid(), self.seed)
        days = valid_times(self.inits()[:, None], self.leads)
        weather.outage = weather.network.draw_outage(days, make_rng(self.seed, Stream.OUTAGE))
        return weather

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides about the content, for JSON."""
        content = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {"version": VERSION, **content}


def plan_runs(settings: DemoSettings) -> list[Run]:
    """What every run writes: an analysis belongs to the first run that is valid at its time.

    Args:
        settings: of the demo.
    """
    test, known, runs = set(settings.test_inits().tolist()), set(), []
    mosaics = MOSAICS
    for init in settings.inits():
        ideal = init.item() in test
        new = [lead for lead in settings.leads if init + lead * HOUR not in known]
        known |= {init + lead * HOUR for lead in new}
        mosaic = new[:mosaics] if ideal else []
        mosaics -= len(mosaic)
        runs.append(Run(init, tuple(new), tuple(mosaic), ideal))
    return runs


def write_demo(folder: Path, settings: DemoSettings, processes: int = PROCESSES) -> None:
    """Simulate the demo and write its raw files; those that are there already are kept, also of an interrupted run.

    Args:
        folder: where the raw files go.
        settings: size and dates.
        processes: at most; the files are the same for any number.

    Raises:
        InputError: the folder holds other data, cannot be written to, or eccodes is needed and not installed.
    """
    folder = Path(folder)
    if _is_whole(folder, settings):
        return
    unfinished = folder / UNFINISHED
    try:
        with exclusive(unfinished, f"the demo in {folder}"):
            # another process may have made it meanwhile
            if not _is_whole(folder, settings):
                settings = _begin(folder, settings)
                _write(folder, settings, min(processes, available_cores()))
                _write_json(folder / MARK, settings)
            shutil.rmtree(unfinished)
    except OSError as error:
        raise InputError(f"cannot write the demo to {folder}: {error.strerror or error}") from error


def _write_json(path: Path, settings: DemoSettings) -> None:
    with atomic_path(path) as part:
        part.write_text(json.dumps(settings.identity, indent=1) + "\n")


def _is_whole(folder: Path, settings: DemoSettings) -> bool:
    """Whether this demo is there.

    Raises:
        InputError: another one is, whole or not, or files that are none.
    """
    for mark in (folder / MARK, folder / UNFINISHED / MARK):
        if mark.exists():
            found = _read_json(mark)
            wanted = settings.identity
            if settings.format == "auto":
                # both forms have the same values
                wanted["format"] = found.get("format")
            if found != wanted:
                differ = [name for name in wanted.keys() | found.keys() if found.get(name) != wanted.get(name)]
                text = "; ".join(f"{name}: {found.get(name)}, not {wanted.get(name)}" for name in sorted(differ))
                raise InputError(
                    f"{folder} holds a demo with other settings ({text}): remove it, or name another dataset"
                )
            return mark.parent == folder
    for name in ("forecast", FORECASTS, "target", TERRAIN, "gfs", "ideal", "mrms"):
        if (folder / name).exists():
            raise InputError(
                f"{folder / name} is of no demo: point the demo at an empty folder, or remove the demo settings"
            )
    return False


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{path} does not say with what settings the demo was made: remove the folder {path.parent}")
    return content


def _begin(folder: Path, settings: DemoSettings) -> DemoSettings:
    """Settings with the format that is written; note them."""
    mark = folder / UNFINISHED / MARK
    form = settings.format
    if mark.exists():
        form = _read_json(mark)["format"]
    elif form == "auto":
        form = "grib" if _has_eccodes() else "netcdf"
    if form == "grib":
        require_eccodes()
    settings = replace(settings, format=form)
    _write_json(mark, settings)
    return settings


def _has_eccodes() -> bool:
    try:
        require_eccodes()
    except InputError as error:
        logger.warning("the demo is written as NetCDF: %s", error)
        return False
    return True


def _write(folder: Path, settings: DemoSettings, processes: int) -> None:
    if not (folder / TERRAIN).exists():
        _writer(folder, settings).write_terrain()
    grib, runs = settings.format == "grib", plan_runs(settings)
    whole = grib or (folder / FORECASTS).exists()
    if whole:
        runs = [
            run
            for run in runs
            if not all(path.exists() for path in run.files(folder, settings.leads, grib=grib).values())
        ]
    batches = [runs[start : start + BATCH] for start in range(0, len(runs), BATCH)]
    done = _in_processes(folder, settings, batches, processes if len(runs) >= LEAST_FOR_PROCESSES else 1)
    shown = track(done, "simulating the demo's weather", total=len(batches))
    if whole:
        deque(shown, maxlen=0)
        return
    part = folder / UNFINISHED / FORECASTS
    grid = _writer(folder, settings).grid
    with forecast_file(part, settings.inits(), settings.leads, grid) as amounts:
        first = 0
        for packed in shown:
            amounts[first : first + len(packed)] = packed
            first += len(packed)
    part.replace(folder / FORECASTS)


def _in_processes(
    folder: Path, settings: DemoSettings, batches: Sequence[Sequence[Run]], processes: int
) -> Iterator[Packed]:
    """What :func:`_write_batch` gives for every batch, in order.

    Every process goes through the batches that it is given in the order of time, and so makes the weather's evolution
    once.
    """
    write = partial(_write_batch, folder, settings)
    finished = 0
    if processes > 1:
        try:
            # a fork would copy the locks of threads that others have started
            with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
                for result in pool.map(write, batches):
                    yield result
                    finished += 1
        # Python raises the latter where the system has no semaphores
        except (BrokenProcessPool, NotImplementedError) as error:
            logger.warning("the demo is made by one process, for others cannot be started: %s", error)
    yield from map(write, batches[finished:])


def _write_batch(folder: Path, settings: DemoSettings, runs: Sequence[Run]) -> Packed:
    """Write some runs; forecasts (run, lead, y, x), without any lead time where they are GRIB2."""
    writer = _writer(folder, settings)
    return np.stack([writer.write(run) for run in runs])


@lru_cache(maxsize=1)
def _writer(folder: Path, settings: DemoSettings) -> DemoWriter:
    """The writer of this process, which remembers how far the weather has evolved."""
    return DemoWriter(folder, settings.weather(), settings.leads, grib=settings.format == "grib")
