"""Events: stored messages and what the fold takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np

from bots_server.core import posterior as core
from bots_server.core.evidence import Evidence
from bots_server.errors import ServerTooOld
from bots_server.storage.v1 import storage_pb2 as storage
from bots_server.store.codec.arrays import extend
from bots_server.store.codec.hyperparameters import hyperparameters_message, stated
from bots_server.store.history import StoredEvent
from bots_server.store.reader import READER, WRITES, require


def stored_event(
    event: core.Event,
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
        case core.Report():
            _store_report(message.report, event)
        case core.HyperparametersChanged(changes):
            message.hyperparameters_changed.hyperparameters.CopyFrom(hyperparameters_message(changes))
        case core.Restored(state):
            restored = storage.Restored(version=state.version, state_uid=state_uid, checkpoint=checkpoint)
            message.restored.CopyFrom(restored)
        case core.Undone(version):
            message.undone.CopyFrom(storage.Undone(version=version, state_uid=state_uid))
        case core.Retired(tasks, reason):
            message.retired.reason = reason
            extend(message.retired.tasks, tasks)
        case core.Unretired(tasks):
            message.retired.undo = True
            extend(message.retired.tasks, tasks)
    return message


def core_event(stored: StoredEvent, state: Callable[[str], core.Posterior]) -> core.Event:
    """Returns a stored event as the fold takes it; `state` returns what a restore or undo names by a uid."""
    event, what = stored.event, f"event {stored.version}"
    require(what, event.min_reader)
    match event.WhichOneof("kind"):
        case "report":
            return _core_report(event.report, stored.time_ms)
        case "hyperparameters_changed":
            return core.HyperparametersChanged(stated(event.hyperparameters_changed.hyperparameters))
        case "restored":
            return core.Restored(state(event.restored.state_uid))
        case "undone":
            return core.Undone(event.undone.version, state(event.undone.state_uid))
        case "retired":
            tasks = np.array(event.retired.tasks, np.int64)
            return core.Unretired(tasks) if event.retired.undo else core.Retired(tasks, event.retired.reason)
        case _:
            raise ServerTooOld(what, READER + 1, READER)


def _store_report(message: storage.Report, report: core.Report) -> None:
    """Fills in the message of a report."""
    evidence = report.evidence
    extend(message.tasks, evidence.tasks)
    extend(message.successes, evidence.successes)
    extend(message.rollouts, evidence.rollouts.astype(np.int64))
    if evidence.effective is not None:
        extend(message.effective, evidence.effective)
    message.selection_id = report.selection_id
    if report.policy_step is not None:
        message.policy_step = report.policy_step
    if report.selection_policy_step is not None:
        message.selection_policy_step = report.selection_policy_step
    if report.outlier is not None:
        message.outlier.CopyFrom(storage.Outlier(**asdict(report.outlier)))
    extend(message.shadow_tasks, report.shadow_tasks)


def _core_report(report: storage.Report, time_ms: int) -> core.Report:
    evidence = Evidence(
        tasks=np.array(report.tasks, np.int64),
        successes=np.array(report.successes, np.float64),
        rollouts=np.array(report.rollouts, np.float64),
        effective=np.array(report.effective, np.bool_) if report.effective else None,
    )
    return core.Report(
        evidence,
        time_ms,
        report.selection_id,
        report.policy_step if report.HasField("policy_step") else None,
        report.selection_policy_step if report.HasField("selection_policy_step") else None,
        np.array(report.shadow_tasks, np.int64),
    )
