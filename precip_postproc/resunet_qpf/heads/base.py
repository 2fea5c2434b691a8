"""What the heads share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from precip_postproc.resunet_qpf.classes import check_edges
from precip_postproc.resunet_qpf.climate import Climate
from precip_postproc.resunet_qpf.config import EDGES


class Head(nn.Module, ABC):
    """A family of distributions of the hourly amount Y, whose members a network's outputs choose.

    All families answer the same question, P(Y >= edge), so that forecasts of any of them can be blended and verified.
    Heads have nothing to learn.

    Args:
        edges: K amounts, mm, strictly increasing.

    Attributes:
        edges: (K,) buffer.
        n_outputs: how many channels the network must give.

    Raises:
        InputError: edges of which no classes can be made.
    """

    edges: Tensor
    n_outputs: int

    def __init__(self, edges: Sequence[float] = EDGES) -> None:
        super().__init__()
        # the configuration's, not a checkpoint's: another checkpoint's edges must not creep in
        self.register_buffer("edges", torch.tensor(check_edges(edges)), persistent=False)

    def checked(self, outputs: Tensor) -> Tensor:
        """The outputs, in single precision if they were in half.

        Raises:
            ValueError: another number of channels than ``n_outputs``.
        """
        if outputs.shape[1] != self.n_outputs:
            raise ValueError(f"{type(self).__name__} takes {self.n_outputs} outputs, not {outputs.shape[1]}")
        return outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs

    @abstractmethod
    def exceedance(self, outputs: Tensor) -> Tensor:
        """P(Y >= edge) at every edge.

        Args:
            outputs: (B, n_outputs, H, W) of the network.

        Returns:
            (B, K, H, W) in [0, 1], not increasing along the edges, differentiable.
        """

    @abstractmethod
    def initial_bias(self, climate: Climate) -> Tensor:
        """Outputs (n_outputs,) whose distribution is about the climate's: where training best begins."""
