"""What the tests of all use cases' command lines share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]


@contextmanager
def own_folders(factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which data and experiments are, for as long as the context lasts."""
    folder = factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AI4SIM_DATA", str(folder / "data"))
        patch.setenv("AI4SIM_EXPERIMENTS", str(folder / "experiments"))
        yield folder


def message_of(main: Callable[[list[str]], Any], capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Message of a command that a user got wrong, its spaces folded."""
    with pytest.raises(SystemExit) as stop:
        main([*words, *QUIET])
    assert stop.value.code == 2
    return " ".join(capsys.readouterr().err.split())
