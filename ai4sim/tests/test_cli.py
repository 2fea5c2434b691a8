"""What the command line does with products, outputs that are there already, and mistakes in settings."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import dask.array
import numpy as np
import pytest
import torch
import xarray as xr
from rich.table import Table
from torch.utils.data import DataLoader

from ai4sim.cli import ExperimentCLI, _claim_version, run
from ai4sim.datamodule import ExperimentData
from ai4sim.errors import InputError
from ai4sim.modules import ExperimentModule
from ai4sim.tests.command_line import QUIET, message_of


@dataclass(frozen=True)
class Choice:
    """Settings that refuse an odd number."""

    number: int = 2

    def __post_init__(self) -> None:
        if self.number % 2:
            raise InputError(f"model.choice.number must be even, not {self.number}")


class Doubling(ExperimentModule):
    """Predicts twice its input."""

    def __init__(self, choice: Choice | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(2.0))

    def predict_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> dict[str, torch.Tensor]:
        return {"index": batch["index"], "y": self.weight * batch["x"]}


class Numbers(ExperimentData):
    """The numbers 0 to 3."""

    def describe(self) -> dict[str, str]:
        return {}

    def summary(self) -> Table:
        return Table()

    def predict_dataloader(self) -> DataLoader[dict[str, torch.Tensor]]:
        rows = [{"index": torch.tensor([row]), "x": torch.tensor([float(row)])} for row in range(4)]
        return DataLoader(rows, batch_size=None)

    def prediction_template(self, stage: str) -> xr.Dataset:
        empty = dask.array.zeros(4, dtype=np.float32, chunks=1)
        return xr.Dataset({"y": ("sample", empty, {"units": "m"})}, {"row": ("sample", np.arange(4))})


def halved(predictions: xr.Dataset, output: Path, data: ExperimentData) -> xr.Dataset:
    output.with_suffix(".txt").write_text("drawn")
    return xr.Dataset({"half": predictions["y"] / 4})


def command(product=None):
    def main(words: list[str]) -> ExperimentCLI:
        options = {"use_case": "nowhere", "evaluate": None, "exporter": None, "headline": (), "product": product}
        return run(lambda: ExperimentCLI(Doubling, Numbers, **options, args=words))

    return main


def opened(path: Path) -> xr.Dataset:
    if path.suffix == ".nc":
        return xr.load_dataset(path)
    return xr.open_zarr(path, consolidated=False).load()


@pytest.mark.parametrize("suffix", ["nc", "zarr"])
class TestPredict:
    def test_predictions_are_written_as_they_are_without_a_product(self, tmp_path, suffix):
        output = tmp_path / f"numbers.{suffix}"
        command()(["predict", "--output", str(output), *QUIET])
        assert opened(output)["y"].values.tolist() == [0, 2, 4, 6]
        assert [path.name for path in tmp_path.iterdir()] == [output.name]

    def test_a_product_is_made_of_predictions(self, tmp_path, suffix):
        output = tmp_path / f"numbers.{suffix}"
        command(halved)(["predict", "--output", str(output), *QUIET])
        assert opened(output)["half"].values.tolist() == [0, 0.5, 1, 1.5]
        assert list(opened(output).data_vars) == ["half"]
        assert {path.name for path in tmp_path.iterdir()} == {output.name, "numbers.txt"}

    def test_what_is_there_is_replaced_on_request_alone(self, tmp_path, suffix, capsys):
        output = tmp_path / f"numbers.{suffix}"
        command()(["predict", "--output", str(output), *QUIET])
        message = message_of(command(halved), capsys, "predict", "--output", str(output))
        assert f"numbers.{suffix} exists already: remove it, name another output or set --overwrite" in message
        assert list(opened(output).data_vars) == ["y"]
        command(halved)(["predict", "--output", str(output), "--overwrite", "true", *QUIET])
        assert list(opened(output).data_vars) == ["half"]

    def test_a_product_that_fails_leaves_what_is_there_and_is_no_obstacle(self, tmp_path, suffix, capsys):
        output = tmp_path / f"numbers.{suffix}"
        command()(["predict", "--output", str(output), *QUIET])

        def failing(predictions: xr.Dataset, output: Path, data: ExperimentData) -> xr.Dataset:
            raise ZeroDivisionError

        again = ["predict", "--output", str(output), "--overwrite", "true", *QUIET]
        with pytest.raises(ZeroDivisionError):
            command(failing)(again)
        assert list(opened(output).data_vars) == ["y"]
        command(halved)(again)
        assert list(opened(output).data_vars) == ["half"]
        assert {path.name for path in tmp_path.iterdir()} == {output.name, "numbers.txt"}


class Interrupted:
    """Stops a prediction at a row, and counts the rows that were predicted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stop: float | None = 2.0
        self.rows: list[float] = []
        step = Doubling.predict_step

        def counting(model: Doubling, batch: dict[str, torch.Tensor], batch_idx: int) -> dict[str, torch.Tensor]:
            x = float(batch["x"])
            if x == self.stop:
                raise KeyError("power cut")
            self.rows.append(x)
            return step(model, batch, batch_idx)

        monkeypatch.setattr(Doubling, "predict_step", counting)


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Interrupted:
    return Interrupted(monkeypatch)


class TestResume:
    def predict(self, output: Path, *words: str, product=None) -> None:
        command(product)(["predict", "--output", str(output), *QUIET, *words])

    def test_only_what_is_missing_is_predicted(self, tmp_path, interrupted):
        output = tmp_path / "numbers.nc"
        with pytest.raises(KeyError):
            self.predict(output)
        interrupted.stop = None
        self.predict(output, "--resume", "true")
        assert interrupted.rows == [0, 1, 2, 3]
        resumed = opened(output)
        assert resumed["y"].values.tolist() == [0, 2, 4, 6]
        assert [path.name for path in tmp_path.iterdir()] == [output.name]
        self.predict(output, "--overwrite", "true")
        assert interrupted.rows == [0, 1, 2, 3] * 2
        xr.testing.assert_identical(resumed, opened(output))

    def test_by_default_all_is_predicted_anew(self, tmp_path, interrupted):
        output = tmp_path / "numbers.nc"
        with pytest.raises(KeyError):
            self.predict(output)
        interrupted.stop = None
        self.predict(output)
        assert interrupted.rows == [0, 1, 0, 1, 2, 3]

    def test_with_nothing_to_go_on_with_it_starts(self, tmp_path, interrupted):
        interrupted.stop = None
        self.predict(tmp_path / "numbers.nc", "--resume", "true")
        assert interrupted.rows == [0, 1, 2, 3]

    def test_other_settings_are_refused_by_name(self, tmp_path, interrupted, capsys):
        output = tmp_path / "numbers.nc"
        with pytest.raises(KeyError):
            self.predict(output)
        words = ["predict", "--output", str(output), "--resume", "true", "--model.choice.number", "4"]
        message = message_of(command(), capsys, *words)
        assert "numbers.nc.predictions.zarr was begun with other settings and cannot go on: model.choice" in message
        interrupted.stop = None
        self.predict(output, "--model.choice.number", "4")
        assert opened(output)["y"].values.tolist() == [0, 2, 4, 6]

    def test_a_product_that_failed_is_made_of_the_predictions_that_are_there(self, tmp_path, interrupted):
        output, interrupted.stop = tmp_path / "numbers.nc", None

        def failing(predictions: xr.Dataset, output: Path, data: ExperimentData) -> xr.Dataset:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            self.predict(output, product=failing)
        self.predict(output, "--resume", "true", product=halved)
        assert interrupted.rows == [0, 1, 2, 3]
        assert opened(output)["half"].values.tolist() == [0, 0.5, 1, 1.5]

    def test_what_it_was_made_with_is_in_the_output(self, tmp_path, interrupted):
        interrupted.stop = None
        self.predict(tmp_path / "numbers.nc", "--model.choice.number", "4")
        settings = json.loads(opened(tmp_path / "numbers.nc").attrs["config"])
        assert settings["model"]["choice"]["number"] == 4


def test_a_mistake_in_settings_that_may_be_absent_is_a_message(tmp_path, capsys):
    words = ["predict", "--output", str(tmp_path / "numbers.nc"), "--model.choice.number", "3"]
    message = message_of(command(), capsys, *words)
    assert "error: model.choice.number must be even, not 3" in message
    assert "Union" not in message


def test_runs_that_begin_at_the_same_moment_have_folders_of_their_own(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: _claim_version(tmp_path / "demo"), range(24)))
    assert sorted(folder.name for folder in folders) == sorted(f"version_{number}" for number in range(24))
    (tmp_path / "demo" / "version_99").mkdir()
    (tmp_path / "demo" / "version_old").mkdir()
    assert _claim_version(tmp_path / "demo").name == "version_100"
