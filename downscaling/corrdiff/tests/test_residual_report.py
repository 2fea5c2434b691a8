"""What the regression leaves: correlations, and what a sampler makes of scales."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ai4sim.errors import InputError
from ai4sim.tests.command_line import QUIET, message_of
from downscaling.corrdiff import trainer
from downscaling.corrdiff.diffusion import HeunSampler, autocorrelation
from downscaling.corrdiff.residual_report import correlations, crossing_table, patch_size
from downscaling.corrdiff.survey import ScaleSurvey, Surveyor
from downscaling.corrdiff.tests.runs import checkpoint_of, fit, settings, write


def residuals(fields, size=3):
    for part in fields.split(size):
        yield part, torch.isfinite(part)


def waves() -> torch.Tensor:
    """A wave of 16 points along x and 32 along y, at random phases."""
    random = np.random.default_rng(0)
    phases = torch.from_numpy(random.uniform(0, 2 * np.pi, (7, 2, 1, 1)))
    along = torch.arange(32.0).double() * 2 * np.pi
    return torch.cos(along / 16 + phases)[:, None, 0] * torch.cos(along[:, None] / 32 + phases[:, 1:2])


def test_waves_are_uncorrelated_after_a_quarter():
    along_x, along_y = correlations(residuals(waves()))
    lags = torch.arange(17.0).double() * 2 * np.pi
    torch.testing.assert_close(along_x[0], torch.cos(lags / 16))
    torch.testing.assert_close(along_y[0], torch.cos(lags / 32))
    assert patch_size(along_x, along_y) == "a patch must hold 8 x 4 points or more"


def test_batches_together_are_all_at_once():
    fields = torch.randn(7, 3, 12, 16, generator=torch.Generator().manual_seed(0)).double()
    for found, dim in zip(correlations(residuals(fields)), (-1, -2), strict=True):
        torch.testing.assert_close(found, autocorrelation(fields, dim))


def test_pairs_with_gaps_are_left_out():
    fields = waves()
    broken = fields.clone()
    broken[1, 0, 3, 3] = np.nan
    kept = torch.cat([fields[:1], fields[2:]])
    torch.testing.assert_close(correlations(residuals(broken))[0], correlations(residuals(kept))[0])
    with pytest.raises(InputError, match="all training pairs that were read have missing values"):
        correlations(residuals(torch.full((2, 1, 8, 8), np.nan)))


def surveyed(fields: torch.Tensor, spacing_km: float) -> ScaleSurvey:
    surveyor = Surveyor(spacing_km)
    for _ in surveyor.watch(residuals(fields)):
        pass
    survey = surveyor.result(torch.ones(fields.shape[1], 1, 1))
    assert survey is not None
    return survey


class TestSurvey:
    def test_bands_are_octaves_from_two_points_on(self):
        noise = torch.randn(300, 1, 32, 32, generator=torch.Generator().manual_seed(0))
        report = surveyed(noise, 3.0).report(HeunSampler(), ["2t"])
        names = ["domain mean", "6-12 km", "12-24 km", "24-48 km", "48-96 km"]
        assert sorted(band.name for band in report.bands) == sorted(names)
        # white noise has 1 in all
        assert all(band.std == pytest.approx(1, abs=0.1) for band in report.bands)

    @pytest.mark.parametrize(("length", "name"), [(2, "2-4"), (4, "2-4"), (8, "4-8"), (16, "8-16"), (32, "16-32")])
    def test_a_wave_is_in_the_band_that_it_ends(self, length, name):
        wave = torch.cos(torch.arange(32.0).double() * 2 * np.pi / length).expand(3, 1, 32, 32)
        report = surveyed(wave, float("nan")).report(HeunSampler(), ["2t"])
        assert max(report.bands, key=lambda band: band.std).name == f"{name} points"

    def test_of_a_checkpoint(self):
        noise = torch.randn(4, 2, 16, 16, generator=torch.Generator().manual_seed(0))
        survey = surveyed(noise, 3.0)
        again = ScaleSurvey.from_dict(survey.to_dict())
        assert again.report(HeunSampler(), ["u", "v"]) == survey.report(HeunSampler(), ["u", "v"])


def test_what_never_falls_to_zero():
    slow = torch.ones(1, 5)
    assert "more than half of the domain" in patch_size(slow, slow)


@pytest.fixture(scope="module")
def checkpoints(tiny_data, tmp_path_factory):
    """Checkpoints and configurations of a regression and a diffusion of hardly any training."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AI4SIM_DATA", str(tiny_data))
        patch.setenv("AI4SIM_EXPERIMENTS", str(folder))
        regression = write(folder, settings("Regression", 4), "regression")
        first = checkpoint_of(fit(regression))
        diffusion = write(folder, settings("ResidualDiffusion", 4, regression=str(first)), "diffusion")
        second = checkpoint_of(fit(diffusion))
    return {"regression": (regression, first), "diffusion": (diffusion, second)}


@pytest.mark.parametrize("kind", ["regression", "diffusion"])
def test_acf_says_what_a_patch_must_hold(checkpoints, tiny_data, capsys, kind):
    config, checkpoint = checkpoints[kind]
    trainer.main(["acf", "--config", config, "--ckpt_path", str(checkpoint), "--pairs", "6", *QUIET])
    printed = capsys.readouterr().out
    assert "first zero of the residual's autocorrelation" in printed
    for name in ("10u", "10v", "2t", "tp"):
        (row,) = (line for line in printed.splitlines() if f"│ {name} " in line)
        px, km = (float(cell) for cell in row.split("│")[2:4])
        assert km == pytest.approx(3 * px, abs=0.2)
    assert "a patch must hold" in printed


def test_the_sampler_report_takes_another_sampler(checkpoints, tiny_data, capsys):
    config, checkpoint = checkpoints["diffusion"]
    few, many = "3", "40"
    assert f"num_steps: {few}" in Path(config).read_text()
    words = ["sampler_report", "--config", config, "--ckpt_path", str(checkpoint), *QUIET]
    trainer.main([*words, "--model.init_args.sampler.init_args.schedule.num_steps", many])
    printed = capsys.readouterr().out
    assert f"num_steps: the checkpoint has {few}, the command line {many}" in printed
    lines = [line.split() for line in printed.splitlines() if " km " in line and line.startswith(("10u", "2t"))]
    assert len(lines) > 4
    # so many steps give all scales their spread
    assert all(abs(float(gain) - 1) < 0.1 for *_, gain in lines)


def test_a_regression_has_no_sampler(checkpoints, tiny_data, capsys):
    config, checkpoint = checkpoints["regression"]
    words = ["sampler_report", "--config", config, "--ckpt_path", str(checkpoint)]
    assert "is of a RegressionModule, which has no sampler" in message_of(trainer.main, capsys, *words)


def test_a_table_without_spacing(data):
    known = data.contract.__class__.from_dict(data.contract.to_dict() | {"spacing_km": float("nan")})
    along = torch.linspace(1, -1, 9).expand(4, 9)
    columns = crossing_table(along, along, known).columns
    assert list(columns[1].cells) == ["4.0"] * 4
    assert list(columns[2].cells) == ["–"] * 4
