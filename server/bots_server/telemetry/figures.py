"""What is exported of a run: tables of the metric's name -> (help, value). `metrics.py` has all the others."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bots_server.core.hyperparameters import of_model
from bots_server.core.posterior import Posterior
from bots_server.core.statistics import Figures
from bots_server.core.summary import Summary


@dataclass(frozen=True, slots=True, eq=False)
class ObservedRun:
    """A run as a scrape sees it."""

    dataset: str
    name: str
    uid: str
    posterior: Posterior
    summary: Summary
    live_leases: int

    @property
    def labels(self) -> tuple[str, str]:
        """Returns the values of the labels `dataset` and `run`."""
        return self.dataset, self.name


def _learned(figure: str) -> Callable[[ObservedRun], float]:
    """Returns the reader of a figure of the run's model; NaN if it is not known, or of the other model."""

    def read(run: ObservedRun) -> float:
        value = getattr(run.summary.learned, figure, None)
        return math.nan if value is None else float(value)

    return read


# What a run is now. NaN (not known) is not exported.
GAUGES: dict[str, tuple[str, Callable[[ObservedRun], float]]] = {
    "version": ("Events of the run.", lambda r: r.posterior.version),
    "capability": ("kappa, from the weak (0) to the strong (1) reference. interpolation only.", _learned("capability")),
    "ability": ("Mean predicted logit over all tasks. item_response only.", _learned("ability")),
    "residual_variance": (
        "Variance of a task's own difficulty that the inputs do not explain, in logits. item_response only.",
        _learned("residual_variance"),
    ),
    "explained_ratio": (
        "Share of the variance of predicted difficulty that the inputs explain. item_response only.",
        _learned("explained_share"),
    ),
    "inputs_explain_nothing": (
        "1: after enough outcomes the dataset's columns do not tell difficulty. item_response only.",
        _learned("inputs_explain_nothing"),
    ),
    "pending_rollouts": ("Rollouts that wait for the update they belong to.", lambda r: r.summary.pending_rollouts),
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
    "last_report_timestamp_seconds": ("Newest report; 0: none.", lambda r: r.posterior.last_report_time_ms / 1000),
    "uniform_effective_task_ratio": (
        "Effective task ratio that uniform selection would get now, expected under the posterior.",
        lambda r: r.summary.uniform_effective_task_ratio,
    ),
}

# Figures of recent updates, as `bots_run_recent_*`.
RECENT: dict[str, tuple[str, Callable[[Figures], float]]] = {
    "effective_task_ratio": ("Share of outcomes whose rewards were not all equal.", lambda f: f.effective_task_ratio),
    "shadow_effective_task_ratio": (
        "Shadow mode: effective task ratio of the trainer's own selection.",
        lambda f: f.shadow.effective_task_ratio,
    ),
    "shadow_selected_effective_task_ratio": (
        "Shadow mode: of the selection that the run would have made in its place, estimated.",
        lambda f: f.shadow.selected_effective_task_ratio,
    ),
    "shadow_selected_standard_error": (
        "Standard error of that estimate (an upper bound).",
        lambda f: f.shadow.selected_standard_error,
    ),
    "absolute_error": ("Mean |posterior mean - observed pass rate|.", lambda f: f.prediction.absolute_error),
    "implicit_correlation": (
        "Correlation of the implicit prediction with the observed pass rate.",
        lambda f: f.implicit_prediction.correlation,
    ),
    "implicit_auc": (
        "Area under the ROC curve of the implicit prediction as a score for a rollout's success.",
        lambda f: f.implicit_prediction.auc,
    ),
    "policy_lag_steps": ("Mean policy steps between selection and report.", lambda f: f.mean_policy_lag),
}


def _sum(mean: float, weight: float) -> float:
    """Returns the sum behind a mean; 0 if there is nothing yet."""
    return mean * weight if weight else 0.0


# Sums over the updates since the run began. increase() and division make windows of them.
SUMS: dict[str, tuple[str, Callable[[Figures], float]]] = {
    "updates": ("Updates.", lambda f: f.updates),
    "outcomes": ("Outcomes: tasks in the updates.", lambda f: f.outcomes),
    "rollouts": ("Rollouts of the outcomes.", lambda f: f.rollouts),
    "successes": ("Successes among the rollouts.", lambda f: f.successes),
    "effective_outcomes": (
        "Outcomes whose rewards were not all equal.",
        lambda f: _sum(f.effective_task_ratio, f.outcomes),
    ),
    "absolute_error": (
        "Sum over outcomes of |posterior mean before the outcome - observed pass rate|.",
        lambda f: _sum(f.prediction.absolute_error, f.outcomes),
    ),
    "squared_error": ("Sum over outcomes of its square.", lambda f: _sum(f.prediction.brier_score, f.outcomes)),
    "implicit_outcomes": (
        "Outcomes with an implicit prediction, which does not use the task's own outcomes.",
        lambda f: f.implicit_prediction.outcomes,
    ),
    "implicit_absolute_error": (
        "Sum over them of |that prediction - observed pass rate|.",
        lambda f: _sum(f.implicit_prediction.absolute_error, f.implicit_prediction.outcomes),
    ),
}

# What this server did for a run: help.
COUNTED = {
    "selections": "Selections that this server answered.",
    "selected_tasks": "Tasks in them.",
    "restores": "Restores that this server folded, and did not read from a snapshot (take the max over servers).",
    "undos": "Undone reports that this server folded, likewise (take the max).",
    "outlier_reports": "Reports that this server stored and that were far outside what the run had seen.",
    "hyperparameter_changes": "Changes of hyperparameters that this server folded, likewise (take the max).",
}


def _bins(values: Sequence[float]) -> dict[str, float]:
    return {f"{number / len(values):.2f}": value for number, value in enumerate(values)}


_LOWER_EDGE = "pass_rate is the lower edge of a bin that reaches to the next."

# What a run is now, with a label of its own: help, name of the label, and the number by value of the label.
LABELLED: dict[str, tuple[str, str, Callable[[ObservedRun], Mapping[str, float]]]] = {
    "tasks": (
        f"Tasks by posterior mean; {_LOWER_EDGE}",
        "pass_rate",
        lambda r: _bins(r.summary.pass_rate_bins.tolist()),
    ),
    "recent_predicted_pass_rate": (
        f"Mean predicted pass rate of recent outcomes, by predicted pass rate; {_LOWER_EDGE}",
        "pass_rate",
        lambda r: _bins([one.predicted for one in r.summary.recent.calibration]),
    ),
    "recent_observed_pass_rate": (
        f"Mean observed pass rate of recent outcomes, by predicted pass rate; {_LOWER_EDGE}",
        "pass_rate",
        lambda r: _bins([one.observed for one in r.summary.recent.calibration]),
    ),
    "hyperparameter": (
        "Hyperparameters of the run.",
        "hyperparameter",
        lambda r: of_model(r.posterior.model, r.posterior.hyperparameters),
    ),
    "tag_mean_pass_rate": (
        "Mean of the posterior means over a tag's tasks.",
        "tag",
        lambda r: {one.tag: one.mean_pass_rate for one in r.summary.tags},
    ),
}
