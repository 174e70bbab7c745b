"""Core values and stored records as messages of the API."""

from dataclasses import asdict
from typing import Any, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from bots.v1 import task_selection_pb2 as pb
from bots_server.core.hyperparameters import Hyperparameters, of_model
from bots_server.runs.replica import Replica, View
from bots_server.storage.v1 import storage_pb2 as storage
from bots_server.store import Lease, ListedRun, StoredEvent

M = TypeVar("M", bound=Message)

# Name of a model by its number in the API.
MODELS = {
    pb.EVIDENCE_MODEL_UNSPECIFIED: "",
    pb.EVIDENCE_MODEL_INTERPOLATION: "interpolation",
    pb.EVIDENCE_MODEL_ITEM_RESPONSE: "item_response",
}
MODEL_NUMBERS = {name: number for number, name in MODELS.items()}

# Name of an event's kind in the API by its name in the store.
EVENT_KINDS = {
    "report": "report",
    "hyperparameters_changed": "hyperparameters",
    "restored": "restore",
    "undone": "undo",
    "retired": "retire",
}


def timestamp(milliseconds: int) -> Timestamp | None:
    """Returns milliseconds since 1970 as a timestamp; 0 is absent."""
    if not milliseconds:
        return None
    return Timestamp(seconds=milliseconds // 1000, nanos=milliseconds % 1000 * 1_000_000)


def present(message: Message) -> dict[str, Any]:
    """Returns the fields that are present, by name; a message among them as its fields."""
    return {field.name: _value(value) for field, value in message.ListFields()}


def _value(value: Any) -> Any:
    return present(value) if isinstance(value, Message) else value


def like(kind: type[M], source: Message, **others: Any) -> M:
    """Returns a message with the fields that `source` has under the same names, and with others."""
    same = {name: value for name, value in present(source).items() if name in kind.DESCRIPTOR.fields_by_name}
    return kind(**same | others)


def dataset(record: storage.DatasetRecord) -> pb.Dataset:
    return like(
        pb.Dataset,
        record,
        tags=[pb.TagCount(tag=one.name, tasks=one.tasks) for one in record.tags],
        references=[like(pb.ReferenceCount, one) for one in record.references],
        create_time=timestamp(record.create_time_ms),
        damage="" if record.uid else "its record is damaged; delete the dataset",
    )


def run(listed: ListedRun) -> pb.Run:
    """Returns a run as it is in the store."""
    record = listed.record
    if listed.damage:
        return pb.Run(ref=like(pb.RunRef, record), dataset_uid=record.dataset_uid, damage=listed.damage)
    # A run may be older than a hyperparameter.
    values = of_model(record.model, Hyperparameters()) | present(listed.hyperparameters)
    return run_at(record, listed.version, pb.Hyperparameters(**values))


def run_at(record: storage.RunRecord, version: int, values: pb.Hyperparameters) -> pb.Run:
    """Returns a run at a version with its hyperparameters there."""
    return pb.Run(
        ref=like(pb.RunRef, record),
        dataset_uid=record.dataset_uid,
        model=MODEL_NUMBERS[record.model],
        hyperparameters=values,
        version=version,
        policy=record.policy,
        create_time=timestamp(record.create_time_ms),
        forked_from=like(pb.ForkPoint, record.forked_from) if record.HasField("forked_from") else None,
    )


def checkpoint(kept: storage.Checkpoint) -> pb.Checkpoint:
    create_time, expire_time = timestamp(kept.create_time_ms), timestamp(kept.expire_time_ms)
    return like(pb.Checkpoint, kept, create_time=create_time, expire_time=expire_time)


def lease(held: Lease) -> pb.Lease:
    return pb.Lease(
        selection_id=held.selection_id,
        identity=held.holder.identity,
        job=held.holder.job,
        tasks=held.tasks,
        remaining_seconds=held.remaining_ms / 1000,
    )


def event(stored: StoredEvent) -> pb.Event:
    of, time = stored.event, timestamp(stored.time_ms)
    message = pb.Event(version=stored.version, time=time, identity=of.identity, job=of.job, request_id=of.request_id)
    if (kind := of.WhichOneof("kind")) is not None:
        told = getattr(message, EVENT_KINDS[kind])
        told.CopyFrom(like(type(told), getattr(of, kind)))
    return message


def run_summary(replica: Replica, view: View) -> pb.RunSummary:
    """Returns how hard the tasks of a run are, and how well its model predicts that."""
    posterior = view.posterior
    figures = asdict(replica.summary(posterior))  # the core's names are those of the API
    learned = figures.pop("learned")
    values = pb.Hyperparameters(**of_model(posterior.model, posterior.hyperparameters))
    return pb.RunSummary(
        run=run_at(replica.record, posterior.version, values),
        updates=posterior.state.updates,
        live_leases=view.live_leases,
        last_report_time=timestamp(posterior.last_report_time_ms),
        **{posterior.model: learned},
        **figures,
    )
