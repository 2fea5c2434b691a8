"""What the regression leaves, scaled to what the diffusion is made for."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ai4sim.errors import InputError
from downscaling.corrdiff.config import SIGMA_DATA


class ResidualScale(nn.Module):
    """Gives every channel of the residual the standard deviation sigma_data, and takes it back from samples.

    A channel whose residual is much smaller is hidden by noise at most of the noise levels that are trained, and learnt
    badly. Until it is fitted residuals are left as they are, as in the reference.

    Args:
        n_channels: of the residual.
        sigma_data: of the diffusion, see `Edm`.

    Attributes:
        factor: (C, 1, 1), in the checkpoint.
    """

    factor: Tensor

    def __init__(self, n_channels: int, sigma_data: float = SIGMA_DATA) -> None:
        super().__init__()
        self.sigma_data = sigma_data
        self.register_buffer("factor", torch.ones(n_channels, 1, 1))

    def fit(self, residuals: Iterable[tuple[Tensor, Tensor | None]]) -> None:
        """Measure the standard deviation of the training residuals, in double precision.

        Args:
            residuals: batches (B, C, H, W), with where they are known, (B, C, H, W) or (B, 1, H, W), or None.

        Raises:
            InputError: a channel whose residual is not known, does not vary, or is not finite.
        """
        n_channels = len(self.factor)
        count, total, squares = torch.zeros(3, n_channels, dtype=torch.float64)
        for residual, mask in residuals:
            known = torch.ones_like(residual, dtype=torch.bool) if mask is None else mask.bool().expand_as(residual)
            values = residual.double().where(known, 0)
            count += known.sum((0, 2, 3)).cpu()
            total += values.sum((0, 2, 3)).cpu()
            squares += values.square().sum((0, 2, 3)).cpu()
        std = (squares / count - (total / count).square()).clamp(min=0).sqrt()
        for channel, value in enumerate(std.tolist()):
            if not 0 < value < float("inf"):
                raise InputError(f"the residual of output {channel} has the standard deviation {value:g}, not above 0")
        self.factor.copy_((self.sigma_data / std).reshape(-1, 1, 1))

    def forward(self, residual: Tensor) -> Tensor:
        """Scaled residual (B, C, H, W), for the diffusion."""
        return residual * self.factor

    def inverse(self, scaled: Tensor) -> Tensor:
        """Residual (B, C, H, W) of a scaled one."""
        return scaled / self.factor
