"""The nox sessions of all use cases, and the environments they run in.

Imports nothing but nox and the standard library: it is loaded before any environment exists.

Every use case has one environment of its own, ``.nox/env`` in its folder, that its sessions share, and small ones for
tools that need nothing else (``.nox/lint``). An environment carries a stamp of what it was made from; a session whose
stamp still holds starts at once.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nox
from nox.command import CommandFailed

ROOT = Path(__file__).resolve().parent.parent
# uv does not read pip's settings; where pip was told to find packages, uv may look too
PIP_TO_UV = {
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
}
TOOLS = ("test", "export", "distributed", "notebooks")


def use_cases() -> list[str]:
    """Paths of all use cases below the repository root: the folders with a noxfile of their own."""
    found = (path.parent for pattern in ("*/noxfile.py", "*/*/noxfile.py") for path in ROOT.glob(pattern))
    return sorted(str(path.relative_to(ROOT)) for path in found if ".nox" not in path.parts)


def environment(
    session: nox.Session, folder: Path, name: str, requirements: Sequence[str], *, constrained: bool = True
) -> str:
    """Python of an up-to-date environment, made or renewed only when what it is made from has changed.

    Args:
        session: the running session.
        folder: the use case's folder, or the root.
        name: name of the environment below ``.nox``.
        requirements: arguments of ``pip install``.
        constrained: whether versions are those of ``constraints.txt``.
    """
    path = folder / ".nox" / name
    python = path / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = path / "made-from"
    key = hashlib.sha256()
    for part in (sys.version, *requirements):
        key.update(part.encode())
    for file in ("pyproject.toml", "constraints.txt"):
        key.update((ROOT / file).read_bytes())
    if stamp.is_file() and stamp.read_text() == key.hexdigest() and python.exists():
        return str(python)

    session.log(f"making the environment {path.relative_to(ROOT)}")
    if path.exists():
        shutil.rmtree(path)
    constraints = ("-c", str(ROOT / "constraints.txt")) if constrained else ()
    uv = find_uv()
    if uv:
        env = {uv_name: os.environ[name] for name, uv_name in PIP_TO_UV.items() if os.environ.get(name)}
        if "UV_INDEX" in env:
            # as pip does: without it, an index with torch's builds would have to hold all pins of what else it lists
            env["UV_INDEX_STRATEGY"] = "unsafe-best-match"
        run(session, uv, "venv", "-q", "--python", sys.executable, str(path))
        install = (uv, "pip", "install", "-q", "-p", str(python))
        run(session, *install, *constraints, *requirements, cwd=ROOT, env=env)
    else:
        run(session, sys.executable, "-m", "virtualenv", "-q", str(path))
        run(session, str(python), "-m", "pip", "install", "-q", *constraints, *requirements, cwd=ROOT)
    stamp.write_text(key.hexdigest())
    return str(python)


def find_uv() -> str | None:
    """The uv program: beside this Python (``pip install "nox[uv]"``) or on the path; None where there is none."""
    return shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")


def run(
    session: nox.Session, *command: str, cwd: Path | None = None, env: dict[str, str] | None = None, **options: Any
) -> None:
    """Run a program in a folder, the session's own by default."""
    # compiled modules are kept, whatever the caller's settings: importing torch without them costs ten seconds
    env = {"PYTHONDONTWRITEBYTECODE": "", **(env or {})}
    with session.chdir(cwd or Path.cwd()):
        session.run(*command, external=True, silent=False, env=env, **options)


def lint(session: nox.Session, folder: Path) -> None:
    """Rules and formatting of all Python files below a folder."""
    python = environment(session, ROOT, "lint", ["ruff"])
    run(session, python, "-m", "ruff", "check", str(folder))
    run(session, python, "-m", "ruff", "format", "--check", "--diff", str(folder))


def typecheck(session: nox.Session, python: str, package: str) -> None:
    """Static types of a package, seen from the environment it runs in."""
    mypy = environment(session, ROOT, "typecheck", ["mypy"])
    run(session, mypy, "-m", "mypy", "--python-executable", python, "-p", package, cwd=ROOT)


def tests(session: nox.Session, python: str, package: str, reports: Path, *words: str) -> None:
    """Tests of a package with coverage, in a few processes of one thread each: what they run is small."""
    reports.mkdir(exist_ok=True)
    env = {"COVERAGE_FILE": str(reports / "coverage"), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    report = [f"--cov={package}", "--cov-report=term", f"--cov-report=xml:{reports / 'coverage.xml'}"]
    target = package.replace(".", "/")
    processes = ["-n", str(min(4, os.cpu_count() or 1)), "--dist", "worksteal"]
    run(
        session, python, "-m", "pytest", target, *processes, *report, f"--junitxml={reports / 'junit.xml'}", *words,
        cwd=ROOT, env=env, success_codes=[0, 5] if words else [0],  # 5: no test has what the words select
    )  # fmt: skip


def register(
    use_case: str,
    extra: str,
    peers: Sequence[str] = (),
    benchmarks: Sequence[str] = (),
    rare_peers: Sequence[str] = (),
) -> None:
    """Give the calling noxfile the sessions that every use case has.

    Args:
        use_case: path of the use case below the root, such as ``weather_forecast/gwd``.
        extra: its extra in pyproject.toml.
        peers: packages that only the benchmarks compare with; they are installed by name into an environment of
            their own.
        benchmarks: modules below ``benchmarks/``; by default the one with the use case's name.
        rare_peers: further such packages, which want versions of their own and cannot be installed everywhere; where
            they cannot, the benchmarks run without them.
    """
    folder = ROOT / use_case
    package = use_case.replace("/", ".")
    nox.options.sessions = ["lint", "tests"]
    nox.options.default_venv_backend = "none"

    def python(session: nox.Session) -> str:
        return environment(session, folder, "env", ["-e", f".[{','.join((extra, *TOOLS))}]"])

    def trainer(session: nox.Session, command: str, *words: str) -> None:
        # -P keeps the use case's folder off the path: its data.py must not shadow anybody's module
        run(session, python(session), "-P", "-m", f"{package}.trainer", command, *words, cwd=folder)

    def with_config(words: Sequence[str]) -> list[str]:
        given = any(word.split("=")[0] in {"--config", "-c"} for word in words)
        return list(words) if given else ["--config", "configs/demo.yaml", *words]

    @nox.session(name="env")
    def _env(session: nox.Session) -> None:
        """Make the use case's environment and stop."""
        python(session)

    @nox.session(name="train")
    def _train(session: nox.Session) -> None:
        """Train, test and score: the demo, or what the words after -- say (--config configs/...)."""
        trainer(session, "fit", *with_config(session.posargs))

    @nox.session(name="prepare")
    def _prepare(session: nox.Session) -> None:
        """Make the processed data of the demo, or of the configuration given after --."""
        trainer(session, "prepare", *with_config(session.posargs))

    @nox.session(name="export")
    def _export(session: nox.Session) -> None:
        """Export the newest trained network to ONNX; after --: --ckpt_path FILE --output FILE."""
        words = list(session.posargs)
        if not any(word.startswith("--ckpt_path") for word in words):
            words = ["--ckpt_path", newest_checkpoint(session, use_case), *words]
        trainer(session, "export", *words)

    @nox.session(name="tests")
    def _tests(session: nox.Session) -> None:
        """Run the use case's tests with coverage; reports go to .ci-reports/."""
        tests(session, python(session), package, folder / ".ci-reports", *session.posargs)

    @nox.session(name="lint")
    def _lint(session: nox.Session) -> None:
        """Check rules and formatting with ruff."""
        lint(session, folder)

    @nox.session(name="typecheck")
    def _typecheck(session: nox.Session) -> None:
        """Check static types with mypy."""
        typecheck(session, python(session), package)

    @nox.session(name="notebooks")
    def _notebooks(session: nox.Session) -> None:
        """Execute the notebooks from top to bottom and keep their output."""
        run(session, python(session), "-P", str(ROOT / "tools" / "notebooks.py"), *session.posargs, cwd=folder)

    @nox.session(name="bench")
    def _bench(session: nox.Session) -> None:
        """Measure the hot paths; results go to benchmarks/results/."""
        interpreter = python(session)
        if peers:
            interpreter = environment(session, folder, "bench", ["-e", f".[{extra}]", *peers])
        if rare_peers:
            try:
                wanted = ["-e", f".[{extra}]", *peers, *rare_peers]
                interpreter = environment(session, folder, "bench-rare", wanted, constrained=False)
            except CommandFailed:
                session.warn(f"{', '.join(rare_peers)} cannot be installed here: measured without")
        for name in benchmarks or (Path(use_case).name,):
            run(session, interpreter, "-m", f"benchmarks.{name}", *session.posargs, cwd=ROOT)


def newest_checkpoint(session: nox.Session, use_case: str) -> str:
    """The best checkpoint of the run that finished last."""
    base = os.environ.get("AI4SIM_EXPERIMENTS")
    root = Path(base).expanduser() / use_case if base else ROOT / use_case / "experiments"
    found = sorted(root.glob("*/version_*/checkpoints/best*.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        session.error(f"no trained model below {root}: run nox -s train first, or give -- --ckpt_path FILE")
    return str(found[-1])
