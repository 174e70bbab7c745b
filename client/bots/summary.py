"""A run at a glance, and how well the method does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from bots.records import record, utc
from bots.resources import RunInfo
from bots.v1 import task_selection_pb2 as pb


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How well outcomes were predicted, over reports; NaN where there are no outcomes to say.

    reports                  number of reports (in `Summary.recent` each weighs 63/64 of the one after it).
    outcomes                 number of outcomes; and their rollouts and successes.
    effective_task_ratio     share of outcomes with observed pass rate strictly between 0 and 1.
    absolute_error ..        of the posterior mean before the outcome against the observed pass rate.
    implicit_outcomes ..     the same for the implicit pass rate, over outcomes that have one.
    implicit_auc             area under the ROC curve of the implicit pass rate for single rollouts' success.
    mean_policy_lag          policy steps between selection and report.
    """

    reports: float
    outcomes: float
    rollouts: float
    successes: float
    effective_task_ratio: float
    absolute_error: float
    brier_score: float
    correlation: float
    implicit_outcomes: float
    implicit_absolute_error: float
    implicit_brier_score: float
    implicit_correlation: float
    implicit_auc: float
    mean_policy_lag: float


@dataclass(frozen=True, kw_only=True)
class TagSummary:
    """The tasks of one tag."""

    tag: str
    tasks: int
    mean_pass_rate: float


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A run at a glance: how hard the data is for the policy now, and how well the method predicts it.

    updates                       updates applied.
    capability                    where the policy stands between the weak (0) and the strong (1) reference model; None:
                                  not known yet.
    pending_rollouts              rollouts that wait for `rollouts_per_update`.
    pass_rate_bins                tasks by posterior mean, 20 bins of equal width from 0 to 1.
    mean_pass_rate                mean of the posterior means.
    solved, unsolvable, in_reach  shares of tasks with posterior mean above 0.9, below 0.1, between.
    mean_evidence                 mean of alpha + beta over tasks, less the prior's.
    deviating_tasks               tasks with a deviation of their own now.
    tried_tasks                   estimated number of tasks ever reported (standard error 2.3 %).
    total, recent                 accuracy since the run began, and recently.
    uniform_effective_task_ratio  what uniform selection would get, expected under the posterior; NaN before a report.
    tags                          the 50 largest tags.
    live_leases                   tasks leased now.
    last_report_time              None: no report yet.
    """

    run: RunInfo
    updates: int
    capability: float | None
    pending_rollouts: float
    pass_rate_bins: tuple[int, ...]
    mean_pass_rate: float
    solved: float
    unsolvable: float
    in_reach: float
    mean_evidence: float
    deviating_tasks: int
    tried_tasks: float
    total: Accuracy
    recent: Accuracy
    uniform_effective_task_ratio: float
    tags: tuple[TagSummary, ...]
    live_leases: int
    last_report_time: datetime | None

    @classmethod
    def of(cls, message: pb.RunSummary) -> Summary:
        """Returns what the message says."""
        return record(
            cls,
            message,
            run=RunInfo.of(message.run),
            capability=message.capability if message.HasField("capability") else None,
            pass_rate_bins=tuple(message.pass_rate_bins),
            total=record(Accuracy, message.total),
            recent=record(Accuracy, message.recent),
            tags=tuple(record(TagSummary, tag) for tag in message.tags),
            last_report_time=utc(message.last_report_time) if message.HasField("last_report_time") else None,
        )
