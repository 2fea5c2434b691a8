"""Execute a use case's notebooks in place: ``python -P tools/notebooks.py [NAME ...]`` in the use case's folder.

Every cell runs from top to bottom in a fresh kernel of the interpreter that runs this program, whatever kernels are
registered on the machine. What would differ from machine to machine is taken out before the notebook is written:
timings, versions, warnings, terminal colours, local paths and addresses of objects. A notebook in which a cell fails
is left as it was.
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from ai4sim.atomic import atomic_path
from ai4sim.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
CELL_TIMEOUT = 900  # s
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
ELLIPSIS = "…"

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")


class RunningInterpreter(KernelSpecManager):
    """Gives the kernel of the running interpreter under every name."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """Kernel of this interpreter with figures shown inline; the folder it runs in is not on its path."""
        return KernelSpec(
            argv=[
                sys.executable, "-P", "-m", "ipykernel_launcher", "--IPKernelApp.ignore_cwd=True",
                "--log-level=40", "-f", "{connection_file}",
            ],
            env={"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
            display_name=KERNEL["display_name"],
            language=KERNEL["language"],
        )  # fmt: skip


def find_notebooks(folder: Path, names: Sequence[str]) -> list[Path]:
    """The notebooks of a use case, or those that are named.

    Args:
        folder: the use case's folder.
        names: names of notebooks, with or without ``.ipynb``; all where there is none.

    Raises:
        InputError: there is no such notebook.
    """
    found = {path.stem: path for path in sorted((folder / "notebooks").glob("*.ipynb"))}
    if not found:
        raise InputError(f"no notebooks in {folder / 'notebooks'}: run this in a use case's folder")
    for name in names:
        if name.removesuffix(".ipynb") not in found:
            raise InputError(f"there is no notebook {name!r}; {folder.name} has {', '.join(found)}")
    return [found[name.removesuffix(".ipynb")] for name in names] or list(found.values())


def execute(path: Path, folder: Path) -> None:
    """Run a notebook and write it with its new outputs.

    Args:
        path: the notebook.
        folder: where its kernel runs.

    Raises:
        InputError: a cell fails, takes too long, or ends the kernel; the message has the cell and the error.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        km=AsyncKernelManager(kernel_spec_manager=RunningInterpreter()),
        timeout=CELL_TIMEOUT,
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
    )
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise InputError(f"{path.name}: {_ANSI.sub('', str(error)).strip()}") from error
    clean(notebook, local_paths())
    with atomic_path(path) as partial:
        nbformat.write(notebook, partial)


def local_paths() -> list[str]:
    """Folders of this machine, the deepest first: environment, repository, temporary files, home."""
    folders = {sys.prefix, sys.base_prefix, str(ROOT), tempfile.gettempdir(), str(Path.home())}
    return sorted((folder for folder in folders if folder.count("/") > 0 and folder != "/"), key=len, reverse=True)


def clean(notebook: NotebookNode, paths: Iterable[str]) -> None:
    """Take out of an executed notebook what belongs to this machine and this moment.

    Args:
        notebook: changed in place.
        paths: folders that become an ellipsis wherever an output's text has them.
    """
    local = re.compile("|".join(rf"{re.escape(path)}(?=[/\s'\"<>:]|$)" for path in paths))
    notebook.metadata = NotebookNode(kernelspec=NotebookNode(KERNEL), language_info=NotebookNode(name="python"))
    for cell in notebook.cells:
        cell.metadata = NotebookNode({key: cell.metadata[key] for key in ("tags",) if key in cell.metadata})
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            if "text" in output:
                output.text = _without_machine(output.text, local)
            for kind, value in output.get("data", {}).items():
                if kind.startswith("text/"):
                    output.data[kind] = _without_machine(value, local)


def _without_machine(text: Any, local: re.Pattern[str]) -> str:
    whole = "".join(text) if isinstance(text, list) else str(text)
    return _ANSI.sub("", _ADDRESS.sub("0x" + ELLIPSIS, local.sub(ELLIPSIS, whole)))


def main(args: Sequence[str] | None = None) -> int:
    """Command line; status 2 and the cell's error where a notebook fails."""
    parser = argparse.ArgumentParser(prog="python -P tools/notebooks.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="notebooks to execute; all by default")
    options = parser.parse_args(args)
    folder = Path.cwd()
    try:
        for path in find_notebooks(folder, options.names):
            print(f"executing {path.relative_to(folder)}", flush=True)
            execute(path, folder)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
