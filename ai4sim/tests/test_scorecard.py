import io
import json
import math
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from rich.console import Console

from ai4sim.errors import InputError
from ai4sim.verification import (
    COLUMNS,
    Scorecard,
    block_bootstrap,
    bootstrap_skill,
    compare,
    error_statistics,
    metric_info,
    mse,
    r2,
    rmse,
)
from ai4sim.verification.metrics import format_number


@pytest.fixture
def card() -> Scorecard:
    card = Scorecard(use_case="weather_forecast/gwd", experiment="demo", roles={"mlp": "model", "oracle": "oracle"})
    card.add(model="zero", metric="rmse", value=2.2, lower=2.1, upper=2.3, n=1000, units="m s-1 day-1")
    card.add(model="oracle", metric="rmse", value=0.1, units="m s-1 day-1")
    card.add(model="mlp", metric="rmse", value=0.31, lower=0.30, upper=0.325, n=1000, units="m s-1 day-1")
    card.add(model="ridge", metric="rmse", value=0.32, lower=0.31, upper=0.33, n=1000, units="m s-1 day-1")
    card.add(model="zero", metric="r2", value=math.nan, n=1000)
    card.add(model="mlp", metric="r2", value=0.98, lower=0.97, upper=0.99, n=1000)
    card.add(model="ridge", metric="r2", value=0.75, lower=0.74, upper=0.76, n=1000)
    card.add(model="mlp", metric="bias", value=-0.02, lower=-0.03, upper=-0.01)
    card.add(model="ridge", metric="bias", value=0.05, lower=0.04, upper=0.06)
    return card


def rendered(table: object, width: int = 100) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(table)
    return stream.getvalue()


def test_table_has_exactly_the_public_columns(card, tmp_path):
    header = ["use_case", "experiment", "model", "split", "variable", "lead_time", "threshold"]
    header += ["metric", "value", "lower", "upper", "n", "units"]
    assert list(COLUMNS) == header
    path = card.save(tmp_path)
    assert path == tmp_path / "scorecard.csv"
    assert path.read_text().splitlines()[0].split(",") == header
    assert list(pd.read_csv(path).columns) == header


def test_files_hold_empty_cells_for_what_does_not_apply(card, tmp_path):
    card.add(model="mlp", metric="brier", value=0.1, lead_time=timedelta(hours=36), threshold=0.5, variable="tp")
    lines = card.save(tmp_path).read_text().splitlines()
    assert lines[1] == "weather_forecast/gwd,demo,zero,test,all,,,rmse,2.2,2.1,2.3,1000,m s-1 day-1"
    assert lines[5] == "weather_forecast/gwd,demo,zero,test,all,,,r2,,,,1000,1"
    assert lines[-1] == "weather_forecast/gwd,demo,mlp,test,tp,36.0,0.5,brier,0.1,,,,1"
    document = json.loads((tmp_path / "scorecard.json").read_text())
    assert document["rows"][4]["value"] is None
    assert document["roles"] == {"mlp": "model", "zero": "baseline", "ridge": "baseline", "oracle": "oracle"}
    assert document["columns"] == list(COLUMNS)


def test_round_trip_is_exact(card, tmp_path):
    card.add(model="mlp", metric="mae", value=1 / 3, lower=1e-300, upper=np.pi, n=123_456_789_012, variable="NA")
    card.save(tmp_path)
    again = Scorecard.load(tmp_path)
    pd.testing.assert_frame_equal(again.frame, card.frame, check_exact=True)
    assert again.models == card.models == ["mlp", "zero", "ridge", "oracle"]
    assert [again.role(name) for name in again.models] == ["model", "baseline", "baseline", "oracle"]
    again.save(tmp_path / "second")
    for name in ("scorecard.csv", "scorecard.json"):
        assert (tmp_path / "second" / name).read_bytes() == (tmp_path / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scorecard.csv", "scorecard.json", "second"]


def test_failed_save_leaves_the_old_table(card, tmp_path, monkeypatch):
    before = card.save(tmp_path).read_bytes()
    card.add(model="new", metric="rmse", value=1.0)

    def no_space(*args: object, **kwargs: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", no_space)
    with pytest.raises(OSError, match="no space left"):
        card.save(tmp_path)
    assert (tmp_path / "scorecard.csv").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_add_refuses_duplicates_unknown_metrics_wrong_bounds_and_arrays(card):
    with pytest.raises(ValueError, match=r"has a row .*'model': 'mlp'.*'metric': 'rmse'.* already"):
        card.add(model="mlp", metric="rmse", value=0.3)
    card.add(model="mlp", metric="rmse", value=0.3, split="test_tropics")
    card.add(model="mlp", metric="rmse", value=0.3, lead_time=np.timedelta64(2, "D"))
    with pytest.raises(ValueError, match="already"):
        card.add(model="mlp", metric="rmse", value=0.3, lead_time=48)
    with pytest.raises(ValueError, match="unknown metric 'rmsee'"):
        card.add(model="mlp", metric="rmsee", value=0.3)
    with pytest.raises(ValueError, match=r"lower bound 2.0 above upper bound 1.0"):
        card.add(model="mlp", metric="mae", value=1.5, lower=2.0, upper=1.0)
    with pytest.raises(ValueError, match=r"mae has shape \{'level': 3\}"):
        card.add(model="mlp", metric="mae", value=xr.DataArray([1.0, 2.0, 3.0], dims="level"))
    with pytest.raises(ValueError, match=r"unknown roles \{'mlp': 'judge'\}"):
        Scorecard(use_case="a", experiment="b", roles={"mlp": "judge"})  # type: ignore[dict-item]  # the point


@pytest.mark.parametrize(
    ("metric", "better", "perfect"),
    [
        ("rmse", "lower", 0.0),
        ("mean_level_r2", "higher", 1.0),
        ("momentum_residual", "lower", 0.0),
        ("columns_per_second", "higher", math.inf),
        ("ssr", "closer", 1.0),
        ("rmse_skill_cheap_scheme", "higher", 1.0),
    ],
)
def test_direction_of_metrics(metric, better, perfect):
    assert metric_info(metric).better == better
    assert metric_info(metric).perfect == perfect


def test_skill_of_what_is_no_metric_is_unknown():
    with pytest.raises(ValueError, match="unknown metric 'speed'"):
        metric_info("speed_skill_ridge")


def test_skill_from_values(card):
    assert card.skill("mlp", "zero", "rmse") == pytest.approx(1 - 0.31 / 2.2)
    assert card.skill("mlp", "ridge", "r2") == pytest.approx((0.98 - 0.75) / (1 - 0.75))
    assert card.skill("mlp", "ridge", "bias") == pytest.approx(1 - 0.02 / 0.05)
    with pytest.raises(KeyError, match=r"no row .*'model': 'mlp'.*'metric': 'mae'.*models"):
        card.skill("mlp", "zero", "mae")


def test_beats_asks_for_intervals_apart_or_a_positive_paired_skill(card):
    assert card.beats("mlp", "zero", "rmse")
    assert card.beats("mlp", "ridge", "r2")
    assert card.beats("mlp", "ridge", "bias")
    assert not card.beats("ridge", "mlp", "r2")
    assert not card.beats("mlp", "ridge", "rmse")
    assert card.beats("mlp", "ridge", "rmse", significant=False)
    card.add(model="mlp", metric="rmse_skill_ridge", value=0.03, lower=0.01, upper=0.05)
    assert card.beats("mlp", "ridge", "rmse")


def test_beats_is_false_for_nan_and_raises_without_intervals(card):
    assert not card.beats("mlp", "zero", "r2")
    assert not card.beats("zero", "mlp", "r2", significant=False)
    with pytest.raises(ValueError, match="has no interval"):
        card.beats("oracle", "mlp", "rmse")


def test_comparison_marks_the_best_and_the_oracle_does_not_compete(card):
    rows = compare(card, ["rmse", "r2", "bias"])
    assert [(row.model, row.role) for row in rows] == [
        ("mlp", "model"),
        ("zero", "baseline"),
        ("ridge", "baseline"),
        ("oracle", "oracle"),
    ]
    best = {(row.model, metric) for row in rows for metric, cell in row.cells.items() if cell.best}
    assert best == {("mlp", "rmse"), ("mlp", "r2"), ("mlp", "bias")}
    assert set(rows[-1].cells) == {"rmse"}
    assert compare(card, ["rmse"], split="test_r3") == []


def test_printed_table_shows_values_intervals_units_and_roles(card):
    text = rendered(card.table(["rmse", "r2"]))
    assert "weather_forecast/gwd · demo · test · all" in text
    assert "rmse [m s-1 day-1]" in text
    assert "0.310" in text
    assert "[0.300, 0.325]" in text
    assert text.index("mlp") < text.index("zero") < text.index("ridge") < text.index("oracle")
    table = card.table(["rmse"], title="Drag")
    bold = [cell.plain.split("\n")[0] for cell in table.columns[1].cells if "bold" in str(cell.style)]
    assert bold == ["0.310"]
    assert table.title == "Drag"


def test_rows_of_a_lead_time_and_threshold_are_selected(card):
    card.add(model="mlp", metric="brier", value=0.123, lead_time=24, threshold=0.5)
    assert "0.123" not in rendered(card.table(["brier"]))
    text = rendered(card.table(["brier"], lead_time=timedelta(days=1), threshold=0.5))
    assert "0.1230" in text
    assert "lead time 24 h · threshold 0.5" in text
    assert card.row("mlp", "brier", lead_time=24.0, threshold=0.5)["value"] == 0.123


@pytest.mark.parametrize(
    ("value", "width", "text"),
    [
        (0.98049, 0.004, "0.9805"),
        (0.98049, None, "0.9805"),
        (1234.5678, 20.0, "1235"),
        (0.0, None, "0"),
        (0.0, 0.02, "0.000"),
        (3.21e-6, None, "3.21e-06"),
        (2.5e7, 1e6, "2.50e+07"),
        (math.nan, None, "–"),
        (math.inf, None, "∞"),
    ],
)
def test_numbers_are_shown_to_the_digits_that_matter(value, width, text):
    assert format_number(value, width) == text


def test_add_scores_gives_the_intervals_of_the_bootstrap_and_paired_skills():
    rng = np.random.default_rng(0)
    day = ("sample", np.arange(300) // 15)
    target = xr.DataArray(rng.normal(size=300), dims="sample", coords={"day": day}, attrs={"units": "K"})
    statistics = {
        name: error_statistics(target + size * rng.normal(size=300), target, reduce="sample", block="day")
        for name, size in {"net": 0.1, "ridge": 0.4, "zero": 1.0}.items()
    }
    card = Scorecard(use_case="a/b", experiment="c", roles={"net": "model"})
    card.add_scores(
        statistics,
        metrics={"rmse": rmse, "mse": mse, "r2": r2},
        seed=3,
        skill_against=["ridge", "zero"],
        skill_metrics=["mse", "r2"],
        variable="t2m",
        lead_time=6,
    )
    row = card.row("net", "rmse", variable="t2m", lead_time=6)
    expected = block_bootstrap(statistics["net"], rmse, seed=3)
    assert (row["value"], row["lower"], row["upper"]) == tuple(float(part) for part in expected)
    assert (row["n"], row["units"]) == (300, "K")
    skill = card.row("net", "r2_skill_zero", variable="t2m", lead_time=6)
    paired = bootstrap_skill(statistics["net"], statistics["zero"], r2, perfect=1.0, seed=3)
    assert skill["lower"] == float(paired.lower)
    assert card.beats("net", "ridge", "mse", variable="t2m", lead_time=6)
    assert card.find("ridge", "mse_skill_ridge", variable="t2m", lead_time=6) is None
    assert len(card) == 3 * 3 + 4 * 2
    with pytest.raises(ValueError, match=r"no skill for \['cheap'\]"):
        card.add_scores(statistics, metrics={"mse": mse}, seed=0, skill_against=["cheap"])


def test_load_without_json_takes_all_models_as_baselines(card, tmp_path):
    card.save(tmp_path)
    (tmp_path / "scorecard.json").unlink()
    assert {Scorecard.load(tmp_path).role(name) for name in card.models} == {"baseline"}


def test_load_names_what_is_wrong(card, tmp_path):
    with pytest.raises(InputError, match=r"scorecard.csv does not exist.*run the trainer's `test`"):
        Scorecard.load(tmp_path)
    path = card.save(tmp_path)
    good = path.read_text()
    for text, message in (
        ("", "is no scorecard"),
        (good.replace("use_case,", "case,", 1), r"has the columns \['case'"),
        (good.replace(",2.2,", ",high,", 1), "scorecard.csv, column value: could not convert .*high"),
        (good.replace(",rmse,", ",rmsee,", 1), "unknown metric 'rmsee'"),
        (good + good.splitlines()[1] + "\n", "already"),
        (good.replace(",demo,", ",other,", 1), r"more than one experiment \(other, demo\)"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            Scorecard.load(tmp_path)
    path.write_text(good)
    (tmp_path / "scorecard.json").write_text("{")
    with pytest.raises(InputError, match=r"scorecard.json is damaged"):
        Scorecard.load(tmp_path)


def test_empty_scorecard_round_trips(tmp_path):
    Scorecard(use_case="a", experiment="b").save(tmp_path)
    assert len(Scorecard.load(tmp_path)) == 0


def test_scores_along_a_dimension_equal_those_of_each_coordinate():
    rng = np.random.default_rng(3)
    shape = {"sample": 40, "lead_time": 3}
    target = xr.DataArray(
        rng.normal(size=(40, 3)), dims=shape, coords={"lead_time": [3.0, 6.0, 9.0]}, attrs={"units": "K"}
    )
    block = xr.DataArray(np.arange(40) // 8, dims="sample")
    sums = {
        name: error_statistics(target + noise * rng.normal(size=(40, 3)), target, reduce="sample", block=block)
        for name, noise in (("net", 0.3), ("persistence", 0.9))
    }
    options = {"metrics": {"rmse": rmse}, "seed": 0, "skill_against": ["persistence"], "skill_metrics": ["rmse"]}
    together = Scorecard(use_case="weather_forecast/lam", experiment="demo")
    together.add_scores(sums, **options, along="lead_time", variable="t2m")
    one_by_one = Scorecard(use_case="weather_forecast/lam", experiment="demo")
    for place, lead in enumerate((3.0, 6.0, 9.0)):
        parts = {name: part.isel(lead_time=place) for name, part in sums.items()}
        one_by_one.add_scores(parts, **options, variable="t2m", lead_time=lead)
    keys = ["model", "metric", "lead_time"]
    first, second = (card.frame.sort_values(keys).reset_index(drop=True) for card in (together, one_by_one))
    assert len(first) == 9
    pd.testing.assert_frame_equal(first, second)
