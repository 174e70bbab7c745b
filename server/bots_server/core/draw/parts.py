"""Which part of a batch an entity belongs to."""

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

    def each(self, values: NDArray[_Value], entity: Ints) -> NDArray[_Value]:
        """Returns the value of each entity's part, given `[P]` values; `[1]` if there is one part."""
        return values if self.number == 1 else np.asarray(values[self.of.take(entity)])

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

    def sum(self, entity: Ints, weights: Floats) -> Floats:
        """Returns `[P]` the sum of the entities' weights in each part."""
        if self.number == 1:
            return np.array([weights.sum()])
        return np.bincount(self.of.take(entity), weights, self.number).astype(np.float64, copy=False)
