"""Predictions as one labelled store."""

import dask.array
import h5netcdf
import numpy as np
import pytest
import torch
import xarray as xr
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch.utils.data import DataLoader

from ai4sim.errors import InputError
from ai4sim.predictions import PredictionWriter, write_netcdf
from ai4sim.resume import Progress, fingerprint

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


def test_dimensions_of_a_file_may_grow(tmp_path):
    root = xr.Dataset({"a": ("time", np.arange(3))})
    root.encoding["unlimited_dims"] = {"time"}
    part = xr.Dataset({"b": (("time", "x"), np.ones((3, 2)))})
    for name, product in (("set.nc", root), ("tree.nc", xr.DataTree.from_dict({"/": root, "/part": part}))):
        write_netcdf(product, tmp_path / name)
        with h5netcdf.File(tmp_path / name) as file:
            assert file.dims["time"].isunlimited()
    assert xr.load_dataset(tmp_path / "tree.nc", engine="h5netcdf", group="part")["b"].shape == (3, 2)
    assert {item.name for item in tmp_path.iterdir()} == {"set.nc", "tree.nc"}


class TestProgress:
    def test_batches_are_those_of_a_process(self, tmp_path):
        progress = Progress(tmp_path / "a.progress", {"model.x": 1})
        assert not progress.can_go_on({"processes": 2})
        progress.begin({"processes": 2})
        for rank, batch in ((0, 0), (0, 12), (1, 3), (11, 5)):
            progress.mark(rank, batch)
        assert progress.can_go_on({"processes": 2})
        assert (progress.done(0), progress.done(1), progress.done(2)) == ({0, 12}, {3}, set())
        progress.begin({"processes": 2})
        assert progress.done(0) == set()
        progress.remove()
        assert not progress.folder.exists()

    def test_the_first_difference_is_named(self, tmp_path):
        Progress(tmp_path / "a.zarr.progress", {"model.x": 1, "model.y": "long" * 99}).begin({})
        for changed, text in (
            ({"model.x": 2}, "model.x was 1 and is 2 now"),
            ({"z": None, "model.x": 1}, "model.y was"),
        ):
            with pytest.raises(InputError, match=rf"a\.zarr was begun with other settings and cannot go on: {text}"):
                Progress(tmp_path / "a.zarr.progress", changed).can_go_on({})

    def test_templates_differ_by_layout_coordinates_and_attributes(self):
        def template(n=4, chunk=2, first=0, units="m", note="a"):
            empty = dask.array.zeros(n, dtype=np.float32, chunks=chunk)
            names = np.array([f"{note}{i}" for i in range(n)], dtype=object)
            coords = {"row": ("sample", np.arange(first, first + n)), "name": ("sample", names)}
            return xr.Dataset({"y": ("sample", empty)}, coords, {"units": units})

        changes = ({}, {"n": 6}, {"chunk": 4}, {"first": 1}, {"units": "km"}, {"note": "b"})
        found = [fingerprint(template(**change)) for change in changes]
        assert fingerprint(template()) == found[0]
        assert len(set(found)) == len(found)
