"""A run's summary on a terminal: how hard the tasks are for the policy, and whether selection pays."""

from __future__ import annotations

import math
from datetime import datetime

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bots.cli.console import written
from bots.summary import Evidence, InterpolationSummary, ItemResponseSummary, Summary

BAR = 24
MOST_WEIGHTS = 8
# Shares below 0.1 and above 0.9 are out of reach of learning: the summary's `too_hard` and `solved`.
COLOURS = {"too hard": "red", "in reach": "cyan", "solved": "green"}


def glance(summary: Summary, updates_per_minute: float | None, now: datetime) -> RenderableType:
    """Returns the histogram of posterior means beside the figures, 80 columns wide.

    updates_per_minute  None: not known.
    now                 against which the last report is dated, with its time zone.
    """
    run = summary.run
    head = Text(f"{run.dataset}/{run.name}", style="bold")
    head.append(f"  version {run.version:,}, {summary.updates:,} updates", style="default")
    parts: list[RenderableType] = [
        head,
        Columns([_histogram(summary), _figures(summary, updates_per_minute, now)], padding=(0, 3)),
        Columns([_predictions(summary.recent), _calibration(summary.recent)], padding=(0, 3)),
    ]
    if isinstance(summary.model, ItemResponseSummary):
        if summary.model.inputs_explain_nothing:
            parts.append(Text("the inputs explain nothing: the columns do not tell difficulty", style="yellow"))
        parts.append(_weights(summary.model))
    return Group(*parts)


def _histogram(summary: Summary) -> RenderableType:
    bins = summary.pass_rate_bins
    largest = max(bins, default=0) or 1
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right")
    table.add_column(width=BAR)
    table.add_column(justify="right")
    table.add_column()
    table.add_row("", Text("tasks by pass rate", style="dim"), "", "")
    target = min(int(summary.run.hyperparameters.target * len(bins)), len(bins) - 1)
    for number, tasks in enumerate(bins):
        low = number / len(bins)
        kind = "too hard" if low + 1 / len(bins) <= 0.1 else "solved" if low >= 0.9 else "in reach"
        # A bin that is not empty is seen, however few it has.
        length = max(round(BAR * tasks / largest), 1 if tasks else 0)
        table.add_row(
            Text(f"{low:.2f}"),
            Text("█" * length, style=COLOURS[kind]),
            Text(f"{tasks:,}"),
            Text("◄" if number == target else ""),
        )
    return table


def _figures(summary: Summary, updates_per_minute: float | None, now: datetime) -> RenderableType:
    recent, total = summary.recent, summary.total
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    for name, value in (
        *_of_model(summary.model),
        ("", ""),
        ("effective task ratio", f"{_share(recent.effective_task_ratio)}"),
        ("  of uniform selection", _share(summary.uniform_effective_task_ratio)),
        ("distinct tasks", f"{summary.distinct_tasks:,} ({_share(summary.coverage)})"),
        ("  epochs", written(summary.epochs)),
        ("  resting, retired", f"{summary.resting_tasks:,}, {summary.retired_tasks:,}"),
        ("", ""),
        ("mean pass rate", written(summary.mean_pass_rate)),
        ("  in reach", _share(summary.in_reach)),
        ("  solved (above 0.9)", _share(summary.solved)),
        ("  too hard (below 0.1)", _share(summary.too_hard)),
        ("", ""),
        ("updates per minute", written(updates_per_minute)),
        ("updates, rollouts", f"{total.updates:,.0f}, {total.rollouts:,.0f}"),
        ("evidence per task", written(summary.mean_evidence)),
        ("pending rollouts", f"{summary.pending_rollouts:,.0f}"),
        ("leased tasks", f"{summary.live_leases:,}"),
        ("policy steps late", written(recent.mean_policy_lag)),
        ("last report", _ago(summary.last_report_time, now)),
    ):
        table.add_row(name, Text(value))
    return table


def _of_model(model: InterpolationSummary | ItemResponseSummary) -> list[tuple[str, str]]:
    if isinstance(model, InterpolationSummary):
        return [("capability", "not known yet" if model.capability is None else written(model.capability))]
    return [
        ("ability (logit)", f"{model.ability:+.2f}"),
        ("residual variance", written(model.residual_variance)),
        ("inputs explain", _share(model.explained_share)),
    ]


def _predictions(evidence: Evidence) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("prediction")
    for name in ("error", "correlation", "AUC"):
        table.add_column(name, justify="right")
    for name, accuracy in (
        ("of all tasks", evidence.prediction),
        ("of tasks not seen before", evidence.first_prediction),
        ("without own outcomes", evidence.implicit_prediction),
    ):
        figures = (accuracy.absolute_error, accuracy.correlation, accuracy.auc)
        table.add_row(name, *(Text(written(figure)) for figure in figures))
    return table


def _calibration(evidence: Evidence) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("predicted", "observed", "outcomes"):
        table.add_column(name, justify="right")
    for row in evidence.calibration:
        if row.outcomes > 0:
            table.add_row(f"{row.predicted:.2f}", f"{row.observed:.2f}", f"{row.outcomes:,.0f}")
    return table


def _weights(model: ItemResponseSummary) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("input")
    table.add_column("weight", justify="right")
    table.add_column("", width=BAR)
    largest = max((abs(one.mean) for one in model.weights), default=0.0) or 1.0
    for one in model.weights[:MOST_WEIGHTS]:
        bar = "█" * round(BAR * abs(one.mean) / largest)
        table.add_row(Text(one.input), f"{one.mean:+.2f} ± {one.standard_deviation:.2f}", Text(bar, style="cyan"))
    return table


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1%}"


def _ago(moment: datetime | None, now: datetime) -> str:
    if moment is None:
        return "-"
    seconds = max((now - moment).total_seconds(), 0.0)
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
