import json
import subprocess
import sys
from base64 import b64encode
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from PIL import Image

from ai4sim.errors import InputError
from ai4sim.gallery import find_experiments
from ai4sim.report import build_report, main
from ai4sim.verification import Scorecard

VOID = {"meta", "img", "input", "br"}


class Page(HTMLParser):
    """Tags with attributes, the visible text, and whether every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def make_run(
    root: Path,
    use_case: str,
    name: str,
    version: int = 0,
    *,
    value: float = 0.98,
    scored: bool = True,
    above: str = "experiments",
) -> Path:
    folder = root / use_case / above / name / f"version_{version}"
    (folder / "figures").mkdir(parents=True)
    (folder / "config.yaml").write_text(f"model:\n  class_path: {name}.Net\n  note: <script>alert(1)</script>\n")
    record = {"time": "2026-11-24T10:00:00+00:00", "git": {"commit": "abcdef0123456789"}, "seed": 7}
    (folder / "provenance.json").write_text(json.dumps(record))
    matplotlib.image.imsave(folder / "figures" / "scores_by_level.png", np.ones((4, 6, 3)))
    if scored:
        card = Scorecard(use_case=use_case, experiment=name, roles={"net": "model", "noise": "oracle"})
        for model, r2 in {"ridge": 0.7, "net": value, "zero & co": -0.1, "noise": 0.999}.items():
            card.add(model=model, metric="r2", value=r2, lower=r2 - 0.02, upper=r2 + 0.001)
            card.add(model=model, metric="rmse", value=1 - r2, units="m s-1 day-1")
            card.add(model=model, metric="r2", value=r2 / 2, split="test_tropics")
        card.add(model="net", metric="momentum_residual", value=1e-7)
        card.add(model="net", metric="r2_skill_ridge", value=0.9, lower=0.8, upper=0.95)
        card.save(folder)
    return folder


@pytest.fixture
def root(tmp_path) -> Path:
    make_run(tmp_path, "weather_forecast/gwd", "demo", 0, value=0.91)
    make_run(tmp_path, "weather_forecast/gwd", "demo", 10, value=0.97)
    make_run(tmp_path, "weather_forecast/gwd", "demo", 2, value=0.93)
    make_run(tmp_path, "weather_forecast/gwd", "mlp", scored=False)
    make_run(tmp_path, "combustion/cnf", "unet")
    return tmp_path


def build(root: Path) -> Page:
    page = Page(build_report(root, root / "report" / "index.html").read_text())
    assert not page.open
    return page


def test_experiments_are_found_newest_version_first(root):
    runs = find_experiments([root])
    assert [(run.use_case, run.name, run.version, run.status) for run in runs] == [
        ("combustion/cnf", "unet", 0, "done"),
        ("weather_forecast/gwd", "demo", 10, "done"),
        ("weather_forecast/gwd", "demo", 2, "done"),
        ("weather_forecast/gwd", "demo", 0, "done"),
        ("weather_forecast/gwd", "mlp", 0, "unfinished"),
    ]


def test_moved_experiments_and_folders_named_twice_are_found_once(tmp_path):
    make_run(tmp_path, "weather_forecast/gwd", "demo", above="")
    make_run(tmp_path, "weather_forecast/gwd", "demo", 1, above="")
    runs = find_experiments([tmp_path, tmp_path / "weather_forecast"])
    assert [(run.name, run.version) for run in runs] == [("demo", 1), ("demo", 0)]
    assert {run.use_case for run in find_experiments([tmp_path])} == {"weather_forecast/gwd"}


def test_stores_checkpoints_and_hidden_folders_are_not_searched(tmp_path):
    for name in ("predictions.zarr", "checkpoints", ".nox", "_build"):
        make_run(tmp_path / name, "gwd", "demo")
    assert find_experiments([tmp_path]) == []


def test_page_shows_every_use_case_run_and_score(root):
    page = build(root)
    for words in ("weather_forecast/gwd", "combustion/cnf", "5 runs of 2 use cases, 4 of them scored"):
        assert words in page.text
    assert "net model 0.970 [0.950, 0.971]" in page.text
    assert "ridge baseline 0.700" in page.text
    assert "noise oracle 0.999" in page.text
    assert "RMSE ↓ m s⁻¹ day⁻¹" in page.text
    assert "momentum residual of net 1.00e−07" in page.text
    assert "R² skill against ridge" in page.text
    assert "set test_tropics, all variables" in page.text
    assert "seed 7" in page.text
    assert "commit abcdef0123" in page.text
    assert "2 earlier versions of demo" in page.text


def test_best_is_bold_and_the_oracle_is_not(root):
    text = build_report(root / "combustion", root / "r.html").read_text()
    assert "<b>0.980</b>" in text
    assert "<b>0.999</b>" not in text
    assert '<tr class="oracle">' in text


def test_unfinished_and_damaged_runs_are_listed_not_fatal(root):
    (root / "combustion/cnf/experiments/unet/version_0/scorecard.csv").write_text("nonsense\n")
    (root / "combustion/cnf/experiments/unet/version_0/provenance.json").write_text("{")
    page = build(root)
    assert "No scorecard: the run is unfinished, or was not tested." in page.text
    assert "The scorecard cannot be read:" in page.text
    assert "has the columns ['nonsense']" in page.text
    chips = [tag["class"] for tag in page.all("span") if str(tag.get("class")).startswith("chip")]
    assert {"chip unfinished", "chip damaged", "chip done"} == set(chips)


def test_page_is_one_file_without_scripts_or_network(root):
    page = build(root)
    assert not page.all("script")
    assert not page.all("link")
    sources = [str(tag["src"]) for tag in page.all("img")]
    # one figure of the newest version of each experiment
    assert len(sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert all(str(tag["href"]).startswith("#") for tag in page.all("a"))
    text = (root / "report" / "index.html").read_text()
    assert "http" not in text
    assert "url(" not in text
    assert [path.name for path in (root / "report").iterdir()] == ["index.html"]


def test_links_of_the_overview_lead_to_the_runs(root):
    page = build(root)
    targets = {tag["id"] for tag in page.all("article")}
    links = [str(tag["href"])[1:] for tag in page.all("a")]
    assert len(links) == len(set(links)) == 5
    assert set(links) == targets


def test_foreign_text_is_escaped(root):
    page = build(root)
    assert "<script>alert(1)</script>" in page.text
    assert "zero & co" in page.text


@pytest.mark.parametrize("name", ["broken.png", "broken.gif", "broken.svg"])
def test_what_is_no_image_is_left_out(root, name):
    figure = root / "combustion/cnf/experiments/unet/version_0/figures" / name
    figure.write_bytes(b"<svg onload=alert(1)>")
    assert "broken" not in build(root).text


def test_animations_are_shown_beside_the_figures(root):
    figure = root / "combustion/cnf/experiments/unet/version_0/figures/forecast.gif"
    frames = [Image.new("L", (4, 3), shade) for shade in (0, 255)]
    frames[0].save(figure, save_all=True, append_images=frames[1:])
    (shown,) = [tag for tag in build(root).all("img") if tag["alt"] == "forecast"]
    assert shown["src"] == "data:image/gif;base64," + b64encode(figure.read_bytes()).decode()


def test_figures_have_captions_and_alternative_texts(root):
    page = build(root)
    assert {tag["alt"] for tag in page.all("img")} == {"scores by level"}


def test_page_is_the_same_again_but_for_its_time(root):
    def lines() -> list[str]:
        text = build_report(root, root / "index.html").read_text()
        return [line for line in text.splitlines() if not line.startswith("<footer>")]

    assert lines() == lines()


def test_nothing_to_report_is_an_error_that_says_what_to_do(tmp_path, capsys):
    with pytest.raises(InputError, match=r"no experiments below .*nox -s train"):
        build_report(tmp_path, tmp_path / "index.html")
    with pytest.raises(InputError, match="is no folder"):
        build_report(tmp_path / "missing", tmp_path / "index.html")
    assert main(["--output", str(tmp_path / "index.html"), str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: no experiments below")
    assert not (tmp_path / "index.html").exists()


def test_command_line_takes_the_moved_experiments(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AI4SIM_EXPERIMENTS", str(root))
    output = tmp_path / "pages" / "index.html"
    assert main(["--output", str(output)]) == 0
    assert capsys.readouterr().out == f"report: {output}\n"
    assert "weather_forecast/gwd" in output.read_text()


def test_report_and_verification_do_without_torch():
    code = "import sys, ai4sim.report, ai4sim.figures; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
