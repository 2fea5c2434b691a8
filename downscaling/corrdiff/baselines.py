"""What one would take instead of a generative model; labelled arrays in and out."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from downscaling.corrdiff.interpolation import Method, interpolate

Field = NDArray[np.float32]

LAPSE_RATE: Final = 6.5e-3
"""Fall of temperature with height, K m-1, of the standard atmosphere (ISO 2533)."""


def interpolated(inputs: Field, factor: int, method: Method) -> Field:
    """The input variable itself, interpolated: (..., h, w) to (..., factor h, factor w)."""
    return interpolate(inputs, factor, method)


def lapse_rate_corrected(temperature: Field, height: Field, factor: int) -> Field:
    """Interpolated temperature, K, corrected for what the coarse grid does not know of the height.

    Args:
        temperature: (n, h, w) on the coarse grid.
        height: (n, factor h, factor w) of the fine grid, m.
        factor: fine points along a coarse cell.

    Returns:
        (n, factor h, factor w).
    """
    n, rows, columns = height.shape
    cells = height.reshape(n, rows // factor, factor, columns // factor, factor).mean(axis=(2, 4))
    known = interpolate(cells, factor, "linear")
    return interpolate(temperature, factor, "linear") - np.float32(LAPSE_RATE) * (height - known)


def analog_members(mean: Field, residuals: Field, members: int, cases: Sequence[int], seed: int = 0) -> Field:
    """The regression with residuals that it had for pairs of the training, drawn at random.

    Rain takes part after its transform: residuals of amounts would make it negative, and too dry or too wet where it
    is of another size than in the pair that the residual is of.

    Args:
        mean: (n, channel, y, x) of the regression.
        residuals: (bank, channel, y, x), truth minus regression.
        members: number of draws, without repeats where the bank allows it.
        cases: (n,) numbers of the pairs, from which and the seed the draws follow.
        seed: of the draws.

    Returns:
        (n, member, channel, y, x).
    """
    chosen = [
        np.random.default_rng([seed, case]).choice(len(residuals), members, replace=members > len(residuals))
        for case in cases
    ]
    return mean[:, None] + residuals[np.array(chosen)]
