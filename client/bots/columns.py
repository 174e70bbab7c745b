"""Tasks and outcomes, from what a trainer has at hand (lists, numpy arrays, single values) to the columns of a
request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

# Tasks by index or, where the dataset has ids, by id: one, or several of the same sort.
Tasks = int | str | Sequence[int] | Sequence[str] | npt.NDArray[Any]


def indices_and_ids(tasks: Tasks) -> tuple[list[int], list[str]]:
    """Returns (indices, ids), one of which is empty. ValueError: neither integers nor strings, or not
    one-dimensional.
    """
    if isinstance(tasks, str):
        return [], [tasks]
    column = np.atleast_1d(np.asarray(tasks))
    if column.ndim != 1:
        raise ValueError(f"tasks: shape {column.shape}, must have one dimension")
    if column.size == 0:
        return [], []
    entries = column.tolist()
    if column.dtype.kind in "iu":
        return entries, []
    # A list of a number and a string becomes an array of strings: look at what was given.
    given = entries if isinstance(tasks, np.ndarray) else tasks
    if isinstance(given, Sequence) and all(isinstance(task, str) for task in given):
        return [], entries
    raise ValueError(f"tasks: {column.dtype} entries, must be all integers (indices) or all strings (ids)")


def successes_column(successes: npt.ArrayLike, tasks: int) -> list[float]:
    """Returns one number of successes for each of `tasks` outcomes. ValueError: the shape is another."""
    return _broadcast("successes", np.asarray(successes, dtype=np.float64), tasks)


def rollouts_column(rollouts: npt.ArrayLike, tasks: int) -> list[int]:
    """Returns one number of rollouts for each of `tasks` outcomes. ValueError: not whole numbers, or another shape."""
    given = np.asarray(rollouts)
    with np.errstate(invalid="ignore"):
        column = given.astype(np.int64)
    if given.dtype.kind not in "iuf" or not np.array_equal(column, given):
        raise ValueError(f"rollouts: {rollouts!r}, must be whole numbers")
    return _broadcast("rollouts", column, tasks)


def _broadcast(name: str, column: npt.NDArray[Any], tasks: int) -> list[Any]:
    if column.shape not in ((), (tasks,)):
        raise ValueError(f"{name}: shape {column.shape}, must be one number or one for each of the {tasks} tasks")
    return np.broadcast_to(column, (tasks,)).tolist()  # type: ignore[no-any-return]
