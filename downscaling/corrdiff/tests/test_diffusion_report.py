"""What is known of a residual before it is sampled: its spectrum, and the spread that a sampler gives it."""

import math

import pytest
import torch

from ai4sim.errors import InputError
from downscaling.corrdiff.diffusion import (
    EulerSampler,
    HeunSampler,
    Schedule,
    autocorrelation,
    first_zero_crossing,
    octave_of,
    residual_modes,
    sampler_report,
    spread_gain,
)

GOOD = HeunSampler(Schedule(24, 0.002, 60.0, 7.0))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_modes_of_white_noise_are_one():
    std, wavelengths = residual_modes(torch.randn(400, 2, 16, 24), 3.0)
    assert std.shape == (2, 16 * 24)
    assert std.mean().item() == pytest.approx(1, abs=0.02)
    assert (std - 1).abs().max() < 0.3
    assert math.isinf(wavelengths[0])
    assert wavelengths.min().item() == pytest.approx(3 * math.sqrt(2))
    assert wavelengths[1].item() == pytest.approx(24 * 3)
    assert wavelengths[24].item() == pytest.approx(16 * 3)


def test_a_constant_is_the_mode_of_the_mean():
    std, _ = residual_modes(torch.full((3, 1, 16, 16), 0.5), 1.0)
    assert std[0, 0].item() == pytest.approx(0.5 * 16)
    assert std[0, 1:].abs().max() < 1e-12


def test_report_gives_the_gain_of_every_band():
    wavelengths = torch.tensor([math.inf, 100.0, 10.0, 7.0])
    std = torch.tensor([[4.0, 2.0, 0.5, 0.1], [1.0, 1.0, 0.2, 0.0]])
    sampler = HeunSampler(Schedule(18, 0.02, 20, 7))
    report = sampler_report(std, wavelengths, sampler, ["2t", "tp"])
    bands = {(band.channel, band.name): band for band in report.bands}
    gains = spread_gain(sampler, torch.tensor([4.0, 2.0, 0.5, 0.1]))
    assert bands["2t", "domain mean"].gain == pytest.approx(gains[0].item(), abs=1e-4)
    assert bands["2t", "56-112 km"].gain == pytest.approx(gains[1].item(), abs=1e-4)
    # two modes in a band: the ratio of their variances
    expected = math.sqrt(((gains[2] * 0.5) ** 2 + (gains[3] * 0.1) ** 2) / (0.5**2 + 0.1**2))
    assert bands["2t", "7-14 km"].gain == pytest.approx(expected, abs=1e-4)
    assert bands["2t", "7-14 km"].std == pytest.approx(math.sqrt((0.5**2 + 0.1**2) / 2))
    assert ("tp", "7-14 km") in bands
    assert report.warnings == ()
    assert "domain mean" in str(report)
    assert len(str(report).splitlines()) == 1 + len(report.bands)


def test_octaves_begin_with_the_finest_wave():
    wavelengths = torch.tensor([4.2, 6.0, 8.5, 12.0, 12.1, 24.0, 192.0, 200.0, math.inf])
    assert octave_of(wavelengths, 6.0).tolist() == [0, 0, 0, 0, 1, 1, 4, 5, math.inf]
    report = sampler_report(torch.ones(1, 9), wavelengths, GOOD, finest=6.0, units="points")
    names = ["6-12 points", "12-24 points", "96-192 points", "192-384 points", "domain mean"]
    assert [band.name for band in report.bands] == names


def test_report_warns_of_what_is_wrong_and_says_what_to_do():
    wavelengths, std = torch.tensor([math.inf, 100.0, 7.0]), torch.tensor([[12.0, 1.0, 0.02]])
    report = sampler_report(std, wavelengths, HeunSampler(Schedule(18, 0.02, 20, 7)), ["2t"])
    assert [band.name for band in report.bands if band.wrong] == ["7-14 km", "domain mean"]
    assert report.warnings[0] == "2t, 7-14 km: samples have 74% of the residual's standard deviation"
    assert report.warnings[1] == "2t, domain mean: samples have 86% of the residual's standard deviation"
    assert (
        "sigma_max 20 is below 5 times the largest mode of 2t, of standard deviation 12: take 60" in report.warnings[2]
    )
    assert "sigma_min 0.02 is above a third of the standard deviation 0.02 of 2t at 7-14 km" in report.warnings[3]
    assert "take 0.0067 or less" in report.warnings[3]
    assert " !" in str(report).splitlines()[1]
    assert "!: the spread is off by more than 10%" in str(report).splitlines()
    assert report.warnings[0] not in str(report)
    # and what is advised helps
    assert not sampler_report(std, wavelengths, HeunSampler(Schedule(40, 0.006, 60, 7))).warnings


def test_report_of_few_steps():
    std, wavelengths = torch.tensor([[0.5]]), torch.tensor([10.0])
    report = sampler_report(std, wavelengths, EulerSampler(Schedule(9, 0.002, 80, 7)))
    assert report.bands[0].gain == pytest.approx(0.699, abs=1e-3)
    assert report.warnings == ("0, 10-20 km: samples have 70% of the residual's standard deviation",)


@pytest.mark.parametrize(
    ("std", "wavelengths", "names", "message"),
    [
        (torch.ones(3), torch.ones(3), [], r"modes have the shape \(3,\), their wavelengths \(3,\)"),
        (torch.ones(1, 3), torch.ones(4), [], r"expected \(C, n\) and \(n,\)"),
        (torch.ones(1, 3), torch.ones(3), ["a", "b"], "2 names for 1 channels"),
        (torch.zeros(1, 3), torch.ones(3), ["tp"], "the residual of tp is not finite, or is 0 everywhere"),
        (torch.full((1, 3), math.nan), torch.ones(3), ["tp"], "the residual of tp is not finite"),
    ],
)
def test_report_checks_its_input(std, wavelengths, names, message):
    with pytest.raises(InputError, match=message):
        sampler_report(std, wavelengths, GOOD, names)


def test_autocorrelation_of_a_wave_and_of_white_noise():
    x = 2 * torch.pi * 3 * torch.arange(48) / 48
    wave = x.cos().expand(5, 2, 20, 48) + 7
    correlation = autocorrelation(wave, -1)
    assert correlation.shape == (2, 25)
    torch.testing.assert_close(correlation[0], x[:25].cos().double(), rtol=0, atol=1e-6)
    assert first_zero_crossing(correlation[0]) == pytest.approx(48 / 3 / 4)
    torch.testing.assert_close(autocorrelation(wave.mT, -2), correlation)
    white = autocorrelation(torch.randn(50, 1, 32, 32), -1)[0]
    assert white[0] == 1
    assert white[1:].abs().max() < 0.06
    assert first_zero_crossing(torch.tensor([1.0, 0.5, 0.2])) == math.inf
    assert first_zero_crossing(torch.tensor([1.0, 0.5, -0.5])) == 1.5
