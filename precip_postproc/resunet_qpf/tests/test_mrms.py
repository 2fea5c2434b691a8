"""MRMS: the table of products, invalid values, accumulation, and the real files."""

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.readers.files import HOUR
from precip_postproc.resunet_qpf.readers.grid import WHOLE
from precip_postproc.resunet_qpf.readers.mrms import (
    MINUTE,
    PRODUCTS,
    QUALITY,
    RATE,
    TARGET,
    accumulate_rates,
    mrms_path,
    product_named,
    read_hour,
    read_mrms,
    read_mrms_grid,
)
from precip_postproc.resunet_qpf.tests.grib_files import apcp, lambert_grid, mrms, samples, write

LATITUDES, LONGITUDES = 38.005 + 0.01 * np.arange(20), -99.995 + 0.01 * np.arange(25)
TIME = np.datetime64("2025-12-02T12:00:00")
CONUS = "MRMS_MultiSensor_QPE_01H_Pass2_00.00_20220602-120000.grib2.gz"
GUAM = "GUAM_MRMS_MultiSensor_QPE_01H_Pass1_00.00_20220601-120000.grib2.gz"


def message(values, triple=(209, 6, 37), time=TIME, **changes) -> bytes:
    return mrms(values, triple, time, LATITUDES, LONGITUDES, **changes)


def amounts() -> np.ndarray:
    rows, columns = np.mgrid[:20, :25]
    return np.round(0.1 * (rows + 3 * columns), 1)


class TestProducts:
    def test_names_units_and_intervals(self):
        assert PRODUCTS[209, 6, 37] == product_named(TARGET)
        assert (product_named(TARGET).units, product_named(TARGET).interval) == ("mm", HOUR)
        assert PRODUCTS[209, 8, 10].name == QUALITY
        assert PRODUCTS[209, 6, 1].units == "mm h-1"
        assert PRODUCTS[209, 6, 33].name == "MultiSensor_QPE_12H_Pass1"
        assert PRODUCTS[209, 6, 33].interval == 12 * HOUR
        assert len({product.name for product in PRODUCTS.values()}) == len(PRODUCTS)
        with pytest.raises(InputError, match=r"MRMS has no product 'QPE'; known are PrecipRate, RadarOnly_QPE_01H"):
            product_named("QPE")

    def test_agree_with_the_official_table(self):
        lines = list(csv.reader((samples() / "UserTable_MRMS_v12.2.csv").open(encoding="utf-8-sig")))
        official = {tuple(map(int, line[:3])): line for line in lines if line[0] == "209" and line[2].isdigit()}
        units = {"mm": "mm", "mm/hr": "mm h-1", "non-dim": "1"}
        for triple, product in PRODUCTS.items():
            if triple != (209, 6, 9):  # no more in version 12
                assert (product.name, product.units) == (official[triple][3], units[official[triple][5]]), triple

    def test_paths_of_the_public_bucket(self):
        expected = Path(
            "CONUS/MultiSensor_QPE_01H_Pass2_00.00/20251202/MRMS_MultiSensor_QPE_01H_Pass2_00.00_20251202-120000.grib2.gz"
        )
        assert mrms_path("CONUS", TARGET, TIME) == expected


class TestReading:
    @pytest.fixture(autouse=True)
    def _eccodes(self) -> None:
        pytest.importorskip("eccodes")

    @pytest.mark.parametrize("name", ["a.grib2", "a.grib2.gz"])
    def test_rows_from_the_south_and_negative_values_invalid(self, tmp_path, name):
        values = amounts()
        values[0, :3], values[4, 5] = (-1, -3, -999), -0.1
        found = read_mrms(write(tmp_path / name, message(values)), TARGET)
        invalid = np.isnan(found.values)
        assert np.argwhere(invalid).tolist() == [[0, 0], [0, 1], [0, 2], [4, 5]]
        np.testing.assert_allclose(found.values[~invalid], values[~invalid], atol=1e-5)
        assert found.invalid_fraction == pytest.approx(4 / 500)
        assert (found.time, found.product.name, found.product.units) == (TIME, TARGET, "mm")
        np.testing.assert_allclose(found.grid.latitudes, LATITUDES, atol=1e-9)
        np.testing.assert_allclose(found.grid.longitudes, LONGITUDES, atol=1e-9)

    def test_quality(self, tmp_path):
        quality = np.clip(amounts() / 7, 0, 1).round(1)
        quality[0, 0], quality[0, 1] = -3, 1.5
        target = write(tmp_path / "a.grib2", message(amounts()))
        path = write(tmp_path / "q.grib2", message(quality, (209, 8, 10)))
        amount, index = read_hour(target, path, (slice(0, 10), slice(0, 12)))
        assert np.argwhere(np.isnan(index.values)).tolist() == [[0, 0], [0, 1]]
        np.testing.assert_allclose(index.values[1:], quality[1:10, :12], atol=1e-6)
        assert amount.grid.shape == index.grid.shape == (10, 12)
        late = write(tmp_path / "late.grib2", message(quality, (209, 8, 10), TIME + HOUR))
        with pytest.raises(
            InputError, match=r"late.grib2 is the quality of 2025-12-02T13:00:00, but .*a.grib2 is the amo"
        ):
            read_hour(target, late)
        moved = mrms(quality, (209, 8, 10), TIME, LATITUDES + 0.02, LONGITUDES)
        with pytest.raises(
            InputError, match=r"a.grib2 has shape \(20, 25\) and first corner 38.0050 N, -99.9950 E.*by up to 0.02"
        ):
            read_hour(target, write(tmp_path / "moved.grib2", moved))

    def test_other_products_are_refused(self, tmp_path):
        path = write(tmp_path / "a.grib2", message(amounts(), (209, 6, 40)))
        expected = (
            r"a.grib2 holds MultiSensor_QPE_12H_Pass2 \(209/6/40\) over 12 h, expected MultiSensor_QPE_01H_Pass2 "
            r"\(209/6/37\) over 1 h"
        )
        with pytest.raises(InputError, match=expected):
            read_mrms(path, TARGET)
        assert read_mrms(path).product.interval == 12 * HOUR
        grid = lambert_grid()
        path = write(tmp_path / "b.grib2", apcp(np.ones(grid.shape), 0, 1, grid))
        with pytest.raises(
            InputError, match=r"b.grib2 holds an unknown product \(0/1/8\), expected one of precipitation"
        ):
            read_mrms(path)
        with pytest.raises(InputError, match=r"b.grib2 has a projected grid; MRMS fields are on latitudes"):
            read_mrms_grid(path)
        path = write(tmp_path / "c.grib2", message(amounts()), message(amounts()))
        with pytest.raises(InputError, match=r"c.grib2 has more than one message, found 2, expected 1"):
            read_mrms(path, TARGET)

    def test_alaska_lies_across_the_date_line(self, tmp_path):
        longitudes = 176.05 + 0.1 * np.arange(100)
        values = np.zeros((20, 100))
        values[3, 60] = 5.0
        path = write(
            tmp_path / "a.grib2",
            mrms(values, (209, 6, 37), TIME, LATITUDES, longitudes, jDirectionIncrementInDegrees=0.01),
        )
        found = read_mrms(path)
        assert found.grid.corner[1] == pytest.approx(176.05)
        assert found.grid.longitude[0, -1] == pytest.approx(-174.05)
        cell = found.grid.cell_of(np.array(LATITUDES[3]), np.array(-177.95))
        assert found.values.ravel()[cell] == 5.0


class TestAccumulation:
    @pytest.fixture(autouse=True)
    def _eccodes(self) -> None:
        pytest.importorskip("eccodes")

    @staticmethod
    def members(folder: Path, times, rates=None) -> list[Path]:
        rates = [amounts() + i for i in range(len(times))] if rates is None else rates
        return [
            write(folder / f"{i:02}.grib2", message(rate, (209, 6, 1), time))
            for i, (time, rate) in enumerate(zip(times, rates, strict=True))
        ]

    @staticmethod
    def times(number: int = 30) -> list[np.datetime64]:
        return [TIME - i * 2 * MINUTE for i in range(number)][::-1]

    def test_an_hour(self, tmp_path):
        rates = [amounts() + i for i in range(30)]
        for i, rate in enumerate(rates):
            rate[0, i % 4] = -3
        paths = self.members(tmp_path, self.times(), rates)
        hour = accumulate_rates(paths, TIME)
        invalid = np.isnan(hour.values)
        # the intersection of the members' coverage
        assert np.argwhere(invalid).tolist() == [[0, 0], [0, 1], [0, 2], [0, 3]]
        np.testing.assert_allclose(hour.values[~invalid], (np.mean(rates, axis=0))[~invalid], rtol=1e-6)
        assert (hour.time, hour.product.units, hour.product.interval) == (TIME, "mm", HOUR)
        np.testing.assert_allclose(
            accumulate_rates(paths, window=(slice(1, 5), slice(2, 9))).values, hour.values[1:5, 2:9]
        )

    def test_members_may_be_some_seconds_late(self, tmp_path):
        times = [time + np.timedelta64(40, "s") * (i % 2) for i, time in enumerate(self.times(15))]
        half = accumulate_rates(self.members(tmp_path, times), TIME, interval=30 * MINUTE)
        np.testing.assert_allclose(half.values, (amounts() + 7) / 2, rtol=1e-5)

    def test_missing_doubled_and_shuffled_members(self, tmp_path):
        paths = self.members(tmp_path, self.times(5))
        with pytest.raises(InputError, match=r"60 min of PrecipRate need 30 members 2 min apart, found 5 files"):
            accumulate_rates(paths)
        five = {"interval": 10 * MINUTE}
        assert accumulate_rates(paths, **five).time == TIME
        wrong = [paths[i] for i in (0, 1, 1, 3, 4)]
        expected = (
            r"01.grib2 is member 3 of 5 of the 10 min to 2025-12-02T12:00:00 and is valid at 2025-12-02T11:54:00, expec"
        )
        with pytest.raises(InputError, match=expected):
            accumulate_rates(wrong, **five)
        with pytest.raises(
            InputError, match=r"member 1 of 5 .* expected 2025-12-02T11:52:00; members must be 2 min apart"
        ):
            accumulate_rates([paths[i] for i in (1, 0, 2, 3, 4)], **five)
        with pytest.raises(InputError, match=r"valid at 2025-12-02T11:52:00, expected 2025-12-02T12:52:00"):
            accumulate_rates(paths, TIME + HOUR, **five)
        with pytest.raises(InputError, match=r"the interval of 5 min is no multiple of the spacing 2 min"):
            accumulate_rates(paths, interval=5 * MINUTE)
        other = write(tmp_path / "qpe.grib2", message(amounts()))
        with pytest.raises(
            InputError, match=r"qpe.grib2 holds MultiSensor_QPE_01H_Pass2 \(209/6/37\) over 1 h, expected PrecipRate"
        ):
            accumulate_rates([*paths[:4], other], **five)


class TestRealFiles:
    """Acceptance A8."""

    def test_conus_hour(self):
        hour = read_mrms(samples() / CONUS)
        assert (hour.product.name, hour.product.units, hour.product.interval) == (TARGET, "mm", HOUR)
        assert (hour.values.shape, hour.time) == ((3500, 7000), np.datetime64("2022-06-02T12:00:00"))
        corners = [hour.grid.latitudes[[0, -1]], hour.grid.longitudes[[0, -1]]]
        np.testing.assert_allclose(corners, [[20.005, 54.995], [-129.995, -60.005]], atol=1e-6)
        assert hour.invalid_fraction == 0
        np.testing.assert_allclose(hour.values * 10, np.round(hour.values * 10), atol=1e-4)
        amounts, counts = np.unique(hour.values[hour.values > 0].round(1), return_counts=True)
        assert (amounts[0], amounts[counts.argmax()]) == (pytest.approx(0.2), pytest.approx(0.3))

    def test_guam(self):
        hour = read_mrms(samples() / GUAM)
        assert (hour.product.name, hour.values.shape) == ("MultiSensor_QPE_01H_Pass1", (1800, 2000))
        assert hour.invalid_fraction == pytest.approx(0.39, abs=0.005)
        np.testing.assert_allclose(np.diff(hour.grid.latitudes), 0.005, atol=1e-9)

    def test_rates(self):
        rate = read_mrms(samples() / "PrecipRate_00.00_20190610-000000.grib2", RATE)
        assert (rate.product.units, rate.time) == ("mm h-1", np.datetime64("2019-06-10T00:00:00"))
        assert rate.invalid_fraction == pytest.approx(0.3579, abs=5e-5)
        assert np.nanmax(rate.values) == pytest.approx(148.8, abs=1e-4)
        valid = rate.values[np.isfinite(rate.values)]
        np.testing.assert_allclose(valid * 10, np.round(valid * 10), atol=1e-3)
        # rain is in the plains, not in the Gulf of California as it would be upside down
        assert rate.grid.corner == (pytest.approx(20.005), pytest.approx(-129.995))

    def test_accumulation_is_valid_where_all_members_are(self):
        folder = samples()
        paths = [folder / f"PrecipRate_00.00_20190610-00{minute:02}00.grib2" for minute in (10, 12, 14)]
        window = slice(700, 1000), slice(1500, 2300)
        total = accumulate_rates(paths, np.datetime64("2019-06-10T00:14:00"), 6 * MINUTE, window=window)
        members = [read_mrms(path, RATE, window).values for path in paths]
        valid = [np.isfinite(values) for values in members]
        np.testing.assert_array_equal(np.isfinite(total.values), np.logical_and.reduce(valid))
        assert (valid[0] != valid[2]).any()
        np.testing.assert_allclose(total.values, np.sum(members, axis=0, dtype=np.float64) / 30, rtol=1e-5)

    def test_persistence_over_half_an_hour(self):
        """Section 6.12 of the sheet, to 1 %."""
        folder = samples()
        first, last = (
            block_mean(read_mrms(folder / f"PrecipRate_00.00_20190610-00{minute}00.grib2", RATE, WHOLE).values)
            for minute in ("00", "30")
        )
        valid = np.isfinite(first) & np.isfinite(last)
        for threshold, expected in ((0.25, (0.0605, 0.0430, 0.0251, 0.482)), (1.0, (0.0302, 0.0277, 0.0158, 0.381))):
            forecast = np.nan_to_num(first) >= threshold
            observed = (last >= threshold)[valid]
            coverage = gaussian_filter(np.isfinite(first).astype(float), 4)
            smooth = gaussian_filter(forecast.astype(float), 4) / np.maximum(coverage, 1e-12)
            yes = forecast[valid]
            found = (
                observed.mean(),
                ((yes - observed.astype(float)) ** 2).mean(),
                ((smooth[valid] - observed) ** 2).mean(),
                (yes & observed).sum() / (yes | observed).sum(),
            )
            assert found == pytest.approx(expected, rel=0.01)


def block_mean(values: np.ndarray) -> np.ndarray:
    """Means of 4 x 4 points, valid where all are."""
    rows, columns = (size // 4 for size in values.shape)
    return values.astype(np.float64).reshape(rows, 4, columns, 4).mean(axis=(1, 3))
