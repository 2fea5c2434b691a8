"""Exact symmetries of the wave spectrum as data augmentation."""

import torch
from torch import Tensor

from weather_forecast.gwd.layout import ColumnLayout


def random_symmetry(
    x: Tensor, y: Tensor, layout: ColumnLayout, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Turn and mirror each column at random.

    A scheme whose number of azimuths is divisible by 4 commutes with the eight symmetries of the square: rotations of
    the horizontal plane by 0, 90, 180 and 270 degrees, with or without a mirror. Each one only swaps the components
    or changes their signs, so that the augmented pairs are exact samples of the scheme.

    Args:
        x: (B, n_inputs) columns in physical units.
        y: (B, n_outputs) their tendencies.
        layout: order and number of the features.
        generator: source of the random numbers, on the CPU; the global one by default.

    Returns:
        New tensors of the same shapes; scalars and temperature are unchanged.
    """
    draws = torch.randint(0, 2, (3, len(x), 1), generator=generator).to(x.device)
    swap = draws[0].bool()
    signs = 1 - 2 * draws[1:]  # (2, B, 1)

    def transform(values: Tensor, eastward: str, northward: str) -> Tensor:
        result = values.clone()
        east, north = layout.slice_of(eastward), layout.slice_of(northward)
        east_sign, north_sign = signs.to(values.dtype)
        result[:, east] = east_sign * torch.where(swap, values[:, north], values[:, east])
        result[:, north] = north_sign * torch.where(swap, values[:, east], values[:, north])
        return result

    return transform(x, "u", "v"), transform(y, "dudt", "dvdt")
