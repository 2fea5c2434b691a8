"""What the tests of all use cases' command lines share."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

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


def start(trainer: str, *words: str) -> subprocess.Popen[str]:
    """A command in a process of its own; ``trainer`` is the module of the use case's command line."""
    command = [sys.executable, "-P", "-m", trainer, *words, *QUIET]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for a process that must succeed."""
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output[-3000:]


def kill_after_epoch(fit: subprocess.Popen[str], epoch: int, last: Path) -> None:
    """Kill a fit without warning once it has printed an epoch, counted from 1, and kept a checkpoint."""
    assert fit.stdout is not None
    for line in fit.stdout:
        if line.startswith(f"epoch {epoch}/"):
            break
    deadline = time.monotonic() + 60
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    fit.kill()
    fit.wait()
    fit.stdout.close()


def last_weights(run: Path, epoch: int) -> dict[str, torch.Tensor]:
    """Weights of a run's last checkpoint, which must be of a given epoch, counted from 0."""
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["epoch"] == epoch
    state: dict[str, torch.Tensor] = checkpoint["state_dict"]
    return state


def message_of(main: Callable[[list[str]], Any], capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Message of a command that a user got wrong, its spaces folded."""
    with pytest.raises(SystemExit) as stop:
        main([*words, *QUIET])
    assert stop.value.code == 2
    return " ".join(capsys.readouterr().err.split())
