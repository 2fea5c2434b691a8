"""A network of the diffusion's kind as a regression of the mean."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Regressor(nn.Module):
    """Expected image, given the conditions: F([0, c]; 0), with zeros where the diffusion has the noisy image.

    Args:
        network: F, maps images (B, C + conditions, H, W) and labels (B,) to images (B, C, H, W).
        n_outputs: C.
    """

    def __init__(self, network: Callable[..., Tensor], n_outputs: int) -> None:
        super().__init__()
        self.network, self.n_outputs = network, n_outputs

    def forward(self, condition: Tensor, **extras: Any) -> Tensor:
        """Mean (B, C, H, W) in float32.

        Args:
            condition: (B, conditions, H, W).
            extras: for the network, by name.
        """
        n, _, height, width = condition.shape
        blank = condition.new_zeros(n, self.n_outputs, height, width)
        # the same label always: there is no noise
        output = self.network(torch.cat([blank, condition], dim=1), condition.new_zeros(n), **extras)
        return output.float()
