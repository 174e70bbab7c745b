"""Draws that are known and wait for their turn."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Pool:
    """Draws with the score that says when their turn is, the lowest first.

    entity: `[n]` whose draw it is
    score:  `[n]`
    draw:   `[n]`
    """

    def __init__(self, part: Ints, parts: int) -> None:
        """Starts empty, for entities of the given `part`, in [0, parts)."""
        self._part = part
        self._parts = parts
        self._floor = np.full(parts, -np.inf)
        self.entity = np.empty(0, np.int64)
        self.score = np.empty(0)
        self.draw = np.empty(0)

    def add(self, entity: Ints, score: Floats, draw: Floats) -> None:
        """Adds draws. Those that had their turn are forgotten here, so that a new one may have their score."""
        if len(entity) == 0:
            return
        stays = self.score > self._of_part(self._floor)
        self._floor[:] = -np.inf
        if not stays.all():
            self.entity, self.score, self.draw = self.entity[stays], self.score[stays], self.draw[stays]
        self.entity = np.concatenate((self.entity, entity))
        self.score = np.concatenate((self.score, score))
        self.draw = np.concatenate((self.draw, draw))

    def waiting(self, bound: Floats) -> Ints:
        """Returns `[P]` how many draws of each part have a score of at most `bound[part]` and wait."""
        return self._tally(self._between(bound))

    def scores(self, part: int) -> Floats:
        """Returns the scores of a part's waiting draws."""
        here = np.greater(self.score, self._floor[part])
        if self._parts > 1:
            here &= self._part.take(self.entity) == part
        return self.score.compress(here)

    def pop(self, rng: np.random.Generator, bound: Floats) -> tuple[Ints, Floats]:
        """Returns entity and draw of the waiting draws with a score of at most `bound[part]`.

        They come by part, the lowest score first, ties in random order.
        """
        turn = np.flatnonzero(self._between(bound))
        self._floor = np.maximum(self._floor, bound)
        entity = self.entity.take(turn)
        order = np.lexsort((rng.random(len(turn)), self.score.take(turn), self._part.take(entity)))
        return entity.take(order), self.draw.take(turn.take(order))

    def _between(self, bound: Floats) -> NDArray[np.bool_]:
        return np.logical_and(self.score > self._of_part(self._floor), self.score <= self._of_part(bound))

    def _of_part(self, values: Floats) -> Floats:
        if self._parts == 1:
            return values
        return values.take(self._part.take(self.entity))

    def _tally(self, mask: NDArray[np.bool_]) -> Ints:
        if self._parts == 1:
            return np.array([np.count_nonzero(mask)])
        return np.bincount(self._part.take(self.entity[mask]), minlength=self._parts)
