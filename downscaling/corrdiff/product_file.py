"""Reading files of generated ensembles, ours or the reference's, a few cases at a time."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ai4sim.errors import InputError
from downscaling.corrdiff.samples import WIND, WINDS

Field = NDArray[np.float32]

PREDICTION, TRUTH = "prediction", "truth"
CASE, ENSEMBLE, GRID = "time", "ensemble", ("y", "x")
FILL: Final = 9.9e36
"""What was never written has this value or a larger one, where the file does not name its own."""
VALUES: Final = 2**22
"""Values of a variable that are in memory at a time, or those of a case where it has more."""
EARTH_RADIUS_KM: Final = 6371.229
BLOCK_HOURS: Final = 12


@dataclass(frozen=True)
class Ensemble:
    """A variable of some cases.

    Args:
        members: (case, member, y, x), NaN where there is nothing.
        truth: (case, y, x), None where there is no truth.
        units: of both.
    """

    members: Field
    truth: Field | None
    units: str


class ProductFile:
    """A NetCDF file or Zarr store with the groups ``prediction`` and, where there is one, ``truth``.

    Args:
        path: of the file.
        group: whose fields are scored; those without the dimension ``ensemble`` count as one member.

    Raises:
        InputError: there is no such file, group or variable; says what there is.
    """

    def __init__(self, path: Path, group: str = PREDICTION) -> None:
        self.path, self.group = path, group
        if not path.exists():
            raise InputError(f"{path} does not exist")
        try:
            self._tree = _opened(path)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path} is neither NetCDF 4 nor Zarr: {error}") from error
        self.root = self._tree["/"]
        if group not in self._tree:
            known = ", ".join(name for name in self._tree if name != "/") or "no group"
            raise InputError(f"{path} has no group {group!r}: there is {known}")
        self._prediction, self._truth = self._tree[group], self._tree.get(TRUTH)
        self.names = self._names()
        self.without_truth = [name for name in self.names if self._truth is None or name not in self._truth]
        first = self._prediction[self.names[0]]
        self.n_cases, self.n_members = first.sizes[CASE], first.sizes.get(ENSEMBLE, 1)
        self.shape = (first.sizes["y"], first.sizes["x"])
        if not self.n_cases or not self.n_members:
            raise InputError(f"{path}: the group {group!r} is empty: {dict(first.sizes)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for part in self._tree.values():
            part.close()

    def _names(self) -> list[str]:
        """Variables on the grid; at least one of them has a truth where there are any."""
        wanted = {CASE, *GRID}
        found = [str(n) for n, a in self._prediction.data_vars.items() if wanted <= set(a.dims) <= wanted | {ENSEMBLE}]
        if self.path.is_dir():
            found.sort()  # folders have no order
        if not found:
            have = {str(name): array.dims for name, array in self._prediction.data_vars.items()}
            raise InputError(f"{self.path}: no variable of {self.group!r} is over (ensemble, time, y, x): {have}")
        if self._truth is None:
            return found
        common = [name for name in found if name in self._truth]
        if not common:
            raise InputError(
                f"{self.path}: {self.group!r} and {TRUTH!r} have no variable in common: there are "
                f"{', '.join(found)}, and {', '.join(map(str, self._truth.data_vars)) or 'none'}"
            )
        for name in common:
            own = {dim: self._prediction[name].sizes[dim] for dim in (CASE, *GRID)}
            true = {str(dim): size for dim, size in self._truth[name].sizes.items()}
            if own != true:
                raise InputError(f"{self.path}: {name} has the sizes {own} in {self.group!r} and {true} in {TRUTH!r}")
            units = [str(part[name].attrs.get("units", "")) for part in (self._prediction, self._truth)]
            if units[0] != units[1]:
                raise InputError(
                    f"{self.path}: {name} is in {units[0]!r} in {self.group!r}, in {units[1]!r} in {TRUTH!r}"
                )
        return found

    @property
    def parts(self) -> list[slice]:
        """Cases that may be in memory at a time."""
        step = max(1, VALUES // (self.n_members * self.shape[0] * self.shape[1]))
        return [slice(start, min(start + step, self.n_cases)) for start in range(0, self.n_cases, step)]

    def read(self, cases: slice) -> dict[str, Ensemble]:
        """All variables of some cases, and the wind speed where there are two components."""
        found = {}
        for name in self.names:
            own = self._prediction[name].isel({CASE: cases})
            if ENSEMBLE not in own.dims:
                own = own.expand_dims(ENSEMBLE)
            members = _known(own.transpose(CASE, ENSEMBLE, *GRID))
            true = None
            if self._truth is not None and name in self._truth:
                true = _known(self._truth[name].isel({CASE: cases}).transpose(CASE, *GRID))
            found[name] = Ensemble(members, true, str(own.attrs.get("units", "")))
        for components in WINDS:
            if set(components) <= set(found):
                u, v = (found[name] for name in components)
                true = None if u.truth is None or v.truth is None else np.hypot(u.truth, v.truth)
                found[WIND] = Ensemble(np.hypot(u.members, v.members), true, u.units)
        return found

    def label(self, case: int) -> str:
        """A case for humans: its number and time."""
        if CASE not in self.root:
            return f"case {case}"
        value = self.root[CASE].values[case]
        units = str(self.root[CASE].attrs.get("units", ""))
        if np.issubdtype(self.root[CASE].dtype, np.number) and " since " in units:
            decoded = xr.decode_cf(self.root[[CASE]].isel({CASE: [case]}).reset_coords())[CASE].values[0]
            value = str(np.datetime_as_string(decoded, "m") if isinstance(decoded, np.datetime64) else decoded)
        return f"case {case} ({value})"

    def blocks(self) -> NDArray[np.int64]:
        """Numbers of the independent blocks of time of all cases: half days, or initial times of forecasts."""
        if CASE not in self.root:
            return np.arange(self.n_cases)
        values = self.root[CASE].values
        if np.issubdtype(values.dtype, np.number) and str(self.root[CASE].attrs.get("units", "")).startswith("hours"):
            values = (values - values.min()) // BLOCK_HOURS
        elif values.dtype.kind in "OUS":
            values = np.array([str(value).partition("f")[0] for value in values])
        return np.unique(values, return_inverse=True)[1].reshape(-1)

    def spacing_km(self) -> float:
        """Distance of points as the file says, or by its latitudes and longitudes; NaN where neither tells."""
        given = self.root.attrs.get("spacing_km")
        if given is not None and np.isfinite(float(given)):
            return float(given)
        if not {"lat", "lon"} <= set(self.root.variables):
            return float("nan")
        places = {name: self.root[name] for name in ("lat", "lon")}
        lat, lon = (np.radians(a.isel({CASE: 0}).values if CASE in a.dims else a.values) for a in places.values())
        if lat.ndim != 2 or lat.shape[1] < 2:
            return float("nan")
        half = np.sin(np.diff(lat, axis=1) / 2) ** 2
        half = half + np.cos(lat[:, 1:]) * np.cos(lat[:, :-1]) * np.sin(np.diff(lon, axis=1) / 2) ** 2
        distance = 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(half))
        return float(np.nanmedian(distance)) if np.isfinite(distance).any() else float("nan")


def _opened(path: Path) -> Mapping[str, xr.Dataset]:
    """All groups by name, lazily; the root's is ``/``."""
    options: dict[str, Any] = {"decode_times": False}
    if path.is_dir():
        options |= {"engine": "zarr", "consolidated": False, "chunks": None}
    else:
        options |= {"engine": "h5netcdf"}
    groups = xr.open_groups(path, **options)
    return {name if name == "/" else name.strip("/"): part for name, part in groups.items()}


def _known(array: xr.DataArray) -> Field:
    values = np.asarray(array.values, np.float32)
    lacking = ~np.isfinite(values) | (np.abs(values) >= FILL)
    return np.where(lacking, np.float32(np.nan), values) if lacking.any() else values
