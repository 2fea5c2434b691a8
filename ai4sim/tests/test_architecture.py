"""The three rules that keep the corridor standing, checked on the source itself."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
USE_CASES = sorted(
    path.parent.relative_to(ROOT)
    for pattern in ("*/noxfile.py", "*/*/noxfile.py")
    for path in ROOT.glob(pattern)
    if ".nox" not in path.parts
)
ROOMS = {str(path).replace("/", ".") for path in USE_CASES}


def imports(path: Path) -> set[str]:
    """Modules that a file imports, and names it takes from modules, which may be modules too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def within(names: set[str], packages: set[str]) -> set[str]:
    """Those names that are one of the packages or in one."""
    return {name for name in names if any(f"{name}.".startswith(f"{package}.") for package in packages)}


def files(folder: Path) -> list[Path]:
    hidden = {".nox", ".venv", "data", "experiments"}
    return [path for path in folder.rglob("*.py") if not hidden & set(path.relative_to(ROOT).parts)]


def test_there_are_use_cases():
    assert Path("weather_forecast/gwd") in USE_CASES


def test_the_shared_package_imports_no_use_case():
    for path in files(ROOT / "ai4sim"):
        assert not within(imports(path), ROOMS), path


@pytest.mark.parametrize("use_case", USE_CASES, ids=str)
def test_a_use_case_imports_no_other(use_case):
    own = str(use_case).replace("/", ".")
    for path in files(ROOT / use_case):
        assert not within(imports(path), ROOMS - {own}), path


@pytest.mark.parametrize("use_case", USE_CASES, ids=str)
@pytest.mark.parametrize("name", ["baselines.py", "plotters.py", "evaluation.py"])
def test_torch_stops_at_the_predictions(use_case, name):
    path = ROOT / use_case / name
    if path.exists():
        assert not within(imports(path), {"torch", "lightning"}), path


def test_verification_figures_and_report_know_nothing_of_torch():
    paths = [*files(ROOT / "ai4sim" / "verification"), ROOT / "ai4sim" / "figures.py", ROOT / "ai4sim" / "report.py"]
    for path in paths:
        assert not within(imports(path), {"torch", "lightning"}), path


def test_nothing_is_unpickled():
    for path in files(ROOT):
        if "tests" in path.relative_to(ROOT).parts:
            continue  # tests pickle what workers are sent
        text = path.read_text()
        assert "import pickle" not in text, path
        assert "allow_pickle=True" not in text, path
        assert "weights_only=False" not in text, path


@pytest.mark.parametrize("use_case", USE_CASES, ids=str)
def test_every_use_case_has_its_files_extra_and_container_name(use_case):
    folder = ROOT / use_case
    for name in ("README.rst", "config.py", "data.py", "models.py", "plotters.py", "trainer.py", "noxfile.py"):
        assert (folder / name).is_file(), name
    assert (folder / "configs" / "demo.yaml").is_file()
    assert (folder / "configs" / "smoke.yaml").is_file()
    assert list((folder / "notebooks").glob("*.ipynb"))
    names = dict(
        line.split() for line in (ROOT / "docker" / "use_cases").read_text().splitlines() if line and line[0] != "#"
    )
    assert str(use_case) in names.values(), "docker/use_cases"
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert str(use_case) in re.findall(r'USE_CASES="(.*)"', dockerfile)[0].split(), "USE_CASES in Dockerfile"
    assert f" {use_case}/noxfile.py {use_case}/noxfile.py\n" in dockerfile, "COPY of the noxfile in Dockerfile"
    assert f"\n{use_case.name} = [" in (ROOT / "pyproject.toml").read_text(), "extra in pyproject.toml"


@pytest.mark.parametrize("use_case", USE_CASES, ids=str)
def test_every_use_case_is_documented(use_case):
    assert f"<{use_case}>`__" in (ROOT / "README.rst").read_text(), "README.rst"
    docs, name = ROOT / "docs", use_case.name
    assert f"use_cases/{name}\n" in (docs / "index.rst").read_text(), "docs/index.rst"
    assert (docs / "use_cases" / f"{name}.rst").is_file()
    links = [path.resolve() for path in (docs / "use_cases").glob("*.ipynb")]
    assert {path.resolve() for path in (ROOT / use_case / "notebooks").glob("*.ipynb")} <= set(links), "link in docs"
    package = str(use_case).replace("/", ".")
    documented = set(re.findall(r"automodule:: (\S+)", (docs / "api.rst").read_text()))
    for path in files(ROOT / use_case):
        relative = path.relative_to(ROOT / use_case).with_suffix("")
        if path.stem not in {"__init__", "noxfile"} and "tests" not in relative.parts:
            assert f"{package}.{'.'.join(relative.parts)}" in documented, "docs/api.rst"
