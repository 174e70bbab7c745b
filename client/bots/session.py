"""A session whose operations run in the calling thread."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from typing import Any

from bots.calls import Steps, T, drive
from bots.channel import Channel
from bots.delivery import flush, work
from bots.errors import BotsError
from bots.session_core import SessionCore

logger = logging.getLogger("bots")


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
                self.drive(flush(self))
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
            wait = session.drive(work(session))
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
