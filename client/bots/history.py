"""What happened to a run, event by event, and the versions of it that are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

from bots.records import record, utc
from bots.v1 import task_selection_pb2 as pb


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
        return record(
            cls,
            message,
            create_time=utc(message.create_time),
            expire_time=utc(message.expire_time) if message.HasField("expire_time") else None,
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
        return record(cls, message, time=utc(message.time), kind=_kind(message))


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
