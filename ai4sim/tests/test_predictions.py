"""Predictions as one labelled store."""

import dask.array
import numpy as np
import pytest
import torch
import xarray as xr
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch.utils.data import DataLoader

from ai4sim.errors import InputError
from ai4sim.predictions import PredictionWriter

N, BATCH = 10, 4


class Data(LightningDataModule):
    def prediction_template(self, stage):
        values = dask.array.zeros((N, 2), dtype=np.float32, chunks=(BATCH, -1))
        return xr.Dataset(
            {"wind": (("sample", "level"), values, {"units": "m s-1"})},
            {"row": ("sample", np.arange(100, 100 + N))},
            {"stage": stage},
        )

    def _loader(self):
        rows = torch.arange(100, 100 + N)
        return DataLoader(list(zip(rows, rows.float(), strict=True)), batch_size=BATCH)

    test_dataloader = predict_dataloader = _loader


class Model(LightningModule):
    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor

    def test_step(self, batch, batch_idx):
        index, x = batch
        return {"index": index, "wind": torch.stack([x, self.factor * x], dim=1)}

    predict_step = test_step


def trainer(folder, writer):
    return Trainer(
        default_root_dir=folder, logger=False, callbacks=[writer], accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip


def test_rows_units_and_values_are_those_of_the_template_and_the_steps(tmp_path):
    path = tmp_path / "wind.zarr"
    trainer(tmp_path, PredictionWriter(path)).predict(Model(2.0), datamodule=Data(), return_predictions=False)
    predictions = xr.open_zarr(path, consolidated=False)
    rows = np.arange(100, 110)
    np.testing.assert_array_equal(predictions["row"], rows)
    np.testing.assert_array_equal(predictions["wind"], np.stack([rows, 2.0 * rows], axis=1))
    assert predictions["wind"].attrs["units"] == "m s-1"
    assert predictions.attrs == {"stage": "predict", "model": "Model"}
    assert [item.name for item in tmp_path.iterdir()] == ["wind.zarr"]


def test_an_output_that_exists_is_kept(tmp_path):
    path = tmp_path / "wind.zarr"
    path.mkdir()
    with pytest.raises(InputError, match=r"wind\.zarr exists already"):
        trainer(tmp_path, PredictionWriter(path)).predict(Model(), datamodule=Data())
    assert not list(path.iterdir())


def test_a_second_test_of_the_run_takes_the_place_of_the_first(tmp_path):
    runner = trainer(tmp_path, PredictionWriter())
    for factor in (2.0, 3.0):
        runner.test(Model(factor), datamodule=Data(), verbose=False)
    predictions = xr.open_zarr(tmp_path / "predictions.zarr", consolidated=False)
    np.testing.assert_array_equal(predictions["wind"][:, 1], 3.0 * np.arange(100, 110))


def test_rows_out_of_order_are_refused(tmp_path):
    class Shuffled(Data):
        def predict_dataloader(self):
            rows = torch.tensor([100, 102, 101, 103])
            return DataLoader(list(zip(rows, rows.float(), strict=True)), batch_size=BATCH)

    with pytest.raises(ValueError, match="consecutive rows of the template"):
        trainer(tmp_path, PredictionWriter(tmp_path / "a.zarr")).predict(Model(), datamodule=Shuffled())
    assert not (tmp_path / "a.zarr").exists()
