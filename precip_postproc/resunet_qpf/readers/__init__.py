"""Readers of real data: GRIB2 (MRMS, forecasts), NetCDF and Zarr; rows are from the south, columns from the west."""

from precip_postproc.resunet_qpf.readers.apcp import ForecastField, graf_path, hrrr_path, read_apcp
from precip_postproc.resunet_qpf.readers.files import require_valid_time
from precip_postproc.resunet_qpf.readers.forecasts import ForecastFile
from precip_postproc.resunet_qpf.readers.gfs import CoarsePredictors, gfs_path, read_gfs
from precip_postproc.resunet_qpf.readers.grib import Header, Message, read_headers, read_message, read_messages
from precip_postproc.resunet_qpf.readers.grid import (
    CurvilinearGrid,
    Grid,
    LambertGrid,
    LatLonGrid,
    require_same_grid,
)
from precip_postproc.resunet_qpf.readers.mrms import (
    MrmsField,
    Product,
    accumulate_rates,
    mrms_path,
    product_named,
    read_hour,
    read_mrms,
    read_mrms_grid,
)
from precip_postproc.resunet_qpf.readers.remap import Remapper
from precip_postproc.resunet_qpf.readers.target import TargetField, read_target, target_path
from precip_postproc.resunet_qpf.readers.terrain import Terrain, read_terrain

__all__ = [
    "CoarsePredictors",
    "CurvilinearGrid",
    "ForecastField",
    "ForecastFile",
    "Grid",
    "Header",
    "LambertGrid",
    "LatLonGrid",
    "Message",
    "MrmsField",
    "Product",
    "Remapper",
    "TargetField",
    "Terrain",
    "accumulate_rates",
    "gfs_path",
    "graf_path",
    "hrrr_path",
    "mrms_path",
    "product_named",
    "read_apcp",
    "read_gfs",
    "read_headers",
    "read_hour",
    "read_message",
    "read_messages",
    "read_mrms",
    "read_mrms_grid",
    "read_target",
    "read_terrain",
    "require_same_grid",
    "require_valid_time",
    "target_path",
]
