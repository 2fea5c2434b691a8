"""From physical units to what networks see and back."""

import math

import pytest
import torch

from ai4sim.errors import InputError
from downscaling.corrdiff.scaling import DRY, EPSILON, TRANSFORMS, ChannelScaler, restore, transform, transforms_of

AMOUNTS = torch.tensor([0.0, 1e-6, 0.05, 0.1, 1.0, 36.8, 250.0])


@pytest.mark.parametrize("name", TRANSFORMS)
def test_round_trip_of_amounts(name):
    torch.testing.assert_close(restore(transform(AMOUNTS, name), name), AMOUNTS, rtol=1e-5, atol=1e-7)
    assert transform(torch.zeros(1), name) == (-DRY if name == "sqrt_dry" else 0)


def test_values_of_the_transforms():
    assert transform(torch.tensor(9.0), "sqrt") == transform(torch.tensor(9.0), "sqrt_dry") == 3
    assert pytest.approx(0.5) == DRY
    assert transform(torch.tensor(9.0), "log1p").item() == pytest.approx(math.log(10))
    assert transform(torch.tensor(0.9), "log_eps").item() == pytest.approx(math.log(10))
    assert pytest.approx(0.1) == EPSILON
    assert torch.equal(transform(-AMOUNTS, "none"), -AMOUNTS)


@pytest.mark.parametrize(("name", "dry"), [("sqrt", 0), ("sqrt_dry", -0.5), ("log1p", 0), ("log_eps", 0)])
def test_amounts_below_0_are_0_both_ways(name, dry):
    assert transform(torch.tensor([-3.0, -0.0]), name).tolist() == [dry, dry]
    assert restore(torch.tensor([-3.0, -0.5, -1e-6, -0.0, 0.0]), name).tolist() == [0] * 5


@pytest.mark.parametrize("name", TRANSFORMS)
def test_what_is_missing_stays_missing(name):
    missing = torch.tensor([torch.nan, 1.0])
    assert transform(missing, name).isnan().tolist() == [True, False]
    assert restore(missing, name).isnan().tolist() == [True, False]


def test_the_tail_of_the_square_root_grows_less_than_that_of_logarithms():
    beyond = {name: restore(1.5 * transform(torch.tensor(30.0), name), name).item() for name in TRANSFORMS}
    assert beyond["none"] == pytest.approx(45)
    assert beyond["sqrt"] == pytest.approx(30 * 2.25)
    assert beyond["sqrt"] < beyond["log1p"] == pytest.approx(31**1.5 - 1, rel=1e-5)
    assert beyond["log1p"] < beyond["log_eps"] == pytest.approx(0.1 * (301**1.5 - 1), rel=1e-5)


def test_each_channel_has_its_own():
    scaler = ChannelScaler(["none", "sqrt", "log1p"], [280.0, 0.5, 0.2], [10.0, 2.0, 0.5])
    x = torch.stack([torch.full((2, 4, 5), 290.0), torch.full((2, 4, 5), 9.0), torch.full((2, 4, 5), 3.0)], dim=1)
    z = scaler(x)
    assert z.shape == x.shape
    expected = torch.tensor([1.0, 1.25, (math.log(4) - 0.2) / 0.5])
    torch.testing.assert_close(z[1, :, 2, 3], expected)
    torch.testing.assert_close(scaler.inverse(z), x)


def test_standardised_fields_have_mean_0_and_std_1():
    x = torch.distributions.Gamma(0.5, 0.5).sample((64, 2, 8, 8))
    inner = torch.stack([x[:, 0], x[:, 1].sqrt()], dim=1).transpose(0, 1).flatten(1)
    scaler = ChannelScaler(["none", "sqrt"], inner.mean(1).tolist(), inner.std(1, correction=0).tolist())
    z = scaler(x).transpose(0, 1).flatten(1)
    torch.testing.assert_close(z.mean(1), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std(1, correction=0), torch.ones(2), atol=1e-5, rtol=0)


def test_what_is_below_the_range_of_a_transform_becomes_0():
    scaler = ChannelScaler(["none", "sqrt"], [0.0, 1.0], [1.0, 2.0])
    z = torch.zeros(1, 2, 2, 2)
    z[:, :, 0] = -1.0  # -1 in both: below 0 in units of the transform
    x = scaler.inverse(z)
    assert x[0, 0].tolist() == [[-1, -1], [0, 0]]
    assert x[0, 1].tolist() == [[0, 0], [1, 1]]


def test_statistics_travel_with_the_weights():
    scaler, other = ChannelScaler(["none"], [5.0], [2.0]), ChannelScaler(["none"], [0.0], [1.0])
    other.load_state_dict(scaler.state_dict())
    assert other(torch.full((1, 1, 1, 1), 9.0)).item() == 2
    assert scaler.mean.dtype == torch.float32


def test_no_channel_at_all():
    assert ChannelScaler([], [], [])(torch.zeros(2, 0, 3, 3)).shape == (2, 0, 3, 3)


def test_transforms_by_name():
    assert transforms_of(["10u", "tp"], {"tp": "sqrt"}) == ["none", "sqrt"]
    assert transforms_of([], {}) == []
    with pytest.raises(InputError, match=r"data\.transforms names 'rain', which is no channel; there are 10u, tp"):
        transforms_of(["10u", "tp"], {"rain": "sqrt"})
    with pytest.raises(
        InputError, match=r"data\.transforms\.tp is 'cube'; valid are none, sqrt, sqrt_dry, log1p, log_eps"
    ):
        transforms_of(["10u", "tp"], {"tp": "cube"})
