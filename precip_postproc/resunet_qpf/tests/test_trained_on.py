"""What forecasts must have in common with the training."""

import dataclasses
import json

import pytest

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.features import FeatureStack
from precip_postproc.resunet_qpf.trained_on import TrainedOn

FEATURES = FeatureStack(["wet", "slope_x"]).constants()
TRAINED = TrainedOn([0.25, 1.0, 5.0], FEATURES, [6, 12, 48], 4.0, "abc", "0.1.0")


def message(error: pytest.ExceptionInfo) -> list[str]:
    return str(error.value).split("\n")


def test_plain_values_and_back():
    again = TrainedOn.from_dict(json.loads(json.dumps(TRAINED.to_dict())))
    assert again == TRAINED


def test_the_same_is_accepted():
    TRAINED.require_model([0.25, 1.0, 5.0], dict(FEATURES))
    TRAINED.require_same(TRAINED, same_leads=True)
    # another grid of nearly the same spacing, another version, other lead times
    TRAINED.require_same(
        dataclasses.replace(TRAINED, spacing_km=4.79, grid="def", version="2", leads=[24]), same_leads=False
    )
    TRAINED.require_same(dataclasses.replace(TRAINED, spacing_km=3.21), same_leads=True)


def test_all_differences_are_listed():
    other = TrainedOn([0.25, 2.5], FeatureStack(["wet", "u"]).constants(), [6], 3.0, "abc", "0.1.0")
    with pytest.raises(InputError) as error:
        TRAINED.require_same(other, same_leads=True)
    assert message(error) == [
        "the checkpoint was trained on something else:",
        "  - edges 0.25, 2.5 mm, the checkpoint's are 0.25, 1, 5 mm",
        "  - features wet, u; the checkpoint's are wet, slope_x",
        "  - grid spacing 3 km, the checkpoint's is 4 km",
        "  - lead times 6 h, the checkpoint's are 6, 12, 48 h",
    ]
    with pytest.raises(InputError) as error:
        TRAINED.require_same(dataclasses.replace(other, spacing_km=4.0), same_leads=False)
    assert len(message(error)) == 3


def test_the_order_of_features_counts():
    with pytest.raises(InputError, match="features slope_x, wet; the checkpoint's are wet, slope_x"):
        TRAINED.require_model(TRAINED.edges, dict(reversed(FEATURES.items())))


def test_constants_of_features_count():
    changed = FEATURES | {"slope_x": "Linear(field='slope_x', offset=0.0, scale=0.5)"}
    with pytest.raises(InputError) as error:
        TRAINED.require_model(TRAINED.edges, changed)
    assert message(error)[1:] == [
        "  - feature slope_x is made as Linear(field='slope_x', offset=0.0, scale=0.5), the checkpoint's as "
        "Linear(field='slope_x', offset=0.0, scale=0.02)"
    ]


@pytest.mark.parametrize("spacing", [3.1, 4.9, 8.0])
def test_another_spacing(spacing):
    with pytest.raises(InputError, match=rf"grid spacing {spacing:g} km, the checkpoint's is 4 km"):
        TRAINED.require_same(dataclasses.replace(TRAINED, spacing_km=spacing), same_leads=False)


def test_lead_times_within_the_range_of_the_training():
    TRAINED.require_within([6, 24, 48])
    for lead in (5, 60):
        with pytest.raises(InputError) as error:
            TRAINED.require_within([6, lead])
        assert str(error.value) == (
            f"lead {lead} h is outside the range 6 to 48 h of the training (6, 12, 48 h): train with it, or set "
            "model.allow_lead_extrapolation"
        )
