"""A network whose structure is the wave physics: momentum flux in each direction, deposited on its way up."""

import math

import torch
from torch import Tensor, nn

from ai4sim.errors import InputError
from weather_forecast.gwd import config
from weather_forecast.gwd.layout import ColumnLayout
from weather_forecast.gwd.networks.base import ColumnNetwork
from weather_forecast.gwd.networks.mlp import Activation, make_activation
from weather_forecast.gwd.networks.pressure import LayerPressures
from weather_forecast.gwd.spectrum import azimuths

# Units in which the MLP sees its features
_WIND = 25.0  # m s-1
_STABILITY = 0.02  # s-1, a stratospheric buoyancy frequency,
_STABILITY_SPREAD = 0.3  # and how much its logarithm varies
_MIN_N2 = 1e-5  # s-2; the logarithm of weaker stratification says nothing more


class AzimuthFluxNet(ColumnNetwork):
    """One network for all directions says in which layers the flux launched in a direction is deposited.

    The wind is taken relative to the launch half-level and projected on ``n_azimuths`` directions. From its profile
    at levels and half-levels, its running maximum upward (what critical levels have removed), temperature, stability
    and scalars, one MLP shared by all directions gives the share of the launch flux that each layer takes. For any
    weights, therefore: the momentum of the column closes, the flux of a direction decreases upward, the tendencies
    turn and mirror with the wind, vanish for a wind constant with height, and do not feel a constant wind added to
    the column.

    Args:
        layout: order and number of the features.
        grid: vertical grid of the columns.
        n_azimuths: number of directions, a multiple of 4; need not be that of the scheme which made the labels.
        width: units of each hidden layer.
        depth: number of hidden layers.
        activation: ``silu``, ``relu``, ``gelu`` or ``tanh``.
        stability: give the MLP the logarithm of the buoyancy frequency, to which the saturation flux is proportional.
        launch_flux: flux per azimuth at the launch level, Pa.

    Raises:
        InputError: ``n_azimuths`` is not a multiple of 4, ``depth`` is below 1, or the launch level of the grid is not
            the last level of the layout.
    """

    def __init__(
        self,
        layout: ColumnLayout | None = None,
        grid: str = "L91",
        n_azimuths: int = 8,
        width: int = 256,
        depth: int = 3,
        activation: Activation = "silu",
        stability: bool = True,
        launch_flux: float = 3.75e-3,
    ) -> None:
        super().__init__(layout)
        if n_azimuths < 4 or n_azimuths % 4:
            raise InputError(f"AzimuthFluxNet: n_azimuths must be a multiple of 4, got {n_azimuths}")
        if depth < 1:
            raise InputError(f"AzimuthFluxNet: depth must be at least 1, got {depth}")
        n_levels, n_scalars = self.layout.n_levels, len(self.layout.scalars)
        self.pressures = LayerPressures(n_levels, grid)
        self.stability = stability
        cosine, sine, factor = azimuths(n_azimuths)
        self.flux_unit = launch_flux * factor  # Pa
        self._direction = (cosine.tolist(), sine.tolist())

        # The first layer in three parts, the sum of which is one layer on all features: what the directions share and
        # what is linear in the wind is computed once per column, not once per direction.
        self.shared = nn.Linear(n_levels + n_scalars + (n_levels - 1 if stability else 0), width)
        self.wind = nn.Linear(2 * n_levels - 1, width, bias=False)
        self.maximum = nn.Linear(n_levels - 1, width, bias=False)
        layers: list[nn.Module] = [make_activation(activation)]
        for _ in range(depth - 1):
            layers += [nn.Linear(width, width), make_activation(activation)]
        self.layers = nn.Sequential(*layers, nn.Linear(width, n_levels))

    def forward(self, x: Tensor) -> Tensor:
        """Tendencies (B, n_outputs) in m s-2 of columns ``x`` (B, n_inputs) in physical units."""
        self.check_inputs(x)
        shares = self.deposited_shares(x)
        # opposite directions first: equal shares cancel exactly
        half = shares.shape[1] // 2
        excess = shares[:, :half] - shares[:, half:]  # (B, n_azimuths / 2, L-1)
        # sums, not matrix products, which autocast would do in half precision
        force = [(excess * component[:half, None]).sum(1) for component in self.direction(x)]
        deposited = self.flux_unit * torch.stack(force, dim=1)  # (B, 2, L-1), Pa
        # the launch layer takes the recoil
        deposited = torch.cat([deposited, -deposited.sum(-1, keepdim=True)], dim=-1)
        thickness = self.pressures.thickness(x[:, self.layout.slice_of("surface_pressure")])
        return (config.GRAVITY * deposited / thickness.unsqueeze(1)).flatten(1)

    def direction(self, x: Tensor) -> Tensor:
        """Cosines and sines (2, n_azimuths) of the directions, exact to the precision of ``x``."""
        return torch.tensor(self._direction, dtype=x.dtype, device=x.device)

    def deposited_shares(self, x: Tensor) -> Tensor:
        """Share of the launch flux of each direction that each layer above the launch layer takes.

        Args:
            x: (B, n_inputs) columns in physical units.

        Returns:
            (B, n_azimuths, L-1), not negative, with a sum over the layers of at most 1.
        """
        cosine, sine = self.direction(x).unsqueeze(-1)  # (n_azimuths, 1)
        levels, half_levels = self._relative_wind(x)  # (B, 2, L), (B, 2, L-1)
        u, v = half_levels.unsqueeze(2).unbind(1)  # (B, 1, L-1)
        highest = running_maximum((cosine * u + sine * v).clamp(min=0))  # (B, n_azimuths, L-1)

        wind_u, wind_v = self.wind(torch.cat([levels, half_levels], dim=-1)).unsqueeze(2).unbind(1)
        hidden = self.shared(self._shared_features(x)).unsqueeze(1) + cosine * wind_u + sine * wind_v
        hidden = hidden + self.maximum(highest)  # (B, n_azimuths, width)
        # fluxes in the precision of the input, whatever autocast does to the layers
        logits = self.layers(hidden).to(x.dtype)  # (B, n_azimuths, L)
        return torch.softmax(logits[..., :-1], dim=-1) * torch.sigmoid(logits[..., -1:] + 3)

    def _relative_wind(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Wind (B, 2, L) at levels 1..L and (B, 2, L-1) at half-levels 1..L-1, relative to half-level L."""
        wind = torch.stack([x[:, self.layout.slice_of(name)] for name in ("u", "v")], dim=1)
        half_levels = 0.5 * (wind[..., 1:] + wind[..., :-1])  # 2..L
        launch = half_levels[..., -1:]
        half_levels = torch.cat([wind[..., :1], half_levels[..., :-1]], dim=-1)
        return (wind - launch) / _WIND, (half_levels - launch) / _WIND

    def _shared_features(self, x: Tensor) -> Tensor:
        """What has no direction: standardised temperature and scalars, logarithm of N at half-levels 2..L."""
        level = self.layout.slice_of("t")
        standardized = (x[:, level.start :] - self.inputs.mean[level.start :]) / self.inputs.std[level.start :]
        if not self.stability:
            return standardized
        # in double precision: differences of neighbouring levels would carry the rounding of single precision
        half = self.pressures(x[:, self.layout.slice_of("surface_pressure")].double())
        n2 = stratification(x[:, level].double(), 0.5 * (half[:, 1:] + half[:, :-1]))
        log_n = (0.5 * n2.clamp(min=_MIN_N2).log()).to(x.dtype)
        return torch.cat([standardized, (log_n - math.log(_STABILITY)) / _STABILITY_SPREAD], dim=-1)


def stratification(temperature: Tensor, pressure: Tensor) -> Tensor:
    """Squared buoyancy frequency between levels, ``g^2/(cp T) (1 - cp/(R T) dT/dln p)``, of dry air.

    Args:
        temperature: (B, L), K.
        pressure: (B, L), Pa, at the same levels.

    Returns:
        (B, L-1) at the half-levels 2..L, s-2.
    """
    between = 0.5 * (temperature[:, 1:] + temperature[:, :-1])
    lapse = (temperature[:, 1:] - temperature[:, :-1]) / (pressure[:, 1:] / pressure[:, :-1]).log()
    heat = config.HEAT_CAPACITY
    return config.GRAVITY**2 / (heat * between) * (1 - heat / (config.GAS_CONSTANT * between) * lapse)


def running_maximum(profile: Tensor) -> Tensor:
    """Maximum of the last axis from each entry to the end, ``out[k] = max(profile[k:])``.

    ``torch.cummax`` is the fastest form eagerly, above all with its gradient. It has no ONNX counterpart: when the
    network is exported or compiled, shifts that double (Hillis and Steele 1986, CACM 29, 1170-1183) take its place.
    """
    if not torch.compiler.is_compiling():
        return torch.cummax(profile.flip(-1), dim=-1).values.flip(-1)
    return shifted_maximum(profile)


def shifted_maximum(profile: Tensor) -> Tensor:
    """The same in log2(n) vectorised steps, from operations that every exporter knows."""
    length, shift = profile.shape[-1], 1
    while shift < length:
        head = torch.maximum(profile[..., :-shift], profile[..., shift:])
        profile = torch.cat([head, profile[..., -shift:]], dim=-1)
        shift *= 2
    return profile
