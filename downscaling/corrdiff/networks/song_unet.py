"""The U-Net of DDPM++, in the form of EDM."""

from collections.abc import Sequence

from downscaling.corrdiff.networks.backbone import Backbone, attending_scales, check_scales
from downscaling.corrdiff.networks.embeddings import EmbeddingType, NoiseEmbedding
from downscaling.corrdiff.networks.style import SONG


class SongUNet(Backbone):
    """U-Net of Song et al. (2021, arXiv:2011.13456, DDPM++) with the changes of Karras et al. (2022, arXiv:2206.00364).

    The defaults are those of Mardani et al. (2025, doi:10.1038/s43247-025-02042-5) for fields of 448 x 448. With the
    embedding ``zero`` it is a U-Net for regression; the weights by which an embedding would act are still there.

    Args:
        in_channels: channels of the input, all that is concatenated to it included.
        out_channels: channels of the output.
        model_channels: channels that the factors multiply.
        channel_mult: factors for the channels at every scale, from full resolution to the coarsest.
        num_blocks: at every scale of the encoder; the decoder has one more.
        attn_resolutions: numbers of rows at which blocks have attention, counted from ``resolution``.
        dropout: share of values left out inside blocks, in training.
        embedding_type: of the level of noise, see `NoiseEmbedding`.
        channel_mult_emb: length of the embedding over ``model_channels``.
        channel_mult_noise: number of the noise level's features over ``model_channels``.
        bottleneck_attention: the first block of the decoder has attention.
        checkpoint_level: blocks at so many of the finest scales keep nothing for the backward pass and are computed
            again: less memory, up to a third more time.
        resolution: rows, or rows and columns, that ``attn_resolutions`` counts from. Networks take maps of any size,
            and have attention at the same scales for all of them.
        autopad: pad maps that cannot be halved often enough, instead of refusing them.

    Raises:
        InputError: numbers out of range, an unknown embedding, a number of rows in ``attn_resolutions`` that no scale
            has, or channels that cannot be normalised in groups.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 2, 2),
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (28,),
        dropout: float = 0.13,
        embedding_type: EmbeddingType = "positional",
        channel_mult_emb: int = 4,
        channel_mult_noise: int = 1,
        bottleneck_attention: bool = True,
        checkpoint_level: int = 0,
        resolution: int | tuple[int, int] = 448,
        autopad: bool = True,
    ) -> None:
        name = type(self).__name__
        widths = check_scales(name, model_channels, channel_mult)
        super().__init__(
            in_channels,
            out_channels,
            NoiseEmbedding(model_channels * channel_mult_noise, model_channels * channel_mult_emb, embedding_type),
            SONG,
            widths=widths,
            first_width=model_channels,
            num_blocks=num_blocks,
            attends=attending_scales(name, attn_resolutions, resolution, len(widths)),
            decoder_attends_always=False,
            heads=lambda _: 1,
            bottleneck_attention=bottleneck_attention,
            dropout=dropout,
            checkpoint_level=checkpoint_level,
            autopad=autopad,
        )
