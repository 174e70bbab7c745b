"""Rewards of rollouts as trainers have them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bots
from bots.rewards import counts
from tests.client.recorder import Recorder
from tests.client.test_columns import Tensor

NAN = float("nan")


@pytest.mark.parametrize(
    "rewards",
    [
        [[1, 0, None], [None, None, None], [0.5, 0.5, 0.5]],
        np.array([[1, 0, NAN], [NAN, NAN, NAN], [0.5, 0.5, 0.5]]),
        np.array([[1, 0, None], [None, None, None], [0.5, 0.5, 0.5]], dtype=object),
        Tensor([[1, 0, NAN], [NAN, NAN, NAN], [0.5, 0.5, 0.5]]),
        [np.array([1.0, 0.0]), [], Tensor([0.5, 0.5, 0.5])],
    ],
    ids=["lists", "array", "objects", "tensor", "ragged"],
)
def test_missing_rewards_are_left_out(rewards: Any) -> None:
    """None and NaN count neither as success nor as rollout; a task without any reward says nothing."""
    found = counts(rewards, 3)
    assert found.tasks.tolist() == [0, 2]
    assert (found.successes, found.rollouts) == ([1.0, 1.5], [2, 3])
    assert found.effective == [True, False]


def test_ranges_are_mapped() -> None:
    """Rewards of -1..1 are mapped to 0..1; a threshold makes successes of them."""
    assert counts([[-1, 1, 0]], 1, low=-1).successes == [1.5]
    assert counts([[-1, 1, 0.2]], 1, low=-1, success=0.2).successes == [2.0]


def test_groups_without_spread_are_not_effective() -> None:
    """Eight times 0.5 teaches nothing, as the trainer's advantage sees it."""
    assert counts([[0.5] * 8, [0.5] * 7 + [0.6], [0.0] * 8, [1.0] * 8], 4).effective == [False, True, False, False]


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        ([[1, 2]], r"rewards\[0\]\[1\]: got 2.0, must be between low \(0.0\) and high \(1.0\)"),
        ([[1, float("inf")]], r"rewards\[0\]\[1\]: got inf"),
        ([[1], [0]], r"rewards: got 2 rows, must be one for each of the 1 tasks"),
        ([1.0], r"rewards\[0\]: got 1.0, must be the rewards of the task's rollouts"),
        (np.ones(8), r"rewards: got shape \(8,\), must be \[1 tasks, rollouts\]"),
        ([["1"]], r"rewards\[0\]\[0\]: got '1', must be a number"),
    ],
    ids=repr,
)
def test_wrong_rewards_are_refused_with_their_place(rewards: Any, message: str) -> None:
    """Nothing of it is reported."""
    with pytest.raises(bots.InvalidArgumentError, match=message):
        counts(rewards, 1)


def test_a_batch_tells_what_it_left_out(recorder: Recorder, run: bots.Run) -> None:
    """The report has the tasks with a reward and their spread; leases of the others end."""
    batch = run.select(3, lease_seconds=60, policy_step=3)
    done = batch.report_rewards([[1, 0, None], [None, NAN], [0.5, 0.5]], policy_step=4)
    assert (done.rollouts, done.left_out, done.empty_tasks.tolist()) == (4, 3, [1])
    (report,) = [call.request for call in recorder.of("ReportOutcomes")]
    assert (list(report.tasks), list(report.successes), list(report.rollouts)) == ([0, 2], [1.0, 1.0], [2, 2])
    assert list(report.effective) == [True, False]
    assert (report.policy_step, report.selection_policy_step) == (4, 3)
    (release,) = [call.request for call in recorder.of("ReleaseSelection")]
    assert (release.selection_id, list(release.tasks)) == (batch.selection_id, [1])


def test_a_batch_without_any_reward_reports_nothing(recorder: Recorder, run: bots.Run) -> None:
    """There is nothing to report, and that is no error."""
    assert run.select(2).report_rewards([[None], []]).version is None
    assert recorder.of("ReportOutcomes") == []
