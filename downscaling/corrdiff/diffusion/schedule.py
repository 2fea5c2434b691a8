"""Noise levels that a sampler goes through."""

import math
from dataclasses import dataclass

from ai4sim.errors import InputError


@dataclass(frozen=True)
class Schedule:
    """Noise levels t_i = (smax^(1/rho) + i/(N-1) (smin^(1/rho) - smax^(1/rho)))^rho, and 0 at the end.

    Karras et al. 2022, eq. 5. Samples have the right spread only if sigma_max is large against the standard deviation
    of every Fourier mode, about five times, and sigma_min is small, about a third: see `sampler_report`. A domain's
    mean is the largest mode and grows with the square root of the number of pixels: sigma_max 20 suits 64 x 64 pixels
    of a residual scaled to 0.5, 80 suits 256 x 256 and more.

    Args:
        num_steps: N, steps of the sampler.
        sigma_min: last noise level before 0.
        sigma_max: first noise level.
        rho: how much closer together small noise levels are; 1 is equal distances.

    Raises:
        InputError: fewer than 2 steps, a rho that is not above 0, or not 0 < sigma_min < sigma_max.
    """

    num_steps: int = 18
    sigma_min: float = 0.02
    sigma_max: float = 20.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        if self.num_steps < 2:
            raise InputError(f"num_steps is {self.num_steps}; expected at least 2")
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise InputError(
                f"sigma_min and sigma_max are {self.sigma_min:g} and {self.sigma_max:g};"
                f" expected 0 < sigma_min < sigma_max"
            )
        if not 0 < self.rho < math.inf:
            raise InputError(f"rho is {self.rho:g}; expected above 0")

    def times(self) -> list[float]:
        """t_0 = sigma_max, ..., t_(N-1) = sigma_min, t_N = 0."""
        first, last = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        inner = [(first + i / (self.num_steps - 1) * (last - first)) ** self.rho for i in range(1, self.num_steps - 1)]
        return [self.sigma_max, *inner, self.sigma_min, 0.0]
