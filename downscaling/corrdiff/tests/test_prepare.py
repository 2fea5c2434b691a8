"""From raw pairs to the processed store and its statistics."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ai4sim.errors import InputError
from ai4sim.manifest import Manifest
from ai4sim.store import StoreError, open_store, read_manifest
from downscaling.corrdiff import prepare
from downscaling.corrdiff.demo_file import TRAIN
from downscaling.corrdiff.readers import Channel, HrrrMini
from downscaling.corrdiff.splits import TimeFractions, TimePeriods
from downscaling.corrdiff.tests.memory_source import MemorySource, make_pairs

SPLIT = TimeFractions(0.5, 0.25, 0.25, gap_hours=3)


def build(path: Path, source: MemorySource, **changes) -> Manifest:
    settings = {"marks": SPLIT.mark(source.pairs), "transforms": {"tp": "sqrt"}, "on_missing": "error"}
    settings |= changes
    return prepare.build(path, source, settings.pop("marks"), **settings)


def stored(path: Path) -> xr.Dataset:
    with open_store(path) as store:
        return store.load()


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "s.zarr"


@pytest.fixture
def small_regions(monkeypatch):
    """Two pairs in a chunk, two chunks in a region."""
    monkeypatch.setattr(prepare, "CHUNK_BYTES", 2 * 4 * 2 * 6 * 8)
    monkeypatch.setattr(prepare, "CHUNKS_PER_REGION", 2)


class TestStore:
    def test_values_are_those_of_the_demos_file(self, tiny_folder):
        raw, store = tiny_folder / "raw" / "tiny" / TRAIN, stored(tiny_folder / "processed" / "tiny.zarr")
        cases = store["case"].values
        with (
            xr.open_dataset(raw) as root,
            xr.open_dataset(raw, group="input") as inputs,
            xr.open_dataset(raw, group="output") as outputs,
            xr.open_dataset(raw, group="invariant") as invariants,
        ):
            for kind, group in (("input", inputs), ("output", outputs)):
                expected = np.stack([group[name].values[cases] for name in group.data_vars], axis=1)
                np.testing.assert_array_equal(store[kind], expected)
            np.testing.assert_array_equal(store["time"], root["time"].values[cases])
            np.testing.assert_array_equal(store["corner"], root["coord"].values[cases])
            for place, name in enumerate(("elev_mean", "lsm_mean")):
                np.testing.assert_array_equal(store["static"][place], invariants[name])
            for name in ("latitude", "longitude"):
                np.testing.assert_array_equal(store[name], invariants[name])
        marks = TimeFractions(gap_hours=4.0).mark(HrrrMini(raw).pairs)
        np.testing.assert_array_equal(cases, np.flatnonzero(marks >= 0))
        np.testing.assert_array_equal(store["split"], marks[cases])
        assert len(cases) < len(marks)
        assert (store["complete"] == prepare.USABLE).all()

    @pytest.mark.usefixtures("small_regions")
    def test_values_are_those_of_the_source_where_pairs_are_left_out(self, path):
        source = MemorySource(make_pairs(33, per_time=1))
        # three parts of the training, so that there are many gaps
        days = [["2021-06-01T00", "2021-06-01T03"], ["2021-06-01T05", "2021-06-01T08"], ["2021-06-01T11", "2021-06-02"]]
        split = TimePeriods(days, [["2021-06-02T02", "2021-06-02T05"]], [["2021-06-02T06", "2021-06-03"]], gap_hours=2)
        marks = split.mark(source.pairs)
        build(path, source, marks=marks)
        store, rows = stored(path), np.flatnonzero(marks >= 0)
        np.testing.assert_array_equal(store["case"], rows)
        np.testing.assert_array_equal(store["input"], source.inputs[rows])
        np.testing.assert_array_equal(store["output"], source.outputs[rows])
        np.testing.assert_array_equal(store["time"], source.found.times[rows].astype("datetime64[ns]"))
        assert store["output"].encoding["chunks"] == (2, 2, 6, 8)
        # pairs that no split has are not read
        read = np.concatenate([np.arange(part.start, part.stop) for part in source.reads])
        np.testing.assert_array_equal(np.sort(read), rows)

    def test_coordinates(self, path):
        leads = np.tile([0, 3], 12)
        source = MemorySource(make_pairs(24, per_time=2, leads=leads, lead_labels=(0, 3)))
        build(path, source)
        store = stored(path)
        np.testing.assert_array_equal(store["lead"], leads[store["case"]])
        np.testing.assert_array_equal(store["corner"], source.found.corners[store["case"]])
        np.testing.assert_array_equal(store["latitude"], source.found.latitude)
        assert store["lead"].attrs["units"] == "hours"
        assert store["longitude"].attrs["units"] == "degrees_east"
        assert store["split"].attrs["long_name"] == "split: train, validation, test"

    def test_what_a_model_must_know(self, path):
        settings = build(path, MemorySource()).settings
        assert settings["inputs"][0] == {"name": "t850", "units": "K", "long_name": ""}
        assert [channel["name"] for channel in settings["outputs"]] == ["2t", "tp"]
        assert (settings["factor"], settings["input_shape"], settings["output_shape"]) == (2, [3, 4], [6, 8])
        assert settings["source"] == {"kind": "memory", "note": ""}
        assert settings["transforms"] == {"tp": "sqrt"}
        assert not settings["crops"]

    def test_without_static_fields(self, path):
        source = MemorySource(make_pairs(static=(), static_fields=np.empty((0, 6, 8), np.float32)))
        assert "static" not in build(path, source).statistics
        assert stored(path)["static"].shape == (0, 6, 8)


class TestStatistics:
    @pytest.mark.usefixtures("small_regions")
    def test_of_transformed_values_of_training_pairs_only(self, path):
        source = MemorySource()
        marks = SPLIT.mark(source.pairs)
        # what is not of the training would be noticed
        source.inputs[marks != 0] += 1000
        source.outputs[marks != 0] += 1000
        manifest = build(path, source)
        train = marks == 0
        transformed = source.outputs[train].astype(np.float64)
        transformed[:, 1] = np.sqrt(transformed[:, 1])
        fields = {
            "input": source.inputs[train].astype(np.float64).swapaxes(0, 1),
            "output": transformed.swapaxes(0, 1),
            "static": source.found.static_fields.astype(np.float64),
        }
        for kind, values in fields.items():
            flat = values.reshape(len(values), -1)
            found = prepare.moments(manifest, kind)
            assert found.count == flat.shape[1]
            np.testing.assert_allclose(found.mean, flat.mean(axis=1), rtol=1e-12)
            np.testing.assert_allclose(found.std, flat.std(axis=1), rtol=1e-12)
            np.testing.assert_allclose(found.minimum, flat.min(axis=1), rtol=1e-12)
            np.testing.assert_allclose(found.maximum, flat.max(axis=1), rtol=1e-12)

    @pytest.mark.parametrize("name", ["log1p", "log_eps"])
    def test_of_logarithms(self, path, name):
        source = MemorySource()
        manifest = build(path, source, transforms={"tp": name, "2t": "none"})
        amounts = source.outputs[SPLIT.mark(source.pairs) == 0, 1].astype(np.float64)
        expected = np.log1p(amounts if name == "log1p" else amounts / 0.1)
        assert prepare.moments(manifest, "output").mean[1] == pytest.approx(expected.mean(), rel=1e-12)

    def test_of_the_demo(self, tiny_folder):
        manifest = read_manifest(tiny_folder / "processed" / "tiny.zarr")
        raw = HrrrMini(tiny_folder / "raw" / "tiny" / TRAIN)
        train = np.flatnonzero(TimeFractions(gap_hours=4.0).mark(raw.pairs) == 0)
        outputs = raw.read_outputs(slice(0, len(raw.pairs)))[train].astype(np.float64)
        outputs[:, 3] = np.sqrt(outputs[:, 3])
        found = prepare.moments(manifest, "output")
        np.testing.assert_allclose(found.mean, outputs.mean(axis=(0, 2, 3)), rtol=1e-10)
        np.testing.assert_allclose(found.std, outputs.std(axis=(0, 2, 3)), rtol=1e-10)


class TestMissing:
    @staticmethod
    def source(kind: str) -> MemorySource:
        """Three values of one pair are missing or infinite, and one of a later one."""
        source = MemorySource()
        fields = source.inputs if kind == "input" else source.outputs
        fields[4, 1, 0, :2], fields[4, 1, 1, 0], fields[7, 0, 0, 0] = np.nan, np.inf, -np.inf
        return source

    @pytest.mark.parametrize(("kind", "name"), [("input", "wind"), ("output", "tp")])
    def test_is_an_error(self, path, kind, name):
        message = (
            rf"^{kind} '{name}' of pair 4 \(2021-06-01T04:00:00\) has 3 values that are missing or infinite: "
            r"data\.on_missing skip leaves such pairs out"
        )
        with pytest.raises(InputError, match=message + ("$" if kind == "input" else ", mask learns from the others$")):
            build(path, self.source(kind))
        assert not path.exists()

    def test_of_inputs_cannot_be_masked(self, path):
        with pytest.raises(
            InputError, match=r"input 'wind' of pair 4 \(2021-06-01T04.*\) has 3 .* leaves such pairs out$"
        ):
            build(path, self.source("input"), on_missing="mask")

    @pytest.mark.parametrize(
        ("kind", "on_missing", "mark"),
        [
            ("input", "skip", prepare.UNUSABLE),
            ("output", "skip", prepare.LACKS_TRUTH),
            ("output", "mask", prepare.LACKS_TRUTH),
        ],
    )
    def test_such_pairs_are_marked(self, path, kind, on_missing, mark):
        source = self.source(kind)
        manifest = build(path, source, on_missing=on_missing)
        store = stored(path)
        expected = np.full(len(store["case"]), prepare.USABLE)
        expected[[4, 7]] = mark
        assert store["complete"].values.tolist() == expected.tolist()
        # infinite values are missing, too, and all others are as they were
        fields = source.inputs if kind == "input" else source.outputs
        own = fields[store["case"]]
        np.testing.assert_array_equal(store[kind], np.where(np.isfinite(own), own, np.nan))
        assert np.isnan(store[kind].values).sum() == 4
        assert np.isinf(fields).sum() == 2
        # and such pairs count in the statistics where they are learnt from, with the values that they have
        lacking = [] if on_missing == "mask" else [4, 7]
        train = np.setdiff1d(np.flatnonzero(SPLIT.mark(source.pairs) == 0), lacking)
        for name, channel in (("input", source.inputs), ("output", source.outputs)):
            values = channel[train, 0].astype(np.float64)
            known = values[np.isfinite(values)]
            found = prepare.moments(manifest, name)
            assert found.mean[0] == pytest.approx(known.mean(), rel=1e-12)
            assert found.std[0] == pytest.approx(known.std(), rel=1e-12)

    def test_of_both(self, path):
        source = self.source("output")
        source.inputs[4, 0] = np.nan
        build(path, source, on_missing="skip")
        assert stored(path)["complete"].values[[4, 7]].tolist() == [prepare.UNUSABLE, prepare.LACKS_TRUTH]

    def test_outside_of_all_splits_nobody_minds(self, path):
        source = MemorySource()
        source.inputs[SPLIT.mark(source.pairs) < 0] = np.nan
        build(path, source)

    def test_in_all_pairs_leave_none(self, path):
        source = MemorySource()
        source.outputs[:, 1, 0, 0] = np.nan
        with pytest.raises(InputError, match="no training pair is complete: all have missing values"):
            build(path, source, on_missing="skip")
        assert not path.exists()

    @pytest.mark.usefixtures("small_regions")
    def test_in_all_pairs_can_be_masked(self, path):
        source = MemorySource()
        # as outside of the range of a radar, and for some pairs everywhere
        source.outputs[:, 1, :2] = np.nan
        source.outputs[2:5, 1] = np.nan
        found = prepare.moments(build(path, source, on_missing="mask"), "output")
        values = source.outputs[SPLIT.mark(source.pairs) == 0].astype(np.float64)
        for place, own in enumerate((values[:, 0], np.sqrt(values[:, 1]))):
            assert found.mean[place] == pytest.approx(np.nanmean(own), rel=1e-12)
            assert found.std[place] == pytest.approx(np.nanstd(own), rel=1e-12)
            assert found.minimum[place] == np.nanmin(own)
            assert found.maximum[place] == np.nanmax(own)

    def test_of_an_output_that_is_never_known(self, path):
        source = MemorySource()
        train = SPLIT.mark(source.pairs) == 0
        source.outputs[train, 1] = np.nan
        with pytest.raises(InputError, match="output 'tp': all values are missing in all training pairs; leave such"):
            build(path, source, on_missing="mask")
        assert not path.exists()


class TestAmounts:
    def source(self, factor: float) -> MemorySource:
        source = MemorySource()
        source.outputs[:, 1] = factor * np.maximum(source.outputs[:, 1] - 1, 0)  # mm h-1, dry at many places
        return source

    def test_with_dry_places_have_the_moments_of_their_transform(self, path):
        source = self.source(1.0)
        found = prepare.moments(build(path, source, transforms={"tp": "sqrt_dry"}), "output")
        values = source.outputs[SPLIT.mark(source.pairs) == 0, 1].astype(np.float64)
        expected = np.where(values > 0, np.sqrt(values), -0.5)
        assert found.minimum[1] == -0.5
        assert found.mean[1] == pytest.approx(expected.mean(), rel=1e-12)
        assert found.std[1] == pytest.approx(expected.std(), rel=1e-12)

    def test_in_units_that_make_them_small_are_refused(self, path):
        source = self.source(1 / 3600)  # kg m-2 s-1
        message = (
            r"output 'tp': the largest amount of the training is 0\.00\d+, too little for the transform 'sqrt_dry'"
        )
        with pytest.raises(InputError, match=message):
            build(path, source, transforms={"tp": "sqrt_dry"})
        assert not path.exists()
        build(path, source, transforms={"tp": "sqrt"})


class Interrupted(MemorySource):
    """Ends as a killed process does after some reads; Dask takes regions in an order of its own."""

    def __init__(self, whole: int) -> None:
        super().__init__()
        self.left = whole

    def read_outputs(self, rows: slice) -> np.ndarray:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return super().read_outputs(rows)


class TestAgain:
    @pytest.mark.usefixtures("small_regions")
    def test_an_interrupted_preparation_goes_on(self, path, monkeypatch):
        monkeypatch.setattr("ai4sim.store.available_cores", lambda: 1)
        with pytest.raises(KeyboardInterrupt):
            build(path, Interrupted(3))
        with pytest.raises(StoreError, match=r"s\.zarr is unfinished: a preparation was interrupted; run prepare"):
            open_store(path)
        kept = sorted(file.name for file in Path(f"{path}.partial/regions").iterdir())
        assert kept
        source = MemorySource()
        build(path, source)
        rows = stored(path)["case"].values
        np.testing.assert_array_equal(stored(path)["output"], source.outputs[rows])
        # only what was not yet there has been read
        done = np.concatenate([rows[4 * int(name[:6]) :][:4] for name in kept])
        read = np.concatenate([np.arange(part.start, part.stop) for part in source.reads])
        np.testing.assert_array_equal(np.sort(read), np.setdiff1d(rows, done))
        assert not Path(f"{path}.partial").exists()

    def test_what_is_there_is_kept(self, path):
        first = build(path, MemorySource())
        source = MemorySource()
        assert build(path, source).fingerprint == first.fingerprint
        assert not source.reads

    @pytest.mark.parametrize(
        "changes",
        [
            {"transforms": {}},
            {"on_missing": "skip"},
            {"marks": TimeFractions(0.5, 0.25, 0.25, gap_hours=2).mark(make_pairs())},
        ],
        ids=lambda changes: next(iter(changes)),
    )
    def test_other_settings_make_another(self, path, changes):
        first = build(path, MemorySource())
        source = MemorySource()
        assert build(path, source, **changes).fingerprint != first.fingerprint
        assert source.reads

    @pytest.mark.parametrize(
        "source",
        [
            MemorySource(note="other"),
            MemorySource(make_pairs(inputs=(Channel("t850", "K"), Channel("speed", "m s-1")))),
            MemorySource(make_pairs(spacing_km=2.0)),
        ],
        ids=["settings", "channels", "grid"],
    )
    def test_another_source_makes_another(self, path, source):
        first = build(path, MemorySource())
        assert build(path, source).fingerprint != first.fingerprint
        assert source.reads

    def test_another_file_makes_another(self, path, tmp_path):
        file = tmp_path / "raw.txt"
        file.write_text("1")
        first = build(path, MemorySource(make_pairs(files=(file,))))
        file.write_text("2")
        assert build(path, MemorySource(make_pairs(files=(file,)))).fingerprint != first.fingerprint
        assert [source.name for source in first.sources] == ["raw.txt"]


class TestFaults:
    def test_without_outputs(self, path):
        with pytest.raises(InputError, match="the data set has no outputs: there is nothing to learn from"):
            build(path, MemorySource(make_pairs(outputs=())), transforms={})

    def test_transforms_of_no_channel(self, path):
        with pytest.raises(InputError, match=r"data\.transforms names 'rain', .* there are t850, wind, 2t, tp"):
            build(path, MemorySource(), transforms={"rain": "sqrt"})
        assert not path.exists()

    def test_without_pairs(self):
        empty = make_pairs(0, files=("a.nc",))
        with pytest.raises(InputError, match=r"MemorySource: there is no pair in a\.nc"):
            _ = MemorySource(empty).pairs

    def test_missing_values_of_static_fields(self):
        source = MemorySource()
        source.found.static_fields[0, 2, 3:5] = np.nan
        with pytest.raises(InputError, match="static 'elev' has 2 values that are missing or infinite"):
            _ = source.pairs

    def test_folders_of_others(self, path):
        path.mkdir()
        (path / "notes.txt").write_text("mine")
        with pytest.raises(StoreError, match=r"s\.zarr holds files that are no store made here"):
            build(path, MemorySource())

    def test_fields_of_another_shape_than_was_said(self, path):
        source = MemorySource()
        source.outputs = source.outputs[..., :7]
        with pytest.raises(
            StoreError, match=r"variable 'output' has .*shape \(20, 2, 6, 7\).* expects .*\(20, 2, 6, 8\)"
        ):
            build(path, source)

    def test_the_manifest_is_plain(self, path):
        build(path, MemorySource(make_pairs(spacing_km=float("nan"))))
        settings = json.loads((path / "manifest.json").read_text())["settings"]
        assert np.isnan(settings["spacing_km"])
        assert len(settings["splits"]) == 64
