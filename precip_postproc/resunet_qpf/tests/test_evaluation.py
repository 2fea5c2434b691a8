"""From predictions to a scorecard: every score equals its direct computation on the same points."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ai4sim.experiment import PREDICTIONS
from ai4sim.store import open_store
from ai4sim.verification import Scorecard
from precip_postproc.resunet_qpf import config, evaluation, plotters
from precip_postproc.resunet_qpf.baselines import NAMES
from precip_postproc.resunet_qpf.evaluation import LEAST_EVENTS, RIVALS, dry_table, evaluate, skill_table
from precip_postproc.resunet_qpf.prepare import unpack, unpack_observed
from precip_postproc.resunet_qpf.products import Distribution
from precip_postproc.resunet_qpf.samples import Day, StoredCases, TestSamples
from precip_postproc.resunet_qpf.smoothing import gaussian_smooth
from precip_postproc.resunet_qpf.sums import DRY, DRY_SIGMA, MOUNTAINS, Sums
from precip_postproc.resunet_qpf.tests.conftest import tiny_data

MODEL = "HandMade"
WET_BIAS = 0.07
EDGES = np.array(config.EDGES)
PLACES = [config.EDGES.index(threshold) for threshold in config.THRESHOLDS]


class Run:
    """A run's folder with hand-made predictions, and everything that its scores are made of."""

    def __init__(self, folder: Path) -> None:
        data = tiny_data()
        data.prepare_data()
        data.setup("test")
        self.folder, rows = folder, data._rows["test"]
        with open_store(data.store) as store:
            part = store.isel(case=rows).load()
            self.height = store["terrain_height"].values
        self.lead = part["lead"].values
        self.day = part["init"].values.astype("datetime64[D]")
        self.forecast = unpack(part["forecast"].values)
        self.observed = unpack_observed(part["observation"].values, part["quality"].values, 0.5)
        events = (self.forecast[:, None] >= EDGES[:, None, None] - 1e-4).astype(np.float32)
        smooth = gaussian_smooth(events, [4.0])[0]
        self.dry = gaussian_smooth(self.forecast, [DRY_SIGMA])[0] < DRY
        # sure of some rain where none is anywhere near, at the first edge alone
        smooth[:, 0] = np.maximum(smooth[:, 0], WET_BIAS * self.dry)
        self.exceedance = np.round(smooth, 4).astype(np.float32)
        predictions = data.prediction_template("test").assign_coords(edge=("edge", EDGES))
        predictions["exceedance"] = (("sample", "edge", "y", "x"), self.exceedance)
        bins = np.broadcast_to(np.linspace(0, 1, 11), (2, len(EDGES), 11))
        dims = ("calibration_lead", "edge", "calibration_bin")
        predictions = predictions.assign_coords(
            calibration_lead=("calibration_lead", [6, 24]),
            calibration_forecast=(dims, bins),
            calibration_observed=(dims, 0.5 * bins),
        )
        predictions.attrs |= {"model": MODEL, "calibrated": 0}
        predictions.to_zarr(folder / PREDICTIONS, zarr_format=3, consolidated=False)
        self.drawn: list[plotters.Results] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plotters, "plot_all", lambda where, results: self.drawn.append(results))
            self.card: Scorecard = evaluate(folder)

    def brier(self, probability: np.ndarray, threshold: float, chosen: np.ndarray | bool = True) -> float:
        """Direct: of probabilities (case, y, x) where the analysis counts."""
        used = np.isfinite(self.observed) & chosen
        event = self.observed >= threshold - 1e-4
        return float(((probability.astype(np.float64) - event) ** 2)[used].mean())


@pytest.fixture(scope="module")
def run(data_home, tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("experiments") / "handmade" / "version_0"
    folder.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AI4SIM_DATA", str(data_home))
        return Run(folder)


@pytest.fixture(scope="module")
def samples(run) -> TestSamples:
    return TestSamples(xr.open_zarr(run.folder / PREDICTIONS, consolidated=False, chunks=None))


@pytest.fixture(scope="module")
def days(samples) -> list[Day]:
    return list(samples.parts())


def test_products_and_their_roles(run):
    assert run.card.models == [MODEL, f"{MODEL}_calibrated", *NAMES, "ideal"]
    assert [run.card.role(name) for name in run.card.models] == ["model"] * 2 + ["baseline"] * 5 + ["oracle"]
    assert run.card.experiment == "handmade/version_0"
    assert run.card.use_case == "precip_postproc/resunet_qpf"


@pytest.mark.parametrize("threshold", config.THRESHOLDS)
class TestBrier:
    def test_of_the_model(self, run, threshold):
        own = run.exceedance[:, config.EDGES.index(threshold)]
        row = run.card.row(MODEL, "brier", threshold=threshold)
        assert row["value"] == pytest.approx(run.brier(own, threshold), rel=1e-5)
        assert row["n"] == np.isfinite(run.observed).sum()
        calibrated = run.card.row(f"{MODEL}_calibrated", "brier", threshold=threshold)
        assert calibrated["value"] == pytest.approx(run.brier(0.5 * own, threshold), rel=1e-5)

    def test_of_the_raw_forecast(self, run, threshold):
        value = run.card.row("raw", "brier", threshold=threshold)["value"]
        assert value == pytest.approx(run.brier(run.forecast >= threshold - 1e-4, threshold), rel=1e-5)

    def test_of_every_product_by_lead_time(self, run, days, threshold):
        place = config.THRESHOLDS.index(threshold)
        for name in (MODEL, "smoothed", "climatology", "quantile_mapped", "ideal"):
            p = np.concatenate([day.probabilities[name].values[:, :, place].reshape(-1, 64, 80) for day in days])
            assert run.card.row(name, "brier", threshold=threshold)["value"] == pytest.approx(
                run.brier(p, threshold), rel=1e-5
            )
            for lead in (6, 24):
                value = run.card.row(name, "brier", threshold=threshold, lead_time=lead)["value"]
                assert value == pytest.approx(run.brier(p, threshold, (run.lead == lead)[:, None, None]), rel=1e-5)

    def test_parts_of_the_test_set(self, run, threshold):
        own = run.exceedance[:, config.EDGES.index(threshold)]
        rows = {}
        for split, chosen in (
            ("test_dry", run.dry), ("test_wet", ~run.dry), ("test_lowland", run.height < MOUNTAINS),
            ("test_mountains", run.height >= MOUNTAINS),
        ):  # fmt: skip
            rows[split] = run.card.row(MODEL, "brier", split=split, threshold=threshold)
            assert rows[split]["value"] == pytest.approx(run.brier(own, threshold, chosen), rel=1e-5)
        whole = run.card.row(MODEL, "brier", threshold=threshold)
        for pair in (("test_dry", "test_wet"), ("test_lowland", "test_mountains")):
            parts = [rows[split] for split in pair]
            assert sum(part["n"] for part in parts) == whole["n"]
            total = sum(part["n"] * part["value"] for part in parts)
            assert total == pytest.approx(whole["n"] * whole["value"], rel=1e-6)
        hours = [run.card.row(MODEL, "brier", split=f"test_{hour}utc", threshold=threshold) for hour in ("00", "12")]
        assert sum(row["n"] for row in hours) == whole["n"]

    def test_base_rates_and_mean_forecasts(self, run, threshold):
        known = np.isfinite(run.observed)
        rate = (run.observed[known] >= threshold - 1e-4).mean()
        assert run.card.row(MODEL, "base_rate", threshold=threshold)["value"] == pytest.approx(rate, abs=1e-9)
        mean = run.exceedance[:, config.EDGES.index(threshold)][known].mean(dtype=np.float64)
        assert run.card.row(MODEL, "mean_forecast", threshold=threshold)["value"] == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize("selection", [{}, {"lead_time": 6}, {"lead_time": 24}])
def test_rps_is_the_sum_of_the_brier_scores(run, selection):
    for name in run.card.models:
        parts = [run.card.row(name, "brier", threshold=t, **selection)["value"] for t in config.THRESHOLDS]
        assert run.card.row(name, "rps", **selection)["value"] == pytest.approx(sum(parts), rel=1e-6)


def test_crps(run):
    known = np.isfinite(run.observed)
    error = np.abs(run.forecast - run.observed)[known].mean(dtype=np.float64)
    assert run.card.row("raw", "crps")["value"] == pytest.approx(error, rel=1e-5)
    exceedance = np.moveaxis(run.exceedance[:, PLACES], 1, 0)
    score = Distribution(exceedance, config.THRESHOLDS).crps(np.nan_to_num(run.observed))
    row = run.card.row(MODEL, "crps")
    assert row["value"] == pytest.approx(score[known].mean(), rel=1e-5)
    assert row["units"] == "mm"
    six = known & (run.lead == 6)[:, None, None]
    assert run.card.row(MODEL, "crps", lead_time=6)["value"] == pytest.approx(score[six].mean(), rel=1e-5)


def test_skill_is_one_less_the_ratio_of_scores(run):
    for rival in RIVALS:
        own, other = (run.card.row(name, "rps")["value"] for name in (MODEL, rival))
        row = run.card.row(MODEL, f"rps_skill_{rival}")
        assert row["value"] == pytest.approx(1 - own / other, abs=1e-6)
        assert row["lower"] <= row["value"] <= row["upper"]


def test_scores_have_intervals_over_days(run):
    assert len(np.unique(run.day)) == 4
    for metric in ("brier", "reliability", "roc_area", "mean_forecast"):
        row = run.card.row(MODEL, metric, threshold=0.25)
        assert row["lower"] < row["value"] < row["upper"], metric
    assert run.card.row(MODEL, "crps")["lower"] < run.card.row(MODEL, "crps")["upper"]


def test_no_skill_is_given_for_few_events(run):
    known = np.isfinite(run.observed)
    seen = set()
    for lead in (None, 6, 24):
        part = known if lead is None else known & (run.lead == lead)[:, None, None]
        for threshold in config.THRESHOLDS:
            enough = (run.observed[part] >= threshold - 1e-4).sum() >= LEAST_EVENTS
            row = run.card.find(MODEL, "brier_skill_smoothed", threshold=threshold, lead_time=lead)
            assert (row is not None) == enough
            seen.add(bool(enough))
    assert seen == {True, False}


def test_a_wet_bias_where_it_is_dry_is_found(run):
    known = np.isfinite(run.observed) & run.dry
    assert known.any()
    own = run.exceedance[:, 0][known].mean(dtype=np.float64)
    rate = (run.observed[known] >= 0.2499).mean()
    row = run.card.row(MODEL, "probability_bias", split="test_dry", threshold=0.25)
    assert row["value"] == pytest.approx(own - rate, rel=1e-4)
    assert own >= WET_BIAS - 1e-6
    assert row["lower"] > 0
    ideal = run.card.row("ideal", "probability_bias", split="test_dry", threshold=0.25)
    assert abs(ideal["value"]) < row["value"] / 3
    text = [str(cell) for cell in dry_table(run.card).columns[3].cells]
    assert text[0].startswith("+0.0")


def test_the_ideal_forecast_is_the_best(run):
    scores = {name: run.card.row(name, "rps")["value"] for name in run.card.models}
    assert min(scores, key=scores.__getitem__) == "ideal"
    assert scores["smoothed"] < scores["raw"]


def test_tables(run):
    table = skill_table(run.card)
    cells = {str(column.header): [str(cell) for cell in column.cells] for column in table.columns}
    assert cells["mm"] == ["0.25", "1", "2.5", "5", "10", "25"]
    assert cells["% to smooth"][-1] == "too few"
    assert cells["share"][-1] == "–"
    assert cells["model"][0] == f"{run.card.row(MODEL, 'brier', threshold=0.25)['value']:.5f}".lstrip("0")


def test_files_and_figures(run):
    with xr.open_dataset(run.folder / "verification.nc", engine="h5netcdf") as curves:
        assert curves["model"].values.tolist() == [MODEL, f"{MODEL}_calibrated", *NAMES, "ideal"]
        assert curves["threshold"].values.tolist() == list(config.THRESHOLDS)
    with xr.open_dataset(run.folder / "skill_map.nc", engine="h5netcdf") as maps:
        assert maps["brier_skill_smoothed"].shape == (64, 80)
    (results,) = run.drawn
    assert results.samples.leads == [6, 24]
    density = results.pit[MODEL].value
    assert float(density.mean()) == pytest.approx(1, rel=1e-6)


def test_a_day_is_complete_and_in_order(run, samples, days):
    assert samples.labels == np.unique(run.day).astype(int).tolist()
    assert samples.hours == [0, 12]
    for label, day in zip(samples.labels, days, strict=True):
        mine = run.day.astype(int) == label
        np.testing.assert_array_equal(day.forecast.values.reshape(-1, 64, 80), run.forecast[mine])
        np.testing.assert_array_equal(day.observed.values.reshape(-1, 64, 80), run.observed[mine])
        np.testing.assert_allclose(day.exceedance.values.reshape(-1, len(EDGES), 64, 80), run.exceedance[mine])
        assert list(day.probabilities) == [MODEL, f"{MODEL}_calibrated", *NAMES, "ideal"]
        assert day.inits.astype("datetime64[h]").astype(int).tolist() == [24 * label, 24 * label + 12]


def test_a_run_that_lacks_a_forecast_is_scored_on_the_others(run):
    whole = xr.open_zarr(run.folder / PREDICTIONS, consolidated=False, chunks=None)
    kept = np.delete(np.arange(16), [5, 6])
    samples = TestSamples(whole.isel(sample=kept))
    sums = Sums(samples)
    for day in samples.parts():
        sums.add(day)
    statistics = sums.probability()["test"][MODEL]
    known = np.isfinite(run.observed[kept])
    assert float(statistics["n"].sum()) == known.sum()
    event = run.observed[kept] >= 0.2499
    brier = ((run.exceedance[kept, 0].astype(np.float64) - event) ** 2)[known].mean()
    found = evaluation.brier(evaluation.pooled(statistics).sum("block"))
    assert float(found.sel(threshold=0.25)) == pytest.approx(brier, rel=1e-5)


def test_baselines_are_kept_beside_the_store(samples, monkeypatch):
    first = samples.baselines
    again = TestSamples(samples.predictions)
    monkeypatch.setattr("precip_postproc.resunet_qpf.samples.fit_baselines", None)
    forecast = np.zeros((64, 80), np.float32)
    time = np.datetime64("2025-12-03T00")
    for name, values in first.predict(forecast, 6, time).items():
        np.testing.assert_array_equal(again.baselines.predict(forecast, 6, time)[name], values)


def test_where_a_forecast_is_missing_nothing_is_verified(samples, monkeypatch):
    cases = StoredCases(samples.store, np.array([0, 1]))
    assert len(cases) == len(list(cases)) == 2
    reader = cases._readers["forecast"]

    class Gappy:
        shape, dtype = reader.shape, reader.dtype

        def read(self, rows, corners, out):
            reader.read(rows, corners, out)
            out[..., 3, 4] = -1

    monkeypatch.setitem(cases._readers, "forecast", Gappy())
    case = cases.case(0)
    assert case.forecast[3, 4] == 0
    assert np.isnan(case.observed[3, 4])
    assert np.isfinite(case.forecast).all()


def test_days_that_are_shown_are_wet_and_apart(samples):
    sums = Sums(samples)
    sums._rain = {10: 5.0, 12: 9.0, 18: 1.0, 30: 4.0}
    assert sums.wettest(apart=5) == [12, 30]
    assert sums.wettest(number=3, apart=1) == [12, 10, 30]


def test_scoring_some_lead_times_at_a_time_changes_nothing(samples, monkeypatch):
    def scored() -> Sums:
        sums = Sums(samples)
        for part in samples.parts():
            sums.add(part)
        return sums

    whole = scored()
    assert samples.n_parts == len(samples.labels)
    monkeypatch.setattr("precip_postproc.resunet_qpf.samples.LARGEST_PART", 1)
    del samples._lead_groups
    try:
        assert samples.n_parts == len(samples.labels) * len(samples.leads)
        assert {part.observed.sizes["lead_time"] for part in samples.parts()} == {1}
        split = scored()
    finally:
        del samples._lead_groups
    for name, sums in whole.probability()["test"].items():
        xr.testing.assert_allclose(split.probability()["test"][name], sums)
    for name, sums in whole.crps().items():
        xr.testing.assert_allclose(split.crps()[name], sums)
    for name, sums in whole.fss().items():
        xr.testing.assert_allclose(split.fss()[name], sums)
    xr.testing.assert_allclose(split.skill_map(), whole.skill_map())
    assert split.wettest() == whole.wettest()
