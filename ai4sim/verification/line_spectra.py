"""Power spectra along the rows or the columns of fields, and the distance of two of them.

A line of N values at a distance dx has, by the discrete Fourier transform X of its anomalies from its own mean, the
one-sided density

    S_k = 2 dx abs(X_k)^2 / N    (once, not twice, at k = N/2)    at the wavelength    N dx / k,    k = 1 ... N/2

in the squared unit of the field times that of the spacing; the sum of S_k over k, times the width 1 / (N dx) of the
bins of the wavenumber, is the variance of the line. These are what wind spectra are compared in (Skamarock 2004, MWR
132, 3019-3032). Spectra of two dimensions for fields that are not periodic are in `ai4sim.verification.spectral`.

Spectra are those of the fields: of each member of an ensemble, and then averaged, never of their mean. The sums add up
over samples, files, blocks and processes by `ai4sim.verification.fields.merge_sums`, and so they do over directions of
equal length and over the components of the wind, of which the mean spectrum is then that of the kinetic energy,
(S_u + S_v) / 2::

    statistics = line_statistics(members, truth, spacing=3.0, along="x", reduce=["sample", "y"], block="day")
    block_bootstrap(statistics, partial(line_lsd, band=cell_band(3.0, 8)), seed=0)
    energy = line_spectrum(merge_sums(u_statistics, v_statistics), of="prediction")
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ai4sim.verification.deterministic import squared_units
from ai4sim.verification.ensemble import MEMBER
from ai4sim.verification.fields import Bool, Float, field_sums
from ai4sim.verification.spectral import WAVELENGTH, in_band, lsd, power_spectrum

Window = Literal["hann"]

_SIDES: Final = ("prediction", "target")


def line_density(lines: NDArray[np.floating], spacing: float, *, window: Window | None = None, axis: int = -1) -> Float:
    """One-sided power spectral density of lines.

    Args:
        lines: (..., N, ...), finite.
        spacing: distance of neighbouring values.
        window: `hann` tapers the anomalies, by sin^2 at the centres of the cells, against the leakage of lines that are
            not periodic; the density is divided by the mean square of the window, and integrates to the variance on
            average only.
        axis: along which the lines are.

    Returns:
        (..., N // 2, ...) in the squared unit of the lines times that of the spacing, the longest wave first.

    Raises:
        ValueError: fewer than two values, a spacing that is not positive, or an unknown window.
    """
    values = np.moveaxis(np.asarray(lines, dtype=np.float64), axis, -1)
    number = values.shape[-1]
    _wavelengths(number, spacing)
    anomalies = values - values.mean(axis=-1, keepdims=True)
    power = 1.0
    if window == "hann":
        taper = np.sin(np.pi * (np.arange(number) + 0.5) / number) ** 2
        anomalies *= taper
        power = float(np.mean(taper**2))
    elif window is not None:
        raise ValueError(f"window={window!r}: there is 'hann', or None")
    amplitudes = np.fft.rfft(anomalies, axis=-1)[..., 1:]
    density = 2.0 * spacing / (number * power) * (amplitudes.real**2 + amplitudes.imag**2)
    if number % 2 == 0:
        density[..., -1] *= 0.5
    return np.moveaxis(density, -1, axis)


def line_statistics(
    prediction: xr.DataArray,
    target: xr.DataArray | None = None,
    *,
    spacing: float,
    spacing_units: str = "km",
    along: Hashable = "x",
    member: Hashable = MEMBER,
    window: Window | None = None,
    reduce: Hashable | Sequence[Hashable],
    block: Hashable | xr.DataArray | None = None,
    skipna: bool = False,
) -> xr.Dataset:
    """Sums over lines of the power spectral densities of prediction and target, see `line_density`.

    Args:
        prediction: any shape with the dimension `along`; with the dimension `member`, its density is the mean over the
            members of theirs. In memory, lazily opened or of Dask.
        target: the dimensions, sizes and coordinates of `prediction` without `member`, in any order; None if there is
            no truth, and then there is no `target_power`.
        spacing: distance of neighbouring values along the lines.
        spacing_units: its unit.
        along: dimension of the lines: that of the columns for spectra along rows.
        member: dimension of the members.
        window: see `line_density`.
        reduce: dimensions to sum over, usually the samples and the lines.
        block: label of the independent block of each sample, see `error_statistics`.
        skipna: leave lines out in which a value of the target or of any member is missing, instead of raising.

    Returns:
        `n`, the number of lines, over the dimensions that are not reduced, after `block` if there is one;
        `prediction_power` and `target_power` (..., wavelength), sums of densities. The coordinate `wavelength`
        decreases.

    Raises:
        ValueError: dimensions, coordinates or units do not agree; a value is not finite.
    """
    members = [member] if member in prediction.dims else []
    # without a target, something of its shape is what the lines of the prediction are counted by
    reference = prediction.isel(dict.fromkeys(members, 0), drop=True) if target is None else target
    if along not in reference.dims:
        raise ValueError(f"along={along!r}: the lines need this dimension, there are {reference.dims}")
    wavelength = _wavelengths(reference.sizes[along], spacing)
    if members and not prediction.sizes[member]:
        raise ValueError(f"prediction {prediction.name!r} has no members: the dimension {member!r} is empty")

    def score(p: Float, t: Float, valid: Bool) -> Mapping[str, Float]:
        whole = np.asarray(valid.all(axis=-1), dtype=np.float64)
        own = line_density(p, spacing, window=window, axis=t.ndim - 1)
        powers = {"prediction_power": own.mean(axis=-1) if members else own}
        if target is not None:
            powers["target_power"] = line_density(t, spacing, window=window)
        return {"n": whole, **{name: power * whole[..., None] for name, power in powers.items()}}

    sums = field_sums(
        prediction,
        reference,
        score,
        extra={f"{side}_power": [WAVELENGTH] for side in _SIDES},
        within=[along],
        reduce=reduce,
        block=block,
        mask=None,
        skipna=skipna,
        only=members,
    )
    return sums.assign_coords({WAVELENGTH: (WAVELENGTH, wavelength, {"units": spacing_units})})


def line_spectrum(statistics: xr.Dataset, *, of: Literal["prediction", "target"]) -> xr.DataArray:
    """Mean power spectral density over the lines.

    Args:
        statistics: what `line_statistics` gave.
        of: whose.

    Returns:
        (..., wavelength) in the squared unit of the target times that of the wavelength; NaN where there is no line.
        Its sum over the longest wavelength is the mean variance of the lines.
    """
    spectrum = power_spectrum(statistics, of=of).rename("power_spectral_density")
    squared = squared_units(str(statistics.attrs.get("units", "")))
    length = str(statistics[WAVELENGTH].attrs.get("units", ""))
    units = length if squared == "1" else f"{squared} {length}" if squared else ""
    spectrum.attrs = {"long_name": "power spectral density"} | ({"units": units} if units else {})
    return spectrum


def cell_band(spacing: float, factor: float) -> tuple[float, float]:
    """The waves that a fine grid resolves and a coarse one does not: from 2 cells of the one to 2 of the other.

    Args:
        spacing: of the fine grid.
        factor: how many times wider the coarse one is.

    Returns:
        The shortest and the longest wavelength, in the unit of the spacing.
    """
    if not (spacing > 0 and factor > 1):
        raise ValueError(f"spacing={spacing}, factor={factor}: the coarse cells must be larger than the fine ones")
    return 2.0 * spacing, 2.0 * spacing * factor


def line_lsd(statistics: xr.Dataset, *, band: tuple[float, float] | None = None) -> xr.DataArray:
    """Log-spectral distance over a band, sqrt(mean_k (10 log10 P_k / T_k)^2), by `ai4sim.verification.spectral.lsd`.

    Args:
        statistics: what `line_statistics` gave.
        band: the shortest and the longest wavelength that count, such as `cell_band` gives; None for all.

    Returns:
        The distance in dB over the dimensions of the statistics but `wavelength`.

    Raises:
        ValueError: there is no wavelength in the band.
    """
    return lsd(statistics, band=band)


def power_ratio(statistics: xr.Dataset, *, band: tuple[float, float] | None = None) -> xr.DataArray:
    """Variance of the prediction in a band over that of the target: 1 where there is the right one.

    Args:
        statistics: what `line_statistics` or `spectral_statistics` gave.
        band: the shortest and the longest wavelength that count; None for all.

    Returns:
        The ratio over the dimensions of the statistics but `wavelength`; NaN where there is no line, or no variance of
        the target.

    Raises:
        ValueError: there is no wavelength in the band.
    """
    inside = {WAVELENGTH: in_band(statistics, band)}
    # bins are of equal width in the wavenumber
    p, t = (statistics[f"{side}_power"].isel(inside).sum(WAVELENGTH) for side in _SIDES)
    return (p / t.where(t > 0)).rename("power_ratio").assign_attrs(units="1")


def _wavelengths(number: int, spacing: float) -> Float:
    """Wavelengths (number // 2,), decreasing."""
    if number < 2 or not spacing > 0:
        raise ValueError(f"no spectrum of lines of {number} values at a spacing of {spacing}")
    return number * spacing / np.arange(1, number // 2 + 1)
