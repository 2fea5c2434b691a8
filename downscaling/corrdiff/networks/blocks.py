"""The residual block of which the U-Nets are made."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from downscaling.corrdiff.networks.attention import Attention
from downscaling.corrdiff.networks.layers import PointConv
from downscaling.corrdiff.networks.style import Style

Resampling = Literal["down", "up"] | None


def halved(x: Tensor) -> Tensor:
    """(B, C, H / 2, W / 2): means of 2 x 2 points."""
    return functional.avg_pool2d(x, 2)


def doubled(x: Tensor) -> Tensor:
    """(B, C, 2 H, 2 W): every point four times."""
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


def silu(x: Tensor) -> Tensor:
    """Give x sigmoid(x), in the place of ``x``, what a normalisation gave, where no backward pass needs it."""
    return functional.silu(x, inplace=not torch.is_grad_enabled())


class Block(nn.Module):
    """Twice [normalisation -> SiLU -> 3 x 3 convolution] with a shortcut, told of the embedding in between.

    h = conv(resampled(silu(norm(x)))); h = norm(h + linear(embedding)), or norm(h) (1 + scale) + shift with both linear
    in the embedding; y = (conv(dropout(silu(h))) + shortcut(resampled(x))) * skip scale (Karras et al. 2022,
    arXiv:2206.00364, appendix F.2).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        n_embedding: E, length of the embedding.
        style: what differs between families.
        resample: halve or double the resolution, or neither.
        heads: of the attention that follows, 0 for none.
        dropout: share of the maps' values left out before the second convolution, in training.
        checkpointed: do not keep what is inside for the backward pass, but compute it again.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        n_embedding: int,
        style: Style,
        *,
        resample: Resampling = None,
        heads: int = 0,
        dropout: float = 0.0,
        checkpointed: bool = False,
    ) -> None:
        super().__init__()
        self.resample, self.dropout, self.checkpointed = resample, dropout, checkpointed
        self.modulates, self.scale = style.modulates, style.skip_scale
        self.norm0 = style.norm(in_channels)
        self.conv0 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.affine = nn.Linear(n_embedding, 2 * out_channels if style.modulates else out_channels)
        self.norm1 = style.norm(out_channels)
        self.conv1 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        for layer in (self.conv0, self.affine):
            style.init(layer)
        style.init_last(self.conv1)
        self.shortcut: PointConv | None = None
        if in_channels != out_channels or (resample is not None and style.resampled_shortcut):
            self.shortcut = PointConv(in_channels, out_channels)
            style.init(self.shortcut)
        self.attention = Attention(out_channels, heads, style) if heads else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, out_channels, H', W') of maps ``x`` (B, in_channels, H, W) and an ``embedding`` (B, E)."""
        if self.checkpointed and torch.is_grad_enabled():
            result: Tensor = checkpoint(self._forward, x, embedding, use_reentrant=False)
            return result
        return self._forward(x, embedding)

    def _forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv0(self._resampled(silu(self.norm0(x))))
        parameters = self.affine(embedding)[:, :, None, None]
        if self.modulates:
            scale, shift = parameters.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm1(h), 1 + scale)
        else:
            # a convolution does not need its result for the backward pass: it may be overwritten, here and below
            h = self.norm1(h.add_(parameters))
        h = self.conv1(functional.dropout(silu(h), self.dropout, self.training))
        h = h.add_(self._shortcut(x))
        if self.scale != 1:
            h = h.mul_(self.scale)
        return h if self.attention is None else self.attention(h)

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resample is None:
            return x
        return halved(x) if self.resample == "down" else doubled(x)

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.shortcut is None:
            return self._resampled(x)
        # a convolution of single points and either resampling may change places: it comes where there are fewer points
        if self.resample == "up":
            return doubled(self.shortcut(x))
        result: Tensor = self.shortcut(self._resampled(x))
        return result
