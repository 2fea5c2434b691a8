"""What is scored: a run's forecasts and all baselines on the same pairs, a few at a time."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from ai4sim.errors import InputError
from ai4sim.normalization import FeatureStatistics
from ai4sim.store import open_store, read_manifest
from downscaling.corrdiff.baselines import analog_members, interpolated, lapse_rate_corrected
from downscaling.corrdiff.batches import MEAN
from downscaling.corrdiff.scaling import restore, transform
from downscaling.corrdiff.splits import SPLITS

Field = NDArray[np.float32]

MEMBER: Final = "member"
GRID: Final = ("y", "x")
TEMPERATURES: Final = ("2t", "t2m", "temperature_2m")
HEIGHTS: Final = ("elev_mean", "orog", "orography", "hgt", "z")
BILINEAR, BICUBIC, LAPSE, ANALOGS, REGRESSION = "bilinear", "bicubic", "lapse_rate", "analogs", "regression"
TRUTH: Final = "truth"
CLIMATOLOGY: Final = "climatology"
"""The mean of the training, which a run without a regression has in its place."""
DIFFUSION: Final = "diffusion"
"""Label of the model of such a run."""
WIND: Final = "wind_speed"
WINDS: Final = (("10u", "10v"), ("u10m", "v10m"), ("eastward_wind_10m", "northward_wind_10m"))
HOUR = np.timedelta64(3600, "s")


@dataclass(frozen=True)
class Part:
    """Some pairs.

    Args:
        truth: variable to (sample, y, x).
        products: product to variable to (sample, y, x) or (sample, member, y, x).
        coarse: variable to its coarse input (sample, y, x).
        block: (sample,) label of the independent block of time.
        pair: (sample,) rows of the processed store.
    """

    truth: Mapping[str, xr.DataArray]
    products: Mapping[str, Mapping[str, xr.DataArray]]
    coarse: Mapping[str, xr.DataArray]
    block: xr.DataArray
    pair: NDArray[np.int64]


class TestSamples:
    """All test pairs of a run.

    Args:
        predictions: rows of means and members, see :class:`~downscaling.corrdiff.batches.Plan`.
        pairs_at_once: how many are in memory.
        block_hours: length of the blocks of time that are taken as independent; where there is only one, rows of parts
            of the grid are.

    Raises:
        InputError: the store that the run was made from is gone, or another one now.
    """

    __test__ = False  # pytest: no test class

    def __init__(self, predictions: xr.Dataset, *, pairs_at_once: int = 8, block_hours: float = 12.0) -> None:
        self.predictions, self.pairs_at_once, self.block_hours = predictions, pairs_at_once, block_hours
        self.store_path = str(predictions.attrs["store"])
        manifest = read_manifest(self.store_path)
        if manifest.fingerprint != predictions.attrs["fingerprint"]:
            raise InputError(
                f"{self.store_path} was made anew after this run: its forecasts cannot be scored against it"
            )
        self.known = manifest.settings
        self.model = str(predictions.attrs["model"])
        self.mean_name = CLIMATOLOGY if self.model == DIFFUSION else REGRESSION
        """Name of the product that the means are."""
        self.channels = [str(name) for name in predictions["channel"].values]
        self.units = dict(zip(self.channels, map(str, predictions["channel_units"].values), strict=True))
        self.factor = int(self.known["factor"])
        self.spacing_km = float(self.known["spacing_km"])
        moments = FeatureStatistics.from_dict(manifest.statistics["output"])
        self.std = dict(zip(self.channels, moments.std.tolist(), strict=True))
        self.transforms = [str(self.known["transforms"].get(name, "none")) for name in self.channels]
        self.inputs = [channel["name"] for channel in self.known["inputs"]]
        self.static = [channel["name"] for channel in self.known["static"]]
        self._test = predictions["split"].values == SPLITS.index("test")
        self._member = predictions["member"].values
        self.members = int(self._member[self._test].max()) + 1
        self._residuals: Field | None = None

    @property
    def spacing_or_one(self) -> float:
        """Distance of fine points, km; 1 where it is not known."""
        return self.spacing_km if np.isfinite(self.spacing_km) else 1.0

    @property
    def northward(self) -> bool:
        """Whether rows go from south to north."""
        latitude = self.predictions["latitude"].values
        return bool(latitude[-1].mean() > latitude[0].mean())

    def units_of(self, name: str) -> str:
        """Of a variable, or of what follows from several."""
        return self.units[name if name in self.units else next(c for pair in WINDS for c in pair if c in self.units)]

    def time_of(self, pair: int) -> np.datetime64:
        """Valid time of a row of the processed store."""
        first = int(np.argmax(self.predictions["pair"].values == pair))
        time: np.datetime64 = self.predictions["time"].values[first]
        return time

    def bounds(self) -> dict[str, tuple[float, float]]:
        """Smallest and largest true value of every variable."""
        found: dict[str, tuple[float, float]] = {}
        with open_store(self.store_path) as store:
            for row in self._pairs():
                truth = store["output"][[row]].values
                fields = self._complete({name: truth[:, i] for i, name in enumerate(self.channels)}, np.array([row]))
                for name, values in fields.items():
                    low, high = found.get(name, (np.inf, -np.inf))
                    found[name] = min(low, float(values.min())), max(high, float(values.max()))
        return found

    @property
    def n_parts(self) -> int:
        """Number of parts."""
        return -(-len(self._pairs()) // self.pairs_at_once)

    def _pairs(self) -> NDArray[np.int64]:
        return np.unique(self.predictions["pair"].values[self._test])

    def _rows(self, pairs: NDArray[np.int64], *, mean: bool) -> NDArray[np.intp]:
        chosen = np.isin(self.predictions["pair"].values, pairs) & ((self._member == MEAN) == mean)
        return np.flatnonzero(chosen)

    def _fields(self, pairs: NDArray[np.int64], *, mean: bool) -> Field:
        """Means (n, channel, y, x), or members (n, member, channel, y, x)."""
        values = self._read(self._rows(pairs, mean=mean))
        return values if mean else values.reshape(len(pairs), self.members, *values.shape[1:])

    def _read(self, rows: NDArray[np.intp]) -> Field:
        # rows of a part lie together: one slice, of which some are kept, is much faster than a list
        start, stop = int(rows.min()), int(rows.max()) + 1
        values: Field = self.predictions["field"][start:stop].values[rows - start]
        return values

    def residuals(self) -> Field | None:
        """What the regression left of training pairs (bank, channel, y, x), after the transforms of the channels.

        Pairs with gaps are left out. None where it was not asked for any, or all have gaps.
        """
        if self._residuals is None:
            bank = np.unique(self.predictions["pair"].values[~self._test])
            if not len(bank):
                return None
            rows = np.flatnonzero(~self._test)
            with open_store(self.store_path) as store:
                truth = np.stack([store["output"][row].values for row in self.predictions["pair"].values[rows]])
            found = self._transformed(truth, transform) - self._transformed(self._read(rows), transform)
            self._residuals = found[np.isfinite(found).all(axis=(1, 2, 3))]
        return self._residuals if len(self._residuals) else None

    def _transformed(self, fields: Field, function: Callable[[torch.Tensor, str], torch.Tensor]) -> Field:
        """Fields (..., channel, y, x) of which every channel is put through its transform or back."""
        changed = fields.copy()
        for place, kind in enumerate(self.transforms):
            if kind != "none":
                changed[..., place, :, :] = function(torch.from_numpy(fields[..., place, :, :]), kind).numpy()
        return changed

    def parts(self) -> Iterator[Part]:
        """All pairs in their order."""
        pairs = self._pairs()
        with open_store(self.store_path) as store:
            for start in range(0, len(pairs), self.pairs_at_once):
                yield self._part(store, pairs[start : start + self.pairs_at_once])

    def first(self, n: int) -> Part:
        """Some pairs for the eye, spread over all."""
        pairs = self._pairs()
        chosen = pairs[np.unique(np.linspace(0, len(pairs) - 1, min(n, len(pairs))).round().astype(int))]
        with open_store(self.store_path) as store:
            return self._part(store, chosen)

    def _part(self, store: xr.Dataset, pairs: NDArray[np.int64]) -> Part:
        truth = np.stack([store["output"][row].values for row in pairs])
        inputs = np.stack([store["input"][row].values for row in pairs])
        mean = self._fields(pairs, mean=True)
        products: dict[str, dict[str, Any]] = {BILINEAR: {}, BICUBIC: {}, LAPSE: {}}
        for name in self.channels:
            if name not in self.inputs:
                continue
            own = inputs[:, self.inputs.index(name)]
            products[BILINEAR][name] = interpolated(own, self.factor, "linear")
            if self.factor > 1:
                products[BICUBIC][name] = interpolated(own, self.factor, "cubic")
            height = next((h for h in HEIGHTS if h in self.static), None)
            if name in TEMPERATURES and height is not None and self.factor > 1:
                heights = self._heights(store, pairs, height)
                products[LAPSE][name] = lapse_rate_corrected(own, heights, self.factor)
        products[self.mean_name] = {name: mean[:, place] for place, name in enumerate(self.channels)}
        if self.members:
            residuals = self.residuals()
            if residuals is not None:
                means = self._transformed(mean, transform)
                drawn = analog_members(means, residuals, self.members, store["case"].values[pairs].tolist())
                drawn = self._transformed(drawn, restore)
                products[ANALOGS] = {name: drawn[:, :, place] for place, name in enumerate(self.channels)}
            members = self._fields(pairs, mean=False)
            products[self.model] = {name: members[:, :, place] for place, name in enumerate(self.channels)}
        labels = self._blocks(store, pairs)
        return Part(
            self._complete({name: truth[:, place] for place, name in enumerate(self.channels)}, pairs),
            {product: self._complete(fields, pairs) for product, fields in products.items() if fields},
            self._complete(
                {name: inputs[:, self.inputs.index(name)] for name in self.channels if name in self.inputs}, pairs
            ),
            xr.DataArray(labels, {"sample": pairs}, ["sample"], name="block"),
            pairs,
        )

    def _complete(self, fields: Mapping[str, Field], pairs: NDArray[np.int64]) -> dict[str, xr.DataArray]:
        """Labelled fields, and what follows from several of them."""
        labelled = {name: self._labelled(values, name, pairs) for name, values in fields.items()}
        for components in WINDS:
            if set(components) <= set(labelled):
                u, v = (labelled[name] for name in components)
                speed = xr.DataArray(np.hypot(u.values, v.values), u.coords, u.dims, WIND, attrs=u.attrs)
                labelled[WIND] = speed
        return labelled

    def _blocks(self, store: xr.Dataset, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of time; where all test pairs are of one block, of rows of parts of the grid, which are less alike."""
        times = store["time"].values
        label: NDArray[np.int64] = ((times - times.min()) / HOUR // self.block_hours).astype(np.int64)
        if len(np.unique(label[self._pairs()])) == 1:
            label = store["corner"].values[:, 0] // int(self.known["output_shape"][0])
        return label[pairs]

    def _heights(self, store: xr.Dataset, pairs: NDArray[np.int64], name: str) -> Field:
        whole = store["static"][self.static.index(name)].values
        rows, columns = self.known["output_shape"]
        corners = store["corner"].values[pairs]
        return np.stack([whole[i : i + rows, j : j + columns] for i, j in corners])

    def _labelled(self, values: Field, name: str, pairs: NDArray[np.int64]) -> xr.DataArray:
        dims = ("sample", *GRID) if values.ndim == 3 else ("sample", MEMBER, *GRID)
        return xr.DataArray(values, {"sample": pairs}, dims, name, attrs={"units": self.units[name] or "1"})
