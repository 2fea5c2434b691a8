"""Sun and calendar."""

import numpy as np
import pytest

from weather_forecast.lam import config
from weather_forecast.lam.solar import (
    SOLAR_CONSTANT,
    day_of_year,
    declination,
    hour_of_day,
    insolation,
    time_encodings,
    toa_radiation,
)


def test_noon_of_the_equinox_at_45_north():
    assert insolation(45.0, 0.0, 81, 12.0) == pytest.approx(965.9, abs=0.1)
    # day 81 of a common year is 22 March: days count from 1
    assert day_of_year("2023-03-22T12:00") == 81
    field = toa_radiation(np.datetime64("2023-03-22T12:00"), [45.0], [0.0])
    assert field.shape == (1, 1)
    assert field[0, 0] == pytest.approx(965.9, abs=0.1)


def test_days_count_from_one_and_know_leap_years():
    dates = ["2023-01-01", "2023-02-28", "2023-03-01", "2023-12-31", "2024-02-29", "2024-03-01", "2024-12-31"]
    np.testing.assert_array_equal(day_of_year(np.array(dates, "datetime64[D]")), [1, 59, 60, 365, 60, 61, 366])
    # centuries are leap years only by 400
    assert day_of_year("2000-12-31") == 366
    assert day_of_year("2100-12-31") == 365


def test_declination_is_zero_at_the_equinox_and_largest_at_midsummer():
    assert declination(81) == pytest.approx(0.0, abs=1e-12)
    days = np.arange(1, 366)
    assert np.degrees(declination(days)).max() == pytest.approx(23.45, abs=1e-3)
    assert day_of_year("2023-06-21") == days[declination(days).argmax()]


def test_zero_at_night_and_never_negative():
    hours = np.datetime64("2023-03-22T00:00") + np.arange(48) * np.timedelta64(30, "m")
    field = toa_radiation(hours, [-60.0, 0.0, 45.0], [0.0])  # (48, 3, 1)
    hour = hour_of_day(hours)
    night = (hour <= 6) | (hour >= 18)
    assert field[night].max() < 1e-10
    assert (field[~night] > 0).all()
    assert (field >= 0).all()
    polar_winter = toa_radiation(np.datetime64("2023-12-21T12:00"), [70.0], np.arange(-180.0, 180.0, 10.0))
    assert (polar_winter == 0).all()
    assert insolation(0.0, 0.0, 81, 12.0) == pytest.approx(SOLAR_CONSTANT)


def test_the_sun_moves_west_15_degrees_an_hour():
    noon = insolation(45.0, 30.0, 172, 10.0)
    assert noon == pytest.approx(insolation(45.0, 0.0, 172, 12.0))
    lon = np.arange(-60.0, 61.0, 1.0)
    field = toa_radiation(np.array(["2023-06-21T10:00", "2023-06-21T14:00"], "datetime64[m]"), [45.0], lon)
    np.testing.assert_array_equal(lon[field[:, 0].argmax(axis=-1)], [30.0, -30.0])


def test_daily_mean_is_the_known_integral():
    # S/pi (H sin(phi) sin(delta) + cos(phi) cos(delta) sin(H)) with half the day's length H
    phi, delta = np.radians(50.0), declination(172)
    half_day = np.arccos(-np.tan(phi) * np.tan(delta))
    expected = half_day * np.sin(phi) * np.sin(delta) + np.cos(phi) * np.cos(delta) * np.sin(half_day)
    hours = np.arange(0, 24, 0.05)
    assert insolation(50.0, 7.0, 172, hours).mean() == pytest.approx(SOLAR_CONSTANT / np.pi * expected, rel=1e-5)


def test_regular_and_other_grids_agree():
    lat, lon = np.array([40.0, 50.0, 60.0]), np.array([-5.0, 5.0])
    times = np.array([["2023-05-01T09:30"], ["2023-05-01T15:00"]], "datetime64[m]")
    regular = toa_radiation(times, lat, lon)
    assert regular.shape == (2, 1, 3, 2)
    np.testing.assert_allclose(toa_radiation(times, *np.broadcast_arrays(lat[:, None], lon[None])), regular)
    assert (regular[0, 0, :, 1] > regular[0, 0, :, 0]).all()  # the morning is brighter in the east
    with pytest.raises(ValueError, match=r"latitude \(3,\) and longitude \(3, 2\) must be \(lat,\) and \(lon,\)"):
        toa_radiation(times, lat, np.zeros((3, 2)))


def test_encodings_of_the_hour():
    assert config.TIME_FORCINGS == ("sin_hour", "cos_hour", "sin_doy", "cos_doy")
    times = np.array(["2023-01-01T00:00", "2023-01-01T06:00", "2023-01-01T12:00", "2023-01-01T16:30"], "datetime64[m]")
    encoded = time_encodings(times)
    assert encoded.shape == (4, 4)
    angle = np.pi * 16.5 / 12
    np.testing.assert_allclose(encoded[:, 0], [0.5, 1.0, 0.5, (np.sin(angle) + 1) / 2], atol=1e-12)
    np.testing.assert_allclose(encoded[:, 1], [1.0, 0.5, 0.0, (np.cos(angle) + 1) / 2], atol=1e-12)


@pytest.mark.parametrize(("year", "days"), [(2023, 365), (2024, 366), (2000, 366), (2100, 365)])
def test_the_circle_of_the_year_closes(year, days):
    encoded = time_encodings(np.array([f"{year}-01-01T00", f"{year}-12-31T23:59:59", f"{year + 1}-01-01"], "M8[s]"))
    np.testing.assert_allclose(encoded[0], [0.5, 1.0, 0.5, 1.0], atol=1e-12)
    np.testing.assert_allclose(encoded[2], encoded[0], atol=1e-12)
    np.testing.assert_allclose(encoded[1], encoded[2], atol=1e-4)  # New Year is no jump
    middle = np.datetime64(f"{year}-01-01T00", "s") + np.timedelta64(days * 43200, "s")
    np.testing.assert_allclose(time_encodings(middle)[2:], [0.5, 0.0], atol=1e-12)


def test_the_season_goes_on_evenly_over_a_leap_day():
    noons = np.array(["2024-02-27T12", "2024-02-28T12", "2024-02-29T12", "2024-03-01T12"], "datetime64[h]")
    circle = 2 * time_encodings(noons)[:, 2:] - 1
    angle = np.unwrap(np.arctan2(circle[:, 0], circle[:, 1]))
    np.testing.assert_allclose(np.diff(angle), 2 * np.pi / 366, rtol=1e-9)
    assert angle[2] == pytest.approx(2 * np.pi * 59.5 / 366)
    common = 2 * time_encodings(np.array(["2023-02-28T12", "2023-03-01T12"], "datetime64[h]"))[:, 2:] - 1
    assert np.diff(np.arctan2(common[:, 0], common[:, 1]))[0] == pytest.approx(2 * np.pi / 365)
