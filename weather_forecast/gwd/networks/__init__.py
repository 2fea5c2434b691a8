"""Column networks for gravity-wave drag: physical units in and out, statistics inside."""

from weather_forecast.gwd.networks.azimuth import AzimuthFluxNet
from weather_forecast.gwd.networks.mlp import MLP

__all__ = ["MLP", "AzimuthFluxNet"]
