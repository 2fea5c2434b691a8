"""Where each quantity stands in the flat input and output vectors of one column."""

from dataclasses import dataclass

from weather_forecast.gwd import config


@dataclass(frozen=True)
class ColumnLayout:
    """Order of the features of one column, ``x`` (n_inputs) and ``y`` (n_outputs).

    ``x`` holds the profiles one after the other, each from the model top downward, then the scalars;
    ``y`` holds the tendency profiles likewise.

    Args:
        n_levels: full levels per profile (63 in the public data set).
        scalars: names of the scalars that follow the profiles; extra inputs such as ``lat`` are appended here.
    """

    n_levels: int = 63
    scalars: tuple[str, ...] = config.SCALARS
    profiles: tuple[str, ...] = config.PROFILES
    targets: tuple[str, ...] = config.TARGETS

    @property
    def n_inputs(self) -> int:
        """Length of ``x``."""
        return len(self.profiles) * self.n_levels + len(self.scalars)

    @property
    def n_outputs(self) -> int:
        """Length of ``y``."""
        return len(self.targets) * self.n_levels

    def slice_of(self, name: str) -> slice:
        """Position of a profile or scalar in ``x``, or of a target in ``y``."""
        if name in self.profiles or name in self.targets:
            group = self.profiles if name in self.profiles else self.targets
            start = group.index(name) * self.n_levels
            return slice(start, start + self.n_levels)
        if name in self.scalars:
            start = len(self.profiles) * self.n_levels + self.scalars.index(name)
            return slice(start, start + 1)
        known = (*self.profiles, *self.scalars, *self.targets)
        raise KeyError(f"{name!r} is not part of the column layout; it has {', '.join(known)}")

    def describe(self, index: int, kind: str = "input") -> str:
        """Readable name of one feature, e.g. ``T level 17`` for the 17th level from the top.

        Args:
            index: position in ``x`` or ``y``.
            kind: ``input`` for ``x``, ``output`` for ``y``.
        """
        group = self.profiles if kind == "input" else self.targets
        if index < len(group) * self.n_levels:
            profile, level = divmod(index, self.n_levels)
            name = group[profile]
            return f"{name.upper() if name == 't' else name} level {level + 1}"
        return self.scalars[index - len(group) * self.n_levels]
