"""The regression's means of the training pairs, which stay what they are while the diffusion learns."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from downscaling.corrdiff.batches import Batch


class KeptMeans:
    """Fields by the number of their pair.

    Args:
        n_pairs: how many there are.
        shape: (outputs, H, W) of each.
        device: that holds them.
    """

    def __init__(self, n_pairs: int, shape: tuple[int, int, int], device: torch.device | str = "cpu") -> None:
        self._fields = torch.empty(n_pairs, *shape, device=device)
        self._place = torch.zeros(0, dtype=torch.int64, device=device)

    @staticmethod
    def size(n_pairs: int, shape: tuple[int, int, int]) -> int:
        """Memory of that many, bytes."""
        outputs, height, width = shape
        return n_pairs * outputs * height * width * 4

    def fill(self, batches: Iterable[Batch], mean: Callable[[Batch], Tensor]) -> None:
        """Compute them all, in the order of the batches: they do not depend on which pairs a step draws.

        Args:
            batches: of the pairs, on the device, with ``index``.
            mean: gives the fields (B, outputs, H, W) of a batch.
        """
        numbers: list[Tensor] = []
        n = 0
        for batch in batches:
            fields = mean(batch)
            self._fields[n : n + len(fields)] = fields
            numbers.append(batch["index"])
            n += len(fields)
        index = torch.cat(numbers)
        self._place = torch.full((int(index.max()) + 1,), -1, dtype=torch.int64, device=self._fields.device)
        self._place[index] = torch.arange(n, device=self._fields.device)

    def __call__(self, batch: Batch) -> Tensor:
        """Fields (B, outputs, H, W) of a batch of training pairs."""
        return self._fields[self._place[batch["index"]]]
