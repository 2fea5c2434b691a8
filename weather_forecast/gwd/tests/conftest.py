"""Fixtures of the use case's tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def samples() -> Path:
    """Folder of the real sample columns; the environment variable AI4SIM_SAMPLES names the one above it."""
    default = Path(__file__).resolve().parents[3].parent / "shared" / "data"
    folder = Path(os.environ.get("AI4SIM_SAMPLES", default)) / "gwd"
    if not folder.is_dir():
        pytest.skip(f"real sample columns are not at {folder}; name their folder in AI4SIM_SAMPLES")
    return folder
