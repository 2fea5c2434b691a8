"""A network stepped through time: channels, boundary, missing values, memory."""

import types

import numpy as np
import pytest
import torch

from ai4sim.errors import InputError
from weather_forecast.lam.forecaster import Forecaster, Window
from weather_forecast.lam.models import LamModule
from weather_forecast.lam.rollout import RolloutCurriculum
from weather_forecast.lam.strategies import InterSteps
from weather_forecast.lam.tests.conftest import FORCING, STATE

SMALL = {"num_filters": 4}


def module(info, **changes) -> LamModule:
    torch.manual_seed(0)
    model = LamModule(settings=SMALL, **changes)
    model.build(info)
    return model.eval()


def batch_of(data) -> dict[str, torch.Tensor]:
    return {name: values.clone() for name, values in next(iter(data.val_dataloader())).items()}


@torch.no_grad()
def forecast(model: LamModule, batch) -> torch.Tensor:
    return model(model.built.window(batch))


def test_channels_are_states_statics_forcing_in_this_order(tiny):
    info = tiny.info()
    assert Forecaster.channels(info, 1) == (5 + 4 + 3 + 5, 5)
    assert Forecaster.channels(info, 2, mask_on_nan=True) == (2 * 5 + 4 + 8 + 1, 5)
    model = module(info)
    seen = []
    model.built.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    batch = batch_of(tiny)
    forecast(model, batch)
    x = seen[1].movedim(1, -1)  # second step
    forecaster = model.built
    torch.testing.assert_close(x[..., 5:9], forecaster.statics.fields.expand(2, -1, -1, -1))
    fields = forecaster.forcings(batch["forcing"][:, 2])
    torch.testing.assert_close(x[..., 9:12], fields)
    torch.testing.assert_close(x[..., 12:16], batch["clock"][:, 1, None, None].expand(2, 24, 32, 4))
    sun = (batch["toa_radiation"][:, 1] - forecaster.solar.mean) / forecaster.solar.std
    torch.testing.assert_close(x[..., 16], sun)


def test_standardised_states_come_back_in_physical_units(tiny):
    model = module(tiny.info())
    batch = batch_of(tiny)
    window = model.built.window(batch)
    assert window.states.shape == (2, 1, 24, 32, 5)
    assert window.targets.shape == (2, 3, 24, 32, 5)
    torch.testing.assert_close(model.built.physical(window.targets), batch["state"][:, 1:], rtol=1e-5, atol=1e-2)
    assert window.targets.std() < 3


def test_names_of_a_batch(tiny):
    model = module(tiny.info())
    items = model.built.item_batch(batch_of(tiny), None)
    assert items.batch_size == 2
    assert items.num_input_steps == 1
    assert items.num_pred_steps == 3
    assert items.inputs.feature_names == STATE
    assert items.forcing.feature_names[:3] == FORCING
    assert torch.equal(items.inputs["aro_tp_0m"], items.inputs.tensor[..., 1:2])


def inner(info) -> torch.Tensor:
    return info.border == 0


def test_what_comes_in_through_the_border_reaches_the_interior_at_the_next_step(tiny):
    info = tiny.info()
    model = module(info, boundary="truth")
    batch = batch_of(tiny)
    before = forecast(model, batch)
    batch["state"][:, 1, ~inner(info)] *= 1.01  # the border of the first target time alone
    after = forecast(model, batch)
    assert torch.equal(before[:, 0][:, inner(info)], after[:, 0][:, inner(info)])
    assert not torch.equal(before[:, 1][:, inner(info)], after[:, 1][:, inner(info)])
    # the targets' interior is never looked at
    batch["state"][:, 1:, inner(info)] += 100
    assert torch.equal(forecast(model, batch), after)


def test_no_boundary_ignores_everything_outside(tiny):
    model = module(tiny.info(), boundary="none")
    batch = batch_of(tiny)
    before = forecast(model, batch)
    batch["state"][:, 1:] += 100
    assert torch.equal(forecast(model, batch), before)


def test_the_border_is_the_truth_bit_for_bit(tiny):
    info = tiny.info()
    model = module(info)
    window = model.built.window(batch_of(tiny))
    with torch.no_grad():
        result = model(window)
    assert torch.equal(result[:, :, ~inner(info)], window.targets[:, :, ~inner(info)])


def test_the_host_is_taken_where_it_has_the_field_and_the_forecast_elsewhere(tiny):
    info = tiny.info()
    model = module(info, boundary="host")
    batch = batch_of(tiny)
    result = model.built.physical(forecast(model, batch))
    edge = ~inner(info)
    host = batch["forcing"][:, 1:]
    for own, theirs in info.host_matches():
        torch.testing.assert_close(result[:, :, edge][..., own], host[:, :, edge][..., theirs], rtol=1e-4, atol=1e-2)
    free = model.built.physical(forecast(module(info, boundary="none"), batch))
    # the first step of a field that the host does not have is the network's own
    torch.testing.assert_close(result[:, 0, ..., 0], free[:, 0, ..., 0])
    batch["state"][:, 1:] += 100
    torch.testing.assert_close(model.built.physical(forecast(model, batch)), result)


def test_a_host_must_be_there(tiny):
    info = type(tiny.info()).from_dict(tiny.info().to_dict() | {"forcing": [], "forcing_statistics": None})
    with pytest.raises(InputError, match=r"boundary host needs fields of the host .* the forcing has none"):
        module(info, boundary="host")
    with pytest.raises(InputError, match="boundary 'sky' is unknown; choose truth, host or none"):
        module(tiny.info(), boundary="sky")


def test_diagnostics_are_forecast_and_not_fed_back(tiny):
    values = tiny.info().to_dict()
    info = type(tiny.info()).from_dict(values | {"state": STATE[:4], "diagnostics": STATE[4:]})
    model = module(info)
    assert model.built.network.in_channels == 4 + 4 + 3 + 5
    assert model.built.network.out_channels == 5
    assert forecast(model, batch_of(tiny)).shape == (2, 3, 24, 32, 5)


def test_missing_values_are_masked_on_demand(tiny):
    info = tiny.info()
    batch = batch_of(tiny)
    batch["state"][:, :, 10:12, 10:12, 1] = torch.nan
    plain = module(info)
    first = str(np.datetime64(int(batch["time"][0]), "s"))  # of the only input
    message = (
        rf"missing values in a batch: aro_tp_0m \(32\); the first is of aro_tp_0m at {first}; mend the data or set"
    )
    with pytest.raises(InputError, match=message):
        plain._window(batch)
    masked = module(info, mask_on_nan=True)
    result = forecast(masked, batch)
    assert torch.isfinite(result).all()
    loss = masked._loss(masked._window(batch))
    assert torch.isfinite(loss).all()


def test_a_loss_that_is_not_finite_names_features_and_lead_times(tiny):
    model = module(tiny.info())
    model._trainer = types.SimpleNamespace(global_step=7)
    batch = batch_of(tiny)
    with torch.no_grad():
        for parameter in model.built.network.parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(InputError, match=r"the training loss is nan at step 7; by lead time: nan, nan.*aro_tp_0m nan"):
        model.training_step(batch, 0)


def test_recomputed_steps_give_the_same_loss_and_gradients(tiny):
    info, batch = tiny.info(), batch_of(tiny)
    found = []
    for recompute in (False, True):
        model = module(info, checkpoint_steps=recompute)
        window = model._window(batch)
        loss = model._loss(window).mean()
        loss.backward()
        found.append((loss.detach(), [p.grad for p in model.parameters()]))
    torch.testing.assert_close(found[0], found[1])


def test_memory_of_recomputed_steps_hardly_grows_with_their_number(tiny):
    """Bytes that autograd keeps for the backward pass, inputs left out."""

    def kept(n_steps: int) -> int:
        model = module(tiny.info(), checkpoint_steps=True).train()
        window = model.built.window(batch_of(tiny))
        long = Window(
            window.states, window.targets[:, :1].repeat(1, n_steps, 1, 1, 1),
            window.forcing[:, :1].repeat(1, n_steps, 1, 1, 1), None,
        )  # fmt: skip
        known = {t.untyped_storage().data_ptr() for t in (long.states, long.targets, long.forcing)}
        sizes: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(long)
        return sum(sizes.values())

    state = 2 * 24 * 32 * 5 * 4
    one, eight = kept(1), kept(8)
    # a state per step, instead of the activations of all layers
    assert eight - one <= 7 * 3 * state


def test_intermediate_steps_call_the_network_more_often(tiny):
    model = module(tiny.info(), inter_steps=InterSteps(3))
    calls = []
    model.built.network.register_forward_hook(lambda *_: calls.append(1))
    assert forecast(model, batch_of(tiny)).shape[1] == 3
    assert len(calls) == 9


def test_states_stay_in_full_precision_under_autocast(tiny):
    model = module(tiny.info())
    window = model.built.window(batch_of(tiny))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        low = model(window)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, forecast(model, batch_of(tiny)), rtol=0.05, atol=0.05)


class TestCurriculum:
    def test_steps_by_epoch(self):
        curriculum = RolloutCurriculum(start=1, every_n_epochs=2, increment=2, maximum=4)
        assert [curriculum.steps(epoch) for epoch in range(7)] == [1, 1, 3, 3, 4, 4, 4]

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"start": 0}, r"rollout\.start must be at least 1, not 0"),
            ({"every_n_epochs": 0}, r"rollout\.every_n_epochs must be at least 1"),
            ({"start": 3, "maximum": 2}, r"rollout\.maximum 2 is below rollout\.start 3"),
        ],
    )
    def test_bad_settings(self, settings, message):
        with pytest.raises(InputError, match=message):
            RolloutCurriculum(**settings)


@torch.no_grad()
@pytest.mark.parametrize("strategy", ["scaled_ar", "diff_ar"])
def test_forecasts_are_physical_outside_training(tiny, strategy):
    info, batch = tiny.info(), batch_of(tiny)
    rain = info.outputs.index("aro_tp_0m")
    model = module(info, strategy=strategy)
    for parameter in model.built.network.parameters():  # whatever comes in: less rain than there is
        parameter.fill_(-0.3)
    inside = info.border == 0
    physical = model.built.physical(forecast(model, batch))[..., rain]
    assert physical.min() > -1e-5
    assert (physical[:, :, inside].abs() < 1e-5).all()
    free = module(info, strategy=strategy, clip_forecasts=False)
    free.load_state_dict(model.state_dict())
    assert free.built.physical(forecast(free, batch))[..., rain].min() < -0.1
    training = model.train().built.distribution(model.built.window(batch))[0]
    assert model.built.physical(training)[..., rain].min() < -0.1
