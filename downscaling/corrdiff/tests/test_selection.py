"""Which pairs are generated for."""

import numpy as np
import pytest

from ai4sim.errors import InputError
from downscaling.corrdiff.selection import PairSelection
from downscaling.corrdiff.tests.memory_source import make_pairs


def rows(selection: PairSelection, **changes: object) -> list[int]:
    """Rows of twelve pairs, three of each of four times."""
    return selection.rows(make_pairs(12, per_time=3, **changes)).tolist()


def world(longitudes: list[float]) -> dict[str, object]:
    """A grid around the globe at 50 N, with a pair of a single point at each longitude."""
    n = len(longitudes)
    return {
        "latitude": np.full((1, n), 50, np.float32),
        "longitude": np.array(longitudes, np.float32)[None],
        "output_shape": (1, 1),
        "corners": np.stack([np.zeros(n, int), np.arange(n)], axis=1),
    }


def test_all_by_default():
    assert rows(PairSelection()) == list(range(12))


def test_numbers():
    assert rows(PairSelection(indices=[11, 0, 4, 4])) == [0, 4, 11]
    for index in (12, -1):
        message = rf"data\.select\.indices: there is no pair {index}; they go from 0 to 11"
        with pytest.raises(InputError, match=message):
            rows(PairSelection(indices=[3, index]))


def test_a_time_means_all_of_its_pairs():
    assert rows(PairSelection(times=["2021-06-01T02"])) == [6, 7, 8]
    assert rows(PairSelection(times=["2021-06-01T03:00:00", "2021-06-01"])) == [0, 1, 2, 9, 10, 11]


@pytest.mark.parametrize(
    ("time", "nearest"),
    [("2021-06-01T01:20", "01:00:00"), ("2021-06-01T01:40", "02:00:00"), ("2020-01-01", "00:00:00"), ("2030", "03:00")],
)
def test_times_that_are_not_there(time, nearest):
    message = rf"data\.select\.times: there is no pair at {time}.*; the nearest is at 2021-06-01T{nearest}"
    with pytest.raises(InputError, match=message):
        rows(PairSelection(times=["2021-06-01T02", time]))


def test_first_and_last_time_are_included():
    assert rows(PairSelection(start="2021-06-01T01", end="2021-06-01T02")) == [3, 4, 5, 6, 7, 8]
    assert rows(PairSelection(start="2021-06-01T02:30")) == [9, 10, 11]
    assert rows(PairSelection(end="2021-06-01")) == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "selection"),
    [
        ("times", PairSelection(times=["noon"])),
        ("start", PairSelection(start="noon")),
        ("end", PairSelection(end="noon")),
    ],
)
def test_words_that_are_no_times(name, selection):
    with pytest.raises(InputError, match=rf"data\.select\.{name}: .*noon.*; write a time as 2020-02-02T00"):
        rows(selection)


def test_all_conditions_hold_at_once():
    assert rows(PairSelection(indices=[2, 3, 4, 9], times=["2021-06-01T01", "2021-06-01T03"], end="2021-06-01T02")) == [
        3,
        4,
    ]


def test_a_box_holds_centres():
    pairs = make_pairs(12, per_time=3)
    south, west = (corners + half for corners, half in zip(pairs.corners.T, (3, 4), strict=True))
    chosen = PairSelection(box=(40.35, -99.25, 40.65, -98.95)).rows(pairs)
    # of rows 4 to 6 and columns 8 to 10
    expected = (south >= 4) & (south <= 6) & (west >= 8) & (west <= 10)
    assert 0 < expected.sum() < 12
    np.testing.assert_array_equal(chosen, np.flatnonzero(expected))


def test_a_box_of_pairs_that_are_the_whole_grid():
    pairs = make_pairs(3)
    assert PairSelection(box=(40.25, -99.65, 40.35, -99.55)).rows(pairs).tolist() == [0, 1, 2]
    with pytest.raises(InputError, match=r"data\.select leaves none"):
        PairSelection(box=(41, -99.65, 42, -99.55)).rows(pairs)


@pytest.mark.parametrize("longitudes", [[-170, -60, 0, 60, 179], [190, 300, 0, 60, 179]])
@pytest.mark.parametrize(
    ("west", "east", "expected"),
    [
        (170, -165, [0, 4]),
        (170, 195, [0, 4]),
        (-190, -165, [0, 4]),
        (-165, 170, [1, 2, 3]),
        (-60, 0, [1, 2]),
        (300, 360, [1, 2]),
        (-180, 180, [0, 1, 2, 3, 4]),
        (0, 360, [0, 1, 2, 3, 4]),
    ],
)
def test_boxes_over_the_date_line_and_around_the_globe(longitudes, west, east, expected):
    found = PairSelection(box=(40, west, 60, east)).rows(make_pairs(5, **world(longitudes)))
    assert found.tolist() == expected


def test_nothing_left_is_an_error():
    message = (
        r"data\.select leaves none of the 12 pairs, whose times go from 2021-06-01T00:00:00 to 2021-06-01T03:00:00"
    )
    for selection in (
        PairSelection(indices=[0], times=["2021-06-01T01"]),
        PairSelection(indices=[]),
        PairSelection(start="2022"),
        PairSelection(box=(-10, 0, 10, 20)),
    ):
        with pytest.raises(InputError, match=message):
            rows(selection)
