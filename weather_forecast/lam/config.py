"""What the data sets are made of: names, units and bounds of the parameters. No logic."""

from typing import NamedTuple

USE_CASE = "weather_forecast/lam"

EARTH_RADIUS = 6371.0  # km
EARTH_ROTATION = 7.292e-5  # s-1

LEVELS = (
    1000, 950, 925, 900, 850, 800, 750, 700, 650, 600, 550, 500,
    450, 400, 350, 300, 275, 250, 225, 200, 175, 150, 125, 100,
)  # fmt: skip
"""Isobaric levels of TITAN, hPa."""


class Field(NamedTuple):
    """A physical field, at whatever level.

    Attributes:
        units: SI or CF.
        long_name: for people.
        standard_name: of the CF conventions, empty where there is none.
        zarr: name in the TITAN Zarr store, empty where it is not among its variables.
        cumulative: accumulated over the hour before the time, and thus a forecast, not an analysis.
        lower: smallest value that is physical.
        upper: largest value that is physical.
    """

    units: str
    long_name: str
    standard_name: str = ""
    zarr: str = ""
    cumulative: bool = False
    lower: float | None = None
    upper: float | None = None


FIELDS = {
    "z": Field("m2 s-2", "geopotential", "geopotential", "geopotential"),
    "t": Field("K", "temperature", "air_temperature", "temperature", lower=0.0),
    "u": Field("m s-1", "zonal wind", "eastward_wind", "u_component_of_wind"),
    "v": Field("m s-1", "meridional wind", "northward_wind", "v_component_of_wind"),
    "wz": Field("m s-1", "vertical wind", "upward_air_velocity"),
    "r": Field("%", "relative humidity", "relative_humidity", lower=0.0),  # above 100 % over ice
    "ciwc": Field("kg kg-1", "cloud ice", "mass_fraction_of_cloud_ice_in_air", lower=0.0),
    "clwc": Field("kg kg-1", "cloud water", "mass_fraction_of_cloud_liquid_water_in_air", lower=0.0),
    "crwc": Field("kg kg-1", "rain water", "mass_fraction_of_rain_in_air", lower=0.0),
    "cswc": Field("kg kg-1", "snow", "mass_fraction_of_snow_in_air", lower=0.0),
    "prmsl": Field("Pa", "mean sea level pressure", "air_pressure_at_mean_sea_level", lower=0.0),
    "tciwv": Field("kg m-2", "precipitable water", "atmosphere_mass_content_of_water_vapor", lower=0.0),
    "str": Field("J m-2", "net thermal radiation", "surface_net_downward_longwave_flux", cumulative=True),
    "ssr": Field("J m-2", "net solar radiation", "surface_net_downward_shortwave_flux", cumulative=True, lower=0.0),
    "t2m": Field("K", "2 m temperature", "air_temperature", "2m_temperature", lower=0.0),
    "r2": Field("%", "2 m relative humidity", "relative_humidity", "2m_relative_humidity", lower=0.0, upper=100.0),
    "u10": Field("m s-1", "10 m zonal wind", "eastward_wind", "10m_u_component_of_wind"),
    "v10": Field("m s-1", "10 m meridional wind", "northward_wind", "10m_v_component_of_wind"),
    "ugust": Field("m s-1", "10 m zonal gust"),
    "vgust": Field("m s-1", "10 m meridional gust"),
    "sd": Field("kg m-2", "snow depth", "surface_snow_amount", lower=0.0),
    "tp": Field(
        "kg m-2", "precipitation", "precipitation_amount", "total_precipitation", cumulative=True, lower=0.0
    ),
    "tirf": Field("kg m-2", "rain", "rainfall_amount", cumulative=True, lower=0.0),
    "sprate": Field("kg m-2", "snowfall", "snowfall_amount", cumulative=True, lower=0.0),
    "prec": Field("kg m-2", "radar and gauge precipitation", "precipitation_amount", cumulative=True, lower=0.0),
    "pres": Field("Pa", "surface pressure", "surface_air_pressure", lower=0.0),
    "nlwrs": Field("W m-2", "net longwave radiation at the surface", "surface_net_downward_longwave_flux"),
    "nswrs": Field("W m-2", "net shortwave radiation at the surface", "surface_net_downward_shortwave_flux", lower=0.0),
    "flux": Field("W m-2", "solar radiation at the top of the atmosphere", "toa_incoming_shortwave_flux", lower=0.0),
    "wtr": Field("1", "share of open water", lower=0.0, upper=1.0),
    "d2m": Field("K", "2 m dew point", "dew_point_temperature", lower=0.0),
    "ishf": Field("W m-2", "sensible heat flux, downward", "surface_downward_sensible_heat_flux"),
    "zust": Field("m s-1", "friction velocity", lower=0.0),
}  # fmt: skip
"""Short names of fields, TITAN's first; what is before them in a parameter's name is the model they come from."""

SOURCES = {
    "aro": "AROME, the analysed limited-area model",
    "arp": "ARPEGE, the host model",
    "ant": "ANTILOPE, radar",
    "meps": "MEPS, the Nordic ensemble of limited-area forecasts",
    "era": "ERA5, the global reanalysis",
}
HOST = "arp"

ZARR_HOST_PREFIX = "host_"
"""Fields of the host model in a Zarr store are called as the analysed ones with this before them."""

TIME_FORCINGS = ("sin_hour", "cos_hour", "sin_doy", "cos_doy")
SOLAR_FORCING = "toa_radiation"
STATICS = ("x", "y", "geopotential", "border_mask")
