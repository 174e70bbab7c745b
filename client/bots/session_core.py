"""What all calls of a client share: deadline, job, incarnation, availability, outbox, and the tasks that are known.

`SessionCore` has the policy as operations (see `bots.calls`), which `bots.session` runs in threads and `bots.aio` in an
event loop. The rules:

 * Only unreachability makes a session go on without the service: UNAVAILABLE without a reason of the service, or no
   answer within the deadline. A report that cannot be stored (STORE_FULL, NOT_DURABLE, CONFLICT) waits in the outbox
   and never holds up a selection.
 * A token that was valid and no longer is, is such a case, too: somebody replaces it, and the training goes on
   meanwhile. If the first call of a session has no valid token, that is an error.
 * A call that lost a race (ABORTED) is repeated in place.
 * What waits for the service is delivered in the background (`bots.delivery`).
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from bots import upload
from bots.availability import Availability
from bots.calls import MOST_BYTES, Call, Steps, has_age, repeated
from bots.errors import BotsError, UnauthenticatedError, UnavailableError, invalid
from bots.fallback import KnownTasks, packed_ids
from bots.outbox import LaneKey, Outbox, Storage
from bots.v1 import task_selection_pb2 as pb

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
        self.wanted: dict[str, str] = {}  # dataset -> a run to learn its tasks through
        self.unstored: dict[str, upload.Columns] = {}  # datasets to store when the service is back
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

    @property
    def waiting(self) -> bool:
        """Whether something waits to be delivered."""
        return bool(self.unstored) or self.outbox.load()

    def _storage(self) -> Storage:
        if self.outbox_path is None:
            return Storage()
        from bots.outbox_file import OutboxFile  # some Pythons are built without SQLite

        self._file = OutboxFile(self.outbox_path)
        return self._file  # type: ignore[no-any-return]

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
                ids=packed_ids(columns.ids),
                tags=tags,
                tag=None if columns.tag is None else columns.tag.astype(np.int64),
            ),
        )

    def want(self, dataset: str, run: str) -> None:
        """Learns the tasks of a dataset in the background, if they are not known."""
        if not self.strict and dataset not in self.wanted and self.known(dataset) is None:
            self.wanted[dataset] = run
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
            ids=packed_ids(ids or None),
            tags=tags,
            tag=every if len(every) == about.size and tags else None,
        )
        if columns or not incomplete:
            self.learn(dataset, tasks)
        return tasks
