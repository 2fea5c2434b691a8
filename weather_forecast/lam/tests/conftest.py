"""A tiny region, simulated and processed once for all tests."""

from pathlib import Path

import pytest

from weather_forecast.lam.data import LamData
from weather_forecast.lam.demo import DemoSettings

STATE = ["aro_t2m_2m", "aro_tp_0m", "aro_u_850hpa", "aro_v_850hpa", "aro_z_850hpa"]
FORCING = ["arp_u_850hpa", "arp_v_850hpa", "arp_z_850hpa"]


@pytest.fixture(scope="session")
def data_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for ``AI4SIM_DATA`` in which the tiny demo is ready."""
    home = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AI4SIM_DATA", str(home))
        tiny_data().prepare_data()
    return home


@pytest.fixture
def tiny(data_home: Path, monkeypatch: pytest.MonkeyPatch) -> LamData:
    """The tiny demo's data module, set up."""
    monkeypatch.setenv("AI4SIM_DATA", str(data_home))
    data = tiny_data()
    data.prepare_data()
    data.setup("fit")
    return data


def tiny_data(**changes: object) -> LamData:
    """The tiny demo's data module; ``AI4SIM_DATA`` says where its files are."""
    settings: dict = {
        "dataset": "tiny",
        "demo": DemoSettings(size="tiny"),
        "state": STATE,
        "forcing": FORCING,
        "border_size": 4,
        "n_targets": 2,
        "n_targets_eval": 3,
        "batch_size": 2,
        "eval_batch_size": 2,
    }
    return LamData(**(settings | changes))
