"""Hybrid vertical grids and the hydrostatic relation between temperature and geopotential.

Levels are numbered 1..K from the model top downward; half-level k is the interface on top of level k, with
pressure ``a_k + b_k ps``. The coefficients of L91 and L137 are those of ECMWF's model level definitions.
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ai4sim.errors import InputError
from weather_forecast.gwd import config

REFERENCE_PRESSURE = 101325.0  # Pa, surface pressure at which levels are named

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class VerticalGrid:
    """Hybrid sigma-pressure grid of K levels.

    Args:
        name: name used in file attributes and messages.
        a_half: (K+1,) coefficients a in Pa, from the top downward.
        b_half: (K+1,) coefficients b.

    Raises:
        InputError: the coefficients are not two finite vectors of one length, or half-level pressure does not
            increase strictly downward at a surface pressure of 1013.25 hPa.
    """

    name: str
    a_half: Array
    b_half: Array

    def __post_init__(self) -> None:
        for field in ("a_half", "b_half"):
            values = np.array(getattr(self, field), dtype=np.float64)
            values.flags.writeable = False
            object.__setattr__(self, field, values)
        if self.a_half.ndim != 1 or self.a_half.shape != self.b_half.shape or self.a_half.size < 2:
            raise InputError(
                f"grid {self.name}: a_half and b_half must be vectors of one length, K+1 >= 2; "
                f"they have shapes {self.a_half.shape} and {self.b_half.shape}"
            )
        pressure = self.half_pressure(REFERENCE_PRESSURE)
        if not np.isfinite(pressure).all():
            raise InputError(f"grid {self.name}: coefficient {int(np.argmin(np.isfinite(pressure))) + 1} is not finite")
        increments = np.diff(pressure)
        if (increments <= 0).any():
            k = int(np.argmax(increments <= 0)) + 2
            raise InputError(
                f"grid {self.name}: half-level pressure does not increase downward at half-level {k} "
                f"({pressure[k - 2]:g} -> {pressure[k - 1]:g} Pa at ps = {REFERENCE_PRESSURE:g} Pa)"
            )

    @property
    def n_levels(self) -> int:
        """Number of full levels K."""
        return self.a_half.size - 1

    def half_pressure(self, ps: ArrayLike) -> Array:
        """Pressure at the half-levels, (..., K+1) in Pa, for surface pressures (...) in Pa."""
        return self.a_half + self.b_half * np.asarray(ps, dtype=np.float64)[..., None]

    def full_pressure(self, ps: ArrayLike) -> Array:
        """Pressure at the full levels, the mean of their half-levels, (..., K) in Pa."""
        half = self.half_pressure(ps)
        return (half[..., 1:] + half[..., :-1]) / 2

    def launch_level(self, pressure: float = 45000.0, reference: float = REFERENCE_PRESSURE) -> int:
        """Number (from 1 at the top) of the first level whose pressure exceeds the launch pressure.

        Args:
            pressure: launch pressure, Pa.
            reference: surface pressure for which levels are compared, Pa.

        Raises:
            InputError: the grid ends above the launch pressure.
        """
        levels = self.full_pressure(reference)
        below = levels > pressure
        if not below.any():
            raise InputError(
                f"grid {self.name} has no launch level: its lowest level lies at {levels[-1]:.0f} Pa, "
                f"above the launch pressure of {pressure:g} Pa"
            )
        return int(np.argmax(below)) + 1

    def truncate(self, n_levels: int) -> "VerticalGrid":
        """Return the grid of the levels 1..n_levels.

        Raises:
            InputError: the grid does not have that many levels.
        """
        if not 1 <= n_levels <= self.n_levels:
            raise InputError(f"grid {self.name} has levels 1..{self.n_levels}; cannot keep {n_levels}")
        return VerticalGrid(f"{self.name}[1..{n_levels}]", self.a_half[: n_levels + 1], self.b_half[: n_levels + 1])

    @classmethod
    def from_csv(cls, path: Path | str) -> "VerticalGrid":
        """Read a grid from a CSV file of the columns ``a`` (Pa) and ``b``, one half-level per row.

        Raises:
            InputError: a column is missing or a value is not a number; names the file and row.
        """
        path = Path(path)
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            missing = {"a", "b"} - set(reader.fieldnames or ())
            if missing:
                raise InputError(
                    f"{path}: column {' and '.join(sorted(missing))} missing; "
                    "the first row must name the columns a and b"
                )
            a, b = [], []
            for row in reader:
                try:
                    a.append(float(row["a"]))
                    b.append(float(row["b"]))
                except (TypeError, ValueError):
                    raise InputError(
                        f"{path}, row {reader.line_num}: a, b must be numbers, not {row['a']!r}, {row['b']!r}"
                    ) from None
        try:
            return cls(path.stem, np.array(a), np.array(b))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None


def hydrostatic_weights(half_pressure: Array, axis: int = -1) -> tuple[Array, Array]:
    """Weights r and alpha of the hydrostatic equation on layers (Simmons & Burridge 1981, MWR 109, 758-766).

    r_k = ln(p_{k+1/2} / p_{k-1/2}) and alpha_k = 1 - p_{k-1/2} / dp_k r_k: geopotential rises by R T_k r_k
    across layer k, of which R T_k alpha_k lies between its lower half-level and the full level. A top
    half-level of zero pressure has alpha = ln 2 and an infinite r, returned as 0: nothing lies above it.

    Args:
        half_pressure: Pa, K+1 half-levels along ``axis``.
        axis: of the levels.

    Returns:
        r and alpha, with K levels along ``axis``.
    """
    p = np.moveaxis(half_pressure, axis, 0)
    top, bottom = p[:-1], p[1:]
    bounded = top > 0
    r = np.log(np.divide(bottom, top, where=bounded, out=np.ones_like(top)))
    alpha = 1 - top / (bottom - top) * r
    alpha[~bounded] = np.log(2.0)
    return np.moveaxis(r, 0, axis), np.moveaxis(alpha, 0, axis)


def geopotential(t: Array, half_pressure: Array, surface_geopotential: Array) -> Array:
    """Hydrostatic geopotential of dry air at the full levels.

    Args:
        t: (..., K) temperature down to the surface, K.
        half_pressure: (..., K+1) Pa.
        surface_geopotential: (...) m2 s-2.

    Returns:
        (..., K) in m2 s-2.
    """
    r, alpha = hydrostatic_weights(half_pressure)
    rt = config.GAS_CONSTANT * t
    rise = rt * r
    below = np.cumsum(rise[..., ::-1], axis=-1)[..., ::-1] - rise
    return surface_geopotential[..., None] + below + rt * alpha


def get_grid(name: str) -> VerticalGrid:
    """Look up a grid by name.

    Args:
        name: ``L91``, ``L137``, or the path of a CSV file (see :meth:`VerticalGrid.from_csv`).

    Raises:
        InputError: unknown name.
        FileNotFoundError: the CSV file does not exist.
    """
    if name.lower().endswith(".csv"):
        return VerticalGrid.from_csv(name)
    if name not in _COEFFICIENTS:
        raise InputError(
            f"unknown vertical grid {name!r}: take {' or '.join(_COEFFICIENTS)}, or a .csv file of a and b"
        )
    return _standard_grid(name)


@cache
def _standard_grid(name: str) -> VerticalGrid:
    a, b = (np.array(text.split(), dtype=np.float64) for text in _COEFFICIENTS[name])
    # the tables omit the zeros of the pressure levels
    return VerticalGrid(name, a, np.concatenate([np.zeros(a.size - b.size), b]))


_L91_A = """
0 2.00004 3.980832 7.387186 12.90832 21.41361 33.95286 51.7466 76.16766 108.7156 150.986 204.6375 271.3565
352.8245 450.6858 566.5192 701.8134 857.9458 1036.167 1237.585 1463.164 1713.71 1989.874 2292.156 2620.898
2976.302 3358.426 3767.196 4202.417 4663.776 5150.86 5663.156 6199.839 6759.727 7341.47 7942.926 8564.624
9208.306 9873.561 10558.88 11262.48 11982.66 12713.9 13453.23 14192.01 14922.69 15638.05 16329.56 16990.62
17613.28 18191.03 18716.97 19184.54 19587.51 19919.8 20175.39 20348.92 20434.16 20426.22 20319.01 20107.03
19785.36 19348.78 18798.82 18141.3 17385.6 16544.59 15633.57 14665.65 13653.22 12608.38 11543.17 10471.31
9405.223 8356.253 7335.165 6353.921 5422.803 4550.216 3743.464 3010.147 2356.203 1784.855 1297.656 895.1935
576.3141 336.7724 162.0434 54.20834 6.575628 0.00316 0
"""
_L91_B = """
1.4e-05 5.5e-05 0.000131 0.000279 0.000548 0.001 0.001701 0.002765 0.004267 0.006322 0.009035 0.012508
0.01686 0.022189 0.02861 0.036227 0.045146 0.055474 0.067316 0.080777 0.095964 0.112979 0.131935 0.152934
0.176091 0.20152 0.229315 0.259554 0.291993 0.326329 0.362203 0.399205 0.436906 0.475016 0.51328 0.551458
0.589317 0.626559 0.662934 0.698224 0.732224 0.764679 0.795385 0.824185 0.85095 0.875518 0.897767 0.917651
0.935157 0.950274 0.963007 0.973466 0.982238 0.989153 0.994204 0.99763 1
"""
_L137_A = """
0 2.000365 3.102241 4.666084 6.827977 9.746966 13.605424 18.608931 24.985718 32.98571 42.879242 54.955463
69.520576 86.895882 107.41574 131.42551 159.2794 191.33856 227.96895 269.53958 316.42075 368.98236 427.5925
492.61603 564.41345 643.33991 729.74414 823.96783 926.34491 1037.2012 1156.8536 1285.6104 1423.7701
1571.6229 1729.449 1897.5193 2076.0959 2265.4316 2465.7705 2677.3481 2900.3914 3135.1194 3381.7437 3640.4683
3911.4905 4194.9307 4490.8174 4799.1494 5119.895 5452.9907 5798.3447 6156.0742 6526.9468 6911.8706 7311.8691
7727.4121 8159.354 8608.5254 9076.4004 9562.6826 10065.979 10584.632 11116.662 11660.067 12211.548 12766.873
13324.669 13881.331 14432.14 14975.615 15508.257 16026.115 16527.322 17008.789 17467.613 17901.621 18308.434
18685.719 19031.289 19343.512 19620.043 19859.391 20059.932 20219.664 20337.863 20412.309 20442.078
20425.719 20361.816 20249.512 20087.086 19874.025 19608.572 19290.227 18917.461 18489.707 18006.926 17471.84
16888.688 16262.047 15596.695 14898.453 14173.324 13427.77 12668.258 11901.34 11133.305 10370.176 9617.5156
8880.4531 8163.375 7470.3438 6804.4219 6168.5312 5564.3828 4993.7969 4457.375 3955.9609 3489.2344 3057.2656
2659.1406 2294.2422 1961.5 1659.4766 1387.5469 1143.25 926.50781 734.99219 568.0625 424.41406 302.47656
202.48438 122.10156 62.78125 22.835938 3.757813 0 0
"""
_L137_B = """
7e-06 2.4e-05 5.9e-05 0.000112 0.000199 0.00034 0.000562 0.00089 0.001353 0.001992 0.002857 0.003971
0.005378 0.007133 0.009261 0.011806 0.014816 0.018318 0.022355 0.026964 0.032176 0.038026 0.044548 0.051773
0.059728 0.068448 0.077958 0.088286 0.099462 0.111505 0.124448 0.138313 0.153125 0.16891 0.185689 0.203491
0.222333 0.242244 0.263242 0.285354 0.308598 0.332939 0.358254 0.384363 0.411125 0.438391 0.466003 0.4938
0.521619 0.549301 0.576692 0.603648 0.630036 0.655736 0.680643 0.704669 0.727739 0.749797 0.770798 0.790717
0.809536 0.827256 0.843881 0.859432 0.873929 0.887408 0.8999 0.911448 0.922096 0.931881 0.94086 0.949064
0.95655 0.963352 0.969513 0.975078 0.980072 0.984542 0.9885 0.991984 0.995003 0.99763 1
"""
_COEFFICIENTS = {"L91": (_L91_A, _L91_B), "L137": (_L137_A, _L137_B)}

L91 = get_grid("L91")
L137 = get_grid("L137")
