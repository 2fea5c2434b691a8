"""Map projections of a sphere: the Lambert conformal cone, as limited-area models use it.

Formulas: Snyder (1987), Map Projections: A Working Manual, USGS Professional Paper 1395, pp. 106-107.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai4sim.errors import InputError

Float = NDArray[np.float64]


@dataclass(frozen=True)
class LambertConformal:
    """A cone that cuts or touches the sphere.

    Args:
        latitude: of the origin, degrees north.
        longitude: of the origin and of the meridian that points north, degrees east.
        parallels: latitudes that are true to scale, degrees north; twice the same where the cone touches.
        radius: of the sphere, m.

    Raises:
        InputError: parallels on both sides of the equator at the same distance: no cone; or a radius below 0.
    """

    latitude: float
    longitude: float
    parallels: tuple[float, float]
    radius: float

    def __post_init__(self) -> None:
        if self.radius <= 0:
            raise InputError(f"Lambert projection: the radius must be positive, it is {self.radius} m")
        if abs(sum(self.parallels)) < 1e-9 or max(map(abs, (*self.parallels, self.latitude))) >= 90:
            raise InputError(
                f"Lambert projection: parallels {self.parallels} and origin {self.latitude} degrees give no cone"
            )

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> "LambertConformal":
        """The projection of a CF grid mapping.

        Raises:
            InputError: another projection, an ellipsoid, or an attribute that is missing.
        """
        name = attributes.get("grid_mapping_name")
        if name != "lambert_conformal_conic":
            raise InputError(f"the grid mapping {name!r} is not known: give the file 2-D latitude and longitude")
        try:
            parallels = np.atleast_1d(np.asarray(attributes["standard_parallel"], np.float64))
            radius = attributes.get("earth_radius", attributes.get("semi_major_axis"))
            if radius is None:
                raise KeyError("earth_radius")
            return cls(
                float(attributes["latitude_of_projection_origin"]),
                float(attributes["longitude_of_central_meridian"]),
                (float(parallels[0]), float(parallels[-1])),
                float(radius),
            )
        except KeyError as error:
            raise InputError(f"the grid mapping lambert_conformal_conic lacks the attribute {error}") from error

    @property
    def cone(self) -> float:
        """Constant of the cone: how much a meridian turns on the map per degree of longitude."""
        first, second = np.radians(self.parallels)
        if abs(first - second) < 1e-9:
            return float(np.sin(first))
        ratio = np.log(np.cos(first) / np.cos(second))
        return float(ratio / np.log(_stretch(second) / _stretch(first)))

    def _distance(self, latitude: Float | float) -> Float:
        """Distance of parallels (radians) from the cone's apex, m; negative for a cone over the south."""
        first = np.radians(self.parallels[0])
        distance: Float = (
            self.radius * np.cos(first) / self.cone * (_stretch(first) / _stretch(np.asarray(latitude))) ** self.cone
        )
        return distance

    def to_plane(self, latitude: Float | float, longitude: Float | float) -> tuple[Float, Float]:
        """Planar coordinates of points on the sphere.

        Args:
            latitude: (...) degrees north.
            longitude: (...) degrees east.

        Returns:
            x to the east and y to the north of the origin, m.
        """
        turned = (np.asarray(longitude) - self.longitude + 180) % 360 - 180
        angle = self.cone * np.radians(turned)
        distance = self._distance(np.radians(latitude))
        return distance * np.sin(angle), self._distance(np.radians(self.latitude)) - distance * np.cos(angle)

    def to_sphere(self, x: Float | float, y: Float | float) -> tuple[Float, Float]:
        """Latitude and longitude, degrees, of points (...) of the plane, m."""
        side = np.sign(self.cone)
        along = side * (self._distance(np.radians(self.latitude)) - np.asarray(y, np.float64))
        across = side * np.asarray(x, np.float64)
        distance = side * np.hypot(across, along)
        first = np.radians(self.parallels[0])
        apex = self.radius * np.cos(first) / self.cone
        stretch = _stretch(first) * (apex / distance) ** (1 / self.cone)
        latitude = np.degrees(2 * np.arctan(stretch) - np.pi / 2)
        longitude = self.longitude + np.degrees(np.arctan2(across, along)) / self.cone
        return latitude, (longitude + 180) % 360 - 180


def _stretch(latitude: Float | float) -> Float:
    """The tangent of 45 degrees and half the latitude (radians)."""
    tangent: Float = np.tan(np.pi / 4 + np.asarray(latitude) / 2)
    return tangent
