import pytest
import torch
import xarray as xr

from ai4sim.errors import InputError
from ai4sim.verification import crps, ensemble_statistics, ssr
from downscaling.corrdiff.probe import Probe, ProbeSums, probe_scores


def test_scores_are_those_of_the_verification():
    members, target = torch.randn(3, 4, 2, 5, 6).double(), torch.randn(3, 2, 5, 6).double()
    sums = ProbeSums(2)
    for start in range(3):
        sums.add(members[start : start + 1], target[start : start + 1])
    scores, ratios = probe_scores(sums.values, 4)
    for channel in range(2):
        own = ensemble_statistics(
            xr.DataArray(members[:, :, channel].numpy(), dims=("sample", "member", "y", "x")),
            xr.DataArray(target[:, channel].numpy(), dims=("sample", "y", "x")),
            reduce=("sample", "y", "x"),
        )
        assert float(scores[channel]) == pytest.approx(float(crps(own)), rel=1e-10)
        assert float(ratios[channel]) == pytest.approx(float(ssr(own)), rel=1e-10)


def test_too_little_spread_is_seen():
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(40, 1, 16, 16, generator=generator)
    members = 0.8 * torch.randn(40, 8, 1, 16, 16, generator=generator)
    sums = ProbeSums(1)
    sums.add(members, truth)
    _, ratio = probe_scores(sums.values, 8)
    # spread 0.8; error of the mean of 8 members sqrt(1 + 0.64 / 8)
    assert float(ratio) == pytest.approx(0.8 * (9 / 8) ** 0.5 / 1.08**0.5, rel=0.02)


def test_when_it_is_due():
    probe = Probe(every=3)
    assert [epoch for epoch in range(7) if probe.is_due(epoch, last=epoch == 6)] == [2, 5, 6]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pairs": 0}, "model.probe.pairs is 0; expected at least 1"),
        ({"members": 1}, "model.probe.members is 1; expected at least 2"),
        ({"every": 0}, "model.probe.every is 0; expected at least 1"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(InputError, match=message):
        Probe(**settings)
