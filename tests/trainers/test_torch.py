"""The dataset and the samplers without torch: a batch is one selection, a mark reports its row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bots
from bots.trainers import create_dataset
from bots.trainers.torch import BatchSampler, Sampler, TaskDataset

ROWS: list[dict[str, Any]] = [{"prompt": f"task {row}"} for row in range(30)]


@pytest.fixture
def run(client: bots.Client) -> bots.Run:
    """A run over the rows."""
    create_dataset(client, "d", ROWS, dimensions=0)
    return client.create_run("d", "r")


def posterior(run: bots.Run, row: dict[str, Any]) -> tuple[float, float]:
    """Returns alpha and beta of a row's task."""
    alpha, beta = run.posteriors(int(row["bots"].split(":")[-1]), rows=True)
    return float(alpha[0]), float(beta[0])


def test_batch_of_slots_is_one_selection(run: bots.Run) -> None:
    tasks = TaskDataset(ROWS, run)
    rows = tasks.__getitems__([0, 0, 1, 2])
    assert run.stats.selections == 1
    assert len({row["prompt"] for row in rows}) == 4
    assert tasks[7].keys() == {"prompt", "bots"}
    assert (run.stats.selections, len(tasks)) == (2, 30)


def test_rows_of_several_selections_are_reported_in_any_order(run: bots.Run) -> None:
    tasks = TaskDataset(ROWS, run)
    first, second = tasks.__getitems__(range(3)), tasks.__getitems__(range(3))
    rows = [second[2], first[1], first[0], second[0], first[2], second[1]]
    rewards = np.array([[1, 1], [0, 0], [1, 1], [0, 0], [1, 1], [0, 0]])
    tasks.report([row["bots"] for row in rows], rewards)
    assert run.info().version == 2
    for row, (reward, _) in zip(rows, rewards, strict=True):
        if sum(other["prompt"] == row["prompt"] for other in rows) == 1:
            alpha, beta = posterior(run, row)
            assert (alpha > beta) == bool(reward)
    with pytest.raises(bots.InvalidArgumentError, match="rewards: got 1 rows, must be one for each of the 2 marks"):
        tasks.report([row["bots"] for row in first[:2]], [[1]])


def test_row_that_is_no_mapping_is_refused(run: bots.Run) -> None:
    texts = [row["prompt"] for row in ROWS]
    with pytest.raises(TypeError, match="dataset: got a row of str, must be mappings, or mark= must mark them"):
        TaskDataset(texts, run, text=lambda row: row)[0]


def test_batch_sampler_goes_on_after_the_batches_that_were_yielded(run: bots.Run) -> None:
    sampler = BatchSampler(ROWS, run, 4, steps=5)
    batches = iter(sampler)
    rows = [next(batches), next(batches)]
    for batch, chosen in zip(sampler.pending, rows, strict=True):
        assert batch.ids is not None
        assert len(chosen) == 4
    sampler.pending.popleft().report_rewards([[1, 0]] * 4)
    state = sampler.state_dict()
    again = BatchSampler(ROWS, run, 4, steps=5)
    again.load_state_dict(state)
    assert len(list(again)) == 3
    assert run.stats.selections == 5


def test_sampler_selects_once_for_a_batch(run: bots.Run) -> None:
    assert len(list(Sampler(ROWS, run, 4, steps=3))) == 12
    assert run.stats.selections == 3
