"""Sets of tasks that grow: a bitmap that successive states share, and the few tasks added since."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bots_server.core.arrays import Bools, Ints, find

# Tasks kept beside the bitmap, at most, before it is copied with them. None if the bitmap is so small that to copy it
# costs less than to search beside it.
_MOST_ADDED = 4096
_SMALL_BYTES = 2**16

_BIT = np.left_shift(1, np.arange(8)).astype(np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class TaskSet:
    """A set of tasks of a dataset of N."""

    bits: NDArray[np.uint8] | None  # `[ceil(N / 8)]` bit t % 8 of byte t // 8 for task t; None: no task
    added: Ints  # ascending, not in `bits`
    count: int  # number of tasks in the set

    def __len__(self) -> int:
        return self.count

    def has(self, tasks: NDArray[np.integer]) -> Bools:
        """Returns whether each task (of an array of any shape) is in the set."""
        added = find(self.added, tasks)[1]
        if self.bits is None:
            return added
        return (self.bits.take(tasks >> 3) & _BIT.take(tasks & 7)).astype(np.bool_) | added

    def tasks(self) -> Ints:
        """Returns all tasks of the set, ascending."""
        if self.bits is None:
            return self.added
        whole = np.flatnonzero(np.unpackbits(self.bits, bitorder="little"))
        return np.sort(np.concatenate((whole, self.added)), kind="stable") if len(self.added) else whole


NO_TASKS = TaskSet(None, np.empty(0, np.int64), 0)


def with_tasks(of: TaskSet, new: Ints, size: int) -> TaskSet:
    """Returns the set with `new` tasks, ascending and none of them in it, of a dataset of `size` tasks."""
    if len(new) == 0:
        return of
    added = np.concatenate((of.added, new))
    count = of.count + len(new)
    if size > 8 * _SMALL_BYTES and len(added) <= _MOST_ADDED:
        return TaskSet(of.bits, np.sort(added, kind="stable"), count)
    bits = np.zeros(-(-size // 8), np.uint8) if of.bits is None else of.bits.copy()
    np.bitwise_or.at(bits, added >> 3, _BIT.take(added & 7))
    return TaskSet(bits, np.empty(0, np.int64), count)
