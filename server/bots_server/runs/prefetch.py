"""The next selection of a run, drawn while the trainer is busy."""

import threading

from bots_server.core.draw import SelectionSpec
from bots_server.core.posterior import Posterior
from bots_server.core.tasks import Tasks
from bots_server.runs.selection import Drawn, draw

MOST_PAUSED = 15  # selections without a prefetch after one that was not used: 0, 1, 3, 7, then 15 if it goes on


class Prefetch:
    """A draw for the spec of the last selection, made after the reports that answer it.

    As many events are awaited as came between the last two selections, since a trainer may report a batch in parts. If
    prefetches are not used, as when many jobs share the run, they become rare.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spec: SelectionSpec | None = None  # to draw for; None: a selection comes first
        self._ready: Drawn | None = None
        self._version: int | None = None  # that was selected from last
        self._step = 0  # events between the last two selections
        self._unused = 0  # prefetches in a row
        self._pause = 0  # selections without a prefetch, from the next one on

    def make(self, posterior: Posterior, tasks: Tasks) -> None:
        """Draws from the newest posterior, if it is time. A selection that is asked for meanwhile waits for it."""
        with self._lock:
            if self._spec is not None and posterior.version - (self._version or 0) >= self._step:
                spec, self._spec = self._spec, None
                self._ready = draw(posterior, tasks, spec)

    def take(self, posterior: Posterior, tasks: Tasks, spec: SelectionSpec) -> Drawn:
        """Returns a draw for a selection: the prefetched one if it is of this posterior and spec, else a new one.

        Each is used once, so that the distribution is that of drawing at the call (guarantee 4).
        """
        with self._lock:
            ready, self._ready = self._ready, None
            self._step = 0 if self._version is None else posterior.version - self._version
            self._version = posterior.version
            if ready is not None and ready.posterior is posterior and ready.spec == spec:
                self._spec, self._unused = spec, 0
                return ready
            if ready is not None:
                self._pause = min(2**self._unused - 1, MOST_PAUSED)
                self._unused += 1
            else:
                self._pause = max(0, self._pause - 1)
            self._spec = None if self._pause else spec
        return draw(posterior, tasks, spec)
