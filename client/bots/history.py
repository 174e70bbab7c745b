"""The events of a run, the versions of it that are kept, and its leases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

from bots.records import record
from bots.v1 import task_selection_pb2 as pb


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A version that is kept. expire_time None: until it is deleted."""

    name: str
    version: int
    create_time: datetime
    expire_time: datetime | None


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The tasks that a selection has leased.

    identity           of the caller that asked for it, as the service knows it; empty: it asks for no token.
    job                as that caller names itself.
    tasks              their number: neither reported nor released.
    remaining_seconds  until the lease ends.
    """

    selection_id: str
    identity: str
    job: str
    tasks: int
    remaining_seconds: float


@dataclass(frozen=True, kw_only=True)
class Outlier:
    """How far a report is outside what the run had seen.

    deviation       of the mean prediction error from the recent mean error, in standard deviations; NaN: not known.
    rollouts_ratio  the largest number of rollouts of a task, divided by the recent mean.
    """

    deviation: float
    rollouts_ratio: float


@dataclass(frozen=True, kw_only=True, eq=False)
class ReportEvent:
    """Outcomes were reported; those of one task are summed, in ascending order of task.

    tasks      `[n]` int64.
    successes  `[n]` float64.
    rollouts   `[n]` int64.
    effective  `[n]` bool: the rewards of the task's rollouts differ; empty: not reported.
    shadow_tasks
               `[m]` int64, ascending: tasks that the run would have selected in place of these.
    outlier    the report was far outside what the run had seen; None: it was not.
    """

    tasks: npt.NDArray[np.int64]
    successes: npt.NDArray[np.float64]
    rollouts: npt.NDArray[np.int64]
    effective: npt.NDArray[np.bool_]
    selection_id: str
    policy_step: int | None
    selection_policy_step: int | None
    shadow_tasks: npt.NDArray[np.int64]
    outlier: Outlier | None


@dataclass(frozen=True, kw_only=True)
class HyperparametersEvent:
    """Hyperparameters changed: the new values by name."""

    changes: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class RestoreEvent:
    """The run went back to `version`; `checkpoint` is the name it was kept under, or empty."""

    version: int
    checkpoint: str


@dataclass(frozen=True, kw_only=True)
class UndoEvent:
    """The report that made `version` was taken out of the state."""

    version: int


@dataclass(frozen=True, kw_only=True, eq=False)
class RetireEvent:
    """Tasks (`[n]` int64) were retired, or with `undo` taken back."""

    tasks: npt.NDArray[np.int64]
    undo: bool
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Event:
    """One event of a run's history: the version that it made, and who asked for it.

    identity  of the caller, as the service knows it; empty: it asks for no token.
    job       as the caller names itself.
    """

    version: int
    time: datetime
    identity: str
    job: str
    request_id: str
    kind: ReportEvent | HyperparametersEvent | RestoreEvent | UndoEvent | RetireEvent

    @classmethod
    def of(cls, message: pb.Event) -> Event:
        """Returns what the message says."""
        return record(cls, message, kind=_kind(message))


def _kind(message: pb.Event) -> ReportEvent | HyperparametersEvent | RestoreEvent | UndoEvent | RetireEvent:
    match message.WhichOneof("kind"):
        case "report":
            return record(ReportEvent, message.report)
        case "restore":
            return record(RestoreEvent, message.restore)
        case "undo":
            return record(UndoEvent, message.undo)
        case "retire":
            return record(RetireEvent, message.retire)
        case _:
            changed = message.hyperparameters.hyperparameters
            return HyperparametersEvent(changes={field.name: value for field, value in changed.ListFields()})
