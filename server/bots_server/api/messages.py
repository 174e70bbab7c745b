"""Between the messages of the API, what is stored and the core: conversions, and nothing else."""

from collections.abc import Callable
from dataclasses import asdict, fields
from typing import TypeVar

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from bots.v1 import task_selection_pb2 as pb
from bots_server.core.hyperparameters import Hyperparameters
from bots_server.core.posterior import (
    Deviations,
    Event,
    Evidence,
    HyperparametersChanged,
    Posterior,
    Report,
    Restored,
)
from bots_server.core.statistics import accuracy
from bots_server.core.strata import Strata
from bots_server.core.summary import Summary
from bots_server.storage.v1 import storage_pb2 as storage

Scalar = TypeVar("Scalar", bound=np.generic)

RETENTION = pb.Retention(snapshot_interval=256, history=10_000, history_stride=1_024, request_memory=100_000)


def timestamp(milliseconds: int) -> Timestamp | None:
    """Returns milliseconds since 1970 as a timestamp; 0 is none."""
    if not milliseconds:
        return None
    return Timestamp(seconds=milliseconds // 1000, nanos=milliseconds % 1000 * 1_000_000)


def hyperparameters_message(values: Hyperparameters) -> pb.Hyperparameters:
    """Returns the message with all fields present."""
    return pb.Hyperparameters(**asdict(values))


def present(message: pb.Hyperparameters | pb.Retention) -> dict[str, float | int | bool]:
    """Returns the fields that are present, by name."""
    return {field.name: value for field, value in message.ListFields()}


def hyperparameters(message: pb.Hyperparameters) -> Hyperparameters:
    """Returns the hyperparameters of a message; an absent field is its default."""
    return Hyperparameters(**present(message))  # type: ignore[arg-type]  # by name, as the proto declares them


def dataset_message(record: storage.DatasetRecord) -> pb.Dataset:
    return pb.Dataset(
        name=record.name,
        uid=record.uid,
        size=record.size,
        fingerprint=record.fingerprint,
        strata=record.strata,
        reference_grid=record.reference_grid,
        tags=record.tags,
        has_ids=record.has_ids,
        referenced_tasks=record.referenced_tasks,
        create_time=timestamp(record.create_time_ms),
    )


def run_message(record: storage.RunRecord, version: int, current: pb.Hyperparameters) -> pb.Run:
    return pb.Run(
        dataset=record.dataset,
        name=record.name,
        uid=record.uid,
        dataset_uid=record.dataset_uid,
        hyperparameters=current,
        retention=record.retention,
        version=version,
        forked_from=record.forked_from if record.HasField("forked_from") else None,
        create_time=timestamp(record.create_time_ms),
    )


def checkpoint_message(checkpoint: storage.Checkpoint) -> pb.Checkpoint:
    return pb.Checkpoint(
        name=checkpoint.name,
        version=checkpoint.version,
        create_time=timestamp(checkpoint.create_time_ms),
        expire_time=timestamp(checkpoint.expire_time_ms),
    )


def event_message(version: int, event: storage.Event) -> pb.Event:
    message = pb.Event(version=version, time=timestamp(event.time_ms), job=event.job, request_id=event.request_id)
    match event.WhichOneof("kind"):
        case "report":
            message.report.ParseFromString(event.report.SerializeToString())  # same fields under the same numbers
        case "hyperparameters_changed":
            message.hyperparameters.hyperparameters.CopyFrom(event.hyperparameters_changed.hyperparameters)
        case "restored":
            message.restore.version = event.restored.version
            message.restore.checkpoint = event.restored.checkpoint
    return message


def core_event(event: storage.Event, state: Callable[[str], Posterior]) -> Event:
    """Returns a stored event as the fold takes it; `state` loads the state that a restore names by its uid."""
    match event.WhichOneof("kind"):
        case "report":
            report = event.report
            return Report(
                evidence=Evidence(
                    tasks=np.array(report.tasks, dtype=np.int64),
                    successes=np.array(report.successes, dtype=np.float64),
                    rollouts=np.array(report.rollouts, dtype=np.float64),
                ),
                policy_step=report.policy_step if report.HasField("policy_step") else None,
                selection_policy_step=(
                    report.selection_policy_step if report.HasField("selection_policy_step") else None
                ),
                time_ms=event.time_ms,
            )
        case "hyperparameters_changed":
            return HyperparametersChanged(present(event.hyperparameters_changed.hyperparameters))
        case "restored":
            return Restored(state(event.restored.state_uid))
        case kind:
            raise ValueError(f"an event of kind {kind} is from a newer server: upgrade this one")


def snapshot_message(posterior: Posterior, nonce: bytes) -> storage.Snapshot:
    """Returns what is stored of a posterior; `nonce` is of the event that made its version."""
    deviations, pending = posterior.deviations, posterior.pending
    return storage.Snapshot(
        version=posterior.version,
        nonce=nonce,
        hyperparameters=hyperparameters_message(posterior.hyperparameters),
        updates=posterior.updates,
        capability=posterior.capability,
        baseline_alpha=pack(posterior.baseline_alpha, "<f8"),
        baseline_beta=pack(posterior.baseline_beta, "<f8"),
        deviations=storage.Deviations(
            tasks=pack(deviations.tasks, "<u4"),
            alpha=pack(deviations.alpha, "<f8"),
            beta=pack(deviations.beta, "<f8"),
            last_update=pack(deviations.last_update, "<u8"),
        ),
        pending=storage.Pending(
            tasks=pack(pending.tasks, "<u4"),
            successes=pack(pending.successes, "<f8"),
            rollouts=pack(pending.rollouts, "<f8"),
        ),
        total=pack(posterior.total, "<f8"),
        recent=pack(posterior.recent, "<f8"),
        tried_tasks=posterior.tried.tobytes(),
        last_report_time_ms=posterior.last_report_time_ms,
    )


def posterior(snapshot: storage.Snapshot) -> Posterior:
    """Returns the posterior that a snapshot holds, bit for bit."""
    deviations, pending = snapshot.deviations, snapshot.pending
    return Posterior(
        version=snapshot.version,
        updates=snapshot.updates,
        hyperparameters=hyperparameters(snapshot.hyperparameters),
        capability=snapshot.capability if snapshot.HasField("capability") else None,
        baseline_alpha=unpack(snapshot.baseline_alpha, "<f8", np.float64),
        baseline_beta=unpack(snapshot.baseline_beta, "<f8", np.float64),
        deviations=Deviations(
            tasks=unpack(deviations.tasks, "<u4", np.int64),
            alpha=unpack(deviations.alpha, "<f8", np.float64),
            beta=unpack(deviations.beta, "<f8", np.float64),
            last_update=unpack(deviations.last_update, "<u8", np.int64),
        ),
        pending=Evidence(
            tasks=unpack(pending.tasks, "<u4", np.int64),
            successes=unpack(pending.successes, "<f8", np.float64),
            rollouts=unpack(pending.rollouts, "<f8", np.float64),
        ),
        total=unpack(snapshot.total, "<f8", np.float64),
        recent=unpack(snapshot.recent, "<f8", np.float64),
        tried=unpack(snapshot.tried_tasks, "u1", np.uint8),
        last_report_time_ms=snapshot.last_report_time_ms,
    )


def strata_message(strata: Strata) -> storage.StrataTable:
    return storage.StrataTable(
        weak=pack(strata.weak, "<f4"),
        strong=pack(strata.strong, "<f4"),
        prior_alpha=pack(strata.prior_alpha, "<f8"),
        prior_beta=pack(strata.prior_beta, "<f8"),
    )


def strata(table: storage.StrataTable) -> Strata:
    return Strata(
        weak=unpack(table.weak, "<f4", np.float32),
        strong=unpack(table.strong, "<f4", np.float32),
        prior_alpha=unpack(table.prior_alpha, "<f8", np.float64),
        prior_beta=unpack(table.prior_beta, "<f8", np.float64),
    )


def summary_message(summary: Summary, posterior: Posterior, run: pb.Run, live_leases: int) -> pb.RunSummary:
    """Returns a run at a glance."""
    return pb.RunSummary(
        run=run,
        updates=posterior.updates,
        capability=posterior.capability,
        pending_rollouts=float(posterior.pending.rollouts.sum()),
        pass_rate_bins=summary.pass_rate_bins.tolist(),
        mean_pass_rate=summary.mean_pass_rate,
        solved=summary.solved,
        unsolvable=summary.unsolvable,
        in_reach=summary.in_reach,
        mean_evidence=summary.mean_evidence,
        deviating_tasks=len(posterior.deviations.tasks),
        tried_tasks=summary.tried_tasks,
        total=accuracy_message(posterior.total),
        recent=accuracy_message(posterior.recent),
        uniform_effective_task_ratio=summary.uniform_effective_task_ratio,
        tags=[pb.TagSummary(tag=t.tag, tasks=t.tasks, mean_pass_rate=t.mean_pass_rate) for t in summary.tags],
        live_leases=live_leases,
        last_report_time=timestamp(posterior.last_report_time_ms),
    )


def accuracy_message(sums: NDArray[np.float64]) -> pb.Accuracy:
    values = accuracy(sums)
    return pb.Accuracy(**{field.name: float(getattr(values, field.name)) for field in fields(values)})


def pack(array: NDArray[np.generic], dtype: str) -> bytes:
    """Returns an array as little-endian bytes."""
    return array.astype(dtype, copy=False).tobytes()


def unpack(data: bytes, stored: str, dtype: type[Scalar]) -> NDArray[Scalar]:
    """Returns stored little-endian bytes as an array; without a copy where the type is the same."""
    return np.frombuffer(data, stored).astype(dtype, copy=False)
