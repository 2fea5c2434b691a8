"""What the tests of all use cases' command lines share."""

import re
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


def described(main: Callable[[list[str]], Any], capsys: pytest.CaptureFixture[str], config: str) -> list[str]:
    """Lines that ``describe`` prints, spaces folded and frames removed."""
    main(["describe", "--config", config, *QUIET])
    lines = capsys.readouterr().out.replace("│", " ").replace("┃", " ").splitlines()
    return [" ".join(line.split()) for line in lines]


def samples_read(main: Callable[[list[str]], Any], capsys: pytest.CaptureFixture[str], config: str) -> tuple[int, int]:
    """Samples and batches that a short ``speedtest`` says it has read, at a rate that fits."""
    main(["speedtest", "--config", config, "--seconds", "0.5", *QUIET])
    pattern = r"([\d,]+) samples/s, [\d,]+ MB/s \((\d+) samples in (\d+) batches, ([\d.]+) s\)"
    found = re.search(pattern, capsys.readouterr().out)
    assert found is not None
    rate, samples, batches = (int(found[i].replace(",", "")) for i in (1, 2, 3))
    assert rate == pytest.approx(samples / float(found[4]), rel=0.11)  # the time is given to 0.1 s
    return samples, batches


def message_of(main: Callable[[list[str]], Any], capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Message of a command that a user got wrong, its spaces folded."""
    with pytest.raises(SystemExit) as stop:
        main([*words, *QUIET])
    assert stop.value.code == 2
    return " ".join(capsys.readouterr().err.split())
