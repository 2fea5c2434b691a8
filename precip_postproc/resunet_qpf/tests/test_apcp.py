"""Forecast amounts in GRIB2: chosen by step range, differences of run totals, units, caps and invalid values."""

import logging
from pathlib import Path

import numpy as np
import pytest

from ai4sim.errors import InputError, MissingFileError
from precip_postproc.resunet_qpf.readers.apcp import check_forecast, graf_path, hrrr_path, read_apcp, subtract_totals
from precip_postproc.resunet_qpf.readers.files import HOUR, to_millimetres
from precip_postproc.resunet_qpf.tests.grib_files import INIT, apcp, lambert_grid, write

GRID = lambert_grid()


def total(hours: int) -> np.ndarray:
    """Rain since the start of the run that differs from hour to hour and from point to point."""
    rows, columns = np.mgrid[: GRID.shape[0], : GRID.shape[1]]
    return np.round(np.arange(hours + 1).sum() * 0.1 * (1 + rows) + 0.01 * hours * columns, 2)


def test_names_of_files():
    late = np.datetime64("2025-12-01T06")
    assert graf_path("graf", late, 6) == Path(
        "graf/20251201/06/grid.hdo-graf_conus.20251201T120000Z.20251201T060000Z.PT6H.CONUS@4km.APCP.SFC.grb2"
    )
    # the former name, and a lead time that is not padded
    assert graf_path("graf", np.datetime64("2024-04-05T12"), 48).name == (
        "grid.hdo-graflr_conus.20240407T120000Z.20240405T120000Z.PT48H.CONUS@4km.APCP.SFC.grb2"
    )
    assert graf_path("graf", np.datetime64("2024-04-05T18"), 1).name.startswith("grid.hdo-graf_conus.20240405T190000Z")
    assert hrrr_path("hrrr", late, 6) == Path("hrrr/hrrr.20251201/conus/hrrr.t06z.wrfsfcf06.grib2")


class TestGrib:
    @pytest.fixture(autouse=True)
    def _eccodes(self) -> None:
        pytest.importorskip("eccodes")

    @pytest.fixture
    def run(self, tmp_path: Path) -> dict[int, Path]:
        """Files of run totals."""
        return {lead: write(tmp_path / f"f{lead:02}.grib2", apcp(total(lead), 0, lead, GRID)) for lead in (4, 5, 6)}

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
    def test_the_step_range_decides(self, tmp_path, order):
        # an instantaneous parameter with the same number of another category, and a category of rain
        messages = [
            apcp(total(6), 0, 6, GRID),
            apcp(total(6) - total(5), 5, 6, GRID),
            apcp(total(6), 5, 6, GRID, parameterCategory=0),
        ]
        path = write(tmp_path / "hrrr.t06z.wrfsfcf06.grib2", *(messages[i] for i in order))
        found = read_apcp(path, 6, init=INIT)
        np.testing.assert_allclose(found.values, total(6) - total(5), atol=2e-3)
        assert (found.init, found.lead, found.interval, found.n_capped, found.n_invalid) == (INIT, 6, 1, 0, 0)
        assert found.grid.shape == GRID.shape
        np.testing.assert_allclose(read_apcp(path, 6, interval=6, cap=None).values, total(6), atol=2e-3)

    def test_rows_and_windows(self, tmp_path):
        path = write(tmp_path / "a.grb2", apcp(total(6), 5, 6, GRID, north_first=True))
        window = slice(2, 6), slice(3, 12)
        found = read_apcp(path, 6, window=window, cap=None)
        np.testing.assert_allclose(found.values, total(6)[window], atol=2e-3)
        np.testing.assert_allclose(found.grid.latitude, GRID.latitude[window], atol=2e-6)

    def test_other_steps_are_named(self, tmp_path, run):
        expected = (
            r"f06.grib2 has no precipitation amount \(0/1/8\) of step 5-6 h; it has those of 0-6; the difference of "
            r"run totals needs the file of the earlier lead as well, given as 'previous'"
        )
        with pytest.raises(InputError, match=expected):
            read_apcp(run[6], 6)
        with pytest.raises(InputError, match=r"of step 6-7 h; it has those of 0-6"):
            read_apcp(run[6], 7)
        path = write(tmp_path / "a.grib2", apcp(total(6), 5, 6, GRID, typeOfStatisticalProcessing=0))
        with pytest.raises(InputError, match=r"of step 5-6 h; it has no precipitation amount at all"):
            read_apcp(path, 6)
        with pytest.raises(MissingFileError, match=r"none.grib2 \(GRIB2\) is not there"):
            read_apcp(tmp_path / "none.grib2", 6)

    def test_differences_of_run_totals(self, run, caplog):
        found = read_apcp(run[6], 6, previous=run[5])
        np.testing.assert_allclose(found.values, total(6) - total(5), atol=2e-3)
        assert (found.init, found.lead, found.n_negative) == (INIT, 6, 0)
        np.testing.assert_allclose(
            read_apcp(run[6], 6, interval=2, previous=run[4]).values, total(6) - total(4), atol=2e-3
        )
        assert not caplog.records

    def test_buckets_that_begin_anew(self, tmp_path):
        """Amounts since the last 6-h step: the common start is not that of the run."""
        later = write(tmp_path / "f09.grib2", apcp(total(9), 0, 9, GRID), apcp(total(9) - total(6), 6, 9, GRID))
        earlier = write(tmp_path / "f08.grib2", apcp(total(8) - total(6), 6, 8, GRID))
        found = read_apcp(later, 9, previous=earlier)
        np.testing.assert_allclose(found.values, total(9) - total(8), atol=2e-3)
        other = write(tmp_path / "g08.grib2", apcp(total(2), 7, 8, GRID))
        with pytest.raises(
            InputError, match=r"no precipitation amounts with a common start that end at 9 h and 8 h.*7-8"
        ):
            read_apcp(later, 9, previous=other)

    def test_negative_differences_are_counted(self, tmp_path, run, caplog):
        lower = total(6)
        lower[2, 3:6] = total(5)[2, 3:6] - 0.25
        path = write(tmp_path / "low.grib2", apcp(lower, 0, 6, GRID))
        found = read_apcp(path, 6, previous=run[5])
        assert found.n_negative == 3
        assert (found.values[2, 3:6] == 0).all()
        assert (found.values >= 0).all()
        assert "the total falls at 3 of 180 points, by up to 0.25 mm: these are set to 0" in caplog.text

    def test_other_runs_and_grids(self, tmp_path, run):
        with pytest.raises(
            InputError, match=r"run from 2025-12-01T06:00:00, valid at 2025-12-01T12:00:00; expected the run f"
        ):
            read_apcp(run[6], 6, interval=6, init=INIT + HOUR)
        older = write(tmp_path / "old.grib2", apcp(total(5), 0, 5, GRID, init=INIT - HOUR))
        with pytest.raises(
            InputError, match=r"old.grib2 of that from 2025-12-01T05:00:00; totals of one run are needed"
        ):
            read_apcp(run[6], 6, previous=older)
        smaller = lambert_grid(11)
        part = write(tmp_path / "part.grib2", apcp(total(5)[:11], 0, 5, smaller))
        with pytest.raises(
            InputError, match=r"f06.grib2 has shape \(12, 15\) .*part.grib2 has shape \(11, 15\).*shapes diff"
        ):
            read_apcp(run[6], 6, previous=part)

    def test_doubled_messages(self, tmp_path):
        """At the first hour total and hourly amount are the same."""
        path = write(tmp_path / "a.grib2", apcp(total(1), 0, 1, GRID), apcp(total(1), 0, 1, GRID))
        np.testing.assert_allclose(read_apcp(path, 1).values, total(1), atol=2e-3)
        path = write(tmp_path / "b.grib2", apcp(total(1), 0, 1, GRID), apcp(total(2), 0, 1, GRID))
        with pytest.raises(
            InputError, match=r"b.grib2 has 2 different precipitation amounts of step 0-1 h, expected 1"
        ):
            read_apcp(path, 1)

    def test_metres(self, tmp_path):
        keys = {"centre": "ecmf", "parameterNumber": 193, "decimalScaleFactor": 6}
        path = write(tmp_path / "a.grib2", apcp(total(6) / 1000, 5, 6, GRID, **keys))
        np.testing.assert_allclose(read_apcp(path, 6, cap=None).values, total(6), atol=2e-3)
        # the same number of NCEP is another parameter
        path = write(tmp_path / "b.grib2", apcp(total(6) / 1000, 5, 6, GRID, **(keys | {"centre": "kwbc"})))
        with pytest.raises(InputError, match="no precipitation amount at all"):
            read_apcp(path, 6)

    def test_masked_and_negative_points(self, tmp_path):
        values = total(2)
        values[1, 2] = -5.0
        masked = write(tmp_path / "masked.grib2", apcp(values, 1, 2, GRID, missing=-5.0))
        negative = write(tmp_path / "negative.grib2", apcp(values, 1, 2, GRID))
        for path, value in ((masked, "nan"), (negative, "-5")):
            expected = (
                rf"{path.name}: precip.* missing, .* 1 of 180 values \(first at row 1, column 2\), such as {value}"
            )
            with pytest.raises(InputError, match=expected):
                read_apcp(path, 2)
            found = read_apcp(path, 2, on_invalid="mask")
            assert found.n_invalid == 1
            assert np.argwhere(np.isnan(found.values)).tolist() == [[1, 2]]


def test_caps_and_invalid_values(caplog):
    caplog.set_level(logging.INFO)
    values = np.array([[0.0, -1e-7, 75.0, 75.1], [120.0, 3.0, 0.2, 74.9]], np.float32)
    found, n_capped, n_invalid = check_forecast(values, "a.nc")
    assert (found.tolist()[0], n_capped, n_invalid) == ([0, 0, 75, 75], 2, 0)
    assert "a.nc: 2 values above 75 mm are set to it" in caplog.text
    for bad in (np.nan, np.inf, -np.inf, -0.1, 9.97e36):
        with pytest.raises(
            InputError, match=r"a.nc: precipitation is missing, infinite, negative or a fill value at 1 of 2"
        ):
            check_forecast(np.array([[1.0, bad]], np.float32), "a.nc")
        found, n_capped, n_invalid = check_forecast(np.array([[1.0, bad]], np.float32), "a.nc", on_invalid="mask")
        assert (np.isnan(found[0, 1]), found[0, 0], n_capped, n_invalid) == (True, 1, 0, 1)


def test_unknown_points_stay_unknown_in_differences():
    later, earlier = np.array([[3.0, np.nan, 1.0]], np.float32), np.array([[1.0, 1.0, np.nan]], np.float32)
    difference, n_negative = subtract_totals(later, earlier, "a")
    np.testing.assert_array_equal(difference, [[2.0, np.nan, np.nan]])
    assert n_negative == 0


@pytest.mark.parametrize(
    ("units", "factor"),
    [("mm", 1), ("kg m-2", 1), ("kg m**-2", 1), ("kg m^-2", 1), ("m", 1000), ("mm/h", 3), ("mm h-1", 3)],
)
def test_units(units, factor):
    assert to_millimetres(units, 3, "a.nc") == factor


@pytest.mark.parametrize("units", ["", "inch", "kg m-2 s-1", "K"])
def test_other_units_are_refused(units):
    with pytest.raises(
        InputError, match=rf"a.nc: 'pr' has units '{units}'; expected mm, kg m-2 or m for an amount, mm/h"
    ):
        to_millimetres(units, 1, "a.nc: 'pr'")
