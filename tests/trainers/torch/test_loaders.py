"""The dataset and the batch sampler in torch's and torchdata's own loaders (`make trainers`)."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torchdata", reason="run by make trainers")

from torch.utils.data import DataLoader, RandomSampler
from torchdata.stateful_dataloader import StatefulDataLoader

import bots
from bots.trainers import create_dataset
from bots.trainers.torch import BatchSampler, TaskDataset
from tests.trainers.page import example

ROWS: list[dict[str, Any]] = [{"prompt": f"task {row}"} for row in range(40)]

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def run(client: bots.Client) -> bots.Run:
    """A run over the rows."""
    create_dataset(client, "d", ROWS, dimensions=0)
    return client.create_run("d", "r")


def test_loader_makes_one_selection_a_batch_when_it_is_asked(run: bots.Run) -> None:
    """Each batch sees the report of the batch before; marks survive the default collate."""
    tasks = TaskDataset(ROWS, run)
    for step, rows in enumerate(DataLoader(tasks, batch_size=8, shuffle=True)):
        assert run.stats.selections == step + 1
        assert run.version is not None
        assert run.version == (run.joined_version or 0) + step
        tasks.report(rows["bots"], [[1.0, 0.0]] * 8)
    assert run.info().version == 5 + (run.joined_version or 0)


@pytest.mark.parametrize("sampler", [None, RandomSampler])
def test_resumed_loader_selects_nothing_again(run: bots.Run, sampler: Any) -> None:
    def loader() -> Any:
        tasks = TaskDataset(ROWS, run)
        return StatefulDataLoader(tasks, batch_size=8, sampler=None if sampler is None else sampler(tasks))

    first = loader()
    batches = iter(first)
    for _ in range(3):
        next(batches)
    state = first.state_dict()
    assert run.stats.selections == 3
    again = loader()
    again.load_state_dict(state)
    assert len(list(again)) == 2
    assert run.stats.selections == 5


def test_resumed_batch_sampler_selects_nothing_again(run: bots.Run) -> None:
    def loader() -> Any:
        return StatefulDataLoader(ROWS, batch_sampler=BatchSampler(ROWS, run, 8, steps=5))

    first = loader()
    batches = iter(first)
    for _ in range(3):
        next(batches)
    state = first.state_dict()
    again = loader()
    again.load_state_dict(state)
    assert len(list(again)) == 2
    assert run.stats.selections == 5


def test_workers_are_refused(run: bots.Run) -> None:
    with pytest.raises(RuntimeError, match="num_workers: must be 0"):
        next(iter(DataLoader(TaskDataset(ROWS, run), batch_size=8, num_workers=1)))


@pytest.mark.parametrize("heading", ["Trainers that take a torch Dataset", "Trainers that take a sampler"])
def test_loop_of_the_page_makes_an_update_each_step(run: bots.Run, heading: str) -> None:
    user = {"dataset": ROWS, "run": run, "train_on": lambda rows: [[1.0, 0.0]] * len(rows)}
    exec(example(heading, "").replace("steps=1000", "steps=5"), user)
    assert run.stats.selections == run.summary().updates == 5
