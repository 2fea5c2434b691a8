"""What the regression leaves: how far its points know of each other, and what a sampler makes of its scales."""

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.table import Table
from torch import Tensor

from ai4sim.errors import InputError
from ai4sim.experiment import read_checkpoint
from downscaling.corrdiff.contract import Contract
from downscaling.corrdiff.data import DownscalingData
from downscaling.corrdiff.diffusion import SamplerReport, autocorrelation, first_zero_crossing
from downscaling.corrdiff.models import ResidualDiffusionModule
from downscaling.corrdiff.module_base import DownscalingModule
from downscaling.corrdiff.regression_module import RegressionModule
from downscaling.corrdiff.survey import Surveyor

Residuals = Iterator[tuple[Tensor, Tensor]]


def load_weights(model: DownscalingModule, path: Path) -> None:
    """Give a model, whose settings may differ, what a checkpoint has.

    Raises:
        InputError: the checkpoint is of another model.
    """
    checkpoint = read_checkpoint(path)
    model.on_load_checkpoint(checkpoint)
    try:
        model.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        raise InputError(
            f"checkpoint {path} does not fit the {type(model).__name__} of the settings: {error}"
        ) from error
    model.eval()


def residuals_of(model: DownscalingModule, data: DownscalingData, most: int) -> Residuals:
    """Standardised residuals (B, outputs, H, W) of training pairs, and where they are known.

    Args:
        model: a trained regression or diffusion.
        data: set up.
        most: pairs, spread over all.

    Raises:
        InputError: the data are of another kind than those of the training.
    """
    model.agreed(model.known, data.contract)
    if isinstance(model, ResidualDiffusionModule):
        yield from model.residuals(data, most)
        return
    assert isinstance(model, RegressionModule)
    with torch.inference_mode():
        for batch in data.some_pairs("train", most):
            residual = model.built.conditioner.outputs(batch["output"]) - model.built(batch)
            yield residual, torch.isfinite(residual)


def correlations(residuals: Residuals) -> tuple[Tensor, Tensor]:
    """Autocorrelation (C, lags) of residuals along rows and along columns, a batch at a time.

    Raises:
        InputError: all residuals have gaps.
    """
    sums: list[Tensor | None] = [None, None]
    for residual, known in residuals:
        whole = residual[known.flatten(1).all(1)].double().cpu()
        if not len(whole):
            continue
        for place, dim in enumerate((-1, -2)):
            variance = (whole - whole.mean(dim, keepdim=True)).square().mean((0, 2, 3))
            covariance = autocorrelation(whole, dim).nan_to_num() * variance[:, None] * len(whole)
            so_far = sums[place]
            sums[place] = covariance if so_far is None else so_far + covariance
    along_x, along_y = sums
    if along_x is None or along_y is None:
        raise InputError("all training pairs that were read have missing values: nothing is known of their residuals")
    return along_x / along_x[:, :1], along_y / along_y[:, :1]


def crossing_table(along_x: Tensor, along_y: Tensor, known: Contract) -> Table:
    """Where the correlation of every channel first falls to 0."""
    table = Table(title="first zero of the residual's autocorrelation", title_justify="left")
    table.add_column("channel")
    for heading in ("along x, px", "km", "along y, px", "km"):
        table.add_column(heading, justify="right")
    for place, channel in enumerate(known.outputs):
        lags = [first_zero_crossing(own[place]) for own in (along_x, along_y)]
        cells = [text for lag in lags for text in (_number(lag), _number(lag * known.spacing_km))]
        table.add_row(channel.name, *cells)
    return table


def patch_size(along_x: Tensor, along_y: Tensor) -> str:
    """What a patch must hold, in words."""
    sizes = [max(first_zero_crossing(own) for own in both) for both in (along_y, along_x)]
    if any(math.isinf(size) for size in sizes):
        return "a channel is correlated over more than half of the domain: patches lose some of it at any size"
    rows, columns = (math.ceil(size) for size in sizes)
    return f"a patch must hold {rows} x {columns} points or more"


def spread_by_scale(model: ResidualDiffusionModule, data: DownscalingData, most: int) -> SamplerReport:
    """What the model's sampler makes of the residual.

    Args:
        model: a trained one.
        data: gives training pairs where the checkpoint does not know the residual's scales.
        most: of them.

    Raises:
        InputError: all residuals have gaps.
    """
    survey = model.survey
    if survey is None:
        data.prepare_data()
        data.setup("fit")
        surveyor = Surveyor(model.known.spacing_km)
        for _ in surveyor.watch(residuals_of(model, data, most)):
            pass
        assert model.scale is not None
        survey = surveyor.result(model.scale.factor)
    if survey is None:
        raise InputError("all training pairs that were read have missing values: nothing is known of their residuals")
    return survey.report(model.sampler, [channel.name for channel in model.known.outputs])


def _number(value: float) -> str:
    return "–" if math.isnan(value) else "beyond" if math.isinf(value) else f"{value:.1f}"
