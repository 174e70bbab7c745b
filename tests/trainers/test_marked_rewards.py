"""Rewards that are scattered over threads and processes are one update of the posterior, as if reported at once."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
from typing import Any

import numpy as np
import pytest

import bots
from bots.trainers import TaskRows, batch_of, create_dataset, marks
from bots.trainers.marked_rewards import MarkedRewards
from bots.trainers.supply import RowSupply
from bots.trainers.verl import bots_compute_score

ROWS = [{"prompt": f"task {row}"} for row in range(40)]
WORKERS = 8  # verl's reward.num_workers


@pytest.fixture
def run(client: bots.Client) -> bots.Run:
    """A run over the rows."""
    create_dataset(client, "d", ROWS, dimensions=0)
    return client.create_run("d", "r")


def score_of(place: int, rollout: int) -> float:
    """Returns the reward of a rollout: of task `place` as many as its number are 1."""
    return float(rollout < place)


def reward_worker(address: str, jobs: list[tuple[str, int, int]]) -> None:
    """What one of verl's reward workers does: it loads the user's file and scores some rollouts."""
    run = bots.Client(address, job="trainer", timeout=20).run("d", "r")
    compute_score = bots_compute_score(run, lambda ground_truth, **others: score_of(*ground_truth))
    for mark, place, rollout in jobs:
        compute_score(
            data_source="", solution_str="", ground_truth=(place, rollout), extra_info={"bots": mark, "index": 0}
        )
        compute_score(data_source="", solution_str="", ground_truth=(place, rollout), extra_info={"index": 0})
    # The process ends: the rewards of the last seconds are reported then.


def test_eight_processes_give_the_posterior_of_one_report(client: bots.Client, address: str, run: bots.Run) -> None:
    """Rollouts are spread over processes, groups with equal rewards are counted, unmarked rows (validation) are not."""
    batch = run.select(5, seed=3)
    whole = client.create_run("d", "whole")
    whole.report(batch.ids, [0, 1, 2, 3, 4], 4)
    jobs = [(mark, place, rollout) for place, mark in enumerate(marks(batch)) for rollout in range(4)]
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=reward_worker, args=(address, jobs[worker::WORKERS])) for worker in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    np.testing.assert_allclose(run.posteriors(), whole.posteriors(), atol=1e-4)
    total = run.summary().total
    assert (total.rollouts, total.updates, total.outcomes) == (20, 1, 5)


def test_rewards_of_a_window_are_one_report(run: bots.Run) -> None:
    """Threads add, `send` reports without waiting, None is left out."""
    before = run.info().version
    rewards = MarkedRewards(run, every_seconds=600)
    found = marks(run.select(4))
    adding = [threading.Thread(target=rewards.add, args=(mark, 1.0, None, 0.0)) for mark in found for _ in range(3)]
    for thread in adding:
        thread.start()
    for thread in adding:
        thread.join()
    rewards.send()
    run.flush()
    (event,) = run.events(after_version=before)
    assert isinstance(event.kind, bots.ReportEvent)
    assert (list(event.kind.successes), list(event.kind.rollouts)) == ([3.0] * 4, [6] * 4)


def test_window_ends_by_itself(run: bots.Run) -> None:
    rewards = MarkedRewards(run, every_seconds=0.01)
    before = run.info().version
    rewards.add(marks(run.select(1))[0], 1.0)
    for summary in run.watch(0.1):
        if summary.run.version == before + 1:
            break


def test_wrong_reward_is_refused_when_it_is_added(run: bots.Run) -> None:
    """Not in the background, where no one would see it."""
    rewards = MarkedRewards(run)
    (mark,) = marks(run.select(1))
    with pytest.raises(bots.InvalidArgumentError, match="must be between"):
        rewards.add(mark, -1.0)
    with pytest.raises(bots.InvalidArgumentError, match="must be a mark"):
        rewards.add("7", 1.0)


def test_copy_starts_empty(run: bots.Run) -> None:
    rewards = MarkedRewards(run, every_seconds=600, low=-1)
    rewards.add(marks(run.select(1))[0], 1.0)
    copy: Any = pickle.loads(pickle.dumps(rewards))
    before = run.info().version
    copy.send()
    copy.run.flush()
    assert run.info().version == before
    assert copy.range["low"] == -1


def test_supply_selects_whole_batches_for_single_rows(run: bots.Run) -> None:
    supply = RowSupply(TaskRows(run, ROWS), 8)
    taken = [row for _ in range(12) for row in supply.take(1)]
    assert run.stats.selections == 2
    assert len({mark.split(":")[0] for _, mark in taken}) == 2
    ids, identity = run.task_ids(), supply.rows.identity
    assert all(ids[batch_of(run, mark).tasks[0]] == identity.of_row(ROWS[row]) for row, mark in taken)
    assert len(supply.take(20)) == 20


def test_supply_selects_ahead_when_half_is_handed_out(run: bots.Run) -> None:
    supply = RowSupply(TaskRows(run, ROWS), 8, ahead=True)
    supply.take(3)
    assert run.stats.selections == 1
    supply.take(1)
    supply.take(8)  # waits for the selection that is under way
    assert run.stats.selections in (2, 3)
