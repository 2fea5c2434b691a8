"""What a network's outputs mean."""

import mpmath
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.classes import classify
from precip_postproc.resunet_qpf.climate import Climate
from precip_postproc.resunet_qpf.config import EDGES, QUANTILES
from precip_postproc.resunet_qpf.heads import ClassHead, CsgdHead, GammaHead, Head, QuantileHead
from precip_postproc.resunet_qpf.heads.functions import inverse_softplus, upper_gamma

HEADS = [ClassHead, GammaHead, CsgdHead, QuantileHead]
every_head = pytest.mark.parametrize("kind", HEADS)


def rainy_climate() -> Climate:
    """Like an hour over land: 9 of 10 points dry, a long tail."""
    rng = np.random.default_rng(0)
    amounts = np.maximum(0, rng.gamma(0.4, 5.0, 300_000) - 5.0)
    amounts[amounts < 0.25] = 0
    return Climate(np.bincount(np.rint(amounts * 100).astype(int), minlength=20001))


def one_pixel(outputs: torch.Tensor) -> torch.Tensor:
    return outputs[None, :, None, None]


@every_head
@pytest.mark.parametrize("size", [0.1, 1.0, 10.0, 100.0])
def test_exceedance_is_a_probability_that_falls_with_the_amount(kind, size):
    head = kind()
    outputs = size * torch.randn(2, head.n_outputs, 16, 16, generator=torch.Generator().manual_seed(0))
    exceedance = head.exceedance(outputs)
    assert exceedance.shape == (2, len(EDGES), 16, 16)
    assert exceedance.isfinite().all()
    assert exceedance.min() >= 0
    assert exceedance.max() <= 1
    assert (exceedance.diff(dim=1) <= 0).all()


@every_head
def test_half_precision_outputs_are_widened(kind):
    head = kind()
    outputs = torch.randn(1, head.n_outputs, 4, 4, generator=torch.Generator().manual_seed(1)).bfloat16()
    exceedance = head.exceedance(outputs)
    assert exceedance.dtype == torch.float32
    torch.testing.assert_close(exceedance, head.exceedance(outputs.float()))


@every_head
def test_another_number_of_outputs(kind):
    with pytest.raises(ValueError, match=f"{kind.__name__} takes"):
        kind().exceedance(torch.zeros(1, 7, 2, 2))


@every_head
def test_edges_are_checked_and_stay_out_of_checkpoints(kind):
    with pytest.raises(InputError, match="increase strictly"):
        kind([2.0, 1.0])
    assert not kind().state_dict()


@every_head
def test_initial_bias_gives_the_climate(kind):
    climate, head = rainy_climate(), kind()
    bias = head.initial_bias(climate)
    assert bias.shape == (head.n_outputs,)
    assert bias.dtype == torch.float32
    expected = climate.class_frequencies(EDGES)[::-1].cumsum()[-2::-1]
    found = head.exceedance(one_pixel(bias))[0, :, 0, 0].numpy()
    # a gamma distribution leaves some of its amounts below the first edge; between quantiles there are straight lines
    share = {ClassHead: 1e-4, CsgdHead: 0.1, GammaHead: 0.25, QuantileHead: 0.4}[kind]
    assert found[:10] == pytest.approx(expected[:10], rel=share)


@every_head
@pytest.mark.parametrize("amounts", [np.zeros(10), np.full(10, 5.0), np.array([0.0] * 999 + [0.3])])
def test_initial_bias_of_odd_climates_is_finite(kind, amounts):
    head = kind()
    bias = head.initial_bias(Climate(np.bincount(np.rint(amounts * 100).astype(int))))
    assert bias.isfinite().all()
    assert head.exceedance(one_pixel(bias)).isfinite().all()


@every_head
def test_heads_come_from_a_configuration(kind):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--head", type=Head)
    path = f"precip_postproc.resunet_qpf.heads.{kind.__name__}"
    config = parser.parse_object({"head": {"class_path": path, "init_args": {"edges": [0.25, 1]}}})
    head = parser.instantiate(config).head
    assert type(head) is kind
    assert head.edges.tolist() == [0.25, 1.0]


# classes


def test_class_probabilities_sum_up_to_the_exceedance():
    head = ClassHead()
    logits = torch.randn(1, 19, 3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    p = logits.softmax(1)
    torch.testing.assert_close(p.sum(1), torch.ones(1, 3, 3, dtype=torch.float64))
    exceedance = head.exceedance(logits)
    for k in range(18):
        torch.testing.assert_close(exceedance[:, k], p[:, k + 1 :].sum(1))


def test_rare_classes_keep_their_digits():
    logits = torch.full((1, 3, 1, 1), -30.0)
    logits[:, 0] = 0
    exceedance = ClassHead([1.0, 2.0]).exceedance(logits)
    assert exceedance[0, :, 0, 0].tolist() == pytest.approx([2 * np.exp(-30), np.exp(-30)], rel=1e-5)


def test_empty_classes_start_rare():
    bias = ClassHead([1.0, 2.0]).initial_bias(Climate(np.array([3, 0, 1])))
    assert bias.tolist() == pytest.approx([0, np.log(1e-7), np.log(1e-7)])


# distributions


def frequencies(amounts: torch.Tensor) -> list[float]:
    classes = classify(amounts, EDGES)
    return [(classes > k).double().mean().item() for k in range(len(EDGES))]


def test_gamma_exceedance_is_that_of_draws():
    torch.manual_seed(0)
    head = GammaHead()
    outputs = one_pixel(torch.tensor([0.4, 0.3, 1.2], dtype=torch.float64))
    dry, shape, scale = (p.item() for p in head.distribution(outputs))
    n = 200_000
    amounts = torch.distributions.Gamma(shape, 1 / scale).sample((n,)) * (torch.rand(n) < 1 / (1 + np.exp(dry)))
    assert head.exceedance(outputs)[0, :, 0, 0].tolist() == pytest.approx(frequencies(amounts), abs=5e-3)


def test_csgd_exceedance_is_that_of_draws():
    torch.manual_seed(0)
    head = CsgdHead()
    outputs = one_pixel(torch.tensor([0.4, 1.3, 0.7], dtype=torch.float64))
    shape, scale, shift = (p.item() for p in head.distribution(outputs))
    amounts = (torch.distributions.Gamma(shape, 1 / scale).sample((200_000,)) + shift).clamp(min=0)
    assert head.exceedance(outputs)[0, :, 0, 0].tolist() == pytest.approx(frequencies(amounts), abs=5e-3)


def test_gamma_starts_with_the_moments():
    climate, head = rainy_climate(), GammaHead()
    dry, shape, scale = (p.item() for p in head.distribution(one_pixel(head.initial_bias(climate))))
    assert 1 / (1 + np.exp(dry)) == pytest.approx(climate.wet_share, rel=1e-4)
    assert shape * scale == pytest.approx(climate.wet_mean, rel=1e-4)
    assert shape * scale**2 == pytest.approx(climate.wet_variance, rel=1e-4)


def test_gamma_scale_has_a_bound():
    with pytest.raises(InputError, match="least_scale"):
        GammaHead(least_scale=0)


# quantiles


def test_quantiles_do_not_cross():
    head = QuantileHead()
    outputs = 30 * torch.randn(2, 13, 8, 8, generator=torch.Generator().manual_seed(3))
    assert (head.quantiles(outputs).diff(dim=1) >= 0).all()


def test_exceedance_is_one_minus_the_level_of_the_quantile():
    edges = [0.5, 1.0, 2.0, 3.0, 4.0, 6.0]
    head = QuantileHead(edges, [0.2, 0.5, 0.9])
    # quantiles 1, 2 and 4 mm
    outputs = torch.cat([torch.ones(1), inverse_softplus(torch.tensor([1.0, 2.0]) - 1e-4)])
    found = head.exceedance(one_pixel(outputs))[0, :, 0, 0].tolist()
    decay = 2 / np.log(5)
    assert found == pytest.approx([0.9, 0.8, 0.5, 0.3, 0.1, 0.1 * np.exp(-2 / decay)], abs=1e-5)


def test_dry_quantiles_leave_hardly_a_chance_of_rain():
    head = QuantileHead()
    outputs = torch.full((13,), -5.0)
    assert head.exceedance(one_pixel(outputs))[0, 0] < 1e-6


@pytest.mark.parametrize("levels", [[0.5], [0.5, 0.5], [0.9, 0.1], [0.0, 0.5], [0.5, 1.0]])
def test_levels_are_checked(levels):
    with pytest.raises(InputError, match="levels must be"):
        QuantileHead(EDGES, levels)


def test_quantiles_start_with_the_climate():
    climate, head = rainy_climate(), QuantileHead()
    quantiles = head.quantiles(one_pixel(head.initial_bias(climate)))[0, :, 0, 0].clamp(min=0)
    assert quantiles.tolist() == pytest.approx(climate.quantiles(QUANTILES).tolist(), abs=0.01)


# functions


@pytest.mark.parametrize("a", [0.11, 0.4, 1.0, 3.0, 30.0, 300.0])
@pytest.mark.parametrize("ratio", [1e-3, 0.1, 0.8, 1.0, 1.3, 4.0])
def test_derivatives_of_the_incomplete_gamma_function(a, ratio):
    shape = torch.tensor([a], dtype=torch.float64, requires_grad=True)
    x = torch.tensor([a * ratio], dtype=torch.float64, requires_grad=True)
    value = upper_gamma(shape, x)
    value.sum().backward()
    with mpmath.workdps(40):
        assert value.item() == pytest.approx(float(mpmath.gammainc(a, a * ratio, regularized=True)), abs=1e-9)
        by_shape = mpmath.diff(lambda k: mpmath.gammainc(k, a * ratio, regularized=True), a)
        by_x = mpmath.diff(lambda y: mpmath.gammainc(a, y, regularized=True), a * ratio)
    assert shape.grad.item() == pytest.approx(float(by_shape), rel=1e-6, abs=2e-7)
    assert x.grad.item() == pytest.approx(float(by_x), rel=1e-9, abs=1e-12)


def test_incomplete_gamma_function_of_single_precision_broadcasts():
    shape = torch.tensor([[0.5], [2.0]], requires_grad=True)
    x = torch.tensor([0.0, 1e-30, 1.0, 1000.0], requires_grad=True)
    value = upper_gamma(shape, x)
    assert value.shape == (2, 4)
    assert value[:, 0].tolist() == [1, 1]
    value[:, 1:].sum().backward()
    assert shape.grad.shape == shape.shape
    assert shape.grad.isfinite().all()
    assert x.grad.isfinite().all()


def test_inverse_softplus():
    values = torch.tensor([1e-3, 0.5, 5.0, 80.0])
    torch.testing.assert_close(torch.nn.functional.softplus(inverse_softplus(values)), values)
