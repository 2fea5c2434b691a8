"""Half-UNet: the encoder of a U-Net with the same number of filters at all scales, and hardly a decoder."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ai4sim.networks.blocks import ConvBlock, GhostBlock, Norm, make_activation
from ai4sim.networks.layout import channels_last_on_cpu
from ai4sim.networks.padding import on_multiple


class HalfUNet(nn.Module):
    """Half-UNet (Lu, She, Tie and Xu 2022, Front. Neuroinform. 16, 911679, doi:10.3389/fninf.2022.911679).

    ``depth`` times the grid is halved by maximum pooling, each time followed by a block of two convolutions. The maps
    of all scales are interpolated bilinearly to the full grid and summed; a last block and a 1 x 1 convolution give
    the output.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        num_filters: channels inside, the same at every scale; even with ``use_ghost``.
        depth: number of halvings.
        dilation: distance of the kernels' points.
        bias: of the convolutions.
        use_ghost: ghost convolutions, as in the publication, in place of plain ones.
        last_activation: class of ``torch.nn`` applied to the output.
        norm: makes the normalisation for a number of channels.
        autopad: pad grids to a multiple of ``2**depth`` with zeros and cut the output back, instead of refusing them.
        embedded_shape: rows and columns of the one grid that the network is for, to add a learnt embedding of the
            position to the input; none by default.

    Raises:
        InputError: an odd ``num_filters`` with ``use_ghost``, or an unknown activation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        num_filters: int = 64,
        depth: int = 4,
        dilation: int = 1,
        bias: bool = False,
        use_ghost: bool = False,
        last_activation: str = "Identity",
        norm: Norm = nn.BatchNorm2d,
        autopad: bool = True,
        embedded_shape: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.multiple, self.autopad = 2**depth, autopad
        self.position: nn.Parameter | None = None
        if embedded_shape is not None:
            self.position = nn.Parameter(0.02 * torch.randn(1, in_channels, *embedded_shape))
        block = GhostBlock if use_ghost else ConvBlock

        def make_block(channels: int) -> nn.Module:
            return block(channels, num_filters, dilation=dilation, bias=bias, norm=norm)

        self.encoder = nn.ModuleList([make_block(in_channels), *(make_block(num_filters) for _ in range(depth))])
        self.decoder = make_block(num_filters)
        self.head = nn.Conv2d(num_filters, out_channels, 1, bias=bias)
        self.activation = make_activation(last_activation)

    def forward(self, x: Tensor) -> Tensor:
        """(B, out_channels, H, W) of ``x`` (B, in_channels, H, W).

        Raises:
            InputError: H or W is no multiple of ``2**depth`` and ``autopad`` is off.
        """
        if self.position is not None:
            x = x + self.position
        return on_multiple(self._on_multiple, x, self.multiple, autopad=self.autopad, name=type(self).__name__)

    def _on_multiple(self, x: Tensor) -> Tensor:
        total = x = self.encoder[0](channels_last_on_cpu(x))
        for level, block in enumerate(list(self.encoder)[1:], start=1):
            x = block(functional.max_pool2d(x, 2))
            upsampled = functional.interpolate(x, scale_factor=float(2**level), mode="bilinear", align_corners=True)
            # Nobody needs the interpolated map again, so the sum may take its memory. The first map must stay as it
            # is: its ReLU needs it for the backward pass.
            total = upsampled.add_(total)
        result: Tensor = self.activation(self.head(self.decoder(total)))
        return result
