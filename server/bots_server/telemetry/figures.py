"""What is exported of a run: tables of metric's name -> (help, value). `metrics.py` has all the others."""

import math
from collections.abc import Callable

from bots_server.core.interpolation import InterpolationSummary
from bots_server.core.item_response import ItemResponseSummary
from bots_server.core.statistics import Accuracy, Figures
from bots_server.telemetry.collector import ObservedRun

# What this server did for a run: field of the counts, help.
COUNTED = {
    "selections": "Selections that this server answered.",
    "selected_tasks": "Tasks in them.",
    "restores": "Restores that this server folded, and did not read from a snapshot (take the max over servers).",
    "undos": "Undone reports that this server folded, likewise (take the max).",
    "outlier_reports": "Reports that this server stored and that were far outside what the run had seen.",
    "hyperparameter_changes": "Changes of hyperparameters that this server folded, likewise (take the max).",
}


def _capability(run: ObservedRun) -> float:
    """Returns kappa; NaN if it is not known or the run has another model."""
    learned = run.summary.learned
    if isinstance(learned, InterpolationSummary) and learned.capability is not None:
        return learned.capability
    return math.nan


def _item_response(field: str) -> Callable[[ObservedRun], float]:
    """Returns the reader of a figure of item_response; NaN if the run has another model."""
    return lambda run: (
        float(getattr(run.summary.learned, field)) if isinstance(run.summary.learned, ItemResponseSummary) else math.nan
    )


def _recent(kind: str, field: str) -> Callable[[ObservedRun], float]:
    """Returns the reader of a recent figure of one kind of prediction, or of shadow mode."""
    return lambda run: float(getattr(getattr(run.summary.recent, kind), field))


# What a run is now: help, and the value; NaN (not known) is not exported.
GAUGES: dict[str, tuple[str, Callable[[ObservedRun], float]]] = {
    "version": ("Events of the run.", lambda r: r.posterior.version),
    "capability": (
        "kappa: the policy between the weak (0) and the strong (1) reference. interpolation only.",
        _capability,
    ),
    "ability": ("Mean predicted logit over all tasks. item_response only.", _item_response("ability")),
    "residual_variance": (
        "Variance of a task's own difficulty that the inputs do not explain, in logits. item_response only.",
        _item_response("residual_variance"),
    ),
    "explained_ratio": (
        "Share of the variance of predicted difficulty that the inputs explain. item_response only.",
        _item_response("explained_share"),
    ),
    "inputs_explain_nothing": (
        "1: after enough outcomes the dataset's columns do not tell difficulty. item_response only.",
        _item_response("inputs_explain_nothing"),
    ),
    "pending_rollouts": (
        "Rollouts that wait for the update they belong to.",
        lambda r: r.summary.pending_rollouts,
    ),
    "mean_pass_rate": ("Mean of the posterior means over all tasks.", lambda r: r.summary.mean_pass_rate),
    "solved_ratio": ("Share of tasks with posterior mean above 0.9.", lambda r: r.summary.solved),
    "too_hard_ratio": ("Share of tasks with posterior mean below 0.1.", lambda r: r.summary.too_hard),
    "in_reach_ratio": ("Share of tasks with posterior mean from 0.1 to 0.9.", lambda r: r.summary.in_reach),
    "mean_evidence_rollouts": ("Mean of alpha + beta over tasks, less the prior's.", lambda r: r.summary.mean_evidence),
    "distinct_tasks": ("Distinct tasks evaluated since the run began.", lambda r: r.summary.distinct_tasks),
    "coverage_ratio": ("Their share of the dataset.", lambda r: r.summary.coverage),
    "resting_tasks": ("Tasks that rest after an evaluation.", lambda r: r.summary.resting_tasks),
    "retired_tasks": ("Tasks that are retired.", lambda r: r.summary.retired_tasks),
    "leases": ("Leases that are alive.", lambda r: r.live_leases),
    "last_report_timestamp_seconds": (
        "Time of the newest report; 0: none.",
        lambda r: r.posterior.last_report_time_ms / 1000,
    ),
    "uniform_effective_task_ratio": (
        "Effective task ratio that uniform selection would get now, expected under the posterior.",
        lambda r: r.summary.uniform_effective_task_ratio,
    ),
    "recent_effective_task_ratio": (
        "Share of recent outcomes whose rollouts did not all get the same reward.",
        lambda r: r.summary.recent.effective_task_ratio,
    ),
    "recent_shadow_effective_task_ratio": (
        "Shadow mode: effective task ratio of the trainer's own selection, recently.",
        _recent("shadow", "effective_task_ratio"),
    ),
    "recent_shadow_selected_effective_task_ratio": (
        "Shadow mode: of the selection that the run would have made in its place, estimated.",
        _recent("shadow", "selected_effective_task_ratio"),
    ),
    "recent_shadow_selected_standard_error": (
        "Standard error of that estimate (an upper bound).",
        _recent("shadow", "selected_standard_error"),
    ),
    "recent_absolute_error": (
        "Mean distance of the posterior mean before the outcome from the observed pass rate, recently.",
        _recent("prediction", "absolute_error"),
    ),
    "recent_implicit_correlation": ("Correlation for it, recently.", _recent("implicit_prediction", "correlation")),
    "recent_implicit_auc": (
        "Area under the ROC curve of that prediction as a score for a rollout's success, recently.",
        _recent("implicit_prediction", "auc"),
    ),
    "recent_policy_lag_steps": (
        "Mean policy steps between selection and report, recently, over reports that state both.",
        lambda r: r.summary.recent.mean_policy_lag,
    ),
}


def _sum(mean: float, weight: float) -> float:
    """Returns the sum behind a mean; 0 if there is nothing yet."""
    return mean * weight if weight else 0.0


def _error(of: Accuracy, field: str) -> float:
    return _sum(getattr(of, field), of.outcomes)


# Sums of the updates since the run began: help, and the sum. increase() and division make windows of them.
SUMS: dict[str, tuple[str, Callable[[Figures], float]]] = {
    "updates": ("Updates.", lambda a: a.updates),
    "outcomes": ("Outcomes: tasks in the updates.", lambda a: a.outcomes),
    "rollouts": ("Rollouts of the outcomes.", lambda a: a.rollouts),
    "successes": ("Successes among the rollouts.", lambda a: a.successes),
    "effective_outcomes": (
        "Outcomes whose rollouts did not all get the same reward.",
        lambda a: _sum(a.effective_task_ratio, a.outcomes),
    ),
    "absolute_error": (
        "Sum over outcomes of |posterior mean before the outcome - observed pass rate|.",
        lambda a: _error(a.prediction, "absolute_error"),
    ),
    "squared_error": ("Sum over outcomes of its square.", lambda a: _error(a.prediction, "brier_score")),
    "implicit_outcomes": (
        "Outcomes with a prediction that does not use the task's own outcomes.",
        lambda a: a.implicit_prediction.outcomes,
    ),
    "implicit_absolute_error": (
        "Sum over them of |that prediction - observed pass rate|.",
        lambda a: _error(a.implicit_prediction, "absolute_error"),
    ),
}
