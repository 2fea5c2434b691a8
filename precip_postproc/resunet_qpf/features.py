"""A network's input: features, by name, of the fields of :mod:`~precip_postproc.resunet_qpf.predictors`.

Every constant is fixed. Scalings that follow the sample make one field look different from lead time to lead time and
give probabilities that contradict each other.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor, nn

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf import config
from precip_postproc.resunet_qpf.predictors import PRECIPITATION


class Feature(Protocol):
    """How a feature is made of fields."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the fields."""

    @property
    def make(self) -> Callable[..., Tensor]:
        """Gives the feature (B, H, W) of the fields (B, H, W)."""


@dataclass(frozen=True)
class Linear:
    """(field - offset) / scale, in the field's units."""

    field: str
    offset: float
    scale: float

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the fields."""
        return (self.field,)

    def make(self, field: Tensor) -> Tensor:
        """The feature (B, H, W)."""
        return (field - self.offset) / self.scale


@dataclass(frozen=True)
class Logarithm:
    """log(1 + field / unit) / scale: amounts of all sizes on one axis."""

    field: str
    unit: float
    scale: float

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the fields."""
        return (self.field,)

    def make(self, field: Tensor) -> Tensor:
        """The feature (B, H, W)."""
        return torch.log1p(field / self.unit) / self.scale


@dataclass(frozen=True)
class Event:
    """1 where the field reaches a threshold, else 0."""

    field: str
    threshold: float

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the fields."""
        return (self.field,)

    def make(self, field: Tensor) -> Tensor:
        """The feature (B, H, W)."""
        return (field >= self.threshold - config.GUARD).to(field.dtype)


@dataclass(frozen=True)
class Product:
    """(field times field + offset) / scale."""

    fields: tuple[str, str]
    offset: float
    scale: float

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the fields."""
        return self.fields

    def make(self, one: Tensor, other: Tensor) -> Tensor:
        """The feature (B, H, W)."""
        return (one * other + self.offset) / self.scale


@dataclass(frozen=True)
class Upslope:
    """Vertical velocity that the terrain gives to the wind, over a scale in m s-1."""

    scale: float
    needs: tuple[str, ...] = ("u", "v", "slope_x", "slope_y")

    def make(self, u: Tensor, v: Tensor, slope_x: Tensor, slope_y: Tensor) -> Tensor:
        """The feature (B, H, W)."""
        return (u * slope_x + v * slope_y) / self.scale


FEATURES: Final[Mapping[str, Feature]] = {
    "log_precipitation": Logarithm(PRECIPITATION, 0.2, 3.0),
    "wet": Event(PRECIPITATION, config.EDGES[0]),
    "terrain_height": Linear("terrain_height", 0.0, 1500.0),
    "terrain_difference": Linear("terrain_difference", 0.0, 300.0),
    "slope_x": Linear("slope_x", 0.0, 0.02),
    "slope_y": Linear("slope_y", 0.0, 0.02),
    "pwat": Linear("pwat", 20.0, 15.0),
    "r": Linear("r", 60.0, 25.0),
    "cape": Logarithm("cape", 100.0, 2.0),
    "u": Linear("u", 0.0, 10.0),
    "v": Linear("v", 0.0, 10.0),
    "u10": Linear("u10", 0.0, 10.0),
    "v10": Linear("v10", 0.0, 10.0),
    "upslope": Upslope(0.2),
    # the reference's, which go from 0 to 1 where the value is within the maximum
    "scaled_precipitation": Linear(PRECIPITATION, 0.0, 75.0),
    "scaled_precipitation_terrain": Product((PRECIPITATION, "terrain_difference"), 35_000.0, 70_000.0),
    "scaled_terrain_difference": Linear("terrain_difference", -2500.0, 5000.0),
    "scaled_slope_x": Linear("slope_x", -0.02, 0.04),
    "scaled_slope_y": Linear("slope_y", -0.02, 0.04),
    "scaled_humidity": Linear("r", 0.0, 100.0),
    "scaled_precipitation_humidity": Product((PRECIPITATION, "r"), 0.0, 7500.0),
    "scaled_pwat": Linear("pwat", 0.0, 70.0),
    "scaled_cape": Linear("cape", 0.0, 5000.0),
}
DEFAULT: Final = (
    "log_precipitation", "wet", "log_smoothed_3", "log_smoothed_9", "log_smoothed_24", "fraction_6", "fraction_18",
    "terrain_height", "terrain_difference", "slope_x", "slope_y",
)  # fmt: skip


def feature_named(name: str) -> Feature:
    """A feature by its name: one of :data:`FEATURES`, ``log_smoothed_<sigma>`` or ``fraction_<sigma>``.

    Raises:
        InputError: there is none; names all.
    """
    if name in FEATURES:
        return FEATURES[name]
    head, _, sigma = name.rpartition("_")
    if sigma.replace(".", "", 1).isdigit():
        if head == "log_smoothed":
            return Logarithm(f"smoothed_{sigma}", 0.05, 3.0)
        if head == "fraction":
            return Linear(f"fraction_{sigma}", 0.0, 1.0)
    known = ", ".join([*FEATURES, "log_smoothed_<sigma>", "fraction_<sigma>"])
    raise InputError(f"model.features names {name!r}, which is not known; known are {known}")


class FeatureStack(nn.Module):
    """Makes the input of a network.

    Args:
        names: of the features.

    Attributes:
        names: as given.
        needs: names of the fields.

    Raises:
        InputError: no name, one twice, or one that is not known.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        if not names or len(set(names)) < len(names):
            raise InputError(f"model.features must name one feature or more, each once, not {list(names)}")
        self.names = list(names)
        self._features = [feature_named(name) for name in names]
        self.needs = list(dict.fromkeys(need for feature in self._features for need in feature.needs))

    def constants(self) -> dict[str, str]:
        """How every feature is made, by name; to compare with what a checkpoint was trained with."""
        return {name: repr(feature) for name, feature in zip(self.names, self._features, strict=True)}

    def forward(self, fields: Tensor, channels: Sequence[str]) -> Tensor:
        """Features (B, F, H, W).

        Args:
            fields: (B, C, H, W) physical units; missing values count as 0.
            channels: names of the fields.

        Raises:
            InputError: a field is not there.
        """
        place = {name: index for index, name in enumerate(channels)}
        absent = [name for name in self.needs if name not in place]
        if absent:
            raise InputError(
                f"model.features need the field {absent[0]!r}; the data have {', '.join(channels)}: set "
                "data.neighbourhoods or data.coarse"
            )
        parts = [feature.make(*(fields[:, place[need]] for need in feature.needs)) for feature in self._features]
        return torch.nan_to_num(torch.stack(parts, dim=1))
