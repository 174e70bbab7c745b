"""A selection drawn ahead: while the trainer is busy with its rollouts, not while it waits.

A draw depends on nothing but the posterior, the wish and fresh randomness. So one that was made as soon as a report was
folded is as good as one that is made when it is asked for, as long as the posterior is still the same. It is used once,
and dropped unseen where the posterior has moved on: the distribution is that of drawing when asked.
"""

import threading
from collections.abc import Callable

from bots_server.core.posterior import Posterior
from bots_server.selection import Selection, Wish

PAUSE = 16  # selections without one drawn ahead, after one that was in vain: many jobs share the run


class Ahead:
    """At most one selection ahead for one run; safe to use from many threads. `make` makes one for a wish."""

    def __init__(self, make: Callable[[Posterior, Wish], Selection]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._wish: Wish | None = None  # of the last selection, where it is worth to draw ahead of the next
        self._ready: tuple[Posterior, Wish, Selection] | None = None
        self._pause = 0

    def take(self, posterior: Posterior, wish: Wish) -> Selection:
        """Returns a selection for a wish: the one drawn ahead where it fits, else one made now."""
        with self._lock:
            ready, self._ready = self._ready, None
            fits = ready is not None and ready[0] is posterior and ready[1] == wish
            if ready is not None and not fits:
                self._pause = PAUSE
            self._pause = max(0, self._pause - 1)
            self._wish = None if self._pause else wish
        if ready is not None and fits:
            return ready[2]
        return self._make(posterior, wish)

    def prepare(self, posterior: Posterior) -> None:
        """Draws for the next selection, should it ask for the same as the last and find this posterior."""
        with self._lock:
            wish, self._wish = self._wish, None
        if wish is None:
            return
        made = self._make(posterior, wish)
        made.answer()  # it keeps it; where tasks are leased, the claim takes the candidates that this has drawn
        with self._lock:
            self._ready = posterior, wish, made
