"""What the losses share."""

from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

from torch import Tensor, nn

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.heads import Head

H = TypeVar("H", bound=Head)


class AmountLoss(nn.Module, ABC, Generic[H]):
    """A loss of a predictive distribution, given the amount that fell.

    Attributes:
        head_kinds: the heads whose outputs it can judge.
    """

    head_kinds: ClassVar[tuple[type[Head], ...]] = (Head,)

    def require_head(self, head: Head) -> None:
        """Make sure that the loss fits a head.

        Raises:
            InputError: it does not.
        """
        if not isinstance(head, self.head_kinds):
            fitting = " or ".join(kind.__name__ for kind in self.head_kinds)
            raise InputError(f"loss {type(self).__name__} needs a {fitting}, not a {type(head).__name__}")

    @abstractmethod
    def forward(self, head: H, outputs: Tensor, amounts: Tensor) -> Tensor:
        """Loss (B, H, W) of every pixel, finite, 0 without gradient where the amount is unknown.

        Args:
            head: what the outputs mean.
            outputs: (B, n_outputs, H, W) of the network, finite.
            amounts: (B, H, W) mm, NaN, negative or above 200 where unknown.
        """


def masked_mean(losses: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean over all pixels, ``sum(losses weights) / max(1, sum weights)``: 0 if all weights are.

    Args:
        losses: (B, H, W), finite.
        weights: (B, H, W), not negative, 0 where a pixel does not count.
    """
    return (losses * weights).sum() / weights.sum().clamp(min=1)
