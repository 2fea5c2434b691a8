"""Functions of tensors that the heads and their losses share."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable


def running_sums(parts: Sequence[Tensor]) -> list[Tensor]:
    """Sums of the first, the first two, ... of some tensors.

    Along the second of four axes ``torch.cumsum`` takes twice as long, and its backward pass four times as long.
    """
    return list(accumulate(parts))


def inverse_softplus(value: Tensor) -> Tensor:
    """Where softplus is ``value``, which must be above 0."""
    return value + torch.log(-torch.expm1(-value))


class _UpperGamma(torch.autograd.Function):
    """Q(a, x) with derivatives in both arguments."""

    @staticmethod
    def forward(ctx: FunctionCtx, shape: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(shape, x)
        result: Tensor = torch.special.gammaincc(shape, x)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        shape, x = ctx.saved_tensors
        a, z = shape.double(), x.double()
        by_shape = by_x = None
        if ctx.needs_input_grad[0]:
            # small against the scale on which Q varies with a, which is 1 or sqrt(a), but not so small as to magnify
            # the jumps of 4e-10 at which torch's Q changes its method above a = 20
            h = torch.minimum(6e-5 * (1 + a), a / 2)
            slope = (torch.special.gammaincc(a + h, z) - torch.special.gammaincc(a - h, z)) / (2 * h)
            by_shape = gradient * slope.to(shape.dtype)
        if ctx.needs_input_grad[1]:
            z = z.clamp(min=torch.finfo(x.dtype).tiny)
            density = torch.exp((a - 1) * z.log() - z - torch.lgamma(a))
            by_x = -gradient * density.to(x.dtype)
        return by_shape, by_x


def upper_gamma(shape: Tensor, x: Tensor) -> Tensor:
    """Regularised upper incomplete gamma function Q(a, x): the share of a unit gamma distribution above x.

    Unlike torch's it can be differentiated in its shape (once), by a central difference in double precision.

    Args:
        shape: a > 0.
        x: not negative, of the same shape.
    """
    apply: Callable[..., Tensor] = _UpperGamma.apply
    return apply(*torch.broadcast_tensors(shape, x))
