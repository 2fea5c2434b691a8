"""Architectures that two or more use cases share: bare torch modules, tensors in and out."""

from ai4sim.networks.blocks import ConvBlock, GhostBlock, GhostConv, make_activation
from ai4sim.networks.film import Film
from ai4sim.networks.half_unet import HalfUNet
from ai4sim.networks.layout import channels_last_on_cpu
from ai4sim.networks.padding import on_multiple, require_multiple
from ai4sim.networks.precision import at_full_precision
from ai4sim.networks.unet import UNet

__all__ = [
    "ConvBlock",
    "Film",
    "GhostBlock",
    "GhostConv",
    "HalfUNet",
    "UNet",
    "at_full_precision",
    "channels_last_on_cpu",
    "make_activation",
    "on_multiple",
    "require_multiple",
]
