"""The order of what a denoiser's network is given beside the noisy image, in training and in sampling."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def join_channels(
    local: Tensor | None, overview: Tensor | None = None, position: Tensor | None = None
) -> Tensor | None:
    """Conditions at the place, of the whole domain, and channels of the position, in this order.

    Args:
        local: (B, C, h, w).
        overview: (B, C', h, w), from `overview_of`.
        position: (B, C'', h, w).

    Returns:
        (B, C + C' + C'', h, w); None if there is nothing.
    """
    parts = [part for part in (local, overview, position) if part is not None]
    return torch.cat(parts, dim=1) if parts else None


def overview_of(fields: Tensor, patch: tuple[int, int]) -> Tensor:
    """Whole domains, bilinearly resized to the shape of a patch, so that a patch can see what lies around it.

    Args:
        fields: (B, C, H, W).
        patch: (h, w).

    Returns:
        (B, C, h, w).
    """
    if tuple(fields.shape[-2:]) == patch:
        return fields
    return interpolate(fields, size=patch, mode="bilinear", align_corners=False)
