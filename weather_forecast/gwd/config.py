"""Names, units, constants and split dates of the gravity-wave-drag data set. No logic."""

from typing import Final

USE_CASE: Final = "weather_forecast/gwd"

# Physical constants of the scheme that made the public labels (ECMWF IFS values).
GRAVITY: Final = 9.80665  # m s-2
GAS_CONSTANT: Final = 287.0597  # J kg-1 K-1, dry air
HEAT_CAPACITY: Final = 1004.709  # J kg-1 K-1, dry air at constant pressure
SECONDS_PER_DAY: Final = 86400.0

# One column: profiles from the model top downward, then scalars.
PROFILES: Final = ("u", "v", "t")
SCALARS: Final = ("surface_pressure", "geopotential")
TARGETS: Final = ("dudt", "dvdt")
AUXILIARIES: Final = ("lat", "doy")
UNITS: Final = {
    "u": "m s-1",
    "v": "m s-1",
    "t": "K",
    "surface_pressure": "Pa",
    "geopotential": "m2 s-2",
    "dudt": "m s-2",
    "dvdt": "m s-2",
    "lat": "degrees_north",
    "doy": "day",
}
VALID_RANGE: Final = {
    "u": (-300.0, 300.0),
    "v": (-300.0, 300.0),
    "t": (100.0, 350.0),
    "surface_pressure": (3.0e4, 1.1e5),
}

# Start dates of the public 30-day forecasts ("maelstrom-nogwd").
SPLIT_DATES: Final = {
    "train": (
        "2015-01-01", "2015-01-31", "2015-03-02", "2015-04-01", "2015-05-01", "2015-05-31",
        "2015-06-30", "2015-07-30", "2015-08-29", "2015-09-28", "2015-10-28", "2015-11-27",
    ),
    "validation": ("2016-02-25", "2016-06-24", "2016-12-21"),
    "test": ("2017-02-19", "2017-07-19", "2017-11-16"),
}  # fmt: skip
HOURS_BETWEEN_SAMPLES: Final = 20
