"""How the pictures of `bots replay` and `bots demo` look."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import matplotlib
from matplotlib.axes import Axes

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
}


def style() -> AbstractContextManager[None]:
    """Returns a context in which matplotlib draws in our style."""
    return matplotlib.rc_context(STYLE)


def label_ends(axes: Axes, x: float, ends: Mapping[str, tuple[float, str]], *, spacing: float) -> None:
    """Writes each line's label where the line ends, instead of a legend, pushed apart so that none covers another.

    x        where the lines end.
    ends     (y where the line ends, colour) by label.
    spacing  least distance of two labels, in the unit of the y axis.
    """
    above = float("inf")
    for label, (y, colour) in sorted(ends.items(), key=lambda end: -end[1][0]):
        above = min(y, above - spacing)
        axes.annotate(f"  {label}", (x, above), color=colour, va="center", weight="bold", annotation_clip=False)


def legend_below(axes: Axes) -> None:
    """Puts the legend under the axes, where it covers no data."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, frameon=False)
