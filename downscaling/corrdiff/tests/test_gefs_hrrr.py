import logging
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from ai4sim.errors import InputError
from downscaling.corrdiff.readers import GefsHrrr
from downscaling.corrdiff.readers.gefs_hrrr import CLASSES, ISOBARIC, SURFACE, probabilities
from downscaling.corrdiff.readers.regrid import LinearRegrid
from downscaling.corrdiff.tests.synthetic_stores import (
    HRRR_CHANNELS,
    affine,
    forecast_keys,
    gefs_grid,
    lambert,
    numbered,
    write_forecast_store,
    write_gefs_hrrr,
)

WINDOW = (1, 17, 2, 26)


@pytest.fixture
def root(tmp_path) -> Path:
    return write_gefs_hrrr(tmp_path / "raw")


def surface(root: Path, period: str = "2020_12_12") -> Path:
    return root / "gefs" / f"gefs_surface_{period}.zarr"


def rewrite_fine(root: Path, **changes) -> None:
    """Write HRRR's store anew: names of channels, times, points or values."""
    arguments = {
        "channels": HRRR_CHANNELS,
        "keys": forecast_keys(),
        "points": lambert(18, 26),
        "values": np.zeros((8, len(HRRR_CHANNELS), 18, 26)),
    } | changes
    write_forecast_store(root / "hrrr_forecast" / "hrrr_2020_12_12.zarr", **arguments)


class TestContent:
    def test_by_default(self, root):
        source = GefsHrrr(root, window=WINDOW)
        pairs = source.pairs
        assert [c.name for c in pairs.inputs] == [*SURFACE, *ISOBARIC]
        assert len(pairs.inputs) == 37
        assert [c.name for c in pairs.outputs] == ["u10m", "v10m", "t2m", "precip", *CLASSES]
        assert pairs.probabilities == CLASSES == ("cat_snow", "cat_ice", "cat_freez", "cat_rain", "cat_none")
        units = {c.name: c.units for c in (*pairs.inputs, *pairs.outputs)}
        assert [units[n] for n in ("u10m", "t100", "z200", "r500", "precip", "cat_none", "sp")] == [
            "m s-1", "K", "m", "%", "kg m-2", "1", "Pa",
        ]  # fmt: skip
        assert (pairs.input_shape, pairs.output_shape, pairs.factor) == ((4, 6), (16, 24), 4)
        assert pairs.leads.tolist() == [0, 3, 6, 9, 12, 15, 18, 21]
        assert pairs.lead_labels == (0, 3, 6, 9, 12, 15, 18, 21, 24)
        assert pairs.times[[0, 7]].astype(str).tolist() == ["2020-12-02T06:00:00", "2020-12-03T03:00:00"]
        lat, lon = lambert(18, 26)
        np.testing.assert_allclose(pairs.latitude, lat[1:17, 2:26], rtol=1e-6)
        np.testing.assert_allclose(pairs.longitude, lon[1:17, 2:26], rtol=1e-6)
        assert pairs.spacing_km == pytest.approx(3, rel=0.01)
        assert {path.name for path in pairs.files} == {".zmetadata"}

    def test_inputs_are_interpolated_to_the_cells(self, root):
        source = GefsHrrr(root, window=WINDOW)
        found = source.read_inputs(slice(1, 3))
        lat, lon = (values[1:17, 2:26].reshape(4, 4, 6, 4).mean(axis=(1, 3)) for values in lambert(18, 26))
        for row, label in enumerate((1, 2)):
            for channel in (0, 6, 7, 36):
                place = channel if channel < 7 else channel - 7
                expected = affine(lat, lon) + 100 * label + 1000 * place
                np.testing.assert_allclose(found[row, channel], expected, atol=2e-3, err_msg=str(channel))

    def test_on_the_fine_grid(self, root):
        source = GefsHrrr(root, inputs=["t2m"], subsample=1, window=None)
        assert (source.pairs.factor, source.pairs.input_shape) == (1, (18, 26))
        np.testing.assert_allclose(source.read_inputs(slice(0, 1))[0, 0], affine(*lambert(18, 26)) + 2000, atol=1e-3)

    def test_classes_are_probabilities(self, root):
        source = GefsHrrr(root, window=WINDOW)
        found = source.read_outputs(slice(0, 8))
        np.testing.assert_array_equal(found[:, :4], numbered(8, 4, 18, 26)[:, :, 1:17, 2:26])
        np.testing.assert_allclose(found[:, 4:].sum(axis=1), 1, rtol=1e-6)
        flags = np.random.default_rng(0).random((8, 4, 18, 26))[:, :, 1:17, 2:26] < 0.3
        np.testing.assert_array_equal(found[:, 8] == 1, ~flags.any(axis=1))
        np.testing.assert_allclose(found[:, 4], flags[:, 0] / np.maximum(flags.sum(axis=1), 1), rtol=1e-6)

    def test_missing_flags_are_missing_classes(self):
        flags = np.array([[1, 0, np.nan], [1, 0, 0], [0, 0, 0], [0, 0, 1]], np.float32)
        np.testing.assert_array_equal(probabilities(flags).T, [[0.5, 0.5, 0, 0, 0], [0, 0, 0, 0, 1], [np.nan] * 5])

    def test_renames(self, root):
        names = {"z200": "z250", "r1000": "q1000"}
        source = GefsHrrr(root, names, window=WINDOW)
        found = [c.name for c in source.pairs.inputs]
        assert [found[i] for i in (ISOBARIC.index("z200") + 7, ISOBARIC.index("r1000") + 7)] == ["z250", "q1000"]
        assert source.pairs.inputs[ISOBARIC.index("r1000") + 7].units == "kg kg-1"
        one = GefsHrrr(root, names, inputs=["q1000"], window=WINDOW)
        plain = GefsHrrr(root, inputs=["r1000"], window=WINDOW)
        np.testing.assert_array_equal(one.read_inputs(slice(0, 2)), plain.read_inputs(slice(0, 2)))
        with pytest.raises(InputError, match=r"have no channel 'z200'; they have u10m, .*z250"):
            _ = GefsHrrr(root, names, inputs=["z200"], window=WINDOW).pairs
        with pytest.raises(InputError, match=r"renames: no store of .* has the channel 'z201'"):
            _ = GefsHrrr(root, {"z201": "z250"}, window=WINDOW).pairs
        with pytest.raises(InputError, match=r"has two channels 'z500' after renames"):
            _ = GefsHrrr(root, {"z200": "z500"}, window=WINDOW).pairs

    def test_order_is_that_of_times_whatever_order_folders_have(self, tmp_path, monkeypatch):
        late, early = forecast_keys(3, "2021080100"), forecast_keys(4, "2021020100")
        early[1], early[2] = early[2], early[1]
        root = write_gefs_hrrr(tmp_path, [("2021_07_12", late), ("2021_01_06", early)])
        first = GefsHrrr(root, window=WINDOW)
        assert first.pairs.leads.tolist() == [0, 3, 6, 9, 0, 3, 6]
        assert (np.diff(first.pairs.times) > np.timedelta64(0)).all()
        listed = Path.glob
        monkeypatch.setattr(Path, "glob", lambda self, pattern: sorted(listed(self, pattern), reverse=True))
        second = pickle.loads(pickle.dumps(GefsHrrr(root, window=WINDOW)))
        np.testing.assert_array_equal(first.pairs.times, second.pairs.times)
        for read in ("read_inputs", "read_outputs"):
            whole = getattr(first, read)(slice(0, 7))
            np.testing.assert_array_equal(whole, getattr(second, read)(slice(0, 7)))
            np.testing.assert_array_equal(whole[2:6], getattr(first, read)(slice(2, 6)))

    def test_what_is_missing_is_listed_and_left_out(self, tmp_path, caplog):
        keys = forecast_keys()
        root = write_gefs_hrrr(tmp_path, [("2021_01_06", ()), ("2021_07_12", forecast_keys(2, "2021080100"))])
        shutil.rmtree(root / "gefs" / "gefs_isobaric_2021_07_12.zarr")
        write_forecast_store(surface(root, "2021_01_06"), SURFACE, keys[1:], gefs_grid())
        with caplog.at_level(logging.WARNING):
            pairs = GefsHrrr(root, window=WINDOW).pairs
        assert pairs.leads.tolist() == [3, 6, 9, 12, 15, 18, 21]
        assert "period 2021_07_12 has no store of isobaric: left out" in caplog.text
        assert "gefs_surface_2021_01_06.zarr lacks 2020120206f00: left out" in caplog.text

    def test_grids_of_any_orientation(self):
        lat, lon = gefs_grid()
        to = lambert(5, 6)
        expected = affine(*to)
        for turn in (slice(None), slice(None, None, -1)):
            a, b = lat[turn], lon[turn]
            np.testing.assert_allclose(LinearRegrid(a, b, *to, "x")(affine(a, b).astype(np.float32)), expected, 1e-5)
            np.testing.assert_allclose(
                LinearRegrid(a.T, b.T, *to, "x")(affine(a, b).T.astype(np.float32)), expected, 1e-5
            )

    def test_around_the_globe(self):
        lat, lon = np.meshgrid(np.arange(-10.0, 11.0, 5.0), np.arange(0.0, 360.0, 5.0), indexing="ij")
        to = np.array([[0.0, 1.0, -3.0]]), np.array([[358.0, -2.0, 2.5]])
        field = np.cos(np.radians(lon)).astype(np.float32)
        expected = np.cos(np.radians(to[1]))
        np.testing.assert_allclose(LinearRegrid(lat, lon, *to, "x")(field), expected, atol=2e-3)


class TestFaults:
    def test_no_stores(self, tmp_path):
        with pytest.raises(InputError, match=r"no period has all three stores: surface has none, isobaric none"):
            _ = GefsHrrr(tmp_path / "raw").pairs

    def test_names_of_stores(self, root):
        surface(root).rename(root / "gefs" / "gefs_surface.zarr")
        with pytest.raises(
            InputError, match=r"gefs_surface.zarr: the name does not end in a period such as 2021_01_06"
        ):
            _ = GefsHrrr(root).pairs
        (root / "gefs" / "gefs_surface.zarr").rename(surface(root))
        shutil.copytree(surface(root), root / "gefs" / "other_surface_2020_12_12.zarr")
        with pytest.raises(InputError, match=r"other_surface.* and gefs_surface.* are of the same period 2020_12_12"):
            _ = GefsHrrr(root).pairs

    @pytest.mark.parametrize(
        ("key", "message"),
        [
            ("2020-12-02T06", r"'2020-12-02T06' is no time YYYYMMDDHHfLL"),
            ("2020133206f03", r"'2020133206f03' is no time YYYYMMDDHHfLL"),
            ("2020120206f04", r"'2020120206f04' has a lead time of 4 h; expected a multiple of 3 up to 24"),
            ("2020120206f27", r"'2020120206f27' has a lead time of 27 h"),
            ("2020120206f00", r"'time' has '2020120206f00' twice"),
        ],
    )
    def test_times(self, root, key, message):
        rewrite_fine(root, keys=[*forecast_keys(7), key])
        with pytest.raises(InputError, match=rf"hrrr_2020_12_12.zarr: .*{message}"):
            _ = GefsHrrr(root, window=WINDOW).pairs

    def test_nothing_in_common(self, root):
        rewrite_fine(root, keys=forecast_keys(8, "2020120300"))
        with pytest.raises(InputError, match=r"no forecast is in all three stores of its period, 2020_12_12"):
            _ = GefsHrrr(root, window=WINDOW).pairs

    def test_a_forecast_in_two_periods(self, tmp_path):
        root = write_gefs_hrrr(tmp_path, [("2021_01_06", ()), ("2021_07_12", ())])
        with pytest.raises(InputError, match=r"2020120206f00 is in the periods 2021_01_06 and 2021_07_12"):
            _ = GefsHrrr(root, window=WINDOW).pairs

    def test_channels(self, root):
        with pytest.raises(InputError, match=r"have no channel 'cape'; they have u10m"):
            _ = GefsHrrr(root, inputs=["cape"], window=WINDOW).pairs
        with pytest.raises(InputError, match=r"hrrr_2020_12_12.zarr has no channel 'refc'; it has u10m"):
            _ = GefsHrrr(root, outputs=["refc"], window=WINDOW).pairs
        with pytest.raises(
            InputError, match=r"outputs have the classes cat_snow, cat_none; they go together: cat_snow"
        ):
            _ = GefsHrrr(root, outputs=["cat_snow", "cat_none"], window=WINDOW).pairs
        assert GefsHrrr(root, outputs=["t2m"], window=WINDOW).pairs.probabilities == ()

    def test_negative_flags(self, root):
        values = np.zeros((8, len(HRRR_CHANNELS), 18, 26))
        values[3, 5, 4, 4] = -0.25
        rewrite_fine(root, values=values)
        source = GefsHrrr(root, window=WINDOW)
        assert source.read_outputs(slice(0, 3)).shape == (3, 9, 16, 24)
        with pytest.raises(
            InputError, match=r"hrrr_2020_12_12.zarr: 'cat_ice' has values down to -0.25; expected 0 to 1"
        ):
            source.read_outputs(slice(2, 5))

    def test_grids(self, root):
        with pytest.raises(InputError, match=r"window \(1, 1057, 4, 1796\) is not within .* 18 rows and 26 columns"):
            _ = GefsHrrr(root).pairs
        with pytest.raises(InputError, match=r"18 rows and 26 columns, no multiples of subsample 4"):
            _ = GefsHrrr(root, window=None).pairs
        lat, lon = gefs_grid()
        write_forecast_store(surface(root), SURFACE, forecast_keys(), (lat - 3, lon))
        with pytest.raises(
            InputError, match=r"gefs_surface.*reaches from latitude 34.25 to 38.00, fine points from 38.7"
        ):
            _ = GefsHrrr(root, window=WINDOW).pairs
        write_forecast_store(surface(root), SURFACE, forecast_keys(), lambert(18, 26))
        with pytest.raises(InputError, match=r"gefs_surface.* is on no grid of latitudes and longitudes"):
            _ = GefsHrrr(root, window=WINDOW).pairs
