"""What all calls of a client share: deadline, job, incarnation, availability, outbox, and the tasks that are known.

`SessionCore` has the policy as operations (see `bots.calls`); `Session` makes them in threads, `bots.aio` in an event
loop. The rules:

 * Only unreachability makes a session go on without the service: UNAVAILABLE without a reason of the service, or no
   answer within the deadline. A report that cannot be stored (STORE_FULL, NOT_DURABLE, CONFLICT) waits in the outbox
   and never holds up a selection.
 * A token that was valid and no longer is, is such a case, too: somebody replaces it, and the training goes on
   meanwhile. If the first call of a session has no valid token, that is an error.
 * A call that lost a race (ABORTED) is repeated in place.
 * In the background, while there is something to do: the service is asked for, the tasks of datasets are learned, and
   the outbox is delivered.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from bots import resume, upload
from bots.availability import Availability
from bots.calls import MOST_BYTES, Call, Pause, Steps, T, drive, has_age, repeated
from bots.channel import Channel
from bots.errors import (
    AlreadyExistsError,
    BotsError,
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    TemporaryError,
    UnauthenticatedError,
    UnavailableError,
    invalid,
)
from bots.fallback import MOST_BYTES as MOST_BYTES_OF_IDS
from bots.fallback import KnownTasks, Texts
from bots.outbox import Entry, LaneKey, Outbox, Storage
from bots.v1 import task_selection_pb2 as pb

logger = logging.getLogger("bots")

# An upload of a million tasks over a slow network to a busy server.
UPLOAD_SECONDS_PER_MILLION_TASKS = 60.0
DOWNLOAD_SECONDS = 60.0
MOST_IDS_REMEMBERED = 10_000
# The ids and tags of a larger dataset are not downloaded: it would take longer than the outages that they bridge.
MOST_TASKS_LEARNED = 5_000_000


class SessionCore:
    """The policy, without the means to call. Safe to share among threads; pickled or forked, it starts anew."""

    def __init__(self, *, timeout: float, job: str, incarnation: str, strict: bool, outbox: str | None) -> None:
        self.timeout = timeout
        self.job = job
        self.incarnation = incarnation
        self.strict = strict
        self.outbox_path = outbox
        self.reset()

    def reset(self) -> None:
        """Starts anew, with an empty outbox."""
        self.availability = Availability()
        self.outbox = Outbox(self._storage)
        self.closed = False
        self._admitted = False  # a call was answered
        self._file: Any = None
        self._lock = threading.Lock()
        self._known: dict[str, KnownTasks] = {}
        self._wanted: dict[str, LaneKey] = {}  # dataset -> a run to learn its tasks through
        self._unstored: dict[str, upload.Columns] = {}  # datasets to store when the service is back
        self._first_sent: OrderedDict[str, float] = OrderedDict()
        self._loads: dict[LaneKey, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        names = ("timeout", "job", "incarnation", "strict", "outbox_path")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.reset()

    def begin(self) -> None:
        """Delivers what an earlier process left in the outbox file. OSError: the file cannot be used."""
        if self.outbox_path is not None and self._file is None and self.outbox.load():
            self.wake()

    def wake(self) -> None:
        """Starts the background work if it is not under way."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------ calls

    def ask(
        self,
        method: str,
        request: Any,
        *,
        timeout: float | None = None,
        requests: Callable[[], Any] | None = None,
        each: Callable[[Any], object] | None = None,
        first_sent: float | None = None,
        patient: bool = True,
    ) -> Steps[Any]:
        """Returns the answer of one call. Raises the errors of `bots.errors`.

        patient  repeat it also if the service says UNAVAILABLE.
        """
        if request is not None and has_age(request) and request.request_id:
            sent = self._sent(request.request_id) if first_sent is None else first_sent
            request.request_age_seconds = max(0.0, time.monotonic() - sent)
        wait = self.strict or self.availability.reachable
        if request is not None and (size := request.ByteSize()) > MOST_BYTES[method]:
            raise invalid("request", f"{size} bytes", f"must be at most {MOST_BYTES[method]} bytes")
        call = Call(method, request, self.timeout if timeout is None else timeout, requests, each, wait)
        try:
            answer = yield from repeated(call, unreachable=wait, unavailable=wait and patient)
        except UnauthenticatedError as error:
            if self.strict or not self._admitted:
                raise
            expired = UnavailableError(f"the token is no longer valid: {error}", code=error.code)
            self.note(expired)
            raise expired from error
        except BotsError as error:
            self.note(error)
            raise
        self._admitted = True
        self.availability.found()
        return answer

    def note(self, error: BotsError) -> None:
        """Draws the conclusions from a failed call."""
        if error.reason:
            self.availability.found()
            return
        self.availability.lost(error)
        if not self.availability.reachable and not self.strict:
            self.wake()

    def _sent(self, request_id: str) -> float:
        """Returns when an id was first sent, by time.monotonic(): now, if it was not."""
        with self._lock:
            sent = self._first_sent.setdefault(request_id, time.monotonic())
            while len(self._first_sent) > MOST_IDS_REMEMBERED:
                self._first_sent.popitem(last=False)
            return sent

    def count_load(self, lane: LaneKey) -> int:
        """Returns how often this process has loaded a state of a run, this time included."""
        with self._lock:
            self._loads[lane] = self._loads.get(lane, 0) + 1
            return self._loads[lane]

    # ------------------------------------------------------------------------------------------------ known tasks

    def known(self, dataset: str) -> KnownTasks | None:
        """Returns what is known of a dataset's tasks, in this process or beside the outbox file."""
        if dataset not in self._known and self.outbox_path is not None:
            self.outbox.load()
            content = self._file.dataset(dataset)
            if content is not None:
                self._known[dataset] = KnownTasks.unpacked(content)
        return self._known.get(dataset)

    def learn(self, dataset: str, tasks: KnownTasks) -> None:
        """Keeps what is known of a dataset's tasks."""
        self._known[dataset] = tasks
        if self.outbox_path is not None:
            self.outbox.load()
            self._file.keep_dataset(dataset, tasks.packed())

    def learn_columns(self, columns: upload.Columns) -> None:
        """Keeps the tasks of a dataset that this process stores."""
        tags = {}
        if columns.tag is not None:
            counts = np.bincount(columns.tag, minlength=len(columns.tags)).tolist()
            tags = dict(zip(columns.tags, counts, strict=True))
        self.learn(
            columns.name,
            KnownTasks(
                size=columns.size,
                has_ids=columns.ids is not None,
                ids=_texts(columns.ids),
                tags=tags,
                tag=None if columns.tag is None else columns.tag.astype(np.int64),
            ),
        )

    def want(self, dataset: str, run: str) -> None:
        """Learns the tasks of a dataset in the background, if they are not known."""
        if not self.strict and dataset not in self._wanted and self.known(dataset) is None:
            self._wanted[dataset] = (dataset, run)
            self.wake()

    def tasks_of(self, dataset: str, run: str) -> Steps[KnownTasks]:
        """Returns what is known of a dataset's tasks, for which the service is asked once."""
        known = self.known(dataset)
        if known is None:
            known = yield from self.ask_for_tasks(dataset, run)
        return known

    def ask_for_tasks(self, dataset: str, run: str, *, columns: bool = False) -> Steps[KnownTasks]:
        """Returns a dataset's tasks as the service knows them, with `columns` their ids and tags too."""
        about = (yield from self.ask("GetDataset", pb.GetDatasetRequest(name=dataset))).dataset
        ids: list[str] = []
        tag: list[npt.NDArray[np.int64]] = []

        def take(chunk: pb.GetPosteriorsResponse) -> None:
            ids.extend(chunk.ids)
            tag.append(np.array(chunk.tag, np.int64))

        incomplete = about.has_ids or len(about.tags) > 0
        if columns and incomplete and about.size <= MOST_TASKS_LEARNED:
            request = pb.GetPosteriorsRequest(
                run=pb.RunRef(dataset=dataset, name=run), with_ids=about.has_ids, with_tags=len(about.tags) > 0
            )
            yield from self.ask("GetPosteriors", request, timeout=DOWNLOAD_SECONDS, each=take)
        tags = {count.tag: count.tasks for count in about.tags}
        every = np.concatenate(tag) if tag else np.empty(0, np.int64)
        tasks = KnownTasks(
            size=about.size,
            has_ids=about.has_ids,
            ids=_texts(ids or None),
            tags=tags,
            tag=every if len(every) == about.size and tags else None,
        )
        if columns or not incomplete:
            self.learn(dataset, tasks)
        return tasks

    def store_later(self, columns: upload.Columns) -> None:
        """Stores a dataset when the service is back."""
        self._unstored[columns.name] = columns
        self.wake()

    def store(
        self, columns: upload.Columns, progress: Callable[[int], object] | None, timeout: float | None
    ) -> Steps[Any]:
        """Returns the answer to the upload of a dataset."""
        if timeout is None:
            timeout = self.timeout + UPLOAD_SECONDS_PER_MILLION_TASKS * columns.size / 1e6
        requests = functools.partial(upload.messages, columns, progress)
        return (yield from self.ask("CreateDataset", None, requests=requests, timeout=timeout))

    # ------------------------------------------------------------------------------------------------ background

    def work(self) -> Steps[float | None]:
        """Does what is to be done in the background now; returns the seconds until there is more, None: nothing is."""
        if not self.availability.reachable:
            if (wait := self.availability.probe_in()) > 0:
                return wait
            try:
                yield from self.ask("ListDatasets", pb.ListDatasetsRequest(page_size=1))
            except BotsError:
                if not self.availability.reachable:
                    return self.availability.probe_in()
        try:
            for columns in list(self._unstored.values()):
                yield from self._store(columns)
            for dataset, (_, run) in list(self._wanted.items()):
                yield from self._learn(dataset, run)
            for lane in self.outbox.lanes():
                if self.outbox.due_in(lane) <= 0:
                    yield from self.deliver(lane)
        except TemporaryError as error:
            return max(self.availability.probe_in(), error.retry_seconds or 1.0)
        return min((self.outbox.due_in(lane) for lane in self.outbox.lanes()), default=None)

    def _store(self, columns: upload.Columns) -> Steps[None]:
        try:
            yield from self.store(columns, None, None)
        except TemporaryError:
            raise
        except BotsError as error:
            logger.error("dataset %s, created while the service was away, is not stored: %s", columns.name, error)
        self._unstored.pop(columns.name, None)

    def _learn(self, dataset: str, run: str) -> Steps[None]:
        try:
            yield from self.ask_for_tasks(dataset, run, columns=True)
        except TemporaryError:
            raise
        except BotsError as error:
            logger.warning("dataset %s: its tasks are not known, so there is no fallback: %s", dataset, error)
        self._wanted.pop(dataset, None)

    def deliver(self, lane: LaneKey) -> Steps[BotsError | None]:
        """Delivers the entries of one run in order; returns the error that kept one, or None."""
        while (entry := self.outbox.claim(lane)) is not None:
            try:
                yield from self.send(entry)
            except (InvalidArgumentError, FailedPreconditionError, AlreadyExistsError) as refusal:
                self.outbox.refused(entry, refusal)
            except BotsError as error:
                self.outbox.released(entry, error)
                return error
            except BaseException:
                self.outbox.released(entry)
                raise
            else:
                self.outbox.delivered(entry)
        if not self.outbox.pending():
            self.availability.restored()
        return None

    def send(self, entry: Entry) -> Steps[Any]:
        """Returns the answer to one entry of the outbox."""
        dataset, run = entry.lane
        match entry.kind:
            case "report" | "unresolved":
                request = pb.ReportOutcomesRequest.FromString(entry.payload)
                if entry.kind == "unresolved" and (yield from self.tasks_of(dataset, run)).has_ids:
                    request.ids.extend(map(str, request.tasks))
                    del request.tasks[:]
                return (yield from self.ask("ReportOutcomes", request, first_sent=entry.first_sent, patient=False))
            case "release":
                request_ = pb.ReleaseSelectionRequest.FromString(entry.payload)
                return (yield from self.ask("ReleaseSelection", request_))
            case "create":
                if dataset in self._unstored:
                    yield from self._store(self._unstored[dataset])
                return (yield from self.ask("CreateRun", pb.CreateRunRequest.FromString(entry.payload)))
            case "resume":
                return (yield from resume.resume_later(self, dataset, run, entry.payload, entry.first_sent))

    @property
    def waiting(self) -> bool:
        """Whether something waits to be delivered."""
        return bool(self._unstored) or self.outbox.load()

    def flush(self, timeout: float | None = None) -> Steps[None]:
        """Delivers what waits now. DeadlineExceededError: something is left when `timeout` (None: the client's) is
        over. Another error of `bots.errors`: something could not be delivered.
        """
        seconds = self.timeout if timeout is None else timeout
        end = time.monotonic() + seconds
        self.outbox.load()
        for columns in list(self._unstored.values()):
            yield from self._store(columns)
        while len(self.outbox):
            for lane in self.outbox.lanes():
                if (error := (yield from self.deliver(lane))) is not None and not isinstance(error, TemporaryError):
                    raise error
                if error is not None and time.monotonic() >= end:
                    raise error
            if len(self.outbox) and time.monotonic() >= end:
                raise DeadlineExceededError(
                    f"flush: {self.outbox.pending()} reports wait still after {seconds:.3g} s",
                    code="DEADLINE_EXCEEDED",
                )
            if not len(self.outbox):
                return
            yield Pause(min(0.05, max(0.0, end - time.monotonic())))  # another caller delivers, or a back-off

    def _storage(self) -> Storage:
        if self.outbox_path is None:
            return Storage()
        from bots.outbox_file import OutboxFile  # some Pythons are built without SQLite

        self._file = OutboxFile(self.outbox_path)
        return self._file  # type: ignore[no-any-return]


def _texts(ids: list[str] | None) -> Texts | None:
    if ids is None or sum(map(len, ids)) + 8 * len(ids) > MOST_BYTES_OF_IDS:
        return None
    return Texts.of(ids)


class Session(SessionCore):
    """A session whose calls block the calling thread; background work has a thread of its own while there is some."""

    def __init__(self, channel: Channel, **settings: Any) -> None:
        self.channel = channel
        super().__init__(**settings)

    def reset(self) -> None:
        """Starts anew, with an empty outbox."""
        super().reset()
        self._worker: threading.Thread | None = None
        self._woken = threading.Event()
        _sessions.add(self)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"channel": self.channel}

    def drive(self, steps: Steps[T], /) -> T:
        """Returns the result of an operation, whose calls block."""
        self.begin()
        return drive(steps, self.channel.call, time.sleep)

    def wake(self) -> None:
        """Starts the background thread, or makes it look again."""
        self._woken.set()
        with self._lock:
            if self._worker is None and not self.closed:
                self._worker = threading.Thread(target=_work, args=(weakref.ref(self),), name="bots", daemon=True)
                self._worker.start()

    def close(self) -> None:
        """Delivers what waits within the timeout, and ends the background work."""
        if self.closed:
            return
        try:
            if self.availability.reachable and self.waiting:
                self.drive(self.flush())
        except BotsError as error:
            logger.warning("%d reports wait still: %s", self.outbox.pending(), error)
        self.closed = True
        self._woken.set()
        if (worker := self._worker) is not None and worker is not threading.current_thread():
            worker.join(self.timeout)
        self.channel.close()
        self.outbox.close()


def _work(reference: weakref.ref[Session]) -> None:
    """Works in the background until nothing is left, or the session is gone."""
    while (session := reference()) is not None and not session.closed:
        session._woken.clear()
        try:
            wait = session.drive(session.work())
        except BotsError as error:
            logger.warning("background delivery: %s", error)
            wait = 1.0
        except RuntimeError:  # the client was closed
            return
        if wait is None:
            with session._lock:
                if not session._woken.is_set():
                    session._worker = None
                    return
            continue
        woken = session._woken
        del session
        woken.wait(wait)


_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def _at_exit() -> None:
    for session in tuple(_sessions):
        session.close()


def _after_fork() -> None:
    for session in tuple(_sessions):
        session.reset()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork)
