"""A selection drawn ahead: while the trainer is busy with its rollouts, not while it waits.

A draw depends on nothing but the posterior, the wish and fresh randomness. So one that was made as soon as a report was
folded is as good as one that is made when it is asked for, as long as the posterior is still the same. It is used once,
and dropped unseen where the posterior has moved on: the distribution is that of drawing when asked.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bots_server.core.posterior import Posterior
from bots_server.core.selection import Draw
from bots_server.core.tasks import Tasks

PAUSE = 16  # selections without one drawn ahead, after one that was in vain: many jobs share the run


@dataclass(frozen=True, slots=True)
class Wish:
    """What a selection asks for besides a seed, exclusions and tags; None: the run's."""

    batch_size: int
    target: float | None
    greedy: bool | None
    temperature: float | None


def draw_for(
    rng: np.random.Generator,
    posterior: Posterior,
    tasks: Tasks,
    wish: Wish,
    *,
    excluded: NDArray[np.int64] | None = None,
    tags: Sequence[int] | None = None,
    quotas: Mapping[int, int] | None = None,
) -> Draw:
    """Returns the draw for a wish, from all tasks or from what the rest leaves of them."""
    run = posterior.hyperparameters
    return Draw(
        rng,
        posterior,
        tasks,
        batch_size=wish.batch_size,
        target=run.target if wish.target is None else wish.target,
        greedy=run.greedy if wish.greedy is None else wish.greedy,
        temperature=run.temperature if wish.temperature is None else wish.temperature,
        uniform_fraction=run.uniform_fraction,
        excluded=excluded,
        tags=tags,
        quotas=quotas,
    )


class Ahead:
    """At most one draw ahead for one run; safe to use from many threads. `make` makes a draw for a wish."""

    def __init__(self, make: Callable[[Posterior, Wish], Draw]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._wish: Wish | None = None  # of the last selection, where it is worth to draw ahead of the next
        self._ready: tuple[Posterior, Wish, Draw] | None = None
        self._pause = 0

    def take(self, posterior: Posterior, wish: Wish) -> Draw:
        """Returns a draw for a wish: the one drawn ahead where it fits, else one made now."""
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
        made.offer(spare=0)
        with self._lock:
            self._ready = posterior, wish, made
