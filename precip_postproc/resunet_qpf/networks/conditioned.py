"""Small residual U-Net that knows lead time, hour and season, made for CPUs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ai4sim.errors import InputError
from ai4sim.networks import at_full_precision
from ai4sim.networks.blocks import Norm
from precip_postproc.resunet_qpf.config import N_CONDITIONS
from precip_postproc.resunet_qpf.networks.base import (
    PaddingMode,
    QpfNetwork,
    Reach,
    bilinear_doubling,
    convolution,
    halving,
)
from precip_postproc.resunet_qpf.networks.blocks import BLOCK_RADIUS, ResidualBlock
from precip_postproc.resunet_qpf.networks.res_unet import check_widths


class ConditionedResUNet(QpfNetwork):
    """Residual U-Net below full resolution, whose blocks are modulated by an embedding of the conditions.

    A 4 x 4 convolution of stride 2 comes first, so that all 3 x 3 convolutions work on a quarter of the pixels or
    less. Blocks follow at every scale, with maximum pooling on the way down, bilinear interpolation and concatenated
    skips on the way up. The output is a 1 x 1 convolution of the decoder's maps and the inputs, at full resolution.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        widths: channels at every scale, from half of the resolution to the coarsest.
        n_embedding: length of the embedding and of the hidden layer that it is made by.
        norm: makes the normalisation for a number of channels. ``nn.BatchNorm2d`` is the same map everywhere when it
            is evaluated, so that fields give the same in one pass and by tiles. ``nn.GroupNorm`` and
            ``nn.InstanceNorm2d`` depend on all that is in a tile: outputs differ with the tiling.
        padding_mode: see `QpfNetwork`.
        autopad: see `QpfNetwork`.

    Attributes:
        multiple: 2**(number of widths).

    Raises:
        InputError: less than two widths, or numbers that are not positive; see also `QpfNetwork`.
    """

    conditioned = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        widths: Sequence[int] = (20, 30, 40, 40),
        n_embedding: int = 32,
        norm: Norm = nn.BatchNorm2d,
        padding_mode: PaddingMode = "replicate",
        autopad: bool = True,
    ) -> None:
        check_widths(widths)
        if n_embedding < 1:
            raise InputError(f"n_embedding is {n_embedding}; expected at least 1")
        super().__init__(in_channels, out_channels, halvings=len(widths), padding_mode=padding_mode, autopad=autopad)

        def block(inputs: int, outputs: int) -> ResidualBlock:
            # the normalisations take the mean out again, so biases are of no use
            return ResidualBlock(
                inputs, outputs, bias=False, norm=norm, padding_mode=padding_mode, n_embedding=n_embedding
            )

        self.embedding = nn.Sequential(
            nn.Linear(N_CONDITIONS, n_embedding), nn.SiLU(), nn.Linear(n_embedding, n_embedding), nn.SiLU()
        )
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], 4, stride=2, padding=1, bias=False, padding_mode=padding_mode),
            norm(widths[0]),
            nn.ReLU(inplace=True),
        )
        self.encoder = nn.ModuleList(block(i, o) for i, o in zip([widths[0], *widths[:-1]], widths, strict=True))
        pairs = [(widths[level + 1], widths[level]) for level in reversed(range(len(widths) - 1))]
        self.decoder = nn.ModuleList(block(coarse + own, own) for coarse, own in pairs)
        self.head = nn.Conv2d(widths[0] + in_channels, out_channels, 1)

    def body(self, x: Tensor, conditions: Tensor) -> Tensor:
        """See `QpfNetwork.body`."""
        embedding = self.embedding(conditions)
        y = self.stem(x)
        first, *coarser = self.encoder
        skips = [y := first(y, embedding)]
        for block in coarser:
            y = block(functional.max_pool2d(y, 2), embedding)
            skips.append(y)
        y = skips.pop()
        for block in self.decoder:
            y = block(torch.cat([_doubled(y), skips.pop()], dim=1), embedding)
        return at_full_precision(self._head, y, x)

    def _head(self, y: Tensor, x: Tensor) -> Tensor:
        """The head of the decoder's maps, interpolated to full resolution, and the inputs.

        Interpolation and a convolution of single pixels may change places: so it is done before, where there are four
        times fewer pixels, and the maps are never held at full resolution.
        """
        decoded, direct = self.head.weight.split([y.shape[1], x.shape[1]], dim=1)
        result = functional.conv2d(x, direct, self.head.bias)
        return result.add_(_doubled(functional.conv2d(y, decoded)))

    def reaches(self) -> Sequence[Reach]:
        """See `QpfNetwork.reaches`."""
        block, levels = convolution(BLOCK_RADIUS), len(self.decoder)
        return [
            bilinear_doubling,
            *[block, bilinear_doubling] * levels,
            block,
            *[halving(), block] * levels,
            halving(1),
        ]


def _doubled(x: Tensor) -> Tensor:
    """(B, C, 2 H, 2 W). Corners are not aligned: what a pixel becomes must not depend on the size of the field."""
    return functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
