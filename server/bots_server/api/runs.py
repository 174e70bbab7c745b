"""CreateRun, GetRun, ListRuns, UpdateRun, DeleteRun."""

from dataclasses import replace
from typing import Any
from uuid import uuid4

import numpy as np
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from numpy.typing import NDArray

from bots.v1 import task_selection_pb2 as pb
from bots_server.api import checks, messages
from bots_server.api.callers import caller
from bots_server.api.identity import Change
from bots_server.core.hyperparameters import (
    Hyperparameters,
    InvalidHyperparameter,
    check,
    check_size,
    default_model,
    of_model,
)
from bots_server.core.posterior import HyperparametersChanged
from bots_server.core.transfer import transfer
from bots_server.errors import Described, InvalidField, RunExists, RunNotFound, RunReplaced
from bots_server.runs.dataset import Dataset
from bots_server.runs.registry import Registry
from bots_server.runs.replica import Replica
from bots_server.storage.v1 import storage_pb2 as storage
from bots_server.store import Store, codec

MAX_POLICY_BYTES = 128


class RunHandlers:
    def __init__(self, store: Store, registry: Registry) -> None:
        self._store, self._registry = store, registry

    def create_run(self, request: pb.CreateRunRequest) -> pb.CreateRunResponse:
        checks.dataset("dataset", request.dataset)
        checks.name("name", request.name)
        checks.text("policy", request.policy, MAX_POLICY_BYTES)
        checks.require(request.model in messages.MODELS, "model", request.model, "must be a value of EvidenceModel")
        if request.HasField("fork_from"):
            check_fork_point(request.fork_from)
        dataset = self._store.datasets.get(request.dataset)
        requested = what_is_requested(request)
        try:
            record, created = self._store.runs.get(dataset, request.name), False
        except RunNotFound:
            record, created = self._create(request, dataset, requested)
        if not created:
            with_stated(Hyperparameters(), request.hyperparameters, record.model, dataset.size)
            if different := difference(record, requested):
                raise RunExists(request.dataset, request.name, different)
        return pb.CreateRunResponse(run=messages.run(self._store.runs.current(record)), created=created)

    def get_run(self, request: pb.GetRunRequest, run: Replica) -> pb.GetRunResponse:
        return pb.GetRunResponse(run=messages.run(self._store.runs.current(run.record)))

    def list_runs(self, request: pb.ListRunsRequest) -> pb.ListRunsResponse:
        page = checks.page(request.page_size, request.page_token, "runs", request.dataset)
        dataset = self._store.datasets.get(checks.dataset("dataset", request.dataset))
        found = self._store.runs.list(dataset, page.after, page.size)
        token = page.next_token([one.record.name for one in found])
        return pb.ListRunsResponse(runs=map(messages.run, found), next_page_token=token)

    def update_run(self, request: pb.UpdateRunRequest, run: Replica) -> pb.UpdateRunResponse:
        with_stated(Hyperparameters(), request.hyperparameters, run.record.model, run.dataset.record.size)
        changes = messages.present(request.hyperparameters)
        checks.require(bool(changes), "hyperparameters", Described("none"), "must have at least one field")
        change = Change(self._store, self._registry, run, request, "update", sorted(changes.items()))
        change.append(HyperparametersChanged(changes))
        return pb.UpdateRunResponse(run=messages.run(self._store.runs.current(run.record)))

    def delete_run(self, request: pb.DeleteRunRequest, run: Replica) -> pb.DeleteRunResponse:
        try:
            self._store.runs.delete(run.record)
        except RunNotFound as error:
            raise RunReplaced(run.record.name, run.record.uid) from error
        self._registry.gone(run)
        return pb.DeleteRunResponse()

    def delete_damaged_run(self, dataset: str, name: str) -> pb.DeleteRunResponse:
        """Answers DeleteRun for a run that cannot be opened."""
        self._store.runs.delete_damaged(self._store.datasets.get(dataset), name)
        return pb.DeleteRunResponse()

    def _create(
        self, request: pb.CreateRunRequest, dataset: storage.DatasetRecord, requested: storage.RunRequest
    ) -> tuple[storage.RunRecord, bool]:
        """Stores a new run. Returns the run that has the name then, and whether it is the new one."""
        record = storage.RunRecord(
            name=request.name,
            uid=uuid4().hex,
            dataset=dataset.name,
            dataset_uid=dataset.uid,
            requested=requested,
            policy=request.policy,
            owner=caller().identity,
        )
        if request.HasField("fork_from"):
            start = self._fork(request, dataset, record)
            self._store.quotas.require(record.owner, runs=1, bytes=start.ByteSize())
            return self._store.runs.create(record, start)
        references = tuple(reference.name for reference in dataset.references)
        record.model = requested.model or default_model(references, bool(dataset.tags), len(dataset.features))
        values = with_stated(Hyperparameters(), request.hyperparameters, record.model, dataset.size)
        record.hyperparameters.CopyFrom(codec.hyperparameters_message(of_model(record.model, values)))
        self._store.quotas.require(record.owner, runs=1)
        return self._store.runs.create(record)

    def _fork(
        self, request: pb.CreateRunRequest, dataset: storage.DatasetRecord, record: storage.RunRecord
    ) -> storage.Snapshot:
        """Returns the state of another run that a new one starts at, and completes the record of the new one."""
        point = request.fork_from
        source_dataset = self._store.datasets.get(point.dataset) if point.dataset else dataset
        source_uid = self._store.runs.get(source_dataset, point.run).uid
        source = self._registry.open(source_dataset.name, point.run, source_uid)
        posterior = source.at(point.version) if point.HasField("version") else source.view().posterior
        record.model = posterior.model
        asked = messages.MODELS[request.model]
        checks.require(asked in ("", record.model), "model", asked, f"must be the forked run's, {record.model}")
        values = with_stated(posterior.hyperparameters, request.hyperparameters, record.model, dataset.size)
        record.hyperparameters.CopyFrom(codec.hyperparameters_message(of_model(record.model, values)))
        target = self._registry.datasets.get(dataset.name, dataset.uid)
        row = np.arange(len(target.tasks)) if target is source.dataset else rows_by_id(source.dataset, target)
        carried = transfer(posterior, source.dataset.tasks, target.tasks, row, values)
        kept = int(np.count_nonzero(row >= 0))
        record.forked_from.CopyFrom(
            storage.ForkPoint(
                dataset=source_dataset.name,
                run=point.run,
                version=posterior.version,
                run_uid=source.record.uid,
                kept_tasks=kept,
                new_tasks=len(target.tasks) - kept,
                dropped_tasks=len(source.dataset.tasks) - kept,
            )
        )
        return codec.snapshot_message(carried)


def what_is_requested(request: pb.CreateRunRequest) -> storage.RunRequest:
    """Returns what a request states; what it does not state is absent."""
    values, fork = messages.present(request.hyperparameters), messages.present(request.fork_from)
    return storage.RunRequest(
        model=messages.MODELS[request.model] or None,
        hyperparameters=codec.hyperparameters_message(values) if values else None,
        fork_from=storage.ForkPoint(**{"dataset": request.dataset} | fork) if fork else None,
        policy=request.policy or None,
    )


def difference(record: storage.RunRecord, requested: storage.RunRequest) -> str:
    """Returns how a run was asked for differently; empty: it was not.

    Only what both requests state is compared, and the model and the fork point that this one states with the run's own.
    Defaults and later changes make no difference.
    """
    absent = Described("absent")
    own = {"fork_from.dataset": absent, "fork_from.run": absent} | stated(record.requested) | {"model": record.model}
    return ", ".join(
        f"{name} is {own[name]!r}, not {value!r}"
        for name, value in stated(requested).items()
        if own.get(name, value) != value
    )


def stated(message: Message, prefix: str = "") -> dict[str, Any]:
    """Returns the fields that are present, those of messages in it too, by their dotted names."""
    found = dict[str, Any]()
    for field, value in message.ListFields():
        name = prefix + field.name
        found |= stated(value, f"{name}.") if isinstance(value, Message) else {name: value}
    return found


def with_stated(given: Hyperparameters, message: pb.Hyperparameters, model: str, size: int) -> Hyperparameters:
    """Returns hyperparameters of a run over `size` tasks: those that a message states, and else those given.

    Raises InvalidField for a stated value that breaks its rule, is of the other model, or is not known here.
    """
    unknown: Any = UnknownFieldSet(message)  # a sequence, which its stub does not say
    for field in unknown:
        number = Described(f"field {field.field_number}")
        raise InvalidField("hyperparameters", number, "must be known to this server; the client may be newer")
    changes = messages.present(message)
    try:
        check(model, **changes)
        values = replace(given, **changes)
        check_size(model, values, size)
    except InvalidHyperparameter as error:
        raise InvalidField(f"hyperparameters.{error.field}", error.value, f"must be {error.rule}") from None
    return values


def check_fork_point(point: pb.ForkPoint) -> None:
    """Raises InvalidField for a fork point that breaks a rule."""
    if point.dataset:
        checks.dataset("fork_from.dataset", point.dataset)
    checks.name("fork_from.run", point.run)
    if point.HasField("version"):
        checks.at_least_zero("fork_from.version", point.version)
    for name in ("run_uid", "kept_tasks", "new_tasks", "dropped_tasks"):
        value = getattr(point, name)
        checks.require(not value, f"fork_from.{name}", value, "must be absent in a request")


def rows_by_id(old: Dataset, new: Dataset) -> NDArray[np.int64]:
    """Returns the task of the old dataset with the id of each task of the new one; -1: there is none."""
    if old.ids is None or new.ids is None:
        without = old if old.ids is None else new
        rule = f"must be a dataset with ids, as the new run's must be; {without.record.name!r} has none"
        raise InvalidField("fork_from.dataset", old.record.name, rule)
    return old.ids.find_each(new.ids.ids)
