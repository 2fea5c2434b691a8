"""What a model knows of its data, and carries in its checkpoints: channels, grid and statistics."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from ai4sim.errors import InputError
from downscaling.corrdiff.readers.base import Channel
from downscaling.corrdiff.scaling import ChannelScaler


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of transformed channels, in their order."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Contract:
    """What data must have in common for a model of one to serve for another.

    Args:
        inputs: coarse channels, in order.
        outputs: fine channels, in order.
        static: static channels, in order.
        transforms: of inputs and then outputs, in order.
        factor: fine points along a coarse cell.
        shape: rows and columns of fine fields.
        spacing_km: distance of fine points; NaN if it is not known.
        lead_labels: lead times, h, in the order of their labels; empty without lead times.
        probabilities: outputs that are the probabilities of classes that exclude each other.
        input_moments: of the inputs.
        output_moments: of the outputs.
        static_moments: of the static channels.
    """

    inputs: tuple[Channel, ...]
    outputs: tuple[Channel, ...]
    static: tuple[Channel, ...]
    transforms: tuple[str, ...]
    factor: int
    shape: tuple[int, int]
    spacing_km: float
    lead_labels: tuple[int, ...]
    probabilities: tuple[str, ...]
    input_moments: Moments
    output_moments: Moments
    static_moments: Moments

    @property
    def n_conditions(self) -> int:
        """Number of channels that a network is given beside the fine ones."""
        return len(self.inputs) + len(self.static)

    def scaler(self, kind: str) -> ChannelScaler:
        """Of ``input``, ``output`` or ``static`` channels."""
        n = len(self.inputs)
        transforms = {
            "input": self.transforms[:n],
            "output": self.transforms[n:],
            "static": ("none",) * len(self.static),
        }[kind]
        moments: Moments = getattr(self, f"{kind}_moments")
        return ChannelScaler(transforms, moments.mean, moments.std)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`."""
        channels = {kind: tuple(Channel(**c) for c in values[kind]) for kind in ("inputs", "outputs", "static")}
        moments = {
            kind: Moments(tuple(values[kind]["mean"]), tuple(values[kind]["std"]))
            for kind in ("input_moments", "output_moments", "static_moments")
        }
        height, width = values["shape"]
        return cls(
            inputs=channels["inputs"],
            outputs=channels["outputs"],
            static=channels["static"],
            transforms=tuple(values["transforms"]),
            factor=values["factor"],
            shape=(height, width),
            spacing_km=values["spacing_km"],
            lead_labels=tuple(values["lead_labels"]),
            probabilities=tuple(values["probabilities"]),
            input_moments=moments["input_moments"],
            output_moments=moments["output_moments"],
            static_moments=moments["static_moments"],
        )

    def require_channels(self, inputs: Sequence[Channel], static: Sequence[Channel], factor: int) -> None:
        """Refuse inputs that a model was not trained on.

        Raises:
            InputError: names the first channel that differs.
        """
        for kind, own, found in (("input", self.inputs, inputs), ("static", self.static, static)):
            _require_same_names(kind, [c.name for c in own], [c.name for c in found], "the model", "the data")
        if factor != self.factor:
            raise InputError(f"the model's factor is {self.factor}, that of the data {factor}")

    def require_same(self, other: "Contract", own: str = "the checkpoint", others: str = "the data") -> None:
        """Refuse data of another kind.

        Raises:
            InputError: names the first difference.
        """
        self._require_same_channels(other, own, others)
        for difference in self.differences(other, own, others):
            raise InputError(difference)

    def differences(self, other: "Contract", own: str = "the checkpoint", others: str = "the data") -> Iterator[str]:
        """All differences of contracts with the same channels, in words; of statistics the first of each kind."""
        names = {kind: [channel.name for channel in getattr(self, kind)] for kind in ("inputs", "outputs", "static")}
        yield from _first_difference(
            "transform", [*names["inputs"], *names["outputs"]], self.transforms, other.transforms, own, others
        )
        for kind, held in zip(("input", "output", "static"), names.values(), strict=True):
            mine, theirs = (getattr(part, f"{kind}_moments") for part in (self, other))
            for moment in ("mean", "std"):
                values = getattr(mine, moment), getattr(theirs, moment)
                yield from _first_difference(f"{kind} {moment}", held, *values, own, others)
        for field in fields(self):
            values = getattr(self, field.name), getattr(other, field.name)
            same = values[0] == values[1] or all(isinstance(v, float) and math.isnan(v) for v in values)
            if not same and field.name not in ("inputs", "outputs", "static"):
                what = field.name.replace("_", " ")
                if field.name.endswith("moments") or field.name == "transforms":
                    continue  # told channel by channel
                yield f"{what}: {own} has {values[0]}, {others} {values[1]}"

    def _require_same_channels(self, other: "Contract", own: str, others: str) -> None:
        for kind in ("inputs", "outputs", "static"):
            mine, theirs = ([channel.name for channel in getattr(part, kind)] for part in (self, other))
            _require_same_names(kind.removesuffix("s"), mine, theirs, own, others)

    def standardises_as(self, other: "Contract") -> bool:
        """Whether standardised outputs mean the same."""
        own, theirs = ((part.transforms, part.output_moments) for part in (self, other))
        return own == theirs

    def on_grid_of(self, other: "Contract", own: str = "the checkpoint", others: str = "the data") -> "Contract":
        """The same for fields of the size of other ones, whose statistics and transforms are passed over.

        Raises:
            InputError: names the first difference that cannot be passed over.
        """
        holds = replace(self, shape=other.shape, spacing_km=other.spacing_km)
        moments = {name: getattr(self, name) for name in ("input_moments", "output_moments", "static_moments")}
        holds.require_same(replace(other, transforms=self.transforms, **moments), own, others)
        return holds


def _require_same_names(kind: str, own: Sequence[str], found: Sequence[str], whose: str, others: str) -> None:
    if list(own) == list(found):
        return
    place = next((i for i, (a, b) in enumerate(zip(own, found, strict=False)) if a != b), min(len(own), len(found)))
    names = [list(part)[place] if place < len(part) else "nothing" for part in (own, found)]
    raise InputError(
        f"{kind} channels differ at number {place + 1}: {whose} has {names[0]!r}, {others} {names[1]!r} "
        f"({', '.join(own)} against {', '.join(found)})"
    )


def _first_difference(
    what: str, names: Sequence[str], own: Sequence[object], found: Sequence[object], whose: str, others: str
) -> Iterator[str]:
    for name, mine, theirs in zip(names, own, found, strict=True):
        if mine != theirs:
            yield f"{what} of {name!r}: {whose} has {mine}, {others} {theirs}"
            return
