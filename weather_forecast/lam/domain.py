"""What a model must know of the data it was made for; it travels in the checkpoint."""

import logging
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from ai4sim.errors import InputError
from ai4sim.normalization import FeatureStatistics
from weather_forecast.lam import config
from weather_forecast.lam.networks.base import Grid
from weather_forecast.lam.parameters import Parameter, host_matches

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class DatasetInfo:
    """Names, grid and statistics of a data set.

    Args:
        name: of the data set.
        state: parameters that are forecast and fed back, in the order of their channels.
        diagnostics: parameters that are forecast and not fed back.
        forcing: fields of the host that are known for the target times.
        units: of every parameter above.
        step_seconds: between two states, s.
        latitude: (lat, lon) degrees north.
        longitude: (lat, lon) degrees east.
        x: (lat, lon) planar coordinate to the east, km.
        y: (lat, lon) planar coordinate to the north, km.
        geopotential: (lat, lon) of the surface, m2 s-2.
        border: (lat, lon) weight of the boundary's values, 1 where they are prescribed.
        state_statistics: of state and diagnostics, physical units.
        difference_statistics: of the standardised state's and diagnostics' change over one step.
        gradient_statistics: of the standardised state's and diagnostics' difference between neighbouring points.
        forcing_statistics: of the forcing, physical units.
        solar_statistics: of the radiation at the top of the atmosphere, W m-2.
    """

    name: str
    state: list[str]
    diagnostics: list[str]
    forcing: list[str]
    units: dict[str, str]
    step_seconds: int
    latitude: Tensor
    longitude: Tensor
    x: Tensor
    y: Tensor
    geopotential: Tensor
    border: Tensor
    state_statistics: FeatureStatistics
    difference_statistics: FeatureStatistics
    gradient_statistics: FeatureStatistics
    forcing_statistics: FeatureStatistics | None
    solar_statistics: FeatureStatistics

    @property
    def outputs(self) -> list[str]:
        """All parameters that are forecast."""
        return [*self.state, *self.diagnostics]

    @property
    def forcing_features(self) -> list[str]:
        """Channels of the forcing: the host's fields, hour and season, radiation."""
        return [*self.forcing, *config.TIME_FORCINGS, config.SOLAR_FORCING]

    @property
    def grid(self) -> Grid:
        """Positions of the points."""
        return Grid(self.x, self.y)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.x.shape[0], self.x.shape[1]

    @property
    def lead_hours(self) -> float:
        """Hours of one step."""
        return self.step_seconds / 3600

    @property
    def roughness(self) -> Tensor:
        """(F_out,) root mean square of the standardised fields' difference between neighbouring points."""
        moments = self.gradient_statistics
        size = (moments.mean**2 + moments.std**2) ** 0.5
        return torch.from_numpy(np.where(size > 0, size, 1.0))

    def static_fields(self) -> Tensor:
        """Channels (lat, lon, 4): x, y, geopotential, each scaled to [0, 1], and the border."""
        if self.geopotential.min() == self.geopotential.max():
            logger.warning("%s: the geopotential of the surface is the same everywhere", self.name)
        scaled = [_unit_range(field) for field in (self.x, self.y, self.geopotential)]
        return torch.stack([*scaled, self.border], dim=-1).float()

    def host_matches(self) -> list[tuple[int, int]]:
        """Pairs of channels (state, forcing) of the same field and level in analysis and host."""
        return host_matches(self.state, self.forcing)

    def require_same(self, other: "DatasetInfo") -> None:
        """Refuse data that differ from those a model was trained on.

        Args:
            other: the data at hand.

        Raises:
            InputError: says what differs.
        """
        for kind in ("state", "diagnostics", "forcing"):
            mine, theirs = getattr(self, kind), getattr(other, kind)
            if mine != theirs:
                missing, extra = [n for n in mine if n not in theirs], [n for n in theirs if n not in mine]
                detail = f"missing {missing}, not known to the model {extra}" if missing or extra else "another order"
                raise InputError(f"the model was trained with other {kind} parameters than the data have: {detail}")
        if self.step_seconds != other.step_seconds:
            raise InputError(
                f"the model was trained for steps of {self.lead_hours:g} h, the data have {other.lead_hours:g} h"
            )
        if self.shape != other.shape or not torch.allclose(self.latitude, other.latitude, atol=1e-4):
            raise InputError(
                f"the model was trained on a grid of {self.shape}, the data have {other.shape} or elsewhere"
            )

    def summary(self) -> Table:
        """A table of all parameters and their statistics."""
        table = Table(title=f"{self.name}: {self.shape[0]} x {self.shape[1]} points, steps of {self.lead_hours:g} h")
        for heading in ("parameter", "units", "mean", "std", "min", "max", "change mean", "change std", "weight"):
            table.add_column(heading, justify="left" if heading in {"parameter", "units"} else "right")
        state, change = self.state_statistics, self.difference_statistics
        for i, name in enumerate(self.outputs):
            numbers = (
                state.mean[i], state.std[i], state.minimum[i], state.maximum[i],
                change.mean[i] * state.std[i], change.std[i] * state.std[i], Parameter.parse(name).weight,
            )  # fmt: skip
            table.add_row(name, self.units[name], *(f"{number:.4g}" for number in numbers))
        return table

    def to_dict(self) -> dict[str, Any]:
        """Tensors and plain values, for a checkpoint."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {key: v.to_dict() if isinstance(v, FeatureStatistics) else v for key, v in values.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DatasetInfo":
        """Inverse of :meth:`to_dict`."""
        if missing := [field.name for field in fields(cls) if field.name not in values]:
            raise InputError(
                f"the checkpoint is of an older version: it lacks {', '.join(missing)} of the data; fit again"
            )
        made: dict[str, Any] = {
            key: FeatureStatistics.from_dict(value) if key.endswith("_statistics") and value is not None else value
            for key, value in values.items()
        }
        return cls(**made)


def _unit_range(field: Tensor) -> Tensor:
    """Scale to [0, 1]; a constant field becomes 1."""
    lowest, highest = field.min(), field.max()
    if highest == lowest:
        return torch.ones_like(field)
    return (field - lowest) / (highest - lowest)
