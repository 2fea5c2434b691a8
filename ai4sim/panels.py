"""What figures of several panels have in common: their layout, the looks of their lines, and one legend below."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ai4sim.style import COLORS, LINE_STYLES

_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
_COLUMNS: Final = 3
# Inches of a panel with its labels.
_PANEL: Final = 2.75
_SINGLE_PANEL: Final = 4.0


def panel_layout(panels: int) -> tuple[int, int, float]:
    """Columns, rows, and the size of a panel: a single one must leave room for the legend below it."""
    columns = panel_columns(panels)
    return columns, math.ceil(panels / columns), _SINGLE_PANEL if panels == 1 else _PANEL


def panel_columns(panels: int) -> int:
    """Four panels make a square."""
    return 2 if panels == 4 else min(panels, _COLUMNS)


def outer_labels(axes: Sequence[Axes], x: str, y: str) -> None:
    """Labels at the lowest panel of each column and the first of each row."""
    columns = panel_columns(len(axes))
    for place, ax in enumerate(axes):
        if place + columns >= len(axes):
            ax.set_xlabel(x)
        if place % columns == 0:
            ax.set_ylabel(y)


def line_look(index: int) -> dict[str, Any]:
    """Colour, dashes and width of the line of a model by its place; the first one is the model that is judged."""
    return {
        "color": COLORS[index % len(COLORS)],
        "linestyle": LINE_STYLES[index // len(COLORS) % len(LINE_STYLES)],
        "linewidth": 1.9 if index == 0 else 1.3,
        "zorder": 3.0 if index == 0 else 2.5,
    }


def line_marks(index: int) -> dict[str, Any]:
    """Markers of the line of a model by its place."""
    # whole at the ends of the scale, too
    return {"marker": _MARKERS[index % len(_MARKERS)], "markersize": 4.0, "clip_on": False}


def legend_below(figure: Figure, models: Iterable[str], guides: Sequence[Any], *, marks: bool = False) -> None:
    """One legend below all panels: the models, then what guides the eye."""
    lines = [
        Line2D([], [], **line_look(index), **(line_marks(index) if marks else {}), label=name)
        for index, name in enumerate(models)
    ]
    handles = [*lines, *guides]
    # inches of each entry: its text, and the line before it
    widths = [0.068 * len(str(handle.get_label())) + 0.6 for handle in handles]
    columns = len(handles)
    while columns > 1 and sum(map(max, np.array_split(widths, columns))) > figure.get_figwidth():
        columns -= 1
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)
