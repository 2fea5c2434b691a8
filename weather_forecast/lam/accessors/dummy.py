"""Random fields, for smoke tests only."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from weather_forecast.lam.accessors.base import DataAccessor, Field, GridInfo, Records
from weather_forecast.lam.parameters import Parameter


class DummyAccessor(DataAccessor):
    """Seeded white noise on a 64 x 64 grid, one field per hour.

    Args:
        names: parameters that it has.
        hours: number of hours.
        start: first time.
        shape: rows and columns.
        seed: of the noise.
    """

    def __init__(
        self,
        names: Sequence[str] = ("aro_t2m_2m", "aro_u10_10m", "aro_v10_10m", "aro_z_500hpa"),
        hours: int = 48,
        start: str = "2023-01-01T00",
        shape: tuple[int, int] = (64, 64),
        seed: int = 0,
    ) -> None:
        self.names, self.hours, self.start, self.shape, self.seed = list(names), hours, start, shape, seed

    def load_grid_info(self) -> GridInfo:
        """A grid over France."""
        latitude, longitude = (
            start + 0.1 * np.arange(n, dtype=np.float64) for start, n in zip((42.0, 0.0), self.shape, strict=True)
        )
        geopotential = 1000 * np.random.default_rng(self.seed).random(self.shape)
        return GridInfo.from_axes(latitude, longitude, geopotential)

    def records(self) -> Records:
        """Hours without a gap."""
        times = np.datetime64(self.start, "s") + np.arange(self.hours) * np.timedelta64(1, "h")
        return Records(times, np.zeros(self.hours, np.int64))

    def parameters(self) -> dict[str, str]:
        """Those named."""
        return {name: Parameter.parse(name).units for name in self.names}

    def get_filepath(self, name: str, record: int) -> Path:
        """There is none: the name stands for it."""
        return Path("random") / f"{record}" / name

    def exists(self, name: str, record: int) -> bool:
        """All are there."""
        return name in self.names and 0 <= record < self.hours

    def load(self, names: Sequence[str], record: int) -> Field:
        """Noise that depends on seed, record and parameter alone."""
        self.require(names)
        fields = [
            np.random.default_rng([self.seed, record, self.names.index(name)]).standard_normal(self.shape, np.float32)
            for name in names
        ]
        return np.stack(fields, axis=-1)

    def sources(self) -> list[Path]:
        """None."""
        return []
