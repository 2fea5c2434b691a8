"""The test days of a run: what was forecast by the model and by every baseline, and what was observed; by day."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ai4sim.atomic import atomic_path
from ai4sim.datasets import open_dataset
from ai4sim.errors import InputError
from ai4sim.patches import PatchReader
from ai4sim.store import open_store, read_manifest
from precip_postproc.resunet_qpf import config
from precip_postproc.resunet_qpf.baselines import VERSION, Baselines, Case, fit_baselines
from precip_postproc.resunet_qpf.calibration import Calibration
from precip_postproc.resunet_qpf.demo_files import ideal_path
from precip_postproc.resunet_qpf.prepare import SPLITS, unpack, unpack_observed
from precip_postproc.resunet_qpf.readers.files import HOUR

Float = NDArray[np.float32]
CALIBRATED = "_calibrated"
IDEAL = "ideal"
FINGERPRINT = "store_fingerprint"
LARGEST_PART = 2**22  # points of forecasts that are scored at once
SMALL_GRID = 2**16  # points up to which baselines are tuned on as many cases as they like


@dataclass(frozen=True, eq=False)
class Day:
    """All forecasts that began on a day.

    Args:
        label: number of the day since 1970, the block of the bootstrap.
        observed: (sample, lead_time, y, x) mm, NaN where it must not be used; samples are the initial times of a day,
            the same hours every day.
        probabilities: (sample, lead_time, threshold, y, x) by product, in the order of the scorecard.
        forecast: (sample, lead_time, y, x) raw forecast, mm.
        exceedance: (sample, lead_time, edge, y, x) of the model at all its edges.
        inits: (sample,) initial times.
    """

    label: int
    observed: xr.DataArray
    probabilities: dict[str, xr.DataArray]
    forecast: xr.DataArray
    exceedance: xr.DataArray
    inits: NDArray[np.datetime64]


class StoredCases:
    """Cases of the processed store, one after the other; can be gone through again and again.

    Args:
        store: the processed store.
        rows: of the store.
    """

    def __init__(self, store: str, rows: NDArray[np.int64]) -> None:
        self._readers = {name: PatchReader(store, name) for name in ("forecast", "observation", "quality")}
        self._rows = rows
        with open_store(store) as opened:
            self._lead = opened["lead"].values.astype(int)
            self._valid = opened["init"].values.astype("datetime64[s]") + self._lead * HOUR

    def __iter__(self) -> Iterator[Case]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Case:
        return self.case(int(self._rows[number]))

    def __len__(self) -> int:
        return len(self._rows)

    def case(self, row: int) -> Case:
        """One row of the store. Where the forecast is unknown it is 0, and nothing is observed."""
        raw = {}
        for name, reader in self._readers.items():
            out = np.empty((1, *reader.shape[1:]), reader.dtype)
            reader.read(np.array([row]), np.zeros((1, 2), np.int64), out)
            raw[name] = out[0]
        forecast = unpack(raw["forecast"])
        observed = unpack_observed(raw["observation"], raw["quality"], config.VERIFICATION_QUALITY)
        unknown = np.isnan(forecast)
        forecast[unknown], observed[unknown] = 0, np.nan
        return Case(int(self._lead[row]), self._valid[row], forecast, observed)


class TestSamples:
    """The test rows of a run.

    Args:
        predictions: the run's predictions, opened lazily.
        thresholds: mm, among the edges.

    Raises:
        InputError: the store is not the one that the predictions were made from.
    """

    __test__ = False  # pytest: no test class

    def __init__(self, predictions: xr.Dataset, thresholds: Sequence[float] = config.THRESHOLDS) -> None:
        self.predictions, self.thresholds = predictions, tuple(thresholds)
        self.model = str(predictions.attrs["model"])
        self.store = str(predictions.attrs["store"])
        if read_manifest(self.store).fingerprint != predictions.attrs["fingerprint"]:
            raise InputError(
                f"{self.store} was made anew since these predictions, with other cases or settings: test the "
                "checkpoint again"
            )
        self.grid: dict[str, Any] = json.loads(predictions.attrs["grid"])
        self.edges = predictions["edge"].values
        self._places = [int(np.abs(self.edges - threshold).argmin()) for threshold in thresholds]
        self.leads: list[int] = sorted(set(predictions["lead_time"].values.astype(int).tolist()))
        ideal = predictions.attrs.get("ideal")
        # predictions may have been moved to where the demo's files are not
        self._ideal = Path(ideal) if ideal and Path(ideal).is_dir() else None
        self.calibration: Calibration | None = None
        if "calibration_lead" in predictions.coords:
            self.calibration = Calibration(
                predictions["calibration_lead"].values.astype(int).tolist(),
                predictions["calibration_forecast"].values,
                predictions["calibration_observed"].values,
            )

    @property
    def has_ideal(self) -> bool:
        """Whether the ideal probability is known."""
        return self._ideal is not None

    @cached_property
    def _cases(self) -> StoredCases:
        return StoredCases(self.store, self.predictions["row"].values.astype(np.int64))

    @cached_property
    def baselines(self) -> Baselines:
        """All baselines, fitted on the training rows; kept beside the store."""
        identity = f"{VERSION} {read_manifest(self.store).fingerprint} {self.thresholds}"
        kept = Path(self.store).with_suffix(".baselines.nc")
        if kept.is_file():
            with xr.open_dataset(kept, engine="h5netcdf") as stored:
                known = stored.load()
            if known.attrs.get(FINGERPRINT) == identity:
                return Baselines.from_dataset(known)
        with open_store(self.store) as store:
            rows = np.flatnonzero((store["split"].values == SPLITS.index("train")) & (store["usable"].values > 0))
            leads = sorted(set(store["lead"].values[rows].tolist()))
        # each case that is tuned on takes seconds on a grid of millions of points
        points = int(np.prod(self.grid["shape"]))
        fitted = fit_baselines(
            StoredCases(self.store, rows),
            self.thresholds,
            leads,
            spacing=self.grid["spacing_km"],
            max_tuning_cases=int(np.clip(120 * SMALL_GRID / points, 30, 120)),
            progress=True,
        )
        with atomic_path(kept) as partial:
            fitted.to_dataset().assign_attrs({FINGERPRINT: identity}).to_netcdf(partial, engine="h5netcdf")
        return fitted

    @cached_property
    def _dates(self) -> NDArray[np.int64]:
        starts = self.predictions["forecast_reference_time"].values
        dates: NDArray[np.int64] = starts.astype("datetime64[D]").astype(np.int64)
        return dates

    @property
    def labels(self) -> list[int]:
        """Of all days, increasing."""
        labels: list[int] = np.unique(self._dates).tolist()
        return labels

    @cached_property
    def _lead_groups(self) -> list[list[int]]:
        """Lead times that are scored together: on large grids one after the other, so that memory is bounded."""
        points = len(self.hours) * int(np.prod(self.grid["shape"]))
        together = max(1, LARGEST_PART // points)
        return [self.leads[start : start + together] for start in range(0, len(self.leads), together)]

    @property
    def n_parts(self) -> int:
        """Number of parts."""
        return len(self.labels) * len(self._lead_groups)

    def parts(self) -> Iterator[Day]:
        """Day after day, each in parts of some lead times."""
        for label in self.labels:
            for leads in self._lead_groups:
                if self._samples(label, leads).size:
                    yield self.day(label, leads)

    def _samples(self, label: int, leads: Sequence[int]) -> NDArray[np.int64]:
        of_leads = np.isin(self.predictions["lead_time"].values, leads)
        samples: NDArray[np.int64] = np.flatnonzero((self._dates == label) & of_leads)
        return samples

    def day(self, label: int, leads: Sequence[int] | None = None) -> Day:
        """Forecasts that began on a day.

        Args:
            label: of the day.
            leads: lead times, h; by default all.
        """
        leads = self.leads if leads is None else list(leads)
        part = self.predictions.isel(sample=self._samples(label, leads))
        starts = part["forecast_reference_time"].values
        shape = (len(self.hours), len(leads))
        size = (part.sizes["y"], part.sizes["x"])
        observed = np.full((*shape, *size), np.nan, np.float32)
        forecast = np.zeros_like(observed)
        exceedance = np.zeros((*shape, len(self.edges), *size), np.float32)
        products: dict[str, Float] = {}
        for number in range(part.sizes["sample"]):
            one = part.isel(sample=number).load()
            case = self._cases.case(int(one["row"]))
            place = self.hours.index(_hour(starts[number])), leads.index(case.lead)
            observed[place], forecast[place] = case.observed, case.forecast
            exceedance[place] = one["exceedance"].values
            for name, values in self._products(case, exceedance[place], starts[number]).items():
                if name not in products:
                    products[name] = np.zeros((*shape, len(self.thresholds), *size), np.float32)
                products[name][place] = values

        def labelled(values: Float, *extra: str) -> xr.DataArray:
            array = xr.DataArray(values, dims=("sample", "lead_time", *extra, "y", "x"))
            array = array.assign_coords(lead_time=("lead_time", leads, {"units": "hours"}))
            if "threshold" in extra:
                return array.assign_coords(threshold=("threshold", list(self.thresholds)))
            return array if "edge" in extra else array.assign_attrs(units="mm")

        return Day(
            label,
            labelled(observed),
            {name: labelled(values, "threshold") for name, values in products.items()},
            labelled(forecast),
            labelled(exceedance, "edge").assign_coords(edge=("edge", self.edges)),
            np.datetime64(label, "D") + np.array(self.hours, "timedelta64[h]"),
        )

    @cached_property
    def hours(self) -> list[int]:
        """Hours of the day at which forecasts began, increasing."""
        return sorted({_hour(init) for init in self.predictions["forecast_reference_time"].values})

    @cached_property
    def height(self) -> xr.DataArray:
        """Of the terrain (y, x), m."""
        with open_store(self.store) as store:
            return xr.DataArray(store["terrain_height"].values, dims=("y", "x"))

    def _products(self, case: Case, exceedance: Float, init: np.datetime64) -> dict[str, Float]:
        """Exceedance (threshold, y, x) of every product for a case."""
        products = {self.model: exceedance[self._places]}
        if self.calibration is not None:
            products[self.model + CALIBRATED] = self.calibration.apply(exceedance, case.lead)[self._places]
        products |= self.baselines.predict(case.forecast, case.lead, case.time)
        if self._ideal is not None:
            products[IDEAL] = self._read_ideal(init, case.lead)
        return products

    def _read_ideal(self, init: np.datetime64, lead: int) -> Float:
        assert self._ideal is not None
        if self._known_ideal[0] != init:
            stored = open_dataset(ideal_path(self._ideal, init), "ideal probabilities")
            self._known_ideal = (init, stored["probability"].sel(threshold=list(self.thresholds)).load())
        found = self._known_ideal[1].sel(lead=lead)
        return found.transpose("threshold", "y", "x").values.astype(np.float32)

    _known_ideal: tuple[np.datetime64, xr.DataArray] = (np.datetime64("NaT"), xr.DataArray(0))


def _hour(time: np.datetime64) -> int:
    return int(time.astype("datetime64[h]").astype(int) % 24)
