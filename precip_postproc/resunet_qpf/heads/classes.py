"""Probabilities of classes of amounts."""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from precip_postproc.resunet_qpf.climate import Climate
from precip_postproc.resunet_qpf.config import EDGES
from precip_postproc.resunet_qpf.heads.base import Head
from precip_postproc.resunet_qpf.heads.functions import running_sums

# Less than any class that occurs has in some ten million pixels.
RAREST: Final = 1e-7


class ClassHead(Head):
    """Logits of the K + 1 classes between K edges, without any assumption on the distribution's form.

    As many classes as in MetNet's ordered bins (Sønderby et al. 2020, arXiv:2003.12140) are not needed: fine edges
    where amounts are frequent will do.

    Args:
        edges: K amounts, mm, strictly increasing.
    """

    def __init__(self, edges: Sequence[float] = EDGES) -> None:
        super().__init__(edges)
        self.n_outputs = len(self.edges) + 1

    def exceedance(self, outputs: Tensor) -> Tensor:
        """P(Y >= edge) (B, K, H, W) of logits (B, K + 1, H, W): summed from the rarest class, which keeps it exact."""
        classes = self.checked(outputs).softmax(1).unbind(1)
        sums = running_sums(classes[:0:-1])
        return torch.stack(sums[::-1], 1).clamp(max=1)

    def initial_bias(self, climate: Climate) -> Tensor:
        """Logarithms (K + 1,) of the climate's class frequencies, or of 1e-7 where a class is rarer or empty."""
        frequencies = torch.from_numpy(climate.class_frequencies(self.edges.tolist()))
        return frequencies.clamp(min=RAREST).log().float()
