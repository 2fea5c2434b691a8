"""What a sampler makes of normally distributed images, for which the denoiser is known.

If the image is N(0, a²), the denoiser is D(x; s) = x a² / (a² + s²), and the exact way from the noise level smax to 0
multiplies by a / sqrt(a² + smax²). The denoiser is linear, so a sampler is, too: the same holds for every orthonormal
Fourier mode of a homogeneous normal field, with the mode's standard deviation as a.
"""

import torch
from torch import Tensor

from downscaling.corrdiff.diffusion.samplers import Sampler


class _Impulses:
    """In place of random numbers: draw k is 1 in channel k, and 0 in all others."""

    def __init__(self, n_draws: int, n_modes: int) -> None:
        self._shape, self._drawn = (1, n_draws, n_modes, 1), 0

    def draw(self) -> Tensor:
        result = torch.zeros(self._shape, dtype=torch.float64)
        result[:, self._drawn] = 1
        self._drawn += 1
        return result


def sampled_std(sampler: Sampler, std: Tensor) -> Tensor:
    """Standard deviation of a sampler's samples of normal modes.

    It is exact: the sample is a sum of the random numbers that are drawn, whose factors are found one by one.

    Args:
        sampler: whose first noise has the standard deviation sigma_max.
        std: (n,) true standard deviation of every mode, above 0.

    Returns:
        (n,) in float64.
    """
    variance = std.double().square().reshape(1, 1, -1, 1)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return x * variance / (variance + sigma.reshape(-1, 1, 1, 1).square())

    # one at first, and at most one at every step
    impulses = _Impulses(sampler.schedule.num_steps + 1, std.numel())
    factors = sampler.sample(denoise, impulses)[0, :, :, 0]
    return factors.double().square().sum(0).sqrt()


def spread_gain(sampler: Sampler, std: Tensor) -> Tensor:
    """Filter g(a) = std of samples / a of a sampler, with all its errors: of the steps, and of both ends.

    Args:
        sampler: to be judged.
        std: (n,) standard deviation a of every mode.

    Returns:
        (n,) in float64; below 1 samples have too little spread.
    """
    return sampled_std(sampler, std) / std.double()


def step_error(sampler: Sampler, std: Tensor) -> Tensor:
    """Ratio (n,) of a deterministic sampler's result to the exact one from the same first noise.

    Args:
        sampler: to be judged.
        std: (n,) standard deviation a of every mode.
    """
    exact = (1 + (std.double() / sampler.schedule.sigma_max).square()).rsqrt()
    return spread_gain(sampler, std) / exact
