"""Embeddings of single numbers, the level of noise and the lead time, that modulate all blocks of a U-Net."""

import math
from typing import Final, Literal

import torch
from torch import Tensor, nn

from ai4sim.errors import InputError
from downscaling.corrdiff.networks.layers import Initialise, xavier

EmbeddingType = Literal["positional", "fourier", "zero"]
EMBEDDING_TYPES: Final[tuple[EmbeddingType, ...]] = ("positional", "fourier", "zero")

LONGEST_PERIOD: Final = 10_000.0
"""Ratio of the shortest to the longest angular frequency (Vaswani et al. 2017, arXiv:1706.03762, section 3.5)."""

FOURIER_SCALE: Final = 16.0
"""Standard deviation of random frequencies (Song et al. 2021, arXiv:2011.13456, appendix C)."""


def at_least_single(x: Tensor) -> Tensor:
    """The same numbers in single precision or better: in half precision the sine of a large angle is lost."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def positional_features(labels: Tensor, n: int, *, reach_end: bool = True) -> Tensor:
    """Sines and cosines of a number with geometrically spaced frequencies.

    With half = n / 2, w_j = 10000^(-j / (half - 1)) (DDPM++, Song et al. 2021, arXiv:2011.13456) or
    10000^(-j / half) (ADM, Dhariwal and Nichol 2021, arXiv:2105.05233).

    Args:
        labels: (B,) numbers.
        n: of features, even and at least 4.
        reach_end: the last frequency is 1/10000, and the features are [sin, cos]; otherwise it would be one further
            on, and they are [cos, sin].

    Returns:
        (B, n), in single precision at least.
    """
    half = n // 2
    labels = at_least_single(labels)
    steps = torch.arange(half, device=labels.device, dtype=labels.dtype) / (half - 1 if reach_end else half)
    angles = labels[:, None] * torch.exp(-math.log(LONGEST_PERIOD) * steps)
    parts = [angles.sin(), angles.cos()]
    return torch.cat(parts if reach_end else parts[::-1], dim=1)


class NoiseEmbedding(nn.Module):
    """What blocks are told of the level of noise: features -> linear -> SiLU -> linear -> SiLU.

    Args:
        n_features: n, of the noise level's sines and cosines; even, at least 4.
        n_embedding: E, length of the embedding.
        embedding_type: ``positional``, see :func:`positional_features`; ``fourier``, 2 pi times random frequencies
            that stay as they are (a buffer, saved in checkpoints); ``zero``, nothing is told and there are no weights.
        reach_end: see :func:`positional_features`.
        init: first weights.

    Raises:
        InputError: an unknown type, or an odd or too small number of features.
    """

    frequencies: Tensor

    def __init__(
        self,
        n_features: int,
        n_embedding: int,
        embedding_type: EmbeddingType = "positional",
        *,
        reach_end: bool = True,
        init: Initialise = xavier,
    ) -> None:
        super().__init__()
        if embedding_type not in EMBEDDING_TYPES:
            raise InputError(f"unknown embedding_type {embedding_type!r}; valid are {', '.join(EMBEDDING_TYPES)}")
        if n_features < 4 or n_features % 2:
            raise InputError(
                f"the noise embedding has model_channels * channel_mult_noise = {n_features} features; expected an even"
                " number, at least 4"
            )
        self.n_features, self.n_embedding, self.embedding_type = n_features, n_embedding, embedding_type
        self.reach_end = reach_end
        if embedding_type == "zero":
            return
        if embedding_type == "fourier":
            self.register_buffer("frequencies", FOURIER_SCALE * torch.randn(n_features // 2))
        self.linear0 = nn.Linear(n_features, n_embedding)
        self.linear1 = nn.Linear(n_embedding, n_embedding)
        init(self.linear0)
        init(self.linear1)

    def forward(self, labels: Tensor, like: Tensor) -> Tensor:
        """Embeddings (B, E).

        Args:
            labels: (B,) functions of the noise's standard deviation, such as ln(sigma) / 4.
            like: a tensor of the type and on the device that the result is to be of.
        """
        if self.embedding_type == "zero":
            return like.new_zeros(labels.shape[0], self.n_embedding)
        labels = labels.to(like.device)
        if self.embedding_type == "fourier":
            angles = at_least_single(labels)[:, None] * (2 * math.pi * at_least_single(self.frequencies))
            features = torch.cat([angles.sin(), angles.cos()], dim=1)
        else:
            features = positional_features(labels, self.n_features, reach_end=self.reach_end)
        silu = nn.functional.silu
        return silu(self.linear1(silu(self.linear0(features.to(like.dtype)))))


class LeadTimeEmbedding(nn.Module):
    """A lead time in the place where a noise level is: a multilayer perceptron of one number.

    It has some 10^5 parameters where a table of maps has 10^8, and knows lead times between those it was trained on.

    Args:
        steps: L, number of lead times; labels go from 0 to L - 1.
        n_embedding: E, length of the embedding.

    Raises:
        InputError: less than two lead times.
    """

    def __init__(self, steps: int, n_embedding: int) -> None:
        super().__init__()
        if steps < 2:
            raise InputError(f"lead_steps is {steps}; expected at least 2")
        self.steps = steps
        self.linear0 = nn.Linear(1, n_embedding)
        self.linear1 = nn.Linear(n_embedding, n_embedding)
        xavier(self.linear0)
        xavier(self.linear1)

    def forward(self, labels: Tensor) -> Tensor:
        """Embeddings (B, E) of labels (B,), whole numbers or between them."""
        weight = self.linear0.weight
        scaled = 2 * labels.to(weight.device, weight.dtype) / (self.steps - 1) - 1
        result: Tensor = self.linear1(nn.functional.silu(self.linear0(scaled[:, None])))
        return result
