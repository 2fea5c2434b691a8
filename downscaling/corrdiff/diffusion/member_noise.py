"""Random numbers that belong to a member of a case, whoever computes it and with which others."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from downscaling.corrdiff.diffusion.student import Device, require_variance


def generator_of(*key: int | str) -> np.random.Generator:
    """A generator of its own for every key.

    NumPy's counter-based Philox with a key of 128 bits: the seeds of PyTorch's generator on the CPU have 32 that
    count, of which a large archive's members would share some.

    Args:
        key: numbers and words, such as a seed, a case and a member.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


class MemberNoise:
    """Standard normal or Student-t numbers for a batch of members, each from a generator of its own.

    They are drawn on the CPU: a member does not depend on the device, the batch, its place in it, or the process.

    All numbers of a Student-t member, also those that a sampler adds on its way, are divided by the same random number:
    given it, the noise is normal at every level.

    Args:
        cases: (B,) number of each row's case.
        members: (B,) number of each row's member.
        shape: (C, H, W) of an image.
        seed: of all.
        nu: degrees of freedom of Student-t noise, see `Edm`; by default the noise is normal.
        shared_in_time: whether a member has the same numbers in all cases, as in the reference. Animations are
            smoother, but the errors of different cases are correlated: scores of many cases are worth those of fewer.
        device: of what is drawn.

    Raises:
        InputError: a nu that is not above 2.
        ValueError: different numbers of cases and members, or none.
    """

    def __init__(
        self,
        cases: Sequence[int],
        members: Sequence[int],
        shape: Sequence[int],
        *,
        seed: int = 0,
        nu: float | None = None,
        shared_in_time: bool = False,
        device: Device = "cpu",
    ) -> None:
        require_variance(nu)
        if len(cases) != len(members) or not len(cases):
            raise ValueError(f"{len(cases)} cases for {len(members)} members; expected as many, and at least one")
        self.shape, self.device = tuple(shape), device
        self._generators = [
            generator_of("member", int(seed), "shared" if shared_in_time else int(case), int(member))
            for case, member in zip(cases, members, strict=True)
        ]
        self._scales = [1.0 if nu is None else (own.chisquare(nu) / nu) ** -0.5 for own in self._generators]

    def draw(self) -> Tensor:
        """The next numbers (B, C, H, W) of every member, in float32."""
        result = np.empty((len(self._generators), *self.shape), np.float32)
        for own, generator, scale in zip(result, self._generators, self._scales, strict=True):
            generator.standard_normal(dtype=np.float32, out=own)
            own *= np.float32(scale)
        return torch.from_numpy(result).to(self.device)
