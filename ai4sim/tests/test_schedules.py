import math
from itertools import pairwise

import pytest
import torch

from ai4sim.schedules import CosineSchedule


def test_rises_to_the_peak_falls_to_the_end_and_never_jumps():
    schedule = CosineSchedule(warmup=0.1, final=1e-3)
    factors = [schedule.factor(step, 1000) for step in range(1001)]
    assert factors[0] == pytest.approx(1 / 25)
    assert factors[100] == pytest.approx(1.0)
    assert factors[1000] == pytest.approx(1e-3)
    assert factors[550] == pytest.approx(1e-3 + 0.999 * 0.5)
    assert max(abs(a - b) for a, b in pairwise(factors)) < 0.02
    assert factors[:101] == sorted(factors[:101])
    assert factors[100:] == sorted(factors[100:], reverse=True)


def test_without_warmup_it_is_a_plain_cosine():
    schedule = CosineSchedule(warmup=0.0, final=0.0)
    assert schedule.factor(25, 100) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


def test_build_multiplies_the_optimizers_learning_rate_and_resumes():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=2.0)
    scheduler = CosineSchedule().build(optimizer, 10)
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2.0 * CosineSchedule().factor(4, 10))
    again = CosineSchedule().build(torch.optim.SGD([parameter], lr=2.0), 10)
    again.load_state_dict(scheduler.state_dict())
    assert again.last_epoch == 4


def test_impossible_warmup_is_refused():
    with pytest.raises(ValueError, match=r"0 <= warmup < 1, got 1\.5"):
        CosineSchedule(warmup=1.5)
