"""MEPS, the Nordic ensemble's forecasts as the graph-network papers prepared them."""

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from ai4sim.errors import InputError
from ai4sim.projections import LambertConformal
from weather_forecast.lam.accessors.base import DataAccessor, Field, GridInfo, Records, Times
from weather_forecast.lam.accessors.files import locate, read_array, require_shape
from weather_forecast.lam.parameters import Parameter

Split = Literal["train", "val", "test"]

PROJECTION = LambertConformal(latitude=63.3, longitude=15.0, parallels=(63.3, 63.3), radius=6_367_470.0)

RAW_FEATURES = 18


class Column(NamedTuple):
    """Where a parameter is in a sample's file.

    Attributes:
        raw: name in MEPS.
        place: where along the file's last dimension; 15 is the height of a level, which nobody uses.
        factor: from MEPS's units to the parameter's.
        weight: in the loss of the papers, by the token of the level in the raw name.
    """

    raw: str
    place: int
    factor: float
    weight: float


STATE = {
    "meps_pres_0m": Column("pres_0g", 0, 1.0, 0.1),
    "meps_prmsl_0hpa": Column("pres_0s", 1, 1.0, 0.1),
    "meps_nlwrs_0m": Column("nlwrs_0", 2, 1.0, 0.1),
    "meps_nswrs_0m": Column("nswrs_0", 3, 1.0, 0.1),
    "meps_r2_2m": Column("r_2", 4, 100.0, 1.0),
    "meps_r_12m": Column("r_65", 5, 100.0, 0.065),
    "meps_t2m_2m": Column("t_2", 6, 1.0, 1.0),
    "meps_t_12m": Column("t_65", 7, 1.0, 0.065),
    "meps_t_500hpa": Column("t_500", 8, 1.0, 0.03),
    "meps_t_850hpa": Column("t_850", 9, 1.0, 0.05),
    "meps_u_12m": Column("u_65", 10, 1.0, 0.065),
    "meps_u_850hpa": Column("u_850", 11, 1.0, 0.05),
    "meps_v_12m": Column("v_65", 12, 1.0, 0.065),
    "meps_v_850hpa": Column("v_850", 13, 1.0, 0.05),
    "meps_tciwv_0m": Column("wvint_0", 14, 1.0, 0.1),
    "meps_z_1000hpa": Column("z_1000", 16, 1.0, 0.1),
    "meps_z_500hpa": Column("z_500", 17, 1.0, 0.03),
}
"""The state by parameter, in the order of the papers.

"65" is the number of the lowest model level, about 12 m above the ground, hence ``12m``. Pressure "0s" is reduced to
mean sea level. Relative humidity is a share in the files, and % here.
"""

FLUX, WATER = "meps_flux_0m", "meps_wtr_0m"
"""Forcing: radiation at the top of the atmosphere, W m-2, hourly; share of open water at the initial time."""

_SAMPLE = re.compile(r"nwp_(\d{10})_mbr(\d{3})\.npy")


class Forecast(NamedTuple):
    """One member of one forecast.

    Attributes:
        start: initial time as in the files' names, YYYYMMDDHH.
        member: number of the member.
        path: of its file.
    """

    start: str
    member: int
    path: Path

    @property
    def time(self) -> np.datetime64:
        """Initial time.

        Raises:
            InputError: the name holds no date.
        """
        text = f"{self.start[:4]}-{self.start[4:6]}-{self.start[6:8]}T{self.start[8:]}"
        try:
            return np.datetime64(text, "s")
        except ValueError as error:
            raise InputError(f"{self.path}: {self.start} is no initial time of the form YYYYMMDDHH") from error


class MepsAccessor(DataAccessor):
    """Samples ``samples/{train,val,test}/nwp_<YYYYMMDDHH>_mbr<NNN>.npy`` (lead, y, x, 18) of hourly leads.

    Beside each forecast are ``nwp_toa_downwelling_shortwave_flux_<YYYYMMDDHH>.npy`` (lead, y, x) and
    ``wtr_<YYYYMMDDHH>.npy`` (y, x); ``static`` holds ``nwp_xy.npy`` (2, y, x), m, and ``surface_geopotential.npy``
    (y, x). Every member of every forecast is a sequence of its own: no window mixes two. Fields are turned so that row
    0 is in the south, as ``nwp_xy.npy`` says; latitude and longitude follow from the projection.

    Args:
        path: the folder that has ``samples`` and ``static`` in it; a relative one from here, or below ``data/raw``.
        split: ``train``, ``val`` or ``test``; by default all three: the periods of the data module tell them apart.
        members: numbers of the members; by default all.
        lead_step_hours: hours between the leads that are taken; 1 takes all.

    Raises:
        InputError: the folder has no samples, or a setting is impossible.
    """

    def __init__(
        self,
        path: Path | str,
        split: Split | None = None,
        members: list[int] | None = None,
        lead_step_hours: int = 3,
    ) -> None:
        if split is not None and split not in get_args(Split):
            raise InputError(f"MEPS: split {split!r} is unknown; choose {', '.join(get_args(Split))}")
        if lead_step_hours < 1:
            raise InputError(f"MEPS: lead_step_hours must be at least 1, not {lead_step_hours}")
        self.path = Path(locate(path))
        self.split, self.members, self.lead_step_hours = split, members, lead_step_hours

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("path", "split", "members", "lead_step_hours")}

    # -- forecasts and times

    @cached_property
    def _forecasts(self) -> list[Forecast]:
        folders = [self.path / "samples" / split for split in ([self.split] if self.split else get_args(Split))]
        found: dict[tuple[str, int], Forecast] = {}
        members = set()
        for path in sorted(path for folder in folders for path in folder.glob("nwp_*_mbr*.npy")):
            match = _SAMPLE.fullmatch(path.name)
            if match is None:
                raise InputError(f"{path}: the name is not of the form nwp_<YYYYMMDDHH>_mbr<NNN>.npy")
            forecast = Forecast(match[1], int(match[2]), path)
            members.add(forecast.member)
            if self.members is not None and forecast.member not in self.members:
                continue
            if (other := found.get((forecast.start, forecast.member))) is not None:
                raise InputError(f"{path} is there twice, also as {other.path}: a forecast belongs to one split")
            found[forecast.start, forecast.member] = forecast
        if self.members is not None and (absent := set(self.members) - members):
            raise InputError(f"{self.path}: member {min(absent)} is not there; there are {sorted(members)}")
        if not found:
            raise InputError(f"no files nwp_<YYYYMMDDHH>_mbr<NNN>.npy in {', '.join(map(str, folders))}")
        return [found[key] for key in sorted(found)]

    @cached_property
    def _n_leads(self) -> int:
        """Number of hourly leads: that of the first file, which the others must share."""
        path = self._forecasts[0].path
        shape = read_array(path, "state", mapped=True).shape
        if len(shape) != 4:
            raise InputError(f"{path}: the state has shape {shape}, expected (lead, y, x, {RAW_FEATURES})")
        return shape[0]

    @property
    def _leads(self) -> range:
        return range(0, self._n_leads, self.lead_step_hours)

    def _at(self, record: int) -> tuple[Forecast, int]:
        """Forecast and lead, h, of a record."""
        number, place = divmod(record, len(self._leads))
        return self._forecasts[number], self._leads[place]

    @cached_property
    def _records(self) -> Records:
        leads = np.array(self._leads) * np.timedelta64(3600, "s")
        starts: Times = np.array([forecast.time for forecast in self._forecasts], dtype="datetime64[s]")
        times: Times = np.repeat(starts, len(leads)) + np.tile(leads, len(starts))
        return Records(times, np.repeat(np.arange(len(starts)), len(leads)))

    def records(self) -> Records:
        """Every lead of every member of every forecast; a sequence is one member of one forecast."""
        return self._records

    # -- parameters

    def parameters(self) -> dict[str, str]:
        """The 17 of the state, radiation and open water."""
        return {name: Parameter.parse(name).units for name in (*STATE, FLUX, WATER)}

    def get_filepath(self, name: str, record: int) -> Path:
        """File of the forecast, of its radiation or of its open water."""
        forecast, _ = self._at(record)
        if name == FLUX:
            return forecast.path.with_name(f"nwp_toa_downwelling_shortwave_flux_{forecast.start}.npy")
        return forecast.path.with_name(f"wtr_{forecast.start}.npy") if name == WATER else forecast.path

    @cached_property
    def _forcing_files(self) -> frozenset[Path]:
        folders = {forecast.path.parent for forecast in self._forecasts}
        patterns = ("nwp_toa_downwelling_shortwave_flux_*.npy", "wtr_*.npy")
        return frozenset(path for folder in folders for pattern in patterns for path in folder.glob(pattern))

    def exists(self, name: str, record: int) -> bool:
        """Whether the file that holds a parameter is there."""
        if name in (FLUX, WATER):
            return self.get_filepath(name, record) in self._forcing_files
        return name in STATE

    # -- the grid

    def load_grid_info(self) -> GridInfo:
        """The grid of ``static``: planar coordinates of the projection, with latitude and longitude from them."""
        return self._grid

    @cached_property
    def _plane(self) -> NDArray[np.float64]:
        """Planar coordinates x and y (2, lat, lon), m, in the files' order of rows."""
        path = self.path / "static" / "nwp_xy.npy"
        plane = read_array(path, "x and y").astype(np.float64)
        if plane.ndim != 3 or plane.shape[0] != 2:
            raise InputError(f"{path}: x and y have shape {plane.shape}, expected (2, y, x)")
        return plane

    @property
    def _turn(self) -> slice:
        """Rows from the south."""
        return slice(None, None, -1 if self._plane[1, 0, 0] > self._plane[1, -1, 0] else 1)

    @cached_property
    def _grid(self) -> GridInfo:
        x, y = self._plane[:, self._turn]
        latitude, longitude = PROJECTION.to_sphere(x, y)
        path = self.path / "static" / "surface_geopotential.npy"
        geopotential = read_array(path, "surface geopotential").astype(np.float64)
        require_shape(geopotential, x.shape, path, "surface geopotential")
        try:
            return GridInfo(latitude, longitude, x / 1000, y / 1000, geopotential[self._turn])
        except InputError as error:
            raise InputError(f"{self.path / 'static' / 'nwp_xy.npy'}: {error}") from error

    # -- fields

    def load(self, names: Sequence[str], record: int) -> Field:
        """Fields (lat, lon, parameter) of one lead of one forecast."""
        _, lead = self._at(record)
        shape = self._plane.shape[1:]
        fields = np.empty((*shape, len(names)), np.float32)
        state: NDArray[Any] | None = None
        for number, name in enumerate(names):
            path = self.get_filepath(name, record)
            if name in STATE:
                if state is None:
                    values = read_array(path, "state", mapped=True)
                    require_shape(values, (self._n_leads, *shape, RAW_FEATURES), path, "the state")
                    # one read of one lead, not one per parameter
                    state = np.array(values[lead])
                column = STATE[name]
                fields[..., number] = state[..., column.place] * np.float32(column.factor)
            elif name == FLUX:
                values = read_array(path, name, mapped=True)
                require_shape(values, (self._n_leads, *shape), path, name)
                fields[..., number] = values[lead]
            else:
                values = read_array(path, name)
                require_shape(values, shape, path, name)
                fields[..., number] = values
        return np.ascontiguousarray(fields[self._turn])

    def sources(self) -> list[Path]:
        """Static fields.

        The samples are not among them: their checksums would take longer than the preparation. A forecast that is new
        or gone makes processed data out of date; a file that is replaced does not.
        """
        static = self.path / "static"
        return [path for name in ("nwp_xy.npy", "surface_geopotential.npy") if (path := static / name).is_file()]

    @property
    def label(self) -> str:
        """The folder's path."""
        return str(self.path)
