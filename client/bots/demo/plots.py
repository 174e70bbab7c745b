"""The picture of the demo: held-out accuracy, effective task ratio, and which sums were selected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bots.demo.training import ARMS, Arm, Floats, Setting, Trace
from bots.replay.plots import COLOURS, SMOOTHED_STEPS, smooth
from bots.replay.style import label_ends, style

STEPS_A_COLUMN = 10  # of the heat maps
FULL = 1.02  # where axes of shares end: a line at 1 is seen whole

Traces = Sequence[Mapping[Arm, Trace]]


def draw(path: Path, traces: Traces, setting: Setting) -> None:
    """Writes the picture of the traces of all seeds as PNG."""
    with style():
        figure = Figure(figsize=(11, 8), layout="constrained")
        axes = figure.subplot_mosaic([["accuracy", "ratio"], ["uniform", "BOTS"]])
        _accuracy(axes["accuracy"], traces, setting)
        _ratio(axes["ratio"], traces, setting)
        shares = {arm: selected_lengths(traces, arm, setting) for arm in ARMS}
        most = max(share.max() for share in shares.values())
        images = [_lengths(axes[arm], arm, shares[arm], most, setting) for arm in ARMS]
        figure.colorbar(images[-1], ax=[axes[arm] for arm in ARMS], label="share of the selected tasks")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)


def selected_lengths(traces: Traces, arm: Arm, setting: Setting) -> Floats:
    """Returns `[longest, columns]` share of an arm's selected tasks by digits, in each STEPS_A_COLUMN steps."""
    lengths = np.concatenate([each[arm].lengths for each in traces], axis=1)
    starts = range(0, setting.steps, STEPS_A_COLUMN)
    bins = np.arange(1, setting.longest + 2)
    parts = [lengths[start : start + STEPS_A_COLUMN].ravel() for start in starts]
    return np.stack([np.histogram(part, bins)[0] / part.size for part in parts], axis=1)


def _accuracy(axes: Axes, traces: Traces, setting: Setting) -> None:
    ends = {}
    for arm in ARMS:
        for each in traces:
            axes.plot(setting.measured, each[arm].accuracy, color=COLOURS[arm], lw=0.8, alpha=0.35)
        mean = np.mean([each[arm].accuracy for each in traces], axis=0)
        axes.plot(setting.measured, mean, color=COLOURS[arm], lw=2.5)
        ends[f"{arm}  {mean[-1]:.2f}"] = (float(mean[-1]), COLOURS[arm])
    uniform = np.mean([each["uniform"].accuracy[-1] for each in traces])
    axes.axhline(uniform, color=COLOURS["uniform"], lw=1, ls=":")
    label_ends(axes, setting.steps, ends, spacing=0.07)
    axes.set(title="Held-out accuracy (thin: a seed each)", xlabel="step", xlim=(0, setting.steps), ylim=(0, FULL))


def _ratio(axes: Axes, traces: Traces, setting: Setting) -> None:
    ends = {}
    for arm in ARMS:
        mean = smooth(np.mean([each[arm].ratio for each in traces], axis=0))
        axes.plot(np.arange(setting.steps), mean, color=COLOURS[arm], lw=2.5)
        overall = np.mean([each[arm].ratio.mean() for each in traces])
        ends[f"{arm}, mean {overall:.2f}"] = (float(mean[-1]), COLOURS[arm])
    label_ends(axes, setting.steps, ends, spacing=0.07)
    title = f"Effective task ratio (mean over {SMOOTHED_STEPS} steps)"
    axes.set(title=title, xlabel="step", xlim=(0, setting.steps), ylim=(0, FULL))


def _lengths(axes: Axes, arm: Arm, share: Floats, most: float, setting: Setting) -> ScalarMappable:
    image = axes.pcolormesh(
        np.append(np.arange(0, setting.steps, STEPS_A_COLUMN), setting.steps),
        np.arange(0.5, setting.longest + 1),
        share,
        norm=PowerNorm(0.5, 0, most),  # so that small shares are told apart
        cmap="YlGnBu",
    )
    axes.grid(False)
    axes.set(title=f"Which sums {arm} selected", xlabel="step", ylabel="digits of the numbers to add")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    return image
