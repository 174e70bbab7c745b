"""Long calls are bounded: each holds a thread for as long as its caller likes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from bots_server.errors import TooManyCalls


class LongCalls:
    """At most `limit` of WatchRun, GetPosteriors and CreateDataset at once. Short calls have threads of their own."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._free = threading.BoundedSemaphore(limit)

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Admits one call for the duration of the block. Raises TooManyCalls."""
        if not self._free.acquire(blocking=False):
            raise TooManyCalls(self._limit)
        try:
            yield
        finally:
            self._free.release()
