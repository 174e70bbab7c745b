"""CreateRun, GetRun, ListRuns, UpdateRun, DeleteRun."""

import time
from uuid import uuid4

from bots.v1 import task_selection_pb2 as pb
from bots_server.api import messages
from bots_server.core.hyperparameters import Hyperparameters, InvalidHyperparameter, check
from bots_server.core.posterior import Posterior, fork
from bots_server.errors import InvalidField, RunExists, RunNotFound, RunReplaced
from bots_server.runs.replica import Replica
from bots_server.runs.registry import Replicas
from bots_server.service import rules
from bots_server.service.directory import Directory
from bots_server.service.request_ids import content_digest, uuid7
from bots_server.storage.v1 import storage_pb2 as storage
from bots_server.store import Store

RETENTION_RULES = {
    "snapshot_interval": (1, 100_000),
    "history": (1, 10_000_000),
    "history_stride": (1, 1_000_000),
    "request_memory": (1_000, 10_000_000),
}


class RunHandlers:
    """Runs, from their beginning or fork to their end."""

    def __init__(self, store: Store, directory: Directory, replicas: Replicas) -> None:
        self._store, self._directory, self._replicas = store, directory, replicas

    def create(self, request: pb.CreateRunRequest) -> pb.CreateRunResponse:
        rules.name("dataset", request.dataset)
        rules.name("name", request.name)
        check_hyperparameters(request.hyperparameters)
        check_retention(request.retention)
        if request.HasField("fork_from"):
            rules.name("fork_from.run", request.fork_from.run)
            rules.require(
                not request.fork_from.run_uid, "fork_from.run_uid", request.fork_from.run_uid, "must be empty"
            )
        dataset = self._store.datasets.get(request.dataset)
        try:
            existing = self._store.runs.get(dataset, request.name)
        except RunNotFound:
            record, created = self._create(request, dataset)
        else:
            record, created = existing, False
        if not created and (differing := difference(record, request)):
            raise RunExists(request.dataset, request.name, differing)
        posterior = self._replicas.get(record).view().posterior
        return pb.CreateRunResponse(run=current(record, posterior), created=created)

    def get(self, request: pb.GetRunRequest) -> pb.GetRunResponse:
        return pb.GetRunResponse(run=self._directory.with_run(request.dataset, request.name, "", self._current))

    def list(self, request: pb.ListRunsRequest) -> pb.ListRunsResponse:
        records = self._store.runs.list(self._store.datasets.get(rules.name("dataset", request.dataset)))
        # Held until all are read, so that their dataset is loaded once.
        replicas = [self._replicas.glance(record) for record in records]
        return pb.ListRunsResponse(runs=[run for run in map(listed, replicas) if run is not None])

    def update(self, request: pb.UpdateRunRequest) -> pb.UpdateRunResponse:
        check_hyperparameters(request.hyperparameters)
        changes = messages.present(request.hyperparameters)
        rules.require(bool(changes), "hyperparameters", rules.Told("absent"), "must have at least one field")
        rules.job(request.job)
        request_id = rules.request_id(request.request_id) or uuid7()
        event = storage.Event(
            time_ms=time.time_ns() // 1_000_000,
            job=request.job,
            request_id=request_id,
            hyperparameters_changed=storage.HyperparametersChanged(hyperparameters=request.hyperparameters),
        )

        def act(run: storage.RunRecord) -> pb.UpdateRunResponse:
            appended = self._store.history.append(run, event, request_id=request_id, digest=content_digest(request))
            self._replicas.snapshot_if_due(run, appended.version, appended.snapshot_version)
            return pb.UpdateRunResponse(run=self._current(run))

        return self._directory.with_run(request.dataset, request.name, "", act)

    def delete(self, request: pb.DeleteRunRequest) -> pb.DeleteRunResponse:
        dataset = self._store.datasets.get(rules.name("dataset", request.dataset))
        self._store.runs.delete(self._store.runs.get(dataset, rules.name("name", request.name)))
        self._directory.forget(request.dataset, request.name)
        return pb.DeleteRunResponse()

    def _create(self, request: pb.CreateRunRequest, dataset: storage.DatasetRecord) -> tuple[storage.RunRecord, bool]:
        """Stores a new run; where another server was faster, returns that one's."""
        values = messages.hyperparameters_message(Hyperparameters())
        source: tuple[Replica, Posterior] | None = None
        forked_from: pb.ForkPoint | None = None
        if request.HasField("fork_from"):
            source = replica, posterior = self._source(request.fork_from, dataset)
            forked_from = pb.ForkPoint(run=replica.run.name, version=posterior.version, run_uid=replica.run.uid)
            values = messages.hyperparameters_message(posterior.hyperparameters)
        values.MergeFrom(request.hyperparameters)
        retention = pb.Retention()
        retention.CopyFrom(messages.RETENTION)
        retention.MergeFrom(request.retention)
        record = storage.RunRecord(
            name=request.name,
            uid=uuid4().hex,
            dataset=dataset.name,
            dataset_uid=dataset.uid,
            hyperparameters=values,
            retention=retention,
            forked_from=forked_from,
            create_time_ms=time.time_ns() // 1_000_000,
        )
        if source is None:
            return self._store.runs.create(record)
        base = fork(source[1], source[0].dataset.tasks, messages.hyperparameters(values))
        return self._store.runs.create(record, messages.snapshot_message(base, b""))

    def _source(self, point: pb.ForkPoint, dataset: storage.DatasetRecord) -> tuple[Replica, Posterior]:
        """Returns the run to fork from, and its posterior there."""
        replica = self._replicas.get(self._store.runs.get(dataset, point.run))
        return replica, replica.at(point.version) if point.HasField("version") else replica.view().posterior

    def _current(self, run: storage.RunRecord) -> pb.Run:
        return current(run, self._replicas.get(run).view().posterior)


def listed(replica: Replica) -> pb.Run | None:
    """Returns a run as it is now; None where it was deleted since it was listed."""
    try:
        return current(replica.run, replica.view().posterior)
    except RunReplaced:
        return None


def current(run: storage.RunRecord, posterior: Posterior) -> pb.Run:
    """Returns a run as it is at the version of `posterior`."""
    return messages.run_message(run, posterior.version, messages.hyperparameters_message(posterior.hyperparameters))


def difference(record: storage.RunRecord, request: pb.CreateRunRequest) -> str:
    """Returns in which fields a run is not what the request asks for; empty: it is.

    Absent fields ask for the defaults, or, where the run is forked, for what the other run has.
    """
    forks = request.HasField("fork_from")
    defaults = record.hyperparameters if forks else messages.hyperparameters_message(Hyperparameters())
    asked = {**messages.present(defaults), **messages.present(request.hyperparameters)}
    asked |= {**messages.present(messages.RETENTION), **messages.present(request.retention)}
    stored = messages.present(record.hyperparameters) | messages.present(record.retention)
    differing = [f"{name} is {stored[name]}, not {asked[name]}" for name in asked if stored[name] != asked[name]]
    fork = request.fork_from
    if record.HasField("forked_from") != forks or record.forked_from.run != fork.run:
        differing.append(f"forked_from.run is {record.forked_from.run!r}, not {fork.run!r}")
    elif fork.HasField("version") and record.forked_from.version != fork.version:
        differing.append(f"forked_from.version is {record.forked_from.version}, not {fork.version}")
    return ", ".join(differing)


def check_hyperparameters(values: pb.Hyperparameters) -> None:
    """Raises InvalidField for a value against its rule."""
    try:
        check(**messages.present(values))
    except InvalidHyperparameter as error:
        raise InvalidField(f"hyperparameters.{error.field}", error.value, f"must be {error.rule}") from None


def check_retention(values: pb.Retention) -> None:
    """Raises InvalidField for a value against its rule."""
    for name, value in messages.present(values).items():
        rules.within(f"retention.{name}", value, *RETENTION_RULES[name])
