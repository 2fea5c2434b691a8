"""Inputs of a network from physical fields."""

import math

import pytest
import torch

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.features import DEFAULT, FEATURES, FeatureStack, feature_named
from precip_postproc.resunet_qpf.predictors import Neighbourhoods, channel_names

FIELDS = {
    "precipitation": 4.0, "smoothed_3": 0.5, "smoothed_9": 0.2, "smoothed_24": 0.05, "fraction_6": 0.75,
    "fraction_18": 0.5, "terrain_height": 1200.0, "terrain_difference": -150.0, "slope_x": 0.01, "slope_y": -0.006,
    "pwat": 27.5, "r": 85.0, "cape": 900.0, "u": 12.0, "v": -4.0, "u10": 5.0, "v10": 2.0,
}  # fmt: skip
EXPECTED = {
    "log_precipitation": math.log(1 + 4 / 0.2) / 3, "wet": 1.0, "log_smoothed_3": math.log(1 + 0.5 / 0.05) / 3,
    "log_smoothed_24": math.log(2) / 3, "fraction_6": 0.75, "fraction_18": 0.5, "terrain_height": 0.8,
    "terrain_difference": -0.5, "slope_x": 0.5, "slope_y": -0.3, "pwat": 0.5, "r": 1.0,
    "cape": math.log(1 + 900 / 100) / 2, "u": 1.2, "v": -0.4, "u10": 0.5, "v10": 0.2,
    "upslope": (12 * 0.01 + 4 * 0.006) / 0.2,
    "scaled_precipitation": 4 / 75, "scaled_precipitation_terrain": (-600 + 35_000) / 70_000,
    "scaled_terrain_difference": (2500 - 150) / 5000, "scaled_slope_x": 0.75, "scaled_slope_y": 0.35,
    "scaled_humidity": 0.85, "scaled_precipitation_humidity": 340 / 7500, "scaled_pwat": 27.5 / 70,
    "scaled_cape": 900 / 5000,
}  # fmt: skip


def fields(**changes: float) -> tuple[torch.Tensor, list[str]]:
    values = FIELDS | changes
    one = torch.tensor(list(values.values()))[None, :, None, None]
    return one.expand(2, -1, 3, 4), list(values)


def test_every_feature_has_its_formula():
    assert set(EXPECTED) >= set(FEATURES)
    stack = FeatureStack(list(EXPECTED))
    found = stack(*fields())
    assert found.shape == (2, len(EXPECTED), 3, 4)
    assert found.dtype == torch.float32
    for name, values in zip(EXPECTED, found[0], strict=True):
        torch.testing.assert_close(values, torch.full((3, 4), EXPECTED[name]), rtol=1e-6, atol=1e-6, msg=name)


@pytest.mark.parametrize(("amount", "wet"), [(0.0, 0), (0.2498, 0), (0.25 - 5e-5, 1), (0.25, 1), (3.0, 1)])
def test_wet_has_the_guard_of_the_classes(amount, wet):
    assert FeatureStack(["wet"])(*fields(precipitation=amount))[0, 0, 0, 0] == wet


def test_reference_features_are_within_0_and_1_up_to_their_maxima():
    names = [name for name in FEATURES if name.startswith("scaled_")]
    extremes = {"terrain_difference": 2500.0, "slope_x": 0.02, "slope_y": 0.02}
    highest = FIELDS | {"precipitation": 75.0, "r": 100.0, "pwat": 70.0, "cape": 5000.0} | extremes
    without = highest | {"terrain_difference": 35_000 / 75}
    assert float(FeatureStack(names)(*fields(**without))[0].max()) <= 1 + 1e-6
    assert float(FeatureStack(names[2:3])(*fields(**highest))[0].max()) == pytest.approx(1)
    lowest = dict.fromkeys(FIELDS, 0.0) | {name: -value for name, value in extremes.items()}
    assert float(FeatureStack(names)(*fields(**lowest))[0].min()) >= -1e-6


def test_missing_values_are_0():
    found = FeatureStack(["log_precipitation", "wet", "pwat"])(*fields(precipitation=math.nan, pwat=math.nan))
    assert found.tolist() == torch.zeros(2, 3, 3, 4).tolist()


def test_default_features_are_made_of_the_default_fields():
    stack = FeatureStack(DEFAULT)
    assert set(stack.needs) == set(channel_names(Neighbourhoods(), []))
    # dry, flat and without wind: nothing but zeros
    assert not stack(torch.zeros(1, 10, 2, 2), channel_names(Neighbourhoods(), [])).any()


def test_needs_are_named_once():
    assert FeatureStack(["wet", "log_precipitation", "upslope", "u"]).needs == [
        "precipitation", "u", "v", "slope_x", "slope_y",
    ]  # fmt: skip


def test_constants_tell_features_apart():
    constants = FeatureStack(["log_smoothed_3", "log_smoothed_3.5"]).constants()
    assert constants["log_smoothed_3"] == "Logarithm(field='smoothed_3', unit=0.05, scale=3.0)"
    assert constants["log_smoothed_3.5"] == "Logarithm(field='smoothed_3.5', unit=0.05, scale=3.0)"
    assert len({repr(feature) for feature in FEATURES.values()}) == len(FEATURES)


@pytest.mark.parametrize("name", ["rain", "log_smoothed_", "log_smoothed_x", "smoothed_3", "fraction", ""])
def test_unknown_names_list_what_is_known(name):
    with pytest.raises(
        InputError, match=rf"names '{name}', which is not known; known are log_precipitation, .*<sigma>"
    ):
        feature_named(name)


@pytest.mark.parametrize("names", [[], ["wet", "u", "wet"]])
def test_no_features_or_one_twice(names):
    with pytest.raises(InputError, match=r"model\.features must name one feature or more, each once"):
        FeatureStack(names)


def test_a_field_that_the_data_lack():
    channels = channel_names(Neighbourhoods(), [])
    message = r"need the field 'u'; the data have precipitation, .*: set data\.neighbourhoods or data\.coarse"
    with pytest.raises(InputError, match=message):
        FeatureStack(["wet", "upslope"])(torch.zeros(1, len(channels), 2, 2), channels)
    with pytest.raises(InputError, match="need the field 'smoothed_5'"):
        FeatureStack(["log_smoothed_5"])(torch.zeros(1, len(channels), 2, 2), channels)
