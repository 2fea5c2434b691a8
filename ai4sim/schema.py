"""What a data set must look like: named variables with dimensions, units, types and ranges.

A schema is written once per use case (in its ``config.py``) and used twice: raw files are checked against
it, and the processed store takes its variables and attributes from it.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from ai4sim.errors import InputError


class SchemaError(InputError):
    """A data set does not follow its schema; the message lists every deviation."""


@dataclass(frozen=True)
class Variable:
    """One variable of a data set.

    Args:
        name: name in the file.
        dims: dimension names, in order.
        units: UDUNITS string as stored in the attribute ``units``; empty for "carries no units".
        dtype: type it is written with; on reading, any type of the same kind (float, integer ...) will do.
        valid_range: smallest and largest physically possible value, both included.
        long_name: words for a figure's axis.
        standard_name: CF standard name, if there is one.
        optional: whether a data set without it is still valid.
    """

    name: str
    dims: tuple[str, ...]
    units: str
    dtype: str = "float32"
    valid_range: tuple[float, float] | None = None
    long_name: str = ""
    standard_name: str = ""
    optional: bool = False

    @property
    def attrs(self) -> dict[str, Any]:
        """Attributes to write with the variable, following the CF conventions."""
        attrs = {"units": self.units, "long_name": self.long_name, "standard_name": self.standard_name}
        return {key: value for key, value in attrs.items() if value}

    def problems(self, array: xr.DataArray, sizes: Mapping[str, int], *, values: bool) -> list[str]:
        """List what is wrong with ``array``, each entry with what was found and what was expected.

        Args:
            array: the variable as found.
            sizes: required length of the dimensions that have a fixed one.
            values: whether to read the values, for missing ones and for the valid range.
        """
        found: list[str] = []
        if array.dims != self.dims:
            found.append(f"has dimensions {_names(array.dims)}, expected {_names(self.dims)}")
        found += [
            f"has {array.sizes[dim]} entries along {dim!r}, expected {sizes[dim]}"
            for dim in self.dims
            if dim in sizes and dim in array.dims and array.sizes[dim] != sizes[dim]
        ]
        units = array.attrs.get("units")
        if self.units and units is None:
            found.append(f"has no attribute 'units', expected {self.units!r}")
        elif self.units and str(units).split() != self.units.split():
            found.append(f"is in {str(units)!r}, expected units {self.units!r}")
        if array.dtype.kind != np.dtype(self.dtype).kind:
            found.append(f"is of type {array.dtype}, expected {self.dtype}")
        elif values and not found:
            found += self._value_problems(array)
        return found

    def _value_problems(self, array: xr.DataArray) -> list[str]:
        values = array.to_numpy()
        found: list[str] = []
        finite = np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, bool)
        if not finite.all():
            found.append(f"has {_count(~finite, self.dims)} missing or infinite")
        if self.valid_range is not None:
            low, high = self.valid_range
            outside = finite & ((values < low) | (values > high))
            if outside.any():
                extremes = f"{values[finite].min():g} .. {values[finite].max():g}"
                found.append(
                    f"has {_count(outside, self.dims)} outside the valid range {low:g} .. {high:g}"
                    f" {self.units} (found {extremes})"
                )
        return found


@dataclass(frozen=True)
class Schema:
    """The variables of a data set.

    Args:
        name: name of the data set, used in messages and manifests.
        version: raised whenever the processed form changes, so that older stores are rebuilt.
        variables: what the data set must (or, if optional, may) hold; further variables are ignored.
        sizes: length of the dimensions that have a fixed one, such as the number of levels.
    """

    name: str
    version: int
    variables: tuple[Variable, ...]
    sizes: Mapping[str, int] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Variable:
        for variable in self.variables:
            if variable.name == name:
                return variable
        known = ", ".join(variable.name for variable in self.variables)
        raise KeyError(f"schema {self.name!r} has no variable {name!r}; it has {known}")

    def check(self, dataset: xr.Dataset, source: str, *, values: bool = False) -> None:
        """Raise if ``dataset`` does not follow the schema.

        Args:
            dataset: what was read.
            source: where it was read from, to be named in the message.
            values: also read every value, and look for missing ones and for the valid range.

        Raises:
            SchemaError: listing every problem, with file, variable, what was found and what was expected.
        """
        problems: list[str] = []
        for variable in self.variables:
            if variable.name in dataset.variables:
                array = dataset[variable.name]
                problems += [
                    f"variable {variable.name!r} {problem}"
                    for problem in variable.problems(array, self.sizes, values=values)
                ]
            elif not variable.optional:
                held = _names(tuple(dataset.variables))
                problems.append(f"variable {variable.name!r} is missing; the file holds {held}")
        if problems:
            lines = "\n".join(f"  - {problem}" for problem in problems)
            raise SchemaError(f"{source} does not follow the schema {self.name!r}:\n{lines}")


def _names(names: tuple[Hashable, ...]) -> str:
    return f"({', '.join(str(name) for name in names)})"


def _count(bad: np.ndarray[Any, np.dtype[np.bool_]], dims: tuple[str, ...]) -> str:
    """Say how many values are bad, and where the first one is."""
    first = np.unravel_index(int(bad.argmax()), bad.shape)
    where = ", ".join(f"{dim}={index}" for dim, index in zip(dims, first, strict=True))
    return f"{int(bad.sum())} of {bad.size} values (first at {where})"
