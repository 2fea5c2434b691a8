"""The data module: from raw files to batches and plans."""

import io
import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from ai4sim.errors import InputError, MissingFileError
from ai4sim.experiment import data_folder
from ai4sim.store import open_store, read_manifest
from downscaling.corrdiff import config, prepare
from downscaling.corrdiff.batches import MEAN
from downscaling.corrdiff.data import DownscalingData
from downscaling.corrdiff.demo_file import STATS, TRAIN
from downscaling.corrdiff.readers import Channel, HrrrMini, Moments, PairedSource, Statistics, write_statistics
from downscaling.corrdiff.selection import PairSelection
from downscaling.corrdiff.splits import TimeFractions
from downscaling.corrdiff.tests.conftest import TINY, make_tiny
from downscaling.corrdiff.tests.memory_source import MemorySource, make_pairs


def attached(data: DownscalingData, *, generative: bool = True, **changes: Any) -> DownscalingData:
    """As part of a run of a model."""
    settings = {"global_rank": 0, "world_size": 1, "accumulate_grad_batches": 1, "predicting": False} | changes
    trainer: Any = SimpleNamespace(lightning_module=SimpleNamespace(generative=generative), **settings)
    data.trainer = trainer
    return data


def in_memory(source: PairedSource | None = None, **changes: Any) -> DownscalingData:
    """A data module of pairs in memory, prepared and set up in an empty folder."""
    settings: dict[str, Any] = {
        "source": MemorySource() if source is None else source,
        "split": TimeFractions(0.5, 0.25, 0.25, gap_hours=3),
        "batch_size": 4,
    }
    data = DownscalingData("memory", **(settings | changes))
    data.prepare_data()
    data.setup("fit")
    return data


def indices(loader: Any) -> list[int]:
    """Rows of all batches."""
    return torch.cat([batch["index"] for batch in loader]).tolist()


def printed(table: Any) -> str:
    text = io.StringIO()
    Console(file=text, width=150).print(table)
    return text.getvalue()


class TestPreparing:
    def test_the_demo_is_made_and_processed(self, data, tiny_folder):
        assert data_folder(config.USE_CASE) == tiny_folder
        assert sorted(path.name for path in data.raw.iterdir()) == ["demo.json", TRAIN, STATS]
        assert data.store == tiny_folder / "processed" / "tiny.zarr"
        manifest = read_manifest(data.store)
        assert [source.name for source in manifest.sources] == [TRAIN]
        assert manifest.settings["output_shape"] == [32, 32]

    def test_what_is_there_is_not_made_again(self, data, monkeypatch):
        def load(*_: Any) -> None:
            raise AssertionError

        monkeypatch.setattr(prepare, "_load", load)
        again = make_tiny()
        again.prepare_data()
        assert read_manifest(again.store) == read_manifest(data.store)

    @pytest.mark.usefixtures("tiny_data")
    def test_rows_of_the_splits(self, data):
        with open_store(data.store) as store:
            marks, times = store["split"].values, store["time"].values
        for number, split in enumerate(("train", "validation", "test")):
            np.testing.assert_array_equal(data._rows[split], np.flatnonzero(marks == number))
        assert {split: len(rows) for split, rows in data._rows.items()} == {"train": 44, "validation": 6, "test": 10}
        for one, other in (("train", "validation"), ("validation", "test")):
            gap = times[data._rows[other]].min() - times[data._rows[one]].max()
            assert gap >= np.timedelta64(4, "h")

    def test_paths_are_below_the_raw_folder(self, tmp_path):
        data = DownscalingData("mini", HrrrMini(Path("sub/train.nc")))
        assert data.source.file == tmp_path / "data" / config.USE_CASE / "raw" / "mini" / "sub" / "train.nc"
        with pytest.raises(MissingFileError, match=r"raw/mini/sub/train\.nc \(HRRR-Mini\) is not there"):
            data.prepare_data()

    def test_a_prediction_needs_no_store(self, tiny_data, tmp_path, monkeypatch):
        monkeypatch.setenv("AI4SIM_DATA", str(tmp_path))
        raw = tiny_data / config.USE_CASE / "raw" / "tiny" / TRAIN
        data = attached(DownscalingData("other", HrrrMini(raw)), predicting=True)
        data.prepare_data()
        data.setup("predict")
        assert not (tmp_path / config.USE_CASE).exists()
        assert data.describe() == {"dataset": "other"}
        assert len(data.plan("predict")) == 64 * 9

    def test_it_must_be_prepared_first(self, tmp_path):
        data = DownscalingData("memory", MemorySource())
        with pytest.raises(RuntimeError, match=r"call prepare_data\(\) and setup\(\) first"):
            _ = data.contract
        with pytest.raises(InputError, match=r"memory\.zarr does not exist; run prepare to make it"):
            data.setup("fit")


class TestSettings:
    def test_raw_data_or_the_demo(self):
        with pytest.raises(InputError, match=r"data needs data\.source for raw data, or data\.demo"):
            DownscalingData().prepare_data()

    @pytest.mark.parametrize(
        ("name", "value", "least"),
        [
            ("batch_size", 0, 1),
            ("eval_batch_size", -1, 1),
            ("validation_pairs", 0, 1),
            ("test_pairs", 0, 1),
            ("members", -1, 0),
            ("analogs", -1, 0),
        ],
    )
    def test_impossible_sizes(self, name, value, least):
        with pytest.raises(InputError, match=rf"^data\.{name} is {value}; expected at least {least}$"):
            DownscalingData(demo=TINY, **{name: value})


class TestMissingValues:
    @staticmethod
    def source() -> MemorySource:
        """Lacks truth of a pair of each split, and inputs of one more training pair."""
        source = MemorySource()
        source.outputs[[2, 15, 20], 1, 0, 0] = np.nan
        source.inputs[5] = np.inf
        return source

    def test_such_pairs_are_left_out(self, caplog):
        caplog.set_level(logging.WARNING)
        data = in_memory(self.source(), on_missing="skip")
        rows = {split: data._stored().read(own)["case"].tolist() for split, own in data._rows.items()}
        assert rows["train"] == [0, 1, 3, 4, *range(6, 12)]
        assert rows["validation"] == [14, 16, 17]
        assert rows["test"] == [21, 22, 23]
        for split, n in (("train", 2), ("validation", 1), ("test", 1)):
            assert f"{split}: {n} pairs have missing values: left out" in caplog.text

    def test_masked_ones_are_learnt_from_but_not_scored(self, caplog):
        caplog.set_level(logging.WARNING)
        source = self.source()
        source.inputs[5] = 0
        data = in_memory(source, on_missing="mask")
        assert len(data._rows["train"]) == 12
        assert (len(data._rows["validation"]), len(data._rows["test"])) == (3, 3)
        assert "train:" not in caplog.text
        batch = data._stored().read([2])
        assert batch["output"].isnan().sum() == 1

    def test_a_split_without_a_complete_pair(self):
        source = MemorySource()
        source.outputs[14:18, 0, 0, 0] = np.nan
        with pytest.raises(InputError, match="the validation split has no complete pair"):
            in_memory(source, on_missing="skip")

    def test_by_default_they_are_an_error(self):
        with pytest.raises(
            InputError, match=r"(output 'tp' of pair 2|input 't850' of pair 5) \(2021-06-01T0\d:00:00\)"
        ):
            in_memory(self.source())


class TestContract:
    def test_channels_and_moments(self, data):
        contract, manifest = data.contract, read_manifest(data.store)
        assert [channel.name for channel in contract.outputs] == ["10u", "10v", "2t", "tp"]
        assert len(contract.inputs) == 8
        assert contract.transforms == ("none",) * 11 + ("sqrt",)
        assert (contract.factor, contract.shape) == (8, (32, 32))
        assert contract.spacing_km == pytest.approx(3, rel=1e-3)
        assert contract.output_moments.mean == tuple(manifest.statistics["output"]["mean"])
        assert contract.static_moments.std == tuple(manifest.statistics["static"]["std"])
        contract.require_same(make_contract_again(data))

    def test_constant_channels_are_named_and_left_unscaled(self, caplog):
        source = MemorySource()
        source.inputs[:, 1] = 7
        contract = in_memory(source).contract
        assert contract.input_moments.std[1] == 1
        assert contract.input_moments.mean[1] == 7
        assert "constant in the training rows, and left unscaled: wind" in caplog.text

    def test_without_static_channels(self):
        source = MemorySource(make_pairs(static=(), static_fields=np.empty((0, 6, 8), np.float32)))
        data = in_memory(source)
        assert data.contract.static_moments.mean == ()
        assert data.contract.n_conditions == 2
        assert "elev" not in printed(data.summary())

    def test_probabilities_are_left_as_they_are(self, tmp_path):
        channels = (Channel("2t", "K"), Channel("snow"), Channel("rain"))
        source = MemorySource(make_pairs(outputs=channels, probabilities=("snow", "rain")))
        found = in_memory(source).contract.output_moments
        assert found.mean[1:] == (0, 0)
        assert found.std[1:] == (1, 1)
        assert found.mean[0] == pytest.approx(280, abs=1)
        # and need no statistics
        path = tmp_path / "stats.json"
        inputs = {"t850": Moments(5.0, 2.0), "wind": Moments(5.0, 2.0)}
        write_statistics(path, Statistics(inputs, {"2t": Moments(281.0, 4.0)}, {"elev": Moments(0.0, 1.0)}))
        found = in_memory(source, statistics=path).contract.output_moments
        assert (found.mean, found.std) == ((281, 0, 0), (4, 1, 1))


def make_contract_again(data: DownscalingData) -> Any:
    """Of another data module of the same store."""
    again = make_tiny()
    again.setup("test")
    assert again.store == data.store
    return again.contract


class TestStatisticsFile:
    @pytest.fixture
    def path(self, tmp_path) -> Path:
        inputs = {"wind": Moments(1.0, 2.0), "t850": Moments(3.0, 4.0)}
        outputs = {"tp": Moments(0.5, 0.25, "sqrt"), "2t": Moments(280.0, 8.0)}
        write_statistics(tmp_path / "stats.json", Statistics(inputs, outputs, {"elev": Moments(300.0, 200.0)}))
        return tmp_path / "stats.json"

    @staticmethod
    def change(path: Path, kind: str, name: str, entry: dict[str, Any] | None) -> None:
        content = json.loads(path.read_text())
        del content[kind][name]
        if entry is not None:
            content[kind][name] = entry
        path.write_text(json.dumps(content))

    def test_is_used_in_the_order_of_the_channels(self, path):
        contract = in_memory(transforms={"tp": "sqrt"}, statistics=path).contract
        assert (contract.input_moments.mean, contract.input_moments.std) == ((3, 1), (4, 2))
        assert (contract.output_moments.mean, contract.output_moments.std) == ((280, 0.5), (8, 0.25))
        assert (contract.static_moments.mean, contract.static_moments.std) == ((300,), (200,))

    def test_of_the_demo(self, data):
        stated = make_tiny(statistics=data.raw / STATS, transforms={})
        stated.store = data.store
        stated._manifest = read_manifest(data.store)
        with pytest.raises(
            InputError, match=r"stats\.json: output variable 'tp' has moments after the transform 'none'"
        ):
            _ = stated.contract

    @pytest.mark.parametrize(
        ("kind", "name", "message"),
        [
            ("input", "wind", r"no statistics of the input variable 'wind'; it has t850"),
            ("output", "2t", r"no statistics of the output variable '2t'; it has tp"),
            ("invariant", "elev", r"no statistics of the invariant variable 'elev'; it has none"),
        ],
    )
    def test_that_lacks_a_channel(self, path, kind, name, message):
        self.change(path, kind, name, None)
        data = in_memory(transforms={"tp": "sqrt"}, statistics=path)
        with pytest.raises(InputError, match=rf"stats\.json has {message}"):
            _ = data.contract

    @pytest.mark.parametrize("std", [0, -1, float("nan")])
    def test_that_cannot_be_divided_by(self, path, std):
        self.change(path, "output", "2t", {"mean": 280, "std": std})
        data = in_memory(transforms={"tp": "sqrt"}, statistics=path)
        with pytest.raises(
            InputError, match=r"stats\.json: output variable '2t' has std .*; expected a number above 0"
        ):
            _ = data.contract

    def test_of_another_transform(self, path):
        message = (
            r"stats\.json: output variable 'tp' has moments after the transform 'sqrt', data\.transforms has 'log1p'"
        )
        data = in_memory(transforms={"tp": "log1p"}, statistics=path)
        with pytest.raises(InputError, match=message):
            _ = data.contract
        self.change(path, "invariant", "elev", {"mean": 1, "std": 1, "transform": "log1p"})
        data = in_memory(transforms={"tp": "sqrt"}, statistics=path)
        with pytest.raises(InputError, match=r"static variable 'elev' has moments after the transform 'log1p'"):
            _ = data.contract

    def test_that_is_not_there(self, tmp_path):
        data = in_memory(statistics=tmp_path / "no.json")
        with pytest.raises(MissingFileError, match=r"no\.json \(statistics\) is not there"):
            _ = data.contract


class TestBatches:
    def test_training(self, data):
        loader = data.train_dataloader()
        batches = list(loader)
        assert len(loader) == len(batches) == 11
        batch = batches[0]
        assert batch["input"].shape == (4, 8, 4, 4)
        assert batch["output"].shape == (4, 4, 32, 32)
        assert batch["static"].shape == (4, 2, 32, 32)
        assert "lead" not in batch
        rows = torch.cat([own["index"] for own in batches]).numpy()
        np.testing.assert_array_equal(np.sort(rows), data._rows["train"])
        assert (np.diff(rows) < 0).any()
        # of seed and epoch alone
        again = [own["index"] for own in make_again().train_dataloader()]
        assert torch.equal(torch.cat(again), torch.from_numpy(rows))
        other = [own["index"] for own in make_again(seed=1).train_dataloader()]
        assert not torch.equal(torch.cat(other), torch.from_numpy(rows))

    @pytest.mark.usefixtures("tiny_data")
    def test_what_makes_a_step_does_not_depend_on_the_batches(self):
        whole = attached(make_again(batch_size=12, total_batch=12)).train_dataloader()
        parts = attached(make_again(batch_size=4, total_batch=12), accumulate_grad_batches=3).train_dataloader()
        assert (len(whole), len(parts)) == (3, 9)
        assert {len(batch["index"]) for batch in parts} == {4}
        steps = [set(batch["index"].tolist()) for batch in whole]
        rows = indices(parts)
        assert steps == [set(rows[start : start + 12]) for start in range(0, 36, 12)]
        # of the next epoch as well, in another order
        for loader in (whole, parts):
            loader.batch_sampler.sampler.set_epoch(1)
        again = indices(parts)
        assert again != rows
        assert [set(batch["index"].tolist()) for batch in whole] == [
            set(again[start : start + 12]) for start in range(0, 36, 12)
        ]

    @pytest.mark.usefixtures("tiny_data")
    @pytest.mark.parametrize(
        ("batch_size", "rounds", "processes", "step"), [(64, 1, 1, 64), (4, 12, 1, 48), (8, 2, 3, 48)]
    )
    def test_steps_that_are_larger_than_the_training(self, batch_size, rounds, processes, step):
        data = attached(make_again(batch_size=batch_size), world_size=processes, accumulate_grad_batches=rounds)
        message = (
            rf"a step of the optimiser takes {step} pairs \({batch_size} in a batch, {rounds} batches, {processes} "
            r"processes\), but the train split has 44: lower data\.total_batch or data\.batch_size"
        )
        with pytest.raises(InputError, match=message):
            data.train_dataloader()

    def test_validation(self, data):
        assert [len(batch["index"]) for batch in data.val_dataloader()] == [4, 2]
        assert indices(data.val_dataloader()) == data._rows["validation"].tolist()
        few = make_again(validation_pairs=3)
        assert indices(few.val_dataloader()) == data._rows["validation"][[0, 2, 5]].tolist()

    def test_two_processes_share_the_pairs(self, data):
        rows = []
        for rank in range(2):
            own = attached(make_again(), global_rank=rank, world_size=2)
            assert own.prediction_batch("test") == 4
            rows += indices(own.val_dataloader())
        assert sorted(rows) == data._rows["validation"].tolist()

    def test_some_pairs_are_spread_over_a_split(self, data):
        batches = list(data.some_pairs("train", 10))
        assert [len(batch["index"]) for batch in batches] == [4, 4, 2]
        rows = torch.cat([batch["index"] for batch in batches]).tolist()
        assert rows[0] == data._rows["train"][0]
        assert rows[-1] == data._rows["train"][-1]
        assert set(np.diff(rows)) <= {4, 5}
        assert sum(len(batch["index"]) for batch in data.some_pairs("test", 1000)) == 10


def make_again(**changes: Any) -> DownscalingData:
    """The tiny demo's data module, set up."""
    data = make_tiny(**changes)
    data.setup("fit")
    return data


class TestPlans:
    def test_of_a_test(self, data):
        plan = attached(data).plan("test")
        # mean and 3 members of 10 pairs, and the means of 8 training pairs
        assert len(plan) == 10 * 4 + 8
        assert plan.pair[:40].tolist() == np.repeat(data._rows["test"], 4).tolist()
        assert plan.member[:40].tolist() == [MEAN, 0, 1, 2] * 10
        analogs = plan.pair[40:]
        assert set(analogs) <= set(data._rows["train"])
        assert len(set(analogs)) == 8
        assert set(plan.member[40:]) == {MEAN}
        assert data.plan("test") is plan

    def test_of_a_test_of_some_pairs_only(self, data):
        few = attached(make_again(test_pairs=3, analogs=0))
        assert few.plan("test").pair.tolist() == np.repeat(data._rows["test"][[0, 4, 9]], 4).tolist()

    @pytest.mark.usefixtures("tiny_data")
    def test_of_a_regression(self, data):
        plan = attached(data, generative=False).plan("test")
        assert plan.pair.tolist() == data._rows["test"].tolist()
        assert set(plan.member) == {MEAN}

    def test_of_a_prediction(self, data):
        own = attached(make_tiny(select=PairSelection(indices=[3, 60], box=(-90, -180, 90, 180)), members=2))
        own.setup("predict")
        plan = own.plan("predict")
        assert plan.pair.tolist() == [3, 3, 3, 60, 60, 60]
        assert plan.member.tolist() == [MEAN, 0, 1] * 2

    @pytest.mark.usefixtures("tiny_data")
    def test_of_a_prediction_without_a_regression(self):
        own = attached(make_tiny(select=PairSelection(indices=[3, 60]), members=2))
        own.trainer.lightning_module.gives_mean = False
        assert own.plan("predict").member.tolist() == [0, 1, 0, 1]

    def test_rows_come_in_order(self, data):
        loader = attached(data).test_dataloader()
        batches = list(loader)
        assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(48))
        assert data.prediction_batch("test") == 4
        assert [len(batch["index"]) for batch in batches] == [4] * 12
        assert all("output" not in batch for batch in batches)
        own = attached(make_tiny(select=PairSelection(indices=[7])))
        (batch,) = list(own.predict_dataloader())
        assert batch["case"].tolist() == [7]
        assert batch["row_pair"].tolist() == [0, 0, 0, 0]

    def test_a_prediction_sees_what_a_test_sees(self, data):
        tested = next(iter(attached(data).test_dataloader()))
        own = attached(make_tiny(select=PairSelection(indices=tested["case"].tolist())))
        predicted = next(iter(own.predict_dataloader()))
        for name in ("input", "static", "corner", "case", "member", "row_pair"):
            assert torch.equal(predicted[name], tested[name]), name


class TestTemplates:
    def test_of_a_test(self, data):
        template = attached(data).prediction_template("test")
        plan = data.plan("test")
        with open_store(data.store) as store:
            for name in ("time", "case", "split", "corner"):
                np.testing.assert_array_equal(template[name], store[name].values[plan.pair])
            for name in ("latitude", "longitude"):
                np.testing.assert_array_equal(template[name], store[name])
        np.testing.assert_array_equal(template["member"], plan.member)
        np.testing.assert_array_equal(template["pair"], plan.pair)
        assert template["row"].values.tolist() == list(range(48))
        assert set(template["split"].values[:40]) == {2}
        assert set(template["split"].values[40:]) == {0}
        assert template.attrs["fingerprint"] == read_manifest(data.store).fingerprint
        assert template.attrs["store"] == str(data.store)
        assert not template.data_vars

    def test_of_a_prediction(self, data):
        own = attached(make_tiny(select=PairSelection(indices=[3, 60])))
        template, pairs = own.prediction_template("predict"), own.source.pairs
        assert template["case"].values.tolist() == [3] * 4 + [60] * 4
        np.testing.assert_array_equal(template["time"], pairs.times[template["case"]].astype("datetime64[ns]"))
        np.testing.assert_array_equal(template["corner"], pairs.corners[template["case"]])
        np.testing.assert_array_equal(template["latitude"], pairs.latitude)
        assert np.isfinite(template["longitude"]).all()
        assert "split" not in template
        # the same words as in a test
        tested = attached(data).prediction_template("test")
        for name in ("latitude", "longitude"):
            assert template[name].attrs == tested[name].attrs
            assert template[name].attrs["units"].startswith("degrees_")
        assert template["pair"].attrs["long_name"] == "number of the pair in the raw data"
        assert tested["pair"].attrs["long_name"] == "row of the processed store"

    def test_of_forecasts(self):
        leads = np.tile([0, 3, 6], 8)
        data = attached(in_memory(MemorySource(make_pairs(leads=leads, lead_labels=(0, 3, 6))), analogs=0))
        assert data.contract.lead_labels == (0, 3, 6)
        for stage in ("test", "predict"):
            template = data.prediction_template(stage)
            np.testing.assert_array_equal(template["lead"], leads[template["case"]])
            assert template["lead"].attrs["units"] == "hours"
            assert not template["corner"].any()
        assert next(iter(data.train_dataloader()))["lead"].max() <= 2


class TestDescription:
    def test_for_the_provenance(self, data):
        assert data.describe() == {
            "fingerprint": read_manifest(data.store).fingerprint,
            "store": str(data.store),
            "pairs": {"train": 44, "validation": 6, "test": 10},
        }
        assert make_tiny().describe() == {"dataset": "tiny"}

    def test_summary(self, data):
        lines = printed(data.summary()).splitlines()
        assert lines[0].strip() == "tiny: 32 x 32 points, factor 8"
        found = {line.split("│")[1].strip(): line for line in lines if "│" in line}
        assert list(found)[-6:] == ["u850", "v850", "t850", "tp", "elev_mean", "lsm_mean"]
        mean = read_manifest(data.store).statistics["output"]["mean"][3]
        assert "mm h-1" in found["tp"]
        assert f"{mean:.4g}" in found["tp"]
