"""A run at a glance: how hard the data is for the policy now, and whether selection pays."""

from __future__ import annotations

import math
from datetime import datetime

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bots.cli.console import written
from bots.summary import Summary

BAR = 24
# Shares below 0.1 and above 0.9 are out of reach of learning: the summary's `unsolvable` and `solved`.
COLOURS = {"unsolvable": "red", "in reach": "cyan", "solved": "green"}


def glance(summary: Summary, reports_per_minute: float | None, now: datetime) -> RenderableType:
    """Returns the histogram of posterior means beside the figures, 80 columns wide.

    reports_per_minute  None: not known.
    now                 against which the last report is dated, with its time zone.
    """
    run = summary.run
    head = Text(f"{run.dataset}/{run.name}", style="bold")
    head.append(f"  version {run.version:,}, {summary.updates:,} updates", style="default")
    return Group(head, Columns([_histogram(summary), _figures(summary, reports_per_minute, now)], padding=(0, 3)))


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
        kind = "unsolvable" if low + 1 / len(bins) <= 0.1 else "solved" if low >= 0.9 else "in reach"
        # A bin that is not empty is seen, however few it has.
        length = max(round(BAR * tasks / largest), 1 if tasks else 0)
        table.add_row(
            Text(f"{low:.2f}"),
            Text("█" * length, style=COLOURS[kind]),
            Text(f"{tasks:,}"),
            Text("◄" if number == target else ""),
        )
    return table


def _figures(summary: Summary, reports_per_minute: float | None, now: datetime) -> RenderableType:
    recent = summary.recent
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    figures = (
        ("capability", written(summary.capability)),
        ("mean pass rate", written(summary.mean_pass_rate)),
        ("in reach", _share(summary.in_reach)),
        ("solved (above 0.9)", _share(summary.solved)),
        ("unsolvable (below 0.1)", _share(summary.unsolvable)),
        ("", ""),
        ("effective task ratio", _share(recent.effective_task_ratio)),
        ("  of uniform selection", _share(summary.uniform_effective_task_ratio)),
        ("prediction error", written(recent.absolute_error)),
        ("  correlation", written(recent.correlation)),
        ("  of implicit evidence", written(recent.implicit_absolute_error)),
        ("  its AUC", written(recent.implicit_auc)),
        ("policy steps late", written(recent.mean_policy_lag)),
        ("", ""),
        ("reports per minute", written(reports_per_minute)),
        ("reports", f"{summary.total.reports:,.0f}"),
        ("rollouts", f"{summary.total.rollouts:,.0f}"),
        ("tasks tried", f"{summary.tried_tasks:,.0f}"),
        ("evidence per task", written(summary.mean_evidence)),
        ("pending rollouts", f"{summary.pending_rollouts:,.0f}"),
        ("leased tasks", f"{summary.live_leases:,}"),
        ("last report", _ago(summary.last_report_time, now)),
    )
    for name, value in figures:
        table.add_row(name, Text(value))
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
