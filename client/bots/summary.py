"""How hard the tasks are for the policy, and how well the model predicts it; task_selection.proto has each field."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from bots.records import record
from bots.resources import RunInfo
from bots.v1 import task_selection_pb2 as pb


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How well pass rates were predicted before their outcomes were known; NaN if there are no outcomes."""

    outcomes: float
    absolute_error: float
    brier_score: float
    correlation: float
    auc: float


@dataclass(frozen=True, kw_only=True)
class CalibrationBin:
    """Outcomes in one tenth of the predicted pass rates: mean predicted and mean observed pass rate."""

    outcomes: float
    predicted: float
    observed: float


@dataclass(frozen=True, kw_only=True)
class ShadowBin:
    """Tasks in one tenth of the predicted effectiveness.

    outcomes, effective_task_ratio  of the trainer's tasks.
    selected, predicted             number of tasks that the run would have selected, and their mean prediction.
    """

    outcomes: float
    selected: float
    effective_task_ratio: float
    predicted: float


@dataclass(frozen=True, kw_only=True)
class Shadow:
    """A trainer's own selection, and what the run would have selected; NaN (except the counts) if it was not reported.

    outcomes              of the trainer's tasks.
    selected              number of tasks that the run would have selected in their place.
    effective_task_ratio, standard_error
                          of the outcomes.
    selected_effective_task_ratio, selected_standard_error
                          of the tasks that the run would have selected, estimated.
    unsupported           share of those for which the trainer had no task with the same prediction.
    bins                  by predicted effectiveness, 10 bins of equal width from 0 to 1.
    """

    outcomes: float
    selected: float
    effective_task_ratio: float
    standard_error: float
    selected_effective_task_ratio: float
    selected_standard_error: float
    unsupported: float
    bins: tuple[ShadowBin, ...]

    def __str__(self) -> str:
        own = f"{self.effective_task_ratio:.3f} +- {self.standard_error:.3f}"
        theirs = f"{self.selected_effective_task_ratio:.3f} +- {self.selected_standard_error:.3f}"
        return (
            f"effective task ratio {own}; of what BOTS would have selected, an estimated {theirs} "
            f"({self.outcomes:,.0f} outcomes, {self.unsupported:.0%} of the estimate without comparison)"
        )


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Sums of updates; NaN (except the counts) if there are none.

    effective_task_ratio  share of outcomes whose rollouts did not all get the same reward.
    prediction            of the posterior mean before the outcome.
    first_prediction      the same, of tasks not evaluated before.
    implicit_prediction   of the prediction without the task's own outcomes.
    mean_policy_lag       policy steps between selection and report.
    shadow                of reports with `shadow=`.
    """

    updates: float
    outcomes: float
    rollouts: float
    successes: float
    effective_task_ratio: float
    prediction: Accuracy
    first_prediction: Accuracy
    implicit_prediction: Accuracy
    calibration: tuple[CalibrationBin, ...]
    mean_policy_lag: float
    shadow: Shadow


@dataclass(frozen=True, kw_only=True)
class TagSummary:
    """The tasks of one tag."""

    tag: str
    tasks: int
    mean_pass_rate: float


@dataclass(frozen=True, kw_only=True)
class InterpolationSummary:
    """capability: the policy's position between the weak (0) and the strong (1) reference; None: not known yet."""

    capability: float | None


@dataclass(frozen=True, kw_only=True)
class InputWeight:
    """Posterior mean and standard deviation of the weight of "reference:NAME", "tag:TAG" or "feature:NAME"."""

    input: str
    mean: float
    standard_deviation: float


@dataclass(frozen=True, kw_only=True)
class ItemResponseSummary:
    """ability: mean predicted logit. explained_share: share of the variance of difficulty that the inputs explain."""

    ability: float
    residual_variance: float
    explained_share: float
    inputs_explain_nothing: bool
    weights: tuple[InputWeight, ...]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How hard the tasks are for the policy now, and how well the model predicts it.

    updates                       updates applied.
    model                         the summary of the run's model.
    pass_rate_bins                tasks by posterior mean, 20 bins of equal width from 0 to 1.
    solved, too_hard, in_reach    shares of tasks with posterior mean above 0.9, below 0.1, and between.
    mean_evidence                 mean of alpha + beta over tasks, less the prior's.
    distinct_tasks, coverage      tasks evaluated since the run began, and their share of the dataset.
    epochs                        evaluations divided by tasks.
    total, recent                 since the run began, and recently (each update weighs 63/64 of the one after it).
    uniform_effective_task_ratio  the ratio that uniform selection would get, expected under the posterior.
    tags                          the 50 largest tags.
    live_leases                   tasks leased now.
    last_report_time              None: no report yet.
    """

    run: RunInfo
    updates: int
    model: InterpolationSummary | ItemResponseSummary
    pending_rollouts: float
    pass_rate_bins: tuple[int, ...]
    mean_pass_rate: float
    solved: float
    too_hard: float
    in_reach: float
    mean_evidence: float
    deviating_tasks: int
    distinct_tasks: int
    coverage: float
    epochs: float
    resting_tasks: int
    retired_tasks: int
    total: Evidence
    recent: Evidence
    uniform_effective_task_ratio: float
    tags: tuple[TagSummary, ...]
    live_leases: int
    last_report_time: datetime | None

    @property
    def capability(self) -> float | None:
        """The policy's position between the weak and the strong reference; None: unknown, or another model."""
        return self.model.capability if isinstance(self.model, InterpolationSummary) else None

    @classmethod
    def of(cls, message: pb.RunSummary) -> Summary:
        """Returns what the message says."""
        model: InterpolationSummary | ItemResponseSummary
        if message.WhichOneof("model") == "item_response":
            model = record(ItemResponseSummary, message.item_response)
        else:
            model = record(InterpolationSummary, message.interpolation)
        # An evidence that is absent reads as an empty message.
        return record(
            cls,
            message,
            run=RunInfo.of(message.run),
            model=model,
            total=_evidence(message.total),
            recent=_evidence(message.recent),
        )


def _evidence(message: pb.Evidence) -> Evidence:
    return record(
        Evidence,
        message,
        prediction=record(Accuracy, message.prediction),
        first_prediction=record(Accuracy, message.first_prediction),
        implicit_prediction=record(Accuracy, message.implicit_prediction),
        shadow=record(Shadow, message.shadow),
    )
