"""Linear interpolation from a grid of latitudes and longitudes to any points."""

import numpy as np
from numpy.typing import NDArray

from ai4sim.errors import InputError
from downscaling.corrdiff.readers.base import Field

Float = NDArray[np.float64]

BEYOND = 0.5  # cells: so far beyond the outermost points, fields are continued


class LinearRegrid:
    """Bilinear weights, made once.

    Args:
        latitude: (Y, X) degrees north, one value per row, or one per column.
        longitude: (Y, X) degrees east, one value per column, or one per row; 0 to 360 or -180 to 180.
        to_latitude: (h, w) of the points.
        to_longitude: (h, w) of the points.
        source: what the fields are of, for messages.

    Raises:
        InputError: the grid is no such grid, or does not reach a point.
    """

    def __init__(
        self,
        latitude: NDArray[np.floating],
        longitude: NDArray[np.floating],
        to_latitude: NDArray[np.floating],
        to_longitude: NDArray[np.floating],
        source: str,
    ) -> None:
        lat, lon = latitude.astype(np.float64), longitude.astype(np.float64)
        self._turn = bool(np.ptp(lat, axis=1).max() > np.ptp(lat, axis=0).max())  # rows are those of longitudes
        if self._turn:
            lat, lon = lat.T, lon.T
        rows, columns = lat[:, 0], lon[0, 0] + (lon[0] - lon[0, 0]) % 360
        west_first = bool(np.diff(columns).mean() > 0)
        uneven = np.abs(lat - rows[:, None]).max(), np.abs((lon - columns + 180) % 360 - 180).max()
        if max(uneven) > 1e-3 or not west_first or not _monotonic(rows) or not _monotonic(columns):
            raise InputError(
                f"{source} is on no grid of latitudes and longitudes (to the east): along an axis they differ by up to "
                f"{uneven[0]:.3g} and {uneven[1]:.3g} degrees; interpolate the fields beforehand"
            )
        self._shape = lat.shape
        step = float(np.diff(columns).mean())
        around = columns[-1] - columns[0] + 1.5 * step > 360
        axis = np.append(columns, columns[0] + 360) if around else columns
        # to where the grid is; half a step before its west is not almost a turn behind its east
        first = columns[0] if around else columns[0] - BEYOND * step
        lon_to = (to_longitude - first) % 360 + first
        top, down = _place(rows, to_latitude.astype(np.float64), "latitude", source)
        left, across = _place(axis, np.asarray(lon_to, np.float64), "longitude", source)
        n = len(columns)
        corners = [(top + i) * n + (left + j) % n for i in (0, 1) for j in (0, 1)]
        shares = [u * v for u in (1 - down, down) for v in (1 - across, across)]
        self._corners = np.stack(corners)  # (4, h, w)
        self._shares = np.stack(shares).astype(np.float32)

    def __call__(self, fields: Field) -> Field:
        """Values (..., h, w) of fields (..., Y, X); NaN where one of the four neighbours is."""
        if self._turn:
            fields = np.swapaxes(fields, -1, -2)
        flat = np.ascontiguousarray(fields).reshape(*fields.shape[:-2], -1)
        out = np.zeros((*flat.shape[:-1], *self._corners.shape[1:]), np.float32)
        for corner, share in zip(self._corners, self._shares, strict=True):
            out += np.take(flat, corner, axis=-1) * share
        return out


def _monotonic(axis: Float) -> bool:
    steps = np.diff(axis)
    return len(axis) > 1 and bool((steps > 0).all() or (steps < 0).all())


def _place(axis: Float, values: Float, what: str, source: str) -> tuple[NDArray[np.int64], Float]:
    """The interval of an axis that each value lies in, and where within it, from 0 to 1."""
    rising = axis if axis[0] < axis[-1] else axis[::-1]
    interval = np.clip(np.searchsorted(rising, values, side="right") - 1, 0, len(axis) - 2)
    share = (values - rising[interval]) / (rising[interval + 1] - rising[interval])
    if share.min() < -BEYOND or share.max() > 1 + BEYOND:
        raise InputError(
            f"{source} reaches from {what} {rising[0]:.2f} to {rising[-1]:.2f}, fine points from {values.min():.2f} to "
            f"{values.max():.2f}: it does not cover them"
        )
    if axis[0] > axis[-1]:
        return len(axis) - 2 - interval, 1 - share
    return interval, share
