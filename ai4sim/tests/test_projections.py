"""The Lambert projection against a published example, its scale and its inverse, and CF grid mappings."""

import numpy as np
import pytest

from ai4sim.errors import InputError
from ai4sim.projections import LambertConformal

SCANDINAVIA = LambertConformal(63.3, 15.0, (63.3, 63.3), 6367470.0)
"""A cone that touches the sphere, as the MEPS model has it."""


def test_the_example_of_snyder():
    """Snyder (1987), p. 295: sphere of radius 1, parallels 33 and 45 N, origin 23 N 96 W."""
    projection = LambertConformal(23, -96, (33, 45), 1.0)
    assert projection.cone == pytest.approx(0.6304777, abs=2e-7)
    x, y = projection.to_plane(35.0, -75.0)
    assert (float(x), float(y)) == (pytest.approx(0.2966785, abs=1e-7), pytest.approx(0.2462112, abs=1e-7))


@pytest.mark.parametrize("projection", [SCANDINAVIA, LambertConformal(-30, 170, (-25, -40), 6.371e6)])
def test_round_trip_and_scale(projection):
    offsets = np.linspace(-12, 12, 7)
    latitude, longitude = np.meshgrid(projection.latitude + offsets, projection.longitude + 3 * offsets)
    there = projection.to_sphere(*projection.to_plane(latitude, longitude))
    np.testing.assert_allclose(there[0], latitude, atol=1e-9)
    np.testing.assert_allclose((there[1] - longitude + 180) % 360, 180, atol=1e-9)
    np.testing.assert_allclose(projection.to_plane(projection.latitude, projection.longitude), 0, atol=1e-6)
    # parallels are true to scale, the map is conformal, north is up on the middle meridian
    parallel = projection.parallels[0]
    x, y = projection.to_plane(np.full(2, parallel), projection.longitude + np.array([0, 1e-4]))
    degree = np.radians(1e-4) * projection.radius
    assert np.hypot(np.diff(x), np.diff(y))[0] == pytest.approx(degree * np.cos(np.radians(parallel)), rel=1e-6)
    x, y = projection.to_plane(parallel + np.array([0, 1e-4]), np.full(2, projection.longitude))
    assert (np.diff(x)[0], np.diff(y)[0]) == (pytest.approx(0, abs=1e-6), pytest.approx(degree, rel=1e-5))


def test_grid_mappings():
    attributes = {
        "grid_mapping_name": "lambert_conformal_conic", "standard_parallel": [63.3, 63.3],
        "earth_radius": 6367470.0, "longitude_of_central_meridian": 15.0, "latitude_of_projection_origin": 63.3,
    }  # fmt: skip
    assert LambertConformal.from_attributes(attributes) == SCANDINAVIA
    assert LambertConformal.from_attributes(attributes | {"standard_parallel": 63.3}) == SCANDINAVIA
    for changes, message in (
        (
            {"grid_mapping_name": "rotated_latitude_longitude"},
            "'rotated_latitude_longitude' is not known: give the f",
        ),
        ({"standard_parallel": [40.0, -40.0]}, "give no cone"),
        ({"earth_radius": -1.0}, "the radius must be positive"),
    ):
        with pytest.raises(InputError, match=message):
            LambertConformal.from_attributes(attributes | changes)
    for name in ("earth_radius", "latitude_of_projection_origin"):
        with pytest.raises(InputError, match=f"lacks the attribute '{name}'"):
            LambertConformal.from_attributes({k: v for k, v in attributes.items() if k != name})
