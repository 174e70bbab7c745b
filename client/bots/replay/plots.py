"""The picture of a replay: effective task ratio, the posterior over time, capability against the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from bots.replay.simulation import BINS, Arm, Setting, Trace
from bots.replay.style import label_ends, legend_below, style
from bots.replay.table import Rates

COLOURS: Mapping[Arm, str] = {
    "oracle": "#8c8c8c",
    "BOTS": "#0b6e4f",
    "explicit only": "#d98e04",
    "uniform": "#7a4ea3",
}
SMOOTHED_STEPS = 15


def draw(path: Path, traces: Mapping[Arm, Sequence[Trace]], truth: Rates, capability: Rates, setting: Setting) -> None:
    """Writes the picture as PNG.

    traces      of each arm, one for each seed.
    truth       `[K]` mean pass rate over tasks at each look.
    capability  `[K]` true capability at each look.
    """
    with style():
        figure = Figure(figsize=(11, 8), layout="constrained")
        axes = figure.subplot_mosaic([["ratio", "ratio"], ["posterior", "capability"]])
        _ratio(axes["ratio"], traces, setting)
        _posterior(figure, axes["posterior"], traces["BOTS"], truth, setting)
        _capability(axes["capability"], traces["BOTS"], capability, setting)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)


def _ratio(axes: Axes, traces: Mapping[Arm, Sequence[Trace]], setting: Setting) -> None:
    steps = np.arange(setting.steps)
    ends: dict[str, tuple[float, str]] = {}
    for arm, of_arm in traces.items():
        smoothed = np.array([smooth(trace.ratio) for trace in of_arm])
        mean = smoothed.mean(axis=0)
        axes.plot(steps, mean, color=COLOURS[arm], lw=2)
        if len(smoothed) > 1:
            error = smoothed.std(axis=0, ddof=1) / np.sqrt(len(smoothed))
            axes.fill_between(steps, mean - error, mean + error, color=COLOURS[arm], alpha=0.18, lw=0)
        overall = np.mean([trace.ratio.mean() for trace in of_arm])
        ends[f"{arm}, mean {overall:.2f}"] = (float(mean[-1]), COLOURS[arm])
    label_ends(axes, steps[-1], ends, spacing=0.07)
    axes.set(
        title=f"Effective task ratio: share of the batch that teaches (mean over {SMOOTHED_STEPS} steps)",
        xlabel="step",
        ylim=(0, 1.03),
        xlim=(0, steps[-1]),
    )


def _posterior(figure: Figure, axes: Axes, traces: Sequence[Trace], truth: Rates, setting: Setting) -> None:
    share = np.mean([trace.histogram for trace in traces], axis=0)
    image = axes.pcolormesh(
        np.append(setting.looks, setting.steps),
        np.linspace(0, 1, BINS + 1),
        np.clip(share.T, 1e-3, None),
        norm=LogNorm(1e-3, 1),
        cmap="YlGnBu",
    )
    axes.grid(False)
    axes.plot(setting.looks, np.mean([trace.mean for trace in traces], axis=0), color="#d1495b", lw=2, label="its mean")
    axes.plot(setting.looks, truth, color="#222222", lw=2, ls="--", label="mean of the true pass rates")
    legend_below(axes)
    axes.set(title="What BOTS believes of the tasks", xlabel="step", ylabel="posterior mean", ylim=(0, 1))
    figure.colorbar(image, ax=axes, label="share of tasks")


def _capability(axes: Axes, traces: Sequence[Trace], truth: Rates, setting: Setting) -> None:
    for place, trace in enumerate(traces):
        label = "kappa, a line for each seed" if place == 0 else None
        axes.plot(setting.looks, trace.capability, color=COLOURS["BOTS"], lw=1.2, alpha=0.7, label=label)
    axes.plot(setting.looks, truth, color="#222222", lw=2, ls="--", label="truth, from all tasks")
    axes.axhline(0, color="#aaaaaa", lw=0.8)
    axes.axhline(1, color="#aaaaaa", lw=0.8)
    legend_below(axes)
    axes.set(title="Capability: weak = 0, strong = 1", xlabel="step", ylabel="capability", xlim=(0, setting.steps))


def smooth(values: Rates) -> Rates:
    """Returns the mean over a window of SMOOTHED_STEPS around each step, narrower at the ends."""
    window = np.ones(min(SMOOTHED_STEPS, len(values)))
    return np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")
