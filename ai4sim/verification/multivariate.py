"""Scores of an ensemble's dependence between variables and points: energy and variogram score.

The scores of single values, such as the CRPS, do not tell whether a member has its gusts where its rain is. These are
of vectors: all variables at a number of points::

    statistics = multivariate_statistics(
        members, truth, variable="variable", scale=std, points=32, reduce="sample", block="day"
    )
    block_bootstrap(statistics, variogram_score, seed=0)
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Final

import numpy as np
import xarray as xr

from ai4sim.verification.ensemble import MEMBER, MEMBERS, mean_of, member_count
from ai4sim.verification.fields import Bool, Float, field_sums

ORDER: Final = "order"

_POINT: Final = "point"


def multivariate_statistics(
    members: xr.DataArray,
    target: xr.DataArray,
    *,
    member: Hashable = MEMBER,
    dims: Sequence[Hashable] = ("y", "x"),
    points: int = 32,
    variable: Hashable | None = None,
    scale: xr.DataArray | float = 1.0,
    order: float = 0.5,
    seed: int = 0,
    reduce: Hashable | Sequence[Hashable],
    block: Hashable | xr.DataArray | None = None,
    mask: xr.DataArray | None = None,
    skipna: bool = False,
) -> xr.Dataset:
    """Sums over samples of the energy and the variogram score of the vectors of all variables at some points.

    The points are drawn once, without replacement, and are the same for all samples, models and parts of a set. With
    the vectors x_k of the members and y of the target, of D = points times variables components over their scale,

        energy = sum (1/K sum_k norm(x_k - y) - 1/(2 K (K-1)) sum_jk norm(x_j - x_k))
        variogram = sum 2/(D (D-1)) sum_(i<j) ((abs(y_i - y_j)^p - g_ij)^2 - s_ij^2 / K)

    with the mean g_ij and the variance s_ij^2 (over K - 1) over the members of abs(x_ki - x_kj)^p. These are fair; the
    plain ones have 1/(2 K^2), and lack the last term (Gneiting and Raftery 2007, JASA 102, 359-378, section 4.3;
    Scheuerer and Hamill 2015, MWR 143, 1321-1334, with equal weights that sum to 1). The energy score mainly tells
    biases and spread, the variogram score the dependence between points and variables.

    Args:
        members: see `ensemble_statistics`.
        target: see `ensemble_statistics`.
        member: dimension of the members.
        dims: dimensions of the points, whole fields.
        points: number of points; the cost of the variogram score grows with the square of (points times variables).
        variable: dimension of the variables, None if there is one variable only.
        scale: what to divide by, over `variable`: variables of different units need one, such as their standard
            deviations over the training set.
        order: p of the variogram score.
        seed: of the points.
        reduce: dimensions to sum over, without `dims` and `variable`.
        block: see `ensemble_statistics`.
        mask: True where points may be, over `dims`; None for everywhere.
        skipna: leave samples out in which the target or any member is NaN at any of the points, instead of raising.

    Returns:
        `n`, `energy`, `plain_energy`, `variogram` and `plain_variogram` over the dimensions that are not reduced, after
        `block` if there is one.

    Raises:
        ValueError: more points than there are, or see `ensemble_statistics`.
    """
    size = member_count(members, target, member)
    wanted = [*dims, *([] if variable is None else [variable])]
    missing = [dim for dim in wanted if dim not in target.dims]
    if missing:
        raise ValueError(f"the target has no dimension {missing[0]!r} of the vectors {wanted}: it has {target.dims}")
    components = _component_factors(target, variable, scale, points)
    chosen = _random_points(target, dims, points, mask, seed)
    within = [_POINT, *([] if variable is None else [variable])]

    def score(x: Float, y: Float, valid: Bool) -> Mapping[str, Float]:
        lead = y.shape[: y.ndim - len(within)]
        x = x.reshape(*lead, components.size, size) * components[:, None]
        y = y.reshape(*lead, components.size) * components
        whole = np.asarray(valid.reshape(*lead, components.size).all(axis=-1), dtype=np.float64)
        parts = {**_energy(x, y), **_variogram(x, y, order)}
        return {"n": whole, **{name: np.asarray(values * whole) for name, values in parts.items()}}

    sums = field_sums(
        members.isel(chosen),
        target.isel(chosen),
        score,
        extra={},
        within=within,
        reduce=reduce,
        block=block,
        mask=None,
        skipna=skipna,
        only=[member],
    )
    if isinstance(scale, xr.DataArray) or scale != 1.0:
        sums.attrs["units"] = "1"
    return sums.assign_coords({MEMBERS: size, ORDER: order})


def energy_score(statistics: xr.Dataset) -> xr.DataArray:
    """Energy score, fair; see `multivariate_statistics`.

    Args:
        statistics: what `multivariate_statistics` gave.

    Returns:
        The mean score in the unit of the scaled target; NaN where there is no sample.
    """
    return mean_of(statistics, "energy", "energy_score").drop_vars(ORDER, errors="ignore")


def plain_energy_score(statistics: xr.Dataset) -> xr.DataArray:
    """Energy score of the members as the whole distribution; see `multivariate_statistics`.

    Args:
        statistics: what `multivariate_statistics` gave.

    Returns:
        The mean score in the unit of the scaled target; NaN where there is no sample.
    """
    return mean_of(statistics, "plain_energy", "plain_energy_score").drop_vars(ORDER, errors="ignore")


def variogram_score(statistics: xr.Dataset) -> xr.DataArray:
    """Variogram score, fair, as a mean over the pairs of components; see `multivariate_statistics`.

    Args:
        statistics: what `multivariate_statistics` gave.

    Returns:
        The mean score in the unit of the scaled target to the power of twice the order: the unit itself for 0.5. NaN
        where there is no sample.
    """
    return _mean_of_power(statistics, "variogram", "variogram_score")


def plain_variogram_score(statistics: xr.Dataset) -> xr.DataArray:
    """Variogram score of the members as the whole distribution; see `multivariate_statistics`.

    Args:
        statistics: what `multivariate_statistics` gave.

    Returns:
        The mean score, see `variogram_score`.
    """
    return _mean_of_power(statistics, "plain_variogram", "plain_variogram_score")


def _energy(x: Float, y: Float) -> dict[str, Float]:
    """Both energy scores (...) of members (..., component, member)."""
    size = x.shape[-1]
    distance = np.asarray(np.linalg.norm(x - y[..., None], axis=-2).mean(axis=-1))
    pairs = np.zeros_like(distance)
    for first in range(size - 1):
        pairs += np.linalg.norm(x[..., first + 1 :] - x[..., first : first + 1], axis=-2).sum(axis=-1)
    fair = pairs / (size * (size - 1)) if size > 1 else pairs
    return {"energy": np.asarray(distance - fair), "plain_energy": np.asarray(distance - pairs / size**2)}


def _variogram(x: Float, y: Float, order: float) -> dict[str, Float]:
    """Both variogram scores (...) of members (..., component, member), by component: bounded memory."""
    components, size = x.shape[-2:]
    plain, excess = np.zeros(y.shape[:-1]), np.zeros(y.shape[:-1])
    for first in range(components - 1):
        own = np.abs(x[..., first + 1 :, :] - x[..., first : first + 1, :]) ** order
        mean = own.mean(axis=-1)
        plain += ((np.abs(y[..., first + 1 :] - y[..., first : first + 1]) ** order - mean) ** 2).sum(axis=-1)
        if size > 1:
            excess += ((own - mean[..., None]) ** 2).sum(axis=(-2, -1)) / (size * (size - 1))
    pairs = max(1, components * (components - 1) // 2)
    return {"variogram": (plain - excess) / pairs, "plain_variogram": plain / pairs}


def _component_factors(
    target: xr.DataArray, variable: Hashable | None, scale: xr.DataArray | float, points: int
) -> Float:
    """What to multiply the components (points times variables,) by."""
    divisor = scale if isinstance(scale, xr.DataArray) else xr.DataArray(float(scale))
    if not set(divisor.dims) <= {variable}:
        raise ValueError(
            f"scale has the dimensions {divisor.dims}: it may have that of the variables, {variable!r}, only"
        )
    if not bool((divisor > 0).all()):
        raise ValueError(f"scale must be positive, not {divisor.values.tolist()}")
    variables = 1 if variable is None else target.sizes[variable]
    if divisor.ndim:
        try:
            xr.align(target, divisor, join="exact", copy=False)
        except ValueError as error:
            raise ValueError(f"scale and target are not on the same coordinates: {error}") from error
    return np.tile(np.broadcast_to(1.0 / divisor.values.astype(np.float64), variables), points)


def _random_points(
    target: xr.DataArray, dims: Sequence[Hashable], points: int, mask: xr.DataArray | None, seed: int
) -> dict[Hashable, xr.DataArray]:
    """Indexers of points (point,), all different."""
    shape = tuple(target.sizes[dim] for dim in dims)
    allowed = np.ones(shape, dtype=np.bool_)
    if mask is not None:
        if set(mask.dims) != set(dims):
            raise ValueError(f"mask has the dimensions {mask.dims}: points need one over {tuple(dims)}")
        allowed = mask.transpose(*dims).values.astype(np.bool_)
        if allowed.shape != shape:
            raise ValueError(f"mask has the shape {allowed.shape} over {tuple(dims)}, the target {shape}")
    places = np.flatnonzero(allowed)
    if not 1 <= points <= places.size:
        raise ValueError(f"points={points}: there are {places.size} to choose from over {tuple(dims)}")
    drawn = np.sort(np.random.default_rng(seed).choice(places, points, replace=False))
    return {dim: xr.DataArray(i, dims=_POINT) for dim, i in zip(dims, np.unravel_index(drawn, shape), strict=True)}


def _mean_of_power(statistics: xr.Dataset, of: str, name: str) -> xr.DataArray:
    values = mean_of(statistics, of, name).drop_vars(ORDER)
    power, units = 2.0 * float(statistics.coords[ORDER]), values.attrs.get("units", "1")
    return values if power == 1.0 or units == "1" else values.assign_attrs(units=f"({units}){power:g}")
