"""What a user would take instead of a network: fitted on training cases, one forecast in, probabilities out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from rich.progress import track

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf import config
from precip_postproc.resunet_qpf.climatology import Climatology, ClimatologyCounts
from precip_postproc.resunet_qpf.quantile_mapping import QuantileCounts, QuantileMapping, neighbourhood_fractions
from precip_postproc.resunet_qpf.smoothing import gaussian_smooth

Float = NDArray[np.float32]

VERSION: Final = 1  # of the fit: raised where the same cases would give other baselines
NAMES: Final = ("climatology", "raw", "smoothed_fixed", "smoothed", "quantile_mapped")
# Smoothing of the reference system: up to this lead, h, this standard deviation, points of 4 km.
FIXED_SIGMAS: Final = ((6, 6.7), (18, 13.3), (24, 20.0), (30, 33.3), (42, 40.0), (48, 53.3), (60, 66.7))
LAST_SIGMA: Final = 80.0
REFERENCE_SPACING: Final = 4.0  # km
# What is tried, in grid points
SIGMAS: Final = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 13.0, 16.0, 20.0, 25.0, 30.0, 40.0, 50.0, 65.0, 80.0)
WINDOWS: Final = (1.0, 3.0, 5.0, 9.0, 17.0, 25.0, 33.0, 49.0, 65.0, 97.0, 129.0)
# Observed events in the cases of tuning, points times cases, below which the threshold before is taken as a model.
MIN_EVENTS: Final = 200


class Case(NamedTuple):
    """One forecast and what was observed.

    Attributes:
        lead: h.
        time: valid time.
        forecast: (y, x) mm, finite.
        observed: (y, x) mm, NaN where it must not be used.
    """

    lead: int
    time: np.datetime64
    forecast: Float
    observed: Float


class Cases(Protocol):
    """Training cases that can be gone through again, and found by their number: a list, or stored ones."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Case]: ...

    def __getitem__(self, number: int, /) -> Case: ...


@dataclass(frozen=True)
class Tuned:
    """A number that has been chosen for each lead and threshold by the Brier score of training cases.

    Attributes:
        leads: increasing, h.
        tried: (choice,) increasing.
        brier: (lead, threshold, choice) Brier scores.
        events: (lead, threshold) observed events that they are based on, points times cases.
    """

    leads: tuple[int, ...]
    tried: NDArray[np.float64]
    brier: NDArray[np.float64]
    events: NDArray[np.int64]

    @property
    def best(self) -> NDArray[np.float64]:
        """(lead, threshold) what has the least score; with too few events, what the threshold before has."""
        best: NDArray[np.float64] = self.tried[self.brier.argmin(axis=-1)]
        for column in range(1, best.shape[1]):
            best[:, column] = np.where(self.events[:, column] < MIN_EVENTS, best[:, column - 1], best[:, column])
        return best

    def at(self, lead: int) -> NDArray[np.float64]:
        """(threshold,) for a lead, h; linear between leads."""
        return np.array([np.interp(lead, self.leads, column) for column in self.best.T])


@dataclass(frozen=True)
class Baselines:
    """All baselines of hourly precipitation.

    An event is an amount that is not below a threshold, but for the guard of :mod:`config`. Between the leads of the
    training, what depends on the lead is interpolated linearly, and windows are rounded to the next odd number.

    Attributes:
        thresholds: increasing, mm.
        leads: of the training, increasing, h.
        spacing: of the grid, km.
        climatology: by place, hour and season.
        smoothing: standard deviations of the Gaussians, grid points.
        mapping: of forecast to analysed amounts.
        neighbourhood: points per side of the windows around mapped forecasts.
    """

    thresholds: tuple[float, ...]
    leads: tuple[int, ...]
    spacing: float
    climatology: Climatology
    smoothing: Tuned
    mapping: QuantileMapping
    neighbourhood: Tuned

    def predict(self, forecast: Float, lead: int, time: np.datetime64) -> dict[str, Float]:
        """Probabilities of exceedance by the name of the baseline, in the order of NAMES.

        Smoothing and windows differ between thresholds, so that probabilities may cross: each one is then lowered to
        that of the threshold below, whose events include its own.

        Args:
            forecast: (y, x) mm, finite.
            lead: h.
            time: valid time.

        Returns:
            (threshold, y, x), float32, not increasing along thresholds.

        Raises:
            InputError: another grid than the training's, a value that is missing or infinite, or a lead that is
                outside the training's.
        """
        if not self.leads[0] <= lead <= self.leads[-1]:
            raise InputError(
                f"lead {lead} h: the baselines are fitted for {self.leads[0]} to {self.leads[-1]} h; fit them with"
                f" cases of that lead"
            )
        _check_forecast(forecast, lead, time, self.climatology.maps.shape[-2:])
        events = exceeds(forecast, self.thresholds)
        raw = events.astype(np.float32)
        fixed = fixed_sigma(lead) * REFERENCE_SPACING / self.spacing
        smoothed = [gaussian_smooth(own, [sigma])[0] for own, sigma in zip(raw, self.smoothing.at(lead), strict=True)]
        windows = (2 * (int(size) // 2) + 1 for size in self.neighbourhood.at(lead))
        mapped = zip(self.mapping.predict(forecast, lead), windows, strict=True)
        probabilities = {
            "climatology": self.climatology.predict(np.datetime64(time)),
            "raw": raw,
            "smoothed_fixed": gaussian_smooth(raw, [fixed])[0],
            "smoothed": np.stack(smoothed),
            "quantile_mapped": np.stack([neighbourhood_fractions(own, [window])[0] for own, window in mapped]),
        }
        return {name: np.minimum.accumulate(probabilities[name], axis=0) for name in NAMES}

    def remarks(self) -> list[str]:
        """What a reader of the scores should know: choices at the end of what was tried, and too few events."""
        remarks = []
        for name, tuned in (("smoothed: standard deviation", self.smoothing), ("window", self.neighbourhood)):
            for lead, best, events in zip(self.leads, tuned.best, tuned.events, strict=True):
                for threshold, own, n in zip(self.thresholds, best, events, strict=True):
                    where = f"{lead} h, {threshold:g} mm: {name} of {own:g} points"
                    if n < MIN_EVENTS:
                        remarks.append(f"{where}, as for the threshold before: only {n} events")
                    elif own == tuned.tried[-1]:
                        remarks.append(f"{where} is the largest that was tried")
        for lead, extrapolated in zip(self.leads, self.mapping.extrapolated, strict=True):
            few = [f"{t:g}" for t, short in zip(self.thresholds, extrapolated, strict=True) if short]
            if few:
                remarks.append(f"{lead} h: quantile mapping is extrapolated to {', '.join(few)} mm")
        return remarks

    def to_dataset(self) -> xr.Dataset:
        """All of it as labelled arrays, for a file."""
        by_lead, points = ("lead", "threshold"), {"long_name": "length in grid points", "units": "1"}
        return xr.Dataset(
            {
                "climatology": (("map", "y", "x"), self.climatology.maps, {"units": "1"}),
                "climatology_map": (("threshold", "season", "hour"), self.climatology.index),
                "climatology_sigma": ("threshold", self.climatology.sigmas, points),
                "climatology_grouping": ("threshold", np.array(self.climatology.groupings, dtype=str)),
                "smoothing_brier": ((*by_lead, "sigma"), self.smoothing.brier, {"units": "1"}),
                "mapping_equivalent": (by_lead, self.mapping.equivalents, {"units": "mm"}),
                "mapping_events": (by_lead, self.mapping.events),
                "window_brier": ((*by_lead, "window"), self.neighbourhood.brier, {"units": "1"}),
                "tuning_events": (by_lead, self.smoothing.events),
            },
            coords={
                "threshold": ("threshold", np.array(self.thresholds, np.float64), {"units": "mm"}),
                "lead": ("lead", np.array(self.leads), {"long_name": "forecast period in hours"}),
                "sigma": ("sigma", self.smoothing.tried, points),
                "window": ("window", self.neighbourhood.tried, points),
            },
            attrs={"title": "baselines of hourly precipitation", "spacing_km": self.spacing},
        )

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset) -> "Baselines":
        """What :meth:`to_dataset` gave, to the last bit.

        Raises:
            InputError: a variable or the grid spacing is missing.
        """

        def read(name: str) -> NDArray[Any]:
            if name not in dataset:
                found = ", ".join(map(str, dataset.variables))
                raise InputError(f"a file of baselines has the variable {name}, but here are {found}")
            return np.asarray(dataset[name].values)

        if "spacing_km" not in dataset.attrs:
            raise InputError("a file of baselines has the attribute spacing_km, which is missing")
        leads, events = tuple(int(lead) for lead in read("lead")), read("tuning_events")
        return cls(
            thresholds=tuple(float(threshold) for threshold in read("threshold")),
            leads=leads,
            spacing=float(dataset.attrs["spacing_km"]),
            climatology=Climatology(
                read("climatology"),
                read("climatology_map"),
                read("climatology_sigma"),
                tuple(str(name) for name in read("climatology_grouping")),
            ),
            smoothing=Tuned(leads, read("sigma"), read("smoothing_brier"), events),
            mapping=QuantileMapping(leads, read("mapping_equivalent"), read("mapping_events")),
            neighbourhood=Tuned(leads, read("window"), read("window_brier"), events),
        )


def fixed_sigma(lead: float) -> float:
    """Smoothing of the reference system for a lead, h: standard deviation in points of 4 km."""
    return next((sigma for last, sigma in FIXED_SIGMAS if lead <= last), LAST_SIGMA)


def exceeds(amounts: Float, thresholds: Sequence[float]) -> NDArray[np.bool_]:
    """Where amounts (y, x) are not below thresholds, mm, (threshold, y, x)."""
    levels = np.asarray(thresholds, np.float64) - config.GUARD
    events: NDArray[np.bool_] = amounts >= levels[:, None, None].astype(np.float32)
    return events


def fit_baselines(
    cases: Cases,
    thresholds: Sequence[float],
    leads: Sequence[int],
    *,
    spacing: float = REFERENCE_SPACING,
    max_tuning_cases: int = 120,
    progress: bool = False,
) -> Baselines:
    """Fit all baselines in two passes over the training cases, with memory for sums and one case.

    The first pass counts all cases; the second one tunes smoothing and windows with some of each lead, evenly
    distributed in time. 1500 cases of 128 x 160 points and six thresholds take some 7 s on one core. With 1308 x 1524
    points each case for tuning takes 5 s and the climatology some minutes: 30 cases of each lead have as many points as
    thousands of the smaller ones.

    Args:
        cases: those of a lead in order of time.
        thresholds: increasing, mm.
        leads: of the cases, increasing, h.
        spacing: of the grid, km, to which the smoothing of the reference system is scaled.
        max_tuning_cases: of each lead.
        progress: whether to show a progress bar.

    Raises:
        InputError: thresholds or leads do not increase; a case of another lead or grid, or whose forecast is not
            finite; or a lead without cases or without observations.
    """
    thresholds, leads = tuple(float(t) for t in thresholds), tuple(int(lead) for lead in leads)
    for name, values, unit in (("thresholds", thresholds, "mm"), ("leads", leads, "h")):
        if not values or values[0] <= 0 or any(np.diff(values) <= 0):
            raise InputError(f"{name} are {values} {unit}; expected increasing numbers above 0")
    climatology, quantiles = ClimatologyCounts(thresholds), QuantileCounts(thresholds, leads)
    numbers: dict[int, list[int]] = {lead: [] for lead in leads}
    shape: tuple[int, ...] | None = None
    for number, case in enumerate(_track(cases, "baselines: counting", len(cases), progress)):
        shape = shape or case.forecast.shape
        if case.lead not in numbers:
            raise InputError(f"a training case of {case.time} has lead {case.lead} h; expected one of {leads} h")
        _check_forecast(case.forecast, case.lead, case.time, shape)
        if case.observed.shape != shape:
            raise InputError(f"observation of {case.time}: {case.observed.shape} points; expected {shape}")
        numbers[case.lead].append(number)
        climatology.add(np.datetime64(case.time), case.observed)
        quantiles.add(case.lead, case.forecast, case.observed)
    missing = [lead for lead in leads if not numbers[lead]]
    if missing:
        raise InputError(f"there are no training cases of lead {missing[0]} h: the baselines cannot be fitted")
    mapping = quantiles.fit()
    chosen = sorted(number for own in numbers.values() for number in spread(own, max_tuning_cases))
    sums = _TuningSums.zeros(len(leads), len(thresholds))
    again = (cases[number] for number in chosen)
    for case in _track(again, "baselines: tuning", len(chosen), progress):
        sums.add(leads.index(case.lead), case, thresholds, mapping)
    unseen = [lead for lead, n in zip(leads, sums.n, strict=True) if n == 0]
    if unseen:
        raise InputError(f"lead {unseen[0]} h: there is no valid observation at any point of the cases for tuning")
    n = sums.n[:, None, None]
    return Baselines(
        thresholds=thresholds,
        leads=leads,
        spacing=spacing,
        climatology=climatology.fit(),
        smoothing=Tuned(leads, np.array(SIGMAS), sums.smoothing / n, sums.events),
        mapping=mapping,
        neighbourhood=Tuned(leads, np.array(WINDOWS), sums.windows / n, sums.events),
    )


@dataclass(frozen=True)
class _TuningSums:
    """Sums over points and cases: number of points (lead,), events, squared errors of smoothing and of windows."""

    n: NDArray[np.int64]
    events: NDArray[np.int64]
    smoothing: NDArray[np.float64]
    windows: NDArray[np.float64]

    @classmethod
    def zeros(cls, n_leads: int, n_thresholds: int) -> "_TuningSums":
        shape = n_leads, n_thresholds
        return cls(
            np.zeros(n_leads, np.int64),
            np.zeros(shape, np.int64),
            np.zeros((*shape, len(SIGMAS))),
            np.zeros((*shape, len(WINDOWS))),
        )

    def add(self, row: int, case: Case, thresholds: Sequence[float], mapping: QuantileMapping) -> None:
        """Try everything on one case, one threshold after the other: a large field of all would not fit."""
        valid = np.isfinite(case.observed)
        observed = exceeds(case.observed, thresholds)
        self.n[row] += np.count_nonzero(valid)
        self.events[row] += observed.sum(axis=(-2, -1))
        raw, mapped = exceeds(case.forecast, thresholds), mapping.predict(case.forecast, case.lead)
        windows = [int(window) for window in WINDOWS]
        for column, target in enumerate(observed):
            self.smoothing[row, column] += _errors(
                raw[column], target, valid, lambda events: gaussian_smooth(events.astype(np.float32), SIGMAS)
            )
            self.windows[row, column] += _errors(
                mapped[column], target, valid, lambda events: neighbourhood_fractions(events, windows)
            )


def _errors(
    events: NDArray[np.bool_],
    target: NDArray[np.bool_],
    valid: NDArray[np.bool_],
    spread: Callable[[NDArray[np.bool_]], Float],
) -> NDArray[np.float64] | float:
    """Sums of squared errors of the probabilities (choice, y, x) that are made of events (y, x)."""
    if not events.any():
        # spread as they may be, no events have no probability
        return float(np.count_nonzero(target))
    errors = spread(events)
    errors -= target
    errors *= valid
    flat = errors.reshape(len(errors), -1)
    return np.array([np.dot(own, own) for own in flat], np.float64)


def _check_forecast(forecast: Float, lead: int, time: np.datetime64, shape: tuple[int, ...]) -> None:
    if forecast.shape != shape:
        raise InputError(f"forecast for {time}, lead {lead} h: {forecast.shape} points; expected {shape}")
    if not np.isfinite(forecast).all():
        raise InputError(
            f"forecast for {time}, lead {lead} h: {np.count_nonzero(~np.isfinite(forecast))} missing or infinite"
            f" values; fill them, and set the observations there to NaN"
        )


def _track(cases: Iterable[Case], description: str, total: int, progress: bool) -> Iterable[Case]:
    return track(cases, description, total=total) if progress else cases


def spread(numbers: Sequence[int], most: int) -> list[int]:
    """At most so many of the numbers: one of each of equal parts, not always the same hour of the day.

    Args:
        numbers: to choose from.
        most: that are chosen.
    """
    if len(numbers) <= most:
        return list(numbers)
    # multiples of the golden section never fall into step with a cycle
    within = np.arange(most) * 0.6180339887498949 % 1
    places = ((np.arange(most) + within) * len(numbers) / most).astype(int)
    # parts of less than two may give the same number twice
    return [numbers[place] for place in dict.fromkeys(places.tolist())]
