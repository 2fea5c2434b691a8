"""Convolution blocks of which encoders and decoders are made."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ai4sim.errors import InputError

Norm = Callable[[int], nn.Module]
"""A normalisation for a number of channels: ``nn.BatchNorm2d``, ``partial(nn.GroupNorm, 8)``, ..."""


def make_activation(name: str) -> nn.Module:
    """An activation by the name of its class in ``torch.nn``, such as ``Identity``, ``ReLU`` or ``Sigmoid``.

    Raises:
        InputError: torch has no such activation, or it needs arguments.
    """
    kind: Callable[[], nn.Module] | None = getattr(nn, name, None)
    if kind is nn.Identity or getattr(kind, "__module__", "") == "torch.nn.modules.activation":
        assert kind is not None
        try:
            return kind()
        except TypeError:  # it needs arguments
            pass
    raise InputError(
        f"unknown activation {name!r}: name a class of torch.nn, such as Identity, ReLU, Sigmoid, Softplus"
    )


class ConvBlock(nn.Sequential):
    """Twice [3 x 3 convolution -> normalisation -> ReLU], which keeps the size of the grid.

    The convolutions go without bias by default, since the normalisation takes the mean out again.

    Args:
        in_channels: channels of the input.
        out_channels: channels after either convolution.
        dilation: distance of the kernel's points.
        bias: of the convolutions.
        norm: makes the normalisation for a number of channels.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, dilation: int = 1, bias: bool = False, norm: Norm = nn.BatchNorm2d
    ) -> None:
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            layers.append(nn.Conv2d(channels, out_channels, 3, padding=dilation, dilation=dilation, bias=bias))
            # a normalisation saves its input for the backward pass, never its output: ReLU may overwrite that
            layers += [norm(out_channels), nn.ReLU(inplace=True)]
        super().__init__(*layers)


class GhostConv(nn.Module):
    """A 3 x 3 convolution to half of the channels, and a depthwise one on these for the other half.

    From GhostNet (Han et al. 2020, CVPR, doi:10.1109/CVPR42600.2020.00165), ratio 2: about half the parameters and
    operations of a full convolution.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output, even.
        dilation: distance of the kernels' points.
        bias: of both convolutions.

    Raises:
        InputError: ``out_channels`` is odd.
    """

    def __init__(self, in_channels: int, out_channels: int, *, dilation: int = 1, bias: bool = False) -> None:
        super().__init__()
        if out_channels % 2:
            raise InputError(f"a ghost convolution needs an even number of output channels, got {out_channels}")
        half = out_channels // 2
        self.primary = nn.Conv2d(in_channels, half, 3, padding=dilation, dilation=dilation, bias=bias)
        self.cheap = nn.Conv2d(half, half, 3, padding=dilation, dilation=dilation, groups=half, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, out_channels, H, W) of ``x`` (B, in_channels, H, W)."""
        primary = self.primary(x)
        return torch.cat([primary, self.cheap(primary)], dim=1)


class GhostBlock(nn.Sequential):
    """:class:`ConvBlock` with ghost convolutions.

    Args:
        in_channels: channels of the input.
        out_channels: channels after either convolution, even.
        dilation: distance of the kernels' points.
        bias: of the convolutions.
        norm: makes the normalisation for a number of channels.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, dilation: int = 1, bias: bool = False, norm: Norm = nn.BatchNorm2d
    ) -> None:
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            layers.append(GhostConv(channels, out_channels, dilation=dilation, bias=bias))
            layers += [norm(out_channels), nn.ReLU(inplace=True)]
        super().__init__(*layers)
