"""Forecasts of any model in NetCDF or Zarr: precipitation (time or init, lead, y, x)."""

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ai4sim.datasets import open_dataset
from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.readers.apcp import (
    CAP,
    ForecastField,
    OnInvalid,
    check_forecast,
    subtract_totals,
)
from precip_postproc.resunet_qpf.readers.files import require_valid_time, seconds, to_millimetres
from precip_postproc.resunet_qpf.readers.grid import Grid
from precip_postproc.resunet_qpf.readers.netcdf import Layout, find, find_layout, lead_hours, read_times

VARIABLES = ("precip", "precipitation", "apcp", "APCP", "tp", "total_precipitation", "pr")
INITS = ("init", "init_time", "forecast_reference_time", "reference_time", "time")
LEADS = ("lead", "lead_time", "step", "prediction_timedelta", "forecast_period")


class ForecastFile:
    """A file or store with the forecasts of many runs; picklable, fields are read one by one.

    Args:
        path: NetCDF file, or Zarr store (folder or URL).
        variable: name of the amount or rate; default: the first of the usual names. Its units must be mm, kg m-2, m, or
            mm/h for a rate.
        amounts: whether a value is the amount of the interval before its lead time, or the total since the run's start.
        interval: hours of an amount.
        cap: mm above which values are set to it, with a count; None for none.
        on_invalid: whether NaN, infinite and negative values are an error or become NaN.
    """

    def __init__(
        self,
        path: Path | str,
        variable: str | None = None,
        amounts: Literal["interval", "run_total"] = "interval",
        interval: int = 1,
        cap: float | None = CAP,
        on_invalid: OnInvalid = "error",
    ) -> None:
        if amounts not in ("interval", "run_total"):
            raise InputError(f"amounts must be 'interval' or 'run_total', not {amounts!r}")
        self.path, self.variable, self.amounts, self.interval = str(path), variable, amounts, interval
        self.cap, self.on_invalid = cap, on_invalid

    def __getstate__(self) -> dict[str, Any]:
        names = ("path", "variable", "amounts", "interval", "cap", "on_invalid")
        return {name: getattr(self, name) for name in names}

    @cached_property
    def _file(self) -> xr.Dataset:
        return open_dataset(self.path, "forecasts")

    @cached_property
    def _layout(self) -> Layout:
        return find_layout(self._file, self.path)

    @cached_property
    def _dims(self) -> tuple[str, str]:
        """Names of initial time and lead time."""
        init = find(self._file, INITS, "initial time", self.path)
        return init, find(self._file, LEADS, "lead time", self.path)

    @cached_property
    def _amount(self) -> xr.DataArray:
        names = VARIABLES if self.variable is None else (self.variable,)
        array = self._file[find(self._file, names, "precipitation", self.path)]
        for dim in self._dims:
            if dim not in array.dims and self._file[dim].ndim == 0:
                array = array.expand_dims(dim)
        expected = (*self._dims, *self._layout.dims)
        if set(array.dims) != set(expected):
            raise InputError(f"{self.path}: {array.name!r} has dimensions {array.dims}, expected {expected}")
        return array

    @cached_property
    def _factor(self) -> float:
        units = str(self._amount.attrs.get("units", ""))
        return to_millimetres(units, self.interval, f"{self.path}: {self._amount.name!r}")

    @property
    def grid(self) -> Grid:
        """Where the points are."""
        return self._layout.grid

    @cached_property
    def inits(self) -> NDArray[np.datetime64]:
        """(init,) initial times, to the second.

        Raises:
            InputError: one is there twice.
        """
        times = np.atleast_1d(read_times(self._file[self._dims[0]], self.path))
        _refuse_doubles(list(times), "initial time", self.path)
        return times

    @cached_property
    def leads(self) -> list[int]:
        """Hours.

        Raises:
            InputError: one is there twice; the interval that the file gives for one is not the expected one; a valid
                time is not initial time plus lead.
        """
        array = self._file[self._dims[1]]
        leads = lead_hours(array, self.path)
        _refuse_doubles(leads, "lead time", self.path)
        bounds = array.attrs.get("bounds", array.encoding.get("bounds"))
        if bounds in self._file.variables:
            limits = self._file[bounds]
            units = {"units": limits.attrs.get("units", array.attrs.get("units", ""))}
            pairs = np.reshape(lead_hours(limits.copy().assign_attrs(units).stack(all=limits.dims), self.path), (-1, 2))
            for lead, (start, end) in zip(leads, pairs, strict=True):
                expected = 0 if self.amounts == "run_total" else lead - self.interval
                if (start, end) != (expected, lead):
                    raise InputError(
                        f"{self.path}: the amount of lead {lead} h is of step {start}-{end} h by {bounds!r}, expected "
                        f"{expected}-{lead} h; set 'amounts' and 'interval' as the file has them"
                    )
        return leads

    @cached_property
    def _valid(self) -> NDArray[np.datetime64] | None:
        """Valid times (init, lead), where the file has them."""
        if "valid_time" not in self._file.variables:
            return None
        array = self._file["valid_time"]
        for dim in self._dims:
            if dim not in array.dims and self._file[dim].ndim == 0:
                array = array.expand_dims(dim)
        return read_times(array.transpose(*self._dims), self.path) if set(array.dims) == set(self._dims) else None

    def read(self, init: np.datetime64, lead: int) -> ForecastField:
        """Read the amount of the interval that ends at a lead time.

        Raises:
            InputError: the file has no such run or lead; valid time, units or values are wrong.
        """
        values, n_negative = self._millimetres(init, lead), 0
        if self.amounts == "run_total" and lead > self.interval:
            earlier = self._millimetres(init, lead - self.interval)
            label = f"{self.path}, run from {seconds(init)}, lead {lead} h"
            values, n_negative = subtract_totals(values, earlier, label)
        source = f"{self.path}, run from {seconds(init)}, lead {lead} h"
        values, n_capped, n_invalid = check_forecast(values, source, cap=self.cap, on_invalid=self.on_invalid)
        return ForecastField(
            seconds(init), lead, self.interval, values, self.grid, self.path, n_capped, n_invalid, n_negative
        )

    def _millimetres(self, init: np.datetime64, lead: int) -> NDArray[np.float32]:
        places = np.flatnonzero(self.inits == seconds(init))
        if not places.size:
            raise InputError(
                f"{self.path} has no run from {seconds(init)}; it has {len(self.inits)} from {self.inits.min()} to "
                f"{self.inits.max()}"
            )
        if lead not in self.leads:
            raise InputError(f"{self.path} has no lead {lead} h; it has {', '.join(map(str, self.leads))}")
        row, column = int(places[0]), self.leads.index(lead)
        if self._valid is not None:
            require_valid_time(init, lead, self._valid[row, column], self.path)
        factor = np.float32(self._factor)
        return self._layout.read(self._amount.isel({self._dims[0]: row, self._dims[1]: column})) * factor


def _refuse_doubles(values: list[Any], what: str, source: str) -> None:
    seen = set()
    for value in values:
        if value in seen:
            raise InputError(f"{source} has the {what} {value} twice")
        seen.add(value)
