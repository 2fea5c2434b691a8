"""Segformer: four scales of attention with shortened keys and values, and a convolutional decoder."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ai4sim.errors import InputError
from ai4sim.networks import channels_last_on_cpu, on_multiple, require_multiple
from weather_forecast.lam.networks.base import Grid, LamNetwork, ModelType

# (kernel, stride, padding) of the overlapping patches that each scale begins with
_PATCHES = ((7, 4, 3), (3, 2, 1), (3, 2, 1), (3, 2, 1))
# halved by the stem, 4, 2, 2, 2 by the scales
_MULTIPLE = 64


@dataclass(frozen=True)
class SegformerSettings:
    """Settings of :class:`Segformer`; the sequences have one entry for each of the four scales, finest first.

    Args:
        dims: channels.
        heads: heads of the attention; divide the channels.
        ff_expansion: width of the feed-forward layers over that of the channels.
        reduction_ratio: how often keys and values are coarser than queries, in each direction.
        num_layers: layers of attention and feed-forward of every scale.
        decoder_dim: channels to which the decoder takes every scale.
        num_downsampling_chans: channels of the stem.
        autopad: pad the grid to a multiple of 64 instead of refusing it.
    """

    dims: Sequence[int] = (32, 64, 160, 256)
    heads: Sequence[int] = (1, 2, 5, 8)
    ff_expansion: Sequence[int] = (8, 8, 4, 4)
    reduction_ratio: Sequence[int] = (8, 4, 2, 1)
    num_layers: int = 2
    decoder_dim: int = 256
    num_downsampling_chans: int = 32
    autopad: bool = True


class ChannelNorm(nn.Module):
    """Normalisation over the channels of each point, ``(x - mean) / (std + 1e-5) * gain + shift``.

    Args:
        channels: number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.shift = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape as ``x`` (B, C, H, W)."""
        centred = x - x.mean(dim=1, keepdim=True)
        # The standard deviation as a norm, whose gradient is 0 where all channels are equal; that of a square root
        # would be infinite there.
        std = torch.linalg.vector_norm(centred, dim=1, keepdim=True) / math.sqrt(x.shape[1])
        return centred / (std + 1e-5) * self.gain + self.shift


class EfficientAttention(nn.Module):
    """Self-attention with keys and values of patches (Xie et al. 2021, section 3.1; Wang et al. 2021, Eq. 1).

    Args:
        channels: number of channels.
        heads: number of heads.
        reduction: rows and columns of the patches; the grid must be a multiple of it.
    """

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries = nn.Conv2d(channels, channels, 1, bias=False)
        self.keys_values = nn.Conv2d(channels, 2 * channels, reduction, stride=reduction, bias=False)
        self.out = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape as ``x`` (B, C, H, W)."""
        keys, values = self.keys_values(x).chunk(2, dim=1)
        q, k, v = (self._to_tokens(part) for part in (self.queries(x), keys, values))
        attended = functional.scaled_dot_product_attention(q, k, v)
        return self.out(attended.transpose(-2, -1).reshape(x.shape))

    def _to_tokens(self, x: Tensor) -> Tensor:
        """(B, heads, H W, C / heads) of (B, C, H, W)."""
        return x.flatten(2).unflatten(1, (self.heads, -1)).transpose(-2, -1)


class MixFeedForward(nn.Sequential):
    """Feed-forward layer that sees its neighbours, and so the position (Xie et al. 2021, Eq. 3).

    Args:
        channels: number of channels.
        expansion: width of the hidden layer over ``channels``.
    """

    def __init__(self, channels: int, expansion: int) -> None:
        hidden = channels * expansion
        super().__init__(
            nn.Conv2d(channels, hidden, 1),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
            nn.Conv2d(hidden, hidden, 1),
            nn.GELU(),
            nn.Conv2d(hidden, channels, 1),
        )


class TransformerLayer(nn.Module):
    """``x + attention(norm(x))``, then ``x + feed_forward(norm(x))``.

    Args:
        channels: number of channels.
        heads: heads of the attention.
        reduction: see :class:`EfficientAttention`.
        expansion: see :class:`MixFeedForward`.
    """

    def __init__(self, channels: int, heads: int, reduction: int, expansion: int) -> None:
        super().__init__()
        self.attention = EfficientAttention(channels, heads, reduction)
        self.attention_norm = ChannelNorm(channels)
        self.feed_forward = MixFeedForward(channels, expansion)
        self.feed_forward_norm = ChannelNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape as ``x`` (B, C, H, W)."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.feed_forward_norm(x))


def _convolution(in_channels: int, out_channels: int) -> list[nn.Module]:
    return [nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]


class Segformer(LamNetwork):
    """Segformer (Xie et al. 2021, NeurIPS, arXiv:2105.15203) with a stem before it and an up-sampling decoder.

    A stem halves the grid. Four scales of 1/8 to 1/64 of the grid follow; each begins with overlapping patches and
    has layers of attention and feed-forward. The decoder brings all scales to 1/8 of the grid, fuses them, and goes
    up to the full grid in three steps.

    Taking patches apart and mapping each linearly is the same as a strided convolution, with the same parameters,
    and that is how it is done here.

    Raises:
        InputError: the settings do not fit together, or the grid is no multiple of 64 and ``autopad`` is off.
    """

    settings_kls = SegformerSettings
    model_type = ModelType.TRANSFORMER
    onnx_supported = True

    def build(self, grid: Grid | None) -> None:
        """Make the layers."""
        own: SegformerSettings = self.settings
        _check(own)
        if not own.autopad:
            require_multiple(*self.input_shape, _MULTIPLE, network="Segformer")

        stem = own.num_downsampling_chans
        self.stem = nn.Sequential(nn.MaxPool2d(2), *_convolution(self.in_channels, stem), *_convolution(stem, stem))
        self.scales = nn.ModuleList()
        scales = zip(_PATCHES, own.dims, own.heads, own.reduction_ratio, own.ff_expansion, strict=True)
        inputs = stem
        for (kernel, stride, padding), dim, heads, reduction, expansion in scales:
            patches = nn.Conv2d(inputs, dim, kernel, stride=stride, padding=padding)
            layers = (TransformerLayer(dim, heads, reduction, expansion) for _ in range(own.num_layers))
            self.scales.append(nn.Sequential(patches, *layers))
            inputs = dim

        width = own.decoder_dim
        self.lateral = nn.ModuleList(nn.Conv2d(dim, width, 1) for dim in own.dims)

        def upsample() -> nn.Module:
            return nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=True)

        self.decoder = nn.Sequential(
            *_convolution(4 * width, width),
            upsample(),
            *_convolution(width, width // 2),
            upsample(),
            *_convolution(width // 2, width // 4),
            upsample(),
            nn.Conv2d(width // 4, self.out_channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, out_channels, lat, lon) of ``x`` (batch, in_channels, lat, lon)."""
        return on_multiple(self._on_multiple, x, _MULTIPLE, autopad=self.settings.autopad, name="Segformer")

    def _on_multiple(self, x: Tensor) -> Tensor:
        x = self.stem(channels_last_on_cpu(x))
        maps = []
        for level, (scale, lateral) in enumerate(zip(self.scales, self.lateral, strict=True)):
            x = scale(x)
            wide = lateral(x)
            maps.append(functional.interpolate(wide, scale_factor=float(2**level), mode="nearest") if level else wide)
        return self.decoder(torch.cat(maps, dim=1))


def _check(settings: SegformerSettings) -> None:
    """Refuse settings that do not fit together."""
    for name in ("dims", "heads", "ff_expansion", "reduction_ratio"):
        values = getattr(settings, name)
        if not isinstance(values, Sequence) or len(values) != len(_PATCHES):
            raise InputError(f"Segformer: {name} needs one number for each of {len(_PATCHES)} scales, got {values!r}")
    for level, (dim, heads, reduction) in enumerate(
        zip(settings.dims, settings.heads, settings.reduction_ratio, strict=True), start=1
    ):
        if dim % heads:
            raise InputError(f"Segformer: the {heads} heads of scale {level} do not divide its {dim} channels")
        if (_MULTIPLE // 2 ** (level + 2)) % reduction:
            raise InputError(
                f"Segformer: reduction_ratio {reduction} of scale {level} must divide {_MULTIPLE // 2 ** (level + 2)},"
                " so that every padded grid can be divided"
            )
    if settings.decoder_dim % 4:
        raise InputError(f"Segformer: decoder_dim must be a multiple of 4, got {settings.decoder_dim}")
