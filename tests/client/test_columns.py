"""Tasks and outcomes as a trainer has them become the columns of a request."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bots.columns import indices_and_ids, rollouts_column, successes_column


@pytest.mark.parametrize(
    ("tasks", "indices", "ids"),
    [
        (3, [3], []),
        (np.int64(3), [3], []),
        ([1, 2], [1, 2], []),
        (np.array([1, 2], dtype=np.uint16), [1, 2], []),
        (range(2), [0, 1], []),
        ("a", [], ["a"]),
        (["a", "7"], [], ["a", "7"]),
        (("a",), [], ["a"]),
        (np.array(["a", "b"]), [], ["a", "b"]),
        (np.array(["a", "b"], dtype=object), [], ["a", "b"]),
        ([], [], []),
        (np.empty(0), [], []),
    ],
)
def test_tasks_are_indices_or_ids(tasks: Any, indices: list[int], ids: list[str]) -> None:
    """Whole numbers are indices and strings are ids, one or several, in lists or arrays."""
    assert indices_and_ids(tasks) == (indices, ids)


@pytest.mark.parametrize("tasks", [[1, "a"], [1.5], np.array([True]), [[1, 2]], np.array([1, "a"], dtype=object), b"a"])
def test_anything_else_is_refused(tasks: Any) -> None:
    """What is neither all whole numbers nor all strings is a ValueError, before anything is sent."""
    with pytest.raises(ValueError, match="tasks"):
        indices_and_ids(tasks)


def test_counts_are_one_number_or_one_for_each_task() -> None:
    """A single count stands for all tasks; rollouts may come as whole floats."""
    assert successes_column(1.5, 3) == [1.5, 1.5, 1.5]
    assert successes_column([0, 1], 2) == [0.0, 1.0]
    assert rollouts_column(16, 2) == [16, 16]
    assert rollouts_column(np.array([8.0, 16.0]), 2) == [8, 16]


@pytest.mark.parametrize("rollouts", [1.5, [1, 2, 3], np.nan, np.inf, "16", True, [[1, 2]]])
def test_wrong_rollouts_are_refused(rollouts: Any) -> None:
    """Rollouts that are no whole numbers, or not one for each task, are a ValueError."""
    with pytest.raises(ValueError, match="rollouts"):
        rollouts_column(rollouts, 2)


def test_successes_of_another_length_are_refused() -> None:
    """Successes that are not one for each task are a ValueError."""
    with pytest.raises(ValueError, match="successes: shape"):
        successes_column([1, 2, 3], 2)
