"""Snapshots: stored messages and the posterior of a run, bit for bit."""

from __future__ import annotations

import numpy as np

from bots_server.core import coverage
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
from bots_server.store.codec.arrays import floats, numbers, pack, packed, unpack
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
        open=map(_open_message, posterior.open),
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
        retired=numbers(snapshot.retired),
        last_report_time_ms=snapshot.last_report_time_ms,
        open=(),
        state=_state(snapshot.state, tasks),
    )
    return reopened(closed, tasks, list(map(_open, snapshot.open)))


def _open_message(update: OpenUpdate) -> storage.OpenUpdate:
    return storage.OpenUpdate(
        selection_id=update.selection_id,
        outcomes=_outcomes(update.evidence),
        policy_lag=update.policy_lag,
        shadow_tasks=pack(update.shadow_tasks, "<u4"),
    )


def _open(message: storage.OpenUpdate) -> OpenUpdate:
    policy_lag = message.policy_lag if message.HasField("policy_lag") else None
    evidence, shadow_tasks = _evidence(message.outcomes), numbers(message.shadow_tasks)
    return OpenUpdate(message.selection_id, evidence, policy_lag, shadow_tasks, before=None)


def _state_message(state: State) -> storage.State:
    learned = state.learned
    return storage.State(
        updates=state.updates,
        interpolation=_interpolation_message(learned) if isinstance(learned, Interpolation) else None,
        item_response=_item_response_message(learned) if isinstance(learned, ItemResponse) else None,
        pending=_outcomes(state.pending),
        coverage=storage.Coverage(
            evaluations=state.coverage.evaluations,
            evaluations_in_half=state.coverage.in_half,
            ever=_task_set_message(state.coverage.ever),
            current=_task_set_message(state.coverage.current),
            previous=_task_set_message(state.coverage.previous),
        ),
        **packed(state, total="<f8", recent="<f8"),
    )


def _state(message: storage.State, tasks: Tasks) -> State:
    stored = message.coverage
    sets = map(_task_set, (stored.ever, stored.current, stored.previous))
    return State(
        updates=message.updates,
        learned=_learned(message),
        pending=_evidence(message.pending),
        coverage=coverage.restored(tasks, stored.evaluations, stored.evaluations_in_half, *sets),
        total=floats(message.total),
        recent=floats(message.recent),
    )


def _interpolation_message(state: Interpolation) -> storage.Interpolation:
    return storage.Interpolation(
        capability=state.capability,
        baseline_alpha=pack(state.alpha, "<f8"),
        baseline_beta=pack(state.beta, "<f8"),
        **packed(state.deviations, tasks="<u4", alpha="<f8", beta="<f8"),
    )


def _item_response_message(state: ItemResponse) -> storage.ItemResponse:
    return storage.ItemResponse(
        **packed(state, mean="<f8", covariance="<f8", log_likelihood="<f8"),
        tasks=pack(state.residuals.tasks, "<u4"),
        residual_mean=pack(state.residuals.mean, "<f8"),
        residual_variance=pack(state.residuals.variance, "<f8"),
        residual_memory=pack(state.residuals.memory, "<f8"),
    )


def _learned(message: storage.State) -> ModelState:
    match message.WhichOneof("learned"):
        case "interpolation":
            one = message.interpolation
            return Interpolation(
                one.capability if one.HasField("capability") else None,
                floats(one.baseline_alpha),
                floats(one.baseline_beta),
                Deviations(numbers(one.tasks), floats(one.alpha), floats(one.beta)),
            )
        case "item_response":
            two = message.item_response
            mean, covariance, log_likelihood = map(floats, (two.mean, two.covariance, two.log_likelihood))
            residuals = map(floats, (two.residual_mean, two.residual_variance, two.residual_memory))
            covariance = covariance.reshape(len(mean), len(mean))
            return ItemResponse(mean, covariance, log_likelihood, Residuals(numbers(two.tasks), *residuals))
        case _:
            raise ServerTooOld("the state of the model", READER + 1, READER)


def _outcomes(evidence: Evidence) -> storage.Outcomes:
    return storage.Outcomes(**packed(evidence, tasks="<u4", successes="<f8", rollouts="<f8", effective="u1"))


def _evidence(message: storage.Outcomes) -> Evidence:
    effective = unpack(message.effective, "u1", np.bool_) if message.effective else None
    return Evidence(numbers(message.tasks), floats(message.successes), floats(message.rollouts), effective)


def _task_set_message(tasks: TaskSet) -> storage.TaskSet:
    return storage.TaskSet(**packed(tasks, bits="u1", added="<u4"))


def _task_set(message: storage.TaskSet) -> TaskSet:
    bits = unpack(message.bits, "u1", np.uint8) if message.bits else None
    added = numbers(message.added)
    return TaskSet(bits, added, len(added) + (0 if bits is None else int(np.unpackbits(bits).sum())))
