"""Sums over the test pairs, of which all scores and curves are functions."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import xarray as xr

from ai4sim.verification import (
    ensemble_statistics,
    error_statistics,
    histogram_statistics,
    line_statistics,
    merge,
    merge_sums,
    multivariate_statistics,
    rank_statistics,
    spread_skill_statistics,
)
from downscaling.corrdiff.flow import KINETIC_ENERGY, divergence_and_vorticity
from downscaling.corrdiff.samples import GRID, MEMBER, TEMPERATURES, TRUTH, WIND, WINDS, Part, TestSamples

REDUCED: Final = ("sample", *GRID)
BINS: Final = 4000
"""Bins of values; they also hold what is half the observed range beyond its ends."""
POINTS: Final = 24
"""Points of the energy and the variogram score."""
JOINT_BINS: Final = 80
WET: Final = 0.1
"""Amount, in a variable's units, above which it is wet: less than that of rain is drizzle or nothing."""
EVENTS: Final[Mapping[str, Callable[[xr.DataArray], xr.DataArray]]] = {
    "wet": lambda amount: amount > WET,
    "zero": lambda amount: amount == 0,
}
DIRECTIONS: Final = (("x", "y"), ("y", "x"))
TEMPERATURE, SPEED = "temperature", "speed"
"""Dimensions of joint distributions."""

Statistics = dict[str, dict[str, xr.Dataset]]
"""Variable, then product, to sums."""


class Sums:
    """What is accumulated part by part.

    Args:
        samples: of a run.
    """

    def __init__(self, samples: TestSamples) -> None:
        self.samples = samples
        bounds = samples.bounds()
        self._edges = {name: _edges(*ends) for name, ends in bounds.items()}
        self.names = [name for name in (*samples.channels, WIND) if name in bounds]
        self.winds = next((pair for pair in WINDS if set(pair) <= set(bounds)), None)
        """Names of the components of the wind."""
        self.temperature = next((name for name in TEMPERATURES if name in bounds), None)
        self._parts: dict[str, dict[str, dict[str, list[xr.Dataset]]]] = defaultdict(
            lambda: defaultdict(lambda: defaultdict(list))
        )

    def add(self, part: Part) -> None:
        """Add some pairs."""
        spacing = self.samples.spacing_or_one
        for product, fields in part.products.items():
            for name, values in fields.items():
                truth = part.truth[name]
                members = values if MEMBER in values.dims else values.expand_dims(MEMBER, axis=1)
                options: dict[str, Any] = {"reduce": REDUCED, "block": part.block}
                self._note("scores", name, product, ensemble_statistics(members, truth, **options))
                whole = ensemble_statistics(members, truth, reduce="sample")
                self._note("map", name, product, whole)
                for along, other in DIRECTIONS:
                    lines = line_statistics(
                        values, truth, spacing=spacing, along=along, reduce=["sample", other], block=part.block
                    )
                    self._note(f"spectra_{along}", name, product, lines)
                histogram = histogram_statistics(values, truth, edges=self._edges[name], **options)
                self._note("histogram", name, product, histogram)
                if MEMBER in values.dims:
                    self._note("ranks", name, product, rank_statistics(values, truth, **options))
                    self._note("spread_skill", name, product, spread_skill_statistics(values, truth, **options))
        for product, fields in part.products.items():
            if set(fields) == set(part.truth):
                self._note("together", "all", product, self._together(part, fields))
                self._note_joint(product, fields, part.truth)
            self._note_flow(product, fields, part)
        self._note_consistency(part)
        self._note_amounts(part)

    def _note_joint(self, product: str, fields: Mapping[str, xr.DataArray], truth: Mapping[str, xr.DataArray]) -> None:
        """Counts of pairs of a temperature and a wind speed."""
        if self.temperature is None or self.winds is None:
            return
        axes = ((TEMPERATURE, self.temperature), (SPEED, WIND))
        ends = [self._edges[name] for _, name in axes]
        edges = [np.linspace(float(own[0]), float(own[-1]), JOINT_BINS + 1) for own in ends]
        counts: dict[str, Any] = {}
        for side, own in (("prediction", fields), ("target", truth)):
            values = np.stack([own[name].values.ravel() for _, name in axes], axis=1)
            counts[f"{side}_count"] = ((TEMPERATURE, SPEED), np.histogramdd(values, bins=edges)[0])
        middles = {
            dim: (dim, 0.5 * (own[1:] + own[:-1]), {"units": self.samples.units_of(name)})
            for (dim, name), own in zip(axes, edges, strict=True)
        }
        self._note("joint", "all", product, xr.Dataset(counts, middles))

    def _note_flow(self, product: str, fields: Mapping[str, xr.DataArray], part: Part) -> None:
        """Lines of divergence and vorticity."""
        if self.winds is None or not set(self.winds) <= set(fields) or min(self.samples.known["output_shape"]) < 4:
            return
        samples, (u, v) = self.samples, self.winds
        found, true = (
            divergence_and_vorticity(own[u], own[v], samples.spacing_or_one, northward=samples.northward)
            for own in (fields, part.truth)
        )
        for name in map(str, found):
            for along, other in DIRECTIONS:
                lines = line_statistics(
                    found[name],
                    true[name],
                    spacing=samples.spacing_or_one,
                    along=along,
                    reduce=["sample", other],
                    block=part.block,
                )
                self._note(f"flow_{along}", name, product, lines)

    def _together(self, part: Part, fields: Mapping[str, xr.DataArray]) -> xr.Dataset:
        """Of all variables at once, each over its standard deviation in training."""
        names = [name for name in fields if name != WIND]
        scale = xr.DataArray([self.samples.std[name] for name in names], {"variable": names}, ["variable"])
        members, truth = (
            xr.concat(
                [source[name].drop_attrs() for name in names], xr.DataArray(names, dims="variable", name="variable")
            )
            for source in (fields, part.truth)
        )
        if MEMBER not in members.dims:
            members = members.expand_dims(MEMBER, axis=1)
        return multivariate_statistics(
            members, truth, points=POINTS, variable="variable", scale=scale, reduce="sample", block=part.block
        )

    def _note_consistency(self, part: Part) -> None:
        """Errors of means over coarse cells against the coarse input, of the same variable."""
        factor = self.samples.factor
        if factor == 1:
            return
        cells = {"y": factor, "x": factor}
        for name, coarse in part.coarse.items():
            for product, fields in ({TRUTH: part.truth} | dict(part.products)).items():
                if name not in fields:
                    continue
                values = fields[name].mean(MEMBER) if MEMBER in fields[name].dims else fields[name]
                means = values.coarsen(cells).mean().assign_attrs(coarse.attrs)
                sums = error_statistics(means, coarse, reduce=REDUCED, block=part.block)
                self._note("consistency", name, product, sums)

    def _note_amounts(self, part: Part) -> None:
        """How often outputs with a transform are wet, and how often 0: what its inverse makes of all that is below."""
        for name, kind in zip(self.samples.channels, self.samples.transforms, strict=True):
            for product, fields in ({TRUTH: part.truth} | dict(part.products)).items() if kind != "none" else ():
                if name not in fields:
                    continue
                for event, occurs in EVENTS.items():
                    share, true = (_share(occurs(values)) for values in (fields[name], part.truth[name]))
                    sums = error_statistics(share, true, reduce=REDUCED, block=part.block)
                    self._note(event, name, product, sums)

    def _note(self, kind: str, name: str, product: str, sums: xr.Dataset) -> None:
        self._parts[kind][name][product].append(sums)

    def of(self, kind: str) -> Statistics:
        """Sums over all parts.

        Args:
            kind: ``scores``, ``map`` (by place in the domain), ``spectra_x``, ``spectra_y``, ``histogram``, ``ranks``,
                ``spread_skill``, ``together`` (of all variables), ``joint`` (of temperature and wind speed),
                ``flow_x``, ``flow_y`` (spectra of divergence and vorticity), ``consistency`` (of means over coarse
                cells), ``wet`` or ``zero`` (of shares of the members).
        """
        join = merge if kind in ("consistency", *EVENTS) else merge_sums
        found = self._parts[kind]
        ordered = [*(name for name in self.names if name in found), *(name for name in found if name not in self.names)]
        return {name: {product: join(*parts) for product, parts in found[name].items()} for name in ordered}

    def spectra(self) -> Statistics:
        """Along rows and columns together, where they are of equal length."""
        return self._both_directions("spectra")

    def flow(self) -> Statistics:
        """Spectra of the wind's kinetic energy, the mean of its components', of its divergence and its vorticity."""
        if self.winds is None:
            return {}
        spectra = self.spectra()
        u, v = (spectra[name] for name in self.winds)
        energy = {product: merge_sums(sums, v[product]) for product, sums in u.items() if product in v}
        return {KINETIC_ENERGY: energy, **self._both_directions("flow")}

    def _both_directions(self, kind: str) -> Statistics:
        rows, columns = self.of(f"{kind}_x"), self.of(f"{kind}_y")
        if self.samples.known["output_shape"][0] != self.samples.known["output_shape"][1]:
            return rows
        return {
            name: {product: merge_sums(sums, columns[name][product]) for product, sums in products.items()}
            for name, products in rows.items()
        }


def _share(event: xr.DataArray) -> xr.DataArray:
    """Share of the members in which an event is; of single fields 0 or 1."""
    share = event.mean(MEMBER) if MEMBER in event.dims else event.astype(float)
    return share.drop_attrs().assign_attrs(units="1")


def _edges(low: float, high: float) -> Any:
    """Of bins; those of what is never negative begin with 0."""
    margin = 0.5 * max(high - low, 1e-6)
    return np.linspace(max(low - margin, 0.0) if low >= 0 else low - margin, high + margin, BINS + 1)
