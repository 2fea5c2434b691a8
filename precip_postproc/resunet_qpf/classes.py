"""From hourly amounts to classes.

Of K edges e_1 < ... < e_K, class c holds the amounts from e_c up to e_{c+1}, and class 0 those below e_1.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.config import GUARD

# Hourly amounts above are fill values or faults.
LARGEST: Final = 200.0  # mm


def check_edges(
    edges: Sequence[float] | NDArray[np.floating[Any]], thresholds: Sequence[float] = ()
) -> tuple[float, ...]:
    """The edges as floats, if classes can be made of them.

    Args:
        edges: lower edges of the classes but the first, mm.
        thresholds: amounts whose exceedance is to be verified, mm.

    Raises:
        InputError: no edge, edges that do not increase strictly, that are not above 0 or not below 200 mm, or a
            threshold that is no edge.
    """
    checked = tuple(float(edge) for edge in edges)
    if not checked:
        raise InputError("edges: at least one amount is needed")
    if not checked[0] > 0:
        raise InputError(f"edges: the first must be above 0 mm, not {checked[0]:g}: the first class begins at 0")
    for lower, upper in pairwise(checked):
        if not lower < upper:
            raise InputError(f"edges: must increase strictly, but {upper:g} mm follows {lower:g} mm")
    if not checked[-1] < LARGEST:
        raise InputError(f"edges: must be below {LARGEST:g} mm, the largest amount that counts, not {checked[-1]:g}")
    missing = [t for t in thresholds if all(abs(t - edge) > GUARD for edge in checked)]
    if missing:
        raise InputError(
            f"thresholds {', '.join(f'{t:g}' for t in missing)} mm are no edges: add them to edges "
            f"({', '.join(f'{edge:g}' for edge in checked)} mm) or leave them out"
        )
    return checked


@overload
def usable(amounts: Tensor) -> Tensor: ...
@overload
def usable(amounts: NDArray[np.floating[Any]]) -> NDArray[np.bool_]: ...
def usable(amounts: Tensor | NDArray[np.floating[Any]]) -> Tensor | NDArray[np.bool_]:
    """Where an amount is one: not NaN, not negative (codes of the radar network), not above 200 mm (fill values)."""
    # NaN compares false
    return (amounts >= 0) & (amounts <= LARGEST)


@overload
def classify(amounts: Tensor, edges: Sequence[float] | Tensor) -> Tensor: ...
@overload
def classify(amounts: NDArray[np.floating[Any]], edges: Sequence[float]) -> NDArray[np.int64]: ...
def classify(
    amounts: Tensor | NDArray[np.floating[Any]], edges: Sequence[float] | Tensor
) -> Tensor | NDArray[np.int64]:
    """Class of every amount: the number of edges that it exceeds or reaches within less than 1e-4 mm.

    Args:
        amounts: mm, any shape, NaN where unknown.
        edges: mm, strictly increasing, see :func:`check_edges`.

    Returns:
        int64 of the same shape, 0 ... number of edges, or -1 where the amount is not :func:`usable`.
    """
    if isinstance(amounts, Tensor):
        bounds = torch.as_tensor(edges, dtype=amounts.dtype, device=amounts.device) - GUARD
        return torch.bucketize(amounts.contiguous(), bounds).masked_fill(~usable(amounts), -1)
    found = np.searchsorted(np.asarray(edges, float) - GUARD, amounts)
    return np.where(usable(amounts), found, -1).astype(np.int64, copy=False)
