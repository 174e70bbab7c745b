"""The candidates of one rank, part by part, revealed from one source as far as they are wanted."""

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bots_server.core.arrays import Bools, Floats, Ints, find
from bots_server.core.draw.eligible import Eligible

# A range is listed if more than one in so many of its available tasks is asked for.
_LISTED = 4
# Proposals made at a time, at most, which bounds memory.
_MOST_TRIES = 2**20


class Source(Protocol):
    """An order of the eligible tasks of each part, revealed from its beginning as far as wanted."""

    def reveal(self, rng: np.random.Generator, wanted: Ints) -> tuple[Ints, Floats]:
        """Returns entity and draw of the next tasks by part, about `wanted[part]` of each; none if that is 0."""


class Lists:
    """The candidates of P parts from one source, as far as revealed."""

    def __init__(self, rng: np.random.Generator, source: Source, eligible: Eligible, wanted: Ints) -> None:
        """Reveals about `wanted[part]` candidates of each part."""
        self.total = eligible.total
        self._source = source
        self._parts = eligible.parts
        self._members = Members(eligible)
        self._length = np.zeros(len(wanted), np.int64)
        self._tasks = [np.empty(0, np.int64) for _ in wanted]
        self._draws = [np.empty(0) for _ in wanted]
        # What is revealed of a part later does not depend on how far other parts have gone.
        self._seeds = [rng.integers(0, 2**63) for _ in wanted]
        self._rngs: dict[int, np.random.Generator] = {}
        if wanted.any():
            self._reveal(rng, wanted)

    def first(self, part: int, length: int) -> tuple[Ints, Floats]:
        """Returns the first `length` candidates of a part and their draws, fewer if there are fewer."""
        while self._length[part] < min(length, self.total[part]):
            if part not in self._rngs:
                self._rngs[part] = np.random.default_rng(self._seeds[part])
            # As many again and more, whatever `length` is: how much is revealed at a time must not depend on it.
            wanted = np.zeros(len(self._length), np.int64)
            wanted[part] = 2 * self._length[part] + 16
            self._reveal(self._rngs[part], wanted)
        return self._tasks[part][:length], self._draws[part][:length]

    def _reveal(self, rng: np.random.Generator, wanted: Ints) -> None:
        entity, draws = self._source.reveal(rng, wanted)
        tasks = self._members.assign(rng, entity)
        counts = self._parts.count(entity)
        ends = counts.cumsum()
        self._length += counts
        for k in counts.nonzero()[0]:
            piece = slice(ends[k] - counts[k], ends[k])
            self._tasks[k] = np.concatenate((self._tasks[k], tasks[piece]))
            self._draws[k] = np.concatenate((self._draws[k], draws[piece]))


class Members:
    """Assigns the eligible tasks to draws, none twice.

    The tasks of a range have the same posterior, so that its draws belong to distinct available members uniformly at
    random, whatever the draws are.
    """

    def __init__(self, eligible: Eligible) -> None:
        self._of = eligible
        self._assigned = np.zeros(len(eligible.free), np.int64)
        self._given = np.empty(0, np.int64)  # ascending, assigned tasks of the ranges

    def assign(self, rng: np.random.Generator, entity: Ints) -> Ints:
        """Returns `[n]` a task of each entity: uniform among those of the entity that were not assigned before.

        No entity may be asked for more tasks than it has left.
        """
        tasks = np.empty(len(entity), np.int64)
        single = entity < len(self._of.own)
        tasks[single] = self._of.own.take(entity[single])
        rest = (~single).nonzero()[0]
        ranges = entity[rest] - len(self._of.own)
        ordered = np.sort(ranges)
        asked = ordered.searchsorted(ranges, "right") - ordered.searchsorted(ranges)
        at = self._of.range.take(ranges)
        start = self._of.bounds.take(at)
        size = self._of.bounds.take(at + 1) - start
        left = self._of.free.take(ranges) - self._assigned.take(ranges)
        np.add.at(self._assigned, ranges, 1)
        # To propose members until available ones are hit takes size / left proposals for each task asked for, so no
        # more than a quarter of the size in all. Else the range is listed.
        listed = _LISTED * asked > left
        few = (~listed).nonzero()[0]
        if len(few):
            proposals = size / np.maximum(left - asked, 1)
            tasks[rest.take(few)] = self._by_rejection(rng, start.take(few), size.take(few), proposals.take(few))
        if len(few) < len(rest):
            many = listed.nonzero()[0]
            many = many.take(ranges.take(many).argsort(kind="stable"))
            first = many[np.unique(ranges.take(many), return_index=True)[1]]
            tasks[rest.take(many)] = self._by_listing(rng, start.take(first), size.take(first), asked.take(first))
        self._given = np.sort(np.concatenate((self._given, tasks[rest])), kind="stable")
        return tasks

    def _by_rejection(self, rng: np.random.Generator, start: Ints, size: Ints, proposals: Floats) -> Ints:
        """Returns a task of each range, given how many proposals one takes; a range may come several times."""
        tasks = np.full(len(start), -1)
        unassigned = np.arange(len(start))
        tries = round(float(proposals.sum()) / len(proposals))
        while len(unassigned):
            tries = max(1, min(tries, _MOST_TRIES // len(unassigned)))
            places = rng.integers(0, size.take(unassigned)[:, None], (len(unassigned), tries))
            proposed = self._of.tasks.members.take(start.take(unassigned)[:, None] + places)
            free = self._free(proposed)
            tasks[unassigned] = proposed[np.arange(len(unassigned)), free.argmax(1)]
            # Of equal tasks the first stays: an earlier round's, which is not in `unassigned`, before this round's.
            rank = 2 * tasks
            rank[unassigned] += 1
            order = rank.argsort(kind="stable")
            again = np.zeros(len(tasks), np.bool_)
            again[order[1:]] = tasks[order[1:]] == tasks[order[:-1]]
            again[unassigned] |= ~free.any(1)
            unassigned = again.nonzero()[0]
            tries = 4 * math.ceil(proposals.take(unassigned).max(initial=1))
        return tasks

    def _by_listing(self, rng: np.random.Generator, start: Ints, size: Ints, asked: Ints) -> Ints:
        """Returns `asked` tasks of each of m ranges, range by range."""
        of, within = _rows(size)
        tasks = self._of.tasks.members.take(start.take(of) + within).astype(np.int64)
        free = self._free(tasks)
        tasks, of = tasks[free], of[free]
        tasks = tasks.take(np.lexsort((rng.random(len(tasks)), of)))
        of, rank = _rows(np.bincount(of, minlength=len(size)))
        return tasks[rank < asked.take(of)]

    def _free(self, tasks: NDArray[np.integer]) -> Bools:
        """Returns whether tasks of the ranges (an array of any shape) are of the rank and not taken or assigned."""
        free = ~(find(self._of.taken, tasks)[1] | find(self._given, tasks)[1])
        if self._of.coverage is not None:
            free &= self._of.coverage.rank(tasks) == self._of.rank
        return free


def _rows(size: Ints) -> tuple[Ints, Ints]:
    """Returns the row and the place in it of each cell of a table whose rows have these sizes."""
    row = np.repeat(np.arange(len(size)), size)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(size) - size, size)
