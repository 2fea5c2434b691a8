"""Mean and standard deviation of every variable in a JSON file, as they come with HRRR-Mini."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from ai4sim.atomic import atomic_path
from ai4sim.errors import InputError, MissingFileError
from downscaling.corrdiff.readers.files import listed
from downscaling.corrdiff.scaling import TRANSFORMS

SCHEMA: Final = 1
KINDS: Final = ("input", "output", "invariant")


class Moments(NamedTuple):
    """Of one variable, after its transform.

    Args:
        mean: in its units, or those of the transform.
        std: standard deviation, above 0.
        transform: name of what is done before.
    """

    mean: float
    std: float
    transform: str = "none"


@dataclass(frozen=True)
class Statistics:
    """Moments of all variables of a data set.

    Args:
        input: by name.
        output: by name.
        invariant: by name.
        period: first and last time, as text; None where it is not known.
        n_samples: they are of; None where it is not known.
    """

    input: Mapping[str, Moments] = field(default_factory=dict)
    output: Mapping[str, Moments] = field(default_factory=dict)
    invariant: Mapping[str, Moments] = field(default_factory=dict)
    period: tuple[str, str] | None = None
    n_samples: int | None = None


def read_statistics(
    path: Path,
    *,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    invariants: Sequence[str] | None = None,
) -> Statistics:
    """Read ``stats.json``.

    Args:
        path: the file.
        inputs: variables that are needed, in order; by default all of the file.
        outputs: likewise.
        invariants: likewise.

    Returns:
        Those of the variables that are needed.

    Raises:
        MissingFileError: the file is not there.
        InputError: it is no such file, lacks a variable, or has a mean or standard deviation that is no use.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} (statistics) is not there; compute them from the data")
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is no JSON file: {error}") from error
    if not isinstance(content, dict) or content.get("schema", SCHEMA) != SCHEMA:
        raise InputError(f"{path}: expected an object of schema {SCHEMA} with {', '.join(KINDS)}")
    period, n_samples = content.get("period"), content.get("n_samples")
    needed = dict(zip(KINDS, (inputs, outputs, invariants), strict=True))
    moments = {kind: _moments(content.get(kind, {}), names, kind, path) for kind, names in needed.items()}
    return Statistics(
        **moments,
        period=None if period is None else (str(period[0]), str(period[-1])),
        n_samples=None if n_samples is None else int(n_samples),
    )


def _moments(held: Any, names: Sequence[str] | None, kind: str, path: Path) -> dict[str, Moments]:
    if not isinstance(held, dict):
        raise InputError(f"{path}: {kind!r} is {held!r}; expected an object of variables")
    found = {}
    for name in held if names is None else names:
        if name not in held:
            raise InputError(
                f"{path} has no statistics of the {kind} variable {name!r}; it has {listed(list(held))}; compute them "
                "anew"
            )
        entry = held[name]
        try:
            moments = Moments(float(entry["mean"]), float(entry["std"]), str(entry.get("transform", "none")))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path}: {kind} variable {name!r} is {entry}; expected mean and std") from error
        _check(moments, f"{path}: {kind} variable {name!r}")
        found[str(name)] = moments
    return found


def _check(moments: Moments, what: str) -> None:
    if not math.isfinite(moments.mean):
        raise InputError(f"{what} has mean {moments.mean}; expected a number")
    if not (math.isfinite(moments.std) and moments.std > 0):
        raise InputError(f"{what} has std {moments.std}; expected a number above 0: is the variable constant?")
    if moments.transform not in TRANSFORMS:
        raise InputError(f"{what} has the transform {moments.transform!r}; known are {', '.join(TRANSFORMS)}")


def write_statistics(path: Path, statistics: Statistics) -> None:
    """Write ``stats.json``, as a whole or not at all.

    Args:
        path: the file.
        statistics: what to write; transforms that do nothing are left out.

    Raises:
        InputError: a mean or standard deviation that is no use.
    """
    content: dict[str, Any] = {"schema": SCHEMA}
    for kind in KINDS:
        content[kind] = {}
        for name, moments in getattr(statistics, kind).items():
            _check(moments, f"{kind} variable {name!r}")
            entry: dict[str, Any] = {"mean": moments.mean, "std": moments.std}
            content[kind][name] = entry if moments.transform == "none" else entry | {"transform": moments.transform}
    if statistics.period is not None:
        content["period"] = list(statistics.period)
    if statistics.n_samples is not None:
        content["n_samples"] = statistics.n_samples
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n")
