"""Events: stored messages and what the fold takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np

from bots_server.core import posterior as core
from bots_server.core.evidence import Evidence
from bots_server.errors import ServerTooOld
from bots_server.storage.v1 import storage_pb2 as storage
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
            message.report.CopyFrom(_stored_report(event))
        case core.HyperparametersChanged(changes):
            message.hyperparameters_changed.hyperparameters.CopyFrom(hyperparameters_message(changes))
        case core.Restored(state):
            restored = storage.Restored(version=state.version, state_uid=state_uid, checkpoint=checkpoint)
            message.restored.CopyFrom(restored)
        case core.Undone(version):
            message.undone.CopyFrom(storage.Undone(version=version, state_uid=state_uid))
        case core.Retired(tasks, reason):
            message.retired.CopyFrom(storage.Retired(tasks=tasks.tolist(), reason=reason))
        case core.Unretired(tasks):
            message.retired.CopyFrom(storage.Retired(tasks=tasks.tolist(), undo=True))
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


def _stored_report(report: core.Report) -> storage.Report:
    evidence = report.evidence
    return storage.Report(
        tasks=evidence.tasks.tolist(),
        successes=evidence.successes.tolist(),
        rollouts=evidence.rollouts.astype(np.int64).tolist(),
        effective=[] if evidence.effective is None else evidence.effective.tolist(),
        selection_id=report.selection_id,
        policy_step=report.policy_step,
        selection_policy_step=report.selection_policy_step,
        shadow_tasks=report.shadow_tasks.tolist(),
        outlier=None if report.outlier is None else storage.Outlier(**asdict(report.outlier)),
    )


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
