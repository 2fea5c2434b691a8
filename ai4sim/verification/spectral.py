"""Variance spectra of limited, non-square, non-periodic domains, and the distance of two of them.

The two-dimensional discrete cosine transform (Denis, Cote and Laprise 2002, Mon. Weather Rev. 130, 1812-1829) mirrors
the field at its borders, and so needs no periodicity, tapering or removal of a trend. On H rows and W columns at a
distance `spacing`, coefficient (n, m) has the normalised wavenumber

    alpha = sqrt((m / W)^2 + (n / H)^2)        and the wavelength        lambda = 2 spacing / alpha.

The transform is orthonormal, so the squared coefficients over H W, without that of the mean, sum to the variance of the
field. They are gathered into bins of equal width in alpha.

The transform is two matrix products. SciPy, which has a fast one, is no dependency of this package; that of a reordered
field by `numpy.fft` is slower for fields of 48 x 64 and no faster for 512 x 640 points (0.1 and 30 ms on one core).
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ai4sim.verification.fields import Bool, Float, field_sums

WAVELENGTH: Final = "wavelength"

# Power below this share (-120 dB) of the variance of the target is rounding of single precision, as large as that of a
# geopotential.
_FLOOR: Final = 1e-12
_SLACK: Final = 1e-6


@dataclass(frozen=True, eq=False)
class SpectralBins:
    """Bins of equal width in the normalised wavenumber alpha; those without a coefficient are left out.

    Attributes:
        alpha: (bin,) centre, increasing; a multiple of `width`.
        width: of all bins, 1 / min(H, W).
        wavelength: (bin,) of the centre, decreasing, in the unit of the spacing.
        modes: (bin,) number of coefficients in each bin.
        index: (H, W) bin of each coefficient, -1 for the mean.
    """

    alpha: Float
    width: float
    wavelength: Float
    modes: NDArray[np.intp]
    index: NDArray[np.intp]


def spectral_bins(height: int, width: int, spacing: float) -> SpectralBins:
    """The bins of a domain: bin k holds the alpha from k - 1/2 to k + 1/2 in units of 1 / min(H, W).

    Bins are centred on multiples of the lowest wavenumber along the shorter side, so that the waves along it lie in the
    middle of their bins. Where the domain is more than twice as long as wide, the first bin also takes the longer
    waves.

    Args:
        height: rows.
        width: columns.
        spacing: distance of neighbouring points, the same in both directions.

    Returns:
        The bins.

    Raises:
        ValueError: fewer than 2 rows or columns, or a spacing that is not positive.
    """
    if min(height, width) < 2 or not spacing > 0:
        raise ValueError(f"no spectrum of {height} x {width} points at a spacing of {spacing}")
    shorter = min(height, width)
    alpha = np.hypot(np.arange(width) / width, np.arange(height)[:, None] / height)
    number = np.maximum(np.rint(alpha * shorter).astype(np.intp), 1)
    number[0, 0] = 0
    occupied, index, modes = np.unique(number, return_inverse=True, return_counts=True)
    centre = occupied[1:] / shorter
    return SpectralBins(
        alpha=centre,
        width=1.0 / shorter,
        wavelength=2.0 * spacing / centre,
        modes=modes[1:],
        index=index.reshape(number.shape) - 1,
    )


def variance_coefficients(fields: NDArray[np.floating]) -> Float:
    """What each cosine contributes to the variance of a field.

    Args:
        fields: (..., H, W), finite.

    Returns:
        (..., H, W), squared unit of the fields; 0 for the mean; the sum over the last two axes is the variance.
    """
    height, width = fields.shape[-2:]
    values = np.asarray(fields, dtype=np.float64)
    # a large mean would leave its rounding in all coefficients
    anomalies = values - values.mean(axis=(-2, -1), keepdims=True)
    coefficients = _dct_matrix(height) @ anomalies @ _dct_matrix(width).T
    coefficients[..., 0, 0] = 0.0
    return np.asarray(coefficients**2 / (height * width))


def variance_spectrum(fields: NDArray[np.floating], bins: SpectralBins) -> Float:
    """Variance of a field in each bin.

    Args:
        fields: (..., H, W), finite.
        bins: those of the domain, by `spectral_bins`.

    Returns:
        (..., bin), squared unit of the fields; the sum over the bins is the variance.
    """
    order = np.argsort(bins.index, axis=None, kind="stable")
    starts = np.cumsum(bins.modes) - bins.modes + 1  # behind the mean, which comes first
    flat = variance_coefficients(fields).reshape(*fields.shape[:-2], order.size)
    return np.asarray(np.add.reduceat(flat[..., order], starts, axis=-1))


def spectral_statistics(
    prediction: xr.DataArray,
    target: xr.DataArray,
    *,
    spacing: float,
    spacing_units: str = "km",
    dims: tuple[Hashable, Hashable] = ("lat", "lon"),
    reduce: Hashable | Sequence[Hashable],
    block: Hashable | xr.DataArray | None = None,
    skipna: bool = False,
) -> xr.Dataset:
    """Sums over samples of the variance spectra of prediction and target.

    Take the interior of the domain first (``isel``), where a border is prescribed.

    Args:
        prediction: any shape with the two dimensions `dims`; in memory, lazily opened or of Dask.
        target: the dimensions, sizes and coordinates of `prediction`, in any order of dimensions.
        spacing: distance of neighbouring points, the same in both directions.
        spacing_units: its unit.
        dims: rows and columns.
        reduce: dimensions to sum over.
        block: label of the independent block of each sample, see `error_statistics`.
        skipna: leave samples out in whose field a value is missing, instead of raising.

    Returns:
        `n`, the number of fields, over the dimensions that are not reduced, after `block` if there is one;
        `prediction_power` and `target_power` (..., wavelength) in the squared unit of the target. The coordinate
        `wavelength` is that of the centre of each bin, `modes` the number of cosines in it.

    Raises:
        ValueError: dimensions, coordinates or units do not agree; a value is not finite.
    """
    unknown = [dim for dim in dims if dim not in target.sizes]
    if unknown:
        raise ValueError(f"dims={dims}: the target has the dimensions {target.dims}")
    bins = spectral_bins(target.sizes[dims[0]], target.sizes[dims[1]], spacing)

    def score(p: Float, t: Float, valid: Bool) -> Mapping[str, Float]:
        whole = np.asarray(valid.all(axis=(-2, -1)), dtype=np.float64)
        powers = {
            f"{name}_power": variance_spectrum(values, bins) * whole[..., None]
            for name, values in (("prediction", p), ("target", t))
        }
        return {"n": whole, **powers}

    sums = field_sums(
        prediction,
        target,
        score,
        extra={"prediction_power": [WAVELENGTH], "target_power": [WAVELENGTH]},
        within=dims,
        reduce=reduce,
        block=block,
        mask=None,
        skipna=skipna,
    )
    return sums.assign_coords(
        {WAVELENGTH: (WAVELENGTH, bins.wavelength, {"units": spacing_units}), "modes": (WAVELENGTH, bins.modes)}
    )


def power_spectrum(statistics: xr.Dataset, *, of: Literal["prediction", "target"]) -> xr.DataArray:
    """Mean variance spectrum over the samples.

    Args:
        statistics: what `spectral_statistics` gave.
        of: whose.

    Returns:
        (..., wavelength) in the squared unit of the target; NaN where there is no sample. Sums to the mean variance of
        the fields.
    """
    n = statistics["n"]
    spectrum = (statistics[f"{of}_power"] / n.where(n > 0)).rename("power_spectrum")
    units = statistics.attrs.get("units")
    spectrum.attrs = {} if units is None else {"units": "1" if units == "1" else f"({units})2"}
    return spectrum


def lsd(statistics: xr.Dataset, *, band: tuple[float, float] | None = None) -> xr.DataArray:
    """Log-spectral distance of the mean spectra, in dB: the root mean square over the bins of their ratio in decibels.

    With the mean spectra P of the prediction and T of the target and K bins

        lsd = sqrt( 1/K sum_k (10 log10(P_k / T_k))^2 ),

    after Gray and Markel 1976 (IEEE Trans. ASSP 24, 380-391), with all bins of equal width in the wavenumber counting
    alike. The spectra are averaged over the samples *before* the logarithm: the distance is a function of sums, is not
    dominated by single quiet samples, and says whether there is the right variance at each scale, not whether it is in
    the right place. 3 dB is a factor of two at all scales. Neither spectrum is taken below -120 dB of the variance of
    the target, which is the rounding of single precision; a field without small scales has therefore a large, but
    finite, distance.

    Args:
        statistics: what `spectral_statistics` or `line_statistics` gave, of one or more variables.
        band: the shortest and the longest wavelength that count; None for all.

    Returns:
        The distance over the dimensions of the statistics without `wavelength`; NaN where there is no sample or the
        target is constant.

    Raises:
        ValueError: there is no wavelength in the band.
    """
    p, t = (power_spectrum(statistics, of=name) for name in ("prediction", "target"))
    variance = t.sum(WAVELENGTH, skipna=False)
    floor = _FLOOR * variance.where(variance > 0)
    decibels: xr.DataArray = 10.0 * xr.apply_ufunc(np.log10, p.clip(min=floor) / t.clip(min=floor))
    decibels = decibels.isel({WAVELENGTH: in_band(statistics, band)})
    distance = ((decibels**2).mean(WAVELENGTH, skipna=False) ** 0.5).rename("lsd")
    distance.attrs = {"units": "dB"}
    return distance


def in_band(statistics: xr.Dataset, band: tuple[float, float] | None) -> slice:
    """The bins of a band, as an indexer of `wavelength`, which decreases.

    Args:
        statistics: what `spectral_statistics` or `line_statistics` gave.
        band: the shortest and the longest wavelength, both within it; None for all.

    Raises:
        ValueError: there is no wavelength in the band.
    """
    if band is None:
        return slice(None)
    lengths = np.asarray(statistics[WAVELENGTH].values, dtype=np.float64)
    # the band's ends may be rounded
    inside = np.flatnonzero((lengths >= band[0] * (1.0 - _SLACK)) & (lengths <= band[1] * (1.0 + _SLACK)))
    if not inside.size:
        known = f"there are {lengths.min():g} to {lengths.max():g}" if lengths.size else "there are none"
        raise ValueError(f"no wavelength in the band from {band[0]:g} to {band[1]:g}: {known}")
    return slice(int(inside[0]), int(inside[-1]) + 1)


@lru_cache(maxsize=8)
def _dct_matrix(n: int) -> Float:
    """Orthonormal DCT-II, (n, n): row k is the cosine of k half waves at the centres of n cells."""
    wave, cell = np.ogrid[:n, :n]
    # the angle modulo a full turn, in integers, keeps large arguments exact
    matrix = math.sqrt(2.0 / n) * np.cos(np.pi * ((2 * cell + 1) * wave % (4 * n)) / (2 * n))
    matrix[0] = math.sqrt(1.0 / n)
    matrix.flags.writeable = False
    return np.asarray(matrix)
