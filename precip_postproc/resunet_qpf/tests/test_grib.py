"""GRIB2: headers, orientation, masks, grids against eccodes' own points, and files that are refused."""

import gzip
import importlib
import logging

import numpy as np
import pytest

from ai4sim.errors import InputError, MissingFileError
from precip_postproc.resunet_qpf.readers import grib
from precip_postproc.resunet_qpf.readers.files import HOUR
from precip_postproc.resunet_qpf.readers.grib import read_headers, read_message, read_messages
from precip_postproc.resunet_qpf.readers.grid import CurvilinearGrid, LambertGrid, LatLonGrid
from precip_postproc.resunet_qpf.tests.grib_files import (
    HRRR,
    INIT,
    apcp,
    encode,
    lambert_grid,
    lambert_keys,
    mrms,
    samples,
    write,
)

LATITUDES, LONGITUDES = 38 + 0.01 * np.arange(20), -100 + 0.01 * np.arange(25)


def field(shape: tuple[int, int], step: float = 0.1) -> np.ndarray:
    """Values that say row and column."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.round(step * (rows * 100 + columns), 3)


def test_without_eccodes_the_message_names_the_extra(tmp_path, monkeypatch):
    path = write(tmp_path / "a.grib2", b"GRIB")

    def absent(name: str) -> object:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(
        InputError, match=r"GRIB needs eccodes.*No module named 'eccodes'.*pip install 'ai4sim\[grib\]'"
    ):
        read_message(path)


@pytest.fixture
def _eccodes() -> None:
    pytest.importorskip("eccodes")


@pytest.mark.usefixtures("_eccodes")
class TestDecoding:
    @pytest.mark.parametrize("name", ["a.grib2", "a.grib2.gz"])
    @pytest.mark.parametrize("north_first", [False, True])
    def test_headers_values_and_rows(self, tmp_path, name, north_first):
        grid = lambert_grid()
        values = field(grid.shape)
        message = read_message(write(tmp_path / name, apcp(values, 5, 6, grid, north_first=north_first)))
        np.testing.assert_allclose(message.values, values, atol=1e-5)
        assert message.values.dtype == np.float32
        header = message.header
        assert (header.parameter, header.process, header.centre) == ((0, 1, 8), 1, "kwbc")
        assert (header.reference_time, header.valid_time, header.steps) == (INIT, INIT + 6 * HOUR, "5-6")
        assert isinstance(message.grid, LambertGrid)
        np.testing.assert_allclose(message.grid.latitude, grid.latitude, atol=2e-6)
        np.testing.assert_allclose(message.grid.longitude, grid.longitude, atol=2e-6)

    @pytest.mark.parametrize(
        "scan",
        [
            {"iScansNegatively": 1, "jScansPositively": 1},
            {"iScansNegatively": 1, "jScansPositively": 0},
            {"jScansPositively": 1, "jPointsAreConsecutive": 1},
            {"jScansPositively": 1, "alternativeRowScanning": 1},
        ],
        ids=str,
    )
    def test_scanning_modes(self, tmp_path, scan):
        grid = lambert_grid()
        values = field(grid.shape)
        ordered = values if scan["jScansPositively"] else values[::-1]
        ordered = ordered[:, ::-1] if scan.get("iScansNegatively") else ordered
        if scan.get("alternativeRowScanning"):
            ordered = ordered.copy()
            ordered[1::2] = ordered[1::2, ::-1]
        if scan.get("jPointsAreConsecutive"):
            ordered = ordered.T
        corner = (0 if scan["jScansPositively"] else -1, -1 if scan.get("iScansNegatively") else 0)
        first = {
            "latitudeOfFirstGridPointInDegrees": float(grid.latitude[corner]),
            "longitudeOfFirstGridPointInDegrees": float(grid.longitude[corner]) % 360,
        }
        keys = lambert_keys(grid) | first | scan | {"decimalScaleFactor": 3, "bitsPerValue": 0}
        message = read_message(write(tmp_path / "a.grib2", encode(keys, ordered)))
        np.testing.assert_allclose(message.values, values, atol=1e-5)
        np.testing.assert_allclose(message.grid.latitude, grid.latitude, atol=2e-6)
        np.testing.assert_allclose(message.grid.longitude, grid.longitude, atol=2e-6)

    def test_points_of_a_cone_are_those_of_eccodes(self, tmp_path):
        import eccodes

        data = apcp(np.ones((12, 15)), 5, 6, lambert_grid())
        handle = eccodes.codes_new_from_message(data)
        points = [eccodes.codes_get_array(handle, name).reshape(12, 15) for name in ("latitudes", "longitudes")]
        eccodes.codes_release(handle)
        grid = grib.read_grid(write(tmp_path / "a.grib2", data))
        np.testing.assert_allclose(grid.latitude, points[0], atol=1e-6)
        np.testing.assert_allclose(grid.longitude % 360, points[1] % 360, atol=1e-6)

    def test_other_grids_are_known_by_their_points(self, tmp_path):
        grid = lambert_grid()
        ellipsoid = lambert_keys(grid) | {"shapeOfTheEarth": 5}
        found = grib.read_grid(write(tmp_path / "a.grib2", encode(ellipsoid, np.ones(grid.shape))))
        assert isinstance(found, CurvilinearGrid)
        assert found.shape == grid.shape
        np.testing.assert_allclose(found.latitude, grid.latitude, atol=0.05)
        gaussian = {"gridType": "reduced_gg", "N": 32}
        with pytest.raises(
            InputError, match=r"a.grib2.*the grid 'reduced_gg' has no rows and columns|cannot be decoded"
        ):
            grib.read_grid(write(tmp_path / "a.grib2", encode(gaussian, np.ones(6114))))

    def test_early_crop(self, tmp_path):
        values = field((20, 25))
        path = write(tmp_path / "a.grib2", mrms(values, (209, 6, 37), INIT, LATITUDES, LONGITUDES))
        window = slice(3, 9), slice(10, 24)
        message = read_message(path, window)
        np.testing.assert_allclose(message.values, values[window], atol=1e-5)
        assert isinstance(message.grid, LatLonGrid)
        np.testing.assert_allclose(message.grid.latitudes, LATITUDES[3:9], atol=1e-9)
        np.testing.assert_allclose(message.grid.longitudes, LONGITUDES[10:24], atol=1e-9)
        with pytest.raises(
            InputError, match=r"a.grib2 \(message 1\): no point of the grid \(20, 25\) is in the window"
        ):
            read_message(path, (slice(30, 40), slice(None)))
        lambert = lambert_grid()
        cut = read_message(
            write(tmp_path / "b.grib2", apcp(field(lambert.shape), 5, 6, lambert)), (slice(2, 8), slice(4, 9))
        )
        np.testing.assert_allclose(cut.grid.latitude, lambert.latitude[2:8, 4:9], atol=2e-6)
        np.testing.assert_allclose(cut.values, field(lambert.shape)[2:8, 4:9], atol=1e-4)

    def test_bitmaps_mask_and_a_genuine_9999_survives(self, tmp_path):
        grid = lambert_grid()
        values = field(grid.shape)
        values[3, 4], values[5, 6] = 9999.0, -1234.5
        plain = read_message(write(tmp_path / "a.grib2", apcp(values, 5, 6, grid)))
        np.testing.assert_allclose(plain.values, values, rtol=1e-6)
        masked = read_message(write(tmp_path / "b.grib2", apcp(values, 5, 6, grid, missing=-1234.5)))
        assert np.argwhere(np.isnan(masked.values)).tolist() == [[5, 6]]
        assert masked.values[3, 4] == 9999

    def test_constant_fields_and_all_masked(self, tmp_path):
        grid = lambert_grid()
        message = read_message(write(tmp_path / "a.grib2", apcp(np.full(grid.shape, 2.5), 5, 6, grid)))
        assert np.unique(message.values).tolist() == [2.5]
        nothing = np.full(grid.shape, -7.0)
        assert np.isnan(read_message(write(tmp_path / "a.grib2", apcp(nothing, 5, 6, grid, missing=-7.0))).values).all()

    def test_times_have_seconds(self, tmp_path):
        time = np.datetime64("2019-06-10T11:00:40")
        header = read_headers(
            write(tmp_path / "a.grib2", mrms(field((20, 25)), (209, 6, 1), time, LATITUDES, LONGITUDES))
        )[0]
        assert header.valid_time == header.reference_time == time
        assert (header.start, header.process) == (0 * HOUR, None)

    def test_several_messages(self, tmp_path):
        grid = lambert_grid()
        steps = [(0, 6), (5, 6), (0, 5)]
        data = [apcp(np.full(grid.shape, 1.0 + i), *step, grid) for i, step in enumerate(steps)]
        # bulletin headings stand between messages
        path = write(tmp_path / "a.grib2", data[0], b"\r\n\r\nGYZW25 KWBC GRI 010600\r\r\n", *data[1:], b"\r\n")
        assert [header.steps for header in read_headers(path)] == ["0-6", "5-6", "0-5"]
        chosen = read_messages(path, lambda header: header.steps == "5-6")
        assert [float(message.values[0, 0]) for message in chosen] == [2.0]
        with pytest.raises(InputError, match=r"a.grib2 has more than one message, found 3, expected 1"):
            read_message(path)


@pytest.mark.usefixtures("_eccodes")
class TestFaults:
    @pytest.fixture
    def message(self) -> bytes:
        grid = lambert_grid()
        return apcp(field(grid.shape), 5, 6, grid)

    def test_no_file(self, tmp_path):
        with pytest.raises(MissingFileError, match=r"a.grib2 \(GRIB2\) is not there"):
            read_message(tmp_path / "a.grib2")

    def test_truncated(self, tmp_path, message):
        for size in (len(message) - 1, 200):
            with pytest.raises(
                InputError, match=rf"a.grib2 is truncated: message 1 has {size} bytes, expected {len(message)}"
            ):
                read_message(write(tmp_path / "a.grib2", message[:size]))
        with pytest.raises(InputError, match=r"a.grib2 is truncated: its last message ends after 10 bytes"):
            read_message(write(tmp_path / "a.grib2", message[:10]))
        with pytest.raises(InputError, match=r"a.grib2 is truncated: message 2 has 100 bytes"):
            read_headers(write(tmp_path / "a.grib2", message, message[:100]))
        (tmp_path / "a.grib2.gz").write_bytes(gzip.compress(message)[:-20])
        with pytest.raises(InputError, match=r"a.grib2.gz is truncated or damaged: Compressed file ended"):
            read_message(tmp_path / "a.grib2.gz")

    def test_empty_and_of_another_kind(self, tmp_path, message):
        with pytest.raises(InputError, match=r"a.grib2 holds no GRIB message, it is empty"):
            read_message(write(tmp_path / "a.grib2"))
        with pytest.raises(InputError, match=r"a.grib2 holds no GRIB message, found 500 other bytes"):
            read_headers(write(tmp_path / "a.grib2", b"not grib G" * 50))
        with pytest.raises(InputError, match=r"a.grib2 is of GRIB edition 1, expected 2; convert it"):
            read_message(write(tmp_path / "a.grib2", message[:7] + b"\x01" + message[8:]))
        with pytest.raises(InputError, match=r"a.grib2 is damaged: message 1 does not end with 7777"):
            read_message(write(tmp_path / "a.grib2", message[:-4] + b"0000"))

    def test_damaged_sections(self, tmp_path, message):
        broken = message[:16] + bytes(len(message) - 20) + message[-4:]
        with pytest.raises(InputError, match=r"a.grib2 \(message 1\) cannot be decoded"):
            read_message(write(tmp_path / "a.grib2", broken))

    def test_contradictions(self, tmp_path):
        grid = lambert_grid()
        bad = apcp(field(grid.shape), 5, 6, grid, lengthOfTimeRange=6)
        with pytest.raises(InputError, match=r"starts at step 5 h and ends at 6 h, but its length is said to be 6 h"):
            read_message(write(tmp_path / "a.grib2", bad))
        bad = mrms(field((20, 25)), (209, 6, 37), INIT, LATITUDES, LONGITUDES, latitudeOfLastGridPointInDegrees=30.0)
        with pytest.raises(InputError, match=r"20 points 0.01 degrees apart from latitude 38.19 do not end at 30"):
            read_message(write(tmp_path / "a.grib2", bad))
        # it does no harm to the others in its file
        good = apcp(field(grid.shape), 4, 5, grid)
        path = write(tmp_path / "b.grib2", apcp(field(grid.shape), 5, 6, grid, lengthOfTimeRange=6), good)
        assert len(read_messages(path, lambda header: header.steps == "4-5")) == 1
        with pytest.raises(InputError, match=r"b.grib2 \(message 1\) contradicts itself"):
            read_messages(path, lambda header: header.steps == "5-6")
        bad = apcp(field(grid.shape), 5, 6, grid, monthOfEndOfOverallTimeInterval=0)
        with pytest.raises(
            InputError, match=r"secondOfEndOfOverallTimeInterval give 2025-00-01T12:00:00, which is no time"
        ):
            read_message(write(tmp_path / "a.grib2", bad))
        bad = apcp(field(grid.shape), 5, 6, grid, indicatorOfUnitForForecastTime=4)
        with pytest.raises(InputError, match=r"unit of time 4 \(code table 4.4\) is not known"):
            read_message(write(tmp_path / "a.grib2", bad))


def test_hrrr_is_decoded_on_its_grid(caplog):
    """Acceptance A9: a real message, a constant packed with 0 bits."""
    caplog.set_level(logging.WARNING)
    message = read_message(samples() / "hrrr.t06z.wrfsfcf01-CFRZR.grib2")
    assert isinstance(message.grid, LambertGrid)
    assert message.grid.projection == HRRR
    assert message.grid.shape == message.values.shape == (1059, 1799)
    assert message.grid.corner == (pytest.approx(21.138123, abs=1e-6), pytest.approx(-122.719528, abs=1e-6))
    # the north-east corner, as NOAA describes the grid
    assert message.grid.latitude[-1, -1] == pytest.approx(47.8422, abs=1e-3)
    assert message.grid.longitude[-1, -1] == pytest.approx(-60.9168, abs=1e-3)
    assert np.unique(message.values).tolist() == [0.0]
    assert (message.header.parameter, message.header.steps) == ((0, 1, 34), "1-1")
    assert message.header.valid_time == np.datetime64("2023-07-22T07:00:00")
    assert not caplog.records
