"""Mirrored patches stay consistent."""

import numpy as np
import pytest
import torch

from precip_postproc.resunet_qpf.features import FeatureStack
from precip_postproc.resunet_qpf.flips import flip, random_flips
from precip_postproc.resunet_qpf.terrain_file import slopes

CHANNELS = ["precipitation", "terrain_height", "slope_x", "slope_y", "u", "v", "u10", "v10", "r"]


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(0)
    height = rng.normal(500, 200, (2, 12, 16))
    along = [slopes(one, 4000.0, 4000.0) for one in height]
    amount = rng.gamma(0.5, 2, (2, 12, 16))
    wind = rng.normal(0, 8, (4, 2, 12, 16))
    channels = [amount, height, *np.swapaxes(along, 0, 1), *wind, rng.uniform(0, 100, (2, 12, 16))]
    fields = torch.tensor(np.stack(channels, axis=1), dtype=torch.float32)
    return {"fields": fields, "observed": torch.tensor(amount * 2, dtype=torch.float32), "lead": torch.tensor([6, 6])}


@pytest.mark.parametrize("rows", [True, False])
def test_slopes_are_those_of_the_mirrored_terrain(batch, rows):
    fields, observed = flip(batch["fields"], batch["observed"], CHANNELS, rows=rows)
    for one in fields.numpy():
        slope_x, slope_y = slopes(one[1].astype(np.float64), 4000.0, 4000.0)
        np.testing.assert_allclose(one[2], slope_x, atol=1e-7)
        np.testing.assert_allclose(one[3], slope_y, atol=1e-7)
    # the amounts turn together
    torch.testing.assert_close(observed, 2 * fields[:, 0])


@pytest.mark.parametrize(("rows", "turned"), [(True, ("v", "v10")), (False, ("u", "u10"))])
def test_one_wind_component_turns(batch, rows, turned):
    fields, _ = flip(batch["fields"], batch["observed"], CHANNELS, rows=rows)
    for name in ("u", "v", "u10", "v10", "r"):
        place = CHANNELS.index(name)
        sign = -1 if name in turned else 1
        torch.testing.assert_close(fields[:, place], sign * batch["fields"][:, place].flip(-2 if rows else -1))


@pytest.mark.parametrize("rows", [True, False])
def test_the_lifting_of_the_air_is_the_mirrored_one(batch, rows):
    upslope = FeatureStack(["upslope"])
    before = upslope(batch["fields"], CHANNELS)
    fields, _ = flip(batch["fields"], batch["observed"], CHANNELS, rows=rows)
    torch.testing.assert_close(upslope(fields, CHANNELS), before.flip(-2 if rows else -1))


@pytest.mark.parametrize("rows", [True, False])
def test_twice_is_nothing(batch, rows):
    once = flip(batch["fields"], batch["observed"], CHANNELS, rows=rows)
    assert not torch.equal(once[0], batch["fields"])
    fields, observed = flip(*once, CHANNELS, rows=rows)
    assert torch.equal(fields, batch["fields"])
    assert torch.equal(observed, batch["observed"])


def test_random_flips_are_all_four_mirrors_and_leave_the_batch_as_it_was(batch):
    torch.manual_seed(0)
    kept = batch["fields"].clone()
    found = {random_flips(batch, CHANNELS)["fields"].numpy().tobytes() for _ in range(40)}
    expected = set()
    for first in (None, True):
        for second in (None, False):
            fields, observed = batch["fields"], batch["observed"]
            for rows in (first, second):
                if rows is not None:
                    fields, observed = flip(fields, observed, CHANNELS, rows=rows)
            expected.add(fields.numpy().tobytes())
    assert found == expected
    assert torch.equal(batch["fields"], kept)
    assert random_flips(batch, CHANNELS)["lead"] is batch["lead"]
