"""Operations on a run besides its loop: looking at it, changing it, its history and its place in a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bots import resume
from bots.calls import PAGE, Steps
from bots.columns import Tasks
from bots.errors import TemporaryError, invalid
from bots.handle import RunHandle, rows_or_ids
from bots.history import Checkpoint, Event
from bots.hyperparameters import Hyperparameters, HyperparameterValues, hyperparameters_message
from bots.records import record
from bots.request_ids import new_request_id
from bots.resources import RunInfo
from bots.session_core import DOWNLOAD_SECONDS
from bots.summary import Summary
from bots.v1 import task_selection_pb2 as pb

if TYPE_CHECKING:
    from typing_extensions import Unpack

logger = logging.getLogger("bots")

Floats = npt.NDArray[np.float64]


def info(run: RunHandle) -> Steps[RunInfo]:
    """Returns the run's current hyperparameters and version."""
    return _info(run, (yield from run.session.ask("GetRun", pb.GetRunRequest(run=run.ref()))).run)


def posteriors(
    run: RunHandle, tasks: Tasks | None = None, *, rows: bool = False, timeout: float = DOWNLOAD_SECONDS
) -> Steps[tuple[Floats, Floats]]:
    """Returns (alpha, beta), float64, of all tasks in order, or of the given tasks in the order given, at one version.

    tasks    ids if the dataset has ids, else row numbers. Pending outcomes are counted in.
    rows     `tasks` are row numbers although the dataset has ids.
    timeout  seconds; ten million tasks are 160 MB.
    """
    indices: list[int] = []
    ids: list[str] = []
    if tasks is not None:
        indices, ids = yield from rows_or_ids(run, "tasks", tasks, rows)
        if not indices and not ids:
            return np.empty(0), np.empty(0)
    found: dict[str, Floats] = {"alpha": np.empty(0), "beta": np.empty(0)}

    def take(chunk: pb.GetPosteriorsResponse) -> None:
        run.saw(chunk.run_uid, chunk.version)
        for name, column in found.items():
            if len(column) != chunk.size:
                found[name] = column = np.empty(chunk.size)
            values = getattr(chunk, name)
            column[chunk.offset : chunk.offset + len(values)] = values

    request = pb.GetPosteriorsRequest(run=run.ref(), tasks=indices, ids=ids)
    yield from run.session.ask("GetPosteriors", request, timeout=timeout, each=take)
    return found["alpha"], found["beta"]


def table(run: RunHandle, *, timeout: float = DOWNLOAD_SECONDS) -> Steps[dict[str, Any]]:
    """Returns columns of all tasks at one version: id and tag (if the dataset has them), alpha, beta.

    timeout  seconds.
    """
    about = (yield from run.session.ask("GetDataset", pb.GetDatasetRequest(name=run.dataset))).dataset
    names = [count.tag for count in about.tags]
    columns: dict[str, list[Any]] = {"id": [], "tag": [], "alpha": [], "beta": []}

    def take(chunk: pb.GetPosteriorsResponse) -> None:
        run.saw(chunk.run_uid, chunk.version)
        columns["id"].extend(chunk.ids)
        columns["tag"].extend(names[tag] for tag in chunk.tag)
        columns["alpha"].append(np.array(chunk.alpha))
        columns["beta"].append(np.array(chunk.beta))

    request = pb.GetPosteriorsRequest(run=run.ref(), with_ids=about.has_ids, with_tags=bool(names))
    yield from run.session.ask("GetPosteriors", request, timeout=timeout, each=take)
    found: dict[str, Any] = {name: columns[name] for name in ("id", "tag") if columns[name]}
    return found | {name: np.concatenate([np.empty(0), *columns[name]]) for name in ("alpha", "beta")}


def task_ids(run: RunHandle, *, timeout: float = DOWNLOAD_SECONDS) -> Steps[list[str]]:
    """Returns the ids of all tasks, in order; empty if the dataset has none. timeout: seconds."""
    ids: list[str] = []
    request = pb.GetPosteriorsRequest(run=run.ref(), with_ids=True)
    yield from run.session.ask("GetPosteriors", request, timeout=timeout, each=lambda chunk: ids.extend(chunk.ids))
    return ids


def summary(run: RunHandle) -> Steps[Summary]:
    """Returns how hard the tasks are for the policy now, and how well the model predicts it."""
    request = pb.GetRunSummaryRequest(run=run.ref())
    return read_summary(run, (yield from run.session.ask("GetRunSummary", request)).summary)


def read_summary(run: RunHandle, message: pb.RunSummary) -> Summary:
    """Returns what the message says, and notes the version."""
    found = Summary.of(message)
    run.saw(found.run.uid, found.run.version)
    return found


def update(
    run: RunHandle,
    hyperparameters: Hyperparameters | None = None,
    *,
    request_id: str | None = None,
    **keywords: Unpack[HyperparameterValues],
) -> Steps[RunInfo]:
    """Changes hyperparameters, given as keywords or as `Hyperparameters`, for every trainer of the run."""
    request = pb.UpdateRunRequest(
        run=run.ref(),
        hyperparameters=hyperparameters_message(hyperparameters, keywords),
        job=run.session.job,
        request_id=request_id or new_request_id(),
    )
    return _info(run, (yield from run.session.ask("UpdateRun", request)).run)


def retire(
    run: RunHandle, tasks: Tasks, *, reason: str = "", rows: bool = False, request_id: str | None = None
) -> Steps[int]:
    """Takes tasks out of every selection, because of a broken verifier or a duplicate; returns the number of tasks that
    are retired now.

    tasks   ids if the dataset has ids, else row numbers; 1 to 100000.
    reason  at most 256 bytes, for the history.
    rows    `tasks` are row numbers although the dataset has ids.
    """
    return (yield from _retire(run, tasks, reason, rows, request_id, undo=False))


def unretire(
    run: RunHandle, tasks: Tasks, *, reason: str = "", rows: bool = False, request_id: str | None = None
) -> Steps[int]:
    """Takes retired tasks back; the counterpart of `retire`."""
    return (yield from _retire(run, tasks, reason, rows, request_id, undo=True))


def _retire(run: RunHandle, tasks: Tasks, reason: str, rows: bool, request_id: str | None, *, undo: bool) -> Steps[int]:
    indices, ids = yield from rows_or_ids(run, "tasks", tasks, rows, ordered=False)
    request = pb.RetireTasksRequest(
        run=run.ref(),
        tasks=indices,
        ids=ids,
        undo=undo,
        reason=reason,
        job=run.session.job,
        request_id=request_id or new_request_id(),
    )
    answer = yield from run.session.ask("RetireTasks", request)
    retired: int = answer.retired_tasks
    return retired


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


def _info(run: RunHandle, message: pb.Run) -> RunInfo:
    found = RunInfo.of(message)
    run.saw(found.uid, found.version)
    return found


WATCH_SECONDS = 60.0


def watch_request(run: RunHandle, interval_seconds: float) -> tuple[pb.WatchRunRequest, float]:
    """Returns the request of a watch and its timeout."""
    return pb.WatchRunRequest(run=run.ref(), interval_seconds=interval_seconds), max(WATCH_SECONDS, interval_seconds)
