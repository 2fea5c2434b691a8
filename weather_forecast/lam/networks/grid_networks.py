"""Convolutional networks on the grid: HalfUNet and UNet."""

from dataclasses import dataclass

from torch import Tensor

from ai4sim import networks
from weather_forecast.lam.networks.base import Grid, LamNetwork, ModelType


@dataclass(frozen=True)
class HalfUNetSettings:
    """Settings of :class:`HalfUNet`.

    Args:
        num_filters: channels inside, the same at every scale; even with ``use_ghost``.
        dilation: distance of the kernels' points.
        bias: of the convolutions.
        use_ghost: ghost convolutions in place of plain ones.
        last_activation: class of ``torch.nn`` applied to the output.
        autopad: pad the grid to a multiple of 16 instead of refusing it.
        absolute_pos_embed: add a learnt field per channel to the input.
    """

    num_filters: int = 64
    dilation: int = 1
    bias: bool = False
    use_ghost: bool = False
    last_activation: str = "Identity"
    autopad: bool = True
    absolute_pos_embed: bool = False


class HalfUNet(LamNetwork):
    """:class:`ai4sim.networks.HalfUNet` of depth 4.

    Raises:
        InputError: the grid is no multiple of 16 and ``autopad`` is off, or see :class:`ai4sim.networks.HalfUNet`.
    """

    settings_kls = HalfUNetSettings
    model_type = ModelType.CONVOLUTIONAL
    onnx_supported = True

    def build(self, grid: Grid | None) -> None:
        """Make the layers."""
        own: HalfUNetSettings = self.settings
        self.network = networks.HalfUNet(
            self.in_channels,
            self.out_channels,
            num_filters=own.num_filters,
            dilation=own.dilation,
            bias=own.bias,
            use_ghost=own.use_ghost,
            last_activation=own.last_activation,
            autopad=own.autopad,
            embedded_shape=self.input_shape if own.absolute_pos_embed else None,
        )
        if not own.autopad:
            networks.require_multiple(*self.input_shape, self.network.multiple, network="HalfUNet")

    def forward(self, x: Tensor) -> Tensor:
        """(batch, out_channels, lat, lon) of ``x`` (batch, in_channels, lat, lon)."""
        return self.network(x)


@dataclass(frozen=True)
class UNetSettings:
    """Settings of :class:`UNet`.

    Args:
        init_features: channels at full resolution; they double with each halving.
        autopad: pad the grid to a multiple of 16 instead of refusing it.
    """

    init_features: int = 64
    autopad: bool = True


class UNet(LamNetwork):
    """:class:`ai4sim.networks.UNet` of depth 4.

    Raises:
        InputError: the grid is no multiple of 16 and ``autopad`` is off.
    """

    settings_kls = UNetSettings
    model_type = ModelType.CONVOLUTIONAL
    onnx_supported = True

    def build(self, grid: Grid | None) -> None:
        """Make the layers."""
        own: UNetSettings = self.settings
        self.network = networks.UNet(
            self.in_channels, self.out_channels, init_features=own.init_features, autopad=own.autopad
        )
        if not own.autopad:
            networks.require_multiple(*self.input_shape, self.network.multiple, network="UNet")

    def forward(self, x: Tensor) -> Tensor:
        """(batch, out_channels, lat, lon) of ``x`` (batch, in_channels, lat, lon)."""
        return self.network(x)
