"""Student-t noise: normal numbers, divided by a random number that a whole image shares."""

import math

import torch
from torch import Tensor

from ai4sim.errors import InputError

Device = torch.device | str


def require_variance(nu: float | None) -> None:
    """Make sure that noise has a variance; without degrees of freedom it is normal.

    Raises:
        InputError: it has none.
    """
    if nu is not None and not 2 < nu < math.inf:
        raise InputError(f"nu is {nu:g}; expected above 2, as a Student-t distribution has no variance otherwise")


def chi_square(nu: float, n: int, generator: torch.Generator | None = None, device: Device | None = None) -> Tensor:
    """Random numbers of the chi-square distribution with nu degrees of freedom, which need not be whole.

    Twice a gamma variable of shape nu/2, by rejection (Marsaglia and Tsang 2000, ACM Trans. Math. Softw. 26, 363-372):
    PyTorch's own gamma sampler takes no generator.

    Args:
        nu: degrees of freedom, at least 2.
        n: how many.
        generator: of the device.
        device: where they are drawn.

    Returns:
        (n,) in float32, above 0.
    """
    shifted = nu / 2 - 1 / 3
    scale = 1 / math.sqrt(9 * shifted)
    result = torch.zeros(n, device=device)
    # at most one in twenty is refused, so that a few rounds do
    while (missing := (result == 0).nonzero()[:, 0]).numel():
        z = torch.randn(len(missing), generator=generator, device=device)
        u = torch.rand(len(missing), generator=generator, device=device)
        v = (1 + scale * z) ** 3
        accepted = (v > 0) & (u.log() < z.square() / 2 + shifted * (1 - v + v.clamp(min=1e-30).log()))
        result[missing[accepted]] = 2 * shifted * v[accepted]
    return result
