"""Raw to processed: pairs of fields with their splits and statistics, in one Zarr store."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from ai4sim.errors import InputError
from ai4sim.manifest import Manifest
from ai4sim.normalization import FeatureStatistics, RunningStatistics
from ai4sim.schema import Schema, Variable
from ai4sim.store import Region, build_store, make_template
from downscaling.corrdiff.readers.base import Channel, PairedSource, Pairs, describe_missing, missing_values
from downscaling.corrdiff.readers.files import runs
from downscaling.corrdiff.scaling import DRY, transform, transforms_of
from downscaling.corrdiff.splits import SPLITS, Marks

logger = logging.getLogger(__name__)

OnMissing = Literal["error", "skip", "mask"]
Field = NDArray[np.float32]

CHUNK_BYTES = 2_000_000
CHUNKS_PER_REGION = 16
USABLE, LACKS_TRUTH, UNUSABLE = 2, 1, 0  # whether nothing is missing, something of the truth, or something of the input

SCHEMA = Schema(
    "corrdiff",
    1,
    (
        # the units of the channels are in the manifest
        Variable("input", ("sample", "input_channel", "input_y", "input_x"), ""),
        Variable("output", ("sample", "output_channel", "y", "x"), ""),
        Variable(
            "complete", ("sample",), "", "int8", long_name="2: nothing is missing, 1: some of the output, 0: input"
        ),
    ),
)


def build(
    store: Path,
    source: PairedSource,
    marks: Marks,
    *,
    transforms: Mapping[str, str],
    on_missing: OnMissing,
    scheduler: str | None = None,
) -> Manifest:
    """Make the processed store, or find that it is there already.

    Args:
        store: where.
        source: the raw data.
        marks: (n,) split of every pair, see :mod:`~downscaling.corrdiff.splits`.
        transforms: of channels, by name; statistics are of what they give.
        on_missing: what to do about missing values, ``error``, ``skip`` such pairs, or ``mask`` those of outputs.
        scheduler: address of a Dask scheduler.

    Returns:
        Its manifest, with the moments of all channels over the training pairs.

    Raises:
        InputError: there are no outputs, values are missing, an unknown transform, or see
            :func:`ai4sim.store.build_store`.
    """
    pairs = source.pairs
    if not pairs.outputs:
        raise InputError("the data set has no outputs: there is nothing to learn from")
    rows = np.flatnonzero(marks >= 0)  # pairs in no split are not read
    names = [channel.name for channel in (*pairs.inputs, *pairs.outputs)]
    transforms_of(names, transforms)
    template, n_rows = _template(pairs, rows, marks)
    step = n_rows * CHUNKS_PER_REGION
    regions = [
        Region(
            f"pairs {start} to {min(start + step, len(rows)) - 1}",
            {"sample": slice(start, min(start + step, len(rows)))},
            partial(_load, source, rows[start : start + step], on_missing),
        )
        for start in range(0, len(rows), step)
    ]
    return build_store(
        store,
        template=template,
        regions=regions,
        sources=pairs.files,
        schema=SCHEMA,
        settings=_settings(pairs, marks, transforms, on_missing) | {"source": source.settings()},
        statistics=partial(
            statistics,
            inputs=_names(pairs.inputs),
            outputs=_names(pairs.outputs),
            transforms=dict(transforms),
            masked=on_missing == "mask",
        ),
        scheduler=scheduler,
    )


def statistics(
    dataset: xr.Dataset,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    transforms: Mapping[str, str],
    masked: bool = False,
) -> dict[str, Any]:
    """Moments of the transformed channels over the pairs that are learnt from, in one pass.

    Args:
        dataset: the processed store.
        inputs: names of its input channels.
        outputs: names of its output channels.
        transforms: of channels, by name.
        masked: whether pairs that lack some of the output are learnt from, too: the values that they have count.

    Raises:
        InputError: no training pair is complete; if masked, an output that is missing in all of them; amounts in
            units that the transform ``sqrt_dry`` is not for.
    """
    least = LACKS_TRUTH if masked else USABLE
    trained = (dataset["split"].values == SPLITS.index("train")) & (dataset["complete"].values >= least)
    found: dict[str, Any] = {}
    for kind, names in (("input", inputs), ("output", outputs)):
        chosen = transforms_of(names, {name: value for name, value in transforms.items() if name in names})
        running = RunningStatistics(len(names))
        step = dataset[kind].encoding["chunks"][0]
        for start in range(0, len(trained), step):
            if not (own := trained[start : start + step]).any():
                continue
            fields = torch.from_numpy(dataset[kind][start : start + step].values[own]).double()
            values = [transform(fields[:, place], name) for place, name in enumerate(chosen)]
            running.update(torch.stack(values, dim=-1).numpy(), skipna=masked)
        if not trained.any():
            raise InputError("no training pair is complete: all have missing values")
        if unknown := [repr(name) for name, n in zip(names, running.counts, strict=True) if not n]:
            raise InputError(
                f"{kind} {', '.join(unknown)}: all values are missing in all training pairs; leave such a channel out"
            )
        _require_amounts(kind, names, chosen, running.maximum)
        found[kind] = running.result().to_dict()
    static = dataset["static"].values
    if len(static):
        rows = static.reshape(len(static), -1).T
        found["static"] = RunningStatistics(len(static)).update(rows).result().to_dict()
    return found


def _require_amounts(kind: str, names: Sequence[str], chosen: Sequence[str], largest: NDArray[np.float64]) -> None:
    """Refuse amounts in units in which all rain lies next to 0, and dry places far from it."""
    for name, transformed, root in zip(names, chosen, largest, strict=True):
        if transformed == "sqrt_dry" and 0 < root < DRY:
            raise InputError(
                f"{kind} {name!r}: the largest amount of the training is {root**2:.2g}, too little for the transform "
                f"'sqrt_dry', which puts dry places at -{DRY}: it is for units such as mm or mm h-1. Take 'sqrt', or "
                "other units"
            )


def moments(manifest: Manifest, kind: str) -> FeatureStatistics:
    """Moments of a kind of channels: ``input``, ``output`` or ``static``."""
    return FeatureStatistics.from_dict(manifest.statistics[kind])


def _template(pairs: Pairs, rows: NDArray[np.int64], marks: Marks) -> tuple[xr.Dataset, int]:
    """The empty store, and its rows per chunk."""
    height, width = pairs.output_shape
    n_rows = int(np.clip(CHUNK_BYTES // (4 * len(pairs.outputs) * height * width), 1, 64))
    sizes = {
        "sample": len(rows),
        "input_channel": len(pairs.inputs),
        "output_channel": len(pairs.outputs),
        "input_y": pairs.input_shape[0],
        "input_x": pairs.input_shape[1],
        "y": height,
        "x": width,
    }
    corners = np.zeros((len(pairs), 2), np.int64) if pairs.corners is None else pairs.corners
    grid = ("grid_y", "grid_x")
    coords: dict[str, Any] = {
        "time": ("sample", pairs.times[rows].astype("datetime64[ns]"), {"standard_name": "time"}),
        "split": ("sample", marks[rows], {"long_name": f"split: {', '.join(SPLITS)}"}),
        "case": ("sample", rows, {"long_name": "number of the pair in the raw data"}),
        "corner": (("sample", "corner_axis"), corners[rows], {"long_name": "first row and column on the grid"}),
        "static": (("static_channel", *grid), np.asarray(pairs.static_fields, np.float32)),
        "latitude": (grid, pairs.latitude, {"units": "degrees_north", "standard_name": "latitude"}),
        "longitude": (grid, pairs.longitude, {"units": "degrees_east", "standard_name": "longitude"}),
    }
    if pairs.leads is not None:
        coords["lead"] = ("sample", pairs.leads[rows], {"units": "hours", "standard_name": "forecast_period"})
    return make_template(SCHEMA, sizes, {"sample": n_rows}, coords=coords), n_rows


def _settings(pairs: Pairs, marks: Marks, transforms: Mapping[str, str], on_missing: str) -> dict[str, Any]:
    """What decides about the content, and what a model must know of it."""
    return {
        "inputs": [asdict(channel) for channel in pairs.inputs],
        "outputs": [asdict(channel) for channel in pairs.outputs],
        "static": [asdict(channel) for channel in pairs.static],
        "factor": pairs.factor,
        "input_shape": list(pairs.input_shape),
        "output_shape": list(pairs.output_shape),
        "spacing_km": pairs.spacing_km,
        "lead_labels": list(pairs.lead_labels),
        "probabilities": list(pairs.probabilities),
        "crops": pairs.corners is not None,
        "transforms": dict(transforms),
        "on_missing": on_missing,
        "splits": hashlib.sha256(marks.tobytes()).hexdigest(),
        # earlier stores had those of complete pairs
        **({"statistics": "of all that is known"} if on_missing == "mask" else {}),
    }


def _load(source: PairedSource, rows: NDArray[np.int64], on_missing: OnMissing) -> xr.Dataset:
    """Read some pairs, and see what is missing."""
    inputs, outputs = (
        np.concatenate([read(part) for part in runs(rows)]) for read in (source.read_inputs, source.read_outputs)
    )
    complete = np.full(len(rows), USABLE, np.int8)
    for kind, fields, channels in (
        ("input", inputs, source.pairs.inputs),
        ("output", outputs, source.pairs.outputs),
    ):
        missing = missing_values(fields)
        if not missing.any():
            continue
        if on_missing == "error" or (on_missing == "mask" and kind == "input"):
            where = describe_missing(kind, channels, missing, rows, source.pairs)
            hint = "data.on_missing skip leaves such pairs out"
            raise InputError(f"{where}: {hint}" + ("" if kind == "input" else ", mask learns from the others"))
        lacking = missing.any(axis=1)
        complete[lacking] = np.minimum(complete[lacking], UNUSABLE if kind == "input" else LACKS_TRUTH)
        fields[~np.isfinite(fields)] = np.nan
    return xr.Dataset(
        {
            "input": (SCHEMA["input"].dims, inputs),
            "output": (SCHEMA["output"].dims, outputs),
            "complete": ("sample", complete),
        }
    )


def _names(channels: Sequence[Channel]) -> list[str]:
    return [channel.name for channel in channels]
