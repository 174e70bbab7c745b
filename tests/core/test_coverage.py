"""Coverage: sets of tasks at any size, and when a task rests."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bots_server.core.coverage import evaluate, no_coverage
from bots_server.core.task_set import NO_TASKS, with_tasks
from tests.strategies import Columns


@given(st.integers(1, 5000), st.data())
def test_a_set_has_the_tasks_that_were_added(size: int, data: st.DataObject) -> None:
    """A set has what was added, sparse or dense; earlier sets never change."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    held, expected = [NO_TASKS], [set[int]()]
    for share in data.draw(st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.3]), max_size=6)):
        new = np.flatnonzero(rng.random(size) < share)
        new = new[~held[-1].has(new)]
        held.append(with_tasks(held[-1], new, size))
        expected.append(expected[-1] | set(new.tolist()))
    for tasks, right in zip(held, expected, strict=True):
        assert (tasks.tasks().tolist(), len(tasks)) == (sorted(right), len(right))
        which = rng.integers(0, size, (3, 5))
        assert tasks.has(which).tolist() == np.isin(which, sorted(right)).tolist()


@pytest.mark.parametrize("batch", [1, 5, 10])
def test_with_rest_1_every_task_is_evaluated_once_an_epoch(batch: int) -> None:
    """If only tasks that do not rest are evaluated, each epoch evaluates every task once."""
    tasks = Columns(100, {}).arranged()
    rng = np.random.default_rng(0)
    coverage, times = no_coverage(tasks), np.zeros(100, np.int64)
    for step in range(5 * 100 // batch):
        free = np.flatnonzero(coverage.rank(np.arange(100)) == 0)
        assert coverage.resting == 100 - len(free)
        chosen = np.sort(rng.choice(free, batch, replace=False))
        times[chosen] += 1
        coverage = evaluate(coverage, tasks, chosen, 1.0)
        if (step + 1) * batch % 100 == 0:
            assert (times == (step + 1) * batch // 100).all()
    assert (len(coverage.ever), coverage.evaluations) == (100, 500)


@pytest.mark.parametrize("rest", [0.1, 0.5, 1.0])
def test_a_task_rests_for_the_given_share_of_evaluations_or_half_of_it(rest: float) -> None:
    """A task is back after rest * N evaluations, and not before half as many."""
    tasks = Columns(1000, {}).arranged()
    coverage, order = no_coverage(tasks), np.random.default_rng(0).permutation(1000)
    for task in order[:200]:
        coverage = evaluate(coverage, tasks, np.array([task]), rest)
    later = 0
    while coverage.rank(order[199:200])[0]:
        coverage = evaluate(coverage, tasks, order[200 + later : 201 + later], rest)
        later += 1
    assert rest * 1000 / 2 <= later <= rest * 1000


def test_without_rest_no_task_rests() -> None:
    """With rest 0 nothing rests, and what rested before a change to 0 is free after the next evaluation."""
    tasks = Columns(10, {}).arranged()
    coverage = evaluate(no_coverage(tasks), tasks, np.array([1, 2]), 1.0)
    assert coverage.resting == 2
    coverage = evaluate(coverage, tasks, np.array([3]), 0.0)
    assert (coverage.resting, coverage.rank(np.arange(10)).max(), len(coverage.ever)) == (0, 0, 3)
