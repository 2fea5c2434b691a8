"""Readers of raw data sets: all come down to pairs of coarse and fine fields."""

from downscaling.corrdiff.readers.base import Channel, PairedSource, Pairs
from downscaling.corrdiff.readers.coarsened import CoarsenedDataset
from downscaling.corrdiff.readers.cwa import Cwa
from downscaling.corrdiff.readers.gefs_hrrr import GefsHrrr
from downscaling.corrdiff.readers.hrrr_mini import HrrrMini
from downscaling.corrdiff.readers.paired import PairedDatasets
from downscaling.corrdiff.readers.statistics_file import Moments, Statistics, read_statistics, write_statistics

__all__ = [
    "Channel",
    "CoarsenedDataset",
    "Cwa",
    "GefsHrrr",
    "HrrrMini",
    "Moments",
    "PairedDatasets",
    "PairedSource",
    "Pairs",
    "Statistics",
    "read_statistics",
    "write_statistics",
]
