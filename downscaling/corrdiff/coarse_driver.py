"""The coarse fields of the demo: what a global model with cells of some 24 km would say of the same weather."""

import numpy as np

from downscaling.corrdiff.periodic import Array, block_constant, block_mean, smooth
from downscaling.corrdiff.sqg import CORIOLIS
from downscaling.corrdiff.surface_layer import SurfaceLayer
from downscaling.corrdiff.terrain import Terrain

SMOOTHING = 0.6  # cells
DENSITY = 1.2  # kg m-3
PRESSURE = 101000.0  # Pa
WATER_VAPOUR = 25.0  # kg m-2
UPPER_TEMPERATURE, UPPER_ANOMALY = 278.0, 0.8  # K, part of the anomaly at the ground


class CoarseDriver:
    """A model of the same atmosphere over the same terrain, both of which it resolves with coarse cells.

    Its flow is the mean over cells, smooth in between; its surface layer is the fine one's over smooth orography.

    Args:
        terrain: (n, n).
        factor: points along a cell.
        spacing: of the points, m.
    """

    def __init__(self, terrain: Terrain, factor: int, spacing: float) -> None:
        self._factor = factor
        majority = (block_mean(terrain.land, factor) > 0.5).astype(terrain.land.dtype)
        land = block_constant(majority, factor)
        self._surface = SurfaceLayer(self.resolve(terrain.height), land, spacing)

    def resolve(self, field: Array) -> Array:
        """What the model knows of a field (n, n): means over cells, made smooth again."""
        return smooth(block_constant(block_mean(field, self._factor), self._factor), SMOOTHING * self._factor)

    def __call__(
        self, u: Array, v: Array, temperature: Array, moisture: Array, streamfunction: Array, hour: float
    ) -> dict[str, Array]:
        """Coarse fields (n/factor, n/factor) by their names in the file, in its order.

        Args:
            u: (n, n) wind aloft to the east, m/s.
            v: (n, n) wind aloft to the north, m/s.
            temperature: (n, n) anomaly, K.
            moisture: (n, n) relative to the usual.
            streamfunction: (n, n) without the mean wind's part, m²/s.
            hour: of the day, solar time.
        """
        dry = np.zeros_like(moisture)
        flow = (self.resolve(u), self.resolve(v), self.resolve(temperature))
        surface = self._surface(*flow, lift=0.0, moisture=dry, hour=hour)
        fields = {
            "10u": surface.u,
            "10v": surface.v,
            "2t": surface.temperature,
            "tcwv": WATER_VAPOUR * moisture,
            # geostrophic balance
            "msl": DENSITY * CORIOLIS * streamfunction,
            "u850": u,
            "v850": v,
            "t850": UPPER_TEMPERATURE + UPPER_ANOMALY * temperature,
        }
        cells = {name: block_mean(field, self._factor) for name, field in fields.items()}
        # last of all: in single precision the deviations would be lost in the mean
        cells["msl"] = PRESSURE + cells["msl"]
        return cells
