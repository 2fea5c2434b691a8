"""Where a limited area takes its values from outside, and how much of them."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ai4sim.errors import InputError

Treatment = Literal["hard", "davies"]


def border_weights(shape: tuple[int, int], border_size: int, treatment: Treatment = "hard") -> NDArray[np.float32]:
    """Weight of the boundary's values at every point, 0 in the interior.

    Args:
        shape: rows and columns.
        border_size: width of the border in cells; 0 for none.
        treatment: ``hard`` prescribes the whole border; ``davies`` relaxes with cos2(pi/2 d/border_size), d the
            distance to the edge in cells (after Davies 1976, Q. J. R. Meteorol. Soc. 102, 405-418).

    Raises:
        InputError: the border is negative or leaves no interior.
    """
    height, width = shape
    if border_size < 0 or 2 * border_size >= min(shape):
        raise InputError(
            f"border_size {border_size} leaves no interior in a grid of {height} rows and {width} columns; "
            f"it must be at least 0 and below {min(shape) / 2:g}"
        )
    if treatment not in ("hard", "davies"):
        raise InputError(f"border treatment {treatment!r} is unknown; choose hard or davies")
    rows, columns = (np.minimum(np.arange(n), np.arange(n)[::-1]) for n in shape)
    distance = np.minimum(rows[:, None], columns[None, :])
    if border_size == 0:
        return np.zeros(shape, np.float32)
    weights = np.cos(np.pi / 2 * distance / border_size) ** 2 if treatment == "davies" else np.ones(shape)
    return np.where(distance < border_size, weights, 0.0).astype(np.float32)
