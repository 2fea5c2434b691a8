"""The U-Net that both families share: scales, skips, padding."""

import logging
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from ai4sim.errors import InputError
from ai4sim.networks import at_full_precision, channels_last_on_cpu, require_multiple
from downscaling.corrdiff.networks.blocks import Block, Resampling, silu
from downscaling.corrdiff.networks.embeddings import NoiseEmbedding
from downscaling.corrdiff.networks.style import Style

logger = logging.getLogger(__name__)


class Backbone(nn.Module):
    """A U-Net of residual blocks that is told of a level of noise; subclasses say which blocks.

    Maps whose sizes are no multiples are padded below and to the right by reflection, and the output is cut back.

    Args:
        in_channels: channels of the input, all that is concatenated to it included.
        out_channels: channels of the output.
        noise_embedding: gives what blocks are told.
        style: of the blocks.
        widths: channels at every scale, from full resolution to the coarsest.
        first_width: channels of the first convolution.
        num_blocks: at every scale of the encoder; the decoder has one more.
        attends: whether blocks of a scale have attention, for each scale.
        decoder_attends_always: all of the decoder's blocks, instead of the last one, of a scale that attends.
        heads: of the attention for a number of channels.
        bottleneck_attention: the first block at the coarsest scale of the decoder has attention.
        dropout: see `Block`.
        checkpoint_level: blocks whose input is at one of so many finest scales are computed again for the backward
            pass, see `Block`.
        autopad: pad maps of other sizes, instead of refusing them.

    Attributes:
        in_channels: as given.
        out_channels: as given.
        n_embedding: length of the embedding.
        multiple: what rows and columns are padded to a multiple of, 2**(scales - 1).
        encoder: blocks in the order in which maps pass through them; the result of each is a skip.
        decoder: likewise; at every scale ``num_blocks`` + 1 of them take a skip.

    Raises:
        InputError: numbers that are out of range, or channels that cannot be normalised in groups.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        noise_embedding: NoiseEmbedding,
        style: Style,
        *,
        widths: Sequence[int],
        first_width: int,
        num_blocks: int,
        attends: Sequence[bool],
        decoder_attends_always: bool,
        heads: Callable[[int], int],
        bottleneck_attention: bool,
        dropout: float,
        checkpoint_level: int,
        autopad: bool,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        for what, value in (("in_channels", in_channels), ("out_channels", out_channels), ("num_blocks", num_blocks)):
            if value < 1:
                raise InputError(f"{name}: {what} is {value}; expected at least 1")
        if not 0 <= dropout < 1:
            raise InputError(f"{name}: dropout is {dropout}; expected 0 or more, and less than 1")
        scales = len(widths)
        if not 0 <= checkpoint_level <= scales:
            raise InputError(f"{name}: checkpoint_level is {checkpoint_level}; expected 0 to {scales}, the scales")
        self.in_channels, self.out_channels, self.autopad = in_channels, out_channels, autopad
        self.multiple, self.n_embedding = 2 ** (scales - 1), noise_embedding.n_embedding
        self.noise_embedding = noise_embedding

        def block(
            inputs: int, outputs: int, level: int, *, attention: bool = False, resample: Resampling = None
        ) -> Block:
            """A block whose input is at ``level``."""
            return Block(
                inputs,
                outputs,
                self.n_embedding,
                style,
                resample=resample,
                heads=heads(outputs) if attention else 0,
                dropout=dropout,
                checkpointed=level < checkpoint_level,
            )

        self.stem = nn.Conv2d(in_channels, first_width, 3, padding=1)
        style.init(self.stem)
        encoder: list[Block] = []
        channels, skips = first_width, [first_width]
        for level, width in enumerate(widths):
            if level:
                encoder.append(block(channels, channels, level - 1, resample="down"))
                skips.append(channels)
            for _ in range(num_blocks):
                encoder.append(block(channels, width, level, attention=attends[level]))
                skips.append(width)
                channels = width
        coarsest = scales - 1
        decoder = [
            block(channels, channels, coarsest, attention=bottleneck_attention),
            block(channels, channels, coarsest),
        ]
        takes_skip = [False, False]
        for level in reversed(range(scales)):
            if level < coarsest:
                decoder.append(block(channels, channels, level + 1, resample="up"))
                takes_skip.append(False)
            for number in range(num_blocks + 1):
                attention = attends[level] and (decoder_attends_always or number == num_blocks)
                decoder.append(block(channels + skips.pop(), widths[level], level, attention=attention))
                takes_skip.append(True)
                channels = widths[level]
        self.encoder, self.decoder = nn.ModuleList(encoder), nn.ModuleList(decoder)
        self._takes_skip = tuple(takes_skip)
        self.norm = style.norm(channels)
        self.head = nn.Conv2d(channels, out_channels, 3, padding=1)
        style.init_last(self.head)

    def forward(self, x: Tensor, noise_label: Tensor, lead_embedding: Tensor | None = None) -> Tensor:
        """Maps (B, out_channels, H, W), in single precision at least also under autocast.

        Args:
            x: (B, in_channels, H, W).
            noise_label: (B,), a function of the noise's standard deviation; of no effect with the embedding ``zero``.
            lead_embedding: (B, n_embedding) added to the embedding of the noise.

        Raises:
            InputError: H or W is no multiple of ``multiple``, and ``autopad`` is off or the maps too small to reflect.
            ValueError: tensors of another shape.
        """
        name = type(self).__name__
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"{name} got maps of the shape {tuple(x.shape)}, not (B, {self.in_channels}, H, W)")
        if noise_label.shape != (x.shape[0],):
            raise ValueError(f"{name} got noise labels of the shape {tuple(noise_label.shape)}, not ({x.shape[0]},)")
        embedding = self.noise_embedding(noise_label, like=x)
        if lead_embedding is not None:
            expected = (x.shape[0], self.n_embedding)
            if lead_embedding.shape != expected:
                raise ValueError(
                    f"{name} got lead-time embeddings of the shape {tuple(lead_embedding.shape)}, not {expected}"
                )
            embedding = embedding + lead_embedding
        height, width = x.shape[-2:]
        rows, columns = -height % self.multiple, -width % self.multiple
        if not rows and not columns:
            return self._on_multiple(x, embedding)
        if not self.autopad:
            require_multiple(height, width, self.multiple, network=name)
        if rows >= height or columns >= width:
            raise InputError(
                f"{name} cannot pad {height} x {width} by reflection to {height + rows} x {width + columns}, multiples"
                f" of {self.multiple}: use larger maps or fewer scales"
            )
        if not torch.compiler.is_compiling():
            _log_padding(name, height, width, height + rows, width + columns)
        x = functional.pad(x, (0, columns, 0, rows), mode="reflect")
        return self._on_multiple(x, embedding)[..., :height, :width]

    def _on_multiple(self, x: Tensor, embedding: Tensor) -> Tensor:
        x = self.stem(channels_last_on_cpu(x))
        skips = [x]
        for block in self.encoder:
            x = block(x, embedding)
            skips.append(x)
        for block, takes_skip in zip(self.decoder, self._takes_skip, strict=True):
            x = block(torch.cat([x, skips.pop()], dim=1) if takes_skip else x, embedding)
        # in bfloat16 a temperature of a standard deviation of 10 K would go in steps of 0.16 K
        return at_full_precision(self.head, silu(self.norm(x)))


@cache
def _log_padding(name: str, height: int, width: int, padded_height: int, padded_width: int) -> None:
    """Say once what is padded to what."""
    logger.info(
        "%s pads maps of %d x %d by reflection to %d x %d and cuts its output back",
        name,
        height,
        width,
        padded_height,
        padded_width,
    )


def check_scales(name: str, model_channels: int, channel_mult: Sequence[int]) -> list[int]:
    """Channels at every scale.

    Raises:
        InputError: no scale, or numbers less than 1.
    """
    if model_channels < 1:
        raise InputError(f"{name}: model_channels is {model_channels}; expected at least 1")
    if not channel_mult or min(channel_mult) < 1:
        raise InputError(f"{name}: channel_mult is {list(channel_mult)}; expected one or more, each at least 1")
    return [model_channels * factor for factor in channel_mult]


def attending_scales(
    name: str, attn_resolutions: Sequence[int], resolution: int | tuple[int, int], scales: int
) -> list[bool]:
    """Which scales have attention: those whose number of rows is listed.

    Args:
        name: of the network, for the message.
        attn_resolutions: numbers of rows.
        resolution: rows, or rows and columns, of the maps that this counts from.
        scales: number of them.

    Raises:
        InputError: a number of rows that no scale has, which would leave out attention silently.
    """
    rows = resolution if isinstance(resolution, int) else resolution[0]
    if rows < 1:
        raise InputError(f"{name}: resolution is {resolution}; expected at least 1")
    at_scales = [rows >> level for level in range(scales)]
    for wanted in attn_resolutions:
        if wanted not in at_scales:
            raise InputError(
                f"{name}: attn_resolutions has {wanted}, but the scales of maps with {rows} rows have"
                f" {', '.join(map(str, at_scales))} rows: list some of these, or none"
            )
    return [value in attn_resolutions for value in at_scales]
