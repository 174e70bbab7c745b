"""Memory for datasets while they are loaded or uploaded, bounded together with what is held."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bots_server.errors import DeadlineExceeded, QuotaExceeded
from bots_server.store import remaining

LOADED_TASK_BYTES = 48  # most that the arrays of a task take while it is loaded, without ids and features
LOADED_COPIES = 4  # of the stored bytes, while a dataset is loaded
UPLOADED_TASK_BYTES = 40  # of a task with an id while all ids of an upload are compared


class Memory:
    """Bytes that loads and uploads take, at most `limit` together; a single load may take more.

    changed: called after a reservation, to drop what is held and not in use
    """

    def __init__(self, limit: int, changed: Callable[[], None] = lambda: None) -> None:
        self.limit = limit
        self.taken = 0
        self._changed = changed
        self._free = threading.Condition()

    @contextmanager
    def for_load(self, needed: int) -> Iterator[None]:
        """Reserves `needed` bytes for the block; waits for other loads until there is room. Raises DeadlineExceeded."""
        with self._free:
            if not self._free.wait_for(lambda: not self.taken or self.taken + needed <= self.limit, remaining()):
                raise DeadlineExceeded
            self.taken += needed
        self._changed()
        try:
            yield
        finally:
            self._give_back(needed)

    @contextmanager
    def for_upload(self) -> Iterator[Callable[[int], None]]:
        """Yields what reserves more bytes until the end of the block. That raises QuotaExceeded if there is no room."""
        own = 0

        def grow(by: int) -> None:
            nonlocal own
            with self._free:
                if self.taken + by > self.limit:
                    raise QuotaExceeded("max_memory_bytes", self.limit, self.taken, by, "bytes for loads and uploads")
                self.taken += by
                own += by
            self._changed()

        try:
            yield grow
        finally:
            self._give_back(own)

    def _give_back(self, taken: int) -> None:
        with self._free:
            self.taken -= taken
            self._free.notify_all()
