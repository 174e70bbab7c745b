"""The picture of the demo: held-out accuracy, effective task ratio, and the digits of the selected sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bots.demo.outcome import Traces
from bots.demo.training import ARMS, Arm, Floats, Setting
from bots.replay.style import COLOURS, FULL, SMOOTHED_STEPS, label_ends, smooth, style

STEPS_A_COLUMN = 10  # of the heat maps


def draw(path: Path, traces: Traces, setting: Setting) -> None:
    """Writes the picture of the traces of all seeds as PNG."""
    with style():
        figure = Figure(figsize=(12, 8), layout="constrained")
        upper, lower = figure.subfigures(2, squeeze=False).flat
        accuracy, ratio = upper.subplots(1, 2)
        _lines(accuracy, setting.measured, {arm: [each[arm].accuracy for each in traces] for arm in ARMS})
        accuracy.set(title="Held-out accuracy (thin: one seed)")
        _lines(ratio, np.arange(setting.steps), {arm: [smooth(each[arm].ratio) for each in traces] for arm in ARMS})
        ratio.set(title=f"Effective task ratio (mean over {SMOOTHED_STEPS} steps)")
        shares = {arm: selected_lengths(traces, arm, setting) for arm in ARMS}
        most = max(share.max() for share in shares.values())
        maps = lower.subplots(1, len(ARMS), sharey=True)
        images = [_lengths(axes, arm, shares[arm], most, setting) for axes, arm in zip(maps, ARMS, strict=True)]
        maps[0].set(ylabel="digits of the numbers to add")
        lower.colorbar(images[-1], ax=maps, label="share of the selected tasks")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)


def selected_lengths(traces: Traces, arm: Arm, setting: Setting) -> Floats:
    """Returns `[longest, columns]` share of an arm's selected tasks by digits, in each STEPS_A_COLUMN steps."""
    lengths = np.concatenate([each[arm].lengths for each in traces], axis=1)
    starts = range(0, setting.steps, STEPS_A_COLUMN)
    bins = np.arange(1, setting.longest + 2)
    parts = [lengths[start : start + STEPS_A_COLUMN].ravel() for start in starts]
    return np.stack([np.histogram(part, bins)[0] / part.size for part in parts], axis=1)


def _lines(axes: Axes, x: npt.NDArray[np.int64], values: Mapping[Arm, Sequence[Floats]]) -> None:
    """Draws a thin line for each seed and a thick one for their mean."""
    ends: dict[str, tuple[float, str]] = {}
    for arm, of_seeds in values.items():
        mean = np.mean(of_seeds, axis=0)
        axes.plot(x, np.transpose(of_seeds), color=COLOURS[arm], lw=0.8, alpha=0.25)
        axes.plot(x, mean, color=COLOURS[arm], lw=2.5)
        ends[arm] = (float(mean[-1]), COLOURS[arm])
    label_ends(axes, float(x[-1]), ends, spacing=0.07)
    axes.set(xlabel="step", xlim=(0, x[-1]), ylim=(0, FULL))


def _lengths(axes: Axes, arm: Arm, share: Floats, most: float, setting: Setting) -> ScalarMappable:
    image = axes.pcolormesh(
        np.append(np.arange(0, setting.steps, STEPS_A_COLUMN), setting.steps),
        np.arange(0.5, setting.longest + 1),
        share,
        norm=PowerNorm(0.5, 0, most),  # shows small shares
        cmap="YlGnBu",
    )
    axes.grid(False)
    axes.set(title=f"Sums that {arm} selects", xlabel="step")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    return image
