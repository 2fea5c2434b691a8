"""U-Net of residual blocks with attention gates: the current network of the reference."""

from collections.abc import Sequence

from torch import Tensor, nn

from ai4sim.errors import InputError
from ai4sim.networks.blocks import Norm
from precip_postproc.resunet_qpf.networks.base import PaddingMode
from precip_postproc.resunet_qpf.networks.blocks import AttentionGate
from precip_postproc.resunet_qpf.networks.res_unet import ResidualUNet, check_widths


class AttnResUNet(ResidualUNet):
    """Residual U-Net with attention gates on the skips (Oktay et al. 2018, arXiv:1804.03999).

    All convolutions have biases. With the defaults it has 32 804 562 parameters for 5 inputs and 102 outputs,
    32 799 407 for 7 and 3.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        widths: channels at every scale, from fine to coarse; even but for the last.
        norm: makes the normalisation for a number of channels.
        padding_mode: see `QpfNetwork`.
        autopad: see `QpfNetwork`.

    Attributes:
        gates: from coarse to fine.

    Raises:
        InputError: an odd width; see also `ResidualUNet` and `QpfNetwork`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        widths: Sequence[int] = (64, 128, 256, 512, 1024),
        norm: Norm = nn.BatchNorm2d,
        padding_mode: PaddingMode = "zeros",
        autopad: bool = True,
    ) -> None:
        check_widths(widths)
        odd = [width for width in widths[:-1] if width % 2]
        if odd:
            raise InputError(f"attention gates halve the channels: widths must be even, not {odd[0]}")
        super().__init__(
            in_channels,
            in_channels,
            out_channels,
            widths=widths,
            bias=True,
            norm=norm,
            padding_mode=padding_mode,
            autopad=autopad,
        )
        self.gates = nn.ModuleList(AttentionGate(width, norm=norm) for width in reversed(widths[:-1]))

    def skip(self, level: int, decoder: Tensor, skip: Tensor) -> Tensor:
        """The encoder's maps where the decoder looks."""
        return self.gates[level](decoder, skip)
