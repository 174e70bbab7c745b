"""Evidence: outcomes of a task are summed, and the spread of a group is known however it was reported."""

import numpy as np
import pytest

from bots_server.core.evidence import NOTHING, capped, gather, merge


def test_gather_sums_the_outcomes_of_a_task() -> None:
    """Several outcomes of one task are one, in order of task."""
    evidence = gather(np.array([5, 2, 5]), np.array([1.0, 0.5, 2.5]), np.array([4, 1, 4]))
    assert evidence.tasks.tolist() == [2, 5]
    assert evidence.successes.tolist() == [0.5, 3.5]
    assert evidence.rollouts.tolist() == [1.0, 8.0]
    assert evidence.spread().tolist() == [True, True]


@pytest.mark.parametrize(
    ("successes", "rollouts", "effective", "expected"),
    [
        ([4.0], [8], [False], False),  # all rewards are 1/2
        ([4.0], [8], [True], True),
        ([1.0, 2.0], [2, 4], [False, False], False),
        ([0.3, 0.1, 0.2], [3, 1, 2], [False, False, False], False),  # equal but for rounding
        ([1.0, 3.0], [2, 4], [False, False], True),
        ([1.0, 2.0], [2, 4], [False, True], True),
        ([8.0], [8], None, False),
        ([8.0, 0.0], [8, 1], None, True),
    ],
)
def test_a_group_is_effective_if_its_rewards_were_not_all_equal(
    successes: list[float], rollouts: list[int], effective: list[bool] | None, expected: bool
) -> None:
    """As given, or if the parts' pass rates differ; without it the sum tells: neither none nor all succeeded."""
    same = np.zeros(len(successes), np.int64)
    given = None if effective is None else np.array(effective)
    assert gather(same, np.array(successes), np.array(rollouts), given).spread().tolist() == [expected]
    merged = NOTHING
    for j in range(len(successes)):
        part = slice(j, j + 1)
        spread = None if given is None else given[part]
        merged = merge(merged, gather(same[part], np.array(successes[part]), np.array(rollouts[part]), spread))
    assert merged.spread().tolist() == [expected]
    assert merged.successes.tolist() == [pytest.approx(sum(successes))]


def test_a_part_without_spread_tells_its_own() -> None:
    """If only some parts say whether they were effective, the others' successes tell."""
    silent = gather(np.array([1]), np.array([1.0]), np.array([2]))
    given = gather(np.array([1]), np.array([1.0]), np.array([2]), np.array([False]))
    assert merge(silent, given).spread().tolist() == [True]
    assert merge(given, given).spread().tolist() == [False]


def test_more_than_1024_rollouts_count_as_1024() -> None:
    """The pass rate stays."""
    evidence = capped(gather(np.array([1, 2, 3]), np.array([512.0, 1e9, 3.0]), np.array([1024, 4 * 10**9, 4])))
    assert evidence.rollouts.tolist() == [1024.0, 1024.0, 4.0]
    assert evidence.successes.tolist() == [512.0, 256.0, 3.0]
