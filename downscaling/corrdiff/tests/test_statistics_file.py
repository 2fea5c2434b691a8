import json

import pytest

from ai4sim.errors import InputError, MissingFileError
from downscaling.corrdiff.readers import Moments, Statistics, read_statistics, write_statistics

STATISTICS = Statistics(
    input={"u850": Moments(1.5, 2.0), "2t": Moments(280.0, 11.0)},
    output={"tp": Moments(0.25, 0.5, "sqrt")},
    invariant={"elev_mean": Moments(300.0, 200.0)},
    period=("2018-01-01T00:00:00", "2020-12-31T23:00:00"),
    n_samples=1536,
)


def test_round_trip(tmp_path):
    path = tmp_path / "stats.json"
    write_statistics(path, STATISTICS)
    assert read_statistics(path) == STATISTICS
    content = json.loads(path.read_text())
    assert content["schema"] == 1
    assert content["input"]["u850"] == {"mean": 1.5, "std": 2.0}
    assert content["output"]["tp"] == {"mean": 0.25, "std": 0.5, "transform": "sqrt"}


def test_the_published_file_has_only_moments(tmp_path):
    path = tmp_path / "stats.json"
    moments = {"a": {"mean": 0, "std": 1}, "b": {"mean": 3, "std": 0}}
    path.write_text(json.dumps({"input": moments, "output": moments, "invariant": moments}))
    found = read_statistics(path, inputs=["a"], outputs=["a"], invariants=[])
    assert found == Statistics({"a": Moments(0.0, 1.0)}, {"a": Moments(0.0, 1.0)})


def test_chosen_variables_keep_their_order(tmp_path):
    path = tmp_path / "stats.json"
    write_statistics(path, STATISTICS)
    assert list(read_statistics(path, inputs=["2t", "u850"]).input) == ["2t", "u850"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"mean": 1.0, "std": 0.0}, r"input variable 'q' has std 0.0; expected a number above 0"),
        ({"mean": 1.0, "std": -2.0}, r"input variable 'q' has std -2.0"),
        ({"mean": 1.0, "std": float("nan")}, r"input variable 'q' has std nan"),
        ({"mean": float("nan"), "std": 1.0}, r"input variable 'q' has mean nan"),
        ({"mean": 1.0}, r"input variable 'q' is .*; expected mean and std"),
        ([1.0, 2.0], r"input variable 'q' is .*; expected mean and std"),
        (
            {"mean": 1, "std": 1, "transform": "cube"},
            r"input variable 'q' has the transform 'cube'; known are none, sqrt, sqrt_dry, log1p",
        ),
    ],
)
def test_bad_entries(tmp_path, entry, message):
    path = tmp_path / "stats.json"
    path.write_text(json.dumps({"input": {"q": entry}}))
    with pytest.raises(InputError, match=rf"stats.json: {message}"):
        read_statistics(path)


def test_bad_files(tmp_path):
    path = tmp_path / "stats.json"
    with pytest.raises(MissingFileError, match=r"stats.json \(statistics\) is not there"):
        read_statistics(path)
    path.write_text("{")
    with pytest.raises(InputError, match=r"stats.json is no JSON file"):
        read_statistics(path)
    path.write_text('{"schema": 2}')
    with pytest.raises(InputError, match=r"stats.json: expected an object of schema 1"):
        read_statistics(path)
    write_statistics(path, STATISTICS)
    with pytest.raises(InputError, match=r"no statistics of the output variable 'refc'; it has tp"):
        read_statistics(path, outputs=["tp", "refc"])


def test_nothing_bad_is_written(tmp_path):
    with pytest.raises(InputError, match=r"output variable 'tp' has std 0.0"):
        write_statistics(tmp_path / "stats.json", Statistics(output={"tp": Moments(0.0, 0.0)}))
    assert not list(tmp_path.iterdir())
