"""Running skill during training."""

import numpy as np
import pytest
import torch

from weather_forecast.gwd.layout import ColumnLayout
from weather_forecast.gwd.metrics import ColumnSkill

LAYOUT = ColumnLayout()


@pytest.fixture
def drag():
    """Truth and prediction (n, 126) in m s-2 over four decades, the last level constant."""
    rng = np.random.default_rng(0)
    scale = np.tile(np.geomspace(1e-4, 1e-8, 63), 2)
    truth = (rng.normal(0, 1, (500, 126)) + 0.3) * scale
    truth[:, [62, 125]] = 3e-7
    return truth, truth + rng.normal(0, 0.4, truth.shape) * scale


def skill(truth, prediction, batch):
    metric = ColumnSkill(LAYOUT)
    for start in range(0, len(truth), batch):
        rows = slice(start, start + batch)
        metric.update(torch.tensor(prediction[rows], dtype=torch.float32), torch.tensor(truth[rows]).float())
    return {name: float(value) for name, value in metric.compute().items()}


@pytest.mark.parametrize("batch", [7, 500])
def test_skill_is_the_formula_over_the_whole_set_whatever_the_batches(drag, batch):
    truth, prediction = (values.astype(np.float32).astype(np.float64) for values in drag)
    found = skill(*drag, batch)
    error = ((prediction - truth) ** 2).sum()
    assert found["r2"] == pytest.approx(1 - error / ((truth - truth.mean()) ** 2).sum(), abs=1e-6)
    by_level = []
    for level in range(61):
        one, other = truth[:, [level, 63 + level]], prediction[:, [level, 63 + level]]
        by_level.append(1 - ((other - one) ** 2).sum() / ((one - one.mean()) ** 2).sum())
    assert found["mean_level_r2"] == pytest.approx(np.mean(by_level), abs=1e-6)


def test_a_constant_level_is_left_out(drag):
    truth, prediction = drag
    truth[:, [5, 68]] = 3.3e-7  # rounding must not look like variation
    without = [level for level in range(61) if level != 5]
    by_level = [
        1
        - ((prediction[:, [k, 63 + k]] - truth[:, [k, 63 + k]]) ** 2).sum()
        / ((truth[:, [k, 63 + k]] - truth[:, [k, 63 + k]].mean()) ** 2).sum()
        for k in without
    ]
    assert skill(truth, prediction, 64)["mean_level_r2"] == pytest.approx(np.mean(by_level), abs=1e-4)
