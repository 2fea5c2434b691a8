"""No window straddles a gap, and none is lost."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from ai4sim.errors import InputError
from ai4sim.schema import Schema, Variable
from ai4sim.store import Region, build_store, make_template
from ai4sim.windows import WindowDataset, Windows, find_windows

HOUR = np.timedelta64(1, "h")
DAY0 = np.datetime64("2023-01-01T00", "s")


def hours(*numbers: int) -> np.ndarray:
    return DAY0 + np.array(numbers) * HOUR


def windows(times: np.ndarray, **changes) -> Windows:
    settings = {"step": HOUR, "n_inputs": 2, "n_targets": 3, "start": times.min(), "end": times.max() + HOUR}
    return find_windows(times, **(settings | changes))


def test_all_windows_of_an_unbroken_series():
    found = windows(hours(*range(10)))
    assert found.rows.tolist() == [[k, k + 1, k + 2, k + 3, k + 4] for k in range(6)]
    assert (found.times == hours(*range(1, 7))).all()
    assert found.dropped == 0
    assert found.first_missing is None


@pytest.mark.parametrize(("n_inputs", "n_targets"), [(1, 1), (2, 3), (1, 4)])
def test_one_missing_time_costs_just_the_windows_that_touch_it(n_inputs, n_targets):
    times = np.delete(hours(*range(40)), 20)
    found = windows(times, n_inputs=n_inputs, n_targets=n_targets)
    whole = windows(hours(*range(40)), n_inputs=n_inputs, n_targets=n_targets)
    assert len(whole) - len(found) == n_inputs + n_targets
    # the window that would begin at the missing time itself is not even asked for
    assert found.dropped == n_inputs + n_targets - 1
    assert found.first_missing == hours(20)[0]
    for rows in found.rows:
        assert (np.diff(times[rows]) == HOUR).all()


def test_rows_denser_than_the_step():
    found = windows(hours(*range(13)), step=3 * HOUR, n_inputs=1, n_targets=2)
    assert found.rows[0].tolist() == [0, 3, 6]
    assert len(found) == 7
    found = windows(hours(*range(13)), step=3 * HOUR, n_inputs=1, n_targets=2, every=3 * HOUR)
    assert found.rows.tolist() == [[0, 3, 6], [3, 6, 9], [6, 9, 12]]


def test_hours_at_which_forecasts_begin():
    found = windows(hours(*range(60)), n_inputs=1, n_targets=2, hours=[0, 12])
    assert (found.times == hours(0, 12, 24, 36, 48)).all()


def test_windows_stay_within_the_period():
    found = windows(hours(*range(48)), start=hours(10)[0], end=hours(20)[0], n_inputs=2, n_targets=2)
    assert found.rows.min() == 10
    assert found.rows.max() == 19
    assert len(found) == 7
    assert found.dropped == 0


def test_sequences_do_not_mix():
    """Two forecasts whose lead times overlap."""
    times = np.concatenate([hours(*range(6)), hours(*range(3, 9))])
    sequences = np.repeat([0, 1], 6)
    found = windows(times, sequences=sequences, n_inputs=1, n_targets=3)
    assert found.rows.tolist() == [
        [0, 1, 2, 3],
        [1, 2, 3, 4],
        [2, 3, 4, 5],
        [6, 7, 8, 9],
        [7, 8, 9, 10],
        [8, 9, 10, 11],
    ]
    assert found.dropped == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_inputs": 0}, "at least one input and one target, not 0 and 3"),
        ({"n_targets": 0}, "not 2 and 0"),
        ({"step": 0 * HOUR}, "step between times must be positive"),
        ({"every": 0 * HOUR}, "interval between initial times must be positive"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(InputError, match=message):
        windows(hours(*range(10)), **changes)


def test_times_that_do_not_increase():
    with pytest.raises(InputError, match=r"times must increase, but 2023-01-01T02:00:00 does not come after"):
        windows(hours(0, 1, 2, 2, 3))


def test_no_window_at_all():
    found = windows(hours(0, 2, 4, 6))
    assert len(found) == 0
    assert found.dropped > 0
    assert found.first_missing == hours(1)[0]


def test_batches_hold_the_windows_values(tmp_path: Path):
    values = np.random.default_rng(0).normal(size=(9, 4, 5, 2)).astype(np.float32)
    schema = Schema("fields", 1, (Variable("state", ("time", "lat", "lon", "feature"), "1"),))
    template = make_template(schema, {"time": 9, "lat": 4, "lon": 5, "feature": 2}, {"time": 1})

    def load() -> xr.Dataset:
        return xr.Dataset({"state": (("time", "lat", "lon", "feature"), values)})

    build_store(
        tmp_path / "s.zarr",
        template=template,
        regions=[Region("all", {"time": slice(0, 9)}, load)],
        sources=[],
        schema=schema,
        settings={},
        progress=False,
    )
    rows = windows(hours(*range(9))).rows
    dataset = WindowDataset(tmp_path / "s.zarr", ["state"], rows)
    assert len(dataset) == 5
    batch = dataset.read([3, 0])
    assert batch["state"].shape == (2, 5, 4, 5, 2)
    assert torch.equal(batch["state"], torch.from_numpy(values[rows[[3, 0]]]))
    assert batch["index"].tolist() == [3, 0]
    assert torch.equal(dataset[1]["state"], torch.from_numpy(values[rows[1]]))
