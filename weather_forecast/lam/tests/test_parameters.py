"""Names of parameters, and periods."""

import numpy as np
import pytest

from ai4sim.errors import InputError
from weather_forecast.lam.parameters import Parameter, parse_all
from weather_forecast.lam.periods import Period


def test_parts_of_a_name():
    upper = Parameter.parse("aro_t_850hpa")
    assert (upper.source, upper.short, upper.level, upper.unit) == ("aro", "t", 850, "hpa")
    assert upper.name == "aro_t_850hpa"
    assert upper.suffix == "t_850hpa" == Parameter.parse("arp_t_850hpa").suffix
    assert upper.units == "K"
    assert upper.title == "temperature 850 hPa"
    assert upper.weight == 1.85
    near = Parameter.parse("aro_tp_0m")
    assert not near.is_isobaric
    assert near.weight == 2.0
    assert near.units == "kg m-2"
    assert near.field.cumulative
    # mean sea level pressure has the unit hPa in file names, but is on no pressure level
    assert Parameter.parse("aro_prmsl_0hpa").weight == 2.0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("t850", "'t850' is not of the form aro_t_850hpa or aro_t2m_2m"),
        ("aro_t_850pa", "units: m, hpa"),
        ("aroo_t_850hpa", "source 'aroo' is unknown; valid are .*arp.*; did you mean 'aro'"),
        ("aro_t3m_2m", "field 't3m' is unknown; .*; did you mean 't2m'"),
        ("aro_t_860hpa", "level 860 hPa is unknown; valid are .*850"),
    ],
)
def test_bad_names(name, message):
    with pytest.raises(InputError, match=message):
        Parameter.parse(name)


def test_repeated_names():
    with pytest.raises(InputError, match="parameters repeat: aro_t2m_2m"):
        parse_all(["aro_t2m_2m", "aro_t_500hpa", "aro_t2m_2m"])


class TestPeriods:
    def test_the_last_day_belongs_to_the_period(self):
        period = Period("2023-01-01", "2023-01-31")
        times = np.array(["2022-12-31T23", "2023-01-01T00", "2023-01-31T23", "2023-02-01T00"], "datetime64[h]")
        assert period.contains(times).tolist() == [False, True, True, False]

    def test_the_last_time_belongs_to_the_period(self):
        period = Period("2023-01-01T06", "2023-01-01T12")
        times = np.array(["2023-01-01T05", "2023-01-01T06", "2023-01-01T12", "2023-01-01T13"], "datetime64[h]")
        assert period.contains(times).tolist() == [False, True, True, False]

    def test_bad_dates(self):
        with pytest.raises(InputError, match=r"'2023-13-01' is no date; write it as 2023-01-31"):
            Period("2023-13-01", "2023-12-01")
        with pytest.raises(InputError, match=r"2023-02-01 \.\. 2023-01-01 ends before it begins"):
            Period("2023-02-01", "2023-01-01")
