"""The product of a cycle: one CF NetCDF file with probabilities, quantiles and the raw forecast, and maps of it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ai4sim.datamodule import ExperimentData
from ai4sim.style import save
from precip_postproc.resunet_qpf import config
from precip_postproc.resunet_qpf.baselines import REFERENCE_SPACING, exceeds, fixed_sigma
from precip_postproc.resunet_qpf.plotters import product_figures
from precip_postproc.resunet_qpf.prepare import GRID, STEP, UNKNOWN, grid_of
from precip_postproc.resunet_qpf.products import Distribution
from precip_postproc.resunet_qpf.smoothing import smooth_known

PROBABILITY = {"dtype": "int16", "scale_factor": 1e-4, "_FillValue": -1, "zlib": True}
AMOUNT = {"dtype": "int16", "scale_factor": STEP, "_FillValue": UNKNOWN, "zlib": True}

Field = NDArray[np.float32]


def make_product(
    predictions: xr.Dataset,
    thresholds: Sequence[float] = config.THRESHOLDS,
    quantiles: Sequence[float] = config.QUANTILES,
) -> xr.Dataset:
    """Everything a user wants of a cycle, of what ``predict`` wrote.

    The probability of rain in any of several hours does not follow from those of the single hours: what falls in them
    depends on each other in a way that these forecasts say nothing of.

    Args:
        predictions: ``exceedance`` (sample, edge, y, x) and ``forecast`` (sample, y, x) of one initial time.
        thresholds: mm, among the edges.
        quantiles: levels, between 0 and 1.

    Returns:
        Fields over lead_time, y, x. These are ``probability`` and ``smoothed_probability`` of every threshold,
        ``raw_exceedance`` (0 or 1), ``precipitation_quantile``, ``precipitation_mean``, ``precipitation_forecast``.
    """
    edges = predictions["edge"].values
    places = [int(np.abs(edges - threshold).argmin()) for threshold in thresholds]
    layers: dict[str, Field] = {}
    n_leads = predictions.sizes["sample"]
    for sample in range(n_leads):
        one = predictions.isel(sample=sample)
        exceedance, forecast = one["exceedance"].values.astype(np.float32), one["forecast"].values.astype(np.float32)
        distribution = Distribution(exceedance, edges)
        raw = exceeds(forecast, thresholds).astype(np.float32)
        raw[:, np.isnan(forecast)] = np.nan
        sigma = (
            fixed_sigma(float(one["lead_time"]))
            * REFERENCE_SPACING
            / json.loads(predictions.attrs["grid"])["spacing_km"]
        )
        for name, values in (
            ("probability", exceedance[places]),
            ("smoothed_probability", smooth_known(raw, [sigma])[0]),
            ("raw_exceedance", raw),
            ("precipitation_quantile", np.stack([distribution.quantile(level) for level in quantiles])),
            ("precipitation_mean", distribution.mean()),
            ("precipitation_forecast", forecast),
        ):
            if name not in layers:
                layers[name] = np.empty((n_leads, *values.shape), np.float32)
            layers[name][sample] = values
    dims = {
        name: ("lead_time", *extra, *GRID)
        for names, extra in (
            (("probability", "smoothed_probability", "raw_exceedance"), ("threshold",)),
            (("precipitation_quantile",), ("quantile",)),
            (("precipitation_mean", "precipitation_forecast"), ()),
        )
        for name in names
    }
    product = xr.Dataset({name: (dims[name], values) for name, values in layers.items()})
    product = product.assign_coords(
        lead_time=(
            "lead_time",
            predictions["lead_time"].values,
            {"units": "hours", "standard_name": "forecast_period", "long_name": "lead time"},
        ),
        threshold=("threshold", list(thresholds), {"units": "mm", "long_name": "hourly precipitation"}),
        quantile=("quantile", list(quantiles), {"units": "1", "long_name": "level of the quantile"}),
        valid_time=("lead_time", predictions["valid_time"].values, {"standard_name": "time"}),
        forecast_reference_time=(
            (),
            predictions["forecast_reference_time"].values[0],
            {"standard_name": "forecast_reference_time"},
        ),
        latitude=predictions["latitude"].variable,
        longitude=predictions["longitude"].variable,
    )
    _describe(product, predictions.attrs)
    return product


def _describe(product: xr.Dataset, attrs: dict[str, Any]) -> None:
    amount = {"units": "mm", "cell_methods": "lead_time: sum (interval: 1 hour)"}
    event = "probability of hourly precipitation of the threshold or more"
    about: dict[str, dict[str, str]] = {
        "probability": {"units": "1", "long_name": event},
        "smoothed_probability": {"units": "1", "long_name": f"{event}, smoothed raw forecast"},
        "raw_exceedance": {"units": "1", "long_name": "raw forecast of the threshold or more"},
        "precipitation_quantile": {**amount, "long_name": "quantile of hourly precipitation"},
        "precipitation_mean": {**amount, "long_name": "mean of the distribution of hourly precipitation"},
        "precipitation_forecast": {**amount, "long_name": "hourly precipitation of the raw forecast"},
    }
    for name, attributes in about.items():
        product[name].attrs = attributes
        product[name].encoding = dict(PROBABILITY if attributes["units"] == "1" else AMOUNT)
    described = json.loads(attrs["grid"])
    grid = grid_of(described)
    if grid is not None:
        cone = grid.projection
        product["crs"] = xr.DataArray(
            np.int32(0),
            attrs={
                "grid_mapping_name": "lambert_conformal_conic",
                "standard_parallel": [float(parallel) for parallel in cone.parallels],
                "longitude_of_central_meridian": float(cone.longitude),
                "latitude_of_projection_origin": float(cone.latitude),
                "earth_radius": float(cone.radius),
            },
        )
        for name, values in (("x", grid.x), ("y", grid.y)):
            attributes = {"units": "m", "standard_name": f"projection_{name}_coordinate"}
            product[name] = (name, values, attributes)
        for name in about:
            product[name].attrs["grid_mapping"] = "crs"
    product.attrs = {
        "Conventions": "CF-1.11",
        "title": "probabilities of hourly precipitation",
        "source": f"{attrs['model']} of ai4sim {config.USE_CASE}",
        "calibrated": attrs["calibrated"],
        "grid_spacing_km": described["spacing_km"],
    }


def finish(predictions: xr.Dataset, output: Path, data: ExperimentData | None = None) -> xr.Dataset:
    """The product of what ``predict`` wrote, and its maps beside the output; the data are not needed."""
    product = make_product(predictions)
    for path, figure in product_figures(product, output.with_suffix("")):
        save(figure, path)
    return product
