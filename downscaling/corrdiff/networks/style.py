"""What the two families of U-Nets do differently in one block."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Final

from torch import nn

from downscaling.corrdiff.networks.layers import LAST, QUERY, Initialise, keep, make_norm, xavier, zeros


@dataclass(frozen=True)
class Style:
    """Of a block.

    Attributes:
        eps: of normalisations.
        modulates: the embedding gives a scale and a shift of the second normalised maps; otherwise it is added to the
            maps before that.
        skip_scale: what sums with a shortcut are multiplied by.
        resampled_shortcut: the shortcut of a block that changes the resolution is convolved (1 x 1) though the number
            of channels stays.
        init: first weights of layers.
        init_last: of layers that end a branch.
        init_query: of those that give queries, keys and values.
    """

    eps: float
    modulates: bool
    skip_scale: float
    resampled_shortcut: bool
    init: Initialise
    init_last: Initialise
    init_query: Initialise

    def norm(self, channels: int) -> nn.GroupNorm:
        """A normalisation; see :func:`~downscaling.corrdiff.networks.layers.make_norm`."""
        return make_norm(channels, self.eps)


SONG: Final = Style(
    eps=1e-6,
    modulates=False,
    skip_scale=math.sqrt(0.5),
    resampled_shortcut=True,
    init=xavier,
    init_last=partial(xavier, gain=LAST),
    init_query=partial(xavier, gain=QUERY),
)
"""DDPM++ (Song et al. 2021, arXiv:2011.13456) as in EDM (Karras et al. 2022, arXiv:2206.00364, appendix F.2)."""

ADM: Final = Style(
    eps=1e-5,
    modulates=True,
    skip_scale=1.0,
    resampled_shortcut=False,
    init=keep,
    init_last=zeros,
    init_query=keep,
)
"""Dhariwal and Nichol (2021, arXiv:2105.05233), as in EDM."""
