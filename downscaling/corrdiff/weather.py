"""The demo's weather: a sequence of pairs of fine and coarse fields.

Turbulence (:mod:`downscaling.corrdiff.sqg`) is carried along by a mean wind that changes over days
(:mod:`downscaling.corrdiff.regime`). A surface layer (:mod:`downscaling.corrdiff.surface_layer`) makes of both what is
observed above the terrain (:mod:`downscaling.corrdiff.terrain`), and a coarse model's view of it
(:mod:`downscaling.corrdiff.coarse_driver`) is what one downscales from. So a part of the fine fields follows from the
coarse ones and the terrain; the rest, eddies below the coarse cells, is chaotic.
"""

from collections.abc import Iterator
from enum import IntEnum, auto
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ai4sim.projections import LambertConformal
from downscaling.corrdiff.coarse_driver import CoarseDriver
from downscaling.corrdiff.periodic import Array, smooth
from downscaling.corrdiff.regime import INTERVAL, Regime, evolve_regime
from downscaling.corrdiff.sqg import HOUR, SPACING, SurfaceQG
from downscaling.corrdiff.surface_layer import SurfaceLayer
from downscaling.corrdiff.terrain import make_terrain

Spectrum = NDArray[np.complex64]

START = np.datetime64("2020-06-01T00", "h")
# where the Coriolis parameter is that of the model, and UTC is solar time
PROJECTION = LambertConformal(43.3, 0.0, (43.3, 43.3), 6371229.0)

MOISTURE_OF_REGIME = 0.3  # of the logarithm
MOISTURE_OF_TEMPERATURE, MOISTURE_LENGTH = 0.06, 24e3  # of the logarithm, K-1 and m


class Stream(IntEnum):
    """Independent streams of random numbers; the order is part of what a seed means."""

    TERRAIN = auto()
    START = auto()
    KICKS = auto()
    REGIME = auto()
    CROPS = auto()


def make_rng(seed: int, stream: Stream) -> np.random.Generator:
    """Random numbers that belong to a seed and a stream, whatever is drawn of the others.

    Args:
        seed: of the demo.
        stream: what the numbers are for.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(int(stream),)))


class Snapshot(NamedTuple):
    """The weather at one time.

    Attributes:
        time: UTC.
        inputs: coarse fields (n/factor, n/factor) by name.
        outputs: fine fields (n, n) by name.
    """

    time: np.datetime64
    inputs: dict[str, Array]
    outputs: dict[str, Array]


class Weather:
    """The weather of a seed.

    Args:
        n: points per side.
        factor: points along a coarse cell.
        seed: of everything random.
        spin_up: time in which the turbulence develops before the first snapshot, h.

    Attributes:
        terrain: below it.
    """

    def __init__(self, n: int, factor: int, seed: int, spin_up: float) -> None:
        self._model = SurfaceQG(n)
        self._seed, self._spin_up = seed, spin_up
        self.terrain = make_terrain(n, make_rng(seed, Stream.TERRAIN))
        self._surface = SurfaceLayer(*self.terrain, SPACING)
        self._coarse = CoarseDriver(self.terrain, factor, SPACING)

    @property
    def invariants(self) -> dict[str, Array]:
        """Fields (n, n) that do not change, by their names in the file."""
        n = len(self.terrain.height)
        along = SPACING * (np.arange(n, dtype=np.float64) - (n - 1) / 2)
        latitude, longitude = PROJECTION.to_sphere(along[None], along[:, None])
        return {
            "elev_mean": self.terrain.height, "lsm_mean": self.terrain.land, "latitude": latitude,
            "longitude": longitude,
        }  # fmt: skip

    def snapshots(self) -> Iterator[Snapshot]:
        """Snapshots every two hours, without an end; the same ones every time."""
        kicks = make_rng(self._seed, Stream.KICKS)
        w = self._model.start(make_rng(self._seed, Stream.START))
        w = self._run(w, self._spin_up, kicks)
        x = y = 0.0
        for number, regime in enumerate(evolve_regime(make_rng(self._seed, Stream.REGIME))):
            if number:
                w = self._run(w, INTERVAL, kicks)
                x += regime.u * INTERVAL * HOUR
                y += regime.v * INTERVAL * HOUR
            time = START + np.timedelta64(round(number * INTERVAL), "h")
            yield self._observe(time, regime, self._model.shift(w, x, y))

    def _run(self, w: Spectrum, hours: float, kicks: np.random.Generator) -> Spectrum:
        for _ in range(round(hours * HOUR / self._model.dt)):
            w = self._model.step(w, kicks)
        return w

    def _observe(self, time: np.datetime64, regime: Regime, w: Spectrum) -> Snapshot:
        hour = (time - time.astype("datetime64[D]")) / np.timedelta64(1, "h")
        u, v = self._model.velocity(w)
        u, v = regime.u + u, regime.v + v
        temperature = self._model.temperature(w)
        moist = MOISTURE_OF_TEMPERATURE * smooth(temperature, MOISTURE_LENGTH / SPACING)
        moisture = np.exp(MOISTURE_OF_REGIME * regime.moisture + moist)
        fine = self._surface(u, v, temperature, self._model.lift(w), moisture, hour)
        coarse = self._coarse(u, v, temperature, moisture, self._model.streamfunction(w), hour)
        return Snapshot(time, coarse, dict(zip(("10u", "10v", "2t", "tp"), fine, strict=True)))
