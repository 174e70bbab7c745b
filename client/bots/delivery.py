"""What waits for the service: datasets to store, datasets whose tasks are to be learned, and the outbox.

`work` delivers it in the background, while there is something to do; `flush` delivers it now.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Any

from bots import resume, upload
from bots.calls import Pause, Steps
from bots.errors import (
    AlreadyExistsError,
    BotsError,
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    TemporaryError,
)
from bots.outbox import Entry, LaneKey
from bots.session_core import SessionCore
from bots.v1 import task_selection_pb2 as pb

logger = logging.getLogger("bots")

# An upload of a million tasks over a slow network to a busy server.
UPLOAD_SECONDS_PER_MILLION_TASKS = 60.0


def work(session: SessionCore) -> Steps[float | None]:
    """Asks for the service if it is away, and does what is due; returns the seconds until more is, None: nothing is."""
    if not session.availability.reachable:
        if (wait := session.availability.probe_in()) > 0:
            return wait
        try:
            yield from session.ask("ListDatasets", pb.ListDatasetsRequest(page_size=1))
        except BotsError:
            if not session.availability.reachable:
                return session.availability.probe_in()
    try:
        for columns in list(session.unstored.values()):
            yield from _store(session, columns)
        for dataset, run in list(session.wanted.items()):
            yield from _learn(session, dataset, run)
        for lane in session.outbox.lanes():
            if session.outbox.due_in(lane) <= 0:
                yield from deliver(session, lane)
    except TemporaryError as error:
        return max(session.availability.probe_in(), error.retry_seconds or 1.0)
    return min((session.outbox.due_in(lane) for lane in session.outbox.lanes()), default=None)


def flush(session: SessionCore, timeout: float | None = None) -> Steps[None]:
    """Delivers what waits now. DeadlineExceededError: something is left when `timeout` (None: the client's) is
    over. Another error of `bots.errors`: something could not be delivered.
    """
    seconds = session.timeout if timeout is None else timeout
    end = time.monotonic() + seconds
    session.outbox.load()
    for columns in list(session.unstored.values()):
        yield from _store(session, columns)
    while len(session.outbox):
        for lane in session.outbox.lanes():
            if (error := (yield from deliver(session, lane))) is not None and not isinstance(error, TemporaryError):
                raise error
            if error is not None and time.monotonic() >= end:
                raise error
        if len(session.outbox) and time.monotonic() >= end:
            raise DeadlineExceededError(
                f"flush: {session.outbox.pending()} reports wait still after {seconds:.3g} s",
                code="DEADLINE_EXCEEDED",
            )
        if not len(session.outbox):
            return
        yield Pause(min(0.05, max(0.0, end - time.monotonic())))  # another caller delivers, or a back-off


def deliver(session: SessionCore, lane: LaneKey) -> Steps[BotsError | None]:
    """Delivers the entries of one run in order; returns the error that kept one, or None."""
    while (entry := session.outbox.claim(lane)) is not None:
        try:
            yield from send(session, entry)
        except (InvalidArgumentError, FailedPreconditionError, AlreadyExistsError) as refusal:
            session.outbox.refused(entry, refusal)
        except BotsError as error:
            session.outbox.released(entry, error)
            return error
        except BaseException:
            session.outbox.released(entry)
            raise
        else:
            session.outbox.delivered(entry)
    if not session.outbox.pending():
        session.availability.restored()
    return None


def send(session: SessionCore, entry: Entry) -> Steps[Any]:
    """Returns the answer to one entry of the outbox."""
    dataset, run = entry.lane
    match entry.kind:
        case "report" | "unresolved":
            request = pb.ReportOutcomesRequest.FromString(entry.payload)
            if entry.kind == "unresolved" and (yield from session.tasks_of(dataset, run)).has_ids:
                request.ids.extend(map(str, request.tasks))
                del request.tasks[:]
            return (yield from session.ask("ReportOutcomes", request, first_sent=entry.first_sent, patient=False))
        case "release":
            request_ = pb.ReleaseSelectionRequest.FromString(entry.payload)
            return (yield from session.ask("ReleaseSelection", request_))
        case "create":
            if dataset in session.unstored:
                yield from _store(session, session.unstored[dataset])
            return (yield from session.ask("CreateRun", pb.CreateRunRequest.FromString(entry.payload)))
        case "resume":
            return (yield from resume.resume_later(session, dataset, run, entry.payload, entry.first_sent))


def store(
    session: SessionCore, columns: upload.Columns, progress: Callable[[int], object] | None, timeout: float | None
) -> Steps[Any]:
    """Returns the answer to the upload of a dataset."""
    if timeout is None:
        timeout = session.timeout + UPLOAD_SECONDS_PER_MILLION_TASKS * columns.size / 1e6
    requests = functools.partial(upload.messages, columns, progress)
    return (yield from session.ask("CreateDataset", None, requests=requests, timeout=timeout))


def store_later(session: SessionCore, columns: upload.Columns) -> None:
    """Stores a dataset when the service is back."""
    session.unstored[columns.name] = columns
    session.wake()


def _store(session: SessionCore, columns: upload.Columns) -> Steps[None]:
    try:
        yield from store(session, columns, None, None)
    except TemporaryError:
        raise
    except BotsError as error:
        logger.error("dataset %s, created while the service was away, is not stored: %s", columns.name, error)
    session.unstored.pop(columns.name, None)


def _learn(session: SessionCore, dataset: str, run: str) -> Steps[None]:
    try:
        yield from session.ask_for_tasks(dataset, run, columns=True)
    except TemporaryError:
        raise
    except BotsError as error:
        logger.warning("dataset %s: its tasks are not known, so there is no fallback: %s", dataset, error)
    session.wanted.pop(dataset, None)
