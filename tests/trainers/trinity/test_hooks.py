"""The selector in Trinity's own reader, and the operator in its own registry (`make trainers`)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trinity.buffer", reason="run by make trainers")

import torch
from trinity.buffer.operators import EXPERIENCE_OPERATORS
from trinity.buffer.reader.file_reader import FileReader
from trinity.common.config import DataSelectorConfig, FormatConfig, StorageConfig
from trinity.common.constants import SELECTOR_METRIC
from trinity.common.experience import EID, Experience

import bots
from bots.trainers import create_dataset
from tests.trainers.page import example

pytestmark = pytest.mark.filterwarnings("default")

ROWS = [{"question": f"{row} + 1 =", "answer": str(row + 1)} for row in range(20)]


@pytest.fixture
def run(client: bots.Client) -> bots.Run:
    """A run over the rows."""
    create_dataset(client, "sums", ROWS, text="question", dimensions=0)
    return client.create_run("sums", "r")


@pytest.fixture
def module(run: bots.Run, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the user's module, which is that of the page."""
    name = f"bots_trinity_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(example("Trinity-RFT", address))
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.fixture
def reader(module: str, tmp_path: Path) -> Any:
    """Trinity's reader of a file in another order, with the selector by its dotted path."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in reversed(ROWS)))
    return FileReader(
        StorageConfig(
            name="sums",
            path=str(folder),
            split="train",
            schema_type="task",
            batch_size=6,
            total_epochs=5,
            enable_progress_bar=False,
            format=FormatConfig(prompt_key="question", response_key="answer"),
            default_workflow_type="math_workflow",
            data_selector=DataSelectorConfig(selector_type=f"{module}.Selector"),
        )
    )


def experience(task: Any, run: int, step: int, reward: float) -> Any:
    """Returns one experience of a task, as the workflow runner makes it."""
    index = {**task.index, "taskset_id": 0}
    eid = EID(batch=1, task=task.index["index"], run=run, step=step)
    return Experience(eid=eid, tokens=torch.tensor([1, 2]), reward=reward, info={"task_index": index})


def test_selected_tasks_are_reported_with_true_counts(run: bots.Run, reader: Any, module: str) -> None:
    """A rollout of several steps counts once, by its last; a group of equal rewards counts."""
    tasks = asyncio.run(reader.read())
    rows = ROWS[::-1]
    assert [task.raw_task["question"] for task in tasks] == [rows[task.index["index"]]["question"] for task in tasks]
    exps = [
        experience(task, rollout, 0, float(rollout < place)) for place, task in enumerate(tasks) for rollout in range(4)
    ]
    exps += [experience(tasks[0], 3, 1, 1.0)]
    operator = EXPERIENCE_OPERATORS.get(f"{module}.Rewards")()
    same, metrics = asyncio.run(operator.process(exps))
    assert same is exps
    before = run.info().version
    reader.feedback(**metrics[SELECTOR_METRIC][0])
    reader.reader.selector._rewards.run.flush()
    (event,) = run.events(after_version=before)
    assert isinstance(event.kind, bots.ReportEvent)
    assert sorted(event.kind.successes) == [1, 1, 2, 3, 4, 4]
    assert list(event.kind.rollouts) == [4] * 6


def test_each_selection_of_the_same_rows_is_one_update(run: bots.Run, reader: Any) -> None:
    """Rewards that come late are of the last selection; a selection without rewards changes nothing."""
    selector = reader.reader.selector
    before = run.info().version
    for _ in range(3):
        selector.get_indices(len(ROWS))
        rows = selector.get_indices(len(ROWS))
        reader.feedback(indices=rows, values=[[0.0, 1.0]] * len(rows))
        run.flush()
    reader.feedback(indices=rows[:2], values=[[1.0]] * 2)
    selector._rewards.run.flush()
    reports = [event.kind for event in run.events(after_version=before) if isinstance(event.kind, bots.ReportEvent)]
    assert [len(report.tasks) for report in reports] == [20, 20, 20, 2]
    selections = [report.selection_id for report in reports]
    assert len(set(selections)) == 3
    assert selections[3] == selections[2]


def test_means_without_counts_are_refused(reader: Any) -> None:
    """They come of pass_rate_calculator."""
    (task, *_) = asyncio.run(reader.read())
    with pytest.raises(bots.InvalidArgumentError, match="must be lists of rewards"):
        reader.feedback(indices=[task.index["index"]], values=[0.5])


def test_state_of_the_selector_is_the_place_of_the_run(run: bots.Run, reader: Any) -> None:
    reader.load_state_dict({"current_index": 0})  # as at a fresh start
    run.report([run.task_ids()[0]], [4], 4)
    before = run.posteriors()[0].tolist()
    state = json.loads(json.dumps(reader.state_dict()))
    run.report([run.task_ids()[0]], [4], 4)
    reader.load_state_dict(state)
    assert run.posteriors()[0].tolist() == before
