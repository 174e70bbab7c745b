"""How the pictures of `bots replay` and `bots demo` look."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

COLOURS: Mapping[str, str] = {
    "uniform": "#7a4ea3",
    "interpolation": "#d98e04",
    "item_response": "#0b6e4f",
    "oracle": "#8c8c8c",
}
FULL = 1.02  # upper limit of an axis of shares, so that a line at 1 is visible
SMOOTHED_STEPS = 15

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


def smooth(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns the mean over a window of SMOOTHED_STEPS around each step, narrower at the ends."""
    window = np.ones(min(SMOOTHED_STEPS, len(values)))
    return np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")


def label_ends(axes: Axes, x: float, ends: Mapping[str, tuple[float, str]], *, spacing: float) -> None:
    """Writes each line's label at its end, instead of a legend, moved apart so that none covers another.

    x        of the ends of the lines.
    ends     label -> (y of the line's end, colour).
    spacing  least distance of two labels, in the unit of the y axis.
    """
    above = float("inf")
    for label, (y, colour) in sorted(ends.items(), key=lambda end: -end[1][0]):
        above = min(y, above - spacing)
        axes.annotate(f"  {label}", (x, above), color=colour, va="center", weight="bold", annotation_clip=False)
