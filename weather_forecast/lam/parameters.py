"""Parameters: one field at one level from one model, such as ``aro_t_850hpa``."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from ai4sim.errors import InputError
from weather_forecast.lam import config
from weather_forecast.lam.config import Field

_NAME = re.compile(r"(?P<source>[a-z]+)_(?P<short>[a-z0-9]+)_(?P<level>\d+)(?P<unit>m|hpa)")


@dataclass(frozen=True)
class Parameter:
    """One field at one level.

    Args:
        source: model it comes from, such as ``aro``.
        short: short name of the field, such as ``t``.
        level: height above ground in m, or pressure in hPa.
        unit: ``m`` or ``hpa``.
    """

    source: str
    short: str
    level: int
    unit: str

    @classmethod
    def parse(cls, name: str) -> "Parameter":
        """The parameter of a name ``<source>_<short>_<level><unit>``.

        Raises:
            InputError: the name has another form, or an unknown source, field or level; names the nearest one.
        """
        match = _NAME.fullmatch(name)
        if match is None:
            raise InputError(f"parameter {name!r} is not of the form aro_t_850hpa or aro_t2m_2m (units: m, hpa)")
        parameter = cls(match["source"], match["short"], int(match["level"]), match["unit"])
        _known("source", parameter.source, config.SOURCES, name)
        _known("field", parameter.short, config.FIELDS, name)
        if parameter.is_isobaric and parameter.level not in config.LEVELS:
            raise InputError(f"parameter {name!r}: level {parameter.level} hPa is unknown; valid are {config.LEVELS}")
        return parameter

    @property
    def name(self) -> str:
        """``<source>_<short>_<level><unit>``."""
        return f"{self.source}_{self.short}_{self.level}{self.unit}"

    @property
    def suffix(self) -> str:
        """The name without its source: what parameters of two models have in common."""
        return self.name.partition("_")[2]

    @property
    def is_isobaric(self) -> bool:
        """Whether the level is a pressure (mean sea level pressure has the unit hPa and the level 0 in file names)."""
        return self.unit == "hpa" and self.level > 0

    @property
    def field(self) -> Field:
        """What is known of the field."""
        return config.FIELDS[self.short]

    @property
    def units(self) -> str:
        """Units of the values."""
        return self.field.units

    @property
    def title(self) -> str:
        """Short name and level for figures and tables, such as ``t 850 hPa``."""
        if self.is_isobaric:
            return f"{self.field.long_name} {self.level} hPa"
        return self.field.long_name

    @property
    def weight(self) -> float:
        """Weight in the loss: 1 + level/1000 on pressure levels, 2 elsewhere."""
        return 1 + self.level / 1000 if self.is_isobaric else 2.0


def parse_all(names: Sequence[str]) -> list[Parameter]:
    """Parameters of several names.

    Raises:
        InputError: a name is bad or repeats.
    """
    if len(set(names)) < len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise InputError(f"parameters repeat: {', '.join(repeated)}")
    return [Parameter.parse(name) for name in names]


def spread_name(name: str) -> str:
    """Name of a forecast parameter's standard deviation."""
    return f"{name}_spread"


def host_matches(state: Sequence[str], forcing: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of places (state, forcing) of the same field and level of two models: the analysed one and its host."""
    known, hosts = [Parameter.parse(name) for name in state], [Parameter.parse(name) for name in forcing]
    return [
        (i, j)
        for i, own in enumerate(known)
        for j, host in enumerate(hosts)
        if own.suffix == host.suffix and own.source != host.source
    ]


def _known(kind: str, value: str, valid: Sequence[str] | dict, name: str) -> None:
    if value not in valid:
        near = get_close_matches(value, list(valid), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"parameter {name!r}: {kind} {value!r} is unknown; valid are {', '.join(valid)}{hint}")
