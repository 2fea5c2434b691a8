"""What a checkpoint remembers of its training: what forecasts from it must have in common with it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ai4sim.errors import InputError

SAME_SPACING = 0.2
"""Relative difference of grid spacings up to which a network may be used on another grid."""


@dataclass(frozen=True)
class TrainedOn:
    """Edges, features, lead times and grid of a training.

    Args:
        edges: mm.
        features: how each is made, by name.
        leads: h, increasing.
        spacing_km: of the grid.
        grid: fingerprint of the grid.
        version: of the code.
        coarse: means of the coarse predictors over the training, by name.
    """

    edges: list[float]
    features: dict[str, str]
    leads: list[int]
    spacing_km: float
    grid: str
    version: str
    coarse: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainedOn":
        """The inverse of :meth:`to_dict`."""
        return cls(**values)

    def require_model(self, edges: Sequence[float], features: Mapping[str, str]) -> None:
        """Refuse a model with other edges or features than the checkpoint's.

        Raises:
            InputError: lists all differences.
        """
        _refuse(self._model_differences(edges, features))

    def _model_differences(self, edges: Sequence[float], features: Mapping[str, str]) -> list[str]:
        found = []
        if list(edges) != list(self.edges):
            found.append(f"edges {_listed(edges)} mm, the checkpoint's are {_listed(self.edges)} mm")
        if list(features) != list(self.features):
            found.append(f"features {', '.join(features)}; the checkpoint's are {', '.join(self.features)}")
        else:
            found += [
                f"feature {name} is made as {own}, the checkpoint's as {self.features[name]}"
                for name, own in features.items()
                if own != self.features[name]
            ]
        return found

    def require_same(self, other: "TrainedOn", *, same_leads: bool) -> None:
        """Refuse data that differ from those of the training.

        Args:
            other: what a training on the data at hand would remember.
            same_leads: whether lead times must be the same, as for a fit that goes on.

        Raises:
            InputError: lists all differences.
        """
        found = self._model_differences(other.edges, other.features)
        found += self._spacing_differences(other.spacing_km)
        if same_leads and other.leads != self.leads:
            found.append(f"lead times {_listed(other.leads)} h, the checkpoint's are {_listed(self.leads)} h")
        _refuse(found)

    def require_spacing(self, spacing_km: float) -> None:
        """Refuse a grid on which everything looks larger or smaller than in the training.

        Raises:
            InputError: its spacing differs by more than a fifth.
        """
        _refuse(self._spacing_differences(spacing_km))

    def _spacing_differences(self, spacing_km: float) -> list[str]:
        if abs(spacing_km / self.spacing_km - 1) <= SAME_SPACING:
            return []
        return [f"grid spacing {spacing_km:.3g} km, the checkpoint's is {self.spacing_km:.3g} km"]

    def require_within(self, leads: Sequence[int]) -> None:
        """Refuse lead times that no training knows what to do with.

        Raises:
            InputError: one is shorter or longer than all those of the training.
        """
        outside = [lead for lead in leads if not self.leads[0] <= lead <= self.leads[-1]]
        if outside:
            raise InputError(
                f"lead {outside[0]} h is outside the range {self.leads[0]} to {self.leads[-1]} h of the training "
                f"({_listed(self.leads)} h): train with it, or set model.allow_lead_extrapolation"
            )


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _refuse(differences: Sequence[str]) -> None:
    if differences:
        raise InputError("the checkpoint was trained on something else:\n" + "\n".join(f"  - {d}" for d in differences))
