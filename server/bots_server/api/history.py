"""CreateCheckpoint, ListCheckpoints, DeleteCheckpoint, RestoreRun, UndoReport, ListEvents: a run's past."""

import logging
from uuid import uuid4

from bots.v1 import task_selection_pb2 as pb
from bots_server.api import checks, messages
from bots_server.api.identity import Change
from bots_server.core.posterior import Posterior, Restored, Undone
from bots_server.errors import InvalidField, VersionMismatch
from bots_server.runs.registry import Registry
from bots_server.runs.replica import Replica
from bots_server.runs.undo import without
from bots_server.storage.v1 import storage_pb2 as storage
from bots_server.store import Appended, Store, codec
from bots_server.telemetry.metrics import Metrics

MAX_TTL_SECONDS = 315_360_000.0  # ten years
MAX_EVENTS = 10_000
MAX_VERSION = 2**53

log = logging.getLogger(__name__)


class HistoryHandlers:
    def __init__(self, store: Store, registry: Registry, metrics: Metrics) -> None:
        self._store, self._registry, self._metrics = store, registry, metrics

    def create_checkpoint(self, request: pb.CreateCheckpointRequest, run: Replica) -> pb.CreateCheckpointResponse:
        checks.name("name", request.name)
        ttl = None
        if request.HasField("ttl_seconds"):
            ttl = checks.above_zero("ttl_seconds", request.ttl_seconds, MAX_TTL_SECONDS)
        if request.HasField("version"):
            posterior = run.at(checks.at_least_zero("version", request.version))
        else:
            posterior = run.view().posterior
        state = codec.snapshot_message(posterior)
        if self._store.checkpoints.find(run.record, request.name) is None:
            self._store.quotas.require(run.record.owner, checkpoints=1, bytes=state.ByteSize())
        record = storage.Checkpoint(name=request.name, version=posterior.version, state_uid=uuid4().hex)
        kept = self._store.checkpoints.put(run.record, record, state, ttl)
        return pb.CreateCheckpointResponse(checkpoint=messages.checkpoint(kept))

    def list_checkpoints(self, request: pb.ListCheckpointsRequest, run: Replica) -> pb.ListCheckpointsResponse:
        page = checks.page(request.page_size, request.page_token, "checkpoints", run.record.uid)
        found = self._store.checkpoints.list(run.record, page.after, page.size)
        token = page.next_token([one.name for one in found])
        return pb.ListCheckpointsResponse(checkpoints=map(messages.checkpoint, found), next_page_token=token)

    def delete_checkpoint(self, request: pb.DeleteCheckpointRequest, run: Replica) -> pb.DeleteCheckpointResponse:
        self._store.checkpoints.delete(run.record, checks.name("name", request.name))
        return pb.DeleteCheckpointResponse()

    def restore_run(self, request: pb.RestoreRunRequest, run: Replica) -> pb.RestoreRunResponse:
        point = request.WhichOneof("point")
        if point is None:
            raise InvalidField("point", None, "must be a checkpoint or a version")
        if point == "checkpoint":
            checks.name("checkpoint", request.checkpoint)
        else:
            checks.at_least_zero("version", request.version)
        expected = request.expected_version if request.HasField("expected_version") else None
        content = "restore", point, getattr(request, point), expected
        change = Change(self._store, self._registry, run, request, *content)
        if (done := change.first_answer()) is None:
            posterior = self._state(run, request)
            state = codec.snapshot_message(posterior)
            self._store.quotas.require(run.record.owner, bytes=state.ByteSize())
            event = Restored(posterior)
            done = change.append(event, state=state, checkpoint=request.checkpoint, expected_version=expected)
            self._metrics.leases_ended("ended", done.released)
        run.recover(done.version)
        return pb.RestoreRunResponse(version=done.version, run_uid=run.record.uid, repeated_request=done.repeated)

    def undo_report(self, request: pb.UndoReportRequest, run: Replica) -> pb.UndoReportResponse:
        version = checks.within("version", request.version, 1, MAX_VERSION)
        change = Change(self._store, self._registry, run, request, "undo", version)
        done = change.first_answer() or self._undo(change, run, version)
        return pb.UndoReportResponse(version=done.version, run_uid=run.record.uid, repeated_request=done.repeated)

    def list_events(self, request: pb.ListEventsRequest, run: Replica) -> pb.ListEventsResponse:
        page = checks.page(request.page_size, request.page_token, "events", run.record.uid, high=MAX_EVENTS)
        after = int(page.after) if page.after else checks.within("after_version", request.after_version, 0, MAX_VERSION)
        found = self._store.history.events(run.record, after, page.size)
        end = found.events[-1].version if found.events else found.version
        return pb.ListEventsResponse(
            events=map(messages.event, found.events),
            next_page_token=page.token(str(end)) if end < found.version else "",
            version=found.version,
        )

    def _undo(self, change: Change, run: Replica, version: int) -> Appended:
        """Appends the event that takes a report out, after the newest event that its state has."""
        # Once, and of the state with the report, which is about as large: while quotas are read, reports go on.
        size = codec.snapshot_message(run.view().posterior).ByteSize()
        self._store.quotas.require(run.record.owner, bytes=size)
        for posterior in without(self._store, run, version):
            state = codec.snapshot_message(posterior)
            try:
                return change.append(Undone(version, posterior), state=state, expected_version=posterior.version)
            except VersionMismatch:
                log.debug("run %s: another event came before the undo of version %d", run.record.name, version)
        raise AssertionError("`without` raises Conflict after its last state")

    def _state(self, run: Replica, request: pb.RestoreRunRequest) -> Posterior:
        """Returns the state to go back to."""
        if request.checkpoint:
            _, snapshot = self._store.checkpoints.get(run.record, request.checkpoint)
            return codec.posterior(snapshot, run.dataset.tasks)
        return run.at(request.version)
