"""From a run's forecasts to its scorecard and figures; knows nothing of torch."""

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from rich.progress import track
from rich.table import Table
from rich.text import Text

from ai4sim.atomic import atomic_path
from ai4sim.experiment import PREDICTIONS, run_name
from ai4sim.store import open_store, read_manifest
from ai4sim.verification import Scorecard, crps, error_statistics, merge, ssr
from ai4sim.verification import deterministic as scores
from ai4sim.verification.fields import merge_sums
from ai4sim.verification.spatial import contingency_statistics, csi, frequency_bias, fss, fss_statistics
from ai4sim.verification.spectral import lsd, power_spectrum, spectral_statistics
from weather_forecast.lam import config, plotters
from weather_forecast.lam.baselines import Baseline, Climatology, make_baselines, read_rows
from weather_forecast.lam.parameters import Parameter, spread_name
from weather_forecast.lam.periods import Period
from weather_forecast.lam.physics import ageostrophic_wind, balanced_levels, distances, out_of_bounds
from weather_forecast.lam.spread import spread_statistics

HEADLINE = ("mean_rmse_skill_persistence", "mean_rmse_skill_climatology")
SAMPLES = 8  # worked on at once
RAIN_THRESHOLDS = (0.1, 1.0, 5.0)  # kg m-2
RAIN_WINDOWS = (1, 3, 5, 9)  # cells
TRUTH = "truth"  # as a product: what its own scores are, where there are any
METRICS = {"rmse": scores.rmse, "mae": scores.mae, "bias": scores.bias}
DIMS = ("sample", "lead_time", "lat", "lon")


class TestForecasts:
    """The test windows of a run: truth, forecasts and baselines, some windows at a time.

    Args:
        predictions: the run's predictions, opened lazily.
    """

    __test__ = False  # pytest: no test class

    def __init__(self, predictions: xr.Dataset) -> None:
        self.predictions = predictions
        self.model = str(predictions.attrs["model"])
        self.store = open_store(predictions.attrs["store"])
        self.n_inputs = int(predictions.attrs["n_inputs"])
        self.rows = predictions["rows"].values
        settings = read_manifest(predictions.attrs["store"]).settings
        self.train = Period(*settings["train"])
        self.parameters = [name for name in self.store["state"].attrs["features"] if name in predictions]
        self.n_samples = predictions.sizes["sample"]
        self.units = dict(
            zip(self.store["state"].attrs["features"], self.store["state"].attrs["feature_units"], strict=True)
        )

    @cached_property
    def baselines(self) -> dict[str, Baseline]:
        """All baselines by name."""
        return make_baselines(self.store, self.train)

    @property
    def weights(self) -> xr.DataArray:
        """(lat, lon) what a point counts: 0 where the boundary's values are prescribed."""
        return (self.predictions["border"] < 1).astype(np.float64)

    @property
    def plane(self) -> dict[str, xr.DataArray]:
        """Distances along rows and columns, km, and Coriolis parameter of the interior's points."""
        names = ("latitude", "longitude", "x", "y", "coriolis")
        fields = {name: xr.DataArray(self.store[name].values, dims=DIMS[2:]).isel(self.interior) for name in names}
        x, y = distances(**fields)
        return {"x": x, "y": y, "coriolis": fields["coriolis"]}

    @property
    def interior(self) -> dict[str, slice]:
        """The rectangle in which nothing is prescribed at all."""
        free = self.predictions["border"].values == 0
        rows, columns = np.flatnonzero(free.any(axis=1)), np.flatnonzero(free.any(axis=0))
        return {"lat": slice(rows[0], rows[-1] + 1), "lon": slice(columns[0], columns[-1] + 1)}

    @property
    def spacing(self) -> float:
        """Distance of neighbouring points, km."""
        x, y = self.predictions["x"].values, self.predictions["y"].values
        return float((np.diff(x, axis=1).mean() + np.diff(y, axis=0).mean()) / 2)

    def label(self, values: NDArray[Any], name: str, samples: slice) -> xr.DataArray:
        """Fields (sample, lead_time, lat, lon) of a parameter with its coordinates and units."""
        coords = {key: self.predictions[key][samples] for key in ("block", "forecast_reference_time")}
        coords["lead_time"] = self.predictions["lead_time"]
        attrs = {"units": self.units[name], "long_name": Parameter.parse(name).title}
        return xr.DataArray(values, dims=DIMS, coords=coords, attrs=attrs)

    def parts(self) -> Iterator[slice]:
        """Samples to work on at once, all of them in order."""
        for start in range(0, self.n_samples, SAMPLES):
            yield slice(start, min(start + SAMPLES, self.n_samples))

    def fields(self, sample: int, name: str) -> tuple[xr.DataArray, xr.DataArray]:
        """Truth and forecast (lead_time, lat, lon) of one window, with what a map needs."""
        part = slice(sample, sample + 1)
        kept = ("latitude", "longitude", "geopotential", "border")
        coords = {key: self.predictions[key] for key in (*kept, "lead_time")}
        if "land_sea_mask" in self.store:
            coords["land_sea_mask"] = self.store["land_sea_mask"]
        attrs = {"units": self.units[name], "long_name": Parameter.parse(name).title}
        truth, forecast = (
            xr.DataArray(values[name][0], dims=DIMS[1:], coords=coords, attrs=attrs)
            for values in (self.truth(part), self.forecasts(part)[self.model])
        )
        return truth, forecast

    def truth(self, samples: slice) -> dict[str, NDArray[Any]]:
        """Fields (sample, lead, lat, lon) by parameter."""
        values = read_rows(self.store["state"], self.rows[samples, self.n_inputs :])
        return dict(zip(self.store["state"].attrs["features"], np.moveaxis(values, -1, 0), strict=True))

    def spread(self, name: str, samples: slice) -> NDArray[Any]:
        """Standard deviation (sample, lead, lat, lon) that the model gives of its forecast of a parameter."""
        values: NDArray[Any] = self.predictions[spread_name(name)][samples].values
        return values

    def forecasts(self, samples: slice) -> dict[str, dict[str, NDArray[Any]]]:
        """Fields (sample, lead, lat, lon) by product and parameter."""
        own = self.predictions.isel(sample=samples)
        found = {self.model: {name: own[name].values for name in self.parameters}}
        for name, baseline in self.baselines.items():
            values = np.moveaxis(baseline(self.rows[samples], self.n_inputs), -1, 0)
            found[name] = dict(zip(baseline.parameters, values, strict=True))
        return found


def magnitude_statistics(values: xr.DataArray, **arguments: Any) -> xr.Dataset:
    """Sums of which the mean magnitude (``mae``) and its root mean square (``rmse``) are functions."""
    nothing = xr.zeros_like(values).where(values.notnull()).assign_attrs(values.attrs)
    return error_statistics(values, nothing, **arguments)


class Sums:
    """Sums of all test windows that the scores are functions of, by product and parameter.

    Args:
        samples: the test windows.
    """

    def __init__(self, samples: TestForecasts) -> None:
        errors: dict[tuple[str, str], list[xr.Dataset]] = {}
        anomalies: dict[tuple[str, str], list[xr.Dataset]] = {}
        spectra: dict[tuple[str, str], list[xr.Dataset]] = {}
        events: dict[tuple[str, str], list[xr.Dataset]] = {}
        fractions: dict[tuple[str, str], list[xr.Dataset]] = {}
        weights, interior = samples.weights, samples.interior
        common: dict[str, Any] = {"reduce": ("sample", "lat", "lon"), "block": "block", "skipna": True}
        spreads: dict[str, list[xr.Dataset]] = {}
        imbalances: dict[tuple[str, str], list[xr.Dataset]] = {}
        violations: dict[tuple[str, str], list[xr.Dataset]] = {}
        squares: dict[str, NDArray[np.float64]] = {}
        climatology = samples.baselines["climatology"]
        assert isinstance(climatology, Climatology)
        for part in track(list(samples.parts()), "scores", transient=True):
            truth = samples.truth(part)
            normal = np.moveaxis(climatology(samples.rows[part], samples.n_inputs), -1, 0)
            normals = dict(zip(climatology.parameters, normal, strict=True))
            products = samples.forecasts(part)
            for product, fields in ((TRUTH, truth), *products.items()):
                for name, winds in balanced_levels(list(fields)).items():
                    inner = (samples.label(fields[own], own, part).isel(interior) for own in (*winds, name))
                    balance = magnitude_statistics(ageostrophic_wind(*inner, **samples.plane), **common)
                    imbalances.setdefault((product, name), []).append(balance)
            for product, fields in products.items():
                for name, values in fields.items():
                    key = (product, name)
                    target = samples.label(truth[name], name, part)
                    forecast = samples.label(values, name, part)
                    errors.setdefault(key, []).append(error_statistics(forecast, target, weights=weights, **common))
                    if product == samples.model:
                        error = np.nan_to_num(values.astype(np.float64) - truth[name])
                        squares[name] = squares.get(name, 0.0) + (error**2).sum(axis=0)
                        if spread_name(name) in samples.predictions:
                            own = samples.label(samples.spread(name, part), name, part)
                            sums = spread_statistics(forecast, own, target, weights=weights, **common)
                            spreads.setdefault(name, []).append(sums)
                    shown = {product: forecast, TRUTH: target} if product == samples.model else {product: forecast}
                    for owner, field in shown.items():
                        if (outside := out_of_bounds(field, name)) is not None:
                            counted = magnitude_statistics(outside, weights=weights, **common)
                            violations.setdefault((owner, name), []).append(counted)
                    if product != "climatology":
                        mean = samples.label(normals[name], name, part)
                        anomaly = error_statistics(forecast - mean, target - mean, weights=weights, **common)
                        anomalies.setdefault(key, []).append(anomaly)
                    if product in (samples.model, "host"):
                        inside = (forecast.isel(interior), target.isel(interior))
                        sums = spectral_statistics(
                            *inside, spacing=samples.spacing, reduce="sample", block="block", skipna=True
                        )
                        spectra.setdefault(key, []).append(sums)
                    if Parameter.parse(name).short in {"tp", "prec"} and product != "climatology":
                        inside = (forecast.isel(interior), target.isel(interior))
                        events.setdefault(key, []).append(
                            contingency_statistics(*inside, thresholds=RAIN_THRESHOLDS, **common)
                        )
                        fractions.setdefault(key, []).append(
                            fss_statistics(
                                *inside, thresholds=RAIN_THRESHOLDS, windows=RAIN_WINDOWS, border="partial",
                                reduce="sample", block="block", skipna=True,
                            )
                        )  # fmt: skip
        self.error_maps = {name: np.sqrt(total / samples.n_samples) for name, total in squares.items()}
        self.imbalances = {key: merge(*parts) for key, parts in imbalances.items()}
        self.violations = {key: merge(*parts) for key, parts in violations.items()}
        self.spreads = {name: merge_sums(*parts) for name, parts in spreads.items()}
        self.errors = {key: merge(*parts) for key, parts in errors.items()}
        self.anomalies = {key: merge(*parts) for key, parts in anomalies.items()}
        self.spectra = {key: merge_sums(*parts) for key, parts in spectra.items()}
        self.events = {key: merge_sums(*parts) for key, parts in events.items()}
        self.fractions = {key: merge_sums(*parts) for key, parts in fractions.items()}

    @property
    def products(self) -> list[str]:
        """The model, then the baselines."""
        return list(dict.fromkeys(product for product, _ in self.errors))

    def parameters(self, product: str) -> list[str]:
        """Parameters that a product has."""
        return [name for own, name in self.errors if own == product]


def mean_rmse_skill(model: dict[str, xr.Dataset], baseline: dict[str, xr.Dataset]) -> tuple[xr.Dataset, Any]:
    """Sums and metric of 1 - mean over parameters of RMSE/RMSE of a baseline, for the bootstrap.

    Args:
        model: sums by parameter.
        baseline: sums by parameter.
    """
    common = [name for name in model if name in baseline]
    sums = xr.Dataset(
        {
            f"{kind}_{quantity}": xr.concat(
                [part[name][quantity].reset_coords(drop=True) for name in common], "parameter", coords="minimal"
            )
            for kind, part in (("model", model), ("baseline", baseline))
            for quantity in ("squared_error", "weight")
        }
    )

    def metric(sums: xr.Dataset) -> xr.DataArray:
        own, other = ((sums[f"{kind}_squared_error"] / sums[f"{kind}_weight"]) ** 0.5 for kind in ("model", "baseline"))
        ratio: xr.DataArray = own / other
        return 1 - ratio.mean("parameter")

    return sums, metric


def make_scorecard(sums: Sums, *, model: str, experiment: str) -> Scorecard:
    """Scores of all products by parameter and lead time with intervals over days, and pooled ones.

    ``mean_rmse_skill_<baseline>`` of the variable ``all`` is 1 minus the mean over parameters of RMSE over that of the
    baseline. ``acc`` is the (centred) correlation of anomalies from the grid points' climatology by hour.

    Args:
        sums: of the test windows.
        model: name of the model.
        experiment: name and version of the run.
    """
    card = Scorecard(use_case=config.USE_CASE, experiment=experiment, roles={model: "model", TRUTH: "oracle"})
    baselines = [name for name in sums.products if name != model]
    products = sums.products
    first = next(iter(sums.errors.values()))

    for product in products:
        own = {name: sums.errors[product, name] for name in sums.parameters(product)}
        for baseline in baselines:
            if baseline == product:
                continue
            other = {name: sums.errors[baseline, name] for name in sums.parameters(baseline)}
            pair, metric = mean_rmse_skill(own, other)
            pair["n"] = first["n"]
            name = f"mean_rmse_skill_{baseline}"
            card.add_scores({product: pair.sum("lead_time")}, metrics={name: metric}, seed=0)
            card.add_scores({product: pair}, metrics={name: metric}, seed=0, along="lead_time")

    for name in track(sums.parameters(model), "intervals", transient=True):

        def products_of(kind: dict[tuple[str, str], xr.Dataset], name: str = name) -> dict[str, xr.Dataset]:
            return {product: part for (product, parameter), part in kind.items() if parameter == name}

        errors = products_of(sums.errors)
        card.add_scores(
            errors,
            metrics=METRICS,
            seed=0,
            skill_against=[baseline for baseline in baselines if baseline in errors],
            skill_metrics=("rmse",),
            along="lead_time",
            variable=name,
        )
        card.add_scores(
            products_of(sums.anomalies), metrics={"acc": scores.correlation}, seed=0, along="lead_time", variable=name
        )
        imbalances, outside = products_of(sums.imbalances), products_of(sums.violations)
        balance = {"geostrophic_residual": scores.rmse}
        card.add_scores(imbalances, metrics=balance, seed=0, along="lead_time", variable=name)
        card.add_scores(outside, metrics={"out_of_bounds_error": scores.mae}, seed=0, along="lead_time", variable=name)
        card.add_scores(products_of(sums.spectra), metrics={"lsd": lsd}, seed=0, along="lead_time", variable=name)
        if name in sums.spreads:
            both = {"crps": crps, "ssr": ssr}
            card.add_scores({model: sums.spreads[name]}, metrics=both, seed=0, along="lead_time", variable=name)
        for place, threshold in enumerate(RAIN_THRESHOLDS):
            events = {product: part.isel(threshold=place) for product, part in products_of(sums.events).items()}
            tables = {"csi": csi, "frequency_bias": frequency_bias}
            common: dict[str, Any] = {"along": "lead_time", "variable": name, "threshold": threshold}
            card.add_scores(events, metrics=tables, seed=0, **common)
            for width, window in enumerate(RAIN_WINDOWS):
                fractions = {
                    product: part.isel(threshold=place, window=width)
                    for product, part in products_of(sums.fractions).items()
                }
                card.add_scores(fractions, metrics={f"window_{window}_fss": fss}, seed=0, **common)
    return card


def lead_table(card: Scorecard, baseline: str = "persistence") -> Table:
    """Mean skill against a baseline by lead time: what a reader looks at first."""
    metric = f"mean_rmse_skill_{baseline}"
    rows = card.frame[(card.frame["metric"] == metric) & card.frame["lead_time"].notna()]
    leads = sorted(rows["lead_time"].unique())
    shown = [lead for lead in leads if lead in {3, 6, 12, 24, 36, 48}] or leads[:6]
    table = Table(title=f"1 - mean of RMSE / RMSE of {baseline}, by lead time", title_justify="left")
    table.add_column("model")
    for lead in shown:
        table.add_column(f"+{lead:g} h", justify="right")
    for model in dict.fromkeys(rows["model"]):
        cells = []
        for lead in shown:
            row = card.row(model, metric, lead_time=lead)
            text = Text(f"{row['value']:.3f}")
            text.append(f"\n[{row['lower']:.3f}, {row['upper']:.3f}]", style="dim")
            cells.append(text)
        table.add_row(model, *cells)
    return table


def evaluate(folder: Path) -> Scorecard:
    """Score a run's forecasts and every baseline on the same windows, and draw the figures.

    Beside the scorecard, ``scores.nc`` has the scores by (metric, product, parameter, lead_time), and ``scores.json``
    the model's as {metric: {parameter: [by lead time]}}.

    Args:
        folder: the run's folder, with its predictions.

    Returns:
        The scorecard, not yet saved.
    """
    with xr.open_zarr(folder / PREDICTIONS, consolidated=False, chunks=None) as predictions:
        samples = TestForecasts(predictions)
        sums = Sums(samples)
        card = make_scorecard(sums, model=samples.model, experiment=run_name(folder))
        write_scores(card, samples, folder)
        draw(card, sums, samples, folder / "figures")
    return card


def write_scores(card: Scorecard, samples: TestForecasts, folder: Path) -> None:
    """Write ``scores.nc``, with the initial times that were tested, and ``scores.json``."""
    frame, model = card.frame, samples.model
    by_lead = frame[frame["lead_time"].notna() & frame["threshold"].isna() & (frame["variable"] != "all")]
    keys = {"metric": "metric", "model": "product", "variable": "parameter", "lead_time": "lead_time"}
    indexed = by_lead.rename(columns=keys).set_index(list(keys.values()))[["value", "lower", "upper"]]
    dataset = indexed.to_xarray()
    dataset["lead_time"].attrs["units"] = "hours"
    dataset["initial_time"] = ("sample", samples.predictions["forecast_reference_time"].values)
    dataset["mean_rmse_skill"] = skills(card)
    dataset.attrs = {"model": model, "experiment": card.experiment}
    with atomic_path(folder / "scores.nc") as partial:
        dataset.to_netcdf(partial, engine="h5netcdf")
    values: dict[str, dict[str, list[float]]] = {}
    for (metric, name), part in by_lead[by_lead["model"] == model].groupby(["metric", "variable"], sort=False):
        values.setdefault(metric, {})[name] = part.sort_values("lead_time")["value"].tolist()
    with atomic_path(folder / "scores.json") as partial:
        partial.write_text(json.dumps(values, indent=1) + "\n")


def skills(card: Scorecard) -> xr.DataArray:
    """``mean_rmse_skill_<baseline>`` with its bounds: (product, baseline, lead_time, bound)."""
    prefix = "mean_rmse_skill_"
    rows = card.frame[card.frame["metric"].str.startswith(prefix) & card.frame["lead_time"].notna()]
    rows = rows.assign(baseline=rows["metric"].str.removeprefix(prefix)).rename(columns={"model": "product"})
    values = rows.set_index(["product", "baseline", "lead_time"])[["value", "lower", "upper"]].to_xarray()
    return values.to_dataarray("bound").transpose(..., "bound")


def draw(card: Scorecard, sums: Sums, samples: TestForecasts, folder: Path) -> None:
    """Draw every figure and the animation.

    Args:
        card: the scorecard.
        sums: what it was made from.
        samples: the test windows.
        folder: where the files go.
    """
    model, names = samples.model, samples.parameters
    some = shown_leads(samples.predictions["lead_time"].values)
    figures = {
        "skill_by_lead": plotters.plot_skill_by_lead(card, model, names),
        "rmse_by_lead": plotters.plot_scores_by_lead(card, "rmse", names, sums.products),
        "acc_by_lead": plotters.plot_scores_by_lead(
            card, "acc", names, [product for product in sums.products if product != "climatology"]
        ),
        "spectra": plotters.plot_spectra(
            spectra_of(sums, model, names), names, model=model,
            leads=[float(samples.predictions["lead_time"][lead]) for lead in some],
        ),
    }  # fmt: skip
    for name in shown_parameters(names):
        case = typical_case(samples)
        truth, forecast = samples.fields(case, name)
        begin = np.datetime_as_string(samples.predictions["forecast_reference_time"].values[case], "h").replace(
            "T", " "
        )
        title = f"{plotters.title_of(name)}, forecast of {begin} UTC"
        figures[f"maps_{name}"] = plotters.plot_maps(truth, forecast, model=model, leads=some[-3:], title=title)
        errors = truth.copy(data=sums.error_maps[name]).assign_attrs(long_name="RMSE")
        figures[f"errors_{name}"] = plotters.plot_error_maps(
            errors, leads=some, title=f"RMSE of {plotters.title_of(name)}, {model}"
        )
    plotters.save_all(figures, folder)
    name = shown_parameters(names)[0]
    truth, forecast = samples.fields(typical_case(samples), name)
    plotters.animate(truth, forecast, folder / f"forecast_{name}.gif", model=model, title=plotters.title_of(name))


def shown_leads(hours: NDArray[Any]) -> list[int]:
    """Indices of four lead times: those that a reader expects where they are there, else evenly spread ones."""
    expected = [int(np.flatnonzero(hours == hour)[0]) for hour in (6, 12, 24, 48) if hour in hours]
    if len(expected) == 4:
        return expected
    return sorted({0, len(hours) // 3, 2 * len(hours) // 3, len(hours) - 1})


def shown_parameters(names: list[str]) -> list[str]:
    """Those whose maps a reader looks at: temperature, rain and wind near the ground, geopotential above."""
    wanted = ("z", "t2m", "tp", "u10", "u")
    chosen = [next((name for name in names if Parameter.parse(name).short == short), None) for short in wanted]
    return [name for name in chosen if name is not None][:4] or names[:1]


def typical_case(samples: TestForecasts) -> int:
    """The sample in the middle of the test period: chosen without a look at its score."""
    return samples.n_samples // 2


def spectra_of(sums: Sums, model: str, names: list[str]) -> xr.Dataset:
    """Spectra of truth and model over all test windows: (parameter, lead_time, wavelength)."""
    parts = []
    for name in names:
        pooled = sums.spectra[model, name].sum("block", keep_attrs=True)
        parts.append(xr.Dataset({kind: power_spectrum(pooled, of=kind) for kind in ("prediction", "target")}))
    return xr.concat(parts, xr.DataArray(names, dims="parameter", name="parameter"))
