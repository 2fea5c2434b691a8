"""Radars: how well they see each point, and the analysis of precipitation that is made from them.

Distances in km from the south-western grid point of the rectangle that the files show; heights above the sea.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from precip_postproc.resunet_qpf.periodic import Array

Float = NDArray[np.float32]
Days = NDArray[np.datetime64]

NO_COVERAGE = -3.0  # as in the real quality files
# Analysis
TRUSTED = 0.5  # quality from which on nothing is lost
LEAST_CATCH = 0.35  # part of the precipitation that is seen where the quality is zero
NOISE = 0.12  # standard deviation of the logarithm
RESOLUTION = 0.1  # mm
LEAST_AMOUNT = 0.25  # mm; less is zero


class Site(NamedTuple):
    """Where a radar stands.

    Attributes:
        x: km to the east.
        y: km to the north.
    """

    x: float
    y: float


SITES = (Site(60.0, 100.0), Site(150.0, 400.0), Site(300.0, 250.0), Site(520.0, 90.0), Site(560.0, 420.0))


@dataclass(frozen=True)
class Beam:
    """The lowest beam of every radar, and what is thought of its height.

    Args:
        start: least height at the antenna, km; where the ground is higher, the antenna stands on a mast.
        mast: height of the antenna above such ground, km.
        elevation: of the beam above the horizon, degrees.
        width: of the beam, degrees.
        range: km; beyond it nothing is seen.
        refraction: twice the effective radius of the earth, four thirds of the true one, km.
        clearance: how far terrain may reach above the beam's axis without effect, km.
        good_height: height up to which the quality is one, km.
        decay: height above it at which the quality is 1/e, km.
    """

    start: float = 0.3
    mast: float = 0.03
    elevation: float = 0.5
    width: float = 1.0
    range: float = 230.0
    refraction: float = 17000.0
    clearance: float = 0.2
    good_height: float = 1.0
    decay: float = 2.6

    def on_ground(self, height: float) -> "Beam":
        """The same beam from ground of that height, km: an antenna at 0.3 km could stand inside a mountain."""
        return replace(self, start=max(self.start, height + self.mast))

    def height(self, distance: ArrayLike) -> Array:
        """Height of the beam's axis, km: straight over a round earth (after Doviak and Zrnić 1993, eq. 2.28).

        Args:
            distance: from the radar along the ground, km.
        """
        r = np.asarray(distance)
        height: Array = self.start + r * np.tan(np.radians(self.elevation)) + r**2 / self.refraction
        return height

    def height_quality(self, distance: ArrayLike) -> Array:
        """Quality 0..1 that a beam of that height allows over flat land; zero out of range."""
        r = np.asarray(distance)
        above = np.maximum(self.height(r) - self.good_height, 0)
        return np.where(r <= self.range, np.exp(-((above / self.decay) ** 2)), 0)


def distance_to(site: Site, shape: tuple[int, int], spacing: float) -> Array:
    """Distance (ny, nx) of the grid points from a radar, km."""
    y, x = (spacing * np.arange(size) for size in shape)
    distance: Array = np.hypot(x[None] - site.x, y[:, None] - site.y)
    return distance


def _terrain_at(height: Array, row: Array, column: Array) -> Array:
    """Height of the terrain between grid points, bilinear, from m to km."""
    low_row, low_column = (
        np.clip(place.astype(int), 0, size - 2) for place, size in zip((row, column), height.shape, strict=True)
    )
    dy, dx = row - low_row, column - low_column
    below = (1 - dx) * height[low_row, low_column] + dx * height[low_row, low_column + 1]
    above = (1 - dx) * height[low_row + 1, low_column] + dx * height[low_row + 1, low_column + 1]
    terrain: Array = ((1 - dy) * below + dy * above) / 1000
    return terrain


def blockage(height: Array, site: Site, spacing: float, beam: Beam | None = None) -> Array:
    """Part of the beam (ny, nx), 0..1, that terrain on the way to each point cuts off.

    The largest excess of the terrain over the beam's axis and a clearance, in units of the beam's width there.

    Args:
        height: (ny, nx) of the terrain, m.
        site: of the radar.
        spacing: of the grid points, km.
        beam: of the radar.
    """
    beam = beam or Beam()
    target = distance_to(site, (height.shape[0], height.shape[1]), spacing)
    first, left = site.y / spacing, site.x / spacing
    rows, columns = np.meshgrid(*(np.arange(size) for size in height.shape), indexing="ij")
    blocked: Array = np.zeros(height.shape)
    # the same distances for all points, so that along a ray blockage never falls; at the radar the beam has no width
    step = spacing / 2
    for r in np.arange(step, beam.range, step):
        beyond = (target >= r) & (target <= beam.range)
        part = r / target[beyond]
        terrain = _terrain_at(height, first + part * (rows[beyond] - first), left + part * (columns[beyond] - left))
        excess = (terrain - beam.height(r) - beam.clearance) / (r * np.radians(beam.width))
        blocked[beyond] = np.maximum(blocked[beyond], excess)
    return np.minimum(blocked, 1)


class Outage(NamedTuple):
    """A radar that is switched off on some days.

    Attributes:
        radar: its number.
        days: the days, UTC.
    """

    radar: int
    days: Days

    def covers(self, time: np.datetime64) -> bool:
        """Whether the radar is off at that time."""
        return bool(np.isin(time.astype("datetime64[D]"), self.days.astype("datetime64[D]")))


class RadarNetwork:
    """The quality of all radars together.

    Args:
        height: (ny, nx) of the terrain, m.
        spacing: of the grid points, km.
        sites: of the radars.
        beam: of every radar.

    Attributes:
        qualities: (radar, ny, nx) of each alone, 0..1.
        quality: (ny, nx) the largest, where all are on.
    """

    def __init__(
        self, height: Array, spacing: float, sites: tuple[Site, ...] = SITES, beam: Beam | None = None
    ) -> None:
        beam = beam or Beam()
        self.qualities: Float = np.stack([self._alone(height, spacing, site, beam) for site in sites])
        self.quality: Float = self.qualities.max(axis=0)

    @staticmethod
    def _alone(height: Array, spacing: float, site: Site, beam: Beam) -> Float:
        ground = _terrain_at(height, np.array([site.y / spacing]), np.array([site.x / spacing]))
        beam = beam.on_ground(float(ground[0]))
        distance = distance_to(site, (height.shape[0], height.shape[1]), spacing)
        quality = beam.height_quality(distance) * (1 - blockage(height, site, spacing, beam))
        return quality.astype(np.float32)

    def exclusive(self, radar: int) -> NDArray[np.bool_]:
        """Where (ny, nx) this radar sees something and no other one does."""
        others = np.delete(self.qualities, radar, axis=0).max(axis=0, initial=0)
        exclusive: NDArray[np.bool_] = (self.qualities[radar] > 0) & (others == 0)
        return exclusive

    def quality_at(self, time: np.datetime64, outage: Outage | None = None) -> Float:
        """Quality (ny, nx) at a time: 0..1, or -3 where the only radar that sees the point is off."""
        if outage is None or not outage.covers(time):
            return self.quality
        others = np.delete(self.qualities, outage.radar, axis=0).max(axis=0, initial=0)
        return np.where(self.exclusive(outage.radar), np.float32(NO_COVERAGE), others)

    def draw_outage(self, days: Days, rng: np.random.Generator, count: int = 3) -> Outage:
        """One radar off on some random days: one of those without which some points are not seen.

        Args:
            days: to choose from, UTC.
            rng: of the choice.
            count: of the days that are chosen, or all if there are fewer.
        """
        needed = [radar for radar in range(len(self.qualities)) if self.exclusive(radar).any()]
        radar = int(rng.choice(needed or len(self.qualities)))
        days = np.unique(np.asarray(days, "datetime64[D]"))
        return Outage(radar, np.sort(rng.choice(days, min(count, len(days)), replace=False)))


def catch(quality: ArrayLike) -> Array:
    """Part of the precipitation that the analysis sees, 0.35 to 1.

    Args:
        quality: 0..1, or negative for no coverage, which counts as 0.
    """
    return LEAST_CATCH + (1 - LEAST_CATCH) * np.clip(np.asarray(quality) / TRUSTED, 0, 1)


def analyse(amount: Float, quality: Float, rng: np.random.Generator) -> Float:
    """Analysis of hourly precipitation (ny, nx), mm: multiples of 0.1, and nothing between 0 and 0.25.

    Lognormal noise of mean one, independent between points, and too little where the quality is below 0.5.

    Args:
        amount: (ny, nx) true precipitation, mm.
        quality: (ny, nx) 0..1 or negative.
        rng: of the noise.
    """
    noise = np.exp(NOISE * rng.standard_normal(amount.shape, dtype=np.float32) - np.float32(NOISE**2 / 2))
    tenths = np.rint(amount * noise * catch(quality) / RESOLUTION)
    return np.where(tenths * RESOLUTION < LEAST_AMOUNT, 0, tenths / 10).astype(np.float32)


def least_reported(threshold: float) -> float:
    """Least amount before rounding, mm, that the analysis reports as at least the threshold.

    Args:
        threshold: mm.
    """
    # 0.3 / 0.1 is a little less than 3
    tenths = np.ceil(max(threshold, LEAST_AMOUNT) / RESOLUTION - 1e-6)
    return float((tenths - 0.5) * RESOLUTION)
