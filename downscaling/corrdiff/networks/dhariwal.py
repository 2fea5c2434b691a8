"""The U-Net of ADM."""

from collections.abc import Sequence

from ai4sim.errors import InputError
from downscaling.corrdiff.networks.backbone import Backbone, attending_scales, check_scales
from downscaling.corrdiff.networks.embeddings import NoiseEmbedding
from downscaling.corrdiff.networks.layers import keep
from downscaling.corrdiff.networks.style import ADM

HEAD_CHANNELS = 64
"""Channels of one head of the attention."""


class DhariwalUNet(Backbone):
    """U-Net of Dhariwal and Nichol (2021, arXiv:2105.05233, ADM), as in EDM (Karras et al. 2022, arXiv:2206.00364).

    Unlike `SongUNet`, the embedding scales and shifts normalised maps, attention has one head for 64 channels and comes
    in all blocks of the decoder that it comes in at all, sums are not scaled, and last layers begin at 0.

    Args:
        in_channels: channels of the input, all that is concatenated to it included.
        out_channels: channels of the output.
        model_channels: channels that the factors multiply.
        channel_mult: factors for the channels at every scale, from full resolution to the coarsest.
        num_blocks: at every scale of the encoder; the decoder has one more.
        attn_resolutions: numbers of rows at which blocks have attention, counted from ``resolution``.
        dropout: share of values left out inside blocks, in training.
        channel_mult_emb: length of the embedding over ``model_channels``.
        checkpoint_level: see `SongUNet`.
        resolution: see `SongUNet`.
        autopad: see `SongUNet`.

    Raises:
        InputError: as `SongUNet`; or less than 64 channels, or no multiple of them, where there is attention.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (32, 16, 8),
        dropout: float = 0.1,
        channel_mult_emb: int = 4,
        checkpoint_level: int = 0,
        resolution: int | tuple[int, int] = 64,
        autopad: bool = True,
    ) -> None:
        name = type(self).__name__
        widths = check_scales(name, model_channels, channel_mult)
        attends = attending_scales(name, attn_resolutions, resolution, len(widths))
        for width, has_attention in zip(widths, [*attends[:-1], True], strict=True):
            if has_attention and width % HEAD_CHANNELS:
                raise InputError(
                    f"{name}: {width} channels where there is attention; expected a multiple of {HEAD_CHANNELS}, those"
                    " of one head"
                )
        super().__init__(
            in_channels,
            out_channels,
            NoiseEmbedding(model_channels, model_channels * channel_mult_emb, reach_end=False, init=keep),
            ADM,
            widths=widths,
            first_width=widths[0],
            num_blocks=num_blocks,
            attends=attends,
            decoder_attends_always=True,
            heads=lambda channels: channels // HEAD_CHANNELS,
            bottleneck_attention=True,
            dropout=dropout,
            checkpoint_level=checkpoint_level,
            autopad=autopad,
        )
