"""Readers of raw data sets behind one contract."""

from weather_forecast.lam.accessors.base import DataAccessor, GridInfo, Records
from weather_forecast.lam.accessors.dummy import DummyAccessor
from weather_forecast.lam.accessors.meps import MepsAccessor
from weather_forecast.lam.accessors.netcdf import NetcdfAccessor
from weather_forecast.lam.accessors.titan_npy import TitanNpyAccessor
from weather_forecast.lam.accessors.titan_zarr import ZarrAccessor

__all__ = [
    "DataAccessor",
    "DummyAccessor",
    "GridInfo",
    "MepsAccessor",
    "NetcdfAccessor",
    "Records",
    "TitanNpyAccessor",
    "ZarrAccessor",
]
