"""Coverage: which tasks a run has evaluated, and which of them rest.

A task rests from its evaluation until `rest` * N evaluations later, to within half of that: evaluations are counted in
halves of rest * N / 2, and a task rests in the half of its evaluation and in the next one. An update evaluates each of
its tasks once, in however many reports it arrives.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bots_server.core.arrays import Ints
from bots_server.core.task_set import NO_TASKS, TaskSet, with_tasks
from bots_server.core.tasks import Tasks


@dataclass(frozen=True, slots=True, eq=False)
class Coverage:
    """What was evaluated in a run on N tasks in C cells."""

    evaluations: int  # of all updates: tasks, counted once an update
    in_half: int  # evaluations in the current half
    ever: TaskSet  # tasks evaluated in the run
    current: TaskSet  # tasks evaluated in the current half; they rest
    previous: TaskSet  # tasks evaluated in the half before; they rest, and come back first
    current_by_cell: NDArray[np.int32]  # `[C]` size of `current`
    resting_by_cell: NDArray[np.int32]  # `[C]` size of the union of `current` and `previous`

    def rank(self, tasks: NDArray[np.integer]) -> NDArray[np.int8]:
        """Returns 0 for each task that does not rest, 1 for one that rests and comes back first, 2 for the others."""
        current, previous = self.current.has(tasks).view(np.int8), self.previous.has(tasks).view(np.int8)
        return np.asarray(np.maximum(2 * current, previous))

    def ranks(self, size: int) -> NDArray[np.int8]:
        """Returns the rank of each task of a dataset of `size`, in less time than `rank` takes for all of them."""
        ranks = np.zeros(size, np.int8)
        ranks[self.previous.tasks()] = 1
        ranks[self.current.tasks()] = 2
        return ranks

    @property
    def resting(self) -> int:
        return int(self.resting_by_cell.sum())


def no_coverage(tasks: Tasks) -> Coverage:
    """Returns the coverage of a run without evaluations."""
    nothing = np.zeros(len(tasks.cell_stratum), np.int32)
    return Coverage(0, 0, NO_TASKS, NO_TASKS, NO_TASKS, nothing, nothing)


def evaluate(coverage: Coverage, tasks: Tasks, evaluated: Ints, rest: float) -> Coverage:
    """Returns the coverage after an evaluation of distinct tasks, ascending. With `rest` 0 no task rests."""
    size = len(tasks)
    evaluations = coverage.evaluations + len(evaluated)
    ever = with_tasks(coverage.ever, evaluated[~coverage.ever.has(evaluated)], size)
    if rest == 0:
        return replace(no_coverage(tasks), evaluations=evaluations, ever=ever)
    rank, cell = coverage.rank(evaluated), tasks.cell_of(evaluated)
    new = rank < 2
    current = with_tasks(coverage.current, evaluated[new], size)
    current_by_cell = _counted(coverage.current_by_cell, cell[new])
    in_half = coverage.in_half + len(evaluated)
    if in_half >= rest * size / 2:  # the next half begins
        return Coverage(evaluations, 0, ever, NO_TASKS, current, np.zeros_like(current_by_cell), current_by_cell)
    resting_by_cell = _counted(coverage.resting_by_cell, cell[rank == 0])
    return Coverage(evaluations, in_half, ever, current, coverage.previous, current_by_cell, resting_by_cell)


def restored(
    tasks: Tasks, evaluations: int, in_half: int, ever: TaskSet, current: TaskSet, previous: TaskSet
) -> Coverage:
    """Returns the coverage that has these parts, with its sizes by cell."""
    nothing, before = no_coverage(tasks).current_by_cell, previous.tasks()
    current_by_cell = _counted(nothing, tasks.cell_of(current.tasks()))
    resting_by_cell = _counted(current_by_cell, tasks.cell_of(before[~current.has(before)]))
    return Coverage(evaluations, in_half, ever, current, previous, current_by_cell, resting_by_cell)


def _counted(by_cell: NDArray[np.int32], cells: Ints) -> NDArray[np.int32]:
    """Returns the sizes by cell with one more for each of `cells`."""
    if len(cells) == 0:
        return by_cell
    by_cell = by_cell.copy()
    np.add.at(by_cell, cells, np.int32(1))
    return by_cell
