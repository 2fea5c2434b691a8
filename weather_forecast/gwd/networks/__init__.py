"""Column networks for gravity-wave drag: physical units in and out, statistics inside."""

from weather_forecast.gwd.networks.azimuth import AzimuthFluxNet
from weather_forecast.gwd.networks.base import ColumnNetwork
from weather_forecast.gwd.networks.branches import LevelBranchNet
from weather_forecast.gwd.networks.cnn import ColumnCNN, DilatedCNN
from weather_forecast.gwd.networks.mlp import MLP
from weather_forecast.gwd.networks.rnn import ColumnRNN

__all__ = [
    "MLP",
    "AzimuthFluxNet",
    "ColumnCNN",
    "ColumnNetwork",
    "ColumnRNN",
    "DilatedCNN",
    "LevelBranchNet",
]
