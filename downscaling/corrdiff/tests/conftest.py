"""A tiny demo, simulated and processed once for all tests, also where several processes run them."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from downscaling.corrdiff.config import USE_CASE
from downscaling.corrdiff.data import DownscalingData
from downscaling.corrdiff.demo import DemoSettings
from downscaling.corrdiff.splits import TimeFractions

TINY = DemoSettings.tiny()


def make_tiny(**changes: Any) -> DownscalingData:
    """The tiny demo's data module: 32 times, two hours apart, with two pairs each; ``AI4SIM_DATA`` says where it is."""
    settings: dict[str, Any] = {
        "dataset": "tiny",
        "demo": TINY,
        "split": TimeFractions(gap_hours=4.0),
        "transforms": {"tp": "sqrt"},
        "batch_size": 4,
        "eval_batch_size": 4,
        "members": 3,
        "analogs": 8,
    }
    return DownscalingData(**(settings | changes))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Fields here are small: threads only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``AI4SIM_DATA`` of the tests that ask for it: raw and processed tiny demo, see `tiny_folder`; only to be read."""
    base = tmp_path_factory.getbasetemp()
    home = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "corrdiff_data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AI4SIM_DATA", str(home))
        # what one test process makes, the others wait for and find
        make_tiny().prepare_data()
    return home


@pytest.fixture(autouse=True)
def folders(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``AI4SIM_EXPERIMENTS`` is empty, and so is ``AI4SIM_DATA`` but for tests that use `tiny_data`."""
    shared = "tiny_data" in request.fixturenames
    home = request.getfixturevalue("tiny_data") if shared else tmp_path / "data"
    monkeypatch.setenv("AI4SIM_DATA", str(home))
    monkeypatch.setenv("AI4SIM_EXPERIMENTS", str(tmp_path / "experiments"))


@pytest.fixture(scope="session")
def tiny_folder(tiny_data: Path) -> Path:
    """The use case's folder, with ``raw/tiny`` and ``processed/tiny.zarr``; only to be read."""
    return tiny_data / USE_CASE


@pytest.fixture
def data(tiny_data: Path) -> DownscalingData:
    """The tiny demo's data module, set up."""
    data = make_tiny()
    data.prepare_data()
    data.setup("fit")
    return data
