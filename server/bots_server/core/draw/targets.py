"""Tasks in the order of the distance of their draws from the target of their tag, the nearest first."""

import numpy as np

from bots_server.core.arrays import Floats, Ints
from bots_server.core.draw.nearest import Nearest
from bots_server.core.draw.pool import Parts


class NearestByTarget:
    """One `Nearest` for each distinct target, merged by distance.

    All draws within some distance of every target are known, so the nearest of all are those within the least of these
    distances.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        alpha: Floats,
        beta: Floats,
        count: Ints,
        parts: Parts,
        target: Floats,
        wanted: Ints,
    ) -> None:
        """`target`: `[E]` of each entity. The others as for `Nearest`."""
        self._target = target
        self._parts = parts
        self._entities = [np.flatnonzero(target == each) for each in np.unique(target)]
        self._sources = []
        for of, each in zip(self._entities, np.unique(target).tolist(), strict=True):
            own = Parts(parts.of.take(of) if parts.number > 1 else parts.of, parts.number)
            self._sources.append(Nearest(rng, alpha.take(of), beta.take(of), count.take(of), own, each, wanted))
        self._entity, self._draw = np.empty(0, np.int64), np.empty(0)  # known, and not revealed

    def reveal(self, rng: np.random.Generator, wanted: Ints) -> tuple[Ints, Floats]:
        """Returns entity and draw of the next tasks by part, about `wanted[part]` of each, fewer or more by chance."""
        reached = np.min([source.reached() for source in self._sources], axis=0)
        for at, source in enumerate(self._sources):
            # A source that lags behind the others holds them up: it goes on, and the others wait.
            lags = source.reached() <= reached
            found, draw = source.reveal(rng, np.where(lags, wanted, 0))
            self._entity = np.concatenate((self._entity, self._entities[at].take(found)))
            self._draw = np.concatenate((self._draw, draw))
        reached = np.min([source.reached() for source in self._sources], axis=0)
        distance = np.abs(self._draw - self._target.take(self._entity))
        due = (distance <= self._parts.each(reached, self._entity)) & self._parts.each(wanted > 0, self._entity)
        chosen = np.flatnonzero(due)
        part = self._parts.sort_key(self._entity.take(chosen))
        chosen = chosen.take(np.lexsort((rng.random(len(chosen)), distance.take(chosen), part)))
        revealed = self._entity.take(chosen), self._draw.take(chosen)
        self._entity, self._draw = self._entity[~due], self._draw[~due]
        return revealed
