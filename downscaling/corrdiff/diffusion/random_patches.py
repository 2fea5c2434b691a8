"""Random parts of fields for training, with one layout for everything that belongs to a part."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Self

import torch
from torch import Tensor

from ai4sim.errors import InputError
from downscaling.corrdiff.diffusion.network_inputs import overview_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Patches:
    """Parts of the fields of B samples, P of each, in the order of the number of the part, then of the sample.

    Row n = p B + b is part p of sample b, in whatever is cut or repeated.

    Attributes:
        domain: (H, W).
        patch: (h, w).
        corners: (N, 2) first row and column of every part, on the CPU.
        samples: (N,) the sample that every part is of, on the CPU.
    """

    domain: tuple[int, int]
    patch: tuple[int, int]
    corners: Tensor
    samples: Tensor

    @classmethod
    def whole(cls, fields: Tensor) -> Self:
        """Whole fields (B, C, H, W) as the only part of each."""
        n, domain = len(fields), (int(fields.shape[-2]), int(fields.shape[-1]))
        return cls(domain, domain, torch.zeros(n, 2, dtype=torch.int64), torch.arange(n))

    def __len__(self) -> int:
        return len(self.samples)

    def cut(self, fields: Tensor) -> Tensor:
        """The parts (N, C, h, w) of fields.

        Args:
            fields: (B, C, H, W), or (C, H, W) that are the same for all samples, such as those of the position.

        Raises:
            ValueError: fields of another domain.
        """
        if tuple(fields.shape[-2:]) != self.domain:
            raise ValueError(f"fields have the shape {tuple(fields.shape)}; the patches are of {self.domain}")
        height, width = self.patch
        places = zip(self.samples.tolist(), self.corners.tolist(), strict=True)
        parts = [
            (fields if fields.ndim == 3 else fields[sample])[..., row : row + height, column : column + width]
            for sample, (row, column) in places
        ]
        return torch.stack(parts)

    def repeat(self, values: Tensor) -> Tensor:
        """Values (N, ...) of the samples that the parts are of.

        Args:
            values: (B, ...), such as labels of lead times.
        """
        return values[self.samples.to(values.device)]

    def overview(self, fields: Tensor) -> Tensor:
        """Whole fields (N, C, h, w), resized to the shape of a part.

        Args:
            fields: (B, C, H, W).
        """
        return self.repeat(overview_of(fields, self.patch))

    def chunk(self, start: int, stop: int) -> Self:
        """Some of the parts, to be cut from the same fields."""
        rows = slice(start, stop)
        return type(self)(self.domain, self.patch, self.corners[rows], self.samples[rows])

    def chunks(self, size: int) -> Iterator[Self]:
        """All parts, at most ``size`` at a time."""
        for start in range(0, len(self), size):
            yield self.chunk(start, start + size)


@dataclass(frozen=True)
class RandomPatches:
    """Draws parts of fields, anew for every step.

    Where a domain is smaller than a part its whole extent is taken; a part that is the whole domain is drawn once.

    Args:
        shape: rows and columns of a part, or one number for both.
        count: parts of each sample.
        levels: of the network, which halves its grid between them.

    Raises:
        InputError: a count or number of levels below 1, or a shape that cannot be halved between the levels.
    """

    shape: int | tuple[int, int]
    count: int = 1
    levels: int = 1

    def __post_init__(self) -> None:
        for name, value in (("count", self.count), ("levels", self.levels)):
            if value < 1:
                raise InputError(f"{name} is {value}; expected at least 1")
        require_patch(self.pair, self.levels)

    @property
    def pair(self) -> tuple[int, int]:
        """Rows and columns of a part."""
        return (self.shape, self.shape) if isinstance(self.shape, int) else (self.shape[0], self.shape[1])

    def draw(self, domain: tuple[int, int], n_samples: int, generator: torch.Generator | None = None) -> Patches:
        """Parts whose first rows and columns are uniformly distributed.

        Args:
            domain: (H, W).
            n_samples: B.
            generator: of the CPU.
        """
        patch = min(self.pair[0], domain[0]), min(self.pair[1], domain[1])
        if patch != self.pair:
            warn_of_larger_patch(self.pair, domain)
        n = n_samples * (1 if patch == domain else self.count)
        corners = [
            torch.randint(size - part + 1, (n,), generator=generator) for size, part in zip(domain, patch, strict=True)
        ]
        return Patches(domain, patch, torch.stack(corners, dim=1), torch.arange(n) % n_samples)


def require_patch(patch: tuple[int, int], levels: int) -> None:
    """Make sure that a network can halve a patch between its levels.

    Raises:
        InputError: it cannot.
    """
    multiple = 2 ** (levels - 1)
    if min(patch) < 1 or any(side % multiple for side in patch):
        raise InputError(
            f"the patch is {patch[0]} x {patch[1]}; expected multiples of {multiple}, as the network has {levels}"
            f" {'level' if levels == 1 else 'levels'}"
        )


@cache
def warn_of_larger_patch(patch: tuple[int, int], domain: tuple[int, int]) -> None:
    """Say that a patch is cut down to the domain, once."""
    logger.warning(
        "a patch of %d x %d is larger than the domain of %d x %d: the domain's extent is used", *patch, *domain
    )
