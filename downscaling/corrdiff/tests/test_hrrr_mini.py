import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ai4sim.errors import InputError, MissingFileError
from downscaling.corrdiff.readers import HrrrMini
from downscaling.corrdiff.tests.synthetic_stores import hrrr_mini_fields, numbered, write_hrrr_mini


@pytest.fixture
def fields() -> dict[str, Any]:
    return hrrr_mini_fields()


def write(tmp_path: Path, fields: dict[str, Any]) -> Path:
    return write_hrrr_mini(tmp_path / "hrrr_mini_train.nc", fields)


class TestContent:
    def test_all_by_default(self, tmp_path, fields):
        source = HrrrMini(write(tmp_path, fields))
        pairs = source.pairs
        assert {c.name for c in pairs.inputs} == {"u850", "10u", "2t"}
        assert {c.name for c in pairs.outputs} == {"10u", "10v", "2t", "tp"}
        assert [(c.name, c.units) for c in pairs.static] == [("elev_mean", "m"), ("lsm_mean", "m s-1")]
        assert (pairs.input_shape, pairs.output_shape, pairs.factor, len(pairs)) == ((4, 4), (8, 8), 2, 6)
        assert pairs.times.dtype == np.dtype("datetime64[s]")
        assert pairs.times[[0, 3]].astype(str).tolist() == ["2018-01-01T00:00:00", "2018-01-01T01:00:00"]
        np.testing.assert_array_equal(pairs.corners, fields["coord"])
        np.testing.assert_array_equal(pairs.static_fields[0], fields["invariant"]["elev_mean"])
        np.testing.assert_array_equal(pairs.latitude, fields["invariant"]["latitude"])
        np.testing.assert_array_equal(pairs.longitude, fields["invariant"]["longitude"])
        assert pairs.spacing_km == pytest.approx(3.0, rel=0.01)
        assert (pairs.leads, pairs.probabilities, pairs.files) == (None, (), (tmp_path / "hrrr_mini_train.nc",))
        for kind, read, channels in (
            ("input", source.read_inputs, pairs.inputs),
            ("output", source.read_outputs, pairs.outputs),
        ):
            expected = np.stack([fields[kind][c.name] for c in channels], axis=1)
            np.testing.assert_array_equal(read(slice(1, 5)), expected[1:5])
            assert read(slice(0, 2)).dtype == np.float32

    def test_chosen_variables_keep_their_order(self, tmp_path, fields):
        source = HrrrMini(write(tmp_path, fields), ["2t", "10u"], ["10v", "10u"], ["lsm_mean"])
        assert [c.name for c in source.pairs.inputs] == ["2t", "10u"]
        assert [c.name for c in source.pairs.static] == ["lsm_mean"]
        np.testing.assert_array_equal(source.read_outputs(slice(0, 6))[:, 0], fields["output"]["10v"])
        assert HrrrMini(source.file, invariants=[]).pairs.static_fields.shape == (0, 20, 24)

    def test_samples_are_sorted_by_time_and_else_as_in_the_file(self, tmp_path, fields):
        fields["time"] = np.array([5, 1, 5, 0, 1, 1])
        source = HrrrMini(write(tmp_path, fields))
        order = [3, 1, 4, 5, 0, 2]
        assert (np.diff(source.pairs.times) >= np.timedelta64(0)).all()
        np.testing.assert_array_equal(source.pairs.corners, fields["coord"][order])
        name = source.pairs.inputs[0].name
        np.testing.assert_array_equal(source.read_inputs(slice(0, 6))[:, 0], fields["input"][name][order])
        np.testing.assert_array_equal(source.read_inputs(slice(2, 4))[:, 0], fields["input"][name][order[2:4]])

    def test_missing_values_are_nan(self, tmp_path, fields):
        fields["output"]["tp"][2, 3, 4] = np.nan
        found = HrrrMini(write(tmp_path, fields), outputs=["tp"]).read_outputs(slice(0, 6))
        assert np.argwhere(np.isnan(found)).tolist() == [[2, 0, 3, 4]]

    def test_other_processes_open_it_once(self, tmp_path, fields):
        source = HrrrMini(write(tmp_path, fields))
        _ = source.pairs
        sent = pickle.dumps(source)
        assert len(sent) < 1000
        first, second = pickle.loads(sent), pickle.loads(sent)
        assert first is second
        assert pickle.loads(pickle.dumps(first)) is first
        np.testing.assert_array_equal(first.read_outputs(slice(0, 2)), source.read_outputs(slice(0, 2)))

    def test_settings_and_relative_paths(self, tmp_path, fields):
        write(tmp_path, fields)
        source = HrrrMini(Path("hrrr_mini_train.nc"), outputs=["tp"])
        assert len(source.below(tmp_path).pairs) == 6
        assert source.below(tmp_path).settings() == source.settings()
        assert source.settings()["outputs"] == ["tp"]


class TestFaults:
    def test_no_file(self, tmp_path):
        with pytest.raises(MissingFileError, match=r"a.nc \(HRRR-Mini\) is not there"):
            _ = HrrrMini(tmp_path / "a.nc").pairs
        (tmp_path / "a.nc").write_bytes(b"CDF")
        with pytest.raises(InputError, match=r"a.nc is no NetCDF-4 file"):
            _ = HrrrMini(tmp_path / "a.nc").pairs

    @pytest.mark.parametrize("group", ["input", "output", "invariant"])
    def test_no_group(self, tmp_path, fields, group):
        del fields[group]
        with pytest.raises(InputError, match=rf"train.nc has no group '{group}'; it has .*"):
            _ = HrrrMini(write(tmp_path, fields)).pairs

    def test_no_variable(self, tmp_path, fields):
        path = write(tmp_path, fields)
        with pytest.raises(InputError, match=r"the group 'input' has no variable 'q850'; it has .*u850"):
            _ = HrrrMini(path, ["q850"]).pairs
        with pytest.raises(InputError, match=r"the group 'output' has no variable 'refc'; it has .*tp"):
            _ = HrrrMini(path, outputs=["refc"]).pairs
        with pytest.raises(InputError, match=r"the group 'invariant' has no variable 'slope'; it has .*elev_mean"):
            _ = HrrrMini(path, invariants=["slope"]).pairs
        with pytest.raises(InputError, match=r"no variable .* of the group 'output' is chosen"):
            _ = HrrrMini(path, outputs=[]).pairs
        del fields["invariant"]["latitude"]
        with pytest.raises(InputError, match=r"the group 'invariant' has no variable 'latitude'"):
            _ = HrrrMini(write(tmp_path, fields)).pairs

    def test_shapes(self, tmp_path, fields):
        fields["output"]["tp"] = numbered(6, 8, 9)
        with pytest.raises(InputError, match=r"'tp' of the group 'output' has shape \(6, 8, 9\), .* \(6, 8, 8\)"):
            _ = HrrrMini(write(tmp_path, fields)).pairs
        fields["output"] = {"tp": numbered(6, 8, 12)}
        with pytest.raises(InputError, match=r"8 x 12 fine points on 4 x 4 coarse cells .* are 2 and 3 along a cell"):
            _ = HrrrMini(write(tmp_path, fields)).pairs
        fields["output"] = {"tp": numbered(6, 10, 10)}
        with pytest.raises(InputError, match=r"train.nc.*'input' and 'output': 10 x 10 fine points .* 2.5 and 2.5"):
            _ = HrrrMini(write(tmp_path, fields)).pairs
        fields["output"] = {"tp": numbered(8, 8)}
        with pytest.raises(
            InputError, match=r"'tp' of the group 'output' has shape \(8, 8\), expected \(sample, y, x\)"
        ):
            _ = HrrrMini(write(tmp_path, fields), outputs=["tp"]).pairs

    def test_corners(self, tmp_path, fields):
        fields["coord"][4] = [13, 8]
        expected = (
            r"sample 4 with coord \(13, 8\) and 8 x 8 points is not within the grid 20 x 24 of the group 'invariant'"
        )
        with pytest.raises(InputError, match=expected):
            _ = HrrrMini(write(tmp_path, fields)).pairs
        fields["coord"][4] = [-1, 8]
        with pytest.raises(InputError, match=r"sample 4 with coord \(-1, 8\)"):
            _ = HrrrMini(write(tmp_path, fields)).pairs
        fields["coord"] = fields["coord"].astype(np.float32)
        with pytest.raises(InputError, match="'coord' is of type float32; expected integers"):
            _ = HrrrMini(write(tmp_path, fields)).pairs
        fields["coord"] = np.zeros((6, 3), np.int32)
        with pytest.raises(InputError, match=r"'coord' has shape \(6, 3\), expected \(6, 2\)"):
            _ = HrrrMini(write(tmp_path, fields)).pairs
