"""Demo raw files: simulated pairs of coarse and fine fields in the schema of HRRR-Mini.

In one folder:

- ``hrrr_mini_train.nc``: the samples, crops of snapshots that are two hours apart;
- ``stats.json``: mean and standard deviation of every variable over all of them;
- ``demo.json``: the settings; its presence says that the demo is whole.

See :mod:`downscaling.corrdiff.weather` for what is simulated, :mod:`downscaling.corrdiff.demo_file` for the schema.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from ai4sim.atomic import atomic_path, exclusive
from ai4sim.errors import InputError
from downscaling.corrdiff.config import USE_CASE
from downscaling.corrdiff.demo_file import STATS, TRAIN, SampleFile
from downscaling.corrdiff.readers.statistics_file import Statistics, write_statistics
from downscaling.corrdiff.weather import Snapshot, Stream, Weather, make_rng

# of what the settings stand for
VERSION = 1
MARK = "demo.json"
UNFINISHED = "demo.partial"


@dataclass(frozen=True)
class DemoSettings:
    """Size of the demo.

    Args:
        n: points per side of the whole grid, of 3 km.
        snapshots: times, two hours apart.
        crops: samples of every snapshot.
        size: points per side of a sample.
        factor: points along a coarse cell.
        seed: of everything random.
        spin_up: time in which the turbulence develops before the first snapshot, h.

    Raises:
        InputError: a value is impossible.
    """

    n: int = 256
    snapshots: int = 120
    crops: int = 16
    size: int = 64
    factor: int = 8
    seed: int = 0
    spin_up: float = 24.0

    def __post_init__(self) -> None:
        for name, least in (("n", 32), ("snapshots", 1), ("crops", 1), ("factor", 2), ("seed", 0), ("spin_up", 0)):
            if not getattr(self, name) >= least:
                raise InputError(f"demo: {name} is {getattr(self, name)}, it must be at least {least}")
        if self.n % 2:
            raise InputError(f"demo: n is {self.n}, it must be even")
        for name in ("n", "size"):
            if getattr(self, name) % self.factor:
                raise InputError(f"demo: {name} {getattr(self, name)} is no multiple of the factor {self.factor}")
        if not 2 * self.factor <= self.size <= self.n:
            raise InputError(
                f"demo: size is {self.size}, it must be from two coarse cells, {2 * self.factor}, to n, {self.n}"
            )
        if self.crops > self.places**2:
            raise InputError(
                f"demo: {self.crops} crops of {self.size} points have only {self.places**2} different places on the "
                f"grid of {self.n} points"
            )

    @classmethod
    def tiny(cls) -> "DemoSettings":
        """64 samples of 32 x 32 and 4 x 4 points, made within two seconds: for tests."""
        return cls(n=64, snapshots=32, crops=2, size=32, spin_up=6.0)

    @property
    def places(self) -> int:
        """Where a crop may begin along one axis: at the edges of coarse cells."""
        return (self.n - self.size) // self.factor + 1

    @property
    def samples(self) -> int:
        """How many there are."""
        return self.snapshots * self.crops

    def weather(self) -> Weather:
        """The simulation that the files are made of."""
        return Weather(self.n, self.factor, self.seed, self.spin_up)

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides about the content, for JSON."""
        return {"use_case": USE_CASE, "version": VERSION, **asdict(self)}


def write_demo(folder: Path, settings: DemoSettings) -> None:
    """Simulate the demo and write its raw files; nothing is done if they are there, with these settings.

    A demo with other settings is replaced. Another process that makes the demo is waited for.

    Args:
        folder: where the raw files go.
        settings: size.

    Raises:
        InputError: the folder holds other data, or cannot be written to.
    """
    folder = Path(folder)
    if _is_whole(folder, settings):
        return
    unfinished = folder / UNFINISHED
    try:
        with exclusive(unfinished, f"the demo in {folder}"):
            # another process may have made it meanwhile
            if not _is_whole(folder, settings):
                _write(folder, settings)
            shutil.rmtree(unfinished)
    except OSError as error:
        raise InputError(f"cannot write the demo to {folder}: {error.strerror or error}") from error


def _is_whole(folder: Path, settings: DemoSettings) -> bool:
    """Whether this demo is there.

    Raises:
        InputError: files are there that are of no demo.
    """
    for mark in (folder / MARK, folder / UNFINISHED / MARK):
        if mark.exists():
            found = _read_mark(mark)
            return mark.parent == folder and found == settings.identity and _has_files(folder)
    for name in (TRAIN, STATS):
        if (folder / name).exists():
            raise InputError(
                f"{folder / name} is of no demo: point the demo at an empty folder, or remove the demo settings"
            )
    return False


def _has_files(folder: Path) -> bool:
    return all((folder / name).exists() for name in (TRAIN, STATS))


def _read_mark(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except ValueError:
        content = None
    if not isinstance(content, dict) or content.get("use_case") != USE_CASE:
        raise InputError(f"{path} is not of a demo of {USE_CASE}: point the demo at an empty folder")
    return content


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as part:
        part.write_text(text)


def _write(folder: Path, settings: DemoSettings) -> None:
    """Write all files; as long as this goes on, a mark in the folder of the unfinished says that they are a demo's."""
    unfinished = folder / UNFINISHED
    identity = json.dumps(settings.identity, indent=1) + "\n"
    _write_text(unfinished / MARK, identity)
    (folder / MARK).unlink(missing_ok=True)
    # what a killed process has left
    for rest in unfinished.glob(f".{Path(TRAIN).stem}.*"):
        rest.unlink()
    with atomic_path(unfinished / TRAIN) as part:
        statistics = _write_samples(part, settings)
    (unfinished / TRAIN).replace(folder / TRAIN)
    write_statistics(folder / STATS, statistics)
    _write_text(folder / MARK, identity)


def _write_samples(path: Path, settings: DemoSettings) -> Statistics:
    """Simulate and write all samples; gives their statistics."""
    weather, rng = settings.weather(), make_rng(settings.seed, Stream.CROPS)
    size, cells = settings.size, settings.size // settings.factor
    attributes = {"title": "simulated km-scale weather and its coarse view", "source": f"ai4sim {USE_CASE}"}
    with SampleFile(path, settings.samples, (cells, cells), (size, size), weather.invariants, attributes) as file:
        snapshots = islice(weather.snapshots(), settings.snapshots)
        for snapshot in track(snapshots, "simulating the demo's weather", total=settings.snapshots):
            places = rng.choice(settings.places**2, settings.crops, replace=False)
            corners = np.stack(np.divmod(places, settings.places), axis=-1)  # (crop, 2), coarse cells
            _append(file, snapshot, corners, settings)
        return file.statistics()


def _append(file: SampleFile, snapshot: Snapshot, corners: NDArray[np.int64], settings: DemoSettings) -> None:
    def crops(fields: dict[str, NDArray[Any]], points: int, size: int) -> dict[str, NDArray[np.float32]]:
        """Squares (crop, size, size); a coarse cell has some points along its side."""
        return {
            name: np.stack([field[i : i + size, j : j + size] for i, j in corners * points])
            for name, field in fields.items()
        }

    cells = settings.size // settings.factor
    file.append(
        snapshot.time,
        corners * settings.factor,
        crops(snapshot.inputs, 1, cells),
        crops(snapshot.outputs, settings.factor, settings.size),
    )
