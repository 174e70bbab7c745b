"""The picture of a replay: effective task ratio, correlation with the true pass rates, and coverage, over the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bots.replay.simulation import Arm, Setting, Trace
from bots.replay.style import COLOURS, FULL, SMOOTHED_STEPS, label_ends, smooth, style

Traces = Mapping[Arm, Sequence[Trace]]


def draw(path: Path, traces: Traces, size: int, setting: Setting) -> None:
    """Writes the picture as PNG: the traces of each arm, one for each seed, on `size` tasks."""
    steps = np.arange(setting.steps)
    with style():
        figure = Figure(figsize=(11, 11), layout="constrained")
        ratio, correlation, coverage = figure.subplots(3)
        _lines(ratio, steps, {arm: [smooth(trace.ratio) for trace in traces[arm]] for arm in traces})
        ratio.set(title=f"Effective task ratio (mean over {SMOOTHED_STEPS} steps)")
        _lines(correlation, setting.looks, {arm: [trace.correlation for trace in traces[arm]] for arm in traces})
        correlation.set(title="Correlation of posterior mean and true pass rate over all tasks")
        _lines(coverage, steps, {arm: [trace.distinct / size for trace in traces[arm]] for arm in traces})
        coverage.set(title="Coverage: share of the tasks that were evaluated", xlabel="step")
        for axes in (ratio, correlation, coverage):
            axes.set(xlim=(0, setting.steps), ylim=(0, FULL))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)


def _lines(axes: Axes, x: npt.NDArray[Any], values: Mapping[Arm, Sequence[npt.NDArray[Any]]]) -> None:
    """Draws the mean over seeds of each arm, with its standard error; an arm without values is left out."""
    ends: dict[str, tuple[float, str]] = {}
    for arm, of_seeds in values.items():
        mean = np.mean(of_seeds, axis=0)
        if np.isnan(mean).all():
            continue
        colour = COLOURS[arm.way]
        axes.plot(x, mean, color=colour, lw=2, ls="-" if arm.references else "--" if arm.tags else ":")
        if len(of_seeds) > 1:
            error = np.std(of_seeds, axis=0, ddof=1) / np.sqrt(len(of_seeds))
            axes.fill_between(x, mean - error, mean + error, color=colour, alpha=0.18, lw=0)
        ends[arm.name] = (float(mean[-1]), colour)
    label_ends(axes, float(x[-1]), ends, spacing=0.09)
