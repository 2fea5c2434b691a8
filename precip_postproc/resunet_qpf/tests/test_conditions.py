import numpy as np
import pytest

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.conditions import lead_conditions
from precip_postproc.resunet_qpf.config import N_CONDITIONS


def times(*values: str) -> np.ndarray:
    return np.array(values, "datetime64[s]")


def test_values_and_their_order():
    found = lead_conditions([18, 48], times("2025-01-01T03", "2025-12-31T18"))
    assert found.dtype == np.float32
    assert found.shape == (2, N_CONDITIONS)
    # 3 UTC is an eighth of a turn
    half = np.sqrt(0.5)
    season = 2 * np.pi * 0.125 / 365
    expected = [-0.25, 0.0, half, half, 1.0, 0.0, np.sin(season), np.cos(season)]
    np.testing.assert_allclose(found[0], expected, atol=1e-6)
    season = 2 * np.pi * 364.75 / 365
    expected = [1.0, np.log(48 / 18), -1.0, 0.0, 0.0, -1.0, np.sin(season), np.cos(season)]
    np.testing.assert_allclose(found[1], expected, atol=1e-6)


def test_hours_repeat_every_day_and_minutes_count():
    one, other, later = lead_conditions(
        [6, 6, 6], np.array(["2025-03-01T05", "2025-09-17T05", "2025-09-17T05:30"], "datetime64[m]")
    )
    np.testing.assert_array_equal(one[2:6], other[2:6])
    np.testing.assert_allclose(later[2:4], [np.sin(np.pi * 11 / 24), np.cos(np.pi * 11 / 24)], atol=1e-6)


@pytest.mark.parametrize(("year", "days"), [(2023, 365), (2024, 366)])
def test_season_is_one_turn_in_every_year(year, days):
    whole = np.arange(f"{year}-01-01", f"{year + 1}-01-01", dtype="datetime64[D]")
    assert len(whole) == days
    season = lead_conditions(np.full(days, 6), whole)[:, 6:]
    angle = 2 * np.pi * np.arange(days) / days
    np.testing.assert_allclose(season, np.stack([np.sin(angle), np.cos(angle)], axis=1), atol=1e-6)


def test_nothing_jumps_at_the_turn_of_the_year():
    hours = np.arange("2024-12-31T12", "2025-01-01T12", dtype="datetime64[h]")
    found = lead_conditions(np.full(24, 6), hours)
    # the fastest is the half-daily cycle: 30 degrees an hour
    assert abs(np.diff(found, axis=0)).max() < np.pi / 6
    assert abs(np.diff(found[:, 6:], axis=0)).max() < 2 * np.pi / 365 / 23


def test_lead_conditions_of_no_case_are_empty():
    assert lead_conditions([], times()).shape == (0, N_CONDITIONS)


def test_faults():
    time = times("2025-01-01")
    for lead in (0, -3, np.nan, np.inf):
        with pytest.raises(InputError, match=f"a lead time is {lead:g} h; expected more than 0"):
            lead_conditions([lead], time)
    with pytest.raises(InputError, match=r"valid time of lead 12 h is missing \(NaT\)"):
        lead_conditions([12], times("NaT"))
    with pytest.raises(ValueError, match=r"lead times \(2,\) and valid times \(1,\); expected \(B,\) of both"):
        lead_conditions([6, 12], time)
