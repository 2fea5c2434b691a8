import pytest

from ai4sim.errors import InputError
from ai4sim.verification import Scorecard
from precip_postproc.resunet_qpf.compare import main, open_runs


def make_run(folder, name, scores, n=1000.0):
    card = Scorecard(use_case="precip_postproc/resunet_qpf", experiment=name, roles={"Net": "model"})
    for lead, value in scores.items():
        where = {"threshold": 0.25, "lead_time": lead}
        card.add(model="Net", metric="brier", value=value, lower=value - 0.01, upper=value + 0.01, n=n, **where)
        card.add(model="Net", metric="brier_skill_smoothed", value=0.05, lower=0.01, upper=0.09, n=n, **where)
    folder.mkdir()
    card.save(folder)
    return folder


def test_runs_are_printed_side_by_side(tmp_path, capsys):
    whole = make_run(tmp_path / "a", "demo/version_0", {6: 0.0312, 24: 0.0456})
    single = make_run(tmp_path / "b", "per_lead/version_0", {24: 0.0444})
    main([str(whole), str(single), "--thresholds", "0.25"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Brier score at 0.25 mm")
    (first,) = (line for line in lines if "demo/version_0" in line)
    (second,) = (line for line in lines if "per_lead/version_0" in line)
    assert "0.03120" in first
    assert "0.04560" in first
    assert "0.04440" in second
    assert "0.03" not in second
    assert sum("5.0 [1.0, 9.0]" in line for line in lines) == 2


def test_runs_on_other_points_are_refused(tmp_path):
    one = make_run(tmp_path / "a", "demo/version_0", {24: 0.04})
    other = make_run(tmp_path / "b", "demo/version_1", {24: 0.04}, n=900.0)
    with pytest.raises(InputError, match=r"demo/version_1 was tested on 900 points at \+24 h, demo/version_0 on 1000"):
        open_runs([one, other])


def test_a_threshold_that_nobody_has_is_named(tmp_path, capsys):
    run = make_run(tmp_path / "a", "demo/version_0", {24: 0.04})
    with pytest.raises(SystemExit):
        main([str(run), "--thresholds", "3"])
    assert "no run has scores at 3 mm" in capsys.readouterr().err
