"""From a run's predictions to its scorecard, scores by level and figures; knows nothing of torch."""

import json
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import xarray as xr
from rich.progress import track

from ai4sim.experiment import PREDICTIONS, run_name
from ai4sim.store import open_store, read_manifest
from ai4sim.verification import Scorecard, error_statistics, merge, pool
from ai4sim.verification import deterministic as scores
from ai4sim.verification.scorecard import Role
from weather_forecast.gwd import config, plotters
from weather_forecast.gwd.baselines import (
    Baseline,
    Scheme,
    Zero,
    fit_statistical,
    label_drag,
    tropical_mean_factor,
)
from weather_forecast.gwd.layout import ColumnLayout
from weather_forecast.gwd.levels import get_grid
from weather_forecast.gwd.spectrum import SchemeParameters

HEADLINE = ("r2", "mean_level_r2", "rmse", "bias")
BANDS = {"test_lat_0_20": (0, 20), "test_lat_20_60": (20, 60), "test_lat_60_90": (60, 91)}
RIVALS = ("ridge", "scheme_4x20")
ROWS = 8192

Metric = Callable[[xr.Dataset], xr.DataArray]


def mean_level_r2(statistics: xr.Dataset) -> xr.DataArray:
    """Mean of R2 by level over levels 1 to L-2, of statistics whose components are pooled.

    Levels weigh the same whatever their variance, which falls by four decades from top to launch level; the overall
    R2 is decided by the mesosphere alone.
    """
    return scores.r2(statistics).isel(level=slice(0, -2)).mean("level").assign_attrs(units="1")


# scores of all components and levels as one set of numbers, and of levels that weigh the same
OVERALL: dict[str, Metric] = {
    name: getattr(scores, name) for name in ("r2", "rmse", "mae", "bias", "correlation", "std_ratio")
}
LEVELWISE: dict[str, Metric] = {"mean_level_r2": mean_level_r2}
BY_LEVEL: dict[str, Metric] = {
    "rmse": scores.rmse,
    "bias": scores.bias,
    "r2": scores.r2,
    "correlation": scores.correlation,
    "std_ratio": scores.std_ratio,
}


def evaluate(folder: Path) -> Scorecard:
    """Score a run's predictions and every baseline on the same columns, and draw the figures.

    Scores are in m s-1 day-1. Beside the scorecard, ``profiles.nc`` has the scores of every model by level.

    Args:
        folder: the run's folder, with its predictions.

    Returns:
        The scorecard, not yet saved.
    """
    with xr.open_zarr(folder / PREDICTIONS, consolidated=False, chunks=None) as predictions:
        samples = TestSamples(predictions)
        statistics = samples.statistics()
        roles: dict[str, Role] = {samples.model: "model"}
        if predictions.attrs["truth_is_exact"]:
            roles["scheme_without_latitude"] = "oracle"
        scorecard = Scorecard(
            use_case=config.USE_CASE,
            experiment=run_name(folder),
            roles=roles,
        )
        for split, sums in statistics.items():
            rivals = RIVALS if split == "test" else ()
            by_level = {name: pool(part, dim="component") for name, part in sums.items()}
            pooled = {name: pool(part, dim="level") for name, part in by_level.items()}
            for parts, metrics, compared in ((pooled, OVERALL, "r2"), (by_level, LEVELWISE, "mean_level_r2")):
                scorecard.add_scores(
                    parts,
                    metrics=metrics,
                    seed=0,
                    split=split,
                    skill_against=rivals,
                    skill_metrics=(compared,) if rivals else (),
                )
        for name, value in samples.property_errors().items():
            scorecard.add(model=samples.model, metric=name, value=value, n=samples.n_rows)
        profiles = level_scores(statistics["test"], predictions["pressure"])
        profiles.to_netcdf(folder / "profiles.nc", engine="h5netcdf")
        plotters.plot_all(folder / "figures", scorecard, profiles, samples.excerpt())
    return scorecard


def level_scores(statistics: dict[str, xr.Dataset], pressure: xr.DataArray) -> xr.Dataset:
    """Scores by level of every model, the components pooled: dims (model, level), with the levels' pressure."""
    by_model = [
        xr.Dataset({name: metric(pool(sums, dim=["component", "block"])) for name, metric in BY_LEVEL.items()})
        for sums in statistics.values()
    ]
    models = xr.DataArray(list(statistics), dims="model", name="model")
    return xr.concat(by_model, models).assign_coords(pressure=pressure)


class TestSamples:
    """The test rows of a run: truth, predictions and baselines, a block of rows at a time.

    Args:
        predictions: the run's predictions, opened lazily.
    """

    __test__ = False  # pytest: no test class

    def __init__(self, predictions: xr.Dataset) -> None:
        self.predictions = predictions
        self.model = str(predictions.attrs["model"])
        self.store = open_store(predictions.attrs["store"])
        settings = read_manifest(predictions.attrs["store"]).settings
        self.layout = ColumnLayout(settings["n_levels"], tuple(settings["scalars"]))
        self.grid = get_grid(settings["grid"])
        self.train = slice(*settings["ranges"]["train"])
        self.n_rows = predictions.sizes["sample"]

    def _rows(self, start: int, stop: int) -> slice:
        rows = self.predictions["row"].values[start:stop]
        if rows[-1] - rows[0] != len(rows) - 1:
            raise ValueError("the test rows are not consecutive in the store")
        return slice(int(rows[0]), int(rows[-1]) + 1)

    def columns(self, start: int, stop: int) -> xr.DataArray:
        """Inputs (sample, feature) of a block of test rows, physical units."""
        return self.store["x"].isel(sample=self._rows(start, stop)).load()

    def truth(self, start: int, stop: int) -> xr.DataArray:
        """Target tendencies (sample, component, level) in m s-1 day-1."""
        return self._per_day(self.store["y"].isel(sample=self._rows(start, stop)).values)

    def prediction(self, start: int, stop: int) -> xr.DataArray:
        """The model's tendencies (sample, component, level) in m s-1 day-1."""
        part = self.predictions.isel(sample=slice(start, stop))
        return self._per_day(np.stack([part[name].values for name in config.TARGETS], axis=1))

    def property_errors(self) -> dict[str, float]:
        """How far the model breaks what holds exactly for the scheme.

        Returns:
            ``rotation_error``, ``galilean_error``: root mean square change of the drag under a rotation of the wind by
            90 degrees and under an added constant wind, over the root mean square drag; ``largest_momentum_residual``:
            largest ``|sum_k du_k dp_k / g|`` of any column and component over the launch flux of one azimuth.
        """
        squares = dict.fromkeys(("drag", "rotation_error", "galilean_error"), 0.0)
        residual = 0.0
        grid = self.grid.truncate(self.layout.n_levels)
        for start in range(0, self.n_rows, ROWS):
            rows = slice(start, min(start + ROWS, self.n_rows))
            part = self.predictions.isel(sample=rows)
            drag = np.stack([part[name].values for name in config.TARGETS], axis=1).astype(np.float64)
            squares["drag"] += float((drag**2).mean(axis=(1, 2)).sum())
            for name in ("rotation_error", "galilean_error"):
                squares[name] += float((part[name].values.astype(np.float64) ** 2).sum())
            surface = self.columns(rows.start, rows.stop).values[:, self.layout.slice_of("surface_pressure")][:, 0]
            mass = np.diff(grid.half_pressure(surface.astype(np.float64)), axis=1) / config.GRAVITY  # kg m-2
            momentum = np.abs((drag * mass[:, None]).sum(axis=2)).max()
            residual = max(residual, float(momentum) / SchemeParameters().launch_flux)
        errors = {name: (value / squares["drag"]) ** 0.5 for name, value in squares.items() if name != "drag"}
        return {**errors, "largest_momentum_residual": residual}

    def _per_day(self, values: np.ndarray) -> xr.DataArray:
        labelled = label_drag(values, self.layout) * config.SECONDS_PER_DAY
        return labelled.assign_attrs(long_name="gravity-wave drag", units="m s-1 day-1")

    @cached_property
    def baselines(self) -> dict[str, Baseline]:
        """All baselines by name, fitted on the training rows where they learn."""
        mean, ridge = fit_statistical(self._training_blocks(), self.layout)
        truth = SchemeParameters(**json.loads(self.predictions.attrs["truth"]))
        cheap = SchemeParameters(n_azimuths=4, n_speeds=20)
        return {
            "zero": Zero(self.layout),
            "mean_profile": mean,
            "ridge": ridge,
            "scheme_4x20": Scheme(self.layout, self.grid, cheap, tropical_mean_factor(cheap)),
            "scheme_without_latitude": Scheme(self.layout, self.grid, truth, tropical_mean_factor(truth)),
        }

    def _training_blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(self.train.start, self.train.stop, ROWS):
            rows = slice(start, min(start + ROWS, self.train.stop))
            yield self.store["x"].isel(sample=rows).values, self.store["y"].isel(sample=rows).values

    def statistics(self) -> dict[str, dict[str, xr.Dataset]]:
        """Sums of the model and of every baseline by test set; one pass over the rows, bounded memory."""
        parts: dict[str, dict[str, list[xr.Dataset]]] = {}
        for start in track(range(0, self.n_rows, ROWS), "scoring", transient=True):
            stop = min(start + ROWS, self.n_rows)
            truth, products = self.truth(start, stop), self.products(start, stop)
            labels = self.predictions["block"].isel(sample=slice(start, stop)).load()
            for split, mask in self._masks(start, stop).items():
                for name, values in products.items():
                    sums = error_statistics(
                        values[mask], truth[mask], reduce="sample", block=labels[mask].reset_coords(drop=True)
                    )
                    parts.setdefault(split, {}).setdefault(name, []).append(sums)
        return {split: {name: merge(*sums) for name, sums in models.items()} for split, models in parts.items()}

    def products(self, start: int, stop: int) -> dict[str, xr.DataArray]:
        """The model's and every baseline's tendencies (sample, component, level) in m s-1 day-1, by name."""
        columns = self.columns(start, stop)
        products = {self.model: self.prediction(start, stop)}
        for name, baseline in self.baselines.items():
            products[name] = self._per_day(baseline.predict(columns).values)
        return products

    def excerpt(self, n: int = 16_384, piece: int = 512) -> xr.Dataset:
        """Some test columns for figures: all where there are no more than n, else pieces spread over the set.

        Returns:
            ``truth`` (sample, component, level), ``drag`` (model, sample, component, level) in m s-1 day-1, with the
            levels' ``pressure`` and, where known, ``lat`` and ``doy``.
        """
        starts = range(0, self.n_rows, max(piece, self.n_rows * piece // n))
        parts = []
        for start in starts:
            stop = min(start + piece, self.n_rows)
            products = self.products(start, stop)
            drag = xr.concat(list(products.values()), xr.DataArray(list(products), dims="model", name="model"))
            auxiliaries = {
                name: self.predictions[name][start:stop] for name in config.AUXILIARIES if name in self.predictions
            }
            parts.append(xr.Dataset({"truth": self.truth(start, stop), "drag": drag}).assign_coords(auxiliaries))
        pressure = self.predictions["pressure"].load()
        return xr.concat(parts, "sample").drop_vars(["row", "block"], errors="ignore").assign_coords(pressure=pressure)

    def _masks(self, start: int, stop: int) -> dict[str, np.ndarray]:
        masks = {"test": np.ones(stop - start, bool)}
        if "lat" in self.predictions:
            latitude = np.abs(self.predictions["lat"].values[start:stop])
            for split, (low, high) in BANDS.items():
                mask = (latitude >= low) & (latitude < high)
                if mask.any():
                    masks[split] = mask
        return masks
