"""What comes back: frozen dataclasses, one for each thing that the service tells about. Times are in UTC."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from bots.v1 import task_selection_pb2 as pb

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """An immutable, ordered set of tasks.

    size              number of tasks.
    fingerprint       SHA-256 of the content, 64 hexadecimal digits.
    strata            number of strata: distinct (prior, reference pass rates).
    reference_grid    step to which reference pass rates were rounded; 0: kept as given.
    tags              number of tasks of each tag; empty: the tasks have no tags.
    has_ids           the tasks have string ids.
    referenced_tasks  number of tasks with reference pass rates.
    runs              number of runs; None where the answer does not say (only `Client.get_dataset` does).
    """

    name: str
    uid: str
    size: int
    fingerprint: str
    strata: int
    reference_grid: float
    tags: Mapping[str, int]
    has_ids: bool
    referenced_tasks: int
    create_time: datetime
    runs: int | None = dataclasses.field(default=None, compare=False)

    @classmethod
    def of(cls, message: pb.Dataset, runs: int | None = None) -> Dataset:
        """Returns what the message says."""
        return _plain(
            cls,
            message,
            fingerprint=message.fingerprint.hex(),
            tags={count.tag: count.tasks for count in message.tags},
            create_time=_time(message.create_time),
            runs=runs,
        )


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """What a run learns and selects by; task_selection.proto has each one's meaning, range and default."""

    forgetting: float
    implicit_weight: float
    target: float
    implicit_rollouts: float
    capability_smoothing: float
    rollouts_per_update: int
    tolerance: float
    cooldown: int
    uniform_fraction: float
    temperature: float
    greedy: bool


def hyperparameters_message(changes: Mapping[str, float]) -> pb.Hyperparameters:
    """Returns the message. TypeError: there is no such hyperparameter."""
    known = pb.Hyperparameters.DESCRIPTOR.fields_by_name
    for name in changes:
        if name not in known:
            raise TypeError(f"{name}: no such hyperparameter; there are {', '.join(known)}")
    return pb.Hyperparameters(**changes)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Retention:
    """How much of a run's past is kept; given to `Client.create_run`, where None is the server's default.

    snapshot_interval  events between snapshots.
    history            events kept behind the newest.
    history_stride     versions between the snapshots kept along the history.
    request_memory     ids of reports remembered.
    """

    snapshot_interval: int | None = None
    history: int | None = None
    history_stride: int | None = None
    request_memory: int | None = None


@dataclass(frozen=True)
class ForkPoint:
    """Where a run comes from.

    run      name of a run of the same dataset.
    version  its version; None, in a request: the newest.
    run_uid  only in answers.
    """

    run: str
    version: int | None = None
    run_uid: str = ""


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """A run at a version.

    version      number of its events.
    forked_from  None: it started at the prior.
    """

    dataset: str
    name: str
    uid: str
    dataset_uid: str
    hyperparameters: Hyperparameters
    retention: Retention
    version: int
    forked_from: ForkPoint | None
    create_time: datetime

    @classmethod
    def of(cls, message: pb.Run) -> RunInfo:
        """Returns what the message says."""
        fork = message.forked_from
        return _plain(
            cls,
            message,
            hyperparameters=_plain(Hyperparameters, message.hyperparameters),
            retention=_plain(Retention, message.retention),
            forked_from=ForkPoint(fork.run, fork.version, fork.run_uid) if message.HasField("forked_from") else None,
            create_time=_time(message.create_time),
        )


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
        return _plain(
            cls,
            message,
            run=RunInfo.of(message.run),
            capability=message.capability if message.HasField("capability") else None,
            pass_rate_bins=tuple(message.pass_rate_bins),
            total=_plain(Accuracy, message.total),
            recent=_plain(Accuracy, message.recent),
            tags=tuple(_plain(TagSummary, tag) for tag in message.tags),
            last_report_time=_time(message.last_report_time) if message.HasField("last_report_time") else None,
        )


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A version that is kept. expire_time None: until it is deleted."""

    name: str
    version: int
    create_time: datetime
    expire_time: datetime | None

    @classmethod
    def of(cls, message: pb.Checkpoint) -> Checkpoint:
        """Returns what the message says."""
        return _plain(
            cls,
            message,
            create_time=_time(message.create_time),
            expire_time=_time(message.expire_time) if message.HasField("expire_time") else None,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class ReportEvent:
    """Outcomes were reported; those of one task are summed, in order of task.

    tasks      `[n]` int64.
    successes  `[n]` float64.
    rollouts   `[n]` int64.
    """

    tasks: npt.NDArray[np.int64]
    successes: npt.NDArray[np.float64]
    rollouts: npt.NDArray[np.int64]
    policy_step: int | None
    selection_policy_step: int | None


@dataclass(frozen=True, kw_only=True)
class HyperparametersEvent:
    """Hyperparameters changed: the new values by name."""

    changes: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class RestoreEvent:
    """The run went back to `version`; `checkpoint` names where it was kept, or is empty."""

    version: int
    checkpoint: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Event:
    """One event of a run's history: what made this version, and who asked for it."""

    version: int
    time: datetime
    job: str
    request_id: str
    kind: ReportEvent | HyperparametersEvent | RestoreEvent

    @classmethod
    def of(cls, message: pb.Event) -> Event:
        """Returns what the message says."""
        return _plain(cls, message, time=_time(message.time), kind=_kind(message))


def _kind(message: pb.Event) -> ReportEvent | HyperparametersEvent | RestoreEvent:
    match message.WhichOneof("kind"):
        case "report":
            report = message.report
            return ReportEvent(
                tasks=np.array(report.tasks, dtype=np.int64),
                successes=np.array(report.successes, dtype=np.float64),
                rollouts=np.array(report.rollouts, dtype=np.int64),
                policy_step=report.policy_step if report.HasField("policy_step") else None,
                selection_policy_step=(
                    report.selection_policy_step if report.HasField("selection_policy_step") else None
                ),
            )
        case "hyperparameters":
            changed = message.hyperparameters.hyperparameters
            return HyperparametersEvent(changes={field.name: value for field, value in changed.ListFields()})
        case _:
            return RestoreEvent(version=message.restore.version, checkpoint=message.restore.checkpoint)


def _plain(cls: type[T], message: Message, /, **converted: Any) -> T:
    """Returns a `cls`: each field from `converted`, or else the field of the same name of the message."""
    names = (field.name for field in dataclasses.fields(cls))  # type: ignore[arg-type]
    return cls(**{name: converted[name] if name in converted else getattr(message, name) for name in names})


def _time(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(tzinfo=timezone.utc)
