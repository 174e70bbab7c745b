"""The pictures of the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bots.replay.style import smooth, style
from tests.finetune.figures import Traces
from tests.finetune.setting import (
    DYNAMIC,
    EXPLICIT,
    INTERPOLATION,
    REFERENCES,
    TAGS,
    TAGS_LENGTH,
    TEXT,
    TRL,
    UNIFORM,
    Arm,
    Setting,
)
from tests.finetune.statistics import effective_ratio
from tests.finetune.trace import Floats, Trace

COLOURS: Mapping[str, str] = {
    UNIFORM.name: "#7a4ea3",
    DYNAMIC.name: "#8c8c8c",
    EXPLICIT.name: "#c0392b",
    INTERPOLATION.name: "#d98e04",
    REFERENCES.name: "#1f6fb2",
    TAGS.name: "#5aa469",
    TAGS_LENGTH.name: "#0b6e4f",
    TEXT.name: "#00a3a3",
}


def draw_curves(path: Path, traces: Traces, setting: Setting) -> None:
    """Writes the curves of all arms: on the left those with the default rest, on the right those without rest."""
    rows: tuple[tuple[str, str, Callable[[Axes, Arm, Mapping[int, Trace]], None]], ...] = (
        ("Held-out accuracy", "steps of the optimiser", _by_updates),
        (
            "Held-out accuracy",
            "rollouts, references counted",
            lambda axes, arm, of: _by_rollouts(axes, arm, of, setting),
        ),
        ("Effective task ratio (mean over 15 rounds)", "round", lambda axes, arm, of: _ratio(axes, arm, of, setting)),
        (
            "Pass rate of the selected (dotted: target)",
            "round",
            lambda axes, arm, of: _pass_rate(axes, arm, of, setting),
        ),
        ("Distinct tasks", "round", _distinct),
        ("Correlation of posterior mean and true pass rate", "round", _fidelity),
        ("Observed by predicted pass rate", "predicted", _calibration),
    )
    with style():
        figure = Figure(figsize=(13, 4 * len(rows)), layout="constrained")
        grid = figure.subplots(len(rows), 2, sharey="row", squeeze=False)
        for (title, label, draw), panels in zip(rows, grid, strict=True):
            for axes, rests in zip(panels, (True, False), strict=True):
                for arm, of_seeds in traces.items():
                    if arm is not TRL and (arm.way != "service" or (arm.rest is None) == rests):
                        draw(axes, arm, of_seeds)
                axes.set(title=f"{title}, {'with' if rests else 'without'} rest", xlabel=label)
                if draw is rows[3][2]:
                    axes.axhline(0.5, color="black", lw=0.8, ls=":")
                if draw is _calibration:
                    axes.plot([0, 1], [0, 1], color="black", lw=0.8, ls=":")
        for axes in grid[0]:
            axes.legend(fontsize=8)
        figure.savefig(path, dpi=110)


def draw_summary(path: Path, traces: Traces, setting: Setting) -> None:
    """Writes the small picture: paired gain in held-out accuracy, and effective task ratio, of the arms with rest."""
    with style():
        figure = Figure(figsize=(11, 4), layout="constrained")
        gain, ratio = figure.subplots(1, 2)
        for arm, of_seeds in traces.items():
            if arm is TRL or arm.rest is not None:
                continue
            _ratio(ratio, arm, of_seeds, setting)
            if arm is not UNIFORM:
                pairs = [
                    trace.accuracy - traces[UNIFORM][seed].accuracy
                    for seed, trace in of_seeds.items()
                    if seed in traces[UNIFORM]
                ]
                if pairs:
                    _line(gain, setting.measured.astype(float), arm, pairs)
        gain.axhline(0, color=COLOURS[UNIFORM.name], lw=1)
        gain.set(
            title="Held-out accuracy less uniform's (band: standard error)", xlabel="round of 8 tasks x 16 rollouts"
        )
        ratio.set(title="Effective task ratio", xlabel="round")
        figure.legend(*ratio.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
        figure.savefig(path, dpi=80)


def _line(axes: Axes, x: Floats, arm: Arm, of_seeds: list[Floats]) -> None:
    mean = np.mean(of_seeds, axis=0)
    colour = COLOURS[arm.name.removesuffix(", no rest")]
    axes.plot(x, mean, color=colour, lw=1.8, label=arm.name)
    if len(of_seeds) > 1:
        error = np.std(of_seeds, axis=0, ddof=1) / np.sqrt(len(of_seeds))
        axes.fill_between(x, mean - error, mean + error, color=colour, alpha=0.12, lw=0)


def _by_updates(axes: Axes, arm: Arm, traces: Mapping[int, Trace]) -> None:
    updates = np.mean([trace.updates for trace in traces.values()], axis=0)
    _line(axes, updates, arm, [trace.accuracy for trace in traces.values()])


def _by_rollouts(axes: Axes, arm: Arm, traces: Mapping[int, Trace], setting: Setting) -> None:
    spent = setting.measured * setting.batch * setting.rollouts + arm.reference_cost(setting)
    _line(axes, spent.astype(float), arm, [trace.accuracy for trace in traces.values()])


def _ratio(axes: Axes, arm: Arm, traces: Mapping[int, Trace], setting: Setting) -> None:
    of_seeds = [smooth(effective_ratio(trace.successes, setting.rollouts)) for trace in traces.values()]
    _line(axes, np.arange(float(setting.steps)), arm, of_seeds)


def _pass_rate(axes: Axes, arm: Arm, traces: Mapping[int, Trace], setting: Setting) -> None:
    of_seeds = [smooth(trace.successes.mean(axis=1) / setting.rollouts) for trace in traces.values()]
    _line(axes, np.arange(float(setting.steps)), arm, of_seeds)


def _distinct(axes: Axes, arm: Arm, traces: Mapping[int, Trace]) -> None:
    of_seeds = []
    for trace in traces.values():
        first = np.unique(trace.tasks.ravel(), return_index=True)[1] // trace.tasks.shape[1]
        of_seeds.append(np.cumsum(np.bincount(first, minlength=len(trace.tasks))).astype(float))
    _line(axes, np.arange(len(of_seeds[0]), dtype=float), arm, of_seeds)


def _fidelity(axes: Axes, arm: Arm, traces: Mapping[int, Trace]) -> None:
    if arm.way == "service":
        measured = next(iter(traces.values())).measured
        _line(axes, measured[1:].astype(float), arm, [trace.fidelity[1:] for trace in traces.values()])


def _calibration(axes: Axes, arm: Arm, traces: Mapping[int, Trace]) -> None:
    if arm.way == "service":
        bins = np.stack([trace.calibration for trace in traces.values()])
        counts = bins[:, :, 0].sum(axis=0)
        sums = np.nansum(bins[:, :, 1:] * bins[:, :, :1], axis=0)
        known = counts > 0
        colour = COLOURS[arm.name.removesuffix(", no rest")]
        axes.plot(*(sums[known] / counts[known, None]).T, color=colour, lw=1.5, marker="o", ms=3)
