"""Taiwan: hourly ERA5 and radar-assimilating WRF analyses of the Central Weather Administration in one Zarr store."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ai4sim.errors import InputError
from downscaling.corrdiff.readers.base import Channel, Field, Pairs
from downscaling.corrdiff.readers.coordinates import block_mean, spacing_km
from downscaling.corrdiff.readers.files import FileSource, listed, manifest_files
from downscaling.corrdiff.readers.statistics_file import Moments, Statistics
from downscaling.corrdiff.readers.zarr_store import ZarrStore

OUTPUTS = ("maximum_radar_reflectivity", "temperature_2m", "eastward_wind_10m", "northward_wind_10m")
LEVELS = (500.0, 850.0)  # hPa

NOT_GAUSSIAN = {
    "maximum_radar_reflectivity": Moments(25.0, 25.0),
    "eastward_wind_10m": Moments(0.0, 20.0),
    "northward_wind_10m": Moments(0.0, 20.0),
}
"""What the second version of the normalisation replaces, of the outputs."""

# the store has none
_UNITS = {
    "maximum_radar_reflectivity": "dBZ",
    "temperature": "K",
    "temperature_2m": "K",
    "eastward_wind": "m s-1",
    "northward_wind": "m s-1",
    "eastward_wind_10m": "m s-1",
    "northward_wind_10m": "m s-1",
    "geopotential_height": "m",
    "tcwv": "kg m-2",
    "total_column_water_vapour": "kg m-2",
}


class _Variable(NamedTuple):
    """A channel of the store: its name and that of its variable, and the level in hPa, NaN at the surface."""

    channel: str
    variable: str
    level: float


@dataclass(frozen=True, eq=False)
class Cwa(FileSource):
    """The data set of Mardani et al. (2025), or a store of its schema.

    ``cwb`` (time, cwb_channel, south_north, west_east), 2 km, WRF; ``era5`` (time, era5_channel, south_north,
    west_east), already interpolated to the grid of WRF; of both the names (``_variable``), levels (``_pressure``, hPa,
    NaN at the surface), moments (``_center``, ``_scale``) and what is valid (``cwb_valid``: time; ``era5_valid``: time
    and channel). ``XLAT``, ``XLONG``; ``time`` with CF units. A time counts where all of it is valid.

    Source: NVIDIA NGC, modulus_datasets_cwa; CC BY-NC-ND 4.0. Hourly, January 2018 to April 2022, 450 x 450 points.
    The reference blurs the truth (``ds_factor``); here it never is.

    Args:
        store: folder or URL.
        inputs: channels of ERA5 by name, with the level where there is one (``temperature850.0``); by default those of
            the surface and those at 500 and 850 hPa, in the store's order.
        outputs: channels of WRF by name; by default `OUTPUTS`.
        crop: rows and columns that are used, from the first; networks want sizes that can be halved. None for all.
        coarsen_input_factor: average the inputs over such blocks; 1 leaves them on the fine grid.
    """

    store: str
    inputs: list[str] | None = None
    outputs: list[str] | None = None
    crop: tuple[int, int] | None = (448, 448)
    coarsen_input_factor: int = 1

    locations: ClassVar[tuple[str, ...]] = ("store",)

    @cached_property
    def _store(self) -> ZarrStore:
        return ZarrStore(self.store, "CWA")

    def _variables(self, kind: str) -> list[_Variable]:
        """All channels of ``cwb`` or ``era5``."""
        names = self._store.texts(f"{kind}_variable", f"{kind}_channel")
        levels = self._store.values(f"{kind}_pressure", (f"{kind}_channel",)).astype(np.float64).tolist()
        n = self._store.array(kind, ("time", f"{kind}_channel", "south_north", "west_east")).shape[1]
        if not n == len(names) == len(levels):
            raise InputError(
                f"{self.store}: {kind!r} has {n} channels, '{kind}_variable' {len(names)}, '{kind}_pressure' "
                f"{len(levels)}"
            )
        return [
            _Variable(name if math.isnan(level) else f"{name}{float(level)}", name, level)
            for name, level in zip(names, levels, strict=True)
        ]

    def _choose(self, kind: str, wanted: Sequence[str]) -> list[int]:
        """Numbers of channels."""
        held = [each.channel for each in self._variables(kind)]
        for name in wanted:
            if held.count(name) != 1:
                what = "no channel" if name not in held else f"{held.count(name)} channels"
                raise InputError(f"{self.store}: {kind!r} has {what} {name!r}; it has {listed(held)}")
        if not wanted:
            raise InputError(f"{self.store}: no channel of {kind!r} is chosen; it has {listed(held)}")
        return [held.index(name) for name in wanted]

    @cached_property
    def _inputs(self) -> list[int]:
        if self.inputs is not None:
            return self._choose("era5", self.inputs)
        chosen = [each.channel for each in self._variables("era5") if math.isnan(each.level) or each.level in LEVELS]
        return self._choose("era5", chosen)

    @cached_property
    def _outputs(self) -> list[int]:
        return self._choose("cwb", OUTPUTS if self.outputs is None else self.outputs)

    @cached_property
    def _shape(self) -> tuple[int, int]:
        """Rows and columns that are used."""
        shapes = {kind: self._store.array(kind, ("time", "channel", "y", "x")).shape for kind in ("cwb", "era5")}
        grid = self._store.array("XLAT", ("south_north", "west_east")).shape
        for kind, shape in shapes.items():
            if shape[2:] != grid:
                raise InputError(
                    f"{self.store}: {kind!r} has shape {shape}, 'XLAT' has {grid} (south_north, west_east)"
                )
        size = grid if self.crop is None else self.crop
        f = self.coarsen_input_factor
        if f < 1 or any(a < 1 or a > b or a % f for a, b in zip(size, grid, strict=True)):
            raise InputError(
                f"crop is {tuple(size)}; expected at most {grid} (south_north, west_east) of {self.store}, in "
                f"multiples of coarsen_input_factor {f}"
            )
        return int(size[0]), int(size[1])

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        """(n,) numbers of the times that are valid, in their order."""
        times = self._store.times("time", "time")
        truth = self._store.values("cwb_valid", ("time",)).astype(bool)
        inputs = self._store.values("era5_valid", ("time", "era5_channel")).astype(bool)
        lengths = {
            "time": len(times),
            "cwb_valid": len(truth),
            "era5_valid": len(inputs),
            **{kind: self._store.array(kind, ("time", "channel", "y", "x")).shape[0] for kind in ("cwb", "era5")},
        }
        if len(set(lengths.values())) > 1:
            raise InputError(f"{self.store}: arrays differ in their number of times: {lengths}")
        valid = truth & inputs.all(axis=1)
        if not valid.any():
            raise InputError(
                f"{self.store}: none of {len(times)} times is valid: {int(truth.sum())} are in 'cwb_valid', "
                f"{int(inputs.all(axis=1).sum())} in 'era5_valid' for all channels"
            )
        rows = np.flatnonzero(valid)
        return rows[np.argsort(times[rows], kind="stable")]

    @property
    def _window(self) -> tuple[slice, slice]:
        return slice(0, self._shape[0]), slice(0, self._shape[1])

    def _open(self) -> Pairs:
        f = self.coarsen_input_factor
        grid = ("south_north", "west_east")
        latitude, longitude = (
            self._store.values(name, grid)[self._window].astype(np.float32) for name in ("XLAT", "XLONG")
        )
        return Pairs(
            inputs=self._channels("era5", self._inputs),
            outputs=self._channels("cwb", self._outputs),
            static=(),
            times=self._store.times("time", "time")[self._order],
            input_shape=(self._shape[0] // f, self._shape[1] // f),
            output_shape=self._shape,
            factor=f,
            latitude=latitude,
            longitude=longitude,
            static_fields=np.empty((0, *self._shape), np.float32),
            spacing_km=spacing_km(latitude, longitude),
            files=tuple(manifest_files(self.store)),
        )

    def _channels(self, kind: str, numbers: Sequence[int]) -> tuple[Channel, ...]:
        held = self._variables(kind)
        return tuple(Channel(held[i].channel, _UNITS.get(held[i].variable, ""), _long_name(held[i])) for i in numbers)

    def read_inputs(self, rows: slice) -> Field:
        """Fields (n, input, h, w) of ERA5."""
        fields = self._store.read("era5", self._order[rows], self._inputs, self._window)
        if self.coarsen_input_factor == 1:
            return fields
        return np.asarray(block_mean(fields, self.coarsen_input_factor), np.float32)

    def read_outputs(self, rows: slice) -> Field:
        """Fields (n, output, H, W) of WRF."""
        return self._store.read("cwb", self._order[rows], self._outputs, self._window)

    def statistics(self, version: Literal["v1", "v2"] = "v2") -> Statistics:
        """Moments that come with the store.

        Args:
            version: ``v1`` are centre and scale of the store; ``v2`` has others for variables that are not Gaussian.

        Raises:
            InputError: an array is missing, or has another number of channels.
        """
        found = {}
        for kind, numbers in (("era5", self._inputs), ("cwb", self._outputs)):
            held = self._variables(kind)
            centre, scale = (self._store.values(f"{kind}_{name}", (f"{kind}_channel",)) for name in ("center", "scale"))
            if not len(centre) == len(scale) == len(held):
                raise InputError(
                    f"{self.store}: '{kind}_center' and '{kind}_scale' have {len(centre)} and {len(scale)} channels, "
                    f"{kind!r} has {len(held)}"
                )
            found[kind] = {held[i].channel: Moments(float(centre[i]), float(scale[i])) for i in numbers}
        if version == "v2":
            found["cwb"] |= {name: NOT_GAUSSIAN[name] for name in found["cwb"] if name in NOT_GAUSSIAN}
        return Statistics(input=found["era5"], output=found["cwb"])


def _long_name(variable: _Variable) -> str:
    words = variable.variable.replace("_", " ")
    return words if math.isnan(variable.level) else f"{words} at {variable.level:g} hPa"
