"""The LightningDataModule that all use cases share: what it knows of processes, and how it describes itself."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningDataModule
from rich.table import Table

from ai4sim.normalization import FeatureStatistics

COLUMNS = ("mean", "std", "min", "max")


class ExperimentData(LightningDataModule, ABC):
    """Base of all data modules: raw files to a processed store to batches."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What the provenance records of the data; plain values."""

    @abstractmethod
    def summary(self) -> Table:
        """A table of all variables and their statistics, once the data are prepared and set up."""

    @property
    def processes(self) -> tuple[int, int]:
        """Number of this process, and number of processes."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


def statistics_table(title: str, statistics: Sequence[tuple[Sequence[str], Sequence[str], FeatureStatistics]]) -> Table:
    """Names, units and moments of features.

    Args:
        title: of the table.
        statistics: names, units and moments, set after set.
    """
    table = Table(title=title)
    for heading in ("variable", "units"):
        table.add_column(heading)
    for heading in COLUMNS:
        table.add_column(heading, justify="right")
    for names, units, moments in statistics:
        columns = (moments.mean, moments.std, moments.minimum, moments.maximum)
        for name, unit, *values in zip(names, units, *columns, strict=True):
            table.add_row(name, unit, *(f"{value:.4g}" for value in values))
    return table
