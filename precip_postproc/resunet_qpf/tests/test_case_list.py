"""Which forecasts there are, and those that lack a file."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.case_list import CaseList, find_missing, leave_out
from precip_postproc.resunet_qpf.sources import ForecastSource, GfsSource, TargetSource

INIT = np.array(["2025-12-01T00", "2025-12-01T00", "2025-12-01T18", "2025-12-02T00"], "datetime64[s]")


def cases() -> CaseList:
    """Two of them are valid at the same hour."""
    return CaseList(INIT, np.array([6, 24, 6, 6]), np.array(["train", "train", "validation", "test"]))


@dataclass(frozen=True)
class Forecasts(ForecastSource):
    folder: Path

    def files(self, init, lead):
        return [self.folder / f"{init}+{lead}"]

    def read(self, init, lead):
        raise AssertionError("no file is read to find out which are missing")


@dataclass(frozen=True)
class Targets(TargetSource):
    folder: Path
    asked: list = field(default_factory=list)

    def files(self, time):
        self.asked.append(time)
        return [self.folder / f"{time}", self.folder / f"{time} quality"]

    def read(self, time, grid):
        raise AssertionError("no file is read to find out which are missing")


@pytest.fixture
def folder(tmp_path) -> Path:
    """All files."""
    for init, lead, time in zip(INIT, cases().lead, cases().valid_time, strict=True):
        for name in (f"{init}+{lead}", f"{time}", f"{time} quality", f"gfs_subset_{str(init)[:13]}.nc"):
            (tmp_path / name.replace("-", "").replace("T", "") if "gfs" in name else tmp_path / name).touch()
    return tmp_path


def test_valid_times_and_parts():
    assert [str(time) for time in cases().valid_time] == [
        "2025-12-01T06:00:00", "2025-12-02T00:00:00", "2025-12-02T00:00:00", "2025-12-02T06:00:00",
    ]  # fmt: skip
    kept = cases().keep(np.array([True, False, True, False]))
    assert len(kept) == 2
    assert kept.split.tolist() == ["train", "validation"]


def test_cases_twice_or_out_of_order():
    with pytest.raises(InputError, match="the run from 2025-12-01T00:00:00 with lead 6 h is there twice"):
        CaseList(INIT[[0, 0]], np.array([6, 6]), np.array(["train"] * 2))
    with pytest.raises(InputError, match=r"the cases are not in order: .* 2025-12-01T00:00:00 with lead 6 h follows"):
        CaseList(INIT[[0, 1]], np.array([24, 6]), np.array(["train"] * 2))


def test_the_first_missing_file_of_a_case_is_named(folder):
    targets = Targets(folder)
    assert find_missing(cases(), Forecasts(folder), targets, None) == {}
    # an hour is looked for once
    assert len(targets.asked) == 3
    (folder / "2025-12-02T00:00:00 quality").unlink()
    (folder / "2025-12-02T00:00:00+6").unlink()
    assert find_missing(cases(), Forecasts(folder), targets, None) == {
        1: str(folder / "2025-12-02T00:00:00 quality"),
        2: str(folder / "2025-12-02T00:00:00 quality"),
        3: str(folder / "2025-12-02T00:00:00+6"),
    }


def test_coarse_predictors_are_missed_where_cases_are_to_be_skipped(folder):
    gone = folder / "gfs_subset_2025120100.nc"
    gone.unlink()
    skip, fill = (GfsSource(folder, on_missing=policy) for policy in ("skip", "climatology"))
    assert find_missing(cases(), Forecasts(folder), Targets(folder), skip) == {0: str(gone), 1: str(gone)}
    assert find_missing(cases(), Forecasts(folder), Targets(folder), fill) == {}


def test_cases_are_left_out_with_a_note(caplog):
    caplog.set_level(logging.WARNING)
    left = leave_out(cases(), {1: "a.nc", 2: "a.nc"}, 0.5)
    assert left.lead.tolist() == [6, 6]
    assert left.split.tolist() == ["train", "test"]
    assert "2 of 4 forecasts lack a file: a.nc: these are left out" in caplog.text
    caplog.clear()
    assert len(leave_out(cases(), {}, 0)) == 4
    assert not caplog.text


def test_too_many_are_an_error_that_names_some_files():
    missing = {0: "a", 1: "b", 2: "c", 3: "a"}
    message = r"4 of 4 forecasts lack a file: a, b, c; that is more than max_missing_fraction 0\.75: complete the files"
    with pytest.raises(InputError, match=message):
        leave_out(cases(), missing, 0.75)
    many = CaseList(INIT[0] + np.arange(7) * np.timedelta64(1, "h"), np.full(7, 6), np.array(["train"] * 7))
    with pytest.raises(InputError, match="lack a file: 0, 1, 2, 3, 4 and 2 more; that"):
        leave_out(many, {place: str(place) for place in range(7)}, 0.2)
