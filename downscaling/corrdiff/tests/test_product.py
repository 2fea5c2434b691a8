"""The file that users get."""

from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
import pytest
import xarray as xr

from ai4sim.predictions import write_netcdf
from ai4sim.tests.command_line import QUIET
from downscaling.corrdiff import product as product_module
from downscaling.corrdiff import trainer
from downscaling.corrdiff.batches import MEAN, Plan
from downscaling.corrdiff.data import DownscalingData
from downscaling.corrdiff.interpolation import interpolate
from downscaling.corrdiff.product import finish, make_product
from downscaling.corrdiff.readers import Channel
from downscaling.corrdiff.tests.conftest import make_tiny
from downscaling.corrdiff.tests.memory_source import MemorySource, make_pairs
from downscaling.corrdiff.tests.runs import checkpoint_of, fit, settings, write

CHANNELS = ("2t", "tp")


def rows_of(source: MemorySource, cases: list[int], members: int, *, mean: bool = True) -> xr.Dataset:
    """What ``predict`` writes, with values that tell case, member and channel."""
    pairs = source.pairs
    plan = Plan.of(np.array(cases), members, mean=mean)
    n, (height, width) = len(plan), pairs.output_shape
    values = 1000 * plan.pair[:, None] + 10 * plan.member[:, None] + np.arange(2)
    corners = np.zeros((n, 2), np.int64) if pairs.corners is None else pairs.corners[plan.pair]
    coords: dict[str, Any] = {
        "row": ("sample", np.arange(n)),
        "time": ("sample", pairs.times[plan.pair].astype("datetime64[ns]")),
        "case": ("sample", plan.pair),
        "member": ("sample", plan.member),
        "corner": (("sample", "corner_axis"), corners),
        "channel": ("channel", list(CHANNELS)),
        "channel_units": ("channel", ["K", "mm h-1"]),
    }
    if pairs.leads is not None:
        coords["lead"] = ("sample", pairs.leads[plan.pair])
    fields = np.broadcast_to(values[..., None, None], (n, 2, height, width)).astype(np.float32)
    attrs = {"title": "downscaled fields", "model": "corrdiff", "sampler": "Heun", "seed": 3}
    return xr.Dataset({"field": (("sample", "channel", "y", "x"), fields)}, coords, attrs).chunk({"sample": 2})


def written(source: MemorySource, path: Path, *args: Any, **options: Any) -> xr.DataTree:
    write_netcdf(make_product(rows_of(source, *args, **options), source), path)
    return xr.open_datatree(path, engine="h5netcdf", decode_times=False).load()


@pytest.fixture
def source() -> MemorySource:
    return MemorySource(make_pairs(8))


@pytest.fixture
def product(source, tmp_path) -> xr.DataTree:
    return written(source, tmp_path / "out.nc", [1, 4, 6], 3)


def test_groups_dimensions_and_units(product, tmp_path):
    assert set(product.children) == {"input", "truth", "prediction", "regression"}
    over_time = ("time", "y", "x")
    assert {str(n): a.dims for n, a in product["prediction"].data_vars.items()} == dict.fromkeys(
        CHANNELS, ("ensemble", *over_time)
    )
    for group, names in (("input", ("t850", "wind")), ("truth", CHANNELS), ("regression", CHANNELS)):
        assert {str(n): a.dims for n, a in product[group].data_vars.items()} == dict.fromkeys(names, over_time)
    assert product["prediction/2t"].shape == (3, 3, 6, 8)
    for group in product.children.values():
        for array in group.data_vars.values():
            assert array.dtype == np.float32
            assert array.attrs["units"]
            assert array.attrs["long_name"]
    assert product["truth/2t"].attrs == {"units": "K", "long_name": "temperature"}
    with h5netcdf.File(tmp_path / "out.nc") as file:
        # in the root, where existing scripts look for them
        sizes = {name: (own.size, own.isunlimited()) for name, own in file.dims.items()}
        assert sizes["time"] == (3, True)
        assert sizes["ensemble"] == (3, True)
        assert sizes["y"] == (6, False)
        assert file["prediction/2t"].chunks == (1, 1, 6, 8)


def test_root_says_when_where_and_how(product):
    time = product["time"]
    assert time.dtype == np.int64
    assert time.attrs["units"] == "hours since 1990-01-01 00:00:00"
    assert time.attrs["calendar"] == "standard"
    first = int((np.datetime64("2021-06-01T01") - np.datetime64("1990-01-01T00")) / np.timedelta64(1, "h"))
    assert time.values.tolist() == [first, first + 3, first + 5]
    assert product["case"].values.tolist() == [1, 4, 6]
    assert product["lat"].dims == ("y", "x")
    assert product["lat"].dtype == np.float32
    assert product["lat"].attrs["units"] == "degrees_north"
    assert product["lon"].attrs["units"] == "degrees_east"
    assert product.attrs["Conventions"] == "CF-1.11"
    assert product.attrs["software"].startswith("ai4sim ")
    assert {"model": "corrdiff", "sampler": "Heun", "seed": 3, "factor": 2}.items() <= product.attrs.items()
    with xr.decode_cf(product.to_dataset()) as decoded:
        assert decoded["time"].values[0] == np.datetime64("2021-06-01T01")


def test_values_are_where_they_belong(product, source):
    for place, case in enumerate((1, 4, 6)):
        for number, name in enumerate(CHANNELS):
            assert (product["regression"][name][place] == 1000 * case + 10 * MEAN + number).all()
            for member in range(3):
                assert (product["prediction"][name][member, place] == 1000 * case + 10 * member + number).all()
            np.testing.assert_array_equal(product["truth"][name][place], source.outputs[case, number])
        for number, name in enumerate(("t850", "wind")):
            expected = interpolate(source.inputs[case : case + 1, number], 2, "linear")[0]
            np.testing.assert_array_equal(product["input"][name][place], expected)


def test_crops_have_their_own_places_and_may_share_a_time(tmp_path):
    source = MemorySource(make_pairs(8, per_time=4))
    product = written(source, tmp_path / "out.nc", [0, 1, 5], 2)
    assert product["lat"].dims == ("time", "y", "x")
    assert np.isfinite(product["lat"]).all()
    assert np.isfinite(product["lon"]).all()
    corners = source.pairs.corners[[0, 1, 5]]
    np.testing.assert_array_equal(product["coord"], corners)
    for place, (i, j) in enumerate(corners):
        np.testing.assert_array_equal(product["lat"][place], source.pairs.latitude[i : i + 6, j : j + 8])
        np.testing.assert_array_equal(product["lon"][place], source.pairs.longitude[i : i + 6, j : j + 8])
    assert product["time"][0] == product["time"][1]


def test_times_of_forecasts_are_strings(tmp_path):
    leads = np.array([0, 3, 24, 0])
    times = np.datetime64("2021-06-01T00", "s") + leads * np.timedelta64(3600, "s")
    source = MemorySource(make_pairs(4, times=times, leads=leads, lead_labels=(0, 3, 24)))
    product = written(source, tmp_path / "out.nc", [0, 1, 2], 2)
    assert product["time"].values.tolist() == ["2021060100f00", "2021060100f03", "2021060100f24"]


def test_times_within_the_hour_are_kept(tmp_path):
    times = np.datetime64("2021-06-01T00", "s") + np.arange(4) * np.timedelta64(1800, "s")
    product = written(MemorySource(make_pairs(4, times=times)), tmp_path / "out.nc", [0, 1], 2)
    assert np.diff(product["time"].values).tolist() == [0.5]


def test_without_truth_there_is_no_group(tmp_path):
    product = written(MemorySource(make_pairs(4, outputs=())), tmp_path / "out.nc", [0, 1], 2)
    assert set(product.children) == {"input", "prediction", "regression"}


def test_a_regression_gives_no_members(tmp_path):
    product = written(MemorySource(make_pairs(4)), tmp_path / "out.nc", [0, 1], 0)
    assert set(product.children) == {"input", "truth", "regression"}
    assert "ensemble" not in product.dims


def test_units_that_are_unknown_are_one(tmp_path):
    source = MemorySource(make_pairs(4, inputs=(Channel("a"), Channel("b"))))
    product = written(source, tmp_path / "out.nc", [0], 1)
    assert product["input/a"].attrs == {"units": "1", "long_name": "a"}


def test_batches_may_end_within_an_ensemble(source, tmp_path):
    rows = rows_of(source, [0, 1, 2, 5], 4).chunk({"sample": 3})
    product = make_product(rows, source)
    product.to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    with xr.open_datatree(tmp_path / "a.zarr", engine="zarr", consolidated=False, decode_times=False) as stored:
        for group in product.groups:
            xr.testing.assert_equal(stored[group].to_dataset(inherit=False), product[group].to_dataset(inherit=False))


class TestFinish:
    def made(self, source: MemorySource, folder: Path, cases: list[int]) -> tuple[list[Path], list[str]]:
        """Files and titles of the figures that are drawn."""
        data = DownscalingData(dataset="memory", source=source)
        saved: list[tuple[Path, str]] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(product_module, "save", lambda figure, path: saved.append((path, figure.get_suptitle())))
            made = finish(rows_of(source, cases, 2), folder / "out.nc", data)
        xr.testing.assert_equal(made, make_product(rows_of(source, cases, 2), source))
        return [path for path, _ in saved], [title for _, title in saved]

    def test_maps_of_the_first_cases_are_beside_the_output(self, source, tmp_path):
        paths, titles = self.made(source, tmp_path, [0, 2, 3, 4, 5, 7])
        assert paths == [tmp_path / "out" / f"case_{case}.png" for case in range(4)]
        assert titles[:2] == ["2021-06-01 00:00 UTC, pair 0", "2021-06-01 02:00 UTC, pair 2"]

    def test_crops_are_drawn_too(self, tmp_path):
        paths, titles = self.made(MemorySource(make_pairs(8, per_time=4)), tmp_path, [0, 1])
        assert len(paths) == 2
        assert titles == ["2021-06-01 00:00 UTC, pair 0", "2021-06-01 00:00 UTC, pair 1"]


@pytest.fixture(scope="module")
def run(tiny_data, tmp_path_factory) -> list[str]:
    """Words that name a regression of hardly any training."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AI4SIM_DATA", str(tiny_data))
        patch.setenv("AI4SIM_EXPERIMENTS", str(folder))
        regression = write(folder, settings("Regression", 4), "regression")
        return ["--config", regression, "--ckpt_path", str(checkpoint_of(fit(regression))), *QUIET]


def test_a_zarr_store_through_the_command_line(run, tiny_data, tmp_path, monkeypatch):
    drawn: list[Path] = []
    monkeypatch.setattr(product_module, "save", lambda figure, path: drawn.append(path))
    output = tmp_path / "out.zarr"
    trainer.main(["predict", "--output", str(output), "--data.select.indices", "[3, 4, 60]", *run])
    with xr.open_datatree(output, engine="zarr", consolidated=False, decode_times=False) as product:
        assert set(product.children) == {"input", "truth", "regression"}
        assert product["case"].values.tolist() == [3, 4, 60]
        assert product["lat"].dims == ("time", "y", "x")
        assert np.isfinite(product["lat"]).all()
        source = make_tiny().source
        inputs, truth = source.read_inputs(slice(60, 61)), source.read_outputs(slice(60, 61))
        names = [channel.name for channel in source.pairs.inputs]
        for place, name in enumerate(names):
            expected = interpolate(inputs[:, place], 8, "linear")[0]
            np.testing.assert_allclose(product["input"][name][2], expected, rtol=1e-6)
        np.testing.assert_array_equal(product["truth/tp"][2], truth[0, 3])
        assert np.isfinite(product["regression/2t"]).all()
        assert set(product.attrs) >= {"config", "checkpoint_sha256", "model", "software", "spacing_km", "factor"}
    assert drawn == [tmp_path / "out" / f"case_{case}.png" for case in range(3)]
