"""Directive that shows measured numbers straight from ``benchmarks/results``, so that no page can go stale."""

import json
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


class BenchmarkTable(SphinxDirective):
    """``.. benchmark-table:: NAME`` with ``:columns:``, keys of the entries of ``results`` in ``NAME.json``.

    A benchmark that was not run yet gives a sentence that says how to run it.
    """

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {"columns": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """The table, and a line that names the machine."""
        path = RESULTS / f"{self.arguments[0]}.json"
        self.env.note_dependency(str(path))
        if not path.is_file():
            return self._parse([f"*Not measured yet:* ``nox -s bench -- {self.arguments[0]}``."])
        document = json.loads(path.read_text())
        columns = [word.strip() for word in self.options["columns"].split(",")]
        lines = [".. list-table::", "   :header-rows: 1", ""]
        for row in [{name: name.replace("_", " ") for name in columns}, *document["results"]]:
            cells = [_text(row.get(name, "")) for name in columns]
            lines += [f"   {'* -' if i == 0 else '  -'} {cell}" for i, cell in enumerate(cells)]
        machine = document.get("machine", {})
        versions = machine.get("versions", {})
        known = [
            machine.get("device", ""),
            machine.get("cpu", ""),
            f"{machine['cores']} cores" if "cores" in machine else "",
            *(f"{name} {version}" for name, version in versions.items()),
        ]
        return self._parse([*lines, "", f"Measured on: {', '.join(part for part in known if part)}."])

    def _parse(self, lines: list[str]) -> list[nodes.Node]:
        container = nodes.container()
        self.state.nested_parse(StringList(lines, self.arguments[0]), self.content_offset, container)
        return container.children


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("benchmark-table", BenchmarkTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
