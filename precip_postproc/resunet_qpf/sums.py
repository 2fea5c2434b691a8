"""Everything that scores and figures of probabilities are made of, summed over the test days one by one."""

from collections.abc import Sequence
from math import ceil
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ai4sim.verification import Interval, block_bootstrap
from ai4sim.verification.fields import merge_sums
from ai4sim.verification.probabilistic import pit_density, pit_statistics, probability_statistics
from ai4sim.verification.spatial import probability_fss_statistics
from precip_postproc.resunet_qpf import config
from precip_postproc.resunet_qpf.products import Distribution
from precip_postproc.resunet_qpf.samples import Day, TestSamples
from precip_postproc.resunet_qpf.smoothing import gaussian_smooth

WINDOWS: Final = (1, 3, 5, 9, 17, 33, 65)  # points
FSS_THRESHOLDS: Final = (0.25, 1.0, 5.0)  # mm

# where it is dry: the smoothed forecast is below this
DRY: Final = 0.01  # mm
DRY_SIGMA: Final = 24.0  # grid points
MOUNTAINS: Final = 800.0  # m, height from which on

Sets = dict[str, dict[str, xr.Dataset]]
"""Sums by test set and product."""


class Sums:
    """Sums of the model and of every baseline over test days.

    Args:
        samples: the test rows of a run.
    """

    def __init__(self, samples: TestSamples) -> None:
        self._samples = samples
        # by (dry or wet, lowland or mountains), then by product
        self._probability: dict[tuple[str, str], dict[str, list[xr.Dataset]]] = {}
        self._crps: dict[str, list[xr.Dataset]] = {}
        self._fss: dict[str, list[xr.Dataset]] = {}
        self._pit: list[xr.Dataset] = []
        self._maps: dict[str, NDArray[np.float64]] = {}
        self._rng = np.random.default_rng(0)
        self._rain: dict[int, float] = {}
        # days within which an hour may be forecast more than once are one block
        self._block_days = max(1, ceil(max(samples.leads) / 24))

    def add(self, day: Day) -> None:
        """Add a day."""
        self._rain[day.label] = self._rain.get(day.label, 0) + float(np.nansum(day.observed.values))
        self._add_probability(day)
        self._add_crps(day)
        self._add_fss(day)
        self._add_pit(day)
        self._add_maps(day)

    def _block(self, day: Day) -> int:
        """Label of the independent block that a day belongs to."""
        return day.label // self._block_days

    def _add_probability(self, day: Day) -> None:
        dry = day.observed.copy(data=gaussian_smooth(day.forecast.values, [DRY_SIGMA])[0] < DRY).astype(bool)
        high = self._samples.height >= MOUNTAINS
        for weather, own in (("dry", dry), ("wet", ~dry)):
            for place, here in (("lowland", ~high), ("mountains", high)):
                for name, probability in day.probabilities.items():
                    sums = probability_statistics(probability, day.observed, reduce=("y", "x"), mask=own & here)
                    parts = self._probability.setdefault((weather, place), {}).setdefault(name, [])
                    parts.append(sums.expand_dims(block=[self._block(day)]))

    def _add_crps(self, day: Day) -> None:
        observed = day.observed.values
        known = np.isfinite(observed)
        n = known.sum(axis=(0, 2, 3)).astype(float)
        for name, probability in day.probabilities.items():
            if name == "raw":
                score = np.abs(day.forecast.values - observed)
            else:
                exceedance = np.moveaxis(probability.values, 2, 0)
                score = Distribution(exceedance, self._samples.thresholds).crps(np.nan_to_num(observed))
            total = np.where(known, score, 0).sum(axis=(0, 2, 3))
            coords = {"lead_time": day.observed["lead_time"]}
            sums = xr.Dataset({"n": ("lead_time", n), "crps": ("lead_time", total)}, coords)
            self._crps.setdefault(name, []).append(sums.expand_dims(block=[self._block(day)]))

    def _add_fss(self, day: Day) -> None:
        thresholds = [threshold for threshold in FSS_THRESHOLDS if threshold in self._samples.thresholds]
        size = min(day.observed.sizes["y"], day.observed.sizes["x"])
        for name in (self._samples.model, "raw", "smoothed"):
            sums = probability_fss_statistics(
                day.probabilities[name].sel(threshold=thresholds),
                day.observed,
                windows=[window for window in WINDOWS if window <= size],
                border="partial",
                reduce="sample",
                mask=day.observed.notnull(),
            )
            self._fss.setdefault(name, []).append(sums.expand_dims(block=[self._block(day)]))

    def _add_pit(self, day: Day) -> None:
        exceedance = np.moveaxis(day.exceedance.values, 2, 0)
        known = np.isfinite(day.observed.values)
        pit = Distribution(exceedance, self._samples.edges).pit(np.nan_to_num(day.observed.values), self._rng)
        labelled = xr.DataArray(np.where(known, pit, np.nan), dims=day.observed.dims)
        sums = pit_statistics(labelled, reduce=("sample", "lead_time", "y", "x"))
        self._pit.append(sums.expand_dims(block=[self._block(day)]))

    def _add_maps(self, day: Day) -> None:
        observed = day.observed.values
        known = np.isfinite(observed)
        event = observed >= self._samples.thresholds[0] - config.GUARD
        maps = {"n": known.sum(axis=(0, 1))}
        for name in (self._samples.model, "smoothed"):
            error = np.square(day.probabilities[name].values[:, :, 0] - event)
            maps[name] = np.where(known, error, 0).sum(axis=(0, 1), dtype=np.float64)
        for name, values in maps.items():
            self._maps[name] = self._maps.get(name, 0) + values

    # -- results

    def probability(self) -> Sets:
        """Sums (block, lead_time, threshold, bin) by test set and product.

        The sets: all points (``test``), where the forecast is dry all around or not, lowland and mountains, and by hour
        of the initial time.
        """
        strata = {
            key: {name: merge_parts(parts) for name, parts in by_name.items()}
            for key, by_name in self._probability.items()
        }
        names = list(next(iter(strata.values())))

        def together(label: str | None) -> dict[str, xr.Dataset]:
            chosen = [by_name for key, by_name in strata.items() if label is None or label in key]
            return {name: merge_sums(*(by_name[name] for by_name in chosen)) for name in names}

        whole = together(None)
        sets = {"test": whole} | {f"test_{label}": together(label) for label in ("dry", "wet", "lowland", "mountains")}
        result = {
            split: {name: sums.sum("sample", keep_attrs=True) for name, sums in by_name.items()}
            for split, by_name in sets.items()
        }
        for place, hour in enumerate(self._samples.hours):
            result[f"test_{hour:02}utc"] = {name: sums.isel(sample=place, drop=True) for name, sums in whole.items()}
        return {split: by_name for split, by_name in result.items() if float(next(iter(by_name.values()))["n"].sum())}

    def crps(self) -> dict[str, xr.Dataset]:
        """Sums of the CRPS of every product (block, lead_time)."""
        return {name: merge_parts(parts) for name, parts in self._crps.items()}

    def fss(self) -> dict[str, xr.Dataset]:
        """Sums of the fractions skill score (block, lead_time, threshold, window)."""
        return {name: merge_parts(parts) for name, parts in self._fss.items()}

    def pit(self) -> dict[str, Interval]:
        """Density of the model's probability integral transform, with intervals."""
        return {self._samples.model: block_bootstrap(merge_sums(*self._pit), pit_density, seed=0)}

    def wettest(self, number: int = 2, apart: int = 5) -> list[int]:
        """Labels of the days with the largest analysed amounts, that many days apart from each other."""
        chosen: list[int] = []
        for label in sorted(self._rain, key=lambda label: -self._rain[label]):
            if len(chosen) < number and all(abs(label - other) > apart for other in chosen):
                chosen.append(label)
        return chosen

    def skill_map(self) -> xr.DataArray:
        """Brier skill (y, x) of the model at the first threshold against the smoothed forecast, over all lead times."""
        own, rival = self._maps[self._samples.model], self._maps["smoothed"]
        with np.errstate(invalid="ignore", divide="ignore"):
            skill = np.where((self._maps["n"] > 0) & (rival > 0), 1 - own / rival, np.nan)
        attrs = {"units": "1", "long_name": "Brier skill against the smoothed forecast"}
        return xr.DataArray(skill, dims=("y", "x"), attrs=attrs)


def merge_parts(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """Sums over days, of which a part may have some of the lead times.

    Args:
        parts: with the dimensions block and lead_time.
    """
    by_leads: dict[tuple[int, ...], list[xr.Dataset]] = {}
    for part in parts:
        by_leads.setdefault(tuple(part["lead_time"].values.tolist()), []).append(part)
    merged = [merge_sums(*by_leads[leads]) for leads in sorted(by_leads)]
    if len(merged) == 1:
        return merged[0]
    return xr.concat(merged, "lead_time", join="outer", fill_value=0, data_vars="minimal", combine_attrs="override")
