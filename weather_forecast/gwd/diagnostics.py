"""How far a network breaks the exact symmetries of the scheme."""

import torch
from torch import Tensor

from weather_forecast.gwd.networks.base import ColumnNetwork

ADDED_WIND = {"u": 13.0, "v": -7.0}  # m s-1


def rotation_error(network: ColumnNetwork, x: Tensor, prediction: Tensor) -> Tensor:
    """Change of the drag, turned back, when the wind is turned by 90 degrees.

    Args:
        network: maps columns to tendencies.
        x: (B, n_inputs) in physical units.
        prediction: (B, n_outputs), the network's own for ``x``.

    Returns:
        (B,) root mean square over components and levels, m s-2.
    """
    layout = network.layout
    turned = x.clone()
    turned[:, layout.slice_of("u")] = -x[:, layout.slice_of("v")]
    turned[:, layout.slice_of("v")] = x[:, layout.slice_of("u")]
    drag = network(turned)
    back = torch.cat([drag[:, layout.slice_of("dvdt")], -drag[:, layout.slice_of("dudt")]], dim=1)
    return _root_mean_square(back - prediction)


def galilean_error(network: ColumnNetwork, x: Tensor, prediction: Tensor) -> Tensor:
    """Change of the drag when a constant wind is added to the column; arguments and result as above."""
    moved = x.clone()
    for name, speed in ADDED_WIND.items():
        moved[:, network.layout.slice_of(name)] += speed
    return _root_mean_square(network(moved) - prediction)


def _root_mean_square(error: Tensor) -> Tensor:
    return error.square().mean(dim=1).sqrt()
