"""How far apart points of the residual know of each other: what a patch must hold."""

import torch
from torch import Tensor


def autocorrelation(fields: Tensor, dim: int) -> Tensor:
    """Correlation of points along rows or columns, from the mean power spectrum of the lines without their means.

    Lines are taken as periodic, so that lags are counted up to half a line.

    Args:
        fields: (n, C, H, W).
        dim: -1 along rows (x), -2 along columns (y).

    Returns:
        (C, lags) in float64, 1 at lag 0; NaN for a channel that is constant along all lines.
    """
    lines = fields.double().movedim(dim, -1)
    lines = lines - lines.mean(-1, keepdim=True)
    power = torch.fft.rfft(lines).abs().square().mean((0, 2))
    correlation: Tensor = torch.fft.irfft(power, n=lines.shape[-1])[:, : lines.shape[-1] // 2 + 1]
    return correlation / correlation[:, :1]


def first_zero_crossing(correlation: Tensor) -> float:
    """Lag, in points, at which a correlation (lags,) first falls to 0; infinite if it does not.

    A patch should be at least as long. Between lags it is interpolated.
    """
    below = (correlation <= 0).nonzero()
    if not len(below):
        return float("inf")
    lag = int(below[0])
    if lag == 0:
        return 0.0
    before, after = float(correlation[lag - 1]), float(correlation[lag])
    return lag - 1 + before / (before - after)
