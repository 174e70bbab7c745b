"""Rewards of rollouts, as the counts that a report carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bots import columns
from bots.columns import Column
from bots.errors import invalid


@dataclass(frozen=True, eq=False)
class Counts:
    """Rewards of n tasks, summed.

    tasks      `[m]` positions of the tasks that have a reward, ascending.
    successes  `[m]` sums of the rewards, mapped to 0..1.
    rollouts   `[m]` numbers of rewards.
    effective  `[m]` whether the task's rewards differ.
    left_out   number of rewards that are None or NaN.
    """

    tasks: npt.NDArray[np.int64]
    successes: list[float]
    rollouts: list[int]
    effective: list[bool]
    left_out: int


def counts(rewards: Column, tasks: int, *, low: float = 0.0, high: float = 1.0, success: float | None = None) -> Counts:
    """Returns the counts of `[tasks, rollouts]` rewards; rows may have different lengths.

    low, high  the range of rewards; it is mapped to 0..1.
    success    None: a reward is a fraction of a success; else a reward of at least this is a success, others are not.
    InvalidArgumentError: another number of rows, or a reward that is no number or not between low and high.
    """
    if not low < high:
        raise invalid("low", low, f"must be below high ({high})")
    rows = _rows(rewards, tasks)
    found: list[int] = []
    successes: list[float] = []
    rollouts: list[int] = []
    effective: list[bool] = []
    left_out = 0
    for task, row in enumerate(rows):
        given = columns.floats(f"rewards[{task}]", row)
        usable = given[~np.isnan(given)]
        left_out += len(given) - len(usable)
        if not len(usable):
            continue
        _check(task, given, low, high)
        mapped = np.clip((usable - low) / (high - low), 0.0, 1.0) if success is None else usable >= success
        found.append(task)
        successes.append(min(float(mapped.sum()), float(len(usable))))
        rollouts.append(len(usable))
        effective.append(bool(usable.max() > usable.min()))
    return Counts(np.array(found, np.int64), successes, rollouts, effective, left_out)


def _rows(rewards: Column, tasks: int) -> list[Any]:
    given = columns.plain(rewards)
    if isinstance(given, np.ndarray) and given.ndim == 2:
        rows = list(given)
    elif isinstance(given, np.ndarray) and given.ndim == 1 and given.dtype.kind == "O":
        rows = given.tolist()
    elif isinstance(given, list):
        rows = given
    else:
        raise invalid("rewards", f"shape {np.shape(given)}", f"must be [{tasks} tasks, rollouts]")
    if len(rows) != tasks:
        raise invalid("rewards", f"{len(rows)} rows", f"must be one for each of the {tasks} tasks")
    for task, row in enumerate(rows):
        if columns.is_scalar(row):
            raise invalid(f"rewards[{task}]", repr(row), "must be the rewards of the task's rollouts")
    return rows


def _check(task: int, given: npt.NDArray[np.float64], low: float, high: float) -> None:
    slack = 1e-6 * (high - low)  # rewards in float32 or bfloat16 are off by their rounding
    with np.errstate(invalid="ignore"):
        wrong = (given < low - slack) | (given > high + slack)
    if wrong.any():
        first = int(np.argmax(wrong))
        rule = f"must be between low ({low}) and high ({high})"
        raise invalid(f"rewards[{task}][{first}]", float(given[first]), rule)
