"""HyperLogLog: the same registers in any order, and counts within the error that its size allows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bots_server.core.distinct import REGISTERS, add, estimate, zeros

task_lists = st.lists(st.integers(0, 10**8 - 1), max_size=50)


def array(tasks: list[int]) -> NDArray[np.int64]:
    return np.array(tasks, np.int64)


def test_nothing_is_0() -> None:
    """No task, no count."""
    assert estimate(zeros()) == 0.0


@given(task_lists, task_lists)
def test_order_and_repetition_change_nothing(first: list[int], second: list[int]) -> None:
    """Tasks may come in any groups, in any order and many times; registers given are never written to."""
    separate = add(add(zeros(), array(first)), array(second))
    before = separate.copy()
    assert add(separate, array(first[::-1])) is separate
    np.testing.assert_array_equal(add(zeros(), array(second + first + second)), separate)
    add(separate, array([7, 8, 9]))
    np.testing.assert_array_equal(separate, before)


@pytest.mark.parametrize("count", [1, 10, 100, 1_000, 3_000, 10_000, 100_000, 3_000_000])
@pytest.mark.parametrize("begin", [0, 50_000_000])
def test_counts_within_the_standard_error(count: int, begin: int) -> None:
    """The estimate is within 6.1 standard errors of 1.04 / sqrt(2048): an error probability of 1e-9."""
    registers = add(zeros(), np.arange(begin, begin + count))
    assert estimate(registers) == pytest.approx(count, rel=6.1 * 1.04 / np.sqrt(REGISTERS))


def test_estimates_are_unbiased() -> None:
    """The mean of many estimates is right: 100 sets of 5,000 tasks, where the classic estimate is worst."""
    estimates = [estimate(add(zeros(), np.arange(5_000) + 10**6 * j)) for j in range(100)]
    assert np.mean(estimates) == pytest.approx(5_000, rel=6.1 * 1.04 / np.sqrt(REGISTERS * 100))
