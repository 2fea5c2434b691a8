"""Where raw forecasts, analyses and coarse predictors come from; named by class in a configuration."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ai4sim.errors import InputError, MissingFileError
from precip_postproc.resunet_qpf import config
from precip_postproc.resunet_qpf.readers import (
    CoarsePredictors,
    ForecastField,
    ForecastFile,
    Grid,
    Remapper,
    TargetField,
    accumulate_rates,
    gfs_path,
    graf_path,
    hrrr_path,
    mrms_path,
    read_apcp,
    read_gfs,
    read_hour,
    read_mrms,
    read_mrms_grid,
    read_target,
    require_same_grid,
    target_path,
)
from precip_postproc.resunet_qpf.readers.files import HOUR, require_file, seconds
from precip_postproc.resunet_qpf.readers.mrms import QUALITY, RATE, SPACING, TARGET
from precip_postproc.resunet_qpf.readers.remap import MIN_VALID, Method
from precip_postproc.resunet_qpf.readers.target import BAD

OnInvalid = Literal["error", "mask"]


@dataclass(frozen=True)
class Source:
    """Base of all sources, which are data classes."""

    def settings(self) -> dict[str, Any]:
        """What decides about the values, for the manifest: not where the files are."""
        chosen = {each.name: getattr(self, each.name) for each in fields(self) if not each.name.startswith("_")}
        return {"kind": type(self).__name__, **{k: v for k, v in chosen.items() if not isinstance(v, Path)}}


class ForecastSource(Source, ABC):
    """Precipitation forecasts of one model by initial time and lead time."""

    @abstractmethod
    def files(self, init: np.datetime64, lead: int) -> list[Path]:
        """Files that a field is read from; they need not be there."""

    @abstractmethod
    def read(self, init: np.datetime64, lead: int) -> ForecastField:
        """The amount of the hour that ends at init + lead.

        Raises:
            MissingFileError: its file is not there.
            InputError: the file holds something else, or values that cannot be.
        """

    def missing(self, init: np.datetime64, lead: int) -> str:
        """What is missing of a field; empty where nothing is."""
        return next((str(path) for path in self.files(init, lead) if not path.exists()), "")


@dataclass(frozen=True)
class GribForecasts(ForecastSource):
    """GRIB2 files of GRAF, one message each, or of HRRR, chosen by the steps of their amounts.

    Args:
        folder: the archive.
        layout: names of folders and files: ``graf`` or ``hrrr``.
        run_totals: the files have only amounts since the start of the run: take differences of two lead times.
        cap: mm, larger amounts are set to it.
        forecast_nan: whether NaN, infinite and negative values are an error or are left out.
    """

    folder: Path
    layout: Literal["graf", "hrrr"] = "graf"
    run_totals: bool = False
    cap: float = config.CAP
    forecast_nan: OnInvalid = "error"

    def _path(self, init: np.datetime64, lead: int) -> Path:
        return (graf_path if self.layout == "graf" else hrrr_path)(self.folder, init, lead)

    def files(self, init: np.datetime64, lead: int) -> list[Path]:
        """The file of the lead time and, for differences of totals, that of the hour before."""
        return [self._path(init, hour) for hour in ([lead - 1, lead] if self.run_totals and lead > 1 else [lead])]

    def read(self, init: np.datetime64, lead: int) -> ForecastField:
        """The amount of the hour that ends at init + lead."""
        *previous, path = self.files(init, lead)
        return read_apcp(
            path,
            lead,
            init=init,
            previous=previous[0] if previous else None,
            cap=self.cap,
            on_invalid=self.forecast_nan,
        )


@dataclass(frozen=True)
class NetcdfForecasts(ForecastSource):
    """A NetCDF file or Zarr store with precipitation (init, lead, y, x) of any model.

    Args:
        path: the file or store.
        variable: name of the amount or rate; by default the first of the usual names.
        amounts: a value is the amount of the hour before its lead time, or the total since the run's start.
        cap: mm, larger amounts are set to it.
        forecast_nan: whether NaN, infinite and negative values are an error or are left out.
    """

    path: Path
    variable: str | None = None
    amounts: Literal["interval", "run_total"] = "interval"
    cap: float = config.CAP
    forecast_nan: OnInvalid = "error"

    @cached_property
    def _file(self) -> ForecastFile:
        return ForecastFile(self.path, self.variable, self.amounts, cap=self.cap, on_invalid=self.forecast_nan)

    def files(self, init: np.datetime64, lead: int) -> list[Path]:
        """The one file."""
        return [self.path]

    def missing(self, init: np.datetime64, lead: int) -> str:
        """What is missing of a field; empty where nothing is."""
        if absent := super().missing(init, lead):
            return absent
        there = seconds(init) in self._file.inits and lead in self._file.leads
        return "" if there else f"{self.path}: run from {seconds(init)}, lead {lead} h"

    def read(self, init: np.datetime64, lead: int) -> ForecastField:
        """The amount of the hour that ends at init + lead."""
        require_file_or_store(self.path)
        return self._file.read(init, lead)


def require_file_or_store(path: Path) -> None:
    """Refuse a path at which there is nothing.

    Raises:
        MissingFileError: names it.
    """
    if not path.exists():
        raise MissingFileError(f"{path} (forecasts) is not there; give a NetCDF file or a Zarr store")


class TargetSource(Source, ABC):
    """Hourly analyses of precipitation and their quality."""

    @abstractmethod
    def files(self, time: np.datetime64) -> list[Path]:
        """Files that the hour that ends at a time is read from; they need not be there."""

    @abstractmethod
    def read(self, time: np.datetime64, grid: Grid) -> TargetField:
        """The hour that ends at a time, on a grid.

        Raises:
            MissingFileError: a file is not there.
            InputError: it is of another hour, product or grid.
        """

    def missing(self, time: np.datetime64) -> str:
        """The first file that is not there; empty where all are."""
        return next((str(path) for path in self.files(time) if not path.exists()), "")


@dataclass(frozen=True)
class RemappedTargets(TargetSource):
    """NetCDF files of an hour each, on the forecast's grid.

    Args:
        folder: of all months.
    """

    folder: Path

    def files(self, time: np.datetime64) -> list[Path]:
        """The one file of an hour."""
        return [target_path(self.folder, time)]

    def read(self, time: np.datetime64, grid: Grid) -> TargetField:
        """The hour that ends at a time."""
        return read_target(self.files(time)[0], time, grid)


@dataclass(frozen=True)
class MrmsTargets(TargetSource):
    """MRMS files as in the public bucket, remapped to the forecast's grid.

    Args:
        folder: of a domain, such as ``CONUS``.
        product: hourly amount; ``PrecipRate`` adds up the 30 rates of an hour.
        method: area mean, or nearest neighbour.
        min_valid: share of a cell that must be valid.
        cache: folder for the remapping's index.
    """

    folder: Path
    product: str = TARGET
    method: Method = "mean"
    min_valid: float = MIN_VALID
    cache: Path | None = None
    _remappers: dict[str, Remapper] = field(default_factory=dict, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_remappers": {}}

    def _amounts(self, time: np.datetime64) -> list[Path]:
        if self.product != RATE:
            return [mrms_path(self.folder, self.product, time)]
        members = int(HOUR / SPACING)
        return [mrms_path(self.folder, RATE, seconds(time) - k * SPACING) for k in reversed(range(members))]

    def files(self, time: np.datetime64) -> list[Path]:
        """Files of the amount, or of all rates, and of the quality."""
        return [*self._amounts(time), mrms_path(self.folder, QUALITY, time)]

    def _remapper(self, path: Path, grid: Grid) -> Remapper:
        key = grid.fingerprint
        if key not in self._remappers:
            whole = read_mrms_grid(path)
            source = whole.crop(whole.window(grid))
            self._remappers[key] = Remapper(
                source, grid, method=self.method, min_valid=self.min_valid, cache=self.cache
            )
        return self._remappers[key]

    def read(self, time: np.datetime64, grid: Grid) -> TargetField:
        """The hour that ends at a time, remapped."""
        *amounts, quality = self.files(time)
        require_file(amounts[0], self.product)
        window = read_mrms_grid(amounts[0]).window(grid)
        if self.product == RATE:
            amount, index = accumulate_rates(amounts, time, window=window), read_mrms(quality, QUALITY, window)
            if index.time != amount.time:
                raise InputError(f"{quality} is the quality of {index.time}, expected {amount.time}")
        else:
            amount, index = read_hour(amounts[0], quality, window, self.product)
        if amount.time != seconds(time):
            raise InputError(f"{amounts[0]} is valid at {amount.time}, expected {seconds(time)}")
        remap = self._remapper(amounts[0], grid)
        require_same_grid(amount.grid, remap.source, (str(amounts[0]), "the first file"))
        values, trust = remap(amount.values), remap(index.values)
        trust[np.isnan(trust)] = BAD
        return TargetField(amount.time, values, trust, grid, str(amounts[0]), int(np.isnan(values).sum()))


@dataclass(frozen=True)
class GfsSource(Source):
    """Coarse predictors of a global model, one file a cycle.

    Args:
        folder: of all cycles.
        names: predictors: ``pwat``, ``r``, ``cape``, ``u``, ``v``, ``u10``, ``v10``.
        on_missing: what to do where a cycle has no file: leave its cases out, or take the training period's mean.
    """

    folder: Path
    names: list[str] = field(default_factory=lambda: ["pwat", "r", "cape", "u", "v"])
    on_missing: Literal["skip", "climatology"] = "skip"

    def path(self, init: np.datetime64) -> Path:
        """File of a cycle."""
        return gfs_path(self.folder, init)

    def read(self, init: np.datetime64) -> CoarsePredictors:
        """All predictors of a cycle."""
        return read_gfs(self.path(init), self.names, init)
