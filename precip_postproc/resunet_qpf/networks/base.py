"""What every network of this use case has in common: shapes, padding, and how far it sees."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Final, Literal

from torch import Tensor, nn
from torch.nn import functional

from ai4sim.errors import InputError
from ai4sim.networks import channels_last_on_cpu, require_multiple
from precip_postproc.resunet_qpf.config import N_CONDITIONS

PaddingMode = Literal["zeros", "replicate"]
# as torch.nn.Conv2d names them, and torch.nn.functional.pad
PADDING_MODES: Final[dict[PaddingMode, str]] = {"zeros": "constant", "replicate": "replicate"}

Reach = Callable[[int, int], tuple[int, int]]
"""A step along one axis: from the first and last pixel of its output to those of its input that they depend on."""


class QpfNetwork(nn.Module, ABC):
    """A map from features to what a head makes distributions of; subclasses define ``head``, `body` and `reaches`.

    Fields whose sizes are no multiples are padded below and to the right, as `ai4sim.tiling` does: so pixels are
    pooled together as in tiles, and a field gives the same in one pass and by tiles.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        halvings: how many times the grid is halved.
        padding_mode: what convolutions, and the padding of fields, see beyond the border: ``zeros`` or ``replicate``,
            the pixels next to it.
        autopad: pad fields of other sizes and cut the output back, instead of refusing them.

    Attributes:
        in_channels: as given.
        out_channels: as given.
        multiple: what rows and columns are padded to a multiple of.
        conditioned: whether the output depends on the conditions.
        head: the 1 x 1 convolution that comes last and whose bias is where training begins; apply it by
            :func:`ai4sim.networks.at_full_precision`.

    Raises:
        InputError: numbers that are not positive, or an unknown padding.
    """

    head: nn.Conv2d
    conditioned = False

    def __init__(
        self, in_channels: int, out_channels: int, *, halvings: int, padding_mode: PaddingMode, autopad: bool
    ) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
            if value < 1:
                raise InputError(f"{type(self).__name__}: {name} is {value}; expected at least 1")
        if padding_mode not in PADDING_MODES:
            raise InputError(f"unknown padding_mode {padding_mode!r}; valid are {', '.join(PADDING_MODES)}")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.multiple, self.padding_mode, self.autopad = 2**halvings, padding_mode, autopad

    @abstractmethod
    def body(self, x: Tensor, conditions: Tensor) -> Tensor:
        """(B, out_channels, H, W) of a field whose sizes are multiples, in the layout that suits the device.

        Args:
            x: (B, in_channels, H, W).
            conditions: (B, 8).
        """

    @abstractmethod
    def reaches(self) -> Sequence[Reach]:
        """The steps of the path that sees most, from the output to the input."""

    @property
    def receptive_radius(self) -> int:
        """Pixels, along rows or columns, to the farthest pixel of the input that an output depends on.

        It differs with the place of a pixel among those that are pooled together; this is the largest. It holds where
        normalisations do not depend on the field: ``BatchNorm2d`` in evaluation mode.
        """
        radius = 0
        for pixel in range(self.multiple):
            first = last = pixel
            for reach in self.reaches():
                first, last = reach(first, last)
            radius = max(radius, pixel - first, last - pixel)
        return radius

    def forward(self, x: Tensor, conditions: Tensor) -> Tensor:
        """Outputs (B, out_channels, H, W) for a head.

        Args:
            x: (B, in_channels, H, W) features.
            conditions: (B, 8) of :func:`~precip_postproc.resunet_qpf.conditions.lead_conditions`; of no effect unless
                the network is ``conditioned``.

        Raises:
            InputError: H or W is no multiple of ``multiple`` and ``autopad`` is off.
            ValueError: features or conditions of another shape.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            expected = f"(B, {self.in_channels}, H, W)"
            raise ValueError(f"{type(self).__name__} got features of the shape {tuple(x.shape)}, not {expected}")
        if conditions.shape != (x.shape[0], N_CONDITIONS):
            expected = f"({x.shape[0]}, {N_CONDITIONS})"
            raise ValueError(
                f"{type(self).__name__} got conditions of the shape {tuple(conditions.shape)}, not {expected}"
            )
        height, width = x.shape[-2:]
        rows, columns = -height % self.multiple, -width % self.multiple
        if not rows and not columns:
            return self.body(channels_last_on_cpu(x), conditions)
        if not self.autopad:
            require_multiple(height, width, self.multiple, network=type(self).__name__)
        x = functional.pad(x, (0, columns, 0, rows), mode=PADDING_MODES[self.padding_mode])
        return self.body(channels_last_on_cpu(x), conditions)[..., :height, :width]


def convolution(radius: int) -> Reach:
    """Of a convolution, or several, that sees so many pixels to each side."""
    return lambda first, last: (first - radius, last + radius)


def halving(radius: int = 0) -> Reach:
    """Of pooling 2 x 2 pixels, or of a convolution of stride 2 that sees ``radius`` more to each side of them."""
    return lambda first, last: (2 * first - radius, 2 * last + 1 + radius)


def doubling(first: int, last: int) -> tuple[int, int]:
    """Of a transposed 2 x 2 convolution of stride 2."""
    return first // 2, last // 2


def bilinear_doubling(first: int, last: int) -> tuple[int, int]:
    """Of linear interpolation to twice as many pixels, between the centres of the two next to each."""
    return (first - 1) // 2, (last + 1) // 2
