import numpy as np
import pytest
import torch
from torch import nn

from downscaling.corrdiff.batches import StoredPairs
from downscaling.corrdiff.diffusion import RandomPatches
from downscaling.corrdiff.interpolation import interpolate
from downscaling.corrdiff.regression import Regression


class Nothing(nn.Module):
    """A network that gives 0."""

    def forward(self, x, noise_label):
        return x.new_zeros(len(x), 4, *x.shape[-2:])


@pytest.fixture
def batch(data):
    return StoredPairs(str(data.store)).read(np.array([0, 3, 7]))


def test_without_a_network_the_mean_is_the_interpolated_input(data, batch):
    contract = data.contract
    inputs, outputs = ([channel.name for channel in kind] for kind in (contract.inputs, contract.outputs))
    regression = Regression(contract, Nothing(), add_inputs=True)
    fields = regression.conditioner.physical(regression(batch))
    for place, name in enumerate(outputs):
        if name in inputs:
            expected = interpolate(batch["input"][:, inputs.index(name)].numpy(), contract.factor, "linear")
            np.testing.assert_allclose(fields[:, place].numpy(), expected, rtol=1e-5, atol=1e-4)
    # rain is no input: its mean is that of the training, after the transform
    rain = outputs.index("tp")
    assert contract.transforms[len(inputs) + rain] == "sqrt"
    mean = contract.output_moments.mean[rain]
    torch.testing.assert_close(fields[:, rain], torch.full_like(fields[:, rain], mean**2))


def test_patches_are_parts_of_the_whole(data, batch):
    regression = Regression(data.contract, Nothing(), add_inputs=True)
    patches = RandomPatches(16, count=2).draw((32, 32), 3)
    condition = regression.conditioner(batch)
    torch.testing.assert_close(regression.of_patches(condition, batch, patches), patches.cut(regression(batch)))


def test_inputs_are_not_added_by_default(data, batch):
    assert not bool(Regression(data.contract, Nothing())(batch).any())
