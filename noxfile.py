"""Sessions over the whole collection; each use case has its own noxfile with the same names."""

import json
import re
import shutil
import sys
from pathlib import Path

import nox

sys.path.insert(0, str(Path(__file__).resolve().parent))

from tools import sessions
from tools.sessions import ROOT

nox.options.sessions = ["lint", "typecheck", "tests"]
nox.options.default_venv_backend = "none"

USE_CASES = sessions.use_cases()


def environment(session: nox.Session) -> str:
    """Python with everything: the shared package is tested, documented and reported from it."""
    extras = ",".join((*(Path(name).name for name in USE_CASES), *sessions.TOOLS, "docs"))
    return sessions.environment(session, ROOT, "env", ["-e", f".[{extras}]"])


def select(session: nox.Session, *more: str) -> tuple[list[str], list[str]]:
    """Names that the words after -- begin with (all where there is none), and the remaining words."""
    known = [*more, *USE_CASES]
    words = [word.rstrip("/") if word.rstrip("/") in known else word for word in session.posargs]
    chosen: list[str] = []
    while words and words[0] in known:
        chosen.append(words.pop(0))
    if words and re.fullmatch(r"\w+(/\w+)*/?", words[0]):
        session.error(f"{words[0]!r} is no use case; there are {', '.join(known)}")
    return chosen or known, words


def delegate(session: nox.Session, name: str, use_cases: list[str], words: list[str]) -> None:
    """Run a session of the given use cases' own noxfiles."""
    for use_case in use_cases:
        noxfile = str(ROOT / use_case / "noxfile.py")
        sessions.run(session, sys.executable, "-m", "nox", "-f", noxfile, "-s", name, "--", *words)


@nox.session
def train(session: nox.Session) -> None:
    """Train the demos of all or named use cases: nox -s train -- weather_forecast/gwd [--trainer...]."""
    delegate(session, "train", *select(session))


@nox.session
def prepare(session: nox.Session) -> None:
    """Make the processed data of all or named use cases."""
    delegate(session, "prepare", *select(session))


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests, or those of named parts: nox -s tests -- ai4sim weather_forecast/gwd [-k NAME]."""
    chosen, words = select(session, "ai4sim")
    if "ai4sim" in chosen:
        sessions.tests(session, environment(session), "ai4sim", ROOT / ".ci-reports", *words)
    delegate(session, "tests", [name for name in chosen if name != "ai4sim"], words)


@nox.session
def lint(session: nox.Session) -> None:
    """Check rules and formatting of everything with ruff."""
    sessions.lint(session, ROOT)


@nox.session
def typecheck(session: nox.Session) -> None:
    """Check static types with mypy, the shared package strictly."""
    chosen, words = select(session, "ai4sim")
    if "ai4sim" in chosen:
        sessions.typecheck(session, environment(session), "ai4sim")
    delegate(session, "typecheck", [name for name in chosen if name != "ai4sim"], words)


@nox.session
def notebooks(session: nox.Session) -> None:
    """Execute the notebooks of all or named use cases."""
    delegate(session, "notebooks", *select(session))


@nox.session
def bench(session: nox.Session) -> None:
    """Measure the data path and the hot paths of all or named use cases."""
    chosen, words = select(session, "data_path")
    if "data_path" in chosen:
        sessions.run(session, environment(session), "-m", "benchmarks.data_path", *words, cwd=ROOT)
    delegate(session, "bench", [name for name in chosen if name != "data_path"], words)


@nox.session
def export(session: nox.Session) -> None:
    """Export the newest trained networks of all or named use cases to ONNX."""
    delegate(session, "export", *select(session))


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into docs/_build; warnings are errors."""
    python = environment(session)
    words = ("-W", "--keep-going", "-q", "-b", "html", "docs", "docs/_build", *session.posargs)
    sessions.run(session, python, "-m", "sphinx", *words, cwd=ROOT)
    session.log(f"open {ROOT / 'docs' / '_build' / 'index.html'}")


@nox.session
def report(session: nox.Session) -> None:
    """Make one HTML page of all experiments found: scorecards, figures, configurations."""
    words = session.posargs or ["--output", "report/index.html"]
    sessions.run(session, environment(session), "-m", "ai4sim.report", *words, cwd=ROOT)


@nox.session
def smoke(session: nox.Session) -> None:
    """Run every use case's demo with its tiny settings, from nothing to scorecard."""
    chosen, _ = select(session)
    delegate(session, "train", chosen, ["--config", "configs/smoke.yaml"])


@nox.session
def parts(session: nox.Session) -> None:
    """Print the parts that have tests, as a line for a CI matrix."""
    print(f"parts={json.dumps(['ai4sim', *USE_CASES])}")


@nox.session
def lock(session: nox.Session) -> None:
    """Renew constraints.txt: the newest versions that work together, by name."""
    extras = ",".join((*(Path(name).name for name in USE_CASES), *sessions.TOOLS, "docs", "lint", "typecheck"))
    constraints = ROOT / "constraints.txt"
    before = constraints.read_text()
    # what must not move by itself: a newer torch may have no build for the machine at hand
    kept = [line for line in before.splitlines() if line.startswith("torch==")]
    constraints.write_text("\n".join(kept) + "\n")
    shutil.rmtree(ROOT / ".nox" / "lock", ignore_errors=True)
    try:
        python = sessions.environment(session, ROOT, "lock", ["-e", f".[{extras}]"])
        command = [sessions.find_uv() or python, *([] if sessions.find_uv() else ["-m"]), "pip", "freeze"]
        if sessions.find_uv():
            command += ["-p", python]
        frozen = session.run(*command, external=True, silent=True)
        pins = re.findall(r"^([\w.-]+==[\w.]+)", str(frozen), flags=re.MULTILINE)
    except BaseException:
        constraints.write_text(before)
        raise
    constraints.write_text("\n".join(pins) + "\n")
