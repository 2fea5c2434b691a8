"""Feature-wise linear modulation: what a network knows beside its maps, such as a lead time or a level of noise."""

import torch
from torch import Tensor, nn


class Film(nn.Module):
    """FiLM (Perez, Strub, de Vries, Dumoulin and Courville 2018, AAAI, arXiv:1709.07871): y = x (1 + gamma) + beta.

    Gamma and beta, one of each per channel, are linear in an embedding of the conditions. They begin at 0, so that an
    untrained network is the one without conditions. Place it behind a normalisation and before the activation.

    Args:
        n_embedding: E, length of the embedding.
        channels: C of the maps.

    Attributes:
        linear: gives gamma and then beta, (B, 2 C).
    """

    def __init__(self, n_embedding: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_embedding, 2 * channels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Modulated maps (B, C, ...), with any number of axes in space.

        Args:
            x: (B, C, ...).
            embedding: (B, E).
        """
        parameters = self.linear(embedding)
        gamma, beta = parameters.reshape(*parameters.shape, *[1] * (x.ndim - 2)).chunk(2, dim=1)
        return torch.addcmul(beta, x, 1 + gamma)
