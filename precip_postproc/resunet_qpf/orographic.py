"""Linear model of orographic precipitation (Smith and Barstad 2004, J. Atmos. Sci. 61:1377).

Uniform moist flow is lifted by the terrain, the lifting decays or tilts with height as in linear mountain waves, and
condensed water is carried downwind while it grows to drops and falls. Their equation 49, in Fourier space::

    P(k, l) = C_w i σ h(k, l) / [(1 - i m H_w) (1 + i σ τ_c) (1 + i σ τ_f)]      σ = U k + V l
    m² = (N_m² - σ²) (k² + l²) / σ²

with the sign of σ for m where waves propagate (m² > 0), and m on the positive imaginary axis where they decay. The
precipitation is the departure from that over flat land: negative in the lee, and zero in the mean.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from precip_postproc.resunet_qpf.periodic import Array, PeriodicGrid

SECONDS_PER_HOUR = 3600.0
METRES_PER_KM = 1000.0


@dataclass(frozen=True)
class MoistFlow:
    """The state of the moist air.

    Args:
        uplift_sensitivity: C_w, kg m-3.
        water_vapour_height: H_w, m.
        moist_stability: N_m, s-1.
        conversion_time: τ_c, s, from cloud water to hydrometeors.
        fallout_time: τ_f, s.
    """

    uplift_sensitivity: float = 0.004
    water_vapour_height: float = 2500.0
    moist_stability: float = 0.005
    conversion_time: float = 1000.0
    fallout_time: float = 1000.0


def transfer_function(grid: PeriodicGrid, u: float, v: float, flow: MoistFlow | None = None) -> NDArray[np.complex128]:
    """Precipitation per height of the terrain, (n, n/2 + 1), mm h-1 m-1.

    Waves of two grid lengths, whose slope the grid does not know, are left out.

    Args:
        grid: periodic.
        u: wind along the rows, m/s.
        v: wind along the columns, m/s.
        flow: state of the air.
    """
    flow = flow or MoistFlow()
    sigma = (u * grid.kx + v * grid.ky) / METRES_PER_KM
    speed = np.abs(sigma)
    # |m σ|: finite where σ vanishes. There precipitation vanishes with σ²; in the form with m it would be 0/∞.
    m_sigma = np.sqrt(np.abs(flow.moist_stability**2 - sigma**2) * grid.k2) / METRES_PER_KM
    depth = flow.water_vapour_height * m_sigma
    propagates = speed <= flow.moist_stability
    # i σ / (1 - i m H_w), both parts multiplied by σ or, where waves decay, by |σ|
    numerator = 1j * sigma * np.where(propagates, sigma, speed)
    denominator = np.where(propagates, sigma - 1j * depth, speed + depth)
    lifting = np.divide(numerator, denominator, out=np.zeros_like(numerator), where=(sigma != 0) & grid.resolved)
    delay = (1 + 1j * sigma * flow.conversion_time) * (1 + 1j * sigma * flow.fallout_time)
    result: NDArray[np.complex128] = SECONDS_PER_HOUR * flow.uplift_sensitivity * lifting / delay
    return result


def orographic_precipitation(
    grid: PeriodicGrid, height: Array, u: float, v: float, flow: MoistFlow | None = None
) -> NDArray[np.float64]:
    """Precipitation (n, n), mm h-1, that the terrain adds to or, where negative, takes from that over flat land.

    Args:
        grid: periodic.
        height: (n, n) of the terrain, m.
        u: wind along the rows, m/s.
        v: wind along the columns, m/s.
        flow: state of the air.
    """
    spectrum = grid.to_spectrum(np.asarray(height, np.float64))
    return grid.to_grid(transfer_function(grid, u, v, flow) * spectrum).astype(np.float64, copy=False)
