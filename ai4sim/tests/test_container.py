"""The container's entry point, with a stand-in for nox."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "docker" / "script.sh"


@pytest.fixture
def run(tmp_path):
    nox = tmp_path / "nox"
    nox.write_text('#!/bin/sh\necho "nox $*"\n')
    nox.chmod(0o755)

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        return subprocess.run(
            ["bash", str(SCRIPT), *words], env=env, capture_output=True, text=True, input="echo shell $0"
        )

    return call


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["wf_gwd"], "-s train --"),
        (["wf_gwd", "tests"], "-s tests --"),
        (["wf_gwd", "tests", "-k", "scheme"], "-s tests -- -k scheme"),
        (["wf_gwd", "--config", "configs/mlp.yaml"], "-s train -- --config configs/mlp.yaml"),
    ],
)
def test_words_become_a_session_of_the_use_case(run, words, expected):
    result = run(*words)
    assert result.returncode == 0
    assert result.stdout.strip() == f"nox -f weather_forecast/gwd/noxfile.py {expected}"


def test_an_unknown_name_ends_with_status_2_and_the_list(run):
    result = run("wf_rain")
    assert result.returncode == 2
    assert "unknown use case wf_rain" in result.stderr
    assert "wf_gwd" in result.stderr


def test_without_words_there_is_a_shell(run):
    assert run().stdout.strip() == "shell bash"
