"""Noise and the denoiser's coefficients: one object, whatever the noise is."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from ai4sim.errors import InputError
from downscaling.corrdiff.diffusion import Denoiser, Edm, Regressor

SIGMAS = torch.logspace(-3, 3, 25, dtype=torch.float64)
KINDS = [Edm(), Edm(sigma_data=0.8), Edm(nu=3.0), Edm(nu=10.0)]
every_kind = pytest.mark.parametrize("edm", KINDS, ids=str)


def nothing(x: Tensor, label: Tensor) -> Tensor:
    return torch.zeros_like(x[:, :2])


class Memory(nn.Module):
    """A network that keeps what it is given."""

    def __init__(self, n_channels: int = 2, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.n_channels, self.dtype = n_channels, dtype

    def forward(self, x: Tensor, label: Tensor, **extras: Tensor) -> Tensor:
        self.x, self.label, self.extras = x, label, extras
        return torch.ones_like(x[:, : self.n_channels], dtype=self.dtype)


@every_kind
def test_network_sees_and_gives_variance_one(edm):
    std = SIGMAS if edm.nu is None else SIGMAS * math.sqrt(edm.nu / (edm.nu - 2))
    c_in, c_skip, c_out = edm.c_in(SIGMAS), edm.c_skip(SIGMAS), edm.c_out(SIGMAS)
    torch.testing.assert_close(c_in**2 * (edm.sigma_data**2 + std**2), torch.ones_like(SIGMAS))
    # what is left to the network has the variance c_out²: (1 - c_skip)² sd² + c_skip² s'²
    torch.testing.assert_close((1 - c_skip) ** 2 * edm.sigma_data**2 + c_skip**2 * std**2, c_out**2)
    torch.testing.assert_close(edm.weight(SIGMAS) * c_out**2, torch.ones_like(SIGMAS))
    torch.testing.assert_close(edm.c_noise(SIGMAS), std.log() / 4)


def test_limits_without_and_with_much_noise():
    edm, little, much = Edm(), torch.tensor([1e-9], dtype=torch.float64), torch.tensor([1e9], dtype=torch.float64)
    for values, expected in (
        (edm.c_skip(little), 1.0),
        (edm.c_skip(much), 0.0),
        (edm.c_out(little), 0.0),
        (edm.c_out(much), 0.5),
        (edm.c_in(little), 2.0),
        (edm.c_in(much), 0.0),
    ):
        assert values.item() == pytest.approx(expected, abs=1e-8)


def test_student_noise_leaves_the_noise_levels_as_they_are():
    sigma = SIGMAS.clone()
    edm = Edm(nu=4.0)
    for function in (edm.c_skip, edm.c_out, edm.c_in, edm.c_noise, edm.weight, edm.spread):
        function(sigma)
    edm.noise(sigma, (25, 1, 2, 2))
    assert sigma.equal(SIGMAS)
    torch.testing.assert_close(edm.spread(sigma), SIGMAS * math.sqrt(2))
    torch.testing.assert_close(edm.c_skip(sigma), Edm().c_skip(SIGMAS * math.sqrt(2)))


def test_label_can_be_scaled():
    torch.testing.assert_close(Edm(noise_scale=1000).c_noise(SIGMAS), 250 * SIGMAS.log())


@pytest.mark.parametrize("nu", [None, 10.0])
def test_moments_of_noise(nu):
    n = 200_000
    noise = Edm(nu=nu).noise(torch.full((n,), 2.0), (n, 1, 1, 1), torch.Generator().manual_seed(0)).flatten().double()
    variance = 4 if nu is None else 4 * nu / (nu - 2)
    kurtosis = 3 if nu is None else 3 + 6 / (nu - 4)
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert noise.var().item() == pytest.approx(variance, rel=0.02)
    assert (noise**4).mean().item() / noise.var().item() ** 2 == pytest.approx(kurtosis, abs=0.2)


def test_an_image_has_one_scale_and_is_normal_within():
    generator = torch.Generator().manual_seed(1)
    noise = Edm(nu=4.0).noise(torch.ones(300), (300, 2, 40, 40), generator).double()
    std = noise.flatten(1).std(1)
    standard = noise.flatten(1) / std[:, None]
    assert (standard**4).mean().item() == pytest.approx(3, abs=0.03)
    assert std.max() / std.min() > 3
    # kappa = 1 / std² has the mean 1 and the variance 2 / nu
    kappa = std**-2
    assert kappa.mean().item() == pytest.approx(1, abs=0.15)
    assert kappa.var().item() == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("nu", [2.5, 3.0, 10.0])
def test_noise_follows_from_the_generator(nu):
    draws = [Edm(nu=nu).noise(torch.ones(50), (50, 1, 3, 3), torch.Generator().manual_seed(5)) for _ in range(2)]
    assert draws[0].equal(draws[1])
    assert draws[0].isfinite().all()


@every_kind
def test_without_network_a_denoiser_shrinks(edm):
    x, sigma = torch.randn(3, 2, 4, 4), torch.tensor([0.1, 1.0, 10.0])
    expected = edm.c_skip(sigma).reshape(-1, 1, 1, 1) * x
    torch.testing.assert_close(Denoiser(nothing, edm)(x, sigma), expected)


def test_network_gets_scaled_image_and_unscaled_condition():
    network, edm = Memory(), Edm()
    denoiser = Denoiser(network, edm)
    x, condition = torch.randn(2, 2, 4, 4, dtype=torch.float64), torch.randn(2, 3, 4, 4)
    sigma, lead = torch.tensor([0.3, 3.0], dtype=torch.float64), torch.tensor([1, 2])
    result = denoiser(x, sigma, condition, lead=lead)
    scale = edm.c_in(sigma.float()).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(network.x, torch.cat([scale * x.float(), condition], 1))
    torch.testing.assert_close(network.label, sigma.float().log() / 4)
    assert network.extras["lead"].equal(lead)
    assert result.dtype == torch.float32
    expected = edm.c_skip(sigma).reshape(-1, 1, 1, 1) * x + edm.c_out(sigma).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(result, expected.float())
    assert x.dtype == sigma.dtype == torch.float64


def test_result_is_single_precision_under_autocast():
    network = nn.Conv2d(4, 2, 3, padding=1)
    denoiser = Denoiser(lambda x, label: network(x), Edm())
    x, condition, sigma = torch.randn(2, 2, 8, 8), torch.randn(2, 2, 8, 8), torch.tensor([0.2, 2.0])
    expected = denoiser(x, sigma, condition)
    with torch.autocast("cpu", torch.bfloat16):
        assert network(torch.cat([x, condition], 1)).dtype == torch.bfloat16
        result = denoiser(x, sigma, condition)
    assert result.dtype == torch.float32
    assert (result - expected).norm() / expected.norm() < 3e-2
    # what is passed by is not shortened
    denoiser.network = lambda x, label: torch.zeros_like(x[:, :2], dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(denoiser(x, sigma, condition), Edm().c_skip(sigma).reshape(-1, 1, 1, 1) * x)


def test_regression_sees_zeros_and_a_constant_label():
    network, condition = Memory(dtype=torch.bfloat16), torch.randn(3, 5, 4, 6)
    result = Regressor(network, 2)(condition, lead=torch.arange(3))
    assert result.shape == (3, 2, 4, 6)
    assert result.dtype == torch.float32
    assert network.x.equal(torch.cat([torch.zeros(3, 2, 4, 6), condition], 1))
    assert network.label.equal(torch.zeros(3))
    assert network.extras["lead"].equal(torch.arange(3))


def test_denoiser_has_the_parameters_of_its_network():
    denoiser = Denoiser(nn.Conv2d(2, 2, 1), Edm())
    assert set(denoiser.state_dict()) == {"network.weight", "network.bias"}
    assert copy.deepcopy(denoiser).edm == denoiser.edm


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma_data": 0.0}, "sigma_data is 0; expected above 0"),
        ({"noise_scale": -1.0}, "noise_scale is -1; expected above 0"),
        ({"nu": 2.0}, "nu is 2; expected above 2, as a Student-t distribution has no variance otherwise"),
        ({"nu": math.nan}, "nu is nan; expected above 2"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(InputError, match=message):
        Edm(**settings)


def test_a_network_of_other_outputs_is_refused():
    with pytest.raises(ValueError, match=r"the network gave the shape \(1, 3, 4, 4\) for images \(1, 2, 4, 4\)"):
        Denoiser(Memory(3), Edm())(torch.zeros(1, 2, 4, 4), torch.ones(1), torch.zeros(1, 3, 4, 4))
