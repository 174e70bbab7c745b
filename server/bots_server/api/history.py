"""CreateCheckpoint, ListCheckpoints, DeleteCheckpoint, RestoreRun, ListEvents: a run's past."""

import time
from uuid import uuid4

from bots.v1 import task_selection_pb2 as pb
from bots_server.api import messages
from bots_server.core.posterior import Posterior
from bots_server.runs.registry import Replicas
from bots_server.service import rules
from bots_server.service.directory import Directory
from bots_server.service.request_ids import content_digest, uuid7
from bots_server.storage.v1 import storage_pb2 as storage
from bots_server.store import Store

MAX_TTL_SECONDS = 315_360_000.0  # ten years
MAX_EVENTS = 10_000


class HistoryHandlers:
    """Versions: kept, gone back to, listed."""

    def __init__(self, store: Store, directory: Directory, replicas: Replicas) -> None:
        self._store, self._directory, self._replicas = store, directory, replicas

    def create_checkpoint(self, request: pb.CreateCheckpointRequest) -> pb.CreateCheckpointResponse:
        rules.name("name", request.name)
        if request.HasField("version"):
            rules.require(request.version >= 0, "version", request.version, "must be >= 0")
        if request.HasField("ttl_seconds"):
            rules.positive("ttl_seconds", request.ttl_seconds, MAX_TTL_SECONDS)
        now = time.time_ns() // 1_000_000

        def act(run: storage.RunRecord) -> pb.CreateCheckpointResponse:
            posterior = self._at(run, request.version if request.HasField("version") else None)
            checkpoint = self._store.checkpoints.put(
                run,
                storage.Checkpoint(
                    name=request.name,
                    version=posterior.version,
                    state_uid=uuid4().hex,
                    create_time_ms=now,
                ),
                messages.snapshot_message(posterior, b""),
                request.ttl_seconds if request.HasField("ttl_seconds") else None,
            )
            return pb.CreateCheckpointResponse(checkpoint=messages.checkpoint_message(checkpoint))

        return self._directory.with_run(request.dataset, request.run, request.run_uid, act)

    def list_checkpoints(self, request: pb.ListCheckpointsRequest) -> pb.ListCheckpointsResponse:
        found = self._directory.with_run(request.dataset, request.run, "", self._store.checkpoints.list)
        return pb.ListCheckpointsResponse(checkpoints=map(messages.checkpoint_message, found))

    def delete_checkpoint(self, request: pb.DeleteCheckpointRequest) -> pb.DeleteCheckpointResponse:
        rules.name("name", request.name)

        def act(run: storage.RunRecord) -> pb.DeleteCheckpointResponse:
            self._store.checkpoints.delete(run, request.name)
            return pb.DeleteCheckpointResponse()

        return self._directory.with_run(request.dataset, request.run, "", act)

    def restore(self, request: pb.RestoreRunRequest) -> pb.RestoreRunResponse:
        point = request.WhichOneof("point")
        rules.require(point is not None, "point", rules.Told("absent"), "must be a checkpoint or a version")
        if point == "checkpoint":
            rules.name("checkpoint", request.checkpoint)
        else:
            rules.require(request.version >= 0, "version", request.version, "must be >= 0")
        rules.job(request.job)
        request_id = rules.request_id(request.request_id) or uuid7()

        def act(run: storage.RunRecord) -> pb.RestoreRunResponse:
            if request.checkpoint:
                posterior = messages.posterior(self._store.checkpoints.get(run, request.checkpoint)[1])
            else:
                posterior = self._at(run, request.version)
            appended = self._store.history.append(
                run,
                storage.Event(
                    time_ms=time.time_ns() // 1_000_000,
                    job=request.job,
                    request_id=request_id,
                    restored=storage.Restored(
                        version=posterior.version, state_uid=uuid4().hex, checkpoint=request.checkpoint
                    ),
                ),
                request_id=request_id,
                digest=content_digest(request),
                expected_version=request.expected_version if request.HasField("expected_version") else None,
                # Kept beside the event for as long as that, so that folding never looks back.
                state=messages.snapshot_message(posterior, b""),
            )
            self._replicas.snapshot_if_due(run, appended.version, appended.snapshot_version)
            return pb.RestoreRunResponse(version=appended.version, run_uid=run.uid)

        return self._directory.with_run(request.dataset, request.run, request.run_uid, act)

    def list_events(self, request: pb.ListEventsRequest) -> pb.ListEventsResponse:
        after = rules.within("after_version", request.after_version, 0, 2**53)
        limit = rules.within("limit", request.limit, 1, MAX_EVENTS) if request.HasField("limit") else 100

        def act(run: storage.RunRecord) -> pb.ListEventsResponse:
            page = self._store.history.events(run, after, limit)
            return pb.ListEventsResponse(
                events=[messages.event_message(entry.version, entry.event) for entry in page.events],
                version=page.version,
            )

        return self._directory.with_run(request.dataset, request.run, "", act)

    def _at(self, run: storage.RunRecord, version: int | None) -> Posterior:
        replica = self._replicas.get(run)
        return replica.view().posterior if version is None else replica.at(version)
