"""The ideal probability of exceedance: the best forecast that can be made of a forecast of the demo.

The truth's latent field is regressed on the forecast's. Both have the same spectrum and the same correlation at all
scales, so that the regression is local: given the displacement d, the truth at x depends on the forecast at x + d
alone, and is normal. What remains is the mean over the unknown displacement::

    P(Y >= t) (x) = E_d Φ[(m(x + d) + D + O(x) + λ μ_f - z_t) / √v]
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf import amounts, radar
from precip_postproc.resunet_qpf.weather import Posterior

Float = NDArray[np.float32]

NODES = 24
GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))


def displacement_nodes(count: int = NODES) -> NDArray[np.float64]:
    """Points (count, 2) that stand for a pair of standard normal variables: mean 0, covariance 1, equal weights.

    Half of them lie on a spiral whose radii are the middles of equally probable rings (Vogel 1979, Math. Biosci.
    44:179), the others opposite, so that odd moments vanish. With 24 of them a probability is wrong by 0.003 (root mean
    square), with 48 random antithetic draws by 0.008.

    Args:
        count: even, at least 6.

    Raises:
        ValueError: the count is odd or too small.
    """
    if count < 6 or count % 2:
        raise ValueError(f"{count} nodes: an even number of at least 6 is needed")
    ring = np.arange(count // 2)
    radius = np.sqrt(-2 * np.log1p(-(ring + 0.5) / len(ring)))
    half = radius[:, None] * np.stack([np.cos(GOLDEN_ANGLE * ring), np.sin(GOLDEN_ANGLE * ring)], axis=1)
    # the covariance is made exactly that of the normal pair
    half = half @ np.linalg.inv(np.linalg.cholesky(half.T @ half / len(half))).T
    return np.concatenate([half, -half])


def ideal_exceedance(
    posterior: Posterior, thresholds: Sequence[float], *, analysed: bool = False, nodes: int = NODES
) -> Float:
    """Ideal probability that precipitation reaches thresholds, (threshold, ny, nx).

    Args:
        posterior: of the forecast.
        thresholds: mm, positive.
        analysed: of what the analysis reports where its quality is good, rather than of the true amount: with rounding
            to 0.1 mm and lognormal noise.
        nodes: displacements over which the mean is taken.

    Raises:
        InputError: a threshold is not positive.
    """
    if min(thresholds, default=1.0) <= 0:
        raise InputError(f"thresholds {list(thresholds)}: all must be above 0 mm")
    grid = posterior.grid
    mean = grid.to_grid(posterior.field)
    limits = [_limit(threshold, posterior.variance, analysed) for threshold in thresholds]
    shifts = posterior.displacement * displacement_nodes(nodes) + posterior.mean_displacement
    rows, columns = (grid.first + np.arange(size) for size in grid.shape)
    total = np.zeros((len(limits), *grid.shape), np.float32)
    work = np.empty(grid.shape, np.float32)
    # to whole points: 1/12 of the spacing's square is added to the variance of the displacement, 1 % or less
    for x, y in np.rint(shifts / grid.spacing).astype(int):
        latent = mean[np.ix_((rows + y) % grid.n, (columns + x) % grid.n)] + posterior.location
        for probability, (limit, spread) in zip(total, limits, strict=True):
            np.subtract(latent, np.float32(limit), out=work)
            np.multiply(work, np.float32(1 / spread), out=work)
            probability += ndtr(work, out=work)
    return total / np.float32(len(shifts))


def _limit(threshold: float, variance: float, analysed: bool) -> tuple[float, float]:
    """Latent that corresponds to a threshold, and its standard deviation."""
    if not analysed:
        return float(amounts.TRUTH.latent(threshold)), float(np.sqrt(variance))
    # the mean of the noise is one, hence its median is less
    limit = float(amounts.TRUTH.latent(radar.least_reported(threshold) * np.exp(radar.NOISE**2 / 2)))
    noise = radar.NOISE * (limit - amounts.TRUTH.dry) / amounts.TRUTH.power  # d ln R = power dz / (z - dry)
    return limit, float(np.sqrt(variance + noise**2))
