"""Events: stored messages and what the fold takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np

from bots_server.core.evidence import Evidence
from bots_server.core.posterior import (
    Event,
    HyperparametersChanged,
    Posterior,
    Report,
    Restored,
    Retired,
    Undone,
    Unretired,
)
from bots_server.errors import ServerTooOld
from bots_server.storage.v1 import storage_pb2 as storage
from bots_server.store.codec.hyperparameters import hyperparameters_message, stated
from bots_server.store.history import StoredEvent
from bots_server.store.reader import READER, WRITES, require


def stored_event(
    event: Event,
    *,
    identity: str = "",
    job: str = "",
    request_id: str = "",
    state_uid: str = "",
    checkpoint: str = "",
) -> storage.Event:
    """Returns the message of an event. `state_uid`: under which the state of a restore or undo is kept."""
    message = storage.Event(identity=identity, job=job, request_id=request_id, min_reader=WRITES)
    match event:
        case Report():
            evidence = event.evidence
            message.report.CopyFrom(
                storage.Report(
                    tasks=evidence.tasks.tolist(),
                    successes=evidence.successes.tolist(),
                    rollouts=evidence.rollouts.astype(np.int64).tolist(),
                    effective=[] if evidence.effective is None else evidence.effective.tolist(),
                    selection_id=event.selection_id,
                    policy_step=event.policy_step,
                    selection_policy_step=event.selection_policy_step,
                    shadow_tasks=event.shadow_tasks.tolist(),
                    outlier=None if event.outlier is None else storage.Outlier(**asdict(event.outlier)),
                )
            )
        case HyperparametersChanged():
            message.hyperparameters_changed.hyperparameters.CopyFrom(hyperparameters_message(event.changes))
        case Restored():
            message.restored.CopyFrom(
                storage.Restored(version=event.state.version, state_uid=state_uid, checkpoint=checkpoint)
            )
        case Undone():
            message.undone.CopyFrom(storage.Undone(version=event.version, state_uid=state_uid))
        case Retired():
            message.retired.CopyFrom(storage.Retired(tasks=event.tasks.tolist(), reason=event.reason))
        case Unretired():
            message.retired.CopyFrom(storage.Retired(tasks=event.tasks.tolist(), undo=True))
    return message


def core_event(stored: StoredEvent, state: Callable[[str], Posterior]) -> Event:
    """Returns a stored event as the fold takes it; `state` returns what a restore or undo names by a uid."""
    event, what = stored.event, f"event {stored.version}"
    require(what, event.min_reader)
    match event.WhichOneof("kind"):
        case "report":
            report = event.report
            evidence = Evidence(
                tasks=np.array(report.tasks, np.int64),
                successes=np.array(report.successes, np.float64),
                rollouts=np.array(report.rollouts, np.float64),
                effective=np.array(report.effective, np.bool_) if report.effective else None,
            )
            return Report(
                evidence,
                stored.time_ms,
                report.selection_id,
                report.policy_step if report.HasField("policy_step") else None,
                report.selection_policy_step if report.HasField("selection_policy_step") else None,
                np.array(report.shadow_tasks, np.int64),
            )
        case "hyperparameters_changed":
            return HyperparametersChanged(stated(event.hyperparameters_changed.hyperparameters))
        case "restored":
            return Restored(state(event.restored.state_uid))
        case "undone":
            return Undone(event.undone.version, state(event.undone.state_uid))
        case "retired":
            tasks = np.array(event.retired.tasks, np.int64)
            return Unretired(tasks) if event.retired.undo else Retired(tasks, event.retired.reason)
        case _:
            raise ServerTooOld(what, READER + 1, READER)
