"""Operations on a run's history: events, checkpoints, the ways back, and its place in a trainer's checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from bots import resume
from bots.calls import PAGE, Steps
from bots.errors import TemporaryError, invalid
from bots.handle import RunHandle
from bots.history import Checkpoint, Event
from bots.records import record
from bots.request_ids import new_request_id
from bots.run_operations import info
from bots.session_core import DOWNLOAD_SECONDS
from bots.v1 import task_selection_pb2 as pb

logger = logging.getLogger("bots")


def checkpoint(
    run: RunHandle, name: str, *, version: int | None = None, ttl_seconds: float | None = None
) -> Steps[Checkpoint]:
    """Keeps a version (None: the newest) under a name, for `ttl_seconds` (None: until it is deleted).

    A repeat with the same version returns the same. AlreadyExistsError: the name holds another version.
    """
    if version is None:
        # Named, so that a repeat of the call means the same version.
        version = (yield from info(run)).version
    request = pb.CreateCheckpointRequest(run=run.ref(), name=name, version=version, ttl_seconds=ttl_seconds)
    return record(Checkpoint, (yield from run.session.ask("CreateCheckpoint", request)).checkpoint)


def checkpoints(run: RunHandle, page_token: str) -> Steps[tuple[list[Checkpoint], str]]:
    """Iterates over the run's checkpoints, by name."""
    request = pb.ListCheckpointsRequest(run=run.ref(), page_size=PAGE, page_token=page_token)
    page = yield from run.session.ask("ListCheckpoints", request)
    return [record(Checkpoint, one) for one in page.checkpoints], page.next_page_token


def delete_checkpoint(run: RunHandle, name: str) -> Steps[None]:
    """Deletes a checkpoint. NotFoundError: there is none of that name."""
    yield from run.session.ask("DeleteCheckpoint", pb.DeleteCheckpointRequest(run=run.ref(), name=name))


def restore(
    run: RunHandle,
    *,
    checkpoint: str | None = None,
    version: int | None = None,
    expected_version: int | None = None,
    request_id: str | None = None,
) -> Steps[int]:
    """Goes back to a checkpoint or to a version of the history, for every trainer; returns the new version.

    It is an event: the version increases, nothing is rewritten. All leases of the run end. FailedPreconditionError
    (VERSION_MISMATCH): the run's version is not `expected_version`. NotFoundError (VERSION_NOT_FOUND): the version is
    no longer kept.
    """
    if (checkpoint is None) == (version is None):
        raise invalid("restore", "both or neither", "must have exactly one of checkpoint and version")
    request = pb.RestoreRunRequest(
        run=run.ref(),
        expected_version=expected_version,
        job=run.session.job,
        request_id=request_id or new_request_id(),
    )
    if checkpoint is not None:
        request.checkpoint = checkpoint
    elif version is not None:
        request.version = version
    answer = yield from run.session.ask("RestoreRun", request)
    run.saw(answer.run_uid, answer.version)
    restored: int = answer.version
    return restored


def undo(
    run: RunHandle, version: int, *, request_id: str | None = None, timeout: float = DOWNLOAD_SECONDS
) -> Steps[int]:
    """Takes the report that made `version` out of the run's state, for every trainer; returns the new version.

    The state becomes what the other events give without it; reports that came after it stay. It is an event: the
    version increases, nothing is rewritten. FailedPreconditionError (REPORT_NOT_COUNTED): the version is not a report,
    or its report is not in the state any more. NotFoundError (VERSION_NOT_FOUND): the history does not reach back to
    before the report.

    timeout  seconds; the events since the report are applied again.
    """
    request = pb.UndoReportRequest(
        run=run.ref(), version=version, job=run.session.job, request_id=request_id or new_request_id()
    )
    answer = yield from run.session.ask("UndoReport", request, timeout=timeout)
    run.saw(answer.run_uid, answer.version)
    undone: int = answer.version
    return undone


def events(run: RunHandle, page_token: str, *, after_version: int | None = None) -> Steps[tuple[list[Event], str]]:
    """Iterates over the history, oldest first: the events above `after_version` (None: from the oldest kept)."""
    request = pb.ListEventsRequest(run=run.ref(), after_version=after_version, page_size=PAGE, page_token=page_token)
    page = yield from run.session.ask("ListEvents", request)
    return [Event.of(event) for event in page.events], page.next_page_token


def state_dict(run: RunHandle, *, ttl_seconds: float | None = resume.KEEP_SECONDS) -> Steps[dict[str, Any]]:
    """Returns the run's place for the trainer's own checkpoint, fit for JSON; see `bots.resume`.

    If the service is away, it is the newest version that this object has seen, and not kept on the server.

    ttl_seconds  keep the present version on the server for this long; None: as long as the history has it.
    """
    session = run.session
    version, kept = run.version, None
    if session.strict or session.availability.reachable:
        try:
            version = (yield from info(run)).version
            if ttl_seconds is not None:
                name = f"state-{version}"
                kept = (yield from checkpoint(run, name, version=version, ttl_seconds=ttl_seconds)).name
        except TemporaryError as error:
            if session.strict:
                raise
            logger.warning("run %s/%s: its state is version %s, not kept: %s", *run.lane, version, error)
    return {
        "dataset": run.dataset,
        "run": run.name,
        "run_uid": run.uid,
        "version": version,
        "checkpoint": kept,
        "job": session.job,
    }


def load_state_dict(
    run: RunHandle, state: Mapping[str, Any], *, fork_as: str | None = None
) -> Steps[resume.Resumed[Any]]:
    """Goes back to a state if no other job is in the way, and says what was done; see `bots.resume`.

    fork_as  if another job is in the way: start a run of this name at the state, which is `Resumed.run`.
    """
    resume.check(state, run.dataset, run.name)
    session = run.session
    load = session.count_load(run.lane)
    run.loads = load
    if session.strict or (session.availability.reachable and not session.outbox.pending(run.lane)):
        try:
            done = yield from resume.resume(session, run.ref(), state, load)
        except TemporaryError as error:
            if session.strict:
                raise
            logger.warning("run %s/%s: its state is loaded when the service is back: %s", *run.lane, error)
        else:
            if done.action == "kept" and fork_as is not None and state["version"] is not None:
                return (yield from _fork(run, state, done, fork_as))
            run.saw(run.uid or state["run_uid"], done.version)
            return resume.Resumed(done.action, done.version, run, done.others)
    session.outbox.add(run.lane, "resume", resume.deferred(state, load))
    session.wake()
    return resume.Resumed("deferred", None, run)


def _fork(run: RunHandle, state: Mapping[str, Any], done: resume.Outcome, fork_as: str) -> Steps[resume.Resumed[Any]]:
    request = pb.CreateRunRequest(
        dataset=run.dataset, name=fork_as, fork_from=pb.ForkPoint(run=run.name, version=state["version"])
    )
    answer = yield from run.session.ask("CreateRun", request)
    made = answer.run
    logger.warning("run %s/%s is shared (%s): it goes on as %s", *run.lane, ", ".join(done.others), fork_as)
    fork = run.sibling(fork_as, uid=made.ref.uid, created=answer.created, version=made.version)
    return resume.Resumed("forked", made.version, fork, done.others)
