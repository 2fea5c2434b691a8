"""Pairs in memory, for tests of what is made of pairs."""

from typing import Any

import numpy as np

from downscaling.corrdiff.readers import Channel, PairedSource, Pairs

START = np.datetime64("2021-06-01T00", "s")
HOUR = np.timedelta64(1, "h")
FACTOR = 2
CELLS = (3, 4)
POINTS = (6, 8)
GRID = (10, 14)


def make_pairs(n: int = 24, *, per_time: int = 1, **changes: Any) -> Pairs:
    """Pairs of 3 x 4 cells and 6 x 8 points, an hour apart, each the whole grid.

    Args:
        n: their number.
        per_time: pairs of one time; several are parts of a grid of 10 x 14 points.
        changes: fields of `Pairs` to replace.
    """
    numbers = np.arange(n)
    crops = per_time > 1
    shape = GRID if crops else POINTS
    rows, columns = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    settings: dict[str, Any] = {
        "inputs": (Channel("t850", "K"), Channel("wind", "m s-1")),
        "outputs": (Channel("2t", "K", "temperature"), Channel("tp", "mm h-1")),
        "static": (Channel("elev", "m"),),
        "times": START + HOUR * (numbers // per_time),
        "input_shape": CELLS,
        "output_shape": POINTS,
        "factor": FACTOR,
        "latitude": (40 + 0.1 * rows).astype(np.float32),
        "longitude": (-100 + 0.1 * columns).astype(np.float32),
        "static_fields": (100 * rows + columns).astype(np.float32)[None],
        "corners": np.stack([numbers % 5, (2 * numbers) % 7], axis=1) if crops else None,
        "spacing_km": 3.0,
    }
    return Pairs(**(settings | changes))


class MemorySource(PairedSource):
    """Random fields for some pairs; amounts of ``tp`` are from 0 on.

    Args:
        found: the pairs.
        seed: of the values.
        note: a setting that decides about nothing.
    """

    def __init__(self, found: Pairs | None = None, seed: int = 0, note: str = "") -> None:
        self.found = make_pairs() if found is None else found
        self.note = note
        self.reads: list[slice] = []
        random = np.random.default_rng(seed)
        n = len(self.found)
        self.inputs = random.normal(5, 2, (n, len(self.found.inputs), *self.found.input_shape)).astype(np.float32)
        self.outputs = random.normal(280, 3, (n, len(self.found.outputs), *self.found.output_shape)).astype(np.float32)
        for place, channel in enumerate(self.found.outputs):
            if channel.name == "tp":
                self.outputs[:, place] = random.gamma(0.5, 2.0, (n, *self.found.output_shape))

    def settings(self) -> dict[str, Any]:
        """See `PairedSource.settings`."""
        return {"kind": "memory", "note": self.note}

    def _open(self) -> Pairs:
        return self.found

    def read_inputs(self, rows: slice) -> np.ndarray:
        """See `PairedSource.read_inputs`."""
        self.reads.append(rows)
        return self.inputs[rows]

    def read_outputs(self, rows: slice) -> np.ndarray:
        """See `PairedSource.read_outputs`."""
        return self.outputs[rows]
