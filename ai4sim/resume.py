"""How far a prediction has come, kept beside it so that one that was interrupted can go on."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr

from ai4sim.atomic import atomic_path
from ai4sim.errors import InputError

SETTINGS: Final = "settings.json"


class Progress:
    """Which batches are complete, and the settings that they were made with.

    Each process marks its own batches, by empty files in the folder. Settings are written once the store is laid out:
    without them there is nothing to go on with.

    Args:
        folder: of the marks.
        settings: all that decides about the values, flat, as plain values by name.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder, self.settings = folder, dict(settings)

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Forget what was, and note the settings.

        Args:
            settings: further ones that decide about the values.
        """
        self.remove()
        with atomic_path(self.folder / SETTINGS) as partial:
            partial.write_text(json.dumps({**self.settings, **settings}, indent=1, default=str))

    def can_go_on(self, settings: Mapping[str, Any]) -> bool:
        """Whether there is something to go on with.

        Args:
            settings: as of `begin`.

        Raises:
            InputError: it was begun with other settings; names the first that differs.
        """
        file = self.folder / SETTINGS
        if not file.is_file():
            return False
        then = json.loads(file.read_text())
        now = json.loads(json.dumps({**self.settings, **settings}, default=str))
        for name in dict.fromkeys([*then, *now]):
            if then.get(name) != now.get(name):
                raise InputError(
                    f"{self.folder.with_suffix('').name} was begun with other settings and cannot go on: {name} was "
                    f"{_short(then.get(name))} and is {_short(now.get(name))} now; use the former ones, or leave out "
                    "--resume to start anew"
                )
        return True

    def done(self, rank: int) -> set[int]:
        """Numbers of the complete batches of a process."""
        return {int(mark.name.partition("-")[2]) for mark in self.folder.glob(f"{rank}-*")}

    def mark(self, rank: int, batch: int) -> None:
        """Note that a batch is complete."""
        (self.folder / f"{rank}-{batch}").touch()

    def remove(self) -> None:
        """Forget everything."""
        shutil.rmtree(self.folder, ignore_errors=True)


def fingerprint(template: xr.Dataset) -> str:
    """Of a template's layout, coordinates and attributes; the variables' values are not read."""
    digest = hashlib.sha256(repr(sorted(template.attrs.items())).encode())
    for name, array in sorted(template.variables.items(), key=lambda item: str(item[0])):
        chunks = None if name in template.coords else array.chunks
        digest.update(repr((name, array.dims, array.shape, str(array.dtype), chunks)).encode())
        if name in template.coords:
            values = np.asarray(array.values)
            digest.update(repr(values.tolist()).encode() if values.dtype == object else values.tobytes())
    return digest.hexdigest()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}..."
