"""Experiment folders as the report sees them: found on disk, read without failing, no torch."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from ai4sim.errors import InputError
from ai4sim.verification.scorecard import SCORECARD_CSV, Scorecard

ROOT: Final = Path(__file__).resolve().parent.parent
_VERSION: Final = re.compile(r"version_(\d+)")
# how a file of each kind begins
_BEGINS: Final = {".png": b"\x89PNG\r\n\x1a\n", ".gif": b"GIF8"}
# folders that are large and never hold an experiment
_SKIPPED: Final = {"checkpoints", "data", "figures", "node_modules", "__pycache__"}


@dataclass(frozen=True)
class Experiment:
    """One run: ``<use case>/experiments/<name>/version_N``.

    Attributes:
        folder: the run's folder.
        use_case: path of the use case, such as ``weather_forecast/gwd``.
        name: name of the experiment.
        version: number of the run.
    """

    folder: Path
    use_case: str
    name: str
    version: int

    @cached_property
    def _scores(self) -> tuple[Scorecard | None, str]:
        if not (self.folder / SCORECARD_CSV).is_file():
            return None, ""
        try:
            return Scorecard.load(self.folder), ""
        except (InputError, OSError) as error:
            return None, str(error)

    @property
    def scorecard(self) -> Scorecard | None:
        """The run's scorecard; None if it has none or a damaged one."""
        return self._scores[0]

    @property
    def damage(self) -> str:
        """What is wrong with the scorecard; empty if nothing is."""
        return self._scores[1]

    @property
    def status(self) -> str:
        """One of `done`, `unfinished` (no scorecard) and `damaged` (one that cannot be read)."""
        if self.scorecard is not None:
            return "done"
        return "damaged" if self.damage else "unfinished"

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What the run recorded about itself; empty if it did not or the file is damaged."""
        try:
            values = json.loads((self.folder / "provenance.json").read_text())
        except (OSError, ValueError):
            return {}
        return values if isinstance(values, dict) else {}

    @property
    def documents(self) -> list[Path]:
        """Configuration and provenance, those of resumed runs too."""
        return [*sorted(self.folder.glob("config*.yaml")), *sorted(self.folder.glob("provenance*.json"))]

    @property
    def figures(self) -> list[Path]:
        """Figures and animations of the run, by name."""
        return find_figures(self.folder)


def find_figures(folder: Path) -> list[Path]:
    """PNG and GIF files in a run's folder ``figures``, by name; what is of another kind inside is left out.

    Args:
        folder: of the run.
    """
    return [path for path in sorted((folder / "figures").glob("*")) if path.is_file() and _is_image(path)]


def find_experiments(roots: Sequence[Path]) -> list[Experiment]:
    """All runs below some folders.

    Args:
        roots: the repository, `$AI4SIM_EXPERIMENTS`, a use case or a folder ``experiments``.

    Returns:
        The runs by use case and name, the newest version of each first.

    Raises:
        InputError: a root is no folder.
    """
    found: dict[Path, Experiment] = {}
    for root in roots:
        if not root.is_dir():
            raise InputError(f"{root} is no folder: name folders that hold experiments")
        for folder in _versions(root.resolve()):
            match = _VERSION.fullmatch(folder.name)
            if match:
                found[folder] = Experiment(folder, _use_case(folder, root.resolve()), folder.parent.name, int(match[1]))
    return sorted(found.values(), key=lambda run: (run.use_case, run.name, -run.version))


def _versions(root: Path) -> Iterator[Path]:
    for path, names, files in os.walk(root):
        folder = Path(path)
        if _VERSION.fullmatch(folder.name) and {"config.yaml", SCORECARD_CSV} & set(files):
            names.clear()
            yield folder
        names[:] = [
            name
            for name in names
            if not name.startswith((".", "_")) and name not in _SKIPPED and not name.endswith(".zarr")
        ]


def _use_case(folder: Path, root: Path) -> str:
    """Folders between the root and the experiment; if there are none, those below the repository."""
    above = folder.parent.parent
    if above.name == "experiments":
        above = above.parent
    for base in (root, ROOT):
        if above != base and above.is_relative_to(base):
            return above.relative_to(base).as_posix()
    return above.name


def _is_image(path: Path) -> bool:
    begin = _BEGINS.get(path.suffix)
    if begin is None:
        return False
    with path.open("rb") as stream:
        return stream.read(len(begin)) == begin
