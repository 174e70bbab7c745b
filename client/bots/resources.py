"""Datasets and runs, as the service tells about them: frozen dataclasses. Times are in UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from bots.records import record, utc
from bots.v1 import task_selection_pb2 as pb


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
    runs: int | None = field(default=None, compare=False)

    @classmethod
    def of(cls, message: pb.Dataset, runs: int | None = None) -> Dataset:
        """Returns what the message says."""
        return record(
            cls,
            message,
            fingerprint=message.fingerprint.hex(),
            tags={count.tag: count.tasks for count in message.tags},
            create_time=utc(message.create_time),
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
        return record(
            cls,
            message,
            hyperparameters=record(Hyperparameters, message.hyperparameters),
            retention=record(Retention, message.retention),
            forked_from=ForkPoint(fork.run, fork.version, fork.run_uid) if message.HasField("forked_from") else None,
            create_time=utc(message.create_time),
        )
