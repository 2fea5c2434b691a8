"""Attention of all points of a map to each other."""

from torch import Tensor, nn
from torch.nn import functional

from downscaling.corrdiff.networks.layers import PointConv
from downscaling.corrdiff.networks.style import Style


class Attention(nn.Module):
    """Self-attention with a shortcut: (x + projection(softmax(q^T k / sqrt(d)) v)) * scale, of normalised maps.

    Args:
        channels: C of the maps.
        heads: that C is divided among; d = C / heads.
        style: first weights, and the scale of the sum.

    Attributes:
        qkv: gives queries, keys and values, in this order, each by heads.
    """

    def __init__(self, channels: int, heads: int, style: Style) -> None:
        super().__init__()
        self.heads, self.scale = heads, style.skip_scale
        self.norm = style.norm(channels)
        self.qkv = PointConv(channels, 3 * channels)
        self.projection = PointConv(channels, channels)
        style.init_query(self.qkv)
        style.init_last(self.projection)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) of ``x`` (B, C, H, W)."""
        height, width = x.shape[-2:]
        # (B, H W, 3 C), which is how channels-last maps lie in memory already
        qkv = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).contiguous()
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, H W, d)
        a = functional.scaled_dot_product_attention(q, k, v)
        a = a.transpose(1, 2).flatten(2).transpose(1, 2).unflatten(-1, (height, width))  # (B, C, H, W)
        result: Tensor = self.projection(a).add_(x)
        return result if self.scale == 1 else result.mul_(self.scale)
