"""The parts of a batch, and the draws of their entities that are known and not revealed yet."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bots_server.core.arrays import Bools, Floats, Ints

_Value = TypeVar("_Value", np.float64, np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """P parts that share no entity. One part, as in most selections, needs no look-up."""

    of: Ints  # `[E]` part of each entity, in [0, P); empty if there is one part
    number: int  # P

    def each(self, values: NDArray[_Value], entity: Ints | None = None) -> NDArray[_Value]:
        """Returns the value of each (None: every) entity's part, given `[P]` values; `[1]` if there is one part."""
        return values if self.number == 1 else np.asarray(values[self.of if entity is None else self.of.take(entity)])

    def within(self, entity: Ints, part: int) -> Bools:
        """Returns whether each entity is in a part."""
        return np.ones(len(entity), np.bool_) if self.number == 1 else np.equal(self.of.take(entity), part)

    def sort_key(self, entity: Ints) -> Ints:
        """Returns the part of each entity."""
        return np.zeros(len(entity), np.int64) if self.number == 1 else self.of.take(entity)

    def count(self, entity: Ints, where: Bools | None = None) -> Ints:
        """Returns `[P]` the number of entities (those at `where`) of each part."""
        if self.number == 1:
            return np.array([len(entity) if where is None else np.count_nonzero(where)])
        return np.bincount(self.of.take(entity if where is None else entity[where]), minlength=self.number)

    def sum(self, weights: Floats | Ints, entity: Ints | None = None) -> Floats:
        """Returns `[P]` the sum of the weights of the entities (None: of all) in each part."""
        if self.number == 1:
            return np.array([np.add.reduce(weights)])
        of = self.of if entity is None else self.of.take(entity)
        return np.bincount(of, weights, self.number).astype(np.float64, copy=False)


class Pool:
    """`[n]` draws, each with its entity and its score; the lowest score is revealed first."""

    def __init__(self, parts: Parts) -> None:
        """Starts empty."""
        self._parts = parts
        self._passed: Floats | None = None  # `[P]` scores up to here are revealed; None: none is
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
        if self._passed is not None:
            waits = self._score > self._parts.each(self._passed, self._entity)
            old = [column[waits] for column in old]
            self._passed = None
        self._entity = np.concatenate((old[0], entity))
        self._score = np.concatenate((old[1], score))
        self._draw = np.concatenate((old[2], draw))

    def waiting(self, bound: Floats) -> Ints:
        """Returns `[P]` how many waiting draws of each part have a score of at most `bound[part]`."""
        return self._parts.count(self._entity, self._due(bound))

    def scores(self, part: int) -> Floats:
        """Returns the scores of a part's waiting draws."""
        waits = self._parts.within(self._entity, part)
        if self._passed is not None:
            waits &= self._score > self._passed[part]
        return np.asarray(self._score[waits])

    def score(self, part: int, number: int) -> float:
        """Returns the score of waiting draw `number` (at least 1) of a part, the lowest first."""
        return float(np.partition(self.scores(part), number - 1)[number - 1])

    def pop(self, rng: np.random.Generator, bound: Floats) -> tuple[Ints, Floats]:
        """Returns entity and draw of the waiting draws with a score of at most `bound[part]`.

        They come by part, the lowest score first, ties in random order.
        """
        due = self._due(bound).nonzero()[0]
        self._passed = bound if self._passed is None else np.maximum(self._passed, bound)
        entity = self._entity.take(due)
        order = np.lexsort((rng.random(len(due)), self._score.take(due), self._parts.sort_key(entity)))
        return entity.take(order), self._draw.take(due.take(order))

    def _due(self, bound: Floats) -> Bools:
        due = np.less_equal(self._score, self._parts.each(bound, self._entity))
        if self._passed is not None:
            due &= self._score > self._parts.each(self._passed, self._entity)
        return due
