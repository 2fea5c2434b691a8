"""A tiny demo, simulated and processed once for all tests, also where several processes run them."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from precip_postproc.resunet_qpf.data import QpfData
from precip_postproc.resunet_qpf.demo import DemoSettings, write_demo
from precip_postproc.resunet_qpf.readers import Grid
from precip_postproc.resunet_qpf.sources import GfsSource, NetcdfForecasts

TINY = DemoSettings(days=14, test_days=4, grid="tiny", leads=(6, 24), format="netcdf")
COARSE = ["pwat", "r", "cape", "u", "v"]


def tiny_data(**changes: Any) -> QpfData:
    """The tiny demo's data module; ``AI4SIM_DATA`` says where its files are."""
    settings: dict[str, Any] = {
        "dataset": "tiny",
        "demo": TINY,
        "coarse": GfsSource(Path("gfs"), COARSE),
        "patch": 32,
        "patches_per_epoch": 64,
        "batch_size": 8,
    }
    return QpfData(**(settings | changes))


def shared_folder(factory: pytest.TempPathFactory, name: str) -> Path:
    """A temporary folder that all processes of a test run have in common."""
    base = factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name


@pytest.fixture(scope="session")
def data_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for ``AI4SIM_DATA`` with the raw files and the processed store of the tiny demo; nobody may change it."""
    home = shared_folder(tmp_path_factory, "qpf_data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AI4SIM_DATA", str(home))
        data = tiny_data()
        # to start processes takes longer; what one test process makes, the others wait for and find
        write_demo(data.raw, TINY, processes=1)
        data.prepare_data()
    return home


@pytest.fixture(scope="session")
def raw_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo of two days, forecasts in GRIB2 and analyses on MRMS's grid; nobody may change it."""
    pytest.importorskip("eccodes")
    folder = shared_folder(tmp_path_factory, "qpf_grib")
    write_demo(folder, DemoSettings(days=2, test_days=1, grid="tiny", leads=(6, 24), format="grib"))
    return folder


@pytest.fixture
def home(data_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``AI4SIM_DATA`` is the folder of the tiny demo, and ``AI4SIM_EXPERIMENTS`` an empty one."""
    monkeypatch.setenv("AI4SIM_DATA", str(data_home))
    monkeypatch.setenv("AI4SIM_EXPERIMENTS", str(tmp_path / "experiments"))
    return data_home


@pytest.fixture
def data(home: Path) -> QpfData:
    """The tiny demo's data module, set up."""
    data = tiny_data()
    data.prepare_data()
    data.setup("fit")
    return data


@pytest.fixture(scope="session")
def demo_raw(data_home: Path) -> Path:
    """Raw files of the tiny demo."""
    return data_home / "precip_postproc" / "resunet_qpf" / "raw" / "tiny"


@pytest.fixture(scope="session")
def demo_grid(demo_raw: Path) -> Grid:
    """The grid of the tiny demo."""
    return NetcdfForecasts(demo_raw / "forecast.nc").read(np.datetime64("2025-12-02T00", "s"), 6).grid
