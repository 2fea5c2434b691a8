"""The three rules that keep the corridor standing, checked on the source itself."""

import ast
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
    """Modules that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(str(node.module))
    return found


def files(folder: Path) -> list[Path]:
    hidden = {".nox", ".venv", "data", "experiments"}
    return [path for path in folder.rglob("*.py") if not hidden & set(path.relative_to(ROOT).parts)]


def test_there_are_use_cases():
    assert Path("weather_forecast/gwd") in USE_CASES


def test_the_shared_package_imports_no_use_case():
    for path in files(ROOT / "ai4sim"):
        assert not {name for name in imports(path) if name.startswith(tuple(ROOMS))}, path


@pytest.mark.parametrize("use_case", USE_CASES, ids=str)
def test_a_use_case_imports_no_other(use_case):
    own = str(use_case).replace("/", ".")
    for path in files(ROOT / use_case):
        assert not {name for name in imports(path) if name.startswith(tuple(ROOMS - {own}))}, path


@pytest.mark.parametrize("use_case", USE_CASES, ids=str)
@pytest.mark.parametrize("name", ["baselines.py", "plotters.py", "evaluation.py"])
def test_torch_stops_at_the_predictions(use_case, name):
    path = ROOT / use_case / name
    if path.exists():
        assert not {module for module in imports(path) if module.split(".")[0] in {"torch", "lightning"}}, path


def test_verification_figures_and_report_know_nothing_of_torch():
    paths = [*files(ROOT / "ai4sim" / "verification"), ROOT / "ai4sim" / "figures.py", ROOT / "ai4sim" / "report.py"]
    for path in paths:
        assert not {module for module in imports(path) if module.split(".")[0] in {"torch", "lightning"}}, path


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
    assert str(use_case) in names.values()
    assert f"\n{use_case.name} = [" in (ROOT / "pyproject.toml").read_text()
