"""Distinct members of ranges, chosen uniformly: the tasks to which the draws of a range belong."""

import math

import numpy as np

from bots_server.core.arrays import Floats, Ints, find
from bots_server.core.draw.eligible import Eligible
from bots_server.core.tasks import Tasks

# A range is listed if more than one in so many of its available tasks is asked for.
_LISTED = 4
# Proposals made at a time, at most, which bounds memory.
_MOST_TRIES = 2**20


class Members:
    """Assigns the eligible tasks to draws, none twice.

    The tasks of a range have the same posterior, so that its draws belong to distinct available members uniformly at
    random, whatever the draws are.
    """

    def __init__(self, tasks: Tasks, eligible: Eligible) -> None:
        self._fits = eligible.fits
        self._members = tasks.members
        self._own = eligible.own
        self._bounds = eligible.bounds
        self._range = eligible.range
        self._free = eligible.free
        self._assigned = np.zeros(len(self._free), np.int64)
        self._taken = eligible.taken  # ascending

    def assign(self, rng: np.random.Generator, entity: Ints) -> Ints:
        """Returns `[n]` a task of each entity: uniform among those of the entity that were not assigned before.

        No entity may be asked for more tasks than it has left.
        """
        tasks = np.empty(len(entity), np.int64)
        single = entity < len(self._own)
        tasks[single] = self._own.take(entity[single])
        rest = np.flatnonzero(~single)
        ranges = entity[rest] - len(self._own)
        distinct, inverse, asked = np.unique(ranges, return_inverse=True, return_counts=True)
        start, size = self._extent(distinct)
        left = self._free.take(distinct) - self._assigned.take(distinct)
        self._assigned[distinct] += asked
        # To propose members until available ones are hit takes size / left proposals for each task asked for, so no
        # more than a quarter of the size in all. Else the range is listed.
        few = _LISTED * asked > left
        listed = few.take(inverse)
        if not listed.all():
            of = inverse[~listed]
            proposals = (size / np.maximum(left - asked, 1)).take(of)
            tasks[rest[~listed]] = self._by_rejection(rng, start.take(of), size.take(of), proposals)
        if listed.any():
            listed_tasks = self._by_listing(rng, start[few], size[few], asked[few])
            tasks[rest[listed].take(ranges[listed].argsort(kind="stable"))] = listed_tasks
        self._taken = np.sort(np.concatenate((self._taken, tasks[rest])), kind="stable")
        return tasks

    def _by_rejection(self, rng: np.random.Generator, start: Ints, size: Ints, proposals: Floats) -> Ints:
        """Returns a task of each range, given how many proposals one takes; a range may come several times."""
        tasks = np.full(len(start), -1)
        unassigned = np.arange(len(start))
        tries = round(float(proposals.mean()))
        while len(unassigned):
            tries = max(1, min(tries, _MOST_TRIES // len(unassigned)))
            places = rng.integers(0, size.take(unassigned)[:, None], (len(unassigned), tries))
            proposed = self._members.take(start.take(unassigned)[:, None] + places)
            free = ~find(self._taken, proposed)[1] & self._fits(proposed)
            tasks[unassigned] = proposed[np.arange(len(unassigned)), free.argmax(1)]
            # Of equal tasks the first stays: an earlier round's, which is not in `unassigned`, before this round's.
            rank = np.ones(len(tasks), np.int64)
            rank[unassigned] = 2
            order = np.lexsort((rank, tasks))
            again = np.zeros(len(tasks), np.bool_)
            again[order[1:]] = tasks[order[1:]] == tasks[order[:-1]]
            again[unassigned] |= ~free.any(1)
            unassigned = np.flatnonzero(again)
            tries = 4 * math.ceil(proposals.take(unassigned).max(initial=1))
        return tasks

    def _by_listing(self, rng: np.random.Generator, start: Ints, size: Ints, asked: Ints) -> Ints:
        """Returns `asked` tasks of each of m ranges, range by range."""
        of, within = _rows(size)
        tasks = self._members.take(start.take(of) + within).astype(np.int64)
        free = ~find(self._taken, tasks)[1] & self._fits(tasks)
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
