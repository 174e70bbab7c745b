"""Tasks in the order of a known level, the lowest first; tasks of one level in random order."""

import numpy as np

from bots_server.core.arrays import Floats, Ints
from bots_server.core.draw.eligible import Eligible


class Ties:
    """Greedy selection: the level is the distance of the posterior mean from the target. Uniform selection: one level.

    Whole sets of tied tasks are not listed. If some of a set are wanted, each of its tasks is revealed with the
    probability that gives about that number, and later the next share of those left. Tasks revealed earlier are earlier
    in the random order, and those revealed together are shuffled.
    """

    def __init__(self, eligible: Eligible, level: Floats | None) -> None:
        """`level`: `[I + K]` of each entity; None: all equal."""
        self._parts = eligible.parts
        self._level = np.zeros(len(eligible)) if level is None else level
        self._left = eligible.count()

    def reveal(self, rng: np.random.Generator, wanted: Ints) -> tuple[Ints, Floats]:
        """Returns entity and draw (NaN: no draw decided) of the next tasks by part, about `wanted[part]` of each."""
        near = (self._left > 0) & self._parts.each(wanted > 0)
        if len(wanted) == 1 and 0 < wanted[0] < np.count_nonzero(near):
            # Cheaper than sorting all of them: each entity has at least one task.
            near &= self._level <= np.partition(self._level[near], wanted[0] - 1)[wanted[0] - 1]
        entity = np.flatnonzero(near)
        entity = entity.take(np.lexsort((self._level.take(entity), self._parts.sort_key(entity))))
        level, part, left = self._level.take(entity), self._parts.sort_key(entity), self._left.take(entity)
        # A tie set is a run of equal part and level.
        first = np.ones(len(entity), np.bool_)
        first[1:] = (level[1:] != level[:-1]) | (part[1:] != part[:-1])
        tied = np.cumsum(first) - 1
        tied_part = part[first]
        size = np.bincount(tied, left).astype(np.int64) if len(entity) else np.empty(0, np.int64)
        before = np.cumsum(size) - size
        before -= before.take(tied_part.searchsorted(tied_part))
        share = np.clip((wanted.take(tied_part) - before) / size, 0.0, 1.0)
        share[share > 0.5] = 1.0
        revealed = rng.binomial(left, share.take(tied))
        self._left[entity] -= revealed
        order = np.repeat(np.arange(len(entity)), revealed)
        order = order.take(np.lexsort((rng.random(len(order)), tied.take(order))))
        return entity.take(order), np.full(len(order), np.nan)
