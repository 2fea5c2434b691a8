"""Predictions of the tests' demo as a run would write them, made from its truth."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from ai4sim.store import open_store, read_manifest
from downscaling.corrdiff.batches import MEAN, Plan
from downscaling.corrdiff.data import DownscalingData
from downscaling.corrdiff.splits import SPLITS
from downscaling.corrdiff.tests.conftest import make_tiny

Field = NDArray[np.float32]
Make = Callable[[Field, int], Field]


def opened_tiny(home: Path) -> DownscalingData:
    """The tests' demo, set up, for fixtures of a module; ``home`` is `tiny_data`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AI4SIM_DATA", str(home))
        data = make_tiny()
        data.setup("fit")
    return data


def exchangeable(truth: Field, members: int) -> Field:
    """Members (n, member, channel, y, x) and the truth are draws from the same distribution, of deviation 1."""
    random = np.random.default_rng(0)
    center = truth - random.normal(size=truth.shape)
    return center[:, None] + random.normal(size=(len(truth), members, *truth.shape[1:]))


def perfect(truth: Field, members: int) -> Field:
    """All members are the truth."""
    return np.repeat(truth[:, None], members, axis=1)


def make_predictions(
    data: DownscalingData, make: Make, members: int, *, pairs: int = 4, analogs: int = 3
) -> xr.Dataset:
    """Rows of means and members.

    Args:
        data: the tests' demo.
        make: gives members (n, member, channel, y, x) for the truth (n, channel, y, x) of some pairs.
        members: of every pair.
        pairs: number of test pairs, spread over all.
        analogs: number of training pairs whose mean is there, too: the truth, less the number of the pair in K.
    """
    with open_store(data.store) as store:
        split = store["split"].values
        test = np.flatnonzero(split == SPLITS.index("test"))
        test = test[np.linspace(0, len(test) - 1, pairs).round().astype(int)]
        train = np.flatnonzero(split == SPLITS.index("train"))[:analogs]
        truth = store["output"][test].values
        made = make(truth, members).astype(np.float32) if members else truth[:, None]
        rows = np.concatenate([made.mean(1, keepdims=True), made[:, :members]], axis=1).reshape(-1, *truth.shape[1:])
        plan = Plan.of(test, members)
        if analogs:
            bank = store["output"][train].values - np.arange(1, analogs + 1, dtype=np.float32)[:, None, None, None]
            rows, plan = np.concatenate([rows, bank]), plan + Plan.of(train, 0)
        coords = {
            "row": ("sample", np.arange(len(plan))),
            "pair": ("sample", plan.pair),
            "member": ("sample", plan.member),
            "corner": (("sample", "corner_axis"), store["corner"].values[plan.pair]),
            **{name: ("sample", store[name].values[plan.pair]) for name in ("time", "case", "split")},
            **{name: store[name].load() for name in ("latitude", "longitude")},
            "channel": ("channel", [channel.name for channel in data.contract.outputs]),
            "channel_units": ("channel", [channel.units for channel in data.contract.outputs]),
        }
    attrs = {"store": str(data.store), "fingerprint": read_manifest(data.store).fingerprint, "model": "corrdiff"}
    assert (plan.member == MEAN).sum() == pairs + analogs
    return xr.Dataset({"field": (("sample", "channel", "y", "x"), rows)}, coords, attrs)
