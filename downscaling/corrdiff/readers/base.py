"""What all raw data sets come down to: pairs of coarse and fine fields, with what is known of both."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ai4sim.errors import InputError

Field = NDArray[np.float32]


@dataclass(frozen=True)
class Channel:
    """A variable, on one level if it has several.

    Args:
        name: unique among its kind: the variable's, with the level behind it where it has one, such as
            ``temperature850.0``.
        units: as the files say; empty where they do not.
        long_name: for humans; empty where the files have none.
    """

    name: str
    units: str = ""
    long_name: str = ""


@dataclass(frozen=True, eq=False)
class Pairs:
    """What a data set holds, without its fields.

    Args:
        inputs: coarse channels, in order.
        outputs: fine channels, in order; empty where there is no truth.
        static: channels that do not change with time, on the whole fine grid, in order.
        times: (n,) valid time of every pair, ``datetime64[s]``; not decreasing, and may repeat.
        input_shape: rows and columns of the coarse fields.
        output_shape: rows and columns of the fine fields, ``factor`` times those of the coarse ones.
        factor: fine points along one coarse cell; 1 where the coarse fields come on the fine grid.
        latitude: (Y, X) of the whole fine grid, degrees north.
        longitude: (Y, X) of the whole fine grid, degrees east.
        static_fields: (static, Y, X).
        corners: (n, 2) first row and column of every pair on the whole grid, where pairs are parts of it.
        leads: (n,) lead time, h, where pairs are forecasts.
        lead_labels: what a lead time of ``leads`` may be, in the order of its labels; empty without lead times.
        probabilities: names of outputs that are the probabilities of classes that exclude each other.
        spacing_km: distance of fine points.
        files: what the pairs are read from, for the manifest: files, of Zarr stores the description; or their URLs.
    """

    inputs: tuple[Channel, ...]
    outputs: tuple[Channel, ...]
    static: tuple[Channel, ...]
    times: NDArray[np.datetime64]
    input_shape: tuple[int, int]
    output_shape: tuple[int, int]
    factor: int
    latitude: Field
    longitude: Field
    static_fields: Field
    corners: NDArray[np.int64] | None = None
    leads: NDArray[np.int64] | None = None
    lead_labels: tuple[int, ...] = ()
    probabilities: tuple[str, ...] = ()
    spacing_km: float = float("nan")
    files: tuple[Path | str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.times)


class PairedSource(ABC):
    """A data set of pairs. Subclasses are chosen in the configuration, and open nothing before `pairs` is asked for."""

    @cached_property
    def pairs(self) -> Pairs:
        """What the data set holds.

        Raises:
            InputError: a file, group, variable or dimension is missing or not what it should be; it is named. Or
                there is no pair.
        """
        found = self._open()
        if not len(found):
            where = f" in {found.files[0]}" if found.files else ""
            raise InputError(f"{type(self).__name__}: there is no pair{where}")
        missing = missing_values(found.static_fields)
        if missing.any():
            first = int(missing.argmax())
            raise InputError(
                f"static {found.static[first].name!r} has {missing[first]} values that are missing or infinite"
            )
        return found

    def settings(self) -> dict[str, Any]:
        """What decides about the values beside the files, as plain values for the manifest."""
        return {}

    def below(self, folder: Path) -> Self:
        """The data set with relative paths taken from a folder."""
        return self

    @abstractmethod
    def _open(self) -> Pairs:
        """Find the files and read everything but the fields of the pairs."""

    @abstractmethod
    def read_inputs(self, rows: slice) -> Field:
        """Coarse fields (n, input, h, w) of pairs; NaN where a value is missing."""

    @abstractmethod
    def read_outputs(self, rows: slice) -> Field:
        """Fine fields (n, output, H, W) of pairs; NaN where a value is missing."""


def missing_values(fields: Field) -> NDArray[np.int64]:
    """Number of values that are missing or infinite, (...), of fields (..., y, x)."""
    return (~np.isfinite(fields)).sum(axis=(-2, -1))


def describe_missing(
    kind: str, channels: Sequence[Channel], missing: NDArray[np.int64], rows: NDArray[np.int64], pairs: Pairs
) -> str:
    """Where the first missing values are, for messages.

    Args:
        kind: of the fields.
        channels: of the fields.
        missing: (n, channel) see `missing_values`; some are above 0.
        rows: (n,) numbers of the pairs.
        pairs: all of them.
    """
    place, channel = (int(i[0]) for i in np.nonzero(missing))
    return (
        f"{kind} {channels[channel].name!r} of pair {rows[place]} ({pairs.times[rows[place]]}) has "
        f"{missing[place, channel]} values that are missing or infinite"
    )
