"""From coarse cells to fine points: separable interpolation as a product with two matrices.

Fine point i of n cells with a factor f has the coarse coordinate s = (i + 1/2) / f - 1/2: both grids cover the same
area, and values stand at the centres of cells. Beyond the outermost centres both methods go on as within.
"""

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ai4sim.errors import InputError

Method = Literal["linear", "cubic"]
Float = NDArray[np.float64]


@lru_cache(maxsize=32)
def weights(n: int, factor: int, method: Method = "linear") -> Float:
    """Matrix (factor n, n) from the cells along one axis to the fine points.

    Both are exact for affine fields, also at the rim. ``cubic`` is the cubic convolution of Keys (1981, IEEE Trans.
    ASSP 29, 1153-1160, eq. 15, a = -1/2), exact for quadratic fields within. At the rim it goes on linearly: his own
    boundary values, eq. 25, are quadratic, and run far away in half a coarse cell.

    Args:
        n: number of cells.
        factor: fine points along a cell.
        method: of interpolation.

    Raises:
        InputError: too few cells for the method.
    """
    if factor == 1:
        return _frozen(np.eye(n))
    if n < 2:
        raise InputError(f"{n} coarse cells along an axis: interpolation needs at least 2")
    coordinate = (np.arange(factor * n) + 0.5) / factor - 0.5
    matrix = np.zeros((factor * n, n))
    rows = np.arange(factor * n)
    if method == "linear":
        left = np.clip(np.floor(coordinate).astype(int), 0, n - 2)
        weight = coordinate - left
        matrix[rows, left] = 1 - weight
        matrix[rows, left + 1] = weight
        return _frozen(matrix)
    # with one ghost cell at either end
    wide = np.zeros((factor * n, n + 2))
    left = np.clip(np.floor(coordinate).astype(int), 0, n - 2)
    for offset, weight in enumerate(_keys(coordinate - left)):
        wide[rows, left + offset] = weight
    matrix = wide[:, 1:-1].copy()
    for ghost, inner in ((0, (0, 1)), (n + 1, (n - 1, n - 2))):
        for cell, share in zip(inner, (2.0, -1.0), strict=True):
            matrix[:, cell] += share * wide[:, ghost]
    return _frozen(matrix)


def _keys(t: Float) -> tuple[Float, Float, Float, Float]:
    """Weights of the four cells around, from the one before the last; ``t`` is the distance from the last.

    They are the pieces of the kernel of Keys, eq. 15, that hold for t from 0 to 1, and go on as polynomials beyond.
    """
    return (
        -0.5 * t**3 + t**2 - 0.5 * t,
        1.5 * t**3 - 2.5 * t**2 + 1,
        -1.5 * t**3 + 2 * t**2 + 0.5 * t,
        0.5 * t**3 - 0.5 * t**2,
    )


def _frozen(matrix: Float) -> Float:
    matrix.flags.writeable = False
    return matrix


def interpolate(fields: NDArray[np.floating], factor: int, method: Method) -> NDArray[np.float32]:
    """Fine fields (..., factor h, factor w) of coarse ones (..., h, w), in single precision."""
    rows, columns = (weights(size, factor, method).astype(np.float32) for size in fields.shape[-2:])
    return np.asarray(rows @ np.asarray(fields, np.float32) @ columns.T)


class Upsample(nn.Module):
    """Linear interpolation of (B, C, h, w) to (B, C, factor h, factor w).

    Args:
        factor: fine points along a cell; with 1 nothing is done.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Fine fields, in the type and on the device of the coarse ones."""
        if self.factor == 1:
            return x
        rows, columns = (torch.from_numpy(weights(size, self.factor).copy()).to(x) for size in x.shape[-2:])
        return rows @ x @ columns.T
