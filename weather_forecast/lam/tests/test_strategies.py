"""How outputs become states: drift, boundary, substeps, bounds."""

import pytest
import torch
from torch import Tensor

from ai4sim.errors import InputError
from weather_forecast.lam.borders import border_weights
from weather_forecast.lam.bounds import Bounds
from weather_forecast.lam.strategies import Change, DiffAR, DownscalingOnly, InterSteps, ScaledAR, make_strategy

SHAPE = (8, 10)
CHANGE = Change(torch.tensor([0.1, -0.2, 0.3]), torch.tensor([0.5, 0.25, 2.0]))


def silent(state: Tensor) -> Tensor:
    return torch.zeros_like(state)


def fields(seed: int = 0) -> Tensor:
    return torch.randn(2, *SHAPE, 3, generator=torch.Generator().manual_seed(seed))


def border(size: int = 2, treatment: str = "hard") -> Tensor:
    return torch.from_numpy(border_weights(SHAPE, size, treatment))[..., None]


def forecast(strategy: ScaledAR, boundaries: list[Tensor], weights: Tensor | None = None) -> list[Tensor]:
    state, states = fields(), []
    for outside in boundaries:
        state = strategy.step(silent, state, outside, border() if weights is None else weights, CHANGE)
        states.append(state)
    return states


def test_a_silent_network_drifts_inside_and_takes_the_boundary_bit_for_bit():
    boundaries = [fields(seed) for seed in (1, 2, 3)]
    states = forecast(ScaledAR(), boundaries)
    inside = border()[..., 0] == 0
    for n, (state, outside) in enumerate(zip(states, boundaries, strict=True), start=1):
        torch.testing.assert_close(state[:, inside], fields()[:, inside] + n * CHANGE.mean)
        assert torch.equal(state[:, ~inside], outside[:, ~inside])


def test_substeps_of_a_silent_network_add_up_to_the_whole_step():
    boundaries = [fields(seed) for seed in (1, 2)]
    one, four = (forecast(ScaledAR(InterSteps(n)), boundaries) for n in (1, 4))
    torch.testing.assert_close(one, four, rtol=1e-6, atol=1e-6)


def test_hold_and_full_repeat_the_reference_drift():
    boundaries = [fields(seed) for seed in (1, 2, 3)]
    states = forecast(ScaledAR(InterSteps(4, boundary="hold", scale="full")), boundaries)
    inside = border()[..., 0] == 0
    for n, state in enumerate(states, start=1):
        torch.testing.assert_close(state[:, inside], fields()[:, inside] + 4 * n * CHANGE.mean, rtol=1e-5, atol=1e-5)


def test_the_boundary_goes_linearly_from_state_to_state_between_substeps():
    seen = []

    def network(state: Tensor) -> Tensor:
        seen.append(state)
        return silent(state)

    start, outside = fields(), fields(1)
    ScaledAR(InterSteps(4)).step(network, start, outside, border(), CHANGE)
    edge = border()[..., 0] == 1
    for k, state in enumerate(seen):
        torch.testing.assert_close(state[:, edge], (start + k / 4 * (outside - start))[:, edge])


def test_davies_relaxation_blends_with_the_squared_cosine():
    weights = border(3, "davies")
    assert weights[0, 0] == 1
    assert weights[1, 5].item() == pytest.approx(0.75)  # cos2(pi/6)
    assert weights[2, 5].item() == pytest.approx(0.25)
    assert weights[3, 5] == 0
    outside = fields(1)
    (state,) = forecast(ScaledAR(), [outside], weights=weights)
    free = fields() + CHANGE.mean
    torch.testing.assert_close(state, weights * outside + (1 - weights) * free)


def test_no_boundary_means_no_border():
    state = ScaledAR().step(silent, fields(), None, border(), CHANGE)
    torch.testing.assert_close(state, fields() + CHANGE.mean)


def test_scaled_outputs_are_in_units_of_the_usual_change():
    state = ScaledAR().step(torch.ones_like, fields(), None, border(), CHANGE)
    torch.testing.assert_close(state, fields() + CHANGE.std + CHANGE.mean)


def test_diff_ar_adds_the_output_and_nothing_else():
    state = DiffAR().step(torch.ones_like, fields(), fields(1), border(), CHANGE)
    torch.testing.assert_close(state, fields() + 1)


def test_downscaling_corrects_the_host_without_seeing_the_state():
    seen = []

    def network(state: Tensor) -> Tensor:
        seen.append(state)
        return torch.ones_like(state)

    state = DownscalingOnly().step(network, fields(), fields(1), border(), CHANGE)
    torch.testing.assert_close(state, fields(1) + 1)
    assert not seen[0].any()
    with pytest.raises(InputError, match="needs the host's fields"):
        DownscalingOnly().step(network, fields(), None, border(), CHANGE)


@pytest.mark.parametrize(
    ("name", "number", "n_inputs", "message"),
    [
        ("diff_ar", 2, 1, "diff_ar makes one call of the network per step, not 2"),
        ("downscaling_only", 2, 1, "downscaling_only makes one call"),
        ("scaled_ar", 2, 2, r"inter_steps.number 2 needs a single input state, not 2"),
        ("scaled", 1, 1, "strategy 'scaled' is unknown; choose one of scaled_ar, diff_ar, downscaling_only"),
    ],
)
def test_impossible_combinations(name, number, n_inputs, message):
    with pytest.raises(InputError, match=message):
        make_strategy(name, InterSteps(number), n_inputs)


def test_steps_must_be_positive():
    with pytest.raises(InputError, match=r"inter_steps.number must be at least 1, not 0"):
        InterSteps(0)


class TestBorders:
    def test_hard_border_is_a_frame(self):
        weights = border_weights((6, 9), 2)
        assert weights.sum() == 6 * 9 - 2 * 5
        assert not weights[2:4, 2:7].any()
        assert not border_weights((6, 9), 0).any()

    @pytest.mark.parametrize("size", [-1, 3, 10])
    def test_what_leaves_no_interior(self, size):
        with pytest.raises(
            InputError, match=f"border_size {size} leaves no interior in a grid of 6 rows and 9 columns"
        ):
            border_weights((6, 9), size)

    def test_unknown_treatment(self):
        with pytest.raises(InputError, match="border treatment 'soft' is unknown; choose hard or davies"):
            border_weights((6, 9), 1, "soft")


class TestBounds:
    MEAN, STD = torch.tensor([280.0, 60.0, 0.5]), torch.tensor([10.0, 20.0, 1.0])
    NAMES = ("aro_t2m_2m", "aro_r2_2m", "aro_tp_0m")

    def made(self) -> Bounds:
        bounds = Bounds(self.NAMES, {"aro_r2_2m": (0.0, 100.0), "aro_tp_0m": (0.0, None)})
        bounds.build(self.MEAN, self.STD)
        return bounds

    def test_bounded_features_stay_within_whatever_the_change(self):
        state = (torch.tensor([[250.0, 3.0, 0.0], [290.0, 97.0, 4.0]]) - self.MEAN) / self.STD
        for size in (-50.0, -1.0, 0.0, 1.0, 50.0):
            result = self.made()(state, torch.full_like(state, size)) * self.STD + self.MEAN
            assert (result[:, 1] >= -1e-3).all()
            assert (result[:, 1] <= 100.001).all()
            assert (result[:, 2] >= -1e-3).all()
            torch.testing.assert_close(result[:, 0], state[:, 0] * 10 + 280 + 10 * size)

    def test_no_change_changes_nothing_and_small_ones_are_taken_as_they_are_in_the_middle(self):
        state = (torch.tensor([[280.0, 50.0, 20.0]]) - self.MEAN) / self.STD
        torch.testing.assert_close(self.made()(state, torch.zeros_like(state)), state, rtol=1e-5, atol=1e-5)
        change = torch.full_like(state, 0.01)
        torch.testing.assert_close(self.made()(state, change) - state, change, rtol=1e-2, atol=1e-4)

    def test_gradients_are_finite_at_the_bound(self):
        state = ((torch.tensor([[280.0, 0.0, 0.0]]) - self.MEAN) / self.STD).requires_grad_()
        change = torch.zeros_like(state, requires_grad=True)
        self.made()(state, change).sum().backward()
        assert torch.isfinite(state.grad).all()
        assert torch.isfinite(change.grad).all()

    @pytest.mark.parametrize(
        ("bounds", "message"),
        [
            ({"aro_q_2m": (0.0, None)}, "bounds are given for 'aro_q_2m', which is not forecast"),
            ({"aro_r2_2m": (None, 100.0)}, "give a lower one"),
            ({"aro_r2_2m": (5.0, 5.0)}, "give a lower one and maybe a larger upper"),
        ],
    )
    def test_bad_bounds(self, bounds, message):
        with pytest.raises(InputError, match=message):
            Bounds(self.NAMES, bounds)
