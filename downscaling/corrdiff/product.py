"""Generated ensembles as a file: groups ``input``, ``truth``, ``prediction`` and ``regression``, in physical units."""

from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import xarray as xr
from dask.delayed import delayed
from numpy.typing import NDArray

from ai4sim.datamodule import ExperimentData
from ai4sim.style import save
from downscaling.corrdiff.batches import MEAN
from downscaling.corrdiff.data import DownscalingData
from downscaling.corrdiff.interpolation import interpolate
from downscaling.corrdiff.map_figures import plot_case
from downscaling.corrdiff.readers.base import Channel, PairedSource

EPOCH = np.datetime64("1990-01-01T00", "s")
SHOWN = 4
"""Cases that are drawn."""


def finish(predictions: xr.Dataset, output: Path, data: ExperimentData) -> xr.DataTree:
    """The product of what ``predict`` wrote, and figures of the first cases beside the output."""
    assert isinstance(data, DownscalingData)
    product = make_product(predictions, data.source)
    times = np.datetime_as_string(predictions["time"].values[_first(predictions)], "m")
    for case in range(min(SHOWN, product.sizes["time"])):
        groups = {name or "/": node.to_dataset().isel(time=case) for name, node in _groups(product)}
        groups["/"] = groups["/"].assign(valid=times[case].replace("T", " ") + " UTC")
        save(plot_case(groups), output.with_suffix("") / f"case_{case}.png")
    return product


def _groups(product: xr.DataTree) -> list[tuple[str, xr.DataTree]]:
    """All groups by name, the root's is empty."""
    return [("", product), *((str(name), node) for name, node in product.children.items())]


def _first(predictions: xr.Dataset) -> NDArray[np.intp]:
    """First row of every case."""
    return np.flatnonzero(np.diff(predictions["case"].values, prepend=-1))


def make_product(predictions: xr.Dataset, source: PairedSource) -> xr.DataTree:
    """All groups, lazily.

    Args:
        predictions: rows (sample, channel, y, x) of means and members, those of a case one after the other.
        source: what they were made from.

    Returns:
        Dimensions ``time`` (cases, whose times may repeat), ``ensemble``, ``y`` and ``x``.
    """
    pairs, member = source.pairs, predictions["member"].values
    first = _first(predictions)
    cases = predictions["case"].values[first]
    channels = [
        Channel(str(name), str(units))
        for name, units in zip(predictions["channel"].values, predictions["channel_units"].values, strict=True)
    ]
    size = int(member.max()) + 1
    groups = {
        "/": _root(predictions.isel(sample=first), source, size),
        "/input": _group(
            _read(source.read_inputs, cases, (len(pairs.inputs), *pairs.output_shape), pairs.factor), pairs.inputs
        ),
    }
    if pairs.outputs:
        groups["/truth"] = _group(
            _read(source.read_outputs, cases, (len(pairs.outputs), *pairs.output_shape)), pairs.outputs
        )
    fields = predictions["field"].data
    if (member == MEAN).any():
        groups["/regression"] = _group(fields[member == MEAN], channels)
    if size:
        members = fields[member != MEAN]
        ensembles = members.reshape((len(cases), size, *members.shape[1:]))
        groups["/prediction"] = _group(ensembles, channels, ("time", "ensemble", "y", "x"))
    return xr.DataTree.from_dict(groups)


def _root(rows: xr.Dataset, source: PairedSource, members: int) -> xr.Dataset:
    """Times, places and where it all comes from."""
    pairs, corners = source.pairs, rows["corner"].values
    times = rows["time"].values.astype("datetime64[s]")
    if pairs.leads is None:
        hours = (times - EPOCH) / np.timedelta64(3600, "s")
        whole = hours.astype(np.int64) if (hours == hours.round()).all() else hours
        attrs = {"units": "hours since 1990-01-01 00:00:00", "calendar": "standard", "standard_name": "time"}
        time: Any = ("time", whole, attrs)
    else:
        leads = rows["lead"].values
        inits = (times - leads * np.timedelta64(3600, "s")).astype("datetime64[h]").astype(object)
        names = [f"{init:%Y%m%d%H}f{lead:02d}" for init, lead in zip(inits, leads, strict=True)]
        time = ("time", np.array(names, dtype=object), {"long_name": "initial time and lead time"})
    height, width = pairs.output_shape
    grid: tuple[str, ...] = ("y", "x")
    places = {"lat": pairs.latitude, "lon": pairs.longitude}
    if pairs.corners is not None:
        grid = ("time", *grid)
        places = {
            name: np.stack([values[i : i + height, j : j + width] for i, j in corners])
            for name, values in places.items()
        }
    about: dict[str, Any] = {
        "Conventions": "CF-1.11",
        "title": "ensembles of downscaled fields",
        "spacing_km": pairs.spacing_km,
        "factor": pairs.factor,
        "software": f"ai4sim {metadata.version('ai4sim')}",
        **{name: value for name, value in rows.attrs.items() if name != "title"},
    }
    root = xr.Dataset(
        {
            "time": time,
            "lat": (
                grid,
                np.asarray(places["lat"], np.float32),
                {"units": "degrees_north", "standard_name": "latitude"},
            ),
            "lon": (
                grid,
                np.asarray(places["lon"], np.float32),
                {"units": "degrees_east", "standard_name": "longitude"},
            ),
            "case": ("time", rows["case"].values, {"long_name": "number of the pair in the raw data"}),
            "coord": (("time", "coord_axis"), corners, {"long_name": "first row and column on the whole grid"}),
        },
        attrs=about,
    )
    if members:
        # here, and not in the group alone: other programs look for the dimensions in the root
        root = root.assign_coords(ensemble=("ensemble", np.arange(members), {"long_name": "number of the member"}))
    root.encoding["unlimited_dims"] = {"time", "ensemble"} & set(map(str, root.dims))
    return root


def _group(fields: Any, channels: Sequence[Channel], dims: Sequence[str] = ("time", "y", "x")) -> xr.Dataset:
    """A variable for each channel, which comes before rows and columns; members come first."""
    # those of a run are in batches, which end anywhere; Zarr takes equal chunks only
    fields = fields.rechunk((*[1] * (fields.ndim - 3), -1, -1, -1))
    variables = {}
    for place, channel in enumerate(channels):
        attrs = {"units": channel.units or "1", "long_name": channel.long_name or channel.name}
        variables[channel.name] = xr.Variable(list(dims), fields[..., place, :, :], attrs)
    dataset = xr.Dataset(variables)
    dataset = dataset.transpose("ensemble", ...) if "ensemble" in dims else dataset
    for variable in dataset.variables.values():
        # a field is read at once
        variable.encoding["chunksizes"] = (*[1] * (variable.ndim - 2), *variable.shape[-2:])
    return dataset


def _read(
    read: Callable[[slice], NDArray[np.float32]], cases: NDArray[np.int64], shape: tuple[int, ...], factor: int = 1
) -> Any:
    """Fields (case, ...) on the fine grid, read when they are asked for."""

    def one(case: int) -> NDArray[np.float32]:
        return interpolate(read(slice(case, case + 1)), factor, "linear")

    parts = [dask.array.from_delayed(delayed(one)(int(case)), (1, *shape), dtype=np.float32) for case in cases]
    return dask.array.concatenate(parts)
