"""The training module by itself: losses of batches, what it adds to checkpoints, probabilities of any size."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from precip_postproc.resunet_qpf.calibration import Calibration
from precip_postproc.resunet_qpf.conditions import lead_conditions
from precip_postproc.resunet_qpf.flips import flip
from precip_postproc.resunet_qpf.inference import Inference
from precip_postproc.resunet_qpf.models import HEADS, QpfModule
from precip_postproc.resunet_qpf.networks import ConditionedResUNet

CHANNELS = ["precipitation", "slope_x", "slope_y"]
FEATURES = ["log_precipitation", "wet", "slope_x", "slope_y"]


def small(features, outputs):
    return ConditionedResUNet(features, outputs, widths=[8, 8])


def make_module(**settings) -> QpfModule:
    torch.manual_seed(0)
    module = QpfModule(small, features=FEATURES, **settings)
    module.channels = CHANNELS
    module.log = lambda *args, **kwargs: None
    return module


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    noise = torch.Generator().manual_seed(0)
    fields = torch.randn(2, 3, 16, 24, generator=noise)
    fields[:, 0] = 4 * fields[:, 0].clamp(min=0)
    observed = (3 * torch.randn(2, 16, 24, generator=noise)).clamp(min=0)
    times = np.array(["2025-12-01T12", "2025-12-02T18"], "datetime64[s]")
    return {
        "fields": fields, "observed": observed, "lead": torch.tensor([6, 24]), "weight": torch.tensor([1.0, 1.0]),
        "conditions": torch.as_tensor(lead_conditions(np.array([6, 24]), times)), "index": torch.tensor([0, 1]),
    }  # fmt: skip


@pytest.mark.parametrize("head", sorted(HEADS))
class TestHeads:
    def test_nothing_known_is_nothing_lost(self, batch, head):
        module = make_module(head=head)
        loss = module.training_step({**batch, "observed": torch.full_like(batch["observed"], torch.nan)}, 0)
        loss.backward()
        assert loss.item() == 0
        for name, parameter in module.network.named_parameters():
            assert parameter.grad is not None, name
            assert not parameter.grad.any(), name

    def test_unknown_pixels_and_weightless_patches_have_no_gradient(self, batch, head):
        module = make_module(head=head).eval()
        observed = batch["observed"].clone()
        observed[0, :8] = torch.nan
        other = observed.clone()
        other[1] = 40
        gradients = []
        for own in (observed, other):
            module.zero_grad()
            module.training_step({**batch, "observed": own, "weight": torch.tensor([1.0, 0.0])}, 0).backward()
            gradients.append(module.network.head.weight.grad.clone())
        assert torch.equal(*gradients)
        assert gradients[0].any()

    def test_two_steps_make_the_loss_smaller(self, batch, head):
        module = make_module(head=head)
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
        losses = []
        for _ in range(6):
            optimizer.zero_grad()
            loss = module.training_step(batch, 0)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert np.isfinite(losses).all()
        assert losses[-1] < losses[0]

    def test_probabilities_decrease_with_the_amount(self, batch, head):
        module = make_module(head=head).eval()
        probability = module.exceedance(batch)
        assert probability.shape == (2, len(module.edges), 16, 24)
        assert 0 <= probability.min() <= probability.max() <= 1
        assert probability.diff(dim=1).max() <= 1e-6
        packed = module.test_step(batch, 0)["exceedance"]
        assert packed.dtype == torch.int16
        assert (packed / 1e4 - probability).abs().max() <= 5.1e-5


def test_weights_of_patches_count(batch):
    module = make_module().eval()
    one, two = (module.training_step({name: values[i : i + 1] for name, values in batch.items()}, 0) for i in (0, 1))
    both = module.training_step({**batch, "weight": torch.tensor([3.0, 1.0])}, 0)
    assert both.item() == pytest.approx((3 * one.item() + two.item()) / 4, rel=1e-5)


def test_forecasts_with_the_event_are_counted_over_all_processes(batch, monkeypatch):
    """Once a field, whatever the number of points; by lead time and edge."""
    seen = []
    monkeypatch.setattr(Calibration, "fit", lambda *args: seen.append(args))
    module = make_module(edges=[0.25, 1.0, 2.5, 5.0, 10.0, 25.0]).eval()
    module.trained_on = SimpleNamespace(leads=[6, 24])
    # two processes that have seen the same
    strategy = SimpleNamespace(reduce=lambda sums, reduce_op: 2 * sums)
    module.trainer = SimpleNamespace(strategy=strategy, sanity_checking=False)
    storm = torch.zeros(2, 16, 24)
    storm[0, :4, :8] = 7.0  # 32 points at +6 h
    storm[1, 3, 5] = 1.0  # one at +24 h
    unknown = storm.clone()
    unknown[1, 3, 5] = torch.nan
    module.on_validation_epoch_start()
    for observed in (storm, unknown, storm):
        module.validation_step({**batch, "observed": observed}, 0)
    module.on_validation_epoch_end()
    ((leads, sums, cases),) = seen
    assert leads == [6, 24]
    assert cases.tolist() == [[6, 6, 6, 6, 0, 0], [4, 4, 0, 0, 0, 0]]
    assert sums[0, :, :, 2].sum(axis=1).tolist() == [192, 192, 192, 192, 0, 0]
    assert sums[1, :, :, 0].sum(axis=1).tolist() == [2 * (3 * 16 * 24 - 1)] * 6
    # a validation begins anew
    module.on_validation_epoch_start()
    module.validation_step({**batch, "observed": unknown}, 0)
    module.on_validation_epoch_end()
    assert seen[1][2].tolist() == [[2, 2, 2, 2, 0, 0], [0] * 6]


def test_mirrored_batches_are_the_same_in_a_fit_that_goes_on(batch, monkeypatch):
    module = make_module(flips=True)
    seen = []
    forward = module.forward
    monkeypatch.setattr(
        module, "forward", lambda fields, conditions: seen.append(fields) or forward(fields, conditions)
    )
    for _ in range(2):
        torch.manual_seed(7)
        for step in range(12):
            module.training_step(batch, step)
            torch.rand(3)  # others draw, too
        torch.rand(5)
    expected = {batch["fields"].numpy().tobytes()}
    for rows in ([True], [False], [True, False]):
        fields, observed = batch["fields"], batch["observed"]
        for each in rows:
            fields, observed = flip(fields, observed, CHANNELS, rows=each)
        expected.add(fields.numpy().tobytes())
    assert {fields.numpy().tobytes() for fields in seen} == expected
    assert all(torch.equal(one, other) for one, other in zip(seen[:12], seen[12:], strict=True))


def test_a_field_of_any_size_is_forecast_in_tiles_as_in_one_pass(batch):
    module = make_module().eval()
    whole = module.exceedance({**batch, "fields": batch["fields"][:, :, :15, :22]})
    module.inference = Inference(tile=16, batch_size=1)
    assert whole.shape == (2, len(module.edges), 15, 22)
    tiled = module.exceedance({**batch, "fields": batch["fields"][:, :, :15, :22]})
    assert (whole - tiled).abs().mean() < 0.02
