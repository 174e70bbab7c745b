"""Reports that wait for the service to be back; see `bots.fallback`."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from bots.errors import FailedPreconditionError, InvalidArgumentError
from bots.v1 import task_selection_pb2 as pb

logger = logging.getLogger("bots")

Report = pb.ReportOutcomesRequest


class Deadline:
    """One call's time, shared by the calls that it is made of."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds
        # Older reports get the first half, so that the call itself gets its turn.
        self.half = self.end - seconds / 2

    def left(self) -> float:
        """Seconds left, a little at least, so that a call is made."""
        return max(0.001, self.end - time.monotonic())


class Outbox:
    """Reports that could not be delivered yet, oldest first. Safe to share among threads; pickled or forked, it is
    empty: only the original sends what it keeps."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._forget()

    def _forget(self) -> None:
        self._reports: deque[Report] = deque()
        self.dropped = 0
        # Held for moments, never while a report is sent.
        self._lock = threading.Lock()
        # Held by the thread that delivers; of its reports one is under way or none, the oldest.
        self._turn = threading.Lock()
        self._under_way = 0
        _outboxes.add(self)

    def __len__(self) -> int:
        return len(self._reports)

    def keep(self, report: Report) -> None:
        """Keeps a report to be sent later; beyond the bound the oldest that is not under way is dropped."""
        with self._lock:
            self._reports.append(report)
            if len(self._reports) <= self._most:
                return
            oldest = self._reports[self._under_way]
            del self._reports[self._under_way]
        self._drop(oldest, "too many are pending")

    def deliver(self, send: Callable[[Report], object], until: float) -> bool:
        """Sends the oldest reports, one thread at a time, and returns whether none is left; it stops when
        time.monotonic() is `until`, or when `send` raises, which keeps the report.

        One that breaks a rule, or that the state of its run rules out, will never be accepted: it is dropped, which is
        logged and counted. Whatever else is wrong (a token, a run that is not there while Redis is put back, a fault of
        the service) may be mended.
        """
        if not self:
            return True
        if not self._turn.acquire(timeout=max(0.0, until - time.monotonic())):
            return False
        try:
            while (report := self._oldest()) is not None:
                if time.monotonic() >= until:
                    return False
                try:
                    send(report)
                except (InvalidArgumentError, FailedPreconditionError) as refusal:
                    self._drop(report, str(refusal))
                with self._lock:
                    self._reports.popleft()
                    self._under_way = 0
            return True
        finally:
            self._under_way = 0
            self._turn.release()

    def _oldest(self) -> Report | None:
        with self._lock:
            self._under_way = min(1, len(self._reports))
            return self._reports[0] if self._reports else None

    def _drop(self, report: Report, why: str) -> None:
        with self._lock:
            self.dropped += 1
        logger.warning("report %s of run %s/%s is dropped: %s", report.request_id, report.dataset, report.run, why)

    def __getstate__(self) -> dict[str, Any]:
        return {"_most": self._most}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()


_outboxes: weakref.WeakSet[Outbox] = weakref.WeakSet()


def _after_fork() -> None:
    for outbox in tuple(_outboxes):
        outbox._forget()


os.register_at_fork(after_in_child=_after_fork)
