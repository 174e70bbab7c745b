"""Values as trainers hold them become the columns of a request: one conversion for all."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

import bots
from bots import columns

UUID = uuid.UUID("12345678-1234-5678-1234-567812345678")


def shown(value: object) -> str | None:
    """Returns a parameter's name in the report; None: pytest's own, for objects whose text has their address."""
    return None if " at 0x" in repr(value) else repr(value)


class Tensor:
    """Stands for a torch tensor on a device, in bfloat16 and with a gradient: numpy() works on none of these."""

    def __init__(self, values: Any, *, steps: tuple[str, ...] = ("detach", "cpu", "float")) -> None:
        self.values = np.asarray(values, np.float32)
        self.steps = steps
        self.dtype = "torch.bfloat16"

    def _after(self, step: str) -> Tensor:
        return Tensor(self.values, steps=tuple(other for other in self.steps if other != step))

    def detach(self) -> Tensor:
        return self._after("detach")

    def cpu(self) -> Tensor:
        return self._after("cpu")

    def float(self) -> Tensor:
        return self._after("float")

    def numpy(self) -> Any:
        assert not self.steps, f"{self.steps} must come first"
        return self.values


class Series:
    """Stands for a column of pandas."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def to_numpy(self) -> Any:
        return np.array(self.values, dtype=object)


ROWS: list[Any] = [
    [3, 5],
    (3, 5),
    np.array([3, 5], dtype=np.uint8),
    np.array([3, 5], dtype=np.uint64),
    np.array([3, 5], dtype=object),
    np.array([3.0, 5.0]),
    [np.int64(3), np.int32(5)],
    [np.array(3), np.array([5])],
    range(3, 7, 2),
    {3: "a", 5: "b"}.keys(),
    Tensor([3, 5]),
    [Tensor(3), Tensor(5)],
    Series([3, 5]),
]


@pytest.mark.parametrize("tasks", [*ROWS, (task for task in (3, 5))], ids=shown)
def test_rows_are_taken_as_trainers_hold_them(tasks: Any) -> None:
    """Without ids whole numbers of any kind are row numbers."""
    assert columns.rows_or_ids("tasks", tasks, has_ids=False) == ([3, 5], [])


@pytest.mark.parametrize("tasks", ROWS, ids=shown)
def test_with_ids_whole_numbers_are_looked_up_as_ids(tasks: Any) -> None:
    """With ids a whole number is never taken for a row number."""
    assert columns.rows_or_ids("tasks", tasks, has_ids=True) == ([], ["3", "5"])


@pytest.mark.parametrize(
    "tasks",
    [
        ["a", "7"],
        np.array(["a", "7"]),
        np.array(["a", 7], dtype=object),
        [np.str_("a"), b"7"],
        Series(["a", "7"]),
        (text for text in "a7"),
    ],
    ids=shown,
)
def test_ids_are_taken_as_trainers_hold_them(tasks: Any) -> None:
    """Strings, whole numbers and UTF-8 are ids."""
    assert columns.rows_or_ids("tasks", tasks, has_ids=True) == ([], ["a", "7"])


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (["a"], r"tasks\[0\]: got 'a', must be a row number: the dataset has no ids"),
        ([1, 1.5], r"tasks\[1\]: got 1.5, must be a whole number"),
        ([[1, 2]], r"tasks\[0\]: got 2 values, must be one value"),
        (np.zeros((2, 2)), r"tasks: got shape \(2, 2\), must have one dimension"),
        ({3, 5}, "tasks: got a set of 2, must have an order"),
        (np.array([True, False]), "tasks: got a mask of booleans, must be tasks"),
        ([None], r"tasks\[0\]: got None, must be a whole number"),
        ([float("nan")], r"tasks\[0\]: got nan, must be a whole number"),
    ],
    ids=shown,
)
def test_other_tasks_are_refused_with_their_place(tasks: Any, message: str) -> None:
    """The message has the field, the position, the value and the rule."""
    with pytest.raises(bots.InvalidArgumentError, match=message):
        columns.rows_or_ids("tasks", tasks, has_ids=False)


@pytest.mark.parametrize(
    "successes",
    [
        [1, 0.5],
        (True, Decimal("0.5")),
        np.array([1, 0.5], dtype=np.float16),
        np.array([1, 0.5], dtype=object),
        Tensor([1, 0.5]),
    ],
    ids=shown,
)
def test_successes_are_taken_as_trainers_hold_them(successes: Any) -> None:
    """Numbers of any kind count; rollouts may be one number for all, and a whole float."""
    assert columns.outcomes(successes, 4.0, 2) == ([1.0, 0.5], [4, 4])


@pytest.mark.parametrize(
    ("successes", "rollouts", "message"),
    [
        ([1, 5], 4, r"successes\[1\]: got 5.0, must be finite and between 0 and its rollouts \(4\)"),
        ([1, float("nan")], 4, r"successes\[1\]: got nan, must be finite"),
        ([1, -0.1], 4, r"successes\[1\]: got -0.1"),
        ([1, 1], [4, 0], r"rollouts\[1\]: got 0, must be between 1 and 1000000"),
        ([1, 1], 1.5, r"rollouts: got 1.5, must be a whole number"),
        ([1, 1], "4", r"rollouts: got '4', must be a whole number"),
        (["1", 1], 4, r"successes\[0\]: got '1', must be a number"),
        ([1, 1, 1], 4, r"successes: got 3 entries, must be one value or one for each of the 2 tasks"),
        ([[1, 0], [1, 1]], 4, r"successes: got a matrix, must be one number for each task"),
        (np.ones((2, 4)), 4, r"successes: got a matrix, must be one number for each task"),
    ],
    ids=shown,
)
def test_wrong_outcomes_are_refused_with_their_place(successes: Any, rollouts: Any, message: str) -> None:
    """The rule that the service has is checked where the values are known, in the same words."""
    with pytest.raises(bots.InvalidArgumentError, match=message):
        columns.outcomes(successes, rollouts, 2)


def test_a_sum_that_rounding_put_beyond_its_bound_is_its_bound() -> None:
    """Sums of float32 rewards that miss 0 or the rollouts by their rounding are taken."""
    assert columns.outcomes([np.float32(8.000001), -1e-9], 8, 2) == ([8.0, 0.0], [8, 8])


def test_rates_may_be_missing() -> None:
    """None and NaN are NaN in a column of rates; text is refused."""
    np.testing.assert_array_equal(columns.floats("weak", [0.5, None, float("nan")]), [0.5, np.nan, np.nan])
    np.testing.assert_array_equal(columns.floats("weak", Series([0.5, None])), [0.5, np.nan])
    with pytest.raises(bots.InvalidArgumentError, match=r"weak\[1\]: got '0.5', must be a number"):
        columns.floats("weak", [0.5, "0.5"])


def test_ids_and_tags_are_text_as_written() -> None:
    """Whole numbers and UUIDs are written out; what has no one text is refused."""
    assert columns.texts("ids", [900, "007", UUID]) == ["900", "007", str(UUID)]
    for wrong in (None, 1.5, True, ["math", "hard"], b"\xff"):
        with pytest.raises(bots.InvalidArgumentError, match=r"tags\[1\]"):
            columns.texts("tags", ["math", wrong])
