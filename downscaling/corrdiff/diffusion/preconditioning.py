"""A denoiser whose network sees and gives values of order one at all noise levels.

Karras et al. 2022, "Elucidating the design space of diffusion-based generative models", NeurIPS, Section 5 and Table 1;
with Student-t noise Pandey et al. 2024, "Heavy-tailed diffusion models", arXiv 2410.14171.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ai4sim.errors import InputError
from downscaling.corrdiff.config import SIGMA_DATA
from downscaling.corrdiff.diffusion.student import chi_square, require_variance


@dataclass(frozen=True)
class Edm:
    """What noise is, and how it is weighed: one object for the loss, the denoiser and the checkpoint.

    Noise levels s are the scale of the noise. It is s z, with normal z, or s z / sqrt(kappa) with kappa ~ chi²(nu)/nu,
    one for each image. Its standard deviation s' is s, or s sqrt(nu / (nu - 2)); all coefficients are functions of s'.

    Args:
        sigma_data: standard deviation of what is denoised.
        nu: degrees of freedom of Student-t noise, above 2; by default the noise is normal.
        noise_scale: factor on the network's label of the noise level: 1 for that of Karras et al. A sinusoidal
            embedding made for step numbers up to 1000 tells noise levels apart better with 1000.

    Raises:
        InputError: a sigma_data or noise_scale that is not above 0, or a nu that is not above 2.
    """

    sigma_data: float = SIGMA_DATA
    nu: float | None = None
    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("sigma_data", self.sigma_data), ("noise_scale", self.noise_scale)):
            if not 0 < value < math.inf:
                raise InputError(f"{name} is {value:g}; expected above 0")
        require_variance(self.nu)

    def spread(self, sigma: Tensor) -> Tensor:
        """Standard deviation s' of the noise, as a new tensor if it is not s."""
        return sigma if self.nu is None else sigma * math.sqrt(self.nu / (self.nu - 2))

    def c_skip(self, sigma: Tensor) -> Tensor:
        """Share of the noisy image in the result, sd² / (s'² + sd²): 1 without noise, 0 with much."""
        return self.sigma_data**2 / self._variance(sigma)

    def c_out(self, sigma: Tensor) -> Tensor:
        """Scale of the network's output, s' sd / sqrt(s'² + sd²): 0 without noise, sd with much."""
        return self.spread(sigma) * self.sigma_data * self._variance(sigma).rsqrt()

    def c_in(self, sigma: Tensor) -> Tensor:
        """Scale of the noisy image that makes its variance 1, 1 / sqrt(s'² + sd²)."""
        return self._variance(sigma).rsqrt()

    def c_noise(self, sigma: Tensor) -> Tensor:
        """The network's label of the noise level, noise_scale ln(s') / 4."""
        return self.spread(sigma).log() * (self.noise_scale / 4)

    def weight(self, sigma: Tensor) -> Tensor:
        """Weight of the squared error, 1 / c_out²: a network that gives 0 has a loss of 1 at all noise levels."""
        return self._variance(sigma) / (self.spread(sigma) * self.sigma_data).square()

    def noise(self, sigma: Tensor, shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
        """Noise for images.

        Args:
            sigma: (B,) noise level of each.
            shape: (B, C, H, W).
            generator: of the device of ``sigma``.

        Returns:
            (B, C, H, W) in the type of ``sigma``.
        """
        noise = torch.randn(tuple(shape), generator=generator, device=sigma.device, dtype=sigma.dtype)
        scale = sigma
        if self.nu is not None:
            kappa = chi_square(self.nu, len(sigma), generator, sigma.device) / self.nu
            scale = sigma * kappa.rsqrt().to(sigma.dtype)
        return noise.mul_(per_image(scale))

    def _variance(self, sigma: Tensor) -> Tensor:
        return self.spread(sigma).square() + self.sigma_data**2


def per_image(values: Tensor) -> Tensor:
    """(B,) as (B, 1, 1, 1)."""
    return values.reshape(-1, 1, 1, 1)


class Denoiser(nn.Module):
    """Expected image D(x; s, c), given the noisy one: c_skip x + c_out F([c_in x, c]; c_noise).

    Args:
        network: F, maps images (B, C + conditions, H, W) and labels of noise levels (B,) to images (B, C, H, W).
        edm: the coefficients.
    """

    def __init__(self, network: Callable[..., Tensor], edm: Edm) -> None:
        super().__init__()
        self.network, self.edm = network, edm

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None, **extras: Any) -> Tensor:
        """Denoise images.

        Args:
            x: (B, C, H, W), noisy.
            sigma: (B,) noise level of each.
            condition: (B, conditions, H, W), what the network is given beside; it is not scaled.
            extras: for the network, by name.

        Returns:
            (B, C, H, W) in float32, in whatever precision the network computes.

        Raises:
            ValueError: the network gives another shape.
        """
        x, sigma = x.float(), sigma.float()
        given = per_image(self.edm.c_in(sigma)) * x
        if condition is not None:
            given = torch.cat([given, condition.to(given.dtype)], dim=1)
        output = self.network(given, self.edm.c_noise(sigma), **extras)
        if output.shape != x.shape:
            raise ValueError(f"the network gave the shape {tuple(output.shape)} for images {tuple(x.shape)}")
        return per_image(self.edm.c_skip(sigma)) * x + per_image(self.edm.c_out(sigma)) * output.float()
