"""Draws that are known and not revealed yet."""

import numpy as np

from bots_server.core.arrays import Bools, Floats, Ints
from bots_server.core.draw.parts import Parts


class Pool:
    """`[n]` draws, each with its entity and its score; the lowest score is revealed first."""

    def __init__(self, parts: Parts) -> None:
        """Starts empty."""
        self._parts = parts
        self._passed = np.full(parts.number, -np.inf)  # scores up to here are revealed
        self._entity = np.empty(0, np.int64)
        self._score = np.empty(0)
        self._draw = np.empty(0)

    def add(self, entity: Ints, score: Floats, draw: Floats) -> None:
        """Adds draws. Revealed ones are dropped here, so that a new one may have their score."""
        if len(entity) == 0:
            return
        if len(self._entity) == 0:
            self._entity, self._score, self._draw = entity, score, draw
            return
        old = [self._entity, self._score, self._draw]
        if not np.isneginf(self._passed).all():
            waits = self._score > self._parts.each(self._passed, self._entity)
            old = [column[waits] for column in old]
            self._passed[:] = -np.inf
        self._entity = np.concatenate((old[0], entity))
        self._score = np.concatenate((old[1], score))
        self._draw = np.concatenate((old[2], draw))

    def waiting(self, bound: Floats) -> Ints:
        """Returns `[P]` how many waiting draws of each part have a score of at most `bound[part]`."""
        return self._parts.count(self._entity, self._due(bound))

    def scores(self, part: int) -> Floats:
        """Returns the scores of a part's waiting draws."""
        waits = np.greater(self._score, self._passed[part])
        return np.asarray(self._score[waits & self._parts.within(self._entity, part)])

    def pop(self, rng: np.random.Generator, bound: Floats) -> tuple[Ints, Floats]:
        """Returns entity and draw of the waiting draws with a score of at most `bound[part]`.

        They come by part, the lowest score first, ties in random order.
        """
        due = np.flatnonzero(self._due(bound))
        self._passed = np.maximum(self._passed, bound)
        entity = self._entity.take(due)
        order = np.lexsort((rng.random(len(due)), self._score.take(due), self._parts.sort_key(entity)))
        return entity.take(order), self._draw.take(due.take(order))

    def _due(self, bound: Floats) -> Bools:
        due = np.less_equal(self._score, self._parts.each(bound, self._entity))
        if not np.isneginf(self._passed).all():
            due &= self._score > self._parts.each(self._passed, self._entity)
        return due
