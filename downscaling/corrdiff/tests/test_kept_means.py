"""Means of training pairs are computed once, and are those that a step would compute."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from downscaling.corrdiff.kept_means import KeptMeans
from downscaling.corrdiff.tests.test_models import make_diffusion


def numbered(*index):
    return {"index": torch.tensor(index), "value": 10.0 * torch.tensor(index)[:, None, None, None]}


def test_fields_are_found_by_the_number_of_their_pair():
    kept = KeptMeans(5, (1, 2, 3))
    kept.fill([numbered(2, 3, 9), numbered(40, 41)], lambda batch: batch["value"].expand(-1, 1, 2, 3))
    found = kept(numbered(41, 2, 9))
    assert found.shape == (3, 1, 2, 3)
    assert found[:, 0, 1, 2].tolist() == [410, 20, 90]


def test_memory_is_that_of_single_precision():
    assert KeptMeans.size(2**20, (4, 16, 16)) == 4 * 2**30


def trained_on(data, **settings):
    """A diffusion on the tests' pairs, and how many pairs its regression has seen since it was ready to train."""
    module = make_diffusion(data.contract, **settings)
    module._trainer = SimpleNamespace(precision_plugin=SimpleNamespace(forward_context=nullcontext))
    module._keep_means(data)
    seen = []
    module.mean_model.built.regressor.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    return module, seen


def loss_of(module, batch):
    torch.manual_seed(3)
    with torch.no_grad():
        return float(module.training_step(batch, 0))


def test_a_step_takes_the_mean_that_was_kept(data):
    module, seen = trained_on(data)
    other, computed = trained_on(data, mean_memory=0.0)
    for batch in data.some_pairs("train", 12, at_once=4):
        assert loss_of(module, batch) == pytest.approx(loss_of(other, batch), rel=1e-6)
    assert (seen, computed) == ([], [4, 4, 4])


def test_validation_and_members_have_means_of_their_own(data):
    module, seen = trained_on(data)
    batch = next(iter(data.some_pairs("validation", 4)))
    # numbers of raw data, which are not those of the processed store
    batch["index"] = torch.arange(4)
    plan = {"row_pair": torch.tensor([0, 3]), "member": torch.tensor([-1, -1])}
    with torch.inference_mode():
        rows = module.rows(batch | plan)
        expected = module.conditioner.physical(module.mean_model.built(batch))[[0, 3]]
    torch.testing.assert_close(rows, expected)
    assert seen == [4, 4]


def test_nothing_is_kept_without_a_regression_or_after_the_fit(data):
    assert trained_on(data)[0]._kept is not None
    module, _ = trained_on(data)
    module.on_fit_end()
    assert module._kept is None
    alone = make_diffusion(data.contract, regression=None)
    alone._keep_means(data)
    assert alone._kept is None
