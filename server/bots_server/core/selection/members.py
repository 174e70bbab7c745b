"""Distinct members of ranges, chosen uniformly: which tasks the draws of a range belong to."""

import math

import numpy as np
from numpy.typing import NDArray

from bots_server.core.selection.eligible import Eligible, contains
from bots_server.core.tasks import Tasks

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# A range where a free task takes more proposals is listed.
_MOST_PROPOSALS = 16


class Members:
    """Gives out the eligible tasks, none twice.

    The tasks of a range have the same posterior, so that its draws belong to distinct free members uniformly at random,
    whatever the draws are.
    """

    def __init__(self, tasks: Tasks, eligible: Eligible) -> None:
        self._members = tasks.members
        self._own = eligible.own
        self._bounds = eligible.bounds
        self._range = eligible.range
        self._free = eligible.free
        self._given = np.zeros(len(self._free), np.int64)
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
        start, size = self._extent(distinct)
        self._given[distinct] += asked
        # To draw positions until free ones are hit takes size / left proposals for each task asked for. A range of
        # which few are left, or half of those are asked for, is listed instead: it is no longer than some times what
        # was taken of it.
        left = self._free.take(distinct) - self._given.take(distinct)
        few = (_MOST_PROPOSALS * left < size) | (asked > left)
        listed = few.take(inverse)
        if not listed.all():
            of = inverse[~listed]
            proposals = (size / np.maximum(left, 1)).take(of)
            tasks[rest[~listed]] = self._by_rejection(rng, start.take(of), size.take(of), proposals)
        if listed.any():
            given = self._by_listing(rng, start[few], size[few], asked[few])
            tasks[rest[listed].take(ranges[listed].argsort(kind="stable"))] = given
        self._taken = np.sort(np.concatenate((self._taken, tasks[rest])), kind="stable")
        return tasks

    def _by_rejection(self, rng: np.random.Generator, start: Ints, size: Ints, proposals: Floats) -> Ints:
        """Returns a task of each range, given how many proposals one takes; a range may come several times."""
        tasks = np.full(len(start), -1)
        open_ = np.arange(len(start))
        tries = round(float(proposals.mean()))
        while len(open_):
            places = rng.integers(0, size.take(open_)[:, None], (len(open_), tries))
            proposed = self._members.take(start.take(open_)[:, None] + places)
            free = ~contains(self._taken, proposed)
            tasks[open_] = proposed[np.arange(len(open_)), free.argmax(1)]
            # Of equal tasks the first stays: an earlier round's, which is not in `open_`, before this round's.
            rank = np.ones(len(tasks), np.int64)
            rank[open_] = 2
            order = np.lexsort((rank, tasks))
            again = np.zeros(len(tasks), np.bool_)
            again[order[1:]] = tasks[order[1:]] == tasks[order[:-1]]
            again[open_] |= ~free.any(1)
            open_ = np.flatnonzero(again)
            tries = 4 * math.ceil(proposals.take(open_).max(initial=1))
        return tasks

    def _by_listing(self, rng: np.random.Generator, start: Ints, size: Ints, asked: Ints) -> Ints:
        """Returns `asked` tasks of each of m ranges, range by range."""
        of, within = _rows(size)
        tasks = self._members.take(start.take(of) + within).astype(np.int64)
        free = ~contains(self._taken, tasks)
        tasks, of = tasks[free], of[free]
        tasks = tasks.take(np.lexsort((rng.random(len(tasks)), of)))
        of, rank = _rows(np.bincount(of, minlength=len(size)))
        return tasks[rank < asked.take(of)]

    def _extent(self, ranges: Ints) -> tuple[Ints, Ints]:
        """Returns first position and number of positions of ranges."""
        at = self._range.take(ranges)
        start = self._bounds.take(at)
        return start, self._bounds.take(at + 1) - start


def _rows(size: Ints) -> tuple[Ints, Ints]:
    """Returns the row and the place in it of each cell of a table whose rows have these sizes."""
    row = np.repeat(np.arange(len(size)), size)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(size) - size, size)
