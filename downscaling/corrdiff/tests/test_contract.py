"""What a model knows of its data."""

import json
from dataclasses import replace

import pytest
import torch

from ai4sim.errors import InputError
from downscaling.corrdiff.conditioning import Conditioner
from downscaling.corrdiff.contract import Contract, Moments
from downscaling.corrdiff.interpolation import Upsample
from downscaling.corrdiff.readers import Channel

CONTRACT = Contract(
    inputs=(Channel("t850", "K", "temperature"), Channel("tcwv", "kg m-2")),
    outputs=(Channel("2t", "K"), Channel("tp", "mm h-1"), Channel("snow"), Channel("rain")),
    static=(Channel("elev", "m"),),
    transforms=("none", "none", "none", "sqrt", "none", "none"),
    factor=2,
    shape=(6, 8),
    spacing_km=3.0,
    lead_labels=(0, 3, 6),
    probabilities=("snow", "rain"),
    input_moments=Moments((280.0, 20.0), (10.0, 5.0)),
    output_moments=Moments((285.0, 0.5, 0.0, 0.0), (8.0, 1.5, 1.0, 1.0)),
    static_moments=Moments((300.0,), (200.0,)),
)


def test_plain_values_and_back():
    values = CONTRACT.to_dict()
    assert values["inputs"][0] == {"name": "t850", "units": "K", "long_name": "temperature"}
    assert Contract.from_dict(values) == CONTRACT
    # tuples are lists in JSON
    assert Contract.from_dict(json.loads(json.dumps(values))) == CONTRACT
    assert CONTRACT.n_conditions == 3


def test_a_checkpoint_needs_no_pickled_classes(tmp_path):
    unknown = replace(CONTRACT, spacing_km=float("nan"), static=(), static_moments=Moments((), ()))
    torch.save({"contract": unknown.to_dict()}, tmp_path / "c.ckpt")
    found = Contract.from_dict(torch.load(tmp_path / "c.ckpt", weights_only=True)["contract"])
    assert repr(found) == repr(unknown)
    found.require_same(unknown)


def test_the_same():
    CONTRACT.require_same(Contract.from_dict(CONTRACT.to_dict()))
    # names decide, not what is said of them
    CONTRACT.require_same(replace(CONTRACT, static=(Channel("elev", "metre", "height"),)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"inputs": CONTRACT.inputs[::-1]},
            r"input channels differ at number 1: the checkpoint has 't850', the data 'tcwv' \(t850, tcwv against tcwv",
        ),
        (
            {"outputs": CONTRACT.outputs[:3]},
            r"output channels differ at number 4: the checkpoint has 'rain', the data 'nothing'",
        ),
        (
            {"static": (*CONTRACT.static, Channel("lsm"))},
            r"static channels differ at number 2: the checkpoint has 'nothing', the data 'lsm'",
        ),
        ({"static": ()}, r"static channels differ at number 1: the checkpoint has 'elev', the data 'nothing'"),
        (
            {"transforms": ("none", "none", "none", "log1p", "none", "none")},
            r"transform of 'tp': the checkpoint has sqrt, the data log1p",
        ),
        ({"factor": 4}, r"factor: the checkpoint has 2, the data 4"),
        ({"shape": (8, 8)}, r"shape: the checkpoint has \(6, 8\), the data \(8, 8\)"),
        ({"spacing_km": float("nan")}, r"spacing km: the checkpoint has 3.0, the data nan"),
        ({"lead_labels": ()}, r"lead labels: the checkpoint has \(0, 3, 6\), the data \(\)"),
        ({"probabilities": ("snow",)}, r"probabilities: the checkpoint has \('snow', 'rain'\), the data \('snow',\)"),
        (
            {"input_moments": Moments((280.0, 21.0), (10.0, 5.0))},
            r"input mean of 'tcwv': the checkpoint has 20.0, the data 21.0",
        ),
        (
            {"output_moments": Moments((285.0, 0.5, 0.0, 0.0), (8.0, 1.5, 1.0, 2.0))},
            r"output std of 'rain': the checkpoint has 1.0, the data 2.0",
        ),
        ({"static_moments": Moments((301.0,), (200.0,))}, r"static mean of 'elev': the checkpoint has 300.0, the data"),
        # of several differences the first one
        ({"factor": 4, "inputs": CONTRACT.inputs[:1]}, r"input channels differ at number 2"),
    ],
)
def test_the_first_difference_is_named(changes, message):
    with pytest.raises(InputError, match=f"^{message}"):
        CONTRACT.require_same(replace(CONTRACT, **changes))


def test_who_differs_is_named():
    with pytest.raises(InputError, match="factor: the regression has 2, the ensemble 4"):
        CONTRACT.require_same(replace(CONTRACT, factor=4), "the regression", "the ensemble")


def test_channels_of_data_without_truth():
    CONTRACT.require_channels(CONTRACT.inputs, CONTRACT.static, 2)
    with pytest.raises(InputError, match="input channels differ at number 2: the model has 'tcwv', the data 'q'"):
        CONTRACT.require_channels((CONTRACT.inputs[0], Channel("q")), CONTRACT.static, 2)
    with pytest.raises(
        InputError, match="static channels differ at number 1: the model has 'elev', the data 'nothing'"
    ):
        CONTRACT.require_channels(CONTRACT.inputs, (), 2)
    with pytest.raises(InputError, match="the model's factor is 2, that of the data 8"):
        CONTRACT.require_channels(CONTRACT.inputs, CONTRACT.static, 8)


def test_scalers_have_the_statistics_of_their_channels():
    assert CONTRACT.scaler("input").transforms == ("none", "none")
    assert CONTRACT.scaler("output").transforms == ("none", "sqrt", "none", "none")
    assert CONTRACT.scaler("static").transforms == ("none",)
    assert CONTRACT.scaler("input").mean.flatten().tolist() == [280, 20]
    assert CONTRACT.scaler("output").std.flatten().tolist() == [8, 1.5, 1, 1]


class TestConditioner:
    def test_inputs_on_the_fine_grid_and_then_static_fields(self):
        conditions = Conditioner(CONTRACT)
        random = torch.Generator().manual_seed(0)
        coarse = torch.randn(2, 2, 3, 4, generator=random)
        static = torch.randn(2, 1, 6, 8, generator=random)
        batch = {
            "input": coarse * torch.tensor([10.0, 5.0]).view(2, 1, 1) + torch.tensor([280.0, 20.0]).view(2, 1, 1),
            "static": static * 200 + 300,
        }
        found = conditions(batch)
        assert found.shape == (2, CONTRACT.n_conditions, 6, 8)
        torch.testing.assert_close(found[:, :2], Upsample(2)(coarse), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found[:, 2:], static, atol=1e-4, rtol=1e-4)

    def test_physical_fields_have_probabilities_that_sum_to_1(self):
        conditions = Conditioner(CONTRACT)
        z = torch.zeros(1, 4, 1, 3)
        z[0, 1] = torch.tensor([-1.0, 0.0, 1.0])
        z[0, 2] = torch.tensor([0.2, -0.3, -1.0])
        z[0, 3] = torch.tensor([0.6, 0.7, -2.0])
        found = conditions.physical(z)[0, :, 0]
        assert found[0].tolist() == [285, 285, 285]
        assert found[1].tolist() == [0, 0.25, 4]
        # negative ones count as none, and where there is none at all they are equally likely
        torch.testing.assert_close(found[2:], torch.tensor([[0.25, 0, 0.5], [0.75, 1, 0.5]]))

    def test_without_probabilities(self):
        plain = replace(CONTRACT, probabilities=())
        assert Conditioner(plain).physical(torch.full((1, 4, 1, 1), -2.0)).flatten().tolist() == [269, 0, -2, -2]
