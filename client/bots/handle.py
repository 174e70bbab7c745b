"""Which run is meant, what is known of it, and what was counted: the part that blocking and asyncio runs share."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from bots import columns
from bots.calls import Steps
from bots.columns import Tasks
from bots.errors import FailedPreconditionError
from bots.outbox import LaneKey
from bots.session_core import SessionCore
from bots.v1 import task_selection_pb2 as pb


@dataclass(frozen=True, kw_only=True)
class Stats:
    """What this run object has done.

    selections, fallback_selections  batches selected, and those of them that were drawn without the service.
    reports                          reports made.
    reports_pending                  reports that wait for the service, of all objects of this run in this process.
    reports_dropped                  reports that waited and were given up.
    retries                          deliveries that were repeated in the background.
    select_seconds, report_seconds   mean time of a call.
    longest_seconds                  the longest of these calls.
    """

    selections: int
    fallback_selections: int
    reports: int
    reports_pending: int
    reports_dropped: int
    retries: int
    select_seconds: float
    report_seconds: float
    longest_seconds: float


class Counters:
    """Counts calls; safe to share among threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.calls = {"select": 0, "report": 0}
        self.seconds = {"select": 0.0, "report": 0.0}
        self.fallback_selections = 0
        self.longest_seconds = 0.0

    def add(self, kind: str, seconds: float, *, fallback: bool = False) -> None:
        """Counts one call."""
        with self._lock:
            self.calls[kind] += 1
            self.seconds[kind] += seconds
            self.fallback_selections += fallback
            self.longest_seconds = max(self.longest_seconds, seconds)

    def mean(self, kind: str) -> float:
        """Returns the mean seconds of a call."""
        return self.seconds[kind] / max(self.calls[kind], 1)


class RunHandle:
    """A run by its names. The first answer of the service fixes which run this is (`uid`).

    created         `create_run` made it; False: it existed; None: another call, or the service was away.
    joined_version  the run's version when this object first heard of it; None: not yet.
    loads           how often a state was loaded.
    """

    def __init__(
        self,
        session: SessionCore,
        batch_type: type[Any],
        dataset: str,
        name: str,
        *,
        uid: str = "",
        created: bool | None = None,
        version: int | None = None,
    ) -> None:
        self.session = session
        self.batch_type = batch_type
        self.dataset = dataset
        self.name = name
        self.created = created
        self.joined_version = version
        self.counters = Counters()
        self._uid = uid
        self._version = version
        self.loads = 0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dataset}/{self.name})"

    @property
    def uid(self) -> str:
        """The run's uid; empty: not known yet."""
        return self._uid

    @property
    def version(self) -> int | None:
        """The newest version that this object has seen; None: none yet."""
        return self._version

    @property
    def lane(self) -> LaneKey:
        """The run's place in the outbox."""
        return self.dataset, self.name

    @property
    def stats(self) -> Stats:
        """What this run object has done."""
        dropped, retries = self.session.outbox.counts(self.lane)
        counters = self.counters
        return Stats(
            selections=counters.calls["select"],
            fallback_selections=counters.fallback_selections,
            reports=counters.calls["report"],
            reports_pending=self.session.outbox.pending(self.lane),
            reports_dropped=dropped,
            retries=retries,
            select_seconds=counters.mean("select"),
            report_seconds=counters.mean("report"),
            longest_seconds=counters.longest_seconds,
        )

    def ref(self) -> pb.RunRef:
        """Returns the message that names this run."""
        return pb.RunRef(dataset=self.dataset, name=self.name, uid=self._uid)

    def saw(self, uid: str, version: int) -> None:
        """Notes an answer about the run. FailedPreconditionError (RUN_REPLACED): it is about another run."""
        if self._uid and uid != self._uid:
            raise FailedPreconditionError(
                f"run {self.dataset}/{self.name}: it was deleted, and another one created under its name",
                code="FAILED_PRECONDITION",
                reason="RUN_REPLACED",
            )
        self._uid = uid
        if self.joined_version is None:
            self.joined_version = version
        self._version = max(version, self._version or 0)

    def sibling(self, name: str, **known: Any) -> Any:
        """Returns another run of the same dataset, of the same class."""
        return type(self)(self.session, self.batch_type, self.dataset, name, **known)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "counters"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.counters = Counters()


def rows_or_ids(
    run: RunHandle, field: str, tasks: Tasks, rows: bool, *, ordered: bool = True
) -> Steps[tuple[list[int], list[str]]]:
    """Returns `columns.rows_or_ids` for the run's dataset. rows: they are row numbers although it has ids."""
    has_ids = False if rows else (yield from run.session.tasks_of(run.dataset, run.name)).has_ids
    return columns.rows_or_ids(field, tasks, has_ids, ordered=ordered)
