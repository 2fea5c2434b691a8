"""The diffusion of what a regression leaves: noise, denoiser, losses, patches, samplers. Bare PyTorch."""

from downscaling.corrdiff.diffusion.autocorrelation import autocorrelation, first_zero_crossing
from downscaling.corrdiff.diffusion.closed_form import sampled_std, spread_gain, step_error
from downscaling.corrdiff.diffusion.losses import LossMaps, RegressionLoss, diffusion_loss, squared_error
from downscaling.corrdiff.diffusion.member_noise import MemberNoise, generator_of
from downscaling.corrdiff.diffusion.network_inputs import join_channels, overview_of
from downscaling.corrdiff.diffusion.noise_levels import LogNormal, LogUniform, NoiseLevels
from downscaling.corrdiff.diffusion.patched import PatchedDenoiser, Tiles
from downscaling.corrdiff.diffusion.preconditioning import Denoiser, Edm
from downscaling.corrdiff.diffusion.random_patches import Patches, RandomPatches
from downscaling.corrdiff.diffusion.regression import Regressor
from downscaling.corrdiff.diffusion.residual_scale import ResidualScale
from downscaling.corrdiff.diffusion.sampler_report import Band, SamplerReport, octave_of, residual_modes, sampler_report
from downscaling.corrdiff.diffusion.samplers import Denoise, DpmSolver2M, EulerSampler, HeunSampler, Noise, Sampler
from downscaling.corrdiff.diffusion.schedule import Schedule
from downscaling.corrdiff.diffusion.uncertainty import Uncertainty

__all__ = [
    "Band",
    "Denoise",
    "Denoiser",
    "DpmSolver2M",
    "Edm",
    "EulerSampler",
    "HeunSampler",
    "LogNormal",
    "LogUniform",
    "LossMaps",
    "MemberNoise",
    "Noise",
    "NoiseLevels",
    "PatchedDenoiser",
    "Patches",
    "RandomPatches",
    "RegressionLoss",
    "Regressor",
    "ResidualScale",
    "Sampler",
    "SamplerReport",
    "Schedule",
    "Tiles",
    "Uncertainty",
    "autocorrelation",
    "diffusion_loss",
    "first_zero_crossing",
    "generator_of",
    "join_channels",
    "octave_of",
    "overview_of",
    "residual_modes",
    "sampled_std",
    "sampler_report",
    "spread_gain",
    "squared_error",
    "step_error",
]
