"""A network whose structure is the wave physics: momentum flux in each direction, deposited on its way up."""

from typing import Literal

import torch
from torch import Tensor, nn

from ai4sim.errors import InputError
from weather_forecast.gwd import config
from weather_forecast.gwd.layout import ColumnLayout
from weather_forecast.gwd.networks.base import ColumnNetwork
from weather_forecast.gwd.networks.mlp import Activation, make_activation
from weather_forecast.gwd.networks.pressure import LayerPressures
from weather_forecast.gwd.spectrum import azimuths

Deposit = Literal["softmax", "survival"]
_WIND_UNIT = 25.0  # m s-1


def running_maximum(profile: Tensor) -> Tensor:
    """Maximum of the last axis from each entry to the end, ``out[k] = max(profile[k:])``.

    Doubling shifts (Hillis and Steele 1986, CACM 29, 1170-1183) need log2(n) vectorised steps; ``torch.cummax`` walks
    each row one by one, keeps indices and has no ONNX counterpart.
    """
    length, shift = profile.shape[-1], 1
    while shift < length:
        shifted = torch.maximum(profile[..., :-shift], profile[..., shift:])
        profile = torch.cat([shifted, profile[..., -shift:]], dim=-1)
        shift *= 2
    return profile


class AzimuthFluxNet(ColumnNetwork):
    """One network for all directions says where the flux launched in a direction is deposited.

    The wind is projected on ``n_azimuths`` directions, averaged to the half-levels and taken relative to the launch
    half-level. From it, its running maximum upward (what critical levels have removed) and the temperature, one MLP
    shared by all directions gives the share of the launch flux that each layer takes. For any weights, therefore: the
    momentum of the column closes, the flux of a direction decreases upward, the tendencies turn and mirror with the
    wind, vanish for a wind constant with height, and do not feel a constant wind added to the column.

    Args:
        layout: order and number of the features.
        grid: vertical grid of the columns.
        n_azimuths: number of directions, a multiple of 4; need not be that of the scheme which made the labels.
        width: units of each hidden layer.
        depth: number of hidden layers.
        activation: ``silu``, ``relu``, ``gelu`` or ``tanh``.
        deposit: ``softmax``: shares of the layers times the total; ``survival``: the part of the arriving flux that
            each layer takes, from the launch level upward.
        launch_flux: flux per azimuth at the launch level, Pa.

    Raises:
        InputError: ``n_azimuths`` is not a multiple of 4, ``depth`` is below 1, unknown ``deposit``, or the launch level of
            the grid is not the last level of the layout.
    """

    cosine: Tensor
    sine: Tensor

    def __init__(
        self,
        layout: ColumnLayout | None = None,
        grid: str = "L91",
        n_azimuths: int = 8,
        width: int = 256,
        depth: int = 3,
        activation: Activation = "silu",
        deposit: Deposit = "softmax",
        launch_flux: float = 3.75e-3,
    ) -> None:
        super().__init__(layout)
        if n_azimuths < 4 or n_azimuths % 4:
            raise InputError(f"n_azimuths must be a multiple of 4, got {n_azimuths}")
        if depth < 1:
            raise InputError(f"depth must be at least 1, got {depth}")
        if deposit not in ("softmax", "survival"):
            raise InputError(f"deposit {deposit!r} is unknown; choose softmax or survival")
        n_levels = self.layout.n_levels
        self.pressures = LayerPressures(n_levels, grid)
        cosine, sine, factor = azimuths(n_azimuths)
        # trailing axis: broadcasts over levels
        self.register_buffer("cosine", torch.as_tensor(cosine, dtype=torch.get_default_dtype())[:, None])
        self.register_buffer("sine", torch.as_tensor(sine, dtype=torch.get_default_dtype())[:, None])
        self.n_azimuths = n_azimuths
        self.deposit = deposit
        self.flux_unit = launch_flux * factor  # Pa

        # the first layer in two parts, so that what all directions share is computed once per column
        self.column_layer = nn.Linear(n_levels + len(self.layout.scalars), width)
        self.direction_layer = nn.Linear(2 * (n_levels - 1), width, bias=False)
        hidden: list[nn.Module] = [make_activation(activation)]
        for _ in range(depth - 1):
            hidden += [nn.Linear(width, width), make_activation(activation)]
        self.hidden = nn.Sequential(*hidden)
        self.head = nn.Linear(width, n_levels)

    def forward(self, x: Tensor) -> Tensor:
        """Tendencies (B, n_outputs) in m s-2 of columns ``x`` (B, n_inputs) in physical units."""
        self.check_inputs(x)
        shares = self.deposited_shares(x)  # (B, n_azimuths, L-1)
        thickness = self.pressures.thickness(x[:, self.layout.slice_of("surface_pressure")])  # (B, L)

        # opposite directions first: equal shares cancel exactly
        half = self.n_azimuths // 2
        net = shares[:, :half] - shares[:, half:]
        force = self.flux_unit * torch.stack(
            [(net * self.cosine[:half]).sum(1), (net * self.sine[:half]).sum(1)], dim=1
        )  # (B, 2, L-1), Pa
        # the launch layer takes the recoil
        force = torch.cat([force, -force.sum(-1, keepdim=True)], dim=-1)
        return (config.GRAVITY * force / thickness.unsqueeze(1)).flatten(1)

    def deposited_shares(self, x: Tensor) -> Tensor:
        """Share of the launch flux of each direction that each layer above the launch layer takes.

        Args:
            x: (B, n_inputs) columns in physical units.

        Returns:
            (B, n_azimuths, L-1), not negative, with a sum over the layers of at most 1.
        """
        hidden = self.column_layer(self._column_features(x)).unsqueeze(1)
        hidden = hidden + self.direction_layer(self._direction_features(x))  # (B, n_azimuths, width)
        # the flux is summed in the precision of the input, whatever autocast does to the layers
        logits = self.head(self.hidden(hidden)).to(x.dtype)  # (B, n_azimuths, L)
        if self.deposit == "softmax":
            return torch.softmax(logits[..., :-1], -1) * torch.sigmoid(logits[..., -1:] + 3)
        passed = nn.functional.logsigmoid(logits[..., :-1] + 3)
        # flux at the top of each layer, from the launch level upward
        remaining = passed.flip(-1).cumsum(-1).flip(-1).exp()
        below = torch.cat([remaining[..., 1:], torch.ones_like(remaining[..., :1])], -1)
        return below - remaining

    def _column_features(self, x: Tensor) -> Tensor:
        """What all directions share: standardised temperature and scalars, (B, L + n_scalars)."""
        start = self.layout.slice_of("t").start
        return (x[:, start:] - self.inputs.mean[start:]) / self.inputs.std[start:]

    def _direction_features(self, x: Tensor) -> Tensor:
        """Wind along each direction at half-levels 1..L-1 and its running maximum, (B, n_azimuths, 2(L-1))."""
        u, v = (self._relative_wind(x[:, self.layout.slice_of(name)]).unsqueeze(1) for name in ("u", "v"))
        wind = torch.addcmul(self.cosine * u, self.sine, v)  # (B, n_azimuths, L-1)
        return torch.cat([wind, running_maximum(wind.clamp(min=0))], dim=-1)

    @staticmethod
    def _relative_wind(wind: Tensor) -> Tensor:
        """Wind (B, L-1) at half-levels 1..L-1 relative to the launch half-level L, in units of 25 m s-1."""
        half = 0.5 * (wind[:, 1:] + wind[:, :-1])  # half-levels 2..L
        return (torch.cat([wind[:, :1], half[:, :-1]], dim=-1) - half[:, -1:]) / _WIND_UNIT
