"""U-Net: an encoder that doubles its filters at each halving, and a decoder that takes its maps up again."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ai4sim.networks.blocks import ConvBlock, Norm
from ai4sim.networks.layout import channels_last_on_cpu
from ai4sim.networks.padding import on_multiple


class UNet(nn.Module):
    """U-Net (Ronneberger, Fischer and Brox 2015, MICCAI, arXiv:1505.04597), with padded, normalised convolutions.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        init_features: channels at full resolution; they double with each halving.
        depth: number of halvings.
        norm: makes the normalisation for a number of channels.
        autopad: pad grids to a multiple of ``2**depth`` with zeros and cut the output back, instead of refusing them.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        init_features: int = 64,
        depth: int = 4,
        norm: Norm = nn.BatchNorm2d,
        autopad: bool = True,
    ) -> None:
        super().__init__()
        self.multiple, self.autopad = 2**depth, autopad
        widths = [init_features * 2**level for level in range(depth)]
        inputs = [in_channels, *widths[:-1]]
        self.encoder = nn.ModuleList(ConvBlock(i, o, norm=norm) for i, o in zip(inputs, widths, strict=True))
        self.bottleneck = ConvBlock(widths[-1], 2 * widths[-1], norm=norm)
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, stride=2) for width in reversed(widths))
        self.decoder = nn.ModuleList(ConvBlock(2 * width, width, norm=norm) for width in reversed(widths))
        self.head = nn.Conv2d(init_features, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, out_channels, H, W) of ``x`` (B, in_channels, H, W).

        Raises:
            InputError: H or W is no multiple of ``2**depth`` and ``autopad`` is off.
        """
        return on_multiple(self._on_multiple, x, self.multiple, autopad=self.autopad, name=type(self).__name__)

    def _on_multiple(self, x: Tensor) -> Tensor:
        x = channels_last_on_cpu(x)
        skips = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        x = self.bottleneck(x)
        for up, block, skip in zip(self.up, self.decoder, reversed(skips), strict=True):
            x = block(torch.cat([up(x), skip], dim=1))
        result: Tensor = self.head(x)
        return result
