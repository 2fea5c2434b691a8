"""Which noise levels a denoiser is trained with."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ai4sim.errors import InputError
from downscaling.corrdiff.diffusion.student import Device


class NoiseLevels(ABC):
    """A distribution of noise levels. Subclasses are chosen in the configuration."""

    @abstractmethod
    def quantile(self, probability: Tensor) -> Tensor:
        """Noise levels below which a share of all lie, in the shape and type of ``probability``, within (0, 1)."""

    def sample(self, n: int, generator: torch.Generator | None = None, device: Device | None = None) -> Tensor:
        """Noise levels at random.

        Args:
            n: how many.
            generator: of the device.
            device: where they are drawn.

        Returns:
            (n,) in float32.
        """
        # float32 has numbers that are 0, where a normal distribution's level would be 0, too
        uniform = torch.rand(n, generator=generator, device=device, dtype=torch.float32)
        return self.quantile(uniform.clamp(min=2**-25))

    def quantiles(self, bins: int = 8) -> Tensor:
        """Edges (bins - 1,), in float64, between bins that are equally probable."""
        return self.quantile(torch.arange(1, bins, dtype=torch.float64) / bins)

    def bin_of(self, sigma: Tensor, bins: int = 8) -> Tensor:
        """Number, from 0, of the equally probable bin that each noise level (n,) is in."""
        return torch.bucketize(sigma.double(), self.quantiles(bins).to(sigma.device))


@dataclass(frozen=True)
class LogNormal(NoiseLevels):
    """The logarithm of the noise level is normal (Karras et al. 2022, Table 1: -1.2 and 1.2 for images).

    Args:
        p_mean: its mean.
        p_std: its standard deviation.

    Raises:
        InputError: a standard deviation that is not above 0.
    """

    p_mean: float = 0.0
    p_std: float = 1.2

    def __post_init__(self) -> None:
        if not 0 < self.p_std < math.inf or not math.isfinite(self.p_mean):
            raise InputError(f"p_mean and p_std are {self.p_mean:g} and {self.p_std:g}; expected a p_std above 0")

    def quantile(self, probability: Tensor) -> Tensor:
        """See `NoiseLevels.quantile`."""
        return torch.exp(self.p_mean + self.p_std * torch.special.ndtri(probability))


@dataclass(frozen=True)
class LogUniform(NoiseLevels):
    """The logarithm of the noise level is uniform.

    Args:
        s_min: smallest noise level.
        s_max: largest.

    Raises:
        InputError: unless 0 < s_min < s_max.
    """

    s_min: float = 0.02
    s_max: float = 80.0

    def __post_init__(self) -> None:
        if not 0 < self.s_min < self.s_max < math.inf:
            raise InputError(f"s_min and s_max are {self.s_min:g} and {self.s_max:g}; expected 0 < s_min < s_max")

    def quantile(self, probability: Tensor) -> Tensor:
        """See `NoiseLevels.quantile`."""
        return self.s_min * (self.s_max / self.s_min) ** probability
