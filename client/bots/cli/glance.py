"""A run at a glance: how hard the tasks are for the policy now, what its model learned, and how well it predicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bots.cli.console import counted, written
from bots.summary import Evidence, InputWeight, InterpolationSummary, ItemResponseSummary, Shadow, Summary

BAR = 24
WEIGHT_BAR = 8
MOST_WEIGHTS = 8
BLOCKS = "▁▂▃▄▅▆▇█"
COLOURS = {"too hard": "red", "in reach": "cyan", "solved": "green"}
NOTHING_EXPLAINED = "The inputs explain nothing: the dataset's columns do not tell how hard its tasks are."


def glance(
    summary: Summary, updates_per_minute: float | None, now: datetime, trend: Sequence[float] = ()
) -> RenderableType:
    """Returns the histogram of posterior means, the figures, the model, its predictions and its calibration.

    updates_per_minute  None: not known.
    now                 with its time zone; the age of the last report is relative to it.
    trend               values of `position` up to now, oldest first.
    """
    run = summary.run
    head = Text(f"{run.dataset}/{run.name}", style="bold")
    head.append(f"  {run.model}, version {run.version:,}, {counted(summary.updates, 'update')}", style="default")
    tables = [_predictions(summary.recent), _calibration(summary.recent)]
    if isinstance(summary.model, ItemResponseSummary) and summary.model.weights:
        tables.append(_weights(summary.model.weights))
    if summary.total.shadow.outcomes:
        tables.append(_shadow(summary.total.shadow))
    return Group(
        head,
        Columns([_histogram(summary), _figures(summary, updates_per_minute, now)], padding=(0, 3)),
        Text(),
        _model(summary.model, trend),
        Text(),
        Columns(tables, padding=(0, 3, 1, 0)),
    )


def position(summary: Summary) -> float | None:
    """Returns the ability (item_response) or the capability (interpolation; None: not known yet) of the policy."""
    return summary.model.ability if isinstance(summary.model, ItemResponseSummary) else summary.model.capability


def sparkline(values: Sequence[float]) -> str:
    """Returns a block for each value, its height from the least value to the greatest."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((value - low) * scale)] for value in values)


def _histogram(summary: Summary) -> RenderableType:
    bins = summary.pass_rate_bins
    largest = max(bins, default=0) or 1
    table = _table("", "tasks by pass rate", "", "", left=2)
    target = min(int((summary.run.hyperparameters.target or 0.0) * len(bins)), len(bins) - 1)
    for number, tasks in enumerate(bins):
        low = number / len(bins)
        kind = "too hard" if low + 1 / len(bins) <= 0.1 else "solved" if low >= 0.9 else "in reach"
        # A bin that is not empty is visible, however few tasks it has.
        length = max(round(BAR * tasks / largest), 1 if tasks else 0)
        bar = Text("█" * length + " " * (BAR - length), style=COLOURS[kind])
        table.add_row(f"{low:.2f}", bar, f"{tasks:,}", "◄" if number == target else "")
    return table


def _figures(summary: Summary, updates_per_minute: float | None, now: datetime) -> RenderableType:
    recent = summary.recent
    table = _table("", "")
    for name, value in (
        ("effective task ratio", _share(recent.effective_task_ratio)),
        ("  of uniform selection", _share(summary.uniform_effective_task_ratio)),
        ("distinct tasks", f"{summary.distinct_tasks:,}"),
        ("  coverage", _share(summary.coverage)),
        ("epochs", written(summary.epochs)),
        ("resting tasks", f"{summary.resting_tasks:,}"),
        ("retired tasks", f"{summary.retired_tasks:,}"),
        ("leased tasks", f"{summary.live_leases:,}"),
        ("", ""),
        ("mean pass rate", written(summary.mean_pass_rate)),
        ("in reach", _share(summary.in_reach)),
        ("solved (above 0.9)", _share(summary.solved)),
        ("too hard (below 0.1)", _share(summary.too_hard)),
        ("", ""),
        ("updates per minute", written(updates_per_minute)),
        ("rollouts", f"{summary.total.rollouts:,.0f}"),
        ("pending rollouts", f"{summary.pending_rollouts:,.0f}"),
        ("policy steps late", written(recent.mean_policy_lag)),
        ("last report", _ago(summary.last_report_time, now)),
    ):
        table.add_row(name, value)
    return table


def _model(model: InterpolationSummary | ItemResponseSummary, trend: Sequence[float]) -> RenderableType:
    if isinstance(model, InterpolationSummary):
        return Text(f"capability {written(model.capability)}  {sparkline(trend)}")
    text = Text(f"ability {model.ability:+.2f} (logit)  {sparkline(trend)}\n")
    text.append(f"difficulty: {_share(model.explained_share)} explained by the inputs, ")
    text.append(f"residual variance {written(model.residual_variance)}")
    if model.inputs_explain_nothing:
        text.append(f"\n{NOTHING_EXPLAINED}", style="yellow")
    return text


def _predictions(recent: Evidence) -> RenderableType:
    table = _table("predictions of recent outcomes", "error", "correlation", "AUC")
    for name, accuracy in (
        ("all tasks", recent.prediction),
        ("tasks never tried", recent.first_prediction),
        ("without the task's outcomes", recent.implicit_prediction),
    ):
        values = (accuracy.absolute_error, accuracy.correlation, accuracy.auc)
        table.add_row(name, *("-" if math.isnan(value) else f"{value:.3f}" for value in values))
    return table


def _calibration(recent: Evidence) -> RenderableType:
    table = _table("calibration", "predicted", "observed", "outcomes")
    bins = len(recent.calibration)
    for number, each in enumerate(recent.calibration):
        if each.outcomes >= 0.5:  # weights decay, so old outcomes count less than one
            label = f"{number / bins:.1f} to {(number + 1) / bins:.1f}"
            table.add_row(label, f"{each.predicted:.2f}", f"{each.observed:.2f}", f"{each.outcomes:,.0f}")
    return table


def _weights(weights: Sequence[InputWeight]) -> RenderableType:
    """Returns the inputs of the largest weights. A positive weight makes tasks easier."""
    table = _table("inputs (+: easier, -: harder)", "", "weight", left=2)
    largest = max(abs(weight.mean) for weight in weights) or 1.0
    for weight in weights[:MOST_WEIGHTS]:
        bar = Text("█" * round(WEIGHT_BAR * abs(weight.mean) / largest), style="green" if weight.mean > 0 else "red")
        table.add_row(Text(written(weight.input)), bar, f"{weight.mean:+.2f} ± {weight.standard_deviation:.2f}")
    return table


def _shadow(shadow: Shadow) -> RenderableType:
    """Returns the trainer's own selection beside what the run would have selected, by predicted effectiveness."""
    table = _table("shadow mode", "trainer's tasks", "effective", "BOTS would select")
    for number, each in enumerate(shadow.bins):
        if each.outcomes or each.selected:
            shares = each.outcomes / shadow.outcomes, each.effective_task_ratio, each.selected / shadow.selected
            label = f"{number / len(shadow.bins):.1f} to {(number + 1) / len(shadow.bins):.1f}"
            table.add_row(label, *map(_share, shares))
    own = f"{shadow.effective_task_ratio:.3f} ± {shadow.standard_error:.3f}"
    theirs = f"{shadow.selected_effective_task_ratio:.3f} ± {shadow.selected_standard_error:.3f}"
    table.add_row("ratio of all", "", own, theirs)
    return table


def _table(*titles: str, left: int = 1) -> Table:
    """Returns an empty table without lines; the columns after the first `left` are justified to the right."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", show_header=any(titles))
    for place, title in enumerate(titles):
        table.add_column(title, justify="left" if place < left else "right")
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
