"""Snapshots: stored messages and the posterior of a run, bit for bit."""

from __future__ import annotations

import numpy as np

from bots_server.core import coverage
from bots_server.core.coverage import Coverage
from bots_server.core.deviations import Deviations
from bots_server.core.evidence import Evidence
from bots_server.core.hyperparameters import of_model
from bots_server.core.interpolation import Interpolation
from bots_server.core.item_response import ItemResponse, Residuals
from bots_server.core.models import ModelState
from bots_server.core.posterior import OpenUpdate, Posterior, reopened
from bots_server.core.state import State
from bots_server.core.task_set import TaskSet
from bots_server.core.tasks import Tasks
from bots_server.errors import ServerTooOld
from bots_server.storage.v1 import storage_pb2 as storage
from bots_server.store.codec.arrays import pack, unpack
from bots_server.store.codec.hyperparameters import hyperparameters, hyperparameters_message
from bots_server.store.reader import READER, WRITES, require


def snapshot_message(posterior: Posterior, nonce: bytes = b"") -> storage.Snapshot:
    """Returns the message of a posterior; `nonce` is of the event that made its version."""
    return storage.Snapshot(
        version=posterior.version,
        nonce=nonce,
        min_reader=WRITES,
        model=posterior.model,
        hyperparameters=hyperparameters_message(of_model(posterior.model, posterior.hyperparameters)),
        state=_state_message(posterior.base),
        open=[
            storage.OpenUpdate(
                selection_id=update.selection_id,
                outcomes=_outcomes(update.evidence),
                policy_lag=update.policy_lag,
                shadow_tasks=pack(update.shadow_tasks, "<u4"),
            )
            for update in posterior.open
        ],
        retired=pack(posterior.retired, "<u4"),
        last_report_time_ms=posterior.last_report_time_ms,
    )


def posterior(snapshot: storage.Snapshot, tasks: Tasks) -> Posterior:
    """Returns the posterior of a snapshot, bit for bit."""
    require(f"the snapshot of version {snapshot.version}", snapshot.min_reader)
    closed = Posterior(
        version=snapshot.version,
        model=snapshot.model,
        hyperparameters=hyperparameters(snapshot.hyperparameters),
        retired=unpack(snapshot.retired, "<u4", np.int64),
        last_report_time_ms=snapshot.last_report_time_ms,
        open=(),
        state=_state(snapshot.state, tasks),
    )
    updates = [
        OpenUpdate(
            selection_id=one.selection_id,
            evidence=_evidence(one.outcomes),
            policy_lag=one.policy_lag if one.HasField("policy_lag") else None,
            shadow_tasks=unpack(one.shadow_tasks, "<u4", np.int64),
            before=None,
        )
        for one in snapshot.open
    ]
    return reopened(closed, tasks, updates)


def _state_message(state: State) -> storage.State:
    message = storage.State(
        updates=state.updates,
        pending=_outcomes(state.pending),
        coverage=storage.Coverage(
            evaluations=state.coverage.evaluations,
            evaluations_in_half=state.coverage.in_half,
            ever=_task_set_message(state.coverage.ever),
            current=_task_set_message(state.coverage.current),
            previous=_task_set_message(state.coverage.previous),
        ),
        total=pack(state.total, "<f8"),
        recent=pack(state.recent, "<f8"),
    )
    match state.learned:
        case Interpolation():
            message.interpolation.CopyFrom(_interpolation_message(state.learned))
        case ItemResponse():
            message.item_response.CopyFrom(_item_response_message(state.learned))
    return message


def _state(message: storage.State, tasks: Tasks) -> State:
    return State(
        updates=message.updates,
        learned=_learned(message),
        pending=_evidence(message.pending),
        coverage=_coverage(message.coverage, tasks),
        total=unpack(message.total, "<f8", np.float64),
        recent=unpack(message.recent, "<f8", np.float64),
    )


def _learned(message: storage.State) -> ModelState:
    match message.WhichOneof("learned"):
        case "interpolation":
            own = message.interpolation
            return Interpolation(
                capability=own.capability if own.HasField("capability") else None,
                alpha=unpack(own.baseline_alpha, "<f8", np.float64),
                beta=unpack(own.baseline_beta, "<f8", np.float64),
                deviations=Deviations(
                    unpack(own.tasks, "<u4", np.int64),
                    unpack(own.alpha, "<f8", np.float64),
                    unpack(own.beta, "<f8", np.float64),
                ),
            )
        case "item_response":
            mean = unpack(message.item_response.mean, "<f8", np.float64)
            return ItemResponse(
                mean=mean,
                covariance=unpack(message.item_response.covariance, "<f8", np.float64).reshape(len(mean), len(mean)),
                log_likelihood=unpack(message.item_response.log_likelihood, "<f8", np.float64),
                residuals=Residuals(
                    unpack(message.item_response.tasks, "<u4", np.int64),
                    unpack(message.item_response.residual_mean, "<f8", np.float64),
                    unpack(message.item_response.residual_variance, "<f8", np.float64),
                    unpack(message.item_response.residual_memory, "<f8", np.float64),
                ),
            )
        case _:
            raise ServerTooOld("the state of the model", READER + 1, READER)


def _interpolation_message(state: Interpolation) -> storage.Interpolation:
    return storage.Interpolation(
        capability=state.capability,
        baseline_alpha=pack(state.alpha, "<f8"),
        baseline_beta=pack(state.beta, "<f8"),
        tasks=pack(state.deviations.tasks, "<u4"),
        alpha=pack(state.deviations.alpha, "<f8"),
        beta=pack(state.deviations.beta, "<f8"),
    )


def _item_response_message(state: ItemResponse) -> storage.ItemResponse:
    return storage.ItemResponse(
        mean=pack(state.mean, "<f8"),
        covariance=pack(state.covariance, "<f8"),
        log_likelihood=pack(state.log_likelihood, "<f8"),
        tasks=pack(state.residuals.tasks, "<u4"),
        residual_mean=pack(state.residuals.mean, "<f8"),
        residual_variance=pack(state.residuals.variance, "<f8"),
        residual_memory=pack(state.residuals.memory, "<f8"),
    )


def _outcomes(evidence: Evidence) -> storage.Outcomes:
    return storage.Outcomes(
        tasks=pack(evidence.tasks, "<u4"),
        successes=pack(evidence.successes, "<f8"),
        rollouts=pack(evidence.rollouts, "<f8"),
        effective=b"" if evidence.effective is None else pack(evidence.effective, "u1"),
    )


def _evidence(message: storage.Outcomes) -> Evidence:
    return Evidence(
        tasks=unpack(message.tasks, "<u4", np.int64),
        successes=unpack(message.successes, "<f8", np.float64),
        rollouts=unpack(message.rollouts, "<f8", np.float64),
        effective=unpack(message.effective, "u1", np.bool_) if message.effective else None,
    )


def _task_set_message(tasks: TaskSet) -> storage.TaskSet:
    bits = b"" if tasks.bits is None else pack(tasks.bits, "u1")
    return storage.TaskSet(bits=bits, added=pack(tasks.added, "<u4"))


def _coverage(message: storage.Coverage, tasks: Tasks) -> Coverage:
    sets = (_task_set(one) for one in (message.ever, message.current, message.previous))
    return coverage.restored(tasks, message.evaluations, message.evaluations_in_half, *sets)


def _task_set(message: storage.TaskSet) -> TaskSet:
    bits = unpack(message.bits, "u1", np.uint8) if message.bits else None
    added = unpack(message.added, "<u4", np.int64)
    count = len(added) + (0 if bits is None else int(np.unpackbits(bits).sum()))
    return TaskSet(bits, added, count)
