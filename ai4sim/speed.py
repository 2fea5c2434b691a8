"""How fast batches are read."""

import time
from collections.abc import Iterable
from typing import NamedTuple

from ai4sim.loading import Batch


class ReadingSpeed(NamedTuple):
    """What a loader gave, and how long it took.

    Attributes:
        batches: number of batches.
        samples: number of samples in them.
        bytes: of their tensors.
        seconds: wall time.
    """

    batches: int
    samples: int
    bytes: int
    seconds: float

    @property
    def samples_per_second(self) -> float:
        """Rate of samples."""
        return self.samples / self.seconds

    @property
    def bytes_per_second(self) -> float:
        """Rate of data, as they are in memory."""
        return self.bytes / self.seconds


def reading_speed(loader: Iterable[Batch], seconds: float) -> ReadingSpeed:
    """Read epoch after epoch, for a given time.

    Args:
        loader: its batches have the sample as first dimension of each tensor.
        seconds: wall time after which no further batch is asked for.

    Raises:
        ValueError: the loader is empty.
    """
    batches = samples = size = 0
    start = time.perf_counter()
    while True:
        before = batches
        for batch in loader:
            batches += 1
            samples += len(next(iter(batch.values())))
            size += sum(tensor.nbytes for tensor in batch.values())
            elapsed = time.perf_counter() - start
            if elapsed >= seconds:
                return ReadingSpeed(batches, samples, size, elapsed)
        if batches == before:
            raise ValueError("the loader gives no batch")
