"""Distinct members of ranges, chosen uniformly: which tasks the draws of a range belong to."""

import numpy as np
from numpy.typing import NDArray

from bots_server.core.selection.eligible import Eligible, contains
from bots_server.core.tasks import Tasks

Ints = NDArray[np.int64]


class Members:
    """Gives out the eligible tasks, none twice.

    The tasks of a range have the same posterior, so that its draws belong to distinct free members uniformly at random,
    whatever the draws are.
    """

    def __init__(self, tasks: Tasks, eligible: Eligible) -> None:
        self._members = tasks.members
        self._own = eligible.own
        self._start = eligible.start
        self._size = eligible.size
        self._left = eligible.count[len(eligible.own) :].copy()
        self._taken = eligible.taken  # ascending

    def give(self, rng: np.random.Generator, entity: Ints) -> Ints:
        """Returns `[n]` a task of each entity: uniform among those of the entity that were not given before.

        No entity may be asked for more tasks than it has left.
        """
        tasks = np.empty(len(entity), np.int64)
        single = entity < len(self._own)
        tasks[single] = self._own.take(entity[single])
        rest = np.flatnonzero(~single)
        ranges = entity[rest] - len(self._own)
        distinct, inverse, asked = np.unique(ranges, return_inverse=True, return_counts=True)
        self._left[distinct] -= asked
        # To draw positions until free ones are hit takes long where few are free. A range with less than half free is
        # listed instead: it is no longer than twice what was taken of it.
        listed = (2 * self._left.take(distinct) < self._size.take(distinct)).take(inverse)
        if not listed.all():
            tasks[rest[~listed]] = self._by_rejection(rng, ranges[~listed])
        if listed.any():
            tasks[rest[listed]] = self._by_listing(rng, ranges[listed])
        self._taken = np.sort(np.concatenate((self._taken, tasks[rest])), kind="stable")
        return tasks

    def _by_rejection(self, rng: np.random.Generator, ranges: Ints) -> Ints:
        tasks = np.full(len(ranges), -1)
        open_ = np.arange(len(ranges))
        while len(open_):
            of = ranges.take(open_)
            tasks[open_] = self._members.take(self._start.take(of) + rng.integers(0, self._size.take(of)))
            # Of equal tasks the first stays: an earlier round's, which is not in `open_`, before this round's.
            rank = np.ones(len(tasks), np.int64)
            rank[open_] = 2
            order = np.lexsort((rank, tasks))
            again = np.zeros(len(tasks), np.bool_)
            again[order[1:]] = tasks[order[1:]] == tasks[order[:-1]]
            again[open_] |= contains(self._taken, tasks.take(open_))
            open_ = np.flatnonzero(again)
        return tasks

    def _by_listing(self, rng: np.random.Generator, ranges: Ints) -> Ints:
        distinct, asked = np.unique(ranges, return_counts=True)
        size = self._size.take(distinct)
        listed = np.repeat(np.arange(len(distinct)), size)
        within = np.arange(len(listed)) - np.repeat(np.cumsum(size) - size, size)
        tasks = self._members.take(np.repeat(self._start.take(distinct), size) + within).astype(np.int64)
        free = ~contains(self._taken, tasks)
        tasks, listed = tasks[free], listed[free]
        shuffled = np.lexsort((rng.random(len(tasks)), listed))
        count = np.bincount(listed, minlength=len(distinct))
        rank = np.arange(len(listed)) - np.repeat(np.cumsum(count) - count, count)
        chosen = tasks.take(shuffled[rank < asked.take(listed)])  # `listed` is ascending: shuffling keeps it
        given = np.empty(len(ranges), np.int64)
        given[ranges.argsort(kind="stable")] = chosen
        return given
