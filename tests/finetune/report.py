"""The report: tables in Markdown, the figures and curves as JSON, and pictures."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.finetune.figures import Figures, Traces, figures
from tests.finetune.job import Job
from tests.finetune.plots import draw_curves, draw_summary
from tests.finetune.setting import ARMS, SHARED, TRL, UNIFORM, Arm, Setting
from tests.finetune.statistics import CONFIDENCE, Interval, effective_ratio, interval
from tests.finetune.tasks import FAMILIES
from tests.finetune.trace import Trace, load


@dataclass(frozen=True)
class Findings:
    """What the report says.

    table   in Markdown.
    ratios  mean effective task ratio by arm.
    """

    table: str
    ratios: Mapping[str, float]


def write(folder: Path, jobs: Sequence[Job]) -> Findings:
    """Writes the report on the trainings that are done into a folder."""
    setting = jobs[0].setting
    traces = read(job for job in jobs if not job.pair)
    found = {arm: figures(traces, arm, setting) for arm in traces}
    parts = [about(found, setting), *(_table(found, columns) for columns in (SUMMARY, LEARNING, BY_FAMILY, SELECTION))]
    shared = sharing(jobs, setting)
    if shared:
        parts.append(sharing_table(shared))
    text = "\n\n".join(parts) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text(text)
    values = {
        "setting": dataclasses.asdict(setting),
        "arms": {
            arm.name: dataclasses.asdict(row) | {"curves": curves(traces[arm], setting)} for arm, row in found.items()
        },
        "shared run": shared,
    }
    (folder / "report.json").write_text(json.dumps(plain(values)) + "\n")
    draw_curves(folder / "curves.png", traces, setting)
    draw_summary(folder / "summary.png", traces, setting)
    return Findings(text, {arm.name: row.ratio.mean for arm, row in found.items()})


def read(jobs: Any) -> Traces:
    """Returns the traces of the jobs that are done, by arm and seed, arms in their order."""
    found: dict[Arm, dict[int, Trace]] = defaultdict(dict)
    for job in jobs:
        if job.done:
            found[job.arm][job.seed] = load(job.file)[0]
    order = [*ARMS, TRL]
    return dict(sorted(found.items(), key=lambda entry: order.index(entry[0])))


def about(found: Mapping[Arm, Figures], setting: Setting) -> str:
    """Returns what was done, in a paragraph."""
    counts = {row.seeds for arm, row in found.items() if arm is not TRL}
    return (
        f"{setting.tasks:,} training tasks, {setting.held_out} held out; {setting.steps} rounds of {setting.batch} "
        f"tasks x {setting.rollouts} rollouts ({setting.budget:,} an arm), learning rate {setting.learning_rate:g}; "
        f"{' to '.join(map(str, sorted({min(counts), max(counts)})))} seeds. Means with {CONFIDENCE:.0%} bootstrap "
        f"intervals over seeds. Gains are over uniform selection of the same seed, whose held-out accuracy at the end "
        f"is {found[UNIFORM].accuracy.written()}."
    )


COLUMNS = tuple[str, Callable[[Figures], str]]

SUMMARY: tuple[COLUMNS, ...] = (
    ("gain in held-out accuracy at the end", lambda row: row.gain.written(sign=True)),
    ("mean over the training", lambda row: row.area_gain.written(sign=True)),
    ("time to baseline", lambda row: row.time_to_baseline.written(2)),
    ("effective task ratio", lambda row: row.ratio.written()),
    ("distinct tasks", lambda row: row.distinct.written(0)),
    ("reference rollouts", lambda row: f"{row.reference_rollouts:,}"),
)
LEARNING: tuple[COLUMNS, ...] = (
    ("held-out accuracy at the end", lambda row: row.accuracy.written()),
    ("gain in greedy accuracy", lambda row: row.greedy_gain.written(sign=True)),
    ("gain in best so far, 25 %", lambda row: row.best_gain["25 %"].written(sign=True)),
    ("50 %", lambda row: row.best_gain["50 %"].written(sign=True)),
    ("100 %", lambda row: row.best_gain["100 %"].written(sign=True)),
    ("baseline never reached", lambda row: f"{row.censored} of {row.seeds}"),
    ("optimiser steps", lambda row: row.updates.written(0)),
)
BY_FAMILY: tuple[COLUMNS, ...] = tuple(
    (f"gain in {family}", lambda row, family=family: row.family_gain[family].written(sign=True))  # type: ignore[misc]
    for family in FAMILIES
)
SELECTION: tuple[COLUMNS, ...] = (
    ("pass rate of the selected", lambda row: row.pass_rate.written()),
    ("correlation", lambda row: row.correlation.written(2)),
    ("AUC", lambda row: row.auc.written(2)),
    ("implicit correlation", lambda row: row.implicit_correlation.written(2)),
    ("implicit AUC", lambda row: row.implicit_auc.written(2)),
    ("correlation over all tasks", lambda row: row.fidelity.written(2)),
    ("calibration error", lambda row: row.calibration.written()),
    ("share of wall-clock", lambda row: row.share.written()),
)


def _table(found: Mapping[Arm, Figures], columns: Sequence[COLUMNS]) -> str:
    head = f"| arm | {' | '.join(name for name, _ in columns)} |\n|---|{'---|' * len(columns)}"
    rows = [f"| {arm.name} | {' | '.join(cell(row) for _, cell in columns)} |" for arm, row in found.items()]
    return "\n".join([head, *rows])


def curves(traces: Mapping[int, Trace], setting: Setting) -> dict[str, Any]:
    """Returns the curves of an arm's seeds, for whoever wants to draw others."""
    return {
        "seeds": list(traces),
        "rounds": next(iter(traces.values())).measured,
        "accuracy": [trace.accuracy for trace in traces.values()],
        "greedy": [trace.greedy for trace in traces.values()],
        "updates": [trace.updates for trace in traces.values()],
        "cells": np.mean([trace.cells[[0, -1]] for trace in traces.values()], axis=0),
        "available": np.mean([trace.available for trace in traces.values()], axis=0),
        "fidelity": np.mean([trace.fidelity for trace in traces.values()], axis=0),
        "capability": np.mean([trace.capability for trace in traces.values()], axis=0),
        "implicit": np.mean([trace.implicit for trace in traces.values()], axis=0),
        "first": np.mean([trace.first for trace in traces.values()], axis=0),
        "calibration": np.mean([trace.calibration for trace in traces.values()], axis=0),
        "effective task ratio": np.mean(
            [effective_ratio(trace.successes, setting.rollouts) for trace in traces.values()], axis=0
        ).round(3),
        "pass rate": (
            np.mean([trace.successes.mean(axis=1) for trace in traces.values()], axis=0) / setting.rollouts
        ).round(3),
    }


def sharing(jobs: Sequence[Job], setting: Setting) -> dict[str, dict[str, Interval]]:
    """Returns the figures of two trainings that share a run, of two that do not, and of their difference, over the
    seeds of which all are done; empty: there are none.
    """
    done = {(job.seed, job.pair): job for job in jobs if job.arm == SHARED and job.done}
    rows: dict[str, list[dict[str, float]]] = {"apart": [], "shared": []}
    for seed in sorted({seed for seed, _ in done}):
        if all((seed, pair) in done for pair in ("", "apart", "shared")):
            both = done[seed, "shared"]
            rows["apart"].append(_pair([load(done[seed, pair].file)[0] for pair in ("", "apart")], setting))
            rows["shared"].append(_pair([load(path)[0] for path in (both.file, both.other_file)], setting))
    if not rows["shared"]:
        return {}
    names = list(rows["shared"][0])
    rows["difference"] = [
        {name: one[name] - other[name] for name in names}
        for one, other in zip(rows["shared"], rows["apart"], strict=True)
    ]
    return {which: {name: interval([row[name] for row in each]) for name in names} for which, each in rows.items()}


def _pair(traces: Sequence[Trace], setting: Setting) -> dict[str, float]:
    half = len(traces[0].tasks) // 2
    return {
        "held-out accuracy at the end": float(np.mean([trace.accuracy[-1] for trace in traces])),
        "mean over the training": float(np.mean([trace.accuracy.mean() for trace in traces])),
        "effective task ratio": float(
            np.mean([effective_ratio(trace.successes, setting.rollouts) for trace in traces])
        ),
        "effective task ratio, first half": float(
            np.mean([effective_ratio(trace.successes[:half], setting.rollouts) for trace in traces])
        ),
        "distinct tasks of both": float(np.unique(np.concatenate([trace.tasks for trace in traces])).size),
        "correlation over all tasks": float(np.mean([trace.fidelity[-1] for trace in traces])),
    }


def sharing_table(shared: Mapping[str, Mapping[str, Interval]]) -> str:
    """Returns the table of the shared run."""
    names = list(shared["shared"])
    head = f"| two trainings, on one run or on two | {' | '.join(names)} |\n|---|{'---|' * len(names)}"
    rows = []
    for which, row in shared.items():
        cells = [row[name].written(0 if "distinct" in name else 3, sign=which == "difference") for name in names]
        rows.append(f"| {which} | {' | '.join(cells)} |")
    return "\n".join([head, *rows])


def rates(jobs: Sequence[Job]) -> str:
    """Returns the table of learning rates for uniform selection."""
    lines = ["| learning rate | held-out accuracy at the end | best | seeds |", "|---|---|---|---|"]
    for rate in sorted({job.setting.learning_rate for job in jobs}):
        found = [load(job.file)[0] for job in jobs if job.setting.learning_rate == rate]
        final, best = (
            interval([trace.accuracy[-1] for trace in found]),
            interval([trace.accuracy.max() for trace in found]),
        )
        lines.append(f"| {rate:g} | {final.written()} | {best.written()} | {len(found)} |")
    return "\n".join(lines)


def plain(value: Any) -> Any:
    """Returns a value as JSON has it: arrays as lists, NaN as null, numbers of at most 5 digits after the point."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {name: plain(entry) for name, entry in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float):
        return round(value, 5) if math.isfinite(value) else None
    return value
