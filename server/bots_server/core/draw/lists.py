"""The candidates of one rank, part by part, revealed from one source as far as they are wanted."""

from typing import Protocol

import numpy as np

from bots_server.core.arrays import Floats, Ints
from bots_server.core.draw.eligible import Eligible
from bots_server.core.draw.members import Members
from bots_server.core.tasks import Tasks


class Source(Protocol):
    """An order of the eligible tasks of each part, revealed from its beginning as far as wanted."""

    def reveal(self, rng: np.random.Generator, wanted: Ints) -> tuple[Ints, Floats]:
        """Returns entity and draw of the next tasks by part, about `wanted[part]` of each; none if that is 0."""


class Lists:
    """The candidates of P parts from one source, as far as revealed."""

    def __init__(
        self, rng: np.random.Generator, source: Source, tasks: Tasks, eligible: Eligible, wanted: Ints
    ) -> None:
        """Reveals about `wanted[part]` candidates of each part."""
        self.total = eligible.total
        self._source = source
        self._parts = eligible.parts
        self._members = Members(tasks, eligible)
        self._length = np.zeros(len(wanted), np.int64)
        self._tasks = [np.empty(0, np.int64) for _ in wanted]
        self._draws = [np.empty(0) for _ in wanted]
        # What is revealed of a part later does not depend on how far other parts have gone.
        self._seeds = rng.integers(0, 2**63, len(wanted))
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
        ends = np.cumsum(counts)
        self._length += counts
        for k in np.flatnonzero(counts):
            piece = slice(ends[k] - counts[k], ends[k])
            self._tasks[k] = np.concatenate((self._tasks[k], tasks[piece]))
            self._draws[k] = np.concatenate((self._draws[k], draws[piece]))
