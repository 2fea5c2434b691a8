"""Networks: noisy or empty images, conditions and a level of noise in, images out."""

from downscaling.corrdiff.networks.backbone import Backbone
from downscaling.corrdiff.networks.dhariwal import DhariwalUNet
from downscaling.corrdiff.networks.embeddings import LeadTimeEmbedding, NoiseEmbedding
from downscaling.corrdiff.networks.position import FixedGrid, LearntTable, linear_grid, sinusoidal_grid
from downscaling.corrdiff.networks.positioned import PositionedUNet, UNetFactory
from downscaling.corrdiff.networks.presets import PRESETS, Preset
from downscaling.corrdiff.networks.song_unet import SongUNet

__all__ = [
    "PRESETS",
    "Backbone",
    "DhariwalUNet",
    "FixedGrid",
    "LeadTimeEmbedding",
    "LearntTable",
    "NoiseEmbedding",
    "PositionedUNet",
    "Preset",
    "SongUNet",
    "UNetFactory",
    "linear_grid",
    "sinusoidal_grid",
]
