"""Blocks of which the networks are made."""

import torch
from torch import Tensor, nn

from ai4sim.networks import Film
from ai4sim.networks.blocks import Norm
from precip_postproc.resunet_qpf.networks.base import PaddingMode

BLOCK_RADIUS = 2  # pixels that a residual block sees to each side


class ResidualBlock(nn.Module):
    """Twice [3 x 3 convolution -> normalisation] with a shortcut, and ReLU after the first and after the sum.

    From He, Zhang, Ren and Sun (2016, CVPR, doi:10.1109/CVPR.2016.90); in a U-Net by Zhang, Liu and Wang (2018, IEEE
    GRSL 15, 749-753, arXiv:1711.10684). The shortcut is the input itself, or a normalised 1 x 1 convolution of it where
    the number of channels changes. With an embedding the first normalised maps are modulated by it, see
    `ai4sim.networks.Film`.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        bias: of the convolutions.
        norm: makes the normalisation for a number of channels.
        padding_mode: of the 3 x 3 convolutions, see `QpfNetwork`.
        n_embedding: length of the embedding, 0 for none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bias: bool = True,
        norm: Norm = nn.BatchNorm2d,
        padding_mode: PaddingMode = "zeros",
        n_embedding: int = 0,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias, padding_mode=padding_mode)
        self.norm1 = norm(out_channels)
        self.film = Film(n_embedding, out_channels) if n_embedding else None
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=bias, padding_mode=padding_mode)
        self.norm2 = norm(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=bias), norm(out_channels))

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """(B, out_channels, H, W) of ``x`` (B, in_channels, H, W).

        Args:
            x: maps.
            embedding: (B, n_embedding), needed by a block that has a length for it.
        """
        y = self.norm1(self.conv1(x))
        if self.film is not None:
            assert embedding is not None
            y = self.film(y, embedding)
        # what a normalisation or a modulation gives is not needed for the backward pass: it may be overwritten
        y = self.norm2(self.conv2(torch.relu_(y)))
        result: Tensor = torch.relu_(y.add_(self.shortcut(x)))
        return result


class AttentionGate(nn.Module):
    """Weakens a skip connection where the decoder does not look.

    From Oktay et al. (2018, *Attention U-Net*, arXiv:1804.03999). A pixel of the skip is multiplied by sigmoid(norm(
    conv(relu(norm(conv(decoder)) + norm(conv(skip)))))), with 1 x 1 convolutions, the inner two to half the channels.

    Args:
        channels: of the decoder's maps and of the skip's, even.
        norm: makes the normalisation for a number of channels.
    """

    def __init__(self, channels: int, *, norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        half = channels // 2
        self.decoder = nn.Sequential(nn.Conv2d(channels, half, 1), norm(half))
        self.skip = nn.Sequential(nn.Conv2d(channels, half, 1), norm(half))
        self.weight = nn.Sequential(nn.Conv2d(half, 1, 1), norm(1), nn.Sigmoid())

    def forward(self, decoder: Tensor, skip: Tensor) -> Tensor:
        """The weighted skip (B, channels, H, W).

        Args:
            decoder: (B, channels, H, W) at the skip's resolution.
            skip: (B, channels, H, W) of the encoder.
        """
        weight: Tensor = self.weight(torch.relu_(self.decoder(decoder).add_(self.skip(skip))))
        return skip * weight
