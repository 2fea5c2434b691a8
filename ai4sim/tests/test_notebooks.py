"""The program that executes the use cases' notebooks."""

import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode, v4

from tools import notebooks


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A use case's folder with a module that must not shadow anybody's."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "own_data.py").write_text("raise RuntimeError('imported from the working folder')\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, *cells: str) -> Path:
    nbformat.write(v4.new_notebook(cells=[v4.new_code_cell(cell) for cell in cells]), path)
    return path


def texts(path: Path) -> list[str]:
    return ["".join(output.get("text", "") for output in cell.outputs) for cell in nbformat.read(path, 4).cells]


def test_cells_run_in_the_running_interpreter_in_the_use_cases_folder(folder):
    path = write(
        folder / "notebooks" / "a.ipynb",
        "import importlib.util, os, sys\nprint(6 * 7, sys.version_info[:2])",
        "print(os.path.isfile('own_data.py'), importlib.util.find_spec('own_data'))",
    )
    assert notebooks.main([]) == 0
    version = tuple(sys.version_info[:2])
    assert texts(path) == [f"42 {version}\n", "True None\n"]
    assert nbformat.read(path, 4).metadata == {"kernelspec": notebooks.KERNEL, "language_info": {"name": "python"}}


def test_a_failing_cell_is_named_and_the_notebook_left_as_it_was(folder, capsys):
    path = write(folder / "notebooks" / "a.ipynb", "x = 1", "y = x / 0")
    before = path.read_bytes()
    assert notebooks.main(["a.ipynb"]) == 2
    message = capsys.readouterr().err
    assert "a.ipynb" in message
    assert "y = x / 0" in message
    assert "ZeroDivisionError: division by zero" in message
    assert path.read_bytes() == before


def test_an_unknown_notebook_is_named_with_those_that_there_are(folder, capsys):
    write(folder / "notebooks" / "walkthrough.ipynb", "1")
    assert notebooks.main(["tour"]) == 2
    assert "no notebook 'tour'" in capsys.readouterr().err.split(";")[0]
    with pytest.raises(SystemExit):
        notebooks.main(["--nonsense"])


def test_a_folder_without_notebooks_is_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert notebooks.main([]) == 2
    assert "no notebooks in" in capsys.readouterr().err


def test_what_belongs_to_the_machine_is_taken_out():
    cell = v4.new_code_cell("run()", metadata={"tags": ["keep"], "collapsed": True})
    cell.outputs = [
        v4.new_output("stream", name="stdout", text="saved to /home/me/run/best.ckpt, not /home/meadow\n"),
        v4.new_output("stream", name="stderr", text="/home/me/lib.py:3: UserWarning"),
        v4.new_output(
            "execute_result", data={"text/plain": "\x1b[1m<Thing at 0x7f3a2b10>\x1b[0m", "image/png": "aGVsbG8="}
        ),
    ]
    notebook = v4.new_notebook(
        cells=[cell], metadata={"language_info": {"name": "python", "version": "3.11.2"}, "toc": {}}
    )
    notebooks.clean(notebook, ["/home/me"])
    assert notebook.metadata == {"kernelspec": notebooks.KERNEL, "language_info": {"name": "python"}}
    assert cell.metadata == NotebookNode(tags=["keep"])
    assert [output.get("text", "") for output in cell.outputs] == ["saved to …/run/best.ckpt, not /home/meadow\n", ""]
    assert cell.outputs[1].data == {"text/plain": "<Thing at 0x…>", "image/png": "aGVsbG8="}
