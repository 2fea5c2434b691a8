import numpy as np
import pytest
import scores.categorical
import scores.spatial
import xarray as xr

from ai4sim.verification import block_bootstrap, bootstrap_skill
from ai4sim.verification.fields import merge_sums
from ai4sim.verification.spatial import (
    contingency_statistics,
    csi,
    frequency_bias,
    fss,
    fss_statistics,
    probability_fss_statistics,
)

THRESHOLDS = [0.5, 1.2]
WINDOWS = [1, 3, 5, 9]


def rain(n: int, height: int = 12, width: int = 17, *, seed: int = 0) -> xr.DataArray:
    """Smoothed noise (sample, lead_time, lat, lon), at or above the thresholds in patches."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n, 2, height + 2, width + 2))
    smooth = sum(noise[..., i : i + height, j : j + width] for i in range(3) for j in range(3)) / 3.0
    coords = {"lead_time": [3, 6], "day": ("sample", np.arange(n) // 2)}
    return xr.DataArray(smooth, dims=("sample", "lead_time", "lat", "lon"), coords=coords, attrs={"units": "mm"})


def naive_sums(p: np.ndarray, t: np.ndarray, valid: np.ndarray, window: int, border: str) -> tuple[float, float, int]:
    """Error, reference and number of windows of one pair of event fields, point by point."""
    half = window // 2
    height, width = p.shape
    error = reference = 0.0
    n = 0
    for i in range(height):
        for j in range(width):
            rows = slice(max(i - half, 0), min(i + half + 1, height))
            columns = slice(max(j - half, 0), min(j + half + 1, width))
            inside = valid[rows, columns]
            if not valid[i, j] or (border == "inside" and inside.size < window**2):
                continue
            size = inside.sum() + (window**2 - inside.size if border == "zero" else 0)
            own, other = ((events[rows, columns] & inside).sum() / size for events in (p, t))
            error += (own - other) ** 2
            reference += own**2 + other**2
            n += 1
    return error, reference, n


@pytest.mark.parametrize("border", ["zero", "partial", "inside"])
@pytest.mark.parametrize("gaps", [False, True])
def test_fractions_are_those_counted_point_by_point(border, gaps):
    prediction, target = rain(3, seed=1), rain(3)
    if gaps:
        holes = np.random.default_rng(2).uniform(size=target.shape) < 0.1
        target = target.where(~holes)
    statistics = fss_statistics(
        prediction,
        target,
        thresholds=THRESHOLDS,
        windows=WINDOWS,
        border=border,
        reduce=["sample", "lead_time"],
        skipna=gaps,
    )
    assert statistics["fractions_error"].dims == ("threshold", "window")
    assert statistics["threshold"].attrs == {"units": "mm"}
    valid = np.isfinite(target.values)
    for threshold in THRESHOLDS:
        for window in WINDOWS:
            fields = zip(*(a.reshape(-1, 12, 17) for a in (prediction.values, target.values, valid)), strict=True)
            naive = [naive_sums(p >= threshold, t >= threshold, v, window, border) for p, t, v in fields]
            error, reference, n = np.sum(naive, axis=0)
            found = statistics.sel(threshold=threshold, window=window)
            assert float(found["fractions_error"]) == pytest.approx(error, rel=1e-12)
            assert float(found["fractions_reference"]) == pytest.approx(reference, rel=1e-12)
            assert int(found["n"]) == n
            assert float(fss(found)) == pytest.approx(1.0 - error / reference, rel=1e-12)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_fractions_skill_score_equals_that_of_scores(window, threshold):
    prediction, target = rain(5, seed=1), rain(5)
    statistics = fss_statistics(
        prediction, target, thresholds=[threshold], windows=[window], border="inside", reduce="sample"
    )
    expected = scores.spatial.fss_2d(
        prediction,
        target,
        event_threshold=threshold,
        window_size=(window, window),
        spatial_dims=("lat", "lon"),
        reduce_dims=["sample", "lat", "lon"],
        threshold_operator=np.greater_equal,
    )
    np.testing.assert_allclose(fss(statistics).values.ravel(), expected.values, rtol=1e-12)


def test_fractions_skill_score_of_a_displaced_event_by_hand():
    p, t = np.zeros((9, 9)), np.zeros((9, 9))
    p[4, 4], t[4, 5] = 1.0, 1.0
    fields = [xr.DataArray(values[None], dims=("sample", "lat", "lon")) for values in (p, t)]
    statistics = fss_statistics(*fields, thresholds=[1.0], windows=[1, 3, 5], reduce="sample")
    # each event fills the w x w windows around it, in w (w - 1) of which both are: 2 w (w - 1) / 2 w^2
    np.testing.assert_allclose(fss(statistics).values[0], [0.0, 2.0 / 3.0, 4.0 / 5.0], rtol=1e-12)
    assert statistics["n"].values.tolist() == [81.0, 81.0, 81.0]


def test_border_decides_what_an_event_in_the_corner_is_worth():
    p, t = np.zeros((4, 4)), np.zeros((4, 4))
    p[0, 0] = 1.0
    fields = [xr.DataArray(values[None], dims=("sample", "lat", "lon")) for values in (p, t)]
    reference = {
        border: float(
            fss_statistics(*fields, thresholds=[1.0], windows=[3], border=border, reduce="sample")[
                "fractions_reference"
            ].squeeze()
        )
        for border in ("zero", "partial", "inside")
    }
    # windows of 9 points; of 4, 6, 6 and 9 points of the domain; the one window of 9 that has the corner
    assert reference["zero"] == pytest.approx(4.0 / 81.0)
    assert reference["partial"] == pytest.approx(1.0 / 16.0 + 2.0 / 36.0 + 1.0 / 81.0)
    assert reference["inside"] == pytest.approx(1.0 / 81.0)


def test_limits_of_the_fractions_skill_score():
    prediction, target = rain(4, seed=1), rain(4)
    perfect = fss(fss_statistics(target, target, thresholds=THRESHOLDS, windows=WINDOWS, reduce="sample"))
    np.testing.assert_allclose(perfect, 1.0)
    arguments = {"thresholds": [0.5], "windows": [1, 101], "border": "partial", "reduce": "sample"}
    score = fss(fss_statistics(prediction, target, **arguments))
    # one window over everything sees the frequencies alone
    f, o = ((values >= 0.5).mean(["lat", "lon"]) for values in (prediction, target))
    expected = 2.0 * (f * o).sum("sample") / (f**2 + o**2).sum("sample")
    np.testing.assert_allclose(score.sel(window=101).squeeze(), expected, rtol=1e-12)
    # point by point it is twice the hits over the events of both
    table = contingency_statistics(prediction, target, thresholds=[0.5], reduce=["sample", "lat", "lon"])
    dice = 2.0 * table["hits"] / (2.0 * table["hits"] + table["misses"] + table["false_alarms"])
    np.testing.assert_allclose(score.sel(window=1), dice, rtol=1e-12)
    assert np.isnan(fss(fss_statistics(target, target, thresholds=[99.0], windows=[3], reduce="sample"))).all()


def test_csi_and_frequency_bias_equal_those_of_scores():
    prediction, target = rain(6, seed=1), rain(6)
    statistics = contingency_statistics(prediction, target, thresholds=THRESHOLDS, reduce=["sample", "lat", "lon"])
    assert csi(statistics).dims == ("lead_time", "threshold")
    for threshold in THRESHOLDS:
        operator = scores.categorical.ThresholdEventOperator(
            default_event_threshold=threshold, default_op_fn=np.greater_equal
        )
        manager = operator.make_contingency_manager(prediction, target).transform(preserve_dims="lead_time")
        found = statistics.sel(threshold=threshold)
        np.testing.assert_allclose(csi(found), manager.critical_success_index(), rtol=1e-12)
        np.testing.assert_allclose(frequency_bias(found), manager.frequency_bias(), rtol=1e-12)
        counts = manager.get_counts()
        np.testing.assert_array_equal(found["hits"], counts["tp_count"])
        np.testing.assert_array_equal(found["misses"], counts["fn_count"])
        np.testing.assert_array_equal(found["false_alarms"], counts["fp_count"])
        np.testing.assert_array_equal(found["correct_negatives"], counts["tn_count"])


def test_contingency_table_by_hand_with_gaps_and_a_mask():
    nan = np.nan
    p = xr.DataArray([[2.0, 2.0, 0.0, 0.0, 1.0, nan, 2.0]], dims=("sample", "point"))
    t = xr.DataArray([[2.0, 0.0, 1.0, 0.0, 1.0, 2.0, nan]], dims=("sample", "point"))
    statistics = contingency_statistics(p, t, thresholds=[1.0], reduce=["sample", "point"], skipna=True)
    counts = {name: float(values.squeeze()) for name, values in statistics.data_vars.items()}
    # a value at the threshold is an event
    assert counts == {"n": 5, "hits": 2, "misses": 1, "false_alarms": 1, "correct_negatives": 1}
    assert float(csi(statistics).squeeze()) == 0.5
    assert float(frequency_bias(statistics).squeeze()) == 1.0
    mask = xr.DataArray([True, True, True, False, False, False, False], dims="point")
    masked = contingency_statistics(p, t, thresholds=[1.0], reduce=["sample", "point"], mask=mask)
    assert {name: float(values.squeeze()) for name, values in masked.data_vars.items()} == {
        "n": 3,
        "hits": 1,
        "misses": 1,
        "false_alarms": 1,
        "correct_negatives": 0,
    }
    with pytest.raises(ValueError, match=r"prediction None has a value that is not finite.*'point': 5.*skipna=True"):
        contingency_statistics(p, t, thresholds=[1.0], reduce=["sample", "point"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"thresholds": []}, r"thresholds=\[\]: give one or more finite numbers"),
        ({"reduce": []}, r"reduce=\[\]: name one or more dimensions of the target"),
        ({"reduce": ["sample", "point"]}, r"fields need the dimensions \('point',\), not reduced"),
        ({"block": "lead_time"}, "block has dimensions .'lead_time',.: it must label positions along one of"),
        ({"block": "file"}, "block='file' is no coordinate of the target"),
    ],
)
def test_wrong_arguments_of_the_contingency_table_are_named(wrong, message):
    fields = rain(2)
    with pytest.raises(ValueError, match=message):
        contingency_statistics(fields, fields, **{"thresholds": [0.5], "reduce": ["sample", "lat"], **wrong})


def test_contingency_table_with_blocks_along_a_dimension_that_is_not_the_first():
    prediction, target = rain(4, seed=1), rain(4)
    arguments = {"thresholds": [0.5], "reduce": ["lat", "lon", "sample"]}
    blocked = contingency_statistics(prediction, target, block="day", **arguments)
    assert blocked["hits"].dims == ("block", "lead_time", "threshold")
    first = contingency_statistics(prediction[:2], target[:2], **arguments)
    xr.testing.assert_equal(blocked.sel(block=0, drop=True), first)


def test_scores_without_events_are_undefined():
    dry = xr.DataArray(np.zeros((2, 3, 3)), dims=("sample", "lat", "lon"))
    statistics = contingency_statistics(dry, dry, thresholds=[1.0], reduce=["sample", "lat", "lon"])
    assert csi(statistics).isnull().all()
    assert frequency_bias(statistics).isnull().all()


def test_masked_points_are_in_no_window():
    prediction, target = rain(2, seed=1), rain(2)
    mask = xr.DataArray(np.ones((12, 17), bool), dims=("lat", "lon"))
    mask[:, 10:] = False
    changed = target.where(mask, 77.0)
    arguments = {"thresholds": THRESHOLDS, "windows": WINDOWS, "reduce": "sample", "border": "partial"}
    masked = fss_statistics(prediction, changed.assign_attrs(target.attrs), mask=mask, **arguments)
    cut = fss_statistics(prediction.isel(lon=slice(10)), target.isel(lon=slice(10)), **arguments)
    xr.testing.assert_allclose(masked, cut, rtol=1e-12)


@pytest.mark.parametrize("chunked", [False, True])
def test_parts_in_any_order_and_layout_give_the_whole(monkeypatch, chunked):
    prediction, target = rain(9, seed=1), rain(9)
    fraction = {"thresholds": THRESHOLDS, "windows": [1, 5], "reduce": "sample", "block": "day"}
    table = {"thresholds": THRESHOLDS, "reduce": ["sample", "lat", "lon"], "block": "day"}
    whole = [fss_statistics(prediction, target, **fraction), contingency_statistics(prediction, target, **table)]
    cuts = [slice(4, 9), slice(0, 3), slice(3, 4)]
    if chunked:
        prediction, target = prediction.chunk({"sample": 4}), target.transpose("lat", "sample", "lon", "lead_time")
    monkeypatch.setattr("ai4sim.verification.sums._SLICE_SIZE", 400)
    for function, arguments, expected in zip(
        (fss_statistics, contingency_statistics), (fraction, table), whole, strict=True
    ):
        parts = [function(prediction.isel(sample=cut), target.isel(sample=cut), **arguments) for cut in cuts]
        xr.testing.assert_allclose(merge_sums(*parts), expected, rtol=1e-12)
        assert expected["block"].values.tolist() == [0, 1, 2, 3, 4]


def test_intervals_over_blocks_and_paired_skill():
    target = rain(20)
    better = target + 0.3 * rain(20, seed=1)
    worse = target + 1.5 * rain(20, seed=2)
    statistics = [
        fss_statistics(
            fields.assign_attrs(target.attrs), target, thresholds=THRESHOLDS, windows=[3], reduce="sample", block="day"
        )
        for fields in (better, worse)
    ]
    interval = block_bootstrap(statistics[0], fss, seed=0, n_resamples=200)
    assert interval.value.dims == ("lead_time", "threshold", "window")
    assert ((interval.lower < interval.value) & (interval.value < interval.upper)).all()
    skill = bootstrap_skill(*statistics, fss, perfect=1.0, seed=0, n_resamples=200)
    assert (skill.lower > 0.0).all()
    table = contingency_statistics(
        better.assign_attrs(target.attrs), target, thresholds=[0.5], reduce=["sample", "lat", "lon"], block="day"
    )
    scored = block_bootstrap(table, csi, seed=0, n_resamples=200)
    assert ((scored.lower < scored.value) & (scored.value < scored.upper)).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"windows": [2]}, r"windows=\[2\]: a window is around a point and has an odd number"),
        ({"windows": []}, r"windows=\[\]"),
        ({"windows": [13], "border": "inside"}, "a window of 13 points does not fit into 12 x 17 points"),
        ({"border": "mirror"}, "border='mirror': it is one of zero, partial, inside"),
        ({"thresholds": [np.nan]}, r"thresholds=\[nan\]: give one or more finite numbers"),
        ({"dims": ("y", "x")}, r"dims=\('y', 'x'\): the target has the dimensions"),
    ],
)
def test_wrong_arguments_are_named(wrong, message):
    fields = rain(2)
    with pytest.raises(ValueError, match=message):
        fss_statistics(fields, fields, **{"thresholds": [0.5], "windows": [3], "reduce": "sample", **wrong})


def exceedance(fields: xr.DataArray, thresholds=THRESHOLDS) -> xr.DataArray:
    levels = xr.DataArray(thresholds, dims="threshold", coords={"threshold": thresholds})
    return (fields >= levels).astype(float)


@pytest.mark.parametrize("border", ["zero", "partial", "inside"])
@pytest.mark.parametrize("gaps", [False, True])
def test_probabilities_of_zero_and_one_have_the_fractions_of_events(border, gaps):
    prediction, target = rain(6, seed=1), rain(6)
    if gaps:
        target = target.where(np.random.default_rng(2).uniform(size=target.shape) > 0.1)
    mask = xr.DataArray(np.arange(17) < 14, dims="lon")
    arguments = {"windows": WINDOWS, "border": border, "reduce": "sample", "block": "day", "mask": mask, "skipna": gaps}
    expected = fss_statistics(prediction, target, thresholds=THRESHOLDS, **arguments)
    probability = exceedance(prediction).transpose("lat", "threshold", "lon", "lead_time", "sample")
    found = probability_fss_statistics(probability, target, dims=("lat", "lon"), **arguments)
    xr.testing.assert_identical(found, expected)
    xr.testing.assert_equal(fss(found), fss(expected))


def test_fraction_of_probabilities_is_their_mean_in_the_window():
    rng = np.random.default_rng(0)
    p, o = rng.uniform(size=(2, 6, 7)), rng.uniform(size=(2, 6, 7)) < 0.4
    probability = xr.DataArray(p[:, None], dims=("sample", "threshold", "y", "x"), coords={"threshold": [1.0]})
    # the guard makes events of them
    observed = xr.DataArray(np.where(o, 0.99995, 0.9), dims=("sample", "y", "x"))
    statistics = probability_fss_statistics(probability, observed, windows=[3], border="inside", reduce="sample")
    own, other = (
        np.lib.stride_tricks.sliding_window_view(values, (3, 3), axis=(1, 2)).mean(axis=(-2, -1)) for values in (p, o)
    )
    assert statistics["fractions_error"].item() == pytest.approx(((own - other) ** 2).sum(), rel=1e-12)
    assert statistics["fractions_reference"].item() == pytest.approx((own**2 + other**2).sum(), rel=1e-12)
    assert statistics["n"].item() == 2 * 4 * 5
    half = [
        probability_fss_statistics(probability[i : i + 1], observed[i : i + 1], windows=[3, 5], reduce="sample")
        for i in (0, 1)
    ]
    whole = probability_fss_statistics(probability, observed, windows=[3, 5], reduce="sample")
    xr.testing.assert_allclose(merge_sums(*half), whole, rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, t: (p + 0.5, t), "goes from 0.5 to 1.5 at the threshold 0.5: probabilities are in"),
        (lambda p, t: (p.drop_vars("threshold"), t), "it needs a dimension 'threshold' with a coordinate"),
        (lambda p, t: (p.where(p.threshold > 1.0), t), "value that is not finite"),
        (lambda p, t: (p.isel(lead_time=0), t), "they must agree but for 'threshold'"),
        (lambda p, t: (p, t.rename(lat="row")), "they must agree but for 'threshold'"),
    ],
)
def test_wrong_probabilities_of_fractions_are_named(change, message):
    target = rain(2)
    probability, target = change(exceedance(target), target)
    with pytest.raises(ValueError, match=message):
        probability_fss_statistics(probability, target, windows=[1], dims=("lat", "lon"), reduce="sample")


def test_probabilities_that_are_missing_at_some_thresholds_are_refused():
    target = rain(2)
    probability = exceedance(target)
    arguments = {"windows": [1], "dims": ("lat", "lon"), "reduce": "sample", "skipna": True}
    with pytest.raises(ValueError, match=r"missing at some of the thresholds \[0.5, 1.2\] only"):
        probability_fss_statistics(probability.where(probability.threshold > 1.0), target, **arguments)
    holes = target.where(target < 2.0)
    xr.testing.assert_equal(
        probability_fss_statistics(probability.where(target < 2.0), target, **arguments),
        probability_fss_statistics(probability, holes, **arguments),
    )
    with pytest.raises(ValueError, match="odd number of points"):
        probability_fss_statistics(probability, target, **{**arguments, "windows": [2]})
