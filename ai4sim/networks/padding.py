"""Grids of any size for networks that halve them several times."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from ai4sim.errors import InputError


def require_multiple(height: int, width: int, multiple: int, *, network: str) -> None:
    """Refuse a grid that a network without automatic padding cannot take.

    Args:
        height: rows of the grid.
        width: columns of the grid.
        multiple: what both must be a multiple of.
        network: its name, for the message.

    Raises:
        InputError: rows or columns are no multiple; names the sizes that would do.
    """
    if height % multiple or width % multiple:
        raise InputError(
            f"{network} needs rows and columns that are multiples of {multiple}, got {height} x {width}: set"
            f" autopad, or use {height + -height % multiple} x {width + -width % multiple}"
        )


def on_multiple(
    network: Callable[[Tensor], Tensor], x: Tensor, multiple: int, *, autopad: bool, name: str = "the network"
) -> Tensor:
    """Run a network on a grid padded with zeros to a multiple, and cut its output back.

    The grid lies in the centre of the padded one; what cannot be halved goes to the bottom and to the right.

    Args:
        network: maps (B, C, H', W') to (B, C', H', W') for multiples H' and W'.
        x: (B, C, H, W).
        multiple: what H' and W' must be a multiple of.
        autopad: pad; otherwise H and W must be multiples already.
        name: of the network, for the message.

    Returns:
        (B, C', H, W), a view where something was cut off.

    Raises:
        InputError: H or W is no multiple and ``autopad`` is off.
    """
    height, width = x.shape[-2:]
    rows, columns = -height % multiple, -width % multiple
    if not rows and not columns:
        return network(x)
    if not autopad:
        require_multiple(height, width, multiple, network=name)
    top, left = rows // 2, columns // 2
    y = network(functional.pad(x, (left, columns - left, top, rows - top)))
    return y[..., top : top + height, left : left + width]
