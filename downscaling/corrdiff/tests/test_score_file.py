"""Scores of files, ours and the reference's."""

import json
from pathlib import Path
from typing import Any

import h5netcdf
import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from ai4sim.errors import InputError
from downscaling.corrdiff import product_file
from downscaling.corrdiff.product_file import ProductFile
from downscaling.corrdiff.score_file import main, scan, score_file

CASES, MEMBERS, SHAPE = 6, 4, (16, 16)
UNITS = {"10u": "m s-1", "10v": "m s-1", "tp": "mm h-1"}


def fields(seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Members (member, case, y, x) and truths (case, y, x), all draws from N(0, 1)."""
    random = np.random.default_rng(seed)
    members = {name: random.normal(size=(MEMBERS, CASES, *SHAPE)).astype(np.float32) for name in UNITS}
    return members, {name: random.normal(size=(CASES, *SHAPE)).astype(np.float32) for name in UNITS}


def tree_of(members: dict[str, np.ndarray], truth: dict[str, np.ndarray] | None, **attrs: Any) -> xr.DataTree:
    time = ("time", np.arange(266_618, 266_618 + 6 * CASES, 6), {"units": "hours since 1990-01-01 00:00:00"})
    groups = {
        "/": xr.Dataset(
            {"case": ("time", np.arange(CASES))}, {"time": time}, {"spacing_km": 3.0, "factor": 4, **attrs}
        ),
        "/prediction": xr.Dataset(
            {n: (("ensemble", "time", "y", "x"), v, {"units": UNITS[n]}) for n, v in members.items()}
        ),
    }
    if truth is not None:
        groups["/truth"] = xr.Dataset({n: (("time", "y", "x"), v, {"units": UNITS[n]}) for n, v in truth.items()})
    return xr.DataTree.from_dict(groups)


def write(path: Path, *args: Any, **attrs: Any) -> Path:
    tree = tree_of(*args, **attrs)
    if path.suffix == ".nc":
        tree.to_netcdf(path, engine="h5netcdf")
    else:
        tree.to_zarr(path, zarr_format=3, consolidated=False)
    return path


def value_of(table: pd.DataFrame, variable: str, metric: str) -> float:
    (value,) = table["value"][(table["variable"] == variable) & (table["metric"] == metric)]
    return float(value)


def scored(path: Path, **options: Any) -> tuple[pd.DataFrame, xr.Dataset]:
    output = path.with_name("scores.nc")
    table = score_file(path, output, **options)
    return table, xr.load_dataset(output, engine="h5netcdf", decode_times=False)


def test_scores_are_those_of_their_definitions(tmp_path):
    members, truth = fields()
    table, cases = scored(write(tmp_path / "a.nc", members, truth))
    x, y = members["tp"].astype(float), truth["tp"].astype(float)
    mean, distance = x.mean(0), np.abs(x - y).mean(0)
    pairs = np.abs(x[:, None] - x[None]).sum((0, 1))
    expected = {
        "mae": np.abs(mean - y).mean(),
        "rmse": np.sqrt(((mean - y) ** 2).mean()),
        "bias": (mean - y).mean(),
        "crps_plain": (distance - pairs / (2 * MEMBERS**2)).mean(),
        "crps_fair": (distance - pairs / (2 * MEMBERS * (MEMBERS - 1))).mean(),
        "std_dev": x.std(0).mean(),
        "spread": np.sqrt(x.var(0, ddof=1).mean()),
        "ssr": np.sqrt((MEMBERS + 1) / MEMBERS * x.var(0, ddof=1).mean() / ((mean - y) ** 2).mean()),
    }
    for metric, value in expected.items():
        assert value_of(table, "tp", metric) == pytest.approx(value, rel=1e-6, abs=1e-9)
    assert list(cases["metric"].values) == ["rmse", "crps", "std_dev", "mae"]
    assert cases["tp"].dims == ("metric", "time")
    assert cases.attrs["n_ensemble"] == MEMBERS
    assert list(cases.data_vars) == list(UNITS)
    np.testing.assert_allclose(cases["tp"].sel(metric="rmse"), np.sqrt(((mean - y) ** 2).mean((1, 2))), rtol=1e-6)
    plain = (distance - pairs / (2 * MEMBERS**2)).mean((1, 2))
    np.testing.assert_allclose(cases["tp"].sel(metric="crps"), plain, rtol=1e-6)
    np.testing.assert_allclose(cases["tp"].sel(metric="std_dev"), x.std(0).mean((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(cases["tp"].sel(metric="mae"), np.abs(mean - y).mean((1, 2)), rtol=1e-6)
    assert cases["time"].attrs["units"] == "hours since 1990-01-01 00:00:00"
    assert cases["time"].values[0] == 266_618


def test_an_exchangeable_ensemble(tmp_path):
    table, _ = scored(write(tmp_path / "a.nc", *fields()))
    assert value_of(table, "10u", "ssr") == pytest.approx(1, abs=0.05)
    assert value_of(table, "10u", "crps_fair") == pytest.approx(0.5642, abs=0.03)
    assert value_of(table, "10u", "outlier_ratio") == pytest.approx(1, abs=0.1)
    assert value_of(table, "wind_speed", "p99_quantile_ratio") == pytest.approx(1, abs=0.1)
    assert value_of(table, "10u", "lsd") < 1


def test_summary_and_curves_are_beside_the_scores(tmp_path):
    table, _ = scored(write(tmp_path / "a.nc", *fields()))
    stored = pd.read_csv(tmp_path / "scores.csv")
    assert stored.columns.tolist() == ["variable", "metric", "value", "lower", "upper", "units", "cases", "members"]
    assert len(stored) == len(table)
    rows = {
        (row["variable"], row["metric"]): row for row in json.loads((tmp_path / "scores.json").read_text())["scores"]
    }
    crps = rows["10v", "crps_fair"]
    assert crps["lower"] < crps["value"] < crps["upper"]
    assert (crps["units"], crps["cases"], crps["members"]) == ("m s-1", CASES, MEMBERS)
    spectra = xr.load_dataset(tmp_path / "scores.nc", engine="h5netcdf", group="spectra")
    assert spectra["source"].values.tolist() == ["members", "mean", "truth"]
    assert spectra["wavelength"].values[[0, -1]].tolist() == [48, 6]
    # white noise: its variance times twice the spacing, for the mean a K-th of it
    np.testing.assert_allclose(spectra["tp"].sel(source="members")[:-1].mean(), 6, rtol=0.05)
    np.testing.assert_allclose(spectra["tp"].sel(source="mean")[:-1].mean(), 6 / MEMBERS, rtol=0.1)
    shapes = xr.load_dataset(tmp_path / "scores.nc", engine="h5netcdf", group="distributions")
    width = shapes["tp_bin_upper"] - shapes["tp_bin_lower"]
    np.testing.assert_allclose((shapes["tp"] * width).sum("tp_bin"), 1, rtol=1e-2)
    assert {path.name for path in tmp_path.iterdir()} == {"a.nc", "scores.nc", "scores.csv", "scores.json"}


def test_a_zarr_store_has_the_same_scores(tmp_path):
    of_file, _ = scored(write(tmp_path / "a.nc", *fields()))
    of_store, _ = scored(write(tmp_path / "a.zarr", *fields()))
    order = ["variable", "metric"]
    frames = [table.sort_values(order, ignore_index=True) for table in (of_file, of_store)]
    pd.testing.assert_frame_equal(*frames)


def test_scores_do_not_depend_on_what_is_read_at_once(tmp_path, monkeypatch):
    path = write(tmp_path / "a.nc", *fields())
    at_once, _ = scored(path)
    monkeypatch.setattr(product_file, "VALUES", 1)
    with ProductFile(path) as file:
        assert len(file.parts) == CASES
    pd.testing.assert_frame_equal(scored(path)[0], at_once)


def test_without_truth_there_are_spectra_and_distributions(tmp_path):
    members, _ = fields()
    table, cases = scored(write(tmp_path / "a.nc", members, None))
    assert set(table["metric"]) == {"p99_prediction", "p99.9_prediction", "p99.99_prediction"}
    assert value_of(table, "tp", "p99_prediction") == pytest.approx(2.33, abs=0.15)
    assert not cases.data_vars
    spectra = xr.load_dataset(tmp_path / "scores.nc", engine="h5netcdf", group="spectra")
    assert np.isnan(spectra["tp"].sel(source="truth")).all()


def test_a_variable_without_truth_is_named(tmp_path, capsys):
    members, truth = fields()
    table, cases = scored(write(tmp_path / "a.nc", members, {"10u": truth["10u"]}))
    assert "no truth of 10v, tp: spectra and distributions only" in capsys.readouterr().out
    assert list(cases.data_vars) == ["10u"]
    assert set(table["metric"][table["variable"] == "tp"]) == {f"p{q}_prediction" for q in ("99", "99.9", "99.99")}


def test_incomplete_members_are_left_out_and_named(tmp_path, capsys):
    members, truth = fields()
    members["10u"][1, 2, 3, 4] = np.nan
    members["tp"][3, 2] = 9.969209968386869e36  # what a file holds that was not written to
    for name in UNITS:
        members[name][:, 4] = np.nan
    path = write(tmp_path / "a.nc", members, truth)
    table, cases = scored(path)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("case 2 (2020-06-01T14:00): members 1, 3 are incomplete: left out") for line in lines)
    assert any(line.startswith("case 4 (2020-06-02T02:00): all members are incomplete: left out") for line in lines)
    assert np.isnan(cases["tp"][:, 4]).all()
    assert np.isfinite(cases["tp"].isel(time=[0, 1, 2, 3, 5])).all()
    kept = members["10v"][[0, 2], 2].astype(float)
    expected = np.sqrt(((kept.mean(0) - truth["10v"][2]) ** 2).mean())
    assert float(cases["10v"].sel(metric="rmse")[2]) == pytest.approx(expected, rel=1e-6)
    assert value_of(table, "10v", "ssr") == pytest.approx(1, abs=0.06)
    assert set(table["cases"]) == {5}
    with ProductFile(path) as file:
        assert scan(file).complete.sum(1).tolist() == [4, 4, 2, 4, 0, 4]


def test_gaps_of_the_truth_are_left_out(tmp_path):
    members, truth = fields()
    truth["tp"][:, :3] = np.nan
    table, _ = scored(write(tmp_path / "a.nc", members, truth))
    mean = members["tp"].astype(float).mean(0)
    expected = np.abs(mean - truth["tp"])[:, 3:].mean()
    assert value_of(table, "tp", "mae") == pytest.approx(expected, rel=1e-6)


def test_a_single_member_has_an_error_and_no_spread(tmp_path, capsys):
    members, truth = fields()
    table, cases = scored(write(tmp_path / "a.nc", {name: values[:1] for name, values in members.items()}, truth))
    assert "one member: its CRPS is the absolute error, and it has no spread" in capsys.readouterr().out
    assert value_of(table, "tp", "crps_fair") == value_of(table, "tp", "mae")
    assert "ssr" not in set(table["metric"])
    assert (cases["tp"].sel(metric="std_dev") == 0).all()


def test_other_groups_are_scored_on_request(tmp_path):
    members, truth = fields()
    tree = tree_of(members, truth)
    tree["/regression"] = xr.DataTree(xr.Dataset({"tp": (("time", "y", "x"), truth["tp"] + 2, {"units": "mm h-1"})}))
    tree.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    table, _ = scored(tmp_path / "a.nc", group="regression")
    assert value_of(table, "tp", "bias") == pytest.approx(2)
    assert set(table["variable"]) == {"tp"}


def test_a_file_as_the_reference_writes_it(tmp_path):
    """Without attributes; the spacing follows from latitudes and longitudes, and times of forecasts are strings."""
    members, truth = fields()
    with h5netcdf.File(tmp_path / "a.nc", "w") as file:
        file.dimensions = {"time": None, "ensemble": None, "y": SHAPE[0], "x": SHAPE[1]}
        file.resize_dimension("time", CASES)
        file.resize_dimension("ensemble", MEMBERS)
        rows, columns = np.meshgrid(np.arange(SHAPE[0]), np.arange(SHAPE[1]), indexing="ij")
        for name, values in (("lat", 0.01 * rows), ("lon", 120 + 0.018 * columns)):
            file.create_variable(name, ("y", "x"), "f4", data=values)
        time = file.create_variable("time", ("time",), h5py.string_dtype())
        time[:] = [f"20210601{6 * (case // 3):02d}f{3 * case:02d}" for case in range(CASES)]
        for group, own, dims in (("prediction", members, ("ensemble", "time")), ("truth", truth, ("time",))):
            part = file.create_group(group)
            for name, values in own.items():
                part.create_variable(name, (*dims, "y", "x"), "f4", data=values)
    with ProductFile(tmp_path / "a.nc") as file:
        assert file.spacing_km() == pytest.approx(2.0, rel=0.01)
        assert file.label(1) == "case 1 (2021060100f03)"
        assert file.blocks().tolist() == [0, 0, 0, 1, 1, 1]
    table, _ = scored(tmp_path / "a.nc")
    assert value_of(table, "10u", "ssr") == pytest.approx(1, abs=0.05)


def message_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    assert stop.value.code == 2
    return " ".join(capsys.readouterr().err.split())


class TestMistakes:
    def test_no_such_file(self, tmp_path, capsys):
        assert "nothing.nc does not exist" in message_of(capsys, str(tmp_path / "nothing.nc"))

    def test_another_format(self, tmp_path, capsys):
        (tmp_path / "a.nc").write_text("text")
        assert "a.nc is neither NetCDF 4 nor Zarr" in message_of(capsys, str(tmp_path / "a.nc"))

    def test_a_missing_group(self, tmp_path, capsys):
        members, truth = fields()
        del (tree := tree_of(members, truth))["prediction"]
        tree.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
        assert "a.nc has no group 'prediction': there is truth" in message_of(capsys, str(tmp_path / "a.nc"))

    def test_no_common_variable(self, tmp_path, capsys):
        members, truth = fields()
        path = write(tmp_path / "a.nc", {"10u": members["10u"]}, {"tp": truth["tp"]})
        message = message_of(capsys, str(path))
        assert "'prediction' and 'truth' have no variable in common: there are 10u, and tp" in message

    def test_other_dimensions(self, tmp_path):
        tree = xr.DataTree.from_dict({"/prediction": xr.Dataset({"tp": (("member", "t"), np.zeros((2, 3)))})})
        tree.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
        with pytest.raises(InputError, match=r"no variable of 'prediction' is over \(ensemble, time, y, x\).*member"):
            ProductFile(tmp_path / "a.nc")

    def test_other_sizes_and_units(self, tmp_path):
        members, truth = fields()
        tree = xr.DataTree.from_dict(
            {
                "/prediction": xr.Dataset({"tp": (("ensemble", "time", "y", "x"), members["tp"])}),
                "/truth": xr.Dataset({"tp": (("time", "y", "x"), truth["tp"][:, 1:])}),
            }
        )
        tree.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
        with pytest.raises(InputError, match=r"tp has the sizes .*'y': 16.* and .*'y': 15"):
            ProductFile(tmp_path / "a.nc")
        tree = tree_of(members, truth)
        tree["truth/tp"].attrs["units"] = "m"
        tree.to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
        with pytest.raises(InputError, match="tp is in 'mm h-1' in 'prediction', in 'm' in 'truth'"):
            ProductFile(tmp_path / "b.nc")

    def test_nothing_complete(self, tmp_path):
        members, truth = fields()
        members["tp"][:, :, 0, 0] = np.nan
        path = write(tmp_path / "a.nc", members, truth)
        with pytest.raises(InputError, match="no member of 'prediction' is complete in any case"):
            scored(path)
        assert {item.name for item in tmp_path.iterdir()} == {"a.nc"}

    def test_another_suffix_of_the_output(self, tmp_path):
        with pytest.raises(InputError, match=r"scores\.txt must end in \.nc"):
            score_file(tmp_path / "a.nc", tmp_path / "scores.txt")


def test_the_command_prints_a_table(tmp_path, capsys):
    path = write(tmp_path / "a.nc", *fields())
    main([str(path)])
    printed = capsys.readouterr().out
    assert f"{CASES} cases, {MEMBERS} members" in printed
    assert "10u [m s-1]" in printed
    assert "scores: " in printed
    assert (tmp_path / "a.scores.nc").is_file()
