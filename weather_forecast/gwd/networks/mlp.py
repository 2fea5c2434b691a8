"""The dense reference network."""

from typing import Literal

from torch import Tensor, nn

from ai4sim.errors import InputError
from weather_forecast.gwd.layout import ColumnLayout
from weather_forecast.gwd.networks.base import StandardizedNetwork

Activation = Literal["silu", "relu", "gelu", "tanh"]
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}


def make_activation(name: str) -> nn.Module:
    """The activation layer called ``name``.

    Raises:
        InputError: no such activation.
    """
    if name not in _ACTIVATIONS:
        raise InputError(f"activation {name!r} is unknown; choose one of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]()


class MLP(StandardizedNetwork):
    """Fully connected network on the whole column, after Chantry et al. (2021, JAMES, 10.1029/2021MS002477).

    Args:
        layout: order and number of the features.
        width: units of each hidden layer.
        depth: number of hidden layers; 0 is a linear regression.
        activation: ``silu`` (smooth, for tangent-linear and adjoint use), ``relu``, ``gelu`` or ``tanh``.
    """

    def __init__(
        self,
        layout: ColumnLayout | None = None,
        width: int = 256,
        depth: int = 3,
        activation: Activation = "silu",
    ) -> None:
        super().__init__(layout)
        layers: list[nn.Module] = []
        n_features = self.layout.n_inputs
        for _ in range(depth):
            layers += [nn.Linear(n_features, width), make_activation(activation)]
            n_features = width
        self.layers = nn.Sequential(*layers, nn.Linear(n_features, self.layout.n_outputs))

    def body(self, z: Tensor) -> Tensor:
        """Scaled tendencies (B, n_outputs) of standardised columns ``z`` (B, n_inputs)."""
        return self.layers(z)
