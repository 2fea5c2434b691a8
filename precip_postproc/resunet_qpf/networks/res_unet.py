"""U-Net of residual blocks: the first release of the reference."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ai4sim.errors import InputError
from ai4sim.networks import at_full_precision
from ai4sim.networks.blocks import Norm
from precip_postproc.resunet_qpf.networks.base import (
    PaddingMode,
    QpfNetwork,
    Reach,
    convolution,
    doubling,
    halving,
)
from precip_postproc.resunet_qpf.networks.blocks import BLOCK_RADIUS, ResidualBlock


class ResidualUNet(QpfNetwork):
    """What the reference's U-Nets share: residual blocks, maximum pooling, transposed convolutions, concatenated skips.

    Args:
        in_channels: channels of the input.
        first_channels: channels of the maps that the first block takes; see `stem`.
        out_channels: channels of the output.
        widths: channels at every scale, from fine to coarse.
        bias: of the blocks' convolutions.
        norm: makes the normalisation for a number of channels.
        padding_mode: see `QpfNetwork`.
        autopad: see `QpfNetwork`.

    Attributes:
        multiple: 2**(number of widths - 1).
        encoder: blocks at all scales but the coarsest.
        bridge: block at the coarsest.
        up: transposed convolutions, from coarse to fine.
        decoder: blocks, from coarse to fine.

    Raises:
        InputError: less than two widths, or a width that is not positive.
    """

    def __init__(
        self,
        in_channels: int,
        first_channels: int,
        out_channels: int,
        *,
        widths: Sequence[int],
        bias: bool,
        norm: Norm,
        padding_mode: PaddingMode,
        autopad: bool,
    ) -> None:
        check_widths(widths)
        super().__init__(
            in_channels, out_channels, halvings=len(widths) - 1, padding_mode=padding_mode, autopad=autopad
        )

        def block(inputs: int, outputs: int) -> ResidualBlock:
            return ResidualBlock(inputs, outputs, bias=bias, norm=norm, padding_mode=padding_mode)

        *fine, coarsest = widths
        self.encoder = nn.ModuleList(block(i, o) for i, o in zip([first_channels, *fine[:-1]], fine, strict=True))
        self.bridge = block(fine[-1], coarsest)
        pairs = [(widths[level + 1], widths[level]) for level in reversed(range(len(fine)))]
        self.up = nn.ModuleList(nn.ConvTranspose2d(coarse, own, 2, stride=2) for coarse, own in pairs)
        self.decoder = nn.ModuleList(block(2 * own, own) for _, own in pairs)
        self.head = nn.Conv2d(widths[0], out_channels, 1)

    def stem(self, x: Tensor) -> Tensor:
        """Maps (B, first_channels, H, W) of the input."""
        return x

    def skip(self, level: int, decoder: Tensor, skip: Tensor) -> Tensor:
        """What the decoder takes up of the encoder's maps, with the number of the decoder's level from the coarsest."""
        return skip

    def body(self, x: Tensor, conditions: Tensor) -> Tensor:
        """See `QpfNetwork.body`."""
        x = self.stem(x)
        skips = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        x = self.bridge(x)
        for level, (up, block) in enumerate(zip(self.up, self.decoder, strict=True)):
            x = up(x)
            x = block(torch.cat([x, self.skip(level, x, skips.pop())], dim=1))
        return at_full_precision(self.head, x)

    def reaches(self) -> Sequence[Reach]:
        """See `QpfNetwork.reaches`."""
        block, levels = convolution(BLOCK_RADIUS), len(self.encoder)
        return [*[block, doubling] * levels, block, *[halving(), block] * levels]


class ResUNet(ResidualUNet):
    """Deep residual U-Net (Zhang, Liu and Wang 2018, IEEE GRSL 15, 749-753, arXiv:1711.10684), as first released.

    A normalised 3 x 3 convolution to the first width, then as many halvings as there are further widths. The
    convolutions of its blocks have no biases. With the defaults, 7 inputs and 101 outputs it has 8 092 773 parameters.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        widths: channels at every scale, from fine to coarse.
        norm: makes the normalisation for a number of channels.
        padding_mode: see `QpfNetwork`.
        autopad: see `QpfNetwork`.

    Raises:
        InputError: see `ResidualUNet` and `QpfNetwork`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        widths: Sequence[int] = (64, 128, 256, 512),
        norm: Norm = nn.BatchNorm2d,
        padding_mode: PaddingMode = "zeros",
        autopad: bool = True,
    ) -> None:
        check_widths(widths)
        super().__init__(
            in_channels,
            widths[0],
            out_channels,
            widths=widths,
            bias=False,
            norm=norm,
            padding_mode=padding_mode,
            autopad=autopad,
        )
        self.inputs = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], 3, padding=1, padding_mode=padding_mode),
            norm(widths[0]),
            nn.ReLU(inplace=True),
        )

    def stem(self, x: Tensor) -> Tensor:
        """Maps (B, widths[0], H, W) of the input."""
        return self.inputs(x)

    def reaches(self) -> Sequence[Reach]:
        """See `QpfNetwork.reaches`."""
        return [*super().reaches(), convolution(1)]


def check_widths(widths: Sequence[int]) -> None:
    """Refuse widths of which no U-Net can be made.

    Args:
        widths: channels at every scale.

    Raises:
        InputError: less than two, or one that is not positive.
    """
    if len(widths) < 2 or min(widths) < 1:
        raise InputError(f"widths are {list(widths)}; expected two or more, each at least 1")
