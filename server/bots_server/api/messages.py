"""Core values and stored records as messages of the API."""

from dataclasses import asdict
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from bots.v1 import task_selection_pb2 as pb
from bots_server.core.hyperparameters import MODELS as CORE_MODELS
from bots_server.core.hyperparameters import RULES, Hyperparameters
from bots_server.runs.replica import Replica, View
from bots_server.storage.v1 import storage_pb2 as storage
from bots_server.store import Lease, ListedRun, StoredEvent

# Name of a model by its number in the API.
MODELS = {
    pb.EVIDENCE_MODEL_UNSPECIFIED: "",
    pb.EVIDENCE_MODEL_INTERPOLATION: "interpolation",
    pb.EVIDENCE_MODEL_ITEM_RESPONSE: "item_response",
}
MODEL_NUMBERS = {name: number for number, name in MODELS.items()}


def timestamp(milliseconds: int) -> Timestamp | None:
    """Returns milliseconds since 1970 as a timestamp; 0 is absent."""
    if not milliseconds:
        return None
    return Timestamp(seconds=milliseconds // 1000, nanos=milliseconds % 1000 * 1_000_000)


def present(message: Message) -> dict[str, Any]:
    """Returns the fields that are present, by name."""
    return {field.name: value for field, value in message.ListFields()}


def of_model(model: str, values: Hyperparameters) -> dict[str, Any]:
    """Returns the hyperparameters that a model has, by name."""
    return {name: getattr(values, name) for name, rule in RULES.items() if rule.model in (None, model)}


DEFAULTS = {model: pb.Hyperparameters(**of_model(model, Hyperparameters())) for model in CORE_MODELS}


def dataset(record: storage.DatasetRecord) -> pb.Dataset:
    return pb.Dataset(
        name=record.name,
        uid=record.uid,
        size=record.size,
        fingerprint=record.fingerprint,
        strata=record.strata,
        reference_grid=record.reference_grid,
        tags=[pb.TagCount(tag=one.name, tasks=one.tasks) for one in record.tags],
        has_ids=record.has_ids,
        references=[pb.ReferenceCount(name=one.name, tasks=one.tasks) for one in record.references],
        features=record.features,
        create_time=timestamp(record.create_time_ms),
        damage="" if record.uid else "its record is damaged; delete the dataset",
    )


def run(listed: ListedRun) -> pb.Run:
    """Returns a run as it is in the store."""
    if listed.damage:
        record = listed.record
        ref = pb.RunRef(dataset=record.dataset, name=record.name, uid=record.uid)
        return pb.Run(ref=ref, dataset_uid=record.dataset_uid, damage=listed.damage)
    values = pb.Hyperparameters()
    values.CopyFrom(DEFAULTS[listed.record.model])  # a run may be older than a hyperparameter
    values.MergeFromString(listed.hyperparameters.SerializeToString())  # equal fields have equal numbers
    return run_at(listed.record, listed.version, values)


def run_at(record: storage.RunRecord, version: int, values: pb.Hyperparameters) -> pb.Run:
    """Returns a run at a version with its hyperparameters there."""
    message = pb.Run(
        ref=pb.RunRef(dataset=record.dataset, name=record.name, uid=record.uid),
        dataset_uid=record.dataset_uid,
        model=MODEL_NUMBERS[record.model],
        hyperparameters=values,
        version=version,
        policy=record.policy,
        create_time=timestamp(record.create_time_ms),
    )
    if record.HasField("forked_from"):
        message.forked_from.CopyFrom(pb.ForkPoint(**present(record.forked_from)))
    return message


def checkpoint(kept: storage.Checkpoint) -> pb.Checkpoint:
    return pb.Checkpoint(
        name=kept.name,
        version=kept.version,
        create_time=timestamp(kept.create_time_ms),
        expire_time=timestamp(kept.expire_time_ms),
    )


def lease(held: Lease) -> pb.Lease:
    return pb.Lease(
        selection_id=held.selection_id,
        identity=held.holder.identity,
        job=held.holder.job,
        tasks=held.tasks,
        remaining_seconds=held.remaining_ms / 1000,
    )


def event(stored: StoredEvent) -> pb.Event:
    of = stored.event
    message = pb.Event(
        version=stored.version,
        time=timestamp(stored.time_ms),
        identity=of.identity,
        job=of.job,
        request_id=of.request_id,
    )
    match of.WhichOneof("kind"):
        case "report":
            fields = present(of.report)
            if outlier := fields.pop("outlier", None):
                message.report.outlier.CopyFrom(pb.Outlier(**present(outlier)))
            message.report.MergeFrom(pb.ReportEvent(**fields))
        case "hyperparameters_changed":
            changed = present(of.hyperparameters_changed.hyperparameters)
            message.hyperparameters.hyperparameters.CopyFrom(pb.Hyperparameters(**changed))
        case "restored":
            message.restore.version, message.restore.checkpoint = of.restored.version, of.restored.checkpoint
        case "undone":
            message.undo.version = of.undone.version
        case "retired":
            message.retire.CopyFrom(pb.RetireEvent(**present(of.retired)))
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
