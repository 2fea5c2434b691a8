"""Demo raw files: generated columns and the scheme's tendencies, in exactly the public data set's schema."""

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from ai4sim.errors import InputError
from weather_forecast.gwd import config
from weather_forecast.gwd.columns import generate_columns
from weather_forecast.gwd.levels import get_grid
from weather_forecast.gwd.scheme import gravity_wave_drag
from weather_forecast.gwd.spectrum import SchemeParameters

SAMPLES_PER_FORECAST = 36
MARK = "ai4sim_demo"

Float = NDArray[np.float32]


@dataclass(frozen=True)
class DemoSettings:
    """Size and truth of the demo data.

    Args:
        train: number of training columns.
        validation: number of validation columns.
        test: number of test columns.
        times: time samples per file, spread over the forecast's 30 days.
        azimuths: azimuths of the truth.
        speeds: phase speeds of the truth.
        calm: share of the training columns whose mean flow and waves are random fractions of the climatology's.
            Coupled to a model, a network meets winds that are calmer and smoother than a forecast's, and must know
            what they do.
        grid: vertical grid, ``L91``, ``L137`` or a CSV file of (a, b).
        seed: of all random draws; each file has a stream of its own.
        format: ``hdf5`` or ``netcdf``, the two forms in which the public data exist.
    """

    train: int = 36_000
    validation: int = 2_100
    test: int = 4_200
    times: int = 10
    azimuths: int = 8
    speeds: int = 32
    calm: float = 0.2
    grid: str = "L91"
    seed: int = 0
    format: Literal["hdf5", "netcdf"] = "hdf5"

    def __post_init__(self) -> None:
        if not 0 <= self.calm <= 1:
            raise InputError(f"demo: calm must be a share between 0 and 1, not {self.calm}")

    def columns_per_time(self, split: str, n_files: int) -> int:
        """Grid columns of every time sample of a split's files.

        Raises:
            InputError: the number of columns does not divide into files and times.
        """
        total: int = getattr(self, split)
        per_time, rest = divmod(total, n_files * self.times)
        if rest or not per_time:
            raise InputError(
                f"demo: {total} {split} columns do not divide into {n_files} files of {self.times} times; "
                f"take a multiple of {n_files * self.times}"
            )
        return per_time


def write_demo(folder: Path, settings: DemoSettings, splits: Mapping[str, Iterable[str]]) -> list[Path]:
    """Write the demo's raw files; those that are there already are kept.

    Every file has ``x`` (191, time, column), ``y`` (126, time, column), float32, and ``lat`` (degrees north), ``doy``
    (day of year) of shape (time, column), with L levels in place of 63 on other grids.

    Args:
        folder: where the raw files go.
        settings: size and truth.
        splits: start dates of every split.

    Returns:
        The files, one per date.

    Raises:
        InputError: the folder holds files of the same names that are no demo files or have other settings.
    """
    jobs = []
    for split, dates in splits.items():
        dates = list(dates)
        n_columns = settings.columns_per_time(split, len(dates))
        # scores are over the climatology alone
        own = settings if split == "train" else replace(settings, calm=0.0)
        jobs += [
            (folder / f"{day}{'.nc' if settings.format == 'netcdf' else '.h5'}", day, n_columns, own) for day in dates
        ]
    missing = [job for job in jobs if not _is_there(job[0], _identity(job[3], job[2]))]
    if missing:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with ThreadPoolExecutor(2) as pool:
                written = pool.map(lambda job: write_file(*job), missing)
                for _ in track(written, "generating demo columns", total=len(missing)):
                    pass
        except OSError as error:
            raise InputError(f"cannot write the demo files to {folder}: {error.strerror or error}") from error
    return [job[0] for job in jobs]


def write_file(path: Path, day: str, n_columns: int, settings: DemoSettings) -> None:
    """Generate one forecast's columns and write them as one file that is whole or not there."""
    start = date.fromisoformat(day)
    rng = np.random.default_rng([settings.seed, start.toordinal()])
    step = config.HOURS_BETWEEN_SAMPLES * SAMPLES_PER_FORECAST / settings.times
    moments = [timedelta(hours=step * i) + timedelta(days=start.timetuple().tm_yday - 1) for i in range(settings.times)]
    doy = np.repeat([moment / timedelta(days=1) % 365.0 for moment in moments], n_columns)

    # a stream of its own: the other columns are the same whatever the share
    chance = np.random.default_rng([settings.seed, start.toordinal(), 1])
    calm = chance.random(doy.size) < settings.calm
    mean_flow, waves = (np.where(calm, chance.random(doy.size) ** power, 1.0) for power in (1, 3))

    columns = generate_columns(doy.size, rng, grid=get_grid(settings.grid), doy=doy, mean_flow=mean_flow, waves=waves)
    drag = gravity_wave_drag(
        columns.u,
        columns.v,
        columns.t,
        columns.half_pressure,
        latitude=columns.lat,
        parameters=SchemeParameters(n_azimuths=settings.azimuths, n_speeds=settings.speeds),
        threads=1,
    )
    y = np.concatenate([drag.dudt, drag.dvdt], axis=1).astype(np.float32)  # (n, 2 L)
    write_raw(
        path,
        columns.inputs(),
        y,
        {"lat": columns.lat.astype(np.float32), "doy": doy.astype(np.float32)},
        n_times=settings.times,
        attributes={
            "title": "demo columns and non-orographic gravity-wave drag",
            "source": "ai4sim weather_forecast/gwd: generated columns, Warner-McIntyre-Scinocca scheme",
            MARK: _identity(settings, n_columns),
        },
    )


def write_raw(
    path: Path,
    x: Float,
    y: Float,
    auxiliaries: Mapping[str, Float],
    *,
    n_times: int,
    attributes: Mapping[str, str],
) -> None:
    """Write rows in the public schema: HDF5 (feature, time, column), or NetCDF-4 (examples, feature) for ``.nc``.

    Args:
        path: file to make.
        x: (n, n_inputs).
        y: (n, n_outputs).
        auxiliaries: (n,) each.
        n_times: times that the rows divide into; each has the same number of columns.
        attributes: of the file.
    """
    partial = path.with_name(path.name + ".partial")
    with h5py.File(partial, "w") as file:
        file.attrs.update(attributes)
        if path.suffix == ".nc":
            _write_netcdf(file, x, y, auxiliaries)
        else:
            for name, values in (("x", x), ("y", y)):
                file[name] = np.ascontiguousarray(values.reshape(n_times, -1, values.shape[1]).transpose(2, 0, 1))
            for name, values in auxiliaries.items():
                file[name] = values.reshape(n_times, -1)
        for name in auxiliaries:
            file[name].attrs["units"] = config.UNITS[name]
    partial.replace(path)


def _write_netcdf(file: h5py.File, x: Float, y: Float, auxiliaries: Mapping[str, Float]) -> None:
    """NetCDF-4 is HDF5 with dimension scales."""
    for dim, size in (("examples", len(x)), ("feature_x", x.shape[1]), ("feature_y", y.shape[1])):
        file[dim] = np.arange(size, dtype=np.int32)
        file[dim].make_scale(dim)
    for name, values, dims in (
        ("x", x, ("examples", "feature_x")),
        ("y", y, ("examples", "feature_y")),
        *((name, values, ("examples",)) for name, values in auxiliaries.items()),
    ):
        file[name] = values
        for axis, dim in enumerate(dims):
            file[name].dims[axis].attach_scale(file[dim])


def _identity(settings: DemoSettings, n_columns: int) -> str:
    content = {k: v for k, v in asdict(settings).items() if k not in {"train", "validation", "test"}}
    return json.dumps({**content, "columns": n_columns}, sort_keys=True)


def _is_there(path: Path, identity: str) -> bool:
    if not path.exists():
        return False
    try:
        with h5py.File(path, "r") as file:
            found = file.attrs.get(MARK)
    except OSError as error:
        raise InputError(f"{path}: truncated or not HDF5 ({error}); remove it to have it made again") from error
    if found is None:
        raise InputError(f"{path} is no demo file: point the demo at an empty folder, or remove the demo settings")
    if found != identity:
        raise InputError(f"{path} was made with other demo settings ({found}): remove it, or name another dataset")
    return True
