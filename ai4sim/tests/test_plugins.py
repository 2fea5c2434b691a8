"""Third parties' classes."""

import sys

import pytest

from ai4sim.plugins import load_plugins


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("ai4sim_plugin_")]:
        del sys.modules[name]


def test_modules_with_the_prefix_and_entry_points_are_imported(folder):
    (folder / "ai4sim_plugin_storms.py").write_text("class Storm: pass\n")
    (folder / "somebodys_networks.py").write_text("LOADED = True\n")
    info = folder / "somebodys-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ai4sim.plugins]\nnets = somebodys_networks\n")
    assert {"ai4sim_plugin_storms", "nets"} <= set(load_plugins())
    assert sys.modules["ai4sim_plugin_storms"].Storm
    assert sys.modules.pop("somebodys_networks").LOADED


def test_a_plugin_that_fails_is_named_and_left_out(folder, caplog):
    (folder / "ai4sim_plugin_broken.py").write_text("import nothing_of_that_name\n")
    (folder / "ai4sim_plugin_whole.py").write_text("")
    assert list(load_plugins()) == ["ai4sim_plugin_whole"]
    assert len(caplog.messages) == 1
    assert "plugin ai4sim_plugin_broken" in caplog.text
    assert "No module named 'nothing_of_that_name'" in caplog.text
